//! Clients and informers shared by all objects with the same credentials: opened when the first object acts there, shared by all that do, closed when
//! the last one lets go.

use crate::engine::{
    error::{Error, Result},
    informer::{DynInformer, PollRate, Polling, ReadOptions, Subscriber, Subscription},
};
use parking_lot::Mutex;
use std::{
    any::{Any, TypeId},
    collections::{BTreeMap, HashMap},
    future::Future,
    hash::Hash,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::time::Instant;

/// What is watched by one set of credentials, and clients that act by them.
pub trait Scope: Send + Sync + Sized + 'static {
    /// What opens it and tells scopes apart: a role and an external id, a token.
    type Credentials: Clone + Eq + Hash + Send + Sync + 'static;
    /// What all scopes are opened with.
    type Opener: Send + Sync + 'static;
    /// Makes sure that the credentials lead where they say. What is watched there has not been read yet.
    fn open(
        credentials: &Self::Credentials,
        opener: &Self::Opener,
        polling: &Polling,
    ) -> impl Future<Output = Result<Self>> + Send;
    /// Whether what was made can be cleaned up by them.
    fn can_write(_: &Self::Credentials) -> bool {
        true
    }
    /// All that can be watched there.
    fn informers(&self) -> Vec<&dyn DynInformer>;
}

/// The scopes of one system, for all kinds and all namespaces.
pub struct ScopePool<S: Scope> {
    opener: S::Opener,
    polling: Polling,
    slots: Mutex<HashMap<S::Credentials, SharedSlot<S>>>,
    /// By UID and system.
    objects: Mutex<HashMap<String, BTreeMap<&'static str, Object<S>>>>,
}

/// Where a scope is while anybody holds it. Locked while it is being opened: whoever waits finds what came of it.
struct Slot<S> {
    open: Weak<S>,
    /// Where nobody polls, what was opened once stays open.
    _kept: Option<Arc<S>>,
    /// When the last attempt to open it began, and why it failed.
    failed: Option<(Instant, Error)>,
}

type SharedSlot<S> = Arc<tokio::sync::Mutex<Slot<S>>>;

/// What is known of an object in one system.
struct Object<S: Scope> {
    subscriber: Subscriber,
    /// What opened the way for it the last time.
    credentials: S::Credentials,
    /// The last of them by which something could be made.
    writing: Option<S::Credentials>,
    /// What it wants to know, and of which scope.
    watched: Option<(Arc<S>, Vec<Subscription>)>,
}

/// How the scopes stand in which objects of one kind subscribe, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ages {
    /// How many there are.
    pub open: usize,
    /// Of how many of these something could not be read the last time.
    pub failing: usize,
    /// The age of the oldest of the last good reads, of what is read at each poll.
    pub polled: Duration,
    /// The same of what is read rarely.
    pub slow: Duration,
}

impl Ages {
    /// Of two systems.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            open: self.open + other.open,
            failing: self.failing + other.failing,
            polled: self.polled.max(other.polled),
            slow: self.slow.max(other.slow),
        }
    }
}

impl<S: Scope> ScopePool<S> {
    /// No scope is open.
    pub fn new(opener: S::Opener, polling: Polling) -> Self {
        Self {
            opener,
            polling,
            slots: Mutex::default(),
            objects: Mutex::default(),
        }
    }

    fn slot(&self, credentials: &S::Credentials) -> SharedSlot<S> {
        let mut slots = self.slots.lock();
        let slot = slots.entry(credentials.clone()).or_insert_with(|| {
            Arc::new(tokio::sync::Mutex::new(Slot {
                open: Weak::new(),
                _kept: None,
                failed: None,
            }))
        });
        slot.clone()
    }

    /// The scope of these credentials, once it is certain that they lead where they say.
    pub async fn reach(
        &self,
        credentials: &S::Credentials,
        options: &ReadOptions,
    ) -> Result<Arc<S>> {
        let slot = self.slot(credentials);
        let open = async {
            let mut slot = slot.lock().await;
            if let Some(open) = slot.open.upgrade() {
                return Ok(open);
            }
            if let Some((began, error)) = &slot.failed
                && *began >= options.since
            {
                return Err(error.clone());
            }
            let began = Instant::now();
            let opened = S::open(credentials, &self.opener, &self.polling).await;
            let opened = opened.map(Arc::new);
            *slot = Slot {
                open: opened.as_ref().map(Arc::downgrade).unwrap_or_default(),
                _kept: opened
                    .as_ref()
                    .ok()
                    .filter(|_| self.polling.intervals.is_none())
                    .cloned(),
                failed: opened.as_ref().err().map(|error| (began, error.clone())),
            };
            opened
        };
        options.unless_superseded(open).await
    }

