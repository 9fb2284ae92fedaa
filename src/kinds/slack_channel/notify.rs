//! Messages about long-running work: one per run and channel, posted when the run starts, edited in place as it
//! gets on and when it is over, its details as answers in its thread.
//!
//! Posting is not idempotent: Slack takes no key by which it would know a message again. So before each post the
//! caller's status says of it as if it had been made. Where the process dies before it is, or the answer is lost,
//! nobody knows whether the message is there, and **it is not posted again: one message may be lost, none is there
//! twice**. After a start in doubt the progress is dropped, for there is nothing to edit; the end is posted as a
//! message of its own, once, and the details with it. What Slack has certainly refused was not posted: status says
//! so again, and it may be tried again.
//!
//! An edit may be repeated, so status says nothing of it beforehand. An incoming webhook says nothing of the message
//! that it has posted: by it there is a message for the start and one for the end, which has the reason of a failure
//! in it.

pub mod message;

use super::{
    Token,
    report::{CHANNEL_READY, WEBHOOK_READY},
    route::{SlackRoute, condition, existing},
};
use crate::{
    api::{
        KeyRef, SlackChannel,
        notification::{Phase, Posted, Record},
    },
    clients::{
        secret::{Digester, Secret},
        slack::{Post, Refusal, Slack, WEBHOOK},
    },
    engine::{
        error::{Class, Error, Result, WaitingOn},
        gate::{Gate, Operation, StatusEdit, WritePermit, admit},
        jitter,
        plan::Verb,
        rendering::{FieldChange, Step},
    },
    kinds::cluster_view::ClusterView,
};
use message::{Redact, Run, message, reply};
use std::{collections::BTreeSet, slice, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// A message is edited at most so often while its run is under way. Slack lets an app edit 50 messages a minute
/// in a workspace (`chat.update`, tier 3: <https://docs.slack.dev/apis/web-api/rate-limits>), whatever the channel:
/// this leaves room for eight runs at once, and nobody reads faster. The end of a run does not wait for it.
pub const EDIT_EVERY: Duration = Duration::from_secs(10);

/// The most details of one run that are told: at one message a second, what comes after would keep the channel
/// from everything else, and nobody would read it.
pub const MOST_DETAILS: u32 = 50;

/// Why there is nothing to edit where there was: the message was deleted, another bot has posted it (the token is of
/// another app now), or the workspace lets nobody edit for so long.
const GONE: [&str; 3] = [
    "cant_update_message",
    "edit_window_closed",
    "message_not_found",
];

/// The edit of the caller's status that puts a record in the place of what is known of its run in its channel. After
/// an error it may be there or not; it is saved again before anything else is done.
pub type Records = Box<dyn Fn(Record) -> StatusEdit + Send + Sync>;

/// What carries messages into one channel. Its secrets cannot be printed.
#[derive(Clone, Debug)]
pub struct Sender {
    slack: Slack,
    route: SlackRoute,
    /// What stands for the secret where that must not be seen: a digest.
    key: String,
    /// What one refusal stops.
    scope: String,
    /// As whom, for people: where the secret is.
    identity: String,
}

impl Sender {
    /// By this route. `identity` is for people: where its secret is.
    pub fn new(slack: Slack, route: SlackRoute, digester: &Digester, identity: String) -> Self {
        let key = digester.digest(route.secret().reveal()).to_string();
        Self {
            slack,
            route,
            scope: format!("slack {key}"),
            key,
            identity,
        }
    }

    /// The channel's id, where messages can be edited and answered.
    fn channel(&self) -> Option<&str> {
        match &self.route {
            SlackRoute::BotToken { channel_id, .. } => Some(channel_id),
            SlackRoute::Webhook(_) => None,
        }
    }

    /// The call that posts, or edits, in that channel.
    fn operation<'a>(&'a self, edits: bool, channel: &'a str) -> Operation<'a> {
        let (api, region) = match &self.route {
            SlackRoute::Webhook(_) => (WEBHOOK, ""),
            SlackRoute::BotToken { .. } if edits => ("slack:chat.update", ""),
            // Slack counts what is posted by channel as well.
            SlackRoute::BotToken { .. } => ("slack:chat.postMessage", channel),
        };
        Operation {
            endpoint: &self.scope,
            account: &self.key,
            region,
            identity: &self.identity,
            api,
        }
    }

    /// Posts a message, or makes the one of the `ts` that it `edits` into this one; says where it is, if that is
    /// known.
    async fn send(
        &self,
        permit: &WritePermit<'_>,
        channel: &str,
        edits: Option<&str>,
        post: &Post,
    ) -> Result<Option<Posted>, Refusal> {
        match &self.route {
            SlackRoute::Webhook(url) => {
                let sent = self.slack.post_webhook(permit, url, post).await;
                sent.map(|()| None)
            }
            SlackRoute::BotToken { token, .. } => {
                let bot = self.slack.bot(token.clone(), self.key.clone());
                bot.post(permit, channel, edits, post).await.map(Some)
            }
        }
    }
}

/// What carries messages into the channel of the SlackChannel of that name: by the bot that looks after the channel, or else
/// by the webhook. Where neither is ready, the error is of class `Waiting(WaitingOn::Channel)`; the SlackChannel's own
/// conditions say the same, so a caller may leave it at that.
pub async fn sender(
    name: &str,
    namespace: &str,
    cluster: &ClusterView<'_>,
    slack: &Slack,
) -> Result<Sender> {
    let found = cluster.get::<SlackChannel>(namespace, name).await?;
    let channel = existing(found.as_ref(), name, namespace)?;
    let (bot, webhook, wanting) = ready(channel);
    let waiting = |message| Error::new(Class::Waiting(WaitingOn::Channel), message);
    let mut found = Err(waiting(wanting.to_owned()));
    if let Some((declared, id)) = bot {
        let token = channel.token(declared, namespace, cluster).await;
        found = token.map(|Token { secret, source }| {
            let (token, channel_id) = (secret, id.to_owned());
            (SlackRoute::BotToken { token, channel_id }, source)
        });
    }
    if let (Err(error), Some(reference)) = (&found, webhook)
        && !error.class.passes()
    {
        let url = super::webhook(namespace, reference, cluster).await;
        let identity = super::place_of(namespace, reference);
        found = url.map(|url| (SlackRoute::Webhook(url), identity));
    }
    match found {
        Ok((route, identity)) => {
            let digester = &cluster.installation.digester;
            Ok(Sender::new(slack.clone(), route, digester, identity))
        }
        Err(error) if error.class.passes() => Err(error),
        Err(error) => Err(waiting(format!(
            "SlackChannel {namespace}/{name} is not ready: {}",
            error.message
        ))),
    }
}

/// What may carry messages into a channel, as its object says: the channel's name in the spec and its id, for a bot;
/// the webhook; and what is wanting where there is neither.
fn ready(channel: &SlackChannel) -> (Option<(&str, &str)>, Option<&KeyRef>, &str) {
    if channel.metadata.deletion_timestamp.is_some() {
        return (None, None, "it is being deleted");
    }
    // One that nobody could look at lately is as good as it was.
    let is_ready = |type_| condition(channel, type_).is_some_and(|one| one.status != "False");
    let id = channel.status.as_ref();
    let id = id.and_then(|status| status.channel_id.as_deref());
    let bot = channel.spec.channel.as_deref().zip(id);
    let webhook = channel.spec.webhook_secret_ref.as_ref();
    let said = [CHANNEL_READY, WEBHOOK_READY, "Ready"].into_iter();
    let said = said.filter_map(|type_| condition(channel, type_));
    let mut said = said.filter(|one| one.status == "False" && !one.message.is_empty());
    (
        bot.filter(|_| is_ready(CHANNEL_READY)),
        webhook.filter(|_| is_ready(WEBHOOK_READY)),
        said.next()
            .map_or("nothing is known of it yet", |one| &one.message),
    )
}

/// A call by which a channel is told of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// Posts the start, or the end.
    Post,
    /// Edits what was posted.
    Edit,
    /// Answers it with the next detail.
    Reply,
}

