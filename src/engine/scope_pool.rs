//! What is watched, by credential scope: opened when the first object acts there, polled while any
//! object holds it, closed when the last one lets go.

use crate::{
    clients::Clients,
    engine::{
        error::Result,
        informer::{PollIntervals, PollRate, Polled, Subscriber, Waker},
    },
    kinds::installation::Installation,
};
use futures::FutureExt;
use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What is watched of one scope for one kind.
pub trait Scope: Send + Sync + Sized + 'static {
    /// What opens it and tells scopes apart: a role and an external id, a token.
    type Credentials: Clone + Eq + Hash + Send + Sync + 'static;
    /// Makes sure that it leads where it says. What is watched there has not been read yet.
    fn open(
        access: &Self::Credentials,
        clients: &Clients,
        installation: &Installation,
        waker: &Waker,
    ) -> impl Future<Output = Result<Self>> + Send;
    /// Its parts, each with a rhythm of its own.
    fn parts(&self) -> Vec<&dyn Polled>;
}

/// The scopes of one kind.
pub struct ScopePool<W: Scope> {
    clients: Clients,
    installation: Installation,
    waker: Waker,
    /// `None` where nobody polls: a plan looks once.
    intervals: Option<PollIntervals>,
    open: Mutex<Open<W>>,
    /// What opened the way for each object the last time.
    remembered: Mutex<HashMap<String, W::Credentials>>,
}

type Open<W> = HashMap<<W as Scope>::Credentials, OpenScope<W>>;

struct OpenScope<W> {
    watch: Arc<W>,
    /// Ends the polling when the scope is closed.
    polling: Option<DropGuard>,
}

/// How the scopes of one kind stand, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ages {
    /// How many are open.
    pub open: usize,
    /// Of how many of these something could not be read the last time.
    pub failing: usize,
    /// The age of the oldest of the last good reads, of what is read at each poll.
    pub polled: Duration,
    /// The same of what is read rarely.
    pub slow: Duration,
}

impl<W: Scope> ScopePool<W> {
    /// No scope is open.
    pub fn new(
        clients: Clients,
        installation: Installation,
        intervals: Option<PollIntervals>,
        waker: Waker,
    ) -> Self {
        Self {
            clients,
            installation,
            waker,
            intervals,
            open: Mutex::default(),
            remembered: Mutex::default(),
        }
    }

    fn open(&self) -> MutexGuard<'_, Open<W>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What opened the way for an object the last time, if this process has been there.
    pub fn remembered(&self, uid: &str) -> Option<W::Credentials> {
        self.memory().get(uid).cloned()
    }

    fn memory(&self) -> MutexGuard<'_, HashMap<String, W::Credentials>> {
        let memory = self.remembered.lock();
        memory.unwrap_or_else(PoisonError::into_inner)
    }

    /// What is watched by this way, once it is certain that it leads where it says.
    pub async fn reach(&self, access: &W::Credentials) -> Result<Arc<W>> {
        if let Some(scope) = self.open().get(access) {
            return Ok(scope.watch.clone());
        }
        let watch = W::open(access, &self.clients, &self.installation, &self.waker).await?;
        let mut open = self.open();
        // Somebody else may have been faster.
        let scope = open.entry(access.clone()).or_insert_with(|| OpenScope {
            watch: Arc::new(watch),
            polling: None,
        });
        Ok(scope.watch.clone())
    }

    /// The object with this UID wants to know of changes in this scope, which has been reached as
    /// `reached`. Answers with what is watched from now on.
    pub fn subscribe(
        &self,
        access: &W::Credentials,
        reached: Arc<W>,
        uid: &str,
        subscriber: &Subscriber,
    ) -> Arc<W> {
        self.memory().insert(uid.to_owned(), access.clone());
        let mut open = self.open();
        // It may have been closed, and even opened anew, since it was reached.
        let scope = open.entry(access.clone()).or_insert(OpenScope {
            watch: reached,
            polling: None,
        });
        for part in scope.watch.parts() {
            part.subscribe(uid, subscriber);
        }
        if let (Some(intervals), None) = (self.intervals, &scope.polling) {
            let end = CancellationToken::new();
            for part in 0..scope.watch.parts().len() {
                let (watch, end) = (scope.watch.clone(), end.clone());
                tokio::spawn(end.run_until_cancelled_owned(poll(watch, part, intervals)));
            }
            scope.polling = Some(end.drop_guard());
        }
        scope.watch.clone()
    }

    /// The object does not want to know of any scope any more but of this one. Closes what nobody holds.
    pub fn unsubscribe(&self, uid: &str, but: Option<&W::Credentials>) {
        self.open().retain(|access, scope| {
            let parts = scope.watch.parts();
            if but != Some(access) {
                parts.iter().for_each(|part| part.unsubscribe(uid));
            }
            parts.iter().any(|part| part.has_subscribers())
        });
    }

    /// The object is gone.
    pub fn forget(&self, uid: &str) {
        self.memory().remove(uid);
        self.unsubscribe(uid, None);
    }

    /// Forgets all objects but these. Their deletion may have been missed.
    pub fn keep(&self, uids: &HashSet<String>) {
        self.memory().retain(|uid, _| uids.contains(uid));
        self.open().retain(|_, scope| {
            let parts = scope.watch.parts();
            parts.iter().for_each(|part| part.keep(uids));
            parts.iter().any(|part| part.has_subscribers())
        });
    }

    /// How old what is known is.
    pub fn ages(&self) -> Ages {
        let open = self.open();
        let mut ages = Ages {
            open: open.len(),
            ..Ages::default()
        };
        for scope in open.values() {
            let parts = scope.watch.parts();
            ages.failing += usize::from(parts.iter().any(|part| part.is_failing()));
            let oldest = |poll_rate| {
                let parts = parts.iter().filter(|part| part.poll_rate() == poll_rate);
                let oldest = parts.map(|part| part.age()).max();
                oldest.unwrap_or_default()
            };
            ages.polled = ages.polled.max(oldest(PollRate::Poll));
            ages.slow = ages.slow.max(oldest(PollRate::Slow));
        }
        ages
    }
}

