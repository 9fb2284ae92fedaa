//! What Slack holds: workspaces with their people, bots, channels, messages and webhooks. Pure state; the rules are in
//! `conversations.rs`, `chat.rs` and `people.rs`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// A channel as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Channel {
    /// `C…`; [`super::Workspace::change_id`] makes it another.
    pub id: String,
    /// Without the `#`.
    pub name: String,
    /// Seen by its members alone.
    pub is_private: bool,
    /// Archived channels keep their names.
    pub is_archived: bool,
    /// The channel that every workspace has and nobody can archive.
    pub is_general: bool,
    /// When it was made.
    pub created: Timestamp,
    /// The user who made it, bot or person: `U…`.
    pub creator: String,
    /// As people see it; the API gives it back with `&`, `<` and `>` escaped.
    pub topic: String,
    /// Like the topic.
    pub purpose: String,
    /// Who is in it, bots and people: `U…`.
    pub members: BTreeSet<String>,
}

/// Who posted a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum By {
    /// A bot with its token; its user, `U…`.
    Bot(String),
    /// An incoming webhook, `B…`.
    Webhook(String),
}

/// What a message said before it was edited.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Edit {
    /// When it was replaced.
    pub at: Timestamp,
    /// The text of before.
    pub text: String,
    /// The blocks of before.
    pub blocks: Vec<Value>,
    /// The attachments of before.
    pub attachments: Vec<Value>,
}

/// A message, exactly as it was received.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message {
    /// Its id within the channel: seconds and microseconds, `1763744628.000100`.
    pub ts: String,
    /// The message that it replies to.
    pub thread_ts: Option<String>,
    /// Who posted it.
    pub by: By,
    /// The name that people see at it.
    pub author: String,
    /// Empty where none was sent.
    pub text: String,
    /// Block Kit; empty where none was sent.
    pub blocks: Vec<Value>,
    /// With the blocks in them; empty where none were sent.
    pub attachments: Vec<Value>,
    /// `{event_type, event_payload}`.
    pub metadata: Option<Value>,
    /// Whether a reply was sent to the channel as well.
    pub broadcast: bool,
    /// When it was posted.
    pub at: Timestamp,
    /// What it said before, the oldest first.
    pub edits: Vec<Edit>,
}

/// Why a call was refused.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refused {
    pub(super) error: String,
    /// What stands beside the error in the answer.
    pub(super) more: Map<String, Value>,
}

impl Refused {
    pub(super) fn with(mut self, name: &str, value: Value) -> Self {
        self.more.insert(name.to_owned(), value);
        self
    }

    pub(super) fn explained(error: &str, messages: &[String]) -> Self {
        let messages: Vec<_> = messages
            .iter()
            .map(|each| format!("[ERROR] {each}"))
            .collect();
        Self::from(error).with("response_metadata", json!({ "messages": messages }))
    }
}

impl From<&str> for Refused {
    fn from(error: &str) -> Self {
        Self {
            error: error.to_owned(),
            more: Map::new(),
        }
    }
}

/// What stands beside `ok` in an answer.
pub(super) type Outcome = Result<Map<String, Value>, Refused>;

#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) id: String,
    pub(super) name: String,
    /// People have one.
    pub(super) email: Option<String>,
    pub(super) deactivated: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Token {
    /// `U…`
    pub(super) user: String,
    /// `B…`
    pub(super) bot: String,
    pub(super) scopes: BTreeSet<String>,
    /// The error that it is answered with, once it is no longer good.
    pub(super) dead: Option<&'static str>,
}

impl Token {
    pub(super) fn has(&self, any_of: &[&str]) -> bool {
        any_of.is_empty() || any_of.iter().any(|scope| self.scopes.contains(*scope))
    }

    pub(super) fn needs(&self, any_of: &[&str]) -> Result<(), Refused> {
        if self.has(any_of) {
            return Ok(());
        }
        Err(Refused::from("missing_scope")
            .with("needed", json!(any_of.join(",")))
            .with("provided", json!(self.provided())))
    }

