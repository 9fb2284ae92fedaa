//! The way of one tenant's alarms into Slack, in one place: connections, API destinations, rules, targets.

use super::{
    desired::{
        AUTHORIZED, BOT_HEADER, Connection, Destination, ObservedConnection, ObservedDestination,
        ObservedPath, ObservedRule, Rule, RuleTarget, TargetKey, Wanted, concerns, holder,
        path_name, shown,
    },
    message::Transformer,
};
use crate::{
    api::{TenantObservability, TenantObservabilityStatus},
    clients::aws::{Call, DISTRUSTS, classify, failed_entry},
    error::{Class, Error, Result},
    installation::Installation,
    mark::{Mark, TAG},
    names,
    outside::{Asking, Snapshot},
    plan::{Change, Desired, Found, Holder, Verb},
    stage::{Applied, ChangeOf, Ids, Operation, Seen, Stage},
    tenant::{sns::TenantWatch, stages::redact},
};
use aws_sdk_eventbridge::types as sdk;
use kube::ResourceExt;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A way into Slack, as status has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Whether by a webhook, or else by a bot's token.
    pub webhook: bool,
    /// A digest of what EventBridge was given last.
    pub secret: Option<String>,
}

/// The ways into Slack that we have made, or are about to make, by SlackChannel object.
pub type Ledger = BTreeMap<String, Known>;

/// What the stages on the way to Slack have in common.
#[derive(Clone)]
pub struct Ground {
    watch: Arc<TenantWatch>,
    asking: Asking,
    mark: Mark,
    /// What the names of all that is the tenant's there begin with.
    prefix: BTreeSet<String>,
    /// Whether anything is wanted there, or may have been made. Otherwise nothing is read.
    active: bool,
    scope: String,
    installation: Installation,
    /// The channels by the names of their connections, whether they are wanted or were.
    channels: Arc<BTreeMap<String, String>>,
    ledger: Arc<Mutex<Ledger>>,
}

