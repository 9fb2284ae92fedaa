//! The targets of the tenant's rules: where the events go, and as what.

use super::{Destinations, EventBridgeContext, Rules, refused};
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
        plan::{Change, Desired, Found, Owner},
        stage::{ChangeOf, Ids, ResultOf, Seen, Stage},
    },
    kinds::tenant::eventbridge::{
        desired::{ObservedRule, RuleTarget, TargetKey},
        message::Transformer,
    },
};
use aws_sdk_eventbridge::{error::BuildError, types as sdk};
use std::collections::{BTreeMap, BTreeSet};

/// The targets of the tenant's rules. A rule that is ours has no others.
pub struct RuleTargets {
    /// What should be there.
    pub desired: Desired<TargetKey, RuleTarget>,
    pub(super) events: EventBridgeContext,
}

impl RuleTargets {
    /// Only those of rules that are there and ours.
    fn found(&self, observed: &Snapshot<ObservedRule>, ids: &Ids) -> Result<Seen<Self>> {
        let destinations = self.events.paths.keys().filter_map(|name| {
            let arn = ids.get::<Destinations>(name)?;
            Some((arn, name))
        });
        let destinations: BTreeMap<_, _> = destinations.collect();
        let mut seen = Seen::<Self>::default();
        for (rule, observed) in observed {
            if ids.get::<Rules>(rule).is_none() {
                continue;
            }
            let Some(targets) = &observed.targets else {
                return Err(Error::failing(format!(
                    "the targets of rule {rule} have not been read yet"
                )));
            };
            for (id, target) in targets {
                let ours = destinations.get(&target.destination);
                let destination = ours.map_or(&target.destination, |name| *name).clone();
                let key = TargetKey {
                    rule: rule.clone(),
                    id: id.clone(),
                };
                let found = Found {
                    id: (),
                    value: RuleTarget {
                        destination,
                        ..target.clone()
                    },
                    owner: Owner::Us,
                    live: (),
                };
                seen.insert(key, found);
            }
        }
        Ok(seen)
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

    async fn put(
        &self,
        writer: &Writer<'_>,
        key: &TargetKey,
        to: &RuleTarget,
        ids: &Ids,
    ) -> Result<()> {
        let arn = ids.need::<Destinations>(&to.destination)?;
        let target = target(&key.id, arn, to)
            .map_err(|error| Error::failing(format!("building the target of a rule: {error}")))?;
        let put = writer.eventbridge().put_targets().rule(&key.rule);
        let outcome = match put.targets(target).send().await {
            Ok(answer) => {
                let entries = answer.failed_entries();
                let outcome = failed(
                    &writer.call,
                    answer.failed_entry_count,
                    entries.iter().map(|entry| {
                        (entry.target_id(), entry.error_code(), entry.error_message())
                    }),
                );
                let mut codes = entries.iter().filter_map(|entry| entry.error_code());
                if codes.any(|code| code.contains("ResourceNotFound")) {
                    // Where it was to go went meanwhile: the next look tells, and makes it again first.
                    self.events.scope.paths.invalidate(&to.destination);
                    outcome.map_err(|error| Error::failing(error.message))
                } else {
                    outcome
                }
            }
            Err(error) => Err(refused(writer, &error)),
        };
        let outcome = outcome.map_err(|error| passing(error, &to.role));
        self.remember(&key.rule, outcome.as_ref().copied(), |targets| {
            let now = RuleTarget {
                destination: arn.to_owned(),
                ..to.clone()
            };
            targets.insert(key.id.clone(), now);
        });
        outcome
    }

    async fn remove(&self, writer: &Writer<'_>, key: &TargetKey) -> Result<()> {
        let remove = writer.eventbridge().remove_targets().rule(&key.rule);
        let outcome = match remove.ids(&key.id).send().await {
            Ok(answer) => failed(
                &writer.call,
                answer.failed_entry_count,
                answer
                    .failed_entries()
                    .iter()
                    .map(|entry| (entry.target_id(), entry.error_code(), entry.error_message())),
            ),
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

/// The entry of an answer that was otherwise good, and says of it that it failed.
fn failed<'a>(
    call: &Call<'_>,
    count: i32,
    mut entries: impl Iterator<Item = (Option<&'a str>, Option<&'a str>, Option<&'a str>)>,
) -> Result<()> {
    match entries.next() {
        None if count == 0 => Ok(()),
        None => Err(failed_entry(call, "", "FailedEntryCount is not 0")),
        Some((id, code, text)) => {
            let text = format!(
                "target {}: {}",
                id.unwrap_or_default(),
                text.unwrap_or("no reason given")
            );
            Err(failed_entry(call, code.unwrap_or_default(), &text))
        }
    }
}

/// What is denied may be that we hand EventBridge the role that it is to assume, or that it does. AWS does not
/// always say which role.
pub(super) fn passing(error: Error, invoke: &str) -> Error {
    if error.class != Class::Denied {
        return error;
    }
    let message = if error.message.contains("iam:PassRole") {
        format!(
            "{}, and iam:PassRole on {invoke} with the condition iam:PassedToService = events.amazonaws.com",
            error.message
        )
    } else if error.message.contains(DISTRUSTS) && !error.message.contains(invoke) {
        format!("{} (the role is {invoke})", error.message)
    } else {
        return error;
    };
    Error { message, ..error }
}

impl Stage for RuleTargets {
    const NAME: &'static str = "rule target";
    const NEEDS: &'static [&'static str] = &[Rules::NAME, Destinations::NAME];
    type Key = TargetKey;
    type Value = RuleTarget;
    type Id = ();
    type Live = ();

    fn endpoint(&self) -> &str {
        &self.events.endpoint
    }

    fn desired(&self) -> &Desired<TargetKey, RuleTarget> {
        &self.desired
    }

    /// Where no target leads to a way that was replaced, its hour begins.
    async fn observe(&self, ids: &Ids) -> Result<Seen<Self>> {
        let events = &self.events;
        let seen = self.found(&events.observed(&events.scope.rules).await?, ids)?;
        let used = seen.values().map(|found| found.value.destination.as_str());
        let there = events.paths.keys();
        let there = there.filter(|name| ids.get::<Destinations>(name).is_some());
        let there = there.map(String::as_str);
        events.retire(&there.collect(), &used.collect());
        Ok(seen)
    }

    async fn confirm(&self, keys: &BTreeSet<TargetKey>, ids: &Ids) -> Result<Option<Seen<Self>>> {
        // A rule that this run has made was looked for when it was made.
        let is_new = |key: &TargetKey| ids.is_new::<Rules>(&key.rule);
        if keys.iter().all(is_new) {
            return Ok(None);
        }
        let rules = keys.iter().map(|key| key.rule.clone()).collect();
        let EventBridgeContext { scope, options, .. } = &self.events;
        let Some(observed) = scope.rules.confirm(&rules, options).await? else {
            return Ok(None);
        };
        let mut found = self.found(&observed, ids)?;
        found.retain(|key, _| keys.contains(key));
        Ok(Some(found))
    }

    fn ready(&self, change: &ChangeOf<Self>, ids: &Ids) -> Result<()> {
        let to = match change {
            Change::Create { to, .. } | Change::Update { to, .. } => to,
            Change::Delete { .. } => return Ok(()),
        };
        ids.need::<Rules>(&change.key().rule)?;
        ids.need::<Destinations>(&to.destination).map(drop)
    }

    fn operation(&self, change: &ChangeOf<Self>) -> Operation<'_> {
        let api = match change {
            Change::Create { .. } | Change::Update { .. } => "events:PutTargets",
            Change::Delete { .. } => "events:RemoveTargets",
        };
        self.events.operation(api)
    }

    async fn apply(
        &self,
        permit: &WritePermit<'_>,
        change: &ChangeOf<Self>,
        ids: &Ids,
    ) -> ResultOf<Self> {
        let writer = &self.events.writer(permit)?;
        match change {
            Change::Create { key, to } | Change::Update { key, to, .. } => {
                self.put(writer, key, to, ids).await
            }
            Change::Delete { key, .. } => self.remove(writer, key).await,
        }
        .map(|()| None)
    }
}