    /// The last credentials by which an object could make something in a system, if this process has been there.
    pub fn remembered(&self, uid: &str, system: &str) -> Option<S::Credentials> {
        let objects = self.objects.lock();
        objects.get(uid)?.get(system)?.writing.clone()
    }

    /// An object wants to know so much of this scope from now on, and by this system of no other.
    pub fn subscribe(
        &self,
        system: &'static str,
        subscriber: Subscriber,
        credentials: S::Credentials,
        scope: Arc<S>,
        subscriptions: Vec<Subscription>,
    ) {
        let uid = subscriber.uid.clone();
        let mut objects = self.objects.lock();
        let systems = objects.entry(uid).or_default();
        let writing = match S::can_write(&credentials) {
            true => Some(credentials.clone()),
            false => systems
                .get(system)
                .and_then(|before| before.writing.clone()),
        };
        let object = Object {
            subscriber,
            credentials,
            writing,
            watched: Some((scope, subscriptions)),
        };
        let before = systems.insert(system, object);
        drop(objects);
        drop(before);
    }

    /// The object does not want to know of any scope any more: by this system, or by any where that is `None`.
    pub fn unsubscribe(&self, uid: &str, system: Option<&str>) {
        let mut objects = self.objects.lock();
        let all = objects.get_mut(uid).into_iter().flatten();
        let ended = all.filter(|(name, _)| system.is_none_or(|system| system == **name));
        let watched: Vec<_> = ended.filter_map(|(_, it)| it.watched.take()).collect();
        drop(objects);
        drop(watched);
    }

    /// The object is gone.
    pub fn forget(&self, uid: &str) {
        let systems = self.objects.lock().remove(uid);
        drop(systems);
    }

    /// Forgets the objects that are not there any more. Their deletion may have been missed.
    pub fn keep(&self, is_there: impl Fn(&Subscriber) -> bool) {
        self.objects
            .lock()
            .retain(|_, systems| systems.values().any(|object| is_there(&object.subscriber)));
        let mut slots = self.slots.lock();
        // One that is locked, or about to be, is in use.
        slots.retain(|_, slot| {
            Arc::strong_count(slot) > 1
                || slot
                    .try_lock()
                    .is_ok_and(|slot| slot.open.strong_count() > 0)
        });
    }

    /// How old what objects of this kind know is.
    pub fn ages(&self, kind: &str) -> Ages {
        let objects = self.objects.lock();
        let of_kind = objects
            .values()
            .flat_map(BTreeMap::values)
            .filter(|object| object.subscriber.kind == kind);
        let watched = of_kind.filter_map(|it| Some((&it.credentials, &it.watched.as_ref()?.0)));
        let scopes: HashMap<_, _> = watched.collect();
        let ages = scopes.values().map(|scope| {
            let mut ages = Ages {
                open: 1,
                ..Ages::default()
            };
            let informers = scope.informers().into_iter();
            for health in informers.filter_map(|informer| informer.health(kind)) {
                ages.failing |= usize::from(health.is_failing);
                let oldest = match health.poll_rate {
                    PollRate::Poll => &mut ages.polled,
                    PollRate::Slow => &mut ages.slow,
                };
                *oldest = health.age.max(*oldest);
            }
            ages
        });
        ages.fold(Ages::default(), Ages::and)
    }
}

/// The face of a [`ScopePool`] that is the same for all systems.
trait DynPool: Any + Send + Sync {
    fn unsubscribe(&self, uid: &str);
    fn forget(&self, uid: &str);
    fn keep(&self, is_there: &dyn Fn(&Subscriber) -> bool);
    fn ages(&self, kind: &str) -> Ages;
}

impl<S: Scope> DynPool for ScopePool<S> {
    fn unsubscribe(&self, uid: &str) {
        self.unsubscribe(uid, None);
    }

    fn forget(&self, uid: &str) {
        self.forget(uid);
    }

    fn keep(&self, is_there: &dyn Fn(&Subscriber) -> bool) {
        self.keep(is_there);
    }

    fn ages(&self, kind: &str) -> Ages {
        self.ages(kind)
    }
}

