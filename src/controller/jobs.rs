//! What the process does about jobs of whatever kind: it ends them with itself, and admits and records their writes.

use super::{
    Context, ControllerContext,
    gate::{ObjectGate, admits},
    lease::Held,
};
use crate::{
    engine::{
        error::{Error, Result},
        gate::Operation,
        jobs::{JobWrites, Reason},
    },
    kinds::{
        Kind,
        job::{JobContext, JobState},
    },
};
use futures::future::join_all;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

/// What the writes of all jobs of the process pass: the same as those of reconciles, but for the object's generation.
#[derive(Debug)]
pub struct ProcessWrites {
    /// The right to write, where several replicas share it.
    pub lease: Option<Held>,
    /// Cancelled when the process is to end.
    pub shutdown: CancellationToken,
}

impl JobWrites for ProcessWrites {
    fn may_write(&self) -> Result<()> {
        admits(&self.shutdown, self.lease.as_ref(), None, None)
    }

    fn record_outcome(&self, operation: &Operation<'_>, what: &str, outcome: Result<(), &Error>) {
        tracing::info!(
            target: "campanile::audit",
            who = operation.identity,
            account = operation.account,
            region = operation.region,
            api = operation.api,
            what,
            outcome = outcome.map_or_else(|error| error.class.label(), |()| "ok"),
            "audit"
        );
    }
}

impl<K: Kind> ControllerContext<K> {
    /// Brings an object's job in line with what it wants, or stops it for a reason.
    pub(super) async fn drive_job(
        &self,
        object: &K,
        inputs: Result<&K::Inputs, &Error>,
        gate: &ObjectGate<'_, K>,
        edited: bool,
        stop: Option<Reason>,
    ) -> Result<JobState> {
        if !K::HAS_JOBS {
            return Ok(JobState::default());
        }
        self.jobs_reserved.get_or_init(|| self.reserve_jobs()).await;
        let status = gate.status.lock().await.clone();
        let context = JobContext {
            jobs: &self.context.jobs,
            inputs,
            status: &status,
            gate,
            now: Timestamp::now(),
            edited,
            stop,
        };
        object.drive_job(&context).await
    }

    /// Keeps the places of all jobs that status claims, so that nothing starts beside what may still run.
    async fn reserve_jobs(&self) {
        // Jobs share their places over all namespaces that are watched.
        for object in self.context.stores.all::<K>().await {
            let reserved = object
                .0
                .as_ref()
                .map(|it| it.reserve_job(&self.context.jobs));
            if let Ok(Err(error)) = reserved {
                tracing::error!(%error, "a job's place could not be kept");
            }
        }
    }
}

impl Context {
    /// Tells all jobs that this process may write nothing any more, and waits until they have ended.
    pub(crate) async fn end_jobs(&self, reason: Reason) {
        join_all(self.jobs.iter().map(|jobs| jobs.end(reason))).await;
    }
}
