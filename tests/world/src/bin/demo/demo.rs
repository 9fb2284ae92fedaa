//! What all steps share: the world, who plays in it, and how it is spoken to.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use campanile_world::kubernetes::Output;
use campanile_world::process::Process;
use campanile_world::{World, install};

use crate::app::Apps;
use crate::options::Options;
use crate::proof::{self, Look, Unproven};
use crate::sabotage::Sabotage;
use crate::screen::Screen;
use crate::slack::Team;
use crate::table::{self, Row};
use crate::tenant::Tenant;

/// What the cluster is called in the names of what is made.
pub const CLUSTER: &str = "demo";
/// How often Campanile looks at AWS here; a minute is usual.
const POLL_INTERVAL: &str = "1s";
/// The stand-ins are on loopback and speak no TLS: of no other endpoint would Campanile take a webhook.
pub const LOOPBACK: (&str, &str) = ("CAMPANILE_ALLOW_PRIVATE_ENDPOINTS", "true");
/// How long what is to end by itself may take to do so.
const GRACE: Duration = Duration::from_secs(20);

/// The demo as it goes.
pub struct Demo<'a> {
    pub options: &'a Options,
    pub screen: &'a Screen,
    pub world: &'a World,
    pub apps: &'a Apps,
    pub tenants: &'a [Tenant],
    pub slack: Team,
    operator: Option<Process>,
}

impl<'a> Demo<'a> {
    pub fn new(
        options: &'a Options,
        screen: &'a Screen,
        world: &'a World,
        apps: &'a Apps,
        tenants: &'a [Tenant],
    ) -> Self {
        Self {
            options,
            screen,
            world,
            apps,
            tenants,
            slack: Team::of(world, apps.campuscore()),
            operator: None,
        }
    }

    /// Whether this is what is to go wrong.
    pub fn breaks(&self, sabotage: Sabotage) -> bool {
        self.options.sabotage == Some(sabotage)
    }

