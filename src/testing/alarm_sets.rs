//! AlarmSets, from the object to the alarms: made, looked at, repaired, edited, deleted.

use super::{
    Operator, World,
    operator::{ACCOUNT, NAMESPACE, POLL},
};
use crate::api::{AlarmSet, TenantObservability};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};

/// A tenant whose warnings go to a topic, with one reader.
pub fn tenant() -> Json {
    json!({
        "environments": [{"name": "prod"}],
        "aws": {"accountId": ACCOUNT, "region": "us-east-2"},
        "notify": {"warning": {"emails": ["platform@vsu.example"]}},
        "eventBridge": {"invokeRoleArn": format!("arn:aws:iam::{ACCOUNT}:role/campanile-events")}
    })
}

/// Alarms by these names, with these thresholds.
pub fn alarms(thresholds: &[(&str, f64)], more: Json) -> Json {
    let alarm = |&(name, threshold): &(&str, f64)| {
        json!({"name": name, "severity": "warning", "namespace": "App", "metricName": name,
            "statistic": "Sum", "period": 60, "evaluationPeriods": 1, "threshold": threshold,
            "comparisonOperator": "GreaterThanThreshold"})
    };
    let alarms: Vec<_> = thresholds.iter().map(alarm).collect();
    let mut spec = json!({"tenantRef": {"name": "vsu"}, "alarms": alarms});
    let fields = spec.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    spec
}

/// Alarms by ARN and their thresholds.
pub fn thresholds(world: &World) -> BTreeMap<String, f64> {
    let alarms = world.aws.things(":alarm:").into_iter();
    let threshold = |alarm: Json| alarm["Threshold"].as_f64().unwrap();
    alarms.map(|(arn, alarm)| (arn, threshold(alarm))).collect()
}

async fn applied(thresholds: &[(&str, f64)], more: Json) -> (World, Operator) {
    let world = World::new();
    let operator = Operator::new(&world);
    world.apply("TenantObservability", "vsu", tenant());
    world.apply("AlarmSet", "golden", alarms(thresholds, more));
    operator.converge().await;
    operator.woken();
    (world, operator)
}

