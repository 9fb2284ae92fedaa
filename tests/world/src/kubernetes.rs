//! A real Kubernetes control plane: etcd, kube-apiserver and kube-controller-manager, without nodes.

mod audit;
mod control_plane;
mod identity;
mod kubectl;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, Config};

pub use audit::{ApiWrite, WritesMark};
pub use identity::ServiceAccount;
pub use kubectl::Output;

use crate::install::{self, Cluster};
use crate::process::Process;
use control_plane::ControlPlane;

/// Who applies what the world applies, for server-side apply.
const FIELD_OWNER: &str = "campanile-world";
const READY_WITHIN: Duration = Duration::from_secs(120);

/// A running cluster; ends when dropped.
#[derive(Debug)]
pub struct Kubernetes {
    control_plane: ControlPlane,
    programs: Cluster,
    directory: PathBuf,
    server: String,
    admin: PathBuf,
}

impl Kubernetes {
    /// Starts a cluster that keeps its files below `run_dir` and returns once it serves. `apiserver_args` come last on
    /// kube-apiserver's command line, for tests that need a feature gate, say, and win over the world's own.
    pub async fn start(run_dir: &Path, apiserver_args: &[String]) -> Result<Self> {
        let programs = tokio::task::spawn_blocking(install::cluster).await??;
        let directory = run_dir.join("kubernetes");
        let token = format!("{:032x}", fastrand::u128(..));
        let control_plane =
            ControlPlane::start(&programs, run_dir, &directory, &token, apiserver_args).await?;
        let server = control_plane.server();
        let admin = directory.join("admin.kubeconfig");
        let kubernetes = Self {
            control_plane,
            programs,
            directory,
            server,
            admin,
        };
        Ok(kubernetes)
    }

    /// The API server's URL.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The kubeconfig file of a cluster admin (group `system:masters`).
    pub fn kubeconfig(&self) -> &Path {
        &self.admin
    }

    /// The world's own kubectl, for people; code uses [`Self::kubectl`].
    pub fn kubectl_path(&self) -> PathBuf {
        self.programs.kubectl()
    }

    /// The API server's process, for its log and its memory.
    pub fn apiserver(&self) -> &Process {
        &self.control_plane.apiserver
    }

    /// A new client of the admin. A client lives as long as the async runtime it was made in, hence one per test.
    pub async fn client(&self) -> Result<Client> {
        client(&self.admin).await
    }

    /// Creates or updates what `yaml` holds (any number of documents) as admin, like `kubectl apply --server-side`.
    pub async fn apply(&self, yaml: &str) -> Result<String> {
        self.kubectl_with_input(
            ["apply", "--server-side", "--force-conflicts", "-f", "-"],
            yaml,
        )
        .await?
        .success()
    }

    /// Creates or updates what a file, or every file of a folder, holds; as [`Self::apply`].
    pub async fn apply_path(&self, path: &Path) -> Result<String> {
        let path = path
            .to_str()
            .with_context(|| format!("{} is not UTF-8", path.display()))?;
        self.kubectl(["apply", "--server-side", "--force-conflicts", "-f", path])
            .await?
            .success()
    }

    /// Creates or updates the CustomResourceDefinitions of a folder, waits until they are served, and returns their names.
    pub async fn install_crds(&self, folder: &Path) -> Result<Vec<String>> {
        let mut definitions = Vec::new();
        for path in yaml_files(folder)? {
            let read = || -> Result<Vec<CustomResourceDefinition>> {
                Ok(serde_saphyr::from_multiple(&std::fs::read_to_string(
                    &path,
                )?)?)
            };
            definitions.extend(read().with_context(|| {
                format!("{} does not hold CustomResourceDefinitions", path.display())
            })?);
        }
        let api: Api<CustomResourceDefinition> = Api::all(self.client().await?);
        let mut names = Vec::new();
        for definition in definitions {
            let name = definition
                .metadata
                .name
                .clone()
                .context("a CustomResourceDefinition has no name")?;
            let apply = PatchParams::apply(FIELD_OWNER).force();
            api.patch(&name, &apply, &Patch::Apply(&definition))
                .await
                .with_context(|| format!("{name} was refused"))?;
            names.push(name);
        }
        for name in &names {
            let established = await_condition(api.clone(), name, conditions::is_crd_established());
            match tokio::time::timeout(Duration::from_secs(30), established).await {
                Ok(waited) => drop(waited.with_context(|| format!("{name} cannot be watched"))?),
                Err(_) => bail!("{name} is not established after 30 s"),
            }
        }
        Ok(names)
    }
}

/// A client of whom a kubeconfig file names, without kube's own retries: a test wants to see the first answer.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("{} cannot be read", kubeconfig.display()))?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    // Proxies of our own environment are none of a loopback server's.
    config.proxy_url = None;
    Ok(Client::try_from(config)?)
}

fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("{} cannot be read", folder.display()))?;
    let mut files = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    files.sort();
    Ok(files)
}

/// Whether the API server says that it is ready and the namespaces that everyone counts on are there.
async fn serves(client: &Client) -> Result<()> {
    let ready = http::Request::get("/readyz").body(Vec::new())?;
    client.request_text(ready).await?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for name in ["default", "kube-system"] {
        namespaces.get(name).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
