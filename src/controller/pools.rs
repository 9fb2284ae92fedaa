//! Concurrency limits of reconciles: a large pool for what somebody waits for, a small one for background
//! work, and of each only a share for one namespace, so that one scope's trouble never holds another's
//! workers.

use crate::engine::limits::Priority;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// Edits at once, and of one namespace.
const EDITS: (usize, usize) = (64, 8);
/// Background work at once, and of one namespace.
const BACKGROUND: (usize, usize) = (16, 4);

/// The pools.
#[derive(Debug)]
pub struct Pools {
    edits: Pool,
    background: Pool,
}

#[derive(Debug)]
struct Pool {
    all: Arc<Semaphore>,
    share: usize,
    shares: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// The right to be at work; it ends when this is dropped.
#[derive(Debug)]
pub struct Permit {
    _all: OwnedSemaphorePermit,
    _share: OwnedSemaphorePermit,
}

impl Default for Pools {
    fn default() -> Self {
        let pool = |(all, share)| Pool {
            all: Arc::new(Semaphore::new(all)),
            share,
            shares: Mutex::default(),
        };
        Self {
            edits: pool(EDITS),
            background: pool(BACKGROUND),
        }
    }
}

impl Pools {
    /// The right to be at work on an object of this namespace. An edit waits for it; background work
    /// that would have to wait steps aside: `None`.
    pub async fn admit(&self, namespace: &str, priority: Priority) -> Option<Permit> {
        match priority {
            Priority::Edit => {
                let share = self.edits.share(namespace).acquire_owned().await.ok()?;
                let all = self.edits.all.clone().acquire_owned().await.ok()?;
                Some(Permit {
                    _all: all,
                    _share: share,
                })
            }
            Priority::Background => self.background.try_admit(namespace).ok(),
        }
    }
}

impl Pool {
    fn share(&self, namespace: &str) -> Arc<Semaphore> {
        let mut shares = self.shares.lock();
        if let Some(share) = shares.get(namespace).and_then(Weak::upgrade) {
            return share;
        }
        // Those that nobody uses are as good as new ones.
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(self.share));
        shares.insert(namespace.to_owned(), Arc::downgrade(&share));
        share
    }

    fn try_admit(&self, namespace: &str) -> Result<Permit, TryAcquireError> {
        let share = self.share(namespace).try_acquire_owned()?;
        let all = self.all.clone().try_acquire_owned()?;
        Ok(Permit {
            _all: all,
            _share: share,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn no_namespace_takes_all_and_edits_overtake_background_work() {
        let pools = Pools::default();
        let admit =
            |namespace: &str, priority| pools.admit(namespace, priority).now_or_never().flatten();
        let mut held: Vec<_> = (0..BACKGROUND.1)
            .map(|_| admit("a", Priority::Background).unwrap())
            .collect();
        assert!(admit("a", Priority::Background).is_none(), "its share");
        assert!(
            admit("a", Priority::Edit).is_some(),
            "an edit has a pool of its own"
        );
        for namespace in ["b", "c", "d"] {
            held.extend((0..BACKGROUND.1).map(|_| admit(namespace, Priority::Background).unwrap()));
        }
        assert!(admit("e", Priority::Background).is_none(), "the pool");
        held.pop();
        assert!(admit("e", Priority::Background).is_some());

        let edits: Vec<_> = (0..EDITS.1)
            .map(|_| admit("a", Priority::Edit).unwrap())
            .collect();
        assert!(
            admit("a", Priority::Edit).is_none(),
            "it waits for its turn"
        );
        assert!(admit("b", Priority::Edit).is_some());
        drop(edits);
        assert!(admit("a", Priority::Edit).is_some());
    }
}
