//! What Campanile does, shown step by step against the test world: what is done, what is read, and what that proves. Everything is
//! read through kubectl, from AWS, from the pager's record or from Slack, never from the operator's log.

mod app;
mod demo;
mod options;
mod proof;
mod sabotage;
mod screen;
mod slack;
mod steps;
mod table;
mod tenant;
mod watch;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use campanile_world::{Options as WorldOptions, World, install};
use tokio::signal::unix::{SignalKind, signal};

use app::Apps;
use demo::Demo;
use options::Options;
use proof::Unproven;
use screen::Screen;
use tenant::Tenant;

/// How many lines of the operator's log a failure quotes.
const LOG_LINES: usize = 12;
/// What the operator's log says of a look at what is as it should be, and of a write that went well.
const ROUTINE: [&str; 2] = ["reconciled outcome=\"ok\"", "outcome=\"ok\" trace_id="];
/// What a shell says of a program that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

#[tokio::main]
async fn main() {
    let argument = std::env::args().nth(1);
    if matches!(argument.as_deref(), Some("-h" | "--help")) {
        println!("{}", options::usage());
        return;
    }
    let code = match Options::read(argument, |name| std::env::var(name).ok()) {
        Ok(options) => run(&options).await,
        Err(error) => {
            eprintln!("demo: {error:#}");
            1
        }
    };
    // By now the world has ended. To return would wait for an installation that may still be running on another thread.
    std::process::exit(code);
}

async fn run(options: &Options) -> i32 {
    let screen = Screen::new();
    let staying = Cell::new(false);
    tokio::select! {
        shown = show(options, &screen, &staying) => shown.unwrap_or_else(|error| {
            screen.failed("the demo can begin", &format!("{error:#}"));
            1
        }),
        () = interrupted(&screen) => {
            if staying.get() { 0 } else { INTERRUPTED }
        }
    }
}

async fn interrupted(screen: &Screen) {
    let streams = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    );
    let (Ok(mut interrupt), Ok(mut terminate)) = streams else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    screen.line("");
    screen.say("The world ends.");
}

/// Tells the whole story; the exit code. `staying` becomes true once it is told and the world stays up.
async fn show(options: &Options, screen: &Screen, staying: &Cell<bool>) -> Result<i32> {
    let tenants = Tenant::all(&install::workspace().join("examples"))?;
    let apps = Apps::of(&tenants)?;
    screen.title("Campanile, step by step");
    screen.say("Everything runs on this machine, on loopback, and is gone when this program ends.");
    let began = Instant::now();
    steps::world::announce(screen);
    let world = World::start(WorldOptions::default()).await?;
    let mut demo = Demo::new(options, screen, &world, &apps, &tenants);
    let told = tokio::select! {
        told = steps::all(&mut demo, began, staying) => told,
        error = apps.live(&world) => Err(error),
    };
    let Err(error) = told else { return Ok(0) };
    explain(&demo, &error);
    Ok(1)
}

/// What was expected, what was read, and the end of the operator's log, which is kept.
fn explain(demo: &Demo<'_>, error: &anyhow::Error) {
    let screen = demo.screen;
    match error.downcast_ref::<Unproven>() {
        Some(Unproven { expected, read }) => screen.failed(expected, read),
        None => screen.failed("the demo can go on", &format!("{error:#}")),
    }
    let Some(operator) = demo.operator() else {
        return;
    };
    let log = operator.log_tail(LOG_LINES * 20);
    let routine = |line: &&str| ROUTINE.iter().any(|words| line.contains(words));
    let telling: Vec<_> = log.lines().filter(|line| !routine(line)).collect();
    let telling = &telling[telling.len().saturating_sub(LOG_LINES)..];
    screen.tail(
        "the end of the operator's log, without its routine:",
        &telling.join("\n"),
    );
    match keep(operator.log_path()) {
        Ok(path) => screen.tail("all of it is kept:", &path.display().to_string()),
        Err(error) => screen.tail("it cannot be kept:", &format!("{error:#}")),
    }
}

/// The world's directory goes with the world.
fn keep(log: &Path) -> Result<PathBuf> {
    let path = install::directory().join("demo-operator.log");
    std::fs::copy(log, &path).with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(path)
}
