//! What passes, and what is refused with which words.

use std::collections::BTreeMap;

use serde_json::json;

use super::{
    connection::CREDENTIAL,
    target::{PATHS, TARGETS, TEMPLATE},
    *,
};

const CONNECTION: &str =
    "arn:aws:events:us-east-2:100000000001:connection/c/0b2c1a3e-0000-4000-8000-000000000000";
const ROLE: &str = "arn:aws:iam::100000000001:role/events";

/// The form with some members replaced, or taken out where they are null.
fn with(mut form: Value, changes: &Value) -> Value {
    let members = form.as_object_mut().unwrap();
    for (key, value) in changes.as_object().unwrap() {
        if value.is_null() {
            members.remove(key);
        } else {
            members.insert(key.clone(), value.clone());
        }
    }
    form
}

fn rule(changes: &Value) -> Value {
    let form = json!({"Name": "campanile_a", "EventPattern": "{\"source\":[\"aws.cloudwatch\"]}"});
    with(form, changes)
}

fn target() -> Value {
    json!({
        "Id": "channel",
        "Arn": "arn:aws:events:us-east-2:100000000001:api-destination/d/0b2c1a3e-0000-4000-8000-000000000000",
        "RoleArn": ROLE,
        "InputTransformer": {
            "InputPathsMap": {"reason": "$.detail.state.reason", "first": "$.resources[0]"},
            "InputTemplate": "{\"text\":<reason>,\"of\":\"<first> <aws.events.rule-name>\",\"is\":\"a < b\"}",
        },
        "RetryPolicy": {"MaximumRetryAttempts": 185, "MaximumEventAgeInSeconds": 3600},
        "DeadLetterConfig": {"Arn": "arn:aws:sqs:us-east-2:100000000001:letters"},
    })
}

fn targets(changes: &Value) -> Value {
    json!({"Rule": "r", "Targets": [with(target(), changes)]})
}

fn transformed(paths: &Value, template: &str) -> Value {
    targets(&json!({"InputTransformer": {"InputPathsMap": paths, "InputTemplate": template}}))
}

fn template(text: &str) -> Value {
    transformed(&json!({"a": "$.detail"}), text)
}

fn path(path: &str) -> Value {
    transformed(&json!({"a": path}), "<a>")
}

fn connection(changes: &Value) -> Value {
    let form = json!({
        "Name": "c", "AuthorizationType": "API_KEY",
        "AuthParameters": {"ApiKeyAuthParameters": {"ApiKeyName": "Authorization", "ApiKeyValue": "Bearer x"}},
    });
    with(form, changes)
}

fn key(name: &str, value: &str) -> Value {
    let key = json!({"ApiKeyName": name, "ApiKeyValue": value});
    connection(&json!({"AuthParameters": {"ApiKeyAuthParameters": key}}))
}

fn destination(changes: &Value) -> Value {
    let form = json!({
        "Name": "d", "ConnectionArn": CONNECTION, "InvocationEndpoint": "https://hooks.slack.com/services/T/B/x",
        "HttpMethod": "POST", "InvocationRateLimitPerSecond": 1,
    });
    with(form, changes)
}

/// That none of these bodies is taken, each for a reason in which this is said.
fn refuses(operation: &str, cases: &[(Value, &str)]) {
    for (body, says) in cases {
        let refusal = check(operation, body).expect_err(&format!("{operation} {body}"));
        assert_eq!(refusal.code, "ValidationException", "{operation} {body}");
        let found = refusal.message.contains(says);
        assert!(found, "{operation}: {} without {says}", refusal.message);
    }
}

