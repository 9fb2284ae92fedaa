//! SlackChannel: channels in Slack, and how messages get into them.

pub mod desired;
pub mod notify;
pub mod report;
pub mod route;
pub mod stages;
pub mod workspace;

use crate::{
    api::{
        CommonStatus, Creating, KeyRef, SLACK_PREFIX, SlackChannel, SlackChannelStatus,
        SlackTarget, Visibility,
    },
    clients::{
        secret::Secret,
        slack::{bot_token, webhook_url},
    },
    engine::{
        error::{Class, Error, Result, WaitingOn},
        informer::{Subscriber, Subscription},
        plan::Desired,
        stage::{DynStage, StageRun},
    },
    kinds::{
        Clock, Kind, Outcome, Policies, Status, StatusUpdate, TargetView,
        cluster_view::{ClusterView, Purpose},
        installation::Installation,
        system::{StageContext, Stages, System, SystemVisits, Target, Visitor},
    },
};
use desired::Selector;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::ResourceExt;
use report::{CHANNEL_READY, View, WEBHOOK_READY};
use stages::{Channel, ChannelContext, Declared, Details, IncomingWebhook, Invitations, Member};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use workspace::{ChannelKey, Credentials, SlackScope, WebhookKey};

/// What a SlackChannel refers to.
pub struct Inputs {
    /// The token, where a channel is looked after; the error where it cannot be read, and there is a webhook
    /// that needs none.
    pub token: Option<Result<Token>>,
    /// The webhook's URL; the error where it cannot be read.
    pub webhook: Option<Result<Secret>>,
    /// Whether the webhook need not be asked, since status says that it takes messages.
    pub webhook_is_known: bool,
    /// Who else looks after channels, for people, by the channels' ids.
    pub elsewhere: BTreeMap<String, String>,
}

/// A bot token, and whose it is.
pub struct Token {
    /// The token.
    pub secret: Secret,
    /// For people: where it was read.
    pub source: String,
}

/// The stages of a SlackChannel.
pub struct SlackChannelStages {
    /// That the webhook takes messages.
    pub webhook: StageRun<IncomingWebhook>,
    /// The channel itself; nothing where the object is a webhook alone.
    pub channel: Option<ChannelStages>,
}

/// The stages of what takes a token.
pub struct ChannelStages {
    /// The channel.
    pub channel: StageRun<Channel>,
    /// That the bot is in it.
    pub member: StageRun<Member>,
    /// Its name, topic and purpose.
    pub details: StageRun<Details>,
    /// Who is invited.
    pub invitations: StageRun<Invitations>,
    /// What they all go by.
    pub shared: Arc<ChannelContext>,
}

impl Stages for SlackChannelStages {
    fn all(&mut self) -> Vec<&mut dyn DynStage> {
        let mut all: Vec<&mut dyn DynStage> = vec![&mut self.webhook];
        if let Some(ChannelStages {
            channel,
            member,
            details,
            invitations,
            shared: _,
        }) = &mut self.channel
        {
            all.extend([channel as &mut dyn DynStage, member, details, invitations]);
        }
        all
    }
}

impl Target for SlackTarget {
    /// An object has one channel, by whichever token.
    fn same_place(&self, _: &Self) -> bool {
        true
    }

    fn place(&self) -> String {
        "slack".into()
    }
}

impl Status for SlackChannelStatus {
    fn common(&mut self) -> &mut CommonStatus {
        &mut self.common
    }

    fn places(&self) -> Vec<TargetView> {
        self.targets.iter().map(Target::view).collect()
    }

    fn take_records(&mut self, known: &Self) {
        self.targets = known.targets.clone();
        self.channel_id = known.channel_id.clone();
        self.channel_created = known.channel_created;
        self.creating = known.creating.clone();
        self.invited = known.invited.clone();
        self.texts = known.texts.clone();
    }
}

/// What of a channel matters to those whose messages go there.
pub fn offered(channel: &SlackChannel) -> (Option<&str>, Vec<(&str, &str, &str)>) {
    let status = channel.status.as_ref();
    let conditions = status
        .into_iter()
        .flat_map(|status| &status.common.conditions);
    let own = conditions.filter(|one| matches!(&*one.type_, CHANNEL_READY | WEBHOOK_READY));
    (
        status.and_then(|status| status.channel_id.as_deref()),
        own.map(|one| {
            // Why it is not is told on, and may become another reason.
            let why = if one.status == "False" {
                &*one.message
            } else {
                ""
            };
            (&*one.type_, &*one.status, why)
        })
        .collect(),
    )
}

/// Where a Secret's key is, for people.
fn place_of(namespace: &str, reference: &KeyRef) -> String {
    format!(
        "Secret {namespace}/{}, key {}",
        reference.name, reference.key
    )
}

