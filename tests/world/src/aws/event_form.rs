//! What EventBridge refuses for its form, which the emulator takes.
//!
//! Pure: a request body in, AWS's refusal out. Bounds are those of the service model; where AWS's own words are not known the message
//! says what is wrong in its manner. What depends on what there is already, the emulator's patches refuse.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// The longest that a rule, target, connection or API destination may be called.
const NAME: usize = 64;
const DESCRIPTION: usize = 512;
/// The model takes 4096 bytes of a pattern, the quota of an account half of that.
const PATTERN: (usize, usize) = (4096, 2048);
const TEMPLATE: usize = 8192;
const PATHS: usize = 100;
const CREDENTIAL: usize = 512;
/// The quota of targets in a call.
const TARGETS: usize = 10;
const METHODS: [&str; 7] = ["POST", "GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"];
const CONNECTION_STATES: [&str; 9] = [
    "CREATING",
    "UPDATING",
    "DELETING",
    "AUTHORIZED",
    "DEAUTHORIZED",
    "AUTHORIZING",
    "DEAUTHORIZING",
    "ACTIVE",
    "FAILED_CONNECTIVITY",
];
/// What stands in a template without a path of its own.
const RESERVED: [&str; 5] = [
    "aws.events.rule-arn",
    "aws.events.rule-name",
    "aws.events.event.ingestion-time",
    "aws.events.event",
    "aws.events.event.json",
];

/// A refusal: its code and its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) message: String,
}

type Checked = Result<(), Refusal>;

/// Checks the body of `operation`. Operations without rules of their own pass.
pub(super) fn check(operation: &str, body: &Value) -> Checked {
    match operation {
        "PutRule" => read::<Rule>(body)?.check(),
        "DescribeRule"
        | "DeleteRule"
        | "EnableRule"
        | "DisableRule"
        | "DescribeConnection"
        | "DeleteConnection"
        | "DeauthorizeConnection"
        | "DescribeApiDestination"
        | "DeleteApiDestination" => read::<Named>(body)?.check(),
        "ListRules" | "ListConnections" | "ListApiDestinations" | "ListTargetsByRule" => {
            read::<Listing>(body)?.check(operation == "ListTargetsByRule")
        }
        "PutTargets" => read::<PutTargets>(body)?.check(),
        "RemoveTargets" => read::<RemoveTargets>(body)?.check(),
        "CreateConnection" => read::<Connection>(body)?.check(true),
        "UpdateConnection" => read::<Connection>(body)?.check(false),
        "CreateApiDestination" => read::<Destination>(body)?.check(true),
        "UpdateApiDestination" => read::<Destination>(body)?.check(false),
        "TestEventPattern" => {
            let test = read::<Test>(body)?;
            required("event", test.event.as_deref())?;
            pattern(required("eventPattern", test.event_pattern.as_deref())?)
        }
        "TagResource" => {
            let tagging = read::<Tagging>(body)?;
            required("resourceARN", tagging.arn.as_deref())?;
            tags(&tagging.tags)
        }
        _ => Ok(()),
    }
}

