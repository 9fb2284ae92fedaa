//! The topics of one tenant in one place, and who hears them.

pub mod attributes;

use super::{
    attributes::{Attributes, SUBSCRIPTION, Setting, TOPIC},
    desired::{
        EMAIL, ObservedTopic, Subscription, SubscriptionKey, Topic, subscription_attributes,
    },
    sns::TopicArn,
};
use crate::{
    api::{
        AdoptionPolicy, Severity, SubscriptionEntry, SubscriptionState, TenantObservabilityStatus,
    },
    clients::{
        aws::Writer,
        secret::{Digester, redact},
    },
    engine::{
        error::{Class, Error, Result},
        gate::{Operation, StatusEdit, WritePermit},
        informer::{ReadOptions, Snapshot},
        plan::{self, Change, Desired, Found, Owner, Verb},
        stage::{ChangeOf, Ids, PlanOf, ResultOf, Seen, Stage},
    },
    kinds::{
        aws_scope::AwsScope,
        mark::{Mark, OwnerTag, Ownership, TAG},
    },
};
use aws_sdk_sns::{
    config::{Config, retry::RetryConfig},
    types::Tag,
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// All topics that a tenant has or may have had, by severity: name and ARN.
pub type Candidates = BTreeMap<Severity, (String, TopicArn)>;

/// The topics of one tenant in one place.
pub struct Topics {
    /// What should be there.
    pub desired: Desired<String, Topic>,
    /// Which names to look at.
    pub candidates: Candidates,
    /// What the attributes of each of them should be.
    attributes: Attributes,
    /// Topics of somebody's own that alarms tell besides.
    named: BTreeSet<TopicArn>,
    ownership: Ownership,
    scope: Arc<AwsScope>,
    options: ReadOptions,
    endpoint: String,
}

impl Topics {
    /// The stage of one tenant in one place.
    pub fn new(
        desired: Desired<String, Topic>,
        attributes: Attributes,
        candidates: Candidates,
        named: BTreeSet<TopicArn>,
        ownership: Ownership,
        scope: Arc<AwsScope>,
        options: ReadOptions,
    ) -> Self {
        Self {
            desired,
            attributes,
            candidates,
            named,
            ownership,
            endpoint: scope.account.identity.scope("sns"),
            scope,
            options,
        }
    }

    /// Those of somebody's own that are not there.
    pub fn absent(&self) -> Vec<&str> {
        let topics = &self.scope.topics;
        let absent = self.named.iter().filter(|arn| topics.get(*arn).is_none());
        absent.map(|arn| arn.0.as_str()).collect()
    }

    /// Whether alarms tell somebody besides whoever subscribes.
    pub fn has_named(&self) -> bool {
        !self.named.is_empty()
    }

    /// Where they are read, and how.
    pub fn reads(&self) -> (Arc<AwsScope>, ReadOptions) {
        (self.scope.clone(), self.options.clone())
    }

    fn arn(&self, name: &str) -> Option<&TopicArn> {
        let mut all = self.candidates.values();
        all.find(|(known, _)| known == name).map(|(_, arn)| arn)
    }

    fn found(&self, observed: &Snapshot<ObservedTopic, TopicArn>) -> Seen<Self> {
        let found = self.candidates.values().filter_map(|(name, arn)| {
            let observed = observed.get(arn)?;
            let owner = self.ownership.owner(observed.owner.0.as_deref());
            let found = Found {
                id: arn.clone(),
                value: observed.topic.clone(),
                owner,
                live: (),
            };
            Some((name.clone(), found))
        });
        found.collect()
    }

    /// CreateTopic answers with the topic that is there if its tags are the same: with the mark
    /// among them nobody else's is ever taken for ours.
    async fn create(&self, writer: &Writer<'_>, name: &str, to: &Topic) -> Result<TopicArn> {
        // With its policy and its key from the first moment, and one call for one entry of the gate.
        let create = writer
            .create_topic()?
            .name(name)
            .tags(tag(&self.ownership.mark)?);
        let mut create = create.attributes("Policy", to.policy.to_string());
        for (attribute, Setting(value)) in self.attributes.declared(TOPIC) {
            create = create.attributes(attribute, value);
        }
        let created = create.send().await.map_err(|error| {
            let error = writer.refusal(&error);
            // It came to be after we looked: the next look says whose it is, and compares it.
            let came = ["different tags", "different attributes"];
            let came = came.iter().any(|text| error.message.contains(text));
            match error.class {
                Class::Rejected if came => Error::failing(error.message),
                _ => error,
            }
        });
        if let Some(arn) = self.arn(name) {
            let now = || ObservedTopic {
                topic: to.clone(),
                attributes: self.attributes.clone(),
                owner: OwnerTag(Some(self.ownership.mark.to_string())),
                listed: Default::default(),
                subscriptions: Vec::new(),
            };
            let topics = &self.scope.topics;
            topics.note(arn.clone(), created.as_ref(), || Some(now()));
        }
        Ok(TopicArn(created?.topic_arn.unwrap_or_default()))
    }

    async fn update(&self, writer: &Writer<'_>, arn: &TopicArn, to: &Topic) -> Result<()> {
        let set = writer.set_topic_attributes()?.topic_arn(&arn.0);
        let set = set
            .attribute_name("Policy")
            .attribute_value(to.policy.to_string());
        let outcome = writer.done(set.send().await);
        let topics = &self.scope.topics;
        topics.update(arn.clone(), outcome.as_ref(), |it| it.topic = to.clone());
        outcome
    }

    async fn delete(&self, writer: &Writer<'_>, arn: &TopicArn) -> Result<()> {
        let delete = writer.delete_topic()?.topic_arn(&arn.0);
        let outcome = writer.done(delete.send().await);
        let topics = &self.scope.topics;
        topics.note(arn.clone(), outcome.as_ref(), || None);
        outcome
    }
}

impl Stage for Topics {
    const NAME: &'static str = "topic";
    const NEEDS: &'static [&'static str] = &[TopicTags::NAME];
    /// A topic that is made again has no subscriptions, so status forgets that they were there.
    type Key = String;
    type Value = Topic;
    type Id = TopicArn;
    type Live = ();

    fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn desired(&self) -> &Desired<String, Topic> {
        &self.desired
    }

    async fn observe(&self, _: &Ids) -> Result<Seen<Self>> {
        let AwsScope { trust, topics, .. } = &*self.scope;
        trust.snapshot(&BTreeSet::new(), &self.options).await?;
        let arns = self.candidates.values().map(|(_, arn)| arn);
        let arns = arns.chain(&self.named).cloned().collect();
        Ok(self.found(&topics.snapshot(&arns, &self.options).await?))
    }

    async fn confirm(&self, keys: &BTreeSet<String>, _: &Ids) -> Result<Option<Seen<Self>>> {
        let arns = keys.iter().filter_map(|name| self.arn(name)).cloned();
        let topics = &self.scope.topics;
        let observed = topics.confirm(&arns.collect(), &self.options).await?;
        Ok(observed.map(|observed| self.found(&observed)))
    }

    /// It comes without those who heard the one before it. Who had left by then stays away.
    fn intent(&self, name: &String) -> Option<StatusEdit> {
        let mut candidates = self.candidates.iter();
        let (severity, _) = candidates.find(|(_, (known, _))| known == name)?;
        let severity = *severity;
        Some(StatusEdit::new(
            move |status: &mut TenantObservabilityStatus| {
                let theirs = status.subscriptions.iter_mut();
                let theirs = theirs.filter(|entry| {
                    entry.severity == severity && entry.state != SubscriptionState::Gone
                });
                theirs.for_each(|entry| entry.state = SubscriptionState::Creating);
            },
        ))
    }

    fn operation(&self, change: &ChangeOf<Self>) -> Operation<'_> {
        let api = match change {
            Change::Create { .. } => "sns:CreateTopic",
            Change::Update { .. } => "sns:SetTopicAttributes",
            Change::Delete { .. } => "sns:DeleteTopic",
        };
        self.scope.account.operation(&self.endpoint, api)
    }

    async fn apply(
        &self,
        permit: &WritePermit<'_>,
        change: &ChangeOf<Self>,
        _: &Ids,
    ) -> ResultOf<Self> {
        let writer = self.scope.account.writer(permit)?;
        match change {
            Change::Create { key, to } => self.create(&writer, key, to).await.map(Some),
            Change::Update { ours, to, .. } => {
                self.update(&writer, ours.id(), to).await.map(|()| None)
            }
            Change::Delete { ours, .. } => self.delete(&writer, ours.id()).await.map(|()| None),
        }
    }
}

