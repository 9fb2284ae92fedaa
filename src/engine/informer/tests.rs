//! What a mirror promises to those who look at it, and what the engine does over one.

use super::*;
use crate::engine::{
    error::Class,
    gate::{Gate, Operation, StatusEdit, WritePermit},
    plan::{Change, Desired, Found, Owner, Value},
    rendering::Step,
    stage::{ChangeOf, Ids, ResultOf, Run, Seen, Stage, StageRun, drive},
};
use futures::future::BoxFuture;
use proptest::{collection::vec, prelude::*};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::runtime;

/// A thing outside: its size, and who holds it.
type Thing = (u8, Owner);

impl Mirrored for Thing {}

/// What somebody does while a read is under way.
type Deed = Box<dyn FnOnce(&mut BTreeMap<String, Thing>) + Send>;

#[derive(Default)]
struct World {
    things: Mutex<BTreeMap<String, Thing>>,
    reads: Mutex<Vec<String>>,
    fails: Mutex<Option<Error>>,
    /// Happens just before the next read by name answers.
    meanwhile: Mutex<Option<Deed>>,
    unsettled: AtomicBool,
}

struct Bulk(Arc<World>);
/// As [`Bulk`], of an outside without bulk reads.
struct Single(Arc<World>);

impl World {
    async fn read(
        &self,
        what: String,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<BTreeMap<String, Thing>> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.reads.lock().push(what);
        if let Some(error) = &*self.fails.lock() {
            return Err(error.clone());
        }
        let all = self.things.lock().clone().into_iter();
        Ok(all.filter(|(key, _)| wanted(key)).collect())
    }

    fn reads(&self) -> Vec<String> {
        std::mem::take(&mut self.reads.lock())
    }

    fn put(&self, key: &str, size: u8) {
        self.things.lock().insert(key.into(), (size, Owner::Us));
    }
}

impl Source for Bulk {
    type Key = String;
    type Value = Thing;
    const ENUMERATES: bool = true;
    const POLL_RATE: PollRate = PollRate::Poll;

    async fn read(&self, _: &BTreeSet<String>, _: Priority) -> Result<ReadOf<Self>> {
        self.0.read("all".into(), |_| true).await
    }

    async fn read_some(&self, keys: &BTreeSet<String>, _: Priority) -> Result<ReadOf<Self>> {
        if let Some(deed) = self.0.meanwhile.lock().take() {
            deed(&mut self.0.things.lock());
        }
        let names: Vec<_> = keys.iter().cloned().collect();
        self.0.read(names.join(" "), |key| keys.contains(key)).await
    }

    fn is_unsettled((size, _): &Thing) -> bool {
        *size == 99
    }
}

impl Source for Single {
    type Key = String;
    type Value = Thing;
    const ENUMERATES: bool = false;
    const POLL_RATE: PollRate = PollRate::Slow;

    async fn read(&self, keys: &BTreeSet<String>, _: Priority) -> Result<ReadOf<Self>> {
        let names: Vec<_> = keys.iter().cloned().collect();
        self.0.read(names.join(" "), |key| keys.contains(key)).await
    }

