//! The controller: which events wake which object, and one reconcile for all of them.

mod conclusion;
pub mod drift;
pub mod events;
pub(crate) mod gate;
pub mod grants;
pub mod jobs;
pub mod lease;
mod object;
pub mod object_memory;
pub mod pools;
pub(crate) mod reconcile;
pub mod secrets;
pub mod status;
pub mod wakers;

use crate::{
    api::{AlarmSet, RECONCILE_REQUESTED, SlackChannel, TenantObservability},
    clients::Clients,
    engine::{
        error::{Class, Error, Result},
        informer::PollIntervals,
        jobs::{DynJobs, Reason},
        limits::Priority,
        scope_pool::ScopePools,
    },
    kinds::{Kind, alarm_set, installation::Installation, slack_channel, tenant},
    telemetry::{Metrics, Probes},
};
use futures::{
    FutureExt, Stream, StreamExt, TryStreamExt as _, future, stream, stream::FuturesUnordered,
};
use gate::RunHandle;
use grants::{NamespaceGrants, allowed};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Namespace, Secret},
    apimachinery::pkg::apis::meta::v1::Time,
};
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
use object_memory::ObjectMemory;
use pools::Pools;
use reconcile::ReconcileResult;
use std::{
    collections::{BTreeSet, HashSet},
    convert::Infallible,
    hash::{DefaultHasher, Hash, Hasher},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use wakers::Wakers;

/// How long background work steps aside where others are at work.
const ASIDE: Duration = Duration::from_secs(1);

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
    /// The ways to the outside.
    pub clients: Clients,
    /// What is watched there.
    pub systems: ScopePools,
    /// Which controller wakes whom.
    pub wakers: Wakers,
    /// Who may be at work at once.
    pub pools: Pools,
    /// What is remembered of each object between runs.
    pub backoff: ObjectMemory,
    /// What Namespaces allow.
    pub bindings: NamespaceGrants,
    /// The jobs of the kinds that have any.
    pub jobs: Vec<Box<dyn DynJobs>>,
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
}

