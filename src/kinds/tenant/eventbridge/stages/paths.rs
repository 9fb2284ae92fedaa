//! The paths into Slack: for each a connection, which says who calls, and an API destination, which says where.

use super::{EventBridgeContext, KnownPaths, deleted, redacted, refused};
use crate::{
    api::{SlackVia, TenantObservabilityStatus},
    clients::{aws::Writer, secret::Secret},
    engine::{
        error::{Class, Error, Result},
        gate::{Operation, StatusEdit, WritePermit},
        informer::Snapshot,
        plan::{Change, Desired, Found, Owner, Verb},
        stage::{ChangeOf, Ids, ResultOf, Seen, Stage},
    },
    kinds::tenant::eventbridge::{
        attributes::{CONNECTIVITY, HTTP_PARAMETERS},
        connection_state,
        desired::{
            ApiDestination, BOT_HEADER, Connection, Given, ObservedConnection, ObservedDestination,
            ObservedPath, PathKey, PathPart, PathValue, shown,
        },
        is_active,
    },
};
use aws_sdk_eventbridge::types as sdk;
use std::{collections::BTreeSet, sync::Arc};

/// The connections and API destinations of one tenant in one place.
pub struct SlackPaths {
    /// What should be there.
    pub desired: Desired<PathPart, PathValue>,
    /// What it has in common with the rules.
    pub events: EventBridgeContext,
}

