//! What API destinations are called with, how often, and where ends what does not arrive.

use std::time::Duration;

use aws_sdk_cloudwatch::types::StateValue;
use aws_sdk_eventbridge::types::{
    ApiDestinationState, ConnectionState, DeadLetterConfig, HttpParameters, Target,
    UpdateConnectionApiKeyAuthRequestParameters, UpdateConnectionAuthRequestParameters,
    builders::TargetBuilder,
};
use campanile_world::aws::{Delivery, Outcome};
use serde_json::{Value, json};

use crate::path::{Path, of_alarms, retries, transformer};
use crate::receiver::Receiver;
use crate::{REGION, put};

impl Path {
    /// Lets the alarm go to ALARM for `reason`; it is made if need be.
    async fn fire(&self, name: &str, reason: &str) {
        self.turn(name, StateValue::Alarm, reason).await;
    }

    async fn turn(&self, name: &str, state: StateValue, reason: &str) {
        let client = self.aws.cloudwatch(self.account, REGION);
        put(&client, name).send().await.unwrap();
        let set = client.set_alarm_state().alarm_name(name);
        set.state_value(state)
            .state_reason(reason)
            .send()
            .await
            .unwrap();
    }

    /// A rule `r` for the alarms that begin with `a`, whose target leads to the receiver at `rate`.
    async fn target_to(
        &self,
        receiver: &Receiver,
        rate: Option<i32>,
        with: impl Fn(TargetBuilder) -> TargetBuilder,
    ) {
        let destination = self.destination("d", &receiver.url("/hook"), rate).await;
        self.rule("r", of_alarms("a")).await;
        self.put("r", with(self.target("t", &destination))).await;
    }
}

fn letters(queue: &str) -> DeadLetterConfig {
    DeadLetterConfig::builder().arn(queue).build()
}

fn outcomes(deliveries: &[Delivery]) -> Vec<(Outcome, Vec<u16>)> {
    let outcome = |delivery: &Delivery| (delivery.outcome, delivery.statuses.clone());
    deliveries.iter().map(outcome).collect()
}

#[tokio::test]
async fn the_connection_signs_and_the_transformer_writes() {
    let path = Path::new("100000000061").await;
    let receiver = Receiver::start().await;
    let template = "{\"text\":<reason>,\"quoted\":\"<state>: <name> is \\\"<state>\\\"\",\"nothing\":<no>,\"empty\":\"[<no>]\",\
        \"first\":<first>,\"state\":<whole>,\"rule\":<aws.events.rule-name>,\"less\":\"\\u003c\"}";
    let paths = [
        ("reason", "$.detail.state.reason"),
        ("state", "$.detail.state.value"),
        ("name", "$.detail.alarmName"),
        ("no", "$.detail.configuration.description"),
        ("first", "$.resources[0]"),
        ("whole", "$.detail.previousState"),
    ];
    path.target_to(&receiver, None, |target| {
        target.input_transformer(transformer(&paths, template))
    })
    .await;
    let nasty = "a \"quote\", a\nline, \\ <b> & 🔥";
    path.fire("a", nasty).await;
    let received = receiver.wait(1).await.remove(0);
    assert_eq!(received.path, "/hook");
    assert_eq!(received.header("authorization"), "Bearer key");
    assert_eq!(
        received.header("content-type"),
        "application/json; charset=utf-8"
    );
    assert_eq!(
        received.header("user-agent"),
        "Amazon/EventBridge/ApiDestinations"
    );
    let mut body = received.json();
    assert!(body["state"]["timestamp"].take().is_string());
    let expected = json!({
        "text": nasty,
        "quoted": "ALARM: a is \"ALARM\"",
        "nothing": "",
        "empty": "[]",
        "first": format!("arn:aws:cloudwatch:{REGION}:{}:alarm:a", path.account),
        "state": {"value": "INSUFFICIENT_DATA", "reason": "Unchecked: Initial alarm creation", "timestamp": null},
        "rule": "r",
        "less": "<",
    });
    assert_eq!(body, expected);
    assert_eq!(
        outcomes(&path.settled(1).await),
        [(Outcome::Delivered, vec![200])]
    );
}

#[tokio::test]
async fn a_value_inside_quotes_is_not_escaped() {
    let path = Path::new("100000000062").await;
    let receiver = Receiver::start().await;
    let paths = [
        ("reason", "$.detail.state.reason"),
        ("event", "$.detail.previousState"),
    ];
    let template = "{\"text\":\"<reason>\",\"object\":\"<event>\"}";
    path.target_to(&receiver, None, |target| {
        target.input_transformer(transformer(&paths, template))
    })
    .await;
    path.fire("a", "a \"quote\"").await;
    let body = receiver.wait(1).await.remove(0).body;
    assert!(
        body.starts_with("{\"text\":\"a \"quote\"\",\"object\":\"{value: INSUFFICIENT_DATA,"),
        "{body}"
    );
    assert!(serde_json::from_str::<Value>(&body).is_err());
}

