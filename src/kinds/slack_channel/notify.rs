//! Messages about long-running work: one per run and channel, posted when the run starts, edited in place as it
//! gets on and when it is over, its details as answers in its thread.
//!
//! Posting is not idempotent: Slack takes no key by which it would know a message again. So the intent is saved
//! in the caller's [`Ledger`] before each post, and the message's `ts` right after. Where the process dies in
//! between, or the answer is lost, nobody knows whether the message is there, and **it is not posted again: one
//! message may be lost, none is there twice**. What a start in doubt leads to: the run's progress is dropped, for
//! there is nothing to edit; its end is posted as a message of its own, once; with it, the details. What Slack has
//! certainly refused was not posted: the intent is withdrawn, and it may be tried again.
//!
//! An edit may be repeated, so it takes no intent. An incoming webhook says nothing of the message that it has
//! posted: by it there is a message for the start and one for the end, which has the reason of a failure in it.

use super::{
    Token,
    message::{self, Phase, Redact, Run, clean, clip},
    report::{CHANNEL_READY, WEBHOOK_READY},
    workspace::Access,
};
use crate::{
    api::{KeyRef, SlackChannel},
    clients::{
        Clients,
        secret::Secret,
        slack::{Bot, Post, Posted, Refusal, Slack, api},
    },
    engine::{
        error::{Class, Error, On, Result},
        jitter,
        plan::{FieldChange, Step, Verb},
        stage::{Applied, Gate, Operation},
    },
    kinds::cluster_view::ClusterView,
};
use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt, future::Future, slice, time::Duration};
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
pub const MOST_DETAILS: usize = 50;

/// What the gate and the audit line call a message.
const STAGE: &str = "message";

/// The most characters of a field in the audit line.
const FIELD: usize = 200;

/// Why there is nothing to edit where there was: the message was deleted, another bot has posted it (the token is of
/// another app now), or the workspace lets nobody edit for so long.
const GONE: [&str; 3] = [
    "cant_update_message",
    "edit_window_closed",
    "message_not_found",
];

/// How certain it is that something was posted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    /// It was about to be. Where this stands in the ledger of a process that begins, nobody knows.
    Intended,
    /// It was.
    Posted,
}

/// What is known of a run's message in a channel: the caller keeps it in its own status for as long as it tells
/// of the run, and changes nothing in it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Posting {
    /// The run.
    run: String,
    /// The SlackChannel.
    channel: String,
    /// Where the message is, by Slack's id; nothing where there is none that can be edited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    channel_id: Option<String>,
    /// Which message of that channel it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ts: Option<String>,
    /// Whether the start was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started: Option<Delivery>,
    /// Whether the end was told, by a message or by an edit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<Delivery>,
    /// How many of the details were told, or were about to be.
    #[serde(default, skip_serializing_if = "is_zero")]
    details: i32,
}

fn is_zero(count: &i32) -> bool {
    *count == 0
}

/// What of a run is posted; each at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Start,
    End,
    /// By its number, from 0.
    Detail(usize),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("start"),
            Self::End => f.write_str("end"),
            Self::Detail(number) => write!(f, "detail {}", number + 1),
        }
    }
}

impl Posting {
    fn new(run: &str, channel: &str) -> Self {
        Self {
            run: run.to_owned(),
            channel: channel.to_owned(),
            channel_id: None,
            ts: None,
            started: None,
            ended: None,
            details: 0,
        }
    }

    /// The id of the run.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// The name of the SlackChannel.
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// The message that can be edited and answered: the channel's id and the message's `ts`. None by a webhook, and
    /// none where nobody knows whether it is there.
    pub fn message(&self) -> Option<(&str, &str)> {
        Some((self.channel_id.as_deref()?, self.ts.as_deref()?))
    }

    /// This part is about to be posted.
    fn intended(&self, part: Part) -> Self {
        let mut intended = self.clone();
        match part {
            Part::Start => intended.started = Some(Delivery::Intended),
            Part::End => intended.ended = Some(Delivery::Intended),
            Part::Detail(number) => {
                intended.details = i32::try_from(number + 1).unwrap_or(i32::MAX);
            }
        }
        intended
    }

    /// It was posted; `at` is where, if that is known.
    fn posted(mut self, part: Part, at: Option<Posted>) -> Self {
        match part {
            Part::Start => self.started = Some(Delivery::Posted),
            Part::End => self.ended = Some(Delivery::Posted),
            // They answer the message, and are none themselves.
            Part::Detail(_) => return self,
        }
        (self.channel_id, self.ts) = at.map(|at| (at.channel, at.ts)).unzip();
        self
    }

