//! What this process remembers of each object between runs: how often it failed in a row, since
//! when, and which changes the outside refused lately. Losing it costs a few calls.

use super::status::decisive;
use crate::engine::{
    applied::ThingRef,
    error::{Class, Error},
    jitter::{after, jittered, spread_by},
    rendering::Step,
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Default)]
struct Memory {
    generation: Option<i64>,
    /// The newest generation that the watch has seen; what a run reads may be older.
    newest: Option<i64>,
    /// The request to look again that the run answers, if it is a new one.
    request: Option<String>,
    /// Cancelled when something newer is seen.
    superseded: CancellationToken,
    /// How often each system failed in a row; the cluster itself, and what the spec refers to, without a name.
    systems: HashMap<&'static str, Failing>,
    /// Since when a system could not be read; one that this process never read is missing.
    unread: HashMap<&'static str, Option<Instant>>,
    refused: HashMap<RefusalKey, Refusal>,
    /// What differs outside and has been told.
    told: HashSet<ThingRef>,
    /// Whether this process has let go of the object, so that its end is no surprise.
    let_go: bool,
}

/// How a system fails.
#[derive(Debug, Default)]
struct Failing {
    failures: u32,
    /// Since when what passes by itself has not passed.
    since: Option<Instant>,
    /// When the next try is due; runs that something else woke before then do not count.
    due: Option<Instant>,
    /// What it said, where that passes by itself.
    error: Option<Error>,
    /// Whether nothing is written there in this run.
    held_back: bool,
}

/// What failed in one system.
#[derive(Debug, Default)]
pub struct SystemFailures {
    /// As which errors it is tried again.
    pub errors: Vec<Error>,
    /// Whether anything was done there all the same.
    pub progress: bool,
}

