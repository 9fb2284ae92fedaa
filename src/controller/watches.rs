//! The watches: which events in the cluster wake which objects.

use super::{Context, ControllerContext, cleanup, reconcile};
use crate::{
    api::{AlarmSet, FINALIZER, RECONCILE_REQUESTED, SlackChannel, TenantObservability},
    clients::kubernetes,
    engine::informer::Subscriber,
    kinds::{
        Kind, Status, alarm_set,
        grants::Grants,
        slack_channel,
        stores::{Stores, Watched},
        tenant,
    },
};
use futures::{Stream, StreamExt, TryStreamExt as _, future, stream};
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Namespace, Secret},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _, predicates,
        reflector::store::Writer,
        watcher::{self, Event, watcher},
    },
};
use std::{
    collections::{BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

/// How long it takes until an object is looked at that somebody else has meddled with.
const MEDDLED: Duration = Duration::from_secs(2);

/// A kind as it is watched, and the kind whose objects it wakes.
pub(super) trait Watch: Kind {
    /// What goes by its objects.
    type Dependent: Kind;
    /// What of an object its dependents go by, besides its spec.
    fn offered(&self) -> impl Hash;
    /// Whether a dependent goes by an object.
    fn concerns(object: &Watched<Self>, dependent: &Self::Dependent) -> bool;
}

impl Watch for TenantObservability {
    type Dependent = AlarmSet;

    fn offered(&self) -> impl Hash {
        alarm_set::offered(self)
    }

    fn concerns(tenant: &Watched<Self>, set: &AlarmSet) -> bool {
        set.spec.tenant_ref.name == tenant.name_any()
    }
}

impl Watch for AlarmSet {
    type Dependent = TenantObservability;

    fn offered(&self) -> impl Hash {
        serde_json::to_string(&self.status).unwrap_or_default()
    }

    fn concerns(set: &Watched<Self>, tenant: &TenantObservability) -> bool {
        let named = set.0.as_ref().map(|set| &set.spec.tenant_ref.name);
        named.is_ok_and(|name| *name == tenant.name_any())
    }
}

impl Watch for SlackChannel {
    type Dependent = TenantObservability;

    fn offered(&self) -> impl Hash {
        slack_channel::offered(self)
    }

    fn concerns(channel: &Watched<Self>, tenant: &TenantObservability) -> bool {
        tenant::channel_names(tenant).contains(channel.name_any().as_str())
    }
}

/// Wakes the objects of a kind in a namespace that go by something.
fn wake<K: Kind>(context: &Context, namespace: Option<String>, depends: impl Fn(&K) -> bool) {
    let watched = context.stores.watched::<K>(namespace.as_deref());
    for object in watched.into_iter().flatten() {
        if object.0.as_ref().is_ok_and(&depends) {
            context.wakers.wake(&subscriber(&*object));
        }
    }
}

fn subscriber<K: Kind>(object: &Watched<K>) -> Subscriber {
    Subscriber {
        kind: K::KIND,
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
    }
}

/// The API of what is in one namespace, or in all.
fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// The one watch of a kind in one namespace, or in all. It fills the store, wakes whatever goes by what has changed, and
/// yields the objects that are to be reconciled: our own status writes are not among them.
pub(super) fn objects<K: Watch>(
    controller: &Arc<ControllerContext<K>>,
    namespace: Option<&str>,
    writer: Writer<Watched<K>>,
) -> impl Stream<Item = watcher::Result<Watched<K>>> + use<K> {
    let api = api::<Watched<K>>(&controller.context.client, namespace);
    let events = watcher(api, watcher::Config::default()).default_backoff();
    let (controller, mut offered) = (controller.clone(), HashMap::new());
    stored(events.reflect(writer))
        .inspect_ok(move |(object, gone)| {
            let uid = object.uid().unwrap_or_default();
            saw(&controller, object, *gone);
            let changed = if *gone {
                offered.remove(&uid);
                true
            } else {
                let now = fingerprint(object, object.0.as_ref().ok().map(K::offered));
                offered.insert(uid, now) != Some(now)
            };
            if changed {
                wake(&controller.context, object.namespace(), |dependent| {
                    K::concerns(object, dependent)
                });
            }
        })
        .try_filter_map(|(object, gone)| future::ok((!gone).then_some(object)))
        // Deletion moves the generation too.
        .predicate_filter(
            |object: &Watched<K>| {
                let requested = object.annotations().get(RECONCILE_REQUESTED);
                Some(fingerprint(object, requested))
            },
            Default::default(),
        )
}

/// What is to be remembered of an object that the watch tells of, and done about what others have done to it.
pub(crate) fn saw<K: Kind>(
    controller: &Arc<ControllerContext<K>>,
    object: &Watched<K>,
    gone: bool,
) {
    let (context, uid) = (&controller.context, object.uid().unwrap_or_default());
    let read = object.0.as_ref().ok();
    if gone {
        let let_go = context.object_memory.has_let_go(&uid);
        let records = context.stores.records::<K::Status>(&uid);
        controller.forget(&uid);
        let Some(mut object) = read.filter(|_| !let_go).cloned() else {
            return;
        };
        // What somebody took from its status last, nobody has looked at any more.
        if let Some(records) = records {
            let status = object.status_mut().get_or_insert_default();
            status.restore(&records);
        }
        if has_made_something(&object) {
            tokio::spawn(cleanup::clean_up(object, controller.clone()));
        }
        return;
    }
    controller.seen.lock().insert(uid.clone());
    let request = read.and_then(reconcile::new_request);
    context
        .object_memory
        .seen(&uid, object.meta().generation, request.as_ref());
    if read.is_some_and(|object| is_meddled_with(object, &context.stores)) {
        let (wakers, subscriber) = (context.wakers.clone(), subscriber(object));
        tokio::spawn(async move {
            // Who writes again and again must not keep us busy.
            tokio::time::sleep(MEDDLED).await;
            wakers.wake(&subscriber);
        });
    }
}

fn has_made_something<K: Kind>(object: &K) -> bool {
    let status = object.status().cloned().unwrap_or_default();
    !status.places().is_empty() && !K::made_nothing(&status)
}

/// Whether somebody else has taken off our finalizer, or changed the status, of an object that stays.
fn is_meddled_with<K: Kind>(object: &K, stores: &Stores) -> bool {
    let mut status = object.status().cloned().unwrap_or_default();
    let is_held = object.finalizers().iter().any(|name| name == FINALIZER);
    let lost_finalizer = !is_held && !status.conditions().is_empty();
    let stays = object.meta().deletion_timestamp.is_none();
    stays && (lost_finalizer || stores.status_is_foreign(object, &object.status()))
}

/// The objects of a reflected watch, each as soon as its store has it, and whether it is gone. A store takes over what
/// is listed only when the list is complete; who was woken before would find the object as it was.
fn stored<K: Resource>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
) -> impl Stream<Item = watcher::Result<(K, bool)>> {
    let mut listed = Vec::new();
    let changes = events.map_ok(move |event| match event {
        Event::Apply(object) => vec![(object, false)],
        Event::Delete(object) => vec![(object, true)],
        Event::Init => {
            listed.clear();
            Vec::new()
        }
        Event::InitApply(object) => {
            listed.push((object, false));
            Vec::new()
        }
        Event::InitDone => std::mem::take(&mut listed),
    });
    changes
        .map_ok(|changes| stream::iter(changes.into_iter().map(Ok)))
        .try_flatten()
}

/// What of an object matters to those that it wakes.
fn fingerprint<K: Resource>(object: &K, what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    let meta = object.meta();
    let deleting = meta.deletion_timestamp.is_some();
    (&meta.uid, meta.generation, deleting, what).hash(&mut hasher);
    hasher.finish()
}

/// Wakes whatever goes by a Secret that has come, gone or changed, without end. More is not kept of any.
pub(super) async fn secrets(context: &Context, namespace: Option<&str>) {
    let api = api::<PartialObjectMeta<Secret>>(&context.client, namespace);
    let changed = watcher(api, watcher::Config::default())
        .default_backoff()
        .touched_objects()
        .predicate_filter(predicates::resource_version, Default::default());
    each(changed, |secret| {
        let (name, namespace) = (secret.name_any(), secret.namespace());
        let name = name.as_str();
        let named = |channel: &SlackChannel| channel.secret_names().contains(name);
        wake(context, namespace.clone(), named);
        // A tenant's messages go by the Secrets of its channels.
        let channels = context.stores.watched::<SlackChannel>(namespace.as_deref());
        let channels = channels.into_iter().flatten();
        let channels = channels.filter(|channel| channel.0.as_ref().is_ok_and(named));
        let channels: BTreeSet<_> = channels.map(|channel| channel.name_any()).collect();
        wake(context, namespace, |tenant: &TenantObservability| {
            let mut its = tenant::channel_names(tenant).into_iter();
            tenant.secret_names().contains(name) || its.any(|it| channels.contains(it))
        });
    })
    .await;
}

/// Remembers what Namespaces allow, and wakes all objects of one where that changes, without end.
pub(super) async fn namespaces(context: &Context, namespace: Option<&str>) {
    let chosen = match namespace {
        Some(name) => watcher::Config::default().fields(&format!("metadata.name={name}")),
        None => watcher::Config::default(),
    };
    let api = Api::<PartialObjectMeta<Namespace>>::all(context.client.clone());
    let changed = watcher(api, chosen)
        .default_backoff()
        .touched_objects()
        .inspect_ok(|namespace| context.stores.grants.note(namespace))
        .predicate_filter(
            |namespace: &PartialObjectMeta<Namespace>| {
                Some(fingerprint(namespace, Grants::of(namespace)))
            },
            Default::default(),
        );
    each(changed, |namespace| {
        let name = || Some(namespace.name_any());
        wake(context, name(), |_: &TenantObservability| true);
        wake(context, name(), |_: &AlarmSet| true);
        wake(context, name(), |_: &SlackChannel| true);
    })
    .await;
}

async fn each<K: Resource<DynamicType = ()>>(
    changed: impl Stream<Item = watcher::Result<K>>,
    wake: impl Fn(K),
) {
    let told = changed.for_each(|changed| {
        match changed {
            Ok(object) => wake(object),
            Err(error) => {
                let doing = format!("watching {}", K::plural(&()));
                let error = kubernetes::watching(&doing, &error);
                tracing::warn!(%error, class = error.class.label(), "a watch begins again");
            }
        }
        future::ready(())
    });
    told.await;
}
