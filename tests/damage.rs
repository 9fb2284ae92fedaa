//! What is damaged behind the operator's back is told on the right resource within two polls, with what
//! and since when, and is repaired, or it is said why not.
//!
//! Polls are counted in AWS's own record, from the damage to the Event or the condition that tells it. Here is how
//! that is counted, and what a repair looks like; what is done to what, is in the parts.

mod access;
mod alarms;
mod readers;
mod reported;
mod strangers;
mod topics;

use crate::support::{
    Address, Conditions, Tenant, alarm, at_least, eventually, once, paged, pager_key, put_by_hand,
    test,
};
use aws_sdk_cloudwatch::{
    operation::put_metric_alarm::builders::PutMetricAlarmFluentBuilder, types::MetricAlarm,
};
use campanile::api::{AlarmSet, Health, Severity, SubscriptionState, TenantObservability};
use campanile_world::{aws::Mark, process::Process};
use futures::future::LocalBoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// Short, but so long that what was found is told before the next but one.
const TEMPO: [&str; 4] = ["--poll-interval", "1s", "--slow-poll-interval", "2s"];

/// How many polls may pass from a damage until it is told.
const POLLS: usize = 2;

/// One of the things that are looked at, by the calls that look at it.
struct Look {
    operation: &'static str,
    /// What the call is about; absent where one call is about all of an account.
    about: Option<String>,
    /// How many such calls a repair makes besides the polls: to be sure before it, and to see what came of it.
    besides: usize,
}

impl Look {
    /// Alarms are read again by name before they are repaired.
    fn alarms(besides: usize) -> Self {
        Self {
            operation: "DescribeAlarms",
            about: None,
            besides,
        }
    }

    fn tag(alarm: &MetricAlarm) -> Self {
        Self {
            operation: "ListTagsForResource",
            about: alarm.alarm_arn.clone(),
            besides: 0,
        }
    }

    fn topic(arn: &str, besides: usize) -> Self {
        Self {
            operation: "GetTopicAttributes",
            about: Some(arn.to_owned()),
            besides,
        }
    }

    /// How many polls were answered since `mark`, until `told`.
    fn polls(&self, tenant: &Tenant, mark: Mark, told: Timestamp) -> usize {
        let looks = tenant.world.aws.count_since(mark, |call| {
            let same = match &self.about {
                Some(about) => call.resource == *about,
                None => call.account == tenant.account,
            };
            same && call.operation == self.operation && call.at <= told
        });
        looks.saturating_sub(self.besides)
    }

    /// That no more polls than may be were answered since `mark`, until `told`.
    fn in_time(&self, tenant: &Tenant, mark: Mark, told: Timestamp, what: &str) {
        let polls = self.polls(tenant, mark, told);
        assert!(polls <= POLLS, "{what}: told after {polls} polls");
    }

    /// Waits until so many polls have been answered since `mark`.
    async fn times(&self, tenant: &Tenant, mark: Mark, times: usize) {
        at_least(&format!("{times} times {}", self.operation), times, || {
            self.polls(tenant, mark, Timestamp::MAX)
        })
        .await;
    }
}

/// A tenant, its operator, and what that one says of itself.
struct Site {
    tenant: Tenant,
    address: Address,
    operator: Process,
}

impl Site {
    /// The tenant with this spec and the set `golden`, in place.
    async fn in_place(tenant: Tenant, spec: Value) -> Self {
        declare(&tenant, spec).await;
        let site = Self::new(tenant).await;
        site.tenant.ready::<AlarmSet>("golden", "Applied").await;
        site
    }

    async fn new(tenant: Tenant) -> Self {
        let address = Address::free();
        let operator = operator(&tenant, &address.option()).await;
        Self {
            tenant,
            address,
            operator,
        }
    }

    /// A counter, if it has been counted yet.
    async fn counter(&self, series: &str) -> Option<u64> {
        let text = self.address.metrics().await;
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.map(|value| value.trim().parse().unwrap())
    }

    /// How much drift of a kind was counted as found, and how much as repaired.
    async fn counted<K: Conditions>(&self) -> (Option<u64>, Option<u64>) {
        let kind = K::kind(&());
        let series = |what: &str| format!("campanile_drift_{what}_total{{kind=\"{kind}\"}}");
        let (found, repaired) = (series("found"), series("repaired"));
        (self.counter(&found).await, self.counter(&repaired).await)
    }

