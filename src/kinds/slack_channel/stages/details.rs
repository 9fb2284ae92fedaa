//! The channel's name, topic and purpose.

use super::{Channel, Declared, Member, ours};
use crate::{
    clients::slack as client,
    engine::{
        error::Result,
        gate::{Operation, WritePermit},
        plan::{Change, Desired, Value as _},
        stage::{ChangeOf, Ids, ResultOf, Seen, Stage},
    },
    kinds::slack_channel::{
        desired::{Detail, Text},
        workspace::ChannelKey,
    },
};

/// The channel's name, topic and purpose: what takes a bot that is in it.
pub struct Details {
    /// What should be there.
    pub desired: Desired<Detail, Text>,
    channel: Declared,
}

/// The method that changes it.
fn method(detail: Detail) -> &'static str {
    match detail {
        Detail::Name => "slack:conversations.rename",
        Detail::Topic => "slack:conversations.setTopic",
        Detail::Purpose => "slack:conversations.setPurpose",
    }
}

fn in_channel(detail: Detail, channel: &mut client::Channel) -> &mut String {
    match detail {
        Detail::Name => &mut channel.name,
        Detail::Topic => &mut channel.topic,
        Detail::Purpose => &mut channel.purpose,
    }
}

impl Details {
    /// The stage of one object.
    pub fn new(desired: Desired<Detail, Text>, channel: Declared) -> Self {
        Self { desired, channel }
    }

    /// What Slack has made of a text: as status says, or as it is seen first. `None` where something else stands there.
    pub fn stored(&self, detail: Detail, seen: &Seen<Self>) -> Option<String> {
        let wanted = self.desired.wanted.get(&detail)?;
        wanted.stored.clone().or_else(|| {
            let seen = &seen.get(&detail)?.value;
            wanted.is_satisfied_by(seen).then(|| seen.text.clone())
        })
    }

    async fn set(
        &self,
        permit: &WritePermit<'_>,
        id: &str,
        detail: Detail,
        text: &Text,
    ) -> Result<()> {
        let (shared, text) = (&self.channel.shared, &text.text);
        let form = [(&*detail.to_string(), text.as_str())];
        let now = |channel: &mut client::Channel| text.clone_into(in_channel(detail, channel));
        shared.write(permit, id, &form, None, now).await?;
        if detail != Detail::Name {
            // What Slack has made of it is read at once, before anybody else writes there.
            shared.sight()?.channels.invalidate(ChannelKey::id(id));
        }
        Ok(())
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
            match sighting.ours() {
                Some(channel) if !channel.is_archived => {
                    let text = in_channel(detail, &mut channel.clone()).clone();
                    let found = ours(channel.id.clone(), Text::of(text));
                    seen.found.insert(detail, found);
                }
                // It gets its name when it is made.
                None if detail != Detail::Name && !sighting.is_anothers() => {}
                // What is archived, or somebody else's, is told already.
                _ => drop(seen.unknown.insert(detail)),
            }
        }
        Ok(seen)
    }

    fn ready(&self, change: &ChangeOf<Self>, ids: &Ids) -> Result<()> {
        self.channel.within(ids)?;
        let shared = &self.channel.shared;
        match change.key() {
            Detail::Name => shared.manages("channels:write", "groups:write"),
            Detail::Topic | Detail::Purpose => {
                shared.manages("channels:write.topic", "groups:write.topic")
            }
        }
    }

    fn operation(&self, change: &ChangeOf<Self>) -> Operation<'_> {
        self.channel.shared.operation(method(*change.key()))
    }

    async fn apply(
        &self,
        permit: &WritePermit<'_>,
        change: &ChangeOf<Self>,
        ids: &Ids,
    ) -> ResultOf<Self> {
        match change {
            Change::Create { key, to } => {
                self.set(permit, self.channel.id(ids)?, *key, to).await?;
            }
            Change::Update { key, ours, to, .. } => {
                self.set(permit, ours.id(), *key, to).await?;
            }
            Change::Delete { .. } => {}
        }
        Ok(None)
    }
}