    pub(super) fn provided(&self) -> String {
        let scopes: Vec<_> = self.scopes.iter().map(String::as_str).collect();
        scopes.join(",")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HookState {
    Alive,
    /// Deleted: Slack does not know it any more.
    Deleted,
    /// Its token is no longer good.
    Disabled,
}

#[derive(Clone, Debug)]
pub(super) struct Webhook {
    /// `B…`
    pub(super) id: String,
    /// The last part of its path.
    pub(super) secret: String,
    /// The room it posts to, whatever that is called now.
    pub(super) room: u64,
    pub(super) state: HookState,
}

/// A channel with what is in it.
#[derive(Clone, Debug)]
pub(super) struct Room {
    /// Its place in the order of creation, which a change of id leaves alone.
    pub(super) serial: u64,
    pub(super) channel: Channel,
    pub(super) topic_set: Option<(String, Timestamp)>,
    pub(super) purpose_set: Option<(String, Timestamp)>,
    pub(super) messages: Vec<Message>,
    last_ts: i64,
}

/// Where a listing goes on.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    /// The method and what it was asked for: a cursor is good for the same question only.
    pub(super) question: String,
    /// How many entries were handed out so far, by their place in the order.
    pub(super) after: u64,
    pub(super) page: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Team {
    /// `T…`
    pub(super) id: String,
    pub(super) name: String,
    /// The first label of its host name.
    pub(super) domain: String,
    /// The person who does what people do.
    pub(super) owner: String,
    pub(super) users: BTreeMap<String, User>,
    pub(super) tokens: BTreeMap<String, Token>,
    pub(super) rooms: Vec<Room>,
    pub(super) webhooks: Vec<Webhook>,
    pub(super) cursors: HashMap<String, Cursor>,
    serial: u64,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) teams: BTreeMap<String, Team>,
}

/// `prefix` and ten letters and digits, unlike any other.
pub(super) fn id(prefix: char) -> String {
    let rest = std::iter::repeat_with(|| fastrand::alphanumeric().to_ascii_uppercase()).take(10);
    std::iter::once(prefix).chain(rest).collect()
}

pub(super) fn random(length: usize) -> String {
    std::iter::repeat_with(fastrand::alphanumeric)
        .take(length)
        .collect()
}

fn digits(length: usize) -> String {
    let first = fastrand::char('1'..='9');
    let rest = std::iter::repeat_with(|| fastrand::char('0'..='9')).take(length.saturating_sub(1));
    std::iter::once(first).chain(rest).collect()
}

impl State {
    pub(super) fn team_named(&mut self, name: &str, now: Timestamp) -> String {
        if let Some(team) = self.teams.values().find(|team| team.name == name) {
            return team.id.clone();
        }
        let team = Team::new(name, now);
        let id = team.id.clone();
        self.teams.insert(id.clone(), team);
        id
    }

    /// Whose token it is.
    pub(super) fn holder(&self, token: &str) -> Option<(&Team, &Token)> {
        self.teams
            .values()
            .find_map(|team| Some((team, team.tokens.get(token)?)))
    }
}

impl Team {
    fn new(name: &str, now: Timestamp) -> Self {
        let keep = |c: char| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        };
        let domain: String = name.chars().map(keep).collect();
        let mut team = Self {
            id: id('T'),
            name: name.to_owned(),
            domain,
            owner: String::new(),
            users: BTreeMap::new(),
            tokens: BTreeMap::new(),
            rooms: Vec::new(),
            webhooks: Vec::new(),
            cursors: HashMap::new(),
            serial: 0,
        };
        team.owner = team.add_user(&format!("owner@{}.example", team.domain));
        let owner = team.owner.clone();
        let general = team.add_room("general", false, &owner, now);
        general.channel.is_general = true;
        team
    }

    pub(super) fn url(&self) -> String {
        format!("https://{}.slack.com/", self.domain)
    }

    pub(super) fn add_user(&mut self, email: &str) -> String {
        let user = User {
            id: id('U'),
            name: email.split('@').next().unwrap_or(email).to_owned(),
            email: Some(email.to_owned()),
            deactivated: false,
        };
        let id = user.id.clone();
        self.users.insert(id.clone(), user);
        id
    }

    /// A new app's bot and its token.
    pub(super) fn add_bot(&mut self, name: &str, scopes: BTreeSet<String>) -> String {
        let user = User {
            id: id('U'),
            name: name.to_owned(),
            email: None,
            deactivated: false,
        };
        let token = Token {
            user: user.id.clone(),
            bot: id('B'),
            scopes,
            dead: None,
        };
        self.users.insert(user.id.clone(), user);
        self.add_token(token)
    }

    pub(super) fn add_token(&mut self, token: Token) -> String {
        let text = format!("xoxb-{}-{}-{}", digits(12), digits(13), random(24));
        self.tokens.insert(text.clone(), token);
        text
    }

    pub(super) fn add_room(
        &mut self,
        name: &str,
        private: bool,
        creator: &str,
        now: Timestamp,
    ) -> &mut Room {
        self.serial += 1;
        let channel = Channel {
            id: id('C'),
            name: name.to_owned(),
            is_private: private,
            is_archived: false,
            is_general: false,
            created: now,
            creator: creator.to_owned(),
            topic: String::new(),
            purpose: String::new(),
            members: BTreeSet::from([creator.to_owned()]),
        };
        let place = self.rooms.len();
        self.rooms.push(Room {
            serial: self.serial,
            channel,
            topic_set: None,
            purpose_set: None,
            messages: Vec::new(),
            last_ts: 0,
        });
        &mut self.rooms[place]
    }

    /// By its id or its name.
    pub(super) fn room_called(&self, id_or_name: &str) -> Option<&Room> {
        let is_it = |room: &&Room| room.channel.id == id_or_name || room.channel.name == id_or_name;
        self.rooms.iter().find(is_it)
    }

    /// As [`Self::room_called`].
    pub(super) fn room_called_mut(&mut self, id_or_name: &str) -> Option<&mut Room> {
        let is_it =
            |room: &&mut Room| room.channel.id == id_or_name || room.channel.name == id_or_name;
        self.rooms.iter_mut().find(is_it)
    }

