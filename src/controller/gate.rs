//! The one gate that every outside write of a reconcile passes.

use super::{
    Context, Watched,
    lease::Held,
    reconcile::write_status,
    status::{Before, Keep, Phase, conditions},
};
use crate::{
    api::Target,
    clients::aws::CALL_LIMIT,
    error::{Class, Error, Result},
    kind::{Kind, Status},
    plan::{Step, Verb},
    stage::{Applied, Gate},
};
use futures::future::BoxFuture;
use jiff::Timestamp;
use kube::{
    Resource, ResourceExt,
    runtime::reflector::{ObjectRef, Store},
};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// The gate of one object in one reconcile.
pub struct ObjectGate<'a, K: Kind> {
    object: &'a K,
    uid: String,
    store: &'a Store<Watched<K>>,
    context: &'a Context,
    /// The status as it was last written; intents are added to it.
    pub status: Mutex<K::Status>,
}

impl<'a, K: Kind> ObjectGate<'a, K> {
    /// The gate of an object whose status was last written as `status`.
    pub fn new(
        object: &'a K,
        store: &'a Store<Watched<K>>,
        context: &'a Context,
        status: K::Status,
    ) -> Self {
        let uid = object.uid().unwrap_or_default();
        Self {
            object,
            uid,
            store,
            context,
            status: Mutex::new(status),
        }
    }

    fn admits(&self) -> Result<()> {
        let Context {
            shutdown, lease, ..
        } = self.context;
        let watched = ObjectRef::<Watched<K>>::new(&self.object.name_any())
            .within(&self.object.namespace().unwrap_or_default());
        let newest = self.store.get(&watched);
        let newest = newest.and_then(|newest| newest.meta().generation);
        admits(
            shutdown,
            lease.as_ref(),
            self.object.meta().generation,
            newest,
        )
    }
}

fn admits(
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
    fn arrive<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut status = self.status.lock().await;
            let mut arrived = status.clone();
            if arrived.conditions().is_empty() {
                K::first_sight(&mut arrived);
                let now = Timestamp::now();
                let generation = self.object.meta().generation;
                let view = Before {
                    conditions: &[],
                    generation,
                    now,
                };
                *arrived.conditions() = conditions(&view, &Phase::Applying, Vec::new(), &Keep::All);
            }
            match arrived
                .targets()
                .iter_mut()
                .find(|known| known.same_place(target))
            {
                Some(known) => *known = target.clone(),
                None => arrived.targets().push(target.clone()),
            }
            write_status(self.object, &status, &arrived, self.context).await?;
            *status = arrived;
            Ok(())
        })
    }

    fn enter<'a>(&'a self, scope: &'a str, _: &'a [Step]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.admits()?;
            self.context
                .backoff
                .denied(&self.uid, scope)
                .map_or(Ok(()), Err)
        })
    }

    fn intend<'a>(&'a self, step: &'a Step) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut status = self.status.lock().await;
            let mut intended = status.clone();
            K::intend(&mut intended, step);
            write_status(self.object, &status, &intended, self.context).await?;
            *status = intended;
            Ok(())
        })
    }

    fn leave(&self, scope: &str, step: &Step, outcome: &Result<Applied>) {
        let backoff = &self.context.backoff;
        let (verb, stage, key) = (step.verb, step.stage, &step.key);
        match outcome {
            Ok(_) => {
                backoff.allowed(&self.uid, scope);
                tracing::info!(?verb, stage, key, "changed");
            }
            Err(error) => {
                let class = error.class;
                tracing::warn!(?verb, stage, key, %error, class = class.label(), "not changed");
                match class {
                    Class::Denied => backoff.deny(&self.uid, scope, error),
                    // Why a deletion is refused is seldom the thing's own fault.
                    Class::Rejected if verb != Verb::Delete => {
                        backoff.refuse(&self.uid, step, error)
                    }
                    _ => {}
                }
            }
        }
    }

    fn refused(&self, step: &Step) -> Option<Error> {
        self.context.backoff.refused(&self.uid, step)
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
