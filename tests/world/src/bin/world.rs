//! Starts a test world for people, tells how to reach it, and keeps it up until Ctrl-C.

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use campanile_world::aws::Trust;
use campanile_world::slack::ALL_SCOPES;
use campanile_world::{OPERATOR_REGION, Options, World, install, port};

#[tokio::main]
async fn main() -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = keep_up() => ended,
        // By now the world has ended. To return would wait for an installation that may still be running on another thread.
        _ = interrupt.recv() => std::process::exit(0),
        _ = terminate.recv() => std::process::exit(0),
    }
}

/// What the workspace is called in which `make world` plays.
const WORKSPACE: &str = "campus";

/// The account of the examples, and the role in it that the operator assumes unless a tenant names another.
const TENANT_ACCOUNT: &str = "222233334444";

fn tenant_role() -> String {
    format!("arn:aws:iam::{TENANT_ACCOUNT}:role/campanile")
}

async fn keep_up() -> Result<()> {
    let began = std::time::Instant::now();
    let world = World::start(Options::default()).await?;
    let crds = install::workspace().join("crds");
    if crds.is_dir() {
        world
            .kubernetes
            .install_crds(&crds)
            .await
            .context("the CRDs cannot be installed")?;
    }
    world.aws.role(&tenant_role(), Trust::default());
    // What the examples name: by what EventBridge calls Slack, where it leaves what it cannot deliver, and
    // whom a channel invites.
    world.aws.events_role(TENANT_ACCOUNT).await?;
    world
        .aws
        .dead_letter_queue(TENANT_ACCOUNT, OPERATOR_REGION, "campanile-dlq")
        .await?;
    world
        .slack
        .workspace(WORKSPACE)
        .add_user("oncall@vsu.example");
    print(&world)?;
    eprintln!(
        "world: up after {:.1} s; Ctrl-C ends it",
        began.elapsed().as_secs_f64()
    );
    std::future::pending().await
}

fn print(world: &World) -> Result<()> {
    let kubectl = world.kubernetes.kubectl_path();
    println!("# Kubernetes, as admin");
    println!(
        "export KUBECONFIG={}",
        world.kubernetes.kubeconfig().display()
    );
    println!("alias kubectl={}", kubectl.display());
    println!();
    println!(
        "# AWS: any 12 digits are an account, given as the access key; the operator can assume {}",
        tenant_role()
    );
    println!(
        "export AWS_ENDPOINT_URL={} AWS_REGION={OPERATOR_REGION} AWS_DEFAULT_REGION={OPERATOR_REGION} AWS_ACCESS_KEY_ID={TENANT_ACCOUNT} AWS_SECRET_ACCESS_KEY=any",
        world.aws.endpoint()
    );
    println!("aws cloudwatch describe-alarms");
    println!();
    println!("# PagerDuty: what it was sent");
    println!("curl {}/record", world.pagerduty.url());
    println!();
    let campus = world.slack.workspace(WORKSPACE);
    let channel = campus.create_channel("alarms");
    println!("# Slack: a bot's token, a webhook to #alarms, and what was posted");
    println!("export SLACK_API_URL={}", world.slack.api_url());
    println!("export SLACK_BOT_TOKEN={}", campus.bot(&ALL_SCOPES));
    println!("export SLACK_WEBHOOK_URL={}", campus.webhook(&channel));
    println!("curl {}/record", world.slack.url());
    println!();
    println!(
        "# The operator, with the rights that the chart grants and nothing else of this shell"
    );
    let environment: Vec<String> = world
        .operator_environment()
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    println!(
        "env -i {} \\\n  target/debug/campanile run --cluster-name world --allow-private-endpoints --metrics-addr 127.0.0.1:{}",
        environment.join(" \\\n  "),
        port::free()?
    );
    println!();
    println!("# Logs: {}", world.run_dir().display());
    Ok(())
}
