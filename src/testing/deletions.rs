//! What goes while it fires, and what goes with its Namespace.

use super::{
    Fault, Operator, World,
    alarm_sets::{alarms, tenant},
    operator::NAMESPACE,
    slack_channels::channel,
};
use crate::{
    api::{AlarmSet, SlackChannel, TenantObservability},
    engine::{
        error::Class,
        informer::{Consistency, ReadOptions},
        limits::Priority,
    },
    kinds::{
        self, Outcome,
        alarm_set::closing::{PAUSE, REASON},
        cluster_view::{ClusterView, Purpose},
        system::RunContext,
    },
};
use k8s_openapi::api::{
    core::v1::{Namespace, Secret},
    events::v1::Event,
};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use tokio::time::{Instant, sleep};

/// Two alarms, of which the first fires.
async fn firing() -> (World, Operator, String) {
    let world = World::new();
    let operator = Operator::new(&world);
    let mut tenant = tenant();
    tenant["notify"]["critical"] = json!({});
    world.apply("TenantObservability", "vsu", tenant);
    set(&world, json!({}));
    operator.converge().await;
    let mut made = world.aws.things(":alarm:").into_keys();
    let arn = made.find(|arn| arn.contains("errors")).unwrap();
    fire(&world, &arn);
    world.calls.clear();
    (world, operator, arn)
}

fn set(world: &World, more: Json) {
    let both = alarms(&[("errors", 1.0), ("latency", 2.0)], more);
    world.apply("AlarmSet", "golden", both);
}

fn fire(world: &World, arn: &str) {
    world.aws.edit(arn, |it| it["StateValue"] = json!("ALARM"));
}

/// The writes of CloudWatch, without the account.
fn written(world: &World) -> Vec<String> {
    let writes = world.calls.writes().into_iter();
    let writes = writes.filter_map(|write| {
        let (call, name) = write.strip_prefix("cloudwatch:")?.split_once(' ')?;
        let (name, _) = name.rsplit_once('"')?;
        let name = name.rsplit_once('/').map_or(name, |(_, name)| name);
        Some(format!("{call} {name}"))
    });
    writes.collect()
}

/// Looks as often as it is asked for, until the pause is over.
async fn let_it_be_delivered(operator: &Operator) {
    operator.converge().await;
    sleep(PAUSE).await;
    operator.converge().await;
}

#[tokio::test(start_paused = true)]
async fn an_alarm_that_goes_while_it_fires_is_closed_first() {
    let (world, operator, arn) = firing().await;
    world.apply("AlarmSet", "golden", alarms(&[("latency", 2.0)], json!({})));
    operator.converge().await;
    assert_eq!(
        written(&world),
        ["PutMetricAlarm errors", "SetAlarmState errors"]
    );
    let closed = world.aws.things(":alarm:")[&arn].clone();
    assert_eq!(
        (&closed["StateValue"], &closed["StateReason"]),
        (&json!("OK"), &json!(REASON))
    );
    assert_eq!(
        (
            &closed["AlarmActions"],
            closed["OKActions"].as_array().unwrap().len()
        ),
        (&json!([]), 1)
    );
    assert_eq!(closed["Threshold"], 1e108, "it cannot fall back");
    assert_eq!(
        world.condition::<AlarmSet>("golden", "Ready"),
        "True Applied"
    );
    let events = world.cluster.names::<Event>().into_iter();
    let events =
        events.filter_map(|(namespace, name)| world.cluster.get::<Event>(&namespace, &name)?.note);
    let events: Vec<_> = events.collect();
    assert!(
        events
            .iter()
            .any(|it| it.contains("state ALARM → OK, because it is removed")),
        "{events:?}"
    );

    // By hand, or by a CloudWatch that is slow to see the put: closed it was all the same.
    fire(&world, &arn);
    sleep(PAUSE).await;
    operator.converge().await;
    assert_eq!(written(&world)[2..], ["DeleteAlarms errors"]);
    assert!(!world.aws.things(":alarm:").contains_key(&arn));
    assert_eq!(
        world.condition::<AlarmSet>("golden", "Drifted"),
        "False AsApplied"
    );
}

