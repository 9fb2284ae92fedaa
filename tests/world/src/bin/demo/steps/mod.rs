//! The story, a step after the other.

mod again;
mod binding;
mod deletion;
mod drift;
mod examples;
mod incident;
mod mail;
mod operator;
mod plan;
mod slack;
mod stay;
pub mod world;

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::demo::Demo;
use crate::proof::Unproven;

/// No step waits for more things than this, each until the demo's own limit.
const WAITS: u32 = 5;
/// What is waited for below that limit in any case.
const AT_LEAST: Duration = Duration::from_secs(30);

/// All steps. Without ONCE the world then stays up, and this does not return.
pub async fn all(demo: &mut Demo<'_>, began: Instant, staying: &Cell<bool>) -> Result<()> {
    let limit = demo.options.limit.max(AT_LEAST) * WAITS;
    ends(limit, world::prove(demo)).await?;
    ends(limit, operator::start(demo)).await?;
    let watch = ends(limit, examples::apply(demo)).await?;
    ends(limit, slack::channels(demo)).await?;
    ends(limit, examples::confirmed(demo, watch)).await?;
    ends(limit, binding::refused(demo)).await?;
    ends(limit, incident::fires(demo)).await?;
    ends(limit, incident::pages(demo)).await?;
    ends(limit, incident::is_read(demo)).await?;
    ends(limit, incident::ends(demo)).await?;
    ends(limit, drift::repaired(demo)).await?;
    ends(limit, plan::empty(demo)).await?;
    ends(limit, plan::of_an_edit(demo)).await?;
    ends(limit, plan::applied(demo)).await?;
    ends(limit, deletion::leaves_nothing(demo)).await?;
    ends(limit, again::apply(demo)).await?;
    let seconds = began.elapsed().as_secs_f64();
    demo.screen.line("");
    demo.screen
        .title(&format!("Every step was proven, in {seconds:.0} s."));
    if demo.options.once {
        return Ok(());
    }
    staying.set(true);
    stay::up(demo).await
}

/// For what nothing inside a step bounds, such as an AWS that does not answer.
async fn ends<T>(limit: Duration, step: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(limit, step).await {
        Ok(told) => told,
        Err(_) => Err(Unproven::error(
            format!("the step is over within {} s", limit.as_secs()),
            "it is still going on",
        )),
    }
}
