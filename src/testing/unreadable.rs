//! Answers that nobody can read: neither a refusal nor absence.

use super::{
    Fault, Operator, World,
    alarm_sets::{alarms, tenant},
    operator::{ACCOUNT, NAMESPACE, POLL, requeued},
};
use crate::{
    api::{AlarmSet, SlackChannel, TenantObservability},
    kinds::Kind,
};
use kube::runtime::controller::Action;
use serde_json::json;
use std::collections::BTreeSet;
use tokio::time::{Duration, sleep};

fn message<K: Kind>(world: &World, name: &str, type_: &str) -> String {
    let conditions = world.status::<K>(name, "/conditions");
    let mut conditions = conditions.as_array().into_iter().flatten();
    let found = conditions.find(|it| it["type"] == type_);
    let message = found.and_then(|it| it["message"].as_str());
    message.unwrap_or_default().to_owned()
}

fn applied(world: &World, threshold: f64) {
    let thresholds = [("errors", threshold), ("latency", 2.0)];
    let mut tenant = tenant();
    tenant["notify"] = json!({"warning": {}});
    world.apply("TenantObservability", "vsu", tenant);
    world.apply("AlarmSet", "golden", alarms(&thresholds, json!({})));
}

/// How a look at each of both ends.
async fn look(operator: &Operator) -> BTreeSet<&'static str> {
    let tenant = operator.reconcile::<TenantObservability>("vsu").await;
    let set = operator.reconcile::<AlarmSet>("golden").await;
    let all = [tenant, set].into_iter();
    all.map(|result| result.unwrap().outcome).collect()
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_read_is_told_as_that_and_tried_again_until_it_can() {
    let world = World::new();
    let operator = Operator::new(&world);
    applied(&world, 1.0);
    operator.converge().await;
    for arn in world.aws.things(":alarm:").keys() {
        world
            .aws
            .edit(arn, |alarm| alarm["StateValue"] = json!("OK"));
    }
    sleep(POLL * 2).await;
    operator.converge().await;
    let healthy = || world.condition::<TenantObservability>("vsu", "Healthy");
    let ready = || world.condition::<AlarmSet>("golden", "Ready");
    assert_eq!(healthy(), "True Healthy");

    // Nobody edits anything: what was read last stands for a while, and then nobody knows.
    let (arn, _) = world.aws.things(":alarm:").pop_first().unwrap();
    let period = |value| world.aws.edit(&arn, |alarm| alarm["Period"] = value);
    period(json!("a minute"));
    world.calls.clear();
    let (mut told, mut failed) = (BTreeSet::new(), 0);
    for _ in 0..30 {
        sleep(POLL).await;
        look(&operator).await;
        told.insert(healthy());
        let result = operator.reconcile::<AlarmSet>("golden").await.unwrap();
        if result.outcome != "ok" {
            failed += 1;
            assert_ne!(result.action, Action::await_change());
            let again = requeued(&result.action);
            assert!(again < Duration::from_secs(400), "{again:?}");
        }
    }
    assert!(failed > 25, "but for what the first poll has not seen yet");
    let expected = ["True Healthy", "Unknown Unknown"].map(str::to_owned);
    assert_eq!(told, expected.into());
    assert_eq!(ready(), "False SystemUnavailable");

    applied(&world, 5.0);
    assert!(look(&operator).await.contains("unavailable"));
    assert_eq!(ready(), "False SystemUnavailable");
    let told = message::<AlarmSet>(&world, "golden", "Ready");
    let says = format!(
        "cloudwatch:DescribeAlarms in account {ACCOUNT}, us-east-2: what it says of alarm campanile/eu/vsu/warning/golden/errors cannot be read. It is tried again by itself"
    );
    assert!(told.contains(&says), "{told}");
    assert_eq!(healthy(), "Unknown Unknown");
    let mut calls = world.calls.all().into_iter();
    assert!(!calls.any(|call| call.system == "aws" && call.writes));

    period(json!(60));
    sleep(POLL * 6).await;
    operator.converge().await;
    assert_eq!(ready(), "True Applied");
    assert_eq!(healthy(), "True Healthy");
}

/// One alarm that nobody can read hides those of other sets neither from a poll nor from an edit.
#[tokio::test(start_paused = true)]
async fn one_alarm_that_cannot_be_read_blinds_its_own_set_alone() {
    let world = World::new();
    let operator = Operator::new(&world);
    applied(&world, 1.0);
    let silver = |threshold| {
        let spec = alarms(&[("latency", threshold)], json!({}));
        world.apply("AlarmSet", "silver", spec);
    };
    silver(3.0);
    operator.converge().await;
    let threshold = |of: &str| world.aws.things(of).pop_first().unwrap().1["Threshold"].clone();
    let (bad, _) = world.aws.things("/golden/errors").pop_first().unwrap();
    let (good, _) = world.aws.things("/silver/latency").pop_first().unwrap();
    world
        .aws
        .edit(&bad, |alarm| alarm["Period"] = json!("a minute"));
    world
        .aws
        .edit(&good, |alarm| alarm["Threshold"] = json!(99.0));
    operator.woken();
    sleep(POLL * 2).await;
    assert!(
        operator.woken().contains("silver"),
        "a poll sees what changed"
    );
    operator.reconcile::<AlarmSet>("silver").await.unwrap();
    assert_eq!(threshold("/silver/latency"), json!(3.0), "it is repaired");
    silver(4.0);
    operator.reconcile::<AlarmSet>("silver").await.unwrap();
    assert_eq!(threshold("/silver/latency"), json!(4.0));
    let ready = world.condition::<AlarmSet>("silver", "Ready");
    assert_eq!(ready, "True Applied");

    // Its own set can be deleted no sooner than it can be read.
    world.cluster.delete::<AlarmSet>(NAMESPACE, "golden");
    drop(operator.reconcile::<AlarmSet>("golden").await);
    assert!(message::<AlarmSet>(&world, "golden", "Ready").contains("cannot be read"));
    assert!(world.aws.things("/golden/errors").len() == 1);
    world.aws.edit(&bad, |alarm| alarm["Period"] = json!(60));
    sleep(POLL * 6).await;
    operator.converge().await;
    assert!(world.aws.things("/golden/").is_empty());
}