impl Kind for SlackChannel {
    const KIND: &'static str = "SlackChannel";
    type Inputs = Inputs;
    type Visits = SystemVisits<Self, Slack>;

    fn policies(&self) -> Policies {
        Policies {
            suspend: self.spec.suspend,
            drift: self.spec.drift_policy,
            deletion: self.spec.deletion_policy,
        }
    }

    fn secret_names(&self) -> BTreeSet<&str> {
        let named = [&self.spec.token_secret_ref, &self.spec.webhook_secret_ref];
        let named = named.into_iter().flatten();
        named.map(|reference| reference.name.as_str()).collect()
    }

    async fn dereference(&self, cluster: &ClusterView<'_>) -> Result<Inputs> {
        let namespace = self.namespace().unwrap_or_default();
        let token = match &self.spec.channel {
            Some(channel) => Some(self.token(channel, &namespace, cluster).await),
            None => None,
        };
        // Deletion is of the channel, and needs the token.
        let going = self.metadata.deletion_timestamp.is_some();
        let alone = going || self.spec.webhook_secret_ref.is_none();
        if let Some(Err(error)) = token.as_ref().filter(|_| alone) {
            return Err(error.clone());
        }
        let webhook = match &self.spec.webhook_secret_ref {
            Some(reference) => Some(webhook(&namespace, reference, cluster).await),
            None => None,
        };
        let mut elsewhere = BTreeMap::new();
        if self.spec.channel.is_some() {
            let others = cluster.list_everywhere::<SlackChannel>(&namespace).await?;
            let others = others.into_iter().filter(|other| {
                (other.namespace(), other.name_any()) != (self.namespace(), self.name_any())
            });
            elsewhere.extend(others.filter_map(|other| {
                let id = other.status.as_ref()?.channel_id.clone()?;
                Some((id, who(&other, &namespace)))
            }));
        }
        Ok(Inputs {
            token,
            webhook,
            webhook_is_known: self.knows_webhook(&namespace, cluster),
            elsewhere,
        })
    }

    async fn visit(visitor: &Visitor<'_, Self>) -> Self::Visits {
        visitor.visit::<Slack>(()).await
    }

    /// Of what was wiped nobody can say that.
    fn made_nothing(status: &SlackChannelStatus) -> bool {
        let seen = !status.common.conditions.is_empty();
        seen && status.channel_id.is_none() && status.creating.is_none()
    }

    fn report(
        &self,
        outcome: &Outcome<Self>,
        status: &mut SlackChannelStatus,
        _: Clock<'_>,
    ) -> StatusUpdate {
        let mut updates = StatusUpdate::default();
        let read = outcome.inputs.as_ref().and_then(|read| read.as_ref().err());
        let unread = read.filter(|_| self.spec.channel.is_some());
        updates.conditions.extend(unread.and_then(report::unread));
        let Some(visit) = outcome.visits.current() else {
            return updates;
        };
        let view = View::of(visit);
        if self.spec.channel.is_some() {
            let stages = visit.stages.as_ref();
            if let Some(found) = stages.and_then(|stages| stages.channel.as_ref()) {
                let sighting = found.channel.stage.sighting();
                let sighting = sighting.as_ref().filter(|_| found.channel.seen.is_some());
                if let Some(seen) = &found.details.seen {
                    status.texts = report::texts(&found.details.stage, seen);
                }
                let invited = found.invitations.stage.invited();
                let mut failed = found.channel.failed.values();
                let is_under_way = failed.any(|error| error.class.may_have_landed());
                report::note(is_under_way, sighting, invited, status);
            }
            match view.channel_ready() {
                Some(update) => updates.conditions.push(update),
                None => updates.unknown.push(CHANNEL_READY),
            }
        }
        if self.spec.webhook_secret_ref.is_some() {
            match view.webhook_ready() {
                Some(update) => updates.conditions.push(update),
                None => updates.unknown.push(WEBHOOK_READY),
            }
        }
        let channel = status
            .channel
            .as_ref()
            .filter(|_| self.spec.channel.is_some());
        updates.summary = match (channel, &self.spec.webhook_secret_ref) {
            (Some(channel), Some(_)) => format!("channel {channel}, and a webhook"),
            (Some(channel), None) => format!("channel {channel}"),
            (None, _) => "a webhook".into(),
        };
        updates
    }
}

/// A Slack workspace, as a SlackChannel uses it.
pub struct Slack;

impl System<SlackChannel> for Slack {
    const NAME: &'static str = "slack";
    type Target = SlackTarget;
    type Scope = SlackScope;
    type Stages = SlackChannelStages;
    type From = ();

    fn targets(status: &mut SlackChannelStatus) -> &mut Vec<SlackTarget> {
        &mut status.targets
    }

