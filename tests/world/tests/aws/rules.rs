//! EventBridge rules and targets.

use aws_sdk_eventbridge::error::ProvideErrorMetadata;
use aws_sdk_eventbridge::types::{RuleState, Tag, Target};
use campanile_world::aws::Trouble;
use serde_json::{Value, json};

use crate::path::{Path, of_alarms, retries, transformer};
use crate::receiver::Receiver;
use crate::{REGION, client_config};

fn tag(value: &str) -> Tag {
    Tag::builder().key("owner").value(value).build().unwrap()
}

#[tokio::test]
async fn a_rule_is_what_it_was_last_put_as() {
    let path = Path::new("100000000045").await;
    let events = &path.events;
    let pattern = of_alarms("a").to_string();
    let role = &path.role;
    let put = events.put_rule().name("r").event_pattern(&pattern);
    let first = put
        .clone()
        .description("ours")
        .role_arn(role)
        .state(RuleState::Disabled)
        .tags(tag("1"));
    let arn = first.send().await.unwrap().rule_arn.unwrap();
    assert_eq!(
        arn,
        format!("arn:aws:events:{REGION}:{}:rule/r", path.account)
    );
    let found = events.describe_rule().name("r").send().await.unwrap();
    assert_eq!(found.arn(), Some(arn.as_str()));
    assert_eq!(found.event_pattern(), Some(pattern.as_str()));
    assert_eq!(found.event_bus_name(), Some("default"));
    assert_eq!(
        (found.description(), found.role_arn()),
        (Some("ours"), Some(role.as_str()))
    );
    assert_eq!(found.state(), Some(&RuleState::Disabled));

    // What is left out is cleared, and tags count at creation alone.
    put.tags(tag("2")).send().await.unwrap();
    let found = events.describe_rule().name("r").send().await.unwrap();
    assert_eq!((found.description(), found.role_arn()), (None, None));
    assert_eq!(found.state(), Some(&RuleState::Enabled));
    let tags = async || {
        let list = events.list_tags_for_resource().resource_arn(&arn);
        list.send().await.unwrap().tags.unwrap_or_default()
    };
    assert_eq!(tags().await, [tag("1")]);
    let set = events.tag_resource().resource_arn(&arn).tags(tag("3"));
    set.send().await.unwrap();
    assert_eq!(tags().await, [tag("3")]);
    let unset = events.untag_resource().resource_arn(&arn);
    unset.tag_keys("owner").send().await.unwrap();
    assert_eq!(tags().await, []);

    let refused = events.put_rule().name("empty").send().await.unwrap_err();
    assert_eq!(refused.code(), Some("ValidationException"));
    for wrong in [
        "{",
        "{\"source\":\"aws.cloudwatch\"}",
        "{\"source\":[]}",
        "[]",
        "{\"a\":[{\"like\":\"b\"}]}",
    ] {
        let put = events.put_rule().name("wrong").event_pattern(wrong);
        let refused = put.send().await.unwrap_err();
        assert!(
            refused
                .as_service_error()
                .unwrap()
                .is_invalid_event_pattern_exception(),
            "{wrong}"
        );
        assert!(
            refused
                .message()
                .unwrap()
                .starts_with("Event pattern is not valid.")
        );
    }
    let put = events.put_rule().name("w/rong").event_pattern("{}");
    let refused = put.send().await.unwrap_err();
    assert!(
        refused
            .message()
            .unwrap()
            .contains("at 'name' failed to satisfy constraint")
    );
    let missing = events
        .describe_rule()
        .name("none")
        .send()
        .await
        .unwrap_err();
    assert!(
        missing
            .as_service_error()
            .unwrap()
            .is_resource_not_found_exception()
    );
    assert_eq!(
        missing.message(),
        Some("Rule none does not exist on EventBus default.")
    );
}

#[tokio::test]
async fn a_bus_has_three_hundred_rules_at_most() {
    let path = Path::new("100000000073").await;
    let put = |number: usize| {
        let put = path.events.put_rule().name(format!("r-{number}"));
        put.event_pattern("{\"source\":[\"a\"]}").send()
    };
    for number in 0..300 {
        put(number).await.unwrap();
    }
    let refused = put(300).await.unwrap_err();
    assert!(
        refused
            .as_service_error()
            .unwrap()
            .is_limit_exceeded_exception()
    );
    // What is there already is put again all the same.
    put(299).await.unwrap();
    let pages = path.events.list_rules().send().await.unwrap();
    assert_eq!(
        (pages.rules().len(), pages.next_token().is_some()),
        (100, true)
    );
}

