//! The rules of messages.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::arguments::Arguments;
use super::blocks;
use super::state::{By, Edit, HookState, Message, Outcome, Refused, Room, Team, Token};

const LONGEST_TEXT: usize = 40_000;
const MOST_ATTACHMENTS: usize = 100;

/// What a message says.
#[derive(Clone, Debug, Default, PartialEq)]
struct Content {
    text: Option<String>,
    blocks: Option<Vec<Value>>,
    attachments: Option<Vec<Value>>,
    metadata: Option<Value>,
}

impl Content {
    fn read(arguments: &Arguments) -> Result<Self, Refused> {
        let list = |name: &str, error: &str| match arguments.tree(name) {
            Ok(None) => Ok(None),
            Ok(Some(Value::Array(list))) => Ok(Some(list)),
            _ => Err(Refused::from(error)),
        };
        let content = Self {
            text: arguments.text("text").map(str::to_owned),
            blocks: list("blocks", "invalid_blocks_format")?,
            attachments: list("attachments", "invalid_blocks_format")?,
            metadata: arguments
                .tree("metadata")
                .map_err(|()| "invalid_metadata_format")?,
        };
        if content
            .text
            .as_ref()
            .is_some_and(|text| text.chars().count() > LONGEST_TEXT)
        {
            return Err("msg_too_long".into());
        }
        if let Some(metadata) = &content.metadata {
            let is_whole =
                metadata["event_type"].is_string() && metadata["event_payload"].is_object();
            if !is_whole {
                return Err("invalid_metadata_format".into());
            }
        }
        let mut messages = Vec::new();
        if let Some(list) = &content.blocks {
            messages.extend(blocks::check(list, "/blocks"));
        }
        let attachments = content.attachments.iter().flatten();
        for (place, attachment) in attachments.enumerate() {
            messages.extend(blocks::check_attachment(
                attachment,
                &format!("/attachments/{place}"),
            ));
        }
        if content
            .attachments
            .as_ref()
            .is_some_and(|list| list.len() > MOST_ATTACHMENTS)
        {
            return Err("too_many_attachments".into());
        }
        if !messages.is_empty() {
            return Err(Refused::explained("invalid_blocks", &messages));
        }
        Ok(content)
    }

    fn is_empty(&self) -> bool {
        let text = self.text.as_deref().unwrap_or_default().trim();
        let shows = |attachment: &Value| blocks::shows_something(attachment);
        text.is_empty()
            && self.blocks.as_ref().is_none_or(Vec::is_empty)
            && !self.attachments.iter().flatten().any(shows)
    }
}

fn shown(message: &Message, team: &Team, bot: Option<&str>) -> Value {
    let mut shown =
        json!({"type": "message", "text": message.text, "ts": message.ts, "team": team.id});
    if let By::Bot(user) = &message.by {
        shown["user"] = json!(user);
    }
    if let Some(bot) = bot {
        shown["bot_id"] = json!(bot);
    }
    if let Some(thread) = &message.thread_ts {
        shown["thread_ts"] = json!(thread);
    }
    for (name, list) in [
        ("blocks", &message.blocks),
        ("attachments", &message.attachments),
    ] {
        if !list.is_empty() {
            shown[name] = json!(list);
        }
    }
    if let Some(metadata) = &message.metadata {
        shown["metadata"] = metadata.clone();
    }
    if let Some(edit) = message.edits.last() {
        let at = edit.at.as_second();
        shown["edited"] = json!({"user": shown["user"], "ts": format!("{at}.000000")});
    }
    shown
}

fn put(
    room: &mut Room,
    content: Content,
    by: By,
    author: String,
    arguments: &Arguments,
    now: Timestamp,
) -> Result<Message, Refused> {
    let thread_ts = arguments.text("thread_ts").map(str::to_owned);
    if let Some(thread) = &thread_ts
        && !room
            .messages
            .iter()
            .any(|message| message.ts == *thread && message.thread_ts.is_none())
    {
        return Err("cannot_reply_to_message".into());
    }
    let message = Message {
        ts: room.next_ts(now),
        thread_ts,
        by,
        author,
        text: content.text.unwrap_or_default(),
        blocks: content.blocks.unwrap_or_default(),
        attachments: content.attachments.unwrap_or_default(),
        metadata: content.metadata,
        broadcast: arguments.flag("reply_broadcast"),
        at: now,
        edits: Vec::new(),
    };
    room.messages.push(message.clone());
    Ok(message)
}

impl Team {
    pub(super) fn post(&mut self, token: &Token, arguments: &Arguments, now: Timestamp) -> Outcome {
        let author = self.name_of(&token.user);
        let room = self.visible(&token.user, arguments.text_or_empty("channel"))?;
        if room.channel.is_archived {
            return Err("is_archived".into());
        }
        if !room.has(&token.user) && !token.has(&["chat:write.public"]) {
            return Err("not_in_channel".into());
        }
        let content = Content::read(arguments)?;
        if content.is_empty() {
            return Err("no_text".into());
        }
        let channel = room.channel.id.clone();
        let message = put(
            room,
            content,
            By::Bot(token.user.clone()),
            author,
            arguments,
            now,
        )?;
        Ok(Map::from_iter([
            ("channel".to_owned(), json!(channel)),
            ("ts".to_owned(), json!(message.ts)),
            (
                "message".to_owned(),
                shown(&message, self, Some(&token.bot)),
            ),
        ]))
    }

