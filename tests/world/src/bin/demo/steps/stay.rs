//! The world stays up for whoever wants to play.

use anyhow::{Context, Result};

use crate::demo::{CLUSTER, Demo, LOOPBACK};
use crate::proof::Unproven;

/// Tells how to reach everything, and ends only if the operator does.
pub async fn up(demo: &Demo<'_>) -> Result<()> {
    let (screen, world, tenant) = (demo.screen, demo.world, demo.tenant());
    let operator = demo.operator().context("no operator was started")?;
    let environment = world.operator_environment();
    let environment = environment
        .into_iter()
        .chain([(LOOPBACK.0.to_owned(), LOOPBACK.1.to_owned())])
        .map(|(name, value)| format!("{name}={value}"));
    let binary = std::path::absolute(&demo.options.binary)?;
    screen.line("");
    screen.title("It stays up until Ctrl-C. In another terminal:");
    for line in [
        "",
        "# Kubernetes, as admin",
        &format!(
            "export KUBECONFIG={}",
            world.kubernetes.kubeconfig().display()
        ),
        &format!(
            "alias kubectl={}",
            world.kubernetes.kubectl_path().display()
        ),
        "kubectl get campanile -A",
        &format!("kubectl edit aset golden-signals -n {}", tenant.namespace),
        "",
        "# AWS: an access key that is twelve digits is that account's",
        &format!(
            "export AWS_ENDPOINT_URL={} AWS_REGION={}",
            world.aws.endpoint(),
            tenant.region
        ),
        &format!(
            "export AWS_ACCESS_KEY_ID={} AWS_SECRET_ACCESS_KEY=any",
            tenant.account
        ),
        &format!(
            "aws cloudwatch describe-alarms --alarm-name-prefix {}",
            tenant.alarm_prefix(CLUSTER)
        ),
        "",
        "# PagerDuty: what it was sent",
        &format!("curl {}/record", world.pagerduty.url()),
        "",
        "# Slack: its channels, and what was posted there",
        &format!("curl {}/record", world.slack.url()),
        "",
        "# What Campanile would do, asked with its own rights",
        &format!(
            "env -i {} \\\n      {} plan --cluster-name {CLUSTER} -A",
            environment.collect::<Vec<_>>().join(" \\\n      "),
            binary.display()
        ),
        "",
        &format!("# Campanile's log: {}", operator.log_path().display()),
    ] {
        screen.line(format!("    {line}").trim_end());
    }
    let status = operator.wait_exit().await?;
    Err(Unproven::error("Campanile stays up", status.to_string()))
}
