//! What Slack publishes of its API, as the judge of our requests and of this stand-in's answers.
//!
//! The data is not ours and not in the repository: it is read from `CAMPANILE_SPECS`, or from `shared/specs` beside the checkout.
//! Without it nothing is judged but what the stand-in's own rules say, and that is told loudly.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};
use jsonschema::Validator;
use serde_json::Value;

use super::arguments::{Arguments, Written};
use crate::install;

const FILE: &str = "slack-contract.json";
/// So much of a violation is shown.
const LONGEST: usize = 400;

struct Method {
    form: Validator,
    /// None where Slack ignores JSON.
    json: Option<Validator>,
    response: Validator,
    errors: BTreeSet<String>,
    scopes: BTreeSet<String>,
    #[cfg(test)]
    per_minute: Option<u32>,
}

/// The contract, compiled.
pub(super) struct Contract {
    methods: BTreeMap<String, Method>,
    common: BTreeSet<String>,
    failure: Validator,
    webhook: Validator,
    /// Status and text.
    webhook_answers: BTreeSet<(u16, String)>,
}

fn file() -> PathBuf {
    let directory = std::env::var_os("CAMPANILE_SPECS").map_or_else(
        || install::workspace().join("../shared/specs"),
        PathBuf::from,
    );
    directory.join(FILE)
}

/// The contract, read once; `None` where the file is not there.
pub(super) fn contract() -> Result<Option<&'static Contract>> {
    static CONTRACT: OnceLock<Result<Option<Contract>, String>> = OnceLock::new();
    let read = || {
        let file = file();
        if !file.exists() {
            install::progress(&format!(
                "SLACK IS NOT JUDGED: {} is missing, so requests and answers are not checked against Slack's contract; CAMPANILE_SPECS \
                 names the directory that holds it",
                file.display()
            ));
            return Ok(None);
        }
        let context = || format!("{} is not what it should be", file.display());
        let text = std::fs::read_to_string(&file).with_context(context);
        text.and_then(|text| Contract::read(&text).with_context(context))
            .map(Some)
            .map_err(|error| format!("{error:#}"))
    };
    match CONTRACT.get_or_init(read) {
        Ok(contract) => Ok(contract.as_ref()),
        Err(error) => Err(anyhow!("{error}")),
    }
}

fn compile(schema: &Value) -> Result<Validator> {
    jsonschema::validator_for(schema).map_err(|error| anyhow!("{error}"))
}

fn words(list: &Value) -> BTreeSet<String> {
    let words = list.as_array().into_iter().flatten();
    words.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn complaints(validator: &Validator, value: &Value) -> Vec<String> {
    let complaint = |error: jsonschema::ValidationError<'_>| {
        let place = error.instance_path().to_string();
        let text: String = error.to_string().chars().take(LONGEST).collect();
        if place.is_empty() {
            text
        } else {
            format!("{place}: {text}")
        }
    };
    validator.iter_errors(value).map(complaint).collect()
}

