//! What outlives a process: objects with their status, and databases that go on with what was begun there.

use super::super::*;
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};
use tokio::{sync::Notify, time::sleep_until};
use tokio_util::sync::CancellationToken;

pub type Name = &'static str;

/// How long a job takes.
pub const WORK: Duration = Duration::from_secs(100);
/// How often a job looks how far it is.
pub const TICK: Duration = Duration::from_secs(1);
/// How long it may take from its claim on.
pub const DEADLINE: Duration = Duration::from_secs(400);
/// The shortest time between two wakes for progress.
pub const PROGRESS: Duration = Duration::from_secs(10);
/// What all writes there are.
pub const OPERATION: Operation<'static> = Operation {
    endpoint: "db",
    account: "",
    region: "",
    identity: "campanile",
    api: "postgres:Reindex",
};
/// A process that may always write.
#[derive(Debug)]
pub struct MayWrite;

impl JobWrites for MayWrite {
    fn may_write(&self) -> Result<()> {
        Ok(())
    }

    fn record_outcome(&self, _: &Operation<'_>, _: &str, _: Result<(), &Error>) {}
}

/// The pause of a reconcile that failed.
const RETRY: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct Spec {
    pub database: Name,
    pub pool: Name,
    /// When a job is due for the first time, and how long after the last one the next is.
    pub first: Timestamp,
    pub every: Duration,
    /// Nothing is started from then on.
    pub until: Option<Timestamp>,
    pub suspend: bool,
    pub deleting: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Status {
    pub claim: Option<Claim>,
    pub last: Option<Timestamp>,
    pub outcomes: Vec<Outcome<String>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    pub run: usize,
    pub database: String,
    pub pool: String,
    pub at: Timestamp,
}

/// When to do what: what a kind has to write.
pub fn next(now: Timestamp, spec: &Spec, status: &Status, activity: &Activity<u8>) -> Next<Claim> {
    if spec.deleting {
        return Next::Cancel(Reason::Deleted);
    }
    if spec.suspend {
        return Next::Cancel(Reason::Suspended);
    }
    if let Some(claim) = &status.claim {
        let deadline = claim.at + DEADLINE;
        return match activity {
            _ if claim.database != spec.database => Next::Cancel(Reason::NotWanted),
            // It is not worth stopping what is nearly done.
            Activity::Running(90..) => Next::Sleep(None),
            _ if now >= deadline => Next::Cancel(Reason::Overdue),
            _ => Next::Sleep(Some(deadline)),
        };
    }
    let due = status.last.map_or(spec.first, |last| last + spec.every);
    if spec.until.is_some_and(|until| until <= now.max(due)) {
        return Next::Sleep(None);
    }
    if now < due {
        return Next::Sleep(Some(due));
    }
    Next::Start(Claim {
        run: status.outcomes.len(),
        database: spec.database.to_owned(),
        pool: spec.pool.to_owned(),
        at: now,
    })
}

/// What the next job does that comes to its first tick in a database.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trouble {
    /// It fails, and leaves nothing.
    Fails,
    /// It fails in such a way that the server goes on.
    Cut,
    /// It panics; the server goes on.
    Panics,
    /// The same, and the server stops too.
    PanicsAlone,
    /// It does not listen when it is told to stop.
    Deaf,
}

/// What becomes of the next write to status.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WriteFault {
    /// It is not made.
    Refused,
    /// It is made, and the answer is lost.
    Unanswered,
    /// It takes so long that the slot has gone to somebody else.
    Late,
    /// It takes a while.
    Slow,
}

pub struct Work {
    object: Name,
    claim: Claim,
    ends: Instant,
}

#[derive(Default)]
pub struct Outside {
    pub objects: BTreeMap<Name, (Spec, Status)>,
    /// What the servers have begun and was not undone.
    pub work: Vec<Work>,
    pub trouble: HashMap<String, Trouble>,
    pub unreachable: BTreeSet<String>,
    pub write_fault: Option<WriteFault>,
    /// What happened, in order.
    pub log: Vec<String>,
    /// What must not happen. A panic would be caught.
    pub violations: Vec<String>,
    /// How many times anything was asked or told, and at which of these the process is killed.
    pub points: u32,
    pub killed_at: Option<u32>,
}

impl Outside {
    pub fn status(&self, name: Name) -> &Status {
        &self.objects[name].1
    }

    fn find(&self, object: Name, claim: &Claim) -> Option<&Work> {
        let mut work = self.work.iter();
        work.find(|work| work.object == object && work.claim == *claim)
    }

