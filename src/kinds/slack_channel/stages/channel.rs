//! The channel itself.

use super::{ChannelContext, Sighting};
use crate::{
    api::{Creating, SlackChannelStatus, Visibility},
    clients::slack::{self as client, OneChannel},
    engine::{
        error::{Class, Error, Result},
        gate::{Operation, StatusEdit, WritePermit},
        informer::{Consistency, ReadOptions},
        plan::{Change, Desired, Found, Owner},
        stage::{ChangeOf, Ids, ResultOf, Seen, Stage},
    },
    kinds::slack_channel::{
        desired::{self, Configuration},
        workspace::ChannelKey,
    },
};
use parking_lot::{Mutex, MutexGuard};
use std::{collections::BTreeSet, sync::Arc};
use tokio::time::Instant;

/// The channel itself.
pub struct Channel {
    /// What should be there.
    pub desired: Desired<String, Configuration>,
    shared: Arc<ChannelContext>,
    seen: Mutex<Option<Sighting>>,
}

impl Channel {
    /// The stage of one object.
    pub fn new(desired: Desired<String, Configuration>, shared: Arc<ChannelContext>) -> Self {
        Self {
            desired,
            shared,
            seen: Mutex::default(),
        }
    }

    /// What was seen last.
    pub fn sighting(&self) -> MutexGuard<'_, Option<Sighting>> {
        self.seen.lock()
    }

    /// What the thing is called in plans and in [`Ids`]: as the spec has it, or as it is where nothing is asked for.
    fn key(&self, channel: &client::Channel) -> String {
        let wanted = self.desired.wanted.keys().next();
        wanted.cloned().unwrap_or_else(|| channel.name.clone())
    }

    async fn create(
        &self,
        permit: &WritePermit<'_>,
        name: &str,
        to: &Configuration,
    ) -> Result<String> {
        let shared = &self.shared;
        let (sight, private) = (shared.sight()?, to.visibility == Visibility::Private);
        let form = [("name", name), ("is_private", &private.to_string())];
        let made = sight.bot.write(permit, name, &form).await;
        match made {
            Ok(OneChannel { channel }) => {
                let id = channel.id.clone();
                // Who makes a channel is in it.
                shared.wrote(client::Channel {
                    is_member: true,
                    ..channel
                });
                Ok(id)
            }
            Err(refusal) if refusal.code == "name_taken" => {
                let options = ReadOptions {
                    consistency: Consistency::Now,
                    since: Instant::now(),
                    ..shared.options.clone()
                };
                let key = ChannelKey::name(name);
                let seen = sight
                    .channels
                    .snapshot(&[key.clone()].into(), &options)
                    .await?;
                Err(if seen.contains_key(&key) {
                    // The next look says whose it is.
                    Error::failing(format!("channel {name} is there after all"))
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
                sight.channels.invalidate(ChannelKey::name(name));
                Err(refusal.into())
            }
        }
    }

    async fn archive(&self, permit: &WritePermit<'_>, id: &str) -> Result<()> {
        let shared = &self.shared;
        let archived = shared.write(permit, id, &[], Some("already_archived"), |channel| {
            channel.is_archived = true;
            channel.is_member = false;
        });
        let archived = archived.await;
        archived.map_err(|error| match error.class {
            // The workspace's own rules: a person's to change, or to let go.
            Class::Rejected => Error::new(
                Class::Denied,
                format!("{}; or set spec.deletionPolicy to Orphan", error.message),
            ),
            _ => error,
        })
    }
}

impl Stage for Channel {
    const NAME: &'static str = "channel";
    /// Slack makes no two of one name, but without its id we would not know ours again.
    type Key = String;
    type Value = Configuration;
    type Id = String;
    type Live = ();

    fn endpoint(&self) -> &str {
        &self.shared.endpoint
    }

    fn desired(&self) -> &Desired<String, Configuration> {
        &self.desired
    }

    async fn observe(&self, ids: &Ids) -> Result<Seen<Self>> {
        let wanted = self.desired.wanted.keys().next();
        let made = wanted.filter(|name| ids.is_new::<Self>(name));
        let made = made.and_then(|name| ids.get::<Self>(name));
        let made = made.map(String::as_str);
        let mut sighting = self.shared.look(made).await?;
        let counted = |sighting: &Sighting| {
            let channel = sighting.channel.as_ref();
            channel.is_some_and(|channel| channel.members.is_some())
        };
        if let Some(id) = made.filter(|_| !counted(&sighting)) {
            // The answer to a create does not say how many are in it.
            let channels = &self.shared.sight()?.channels;
            channels
                .look_up(&[ChannelKey::id(id)].into(), &self.shared.options)
                .await?;
            sighting = self.shared.look(made).await?;
        }
        if let Some(channel) = sighting.ours().filter(|_| wanted.is_some())
            && !self
                .shared
                .sight()?
                .claim(&channel.id, &self.shared.options.uid)
        {
            sighting = self.shared.look(made).await?;
        }
        let mut seen = Seen::<Self>::default();
        if let (None, Owner::Other(owner), Some(channel)) =
            (wanted, &sighting.owner, &sighting.channel)
        {
            let channel = &channel.id;
            tracing::info!(target: "campanile::audit", channel, owner, "let go: status names a channel that this bot did not make and spec.adoptionPolicy did not take");
        }
        if let Some(channel) = &sighting.channel {
            let value = Configuration::of(channel);
            // What is to go and cannot be written into any more has gone.
            if !self.desired.wanted.is_empty() || !value.archived {
                let found = Found {
                    id: channel.id.clone(),
                    value,
                    owner: sighting.owner.clone(),
                    live: (),
                };
                seen.found.insert(self.key(channel), found);
            }
        }
        *self.sighting() = Some(sighting);
        Ok(seen)
    }

    async fn confirm(&self, _: &BTreeSet<String>, ids: &Ids) -> Result<Option<Seen<Self>>> {
        let sight = self.shared.sight()?;
        let id = self
            .sighting()
            .as_ref()
            .and_then(|it| Some(it.channel.as_ref()?.id.clone()));
        // Whether a name is free only making the channel tells.
        let Some(id) = id else { return Ok(None) };
        let (key, options) = ([ChannelKey::Id(id)].into(), &self.shared.options);
        match sight.channels.confirm(&key, options).await? {
            Some(_) => self.observe(ids).await.map(Some),
            None => Ok(None),
        }
    }

    fn unsupported_change(&self, change: &ChangeOf<Self>) -> Option<Error> {
        match change {
            Change::Update { key, from, to, .. } => desired::unsupported_change(key, from, to),
            Change::Create { .. } | Change::Delete { .. } => None,
        }
    }

    fn ready(&self, _: &ChangeOf<Self>, _: &Ids) -> Result<()> {
        self.shared.manages("channels:write", "groups:write")
    }

    fn intent(&self, name: &String) -> Option<StatusEdit> {
        let (name, since) = (name.clone(), self.shared.began.as_second());
        Some(StatusEdit::new(move |status: &mut SlackChannelStatus| {
            let channel = name.clone();
            status.creating = Some(Creating { channel, since });
        }))
    }

    fn record(&self, name: &String, id: &String) -> Option<StatusEdit> {
        let (name, id) = (name.clone(), id.clone());
        Some(StatusEdit::new(move |status: &mut SlackChannelStatus| {
            status.channel_id = Some(id.clone());
            status.channel = Some(name.clone());
            status.creating = None;
            // Another channel: nobody has been invited to it yet.
            status.invited.clear();
        }))
    }

    fn operation(&self, change: &ChangeOf<Self>) -> Operation<'_> {
        self.shared.operation(match change {
            Change::Create { .. } | Change::Update { .. } => "slack:conversations.create",
            Change::Delete { .. } => "slack:conversations.archive",
        })
    }

    async fn apply(
        &self,
        permit: &WritePermit<'_>,
        change: &ChangeOf<Self>,
        _: &Ids,
    ) -> ResultOf<Self> {
        match change {
            Change::Create { key, to } => self.create(permit, key, to).await.map(Some),
            Change::Delete { ours, .. } => self.archive(permit, ours.id()).await.map(|()| None),
            // Nobody but a person can do that.
            Change::Update { .. } => Ok(None),
        }
    }
}
