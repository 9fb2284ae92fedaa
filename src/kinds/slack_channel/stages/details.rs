//! The channel's name, topic and purpose.

use super::{Channel, Declared, Member, ours};
use crate::{
    clients::slack::api,
    engine::{
        error::Result,
        plan::{Change, Desired},
        stage::{Applied, ChangeOf, Ids, Operation, Seen, Stage},
    },
    kinds::slack_channel::desired::{Detail, Text},
};

/// The channel's name, topic and purpose: what takes a bot that is in it.
pub struct Details {
    desired: Desired<Detail, Text>,
    channel: Declared,
}

/// The method that changes it.
fn method(detail: Detail) -> &'static str {
    match detail {
        Detail::Name => api::RENAME,
        Detail::Topic => api::SET_TOPIC,
        Detail::Purpose => api::SET_PURPOSE,
    }
}

impl Details {
    /// The stage of one object.
    pub fn new(desired: Desired<Detail, Text>, channel: Declared) -> Self {
        Self { desired, channel }
    }

    async fn set(&self, id: &str, detail: Detail, text: &Text) -> Result<Applied> {
        let (ground, Text(text)) = (&self.channel.ground, text);
        let bot = &ground.sight()?.bot;
        let set = match detail {
            Detail::Name => bot.rename(id, text).await.map(drop),
            Detail::Topic => bot.set_topic(id, text).await,
            Detail::Purpose => bot.set_purpose(id, text).await,
        };
        ground.note(id, method(detail), set, |channel| {
            let changed = match detail {
                Detail::Name => &mut channel.name,
                Detail::Topic => &mut channel.topic,
                Detail::Purpose => &mut channel.purpose,
            };
            text.clone_into(changed);
        })
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
        &self.channel.ground.scope
    }

    fn desired(&self) -> &Desired<Detail, Text> {
        &self.desired
    }

    async fn observe(&self, ids: &Ids) -> Result<Seen<Self>> {
        let mut seen = Seen::<Self>::new();
        if self.desired.wanted.is_empty() {
            return Ok(seen);
        }
        let sighting = self.channel.look(ids).await?;
        let id = sighting.ours().map(|channel| channel.id.clone());
        let id = id.unwrap_or_default();
        for (detail, wanted) in &self.desired.wanted {
            let text = match (sighting.ours(), detail) {
                // It gets its name when it is made, and what is archived is told already.
                (None, Detail::Name) => wanted,
                // Nor is anything done to what somebody else has, which is told as well.
                (None, _) if sighting.is_anothers() => wanted,
                (None, _) => continue,
                (Some(channel), _) if channel.is_archived => wanted,
                (Some(channel), Detail::Name) => &Text(channel.name.clone()),
                (Some(channel), Detail::Topic) => &Text(channel.topic.clone()),
                (Some(channel), Detail::Purpose) => &Text(channel.purpose.clone()),
            };
            seen.insert(*detail, ours(id.clone(), text.clone()));
        }
        Ok(seen)
    }

    fn ready(&self, change: &ChangeOf<Self>, ids: &Ids) -> Result<()> {
        self.channel.within(ids)?;
        let ground = &self.channel.ground;
        match change.key() {
            Detail::Name => ground.manages("channels:write", "groups:write")?,
            Detail::Topic | Detail::Purpose => {
                ground.manages("channels:write.topic", "groups:write.topic")?;
            }
        }
        ground.not_before(self.operation(change).api)
    }

    fn operation(&self, change: &ChangeOf<Self>) -> Operation<'_> {
        self.channel.ground.operation(method(*change.key()))
    }

    async fn apply(&self, changes: &[ChangeOf<Self>], ids: &Ids) -> Vec<Result<Applied>> {
        let mut outcomes = Vec::with_capacity(changes.len());
        for change in changes {
            outcomes.push(match change {
                Change::Create { key, to } => match self.channel.id(ids) {
                    Ok(id) => self.set(id, *key, to).await,
                    Err(error) => Err(error),
                },
                Change::Update { key, ours, to, .. } => self.set(ours.id(), *key, to).await,
                Change::Delete { .. } | Change::Conflict { .. } => continue,
            });
        }
        outcomes
    }
}