/// The next call so that a channel hears of a run what it is to hear. `edits`: whether messages can be edited and
/// answered there. `stale`: whether the message says something else than it is to say, and it is time to edit it.
/// Pure.
fn next(
    record: &Record,
    run: &Run,
    on: &BTreeSet<Phase>,
    edits: bool,
    stale: bool,
) -> Option<Call> {
    let (over, there) = (run.phase.is_over(), edits && record.message.is_some());
    match (record.told, record.told.is_some_and(Phase::is_over)) {
        // What is told as over is over.
        (_, true) if !over => return None,
        (_, true) => {}
        // A start that was posted is followed by its end, whichever phases are wanted.
        _ if there && (over || stale) => return Some(Call::Edit),
        (told, _) if over || told.is_none() => {
            return on.contains(&run.phase).then_some(Call::Post);
        }
        _ => {}
    }
    let told = record.details;
    let more = told < MOST_DETAILS && (told as usize) < run.details.len();
    (there && more).then_some(Call::Reply)
}

/// What tells one channel of one run. It remembers what the run's message says, and what could not be saved, so it is
/// kept for as long as the run is under way. Where it is lost, the message is edited once more than it need be, and
/// what status does not say is in doubt.
pub struct Notifier {
    record: Record,
    records: Records,
    /// The record as it is in status, where that is certain.
    saved: Option<Record>,
    on: BTreeSet<Phase>,
    redact: Redact,
    /// What the message says, and since when.
    shown: Option<(Post, Instant)>,
}

