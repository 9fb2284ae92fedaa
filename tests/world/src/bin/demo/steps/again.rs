//! The tenant comes back.

use anyhow::Result;

use super::{examples, mail, slack};
use crate::demo::{Demo, in_repository};
use crate::proof;
use crate::sabotage::Sabotage;

/// Applies the examples once more.
pub async fn apply(demo: &Demo<'_>) -> Result<()> {
    demo.screen.step(
        "And it comes back",
        "Nothing was left, so nothing is in the way: the same files make the same tenant again, under the same names. \
         The topics are new ones, so who hears by mail is invited anew. The channels are still there, and are adopted.",
    );
    let channels = slack::both(demo)?;
    if demo.breaks(Sabotage::Return) {
        demo.world.pagerduty.confirm_subscriptions(false);
    }
    let examples = in_repository("examples/")?;
    demo.kubectl(&["apply", "--server-side", "-f", &examples])
        .await?;
    slack::opened(demo).await?;
    let adopted = slack::both(demo)?;
    let count = demo.slack.workspace().channels().len();
    proof::ensure(
        adopted == channels && count == channels.len() + 1,
        "the channels are the same ones",
        format!("{count} channels, before {channels:?}\nafter {adopted:?}"),
    )?;
    demo.screen
        .proven("the channels are the same ones, with what was said in them");
    mail::confirmed(demo).await?;
    examples::healthy(demo).await
}
