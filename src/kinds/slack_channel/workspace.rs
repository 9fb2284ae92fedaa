//! What is watched by one token: whether it is still good, all channels that it sees, and the webhooks
//! of those who use it.

use crate::{
    clients::{
        Clients,
        secret::{Digester, Secret},
        slack::{Bot, Channel, Refusal, Slack, Webhook, Workspace, add_scopes, api},
    },
    engine::{
        error::{Class, Error, Result},
        informer::{Informer, PollRate, Polled, ReadOf, Source, Waker},
        limits::Priority,
        mirror::Mirrored,
        scope_pool::Scope,
    },
    kinds::installation::Installation,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

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
pub struct SlackScope {
    /// What tells this token from others.
    pub key: String,
    /// Who we are, and what we see; nothing where there is no token.
    pub sight: Option<Sight>,
    /// Incoming webhooks, by [`webhook_key`].
    pub webhooks: Informer<Webhooks>,
}

/// What a bot sees.
pub struct Sight {
    /// The bot.
    pub bot: Bot,
    /// The workspace that its token leads to.
    pub team: Informer<Team>,
    /// All channels that it sees, each by [`id_key`] and by [`name_key`].
    pub channels: Informer<Channels>,
    /// What Slack does not want to be asked for the time being.
    pub pauses: Pauses,
    /// Whose each channel is, by its id: the UID of the object that looks after it.
    owners: Mutex<BTreeMap<String, String>>,
}

impl Sight {
    /// Whether a channel is this object's to look after: whoever comes first has it for as long as it is
    /// watched for. Slack has no marks, but whoever has the same token meets here.
    pub fn claim(&self, channel: &str, uid: &str) -> bool {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = owners.entry(channel.to_owned());
        let owner = owner.or_insert_with(|| uid.to_owned());
        if owner != uid && !self.channels.is_subscribed(owner) {
            uid.clone_into(owner);
        }
        owner == uid
    }

    /// Whether another object looks after it.
    pub fn is_another(&self, channel: &str, uid: &str) -> bool {
        let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = owners.get(channel).filter(|owner| *owner != uid);
        owner.is_some_and(|owner| self.channels.is_subscribed(owner))
    }
}

/// Until when Slack has asked us to wait, by method or webhook. It counts by token and method, so what one
/// object was told holds for all, and whoever is woken meanwhile does not ask again.
#[derive(Clone, Debug, Default)]
pub struct Pauses(Arc<Mutex<BTreeMap<String, (Instant, Error)>>>);

impl Pauses {
    fn state(&self) -> MutexGuard<'_, BTreeMap<String, (Instant, Error)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What Slack said, with the rest of its time, where that is not over yet.
    pub fn over(&self, what: &str) -> Result<()> {
        let state = self.state();
        let Some((until, error)) = state.get(what) else {
            return Ok(());
        };
        match until.saturating_duration_since(Instant::now()) {
            rest if rest.is_zero() => Ok(()),
            rest => Err(error.clone().after(rest)),
        }
    }

    /// What a call came to, which is remembered where it was refused for a time.
    pub fn heed<T>(&self, what: &str, outcome: Result<T, Refusal>) -> Result<T, Refusal> {
        if let Err(refusal) = &outcome
            && let Some(wait) = refusal.error.wait
        {
            let error = refusal.error.clone();
            let until = Instant::now() + wait;
            self.state().insert(what.to_owned(), (until, error));
        }
        outcome
    }
}

impl Scope for SlackScope {
    type Credentials = Access;

    async fn open(
        access: &Access,
        clients: &Clients,
        _: &Installation,
        waker: &Waker,
    ) -> Result<Self> {
        let sight = access.token.as_ref().map(|token| {
            let bot = clients.slack.bot(token.clone(), access.key.clone());
            let (granted, pauses) = (Granted::default(), Pauses::default());
            let team = Team {
                bot: bot.clone(),
                granted: granted.clone(),
                pauses: pauses.clone(),
            };
            let channels = Channels {
                bot: bot.clone(),
                granted,
                listed: Mutex::default(),
                pauses: pauses.clone(),
            };
            Sight {
                team: Informer::new(team, waker.clone()),
                channels: Informer::new(channels, waker.clone()),
                bot,
                pauses,
                owners: Mutex::default(),
            }
        });
        let webhooks = Webhooks {
            slack: clients.slack.clone(),
            urls: Mutex::default(),
            lately: Mutex::default(),
            said: Mutex::default(),
            pauses: Pauses::default(),
        };
        Ok(Self {
            key: access.key.clone(),
            sight,
            webhooks: Informer::new(webhooks, waker.clone()),
        })
    }

    fn parts(&self) -> Vec<&dyn Polled> {
        let sight = self.sight.iter();
        let sight = sight.flat_map(|sight| [&sight.team as &dyn Polled, &sight.channels]);
        sight.chain([&self.webhooks as &dyn Polled]).collect()
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
    pauses: Pauses,
}

/// The one key of [`Team`].
pub const TEAM: &str = "team";

impl Mirrored for Workspace {
    fn is_equivalent(&self, other: &Self) -> bool {
        self == other
    }
}

impl Source for Team {
    type Value = Workspace;
    const ENUMERATES: bool = true;
    const POLL_RATE: PollRate = PollRate::Slow;

    async fn read(&self, _: &BTreeSet<String>, priority: Priority) -> Result<ReadOf<Self>> {
        self.pauses.over(api::AUTH_TEST)?;
        let team = self.bot.auth_test(priority).await;
        let team = self.pauses.heed(api::AUTH_TEST, team)?;
        let listable = Listable::by(team.scopes.as_ref());
        self.granted.send_replace(Some(listable));
        Ok([(TEAM.to_owned(), team)].into())
    }

    async fn read_some(&self, _: &BTreeSet<String>, priority: Priority) -> Result<ReadOf<Self>> {
        self.read(&BTreeSet::new(), priority).await
    }
}

/// All channels that a bot sees: one listing for all who look something up.
pub struct Channels {
    bot: Bot,
    granted: Granted,
    /// What the last listing was allowed.
    listed: Mutex<Option<Listable>>,
    pauses: Pauses,
}

impl Channels {
    fn listed(&self) -> MutexGuard<'_, Option<Listable>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn list(&self, private: bool, priority: Priority) -> Result<Vec<Channel>> {
        self.pauses.over(api::LIST)?;
        let listed = self.bot.list_channels(private, priority).await;
        Ok(self.pauses.heed(api::LIST, listed)?)
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
    fn is_equivalent(&self, other: &Self) -> bool {
        self == other
    }
}

impl Source for Channels {
    type Value = Channel;
    const ENUMERATES: bool = true;
    /// It takes a page per 1,000 channels of the workspace, and Slack allows 20 a minute.
    const POLL_RATE: PollRate = PollRate::Slow;

    async fn read(&self, _: &BTreeSet<String>, priority: Priority) -> Result<ReadOf<Self>> {
        // Whoever asks has asked for the scopes before; polls wait until somebody has.
        let mut granted = self.granted.subscribe();
        let granted = granted.wait_for(Option::is_some).await;
        let granted = granted.ok().and_then(|granted| *granted);
        let listable =
            granted.ok_or_else(|| Error::failing("nobody knows what the token may do"))?;
        *self.listed() = Some(listable);
        if !listable.public {
            let missing = add_scopes(&["channels:read"]);
            return Err(Error::new(Class::Denied, missing));
        }
        let mut found = BTreeMap::new();
        for channel in self.list(listable.private, priority).await? {
            found.insert(name_key(&channel.name), channel.clone());
            found.insert(id_key(&channel.id), channel);
        }
        Ok(found)
    }

    /// As soon as the token may list what it could not, or cannot what it could.
    async fn invalidated(&self) {
        let mut granted = self.granted.subscribe();
        let is_other = |granted: &Option<Listable>| {
            let listed = *self.listed();
            listed.is_some() && listed != *granted
        };
        // It lives as long as we do.
        drop(granted.wait_for(is_other).await);
    }

    async fn read_some(&self, keys: &BTreeSet<String>, priority: Priority) -> Result<ReadOf<Self>> {
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
            self.pauses.over(api::INFO)?;
            let channel = self.bot.channel(id, priority).await;
            if let Some(channel) = self.pauses.heed(api::INFO, channel)? {
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
    /// By key, those that somebody has named, as they are now.
    urls: Mutex<BTreeMap<String, Secret>>,
    /// What those said that were asked lately, and when.
    lately: Mutex<BTreeMap<String, (Instant, Probed)>>,
    /// What they said last, when they said anything.
    said: Mutex<BTreeMap<String, Webhook>>,
    pauses: Pauses,
}

/// For how long what a webhook said stands when all are read.
const LATELY: Duration = Duration::from_secs(5);

/// What a webhook says, or that it does not answer: one that fails says nothing of others.
pub type Probed = Result<Webhook>;

/// The key of the webhook in a Secret.
pub fn webhook_key(namespace: &str, secret: &str, key: &str) -> String {
    format!("webhook:{namespace}/{secret}/{key}/")
}

impl Webhooks {
    /// This is the webhook's URL now. Whether it is another than before.
    pub fn name(&self, key: &str, url: &Secret) -> bool {
        let mut urls = self.urls.lock().unwrap_or_else(PoisonError::into_inner);
        let before = urls.insert(key.to_owned(), url.clone());
        // One that has just been named has not been asked, whoever looked for it before.
        let is_other = before.is_none_or(|before| before != *url);
        if is_other {
            self.pauses.state().remove(key);
            self.lately().remove(key);
            self.said().remove(key);
        }
        is_other
    }

    fn said(&self) -> MutexGuard<'_, BTreeMap<String, Webhook>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lately(&self) -> MutexGuard<'_, BTreeMap<String, (Instant, Probed)>> {
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn probe(&self, key: &str, url: &Secret, priority: Priority) -> Probed {
        let probed = self.ask(key, url, priority).await;
        let mut said = self.said();
        let probed = kept(said.get(key), probed);
        if let Ok(webhook) = &probed {
            said.insert(key.to_owned(), webhook.clone());
        }
        probed
    }

    async fn ask(&self, key: &str, url: &Secret, priority: Priority) -> Probed {
        self.pauses.over(key)?;
        let probed = self.slack.probe_webhook(url, priority).await;
        Ok(self.pauses.heed(key, probed)?)
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
    type Value = Probed;
    const ENUMERATES: bool = false;
    const POLL_RATE: PollRate = PollRate::Slow;

    async fn read(&self, asked: &BTreeSet<String>, priority: Priority) -> Result<ReadOf<Self>> {
        // Where many come at once, each has all of them read.
        let fresh: BTreeMap<_, _> = {
            let mut lately = self.lately();
            lately.retain(|_, (at, _)| at.elapsed() < LATELY);
            let fresh = lately.iter().filter(|(key, _)| asked.contains(*key));
            fresh
                .map(|(key, (_, probed))| (key.clone(), probed.clone()))
                .collect()
        };
        let others = asked.iter().filter(|key| !fresh.contains_key(*key));
        let mut found = self.read_some(&others.cloned().collect(), priority).await?;
        found.extend(fresh);
        Ok(found)
    }

    async fn read_some(&self, keys: &BTreeSet<String>, priority: Priority) -> Result<ReadOf<Self>> {
        let urls: Vec<_> = {
            let urls = self.urls.lock().unwrap_or_else(PoisonError::into_inner);
            let asked = keys
                .iter()
                .filter_map(|key| Some((key.clone(), urls.get(key)?.clone())));
            asked.collect()
        };
        let mut found = BTreeMap::new();
        for (key, url) in urls {
            let probed = self.probe(&key, &url, priority).await;
            self.lately()
                .insert(key.clone(), (Instant::now(), probed.clone()));
            found.insert(key, probed);
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

    #[tokio::test(start_paused = true)]
    async fn slacks_time_holds_for_one_method_and_passes() {
        let pauses = Pauses::default();
        let refused = |error: Error| {
            let code = "ratelimited".into();
            Err::<(), _>(Refusal { code, error })
        };
        let wait = Duration::from_secs(30);
        assert_eq!(pauses.heed(api::CREATE, Ok(1)), Ok(1));
        // Where Slack names no time there is none to wait for.
        drop(pauses.heed(api::CREATE, refused(throttled("no time"))));
        assert_eq!(pauses.over(api::CREATE), Ok(()));
        drop(pauses.heed(api::CREATE, refused(throttled("later").after(wait))));
        tokio::time::advance(Duration::from_secs(10)).await;
        let told = pauses.over(api::CREATE).unwrap_err();
        assert_eq!(told, throttled("later").after(Duration::from_secs(20)));
        assert_eq!(pauses.over(api::JOIN), Ok(()));
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(pauses.over(api::CREATE), Ok(()));
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
