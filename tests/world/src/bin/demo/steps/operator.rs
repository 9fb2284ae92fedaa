//! Campanile itself.

use anyhow::Result;

use crate::demo::Demo;
use crate::proof::{self, Look, Unproven};
use crate::sabotage::Sabotage;

const NAMESPACE: &str = "campanile-system";

/// Starts it and waits until it holds its Lease.
pub async fn start(demo: &mut Demo<'_>) -> Result<()> {
    demo.screen.step(
        "Campanile starts",
        "It has the rights that the Helm chart grants and no others, and an AWS identity that may assume the tenants' roles. \
         Of several replicas one works: the one that holds the Lease.",
    );
    if demo.breaks(Sabotage::Operator) {
        demo.ask(&["delete", "rolebinding", "campanile", "-n", NAMESPACE])
            .await?;
    }
    demo.start_operator().await?;
    let holder = holds_lease(demo).await?;
    demo.kubectl(&["get", "lease", "-n", NAMESPACE]).await?;
    demo.screen.proven(format!("the Lease is held by {holder}"));
    Ok(())
}

/// Waits until the operator that was started last holds the Lease; who that is, as the Lease says.
pub async fn holds_lease(demo: &Demo<'_>) -> Result<String> {
    let expected = "Campanile holds its Lease";
    let holder = [
        "get",
        "lease",
        "campanile",
        "-n",
        NAMESPACE,
        "-o",
        "jsonpath={.spec.holderIdentity}",
    ];
    proof::until(demo.screen, demo.options.limit, expected, async || {
        if let Some(Err(ended)) = demo.operator().map(|operator| operator.ensure_running()) {
            return Err(Unproven::error(expected, format!("{ended:#}")));
        }
        let output = demo.kubectl_quietly(&holder).await?;
        Ok(match output.stdout.trim() {
            "" => Look::NotYet(format!("no holder\n{}", output.stderr)),
            name => Look::Seen(name.to_owned()),
        })
    })
    .await
}
