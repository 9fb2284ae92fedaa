//! The path of a tenant's alarms into Slack: EventBridge rules, connections and API destinations. How they are read in
//! one scope. A scope in which nobody asks for any of it costs no call.

pub mod attributes;
pub mod desired;
pub mod message;
pub mod report;
pub mod stages;

use crate::{
    clients::{
        aws::reading::{ReadBy, Reader, Reads, pages},
        secret::Secret,
    },
    engine::error::Result,
    kinds::mark::Mark,
};
use attributes::{foreign_to_connection, foreign_to_target};
use aws_sdk_eventbridge::types::{self as sdk, ConnectionAuthorizationType};
use desired::{
    ObservedConnection, ObservedDestination, ObservedPath, ObservedRule, Rule, RuleTarget,
};
use jiff::Timestamp;
use message::Transformer;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

/// The rules of one scope whose names begin as somebody has asked for, with their targets.
pub struct Rules;

/// A rule as it is listed or described, and the AWS service that looks after it.
macro_rules! rule {
    ($rule:expr) => {{
        let state = $rule.state.as_ref();
        let rule = Rule {
            pattern: serde_json::from_str(&$rule.event_pattern.unwrap_or_default())
                .unwrap_or_default(),
            state: state.map_or(desired::ENABLED, |it| it.as_str()).to_owned(),
            schedule: $rule.schedule_expression.unwrap_or_default(),
            role: $rule.role_arn.unwrap_or_default(),
            description: $rule.description.unwrap_or_default(),
        };
        (rule, $rule.managed_by)
    }};
}

/// A rule with its targets; `None` if it went while we looked. Those of a rule without anybody's mark are not asked
/// for.
async fn with_targets(
    by: &Reads<'_>,
    name: &str,
    (rule, managed_by): (Rule, Option<String>),
) -> Result<Option<ObservedRule>> {
    let marked = Mark::in_description(&rule.description).is_some();
    let targets = if marked && managed_by.is_none() {
        match targets(by, name).await? {
            Some(targets) => Some(targets),
            None => return Ok(None),
        }
    } else {
        None
    };
    Ok(Some(ObservedRule {
        rule,
        managed_by,
        targets,
    }))
}

/// The targets of a rule; `None` if there is no such rule.
async fn targets(by: &Reads<'_>, rule: &str) -> Result<Option<BTreeMap<String, RuleTarget>>> {
    let api = "events:ListTargetsByRule";
    let page = async |next| {
        let list = by.targets().rule(rule).set_next_token(next);
        let page = by.find(api, list.send()).await?;
        Ok(page.map(|page| (page.targets.unwrap_or_default(), page.next_token)))
    };
    let named = |target: sdk::Target| (target.id.clone(), rule_target(target));
    let listed = pages(api, page).await?;
    Ok(listed.map(|targets| targets.into_iter().map(named).collect()))
}

/// A target with the ARN of its destination for its name.
fn rule_target(target: sdk::Target) -> RuleTarget {
    let foreign = foreign_to_target(&target);
    let retry = target.retry_policy;
    let transformer = target.input_transformer;
    RuleTarget {
        destination: target.arn,
        role: target.role_arn.unwrap_or_default(),
        dead_letters: target
            .dead_letter_config
            .and_then(|config| config.arn)
            .unwrap_or_default(),
        max_age: retry
            .as_ref()
            .and_then(|retry| retry.maximum_event_age_in_seconds),
        max_attempts: retry
            .as_ref()
            .and_then(|retry| retry.maximum_retry_attempts),
        message: transformer.map_or_else(Transformer::default, |transformer| Transformer {
            paths: transformer
                .input_paths_map
                .unwrap_or_default()
                .into_iter()
                .collect(),
            template: transformer.input_template,
        }),
        foreign,
    }
}

impl Reader for Rules {
    type Key = String;
    type Value = ObservedRule;

    async fn read(&self, by: &Reads<'_>, asked: &BTreeSet<String>) -> Result<ReadBy<Self>> {
        let api = "events:ListRules";
        let mut found = BTreeMap::new();
        for prefix in asked {
            let page = async |next| {
                let list = by.rules().name_prefix(prefix).set_next_token(next);
                let page = by.list(api, list.send()).await?;
                Ok(Some((page.rules.unwrap_or_default(), page.next_token)))
            };
            for rule in pages(api, page).await?.unwrap_or_default() {
                let name = rule.name.clone().unwrap_or_default();
                let rule = with_targets(by, &name, rule!(rule)).await?;
                found.extend(rule.map(|rule| (name, rule)));
            }
        }
        Ok(found)
    }