    /// How much drift of a kind was found, and how much of it repaired.
    async fn drift<K: Conditions>(&self) -> (u64, u64) {
        let (found, repaired) = self.counted::<K>().await;
        (found.unwrap_or_default(), repaired.unwrap_or_default())
    }
}

async fn operator(tenant: &Tenant, more: &[&str]) -> Process {
    tenant.operator_with(&[&TEMPO[..], more].concat()).await
}

/// Ends an operator and begins its successor.
async fn restarted(tenant: &Tenant, operator: Process) -> Process {
    operator.stop(Duration::from_secs(10)).await.unwrap();
    self::operator(tenant, &[]).await
}

/// Applies the tenant with this spec, and the set `golden`.
async fn declare(tenant: &Tenant, spec: Value) {
    tenant.tenant(spec).await;
    tenant.golden(two_alarms()).await;
}

/// The tenant with this spec and the set `golden`, in place, and the operator that has seen to it.
async fn in_place(tenant: &Tenant, spec: Value) -> Process {
    declare(tenant, spec).await;
    let operator = operator(tenant, &[]).await;
    tenant.ready::<AlarmSet>("golden", "Applied").await;
    operator
}

/// The first alarm in a set's status, and what is wrong with it.
fn first_entry(set: &AlarmSet) -> (&str, Option<&str>) {
    let entry = &set.status.as_ref().unwrap().alarms[0];
    (&entry.name, entry.reason.as_deref())
}

/// The Events about an object with this reason, the oldest first.
async fn events<K: Conditions>(tenant: &Tenant, name: &str, reason: &str) -> Vec<Event> {
    let mut all = tenant.events(name).await;
    all.retain(|event| {
        let about = event.regarding.as_ref().unwrap();
        about.kind.as_deref() == Some(&*K::kind(&())) && event.reason.as_deref() == Some(reason)
    });
    all
}

