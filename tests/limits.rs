//! One scope's trouble holds nobody else's workers, no API is asked faster than was said, edits go first,
//! and a right that is taken away is used no more.

use crate::{
    face::lines,
    support::{Conditions, Tenant, alarm, eventually, test},
};
use campanile::api::{AlarmSet, Severity, TenantObservability};
use campanile_world::{
    World,
    aws::{Call, Mark, Trouble},
    process::Process,
};
use futures::future::join_all;
use kube::api::ListParams;
use serde_json::json;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// AWS does not answer: the operator gives a read up after two attempts of 10 s each.
const HANGS: Trouble = Trouble::Delay(Duration::from_secs(3600));
/// By how much longer than alone something may take while another scope hangs. Far less than a worker is
/// held there, and far more than the machine needs.
const SLACK: Duration = Duration::from_secs(6);
/// How fast alarms may be put where that is not what a test is about.
const FAST: &str = "--aws-rate=PutMetricAlarm=100";

/// A tenant whose AWS is to hang, and another one with an alarm.
async fn two(world: &'static World, name: &str) -> (Tenant, Tenant) {
    let slow = Tenant::new(world, &format!("{name}-slow")).await;
    let other = Tenant::new(world, &format!("{name}-other")).await;
    for tenant in [&slow, &other] {
        tenant.usual_tenant().await;
    }
    set(&other, "golden", 10).await;
    (slow, other)
}

/// An operator for both that tells of each reconcile that ends.
async fn operator(slow: &Tenant, other: &Tenant) -> Process {
    let loud = "info,aws_=error,hyper=warn,kube_client=error,kube_runtime=warn,tower=warn,campanile::controller=debug";
    let args = ["--watch-namespace", &other.namespace, FAST];
    slow.operator_in(&[("CAMPANILE_LOG", loud)], &args).await
}

/// An AlarmSet of one alarm.
async fn set(tenant: &Tenant, name: &str, threshold: i32) {
    let alarms = json!([alarm("errors", "critical", json!({"threshold": threshold}))]);
    tenant.set(name, json!(["prod"]), alarms).await;
}

/// So many of them, applied at once.
async fn sets(tenant: &Tenant, count: usize) {
    let names = (0..count).map(|number| format!("set-{number:02}"));
    join_all(names.map(|name| async move { set(tenant, &name, 10).await })).await;
}

/// How many AlarmSets of a tenant have each reason of `Ready`; those without one have not been looked at.
async fn reasons(tenant: &Tenant) -> BTreeMap<String, usize> {
    let listed = tenant.api::<AlarmSet>().list(&ListParams::default()).await;
    let mut reasons = BTreeMap::new();
    for set in listed.unwrap().items {
        let reason = set.condition("Ready").map(|ready| ready.reason.clone());
        *reasons.entry(reason.unwrap_or_default()).or_default() += 1;
    }
    reasons
}

async fn all_applied(tenant: &Tenant, count: usize) {
    eventually("all to be applied", || async {
        let reasons = reasons(tenant).await;
        let applied = reasons.get("Applied").copied();
        (applied == Some(count))
            .then_some(())
            .ok_or_else(|| format!("{reasons:?}"))
    })
    .await;
}

/// How many reconciles of a tenant's AlarmSets this operator has ended.
async fn ended(operator: &Process, tenant: &Tenant) -> usize {
    let lines = lines(operator).await;
    let ended = lines.iter().filter(|line| {
        line["message"] == "reconciled"
            && line["span"]["kind"] == "AlarmSet"
            && line["span"]["namespace"] == tenant.namespace
    });
    ended.count()
}

/// Edits an alarm. Answers with how long it took until status said that it is applied.
async fn edit(tenant: &Tenant, threshold: i32) -> Duration {
    let began = Instant::now();
    set(tenant, "golden", threshold).await;
    tenant.ready::<AlarmSet>("golden", "Applied").await;
    began.elapsed()
}