impl Ground {
    /// For one tenant in one place. `status` is what was recorded before.
    pub fn new(
        tenant: &TenantObservability,
        wanted: &Wanted,
        status: &TenantObservabilityStatus,
        watch: Arc<TenantWatch>,
        asking: Asking,
        installation: &Installation,
    ) -> Self {
        let mut channels = wanted.channels.clone();
        let mut ledger = Ledger::new();
        for entry in &status.slack_paths {
            let name = path_name(tenant, &entry.channel, installation);
            channels.insert(name, entry.channel.clone());
            let known = Known {
                webhook: entry.is_webhook(),
                secret: entry.secret.clone(),
            };
            ledger.insert(entry.channel.clone(), known);
        }
        Self {
            scope: watch.account.identity.scope("events"),
            watch,
            asking,
            mark: installation.mark(tenant),
            prefix: [names::tenant_prefix(&tenant.name_any())].into(),
            active: concerns(tenant),
            installation: installation.clone(),
            channels: Arc::new(channels),
            ledger: Arc::new(Mutex::new(ledger)),
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ways that we have made, as they are known by now.
    pub fn known(&self) -> Ledger {
        self.ledger().clone()
    }

    /// The channels that are wanted or were, by the names of their connections.
    pub fn channels(&self) -> &BTreeMap<String, String> {
        &self.channels
    }

    /// The channel of a connection. One that nobody knows any more is called as its connection, so that it is
    /// not forgotten.
    fn channel(&self, name: &str) -> String {
        let known = self.channels.get(name);
        known.map_or_else(|| name.to_owned(), Clone::clone)
    }

    fn call(&self, operation: &'static str) -> Call<'_> {
        self.watch.account.write("events", operation)
    }

    async fn paths(&self) -> Result<Snapshot<ObservedPath>> {
        if !self.active {
            return Ok(Snapshot::new());
        }
        self.watch.paths.snapshot(&self.prefix, &self.asking).await
    }

    async fn rules(&self) -> Result<Snapshot<ObservedRule>> {
        if !self.active {
            return Ok(Snapshot::new());
        }
        self.watch.rules.snapshot(&self.prefix, &self.asking).await
    }

    /// Connections and API destinations by name, unless what is known was read for this very run.
    async fn confirm_paths(
        &self,
        names: &BTreeSet<String>,
    ) -> Result<Option<Snapshot<ObservedPath>>> {
        if self.watch.paths.is_fresh(self.asking.since) {
            return Ok(None);
        }
        self.watch
            .paths
            .confirm(names, &self.asking)
            .await
            .map(Some)
    }

    /// The same of rules.
    async fn confirm_rules(
        &self,
        names: &BTreeSet<String>,
    ) -> Result<Option<Snapshot<ObservedRule>>> {
        if self.watch.rules.is_fresh(self.asking.since) {
            return Ok(None);
        }
        self.watch
            .rules
            .confirm(names, &self.asking)
            .await
            .map(Some)
    }

    /// What a write to a connection or an API destination leaves behind, as far as it is known.
    fn remember_path(
        &self,
        name: &str,
        outcome: Result<(), &Error>,
        change: impl FnOnce(&mut ObservedPath),
    ) {
        let paths = &self.watch.paths;
        match outcome {
            Ok(()) => {
                let known = paths.known(name).remove(name);
                let mut now = known.map_or_else(ObservedPath::default, |known| (*known).clone());
                change(&mut now);
                let there = now.connection.is_some() || now.destination.is_some();
                paths.wrote(name, there.then_some(now));
            }
            Err(error) if error.class.may_have_landed() => paths.doubt(name),
            Err(_) => {}
        }
    }

    /// The same of a rule. `None`: it is gone, or only a look can tell.
    fn remember_rule(&self, name: &str, outcome: Result<(), &Error>, now: Option<ObservedRule>) {
        let rules = &self.watch.rules;
        match outcome {
            Ok(()) => rules.wrote(name, now),
            Err(error) if error.class.may_have_landed() => rules.doubt(name),
            Err(_) => {}
        }
    }
}

/// That something is there, or is not, though it was seen otherwise: the next look compares it.
fn moved(error: Error) -> Error {
    Error::failing(error.message)
}

/// Connections: what EventBridge says to Slack of who it is.
pub struct Connections {
    /// What should be there.
    pub desired: Desired<String, Connection>,
    /// What it has in common with the other stages.
    pub ground: Ground,
}

impl Connections {
    /// Whether a connection that lets nobody through is to be written again. Once for each time that it is
    /// seen to have come to that: where the secret is wrong, writing it again helps no more than once.
    fn must_revive(&self, name: &str, connection: &ObservedConnection) -> bool {
        let mut revived = self.ground.watch.revived();
        if !connection.is_barred() {
            if !connection.is_moving() {
                revived.remove(name);
            }
            return false;
        }
        !revived.contains(name)
    }

    fn found(&self, observed: &Snapshot<ObservedPath>) -> Seen<Self> {
        let ground = &self.ground;
        let mut ledger = ground.ledger();
        for (name, channel) in ground.channels.iter() {
            let there = observed
                .get(name)
                .is_some_and(|path| path.connection.is_some());
            if let Some(known) = ledger
                .get_mut(channel)
                .filter(|known| !known.webhook && !there)
            {
                // What was in it went with it.
                known.secret = None;
            }
        }
        let mut seen = Seen::<Self>::new();
        for (name, path) in observed {
            let Some(connection) = &path.connection else {
                continue;
            };
            let wanted = self.desired.wanted.contains_key(name);
            if connection.is_going() && !wanted {
                continue;
            }
            let holder = holder(&connection.description, &ground.mark);
            let channel = ground.channel(name);
            let is_bot = connection.header == BOT_HEADER;
            if holder == Holder::Us && !ledger.contains_key(&channel) {
                let found = Known {
                    webhook: !is_bot,
                    secret: None,
                };
                ledger.insert(channel.clone(), found);
            }
            let known = ledger
                .get(&channel)
                .filter(|known| is_bot && !known.webhook);
            let state = if self.must_revive(name, connection) {
                connection.state.clone()
            } else {
                AUTHORIZED.to_owned()
            };
            let value = Connection {
                channel,
                header: connection.header.clone(),
                secret: known
                    .and_then(|known| known.secret.clone())
                    .unwrap_or_default(),
                state,
                description: connection.description.clone(),
                value: None,
                shut: None,
            };
            let found = Found {
                id: connection.arn.clone(),
                value,
                holder,
                live: connection.clone(),
            };
            seen.insert(name.clone(), found);
        }
        seen
    }

    /// That EventBridge has been given what is in `to`.
    fn given(&self, name: &str, to: &Connection) {
        let channel = self.ground.channel(name);
        let mut ledger = self.ground.ledger();
        let before = ledger.get(&channel);
        let known = if to.is_bot() {
            Known {
                webhook: false,
                secret: Some(to.secret.clone()),
            }
        } else {
            Known {
                webhook: true,
                // The API destination has it, and says so.
                secret: before
                    .filter(|known| known.webhook)
                    .and_then(|known| known.secret.clone()),
            }
        };
        ledger.insert(channel, known);
    }

    /// AWS quotes what it refuses.
    fn redacted(error: Error, to: &Connection) -> Error {
        let value = to
            .value
            .as_ref()
            .map(|value| value.reveal())
            .unwrap_or_default();
        let Some(token) = value.strip_prefix("Bearer ") else {
            return error;
        };
        let message = redact(&error.message, token, &to.secret);
        Error { message, ..error }
    }

    /// What a call that went well leaves behind.
    fn connection(
        to: &Connection,
        arn: String,
        state: Option<&sdk::ConnectionState>,
    ) -> ObservedConnection {
        ObservedConnection {
            arn,
            header: to.header.clone(),
            state: super::connection_state(state),
            reason: String::new(),
            description: to.description.clone(),
        }
    }

    async fn create(&self, name: &str, to: &Connection) -> Result<Applied> {
        let ground = &self.ground;
        let value = to
            .value
            .as_ref()
            .map(|value| value.reveal())
            .unwrap_or_default();
        let key = sdk::CreateConnectionApiKeyAuthRequestParameters::builder()
            .api_key_name(&to.header)
            .api_key_value(value)
            .build()
            .map_err(|_| Error::failing("building the connection's header"))?;
        let key = sdk::CreateConnectionAuthRequestParameters::builder()
            .api_key_auth_parameters(key)
            .build();
        let create = ground.watch.account.eventbridge().create_connection();
        let create = create
            .name(name)
            .description(&to.description)
            .authorization_type(sdk::ConnectionAuthorizationType::ApiKey)
            .auth_parameters(key);
        let outcome = create.send().await.map_err(|error| {
            let exists = error
                .as_service_error()
                .is_some_and(|error| error.is_resource_already_exists_exception());
            let error = classify(&ground.call("CreateConnection"), &error);
            let error = Self::redacted(error, to);
            if exists { moved(error) } else { error }
        });
        ground.remember_path(name, outcome.as_ref().map(drop), |now| {
            if let Ok(made) = &outcome {
                let arn = made.connection_arn.clone().unwrap_or_default();
                now.connection = Some(Self::connection(to, arn, made.connection_state.as_ref()));
            }
        });
        let made = outcome?;
        self.given(name, to);
        Ok(Applied::Id(made.connection_arn.unwrap_or_default()))
    }

    async fn update(&self, name: &str, from: &Connection, to: &Connection) -> Result<Applied> {
        let ground = &self.ground;
        let value = to
            .value
            .as_ref()
            .map(|value| value.reveal())
            .unwrap_or_default();
        let key = sdk::UpdateConnectionApiKeyAuthRequestParameters::builder()
            .api_key_name(&to.header)
            .api_key_value(value)
            .build();
        let key = sdk::UpdateConnectionAuthRequestParameters::builder()
            .api_key_auth_parameters(key)
            .build();
        let update = ground.watch.account.eventbridge().update_connection();
        let update = update
            .name(name)
            .description(&to.description)
            .authorization_type(sdk::ConnectionAuthorizationType::ApiKey)
            .auth_parameters(key);
        let outcome = update.send().await.map_err(|error| {
            let gone = error
                .as_service_error()
                .is_some_and(|error| error.is_resource_not_found_exception());
            let error = classify(&ground.call("UpdateConnection"), &error);
            let error = Self::redacted(error, to);
            if gone { moved(error) } else { error }
        });
        ground.remember_path(name, outcome.as_ref().map(drop), |now| {
            if let Ok(made) = &outcome {
                let arn = made.connection_arn.clone().unwrap_or_default();
                now.connection = Some(Self::connection(to, arn, made.connection_state.as_ref()));
            }
        });
        outcome?;
        if from.state != AUTHORIZED {
            ground.watch.revived().insert(name.to_owned());
        }
        self.given(name, to);
        Ok(Applied::Done)
    }

    async fn delete(&self, name: &str) -> Result<Applied> {
        let ground = &self.ground;
        let delete = ground.watch.account.eventbridge().delete_connection();
        let outcome = match delete.name(name).send().await {
            Err(error)
                if !error
                    .as_service_error()
                    .is_some_and(|error| error.is_resource_not_found_exception()) =>
            {
                Err(classify(&ground.call("DeleteConnection"), &error))
            }
            _ => Ok(Applied::Done),
        };
        ground.remember_path(name, outcome.as_ref().map(drop), |now| {
            now.connection = None
        });
        outcome
    }
}

impl Stage for Connections {
    const NAME: &'static str = "connection";
    /// The whole way begins with it: without a note in status nobody would look for what was made.
    const LEDGER: bool = true;
    type Key = String;
    type Value = Connection;
    /// Its ARN.
    type Id = String;
    type Live = ObservedConnection;

    fn scope(&self) -> &str {
        &self.ground.scope
    }

    fn desired(&self) -> &Desired<String, Connection> {
        &self.desired
    }

    fn id_text(id: &String) -> String {
        id.clone()
    }

    async fn observe(&self, _: &Ids) -> Result<Seen<Self>> {
        Ok(self.found(&self.ground.paths().await?))
    }

    async fn confirm(&self, keys: &BTreeSet<String>, _: &Ids) -> Result<Option<Seen<Self>>> {
        let observed = self.ground.confirm_paths(keys).await?;
        let Some(mut observed) = observed else {
            return Ok(None);
        };
        // What is known of the others is in the ledger.
        for name in self
            .ground
            .channels
            .keys()
            .filter(|name| !keys.contains(*name))
        {
            observed.extend(self.ground.watch.paths.known(name));
        }
        let mut found = self.found(&observed);
        found.retain(|name, _| keys.contains(name));
        Ok(Some(found))
    }

    fn operation(&self, change: &ChangeOf<Self>) -> Operation<'_> {
        let api = match change.verb() {
            Verb::Create => "events:CreateConnection",
            Verb::Update | Verb::Conflict => "events:UpdateConnection",
            Verb::Delete => "events:DeleteConnection",
        };
        self.ground.watch.account.operation(&self.ground.scope, api)
    }

    async fn apply(&self, changes: &[ChangeOf<Self>], _: &Ids) -> Vec<Result<Applied>> {
        let mut outcomes = Vec::with_capacity(changes.len());
        for change in changes {
            outcomes.push(match change {
                Change::Create { key, to } => self.create(key, to).await,
                Change::Update { key, from, to, .. } => self.update(key, from, to).await,
                Change::Delete { key, .. } => self.delete(key).await,
                Change::Conflict { .. } => continue,
            });
        }
        outcomes
    }
}

/// API destinations: where EventBridge posts.
pub struct Destinations {
    /// What should be there.
    pub desired: Desired<String, Destination>,
    /// What it has in common with the other stages.
    pub ground: Ground,
}

impl Destinations {
    fn found(&self, observed: &Snapshot<ObservedPath>, ids: &Ids) -> Seen<Self> {
        let ground = &self.ground;
        let mut ledger = ground.ledger();
        let mut seen = Seen::<Self>::new();
        for (name, path) in observed {
            let Some(destination) = &path.destination else {
                continue;
            };
            let holder = holder(&destination.description, &ground.mark);
            let channel = ground.channel(name);
            let endpoint = shown(&destination.url, &ground.installation);
            if holder == Holder::Us {
                let unknown = Known {
                    webhook: true,
                    secret: None,
                };
                let known = ledger.entry(channel.clone()).or_insert(unknown);
                if known.webhook {
                    known.secret = Some(endpoint.clone()).filter(|text| text.starts_with("hmac:"));
                }
            }
            let ours = ids.get(Connections::NAME, name) == Some(destination.connection.as_str());
            let value = Destination {
                channel,
                endpoint,
                method: destination.method.clone(),
                per_second: destination.per_second,
                connection: if ours {
                    name.clone()
                } else {
                    destination.connection.clone()
                },
                description: destination.description.clone(),
                url: None,
            };
            let found = Found {
                id: destination.arn.clone(),
                value,
                holder,
                live: destination.active,
            };
            seen.insert(name.clone(), found);
        }
        seen
    }

    /// AWS quotes what it refuses.
    fn redacted(error: Error, to: &Destination) -> Error {
        let url = to.url.as_ref().map(|url| url.reveal()).unwrap_or_default();
        if to.endpoint == url {
            return error;
        }
        let message = redact(&error.message, url, &to.endpoint);
        Error { message, ..error }
    }

    /// What a call that went well leaves behind.
    fn destination(
        to: &Destination,
        arn: String,
        connection: &str,
        state: Option<&sdk::ApiDestinationState>,
    ) -> ObservedDestination {
        let none = || crate::secret::Secret::new(String::new());
        ObservedDestination {
            arn,
            url: to.url.clone().unwrap_or_else(none),
            method: to.method.clone(),
            per_second: to.per_second,
            connection: connection.to_owned(),
            active: super::is_active(state),
            description: to.description.clone(),
        }
    }

    async fn create(&self, name: &str, to: &Destination, ids: &Ids) -> Result<Applied> {
        let ground = &self.ground;
        let connection = ids.need(Connections::NAME, name)?;
        let create = ground.watch.account.eventbridge().create_api_destination();
        let create = create
            .name(name)
            .description(&to.description)
            .connection_arn(connection)
            .invocation_endpoint(to.url.as_ref().map(|url| url.reveal()).unwrap_or_default())
            .http_method(sdk::ApiDestinationHttpMethod::from(to.method.as_str()))
            .invocation_rate_limit_per_second(to.per_second);
        let outcome = create.send().await.map_err(|error| {
            let service = error.as_service_error();
            let surprise = service.is_some_and(|error| {
                error.is_resource_already_exists_exception()
                    || error.is_resource_not_found_exception()
            });
            let error = classify(&ground.call("CreateApiDestination"), &error);
            let error = Self::redacted(error, to);
            if surprise { moved(error) } else { error }
        });
        ground.remember_path(name, outcome.as_ref().map(drop), |now| {
            if let Ok(made) = &outcome {
                let arn = made.api_destination_arn.clone().unwrap_or_default();
                let state = made.api_destination_state.as_ref();
                now.destination = Some(Self::destination(to, arn, connection, state));
            }
        });
        Ok(Applied::Id(
            outcome?.api_destination_arn.unwrap_or_default(),
        ))
    }

    async fn update(&self, name: &str, to: &Destination, ids: &Ids) -> Result<Applied> {
        let ground = &self.ground;
        let connection = ids.need(Connections::NAME, name)?;
        let update = ground.watch.account.eventbridge().update_api_destination();
        let update = update
            .name(name)
            .description(&to.description)
            .connection_arn(connection)
            .invocation_endpoint(to.url.as_ref().map(|url| url.reveal()).unwrap_or_default())
            .http_method(sdk::ApiDestinationHttpMethod::from(to.method.as_str()))
            .invocation_rate_limit_per_second(to.per_second);
        let outcome = update.send().await.map_err(|error| {
            let gone = error
                .as_service_error()
                .is_some_and(|error| error.is_resource_not_found_exception());
            let error = classify(&ground.call("UpdateApiDestination"), &error);
            let error = Self::redacted(error, to);
            if gone { moved(error) } else { error }
        });
        ground.remember_path(name, outcome.as_ref().map(drop), |now| {
            if let Ok(made) = &outcome {
                let arn = made.api_destination_arn.clone().unwrap_or_default();
                let state = made.api_destination_state.as_ref();
                now.destination = Some(Self::destination(to, arn, connection, state));
            }
        });
        outcome.map(|_| Applied::Done)
    }

    async fn delete(&self, name: &str) -> Result<Applied> {
        let ground = &self.ground;
        let delete = ground.watch.account.eventbridge().delete_api_destination();
        let outcome = match delete.name(name).send().await {
            Err(error)
                if !error
                    .as_service_error()
                    .is_some_and(|error| error.is_resource_not_found_exception()) =>
            {
                Err(classify(&ground.call("DeleteApiDestination"), &error))
            }
            _ => Ok(Applied::Done),
        };
        ground.remember_path(name, outcome.as_ref().map(drop), |now| {
            now.destination = None
        });
        outcome
    }
}

impl Stage for Destinations {
    const NAME: &'static str = "api destination";
    const NEEDS: &'static [&'static str] = &[Connections::NAME];
    type Key = String;
    type Value = Destination;
    /// Its ARN.
    type Id = String;
    /// Whether its connection lets it be called.
    type Live = bool;

    fn scope(&self) -> &str {
        &self.ground.scope
    }

    fn desired(&self) -> &Desired<String, Destination> {
        &self.desired
    }

    fn id_text(id: &String) -> String {
        id.clone()
    }

    async fn observe(&self, ids: &Ids) -> Result<Seen<Self>> {
        Ok(self.found(&self.ground.paths().await?, ids))
    }

    async fn confirm(&self, keys: &BTreeSet<String>, ids: &Ids) -> Result<Option<Seen<Self>>> {
        // One whose connection this run has made was looked for when that was made.
        if keys.iter().all(|name| ids.is_new(Connections::NAME, name)) {
            return Ok(None);
        }
        let observed = self.ground.confirm_paths(keys).await?;
        Ok(observed.map(|observed| self.found(&observed, ids)))
    }

    fn ready(&self, change: &ChangeOf<Self>, ids: &Ids) -> Result<()> {
        match change.verb() {
            Verb::Create | Verb::Update => ids.need(Connections::NAME, change.key()).map(drop),
            Verb::Delete | Verb::Conflict => Ok(()),
        }
    }

    fn operation(&self, change: &ChangeOf<Self>) -> Operation<'_> {
        let api = match change.verb() {
            Verb::Create => "events:CreateApiDestination",
            Verb::Update | Verb::Conflict => "events:UpdateApiDestination",
            Verb::Delete => "events:DeleteApiDestination",
        };
        self.ground.watch.account.operation(&self.ground.scope, api)
    }

