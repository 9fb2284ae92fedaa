//! `kubectl get … --watch` on the side: every state an object goes through, however short.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use campanile_world::World;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

use crate::table::{Growing, Row};

/// A running watch; ends when dropped.
pub struct Watch {
    lines: Arc<Mutex<Vec<String>>>,
    _kubectl: Child,
}

impl Watch {
    /// Starts `kubectl get <what> --all-namespaces --watch`, and returns once the API server has begun to tell of changes: what
    /// happens from now on is seen.
    pub async fn start(world: &World, what: &str, limit: Duration) -> Result<Self> {
        let mut kubectl = Command::new(world.kubernetes.kubectl_path())
            // At this verbosity kubectl tells on stderr that the watch was answered.
            .args(["get", what, "--all-namespaces", "--watch", "-v=6"])
            .env_clear()
            .env("KUBECONFIG", world.kubernetes.kubeconfig())
            .env("HOME", world.run_dir().join("demo"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("kubectl cannot be run")?;
        let (Some(stdout), Some(stderr)) = (kubectl.stdout.take(), kubectl.stderr.take()) else {
            bail!("kubectl has no pipes");
        };
        let lines = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn({
            let lines = Arc::clone(&lines);
            each_line(stdout, move |line| {
                lines
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(line);
            })
        });
        let (answered, wait) = oneshot::channel();
        let mut answered = Some(answered);
        tokio::spawn(each_line(stderr, move |line| {
            if line.contains("watch=true")
                && let Some(answered) = answered.take()
            {
                let _ = answered.send(());
            }
        }));
        match tokio::time::timeout(limit, wait).await {
            Ok(Ok(())) => Ok(Self {
                lines,
                _kubectl: kubectl,
            }),
            Ok(Err(_)) => bail!("`kubectl get {what} --watch` ended before it watched"),
            Err(_) => bail!(
                "`kubectl get {what} --watch` does not watch after {} s",
                limit.as_secs()
            ),
        }
    }

    /// What was seen so far, in order.
    pub fn rows(&self) -> Vec<Row> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = Growing::default();
        lines.iter().filter_map(|line| table.row(line)).collect()
    }
}

async fn each_line(stream: impl AsyncRead + Unpin, mut tell: impl FnMut(String)) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        tell(line);
    }
}
