//! The informers of one token: `auth.test`, the channels that it sees, and the webhooks of the objects that use it.

use crate::{
    clients::{
        secret::{Digester, Secret},
        slack::{Bot, Channel, Slack, Webhook, Workspace, add_scopes},
    },
    engine::{
        error::{Class, Error, Result},
        informer::{DynInformer, Informer, PollRate, Polling, ReadOf, Source},
        limits::Priority,
        mirror::{InformerKey, Mirrored},
        scope_pool::Scope,
    },
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// What lets us into Slack.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// What tells tokens apart: a digest. Without a token, whose webhooks these are.
    pub key: String,
    /// The token, if there is one. Webhooks need none.
    pub token: Option<Secret>,
}

impl Credentials {
    /// By a token. Whoever has the same one may see the same.
    pub fn by_token(token: Secret, digester: &Digester) -> Self {
        Self {
            key: digester.digest(token.reveal()).to_string(),
            token: Some(token),
        }
    }

    /// By nothing but the webhooks of a namespace.
    pub fn by_webhooks(namespace: &str) -> Self {
        Self {
            key: format!("webhooks of {namespace}"),
            token: None,
        }
    }
}

impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Credentials {}

impl Hash for Credentials {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.key.hash(hasher);
    }
}

/// What is watched by one token.
pub struct SlackScope {
    /// What tells this token from others.
    pub key: String,
    /// Who we are, and what we see; nothing where there is no token.
    pub sight: Option<Sight>,
    /// Incoming webhooks, by where their URLs are.
    pub webhooks: Arc<Informer<Webhooks>>,
}

/// What a bot sees.
pub struct Sight {
    /// The bot.
    pub bot: Bot,
    /// The workspace that its token leads to.
    pub team: Arc<Informer<Team>>,
    /// All channels that it sees, each by its id and by its name.
    pub channels: Arc<Informer<Channels>>,
    /// Whose each channel is, by its id: the UID of the object that looks after it.
    owners: Mutex<BTreeMap<String, String>>,
}

impl Sight {
    /// Whether a channel is this object's to look after: whoever comes first has it for as long as it is
    /// watched for. Slack has no marks, but whoever has the same token meets here.
    pub fn claim(&self, channel: &str, uid: &str) -> bool {
        let mut owners = self.owners.lock();
        let owner = owners.entry(channel.to_owned());
        let owner = owner.or_insert_with(|| uid.to_owned());
        if owner != uid && !self.channels.is_subscribed(owner) {
            uid.clone_into(owner);
        }
        owner == uid
    }

    /// Whether another object looks after it.
    pub fn is_another(&self, channel: &str, uid: &str) -> bool {
        let owners = self.owners.lock();
        let owner = owners.get(channel).filter(|owner| *owner != uid);
        owner.is_some_and(|owner| self.channels.is_subscribed(owner))
    }
}

impl Scope for SlackScope {
    type Credentials = Credentials;
    type Opener = Slack;

    async fn open(access: &Credentials, slack: &Slack, polling: &Polling) -> Result<Self> {
        let sight = access.token.as_ref().map(|token| {
            let bot = slack.bot(token.clone(), access.key.clone());
            let granted = Granted::default();
            let team = Team {
                bot: bot.clone(),
                granted: granted.clone(),
            };
            let channels = Channels {
                bot: bot.clone(),
                granted,
                listed: Mutex::default(),
            };
            Sight {
                team: Informer::new(team, polling),
                channels: Informer::new(channels, polling),
                bot,
                owners: Mutex::default(),
            }
        });
        let webhooks = Webhooks {
            slack: slack.clone(),
            known: Mutex::default(),
        };
        Ok(Self {
            key: access.key.clone(),
            sight,
            webhooks: Informer::new(webhooks, polling),
        })
    }

    fn can_write(access: &Credentials) -> bool {
        access.token.is_some()
    }

    fn informers(&self) -> Vec<&dyn DynInformer> {
        let sight = self.sight.iter();
        let sight = sight.flat_map(|sight| [&*sight.team as &dyn DynInformer, &*sight.channels]);
        sight.chain([&*self.webhooks as _]).collect()
    }
}

/// Which channels a token may list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listable {
    public: bool,
    private: bool,
}

impl Listable {
    /// By its scopes; where Slack does not say, all.
    fn by(scopes: Option<&BTreeSet<String>>) -> Self {
        let has = |scope| scopes.is_none_or(|scopes| scopes.contains(scope));
        Self {
            public: has("channels:read"),
            private: has("groups:read"),
        }
    }
}

/// The same, as Slack said last; nothing before it has said anything.
type Granted = watch::Sender<Option<Listable>>;

/// Whether the token is still good, and where it leads.
pub struct Team {
    bot: Bot,
    granted: Granted,
}

impl Mirrored for Workspace {}

