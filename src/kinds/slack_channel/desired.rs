//! From a SlackChannel to what should be in Slack, and which channel there is meant. Pure.

use crate::{
    api::{AdoptionPolicy, Creating, SlackChannel, StoredText, Visibility},
    clients::slack::{Channel, plain},
    engine::{
        error::{Class, Error},
        plan::{Desired, Value},
    },
};
use regex::Regex;
use std::{collections::BTreeMap, fmt, sync::LazyLock};

/// A channel's configuration, as far as the bot need not be in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Who can see it.
    pub visibility: Visibility,
    /// Whether nothing can be written into it any more.
    pub archived: bool,
}

impl Configuration {
    /// Of a channel that was seen.
    pub fn of(channel: &Channel) -> Self {
        Self {
            visibility: if channel.is_private {
                Visibility::Private
            } else {
                Visibility::Public
            },
            archived: channel.is_archived,
        }
    }
}

impl Value for Configuration {
    fn fields(&self) -> Vec<(&'static str, String)> {
        let archived = if self.archived { "yes" } else { "" };
        let visibility = format!("{:?}", self.visibility);
        vec![("visibility", visibility), ("archived", archived.into())]
    }
}

/// Whether the bot is in the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership(pub bool);

impl Value for Membership {
    fn fields(&self) -> Vec<(&'static str, String)> {
        let member = if self.0 { "yes" } else { "no" };
        vec![("member", member.into())]
    }
}

/// What the bot can change of a channel that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// What it is called.
    Name,
    /// What stands at its head.
    Topic,
    /// What it is for.
    Purpose,
}

/// As Slack's methods call it.
impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "name",
            Self::Topic => "topic",
            Self::Purpose => "purpose",
        })
    }
}

/// Such a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// As people write it, or as Slack has it.
    pub text: String,
    /// What Slack made of it when it was written; `None` where that is not known. Known only of what is to be.
    pub stored: Option<String>,
}

impl Text {
    /// One of which nothing more is known.
    pub fn of(text: String) -> Self {
        Self { text, stored: None }
    }
}

/// An emoji, as it is or written out: Slack turns a 🔥 into `:fire:`. Symbols, their variants and what joins them;
/// letters of all languages are none.
#[expect(clippy::expect_used, reason = "a constant")]
static EMOJI: LazyLock<Regex> = LazyLock::new(|| {
    let emoji =
        ":[0-9]*[a-z_+-][a-z0-9_+-]*:|[\u{200d}\u{2190}-\u{2bff}\u{fe0f}\u{1f000}-\u{1faff}]";
    Regex::new(emoji).expect("a pattern")
});

/// A text, but for how its words are spaced.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Value for Text {
    fn is_satisfied_by(&self, seen: &Self) -> bool {
        // Slack takes what looks like an address for one, and answers with markup.
        let words_of = |text: &str| words(&plain(text));
        let (wanted, seen) = (words_of(&self.text), words_of(&seen.text));
        if let Some(stored) = &self.stored {
            return words_of(stored) == seen;
        }
        let spoken = |text: &str| words(&EMOJI.replace_all(text, " "));
        wanted == seen || spoken(&wanted) != wanted && spoken(&wanted) == spoken(&seen)
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![("text", self.text.clone())]
    }
}

/// That somebody has been invited. There is nothing more to it: who leaves has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invitation;

