//! The stages of a SlackChannel: its webhook, the channel, that the bot is in it, its texts, and who is
//! invited.

use super::{
    desired::{self, Claim, Configuration, Detail, Invited, Membership, Pick, Posting, Text},
    workspace::{Sight, SlackWatch, TEAM, id_key, name_key},
};
use crate::{
    api::{AdoptionPolicy, Visibility},
    clients::slack::{self as client, Refusal, Webhook, add_scopes, api, missing_scopes},
    error::{Class, Error, On, Result},
    outside::{Asking, Freshness, Snapshot},
    plan::{Change, Desired, Found, Holder},
    secret::Secret,
    stage::{Applied, ChangeOf, Ids, Operation, Seen, Stage},
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::time::Instant;

/// What all stages of one channel go by.
pub struct Ground {
    /// What is watched by the object's token.
    pub watch: Arc<SlackWatch>,
    /// Who asks, and how fresh the answers must be.
    pub asking: Asking,
    /// By what the object knows its channel.
    pub claim: Claim,
    /// The workspace in which the channel was made or found, if it was.
    pub team: Option<String>,
    /// Whose token it is, for people.
    pub identity: String,
    /// Whether messages get in by the bot, there being no webhook.
    pub posts: bool,
    scope: String,
}

/// What is seen of the object's channel.
pub struct Sighting {
    /// The workspace.
    pub team: Arc<client::Workspace>,
    /// The channel, whoever holds it; none where it is to be made.
    pub channel: Option<Arc<client::Channel>>,
    /// Who holds it.
    pub holder: Holder,
}

impl Sighting {
    /// The channel, if it is ours to look after.
    fn ours(&self) -> Option<&client::Channel> {
        self.channel
            .as_deref()
            .filter(|_| self.holder == Holder::Us)
    }
}

impl Ground {
    /// What the stages of one object go by.
    pub fn new(
        watch: Arc<SlackWatch>,
        asking: Asking,
        claim: Claim,
        team: Option<String>,
        identity: String,
        posts: bool,
    ) -> Self {
        Self {
            scope: format!("slack {}", watch.key),
            watch,
            asking,
            claim,
            team,
            identity,
            posts,
        }
    }

    fn sight(&self) -> Result<&Sight> {
        let sight = self.watch.sight.as_ref();
        sight.ok_or_else(|| Error::failing("there is no bot token here"))
    }

    /// The workspace that the token leads to, which must be the one in which the channel is.
    async fn workspace(&self) -> Result<Arc<client::Workspace>> {
        let team = self
            .sight()?
            .team
            .snapshot(&[TEAM.to_owned()].into(), &self.asking)
            .await?;
        let team = team
            .get(TEAM)
            .ok_or_else(|| Error::failing("Slack did not say whose token it is"))?;
        match &self.team {
            Some(known) if *known != team.team_id && self.claim.id.is_some() => Err(Error::new(
                match self.claim.name {
                    Some(_) => Class::Conflict,
                    // What is going is out of reach then, and let go of in time.
                    None => Class::Denied,
                },
                format!(
                    "{} leads to workspace {} ({}), and the channel is in {known}: give it a token of that workspace, or delete this object and make a new one",
                    self.identity, team.team, team.team_id
                ),
            )),
            _ => Ok(team.clone()),
        }
    }

    /// The workspace and the channel there, as they are known. `made`: the id of one that was made in this run.
    async fn look(&self, made: Option<&str>) -> Result<Sighting> {
        let team = self.workspace().await?;
        self.may(&team, &[&["channels:read"]])?;
        if self.claim.private {
            self.may(&team, &[&["groups:read"]])?;
        }
        let channels = &self.sight()?.channels;
        let id = made.or(self.claim.id.as_deref());
        let by_id = id.map(id_key);
        let by_name: Vec<_> = self.claim.sought().map(name_key).collect();
        let mut seen = Snapshot::new();
        // What is known by its id alone needs no listing of the whole workspace.
        if !by_name.is_empty() {
            let keys = by_id.iter().chain(&by_name).cloned().collect();
            seen = channels.snapshot(&keys, &self.asking).await?;
        }
        if let Some(key) = by_id.as_ref().filter(|key| !seen.contains_key(*key)) {
            // A listing tells what is there, and not what became of what is not.
            seen.extend(
                channels
                    .confirm(&[key.clone()].into(), &self.asking)
                    .await?,
            );
        }
        let claim = match made {
            Some(made) => &Claim {
                id: Some(made.to_owned()),
                ..self.claim.clone()
            },
            None => &self.claim,
        };
        let by_id = by_id.as_ref().and_then(|key| seen.get(key));
        let by_name: Vec<_> = by_name.iter().filter_map(|key| seen.get(key)).collect();
        let named: Vec<_> = by_name.iter().map(|named| &***named).collect();
        let pick = claim.pick(&team.user_id, by_id.map(|it| &**it), &named);
        let same = |channel: &client::Channel| {
            let all = by_id.into_iter().chain(by_name.iter().copied());
            let mut found = all.filter(|known| known.id == channel.id);
            found.next().cloned()
        };
        // Of two who came to it at once only one has it.
        let pick = match pick {
            Pick::Ours(channel)
                if claim.name.is_some() && !self.sight()?.claim(&channel.id, &self.asking.uid) =>
            {
                Pick::Taken(channel)
            }
            // Nor does whoever goes take along what another looks after.
            Pick::Ours(channel)
                if claim.name.is_none()
                    && self.sight()?.is_another(&channel.id, &self.asking.uid) =>
            {
                Pick::None
            }
            pick => pick,
        };
        let holder = |channel: &client::Channel| {
            let sight = self.sight();
            match self.claim.elsewhere.get(&channel.id) {
                Some(other) => format!("{other}, which looks after it"),
                // Its status does not tell yet.
                None if sight.is_ok_and(|it| it.is_another(&channel.id, &self.asking.uid)) => {
                    "another SlackChannel, which looks after it".into()
                }
                None => holders(channel).into(),
            }
        };
        let (channel, holder) = match pick {
            Pick::Ours(channel) => (same(channel), Holder::Us),
            Pick::Taken(channel) => (same(channel), Holder::Other(holder(channel))),
            Pick::None => (None, Holder::Nobody),
            Pick::Lost => {
                return Err(Error::new(
                    Class::Denied,
                    format!(
                        "the private channel {} ({}) cannot be seen any more: the bot was taken out of it, or it was deleted. Invite the bot; or, if the channel is gone, delete this object and make a new one",
                        self.claim.sought().next().unwrap_or_default(),
                        id.unwrap_or_default()
                    ),
                ));
            }
        };
        Ok(Sighting {
            team,
            channel,
            holder,
        })
    }

    /// Whether the token may do what takes one of each of these scopes.
    fn may(&self, team: &client::Workspace, needed: &[&[&str]]) -> Result<()> {
        let Some(granted) = &team.scopes else {
            return Ok(());
        };
        match missing_scopes(granted, needed) {
            missing if missing.is_empty() => Ok(()),
            missing => Err(Error::new(
                Class::Denied,
                format!(
                    "{} lacks {}: {}",
                    self.identity,
                    missing.join(", "),
                    add_scopes(&missing)
                ),
            )),
        }
    }

    /// What the bot lacks for posting, where messages get in by it alone. Slack refuses such a message with a
    /// status that EventBridge takes for success, so it is told here or nowhere.
    pub fn cannot_post(&self) -> Option<Error> {
        self.posts.then(|| self.may_now(&[&["chat:write"]]).err())?
    }

    /// As [`Self::may`], by what is known of the token.
    fn may_now(&self, needed: &[&[&str]]) -> Result<()> {
        let known = self.sight()?.team.known(TEAM);
        known
            .get(TEAM)
            .map_or(Ok(()), |team| self.may(team, needed))
    }

    /// What it takes to look after a channel: the scopes differ by who can see it.
    fn manages(&self, finer: &'static str, finer_private: &'static str) -> Result<()> {
        if self.claim.private {
            self.may_now(&[&["groups:write", finer_private]])
        } else {
            self.may_now(&[&["channels:manage", finer]])
        }
    }

    /// Whether Slack may be asked for this, or wants us to wait.
    fn not_before(&self, api: &'static str) -> Result<()> {
        self.sight()?.pauses.over(api)
    }

    /// Whether the bot is in the channel, where that is known: without it Slack refuses what takes a member,
    /// and that refusal would outlast its reason.
    fn within(&self, id: &str) -> Result<()> {
        let key = id_key(id);
        let known = self.sight()?.channels.known(&key);
        match known.get(&key) {
            Some(channel) if !channel.is_member => Err(Error::new(
                Class::Waiting(On::Prerequisite),
                format!("waiting for the bot to be in channel {}", channel.name),
            )),
            _ => Ok(()),
        }
    }

    fn operation<'a>(&'a self, api: &'static str) -> Operation<'a> {
        Operation {
            scope: &self.scope,
            account: &self.watch.key,
            region: "",
            identity: &self.identity,
            api,
        }
    }

    /// The channel is so now.
    fn wrote(&self, channel: client::Channel) {
        let Some(sight) = &self.watch.sight else {
            return;
        };
        // Under the name that it had nothing is known any more.
        let before = sight.channels.known(&id_key(&channel.id));
        for known in before.values().filter(|known| known.name != channel.name) {
            sight.channels.doubt(&name_key(&known.name));
        }
        sight
            .channels
            .wrote(&name_key(&channel.name), Some(channel.clone()));
        sight.channels.wrote(&id_key(&channel.id), Some(channel));
    }

    /// What a write came to; where nobody can know what is there now, it is read before it is used.
    fn note<T>(
        &self,
        id: &str,
        outcome: Result<T, Refusal>,
        now: impl FnOnce(&mut client::Channel),
    ) -> Result<Applied> {
        let channels = &self.sight()?.channels;
        let key = id_key(id);
        match (outcome, channels.known(&key).remove(&key)) {
            (Ok(_), Some(known)) => {
                let mut channel = (*known).clone();
                now(&mut channel);
                self.wrote(channel);
                Ok(Applied::Done)
            }
            (Ok(_), None) => {
                channels.doubt(&key);
                Ok(Applied::Done)
            }
            (Err(refusal), known) => {
                // What is refused was not as we thought.
                channels.doubt(&key);
                if let Some(known) = known {
                    channels.doubt(&name_key(&known.name));
                }
                let stale = matches!(
                    refusal.code.as_str(),
                    "not_in_channel" | "is_archived" | "channel_not_found"
                );
                let error = Error::from(refusal);
                // The next look knows better, so this is not remembered against the change.
                Err(if stale {
                    Error::failing(error.message)
                } else {
                    error
                })
            }
        }
    }
}

/// Who holds a channel that is not ours, for people: Slack has no marks, and somebody may be in there.
fn holders(channel: &client::Channel) -> &'static str {
    if channel.is_archived {
        "nobody any more: it is archived, keeps its name, and a bot cannot bring it back"
    } else {
        "people (spec.adoptionPolicy says whether it is to be looked after from now on)"
    }
}

