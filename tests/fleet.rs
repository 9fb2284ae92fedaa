//! A fleet of tenants, each with a namespace, an account and an AlarmSet of its own, and an operator
//! whose every word can be counted: by the API server's audit log, by AWS's record, by its metrics.

use crate::support::{Address, CLUSTER, Tenant, alarm, binary, eventually, root};
use anyhow::{Context as _, Result, ensure};
use campanile::api::{AlarmSet, TenantObservability};
use campanile_world::{
    World,
    aws::{Call, Mark},
    kubernetes::{ApiWrite, ServiceAccount, WritesMark},
    process::Process,
};
use futures::future::join_all;
use kube::{
    Api, Resource,
    api::{ApiResource, DynamicObject, ListParams},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Mutex,
    time::{Duration, Instant},
};

/// How many alarms each tenant has.
pub const ALARMS: usize = 16;
/// What the AlarmSet of each tenant is called.
pub const SET: &str = "golden-signals";
/// One `DescribeAlarms` answers with so many alarms.
pub const PAGE: usize = 100;

/// Tenants that are all alike.
pub struct Fleet {
    pub tenants: Vec<Tenant>,
}

impl Fleet {
    /// So many namespaces, each bound to an account of its own with a role that trusts.
    pub async fn new(world: &'static World, name: &str, tenants: usize) -> Self {
        let names = (0..tenants).map(|number| format!("{name}-{number:02}"));
        let tenants = names.map(|name| async move { Tenant::new(world, &name).await });
        Self {
            tenants: join_all(tenants).await,
        }
    }

    /// Applies to each namespace a tenant with a topic for critical and warning, and an AlarmSet.
    pub async fn apply(&self) {
        join_all(self.tenants.iter().map(|tenant| async move {
            tenant.usual_tenant().await;
            tenant.set(SET, json!(["prod"]), alarms(ALARMS)).await;
        }))
        .await;
    }

    pub fn namespaces(&self) -> BTreeSet<String> {
        let tenants = self.tenants.iter();
        tenants.map(|tenant| tenant.namespace.clone()).collect()
    }

    pub fn accounts(&self) -> BTreeSet<String> {
        let tenants = self.tenants.iter();
        tenants.map(|tenant| tenant.account.clone()).collect()
    }

    /// Waits until every object is applied as its spec is now.
    pub async fn applied(&self) {
        eventually("the fleet to be applied", || self.is_applied()).await;
    }

    /// Whether every object is applied as its spec is now, and every tenant tells of its alarms as its set does;
    /// if not, which are not.
    pub async fn is_applied(&self) -> Result<(), String> {
        let (tenants, sets) = (
            self.objects::<TenantObservability>().await,
            self.objects::<AlarmSet>().await,
        );
        let mut late: Vec<_> = tenants.iter().chain(&sets).filter_map(lacks).collect();
        // The watch by which a tenant sees its sets may come late.
        let counts = |objects: &[DynamicObject]| -> BTreeMap<_, _> {
            let each = objects.iter().map(|object| {
                let counts = object.data["status"]["counts"].clone();
                (object.metadata.namespace.clone(), counts)
            });
            each.collect()
        };
        let (told, there) = (counts(&tenants), counts(&sets));
        late.extend(
            told.iter()
                .filter(|(namespace, counts)| there.get(*namespace) != Some(*counts))
                .map(|(namespace, counts)| json!({"namespace": namespace, "counts": counts})),
        );
        if late.is_empty() {
            Ok(())
        } else {
            Err(format!("{late:#?}"))
        }
    }

    /// The fleet's objects of a kind.
    async fn objects<K: Resource<DynamicType = ()>>(&self) -> Vec<DynamicObject> {
        let of = ApiResource::erase::<K>(&());
        let Some(any) = self.tenants.first() else {
            return Vec::new();
        };
        let all = Api::<DynamicObject>::all_with(any.client.clone(), &of);
        let ours = self.namespaces();
        let listed = all.list(&ListParams::default()).await.unwrap();
        let listed = listed.items.into_iter().filter(|object| {
            let namespace = object.metadata.namespace.as_ref();
            namespace.is_some_and(|namespace| ours.contains(namespace))
        });
        listed.collect()
    }

    /// Waits until each account was polled so often since `mark`.
    pub async fn polls(&self, world: &World, mark: Mark, times: usize) {
        let what = format!("{times} polls of each account");
        eventually(&what, || async { self.are_polled(world, mark, times) }).await;
    }

    /// Whether each account was polled so often since `mark`; if not, one that was not.
    pub fn are_polled(&self, world: &World, mark: Mark, times: usize) -> Result<(), String> {
        let calls = world.aws.calls_since(mark);
        let polls = describes(&calls);
        let of = |account: &str| polls.get(account).copied().unwrap_or_default();
        let mut accounts = self.tenants.iter().map(|tenant| tenant.account.as_str());
        match accounts.find(|account| of(account) < times) {
            None => Ok(()),
            Some(account) => Err(format!("{account}: {}", of(account))),
        }
    }

    /// Waits until no object was reconciled while each account was polled twice: what settles after an
    /// apply has settled. Answers with how many reconciles there had been.
    pub async fn at_rest(&self, world: &World, operator: &Operator) -> u64 {
        eventually("the fleet to be at rest", || async {
            let before = operator.reconciles().await.map_err(|no| no.to_string())?;
            self.polls(world, world.aws.mark(), 2).await;
            let after = operator.reconciles().await.map_err(|no| no.to_string())?;
            if before == after {
                Ok(before)
            } else {
                Err(format!("{} reconciles meanwhile", after - before))
            }
        })
        .await
    }
}

