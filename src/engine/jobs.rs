//! Jobs: work that outlives a run, a generation and the process, such as a check or a rebuild that takes hours.
//!
//! An object has at most one job. What is done is decided in its reconcile, by [`Jobs::drive`]: a job waits for
//! a slot, then [`JobOwner::next`] decides once more, then the job's claim is written to the object's status,
//! and only then does it start. The write that records its outcome removes the claim.
//!
//! A claim in status that this process knows nothing of was made by a process before it, so [`Job::recover`]
//! has to say what became of that job before another one starts. The same is asked where the outcome of a job
//! of this process is not known: its connection broke, it panicked, or it did not stop in time.

use crate::engine::{
    error::{Class, Error, Result},
    gate::{Operation, WritePermit},
    jitter,
};
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    any::Any,
    collections::{HashMap, HashSet},
    fmt,
    future::Future,
    hash::Hash,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// How long a granted slot waits for its owner to claim it before it goes to the next in the queue.
const GRANT: Duration = Duration::from_secs(60);
/// The time limit of [`Job::recover`].
const RECOVERY: Duration = Duration::from_secs(60);
/// The pause between two recoveries where the error gives none.
const PAUSE: Duration = Duration::from_secs(300);

/// A job of one claim, with what it needs to act: a connection, credentials.
pub trait Job: Sized + Send + 'static {
    /// What tells the owners of jobs apart.
    type Object: Clone + Eq + Hash + fmt::Debug + Send + Sync;
    /// What status holds of a job from before it starts until its outcome is recorded: enough to recover it.
    type Claim: Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync;
    /// Where at most one job runs at a time: a database.
    type Place: Eq + Hash;
    /// How far a job is.
    type Progress: Clone + Default + Send + Sync;
    /// What a job found and did.
    type Report: Clone + Send + Sync;
    /// How long a job may take to stop. It is dropped afterwards.
    const GRACE: Duration;

    /// The slot that it needs.
    fn slot(claim: &Self::Claim) -> Slot<Self::Place>;
    /// Says what became of the job, whichever process began it. Never begins or ends anything. An error is
    /// never absence.
    fn recover(self) -> impl Future<Output = Result<Recovered<Self>>> + Send;
    /// Does the work. Fails with [`Class::OutcomeUnknown`] where something of it may still run or have been done. It may
    /// end with a report of what it did although it was cancelled.
    fn run(
        self,
        gate: JobGate<Self::Progress>,
    ) -> impl Future<Output = Result<Self::Report>> + Send;
}

/// What a job occupies while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot<P> {
    /// Where it runs.
    pub place: P,
    /// Which jobs it shares a bound with, over all places.
    pub pool: &'static str,
    /// How many of these run at once in the whole process.
    pub pool_size: usize,
}

/// What became of a job.
pub enum Recovered<J: Job> {
    /// It still runs there; this job follows it, and its end is that one's.
    StillRunning(J),
    /// It has ended.
    Done(J::Report),
    /// Nothing of it runs, and it left nothing that says how it ended.
    NothingOfIt,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<R> {
    /// It has a report.
    Completed(R),
    /// It could not be done, or it panicked.
    Failed(Error),
    /// It stopped because it was told to.
    Cancelled(Reason),
    /// The process that claimed it ended, and nothing of it was found.
    Interrupted,
}

/// Why a job is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The object is suspended.
    Suspended,
    /// The object is being deleted.
    Deleted,
    /// An edit or a request makes it unwanted.
    NotWanted,
    /// It runs for longer than it may.
    Overdue,
    /// Another replica may lead from now on.
    LeaseLost,
    /// The process ends.
    ShuttingDown,
}

impl Reason {
    /// Whether this process may write nothing any more.
    pub fn ends_process(self) -> bool {
        matches!(self, Self::LeaseLost | Self::ShuttingDown)
    }
}

