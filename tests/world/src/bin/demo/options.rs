//! What the person who starts the demo decides.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::sabotage::Sabotage;

/// How long anything may take that the demo waits for.
const LIMIT: Duration = Duration::from_secs(60);

/// From the command line and the environment.
pub struct Options {
    /// The operator's binary.
    pub binary: PathBuf,
    /// Whether to end after the last step instead of staying up.
    pub once: bool,
    /// What is to go wrong, for the test that such a thing is noticed.
    pub sabotage: Option<Sabotage>,
    /// How long anything may take that the demo waits for.
    pub limit: Duration,
}

/// What `--help` prints.
pub fn usage() -> String {
    let breaks: String = Sabotage::ALL
        .iter()
        .map(|each| format!("\n      {:<10} {}", each.name(), each.what()))
        .collect();
    format!(
        "Shows what Campanile does, step by step, against a test world on loopback.

Usage: demo [CAMPANILE]

CAMPANILE is the operator's binary; left out: the one beside this program.

Environment:
  ONCE=1                    end after the last step; exit code 0 only if every step was proven
  NO_COLOR=1                no colours
  CAMPANILE_DEMO_LIMIT=60   how many seconds to wait for anything
  CAMPANILE_DEMO_BREAK=…    break something, to see that it is noticed:{breaks}"
    )
}

impl Options {
    /// Reads them; `argument` is the first of the command line.
    pub fn read(
        argument: Option<String>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let limit = match set("CAMPANILE_DEMO_LIMIT") {
            Some(text) => Duration::from_secs(text.parse().with_context(|| {
                format!("CAMPANILE_DEMO_LIMIT={text} is not a number of seconds")
            })?),
            None => LIMIT,
        };
        Ok(Self {
            binary: binary(argument)?,
            once: set("ONCE").is_some_and(|value| value != "0"),
            sabotage: set("CAMPANILE_DEMO_BREAK")
                .map(|name| name.parse())
                .transpose()?,
            limit,
        })
    }
}

fn binary(argument: Option<String>) -> Result<PathBuf> {
    if let Some(option) = argument.as_deref().filter(|text| text.starts_with('-')) {
        bail!("there is no option {option}: see --help");
    }
    let path = match argument {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()
            .context("this program does not know where it is: name the operator's binary")?
            .with_file_name("campanile"),
    };
    ensure!(
        path.is_file(),
        "{} is missing: build it with `cargo build -p campanile`",
        path.display()
    );
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::Options;

    fn read(name: &'static str, value: &'static str) -> Result<Options, String> {
        let variable = |asked: &str| (asked == name).then(|| value.to_owned());
        Options::read(Some("/bin/sh".to_owned()), variable).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        let error = read("CAMPANILE_DEMO_BREAK", "nonsense").err().unwrap();
        assert!(
            error.contains("nonsense") && error.contains("pager") && error.contains("drift"),
            "{error}"
        );
        assert!(read("CAMPANILE_DEMO_LIMIT", "soon").is_err());
        for argument in ["--once", "/no/such/file"] {
            assert!(Options::read(Some(argument.to_owned()), |_| None).is_err());
        }
    }

    #[test]
    fn once_is_on_only_when_it_says_so() {
        for (value, once) in [("1", true), ("yes", true), ("0", false), ("", false)] {
            assert_eq!(read("ONCE", value).unwrap().once, once, "{value:?}");
        }
    }
}
