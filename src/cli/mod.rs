//! The command line.

mod crds;
mod plan;
mod run;

use crate::{
    clients::{
        Clients,
        aws::Observer,
        kubernetes,
        secret::{Digester, Secret},
        slack,
    },
    engine::{
        error::{Class, Error, Result},
        informer::Polling,
        limits::{self, Limiter},
        scope_pool::ScopePools,
    },
    kinds::{installation::Installation, mark::Cluster, systems::systems},
};
use clap::{Args, Parser, Subcommand};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, ResourceExt};
use std::{
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

/// Where the operator's own bot token is.
const SLACK_TOKEN: &str = "SLACK_BOT_TOKEN";

/// Keeps the observability of many tenants, each in its own AWS account, as declared.
#[derive(Parser, Debug)]
#[command(version, about, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the controller.
    #[command(args_override_self = true)]
    Run(run::Run),
    #[command(args_override_self = true)]
    /// Say what would change outside, as a diff; write nothing. Exit code: 0 nothing, 2 changes, 1 an error.
    Plan(plan::Plan),
    /// Print the CustomResourceDefinitions as YAML.
    Crds,
}

impl Cli {
    /// Parses the command line. Errors of usage exit with 1: 2 is what `plan` says for changes.
    pub fn from_command_line() -> Result<Self, ExitCode> {
        Self::try_parse().map_err(|error| {
            let code = if error.use_stderr() {
                ExitCode::from(1)
            } else {
                ExitCode::SUCCESS
            };
            // Where not even the usage can be printed there is nobody to tell.
            drop(error.print());
            code
        })
    }

    /// Does what was asked.
    pub async fn execute(self) -> ExitCode {
        let result = match self.command {
            Command::Run(run) => run.execute().await.map(|()| ExitCode::SUCCESS),
            Command::Plan(plan) => plan.execute().await,
            Command::Crds => crds::yaml()
                .and_then(|yaml| print(&yaml))
                .map(|()| ExitCode::SUCCESS),
        };
        result.unwrap_or_else(|error| {
            eprintln!("campanile: {error}");
            ExitCode::from(1)
        })
    }
}

/// Prints what a command was asked for.
fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    printed.map_err(|error| Error::failing(format!("standard output: {error}")))
}

/// What `run` and `plan` must agree on: names and identities are made of it.
#[derive(Args, Debug)]
struct InstallationArgs {
    /// What this cluster is called in the names of what is made: a DNS label of at most 32 characters.
    /// An installation keeps its name: it does not start under another one.
    #[arg(long, env = "CAMPANILE_CLUSTER_NAME", value_parser = cluster_name)]
    cluster_name: String,

    /// The role that is assumed in a tenant's account where the tenant names none.
    #[arg(long, env = "CAMPANILE_TENANT_ROLE_NAME", default_value = "campanile")]
    tenant_role_name: String,

    /// Requests per second to one API of AWS, per account and Region: `PutMetricAlarm=3` (repeatable).
    /// Left out: the quotas that AWS publishes.
    #[arg(long, env = "CAMPANILE_AWS_RATE", value_delimiter = ',', value_parser = limits::parse_rate)]
    aws_rate: Vec<(String, f64)>,

    /// Whether a namespace may act only in the account that its annotation `campanile.dev/aws-account-id` names.
    #[arg(long, env = "CAMPANILE_REQUIRE_ACCOUNT_BINDING", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    require_account_binding: bool,

    /// Former clusters, `<cluster>/<uid>` as their marks have it, whose things are this one's now (comma separated).
    /// For one Namespace: its annotation `campanile.dev/take-over-from`.
    #[arg(long, env = "CAMPANILE_TAKE_OVER_FROM", default_value = "")]
    take_over_from: String,

    /// The namespace of the operator itself, for its Lease and its digest key.
    #[arg(long, env = "CAMPANILE_NAMESPACE", default_value = "campanile-system")]
    operator_namespace: String,

    /// Where PagerDuty takes events.
    #[arg(long, env = "PAGERDUTY_EVENTS_URL", default_value = "https://events.pagerduty.com", value_parser = base_url)]
    pagerduty_events_url: String,

    /// Where Slack's Web API is.
    #[arg(long, env = "SLACK_API_URL", default_value = "https://slack.com/api", value_parser = base_url)]
    slack_api_url: String,