/// What to do about an object's job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<C> {
    /// Nothing before this time (`None`: before something happens). What runs goes on, what waits for a slot
    /// does not wait any more.
    Sleep(Option<Timestamp>),
    /// Start a job with this claim once there is a slot. Changes nothing while there is a job.
    Start(C),
    /// Start nothing, and stop what runs.
    Cancel(Reason),
}

/// What is known of an object's job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Activity<P> {
    /// There is none.
    Idle,
    /// It waits for a slot.
    Queued,
    /// It was claimed, and what became of it is not known yet; the error says why it could not be asked.
    Recovering(Option<Error>),
    /// It runs.
    Running(P),
}

/// What is to be written to status.
pub enum Record<J: Job> {
    /// This claim is there from now on.
    Claimed(J::Claim),
    /// This claim's job ended so: the claim goes with the same write. May come again for the same claim.
    Ended(J::Claim, Outcome<J::Report>),
}

/// An object that has jobs, as its reconcile sees it.
pub trait JobOwner<J: Job>: Send {
    /// Which object it is.
    fn object(&self) -> J::Object;
    /// The claim in its status, which must be as new as this process's last write there.
    fn claim(&self) -> Option<J::Claim>;
    /// What to do. A pure function of the time, the spec, the status and what is known of the job.
    fn next(&self, now: Timestamp, activity: &Activity<J::Progress>) -> Next<J::Claim>;
    /// The job of a claim. Must not call [`Jobs`].
    fn job(&self, claim: &J::Claim) -> Result<J>;
    /// Writes to status. Nothing starts after an error.
    fn record(&mut self, record: Record<J>) -> impl Future<Output = Result<()>> + Send;
}

/// What every write of a job passes, beside what its object wants of it.
pub trait JobWrites: fmt::Debug + Send + Sync {
    /// An error where this process may not write, or not for as long as a write takes.
    fn may_write(&self) -> Result<()>;
    /// A write's outcome, for the record.
    fn record_outcome(&self, operation: &Operation<'_>, what: &str, outcome: Result<(), &Error>);
}

/// Tells a job whether it may go on, and is told how far it is.
#[derive(Clone, Debug)]
pub struct JobGate<P> {
    writes: Arc<dyn JobWrites>,
    stop: watch::Sender<Option<Reason>>,
    /// `None` while it is being recovered.
    progress: watch::Sender<Option<P>>,
}

impl<P> JobGate<P> {
    /// A permit for the next write of the work itself, unless the job is cancelled. A newer generation alone
    /// does not cancel it.
    pub fn enter<'a>(&self, operation: Operation<'a>) -> Result<WritePermit<'a>> {
        self.admit(*self.stop.borrow(), operation)
    }

    /// A permit for a write that ends or undoes what the job began. It is given to a cancelled job too, as
    /// long as this process may write at all.
    pub fn clean_up<'a>(&self, operation: Operation<'a>) -> Result<WritePermit<'a>> {
        let ending = self.stop.borrow().filter(|reason| reason.ends_process());
        self.admit(ending, operation)
    }

    fn admit<'a>(&self, stop: Option<Reason>, operation: Operation<'a>) -> Result<WritePermit<'a>> {
        allowed(stop)?;
        self.writes.may_write()?;
        Ok(WritePermit::new(operation))
    }

    /// What a permit was used for, and what came of that.
    pub fn record_outcome(&self, permit: WritePermit<'_>, what: &str, outcome: Result<(), &Error>) {
        let operation = permit.operation();
        self.writes.record_outcome(operation, what, outcome);
    }

    /// Resolves when the job is to stop. A reason that ends the process may follow another one.
    pub async fn cancelled(&self) -> Reason {
        let mut stop = self.stop.subscribe();
        let told = stop.wait_for(Option::is_some).await.ok();
        // The gate itself keeps the channel open.
        told.and_then(|told| *told).unwrap_or(Reason::ShuttingDown)
    }

    /// Says how far the job is; only the last word counts.
    pub fn progress(&self, progress: P) {
        self.progress.send_replace(Some(progress));
    }

    /// How a job ended that has no report.
    fn failed<R>(&self, error: Error) -> Outcome<R> {
        let reason = *self.stop.borrow();
        tracing::warn!(%error, ?reason, "a job ended without a report");
        reason.map_or(Outcome::Failed(error), Outcome::Cancelled)
    }
}

