use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Process;
use crate::install;

const GRACE: Duration = Duration::from_secs(5);
/// Set in the copy of this test binary that plays the parent and is killed.
const PARENT: &str = "CAMPANILE_WORLD_TEST_PARENT";

/// A shell that leaves a child, and a grandchild that has cut every tie: its own session, its parent gone, deaf to SIGTERM.
const FAMILY: &str = r#"
trap '' TERM
(setsid sh -c 'trap "" TERM; echo $$ >> "$PIDS"; while :; do sleep 1000; done' &)
sleep 1000 & echo $! >> "$PIDS"
echo $$ >> "$PIDS"
wait
"#;

fn directory(name: &str) -> PathBuf {
    let directory = install::directory()
        .join("test")
        .join(format!("{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", script])
        .env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command
}

/// Waits, with a limit, until `what` gives a value.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "waited in vain until {what}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn pids(file: &Path, count: usize) -> BTreeSet<u32> {
    until("every process has told its id", || {
        let text = fs::read_to_string(file).unwrap_or_default();
        let pids: BTreeSet<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        (pids.len() == count).then_some(pids)
    })
}

fn alive(pids: &BTreeSet<u32>) -> Vec<u32> {
    let runs = |pid: &u32| {
        Command::new("/bin/kill")
            .args(["-0", &pid.to_string()])
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    };
    pids.iter().copied().filter(runs).collect()
}

/// The parent that is killed below: this very test, started anew with [`PARENT`] set.
async fn play_the_parent(home: PathBuf) {
    let starting = (0..8).map(|number| {
        let mut command = shell(FAMILY);
        command.env("PIDS", home.join("pids"));
        let log = home.join(format!("family-{number}.log"));
        tokio::spawn(async move { Process::spawn("family", &command, log).await.unwrap() })
    });
    let _families = futures::future::join_all(starting).await;
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_below_dies_with_a_parent_that_was_killed() {
    if let Some(home) = std::env::var_os(PARENT).map(PathBuf::from) {
        return play_the_parent(home).await;
    }
    let home = directory("killed-parent");
    let file = home.join("pids");
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "process::tests::everything_below_dies_with_a_parent_that_was_killed",
            "--nocapture",
        ])
        .env(PARENT, &home)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // Eight families started at once from several threads: a pipe that leaked from one into another would keep that one alive.
    let family = pids(&file, 8 * 3);
    assert_eq!(alive(&family).len(), 8 * 3);

    parent.kill().unwrap();
    parent.wait().unwrap();
    until("nothing is left", || {
        alive(&family).is_empty().then_some(())
    });
    fs::remove_dir_all(home).unwrap();
}

#[tokio::test]
async fn kill_takes_everything_below_along() {
    let home = directory("kill");
    let family = Process::spawn(
        "family",
        shell(FAMILY).env("PIDS", home.join("pids")),
        home.join("log"),
    )
    .await
    .unwrap();
    let below = pids(&home.join("pids"), 3);
    assert!(below.contains(&family.pid()) && family.is_running());

    let status = family.kill().await.unwrap();
    assert_eq!(status.signal(), Some(9));
    assert_eq!(alive(&below), Vec::<u32>::new());
    assert!(!family.is_running());
    fs::remove_dir_all(home).unwrap();
}

#[tokio::test]
async fn dropping_leaves_nothing() {
    let home = directory("drop");
    let family = Process::spawn(
        "family",
        shell(FAMILY).env("PIDS", home.join("pids")),
        home.join("log"),
    )
    .await
    .unwrap();
    let below = pids(&home.join("pids"), 3);
    drop(family);
    assert_eq!(alive(&below), Vec::<u32>::new());
    fs::remove_dir_all(home).unwrap();
}

#[tokio::test]
async fn stop_is_graceful_for_those_who_listen_and_bounded_for_those_who_do_not() {
    let home = directory("stop");
    let polite = "trap 'echo going; exit 7' TERM; echo ready; while :; do sleep 0.01; done";
    let polite = Process::spawn("polite", &shell(polite), home.join("polite.log"))
        .await
        .unwrap();
    until("it listens", || {
        polite.log_tail(1).contains("ready").then_some(())
    });
    assert_eq!(polite.stop(GRACE).await.unwrap().code(), Some(7));
    assert_eq!(polite.log_tail(1), "going");

    let deaf = "trap '' TERM; echo ready; while :; do sleep 0.01; done";
    let deaf = Process::spawn("deaf", &shell(deaf), home.join("deaf.log"))
        .await
        .unwrap();
    until("it listens", || {
        deaf.log_tail(1).contains("ready").then_some(())
    });
    assert_eq!(
        deaf.stop(Duration::from_millis(50)).await.unwrap().signal(),
        Some(9)
    );
    fs::remove_dir_all(home).unwrap();
}

#[tokio::test]
async fn the_environment_is_what_the_command_sets() {
    let home = directory("environment");
    let mut env = Command::new("/usr/bin/env");
    // The names that tests and clouds leak most; the test binary itself always has CARGO_… set.
    env.env("ONLY", "this");
    let process = Process::spawn("env", &env, home.join("log")).await.unwrap();
    assert!(process.wait_exit().await.unwrap().success());
    assert_eq!(process.log_tail(100), "ONLY=this");
    assert!(std::env::var_os("PATH").is_some());

    let files = shell("ls /proc/self/fd 2>/dev/null || ls /dev/fd");
    let process = Process::spawn("files", &files, home.join("files.log"))
        .await
        .unwrap();
    process.wait_exit().await.unwrap();
    // 3 is ls reading the directory.
    assert_eq!(process.log_tail(100), "0\n1\n2\n3");
    fs::remove_dir_all(home).unwrap();
}

#[tokio::test]
async fn what_cannot_run_or_has_ended_says_so() {
    let home = directory("errors");
    let missing = Process::spawn(
        "nothing",
        &Command::new("/nonexistent/program"),
        home.join("log"),
    )
    .await;
    let message = format!("{:#}", missing.unwrap_err());
    assert!(
        message.contains("nothing (/nonexistent/program) cannot be started: ")
            && message.contains("No such file"),
        "{message}"
    );

    let failing = Process::spawn(
        "failing",
        &shell("echo the reason; exit 3"),
        home.join("failing.log"),
    )
    .await
    .unwrap();
    assert_eq!(failing.wait_exit().await.unwrap().code(), Some(3));
    let message = failing.ensure_running().unwrap_err().to_string();
    assert!(
        message.contains("failing ended with exit status: 3") && message.contains("the reason"),
        "{message}"
    );
    // Telling the dead is harmless.
    assert_eq!(failing.kill().await.unwrap().code(), Some(3));
    fs::remove_dir_all(home).unwrap();
}
