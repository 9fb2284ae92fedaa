//! A tenant and its alarms among refusals: each is told on the resource, and the rest is done.

use super::{
    Fault, Operator, World,
    alarm_sets::{alarms, tenant, thresholds},
    operator::POLL,
};
use crate::api::{AlarmSet, TenantObservability};
use serde_json::{Value as Json, json};

/// Calls of this operation are refused from now on where they are about this.
pub fn refuse(
    world: &World,
    operation: &'static str,
    about: &'static str,
    status: u16,
    code: &'static str,
) {
    world.calls.fail(move |_, call| {
        let fails = call.operation == operation && call.subject.contains(about);
        fails.then_some(Fault::Refuse(status, code))
    });
}

fn message(world: &World, name: &str) -> String {
    let conditions = match name {
        "golden" => world.status::<AlarmSet>(name, "/conditions"),
        _ => world.status::<TenantObservability>(name, "/conditions"),
    };
    let mut all = conditions.as_array().into_iter().flatten();
    let ready = all.find(|it| it["type"] == "Ready").unwrap();
    ready["message"].as_str().unwrap().to_owned()
}

fn begun(more: Json) -> (World, Operator) {
    let world = World::new();
    let operator = Operator::new(&world);
    world.apply("TenantObservability", "vsu", tenant());
    world.apply(
        "AlarmSet",
        "golden",
        alarms(&[("errors", 1.0), ("latency", 2.0)], more),
    );
    (world, operator)
}

async fn look(operator: &Operator) {
    drop(operator.reconcile::<TenantObservability>("vsu").await);
    drop(operator.reconcile::<AlarmSet>("golden").await);
}