fn allowed(stop: Option<Reason>) -> Result<()> {
    let refused = |reason| Error::new(Class::Superseded, format!("it may not go on: {reason:?}"));
    stop.map_or(Ok(()), |reason| Err(refused(reason)))
}

/// Is told of every object that is to be driven again.
pub type JobWaker<J> = Box<dyn Fn(&<J as Job>::Object) + Send + Sync>;

/// The jobs of one kind, whatever they are, for who stops them.
pub trait DynJobs: Send + Sync {
    /// The jobs themselves, for who knows their type.
    fn as_any(&self) -> &dyn Any;
    /// As [`Jobs::cancel`]; `uid` is the object's.
    fn cancel(&self, uid: &str, reason: Reason);
    /// As [`Jobs::forget`].
    fn forget(&self, uid: &str);
    /// As [`Jobs::end`].
    fn end(&self, reason: Reason) -> BoxFuture<'_, ()>;
}

impl<J: Job<Object = String>> DynJobs for Arc<Jobs<J>> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn cancel(&self, uid: &str, reason: Reason) {
        Jobs::cancel(self, &uid.to_owned(), reason);
    }

    fn forget(&self, uid: &str) {
        Jobs::forget(self, &uid.to_owned());
    }

    fn end(&self, reason: Reason) -> BoxFuture<'_, ()> {
        Box::pin(Jobs::end(self, reason))
    }
}

/// The jobs of one kind in this process.
pub struct Jobs<J: Job> {
    writes: Arc<dyn JobWrites>,
    waker: JobWaker<J>,
    progress_interval: Duration,
    tasks: TaskTracker,
    state: Mutex<State<J>>,
}

struct State<J: Job> {
    ending: Option<Reason>,
    /// The last turn in the queue.
    turn: u64,
    /// The queue and the free slots follow from these alone, so none can be lost.
    entries: HashMap<J::Object, Entry<J>>,
}

struct Entry<J: Job> {
    claim: J::Claim,
    phase: Phase<J>,
    /// How it ended, should nothing of it be found.
    unless_found: Outcome<J::Report>,
    /// How often its outcome was not known.
    failures: u32,
    /// The object is gone: nobody will record the outcome.
    forgotten: bool,
}

enum Phase<J: Job> {
    /// Waits for a slot, in order of turns.
    Queued(u64),
    /// Has a slot until then, and no claim yet.
    Granted(Instant),
    /// What became of it is not known, and is asked from then on.
    Unknown(Instant, Option<Error>),
    /// It is being recovered, or runs.
    Active(JobGate<J::Progress>),
    Ended(Outcome<J::Report>),
}

impl<J: Job> Entry<J> {
    fn new(claim: J::Claim, phase: Phase<J>) -> Self {
        Self {
            claim,
            phase,
            unless_found: Outcome::Interrupted,
            failures: 0,
            forgotten: false,
        }
    }

    /// Whether its claim may be in status.
    fn is_claimed(&self) -> bool {
        !matches!(self.phase, Phase::Queued(_) | Phase::Granted(_))
    }

    fn cancel(&self, reason: Reason) {
        if let Phase::Active(gate) = &self.phase
            && (reason.ends_process() || gate.stop.borrow().is_none())
        {
            gate.stop.send_replace(Some(reason));
        }
    }
}

