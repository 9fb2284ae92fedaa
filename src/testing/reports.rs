//! `driftPolicy: Report` beside something that fails: what somebody changes is told, and left as it is.

use super::{
    Operator, World,
    alarm_sets::{alarms, tenant, thresholds},
    operator::{ACCOUNT, POLL},
    slack_channels::channel,
    troubles::refuse,
};
use crate::{
    api::{AlarmSet, SlackChannel, TenantObservability},
    kinds::Kind,
};
use serde_json::json;

/// Reconciles one object twice, some polls apart, whatever becomes of it.
async fn look<K: Kind>(operator: &Operator, name: &str, polls: u32) {
    for _ in 0..2 {
        drop(operator.reconcile::<K>(name).await);
        tokio::time::sleep(POLL * polls).await;
    }
}

const REFUSALS: [(u16, &str); 4] = [
    (400, "ValidationError"),
    (400, "Throttling"),
    (403, "AccessDenied"),
    (500, "InternalFailure"),
];

#[tokio::test(start_paused = true)]
async fn of_an_alarm_beside_another_that_cannot_be_made() {
    let name = "campanile/eu/vsu/warning/golden/latency";
    let held = |world: &World| {
        let mut spec = alarms(
            &[("errors", 1.0), ("latency", 2.0)],
            json!({"driftPolicy": "Report"}),
        );
        spec["environments"] = json!(["prod"]);
        spec["alarms"][1]["dimensions"] = json!({"DeploymentId": "by hand"});
        world.apply("AlarmSet", "golden", spec);
    };
    let conflict = |world: &World| {
        let arn = format!("arn:aws:cloudwatch:us-east-2:{ACCOUNT}:alarm:{name}");
        let theirs = json!({"AlarmName": name, "AlarmArn": arn, "Threshold": 7.0});
        world.aws.edit(&arn, |alarm| *alarm = theirs);
    };
    for trouble in 0..2 + REFUSALS.len() {
        let world = World::new();
        let operator = Operator::new(&world);
        let report = json!({"driftPolicy": "Report"});
        world.apply("TenantObservability", "vsu", tenant());
        world.apply(
            "AlarmSet",
            "golden",
            alarms(&[("errors", 1.0), ("latency", 2.0)], report),
        );
        match trouble.checked_sub(2).map(|refusal| REFUSALS[refusal]) {
            Some((status, code)) => {
                refuse(&world, "cloudwatch:PutMetricAlarm", "latency", status, code)
            }
            None if trouble == 0 => held(&world),
            None => conflict(&world),
        }
        look::<TenantObservability>(&operator, "vsu", 0).await;
        look::<AlarmSet>(&operator, "golden", 2).await;
        let made = thresholds(&world).into_keys();
        let errors = made.into_iter().find(|arn| arn.contains("errors")).unwrap();
        world
            .aws
            .edit(&errors, |alarm| alarm["Threshold"] = json!(9.0));
        look::<AlarmSet>(&operator, "golden", 2).await;
        let told = world.condition::<AlarmSet>("golden", "Drifted");
        assert_eq!(
            (thresholds(&world)[&errors], told.as_str()),
            (9.0, "True DriftReported"),
            "{trouble}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_topic_beside_another_that_cannot_be_made() {
    for (status, code) in REFUSALS {
        let world = World::new();
        let operator = Operator::new(&world);
        let mut spec = tenant();
        spec["driftPolicy"] = json!("Report");
        world.apply("TenantObservability", "vsu", spec.clone());
        operator.converge().await;
        spec["notify"]["critical"] = json!({});
        world.apply("TenantObservability", "vsu", spec);
        refuse(&world, "sns:CreateTopic", "critical", status, code);
        look::<TenantObservability>(&operator, "vsu", 11).await;
        let topics = world.aws.things("_warning_");
        let warning = topics.keys().next().unwrap();
        world
            .aws
            .edit(warning, |topic| topic["Attributes"]["Policy"] = json!("{}"));
        look::<TenantObservability>(&operator, "vsu", 11).await;
        let left = world.aws.things("_warning_")[warning]["Attributes"]["Policy"].clone();
        let told = world.condition::<TenantObservability>("vsu", "Drifted");
        assert_eq!(
            (left, told.as_str()),
            (json!("{}"), "True DriftReported"),
            "{code}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_channels_topic_beside_its_purpose() {
    for (status, code) in [
        (200, "too_long"),
        (429, "ratelimited"),
        (200, "missing_scope"),
        (500, "fatal_error"),
    ] {
        let world = World::new();
        let operator = Operator::new(&world);
        channel(&world, json!({"driftPolicy": "Report", "purpose": "Pages"}));
        refuse(&world, "conversations.setPurpose", "", status, code);
        look::<SlackChannel>(&operator, "alerts", 12).await;
        world
            .slack
            .edit("C0", |channel| channel["topic"]["value"] = json!("by hand"));
        look::<SlackChannel>(&operator, "alerts", 12).await;
        let left = world.slack.channels()["C0"]["topic"]["value"].clone();
        let told = world.condition::<SlackChannel>("alerts", "Drifted");
        assert_eq!(
            (left, told.as_str()),
            (json!("by hand"), "True DriftReported"),
            "{code}"
        );
    }
}