    /// The message says how the run ended.
    fn edited_to_the_end(self) -> Self {
        Self {
            ended: Some(Delivery::Posted),
            ..self
        }
    }

    /// There is no message to edit.
    fn gone(self) -> Self {
        Self {
            channel_id: None,
            ts: None,
            ..self
        }
    }
}

/// Where a caller keeps its postings, in its own status: one per run and channel.
pub trait Ledger: Send {
    /// What was saved last of this run in this channel.
    fn known(&self, run: &str, channel: &str) -> Option<Posting>;
    /// Puts this in the place of what is known of its run in its channel, and returns when a process that begins
    /// would find it there. After an error it may be there or not; it is saved again before anything else is done.
    /// Refuses once another process may be at the same object.
    fn save<'a>(&'a mut self, posting: &'a Posting) -> BoxFuture<'a, Result<()>>;
}

/// What came of telling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Told {
    /// Slack says all that is to be said, as far as it ever will.
    All,
    /// The progress comes too early after what was told before: tell of the run, as it is then, after this time.
    Later(Duration),
}

/// The way into a channel for what the operator says itself. Its secrets cannot be printed.
#[derive(Clone, Debug)]
pub struct Door {
    /// For whom it opens, for people: where the secret is.
    identity: String,
    /// What one refusal stops.
    scope: String,
    by: By,
}

#[derive(Clone, Debug)]
enum By {
    Bot {
        bot: Bot,
        channel_id: String,
    },
    Webhook {
        slack: Slack,
        url: Secret,
        key: String,
    },
    Nothing,
}

impl Door {
    /// By a bot into the channel of that id. `identity` is for people: where its token is.
    pub fn bot(bot: Bot, channel_id: String, identity: String) -> Self {
        Self {
            identity,
            scope: format!("slack {}", bot.key()),
            by: By::Bot { bot, channel_id },
        }
    }

    /// By an incoming webhook. `key` stands for its URL where that must not be seen: a digest.
    pub fn webhook(slack: Slack, url: Secret, key: String, identity: String) -> Self {
        Self {
            identity,
            scope: format!("slack {key}"),
            by: By::Webhook { slack, url, key },
        }
    }

    /// None at all: whatever is told goes nowhere, without a word.
    pub fn nowhere() -> Self {
        Self {
            identity: String::new(),
            scope: String::new(),
            by: By::Nothing,
        }
    }
}

/// The way into the channel of the SlackChannel of that name, if one is named: by the bot that looks after the
/// channel, or else by the webhook. Where neither is ready, the error is of class `Waiting(On::Channel)`; the
/// SlackChannel's own conditions say the same, so a caller may leave it at that.
pub async fn door(
    channel: Option<&str>,
    namespace: &str,
    cluster: &ClusterView<'_>,
    clients: &Clients,
) -> Result<Door> {
    let Some(name) = channel else {
        return Ok(Door::nowhere());
    };
    let found = cluster.get::<SlackChannel>(namespace, name).await?;
    let Ways {
        channel,
        bot,
        webhook,
        mut wanting,
    } = ways(found.as_ref(), name, namespace)?;
    let digester = &cluster.installation.digester;
    if let Some((declared, id)) = bot {
        match channel.token(declared, namespace, cluster).await {
            Ok(Token { secret, source }) => {
                let Access { key, .. } = Access::by_token(secret.clone(), digester);
                let bot = clients.slack.bot(secret, key);
                return Ok(Door::bot(bot, id.to_owned(), source));
            }
            Err(error) if error.class.passes() => return Err(error),
            Err(error) => wanting = error.message,
        }
    }
    if let Some(reference) = webhook {
        match super::webhook(namespace, reference, cluster).await {
            Ok(url) => {
                let key = digester.digest(url.reveal()).to_string();
                let identity = super::place_of(namespace, reference);
                return Ok(Door::webhook(clients.slack.clone(), url, key, identity));
            }
            Err(error) if error.class.passes() => return Err(error),
            Err(error) => wanting = error.message,
        }
    }
    Err(not_ready(name, namespace, &wanting))
}

