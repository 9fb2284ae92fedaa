//! What the kubelet is told: whether the process is ready, and whether it is stuck.

use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// Readiness and liveness of the process. Clones are of the same process.
///
/// Neither is undone by dropping something: a task that died on its way must not make the process
/// ready, nor take with it the heartbeat that would have told.
#[derive(Clone, Debug, Default)]
pub struct Probes(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    pending: BTreeSet<String>,
    hearts: BTreeMap<String, Heart>,
}

#[derive(Debug)]
struct Heart {
    limit: Duration,
    last: Instant,
}

impl Probes {
    /// The process is not ready until this is [`Pending::done`]. `what` completes "waiting for". Say all
    /// there is to wait for before the probes are served, or the process is ready too early.
    pub fn wait_for(&self, what: impl Into<String>) -> Pending {
        let what = what.into();
        self.0.lock().pending.insert(what.clone());
        Pending {
            probes: self.clone(),
            what,
        }
    }

    /// The process is stuck once this has not beaten for `limit`. It beats first here and now.
    pub fn heartbeat(&self, task: impl Into<String>, limit: Duration) -> Heartbeat {
        let task = task.into();
        self.0.lock().hearts.insert(
            task.clone(),
            Heart {
                limit,
                last: Instant::now(),
            },
        );
        Heartbeat {
            probes: self.clone(),
            task,
        }
    }

    /// What the process still waits for; empty when it is ready.
    pub fn unready(&self) -> Vec<String> {
        self.0
            .lock()
            .pending
            .iter()
            .map(|what| format!("waiting for {what}"))
            .collect()
    }

    /// What is stuck; empty when the process is alive.
    pub fn stuck(&self) -> Vec<String> {
        let now = Instant::now();
        let state = self.0.lock();
        let silent = state
            .hearts
            .iter()
            .map(|(task, heart)| (task, now.duration_since(heart.last), heart.limit));
        silent
            .filter(|(_, silence, limit)| silence > limit)
            .map(|(task, silence, limit)| {
                format!(
                    "{task}: no sign of life for {} s (limit {} s)",
                    silence.as_secs(),
                    limit.as_secs()
                )
            })
            .collect()
    }
}

/// Something that the process waits for before it is ready.
#[derive(Debug)]
#[must_use = "the process is not ready until it is done"]
pub struct Pending {
    probes: Probes,
    what: String,
}

impl Pending {
    /// It is there.
    pub fn done(self) {
        self.probes.0.lock().pending.remove(&self.what);
    }
}

/// A task's signs of life.
#[derive(Debug)]
#[must_use = "the process counts as stuck when nothing beats"]
pub struct Heartbeat {
    probes: Probes,
    task: String,
}

impl Heartbeat {
    /// Still alive.
    pub fn beat(&self) {
        if let Some(heart) = self.probes.0.lock().hearts.get_mut(&self.task) {
            heart.last = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_nothing_is_waited_for() {
        let probes = Probes::default();
        let [api, watches] =
            ["the API server", "the watch of AlarmSets"].map(|what| probes.wait_for(what));
        assert_eq!(
            probes.unready(),
            [
                "waiting for the API server",
                "waiting for the watch of AlarmSets"
            ]
        );
        api.done();
        assert_eq!(probes.unready(), ["waiting for the watch of AlarmSets"]);
        drop(watches);
        assert_eq!(probes.unready().len(), 1, "what was given up is not done");
        probes.wait_for("the watch of AlarmSets").done();
        assert!(probes.unready().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn stuck_when_a_heart_is_silent() {
        let probes = Probes::default();
        let [one, other] =
            ["controller", "mirror"].map(|task| probes.heartbeat(task, Duration::from_secs(30)));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(probes.stuck().is_empty());
        one.beat();
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(
            probes.stuck(),
            ["mirror: no sign of life for 35 s (limit 30 s)"]
        );
        other.beat();
        assert!(probes.stuck().is_empty());
        drop((one, other));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(probes.stuck().len(), 2, "a dead task is missed");
    }
}