    pub(super) fn room(&self, id: &str) -> Option<&Room> {
        self.rooms.iter().find(|room| room.channel.id == id)
    }

    pub(super) fn room_by_serial(&mut self, serial: u64) -> Option<&mut Room> {
        self.rooms.iter_mut().find(|room| room.serial == serial)
    }

    /// What `user`'s bot may see: public channels, and the private ones that it is in. Others are as if they were not there.
    pub(super) fn visible(&mut self, user: &str, id: &str) -> Result<&mut Room, Refused> {
        self.rooms
            .iter_mut()
            .find(|room| room.channel.id == id && room.is_visible_to(user))
            .ok_or_else(|| "channel_not_found".into())
    }

    pub(super) fn is_bot(&self, user: &str) -> bool {
        self.users
            .get(user)
            .is_some_and(|user| user.email.is_none())
    }

    pub(super) fn name_of(&self, user: &str) -> String {
        self.users
            .get(user)
            .map_or_else(|| user.to_owned(), |user| user.name.clone())
    }
}

impl Room {
    pub(super) fn has(&self, user: &str) -> bool {
        self.channel.members.contains(user)
    }

    pub(super) fn is_visible_to(&self, user: &str) -> bool {
        !self.channel.is_private || self.has(user)
    }

    /// A ts that no message of the channel has had.
    pub(super) fn next_ts(&mut self, now: Timestamp) -> String {
        self.last_ts = now.as_microsecond().max(self.last_ts + 1);
        format!(
            "{}.{:06}",
            self.last_ts / 1_000_000,
            self.last_ts % 1_000_000
        )
    }

    /// As the API shows it to `viewer`.
    pub(super) fn shown(&self, viewer: &str, with_number: bool) -> Value {
        let Channel {
            id,
            name,
            is_private,
            is_archived,
            is_general,
            created,
            creator,
            topic,
            purpose,
            members,
        } = &self.channel;
        let said = |text: &str, set: &Option<(String, Timestamp)>| {
            let (who, when) = set
                .as_ref()
                .map_or(("", 0), |(who, when)| (who.as_str(), when.as_second()));
            json!({"value": escape(text), "creator": who, "last_set": when})
        };
        let mut shown = json!({
            "id": id, "name": name, "name_normalized": name, "is_channel": !is_private, "is_group": is_private, "is_im": false,
            "is_mpim": false, "is_private": is_private, "is_archived": is_archived, "is_general": is_general,
            "created": created.as_second(), "creator": creator, "is_shared": false, "is_org_shared": false, "is_ext_shared": false,
            "is_member": self.has(viewer), "topic": said(topic, &self.topic_set), "purpose": said(purpose, &self.purpose_set),
        });
        if with_number {
            shown["num_members"] = json!(members.len());
        }
        shown
    }
}

/// As the API gives back what people see.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// As people see what was sent.
pub(super) fn unescape(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_tokens_look_real_and_differ() {
        let mut state = State::default();
        let team = state.team_named("campus", Timestamp::UNIX_EPOCH);
        assert_eq!(state.team_named("campus", Timestamp::UNIX_EPOCH), team);
        let other = state.team_named("other", Timestamp::UNIX_EPOCH);
        assert_ne!(team, other);
        let team = state.teams.get_mut(&team).unwrap();
        let tokens: BTreeSet<_> = (0..50)
            .map(|_| team.add_bot("b", BTreeSet::new()))
            .collect();
        assert_eq!(tokens.len(), 50);
        for token in &tokens {
            let parts: Vec<_> = token.split('-').collect();
            let lengths: Vec<_> = parts.iter().map(|part| part.len()).collect();
            assert_eq!(
                (parts[0], lengths.as_slice()),
                ("xoxb", [4, 12, 13, 24].as_slice())
            );
        }
        assert!(team.rooms[0].channel.is_general && team.id.starts_with('T'));
    }

    #[test]
    fn a_ts_comes_once_whatever_the_clock_does() {
        let mut team = Team::new("a", Timestamp::UNIX_EPOCH);
        let room = &mut team.rooms[0];
        let now = Timestamp::from_second(1_763_744_628).unwrap();
        assert_eq!(room.next_ts(now), "1763744628.000000");
        assert_eq!(room.next_ts(now), "1763744628.000001");
        assert_eq!(room.next_ts(Timestamp::UNIX_EPOCH), "1763744628.000002");
    }

    #[test]
    fn people_see_text_and_the_api_gives_it_back_escaped() {
        let table = [
            ("R&D <b>", "R&amp;D &lt;b&gt;"),
            ("a &amp; b &lt;", "a &amp; b &lt;"),
            ("&&amp;é", "&amp;&amp;é"),
            ("&amp;lt;", "&amp;lt;"),
            ("", ""),
        ];
        for (sent, given_back) in table {
            assert_eq!(escape(&unescape(sent)), given_back);
        }
    }
}
