//! A page of alarms. The SDK reads all of it or nothing; one alarm that it cannot read must not hide the others.

use super::reading::Reads;
use crate::engine::error::Result;
use aws_config::{BehaviorVersion, Region, retry::RetryConfig};
use aws_sdk_cloudwatch::{
    Client, Config,
    config::Credentials,
    error::{ProvideErrorMetadata as _, SdkError},
    operation::describe_alarms::{
        DescribeAlarmsError, DescribeAlarmsOutput, builders::DescribeAlarmsFluentBuilder,
    },
    types::{CompositeAlarm, MetricAlarm},
};
use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use ciborium::Value;

/// The call, as IAM spells it.
pub const DESCRIBE_ALARMS: &str = "cloudwatch:DescribeAlarms";

/// The lists of a page that are read.
const LISTS: [&str; 2] = ["MetricAlarms", "CompositeAlarms"];

/// A page of alarms.
#[derive(Debug, Default)]
pub struct AlarmPage {
    /// On one metric, or an expression.
    pub metric: Vec<MetricAlarm>,
    /// On other alarms.
    pub composite: Vec<CompositeAlarm>,
    /// The names of those that are there and cannot be read.
    pub unreadable: Vec<String>,
    /// Where the next one begins.
    pub next_token: Option<String>,
}

impl AlarmPage {
    fn add(&mut self, read: DescribeAlarmsOutput) {
        self.metric.extend(read.metric_alarms.unwrap_or_default());
        let composite = read.composite_alarms.unwrap_or_default();
        self.composite.extend(composite);
        self.next_token = read.next_token.or(self.next_token.take());
    }
}

impl Reads<'_> {
    /// One page, alarm by alarm where the SDK cannot read all of it.
    pub async fn alarm_page(&self, request: DescribeAlarmsFluentBuilder) -> Result<AlarmPage> {
        let mut body = None;
        let call = async {
            let answer = request.send().await;
            body = answer.as_ref().err().and_then(undecodable);
            answer
        };
        let mut page = AlarmPage::default();
        match self.list(DESCRIBE_ALARMS, call).await {
            Ok(read) => page.add(read),
            Err(error) => match body.as_deref().and_then(Parts::of) {
                Some(parts) => parts.read(&mut page).await,
                None => return Err(error),
            },
        }
        Ok(page)
    }
}

/// The body of an answer that says that all is well, and that the SDK cannot read.
fn undecodable(error: &SdkError<DescribeAlarmsError, HttpResponse>) -> Option<Vec<u8>> {
    let SdkError::ServiceError(answer) = error else {
        return None;
    };
    let is_good = answer.raw().status().is_success() && answer.err().code().is_none();
    let body = answer.raw().body().bytes()?;
    is_good.then(|| body.to_vec())
}

