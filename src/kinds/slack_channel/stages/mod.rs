//! The stages of a SlackChannel: its webhook, the channel, that the bot is in it, its texts, and who is
//! invited.

mod channel;
mod details;
mod incoming_webhook;
mod invitations;
mod membership;

pub use channel::Channel;
pub use details::Details;
pub use incoming_webhook::IncomingWebhook;
pub use invitations::Invitations;
pub use membership::Member;

use super::{
    desired::{ChannelMatch, Selector},
    workspace::{ChannelKey, Sight, SlackScope},
};
use crate::{
    clients::slack::{self as client, add_scopes, missing_scopes},
    engine::{
        error::{Class, Error, Result, WaitingOn},
        gate::{Operation, WritePermit},
        informer::{ReadOptions, Snapshot},
        plan::{Found, Owner},
        stage::Ids,
    },
};
use jiff::Timestamp;
use serde::de::IgnoredAny;
use std::sync::Arc;

/// What all stages of one channel go by.
pub struct ChannelContext {
    /// What is watched by the object's token.
    pub scope: Arc<SlackScope>,
    /// Who asks, and how fresh the answers must be.
    pub options: ReadOptions,
    /// By what the object knows its channel.
    pub selector: Selector,
    /// The workspace in which the channel was made or found, if it was.
    pub team: Option<String>,
    /// Whose token it is, for people.
    pub identity: String,
    /// Whether messages get in by the bot, there being no webhook.
    pub posts: bool,
    /// Why the token could not be read.
    pub unread: Option<Error>,
    /// What one refusal stops.
    pub endpoint: String,
    /// When the run began.
    pub began: Timestamp,
}

/// What is seen of the object's channel.
pub struct Sighting {
    /// The workspace.
    pub team: Arc<client::Workspace>,
    /// The channel, whoever holds it; none where it is to be made.
    pub channel: Option<Arc<client::Channel>>,
    /// Who holds it.
    pub owner: Owner,
}

impl Sighting {
    /// Whether somebody else has it.
    fn is_anothers(&self) -> bool {
        matches!(self.owner, Owner::Other(_))
    }

    /// The channel, if it is ours to look after.
    fn ours(&self) -> Option<&client::Channel> {
        self.channel.as_deref().filter(|_| self.owner == Owner::Us)
    }
}

impl ChannelContext {
    fn sight(&self) -> Result<&Sight> {
        let why = || Error::failing("there is no bot token here");
        let sight = self.scope.sight.as_ref();
        sight.ok_or_else(|| self.unread.clone().unwrap_or_else(why))
    }