/// The channel itself.
pub struct Channel {
    /// What should be there.
    pub desired: Desired<String, Configuration>,
    ground: Arc<Ground>,
    seen: Mutex<Option<Sighting>>,
}

impl Channel {
    /// The stage of one object.
    pub fn new(desired: Desired<String, Configuration>, ground: Arc<Ground>) -> Self {
        Self {
            desired,
            ground,
            seen: Mutex::default(),
        }
    }

    /// What was seen last.
    pub fn sighting(&self) -> MutexGuard<'_, Option<Sighting>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the thing is called in plans and in [`Ids`]: as the spec has it, or as it is where nothing is asked for.
    fn key(&self, channel: &client::Channel) -> String {
        let wanted = self.desired.wanted.keys().next();
        wanted.cloned().unwrap_or_else(|| channel.name.clone())
    }

    async fn create(&self, name: &str, to: &Configuration) -> Result<Applied> {
        let ground = &self.ground;
        let (sight, private) = (ground.sight()?, to.visibility == Visibility::Private);
        let made = sight.bot.create(name, private).await;
        match sight.pauses.heed(api::CREATE, made) {
            Ok(channel) => {
                let id = channel.id.clone();
                // Who makes a channel is in it.
                ground.wrote(client::Channel {
                    is_member: true,
                    ..channel
                });
                Ok(Applied::Id(id))
            }
            Err(refusal) if refusal.code == "name_taken" => {
                let asking = Asking {
                    freshness: Freshness::Now,
                    since: Instant::now(),
                    ..ground.asking.clone()
                };
                let key = name_key(name);
                let seen = sight
                    .channels
                    .snapshot(&[key.clone()].into(), &asking)
                    .await?;
                let Claim {
                    creating, adoption, ..
                } = &ground.claim;
                let intended = creating.as_ref().is_some_and(|it| it.channel == name);
                let looks_again = intended || *adoption != AdoptionPolicy::Never;
                Err(if let Some(channel) = seen.get(&key) {
                    match looks_again {
                        true => Error::failing(format!("channel {name} is there after all")),
                        false => Error::new(
                            Class::Conflict,
                            format!(
                                "channel {name} exists and is held by {}; it was not touched: remove it, or give ours another name",
                                holders(channel)
                            ),
                        ),
                    }
                } else {
                    Error::new(
                        Class::Conflict,
                        format!(
                            "the name {name} is taken by a channel that the bot cannot see, a private one (archived ones keep their names): invite the bot to it and set spec.adoptionPolicy to IfExists, or choose another name"
                        ),
                    )
                })
            }
            Err(refusal) => {
                sight.channels.doubt(&name_key(name));
                Err(refusal.into())
            }
        }
    }
}

