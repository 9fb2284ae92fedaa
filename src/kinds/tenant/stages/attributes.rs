//! What keeps the attributes of a tenant's topics and of who hears them as they are to be: one call of SNS for each.

use super::{Candidates, Subscriptions, Topics};
use crate::{
    engine::{
        error::{Class, Error, Result},
        gate::{Operation, WritePermit},
        informer::{Consistency, ReadOptions, Snapshot},
        plan::{Change, Desired, Found, Owner, Value as _},
        stage::{ChangeOf, Ids, ResultOf, Seen, Stage},
    },
    kinds::{
        aws_scope::AwsScope,
        tenant::{
            attributes::{AttributeKey, Attributes, FILTER_POLICY, FILTER_SCOPE, Setting},
            desired::{ObservedTopic, SubscriptionKey, subscription_attributes},
            sns::TopicArn,
        },
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The attributes of one tenant's topics, but for their policies, which are theirs from the first moment on.
pub struct TopicAttributes {
    /// What they should be.
    pub desired: Desired<AttributeKey<String>, Setting>,
    candidates: Candidates,
    scope: Arc<AwsScope>,
    options: ReadOptions,
    endpoint: String,
}

impl TopicAttributes {
    /// Those of these topics.
    pub fn of(topics: &Topics) -> Self {
        let names = topics.desired.wanted.keys();
        Self {
            desired: Desired {
                wanted: wanted(names.map(|name| (name.clone(), topics.attributes.clone()))),
                ..Desired::default()
            },
            candidates: topics.candidates.clone(),
            scope: topics.scope.clone(),
            options: topics.options.clone(),
            endpoint: topics.endpoint.clone(),
        }
    }

    fn arns(&self) -> BTreeSet<TopicArn> {
        let all = self.candidates.values();
        all.map(|(_, arn)| arn.clone()).collect()
    }

    /// Only of topics that are there and ours.
    fn found(&self, observed: &Snapshot<ObservedTopic, TopicArn>, ids: &Ids) -> Seen<Self> {
        as_known::<Self, _>(&self.desired.wanted, |name: &String| {
            let arn = ids.get::<Topics>(name)?;
            Some((arn.clone(), observed.get(arn)?.attributes.clone()))
        })
    }
}

/// The attributes of several things, one by one.
fn wanted<K: Ord + Clone>(
    things: impl Iterator<Item = (K, Attributes)>,
) -> BTreeMap<AttributeKey<K>, Setting> {
    let settings = things.flat_map(|(of, attributes)| {
        let settings = attributes.iter().map(|(name, setting)| {
            let of = of.clone();
            (AttributeKey { of, name }, setting.clone())
        });
        settings.collect::<Vec<_>>()
    });
    settings.collect()
}

/// What is known of attributes that are wanted. Of a thing that is not there, or not ours, nothing is to be said.
fn as_known<S, K>(
    wanted: &BTreeMap<AttributeKey<K>, Setting>,
    known: impl Fn(&K) -> Option<(S::Id, Attributes)>,
) -> Seen<S>
where
    K: Ord + Clone,
    S: Stage<Key = AttributeKey<K>, Value = Setting, Live = ()>,
{
    let mut seen = Seen::<S>::default();
    for key in wanted.keys() {
        match known(&key.of) {
            Some((id, attributes)) => {
                let found = Found {
                    id,
                    value: Setting(attributes.get(key.name).to_owned()),
                    owner: Owner::Us,
                    live: (),
                };
                seen.found.insert(key.clone(), found);
            }
            None => drop(seen.unknown.insert(key.clone())),
        }
    }
    seen
}

impl Stage for TopicAttributes {
    const NAME: &'static str = "topic attribute";
    const NEEDS: &'static [&'static str] = &[Topics::NAME];
    type Key = AttributeKey<String>;
    type Value = Setting;
    type Id = TopicArn;
    type Live = ();

    fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn desired(&self) -> &Desired<Self::Key, Setting> {
        &self.desired
    }

    async fn observe(&self, ids: &Ids) -> Result<Seen<Self>> {
        let topics = &self.scope.topics;
        let observed = topics.snapshot(&self.arns(), &self.options).await?;
        Ok(self.found(&observed, ids))
    }

    async fn confirm(&self, _: &BTreeSet<Self::Key>, ids: &Ids) -> Result<Option<Seen<Self>>> {
        let topics = &self.scope.topics;
        let observed = topics.confirm(&self.arns(), &self.options).await?;
        Ok(observed.map(|observed| self.found(&observed, ids)))
    }

    fn operation(&self, _: &ChangeOf<Self>) -> Operation<'_> {
        let account = &self.scope.account;
        account.operation(&self.endpoint, "sns:SetTopicAttributes")
    }

    async fn apply(
        &self,
        permit: &WritePermit<'_>,
        change: &ChangeOf<Self>,
        _: &Ids,
    ) -> ResultOf<Self> {
        let Change::Update { key, ours, to, .. } = change else {
            return Ok(None);
        };
        let (arn, writer) = (ours.id(), self.scope.account.writer(permit)?);
        let set = writer.set_topic_attributes()?.topic_arn(&arn.0);
        let set = set.attribute_name(key.name).attribute_value(&to.0);
        let outcome = writer.done(set.send().await);
        let topics = &self.scope.topics;
        topics.update(arn.clone(), outcome.as_ref(), |it| {
            it.attributes.set(key.name, to.clone());
        });
        outcome.map(|()| None)
    }
}

