//! The outside as a source of events: what is observed of one scope is read in bulk on a timer, and
//! only objects whose part of it changed are woken. Whoever looks meanwhile looks at the mirror.

use crate::engine::{
    error::{Class, Error, Result},
    jitter::{after_by, spread_by},
    limits::Priority,
    mirror::{InformerKey, Mirror, Mirrored},
};
use futures::FutureExt;
use parking_lot::Mutex;
use std::{
    any::Any,
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    future::{self, Future},
    panic::AssertUnwindSafe,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Everything that a read found, by key.
pub type ReadOf<S> = BTreeMap<<S as Source>::Key, <S as Source>::Value>;

/// What is there under the prefixes that were asked for, by key.
pub type Snapshot<V, K = String> = BTreeMap<K, Arc<V>>;

/// How what is in a mirror is read.
pub trait Source: Send + Sync + 'static {
    /// What tells the things apart.
    type Key: InformerKey;
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
        asked: &BTreeSet<Self::Key>,
        priority: Priority,
    ) -> impl Future<Output = Result<ReadOf<Self>>> + Send
    where
        Self: Sized;
    /// Reads these, by name. What is not in the answer is not there.
    fn read_some(
        &self,
        keys: &BTreeSet<Self::Key>,
        priority: Priority,
    ) -> impl Future<Output = Result<ReadOf<Self>>> + Send
    where
        Self: Sized,
    {
        self.read(keys, priority)
    }
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

/// How long the intervals between two reads are.
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
    /// Cancelled when nobody wants the answer any more: whatever waits for it ends at once.
    pub superseded: CancellationToken,
}

