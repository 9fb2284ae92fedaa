//! SNS: what is watched of the topics of one scope, and of who hears them.

use super::desired::{ObservedSubscription, ObservedTopic, Topic};
use crate::{
    clients::{
        aws::{
            Account, RoleAccess, classify,
            reading::{is_missing, pages},
        },
        secret::Secret,
    },
    engine::{
        error::{Class, Result},
        informer::{PollRate, ReadOf, Source},
        limits::Priority,
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
        let sns = self.account.sns();
        let call = self
            .account
            .read("sns", "GetTopicAttributes", priority)
            .await?;
        let attributes = match sns.get_topic_attributes().topic_arn(arn).send().await {
            Ok(attributes) => attributes,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => {
                let error = classify(&call, &error);
                // A topic that somebody else has made need not let us look at it, and one that is not
                // even the name of a topic is nobody's trouble but its own.
                return match error.class {
                    Class::Denied | Class::Rejected if !self.may_be_ours(arn) => {
                        Ok(Some(unknown()))
                    }
                    _ => Err(error),
                };
            }
        };
        if !self.may_be_ours(arn) {
            return Ok(Some(unknown()));
        }
        let call = self
            .account
            .read("sns", "ListTagsForResource", priority)
            .await?;
        let tags = match sns.list_tags_for_resource().resource_arn(arn).send().await {
            Ok(tags) => tags,
            // Deleted between the two reads.
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(classify(&call, &error)),
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
        let page = async |next| {
            let call = self
                .account
                .read("sns", "ListSubscriptionsByTopic", priority)
                .await?;
            let list = self.account.sns().list_subscriptions_by_topic();
            let list = list.topic_arn(arn).set_next_token(next);
            match list.send().await {
                Ok(page) => Ok(Some((
                    page.subscriptions.unwrap_or_default(),
                    page.next_token,
                ))),
                Err(error) if is_missing(&error) => Ok(None),
                Err(error) => Err(classify(&call, &error)),
            }
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
    type Value = ObservedTopic;
    const ENUMERATES: bool = false;
    const POLL_RATE: PollRate = PollRate::Slow;

    async fn read(&self, asked: &BTreeSet<String>, priority: Priority) -> Result<ReadOf<Self>> {
        // What is no ARN is EventBridge's.
        let topics = asked.iter().filter(|key| key.starts_with("arn:"));
        self.read_some(&topics.cloned().collect(), priority).await
    }

    async fn read_some(&self, keys: &BTreeSet<String>, priority: Priority) -> Result<ReadOf<Self>> {
        let mut found = BTreeMap::new();
        for arn in keys {
            let topic = self.account.read_afresh(|| self.find(arn, priority));
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