impl SlackPaths {
    /// What there is of the paths `names`. What is learnt from it goes into `known` (which paths are ours, and which
    /// secret each has been given) and into `reauthorized` (the connections that have been written again since they were
    /// refused). Pure.
    fn found<'a>(
        &self,
        names: impl Iterator<Item = &'a String>,
        observed: &Snapshot<ObservedPath>,
        known: &mut KnownPaths,
        reauthorized: &mut BTreeSet<String>,
    ) -> Seen<Self> {
        let events = &self.events;
        let is_gone = |name: &&String| {
            let there = observed.get(*name);
            there.is_none_or(|path| path.connection.is_none())
        };
        for name in names.filter(is_gone) {
            // The token that a connection was given went with it.
            let path = events.paths.get(name);
            let path = path.filter(|path| path.via == SlackVia::BotToken);
            if let Some(given) = path.and_then(|path| known.get_mut(path)) {
                *given = Given::default();
            }
        }
        let mut seen = Seen::<Self>::default();
        for (name, there) in observed {
            let path = events.path(name);
            let mut own = None;
            if let Some(connection) = &there.connection {
                if connection.is_open() {
                    reauthorized.remove(name);
                }
                let key = PathPart::Connection(name.clone());
                let owner = events.ownership.of_description(&connection.description);
                if !connection.is_deleting() || self.desired.wanted.contains_key(&key) {
                    let is_bot = connection.header == BOT_HEADER && path.via == SlackVia::BotToken;
                    if owner == Owner::Us {
                        let given = known.entry(path.clone()).or_default();
                        // What AWS does after a write is over where the connection is open.
                        if is_bot && connection.is_open() && given.modified.is_none() {
                            given.modified = connection.modified;
                        }
                    }
                    let given = known.get(&path).filter(|_| is_bot);
                    let secret =
                        given.and_then(|given| match given.modified.zip(connection.modified) {
                            Some((ours, now)) if now > ours && connection.is_open() => {
                                Some(format!("written by somebody else at {now}"))
                            }
                            _ => given.secret.clone(),
                        });
                    let value = Connection {
                        channel: path.channel.clone(),
                        header: connection.header.clone(),
                        secret: secret.unwrap_or_default(),
                        state: connection.state.clone(),
                        description: connection.description.clone(),
                        foreign: connection.foreign.clone(),
                        needs_reauthorization: connection.is_deauthorized()
                            && !reauthorized.contains(name),
                        value: None,
                        shut: None,
                    };
                    let found = Found {
                        id: connection.arn.clone(),
                        value: PathValue::Connection(value),
                        owner,
                        live: there.clone(),
                    };
                    let adoption = self.desired.adoption.get(&key);
                    own = found.ours_or_adopted(adoption).map(|_| &connection.arn);
                    seen.insert(key, found);
                }
            }
            if let Some(destination) = &there.destination {
                let owner = events.ownership.of_description(&destination.description);
                let endpoint = shown(&destination.url, &events.installation);
                if owner == Owner::Us {
                    let given = known.entry(path.clone()).or_default();
                    if path.via == SlackVia::Webhook {
                        given.secret =
                            Some(endpoint.clone()).filter(|text| text.starts_with("hmac:"));
                    }
                }
                let arn = &destination.connection;
                let value = ApiDestination {
                    channel: path.channel,
                    endpoint,
                    method: destination.method.clone(),
                    per_second: destination.per_second,
                    connection: if own == Some(arn) { name } else { arn }.clone(),
                    description: destination.description.clone(),
                    url: None,
                };
                let found = Found {
                    id: destination.arn.clone(),
                    value: PathValue::Destination(value),
                    owner,
                    live: there.clone(),
                };
                seen.insert(PathPart::Destination(name.clone()), found);
            }
        }
        seen
    }

    fn learn<'a>(
        &self,
        names: impl Iterator<Item = &'a String>,
        observed: &Snapshot<ObservedPath>,
    ) -> Seen<Self> {
        let EventBridgeContext {
            scope, recorded, ..
        } = &self.events;
        let mut reauthorized = scope.paths.source.reader.reauthorized.lock();
        self.found(names, observed, &mut recorded.lock(), &mut reauthorized)
    }

    /// Makes a connection, or replaces what is in it.
    async fn put_connection(
        &self,
        writer: &Writer<'_>,
        name: &str,
        to: &Connection,
        from: Option<&Connection>,
    ) -> Result<String> {
        let (events, value) = (&self.events, text(&to.value));
        let kind = sdk::ConnectionAuthorizationType::ApiKey;
        let outcome = if from.is_none() {
            let key = sdk::CreateConnectionApiKeyAuthRequestParameters::builder();
            let key = key.api_key_name(&to.header).api_key_value(value).build();
            let key = key.map_err(|_| Error::failing("building the connection's header"))?;
            let auth = sdk::CreateConnectionAuthRequestParameters::builder();
            let auth = auth.api_key_auth_parameters(key).build();
            let create = writer.create_connection()?.name(name);
            let create = create.description(&to.description).authorization_type(kind);
            let made = create.auth_parameters(auth).send().await;
            made.map(|made| (made.connection_arn, made.connection_state))
                .map_err(|error| refused(writer, &error))
        } else {
            let key = sdk::UpdateConnectionApiKeyAuthRequestParameters::builder();
            let key = key.api_key_name(&to.header).api_key_value(value).build();
            // What is left out is left as it is.
            let adds = from.is_some_and(|from| from.foreign.contains(HTTP_PARAMETERS));
            let nothing = adds.then(|| {
                sdk::ConnectionHttpParameters::builder()
                    .set_header_parameters(Some(Vec::new()))
                    .set_query_string_parameters(Some(Vec::new()))
                    .set_body_parameters(Some(Vec::new()))
                    .build()
            });
            let auth = sdk::UpdateConnectionAuthRequestParameters::builder();
            let auth = auth
                .api_key_auth_parameters(key)
                .set_invocation_http_parameters(nothing)
                .build();
            let update = writer.update_connection()?.name(name);
            let update = update.description(&to.description).authorization_type(kind);
            let made = update.auth_parameters(auth).send().await;
            made.map(|made| (made.connection_arn, made.connection_state))
                .map_err(|error| refused(writer, &error))
        };
        let outcome = outcome.map_err(|error| match value.strip_prefix("Bearer ") {
            Some(token) => redacted(error, token, &to.secret),
            None => error,
        });
        events.remember_path(name, outcome.as_ref(), |now, (arn, state)| {
            now.connection = Some(ObservedConnection {
                arn: arn.clone().unwrap_or_default(),
                header: to.header.clone(),
                state: connection_state(state.as_ref()),
                reason: String::new(),
                description: to.description.clone(),
                foreign: to.foreign.clone(),
                modified: None,
            });
        });
        let (arn, _) = outcome?;
        let mut known = events.recorded.lock();
        let given = known.entry(events.path(name)).or_default();
        given.modified = None;
        // Of a webhook the API destination has it, and says so.
        if to.is_bot() {
            given.secret = Some(to.secret.clone());
        }
        Ok(arn.unwrap_or_default())
    }

    /// Makes an API destination, or replaces it.
    async fn put_destination(
        &self,
        writer: &Writer<'_>,
        name: &str,
        to: &ApiDestination,
        is_new: bool,
        ids: &Ids,
    ) -> Result<String> {
        let url = text(&to.url);
        let connection = ids.need::<Self>(&PathPart::Connection(name.to_owned()))?;
        macro_rules! put {
            ($call:ident) => {{
                let put = writer.$call()?.name(name).description(&to.description);
                let put = put.connection_arn(connection).invocation_endpoint(url);
                let put = put
                    .http_method(sdk::ApiDestinationHttpMethod::from(to.method.as_str()))
                    .invocation_rate_limit_per_second(to.per_second);
                let made = put.send().await;
                made.map(|made| (made.api_destination_arn, made.api_destination_state))
                    .map_err(|error| refused(writer, &error))
            }};
        }
        let outcome = if is_new {
            put!(create_api_destination)
        } else {
            put!(update_api_destination)
        };
        let outcome = outcome.map_err(|error| match url == to.endpoint {
            true => error,
            false => redacted(error, url, &to.endpoint),
        });
        let events = &self.events;
        events.remember_path(name, outcome.as_ref(), |now, (arn, state)| {
            now.destination = Some(ObservedDestination {
                arn: arn.clone().unwrap_or_default(),
                url: Secret::new(url.to_owned()),
                method: to.method.clone(),
                per_second: to.per_second,
                connection: connection.clone(),
                active: is_active(state.as_ref()),
                description: to.description.clone(),
            });
        });
        Ok(outcome?.0.unwrap_or_default())
    }

    async fn delete(&self, writer: &Writer<'_>, key: &PathPart) -> Result<()> {
        let outcome = match key {
            PathPart::Connection(name) => {
                deleted(writer, writer.delete_connection()?.name(name).send().await)
            }
            PathPart::Destination(name) => {
                let delete = writer.delete_api_destination()?.name(name);
                deleted(writer, delete.send().await)
            }
        };
        let events = &self.events;
        events.remember_path(key.name(), outcome.as_ref(), |now, ()| match key {
            PathPart::Connection(_) => now.connection = None,
            PathPart::Destination(_) => now.destination = None,
        });
        outcome
    }
}