fn read<T: serde::de::DeserializeOwned>(body: &Value) -> Result<T, Refusal> {
    T::deserialize(body).map_err(|error| Refusal {
        code: "SerializationException",
        message: error.to_string(),
    })
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Named {
    name: Option<String>,
}

impl Named {
    fn check(&self) -> Checked {
        name("name", self.name.as_deref())
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Tag {
    key: String,
    value: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Tagging {
    #[serde(rename = "ResourceARN")]
    arn: Option<String>,
    tags: Vec<Tag>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Test {
    event_pattern: Option<String>,
    event: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Rule {
    name: Option<String>,
    description: Option<String>,
    event_pattern: Option<String>,
    state: Option<String>,
    role_arn: Option<String>,
    tags: Vec<Tag>,
}

impl Rule {
    fn check(&self) -> Checked {
        name("name", self.name.as_deref())?;
        at_most("description", self.description.as_deref(), DESCRIPTION)?;
        one_of(
            "state",
            self.state.as_deref(),
            &[
                "ENABLED",
                "DISABLED",
                "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS",
            ],
        )?;
        role(self.role_arn.as_deref())?;
        tags(&self.tags)?;
        self.event_pattern.as_deref().map_or(Ok(()), pattern)
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Listing {
    rule: Option<String>,
    name_prefix: Option<String>,
    connection_state: Option<String>,
    limit: Option<i64>,
    next_token: Option<String>,
}

impl Listing {
    fn check(&self, of_a_rule: bool) -> Checked {
        if of_a_rule {
            name("rule", self.rule.as_deref())?;
        }
        if let Some(prefix) = &self.name_prefix {
            name("namePrefix", Some(prefix))?;
        }
        one_of(
            "connectionState",
            self.connection_state.as_deref(),
            &CONNECTION_STATES,
        )?;
        between("limit", self.limit, 1, 100)?;
        match self.next_token.as_deref() {
            Some("") => Err(too_short("nextToken", "")),
            token => at_most("nextToken", token, 2048),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct PutTargets {
    rule: Option<String>,
    targets: Vec<Target>,
}

impl PutTargets {
    fn check(&self) -> Checked {
        name("rule", self.rule.as_deref())?;
        count("targets", self.targets.len())?;
        for (index, target) in self.targets.iter().enumerate() {
            let number = index + 1;
            target.check(number)?;
            if self.targets[..index]
                .iter()
                .any(|earlier| earlier.id == target.id)
            {
                return Err(invalid(format!(
                    "Duplicate target id: {}",
                    target.id.as_deref().unwrap_or_default()
                )));
            }
        }
        Ok(())
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Target {
    id: Option<String>,
    arn: Option<String>,
    role_arn: Option<String>,
    input: Option<String>,
    input_path: Option<String>,
    input_transformer: Option<Transformer>,
    retry_policy: Option<RetryPolicy>,
    dead_letter_config: Option<DeadLetterConfig>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Transformer {
    input_paths_map: BTreeMap<String, String>,
    input_template: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RetryPolicy {
    maximum_retry_attempts: Option<i64>,
    maximum_event_age_in_seconds: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DeadLetterConfig {
    arn: Option<String>,
}

impl Target {
    fn check(&self, number: usize) -> Checked {
        let field = |field: &str| format!("targets.{number}.member.{field}");
        name(&field("id"), self.id.as_deref())?;
        let id = self.id.as_deref().unwrap_or_default();
        let arn = required(&field("arn"), self.arn.as_deref())?;
        at_most(&field("arn"), Some(arn), 1600)?;
        role(self.role_arn.as_deref())?;
        at_most(&field("input"), self.input.as_deref(), TEMPLATE)?;
        at_most(&field("inputPath"), self.input_path.as_deref(), 256)?;
        let inputs = [
            self.input.is_some(),
            self.input_path.is_some(),
            self.input_transformer.is_some(),
        ];
        if inputs.iter().filter(|given| **given).count() > 1 {
            return Err(invalid(format!(
                "Only one of Input, InputPath, or InputTransformer must be provided for target {id}."
            )));
        }
        if let Some(input) = &self.input
            && serde_json::from_str::<Value>(input).is_err()
        {
            return Err(invalid(format!(
                "JSON syntax error in input for target {id}: {input}"
            )));
        }
        if let Some(transformer) = &self.input_transformer {
            transformer.check(id, &field("inputTransformer"))?;
        }
        if let Some(policy) = &self.retry_policy {
            between(
                &field("retryPolicy.maximumRetryAttempts"),
                policy.maximum_retry_attempts,
                0,
                185,
            )?;
            between(
                &field("retryPolicy.maximumEventAgeInSeconds"),
                policy.maximum_event_age_in_seconds,
                60,
                86_400,
            )?;
        }
        let queue = self
            .dead_letter_config
            .as_ref()
            .and_then(|config| config.arn.as_deref());
        match queue {
            Some(queue) if !is_arn(queue, "sqs") => Err(invalid(format!(
                "Parameter DeadLetterConfig.Arn is not valid. Reason: {queue} is not the ARN of an SQS queue."
            ))),
            _ => Ok(()),
        }
    }
}

impl Transformer {
    fn check(&self, target: &str, field: &str) -> Checked {
        if self.input_paths_map.len() > PATHS {
            return Err(constraint(
                &format!("{field}.inputPathsMap"),
                "{..}",
                &format!("Member must have length less than or equal to {PATHS}"),
            ));
        }
        for (name, path) in &self.input_paths_map {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            if name.is_empty() || name.len() > 256 || !name.bytes().all(legal) {
                return Err(invalid(format!(
                    "InputPathsMap for target {target} contains an invalid key: {name}"
                )));
            }
            if name.to_ascii_lowercase().starts_with("aws") {
                return Err(invalid(format!(
                    "InputPathsMap for target {target} contains a reserved key: {name}"
                )));
            }
            if !is_path(path) {
                return Err(invalid(format!(
                    "Invalid InputPath for target {target} : '{path}'"
                )));
            }
        }
        let field = format!("{field}.inputTemplate");
        let template = required(&field, self.input_template.as_deref())?;
        if template.is_empty() {
            return Err(too_short(&field, template));
        }
        at_most(&field, Some(template), TEMPLATE)?;
        let known =
            |name: &&str| self.input_paths_map.contains_key(*name) || RESERVED.contains(name);
        match placeholders(template).into_iter().find(|name| !known(name)) {
            Some(unknown) => Err(invalid(format!(
                "InputTemplate for target {target} contains invalid placeholder {unknown}."
            ))),
            None => Ok(()),
        }
    }
}

/// What stands between a `<` and the next `>`: neither can be escaped.
fn placeholders(template: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = template;
    while let Some((_, behind)) = rest.split_once('<') {
        let Some((inside, after)) = behind.split_once('>') else {
            break;
        };
        // A `<` without an end of its own is text.
        found.push(inside.rsplit('<').next().unwrap_or(inside));
        rest = after;
    }
    found
}

/// `$`, `.name` and `[0]`, which is all of JSONPath that counts here.
fn is_path(path: &str) -> bool {
    let Some(mut rest) = path.strip_prefix('$') else {
        return false;
    };
    if path.len() > 256 {
        return false;
    }
    while !rest.is_empty() {
        if let Some(behind) = rest.strip_prefix('.') {
            let legal = |character: char| {
                character.is_ascii_alphanumeric() || matches!(character, '-' | '_')
            };
            let end = behind
                .find(|character| !legal(character))
                .unwrap_or(behind.len());
            if end == 0 {
                return false;
            }
            rest = &behind[end..];
        } else if let Some((index, behind)) = rest
            .strip_prefix('[')
            .and_then(|inside| inside.split_once(']'))
        {
            if index.is_empty() || !index.bytes().all(|byte| byte.is_ascii_digit()) {
                return false;
            }
            rest = behind;
        } else {
            return false;
        }
    }
    true
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RemoveTargets {
    rule: Option<String>,
    ids: Vec<String>,
}

impl RemoveTargets {
    fn check(&self) -> Checked {
        name("rule", self.rule.as_deref())?;
        count("ids", self.ids.len())?;
        self.ids.iter().try_for_each(|id| name("ids", Some(id)))
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Connection {
    name: Option<String>,
    description: Option<String>,
    authorization_type: Option<String>,
    auth_parameters: Option<AuthParameters>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct AuthParameters {
    api_key_auth_parameters: Option<ApiKey>,
    basic_auth_parameters: Option<Basic>,
    #[serde(rename = "OAuthParameters")]
    o_auth_parameters: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ApiKey {
    api_key_name: Option<String>,
    api_key_value: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Basic {
    username: Option<String>,
    password: Option<String>,
}

impl Connection {
    fn check(&self, creating: bool) -> Checked {
        name("name", self.name.as_deref())?;
        description(self.description.as_deref())?;
        let kind = self.authorization_type.as_deref();
        one_of(
            "authorizationType",
            kind,
            &["BASIC", "OAUTH_CLIENT_CREDENTIALS", "API_KEY"],
        )?;
        if creating {
            required("authorizationType", kind)?;
        }
        let Some(parameters) = &self.auth_parameters else {
            return if creating {
                Err(missing("authParameters"))
            } else {
                Ok(())
            };
        };
        let given = [
            ("API_KEY", parameters.api_key_auth_parameters.is_some()),
            ("BASIC", parameters.basic_auth_parameters.is_some()),
            (
                "OAUTH_CLIENT_CREDENTIALS",
                parameters.o_auth_parameters.is_some(),
            ),
        ];
        let mut given = given.iter().filter(|(_, given)| *given);
        let (first, more) = (given.next().map(|(kind, _)| *kind), given.next());
        let fits = match (kind, first) {
            (Some(kind), Some(first)) => kind == first,
            (Some(_), None) => !creating,
            (None, _) => true,
        };
        if more.is_some() || !fits {
            return Err(invalid(
                "Authorization parameters do not match the authorization type.".to_owned(),
            ));
        }
        let field = |field: &str| format!("authParameters.{field}");
        if let Some(key) = &parameters.api_key_auth_parameters {
            let (name, value) = (key.api_key_name.as_deref(), key.api_key_value.as_deref());
            credential(
                &field("apiKeyAuthParameters.apiKeyName"),
                name,
                creating,
                false,
            )?;
            credential(
                &field("apiKeyAuthParameters.apiKeyValue"),
                value,
                creating,
                true,
            )?;
        }
        if let Some(basic) = &parameters.basic_auth_parameters {
            let (user, password) = (basic.username.as_deref(), basic.password.as_deref());
            credential(
                &field("basicAuthParameters.username"),
                user,
                creating,
                false,
            )?;
            credential(
                &field("basicAuthParameters.password"),
                password,
                creating,
                true,
            )?;
        }
        Ok(())
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Destination {
    name: Option<String>,
    description: Option<String>,
    connection_arn: Option<String>,
    invocation_endpoint: Option<String>,
    http_method: Option<String>,
    invocation_rate_limit_per_second: Option<i64>,
}

impl Destination {
    fn check(&self, creating: bool) -> Checked {
        name("name", self.name.as_deref())?;
        description(self.description.as_deref())?;
        if creating {
            required("connectionArn", self.connection_arn.as_deref())?;
            required("invocationEndpoint", self.invocation_endpoint.as_deref())?;
            required("httpMethod", self.http_method.as_deref())?;
        }
        if let Some(arn) = &self.connection_arn
            && !is_connection(arn)
        {
            return Err(pattern_of(
                "connectionArn",
                arn,
                "^arn:aws([a-z]|\\-)*:events:([a-z]|\\d|\\-)*:([0-9]{12})?:connection\\/[\\.\\-_A-Za-z0-9]+\\/[\\-A-Za-z0-9]+$",
            ));
        }
        one_of("httpMethod", self.http_method.as_deref(), &METHODS)?;
        if let Some(rate) = self.invocation_rate_limit_per_second
            && rate < 1
        {
            return Err(constraint(
                "invocationRateLimitPerSecond",
                &rate.to_string(),
                "Member must have value greater than or equal to 1",
            ));
        }
        self.invocation_endpoint.as_deref().map_or(Ok(()), endpoint)
    }
}

/// AWS calls by https alone. What listens in the test world does so on loopback, without.
fn endpoint(url: &str) -> Checked {
    at_most("invocationEndpoint", Some(url), 2048)?;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"%-()_.!~*';/?:@&=+$,".contains(&byte);
    let whole = url.bytes().all(legal);
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    let reachable = match scheme {
        "https" => !host.is_empty(),
        "http" => ["127.0.0.1", "localhost"].contains(&host),
        _ => false,
    };
    if whole && reachable && !authority.contains('@') {
        Ok(())
    } else {
        Err(invalid(
            "Parameter InvocationEndpoint is not valid. Reason: Must be an HTTPS endpoint."
                .to_owned(),
        ))
    }
}

fn is_connection(arn: &str) -> bool {
    let Some(resource) = resource(arn, "events") else {
        return false;
    };
    let parts: Vec<&str> = resource.split('/').collect();
    let ["connection", name, id] = parts[..] else {
        return false;
    };
    let uuid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    is_name(name) && !id.is_empty() && id.bytes().all(uuid)
}

fn is_arn(arn: &str, service: &str) -> bool {
    resource(arn, service).is_some_and(|resource| !resource.is_empty())
}

/// What stands behind Region and account.
fn resource<'a>(arn: &'a str, service: &str) -> Option<&'a str> {
    let rest = arn.strip_prefix("arn:aws:")?.strip_prefix(service)?;
    rest.strip_prefix(':')?.splitn(3, ':').nth(2)
}

fn role(arn: Option<&str>) -> Checked {
    match arn {
        Some(arn) if !is_arn(arn, "iam") || !arn.contains(":role/") => Err(invalid(format!(
            "Parameter {arn} is not valid. Reason: Provided Arn is not in correct format."
        ))),
        _ => Ok(()),
    }
}

fn pattern(text: &str) -> Checked {
    let (model, quota) = PATTERN;
    at_most("eventPattern", Some(text), model)?;
    if text.len() > quota {
        return Err(Refusal {
            code: "LimitExceededException",
            message: format!("Event pattern exceeds the quota of {quota} characters."),
        });
    }
    Ok(())
}

fn description(text: Option<&str>) -> Checked {
    at_most("description", text, DESCRIPTION)?;
    match text {
        // `.` matches no line break.
        Some(text) if text.contains(['\n', '\r']) => Err(pattern_of("description", text, ".*")),
        _ => Ok(()),
    }
}

/// A secret is never repeated in what is said of it.
fn credential(field: &str, value: Option<&str>, needed: bool, secret: bool) -> Checked {
    let Some(text) = value else {
        return if needed { Err(missing(field)) } else { Ok(()) };
    };
    let shown = if secret {
        "***Sensitive Data Redacted***"
    } else {
        text
    };
    if text.is_empty() {
        return Err(too_short(field, shown));
    }
    if text.encode_utf16().count() > CREDENTIAL {
        return Err(constraint(
            field,
            shown,
            &format!("Member must have length less than or equal to {CREDENTIAL}"),
        ));
    }
    if text
        .chars()
        .any(|character| character == ':' || character != '\t' && character.is_ascii_control())
    {
        return Err(pattern_of(
            field,
            shown,
            "^[ \\t]*[^\\x00-\\x1F:\\x7F]+([ \\t]+[^\\x00-\\x1F:\\x7F]+)*[ \\t]*$",
        ));
    }
    Ok(())
}

fn tags(tags: &[Tag]) -> Checked {
    for tag in tags {
        if tag.key.is_empty() {
            return Err(too_short("tags.member.key", ""));
        }
        at_most("tags.member.key", Some(&tag.key), 128)?;
        at_most("tags.member.value", Some(&tag.value), 256)?;
    }
    Ok(())
}

fn is_name(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !text.is_empty() && text.bytes().all(legal)
}

fn name(field: &str, value: Option<&str>) -> Checked {
    let text = required(field, value)?;
    if text.is_empty() {
        return Err(too_short(field, text));
    }
    at_most(field, Some(text), NAME)?;
    if is_name(text) {
        Ok(())
    } else {
        Err(pattern_of(field, text, "[\\.\\-_A-Za-z0-9]+"))
    }
}

fn count(field: &str, entries: usize) -> Checked {
    match entries {
        0 => Err(too_short(field, "[]")),
        entries if entries > TARGETS => Err(constraint(
            field,
            "[..]",
            &format!("Member must have length less than or equal to {TARGETS}"),
        )),
        _ => Ok(()),
    }
}

fn between(field: &str, value: Option<i64>, least: i64, most: i64) -> Checked {
    match value {
        Some(value) if value < least => Err(constraint(
            field,
            &value.to_string(),
            &format!("Member must have value greater than or equal to {least}"),
        )),
        Some(value) if value > most => Err(constraint(
            field,
            &value.to_string(),
            &format!("Member must have value less than or equal to {most}"),
        )),
        _ => Ok(()),
    }
}

fn at_most(field: &str, value: Option<&str>, most: usize) -> Checked {
    match value {
        // AWS counts as Java does.
        Some(text) if text.encode_utf16().count() > most => Err(constraint(
            field,
            text,
            &format!("Member must have length less than or equal to {most}"),
        )),
        _ => Ok(()),
    }
}

fn one_of(field: &str, value: Option<&str>, legal: &[&str]) -> Checked {
    match value {
        Some(value) if !legal.contains(&value) => Err(constraint(
            field,
            value,
            &format!("Member must satisfy enum value set: [{}]", legal.join(", ")),
        )),
        _ => Ok(()),
    }
}

fn required<'a>(field: &str, value: Option<&'a str>) -> Result<&'a str, Refusal> {
    value.ok_or_else(|| missing(field))
}

fn missing(field: &str) -> Refusal {
    invalid(format!(
        "1 validation error detected: Value null at '{field}' failed to satisfy constraint: Member must not be null"
    ))
}

fn too_short(field: &str, value: &str) -> Refusal {
    constraint(
        field,
        value,
        "Member must have length greater than or equal to 1",
    )
}

fn pattern_of(field: &str, value: &str, pattern: &str) -> Refusal {
    constraint(
        field,
        value,
        &format!("Member must satisfy regular expression pattern: {pattern}"),
    )
}

fn constraint(field: &str, value: &str, rule: &str) -> Refusal {
    invalid(format!(
        "1 validation error detected: Value '{value}' at '{field}' failed to satisfy constraint: {rule}"
    ))
}

fn invalid(message: String) -> Refusal {
    Refusal {
        code: "ValidationException",
        message,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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

    fn rule() -> Value {
        json!({"Name": "campanile_a", "EventPattern": "{\"source\":[\"aws.cloudwatch\"]}"})
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

    fn template(text: &str) -> Value {
        targets(
            &json!({"InputTransformer": {"InputPathsMap": {"a": "$.detail"}, "InputTemplate": text}}),
        )
    }

    fn path(path: &str) -> Value {
        targets(
            &json!({"InputTransformer": {"InputPathsMap": {"a": path}, "InputTemplate": "<a>"}}),
        )
    }

    fn connection() -> Value {
        json!({
            "Name": "c", "AuthorizationType": "API_KEY",
            "AuthParameters": {"ApiKeyAuthParameters": {"ApiKeyName": "Authorization", "ApiKeyValue": "Bearer x"}},
        })
    }

    fn key(name: &str, value: &str) -> Value {
        with(
            connection(),
            &json!({"AuthParameters": {"ApiKeyAuthParameters": {"ApiKeyName": name, "ApiKeyValue": value}}}),
        )
    }

    fn destination() -> Value {
        json!({
            "Name": "d", "ConnectionArn": CONNECTION, "InvocationEndpoint": "https://hooks.slack.com/services/T/B/x",
            "HttpMethod": "POST", "InvocationRateLimitPerSecond": 1,
        })
    }

    #[test]
    fn the_legal_forms_pass() {
        let long = "x".repeat(NAME);
        let cases = [
            ("PutRule", rule()),
            (
                "PutRule",
                with(
                    rule(),
                    &json!({"Name": long, "RoleArn": ROLE, "State": "DISABLED"}),
                ),
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
            ("CreateConnection", connection()),
            (
                "CreateConnection",
                key("Authorization", &"x".repeat(CREDENTIAL)),
            ),
            ("UpdateConnection", json!({"Name": "c"})),
            (
                "UpdateConnection",
                json!({"Name": "c", "AuthParameters": {"ApiKeyAuthParameters": {"ApiKeyValue": "x"}}}),
            ),
            ("CreateApiDestination", destination()),
            (
                "CreateApiDestination",
                with(
                    destination(),
                    &json!({"InvocationEndpoint": "http://127.0.0.1:80/api/chat.postMessage"}),
                ),
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
        let paths: BTreeMap<String, &str> =
            (0..=PATHS).map(|n| (format!("p{n}"), "$.id")).collect();
        let many: Vec<Value> = (0..=TARGETS)
            .map(|n| with(target(), &json!({"Id": n.to_string()})))
            .collect();
        let cases = [
            ("PutRule", json!({}), "'name'"),
            (
                "PutRule",
                with(rule(), &json!({"Name": ""})),
                "greater than or equal to 1",
            ),
            (
                "PutRule",
                with(rule(), &json!({"Name": long(65)})),
                "less than or equal to 64",
            ),
            (
                "PutRule",
                with(rule(), &json!({"Name": "a/b"})),
                "[\\.\\-_A-Za-z0-9]+",
            ),
            (
                "PutRule",
                with(rule(), &json!({"Name": "ä"})),
                "[\\.\\-_A-Za-z0-9]+",
            ),
            (
                "PutRule",
                with(rule(), &json!({"Description": long(513)})),
                "'description'",
            ),
            (
                "PutRule",
                with(rule(), &json!({"State": "ON"})),
                "enum value set",
            ),
            (
                "PutRule",
                with(rule(), &json!({"RoleArn": "role"})),
                "Provided Arn",
            ),
            (
                "PutRule",
                with(rule(), &json!({"EventPattern": long(4097)})),
                "4096",
            ),
            (
                "PutRule",
                with(rule(), &json!({"Tags": [{"Key": "", "Value": ""}]})),
                "'tags.member.key'",
            ),
            (
                "PutTargets",
                json!({"Rule": "r", "Targets": []}),
                "'targets'",
            ),
            (
                "PutTargets",
                json!({"Rule": "r", "Targets": many}),
                "less than or equal to 10",
            ),
            (
                "PutTargets",
                json!({"Rule": "r", "Targets": [target(), target()]}),
                "Duplicate target id: channel",
            ),
            (
                "PutTargets",
                targets(&json!({"Id": "a b"})),
                "'targets.1.member.id'",
            ),
            (
                "PutTargets",
                targets(&json!({"Arn": null})),
                "'targets.1.member.arn'",
            ),
            (
                "PutTargets",
                targets(&json!({"Input": "{}"})),
                "Only one of",
            ),
            (
                "PutTargets",
                targets(&json!({"Input": "{", "InputTransformer": null})),
                "JSON syntax error",
            ),
            (
                "PutTargets",
                targets(&json!({"RetryPolicy": {"MaximumRetryAttempts": 186}})),
                "less than or equal to 185",
            ),
            (
                "PutTargets",
                targets(&json!({"RetryPolicy": {"MaximumEventAgeInSeconds": 59}})),
                "greater than or equal to 60",
            ),
            (
                "PutTargets",
                targets(&json!({"RetryPolicy": {"MaximumEventAgeInSeconds": 86_401}})),
                "86400",
            ),
            (
                "PutTargets",
                targets(&json!({"DeadLetterConfig": {"Arn": "arn:aws:sns:a:b:c"}})),
                "SQS queue",
            ),
            ("PutTargets", template(""), "greater than or equal to 1"),
            ("PutTargets", template(&long(TEMPLATE + 1)), "8192"),
            (
                "PutTargets",
                template("<b>"),
                "target channel contains invalid placeholder b.",
            ),
            (
                "PutTargets",
                template("\"<https://a|b>\""),
                "invalid placeholder https://a|b.",
            ),
            (
                "PutTargets",
                template("\"<!here>\""),
                "invalid placeholder !here.",
            ),
            (
                "PutTargets",
                template("\"a < <b>\""),
                "invalid placeholder b.",
            ),
            ("PutTargets", template("<>"), "invalid placeholder ."),
            (
                "PutTargets",
                targets(
                    &json!({"InputTransformer": {"InputPathsMap": paths, "InputTemplate": "x"}}),
                ),
                "100",
            ),
            (
                "PutTargets",
                targets(
                    &json!({"InputTransformer": {"InputPathsMap": {"awsX": "$"}, "InputTemplate": "x"}}),
                ),
                "reserved key",
            ),
            (
                "PutTargets",
                targets(
                    &json!({"InputTransformer": {"InputPathsMap": {"a b": "$"}, "InputTemplate": "x"}}),
                ),
                "invalid key",
            ),
            ("PutTargets", path("detail"), "Invalid InputPath"),
            ("PutTargets", path("$.a b"), "Invalid InputPath"),
            ("PutTargets", path("$..a"), "Invalid InputPath"),
            ("PutTargets", path("$.a[x]"), "Invalid InputPath"),
            ("RemoveTargets", json!({"Rule": "r", "Ids": []}), "'ids'"),
            ("RemoveTargets", json!({"Ids": ["a"]}), "'rule'"),
            (
                "CreateConnection",
                with(connection(), &json!({"AuthorizationType": null})),
                "'authorizationType'",
            ),
            (
                "CreateConnection",
                with(connection(), &json!({"AuthParameters": null})),
                "'authParameters'",
            ),
            (
                "CreateConnection",
                with(connection(), &json!({"AuthorizationType": "BASIC"})),
                "do not match",
            ),
            (
                "CreateConnection",
                with(connection(), &json!({"Description": "a\nb"})),
                "'description'",
            ),
            ("CreateConnection", key("", "v"), "apiKeyName"),
            ("CreateConnection", key("a", "b:c"), "apiKeyValue"),
            (
                "CreateConnection",
                key("a", &long(CREDENTIAL + 1)),
                "less than or equal to 512",
            ),
            (
                "UpdateConnection",
                json!({"Name": "c", "AuthorizationType": "NONE"}),
                "enum value set",
            ),
            (
                "CreateApiDestination",
                with(
                    destination(),
                    &json!({"ConnectionArn": "arn:aws:events:us-east-2:100000000001:connection/c"}),
                ),
                "'connectionArn'",
            ),
            (
                "CreateApiDestination",
                with(destination(), &json!({"HttpMethod": "TRACE"})),
                "'httpMethod'",
            ),
            (
                "CreateApiDestination",
                with(destination(), &json!({"HttpMethod": null})),
                "'httpMethod'",
            ),
            (
                "CreateApiDestination",
                with(destination(), &json!({"InvocationRateLimitPerSecond": 0})),
                "greater than or equal to 1",
            ),
            (
                "CreateApiDestination",
                with(
                    destination(),
                    &json!({"InvocationEndpoint": "http://hooks.slack.com/services/x"}),
                ),
                "HTTPS",
            ),
            (
                "CreateApiDestination",
                with(destination(), &json!({"InvocationEndpoint": "https://"})),
                "HTTPS",
            ),
            (
                "CreateApiDestination",
                with(
                    destination(),
                    &json!({"InvocationEndpoint": "https://a/b c"}),
                ),
                "HTTPS",
            ),
            (
                "CreateApiDestination",
                with(
                    destination(),
                    &json!({"InvocationEndpoint": "http://127.0.0.1@evil.example/"}),
                ),
                "HTTPS",
            ),
            ("ListRules", json!({"Limit": 0}), "'limit'"),
            ("ListRules", json!({"Limit": 101}), "'limit'"),
            ("ListRules", json!({"NamePrefix": "a/"}), "'namePrefix'"),
            ("ListRules", json!({"NextToken": ""}), "'nextToken'"),
            ("ListTargetsByRule", json!({}), "'rule'"),
            (
                "ListConnections",
                json!({"ConnectionState": "OPEN"}),
                "enum value set",
            ),
            ("DescribeRule", json!({}), "'name'"),
            ("TestEventPattern", json!({"EventPattern": "{}"}), "'event'"),
        ];
        for (operation, body, expected) in cases {
            let refusal = check(operation, &body).expect_err(&format!("{operation} {body}"));
            assert_eq!(refusal.code, "ValidationException", "{operation} {body}");
            let found = refusal.message.contains(expected);
            assert!(found, "{operation}: {} without {expected}", refusal.message);
        }
        let over = check(
            "PutRule",
            &with(rule(), &json!({"EventPattern": long(2049)})),
        );
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
}
