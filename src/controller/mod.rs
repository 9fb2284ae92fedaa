//! The controller: how the watches and the one reconcile of all kinds run.

mod cleanup;
mod conclusion;
pub mod digest_key;
pub mod drift;
pub mod events;
pub(crate) mod gate;
pub mod jobs;
pub mod lease;
mod object;
pub mod object_memory;
pub mod pools;
pub(crate) mod reconcile;
pub mod status;
pub mod wakers;
pub(crate) mod watches;

use crate::{
    api::{AlarmSet, SlackChannel, TenantObservability},
    clients::{Clients, kubernetes},
    engine::{
        error::{Class, Error, Result},
        informer::PollIntervals,
        jobs::Reason,
        limits::Priority,
        scope_pool::ScopePools,
    },
    kinds::{
        Kind,
        installation::Installation,
        job::KindJobs,
        stores::{Stores, Watched},
    },
    telemetry::{Metrics, Probes},
};
use futures::{FutureExt, StreamExt, future, stream};
use gate::RunHandle;
use kube::{
    Client, Resource, ResourceExt,
    runtime::{
        Controller,
        controller::{self, Action},
        reflector::{self, ObjectRef, Store},
    },
};
use lease::Held;
use object_memory::ObjectMemory;
use parking_lot::Mutex;
use pools::Pools;
use reconcile::ReconcileResult;
use std::{
    collections::{BTreeSet, HashSet},
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{OnceCell, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use wakers::Wakers;
use watches::Watch;

/// How long background work steps aside where others are at work.
const ASIDE: Duration = Duration::from_secs(1);

/// How long a controller may be without a sign of life before the process counts as stuck.
const STUCK: Duration = Duration::from_secs(60);

/// What all reconciles share.
pub struct Context {
    /// The cluster's API.
    pub client: Client,
    /// This installation.
    pub installation: Installation,
    /// The ways to the outside.
    pub clients: Clients,
    /// What is watched there.
    pub systems: ScopePools,
    /// Which controller wakes whom.
    pub wakers: Wakers,
    /// Who may be at work at once.
    pub pools: Pools,
    /// What is remembered of each object between runs.
    pub object_memory: ObjectMemory,
    /// What is watched of the cluster.
    pub stores: Stores,
    /// The jobs of the kinds that have any.
    pub jobs: KindJobs,
    /// The right to write, where several replicas share it.
    pub lease: Option<Held>,
    /// Cancelled when the process is to end.
    pub shutdown: CancellationToken,
    /// How often the outside is looked at.
    pub intervals: PollIntervals,
    /// What this replica is called.
    pub replica: String,
    /// Counters.
    pub metrics: Metrics,
    /// What `/livez` and `/readyz` say.
    pub probes: Probes,
}

/// What the controller of one kind stands on, in one namespace or in all.
pub struct ControllerContext<K: Kind> {
    /// What all reconciles share.
    pub context: Arc<Context>,
    /// The objects as they are watched.
    pub store: Store<Watched<K>>,
    /// Set once the places of the jobs are kept that a process before this one has claimed.
    pub jobs_reserved: OnceCell<()>,
    /// The UIDs that the watch has told of, until they are gone.
    pub seen: Mutex<HashSet<String>>,
}

impl<K: Kind> ControllerContext<K> {
    /// The object is gone.
    fn forget(&self, uid: &str) {
        self.release(uid);
        self.context.object_memory.forget(uid);
        self.context.stores.forget(uid);
        self.seen.lock().remove(uid);
    }

    /// Nothing is done for the object any more. That we have let go of it, and that its store may be older than our
    /// last write, is remembered until the watch tells that it is gone.
    fn release(&self, uid: &str) {
        self.context.metrics.forget(uid);
        self.context.systems.forget(uid);
        self.context.jobs.iter().for_each(|jobs| jobs.forget(uid));
    }
}

/// Runs until `shutdown`; ends earlier only with an error. `namespaces` empty means all.
pub async fn run(context: Arc<Context>, namespaces: &[String]) -> Result<()> {
    // Each once: two controllers over the same objects would be two writers.
    let names: BTreeSet<_> = namespaces.iter().map(String::as_str).collect();
    let scopes: Vec<Option<&str>> = if names.is_empty() {
        vec![None]
    } else {
        names.into_iter().map(Some).collect()
    };
    let scopes = scopes.iter().map(|namespace| scope(&context, *namespace));
    // They are told at once, and have their time to stop beside the runs that are ending.
    let stop_jobs = async {
        context.shutdown.cancelled().await;
        context.end_jobs(Reason::ShuttingDown).await;
        future::pending::<()>().await
    };
    tokio::select! {
        _ = future::join_all(scopes) => {}
        () = stop_jobs => {}
        () = lost(context.lease.clone()) => {
            // They are told at once. Nobody waits for them: another replica may be at work.
            let _ = context.end_jobs(Reason::LeaseLost).now_or_never();
            return Err(Error::failing("the lease was lost: another replica may be at work, so this one ends"));
        }
    }
    if context.shutdown.is_cancelled() {
        context.end_jobs(Reason::ShuttingDown).await;
        Ok(())
    } else {
        Err(Error::failing("a controller ended by itself"))
    }
}

async fn lost(lease: Option<Held>) {
    match lease {
        Some(lease) => lease.lost().await,
        None => future::pending().await,
    }
}

/// All controllers of one namespace, or of all, until each has ended; and what wakes more than one of them.
async fn scope(context: &Arc<Context>, namespace: Option<&str>) {
    let controllers = async {
        tokio::join!(
            control::<TenantObservability>(context, namespace),
            control::<AlarmSet>(context, namespace),
            control::<SlackChannel>(context, namespace),
        )
    };
    tokio::select! {
        ((), (), ()) = controllers => {}
        () = watches::secrets(context, namespace) => {}
        () = watches::namespaces(context, namespace) => {}
    }
}

/// The controller of one kind in one namespace, or in all.
async fn control<K: Watch>(context: &Arc<Context>, namespace: Option<&str>) {
    let (store, writer) = reflector::store::<Watched<K>>();
    context.stores.add::<K>(namespace, store.clone());
    let (wake, mut woken) = mpsc::unbounded_channel::<ObjectRef<Watched<K>>>();
    context.wakers.register(K::KIND, namespace, move |woken| {
        // Nobody listens any more when the process ends.
        let _ = wake.send(ObjectRef::new(&woken.name).within(&woken.namespace));
    });
    let controller = Arc::new(ControllerContext::<K> {
        context: context.clone(),
        store: store.clone(),
        jobs_reserved: OnceCell::new(),
        seen: Mutex::default(),
    });
    let changed = watches::objects(&controller, namespace, writer);
    let place = format!("{} in {}", K::KIND, namespace.unwrap_or("all namespaces"));
    let heart = context
        .probes
        .heartbeat(format!("the controller of {place}"), STUCK);
    let synced = context.probes.wait_for(format!("the watch of {place}"));
    let (ready, swept) = (store.clone(), controller.clone());
    // In the same task as the controller, so that it stops when that one is stuck.
    let beats = async {
        loop {
            heart.beat();
            context
                .metrics
                .mirrors(K::KIND, context.systems.ages(K::KIND));
            tokio::time::sleep(STUCK / 10).await;
        }
    };
    let sweeps = async {
        if ready.wait_until_ready().await.is_ok() {
            synced.done();
        }
        // A deletion that happened while the watch was down is never told.
        loop {
            tokio::time::sleep(STUCK).await;
            let state = ready.state();
            let uids = state.iter().filter(|object| object.0.is_ok());
            let uids: HashSet<_> = uids.filter_map(|object| object.uid()).collect();
            let all: HashSet<_> = state.iter().filter_map(|object| object.uid()).collect();
            context.systems.keep(|subscriber| {
                let others = namespace.is_some_and(|it| it != subscriber.namespace);
                subscriber.kind != K::KIND || others || uids.contains(&subscriber.uid)
            });
            let seen = swept.seen.lock().clone();
            seen.difference(&all).for_each(|uid| swept.forget(uid));
        }
    };
    let sync = async {
        let ((), ()) = tokio::join!(beats, sweeps);
    };
    let woken = stream::poll_fn(move |cx| woken.poll_recv(cx));
    let work = Controller::for_stream(changed, store)
        .reconcile_on(woken)
        .with_config(
            // Who is at work at once is decided by the pools, which know who waits for it.
            controller::Config::default()
                .concurrency(0)
                .debounce(Duration::from_millis(50)),
        )
        .graceful_shutdown_on(context.shutdown.clone().cancelled_owned())
        .run(
            reconcile_one::<K>,
            |_, never, _| match *never {},
            controller.clone(),
        )
        .for_each(|result| {
            match result {
                // A deleted object whose next look was still to come.
                Ok(_) | Err(controller::Error::ObjectNotFound(_)) => {}
                Err(controller::Error::QueueError(error)) => {
                    let doing = format!("watching {}", K::plural(&()));
                    let error = kubernetes::watching(&doing, &error);
                    tracing::warn!(%error, class = error.class.label(), "a watch begins again");
                }
                Err(error) => tracing::warn!(kind = K::KIND, %error, "controller"),
            }
            future::ready(())
        });
    tokio::select! {
        () = work => {}
        () = sync => {}
    }
}

/// One reconcile, with its span, its metrics, and a catch for panics, which would end the controller.
async fn reconcile_one<K: Kind>(
    object: Arc<Watched<K>>,
    controller: Arc<ControllerContext<K>>,
) -> Result<Action, Infallible> {
    let context = &controller.context;
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let priority = match &object.0 {
        Ok(read) => reconcile::priority(read),
        Err(_) => Priority::Background,
    };
    let Some(permit) = context.pools.admit(&namespace, priority).await else {
        return Ok(Action::requeue(ASIDE));
    };
    let trace_id = format!("{:032x}", fastrand::u128(..));
    let span = tracing::info_span!(
        "reconcile",
        kind = K::KIND,
        namespace,
        object = name,
        generation = object.meta().generation,
        trace_id
    );
    async {
        let began = Instant::now();
        let handle = RunHandle {
            priority,
            trace_id: &trace_id,
            permit,
        };
        let run = AssertUnwindSafe(reconcile::reconcile::<K>(&object, &controller, handle))
            .catch_unwind()
            .await;
        let uid = object.uid().unwrap_or_default();
        let done = match run {
            Ok(Ok(done)) => done,
            Ok(Err(error)) if error.class == Class::Superseded => {
                ReconcileResult::failed(error.class, 0)
            }
            // The cluster's own API failed us, so there is no status that could say it.
            Ok(Err(error)) => {
                tracing::warn!(%error, class = error.class.label(), "reconcile");
                let failures = context.object_memory.failed(&uid, error.class);
                ReconcileResult::failed(error.class, failures)
            }
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().copied();
                let text = text.or(panic.downcast_ref::<String>().map(String::as_str));
                let panic = text.unwrap_or_default();
                tracing::error!(panic, "a reconcile panicked: this is a bug");
                let failures = context.object_memory.failed(&uid, Class::Unavailable);
                ReconcileResult {
                    outcome: "panic",
                    ..ReconcileResult::failed(Class::Unavailable, failures)
                }
            }
        };
        let ReconcileResult {
            action,
            outcome,
            wrote,
        } = done;
        let took = began.elapsed();
        context.metrics.reconciled(K::KIND, outcome, took);
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        // A look that found everything as it was is not worth a line.
        if wrote {
            tracing::info!(outcome, milliseconds, "reconciled");
        } else {
            tracing::debug!(outcome, milliseconds, "reconciled");
        }
        Ok(action)
    }
    .instrument(span)
    .await
}