impl Stage for Channel {
    const NAME: &'static str = "channel";
    /// Slack makes no two of one name, but without its id we would not know ours again.
    const LEDGER: bool = true;
    type Key = String;
    type Value = Configuration;
    type Id = String;
    type Live = ();

    fn scope(&self) -> &str {
        &self.ground.scope
    }

    fn desired(&self) -> &Desired<String, Configuration> {
        &self.desired
    }

    fn id_text(id: &String) -> String {
        id.clone()
    }

    async fn observe(&self, ids: &Ids) -> Result<Seen<Self>> {
        let wanted = self.desired.wanted.keys().next();
        let made = wanted.filter(|name| ids.is_new(Self::NAME, name));
        let made = made.and_then(|name| ids.get(Self::NAME, name));
        let mut sighting = self.ground.look(made).await?;
        let counted = |sighting: &Sighting| {
            let channel = sighting.channel.as_ref();
            channel.is_some_and(|channel| channel.members.is_some())
        };
        if let Some(id) = made.filter(|_| !counted(&sighting)) {
            // The answer to a create does not say how many are in it.
            let channels = &self.ground.sight()?.channels;
            channels
                .confirm(&[id_key(id)].into(), &self.ground.asking)
                .await?;
            sighting = self.ground.look(made).await?;
        }
        let mut seen = Seen::<Self>::new();
        if let Some(channel) = &sighting.channel {
            let value = Configuration::of(channel);
            // What is to go and cannot be written into any more has gone.
            if !self.desired.wanted.is_empty() || !value.archived {
                let found = Found {
                    id: channel.id.clone(),
                    value,
                    holder: sighting.holder.clone(),
                    live: (),
                };
                seen.insert(self.key(channel), found);
            }
        }
        *self.sighting() = Some(sighting);
        Ok(seen)
    }

