//! Rules: which events go to Slack.

use super::{Destinations, EventBridgeContext, deleted};
use crate::{
    clients::aws::Writer,
    engine::{
        error::{Error, Result},
        gate::{Operation, WritePermit},
        informer::Snapshot,
        plan::{Change, Desired, Found, Owner, Verb},
        stage::{ChangeOf, Ids, ResultOf, Seen, Stage},
    },
    kinds::{
        mark::TAG,
        tenant::eventbridge::desired::{ObservedRule, Rule, owner},
    },
};
use aws_sdk_eventbridge::types as sdk;
use std::collections::{BTreeMap, BTreeSet};

/// Rules: which events go to Slack.
pub struct Rules {
    /// What should be there.
    pub desired: Desired<String, Rule>,
    /// Where the events of each go, by the names of the API destinations.
    pub(super) feeds: BTreeMap<String, BTreeSet<String>>,
    pub(super) events: EventBridgeContext,
}

impl Rules {
    fn found(&self, observed: &Snapshot<ObservedRule>) -> Seen<Self> {
        let found = observed.iter().map(|(name, observed)| {
            let owner = match &observed.managed_by {
                Some(service) => Owner::Other(format!("{service}, which manages it")),
                None => owner(&observed.rule.description, &self.events.mark),
            };
            let found = Found {
                id: (),
                value: observed.rule.clone(),
                owner,
                live: (),
            };
            (name.clone(), found)
        });
        found.collect()
    }

    /// PutRule takes what is not said as taken back, and tags only where it makes a rule.
    async fn put(&self, writer: &Writer<'_>, name: &str, to: &Rule, is_new: bool) -> Result<()> {
        let events = &self.events;
        let put = writer.eventbridge().put_rule();
        let put = put
            .name(name)
            .event_pattern(to.pattern.to_string())
            .state(sdk::RuleState::from(to.state.as_str()))
            .description(&to.description);
        let put = if is_new {
            let tag = sdk::Tag::builder().key(TAG).value(events.mark.as_str());
            let tag = tag
                .build()
                .map_err(|error| Error::failing(format!("building the owner's tag: {error}")))?;
            put.tags(tag)
        } else {
            put
        };
        let outcome = put.send().await.map(drop);
        let outcome = outcome.map_err(|error| writer.refusal(&error));
        let known = events.scope.rules.get(name);
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
            (Ok(()), None) => events.scope.rules.invalidate(name),
            (outcome, now) => events.scope.rules.note(name, outcome.as_ref(), || now),
        }
        outcome
    }

    async fn delete(&self, writer: &Writer<'_>, name: &str) -> Result<()> {
        let events = &self.events;
        let delete = writer.eventbridge().delete_rule().name(name);
        let outcome = deleted(writer, delete.send().await);
        events.scope.rules.note(name, outcome.as_ref(), || None);
        outcome
    }
}

impl Stage for Rules {
    const NAME: &'static str = "rule";
    const NEEDS: &'static [&'static str] = &[Destinations::NAME];
    type Key = String;
    type Value = Rule;
    type Id = ();
    type Live = ();

    fn endpoint(&self) -> &str {
        &self.events.endpoint
    }

    fn desired(&self) -> &Desired<String, Rule> {
        &self.desired
    }

    async fn observe(&self, _: &Ids) -> Result<Seen<Self>> {
        Ok(self.found(&self.events.observed(&self.events.scope.rules).await?))
    }

    async fn confirm(&self, keys: &BTreeSet<String>, _: &Ids) -> Result<Option<Seen<Self>>> {
        let EventBridgeContext { scope, options, .. } = &self.events;
        let observed = scope.rules.confirm(keys, options).await?;
        Ok(observed.map(|observed| self.found(&observed)))
    }

    /// A rule that would tell nobody is not made: what is made has a way in, and a way in stands in status.
    fn ready(&self, change: &ChangeOf<Self>, ids: &Ids) -> Result<()> {
        if change.verb() != Verb::Create {
            return Ok(());
        }
        let feeds = self.feeds.get(change.key());
        let there = |name: &String| ids.get::<Destinations>(name).is_some();
        let found = feeds.and_then(|feeds| feeds.iter().find(|name| there(name)));
        match found.or_else(|| feeds?.first()) {
            Some(name) => ids.need::<Destinations>(name).map(drop),
            None => Ok(()),
        }
    }

    fn operation(&self, change: &ChangeOf<Self>) -> Operation<'_> {
        let api = match change {
            Change::Create { .. } | Change::Update { .. } => "events:PutRule",
            Change::Delete { .. } => "events:DeleteRule",
        };
        self.events.operation(api)
    }

    async fn apply(
        &self,
        permit: &WritePermit<'_>,
        change: &ChangeOf<Self>,
        _: &Ids,
    ) -> ResultOf<Self> {
        let writer = &self.events.writer(permit)?;
        match change {
            Change::Create { key, to } => self.put(writer, key, to, true).await.map(Some),
            Change::Update { key, to, .. } => self.put(writer, key, to, false).await.map(Some),
            Change::Delete { key, .. } => self.delete(writer, key).await.map(|()| None),
        }
    }
}
