//! The outside as a source of events: what is observed of one scope is read in bulk on a timer, and
//! only objects whose part of it changed are woken. Whoever looks meanwhile looks at the mirror.

use crate::engine::{
    error::{Class, Error, Result},
    jitter::{after_by, spread_by},
    limits::Priority,
    mirror::{Mirror, Mirrored},
};
use futures::future::BoxFuture;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    future::{self, Future},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// Everything that a read found, by key.
pub type ReadOf<S> = BTreeMap<String, <S as Source>::Value>;

/// What is there under the prefixes that were asked for, by key.
pub type Snapshot<V> = BTreeMap<String, Arc<V>>;

/// How what is in a mirror is read.
pub trait Source: Send + Sync + 'static {
    /// What is mirrored.
    type Value: Mirrored;
    /// Whether a read of everything finds whatever is there. Where there is no such bulk read, it reads
    /// what somebody has asked for.
    const ENUMERATES: bool;
    /// How often it is read.
    const POLL_RATE: PollRate;

    /// Reads everything, or all of `asked`. Partial is an error, and an error is never absence.
    fn read(
        &self,
        asked: &BTreeSet<String>,
        priority: Priority,
    ) -> impl Future<Output = Result<ReadOf<Self>>> + Send
    where
        Self: Sized;
    /// Reads these, by name. What is not in the answer is not there.
    fn read_some(
        &self,
        keys: &BTreeSet<String>,
        priority: Priority,
    ) -> impl Future<Output = Result<ReadOf<Self>>> + Send
    where
        Self: Sized;
    /// Whether something there is about to change by itself, so that it is worth looking more often.
    fn is_unsettled(_: &Self::Value) -> bool {
        false
    }
    /// Ends when it is worth reading again at once.
    fn invalidated(&self) -> impl Future<Output = ()> + Send {
        future::pending()
    }
}

/// How often a scope is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollRate {
    /// `--poll-interval`.
    Poll,
    /// `--slow-poll-interval`: what changes rarely.
    Slow,
}

/// How long the rhythms are.
#[derive(Clone, Copy, Debug)]
pub struct PollIntervals {
    /// Of [`PollRate::Poll`], and of what is unsettled.
    pub poll: Duration,
    /// Of [`PollRate::Slow`].
    pub slow: Duration,
}

/// After a write of ours something may settle within seconds (PagerDuty confirms by itself), so for a
/// while we look this often.
const SOON: Duration = Duration::from_secs(10);
/// For how long.
const PATIENCE: Duration = Duration::from_secs(300);

/// Who asks, and how fresh the answer must be.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// The object's UID; it is not woken by what it finds itself.
    pub uid: String,
    /// Whether somebody waits for it.
    pub priority: Priority,
    /// How fresh the answer must be.
    pub consistency: Consistency,
    /// When the question came up.
    pub since: Instant,
}

/// How fresh an answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Consistency {
    /// As it was read last.
    Known,
    /// As it was read last, but if that failed it is tried anew: somebody has edited something.
    Retried,
    /// Read now.
    Now,
}

/// An object that wants to know of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What the keys that concern it begin with.
    pub watched_keys: BTreeSet<String>,
}

/// Is told of every object that is to look again.
pub type Waker = Arc<dyn Fn(&Subscriber) + Send + Sync>;

/// How the last read of everything went.
#[derive(Clone, Debug)]
enum Standing {
    Never,
    Good,
    Failing { error: Error, failures: u32 },
}

/// What has to be read before a question can be answered.
enum Need {
    Nothing,
    All,
    /// What a write of ours has left in doubt.
    Some(BTreeSet<String>),
}

struct State<V> {
    mirror: Mirror<V>,
    subscribers: HashMap<String, Subscriber>,
    /// What was asked for when everything was read last.
    covered: BTreeSet<String>,
    standing: Standing,
    /// When the last read of everything began, the last that ended, and the last that went well.
    attempted: Option<Instant>,
    finished: Option<Instant>,
    succeeded: Option<Instant>,
    wrote: Option<Instant>,
}