#[tokio::test(start_paused = true)]
async fn a_refused_alarm_is_told_with_its_reason_and_not_asked_for_at_every_poll() {
    let puts = "cloudwatch:PutMetricAlarm";
    for (status, code, reason, says, made) in [
        (
            400,
            "ValidationError",
            "PartiallyFailed",
            "AWS refused cloudwatch:PutMetricAlarm in account 222233334444, us-east-2: ValidationError",
            1,
        ),
        (
            403,
            "AccessDenied",
            "AccessDenied",
            "Allow cloudwatch:PutMetricAlarm to arn:aws:iam::",
            1,
        ),
        (
            400,
            "Throttling",
            "Throttled",
            "throttled: cloudwatch:PutMetricAlarm",
            1,
        ),
        (
            500,
            "InternalFailure",
            "SystemUnavailable",
            "cloudwatch:PutMetricAlarm in account",
            1,
        ),
    ] {
        let (world, operator) = begun(json!({}));
        refuse(&world, puts, "latency", status, code);
        look(&operator).await;
        let ready = world.condition::<AlarmSet>("golden", "Ready");
        assert_eq!(ready, format!("False {reason}"), "{code}");
        assert!(
            message(&world, "golden").contains(says),
            "{}",
            message(&world, "golden")
        );
        assert_eq!(thresholds(&world).len(), made, "{code}");
        assert_eq!(
            world.aws.things(":sns:").len(),
            2,
            "the topic and its reader"
        );
        if matches!(reason, "PartiallyFailed" | "AccessDenied") {
            let asked = world.calls.count(puts);
            tokio::time::sleep(POLL * 2).await;
            look(&operator).await;
            assert_eq!(world.calls.count(puts), asked, "{code}");
            // An edit is tried at once.
            world.apply(
                "AlarmSet",
                "golden",
                alarms(&[("errors", 1.0), ("latency", 3.0)], json!({})),
            );
            look(&operator).await;
            assert!(world.calls.count(puts) > asked, "{code}");
        }
        world.calls.clear();
        operator.converge().await;
        assert_eq!(
            world.condition::<AlarmSet>("golden", "Ready"),
            "True Applied"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_fails_is_not_absence() {
    let (world, operator) = begun(json!({}));
    operator.converge().await;
    let before = thresholds(&world);
    world.calls.fail(|_, call| {
        let reads = ["cloudwatch:DescribeAlarms", "sns:GetTopicAttributes"];
        let fails = reads.contains(&&*call.operation);
        fails.then_some(Fault::Refuse(500, "InternalFailure"))
    });
    world.apply(
        "AlarmSet",
        "golden",
        alarms(&[("errors", 5.0), ("latency", 2.0)], json!({})),
    );
    look(&operator).await;
    let ready = world.condition::<AlarmSet>("golden", "Ready");
    assert_eq!(ready, "False SystemUnavailable");
    assert_eq!(
        world.status::<AlarmSet>("golden", "/counts/desired"),
        2,
        "what was read last stands"
    );
    let ready = world.condition::<TenantObservability>("vsu", "Ready");
    assert_eq!(ready, "True Applied", "it was not edited");
    assert_eq!(thresholds(&world), before);
    world.calls.clear();
    operator.converge().await;
    assert!(
        thresholds(&world)
            .values()
            .any(|threshold| *threshold == 5.0)
    );
}

/// Whoever has no Slack need not let us look for it.
#[tokio::test(start_paused = true)]
async fn a_tenant_without_slack_needs_no_right_to_eventbridge() {
    let (world, operator) = begun(json!({}));
    refuse(&world, "events:List", "", 403, "AccessDeniedException");
    operator.converge().await;
    let ready = world.condition::<TenantObservability>("vsu", "Ready");
    assert_eq!(ready, "True Applied");
    assert!(world.calls.count("events:ListRules") > 0, "it was tried");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_denied_keeps_neither_topic_nor_claim() {
    let (world, operator) = begun(json!({}));
    refuse(&world, "sns:Subscribe", "", 403, "AuthorizationError");
    look(&operator).await;
    look(&operator).await;
    let of_tenant = |type_| world.condition::<TenantObservability>("vsu", type_);
    assert_eq!(of_tenant("Ready"), "False AccessDenied");
    assert_eq!(of_tenant("DeliveryReady"), "False SubscriptionMissing");
    assert!(
        of_tenant("AccountReachable").starts_with("True"),
        "it answers"
    );
    assert!(message(&world, "vsu").contains("Allow sns:Subscribe to"));
    let claimed = world.status::<TenantObservability>("vsu", "/subscriptions");
    assert!(claimed.as_array().is_none_or(Vec::is_empty), "{claimed}");
    assert_eq!(
        world.condition::<AlarmSet>("golden", "Ready"),
        "True Applied"
    );
    for alarm in world.aws.things(":alarm:").values() {
        assert_eq!(alarm["AlarmActions"].as_array().unwrap().len(), 1);
    }
    let asked = world.calls.count("sns:Subscribe");
    // A denial is put off by two and a half minutes at least.
    tokio::time::sleep(POLL * 2).await;
    look(&operator).await;
    assert_eq!(world.calls.count("sns:Subscribe"), asked);
}

#[tokio::test(start_paused = true)]
async fn an_alarm_whose_severity_moves_stays_until_the_new_one_is_there() {
    let (world, operator) = begun(json!({}));
    let set = |severity: &str, dimensions: Json| {
        let mut spec = alarms(&[("errors", 1.0)], json!({"environments": ["prod"]}));
        spec["alarms"][0]["severity"] = json!(severity);
        spec["alarms"][0]["dimensions"] = dimensions;
        world.apply("AlarmSet", "golden", spec);
    };
    set("warning", json!({}));
    operator.converge().await;
    let old = thresholds(&world);
    assert!(old.keys().all(|arn| arn.contains("/warning/golden/errors")));
    // AWS refuses the new one; then it cannot even be asked for.
    refuse(
        &world,
        "cloudwatch:PutMetricAlarm",
        "critical",
        400,
        "ValidationError",
    );
    set("critical", json!({}));
    look(&operator).await;
    assert_eq!(
        world.condition::<AlarmSet>("golden", "Ready"),
        "False PartiallyFailed"
    );
    assert_eq!(thresholds(&world), old);
    world.calls.clear();
    set("info", json!({"DeploymentId": "x"}));
    look(&operator).await;
    assert_eq!(
        world.condition::<AlarmSet>("golden", "Ready"),
        "False InvalidSpec"
    );
    assert_eq!(thresholds(&world), old);
    set("info", json!({}));
    operator.converge().await;
    let new: Vec<_> = thresholds(&world).into_keys().collect();
    assert!(
        new.len() == 1 && new[0].contains("/info/golden/errors"),
        "{new:?}"
    );
    // What is new is made before what is old goes.
    let writes = world.calls.writes();
    let at = |verb: &str| writes.iter().position(|write| write.contains(verb));
    assert!(at("PutMetricAlarm") < at("DeleteAlarms"), "{writes:?}");
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_a_tenant_reaches_its_sets_and_leaves_them_ready() {
    let (world, operator) = begun(json!({"environments": ["*"]}));
    operator.converge().await;
    let conditions = world.status::<AlarmSet>("golden", "/conditions");
    let mut spec = tenant();
    spec["environments"] = json!([{"name": "prod"}, {"name": "stage"}]);
    world.apply("TenantObservability", "vsu", spec.clone());
    operator.converge().await;
    assert_eq!(thresholds(&world).len(), 4);
    let ready = |conditions: Json| {
        let all = conditions.as_array().unwrap().clone().into_iter();
        let ready = all.filter(|it| it["type"] == "Ready");
        ready
            .map(|it| it["lastTransitionTime"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        ready(world.status::<AlarmSet>("golden", "/conditions")),
        ready(conditions)
    );
    // The topic of a severity that nobody hears goes; its alarms stay and point nowhere.
    spec["notify"] = json!({"critical": {}});
    world.apply("TenantObservability", "vsu", spec);
    operator.converge().await;
    assert!(world.aws.things("_warning_").is_empty());
    for alarm in world.aws.things(":alarm:").values() {
        assert!(
            alarm["AlarmActions"].as_array().is_none_or(Vec::is_empty),
            "{alarm}"
        );
    }
}