/// What may lead into a channel, as its object says.
#[derive(Debug, PartialEq)]
struct Ways<'a> {
    channel: &'a SlackChannel,
    /// The channel's name in the spec, and its id.
    bot: Option<(&'a str, &'a str)>,
    webhook: Option<&'a KeyRef>,
    /// What is wanting where there is neither.
    wanting: String,
}

fn not_ready(name: &str, namespace: &str, wanting: &str) -> Error {
    let message = format!("SlackChannel {namespace}/{name} is not ready: {wanting}");
    Error::new(Class::Waiting(On::Channel), message)
}

fn ways<'a>(channel: Option<&'a SlackChannel>, name: &str, namespace: &str) -> Result<Ways<'a>> {
    let Some(channel) = channel else {
        let message = format!(
            "SlackChannel {namespace}/{name} does not exist: create it, or take it out of spec.notify"
        );
        return Err(Error::new(Class::Waiting(On::Channel), message));
    };
    if channel.metadata.deletion_timestamp.is_some() {
        return Err(not_ready(name, namespace, "it is being deleted"));
    }
    let status = channel.status.as_ref();
    let condition = |type_: &str| {
        let mut all = status.into_iter().flat_map(|status| &status.conditions);
        all.find(|one| one.type_ == type_)
    };
    // One that nobody could look at lately is as good as it was.
    let is_ready = |type_| condition(type_).is_some_and(|one| one.status != "False");
    let id = status.and_then(|status| status.channel_id.as_deref());
    let bot = channel.spec.channel.as_deref().zip(id);
    let webhook = channel.spec.webhook_secret_ref.as_ref();
    let said = [CHANNEL_READY, WEBHOOK_READY, "Ready"].map(|type_| {
        let one = condition(type_).filter(|one| one.status == "False");
        one.map(|one| one.message.clone())
    });
    let said = said.into_iter().flatten().find(|said| !said.is_empty());
    Ok(Ways {
        channel,
        bot: bot.filter(|_| is_ready(CHANNEL_READY)),
        webhook: webhook.filter(|_| is_ready(WEBHOOK_READY)),
        wanting: said.unwrap_or_else(|| "nothing is known of it yet".into()),
    })
}

/// What a way into a channel can do.
trait Way: Sync {
    /// The channel's id, where messages can be edited and answered.
    fn channel(&self) -> Option<&str>;
    /// What must never be said through it.
    fn secret(&self) -> Option<&Secret>;
    /// The call that posts, or edits, in that channel.
    fn operation<'a>(&'a self, edits: bool, channel: &'a str) -> Operation<'a>;
    /// Posts; says where the message is, if that is known.
    fn post(
        &self,
        channel: &str,
        post: &Post,
    ) -> impl Future<Output = Result<Option<Posted>, Refusal>> + Send;
    /// Makes a message into this one.
    fn edit(
        &self,
        channel: &str,
        ts: &str,
        post: &Post,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;
}

impl Way for Door {
    fn channel(&self) -> Option<&str> {
        match &self.by {
            By::Bot { channel_id, .. } => Some(channel_id),
            By::Webhook { .. } | By::Nothing => None,
        }
    }

    fn secret(&self) -> Option<&Secret> {
        match &self.by {
            By::Webhook { url, .. } => Some(url),
            // What looks like a token is never said.
            By::Bot { .. } | By::Nothing => None,
        }
    }

    fn operation<'a>(&'a self, edits: bool, channel: &'a str) -> Operation<'a> {
        let (account, region, api) = match &self.by {
            By::Bot { bot, .. } => {
                let api = if edits { api::UPDATE } else { api::POST };
                let (account, region) = bot.quota(api, channel);
                (account, region, api)
            }
            By::Webhook { key, .. } => (key.as_str(), "", api::WEBHOOK),
            By::Nothing => ("", "", api::WEBHOOK),
        };
        Operation {
            scope: &self.scope,
            account,
            region,
            identity: &self.identity,
            api,
        }
    }

    async fn post(&self, channel: &str, post: &Post) -> Result<Option<Posted>, Refusal> {
        match &self.by {
            By::Bot { bot, .. } => bot.post(channel, post).await.map(Some),
            By::Webhook { slack, url, .. } => slack.post_webhook(url, post).await.map(|()| None),
            By::Nothing => Ok(None),
        }
    }

