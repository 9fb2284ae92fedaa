//! The webhook URL or the bot token by which EventBridge posts into a SlackChannel.

use super::{
    report::{CHANNEL_READY, WEBHOOK_READY},
    token_in, unfit, webhook_in,
};
use crate::{
    api::{self, KeyRef, SlackChannel},
    clients::secret::Secret,
    engine::error::{Class, Error, Result, WaitingOn},
    kinds::{
        cluster_view::{ClusterView, Purpose},
        installation::Installation,
    },
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

/// How messages get into a channel, with the secret that this takes, or where that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlackRoute<S = Secret> {
    /// By an incoming webhook's URL. Slack has tied it to one channel.
    Webhook(S),
    /// By a bot token of the tenant's own.
    BotToken {
        /// The token.
        token: S,
        /// The channel, by Slack's id.
        channel_id: String,
    },
}

impl<S> SlackRoute<S> {
    /// The URL or the token.
    pub fn secret(&self) -> &S {
        match self {
            Self::Webhook(secret) | Self::BotToken { token: secret, .. } => secret,
        }
    }
}

/// A route into a channel, and whether messages get through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteState {
    /// The route.
    pub route: SlackRoute,
    /// Why what is posted there goes nowhere, as its SlackChannel says; absent where nothing is known to be
    /// in the way.
    pub blocked: Option<String>,
}

impl From<SlackRoute> for RouteState {
    /// One through which messages get.
    fn from(route: SlackRoute) -> Self {
        Self {
            route,
            blocked: None,
        }
    }
}

/// What stands for a channel's id in a plan while there is no channel yet.
const ID_TO_COME: &str = "(the id that Slack gives the channel)";

/// The route into the channel of the SlackChannel `name`. The operator's own token is never in one: whatever
/// EventBridge is given lies in the tenant's account.
pub async fn route(name: &str, namespace: &str, cluster: &ClusterView<'_>) -> Result<RouteState> {
    let found = cluster.get::<SlackChannel>(namespace, name).await?;
    let channel = existing(found.as_ref(), name, namespace)?;
    let declared = declared(channel, name, namespace, cluster.purpose)?;
    let blocked = blocked(channel, &declared);
    let KeyRef { name, key } = declared.secret();
    let text = cluster.secret(namespace, name, key).await?;
    // As a tenant's status says it of all the Secrets that it waits for.
    let place = format!("key {key} of Secret {namespace}/{name}");
    let route = opened(declared, &text, &place, cluster.installation)?;
    Ok(RouteState { route, blocked })
}

/// Why what is posted by a route goes nowhere, as far as the SlackChannel has found out. EventBridge does
/// not: Slack answers a bot's message that it refuses with success.
fn blocked(channel: &SlackChannel, route: &SlackRoute<KeyRef>) -> Option<String> {
    let type_ = match route {
        SlackRoute::Webhook(_) => WEBHOOK_READY,
        SlackRoute::BotToken { .. } => CHANNEL_READY,
    };
    let told = condition(channel, type_).filter(|told| told.status == "False")?;
    let (namespace, name) = (channel.namespace().unwrap_or_default(), channel.name_any());
    Some(format!(
        "alarms do not get through SlackChannel {namespace}/{name}: {}",
        told.message
    ))
}

/// What a SlackChannel says of itself by a condition of this type.
pub(super) fn condition<'a>(channel: &'a SlackChannel, type_: &str) -> Option<&'a Condition> {
    api::condition(&channel.status.as_ref()?.common.conditions, type_)
}

fn waiting(message: String) -> Error {
    Error::new(Class::Waiting(WaitingOn::Channel), message)
}

/// A SlackChannel, which must be there.
pub(super) fn existing<'a>(
    channel: Option<&'a SlackChannel>,
    name: &str,
    namespace: &str,
) -> Result<&'a SlackChannel> {
    channel.ok_or_else(|| {
        waiting(format!(
            "SlackChannel {namespace}/{name} does not exist: create it, or name another"
        ))
    })
}

