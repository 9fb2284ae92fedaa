//! API destinations: where EventBridge posts.

use super::{Connections, EventBridgeContext, deleted, redacted, refused};
use crate::{
    api::SlackVia,
    clients::{aws::Writer, secret::Secret},
    engine::{
        error::{Error, Result},
        gate::{Operation, WritePermit},
        informer::Snapshot,
        plan::{Change, Desired, Found, Owner},
        stage::{ChangeOf, Ids, ResultOf, Seen, Stage},
    },
    kinds::tenant::eventbridge::{
        desired::{ApiDestination, ObservedDestination, ObservedPath, owner, shown},
        is_active,
    },
};
use aws_sdk_eventbridge::types as sdk;
use std::collections::BTreeSet;

/// API destinations: where EventBridge posts.
pub struct Destinations {
    /// What should be there.
    pub desired: Desired<String, ApiDestination>,
    /// What it has in common with the other stages.
    pub events: EventBridgeContext,
}

impl Destinations {
    fn found(&self, observed: &Snapshot<ObservedPath>, ids: &Ids) -> Seen<Self> {
        let events = &self.events;
        let mut ledger = events.ledger.lock();
        let mut seen = Seen::<Self>::default();
        for (name, path) in observed {
            let Some(destination) = &path.destination else {
                continue;
            };
            let owner = owner(&destination.description, &events.mark);
            let key = events.path(name);
            let endpoint = shown(&destination.url, &events.installation);
            if owner == Owner::Us {
                let secret = ledger.entry(key.clone()).or_default();
                if key.via == SlackVia::Webhook {
                    *secret = Some(endpoint.clone()).filter(|text| text.starts_with("hmac:"));
                }
            }
            let ours = ids.get::<Connections>(name) == Some(&destination.connection);
            let value = ApiDestination {
                channel: key.channel,
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
                owner,
                live: destination.active,
            };
            seen.insert(name.clone(), found);
        }
        seen
    }

    /// A refusal without the URL that it quotes, where that is a secret.
    fn redacted(error: Error, to: &ApiDestination) -> Error {
        match url(to) {
            url if url == to.endpoint => error,
            url => redacted(error, url, &to.endpoint),
        }
    }

    /// What a call that went well leaves behind.
    fn destination(
        to: &ApiDestination,
        arn: String,
        connection: &str,
        state: Option<&sdk::ApiDestinationState>,
    ) -> ObservedDestination {
        let none = || Secret::new(String::new());
        ObservedDestination {
            arn,
            url: to.url.clone().unwrap_or_else(none),
            method: to.method.clone(),
            per_second: to.per_second,
            connection: connection.to_owned(),
            active: is_active(state),
            description: to.description.clone(),
        }
    }

    async fn create(
        &self,
        writer: &Writer<'_>,
        name: &str,
        to: &ApiDestination,
        ids: &Ids,
    ) -> Result<String> {
        let events = &self.events;
        let connection = ids.need::<Connections>(&name.to_owned())?;
        let create = writer.eventbridge().create_api_destination();
        let create = create
            .name(name)
            .description(&to.description)
            .connection_arn(connection)
            .invocation_endpoint(url(to))
            .http_method(sdk::ApiDestinationHttpMethod::from(to.method.as_str()))
            .invocation_rate_limit_per_second(to.per_second);
        let outcome = create.send().await;
        let outcome = outcome.map_err(|error| Self::redacted(refused(writer, &error), to));
        events.remember_path(name, outcome.as_ref().map(drop), |now| {
            if let Ok(made) = &outcome {
                let arn = made.api_destination_arn.clone().unwrap_or_default();
                let state = made.api_destination_state.as_ref();
                now.destination = Some(Self::destination(to, arn, connection, state));
            }
        });
        Ok(outcome?.api_destination_arn.unwrap_or_default())
    }

