//! Histories in which others edit what is in the cluster, too: they wipe status, finalizers and annotations whenever
//! they like. Nothing is made twice, nothing is left behind, and nothing of a stranger's is touched.

use super::{
    Operator, World,
    alarm_sets::{alarms, tenant},
    crashes::seen,
    operator::{NAMESPACE, POLL},
};
use crate::{
    api::{AlarmSet, SlackChannel, TenantObservability},
    kinds::Kind,
};
use serde_json::{Value as Json, json};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    time::Duration,
};

/// How many there are.
const HISTORIES: u64 = 2000;

/// The specs that an object may have; it may also be gone.
const VARIANTS: usize = 2;

/// What is asked for: a variant of the tenant and of its AlarmSet, or nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    tenant: Option<usize>,
    set: Option<usize>,
}

/// What every history begins with.
const BEGINNING: Asked = Asked {
    tenant: Some(0),
    set: Some(0),
};

fn begun() -> World {
    let world = World::new();
    let webhook = "https://hooks.slack.com/services/T0/B0/secret";
    world.secret("webhook", "url", webhook);
    let webhook = json!({"webhookSecretRef": {"name": "webhook", "key": "url"}, "suspend": true});
    world.apply("SlackChannel", "alerts", webhook);
    for (name, thing) in strangers() {
        world.aws.edit(&name, |it| *it = thing);
    }
    world
}

/// What somebody else has in the account.
fn strangers() -> BTreeMap<String, Json> {
    let arn = |what: &str| format!("arn:aws:{what}");
    let place = "us-east-2:222233334444";
    let alarm = json!({"AlarmName": "campanile/eu/vsu/warning/golden/theirs", "AlarmDescription": "by hand",
        "EvaluationPeriods": 1, "StateValue": "OK"});
    let rule = json!({"Name": "campanile_vsu_theirs", "EventPattern": "{}", "State": "ENABLED", "Targets": {}});
    [
        (
            arn(&format!(
                "cloudwatch:{place}:alarm:campanile/eu/vsu/warning/golden/theirs"
            )),
            alarm,
        ),
        (
            arn(&format!("events:{place}:rule/campanile_vsu_theirs")),
            rule,
        ),
    ]
    .into()
}

fn apply(world: &World, asked: Asked) {
    match asked.tenant {
        Some(variant) => {
            let mut tenant = tenant();
            tenant["notify"]["warning"]["slack"] = json!([{"channelRef": {"name": "alerts"}}]);
            if variant == 1 {
                tenant["notify"]["warning"] = json!({"emails": ["other@vsu.example"]});
                tenant["notify"]["critical"] = json!({"emails": ["platform@vsu.example"]});
            }
            world.apply("TenantObservability", "vsu", tenant);
        }
        None => delete::<TenantObservability>(world, "vsu"),
    }
    match asked.set {
        Some(0) => {
            let all = [("errors", 1.0), ("latency", 2.0)];
            world.apply("AlarmSet", "golden", alarms(&all, json!({})));
        }
        Some(_) => {
            let all = [("latency", 3.0), ("queue", 4.0)];
            world.apply("AlarmSet", "golden", alarms(&all, json!({})));
        }
        None => delete::<AlarmSet>(world, "golden"),
    }
}

fn delete<K: Kind>(world: &World, name: &str) {
    if world.cluster.get::<K>(NAMESPACE, name).is_some() {
        world.cluster.delete::<K>(NAMESPACE, name);
    }
}

/// Takes a part of all objects of a kind away.
fn take<K: Kind>(world: &World, part: &str) {
    for (namespace, name) in world.cluster.names::<K>() {
        let (parent, field) = part.rsplit_once('/').unwrap();
        let taken = |object: &mut Json| {
            if let Some(Json::Object(fields)) = object.pointer_mut(parent) {
                fields.remove(field);
            }
        };
        world.cluster.edit::<K>(&namespace, &name, taken);
    }
}

