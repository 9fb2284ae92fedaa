//! The emulator's process.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::Process;
use crate::{install, port};

const SOURCES: [(&str, &str); 9] = [
    ("launch.py", include_str!("emulator/launch.py")),
    ("patch.py", include_str!("emulator/patch.py")),
    ("alarms.py", include_str!("emulator/alarms.py")),
    ("metrics.py", include_str!("emulator/metrics.py")),
    ("topics.py", include_str!("emulator/topics.py")),
    ("transitions.py", include_str!("emulator/transitions.py")),
    ("rules.py", include_str!("emulator/rules.py")),
    ("destinations.py", include_str!("emulator/destinations.py")),
    ("delivery.py", include_str!("emulator/delivery.py")),
];
const START_LIMIT: Duration = Duration::from_secs(60);
/// Somebody else may take the port between our finding it free and the emulator's taking it.
const ATTEMPTS: usize = 3;

/// A running MiniStack with our patches.
pub(super) struct MiniStack {
    url: String,
    _process: Process,
}

impl MiniStack {
    /// Starts it with its files in `home`; links in what it sends lead to `public_port`.
    pub(super) async fn start(home: &Path, public_port: u16) -> Result<Self> {
        let python = tokio::task::spawn_blocking(install::python).await??;
        std::fs::create_dir_all(home)
            .with_context(|| format!("{} cannot be made", home.display()))?;
        for (name, source) in SOURCES {
            std::fs::write(home.join(name), source)
                .with_context(|| format!("{name} cannot be written to {}", home.display()))?;
        }
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match attempt(&python, home, public_port).await {
                Ok(started) => return Ok(started),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("MiniStack was not started")))
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

async fn attempt(python: &Path, home: &Path, public_port: u16) -> Result<MiniStack> {
    let port = port::free()?;
    let host = Ipv4Addr::LOCALHOST.to_string();
    let mut command = Command::new(python);
    command
        .arg(home.join("launch.py"))
        .current_dir(home)
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", home)
        .env("TMPDIR", home)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("LOG_LEVEL", "WARNING")
        .env("BIND_HOST", &host)
        .env("MINISTACK_HOST", &host)
        .env("GATEWAY_PORT", port.to_string())
        .env("PUBLIC_HOST", &host)
        .env("PUBLIC_PORT", public_port.to_string());
    let process = Process::spawn("MiniStack", &command, home.join("ministack.log")).await?;
    let url = format!("http://{host}:{port}");
    let client = super::client()?;
    let began = Instant::now();
    loop {
        if client
            .get(format!("{url}/_world/ready"))
            .send()
            .await
            .is_ok_and(|answer| answer.status().is_success())
        {
            return Ok(MiniStack {
                url,
                _process: process,
            });
        }
        process.ensure_running()?;
        if began.elapsed() > START_LIMIT {
            bail!(
                "MiniStack does not answer after {} s:\n{}",
                START_LIMIT.as_secs(),
                process.log_tail(20)
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
