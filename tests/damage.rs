//! What is damaged behind the operator's back is told on the right resource within two polls, with what
//! and since when, and is repaired, or it is said why not.
//!
//! Polls are counted in AWS's own record, from the damage to the Event or the condition that tells it.

use crate::{
    journey::put_by_hand,
    support::{CLUSTER, Conditions, REGION, Tenant, alarm, eventually, test, version},
};
use aws_sdk_cloudwatch::{
    operation::put_metric_alarm::builders::PutMetricAlarmFluentBuilder,
    types::{Dimension, MetricAlarm, Tag},
};
use campanile::api::{
    AlarmSet, DriftChange, DriftEntry, Health, Severity, SubscriptionState, TenantObservability,
};
use campanile_world::{
    aws::{Mark, Trouble, Trust, Unsubscribed},
    process::Process,
};
use futures::{FutureExt, future::LocalBoxFuture};
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::{Api, api::ListParams};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Short, but so long that what was found is told before the next but one.
const TEMPO: [&str; 4] = ["--poll-interval", "1s", "--slow-poll-interval", "2s"];

/// How many polls may pass from a damage until it is told.
const POLLS: usize = 2;

const REQUESTED: &str = "reconcile.fluxcd.io/requestedAt";

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

    async fn times(&self, tenant: &Tenant, mark: Mark, times: usize) {
        eventually(&format!("{times} times {}", self.operation), || async {
            match self.polls(tenant, mark, Timestamp::MAX) {
                looks if looks >= times => Ok(()),
                looks => Err(looks.to_string()),
            }
        })
        .await;
    }
}

/// A tenant, its operator, and what that one says of itself.
struct Site {
    tenant: Tenant,
    address: String,
    operator: Process,
}

impl Site {
    async fn new(tenant: Tenant) -> Self {
        let port = campanile_world::port::free().unwrap();
        let address = format!("127.0.0.1:{port}");
        let operator = operator(&tenant, &["--metrics-addr", &address]).await;
        Self {
            tenant,
            address,
            operator,
        }
    }

    /// The sum of a counter.
    async fn counter(&self, series: &str) -> u64 {
        let text = eventually("the metrics", || async {
            get(&self.address, "/metrics")
                .await
                .ok_or_else(|| self.operator.log_tail(5))
        })
        .await;
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.map_or(0, |value| value.trim().parse().unwrap())
    }

    /// How much drift of a kind was found, and how much of it repaired.
    async fn drift<K: Conditions>(&self) -> (u64, u64) {
        let kind = K::kind(&());
        let series = |what: &str| format!("campanile_drift_{what}_total{{kind=\"{kind}\"}}");
        let (found, repaired) = (series("found"), series("repaired"));
        (self.counter(&found).await, self.counter(&repaired).await)
    }
}

async fn operator(tenant: &Tenant, more: &[&str]) -> Process {
    tenant.operator_with(&[&TEMPO[..], more].concat()).await
}

async fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: campanile\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

/// The Events about an object with this reason, the oldest first.
async fn events<K: Conditions>(tenant: &Tenant, name: &str, reason: &str) -> Vec<Event> {
    let api = Api::<Event>::namespaced(tenant.client.clone(), &tenant.namespace);
    let all = api.list(&ListParams::default()).await.unwrap();
    let mut about: Vec<_> = all
        .items
        .into_iter()
        .filter(|event| {
            let regarding = event.regarding.clone().unwrap_or_default();
            let same = (regarding.kind.as_deref(), regarding.name.as_deref());
            same == (Some(&*K::kind(&())), Some(name)) && event.reason.as_deref() == Some(reason)
        })
        .collect();
    about.sort_by_key(|event| event.event_time.as_ref().map(|at| at.0));
    about
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
    let last = tenant.api::<K>().get(name).await.unwrap();
    let last = last.condition("Drifted").unwrap().message.clone();

    let began = Timestamp::now();
    done.await;
    let mark = tenant.world.aws.mark();
    let mended = tenant
        .until::<K>(name, &format!("{what}: repaired"), |object| {
            object.condition("Drifted").is_some_and(|drifted| {
                let reason = (drifted.status.as_str(), drifted.reason.as_str());
                reason == ("False", "DriftRepaired") && drifted.message != last
            })
        })
        .await;
    let (at, text) = told::<K>(tenant, name, "DriftRepaired", before).await;
    let polls = look.polls(tenant, mark, at);
    assert!(polls <= POLLS, "{what}: told after {polls} polls");
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

async fn owner(tenant: &Tenant, alarm: &MetricAlarm) -> Option<String> {
    let tags = tenant.cloudwatch().list_tags_for_resource();
    let tags = tags.resource_arn(alarm.alarm_arn().unwrap()).send().await;
    let tags = tags.unwrap().tags.unwrap_or_default().into_iter();
    let mut owner = tags.filter(|tag| tag.key() == Some("campanile.dev/owner"));
    owner.next()?.value
}

/// Nothing is written to AWS or to these objects over some polls.
async fn is_quiet(tenant: &Tenant, set: &str) {
    let versions = async || {
        let set = version::<AlarmSet>(tenant, set).await;
        (
            set,
            version::<TenantObservability>(tenant, &tenant.namespace).await,
        )
    };
    let (mark, before) = (tenant.world.aws.mark(), versions().await);
    tenant.polls(mark, 4).await;
    assert_eq!(tenant.writes_since(mark), [], "writes to AWS");
    assert_eq!(versions().await, before, "writes to the API server");
}

fn two_alarms() -> Value {
    json!([
        alarm("errors", "critical", json!({})),
        alarm("slow", "warning", json!({}))
    ])
}

#[test]
fn an_alarm_is_mended_whatever_is_done_to_it() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-alarm").await;
        tenant.usual_tenant().await;
        tenant.set("golden", json!(["prod"]), two_alarms()).await;
        let site = Site::new(tenant).await;
        let tenant = &site.tenant;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let well = |tenant: &TenantObservability| tenant.holds("Healthy");
        tenant.until(&tenant.namespace, "healthy", well).await;

        let name = tenant.name(Severity::Critical, "golden", "errors", Some("prod"));
        let right = tenant.alarms().await.remove(&name).unwrap();
        let mark = owner(tenant, &right).await.unwrap();
        let cloudwatch = tenant.cloudwatch();
        let (arn, topic) = (right.alarm_arn().unwrap(), &right.alarm_actions()[0]);
        let other = "arn:aws:sns:us-east-2:999900001111:other";
        let elsewhere = Dimension::builder().name("DeploymentId").value("elsewhere");
        let description = format!("meddled with\n{}", right.alarm_description().unwrap());
        let put = || put(&cloudwatch, &right);
        let sent = |put: PutMetricAlarmFluentBuilder| {
            async { drop(put.send().await.unwrap()) }.boxed_local()
        };
        let says = |text: &str| vec![format!("alarm {name}: {text}")];
        let meddle = Tag::builder().key("campanile.dev/owner").value("nobody");
        let damages = [
            Damage {
                what: "deleted",
                done: async {
                    let delete = cloudwatch.delete_alarms().alarm_names(&name);
                    drop(delete.send().await.unwrap());
                }
                .boxed_local(),
                look: Look::alarms(1),
                says: vec![format!("alarm {name} was missing")],
                note: "created 1 alarm (".into(),
            },
            Damage {
                what: "threshold",
                done: sent(put().threshold(99.0)),
                look: Look::alarms(1),
                says: says("threshold was 99, wanted 10"),
                note: "threshold 99 → 10".into(),
            },
            Damage {
                what: "dimension",
                done: sent(put().set_dimensions(Some(vec![elsewhere.build()]))),
                look: Look::alarms(1),
                says: says("dimensions was DeploymentId=elsewhere, wanted DeploymentId=app-prod"),
                note: "dimensions DeploymentId=elsewhere → DeploymentId=app-prod".into(),
            },
            Damage {
                what: "actions",
                done: sent(
                    put()
                        .set_alarm_actions(Some(vec![other.into()]))
                        .set_ok_actions(None),
                ),
                look: Look::alarms(1),
                says: vec![
                    format!("alarmActions was {other}, wanted {}", &topic[..40]),
                    format!("okActions was unset, wanted {}", &topic[..40]),
                ],
                note: format!("alarmActions {other} → {topic}, okActions (unset) → {topic}"),
            },
            Damage {
                what: "description",
                done: sent(put().alarm_description(&description)),
                look: Look::alarms(1),
                says: says("description was meddled with⏎campanile:"),
                note: "description meddled with⏎campanile:".into(),
            },
            Damage {
                what: "disabled",
                done: async {
                    let disable = cloudwatch.disable_alarm_actions().alarm_names(&name);
                    drop(disable.send().await.unwrap());
                }
                .boxed_local(),
                look: Look::alarms(1),
                says: says("actionsEnabled was false, wanted true"),
                note: "actionsEnabled false → true".into(),
            },
            Damage {
                what: "what is never set",
                done: sent(put().unit(aws_sdk_cloudwatch::types::StandardUnit::Seconds)),
                look: Look::alarms(1),
                says: says("other was unit Seconds, wanted unset"),
                note: "other unit Seconds → (unset)".into(),
            },
            Damage {
                what: "tag changed",
                done: async {
                    let tag = cloudwatch.tag_resource().resource_arn(arn);
                    drop(tag.tags(meddle.build()).send().await.unwrap());
                }
                .boxed_local(),
                look: Look::tag(&right),
                says: vec![format!(
                    "alarm tag {name}: campanile.dev/owner was nobody, wanted {mark}"
                )],
                note: format!("campanile.dev/owner nobody → {mark}"),
            },
            Damage {
                what: "tag removed",
                done: async {
                    let untag = cloudwatch.untag_resource().resource_arn(arn);
                    let untag = untag.tag_keys("campanile.dev/owner");
                    drop(untag.send().await.unwrap());
                }
                .boxed_local(),
                look: Look::tag(&right),
                says: vec![format!(
                    "alarm tag {name}: campanile.dev/owner was unset, wanted {mark}"
                )],
                note: format!("campanile.dev/owner (unset) → {mark}"),
            },
        ];
        let count = damages.len();
        for damage in damages {
            let what = damage.what;
            is_mended::<AlarmSet>(&site, "golden", damage).await;
            is_as_before(tenant, what, &right).await;
            assert_eq!(owner(tenant, &right).await.as_ref(), Some(&mark), "{what}");
        }

        // What is damaged at once is told at once.
        let all: Vec<_> = tenant.alarms().await.into_keys().collect();
        assert_eq!(all.len(), 2);
        let damage = Damage {
            what: "both deleted",
            done: async {
                let delete = cloudwatch.delete_alarms().set_alarm_names(Some(all));
                drop(delete.send().await.unwrap());
            }
            .boxed_local(),
            look: Look::alarms(1),
            says: vec![format!("alarm {name} was missing; alarm ")],
            note: "created 2 alarms (".into(),
        };
        is_mended::<AlarmSet>(&site, "golden", damage).await;

        // A new alarm's state has a time as soon as it is read; after that nothing moves any more.
        tenant
            .until::<AlarmSet>("golden", "a time in every entry", |set| {
                let alarms = &set.status.as_ref().unwrap().alarms;
                alarms.iter().all(|entry| entry.since.is_some())
            })
            .await;
        tenant.polls(world.aws.mark(), 2).await;
        is_quiet(tenant, "golden").await;
        let repaired = events::<AlarmSet>(tenant, "golden", "DriftRepaired").await;
        assert_eq!(repaired.len(), count + 1, "one Event for one damage");
        let namespace = &tenant.namespace;
        let others = events::<TenantObservability>(tenant, namespace, "DriftRepaired").await;
        assert_eq!(others.len(), 0, "the tenant is another resource");
    });
}