    async fn apply(&self, changes: &[ChangeOf<Self>], ids: &Ids) -> Vec<Result<Applied>> {
        let mut outcomes = Vec::with_capacity(changes.len());
        for change in changes {
            outcomes.push(match change {
                Change::Create { key, to } => self.create(key, to, ids).await,
                Change::Update { key, to, .. } => self.update(key, to, ids).await,
                Change::Delete { key, .. } => self.delete(key).await,
                Change::Conflict { .. } => continue,
            });
        }
        outcomes
    }
}

/// Rules: which events go to Slack.
pub struct Rules {
    /// What should be there.
    pub desired: Desired<String, Rule>,
    /// Where the events of each go, by the names of the API destinations.
    feeds: BTreeMap<String, BTreeSet<String>>,
    ground: Ground,
}

impl Rules {
    fn found(&self, observed: &Snapshot<ObservedRule>) -> Seen<Self> {
        let found = observed.iter().map(|(name, observed)| {
            let holder = match &observed.managed_by {
                Some(service) => Holder::Other(format!("{service}, which manages it")),
                None => holder(&observed.rule.description, &self.ground.mark),
            };
            let found = Found {
                id: (),
                value: observed.rule.clone(),
                holder,
                live: (),
            };
            (name.clone(), found)
        });
        found.collect()
    }

