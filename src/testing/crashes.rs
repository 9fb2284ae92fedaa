//! A life of a tenant and its alarms that is interrupted at every call: the process dies there, or its
//! connection breaks. Nothing is made twice, and nothing is left behind.

use super::{
    Call, Fault, Operator, World,
    alarm_sets::{alarms, tenant},
    aws::MADE,
    operator::{NAMESPACE, POLL},
    slack_channels::channel,
};
use crate::api::{AlarmSet, SlackChannel, TenantObservability};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// What is done to the objects, one after the other.
type Steps = [fn(&World); 3];

const CHANNEL: Steps = [
    |world| {
        let commons = json!({"id": "C00", "name": "commons", "is_member": false, "creator": "U9"});
        world.slack.edit("C00", |channel| *channel = commons);
        let token = json!({"name": "slack", "key": "token"});
        let adopts =
            json!({"channel": "commons", "tokenSecretRef": token, "adoptionPolicy": "IfExists"});
        world.apply("SlackChannel", "commons", adopts);
        channel(
            world,
            json!({"deletionPolicy": "Delete", "purpose": "Pages"}),
        );
    },
    |world| {
        channel(
            world,
            json!({"deletionPolicy": "Delete", "topic": "Others", "channel": "vsu_pages"}),
        )
    },
    |world| {
        world.cluster.delete::<SlackChannel>(NAMESPACE, "commons");
        world.cluster.delete::<SlackChannel>(NAMESPACE, "alerts");
    },
];

const TENANT: Steps = [
    |world| {
        world.secret(
            "webhook",
            "url",
            "https://hooks.slack.com/services/T0/B0/secret",
        );
        let webhook =
            json!({"webhookSecretRef": {"name": "webhook", "key": "url"}, "suspend": true});
        world.apply("SlackChannel", "alerts", webhook);
        let mut tenant = tenant();
        tenant["notify"]["warning"]["slack"] = json!([{"channelRef": {"name": "alerts"}}]);
        world.apply("TenantObservability", "vsu", tenant);
        let set = alarms(&[("errors", 1.0), ("latency", 2.0)], json!({}));
        world.apply("AlarmSet", "golden", set);
    },
    |world| {
        let mut tenant = tenant();
        tenant["notify"]["warning"]["emails"] = json!(["other@vsu.example"]);
        tenant["notify"]["critical"] = json!({});
        world.apply("TenantObservability", "vsu", tenant);
        let set = alarms(&[("latency", 3.0), ("queue", 4.0)], json!({}));
        world.apply("AlarmSet", "golden", set);
    },
    |world| {
        world.cluster.delete::<AlarmSet>(NAMESPACE, "golden");
        world
            .cluster
            .delete::<TenantObservability>(NAMESPACE, "vsu");
    },
];

/// All that is outside, but for ids and times that the outside makes up.
pub fn seen(world: &World) -> BTreeSet<String> {
    let things = world.aws.things("").into_iter();
    let things = things.map(|(arn, thing)| {
        let text = format!("{arn} {thing}");
        let parts = text.split(MADE);
        let parts = parts.map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()));
        parts.collect()
    });
    let channels = world.slack.channels().into_values();
    let channels = channels.map(|mut channel| {
        channel["created"] = json!(0);
        match channel["is_archived"].as_bool() {
            Some(true) => format!("{} is archived", channel["id"]),
            _ => channel.to_string(),
        }
    });
    let things = things.chain(channels);
    let ready = [
        world.condition::<TenantObservability>("vsu", "Ready") + " tenant",
        world.condition::<AlarmSet>("golden", "Ready") + " set",
        world.condition::<SlackChannel>("alerts", "Ready") + " channel",
    ];
    things.chain(ready).collect()
}

/// When a process that died is followed by another.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Next {
    /// At once.
    AtOnce,
    /// After the next step.
    Later,
}

/// A new process does what a step asks for, until it dies or all is well. Says whether it died.
async fn run(world: &World, step: fn(&World)) -> bool {
    step(world);
    let operator = Operator::new(world);
    tokio::select! {
        () = operator.converge() => false,
        () = world.calls.hung() => true,
    }
}

/// What is there after each step if calls fail like this.
async fn live(
    steps: Steps,
    fails: impl FnMut(usize, &Call) -> Option<Fault> + Send + 'static,
) -> Vec<BTreeSet<String>> {
    let world = World::new();
    world.calls.fail(fails);
    let mut after = Vec::new();
    for step in steps {
        run(&world, step).await;
        after.push(seen(&world));
    }
    after
}

/// The writes to the outside, sorted.
fn writes(world: &World) -> Vec<String> {
    let calls = world.calls.all().into_iter();
    let calls = calls.filter(|call| call.writes && call.system != "kubernetes");
    let mut writes: Vec<_> = calls
        .map(|it| format!("{} {}", it.operation, it.subject))
        .collect();
    writes.sort();
    writes
}

