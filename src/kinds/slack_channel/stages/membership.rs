//! That the bot is in the channel.

use super::{Channel, Declared, ours};
use crate::{
    clients::slack::api,
    engine::{
        error::Result,
        plan::{Change, Desired},
        stage::{Applied, ChangeOf, Ids, Operation, Seen, Stage},
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

    async fn join(&self, id: &str) -> Result<Applied> {
        let ground = &self.channel.ground;
        let joined = ground.sight()?.bot.join(id).await;
        ground.note(id, api::JOIN, joined, |channel| channel.is_member = true)
    }
}

impl Stage for Member {
    const NAME: &'static str = "membership";
    const NEEDS: &'static [&'static str] = &[Channel::NAME];
    type Key = String;
    type Value = Membership;
    type Id = String;
    type Live = ();

    fn scope(&self) -> &str {
        &self.channel.ground.scope
    }

    fn desired(&self) -> &Desired<String, Membership> {
        &self.desired
    }

    async fn observe(&self, ids: &Ids) -> Result<Seen<Self>> {
        let sighting = self.channel.look(ids).await?;
        let channel = sighting.ours().filter(|channel| !channel.is_archived);
        let id = channel.map(|channel| channel.id.clone());
        // Who makes a channel is in it.
        let membership = Membership(channel.is_none_or(|channel| channel.is_member));
        let found = ours(id.unwrap_or_default(), membership);
        Ok([(BOT.to_owned(), found)].into())
    }

    fn ready(&self, change: &ChangeOf<Self>, _: &Ids) -> Result<()> {
        let ground = &self.channel.ground;
        ground.may_now(&[&["channels:join"]])?;
        ground.not_before(self.operation(change).api)
    }

    fn operation(&self, _: &ChangeOf<Self>) -> Operation<'_> {
        self.channel.ground.operation(api::JOIN)
    }

    async fn apply(&self, changes: &[ChangeOf<Self>], _: &Ids) -> Vec<Result<Applied>> {
        let mut outcomes = Vec::with_capacity(changes.len());
        for change in changes {
            if let Change::Update { ours, .. } = change {
                outcomes.push(self.join(ours.id()).await);
            }
        }
        outcomes
    }
}
