//! How messages get into a channel without the operator in between: what EventBridge is given in the
//! tenant's account.

use super::{
    report::{CHANNEL_READY, WEBHOOK_READY},
    token_in, unfit, webhook_in,
};
use crate::{
    api::{KeyRef, SlackChannel},
    clients::secret::Secret,
    engine::error::{Class, Error, On, Result},
    kinds::{
        cluster_view::{ClusterView, Purpose},
        installation::Installation,
    },
};
use kube::ResourceExt;

/// A way for messages into a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WayIn {
    /// An incoming webhook's URL. Slack has tied it to one channel.
    Webhook(Secret),
    /// A bot token of the tenant's own.
    Bot {
        /// The token.
        token: Secret,
        /// The channel, by Slack's id.
        channel_id: String,
    },
}

/// A way into a channel, and whether messages get through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entrance {
    /// The way.
    pub way: WayIn,
    /// Why what is posted there goes nowhere, as its SlackChannel says; absent where nothing is known to be
    /// in the way.
    pub shut: Option<String>,
}

impl From<WayIn> for Entrance {
    /// One that is open.
    fn from(way: WayIn) -> Self {
        Self { way, shut: None }
    }
}

/// What stands for a channel's id in a plan while there is no channel yet.
const ID_TO_COME: &str = "(the id that Slack gives the channel)";

/// Where the secret is that opens a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Door {
    Webhook(KeyRef),
    Bot { token: KeyRef, channel_id: String },
}

/// The way into the channel of the SlackChannel `name`. The operator's own token is never one: whatever
/// EventBridge is given lies in the tenant's account.
pub async fn way_in(name: &str, namespace: &str, cluster: &ClusterView<'_>) -> Result<Entrance> {
    let found = cluster.get::<SlackChannel>(namespace, name).await?;
    let read = async |reference: &KeyRef| {
        let KeyRef { name, key } = reference;
        cluster.secret(namespace, name, key).await
    };
    let installation = cluster.installation;
    let door = door(found.as_ref(), name, namespace, cluster.purpose)?;
    let shut = found.as_ref().and_then(|channel| shut(channel, &door));
    let way = match door {
        Door::Webhook(reference) => {
            let text = read(&reference).await?;
            webhook_in(&text, &place_of(&reference, namespace), installation).map(WayIn::Webhook)
        }
        Door::Bot { token, channel_id } => {
            let text = read(&token).await?;
            bot(
                &text,
                &place_of(&token, namespace),
                channel_id,
                installation,
            )
        }
    };
    way.map(|way| Entrance { way, shut })
}

/// Why what is posted through a door goes nowhere, as far as the SlackChannel has found out. EventBridge does
/// not: Slack answers a bot's message that it refuses with success.
fn shut(channel: &SlackChannel, door: &Door) -> Option<String> {
    let type_ = match door {
        Door::Webhook(_) => WEBHOOK_READY,
        Door::Bot { .. } => CHANNEL_READY,
    };
    let status = channel.status.as_ref()?;
    let mut conditions = status.conditions.iter();
    let told = conditions.find(|told| told.type_ == type_ && told.status == "False")?;
    let (namespace, name) = (channel.namespace().unwrap_or_default(), channel.name_any());
    Some(format!(
        "alarms do not get through SlackChannel {namespace}/{name}: {}",
        told.message
    ))
}

/// The secret by which messages get in: the webhook's before the bot's, since Slack answers a bot whose
/// message it refuses with a status that EventBridge takes for success.
fn door(
    channel: Option<&SlackChannel>,
    name: &str,
    namespace: &str,
    purpose: Purpose,
) -> Result<Door> {
    let waiting = |message: String| Err(Error::new(Class::Waiting(On::Channel), message));
    let Some(channel) = channel else {
        return waiting(format!(
            "SlackChannel {namespace}/{name} does not exist: create it, or take it out of spec.notify"
        ));
    };
    if channel.metadata.deletion_timestamp.is_some() {
        return waiting(format!(
            "SlackChannel {namespace}/{name} is being deleted; alarms go there as before until it is taken out of spec.notify"
        ));
    }
    if let Some(reference) = &channel.spec.webhook_secret_ref {
        return Ok(Door::Webhook(reference.clone()));
    }
    let Some(token) = &channel.spec.token_secret_ref else {
        return waiting(format!(
            "SlackChannel {namespace}/{name} has no way in for alarms: the operator's own token never goes into a tenant's account. Add spec.webhookSecretRef (an incoming webhook), or spec.tokenSecretRef (a bot token of the tenant's own)"
        ));
    };
    let status = channel.status.as_ref();
    let id = status.and_then(|status| status.channel_id.clone());
    match (id, purpose) {
        (Some(channel_id), _) => Ok(Door::Bot {
            token: token.clone(),
            channel_id,
        }),
        // It is taken as if it had been carried out.
        (None, Purpose::Plan) => Ok(Door::Bot {
            token: token.clone(),
            channel_id: ID_TO_COME.into(),
        }),
        (None, Purpose::Act) => waiting(format!(
            "SlackChannel {namespace}/{name} has no channel in Slack yet: its conditions say why"
        )),
    }
}

