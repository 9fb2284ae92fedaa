//! The status and the gate in memory, before the double of Slack, with moods.

use super::{ALL, Notifier, Record, Sender};
use crate::{
    clients::{http::tests::direct, secret::Secret, slack::Slack},
    engine::{
        error::{Class, Error, Result},
        gate::{Gate, Operation, StatusEdit},
        limits::Limiter,
        rendering::Step,
    },
    kinds::{installation::Installation, slack_channel::route::SlackRoute},
    testing::{self, Calls, Fault, slack::Message},
};
use futures::future::{BoxFuture, pending};
use reqwest::Client;
use serde_json::json;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, LazyLock, Mutex, MutexGuard},
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

impl Mood {
    /// As the double of Slack shows it.
    fn fault(self, edits: bool, bot: bool) -> Option<Fault> {
        Some(match self {
            Self::Fine => return None,
            Self::DiesBefore => Fault::Hang { done: false },
            Self::DiesAfter => Fault::Hang { done: true },
            Self::CutBefore => Fault::Cut { done: false },
            Self::CutAfter => Fault::Cut { done: true },
            Self::Throttled => Fault::Refuse(429, "ratelimited"),
            Self::Undone => Fault::Refuse(404, "<html>"),
            Self::Rejected if bot || edits => Fault::Refuse(200, "not_in_channel"),
            Self::Rejected => Fault::Refuse(403, "something_new"),
            Self::Denied if bot => Fault::Refuse(200, "token_revoked"),
            Self::Denied => Fault::Refuse(403, "invalid_token"),
        })
    }
}

/// What outlives the process.
#[derive(Default)]
pub struct World {
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

impl World {
    /// What the next call meets.
    fn meet(&mut self, what: String) -> Mood {
        self.calls += 1;
        self.log.push(what);
        self.moods.pop_front().unwrap_or(Mood::Fine)
    }
}

fn unsaved() -> Record {
    Record::new("rebuild-1", "runs")
}

/// The way into [`World`]; as a webhook it knows no channel.
#[derive(Clone)]
pub struct Memory {
    world: Arc<Mutex<World>>,
    slack: testing::Slack,
    limiter: Arc<Limiter>,
    pub channel_id: Option<&'static str>,
    pub sender: Sender,
}

impl Memory {
    pub fn bot() -> Self {
        Self::new(Some("C1"))
    }

    pub fn webhook() -> Self {
        Self::new(None)
    }

    fn new(channel_id: Option<&'static str>) -> Self {
        let (calls, world) = (Calls::default(), Arc::<Mutex<World>>::default());
        let slack = testing::Slack::new(&calls);
        for id in ["C1", "C2"] {
            slack.edit(id, |channel| *channel = json!({"id": id}));
        }
        let outside = world.clone();
        calls.fail(move |_, call| {
            let mut world = outside.lock().unwrap();
            let edits = call.operation == "chat.update";
            let part = world.posting.filter(|_| !edits);
            let mood = world.meet(part.map_or("edit".to_owned(), |part| format!("post {part}")));
            let given_up = mood == Mood::Rejected && part == Some("detail");
            let unsure = matches!(mood, Mood::CutBefore | Mood::CutAfter) || given_up;
            world
                .doubts
                .extend(part.filter(|_| unsure).map(str::to_owned));
            // There is no message to be recorded.
            let last = part == Some("detail") || part.is_some() && channel_id.is_none();
            if last && mood == Mood::Fine {
                world.posting = None;
            }
            let refused = world.refuses.filter(|_| edits && mood == Mood::Fine);
            let refused = refused.map(|code| Fault::Refuse(200, code));
            refused.or_else(|| mood.fault(edits, channel_id.is_some()))
        });
        let limiter = Arc::new(Limiter::new(&BTreeMap::new()));
        Self {
            sender: sender(&slack, &limiter, channel_id),
            world,
            slack,
            limiter,
            channel_id,
        }
    }