impl Source for Team {
    /// There is one.
    type Key = ();
    type Value = Workspace;
    const ENUMERATES: bool = true;
    const POLL_RATE: PollRate = PollRate::Slow;

    async fn read(&self, _: &BTreeSet<()>, priority: Priority) -> Result<ReadOf<Self>> {
        let team = self.bot.auth_test(priority).await?;
        let listable = Listable::by(team.scopes.as_ref());
        self.granted.send_replace(Some(listable));
        Ok([((), team)].into())
    }
}

/// All channels that a bot sees: one listing for all who look something up.
pub struct Channels {
    bot: Bot,
    granted: Granted,
    /// What the last listing was allowed.
    listed: Mutex<Option<Listable>>,
}

/// By what a channel is looked up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChannelKey {
    /// Slack's id of it.
    Id(String),
    /// Its name.
    Name(String),
}

impl ChannelKey {
    /// By Slack's id.
    pub fn id(id: &str) -> Self {
        Self::Id(id.to_owned())
    }

    /// By its name.
    pub fn name(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl InformerKey for ChannelKey {}

impl Mirrored for Channel {}

impl Source for Channels {
    type Key = ChannelKey;
    type Value = Channel;
    const ENUMERATES: bool = true;
    /// It takes a page per 1,000 channels of the workspace, and Slack allows 20 a minute.
    const POLL_RATE: PollRate = PollRate::Slow;

    async fn read(&self, _: &BTreeSet<ChannelKey>, priority: Priority) -> Result<ReadOf<Self>> {
        // Whoever asks has asked for the scopes before; polls wait until somebody has.
        let mut granted = self.granted.subscribe();
        let granted = granted.wait_for(Option::is_some).await;
        let granted = granted.ok().and_then(|granted| *granted);
        let listable =
            granted.ok_or_else(|| Error::failing("nobody knows what the token may do"))?;
        *self.listed.lock() = Some(listable);
        if !listable.public {
            let missing = add_scopes(&["channels:read"]);
            return Err(Error::new(Class::Denied, missing));
        }
        let mut found = BTreeMap::new();
        for channel in self.bot.list_channels(listable.private, priority).await? {
            found.insert(ChannelKey::name(&channel.name), channel.clone());
            found.insert(ChannelKey::id(&channel.id), channel);
        }
        Ok(found)
    }

    /// As soon as the token may list what it could not, or cannot what it could.
    async fn invalidated(&self) {
        let mut granted = self.granted.subscribe();
        let is_other = |granted: &Option<Listable>| {
            let listed = *self.listed.lock();
            listed.is_some() && listed != *granted
        };
        // It lives as long as we do.
        drop(granted.wait_for(is_other).await);
    }

    async fn read_some(
        &self,
        keys: &BTreeSet<ChannelKey>,
        priority: Priority,
    ) -> Result<ReadOf<Self>> {
        let mut found = BTreeMap::new();
        let mut by_name = false;
        for key in keys {
            let ChannelKey::Id(id) = key else {
                by_name = true;
                continue;
            };
            if let Some(channel) = self.bot.channel(id, priority).await? {
                found.insert(key.clone(), channel);
            }
        }
        if by_name {
            // Slack has no look-up by name.
            let all = self.read(&BTreeSet::new(), priority).await?;
            found.extend(all.into_iter().filter(|(key, _)| keys.contains(key)));
        }
        Ok(found)
    }
}

/// Incoming webhooks, asked whether they still take messages.
pub struct Webhooks {
    slack: Slack,
    /// Those that somebody has named.
    known: Mutex<BTreeMap<WebhookKey, KnownWebhook>>,
}

/// Where the URL of a webhook is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WebhookKey {
    /// The namespace of the Secret.
    pub namespace: String,
    /// The Secret.
    pub secret: String,
    /// The key in it.
    pub key: String,
}

impl InformerKey for WebhookKey {}

struct KnownWebhook {
    /// As it is now.
    url: Secret,
    /// What it came to when it was asked last, and when.
    probed: Option<(Instant, Probed)>,
    /// What it said last, when it said anything.
    said: Option<Webhook>,
}

/// For how long what a webhook said stands when all are read.
const LATELY: Duration = Duration::from_secs(5);

/// What a webhook says, or that it does not answer: one that fails says nothing of others.
pub type Probed = Result<Webhook>;

impl Webhooks {
    /// This is the webhook's URL now. Whether it is another than before.
    pub fn name(&self, key: &WebhookKey, url: &Secret) -> bool {
        let mut known = self.known.lock();
        // One that has just been named has not been asked, whoever looked for it before.
        let is_other = known.get(key).is_none_or(|known| known.url != *url);
        if is_other {
            let now = KnownWebhook {
                url: url.clone(),
                probed: None,
                said: None,
            };
            known.insert(key.clone(), now);
        }
        is_other
    }