/// A scope's mirror, how it is filled, and who is woken.
pub struct Informer<S: Source> {
    /// How it is read.
    pub source: S,
    waker: Waker,
    state: Mutex<State<S::Value>>,
    /// One read at a time: whoever waits for it finds what it has read.
    turn: tokio::sync::Mutex<()>,
    moved: Notify,
    opened: Instant,
}

impl<S: Source> Informer<S> {
    /// Nothing is known yet.
    pub fn new(source: S, waker: Waker) -> Self {
        let state = State {
            mirror: Mirror::default(),
            subscribers: HashMap::new(),
            covered: BTreeSet::new(),
            standing: Standing::Never,
            attempted: None,
            finished: None,
            succeeded: None,
            wrote: None,
        };
        Self {
            source,
            waker,
            state: Mutex::new(state),
            turn: tokio::sync::Mutex::default(),
            moved: Notify::new(),
            opened: Instant::now(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<S::Value>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is there under these prefixes. Reads everything first if it was never read, if what a write
    /// of ours did is in doubt, or if the answer must be fresher than what is known.
    pub async fn snapshot(
        &self,
        prefixes: &BTreeSet<String>,
        options: &ReadOptions,
    ) -> Result<Snapshot<S::Value>> {
        if let Some(answer) = self.answer(prefixes, options) {
            return answer;
        }
        let _turn = self.turn.lock().await;
        // Whoever had the turn before may have read it.
        if let Some(answer) = self.answer(prefixes, options) {
            return answer;
        }
        let doubtful = {
            let state = self.state();
            match self.need(&state, prefixes, options) {
                Need::Some(doubtful) => Some(doubtful),
                Need::Nothing | Need::All => None,
            }
        };
        match doubtful {
            Some(doubtful) => self.read_some(&doubtful, options).await?,
            None => {
                self.read(Some(&options.uid), prefixes, options.priority)
                    .await
            }
        }
        let state = self.state();
        self.look(&state, prefixes)
    }

    /// What is known, if nothing has to be read first.
    fn answer(
        &self,
        prefixes: &BTreeSet<String>,
        options: &ReadOptions,
    ) -> Option<Result<Snapshot<S::Value>>> {
        let state = self.state();
        matches!(self.need(&state, prefixes, options), Need::Nothing)
            .then(|| self.look(&state, prefixes))
    }

    fn look(
        &self,
        state: &State<S::Value>,
        prefixes: &BTreeSet<String>,
    ) -> Result<Snapshot<S::Value>> {
        match &state.standing {
            Standing::Failing { error, .. } => return Err(error.clone()),
            Standing::Never => return Err(Error::failing("it has not been read yet")),
            Standing::Good => {}
        }
        let found = prefixes
            .iter()
            .flat_map(|prefix| state.mirror.under(prefix));
        Ok(found
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    fn need(
        &self,
        state: &State<S::Value>,
        prefixes: &BTreeSet<String>,
        options: &ReadOptions,
    ) -> Need {
        // One that is still under way says nothing yet.
        let tried = state.finished.is_some_and(|at| at >= options.since);
        let unknown = !S::ENUMERATES && !prefixes.is_subset(&state.covered);
        match (&state.standing, options.consistency) {
            (Standing::Never, _) => Need::All,
            (_, Consistency::Now) if !tried => Need::All,
            (Standing::Failing { .. }, Consistency::Retried) if !tried => Need::All,
            (Standing::Failing { .. }, _) => Need::Nothing,
            (Standing::Good, _) if unknown => Need::All,
            (Standing::Good, _) => match state.mirror.doubtful(prefixes) {
                doubtful if doubtful.is_empty() => Need::Nothing,
                doubtful => Need::Some(doubtful),
            },
        }
    }

    /// Reads these keys by name, so that nothing is done for the sake of something that is long past.
    pub async fn confirm(
        &self,
        keys: &BTreeSet<String>,
        options: &ReadOptions,
    ) -> Result<Snapshot<S::Value>> {
        self.read_some(keys, options).await?;
        let state = self.state();
        let found = keys.iter().flat_map(|key| state.mirror.under(key));
        let found = found.filter(|(key, _)| keys.contains(*key));
        Ok(found
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    /// What changed wakes even whoever asks: it looks at these keys for one reason, and may have looked
    /// past them for another.
    async fn read_some(&self, keys: &BTreeSet<String>, options: &ReadOptions) -> Result<()> {
        let ticket = self.state().mirror.begin();
        let read = self.source.read_some(keys, options.priority).await?;
        let mut state = self.state();
        let changed = state.mirror.publish_some(ticket, keys, read);
        self.moved.notify_one();
        self.wake(&state, &changed, None);
        Ok(())
    }

    /// Whether everything is known by a read that began after `since`.
    pub fn is_fresh(&self, since: Instant) -> bool {
        let state = self.state();
        matches!(state.standing, Standing::Good) && state.succeeded.is_some_and(|at| at >= since)
    }

    /// Whether this object wants to know of changes.
    pub fn is_subscribed(&self, uid: &str) -> bool {
        self.state().subscribers.contains_key(uid)
    }

    /// What is known under a prefix, however old; nothing if it was never read.
    pub fn known(&self, prefix: &str) -> Snapshot<S::Value> {
        let state = self.state();
        let found = state.mirror.under(prefix);
        found
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// A write of ours went well: what is there now.
    pub fn wrote(&self, key: &str, value: Option<S::Value>) {
        let mut state = self.state();
        state.mirror.wrote(key.to_owned(), value);
        state.wrote = Some(Instant::now());
        self.moved.notify_one();
    }

    /// A write of ours may have gone well, or says nothing of what is there now.
    pub fn doubt(&self, key: &str) {
        let mut state = self.state();
        state.mirror.doubt(key.to_owned());
        state.wrote = Some(Instant::now());
        self.moved.notify_one();
    }

    /// When to read everything again.
    fn next(&self, intervals: PollIntervals, dice: f64) -> Instant {
        let state = self.state();
        let last = state.attempted.unwrap_or(self.opened);
        let usual = match S::POLL_RATE {
            PollRate::Poll => intervals.poll,
            PollRate::Slow => intervals.slow,
        };
        let wait = match &state.standing {
            Standing::Failing { error, failures } => {
                // A refused read is not a refused item: nobody is going to edit anything for its sake.
                let class = if error.class.stops_scope() {
                    error.class
                } else {
                    Class::Failing
                };
                let error = Error {
                    class,
                    ..error.clone()
                };
                after_by(dice, &error, *failures).unwrap_or(usual)
            }
            Standing::Never | Standing::Good => {
                let unsettled = state
                    .mirror
                    .under("")
                    .any(|(_, value)| S::is_unsettled(value));
                let soon = state.wrote.is_some_and(|at| at.elapsed() < PATIENCE);
                let period = match (unsettled, soon) {
                    (true, true) => SOON.min(intervals.poll),
                    (true, false) => intervals.poll.min(usual),
                    (false, _) => usual,
                };
                spread_by(dice, period)
            }
        };
        last + wait
    }

    /// Reads everything and wakes whom it concerns. Only by whoever has the turn.
    async fn read(&self, asker: Option<&str>, prefixes: &BTreeSet<String>, priority: Priority) {
        let (ticket, asked) = {
            let mut state = self.state();
            state.attempted = Some(Instant::now());
            let held = state
                .subscribers
                .values()
                .flat_map(|subscriber| &subscriber.watched_keys);
            let asked: BTreeSet<_> = held.chain(prefixes).cloned().collect();
            (state.mirror.begin(), asked)
        };
        let read = self.source.read(&asked, priority).await;
        // Whoever polls may have to look sooner than it thought.
        self.moved.notify_one();
        let mut state = self.state();
        state.finished = state.attempted;
        match read {
            Ok(read) => {
                let changed = if S::ENUMERATES {
                    state.mirror.publish(ticket, read)
                } else {
                    state.mirror.publish_under(ticket, &asked, read)
                };
                let recovered = matches!(state.standing, Standing::Failing { .. });
                state.standing = Standing::Good;
                state.succeeded = state.attempted;
                state.covered = asked;
                if recovered {
                    self.wake_all(&state, asker);
                } else {
                    self.wake(&state, &changed, asker);
                }
            }
            // What was read last stays: a failed read is never an empty one.
            Err(error) => {
                let (failures, known) = match &state.standing {
                    Standing::Failing {
                        error: last,
                        failures,
                    } => (failures.saturating_add(1), last.class == error.class),
                    Standing::Never | Standing::Good => (1, false),
                };
                state.standing = Standing::Failing { error, failures };
                if !known {
                    self.wake_all(&state, asker);
                }
            }
        }
    }

    fn wake(&self, state: &State<S::Value>, changed: &BTreeSet<String>, asker: Option<&str>) {
        let begins = |prefix: &String| {
            let mut from = changed.range(prefix.clone()..);
            from.next().is_some_and(|key| key.starts_with(prefix))
        };
        for (uid, subscriber) in &state.subscribers {
            if asker != Some(uid.as_str()) && subscriber.watched_keys.iter().any(begins) {
                (self.waker)(subscriber);
            }
        }
    }

    fn wake_all(&self, state: &State<S::Value>, asker: Option<&str>) {
        let others = state.subscribers.iter();
        let others = others.filter(|(uid, _)| asker != Some(uid.as_str()));
        others.for_each(|(_, subscriber)| (self.waker)(subscriber));
    }
}

/// The boxed face of an [`Informer`], for whoever polls it.
pub trait Polled: Send + Sync {
    /// Reads everything.
    fn poll(&self) -> BoxFuture<'_, ()>;
    /// Ends when it is time to read everything again.
    fn due(&self, intervals: PollIntervals) -> BoxFuture<'_, ()>;
    /// This object wants to know of changes.
    fn subscribe(&self, uid: &str, subscriber: &Subscriber);
    /// It does not any more.
    fn unsubscribe(&self, uid: &str);
    /// None does any more but these.
    fn keep(&self, uids: &HashSet<String>);
    /// Whether anybody does.
    fn has_subscribers(&self) -> bool;
    /// How old the last good read is; if there was none, for how long there has been none.
    fn age(&self) -> Duration;
    /// Whether the last read failed.
    fn is_failing(&self) -> bool;
    /// How often it is read.
    fn poll_rate(&self) -> PollRate;
}

impl<S: Source> Polled for Informer<S> {
    fn poll(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let began = Instant::now();
            let _turn = self.turn.lock().await;
            // Somebody who could not wait has just done it.
            if self.state().finished.is_none_or(|at| at < began) {
                self.read(None, &BTreeSet::new(), Priority::Background)
                    .await;
            }
        })
    }

    fn due(&self, intervals: PollIntervals) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // Once, so that looking again does not roll it again.
            let dice = fastrand::f64();
            let timer = async {
                loop {
                    let due = self.next(intervals, dice);
                    if due <= Instant::now() {
                        return;
                    }
                    tokio::select! {
                        () = tokio::time::sleep_until(due) => {}
                        // A write of ours may settle soon.
                        () = self.moved.notified() => {}
                    }
                }
            };
            tokio::select! {
                () = timer => {}
                () = self.source.invalidated() => {}
            }
        })
    }

    fn subscribe(&self, uid: &str, subscriber: &Subscriber) {
        let mut state = self.state();
        if state.subscribers.get(uid) != Some(subscriber) {
            state.subscribers.insert(uid.to_owned(), subscriber.clone());
        }
    }

    fn unsubscribe(&self, uid: &str) {
        self.state().subscribers.remove(uid);
    }

    fn keep(&self, uids: &HashSet<String>) {
        self.state().subscribers.retain(|uid, _| uids.contains(uid));
    }

    fn has_subscribers(&self) -> bool {
        !self.state().subscribers.is_empty()
    }

    fn age(&self) -> Duration {
        let succeeded = self.state().succeeded;
        succeeded.unwrap_or(self.opened).elapsed()
    }

    fn is_failing(&self) -> bool {
        matches!(self.state().standing, Standing::Failing { .. })
    }

    fn poll_rate(&self) -> PollRate {
        S::POLL_RATE
    }
}

#[cfg(test)]
mod tests;