/// How an object stands that is not applied yet.
fn lacks(object: &DynamicObject) -> Option<Value> {
    let conditions = object.data["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let ready = conditions.find(|condition| condition["type"] == "Ready");
    let applied = ready.is_some_and(|ready| {
        ready["reason"] == "Applied"
            && ready["observedGeneration"].as_i64() == object.metadata.generation
    });
    (!applied).then(|| json!({"namespace": object.metadata.namespace, "ready": ready}))
}

/// So many alarms that differ in name and metric, half critical and half warning.
pub fn alarms(count: usize) -> Value {
    let alarms = (0..count).map(|number| {
        let severity = if number % 2 == 0 {
            "critical"
        } else {
            "warning"
        };
        alarm(&format!("signal-{number:03}"), severity, json!({}))
    });
    alarms.collect()
}

/// How often the alarms of each account were read, by account.
pub fn describes(calls: &[Call]) -> BTreeMap<&str, usize> {
    let mut by_account = BTreeMap::new();
    for call in calls {
        if call.operation == "DescribeAlarms" {
            *by_account.entry(call.account.as_str()).or_default() += 1;
        }
    }
    by_account
}

/// Whether a call is about this account: one that assumes its role is not made in it.
pub fn concerns(call: &Call, account: &str) -> bool {
    call.account == account
        || call.operation == "AssumeRole" && call.resource.split(':').nth(4) == Some(account)
}

/// Who an operator is in the cluster: nobody else's writes are in the audit log under its name.
pub struct Who {
    home: String,
    user: String,
    kubeconfig: PathBuf,
}

impl Who {
    /// A service account in a namespace of its own, with what the chart grants.
    pub async fn new(world: &World, name: &str) -> Self {
        let home = format!("{name}-system");
        // Its ClusterRole has the same name, which must not be one of Kubernetes' own.
        let name = format!("campanile-{name}");
        let account = ServiceAccount {
            namespace: &home,
            name: &name,
        };
        let roles = ["clusterrole.yaml", "role.yaml"]
            .map(|file| root().join("charts/campanile/files").join(file));
        let kubeconfig = world.kubernetes.identity(account, &roles).await.unwrap();
        Self {
            user: format!("system:serviceaccount:{home}:{name}"),
            home,
            kubeconfig,
        }
    }

    /// Starts an operator that is this one, with leader election. `args` say what it looks after, and
    /// how often.
    pub async fn operator(&self, world: &World, args: &[&str]) -> Operator {
        let address = Address::free();
        let all = [
            "run",
            "--cluster-name",
            CLUSTER,
            "--operator-namespace",
            &self.home,
        ];
        let all = [&all[..], &address.option(), args].concat();
        let kubeconfig = self.kubeconfig.to_str().unwrap();
        let environment = [
            ("KUBECONFIG", kubeconfig),
            // With a line for each reconcile, whatever came of it.
            (
                "CAMPANILE_LOG",
                "info,aws_=error,hyper=warn,kube_client=error,kube_runtime=warn,tower=warn,campanile::controller=debug",
            ),
        ];
        let process = world.operator(binary(), all, &environment).await.unwrap();
        Operator { process, address }
    }

    /// What it wrote through the API server since `mark`, but for renewing its Lease.
    pub fn writes_since(&self, world: &World, mark: WritesMark) -> Vec<ApiWrite> {
        let mut writes = world.kubernetes.writes_since(mark).unwrap();
        writes.retain(|write| write.user == self.user && write.resource != "leases");
        writes
    }
}

/// An operator at work.
pub struct Operator {
    pub process: Process,
    address: Address,
}

impl Operator {
    /// What it answers at a path; an error unless the answer is 200.
    pub async fn get(&self, path: &str) -> Result<String> {
        self.process.ensure_running()?;
        let (status, body) = self.address.get(path).await?;
        ensure!(status == 200, "{status}: {body}");
        Ok(body)
    }

    /// How many reconciles have ended, by whatever outcome.
    pub async fn reconciles(&self) -> Result<u64> {
        let metrics = self.get("/metrics").await?;
        let mut total = 0;
        for line in metrics.lines() {
            if line.starts_with("campanile_reconciles_total{") {
                let (_, count) = line.rsplit_once(' ').context("no number")?;
                total += count.parse::<u64>()?;
            }
        }
        Ok(total)
    }

    /// Waits until it has reconciled nothing for two seconds.
    pub async fn still(&self) {
        const STILL: Duration = Duration::from_secs(2);
        let last = Mutex::new((0, Instant::now()));
        eventually("the operator to be still", || async {
            let now = self.reconciles().await.map_err(|no| no.to_string())?;
            let mut last = last.lock().unwrap();
            if last.0 != now {
                *last = (now, Instant::now());
            }
            if last.1.elapsed() >= STILL {
                Ok(())
            } else {
                Err(format!("{now} reconciles"))
            }
        })
        .await;
    }

    /// Where its log ends now.
    pub fn log_mark(&self) -> usize {
        self.log().len()
    }

    /// Kind and namespace of each reconcile that ended since `mark`, in order.
    pub fn reconciled_since(&self, mark: usize) -> Vec<(String, String)> {
        let log = self.log();
        let lines = log[mark..].lines();
        let lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let reconciled = lines.filter(|line| line["message"] == "reconciled");
        reconciled
            .map(|line| {
                let text = |name: &str| line["span"][name].as_str().unwrap_or_default().to_owned();
                (text("kind"), text("namespace"))
            })
            .collect()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.process.log_path()).unwrap()
    }
}
