//! What is watched, by credential scope: opened when the first object acts there, polled while any
//! object holds it, closed when the last one lets go.

use crate::{
    clients::Clients,
    error::Result,
    installation::Installation,
    outside::{Holder, Polled, Rhythm, Tempo, Waker},
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
pub trait Watch: Send + Sync + Sized + 'static {
    /// What opens it and tells scopes apart: a role and an external id, a token.
    type Access: Clone + Eq + Hash + Send + Sync + 'static;
    /// Makes sure that it leads where it says. What is watched there has not been read yet.
    fn open(
        access: &Self::Access,
        clients: &Clients,
        installation: &Installation,
        waker: &Waker,
    ) -> impl Future<Output = Result<Self>> + Send;
    /// Its parts, each with a rhythm of its own.
    fn parts(&self) -> Vec<&dyn Polled>;
}

/// The scopes of one kind.
pub struct Scopes<W: Watch> {
    clients: Clients,
    installation: Installation,
    waker: Waker,
    /// `None` where nobody polls: a plan looks once.
    tempo: Option<Tempo>,
    open: Mutex<Open<W>>,
    /// What opened the way for each object the last time.
    remembered: Mutex<HashMap<String, W::Access>>,
}

type Open<W> = HashMap<<W as Watch>::Access, Scope<W>>;

struct Scope<W> {
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

impl<W: Watch> Scopes<W> {
    /// No scope is open.
    pub fn new(
        clients: Clients,
        installation: Installation,
        tempo: Option<Tempo>,
        waker: Waker,
    ) -> Self {
        Self {
            clients,
            installation,
            waker,
            tempo,
            open: Mutex::default(),
            remembered: Mutex::default(),
        }
    }

    fn open(&self) -> MutexGuard<'_, Open<W>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What opened the way for an object the last time, if this process has been there.
    pub fn remembered(&self, uid: &str) -> Option<W::Access> {
        self.memory().get(uid).cloned()
    }

    fn memory(&self) -> MutexGuard<'_, HashMap<String, W::Access>> {
        let memory = self.remembered.lock();
        memory.unwrap_or_else(PoisonError::into_inner)
    }

    /// What is watched by this way, once it is certain that it leads where it says.
    pub async fn reach(&self, access: &W::Access) -> Result<Arc<W>> {
        if let Some(scope) = self.open().get(access) {
            return Ok(scope.watch.clone());
        }
        let watch = W::open(access, &self.clients, &self.installation, &self.waker).await?;
        let mut open = self.open();
        // Somebody else may have been faster.
        let scope = open.entry(access.clone()).or_insert_with(|| Scope {
            watch: Arc::new(watch),
            polling: None,
        });
        Ok(scope.watch.clone())
    }

    /// The object with this UID wants to know of changes in this scope, which has been reached as
    /// `reached`. Answers with what is watched from now on.
    pub fn hold(&self, access: &W::Access, reached: Arc<W>, uid: &str, holder: &Holder) -> Arc<W> {
        self.memory().insert(uid.to_owned(), access.clone());
        let mut open = self.open();
        // It may have been closed, and even opened anew, since it was reached.
        let scope = open.entry(access.clone()).or_insert(Scope {
            watch: reached,
            polling: None,
        });
        for part in scope.watch.parts() {
            part.hold(uid, holder);
        }
        if let (Some(tempo), None) = (self.tempo, &scope.polling) {
            let end = CancellationToken::new();
            for part in 0..scope.watch.parts().len() {
                let (watch, end) = (scope.watch.clone(), end.clone());
                tokio::spawn(end.run_until_cancelled_owned(poll(watch, part, tempo)));
            }
            scope.polling = Some(end.drop_guard());
        }
        scope.watch.clone()
    }

    /// The object does not want to know of any scope any more but of this one. Closes what nobody holds.
    pub fn release(&self, uid: &str, but: Option<&W::Access>) {
        self.open().retain(|access, scope| {
            let parts = scope.watch.parts();
            if but != Some(access) {
                parts.iter().for_each(|part| part.release(uid));
            }
            parts.iter().any(|part| part.is_held())
        });
    }

    /// The object is gone.
    pub fn forget(&self, uid: &str) {
        self.memory().remove(uid);
        self.release(uid, None);
    }

