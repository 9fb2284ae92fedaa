//! SNS: what is watched of the topics of one scope, and of who hears them.

use super::desired::{ObservedSubscription, ObservedTopic, Topic};
use crate::{
    clients::{
        aws::{
            Account, RoleAccess,
            reading::{found, pages},
        },
        secret::Secret,
    },
    engine::{
        error::{Class, Result},
        informer::{PollRate, ReadOf, Source},
        limits::Priority,
        mirror::InformerKey,
    },
    kinds::{
        mark::{OwnerTag, TAG},
        names,
    },
};
use serde_json::Value as Json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A topic's ARN, which is not what it is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicArn(pub String);

impl InformerKey for TopicArn {}

/// The topics of one scope that somebody has asked for. There is no bulk read of what is known of one.
pub struct Topics {
    account: Arc<Account>,
    turns: RoleAccess,
}

impl Topics {
    /// Of one scope.
    pub fn of(account: &Arc<Account>) -> Self {
        Self {
            turns: account.turns(),
            account: account.clone(),
        }
    }

    async fn find(&self, arn: &str, priority: Priority) -> Result<Option<ObservedTopic>> {
        let account = &self.account;
        let sns = account.sns();
        let call = account.read("sns", "GetTopicAttributes", priority).await?;
        let get = sns.get_topic_attributes().topic_arn(arn);
        let attributes = match found(&call, get.send().await) {
            Ok(None) => return Ok(None),
            Ok(Some(attributes)) if self.may_be_ours(arn) => attributes,
            Ok(Some(_)) => return Ok(Some(unknown())),
            // A topic that somebody else has made need not let us look at it, and one that is not even the name
            // of a topic is nobody's trouble but its own.
            Err(error) => {
                let passes = matches!(error.class, Class::Denied | Class::Rejected);
                return match passes && !self.may_be_ours(arn) {
                    true => Ok(Some(unknown())),
                    false => Err(error),
                };
            }
        };
        let call = account.read("sns", "ListTagsForResource", priority).await?;
        let list = sns.list_tags_for_resource().resource_arn(arn);
        // It may have been deleted between the two reads.
        let Some(tags) = found(&call, list.send().await)? else {
            return Ok(None);
        };
        let owner = tags.tags().iter().find(|tag| tag.key() == TAG);
        let policy = attributes
            .attributes()
            .and_then(|attributes| attributes.get("Policy"));
        let policy = policy.and_then(|text| serde_json::from_str(text).ok());
        let topic = Topic {
            policy: policy.unwrap_or(Json::Null),
        };
        let owner = OwnerTag(owner.map(|tag| tag.value().to_owned()));
        let subscriptions = self.subscriptions(arn, priority).await?;
        Ok(subscriptions.map(|subscriptions| ObservedTopic {
            topic,
            owner,
            subscriptions,
        }))
    }

    /// Whether it is in this account, and called as we call ours.
    fn may_be_ours(&self, arn: &str) -> bool {
        let account = arn.split(':').nth(4);
        account == Some(&self.account.identity.account_id) && names::is_called_as_ours(arn)
    }

    /// Who hears a topic; `None` if it went while we looked.
    async fn subscriptions(
        &self,
        arn: &str,
        priority: Priority,
    ) -> Result<Option<Vec<ObservedSubscription>>> {
        let account = &self.account;
        let page = async |next| {
            let list = account.sns().list_subscriptions_by_topic();
            let list = list.topic_arn(arn).set_next_token(next);
            let call = account
                .read("sns", "ListSubscriptionsByTopic", priority)
                .await?;
            let page = found(&call, list.send().await)?;
            Ok(page.map(|page| (page.subscriptions.unwrap_or_default(), page.next_token)))
        };
        let Some(listed) = pages("ListSubscriptionsByTopic", page).await? else {
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
        owner: OwnerTag(None),
        subscriptions: Vec::new(),
    }
}

impl Source for Topics {
    type Key = TopicArn;
    type Value = ObservedTopic;
    const ENUMERATES: bool = false;
    const POLL_RATE: PollRate = PollRate::Slow;

    async fn read(&self, asked: &BTreeSet<TopicArn>, priority: Priority) -> Result<ReadOf<Self>> {
        let mut found = BTreeMap::new();
        for arn in asked {
            let topic = self.account.read_afresh(|| self.find(&arn.0, priority));
            if let Some(topic) = topic.await? {
                found.insert(arn.clone(), topic);
            }
        }
        Ok(found)
    }

    /// Somebody is to confirm, and PagerDuty does so within seconds.
    fn is_unsettled(topic: &ObservedTopic) -> bool {
        let mut all = topic.subscriptions.iter();
        all.any(|subscription| subscription.arn.is_none())
    }

    async fn invalidated(&self) {
        self.turns.next().await;
    }
}
