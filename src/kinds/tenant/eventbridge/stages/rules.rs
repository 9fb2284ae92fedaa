//! Rules: which events go to Slack.

use super::{Destinations, Ground, remember};
use crate::{
    clients::aws::classify,
    engine::{
        error::{Error, Result},
        informer::Snapshot,
        plan::{Change, Desired, Found, Owner, Verb},
        stage::{Applied, ChangeOf, Ids, Operation, Seen, Stage},
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
    pub(super) ground: Ground,
}

impl Rules {
    fn found(&self, observed: &Snapshot<ObservedRule>) -> Seen<Self> {
        let found = observed.iter().map(|(name, observed)| {
            let owner = match &observed.managed_by {
                Some(service) => Owner::Other(format!("{service}, which manages it")),
                None => owner(&observed.rule.description, &self.ground.mark),
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
    async fn put(&self, name: &str, to: &Rule, is_new: bool) -> Result<()> {
        let ground = &self.ground;
        let put = ground.eventbridge().put_rule();
        let put = put
            .name(name)
            .event_pattern(to.pattern.to_string())
            .state(sdk::RuleState::from(to.state.as_str()))
            .description(&to.description);
        let put = if is_new {
            let tag = sdk::Tag::builder().key(TAG).value(ground.mark.as_str());
            let tag = tag
                .build()
                .map_err(|error| Error::failing(format!("building the owner's tag: {error}")))?;
            put.tags(tag)
        } else {
            put
        };
        let outcome = put.send().await.map(drop);
        let outcome = outcome.map_err(|error| classify(&ground.call("PutRule"), &error));
        let known = ground.watch.rules.known(name).remove(name);
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
            (Ok(()), None) => ground.watch.rules.doubt(name),
            (outcome, now) => {
                remember(&ground.watch.rules, name, outcome.as_ref().copied(), || now);
            }
        }
        outcome
    }

    async fn delete(&self, name: &str) -> Result<()> {
        let ground = &self.ground;
        let delete = ground.eventbridge().delete_rule().name(name);
        let outcome = ground.deleted("DeleteRule", delete.send().await);
        remember(&ground.watch.rules, name, outcome.as_ref().copied(), || {
            None
        });
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

    fn scope(&self) -> &str {
        &self.ground.scope
    }

    fn desired(&self) -> &Desired<String, Rule> {
        &self.desired
    }

    async fn observe(&self, _: &Ids) -> Result<Seen<Self>> {
        Ok(self.found(&self.ground.observed(&self.ground.watch.rules).await?))
    }

    async fn confirm(&self, keys: &BTreeSet<String>, _: &Ids) -> Result<Option<Seen<Self>>> {
        let observed = self
            .ground
            .confirmed(&self.ground.watch.rules, keys)
            .await?;
        Ok(observed.map(|observed| self.found(&observed)))
    }

    /// A rule that would tell nobody is not made: what is made has a way in, and a way in stands in status.
    fn ready(&self, change: &ChangeOf<Self>, ids: &Ids) -> Result<()> {
        if change.verb() != Verb::Create {
            return Ok(());
        }
        let mut feeds = self.feeds.get(change.key()).into_iter().flatten();
        let first = feeds.next();
        let mut all = first.into_iter().chain(feeds);
        if all.any(|name| ids.get(Destinations::NAME, name).is_some()) {
            return Ok(());
        }
        let name = first.map(String::as_str).unwrap_or_default();
        ids.need(Destinations::NAME, name).map(drop)
    }

    fn operation(&self, change: &ChangeOf<Self>) -> Operation<'_> {
        let api = match change.verb() {
            Verb::Create | Verb::Update | Verb::Conflict => "events:PutRule",
            Verb::Delete => "events:DeleteRule",
        };
        self.ground.operation(api)
    }

    async fn apply(&self, changes: &[ChangeOf<Self>], _: &Ids) -> Vec<Result<Applied>> {
        let mut outcomes = Vec::with_capacity(changes.len());
        for change in changes {
            let outcome = match change {
                // Its targets ask whether it is there.
                Change::Create { key, to } => {
                    let made = self.put(key, to, true).await;
                    made.map(|()| Applied::Id(key.clone()))
                }
                Change::Update { key, to, .. } => self
                    .put(key, to, false)
                    .await
                    .map(|()| Applied::ReconcileResult),
                Change::Delete { key, .. } => {
                    self.delete(key).await.map(|()| Applied::ReconcileResult)
                }
                Change::Conflict { .. } => continue,
            };
            outcomes.push(outcome);
        }
        outcomes
    }
}