    async fn invalidated(&self) {
        while !self.0.unsettled.swap(false, Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

const TEMPO: PollIntervals = PollIntervals {
    poll: Duration::from_secs(60),
    slow: Duration::from_secs(600),
};

type Woken = Mutex<Vec<String>>;

/// An informer of one sort over a new world, and whom it woke.
fn outside<S: Source>(
    source: impl Fn(Arc<World>) -> S,
) -> (Arc<World>, Arc<Informer<S>>, Arc<Woken>) {
    let world = Arc::new(World::default());
    let woken = Arc::new(Mutex::new(Vec::new()));
    let told = woken.clone();
    let waker: Waker =
        Arc::new(move |subscriber: &Subscriber| told.lock().push(subscriber.name.clone()));
    let polling = Polling {
        intervals: None,
        waker,
    };
    let outside = Informer::new(source(world.clone()), &polling);
    (world, outside, woken)
}

fn keys(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

fn subscribe<S: Source<Key = String>>(
    outside: &Arc<Informer<S>>,
    name: &str,
    watched: &[&str],
) -> Subscription {
    let subscriber = Subscriber {
        kind: "kind",
        namespace: "ns".into(),
        name: name.into(),
        uid: name.into(),
    };
    outside.subscribe(&subscriber, keys(watched))
}

fn options(uid: &str, consistency: Consistency) -> ReadOptions {
    ReadOptions {
        uid: uid.into(),
        priority: Priority::Background,
        consistency,
        since: Instant::now(),
        superseded: CancellationToken::new(),
    }
}

fn woke(woken: &Woken) -> Vec<String> {
    let mut woken = std::mem::take(&mut *woken.lock());
    woken.sort();
    woken
}

#[tokio::test(start_paused = true)]
async fn many_who_look_share_one_read_and_only_those_concerned_are_woken() {
    let (world, outside, woken) = outside(Bulk);
    world.put("a/1", 1);
    world.put("b/1", 1);
    let [_a, of_b, _c] =
        ["a", "b", "c"].map(|name| subscribe(&outside, name, &[&format!("{name}/")]));
    let (a, b) = (keys(&["a/"]), keys(&["b/"]));
    let known = Consistency::Known;
    let (asks_a, asks_b) = (options("a", known), options("b", known));
    let (one, other) = tokio::join!(outside.snapshot(&a, &asks_a), outside.snapshot(&b, &asks_b));
    assert_eq!((one.unwrap().len(), other.unwrap().len()), (1, 1));
    assert_eq!(world.reads(), ["all"]);
    assert_eq!(
        woke(&woken),
        ["b"],
        "whoever reads is not woken by what it reads"
    );
    outside.poll().await;
    assert_eq!((world.reads().len(), woke(&woken)), (1, vec![]));
    world.put("b/1", 2);
    outside.poll().await;
    assert_eq!(woke(&woken), ["b"]);
    drop(of_b);
    world.put("b/1", 3);
    outside.poll().await;
    assert_eq!(woke(&woken), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_read_that_fails_is_told_once_and_takes_nothing_away() {
    let (world, outside, woken) = outside(Bulk);
    world.put("a/1", 1);
    let _both = ["a", "b"].map(|name| subscribe(&outside, name, &[&format!("{name}/")]));
    outside.poll().await;
    woke(&woken);
    *world.fails.lock() = Some(Error::failing("503"));
    outside.poll().await;
    assert_eq!(woke(&woken), ["a", "b"], "all are to know");
    outside.poll().await;
    assert_eq!(woke(&woken), Vec::<String>::new(), "they do");
    assert_eq!(outside.known(&keys(&["a/"])).len(), 1);
    let reads = world.reads().len();
    let known = outside
        .snapshot(&keys(&["a/"]), &options("a", Consistency::Known))
        .await;
    assert_eq!(known.unwrap_err().message, "503");
    assert_eq!(
        (reads, world.reads().len()),
        (3, 0),
        "nobody asks again for it"
    );
    let retried = outside
        .snapshot(&keys(&["a/"]), &options("a", Consistency::Retried))
        .await;
    assert!(retried.is_err());
    assert_eq!(world.reads().len(), 1, "but for an edit");
    *world.fails.lock() = None;
    outside.poll().await;
    assert_eq!(woke(&woken), ["a", "b"], "and that it is over");
}

#[tokio::test(start_paused = true)]
async fn fresh_is_read_now_and_doubt_is_cleared_first() {
    let (world, outside, _) = outside(Bulk);
    let a = keys(&["a/"]);
    let _a = subscribe(&outside, "a", &["a/"]);
    outside.poll().await;
    world.reads();
    let look = async |consistency| {
        let options = options("a", consistency);
        let found = outside.snapshot(&a, &options).await.unwrap();
        (found.len(), world.reads().len())
    };
    world.put("a/1", 1);
    assert_eq!(look(Consistency::Known).await, (0, 0));
    assert_eq!(look(Consistency::Retried).await, (0, 0));
    assert_eq!(look(Consistency::Now).await, (1, 1));
    world.put("a/1", 2);
    outside.invalidate("b/1");
    assert_eq!(
        look(Consistency::Known).await,
        (1, 0),
        "somebody else's doubt"
    );
    outside.invalidate("a/1");
    assert_eq!(look(Consistency::Known).await, (1, 1));
    outside.wrote("a/1", None);
    assert_eq!(
        look(Consistency::Known).await,
        (0, 0),
        "we know what we wrote"
    );
}

#[tokio::test(start_paused = true)]
async fn fresh_does_not_mean_that_doubt_and_what_was_never_read_are_passed_over() {
    let (world, outside, _) = outside(Single);
    world.put("a", 1);
    world.put("b", 1);
    let _a = subscribe(&outside, "a", &["a"]);
    let now = options("a", Consistency::Now);
    let look = async |name: &str| {
        let found = outside.snapshot(&keys(&[name]), &now).await.unwrap();
        (found.len(), world.reads())
    };
    assert_eq!(look("a").await, (1, vec!["a".to_owned()]));
    assert_eq!(look("a").await, (1, vec![]), "once for one question");
    outside.invalidate("a");
    assert_eq!(
        look("a").await,
        (1, vec!["a".to_owned()]),
        "what we wrote in the same run"
    );
    assert_eq!(
        look("b").await,
        (1, vec!["a b".to_owned()]),
        "what nobody had asked for before"
    );
}

#[tokio::test(start_paused = true)]
async fn a_read_that_is_under_way_makes_nothing_fresh() {
    let (world, outside, _) = outside(Bulk);
    let _a = subscribe(&outside, "a", &["a/"]);
    outside.poll().await;
    let options = options("a", Consistency::Known);
    tokio::time::advance(Duration::from_secs(1)).await;
    world.put("a/1", 1);
    let look = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let found = outside.snapshot(&keys(&["a/"]), &options).await.unwrap();
        (found.len(), outside.is_fresh(options.since))
    };
    let (found, ()) = tokio::join!(look, outside.poll());
    assert_eq!(found, (0, false), "it looked at what was read before");
    assert!(outside.is_fresh(options.since));
}

#[tokio::test(start_paused = true)]
async fn only_what_is_in_doubt_is_read_again_and_tells_whoever_asks() {
    let (world, outside, woken) = outside(Bulk);
    let _a = subscribe(&outside, "a", &["a/"]);
    outside.poll().await;
    world.reads();
    outside.invalidate("a/1");
    world.put("a/1", 1);
    world.put("a/2", 1);
    let options = options("a", Consistency::Known);
    let found = outside.snapshot(&keys(&["a/"]), &options).await.unwrap();
    assert_eq!((found.len(), world.reads()), (1, vec!["a/1".to_owned()]));
    assert_eq!(woke(&woken), ["a"], "it may have decided before it looked");
}

#[tokio::test(start_paused = true)]
async fn without_bulk_reads_a_new_interest_is_read_before_it_is_answered() {
    let (world, outside, _) = outside(Single);
    world.put("a", 1);
    world.put("b", 1);
    let _a = subscribe(&outside, "a", &["a"]);
    let look = async |name: &str| {
        let options = options(name, Consistency::Known);
        let found = outside.snapshot(&keys(&[name]), &options).await.unwrap();
        (found.len(), world.reads())
    };
    assert_eq!(look("a").await, (1, vec!["a".to_owned()]));
    assert_eq!(look("a").await, (1, vec![]));
    let _b = subscribe(&outside, "b", &["b"]);
    assert_eq!(look("b").await, (1, vec!["a b".to_owned()]));
    assert_eq!(look("a").await, (1, vec![]));
}

#[tokio::test(start_paused = true)]
async fn it_is_read_in_its_rhythm_and_more_often_while_something_is_to_settle() {
    let (world, outside, _) = outside(Bulk);
    // From the beginning of one read, which takes its time, to that of the next.
    let waits = async || {
        let began = Instant::now();
        outside.poll().await;
        outside.due(TEMPO).await;
        began.elapsed().as_secs()
    };
    let usual = waits().await;
    assert!((54..=66).contains(&usual), "{usual}");
    world.put("a", 99);
    outside.wrote("a", Some((99, Owner::Us)));
    let soon = waits().await;
    assert!((9..=11).contains(&soon), "{soon}");
    tokio::time::advance(UNSETTLED_FOR).await;
    let later = waits().await;
    assert!((54..=66).contains(&later), "not for ever: {later}");

    *world.fails.lock() = Some(Error::new(Class::Denied, "no"));
    let denied = waits().await;
    assert!((150..=300).contains(&denied), "{denied}");
    *world.fails.lock() = Some(Error::new(Class::Rejected, "no"));
    let refused = waits().await;
    assert!(refused <= 10, "{refused}");
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_reads_brings_the_next_look_forward() {
    let (world, outside, _) = outside(Bulk);
    let began = Instant::now();
    outside.poll().await;
    let meanwhile = async {
        // A reconcile writes, and reads what came of it while the poller sleeps.
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.put("a/1", 99);
        outside.invalidate("a/1");
        let options = options("a", Consistency::Known);
        outside.snapshot(&keys(&["a/"]), &options).await.unwrap();
    };
    tokio::join!(outside.due(TEMPO), meanwhile);
    let waited = began.elapsed().as_secs();
    assert!((9..=12).contains(&waited), "{waited}");
}

#[tokio::test(start_paused = true)]
async fn what_is_invalidated_is_read_at_once() {
    let (world, outside, _) = outside(Single);
    outside.poll().await;
    let began = Instant::now();
    world.unsettled.store(true, Ordering::Relaxed);
    outside.due(TEMPO).await;
    assert!(began.elapsed() < Duration::from_secs(1));
}

/// What becomes of an answer that is not wanted any more after so many milliseconds, and when.
async fn superseded<T>(
    options: &ReadOptions,
    after: u64,
    answer: impl Future<Output = Result<T>>,
) -> (Option<Class>, Duration) {
    let began = Instant::now();
    let supersede = async {
        tokio::time::sleep(Duration::from_millis(after)).await;
        options.superseded.cancel();
    };
    let answer = async { (answer.await.err().map(|error| error.class), began.elapsed()) };
    tokio::join!(answer, supersede).0
}

/// A read takes 50 ms.
#[tokio::test(start_paused = true)]
async fn whoever_is_superseded_ends_at_once_and_loses_nobody_a_read() {
    let (world, outside, _) = outside(Bulk);
    let _us = ["a", "b"].map(|name| subscribe(&outside, name, &[&format!("{name}/")]));
    world.put("a/1", 1);
    world.put("b/1", 1);
    let (a, b) = (keys(&["a/"]), keys(&["b/"]));
    let began = Instant::now();
    let ended = |after| (Some(Class::Superseded), Duration::from_millis(after));

    // Of two who wait for one read the one that reads is superseded: the other reads itself.
    let (of_a, of_b) = (
        options("a", Consistency::Known),
        options("b", Consistency::Known),
    );
    let (one, other) = tokio::join!(
        superseded(&of_a, 20, outside.snapshot(&a, &of_a)),
        outside.snapshot(&b, &of_b)
    );
    assert_eq!((one, other.unwrap().len()), (ended(20), 1));
    assert_eq!(began.elapsed(), Duration::from_millis(70));
    assert_eq!(world.reads(), ["all"], "half a read is none");

    // The one that waits is superseded: the other's read counts, and for both.
    let (of_a, of_b) = (
        options("a", Consistency::Now),
        options("b", Consistency::Now),
    );
    let (one, other) = tokio::join!(
        outside.snapshot(&a, &of_a),
        superseded(&of_b, 20, outside.snapshot(&b, &of_b))
    );
    assert_eq!((one.unwrap().len(), other), (1, ended(20)));
    assert_eq!(world.reads(), ["all"]);
    let asked_then = options("b", Consistency::Now);
    let again = ReadOptions {
        since: of_b.since,
        ..asked_then
    };
    assert_eq!(outside.snapshot(&b, &again).await.unwrap().len(), 1);
    assert!(
        world.reads().is_empty(),
        "it was read for that very question"
    );

    // Nor does whoever was superseded before it asked wait for anything.
    let known = superseded(&of_b, 0, outside.look_up(&b, &of_b));
    assert_eq!(known.await, ended(0));
}

#[tokio::test(start_paused = true)]
async fn half_a_read_leaves_what_is_known_and_what_is_to_be_read() {
    let (world, outside, _) = outside(Bulk);
    let _us = subscribe(&outside, "a", &["a/"]);
    let began = Instant::now();
    outside.poll().await;
    world.reads();
    let a = keys(&["a/"]);
    tokio::time::advance(Duration::from_secs(30)).await;

    let now = options("a", Consistency::Now);
    world.put("a/1", 1);
    superseded(&now, 20, outside.snapshot(&a, &now)).await;
    assert!(outside.known(&a).is_empty() && !outside.is_fresh(now.since));

    // What is written meanwhile is known, whenever the read began.
    let now = options("a", Consistency::Now);
    let write = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        world.put("a/2", 2);
        outside.wrote("a/2", Some((2, Owner::Us)));
        outside.invalidate("a/3");
    };
    tokio::join!(superseded(&now, 20, outside.snapshot(&a, &now)), write);
    assert_eq!(outside.known(&a).into_keys().collect::<Vec<_>>(), ["a/2"]);

    // Doubt stays until it is cleared.
    let known = options("a", Consistency::Known);
    superseded(&known, 20, outside.snapshot(&a, &known)).await;
    let known = options("a", Consistency::Known);
    assert_eq!(outside.snapshot(&a, &known).await.unwrap().len(), 1);
    assert_eq!(world.reads(), ["a/3"]);

    // Nobody has read everything since the first time, so its time comes no later.
    outside.due(TEMPO).await;
    let waited = began.elapsed().as_secs();
    assert!((54..=66).contains(&waited), "{waited}");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_subscribes_to_is_neither_polled_nor_believed() {
    let (world, polling) = (Arc::new(World::default()), Polling::none());
    let outside = Informer::new(
        Bulk(world.clone()),
        &Polling {
            intervals: Some(TEMPO),
            ..polling
        },
    );
    let minutes = async |count: u32| {
        tokio::time::sleep(Duration::from_secs(60) * count).await;
        world.reads().len()
    };
    let look = async |name: &str| {
        let options = options(name, Consistency::Known);
        let all = keys(&[""]);
        let found = outside.snapshot(&all, &options).await.unwrap().len();
        (
            found,
            outside.snapshot(&all, &options).await.unwrap().len(),
            world.reads().len(),
        )
    };
    assert_eq!(minutes(5).await, 0);
    world.put("a", 1);
    assert_eq!(look("x").await, (1, 1, 1), "once for one question");
    let first = subscribe(&outside, "a", &["a"]);
    assert!(
        outside.known(&keys(&[""])).is_empty(),
        "what was there may have gone"
    );
    assert_eq!(look("a").await, (1, 1, 1));
    assert_eq!(look("x").await, (1, 1, 0), "it is kept up to date now");
    let second = subscribe(&outside, "b", &["b"]);
    drop(first);
    assert!((4..=6).contains(&minutes(5).await));
    assert_eq!(outside.health("other"), None);
    let health = outside.health("kind").unwrap();
    assert!(!health.is_failing && health.age <= Duration::from_secs(66));
    drop(second);
    assert_eq!((minutes(5).await, outside.health("kind")), (0, None));
    world.put("b", 1);
    assert_eq!(look("x").await, (2, 2, 1));
    world.put("c", 1);
    let _again = subscribe(&outside, "a", &["a"]);
    assert_eq!(outside.health("kind").unwrap().age, Duration::ZERO);
    assert_eq!(look("a").await, (3, 3, 1));
}

/// A stage over a mirror.
struct Things {
    desired: Desired<String, Size>,
    outside: Arc<Informer<Bulk>>,
    options: ReadOptions,
    /// What becomes of the next write.
    fate: Mutex<Fate>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Lands,
    /// It is done, and nobody learns of it.
    CutAfter,
    /// It is not done, and nobody learns of it.
    CutBefore,
    Denied,
}

#[derive(Clone, Debug, PartialEq)]
struct Size(u8);

impl Value for Size {
    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![("size", self.0.to_string())]
    }
}

impl Things {
    fn found(snapshot: Snapshot<Thing>) -> Seen<Self> {
        let found = snapshot.into_iter().map(|(key, thing)| {
            let found = Found {
                id: (),
                value: Size(thing.0),
                owner: thing.1.clone(),
                live: (),
            };
            (key, found)
        });
        found.collect()
    }
}

impl Stage for Things {
    const NAME: &'static str = "thing";
    type Key = String;
    type Value = Size;
    type Id = ();
    type Live = ();

    fn endpoint(&self) -> &str {
        "scope"
    }

    fn desired(&self) -> &Desired<String, Size> {
        &self.desired
    }

    async fn observe(&self, _: &Ids) -> Result<Seen<Self>> {
        let all = keys(&[""]);
        let snapshot = self.outside.snapshot(&all, &self.options);
        Ok(Self::found(snapshot.await?))
    }

    async fn confirm(&self, keys: &BTreeSet<String>, _: &Ids) -> Result<Option<Seen<Self>>> {
        let confirmed = self.outside.confirm(keys, &self.options).await?;
        Ok(confirmed.map(Self::found))
    }

    fn operation(&self, _: &ChangeOf<Self>) -> Operation<'_> {
        Operation {
            endpoint: "scope",
            account: "",
            region: "",
            identity: "",
            api: "put",
        }
    }

    async fn apply(&self, _: &WritePermit<'_>, _: &ChangeOf<Self>, _: &Ids) -> ResultOf<Self> {
        unreachable!("all goes in batches")
    }

    async fn apply_batch(
        &self,
        _: &WritePermit<'_>,
        changes: &[ChangeOf<Self>],
        _: &Ids,
    ) -> Vec<ResultOf<Self>> {
        let fate = std::mem::replace(&mut *self.fate.lock(), Fate::Lands);
        let mut outcomes = Vec::new();
        for change in changes {
            let (key, to) = match change {
                Change::Create { key, to } | Change::Update { key, to, .. } => (key, Some(to.0)),
                Change::Delete { key, .. } => (key, None),
            };
            let thing = to.map(|size| (size, Owner::Us));
            if matches!(fate, Fate::Lands | Fate::CutAfter) {
                let mut things = self.outside.source.0.things.lock();
                let before = match &thing {
                    Some(thing) => things.insert(key.clone(), thing.clone()),
                    None => things.remove(key),
                };
                let theirs = before.is_some_and(|(_, owner)| owner != Owner::Us);
                assert!(!theirs, "{key} was not ours");
            }
            outcomes.push(match fate {
                Fate::Lands => {
                    self.outside.wrote(key, thing);
                    Ok(None)
                }
                Fate::CutAfter | Fate::CutBefore => {
                    self.outside.invalidate(key);
                    Err(Error::new(Class::OutcomeUnknown, "no answer"))
                }
                Fate::Denied => Err(Error::new(Class::Denied, "no")),
            });
        }
        outcomes
    }
}

/// A gate that lets everything pass.
struct Open;

impl Gate for Open {
    fn enter<'a>(&'a self, _: Operation<'a>, _: &'a [Step]) -> BoxFuture<'a, Result<()>> {
        Box::pin(future::ready(Ok(())))
    }
    fn edit<'a>(&'a self, _: &'a StatusEdit) -> BoxFuture<'a, Result<()>> {
        Box::pin(future::ready(Ok(())))
    }
    fn answered(&self, _: Operation<'_>, _: &[(&Step, Result<(), &Error>)]) {}
    fn refused(&self, _: Operation<'_>, _: &Step) -> Option<Error> {
        None
    }
}

/// What happens in a history of both sides.
#[derive(Clone, Debug)]
enum Event {
    /// The spec changes.
    Edit(BTreeMap<u8, u8>),
    /// Somebody makes, changes, takes over or removes a thing, as (key, size, whose).
    Foreign(u8, Option<(u8, bool)>),
    /// The timer runs out; the read may fail.
    Poll(bool),
    /// We look, and write; somebody else comes in between the look and its confirmation.
    Reconcile(Fate, Option<(u8, Option<(u8, bool)>)>),
    /// The same, superseded after so many milliseconds.
    Superseded(Fate, u64),
    /// Nobody subscribes for a moment.
    Lapse,
    /// The process dies: all that is remembered is lost.
    Restart,
}

fn foreign() -> impl Strategy<Value = (u8, Option<(u8, bool)>)> {
    (0..4_u8, proptest::option::of((0..3_u8, any::<bool>())))
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => Just(Fate::Lands),
        1 => Just(Fate::CutAfter),
        1 => Just(Fate::CutBefore),
        1 => Just(Fate::Denied),
    ]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        2 => proptest::collection::btree_map(0..4_u8, 0..3_u8, 0..4).prop_map(Event::Edit),
        4 => foreign().prop_map(|(key, thing)| Event::Foreign(key, thing)),
        2 => any::<bool>().prop_map(Event::Poll),
        4 => (fate(), proptest::option::of(foreign())).prop_map(|(fate, deed)| Event::Reconcile(fate, deed)),
        1 => (fate(), 0..200_u64).prop_map(|(fate, after)| Event::Superseded(fate, after)),
        1 => Just(Event::Lapse),
        1 => Just(Event::Restart),
    ];
    vec(event, 1..30)
}

fn meddle(things: &mut BTreeMap<String, Thing>, key: u8, thing: Option<(u8, bool)>) {
    let key = key.to_string();
    match thing {
        // Whoever changes a thing of ours by hand leaves our mark on it, or takes it away.
        Some((size, keeps_mark)) => {
            let ours = things
                .get(&key)
                .is_some_and(|(_, owner)| *owner == Owner::Us);
            let owner = match (ours && keeps_mark, size % 2) {
                (true, _) => Owner::Us,
                (false, 0) => Owner::Nobody,
                (false, _) => Owner::Other("campanile:other".into()),
            };
            things.insert(key, (size, owner));
        }
        None => drop(things.remove(&key)),
    }
}

async fn reconcile(
    outside: &Arc<Informer<Bulk>>,
    wanted: &BTreeMap<u8, u8>,
    fate: Fate,
    options: &ReadOptions,
) {
    let wanted = wanted.iter();
    let stage = Things {
        desired: Desired {
            wanted: wanted
                .map(|(key, size)| (key.to_string(), Size(*size)))
                .collect(),
            ..Desired::default()
        },
        outside: outside.clone(),
        options: options.clone(),
        fate: Mutex::new(fate),
    };
    let mut stage = StageRun::new(stage);
    let mut run = Run::new(Some(&Open), "");
    drive(&mut [&mut stage], &mut run).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    /// The apply of [`Things`] refuses to touch what is not ours at that moment. In the end, once nobody
    /// meddles any more, what is wanted is there unless somebody else's thing is in its way, and of ours
    /// there is nothing else.
    #[test]
    fn nothing_foreign_is_touched_and_all_histories_converge(events in events()) {
        let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let world = Arc::new(World::default());
            let open = || {
                let outside = Informer::new(Bulk(world.clone()), &Polling::none());
                let subscription = subscribe(&outside, "us", &[""]);
                (outside, subscription)
            };
            let retried = || options("us", Consistency::Retried);
            let ((mut outside, mut _subscription), mut wanted) = (open(), BTreeMap::new());
            for event in events {
                tokio::time::advance(Duration::from_secs(1)).await;
                match event {
                    Event::Edit(spec) => wanted = spec,
                    Event::Foreign(key, thing) => meddle(&mut world.things.lock(), key, thing),
                    Event::Poll(fails) => {
                        *world.fails.lock() = fails.then(|| Error::failing("503"));
                        outside.poll().await;
                        *world.fails.lock() = None;
                    }
                    Event::Reconcile(fate, deed) => {
                        *world.meanwhile.lock() = deed.map(|(key, thing)| -> Deed {
                            Box::new(move |things| meddle(things, key, thing))
                        });
                        reconcile(&outside, &wanted, fate, &retried()).await;
                        *world.meanwhile.lock() = None;
                    }
                    Event::Superseded(fate, after) => {
                        let asks = retried();
                        let supersede = async {
                            tokio::time::sleep(Duration::from_millis(after)).await;
                            asks.superseded.cancel();
                        };
                        tokio::join!(reconcile(&outside, &wanted, fate, &asks), supersede);
                    }
                    Event::Lapse => {
                        drop(_subscription);
                        _subscription = subscribe(&outside, "us", &[""]);
                    }
                    Event::Restart => (outside, _subscription) = open(),
                }
            }
            tokio::time::advance(Duration::from_secs(1)).await;
            outside.poll().await;
            reconcile(&outside, &wanted, Fate::Lands, &retried()).await;
            let things = world.things.lock().clone();
            for (key, size) in &wanted {
                let (found, owner) = &things[&key.to_string()];
                prop_assert!(*owner != Owner::Us || found == size);
            }
            for (key, (_, owner)) in &things {
                prop_assert!(*owner != Owner::Us || wanted.contains_key(&key.parse().unwrap()));
            }
            Ok(())
        })?;
    }
}