/// The endpoint, and the stage and key of one thing there; of all things where that is missing.
type RefusalKey = (String, Option<(&'static str, String)>);

/// A write that was refused.
#[derive(Debug)]
struct Refusal {
    /// The change; of all things where it is missing.
    change: Option<Step>,
    error: Error,
    times: u32,
    until: Instant,
}

fn refusal_key(endpoint: &str, change: Option<&Step>) -> RefusalKey {
    let thing = change.map(|change| (change.stage, change.key.clone()));
    (endpoint.to_owned(), thing)
}

impl Failing {
    /// Keeps since when what passes by itself has not passed.
    fn passes_since(&mut self, class: Option<Class>) {
        let since = class.filter(|class| class.passes());
        self.since = since.map(|_| self.since.unwrap_or_else(Instant::now));
    }

    /// Counts a failure, unless it comes before its time. Says how many there were in a row.
    fn count(&mut self, progress: bool) -> u32 {
        if progress {
            self.failures = 0;
        }
        if self.failures == 0 || self.due.is_none_or(|due| due <= Instant::now()) {
            self.failures = self.failures.saturating_add(1);
        }
        self.failures
    }
}

/// The memory of all objects, by UID.
#[derive(Debug, Default)]
pub struct ObjectMemory(Mutex<HashMap<String, Memory>>);

impl ObjectMemory {
    fn with<T>(&self, uid: &str, f: impl FnOnce(&mut Memory) -> T) -> T {
        let mut all = self.0.lock();
        f(all.entry(uid.to_owned()).or_default())
    }

    /// A run begins. An edit, and a new request to look again, wipe the slate clean. Answers with what is cancelled
    /// when a newer one is seen, so that the run ends what it waits for.
    pub fn begin(
        &self,
        uid: &str,
        generation: Option<i64>,
        request: Option<String>,
    ) -> CancellationToken {
        self.with(uid, |memory| {
            if request.is_some() || memory.generation != generation {
                // An edit does not make what was read any fresher.
                *memory = Memory {
                    generation,
                    newest: memory.newest,
                    unread: std::mem::take(&mut memory.unread),
                    told: std::mem::take(&mut memory.told),
                    ..Memory::default()
                };
            }
            memory.request = request;
            memory.superseded = CancellationToken::new();
            if memory.newest > generation {
                memory.superseded.cancel();
            }
            memory.superseded.clone()
        })
    }

    /// The watch has seen this generation, and this request if it is a new one: a run of an older generation, or for
    /// another request, is superseded.
    pub fn seen(&self, uid: &str, generation: Option<i64>, request: Option<&String>) {
        self.with(uid, |memory| {
            memory.newest = memory.newest.max(generation);
            let requested = request.is_some() && memory.request.as_ref() != request;
            if memory.generation < generation || requested {
                memory.superseded.cancel();
            }
        });
    }

    /// A run went well.
    pub fn succeeded(&self, uid: &str) {
        self.with(uid, |memory| memory.systems.clear());
    }

    /// The cluster failed a run before it came to any system. Says how often in a row, this time included.
    pub fn failed(&self, uid: &str, class: Class) -> u32 {
        self.with(uid, |memory| {
            let system = memory.systems.entry("").or_default();
            system.passes_since(Some(class));
            system.count(false)
        })
    }

    /// The systems in which nothing is written in this run: they failed lately, and another one's time has come.
    pub fn held_back(&self, uid: &str) -> BTreeMap<&'static str, Error> {
        self.with(uid, |memory| {
            let now = Instant::now();
            let mut all = memory.systems.values();
            let due = all.any(|system| system.due.is_some_and(|due| due <= now));
            let mut held = BTreeMap::new();
            for (name, system) in &mut memory.systems {
                let waits = due && system.due.is_some_and(|due| due > now);
                system.held_back = waits && system.error.is_some();
                held.extend(
                    system
                        .error
                        .clone()
                        .filter(|_| system.held_back)
                        .map(|it| (*name, it)),
                );
            }
            held
        })
    }

    /// A run came to its end: what failed, by system. One that got something done
    /// begins to count anew, so that a throttled object does not wait longer and longer while it gets on. Says how often
    /// the worst failed in a row, and when to try again.
    pub fn concluded(
        &self,
        uid: &str,
        failed: &BTreeMap<&'static str, SystemFailures>,
    ) -> (u32, Option<Duration>) {
        self.with(uid, |memory| {
            memory.systems.retain(|name, _| failed.contains_key(name));
            let now = Instant::now();
            let mut worst = (0, None::<Duration>);
            for (name, SystemFailures { errors, progress }) in failed {
                let system = memory.systems.entry(name).or_default();
                let failures = errors.iter().map(|error| (None, error));
                system.passes_since(decisive(failures).map(|(class, _)| class));
                let wait = match system.due.filter(|_| std::mem::take(&mut system.held_back)) {
                    Some(due) => Some(due.saturating_duration_since(now)),
                    None => {
                        let failures = system.count(*progress);
                        // What an item waits for, another need not.
                        errors
                            .iter()
                            .filter_map(|error| after(error, failures))
                            .min()
                    }
                };
                system.due = wait.map(|wait| now + wait);
                system.error = errors.iter().find(|error| error.class.passes()).cloned();
                worst.0 = worst.0.max(system.failures);
                worst.1 = worst.1.into_iter().chain(wait).min();
            }
            worst
        })
    }

    /// Whether a system could be read this time. Says for how long it could not; for ever, if this
    /// process never could: nobody knows how old what status says is.
    pub fn read(&self, uid: &str, system: &'static str, could: bool) -> Duration {
        self.with(uid, |memory| {
            if could {
                memory.unread.insert(system, None);
                return Duration::ZERO;
            }
            let unread = memory.unread.get_mut(system);
            unread.map_or(Duration::MAX, |since| {
                since.get_or_insert_with(Instant::now).elapsed()
            })
        })
    }

    /// How long it has been since the first of the failures in a row, in the system that fails for longest; zero if the
    /// last run went well.
    pub fn failing_for(&self, uid: &str) -> Duration {
        self.with(uid, |memory| {
            let since = memory.systems.values().filter_map(|system| system.since);
            since.min().map(|since| since.elapsed()).unwrap_or_default()
        })
    }

    /// The outside refused this change or, where it is `None`, every write at this endpoint.
    pub fn refuse(&self, uid: &str, endpoint: &str, change: Option<&Step>, error: &Error) {
        self.with(uid, |memory| {
            let key = refusal_key(endpoint, change);
            let before = memory.refused.get(&key);
            let times = before.map_or(1, |it| it.times.saturating_add(1));
            let wait = match change {
                // As early as the next try may come.
                Some(_) => error.class.delay(1).map(|wait| spread_by(0.0, wait)),
                None => jittered(error.class, times),
            };
            let refusal = Refusal {
                change: change.cloned(),
                error: error.clone(),
                times,
                until: Instant::now() + wait.unwrap_or_default(),
            };
            memory.refused.insert(key, refusal);
        });
    }

    /// The refusal of this very change, or of every write at this endpoint, if it is not worth asking again yet.
    pub fn refused(&self, uid: &str, endpoint: &str, change: &Step) -> Option<Error> {
        self.with(uid, |memory| {
            let refused = |change: Option<&Step>| {
                let refusal = memory.refused.get(&refusal_key(endpoint, change))?;
                let holds = refusal.change.as_ref() == change && Instant::now() < refusal.until;
                holds.then(|| refusal.error.clone())
            };
            refused(Some(change)).or_else(|| refused(None))
        })
    }

    /// A write at this endpoint was made.
    pub fn allowed(&self, uid: &str, endpoint: &str) {
        let key = refusal_key(endpoint, None);
        self.with(uid, |memory| drop(memory.refused.remove(&key)));
    }

    /// What differs outside and has been told.
    pub fn told(&self, uid: &str) -> HashSet<ThingRef> {
        self.with(uid, |memory| memory.told.clone())
    }

    /// This differs outside and is told now.
    pub fn tell(&self, uid: &str, differs: HashSet<ThingRef>) {
        self.with(uid, |memory| memory.told = differs);
    }

    /// This process is about to remove the finalizer, or has failed to.
    pub fn let_go(&self, uid: &str, let_go: bool) {
        self.with(uid, |memory| memory.let_go = let_go);
    }

    /// Whether this process has removed the finalizer.
    pub fn has_let_go(&self, uid: &str) -> bool {
        self.0.lock().get(uid).is_some_and(|memory| memory.let_go)
    }

    /// The object is gone.
    pub fn forget(&self, uid: &str) {
        if let Some(memory) = self.0.lock().remove(uid) {
            memory.superseded.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::plan::Verb;

    fn step(threshold: &str) -> Step {
        let fields = vec![crate::engine::rendering::FieldChange {
            name: "threshold".into(),
            from: None,
            to: threshold.into(),
        }];
        Step {
            verb: Verb::Create,
            stage: "alarm",
            key: "a".into(),
            fields,
            owner: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_count_until_success_or_edit() {
        let backoff = ObjectMemory::default();
        let error = Error::failing("no");
        let failed = |progress| {
            let failures = SystemFailures {
                errors: vec![error.clone()],
                progress,
            };
            let failed = BTreeMap::from([("aws", failures)]);
            backoff.concluded("u", &failed).0
        };
        backoff.begin("u", Some(1), None);
        assert_eq!(
            (failed(false), failed(false)),
            (1, 1),
            "woken before its time"
        );
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(backoff.failing_for("u"), Duration::from_secs(60));
        backoff.begin("u", Some(1), None);
        assert_eq!(failed(false), 2);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(failed(false), 3);
        assert_eq!(failed(true), 1, "it gets on");
        backoff.begin("u", Some(2), None);
        assert_eq!(
            (backoff.failing_for("u"), failed(false)),
            (Duration::ZERO, 1)
        );
        backoff.succeeded("u");
        assert_eq!(failed(false), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_system_that_failed_is_held_back_while_another_is_due() {
        let memory = ObjectMemory::default();
        let error = Error::new(Class::Throttled, "slow down");
        let failures = |wait: u64| SystemFailures {
            errors: vec![error.clone().after(Duration::from_secs(wait))],
            progress: false,
        };
        let failed = || BTreeMap::from([("aws", failures(10)), ("sentry", failures(300))]);
        memory.concluded("u", &failed());
        let held = || memory.held_back("u").into_keys().collect::<Vec<_>>();
        assert_eq!(held(), [""; 0], "something else has woken it");
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(held(), ["sentry"]);
        let (_, again) = memory.concluded("u", &failed());
        assert!(
            again.is_some_and(|wait| wait <= Duration::from_secs(12)),
            "{again:?}"
        );
        tokio::time::advance(Duration::from_secs(400)).await;
        assert_eq!(
            held(),
            [""; 0],
            "its time has come, whatever came in between"
        );
    }

    #[test]
    fn only_a_newer_edit_supersedes_a_run() {
        let memory = ObjectMemory::default();
        let (one, other) = ("1".to_owned(), "2".to_owned());
        let run = memory.begin("u", Some(2), None);
        memory.seen("u", Some(1), None);
        memory.seen("u", Some(2), None);
        memory.seen("other", Some(3), Some(&one));
        assert!(!run.is_cancelled());
        let late = memory.begin("other", Some(2), None);
        assert!(late.is_cancelled(), "it was seen before the run began");
        assert!(!memory.begin("other", Some(3), None).is_cancelled());
        memory.seen("u", Some(3), None);
        assert!(run.is_cancelled());
        let run = memory.begin("u", Some(3), Some(one.clone()));
        memory.seen("u", Some(3), Some(&one));
        assert!(!run.is_cancelled());
        memory.seen("u", Some(3), Some(&other));
        assert!(run.is_cancelled());
        let run = memory.begin("u", Some(3), None);
        assert!(!run.is_cancelled());
        memory.forget("u");
        assert!(run.is_cancelled(), "it is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_passes_by_itself_uses_up_the_grace() {
        let backoff = ObjectMemory::default();
        backoff.failed("u", Class::Denied);
        tokio::time::advance(Duration::from_secs(900)).await;
        backoff.failed("u", Class::Unavailable);
        assert_eq!(backoff.failing_for("u"), Duration::ZERO);
    }

    /// One that has come back does not use up the grace of another that fails later.
    #[tokio::test(start_paused = true)]
    async fn each_system_has_its_own_grace() {
        let memory = ObjectMemory::default();
        let fails = |systems: &[&'static str]| {
            let failures = || SystemFailures {
                errors: vec![Error::failing("no")],
                progress: false,
            };
            let failed = systems.iter().map(|system| (*system, failures()));
            memory.concluded("u", &failed.collect());
            memory.failing_for("u").as_secs()
        };
        let minutes = |count: u64| tokio::time::advance(Duration::from_secs(60 * count));
        assert_eq!(fails(&["aws"]), 0);
        minutes(8).await;
        assert_eq!(fails(&["aws", "sentry"]), 480);
        minutes(1).await;
        assert_eq!(fails(&["sentry"]), 60);
        assert_eq!(fails(&[]), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_ages_until_it_is_read_again_whatever_is_edited() {
        let backoff = ObjectMemory::default();
        let read = |could| backoff.read("u", "aws", could);
        assert_eq!(read(false), Duration::MAX, "never read");
        assert_eq!(read(true), Duration::ZERO);
        assert_eq!(read(false), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(60)).await;
        backoff.begin("u", Some(2), None);
        backoff.read("u", "sentry", true);
        assert_eq!(read(false), Duration::from_secs(60));
        assert_eq!(read(true), Duration::ZERO);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(read(false), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_denied_scope_is_left_alone_for_longer_and_longer() {
        let backoff = ObjectMemory::default();
        let error = Error::new(Class::Denied, "no");
        let mut waits = Vec::new();
        for _ in 0..5 {
            backoff.refuse("u", "a", None, &error);
            let began = Instant::now();
            while backoff.refused("u", "a", &step("1")).is_some() {
                tokio::time::advance(Duration::from_secs(10)).await;
            }
            waits.push(began.elapsed().as_secs());
        }
        assert!(
            (150..=310).contains(&waits[0]) && waits[4] >= 1800,
            "{waits:?}"
        );
        assert_eq!(backoff.refused("u", "b", &step("1")), None);
        backoff.refuse("u", "a", None, &error);
        backoff.begin("u", Some(7), None);
        assert_eq!(backoff.refused("u", "a", &step("1")), None, "an edit");
        backoff.refuse("u", "a", None, &error);
        backoff.allowed("u", "a");
        assert_eq!(backoff.refused("u", "a", &step("1")), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_change_is_not_tried_again_for_an_hour_unless_it_changes() {
        let backoff = ObjectMemory::default();
        backoff.begin("u", Some(1), None);
        let error = Error::new(Class::Rejected, "no");
        backoff.refuse("u", "a", Some(&step("1")), &error);
        assert_eq!(backoff.refused("u", "a", &step("1")), Some(error));
        assert_eq!(backoff.refused("u", "a", &step("2")), None);
        assert_eq!(
            backoff.refused("u", "b", &step("1")),
            None,
            "another system"
        );
        tokio::time::advance(Duration::from_secs(3601)).await;
        assert_eq!(backoff.refused("u", "a", &step("1")), None);
        backoff.refuse(
            "u",
            "a",
            Some(&step("1")),
            &Error::new(Class::Rejected, "no"),
        );
        backoff.begin("u", Some(1), Some("now".into()));
        assert_eq!(
            backoff.refused("u", "a", &step("1")),
            None,
            "asked to look again"
        );
    }
}
