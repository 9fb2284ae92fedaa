//! The methods of the Web API that there are here: what they take, which scopes open them, how often they may be called.

use jiff::Timestamp;

use super::arguments::{Arguments, Written};
use super::rates::Rate;
use super::state::{Outcome, Refused, Team, Token};

/// What is known of a method before it is called.
#[derive(Debug)]
pub(super) struct Method {
    pub(super) name: &'static str,
    /// Whether it takes arguments as JSON; otherwise JSON is as if it had not been sent.
    pub(super) takes_json: bool,
    pub(super) rate: Rate,
    /// One of these at least; where private channels want another than public ones, that is looked at again once the channel is known.
    pub(super) scopes: &'static [&'static str],
    pub(super) required: &'static [&'static str],
    pub(super) optional: &'static [&'static str],
}

const MANAGE: &[&str] = &["channels:manage", "groups:write"];
const DESCRIBE: &[&str] = &[
    "channels:manage",
    "channels:write.topic",
    "groups:write",
    "groups:write.topic",
];
const INVITE: &[&str] = &[
    "channels:manage",
    "channels:write.invites",
    "groups:write",
    "groups:write.invites",
];
const READ: &[&str] = &["channels:read", "groups:read"];
const WRITE: &[&str] = &["chat:write"];

const fn write(
    name: &'static str,
    rate: Rate,
    scopes: &'static [&'static str],
    required: &'static [&'static str],
    optional: &'static [&'static str],
) -> Method {
    Method {
        name,
        takes_json: true,
        rate,
        scopes,
        required,
        optional,
    }
}

const fn read(
    name: &'static str,
    rate: Rate,
    scopes: &'static [&'static str],
    required: &'static [&'static str],
    optional: &'static [&'static str],
) -> Method {
    Method {
        name,
        takes_json: false,
        rate,
        scopes,
        required,
        optional,
    }
}

/// Slack's published tiers: 20, 50 and 100 a minute; the others are special. auth.test: hundreds a minute.
const TIER_2: Rate = Rate::PerMinute(20);
const TIER_3: Rate = Rate::PerMinute(50);
const TIER_4: Rate = Rate::PerMinute(100);
const SPECIAL: Rate = Rate::PerMinute(600);

static METHODS: [Method; 19] = [
    write("auth.test", SPECIAL, &[], &[], &[]),
    read("team.info", TIER_3, &["team:read"], &[], &["team"]),
    write("conversations.archive", TIER_2, MANAGE, &["channel"], &[]),
    write(
        "conversations.create",
        TIER_2,
        MANAGE,
        &["name"],
        &["is_private", "team_id"],
    ),
    read(
        "conversations.info",
        TIER_3,
        READ,
        &["channel"],
        &["include_num_members"],
    ),
    write(
        "conversations.invite",
        TIER_3,
        INVITE,
        &["channel", "users"],
        &["force"],
    ),
    write(
        "conversations.join",
        TIER_3,
        &["channels:join"],
        &["channel"],
        &[],
    ),
    read(
        "conversations.list",
        TIER_2,
        READ,
        &[],
        &["cursor", "exclude_archived", "limit", "team_id", "types"],
    ),
    read(
        "conversations.members",
        TIER_4,
        READ,
        &["channel"],
        &["cursor", "limit"],
    ),
    write(
        "conversations.rename",
        TIER_2,
        MANAGE,
        &["channel", "name"],
        &[],
    ),
    write(
        "conversations.setPurpose",
        TIER_2,
        DESCRIBE,
        &["channel", "purpose"],
        &[],
    ),
    write(
        "conversations.setTopic",
        TIER_2,
        DESCRIBE,
        &["channel", "topic"],
        &[],
    ),
    write("conversations.unarchive", TIER_2, MANAGE, &["channel"], &[]),
    read(
        "users.conversations",
        TIER_2,
        READ,
        &[],
        &[
            "cursor",
            "exclude_archived",
            "limit",
            "team_id",
            "types",
            "user",
        ],
    ),
    read(
        "users.lookupByEmail",
        TIER_3,
        &["users:read.email"],
        &["email"],
        &[],
    ),
    write(
        "chat.postMessage",
        Rate::PerChannel,
        WRITE,
        &["channel"],
        &[
            "text",
            "blocks",
            "attachments",
            "metadata",
            "thread_ts",
            "reply_broadcast",
            "unfurl_links",
            "unfurl_media",
            "mrkdwn",
            "link_names",
            "parse",
        ],
    ),
    write(
        "chat.update",
        TIER_3,
        WRITE,
        &["channel", "ts"],
        &[
            "text",
            "blocks",
            "attachments",
            "metadata",
            "link_names",
            "parse",
        ],
    ),
    write("chat.delete", TIER_3, WRITE, &["channel", "ts"], &[]),
    read(
        "chat.getPermalink",
        SPECIAL,
        &[],
        &["channel", "message_ts"],
        &[],
    ),
];