#[test]
fn an_alarm_without_our_mark_is_left_alone_and_said_so() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-mark").await;
        tenant.usual_tenant().await;
        tenant.set("golden", json!(["prod"]), two_alarms()).await;
        let _operator = operator(&tenant, &[]).await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let name = tenant.name(Severity::Critical, "golden", "errors", Some("prod"));
        let other = tenant.name(Severity::Warning, "golden", "slow", Some("prod"));
        let (right, right_other) = {
            let mut alarms = tenant.alarms().await;
            (
                alarms.remove(&name).unwrap(),
                alarms.remove(&other).unwrap(),
            )
        };
        let cloudwatch = tenant.cloudwatch();
        let description = right.alarm_description().unwrap();
        let ours = description.lines().last().unwrap();
        let (head, tail) = ours.split_once("/AlarmSet/").unwrap();
        let forged = |mark: String| (mark.clone(), format!("is held by {mark}"));
        for (what, (description, holder), deleted) in [
            (
                "cut off",
                ("by hand".into(), "it carries no mark".into()),
                true,
            ),
            (
                "another installation's",
                forged(format!("campanile:{CLUSTER}/00000000/AlarmSet/{tail}")),
                false,
            ),
            (
                "another object's",
                forged(format!("{head}/AlarmSet/{tail}-2")),
                true,
            ),
        ] {
            let before = events::<AlarmSet>(&tenant, "golden", "Conflict")
                .await
                .len();
            let taken = put(&cloudwatch, &right).alarm_description(&description);
            taken.send().await.unwrap();
            let mark = world.aws.mark();
            let message = tenant.ready::<AlarmSet>("golden", "Conflict").await;
            assert!(
                message.contains(&name) && message.contains(&holder),
                "{what}: {message}"
            );
            let (at, note) = told::<AlarmSet>(&tenant, "golden", "Conflict", before).await;
            let polls = Look::alarms(0).polls(&tenant, mark, at);
            assert!(polls <= POLLS, "{what}: told after {polls} polls");
            assert!(note.contains(&name), "{what}: {note}");
            let set = tenant.api::<AlarmSet>().get("golden").await.unwrap();
            assert!(set.holds("Stalled"), "{what}");
            let status = set.status.unwrap();
            let counts = status.counts.unwrap();
            assert_eq!((counts.applied, counts.foreign, counts.failed), (1, 1, 0));
            let entry = &status.alarms[0];
            let entry = (entry.name.as_str(), entry.reason.as_deref());
            assert_eq!(entry, ("errors", Some("Conflict")), "{what}");
            // The other one is looked after as ever.
            let meddled = put(&cloudwatch, &right_other).threshold(99.0);
            meddled.send().await.unwrap();
            is_as_before(&tenant, what, &right_other).await;
            tenant.polls(world.aws.mark(), 2).await;
            let writes = tenant.writes_since(mark);
            assert!(
                writes.iter().all(|(_, about)| about.ends_with(&other)),
                "{what}: {writes:?}"
            );
            let left = tenant.alarms().await.remove(&name).unwrap();
            assert_eq!(left.alarm_description(), Some(description.as_str()));

            // It heals by itself.
            if deleted {
                let delete = cloudwatch.delete_alarms().alarm_names(&name);
                delete.send().await.unwrap();
            } else {
                put(&cloudwatch, &right).send().await.unwrap();
            }
            let mark = world.aws.mark();
            tenant.ready::<AlarmSet>("golden", "Applied").await;
            let at = Timestamp::now();
            let polls = Look::alarms(usize::from(deleted)).polls(&tenant, mark, at);
            assert!(polls <= POLLS, "{what}: healed after {polls} polls");
            is_as_before(&tenant, what, &right).await;
            let made = if deleted { 1 } else { 0 };
            assert_eq!(tenant.writes_since(mark).len(), made, "{what}");
        }
    });
}