    async fn confirm(&self, _: &BTreeSet<String>, ids: &Ids) -> Result<Option<Seen<Self>>> {
        let sight = self.ground.sight()?;
        let id = self
            .sighting()
            .as_ref()
            .and_then(|it| Some(it.channel.as_ref()?.id.clone()));
        match id {
            Some(id) if !sight.channels.is_fresh(self.ground.asking.since) => {
                sight
                    .channels
                    .confirm(&[id_key(&id)].into(), &self.ground.asking)
                    .await?;
                self.observe(ids).await.map(Some)
            }
            // Whether a name is free only making the channel tells.
            _ => Ok(None),
        }
    }

    fn objection(&self, change: &ChangeOf<Self>) -> Option<Error> {
        match change {
            Change::Update { key, from, to, .. } => desired::objection(key, from, to),
            Change::Create { .. } | Change::Delete { .. } | Change::Conflict { .. } => None,
        }
    }

    fn ready(&self, change: &ChangeOf<Self>, _: &Ids) -> Result<()> {
        self.ground.manages("channels:write", "groups:write")?;
        self.ground.not_before(self.operation(change).api)
    }

    fn operation(&self, change: &ChangeOf<Self>) -> Operation<'_> {
        self.ground.operation(match change {
            Change::Create { .. } | Change::Update { .. } | Change::Conflict { .. } => api::CREATE,
            Change::Delete { .. } => api::ARCHIVE,
        })
    }

    async fn apply(&self, changes: &[ChangeOf<Self>], _: &Ids) -> Vec<Result<Applied>> {
        let ground = &self.ground;
        let mut outcomes = Vec::with_capacity(changes.len());
        for change in changes {
            let sight = match ground.sight() {
                Ok(sight) => sight,
                Err(error) => {
                    outcomes.push(Err(error));
                    continue;
                }
            };
            outcomes.push(match change {
                Change::Create { key, to } => self.create(key, to).await,
                Change::Delete { ours, .. } => {
                    let archived = sight.bot.archive(ours.id()).await;
                    let archived = sight.pauses.heed(api::ARCHIVE, archived);
                    let archived = ground.note(ours.id(), archived, |channel| {
                        channel.is_archived = true;
                        channel.is_member = false;
                    });
                    archived.map_err(|error| match error.class {
                        // The workspace's own rules: a person's to change, or to let go.
                        Class::Rejected => Error::new(
                            Class::Denied,
                            format!("{}; or set spec.deletionPolicy to Orphan", error.message),
                        ),
                        _ => error,
                    })
                }
                // Nobody but a person can do that.
                Change::Update { .. } | Change::Conflict { .. } => continue,
            });
        }
        outcomes
    }
}

