//! The informer sources of SNS: the topics of one scope and their subscriptions.

use super::{
    attributes::{Attributes, SUBSCRIPTION, TOPIC},
    desired::{ObservedSubscription, ObservedTopic, Topic},
    subscription_list::SubscriptionList,
};
use crate::{
    clients::{
        aws::reading::{AwsSource, ReadBy, Reader, Reads},
        secret::Secret,
    },
    engine::{
        error::{Class, Error, Result},
        informer::Informer,
        mirror::InformerKey,
    },
    kinds::{
        mark::{OwnerTag, TAG},
        names,
    },
};
use parking_lot::Mutex;
use serde_json::Value as Json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// A topic's ARN, which is not what it is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicArn(pub String);

impl InformerKey for TopicArn {}

/// The topics of one scope that somebody has asked for. There is no bulk read of what is known of one.
pub struct Topics;

impl Topics {
    async fn find(by: &Reads<'_>, arn: &str) -> Result<Option<ObservedTopic>> {
        let may_be_ours = may_be_ours(by, arn);
        let get = by.topic().topic_arn(arn);
        let attributes = match by.find("sns:GetTopicAttributes", get.send()).await {
            Ok(None) => return Ok(None),
            Ok(Some(attributes)) if may_be_ours => attributes,
            Ok(Some(_)) => return Ok(Some(unknown())),
            // A topic that somebody else has made need not let us look at it, and one that is not even the name
            // of a topic is nobody's trouble but its own.
            Err(error) => {
                let passes = matches!(error.class, Class::Denied | Class::Rejected);
                return match passes && !may_be_ours {
                    true => Ok(Some(unknown())),
                    false => Err(error),
                };
            }
        };
        let list = by.topic_tags().resource_arn(arn);
        // It may have been deleted between the two reads.
        let Some(tags) = by.find("sns:ListTagsForResource", list.send()).await? else {
            return Ok(None);
        };
        let owner = tags.tags().iter().find(|tag| tag.key() == TAG);
        let attributes = by.told(
            "sns:GetTopicAttributes",
            "Attributes",
            attributes.attributes,
        )?;
        let policy = attributes.get("Policy");
        let policy = policy.and_then(|text| serde_json::from_str(text).ok());
        let topic = Topic {
            policy: policy.unwrap_or(Json::Null),
        };
        let owner = OwnerTag(owner.map(|tag| tag.value().to_owned()));
        let attributes = Attributes::answered(TOPIC, &attributes);
        let pairs = tags.tags().iter();
        let listed = SubscriptionList::among(pairs.map(|tag| (tag.key(), tag.value())));
        let subscriptions = Self::subscriptions(by, arn).await?;
        Ok(subscriptions.map(|subscriptions| ObservedTopic {
            topic,
            attributes,
            owner,
            listed,
            subscriptions,
        }))
    }

    /// Who hears a topic; `None` if it went while we looked.
    async fn subscriptions(by: &Reads<'_>, arn: &str) -> Result<Option<Vec<ObservedSubscription>>> {
        let api = "sns:ListSubscriptionsByTopic";
        let page = async |next| {
            let list = by.subscriptions().topic_arn(arn).set_next_token(next);
            let page = by.find(api, list.send()).await?;
            Ok(page.map(|page| (page.subscriptions.unwrap_or_default(), page.next_token)))
        };
        let Some(listed) = by.pages(api, page).await? else {
            return Ok(None);
        };
        let found = listed.into_iter().filter_map(|subscription| {
            let arn = match subscription.subscription_arn.unwrap_or_default().as_str() {
                "Deleted" => return None,
                arn if arn.starts_with("arn:") => Some(arn.to_owned()),
                _ => None,
            };
            Some(ObservedSubscription {
                protocol: subscription.protocol?,
                endpoint: Secret::new(subscription.endpoint?),
                arn,
            })
        });
        let mut found: Vec<_> = found.collect();
        // The order in which they are listed says nothing.
        found.sort_by(|one, other| {
            let order = |it: &ObservedSubscription| {
                (
                    it.protocol.clone(),
                    it.endpoint.reveal().to_owned(),
                    it.arn.clone(),
                )
            };
            order(one).cmp(&order(other))
        });
        Ok(Some(found))
    }
}