#[test]
fn a_repair_that_is_refused_is_said_and_not_tried_at_every_poll() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-refused").await;
        tenant.usual_tenant().await;
        tenant.set("golden", json!(["prod"]), two_alarms()).await;
        let site = Site::new(tenant).await;
        let tenant = &site.tenant;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let name = tenant.name(Severity::Critical, "golden", "errors", Some("prod"));
        let right = tenant.alarms().await.remove(&name).unwrap();
        world.aws.deny(&tenant.account, "PutMetricAlarm");
        let meddled = put(&tenant.cloudwatch(), &right).threshold(99.0);
        meddled.send().await.unwrap();
        let mark = world.aws.mark();
        let message = tenant.ready::<AlarmSet>("golden", "AccessDenied").await;
        assert!(
            message.contains("Allow cloudwatch:PutMetricAlarm to"),
            "{message}"
        );
        let (at, _) = told::<AlarmSet>(tenant, "golden", "AccessDenied", 0).await;
        let polls = Look::alarms(1).polls(tenant, mark, at);
        assert!(polls <= POLLS, "told after {polls} polls");
        let set = tenant.api::<AlarmSet>().get("golden").await.unwrap();
        let status = set.status.unwrap();
        let entry = &status.alarms[0];
        let entry = (entry.name.as_str(), entry.reason.as_deref());
        assert_eq!(entry, ("errors", Some("AccessDenied")));
        tenant.polls(world.aws.mark(), 3).await;
        assert_eq!(tenant.writes_since(mark).len(), 1, "it was tried once");
        assert_eq!(site.drift::<AlarmSet>().await, (0, 0));

        world.aws.allow(&tenant.account, "PutMetricAlarm");
        tenant
            .annotate::<AlarmSet>("golden", REQUESTED, "mended")
            .await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        is_as_before(tenant, "allowed", &right).await;
        let set = tenant.api::<AlarmSet>().get("golden").await.unwrap();
        assert_eq!(set.condition("Drifted").unwrap().reason, "DriftRepaired");
        assert_eq!(site.drift::<AlarmSet>().await, (1, 1));
    });
}

async fn subscriptions(tenant: &Tenant, topic: &str) -> BTreeMap<String, String> {
    let sns = tenant.sns();
    let listed = sns.list_subscriptions_by_topic().topic_arn(topic).send();
    let listed = listed.await.unwrap().subscriptions.unwrap_or_default();
    let listed = listed.into_iter();
    let shown = listed.map(|one| (one.endpoint.unwrap(), one.subscription_arn.unwrap()));
    shown.collect()
}

async fn policy(tenant: &Tenant, topic: &str) -> Value {
    let attributes = tenant.sns().get_topic_attributes().topic_arn(topic);
    let attributes = attributes.send().await.unwrap();
    serde_json::from_str(&attributes.attributes().unwrap()["Policy"]).unwrap()
}

/// How often somebody was invited.
fn invited(tenant: &Tenant) -> usize {
    tenant
        .world
        .aws
        .count(|call| (&call.account, call.operation.as_str()) == (&tenant.account, "Subscribe"))
}

/// Waits for a reason of `DeliveryReady`, and returns the tenant.
async fn delivery(tenant: &Tenant, reason: &str) -> TenantObservability {
    let right = |tenant: &TenantObservability| {
        let delivery = tenant.condition("DeliveryReady");
        delivery.is_some_and(|delivery| delivery.reason == reason)
    };
    tenant.until(&tenant.namespace, reason, right).await
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

fn health(tenant: &TenantObservability) -> Option<Health> {
    tenant.status.as_ref()?.health
}

#[test]
fn a_topic_is_mended_whatever_is_done_to_it() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-topic").await;
        let key = "abcdefabcdefabcdefabcdefabcdefd1";
        let (oncall, gone) = ("oncall@vsu.example", "gone@vsu.example");
        tenant.secret("pager", "key", key).await;
        let mut spec = tenant.usual_spec();
        spec["notify"]["critical"] = json!({
            "pagerDuty": [{"name": "primary", "integrationKeySecretRef": {"name": "pager", "key": "key"}}],
            "emails": [oncall, gone]
        });
        tenant.tenant(spec).await;
        tenant.set("golden", json!(["prod"]), two_alarms()).await;
        let site = Site::new(tenant).await;
        let tenant = &site.tenant;
        let namespace = &tenant.namespace;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        state(tenant, oncall, SubscriptionState::Pending).await;
        let name = tenant.name(Severity::Critical, "golden", "errors", Some("prod"));
        let right = tenant.alarms().await.remove(&name).unwrap();
        let topic = right.alarm_actions()[0].as_str();

        // A reader confirms.
        for address in [oncall, gone] {
            world.aws.confirm_mail(topic, address).await.unwrap();
        }
        let mark = world.aws.mark();
        let well = delivery(tenant, "Delivering").await;
        let polls = Look::topic(topic, 0).polls(tenant, mark, Timestamp::now());
        assert!(polls <= POLLS, "told after {polls} polls");
        assert!(
            well.status
                .as_ref()
                .unwrap()
                .subscriptions
                .iter()
                .all(|one| one.state == SubscriptionState::Confirmed)
        );
        let healthy = |tenant: &TenantObservability| tenant.holds("Healthy");
        tenant.until(namespace, "healthy", healthy).await;
        // One of them leaves by the link at the foot of a mail, for good.
        world
            .aws
            .unsubscribe_mail(topic, gone, Unsubscribed::Gone)
            .await
            .unwrap();
        state(tenant, gone, SubscriptionState::Gone).await;

        let sns = tenant.sns();
        let declared = policy(tenant, topic).await;
        let url = format!("{}/integration/{key}/enqueue", world.pagerduty.url());
        let pager = subscriptions(tenant, topic).await.remove(&url).unwrap();
        let open = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sns:Publish","Resource":"*"}]}"#;
        let short = topic.rsplit(':').next().unwrap();
        let damages = [
            Damage {
                what: "policy replaced",
                done: async {
                    let set = sns.set_topic_attributes().topic_arn(topic);
                    let set = set.attribute_name("Policy").attribute_value(open);
                    drop(set.send().await.unwrap());
                }
                .boxed_local(),
                look: Look::topic(topic, 1),
                says: vec![
                    format!("topic {short}: policy.Statement[0]"),
                    "policy.Statement[0].Principal.AWS was *".into(),
                ],
                note: format!("changed topic {short}: policy.Statement[0]"),
            },
            Damage {
                what: "subscription removed",
                done: async {
                    let end = sns.unsubscribe().subscription_arn(&pager);
                    drop(end.send().await.unwrap());
                }
                .boxed_local(),
                look: Look::topic(topic, 2),
                says: vec![
                    "subscription critical http hmac:".into(),
                    "was missing".into(),
                ],
                note: "created 1 subscription (critical http hmac:".into(),
            },
            Damage {
                what: "deleted",
                done: async {
                    drop(sns.delete_topic().topic_arn(topic).send().await.unwrap());
                }
                .boxed_local(),
                look: Look::topic(topic, 2),
                says: vec![
                    format!("topic {short} was missing"),
                    format!("subscription critical email {oncall} was missing"),
                ],
                note: format!("created 1 topic ({short}), created 2 subscriptions ("),
            },
        ];
        let count = damages.len();
        for damage in damages {
            let (what, before) = (damage.what, invited(tenant));
            is_mended::<TenantObservability>(&site, namespace, damage).await;
            assert_eq!(policy(tenant, topic).await, declared, "{what}");
            let again = match what {
                "policy replaced" => 0,
                "subscription removed" => 1,
                _ => {
                    // With a topic those who heard it go; whoever has left before stays away.
                    state(tenant, oncall, SubscriptionState::Pending).await;
                    world.aws.confirm_mail(topic, oncall).await.unwrap();
                    state(tenant, gone, SubscriptionState::Gone).await;
                    2
                }
            };
            state(tenant, oncall, SubscriptionState::Confirmed).await;
            assert_eq!(invited(tenant) - before, again, "{what}");
            eventually("the pager to be subscribed", || async {
                match subscriptions(tenant, topic).await.remove(&url) {
                    Some(arn) if arn.starts_with("arn:") => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
            is_as_before(tenant, what, &right).await;
        }
        tenant
            .until::<TenantObservability>(namespace, "all but one to be confirmed", |tenant| {
                let mut all = tenant
                    .status
                    .iter()
                    .flat_map(|status| &status.subscriptions);
                all.all(|one| one.endpoint == gone || one.state == SubscriptionState::Confirmed)
            })
            .await;
        tenant.polls(world.aws.mark(), 2).await;
        is_quiet(tenant, "golden").await;
        let repaired = events::<TenantObservability>(tenant, namespace, "DriftRepaired").await;
        assert_eq!(repaired.len(), count, "one Event for one damage");
        let others = events::<AlarmSet>(tenant, "golden", "DriftRepaired").await;
        assert_eq!(others.len(), 0, "the set is another resource");
    });
}

#[test]
fn a_topic_without_our_tag_is_left_alone_and_said_so() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-topic-tag").await;
        tenant.usual_tenant().await;
        tenant.set("golden", json!(["prod"]), two_alarms()).await;
        let _operator = operator(&tenant, &[]).await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let name = tenant.name(Severity::Critical, "golden", "errors", Some("prod"));
        let right = tenant.alarms().await.remove(&name).unwrap();
        let topic = right.alarm_actions()[0].as_str();
        let short = topic.rsplit(':').next().unwrap();
        let (sns, namespace) = (tenant.sns(), &tenant.namespace);
        let tag = |value: &str| {
            let tag = aws_sdk_sns::types::Tag::builder().key("campanile.dev/owner");
            let tag = sns
                .tag_resource()
                .resource_arn(topic)
                .tags(tag.value(value).build().unwrap());
            async { drop(tag.send().await.unwrap()) }
        };
        let tags = sns
            .list_tags_for_resource()
            .resource_arn(topic)
            .send()
            .await
            .unwrap();
        let ours = tags.tags()[0].value().to_owned();
        let stolen = ours.replacen("TenantObservability", "Somebody", 1);
        let removed = async {
            let untag = sns.untag_resource().resource_arn(topic);
            drop(untag.tag_keys("campanile.dev/owner").send().await.unwrap());
        };
        for (what, done, holder) in [
            ("removed", removed.boxed_local(), "it carries no mark"),
            ("another's", tag(&stolen).boxed_local(), stolen.as_str()),
        ] {
            let before = events::<TenantObservability>(&tenant, namespace, "Conflict")
                .await
                .len();
            done.await;
            let mark = world.aws.mark();
            let message = tenant
                .ready::<TenantObservability>(namespace, "Conflict")
                .await;
            assert!(
                message.contains(short) && message.contains(holder),
                "{what}: {message}"
            );
            let (at, _) = told::<TenantObservability>(&tenant, namespace, "Conflict", before).await;
            let polls = Look::topic(topic, 0).polls(&tenant, mark, at);
            assert!(polls <= POLLS, "{what}: told after {polls} polls");
            delivery(&tenant, "TopicConflict").await;
            // What happens to a topic outside is no reason to take the alarms off it.
            Look::topic(topic, 0).times(&tenant, mark, 3).await;
            assert_eq!(tenant.writes_since(mark), [], "{what}");
            let actions = tenant.alarms().await[&name].alarm_actions().to_vec();
            assert_eq!(actions, [topic], "{what}");
            tag(&ours).await;
            tenant
                .ready::<TenantObservability>(namespace, "Applied")
                .await;
            is_as_before(&tenant, what, &right).await;
            tenant.ready::<AlarmSet>("golden", "Applied").await;
            let writes = tenant.writes_since(mark);
            assert!(
                writes
                    .iter()
                    .all(|(operation, _)| operation == "PutMetricAlarm"),
                "{what}: {writes:?}"
            );
        }
    });
}

