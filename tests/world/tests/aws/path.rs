//! The way from an alarm to an HTTP endpoint, and how the tests build it.

use aws_sdk_eventbridge::Client;
use aws_sdk_eventbridge::types::{
    ApiDestinationHttpMethod, ConnectionAuthorizationType,
    CreateConnectionApiKeyAuthRequestParameters, CreateConnectionAuthRequestParameters,
    InputTransformer, RetryPolicy, Target, builders::TargetBuilder,
};
use campanile_world::aws::{Aws, Delivery, Outcome};

use crate::{LIMIT, REGION};

/// Everything of one account, by the world's own clients.
pub struct Path {
    pub aws: &'static Aws,
    pub account: &'static str,
    pub events: Client,
    pub role: String,
}

impl Path {
    pub async fn new(account: &'static str) -> Self {
        let aws = crate::aws().await;
        Self {
            aws,
            account,
            events: aws.eventbridge(account, REGION),
            role: aws.events_role(account).await.unwrap(),
        }
    }

    /// A connection that sends `Authorization: <value>`; its ARN.
    pub async fn connection(&self, name: &str, value: &str) -> String {
        let create = self
            .events
            .create_connection()
            .name(name)
            .authorization_type(ConnectionAuthorizationType::ApiKey)
            .auth_parameters(api_key("Authorization", value));
        create.send().await.unwrap().connection_arn.unwrap()
    }

    /// A destination with a connection of its own; its ARN.
    pub async fn destination(&self, name: &str, url: &str, rate: Option<i32>) -> String {
        let connection = self.connection(name, "Bearer key").await;
        let create = self
            .events
            .create_api_destination()
            .name(name)
            .connection_arn(connection)
            .invocation_endpoint(url)
            .http_method(ApiDestinationHttpMethod::Post)
            .set_invocation_rate_limit_per_second(rate);
        create.send().await.unwrap().api_destination_arn.unwrap()
    }

    pub async fn rule(&self, name: &str, pattern: serde_json::Value) {
        let put = self.events.put_rule().name(name);
        put.event_pattern(pattern.to_string()).send().await.unwrap();
    }

    /// A target with the account's role.
    pub fn target(&self, id: &str, destination: &str) -> TargetBuilder {
        Target::builder()
            .id(id)
            .arn(destination)
            .role_arn(&self.role)
    }

    /// Puts a target that must be taken.
    pub async fn put(&self, rule: &str, target: TargetBuilder) {
        let put = self.events.put_targets().rule(rule);
        let answer = put.targets(target.build().unwrap()).send().await.unwrap();
        assert_eq!(answer.failed_entry_count, 0, "{answer:?}");
    }

    /// A rule for every alarm with that prefix that leads to `url`, at 300 a second; the destination's ARN.
    pub async fn whole(&self, name: &str, prefix: &str, url: &str) -> String {
        let destination = self.destination(name, url, None).await;
        self.rule(name, of_alarms(prefix)).await;
        self.put(name, self.target("t", &destination)).await;
        destination
    }

    pub async fn deliveries(&self) -> Vec<Delivery> {
        self.aws.deliveries(self.account).await.unwrap()
    }

    /// Waits until nothing is under way and `count` events have met a rule; all deliveries.
    pub async fn settled(&self, count: usize) -> Vec<Delivery> {
        let settled = async {
            loop {
                let deliveries = self.deliveries().await;
                let pending = |delivery: &Delivery| delivery.outcome == Outcome::Pending;
                if deliveries.len() >= count && !deliveries.iter().any(pending) {
                    return deliveries;
                }
                tokio::task::yield_now().await;
            }
        };
        match tokio::time::timeout(3 * LIMIT, settled).await {
            Ok(deliveries) => deliveries,
            Err(_) => panic!("not settled: {:#?}", self.deliveries().await),
        }
    }
}

pub fn api_key(name: &str, value: &str) -> CreateConnectionAuthRequestParameters {
    let key = CreateConnectionApiKeyAuthRequestParameters::builder()
        .api_key_name(name)
        .api_key_value(value)
        .build()
        .unwrap();
    CreateConnectionAuthRequestParameters::builder()
        .api_key_auth_parameters(key)
        .build()
}

pub fn of_alarms(prefix: &str) -> serde_json::Value {
    serde_json::json!({
        "source": ["aws.cloudwatch"],
        "detail-type": ["CloudWatch Alarm State Change"],
        "detail": {"alarmName": [{"prefix": prefix}]},
    })
}

pub fn transformer(paths: &[(&str, &str)], template: &str) -> InputTransformer {
    let mut transformer = InputTransformer::builder().input_template(template);
    for (name, path) in paths {
        transformer = transformer.input_paths_map(*name, *path);
    }
    transformer.build().unwrap()
}

pub fn retries(attempts: i32, age: i32) -> RetryPolicy {
    RetryPolicy::builder()
        .maximum_retry_attempts(attempts)
        .maximum_event_age_in_seconds(age)
        .build()
}