    pub fn is_running(&self, object: Name) -> bool {
        let mut work = self.work.iter();
        work.any(|work| work.object == object && work.ends > Instant::now())
    }

    fn begin(&mut self, object: Name, claim: &Claim, _: &WritePermit<'_>) {
        if self.status(object).claim.as_ref() != Some(claim) {
            self.violations
                .push(format!("{object} began without a claim"));
        }
        for work in self.work.iter().filter(|work| work.ends > Instant::now()) {
            if work.object == object || work.claim.database == claim.database {
                let violation = format!(
                    "{object} began beside {} in {}",
                    work.object, claim.database
                );
                self.violations.push(violation);
            }
        }
        if self.find(object, claim).is_some() {
            self.violations
                .push(format!("{object} began {claim:?} twice"));
        }
        self.log.push(format!("begin {object}"));
        let (claim, ends) = (claim.clone(), Instant::now() + WORK);
        self.work.push(Work {
            object,
            claim,
            ends,
        });
    }

    fn cancel(&mut self, object: Name, claim: &Claim, _: &WritePermit<'_>) {
        self.remove(object, claim);
    }

    fn remove(&mut self, object: Name, claim: &Claim) {
        let is_it = |work: &Work| work.object == object && work.claim == *claim;
        self.work.retain(|work| !is_it(work));
    }

    fn write(&mut self, object: Name, record: Record<TestJob>, now: Timestamp) {
        let (_, status) = self.objects.get_mut(object).unwrap();
        match record {
            Record::Claimed(claim) => {
                status.claim = Some(claim);
                self.log.push(format!("claim {object}"));
            }
            Record::Ended(claim, outcome) => {
                // What was recorded before, by a write whose answer was lost, is not counted again.
                if status.claim.as_ref() == Some(&claim) {
                    status.claim = None;
                    // What was interrupted is still due.
                    if outcome != Outcome::Interrupted {
                        status.last = Some(now);
                    }
                    self.log.push(format!("{object} {}", told(&outcome)));
                    status.outcomes.push(outcome);
                }
            }
        }
    }
}

