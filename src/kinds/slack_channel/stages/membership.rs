//! That the bot is in the channel.

use super::{Channel, Declared, ours};
use crate::{
    clients::slack as client,
    engine::{
        error::Result,
        gate::{Operation, WritePermit},
        plan::{Change, Desired},
        stage::{ChangeOf, Ids, ResultOf, Seen, Stage},
    },
    kinds::slack_channel::desired::Membership,
};

/// The one key: there is one bot.
const BOT: &str = "bot";

/// That the bot is in the channel: it can change nothing from without.
pub struct Member {
    desired: Desired<String, Membership>,
    channel: Declared,
}

impl Member {
    /// The stage of one object.
    pub fn new(channel: Declared) -> Self {
        Self {
            desired: Desired {
                wanted: [(BOT.to_owned(), Membership(true))].into(),
                ..Desired::default()
            },
            channel,
        }
    }
}

impl Stage for Member {
    const NAME: &'static str = "membership";
    const NEEDS: &'static [&'static str] = &[Channel::NAME];
    type Key = String;
    type Value = Membership;
    type Id = String;
    type Live = ();

    fn endpoint(&self) -> &str {
        &self.channel.shared.endpoint
    }

    fn desired(&self) -> &Desired<String, Membership> {
        &self.desired
    }

    async fn observe(&self, ids: &Ids) -> Result<Seen<Self>> {
        let sighting = self.channel.look(ids).await?;
        let channel = sighting.ours().filter(|channel| !channel.is_archived);
        let mut seen = Seen::<Self>::default();
        match channel {
            Some(channel) => {
                let found = ours(channel.id.clone(), Membership(channel.is_member));
                seen.found.insert(BOT.to_owned(), found);
            }
            // Who makes a channel is in it.
            None => drop(seen.unknown.insert(BOT.to_owned())),
        }
        Ok(seen)
    }

    fn ready(&self, _: &ChangeOf<Self>, _: &Ids) -> Result<()> {
        self.channel.shared.may_now(&[&["channels:join"]])
    }

    fn operation(&self, _: &ChangeOf<Self>) -> Operation<'_> {
        self.channel.shared.operation("slack:conversations.join")
    }

    async fn apply(
        &self,
        permit: &WritePermit<'_>,
        change: &ChangeOf<Self>,
        _: &Ids,
    ) -> ResultOf<Self> {
        if let Change::Update { ours, .. } = change {
            let shared = &self.channel.shared;
            let joined = |channel: &mut client::Channel| channel.is_member = true;
            shared.write(permit, ours.id(), &[], None, joined).await?;
        }
        Ok(None)
    }
}
