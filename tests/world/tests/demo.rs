//! The demo notices when something is broken.

#![allow(
    clippy::unwrap_used,
    reason = "clippy lets only the test functions themselves unwrap"
)]

use std::process::{Command, Output};
use std::time::{Duration, Instant};

const DEMO: &str = env!("CARGO_BIN_EXE_demo");

/// `campanile` is the operator to run; what breaks before it is started needs none.
fn run(campanile: Option<&str>, sabotage: &str) -> Output {
    Command::new(DEMO)
        .args(campanile)
        .env("ONCE", "1")
        .env("CAMPANILE_DEMO_BREAK", sabotage)
        .env(
            "CAMPANILE_DEMO_LIMIT",
            if sabotage == "pager" { "15" } else { "2" },
        )
        .output()
        .unwrap()
}

#[test]
fn a_broken_step_is_told_and_ends_it() {
    let began = Instant::now();
    let output = run(Some(DEMO), "world");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("\n    ✗ the API server is ready"), "{text}");
    assert!(text.contains("was refused"), "what was read last: {text}");
    assert!(!text.contains('✓') && !text.contains('\x1b'), "{text}");
    assert!(began.elapsed() < Duration::from_secs(40));
}

#[test]
fn what_cannot_be_broken_is_told_at_once() {
    let output = run(Some(DEMO), "nonsense");
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("world, operator, trust"), "{text}");
    assert_eq!(output.stdout, b"");
}

/// Everything before it is proven, so this is the demo as a person sees it, up to the pager that hears nothing.
#[test]
fn a_pager_that_hears_nothing_is_told() {
    let beside = std::path::Path::new(DEMO).with_file_name("campanile");
    assert!(
        beside.exists(),
        "{} is missing: cargo build --workspace",
        beside.display()
    );
    let output = run(None, "pager");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("✓ vsu is Alarming, 1/16 firing"), "{text}");
    assert!(text.contains("✗"), "{text}");
}
