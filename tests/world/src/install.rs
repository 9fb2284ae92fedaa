//! The first-time steps: what the world runs, brought here once and kept under `target/world`.
//!
//! Installing inherits our environment (proxies, certificate bundles, pip's and Go's configuration), running does not. Every step
//! is keyed by a hash of what it is made from, done under a file lock, and whole only when its mark says so.

mod cluster;
mod python;

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

pub use cluster::{Cluster, cluster};
pub use python::python;

use crate::process::{self, Supervisor};

/// The workspace this crate belongs to.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// Where everything is kept: `target/world`, wherever cargo's target directory is.
pub fn directory() -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    workspace().join(target).join("world")
}

/// Everything at once, so that whoever starts a world waits for the longest step only.
pub async fn everything() -> Result<()> {
    let cluster = tokio::task::spawn_blocking(|| cluster().map(drop));
    let python = tokio::task::spawn_blocking(|| python().map(drop));
    cluster.await??;
    python.await?
}

/// The supervisor below which every [`process::Process`] runs.
pub(crate) fn supervisor() -> Result<&'static Supervisor> {
    static SUPERVISOR: OnceLock<Supervisor> = OnceLock::new();
    if let Some(supervisor) = SUPERVISOR.get() {
        return Ok(supervisor);
    }
    let source = include_str!("supervise.py");
    let script = directory().join(format!("supervise-{}.py", digest([source.as_bytes()])));
    if !script.exists() {
        let draft = script.with_extension(format!("{}.draft", std::process::id()));
        fs::create_dir_all(directory())
            .with_context(|| format!("{} cannot be made", directory().display()))?;
        fs::write(&draft, source)
            .with_context(|| format!("{} cannot be written", draft.display()))?;
        fs::rename(&draft, &script)?;
    }
    let python = python::interpreter()?;
    Ok(SUPERVISOR.get_or_init(|| Supervisor { python, script }))
}

/// Returns the directory `<what>-<key>`, which `fill` fills if it was not yet filled completely.
fn once(
    what: &str,
    key: &str,
    usable: impl Fn(&Path) -> bool,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let home = directory().join(format!("{what}-{key}"));
    let complete = home.join(".complete");
    let is_complete = || complete.exists() && usable(&home);
    if is_complete() {
        return Ok(home);
    }
    fs::create_dir_all(directory())
        .with_context(|| format!("{} cannot be made", directory().display()))?;
    let _lock = lock(&directory().join(format!("{what}.lock")), what)?;
    if !is_complete() {
        if home.exists() {
            fs::remove_dir_all(&home)
                .with_context(|| format!("a half-finished {} cannot be removed", home.display()))?;
        }
        fs::create_dir(&home).with_context(|| format!("{} cannot be made", home.display()))?;
        fill(&home)?;
        File::create(&complete)?;
    }
    Ok(home)
}

/// Held until dropped, or until the process ends.
fn lock(path: &Path, what: &str) -> Result<File> {
    let file = File::create(path).with_context(|| format!("{} cannot be made", path.display()))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => progress(&format!(
            "another process is installing {what}: waiting for it"
        )),
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("{} cannot be locked", path.display()));
        }
    }
    file.lock()
        .with_context(|| format!("{} cannot be locked", path.display()))?;
    Ok(file)
}

/// Runs a step to its end, telling every 15 seconds that it is still at it; its output is shown only if it fails.
fn run(doing: &str, command: &mut Command, log: &Path) -> Result<()> {
    let output =
        File::create(log).with_context(|| format!("{} cannot be written", log.display()))?;
    let program = command.get_program().to_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("{} cannot be run", program.display()))?;
    let began = Instant::now();
    let mut told = 0;
    progress(&format!("{doing} …"));
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let seconds = began.elapsed().as_secs();
        if seconds >= told + 15 {
            told = seconds;
            progress(&format!("{doing} … {seconds} s"));
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    if !status.success() {
        bail!(
            "{doing}: {} ended with {status}; the end of {}:\n{}",
            program.display(),
            log.display(),
            process::tail(log, 20)
        );
    }
    progress(&format!("{doing}: done in {} s", began.elapsed().as_secs()));
    Ok(())
}

/// On stderr in one write, so that lines of two installations do not mix, and past the test harness, which hides `eprintln!`.
pub(crate) fn progress(line: &str) {
    let _ = std::io::stderr()
        .lock()
        .write_all(format!("world: {line}\n").as_bytes());
}

/// Enough of a hash to tell two installations apart.
fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(part);
    }
    hash.finalize()
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
