//! PagerDuty as CloudWatch sees it: an HTTPS endpoint per integration that confirms its SNS subscription by itself, keeps what
//! alarms say, and silently drops what does not look like an alarm. This one remembers what it dropped, and why.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Router, body::Bytes};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::server::{Port, Server};

/// A change of an alarm's state that PagerDuty accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notification {
    /// The integration it came in by.
    pub key: String,
    /// `ALARM: "name" in US East (Ohio)`.
    pub subject: String,
    /// The alarm's name.
    pub alarm_name: String,
    /// `ALARM`, `OK` or `INSUFFICIENT_DATA`.
    pub new_state: String,
    /// The state before.
    pub old_state: String,
    /// The alarm's account.
    pub account: String,
    /// The alarm's Region, `us-east-2`.
    pub region: String,
    /// The topic that delivered it.
    pub topic_arn: String,
    /// When it came.
    pub at: Timestamp,
}

/// A message that PagerDuty takes and forgets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// The integration it came in by.
    pub key: String,
    /// Why.
    pub reason: String,
    /// The message as it came.
    pub body: String,
    /// When it came.
    pub at: Timestamp,
}

/// An invitation to subscribe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Confirmation {
    /// The integration it came in by.
    pub key: String,
    /// The topic it is for.
    pub topic_arn: String,
    /// Whether it was taken: not while [`PagerDuty::confirm_subscriptions`] is off.
    pub confirmed: bool,
    /// When it came.
    pub at: Timestamp,
}

/// Everything that came.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Record {
    /// Accepted changes of state.
    pub received: Vec<Notification>,
    /// What was dropped.
    pub dropped: Vec<Dropped>,
    /// Invitations, several for one topic if it was subscribed again.
    pub confirmations: Vec<Confirmation>,
}

/// PagerDuty on loopback. Dropping it ends it.
pub struct PagerDuty {
    server: Server,
    shared: Arc<Shared>,
}

struct Shared {
    record: Mutex<Record>,
    changed: watch::Sender<usize>,
    confirms: Mutex<bool>,
    client: reqwest::Client,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope {
    topic_arn: String,
    subject: Option<String>,
    message: String,
    #[serde(rename = "SubscribeURL")]
    subscribe_url: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AlarmMessage {
    alarm_name: String,
    alarm_arn: String,
    #[serde(rename = "AWSAccountId")]
    account: String,
    new_state_value: String,
    old_state_value: String,
}

impl PagerDuty {
    /// Starts it on a free port of loopback.
    pub async fn start() -> Result<Self> {
        let shared = Arc::new(Shared {
            record: Mutex::default(),
            changed: watch::Sender::new(0),
            confirms: Mutex::new(true),
            client: reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .build()?,
        });
        let router = Router::new()
            .route("/integration/{key}/enqueue", post(enqueue))
            .route("/record", get(show))
            .with_state(Arc::clone(&shared));
        let server = Server::start("PagerDuty", Port::take()?, |listener| async {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "PagerDuty ended");
            }
        })?;
        Ok(Self { server, shared })
    }

    /// What `PAGERDUTY_EVENTS_URL` is set to; `/record` below it shows everything that came, as JSON.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Whether invitations to subscribe are followed, as they are unless this says otherwise.
    pub fn confirm_subscriptions(&self, confirms: bool) {
        *self
            .shared
            .confirms
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = confirms;
    }

    /// What integration `key` accepted, in the order in which it came.
    pub fn received(&self, key: &str) -> Vec<Notification> {
        self.shared
            .record()
            .received
            .iter()
            .filter(|notification| notification.key == key)
            .cloned()
            .collect()
    }

    /// What was dropped, with the reasons.
    pub fn dropped(&self) -> Vec<Dropped> {
        self.shared.record().dropped.clone()
    }

    /// The topics whose invitations integration `key` followed.
    pub fn confirmed(&self, key: &str) -> BTreeSet<String> {
        let record = self.shared.record();
        let confirmed = record
            .confirmations
            .iter()
            .filter(|invitation| invitation.key == key && invitation.confirmed);
        confirmed
            .map(|invitation| invitation.topic_arn.clone())
            .collect()
    }

