//! All parts together, and the operator among them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};

use crate::aws::{Aws, OPERATOR_ACCOUNT};
use crate::install;
use crate::kubernetes::{Kubernetes, ServiceAccount};
use crate::pagerduty::PagerDuty;
use crate::process::Process;
use crate::run_dir::RunDir;
use crate::slack::Slack;

/// Who the operator is in the cluster, as the chart installs it.
pub const OPERATOR: ServiceAccount<'static> = ServiceAccount {
    namespace: "campanile-system",
    name: "campanile",
};
/// The operator's own Region.
pub const OPERATOR_REGION: &str = "us-east-2";

const OPERATOR_HOME: &str = "operator";

/// What a world is to be like.
#[derive(Clone, Debug)]
pub struct Options {
    /// The files with the ClusterRole and the Role that the operator gets; without one it may do nothing.
    pub operator_roles: Vec<PathBuf>,
    /// More arguments for kube-apiserver.
    pub apiserver_args: Vec<String>,
}

impl Default for Options {
    /// The roles that the chart grants, so that a test shows what they lack.
    fn default() -> Self {
        let files = install::workspace().join("charts/campanile/files");
        let operator_roles = ["clusterrole.yaml", "role.yaml"]
            .map(|file| files.join(file))
            .into();
        Self {
            operator_roles,
            apiserver_args: Vec::new(),
        }
    }
}

/// A running world. What is declared first ends first.
pub struct World {
    /// The Kubernetes cluster.
    pub kubernetes: Kubernetes,
    /// AWS, all accounts and Regions of it.
    pub aws: Aws,
    /// PagerDuty's Events API.
    pub pagerduty: PagerDuty,
    /// Slack, all workspaces of it.
    pub slack: Slack,
    operator_kubeconfig: PathBuf,
    operators: AtomicUsize,
    run_dir: RunDir,
}

impl World {
    /// Starts everything at once and returns when it serves. The first time on a machine this takes minutes: see [`install`].
    pub async fn start(options: Options) -> Result<Self> {
        if let Some(role) = options.operator_roles.iter().find(|role| !role.is_file()) {
            bail!(
                "{} is missing: the operator is to get the role in it",
                role.display()
            );
        }
        install::everything().await?;
        let mut run_dir = RunDir::create()?;
        let path = run_dir.path().to_owned();
        std::fs::create_dir(path.join(OPERATOR_HOME))?;
        let kubernetes = async {
            let kubernetes = Kubernetes::start(&path, &options.apiserver_args).await?;
            let operator = kubernetes
                .identity(OPERATOR, &options.operator_roles)
                .await?;
            anyhow::Ok((kubernetes, operator))
        };
        let started = tokio::try_join!(
            async { kubernetes.await.context("Kubernetes does not start") },
            async { Aws::start(&path).await.context("AWS does not start") },
            async { PagerDuty::start().await.context("PagerDuty does not start") },
            async { Slack::start().await.context("Slack does not start") },
        );
        if started.is_err() {
            run_dir.keep();
        }
        let ((kubernetes, operator_kubeconfig), aws, pagerduty, slack) = started?;
        Ok(Self {
            kubernetes,
            aws,
            pagerduty,
            slack,
            operator_kubeconfig,
            operators: AtomicUsize::new(0),
            run_dir,
        })
    }

    /// Logs, data and kubeconfig files; gone with the world, unless it fails or `CAMPANILE_WORLD_KEEP` is set.
    pub fn run_dir(&self) -> &Path {
        self.run_dir.path()
    }

    /// The operator's kubeconfig file: exactly the rights that the chart grants.
    pub fn operator_kubeconfig(&self) -> &Path {
        &self.operator_kubeconfig
    }

    /// The whole environment of an operator that runs in this world.
    pub fn operator_environment(&self) -> BTreeMap<String, String> {
        let kubeconfig = self.operator_kubeconfig.display().to_string();
        let home = self.run_dir().join(OPERATOR_HOME).display().to_string();
        [
            ("KUBECONFIG", kubeconfig),
            ("AWS_ENDPOINT_URL", self.aws.endpoint()),
            ("AWS_ACCESS_KEY_ID", OPERATOR_ACCOUNT.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "any".to_owned()),
            ("AWS_REGION", OPERATOR_REGION.to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("PAGERDUTY_EVENTS_URL", self.pagerduty.url()),
            ("SLACK_API_URL", self.slack.api_url()),
            ("HOME", home),
            ("RUST_BACKTRACE", "1".to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }

    /// Starts a campanile binary with [`Self::operator_environment`], to which `environment` adds or in which it replaces. Each has a
    /// log of its own in the run directory.
    pub async fn operator<A>(
        &self,
        binary: &Path,
        args: A,
        environment: &[(&str, &str)],
    ) -> Result<Process>
    where
        A: IntoIterator<Item: AsRef<OsStr>>,
    {
        let number = self.operators.fetch_add(1, Ordering::Relaxed) + 1;
        let mut command = Command::new(std::path::absolute(binary)?);
        command
            .args(args)
            .current_dir(self.run_dir())
            .envs(self.operator_environment())
            .envs(environment.iter().copied());
        Process::spawn(
            format!("operator {number}"),
            &command,
            self.run_dir().join(format!("operator-{number}.log")),
        )
        .await
    }
}

#[cfg(test)]
mod tests;