    /// PutRule takes what is not said as taken back, and tags only where it makes a rule.
    async fn put(&self, name: &str, to: &Rule, is_new: bool) -> Result<()> {
        let ground = &self.ground;
        let put = ground.watch.account.eventbridge().put_rule();
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
            (outcome, now) => ground.remember_rule(name, outcome.as_ref().copied(), now),
        }
        outcome
    }

    async fn delete(&self, name: &str) -> Result<()> {
        let ground = &self.ground;
        let delete = ground.watch.account.eventbridge().delete_rule().name(name);
        let outcome = match delete.send().await {
            Err(error)
                if !error
                    .as_service_error()
                    .is_some_and(|error| error.is_resource_not_found_exception()) =>
            {
                Err(classify(&ground.call("DeleteRule"), &error))
            }
            _ => Ok(()),
        };
        ground.remember_rule(name, outcome.as_ref().copied(), None);
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
        Ok(self.found(&self.ground.rules().await?))
    }

    async fn confirm(&self, keys: &BTreeSet<String>, _: &Ids) -> Result<Option<Seen<Self>>> {
        let observed = self.ground.confirm_rules(keys).await?;
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
        self.ground.watch.account.operation(&self.ground.scope, api)
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
                Change::Update { key, to, .. } => {
                    self.put(key, to, false).await.map(|()| Applied::Done)
                }
                Change::Delete { key, .. } => self.delete(key).await.map(|()| Applied::Done),
                Change::Conflict { .. } => continue,
            };
            outcomes.push(outcome);
        }
        outcomes
    }
}