/// What is known of a topic that is not ours to look into: that it may well be there.
fn unknown() -> ObservedTopic {
    ObservedTopic {
        topic: Topic { policy: Json::Null },
        attributes: Attributes::default(),
        owner: OwnerTag(None),
        listed: SubscriptionList::default(),
        subscriptions: Vec::new(),
    }
}

/// Whether a topic is in this account, and called as we call ours.
fn may_be_ours(by: &Reads<'_>, arn: &str) -> bool {
    let owner = arn.split(':').nth(4);
    owner == Some(&by.identity().account_id) && names::is_called_as_ours(arn)
}

impl Reader for Topics {
    type Key = TopicArn;
    type Value = ObservedTopic;

    async fn read(&self, by: &Reads<'_>, asked: &BTreeSet<TopicArn>) -> Result<ReadBy<Self>> {
        let mut found = BTreeMap::new();
        for arn in asked {
            let topic = Self::find(by, &arn.0).await?;
            found.extend(topic.map(|topic| (arn.clone(), topic)));
        }
        Ok(found)
    }

    /// Somebody is to confirm, and PagerDuty does so within seconds.
    fn is_unsettled(topic: &ObservedTopic) -> bool {
        let mut all = topic.subscriptions.iter();
        all.any(|subscription| subscription.arn.is_none())
    }
}

/// The attributes of the confirmed subscriptions to some topics, by ARN: one call each.
pub struct SubscriptionAttributes {
    /// The topics, and who hears them.
    pub topics: Arc<Informer<AwsSource<Topics>>>,
}

impl TopicArn {
    /// What the ARNs of its subscriptions begin with.
    pub fn subscriptions(&self) -> String {
        format!("{}:", self.0)
    }
}

impl Reader for SubscriptionAttributes {
    type Key = String;
    type Value = Attributes;

    async fn read(&self, by: &Reads<'_>, asked: &BTreeSet<String>) -> Result<ReadBy<Self>> {
        let topics = asked
            .iter()
            .map(|prefix| TopicArn(prefix.trim_end_matches(':').to_owned()));
        let topics = self.topics.known(&topics.collect());
        let subscriptions = topics.values().flat_map(|topic| &topic.subscriptions);
        let confirmed = subscriptions.filter_map(|subscription| subscription.arn.clone());
        self.read_some(by, &confirmed.collect()).await
    }

    async fn read_some(&self, by: &Reads<'_>, keys: &BTreeSet<String>) -> Result<ReadBy<Self>> {
        let mut found = BTreeMap::new();
        for arn in keys {
            let get = by.subscription().subscription_arn(arn);
            // It may have been ended since the topic was read.
            if let Some(answer) = by.find("sns:GetSubscriptionAttributes", get.send()).await? {
                let api = "sns:GetSubscriptionAttributes";
                let attributes = by.told(api, "Attributes", answer.attributes)?;
                let attributes = Attributes::answered(SUBSCRIPTION, &attributes);
                found.insert(arn.clone(), attributes);
            }
        }
        Ok(found)
    }
}

/// After how long it is tried again to set what could not be set: a denial grows to that.
const TRIED_AGAIN: Duration = Duration::from_secs(3600);

/// That a role may not set the attributes of subscriptions: roles that were made when nobody did have no such permission,
/// and all else goes on as before.
#[derive(Debug, Default)]
pub struct Refusal(Mutex<Option<(Instant, Error)>>);

impl Refusal {
    /// It was refused now.
    pub fn note(&self, error: &Error) {
        *self.0.lock() = Some((Instant::now(), error.clone()));
    }

    /// It is worth asking again.
    pub fn forget(&self) {
        *self.0.lock() = None;
    }

    /// The refusal, while it is not worth asking again.
    pub fn lately(&self) -> Option<Error> {
        let noted = self.0.lock().clone();
        noted.and_then(|(at, error)| (at.elapsed() < TRIED_AGAIN).then_some(error))
    }
}
