//! The topics and subscriptions in one account.

use super::desired::{Subscription, SubscriptionKey, Topic};
use crate::{
    api::{Severity, SubscriptionState},
    clients::aws::{Account, Call, classify},
    error::{Class, Error, Result},
    mark::{Mark, TAG},
    plan::{self, Change, Desired, Found, Holder},
    secret::{Digester, Secret},
    stage::{Applied, ChangeOf, Ids, Seen, Stage},
};
use aws_sdk_sns::{
    config::{Config, retry::RetryConfig},
    types::Tag,
};
use serde_json::Value as Json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

/// `message` without an endpoint that holds a secret, and without the parts of it that may be the
/// secret, should somebody have quoted it in another form.
fn redact(message: &str, endpoint: &str, shown: &str) -> String {
    const SECRET: usize = 16;
    let whole = message.replace(endpoint, shown);
    let parts = endpoint
        .split(['/', '?', '&', '=', '@'])
        .filter(|part| part.len() >= SECRET);
    parts.fold(whole, |message, part| message.replace(part, "…"))
}

/// All topics that a tenant has or may have had, by severity: name and ARN.
pub type Candidates = BTreeMap<Severity, (String, String)>;

fn scope(account: &Account) -> String {
    let identity = &account.identity;
    format!(
        "{}/{}/{}/sns",
        identity.role_arn, identity.external_id, identity.region
    )
}

/// The topics of one tenant.
pub struct Topics {
    /// What should be there.
    pub desired: Desired<String, Topic>,
    /// Which names to look at.
    pub candidates: Candidates,
    /// Ours.
    pub mark: Mark,
    /// Clients that act there.
    pub account: Arc<Account>,
    scope: String,
}

impl Topics {
    /// The stage of one tenant in one place.
    pub fn new(
        desired: Desired<String, Topic>,
        candidates: Candidates,
        mark: Mark,
        account: Arc<Account>,
    ) -> Self {
        Self {
            desired,
            candidates,
            mark,
            scope: scope(&account),
            account,
        }
    }

    fn read(&self, operation: &'static str) -> Call<'_> {
        Call::read(&self.account.identity, "sns", operation)
    }

    fn write(&self, operation: &'static str) -> Call<'_> {
        Call::write(&self.account.identity, "sns", operation)
    }

    async fn find(&self, arn: &str) -> Result<Option<Found<Topic, String, ()>>> {
        let attributes = match self
            .account
            .sns
            .get_topic_attributes()
            .topic_arn(arn)
            .send()
            .await
        {
            Ok(attributes) => attributes,
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|error| error.is_not_found_exception()) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(classify(&self.read("GetTopicAttributes"), &error)),
        };
        let tags = match self
            .account
            .sns
            .list_tags_for_resource()
            .resource_arn(arn)
            .send()
            .await
        {
            Ok(tags) => tags,
            // Deleted between the two reads.
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|error| error.is_resource_not_found_exception()) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(classify(&self.read("ListTagsForResource"), &error)),
        };
        let holder = match tags.tags().iter().find(|tag| tag.key() == TAG) {
            Some(tag) if tag.value() == self.mark.as_str() => Holder::Us,
            Some(tag) => Holder::Other(tag.value().to_owned()),
            None => Holder::Nobody,
        };
        let policy = attributes
            .attributes()
            .and_then(|attributes| attributes.get("Policy"));
        let policy = policy
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or(Json::Null);
        Ok(Some(Found {
            id: arn.to_owned(),
            value: Topic { policy },
            holder,
            live: (),
        }))
    }