impl Notifier {
    /// Goes on where the record of the run in the channel says, which is as it is in status. `on`: which phases are
    /// worth a message there; one that is there is kept true whatever they are. `secrets` are never said.
    pub fn new<'a>(
        record: Record,
        on: impl IntoIterator<Item = Phase>,
        secrets: impl IntoIterator<Item = &'a Secret>,
        records: Records,
    ) -> Self {
        Self {
            records,
            saved: Some(record.clone()),
            record,
            on: on.into_iter().collect(),
            redact: Redact::new(secrets),
            shown: None,
        }
    }

    /// Makes the channel say how the run is. May be called at any time and again: what has been told already is
    /// not told again. Where progress comes too early after what was told before, the answer is the time after which
    /// to tell of the run as it is then.
    ///
    /// An error says what Slack, the gate or the status has refused. Nothing is lost by it but what it says of a
    /// message in doubt (class `OutcomeUnknown`); told again, after the error's time, what can still be told is.
    pub async fn tell(
        &mut self,
        sender: &Sender,
        run: &Run,
        gate: &dyn Gate,
    ) -> Result<Option<Duration>> {
        self.save(gate).await?;
        let redact = self.redact.and(sender.route.secret());
        let edits = sender.channel().is_some();
        let message = message(run, edits, &redact);
        loop {
            let wait = self.edit_after(&message);
            let stale = wait == Some(Duration::ZERO);
            let Some(call) = next(&self.record, run, &self.on, edits, stale) else {
                let is_over = self.record.told.is_some_and(Phase::is_over);
                let is_edited = edits && self.record.message.is_some() && !is_over;
                return Ok(wait.filter(|_| is_edited && !stale));
            };
            let detail = run.details.get(self.record.details as usize);
            let post = match (call, &self.record.message, detail) {
                (Call::Reply, Some(at), Some(detail)) => reply(detail, &at.ts, &redact),
                _ => message.clone(),
            };
            self.call(call, post, run.phase, sender, gate).await?;
        }
    }

    /// Tells of a run from now to its end, each time that something new is said of it, however often that is: what
    /// is said last always goes out. What passes by itself is waited for; any other error is returned, and whoever
    /// has mended it may begin again. Ends, too, when everything is told and nobody is left to say more.
    pub async fn follow(
        &mut self,
        sender: &Sender,
        runs: &mut watch::Receiver<Run>,
        gate: &dyn Gate,
    ) -> Result<()> {
        let mut failures = 0;
        loop {
            let run = runs.borrow_and_update().clone();
            match self.tell(sender, &run, gate).await {
                Ok(None) => {
                    failures = 0;
                    if run.phase.is_over() || runs.changed().await.is_err() {
                        return Ok(());
                    }
                }
                Ok(Some(wait)) => {
                    failures = 0;
                    // The end does not wait.
                    if let Ok(Err(_)) = timeout(wait, runs.changed()).await {
                        sleep(wait).await;
                    }
                }
                Err(error) if error.class.passes() => {
                    failures += 1;
                    sleep(jitter::after(&error, failures).unwrap_or(EDIT_EVERY)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// After what time the run's message is to be edited into this one; `None` where it says the same.
    fn edit_after(&self, message: &Post) -> Option<Duration> {
        match &self.shown {
            Some((shown, _)) if shown == message => None,
            Some((_, since)) => Some(EDIT_EVERY.saturating_sub(since.elapsed())),
            None => Some(Duration::ZERO),
        }
    }

    /// What brings the record into status, where that may say something else.
    fn unsaved(&self) -> Option<StatusEdit> {
        let is_saved = self.saved.as_ref() == Some(&self.record);
        (!is_saved).then(|| (self.records)(self.record.clone()))
    }

    async fn save(&mut self, gate: &dyn Gate) -> Result<()> {
        if let Some(edit) = self.unsaved() {
            self.saved = None;
            gate.edit(&edit).await?;
            self.saved = Some(self.record.clone());
        }
        Ok(())
    }

    /// Nothing was posted: status is to say what it said before. Where that cannot be saved, the next telling says
    /// why.
    async fn withdraw(&mut self, before: Record, gate: &dyn Gate) {
        self.record = before;
        drop(self.save(gate).await);
    }

    async fn call(
        &mut self,
        call: Call,
        post: Post,
        phase: Phase,
        sender: &Sender,
        gate: &dyn Gate,
    ) -> Result<()> {
        let before = self.record.clone();
        let (channel, edits) = match (call, &before.message) {
            (Call::Edit, Some(at)) => (&*at.channel, Some(&*at.ts)),
            (Call::Reply, Some(at)) => (&*at.channel, None),
            _ => (sender.channel().unwrap_or_default(), None),
        };
        let operation = sender.operation(edits.is_some(), channel);
        let step = self.step(call, phase);
        if let Some(refusal) = gate.refused(operation, &step) {
            return Err(refusal);
        }
        match call {
            Call::Post => self.record.told = Some(phase),
            Call::Reply => self.record.details += 1,
            Call::Edit => {}
        }
        let intent = self.unsaved();
        if intent.is_some() {
            self.saved = None;
        }
        let admitted = admit(gate, operation, slice::from_ref(&step), intent.as_slice()).await;
        let permit = match admitted {
            Ok(permit) => permit,
            Err(refused) => {
                self.withdraw(before, gate).await;
                return Err(refused);
            }
        };
        self.saved = Some(self.record.clone());
        let sent = sender.send(&permit, channel, edits, &post).await;
        let outcome = sent.as_ref().map(drop).map_err(|refusal| &refusal.error);
        gate.answered(operation, &[(&step, outcome)]);
        let mut error = match (call, sent) {
            (Call::Reply, Ok(_)) => return Ok(()),
            (_, Ok(at)) => {
                if call == Call::Post {
                    self.record.message = at;
                } else if phase.is_over() {
                    self.record.told = Some(phase);
                }
                self.shown = Some((post, Instant::now()));
                return self.save(gate).await;
            }
            (Call::Edit, Err(Refusal { code, error })) => {
                // The channel has another id, or the object another channel.
                let moved = code == "channel_not_found" && sender.channel() != Some(channel);
                if !moved && !GONE.contains(&&*code) {
                    return Err(error);
                }
                self.record.message = None;
                return self.save(gate).await;
            }
            (_, Err(Refusal { error, .. })) => error,
        };
        match error.class {
            Class::OutcomeUnknown => {
                error.message += ": the message may be there or not, and is not posted again";
            }
            // A thread that takes no answers will not take the next time either, and keeps the others waiting.
            Class::Rejected if call == Call::Reply => {}
            _ => self.withdraw(before, gate).await,
        }
        Err(error)
    }

    /// A call, for the audit line.
    fn step(&self, call: Call, phase: Phase) -> Step {
        let details = self.record.details;
        let (verb, what) = match call {
            Call::Post if phase.is_over() => (Verb::Create, "end".to_owned()),
            Call::Post => (Verb::Create, "start".to_owned()),
            Call::Edit => (Verb::Update, "message".to_owned()),
            Call::Reply => (Verb::Create, format!("detail {}", details + 1)),
        };
        let Record { run, channel, .. } = &self.record;
        Step {
            verb,
            stage: "message",
            key: format!("{what} of {run} in {channel}"),
            fields: vec![FieldChange {
                name: "phase".into(),
                from: None,
                to: format!("{phase:?}"),
            }],
            owner: None,
        }
    }
}

#[cfg(test)]
mod tests;
