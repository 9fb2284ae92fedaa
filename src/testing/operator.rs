//! One process of the operator in a world of doubles. The only place here that knows how the controller is
//! put together.

use super::{Aws, Calls, Cluster, Slack};
use crate::{
    api::{ACCOUNT_BINDING, AlarmSet, SlackChannel, TenantObservability},
    clients::{self, Clients, http},
    controller::{
        Context, ControllerContext,
        gate::RunHandle,
        object_memory::ObjectMemory,
        pools::Pools,
        reconcile::{ReconcileResult, priority, reconcile},
        wakers::Wakers,
        watches::saw,
    },
    engine::{
        error::Result,
        informer::{PollIntervals, Polling, Subscriber},
        limits::Limiter,
    },
    kinds::{
        Kind,
        installation::Installation,
        job::KindJobs,
        stores::Stores,
        system::tests::{Registry, probe_jobs},
        systems::systems,
    },
    telemetry::{Metrics, Probes},
};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    core::DeserializeGuard,
    runtime::{controller::Action, reflector},
};
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use std::{
    any::{Any, TypeId},
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, LazyLock},
    time::Duration,
};

/// The namespace of all that tests make.
pub const NAMESPACE: &str = "vsu";
/// The account that it is bound to.
pub const ACCOUNT: &str = "222233334444";

/// How often the outside is looked at.
pub const POLL: Duration = Duration::from_secs(60);

/// All that the operator meets.
pub struct World {
    /// Every call to any of it.
    pub calls: Calls,
    /// The cluster.
    pub cluster: Cluster,
    /// The accounts.
    pub aws: Aws,
    /// The workspace.
    pub slack: Slack,
    /// What tells the cluster from others of its name.
    pub uid: String,
}

impl World {
    /// A namespace that is bound to an account, and nothing else.
    pub fn new() -> Self {
        Self::with_cluster(Calls::default())
    }

