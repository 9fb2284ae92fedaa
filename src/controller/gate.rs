//! The gate of a reconcile: each outside write waits here for the Lease, the newest generation and the quota.

use super::{
    Context, ControllerContext,
    lease::Held,
    object::write_status,
    pools::Permit,
    status::{Before, Keep, Phase, conditions},
};
use crate::{
    clients::aws::CALL_LIMIT,
    engine::{
        error::{Class, Error, Result},
        gate::{Gate, Operation, StatusEdit},
        limits::Priority,
        plan::Verb,
        rendering::Step,
    },
    kinds::{Kind, Status, grants::Grants, stores::Watched},
};
use futures::future::BoxFuture;
use jiff::Timestamp;
use kube::{
    Resource, ResourceExt,
    runtime::reflector::{ObjectRef, Store},
};
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// The gate of one object in one reconcile.
pub struct ObjectGate<'a, K: Kind> {
    object: &'a K,
    uid: String,
    store: &'a Store<Watched<K>>,
    context: &'a Context,
    priority: Priority,
    /// What the run is called in logs.
    trace_id: &'a str,
    /// Given back for good when the run has to wait for a quota: it does little else from then on.
    permit: parking_lot::Mutex<Option<Permit>>,
    /// Cancelled when something newer is seen: then nothing waits for a quota any more.
    superseded: CancellationToken,
    /// What the Namespace allowed when the run began.
    allowed: Option<Grants>,
    /// Whether there is no object any more that could have a status.
    is_gone: bool,
    /// The status as it was last written; intents are added to it.
    pub status: Mutex<K::Status>,
}

/// The run that a gate belongs to.
pub struct RunHandle<'a> {
    /// Whether somebody waits for it.
    pub priority: Priority,
    /// What it is called in logs.
    pub trace_id: &'a str,
    /// The right to be at work.
    pub permit: Permit,
}

impl<'a, K: Kind> ObjectGate<'a, K> {
    /// The gate of an object whose status was last written as `status`, in a Namespace that allows so much.
    pub fn new(
        object: &'a K,
        allowed: Option<Grants>,
        controller: &'a ControllerContext<K>,
        handle: RunHandle<'a>,
        superseded: CancellationToken,
        status: K::Status,
    ) -> Self {
        Self {
            object,
            uid: object.uid().unwrap_or_default(),
            store: &controller.store,
            context: &controller.context,
            priority: handle.priority,
            trace_id: handle.trace_id,
            permit: parking_lot::Mutex::new(Some(handle.permit)),
            superseded,
            allowed,
            is_gone: false,
            status: Mutex::new(status),
        }
    }

    /// The same of an object that has gone without its finalizer: its status is only remembered.
    pub fn of_gone(self) -> Self {
        Self {
            is_gone: true,
            ..self
        }
    }

    /// One line per outside write: who, what, from, to, what came of it, and by which run.
    fn audit(&self, operation: Operation<'_>, step: &Step, outcome: Result<(), &Error>) {
        let object = format!(
            "{} {}/{}",
            K::KIND,
            self.object.namespace().unwrap_or_default(),
            self.object.name_any()
        );
        tracing::info!(
            target: "campanile::audit",
            who = operation.identity,
            object,
            account = operation.account,
            region = operation.region,
            api = operation.api,
            what = step.thing(),
            from = step.before(),
            to = step.after(),
            outcome = outcome.map_or_else(|error| error.class.label(), |()| "ok"),
            trace_id = self.trace_id,
            "audit"
        );
    }

    /// Sets the status of an object that is applied for the first time.
    fn begin(&self, status: &mut K::Status) {
        K::set_initial_status(status);
        let installation = &self.context.installation;
        self.object.set_spec_status(status, installation);
        let before = Before {
            conditions: &[],
            generation: self.object.meta().generation,
            now: Timestamp::now(),
        };
        *status.conditions() = conditions(&before, &Phase::Applying, Vec::new(), &Keep::All);
    }

    fn admits(&self) -> Result<()> {
        let Context {
            shutdown,
            lease,
            stores,
            ..
        } = self.context;
        let namespace = self.object.namespace().unwrap_or_default();
        if stores.grants.moved(&namespace, self.allowed.as_ref()) {
            let message = format!("what Namespace {namespace} allows was changed meanwhile");
            return Err(Error::new(Class::Superseded, message));
        }
        let watched = ObjectRef::<Watched<K>>::new(&self.object.name_any()).within(&namespace);
        let newest = self.store.get(&watched);
        let is_other = |newest: &Arc<Watched<K>>| newest.uid() != self.object.uid();
        if newest.as_ref().is_some_and(is_other) {
            let message = "another object of its name is there now";
            return Err(Error::new(Class::Superseded, message));
        }
        let newest = newest.and_then(|newest| newest.meta().generation);
        admits(
            shutdown,
            lease.as_ref(),
            self.object.meta().generation,
            newest,
        )
    }
}

