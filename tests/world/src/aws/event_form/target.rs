//! What a rule hands events to, and what it makes of them on the way.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{
    Checked, at_most, between, constraint, invalid, is_arn, name, required, role, too_short,
};

pub(super) const TEMPLATE: usize = 8192;
pub(super) const PATHS: usize = 100;
/// The quota of targets in a call.
pub(super) const TARGETS: usize = 10;

/// What stands in a template without a path of its own.
const RESERVED: [&str; 5] = [
    "aws.events.rule-arn",
    "aws.events.rule-name",
    "aws.events.event.ingestion-time",
    "aws.events.event",
    "aws.events.event.json",
];

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct PutTargets {
    rule: Option<String>,
    targets: Vec<Target>,
}

impl PutTargets {
    pub(super) fn check(&self) -> Checked {
        name("rule", self.rule.as_deref())?;
        count("targets", self.targets.len())?;
        for (index, target) in self.targets.iter().enumerate() {
            let number = index + 1;
            target.check(number)?;
            if self.targets[..index]
                .iter()
                .any(|earlier| earlier.id == target.id)
            {
                return Err(invalid(format!(
                    "Duplicate target id: {}",
                    target.id.as_deref().unwrap_or_default()
                )));
            }
        }
        Ok(())
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct RemoveTargets {
    rule: Option<String>,
    ids: Vec<String>,
}

impl RemoveTargets {
    pub(super) fn check(&self) -> Checked {
        name("rule", self.rule.as_deref())?;
        count("ids", self.ids.len())?;
        self.ids.iter().try_for_each(|id| name("ids", Some(id)))
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Target {
    id: Option<String>,
    arn: Option<String>,
    role_arn: Option<String>,
    input: Option<String>,
    input_path: Option<String>,
    input_transformer: Option<Transformer>,
    retry_policy: Option<RetryPolicy>,
    dead_letter_config: Option<DeadLetterConfig>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Transformer {
    input_paths_map: BTreeMap<String, String>,
    input_template: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RetryPolicy {
    maximum_retry_attempts: Option<i64>,
    maximum_event_age_in_seconds: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DeadLetterConfig {
    arn: Option<String>,
}

impl Target {
    fn check(&self, number: usize) -> Checked {
        let field = |field: &str| format!("targets.{number}.member.{field}");
        name(&field("id"), self.id.as_deref())?;
        let id = self.id.as_deref().unwrap_or_default();
        let arn = required(&field("arn"), self.arn.as_deref())?;
        at_most(&field("arn"), Some(arn), 1600)?;
        role(self.role_arn.as_deref())?;
        at_most(&field("input"), self.input.as_deref(), TEMPLATE)?;
        at_most(&field("inputPath"), self.input_path.as_deref(), 256)?;
        let inputs = [
            self.input.is_some(),
            self.input_path.is_some(),
            self.input_transformer.is_some(),
        ];
        if inputs.iter().filter(|given| **given).count() > 1 {
            return Err(invalid(format!(
                "Only one of Input, InputPath, or InputTransformer must be provided for target {id}."
            )));
        }
        if let Some(input) = &self.input
            && serde_json::from_str::<Value>(input).is_err()
        {
            return Err(invalid(format!(
                "JSON syntax error in input for target {id}: {input}"
            )));
        }
        if let Some(transformer) = &self.input_transformer {
            transformer.check(id, &field("inputTransformer"))?;
        }
        if let Some(policy) = &self.retry_policy {
            between(
                &field("retryPolicy.maximumRetryAttempts"),
                policy.maximum_retry_attempts,
                0,
                185,
            )?;
            between(
                &field("retryPolicy.maximumEventAgeInSeconds"),
                policy.maximum_event_age_in_seconds,
                60,
                86_400,
            )?;
        }
        let queue = self
            .dead_letter_config
            .as_ref()
            .and_then(|config| config.arn.as_deref());
        match queue {
            Some(queue) if !is_arn(queue, "sqs") => Err(invalid(format!(
                "Parameter DeadLetterConfig.Arn is not valid. Reason: {queue} is not the ARN of an SQS queue."
            ))),
            _ => Ok(()),
        }
    }
}

impl Transformer {
    fn check(&self, target: &str, field: &str) -> Checked {
        if self.input_paths_map.len() > PATHS {
            return Err(constraint(
                &format!("{field}.inputPathsMap"),
                "{..}",
                &format!("Member must have length less than or equal to {PATHS}"),
            ));
        }
        for (name, path) in &self.input_paths_map {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            if name.is_empty() || name.len() > 256 || !name.bytes().all(legal) {
                return Err(invalid(format!(
                    "InputPathsMap for target {target} contains an invalid key: {name}"
                )));
            }
            if name.to_ascii_lowercase().starts_with("aws") {
                return Err(invalid(format!(
                    "InputPathsMap for target {target} contains a reserved key: {name}"
                )));
            }
            if !is_path(path) {
                return Err(invalid(format!(
                    "Invalid InputPath for target {target} : '{path}'"
                )));
            }
        }
        let field = format!("{field}.inputTemplate");
        let template = required(&field, self.input_template.as_deref())?;
        if template.is_empty() {
            return Err(too_short(&field, template));
        }
        at_most(&field, Some(template), TEMPLATE)?;
        let known =
            |name: &&str| self.input_paths_map.contains_key(*name) || RESERVED.contains(name);
        match placeholders(template).into_iter().find(|name| !known(name)) {
            Some(unknown) => Err(invalid(format!(
                "InputTemplate for target {target} contains invalid placeholder {unknown}."
            ))),
            None => Ok(()),
        }
    }
}

/// What stands between a `<` and the next `>`: neither can be escaped.
fn placeholders(template: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = template;
    while let Some((_, behind)) = rest.split_once('<') {
        let Some((inside, after)) = behind.split_once('>') else {
            break;
        };
        // A `<` without an end of its own is text.
        found.push(inside.rsplit('<').next().unwrap_or(inside));
        rest = after;
    }
    found
}

/// `$`, `.name` and `[0]`, which is all of JSONPath that counts here.
fn is_path(path: &str) -> bool {
    let Some(mut rest) = path.strip_prefix('$') else {
        return false;
    };
    if path.len() > 256 {
        return false;
    }
    while !rest.is_empty() {
        if let Some(behind) = rest.strip_prefix('.') {
            let legal = |character: char| {
                character.is_ascii_alphanumeric() || matches!(character, '-' | '_')
            };
            let end = behind
                .find(|character| !legal(character))
                .unwrap_or(behind.len());
            if end == 0 {
                return false;
            }
            rest = &behind[end..];
        } else if let Some((index, behind)) = rest
            .strip_prefix('[')
            .and_then(|inside| inside.split_once(']'))
        {
            if index.is_empty() || !index.bytes().all(|byte| byte.is_ascii_digit()) {
                return false;
            }
            rest = behind;
        } else {
            return false;
        }
    }
    true
}

fn count(field: &str, entries: usize) -> Checked {
    match entries {
        0 => Err(too_short(field, "[]")),
        entries if entries > TARGETS => Err(constraint(
            field,
            "[..]",
            &format!("Member must have length less than or equal to {TARGETS}"),
        )),
        _ => Ok(()),
    }
}