    fn with_cluster(calls: Calls) -> Self {
        let cluster = Cluster::new(&calls);
        cluster.apply(json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "annotations": {ACCOUNT_BINDING: ACCOUNT}}}));
        Self {
            aws: Aws::new(&calls),
            slack: Slack::new(&calls),
            cluster,
            calls,
            uid: Installation::sample().cluster.uid,
        }
    }

    /// The same outside with a new cluster of the same name, in which nothing has been applied.
    pub fn rebuilt(&self, uid: &str) -> Self {
        let calls = Calls::default();
        Self {
            aws: self.aws.copy(&calls),
            slack: self.slack.copy(&calls),
            uid: uid.to_owned(),
            ..Self::with_cluster(calls)
        }
    }

    /// Sets an annotation of the Namespace.
    pub fn annotate(&self, name: &str, value: &str) {
        self.cluster.edit::<Namespace>("", NAMESPACE, |namespace| {
            namespace["metadata"]["annotations"][name] = json!(value);
        });
    }

    /// Another one in which all is as it is now in this one.
    pub fn copy(&self) -> Self {
        let calls = Calls::default();
        Self {
            cluster: self.cluster.copy(&calls),
            aws: self.aws.copy(&calls),
            slack: self.slack.copy(&calls),
            uid: self.uid.clone(),
            calls,
        }
    }

    /// Makes an object of ours, or gives it another spec.
    pub fn apply(&self, kind: &str, name: &str, spec: Json) {
        self.cluster
            .apply(json!({"apiVersion": "campanile.dev/v1alpha1", "kind": kind,
            "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}));
    }

    /// Makes a Secret with one key.
    pub fn secret(&self, name: &str, key: &str, value: &str) {
        self.cluster.apply(
            json!({"apiVersion": "v1", "kind": "Secret", "stringData": {key: value},
            "metadata": {"name": name, "namespace": NAMESPACE}}),
        );
    }

    /// Takes the status of all objects of a kind away.
    pub fn wipe<K: Kind>(&self) {
        for (namespace, name) in self.cluster.names::<K>() {
            let wipe = |object: &mut Json| object["status"] = Json::Null;
            self.cluster.edit::<K>(&namespace, &name, wipe);
        }
    }

    /// What a process of the operator that has just started stands on.
    pub fn context(&self) -> Arc<Context> {
        let sample = Installation::sample();
        let installation = Installation {
            cluster: crate::kinds::mark::Cluster {
                uid: self.uid.clone(),
                ..sample.cluster
            },
            slack_api_url: self.slack.url(),
            allow_private_endpoints: true,
            ..sample
        };
        let limiter = Arc::new(Limiter::new(&BTreeMap::new()));
        // Reading the system's certificates takes longer than a test.
        static HTTP: LazyLock<reqwest::Client> = LazyLock::new(|| http::client().unwrap());
        let slack = clients::slack::Slack::new(
            HTTP.clone(),
            &installation.slack_api_url,
            limiter.clone(),
            Arc::new(|_| {}),
        );
        let clients = Clients {
            aws: Arc::new(self.aws.accounts(limiter.clone())),
            slack,
            limiter,
        };
        let intervals = PollIntervals {
            poll: POLL,
            slow: POLL * 10,
        };
        let wakers = Wakers::default();
        let polling = Polling {
            intervals: Some(intervals),
            waker: wakers.waker(),
        };
        Arc::new(Context {
            client: self.cluster.client(),
            systems: systems(&clients, &installation, &polling).with::<Arc<Registry>>((), polling),
            wakers,
            installation,
            clients,
            pools: Pools::default(),
            object_memory: ObjectMemory::default(),
            stores: Stores::default(),
            jobs: KindJobs::default().with(probe_jobs()),
            lease: None,
            shutdown: Default::default(),
            intervals,
            replica: "double".into(),
            metrics: Metrics::default(),
            probes: Probes::default(),
        })
    }

    /// What an object's status says, at a JSON pointer.
    pub fn status<K: Kind>(&self, name: &str, pointer: &str) -> Json {
        let object = self.cluster.get::<K>(NAMESPACE, name);
        let status = object.and_then(|object| serde_json::to_value(object.status()?).ok());
        let found = status.and_then(|status| status.pointer(pointer).cloned());
        found.unwrap_or_default()
    }

    /// A condition of an object as `status reason`, or nothing.
    pub fn condition<K: Kind>(&self, name: &str, type_: &str) -> String {
        let conditions = self.status::<K>(name, "/conditions");
        let mut conditions = conditions.as_array().into_iter().flatten();
        let found = conditions.find(|condition| condition["type"] == type_);
        let text = |field| found.and_then(|it| it[field].as_str()).unwrap_or_default();
        format!("{} {}", text("status"), text("reason"))
    }
}

/// One process of the operator: what it remembers goes with it.
pub struct Operator {
    /// What all reconciles share.
    pub context: Arc<Context>,
    cluster: Cluster,
    calls: Calls,
    controllers: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
    woken: Arc<Mutex<BTreeSet<String>>>,
}

impl Operator {
    /// One that has just started.
    pub fn new(world: &World) -> Self {
        let context = world.context();
        let seen = Arc::downgrade(&context);
        world.cluster.listen::<Namespace>(move |namespace, _| {
            if let Some(context) = seen.upgrade() {
                let namespace = serde_json::from_value(namespace.clone()).unwrap();
                context.stores.grants.note(&namespace);
            }
        });
        Self {
            context,
            cluster: world.cluster.clone(),
            calls: world.calls.clone(),
            controllers: Mutex::default(),
            woken: Arc::default(),
        }
    }

    fn controller<K: Kind>(&self) -> Arc<ControllerContext<K>> {
        let mut controllers = self.controllers.lock();
        let controller = controllers.entry(TypeId::of::<K>()).or_insert_with(|| {
            let (store, writer) = reflector::store::<DeserializeGuard<K>>();
            self.context.stores.add::<K>(None, store.clone());
            self.cluster.reflect(writer);
            let woken = self.woken.clone();
            let wake = move |subscriber: &Subscriber| {
                woken.lock().insert(subscriber.name.clone());
            };
            self.context.wakers.register(K::KIND, None, wake);
            let controller = Arc::new(ControllerContext::<K> {
                context: self.context.clone(),
                store,
                jobs_reserved: Default::default(),
                seen: Default::default(),
            });
            let seeing = Arc::downgrade(&controller);
            self.cluster.listen::<K>(move |object, gone| {
                if let Some(controller) = seeing.upgrade() {
                    let object = serde_json::from_value(object.clone()).unwrap();
                    saw(&controller, &object, gone);
                }
            });
            controller
        });
        controller.clone().downcast().unwrap()
    }

    /// One reconcile of an object that is there.
    pub async fn reconcile<K: Kind>(&self, name: &str) -> Result<ReconcileResult> {
        let controller = self.controller::<K>();
        let object = self.cluster.get::<K>(NAMESPACE, name).unwrap();
        let priority = priority(&object);
        let permit = self.context.pools.admit(NAMESPACE, priority).await.unwrap();
        let handle = RunHandle {
            priority,
            trace_id: "trace",
            permit,
        };
        reconcile(&DeserializeGuard(Ok(object)), &controller, handle).await
    }

    /// The watch tells of an object.
    pub fn saw<K: Kind>(&self, object: K, gone: bool) {
        saw(&self.controller::<K>(), &DeserializeGuard(Ok(object)), gone);
    }

    /// From now on the watch of a kind tells nothing.
    pub fn lag<K: Kind>(&self) {
        self.cluster.lag::<K>();
    }

    /// The objects that something outside has woken since the last question.
    pub fn woken(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.woken.lock())
    }

    /// One reconcile of every object there is: when one is to be looked at again, and whether all went well.
    async fn round(&self) -> (Option<Duration>, bool) {
        let mut results = Vec::new();
        for name in self.names::<TenantObservability>() {
            results.push(self.reconcile::<TenantObservability>(&name).await);
        }
        for name in self.names::<SlackChannel>() {
            results.push(self.reconcile::<SlackChannel>(&name).await);
        }
        for name in self.names::<AlarmSet>() {
            results.push(self.reconcile::<AlarmSet>(&name).await);
        }
        let mut again = None;
        let mut well = true;
        for result in results {
            let failed = Duration::from_secs(1);
            well &= result.as_ref().is_ok_and(|result| result.outcome == "ok");
            let wait = match result.map(|result| result.action) {
                Ok(action) if action == Action::await_change() => continue,
                Ok(action) => requeued(&action),
                Err(_) => failed,
            };
            again = Some(again.map_or(wait, |sooner: Duration| sooner.min(wait)));
        }
        (again, well)
    }

    fn names<K: Kind>(&self) -> Vec<String> {
        let names = self.cluster.names::<K>().into_iter();
        names.map(|(_, name)| name).collect()
    }

    /// Looks at everything as often as it asks for it, until all is well and nothing is written any more.
    pub async fn converge(&self) {
        for _ in 0..50 {
            let before = self.calls.writes().len();
            let (again, well) = self.round().await;
            if well && self.calls.writes().len() == before {
                return;
            }
            let soon = Duration::from_secs(1);
            let wait = again.filter(|_| !well).unwrap_or_default();
            tokio::time::sleep(wait.max(soon)).await;
        }
        panic!("it does not come to rest: {:#?}", self.calls.writes());
    }
}

impl Operator {
    /// Looks at everything until nothing is written any more, whether all is well or not.
    pub async fn rest(&self) {
        let mut quiet = 0;
        for _ in 0..50 {
            let before = self.calls.writes().len();
            self.round().await;
            quiet = match self.calls.writes().len() == before {
                true => quiet + 1,
                false => 0,
            };
            if quiet == 2 {
                return;
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        panic!("it does not come to rest: {:#?}", self.calls.writes());
    }
}

/// How long an action says to wait. It does not tell, but for what it is equal to.
pub fn requeued(action: &Action) -> Duration {
    let text = format!("{action:?}");
    let seconds = text
        .split_once("Some(")
        .and_then(|(_, rest)| rest.split_once("s)"));
    let seconds = seconds.and_then(|(text, _)| text.trim_end_matches(['m', 'µ', 'n']).parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or(1.0))
}