/// The owner's tag.
fn tag(mark: &Mark) -> Result<Tag> {
    let tag = Tag::builder().key(TAG).value(mark.as_str());
    tag.build()
        .map_err(|error| Error::failing(format!("building the owner's tag: {error}")))
}

/// The owner's tags of topics that are to be adopted, since nobody has marked them, or that a former cluster made. On
/// those that we make they are set when they are made.
pub struct TopicTags {
    desired: Desired<String, OwnerTag>,
    candidates: Candidates,
    ownership: Ownership,
    scope: Arc<AwsScope>,
    options: ReadOptions,
    endpoint: String,
}

impl TopicTags {
    /// The tags of these topics.
    pub fn of(topics: &Topics) -> Self {
        let names = topics.desired.wanted.keys();
        let tag = OwnerTag(Some(topics.ownership.mark.to_string()));
        Self {
            desired: Desired {
                wanted: names.map(|name| (name.clone(), tag.clone())).collect(),
                adoption: topics.desired.adoption.clone(),
                ..Desired::default()
            },
            candidates: topics.candidates.clone(),
            ownership: topics.ownership.clone(),
            scope: topics.scope.clone(),
            options: topics.options.clone(),
            endpoint: topics.endpoint.clone(),
        }
    }

    fn arns(&self) -> BTreeSet<TopicArn> {
        let wanted = |name: &String| self.desired.wanted.contains_key(name);
        let all = self.candidates.values();
        let wanted = all.filter(|(name, _)| wanted(name));
        wanted.map(|(_, arn)| arn.clone()).collect()
    }

