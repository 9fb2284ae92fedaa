//! The world's own kubectl: what a user types, checked as a user would see it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::Kubernetes;

/// What kubectl printed and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output, if it succeeded.
    pub fn success(self) -> Result<String> {
        match self.code {
            Some(0) => Ok(self.stdout),
            Some(code) => bail!(
                "`{}` ended with {code}:\n{}{}",
                self.command,
                self.stdout,
                self.stderr
            ),
            None => bail!(
                "`{}` was killed:\n{}{}",
                self.command,
                self.stdout,
                self.stderr
            ),
        }
    }
}

impl Kubernetes {
    /// Runs kubectl as admin. Only what keeps it from running is an error; see [`Output::success`].
    pub async fn kubectl<I>(&self, args: I) -> Result<Output>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        self.run_kubectl(self.kubeconfig(), args, None).await
    }

    /// As [`Self::kubectl`], with something to read on its standard input (`-f -`).
    pub async fn kubectl_with_input<I>(&self, args: I, input: &str) -> Result<Output>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        self.run_kubectl(self.kubeconfig(), args, Some(input)).await
    }

    /// As [`Self::kubectl`], as whom another kubeconfig file names.
    pub async fn kubectl_as<I>(&self, kubeconfig: &Path, args: I) -> Result<Output>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        self.run_kubectl(kubeconfig, args, None).await
    }

    async fn run_kubectl<I>(
        &self,
        kubeconfig: &Path,
        args: I,
        input: Option<&str>,
    ) -> Result<Output>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        let mut command = Command::new(self.programs.kubectl());
        command
            .args(args)
            .env_clear()
            .env("KUBECONFIG", kubeconfig)
            // Its cache of what the server offers, and no kuberc of the user's.
            .env("HOME", self.directory.join("kubectl"))
            .stdin(if input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let words: Vec<_> = command
            .as_std()
            .get_args()
            .map(OsStr::to_string_lossy)
            .collect();
        let line = format!("kubectl {}", words.join(" "));
        let mut child = command
            .spawn()
            .with_context(|| format!("`{line}` cannot be run"))?;
        let stdin = child.stdin.take();
        let feed = async {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                // One that ends before it has read everything tells why itself.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        let (output, ()) = tokio::join!(child.wait_with_output(), feed);
        let output = output.with_context(|| format!("`{line}` cannot be waited for"))?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Output {
            command: line,
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        })
    }
}