#[test]
fn the_legal_forms_pass() {
    let long = "x".repeat(NAME);
    let cases = [
        ("PutRule", rule(&json!({}))),
        (
            "PutRule",
            rule(&json!({"Name": long, "RoleArn": ROLE, "State": "DISABLED"})),
        ),
        ("PutTargets", targets(&json!({}))),
        (
            "PutTargets",
            targets(&json!({"InputTransformer": null, "Input": "{}"})),
        ),
        ("PutTargets", template("\"no < placeholder\"")),
        ("PutTargets", template("<a> and <aws.events.event.json>")),
        ("PutTargets", path("$.detail.alarmTags.campanile-alarm")),
        ("RemoveTargets", json!({"Rule": "r", "Ids": ["a"]})),
        ("CreateConnection", connection(&json!({}))),
        (
            "CreateConnection",
            key("Authorization", &"x".repeat(CREDENTIAL)),
        ),
        ("UpdateConnection", json!({"Name": "c"})),
        (
            "UpdateConnection",
            json!({"Name": "c", "AuthParameters": {"ApiKeyAuthParameters": {"ApiKeyValue": "x"}}}),
        ),
        ("CreateApiDestination", destination(&json!({}))),
        (
            "CreateApiDestination",
            destination(&json!({"InvocationEndpoint": "http://127.0.0.1:80/api/chat.postMessage"})),
        ),
        (
            "UpdateApiDestination",
            json!({"Name": "d", "InvocationRateLimitPerSecond": 300}),
        ),
        ("ListRules", json!({})),
        (
            "ListRules",
            json!({"NamePrefix": "campanile_", "Limit": 100, "NextToken": "MQ"}),
        ),
        ("ListTargetsByRule", json!({"Rule": "r"})),
        ("ListConnections", json!({"ConnectionState": "AUTHORIZED"})),
        ("DescribeConnection", json!({"Name": "c"})),
        (
            "TestEventPattern",
            json!({"EventPattern": "{}", "Event": "{}"}),
        ),
        ("PutEvents", json!({"Entries": "what the emulator checks"})),
    ];
    for (operation, body) in cases {
        assert_eq!(check(operation, &body), Ok(()), "{operation} {body}");
    }
}