/// That the bot is in the channel: it can change nothing from without.
pub struct Member {
    desired: Desired<String, Membership>,
    channel: Option<String>,
    ground: Arc<Ground>,
}

impl Member {
    /// The stage of one object. `channel`: what its spec calls the channel.
    pub fn new(channel: Option<String>, ground: Arc<Ground>) -> Self {
        let wanted = [("bot".to_owned(), Membership(true))];
        Self {
            desired: Desired {
                wanted: wanted
                    .into_iter()
                    .filter(|_| ground.watch.sight.is_some())
                    .collect(),
                ..Desired::default()
            },
            channel,
            ground,
        }
    }
}

/// What this run knows of the object's channel: its id, whether it was there before or made now.
fn known_id<'a>(ids: &'a Ids, name: Option<&String>) -> Option<&'a str> {
    ids.get(Channel::NAME, name?)
}

impl Stage for Member {
    const NAME: &'static str = "membership";
    const NEEDS: &'static [&'static str] = &[Channel::NAME];
    type Key = String;
    type Value = Membership;
    type Id = String;
    type Live = ();

    fn scope(&self) -> &str {
        &self.ground.scope
    }

    fn desired(&self) -> &Desired<String, Membership> {
        &self.desired
    }

    async fn observe(&self, ids: &Ids) -> Result<Seen<Self>> {
        if self.desired.wanted.is_empty() {
            return Ok(Seen::<Self>::new());
        }
        let sighting = self
            .ground
            .look(known_id(ids, self.channel.as_ref()))
            .await?;
        let ours = sighting.ours().filter(|channel| !channel.is_archived);
        // Who makes a channel is in it.
        let found = Found {
            id: ours.map(|channel| channel.id.clone()).unwrap_or_default(),
            value: Membership(ours.is_none_or(|channel| channel.is_member)),
            holder: Holder::Us,
            live: (),
        };
        Ok([("bot".to_owned(), found)].into())
    }

    fn ready(&self, change: &ChangeOf<Self>, _: &Ids) -> Result<()> {
        self.ground.may_now(&[&["channels:join"]])?;
        self.ground.not_before(self.operation(change).api)
    }

    fn operation(&self, _: &ChangeOf<Self>) -> Operation<'_> {
        self.ground.operation(api::JOIN)
    }

    async fn apply(&self, changes: &[ChangeOf<Self>], _: &Ids) -> Vec<Result<Applied>> {
        let mut outcomes = Vec::with_capacity(changes.len());
        for change in changes {
            let Change::Update { ours, .. } = change else {
                continue;
            };
            outcomes.push(match self.ground.sight() {
                Ok(sight) => {
                    let joined = sight.bot.join(ours.id()).await;
                    let joined = sight.pauses.heed(api::JOIN, joined);
                    self.ground
                        .note(ours.id(), joined, |channel| channel.is_member = true)
                }
                Err(error) => Err(error),
            });
        }
        outcomes
    }
}