#[test]
fn a_role_that_does_not_let_us_in_is_said_on_all_that_need_it() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-role").await;
        tenant.usual_tenant().await;
        tenant.set("golden", json!(["prod"]), two_alarms()).await;
        let _operator = operator(&tenant, &[]).await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let (role, namespace) = (tenant.role(), &tenant.namespace);
        let well = |tenant: &TenantObservability| tenant.holds("Healthy");
        tenant.until(namespace, "healthy", well).await;
        let name = tenant.name(Severity::Critical, "golden", "errors", Some("prod"));
        let right = tenant.alarms().await.remove(&name).unwrap();
        let external_id = format!("{CLUSTER}/{namespace}");
        let trust = || Trust::external_id(&external_id);
        let remedy = format!("sts:ExternalId = {external_id}");
        let elsewhere = "999900002222";
        // How often the role let us into the account, and how often it did not.
        let asked_for = |mark: Mark| {
            let well = world.aws.count_since(mark, |call| {
                (call.operation.as_str(), &call.account) == ("GetCallerIdentity", &tenant.account)
            });
            let in_vain = world.aws.count_since(mark, |call| {
                let refused = call.operation == "AssumeRole" && !call.succeeded();
                refused && call.resource == role
                    || call.operation == "GetCallerIdentity" && call.account == elsewhere
            });
            (well, in_vain)
        };
        enum Harm {
            Trust(Trust),
            Deleted,
        }
        let cases = [
            (
                "trust changed",
                Harm::Trust(Trust::external_id("it/somebody")),
                &remedy,
                "tenant",
            ),
            ("deleted", Harm::Deleted, &remedy, "tenant"),
            ("deleted, the set asks", Harm::Deleted, &remedy, "set"),
            (
                "leads elsewhere",
                Harm::Trust(trust().landing_in(elsewhere)),
                &format!("leads to account {elsewhere}"),
                "set",
            ),
        ];
        for (what, harm, says, asked) in cases {
            let before = (
                events::<TenantObservability>(&tenant, namespace, "AccessDenied")
                    .await
                    .len(),
                events::<AlarmSet>(&tenant, "golden", "AccessDenied")
                    .await
                    .len(),
            );
            match harm {
                Harm::Trust(trust) => tenant.trust(trust),
                Harm::Deleted => world.aws.remove_role(&role),
            }
            let mark = world.aws.mark();
            let denied = "AccessDenied";
            for message in [
                tenant.ready::<TenantObservability>(namespace, denied).await,
                tenant.ready::<AlarmSet>("golden", denied).await,
            ] {
                assert!(message.contains(says.as_str()), "{what}: {message}");
            }
            // It is asked once per slow poll, and by each watch when it is refused and when it hears of that.
            let (well, in_vain) = asked_for(mark);
            assert!(well < POLLS, "{what}: found after {well} polls");
            assert!((1..=5).contains(&in_vain), "{what}: asked {in_vain} times");
            told::<TenantObservability>(&tenant, namespace, denied, before.0).await;
            told::<AlarmSet>(&tenant, "golden", denied, before.1).await;
            let locked_out = tenant
                .api::<TenantObservability>()
                .get(namespace)
                .await
                .unwrap();
            let reachable = locked_out.condition("AccountReachable").unwrap();
            assert_eq!(
                (reachable.status.as_str(), reachable.reason.as_str()),
                ("False", denied),
                "{what}"
            );
            assert!(
                reachable.message.contains(says.as_str()),
                "{what}: {reachable:?}"
            );
            let unknown = |tenant: &TenantObservability| health(tenant) == Some(Health::Unknown);
            tenant.until(namespace, "unknown", unknown).await;
            let status = locked_out.status.unwrap();
            assert_eq!(status.external_id.as_ref(), Some(&external_id), "{what}");
            assert!(status.links.unwrap().alarms.is_some(), "{what}");
            assert_eq!(
                status.topics.len(),
                2,
                "{what}: they are there, for all we know"
            );
            let set = tenant.api::<AlarmSet>().get("golden").await.unwrap();
            assert_eq!(
                set.status.unwrap().counts,
                None,
                "{what}: nobody knows what fires"
            );

            // What happens meanwhile is mended afterwards.
            let delete = tenant.cloudwatch().delete_alarms().alarm_names(&name);
            delete.send().await.unwrap();
            assert_eq!(tenant.writes_since(mark), [], "{what}");
            tenant.trust(trust());
            match asked {
                "set" => tenant.annotate::<AlarmSet>("golden", REQUESTED, what).await,
                _ => {
                    tenant
                        .annotate::<TenantObservability>(namespace, REQUESTED, what)
                        .await
                }
            }
            // Whoever is asked, the other hears of it.
            tenant
                .ready::<TenantObservability>(namespace, "Applied")
                .await;
            tenant.ready::<AlarmSet>("golden", "Applied").await;
            is_as_before(&tenant, what, &right).await;
            let well = |tenant: &TenantObservability| {
                tenant.holds("AccountReachable") && tenant.holds("Healthy")
            };
            tenant.until(namespace, "healthy again", well).await;
        }
    });
}