/// The route that a SlackChannel has: by the webhook before the bot, since Slack answers a bot whose message it
/// refuses with a status that EventBridge takes for success.
fn declared(
    channel: &SlackChannel,
    name: &str,
    namespace: &str,
    purpose: Purpose,
) -> Result<SlackRoute<KeyRef>> {
    if channel.metadata.deletion_timestamp.is_some() {
        return Err(waiting(format!(
            "SlackChannel {namespace}/{name} is being deleted; alarms go there as before until it is taken out of spec.notify"
        )));
    }
    if let Some(reference) = &channel.spec.webhook_secret_ref {
        return Ok(SlackRoute::Webhook(reference.clone()));
    }
    let Some(token) = channel.spec.token_secret_ref.clone() else {
        return Err(waiting(format!(
            "SlackChannel {namespace}/{name} has no way in for alarms: the operator's own token never goes into a tenant's account. Add spec.webhookSecretRef (an incoming webhook), or spec.tokenSecretRef (a bot token of the tenant's own)"
        )));
    };
    let status = channel.status.as_ref();
    let id = status.and_then(|status| status.channel_id.clone());
    // In a plan it is taken as if it had been carried out.
    let planned = (purpose == Purpose::Plan).then(|| ID_TO_COME.to_owned());
    match id.or(planned) {
        Some(channel_id) => Ok(SlackRoute::BotToken { token, channel_id }),
        None => Err(waiting(format!(
            "SlackChannel {namespace}/{name} has no channel in Slack yet: its conditions say why"
        ))),
    }
}