    /// CreateTopic answers with the topic that is there if its tags are the same: with the mark
    /// among them nobody else's is ever taken for ours.
    async fn create(&self, name: &str, to: &Topic) -> Result<Applied> {
        let tag = Tag::builder()
            .key(TAG)
            .value(self.mark.as_str())
            .build()
            .map_err(|error| {
                Error::failing(format!("building the tag of topic {name}: {error}"))
            })?;
        // With its policy from the first moment, and one call for one entry of the gate.
        let create = self.account.sns.create_topic().name(name).tags(tag);
        let created = create
            .attributes("Policy", to.policy.to_string())
            .send()
            .await;
        let created = created.map_err(|error| {
            let error = classify(&self.write("CreateTopic"), &error);
            match error.class {
                Class::Rejected if error.message.contains("different tags") => Error::new(
                    Class::Conflict,
                    format!("topic {name} exists and does not carry our mark; it was not touched: remove it"),
                ),
                // It came to be after we looked: the next look compares it.
                Class::Rejected if error.message.contains("different attributes") => {
                    Error::failing(error.message)
                }
                _ => error,
            }
        })?;
        let arn = created.topic_arn().unwrap_or_default().to_owned();
        Ok(Applied::Id(arn))
    }

    async fn set_policy(&self, arn: &str, to: &Topic) -> Result<()> {
        let set = self
            .account
            .sns
            .set_topic_attributes()
            .topic_arn(arn)
            .attribute_name("Policy");
        let set = set.attribute_value(to.policy.to_string()).send().await;
        set.map(drop)
            .map_err(|error| classify(&self.write("SetTopicAttributes"), &error))
    }
}

impl Stage for Topics {
    const NAME: &'static str = "topic";
    type Key = String;
    type Value = Topic;
    type Id = String;
    type Live = ();

    fn scope(&self) -> &str {
        &self.scope
    }

    fn desired(&self) -> &Desired<String, Topic> {
        &self.desired
    }

    fn id_text(id: &String) -> String {
        id.clone()
    }

    async fn observe(&self, _: &Ids) -> Result<Seen<Self>> {
        let mut seen = BTreeMap::new();
        for (name, arn) in self.candidates.values() {
            if let Some(found) = self.find(arn).await? {
                seen.insert(name.clone(), found);
            }
        }
        Ok(seen)
    }

    async fn apply(&self, changes: &[ChangeOf<Self>], _: &Ids) -> Vec<Result<Applied>> {
        let mut outcomes = Vec::with_capacity(changes.len());
        for change in changes {
            outcomes.push(match change {
                Change::Create { key, to } => self.create(key, to).await,
                Change::Update { ours, to, .. } => {
                    self.set_policy(ours.id(), to).await.map(|()| Applied::Done)
                }
                Change::Delete { ours, .. } => {
                    let deleted = self
                        .account
                        .sns
                        .delete_topic()
                        .topic_arn(ours.id())
                        .send()
                        .await;
                    deleted
                        .map(|_| Applied::Done)
                        .map_err(|error| classify(&self.write("DeleteTopic"), &error))
                }
                Change::Conflict { .. } => continue,
            });
        }
        outcomes
    }
}

/// The subscriptions to one tenant's topics.
pub struct Subscriptions {
    /// What should be there.
    pub desired: Desired<SubscriptionKey, Subscription>,
    /// The topics, by severity.
    pub topics: Candidates,
    /// The severities whose topic stays. With a topic its subscriptions go by themselves.
    pub staying: BTreeSet<Severity>,
    /// Clients that act there.
    pub account: Arc<Account>,
    digester: Digester,
    /// What status says that we have made, and what was made in this run. Others' are left alone.
    ledger: Mutex<BTreeSet<SubscriptionKey>>,
    scope: String,
}

impl Subscriptions {
    /// The stage of one tenant in one place.
    pub fn new(
        desired: Desired<SubscriptionKey, Subscription>,
        topics: Candidates,
        staying: BTreeSet<Severity>,
        ledger: BTreeSet<SubscriptionKey>,
        digester: Digester,
        account: Arc<Account>,
    ) -> Self {
        Self {
            desired,
            topics,
            staying,
            digester,
            ledger: Mutex::new(ledger),
            scope: scope(&account),
            account,
        }
    }