#[test]
fn whom_to_trust_is_said_before_anybody_lets_us_in() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-external-id").await;
        tenant.trust(Trust::external_id("it/somebody"));
        // Without topics: nothing else of the tenant's status tells its sets that it got in.
        let mut spec = tenant.usual_spec();
        spec["notify"] = Value::Null;
        tenant.tenant(spec).await;
        tenant.set("golden", json!(["prod"]), two_alarms()).await;
        let _operator = operator(&tenant, &[]).await;
        let namespace = &tenant.namespace;
        tenant
            .ready::<TenantObservability>(namespace, "AccessDenied")
            .await;
        let refused = tenant
            .api::<TenantObservability>()
            .get(namespace)
            .await
            .unwrap();
        let status = refused.status.unwrap();
        assert_eq!(status.external_id, Some(format!("{CLUSTER}/{namespace}")));
        let link = status.links.unwrap().alarms.unwrap();
        assert_eq!(
            link,
            format!(
                "https://{REGION}.console.aws.amazon.com/cloudwatch/home?region={REGION}#alarmsV2:?~(search~'campanile*2f{CLUSTER}*2f{namespace}*2f)"
            )
        );
        tenant.ready::<AlarmSet>("golden", "AccessDenied").await;

        // Mended, and the tenant is asked to look again: its sets need not be.
        tenant.trust(Trust::external_id(format!("{CLUSTER}/{namespace}")));
        tenant
            .annotate::<TenantObservability>(namespace, REQUESTED, "mended")
            .await;
        tenant
            .ready::<TenantObservability>(namespace, "Applied")
            .await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
    });
}

/// The drift in a set's status, once there is so much of it.
async fn drift_of(tenant: &Tenant, count: i32) -> (AlarmSet, Vec<DriftEntry>) {
    let right = |set: &AlarmSet| {
        let status = set.status.as_ref();
        status.is_some_and(|status| status.drift_count == Some(count))
    };
    let set = tenant
        .until("golden", &format!("{count} drifted"), right)
        .await;
    let drift = set.status.as_ref().unwrap().drift.clone();
    (set, drift)
}

#[test]
fn drift_that_is_only_reported() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-report").await;
        tenant.usual_tenant().await;
        let apply = async |policy: Option<&str>, threshold: f64| {
            let alarms = json!([
                alarm("errors", "critical", json!({})),
                alarm("other", "critical", json!({"threshold": threshold})),
                alarm("slow", "warning", json!({}))
            ]);
            let name = json!({"name": tenant.namespace});
            let spec = json!({"tenantRef": name, "environments": ["prod"], "driftPolicy": policy, "alarms": alarms});
            tenant.apply::<AlarmSet>("golden", spec).await
        };
        apply(Some("Report"), 1.0).await;
        let port = campanile_world::port::free().unwrap();
        let address = format!("127.0.0.1:{port}");
        let first = operator(&tenant, &["--metrics-addr", &address]).await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let named = |severity, alarm: &str| tenant.name(severity, "golden", alarm, Some("prod"));
        let errors = named(Severity::Critical, "errors");
        let slow = named(Severity::Warning, "slow");
        let alarms = tenant.alarms().await;
        let cloudwatch = tenant.cloudwatch();
        let meddle = async |threshold: f64| {
            let put = put(&cloudwatch, &alarms[&errors]).threshold(threshold);
            put.send().await.unwrap();
        };

        // The state of a new alarm is read once more.
        tenant.polls(world.aws.mark(), 3).await;
        meddle(99.0).await;
        let mark = world.aws.mark();
        let (set, drift) = drift_of(&tenant, 1).await;
        let (at, note) = told::<AlarmSet>(&tenant, "golden", "DriftDetected", 0).await;
        let polls = Look::alarms(1).polls(&tenant, mark, at);
        assert!(polls <= POLLS, "told after {polls} polls");
        assert!(note.contains("threshold 99 → 10"), "{note}");
        let changed = DriftEntry {
            resource: "alarm".into(),
            name: errors.clone(),
            change: DriftChange::Changed,
            field: Some("threshold".into()),
            wanted: Some("10".into()),
            found: Some("99".into()),
            since: drift[0].since.clone(),
        };
        assert_eq!(drift, std::slice::from_ref(&changed));
        let noticed: Timestamp = changed.since.parse().unwrap();
        assert!(noticed <= Timestamp::now());
        let drifted = set.condition("Drifted").unwrap();
        let drifted = (drifted.status.as_str(), drifted.reason.as_str());
        assert_eq!(drifted, ("True", "DriftReported"));
        assert!(set.holds("Ready"));
        let entry = &set.status.as_ref().unwrap().alarms[0];
        let entry = (entry.name.as_str(), entry.reason.as_deref());
        assert_eq!(entry, ("errors", Some("Drifted")));

        let delete = cloudwatch.delete_alarms().alarm_names(&slow);
        delete.send().await.unwrap();
        let (set, drift) = drift_of(&tenant, 2).await;
        assert_eq!(drift[0], changed, "since does not move");
        let missing = (drift[1].name.as_str(), drift[1].change, &drift[1].field);
        assert_eq!(missing, (slow.as_str(), DriftChange::Missing, &None));
        let counts = set.status.as_ref().unwrap().counts.unwrap();
        assert_eq!((counts.desired, counts.applied), (3, 1));
        assert!(set.holds("Ready"));
        told::<AlarmSet>(&tenant, "golden", "DriftDetected", 1).await;
        // It drifts further.
        meddle(98.0).await;
        let further = |set: &AlarmSet| {
            let first = set.status.as_ref().unwrap().drift.first();
            first.is_some_and(|entry| entry.found.as_deref() == Some("98"))
        };
        let set = tenant.until("golden", "98", further).await;
        let drift = set.status.unwrap().drift;
        assert_eq!(drift[0].since, changed.since, "since does not move");
        let text = eventually("the metrics", || async {
            let text = get(&address, "/metrics").await;
            text.ok_or_else(|| "no answer".to_owned())
        })
        .await;
        let found = r#"campanile_drift_found_total{kind="AlarmSet"} 2"#;
        let repaired = r#"campanile_drift_repaired_total{kind="AlarmSet"} 0"#;
        assert!(text.contains(found) && text.contains(repaired), "{text}");

        // Nor is anything written later, or by a successor.
        is_quiet(&tenant, "golden").await;
        first.stop(Duration::from_secs(10)).await.unwrap();
        let second = operator(&tenant, &[]).await;
        is_quiet(&tenant, "golden").await;
        tenant
            .annotate::<AlarmSet>("golden", REQUESTED, "look")
            .await;
        let looked = |set: &AlarmSet| {
            let status = set.status.as_ref().unwrap();
            status.last_handled_reconcile_at.as_deref() == Some("look")
        };
        let set = tenant.until("golden", "looked at", looked).await;
        assert_eq!(set.status.unwrap().drift, drift);
        assert_eq!(tenant.writes_since(mark), [], "nothing was written at all");

        // An edit of another alarm applies the whole spec.
        apply(Some("Report"), 2.0).await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        for name in [&errors, &slow] {
            is_as_before(&tenant, "edited", &alarms[name]).await;
        }
        let set = tenant.api::<AlarmSet>().get("golden").await.unwrap();
        let drifted = set.condition("Drifted").unwrap();
        let drifted = (drifted.status.as_str(), drifted.reason.as_str());
        assert_eq!(drifted, ("False", "AsApplied"));
        let status = set.status.unwrap();
        assert_eq!((status.drift, status.drift_count), (Vec::new(), None));

        // What is reported is repaired as soon as it is to be.
        meddle(97.0).await;
        drift_of(&tenant, 1).await;
        apply(None, 2.0).await;
        let repaired = |set: &AlarmSet| set.condition("Drifted").unwrap().reason == "DriftRepaired";
        let set = tenant
            .until::<AlarmSet>("golden", "repaired", repaired)
            .await;
        let status = set.status.unwrap();
        assert_eq!((status.drift, status.drift_count), (Vec::new(), None));
        is_as_before(&tenant, "repaired", &alarms[&errors]).await;
        told::<AlarmSet>(&tenant, "golden", "DriftRepaired", 0).await;
        drop(second);
    });
}

