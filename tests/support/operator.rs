//! An operator at work, and what it shows.

use super::{CLUSTER, PATIENCE, Tenant, binary, eventually, root};
use campanile_world::{World, process::Process};
use k8s_openapi::api::events::v1::Event;
use serde_json::Value;
use std::sync::LazyLock;

impl Tenant {
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

    /// The same with more options; the last of each counts.
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

    /// The operator's Events about the objects of this name, the oldest first.
    pub async fn events(&self, name: &str) -> Vec<Event> {
        let mut all = self.list::<Event>().await;
        all.retain(|event| {
            let about = event.regarding.as_ref();
            event.reporting_controller.as_deref() == Some("campanile.dev/campanile")
                && about.and_then(|about| about.name.as_deref()) == Some(name)
        });
        all.sort_by_key(|event| event.event_time.clone().unwrap().0);
        all
    }
}

/// Where an operator shows its probes and metrics.
pub struct Address(String);

impl Address {
    /// One where nobody listens yet.
    pub fn free() -> Self {
        let port = campanile_world::port::free().unwrap();
        Self(format!("127.0.0.1:{port}"))
    }

    /// The operator's option to listen there.
    pub fn option(&self) -> [&str; 2] {
        ["--metrics-addr", &self.0]
    }

    /// What is answered at a path: status and body.
    pub async fn get(&self, path: &str) -> reqwest::Result<(u16, String)> {
        // Each request by a connection of its own: one that is kept would be cut by the end of its operator.
        static HTTP: LazyLock<reqwest::Client> = LazyLock::new(|| {
            let client = reqwest::Client::builder().no_proxy();
            let client = client.pool_max_idle_per_host(0);
            client.timeout(PATIENCE).build().unwrap()
        });
        let answer = HTTP.get(format!("http://{}{path}", self.0)).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// Waits until a path is answered with this status, and returns the body.
    pub async fn answers(&self, path: &str, status: u16) -> String {
        eventually(&format!("{path} to answer {status}"), || async {
            match self.get(path).await {
                Ok((found, body)) if found == status => Ok(body),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// The metrics, as soon as there are any.
    pub async fn metrics(&self) -> String {
        self.answers("/metrics", 200).await
    }
}

/// What the operator has logged.
pub async fn log(operator: &Process) -> String {
    let log = tokio::fs::read_to_string(operator.log_path()).await;
    log.unwrap()
}

/// The same, a value per line.
pub async fn lines(operator: &Process) -> Vec<Value> {
    let log = log(operator).await;
    // The last line may be half written.
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
        .collect()
}