async fn poll<W: Scope>(watch: Arc<W>, part: usize, intervals: PollIntervals) {
    loop {
        let parts = watch.parts();
        let Some(part) = parts.get(part) else { return };
        let turn = async {
            part.due(intervals).await;
            part.poll().await;
        };
        if AssertUnwindSafe(turn).catch_unwind().await.is_err() {
            tracing::error!("a poll panicked: this is a bug");
            // Whatever it was, it may be again.
            tokio::time::sleep(intervals.poll).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{
        informer::{Informer, ReadOf, Source},
        limits::{Limiter, Priority},
        mirror::Mirrored,
    };
    use std::{
        collections::{BTreeMap, BTreeSet},
        sync::atomic::{AtomicUsize, Ordering},
    };

    static READS: AtomicUsize = AtomicUsize::new(0);

    struct Counted;

    impl Mirrored for () {
        fn is_equivalent(&self, _: &Self) -> bool {
            true
        }
    }

    impl Source for Counted {
        type Value = ();
        const ENUMERATES: bool = true;
        const POLL_RATE: PollRate = PollRate::Poll;

        async fn read(&self, _: &BTreeSet<String>, _: Priority) -> Result<ReadOf<Self>> {
            READS.fetch_add(1, Ordering::Relaxed);
            Ok(BTreeMap::new())
        }

        async fn read_some(&self, _: &BTreeSet<String>, _: Priority) -> Result<ReadOf<Self>> {
            Ok(BTreeMap::new())
        }
    }

    struct One(Informer<Counted>);

    impl Scope for One {
        type Credentials = &'static str;

        async fn open(
            _: &&'static str,
            _: &Clients,
            _: &Installation,
            waker: &Waker,
        ) -> Result<Self> {
            Ok(Self(Informer::new(Counted, waker.clone())))
        }

        fn parts(&self) -> Vec<&dyn Polled> {
            vec![&self.0]
        }
    }

    /// A scope is polled while somebody holds it, and no longer; another
    /// way in is another scope.
    #[tokio::test(start_paused = true)]
    async fn a_scope_lives_as_long_as_somebody_holds_it() {
        let installation = Installation::sample();
        let limiter = Arc::new(Limiter::new(&BTreeMap::new()));
        let clients = Clients::from_environment(
            &installation.cluster.name,
            &installation.slack_api_url,
            limiter,
            Arc::new(|_| {}),
        );
        let clients = clients.await.unwrap();
        let minute = Duration::from_secs(60);
        let intervals = PollIntervals {
            poll: minute,
            slow: minute,
        };
        let waker: Waker = Arc::new(|_| {});
        let scopes = ScopePool::<One>::new(clients, installation, Some(intervals), waker);
        let subscriber = |name: &str| Subscriber {
            namespace: "ns".into(),
            name: name.into(),
            watched_keys: BTreeSet::new(),
        };
        let watch = || Arc::new(One(Informer::new(Counted, Arc::new(|_| {}))));
        let first = scopes.subscribe(&"a", watch(), "1", &subscriber("one"));
        let second = scopes.subscribe(&"a", watch(), "2", &subscriber("two"));
        assert!(Arc::ptr_eq(&first, &second), "one scope for both");
        let other = scopes.subscribe(&"b", watch(), "3", &subscriber("three"));
        assert!(!Arc::ptr_eq(&first, &other));
        assert_eq!(scopes.ages().open, 2);
        let polls = async || {
            READS.store(0, Ordering::Relaxed);
            tokio::time::sleep(minute * 5).await;
            READS.load(Ordering::Relaxed)
        };
        let both = polls().await;
        assert!((8..=12).contains(&both), "{both}");
        scopes.unsubscribe("3", None);
        scopes.unsubscribe("1", Some(&"a"));
        let one = polls().await;
        assert!((4..=6).contains(&one), "{one}");
        scopes.unsubscribe("1", Some(&"b"));
        assert_eq!(scopes.ages().open, 1, "the other object still holds it");
        scopes.unsubscribe("2", None);
        assert_eq!((scopes.ages().open, polls().await), (0, 0));
    }
}