/// The attributes of the subscriptions that a tenant has made and that are confirmed.
pub struct SubscriptionAttributes {
    /// What they should be.
    pub desired: Desired<AttributeKey<SubscriptionKey>, Setting>,
    /// What the ARNs of the subscriptions begin with.
    prefixes: BTreeSet<String>,
    scope: Arc<AwsScope>,
    options: ReadOptions,
    endpoint: String,
}

impl SubscriptionAttributes {
    /// Those of these subscriptions.
    pub fn of(subscriptions: &Subscriptions) -> Self {
        let keys = subscriptions.desired.wanted.keys();
        let topics = subscriptions.topics.values();
        Self {
            desired: Desired {
                wanted: wanted(keys.map(|key| (key.clone(), subscription_attributes(key)))),
                ..Desired::default()
            },
            prefixes: topics.map(|(_, arn)| arn.subscriptions()).collect(),
            scope: subscriptions.scope.clone(),
            options: subscriptions.options.clone(),
            endpoint: subscriptions.endpoint.clone(),
        }
    }

    /// What a subscription's attributes were when they were read last.
    pub fn known(&self, arn: &str) -> Option<Arc<Attributes>> {
        self.scope.subscription_attributes.get(arn)
    }

    /// Why they cannot be looked at, or set.
    pub fn refusals(&self) -> Vec<Error> {
        let unread = self.scope.subscription_attributes.failure();
        let unread = unread.filter(|error| error.class == Class::Denied);
        unread
            .into_iter()
            .chain(self.scope.unsettable.lately())
            .collect()
    }

    /// Of what may not be set nothing is to be done.
    fn found(&self, known: &Snapshot<Attributes>, ids: &Ids) -> Seen<Self> {
        let mut seen = as_known::<Self, _>(&self.desired.wanted, |key: &SubscriptionKey| {
            let arn = ids.get::<Subscriptions>(key)?.clone()?;
            let attributes = known.get(&arn)?;
            Some((arn, (**attributes).clone()))
        });
        if self.scope.unsettable.lately().is_some() {
            let found = std::mem::take(&mut seen.found).into_iter();
            let (as_wanted, differ): (BTreeMap<_, _>, BTreeMap<_, _>) =
                found.partition(|(key, found)| {
                    let to = self.desired.wanted.get(key);
                    to.is_some_and(|to| to.is_satisfied_by(&found.value))
                });
            seen.found = as_wanted;
            seen.unknown.extend(differ.into_keys());
        }
        seen
    }
}

/// What was read, where it may be.
fn permitted<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Err(error) if error.class == Class::Denied => Ok(None),
        read => read.map(Some),
    }
}

