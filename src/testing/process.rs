//! The whole process of the operator, with its watches and timers: who is woken by what, and how soon.

use super::{
    Fault, World,
    alarm_sets::{alarms, tenant},
    operator::{ACCOUNT, NAMESPACE, POLL},
};
use crate::{
    api::{ACCOUNT_BINDING, AlarmSet, TenantObservability},
    controller,
};
use serde_json::{Value as Json, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

const SECOND: Duration = Duration::from_secs(1);

/// Runs until it is dropped.
fn start(world: &World) -> AbortOnDropHandle<crate::engine::error::Result<()>> {
    let context = world.context();
    AbortOnDropHandle::new(tokio::spawn(
        async move { controller::run(context, &[]).await },
    ))
}

/// How long it takes until this is so.
async fn until(world: &World, is_so: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < POLL * 60, "{:#?}", world.calls.writes());
        sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}

fn threshold(world: &World, name: &str) -> Json {
    let alarms = world.aws.things(":alarm:");
    let found = alarms.into_iter().find(|(arn, _)| arn.ends_with(name));
    found.map_or(Json::Null, |(_, alarm)| alarm["Threshold"].clone())
}

#[tokio::test(start_paused = true)]
async fn each_is_woken_by_what_concerns_it_and_by_nothing_else() {
    let world = World::new();
    let _process = start(&world);
    let ready = |reason: &str| world.condition::<AlarmSet>("golden", "Ready") == reason;
    // In any order.
    world.apply("AlarmSet", "golden", alarms(&[("errors", 1.0)], json!({})));
    until(&world, || ready("False WaitingForTenant")).await;
    world.apply("TenantObservability", "vsu", tenant());
    let took = until(&world, || ready("True Applied")).await;
    assert!(took < SECOND * 2, "{took:?}");
    let healthy = || world.condition::<TenantObservability>("vsu", "Ready") == "True Applied";
    until(&world, healthy).await;
    sleep(POLL * 20).await;

    world.calls.clear();
    sleep(POLL * 9).await;
    let asked = world.calls.all().into_iter();
    let asked =
        asked.filter(|call| call.system == "kubernetes" && !call.operation.contains("watch"));
    assert_eq!(asked.collect::<Vec<_>>(), [], "nothing happens");

    world.apply("AlarmSet", "golden", alarms(&[("errors", 2.0)], json!({})));
    let took = until(&world, || threshold(&world, "errors") == 2.0).await;
    assert!(took < SECOND, "{took:?}");
    let arn = world.aws.things(":alarm:").into_keys().next().unwrap();
    world
        .aws
        .edit(&arn, |alarm| alarm["Threshold"] = json!(9.0));
    let took = until(&world, || threshold(&world, "errors") == 2.0).await;
    assert!(took < POLL * 2, "{took:?}");

    let bind = |account: &str| {
        let bound = json!({"name": NAMESPACE, "annotations": {ACCOUNT_BINDING: account}});
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": bound});
        world.cluster.apply(namespace);
    };
    bind("333344445555");
    let took = until(&world, || ready("False AccessDenied")).await;
    assert!(took < SECOND, "{took:?}");
    bind(ACCOUNT);
    let took = until(&world, || ready("True Applied")).await;
    assert!(took < SECOND, "{took:?}");

    world.cluster.delete::<AlarmSet>(NAMESPACE, "golden");
    world
        .cluster
        .delete::<TenantObservability>(NAMESPACE, "vsu");
    until(&world, || world.aws.things("").is_empty()).await;
    until(&world, || {
        world.cluster.names::<TenantObservability>().is_empty()
    })
    .await;
    assert_eq!(world.cluster.names::<AlarmSet>(), []);
}

/// How long an edit takes beside tenants in another account, whose every call fails like this.
async fn edit_beside(fault: Option<Fault>) -> Duration {
    let world = World::new();
    let other = "333344445555";
    let _process = start(&world);
    let bound = json!({"name": "other", "annotations": {ACCOUNT_BINDING: other}});
    world
        .cluster
        .apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": bound}));
    world.apply("TenantObservability", "vsu", tenant());
    world.apply("AlarmSet", "golden", alarms(&[("errors", 1.0)], json!({})));
    until(&world, || threshold(&world, "errors") == 1.0).await;
    sleep(POLL).await;
    world.calls.fail(move |_, call| {
        let theirs = call.system == "aws" && call.subject.starts_with(other);
        fault.filter(|_| theirs)
    });
    for name in ["a", "b", "c"] {
        let mut spec = tenant();
        spec["aws"]["accountId"] = json!(other);
        world
            .cluster
            .apply(json!({"apiVersion": "campanile.dev/v1alpha1",
            "kind": "TenantObservability", "spec": spec,
            "metadata": {"name": name, "namespace": "other"}}));
    }
    sleep(SECOND).await;
    world.apply("AlarmSet", "golden", alarms(&[("errors", 2.0)], json!({})));
    until(&world, || threshold(&world, "errors") == 2.0).await
}

#[tokio::test(start_paused = true)]
async fn an_account_that_never_answers_delays_no_edit_in_another() {
    let alone = edit_beside(None).await;
    let slow = Fault::Delay(SECOND * 9);
    for fault in [
        slow,
        Fault::Hang { done: false },
        Fault::Cut { done: false },
    ] {
        assert_eq!(edit_beside(Some(fault)).await, alone, "{fault:?}");
    }
}
