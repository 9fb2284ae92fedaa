//! What CloudWatch refuses as a `ValidationError`, which the emulator takes.
//!
//! Pure: a request body in, AWS's message out. Where AWS's own words are not known the message says what is wrong in its manner.
//!
//! A part per sort of request; here is what they share, the bounds of a field and the words of a refusal.

mod by_name;
mod common;
mod composite;
mod metric;
mod metric_alarm;
#[cfg(test)]
mod tests;

use serde_json::Value;

use by_name::{Describe, Names, SetState};
use composite::CompositeAlarm;
use metric_alarm::MetricAlarm;

type Checked = Result<(), String>;

/// Checks the body of `operation`; `region` is where it is sent. Operations without rules of their own pass.
pub(super) fn check(operation: &str, body: &Value, region: &str) -> Checked {
    match operation {
        "PutMetricAlarm" => read::<MetricAlarm>(body)?.check(region),
        "PutCompositeAlarm" => read::<CompositeAlarm>(body)?.check(region),
        "DescribeAlarms" => read::<Describe>(body)?.check(),
        "DeleteAlarms" | "EnableAlarmActions" | "DisableAlarmActions" => {
            read::<Names>(body)?.check()
        }
        "SetAlarmState" => read::<SetState>(body)?.check(),
        _ => Ok(()),
    }
}

fn read<T: serde::de::DeserializeOwned>(body: &Value) -> Result<T, String> {
    T::deserialize(body).map_err(|error| format!("1 validation error detected: {error}"))
}

fn constraint(field: &str, value: &str, rule: &str) -> String {
    format!(
        "1 validation error detected: Value '{value}' at '{field}' failed to satisfy constraint: {rule}"
    )
}

fn required<'a>(field: &str, value: Option<&'a str>) -> Result<&'a str, String> {
    value.ok_or_else(|| format!("The parameter {field} is required"))
}

fn length(field: &str, value: Option<&str>, least: usize, most: usize) -> Checked {
    let Some(value) = value else {
        return Err(format!(
            "1 validation error detected: Value null at '{field}' failed to satisfy constraint: Member must not be null"
        ));
    };
    // AWS counts as Java does.
    match value.encode_utf16().count() {
        found if found < least => Err(constraint(
            field,
            value,
            &format!("Member must have length greater than or equal to {least}"),
        )),
        found if found > most => Err(constraint(
            field,
            value,
            &format!("Member must have length less than or equal to {most}"),
        )),
        _ => Ok(()),
    }
}

fn one_of(field: &str, value: Option<&str>, legal: &[&str]) -> Checked {
    match value {
        Some(value) if !legal.contains(&value) => Err(constraint(
            field,
            value,
            &format!("Member must satisfy enum value set: [{}]", legal.join(", ")),
        )),
        _ => Ok(()),
    }
}

/// That a list is no longer than it may be.
fn at_most(field: &str, entries: usize, most: usize) -> Checked {
    if entries > most {
        return Err(constraint(
            field,
            "[..]",
            &format!("Member must have length less than or equal to {most}"),
        ));
    }
    Ok(())
}

/// That none of these fields is given, for they say the same as another.
fn none_beside(other: &str, fields: &[(&str, bool)]) -> Checked {
    match fields.iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(format!("{field} cannot be specified together with {other}")),
        None => Ok(()),
    }
}