/// A route, by the text that its Secret has at `place`.
fn opened(
    route: SlackRoute<KeyRef>,
    text: &str,
    place: &str,
    installation: &Installation,
) -> Result<SlackRoute> {
    match route {
        SlackRoute::Webhook(_) => webhook_in(text, place, installation).map(SlackRoute::Webhook),
        SlackRoute::BotToken { channel_id, .. } => {
            let token = token_in(text, place)?;
            // Somebody may have copied it there.
            if installation.slack_token.as_ref() == Some(&token) {
                let why = "this is the operator's own token, which never goes into a tenant's account; use one of a Slack app of the tenant's own, or an incoming webhook";
                return Err(unfit(place, why));
            }
            Ok(SlackRoute::BotToken { token, channel_id })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    const URL: &str = "https://hooks.slack.com/services/T0CANARY/B0CANARY/canary0123456789";
    const TOKEN: &str = "xoxb-1234567890-canary0123456789";

    fn reference(name: &str) -> KeyRef {
        KeyRef {
            name: name.into(),
            key: "k".into(),
        }
    }

    fn channel(spec: Json, status: Json, deleting: bool) -> SlackChannel {
        let mut metadata = json!({"name": "alerts", "namespace": "ns"});
        if deleting {
            metadata["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
        }
        serde_json::from_value(json!({
            "apiVersion": "campanile.dev/v1alpha1", "kind": "SlackChannel",
            "metadata": metadata, "spec": spec, "status": status
        }))
        .unwrap()
    }

    #[test]
    fn the_webhook_comes_first_and_the_operators_token_never() {
        let hook = json!({"name": "hook", "key": "k"});
        let token = json!({"name": "token", "key": "k"});
        let id = || json!({"channelId": "C012AB3CD"});
        let none = || json!({});
        let webhook = || Ok(SlackRoute::Webhook(reference("hook")));
        let bot = |channel_id: &str| {
            Ok(SlackRoute::BotToken {
                token: reference("token"),
                channel_id: channel_id.into(),
            })
        };
        let both = json!({"channel": "a", "webhookSecretRef": hook, "tokenSecretRef": token});
        let hook_only = json!({"webhookSecretRef": hook});
        let own = json!({"channel": "a", "tokenSecretRef": token});
        let neither = json!({"channel": "a"});
        for (spec, status, deleting, purpose, expected) in [
            (&both, id(), false, Purpose::Act, webhook()),
            // A webhook needs no channel of ours.
            (&hook_only, none(), false, Purpose::Act, webhook()),
            (&own, id(), false, Purpose::Act, bot("C012AB3CD")),
            (
                &own,
                none(),
                false,
                Purpose::Act,
                Err("no channel in Slack yet"),
            ),
            (&own, none(), false, Purpose::Plan, bot(ID_TO_COME)),
            (
                &neither,
                id(),
                false,
                Purpose::Act,
                Err("spec.webhookSecretRef"),
            ),
            (
                &neither,
                id(),
                false,
                Purpose::Plan,
                Err("spec.tokenSecretRef"),
            ),
            (&both, id(), true, Purpose::Act, Err("is being deleted")),
        ] {
            let channel = channel(spec.clone(), status, deleting);
            let found = declared(&channel, "alerts", "ns", purpose);
            match (found, expected) {
                (Ok(found), expected) => assert_eq!(Ok(found), expected, "{spec}"),
                (Err(error), Err(says)) => {
                    assert_eq!(error.class, Class::Waiting(WaitingOn::Channel), "{spec}");
                    assert!(error.message.contains(says), "{error}");
                    assert!(error.message.contains("ns/alerts"), "{error}");
                }
                (Err(error), Ok(route)) => panic!("{error}, not {route:?}"),
            }
        }
        let missing = existing(None, "alerts", "ns").unwrap_err();
        assert_eq!(missing.class, Class::Waiting(WaitingOn::Channel));
    }

    #[test]
    fn what_does_not_get_through_is_told() {
        let told = |type_: &str, status: &str| {
            let at = "2026-01-02T03:04:05Z";
            json!({"type": type_, "status": status, "reason": "R", "message": "no", "lastTransitionTime": at})
        };
        let hook = || SlackRoute::Webhook(reference("hook"));
        let bot = || SlackRoute::BotToken {
            token: reference("token"),
            channel_id: "C1".into(),
        };
        for (conditions, route, is_blocked) in [
            (vec![told("WebhookReady", "False")], hook(), true),
            (vec![told("ChannelReady", "False")], bot(), true),
            // The other route is none of its concern, and what is not known is not told.
            (vec![told("ChannelReady", "False")], hook(), false),
            (vec![told("WebhookReady", "False")], bot(), false),
            (vec![told("WebhookReady", "Unknown")], hook(), false),
            (vec![told("WebhookReady", "True")], hook(), false),
            (vec![], hook(), false),
        ] {
            let status = json!({"conditions": conditions});
            let channel = channel(json!({"channel": "a"}), status, false);
            let found = blocked(&channel, &route);
            let says = "alarms do not get through SlackChannel ns/alerts: no";
            assert_eq!(
                found.as_deref(),
                is_blocked.then_some(says),
                "{conditions:?}"
            );
        }
    }

    #[test]
    fn what_is_no_good_is_told_and_never_quoted() {
        let mut installation = Installation::sample();
        let open = |route: SlackRoute<KeyRef>, text: &str, installation: &Installation| {
            opened(route, text, "key k of Secret ns/s", installation)
        };
        let hook = || SlackRoute::Webhook(reference("s"));
        let bot = || SlackRoute::BotToken {
            token: reference("s"),
            channel_id: "C1".into(),
        };
        let webhook = open(hook(), URL, &installation);
        assert_eq!(webhook, Ok(SlackRoute::Webhook(Secret::new(URL.into()))));
        let route = open(bot(), &format!("{TOKEN}\n"), &installation).unwrap();
        let expected = SlackRoute::BotToken {
            token: Secret::new(TOKEN.into()),
            channel_id: "C1".into(),
        };
        assert_eq!(route, expected);
        assert!(!format!("{route:?}").contains("canary"));
        let wrong = [
            (hook(), "https://canary.example/services/T/B/X"),
            (hook(), "canary"),
            (bot(), "xoxp-canary"),
            (bot(), "canary"),
            // The operator's own.
            (bot(), TOKEN),
        ];
        installation.slack_token = Some(Secret::new(TOKEN.into()));
        for (route, text) in wrong {
            let error = open(route, text, &installation).unwrap_err();
            assert_eq!(error.class, Class::Waiting(WaitingOn::Secret));
            assert!(!error.message.contains("canary"), "{error}");
            assert!(
                error.message.starts_with("key k of Secret ns/s: "),
                "{error}"
            );
        }
    }
}
