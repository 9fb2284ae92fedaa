//! The tenant comes back.

use anyhow::Result;

use super::{examples, mail};
use crate::demo::{Demo, in_repository};
use crate::sabotage::Sabotage;

/// Applies the examples once more.
pub async fn apply(demo: &Demo<'_>) -> Result<()> {
    demo.screen.step(
        "And it comes back",
        "Nothing was left, so nothing is in the way: the same files make the same tenant again, under the same names. \
         The topics are new ones, so the readers are invited anew.",
    );
    if demo.breaks(Sabotage::Return) {
        demo.world.pagerduty.confirm_subscriptions(false);
    }
    let examples = in_repository("examples/")?;
    demo.kubectl(&["apply", "--server-side", "-f", &examples])
        .await?;
    mail::confirmed(demo).await?;
    examples::healthy(demo).await
}