    async fn edit(&self, channel: &str, ts: &str, post: &Post) -> Result<(), Refusal> {
        match &self.by {
            By::Bot { bot, .. } => bot.update(channel, ts, post).await.map(drop),
            By::Webhook { .. } | By::Nothing => Err(Refusal {
                code: "cant_update_message".into(),
                error: Error::new(Class::Rejected, "by a webhook no message can be edited"),
            }),
        }
    }
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
enum Deed {
    Post(Part),
    Edit,
}

/// What is to be done next so that a channel hears of a run what it is to hear. `edits`: whether messages can be
/// edited and answered there. `stale`: whether the message says something else than it is to say, and it is time to
/// edit it. Pure.
fn next(
    posting: &Posting,
    run: &Run,
    on: &BTreeSet<Phase>,
    edits: bool,
    stale: bool,
) -> Option<Deed> {
    let there = edits && posting.message().is_some();
    let wanted = on.contains(&run.phase);
    match (run.phase.is_over(), posting.started, posting.ended) {
        // What is told as over is over.
        (false, _, Some(_)) => return None,
        (false, None, None) => return wanted.then_some(Deed::Post(Part::Start)),
        // Whoever saw it begin is not left with that, whatever else is to be heard of.
        (true, _, None) if there => return Some(Deed::Edit),
        (true, _, None) => return wanted.then_some(Deed::Post(Part::End)),
        (false, Some(_), None) if there && stale => return Some(Deed::Edit),
        (false, Some(_), None) | (true, _, Some(_)) => {}
    }
    let told = usize::try_from(posting.details).unwrap_or_default();
    let more = told < run.details.len().min(MOST_DETAILS);
    (there && more).then_some(Deed::Post(Part::Detail(told)))
}

/// What tells one channel of an object's runs. It remembers what the message of the run at hand says, and what the
/// ledger could not save, so it is kept for as long as the run is under way. Where it is lost, the message is edited
/// once more than it need be, and what the ledger does not know is in doubt.
#[derive(Debug)]
pub struct Notifier {
    channel: String,
    on: BTreeSet<Phase>,
    redact: Redact,
    shown: Option<Shown>,
    /// What is so, and may not be in the ledger.
    unsaved: Option<Posting>,
    /// Until when Slack asked us to stay away, and with which error.
    away: Option<(Instant, Error)>,
}

/// What a message says, and since when.
#[derive(Debug)]
struct Shown {
    run: String,
    post: Post,
    at: Instant,
}

/// Whether a message is to be edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// It says what it is to say.
    No,
    Now,
    After(Duration),
}

/// One telling, all that stays the same in it.
struct Telling<'a, W> {
    way: &'a W,
    run: &'a Run,
    gate: &'a dyn Gate,
    redact: Redact,
    /// The run's message, as it is to be.
    message: Post,
}