/// What a third party does.
fn meddle(world: &World, random: &mut fastrand::Rng) -> &'static str {
    const PARTS: [&str; 7] = [
        "/status",
        "/status/conditions",
        "/status/targets",
        "/status/subscriptions",
        "/status/slackPaths",
        "/metadata/finalizers",
        "/metadata/annotations",
    ];
    let part = PARTS[random.usize(..PARTS.len())];
    let of = random.u8(1..8);
    if of & 1 > 0 {
        take::<TenantObservability>(world, part);
    }
    if of & 2 > 0 {
        take::<AlarmSet>(world, part);
    }
    if of & 4 > 0 {
        take::<SlackChannel>(world, part);
    }
    part
}

/// Lets the operator come to rest, and readers confirm what they were asked to.
async fn rest(world: &World, operator: &Operator) {
    operator.rest().await;
    world.aws.confirm();
    // It is seen by the next polls.
    tokio::time::sleep(POLL * 3).await;
    operator.rest().await;
}

async fn expected(asked: Asked) -> BTreeSet<String> {
    let world = begun();
    apply(&world, asked);
    rest(&world, &Operator::new(&world)).await;
    seen(&world)
}

async fn one(seed: u64, began: &World, outcomes: &mut BTreeMap<Asked, BTreeSet<String>>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let world = began.copy();
    let mut operator = Operator::new(&world);
    let mut asked = BEGINNING;
    operator.rest().await;
    let mut history = Vec::new();
    for _ in 0..random.usize(2..6) {
        match random.u8(..8) {
            0..=3 => history.push(meddle(&world, &mut random).to_owned()),
            4 | 5 => {
                let some = |random: &mut fastrand::Rng| {
                    let variant = random.usize(..VARIANTS + 1);
                    (variant < VARIANTS).then_some(variant)
                };
                let (tenant, set) = (some(&mut random), some(&mut random));
                // The alarms of a set whose tenant goes alone stay, wherever they are.
                let set = tenant.and(set);
                asked = Asked { tenant, set };
                apply(&world, asked);
                history.push(format!("{asked:?}"));
            }
            6 => {
                // Who takes a finalizer off an object that is being deleted, while no process looks, hides it for good.
                operator.rest().await;
                operator = Operator::new(&world);
                operator.rest().await;
                history.push("restart".into());
            }
            _ => {
                operator.rest().await;
                history.push("rest".into());
            }
        }
    }
    rest(&world, &operator).await;
    let did = |what: &str| history.iter().any(|step| step.contains(what));
    if did("finalizers") && did("None") {
        // What goes without its finalizer is cleaned up beside, after a pause where it waits for something.
        tokio::time::sleep(Duration::from_secs(400)).await;
        operator.rest().await;
    }
    if did("None") {
        // What was being deleted when it was applied has gone all the same.
        apply(&world, asked);
        rest(&world, &operator).await;
    }
    let now = seen(&world);
    let outcome = match outcomes.entry(asked) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(new) => new.insert(expected(asked).await),
    };
    let differs: Vec<_> = now.symmetric_difference(outcome).collect();
    assert!(differs.is_empty(), "seed {seed}: {history:#?} {differs:#?}");
    for (name, thing) in strangers() {
        assert_eq!(
            world.aws.things(&name)[&name],
            thing,
            "seed {seed}: {history:#?}"
        );
    }
}

async fn histories(seeds: std::ops::Range<u64>) {
    let mut outcomes = BTreeMap::new();
    let began = begun();
    apply(&began, BEGINNING);
    rest(&began, &Operator::new(&began)).await;
    for seed in seeds {
        one(seed, &began, &mut outcomes).await;
    }
}

#[tokio::test(start_paused = true)]
async fn others_may_wipe_what_is_in_the_cluster_at_any_time() {
    histories(0..HISTORIES / 2).await;
}

/// The other half, so that two run at once.
#[tokio::test(start_paused = true)]
async fn others_may_wipe_it_at_any_other_time() {
    histories(HISTORIES / 2..HISTORIES).await;
}