    fn target(object: &SlackChannel, inputs: &Inputs, _: &Installation) -> Option<SlackTarget> {
        let token = match &inputs.token {
            Some(Ok(token)) => token.source.clone(),
            Some(Err(_)) => object.source(),
            None => "no token".into(),
        };
        Some(SlackTarget { token })
    }

    fn credentials(
        object: &SlackChannel,
        _: &SlackTarget,
        inputs: Result<&Inputs, &Error>,
        installation: &Installation,
    ) -> Result<Credentials> {
        let inputs = inputs.map_err(Clone::clone)?;
        Ok(match &inputs.token {
            Some(Ok(token)) => Credentials::by_token(token.secret.clone(), &installation.digester),
            Some(Err(_)) | None => {
                Credentials::by_webhooks(&object.namespace().unwrap_or_default())
            }
        })
    }

    fn subscribe(
        object: &SlackChannel,
        context: &StageContext<'_, SlackChannel, Self>,
        subscriber: &Subscriber,
    ) -> Vec<Subscription> {
        let scope = &context.scope;
        let mut subscriptions = Vec::new();
        if let Some(reference) = &object.spec.webhook_secret_ref {
            let key = [object.webhook_key(reference)].into();
            subscriptions.push(scope.webhooks.subscribe(subscriber, key));
        }
        if let (Some(sight), Some(name)) = (&scope.sight, &object.spec.channel) {
            let id = context.status.channel_id.as_deref().map(ChannelKey::id);
            let keys = id.into_iter().chain([ChannelKey::name(name)]).collect();
            subscriptions.push(sight.channels.subscribe(subscriber, keys));
            // What the token may do changes what can be done.
            subscriptions.push(sight.team.subscribe(subscriber, [()].into()));
        }
        subscriptions
    }

    fn stages(
        object: &SlackChannel,
        context: &StageContext<'_, SlackChannel, Self>,
    ) -> SlackChannelStages {
        let namespace = object.namespace().unwrap_or_default();
        let (status, inputs) = (context.status, context.inputs);
        let name = inputs.and_then(|_| object.spec.channel.clone());
        // Where status was lost, what is to be cleaned up is looked for by its name.
        let is_lost = name.is_none() && status.channel_id.is_none();
        let lost = object.spec.channel.clone().filter(|_| is_lost);
        let lost = lost.map(|channel| Creating { channel, since: 0 });
        let selector = Selector {
            id: status.channel_id.clone(),
            created: status.channel_created,
            creating: status.creating.clone().or(lost),
            adoption: object.spec.adoption_policy,
            elsewhere: inputs
                .map(|inputs| inputs.elsewhere.clone())
                .unwrap_or_default(),
            // While it is deleted, a private channel that cannot be seen is not searched for.
            private: name.is_some() && object.spec.visibility == Visibility::Private,
            name,
        };
        let token = inputs.and_then(|inputs| inputs.token.as_ref());
        let unread = token.and_then(|token| token.as_ref().err());
        let shared = Arc::new(ChannelContext {
            endpoint: format!("slack {}", context.scope.key),
            scope: context.scope.clone(),
            options: context.options.clone(),
            began: Timestamp::now(),
            selector,
            team: status.workspace.as_ref().map(|known| known.team_id.clone()),
            identity: context.target.token.clone(),
            posts: object.spec.webhook_secret_ref.is_none(),
            unread: unread.cloned(),
        });
        let reference = object
            .spec
            .webhook_secret_ref
            .as_ref()
            .filter(|_| inputs.is_some());
        let name = reference.map(|reference| {
            (
                object.webhook_key(reference),
                place_of(&namespace, reference),
            )
        });
        let url = inputs.and_then(|inputs| inputs.webhook.as_ref());
        let is_known = inputs.is_some_and(|inputs| inputs.webhook_is_known);
        let webhook = IncomingWebhook::new(name, url, is_known, shared.clone());
        // Without its token it is told why it cannot be looked after.
        let channel = object.spec.channel.as_ref().map(|name| {
            let declared = Declared {
                name: name.clone(),
                shared: shared.clone(),
            };
            let (channel, details, invitations) = match inputs {
                Some(_) => (
                    desired::channel(object),
                    desired::details(object, &context.status.texts),
                    desired::invitations(object),
                ),
                None => (Desired::default(), Desired::default(), Desired::default()),
            };
            let invited = status.invited.iter().cloned().collect();
            ChannelStages {
                channel: StageRun::new(Channel::new(channel, shared.clone())),
                member: StageRun::new(Member::new(declared.clone())),
                details: StageRun::new(Details::new(details, declared.clone())),
                invitations: StageRun::new(Invitations::new(invitations, declared, invited)),
                shared,
            }
        });
        SlackChannelStages {
            webhook: StageRun::new(webhook),
            channel,
        }
    }
}

