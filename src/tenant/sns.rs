//! What is watched of one scope for its tenants: whether the role still lets us in, the topics, and
//! who hears them, and their alarms' way into Slack.

use super::{
    desired::{ObservedSubscription, ObservedTopic, Topic},
    eventbridge,
};
use crate::{
    clients::{
        Clients,
        aws::{Account, Identity, Turns, classify},
        limit::Urgency,
    },
    error::{Class, Error, Result},
    installation::Installation,
    mark::{OwnerTag, TAG},
    mirror::Mirrored,
    names,
    outside::{Outside, Polled, ReadOf, Rhythm, Source, Waker},
    scopes::Watch,
    secret::Secret,
};
use serde_json::Value as Json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What is watched of one scope for its tenants.
pub struct TenantWatch {
    /// The account, and who we are there.
    pub account: Arc<Account>,
    /// Whether the role lets us in.
    pub trust: Outside<Trust>,
    /// The topics by ARN, and who hears them.
    pub topics: Outside<Topics>,
    /// The rules by name, and their targets.
    pub rules: Outside<eventbridge::Rules>,
    /// The connections and API destinations by name.
    pub paths: Outside<eventbridge::Paths>,
    /// The connections that have been written again since they were seen to be refused.
    revived: Mutex<BTreeSet<String>>,
}

impl TenantWatch {
    /// Of one account. Nothing is read yet.
    pub fn of(account: Arc<Account>, waker: &Waker) -> Self {
        let trust = Trust {
            turns: account.turns(),
            account: account.clone(),
        };
        let topics = Topics {
            turns: account.turns(),
            account: account.clone(),
        };
        Self {
            trust: Outside::new(trust, waker.clone()),
            topics: Outside::new(topics, waker.clone()),
            rules: Outside::new(eventbridge::Rules::of(&account), waker.clone()),
            paths: Outside::new(eventbridge::Paths::of(&account), waker.clone()),
            revived: Mutex::default(),
            account,
        }
    }

    /// The connections that have been written again since they were seen to be refused, by name.
    pub fn revived(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.revived.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch for TenantWatch {
    type Access = Identity;

    async fn open(
        access: &Identity,
        clients: &Clients,
        _: &Installation,
        waker: &Waker,
    ) -> Result<Self> {
        let account = clients.aws.get(access).await?;
        Ok(Self::of(account, waker))
    }

    fn parts(&self) -> Vec<&dyn Polled> {
        vec![&self.trust, &self.topics, &self.rules, &self.paths]
    }
}

/// Whether the role still trusts us. Credentials outlive a change of its trust, so it is assumed anew.
pub struct Trust {
    account: Arc<Account>,
    turns: Turns,
}

/// There is nothing to see of a role but whether it lets us in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nothing;

impl Mirrored for Nothing {
    fn is_alike(&self, _: &Self) -> bool {
        true
    }
}

impl Source for Trust {
    type Value = Nothing;
    const ENUMERATES: bool = true;
    const RHYTHM: Rhythm = Rhythm::Slow;

    async fn read(&self, _: &BTreeSet<String>, _: Urgency) -> Result<ReadOf<Self>> {
        self.account.check_unless_let_in().await?;
        Ok(ReadOf::<Self>::new())
    }

    async fn read_some(&self, _: &BTreeSet<String>, urgency: Urgency) -> Result<ReadOf<Self>> {
        self.read(&BTreeSet::new(), urgency).await
    }

    /// That it does not let us in any more is told by whatever is refused.
    async fn stirred(&self) {
        self.turns.let_in().await;
    }
}

/// The topics of one scope that somebody has asked for. There is no bulk read of what is known of one.
pub struct Topics {
    account: Arc<Account>,
    turns: Turns,
}

impl Topics {
    async fn find(&self, arn: &str, urgency: Urgency) -> Result<Option<ObservedTopic>> {
        let sns = self.account.sns();
        let call = self
            .account
            .read("sns", "GetTopicAttributes", urgency)
            .await?;
        let attributes = match sns.get_topic_attributes().topic_arn(arn).send().await {
            Ok(attributes) => attributes,
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|error| error.is_not_found_exception()) =>
            {
                return Ok(None);
            }
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
            .read("sns", "ListTagsForResource", urgency)
            .await?;
        let tags = match sns.list_tags_for_resource().resource_arn(arn).send().await {
            Ok(tags) => tags,
            // Deleted between the two reads.
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|error| error.is_resource_not_found_exception()) =>
            {
                return Ok(None);
            }
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
        let subscriptions = self.subscriptions(arn, urgency).await?;
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
        urgency: Urgency,
    ) -> Result<Option<Vec<ObservedSubscription>>> {
        let (mut found, mut next) = (Vec::new(), None);
        loop {
            let call = self
                .account
                .read("sns", "ListSubscriptionsByTopic", urgency)
                .await?;
            let list = self.account.sns().list_subscriptions_by_topic();
            let list = list.topic_arn(arn).set_next_token(next.clone());
            let page = match list.send().await {
                Ok(page) => page,
                Err(error)
                    if error
                        .as_service_error()
                        .is_some_and(|error| error.is_not_found_exception()) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(classify(&call, &error)),
            };
            for subscription in page.subscriptions() {
                let (Some(protocol), Some(endpoint)) =
                    (subscription.protocol(), subscription.endpoint())
                else {
                    continue;
                };
                let arn = match subscription.subscription_arn().unwrap_or_default() {
                    "Deleted" => continue,
                    arn if arn.starts_with("arn:") => Some(arn.to_owned()),
                    _ => None,
                };
                found.push(ObservedSubscription {
                    protocol: protocol.to_owned(),
                    endpoint: Secret::new(endpoint.to_owned()),
                    arn,
                });
            }
            let last = std::mem::replace(&mut next, page.next_token);
            if next.is_none() {
                break;
            }
            if next == last {
                return Err(Error::failing(
                    "ListSubscriptionsByTopic answers with the same page again and again",
                ));
            }
        }
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
    const RHYTHM: Rhythm = Rhythm::Slow;

    async fn read(&self, asked: &BTreeSet<String>, urgency: Urgency) -> Result<ReadOf<Self>> {
        // What is no ARN is EventBridge's.
        let topics = asked.iter().filter(|key| key.starts_with("arn:"));
        self.read_some(&topics.cloned().collect(), urgency).await
    }

    async fn read_some(&self, keys: &BTreeSet<String>, urgency: Urgency) -> Result<ReadOf<Self>> {
        let mut found = BTreeMap::new();
        for arn in keys {
            let topic = match self.find(arn, urgency).await {
                // Once more with fresh credentials, where those at hand are refused but the role is not.
                Err(error) if error.class == Class::Denied => {
                    self.account.check().await?;
                    self.find(arn, urgency).await?
                }
                outcome => outcome?,
            };
            if let Some(topic) = topic {
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

    async fn stirred(&self) {
        self.turns.next().await;
    }
}
