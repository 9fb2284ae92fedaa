//! Whose a thing is: what is not ours is left alone, whatever it looks like; what becomes ours, what is
//! let go of, and what is not even looked at.
//!
//! Here is what somebody makes by hand, and what is known of it.

mod adopted;
mod let_go;
mod others;
mod suspended;

use crate::support::{
    CLUSTER, Conditions, REGION, Tenant, about, alarm, errors, eventually, once, plan, test, with,
};
use campanile::{
    api::{AlarmSet, Severity, TenantObservability},
    kinds::{
        mark::{self, Cluster, Mark},
        names,
    },
};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

pub use crate::support::kstatus;

/// The mark of an object of a tenant's namespace.
async fn mark_of(tenant: &Tenant, kind: &str, name: &str) -> String {
    let namespaces = Api::<Namespace>::all(tenant.client.clone());
    let uid = namespaces.get("kube-system").await.unwrap().uid().unwrap();
    let cluster = Cluster {
        name: CLUSTER.into(),
        uid: uid.chars().take(8).collect(),
    };
    Mark::of(&cluster, kind, &tenant.namespace, name).to_string()
}

/// An alarm that somebody makes by hand; the tag says what the last line of its description says.
async fn put_alarm(tenant: &Tenant, name: &str, description: &str) {
    use aws_sdk_cloudwatch::types::{ComparisonOperator, Statistic, Tag};
    let owner = description.lines().last().unwrap_or_default();
    let put = tenant.cloudwatch().put_metric_alarm().alarm_name(name);
    let put = put
        .alarm_description(description)
        .namespace("App")
        .metric_name("by.hand")
        .statistic(Statistic::Maximum)
        .period(120)
        .evaluation_periods(2)
        .comparison_operator(ComparisonOperator::LessThanThreshold)
        .threshold(3.5)
        .tags(Tag::builder().key("team").value("somebody").build());
    let put = match Mark::parse(owner) {
        Some(mark) => {
            let tag = Tag::builder().key(mark::TAG).value(mark.as_str());
            put.tags(tag.build())
        }
        None => put,
    };
    put.send().await.unwrap();
}

/// All that CloudWatch says of an alarm, but for what it is doing: that is nobody's choice.
async fn alarm_as_it_is(tenant: &Tenant, name: &str) -> String {
    let mut alarms = tenant.alarms().await;
    let Some(mut alarm) = alarms.remove(name) else {
        panic!("{name} is gone: {:?}", alarms.keys())
    };
    (alarm.state_value, alarm.evaluation_state) = (None, None);
    (alarm.state_reason, alarm.state_reason_data) = (None, None);
    alarm.state_updated_timestamp = None;
    alarm.state_transitioned_timestamp = None;
    let tags = alarm_tags(tenant, name).await;
    format!("{alarm:?} {tags:?}")
}

async fn alarm_tags(tenant: &Tenant, name: &str) -> BTreeMap<String, String> {
    let arn = names::alarm_arn(REGION, &tenant.account, name);
    let list = tenant.cloudwatch().list_tags_for_resource();
    let tags = list.resource_arn(arn).send().await.unwrap();
    let pair = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let tags = tags.tags().iter();
    tags.map(|tag| (pair(tag.key()), pair(tag.value())))
        .collect()
}

/// A topic that somebody makes by hand, with a reader of its own, and its ARN.
async fn make_topic(tenant: &Tenant, name: &str, owner: Option<&str>) -> String {
    use aws_sdk_sns::types::Tag;
    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build().unwrap();
    let sns = tenant.sns();
    let make = sns.create_topic().name(name).tags(tag("team", "somebody"));
    let make = match owner {
        Some(owner) => make.tags(tag(mark::TAG, owner)),
        None => make,
    };
    let made = make.attributes("DisplayName", "by hand").send().await;
    let arn = made.unwrap().topic_arn.unwrap();
    let subscribe = sns.subscribe().topic_arn(&arn).protocol("email");
    let reader = "reader@somebody.example";
    subscribe.endpoint(reader).send().await.unwrap();
    arn
}

/// All that SNS says of a topic.
async fn topic_as_it_is(tenant: &Tenant, arn: &str) -> String {
    let sns = tenant.sns();
    let attributes = sns.get_topic_attributes().topic_arn(arn).send().await;
    let attributes = attributes.unwrap().attributes.unwrap_or_default();
    let attributes: BTreeMap<_, _> = attributes.into_iter().collect();
    let tags = topic_tags(tenant, arn).await;
    let readers = tenant.subscriptions_to(arn).await;
    let readers: BTreeSet<_> = readers.iter().map(|reader| format!("{reader:?}")).collect();
    format!("{attributes:?} {tags:?} {readers:?}")
}

/// The tags of a topic, but for that which lists its subscriptions.
async fn topic_tags(tenant: &Tenant, arn: &str) -> BTreeMap<String, String> {
    let list = tenant.sns().list_tags_for_resource().resource_arn(arn);
    let tags = list.send().await.unwrap().tags.unwrap_or_default();
    let others = tags.into_iter();
    let others = others.filter(|tag| tag.key != "campanile.dev/subscriptions");
    others.map(|tag| (tag.key, tag.value)).collect()
}

/// The name and the ARN of a tenant's topic.
fn topic(tenant: &Tenant, name: &str, severity: Severity) -> (String, String) {
    let topic = names::topic(CLUSTER, &tenant.namespace, name, severity);
    let arn = names::topic_arn(REGION, &tenant.account, &topic);
    (topic, arn)
}

/// A set of this tenant with these alarms, and more fields.
fn set_spec(tenant: &str, alarms: Value, more: Value) -> Value {
    let spec = json!({"tenantRef": {"name": tenant}, "alarms": alarms});
    with(spec, more)
}
