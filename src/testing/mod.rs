//! Doubles of what is outside, in memory and without a socket, so that time can be paused.
//!
//! | module | what it stands for |
//! |---|---|
//! | [`cluster`] | the Kubernetes API, behind a `kube::Client` |
//! | [`aws`] | CloudWatch, SNS, EventBridge and STS of all accounts, behind the SDK's clients |
//! | [`slack`] | a Slack workspace, behind the HTTP client |
//! | [`operator`] | one process of the operator among them, one reconcile at a time |

pub mod aws;
pub mod cluster;
pub mod operator;
pub mod slack;

mod alarm_sets;
mod crashes;
mod damage;
mod deletions;
mod histories;
mod process;
mod reads;
mod reports;
mod slack_channels;
mod take_over;
mod topics;
mod troubles;
mod unreadable;

pub use aws::Aws;
pub use cluster::Cluster;
pub use operator::{Operator, World};
pub use slack::Slack;

use parking_lot::{Mutex, MutexGuard};
use std::{future, sync::Arc, time::Duration};
use tokio::sync::Notify;

/// One call to a double.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// `kubernetes`, `aws` or `slack`.
    pub system: &'static str,
    /// `patch alarmsets/status`, `cloudwatch:PutMetricAlarm`, `conversations.create`.
    pub operation: String,
    /// What it is about: `vsu/golden-signals`, or an account and what it is called there.
    pub subject: String,
    /// Whether it changes something.
    pub writes: bool,
}

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It is refused with this status and code.
    Refuse(u16, &'static str),
    /// Its connection breaks: after it took effect, or before.
    Cut { done: bool },
    /// It is never answered: though it took effect, or without.
    Hang { done: bool },
    /// It takes so long, and then takes effect.
    Delay(Duration),
    /// It takes effect, and is answered with this status, content type and body.
    Answer(u16, &'static str, &'static str),
}

/// Why a call has no answer of its own.
pub enum Broken {
    /// As [`Fault::Refuse`].
    Refused(u16, &'static str),
    /// As [`Fault::Cut`].
    Cut,
    /// As [`Fault::Answer`].
    Answered(u16, &'static str, &'static str),
}

type Faults = Box<dyn FnMut(usize, &Call) -> Option<Fault> + Send>;

#[derive(Default)]
struct Record {
    calls: Vec<Call>,
    faults: Option<Faults>,
}

/// The calls to all doubles of a test in the order in which they came, and what goes wrong with them.
#[derive(Clone, Default)]
pub struct Calls {
    record: Arc<Mutex<Record>>,
    hung: Arc<Notify>,
}

impl Calls {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock()
    }

    /// From now on calls count from 0, and this says what goes wrong with each.
    pub fn fail(&self, faults: impl FnMut(usize, &Call) -> Option<Fault> + Send + 'static) {
        let faults: Faults = Box::new(faults);
        *self.record() = Record {
            calls: Vec::new(),
            faults: Some(faults),
        };
    }

    /// The next calls of this operation fail like this.
    pub fn fail_next(&self, operation: &'static str, mut times: usize, fault: Fault) {
        self.fail(move |_, call| {
            let fails = times > 0 && call.operation == operation;
            times -= usize::from(fails);
            fails.then_some(fault)
        });
    }

    /// From now on calls count from 0, and nothing goes wrong.
    pub fn clear(&self) {
        *self.record() = Record::default();
    }

    /// All since they count.
    pub fn all(&self) -> Vec<Call> {
        self.record().calls.clone()
    }

    /// The writes among them, as `operation subject`.
    pub fn writes(&self) -> Vec<String> {
        let calls = self.all().into_iter().filter(|call| call.writes);
        calls
            .map(|call| format!("{} {}", call.operation, call.subject))
            .collect()
    }

    /// How many calls of an operation there were.
    pub fn count(&self, operation: &str) -> usize {
        let record = self.record();
        let calls = record.calls.iter();
        calls.filter(|call| call.operation == operation).count()
    }

    /// Ends when a call hangs. What is dropped then is a process that was killed there.
    pub async fn hung(&self) {
        self.hung.notified().await;
    }

    /// Every double takes its calls through here.
    async fn take<T>(&self, call: Call, effect: impl FnOnce() -> T) -> Result<T, Broken> {
        let fault = {
            let mut record = self.record();
            let index = record.calls.len();
            let faults = record.faults.as_mut();
            let fault = faults.and_then(|faults| faults(index, &call));
            record.calls.push(call);
            fault
        };
        match fault {
            None => Ok(effect()),
            Some(Fault::Delay(delay)) => {
                tokio::time::sleep(delay).await;
                Ok(effect())
            }
            Some(Fault::Refuse(status, code)) => Err(Broken::Refused(status, code)),
            Some(Fault::Cut { done }) => {
                done.then(effect);
                Err(Broken::Cut)
            }
            Some(Fault::Answer(status, kind, body)) => {
                effect();
                Err(Broken::Answered(status, kind, body))
            }
            Some(Fault::Hang { done }) => {
                done.then(effect);
                self.hung.notify_one();
                future::pending().await
            }
        }
    }
}

/// What a URL's query, or a form, says by name.
fn pairs(query: &str) -> Vec<(String, String)> {
    let url = reqwest::Url::parse(&format!("http://double/?{query}")).unwrap();
    url.query_pairs().into_owned().collect()
}
