//! That the incoming webhook takes messages.

use super::{ChannelContext, ours};
use crate::{
    clients::{
        secret::Secret,
        slack::{WEBHOOK, Webhook},
    },
    engine::{
        error::{Class, Error, Result},
        gate::{Operation, WritePermit},
        plan::{Change, Desired},
        stage::{ChangeOf, Ids, ResultOf, Seen, Stage},
    },
    kinds::slack_channel::{desired::WebhookHealth, workspace::WebhookKey},
};
use std::sync::Arc;

/// The incoming webhook: that it takes messages. It is made and mended by people alone.
pub struct IncomingWebhook {
    /// That it should.
    pub desired: Desired<String, WebhookHealth>,
    /// Under what it is watched, and its URL.
    webhook: Option<(WebhookKey, Secret)>,
    /// That it takes messages is known without asking it.
    is_known: bool,
    shared: Arc<ChannelContext>,
}

impl IncomingWebhook {
    /// The stage of one object. `name`: where the webhook's URL is, for people; the error if it cannot be
    /// read there. `is_known`: that it takes messages is known without asking it.
    pub fn new(
        name: Option<(WebhookKey, String)>,
        url: Option<&Result<Secret>>,
        is_known: bool,
        shared: Arc<ChannelContext>,
    ) -> Self {
        let mut desired = Desired::default();
        let mut webhook = None;
        if let (Some((key, name)), Some(url)) = (name, url) {
            match url {
                Ok(url) => {
                    desired.wanted.insert(name, WebhookHealth(Ok(())));
                    webhook = Some((key, url.clone()));
                }
                Err(error) => drop(desired.blocked.insert(name, error.clone())),
            }
        }
        Self {
            desired,
            webhook,
            is_known,
            shared,
        }
    }

    async fn ask(&self, key: &WebhookKey, url: &Secret) -> Result<WebhookHealth> {
        let webhooks = &self.shared.scope.webhooks;
        if webhooks.source.name(key, url) {
            webhooks.invalidate(key.clone());
        }
        let asked = [key.clone()].into();
        let seen = webhooks.snapshot(&asked, &self.shared.options).await?;
        match seen.get(key).map(|it| &**it) {
            Some(Ok(Webhook::Alive)) => Ok(WebhookHealth(Ok(()))),
            Some(Ok(Webhook::Revoked(why))) => Ok(WebhookHealth(Err(why.clone()))),
            Some(Err(error)) => Err(error.clone()),
            None => Err(Error::failing("the webhook has not been asked yet")),
        }
    }
}

impl Stage for IncomingWebhook {
    const NAME: &'static str = "incoming webhook";
    type Key = String;
    type Value = WebhookHealth;
    type Id = ();
    type Live = ();

    fn endpoint(&self) -> &str {
        "slack webhooks"
    }

    fn desired(&self) -> &Desired<String, WebhookHealth> {
        &self.desired
    }

    async fn observe(&self, _: &Ids) -> Result<Seen<Self>> {
        let (Some((key, url)), Some(name)) = (&self.webhook, self.desired.wanted.keys().next())
        else {
            return Ok(Seen::<Self>::default());
        };
        if self.is_known {
            return Ok(Seen::<Self> {
                unknown: [name.clone()].into(),
                ..Seen::<Self>::default()
            });
        }
        let posting = self.ask(key, url).await?;
        Ok([(name.clone(), ours((), posting))].into_iter().collect())
    }

    /// Nobody but a person makes a webhook.
    fn unsupported_change(&self, change: &ChangeOf<Self>) -> Option<Error> {
        let Change::Update { key, from, .. } = change else {
            return None;
        };
        let why = from.0.as_ref().err()?;
        Some(Error::new(
            Class::Rejected,
            format!("the webhook in {key} takes no messages: {why}"),
        ))
    }

    fn operation(&self, _: &ChangeOf<Self>) -> Operation<'_> {
        self.shared.operation(WEBHOOK)
    }

    async fn apply(&self, _: &WritePermit<'_>, _: &ChangeOf<Self>, _: &Ids) -> ResultOf<Self> {
        Err(Error::failing("a webhook is made by people"))
    }
}
