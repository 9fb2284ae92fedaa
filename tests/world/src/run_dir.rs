//! A directory per running world, gone with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::install;

/// Set to anything, a world's directory stays for people to look into.
const KEEP: &str = "CAMPANILE_WORLD_KEEP";
/// How long directories that were kept stay.
const KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// Where what is large and tells nobody anything is, within the directory: it is never kept.
pub(crate) const DATA: &str = "data";
const LOCK: &str = "lock";
const KEPT: &str = "kept";

/// Logs, data and kubeconfig files of one world. Removed when dropped, unless something went wrong: dropped in a panic, or told so.
#[derive(Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
    /// Locked as long as this process lives; that is how others know that it does.
    _lock: File,
    keep: bool,
}

impl RunDir {
    /// Makes one, and removes those of worlds that ended without doing so.
    pub(crate) fn create() -> Result<Self> {
        let all = install::directory().join("run");
        fs::create_dir_all(&all).with_context(|| format!("{} cannot be made", all.display()))?;
        // Nobody may mistake a directory that is not locked yet for a dead world's.
        let guard = File::create(all.with_extension("lock"))?;
        guard
            .lock()
            .context("the directory of running worlds cannot be locked")?;
        remove_dead(&all);
        let path = create_unique(&all)?;
        let lock = File::create(path.join(LOCK))?;
        lock.try_lock()
            .with_context(|| format!("{} cannot be locked", path.display()))?;
        let keep = std::env::var_os(KEEP).is_some();
        if keep {
            // Now, for the world that is never dropped: one in a static, or of a process that is killed.
            File::create(path.join(KEPT))?;
        }
        Ok(Self {
            path,
            _lock: lock,
            keep,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Something went wrong: somebody will want to look into it.
    pub(crate) fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if self.keep || std::thread::panicking() {
            let _ = fs::remove_dir_all(self.path.join(DATA));
            let _ = File::create(self.path.join(KEPT));
            install::progress(&format!("logs are kept in {}", self.path.display()));
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn create_unique(all: &Path) -> Result<PathBuf> {
    let now = jiff::Timestamp::now()
        .strftime("%Y%m%dT%H%M%SZ")
        .to_string();
    for number in 1..1000 {
        let path = all.join(format!("{now}-{number}"));
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error).with_context(|| format!("{} cannot be made", path.display()));
            }
        }
    }
    bail!("{} is full of worlds that began at {now}", all.display())
}

/// What cannot be removed now, say because its processes are just ending, is left to the next world.
fn remove_dead(all: &Path) {
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let path = entry.path();
        let alive = File::open(path.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_err());
        let kept = || {
            fs::metadata(path.join(KEPT))
                .and_then(|mark| mark.modified())
                .ok()
        };
        let still_kept =
            || kept().is_some_and(|since| since.elapsed().is_ok_and(|age| age < KEPT_FOR));
        if !alive && !still_kept() {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{DATA, LOCK, RunDir};

    #[test]
    fn the_living_stay_and_the_dead_go() {
        let living = RunDir::create().unwrap();
        let dead = living.path().with_file_name("dead-world-of-a-test");
        fs::create_dir_all(&dead).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();

        let mut next = RunDir::create().unwrap();
        assert!(living.path().exists() && next.path().exists() && living.path() != next.path());
        assert!(!dead.exists());

        next.keep();
        fs::create_dir(next.path().join(DATA)).unwrap();
        let (living_path, next_path) = (living.path().to_owned(), next.path().to_owned());
        drop((living, next));
        assert!(!living_path.exists() || std::env::var_os(super::KEEP).is_some());
        assert!(next_path.exists() && !next_path.join(DATA).exists());
        fs::remove_dir_all(next_path).unwrap();
    }
}