impl Value for Invitation {
    fn is_satisfied_by(&self, _: &Self) -> bool {
        true
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// Whether messages can be posted by a webhook; why not, if not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookHealth(pub Result<(), String>);

impl Value for WebhookHealth {
    fn is_satisfied_by(&self, seen: &Self) -> bool {
        self.0.is_ok() == seen.0.is_ok()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let takes = self.0.as_ref().err();
        vec![("takes messages", takes.map_or("yes", |_| "no").into())]
    }
}

/// The channel that a spec asks for, by its name.
pub fn channel(object: &SlackChannel) -> Desired<String, Configuration> {
    let configuration = Configuration {
        visibility: object.spec.visibility,
        archived: false,
    };
    let name = object.spec.channel.clone();
    Desired {
        wanted: name.map(|name| (name, configuration)).into_iter().collect(),
        adoption: object.spec.adoption_policy.into(),
        ..Desired::default()
    }
}

/// The details that a spec asks for. `stored` is what Slack made of the texts that were written.
pub fn details(object: &SlackChannel, stored: &[StoredText]) -> Desired<Detail, Text> {
    let asked = [
        (Detail::Name, &object.spec.channel),
        (Detail::Topic, &object.spec.topic),
        (Detail::Purpose, &object.spec.purpose),
    ];
    let wanted = asked.into_iter().filter_map(|(about, text)| {
        let text = text.clone()?;
        let mut known = stored.iter();
        let known = known.find(|it| it.about == about.to_string() && it.text == text);
        let stored = known.map(|it| it.stored.clone());
        Some((about, Text { text, stored }))
    });
    Desired {
        wanted: wanted.collect(),
        ..Desired::default()
    }
}

/// Whom a spec invites.
pub fn invitations(object: &SlackChannel) -> Desired<String, Invitation> {
    let asked = object.spec.invite.iter();
    Desired {
        wanted: asked.map(|entry| (entry.clone(), Invitation)).collect(),
        ..Desired::default()
    }
}

/// By what an object selects its channel.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    /// What the spec calls it; `None` where the object is being deleted.
    pub name: Option<String>,
    /// Slack's id of it, if it has been made or found.
    pub id: Option<String>,
    /// When it was made.
    pub created: Option<i64>,
    /// That it was about to be made.
    pub creating: Option<Creating>,
    /// What is done about one that is there already.
    pub adoption: AdoptionPolicy,
    /// Who else looks after channels, for people, by the channels' ids.
    pub elsewhere: BTreeMap<String, String>,
    /// Whether only those can see it who were invited.
    pub private: bool,
}

/// Which channel is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelMatch<'a> {
    /// This one, and it is ours to look after.
    Ours(&'a Channel),
    /// This one has the name, and it is not ours.
    Taken(&'a Channel),
    /// None: it is to be made.
    None,
    /// One that cannot be seen any more, and is not to be made twice.
    Lost,
}

/// How far the clocks of Slack and of this cluster may be apart.
const SKEW: i64 = 300;

impl Selector {
    /// The names by which it is looked for: as the spec has it, and as it was about to be made.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let creating = self.creating.as_ref().map(|creating| &creating.channel);
        let names = self.name.iter().chain(creating);
        names.map(String::as_str)
    }

    /// Which channel is meant, of the one with the id and those with the names. `bot` is who we are in Slack.
    pub fn select<'a>(
        &self,
        bot: &str,
        by_id: Option<&'a Channel>,
        by_name: &[&'a Channel],
    ) -> ChannelMatch<'a> {
        // Once archived it keeps its name, and nobody can rename it: another name asks for another channel.
        let left_behind = |channel: &Channel| {
            channel.is_archived && self.name.as_ref().is_some_and(|name| *name != channel.name)
        };
        if let Some(channel) = by_id.filter(|channel| !left_behind(channel)) {
            // Whoever may write status may write any id there: archiving takes more than that.
            let may_archive = channel.creator == bot || self.adoption != AdoptionPolicy::Never;
            return match &self.name {
                None if !may_archive => ChannelMatch::Taken(channel),
                _ => ChannelMatch::Ours(channel),
            };
        }
        let elsewhere = |channel: &Channel| self.elsewhere.contains_key(&channel.id);
        // Slack gives a channel another id when it changes what it is, and keeps when it was made.
        let renumbered = |named: &Channel| {
            self.id.is_some() && by_id.is_none() && self.created == Some(named.created)
        };
        let made = |named: &Channel| {
            self.creating.as_ref().is_some_and(|creating| {
                creating.channel == named.name
                    && named.creator == bot
                    && named.created >= creating.since - SKEW
                    && !named.is_archived
            })
        };
        // Its mark: what our bot has made is ours, whatever became of the object that wanted it.
        let created = |named: &Channel| {
            self.name.as_ref() == Some(&named.name) && !bot.is_empty() && named.creator == bot
        };
        let mut ours = by_name.iter().filter(|named| !elsewhere(named));
        if let Some(named) = ours.find(|named| renumbered(named) || created(named) || made(named)) {
            return ChannelMatch::Ours(named);
        }
        let mut named = by_name.iter();
        let Some(named) = named.find(|named| self.name.as_ref() == Some(&named.name)) else {
            // Nothing is wanted, or nothing has the name.
            let lost = self.id.is_some() && by_id.is_none();
            return if lost && self.private {
                ChannelMatch::Lost
            } else {
                ChannelMatch::None
            };
        };
        if self.adoption != AdoptionPolicy::Never && !elsewhere(named) {
            ChannelMatch::Ours(named)
        } else {
            ChannelMatch::Taken(named)
        }
    }
}

