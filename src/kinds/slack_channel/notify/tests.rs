//! What is told of a run, shown by what people then see in a Slack that refuses, loses answers and cannot be edited,
//! told by processes that may die at any call.

mod decisions;
mod lives;
mod memory;
mod pace;
mod refusals;

use super::*;
use futures::FutureExt;
use memory::{Memory, Mood, World};

const ALL: [Phase; 3] = [Phase::Started, Phase::Completed, Phase::Failed];
const START: &str = "▶️ Started · Rebuild of idx";
const END: &str = "✅ Completed · Rebuild of idx";

fn run(phase: Phase, progress: &str, details: &[&str]) -> Run {
    Run {
        title: "Rebuild of idx".into(),
        object: "IndexMaintenancePolicy vsu/knowledge-base".into(),
        phase,
        progress: progress.into(),
        facts: Vec::new(),
        details: details.iter().map(|detail| (*detail).into()).collect(),
    }
}

/// A run that has just begun.
fn started() -> Run {
    run(Phase::Started, "", &[])
}

/// What people see: of each message what it says now, answers indented.
fn seen(memory: &Memory) -> Vec<String> {
    let messages = memory.messages();
    let said = messages.iter().map(|message| {
        let indent = message.thread_ts.as_ref().map_or("", |_| "  ");
        format!("{indent}{}", message.texts.last().unwrap())
    });
    said.collect()
}

/// One telling by a process, which may die in it: `None`.
async fn tell(
    memory: &Memory,
    notifier: &mut Notifier,
    run: &Run,
) -> Option<Result<Option<Duration>>> {
    notifier.tell(&memory.sender, run, memory).now_or_never()
}

/// A telling after which there is nothing left to say.
async fn tell_all(memory: &Memory, notifier: &mut Notifier, run: &Run) {
    assert_eq!(tell(memory, notifier, run).await, Some(Ok(None)));
}

/// A telling that fails.
async fn tell_in_vain(memory: &Memory, notifier: &mut Notifier, run: &Run) -> Error {
    tell(memory, notifier, run).await.unwrap().unwrap_err()
}