/// Disables an alarm by hand. Answers with how long it took until it was enabled again.
async fn repair(tenant: &Tenant) -> Duration {
    let name = tenant.name(Severity::Critical, "golden", "errors", Some("prod"));
    let began = Instant::now();
    let disable = tenant.cloudwatch().disable_alarm_actions();
    disable.alarm_names(&name).send().await.unwrap();
    eventually("the alarm to be repaired", || async {
        match tenant.alarms().await[&name].actions_enabled() {
            Some(true) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    began.elapsed()
}

#[test]
fn edits_that_hang_hold_no_others_workers() {
    /// More than are ever at work at once for those who wait: 64, of one namespace 8.
    const MANY: usize = 80;
    test(|world| async move {
        let (slow, other) = two(world, "limits-edits").await;
        let operator = operator(&slow, &other).await;
        other.ready::<AlarmSet>("golden", "Applied").await;
        slow.ready::<TenantObservability>(&slow.namespace, "Applied")
            .await;
        let alone = edit(&other, 11).await;

        world.aws.trouble(&slow.account, "DescribeAlarms", HANGS);
        sets(&slow, MANY).await;
        eventually("its share of workers to be held", || async {
            let reasons = reasons(&slow).await;
            let held = reasons.get("Applying").copied().unwrap_or_default();
            (held >= 8)
                .then_some(())
                .ok_or_else(|| format!("{reasons:?}"))
        })
        .await;
        let mut meanwhile = 0;
        for threshold in 12..15 {
            let took = edit(&other, threshold).await;
            let known = reasons(&slow).await;
            assert!(
                took <= alone + SLACK,
                "{took:?}, alone {alone:?}: {known:?}"
            );
            // None of them has come to its end yet.
            if known
                .keys()
                .any(|reason| !["", "Applying"].contains(&&**reason))
            {
                break;
            }
            meanwhile += 1;
        }
        assert!(meanwhile > 0, "they were held for too short a time");
        assert!(ended(&operator, &other).await > 0);
    });
}

#[test]
fn looks_that_hang_hold_no_others_workers() {
    /// More than is ever at work at once in the background: 16, of one namespace 4.
    const MANY: usize = 24;
    test(|world| async move {
        let (slow, other) = two(world, "limits-looks").await;
        sets(&slow, MANY).await;
        let first = operator(&slow, &other).await;
        all_applied(&slow, MANY).await;
        all_applied(&other, 1).await;
        let alone = repair(&other).await;
        first.stop(Duration::from_secs(20)).await.unwrap();

        // The next one looks whether all is as it was, which nobody waits for.
        world.aws.trouble(&slow.account, "DescribeAlarms", HANGS);
        let mark = world.aws.mark();
        let second = operator(&slow, &other).await;
        other.polls(mark, 3).await;
        let held = async || {
            let ended = ended(&second, &slow).await;
            assert_eq!(ended, 0, "they are held: {}", second.log_tail(20));
        };
        held().await;
        let took = repair(&other).await;
        assert!(took <= alone + SLACK, "{took:?}, alone {alone:?}");
        held().await;
        assert!(ended(&second, &other).await > 0);
    });
}

/// The puts of alarms in a tenant's account since `mark`, in order.
fn puts(tenant: &Tenant, mark: Mark) -> Vec<Call> {
    let calls = tenant.world.aws.calls_since(mark).into_iter();
    let puts =
        calls.filter(|call| call.account == tenant.account && call.operation == "PutMetricAlarm");
    puts.collect()
}

/// The most calls that were answered in any span of [`SPAN`].
fn densest(calls: &[Call]) -> usize {
    let spans = calls.iter().enumerate().map(|(first, begin)| {
        let within = |call: &&Call| {
            let since = call.at.duration_since(begin.at);
            Duration::try_from(since).is_ok_and(|since| since < SPAN)
        };
        calls[first..].iter().filter(within).count()
    });
    spans.max().unwrap_or_default()
}

/// Over which calls are counted. Each is recorded when it is answered, a little after it began.
const SPAN: Duration = Duration::from_secs(5);

/// What so many a second come to in a [`SPAN`]: one second's worth may come at its beginning.
fn allowed(rate: usize) -> usize {
    rate * (SPAN.as_secs() as usize + 1)
}

#[test]
fn no_api_is_asked_faster_than_was_said_and_an_edit_goes_first() {
    const RATE: usize = 2;
    const SETS: usize = 12;
    /// How many alarms the set has that is edited.
    const ALARMS: usize = 6;
    test(|world| async move {
        let tenant = Tenant::new(world, "limits-rate").await;
        tenant.usual_tenant().await;
        let rate = format!("--aws-rate=PutMetricAlarm={RATE}");
        let _operator = tenant.operator_with(&[&rate]).await;
        tenant
            .ready::<TenantObservability>(&tenant.namespace, "Applied")
            .await;
        let mark = world.aws.mark();
        let golden = async |threshold: i32| {
            let others = (1..ALARMS).map(|n| alarm(&format!("more-{n}"), "warning", json!({})));
            let edited = alarm("errors", "critical", json!({"threshold": threshold}));
            let alarms = others.chain([edited]).collect();
            tenant.set("golden", json!(["prod"]), alarms).await;
        };
        golden(10).await;
        sets(&tenant, SETS).await;
        all_applied(&tenant, SETS + 1).await;
        // What somebody waits for may have all of it.
        let put = puts(&tenant, mark);
        assert_eq!(put.len(), SETS + ALARMS, "{put:#?}");
        assert!(densest(&put) <= allowed(RATE), "{put:#?}");

        // One alarm of each set is damaged, and all of them wait for the quota. Then comes an edit.
        let damaged = (0..SETS).map(|number| {
            let set = format!("set-{number:02}");
            tenant.name(Severity::Critical, &set, "errors", Some("prod"))
        });
        let damaged: Vec<_> = damaged.collect();
        let mark = world.aws.mark();
        let disable = tenant.cloudwatch().disable_alarm_actions();
        let disable = disable.set_alarm_names(Some(damaged));
        disable.send().await.unwrap();
        let repaired = async |count: usize| {
            eventually(&format!("{count} puts"), || async {
                let put = puts(&tenant, mark);
                (put.len() >= count)
                    .then_some(())
                    .ok_or_else(|| format!("{put:#?}"))
            })
            .await;
        };
        repaired(3).await;
        golden(11).await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        repaired(SETS + 1).await;
        let put = puts(&tenant, mark);
        assert_eq!(put.len(), SETS + 1, "{put:#?}");
        assert!(densest(&put) <= allowed(RATE), "{put:#?}");
        let edited = tenant.name(Severity::Critical, "golden", "errors", Some("prod"));
        let (edits, background): (Vec<_>, Vec<_>) = put
            .iter()
            .cloned()
            .partition(|call| call.resource.ends_with(&edited));
        assert_eq!(edits.len(), 1, "{put:#?}");
        let later = put.iter().rev();
        let later = later.take_while(|call| call.resource != edits[0].resource);
        assert!(later.count() >= 5, "the edit waited: {put:#?}");
        // A part is kept back for edits.
        assert!(densest(&background) <= allowed(RATE - 1), "{background:#?}");
    });
}

/// A run that is under way ends before its next write, and the next one does nothing.
#[test]
fn a_binding_that_is_taken_away_is_used_no_more() {
    const ALARMS: usize = 10;
    test(|world| async move {
        let tenant = Tenant::new(world, "limits-binding").await;
        tenant.usual_tenant().await;
        let alarms = |threshold: i32| {
            let threshold = json!({"threshold": threshold});
            let alarms =
                (0..ALARMS).map(|n| alarm(&format!("a{n}"), "critical", threshold.clone()));
            alarms.collect()
        };
        tenant.set("golden", json!(["prod"]), alarms(10)).await;
        let mark = world.aws.mark();
        let _operator = tenant.operator_with(&["--aws-rate=PutMetricAlarm=1"]).await;
        eventually("the run to be under way", || async {
            let put = puts(&tenant, mark).len();
            (put >= 2).then_some(()).ok_or_else(|| put.to_string())
        })
        .await;
        tenant.bind(None).await;
        let message = tenant.ready::<AlarmSet>("golden", "AccessDenied").await;
        assert!(message.contains("is bound to no account"), "{message}");
        let put = puts(&tenant, mark).len();
        assert!(put < ALARMS, "it went on to the end: {put}");
        // Not for an edit, nor for whoever asks to look again.
        let mark = world.aws.mark();
        tenant.set("golden", json!(["prod"]), alarms(20)).await;
        tenant.ready::<AlarmSet>("golden", "AccessDenied").await;
        tenant.look::<AlarmSet>("golden", "now").await;
        assert_eq!(tenant.writes_since(mark), []);
        let there = tenant.alarms().await;
        assert!(there.values().all(|alarm| alarm.threshold() == Some(10.0)));
        assert_eq!(there.len(), put);
    });
}