/// The channel's name, topic and purpose: what takes a bot that is in it.
pub struct Details {
    desired: Desired<Detail, Text>,
    channel: Option<String>,
    ground: Arc<Ground>,
}

impl Details {
    /// The stage of one object.
    pub fn new(
        desired: Desired<Detail, Text>,
        channel: Option<String>,
        ground: Arc<Ground>,
    ) -> Self {
        Self {
            desired,
            channel,
            ground,
        }
    }

    async fn set(&self, id: &str, detail: Detail, text: &Text) -> Result<Applied> {
        let Sight { bot, pauses, .. } = self.ground.sight()?;
        let text = &text.0;
        match detail {
            Detail::Name => {
                let renamed = pauses.heed(api::RENAME, bot.rename(id, text).await);
                self.ground
                    .note(id, renamed, |channel| channel.name = text.clone())
            }
            Detail::Topic => {
                let set = pauses.heed(api::SET_TOPIC, bot.set_topic(id, text).await);
                self.ground
                    .note(id, set, |channel| channel.topic = text.clone())
            }
            Detail::Purpose => {
                let set = pauses.heed(api::SET_PURPOSE, bot.set_purpose(id, text).await);
                self.ground
                    .note(id, set, |channel| channel.purpose = text.clone())
            }
        }
    }
}

impl Stage for Details {
    const NAME: &'static str = "channel detail";
    const NEEDS: &'static [&'static str] = &[Channel::NAME, Member::NAME];
    type Key = Detail;
    type Value = Text;
    type Id = String;
    type Live = ();

    fn scope(&self) -> &str {
        &self.ground.scope
    }

    fn desired(&self) -> &Desired<Detail, Text> {
        &self.desired
    }

    async fn observe(&self, ids: &Ids) -> Result<Seen<Self>> {
        if self.desired.wanted.is_empty() {
            return Ok(Seen::<Self>::new());
        }
        let sighting = self
            .ground
            .look(known_id(ids, self.channel.as_ref()))
            .await?;
        let mut seen = Seen::<Self>::new();
        for (detail, wanted) in &self.desired.wanted {
            let text = match (sighting.ours(), detail) {
                // It gets its name when it is made, and what is archived is told already.
                (None, Detail::Name) => wanted,
                (None, _) => continue,
                (Some(channel), _) if channel.is_archived => wanted,
                (Some(channel), Detail::Name) => &Text(channel.name.clone()),
                (Some(channel), Detail::Topic) => &Text(channel.topic.clone()),
                (Some(channel), Detail::Purpose) => &Text(channel.purpose.clone()),
            };
            let id = sighting.ours().map(|channel| channel.id.clone());
            let found = Found {
                id: id.unwrap_or_default(),
                value: text.clone(),
                holder: Holder::Us,
                live: (),
            };
            seen.insert(*detail, found);
        }
        Ok(seen)
    }

    fn ready(&self, change: &ChangeOf<Self>, ids: &Ids) -> Result<()> {
        let name = self.channel.as_deref().unwrap_or_default();
        self.ground.within(ids.need(Channel::NAME, name)?)?;
        match change.key() {
            Detail::Name => self.ground.manages("channels:write", "groups:write")?,
            Detail::Topic | Detail::Purpose => {
                let (finer, private) = ("channels:write.topic", "groups:write.topic");
                self.ground.manages(finer, private)?;
            }
        }
        self.ground.not_before(self.operation(change).api)
    }

    fn operation(&self, change: &ChangeOf<Self>) -> Operation<'_> {
        self.ground.operation(match change.key() {
            Detail::Name => api::RENAME,
            Detail::Topic => api::SET_TOPIC,
            Detail::Purpose => api::SET_PURPOSE,
        })
    }

    async fn apply(&self, changes: &[ChangeOf<Self>], ids: &Ids) -> Vec<Result<Applied>> {
        let mut outcomes = Vec::with_capacity(changes.len());
        for change in changes {
            outcomes.push(match change {
                Change::Create { key, to } => {
                    let name = self.channel.as_deref().unwrap_or_default();
                    match ids.need(Channel::NAME, name) {
                        Ok(id) => self.set(id, *key, to).await,
                        Err(error) => Err(error),
                    }
                }
                Change::Update { key, ours, to, .. } => self.set(ours.id(), *key, to).await,
                Change::Delete { .. } | Change::Conflict { .. } => continue,
            });
        }
        outcomes
    }
}

