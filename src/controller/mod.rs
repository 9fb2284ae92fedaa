//! The controller: which events wake which object, and one reconcile for all of them.

pub mod backoff;
mod gate;
pub mod lease;
mod reconcile;
pub mod secrets;
pub mod status;

use crate::{
    alarms,
    api::{AlarmSet, RECONCILE_REQUESTED, TenantObservability},
    clients::aws::Accounts,
    error::{Class, Error, Result},
    kind::{Installation, Kind},
    telemetry::{Metrics, Probes},
    tenant,
};
use backoff::{Backoff, jittered};
use futures::{FutureExt, StreamExt, TryStreamExt as _, future, stream::FuturesUnordered};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Resource, ResourceExt,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        Controller, WatchStreamExt as _,
        controller::{self, Action},
        predicates,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use lease::Held;
use reconcile::Done;
use std::{
    convert::Infallible,
    hash::{DefaultHasher, Hash, Hasher},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// How many objects of a kind are worked on at once.
const WORKERS: u16 = 8;

/// How long a controller may be without a sign of life before the process counts as stuck.
const STUCK: Duration = Duration::from_secs(60);

/// An object as it is watched: one that cannot be read must not keep the others from being listed.
type Watched<K> = DeserializeGuard<K>;

/// What all reconciles share.
pub struct Context {
    /// The cluster's API.
    pub client: Client,
    /// This installation.
    pub installation: Installation,
    /// The tenants' accounts.
    pub accounts: Accounts,
    /// What is remembered of each object between runs.
    pub backoff: Backoff,
    /// The right to write, where several replicas share it.
    pub lease: Option<Held>,
    /// Cancelled when the process is to end.
    pub shutdown: CancellationToken,
    /// How often the outside of an object is looked at.
    pub poll_interval: Duration,
    /// Counters.
    pub metrics: Metrics,
    /// What `/livez` and `/readyz` say.
    pub probes: Probes,
}

impl Context {
    /// The object is gone.
    fn forget(&self, uid: &str) {
        self.backoff.forget(uid);
        self.metrics.forget(uid);
    }
}

/// Runs until `shutdown`; ends earlier only with an error. `namespaces` empty means all.
pub async fn run(context: Arc<Context>, namespaces: &[String]) -> Result<()> {
    let scopes: Vec<Option<&str>> = if namespaces.is_empty() {
        vec![None]
    } else {
        namespaces.iter().map(|name| Some(name.as_str())).collect()
    };
    let running: FuturesUnordered<_> = scopes
        .into_iter()
        .flat_map(|namespace| {
            [
                tenants(&context, namespace).boxed(),
                alarm_sets(&context, namespace).boxed(),
            ]
        })
        .collect();
    let ended = running.collect::<Vec<()>>().map(|_| ());
    tokio::pin!(ended);
    tokio::select! {
        () = &mut ended => {}
        () = lost(context.lease.clone()) => {
            return Err(Error::failing("the lease was lost: another replica may be at work, so this one ends"));
        }
    }
    if context.shutdown.is_cancelled() {
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

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// A tenant is woken by its own edits, by its AlarmSets' states, and by the Secrets that it names.
async fn tenants(context: &Arc<Context>, namespace: Option<&str>) {
    let client = &context.client;
    let sets = watcher(
        api::<Watched<AlarmSet>>(client, namespace),
        watcher::Config::default(),
    )
    .default_backoff()
    .touched_objects()
    .predicate_filter(
        |set: &Watched<AlarmSet>| {
            let Ok(read) = &set.0 else { return Some(0) };
            let status = serde_json::to_string(&read.status).unwrap_or_default();
            Some(fingerprint(set, (status, &read.spec.tenant_ref.name)))
        },
        Default::default(),
    );
    let secrets = watcher(
        api::<PartialObjectMeta<Secret>>(client, namespace),
        watcher::Config::default(),
    )
    .default_backoff()
    .touched_objects()
    .predicate_filter(predicates::resource_version, Default::default());
    control::<TenantObservability>(context, namespace, |controller, store| {
        controller
            .watches_stream(sets, |set| {
                let namespace = set.namespace().unwrap_or_default();
                let tenant = set.0.ok()?.spec.tenant_ref.name;
                Some(ObjectRef::new(&tenant).within(&namespace))
            })
            .watches_stream(secrets, move |secret| {
                let (name, namespace) = (secret.name_any(), secret.namespace());
                those(&store, |tenant: &TenantObservability| {
                    tenant.namespace() == namespace
                        && tenant::secret_names(tenant).contains(name.as_str())
                })
            })
    })
    .await;
}

/// An AlarmSet is woken by its own edits and by what its tenant offers: topics, environments, the account.
async fn alarm_sets(context: &Arc<Context>, namespace: Option<&str>) {
    let tenants = watcher(
        api::<Watched<TenantObservability>>(&context.client, namespace),
        watcher::Config::default(),
    )
    .default_backoff()
    .touched_objects()
    .predicate_filter(
        |tenant: &Watched<TenantObservability>| match &tenant.0 {
            Ok(read) => Some(fingerprint(tenant, alarms::offered(read))),
            Err(_) => Some(0),
        },
        Default::default(),
    );
    control::<AlarmSet>(context, namespace, |controller, store| {
        controller.watches_stream(tenants, move |tenant| {
            let (name, namespace) = (tenant.name_any(), tenant.namespace());
            those(&store, |set: &AlarmSet| {
                set.namespace() == namespace && set.spec.tenant_ref.name == name
            })
        })
    })
    .await;
}

/// The watched objects that are so.
fn those<K: Kind>(
    store: &Store<Watched<K>>,
    are_so: impl Fn(&K) -> bool,
) -> Vec<ObjectRef<Watched<K>>> {
    let all = store.state().into_iter();
    let found = all.filter(|object| object.0.as_ref().is_ok_and(&are_so));
    found.map(|object| ObjectRef::from_obj(&*object)).collect()
}

/// What of another object matters to those that it wakes.
fn fingerprint<K: Resource>(object: &K, what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    let meta = object.meta();
    (
        &meta.uid,
        meta.generation,
        meta.deletion_timestamp.is_some(),
    )
        .hash(&mut hasher);
    what.hash(&mut hasher);
    hasher.finish()
}

/// The controller of one kind in one namespace, or in all.
async fn control<K: Kind>(
    context: &Arc<Context>,
    namespace: Option<&str>,
    wire: impl FnOnce(Controller<Watched<K>>, Store<Watched<K>>) -> Controller<Watched<K>>,
) {
    let (store, writer) = reflector::store::<Watched<K>>();
    // Our own status writes must not wake us. Deletion moves the generation too.
    let stream = watcher(
        api::<Watched<K>>(&context.client, namespace),
        watcher::Config::default(),
    )
    .default_backoff()
    .inspect_ok({
        let context = context.clone();
        move |event| {
            if let watcher::Event::Delete(object) = event {
                context.forget(&object.uid().unwrap_or_default());
            }
        }
    })
    .reflect(writer)
    .applied_objects()
    .predicate_filter(
        |object: &Watched<K>| {
            let requested = object.annotations().get(RECONCILE_REQUESTED).cloned();
            Some(fingerprint(object, requested))
        },
        Default::default(),
    );
    let place = format!("{} in {}", K::KIND, namespace.unwrap_or("all namespaces"));
    let heart = context
        .probes
        .heartbeat(format!("the controller of {place}"), STUCK);
    let synced = context.probes.wait_for(format!("the watch of {place}"));
    let ready = store.clone();
    let sync = async move {
        if ready.wait_until_ready().await.is_ok() {
            synced.done();
        }
        // In the same task as the controller, so that it stops when that one is stuck.
        loop {
            heart.beat();
            tokio::time::sleep(STUCK / 10).await;
        }
    };
    let scope = Arc::new((context.clone(), store.clone()));
    let work = wire(Controller::for_stream(stream, store.clone()), store)
        .with_config(
            controller::Config::default()
                .concurrency(WORKERS)
                .debounce(Duration::from_millis(50)),
        )
        .graceful_shutdown_on(context.shutdown.clone().cancelled_owned())
        .run(one::<K>, |_, never, _| match *never {}, scope)
        .for_each(|result| {
            match result {
                // A deleted object whose next look was still to come.
                Ok(_) | Err(controller::Error::ObjectNotFound(_)) => {}
                Err(error) => tracing::warn!(kind = K::KIND, %error, "watching"),
            }
            future::ready(())
        });
    tokio::select! {
        () = work => {}
        () = sync => {}
    }
}

/// One reconcile, with its span, its metrics, and a catch for panics, which would end the controller.
async fn one<K: Kind>(
    object: Arc<Watched<K>>,
    scope: Arc<(Arc<Context>, Store<Watched<K>>)>,
) -> Result<Action, Infallible> {
    let (context, store) = &*scope;
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let span = tracing::info_span!(
        "reconcile",
        kind = K::KIND,
        namespace,
        object = name,
        generation = object.meta().generation,
        id = format!("{:016x}", fastrand::u64(..))
    );
    async {
        let began = Instant::now();
        let run = AssertUnwindSafe(reconcile::reconcile::<K>(&object, store, context))
            .catch_unwind()
            .await;
        let uid = object.uid().unwrap_or_default();
        let done = match run {
            Ok(Ok(done)) => done,
            Ok(Err(error)) if error.class == Class::Superseded => Done {
                action: Action::requeue(Duration::from_secs(1)),
                outcome: error.class.label(),
                wrote: false,
            },
            // The cluster's own API failed us, so there is no status that could say it.
            Ok(Err(error)) => {
                tracing::warn!(%error, class = error.class.label(), "reconcile");
                let action = again(
                    error.class,
                    context.backoff.failed(&uid, error.class, false),
                );
                Done {
                    action,
                    outcome: error.class.label(),
                    wrote: false,
                }
            }
            Err(panic) => {
                let panic = panic
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
                    .or_else(|| panic.downcast_ref::<String>().cloned());
                let panic = panic.unwrap_or_default();
                tracing::error!(panic, "a reconcile panicked: this is a bug");
                let failures = context.backoff.failed(&uid, Class::Failing, false);
                let action = again(Class::Failing, failures);
                Done {
                    action,
                    outcome: "panic",
                    wrote: false,
                }
            }
        };
        let Done {
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

fn again(class: Class, failures: u32) -> Action {
    // Without a status nobody would know to edit anything, so even what waits for an edit is tried again.
    jittered(class, failures).map_or_else(
        || Action::requeue(Duration::from_secs(300)),
        Action::requeue,
    )
}
