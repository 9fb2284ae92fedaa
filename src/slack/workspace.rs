//! What is watched by one token: whether it is still good, all channels that it sees, and the webhooks
//! of those who use it.

use crate::{
    clients::{
        Clients,
        limit::Urgency,
        slack::{Bot, Channel, Slack, Webhook, Workspace},
    },
    error::Result,
    installation::Installation,
    kind::Watch,
    mirror::Mirrored,
    outside::{Outside, Polled, ReadOf, Rhythm, Source, Waker},
    secret::{Digester, Secret},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
};

/// What lets us into Slack.
#[derive(Clone, Debug)]
pub struct Access {
    /// What tells tokens apart: a digest. Without a token, whose webhooks these are.
    pub key: String,
    /// The token, if there is one. Webhooks need none.
    pub token: Option<Secret>,
}

impl Access {
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

impl PartialEq for Access {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Access {}

impl Hash for Access {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.key.hash(hasher);
    }
}

/// What is watched by one token.
pub struct SlackWatch {
    /// What tells this token from others.
    pub key: String,
    /// Who we are, and what we see; nothing where there is no token.
    pub sight: Option<Sight>,
    /// Incoming webhooks, by [`webhook_key`].
    pub webhooks: Outside<Webhooks>,
}

/// What a bot sees.
pub struct Sight {
    /// The bot.
    pub bot: Bot,
    /// The workspace that its token leads to.
    pub team: Outside<Team>,
    /// All channels that it sees, each by [`id_key`] and by [`name_key`].
    pub channels: Outside<Channels>,
}

impl Watch for SlackWatch {
    type Access = Access;

    async fn open(
        access: &Access,
        clients: &Clients,
        _: &Installation,
        waker: &Waker,
    ) -> Result<Self> {
        let sight = access.token.as_ref().map(|token| {
            let bot = clients.slack.bot(token.clone(), access.key.clone());
            let granted = Granted::default();
            let team = Team {
                bot: bot.clone(),
                granted: granted.clone(),
            };
            let channels = Channels {
                bot: bot.clone(),
                granted,
            };
            Sight {
                team: Outside::new(team, waker.clone()),
                channels: Outside::new(channels, waker.clone()),
                bot,
            }
        });
        let webhooks = Webhooks {
            slack: clients.slack.clone(),
            urls: Mutex::default(),
        };
        Ok(Self {
            key: access.key.clone(),
            sight,
            webhooks: Outside::new(webhooks, waker.clone()),
        })
    }

    fn parts(&self) -> Vec<&dyn Polled> {
        let sight = self.sight.iter();
        let sight = sight.flat_map(|sight| [&sight.team as &dyn Polled, &sight.channels]);
        sight.chain([&self.webhooks as &dyn Polled]).collect()
    }
}

/// What the token may do, as Slack said last.
type Granted = Arc<Mutex<Option<BTreeSet<String>>>>;

/// Whether the token is still good, and where it leads.
pub struct Team {
    bot: Bot,
    granted: Granted,
}

/// The one key of [`Team`].
pub const TEAM: &str = "team";

impl Mirrored for Workspace {
    fn is_alike(&self, other: &Self) -> bool {
        self == other
    }
}

impl Source for Team {
    type Value = Workspace;
    const ENUMERATES: bool = true;
    const RHYTHM: Rhythm = Rhythm::Slow;

    async fn read(&self, _: &BTreeSet<String>, urgency: Urgency) -> Result<ReadOf<Self>> {
        let team = self.bot.auth_test(urgency).await?;
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        *granted = team.scopes.clone();
        Ok([(TEAM.to_owned(), team)].into())
    }