#[tokio::test]
async fn what_stands_for_the_whole_event_is_reserved() {
    let path = Path::new("100000000063").await;
    let receiver = Receiver::start().await;
    let template = "{\"event\":<aws.events.event>,\"whole\":<aws.events.event.json>,\"arn\":\"<aws.events.rule-arn>\"}";
    let header = HttpParameters::builder().header_parameters("x-alarm", "$.detail.alarmName");
    path.target_to(&receiver, None, |target| {
        let transformer = transformer(&[], template);
        target
            .input_transformer(transformer)
            .http_parameters(header.clone().build())
    })
    .await;
    path.fire("a", "r").await;
    let received = receiver.wait(1).await.remove(0);
    assert_eq!(received.header("x-alarm"), "a");
    let body = received.json();
    assert_eq!(body["event"]["detailType"], "CloudWatch Alarm State Change");
    assert_eq!(body["event"]["detail"], Value::Null);
    assert_eq!(body["whole"]["detail"]["alarmName"], "a");
    assert_eq!(
        body["whole"]["detail-type"],
        "CloudWatch Alarm State Change"
    );
    assert_eq!(
        body["arn"],
        format!("arn:aws:events:{REGION}:{}:rule/r", path.account)
    );
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_may_not_is_given_up() {
    let path = Path::new("100000000064").await;
    let receiver = Receiver::start().await;
    let queue = path
        .aws
        .dead_letter_queue(path.account, REGION, "q")
        .await
        .unwrap();
    path.target_to(&receiver, None, |target| {
        target.dead_letter_config(letters(&queue))
    })
    .await;
    for status in [500, 429, 409, 503] {
        receiver.reply(status, None);
    }
    path.fire("a-1", "r").await;
    assert_eq!(
        outcomes(&path.settled(1).await),
        [(Outcome::Delivered, vec![500, 429, 409, 503, 200])]
    );
    assert!(path.aws.dead_letters(&queue).await.unwrap().is_empty());
    let bodies: std::collections::BTreeSet<String> =
        receiver.all().into_iter().map(|each| each.body).collect();
    assert_eq!(bodies.len(), 1, "it is the same event each time");

    for (number, status) in [400, 403, 404, 410, 302].into_iter().enumerate() {
        receiver.reply(status, None);
        path.fire(&format!("a-{status}"), "r").await;
        let deliveries = path.settled(number + 2).await;
        assert_eq!(
            outcomes(&deliveries[number + 1..]),
            [(Outcome::DeadLettered, vec![status])]
        );
        let letters = path.aws.dead_letters(&queue).await.unwrap();
        assert_eq!(letters.len(), number + 1);
        let event: Value = serde_json::from_str(&letters[number].body).unwrap();
        assert_eq!(event["detail"]["alarmName"], format!("a-{status}"));
        let attributes = &letters[number].attributes;
        assert_eq!(
            attributes["RULE_ARN"],
            format!("arn:aws:events:{REGION}:{}:rule/r", path.account)
        );
        assert_eq!(attributes["TARGET_ARN"], deliveries[0].destination);
        assert_eq!(attributes["RETRY_ATTEMPTS"], "0");
        assert!(attributes["ERROR_MESSAGE"].contains(&status.to_string()));
        assert!(!attributes.contains_key("EXHAUSTED_RETRY_CONDITION"));
    }
}

#[tokio::test]
async fn retries_are_as_many_and_as_late_as_the_policy_says() {
    let path = Path::new("100000000065").await;
    let receiver = Receiver::start().await;
    let queue = path
        .aws
        .dead_letter_queue(path.account, REGION, "q")
        .await
        .unwrap();
    path.target_to(&receiver, None, |target| {
        target
            .dead_letter_config(letters(&queue))
            .retry_policy(retries(2, 60))
    })
    .await;
    for _ in 0..3 {
        receiver.reply(500, None);
    }
    path.fire("a-1", "r").await;
    assert_eq!(
        outcomes(&path.settled(1).await),
        [(Outcome::DeadLettered, vec![500, 500, 500])]
    );
    // What is asked for is waited for, unless the event would be too old by then, or nothing more is wanted.
    receiver.reply(429, Some("1"));
    path.fire("a-2", "r").await;
    assert_eq!(path.settled(2).await[1].outcome, Outcome::Delivered);
    let received = receiver.all();
    assert!(received[4].at - received[3].at >= Duration::from_secs(1));
    for (number, (status, asked)) in [(503, "61"), (503, "-1")].into_iter().enumerate() {
        receiver.reply(status, Some(asked));
        path.fire(&format!("a-{asked}"), "r").await;
        let deliveries = path.settled(number + 3).await;
        assert_eq!(
            outcomes(&deliveries[number + 2..]),
            [(Outcome::DeadLettered, vec![status])]
        );
    }
    let letters = path.aws.dead_letters(&queue).await.unwrap();
    let exhausted: Vec<_> = letters
        .iter()
        .map(|letter| {
            let exhausted = letter
                .attributes
                .get("EXHAUSTED_RETRY_CONDITION")
                .map(String::as_str);
            (exhausted, letter.attributes["RETRY_ATTEMPTS"].as_str())
        })
        .collect();
    assert_eq!(
        exhausted,
        [
            (Some("MaximumRetryAttempts"), "2"),
            (Some("MaximumEventAgeInSeconds"), "0"),
            (None, "0")
        ]
    );
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_or_says_nothing_is_tried_again() {
    let path = Path::new("100000000066").await;
    let receiver = Receiver::start().await;
    path.target_to(&receiver, None, |target| {
        target.retry_policy(retries(1, 60))
    })
    .await;
    receiver.say_nothing();
    path.fire("a-1", "r").await;
    let delivery = path.settled(1).await.remove(0);
    assert_eq!(
        (delivery.outcome, delivery.attempts, delivery.statuses),
        (Outcome::Delivered, 2, vec![200])
    );
    // Nobody listens there; and the test world calls nobody outside of it.
    for (number, url) in ["http://127.0.0.1:9/", "https://hooks.slack.com/services/x"]
        .into_iter()
        .enumerate()
    {
        let update = path
            .events
            .update_api_destination()
            .name("d")
            .invocation_endpoint(url);
        update.send().await.unwrap();
        path.fire(&format!("a-{number}-none"), "r").await;
        let delivery = path.settled(number + 2).await.remove(number + 1);
        assert_eq!(
            (delivery.outcome, delivery.attempts, delivery.statuses),
            (Outcome::Dropped, 2, vec![])
        );
    }
}

#[tokio::test]
async fn who_is_not_known_is_deauthorized_until_the_connection_is_updated() {
    let path = Path::new("100000000067").await;
    let receiver = Receiver::start().await;
    path.target_to(&receiver, None, |target| target).await;
    receiver.reply(401, None);
    path.fire("a-1", "r").await;
    receiver.wait(1).await;
    let connection = async || {
        path.events
            .describe_connection()
            .name("d")
            .send()
            .await
            .unwrap()
    };
    let destination = async || {
        let found = path
            .events
            .describe_api_destination()
            .name("d")
            .send()
            .await
            .unwrap();
        found.api_destination_state.unwrap()
    };
    let deauthorized = async {
        while connection().await.connection_state() != Some(&ConnectionState::Deauthorized) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::LIMIT, deauthorized)
        .await
        .unwrap();
    assert!(connection().await.state_reason().unwrap().contains("401"));
    assert_eq!(destination().await, ApiDestinationState::Inactive);
    path.fire("a-2", "r").await;
    assert_eq!(
        receiver.all().len(),
        1,
        "nothing is called with it any more"
    );

    let key = UpdateConnectionApiKeyAuthRequestParameters::builder().api_key_value("Bearer new");
    let key = UpdateConnectionAuthRequestParameters::builder().api_key_auth_parameters(key.build());
    let update = path
        .events
        .update_connection()
        .name("d")
        .auth_parameters(key.build());
    update.send().await.unwrap();
    assert_eq!(destination().await, ApiDestinationState::Active);
    assert_eq!(connection().await.state_reason(), None);
    // Both arrive after all.
    let deliveries = path.settled(2).await;
    assert_eq!(
        outcomes(&deliveries),
        [
            (Outcome::Delivered, vec![401, 200]),
            (Outcome::Delivered, vec![200])
        ]
    );
    assert!(
        receiver.all()[1..]
            .iter()
            .all(|each| each.header("authorization") == "Bearer new")
    );
}

#[tokio::test]
async fn a_destination_is_called_no_faster_than_its_rate_and_loses_nothing() {
    let path = Path::new("100000000068").await;
    let receiver = Receiver::start().await;
    path.target_to(&receiver, Some(1), |target| target).await;
    for number in 0..3 {
        path.fire(&format!("a-{number}"), "r").await;
    }
    let received = receiver.wait(3).await;
    // Two seconds lie between the first and the third, less what the first itself was late.
    let span = received[2].at - received[0].at;
    assert!(span > Duration::from_secs(1), "{span:?}");
    let names = |each: &crate::receiver::Received| each.json()["detail"]["alarmName"].to_string();
    let order: Vec<String> = received.iter().map(names).collect();
    assert_eq!(order, ["\"a-0\"", "\"a-1\"", "\"a-2\""]);
    assert!(
        path.settled(3)
            .await
            .iter()
            .all(|each| each.outcome == Outcome::Delivered)
    );
}

#[tokio::test]
async fn without_a_role_nothing_is_called_and_nobody_is_told() {
    let path = Path::new("100000000069").await;
    let receiver = Receiver::start().await;
    let queue = path
        .aws
        .dead_letter_queue(path.account, REGION, "q")
        .await
        .unwrap();
    let destination = path.destination("d", &receiver.url("/"), None).await;
    path.rule("r", of_alarms("a")).await;
    let target = |id: &str, role: Option<&str>| {
        Target::builder()
            .id(id)
            .arn(&destination)
            .set_role_arn(role.map(str::to_owned))
            .dead_letter_config(letters(&queue))
    };
    path.put("r", target("none", None)).await;
    path.put(
        "r",
        target("unknown", Some("arn:aws:iam::100000000069:role/other")),
    )
    .await;
    let foreign = path.aws.events_role("100000000070").await.unwrap();
    path.put("r", target("foreign", Some(&foreign))).await;
    path.put("r", target("good", Some(&path.role))).await;
    path.fire("a", "r").await;
    let by_target = |deliveries: &[Delivery]| {
        let outcome = |each: &Delivery| (each.target.clone(), (each.outcome, each.attempts));
        deliveries
            .iter()
            .map(outcome)
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let deliveries = by_target(&path.settled(4).await);
    assert_eq!(deliveries["none"], (Outcome::NotInvoked, 0));
    assert_eq!(deliveries["unknown"], (Outcome::DeadLettered, 0));
    assert_eq!(deliveries["foreign"], (Outcome::DeadLettered, 0));
    assert_eq!(deliveries["good"], (Outcome::Delivered, 1));
    let letters = path.aws.dead_letters(&queue).await.unwrap();
    let codes: Vec<_> = letters
        .iter()
        .map(|letter| letter.attributes["ERROR_CODE"].as_str())
        .collect();
    assert_eq!(codes, ["NO_PERMISSIONS", "NO_PERMISSIONS"]);

    path.aws.remove_events_role(&path.role).await.unwrap();
    path.fire("a-2", "r").await;
    let last = by_target(&path.settled(8).await[4..]);
    assert_eq!(last["good"].0, Outcome::DeadLettered);
    path.aws.events_role(path.account).await.unwrap();
    path.events
        .delete_api_destination()
        .name("d")
        .send()
        .await
        .unwrap();
    path.fire("a-3", "r").await;
    let last = by_target(&path.settled(12).await[8..]);
    assert_eq!(last["good"], (Outcome::DeadLettered, 0));
    let letters = path.aws.dead_letters(&queue).await.unwrap();
    assert!(
        letters
            .iter()
            .any(|letter| letter.attributes["ERROR_CODE"] == "NO_RESOURCE")
    );
    assert_eq!(receiver.all().len(), 1);
}

#[tokio::test]
async fn a_queue_that_does_not_let_eventbridge_in_takes_nothing() {
    let path = Path::new("100000000071").await;
    let receiver = Receiver::start().await;
    let foreign = path
        .aws
        .dead_letter_queue("100000000072", REGION, "q")
        .await
        .unwrap();
    let elsewhere = path
        .aws
        .dead_letter_queue(path.account, "eu-west-1", "q")
        .await
        .unwrap();
    let none = format!("arn:aws:sqs:{REGION}:{}:none", path.account);
    let destination = path.destination("d", &receiver.url("/"), None).await;
    path.rule("r", of_alarms("a")).await;
    for (number, queue) in [&foreign, &elsewhere, &none].into_iter().enumerate() {
        let target = path
            .target("t", &destination)
            .dead_letter_config(letters(queue));
        path.put("r", target).await;
        receiver.reply(404, None);
        path.fire(&format!("a-{number}"), "r").await;
        let deliveries = path.settled(number + 1).await;
        assert_eq!(deliveries[number].outcome, Outcome::Dropped, "{queue}");
        assert!(
            deliveries[number].reason.contains(queue.as_str()),
            "{deliveries:?}"
        );
        assert!(path.aws.dead_letters(queue).await.unwrap().is_empty());
    }
}