    /// Asks a webhook, if somebody has named it.
    async fn probe(&self, key: &WebhookKey, priority: Priority) -> Option<Probed> {
        let url = self.known.lock().get(key)?.url.clone();
        let probed = self.slack.probe_webhook(&url, priority).await;
        let probed = probed.map_err(Error::from);
        let mut all = self.known.lock();
        // It may have become another one meanwhile, which has not been asked.
        let known = all.get_mut(key).filter(|known| known.url == url)?;
        let probed = kept(known.said.as_ref(), probed);
        if let Ok(webhook) = &probed {
            known.said = Some(webhook.clone());
        }
        known.probed = Some((Instant::now(), probed.clone()));
        Some(probed)
    }
}

/// What is known of a webhook after it was asked. One that is asked too often has somebody posting by it in this
/// very second, which says nothing against what it said before.
fn kept(said: Option<&Webhook>, probed: Probed) -> Probed {
    match (said, probed) {
        (Some(said), Err(error)) if error.class == Class::Throttled => Ok(said.clone()),
        (_, probed) => probed,
    }
}

impl Mirrored for Probed {
    fn is_equivalent(&self, other: &Self) -> bool {
        match (self, other) {
            // However long it is to be waited for.
            (Err(one), Err(other)) => (one.class, &one.message) == (other.class, &other.message),
            _ => self == other,
        }
    }
}

impl Source for Webhooks {
    type Key = WebhookKey;
    type Value = Probed;
    const ENUMERATES: bool = false;
    const POLL_RATE: PollRate = PollRate::Slow;

    /// Where many come at once, each has all of them read.
    async fn read(&self, asked: &BTreeSet<WebhookKey>, priority: Priority) -> Result<ReadOf<Self>> {
        let lately = |key: &WebhookKey| {
            let known = self.known.lock();
            let (at, probed) = known.get(key)?.probed.as_ref()?;
            (at.elapsed() < LATELY).then(|| (key.clone(), probed.clone()))
        };
        let fresh: BTreeMap<_, _> = asked.iter().filter_map(lately).collect();
        let others = asked.iter().filter(|key| !fresh.contains_key(*key));
        let mut found = self.read_some(&others.cloned().collect(), priority).await?;
        found.extend(fresh);
        Ok(found)
    }

    async fn read_some(
        &self,
        keys: &BTreeSet<WebhookKey>,
        priority: Priority,
    ) -> Result<ReadOf<Self>> {
        let mut found = BTreeMap::new();
        for key in keys {
            let probed = self.probe(key, priority).await;
            found.extend(probed.map(|probed| (key.clone(), probed)));
        }
        Ok(found)
    }

    fn is_unsettled(probed: &Probed) -> bool {
        probed.is_err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn throttled(message: &str) -> Error {
        Error::new(Class::Throttled, message)
    }

    #[test]
    fn what_may_be_listed_is_what_is_granted() {
        for (scopes, public, private) in [
            (None, true, true),
            (Some(""), false, false),
            (Some("channels:read"), true, false),
            (Some("groups:read channels:manage"), false, true),
            (Some("channels:read groups:read"), true, true),
        ] {
            let scopes = scopes.map(|scopes| scopes.split(' ').map(str::to_owned).collect());
            let listable = Listable::by(scopes.as_ref());
            assert_eq!(listable, Listable { public, private }, "{scopes:?}");
        }
    }

    #[test]
    fn a_webhook_that_is_asked_too_often_is_what_it_was() {
        let revoked = || Webhook::Revoked("gone".into());
        let (busy, down) = (throttled("later"), Error::failing("down"));
        for (said, probed, expected) in [
            (None, Err(busy.clone()), Err(busy.clone())),
            (Some(Webhook::Alive), Err(busy.clone()), Ok(Webhook::Alive)),
            (Some(revoked()), Err(busy), Ok(revoked())),
            (Some(Webhook::Alive), Err(down.clone()), Err(down)),
            (Some(Webhook::Alive), Ok(revoked()), Ok(revoked())),
        ] {
            assert_eq!(kept(said.as_ref(), probed), expected, "{said:?}");
        }
    }

    #[test]
    fn a_webhook_that_fails_is_news_once() {
        let alive: Probed = Ok(Webhook::Alive);
        let failing =
            |seconds| -> Probed { Err(throttled("later").after(Duration::from_secs(seconds))) };
        assert!(failing(3).is_equivalent(&failing(2)));
        assert!(!failing(3).is_equivalent(&Err(throttled("now"))));
        assert!(alive.is_equivalent(&Ok(Webhook::Alive)) && !alive.is_equivalent(&failing(3)));
        assert!(!alive.is_equivalent(&Ok(Webhook::Revoked("gone".into()))));
        assert!(Webhooks::is_unsettled(&failing(1)) && !Webhooks::is_unsettled(&alive));
    }
}
