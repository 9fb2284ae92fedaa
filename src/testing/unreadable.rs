//! Answers that nobody can read: neither a refusal nor absence.

use super::{
    Fault, Operator, World,
    alarm_sets::{alarms, tenant},
    operator::{ACCOUNT, POLL, requeued},
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
    let mut told = BTreeSet::new();
    for _ in 0..30 {
        sleep(POLL).await;
        look(&operator).await;
        told.insert(healthy());
        let result = operator.reconcile::<AlarmSet>("golden").await.unwrap();
        assert_ne!(result.action, Action::await_change());
        let again = requeued(&result.action);
        assert!(again < Duration::from_secs(400), "{again:?}");
    }
    let expected = ["True Healthy", "Unknown Unknown"].map(str::to_owned);
    assert_eq!(told, expected.into());
    assert_eq!(ready(), "False SystemUnavailable");

    applied(&world, 5.0);
    assert!(look(&operator).await.contains("unavailable"));
    assert_eq!(ready(), "False SystemUnavailable");
    let told = message::<AlarmSet>(&world, "golden", "Ready");
    let says = format!(
        "cloudwatch:DescribeAlarms in account {ACCOUNT}, us-east-2: HTTP 200 with application/cbor, which cannot be read as an answer to it. It is tried again by itself"
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

/// A new process knows nothing, and asks for all of it.
#[tokio::test(start_paused = true)]
async fn what_is_no_answer_is_not_absence_and_not_a_refusal() {
    let world = World::new();
    applied(&world, 1.0);
    Operator::new(&world).converge().await;
    for operation in [
        "cloudwatch:DescribeAlarms",
        "sns:GetTopicAttributes",
        "sns:ListTagsForResource",
        "sns:ListSubscriptionsByTopic",
        "sts:AssumeRole",
        "sts:GetCallerIdentity",
    ] {
        for (status, kind, body) in [
            (200, "text/html", "<html>Log in first</html>"),
            (200, "application/cbor", ""),
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
            let health = world.status::<TenantObservability>("vsu", "/health");
            assert_eq!(health, "Unknown", "{operation} {status} {body:?}");
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