    /// Everything that came.
    pub fn record(&self) -> Record {
        self.shared.record().clone()
    }

    /// Waits until `which` finds in the record what it looks for; fails, showing the record, when `limit` is over.
    pub async fn wait<T>(
        &self,
        limit: Duration,
        which: impl Fn(&Record) -> Option<T>,
    ) -> Result<T> {
        let mut changes = self.shared.changed.subscribe();
        let found = async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = which(&self.shared.record()) {
                    return found;
                }
                // The sender lives as long as we do.
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        match tokio::time::timeout(limit, found).await {
            Ok(found) => Ok(found),
            Err(_) => bail!(
                "PagerDuty did not get it within {limit:?}; what it got: {:#?}",
                self.record()
            ),
        }
    }

    /// Waits for the first notification to `key` that says that `alarm_name` is now in `state`.
    pub async fn wait_for(
        &self,
        key: &str,
        alarm_name: &str,
        state: &str,
        limit: Duration,
    ) -> Result<Notification> {
        self.wait(limit, |record| {
            let is_it = |each: &&Notification| {
                each.key == key && each.alarm_name == alarm_name && each.new_state == state
            };
            record.received.iter().find(is_it).cloned()
        })
        .await
    }
}

impl std::fmt::Debug for PagerDuty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PagerDuty")
            .field("url", &self.url())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, change: impl FnOnce(&mut Record)) {
        change(&mut self.record());
        self.changed.send_modify(|count| *count += 1);
    }

    async fn follow(&self, url: Option<&str>) -> Result<()> {
        let url = reqwest::Url::parse(url.context("no SubscribeURL")?)
            .context("the SubscribeURL is no URL")?;
        let loopback = url
            .host_str()
            .and_then(|host| host.parse::<Ipv4Addr>().ok())
            .is_some_and(|host| host.is_loopback());
        anyhow::ensure!(
            url.scheme() == "http" && loopback,
            "the SubscribeURL {url} does not stay on loopback"
        );
        self.client
            .get(url)
            .send()
            .await?
            .error_for_status()
            .context("the confirmation was refused")?;
        Ok(())
    }
}

async fn show(State(shared): State<Arc<Shared>>) -> Result<String, StatusCode> {
    let text = serde_json::to_string_pretty(&*shared.record())
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(text + "\n")
}

async fn enqueue(
    State(shared): State<Arc<Shared>>,
    Path(key): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    if key.len() != 32 || !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return (
            StatusCode::BAD_REQUEST,
            "an integration key has 32 letters and digits\n".to_owned(),
        );
    }
    let kind = headers
        .get("x-amz-sns-message-type")
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let body = String::from_utf8_lossy(&body).into_owned();
    let at = Timestamp::now();
    let taken = match serde_json::from_str::<Envelope>(&body) {
        Err(error) => Err(format!(
            "not an SNS message (raw message delivery has to be off): {error}"
        )),
        Ok(envelope) => match kind {
            "SubscriptionConfirmation" => {
                confirm(&shared, key.clone(), envelope, at).await;
                return (StatusCode::OK, String::new());
            }
            "Notification" => read(&key, envelope, at),
            other => Err(format!("x-amz-sns-message-type is {other:?}")),
        },
    };
    match taken {
        Ok(notification) => shared.note(|record| record.received.push(notification)),
        Err(reason) => shared.note(|record| {
            record.dropped.push(Dropped {
                key,
                reason,
                body,
                at,
            })
        }),
    }
    (StatusCode::OK, String::new())
}

/// Follows the invitation after having answered it, as SNS delivers it before it expects the confirmation.
async fn confirm(shared: &Arc<Shared>, key: String, envelope: Envelope, at: Timestamp) {
    let confirms = *shared
        .confirms
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let Envelope {
        topic_arn,
        subscribe_url,
        message,
        ..
    } = envelope;
    if !confirms {
        shared.note(|record| {
            record.confirmations.push(Confirmation {
                key,
                topic_arn,
                confirmed: false,
                at,
            })
        });
        return;
    }
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let followed = shared.follow(subscribe_url.as_deref()).await;
        shared.note(|record| match followed {
            Ok(()) => record.confirmations.push(Confirmation {
                key,
                topic_arn,
                confirmed: true,
                at,
            }),
            Err(error) => record.dropped.push(Dropped {
                key,
                reason: format!("{error:#}"),
                body: message,
                at,
            }),
        });
    });
}