/// An alarm as it came: the list that it is in, its name, and all of it.
type Part = (&'static str, String, Value);

/// A page, taken apart.
struct Parts {
    alarms: Vec<Part>,
    next_token: Option<String>,
}

impl Parts {
    /// `None` where that cannot be told either.
    fn of(body: &[u8]) -> Option<Self> {
        let page: Value = ciborium::from_reader(body).ok()?;
        let page = page.into_map().ok()?;
        let mut parts = Self {
            alarms: Vec::new(),
            next_token: None,
        };
        for (key, value) in page {
            let key = key.as_text()?;
            if key == "NextToken" && !value.is_null() {
                parts.next_token = Some(value.into_text().ok()?);
            } else if let Some(list) = LISTS.into_iter().find(|list| *list == key) {
                for alarm in value.into_array().ok()? {
                    let name = name(&alarm)?;
                    parts.alarms.push((list, name, alarm));
                }
            }
        }
        Some(parts)
    }

    /// Halves what cannot be read until it is one alarm.
    async fn read(self, page: &mut AlarmPage) {
        page.next_token = self.next_token;
        let mut halves = vec![&*self.alarms];
        while let Some(alarms) = halves.pop() {
            match (decode(alarms).await, alarms) {
                (Some(read), _) => page.add(read),
                (None, [(_, name, _)]) => page.unreadable.push(name.clone()),
                (None, alarms) => {
                    let (left, right) = alarms.split_at(alarms.len() / 2);
                    halves.extend([left, right].into_iter().filter(|half| !half.is_empty()));
                }
            }
        }
    }
}

fn name(alarm: &Value) -> Option<String> {
    let mut fields = alarm.as_map()?.iter();
    let name = fields.find(|(key, _)| key.as_text() == Some("AlarmName"));
    Some(name?.1.as_text()?.to_owned())
}

/// What the SDK makes of an answer with these alarms; `None` if it cannot read it. Nothing is asked of AWS.
async fn decode(alarms: &[Part]) -> Option<DescribeAlarmsOutput> {
    let list = |of: &str| {
        let alarms = alarms.iter().filter(|(list, ..)| *list == of);
        Value::Array(alarms.map(|(.., alarm)| alarm.clone()).collect())
    };
    let page = LISTS.map(|name| (Value::from(name), list(name)));
    let mut body = Vec::new();
    ciborium::into_writer(&Value::Map(page.into()), &mut body).ok()?;
    let connector = SharedHttpConnector::new(Replay(body));
    let config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new("none", "none", None, None, "replay"))
        .retry_config(RetryConfig::disabled())
        .http_client(http_client_fn(move |_, _| connector.clone()));
    let read = Client::from_conf(config.build()).describe_alarms().send();
    read.await.ok()
}

/// Answers with what has come already.
#[derive(Clone, Debug)]
struct Replay(Vec<u8>);

impl HttpConnector for Replay {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let body = SdkBody::from(self.0.clone());
        let answer = StatusCode::try_from(200).map(|ok| HttpResponse::new(ok, body));
        let answer = answer.map_err(|error| ConnectorError::other(error.into(), None));
        HttpConnectorFuture::ready(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    async fn page(page: Json) -> Option<AlarmPage> {
        let mut body = Vec::new();
        ciborium::into_writer(&page, &mut body).unwrap();
        let mut read = AlarmPage::default();
        Parts::of(&body)?.read(&mut read).await;
        Some(read)
    }

    #[tokio::test]
    async fn what_cannot_be_read_hides_nothing_else() {
        let alarm = |name: &str, period: Json| json!({"AlarmName": name, "Period": period});
        for bad in [
            vec![],
            vec![0],
            vec![3],
            vec![6],
            vec![1, 2, 5],
            (0..7).collect(),
        ] {
            let period = |at: &usize| match bad.contains(at) {
                true => json!("a minute"),
                false => json!(60),
            };
            let metric = (0..7).map(|at| alarm(&format!("a{at}"), period(&at)));
            let metric: Vec<_> = metric.collect();
            let composite = [
                json!({"AlarmName": "c", "AlarmRule": 1}),
                json!({"AlarmName": "d"}),
            ];
            let read = page(
                json!({"MetricAlarms": metric, "LogAlarms": [1], "NextToken": "2", "CompositeAlarms": composite}),
            );
            let read = read.await.unwrap();
            let names = read.metric.iter().filter_map(|alarm| alarm.alarm_name());
            let mut all: Vec<_> = names.map(str::to_owned).collect();
            assert_eq!(all.len(), 7 - bad.len());
            assert_eq!(read.composite.len(), 1);
            assert_eq!(read.unreadable.len(), bad.len() + 1);
            all.extend(read.unreadable);
            all.sort();
            assert_eq!(all, ["a0", "a1", "a2", "a3", "a4", "a5", "a6", "c"]);
            assert_eq!(read.next_token.as_deref(), Some("2"));
        }
    }

    #[tokio::test]
    async fn what_is_no_page_is_not_read_at_all() {
        for other in [
            json!("MetricAlarms"),
            json!({"MetricAlarms": 1}),
            json!({"MetricAlarms": [{"Period": 1}]}),
            json!({"MetricAlarms": [], "NextToken": 1}),
        ] {
            assert!(page(other.clone()).await.is_none(), "{other}");
        }
    }
}