/// Its requeue alone brings it to its end.
#[tokio::test(start_paused = true)]
async fn the_next_look_is_due_when_the_pause_is_over() {
    let (world, operator, arn) = firing().await;
    world.cluster.delete::<AlarmSet>(NAMESPACE, "golden");
    let result = operator.reconcile::<AlarmSet>("golden").await.unwrap();
    assert_eq!(
        result.action,
        kube::runtime::controller::Action::requeue(PAUSE)
    );
    assert_eq!(
        world.aws.things(":alarm:").into_keys().collect::<Vec<_>>(),
        [arn]
    );
    let says = world.status::<AlarmSet>("golden", "/conditions");
    assert!(
        says.to_string().contains("go once that is delivered"),
        "{says}"
    );
    sleep(PAUSE).await;
    operator.reconcile::<AlarmSet>("golden").await.unwrap();
    assert_eq!(world.aws.things(":alarm:"), BTreeMap::new());
    assert_eq!(world.cluster.names::<AlarmSet>(), []);
}

#[tokio::test(start_paused = true)]
async fn what_takes_its_place_is_there_before() {
    let (world, operator, arn) = firing().await;
    let mut moved = alarms(&[("errors", 1.0), ("latency", 2.0)], json!({}));
    moved["alarms"][0]["severity"] = json!("critical");
    world.apply("AlarmSet", "golden", moved.clone());
    world.calls.fail_next(
        "cloudwatch:PutMetricAlarm",
        1,
        Fault::Refuse(400, "ValidationError"),
    );
    operator.reconcile::<AlarmSet>("golden").await.unwrap();
    assert_eq!(written(&world), ["PutMetricAlarm errors"]);
    assert_eq!(
        world.aws.things(":alarm:")[&arn]["StateValue"],
        "ALARM",
        "still the only guard"
    );

    moved["alarms"][0]["threshold"] = json!(1.5);
    world.apply("AlarmSet", "golden", moved);
    world.calls.clear();
    operator.reconcile::<AlarmSet>("golden").await.unwrap();
    operator.reconcile::<AlarmSet>("golden").await.unwrap();
    assert_eq!(world.aws.things(":alarm:").len(), 3);
    assert_eq!(
        written(&world),
        [
            "PutMetricAlarm errors",
            "PutMetricAlarm errors",
            "SetAlarmState errors"
        ]
    );
    let new = arn.replace("/warning/", "/critical/");
    let states = world.aws.things(":alarm:");
    let states = [&new, &arn].map(|arn| states[arn]["StateValue"].clone());
    assert_eq!(states, ["INSUFFICIENT_DATA", "OK"]);
    let_it_be_delivered(&operator).await;
    assert_eq!(world.aws.things(":alarm:").len(), 2);
    assert!(world.aws.things(":alarm:").contains_key(&new));
}