impl<K: Kind> ControllerContext<K> {
    /// The object is gone.
    fn forget(&self, uid: &str) {
        self.context.backoff.forget(uid);
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
    let running: FuturesUnordered<_> = scopes
        .into_iter()
        .flat_map(|namespace| {
            [
                tenants(&context, namespace).boxed(),
                alarm_sets(&context, namespace).boxed(),
                slack_channels(&context, namespace).boxed(),
            ]
        })
        .collect();
    let ended = running.collect::<Vec<()>>().map(|_| ());
    tokio::pin!(ended);
    tokio::select! {
        () = &mut ended => {}
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
    .map_ok(gone)
    .touched_objects()
    .predicate_filter(
        |set: &Watched<AlarmSet>| {
            let Ok(read) = &set.0 else { return Some(0) };
            let status = serde_json::to_string(&read.status).unwrap_or_default();
            Some(fingerprint(set, (status, &read.spec.tenant_ref.name)))
        },
        Default::default(),
    );
    let secrets = secrets(client, namespace);
    let bindings = bindings(context, namespace);
    // A tenant's messages go by the Secrets of its channels.
    let (channels, writer) = reflector::store::<Watched<SlackChannel>>();
    let moved = watcher(
        api::<Watched<SlackChannel>>(client, namespace),
        watcher::Config::default(),
    )
    .default_backoff()
    .reflect(writer)
    .map_ok(gone)
    .touched_objects()
    .predicate_filter(
        |channel: &Watched<SlackChannel>| {
            let Ok(read) = &channel.0 else { return Some(0) };
            Some(fingerprint(channel, slack_channel::offered(read)))
        },
        Default::default(),
    );
    control::<TenantObservability>(context, namespace, |controller, store| {
        let (within, listening) = (store.clone(), store.clone());
        controller
            .watches_stream(moved, move |channel| {
                let (name, namespace) = (channel.name_any(), channel.namespace());
                those(&listening, |tenant: &TenantObservability| {
                    tenant.namespace() == namespace
                        && tenant::channel_names(tenant).contains(name.as_str())
                })
            })
            .watches_stream(bindings, move |bound| {
                let name = Some(bound.name_any());
                those(&within, |tenant: &TenantObservability| {
                    tenant.namespace() == name
                })
            })
            .watches_stream(sets, |set| {
                let namespace = set.namespace().unwrap_or_default();
                let tenant = set.0.ok()?.spec.tenant_ref.name;
                Some(ObjectRef::new(&tenant).within(&namespace))
            })
            .watches_stream(secrets, move |secret| {
                let (name, namespace) = (secret.name_any(), secret.namespace());
                let opened = those(&channels, |channel: &SlackChannel| {
                    channel.namespace() == namespace
                        && slack_channel::secret_names(channel).contains(name.as_str())
                });
                those(&store, |tenant: &TenantObservability| {
                    let channels = tenant::channel_names(tenant);
                    tenant.namespace() == namespace
                        && (tenant::secret_names(tenant).contains(name.as_str())
                            || opened.iter().any(|it| channels.contains(it.name.as_str())))
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
    .map_ok(gone)
    .touched_objects()
    .predicate_filter(
        |tenant: &Watched<TenantObservability>| match &tenant.0 {
            Ok(read) => Some(fingerprint(tenant, alarm_set::offered(read))),
            Err(_) => Some(0),
        },
        Default::default(),
    );
    let bindings = bindings(context, namespace);
    control::<AlarmSet>(context, namespace, |controller, store| {
        let within = store.clone();
        controller
            .watches_stream(bindings, move |bound| {
                let name = Some(bound.name_any());
                those(&within, |set: &AlarmSet| set.namespace() == name)
            })
            .watches_stream(tenants, move |tenant| {
                let (name, namespace) = (tenant.name_any(), tenant.namespace());
                those(&store, |set: &AlarmSet| {
                    set.namespace() == namespace && set.spec.tenant_ref.name == name
                })
            })
    })
    .await;
}

/// A SlackChannel is woken by its own edits, by the Secrets that it names, and by what its Namespace allows.
async fn slack_channels(context: &Arc<Context>, namespace: Option<&str>) {
    let client = &context.client;
    let secrets = secrets(client, namespace);
    let bindings = bindings(context, namespace);
    control::<SlackChannel>(context, namespace, |controller, store| {
        let within = store.clone();
        controller
            .watches_stream(bindings, move |bound| {
                let name = Some(bound.name_any());
                those(&within, |channel: &SlackChannel| {
                    channel.namespace() == name
                })
            })
            .watches_stream(secrets, move |secret| {
                let (name, namespace) = (secret.name_any(), secret.namespace());
                those(&store, |channel: &SlackChannel| {
                    channel.namespace() == namespace
                        && slack_channel::secret_names(channel).contains(name.as_str())
                })
            })
    })
    .await;
}

/// The Secrets that have come, gone or changed; of each no more than that.
fn secrets(
    client: &Client,
    namespace: Option<&str>,
) -> impl Stream<Item = watcher::Result<PartialObjectMeta<Secret>>> + use<> {
    watcher(
        api::<PartialObjectMeta<Secret>>(client, namespace),
        watcher::Config::default(),
    )
    .default_backoff()
    .touched_objects()
    .predicate_filter(predicates::resource_version, Default::default())
}

/// The namespaces whose account has just been bound, or bound to another one, or whose channels may use
/// the operator's token from now on, or may not any more.
fn bindings(
    context: &Arc<Context>,
    namespace: Option<&str>,
) -> impl Stream<Item = watcher::Result<PartialObjectMeta<Namespace>>> + use<> {
    let chosen = match namespace {
        Some(name) => watcher::Config::default().fields(&format!("metadata.name={name}")),
        None => watcher::Config::default(),
    };
    let api = Api::<PartialObjectMeta<Namespace>>::all(context.client.clone());
    let seen = context.clone();
    watcher(api, chosen)
        .default_backoff()
        .touched_objects()
        .inspect_ok(move |bound| seen.bindings.note(bound))
        .predicate_filter(
            |bound: &PartialObjectMeta<Namespace>| Some(fingerprint(bound, allowed(bound))),
            Default::default(),
        )
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

/// An object that is gone looks like one that is going, so that it differs from the one that was there.
fn gone<K: Resource>(event: watcher::Event<K>) -> watcher::Event<K> {
    match event {
        watcher::Event::Delete(mut object) => {
            let meta = object.meta_mut();
            meta.deletion_timestamp
                .get_or_insert(Time(Timestamp::now()));
            watcher::Event::Delete(object)
        }
        event => event,
    }
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
    let (wake, mut woken) = mpsc::unbounded_channel::<ObjectRef<Watched<K>>>();
    context.wakers.register(K::KIND, namespace, move |woken| {
        // Nobody listens any more when the process ends.
        let _ = wake.send(ObjectRef::new(&woken.name).within(&woken.namespace));
    });
    let controller = Arc::new(ControllerContext::<K> {
        context: context.clone(),
        store: store.clone(),
    });
    // Our own status writes must not wake us. Deletion moves the generation too.
    let stream = watcher(
        api::<Watched<K>>(&context.client, namespace),
        watcher::Config::default(),
    )
    .default_backoff()
    .inspect_ok({
        let controller = controller.clone();
        move |event| match event {
            watcher::Event::Delete(object) => controller.forget(&object.uid().unwrap_or_default()),
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
                let uid = object.uid().unwrap_or_default();
                let request = object.0.as_ref().ok().and_then(reconcile::new_request);
                let memory = &controller.context.backoff;
                memory.seen(&uid, object.meta().generation, request.as_ref());
            }
            watcher::Event::Init | watcher::Event::InitDone => {}
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
            let all = ready.state().into_iter();
            let uids = all.filter(|object| object.0.is_ok());
            let uids: HashSet<_> = uids.filter_map(|object| object.uid()).collect();
            context.systems.keep(|subscriber| {
                let others = namespace.is_some_and(|it| it != subscriber.namespace);
                subscriber.kind != K::KIND || others || uids.contains(&subscriber.uid)
            });
        }
    };
    let sync = async {
        let ((), ()) = tokio::join!(beats, sweeps);
    };
    let moved = stream::poll_fn(move |cx| woken.poll_recv(cx));
    let work = wire(Controller::for_stream(stream, store.clone()), store)
        .reconcile_on(moved)
        .with_config(
            // Who is at work at once is decided by the pools, which know who waits for it.
            controller::Config::default()
                .concurrency(0)
                .debounce(Duration::from_millis(50)),
        )
        .graceful_shutdown_on(context.shutdown.clone().cancelled_owned())
        .run(one::<K>, |_, never, _| match *never {}, controller.clone())
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
                let failures = context.backoff.failed(&uid, error.class);
                ReconcileResult::failed(error.class, failures)
            }
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().copied();
                let text = text.or(panic.downcast_ref::<String>().map(String::as_str));
                let panic = text.unwrap_or_default();
                tracing::error!(panic, "a reconcile panicked: this is a bug");
                let failures = context.backoff.failed(&uid, Class::Unavailable);
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
