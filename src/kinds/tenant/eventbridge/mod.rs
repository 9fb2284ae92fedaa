//! The way of a tenant's alarms into Slack: EventBridge rules, connections and API destinations. What is
//! watched of them in one scope. A scope in which nobody asks for any of it costs no call.

pub mod desired;
pub mod message;
pub mod report;
pub mod stages;

use crate::{
    clients::{
        aws::{
            Account, RoleAccess, classify,
            reading::{found, pages},
        },
        secret::Secret,
    },
    engine::{
        error::Result,
        informer::{PollRate, ReadOf, Source},
        limits::Priority,
    },
    kinds::mark::Mark,
};
use aws_sdk_eventbridge::types::{self as sdk, ConnectionAuthorizationType};
use desired::{
    ObservedConnection, ObservedDestination, ObservedPath, ObservedRule, Rule, RuleTarget,
};
use message::Transformer;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::time::Instant;

/// The rules of one scope whose names begin as somebody has asked for, with their targets.
pub struct Rules {
    account: Arc<Account>,
    turns: RoleAccess,
}

impl Rules {
    /// Of one scope.
    pub fn of(account: &Arc<Account>) -> Self {
        Self {
            turns: account.turns(),
            account: account.clone(),
        }
    }

    async fn list(&self, prefixes: &BTreeSet<String>, priority: Priority) -> Result<ReadOf<Self>> {
        let account = &self.account;
        let mut found = BTreeMap::new();
        for prefix in prefixes {
            let page = async |next| {
                let list = account.eventbridge().list_rules();
                let list = list.name_prefix(prefix).set_next_token(next);
                let call = account.read("events", "ListRules", priority).await?;
                let page = list.send().await.map_err(|error| classify(&call, &error))?;
                Ok(Some((page.rules.unwrap_or_default(), page.next_token)))
            };
            for rule in pages("ListRules", page).await?.unwrap_or_default() {
                let name = rule.name.clone().unwrap_or_default();
                let parts = Parts {
                    pattern: rule.event_pattern,
                    state: rule.state,
                    schedule: rule.schedule_expression,
                    description: rule.description,
                    managed_by: rule.managed_by,
                };
                let rule = self.observed(&name, parts, priority).await?;
                found.extend(rule.map(|rule| (name, rule)));
            }
        }
        Ok(found)
    }

    async fn find(&self, names: &BTreeSet<String>, priority: Priority) -> Result<ReadOf<Self>> {
        let account = &self.account;
        let mut rules = BTreeMap::new();
        for name in names {
            let call = account.read("events", "DescribeRule", priority).await?;
            let describe = account.eventbridge().describe_rule().name(name);
            let Some(rule) = found(&call, describe.send().await)? else {
                continue;
            };
            let parts = Parts {
                pattern: rule.event_pattern,
                state: rule.state,
                schedule: rule.schedule_expression,
                description: rule.description,
                managed_by: rule.managed_by,
            };
            let rule = self.observed(name, parts, priority).await?;
            rules.extend(rule.map(|rule| (name.clone(), rule)));
        }
        Ok(rules)
    }

    /// A rule with its targets; `None` if it went while we looked. Those of a rule without anybody's mark are
    /// not asked for.
    async fn observed(
        &self,
        name: &str,
        parts: Parts,
        priority: Priority,
    ) -> Result<Option<ObservedRule>> {
        let rule = parts.rule();
        let marked = Mark::in_description(&rule.description).is_some();
        let targets = if marked && parts.managed_by.is_none() {
            match self.targets(name, priority).await? {
                Some(targets) => Some(targets),
                None => return Ok(None),
            }
        } else {
            None
        };
        Ok(Some(ObservedRule {
            rule,
            managed_by: parts.managed_by,
            targets,
        }))
    }

