//! Polls an external API in bulk, keeps a cache (the mirror), and wakes the objects whose resources changed.
//! Between two polls reads are answered from the cache.

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

/// The result of a read, by key.
pub type ReadOf<S> = BTreeMap<<S as Source>::Key, <S as Source>::Value>;

/// The cached values under the prefixes that were asked for, by key.
pub type Snapshot<V, K = String> = BTreeMap<K, Arc<V>>;

/// An external API as an informer reads it.
pub trait Source: Send + Sync + 'static {
    /// Identifies a thing.
    type Key: InformerKey;
    /// A thing as it is cached.
    type Value: Mirrored;
    /// Whether a read lists everything. Where the API has no list, it reads the keys that were asked for.
    const ENUMERATES: bool;
    /// How often it is read.
    const POLL_RATE: PollRate;

    /// Reads everything, or all of `asked`. A partial answer is an error: absence follows from a complete one only.
    fn read(
        &self,
        asked: &BTreeSet<Self::Key>,
        priority: Priority,
    ) -> impl Future<Output = Result<ReadOf<Self>>> + Send
    where
        Self: Sized;
    /// Reads these by name. A key that is not in the answer does not exist.
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
    /// Whether the thing changes by itself soon, so that it is polled more often.
    fn is_unsettled(_: &Self::Value) -> bool {
        false
    }
    /// Ends when everything is to be read again at once.
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

/// The intervals between two reads.
#[derive(Clone, Copy, Debug)]
pub struct PollIntervals {
    /// Of [`PollRate::Poll`], and while something is unsettled.
    pub poll: Duration,
    /// Of [`PollRate::Slow`].
    pub slow: Duration,
}

/// The interval for [`UNSETTLED_FOR`] after a write of ours, while something is unsettled: PagerDuty confirms a
/// subscription within seconds.
const UNSETTLED_POLL: Duration = Duration::from_secs(10);
/// See [`UNSETTLED_POLL`].
const UNSETTLED_FOR: Duration = Duration::from_secs(300);

/// Who reads, and how fresh the answer must be.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// The UID of the object that reads; it is not woken by its own read.
    pub uid: String,
    /// Its place in the queue of API calls.
    pub priority: Priority,
    /// How fresh the answer must be.
    pub consistency: Consistency,
    /// When the run began that reads: a read that began later is fresh.
    pub since: Instant,
    /// Cancelled when the answer is not needed any more: waiting for it ends at once.
    pub superseded: CancellationToken,
}

impl ReadOptions {
    /// The answer, or an error of class `Superseded` once it is not needed any more.
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
    /// As it was read last, whether that failed or not.
    Known,
    /// As it was read last; if that failed it is read again, for an edit may have mended the cause.
    Retried,
    /// Read now.
    Now,
}

/// An object that is woken by changes.
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

/// Queues a reconcile of an object.
pub type Waker = Arc<dyn Fn(&Subscriber) + Send + Sync>;

/// How informers poll, and how they wake objects.
#[derive(Clone)]
pub struct Polling {
    /// `None` where nothing is polled: `plan` reads once.
    pub intervals: Option<PollIntervals>,
    /// Queues a reconcile of an object.
    pub waker: Waker,
}

impl Polling {
    /// Polls nothing and wakes nobody.
    pub fn none() -> Self {
        Self {
            intervals: None,
            waker: Arc::new(|_| {}),
        }
    }
}