    /// Those that we have made.
    pub fn made(&self) -> BTreeSet<SubscriptionKey> {
        self.ledger
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn topic(&self, severity: Severity) -> &str {
        self.topics
            .get(&severity)
            .map(|(name, _)| name.as_str())
            .unwrap_or_default()
    }

    /// With the key of the digests all that the ledger says is lost. What it names and nobody can find
    /// any more was made for what the spec still names, so that is taken back.
    fn take_back(&self, seen: &mut Seen<Self>) {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = |made: &&SubscriptionKey| {
            !seen.contains_key(made) && !self.desired.wanted.contains_key(made)
        };
        let lost: BTreeSet<_> = ledger
            .iter()
            .filter(lost)
            .map(|made| (made.severity, made.protocol.clone()))
            .collect();
        for (key, found) in seen.iter_mut() {
            let wanted = self.desired.wanted.contains_key(key);
            let lost = lost.contains(&(key.severity, key.protocol.clone()));
            if wanted && lost && found.holder == Holder::Nobody && found.id.is_some() {
                found.holder = Holder::Us;
                ledger.insert(key.clone());
            }
        }
    }

    async fn subscribe(
        &self,
        key: &SubscriptionKey,
        to: &Subscription,
        ids: &Ids,
    ) -> Result<Applied> {
        let topic = ids.need(Topics::NAME, self.topic(key.severity))?;
        let ledger = || self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let new = ledger().insert(key.clone());
        let subscribe = self
            .account
            .sns
            .subscribe()
            .topic_arn(topic)
            .protocol(&key.protocol)
            .endpoint(to.endpoint.reveal())
            .return_subscription_arn(true)
            .customize()
            // Each repeat while it is pending sends another request for confirmation.
            .config_override(Config::builder().retry_config(RetryConfig::disabled()));
        let call = Call::write(&self.account.identity, "sns", "Subscribe");
        subscribe
            .send()
            .await
            .map(|_| Applied::Done)
            .map_err(|error| {
                let error = classify(&call, &error);
                // It was certainly not made: one that somebody makes by hand later is not ours.
                let made_nothing = matches!(
                    error.class,
                    Class::Rejected | Class::Denied | Class::Throttled
                );
                if new && made_nothing {
                    ledger().remove(key);
                }
                // AWS likes to quote the endpoint.
                let message = redact(&error.message, to.endpoint.reveal(), &key.endpoint);
                Error { message, ..error }
            })
    }
}

impl Stage for Subscriptions {
    const NAME: &'static str = "subscription";
    const NEEDS: &'static [&'static str] = &[Topics::NAME];
    const LEDGER: bool = true;
    type Key = SubscriptionKey;
    type Value = Subscription;
    /// `None` while it is pending: it has no name by which it could be removed.
    type Id = Option<String>;
    type Live = SubscriptionState;

    fn scope(&self) -> &str {
        &self.scope
    }

    fn desired(&self) -> &Desired<SubscriptionKey, Subscription> {
        &self.desired
    }