/// The targets of the tenant's rules. A rule that is ours has no others.
pub struct RuleTargets {
    /// What should be there.
    pub desired: Desired<TargetKey, RuleTarget>,
    ground: Ground,
}

impl RuleTargets {
    /// Only those of rules that are there and ours.
    fn found(&self, observed: &Snapshot<ObservedRule>, ids: &Ids) -> Result<Seen<Self>> {
        let destinations = self.ground.channels.keys().filter_map(|name| {
            let arn = ids.get(Destinations::NAME, name)?;
            Some((arn, name))
        });
        let destinations: BTreeMap<_, _> = destinations.collect();
        let mut seen = Seen::<Self>::new();
        for (rule, observed) in observed {
            if ids.get(Rules::NAME, rule).is_none() {
                continue;
            }
            let Some(targets) = &observed.targets else {
                return Err(Error::failing(format!(
                    "the targets of rule {rule} have not been read yet"
                )));
            };
            for (id, target) in targets {
                let ours = destinations.get(target.destination.as_str());
                let destination = ours.map_or(&target.destination, |name| *name).clone();
                let key = TargetKey {
                    rule: rule.clone(),
                    id: id.clone(),
                };
                let found = Found {
                    id: (),
                    value: RuleTarget {
                        destination,
                        ..target.clone()
                    },
                    holder: Holder::Us,
                    live: (),
                };
                seen.insert(key, found);
            }
        }
        Ok(seen)
    }

