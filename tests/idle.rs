//! What the outside costs: nothing but polls while nothing happens, and one write for one edit.

use crate::{
    fleet::{ALARMS, Fleet, PAGE, SET, Who, alarms, concerns, describes},
    support::{Conditions, eventually, test},
};
use campanile::api::AlarmSet;
use campanile_world::aws::Call;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// How often something that begins anew every `period`, give or take a tenth, is done within `span`:
/// once more for the one that begins at once, and once for the one that was under way.
fn at_most(span: Duration, period: Duration) -> usize {
    (span.as_secs_f64() / (0.9 * period.as_secs_f64())) as usize + 2
}

/// The operator's options to look after these namespaces only.
fn watching(namespaces: &BTreeSet<String>) -> String {
    let all: Vec<_> = namespaces.iter().map(String::as_str).collect();
    format!("--watch-namespace={}", all.join(","))
}

/// 50 tenants of 16 alarms in 50 accounts, nothing changing for 5 polls: no reconcile, no write to the
/// API server but to the Lease, one `DescribeAlarms` per account and poll. One that changes wakes its
/// own AlarmSet, and nobody else's.
#[test]
fn an_idle_fleet_costs_nothing_but_its_polls() {
    const TENANTS: usize = 50;
    const POLL: Duration = Duration::from_secs(2);
    test(|world| async move {
        let fleet = Fleet::new(world, "idle", TENANTS).await;
        let who = Who::new(world, "idle").await;
        let namespaces = watching(&fleet.namespaces());
        let operator = who
            .operator(
                world,
                &[&namespaces, "--poll-interval=2s", "--slow-poll-interval=1h"],
            )
            .await;
        let applying = world.kubernetes.mark_writes();
        fleet.apply().await;
        fleet.applied().await;
        let reconciles = fleet.at_rest(world, &operator).await;
        // What is counted below is counted at all.
        let objects = 2 * TENANTS;
        let wrote = who.writes_since(world, applying);
        let statuses = wrote.iter().filter(|write| write.subresource == "status");
        assert!(statuses.count() >= objects && reconciles >= objects as u64);

        let (began, calls, writes) = (
            Instant::now(),
            world.aws.mark(),
            world.kubernetes.mark_writes(),
        );
        fleet.polls(world, calls, 5).await;
        let took = began.elapsed();
        let calls = calls_about(&fleet, world.aws.calls_since(calls));
        assert_eq!(
            who.writes_since(world, writes),
            [],
            "writes to the API server"
        );
        assert_eq!(
            operator.reconciles().await.unwrap() - reconciles,
            0,
            "reconciles: {:?}",
            operator.process.log_tail(20)
        );
        let others: Vec<_> = calls
            .iter()
            .filter(|call| call.operation != "DescribeAlarms")
            .collect();
        assert!(others.is_empty(), "{others:#?}");
        let pages = ALARMS.div_ceil(PAGE);
        for (account, polls) in describes(&calls) {
            let most = at_most(took, POLL) * pages;
            assert!(polls <= most, "{account}: {polls} in {took:?}");
        }

        let seventh = &fleet.tenants[7];
        let cloudwatch = seventh.cloudwatch();
        let alarms = seventh.alarms().await;
        let name = alarms.keys().next().unwrap();
        let (calls, log) = (world.aws.mark(), operator.log_mark());
        let disable = cloudwatch.disable_alarm_actions().alarm_names(name);
        disable.send().await.unwrap();
        eventually("the alarm to be repaired", || async {
            match seventh.alarms().await[name].actions_enabled() {
                Some(true) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        fleet.polls(world, world.aws.mark(), 2).await;
        let woken: BTreeSet<_> = operator.reconciled_since(log).into_iter().collect();
        let of = |kind: &str| (kind.to_owned(), seventh.namespace.clone());
        let set = of("AlarmSet");
        let most = BTreeSet::from([set.clone(), of("TenantObservability")]);
        assert!(woken.contains(&set) && woken.is_subset(&most), "{woken:?}");
        let written = world.aws.calls_since(calls).into_iter();
        let written: Vec<_> = calls_about(&fleet, written.filter(|call| call.write));
        let written: Vec<_> = written
            .iter()
            .map(|call| (call.account.as_str(), call.operation.as_str()))
            .collect();
        assert_eq!(written, [(seventh.account.as_str(), "PutMetricAlarm")]);
    });
}

/// What a round of `--slow-poll-interval` costs per tenant: the role is assumed anew (2 calls of STS);
/// each of the three topics that it may have is asked for, and of each that is there the tags and who
/// hears it (2 calls each); and the tags of each alarm are read (1 call each). Nothing else is asked,
/// and nothing is reconciled or written for it.
#[test]
fn a_slow_round_costs_what_is_stated() {
    const TENANTS: usize = 4;
    const SLOW: Duration = Duration::from_secs(4);
    const ROUNDS: usize = 3;
    test(|world| async move {
        let fleet = Fleet::new(world, "idle-slow", TENANTS).await;
        let who = Who::new(world, "idle-slow").await;
        let namespaces = watching(&fleet.namespaces());
        let operator = who
            .operator(
                world,
                &[&namespaces, "--poll-interval=4s", "--slow-poll-interval=4s"],
            )
            .await;
        fleet.apply().await;
        fleet.applied().await;
        let reconciles = fleet.at_rest(world, &operator).await;
        let (began, mark, writes) = (
            Instant::now(),
            world.aws.mark(),
            world.kubernetes.mark_writes(),
        );
        let calls = eventually("some slow rounds of each account", || async {
            let calls = calls_about(&fleet, world.aws.calls_since(mark));
            let rounds = fleet.tenants.iter().map(|tenant| {
                let costs = costs(&calls, &tenant.account);
                let rounds = slow_round()
                    .into_iter()
                    .map(|(what, _)| rounds(&costs, what));
                rounds.min().unwrap()
            });
            match rounds.min().unwrap() {
                ROUNDS.. => Ok(calls),
                fewer => Err(format!("{fewer} rounds: {calls:#?}")),
            }
        })
        .await;
        let took = began.elapsed();
        for tenant in &fleet.tenants {
            let mut costs = costs(&calls, &tenant.account);
            costs.remove("cloudwatch:DescribeAlarms");
            let stated: BTreeMap<_, _> = slow_round().into();
            let asked: BTreeMap<_, _> = costs.iter().map(|(what, of)| (*what, of.len())).collect();
            assert_eq!(asked, stated, "{}", tenant.account);
            for (what, of) in costs {
                // The round that is under way has come to some of them already.
                let (least, most) = (of.values().min().unwrap(), of.values().max().unwrap());
                assert!(most - least <= 1, "{what}: {of:#?}");
                assert!(*most <= at_most(took, SLOW), "{what} in {took:?}: {of:#?}");
            }
        }
        assert_eq!(
            who.writes_since(world, writes),
            [],
            "writes to the API server"
        );
        assert_eq!(operator.reconciles().await.unwrap() - reconciles, 0);
    });
}

/// The calls of a slow round in one account, and how many things each is asked of.
fn slow_round() -> [(&'static str, usize); 6] {
    [
        ("sts:AssumeRole", 1),
        ("sts:GetCallerIdentity", 1),
        ("sns:GetTopicAttributes", 3),
        ("sns:ListTagsForResource", 2),
        ("sns:ListSubscriptionsByTopic", 2),
        ("cloudwatch:ListTagsForResource", ALARMS),
    ]
}

/// How often each call was made about each thing in an account.
type Costs<'a> = BTreeMap<&'static str, BTreeMap<&'a str, usize>>;

fn costs<'a>(calls: &'a [Call], account: &str) -> Costs<'a> {
    let mut costs = Costs::new();
    for call in calls.iter().filter(|call| concerns(call, account)) {
        let what = format!("{}:{}", call.service, call.operation);
        let known = slow_round().map(|(what, _)| what);
        let known = known.into_iter().chain(["cloudwatch:DescribeAlarms"]);
        let what = known.into_iter().find(|known| *known == what);
        let of = costs.entry(what.unwrap_or("something else")).or_default();
        *of.entry(call.resource.as_str()).or_default() += 1;
    }
    costs
}

/// How many rounds of a call have ended: each of its things was asked for so often.
fn rounds(costs: &Costs<'_>, what: &str) -> usize {
    let of = costs.get(what);
    of.and_then(|of| of.values().min().copied())
        .unwrap_or_default()
}

fn calls_about(fleet: &Fleet, calls: impl IntoIterator<Item = Call>) -> Vec<Call> {
    let accounts = fleet.accounts();
    let about = |call: &Call| accounts.iter().any(|account| concerns(call, account));
    calls.into_iter().filter(about).collect()
}

/// One user's edit of one alarm: one `PutMetricAlarm`, at most one confirming read, one write of
/// status, at most one Event, and nothing else.
#[test]
fn an_edit_of_one_alarm_is_one_put_and_one_status() {
    test(|world| async move {
        let fleet = Fleet::new(world, "idle-edit", 1).await;
        let who = Who::new(world, "idle-edit").await;
        // So rarely that every read is the edit's.
        let namespaces = watching(&fleet.namespaces());
        let operator = who
            .operator(
                world,
                &[&namespaces, "--poll-interval=1h", "--slow-poll-interval=1h"],
            )
            .await;
        fleet.apply().await;
        fleet.applied().await;
        operator.still().await;
        let tenant = &fleet.tenants[0];
        let (mark, writes) = (world.aws.mark(), world.kubernetes.mark_writes());

        let mut edited = alarms(ALARMS);
        edited[3]["threshold"] = json!(11);
        let edited = tenant.set(SET, json!(["prod"]), edited).await;
        let done = tenant
            .until::<AlarmSet>(SET, "the edit to be applied", |set| {
                let ready = set.condition("Ready").unwrap();
                ready.observed_generation == edited.metadata.generation
            })
            .await;
        assert!(done.holds("Ready"));
        operator.still().await;

        let calls = calls_about(&fleet, world.aws.calls_since(mark));
        let (puts, reads): (Vec<_>, Vec<_>) = calls.iter().partition(|call| call.write);
        let put: Vec<_> = puts
            .iter()
            .map(|call| (call.operation.as_str(), call.resource.as_str()))
            .collect();
        assert_eq!(put.len(), 1, "{put:?}");
        assert!(
            put[0].0 == "PutMetricAlarm" && put[0].1.ends_with("/signal-003@prod"),
            "{put:?}"
        );
        assert!(
            reads.len() <= 1 && reads.iter().all(|read| read.operation == "DescribeAlarms"),
            "{reads:#?}"
        );
        let writes = who.writes_since(world, writes);
        let (events, writes): (Vec<_>, Vec<_>) =
            writes.iter().partition(|write| write.resource == "events");
        let statuses: Vec<_> = writes
            .iter()
            .map(|write| (write.resource.as_str(), write.subresource.as_str()))
            .collect();
        assert_eq!(statuses, [("alarmsets", "status")], "{writes:#?}");
        assert!(events.len() <= 1, "{events:#?}");
    });
}
