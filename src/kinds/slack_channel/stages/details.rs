//! The channel's name, topic and purpose.

use super::{Channel, Declared, Member, ours};
use crate::{
    clients::slack::api,
    engine::{
        error::Result,
        gate::{Operation, WritePermit},
        plan::{Change, Desired},
        stage::{ChangeOf, Ids, ResultOf, Seen, Stage},
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

    async fn set(&self, id: &str, detail: Detail, text: &Text) -> Result<()> {
        let (shared, Text(text)) = (&self.channel.shared, text);
        let bot = &shared.sight()?.bot;
        let set = match detail {
            Detail::Name => bot.rename(id, text).await.map(drop),
            Detail::Topic => bot.set_topic(id, text).await,
            Detail::Purpose => bot.set_purpose(id, text).await,
        };
        shared.note(id, method(detail), set, |channel| {
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

    fn endpoint(&self) -> &str {
        &self.channel.shared.endpoint
    }

    fn desired(&self) -> &Desired<Detail, Text> {
        &self.desired
    }

    async fn observe(&self, ids: &Ids) -> Result<Seen<Self>> {
        let mut seen = Seen::<Self>::default();
        if self.desired.wanted.is_empty() {
            return Ok(seen);
        }
        let sighting = self.channel.look(ids).await?;
        for detail in self.desired.wanted.keys().copied() {
            let (channel, text) = match (sighting.ours(), detail) {
                // It gets its name when it is made; what is archived, or somebody else's, is told already.
                (None, Detail::Name) => (None, None),
                (None, _) if sighting.is_anothers() => (None, None),
                (None, _) => continue,
                (Some(channel), _) if channel.is_archived => (None, None),
                (Some(channel), Detail::Name) => (Some(channel), Some(&channel.name)),
                (Some(channel), Detail::Topic) => (Some(channel), Some(&channel.topic)),
                (Some(channel), Detail::Purpose) => (Some(channel), Some(&channel.purpose)),
            };
            match channel.zip(text) {
                Some((channel, text)) => {
                    let found = ours(channel.id.clone(), Text(text.clone()));
                    seen.found.insert(detail, found);
                }
                None => drop(seen.unknown.insert(detail)),
            }
        }
        Ok(seen)
    }

    fn ready(&self, change: &ChangeOf<Self>, ids: &Ids) -> Result<()> {
        self.channel.within(ids)?;
        let shared = &self.channel.shared;
        match change.key() {
            Detail::Name => shared.manages("channels:write", "groups:write")?,
            Detail::Topic | Detail::Purpose => {
                shared.manages("channels:write.topic", "groups:write.topic")?;
            }
        }
        shared.not_before(self.operation(change).api)
    }

    fn operation(&self, change: &ChangeOf<Self>) -> Operation<'_> {
        self.channel.shared.operation(method(*change.key()))
    }

    async fn apply(
        &self,
        _: &WritePermit<'_>,
        change: &ChangeOf<Self>,
        ids: &Ids,
    ) -> ResultOf<Self> {
        match change {
            Change::Create { key, to } => self.set(self.channel.id(ids)?, *key, to).await?,
            Change::Update { key, ours, to, .. } => self.set(ours.id(), *key, to).await?,
            Change::Delete { .. } => {}
        }
        Ok(None)
    }
}