fn told(outcome: &Outcome<String>) -> String {
    match outcome {
        Outcome::Completed(_) => "completed".to_owned(),
        Outcome::Failed(error) => format!("failed: {error}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// The outside with its clock.
pub struct World {
    began: Instant,
    outside: Mutex<Outside>,
}

impl World {
    pub fn new(objects: &[(Name, Name, Name)]) -> Arc<Self> {
        let world = Arc::new(Self {
            began: Instant::now(),
            outside: Mutex::default(),
        });
        for (name, database, pool) in objects {
            let spec = Spec {
                database,
                pool,
                first: Timestamp::UNIX_EPOCH,
                every: Duration::from_secs(1_000_000),
                until: None,
                suspend: false,
                deleting: false,
            };
            world.with(|outside| outside.objects.insert(name, (spec, Status::default())));
        }
        world
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + self.began.elapsed()
    }

    pub fn with<R>(&self, change: impl FnOnce(&mut Outside) -> R) -> R {
        change(&mut self.outside.lock().unwrap())
    }

    /// What happened since the last call.
    pub fn log(&self) -> String {
        self.with(|outside| mem::take(&mut outside.log)).join(", ")
    }

    /// A moment at which a process may be killed.
    async fn point(&self, dead: &CancellationToken) {
        let killed = self.with(|outside| {
            outside.points += 1;
            outside.killed_at == Some(outside.points)
        });
        if killed {
            dead.cancel();
        }
        if dead.is_cancelled() {
            std::future::pending().await
        }
    }
}

pub struct TestJob {
    world: Arc<World>,
    dead: CancellationToken,
    object: Name,
    claim: Claim,
}

impl Job for TestJob {
    type Object = Name;
    type Claim = Claim;
    type Place = String;
    type Progress = u8;
    type Report = String;
    const GRACE: Duration = Duration::from_secs(30);

    fn slot(claim: &Claim) -> Slot<String> {
        let (pool, pool_size) = match claim.pool.as_str() {
            "check" => ("check", 3),
            _ => ("rebuild", 2),
        };
        let place = claim.database.clone();
        Slot {
            place,
            pool,
            pool_size,
        }
    }

    async fn recover(self) -> Result<Recovered<Self>> {
        let Self {
            world,
            dead,
            object,
            claim,
        } = &self;
        world.point(dead).await;
        world.with(|outside| outside.log.push(format!("recover {object}")));
        sleep(Duration::from_millis(50)).await;
        world.point(dead).await;
        let ends = world.with(|outside| {
            if outside.unreachable.contains(&claim.database) {
                return Err(Error::failing("no route to the database"));
            }
            Ok(outside.find(object, claim).map(|work| work.ends))
        })?;
        Ok(match ends {
            Some(ends) if ends > Instant::now() => Recovered::StillRunning(self),
            Some(_) => Recovered::Done("found done".to_owned()),
            None => Recovered::NothingOfIt,
        })
    }

    async fn run(self, gate: JobGate<u8>) -> Result<String> {
        let dead = self.dead.clone();
        let ended = dead.run_until_cancelled(self.work(gate)).await;
        match ended {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    }
}

impl TestJob {
    async fn work(self, gate: JobGate<u8>) -> Result<String> {
        let Self {
            world,
            dead,
            object,
            claim,
        } = &self;
        if world.with(|outside| outside.find(object, claim).is_none()) {
            world.point(dead).await;
            let permit = &gate.enter(OPERATION)?;
            world.with(|outside| outside.begin(object, claim, permit));
            world.point(dead).await;
        }
        let mut deaf = false;
        loop {
            let tick = sleep(TICK);
            tokio::select! {
                reason = gate.cancelled(), if !deaf => {
                    world.with(|outside| outside.log.push(format!("{object} learns {reason:?}")));
                    let permit = &gate.clean_up(OPERATION)?;
                    world.with(|outside| outside.cancel(object, claim, permit));
                    return Err(Error::new(Class::Superseded, "cancelled"));
                }
                () = tick => {}
            }
            match world.with(|outside| outside.trouble.remove(&claim.database)) {
                Some(Trouble::Fails) => {
                    world.with(|outside| outside.remove(object, claim));
                    return Err(Error::new(Class::Rejected, "refused"));
                }
                Some(Trouble::Cut) => {
                    return Err(Error::new(Class::OutcomeUnknown, "the connection broke"));
                }
                Some(Trouble::Panics) => panic!("a job of a test"),
                Some(Trouble::PanicsAlone) => {
                    world.with(|outside| outside.remove(object, claim));
                    panic!("a job of a test")
                }
                Some(Trouble::Deaf) => deaf = true,
                None => {}
            }
            let ends = world.with(|outside| outside.find(object, claim).map(|work| work.ends));
            let left = ends.map_or(Duration::MAX, |ends| ends - Instant::now());
            if left.is_zero() {
                world.point(dead).await;
                return Ok("seen to its end".to_owned());
            }
            gate.progress(100 - u8::try_from(left.as_secs()).unwrap());
        }
    }
}

pub struct TestOwner {
    world: Arc<World>,
    process: CancellationToken,
    ended: CancellationToken,
    object: Name,
    spec: Spec,
    status: Status,
}

impl JobOwner<TestJob> for TestOwner {
    fn object(&self) -> Name {
        self.object
    }

    fn claim(&self) -> Option<Claim> {
        self.status.claim.clone()
    }

    fn next(&self, now: Timestamp, activity: &Activity<u8>) -> Next<Claim> {
        next(now, &self.spec, &self.status, activity)
    }

    fn job(&self, claim: &Claim) -> Result<TestJob> {
        Ok(TestJob {
            world: self.world.clone(),
            dead: self.process.clone(),
            object: self.object,
            claim: claim.clone(),
        })
    }

    async fn record(&mut self, record: Record<TestJob>) -> Result<()> {
        let Self {
            world,
            process,
            object,
            ..
        } = self;
        world.point(process).await;
        let fault = world.with(|outside| outside.write_fault.take());
        match fault {
            Some(WriteFault::Late) => sleep(GRANT * 2).await,
            Some(WriteFault::Slow) => sleep(GRANT / 2).await,
            _ => {}
        }
        let (now, ended) = (world.now(), self.ended.is_cancelled());
        world.with(|outside| {
            if ended {
                outside
                    .violations
                    .push(format!("{object} was written after the end"));
            }
            if fault != Some(WriteFault::Refused) {
                outside.write(object, record, now);
            }
        });
        world.point(process).await;
        self.status = world.with(|outside| outside.status(object).clone());
        match fault {
            None | Some(WriteFault::Late | WriteFault::Slow) => Ok(()),
            Some(WriteFault::Refused) => Err(Error::failing("the API server fails")),
            Some(WriteFault::Unanswered) => {
                Err(Error::new(Class::OutcomeUnknown, "the answer was lost"))
            }
        }
    }
}

/// Reconciles run on many threads.
fn is_send(_: &impl Send) {}

/// An operator: what it remembers ends with it.
pub struct Process {
    pub world: Arc<World>,
    pub jobs: Arc<Jobs<TestJob>>,
    /// Who was woken when.
    pub wakes: Arc<Mutex<Vec<(Instant, Name)>>>,
    woken: Arc<(Mutex<BTreeSet<Name>>, Notify)>,
    timers: BTreeMap<Name, Instant>,
    edited: BTreeSet<Name>,
    /// Whose reconciles fail before they come to their jobs.
    pub stuck: BTreeSet<Name>,
    dead: CancellationToken,
    ended: CancellationToken,
}

impl Process {
    pub fn start(world: &Arc<World>) -> Self {
        let woken: Arc<(Mutex<BTreeSet<Name>>, Notify)> = Arc::default();
        let wakes: Arc<Mutex<Vec<(Instant, Name)>>> = Arc::default();
        let (wake, log) = (woken.clone(), wakes.clone());
        let jobs = Jobs::new(
            PROGRESS,
            Arc::new(MayWrite),
            Box::new(move |name: &Name| {
                log.lock().unwrap().push((Instant::now(), name));
                wake.0.lock().unwrap().insert(name);
                wake.1.notify_one();
            }),
        );
        let objects = world.with(|outside| outside.objects.clone());
        for (name, (_, status)) in &objects {
            if let Some(claim) = &status.claim {
                jobs.reserve(name, claim);
            }
        }
        woken.0.lock().unwrap().extend(objects.keys());
        Self {
            world: world.clone(),
            jobs,
            wakes,
            woken,
            timers: BTreeMap::new(),
            edited: BTreeSet::new(),
            stuck: BTreeSet::new(),
            dead: CancellationToken::new(),
            ended: CancellationToken::new(),
        }
    }

    pub fn edit(&mut self, name: Name, edit: impl FnOnce(&mut Spec)) {
        self.world
            .with(|outside| edit(&mut outside.objects.get_mut(name).unwrap().0));
        self.edited.insert(name);
        self.woken.0.lock().unwrap().insert(name);
        self.woken.1.notify_one();
    }

    /// Whether it was killed.
    pub fn is_dead(&self) -> bool {
        self.dead.is_cancelled()
    }

    pub fn kill(&self) {
        self.dead.cancel();
    }

    pub fn end(&self, reason: Reason) -> impl Future<Output = ()> {
        let ended = self.jobs.end(reason);
        self.ended.cancel();
        ended
    }

    /// Reconciles an object once.
    pub async fn reconcile(&mut self, name: Name) -> Result<Option<Timestamp>> {
        let (spec, status) = self.world.with(|outside| outside.objects[name].clone());
        let mut owner = TestOwner {
            world: self.world.clone(),
            process: self.dead.clone(),
            ended: self.ended.clone(),
            object: name,
            spec,
            status,
        };
        if self.stuck.contains(name) {
            return Err(Error::failing("a Secret is missing"));
        }
        let edited = self.edited.remove(name);
        let driven = self.jobs.drive(&mut owner, self.world.now(), edited);
        is_send(&driven);
        driven.await
    }

    async fn turn(&mut self, end: Instant) {
        let mut ready = mem::take(&mut *self.woken.0.lock().unwrap());
        let now = Instant::now();
        ready.extend(
            self.timers
                .iter()
                .filter(|(_, due)| **due <= now)
                .map(|(name, _)| *name),
        );
        for name in &ready {
            self.timers.remove(name);
            match self.reconcile(name).await {
                Ok(Some(until)) => {
                    let until = self.world.began + Duration::try_from(until.as_duration()).unwrap();
                    self.timers.insert(name, until);
                }
                Ok(None) => {}
                Err(_) => drop(self.timers.insert(name, Instant::now() + RETRY)),
            }
        }
        if ready.is_empty() {
            let due = self.timers.values().min().copied().unwrap_or(end);
            tokio::select! {
                biased;
                () = sleep_until(due.min(end)) => {}
                () = self.woken.1.notified() => {}
            }
        }
    }

    /// Reconciles who is woken, for so long or until it is killed.
    pub async fn run_for(&mut self, time: Duration) {
        let (end, dead) = (Instant::now() + time, self.dead.clone());
        while Instant::now() < end && !dead.is_cancelled() {
            dead.run_until_cancelled(self.turn(end)).await;
        }
        let violations = self.world.with(|outside| outside.violations.clone());
        assert_eq!(violations, Vec::<String>::new());
    }
}