    async fn update(
        &self,
        writer: &Writer<'_>,
        name: &str,
        to: &ApiDestination,
        ids: &Ids,
    ) -> Result<()> {
        let events = &self.events;
        let connection = ids.need::<Connections>(&name.to_owned())?;
        let update = writer.eventbridge().update_api_destination();
        let update = update
            .name(name)
            .description(&to.description)
            .connection_arn(connection)
            .invocation_endpoint(url(to))
            .http_method(sdk::ApiDestinationHttpMethod::from(to.method.as_str()))
            .invocation_rate_limit_per_second(to.per_second);
        let outcome = update.send().await;
        let outcome = outcome.map_err(|error| Self::redacted(refused(writer, &error), to));
        events.remember_path(name, outcome.as_ref().map(drop), |now| {
            if let Ok(made) = &outcome {
                let arn = made.api_destination_arn.clone().unwrap_or_default();
                let state = made.api_destination_state.as_ref();
                now.destination = Some(Self::destination(to, arn, connection, state));
            }
        });
        outcome.map(drop)
    }

    async fn delete(&self, writer: &Writer<'_>, name: &str) -> Result<()> {
        let events = &self.events;
        let delete = writer.eventbridge().delete_api_destination().name(name);
        let outcome = deleted(writer, delete.send().await);
        events.remember_path(name, outcome.as_ref().copied(), |now| {
            now.destination = None
        });
        outcome
    }
}

/// Where it is to post.
fn url(to: &ApiDestination) -> &str {
    let url = to.url.as_ref().map(|url| url.reveal());
    url.unwrap_or_default()
}

impl Stage for Destinations {
    const NAME: &'static str = "api destination";
    const NEEDS: &'static [&'static str] = &[Connections::NAME];
    type Key = String;
    type Value = ApiDestination;
    /// Its ARN.
    type Id = String;
    /// Whether its connection lets it be called.
    type Live = bool;

    fn endpoint(&self) -> &str {
        &self.events.endpoint
    }

    fn desired(&self) -> &Desired<String, ApiDestination> {
        &self.desired
    }

    async fn observe(&self, ids: &Ids) -> Result<Seen<Self>> {
        Ok(self.found(&self.events.observed(&self.events.scope.paths).await?, ids))
    }

    async fn confirm(&self, keys: &BTreeSet<String>, ids: &Ids) -> Result<Option<Seen<Self>>> {
        // One whose connection this run has made was looked for when that was made.
        if keys.iter().all(|name| ids.is_new::<Connections>(name)) {
            return Ok(None);
        }
        let EventBridgeContext { scope, options, .. } = &self.events;
        let observed = scope.paths.confirm(keys, options).await?;
        Ok(observed.map(|observed| self.found(&observed, ids)))
    }

    fn ready(&self, change: &ChangeOf<Self>, ids: &Ids) -> Result<()> {
        match change {
            Change::Create { .. } | Change::Update { .. } => {
                ids.need::<Connections>(change.key()).map(drop)
            }
            Change::Delete { .. } => Ok(()),
        }
    }

    /// Until what is on its way there has arrived.
    fn defers_deletion(&self, name: &String, _: &Seen<Self>) -> bool {
        self.events.drains(name)
    }

    fn operation(&self, change: &ChangeOf<Self>) -> Operation<'_> {
        let api = match change {
            Change::Create { .. } => "events:CreateApiDestination",
            Change::Update { .. } => "events:UpdateApiDestination",
            Change::Delete { .. } => "events:DeleteApiDestination",
        };
        self.events.operation(api)
    }

    async fn apply(
        &self,
        permit: &WritePermit<'_>,
        change: &ChangeOf<Self>,
        ids: &Ids,
    ) -> ResultOf<Self> {
        let writer = &self.events.writer(permit)?;
        match change {
            Change::Create { key, to } => return self.create(writer, key, to, ids).await.map(Some),
            Change::Update { key, to, .. } => self.update(writer, key, to, ids).await?,
            Change::Delete { key, .. } => self.delete(writer, key).await?,
        }
        Ok(None)
    }
}