/// What a message to a webhook may have.
pub(super) const HOOKED: [&str; 7] = [
    "text",
    "blocks",
    "attachments",
    "mrkdwn",
    "thread_ts",
    "unfurl_links",
    "unfurl_media",
];

pub(super) fn find(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.name == name)
}

#[cfg(test)]
pub(super) fn all() -> &'static [Method] {
    &METHODS
}

impl Method {
    /// What the method sees of what was sent.
    pub(super) fn seen(&self, arguments: Arguments) -> Arguments {
        if arguments.written == Written::Json && !self.takes_json {
            Arguments::none()
        } else {
            arguments
        }
    }

    /// What is wrong with a request whatever the contract says: what this Slack does not know, it would not heed.
    pub(super) fn unheard(&self, arguments: &Arguments) -> Vec<String> {
        let ignored =
            arguments.written == Written::Json && !self.takes_json && !arguments.values.is_empty();
        let known = |name: &&String| {
            self.required.contains(&name.as_str()) || self.optional.contains(&name.as_str())
        };
        let unknown = arguments.values.keys().filter(|name| !known(name));
        let unknown = unknown.map(|name| format!("unknown argument {name}"));
        let repeated = arguments
            .repeated
            .iter()
            .map(|name| format!("{name} was sent twice"));
        let ignored = ignored.then(|| "a JSON body, which the method ignores".to_owned());
        unknown.chain(repeated).chain(ignored).collect()
    }

    /// Carries it out, or says why not. `short` makes pages shorter than they were asked for.
    pub(super) fn call(
        &self,
        team: &mut Team,
        token: &Token,
        arguments: &Arguments,
        now: Timestamp,
        short: bool,
    ) -> Outcome {
        if let Some(error) = token.dead {
            return Err(error.into());
        }
        token.needs(self.scopes)?;
        let missing: Vec<_> = self
            .required
            .iter()
            .filter(|name| !arguments.has(name))
            .map(|name| format!("missing required field: {name}"))
            .collect();
        if !missing.is_empty() {
            return Err(Refused::explained("invalid_arguments", &missing));
        }
        match self.name {
            "auth.test" => team.auth_test(token),
            "team.info" => team.team_info(arguments),
            "users.lookupByEmail" => team.lookup_by_email(arguments),
            "conversations.create" => team.create(token, arguments, now),
            "conversations.join" => team.join(token, arguments),
            "conversations.archive" => team.archive(token, arguments),
            "conversations.unarchive" => team.unarchive(token, arguments),
            "conversations.rename" => team.rename(token, arguments),
            "conversations.setTopic" => team.set_topic(token, arguments, now),
            "conversations.setPurpose" => team.set_purpose(token, arguments, now),
            "conversations.invite" => team.invite(token, arguments),
            "conversations.info" => team.info(token, arguments),
            "conversations.members" => team.members(token, arguments, short),
            "conversations.list" => team.list(token, arguments, false, short),
            "users.conversations" => team.list(token, arguments, true, short),
            "chat.postMessage" => team.post(token, arguments, now),
            "chat.update" => team.update(token, arguments, now),
            "chat.delete" => team.delete(token, arguments),
            "chat.getPermalink" => team.permalink(token, arguments),
            _ => Err("method_deprecated".into()),
        }
    }
}