/// Why nobody but a person can bring a channel from one configuration to the other, if so.
pub fn unsupported_change(name: &str, from: &Configuration, to: &Configuration) -> Option<Error> {
    let message = if from.archived {
        format!(
            "channel {name} is archived, and a bot cannot undo that: unarchive it in Slack and invite the bot, or give spec.channel another name"
        )
    } else if from.visibility != to.visibility {
        format!(
            "channel {name} is {:?} and spec.visibility is {:?}: only a person can convert it; convert it in Slack, or choose another channel",
            from.visibility, to.visibility
        )
    } else {
        return None;
    };
    Some(Error::new(Class::Rejected, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(id: &str, name: &str) -> Channel {
        Channel {
            id: id.into(),
            name: name.into(),
            is_private: false,
            is_archived: false,
            is_member: true,
            creator: "UBOT".into(),
            created: 1000,
            topic: String::new(),
            purpose: String::new(),
            members: None,
        }
    }

    fn selector() -> Selector {
        Selector {
            name: Some("alerts".into()),
            ..Selector::default()
        }
    }

    #[test]
    fn the_channel_that_is_meant() {
        let mine = seen("C1", "alerts");
        let renamed = seen("C1", "alarms");
        let archived = Channel {
            is_archived: true,
            ..renamed.clone()
        };
        let other = Channel {
            created: 2000,
            creator: "UANN".into(),
            ..seen("C2", "alerts")
        };
        let moved = seen("C3", "alerts");
        let known = Selector {
            id: Some("C1".into()),
            created: Some(1000),
            ..selector()
        };
        let private = Selector {
            private: true,
            ..known.clone()
        };
        let adopting = Selector {
            adoption: AdoptionPolicy::IfExists,
            ..selector()
        };
        let taken = Selector {
            elsewhere: [("C2".to_owned(), "SlackChannel ns/b".to_owned())].into(),
            ..adopting.clone()
        };
        let going = Selector {
            name: None,
            ..known.clone()
        };
        for (what, selector, by_id, by_name, expected) in [
            (
                "by its id",
                &known,
                Some(&mine),
                Some(&mine),
                ChannelMatch::Ours(&mine),
            ),
            (
                "renamed by a person",
                &known,
                Some(&renamed),
                None,
                ChannelMatch::Ours(&renamed),
            ),
            (
                "archived, and another is asked for",
                &known,
                Some(&archived),
                None,
                ChannelMatch::None,
            ),
            (
                "archived, and another takes the name",
                &known,
                Some(&archived),
                Some(&other),
                ChannelMatch::Taken(&other),
            ),
            (
                "with another id",
                &known,
                None,
                Some(&moved),
                ChannelMatch::Ours(&moved),
            ),
            (
                "deleted, and its name taken",
                &known,
                None,
                Some(&other),
                ChannelMatch::Taken(&other),
            ),
            ("deleted", &known, None, None, ChannelMatch::None),
            (
                "private and out of sight",
                &private,
                None,
                None,
                ChannelMatch::Lost,
            ),
            ("new", &selector(), None, None, ChannelMatch::None),
            (
                "made by us for an object that is not there any more",
                &selector(),
                None,
                Some(&mine),
                ChannelMatch::Ours(&mine),
            ),
            (
                "somebody's",
                &selector(),
                None,
                Some(&other),
                ChannelMatch::Taken(&other),
            ),
            (
                "adopted",
                &adopting,
                None,
                Some(&other),
                ChannelMatch::Ours(&other),
            ),
            (
                "another object's",
                &taken,
                None,
                Some(&other),
                ChannelMatch::Taken(&other),
            ),
            (
                "going",
                &going,
                Some(&mine),
                None,
                ChannelMatch::Ours(&mine),
            ),
            ("gone", &going, None, Some(&other), ChannelMatch::None),
            (
                "going, by an id of what people made",
                &going,
                Some(&other),
                None,
                ChannelMatch::Taken(&other),
            ),
            (
                "going, and adopted",
                &Selector {
                    adoption: AdoptionPolicy::IfExists,
                    ..going.clone()
                },
                Some(&other),
                None,
                ChannelMatch::Ours(&other),
            ),
        ] {
            assert_eq!(
                selector.select("UBOT", by_id, by_name.as_slice()),
                expected,
                "{what}"
            );
        }
    }

    /// The answer to a create may be lost; by what was noted before it the channel is known again.
    #[test]
    fn what_we_were_about_to_make_or_have_made_is_ours_and_nothing_else() {
        let creating = |since: i64| Selector {
            creating: Some(Creating {
                channel: "alerts".into(),
                since,
            }),
            ..selector()
        };
        let mine = seen("C1", "alerts");
        let by_hand = Channel {
            creator: "UANN".into(),
            ..mine.clone()
        };
        let other = seen("C1", "other");
        for (selector, named, ours) in [
            (creating(1000), &mine, true),
            (creating(1000 + SKEW), &mine, true),
            (creating(1000), &by_hand, false),
            (creating(1000), &other, false),
        ] {
            let selection = selector.select("UBOT", None, &[named]);
            assert_eq!(
                selection == ChannelMatch::Ours(named),
                ours,
                "{selector:?} {named:?}"
            );
        }
        let taken = Selector {
            elsewhere: [("C1".to_owned(), "SlackChannel ns/b".to_owned())].into(),
            ..creating(1000)
        };
        assert_eq!(
            taken.select("UBOT", None, &[&mine]),
            ChannelMatch::Taken(&mine)
        );
        // Of that name, but made by somebody else before that.
        let late = Selector {
            name: Some("alarms".into()),
            ..creating(1001 + SKEW)
        };
        assert_eq!(late.select("UBOT", None, &[&mine]), ChannelMatch::None);
        // Another name was asked for before anybody knew what had become of the first.
        let renamed = Selector {
            name: Some("alarms".into()),
            ..creating(1000)
        };
        assert_eq!(renamed.names().collect::<Vec<_>>(), ["alarms", "alerts"]);
        assert_eq!(
            renamed.select("UBOT", None, &[&mine]),
            ChannelMatch::Ours(&mine)
        );
        assert_eq!(
            renamed.select("UBOT", None, &[&by_hand]),
            ChannelMatch::None
        );
        let going = Selector {
            name: None,
            ..creating(1000)
        };
        assert_eq!(going.names().collect::<Vec<_>>(), ["alerts"]);
        assert_eq!(
            going.select("UBOT", None, &[&mine]),
            ChannelMatch::Ours(&mine)
        );
    }

    #[test]
    fn texts_are_the_same_however_slack_writes_them() {
        for (wanted, seen, same) in [
            ("Runs of VSU", "Runs of VSU", true),
            ("a < b & c", "a &lt; b &amp; c", true),
            ("see https://a.example", "see <https://a.example>", true),
            ("of  the\nweek ", "of the week", true),
            ("a", "b", false),
            ("on fire 🔥", "on fire :fire:", true),
            ("🔥 on ✅ fire", ":fire: on :white_check_mark: fire", true),
            ("on fire 🔥", "on fire", true),
            ("on🔥fire", "on:fire:fire", true),
            ("on fire", "on fire :fire:", false),
            ("at 10:30:15", "at 10:30:15", true),
            ("at 10:30:15", "at 10:45:15", false),
            ("a 🔥", "b :fire:", false),
        ] {
            let (wanted, seen) = (Text::of(wanted.into()), Text::of(seen.into()));
            assert_eq!(wanted.is_satisfied_by(&seen), same, "{wanted:?} {seen:?}");
        }
    }

    #[test]
    fn what_only_a_person_can_do_is_said() {
        let channel = |visibility, archived| Configuration {
            visibility,
            archived,
        };
        let wanted = channel(Visibility::Public, false);
        let told = |from| unsupported_change("alerts", &from, &wanted).map(|error| error.message);
        assert_eq!(told(wanted.clone()), None);
        let archived = told(channel(Visibility::Public, true)).unwrap();
        assert!(archived.contains("unarchive it in Slack"), "{archived}");
        let private = told(channel(Visibility::Private, false)).unwrap();
        assert!(
            private.contains("only a person can convert it"),
            "{private}"
        );
    }
}