    /// The tenant that the demo follows.
    pub fn tenant(&self) -> &'a Tenant {
        self.apps.campuscore()
    }

    /// Types a kubectl command and shows what it says.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.screen.command(&typed("kubectl", args));
        let output = self.kubectl_quietly(args).await?;
        self.screen
            .output(&format!("{}{}", output.stdout, output.stderr));
        match output.code {
            Some(0) => Ok(output.stdout),
            _ => Err(Unproven::error(
                format!("`{}` succeeds", typed("kubectl", args)),
                format!("{}{}", output.stdout, output.stderr),
            )),
        }
    }

    /// Runs a kubectl command and shows nothing.
    pub async fn kubectl_quietly(&self, args: &[&str]) -> Result<Output> {
        let line = typed("kubectl", args);
        // Some commands wait by themselves, until a limit that they are given.
        let limit = self.options.limit.max(GRACE) * 2;
        tokio::select! {
            answer = self.world.kubernetes.kubectl(args) => answer,
            never = self.screen.tick(&line) => match never {},
            () = tokio::time::sleep(limit) => Err(Unproven::error(format!("`{line}` ends"), "it is still running")),
        }
    }

    /// What kubectl says at once, for questions that have an answer.
    pub async fn ask(&self, args: &[&str]) -> Result<String> {
        let output = self.kubectl_quietly(args).await?;
        output.success().map(|text| text.trim().to_owned())
    }

    /// Asks kubectl until `seen` finds in its answer what it looks for.
    pub async fn until<T>(
        &self,
        expected: &str,
        args: &[&str],
        seen: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        proof::until(self.screen, self.options.limit, expected, async || {
            let output = self.kubectl_quietly(args).await?;
            let read = format!(
                "$ {}\n{}{}",
                typed("kubectl", args),
                output.stdout,
                output.stderr
            );
            Ok(
                match seen(&output.stdout).filter(|_| output.code == Some(0)) {
                    Some(seen) => Look::Seen(seen),
                    None => Look::NotYet(read),
                },
            )
        })
        .await
    }

    /// The same for a table: shows it as it was when `seen` was content with its rows.
    pub async fn until_table(
        &self,
        expected: &str,
        args: &[&str],
        seen: impl Fn(&[Row]) -> bool,
    ) -> Result<Vec<Row>> {
        let text = self
            .until(expected, args, |text| {
                seen(&table::rows(text)).then(|| text.to_owned())
            })
            .await?;
        self.screen.command(&typed("kubectl", args));
        self.screen.output(&text);
        Ok(table::rows(&text))
    }

    /// Starts the operator.
    pub async fn start_operator(&mut self) -> Result<&Process> {
        let args = [
            "run",
            "--cluster-name",
            CLUSTER,
            "--poll-interval",
            POLL_INTERVAL,
        ];
        self.screen.command(&typed("campanile", &args));
        let unseen = ["--metrics-addr", "127.0.0.1:0", "--log-format", "text"];
        let operator = self
            .world
            .operator(
                &self.options.binary,
                args.iter().chain(&unseen),
                &[LOOPBACK],
            )
            .await?;
        self.screen
            .output(&format!("its log: {}", operator.log_path().display()));
        Ok(self.operator.insert(operator))
    }

    /// The operator, as it was started last.
    pub fn operator(&self) -> Option<&Process> {
        self.operator.as_ref()
    }

    /// Asks the operator to end, as Kubernetes does, and tells its exit code.
    pub async fn stop_operator(&self) -> Result<Option<i32>> {
        let operator = self.operator().context("no operator was started")?;
        Ok(operator.stop(GRACE).await?.code())
    }

    /// Runs `campanile plan` for the tenant's namespace, as the operator, and shows what it prints.
    pub async fn plan(&self) -> Result<Plan> {
        let args = [
            "plan",
            "--cluster-name",
            CLUSTER,
            "-n",
            &self.tenant().namespace,
        ];
        self.screen.command(&typed("campanile", &args));
        let running = tokio::process::Command::new(std::path::absolute(&self.options.binary)?)
            .args(args)
            .env_clear()
            .envs(self.world.operator_environment())
            .envs([LOOPBACK])
            .current_dir(self.world.run_dir())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let Ok(output) = tokio::time::timeout(self.options.limit, running).await else {
            return Err(Unproven::error(
                "`campanile plan` ends",
                "it is still running",
            ));
        };
        let output = output.context("`campanile plan` cannot be run")?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        self.screen.output(&format!("{stdout}{stderr}"));
        Ok(Plan {
            code: output.status.code(),
            stdout,
            stderr,
        })
    }

    /// The alarms whose names begin with `prefix`, by AWS's own account.
    pub async fn alarms_in_aws(&self, tenant: &Tenant, prefix: &str) -> Result<Vec<String>> {
        let described = self
            .world
            .aws
            .cloudwatch(&tenant.account, &tenant.region)
            .describe_alarms()
            .alarm_name_prefix(prefix)
            .into_paginator()
            .send()
            .try_collect()
            .await
            .with_context(|| format!("account {} does not describe its alarms", tenant.account))?;
        let metric = described.iter().flat_map(|page| page.metric_alarms());
        let composite = described.iter().flat_map(|page| page.composite_alarms());
        Ok(metric
            .filter_map(|alarm| alarm.alarm_name())
            .chain(composite.filter_map(|alarm| alarm.alarm_name()))
            .map(str::to_owned)
            .collect())
    }

    /// The rules, connections and API destinations of the tenant's account, by AWS's own account.
    pub async fn events_in_aws(&self, tenant: &Tenant) -> Result<Vec<String>> {
        let events = self.world.aws.eventbridge(&tenant.account, &tenant.region);
        let lists = tokio::try_join!(
            async { anyhow::Ok(events.list_rules().send().await?) },
            async { anyhow::Ok(events.list_connections().send().await?) },
            async { anyhow::Ok(events.list_api_destinations().send().await?) },
        );
        let (rules, connections, destinations) =
            lists.with_context(|| format!("account {} does not list its rules", tenant.account))?;
        let rules = rules.rules().iter().filter_map(|it| it.name());
        let connections = connections.connections().iter();
        let connections = connections.filter_map(|it| it.name());
        let destinations = destinations.api_destinations().iter();
        let destinations = destinations.filter_map(|it| it.name());
        Ok(rules
            .chain(connections)
            .chain(destinations)
            .map(str::to_owned)
            .collect())
    }

    /// The ARNs of the topics of the tenant's account, by AWS's own account.
    pub async fn topics_in_aws(&self, tenant: &Tenant) -> Result<Vec<String>> {
        let listed = self
            .world
            .aws
            .sns(&tenant.account, &tenant.region)
            .list_topics()
            .into_paginator()
            .send()
            .try_collect()
            .await
            .with_context(|| format!("account {} does not list its topics", tenant.account))?;
        let topics = listed.iter().flat_map(|page| page.topics());
        Ok(topics
            .filter_map(|topic| topic.topic_arn())
            .map(str::to_owned)
            .collect())
    }
}

/// What `campanile plan` printed and how it ended.
pub struct Plan {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A command line as a person types it in the repository.
pub fn typed(program: &str, args: &[&str]) -> String {
    let plain = |word: &str| {
        word.chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_./,:=@".contains(c))
    };
    let here = format!("{}/", install::workspace().display());
    let words = args.iter().map(|word| match word.replace(&here, "") {
        word if plain(&word) => word,
        word => format!("'{word}'"),
    });
    std::iter::once(program.to_owned())
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

/// A file or folder of the repository.
pub fn in_repository(path: &str) -> Result<String> {
    let path = install::workspace().join(Path::new(path));
    let text = path
        .to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(text.to_owned())
}