    /// The workspace that the token leads to, which must be the one in which the channel is.
    async fn workspace(&self) -> Result<Arc<client::Workspace>> {
        let team = self
            .sight()?
            .team
            .snapshot(&[()].into(), &self.options)
            .await?;
        let team = team
            .get(&())
            .ok_or_else(|| Error::failing("Slack did not say whose token it is"))?;
        match &self.team {
            Some(known) if *known != team.team_id && self.selector.id.is_some() => Err(Error::new(
                match self.selector.name {
                    Some(_) => Class::Conflict,
                    // Out of reach for a deletion, which ends after --release-after.
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
        if self.selector.private {
            self.may(&team, &[&["groups:read"]])?;
        }
        let channels = &self.sight()?.channels;
        let id = made.or(self.selector.id.as_deref());
        let by_id = id.map(ChannelKey::id);
        let by_name: Vec<_> = self.selector.names().map(ChannelKey::name).collect();
        let mut seen = Snapshot::new();
        // What is known by its id alone needs no listing of the whole workspace.
        if !by_name.is_empty() {
            let keys = by_id.iter().chain(&by_name).cloned().collect();
            seen = channels.snapshot(&keys, &self.options).await?;
        }
        if let Some(key) = by_id.as_ref().filter(|key| !seen.contains_key(*key)) {
            // A listing tells what is there, and not what became of what is not.
            let key = [key.clone()].into();
            seen.extend(channels.look_up(&key, &self.options).await?);
        }
        let selector = match made {
            Some(made) => &Selector {
                id: Some(made.to_owned()),
                ..self.selector.clone()
            },
            None => &self.selector,
        };
        let by_id = by_id.as_ref().and_then(|key| seen.get(key));
        let by_name: Vec<_> = by_name.iter().filter_map(|key| seen.get(key)).collect();
        let named: Vec<_> = by_name.iter().map(|named| &***named).collect();
        let selection = selector.select(&team.user_id, by_id.map(|it| &**it), &named);
        let same = |channel: &client::Channel| {
            let all = by_id.into_iter().chain(by_name.iter().copied());
            let mut found = all.filter(|known| known.id == channel.id);
            found.next().cloned()
        };
        let sight = self.sight()?;
        let selection = match (selection, &selector.name) {
            // Another object looks after it: it is taken, and not archived with this one.
            (ChannelMatch::Ours(channel), name)
                if sight.is_another(&channel.id, &self.options.uid) =>
            {
                name.as_ref()
                    .map_or(ChannelMatch::None, |_| ChannelMatch::Taken(channel))
            }
            (selection, _) => selection,
        };
        let owner = |channel: &client::Channel| {
            match self.selector.elsewhere.get(&channel.id) {
                Some(other) => format!("{other}, which looks after it"),
                // Its status does not tell yet.
                None if sight.is_another(&channel.id, &self.options.uid) => {
                    "another SlackChannel, which looks after it".into()
                }
                None => owners(channel).into(),
            }
        };
        let (channel, owner) = match selection {
            ChannelMatch::Ours(channel) => (same(channel), Owner::Us),
            ChannelMatch::Taken(channel) => (same(channel), Owner::Other(owner(channel))),
            ChannelMatch::None => (None, Owner::Nobody),
            ChannelMatch::Lost => {
                return Err(Error::new(
                    Class::Denied,
                    format!(
                        "the private channel {} ({}) cannot be seen any more: the bot was taken out of it, or it was deleted. Invite the bot; or, if the channel is gone, delete this object and make a new one",
                        self.selector.names().next().unwrap_or_default(),
                        id.unwrap_or_default()
                    ),
                ));
            }
        };
        Ok(Sighting {
            team,
            channel,
            owner,
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
        let team = self.sight()?.team.get(&());
        team.map_or(Ok(()), |team| self.may(&team, needed))
    }

    /// What it takes to look after a channel: the scopes differ by who can see it.
    fn manages(&self, finer: &'static str, finer_private: &'static str) -> Result<()> {
        if self.selector.private {
            self.may_now(&[&["groups:write", finer_private]])
        } else {
            self.may_now(&[&["channels:manage", finer]])
        }
    }

    /// Whether the bot is in the channel, where that is known: without it Slack refuses what takes a member,
    /// and that refusal would outlast its reason.
    fn within(&self, id: &str) -> Result<()> {
        match self.sight()?.channels.get(&ChannelKey::id(id)) {
            Some(channel) if !channel.is_member => Err(Error::new(
                Class::Waiting(WaitingOn::Prerequisite),
                format!("waiting for the bot to be in channel {}", channel.name),
            )),
            _ => Ok(()),
        }
    }

    fn operation<'a>(&'a self, api: &'static str) -> Operation<'a> {
        Operation {
            endpoint: &self.endpoint,
            account: &self.scope.key,
            region: "",
            identity: &self.identity,
            api,
        }
    }

    /// The channel is so now.
    fn wrote(&self, channel: client::Channel) {
        let Some(sight) = &self.scope.sight else {
            return;
        };
        // Under the name that it had nothing is known any more.
        let (id, name) = (ChannelKey::id(&channel.id), ChannelKey::name(&channel.name));
        let before = sight.channels.get(&id);
        if let Some(before) = before.filter(|before| before.name != channel.name) {
            sight.channels.invalidate(ChannelKey::name(&before.name));
        }
        sight.channels.wrote(name, Some(channel.clone()));
        sight.channels.wrote(id, Some(channel));
    }

    /// Writes to the channel: `done` is the code by which Slack refuses what is so already, `now` what the channel
    /// is then. Where nobody can know what is there now, it is read before it is used.
    async fn write(
        &self,
        permit: &WritePermit<'_>,
        id: &str,
        form: &[(&str, &str)],
        done: Option<&str>,
        now: impl FnOnce(&mut client::Channel) + Send,
    ) -> Result<()> {
        let Sight { bot, channels, .. } = self.sight()?;
        let form: Vec<_> = [("channel", id)].iter().chain(form).copied().collect();
        let outcome = match bot.write::<IgnoredAny>(permit, id, &form).await {
            Err(refusal) if done == Some(&*refusal.code) => Ok(()),
            outcome => outcome.map(drop),
        };
        let key = ChannelKey::id(id);
        match (outcome, channels.get(&key)) {
            (Ok(_), Some(known)) => {
                let mut channel = (*known).clone();
                now(&mut channel);
                self.wrote(channel);
                Ok(())
            }
            (Ok(_), None) => {
                channels.invalidate(key);
                Ok(())
            }
            (Err(refusal), known) => {
                // What is refused was not as we thought.
                channels.invalidate(key);
                if let Some(known) = known {
                    channels.invalidate(ChannelKey::name(&known.name));
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
fn owners(channel: &client::Channel) -> &'static str {
    if channel.is_archived {
        "nobody any more: it is archived, keeps its name, and a bot cannot bring it back"
    } else {
        "people (spec.adoptionPolicy says whether it is to be looked after from now on)"
    }
}

/// The channel that an object declares, for the stages that come after [`Channel`].
#[derive(Clone)]
pub struct Declared {
    /// What the spec calls it.
    pub name: String,
    /// What all stages go by.
    pub shared: Arc<ChannelContext>,
}

impl Declared {
    /// The workspace and the channel there, which may have been made in this run.
    async fn look(&self, ids: &Ids) -> Result<Sighting> {
        let made = ids.get::<Channel>(&self.name);
        self.shared.look(made.map(String::as_str)).await
    }

    /// Slack's id of it, where nothing can be done without one.
    fn id<'a>(&self, ids: &'a Ids) -> Result<&'a str> {
        ids.need::<Channel>(&self.name).map(String::as_str)
    }

    /// Whether it is there and, as far as that is known, the bot in it.
    fn within(&self, ids: &Ids) -> Result<()> {
        self.shared.within(self.id(ids)?)
    }
}

/// What is nobody's but ours, since it is in the object's own channel.
fn ours<V, I>(id: I, value: V) -> Found<V, I, ()> {
    Found {
        id,
        value,
        owner: Owner::Us,
        live: (),
    }
}