/// Who is invited to the channel.
pub struct Invitations {
    /// Who should be.
    pub desired: Desired<String, Invited>,
    channel: Option<String>,
    ledger: Mutex<Ledger>,
    ground: Arc<Ground>,
}

/// Who has been invited to the channel.
#[derive(Default)]
struct Ledger {
    /// As status says.
    before: BTreeSet<String>,
    /// In this run.
    now: BTreeSet<String>,
}

impl Invitations {
    /// The stage of one object, which has invited `invited` already.
    pub fn new(
        desired: Desired<String, Invited>,
        channel: Option<String>,
        invited: BTreeSet<String>,
        ground: Arc<Ground>,
    ) -> Self {
        Self {
            desired,
            channel,
            ledger: Mutex::new(Ledger {
                before: invited,
                now: BTreeSet::new(),
            }),
            ground,
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the channel is another than the one that status speaks of: nobody has been invited to it yet.
    fn is_another(&self, channel: &client::Channel) -> bool {
        let Claim { id, created, .. } = &self.ground.claim;
        id.as_ref().is_some_and(|id| *id != channel.id) && *created != Some(channel.created)
    }

    /// Who of those that the spec names has been invited.
    pub fn invited(&self) -> Vec<String> {
        let Ledger { before, now } = &*self.ledger();
        let wanted = self.desired.wanted.keys();
        wanted
            .filter(|entry| before.contains(*entry) || now.contains(*entry))
            .cloned()
            .collect()
    }

    async fn invite(&self, id: &str, entry: &str) -> Result<Applied> {
        let Sight { bot, pauses, .. } = self.ground.sight()?;
        let user = if entry.contains('@') {
            let user = bot.user_by_email(entry, self.ground.asking.urgency).await;
            let user = pauses.heed(api::USER_BY_EMAIL, user)?;
            user.ok_or_else(|| {
                let message = format!(
                    "nobody in the workspace has the address {entry}: correct spec.invite, or invite that person to the workspace first"
                );
                Error::new(Class::Rejected, message)
            })?
        } else {
            entry.to_owned()
        };
        let invited = pauses.heed(api::INVITE, bot.invite(id, &user).await);
        // How many are in it then only Slack knows.
        let invited = self
            .ground
            .note(id, invited, |channel| channel.members = None);
        invited.map_err(|error| Error {
            message: format!("inviting {entry}: {}", error.message),
            ..error
        })?;
        self.ledger().now.insert(entry.to_owned());
        Ok(Applied::Done)
    }
}

impl Stage for Invitations {
    const NAME: &'static str = "invitation";
    const NEEDS: &'static [&'static str] = &[Channel::NAME, Member::NAME];
    type Key = String;
    type Value = Invited;
    type Id = ();
    type Live = ();

    fn scope(&self) -> &str {
        &self.ground.scope
    }

    fn desired(&self) -> &Desired<String, Invited> {
        &self.desired
    }

    async fn observe(&self, ids: &Ids) -> Result<Seen<Self>> {
        let Some(name) = self
            .channel
            .as_ref()
            .filter(|_| !self.desired.wanted.is_empty())
        else {
            return Ok(Seen::<Self>::new());
        };
        let sighting = self.ground.look(known_id(ids, Some(name))).await?;
        let is_new = ids.is_new(Channel::NAME, name);
        if is_new || sighting.ours().is_some_and(|it| self.is_another(it)) {
            self.ledger().before.clear();
        }
        let found = self.invited().into_iter().map(|entry| {
            let found = Found {
                id: (),
                value: Invited,
                holder: Holder::Us,
                live: (),
            };
            (entry, found)
        });
        Ok(found.collect())
    }

    fn ready(&self, change: &ChangeOf<Self>, ids: &Ids) -> Result<()> {
        let name = self.channel.as_deref().unwrap_or_default();
        self.ground.within(ids.need(Channel::NAME, name)?)?;
        if change.key().contains('@') {
            self.ground.may_now(&[&["users:read.email"]])?;
            self.ground.not_before(api::USER_BY_EMAIL)?;
        }
        self.ground
            .manages("channels:write.invites", "groups:write.invites")?;
        self.ground.not_before(self.operation(change).api)
    }

    fn operation(&self, _: &ChangeOf<Self>) -> Operation<'_> {
        self.ground.operation(api::INVITE)
    }

