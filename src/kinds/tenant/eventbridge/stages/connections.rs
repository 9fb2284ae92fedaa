//! Connections: what EventBridge says to Slack of who it is.

use super::{EventBridgeContext, deleted, redacted, refused};
use crate::{
    api::{SlackVia, TenantObservabilityStatus},
    clients::aws::Writer,
    engine::{
        error::{Error, Result},
        gate::{Operation, StatusEdit, WritePermit},
        informer::Snapshot,
        plan::{Change, Desired, Found, Owner},
        stage::{ChangeOf, Ids, ResultOf, Seen, Stage},
    },
    kinds::tenant::eventbridge::{
        connection_state,
        desired::{
            AUTHORIZED, BOT_HEADER, Connection, ObservedConnection, ObservedPath, PathKey, owner,
        },
    },
};
use aws_sdk_eventbridge::types as sdk;
use std::collections::BTreeSet;

/// Connections: what EventBridge says to Slack of who it is.
pub struct Connections {
    /// What should be there.
    pub desired: Desired<String, Connection>,
    /// What it has in common with the other stages.
    pub events: EventBridgeContext,
}

impl Connections {
    /// Whether a connection that lets nobody through is to be written again. Once for each time that it is
    /// seen to have come to that: where the secret is wrong, writing it again helps no more than once.
    fn must_revive(&self, name: &str, connection: &ObservedConnection) -> bool {
        let mut revived = self.events.scope.paths.source.reader.revived.lock();
        if !connection.is_barred() {
            if !connection.is_moving() {
                revived.remove(name);
            }
            return false;
        }
        !revived.contains(name)
    }

    fn found(&self, observed: &Snapshot<ObservedPath>) -> Seen<Self> {
        let events = &self.events;
        let mut ledger = events.ledger.lock();
        for (name, path) in events.paths.iter() {
            let there = observed
                .get(name)
                .is_some_and(|path| path.connection.is_some());
            if path.via == SlackVia::BotToken
                && !there
                && let Some(secret) = ledger.get_mut(path)
            {
                // What was in it went with it.
                *secret = None;
            }
        }
        let mut seen = Seen::<Self>::default();
        for (name, path) in observed {
            let Some(connection) = &path.connection else {
                continue;
            };
            let wanted = self.desired.wanted.contains_key(name);
            if connection.is_going() && !wanted {
                continue;
            }
            let owner = owner(&connection.description, &events.mark);
            let key = events.path(name);
            if owner == Owner::Us {
                ledger.entry(key.clone()).or_default();
            }
            let is_bot = connection.header == BOT_HEADER && key.via == SlackVia::BotToken;
            let secret = ledger.get(&key).filter(|_| is_bot).cloned().flatten();
            let state = if self.must_revive(name, connection) {
                connection.state.clone()
            } else {
                AUTHORIZED.to_owned()
            };
            let value = Connection {
                channel: key.channel,
                header: connection.header.clone(),
                secret: secret.unwrap_or_default(),
                state,
                description: connection.description.clone(),
                value: None,
                shut: None,
            };
            let found = Found {
                id: connection.arn.clone(),
                value,
                owner,
                live: connection.clone(),
            };
            seen.insert(name.clone(), found);
        }
        seen
    }

    /// That EventBridge has been given what is in `to`.
    fn given(&self, name: &str, to: &Connection) {
        let mut ledger = self.events.ledger.lock();
        let secret = ledger.entry(self.events.path(name)).or_default();
        // Of a webhook the API destination has it, and says so.
        if to.is_bot() {
            *secret = Some(to.secret.clone());
        }
    }

