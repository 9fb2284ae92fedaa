//! The rules that say which alarms go to Slack, and their targets: where the events go, and as what.

use super::{EventBridgeContext, SlackPaths, deleted, refused};
use crate::{
    clients::aws::{
        Writer,
        error::{Call, DISTRUSTS, failed_entry},
        reading::is_missing,
    },
    engine::{
        error::{Class, Error, Result},
        gate::{Operation, WritePermit},
        informer::Snapshot,
        plan::{Change, Desired, Found, Owner, Verb},
        stage::{ChangeOf, Ids, ResultOf, Seen, Stage},
    },
    kinds::tenant::eventbridge::{
        desired::{ObservedRule, PathPart, Rule, RuleKey, RuleTarget, RuleValue, TargetKey},
        message::Transformer,
    },
};
use aws_sdk_eventbridge::{
    error::{BuildError, ProvideErrorMetadata as _},
    types as sdk,
};
use std::collections::{BTreeMap, BTreeSet};

/// The rules of one tenant in one place, and their targets. A rule that is ours has no others.
pub struct AlarmRules {
    /// What should be there.
    pub desired: Desired<RuleKey, RuleValue>,
    /// Where the events of each rule go, by the names of the API destinations.
    pub(super) feeds: BTreeMap<String, BTreeSet<String>>,
    pub(super) events: EventBridgeContext,
}

fn destination<'a>(ids: &'a Ids, name: &str) -> Option<&'a String> {
    ids.get::<SlackPaths>(&PathPart::Destination(name.to_owned()))
}

fn need<'a>(ids: &'a Ids, destination: &str) -> Result<&'a String> {
    ids.need::<SlackPaths>(&PathPart::Destination(destination.to_owned()))
}

impl AlarmRules {
    /// The rules, and the targets of those that are ours.
    fn found(&self, observed: &Snapshot<ObservedRule>, ids: &Ids) -> Result<Seen<Self>> {
        let names = self.events.paths.keys();
        let by_arn = names.filter_map(|name| Some((destination(ids, name)?, name)));
        let by_arn: BTreeMap<_, _> = by_arn.collect();
        let mut seen = Seen::<Self>::default();
        let found = |value, owner| Found {
            id: (),
            value,
            owner,
            live: (),
        };
        for (name, observed) in observed {
            let owner = match &observed.managed_by {
                Some(service) => Owner::Other(format!("{service}, which manages it")),
                None => self
                    .events
                    .ownership
                    .of_description(&observed.rule.description),
            };
            if owner == Owner::Us {
                let targets = observed.targets.as_ref().ok_or_else(|| {
                    Error::failing(format!("the targets of rule {name} have not been read yet"))
                })?;
                for (id, target) in targets {
                    let mut target = target.clone();
                    if let Some(name) = by_arn.get(&target.destination) {
                        target.destination = (*name).clone();
                    }
                    let key = TargetKey {
                        rule: name.clone(),
                        id: id.clone(),
                    };
                    let target = found(RuleValue::Target(target), Owner::Us);
                    seen.insert(RuleKey::Target(key), target);
                }
            }
            let rule = RuleValue::Rule(observed.rule.clone());
            seen.insert(RuleKey::Rule(name.clone()), found(rule, owner));
        }
        Ok(seen)
    }

    /// PutRule takes what is not said as taken back.
    async fn put_rule(
        &self,
        writer: &Writer<'_>,
        name: &str,
        to: &Rule,
        is_new: bool,
    ) -> Result<()> {
        let scope = &self.events.scope;
        let put = writer
            .put_rule()?
            .name(name)
            .event_pattern(to.pattern.to_string())
            .state(sdk::RuleState::from(to.state.as_str()))
            .description(&to.description);
        let outcome = writer.done(put.send().await);
        let known = scope.rules.get(name);
        let targets = match (&known, is_new) {
            (_, true) => Some(BTreeMap::new()),
            (Some(known), false) => known.targets.clone(),
            (None, false) => None,
        };
        let now = targets.map(|targets| ObservedRule {
            rule: to.clone(),
            managed_by: None,
            targets: Some(targets),
        });
        match (&outcome, now) {
            // Its targets were no concern of ours until now.
            (Ok(()), None) => scope.rules.invalidate(name),
            (outcome, now) => scope.rules.note(name, outcome.as_ref(), || now),
        }
        outcome
    }

    /// Changes what is known of a rule's targets by a write that went well.
    fn remember(
        &self,
        rule: &str,
        outcome: Result<(), &Error>,
        change: impl FnOnce(&mut BTreeMap<String, RuleTarget>),
    ) {
        let rules = &self.events.scope.rules;
        let known = rules.get(rule);
        if outcome.is_ok() && known.is_none_or(|known| known.targets.is_none()) {
            return rules.invalidate(rule);
        }
        rules.update(rule.to_owned(), outcome, |now| {
            now.targets.as_mut().map(change);
        });
    }

