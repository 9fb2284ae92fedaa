//! A life of a tenant and its alarms that is interrupted at every call: the process dies there, or its
//! connection breaks. Nothing is made twice, and nothing is left behind.

use super::{
    Call, Fault, Operator, World,
    alarm_sets::{alarms, tenant},
    aws::MADE,
    operator::NAMESPACE,
    slack_channels::channel,
};
use crate::api::{AlarmSet, SlackChannel, TenantObservability};
use serde_json::json;
use std::collections::BTreeSet;

/// What is done to the objects, one after the other.
type Steps = [fn(&World); 3];

const CHANNEL: Steps = [
    |world| channel(world, json!({"deletionPolicy": "Delete"})),
    |world| {
        channel(
            world,
            json!({"deletionPolicy": "Delete", "topic": "Others", "channel": "vsu_pages"}),
        )
    },
    |world| world.cluster.delete::<SlackChannel>(NAMESPACE, "alerts"),
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
fn seen(world: &World) -> BTreeSet<String> {
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

/// Lives through all steps while calls fail like this; one that hangs is where the process dies. Says what was
/// there after each step.
async fn live(
    world: &World,
    steps: Steps,
    next: Next,
    fails: impl FnMut(usize, &Call) -> Option<Fault> + Send + 'static,
) -> Vec<BTreeSet<String>> {
    let mut operator = Operator::new(world);
    world.calls.fail(fails);
    let mut after = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        step(world);
        let died = tokio::select! {
            () = operator.converge() => false,
            () = world.calls.hung() => true,
        };
        if died {
            operator = Operator::new(world);
        }
        if died && (next == Next::AtOnce || number + 1 == steps.len()) {
            operator.converge().await;
        }
        after.push(seen(world));
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

/// A life for each call at which something may go wrong: every write, and the first time that something is read.
/// What a process does not know any more matters only where the outside has changed.
async fn live_all(steps: Steps, fault: Fault, next: Next, writes_only: bool) {
    let world = World::new();
    let expected = live(&world, steps, next, |_, _| None).await;
    let written = writes(&world);
    let mut known = BTreeSet::new();
    for (at, call) in world.calls.all().into_iter().enumerate() {
        let new = known.insert((call.operation.clone(), call.subject.clone()));
        let is_event = call.operation == "create events";
        if is_event || !call.writes && (writes_only || !new) {
            continue;
        }
        let world = World::new();
        let after = live(&world, steps, next, move |index, _| {
            (index == at).then_some(fault)
        })
        .await;
        for (step, (after, expected)) in after.iter().zip(&expected).enumerate() {
            // What was there when it died is nobody's doing.
            if next == Next::AtOnce || step == 2 {
                same(
                    after,
                    expected,
                    &format!("{fault:?} of {at}, {call:?}, step {step}"),
                );
            }
        }
        // What was done though nobody said so is looked up, and not done again; but for who is in a channel.
        let done = matches!(fault, Fault::Cut { done } | Fault::Hang { done } if done);
        if done
            && next == Next::AtOnce
            && call.system != "kubernetes"
            && call.operation != "conversations.invite"
        {
            assert_eq!(writes(&world), written, "{fault:?} of {at}, {call:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_may_die_after_any_write() {
    for steps in [TENANT, CHANNEL] {
        live_all(steps, Fault::Hang { done: true }, Next::AtOnce, true).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_may_die_after_any_write_and_come_back_to_other_objects() {
    for steps in [TENANT, CHANNEL] {
        live_all(steps, Fault::Hang { done: true }, Next::Later, true).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_may_break_before_any_call() {
    for steps in [TENANT, CHANNEL] {
        live_all(steps, Fault::Cut { done: false }, Next::AtOnce, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_may_break_after_any_write() {
    for steps in [TENANT, CHANNEL] {
        live_all(steps, Fault::Cut { done: true }, Next::AtOnce, true).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_write_may_be_refused_at_first() {
    for (steps, system, status, code) in [
        (TENANT, "aws", 400, "Throttling"),
        (TENANT, "aws", 403, "AccessDenied"),
        (TENANT, "aws", 500, "InternalFailure"),
        (TENANT, "kubernetes", 500, "InternalError"),
        (CHANNEL, "slack", 429, "ratelimited"),
        (CHANNEL, "slack", 200, "missing_scope"),
        (CHANNEL, "slack", 500, "fatal_error"),
        (CHANNEL, "kubernetes", 409, "Conflict"),
    ] {
        let expected = live(&World::new(), steps, Next::AtOnce, |_, _| None).await;
        let mut known = BTreeSet::new();
        let fault = move |_, call: &Call| {
            let new = known.insert((call.operation.clone(), call.subject.clone()));
            let fails = call.writes && call.system == system && new;
            fails.then_some(Fault::Refuse(status, code))
        };
        let after = live(&World::new(), steps, Next::AtOnce, fault).await;
        for (after, expected) in after.iter().zip(&expected) {
            same(after, expected, code);
        }
    }
}

/// Status is never the only record: what was made is known again by its marks, and goes with its object.
#[tokio::test(start_paused = true)]
async fn a_status_may_be_wiped_at_any_time() {
    let expected = live(&World::new(), TENANT, Next::AtOnce, |_, _| None).await;
    assert!(expected[0].len() > 8, "{expected:#?}");
    assert_eq!(expected[2].len(), 3, "all is gone: {:#?}", expected[2]);
    let world = World::new();
    let operator = Operator::new(&world);
    for (number, step) in TENANT.iter().enumerate() {
        step(&world);
        if number < 2 {
            operator.converge().await;
        }
        world.wipe::<TenantObservability>();
        world.wipe::<AlarmSet>();
        Operator::new(&world).converge().await;
        same(&seen(&world), &expected[number], "wiped");
    }
}