impl SlackChannel {
    fn webhook_key(&self, reference: &KeyRef) -> WebhookKey {
        WebhookKey {
            namespace: self.namespace().unwrap_or_default(),
            secret: reference.name.clone(),
            key: reference.key.clone(),
        }
    }

    /// For people: where the token is read.
    fn source(&self) -> String {
        let namespace = self.namespace().unwrap_or_default();
        match &self.spec.token_secret_ref {
            Some(reference) => place_of(&namespace, reference),
            None => "the operator's own token".into(),
        }
    }

    /// Whether a plan goes by what status says of the webhook: Slack takes one question a second, which the
    /// operator or an alarm may need.
    fn knows_webhook(&self, namespace: &str, cluster: &ClusterView<'_>) -> bool {
        let named = self.spec.webhook_secret_ref.as_ref();
        let as_seen = named.is_some_and(|reference| {
            cluster.purpose == Purpose::Plan
                && !cluster.is_given::<KubeSecret>(namespace, &reference.name)
        });
        let status = self.status.as_ref().filter(|_| as_seen);
        let mut conditions = status.iter().flat_map(|status| &status.common.conditions);
        conditions.any(|told| {
            told.type_ == WEBHOOK_READY
                && told.status == "True"
                && told.observed_generation == self.metadata.generation
        })
    }

    /// The token by which the channel is looked after. One that is named and missing never falls back to
    /// the operator's.
    async fn token(
        &self,
        channel: &str,
        namespace: &str,
        cluster: &ClusterView<'_>,
    ) -> Result<Token> {
        if let Some(reference) = &self.spec.token_secret_ref {
            let source = self.source();
            let text = cluster
                .secret(namespace, &reference.name, &reference.key)
                .await?;
            let secret = token_in(&text, &source)?;
            return Ok(Token { secret, source });
        }
        let denied = |message: String| Err(Error::new(Class::Denied, message));
        let found = cluster.grants(namespace).await?;
        let prefix = match &found {
            // One with nothing in it would give away all channels.
            Some(found) => found
                .get(SLACK_PREFIX)
                .map(str::trim)
                .filter(|prefix| !prefix.is_empty()),
            // What is planned for a namespace that is not there yet is judged when it is.
            None if cluster.purpose == Purpose::Plan => Some(""),
            None => None,
        };
        let Some(prefix) = prefix else {
            return denied(format!(
                "spec.tokenSecretRef is left out, and Namespace {namespace} may not use the operator's own token: name a Secret with a bot token, or let the platform team annotate the Namespace with {SLACK_PREFIX}=<what its channels' names begin with>"
            ));
        };
        if !channel.starts_with(prefix) {
            return denied(format!(
                "Namespace {namespace} may use the operator's own token for channels whose names begin with {prefix:?} (its annotation {SLACK_PREFIX}), and {channel} does not: rename it, or name a Secret with a bot token in spec.tokenSecretRef"
            ));
        }
        match &cluster.installation.slack_token {
            Some(secret) => Ok(Token {
                secret: secret.clone(),
                source: self.source(),
            }),
            None => denied(
                "spec.tokenSecretRef is left out, and the operator has no token of its own (SLACK_BOT_TOKEN): name a Secret with a bot token".into(),
            ),
        }
    }
}

/// The URL of an incoming webhook, out of a Secret.
async fn webhook(namespace: &str, reference: &KeyRef, cluster: &ClusterView<'_>) -> Result<Secret> {
    let text = cluster
        .secret(namespace, &reference.name, &reference.key)
        .await?;
    webhook_in(&text, &place_of(namespace, reference), cluster.installation)
}

/// The URL of an incoming webhook, as a Secret has it. An error says where that is, as `place` has it, what is
/// wrong and what to do, and never quotes the text.
fn webhook_in(text: &str, place: &str, installation: &Installation) -> Result<Secret> {
    webhook_url(text, installation.allow_private_endpoints).map_err(|why| unfit(place, &why))
}

/// A bot token, likewise.
fn token_in(text: &str, place: &str) -> Result<Secret> {
    bot_token(text).map_err(|why| unfit(place, &why))
}

/// What is in a Secret and no good.
fn unfit(place: &str, why: &str) -> Error {
    Error::new(Class::Waiting(WaitingOn::Secret), format!("{place}: {why}"))
}

/// An object, for people of a namespace: what others are called is none of their concern.
fn who(other: &SlackChannel, namespace: &str) -> String {
    if other.namespace().as_deref() == Some(namespace) {
        format!("SlackChannel {namespace}/{}", other.name_any())
    } else {
        "a SlackChannel of another Namespace".into()
    }
}