    /// Changes what is known of a rule's targets by a write that went well.
    fn remember(
        &self,
        rule: &str,
        outcome: Result<(), &Error>,
        change: impl FnOnce(&mut BTreeMap<String, RuleTarget>),
    ) {
        let rules = &self.ground.watch.rules;
        let known = rules.known(rule).remove(rule);
        let known = known.and_then(|known| {
            let targets = known.targets.clone()?;
            Some((known, targets))
        });
        match (outcome, known) {
            (Ok(()), Some((known, mut targets))) => {
                change(&mut targets);
                let now = ObservedRule {
                    targets: Some(targets),
                    ..(*known).clone()
                };
                rules.wrote(rule, Some(now));
            }
            (Ok(()), None) => rules.doubt(rule),
            (Err(error), _) if error.class.may_have_landed() => rules.doubt(rule),
            (Err(_), _) => {}
        }
    }

    async fn put(&self, key: &TargetKey, to: &RuleTarget, ids: &Ids) -> Result<()> {
        let account = &self.ground.watch.account;
        let arn = ids.need(Destinations::NAME, &to.destination)?;
        let target = target(&key.id, arn, to)
            .map_err(|error| Error::failing(format!("building the target of a rule: {error}")))?;
        let call = self.ground.call("PutTargets");
        let put = account.eventbridge().put_targets().rule(&key.rule);
        let outcome = match put.targets(target).send().await {
            Ok(answer) => {
                let entries = answer.failed_entries();
                let outcome = failed(
                    &call,
                    answer.failed_entry_count,
                    entries.iter().map(|entry| {
                        (entry.target_id(), entry.error_code(), entry.error_message())
                    }),
                );
                let mut codes = entries.iter().filter_map(|entry| entry.error_code());
                if codes.any(|code| code.contains("ResourceNotFound")) {
                    // Where it was to go went meanwhile: the next look tells, and makes it again first.
                    self.ground.watch.paths.doubt(&to.destination);
                    outcome.map_err(moved)
                } else {
                    outcome
                }
            }
            Err(error) => {
                let gone = error
                    .as_service_error()
                    .is_some_and(|error| error.is_resource_not_found_exception());
                let error = classify(&call, &error);
                Err(if gone { moved(error) } else { error })
            }
        };
        let outcome = outcome.map_err(|error| passing(error, &to.role));
        self.remember(&key.rule, outcome.as_ref().copied(), |targets| {
            let now = RuleTarget {
                destination: arn.to_owned(),
                ..to.clone()
            };
            targets.insert(key.id.clone(), now);
        });
        outcome
    }

