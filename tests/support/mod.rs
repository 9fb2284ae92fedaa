//! What the tests share: the world, a tenant of one's own, and waiting for a condition.

use campanile::api::{AlarmSet, Severity, SlackChannel, TenantObservability};
use campanile_world::{
    Options, World,
    aws::{Mark, Trust},
    process::Process,
};
use k8s_openapi::{
    ByteString,
    api::core::v1::{Namespace, Secret},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fmt::Debug,
    future::Future,
    path::{Path, PathBuf},
    sync::{
        LazyLock, Once,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{runtime::Runtime, sync::OnceCell};

/// The cluster's name for all operators of the tests.
pub const CLUSTER: &str = "it";
/// The Region of all tenants of the tests.
pub const REGION: &str = "us-east-2";
/// The longest that anything here may take. Generous: nothing waits longer than it must.
pub const PATIENCE: Duration = Duration::from_secs(60);

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
static WORLD: OnceCell<World> = OnceCell::const_new();

/// Runs a test in the world.
pub fn test<F: Future<Output = ()>>(body: impl FnOnce(&'static World) -> F) {
    static LOUD: Once = Once::new();
    LOUD.call_once(|| {
        eprintln!("world: starting (the first time on a machine this takes minutes)")
    });
    RUNTIME.block_on(async {
        let world = WORLD
            .get_or_init(|| async {
                let world = World::start(Options::default())
                    .await
                    .expect("the world starts");
                world
                    .kubernetes
                    .install_crds(&root().join("crds"))
                    .await
                    .expect("the CRDs are accepted");
                world
            })
            .await;
        body(world).await;
    });
}

/// The top of the repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The operator's binary.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_campanile"))
}

/// A tenant of a test's own: a namespace, an account, a role that trusts.
pub struct Tenant {
    pub world: &'static World,
    pub client: Client,
    pub namespace: String,
    pub account: String,
}

impl Tenant {
    /// A namespace named after the test, and an account that nobody else has.
    pub async fn new(world: &'static World, name: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(1);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let tenant = Self {
            world,
            client: world.kubernetes.client().await.unwrap(),
            namespace: name.to_owned(),
            account: format!("{:012}", 700_000_000_000_u64 + number as u64),
        };
        let bound = json!({campanile::api::ACCOUNT_BINDING: tenant.account});
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "annotations": bound}});
        let api = Api::<Namespace>::all(tenant.client.clone());
        api.create(
            &PostParams::default(),
            &serde_json::from_value(namespace).unwrap(),
        )
        .await
        .unwrap();
        tenant.trust(Trust::external_id(format!("{CLUSTER}/{name}")));
        tenant
    }

    pub fn role(&self) -> String {
        format!("arn:aws:iam::{}:role/campanile", self.account)
    }

    /// Binds the namespace to an account, or to none.
    pub async fn bind(&self, account: Option<&str>) {
        let patch =
            json!({"metadata": {"annotations": {campanile::api::ACCOUNT_BINDING: account}}});
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let (name, params) = (&self.namespace, PatchParams::default());
        let patched = namespaces.patch(name, &params, &Patch::Merge(patch)).await;
        patched.unwrap();
    }

    pub fn trust(&self, trust: Trust) {
        self.world.aws.role(&self.role(), trust);
    }

    /// A namespace for an operator's Lease and Secret other than the one that the tests share.
    pub async fn operator_home(world: &'static World, name: &str) -> Self {
        let home = Self::new(world, name).await;
        let role =
            std::fs::read_to_string(root().join("charts/campanile/files/role.yaml")).unwrap();
        let binding = r#"
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: campanile}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: campanile}
subjects: [{kind: ServiceAccount, name: campanile, namespace: campanile-system}]
"#;
        let args = ["-n", name, "apply", "-f", "-"];
        let applied = world
            .kubernetes
            .kubectl_with_input(args, &format!("{role}{binding}"))
            .await;
        applied.unwrap().success().unwrap();
        home
    }

    /// An operator that looks after this namespace only, every half second.
    pub async fn operator(&self) -> Process {
        self.operator_with(&[]).await
    }

    pub async fn operator_with(&self, more: &[&str]) -> Process {
        self.operator_in(&[], more).await
    }

    /// The same with more in its environment.
    pub async fn operator_in(&self, environment: &[(&str, &str)], more: &[&str]) -> Process {
        let mut args = vec![
            "run",
            "--cluster-name",
            CLUSTER,
            "--watch-namespace",
            &self.namespace,
            "--poll-interval",
            "500ms",
            "--slow-poll-interval",
            "1s",
            "--metrics-addr",
            "127.0.0.1:0",
            "--leader-elect=false",
            // The stand-ins are on loopback.
            "--allow-private-endpoints",
        ];
        args.extend(more);
        self.world
            .operator(binary(), args, environment)
            .await
            .unwrap()
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Applies a TenantObservability named like the namespace.
    pub async fn tenant(&self, spec: Value) -> TenantObservability {
        self.apply(&self.namespace, spec).await
    }

    /// A tenant with two environments and a topic for critical and warning.
    pub async fn usual_tenant(&self) -> TenantObservability {
        self.tenant(self.usual_spec()).await
    }

    pub fn usual_spec(&self) -> Value {
        json!({
            "environments": [{"name": "pilot"}, {"name": "prod", "deploymentId": "app-prod"}],
            "aws": {"accountId": self.account, "region": REGION},
            "notify": {"critical": {}, "warning": {}}
        })
    }

    /// Applies an AlarmSet.
    pub async fn set(&self, name: &str, environments: Value, alarms: Value) -> AlarmSet {
        let spec = json!({"tenantRef": {"name": self.namespace}, "environments": environments, "alarms": alarms});
        self.apply(name, spec).await
    }

    /// Server-side apply, as kubectl and Flux do it.
    pub async fn apply<K>(&self, name: &str, spec: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        self.try_apply(name, spec).await.unwrap()
    }

    pub async fn try_apply<K>(&self, name: &str, mut spec: Value) -> kube::Result<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        if let Some(fields) = spec.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        let body = json!({"apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": {"name": name}, "spec": spec});
        self.api::<K>()
            .patch(
                name,
                &PatchParams::apply("a-person").force(),
                &Patch::Apply(body),
            )
            .await
    }

    pub async fn secret(&self, name: &str, key: &str, value: &str) {
        let secret = Secret {
            metadata: kube::core::ObjectMeta {
                name: Some(name.into()),
                ..Default::default()
            },
            data: Some([(key.to_owned(), ByteString(value.as_bytes().to_vec()))].into()),
            ..Default::default()
        };
        let body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": secret.data});
        let params = PatchParams::apply("a-person").force();
        self.api::<Secret>()
            .patch(name, &params, &Patch::Apply(body))
            .await
            .unwrap();
    }

    pub async fn annotate<K>(&self, name: &str, key: &str, value: &str)
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {key: value}}}));
        self.api::<K>()
            .patch(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    pub async fn delete<K>(&self, name: &str)
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        self.api::<K>()
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }

    /// Waits until the object is gone.
    pub async fn gone<K>(&self, name: &str)
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize,
    {
        let api = self.api::<K>();
        eventually(&format!("{name} to be gone"), || async {
            match api.get_opt(name).await.unwrap() {
                None => Ok(()),
                Some(object) => Err(serde_json::to_string_pretty(&object).unwrap()),
            }
        })
        .await;
    }

    /// Waits until the object is as `right` says, and returns it.
    pub async fn until<K>(&self, name: &str, what: &str, right: impl Fn(&K) -> bool) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize,
    {
        let api = self.api::<K>();
        eventually(&format!("{} {name}: {what}", K::kind(&())), || async {
            let object = api.get(name).await.unwrap();
            if right(&object) {
                Ok(object)
            } else {
                Err(serde_json::to_string_pretty(&object).unwrap())
            }
        })
        .await
    }

    /// Waits for a reason of `Ready` at the current generation, and returns the condition's message.
    pub async fn ready<K: Conditions>(&self, name: &str, reason: &str) -> String {
        let object = self
            .until::<K>(name, reason, |object| {
                let ready = object.condition("Ready");
                ready.is_some_and(|ready| {
                    ready.reason == reason && ready.observed_generation == object.meta().generation
                })
            })
            .await;
        object.condition("Ready").unwrap().message.clone()
    }

    /// Waits until a condition stands so at the current generation, and returns its message.
    pub async fn stands<K: Conditions>(
        &self,
        name: &str,
        type_: &str,
        status: &str,
        reason: &str,
    ) -> String {
        let what = format!("{type_}={status}/{reason}");
        let object = self
            .until::<K>(name, &what, |object| {
                let found = object.condition(type_);
                found.is_some_and(|found| {
                    (&*found.status, &*found.reason) == (status, reason)
                        && found.observed_generation == object.meta().generation
                })
            })
            .await;
        object.condition(type_).unwrap().message.clone()
    }

    pub fn cloudwatch(&self) -> aws_sdk_cloudwatch::Client {
        self.world.aws.cloudwatch(&self.account, REGION)
    }

    pub fn sns(&self) -> aws_sdk_sns::Client {
        self.world.aws.sns(&self.account, REGION)
    }

    /// The alarms of the account, by name.
    pub async fn alarms(&self) -> BTreeMap<String, aws_sdk_cloudwatch::types::MetricAlarm> {
        let mut pages = self.cloudwatch().describe_alarms().into_paginator().send();
        let mut all = BTreeMap::new();
        while let Some(page) = pages.next().await {
            for alarm in page.unwrap().metric_alarms() {
                all.insert(alarm.alarm_name().unwrap().to_owned(), alarm.clone());
            }
        }
        all
    }

    /// The ARNs of the account's topics.
    pub async fn topics(&self) -> Vec<String> {
        let listed = self.sns().list_topics().send().await.unwrap();
        listed
            .topics()
            .iter()
            .map(|topic| topic.topic_arn().unwrap().to_owned())
            .collect()
    }

    /// The name of an alarm in CloudWatch.
    pub fn name(
        &self,
        severity: Severity,
        set: &str,
        alarm: &str,
        environment: Option<&str>,
    ) -> String {
        campanile::names::alarm(CLUSTER, &self.namespace, severity, set, alarm, environment)
    }

    /// Another tenant of the same namespace, in an account that works, whose alarm is there whatever
    /// becomes of this one.
    pub async fn neighbour_works(&self) {
        let account = format!("8{}", &self.account[1..]);
        let role = format!("arn:aws:iam::{account}:role/campanile");
        self.world.aws.role(
            &role,
            Trust::external_id(format!("{CLUSTER}/{}", self.namespace)),
        );
        let spec = json!({"aws": {"accountId": account, "region": REGION}});
        self.apply::<TenantObservability>("neighbour", spec).await;
        let spec = json!({"tenantRef": {"name": "neighbour"}, "alarms": [alarm("errors", "critical", json!({}))]});
        self.apply::<AlarmSet>("neighbour", spec).await;
        self.ready::<AlarmSet>("neighbour", "Applied").await;
        let described = self
            .world
            .aws
            .cloudwatch(&account, REGION)
            .describe_alarms()
            .send()
            .await
            .unwrap();
        assert_eq!(
            described.metric_alarms().len(),
            1,
            "the other alarms are there"
        );
    }

    /// The operator's writes to this account since `mark`: operation and what it was about.
    pub fn writes_since(&self, mark: Mark) -> Vec<(String, String)> {
        let calls = self.world.aws.calls_since(mark).into_iter();
        let ours = calls.filter(|call| call.account == self.account && call.write);
        ours.map(|call| (call.operation, call.resource)).collect()
    }

    /// Waits until the alarms have been looked at so often since `mark`.
    pub async fn polls(&self, mark: Mark, times: usize) {
        eventually(&format!("{times} polls"), || async {
            let polls = self.world.aws.count_since(mark, |call| {
                call.account == self.account && call.operation == "DescribeAlarms"
            });
            if polls >= times {
                Ok(())
            } else {
                Err(polls.to_string())
            }
        })
        .await;
    }

    /// Data as the app would emit it: `value` in each of the last `minutes`.
    pub async fn emit(&self, metric: &str, deployment: &str, value: f64, minutes: i64) {
        use aws_sdk_cloudwatch::{
            primitives::DateTime,
            types::{Dimension, MetricDatum},
        };
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs() as i64;
        let dimension = Dimension::builder()
            .name("DeploymentId")
            .value(deployment)
            .build();
        let data = (0..minutes).map(|ago| {
            MetricDatum::builder()
                .metric_name(metric)
                .dimensions(dimension.clone())
                .timestamp(DateTime::from_secs(now - ago * 60))
                .value(value)
                .build()
        });
        let put = self
            .cloudwatch()
            .put_metric_data()
            .namespace("App")
            .set_metric_data(Some(data.collect()));
        put.send().await.unwrap();
    }

    pub async fn delete_namespace(&self) {
        let api = Api::<Namespace>::all(self.client.clone());
        api.delete(&self.namespace, &DeleteParams::default())
            .await
            .unwrap();
        eventually("the namespace to be gone", || async {
            match api.get_opt(&self.namespace).await.unwrap() {
                None => Ok(()),
                Some(namespace) => Err(serde_json::to_string_pretty(&namespace.status).unwrap()),
            }
        })
        .await;
    }
}