    /// A refusal without the token that it quotes.
    fn redacted(error: Error, to: &Connection) -> Error {
        match value(to).strip_prefix("Bearer ") {
            Some(token) => redacted(error, token, &to.secret),
            None => error,
        }
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
            state: connection_state(state),
            reason: String::new(),
            description: to.description.clone(),
        }
    }

    async fn create(&self, writer: &Writer<'_>, name: &str, to: &Connection) -> Result<String> {
        let events = &self.events;
        let key = sdk::CreateConnectionApiKeyAuthRequestParameters::builder()
            .api_key_name(&to.header)
            .api_key_value(value(to))
            .build()
            .map_err(|_| Error::failing("building the connection's header"))?;
        let key = sdk::CreateConnectionAuthRequestParameters::builder()
            .api_key_auth_parameters(key)
            .build();
        let create = writer.eventbridge().create_connection();
        let create = create
            .name(name)
            .description(&to.description)
            .authorization_type(sdk::ConnectionAuthorizationType::ApiKey)
            .auth_parameters(key);
        let outcome = create.send().await;
        let outcome = outcome.map_err(|error| Self::redacted(refused(writer, &error), to));
        events.remember_path(name, outcome.as_ref().map(drop), |now| {
            if let Ok(made) = &outcome {
                let arn = made.connection_arn.clone().unwrap_or_default();
                now.connection = Some(Self::connection(to, arn, made.connection_state.as_ref()));
            }
        });
        let made = outcome?;
        self.given(name, to);
        Ok(made.connection_arn.unwrap_or_default())
    }

    async fn update(
        &self,
        writer: &Writer<'_>,
        name: &str,
        from: &Connection,
        to: &Connection,
    ) -> Result<()> {
        let events = &self.events;
        let key = sdk::UpdateConnectionApiKeyAuthRequestParameters::builder()
            .api_key_name(&to.header)
            .api_key_value(value(to))
            .build();
        let key = sdk::UpdateConnectionAuthRequestParameters::builder()
            .api_key_auth_parameters(key)
            .build();
        let update = writer.eventbridge().update_connection();
        let update = update
            .name(name)
            .description(&to.description)
            .authorization_type(sdk::ConnectionAuthorizationType::ApiKey)
            .auth_parameters(key);
        let outcome = update.send().await;
        let outcome = outcome.map_err(|error| Self::redacted(refused(writer, &error), to));
        events.remember_path(name, outcome.as_ref().map(drop), |now| {
            if let Ok(made) = &outcome {
                let arn = made.connection_arn.clone().unwrap_or_default();
                now.connection = Some(Self::connection(to, arn, made.connection_state.as_ref()));
            }
        });
        outcome?;
        if from.state != AUTHORIZED {
            events
                .scope
                .paths
                .source
                .reader
                .revived
                .lock()
                .insert(name.to_owned());
        }
        self.given(name, to);
        Ok(())
    }

    async fn delete(&self, writer: &Writer<'_>, name: &str) -> Result<()> {
        let events = &self.events;
        let delete = writer.eventbridge().delete_connection().name(name);
        let outcome = deleted(writer, delete.send().await);
        events.remember_path(name, outcome.as_ref().copied(), |now| now.connection = None);
        outcome
    }
}

/// What is in the header.
fn value(to: &Connection) -> &str {
    let value = to.value.as_ref().map(|value| value.reveal());
    value.unwrap_or_default()
}

impl Stage for Connections {
    const NAME: &'static str = "connection";
    /// The whole way begins with it: without a note in status nobody would look for what was made.
    type Key = String;
    type Value = Connection;
    /// Its ARN.
    type Id = String;
    type Live = ObservedConnection;

    fn endpoint(&self) -> &str {
        &self.events.endpoint
    }

    fn desired(&self) -> &Desired<String, Connection> {
        &self.desired
    }

    async fn observe(&self, _: &Ids) -> Result<Seen<Self>> {
        Ok(self.found(&self.events.observed(&self.events.scope.paths).await?))
    }

    async fn confirm(&self, keys: &BTreeSet<String>, _: &Ids) -> Result<Option<Seen<Self>>> {
        let EventBridgeContext { scope, options, .. } = &self.events;
        let Some(mut observed) = scope.paths.confirm(keys, options).await? else {
            return Ok(None);
        };
        // What is known of the others is in the ledger.
        let others = self.events.paths.keys();
        for name in others.filter(|name| !keys.contains(*name)) {
            let known = scope.paths.get(name);
            observed.extend(known.map(|known| (name.clone(), known)));
        }
        let mut found = self.found(&observed);
        found.retain(|name, _| keys.contains(name));
        Ok(Some(found))
    }

    /// As long as it leads somewhere.
    fn defers_deletion(&self, name: &String, _: &Seen<Self>) -> bool {
        let events = &self.events;
        let known = events.scope.paths.get(name);
        let leads = known.and_then(|path| {
            let destination = path.destination.as_ref()?;
            Some(owner(&destination.description, &events.mark) == Owner::Us)
        });
        events.replaced.contains(name) && leads.unwrap_or_default()
    }

    fn intent(&self, name: &String) -> Option<StatusEdit> {
        let path = self.events.path(name);
        Some(StatusEdit::new(
            move |status: &mut TenantObservabilityStatus| {
                let paths = &mut status.slack_paths;
                // What a connection that is gone was given went with it.
                paths.retain(|known| PathKey::from(known) != path);
                paths.push(path.clone().entry(None));
            },
        ))
    }

    fn operation(&self, change: &ChangeOf<Self>) -> Operation<'_> {
        let api = match change {
            Change::Create { .. } => "events:CreateConnection",
            Change::Update { .. } => "events:UpdateConnection",
            Change::Delete { .. } => "events:DeleteConnection",
        };
        self.events.operation(api)
    }

    async fn apply(
        &self,
        permit: &WritePermit<'_>,
        change: &ChangeOf<Self>,
        _: &Ids,
    ) -> ResultOf<Self> {
        let writer = &self.events.writer(permit)?;
        match change {
            Change::Create { key, to } => return self.create(writer, key, to).await.map(Some),
            Change::Update { key, from, to, .. } => self.update(writer, key, from, to).await?,
            Change::Delete { key, .. } => self.delete(writer, key).await?,
        }
        Ok(None)
    }
}