impl ReadOptions {
    /// What `answer` ends with, unless nobody wants it any more.
    pub fn unless_superseded<T>(
        &self,
        answer: impl Future<Output = Result<T>>,
    ) -> impl Future<Output = Result<T>> {
        // Readers' futures are large.
        let answer = self.superseded.run_until_cancelled(Box::pin(answer));
        async {
            answer.await.unwrap_or_else(|| {
                let message = "the object has moved on while this was read";
                Err(Error::new(Class::Superseded, message))
            })
        }
    }
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
    /// Its kind.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// Is told of every object that is to look again.
pub type Waker = Arc<dyn Fn(&Subscriber) + Send + Sync>;

/// How informers are kept up to date, and who is told.
#[derive(Clone)]
pub struct Polling {
    /// `None` where nobody polls: a plan looks once.
    pub intervals: Option<PollIntervals>,
    /// Is told of every object that is to look again.
    pub waker: Waker,
}

impl Polling {
    /// Nobody polls, and nobody is told.
    pub fn none() -> Self {
        Self {
            intervals: None,
            waker: Arc::new(|_| {}),
        }
    }
}

/// The wish of an object to know of changes under some keys of one informer. Ends when it is dropped.
pub struct Subscription(#[expect(dead_code)] Arc<dyn Any + Send + Sync>);

struct Interest<K> {
    subscriber: Subscriber,
    keys: BTreeSet<K>,
    /// Ends the polling with the last of them.
    polling: Option<Arc<DropGuard>>,
}

/// Why the last read of everything failed, and how many in a row did.
struct Failure {
    error: Error,
    times: u32,
}

/// The answer to a question, or what has to be read before.
enum Answer<S: Source> {
    Known(Result<Snapshot<S::Value, S::Key>>),
    ReadAll,
    /// What a write of ours has left in doubt.
    Read(BTreeSet<S::Key>),
}

struct State<S: Source> {
    mirror: Mirror<S::Key, S::Value>,
    interests: Vec<Weak<Interest<S::Key>>>,
    /// Since when somebody subscribes.
    opened: Instant,
    /// What was asked for when everything was read last.
    covered: BTreeSet<S::Key>,
    /// When the read of everything began that is under way.
    reading: Option<Instant>,
    /// When the last one began that has ended, if any has, and the last that went well.
    finished: Option<Instant>,
    succeeded: Option<Instant>,
    /// Of the last one that has ended.
    failure: Option<Failure>,
    wrote: Option<Instant>,
}

impl<S: Source> State<S> {
    fn interests(&self) -> impl Iterator<Item = Arc<Interest<S::Key>>> {
        self.interests.iter().filter_map(Weak::upgrade)
    }
}

/// A scope's mirror, how it is filled, and who is woken. Polled as long as anybody subscribes.
pub struct Informer<S: Source> {
    /// How it is read.
    pub source: S,
    polling: Polling,
    state: Mutex<State<S>>,
    /// One read at a time: whoever waits for it finds what it has read.
    turn: tokio::sync::Mutex<()>,
    moved: Notify,
}

impl<S: Source> Informer<S> {
    /// Nothing is known yet.
    pub fn new(source: S, polling: &Polling) -> Arc<Self> {
        let state = State {
            mirror: Mirror::default(),
            interests: Vec::new(),
            opened: Instant::now(),
            covered: BTreeSet::new(),
            reading: None,
            finished: None,
            succeeded: None,
            failure: None,
            wrote: None,
        };
        Arc::new(Self {
            source,
            polling: polling.clone(),
            state: Mutex::new(state),
            turn: tokio::sync::Mutex::default(),
            moved: Notify::new(),
        })
    }

    /// An object wants to know of changes under these keys.
    pub fn subscribe(
        self: &Arc<Self>,
        subscriber: &Subscriber,
        keys: BTreeSet<S::Key>,
    ) -> Subscription {
        let mut state = self.state.lock();
        let other = state.interests().next();
        let polling = match &other {
            Some(other) => other.polling.clone(),
            None => {
                // Nobody has kept it up to date until now.
                state.mirror.expire();
                state.covered.clear();
                (state.finished, state.succeeded, state.failure) = (None, None, None);
                state.opened = Instant::now();
                self.polling.intervals.map(|intervals| {
                    let end = CancellationToken::new();
                    let polling = self.clone().keep_up_to_date(intervals);
                    tokio::spawn(end.clone().run_until_cancelled_owned(polling));
                    Arc::new(end.drop_guard())
                })
            }
        };
        let interest = Arc::new(Interest {
            subscriber: subscriber.clone(),
            keys,
            polling,
        });
        state.interests.retain(|it| it.strong_count() > 0);
        state.interests.push(Arc::downgrade(&interest));
        Subscription(interest)
    }

    /// Whether this object wants to know of changes.
    pub fn is_subscribed(&self, uid: &str) -> bool {
        let state = self.state.lock();
        state.interests().any(|it| it.subscriber.uid == uid)
    }

    /// What is there under these prefixes. Reads everything first if it was never read, if what a write
    /// of ours did is in doubt, or if the answer must be fresher than what is known.
    pub async fn snapshot(
        &self,
        prefixes: &BTreeSet<S::Key>,
        options: &ReadOptions,
    ) -> Result<Snapshot<S::Value, S::Key>> {
        if let Answer::Known(answer) = self.answer(prefixes, options) {
            return answer;
        }
        let read = async {
            let _turn = self.turn.lock().await;
            loop {
                // Whoever had the turn before may have read it.
                match self.answer(prefixes, options) {
                    Answer::Known(answer) => return answer,
                    Answer::Read(invalidated) => self.read_some(&invalidated, options).await?,
                    Answer::ReadAll => {
                        let asker = Some(options.uid.as_str());
                        self.read(asker, prefixes, options.priority).await;
                    }
                }
            }
        };
        options.unless_superseded(read).await
    }

    fn answer(&self, prefixes: &BTreeSet<S::Key>, options: &ReadOptions) -> Answer<S> {
        let state = self.state.lock();
        // One that is still under way says nothing yet.
        let tried = state.finished.is_some_and(|at| at >= options.since);
        let anew = match options.consistency {
            // What nobody subscribes to is not kept up to date.
            _ if state.interests().next().is_none() => true,
            Consistency::Known => false,
            Consistency::Retried => state.failure.is_some(),
            Consistency::Now => true,
        };
        if state.finished.is_none() || anew && !tried {
            return Answer::ReadAll;
        }
        if let Some(failure) = &state.failure {
            return Answer::Known(Err(failure.error.clone()));
        }
        if !S::ENUMERATES && !prefixes.is_subset(&state.covered) {
            return Answer::ReadAll;
        }
        match state.mirror.invalidated(prefixes) {
            invalidated if invalidated.is_empty() => {
                Answer::Known(Ok(state.mirror.under(prefixes)))
            }
            invalidated => Answer::Read(invalidated),
        }
    }

    /// What is there of these keys now, so that nothing is done for the sake of something that is long past;
    /// `None` where what is known was read for this very question.
    pub async fn confirm(
        &self,
        keys: &BTreeSet<S::Key>,
        options: &ReadOptions,
    ) -> Result<Option<Snapshot<S::Value, S::Key>>> {
        if self.is_fresh(options.since) {
            return Ok(None);
        }
        self.look_up(keys, options).await.map(Some)
    }

    /// Reads these keys by name.
    pub async fn look_up(
        &self,
        keys: &BTreeSet<S::Key>,
        options: &ReadOptions,
    ) -> Result<Snapshot<S::Value, S::Key>> {
        let read = self.read_some(keys, options);
        options.unless_superseded(read).await?;
        let state = self.state.lock();
        let known = |key: &S::Key| Some((key.clone(), state.mirror.get(key)?.clone()));
        Ok(keys.iter().filter_map(known).collect())
    }

    /// What changed wakes even whoever asks: it looks at these keys for one reason, and may have looked
    /// past them for another.
    async fn read_some(&self, keys: &BTreeSet<S::Key>, options: &ReadOptions) -> Result<()> {
        let ticket = self.state.lock().mirror.begin();
        let read = self.source.read_some(keys, options.priority).await?;
        let mut state = self.state.lock();
        let changed = state.mirror.publish_some(ticket, keys, read);
        self.moved.notify_one();
        self.wake(&state, Some(&changed), None);
        Ok(())
    }

    /// Whether everything is known by a read that began after `since`.
    pub fn is_fresh(&self, since: Instant) -> bool {
        let state = self.state.lock();
        state.failure.is_none() && state.succeeded.is_some_and(|at| at >= since)
    }

    /// What is known under these prefixes, however old; nothing if it was never read.
    pub fn known(&self, prefixes: &BTreeSet<S::Key>) -> Snapshot<S::Value, S::Key> {
        self.state.lock().mirror.under(prefixes)
    }

    /// What is known by this very key, however old.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<Arc<S::Value>>
    where
        S::Key: Borrow<Q>,
    {
        self.state.lock().mirror.get(key).cloned()
    }

    /// A write of ours went well: what is there now.
    pub fn wrote(&self, key: impl Into<S::Key>, value: Option<S::Value>) {
        let mut state = self.state.lock();
        state.mirror.wrote(key.into(), value);
        state.wrote = Some(Instant::now());
        self.moved.notify_one();
    }

    /// A write of ours may have gone well, or says nothing of what is there now.
    pub fn invalidate(&self, key: impl Into<S::Key>) {
        let mut state = self.state.lock();
        state.mirror.invalidate(key.into());
        state.wrote = Some(Instant::now());
        self.moved.notify_one();
    }

    /// What a write of ours came to: what is there `now` where it went well, doubt where nobody knows.
    pub fn note<T>(
        &self,
        key: impl Into<S::Key>,
        outcome: Result<T, &Error>,
        now: impl FnOnce() -> Option<S::Value>,
    ) {
        match outcome {
            Ok(_) => self.wrote(key, now()),
            Err(error) if error.class.may_have_landed() => self.invalidate(key),
            Err(_) => {}
        }
    }

    /// The same of a write that changes a part of what is there. Where that is not known, it is in doubt.
    pub fn update<T>(
        &self,
        key: S::Key,
        outcome: Result<T, &Error>,
        change: impl FnOnce(&mut S::Value),
    ) where
        S::Value: Clone,
    {
        match (self.get(&key), outcome) {
            (None, Ok(_)) => self.invalidate(key),
            (known, outcome) => self.note(key, outcome, || {
                let mut now = (*known?).clone();
                change(&mut now);
                Some(now)
            }),
        }
    }

    async fn keep_up_to_date(self: Arc<Self>, intervals: PollIntervals) {
        loop {
            let turn = async {
                self.due(intervals).await;
                self.poll().await;
            };
            if AssertUnwindSafe(turn).catch_unwind().await.is_err() {
                tracing::error!("a poll panicked: this is a bug");
                // Whatever it was, it may be again.
                tokio::time::sleep(intervals.poll).await;
            }
        }
    }

    async fn poll(&self) {
        let began = Instant::now();
        let _turn = self.turn.lock().await;
        // Somebody who could not wait has just done it.
        let done = self.state.lock().finished.is_some_and(|at| at >= began);
        if !done {
            self.read(None, &BTreeSet::new(), Priority::Background)
                .await;
        }
    }

    /// Ends when it is time to read everything again.
    async fn due(&self, intervals: PollIntervals) {
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
    }

    /// When to read everything again.
    fn next(&self, intervals: PollIntervals, dice: f64) -> Instant {
        let state = self.state.lock();
        let last = state.reading.or(state.finished).unwrap_or(state.opened);
        let usual = match S::POLL_RATE {
            PollRate::Poll => intervals.poll,
            PollRate::Slow => intervals.slow,
        };
        let wait = match &state.failure {
            Some(Failure { error, times }) => {
                // A refused read is not a refused item: nobody is going to edit anything for its sake.
                let class = if error.class.stops_scope() {
                    error.class
                } else {
                    Class::Unavailable
                };
                let error = Error {
                    class,
                    ..error.clone()
                };
                after_by(dice, &error, *times).unwrap_or(usual)
            }
            None => {
                let unsettled = state.mirror.values().any(|value| S::is_unsettled(value));
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

    /// Reads everything and wakes whom it concerns. Only by whoever has the turn. Where this is dropped half
    /// way, nothing was read.
    async fn read(&self, asker: Option<&str>, prefixes: &BTreeSet<S::Key>, priority: Priority) {
        let _reading = Reading(self);
        let began = Instant::now();
        let (ticket, asked) = {
            let mut state = self.state.lock();
            state.reading = Some(began);
            let watched = state.interests().flat_map(|it| it.keys.clone());
            let asked: BTreeSet<_> = watched.chain(prefixes.iter().cloned()).collect();
            (state.mirror.begin(), asked)
        };
        let read = self.source.read(&asked, priority).await;
        let mut state = self.state.lock();
        state.finished = Some(began);
        match read {
            Ok(read) => {
                let changed = if S::ENUMERATES {
                    state.mirror.publish(ticket, read)
                } else {
                    state.mirror.publish_under(ticket, &asked, read)
                };
                let recovered = state.failure.take().is_some();
                state.succeeded = Some(began);
                state.covered = asked;
                self.wake(&state, Some(&changed).filter(|_| !recovered), asker);
            }
            // What was read last stays: a failed read is never an empty one.
            Err(error) => {
                let last = state.failure.take();
                let known = last
                    .as_ref()
                    .is_some_and(|last| last.error.class == error.class);
                let times = last.map_or(0, |last| last.times).saturating_add(1);
                state.failure = Some(Failure { error, times });
                if !known {
                    self.wake(&state, None, asker);
                }
            }
        }
    }

    /// Wakes whomever it concerns that these have changed, or all, but not whoever asked.
    fn wake(&self, state: &State<S>, changed: Option<&BTreeSet<S::Key>>, asker: Option<&str>) {
        let concerns = |keys: &BTreeSet<S::Key>| {
            let has = |changed: &BTreeSet<S::Key>, prefix: &S::Key| {
                let first = changed.range(prefix..).next();
                first.is_some_and(|key| key.is_under(prefix))
            };
            changed.is_none_or(|changed| keys.iter().any(|prefix| has(changed, prefix)))
        };
        for it in state.interests() {
            if asker != Some(it.subscriber.uid.as_str()) && concerns(&it.keys) {
                (self.polling.waker)(&it.subscriber);
            }
        }
    }
}

/// A read of everything that is under way, until this is dropped.
struct Reading<'a, S: Source>(&'a Informer<S>);

impl<S: Source> Drop for Reading<'_, S> {
    fn drop(&mut self) {
        self.0.state.lock().reading = None;
        // Whoever polls may have to look sooner than it thought.
        self.0.moved.notify_one();
    }
}

/// How an informer stands, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How old the last good read is; if there was none, for how long there has been none.
    pub age: Duration,
    /// Whether the last read failed.
    pub is_failing: bool,
    /// How often it is read.
    pub poll_rate: PollRate,
}

/// The face of an [`Informer`] that is the same for all.
pub trait DynInformer: Send + Sync {
    /// How it stands; `None` where no object of this kind subscribes.
    fn standing(&self, kind: &str) -> Option<Standing>;
}

impl<S: Source> DynInformer for Informer<S> {
    fn standing(&self, kind: &str) -> Option<Standing> {
        let state = self.state.lock();
        let mut all = state.interests();
        all.any(|it| it.subscriber.kind == kind).then(|| Standing {
            age: state.succeeded.unwrap_or(state.opened).elapsed(),
            is_failing: state.failure.is_some(),
            poll_rate: S::POLL_RATE,
        })
    }
}

#[cfg(test)]
mod tests;