/// An alarm of the spec with what most tests do not care about.
pub fn alarm(name: &str, severity: &str, more: Value) -> Value {
    let mut alarm = json!({"name": name, "severity": severity, "namespace": "App", "metricName": name.replace('-', "."),
        "statistic": "Sum", "period": 60, "evaluationPeriods": 1, "comparisonOperator": "GreaterThanThreshold",
        "threshold": 10, "treatMissingData": "notBreaching"});
    alarm
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    alarm
}

/// Kinds whose conditions the tests read.
pub trait Conditions:
    Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
{
    fn conditions(&self) -> &[Condition];

    fn condition(&self, type_: &str) -> Option<&Condition> {
        self.conditions()
            .iter()
            .find(|condition| condition.type_ == type_)
    }

    fn holds(&self, type_: &str) -> bool {
        self.condition(type_)
            .is_some_and(|condition| condition.status == "True")
    }
}

impl Conditions for AlarmSet {
    fn conditions(&self) -> &[Condition] {
        self.status
            .as_ref()
            .map_or(&[], |status| &status.conditions)
    }
}

impl Conditions for SlackChannel {
    fn conditions(&self) -> &[Condition] {
        self.status
            .as_ref()
            .map_or(&[], |status| &status.conditions)
    }
}

impl Conditions for TenantObservability {
    fn conditions(&self) -> &[Condition] {
        self.status
            .as_ref()
            .map_or(&[], |status| &status.conditions)
    }
}

/// Asks until the answer is right; the last wrong one is in the panic.
pub async fn eventually<T, F>(what: &str, ask: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let began = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(last) if began.elapsed() > PATIENCE => {
                panic!("waited {PATIENCE:?} for {what}; last seen: {last}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// What an object's version is, so that a test can say that nobody wrote it.
pub async fn version<K>(tenant: &Tenant, name: &str) -> String
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    tenant
        .api::<K>()
        .get(name)
        .await
        .unwrap()
        .resource_version()
        .unwrap()
}
