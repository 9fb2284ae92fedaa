//! How an object has a job, for the kinds whose objects have any.

use super::Kind;
use crate::engine::{
    error::{Error, Result},
    gate::{Gate, StatusEdit},
    jobs::{Activity, DynJobs, Job, JobOwner, Jobs, Next, Reason, Record},
};
use jiff::Timestamp;
use std::sync::Arc;

/// The jobs of all kinds in this process.
#[derive(Default)]
pub struct KindJobs(Vec<Box<dyn DynJobs>>);

impl KindJobs {
    /// With those of another kind.
    #[must_use]
    pub fn with<J: Job<Object = String>>(mut self, jobs: Arc<Jobs<J>>) -> Self {
        self.0.push(Box::new(jobs));
        self
    }

    /// Those of one kind. Fails where the process was put together without them.
    pub fn of<J: Job<Object = String>>(&self) -> Result<&Arc<Jobs<J>>> {
        let mut all = self.0.iter();
        let found = all.find_map(|jobs| jobs.as_any().downcast_ref());
        found.ok_or_else(|| Error::failing("this process runs no such jobs: this is a bug"))
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &dyn DynJobs> {
        self.0.iter().map(|jobs| &**jobs)
    }
}

/// What an object's job is driven with.
pub struct JobContext<'a, K: Kind> {
    /// The jobs of the process.
    pub jobs: &'a KindJobs,
    /// What the object refers to.
    pub inputs: Result<&'a K::Inputs, &'a Error>,
    /// The status as it was last written.
    pub status: &'a K::Status,
    /// Writes claims and outcomes to status.
    pub gate: &'a dyn Gate,
    /// The time.
    pub now: Timestamp,
    /// Whether the object was edited, or somebody asked for a look.
    pub edited: bool,
    /// Why it may have no job now, whatever it wants.
    pub stop: Option<Reason>,
}

/// An owner, unless it may have no job.
struct Stoppable<'a, O>(&'a mut O, Option<Reason>);

impl<J: Job, O: JobOwner<J>> JobOwner<J> for Stoppable<'_, O> {
    fn object(&self) -> J::Object {
        self.0.object()
    }

    fn claim(&self) -> Option<J::Claim> {
        self.0.claim()
    }

    fn next(&self, now: Timestamp, activity: &Activity<J::Progress>) -> Next<J::Claim> {
        let stop = self.1.map(Next::Cancel);
        stop.unwrap_or_else(|| self.0.next(now, activity))
    }

    fn job(&self, claim: &J::Claim) -> Result<J> {
        self.0.job(claim)
    }

    async fn record(&mut self, record: Record<J>) -> Result<()> {
        self.0.record(record).await
    }
}

/// How it stands with an object's job.
#[derive(Default)]
pub struct JobState {
    /// When the object is to be driven again if nothing wakes it.
    pub due: Option<Timestamp>,
    /// Whether there is one that was claimed and has not ended.
    pub is_active: bool,
    /// What status says of how far it is.
    pub progress: Option<StatusEdit>,
}

impl<K: Kind> JobContext<'_, K> {
    /// Brings the job in line with what its owner wants. `progress` turns what is known of it into what status says.
    pub async fn drive<J: Job<Object = String>>(
        &self,
        owner: &mut impl JobOwner<J>,
        progress: impl FnOnce(Activity<J::Progress>) -> Option<StatusEdit>,
    ) -> Result<JobState> {
        let jobs = self.jobs.of::<J>()?;
        let mut owner = Stoppable(owner, self.stop);
        let mut due = jobs.drive(&mut owner, self.now, self.edited).await?;
        if matches!(jobs.activity(&owner.object()), Activity::Queued) {
            // It may have got its slot at once, which lapses while the systems are visited.
            due = jobs.drive(&mut owner, self.now, false).await?;
        }
        let activity = jobs.activity(&owner.object());
        Ok(JobState {
            due,
            is_active: !matches!(activity, Activity::Idle | Activity::Queued),
            progress: progress(activity),
        })
    }
}