    /// Of what is not there, or keeps the mark that it carries, there is nothing to say here.
    fn found(&self, observed: &Snapshot<ObservedTopic, TopicArn>) -> Seen<Self> {
        let mut seen = Seen::<Self>::default();
        let adopts = self.desired.adoption.usual != AdoptionPolicy::Never;
        for (name, arn) in self.candidates.values() {
            if !self.desired.wanted.contains_key(name) {
                continue;
            }
            let topic = observed.get(arn);
            let owner = topic.and_then(|topic| match &topic.owner.0 {
                None => adopts.then_some(Owner::Nobody),
                Some(mark) => self.ownership.is_former(mark).then_some(Owner::Us),
            });
            match topic.zip(owner) {
                Some((topic, owner)) => {
                    let found = Found {
                        id: arn.clone(),
                        value: topic.owner.clone(),
                        owner,
                        live: (),
                    };
                    seen.insert(name.clone(), found);
                }
                // Whose tag it has, or that it is not there yet, is the topic's to say.
                None => drop(seen.unknown.insert(name.clone())),
            }
        }
        seen
    }
}

impl Stage for TopicTags {
    const NAME: &'static str = "topic tag";
    type Key = String;
    type Value = OwnerTag;
    type Id = TopicArn;
    type Live = ();

    fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn desired(&self) -> &Desired<String, OwnerTag> {
        &self.desired
    }

    async fn observe(&self, _: &Ids) -> Result<Seen<Self>> {
        let AwsScope { trust, topics, .. } = &*self.scope;
        trust.snapshot(&BTreeSet::new(), &self.options).await?;
        let observed = topics.snapshot(&self.arns(), &self.options).await?;
        Ok(self.found(&observed))
    }

    async fn confirm(&self, _: &BTreeSet<String>, _: &Ids) -> Result<Option<Seen<Self>>> {
        let topics = &self.scope.topics;
        let observed = topics.confirm(&self.arns(), &self.options).await?;
        Ok(observed.map(|observed| self.found(&observed)))
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
        let AwsScope {
            account, topics, ..
        } = &*self.scope;
        let Change::Update { ours, .. } = change else {
            return Ok(None);
        };
        let (arn, writer) = (ours.id(), account.writer(permit)?);
        let request = writer.tag_topic()?.resource_arn(&arn.0);
        let outcome = writer.done(request.tags(tag(&self.ownership.mark)?).send().await);
        topics.update(arn.clone(), outcome.as_ref(), |it| {
            it.owner = OwnerTag(Some(self.ownership.mark.to_string()));
        });
        outcome.map(|()| None)
    }
}

/// What status says that we have made, or are about to make, and how it was seen last.
pub type KnownSubscriptions = BTreeMap<SubscriptionKey, SubscriptionState>;

