//! The demo notices when something is broken.

#![allow(
    clippy::unwrap_used,
    reason = "clippy lets only the test functions themselves unwrap"
)]

use std::process::{Command, Output};
use std::time::{Duration, Instant};

const DEMO: &str = env!("CARGO_BIN_EXE_demo");

/// What this breaks is broken before the operator is started, so any program will do for one.
fn run(sabotage: &str) -> Output {
    Command::new(DEMO)
        .arg(DEMO)
        .env("ONCE", "1")
        .env("CAMPANILE_DEMO_BREAK", sabotage)
        .env("CAMPANILE_DEMO_LIMIT", "2")
        .output()
        .unwrap()
}

#[test]
fn a_broken_step_is_told_and_ends_it() {
    let began = Instant::now();
    let output = run("world");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("\n    ✗ the API server is ready"), "{text}");
    assert!(text.contains("was refused"), "what was read last: {text}");
    assert!(!text.contains('✓') && !text.contains('\x1b'), "{text}");
    assert!(began.elapsed() < Duration::from_secs(40));
}

#[test]
fn what_cannot_be_broken_is_told_at_once() {
    let output = run("nonsense");
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("world, operator, trust"), "{text}");
    assert_eq!(output.stdout, b"");
}