    async fn remove(&self, key: &TargetKey) -> Result<()> {
        let account = &self.ground.watch.account;
        let call = self.ground.call("RemoveTargets");
        let remove = account.eventbridge().remove_targets().rule(&key.rule);
        let outcome = match remove.ids(&key.id).send().await {
            Ok(answer) => failed(
                &call,
                answer.failed_entry_count,
                answer
                    .failed_entries()
                    .iter()
                    .map(|entry| (entry.target_id(), entry.error_code(), entry.error_message())),
            ),
            // With the rule its targets went.
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|error| error.is_resource_not_found_exception()) =>
            {
                self.ground.watch.rules.doubt(&key.rule);
                return Ok(());
            }
            Err(error) => Err(classify(&call, &error)),
        };
        self.remember(&key.rule, outcome.as_ref().copied(), |targets| {
            targets.remove(&key.id);
        });
        outcome
    }
}

/// A target as the SDK wants it.
fn target(
    id: &str,
    arn: &str,
    to: &RuleTarget,
) -> Result<sdk::Target, aws_sdk_eventbridge::error::BuildError> {
    let Transformer { paths, template } = &to.message;
    let paths = paths
        .iter()
        .map(|(name, path)| (name.clone(), path.clone()));
    let transformer = sdk::InputTransformer::builder()
        .set_input_paths_map(Some(paths.collect()))
        .input_template(template)
        .build()?;
    let retry = sdk::RetryPolicy::builder()
        .set_maximum_event_age_in_seconds(to.max_age)
        .set_maximum_retry_attempts(to.max_attempts)
        .build();
    let dead_letters = Some(&to.dead_letters).filter(|arn| !arn.is_empty());
    let dead_letters = dead_letters.map(|arn| sdk::DeadLetterConfig::builder().arn(arn).build());
    sdk::Target::builder()
        .id(id)
        .arn(arn)
        .role_arn(&to.role)
        .input_transformer(transformer)
        .retry_policy(retry)
        .set_dead_letter_config(dead_letters)
        .build()
}