#[test]
fn a_conflict_heals_when_the_stranger_goes() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-stranger").await;
        tenant.usual_tenant().await;
        let cloudwatch = tenant.cloudwatch();
        let name = |alarm| tenant.name(Severity::Info, "golden", alarm, Some("prod"));
        let (by_hand, composite) = (name("by-hand"), name("composite"));
        put_by_hand(&cloudwatch, &by_hand).await;
        let put = cloudwatch.put_composite_alarm().alarm_name(&composite);
        put.alarm_rule("FALSE").send().await.unwrap();
        let alarms = json!([
            alarm("by-hand", "info", json!({})),
            alarm("composite", "info", json!({})),
            alarm("ours", "info", json!({}))
        ]);
        tenant.set("golden", json!(["prod"]), alarms).await;
        let _operator = operator(&tenant, &[]).await;
        let message = tenant.ready::<AlarmSet>("golden", "Conflict").await;
        assert!(message.contains(&by_hand), "{message}");
        let foreign = async |count: i32| {
            let what = format!("{count} that are not ours");
            let right = |set: &AlarmSet| {
                let status = set.status.as_ref().unwrap();
                status.counts.is_some_and(|counts| counts.foreign == count)
            };
            tenant.until("golden", &what, right).await
        };
        let set = foreign(2).await;
        assert_eq!(set.status.unwrap().counts.unwrap().applied, 1);
        for (stranger, left) in [(&composite, 1), (&by_hand, 0)] {
            let delete = cloudwatch.delete_alarms().alarm_names(stranger);
            delete.send().await.unwrap();
            let mark = world.aws.mark();
            foreign(left).await;
            let polls = Look::alarms(1).polls(&tenant, mark, Timestamp::now());
            assert!(polls <= POLLS, "{stranger}: made after {polls} polls");
            let arn = format!(
                "arn:aws:cloudwatch:{REGION}:{}:alarm:{stranger}",
                tenant.account
            );
            let made = [("PutMetricAlarm".to_owned(), arn)];
            assert_eq!(tenant.writes_since(mark), made);
        }
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        assert_eq!(tenant.alarms().await.len(), 3);

        // A topic: its name is known once it has been made.
        let (sns, namespace) = (tenant.sns(), &tenant.namespace);
        let topics = tenant.topics().await;
        let topic = topics.iter().find(|arn| arn.contains("warning")).unwrap();
        let warning = async |there: bool| {
            let mut spec = tenant.usual_spec();
            if !there {
                spec["notify"].as_object_mut().unwrap().remove("warning");
            }
            tenant.tenant(spec).await;
        };
        warning(false).await;
        tenant
            .ready::<TenantObservability>(namespace, "Applied")
            .await;
        let create = sns.create_topic().name(topic.rsplit(':').next().unwrap());
        create.send().await.unwrap();
        warning(true).await;
        let message = tenant
            .ready::<TenantObservability>(namespace, "Conflict")
            .await;
        assert!(message.contains("_warning_"), "{message}");
        sns.delete_topic().topic_arn(topic).send().await.unwrap();
        let mark = world.aws.mark();
        tenant
            .ready::<TenantObservability>(namespace, "Applied")
            .await;
        let polls = Look::topic(topic, 1).polls(&tenant, mark, Timestamp::now());
        assert!(polls <= POLLS, "made after {polls} polls");
        let made = [("CreateTopic".to_owned(), topic.clone())];
        assert_eq!(tenant.writes_since(mark), made);
    });
}

#[test]
fn a_listing_that_breaks_off_is_not_absence() {
    test(|world| async move {
        for (name, count, page) in [
            ("damage-short-pages", 6, Some(2)),
            ("damage-pages", 120, None),
        ] {
            let tenant = Tenant::new(world, name).await;
            let describe = "DescribeAlarms";
            if let Some(size) = page {
                let short = Trouble::ShortPages(size);
                world.aws.trouble(&tenant.account, describe, short);
            }
            tenant.usual_tenant().await;
            let alarms = (0..count).map(|n| alarm(&format!("a{n:03}"), "info", json!({})));
            tenant
                .set("golden", json!(["prod"]), alarms.collect())
                .await;
            let _operator = operator(&tenant, &["--aws-rate", "PutMetricAlarm=1000"]).await;
            let counted = |set: &AlarmSet| {
                let Some(status) = &set.status else {
                    return false;
                };
                let counts = status.counts;
                let counts = counts.map(|counts| (counts.desired, counts.applied, counts.no_data));
                counts == Some((count, count, count))
                    && status.alarms.iter().all(|entry| entry.since.is_some())
            };
            tenant.until("golden", "all in place", counted).await;
            let healthy = |tenant: &TenantObservability| tenant.holds("Healthy");
            tenant.until(&tenant.namespace, "healthy", healthy).await;
            let whole = async || {
                let alarms = tenant.alarms().await.into_values();
                alarms.map(|alarm| still(&alarm)).collect::<Vec<_>>()
            };
            let right = whole().await;
            assert_eq!(right.len(), usize::try_from(count).unwrap());

            world
                .aws
                .trouble(&tenant.account, describe, Trouble::FailLaterPages);
            let mark = world.aws.mark();
            let failed = || {
                world.aws.count_since(mark, |call| {
                    (&call.account, call.operation.as_str()) == (&tenant.account, describe)
                        && call.status == Some(500)
                })
            };
            // Somebody deletes what the first page would have told; what the last ones would have told
            // is there all the time. (Each read is tried twice.)
            let first = right[0].alarm_name().unwrap();
            let delete = tenant.cloudwatch().delete_alarms().alarm_names(first);
            delete.send().await.unwrap();
            eventually("two listings that broke off", || async {
                if failed() >= 4 {
                    Ok(())
                } else {
                    Err(failed().to_string())
                }
            })
            .await;
            let set = tenant.api::<AlarmSet>().get("golden").await.unwrap();
            assert!(counted(&set) && set.holds("Ready"), "{name}: {set:?}");
            assert_eq!(tenant.writes_since(mark), [], "{name}");
            assert_eq!(whole().await.len(), right.len() - 1, "{name}");

            world.aws.allow(&tenant.account, describe);
            eventually("what was deleted to be back", || async {
                let now = whole().await;
                if now == right {
                    Ok(())
                } else {
                    Err(format!("{} alarms", now.len()))
                }
            })
            .await;
            tenant.ready::<AlarmSet>("golden", "Applied").await;
            assert_eq!(tenant.writes_since(mark).len(), 1, "{name}");
        }
    });
}

/// The usual tenant, with these addresses for what is critical.
fn with_mail(tenant: &Tenant, addresses: &[&str]) -> Value {
    let mut spec = tenant.usual_spec();
    if !addresses.is_empty() {
        spec["notify"]["critical"] = json!({"emails": addresses});
    }
    spec
}

async fn critical_topic(tenant: &Tenant) -> String {
    eventually("a topic", || async {
        let topics = tenant.topics().await;
        let mut critical = topics.iter().filter(|arn| arn.contains("_critical_"));
        critical.next().cloned().ok_or(format!("{topics:?}"))
    })
    .await
}