impl<J: Job> State<J> {
    /// Gives the free slots to those who have waited longest. Whose place is taken lets those pass who wait for
    /// other places.
    fn grant(&mut self) -> Vec<J::Object> {
        let (mut places, mut pools) = (HashSet::new(), HashMap::<_, usize>::new());
        let (mut entries, mut granted) = (Vec::from_iter(&mut self.entries), Vec::new());
        entries.sort_by_key(|(_, entry)| match entry.phase {
            Phase::Queued(turn) => turn,
            _ => 0,
        });
        for (object, entry) in entries {
            let slot = J::slot(&entry.claim);
            let running = pools.entry(slot.pool).or_default();
            *running += match &entry.phase {
                Phase::Ended(_) => continue,
                Phase::Queued(_) if places.contains(&slot.place) => continue,
                Phase::Queued(_) if *running < slot.pool_size => {
                    entry.phase = Phase::Granted(Instant::now() + GRANT);
                    granted.push(object.clone());
                    1
                }
                // The place serves its jobs in order.
                Phase::Queued(_) => 0,
                // It may run in its place, but who cannot be asked must not use up everybody's slots.
                Phase::Unknown(..) => 0,
                Phase::Granted(_) => 1,
                Phase::Active(gate) => usize::from(gate.progress.borrow().is_some()),
            };
            places.insert(slot.place);
        }
        granted
    }

    /// Takes back the slots that were not claimed in time.
    fn lapse(&mut self) {
        let lapsed = |phase: &_| matches!(phase, Phase::Granted(until) if *until <= Instant::now());
        self.entries.retain(|_, entry| !lapsed(&entry.phase));
    }

    /// Queues a claim where there is no job. Whether it has a slot, so that it may start.
    fn admit(&mut self, object: &J::Object, claim: &J::Claim) -> bool {
        self.turn += 1;
        let queued = || Entry::new(claim.clone(), Phase::Queued(self.turn));
        let entry = self.entries.entry(object.clone());
        let entry = entry.or_insert_with(queued);
        match entry.phase {
            Phase::Granted(_) if J::slot(&entry.claim) != J::slot(claim) => *entry = queued(),
            Phase::Granted(_) | Phase::Queued(_) => entry.claim = claim.clone(),
            _ => {}
        }
        matches!(entry.phase, Phase::Granted(_))
    }

    /// Notes a claim that was found in status.
    fn reserve(&mut self, object: &J::Object, claim: &J::Claim) {
        let entry = self.entries.get(object);
        if !entry.is_some_and(Entry::is_claimed) {
            let unknown = Phase::Unknown(Instant::now(), None);
            let entry = Entry::new(claim.clone(), unknown);
            self.entries.insert(object.clone(), entry);
        }
    }
}