/// The subscriptions to one tenant's topics.
pub struct Subscriptions {
    /// What should be there.
    pub desired: Desired<SubscriptionKey, Subscription>,
    /// The topics, by severity.
    pub topics: Candidates,
    /// The severities whose topic stays. With a topic its subscriptions go by themselves.
    pub staying: BTreeSet<Severity>,
    scope: Arc<AwsScope>,
    options: ReadOptions,
    digester: Digester,
    memory: Mutex<Memory>,
    endpoint: String,
}

/// Whether a reader of mail who is not subscribed, and was known as this, is not to be invited by itself.
/// With a topic that somebody deleted all went who heard it; whoever had left before wants to stay away.
fn has_left(known: Option<SubscriptionState>, bare: bool) -> bool {
    match known {
        None | Some(SubscriptionState::Creating) => false,
        Some(SubscriptionState::Pending | SubscriptionState::Confirmed) => !bare,
        Some(SubscriptionState::Gone) => true,
    }
}

#[derive(Default)]
struct Memory {
    /// What status says, and what was made in this run. Others' are left alone.
    recorded: KnownSubscriptions,
    /// The severities whose topic is not there, or was made in this run: nothing that was subscribed before still is.
    bare: BTreeSet<Severity>,
}

impl Subscriptions {
    /// The stage of one tenant in one place, beside its topics. `staying` are the severities whose topic stays.
    pub fn new(
        desired: Desired<SubscriptionKey, Subscription>,
        topics: &Topics,
        staying: BTreeSet<Severity>,
        recorded: KnownSubscriptions,
        digester: Digester,
    ) -> Self {
        let memory = Memory {
            recorded,
            bare: BTreeSet::new(),
        };
        Self {
            desired,
            topics: topics.candidates.clone(),
            staying,
            digester,
            memory: Mutex::new(memory),
            endpoint: topics.endpoint.clone(),
            scope: topics.scope.clone(),
            options: topics.options.clone(),
        }
    }

    /// Those that we have made, as they were known before this run.
    pub fn made(&self) -> KnownSubscriptions {
        self.memory.lock().recorded.clone()
    }

    /// Whether a subscription was there, is not any more, and is not to be made again by itself: whoever
    /// reads mail has left, or never answered.
    pub fn is_gone(&self, key: &SubscriptionKey) -> bool {
        let memory = self.memory.lock();
        let known = memory.recorded.get(key).copied();
        key.protocol == EMAIL && has_left(known, memory.bare.contains(&key.severity))
    }

    fn topic(&self, severity: Severity) -> &String {
        static NONE: String = String::new();
        self.topics.get(&severity).map_or(&NONE, |(name, _)| name)
    }

    fn arn(&self, severity: Severity) -> Option<&TopicArn> {
        self.topics.get(&severity).map(|(_, arn)| arn)
    }

    /// What the lists of the topics say is ours, into what status says, which may have been lost or speak in digests of
    /// another key. Pure.
    fn learn(
        &self,
        observed: &Snapshot<ObservedTopic, TopicArn>,
        ids: &Ids,
        recorded: &mut KnownSubscriptions,
    ) {
        for (severity, (name, arn)) in &self.topics {
            let ours = ids.get::<Topics>(name).is_some();
            let Some(topic) = observed.get(arn).filter(|_| ours) else {
                continue;
            };
            for one in &topic.subscriptions {
                let endpoint = one.endpoint.reveal();
                if topic.listed.get(&one.protocol, endpoint).is_some() {
                    let key =
                        SubscriptionKey::of(*severity, &one.protocol, endpoint, &self.digester);
                    recorded.entry(key).or_insert(one.state());
                }
            }
            let wanted = self.desired.wanted.iter();
            // One that was about to be made is as good as one of which nobody knows.
            let seen = wanted.filter(|(key, to)| {
                let listed = topic.listed.get(&key.protocol, to.endpoint.reveal());
                key.severity == *severity && listed == Some(true)
            });
            for (key, _) in seen {
                let state = SubscriptionState::Confirmed;
                recorded.entry(key.clone()).or_insert(state);
            }
        }
    }