#[test]
fn a_reader_of_mail_is_invited_once() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-mail").await;
        let (oncall, by_hand) = ("oncall@vsu.example", "by-hand@vsu.example");
        let namespace = &tenant.namespace;
        tenant.tenant(with_mail(&tenant, &[oncall])).await;
        tenant.set("golden", json!(["prod"]), two_alarms()).await;
        let first = operator(&tenant, &[]).await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let pending = delivery(&tenant, "PendingConfirmation").await;
        let told = pending.condition("DeliveryReady").unwrap();
        assert_eq!(told.status, "False");
        assert!(
            told.message.contains("oncall@vsu.example (critical)"),
            "{told:?}"
        );
        let degraded = |tenant: &TenantObservability| health(tenant) == Some(Health::Degraded);
        let pending = tenant.until(namespace, "degraded", degraded).await;
        assert_eq!(pending.condition("Ready").unwrap().reason, "Applied");
        assert!(pending.holds("Ready") && !pending.holds("Healthy"));
        assert!(
            pending.condition("Reconciling").is_none() && pending.condition("Stalled").is_none()
        );

        // Somebody subscribes by hand; that is not ours.
        let topic = critical_topic(&tenant).await;
        let subscribe = tenant.sns().subscribe().topic_arn(&topic);
        let subscribe = subscribe.protocol("email").endpoint(by_hand);
        subscribe.send().await.unwrap();
        let looks = async |times| {
            Look::topic(&topic, 0)
                .times(&tenant, world.aws.mark(), times)
                .await
        };
        looks(4).await;
        assert_eq!(invited(&tenant), 1, "over many polls");
        first.stop(Duration::from_secs(10)).await.unwrap();
        let _second = operator(&tenant, &[]).await;
        looks(3).await;
        assert_eq!(invited(&tenant), 1, "after a restart");
        let mut edited = with_mail(&tenant, &[oncall]);
        edited["environments"] = json!([{"name": "prod", "deploymentId": "app-prod"}]);
        tenant.tenant(edited).await;
        tenant
            .ready::<TenantObservability>(namespace, "Applied")
            .await;
        tenant
            .annotate::<TenantObservability>(namespace, REQUESTED, "look")
            .await;
        let looked = |tenant: &TenantObservability| {
            let status = tenant.status.as_ref().unwrap();
            status.last_handled_reconcile_at.as_deref() == Some("look")
        };
        let seen = tenant.until(namespace, "looked at", looked).await;
        looks(2).await;
        assert_eq!(invited(&tenant), 1, "after an edit, and a request to look");
        let [one] = &seen.status.as_ref().unwrap().subscriptions[..] else {
            panic!("ours alone: {seen:?}")
        };
        assert_eq!(
            (one.endpoint.as_str(), one.state),
            (oncall, SubscriptionState::Pending)
        );

        world.aws.confirm_mail(&topic, oncall).await.unwrap();
        let mark = world.aws.mark();
        delivery(&tenant, "Delivering").await;
        let polls = Look::topic(&topic, 0).polls(&tenant, mark, Timestamp::now());
        assert!(polls <= POLLS, "told after {polls} polls");
        state(&tenant, oncall, SubscriptionState::Confirmed).await;
        let healthy = |tenant: &TenantObservability| tenant.holds("Healthy");
        tenant.until(namespace, "healthy", healthy).await;

        // Out, and in again: a new invitation.
        tenant.tenant(with_mail(&tenant, &[])).await;
        eventually("only the one made by hand", || async {
            let all = subscriptions(&tenant, &topic).await;
            if all.keys().eq([by_hand]) {
                Ok(())
            } else {
                Err(format!("{all:?}"))
            }
        })
        .await;
        tenant
            .ready::<TenantObservability>(namespace, "Applied")
            .await;
        tenant.tenant(with_mail(&tenant, &[oncall])).await;
        state(&tenant, oncall, SubscriptionState::Pending).await;
        looks(2).await;
        assert_eq!(invited(&tenant), 2);
        let all = subscriptions(&tenant, &topic).await;
        assert_eq!(all[by_hand], "PendingConfirmation", "{all:?}");

        // Out while it is pending: it cannot be removed before it is confirmed; then it is.
        tenant.tenant(with_mail(&tenant, &[])).await;
        tenant
            .ready::<TenantObservability>(namespace, "Applied")
            .await;
        looks(2).await;
        world.aws.confirm_mail(&topic, oncall).await.unwrap();
        eventually("only the one made by hand", || async {
            let all = subscriptions(&tenant, &topic).await;
            if all.keys().eq([by_hand]) {
                Ok(())
            } else {
                Err(format!("{all:?}"))
            }
        })
        .await;
        assert_eq!(invited(&tenant), 2);
    });
}

#[test]
fn a_reader_of_mail_who_leaves_is_not_invited_again_by_itself() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-unsubscribed").await;
        let (one, two) = ("one@vsu.example", "two@vsu.example");
        let namespace = &tenant.namespace;
        tenant.tenant(with_mail(&tenant, &[one, two])).await;
        tenant.set("golden", json!(["prod"]), two_alarms()).await;
        let first = operator(&tenant, &[]).await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        delivery(&tenant, "PendingConfirmation").await;
        let topic = critical_topic(&tenant).await;
        for address in [one, two] {
            world.aws.confirm_mail(&topic, address).await.unwrap();
        }
        delivery(&tenant, "Delivering").await;
        assert_eq!(invited(&tenant), 2);
        // What was pending is settled; from now on it is looked at slowly.
        for (address, listed) in [(one, Unsubscribed::Gone), (two, Unsubscribed::Deleted)] {
            let left = world.aws.unsubscribe_mail(&topic, address, listed);
            left.await.unwrap();
            let mark = world.aws.mark();
            let gone = state(&tenant, address, SubscriptionState::Gone).await;
            let polls = Look::topic(&topic, 0).polls(&tenant, mark, Timestamp::now());
            assert!(polls <= POLLS, "{address}: told after {polls} polls");
            let told = gone.condition("DeliveryReady").unwrap();
            let verdict = (told.status.as_str(), told.reason.as_str());
            assert_eq!(verdict, ("False", "SubscriptionGone"), "{address}");
            let whom = format!("{address} (critical)");
            assert!(told.message.contains(&whom), "{told:?}");
            assert!(gone.holds("Ready"), "{address}");
            tenant
                .until::<TenantObservability>(namespace, "degraded", |tenant| {
                    health(tenant) == Some(Health::Degraded)
                })
                .await;
        }
        let looks = async |times| {
            Look::topic(&topic, 0)
                .times(&tenant, world.aws.mark(), times)
                .await
        };
        looks(2).await;
        first.stop(Duration::from_secs(10)).await.unwrap();
        let _second = operator(&tenant, &[]).await;
        looks(2).await;
        let mut edited = with_mail(&tenant, &[one, two]);
        edited["environments"] = json!([{"name": "prod", "deploymentId": "app-prod"}]);
        tenant.tenant(edited).await;
        tenant
            .ready::<TenantObservability>(namespace, "Applied")
            .await;
        tenant
            .annotate::<TenantObservability>(namespace, REQUESTED, "look")
            .await;
        looks(3).await;
        assert_eq!(invited(&tenant), 2);
        assert!(
            subscriptions(&tenant, &topic)
                .await
                .values()
                .all(|arn| arn == "Deleted")
        );

        // A person wants one of them back.
        tenant.tenant(with_mail(&tenant, &[two])).await;
        tenant
            .until::<TenantObservability>(namespace, "one less", |tenant| {
                tenant.status.as_ref().unwrap().subscriptions.len() == 1
            })
            .await;
        tenant.tenant(with_mail(&tenant, &[one, two])).await;
        state(&tenant, one, SubscriptionState::Pending).await;
        world.aws.confirm_mail(&topic, one).await.unwrap();
        state(&tenant, one, SubscriptionState::Confirmed).await;
        let back = state(&tenant, two, SubscriptionState::Gone).await;
        assert_eq!(
            back.condition("DeliveryReady").unwrap().reason,
            "SubscriptionGone"
        );
        assert_eq!(invited(&tenant), 3);
    });
}

