//! The lists by which topics say which of their subscriptions are ours. Status may be lost; these are not lost before the
//! topics are.

use super::{
    desired::{EMAIL, ObservedTopic, Subscription, SubscriptionKey},
    sns::TopicArn,
    stages::{Candidates, KnownSubscriptions, Topics},
    subscription_list::{SubscriptionList, digest},
};
use crate::{
    api::{Severity, SubscriptionState},
    clients::secret::Digester,
    engine::{
        error::{Error, Result},
        gate::{Operation, WritePermit},
        informer::{ReadOptions, Snapshot},
        plan::{Change, Desired, Found, Owner, Plan},
        stage::{ChangeOf, Ids, PlanOf, ResultOf, Seen, Stage},
    },
    kinds::aws_scope::AwsScope,
};
use aws_sdk_sns::types::Tag;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What a topic is to list: of what is wanted, what is ours or about to be; and what it lists and is still there, until it
/// is not. `known` is what status says. Where the topic is `bare`, what was subscribed to the one before it is not there.
fn listed(
    wanted: &[(&SubscriptionKey, &Subscription)],
    known: &KnownSubscriptions,
    topic: &ObservedTopic,
    bare: bool,
    digester: &Digester,
) -> SubscriptionList {
    let before = &topic.listed;
    let digests = wanted.iter();
    let digests = digests.map(|(key, to)| digest(&key.protocol, to.endpoint.reveal()));
    let wants: BTreeSet<_> = digests.collect();
    let mut there = BTreeSet::new();
    let mut list = BTreeMap::new();
    for one in &topic.subscriptions {
        let digest = digest(&one.protocol, one.endpoint.reveal());
        let endpoint = one.endpoint.reveal();
        let is_it = |key: &SubscriptionKey| {
            *key == SubscriptionKey::of(key.severity, &one.protocol, endpoint, digester)
        };
        if before.0.contains_key(&digest) || known.keys().any(is_it) {
            // Whoever is to go now and is wanted again later has not left by himself.
            list.insert(digest.clone(), wants.contains(&digest));
        }
        there.insert(digest);
    }
    for (key, to) in wanted {
        let digest = digest(&key.protocol, to.endpoint.reveal());
        if there.contains(&digest) {
            continue;
        }
        let was_seen = match known.get(key) {
            Some(SubscriptionState::Gone) => true,
            Some(SubscriptionState::Pending | SubscriptionState::Confirmed) => !bare,
            Some(SubscriptionState::Creating) | None => false,
        };
        let seen = was_seen || before.0.get(&digest) == Some(&true);
        list.insert(digest, seen && key.protocol == EMAIL);
    }
    SubscriptionList(list)
}

/// The lists of one tenant's topics in one place.
pub struct SubscriptionLists {
    desired: Desired<String, SubscriptionList>,
    subscriptions: Desired<SubscriptionKey, Subscription>,
    recorded: KnownSubscriptions,
    topics: Candidates,
    staying: BTreeSet<Severity>,
    digester: Digester,
    scope: Arc<AwsScope>,
    options: ReadOptions,
    endpoint: String,
}

impl SubscriptionLists {
    /// Beside the topics, those of `subscriptions`. `staying` are the severities whose topic stays, `recorded` is what
    /// status says.
    pub fn new(
        subscriptions: &Desired<SubscriptionKey, Subscription>,
        topics: &Topics,
        staying: &BTreeSet<Severity>,
        recorded: KnownSubscriptions,
        digester: Digester,
    ) -> Self {
        let (scope, options) = topics.reads();
        Self {
            desired: Desired::default(),
            subscriptions: subscriptions.clone(),
            recorded,
            topics: topics.candidates.clone(),
            staying: staying.clone(),
            digester,
            endpoint: scope.account.identity.scope("sns"),
            scope,
            options,
        }
    }

    fn found(&self, observed: &Snapshot<ObservedTopic, TopicArn>, ids: &Ids) -> Seen<Self> {
        let mut seen = Seen::<Self>::default();
        for (severity, (name, arn)) in &self.topics {
            let ours = ids.get::<Topics>(name).is_some() && self.staying.contains(severity);
            let Some(topic) = observed.get(arn).filter(|_| ours) else {
                continue;
            };
            let wanted = self.subscriptions.wanted.iter();
            let wanted: Vec<_> = wanted
                .filter(|(key, _)| key.severity == *severity)
                .collect();
            let known = self.recorded.iter();
            let known = known.filter(|(key, _)| key.severity == *severity);
            let known = known.map(|(key, state)| (key.clone(), *state)).collect();
            let bare = ids.is_new::<Topics>(name);
            let found = Found {
                id: arn.clone(),
                value: topic.listed.clone(),
                owner: Owner::Us,
                live: listed(&wanted, &known, topic, bare, &self.digester),
            };
            seen.insert(name.clone(), found);
        }
        seen
    }
}

impl Stage for SubscriptionLists {
    const NAME: &'static str = "subscription list";
    const NEEDS: &'static [&'static str] = &[Topics::NAME];
    const IS_NOTE: bool = true;
    type Key = String;
    type Value = SubscriptionList;
    type Id = TopicArn;
    /// What is to be listed.
    type Live = SubscriptionList;

    fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn desired(&self) -> &Desired<String, SubscriptionList> {
        &self.desired
    }

    async fn observe(&self, ids: &Ids) -> Result<Seen<Self>> {
        let arns = self.topics.values().map(|(_, arn)| arn.clone()).collect();
        let observed = self.scope.topics.snapshot(&arns, &self.options).await?;
        Ok(self.found(&observed, ids))
    }

    fn decide(&self, seen: &Seen<Self>) -> PlanOf<Self> {
        let differ = seen.iter().filter(|(_, found)| found.value != found.live);
        let changes = differ.filter_map(|(key, found)| {
            Some(Change::Update {
                key: key.clone(),
                from: found.value.clone(),
                to: found.live.clone(),
                ours: found.ours()?,
            })
        });
        Plan {
            changes: changes.collect(),
            conflicts: Vec::new(),
        }
    }

    fn operation(&self, _: &ChangeOf<Self>) -> Operation<'_> {
        let account = &self.scope.account;
        account.operation(&self.endpoint, "sns:TagResource")
    }

    async fn apply(
        &self,
        permit: &WritePermit<'_>,
        change: &ChangeOf<Self>,
        _: &Ids,
    ) -> ResultOf<Self> {
        let Change::Update { from, to, ours, .. } = change else {
            return Ok(None);
        };
        let writer = self.scope.account.writer(permit)?;
        let mut request = writer.tag_topic()?.resource_arn(&ours.id().0);
        for (key, text) in to.tags(from) {
            let tag = Tag::builder().key(key).value(text).build();
            request = request.tags(tag.map_err(|error| {
                Error::failing(format!(
                    "building the tag that lists subscriptions: {error}"
                ))
            })?);
        }
        let outcome = writer.done(request.send().await);
        let topics = &self.scope.topics;
        topics.update(ours.id().clone(), outcome.as_ref(), |it| {
            it.listed = to.clone()
        });
        outcome.map(|()| None)
    }
}
