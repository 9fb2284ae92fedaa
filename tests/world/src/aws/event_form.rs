//! What EventBridge refuses for its form, which the emulator takes.
//!
//! Pure: a request body in, AWS's refusal out. Bounds are those of the service model; where AWS's own words are not known the message
//! says what is wrong in its manner. What depends on what there is already, the emulator's patches refuse.
//!
//! A part per sort of thing; here is what they share, names, ARNs, the bounds of a field and the words of a refusal.

mod by_name;
mod connection;
mod destination;
mod rule;
mod target;
#[cfg(test)]
mod tests;

use serde_json::Value;

use by_name::{Listing, Named, Tagging};
use connection::Connection;
use destination::Destination;
use rule::{Rule, Test};
use target::{PutTargets, RemoveTargets};

/// The longest that a rule, target, connection or API destination may be called.
const NAME: usize = 64;
const DESCRIPTION: usize = 512;

/// A refusal: its code and its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) message: String,
}

type Checked = Result<(), Refusal>;

/// Checks the body of `operation`. Operations without rules of their own pass.
pub(super) fn check(operation: &str, body: &Value) -> Checked {
    match operation {
        "PutRule" => read::<Rule>(body)?.check(),
        "DescribeRule"
        | "DeleteRule"
        | "EnableRule"
        | "DisableRule"
        | "DescribeConnection"
        | "DeleteConnection"
        | "DeauthorizeConnection"
        | "DescribeApiDestination"
        | "DeleteApiDestination" => read::<Named>(body)?.check(),
        "ListRules" | "ListConnections" | "ListApiDestinations" | "ListTargetsByRule" => {
            read::<Listing>(body)?.check(operation == "ListTargetsByRule")
        }
        "PutTargets" => read::<PutTargets>(body)?.check(),
        "RemoveTargets" => read::<RemoveTargets>(body)?.check(),
        "CreateConnection" => read::<Connection>(body)?.check(true),
        "UpdateConnection" => read::<Connection>(body)?.check(false),
        "CreateApiDestination" => read::<Destination>(body)?.check(true),
        "UpdateApiDestination" => read::<Destination>(body)?.check(false),
        "TestEventPattern" => read::<Test>(body)?.check(),
        "TagResource" => read::<Tagging>(body)?.check(),
        _ => Ok(()),
    }
}

fn read<T: serde::de::DeserializeOwned>(body: &Value) -> Result<T, Refusal> {
    T::deserialize(body).map_err(|error| Refusal {
        code: "SerializationException",
        message: error.to_string(),
    })
}

fn is_name(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !text.is_empty() && text.bytes().all(legal)
}

fn name(field: &str, value: Option<&str>) -> Checked {
    let text = required(field, value)?;
    if text.is_empty() {
        return Err(too_short(field, text));
    }
    at_most(field, Some(text), NAME)?;
    if is_name(text) {
        Ok(())
    } else {
        Err(pattern_of(field, text, "[\\.\\-_A-Za-z0-9]+"))
    }
}

fn description(text: Option<&str>) -> Checked {
    at_most("description", text, DESCRIPTION)?;
    match text {
        // `.` matches no line break.
        Some(text) if text.contains(['\n', '\r']) => Err(pattern_of("description", text, ".*")),
        _ => Ok(()),
    }
}

fn is_arn(arn: &str, service: &str) -> bool {
    resource(arn, service).is_some_and(|resource| !resource.is_empty())
}

/// What stands behind Region and account.
fn resource<'a>(arn: &'a str, service: &str) -> Option<&'a str> {
    let rest = arn.strip_prefix("arn:aws:")?.strip_prefix(service)?;
    rest.strip_prefix(':')?.splitn(3, ':').nth(2)
}

fn role(arn: Option<&str>) -> Checked {
    match arn {
        Some(arn) if !is_arn(arn, "iam") || !arn.contains(":role/") => Err(invalid(format!(
            "Parameter {arn} is not valid. Reason: Provided Arn is not in correct format."
        ))),
        _ => Ok(()),
    }
}

fn between(field: &str, value: Option<i64>, least: i64, most: i64) -> Checked {
    match value {
        Some(value) if value < least => Err(constraint(
            field,
            &value.to_string(),
            &format!("Member must have value greater than or equal to {least}"),
        )),
        Some(value) if value > most => Err(constraint(
            field,
            &value.to_string(),
            &format!("Member must have value less than or equal to {most}"),
        )),
        _ => Ok(()),
    }
}

fn at_most(field: &str, value: Option<&str>, most: usize) -> Checked {
    match value {
        // AWS counts as Java does.
        Some(text) if text.encode_utf16().count() > most => Err(constraint(
            field,
            text,
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

fn required<'a>(field: &str, value: Option<&'a str>) -> Result<&'a str, Refusal> {
    value.ok_or_else(|| missing(field))
}

fn missing(field: &str) -> Refusal {
    invalid(format!(
        "1 validation error detected: Value null at '{field}' failed to satisfy constraint: Member must not be null"
    ))
}

fn too_short(field: &str, value: &str) -> Refusal {
    constraint(
        field,
        value,
        "Member must have length greater than or equal to 1",
    )
}

fn pattern_of(field: &str, value: &str, pattern: &str) -> Refusal {
    constraint(
        field,
        value,
        &format!("Member must satisfy regular expression pattern: {pattern}"),
    )
}

fn constraint(field: &str, value: &str, rule: &str) -> Refusal {
    invalid(format!(
        "1 validation error detected: Value '{value}' at '{field}' failed to satisfy constraint: {rule}"
    ))
}

fn invalid(message: String) -> Refusal {
    Refusal {
        code: "ValidationException",
        message,
    }
}