#[tokio::test]
async fn a_rule_with_targets_stays() {
    let path = Path::new("100000000046").await;
    let events = &path.events;
    path.whole("r", "a", "http://127.0.0.1:9/").await;
    let refused = events.delete_rule().name("r").send().await.unwrap_err();
    assert_eq!(refused.code(), Some("ValidationException"));
    assert_eq!(
        refused.message(),
        Some("Rule can't be deleted since it has targets.")
    );
    let remove = events.remove_targets().rule("r").ids("t").ids("other");
    let answer = remove.send().await.unwrap();
    assert_eq!(answer.failed_entry_count, 1);
    let failed = &answer.failed_entries()[0];
    assert_eq!(failed.target_id(), Some("other"));
    assert_eq!(failed.error_code(), Some("ResourceNotFoundException"));
    for _ in 0..2 {
        events.delete_rule().name("r").send().await.unwrap();
    }
    for refused in [
        events
            .list_targets_by_rule()
            .rule("r")
            .send()
            .await
            .map(drop)
            .map_err(|error| error.code().map(str::to_owned)),
        events
            .remove_targets()
            .rule("r")
            .ids("t")
            .send()
            .await
            .map(drop)
            .map_err(|error| error.code().map(str::to_owned)),
        events
            .disable_rule()
            .name("r")
            .send()
            .await
            .map(drop)
            .map_err(|error| error.code().map(str::to_owned)),
    ] {
        assert_eq!(refused, Err(Some("ResourceNotFoundException".to_owned())));
    }
}

#[tokio::test]
async fn targets_come_back_as_they_were_put_and_are_five_at_most() {
    let path = Path::new("100000000047").await;
    let events = &path.events;
    let destination = path.destination("d", "http://127.0.0.1:9/", None).await;
    path.rule("r", of_alarms("a")).await;
    let queue = path
        .aws
        .dead_letter_queue(path.account, REGION, "q")
        .await
        .unwrap();
    let letters = aws_sdk_eventbridge::types::DeadLetterConfig::builder().arn(queue);
    let whole = |id: &str| {
        path.target(id, &destination)
            .input_transformer(transformer(
                &[("r", "$.detail.state.reason")],
                "{\"text\":<r>}",
            ))
            .retry_policy(retries(185, 3600))
            .dead_letter_config(letters.clone().build())
            .build()
            .unwrap()
    };
    let put = async |targets: Vec<Target>| {
        let put = events.put_targets().rule("r").set_targets(Some(targets));
        put.send().await
    };
    put(["1", "2", "3"].map(whole).into()).await.unwrap();
    let found = async || {
        let list = events
            .list_targets_by_rule()
            .rule("r")
            .send()
            .await
            .unwrap();
        list.targets.unwrap_or_default()
    };
    assert_eq!(found().await, ["1", "2", "3"].map(whole));

    // By id it is put again, and never removed by leaving it out.
    let changed = path.target("2", &destination).input("{}").build().unwrap();
    put(vec![changed.clone()]).await.unwrap();
    assert_eq!(found().await, [whole("1"), changed, whole("3")]);
    let refused = put(["4", "5", "6"].map(whole).into()).await.unwrap_err();
    assert!(
        refused
            .as_service_error()
            .unwrap()
            .is_limit_exceeded_exception()
    );
    assert_eq!(found().await.len(), 3, "nothing of it was done");
    put(["4", "5"].map(whole).into()).await.unwrap();
    assert_eq!(found().await.len(), 5);

    let wrong = path
        .target("1", &destination)
        .input_transformer(transformer(&[("a", "$.detail")], "{\"text\":<b>}"));
    let refused = put(vec![wrong.build().unwrap()]).await.unwrap_err();
    assert_eq!(refused.code(), Some("ValidationException"));
    assert!(
        refused
            .message()
            .unwrap()
            .contains("contains invalid placeholder b")
    );
    let many = (0..11).map(|number| whole(&number.to_string())).collect();
    assert_eq!(
        put(many).await.unwrap_err().code(),
        Some("ValidationException")
    );
}