#[tokio::test(start_paused = true)]
async fn topics_outlive_what_is_said_last() {
    let (world, operator, _) = firing().await;
    let topics = world.aws.things(":sns:");
    // The tenant is looked at first.
    world
        .cluster
        .delete::<TenantObservability>(NAMESPACE, "vsu");
    operator
        .reconcile::<TenantObservability>("vsu")
        .await
        .unwrap();
    world.cluster.delete::<AlarmSet>(NAMESPACE, "golden");
    for _ in 0..2 {
        operator
            .reconcile::<TenantObservability>("vsu")
            .await
            .unwrap();
        operator.reconcile::<AlarmSet>("golden").await.unwrap();
        assert_eq!(world.aws.things(":alarm:").len(), 1);
        assert_eq!(world.aws.things(":sns:"), topics);
    }
    let says = world.status::<TenantObservability>("vsu", "/conditions");
    assert!(
        says.to_string().contains("AlarmSet golden goes first"),
        "{says}"
    );
    sleep(PAUSE).await;
    operator.reconcile::<AlarmSet>("golden").await.unwrap();
    operator.converge().await;
    assert_eq!(world.aws.things(""), BTreeMap::new());
    assert_eq!(world.cluster.names::<TenantObservability>(), []);
    assert_eq!(world.calls.count("cloudwatch:SetAlarmState"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_role_that_may_not_close_it_does_not_keep_it() {
    let (world, operator, arn) = firing().await;
    let denied = Fault::Refuse(403, "AccessDenied");
    world
        .calls
        .fail(move |_, call| (call.operation == "cloudwatch:SetAlarmState").then_some(denied));
    world.apply("AlarmSet", "golden", alarms(&[("latency", 2.0)], json!({})));
    operator.reconcile::<AlarmSet>("golden").await.unwrap();
    assert!(!world.aws.things(":alarm:").contains_key(&arn));
    let says = world
        .status::<AlarmSet>("golden", "/conditions")
        .to_string();
    for part in [
        "is removed without an OK",
        "Allow cloudwatch:SetAlarmState to arn:aws:iam",
    ] {
        assert!(says.contains(part), "{says}");
    }
    sleep(PAUSE).await;
    operator.reconcile::<AlarmSet>("golden").await.unwrap();
    assert_eq!(
        world.condition::<AlarmSet>("golden", "Ready"),
        "True Applied"
    );

    fire(&world, &arn.replace("errors", "latency"));
    world.cluster.delete::<AlarmSet>(NAMESPACE, "golden");
    operator.reconcile::<AlarmSet>("golden").await.unwrap();
    assert_eq!(world.aws.things(":alarm:"), BTreeMap::new());
    sleep(PAUSE).await;
    operator.reconcile::<AlarmSet>("golden").await.unwrap();
    assert_eq!(world.cluster.names::<AlarmSet>(), []);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_dies_in_the_pause_is_followed_by_one_that_goes_on() {
    let (world, operator, _) = firing().await;
    world.cluster.delete::<AlarmSet>(NAMESPACE, "golden");
    operator.reconcile::<AlarmSet>("golden").await.unwrap();
    drop(operator);
    let operator = Operator::new(&world);
    operator.reconcile::<AlarmSet>("golden").await.unwrap();
    assert_eq!(world.aws.things(":alarm:"), BTreeMap::new());
    assert_eq!(world.calls.count("cloudwatch:SetAlarmState"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_is_asked_for_before_anything_goes() {
    for done in [true, false] {
        let (world, operator, arn) = firing().await;
        world
            .calls
            .fail_next("cloudwatch:SetAlarmState", 1, Fault::Cut { done });
        world.cluster.delete::<AlarmSet>(NAMESPACE, "golden");
        let began = Instant::now();
        while world.aws.things(":alarm:").contains_key(&arn) {
            operator.reconcile::<AlarmSet>("golden").await.unwrap();
            sleep(std::time::Duration::from_secs(1)).await;
        }
        assert!(began.elapsed() >= PAUSE);
        assert_eq!(
            world.calls.count("cloudwatch:SetAlarmState"),
            2 - usize::from(done)
        );
    }
}

/// What does not say whether the alarm can still fire is no reason to close it, nor to take it for gone.
#[tokio::test(start_paused = true)]
async fn an_alarm_is_not_closed_before_it_is_known_that_it_cannot_fire() {
    for done in [true, false] {
        let (world, operator, arn) = firing().await;
        world
            .calls
            .fail_next("cloudwatch:PutMetricAlarm", 1, Fault::Cut { done });
        world.cluster.delete::<AlarmSet>(NAMESPACE, "golden");
        let began = Instant::now();
        while !world.cluster.names::<AlarmSet>().is_empty() {
            let threshold = world.aws.things(&arn)[&arn]["Threshold"].as_f64().unwrap();
            let closed = world.calls.count("cloudwatch:SetAlarmState") > 0;
            assert!(!closed || threshold > 1e100, "it is closed and may fire");
            drop(operator.reconcile::<AlarmSet>("golden").await);
            sleep(std::time::Duration::from_secs(1)).await;
        }
        assert!(began.elapsed() >= PAUSE);
        assert_eq!(world.calls.count("cloudwatch:SetAlarmState"), 1);
        assert_eq!(world.aws.things(":alarm:"), BTreeMap::new());
    }
}

/// The tenant's edit takes it away, and not the set's.
#[tokio::test(start_paused = true)]
async fn an_environment_that_goes_closes_its_alarms() {
    let world = World::new();
    let operator = Operator::new(&world);
    let mut spec = tenant();
    spec["environments"] = json!([{"name": "prod"}, {"name": "pilot"}]);
    world.apply("TenantObservability", "vsu", spec);
    let all = json!({"environments": ["*"], "driftPolicy": "Report"});
    world.apply("AlarmSet", "golden", alarms(&[("errors", 1.0)], all));
    operator.converge().await;
    let mut made = world.aws.things(":alarm:").into_keys();
    let arn = made.find(|arn| arn.ends_with("@pilot")).unwrap();
    fire(&world, &arn);
    world.calls.clear();
    world.apply("TenantObservability", "vsu", tenant());
    let_it_be_delivered(&operator).await;
    let steps = ["PutMetricAlarm", "SetAlarmState", "DeleteAlarms"];
    assert_eq!(
        written(&world),
        steps.map(|step| format!("{step} errors@pilot"))
    );
    assert_eq!(
        world.condition::<AlarmSet>("golden", "Drifted"),
        "False AsApplied"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_orphaned_is_not_closed() {
    let (world, operator, arn) = firing().await;
    set(&world, json!({"deletionPolicy": "Orphan"}));
    world.cluster.delete::<AlarmSet>(NAMESPACE, "golden");
    let_it_be_delivered(&operator).await;
    assert_eq!(world.cluster.names::<AlarmSet>(), []);
    assert_eq!(world.aws.things(":alarm:")[&arn]["StateValue"], "ALARM");
}

#[tokio::test(start_paused = true)]
async fn a_plan_says_that_it_fires() {
    let (world, operator, _) = firing().await;
    world.cluster.delete::<AlarmSet>(NAMESPACE, "golden");
    let set = world.cluster.get::<AlarmSet>(NAMESPACE, "golden").unwrap();
    let context = &operator.context;
    let cluster = ClusterView::new(&context.client, &context.installation, Purpose::Plan);
    let run = RunContext {
        systems: &context.systems,
        cluster: &cluster,
        gate: None,
        options: ReadOptions {
            uid: "plan".into(),
            priority: Priority::Edit,
            consistency: Consistency::Now,
            since: Instant::now(),
            superseded: Default::default(),
        },
        held_back: BTreeMap::new(),
    };
    let status = set.status.clone().unwrap();
    let outcome: Outcome<AlarmSet> = kinds::run(&set, &status, run).await;
    let planned = outcome.reports().flat_map(|visit| &visit.report.planned);
    let planned: Vec<_> = planned.map(ToString::to_string).collect();
    assert_eq!(planned.len(), 4, "{planned:?}");
    assert!(
        planned[3].ends_with("state: ALARM → OK, because it is removed"),
        "{planned:?}"
    );
    assert_eq!(written(&world), Vec::<String>::new());
}

/// Its Secrets go first, and nobody can make them again.
#[tokio::test(start_paused = true)]
async fn a_namespace_that_goes_is_not_kept_by_what_it_cannot_hold_any_more() {
    for restarts in [true, false] {
        let world = World::new();
        let mut operator = Operator::new(&world);
        channel(&world, json!({"deletionPolicy": "Delete"}));
        operator.converge().await;
        let ends = |object: &mut Json| {
            object["metadata"]["finalizers"] = json!(["kubernetes"]);
            object["metadata"]["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
        };
        world.cluster.edit::<Namespace>("", NAMESPACE, ends);
        world.cluster.delete::<Secret>(NAMESPACE, "slack");
        if restarts {
            operator = Operator::new(&world);
        }
        operator.reconcile::<SlackChannel>("alerts").await.unwrap();
        let says = world
            .status::<SlackChannel>("alerts", "/conditions")
            .to_string();
        assert!(
            says.contains("Namespace vsu is being deleted, so that nothing can be created there"),
            "{says}"
        );
        world.cluster.delete::<SlackChannel>(NAMESPACE, "alerts");
        let result = operator.reconcile::<SlackChannel>("alerts").await.unwrap();
        assert_eq!(result.outcome, "ok");
        assert_eq!(world.cluster.names::<SlackChannel>(), []);
        let channel = world.slack.channels().pop_first().unwrap().1;
        assert_eq!(
            channel["is_archived"] == true,
            !restarts,
            "who remembers the token archives it"
        );
    }
}

/// A Namespace that stays may yet get its Secret.
#[tokio::test(start_paused = true)]
async fn a_deletion_that_waits_says_what_can_be_done() {
    let world = World::new();
    channel(&world, json!({"deletionPolicy": "Delete"}));
    Operator::new(&world).converge().await;
    world.cluster.delete::<Secret>(NAMESPACE, "slack");
    world.cluster.delete::<SlackChannel>(NAMESPACE, "alerts");
    let operator = Operator::new(&world);
    let result = operator.reconcile::<SlackChannel>("alerts").await.unwrap();
    assert_eq!(
        result.outcome,
        Class::Waiting(crate::engine::error::WaitingOn::Secret).label()
    );
    let says = world
        .status::<SlackChannel>("alerts", "/conditions")
        .to_string();
    for part in [
        "create it with the key token",
        "it lets go by itself at 20",
        "spec.deletionPolicy is set to Orphan",
    ] {
        assert!(says.contains(part), "{says}");
    }
}
