//! The rules of channels, as a bot meets them.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::arguments::Arguments;
use super::state::{Cursor, Outcome, Refused, Room, Team, Token, random, unescape};

/// So many characters a topic or purpose may have.
const LONGEST_TOPIC: usize = 250;
const LONGEST_NAME: usize = 80;
/// Entries of a page where nobody says how many.
const PAGE: i64 = 100;
const LONGEST_PAGE: i64 = 1000;
/// Entries of a page that is short on demand.
const SHORT_PAGE: usize = 2;
const MOST_INVITED: usize = 1000;

fn with(name: &str, value: Value) -> Map<String, Value> {
    Map::from_iter([(name.to_owned(), value)])
}

fn scope<'a>(room: &Room, public: &'a [&'a str], private: &'a [&'a str]) -> &'a [&'a str] {
    if room.channel.is_private {
        private
    } else {
        public
    }
}

/// What is wrong with a name.
pub(super) fn check_name(name: &str) -> Result<(), Refused> {
    if name.is_empty() {
        return Err("invalid_name_required".into());
    }
    if name.chars().count() > LONGEST_NAME {
        return Err("invalid_name_maxlength".into());
    }
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if !name.chars().all(is_allowed) {
        return Err("invalid_name_specials".into());
    }
    if name.chars().all(|c| c == '-' || c == '_') {
        return Err("invalid_name_punctuation".into());
    }
    Ok(())
}

impl Team {
    /// Whoever holds it: an archived or invisible channel does as well.
    fn is_taken(&self, name: &str) -> bool {
        self.rooms.iter().any(|room| room.channel.name == name)
    }

    pub(super) fn create(
        &mut self,
        token: &Token,
        arguments: &Arguments,
        now: Timestamp,
    ) -> Outcome {
        let private = arguments.flag("is_private");
        token.needs(if private {
            &["groups:write"]
        } else {
            &["channels:manage"]
        })?;
        let name = arguments.text_or_empty("name");
        check_name(name)?;
        if self.is_taken(name) {
            return Err("name_taken".into());
        }
        let room = self.add_room(name, private, &token.user, now);
        Ok(with("channel", room.shown(&token.user, false)))
    }

    pub(super) fn join(&mut self, token: &Token, arguments: &Arguments) -> Outcome {
        let room = self.visible(&token.user, arguments.text_or_empty("channel"))?;
        if room.channel.is_private {
            return Err("method_not_supported_for_channel_type".into());
        }
        if room.channel.is_archived {
            return Err("is_archived".into());
        }
        let joined = room.channel.members.insert(token.user.clone());
        let mut answer = with("channel", room.shown(&token.user, false));
        if !joined {
            answer.insert("warning".to_owned(), json!("already_in_channel"));
            answer.insert(
                "response_metadata".to_owned(),
                json!({"warnings": ["already_in_channel"]}),
            );
        }
        Ok(answer)
    }

    pub(super) fn archive(&mut self, token: &Token, arguments: &Arguments) -> Outcome {
        let id = arguments.text_or_empty("channel");
        let room = self.visible(&token.user, id)?;
        token.needs(scope(room, &["channels:manage"], &["groups:write"]))?;
        if room.channel.is_archived {
            return Err("already_archived".into());
        }
        if room.channel.is_general {
            return Err("cant_archive_general".into());
        }
        if !room.has(&token.user) {
            return Err("not_in_channel".into());
        }
        self.close(id);
        Ok(Map::new())
    }

    /// Archives it, which takes the bots out.
    pub(super) fn close(&mut self, id: &str) {
        let bots: Vec<_> = self
            .users
            .keys()
            .filter(|user| self.is_bot(user))
            .cloned()
            .collect();
        if let Some(room) = self.room_called_mut(id) {
            room.channel.is_archived = true;
            room.channel.members.retain(|user| !bots.contains(user));
        }
    }

    /// A bot is not in an archived channel, so it never can.
    pub(super) fn unarchive(&mut self, token: &Token, arguments: &Arguments) -> Outcome {
        let room = self.visible(&token.user, arguments.text_or_empty("channel"))?;
        token.needs(scope(room, &["channels:manage"], &["groups:write"]))?;
        if !room.channel.is_archived {
            return Err("not_archived".into());
        }
        Err("not_in_channel".into())
    }

    pub(super) fn rename(&mut self, token: &Token, arguments: &Arguments) -> Outcome {
        let name = arguments.text_or_empty("name").to_owned();
        let taken = self.is_taken(&name);
        let room = self.joined(token, arguments, &["channels:manage"], &["groups:write"])?;
        if room.channel.creator != token.user {
            return Err("not_authorized".into());
        }
        check_name(&name)?;
        if taken && room.channel.name != name {
            return Err("name_taken".into());
        }
        room.channel.name = name;
        Ok(with("channel", room.shown(&token.user, false)))
    }

    /// A channel that the bot is in, and that is not archived.
    fn joined(
        &mut self,
        token: &Token,
        arguments: &Arguments,
        public: &[&str],
        private: &[&str],
    ) -> Result<&mut Room, Refused> {
        let room = self.visible(&token.user, arguments.text_or_empty("channel"))?;
        token.needs(scope(room, public, private))?;
        if room.channel.is_archived {
            return Err("is_archived".into());
        }
        if !room.has(&token.user) {
            return Err("not_in_channel".into());
        }
        Ok(room)
    }

    pub(super) fn set_topic(
        &mut self,
        token: &Token,
        arguments: &Arguments,
        now: Timestamp,
    ) -> Outcome {
        let text = arguments.text_or_empty("topic");
        let room = self.described(token, arguments, text)?;
        room.channel.topic = unescape(text);
        room.topic_set = Some((token.user.clone(), now));
        Ok(with("channel", room.shown(&token.user, false)))
    }

    pub(super) fn set_purpose(
        &mut self,
        token: &Token,
        arguments: &Arguments,
        now: Timestamp,
    ) -> Outcome {
        let text = arguments.text_or_empty("purpose");
        let room = self.described(token, arguments, text)?;
        room.channel.purpose = unescape(text);
        room.purpose_set = Some((token.user.clone(), now));
        Ok(with("channel", room.shown(&token.user, false)))
    }

    fn described(
        &mut self,
        token: &Token,
        arguments: &Arguments,
        text: &str,
    ) -> Result<&mut Room, Refused> {
        let public = ["channels:manage", "channels:write.topic"];
        let private = ["groups:write", "groups:write.topic"];
        let room = self.joined(token, arguments, &public, &private)?;
        if text.chars().count() > LONGEST_TOPIC {
            return Err("too_long".into());
        }
        Ok(room)
    }

    pub(super) fn invite(&mut self, token: &Token, arguments: &Arguments) -> Outcome {
        let public = ["channels:manage", "channels:write.invites"];
        let private = ["groups:write", "groups:write.invites"];
        let users: Vec<String> = arguments
            .text_or_empty("users")
            .split(',')
            .filter(|user| !user.is_empty())
            .map(str::to_owned)
            .collect();
        let known = |team: &Self, user: &str| team.users.get(user).map(|user| user.deactivated);
        let known: Vec<_> = users.iter().map(|user| known(self, user)).collect();
        let room = self.joined(token, arguments, &public, &private)?;
        if users.is_empty() {
            return Err("no_user".into());
        }
        if users.len() > MOST_INVITED {
            return Err("too_many_users".into());
        }
        let refusal = |user: &String, deactivated: Option<bool>| match deactivated {
            _ if *user == token.user => Some("cant_invite_self"),
            None => Some("user_not_found"),
            Some(true) => Some("cant_invite"),
            Some(false) if room.has(user) => Some("already_in_channel"),
            Some(false) => None,
        };
        let refusals: Vec<_> = users
            .iter()
            .zip(known)
            .filter_map(|(user, known)| Some((user, refusal(user, known)?)))
            .collect();
        let errors: Vec<Value> = refusals
            .iter()
            .map(|(user, error)| json!({"user": user, "ok": false, "error": error}))
            .collect();
        let goes_on = arguments.flag("force") && refusals.len() < users.len();
        if let Some((_, error)) = refusals.first()
            && !goes_on
        {
            return Err(Refused::from(*error).with("errors", json!(errors)));
        }
        let refused: Vec<_> = refusals.iter().map(|(user, _)| (*user).clone()).collect();
        room.channel
            .members
            .extend(users.into_iter().filter(|user| !refused.contains(user)));
        let mut answer = with("channel", room.shown(&token.user, false));
        if !errors.is_empty() {
            answer.insert("errors".to_owned(), json!(errors));
        }
        Ok(answer)
    }

    pub(super) fn info(&mut self, token: &Token, arguments: &Arguments) -> Outcome {
        let room = self.readable(token, arguments)?;
        let shown = room.shown(&token.user, arguments.flag("include_num_members"));
        Ok(with("channel", shown))
    }

    fn readable(&mut self, token: &Token, arguments: &Arguments) -> Result<&mut Room, Refused> {
        let room = self.visible(&token.user, arguments.text_or_empty("channel"))?;
        token.needs(scope(room, &["channels:read"], &["groups:read"]))?;
        Ok(room)
    }

    pub(super) fn members(&mut self, token: &Token, arguments: &Arguments, short: bool) -> Outcome {
        let room = self.readable(token, arguments)?;
        let question = format!("members {}", room.channel.id);
        let all: Vec<_> = room
            .channel
            .members
            .iter()
            .zip(1..)
            .map(|(user, place)| (place, json!(user)))
            .collect();
        self.page("members", question, all, arguments, short)
    }

    /// All channels that the bot may see, or those that `only_own` says it is in.
    pub(super) fn list(
        &mut self,
        token: &Token,
        arguments: &Arguments,
        only_own: bool,
        short: bool,
    ) -> Outcome {
        let types = arguments.text("types").unwrap_or("public_channel");
        let (mut public, mut private) = (false, false);
        for each in types.split(',').map(str::trim) {
            match each {
                "public_channel" => public = true,
                "private_channel" => private = true,
                "im" | "mpim" => return Err("method_not_supported_for_channel_type".into()),
                _ => return Err("invalid_types".into()),
            }
        }
        if public {
            token.needs(&["channels:read"])?;
        }
        if private {
            token.needs(&["groups:read"])?;
        }
        if arguments
            .text("team_id")
            .is_some_and(|team| team != self.id)
        {
            return Err("missing_argument".into());
        }
        let whose = arguments.text("user").unwrap_or(&token.user);
        let no_archived = arguments.flag("exclude_archived");
        let question = format!("{only_own} {types} {no_archived} {whose}");
        let all: Vec<_> = self
            .rooms
            .iter()
            .filter(|room| {
                if room.channel.is_private {
                    private && room.has(&token.user)
                } else {
                    public
                }
            })
            .filter(|room| !only_own || room.has(whose))
            .filter(|room| !(no_archived && room.channel.is_archived))
            .map(|room| (room.serial, room.shown(&token.user, true)))
            .collect();
        self.page("channels", question, all, arguments, short)
    }

    /// A page of `all`, which are in the order of their places. On demand it is short, and every other one is empty, the first and
    /// the last among them.
    fn page(
        &mut self,
        what: &str,
        question: String,
        all: Vec<(u64, Value)>,
        arguments: &Arguments,
        short: bool,
    ) -> Outcome {
        let limit = match arguments.number("limit") {
            Ok(None) => PAGE,
            Ok(Some(limit @ 1..=LONGEST_PAGE)) => limit,
            _ => return Err("invalid_limit".into()),
        };
        let cursor = match arguments.text("cursor") {
            None | Some("") => Cursor {
                question: question.clone(),
                after: 0,
                page: 0,
            },
            Some(cursor) => self
                .cursors
                .get(cursor)
                .filter(|cursor| cursor.question == question)
                .cloned()
                .ok_or("invalid_cursor")?,
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let size = match (short, cursor.page % 2 == 0) {
            (false, _) => limit,
            (true, true) => 0,
            (true, false) => limit.min(SHORT_PAGE),
        };
        let rest: Vec<_> = all
            .into_iter()
            .filter(|(place, _)| *place > cursor.after)
            .collect();
        let more = rest.len() > size || (short && size > 0);
        let entries: Vec<_> = rest.into_iter().take(size).collect();
        let next = Cursor {
            question,
            after: entries.last().map_or(cursor.after, |(place, _)| *place),
            page: cursor.page + 1,
        };
        let next_cursor = if more {
            let name = format!("{}=", random(27));
            self.cursors.insert(name.clone(), next);
            name
        } else {
            String::new()
        };
        let entries: Vec<_> = entries.into_iter().map(|(_, entry)| entry).collect();
        let mut answer = with(what, json!(entries));
        answer.insert(
            "response_metadata".to_owned(),
            json!({"next_cursor": next_cursor}),
        );
        Ok(answer)
    }
}