/// Where a Secret's key is, as a tenant's status says it of all the Secrets that it waits for.
fn place_of(reference: &KeyRef, namespace: &str) -> String {
    let KeyRef { name, key } = reference;
    format!("key {key} of Secret {namespace}/{name}")
}

/// The way in by the bot token that a Secret has at `place`.
fn bot(text: &str, place: &str, channel_id: String, installation: &Installation) -> Result<WayIn> {
    let token = token_in(text, place)?;
    // Somebody may have copied it there.
    if installation.slack_token.as_ref() == Some(&token) {
        let why = "this is the operator's own token, which never goes into a tenant's account; use one of a Slack app of the tenant's own, or an incoming webhook";
        return Err(unfit(place, why));
    }
    Ok(WayIn::Bot { token, channel_id })
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
        let webhook = || Ok(Door::Webhook(reference("hook")));
        let bot = |channel_id: &str| {
            Ok(Door::Bot {
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
            let found = door(Some(&channel), "alerts", "ns", purpose);
            match (found, expected) {
                (Ok(found), expected) => assert_eq!(Ok(found), expected, "{spec}"),
                (Err(error), Err(says)) => {
                    assert_eq!(error.class, Class::Waiting(On::Channel), "{spec}");
                    assert!(error.message.contains(says), "{error}");
                    assert!(error.message.contains("ns/alerts"), "{error}");
                }
                (Err(error), Ok(door)) => panic!("{error}, not {door:?}"),
            }
        }
        let missing = door(None, "alerts", "ns", Purpose::Plan).unwrap_err();
        assert_eq!(missing.class, Class::Waiting(On::Channel));
    }

    #[test]
    fn what_does_not_get_through_is_told() {
        let told = |type_: &str, status: &str| {
            let at = "2026-01-02T03:04:05Z";
            json!({"type": type_, "status": status, "reason": "R", "message": "no", "lastTransitionTime": at})
        };
        let hook = || Door::Webhook(reference("hook"));
        let bot = || Door::Bot {
            token: reference("token"),
            channel_id: "C1".into(),
        };
        for (conditions, door, is_shut) in [
            (vec![told("WebhookReady", "False")], hook(), true),
            (vec![told("ChannelReady", "False")], bot(), true),
            // The other way in is none of its concern, and what is not known is not told.
            (vec![told("ChannelReady", "False")], hook(), false),
            (vec![told("WebhookReady", "False")], bot(), false),
            (vec![told("WebhookReady", "Unknown")], hook(), false),
            (vec![told("WebhookReady", "True")], hook(), false),
            (vec![], hook(), false),
        ] {
            let status = json!({"conditions": conditions});
            let channel = channel(json!({"channel": "a"}), status, false);
            let found = shut(&channel, &door);
            let says = "alarms do not get through SlackChannel ns/alerts: no";
            assert_eq!(found.as_deref(), is_shut.then_some(says), "{conditions:?}");
        }
    }

    #[test]
    fn what_is_no_good_is_told_and_never_quoted() {
        let mut installation = Installation::sample();
        let place = place_of(&reference("s"), "ns");
        let hook = |text: &str| webhook_in(text, &place, &installation).map(WayIn::Webhook);
        assert_eq!(hook(URL), Ok(WayIn::Webhook(Secret::new(URL.into()))));
        let token =
            |text: &str, installation: &Installation| bot(text, &place, "C1".into(), installation);
        let way = token(&format!("{TOKEN}\n"), &installation).unwrap();
        let expected = WayIn::Bot {
            token: Secret::new(TOKEN.into()),
            channel_id: "C1".into(),
        };
        assert_eq!(way, expected);
        assert!(!format!("{way:?}").contains("canary"));
        let wrong = [
            hook("https://canary.example/services/T/B/X"),
            hook("canary"),
            token("xoxp-canary", &installation),
            token("canary", &installation),
        ];
        installation.slack_token = Some(Secret::new(TOKEN.into()));
        let operators = [token(TOKEN, &installation)];
        for outcome in wrong.into_iter().chain(operators) {
            let error = outcome.unwrap_err();
            assert_eq!(error.class, Class::Waiting(On::Secret));
            assert!(!error.message.contains("canary"), "{error}");
            assert!(
                error.message.starts_with("key k of Secret ns/s: "),
                "{error}"
            );
        }
    }
}