    pub(super) fn update(
        &mut self,
        token: &Token,
        arguments: &Arguments,
        now: Timestamp,
    ) -> Outcome {
        let room = self.visible(&token.user, arguments.text_or_empty("channel"))?;
        if room.channel.is_archived {
            return Err("is_inactive".into());
        }
        let channel = room.channel.id.clone();
        let ts = arguments.text_or_empty("ts");
        let message = room.messages.iter_mut().find(|message| message.ts == ts);
        let message = message.ok_or("message_not_found")?;
        if message.by != By::Bot(token.user.clone()) {
            return Err("cant_update_message".into());
        }
        let content = Content::read(arguments)?;
        let says_nothing =
            content.text.is_none() && content.blocks.is_none() && content.attachments.is_none();
        // What is not sent stays as it was.
        let after = Content {
            text: content.text.or_else(|| Some(message.text.clone())),
            blocks: content.blocks.or_else(|| Some(message.blocks.clone())),
            attachments: content
                .attachments
                .or_else(|| Some(message.attachments.clone())),
            metadata: content.metadata.or_else(|| message.metadata.clone()),
        };
        if after.is_empty() || (says_nothing && !arguments.has("metadata")) {
            return Err("no_text".into());
        }
        message.edits.push(Edit {
            at: now,
            text: std::mem::take(&mut message.text),
            blocks: std::mem::take(&mut message.blocks),
            attachments: std::mem::take(&mut message.attachments),
        });
        message.text = after.text.unwrap_or_default();
        message.blocks = after.blocks.unwrap_or_default();
        message.attachments = after.attachments.unwrap_or_default();
        message.metadata = after.metadata;
        let message = message.clone();
        Ok(Map::from_iter([
            ("channel".to_owned(), json!(channel)),
            ("ts".to_owned(), json!(message.ts)),
            ("text".to_owned(), json!(message.text)),
            (
                "message".to_owned(),
                shown(&message, self, Some(&token.bot)),
            ),
        ]))
    }

    pub(super) fn delete(&mut self, token: &Token, arguments: &Arguments) -> Outcome {
        let room = self.visible(&token.user, arguments.text_or_empty("channel"))?;
        let ts = arguments.text_or_empty("ts");
        let place = room.messages.iter().position(|message| message.ts == ts);
        let place = place.ok_or("message_not_found")?;
        if room.messages[place].by != By::Bot(token.user.clone()) {
            return Err("cant_delete_message".into());
        }
        room.messages.remove(place);
        Ok(Map::from_iter([
            ("channel".to_owned(), json!(room.channel.id)),
            ("ts".to_owned(), json!(ts)),
        ]))
    }

    pub(super) fn permalink(&mut self, token: &Token, arguments: &Arguments) -> Outcome {
        let base = self.url();
        let room = self.visible(&token.user, arguments.text_or_empty("channel"))?;
        let ts = arguments.text_or_empty("message_ts");
        let message = room.messages.iter().find(|message| message.ts == ts);
        let message = message.ok_or("message_not_found")?;
        let channel = &room.channel.id;
        let mut link = format!("{base}archives/{channel}/p{}", ts.replace('.', ""));
        if let Some(thread) = &message.thread_ts {
            link.push_str(&format!("?thread_ts={thread}&cid={channel}"));
        }
        Ok(Map::from_iter([
            ("channel".to_owned(), json!(channel)),
            ("permalink".to_owned(), json!(link)),
        ]))
    }

    /// Takes what came to a webhook; otherwise the status and the text that it is answered with.
    pub(super) fn hook(
        &mut self,
        bot: &str,
        secret: &str,
        arguments: &Arguments,
        now: Timestamp,
    ) -> Result<(), (u16, String)> {
        let refuse = |status: u16, error: &str| Err((status, error.to_owned()));
        let hook = self.webhooks.iter().find(|hook| hook.id == bot);
        let Some(hook) = hook.filter(|hook| hook.state != HookState::Deleted) else {
            return refuse(404, "no_service");
        };
        if hook.secret != secret || hook.state == HookState::Disabled {
            return refuse(403, "invalid_token");
        }
        let id = hook.id.clone();
        let serial = hook.room;
        let Some(room) = self.room_by_serial(serial) else {
            return refuse(404, "channel_not_found");
        };
        if room.channel.is_archived {
            return refuse(410, "channel_is_archived");
        }
        let content = match Content::read(arguments) {
            Ok(content) => content,
            Err(refused) if HOOK_ERRORS.contains(&refused.error.as_str()) => {
                return refuse(400, &refused.error);
            }
            Err(_) => return refuse(400, "invalid_payload"),
        };
        if content.is_empty() {
            return refuse(400, "no_text");
        }
        put(
            room,
            content,
            By::Webhook(id),
            "incoming-webhook".to_owned(),
            arguments,
            now,
        )
        .map(drop)
        .or_else(|_| refuse(400, "invalid_payload"))
    }
}

/// The errors of a message that a webhook has a word for.
const HOOK_ERRORS: [&str; 5] = [
    "invalid_blocks",
    "invalid_blocks_format",
    "invalid_attachments",
    "too_many_attachments",
    "no_text",
];