#[tokio::test]
async fn entries_fail_by_themselves() {
    let account = "100000000048";
    let path = Path::new(account).await;
    let other = Path::new("100000000049").await;
    let good = path.destination("d", "http://127.0.0.1:9/", None).await;
    let foreign = other.destination("d", "http://127.0.0.1:9/", None).await;
    let gone =
        good.rsplit_once('/').unwrap().0.to_owned() + "/00000000-0000-4000-8000-000000000000";
    path.rule("r", of_alarms("a")).await;
    let theirs = aws_sdk_eventbridge::Client::new(&client_config(path.aws, account, None));
    let put = theirs
        .put_targets()
        .rule("r")
        .targets(path.target("good", &good).build().unwrap())
        .targets(path.target("foreign", &foreign).build().unwrap())
        .targets(path.target("gone", &gone).build().unwrap());
    let ids = |entries: &[aws_sdk_eventbridge::types::PutTargetsResultEntry]| {
        let ids = entries
            .iter()
            .map(|entry| entry.target_id().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    let answer = put.clone().send().await.unwrap();
    assert_eq!(answer.failed_entry_count, 2);
    assert_eq!(ids(answer.failed_entries()), ["foreign", "gone"]);
    let listed = async || {
        let list = theirs
            .list_targets_by_rule()
            .rule("r")
            .send()
            .await
            .unwrap();
        list.targets
            .unwrap_or_default()
            .into_iter()
            .map(|target| target.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(listed().await, ["good"]);

    // On demand, with nothing done.
    let fail = || Trouble::FailEntries("ConcurrentModificationException".into(), "again".into());
    path.aws.trouble_times(account, "PutTargets", fail(), 1);
    path.aws
        .trouble_times(account, "events:RemoveTargets", fail(), 1);
    let second = path.target("second", &good).build().unwrap();
    let put = theirs.put_targets().rule("r").targets(second);
    let answer = put.clone().send().await.unwrap();
    assert_eq!(answer.failed_entry_count, 1);
    assert_eq!(
        answer.failed_entries()[0].error_code(),
        Some("ConcurrentModificationException")
    );
    assert_eq!(answer.failed_entries()[0].error_message(), Some("again"));
    let remove = theirs.remove_targets().rule("r").ids("good");
    let answer = remove.clone().send().await.unwrap();
    assert_eq!(answer.failed_entries()[0].target_id(), Some("good"));
    assert_eq!(listed().await, ["good"]);
    put.send().await.unwrap();
    remove.send().await.unwrap();
    assert_eq!(listed().await, ["second"]);
}

#[tokio::test]
async fn who_may_not_pass_the_role_puts_no_target() {
    let account = "100000000050";
    let path = Path::new(account).await;
    let destination = path.destination("d", "http://127.0.0.1:9/", None).await;
    path.rule("r", of_alarms("a")).await;
    let theirs = aws_sdk_eventbridge::Client::new(&client_config(path.aws, account, None));
    path.aws.deny(account, "iam:PassRole");
    let put = theirs.put_targets().rule("r");
    let put = put.targets(path.target("t", &destination).build().unwrap());
    let mark = path.aws.mark();
    let refused = put.clone().send().await.unwrap_err();
    assert_eq!(refused.code(), Some("AccessDeniedException"));
    let expected = format!(
        "is not authorized to perform: iam:PassRole on resource: {}",
        path.role
    );
    assert!(
        refused.message().unwrap().contains(&expected),
        "{refused:?}"
    );
    // What passes none is nothing to that permission.
    let pattern = of_alarms("a").to_string();
    theirs
        .put_rule()
        .name("r")
        .event_pattern(pattern)
        .send()
        .await
        .unwrap();
    path.aws.allow(account, "iam:PassRole");
    put.send().await.unwrap();
    let calls = path
        .aws
        .calls_since(mark)
        .into_iter()
        .filter(|call| call.account == account);
    let calls: Vec<_> = calls
        .map(|call| {
            (
                call.service,
                call.operation,
                call.resource,
                call.write,
                call.status,
            )
        })
        .collect();
    let rule = format!("arn:aws:events:{REGION}:{account}:rule/r");
    let call = |operation: &str, status| {
        (
            "events".to_owned(),
            operation.to_owned(),
            rule.clone(),
            true,
            Some(status),
        )
    };
    assert_eq!(
        calls,
        [
            call("PutTargets", 400),
            call("PutRule", 200),
            call("PutTargets", 200)
        ]
    );
}

#[tokio::test]
async fn listings_of_rules_and_targets_come_in_pages() {
    let account = "100000000051";
    let path = Path::new(account).await;
    let destination = path.destination("d", "http://127.0.0.1:9/", None).await;
    for name in [
        "campanile_a_1",
        "campanile_a_2",
        "campanile_a_3",
        "campanile_b",
    ] {
        path.rule(name, of_alarms("a")).await;
    }
    for id in ["1", "2", "3"] {
        path.put("campanile_b", path.target(id, &destination)).await;
    }
    let theirs = aws_sdk_eventbridge::Client::new(&client_config(path.aws, account, None));
    let rules = async |token: Option<String>| {
        let list = theirs
            .list_rules()
            .name_prefix("campanile_a_")
            .set_next_token(token);
        let page = list.send().await.unwrap();
        let names = page
            .rules()
            .iter()
            .map(|rule| rule.name().unwrap().to_owned());
        (names.collect::<Vec<_>>(), page.next_token)
    };
    assert_eq!(rules(None).await.0.len(), 3);
    path.aws
        .trouble(account, "ListRules", Trouble::ShortPages(2));
    let (first, token) = rules(None).await;
    assert_eq!(first, ["campanile_a_1", "campanile_a_2"]);
    assert_eq!(rules(token).await, (vec!["campanile_a_3".to_owned()], None));
    path.aws
        .trouble(account, "ListTargetsByRule", Trouble::ShortPages(2));
    let targets = async |token: Option<String>| {
        let list = theirs
            .list_targets_by_rule()
            .rule("campanile_b")
            .set_next_token(token);
        let page = list.send().await.unwrap();
        (page.targets().len(), page.next_token)
    };
    let (count, token) = targets(None).await;
    assert_eq!(count, 2);
    assert_eq!(targets(token).await, (1, None));
}

#[tokio::test]
async fn patterns_decide_whom_an_event_concerns() {
    let path = Path::new("100000000052").await;
    let event = |name: &str, state: &str, before: &str| {
        json!({
            "version": "0", "id": "1", "detail-type": "CloudWatch Alarm State Change", "source": "aws.cloudwatch",
            "account": path.account, "time": "2019-10-02T17:04:40Z", "region": REGION, "resources": [],
            "detail": {"alarmName": name, "state": {"value": state}, "previousState": {"value": before}},
        })
    };
    let ours = |prefix: &str| {
        let mut pattern = of_alarms(prefix);
        pattern["detail"]["state"] = json!({"value": ["OK"]});
        pattern["detail"]["previousState"] =
            json!({"value": [{"anything-but": ["INSUFFICIENT_DATA"]}]});
        pattern
    };
    let cases = [
        (ours("c/vsu/"), event("c/vsu/critical", "OK", "ALARM"), true),
        (
            ours("c/vsu/"),
            event("c/vsu-2/critical", "OK", "ALARM"),
            false,
        ),
        (
            ours("c/vsu/"),
            event("c/vsu/critical", "ALARM", "OK"),
            false,
        ),
        (
            ours("c/vsu/"),
            event("c/vsu/critical", "OK", "INSUFFICIENT_DATA"),
            false,
        ),
        (
            json!({"source": ["aws.ec2"]}),
            event("a", "OK", "ALARM"),
            false,
        ),
        (
            json!({"detail": {"alarmName": ["a"]}}),
            event("a", "OK", "ALARM"),
            true,
        ),
        (
            json!({"detail": {"alarmName": ["b", {"prefix": "a"}]}}),
            event("ab", "OK", "ALARM"),
            true,
        ),
    ];
    let test = async |pattern: &Value, event: &Value| {
        let test = path.events.test_event_pattern();
        let test = test
            .event_pattern(pattern.to_string())
            .event(event.to_string());
        test.send().await
    };
    for (pattern, event, expected) in cases {
        let answer = test(&pattern, &event).await.unwrap();
        assert_eq!(answer.result, expected, "{pattern} {event}");
    }
    let mut incomplete = event("a", "OK", "ALARM");
    incomplete.as_object_mut().unwrap().remove("account");
    let refused = test(&ours("a"), &incomplete).await.unwrap_err();
    assert_eq!(refused.code(), Some("ValidationException"));
    let refused = test(&json!({"source": "a"}), &event("a", "OK", "ALARM"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Some("InvalidEventPatternException"));
}

#[tokio::test]
async fn only_enabled_rules_of_the_same_region_and_account_act() {
    let path = Path::new("100000000053").await;
    let receiver = Receiver::start().await;
    let destination = path.whole("on", "a", &receiver.url("/on")).await;
    path.rule("off", of_alarms("a")).await;
    path.put("off", path.target("t", &destination)).await;
    path.events.disable_rule().name("off").send().await.unwrap();
    let stranger = Path::new("100000000054").await;
    stranger.whole("on", "a", &receiver.url("/stranger")).await;
    let state = |account: &str, region: &str, name: &str| {
        let client = path.aws.cloudwatch(account, region);
        let name = name.to_owned();
        async move {
            crate::put(&client, &name).send().await.unwrap();
            let set = client.set_alarm_state().alarm_name(&name).state_reason("r");
            set.state_value("ALARM".into()).send().await.unwrap();
        }
    };
    state(path.account, "eu-west-1", "a").await;
    state(path.account, REGION, "b").await;
    state(path.account, REGION, "a").await;
    let deliveries = path.settled(1).await;
    assert_eq!(deliveries.len(), 1, "{deliveries:#?}");
    assert_eq!(
        (deliveries[0].rule.as_str(), deliveries[0].alarm.as_str()),
        ("on", "a")
    );
    assert_eq!(receiver.all().len(), 1);
    path.events.enable_rule().name("off").send().await.unwrap();
    state(path.account, REGION, "a-2").await;
    assert_eq!(path.settled(3).await.len(), 3);
    assert_eq!(stranger.deliveries().await, []);
}