impl Stage for SubscriptionAttributes {
    const NAME: &'static str = "subscription attribute";
    const NEEDS: &'static [&'static str] = &[Subscriptions::NAME];
    type Key = AttributeKey<SubscriptionKey>;
    type Value = Setting;
    type Id = String;
    type Live = ();

    fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn desired(&self) -> &Desired<Self::Key, Setting> {
        &self.desired
    }

    /// As they are known. They are read one by one and rarely, so nobody waits for that unless somebody has asked for
    /// it.
    async fn observe(&self, ids: &Ids) -> Result<Seen<Self>> {
        let attributes = &self.scope.subscription_attributes;
        if self.options.consistency == Consistency::Now {
            self.scope.unsettable.forget();
            permitted(attributes.snapshot(&self.prefixes, &self.options).await)?;
        }
        Ok(self.found(&attributes.known(&self.prefixes), ids))
    }

    async fn confirm(&self, keys: &BTreeSet<Self::Key>, ids: &Ids) -> Result<Option<Seen<Self>>> {
        let arns = keys
            .iter()
            .filter_map(|key| ids.get::<Subscriptions>(&key.of)?.clone());
        let attributes = &self.scope.subscription_attributes;
        let confirmed = attributes.confirm(&arns.collect(), &self.options).await;
        Ok(match permitted(confirmed)? {
            None => Some(self.found(&Snapshot::new(), ids)),
            Some(confirmed) => confirmed.map(|known| self.found(&known, ids)),
        })
    }

    /// A policy that is about the body would keep everything away while the scope is still another.
    fn refers_to(&self, key: &Self::Key, _: &Setting) -> BTreeSet<Self::Key> {
        let scope = AttributeKey {
            of: key.of.clone(),
            name: FILTER_SCOPE,
        };
        let scope = Some(scope).filter(|_| key.name == FILTER_POLICY);
        scope.into_iter().collect()
    }

    fn ready(&self, change: &ChangeOf<Self>, _: &Ids) -> Result<()> {
        let Change::Update { key, ours, .. } = change else {
            return Ok(());
        };
        let mut needs = self.refers_to(key, &Setting(String::new())).into_iter();
        let known = self.known(ours.id());
        let unmet = needs.find(|need| {
            let to = self.desired.wanted.get(need);
            let is = known.as_ref().map(|it| it.get(need.name));
            to.is_some_and(|Setting(to)| is != Some(to.as_str()))
        });
        unmet.map_or(Ok(()), |need| {
            let message = format!(
                "{} {key} waits for {need}, which has to be set before it",
                Self::NAME
            );
            Err(Error::failing(message))
        })
    }

    fn operation(&self, _: &ChangeOf<Self>) -> Operation<'_> {
        let account = &self.scope.account;
        account.operation(&self.endpoint, "sns:SetSubscriptionAttributes")
    }

    async fn apply(
        &self,
        permit: &WritePermit<'_>,
        change: &ChangeOf<Self>,
        _: &Ids,
    ) -> ResultOf<Self> {
        let AwsScope {
            account,
            subscription_attributes,
            unsettable,
            ..
        } = &*self.scope;
        let Change::Update { key, ours, to, .. } = change else {
            return Ok(None);
        };
        // It was refused a moment ago, for another of them.
        if let Some(refusal) = unsettable.lately() {
            return Err(refusal);
        }
        let (arn, writer) = (ours.id(), account.writer(permit)?);
        let set = writer.set_subscription_attributes()?.subscription_arn(arn);
        let set = set.attribute_name(key.name).attribute_value(&to.0);
        let outcome = writer.done(set.send().await);
        if outcome.is_ok() {
            // Without an answer it is set once more: that comes to the same.
            subscription_attributes.update(arn.clone(), outcome.as_ref(), |it| {
                it.set(key.name, to.clone());
            });
        }
        outcome.map(|()| None).map_err(|error| {
            if error.class != Class::Denied {
                return error;
            }
            // It stops nothing else, and a moment later there is nothing to be done about it.
            let error = Error::failing(error.message);
            unsettable.note(&error);
            error
        })
    }
}