    /// The targets of a rule; `None` if there is no such rule.
    async fn targets(
        &self,
        rule: &str,
        priority: Priority,
    ) -> Result<Option<BTreeMap<String, RuleTarget>>> {
        let account = &self.account;
        let page = async |next| {
            let list = account.eventbridge().list_targets_by_rule();
            let list = list.rule(rule).set_next_token(next);
            let call = account
                .read("events", "ListTargetsByRule", priority)
                .await?;
            let page = found(&call, list.send().await)?;
            Ok(page.map(|page| (page.targets.unwrap_or_default(), page.next_token)))
        };
        let listed = pages("ListTargetsByRule", page).await?;
        let named = |target: sdk::Target| (target.id.clone(), rule_target(target));
        Ok(listed.map(|targets| targets.into_iter().map(named).collect()))
    }
}

/// What both ways to read a rule answer with.
struct Parts {
    pattern: Option<String>,
    state: Option<sdk::RuleState>,
    schedule: Option<String>,
    description: Option<String>,
    managed_by: Option<String>,
}

impl Parts {
    fn rule(&self) -> Rule {
        let pattern = self.pattern.as_deref().unwrap_or_default();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Rule {
            pattern: serde_json::from_str(pattern).unwrap_or_default(),
            state: self
                .state
                .as_ref()
                .map_or(desired::ENABLED, |state| state.as_str())
                .to_owned(),
            schedule: text(&self.schedule),
            description: text(&self.description),
        }
    }
}

/// A target with the ARN of its destination for its name.
fn rule_target(target: sdk::Target) -> RuleTarget {
    let foreign = [
        ("AppSyncParameters", target.app_sync_parameters.is_some()),
        ("BatchParameters", target.batch_parameters.is_some()),
        ("EcsParameters", target.ecs_parameters.is_some()),
        ("HttpParameters", target.http_parameters.is_some()),
        ("Input", target.input.is_some()),
        ("InputPath", target.input_path.is_some()),
        ("KinesisParameters", target.kinesis_parameters.is_some()),
        ("SqsParameters", target.sqs_parameters.is_some()),
    ];
    let foreign = foreign.into_iter().filter(|(_, is_set)| *is_set);
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
        foreign: foreign.map(|(name, _)| name).collect(),
    }
}

impl Source for Rules {
    type Key = String;
    type Value = ObservedRule;
    const ENUMERATES: bool = false;
    const POLL_RATE: PollRate = PollRate::Slow;

    async fn read(&self, asked: &BTreeSet<String>, priority: Priority) -> Result<ReadOf<Self>> {
        self.account
            .read_afresh(|| self.list(asked, priority))
            .await
    }

    async fn read_some(&self, keys: &BTreeSet<String>, priority: Priority) -> Result<ReadOf<Self>> {
        self.account.read_afresh(|| self.find(keys, priority)).await
    }

    async fn invalidated(&self) {
        self.turns.next().await;
    }
}

/// The connections and API destinations of one scope whose names begin as somebody has asked for. Both have
/// the same name.
pub struct Paths {
    account: Arc<Account>,
    turns: RoleAccess,
    /// The connections that have been written again since they were seen to be refused, by name.
    pub revived: Mutex<BTreeSet<String>>,
    /// Until when the ways into Slack stay that have been replaced, by the names of their connections. Whoever
    /// does not know counts anew.
    pub retired: Mutex<BTreeMap<String, Instant>>,
}

impl Paths {
    /// Of one scope.
    pub fn of(account: &Arc<Account>) -> Self {
        Self {
            turns: account.turns(),
            account: account.clone(),
            revived: Mutex::default(),
            retired: Mutex::default(),
        }
    }

    /// The names of the connections that begin so. Whose they are, only a look at each says.
    async fn connections(&self, prefix: &str, priority: Priority) -> Result<BTreeSet<String>> {
        let account = &self.account;
        let page = async |next| {
            let list = account.eventbridge().list_connections();
            let list = list.name_prefix(prefix).set_next_token(next);
            let call = account.read("events", "ListConnections", priority).await?;
            let page = list.send().await.map_err(|error| classify(&call, &error))?;
            let names = page.connections.into_iter().flatten();
            Ok(Some((
                names.filter_map(|it| it.name).collect(),
                page.next_token,
            )))
        };
        let listed = pages("ListConnections", page).await?;
        Ok(listed.into_iter().flatten().collect())
    }