    /// Forgets all objects but these. Their deletion may have been missed.
    pub fn keep(&self, uids: &HashSet<String>) {
        self.memory().retain(|uid, _| uids.contains(uid));
        self.open().retain(|_, scope| {
            let parts = scope.watch.parts();
            parts.iter().for_each(|part| part.keep(uids));
            parts.iter().any(|part| part.is_held())
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
            let oldest = |rhythm| {
                let parts = parts.iter().filter(|part| part.rhythm() == rhythm);
                let oldest = parts.map(|part| part.age()).max();
                oldest.unwrap_or_default()
            };
            ages.polled = ages.polled.max(oldest(Rhythm::Poll));
            ages.slow = ages.slow.max(oldest(Rhythm::Slow));
        }
        ages
    }
}

async fn poll<W: Watch>(watch: Arc<W>, part: usize, tempo: Tempo) {
    loop {
        let parts = watch.parts();
        let Some(part) = parts.get(part) else { return };
        let turn = async {
            part.due(tempo).await;
            part.poll().await;
        };
        if AssertUnwindSafe(turn).catch_unwind().await.is_err() {
            tracing::error!("a poll panicked: this is a bug");
            // Whatever it was, it may be again.
            tokio::time::sleep(tempo.poll).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clients::limit::{Limiter, Urgency},
        mirror::Mirrored,
        outside::{Outside, ReadOf, Source},
    };
    use std::{
        collections::{BTreeMap, BTreeSet},
        sync::atomic::{AtomicUsize, Ordering},
    };

    static READS: AtomicUsize = AtomicUsize::new(0);

    struct Counted;

    impl Mirrored for () {
        fn is_alike(&self, _: &Self) -> bool {
            true
        }
    }

    impl Source for Counted {
        type Value = ();
        const ENUMERATES: bool = true;
        const RHYTHM: Rhythm = Rhythm::Poll;

        async fn read(&self, _: &BTreeSet<String>, _: Urgency) -> Result<ReadOf<Self>> {
            READS.fetch_add(1, Ordering::Relaxed);
            Ok(BTreeMap::new())
        }

        async fn read_some(&self, _: &BTreeSet<String>, _: Urgency) -> Result<ReadOf<Self>> {
            Ok(BTreeMap::new())
        }
    }

    struct One(Outside<Counted>);

    impl Watch for One {
        type Access = &'static str;

        async fn open(
            _: &&'static str,
            _: &Clients,
            _: &Installation,
            waker: &Waker,
        ) -> Result<Self> {
            Ok(Self(Outside::new(Counted, waker.clone())))
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
        let clients = Clients::from_environment(&installation, limiter, Arc::new(|_| {}));
        let clients = clients.await.unwrap();
        let minute = Duration::from_secs(60);
        let tempo = Tempo {
            poll: minute,
            slow: minute,
        };
        let waker: Waker = Arc::new(|_| {});
        let scopes = Scopes::<One>::new(clients, installation, Some(tempo), waker);
        let holder = |name: &str| Holder {
            namespace: "ns".into(),
            name: name.into(),
            interest: BTreeSet::new(),
        };
        let watch = || Arc::new(One(Outside::new(Counted, Arc::new(|_| {}))));
        let first = scopes.hold(&"a", watch(), "1", &holder("one"));
        let second = scopes.hold(&"a", watch(), "2", &holder("two"));
        assert!(Arc::ptr_eq(&first, &second), "one scope for both");
        let other = scopes.hold(&"b", watch(), "3", &holder("three"));
        assert!(!Arc::ptr_eq(&first, &other));
        assert_eq!(scopes.ages().open, 2);
        let polls = async || {
            READS.store(0, Ordering::Relaxed);
            tokio::time::sleep(minute * 5).await;
            READS.load(Ordering::Relaxed)
        };
        let both = polls().await;
        assert!((8..=12).contains(&both), "{both}");
        scopes.release("3", None);
        scopes.release("1", Some(&"a"));
        let one = polls().await;
        assert!((4..=6).contains(&one), "{one}");
        scopes.release("1", Some(&"b"));
        assert_eq!(scopes.ages().open, 1, "the other object still holds it");
        scopes.release("2", None);
        assert_eq!((scopes.ages().open, polls().await), (0, 0));
    }
}