#[tokio::test(start_paused = true)]
async fn alarms_are_made_and_a_second_look_writes_nothing() {
    let (world, operator) = applied(&[("errors", 1.0), ("latency", 2.0)], json!({})).await;
    assert_eq!(
        world.condition::<AlarmSet>("golden", "Ready"),
        "True Applied"
    );
    let made = thresholds(&world);
    assert_eq!(made.values().collect::<Vec<_>>(), [&1.0, &2.0], "{made:?}");
    let topics = world.aws.things(":sns:");
    let topic = topics.keys().next().unwrap();
    for alarm in world.aws.things(":alarm:").values() {
        assert_eq!(alarm["AlarmActions"], json!([topic]));
    }

    world.calls.clear();
    for _ in 0..3 {
        operator
            .reconcile::<TenantObservability>("vsu")
            .await
            .unwrap();
        let looked = operator.reconcile::<AlarmSet>("golden").await.unwrap();
        assert!(!looked.wrote);
        tokio::time::sleep(POLL * 2).await;
    }
    assert_eq!(world.calls.writes(), Vec::<String>::new());
    assert_eq!(operator.woken(), BTreeSet::new());
    assert!(world.calls.count("cloudwatch:DescribeAlarms") <= 7);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_changes_is_seen_by_the_next_poll_and_put_back() {
    let (world, operator) = applied(&[("errors", 1.0), ("latency", 2.0)], json!({})).await;
    let before = thresholds(&world);
    let (first, second) = (before.keys().next().unwrap(), before.keys().nth(1).unwrap());
    world.calls.clear();
    world
        .aws
        .edit(first, |alarm| alarm["Threshold"] = json!(9.0));
    world.aws.remove(second);
    tokio::time::sleep(POLL * 2).await;
    assert!(operator.woken().contains("golden"));
    operator.converge().await;
    assert_eq!(thresholds(&world), before);
    assert_eq!(world.calls.count("cloudwatch:PutMetricAlarm"), 2);
    assert_eq!(
        world.condition::<AlarmSet>("golden", "Drifted"),
        "False DriftRepaired"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_reported_stays_until_the_object_is_edited() {
    let report = json!({"driftPolicy": "Report"});
    let (world, operator) = applied(&[("errors", 1.0)], report.clone()).await;
    let before = thresholds(&world);
    let arn = before.keys().next().unwrap();
    world.aws.edit(arn, |alarm| alarm["Threshold"] = json!(9.0));
    tokio::time::sleep(POLL * 2).await;
    operator.converge().await;
    assert_eq!(thresholds(&world)[arn], 9.0);
    assert!(
        world
            .condition::<AlarmSet>("golden", "Drifted")
            .starts_with("True")
    );
    world.apply("AlarmSet", "golden", alarms(&[("errors", 3.0)], report));
    operator.converge().await;
    assert_eq!(thresholds(&world)[arn], 3.0);
}

#[tokio::test(start_paused = true)]
async fn an_edit_moves_what_it_is_about_and_a_deletion_takes_all() {
    let (world, operator) = applied(&[("errors", 1.0), ("latency", 2.0)], json!({})).await;
    world.calls.clear();
    let edited = alarms(&[("latency", 3.0), ("queue", 4.0)], json!({}));
    world.apply("AlarmSet", "golden", edited);
    operator.converge().await;
    let made = thresholds(&world);
    assert_eq!(made.values().collect::<Vec<_>>(), [&3.0, &4.0], "{made:?}");
    assert_eq!(world.calls.count("cloudwatch:PutMetricAlarm"), 2);
    assert_eq!(world.calls.count("cloudwatch:DeleteAlarms"), 1);

    world.cluster.delete::<AlarmSet>(NAMESPACE, "golden");
    operator.converge().await;
    assert_eq!(thresholds(&world), BTreeMap::new());
    assert!(world.cluster.get::<AlarmSet>(NAMESPACE, "golden").is_none());
    world
        .cluster
        .delete::<TenantObservability>(NAMESPACE, "vsu");
    operator.converge().await;
    assert_eq!(world.aws.things(""), BTreeMap::new());
    assert!(
        world
            .cluster
            .get::<TenantObservability>(NAMESPACE, "vsu")
            .is_none()
    );
}

#[tokio::test(start_paused = true)]
async fn an_environment_that_nobody_knows_removes_no_alarm() {
    let in_prod = json!({"environments": ["prod"]});
    let (world, operator) = applied(&[("errors", 1.0), ("latency", 2.0)], in_prod.clone()).await;
    let made = thresholds(&world);
    assert_eq!(made.len(), 2);
    // With a typo, and with one alarm less.
    let edited = alarms(&[("errors", 3.0)], json!({"environments": ["prdo"]}));
    world.apply("AlarmSet", "golden", edited);
    operator.reconcile::<AlarmSet>("golden").await.unwrap();
    assert_eq!(
        world.condition::<AlarmSet>("golden", "Ready"),
        "False InvalidSpec"
    );
    assert_eq!(thresholds(&world), made);
    let corrected = alarms(&[("errors", 3.0)], in_prod);
    world.apply("AlarmSet", "golden", corrected);
    operator.converge().await;
    assert_eq!(thresholds(&world).into_values().collect::<Vec<_>>(), [3.0]);
}

/// The chain from an alarm to whoever hears it begins with the alarm.
#[tokio::test(start_paused = true)]
async fn an_alarm_that_tells_nobody_is_no_delivery() {
    let world = World::new();
    let operator = Operator::new(&world);
    world.apply("TenantObservability", "vsu", tenant());
    let spec = alarms(&[("errors", 1.0)], json!({"driftPolicy": "Report"}));
    world.apply("AlarmSet", "golden", spec);
    operator.converge().await;
    world.aws.confirm();
    tokio::time::sleep(POLL * 3).await;
    operator.converge().await;
    let delivery = || world.condition::<TenantObservability>("vsu", "DeliveryReady");
    assert_eq!(delivery(), "True Delivering");
    let alarm = world.aws.things(":alarm:").into_keys().next().unwrap();
    for (field, found) in [
        ("ActionsEnabled", json!(false)),
        ("AlarmActions", json!([])),
    ] {
        let before = world.aws.things(&alarm)[&alarm].clone();
        world.aws.edit(&alarm, |it| it[field] = found);
        for _ in 0..2 {
            tokio::time::sleep(POLL * 2).await;
            operator.converge().await;
        }
        assert_eq!(delivery(), "False AlarmsNotAsDeclared", "{field}");
        world.aws.edit(&alarm, |it| *it = before);
        for _ in 0..2 {
            tokio::time::sleep(POLL * 2).await;
            operator.converge().await;
        }
        assert_eq!(delivery(), "True Delivering", "{field}");
    }
}