    async fn read_some(&self, by: &Reads<'_>, keys: &BTreeSet<String>) -> Result<ReadBy<Self>> {
        let mut rules = BTreeMap::new();
        for name in keys {
            let describe = by.rule().name(name);
            if let Some(rule) = by.find("events:DescribeRule", describe.send()).await? {
                let rule = with_targets(by, name, rule!(rule)).await?;
                rules.extend(rule.map(|rule| (name.clone(), rule)));
            }
        }
        Ok(rules)
    }
}

/// The connections and API destinations of one scope whose names begin as somebody has asked for. Both have
/// the same name.
#[derive(Default)]
pub struct Paths {
    /// The connections that have been written again since they were seen to be refused, by name.
    pub reauthorized: Mutex<BTreeSet<String>>,
    /// Until when the paths stay that have been replaced, by name. A process that does not know counts anew.
    pub retired: Mutex<BTreeMap<String, Instant>>,
}

/// The names of all that begin so. Whose they are, only a look at each says.
macro_rules! names {
    ($by:ident, $call:ident, $api:literal, $prefix:ident) => {{
        let page = async |next| {
            let list = $by.$call().name_prefix($prefix).set_next_token(next);
            let page = $by.list($api, list.send()).await?;
            let named = page.$call.into_iter().flatten();
            Ok(Some((
                named.filter_map(|it| it.name).collect(),
                page.next_token,
            )))
        };
        let listed: Option<Vec<String>> = pages($api, page).await?;
        listed.into_iter().flatten().collect::<BTreeSet<_>>()
    }};
}

async fn connection(by: &Reads<'_>, name: &str) -> Result<Option<ObservedConnection>> {
    let describe = by.connection().name(name);
    let found = by.find("events:DescribeConnection", describe.send());
    Ok(found.await?.map(|found| {
        let foreign = foreign_to_connection(&found);
        let modified = found.last_modified_time;
        let is_key = found.authorization_type == Some(ConnectionAuthorizationType::ApiKey);
        let key = found
            .auth_parameters
            .and_then(|parameters| parameters.api_key_auth_parameters);
        ObservedConnection {
            arn: found.connection_arn.unwrap_or_default(),
            header: key
                .filter(|_| is_key)
                .and_then(|key| key.api_key_name)
                .unwrap_or_default(),
            state: connection_state(found.connection_state.as_ref()),
            reason: found.state_reason.unwrap_or_default(),
            description: found.description.unwrap_or_default(),
            foreign,
            modified: modified.and_then(|at| Timestamp::from_second(at.secs()).ok()),
        }
    }))
}

async fn destination(by: &Reads<'_>, name: &str) -> Result<Option<ObservedDestination>> {
    let describe = by.api_destination().name(name);
    let found = by.find("events:DescribeApiDestination", describe.send());
    Ok(found.await?.map(|found| ObservedDestination {
        arn: found.api_destination_arn.unwrap_or_default(),
        url: Secret::new(found.invocation_endpoint.unwrap_or_default()),
        method: found
            .http_method
            .map(|method| method.as_str().to_owned())
            .unwrap_or_default(),
        // What EventBridge does where nothing is said.
        per_second: found.invocation_rate_limit_per_second.unwrap_or(300),
        connection: found.connection_arn.unwrap_or_default(),
        active: is_active(found.api_destination_state.as_ref()),
        description: found.description.unwrap_or_default(),
    }))
}

async fn find(
    by: &Reads<'_>,
    connections: &BTreeSet<String>,
    destinations: &BTreeSet<String>,
) -> Result<ReadBy<Paths>> {
    let mut found = BTreeMap::<String, ObservedPath>::new();
    for name in connections {
        if let Some(connection) = connection(by, name).await? {
            found.entry(name.clone()).or_default().connection = Some(connection);
        }
    }
    for name in destinations {
        if let Some(destination) = destination(by, name).await? {
            found.entry(name.clone()).or_default().destination = Some(destination);
        }
    }
    Ok(found)
}