/// A new process knows nothing, and asks for all of it.
#[tokio::test(start_paused = true)]
async fn what_is_no_answer_is_not_absence_and_not_a_refusal() {
    let world = World::new();
    applied(&world, 1.0);
    world.secret("hook", "url", &world.slack.webhook());
    let hook = json!({"webhookSecretRef": {"name": "hook", "key": "url"}});
    world.apply("SlackChannel", "alerts", hook);
    let mut told = tenant();
    told["notify"] = json!({"warning": {"slack": [{"channelRef": {"name": "alerts"}}]}});
    world.apply("TenantObservability", "vsu", told);
    Operator::new(&world).converge().await;
    assert_eq!(
        world.aws.things(":events:").len(),
        5,
        "three rules and a path"
    );
    for operation in [
        "cloudwatch:DescribeAlarms",
        "sns:GetTopicAttributes",
        "sns:ListTagsForResource",
        "sns:ListSubscriptionsByTopic",
        "events:ListRules",
        "events:ListTargetsByRule",
        "events:ListConnections",
        "events:ListApiDestinations",
        "events:DescribeConnection",
        "events:DescribeApiDestination",
        "sts:AssumeRole",
        "sts:GetCallerIdentity",
    ] {
        for (status, kind, body) in [
            (200, "text/html", "<html>Log in first</html>"),
            (200, "application/cbor", ""),
            (200, "application/x-amz-json-1.1", "{}"),
            (
                200,
                "text/xml",
                "<ListSubscriptionsByTopicResponse><ListSubscriptionsByTopicResult><Subscriptions>",
            ),
            (
                200,
                "text/xml",
                "<GetTopicAttributesResponse></GetTopicAttributesResponse>",
            ),
            (302, "text/html", "<html>"),
            (403, "text/html", "<html>"),
            (404, "text/html", "<html>"),
        ] {
            let world = world.copy();
            let before = world.aws.things("");
            world.calls.fail(move |_, call| {
                let fails = call.operation == operation;
                fails.then_some(Fault::Answer(status, kind, body))
            });
            let operator = Operator::new(&world);
            for _ in 0..3 {
                let outcomes = look(&operator).await;
                let as_expected = ["ok", "unavailable", "waiting"];
                let case = format!("{operation} {status} {body:?}: {outcomes:?}");
                assert!(outcomes.iter().all(|it| as_expected.contains(it)), "{case}");
                assert!(outcomes.contains("unavailable"), "{case}");
                sleep(POLL * 20).await;
            }
            assert_eq!(
                world.aws.things(""),
                before,
                "{operation} {status} {body:?}"
            );
            let ready = [
                world.condition::<TenantObservability>("vsu", "Ready"),
                world.condition::<AlarmSet>("golden", "Ready"),
            ];
            let case = format!("{operation} {status} {body:?}: {ready:?}");
            let known = ["False SystemUnavailable", "True Applied"];
            assert!(ready.contains(&known[0].to_owned()), "{case}");
            assert!(
                ready.iter().all(|it| known.contains(&it.as_str())),
                "{case}"
            );
            if !operation.starts_with("events:") {
                let health = world.status::<TenantObservability>("vsu", "/health");
                assert_eq!(health, "Unknown", "{case}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_stands_in_slacks_place_is_told() {
    let world = World::new();
    let operator = Operator::new(&world);
    world.secret("slack", "token", "xoxb-0-secret");
    let spec =
        json!({"channel": "vsu_alerts", "tokenSecretRef": {"name": "slack", "key": "token"}});
    world.apply("SlackChannel", "alerts", spec);
    world.calls.fail(|_, call| {
        let fails = call.system == "slack";
        fails.then_some(Fault::Answer(
            200,
            "text/html; charset=utf-8",
            "<html>canary",
        ))
    });
    drop(operator.reconcile::<SlackChannel>("alerts").await);
    let ready = world.condition::<SlackChannel>("alerts", "Ready");
    assert_eq!(ready, "False SystemUnavailable");
    let told = message::<SlackChannel>(&world, "alerts", "Ready");
    assert!(told.contains("auth.test: HTTP 200 with text/html, which is none of Slack's answers. It is tried again by itself"), "{told}");
    assert!(!told.contains("canary"), "{told}");
    world.calls.clear();
    sleep(Duration::from_secs(10)).await;
    operator.converge().await;
    let ready = world.condition::<SlackChannel>("alerts", "Ready");
    assert_eq!(ready, "True Applied");
}
