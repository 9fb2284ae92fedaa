//! What is in a tenant's account, and who asked for it.

use super::{CLUSTER, REGION, Tenant, at_least, errors};
use aws_sdk_sns::types::Subscription;
use campanile::api::{AlarmSet, Severity, TenantObservability};
use campanile_world::{
    World,
    aws::{Call, Mark, Trust},
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

impl Tenant {
    /// CloudWatch in the account, as somebody who may do anything there.
    pub fn cloudwatch(&self) -> aws_sdk_cloudwatch::Client {
        self.world.aws.cloudwatch(&self.account, REGION)
    }

    /// SNS in the account, likewise.
    pub fn sns(&self) -> aws_sdk_sns::Client {
        self.world.aws.sns(&self.account, REGION)
    }

    /// The alarms of the account, by name.
    pub async fn alarms(&self) -> BTreeMap<String, aws_sdk_cloudwatch::types::MetricAlarm> {
        let mut pages = self.cloudwatch().describe_alarms().into_paginator().send();
        let mut all = BTreeMap::new();
        while let Some(page) = pages.next().await {
            for alarm in page.unwrap().metric_alarms() {
                all.insert(alarm.alarm_name().unwrap().to_owned(), alarm.clone());
            }
        }
        all
    }

    /// Their names alone.
    pub async fn alarm_names(&self) -> Vec<String> {
        self.alarms().await.into_keys().collect()
    }

    /// The ARNs of the account's topics.
    pub async fn topics(&self) -> Vec<String> {
        let listed = self.sns().list_topics().send().await.unwrap();
        listed
            .topics()
            .iter()
            .map(|topic| topic.topic_arn().unwrap().to_owned())
            .collect()
    }

    /// How many alarms and how many topics are in the account.
    pub async fn alarms_and_topics(&self) -> (usize, usize) {
        (self.alarms().await.len(), self.topics().await.len())
    }

    /// The subscriptions to the account's topics.
    pub async fn subscriptions(&self) -> Vec<Subscription> {
        let listed = self.sns().list_subscriptions().send().await.unwrap();
        listed.subscriptions.unwrap_or_default()
    }

    /// The subscriptions to one topic.
    pub async fn subscriptions_to(&self, topic: &str) -> Vec<Subscription> {
        let sns = self.sns();
        let listed = sns.list_subscriptions_by_topic().topic_arn(topic).send();
        listed.await.unwrap().subscriptions.unwrap_or_default()
    }

    /// The endpoints that are subscribed to a topic.
    pub async fn endpoints(&self, topic: &str) -> BTreeSet<String> {
        let all = self.subscriptions_to(topic).await.into_iter();
        all.map(|one| one.endpoint.unwrap()).collect()
    }

    /// The name of an alarm in CloudWatch.
    pub fn name(
        &self,
        severity: Severity,
        set: &str,
        alarm: &str,
        environment: Option<&str>,
    ) -> String {
        campanile::kinds::names::alarm(CLUSTER, &self.namespace, severity, set, alarm, environment)
    }

    /// Another tenant of the same namespace, in an account that works, whose alarm is there whatever
    /// becomes of this one.
    pub async fn neighbour_works(&self) {
        let account = format!("8{}", &self.account[1..]);
        let role = format!("arn:aws:iam::{account}:role/campanile");
        self.world.aws.role(
            &role,
            Trust::external_id(format!("{CLUSTER}/{}", self.namespace)),
        );
        let spec = json!({"aws": {"accountId": account, "region": REGION}});
        self.apply::<TenantObservability>("neighbour", spec).await;
        let spec = json!({"tenantRef": {"name": "neighbour"}, "alarms": errors()});
        self.apply::<AlarmSet>("neighbour", spec).await;
        self.ready::<AlarmSet>("neighbour", "Applied").await;
        let cloudwatch = self.world.aws.cloudwatch(&account, REGION);
        let described = cloudwatch.describe_alarms().send().await.unwrap();
        let there = described.metric_alarms().len();
        assert_eq!(there, 1, "the other alarms are there");
    }

    /// The operator's writes to this account since `mark`: operation and what it was about.
    pub fn writes_since(&self, mark: Mark) -> Vec<(String, String)> {
        let calls = self.world.aws.calls_since(mark).into_iter();
        let ours = calls.filter(|call| call.account == self.account && call.write);
        ours.map(|call| (call.operation, call.resource)).collect()
    }

    /// Waits until the alarms have been looked at so often since `mark`.
    pub async fn polls(&self, mark: Mark, times: usize) {
        at_least(&format!("{times} polls"), times, || {
            self.asked_since(mark, "DescribeAlarms")
        })
        .await;
    }

    /// How often this has been asked of the account since `mark`.
    pub fn asked_since(&self, mark: Mark, operation: &str) -> usize {
        self.world.aws.count_since(mark, |call| {
            call.account == self.account && call.operation == operation
        })
    }

    /// Data as the app would emit it: `value` in each of the last `minutes`.
    pub async fn emit(&self, metric: &str, deployment: &str, value: f64, minutes: i64) {
        use aws_sdk_cloudwatch::{
            primitives::DateTime,
            types::{Dimension, MetricDatum},
        };
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs() as i64;
        let dimension = Dimension::builder()
            .name("DeploymentId")
            .value(deployment)
            .build();
        let data = (0..minutes).map(|ago| {
            MetricDatum::builder()
                .metric_name(metric)
                .dimensions(dimension.clone())
                .timestamp(DateTime::from_secs(now - ago * 60))
                .value(value)
                .build()
        });
        let put = self
            .cloudwatch()
            .put_metric_data()
            .namespace("App")
            .set_metric_data(Some(data.collect()));
        put.send().await.unwrap();
    }
}

/// An alarm that somebody makes by hand.
pub async fn put_by_hand(cloudwatch: &aws_sdk_cloudwatch::Client, name: &str) {
    cloudwatch
        .put_metric_alarm()
        .alarm_name(name)
        .namespace("App")
        .metric_name("by.hand")
        .statistic(aws_sdk_cloudwatch::types::Statistic::Sum)
        .period(60)
        .evaluation_periods(1)
        .comparison_operator(aws_sdk_cloudwatch::types::ComparisonOperator::GreaterThanThreshold)
        .threshold(1.0)
        .send()
        .await
        .unwrap();
}

/// The calls that concern an account: made in it, or to get into it.
pub fn about(world: &World, since: Mark, account: &str) -> Vec<Call> {
    let calls = world.aws.calls_since(since).into_iter();
    let concerns = |call: &Call| call.account == account || call.resource.contains(account);
    calls.filter(concerns).collect()
}