    /// Those that there are: ours are those in `recorded`, into which goes what is learnt. Pure.
    fn found(
        &self,
        observed: &Snapshot<ObservedTopic, TopicArn>,
        ids: &Ids,
        recorded: &mut KnownSubscriptions,
    ) -> Seen<Self> {
        self.learn(observed, ids, recorded);
        let mut seen = Seen::<Self>::default();
        for (severity, (name, arn)) in &self.topics {
            // Only topics that are there and ours.
            if ids.get::<Topics>(name).is_none() {
                continue;
            }
            let heard = observed.get(arn).into_iter();
            for subscription in heard.flat_map(|topic| &topic.subscriptions) {
                let live = subscription.state();
                let key = SubscriptionKey::of(
                    *severity,
                    &subscription.protocol,
                    subscription.endpoint.reveal(),
                    &self.digester,
                );
                let owner = if recorded.contains_key(&key) {
                    Owner::Us
                } else {
                    Owner::Nobody
                };
                let value = Subscription {
                    recipient: String::new(),
                    endpoint: subscription.endpoint.clone(),
                };
                let found = Found {
                    id: subscription.arn.clone(),
                    value,
                    owner,
                    live,
                };
                // A pending entry can stand beside the confirmed one of the same endpoint.
                match seen.get(&key) {
                    Some(other) if other.live == SubscriptionState::Confirmed => {}
                    _ => drop(seen.insert(key, found)),
                }
            }
        }
        seen
    }

    async fn subscribe(
        &self,
        writer: &Writer<'_>,
        key: &SubscriptionKey,
        to: &Subscription,
        ids: &Ids,
    ) -> Result<()> {
        let topic = ids.need::<Topics>(self.topic(key.severity))?;
        let mut subscribe = writer.subscribe()?;
        // From the first message on, and without another call.
        for (attribute, Setting(value)) in subscription_attributes(key).declared(SUBSCRIPTION) {
            subscribe = subscribe.attributes(attribute, value);
        }
        let before = {
            let mut memory = self.memory.lock();
            let creating = SubscriptionState::Creating;
            memory.recorded.insert(key.clone(), creating)
        };
        let subscribe = subscribe
            .topic_arn(&topic.0)
            .protocol(&key.protocol)
            .endpoint(to.endpoint.reveal())
            .return_subscription_arn(true)
            .customize()
            // Each repeat while it is pending sends another request for confirmation.
            .config_override(Config::builder().retry_config(RetryConfig::disabled()));
        let outcome = subscribe.send().await.map_err(|error| {
            let error = writer.refusal(&error);
            if key.protocol == EMAIL {
                return error;
            }
            // AWS likes to quote the endpoint.
            let message = redact(&error.message, to.endpoint.reveal(), &key.endpoint);
            Error { message, ..error }
        });
        let outcome = match outcome {
            // It came to be after we looked: the next look sees it, and what differs is set once it is confirmed.
            Err(error) if error.message.contains("different attributes") => Ok(()),
            outcome => outcome.map(drop),
        };
        match &outcome {
            // What it is now, pending or not, only a look can tell.
            Ok(()) => self.scope.topics.invalidate(topic.clone()),
            Err(error) if error.class.may_have_landed() => {
                self.scope.topics.invalidate(topic.clone())
            }
            // It was certainly not made: one that somebody makes by hand later is not ours.
            Err(_) if before.is_none() => drop(self.memory.lock().recorded.remove(key)),
            Err(_) => {}
        }
        outcome
    }

    async fn unsubscribe(
        &self,
        writer: &Writer<'_>,
        key: &SubscriptionKey,
        arn: &str,
    ) -> Result<()> {
        let unsubscribe = writer.unsubscribe()?.subscription_arn(arn);
        let outcome = unsubscribe.send().await;
        if let Some(topic) = self.arn(key.severity) {
            self.scope.topics.invalidate(topic.clone());
        }
        writer.done(outcome)
    }
}