/// The subscription of an object to some keys of one informer. It ends when it is dropped.
pub struct Subscription(#[expect(dead_code)] Arc<dyn Any + Send + Sync>);

struct Interest<K> {
    subscriber: Subscriber,
    keys: BTreeSet<K>,
    /// Polling ends when the last one is dropped.
    polling: Option<Arc<DropGuard>>,
}

/// Why the last read of everything failed, and how many in a row did.
struct Failure {
    error: Error,
    times: u32,
}

/// The answer to a read, or what has to be read first.
enum Answer<S: Source> {
    Known(Result<Snapshot<S::Value, S::Key>>),
    ReadAll,
    /// These were invalidated.
    Read(BTreeSet<S::Key>),
}

struct State<S: Source> {
    mirror: Mirror<S::Key, S::Value>,
    interests: Vec<Weak<Interest<S::Key>>>,
    /// When the first of the present subscribers came.
    opened: Instant,
    /// The keys of the last read of everything.
    covered: BTreeSet<S::Key>,
    /// When the read of everything began that is in flight.
    reading: Option<Instant>,
    /// When the last one began that has ended, and the last that succeeded.
    finished: Option<Instant>,
    succeeded: Option<Instant>,
    /// The failure of the last one that has ended.
    failure: Option<Failure>,
    wrote: Option<Instant>,
}

impl<S: Source> State<S> {
    fn interests(&self) -> impl Iterator<Item = Arc<Interest<S::Key>>> {
        self.interests.iter().filter_map(Weak::upgrade)
    }
}

/// The cache of one scope. It is polled as long as anybody subscribes.
pub struct Informer<S: Source> {
    /// Reads it.
    pub source: S,
    polling: Polling,
    state: Mutex<State<S>>,
    /// One read at a time: those who wait for it share its result.
    turn: tokio::sync::Mutex<()>,
    moved: Notify,
}

impl<S: Source> Informer<S> {
    /// Empty.
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

    /// Subscribes an object to the things under these keys.
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
                // It was not polled until now.
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

    /// Whether this object subscribes.
    pub fn is_subscribed(&self, uid: &str) -> bool {
        let state = self.state.lock();
        state.interests().any(|it| it.subscriber.uid == uid)
    }

    /// The things under these prefixes. Reads first if nothing was read yet, if a write of ours invalidated them, or
    /// if the answer must be fresher than the cache.
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
                // The previous holder of the lock may have read it.
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
        // A read in flight does not count yet.
        let tried = state.finished.is_some_and(|at| at >= options.since);
        let anew = match options.consistency {
            // Without a subscriber nothing is polled.
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

    /// Reads these keys by name before something is written because of them; `None` where the cache is as new as the
    /// run itself.
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

    /// A change wakes even the reader: it may have read an older value for another stage in the same run.
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

    /// Why the last read of everything failed, if it did.
    pub fn failure(&self) -> Option<Error> {
        let state = self.state.lock();
        state.failure.as_ref().map(|failure| failure.error.clone())
    }

    /// The cached things under these prefixes, however old.
    pub fn known(&self, prefixes: &BTreeSet<S::Key>) -> Snapshot<S::Value, S::Key> {
        self.state.lock().mirror.under(prefixes)
    }

    /// The cached thing of this key, however old.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<Arc<S::Value>>
    where
        S::Key: Borrow<Q>,
    {
        self.state.lock().mirror.get(key).cloned()
    }

    /// Records a write of ours that succeeded: the value that is there now, if any.
    pub fn wrote(&self, key: impl Into<S::Key>, value: Option<S::Value>) {
        let mut state = self.state.lock();
        state.mirror.wrote(key.into(), value);
        state.wrote = Some(Instant::now());
        self.moved.notify_one();
    }

    /// Records that a write may have succeeded, or that its answer does not say what is there now.
    pub fn invalidate(&self, key: impl Into<S::Key>) {
        let mut state = self.state.lock();
        state.mirror.invalidate(key.into());
        state.wrote = Some(Instant::now());
        self.moved.notify_one();
    }

    /// Records the outcome of a write: the value that is there `now` if it succeeded; unknown outcomes invalidate.
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

    /// The same of a write that changes a part of the thing. If the thing is not cached, it is invalidated.
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
                // The next poll may panic for the same reason.
                tokio::time::sleep(intervals.poll).await;
            }
        }
    }

    async fn poll(&self) {
        let began = Instant::now();
        let _turn = self.turn.lock().await;
        // A reconcile has read everything meanwhile.
        let done = self.state.lock().finished.is_some_and(|at| at >= began);
        if !done {
            self.read(None, &BTreeSet::new(), Priority::Background)
                .await;
        }
    }

    /// Ends when the next poll is due.
    async fn due(&self, intervals: PollIntervals) {
        // Jitter is drawn once per poll.
        let random = fastrand::f64();
        let timer = async {
            loop {
                let due = self.next(intervals, random);
                if due <= Instant::now() {
                    return;
                }
                tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    // A write of ours may shorten the interval.
                    () = self.moved.notified() => {}
                }
            }
        };
        tokio::select! {
            () = timer => {}
            () = self.source.invalidated() => {}
        }
    }

    /// When the next poll is due.
    fn next(&self, intervals: PollIntervals, random: f64) -> Instant {
        let state = self.state.lock();
        let last = state.reading.or(state.finished).unwrap_or(state.opened);
        let usual = match S::POLL_RATE {
            PollRate::Poll => intervals.poll,
            PollRate::Slow => intervals.slow,
        };
        let wait = match &state.failure {
            Some(Failure { error, times }) => {
                // No edit of an object mends a read that is rejected: it is retried.
                let class = if error.class.stops_scope() {
                    error.class
                } else {
                    Class::Unavailable
                };
                let error = Error {
                    class,
                    ..error.clone()
                };
                after_by(random, &error, *times).unwrap_or(usual)
            }
            None => {
                let unsettled = state.mirror.values().any(|value| S::is_unsettled(value));
                let soon = state.wrote.is_some_and(|at| at.elapsed() < UNSETTLED_FOR);
                let period = match (unsettled, soon) {
                    (true, true) => UNSETTLED_POLL.min(intervals.poll),
                    (true, false) => intervals.poll.min(usual),
                    (false, _) => usual,
                };
                spread_by(random, period)
            }
        };
        last + wait
    }

    /// Reads everything and wakes the objects whose things changed. The caller holds `turn`. If this is dropped
    /// before its end, the cache stays as it was.
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
            // The last good read stays in the cache.
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

    /// Wakes the subscribers of the changed keys, or all subscribers, except the reader.
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

/// Marks a read of everything as in flight, until this is dropped.
struct Reading<'a, S: Source>(&'a Informer<S>);

impl<S: Source> Drop for Reading<'_, S> {
    fn drop(&mut self) {
        self.0.state.lock().reading = None;
        // The poll may be due sooner now.
        self.0.moved.notify_one();
    }
}

/// The health of an informer, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InformerHealth {
    /// The age of the last good read; before the first, the time since somebody subscribed.
    pub age: Duration,
    /// Whether the last read failed.
    pub is_failing: bool,
    /// How often it is read.
    pub poll_rate: PollRate,
}

/// An [`Informer`] of any source.
pub trait DynInformer: Send + Sync {
    /// Its health; `None` if no object of this kind subscribes.
    fn health(&self, kind: &str) -> Option<InformerHealth>;
}

impl<S: Source> DynInformer for Informer<S> {
    fn health(&self, kind: &str) -> Option<InformerHealth> {
        let state = self.state.lock();
        let mut all = state.interests();
        all.any(|it| it.subscriber.kind == kind)
            .then(|| InformerHealth {
                age: state.succeeded.unwrap_or(state.opened).elapsed(),
                is_failing: state.failure.is_some(),
                poll_rate: S::POLL_RATE,
            })
    }
}

#[cfg(test)]
mod tests;