/// The entry of an answer that was otherwise good, and says of it that it failed.
fn failed<'a>(
    call: &Call<'_>,
    count: i32,
    mut entries: impl Iterator<Item = (Option<&'a str>, Option<&'a str>, Option<&'a str>)>,
) -> Result<()> {
    match entries.next() {
        None if count == 0 => Ok(()),
        None => Err(failed_entry(call, "", "FailedEntryCount is not 0")),
        Some((id, code, text)) => {
            let text = format!(
                "target {}: {}",
                id.unwrap_or_default(),
                text.unwrap_or("no reason given")
            );
            Err(failed_entry(call, code.unwrap_or_default(), &text))
        }
    }
}

/// What is denied may be that we hand EventBridge the role that it is to assume, or that it does. AWS does not
/// always say which role.
fn passing(error: Error, invoke: &str) -> Error {
    if error.class != Class::Denied {
        return error;
    }
    let message = if error.message.contains("iam:PassRole") {
        format!(
            "{}, and iam:PassRole on {invoke} with the condition iam:PassedToService = events.amazonaws.com",
            error.message
        )
    } else if error.message.contains(DISTRUSTS) && !error.message.contains(invoke) {
        format!("{} (the role is {invoke})", error.message)
    } else {
        return error;
    };
    Error { message, ..error }
}

impl Stage for RuleTargets {
    const NAME: &'static str = "rule target";
    const NEEDS: &'static [&'static str] = &[Rules::NAME, Destinations::NAME];
    type Key = TargetKey;
    type Value = RuleTarget;
    type Id = ();
    type Live = ();

    fn scope(&self) -> &str {
        &self.ground.scope
    }

    fn desired(&self) -> &Desired<TargetKey, RuleTarget> {
        &self.desired
    }

    async fn observe(&self, ids: &Ids) -> Result<Seen<Self>> {
        self.found(&self.ground.rules().await?, ids)
    }

    async fn confirm(&self, keys: &BTreeSet<TargetKey>, ids: &Ids) -> Result<Option<Seen<Self>>> {
        // A rule that this run has made was looked for when it was made.
        let is_new = |key: &TargetKey| ids.is_new(Rules::NAME, &key.rule);
        if keys.iter().all(is_new) {
            return Ok(None);
        }
        let rules = keys.iter().map(|key| key.rule.clone()).collect();
        let Some(observed) = self.ground.confirm_rules(&rules).await? else {
            return Ok(None);
        };
        let mut found = self.found(&observed, ids)?;
        found.retain(|key, _| keys.contains(key));
        Ok(Some(found))
    }

    fn ready(&self, change: &ChangeOf<Self>, ids: &Ids) -> Result<()> {
        let to = match change {
            Change::Create { to, .. } | Change::Update { to, .. } => to,
            Change::Delete { .. } | Change::Conflict { .. } => return Ok(()),
        };
        ids.need(Rules::NAME, &change.key().rule)?;
        ids.need(Destinations::NAME, &to.destination).map(drop)
    }

    fn operation(&self, change: &ChangeOf<Self>) -> Operation<'_> {
        let api = match change.verb() {
            Verb::Create | Verb::Update | Verb::Conflict => "events:PutTargets",
            Verb::Delete => "events:RemoveTargets",
        };
        self.ground.watch.account.operation(&self.ground.scope, api)
    }

    async fn apply(&self, changes: &[ChangeOf<Self>], ids: &Ids) -> Vec<Result<Applied>> {
        let mut outcomes = Vec::with_capacity(changes.len());
        for change in changes {
            let outcome = match change {
                Change::Create { key, to } | Change::Update { key, to, .. } => {
                    self.put(key, to, ids).await
                }
                Change::Delete { key, .. } => self.remove(key).await,
                Change::Conflict { .. } => continue,
            };
            outcomes.push(outcome.map(|()| Applied::Done));
        }
        outcomes
    }
}

/// The stages on the way to Slack, in order.
pub fn stages(wanted: Wanted, ground: &Ground) -> (Connections, Destinations, Rules, RuleTargets) {
    let Wanted {
        connections,
        destinations,
        rules,
        targets,
        channels: _,
        feeds,
    } = wanted;
    (
        Connections {
            desired: connections,
            ground: ground.clone(),
        },
        Destinations {
            desired: destinations,
            ground: ground.clone(),
        },
        Rules {
            desired: rules,
            feeds,
            ground: ground.clone(),
        },
        RuleTargets {
            desired: targets,
            ground: ground.clone(),
        },
    )
}

#[cfg(test)]
mod tests;