/// A secret that is to be handed over.
fn text(secret: &Option<Secret>) -> &str {
    secret.as_ref().map_or("", |secret| secret.reveal())
}

impl Stage for SlackPaths {
    const NAME: &'static str = "connection";
    const NOUNS: &'static [&'static str] = &[Self::NAME, "api destination"];
    type Key = PathPart;
    type Value = PathValue;
    /// Its ARN.
    type Id = String;
    /// What there is of its path.
    type Live = Arc<ObservedPath>;

    fn noun(key: &PathPart) -> &'static str {
        match key {
            PathPart::Connection(_) => Self::NAME,
            PathPart::Destination(_) => "api destination",
        }
    }

    fn endpoint(&self) -> &str {
        &self.events.endpoint
    }

    fn desired(&self) -> &Desired<PathPart, PathValue> {
        &self.desired
    }

    async fn observe(&self, _: &Ids) -> Result<Seen<Self>> {
        let events = &self.events;
        let observed = events.observed(&events.scope.paths).await?;
        Ok(self.learn(events.paths.keys(), &observed))
    }

    async fn confirm(&self, keys: &BTreeSet<PathPart>, _: &Ids) -> Result<Option<Seen<Self>>> {
        let names: BTreeSet<_> = keys.iter().map(|key| key.name().to_owned()).collect();
        let EventBridgeContext { scope, options, .. } = &self.events;
        let observed = scope.paths.confirm(&names, options).await?;
        Ok(observed.map(|observed| self.learn(names.iter(), &observed)))
    }

    fn refers_to(&self, key: &PathPart, _: &PathValue) -> BTreeSet<PathPart> {
        match key {
            PathPart::Connection(_) => BTreeSet::new(),
            PathPart::Destination(name) => [PathPart::Connection(name.clone())].into(),
        }
    }

    fn unsupported_change(&self, change: &ChangeOf<Self>) -> Option<Error> {
        let Change::Update {
            key,
            from: PathValue::Connection(from),
            ..
        } = change
        else {
            return None;
        };
        let stays = from.foreign.contains(CONNECTIVITY);
        stays.then(|| {
            let message = format!(
                "connection {key} leads to a private API ({CONNECTIVITY}), and EventBridge has no call that takes that back: delete the connection, and it is made again"
            );
            Error::new(Class::Rejected, message)
        })
    }

    fn ready(&self, change: &ChangeOf<Self>, ids: &Ids) -> Result<()> {
        match (change.verb(), change.key()) {
            (Verb::Create | Verb::Update, PathPart::Destination(name)) => ids
                .need::<Self>(&PathPart::Connection(name.clone()))
                .map(drop),
            _ => Ok(()),
        }
    }

    /// Until what is on its way there has arrived. A connection alone leads nowhere.
    fn defers_deletion(&self, key: &PathPart, seen: &Seen<Self>) -> bool {
        let destination = seen.get(&PathPart::Destination(key.name().to_owned()));
        let leads = destination.is_some_and(|found| found.owner == Owner::Us);
        leads && self.events.is_draining(key.name())
    }

    /// The whole path begins with its connection: without a note in status nobody would look for what was made.
    fn intent(&self, key: &PathPart) -> Option<StatusEdit> {
        let PathPart::Connection(name) = key else {
            return None;
        };
        let path = self.events.path(name);
        Some(StatusEdit::new(
            move |status: &mut TenantObservabilityStatus| {
                let paths = &mut status.slack_paths;
                // What a connection that is gone was given went with it.
                paths.retain(|known| PathKey::from(known) != path);
                paths.push(path.clone().entry(Given::default()));
            },
        ))
    }

    fn operation(&self, change: &ChangeOf<Self>) -> Operation<'_> {
        let api = match (change.key(), change.verb()) {
            (PathPart::Connection(_), Verb::Create) => "events:CreateConnection",
            (PathPart::Connection(_), Verb::Delete) => "events:DeleteConnection",
            (PathPart::Connection(_), _) => "events:UpdateConnection",
            (PathPart::Destination(_), Verb::Create) => "events:CreateApiDestination",
            (PathPart::Destination(_), Verb::Delete) => "events:DeleteApiDestination",
            (PathPart::Destination(_), _) => "events:UpdateApiDestination",
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
        let is_new = change.verb() == Verb::Create;
        let (Change::Create { key, to } | Change::Update { key, to, .. }) = change else {
            return self.delete(writer, change.key()).await.map(|()| None);
        };
        let arn = match to {
            PathValue::Connection(to) => {
                let from = match change {
                    Change::Update {
                        from: PathValue::Connection(from),
                        ..
                    } => Some(from),
                    _ => None,
                };
                self.put_connection(writer, key.name(), to, from).await
            }
            PathValue::Destination(to) => {
                let put = self.put_destination(writer, key.name(), to, is_new, ids);
                put.await
            }
        }?;
        if let Change::Update {
            from: PathValue::Connection(from),
            ..
        } = change
            && from.needs_reauthorization
        {
            let mut reauthorized = self.events.scope.paths.source.reader.reauthorized.lock();
            reauthorized.insert(key.name().to_owned());
        }
        Ok(is_new.then_some(arn))
    }
}
