//! Slack, the status and the gate in memory, with moods.

use super::{ALL, CHANNEL};
use crate::{
    clients::{
        secret::Secret,
        slack::{Post, Posted, Refusal, api},
    },
    engine::{
        error::{Class, Error, Result},
        gate::{Gate, Operation, StatusEdit},
        plan::Step,
    },
    kinds::slack_channel::notify::{Ledger, Notifier, Posting, Way},
};
use futures::future::{BoxFuture, pending};
use serde_json::Value;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

/// What one call meets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mood {
    Fine,
    /// The process dies before anything comes of it.
    DiesBefore,
    /// It is done, and the process dies.
    DiesAfter,
    /// It is done, and nobody hears.
    CutAfter,
    /// Nobody hears, and it was not done.
    CutBefore,
    Throttled,
    /// It never got there.
    Undone,
    Rejected,
    Denied,
}

#[derive(Debug)]
pub struct Message {
    pub channel: String,
    pub ts: String,
    pub thread_ts: Option<String>,
    /// As it was posted, and as it is.
    pub texts: Vec<String>,
}

/// Slack, the status and the gate, in memory: it outlives the process.
#[derive(Default)]
pub struct StageContext {
    pub messages: Vec<Message>,
    /// As it is in status.
    pub saved: BTreeMap<(String, String), Value>,
    pub calls: usize,
    /// What the calls meet, one after the other, then nothing.
    pub moods: VecDeque<Mood>,
    /// What was called, with the API or the posting.
    pub record: Vec<String>,
    /// Whether what is saved is gone the next moment.
    pub forgets: bool,
    /// What an edit is refused with.
    pub refuses: Option<&'static str>,
    /// Of which parts nobody can know whether they were posted.
    pub doubts: Vec<String>,
}

/// The one way into [`StageContext`]; as a webhook it knows no channel.
#[derive(Clone, Default)]
pub struct Memory {
    place: Arc<Mutex<StageContext>>,
    pub channel_id: Option<&'static str>,
    secret: Option<Secret>,
}

impl Memory {
    pub fn bot() -> Self {
        Self {
            channel_id: Some("C1"),
            ..Self::default()
        }
    }

    pub fn webhook() -> Self {
        Self {
            secret: Some(Secret::new("canary-url".into())),
            ..Self::default()
        }
    }

    /// The same, where its channel has another id.
    pub fn moved_to(&self, channel_id: &'static str) -> Self {
        Self {
            channel_id: Some(channel_id),
            ..self.clone()
        }
    }

    pub fn place(&self) -> MutexGuard<'_, StageContext> {
        self.place.lock().unwrap()
    }

    pub fn meets(&self, moods: impl IntoIterator<Item = Mood>) {
        self.place().moods = moods.into_iter().collect();
    }

    pub fn notifier(&self) -> Notifier {
        Notifier::new(CHANNEL, ALL, [])
    }

    pub fn record(&self) -> Vec<String> {
        std::mem::take(&mut self.place().record)
    }

    /// Lets one call happen, as the mood is; `posts` is the part of a run that it posts.
    async fn call<T>(
        &self,
        what: String,
        posts: Option<&str>,
        effect: impl FnOnce(&mut StageContext) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let refusal = |class, message: &str| {
            Err(Refusal {
                code: String::new(),
                error: Error::new(class, message),
            })
        };
        let (mood, outcome) = {
            let mut place = self.place();
            place.calls += 1;
            let mood = place.moods.pop_front().unwrap_or(Mood::Fine);
            place.record.push(what);
            let done = matches!(mood, Mood::Fine | Mood::DiesAfter | Mood::CutAfter);
            let given_up = mood == Mood::Rejected && posts == Some("detail");
            let unsure = matches!(mood, Mood::CutBefore | Mood::CutAfter) || given_up;
            place
                .doubts
                .extend(posts.filter(|_| unsure).map(str::to_owned));
            (mood, done.then(|| effect(&mut place)))
        };
        match (mood, outcome) {
            (Mood::Fine, Some(outcome)) => outcome,
            (Mood::DiesBefore | Mood::DiesAfter, _) => pending().await,
            (Mood::Throttled, _) => {
                let throttled = Error::new(Class::Throttled, "throttled");
                Err(Refusal {
                    code: "ratelimited".into(),
                    error: throttled.after(Duration::from_secs(30)),
                })
            }
            (Mood::Undone, _) => refusal(Class::Failing, "refuses connections"),
            (Mood::Rejected, _) => refusal(Class::Rejected, "not_in_channel"),
            (Mood::Denied, _) => refusal(Class::Denied, "token_revoked"),
            _ => refusal(Class::Cut, "no answer"),
        }
    }
}