    async fn read_some(&self, _: &BTreeSet<String>, urgency: Urgency) -> Result<ReadOf<Self>> {
        self.read(&BTreeSet::new(), urgency).await
    }
}

/// All channels that a bot sees: one listing for all who look something up.
pub struct Channels {
    bot: Bot,
    granted: Granted,
}

impl Channels {
    /// Whether it may see private channels at all.
    fn sees_private(&self) -> bool {
        let granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        let granted = granted.as_ref();
        granted.is_none_or(|granted| granted.contains("groups:read"))
    }
}

/// The key of the channel with this id.
pub fn id_key(id: &str) -> String {
    format!("id:{id}/")
}

/// The key of the channel with this name.
pub fn name_key(name: &str) -> String {
    format!("name:{name}/")
}

impl Mirrored for Channel {
    fn is_alike(&self, other: &Self) -> bool {
        self == other
    }
}

impl Source for Channels {
    type Value = Channel;
    const ENUMERATES: bool = true;
    /// It takes a page per 1,000 channels of the workspace, and Slack allows 20 a minute.
    const RHYTHM: Rhythm = Rhythm::Slow;

    async fn read(&self, _: &BTreeSet<String>, urgency: Urgency) -> Result<ReadOf<Self>> {
        let mut found = BTreeMap::new();
        for channel in self.bot.list_channels(self.sees_private(), urgency).await? {
            found.insert(name_key(&channel.name), channel.clone());
            found.insert(id_key(&channel.id), channel);
        }
        Ok(found)
    }

    async fn read_some(&self, keys: &BTreeSet<String>, urgency: Urgency) -> Result<ReadOf<Self>> {
        let mut found = BTreeMap::new();
        let mut by_name = false;
        for key in keys {
            let id = key
                .strip_prefix("id:")
                .and_then(|key| key.strip_suffix('/'));
            let Some(id) = id else {
                by_name = true;
                continue;
            };
            if let Some(channel) = self.bot.channel(id, urgency).await? {
                found.insert(key.clone(), channel);
            }
        }
        if by_name {
            // Slack has no look-up by name.
            let all = self.read(&BTreeSet::new(), urgency).await?;
            found.extend(all.into_iter().filter(|(key, _)| keys.contains(key)));
        }
        Ok(found)
    }
}

/// Incoming webhooks, asked whether they still take messages.
pub struct Webhooks {
    slack: Slack,
    /// By key, those that somebody has named, as they are now.
    urls: Mutex<BTreeMap<String, Secret>>,
}

/// The key of the webhook in a Secret.
pub fn webhook_key(namespace: &str, secret: &str, key: &str) -> String {
    format!("webhook:{namespace}/{secret}/{key}/")
}

impl Webhooks {
    /// This is the webhook's URL now. Whether it is another than before.
    pub fn name(&self, key: &str, url: &Secret) -> bool {
        let mut urls = self.urls.lock().unwrap_or_else(PoisonError::into_inner);
        urls.insert(key.to_owned(), url.clone())
            .is_some_and(|before| before != *url)
    }
}

impl Mirrored for Webhook {
    fn is_alike(&self, other: &Self) -> bool {
        self == other
    }
}

impl Source for Webhooks {
    type Value = Webhook;
    const ENUMERATES: bool = false;
    const RHYTHM: Rhythm = Rhythm::Slow;

    async fn read(&self, asked: &BTreeSet<String>, urgency: Urgency) -> Result<ReadOf<Self>> {
        {
            let mut urls = self.urls.lock().unwrap_or_else(PoisonError::into_inner);
            urls.retain(|key, _| asked.contains(key));
        }
        self.read_some(asked, urgency).await
    }

    async fn read_some(&self, keys: &BTreeSet<String>, urgency: Urgency) -> Result<ReadOf<Self>> {
        let urls: Vec<_> = {
            let urls = self.urls.lock().unwrap_or_else(PoisonError::into_inner);
            let asked = keys
                .iter()
                .filter_map(|key| Some((key.clone(), urls.get(key)?.clone())));
            asked.collect()
        };
        let mut found = BTreeMap::new();
        for (key, url) in urls {
            found.insert(key, self.slack.probe_webhook(&url, urgency).await?);
        }
        Ok(found)
    }
}
