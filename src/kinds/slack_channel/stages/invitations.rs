//! Who is invited to the channel.

use super::{Channel, Declared, Member, ours};
use crate::{
    clients::slack as client,
    engine::{
        error::{Class, Error, Result},
        gate::{Operation, WritePermit},
        plan::Desired,
        stage::{ChangeOf, Ids, ResultOf, Seen, Stage},
    },
    kinds::slack_channel::desired::{Invitation, Selector},
};
use parking_lot::Mutex;
use std::collections::BTreeSet;

/// Who is invited to the channel.
pub struct Invitations {
    /// Who should be.
    pub desired: Desired<String, Invitation>,
    channel: Declared,
    recorded: Mutex<Recorded>,
}

/// Who has been invited to the channel.
#[derive(Default)]
struct Recorded {
    /// As status says.
    before: BTreeSet<String>,
    /// In this run.
    now: BTreeSet<String>,
}

impl Invitations {
    /// The stage of one object, which has invited `invited` already.
    pub fn new(
        desired: Desired<String, Invitation>,
        channel: Declared,
        invited: BTreeSet<String>,
    ) -> Self {
        Self {
            desired,
            channel,
            recorded: Mutex::new(Recorded {
                before: invited,
                now: BTreeSet::new(),
            }),
        }
    }

    /// Whether the channel is another than the one that status speaks of: nobody has been invited to it yet.
    fn is_another(&self, channel: &client::Channel) -> bool {
        let Selector { id, created, .. } = &self.channel.shared.selector;
        id.as_ref().is_some_and(|id| *id != channel.id) && *created != Some(channel.created)
    }

    /// Who of those that the spec names has been invited.
    pub fn invited(&self) -> Vec<String> {
        let Recorded { before, now } = &*self.recorded.lock();
        let wanted = self.desired.wanted.keys();
        wanted
            .filter(|entry| before.contains(*entry) || now.contains(*entry))
            .cloned()
            .collect()
    }

    async fn invite(&self, permit: &WritePermit<'_>, entry: &str, ids: &Ids) -> Result<()> {
        let (id, shared) = (self.channel.id(ids)?, &self.channel.shared);
        let bot = &shared.sight()?.bot;
        let user = if entry.contains('@') {
            let user = bot.user_by_email(entry, shared.options.priority).await?;
            user.ok_or_else(|| {
                let message = format!(
                    "nobody in the workspace has the address {entry}: correct spec.invite, or invite that person to the workspace first"
                );
                Error::new(Class::Rejected, message)
            })?
        } else {
            entry.to_owned()
        };
        let (form, done) = ([("users", &*user)], Some("already_in_channel"));
        // How many are in it then only Slack knows.
        let invited = |channel: &mut client::Channel| channel.members = None;
        let invited = shared.write(permit, id, &form, done, invited).await;
        invited.map_err(|error| Error {
            message: format!("inviting {entry}: {}", error.message),
            ..error
        })?;
        self.recorded.lock().now.insert(entry.to_owned());
        Ok(())
    }
}

impl Stage for Invitations {
    const NAME: &'static str = "invitation";
    const NEEDS: &'static [&'static str] = &[Channel::NAME, Member::NAME];
    type Key = String;
    type Value = Invitation;
    type Id = ();
    type Live = ();

    fn endpoint(&self) -> &str {
        &self.channel.shared.endpoint
    }

    fn desired(&self) -> &Desired<String, Invitation> {
        &self.desired
    }

    async fn observe(&self, ids: &Ids) -> Result<Seen<Self>> {
        if self.desired.wanted.is_empty() {
            return Ok(Seen::<Self>::default());
        }
        let sighting = self.channel.look(ids).await?;
        let is_new = ids.is_new::<Channel>(&self.channel.name);
        if is_new || sighting.ours().is_some_and(|it| self.is_another(it)) {
            self.recorded.lock().before.clear();
        }
        if sighting.is_anothers() {
            // Nobody is invited to what somebody else has, which is told already.
            return Ok(Seen::<Self> {
                unknown: self.desired.wanted.keys().cloned().collect(),
                ..Seen::<Self>::default()
            });
        }
        let invited = self.invited().into_iter();
        Ok(invited.map(|entry| (entry, ours((), Invitation))).collect())
    }

    fn ready(&self, change: &ChangeOf<Self>, ids: &Ids) -> Result<()> {
        self.channel.within(ids)?;
        let shared = &self.channel.shared;
        if change.key().contains('@') {
            shared.may_now(&[&["users:read.email"]])?;
        }
        shared.manages("channels:write.invites", "groups:write.invites")
    }

    fn operation(&self, _: &ChangeOf<Self>) -> Operation<'_> {
        self.channel.shared.operation("slack:conversations.invite")
    }

    async fn apply(
        &self,
        permit: &WritePermit<'_>,
        change: &ChangeOf<Self>,
        ids: &Ids,
    ) -> ResultOf<Self> {
        self.invite(permit, change.key(), ids).await.map(|()| None)
    }
}