    /// The same with the run's channel elsewhere.
    pub fn moved(&self, channel_id: &'static str) -> Self {
        Self {
            sender: sender(&self.slack, &self.limiter, Some(channel_id)),
            channel_id: Some(channel_id),
            ..self.clone()
        }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub fn messages(&self) -> Vec<Message> {
        self.slack.messages()
    }

    pub fn meets(&self, moods: impl IntoIterator<Item = Mood>) {
        self.world().moods = moods.into_iter().collect();
    }

    /// A process begins, and knows what status says.
    pub fn notifier(&self) -> Notifier {
        let saved = self.world().saved.clone();
        let records = |record: Record| {
            StatusEdit::new(move |saved: &mut Option<Record>| *saved = Some(record.clone()))
        };
        let record = saved.unwrap_or_else(unsaved);
        Notifier::new(record, ALL, [], Box::new(records))
    }

    /// What was called since this was asked last.
    pub fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.world().log)
    }

    /// Lets one call happen in the cluster, as the mood is.
    async fn call(&self, what: String, effect: impl FnOnce(&mut World)) -> Result<()> {
        let mood = {
            let mut world = self.world();
            let mood = world.meet(what);
            if matches!(mood, Mood::Fine | Mood::DiesAfter | Mood::CutAfter) {
                effect(&mut world);
            }
            mood
        };
        match mood {
            Mood::Fine => Ok(()),
            Mood::DiesBefore | Mood::DiesAfter => pending().await,
            Mood::Throttled => {
                let wait = Duration::from_secs(30);
                Err(Error::new(Class::Throttled, "").after(wait))
            }
            Mood::Undone => Err(Error::failing("refuses connections")),
            Mood::Rejected => Err(Error::new(Class::Rejected, "not_in_channel")),
            Mood::Denied => Err(Error::new(Class::Denied, "token_revoked")),
            Mood::CutAfter | Mood::CutBefore => Err(Error::new(Class::OutcomeUnknown, "no answer")),
        }
    }
}

/// What carries messages into a channel by a bot, or by a webhook.
pub fn sender(
    slack: &testing::Slack,
    limiter: &Arc<Limiter>,
    channel_id: Option<&'static str>,
) -> Sender {
    static HTTP: LazyLock<Client> = LazyLock::new(direct);
    let route = match channel_id {
        Some(channel_id) => SlackRoute::BotToken {
            token: Secret::new("xoxb-1-canary".into()),
            channel_id: channel_id.into(),
        },
        None => SlackRoute::Webhook(Secret::new(slack.webhook())),
    };
    let observe = Arc::new(|_: crate::clients::aws::Request<'_>| {});
    let slack = Slack::new(HTTP.clone(), &slack.url(), limiter.clone(), observe);
    let digester = &Installation::sample().digester;
    Sender::new(slack, route, digester, "a test".into())
}

impl Gate for Memory {
    fn enter<'a>(
        &'a self,
        operation: Operation<'a>,
        steps: &'a [Step],
    ) -> BoxFuture<'a, Result<()>> {
        assert_eq!(steps.len(), 1);
        Box::pin(self.call(format!("enter {}", operation.api), |_| ()))
    }

    fn edit<'a>(&'a self, edit: &'a StatusEdit) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.call("save".into(), |world| {
            if world.forgets {
                return;
            }
            let before = world.saved.clone().unwrap_or_else(unsaved);
            edit.apply(&mut world.saved);
            let Some(record) = &world.saved else { return };
            let posts = record.message.is_none() && record.told > before.told;
            world.posting = match record.told {
                _ if record.details > before.details => Some("detail"),
                Some(told) if posts => Some(if told.is_over() { "end" } else { "start" }),
                _ => None,
            };
        }))
    }

    fn answered(&self, operation: Operation<'_>, outcomes: &[(&Step, Result<(), &Error>)]) {
        let [(step, outcome)] = outcomes else {
            panic!("{outcomes:?}");
        };
        let Operation {
            account,
            region,
            api,
            ..
        } = operation;
        if let Err(error) = outcome {
            self.limiter.pause(account, region, api, error);
        }
        let outcome = outcome.map_or_else(|error| error.class.label(), |()| "ok");
        let line = format!("leave {api} {}: {outcome}", step.key);
        self.world().log.push(line);
    }

    fn refused(&self, operation: Operation<'_>, _: &Step) -> Option<Error> {
        let Operation {
            account,
            region,
            api,
            ..
        } = operation;
        let refused = self.world().refused.clone();
        refused.or_else(|| self.limiter.paused(account, region, api))
    }
}