impl Way for Memory {
    fn channel(&self) -> Option<&str> {
        self.channel_id
    }

    fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    fn operation<'a>(&'a self, edits: bool, channel: &'a str) -> Operation<'a> {
        Operation {
            endpoint: "slack",
            account: "key",
            region: channel,
            identity: "a test",
            api: if edits { api::UPDATE } else { api::POST },
        }
    }

    async fn post(&self, channel: &str, post: &Post) -> Result<Option<Posted>, Refusal> {
        let posts = match &post.thread_ts {
            Some(_) => "detail",
            None if post.text.contains("Failed") || post.text.contains("Completed") => "end",
            None => "start",
        };
        let effect = |place: &mut StageContext| {
            let ts = format!("{}.000100", place.calls);
            place.messages.push(Message {
                channel: channel.into(),
                ts: ts.clone(),
                thread_ts: post.thread_ts.clone(),
                texts: vec![post.text.clone()],
            });
            let channel = self.channel_id.map(str::to_owned);
            Ok(channel.map(|channel| Posted { channel, ts }))
        };
        self.call(format!("post {posts}"), Some(posts), effect)
            .await
    }

    async fn edit(&self, channel: &str, ts: &str, post: &Post) -> Result<(), Refusal> {
        let effect = |place: &mut StageContext| {
            if let Some(code) = place.refuses {
                return Err(Refusal {
                    code: code.into(),
                    error: Error::new(Class::Rejected, code),
                });
            }
            let mut messages = place.messages.iter_mut();
            let message = messages.find(|message| message.ts == ts && message.channel == channel);
            let message = message.expect("only what is there is edited");
            message.texts.push(post.text.clone());
            Ok(())
        };
        self.call("edit".into(), None, effect).await
    }
}

impl Ledger for Memory {
    fn known(&self, run: &str, channel: &str) -> Option<Posting> {
        let key = (run.to_owned(), channel.to_owned());
        let place = self.place();
        let saved = place.saved.get(&key)?;
        Some(serde_json::from_value(saved.clone()).unwrap())
    }

    fn save<'a>(&'a mut self, posting: &'a Posting) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let saved = serde_json::to_value(posting).unwrap();
            let effect = |place: &mut StageContext| {
                let key = (posting.run().to_owned(), posting.channel().to_owned());
                if !place.forgets {
                    drop(place.saved.insert(key, saved));
                }
                Ok(())
            };
            self.call("save".into(), None, effect)
                .await
                .map_err(|refusal| refusal.error)
        })
    }
}

impl Gate for Memory {
    fn enter<'a>(
        &'a self,
        operation: Operation<'a>,
        steps: &'a [Step],
    ) -> BoxFuture<'a, Result<()>> {
        assert_eq!(steps.len(), 1);
        let Operation { api, region, .. } = operation;
        assert_eq!(region, self.channel_id.unwrap_or_default());
        Box::pin(async move {
            let entered = self.call(format!("enter {api}"), None, |_| Ok(())).await;
            entered.map_err(|refusal| refusal.error)
        })
    }

    fn intend<'a>(&'a self, _: &'a StatusEdit) -> BoxFuture<'a, Result<()>> {
        unreachable!("the ledger does that")
    }

    fn record<'a>(&'a self, _: &'a Step, _: &'a StatusEdit) -> BoxFuture<'a, ()> {
        unreachable!("the ledger does that")
    }

    fn answered(&self, _: Operation<'_>, _: bool) {}

    fn leave(&self, operation: Operation<'_>, step: &Step, outcome: Result<(), &Error>) {
        let outcome = outcome.map_or_else(|error| error.class.label(), |_| "ok");
        let line = format!("leave {} {}: {outcome}", operation.api, step.key);
        self.place().record.push(line);
    }

    fn refused(&self, _: &str, _: &Step) -> Option<Error> {
        None
    }
}

/// A gate that is open.
pub struct Everything;

impl Gate for Everything {
    fn enter<'a>(&'a self, _: Operation<'a>, _: &'a [Step]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn intend<'a>(&'a self, _: &'a StatusEdit) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn record<'a>(&'a self, _: &'a Step, _: &'a StatusEdit) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    fn answered(&self, _: Operation<'_>, _: bool) {}

    fn leave(&self, _: Operation<'_>, _: &Step, _: Result<(), &Error>) {}

    fn refused(&self, _: &str, step: &Step) -> Option<Error> {
        let refused = step.key.contains("refused");
        refused.then(|| Error::new(Class::Denied, "refused lately"))
    }
}