    async fn put_target(
        &self,
        writer: &Writer<'_>,
        key: &TargetKey,
        to: &RuleTarget,
        ids: &Ids,
    ) -> Result<()> {
        let arn = need(ids, &to.destination)?;
        let target = target(&key.id, arn, to)
            .map_err(|error| Error::failing(format!("building the target of a rule: {error}")))?;
        let put = writer.put_targets()?.rule(&key.rule);
        let outcome = match put.targets(target).send().await {
            Ok(answer) => {
                let entries = answer.failed_entries();
                let first = entries
                    .first()
                    .map(|it| [it.target_id(), it.error_code(), it.error_message()]);
                let outcome = failed(&writer.call, answer.failed_entry_count, first);
                let says = first.and_then(|[_, _, text]| text);
                let outcome = outcome.map_err(|error| passing(error, says, &to.role));
                let mut codes = entries.iter().filter_map(|entry| entry.error_code());
                if codes.any(|code| code.contains("ResourceNotFound")) {
                    // Where it was to go went meanwhile: the next look tells, and makes it again first.
                    self.events.scope.paths.invalidate(&to.destination);
                    outcome.map_err(|error| Error::failing(error.message))
                } else {
                    outcome
                }
            }
            Err(error) => {
                let says = error.as_service_error().and_then(|error| error.message());
                Err(passing(refused(writer, &error), says, &to.role))
            }
        };
        self.remember(&key.rule, outcome.as_ref().copied(), |targets| {
            let now = RuleTarget {
                destination: arn.to_owned(),
                ..to.clone()
            };
            targets.insert(key.id.clone(), now);
        });
        outcome
    }

    async fn remove_target(&self, writer: &Writer<'_>, key: &TargetKey) -> Result<()> {
        let remove = writer.remove_targets()?.rule(&key.rule);
        let outcome = match remove.ids(&key.id).send().await {
            Ok(answer) => {
                let first = answer.failed_entries().first();
                let first = first.map(|it| [it.target_id(), it.error_code(), it.error_message()]);
                failed(&writer.call, answer.failed_entry_count, first)
            }
            // With the rule its targets went.
            Err(error) if is_missing(&error) => {
                self.events.scope.rules.invalidate(&key.rule);
                return Ok(());
            }
            Err(error) => Err(writer.refusal(&error)),
        };
        self.remember(&key.rule, outcome.as_ref().copied(), |targets| {
            targets.remove(&key.id);
        });
        outcome
    }
}

/// A target as the SDK wants it.
fn target(id: &str, arn: &str, to: &RuleTarget) -> Result<sdk::Target, BuildError> {
    let Transformer { paths, template } = &to.message;
    let paths = paths
        .iter()
        .map(|(name, path)| (name.clone(), path.clone()));
    let transformer = sdk::InputTransformer::builder()
        .set_input_paths_map(Some(paths.collect()))
        .input_template(template)
        .build()?;
    let retry = sdk::RetryPolicy::builder()
        .set_maximum_event_age_in_seconds(to.max_age)
        .set_maximum_retry_attempts(to.max_attempts)
        .build();
    let dead_letters = Some(&to.dead_letters).filter(|arn| !arn.is_empty());
    let dead_letters = dead_letters.map(|arn| sdk::DeadLetterConfig::builder().arn(arn).build());
    sdk::Target::builder()
        .id(id)
        .arn(arn)
        .role_arn(&to.role)
        .input_transformer(transformer)
        .retry_policy(retry)
        .set_dead_letter_config(dead_letters)
        .build()
}

/// What the first entry that failed means, by its target, code and text as AWS gives them.
fn failed(call: &Call<'_>, count: i32, entry: Option<[Option<&str>; 3]>) -> Result<()> {
    match entry {
        None if count == 0 => Ok(()),
        None => Err(failed_entry(call, "", "FailedEntryCount is not 0")),
        Some([id, code, text]) => {
            let (id, text) = (id.unwrap_or_default(), text.unwrap_or("no reason given"));
            let text = format!("target {id}: {text}");
            Err(failed_entry(call, code.unwrap_or_default(), &text))
        }
    }
}

/// What is denied may be that we hand EventBridge the role that it is to assume, or that it does: AWS `says` which,
/// but not always of which role.
pub(super) fn passing(error: Error, says: Option<&str>, invoke: &str) -> Error {
    let (Class::Denied, Some(says)) = (error.class, says) else {
        return error;
    };
    let message = if says.contains("iam:PassRole") {
        format!(
            "{}, and iam:PassRole on {invoke} with the condition iam:PassedToService = events.amazonaws.com",
            error.message
        )
    } else if says.contains(DISTRUSTS) && !says.contains(invoke) {
        format!("{} (the role is {invoke})", error.message)
    } else {
        return error;
    };
    Error { message, ..error }
}