/// The one Event with this reason that has come since there were `before`: when, and its note.
async fn told<K: Conditions>(
    tenant: &Tenant,
    name: &str,
    reason: &str,
    before: usize,
) -> (Timestamp, String) {
    eventually(&format!("an Event {reason}"), || async {
        match &events::<K>(tenant, name, reason).await[before..] {
            [event] => Ok((
                event.event_time.as_ref().unwrap().0,
                event.note.clone().unwrap_or_default(),
            )),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// Something that is done to what the operator made, and that it mends.
struct Damage<'a> {
    what: &'a str,
    done: LocalBoxFuture<'a, ()>,
    look: Look,
    /// What the condition `Drifted` says of it.
    says: Vec<String>,
    /// What the Event says that was done about it.
    note: String,
}

/// Does the damage, and sees it told once and in time, and repaired.
async fn is_mended<K: Conditions>(site: &Site, name: &str, damage: Damage<'_>) {
    let Damage {
        what,
        done,
        look,
        says,
        note,
    } = damage;
    let tenant = &site.tenant;
    let before = events::<K>(tenant, name, "DriftRepaired").await.len();
    let (found, repaired) = site.drift::<K>().await;
    let last = tenant.now::<K>(name).await;
    let last = last.condition("Drifted").unwrap().message.clone();

    let began = Timestamp::now();
    done.await;
    let mark = tenant.world.aws.mark();
    let mended = tenant
        .until::<K>(name, &format!("{what}: repaired"), |object| {
            object.condition("Drifted").is_some_and(|drifted| {
                let verdict = (drifted.status.as_str(), drifted.reason.as_str());
                verdict == ("False", "DriftRepaired") && drifted.message != last
            })
        })
        .await;
    let (at, text) = told::<K>(tenant, name, "DriftRepaired", before).await;
    look.in_time(tenant, mark, at, what);
    assert!(text.contains(&note), "{what}: {note:?} in {text:?}");

    let message = &mended.condition("Drifted").unwrap().message;
    for part in says {
        assert!(message.contains(&part), "{what}: {part:?} in {message:?}");
    }
    let since = message.strip_prefix("repaired at ").unwrap();
    let since: Timestamp = since.split(": ").next().unwrap().parse().unwrap();
    assert!(
        since.as_second() >= began.as_second() && since <= Timestamp::now(),
        "{what}: {message}"
    );
    assert!(mended.holds("Ready"), "{what}: it was ready all the time");
    let (found, repaired) = (found + 1, repaired + 1);
    let now = site.drift::<K>().await;
    assert!(
        now.0 >= found && now.1 >= repaired && now.0 == now.1,
        "{what}: found and repaired {now:?}"
    );
}

/// The put that would make this very alarm.
fn put(
    cloudwatch: &aws_sdk_cloudwatch::Client,
    alarm: &MetricAlarm,
) -> PutMetricAlarmFluentBuilder {
    let alarm = alarm.clone();
    cloudwatch
        .put_metric_alarm()
        .set_alarm_name(alarm.alarm_name)
        .set_alarm_description(alarm.alarm_description)
        .set_namespace(alarm.namespace)
        .set_metric_name(alarm.metric_name)
        .set_dimensions(alarm.dimensions)
        .set_statistic(alarm.statistic)
        .set_period(alarm.period)
        .set_evaluation_periods(alarm.evaluation_periods)
        .set_datapoints_to_alarm(alarm.datapoints_to_alarm)
        .set_comparison_operator(alarm.comparison_operator)
        .set_threshold(alarm.threshold)
        .set_treat_missing_data(alarm.treat_missing_data)
        .set_action_configuration(alarm.action_configuration)
        .set_actions_enabled(alarm.actions_enabled)
        .set_alarm_actions(alarm.alarm_actions)
        .set_ok_actions(alarm.ok_actions)
}

/// An alarm without what moves by itself.
fn still(alarm: &MetricAlarm) -> MetricAlarm {
    let mut alarm = alarm.clone();
    alarm.state_value = None;
    alarm.state_reason = None;
    alarm.state_reason_data = None;
    alarm.state_updated_timestamp = None;
    alarm.state_transitioned_timestamp = None;
    alarm.alarm_configuration_updated_timestamp = None;
    alarm
}

async fn is_as_before(tenant: &Tenant, what: &str, right: &MetricAlarm) {
    let name = right.alarm_name().unwrap();
    eventually(&format!("{what}: the alarm as declared"), || async {
        match tenant.alarms().await.get(name) {
            Some(alarm) if still(alarm) == still(right) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// The critical alarm of `golden`: its name, and as it is now.
async fn errors(tenant: &Tenant) -> (String, MetricAlarm) {
    let name = tenant.name(Severity::Critical, "golden", "errors", Some("prod"));
    let alarm = tenant.alarms().await.remove(&name).unwrap();
    (name, alarm)
}

fn two_alarms() -> Value {
    json!([
        alarm("errors", "critical", json!({})),
        alarm("slow", "warning", json!({}))
    ])
}

async fn critical_topic(tenant: &Tenant) -> String {
    eventually("a topic", || async {
        let topics = tenant.topics().await;
        let mut critical = topics.iter().filter(|arn| arn.contains("_critical_"));
        critical.next().cloned().ok_or(format!("{topics:?}"))
    })
    .await
}

async fn subscriptions(tenant: &Tenant, topic: &str) -> BTreeMap<String, String> {
    let listed = tenant.subscriptions_to(topic).await.into_iter();
    let shown = listed.map(|one| (one.endpoint.unwrap(), one.subscription_arn.unwrap()));
    shown.collect()
}

/// How often somebody was invited.
fn invited(tenant: &Tenant) -> usize {
    tenant
        .world
        .aws
        .count(|call| (&call.account, call.operation.as_str()) == (&tenant.account, "Subscribe"))
}

/// Waits until a topic has been looked at so many times more.
async fn looks(tenant: &Tenant, topic: &str, times: usize) {
    let mark = tenant.world.aws.mark();
    Look::topic(topic, 0).times(tenant, mark, times).await;
}

/// Waits until this is the state of the subscription of an address.
async fn state(tenant: &Tenant, address: &str, state: SubscriptionState) -> TenantObservability {
    let what = format!("{address} to be {state:?}");
    let right = |tenant: &TenantObservability| {
        let mut all = tenant
            .status
            .iter()
            .flat_map(|status| &status.subscriptions);
        all.any(|one| one.endpoint == address && one.state == state)
    };
    tenant.until(&tenant.namespace, &what, right).await
}