    /// The same of API destinations.
    async fn destinations(&self, prefix: &str, priority: Priority) -> Result<BTreeSet<String>> {
        let account = &self.account;
        let page = async |next| {
            let list = account.eventbridge().list_api_destinations();
            let list = list.name_prefix(prefix).set_next_token(next);
            let call = account
                .read("events", "ListApiDestinations", priority)
                .await?;
            let page = list.send().await.map_err(|error| classify(&call, &error))?;
            let names = page.api_destinations.into_iter().flatten();
            Ok(Some((
                names.filter_map(|it| it.name).collect(),
                page.next_token,
            )))
        };
        let listed = pages("ListApiDestinations", page).await?;
        Ok(listed.into_iter().flatten().collect())
    }

    async fn connection(
        &self,
        name: &str,
        priority: Priority,
    ) -> Result<Option<ObservedConnection>> {
        let account = &self.account;
        let describe = account.eventbridge().describe_connection().name(name);
        let call = account
            .read("events", "DescribeConnection", priority)
            .await?;
        let found = found(&call, describe.send().await)?;
        Ok(found.map(|found| {
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
            }
        }))
    }

    async fn destination(
        &self,
        name: &str,
        priority: Priority,
    ) -> Result<Option<ObservedDestination>> {
        let account = &self.account;
        let describe = account.eventbridge().describe_api_destination();
        let call = account
            .read("events", "DescribeApiDestination", priority)
            .await?;
        let found = found(&call, describe.name(name).send().await)?;
        Ok(found.map(|found| ObservedDestination {
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
        &self,
        connections: &BTreeSet<String>,
        destinations: &BTreeSet<String>,
        priority: Priority,
    ) -> Result<ReadOf<Self>> {
        let mut found = BTreeMap::<String, ObservedPath>::new();
        for name in connections {
            if let Some(connection) = self.connection(name, priority).await? {
                found.entry(name.clone()).or_default().connection = Some(connection);
            }
        }
        for name in destinations {
            if let Some(destination) = self.destination(name, priority).await? {
                found.entry(name.clone()).or_default().destination = Some(destination);
            }
        }
        Ok(found)
    }

    async fn list(&self, prefixes: &BTreeSet<String>, priority: Priority) -> Result<ReadOf<Self>> {
        let mut found = BTreeMap::new();
        for prefix in prefixes {
            let connections = self.connections(prefix, priority).await?;
            let destinations = self.destinations(prefix, priority).await?;
            found.extend(self.find(&connections, &destinations, priority).await?);
        }
        Ok(found)
    }
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

impl Source for Paths {
    type Key = String;
    type Value = ObservedPath;
    const ENUMERATES: bool = false;
    const POLL_RATE: PollRate = PollRate::Slow;

    async fn read(&self, asked: &BTreeSet<String>, priority: Priority) -> Result<ReadOf<Self>> {
        self.account
            .read_afresh(|| self.list(asked, priority))
            .await
    }

    async fn read_some(&self, keys: &BTreeSet<String>, priority: Priority) -> Result<ReadOf<Self>> {
        self.account
            .read_afresh(|| self.find(keys, keys, priority))
            .await
    }

    /// A connection that has just been written to is authorized within seconds, and its destination then
    /// becomes active.
    fn is_unsettled(path: &ObservedPath) -> bool {
        let connection = path.connection.as_ref();
        let moving = connection.is_some_and(ObservedConnection::is_moving);
        let barred = connection.is_none_or(ObservedConnection::is_barred);
        let destination = path.destination.as_ref();
        moving || !barred && destination.is_some_and(|destination| !destination.active)
    }

    async fn invalidated(&self) {
        self.turns.next().await;
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
