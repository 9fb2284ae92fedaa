//! Programs that end with the process that started them, however that ended, and take their own children along.
//!
//! Each program runs below a small supervisor (`supervise.py`) that holds one end of a pipe; the kernel closes the other end when
//! we die, even by SIGKILL. Nothing of our own environment reaches a program: what it gets is what its [`Command`] sets.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tokio::sync::{oneshot, watch};

use crate::install;

/// How many lines of a log an error message quotes.
const QUOTED_LINES: usize = 20;

/// A program under supervision. Dropping it kills it and waits until nothing below it is left.
pub struct Process {
    name: String,
    log: PathBuf,
    pid: u32,
    commands: Mutex<Option<ChildStdin>>,
    end: watch::Receiver<Option<ExitStatus>>,
    follower: Option<JoinHandle<()>>,
}

#[derive(Serialize)]
struct Program<'a> {
    argv: Vec<&'a str>,
    env: BTreeMap<&'a str, &'a str>,
    cwd: Option<&'a str>,
}

impl Process {
    /// Starts `command` and returns once it has been executed. Only its program, arguments, directory and the variables that it
    /// sets itself are taken over: the environment starts empty, stdin is `/dev/null`, stdout and stderr are appended to `log`.
    /// `name` is what messages call it. The program's name should be an absolute path, or its `PATH` be among the variables.
    pub async fn spawn(
        name: impl Into<String>,
        command: &Command,
        log: impl Into<PathBuf>,
    ) -> Result<Self> {
        let (name, log) = (name.into(), log.into());
        let program = describe(command).with_context(|| format!("{name} cannot be started"))?;
        let output = File::options().create(true).append(true).open(&log);
        let output = output
            .with_context(|| format!("the log {} of {name} cannot be written", log.display()))?;
        let mut supervisor = install::supervisor()?
            .command(&name)
            .env_clear()
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(output)
            .spawn()
            .with_context(|| format!("the supervisor of {name} cannot be started"))?;
        let (Some(mut commands), Some(reports)) =
            (supervisor.stdin.take(), supervisor.stdout.take())
        else {
            bail!("the supervisor of {name} has no pipes");
        };

        let (say_started, started) = oneshot::channel();
        let (say_ended, end) = watch::channel(None);
        // A thread, not a task: a world outlives the async runtime of any one test.
        let follower = std::thread::Builder::new()
            .name(format!("supervisor of {name}"))
            .spawn(move || follow(supervisor, BufReader::new(reports), say_started, &say_ended))
            .context("no thread to follow a process")?;
        commands
            .write_all(program.as_bytes())
            .with_context(|| format!("the supervisor of {name} does not listen"))?;
        match started.await {
            Ok(Ok(pid)) => Ok(Self {
                name,
                log,
                pid,
                commands: Mutex::new(Some(commands)),
                end,
                follower: Some(follower),
            }),
            Ok(Err(why)) => bail!(
                "{name} ({}) cannot be started: {why}",
                command.get_program().display()
            ),
            Err(_) => bail!(
                "the supervisor of {name} ended before {name} was started:\n{}",
                tail(&log, QUOTED_LINES)
            ),
        }
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id of the program itself, not of its supervisor.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where stdout and stderr go.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// The end of the log, for error messages.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    /// Whether the program has not ended yet.
    pub fn is_running(&self) -> bool {
        self.end.borrow().is_none() && self.end.has_changed().is_ok()
    }

    /// Fails, quoting the log, if the program has ended; for loops that wait until it answers.
    pub fn ensure_running(&self) -> Result<()> {
        match *self.end.borrow() {
            _ if self.is_running() => Ok(()),
            Some(status) => bail!(
                "{self} ended with {status}; the end of its log:\n{}",
                self.log_tail(QUOTED_LINES)
            ),
            None => bail!("{self} lost its supervisor"),
        }
    }

    /// Waits until the program and everything below it have ended.
    pub async fn wait_exit(&self) -> Result<ExitStatus> {
        let mut end = self.end.clone();
        let ended = end
            .wait_for(Option::is_some)
            .await
            .with_context(|| format!("{self} lost its supervisor"))?;
        ended.with_context(|| format!("{self} has not ended"))
    }

    /// Asks the program to end (SIGTERM) and kills it, with everything below it, once `grace` is over.
    pub async fn stop(&self, grace: Duration) -> Result<ExitStatus> {
        self.tell(&format!("stop {}", grace.as_secs_f64()));
        self.wait_exit().await
    }

    /// Kills the program and everything below it at once (SIGKILL) and waits until they are gone.
    pub async fn kill(&self) -> Result<ExitStatus> {
        self.tell("kill");
        self.wait_exit().await
    }

    /// A supervisor that no longer listens has ended, and its program before it: there is nothing left to tell.
    fn tell(&self, line: &str) {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipe) = commands.as_mut() {
            let _ = pipe.write_all(format!("{line}\n").as_bytes());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.tell("kill");
        self.commands
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(follower) = self.follower.take() {
            let _ = follower.join();
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("name", &self.name)
            .field("pid", &self.pid)
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

/// The last `lines` lines of a log file; empty when there is none.
pub fn tail(log: &Path, lines: usize) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Passes on what the supervisor reports, until it ends. That it was lost shows as the closing of both channels.
fn follow(
    mut supervisor: Child,
    reports: impl BufRead,
    started: oneshot::Sender<Result<u32, String>>,
    end: &watch::Sender<Option<ExitStatus>>,
) {
    let mut started = Some(started);
    for line in reports.lines().map_while(Result::ok) {
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match (word, rest.parse()) {
            ("exited", Ok(status)) => drop(end.send_replace(Some(ExitStatus::from_raw(status)))),
            (_, pid) => {
                let pid = pid.map_err(|_| rest.to_owned()).map(i32::unsigned_abs);
                started.take().map(|started| started.send(pid));
            }
        }
    }
    let _ = supervisor.wait();
}

fn describe(command: &Command) -> Result<String> {
    let argv = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(utf8)
        .collect::<Result<_>>()?;
    let mut env = BTreeMap::new();
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            env.insert(utf8(key)?, utf8(value)?);
        }
    }
    let cwd = command
        .get_current_dir()
        .map(|dir| utf8(dir.as_os_str()))
        .transpose()?;
    Ok(serde_json::to_string(&Program { argv, env, cwd })? + "\n")
}

fn utf8(text: &OsStr) -> Result<&str> {
    text.to_str()
        .with_context(|| format!("{text:?} is not UTF-8"))
}

/// How a supervisor is started.
#[derive(Clone, Debug)]
pub(crate) struct Supervisor {
    pub(crate) python: PathBuf,
    pub(crate) script: PathBuf,
}

impl Supervisor {
    /// `name` is only there for people who read `ps`.
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.python);
        // -I and -S: nothing of the user's Python set-up, and a start in a few milliseconds.
        command.args([
            OsString::from("-I"),
            OsString::from("-S"),
            self.script.clone().into(),
            OsString::from(name),
        ]);
        command
    }
}

#[cfg(test)]
mod tests;
