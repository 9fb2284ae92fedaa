//! What a reconcile reads of the API server: nothing that is watched, but for what must not be lost.

use super::{
    Fault, Operator, World,
    alarm_sets::{alarms, tenant, thresholds},
    operator::{NAMESPACE, POLL},
};
use crate::{
    api::{ACCOUNT_BINDING, AlarmSet, FINALIZER, SLACK_PREFIX, SlackChannel, TenantObservability},
    controller,
};
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use serde_json::json;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

/// What has been read of the cluster since calls count, but for watches.
fn reads(world: &World) -> Vec<String> {
    let calls = world.calls.all().into_iter();
    let calls = calls.filter(|call| call.system == "kubernetes" && !call.writes);
    let reads = calls.filter(|call| !call.operation.starts_with("watch"));
    reads
        .map(|call| format!("{} {}", call.operation, call.subject))
        .collect()
}

async fn applied() -> (World, Operator) {
    let world = World::new();
    let operator = Operator::new(&world);
    world.apply("TenantObservability", "vsu", tenant());
    world.apply("AlarmSet", "golden", alarms(&[("errors", 1.0)], json!({})));
    operator.converge().await;
    world.calls.clear();
    (world, operator)
}

#[tokio::test(start_paused = true)]
async fn an_object_is_read_before_its_first_status_and_not_while_it_is_looked_at_or_edited() {
    let (world, operator) = applied().await;
    for _ in 0..3 {
        operator
            .reconcile::<TenantObservability>("vsu")
            .await
            .unwrap();
        operator.reconcile::<AlarmSet>("golden").await.unwrap();
        sleep(POLL * 20).await;
    }
    world.apply("AlarmSet", "golden", alarms(&[("errors", 2.0)], json!({})));
    let mut spec = tenant();
    spec["notify"]["critical"] = json!({"emails": ["oncall@vsu.example"]});
    world.apply("TenantObservability", "vsu", spec);
    operator.converge().await;
    assert!(thresholds(&world).values().eq([&2.0]));
    assert_eq!(reads(&world), Vec::<String>::new());

    world.apply("AlarmSet", "silver", alarms(&[("latency", 1.0)], json!({})));
    operator.converge().await;
    assert_eq!(reads(&world), ["get alarmsets vsu/silver"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_spec_names_and_no_watch_has_seen_is_asked_for_once() {
    let world = World::new();
    let operator = Operator::new(&world);
    world.apply("AlarmSet", "golden", alarms(&[("errors", 1.0)], json!({})));
    for _ in 0..3 {
        operator.reconcile::<AlarmSet>("golden").await.unwrap();
    }
    world.calls.clear();
    operator.reconcile::<AlarmSet>("golden").await.unwrap();
    assert_eq!(reads(&world), ["get tenantobservabilities vsu/vsu"]);
}

#[tokio::test(start_paused = true)]
async fn a_slack_channel_among_fifty_lists_nothing() {
    let world = World::new();
    world.cluster.edit::<Namespace>("", NAMESPACE, |it| {
        it["metadata"]["annotations"][SLACK_PREFIX] = json!("vsu_");
    });
    world.secret("slack", "token", "xoxb-0-secret");
    let operator = Operator::new(&world);
    let spec = |at: usize, topic: &str| {
        json!({"channel": format!("vsu_{at}"), "topic": topic,
            "tokenSecretRef": {"name": "slack", "key": "token"}})
    };
    for at in 0..50 {
        world.apply("SlackChannel", &format!("c{at}"), spec(at, "a"));
    }
    operator.converge().await;
    world.calls.clear();
    world.apply("SlackChannel", "c7", spec(7, "b"));
    for _ in 0..2 {
        operator.reconcile::<SlackChannel>("c7").await.unwrap();
    }
    assert_eq!(
        world.condition::<SlackChannel>("c7", "Ready"),
        "True Applied"
    );
    let secret = "get secrets vsu/slack";
    assert_eq!(reads(&world), [secret, secret], "Secrets are never kept");
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_going_is_read() {
    let (world, operator) = applied().await;
    world.cluster.edit::<Namespace>("", NAMESPACE, |it| {
        it["metadata"]["finalizers"] = json!(["kubernetes"]);
    });
    world.cluster.delete::<Namespace>("", NAMESPACE);
    world.cluster.edit::<Namespace>("", NAMESPACE, |it| {
        it["metadata"]["annotations"] = json!({});
    });
    operator.reconcile::<AlarmSet>("golden").await.unwrap();
    let denied = world.condition::<AlarmSet>("golden", "Ready");
    assert_eq!(denied, "False AccessDenied", "bound to {ACCOUNT_BINDING}");
}

/// The whole process, whose watches never tell anything after their first list.
async fn with_watches_that_hang() -> (World, AbortOnDropHandle<crate::engine::error::Result<()>>) {
    let (world, operator) = applied().await;
    drop(operator);
    world.calls.fail(|_, call| {
        let fails = call.operation.starts_with("watch");
        fails.then_some(Fault::Hang { done: false })
    });
    let context = world.context();
    let process = tokio::spawn(async move { controller::run(context, &[]).await });
    sleep(POLL).await;
    (world, AbortOnDropHandle::new(process))
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_lags_behind_our_own_status_writes_loses_none_and_repeats_none() {
    let (world, _process) = with_watches_that_hang().await;
    let mut versions = Vec::new();
    for value in [7.0, 8.0, 9.0] {
        let (arn, _) = thresholds(&world).pop_first().unwrap();
        world.aws.edit(&arn, |alarm| {
            alarm["Threshold"] = json!(value);
            alarm["StateValue"] = json!(if value == 8.0 { "OK" } else { "ALARM" });
        });
        sleep(POLL * 3).await;
        assert!(thresholds(&world).values().eq([&1.0]), "it is repaired");
        let set = world.cluster.get::<AlarmSet>(NAMESPACE, "golden").unwrap();
        let status = set.status.clone().unwrap();
        let firing = status.counts.as_ref().unwrap().firing;
        assert_eq!(firing, i32::from(value != 8.0), "what was written last");
        assert!(!status.targets.is_empty());
        versions.push(set.resource_version());

        // Whatever wakes it now finds everything as it is.
        let before = world.calls.writes().len();
        sleep(POLL * 20).await;
        assert_eq!(world.calls.writes().len(), before, "{value}");
    }
    versions.dedup();
    assert_eq!(versions.len(), 3);
    assert!(reads(&world).contains(&"get alarmsets vsu/golden".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_finalizer_is_never_removed_as_a_stale_watch_has_it() {
    let (world, operator) = applied().await;
    // The watch has seen the deletion, but neither the other finalizer nor that nothing is orphaned any more.
    world.cluster.edit::<AlarmSet>(NAMESPACE, "golden", |set| {
        set["spec"]["deletionPolicy"] = json!("Orphan");
    });
    world.cluster.delete::<AlarmSet>(NAMESPACE, "golden");
    operator.lag::<AlarmSet>();
    world.cluster.edit::<AlarmSet>(NAMESPACE, "golden", |set| {
        set["spec"]["deletionPolicy"] = json!("Delete");
        set["metadata"]["finalizers"] = json!([FINALIZER, "somebody.example/else"]);
    });
    world.calls.clear();
    operator.reconcile::<AlarmSet>("golden").await.unwrap();
    assert_eq!(thresholds(&world).len(), 0, "as its spec says now");
    let left = world.cluster.get::<AlarmSet>(NAMESPACE, "golden").unwrap();
    assert_eq!(left.finalizers(), ["somebody.example/else"]);
    assert_eq!(reads(&world)[0], "get alarmsets vsu/golden");
}

#[tokio::test(start_paused = true)]
async fn what_became_of_a_status_write_is_read_where_its_answer_was_lost() {
    let (world, operator) = applied().await;
    operator.lag::<AlarmSet>();
    let cut = Fault::Cut { done: true };
    world.calls.fail_next("patch alarmsets/status", 1, cut);
    let (arn, _) = thresholds(&world).pop_first().unwrap();
    world
        .aws
        .edit(&arn, |alarm| alarm["StateValue"] = json!("ALARM"));
    sleep(POLL * 20).await;
    assert!(operator.reconcile::<AlarmSet>("golden").await.is_err());
    let before = world.cluster.get::<AlarmSet>(NAMESPACE, "golden");
    operator.reconcile::<AlarmSet>("golden").await.unwrap();
    assert_eq!(world.cluster.get::<AlarmSet>(NAMESPACE, "golden"), before);
    assert_eq!(reads(&world), ["get alarmsets vsu/golden"]);
}