impl Notifier {
    /// For the SlackChannel of that name. `on`: which phases are worth a message there; one that is there is kept
    /// true whatever they are. `secrets` are never said.
    pub fn new<'a>(
        channel: &str,
        on: impl IntoIterator<Item = Phase>,
        secrets: impl IntoIterator<Item = &'a Secret>,
    ) -> Self {
        Self {
            channel: channel.to_owned(),
            on: on.into_iter().collect(),
            redact: Redact::new(secrets),
            shown: None,
            unsaved: None,
            away: None,
        }
    }

    /// Makes the channel say how the run is. May be called at any time and again: what has been told already is
    /// not told again, and what came too often is told later. At most one at a time for a run and channel.
    ///
    /// An error says what Slack, the gate or the ledger has refused. Nothing is lost by it but what it says of a
    /// message in doubt (class `Cut`); told again, after the error's time, what can still be told is.
    pub async fn tell(
        &mut self,
        door: &Door,
        run: &Run,
        ledger: &mut dyn Ledger,
        gate: &dyn Gate,
    ) -> Result<Told> {
        match door.by {
            By::Nothing => Ok(Told::All),
            By::Bot { .. } | By::Webhook { .. } => self.tell_by(door, run, ledger, gate).await,
        }
    }

    /// Tells of a run from now to its end, each time that something new is said of it, however often that is: what
    /// is said last always goes out. What passes by itself is waited for; any other error is returned, and whoever
    /// has mended it may begin again. Ends, too, when everything is told and nobody is left to say more.
    pub async fn follow(
        &mut self,
        door: &Door,
        runs: &mut watch::Receiver<Run>,
        ledger: &mut dyn Ledger,
        gate: &dyn Gate,
    ) -> Result<()> {
        match door.by {
            By::Nothing => Ok(()),
            By::Bot { .. } | By::Webhook { .. } => self.follow_by(door, runs, ledger, gate).await,
        }
    }

    async fn follow_by<W: Way>(
        &mut self,
        way: &W,
        runs: &mut watch::Receiver<Run>,
        ledger: &mut dyn Ledger,
        gate: &dyn Gate,
    ) -> Result<()> {
        let mut failures = 0;
        loop {
            let run = runs.borrow_and_update().clone();
            match self.tell_by(way, &run, ledger, gate).await {
                Ok(Told::All) => {
                    failures = 0;
                    if run.phase.is_over() || runs.changed().await.is_err() {
                        return Ok(());
                    }
                }
                Ok(Told::Later(wait)) => {
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

    async fn tell_by<W: Way>(
        &mut self,
        way: &W,
        run: &Run,
        ledger: &mut dyn Ledger,
        gate: &dyn Gate,
    ) -> Result<Told> {
        let redact = self.redact.and(way.secret());
        let edits = way.channel().is_some();
        let message = if edits {
            message::message(run, &redact)
        } else {
            message::message_without_thread(run, &redact)
        };
        let telling = Telling {
            way,
            run,
            gate,
            redact,
            message,
        };
        if let Some(unsaved) = self.unsaved.take() {
            self.save(&unsaved, &unsaved, ledger).await?;
        }
        let known = ledger.known(&run.id, &self.channel);
        let mut posting = known.unwrap_or_else(|| Posting::new(&run.id, &self.channel));
        loop {
            let due = self.due(&run.id, &telling.message);
            let Some(deed) = next(&posting, run, &self.on, edits, due == Due::Now) else {
                let there = edits && posting.message().is_some();
                return Ok(match due {
                    Due::After(wait) if there && posting.ended.is_none() => Told::Later(wait),
                    _ => Told::All,
                });
            };
            self.may_call()?;
            let done = match deed {
                Deed::Post(part) => self.post(&telling, part, posting, ledger).await,
                Deed::Edit => self.edit(&telling, posting, ledger).await,
            };
            posting = done.inspect_err(|error| {
                let until = error.wait.map(|wait| Instant::now() + wait);
                self.away = until.map(|until| (until, error.clone()));
            })?;
        }
    }

    /// Whether the run's message is to be edited so that it says this.
    fn due(&self, run: &str, post: &Post) -> Due {
        match self.shown.as_ref().filter(|shown| shown.run == run) {
            None => Due::Now,
            Some(shown) if shown.post == *post => Due::No,
            Some(shown) => match EDIT_EVERY.saturating_sub(shown.at.elapsed()) {
                Duration::ZERO => Due::Now,
                wait => Due::After(wait),
            },
        }
    }

    /// The error again, while Slack wants us to stay away.
    fn may_call(&self) -> Result<()> {
        let Some((until, error)) = &self.away else {
            return Ok(());
        };
        match until.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Ok(()),
            wait => Err(error.clone().after(wait)),
        }
    }

    /// Saves a posting. Where that fails, `so` is how it is.
    async fn save(
        &mut self,
        posting: &Posting,
        so: &Posting,
        ledger: &mut dyn Ledger,
    ) -> Result<()> {
        let saved = ledger.save(posting).await;
        if saved.is_err() {
            self.unsaved = Some(so.clone());
        }
        saved
    }

    /// Nothing was posted: the ledger is to say what it said before.
    async fn withdraw(&mut self, before: &Posting, ledger: &mut dyn Ledger) {
        if let Err(error) = self.save(before, before, ledger).await {
            let Posting { run, channel, .. } = before;
            tracing::warn!(run, channel, %error, "an intent could not be withdrawn yet: should the process end before it is, this message is not posted");
        }
    }

    fn show(&mut self, run: &Run, post: &Post) {
        self.shown = Some(Shown {
            run: run.id.clone(),
            post: post.clone(),
            at: Instant::now(),
        });
    }

    async fn post<W: Way>(
        &mut self,
        telling: &Telling<'_, W>,
        part: Part,
        posting: Posting,
        ledger: &mut dyn Ledger,
    ) -> Result<Posting> {
        let Telling {
            way,
            run,
            gate,
            redact,
            message,
        } = telling;
        let (channel, post) = match (part, posting.message()) {
            (Part::Detail(number), Some((channel, ts))) => {
                let detail = run.details.get(number).map_or("", String::as_str);
                let post = Post {
                    thread_ts: Some(ts.to_owned()),
                    ..message::reply(detail, redact)
                };
                (channel, post)
            }
            _ => (way.channel().unwrap_or_default(), message.clone()),
        };
        let operation = way.operation(false, channel);
        let step = self.step(Verb::Create, &part.to_string(), telling);
        if let Some(refusal) = gate.refused(operation.scope, &step) {
            return Err(refusal);
        }
        let intended = posting.intended(part);
        self.save(&intended, &posting, ledger).await?;
        // Last, so that what it says holds when the call is sent.
        if let Err(refused) = gate.enter(operation, slice::from_ref(&step)).await {
            self.withdraw(&posting, ledger).await;
            return Err(refused);
        }
        let sent = way.post(channel, &post).await;
        gate.answered(operation, sent.is_ok());
        let outcome = match &sent {
            Ok(Some(at)) => Ok(Applied::Id(at.ts.clone())),
            Ok(None) => Ok(Applied::ReconcileResult),
            Err(refusal) => Err(refusal.error.clone()),
        };
        gate.leave(operation, &step, &outcome);
        let detail = matches!(part, Part::Detail(_));
        match sent {
            // What was intended says all there is to say.
            Ok(_) if detail => Ok(intended),
            Ok(at) => {
                let posted = intended.posted(part, at);
                self.show(run, &post);
                self.save(&posted, &posted, ledger).await?;
                Ok(posted)
            }
            Err(Refusal { error, .. }) => {
                let kept = match error.class {
                    // It may be there.
                    Class::Cut => true,
                    // A thread that takes no answers will not take the next time either, and keeps the others waiting.
                    Class::Rejected => detail,
                    _ => false,
                };
                if !kept {
                    self.withdraw(&posting, ledger).await;
                }
                Err(match error.class {
                    Class::Cut => Error {
                        message: format!(
                            "{}: the message may be there or not, and is not posted again",
                            error.message
                        ),
                        ..error
                    },
                    _ => error,
                })
            }
        }
    }

    async fn edit<W: Way>(
        &mut self,
        telling: &Telling<'_, W>,
        posting: Posting,
        ledger: &mut dyn Ledger,
    ) -> Result<Posting> {
        let Telling {
            way,
            run,
            gate,
            message,
            ..
        } = telling;
        let Some((channel, ts)) = posting.message() else {
            return Ok(posting);
        };
        let operation = way.operation(true, channel);
        let step = self.step(Verb::Update, "message", telling);
        if let Some(refusal) = gate.refused(operation.scope, &step) {
            return Err(refusal);
        }
        gate.enter(operation, slice::from_ref(&step)).await?;
        let edited = way.edit(channel, ts, message).await;
        gate.answered(operation, edited.is_ok());
        let outcome = match &edited {
            Ok(()) => Ok(Applied::ReconcileResult),
            Err(refusal) => Err(refusal.error.clone()),
        };
        gate.leave(operation, &step, &outcome);
        match edited {
            Ok(()) => {
                self.show(run, message);
                if !run.phase.is_over() {
                    return Ok(posting);
                }
                let told = posting.edited_to_the_end();
                self.save(&told, &told, ledger).await?;
                Ok(told)
            }
            Err(refusal) => {
                // The channel has another id, or the object another channel.
                let moved = refusal.code == "channel_not_found" && way.channel() != Some(channel);
                if !moved && !GONE.contains(&refusal.code.as_str()) {
                    return Err(refusal.error);
                }
                let gone = posting.gone();
                self.save(&gone, &gone, ledger).await?;
                Ok(gone)
            }
        }
    }

    /// A post or an edit, for the audit line.
    fn step<W>(&self, verb: Verb, what: &str, telling: &Telling<'_, W>) -> Step {
        let Telling { run, redact, .. } = telling;
        let field = |name: &str, to: &str| FieldChange {
            name: name.to_owned(),
            from: None,
            to: clip(&clean(to, redact), FIELD),
        };
        let mut fields = vec![field("phase", &run.phase.to_string())];
        if !run.progress.is_empty() {
            fields.push(field("progress", &run.progress));
        }
        Step {
            verb,
            stage: STAGE,
            key: format!("{what} of {} in {}", clean(&run.id, redact), self.channel),
            fields,
            owner: None,
        }
    }
}

#[cfg(test)]
mod tests;
