//! Waiting for a fact, with a limit.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::screen::Screen;

const POLL: Duration = Duration::from_millis(300);

/// What a step was to show, and what was read instead.
#[derive(Debug)]
pub struct Unproven {
    /// What should have been read.
    pub expected: String,
    /// What was.
    pub read: String,
}

impl Unproven {
    /// The error of that.
    pub fn error(expected: impl Into<String>, read: impl Into<String>) -> anyhow::Error {
        let (expected, read) = (expected.into(), read.into());
        Self { expected, read }.into()
    }
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected: {}; read: {}", self.expected, self.read)
    }
}

impl std::error::Error for Unproven {}

/// What a look at it came to.
pub enum Look<T> {
    /// It is so.
    Seen(T),
    /// Not yet; this is what was read.
    NotYet(String),
}

/// Looks until it is seen; once `limit` is over, fails with what was read last.
pub async fn until<T>(
    screen: &Screen,
    limit: Duration,
    expected: &str,
    mut look: impl AsyncFnMut() -> Result<Look<T>>,
) -> Result<T> {
    let began = Instant::now();
    let mut last = "no answer".to_owned();
    let looking = async {
        loop {
            match look().await? {
                Look::Seen(seen) => return anyhow::Ok(seen),
                Look::NotYet(read) => last = read,
            }
            screen.waiting(expected, began.elapsed());
            tokio::time::sleep(POLL).await;
        }
    };
    match tokio::time::timeout(limit, looking).await {
        Ok(looked) => looked,
        Err(_) => Err(Unproven::error(
            format!("{expected} (waited {} s)", limit.as_secs()),
            last,
        )),
    }
}

/// Fails unless `holds`.
pub fn ensure(holds: bool, expected: impl Into<String>, read: impl Into<String>) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Unproven::error(expected, read))
    }
}