impl Stage for AlarmRules {
    const NAME: &'static str = "rule";
    const NOUNS: &'static [&'static str] = &[Self::NAME, "rule target"];
    const NEEDS: &'static [&'static str] = &[SlackPaths::NAME];
    type Key = RuleKey;
    type Value = RuleValue;
    type Id = ();
    type Live = ();

    fn noun(key: &RuleKey) -> &'static str {
        match key {
            RuleKey::Rule(_) => Self::NAME,
            RuleKey::Target(_) => "rule target",
        }
    }

    fn endpoint(&self) -> &str {
        &self.events.endpoint
    }

    fn desired(&self) -> &Desired<RuleKey, RuleValue> {
        &self.desired
    }

    /// Where no target leads to a path that was replaced, its hour begins.
    async fn observe(&self, ids: &Ids) -> Result<Seen<Self>> {
        let events = &self.events;
        let seen = self.found(&events.observed(&events.scope.rules).await?, ids)?;
        let used = seen.values().filter_map(|found| match &found.value {
            RuleValue::Target(target) => Some(target.destination.as_str()),
            RuleValue::Rule(_) => None,
        });
        let there = events.paths.keys().map(String::as_str);
        let there = there.filter(|name| destination(ids, name).is_some());
        events.retire(&there.collect(), &used.collect());
        Ok(seen)
    }

    async fn confirm(&self, keys: &BTreeSet<RuleKey>, ids: &Ids) -> Result<Option<Seen<Self>>> {
        let names = keys.iter().map(|key| key.rule().to_owned()).collect();
        let EventBridgeContext { scope, options, .. } = &self.events;
        let observed = scope.rules.confirm(&names, options).await?;
        observed
            .map(|observed| self.found(&observed, ids))
            .transpose()
    }

    fn refers_to(&self, key: &RuleKey, _: &RuleValue) -> BTreeSet<RuleKey> {
        match key {
            RuleKey::Rule(_) => BTreeSet::new(),
            RuleKey::Target(key) => [RuleKey::Rule(key.rule.clone())].into(),
        }
    }

    /// A rule that would tell nobody is not made: what is made has a path to go, and that stands in status.
    fn ready(&self, change: &ChangeOf<Self>, ids: &Ids) -> Result<()> {
        match change {
            Change::Create {
                key: RuleKey::Rule(name),
                ..
            } => {
                let mut feeds = self.feeds.get(name).into_iter().flatten();
                let first = feeds.clone().next();
                let there = feeds.find(|name| destination(ids, name).is_some());
                there
                    .or(first)
                    .map_or(Ok(()), |name| need(ids, name).map(drop))
            }
            Change::Create {
                to: RuleValue::Target(to),
                key,
            }
            | Change::Update {
                to: RuleValue::Target(to),
                key,
                ..
            } => {
                ids.need::<Self>(&RuleKey::Rule(key.rule().to_owned()))?;
                need(ids, &to.destination).map(drop)
            }
            _ => Ok(()),
        }
    }

    fn operation(&self, change: &ChangeOf<Self>) -> Operation<'_> {
        let api = match (change.key(), change.verb()) {
            (RuleKey::Rule(_), Verb::Delete) => "events:DeleteRule",
            (RuleKey::Rule(_), _) => "events:PutRule",
            (RuleKey::Target(_), Verb::Delete) => "events:RemoveTargets",
            (RuleKey::Target(_), _) => "events:PutTargets",
        };
        self.events.operation(api)
    }

    async fn apply(
        &self,
        permit: &WritePermit<'_>,
        change: &ChangeOf<Self>,
        ids: &Ids,
    ) -> ResultOf<Self> {
        let (writer, key) = (&self.events.writer(permit)?, change.key());
        let to = match change {
            Change::Create { to, .. } | Change::Update { to, .. } => Some(to),
            Change::Delete { .. } => None,
        };
        match (key, to) {
            (RuleKey::Rule(name), Some(RuleValue::Rule(to))) => {
                let is_new = change.verb() == Verb::Create;
                self.put_rule(writer, name, to, is_new).await?;
            }
            (RuleKey::Rule(name), None) => {
                let delete = writer.delete_rule()?.name(name);
                let outcome = deleted(writer, delete.send().await);
                let rules = &self.events.scope.rules;
                rules.note(name, outcome.as_ref(), || None);
                outcome?;
            }
            (RuleKey::Target(key), Some(RuleValue::Target(to))) => {
                self.put_target(writer, key, to, ids).await?;
            }
            (RuleKey::Target(key), None) => self.remove_target(writer, key).await?,
            (_, Some(_)) => {
                return Err(Error::failing("a rule is no target, and a target no rule"));
            }
        }
        Ok((change.verb() == Verb::Create).then_some(()))
    }
}