/// What is watched of all systems by this process, by the type of the scopes.
#[derive(Default)]
pub struct ScopePools(HashMap<TypeId, Box<dyn DynPool>>);

impl ScopePools {
    /// The same with one more system.
    #[must_use]
    pub fn with<S: Scope>(mut self, opener: S::Opener, polling: Polling) -> Self {
        let pool = ScopePool::<S>::new(opener, polling);
        self.0.insert(TypeId::of::<S>(), Box::new(pool));
        self
    }

    /// The scopes of one system; an error where this process has none.
    pub fn of<S: Scope>(&self) -> Result<&ScopePool<S>> {
        let pool = self.0.get(&TypeId::of::<S>());
        let pool = pool.and_then(|pool| (&**pool as &dyn Any).downcast_ref());
        pool.ok_or_else(|| Error::failing("this process has no way into that system"))
    }

    /// The object does not want to know of anything any more.
    pub fn unsubscribe(&self, uid: &str) {
        self.0.values().for_each(|pool| pool.unsubscribe(uid));
    }

    /// The object is gone.
    pub fn forget(&self, uid: &str) {
        self.0.values().for_each(|pool| pool.forget(uid));
    }

    /// Forgets the objects that are not there any more. Their deletion may have been missed.
    pub fn keep(&self, is_there: impl Fn(&Subscriber) -> bool) {
        self.0.values().for_each(|pool| pool.keep(&is_there));
    }

    /// How old what the objects of a kind know is.
    pub fn ages(&self, kind: &str) -> Ages {
        let all = self.0.values().map(|pool| pool.ages(kind));
        all.fold(Ages::default(), Ages::and)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{
        error::Class,
        informer::{Consistency, Informer, PollIntervals, ReadOf, Source},
        limits::Priority,
        mirror::Mirrored,
    };
    use std::{
        collections::BTreeSet,
        sync::atomic::{AtomicUsize, Ordering},
    };
    use tokio_util::sync::CancellationToken;

    const MINUTE: Duration = Duration::from_secs(60);

    #[derive(Clone, Default)]
    struct Counts {
        opened: Arc<AtomicUsize>,
        reads: Arc<AtomicUsize>,
    }

    impl Counts {
        /// How often the scope was opened, and read in five minutes.
        async fn lately(&self) -> (usize, usize) {
            let take = |count: &AtomicUsize| count.swap(0, Ordering::Relaxed);
            let opened = take(&self.opened);
            take(&self.reads);
            tokio::time::sleep(MINUTE * 5).await;
            (opened, take(&self.reads))
        }
    }

    impl Mirrored for () {}

    impl Source for Counts {
        type Key = String;
        type Value = ();
        const ENUMERATES: bool = true;
        const POLL_RATE: PollRate = PollRate::Poll;

        async fn read(&self, _: &BTreeSet<String>, _: Priority) -> Result<ReadOf<Self>> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            Ok(BTreeMap::new())
        }
    }

    struct One {
        used: Arc<Informer<Counts>>,
        unused: Arc<Informer<Counts>>,
    }

    impl Scope for One {
        type Credentials = &'static str;
        type Opener = Counts;

        async fn open(key: &&'static str, counts: &Counts, polling: &Polling) -> Result<Self> {
            counts.opened.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(1)).await;
            match *key {
                "denied" => Err(Error::failing("no")),
                _ => Ok(Self {
                    used: Informer::new(counts.clone(), polling),
                    unused: Informer::new(counts.clone(), polling),
                }),
            }
        }