/// Whether this process may write at all, and for an object of this generation.
pub(super) fn admits(
    shutdown: &CancellationToken,
    lease: Option<&Held>,
    ours: Option<i64>,
    newest: Option<i64>,
) -> Result<()> {
    let superseded = |message: &str| Err(Error::new(Class::Superseded, message));
    if shutdown.is_cancelled() {
        return superseded("the operator is shutting down");
    }
    // A write must be over before another replica can begin.
    if lease.is_some_and(|lease| lease.remaining() < CALL_LIMIT) {
        return superseded("the lease is running out");
    }
    if newest > ours {
        return superseded("the object was edited meanwhile");
    }
    Ok(())
}

impl<K: Kind> Gate for ObjectGate<'_, K> {
    fn enter<'a>(&'a self, operation: Operation<'a>, _: &'a [Step]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.admits()?;
            let (account, region, api) = (operation.account, operation.region, operation.api);
            let (limiter, priority) = (&self.context.clients.limiter, self.priority);
            if limiter.try_take(account, region, api, priority) {
                return Ok(());
            }
            drop(self.permit.lock().take());
            let token = limiter.take(account, region, api, priority);
            let taken = self.superseded.run_until_cancelled(token).await;
            // The lease may have gone and the object been edited while it waited for the quota.
            self.admits()?;
            taken.ok_or_else(|| {
                let message = "the object has moved on while a write waited for the quota";
                Error::new(Class::Superseded, message)
            })
        })
    }

    fn edit<'a>(&'a self, edit: &'a StatusEdit) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut status = self.status.lock().await;
            let mut edited = status.clone();
            if edited.conditions().is_empty() {
                self.begin(&mut edited);
            }
            edit.apply(&mut edited);
            if !self.is_gone {
                write_status(self.object, &status, &edited, self.context).await?;
            }
            *status = edited;
            Ok(())
        })
    }

    fn answered(&self, operation: Operation<'_>, outcomes: &[(&Step, Result<(), &Error>)]) {
        let (account, region, api) = (operation.account, operation.region, operation.api);
        let (limiter, memory) = (&self.context.clients.limiter, &self.context.object_memory);
        let done = outcomes.iter().any(|(_, outcome)| outcome.is_ok());
        limiter.request_finished(account, region, api, done);
        for (step, outcome) in outcomes {
            self.audit(operation, step, *outcome);
            let Err(error) = outcome else {
                memory.allowed(&self.uid, operation.endpoint);
                continue;
            };
            limiter.pause(account, region, api, error);
            tracing::warn!(verb = ?step.verb, stage = step.stage, key = step.key, %error, class = error.class.label(), "not changed");
            match error.class {
                Class::Denied => memory.refuse(&self.uid, operation.endpoint, None, error),
                // What refuses a deletion mostly depends on other things, so it is not remembered.
                Class::Rejected | Class::Conflict if step.verb != Verb::Delete => {
                    memory.refuse(&self.uid, operation.endpoint, Some(step), error);
                }
                _ => {}
            }
        }
    }

    fn refused(&self, operation: Operation<'_>, step: &Step) -> Option<Error> {
        let (limiter, memory) = (&self.context.clients.limiter, &self.context.object_memory);
        let refused = memory.refused(&self.uid, operation.endpoint, step);
        refused.or_else(|| limiter.paused(operation.account, operation.region, operation.api))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_for_an_old_generation_or_while_ending() {
        let running = CancellationToken::new();
        assert_eq!(admits(&running, None, Some(1), Some(1)), Ok(()));
        assert_eq!(
            admits(&running, None, Some(2), Some(1)),
            Ok(()),
            "the store may lag behind what was read"
        );
        assert_eq!(admits(&running, None, Some(1), None), Ok(()));
        assert!(admits(&running, None, Some(1), Some(2)).is_err());
        running.cancel();
        assert_eq!(
            admits(&running, None, Some(1), Some(1)).unwrap_err().class,
            Class::Superseded
        );
    }
}
