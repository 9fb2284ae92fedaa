//! What keeps the attributes of a tenant's topics as they are to be: one call of SNS for each.

use super::{Candidates, Topics};
use crate::{
    engine::{
        error::Result,
        gate::{Operation, WritePermit},
        informer::{ReadOptions, Snapshot},
        plan::{Change, Desired, Found, Owner},
        stage::{ChangeOf, Ids, ResultOf, Seen, Stage},
    },
    kinds::{
        aws_scope::AwsScope,
        tenant::{
            attributes::{AttributeKey, Attributes, Setting},
            desired::ObservedTopic,
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