    async fn observe(&self, ids: &Ids) -> Result<Seen<Self>> {
        let made = self.made();
        let mut seen = Seen::<Self>::new();
        for (severity, (name, _)) in &self.topics {
            // Only topics that are there and ours.
            let Some(topic) = ids.get(Topics::NAME, name) else {
                continue;
            };
            let mut pages = self
                .account
                .sns
                .list_subscriptions_by_topic()
                .topic_arn(topic)
                .into_paginator()
                .send();
            while let Some(page) = pages.next().await {
                let page = match page {
                    Ok(page) => page,
                    // The topic went while we looked, or this very run removed it.
                    Err(error)
                        if error
                            .as_service_error()
                            .is_some_and(|error| error.is_not_found_exception()) =>
                    {
                        break;
                    }
                    Err(error) => {
                        let call =
                            Call::read(&self.account.identity, "sns", "ListSubscriptionsByTopic");
                        return Err(classify(&call, &error));
                    }
                };
                for subscription in page.subscriptions() {
                    let arn = subscription.subscription_arn().unwrap_or_default();
                    let (Some(protocol), Some(endpoint)) =
                        (subscription.protocol(), subscription.endpoint())
                    else {
                        continue;
                    };
                    let (id, live) = match arn {
                        "Deleted" => continue,
                        arn if arn.starts_with("arn:") => {
                            (Some(arn.to_owned()), SubscriptionState::Confirmed)
                        }
                        _ => (None, SubscriptionState::Pending),
                    };
                    let key = SubscriptionKey::of(*severity, protocol, endpoint, &self.digester);
                    let holder = if made.contains(&key) {
                        Holder::Us
                    } else {
                        Holder::Nobody
                    };
                    let value = Subscription {
                        recipient: String::new(),
                        endpoint: Secret::new(endpoint.to_owned()),
                    };
                    let found = Found {
                        id,
                        value,
                        holder,
                        live,
                    };
                    // A pending entry can stand beside the confirmed one of the same endpoint.
                    match seen.get(&key) {
                        Some(other) if other.live == SubscriptionState::Confirmed => {}
                        _ => drop(seen.insert(key, found)),
                    }
                }
            }
        }
        self.take_back(&mut seen);
        Ok(seen)
    }

    fn decide(&self, seen: &Seen<Self>) -> Vec<ChangeOf<Self>> {
        let held: BTreeSet<_> = self.desired.held.keys().map(|key| key.severity).collect();
        plan::diff(&self.desired, seen)
            .into_iter()
            .filter(|change| match change {
                // One that somebody else made for the same endpoint does as well.
                Change::Conflict { .. } => false,
                // Without its Secret nobody can say which of them was the one that it asks for; a
                // pending one cannot be removed; and those of a topic that goes, go with it.
                Change::Delete { key, ours } => {
                    !held.contains(&key.severity)
                        && ours.id().is_some()
                        && self.staying.contains(&key.severity)
                }
                Change::Create { .. } | Change::Update { .. } => true,
            })
            .collect()
    }

    fn ready(&self, change: &ChangeOf<Self>, ids: &Ids) -> Result<()> {
        ids.need(Topics::NAME, self.topic(change.key().severity))
            .map(drop)
    }

    async fn apply(&self, changes: &[ChangeOf<Self>], ids: &Ids) -> Vec<Result<Applied>> {
        let mut outcomes = Vec::with_capacity(changes.len());
        for change in changes {
            outcomes.push(match change {
                Change::Create { key, to } => self.subscribe(key, to, ids).await,
                Change::Delete { ours, .. } => match ours.id() {
                    Some(arn) => {
                        let call = Call::write(&self.account.identity, "sns", "Unsubscribe");
                        let gone = self
                            .account
                            .sns
                            .unsubscribe()
                            .subscription_arn(arn)
                            .send()
                            .await;
                        gone.map(|_| Applied::Done)
                            .map_err(|error| classify(&call, &error))
                    }
                    None => Ok(Applied::Done),
                },
                // A subscription has nothing to change.
                Change::Update { .. } => Ok(Applied::Done),
                Change::Conflict { .. } => continue,
            });
        }
        outcomes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_is_quoted_in_another_form_shows_no_key() {
        let endpoint = "https://events.pagerduty.com/integration/canary0123456789abcdef/enqueue";
        for quoted in [
            endpoint,
            "http://x/integration/canary0123456789abcdef/enqueue",
            "'canary0123456789abcdef'",
        ] {
            let message = redact(&format!("Invalid parameter: {quoted}"), endpoint, "hmac:1");
            assert!(
                !message.contains("canary") && message.starts_with("Invalid parameter"),
                "{message}"
            );
        }
    }
}