#[test]
fn what_is_illegal_is_refused_and_named() {
    let long = |length: usize| "x".repeat(length);
    let paths: BTreeMap<String, &str> = (0..=PATHS).map(|n| (format!("p{n}"), "$.id")).collect();
    let many: Vec<Value> = (0..=TARGETS)
        .map(|n| with(target(), &json!({"Id": n.to_string()})))
        .collect();
    refuses(
        "PutRule",
        &[
            (json!({}), "'name'"),
            (rule(&json!({"Name": ""})), "greater than or equal to 1"),
            (rule(&json!({"Name": long(65)})), "less than or equal to 64"),
            (rule(&json!({"Name": "a/b"})), "[\\.\\-_A-Za-z0-9]+"),
            (rule(&json!({"Name": "ä"})), "[\\.\\-_A-Za-z0-9]+"),
            (rule(&json!({"Description": long(513)})), "'description'"),
            (rule(&json!({"State": "ON"})), "enum value set"),
            (rule(&json!({"RoleArn": "role"})), "Provided Arn"),
            (rule(&json!({"EventPattern": long(4097)})), "4096"),
            (
                rule(&json!({"Tags": [{"Key": "", "Value": ""}]})),
                "'tags.member.key'",
            ),
        ],
    );
    refuses(
        "PutTargets",
        &[
            (json!({"Rule": "r", "Targets": []}), "'targets'"),
            (
                json!({"Rule": "r", "Targets": many}),
                "less than or equal to 10",
            ),
            (
                json!({"Rule": "r", "Targets": [target(), target()]}),
                "Duplicate target id: channel",
            ),
            (targets(&json!({"Id": "a b"})), "'targets.1.member.id'"),
            (targets(&json!({"Arn": null})), "'targets.1.member.arn'"),
            (targets(&json!({"Input": "{}"})), "Only one of"),
            (
                targets(&json!({"Input": "{", "InputTransformer": null})),
                "JSON syntax error",
            ),
            (
                targets(&json!({"RetryPolicy": {"MaximumRetryAttempts": 186}})),
                "less than or equal to 185",
            ),
            (
                targets(&json!({"RetryPolicy": {"MaximumEventAgeInSeconds": 59}})),
                "greater than or equal to 60",
            ),
            (
                targets(&json!({"RetryPolicy": {"MaximumEventAgeInSeconds": 86_401}})),
                "86400",
            ),
            (
                targets(&json!({"DeadLetterConfig": {"Arn": "arn:aws:sns:a:b:c"}})),
                "SQS queue",
            ),
            (template(""), "greater than or equal to 1"),
            (template(&long(TEMPLATE + 1)), "8192"),
            (
                template("<b>"),
                "target channel contains invalid placeholder b.",
            ),
            (
                template("\"<https://a|b>\""),
                "invalid placeholder https://a|b.",
            ),
            (template("\"<!here>\""), "invalid placeholder !here."),
            (template("\"a < <b>\""), "invalid placeholder b."),
            (template("<>"), "invalid placeholder ."),
            (transformed(&json!(paths), "x"), "100"),
            (transformed(&json!({"awsX": "$"}), "x"), "reserved key"),
            (transformed(&json!({"a b": "$"}), "x"), "invalid key"),
            (path("detail"), "Invalid InputPath"),
            (path("$.a b"), "Invalid InputPath"),
            (path("$..a"), "Invalid InputPath"),
            (path("$.a[x]"), "Invalid InputPath"),
        ],
    );
    refuses(
        "RemoveTargets",
        &[
            (json!({"Rule": "r", "Ids": []}), "'ids'"),
            (json!({"Ids": ["a"]}), "'rule'"),
        ],
    );
    refuses(
        "CreateConnection",
        &[
            (
                connection(&json!({"AuthorizationType": null})),
                "'authorizationType'",
            ),
            (
                connection(&json!({"AuthParameters": null})),
                "'authParameters'",
            ),
            (
                connection(&json!({"AuthorizationType": "BASIC"})),
                "do not match",
            ),
            (connection(&json!({"Description": "a\nb"})), "'description'"),
            (key("", "v"), "apiKeyName"),
            (key("a", "b:c"), "apiKeyValue"),
            (key("a", &long(CREDENTIAL + 1)), "less than or equal to 512"),
        ],
    );
    refuses(
        "UpdateConnection",
        &[(
            json!({"Name": "c", "AuthorizationType": "NONE"}),
            "enum value set",
        )],
    );
    refuses(
        "CreateApiDestination",
        &[
            (
                destination(
                    &json!({"ConnectionArn": "arn:aws:events:us-east-2:100000000001:connection/c"}),
                ),
                "'connectionArn'",
            ),
            (destination(&json!({"HttpMethod": "TRACE"})), "'httpMethod'"),
            (destination(&json!({"HttpMethod": null})), "'httpMethod'"),
            (
                destination(&json!({"InvocationRateLimitPerSecond": 0})),
                "greater than or equal to 1",
            ),
            (
                destination(&json!({"InvocationEndpoint": "http://hooks.slack.com/services/x"})),
                "HTTPS",
            ),
            (
                destination(&json!({"InvocationEndpoint": "https://"})),
                "HTTPS",
            ),
            (
                destination(&json!({"InvocationEndpoint": "https://a/b c"})),
                "HTTPS",
            ),
            (
                destination(&json!({"InvocationEndpoint": "http://127.0.0.1@evil.example/"})),
                "HTTPS",
            ),
        ],
    );
    refuses(
        "ListRules",
        &[
            (json!({"Limit": 0}), "'limit'"),
            (json!({"Limit": 101}), "'limit'"),
            (json!({"NamePrefix": "a/"}), "'namePrefix'"),
            (json!({"NextToken": ""}), "'nextToken'"),
        ],
    );
    refuses("ListTargetsByRule", &[(json!({}), "'rule'")]);
    refuses(
        "ListConnections",
        &[(json!({"ConnectionState": "OPEN"}), "enum value set")],
    );
    refuses("DescribeRule", &[(json!({}), "'name'")]);
    refuses(
        "TestEventPattern",
        &[(json!({"EventPattern": "{}"}), "'event'")],
    );
    let long = rule(&json!({"EventPattern": long(2049)}));
    let over = check("PutRule", &long);
    assert_eq!(over.unwrap_err().code, "LimitExceededException");
    let wrong = check("PutRule", &json!({"Name": 1}));
    assert_eq!(wrong.unwrap_err().code, "SerializationException");
}

#[test]
fn a_secret_is_not_repeated() {
    for value in [
        format!("canary{}", "x".repeat(CREDENTIAL)),
        "canary:".to_owned(),
    ] {
        let refusal = check("CreateConnection", &key("a", &value)).unwrap_err();
        assert!(!refusal.message.contains("canary"), "{}", refusal.message);
    }
}