/// The change of state in a message, or why real PagerDuty would drop it.
fn read(key: &str, envelope: Envelope, at: Timestamp) -> Result<Notification, String> {
    let alarm: AlarmMessage = serde_json::from_str(&envelope.message)
        .map_err(|error| format!("the Message is not an alarm's: {error}"))?;
    let subject = envelope.subject.unwrap_or_default();
    let state = subject.split_once(": ").map(|(state, _)| state);
    if !["ALARM", "OK", "INSUFFICIENT_DATA"].contains(&alarm.new_state_value.as_str()) {
        return Err(format!("the NewStateValue is {:?}", alarm.new_state_value));
    }
    if state != Some(alarm.new_state_value.as_str()) {
        return Err(format!(
            "the Subject {subject:?} does not begin with the NewStateValue {}",
            alarm.new_state_value
        ));
    }
    let region = alarm
        .alarm_arn
        .split(':')
        .nth(3)
        .unwrap_or_default()
        .to_owned();
    Ok(Notification {
        key: key.to_owned(),
        subject,
        alarm_name: alarm.alarm_name,
        new_state: alarm.new_state_value,
        old_state: alarm.old_state_value,
        account: alarm.account,
        region,
        topic_arn: envelope.topic_arn,
        at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(subject: &str, state: &str) -> Envelope {
        let alarm_arn = "arn:aws:cloudwatch:us-east-2:222233334444:alarm:a";
        let message = serde_json::json!({
            "AlarmName": "a", "AlarmArn": alarm_arn, "AWSAccountId": "222233334444", "NewStateValue": state, "OldStateValue": "OK",
        });
        let topic_arn = "arn:aws:sns:us-east-2:222233334444:t".to_owned();
        Envelope {
            topic_arn,
            subject: Some(subject.to_owned()),
            message: message.to_string(),
            subscribe_url: None,
        }
    }

    #[test]
    fn only_a_subject_that_fits_the_state_is_accepted() {
        let taken = read(
            "k",
            envelope("ALARM: \"a\" in US East (Ohio)", "ALARM"),
            Timestamp::UNIX_EPOCH,
        )
        .unwrap();
        assert_eq!(
            (taken.region.as_str(), taken.new_state.as_str()),
            ("us-east-2", "ALARM")
        );
        for (subject, state) in [
            ("OK: \"a\"", "ALARM"),
            ("a is in ALARM", "ALARM"),
            ("", "OK"),
            ("FIRING: a", "FIRING"),
        ] {
            assert!(
                read("k", envelope(subject, state), Timestamp::UNIX_EPOCH).is_err(),
                "{subject} {state}"
            );
        }
        let text = Envelope {
            message: "hello".to_owned(),
            ..envelope("ALARM: a", "ALARM")
        };
        assert!(
            read("k", text, Timestamp::UNIX_EPOCH)
                .unwrap_err()
                .contains("not an alarm's")
        );
    }

    #[tokio::test]
    async fn is_strict_about_paths_and_keys() {
        let pager_duty = PagerDuty::start().await.unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let cases = [
            ("/integration/short/enqueue", 400),
            ("/v2/other", 404),
            ("/integration/a/b/enqueue", 404),
        ];
        for (path, status) in cases {
            let answer = client
                .post(format!("{}{path}", pager_duty.url()))
                .body("{}")
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), status, "{path}");
        }
        let key = "0123456789abcdef0123456789abcdef";
        let answer = client
            .post(format!("{}/integration/{key}/enqueue", pager_duty.url()))
            .body("{}")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(pager_duty.dropped().len(), 1);
        let shown = client
            .get(format!("{}/record", pager_duty.url()))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        assert!(shown.contains("raw message delivery"), "{shown}");
    }
}
