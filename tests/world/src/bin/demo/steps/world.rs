//! The test world, and Campanile's kinds in it.

use anyhow::{Result, ensure};
use campanile_world::aws::Trust;

use crate::demo::{CLUSTER, Demo, in_repository};
use crate::sabotage::Sabotage;
use crate::screen::Screen;
use crate::tenant::Tenant;

/// The step's heading, before the world is there to prove anything by.
pub fn announce(screen: &Screen) {
    screen.step(
        "A world to work in",
        "A real Kubernetes API server; AWS, played by an emulator that checks roles and their ExternalIds and evaluates alarms \
         as CloudWatch does; PagerDuty, which confirms what it is subscribed to and records what it is sent; and Slack, as strict as \
         the real one.",
    );
}

/// It serves, it knows Campanile's kinds, and the tenants' accounts trust Campanile.
pub async fn prove(demo: &Demo<'_>) -> Result<()> {
    if demo.breaks(Sabotage::World) {
        demo.world.kubernetes.apiserver().kill().await?;
    }
    demo.until(
        "the API server is ready",
        &["get", "--raw", "/readyz"],
        |text| (text == "ok").then_some(()),
    )
    .await?;
    demo.screen.proven("Kubernetes serves: /readyz says ok");

    for tenant in demo.tenants {
        let external_id = match demo.breaks(Sabotage::Trust) {
            true => "somebody/else".to_owned(),
            false => format!("{CLUSTER}/{}", tenant.namespace),
        };
        demo.world
            .aws
            .role(&tenant.role_arn, Trust::external_id(external_id));
        slack_can_be_called(demo, tenant).await?;
    }
    demo.apps.emit(demo.world).await?;
    let crds = in_repository("crds/")?;
    demo.kubectl(&["apply", "--server-side", "-f", &crds])
        .await?;
    let kinds = ["get", "tobs,aset,slc", "-A"];
    demo.until("the API server serves Campanile's kinds", &kinds, |_| {
        Some(())
    })
    .await?;
    demo.kubectl(&kinds).await?;
    demo.screen
        .proven("it serves Campanile's kinds; there is nothing of them yet");
    Ok(())
}

/// What the spec of a tenant with Slack refers to: the role by which EventBridge calls it, and the queue.
async fn slack_can_be_called(demo: &Demo<'_>, tenant: &Tenant) -> Result<()> {
    let aws = &demo.world.aws;
    if let Some(role) = &tenant.invoke_role_arn {
        let made = aws.events_role(&tenant.account).await?;
        ensure!(made == *role, "the account has {made}, and not {role}");
    }
    if let Some(queue) = &tenant.dead_letter_queue_arn {
        let name = queue.rsplit(':').next().unwrap_or_default();
        let made = aws.dead_letter_queue(&tenant.account, &tenant.region, name);
        let made = made.await?;
        ensure!(made == *queue, "the account has {made}, and not {queue}");
    }
    Ok(())
}
