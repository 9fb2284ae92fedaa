//! What alarms look at: a metric with its dimensions, a statistic of it, a period.

use serde::Deserialize;

use super::{Checked, at_most, constraint, length, one_of, required};

pub(super) const STATISTICS: [&str; 5] = ["SampleCount", "Average", "Sum", "Minimum", "Maximum"];

pub(super) const UNITS: [&str; 27] = [
    "Seconds",
    "Microseconds",
    "Milliseconds",
    "Bytes",
    "Kilobytes",
    "Megabytes",
    "Gigabytes",
    "Terabytes",
    "Bits",
    "Kilobits",
    "Megabits",
    "Gigabits",
    "Terabits",
    "Percent",
    "Count",
    "Bytes/Second",
    "Kilobytes/Second",
    "Megabytes/Second",
    "Gigabytes/Second",
    "Terabytes/Second",
    "Bits/Second",
    "Kilobits/Second",
    "Megabits/Second",
    "Gigabits/Second",
    "Terabits/Second",
    "Count/Second",
    "None",
];

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Dimension {
    name: String,
    value: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct MetricStat {
    metric: Metric,
    period: Option<i64>,
    stat: Option<String>,
    unit: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Metric {
    namespace: Option<String>,
    metric_name: Option<String>,
    dimensions: Vec<Dimension>,
}

impl MetricStat {
    pub(super) fn check(&self) -> Result<i64, String> {
        let name = required("MetricName", self.metric.metric_name.as_deref())?;
        let namespace = required("Namespace", self.metric.namespace.as_deref())?;
        metric(
            "metricStat.metric.metricName",
            "metricStat.metric.namespace",
            name,
            namespace,
        )?;
        dimensions(&self.metric.dimensions)?;
        let stat = required("Stat", self.stat.as_deref())?;
        if !STATISTICS.contains(&stat) && !is_extended(stat) {
            return Err(format!(
                "The value {stat} for parameter Stat is not supported."
            ));
        }
        one_of("metricStat.unit", self.unit.as_deref(), &UNITS)?;
        legal_period(self.period)
    }
}

pub(super) fn metric(
    name_field: &str,
    namespace_field: &str,
    name: &str,
    namespace: &str,
) -> Checked {
    length(name_field, Some(name), 1, 255)?;
    length(namespace_field, Some(namespace), 1, 255)?;
    if namespace.starts_with(':') {
        return Err(constraint(
            namespace_field,
            namespace,
            "Member must satisfy regular expression pattern: [^:].*",
        ));
    }
    Ok(())
}

pub(super) fn dimensions(dimensions: &[Dimension]) -> Checked {
    at_most("dimensions", dimensions.len(), 30)?;
    for (index, Dimension { name, value }) in dimensions.iter().enumerate() {
        length("dimensions.member.name", Some(name), 1, 255)?;
        length("dimensions.member.value", Some(value), 1, 1024)?;
        let printable = |text: &str| {
            text.chars()
                .all(|character| character.is_ascii() && !character.is_ascii_control())
        };
        if name.starts_with(':') || !printable(name) || !printable(value) {
            return Err(constraint(
                "dimensions.member",
                &format!("{name}={value}"),
                "Member must consist of ASCII characters and not start with a colon",
            ));
        }
        if dimensions
            .iter()
            .take(index)
            .any(|earlier| earlier.name == *name)
        {
            return Err(format!(
                "No dimension may be specified more than once: {name}"
            ));
        }
    }
    Ok(())
}

pub(super) fn is_period(seconds: i64) -> bool {
    matches!(seconds, 10 | 20 | 30) || (seconds > 0 && seconds % 60 == 0)
}

pub(super) fn legal_period(period: Option<i64>) -> Result<i64, String> {
    let period = period.ok_or("The parameter Period is required")?;
    if is_period(period) {
        Ok(period)
    } else {
        Err(format!(
            "Invalid Period {period}: it must be 10, 20, 30 or a multiple of 60"
        ))
    }
}

pub(super) fn is_percentile(statistic: &str) -> bool {
    statistic.strip_prefix('p').is_some_and(is_percentage)
}

/// `p95`, `tm99.9`, `wm`, `tc`, `ts` and the long forms `TM(2%:98%)`, `PR(:300)`, `IQM`.
pub(super) fn is_extended(statistic: &str) -> bool {
    let lower = statistic.to_ascii_lowercase();
    let short = ["p", "tm", "wm", "tc", "ts"]
        .iter()
        .any(|kind| lower.strip_prefix(kind).is_some_and(is_percentage));
    let bound = |text: &str| {
        text.is_empty()
            || text
                .strip_suffix('%')
                .unwrap_or(text)
                .parse::<f64>()
                .is_ok()
    };
    let long = ["pr(", "tm(", "wm(", "tc(", "ts("].iter().any(|kind| {
        let range = lower
            .strip_prefix(kind)
            .and_then(|rest| rest.strip_suffix(')'))
            .and_then(|range| range.split_once(':'));
        range.is_some_and(|(from, to)| {
            bound(from) && bound(to) && !(from.is_empty() && to.is_empty())
        })
    });
    short || long || lower == "iqm"
}

fn is_percentage(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
        && text.parse::<f64>().is_ok_and(|value| value <= 100.0)
}