#[test]
fn a_topic_that_cannot_be_made_again_at_once_loses_no_reader() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-no-topic").await;
        let (oncall, namespace) = ("oncall@vsu.example", &tenant.namespace);
        tenant.tenant(with_mail(&tenant, &[oncall])).await;
        let _operator = operator(&tenant, &[]).await;
        delivery(&tenant, "PendingConfirmation").await;
        let topic = critical_topic(&tenant).await;
        world.aws.confirm_mail(&topic, oncall).await.unwrap();
        delivery(&tenant, "Delivering").await;
        world.aws.deny(&tenant.account, "CreateTopic");
        let delete = tenant.sns().delete_topic().topic_arn(&topic);
        delete.send().await.unwrap();
        let mark = world.aws.mark();
        let denied = "AccessDenied";
        let message = tenant.ready::<TenantObservability>(namespace, denied).await;
        assert!(message.contains("Allow sns:CreateTopic to"), "{message}");
        let (at, _) = told::<TenantObservability>(&tenant, namespace, denied, 0).await;
        let polls = Look::topic(&topic, 1).polls(&tenant, mark, at);
        assert!(polls <= POLLS, "told after {polls} polls");
        delivery(&tenant, "TopicMissing").await;
        Look::topic(&topic, 0).times(&tenant, mark, 4).await;
        // Nobody has left: there was nothing to hear.
        state(&tenant, oncall, SubscriptionState::Creating).await;
        assert_eq!(invited(&tenant), 1);
        world.aws.allow(&tenant.account, "CreateTopic");
        tenant
            .annotate::<TenantObservability>(namespace, REQUESTED, "mended")
            .await;
        tenant
            .ready::<TenantObservability>(namespace, "Applied")
            .await;
        state(&tenant, oncall, SubscriptionState::Pending).await;
        Look::topic(&topic, 0)
            .times(&tenant, world.aws.mark(), 2)
            .await;
        assert_eq!(invited(&tenant), 2, "once more");
    });
}

#[test]
fn topics_of_somebodys_own_hear_the_alarms_and_are_never_touched() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-topics").await;
        let (sns, namespace) = (tenant.sns(), &tenant.namespace);
        let create = async |name: &str| {
            let created = sns.create_topic().name(name).send().await.unwrap();
            created.topic_arn.unwrap()
        };
        let there = create("pager").await;
        let subscribe = sns.subscribe().topic_arn(&there).protocol("email");
        subscribe
            .endpoint("somebody@vsu.example")
            .send()
            .await
            .unwrap();
        let declared = policy(&tenant, &there).await;
        let absent = there.replace(":pager", ":absent");
        let with = |topics: &[&String]| {
            let mut spec = tenant.usual_spec();
            spec["notify"]["critical"] = json!({"topicArns": topics});
            spec
        };
        tenant.tenant(with(&[&there, &absent])).await;
        tenant.set("golden", json!(["prod"]), two_alarms()).await;
        let _operator = operator(&tenant, &[]).await;
        let missing = delivery(&tenant, "TopicMissing").await;
        let told = missing.condition("DeliveryReady").unwrap();
        assert!(
            told.message.contains(&absent) && !told.message.contains(&there),
            "{told:?}"
        );
        assert!(
            missing.holds("Ready"),
            "the tenant's own things are in place"
        );
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let ours = critical_topic(&tenant).await;
        let name = tenant.name(Severity::Critical, "golden", "errors", Some("prod"));
        let heard = async |wanted: &[&String]| {
            let mut wanted: Vec<_> = wanted.iter().map(|arn| (*arn).clone()).collect();
            wanted.sort();
            let wanted = &wanted;
            eventually("the topics that hear it", || async {
                let alarm = tenant.alarms().await.remove(&name).unwrap();
                let sorted = |arns: &[String]| {
                    let mut arns = arns.to_vec();
                    arns.sort();
                    arns
                };
                let (alarms, oks) = (sorted(alarm.alarm_actions()), sorted(alarm.ok_actions()));
                if alarms == *wanted && oks == *wanted {
                    Ok(())
                } else {
                    Err(format!("{alarms:?} {oks:?}"))
                }
            })
            .await;
        };
        heard(&[&ours, &there, &absent]).await;

        // It comes, and goes again.
        assert_eq!(create("absent").await, absent);
        let mark = world.aws.mark();
        delivery(&tenant, "Delivering").await;
        let polls = Look::topic(&absent, 0).polls(&tenant, mark, Timestamp::now());
        assert!(polls <= POLLS, "told after {polls} polls");
        sns.delete_topic().topic_arn(&there).send().await.unwrap();
        let mark = world.aws.mark();
        let missing = delivery(&tenant, "TopicMissing").await;
        let polls = Look::topic(&there, 0).polls(&tenant, mark, Timestamp::now());
        assert!(polls <= POLLS, "told after {polls} polls");
        let told = missing.condition("DeliveryReady").unwrap();
        assert!(told.message.contains(&there), "{told:?}");
        heard(&[&ours, &there, &absent]).await;
        create("pager").await;
        subscriptions(&tenant, &there).await;
        delivery(&tenant, "Delivering").await;

        // One is taken out; then all goes.
        tenant.tenant(with(&[&there])).await;
        heard(&[&ours, &there]).await;
        tenant.delete::<AlarmSet>("golden").await;
        tenant.gone::<AlarmSet>("golden").await;
        tenant.delete::<TenantObservability>(namespace).await;
        tenant.gone::<TenantObservability>(namespace).await;
        let mut left = tenant.topics().await;
        left.sort();
        assert_eq!(left, [absent.clone(), there.clone()]);
        assert_eq!(policy(&tenant, &there).await, declared);
        let written = world.aws.calls().into_iter().filter(|call| {
            call.write && (call.resource.starts_with(&there) || call.resource.starts_with(&absent))
        });
        assert_eq!(written.count(), 0, "no write to a topic of somebody's own");
    });
}

#[test]
fn a_severity_that_loses_its_last_reader_keeps_its_topic() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-null").await;
        let (oncall, by_hand) = ("oncall@vsu.example", "by-hand@vsu.example");
        let namespace = &tenant.namespace;
        tenant.tenant(with_mail(&tenant, &[oncall])).await;
        tenant.set("golden", json!(["prod"]), two_alarms()).await;
        let first = operator(&tenant, &[]).await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        delivery(&tenant, "PendingConfirmation").await;
        let topic = critical_topic(&tenant).await;
        let subscribe = tenant.sns().subscribe().topic_arn(&topic);
        let subscribe = subscribe.protocol("email").endpoint(by_hand);
        subscribe.send().await.unwrap();
        for address in [oncall, by_hand] {
            world.aws.confirm_mail(&topic, address).await.unwrap();
        }
        delivery(&tenant, "Delivering").await;
        let name = tenant.name(Severity::Critical, "golden", "errors", Some("prod"));
        let right = tenant.alarms().await.remove(&name).unwrap();

        let mark = world.aws.mark();
        tenant.usual_tenant().await;
        let args = ["-n", namespace, "get", "tobs", namespace, "-o", "json"];
        let stored = world.kubernetes.kubectl(args).await.unwrap();
        let stored: Value = serde_json::from_str(&stored.success().unwrap()).unwrap();
        let notify = stored["spec"]["notify"].as_object().unwrap();
        // Either is "listed, with nobody"; server-side apply stores the former for what was applied as the latter.
        assert!(
            notify["critical"].is_null() || notify["critical"] == json!({}),
            "{notify:?}"
        );
        tenant
            .ready::<TenantObservability>(namespace, "Applied")
            .await;
        eventually("only the one made by hand", || async {
            let all = subscriptions(&tenant, &topic).await;
            if all.keys().eq([by_hand]) {
                Ok(())
            } else {
                Err(format!("{all:?}"))
            }
        })
        .await;
        Look::topic(&topic, 0).times(&tenant, mark, 3).await;
        first.stop(Duration::from_secs(10)).await.unwrap();
        let _second = operator(&tenant, &[]).await;
        tenant.polls(world.aws.mark(), 3).await;
        let writes = tenant.writes_since(mark);
        let [(operation, about)] = &writes[..] else {
            panic!("one write: {writes:?}")
        };
        assert_eq!(operation, "Unsubscribe");
        assert!(about.starts_with(&topic), "{about}");
        is_as_before(&tenant, "nobody hears it", &right).await;
        let status = tenant.api::<TenantObservability>().get(namespace).await;
        assert_eq!(status.unwrap().status.unwrap().topics.len(), 2);
    });
}
