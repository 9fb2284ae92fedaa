//! What the process does about jobs of whatever kind: it ends them with itself, and admits and records their writes.

use super::{Context, gate::admits, lease::Held};
use crate::engine::{
    error::{Error, Result},
    gate::Operation,
    jobs::{JobWrites, Reason},
};
use futures::future::join_all;
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

impl Context {
    /// Tells an object's job to stop, if it has one.
    pub(super) fn cancel_job(&self, uid: &str, reason: Reason) {
        self.jobs.iter().for_each(|jobs| jobs.cancel(uid, reason));
    }

    /// Tells all jobs that this process may write nothing any more, and waits until they have ended.
    pub(crate) async fn end_jobs(&self, reason: Reason) {
        join_all(self.jobs.iter().map(|jobs| jobs.end(reason))).await;
    }
}
