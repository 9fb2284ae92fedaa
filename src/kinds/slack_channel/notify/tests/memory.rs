//! Slack, the status and the gate in memory, with moods.

use super::ALL;
use crate::{
    clients::{
        secret::Secret,
        slack::{Post, Posted, Refusal},
    },
    engine::{
        error::{Class, Error, Result},
        gate::{Gate, Operation, StatusEdit, WritePermit},
        rendering::Step,
    },
    kinds::slack_channel::notify::{Notifier, Record, Records, Transport},
};
use futures::future::{BoxFuture, pending};
use std::{
    collections::VecDeque,
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

/// What outlives the process.
#[derive(Default)]
pub struct World {
    pub messages: Vec<Message>,
    /// As it is in status.
    pub saved: Option<Record>,
    pub calls: usize,
    /// What the calls meet, one after the other, then nothing.
    pub moods: VecDeque<Mood>,
    /// What was called, with the API or the part of the run.
    pub log: Vec<String>,
    /// Whether what is saved is gone the next moment.
    pub forgets: bool,
    /// What an edit is refused with.
    pub refuses: Option<&'static str>,
    /// What the gate was refused lately.
    pub refused: Option<Error>,
    /// Of which parts nobody can know whether they were posted.
    pub doubts: Vec<String>,
    /// The part that is in the record, and not known to be posted.
    pub posting: Option<&'static str>,
}

fn unsaved() -> Record {
    Record::new("rebuild-1", "runs")
}

/// The way into [`World`]; as a webhook it knows no channel.
#[derive(Clone)]
pub struct Memory {
    world: Arc<Mutex<World>>,
    pub channel_id: Option<&'static str>,
    secret: Secret,
}

impl Memory {
    pub fn bot() -> Self {
        Self {
            channel_id: Some("C1"),
            ..Self::webhook()
        }
    }

    pub fn webhook() -> Self {
        Self {
            world: Arc::default(),
            channel_id: None,
            secret: Secret::new("canary-url".into()),
        }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub fn meets(&self, moods: impl IntoIterator<Item = Mood>) {
        self.world().moods = moods.into_iter().collect();
    }

    /// A process begins, and knows what status says.
    pub fn notifier(&self) -> Notifier {
        let saved = self.world().saved.clone();
        Notifier::new(saved.unwrap_or_else(unsaved), ALL, [])
    }

    /// What was called since this was asked last.
    pub fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.world().log)
    }

    /// Lets one call happen, as the mood is; `posts` is the part of a run that it posts.
    async fn call<T>(
        &self,
        what: String,
        posts: Option<&str>,
        effect: impl FnOnce(&mut World) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let refusal = |code: &str, error: Error| {
            let code = code.to_owned();
            Err(Refusal { code, error })
        };
        let (mood, outcome) = {
            let mut world = self.world();
            world.calls += 1;
            let mood = world.moods.pop_front().unwrap_or(Mood::Fine);
            world.log.push(what);
            let done = matches!(mood, Mood::Fine | Mood::DiesAfter | Mood::CutAfter);
            let given_up = mood == Mood::Rejected && posts == Some("detail");
            let unsure = matches!(mood, Mood::CutBefore | Mood::CutAfter) || given_up;
            let doubt = posts.filter(|_| unsure);
            world.doubts.extend(doubt.map(str::to_owned));
            // There is no message to be recorded.
            let last = posts == Some("detail") || posts.is_some() && self.channel_id.is_none();
            if last && mood == Mood::Fine {
                world.posting = None;
            }
            (mood, done.then(|| effect(&mut world)))
        };
        match (mood, outcome) {
            (Mood::Fine, Some(outcome)) => outcome,
            (Mood::DiesBefore | Mood::DiesAfter, _) => pending().await,
            (Mood::Throttled, _) => {
                let wait = Duration::from_secs(30);
                refusal("ratelimited", Error::new(Class::Throttled, "").after(wait))
            }
            (Mood::Undone, _) => refusal("", Error::failing("refuses connections")),
            (Mood::Rejected, _) => refusal("", Error::new(Class::Rejected, "not_in_channel")),
            (Mood::Denied, _) => refusal("", Error::new(Class::Denied, "token_revoked")),
            _ => refusal("", Error::new(Class::OutcomeUnknown, "no answer")),
        }
    }
}

impl Transport for Memory {
    fn channel(&self) -> Option<&str> {
        self.channel_id
    }

    fn secret(&self) -> &Secret {
        &self.secret
    }

    fn operation<'a>(&'a self, edits: bool, channel: &'a str) -> Operation<'a> {
        Operation {
            endpoint: "slack",
            account: "key",
            region: channel,
            identity: "a test",
            api: if edits {
                "slack:chat.update"
            } else {
                "slack:chat.postMessage"
            },
        }
    }

    async fn send(
        &self,
        _: &WritePermit<'_>,
        channel: &str,
        edits: Option<&str>,
        post: &Post,
    ) -> Result<Option<Posted>, Refusal> {
        let over = post.text.contains("Failed") || post.text.contains("Completed");
        let posts = match &post.thread_ts {
            _ if edits.is_some() => None,
            Some(_) => Some("detail"),
            None => Some(if over { "end" } else { "start" }),
        };
        let effect = |world: &mut World| {
            if let Some(ts) = edits {
                if let Some(code) = world.refuses {
                    let error = Error::new(Class::Rejected, code);
                    let code = code.to_owned();
                    return Err(Refusal { code, error });
                }
                let mut messages = world.messages.iter_mut();
                let message = messages.find(|known| known.ts == ts && known.channel == channel);
                let message = message.expect("only what is there is edited");
                message.texts.push(post.text.clone());
                return Ok(None);
            }
            let ts = format!("{}.000100", world.calls);
            world.messages.push(Message {
                channel: channel.into(),
                ts: ts.clone(),
                thread_ts: post.thread_ts.clone(),
                texts: vec![post.text.clone()],
            });
            let channel = self.channel_id.map(str::to_owned);
            Ok(channel.map(|channel| Posted { channel, ts }))
        };
        let what = posts.map_or("edit".to_owned(), |part| format!("post {part}"));
        self.call(what, posts, effect).await
    }
}

impl Records for Memory {
    fn save<'a>(&'a mut self, record: &'a Record) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let effect = |world: &mut World| {
                if world.forgets {
                    return Ok(());
                }
                let before = world.saved.replace(record.clone()).unwrap_or_else(unsaved);
                let posts = record.message.is_none() && record.told > before.told;
                world.posting = match record.told {
                    _ if record.details > before.details => Some("detail"),
                    Some(told) if posts => Some(if told.is_over() { "end" } else { "start" }),
                    _ => None,
                };
                Ok(())
            };
            let saved = self.call("save".into(), None, effect).await;
            Ok(saved?)
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
        Box::pin(async move {
            let what = format!("enter {}", operation.api);
            Ok(self.call(what, None, |_| Ok(())).await?)
        })
    }

    fn edit<'a>(&'a self, _: &'a StatusEdit) -> BoxFuture<'a, Result<()>> {
        unreachable!("the record does that")
    }

    fn answered(&self, operation: Operation<'_>, outcomes: &[(&Step, Result<(), &Error>)]) {
        let [(step, outcome)] = outcomes else {
            panic!("{outcomes:?}");
        };
        let outcome = outcome.map_or_else(|error| error.class.label(), |_| "ok");
        let line = format!("leave {} {}: {outcome}", operation.api, step.key);
        self.world().log.push(line);
    }

    fn refused(&self, _: Operation<'_>, _: &Step) -> Option<Error> {
        self.world().refused.clone()
    }
}