impl Stage for Subscriptions {
    const NAME: &'static str = "subscription";
    const NEEDS: &'static [&'static str] = &[Topics::NAME];
    type Key = SubscriptionKey;
    type Value = Subscription;
    /// `None` while it is pending: it has no name by which it could be removed.
    type Id = Option<String>;
    type Live = SubscriptionState;

    fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn desired(&self) -> &Desired<SubscriptionKey, Subscription> {
        &self.desired
    }

    async fn observe(&self, ids: &Ids) -> Result<Seen<Self>> {
        let arns = self.topics.values().map(|(_, arn)| arn.clone()).collect();
        let observed = self.scope.topics.snapshot(&arns, &self.options).await?;
        let bare = self
            .topics
            .iter()
            .filter(|(_, (name, arn))| ids.is_new::<Topics>(name) || !observed.contains_key(arn));
        let bare: Vec<_> = bare.map(|(severity, _)| *severity).collect();
        let mut memory = self.memory.lock();
        memory.bare.extend(bare);
        Ok(self.found(&observed, ids, &mut memory.recorded))
    }

    async fn confirm(
        &self,
        keys: &BTreeSet<SubscriptionKey>,
        ids: &Ids,
    ) -> Result<Option<Seen<Self>>> {
        let known = keys.iter().filter(|key| {
            // A topic that this run has made was read when it was made.
            !ids.is_new::<Topics>(self.topic(key.severity))
        });
        let arns: BTreeSet<_> = known
            .filter_map(|key| self.arn(key.severity).cloned())
            .collect();
        if arns.is_empty() {
            return Ok(None);
        }
        let observed = self.scope.topics.confirm(&arns, &self.options).await?;
        Ok(observed.map(|observed| {
            let mut found = self.found(&observed, ids, &mut self.memory.lock().recorded);
            found.retain(|key, _| keys.contains(key));
            found
        }))
    }

    fn decide(&self, seen: &Seen<Self>) -> PlanOf<Self> {
        let held: BTreeSet<_> = self
            .desired
            .blocked
            .keys()
            .map(|key| key.severity)
            .collect();
        let mut plan = plan::diff(&self.desired, seen);
        // One that somebody else made for the same endpoint does as well.
        plan.conflicts.clear();
        plan.changes.retain(|change| match change {
            // Without its Secret nobody can say which of them was the one that it asks for; a
            // pending one cannot be removed; and those of a topic that goes, go with it.
            Change::Delete { key, ours } => {
                !held.contains(&key.severity)
                    && ours.id().is_some()
                    && self.staying.contains(&key.severity)
            }
            Change::Create { key, .. } => !self.is_gone(key),
            Change::Update { .. } => true,
        });
        plan
    }

    /// A pager is heard until the one that replaces it is: a new key may be mistyped, and nobody would know.
    fn defers_deletion(&self, key: &SubscriptionKey, seen: &Seen<Self>) -> bool {
        let waits = |wanted: &SubscriptionKey| {
            wanted.protocol != EMAIL
                && wanted.severity == key.severity
                && seen.get(wanted).map(|found| found.live) != Some(SubscriptionState::Confirmed)
        };
        key.protocol != EMAIL && self.desired.wanted.keys().any(waits)
    }

    fn intent(&self, key: &SubscriptionKey) -> Option<StatusEdit> {
        let key = key.clone();
        Some(StatusEdit::new(
            move |status: &mut TenantObservabilityStatus| {
                let SubscriptionKey {
                    severity,
                    protocol,
                    endpoint,
                } = key.clone();
                let state = SubscriptionState::Creating;
                let mut known = status.subscriptions.iter_mut();
                match known.find(|entry| SubscriptionKey::from(&**entry) == key) {
                    Some(entry) => entry.state = state,
                    None => status.subscriptions.push(SubscriptionEntry {
                        severity,
                        protocol,
                        endpoint,
                        state,
                    }),
                }
            },
        ))
    }

    fn ready(&self, change: &ChangeOf<Self>, ids: &Ids) -> Result<()> {
        ids.need::<Topics>(self.topic(change.key().severity))
            .map(drop)
    }

    fn operation(&self, change: &ChangeOf<Self>) -> Operation<'_> {
        let api = match change.verb() {
            Verb::Delete => "sns:Unsubscribe",
            _ => "sns:Subscribe",
        };
        self.scope.account.operation(&self.endpoint, api)
    }

    async fn apply(
        &self,
        permit: &WritePermit<'_>,
        change: &ChangeOf<Self>,
        ids: &Ids,
    ) -> ResultOf<Self> {
        let writer = self.scope.account.writer(permit)?;
        match change {
            Change::Create { key, to } => self.subscribe(&writer, key, to, ids).await?,
            Change::Delete { key, ours } => {
                if let Some(arn) = ours.id() {
                    self.unsubscribe(&writer, key, arn).await?;
                }
            }
            // A subscription has nothing to change.
            Change::Update { .. } => {}
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_left_is_not_invited_again_though_the_topic_is_made_again() {
        use SubscriptionState::{Confirmed, Creating, Gone, Pending};
        for (known, left, left_though_bare) in [
            (None, false, false),
            (Some(Creating), false, false),
            (Some(Pending), true, false),
            (Some(Confirmed), true, false),
            (Some(Gone), true, true),
        ] {
            assert_eq!(has_left(known, false), left, "{known:?}");
            assert_eq!(has_left(known, true), left_though_bare, "{known:?}");
        }
    }
}
