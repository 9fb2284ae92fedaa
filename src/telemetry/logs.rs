//! Log lines: JSON for collectors, text for people.

use crate::engine::error::{Error, Result};
use clap::ValueEnum;
use std::{env, io, io::IsTerminal};
use tracing::{Subscriber, subscriber};
use tracing_subscriber::{
    EnvFilter,
    fmt::{MakeWriter, writer::BoxMakeWriter},
};

/// What is logged where neither variable says otherwise. The libraries tell of every connection and
/// every credential at `info`, which is nothing to a reader of our log.
const DEFAULT_FILTER: &str =
    "info,aws_=error,hyper=warn,kube_client=error,kube_runtime=warn,tower=warn";

/// The variables that hold a filter (`debug`, `info,campanile::stage=trace`); the first that is set counts.
const VARIABLES: [&str; 2] = ["CAMPANILE_LOG", "RUST_LOG"];

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// An object per line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// Where log lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Where a container's log is read.
    Stdout,
    /// For commands whose standard output is their answer.
    Stderr,
}

/// Starts logging, for the whole process. Where it has already begun, nothing changes.
///
/// In JSON a span's own name is its field `name`, so a span must not have another one of that name.
pub fn init_logs(format: LogFormat, output: Output) -> Result<()> {
    let filter = filter(|name| env::var(name).ok())?;
    let (writer, terminal) = match output {
        Output::Stdout => (BoxMakeWriter::new(io::stdout), io::stdout().is_terminal()),
        Output::Stderr => (BoxMakeWriter::new(io::stderr), io::stderr().is_terminal()),
    };
    let colour = terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // The one way in which this fails is that somebody else was first.
    let _ = subscriber::set_global_default(lines(format, filter, colour, writer));
    Ok(())
}

fn filter(variable: impl Fn(&str) -> Option<String>) -> Result<EnvFilter> {
    let set = VARIABLES
        .iter()
        .find_map(|name| Some((name, variable(name).filter(|value| !value.is_empty())?)));
    match set {
        None => Ok(EnvFilter::new(DEFAULT_FILTER)),
        Some((name, value)) => EnvFilter::try_new(&value).map_err(|error| {
            Error::invalid(format!(
                "{name}={value}: {error}; it is to look like info,campanile=debug"
            ))
        }),
    }
}

fn lines<W>(
    format: LogFormat,
    filter: EnvFilter,
    colour: bool,
    writer: W,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(colour);
    match format {
        LogFormat::Json => Box::new(
            lines
                .json()
                .flatten_event(true)
                .with_current_span(true)
                .with_span_list(true)
                .finish(),
        ),
        LogFormat::Text => Box::new(lines.finish()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use serde_json::Value;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, log: impl FnOnce()) -> String {
        let written = Lines::default();
        let writer = written.clone();
        let filter = EnvFilter::new("info");
        subscriber::with_default(lines(format, filter, false, move || writer.clone()), log);
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    fn reconcile() {
        let _outer = tracing::info_span!(
            "reconcile",
            kind = "AlarmSet",
            object = "vsu/golden-signals"
        )
        .entered();
        let _inner = tracing::info_span!("stage", stage = "alarm").entered();
        tracing::info!(count = 3, "created");
        tracing::debug!("not shown");
    }

    #[test]
    fn a_json_line_has_its_fields_and_its_spans() {
        let line: Value = serde_json::from_str(&logged(LogFormat::Json, reconcile)).unwrap();
        assert_eq!(
            (&line["message"], &line["count"], &line["level"]),
            (&"created".into(), &3.into(), &"INFO".into())
        );
        assert_eq!(line["span"]["stage"], "alarm");
        assert_eq!(line["spans"][0]["object"], "vsu/golden-signals", "{line}");
        let time = line["timestamp"].as_str().unwrap();
        assert!(
            time.ends_with('Z') && time.parse::<Timestamp>().is_ok(),
            "{time}"
        );
    }

    #[test]
    fn a_text_line_has_no_colours_where_nobody_sees_them() {
        let line = logged(LogFormat::Text, reconcile);
        assert!(
            line.contains("created count=3") && line.contains("kind=\"AlarmSet\""),
            "{line}"
        );
        assert!(!line.contains('\u{1b}'), "{line}");
    }

    #[test]
    fn the_first_variable_that_is_set_counts() {
        let with = |campanile: Option<&str>, rust: Option<&str>| {
            let found = filter(|name| {
                if name == "CAMPANILE_LOG" {
                    campanile
                } else {
                    rust
                }
                .map(str::to_owned)
            });
            found.map(|filter| filter.to_string())
        };
        assert_eq!(with(Some("debug"), Some("trace")).unwrap(), "debug");
        assert_eq!(with(Some(""), Some("trace")).unwrap(), "trace");
        assert!(with(None, None).unwrap().contains("info"));
        let error = with(Some("campanile=loud"), None).unwrap_err();
        assert!(
            error.message.starts_with("CAMPANILE_LOG=campanile=loud: "),
            "{error}"
        );
    }
}