impl<J: Job> Jobs<J> {
    /// No job is known. `waker` is told of every object whose job got a slot, moved on (at most once in
    /// `progress_interval`), ended or is to be recovered, so that it is driven again.
    pub fn new(
        progress_interval: Duration,
        writes: Arc<dyn JobWrites>,
        waker: JobWaker<J>,
    ) -> Arc<Self> {
        Arc::new(Self {
            writes,
            waker,
            progress_interval,
            tasks: TaskTracker::new(),
            state: Mutex::new(State {
                ending: None,
                turn: 0,
                entries: HashMap::new(),
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and hands on the slots that are free afterwards.
    fn update<R>(self: &Arc<Self>, change: impl FnOnce(&mut State<J>) -> R) -> R {
        let (result, granted) = {
            let mut state = self.state();
            (change(&mut state), state.grant())
        };
        for object in granted {
            (self.waker)(&object);
            self.after(GRANT, |jobs| jobs.update(State::lapse));
        }
        result
    }

    fn after(self: &Arc<Self>, pause: Duration, then: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let jobs = Arc::clone(self);
        tokio::spawn(async move {
            sleep(pause).await;
            then(&jobs);
        });
    }

    /// Keeps the place of a claim that was found in status. To be called for all objects before the first is
    /// driven, so that nothing starts beside what may still run.
    pub fn reserve(self: &Arc<Self>, object: &J::Object, claim: &J::Claim) {
        self.update(|state| state.reserve(object, claim));
    }

    /// Brings an object's job in line with what its owner wants, and says when it is to be done again if the
    /// object is not woken before. `edited` says that somebody has edited the object or asked anew since the
    /// last time: what could not be recovered is then tried at once. One call at a time for each object.
    pub async fn drive(
        self: &Arc<Self>,
        owner: &mut impl JobOwner<J>,
        now: Timestamp,
        edited: bool,
    ) -> Result<Option<Timestamp>> {
        let object = &owner.object();
        if let Some(record) = self.ask(owner, edited)? {
            let ended = matches!(record, Record::Ended(..));
            owner.record(record).await?;
            if ended {
                self.update(|state| state.entries.remove(object));
            }
        }
        let (until, reason) = match owner.next(now, &self.activity(object)) {
            Next::Start(claim) => return self.start(owner, claim).await.map(|()| None),
            Next::Sleep(until) => (until, None),
            Next::Cancel(reason) => (None, Some(reason)),
        };
        self.stop(object, reason);
        Ok(until)
    }

    /// Tells an object's job to stop, or not to wait for a slot any more. What it came to is recorded when the object
    /// is driven again.
    pub fn cancel(self: &Arc<Self>, object: &J::Object, reason: Reason) {
        self.stop(object, Some(reason));
    }

    fn stop(self: &Arc<Self>, object: &J::Object, reason: Option<Reason>) {
        self.update(|state| match (state.entries.get(object), reason) {
            (Some(entry), _) if !entry.is_claimed() => drop(state.entries.remove(object)),
            (Some(entry), Some(reason)) => entry.cancel(reason),
            _ => {}
        });
    }

    /// Asks for what is not known, and says what is to be recorded.
    fn ask(self: &Arc<Self>, owner: &impl JobOwner<J>, edited: bool) -> Result<Option<Record<J>>> {
        let (object, found) = (&owner.object(), owner.claim());
        self.update(|state| {
            allowed(state.ending)?;
            if let Some(claim) = &found {
                state.reserve(object, claim);
            }
            let entry = state.entries.get_mut(object);
            let Some(entry) = entry.filter(|entry| entry.is_claimed()) else {
                return Ok(None);
            };
            let claim = entry.claim.clone();
            match &entry.phase {
                Phase::Ended(outcome) => return Ok(Some(Record::Ended(claim, outcome.clone()))),
                Phase::Unknown(due, _) if edited || *due <= Instant::now() => {
                    self.spawn(object, entry, owner.job(&claim)?, true);
                }
                _ => {}
            }
            // Somebody may have wiped the status.
            Ok((found.as_ref() != Some(&claim)).then_some(Record::Claimed(claim)))
        })
    }

    /// Claims and starts a job if it has a slot; else it waits for one.
    async fn start(self: &Arc<Self>, owner: &mut impl JobOwner<J>, claim: J::Claim) -> Result<()> {
        let object = &owner.object();
        if !self.update(|state| state.admit(object, &claim)) {
            return Ok(());
        }
        let claimed = async {
            let job = owner.job(&claim)?;
            allowed(self.state().ending)?;
            owner.record(Record::Claimed(claim)).await?;
            Ok(job)
        };
        let claimed = claimed.await;
        self.update(|state| {
            // Whether the claim is in status after an error, the next look tells.
            let entry = state.entries.remove(object);
            let job = claimed.and_then(|job| allowed(state.ending).map(|()| job))?;
            let late = || Error::new(Class::Superseded, "the claim took too long to record");
            let mut entry = entry.ok_or_else(late)?;
            self.spawn(object, &mut entry, job, false);
            state.entries.insert(object.clone(), entry);
            Ok(())
        })
    }

    /// What is known of an object's job.
    pub fn activity(&self, object: &J::Object) -> Activity<J::Progress> {
        match self.state().entries.get(object).map(|entry| &entry.phase) {
            None | Some(Phase::Ended(_)) => Activity::Idle,
            Some(Phase::Queued(_) | Phase::Granted(_)) => Activity::Queued,
            Some(Phase::Unknown(_, error)) => Activity::Recovering(error.clone()),
            Some(Phase::Active(gate)) => {
                let progress = gate.progress.borrow().clone();
                progress.map_or(Activity::Recovering(None), Activity::Running)
            }
        }
    }

    /// The object is gone: its job is told, and its outcome is of no interest.
    pub fn forget(self: &Arc<Self>, object: &J::Object) {
        self.update(|state| match state.entries.get_mut(object) {
            Some(entry) if matches!(entry.phase, Phase::Active(..)) => {
                entry.cancel(Reason::Deleted);
                entry.forgotten = true;
            }
            _ => drop(state.entries.remove(object)),
        });
    }

    /// The process may write nothing from now on: all jobs are told, nothing starts or is recorded, and the
    /// claims stay for the next process. Resolves when the last job has ended or was dropped.
    pub fn end(&self, reason: Reason) -> impl Future<Output = ()> {
        let mut state = self.state();
        state.ending = Some(reason);
        for entry in state.entries.values() {
            entry.cancel(reason);
        }
        self.tasks.close();
        self.tasks.wait()
    }

    fn spawn(self: &Arc<Self>, object: &J::Object, entry: &mut Entry<J>, job: J, recover: bool) {
        let gate = JobGate {
            writes: self.writes.clone(),
            stop: watch::Sender::new(None),
            progress: watch::Sender::new((!recover).then(J::Progress::default)),
        };
        let mut seen = gate.progress.subscribe();
        entry.phase = Phase::Active(gate.clone());
        let unless_found = recover.then(|| entry.unless_found.clone());
        let (jobs, object) = (Arc::clone(self), object.clone());
        let span = tracing::info_span!("job", ?object);
        let follow = async move {
            let overdue = async {
                gate.cancelled().await;
                sleep(J::GRACE).await;
            };
            let wakes = async {
                while seen.changed().await.is_ok() {
                    (jobs.waker)(&object);
                    sleep(jobs.progress_interval).await;
                }
            };
            let unknown = |message| Err(Error::failing(message));
            let ended = tokio::select! {
                biased;
                ended = AssertUnwindSafe(work(job, unless_found, &gate)).catch_unwind() => {
                    ended.unwrap_or_else(|_| unknown("the job panicked: this is a bug"))
                }
                () = overdue => unknown("the job did not stop in time after it was cancelled"),
                () = wakes => unknown("the job cannot be followed"),
            };
            let pause = jobs.update(|state| {
                let entry = state.entries.get_mut(&object)?;
                match ended {
                    _ if entry.forgotten => drop(state.entries.remove(&object)),
                    Ok(outcome) => entry.phase = Phase::Ended(outcome),
                    Err(error) => {
                        entry.failures = entry.failures.saturating_add(1);
                        let pause = jitter::after(&error, entry.failures).unwrap_or(PAUSE);
                        if gate.progress.borrow().is_some() {
                            entry.unless_found = gate.failed(error.clone());
                        }
                        entry.phase = Phase::Unknown(Instant::now() + pause, Some(error));
                        return Some(pause);
                    }
                }
                None
            });
            (jobs.waker)(&object);
            if let Some(pause) = pause {
                jobs.after(pause, move |jobs| (jobs.waker)(&object));
            }
        };
        self.tasks.spawn(follow.instrument(span));
    }
}

/// Runs a job to its end, or recovers it first: then `unless_found` is how it ended if nothing of it is
/// found. An error says why its end is not known.
async fn work<J: Job>(
    mut job: J,
    unless_found: Option<Outcome<J::Report>>,
    gate: &JobGate<J::Progress>,
) -> Result<Outcome<J::Report>> {
    if let Some(unless_found) = unless_found {
        let answer = timeout(RECOVERY, job.recover()).await;
        match answer.unwrap_or_else(|_| Err(Error::failing("the job was not recovered in time")))? {
            Recovered::StillRunning(running) => job = running,
            Recovered::Done(report) => return Ok(Outcome::Completed(report)),
            Recovered::NothingOfIt => return Ok(unless_found),
        }
        gate.progress(J::Progress::default());
    }
    match job.run(gate.clone()).await {
        Ok(report) => Ok(Outcome::Completed(report)),
        Err(error) if error.class == Class::OutcomeUnknown => Err(error),
        Err(error) => Ok(gate.failed(error)),
    }
}

#[cfg(test)]
mod tests;