fn same(after: &BTreeSet<String>, expected: &BTreeSet<String>, when: &str) {
    let differs: Vec<_> = after.symmetric_difference(expected).collect();
    assert!(differs.is_empty(), "{when}: {differs:#?}");
}

/// Lets each distinct write of each step fail once, and the first read of each kind. Every step begins with
/// what the one before it left in the outside, and with a new process.
async fn fail_each(steps: Steps, fault: Fault, next: Next, writes_only: bool) {
    let mut before = World::new();
    let mut reads = BTreeSet::new();
    for (number, step) in steps.into_iter().enumerate() {
        let world = before.copy();
        run(&world, step).await;
        let (calls, written) = (world.calls.all(), writes(&world));
        let after = world.copy();
        // A process that comes back later finds other objects, and in the end all of them are deleted.
        let rest = match next {
            Next::AtOnce => &[],
            Next::Later => &steps[number + 1..],
        };
        for later in rest {
            run(&world, *later).await;
        }
        let expected = seen(&world);
        let mut known = BTreeSet::new();
        for (at, call) in calls.into_iter().enumerate() {
            let of_cluster = call.system == "kubernetes";
            let distinct = match call.writes {
                true => of_cluster || known.insert(call.operation.clone()),
                false => !writes_only && reads.insert(call.operation.clone()),
            };
            if !distinct || call.operation == "create events" {
                continue;
            }
            let when = format!("{fault:?} of {at}, {call:?}, step {number}");
            let world = before.copy();
            world
                .calls
                .fail(move |index, _| (index == at).then_some(fault));
            if run(&world, step).await && rest.is_empty() {
                run(&world, |_| {}).await;
            }
            for later in rest {
                run(&world, *later).await;
            }
            same(&seen(&world), &expected, &when);
            // A write whose answer is lost is looked up, and not done again; but an invitation cannot be seen.
            let done = matches!(fault, Fault::Cut { done } | Fault::Hang { done } if done);
            if done && rest.is_empty() && !of_cluster && call.operation != "conversations.invite" {
                assert_eq!(writes(&world), written, "{when}");
            }
        }
        before = after;
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_may_die_after_any_write() {
    for steps in [TENANT, CHANNEL] {
        fail_each(steps, Fault::Hang { done: true }, Next::AtOnce, true).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_may_die_after_any_write_and_come_back_to_other_objects() {
    for steps in [TENANT, CHANNEL] {
        fail_each(steps, Fault::Hang { done: true }, Next::Later, true).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_may_break_before_any_call() {
    for steps in [TENANT, CHANNEL] {
        fail_each(steps, Fault::Cut { done: false }, Next::AtOnce, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_may_break_after_any_write() {
    for steps in [TENANT, CHANNEL] {
        fail_each(steps, Fault::Cut { done: true }, Next::AtOnce, true).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_write_may_be_refused_at_first() {
    let tenant = live(TENANT, |_, _| None).await;
    let channel = live(CHANNEL, |_, _| None).await;
    for (steps, expected, system, status, code) in [
        (TENANT, &tenant, "aws", 400, "Throttling"),
        (TENANT, &tenant, "aws", 403, "AccessDenied"),
        (TENANT, &tenant, "aws", 500, "InternalFailure"),
        (TENANT, &tenant, "kubernetes", 500, "InternalError"),
        (CHANNEL, &channel, "slack", 429, "ratelimited"),
        (CHANNEL, &channel, "slack", 200, "missing_scope"),
        (CHANNEL, &channel, "slack", 500, "fatal_error"),
        (CHANNEL, &channel, "kubernetes", 409, "Conflict"),
    ] {
        let mut known = BTreeSet::new();
        let fault = move |_, call: &Call| {
            let new = known.insert((call.operation.clone(), call.subject.clone()));
            let fails = call.writes && call.system == system && new;
            fails.then_some(Fault::Refuse(status, code))
        };
        let after = live(steps, fault).await;
        for (after, expected) in after.iter().zip(expected) {
            same(after, expected, code);
        }
    }
}

/// Status is never the only record: what was made is known again by its marks, and goes with its object.
#[tokio::test(start_paused = true)]
async fn a_status_may_be_wiped_at_any_time() {
    for steps in [TENANT, CHANNEL] {
        let expected = live(steps, |_, _| None).await;
        assert!(expected[0].len() > 4, "{expected:#?}");
        let world = World::new();
        let operator = Operator::new(&world);
        for (number, step) in steps.iter().enumerate() {
            step(&world);
            if number < 2 {
                operator.converge().await;
            }
            world.wipe::<TenantObservability>();
            world.wipe::<AlarmSet>();
            world.wipe::<SlackChannel>();
            Operator::new(&world).converge().await;
            same(&seen(&world), &expected[number], "wiped");
        }
    }
}

/// The subscriptions by mail, and their ARNs.
fn mails(world: &World) -> BTreeMap<String, String> {
    let things = world.aws.things(":campanile_").into_iter();
    let mails = things.filter(|(_, thing)| thing["Protocol"] == "email");
    mails
        .map(|(arn, thing)| (thing["Endpoint"].as_str().unwrap().to_owned(), arn))
        .collect()
}

/// With status all went that was known of who had left: the topic knows it still.
#[tokio::test(start_paused = true)]
async fn whoever_unsubscribed_is_not_invited_again_though_status_was_wiped() {
    for left in ["pending", "confirmed"] {
        let world = World::new();
        TENANT[0](&world);
        let operator = Operator::new(&world);
        operator.converge().await;
        if left == "confirmed" {
            world.aws.confirm();
            operator.converge().await;
        }
        for arn in mails(&world).into_values() {
            world.aws.remove(&arn);
        }
        world.wipe::<TenantObservability>();
        world.calls.clear();
        Operator::new(&world).converge().await;
        assert_eq!(world.calls.count("sns:Subscribe"), 0, "{left}");
        let delivery = world.condition::<TenantObservability>("vsu", "DeliveryReady");
        assert_eq!(delivery, "False SubscriptionGone", "{left}");
    }
}

/// What leaves the spec goes, whose it was being learnt from the topic; what somebody else subscribed stays.
#[tokio::test(start_paused = true)]
async fn a_subscription_is_known_again_though_status_was_wiped() {
    let world = World::new();
    TENANT[0](&world);
    Operator::new(&world).converge().await;
    world.aws.confirm();
    Operator::new(&world).converge().await;
    let ours = mails(&world).into_values().next().unwrap();
    let (topic, _) = ours.rsplit_once(':').unwrap();
    let theirs = format!("{topic}:theirs");
    let by_hand =
        json!({"Protocol": "email", "Endpoint": "cto@vsu.example", "SubscriptionArn": theirs});
    world.aws.edit(&theirs, |thing| *thing = by_hand);
    world.wipe::<TenantObservability>();
    let mut tenant = tenant();
    tenant["notify"]["warning"]["emails"] = json!(["other@vsu.example"]);
    world.apply("TenantObservability", "vsu", tenant);
    Operator::new(&world).converge().await;
    let left: Vec<_> = mails(&world).into_keys().collect();
    assert_eq!(left, ["cto@vsu.example", "other@vsu.example"]);
    // What is gone from the topic is not listed any more: who comes by hand later is a stranger.
    world.aws.confirm();
    Operator::new(&world).converge().await;
    let by_hand =
        json!({"Protocol": "email", "Endpoint": "platform@vsu.example", "SubscriptionArn": ours});
    world.aws.edit(&ours, |thing| *thing = by_hand);
    world.wipe::<TenantObservability>();
    Operator::new(&world).converge().await;
    assert_eq!(mails(&world).len(), 3);
}

/// Taking an address out of the spec and putting it back in is how a reader who left is invited again.
#[tokio::test(start_paused = true)]
async fn whoever_is_taken_out_of_the_spec_and_put_back_is_invited_again() {
    for left in [false, true] {
        let world = World::new();
        TENANT[0](&world);
        let operator = Operator::new(&world);
        operator.converge().await;
        world.aws.confirm();
        tokio::time::sleep(POLL * 3).await;
        operator.converge().await;
        if left {
            for arn in mails(&world).into_values() {
                world.aws.remove(&arn);
            }
            tokio::time::sleep(POLL * 11).await;
            operator.converge().await;
            let delivery = world.condition::<TenantObservability>("vsu", "DeliveryReady");
            assert_eq!(delivery, "False SubscriptionGone");
        }
        let mut none = tenant();
        none["notify"] = json!({"warning": {}});
        world.apply("TenantObservability", "vsu", none);
        operator
            .reconcile::<TenantObservability>("vsu")
            .await
            .unwrap();
        assert_eq!(mails(&world), BTreeMap::new());
        world.calls.clear();
        world.apply("TenantObservability", "vsu", tenant());
        operator
            .reconcile::<TenantObservability>("vsu")
            .await
            .unwrap();
        assert_eq!(world.calls.count("sns:Subscribe"), 1, "{left}");
    }
}

/// It keeps what it made, and so must not go without being cleaned up.
#[tokio::test(start_paused = true)]
async fn a_suspended_object_has_its_finalizer_put_back() {
    let world = World::new();
    TENANT[0](&world);
    let operator = Operator::new(&world);
    operator.converge().await;
    let edit = |edit: fn(&mut serde_json::Value)| {
        world.cluster.edit::<AlarmSet>(NAMESPACE, "golden", edit);
    };
    edit(|set| set["spec"]["suspend"] = json!(true));
    operator.converge().await;
    edit(|set| set["metadata"]["finalizers"] = json!([]));
    operator.reconcile::<AlarmSet>("golden").await.unwrap();
    let set = world.cluster.get::<AlarmSet>(NAMESPACE, "golden").unwrap();
    assert_eq!(set.metadata.finalizers.unwrap(), [crate::api::FINALIZER]);
}
