//! Waiting for a condition.

use super::{Conditions, Object, Tenant};
use std::{
    fmt::Debug,
    future::Future,
    time::{Duration, Instant},
};

/// The longest that anything here may take. Generous: nothing waits longer than it must.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until the answer is right; the last wrong one is in the panic.
pub async fn eventually<T, F>(what: &str, ask: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let began = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(last) if began.elapsed() > PATIENCE => {
                panic!("waited {PATIENCE:?} for {what}; last seen: {last}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// An answer to [`eventually`]: whether it is so, and what was seen if it is not.
pub fn once(so: bool, seen: impl Debug) -> Result<(), String> {
    so.then_some(()).ok_or_else(|| format!("{seen:?}"))
}

/// Waits until something has been so often, which `count` knows.
pub async fn at_least(what: &str, times: usize, count: impl Fn() -> usize) {
    eventually(what, || async {
        let found = count();
        once(found >= times, found)
    })
    .await;
}

impl Tenant {
    /// Waits until the object is gone.
    pub async fn gone<K: Object>(&self, name: &str) {
        let api = self.api::<K>();
        eventually(&format!("{name} to be gone"), || async {
            match api.get_opt(name).await.unwrap() {
                None => Ok(()),
                Some(object) => Err(serde_json::to_string_pretty(&object).unwrap()),
            }
        })
        .await;
    }

    /// Waits until the object is as `right` says, and returns it.
    pub async fn until<K: Object>(&self, name: &str, what: &str, right: impl Fn(&K) -> bool) -> K {
        let api = self.api::<K>();
        eventually(&format!("{} {name}: {what}", K::kind(&())), || async {
            let object = api.get(name).await.unwrap();
            if right(&object) {
                Ok(object)
            } else {
                Err(serde_json::to_string_pretty(&object).unwrap())
            }
        })
        .await
    }

    /// Waits for a reason of `Ready` at the current generation, and returns the condition's message.
    pub async fn ready<K: Conditions>(&self, name: &str, reason: &str) -> String {
        let object = self
            .until::<K>(name, reason, |object| {
                let ready = object.condition("Ready");
                ready.is_some_and(|ready| {
                    ready.reason == reason && ready.observed_generation == object.meta().generation
                })
            })
            .await;
        object.condition("Ready").unwrap().message.clone()
    }

    /// Waits until a condition stands so at the current generation, and returns its message.
    pub async fn stands<K: Conditions>(
        &self,
        name: &str,
        type_: &str,
        status: &str,
        reason: &str,
    ) -> String {
        let what = format!("{type_}={status}/{reason}");
        let object = self
            .until::<K>(name, &what, |object| {
                let found = object.condition(type_);
                found.is_some_and(|found| {
                    (&*found.status, &*found.reason) == (status, reason)
                        && found.observed_generation == object.meta().generation
                })
            })
            .await;
        object.condition(type_).unwrap().message.clone()
    }
}