    async fn apply(&self, changes: &[ChangeOf<Self>], ids: &Ids) -> Vec<Result<Applied>> {
        let mut outcomes = Vec::with_capacity(changes.len());
        for change in changes {
            let name = self.channel.as_deref().unwrap_or_default();
            outcomes.push(match ids.need(Channel::NAME, name) {
                Ok(id) => self.invite(id, change.key()).await,
                Err(error) => Err(error),
            });
        }
        outcomes
    }
}

/// The incoming webhook: that it takes messages. It is made and mended by people alone.
pub struct IncomingWebhook {
    /// That it should.
    pub desired: Desired<String, Posting>,
    /// Under what it is watched, and its URL.
    webhook: Option<(String, Secret)>,
    /// That it takes messages is known without asking it.
    is_known: bool,
    ground: Arc<Ground>,
}

impl IncomingWebhook {
    /// The stage of one object. `name`: where the webhook's URL is, for people; the error if it cannot be
    /// read there. `is_known`: that it takes messages is known without asking it.
    pub fn new(
        name: Option<(String, String)>,
        url: Option<&Result<Secret>>,
        is_known: bool,
        ground: Arc<Ground>,
    ) -> Self {
        let mut desired = Desired::default();
        let mut webhook = None;
        if let (Some((key, name)), Some(url)) = (name, url) {
            match url {
                Ok(url) => {
                    desired.wanted.insert(name, Posting(Ok(())));
                    webhook = Some((key, url.clone()));
                }
                Err(error) => drop(desired.held.insert(name, error.clone())),
            }
        }
        Self {
            desired,
            webhook,
            is_known,
            ground,
        }
    }
}

impl IncomingWebhook {
    async fn ask(&self, key: &str, url: &Secret) -> Result<Posting> {
        let webhooks = &self.ground.watch.webhooks;
        if webhooks.source.name(key, url) {
            webhooks.doubt(key);
        }
        let asked = [key.to_owned()].into();
        let seen = webhooks.snapshot(&asked, &self.ground.asking).await?;
        match seen.get(key).map(|it| &**it) {
            Some(Ok(Webhook::Alive)) => Ok(Posting(Ok(()))),
            Some(Ok(Webhook::Revoked(why))) => Ok(Posting(Err(why.clone()))),
            Some(Err(error)) => Err(error.clone()),
            None => Err(Error::failing("the webhook has not been asked yet")),
        }
    }
}

impl Stage for IncomingWebhook {
    const NAME: &'static str = "incoming webhook";
    type Key = String;
    type Value = Posting;
    type Id = ();
    type Live = ();

    fn scope(&self) -> &str {
        "slack webhooks"
    }

    fn desired(&self) -> &Desired<String, Posting> {
        &self.desired
    }

    async fn observe(&self, _: &Ids) -> Result<Seen<Self>> {
        let (Some((key, url)), Some(name)) = (&self.webhook, self.desired.wanted.keys().next())
        else {
            return Ok(Seen::<Self>::new());
        };
        let posting = if self.is_known {
            Posting(Ok(()))
        } else {
            self.ask(key, url).await?
        };
        let found = Found {
            id: (),
            value: posting,
            holder: Holder::Us,
            live: (),
        };
        Ok([(name.clone(), found)].into())
    }

    /// Nobody but a person makes a webhook.
    fn objection(&self, change: &ChangeOf<Self>) -> Option<Error> {
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
        self.ground.operation(api::WEBHOOK)
    }

    async fn apply(&self, changes: &[ChangeOf<Self>], _: &Ids) -> Vec<Result<Applied>> {
        let refused = |_| Err(Error::failing("a webhook is made by people"));
        changes.iter().map(refused).collect()
    }
}