        fn informers(&self) -> Vec<&dyn DynInformer> {
            vec![&*self.used, &*self.unused]
        }
    }

    fn options() -> ReadOptions {
        ReadOptions {
            uid: "1".into(),
            priority: Priority::Edit,
            consistency: Consistency::Known,
            since: Instant::now(),
            superseded: CancellationToken::new(),
        }
    }

    fn pool(intervals: Option<PollIntervals>) -> (Counts, ScopePool<One>) {
        let (counts, polling) = (Counts::default(), Polling::none());
        let pool = ScopePool::new(
            counts.clone(),
            Polling {
                intervals,
                ..polling
            },
        );
        (counts, pool)
    }

    async fn subscribe(pool: &ScopePool<One>, kind: &'static str, uid: &str, key: &'static str) {
        let scope = pool.reach(&key, &options()).await.unwrap();
        let subscriber = Subscriber {
            kind,
            namespace: "ns".into(),
            name: uid.into(),
            uid: uid.into(),
        };
        let subscription = scope.used.subscribe(&subscriber, BTreeSet::new());
        pool.subscribe(kind, subscriber, key, scope, vec![subscription]);
    }

    /// What nobody subscribes to is not read, whoever holds the rest of its scope.
    #[tokio::test(start_paused = true)]
    async fn a_scope_is_shared_and_lives_as_long_as_somebody_subscribes() {
        let minute = PollIntervals {
            poll: MINUTE,
            slow: MINUTE,
        };
        let (counts, pool) = pool(Some(minute));
        let both = async || {
            subscribe(&pool, "tenant", "1", "a").await;
            subscribe(&pool, "set", "2", "a").await;
        };
        let once = |reads: usize| (4..=6).contains(&reads);
        both().await;
        let (opened, reads) = counts.lately().await;
        assert!(
            opened == 1 && once(reads),
            "one for both: {opened}, {reads}"
        );
        // As each run does.
        both().await;
        pool.unsubscribe("1", None);
        let (opened, reads) = counts.lately().await;
        assert!(opened == 0 && once(reads), "{opened}, {reads}");
        let open = |kind| pool.ages(kind).open;
        assert_eq!((open("tenant"), open("set")), (0, 1));
        subscribe(&pool, "set", "2", "b").await;
        let (opened, reads) = counts.lately().await;
        assert!(opened == 1 && once(reads), "the other one is closed");
        assert_eq!(pool.remembered("1", "tenant"), Some("a"));
        pool.keep(|subscriber| subscriber.kind == "set");
        assert_eq!(
            (pool.remembered("1", "tenant"), pool.remembered("2", "set")),
            (None, Some("b"))
        );
        pool.forget("2");
        assert_eq!((counts.lately().await, open("set")), ((0, 0), 0));
        pool.keep(|_| true);
        assert!(pool.slots.lock().is_empty());
    }

    /// `kind` stands for the system, too.
    #[tokio::test(start_paused = true)]
    async fn two_systems_of_one_object_subscribe_beside_each_other() {
        let (_, pool) = pool(None);
        subscribe(&pool, "aws", "1", "a").await;
        subscribe(&pool, "logs", "1", "b").await;
        let known = || ["aws", "logs"].map(|system| pool.remembered("1", system));
        let open = || ["aws", "logs"].map(|kind| pool.ages(kind).open);
        assert_eq!((known(), open()), ([Some("a"), Some("b")], [1, 1]));
        pool.unsubscribe("1", Some("aws"));
        assert_eq!((known(), open()), ([Some("a"), Some("b")], [0, 1]));
        pool.unsubscribe("1", None);
        assert_eq!(open(), [0, 0]);
        pool.forget("1");
        assert_eq!(known(), [None, None]);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_come_at_once_open_it_once() {
        let (counts, pool) = pool(None);
        let opened = || counts.opened.swap(0, Ordering::Relaxed);
        let options = options();
        let reach = async |key: &'static str| pool.reach(&key, &options).await;
        let (one, other) = tokio::join!(reach("a"), reach("a"));
        assert!(Arc::ptr_eq(&one.unwrap(), &other.unwrap()));
        assert_eq!(opened(), 1);
        reach("a").await.unwrap();
        assert_eq!(opened(), 0, "a plan keeps it");
        let (one, other) = tokio::join!(reach("denied"), reach("denied"));
        assert!(one.is_err() && other.is_err());
        assert_eq!(opened(), 1);
        let again = pool.reach(&"denied", &self::options()).await;
        assert!(again.is_err());
        assert_eq!(opened(), 1, "it may have been mended since");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_superseded_ends_at_once_and_the_next_one_opens_it() {
        let (counts, pool) = pool(None);
        let began = Instant::now();
        let (first, second) = (options(), options());
        let supersede = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            first.superseded.cancel();
        };
        let first = async {
            let ended = pool.reach(&"a", &first).await;
            (ended.err().map(|error| error.class), began.elapsed())
        };
        let (first, second, ()) = tokio::join!(first, pool.reach(&"a", &second), supersede);
        assert_eq!(first, (Some(Class::Superseded), Duration::from_millis(500)));
        assert!(second.is_ok());
        assert_eq!(began.elapsed(), Duration::from_millis(1500));
        assert_eq!(counts.opened.load(Ordering::Relaxed), 2);
    }
}