impl Contract {
    fn read(text: &str) -> Result<Self> {
        let all: Value = serde_json::from_str(text)?;
        let methods = all["methods"].as_object().context("no methods")?;
        let mut compiled = BTreeMap::new();
        for (name, method) in methods {
            let of = |part: &str| compile(&method[part]).with_context(|| format!("{name}: {part}"));
            let mut errors = words(&method["errors"]);
            errors.extend(
                method["errors_extra"]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(error, _)| error.clone()),
            );
            let json = if method["json"].is_null() {
                None
            } else {
                Some(of("json")?)
            };
            let method = Method {
                form: of("form")?,
                json,
                response: of("response")?,
                errors,
                scopes: words(&method["scopes"]["bot_any_of"]),
                #[cfg(test)]
                per_minute: method["per_minute"]
                    .as_u64()
                    .and_then(|rate| u32::try_from(rate).ok()),
            };
            compiled.insert(name.clone(), method);
        }
        let webhooks = &all["incoming_webhooks"];
        let answers = webhooks["errors"].as_array().into_iter().flatten();
        let answers = answers
            .chain(std::iter::once(&webhooks["success"]))
            .filter_map(|answer| {
                let status = u16::try_from(answer["status"].as_u64()?).ok()?;
                Some((
                    status,
                    answer["body"].as_str().unwrap_or_default().to_owned(),
                ))
            });
        Ok(Self {
            methods: compiled,
            common: words(&all["_common_errors"]),
            failure: compile(&all["_error_response"])?,
            webhook: compile(&webhooks["request"])?,
            webhook_answers: answers.collect(),
        })
    }

    /// What is wrong with a request.
    pub(super) fn request(&self, method: &str, arguments: &Arguments) -> Vec<String> {
        let Some(known) = self.methods.get(method) else {
            return vec!["no such method in the contract".to_owned()];
        };
        match (arguments.written, &known.json) {
            (Written::Form, _) => complaints(&known.form, &arguments.as_json()),
            (Written::Json, Some(json)) => complaints(json, &arguments.as_json()),
            // The method sees nothing of it: see `Method::unheard`.
            (Written::Json, None) => Vec::new(),
        }
    }

    /// What is wrong with an answer to a caller who has `scopes`.
    pub(super) fn answer(
        &self,
        method: &str,
        answer: &Value,
        scopes: &BTreeSet<String>,
    ) -> Vec<String> {
        let Some(known) = self.methods.get(method) else {
            return Vec::new();
        };
        if answer["ok"] == true {
            let mut found = complaints(&known.response, answer);
            if !known.scopes.is_empty() && known.scopes.is_disjoint(scopes) {
                found.push("it was let through without a scope".to_owned());
            }
            return found;
        }
        let mut found = complaints(&self.failure, answer);
        let error = answer["error"].as_str().unwrap_or_default();
        if !known.errors.contains(error) && !self.common.contains(error) {
            found.push(format!("the method has no error {error}"));
        }
        found
    }

    pub(super) fn webhook_request(&self, arguments: &Arguments) -> Vec<String> {
        complaints(&self.webhook, &arguments.as_json())
    }

    pub(super) fn webhook_answer(&self, status: u16, text: &str) -> Vec<String> {
        if self.webhook_answers.contains(&(status, text.to_owned())) {
            return Vec::new();
        }
        vec![format!("a webhook does not answer {status} {text}")]
    }
}

#[cfg(test)]
mod tests {
    use super::super::methods;
    use super::super::rates::Rate;
    use super::*;

    #[test]
    fn the_stand_in_asks_for_no_more_than_the_contract_and_no_less() {
        let Some(contract) = contract().unwrap() else {
            return;
        };
        for method in methods::all() {
            let known = contract
                .methods
                .get(method.name)
                .unwrap_or_else(|| panic!("{}", method.name));
            assert_eq!(method.takes_json, known.json.is_some(), "{}", method.name);
            assert_eq!(
                method.scopes.is_empty(),
                known.scopes.is_empty(),
                "{}",
                method.name
            );
            for scope in method.scopes {
                assert!(known.scopes.contains(*scope), "{} {scope}", method.name);
            }
            if let (Rate::PerMinute(rate), Some(published)) = (method.rate, known.per_minute) {
                assert_eq!(rate, published, "{}", method.name);
            }
            for name in method.required.iter().chain(method.optional) {
                let mut arguments = Arguments::none();
                arguments.values.insert((*name).to_owned(), "\u{1}".into());
                let complaints = contract.request(method.name, &arguments).join("\n");
                assert!(
                    !complaints.contains("Additional properties"),
                    "{}: {complaints}",
                    method.name
                );
            }
            let without = contract.request(method.name, &Arguments::none()).join("\n");
            for name in method.required {
                assert!(
                    without.contains(&format!("\"{name}\" is a required")),
                    "{}: {without}",
                    method.name
                );
            }
        }
    }

    #[test]
    fn a_slip_is_seen() {
        let Some(contract) = contract().unwrap() else {
            return;
        };
        let mut arguments = Arguments::none();
        arguments
            .values
            .insert("channel".to_owned(), "#general".into());
        arguments.values.insert("chanel".to_owned(), "C0123".into());
        let complaints = contract.request("conversations.archive", &arguments);
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert_eq!(
            contract.request("chat.meMessage", &arguments),
            ["no such method in the contract"]
        );
        let judge = |answer: Value| {
            contract.answer(
                "conversations.archive",
                &answer,
                &BTreeSet::from(["channels:manage".to_owned()]),
            )
        };
        assert!(judge(serde_json::json!({"ok": true})).is_empty());
        assert!(judge(serde_json::json!({"ok": false, "error": "already_archived"})).is_empty());
        assert!(judge(serde_json::json!({"ok": false, "error": "token_revoked"})).is_empty());
        assert_eq!(
            judge(serde_json::json!({"ok": false, "error": "name_taken"})).len(),
            1
        );
        assert_eq!(judge(serde_json::json!({"ok": "yes"})).len(), 3);
        assert!(
            contract.webhook_answer(200, "ok").is_empty()
                && contract.webhook_answer(429, "").is_empty()
        );
        assert_eq!(contract.webhook_answer(200, "no_text").len(), 1);
    }
}