/// A connection's state as AWS calls it; where it says nothing, that it is at work.
fn connection_state(state: Option<&sdk::ConnectionState>) -> String {
    state
        .map_or(desired::AUTHORIZED, |state| state.as_str())
        .to_owned()
}

/// Whether an API destination can be called; where AWS says nothing, that it can.
fn is_active(state: Option<&sdk::ApiDestinationState>) -> bool {
    state.is_none_or(|state| *state == sdk::ApiDestinationState::Active)
}

impl Reader for Paths {
    type Key = String;
    type Value = ObservedPath;

    async fn read(&self, by: &Reads<'_>, asked: &BTreeSet<String>) -> Result<ReadBy<Self>> {
        let mut found = BTreeMap::new();
        for prefix in asked {
            let connections = names!(by, connections, "events:ListConnections", prefix);
            let api = names!(by, api_destinations, "events:ListApiDestinations", prefix);
            found.extend(find(by, &connections, &api).await?);
        }
        Ok(found)
    }

    async fn read_some(&self, by: &Reads<'_>, keys: &BTreeSet<String>) -> Result<ReadBy<Self>> {
        find(by, keys, keys).await
    }

    /// A connection that has just been written to is authorized within seconds, and its destination then
    /// becomes active.
    fn is_unsettled(path: &ObservedPath) -> bool {
        let connection = path.connection.as_ref();
        let moving = connection.is_some_and(ObservedConnection::is_pending);
        let barred = connection.is_none_or(ObservedConnection::is_deauthorized);
        let destination = path.destination.as_ref();
        moving || !barred && destination.is_some_and(|destination| !destination.active)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_by_itself_is_looked_at_sooner() {
        let path = |state: &str, active: bool| ObservedPath {
            connection: Some(ObservedConnection {
                arn: String::new(),
                header: String::new(),
                state: state.into(),
                reason: String::new(),
                description: String::new(),
                foreign: Default::default(),
                modified: None,
            }),
            destination: Some(ObservedDestination {
                arn: String::new(),
                url: Secret::new(String::new()),
                method: String::new(),
                per_second: 1,
                connection: String::new(),
                active,
                description: String::new(),
            }),
        };
        for (state, active, unsettled) in [
            ("AUTHORIZED", true, false),
            ("AUTHORIZED", false, true),
            ("AUTHORIZING", true, true),
            ("CREATING", false, true),
            ("DELETING", true, true),
            // That needs somebody's write.
            ("DEAUTHORIZED", false, false),
            ("FAILED_CONNECTIVITY", false, false),
        ] {
            assert_eq!(
                Paths::is_unsettled(&path(state, active)),
                unsettled,
                "{state}"
            );
        }
        let alone = ObservedPath {
            connection: None,
            ..path("", false)
        };
        assert!(!Paths::is_unsettled(&alone));
    }

    #[test]
    fn a_target_is_read_whole() {
        let transformer = sdk::InputTransformer::builder()
            .input_paths_map("a", "$.detail.alarmName")
            .input_template("<a>")
            .build()
            .unwrap();
        let target = sdk::Target::builder()
            .id("alerts")
            .arn("arn:aws:events:us-east-2:222233334444:api-destination/x/uuid")
            .role_arn("arn:aws:iam::222233334444:role/campanile-events")
            .input_transformer(transformer)
            .input_path("$.detail")
            .dead_letter_config(sdk::DeadLetterConfig::builder().arn("dlq").build())
            .retry_policy(
                sdk::RetryPolicy::builder()
                    .maximum_event_age_in_seconds(3600)
                    .maximum_retry_attempts(185)
                    .build(),
            )
            .build()
            .unwrap();
        let read = rule_target(target);
        assert_eq!(read.foreign, ["InputPath"].into());
        assert_eq!((read.max_age, read.max_attempts), (Some(3600), Some(185)));
        assert_eq!(
            (read.dead_letters.as_str(), read.message.template.as_str()),
            ("dlq", "<a>")
        );
        assert_eq!(read.message.paths["a"], "$.detail.alarmName");
        let bare = sdk::Target::builder().id("x").arn("arn").build().unwrap();
        let bare = rule_target(bare);
        assert_eq!(bare.message, Transformer::default());
        assert_eq!((bare.role.as_str(), bare.max_age), ("", None));
    }
}
