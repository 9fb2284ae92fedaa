//! The world's AWS and PagerDuty, seen through the real SDK.

#![allow(
    clippy::unwrap_used,
    reason = "clippy lets only the test functions themselves unwrap"
)]

mod alarm_events;
mod alarms;
mod deliveries;
mod destinations;
mod firing;
mod pages;
mod path;
mod rates;
mod receiver;
mod roles;
mod rules;
mod topics;
mod troubles;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_cloudwatch::config::{Credentials, SharedCredentialsProvider};
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{
    ComparisonOperator, Dimension, MetricAlarm, MetricDatum, StateValue, Statistic,
};
use campanile_world::aws::Aws;
use campanile_world::install;
use tokio::sync::OnceCell;

const REGION: &str = "us-east-2";
const KEY: &str = "0123456789abcdef0123456789abcdef";
const LIMIT: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_secs(60);

/// One AWS for all tests, each of which has accounts of its own.
async fn aws() -> &'static Aws {
    static AWS: OnceCell<Aws> = OnceCell::const_new();
    AWS.get_or_init(|| async { Aws::start(&run_dir("shared")).await.unwrap() })
        .await
}

fn run_dir(name: &str) -> PathBuf {
    install::directory()
        .join("test")
        .join(format!("aws-{name}-{}", std::process::id()))
}

/// A client that is not one of the world's own, as the operator under test is.
fn client_config(aws: &Aws, key: &str, token: Option<&str>) -> SdkConfig {
    let credentials = Credentials::new(key, "any", token.map(str::to_owned), None, "test");
    let time_limits = TimeoutConfig::builder()
        .operation_timeout(Duration::from_secs(10))
        .build();
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .region(Region::new(REGION))
        .endpoint_url(aws.endpoint())
        .retry_config(aws_config::retry::RetryConfig::disabled())
        .timeout_config(time_limits)
        .build()
}

type Put = aws_sdk_cloudwatch::operation::put_metric_alarm::builders::PutMetricAlarmFluentBuilder;

fn put(client: &aws_sdk_cloudwatch::Client, name: &str) -> Put {
    client
        .put_metric_alarm()
        .alarm_name(name)
        .namespace("CampusCore")
        .metric_name("errors")
        .statistic(Statistic::Sum)
        .period(60)
        .evaluation_periods(1)
        .comparison_operator(ComparisonOperator::GreaterThanThreshold)
        .threshold(5.0)
}

fn dimension(value: &str) -> Dimension {
    Dimension::builder()
        .name("DeploymentId")
        .value(value)
        .build()
}

async fn emit(
    client: &aws_sdk_cloudwatch::Client,
    metric: &str,
    deployment: &str,
    value: f64,
    at: SystemTime,
) {
    let datum = MetricDatum::builder()
        .metric_name(metric)
        .dimensions(dimension(deployment))
        .value(value)
        .timestamp(DateTime::from(at))
        .build();
    client
        .put_metric_data()
        .namespace("CampusCore")
        .metric_data(datum)
        .send()
        .await
        .unwrap();
}

async fn alarms(client: &aws_sdk_cloudwatch::Client) -> Vec<MetricAlarm> {
    client
        .describe_alarms()
        .send()
        .await
        .unwrap()
        .metric_alarms
        .unwrap_or_default()
}

async fn state(client: &aws_sdk_cloudwatch::Client, name: &str) -> StateValue {
    alarms(client)
        .await
        .into_iter()
        .find(|alarm| alarm.alarm_name() == Some(name))
        .unwrap()
        .state_value
        .unwrap()
}

async fn topic(sns: &aws_sdk_sns::Client, name: &str) -> String {
    sns.create_topic()
        .name(name)
        .send()
        .await
        .unwrap()
        .topic_arn
        .unwrap()
}

#[tokio::test]
async fn two_of_them_stand_side_by_side() {
    let other = Aws::start(&run_dir("other")).await.unwrap();
    put(&other.cloudwatch("100000000017", REGION), "a")
        .send()
        .await
        .unwrap();
    assert!(
        alarms(&aws().await.cloudwatch("100000000017", REGION))
            .await
            .is_empty()
    );
}