    /// Let webhook URLs of Secrets lead anywhere, to private addresses and without TLS too. For tests.
    #[arg(long, env = "CAMPANILE_ALLOW_PRIVATE_ENDPOINTS", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    allow_private_endpoints: bool,

    /// After how long a deletion lets go of what it cannot reach any more: its role is gone, its token revoked.
    #[arg(long, env = "CAMPANILE_RELEASE_AFTER", default_value = "24h", value_parser = duration)]
    release_after: Duration,
}

impl InstallationArgs {
    /// The operator's own bot token. From the environment alone: a command line is for everybody to read.
    fn slack_token(&self) -> Result<Option<Secret>> {
        let Ok(text) = std::env::var(SLACK_TOKEN) else {
            return Ok(None);
        };
        if text.trim().is_empty() {
            return Ok(None);
        }
        let read = slack::bot_token(&text);
        read.map(Some)
            .map_err(|wrong| Error::invalid(format!("{SLACK_TOKEN}: {wrong}")))
    }

    /// Clients, and what is watched by them. `observer` is told of every request to the outside.
    async fn open(
        &self,
        installation: &Installation,
        polling: &Polling,
        observer: Observer,
    ) -> Result<(Clients, ScopePools)> {
        let limiter = Arc::new(Limiter::new(&self.aws_rate.iter().cloned().collect()));
        let (cluster, slack) = (&installation.cluster.name, &installation.slack_api_url);
        let clients = Clients::from_environment(cluster, slack, limiter, observer).await?;
        let systems = systems(&clients, installation, polling);
        Ok((clients, systems))
    }

    async fn installation(&self, client: &Client, digester: Digester) -> Result<Installation> {
        let system = Api::<Namespace>::all(client.clone());
        let system =
            kubernetes::call("reading Namespace kube-system", system.get("kube-system")).await?;
        let uid: String = system.uid().unwrap_or_default().chars().take(8).collect();
        if uid.len() != 8 {
            return Err(Error::new(
                Class::Unavailable,
                "Namespace kube-system has no UID: this is not a Kubernetes API",
            ));
        }
        let cluster = Cluster {
            name: self.cluster_name.clone(),
            uid,
        };
        let formers = cluster.formers(&self.take_over_from);
        let formers =
            formers.map_err(|error| Error::invalid(format!("--take-over-from: {error}")))?;
        Ok(Installation {
            cluster,
            formers,
            tenant_role_name: self.tenant_role_name.clone(),
            pagerduty_events_url: self.pagerduty_events_url.clone(),
            slack_api_url: self.slack_api_url.clone(),
            slack_token: self.slack_token()?,
            digester,
            require_account_binding: self.require_account_binding,
            allow_private_endpoints: self.allow_private_endpoints,
            release_after: self.release_after,
        })
    }
}

fn cluster_name(text: &str) -> std::result::Result<String, String> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let fits = (1..=32).contains(&text.len())
        && text.bytes().all(|b| inner(b) || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if fits {
        Ok(text.to_owned())
    } else {
        Err("use a DNS label (a-z, 0-9, -) of at most 32 characters".into())
    }
}

fn base_url(text: &str) -> std::result::Result<String, String> {
    if text.starts_with("https://") || text.starts_with("http://") {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err("use a URL: https://…".into())
    }
}

/// A duration as people write it: `60s`, `10m`, `24h`, `500ms`.
fn duration(text: &str) -> std::result::Result<Duration, String> {
    let read = text.parse::<SignedDuration>().ok();
    let read = read.and_then(|read| Duration::try_from(read).ok());
    let read = read.filter(|read| !read.is_zero());
    read.ok_or_else(|| "use a number over zero and a unit: 500ms, 60s, 10m, 24h".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_and_names_are_checked() {
        let seconds = |text| duration(text).map(|d| d.as_millis());
        assert_eq!(
            [
                seconds("500ms"),
                seconds("60s"),
                seconds("10m"),
                seconds("24h")
            ],
            [500, 60_000, 600_000, 86_400_000].map(Ok)
        );
        for text in ["", "60", "s", "0s", "-1s", "1d", "99999999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
        for (text, fits) in [
            ("eu", true),
            ("eu-1", true),
            ("", false),
            ("-eu", false),
            ("Eu", false),
            ("a/b", false),
        ] {
            assert_eq!(cluster_name(text).is_ok(), fits, "{text}");
        }
        assert!(cluster_name(&"x".repeat(33)).is_err());
    }
}
