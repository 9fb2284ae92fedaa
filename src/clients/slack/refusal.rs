//! What Slack's answers mean, and what to do about them. Pure.

use crate::{
    clients::{
        http::{Answer, Lost},
        secret::Secret,
    },
    engine::error::{Class, Error, shorten},
};
use serde::Deserialize;
use serde_json::Value;
use std::{fmt, time::Duration};

/// The most bytes of what Slack says beside its code.
const DETAIL: usize = 300;

/// A call that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Slack's own word for it, such as `name_taken`; empty where it gave none.
    pub code: String,
    /// The same for people, and what is done about it.
    pub error: Error,
}

impl Refusal {
    fn new(code: &str, class: Class, message: String) -> Self {
        Self {
            code: code.to_owned(),
            error: Error::new(class, message),
        }
    }

    fn after(self, wait: Option<Duration>) -> Self {
        match wait {
            Some(wait) => Self {
                error: self.error.after(wait),
                ..self
            },
            None => self,
        }
    }

    /// The same, without this secret, should the other side have said it.
    pub(super) fn without(mut self, secret: &Secret) -> Self {
        let secret = secret.reveal();
        if !secret.is_empty() && self.error.message.contains(secret) {
            self.error.message = self.error.message.replace(secret, "…");
        }
        self
    }

    /// How the call ended, for the metrics.
    pub(super) fn outcome(&self) -> &'static str {
        match self.error.class {
            Class::Throttled => "throttled",
            Class::Denied => "denied",
            Class::Failing | Class::Cut => "failing",
            _ => "refused",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        refusal.error
    }
}

/// One call, for the person who reads what became of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    /// The method, or `the incoming webhook`.
    pub method: &'a str,
    /// What it is about: a channel, an address; may be empty.
    pub about: &'a str,
    /// Whether it changes something, so that an outcome that never came must be looked up.
    pub writes: bool,
}

impl fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.about {
            "" => f.write_str(self.method),
            about => write!(f, "{} of {about}", self.method),
        }
    }
}

impl Call<'_> {
    /// Where it may or may not have been done.
    fn unsure(&self) -> Class {
        if self.writes {
            Class::Cut
        } else {
            Class::Failing
        }
    }

    /// There is no answer.
    pub fn lost(&self, lost: &Lost) -> Refusal {
        let class = if lost.sent {
            self.unsure()
        } else {
            Class::Failing
        };
        Refusal::new("", class, format!("Slack: {self}: {}", lost.text))
    }

    /// An answer that says something else than a method's answers do.
    pub fn strange(&self, status: u16) -> Refusal {
        // Refused by whatever stands there, so nothing was done.
        let (class, hint) = match status {
            300..500 => (
                Class::Failing,
                "; is that Slack, and is it let through to Slack?",
            ),
            _ => (self.unsure(), ""),
        };
        let what = format!("Slack: {self}: HTTP {status} with an answer that is none of Slack's");
        Refusal::new("", class, what + hint)
    }

    /// A list whose pages never end.
    pub fn endless(&self, pages: usize) -> Refusal {
        let what = format!(
            "Slack: {self}: the list does not come to an end: after {pages} pages it begins again, or still goes on"
        );
        Refusal::new("", Class::Failing, what)
    }

    fn throttled(&self, code: &str, answer: &Answer) -> Refusal {
        let message = match code {
            "" | "ratelimited" => format!("throttled: Slack: {self}"),
            code => format!("throttled: Slack: {self}: {code}"),
        };
        Refusal::new(code, Class::Throttled, message).after(answer.retry_after())
    }

    /// What a method of the Web API answered: the answer's JSON where it was done.
    pub fn answered(&self, answer: &Answer) -> Result<Value, Refusal> {
        let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
        let said = body.as_ref().and_then(|body| Said::deserialize(body).ok());
        let code = said.as_ref().and_then(Said::code).unwrap_or_default();
        match (answer.status, said.as_ref()) {
            (429, _) => Err(self.throttled(code, answer)),
            (200..300, Some(Said { ok: true, .. })) => {
                body.ok_or_else(|| self.strange(answer.status))
            }
            (_, Some(said @ Said { ok: false, .. })) if !code.is_empty() => {
                Err(self.refused(code, said, answer))
            }
            (status, _) => Err(self.strange(status)),
        }
    }

    fn refused(&self, code: &str, said: &Said, answer: &Answer) -> Refusal {
        let (verdict, advice) = meaning(code);
        let advice = match (code, said.scope()) {
            ("missing_scope", Some(any)) => add_scopes(&[&any.replace(',', " or ")]),
            _ => advice.to_owned(),
        };
        // Whatever it is called, a server that fails may have done part of it.
        let verdict = match verdict {
            ConditionUpdate::Rejected if answer.status >= 500 => ConditionUpdate::Unsure,
            verdict => verdict,
        };
        let class = match verdict {
            ConditionUpdate::Throttled => return self.throttled(code, answer),
            ConditionUpdate::Denied => Class::Denied,
            ConditionUpdate::Undone => Class::Failing,
            ConditionUpdate::Unsure => self.unsure(),
            ConditionUpdate::Rejected => Class::Rejected,
        };
        let mut message = match verdict {
            ConditionUpdate::Undone | ConditionUpdate::Unsure => format!("Slack: {self}: {code}"),
            _ => format!("Slack refused {self}: {code}"),
        };
        for more in [advice, said.detail()] {
            if !more.is_empty() {
                message += ": ";
                message += &more;
            }
        }
        Refusal::new(code, class, message).after(answer.retry_after())
    }

    /// What an incoming webhook answered: plain text, a code of its own beside the status.
    pub fn delivered(&self, answer: &Answer) -> Result<(), Refusal> {
        let text = String::from_utf8_lossy(&answer.body);
        let code = code(text.trim()).unwrap_or_default();
        let status = answer.status;
        match status {
            200..300 => Ok(()),
            429 => Err(self.throttled(code, answer)),
            500.. if code != MISSING_TEXT => {
                let what = format!("Slack: {self}: HTTP {status} {code}");
                let refusal = Refusal::new(code, self.unsure(), what.trim_end().to_owned());
                Err(refusal.after(answer.retry_after()))
            }
            _ if code.is_empty() => Err(self.strange(status)),
            _ => {
                let (class, advice) = webhook_meaning(code);
                let advice = match advice {
                    "" => String::new(),
                    advice => format!(": {advice}"),
                };
                let message = format!("Slack refused {self}: {code}{advice}");
                Err(Refusal::new(code, class, message))
            }
        }
    }
}

/// What every answer says.
#[derive(Deserialize)]
struct Said {
    ok: bool,
    error: Option<String>,
    needed: Option<String>,
    response_metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Metadata {
    messages: Option<Vec<String>>,
}

impl Said {
    fn code(&self) -> Option<&str> {
        self.error.as_deref().and_then(code)
    }

    /// The scope that is missing, if it looks like one; several, any of which would do, by commas.
    fn scope(&self) -> Option<&str> {
        let is_scope = |scope: &&str| {
            let of =
                |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b':' | b'.' | b',' | b'_' | b'-');
            (1..=DETAIL).contains(&scope.len()) && scope.bytes().all(of)
        };
        self.needed.as_deref().filter(is_scope)
    }

    /// What it says beside the code, on one line.
    fn detail(&self) -> String {
        let messages = self.response_metadata.as_ref();
        let messages = messages.and_then(|metadata| metadata.messages.as_deref());
        let text = messages.unwrap_or_default().join("; ");
        let words: Vec<_> = text.split_whitespace().collect();
        shorten(&words.join(" "), DETAIL)
    }
}

/// A code, if it is one.
fn code(text: &str) -> Option<&str> {
    let of = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    let is_code = (1..=64).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(of);
    is_code.then_some(text)
}

/// What to do where these scopes are missing, for people.
pub fn add_scopes(scopes: &[&str]) -> String {
    let (them, noun) = match scopes {
        [_] => ("it", "scope"),
        _ => ("them", "scopes"),
    };
    format!(
        "add the {noun} {} to the app (OAuth & Permissions, Bot Token Scopes), and install the app again, for {them} to count",
        scopes.join(", ")
    )
}

/// What sort of refusal a code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConditionUpdate {
    /// The token is of no use for this, nor for the next call.
    Denied,
    /// Too many.
    Throttled,
    /// Slack fails, and has done nothing.
    Undone,
    /// Slack fails, and may have done it, or part of it.
    Unsure,
    /// This one thing is refused.
    Rejected,
}

/// What a code means, and what to do; no words where the code says it all.
fn meaning(code: &str) -> (ConditionUpdate, &'static str) {
    let known = MEANINGS.iter().find(|(known, ..)| *known == code);
    known.map_or((ConditionUpdate::Rejected, ""), |(_, verdict, advice)| {
        (*verdict, *advice)
    })
}

const REISSUE: &str =
    "install the app into the workspace again, and put its new bot token into the Secret";
const NOT_MEMBER: &str = "the bot is not in the channel: let somebody who is there /invite it";
const ARCHIVED: &str = "the channel is archived, and a bot cannot bring it back: unarchive it in Slack and /invite the bot, or declare another channel";
const INVISIBLE: &str = "there is no such channel, or it is private and the bot is not in it: /invite the bot there, if it exists";
const BAD_NAME: &str = "a channel's name has 1 to 80 of a-z, 0-9, - and _";
const NOT_ALLOWED: &str = "the workspace's settings do not let this app do it: let an admin allow it (Settings & permissions), or do it by hand";
const NOT_THERE: &str = "the channel is of a kind that cannot do this";
const GUEST: &str = "a guest may not do this: it takes a full member";
const POSTING: &str =
    "the channel's posting permissions do not let the bot write there: let an admin allow it";
const TOO_LONG: &str = "it is longer than Slack takes";
const BAD_BLOCKS: &str = "the message's blocks are not valid Block Kit";
const WORKSPACE_MOVES: &str =
    "the workspace is being moved into an Enterprise organization; this passes";

/// By code, in order. From the lists of errors of the methods' pages
/// (<https://docs.slack.dev/reference/methods>); what is of use for any method stands here once.
const MEANINGS: &[(&str, ConditionUpdate, &str)] = {
    use ConditionUpdate::{Denied, Rejected, Throttled, Undone, Unsure};
    &[
        (
            "access_denied",
            Denied,
            "Slack denies the token access to this",
        ),
        (
            "accesslimited",
            Denied,
            "the app or the workspace does not allow this network: add the operator's addresses to the allowed ones",
        ),
        ("account_inactive", Denied, REISSUE),
        ("already_archived", Rejected, "the channel is archived"),
        (
            "already_in_channel",
            Rejected,
            "who was invited is in the channel",
        ),
        (
            "attachment_payload_limit_exceeded",
            Rejected,
            "the message's attachments are too long",
        ),
        (
            "block_mismatch",
            Rejected,
            "the message's blocks cannot be changed into these",
        ),
        (
            "cannot_create_channel",
            Rejected,
            "Slack does not let this bot create it: create it by hand and /invite the bot",
        ),
        (
            "cannot_reply_to_message",
            Rejected,
            "that message takes no replies",
        ),
        (
            "cant_archive_general",
            Rejected,
            "the workspace's general channel cannot be archived",
        ),
        (
            "cant_archive_required",
            Rejected,
            "a channel that all members must be in cannot be archived",
        ),
        (
            "cant_invite",
            Rejected,
            "this user cannot be invited into this channel",
        ),
        (
            "cant_invite_self",
            Rejected,
            "this is the bot itself: take it off the list of whom to invite",
        ),
        (
            "cant_update_message",
            Rejected,
            "only whoever has posted a message may edit it",
        ),
        (
            "channel_is_limited_access",
            Rejected,
            "access to the channel is limited: let an admin add the bot",
        ),
        ("channel_not_found", Rejected, INVISIBLE),
        (
            "deprecated_endpoint",
            Rejected,
            "Slack no longer has this method: a newer Campanile may do without it",
        ),
        (
            "edit_window_closed",
            Rejected,
            "the workspace does not let messages be edited so late",
        ),
        (
            "ekm_access_denied",
            Denied,
            "the organization's admins have suspended this by its encryption keys",
        ),
        (
            "enterprise_is_restricted",
            Denied,
            "the token's organization may not do this",
        ),
        (
            "external_channel_migrating",
            Undone,
            "the channel is being moved; this passes",
        ),
        (
            "fatal_error",
            Unsure,
            "Slack failed, and may have done part of it",
        ),
        ("fetch_members_failed", Undone, ""),
        (
            "internal_error",
            Unsure,
            "Slack failed, and may have done part of it",
        ),
        (
            "invalid_attachments",
            Rejected,
            "the message's attachments are malformed",
        ),
        (
            "invalid_auth",
            Denied,
            "the token is none of Slack's, or its app does not allow the network that we come from: put a valid bot token into the Secret, or allow the operator's addresses",
        ),
        ("invalid_blocks", Rejected, BAD_BLOCKS),
        ("invalid_blocks_format", Rejected, BAD_BLOCKS),
        (
            "invalid_cursor",
            Undone,
            "a page that was promised has expired; the list is read again from its beginning",
        ),
        ("invalid_name", Rejected, BAD_NAME),
        ("invalid_name_maxlength", Rejected, BAD_NAME),
        ("invalid_name_punctuation", Rejected, BAD_NAME),
        ("invalid_name_required", Rejected, BAD_NAME),
        ("invalid_name_specials", Rejected, BAD_NAME),
        (
            "invitee_cant_see_channel",
            Rejected,
            "this user cannot see the channel",
        ),
        ("is_archived", Rejected, ARCHIVED),
        ("is_inactive", Rejected, ARCHIVED),
        (
            "message_limit_exceeded",
            Throttled,
            "the workspace sends too many messages",
        ),
        (
            "message_not_found",
            Rejected,
            "the message is no longer there",
        ),
        (
            "messages_tab_disabled",
            Rejected,
            "messages to this app are switched off in its settings (App Home)",
        ),
        (
            "method_deprecated",
            Rejected,
            "Slack no longer has this method: a newer Campanile may do without it",
        ),
        ("method_not_supported_for_channel_type", Rejected, NOT_THERE),
        (
            "missing_argument",
            Rejected,
            "a token of a whole organization must name a workspace, which is not supported: install the app into one workspace, and use that bot token",
        ),
        (
            "missing_scope",
            Denied,
            "add the scope that this method needs to the app (OAuth & Permissions, Bot Token Scopes), and install the app again",
        ),
        ("msg_blocks_too_long", Rejected, TOO_LONG),
        ("msg_too_long", Rejected, TOO_LONG),
        (
            "name_taken",
            Rejected,
            "a channel has this name already; it may be private or archived, where the bot does not see it: /invite the bot there, or rename either",
        ),
        ("no_channel", Rejected, BAD_NAME),
        (
            "no_external_invite_permission",
            Rejected,
            "the bot may not invite people of other organizations",
        ),
        (
            "no_permission",
            Denied,
            "the token's app may not do this: add it to the channel, or give it the scopes that it needs and install it again",
        ),
        ("no_text", Rejected, "the message is empty"),
        ("no_user", Rejected, "nobody was named"),
        (
            "not_allowed_token_type",
            Denied,
            "this is no bot token: put the app's bot token (xoxb-…) into the Secret",
        ),
        (
            "not_authed",
            Denied,
            "no token reached Slack: put the app's bot token into the Secret",
        ),
        (
            "not_authorized",
            Rejected,
            "only who created the channel, or an admin, may do this: do it by hand",
        ),
        ("not_in_channel", Rejected, NOT_MEMBER),
        ("org_login_required", Undone, WORKSPACE_MOVES),
        (
            "org_user_not_in_team",
            Rejected,
            "this user is not in the workspace",
        ),
        ("posting_to_channel_denied", Rejected, POSTING),
        ("rate_limited", Throttled, ""),
        ("ratelimited", Throttled, ""),
        ("request_timeout", Unsure, ""),
        ("restricted_action", Rejected, NOT_ALLOWED),
        (
            "restricted_action_non_threadable_channel",
            Rejected,
            POSTING,
        ),
        ("restricted_action_read_only_channel", Rejected, POSTING),
        (
            "restricted_action_thread_locked",
            Rejected,
            "the thread is locked",
        ),
        ("restricted_action_thread_only_channel", Rejected, POSTING),
        ("service_unavailable", Unsure, ""),
        (
            "team_access_not_granted",
            Denied,
            "the token is not for this workspace: install the app there, and put that bot token into the Secret",
        ),
        ("team_added_to_org", Undone, WORKSPACE_MOVES),
        (
            "team_not_found",
            Denied,
            "the token's workspace is not there any more: put a bot token of another into the Secret",
        ),
        (
            "token_expired",
            Denied,
            "tokens of this app expire: switch token rotation off for the app, and put its new bot token into the Secret",
        ),
        ("token_revoked", Denied, REISSUE),
        ("too_long", Rejected, TOO_LONG),
        (
            "too_many_attachments",
            Rejected,
            "the message has too many attachments",
        ),
        (
            "too_many_members",
            Rejected,
            "the channel has as many members as it may have",
        ),
        (
            "two_factor_setup_required",
            Denied,
            "the workspace requires two-factor authentication of whoever installed the app",
        ),
        ("update_failed", Unsure, ""),
        (
            "ura_max_channels",
            Rejected,
            "this guest is in as many channels as a guest may be",
        ),
        ("user_is_restricted", Rejected, GUEST),
        ("user_is_ultra_restricted", Rejected, GUEST),
        (
            "user_not_found",
            Rejected,
            "the workspace has no such user: correct the id or the address",
        ),
        (
            "users_not_found",
            Rejected,
            "nobody in the workspace has this address",
        ),
    ]
};

/// What a webhook that lives says to a message without anything in it, with status 500 in former times.
const MISSING_TEXT: &str = "missing_text_or_fallback_or_attachments";

const NEW_WEBHOOK: &str =
    "add an incoming webhook for the channel to the app, and put its URL into the Secret";

/// The same of what an incoming webhook says
/// (<https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks#handling-errors>).
fn webhook_meaning(code: &str) -> (Class, &'static str) {
    match code {
        "invalid_token" | "no_active_hooks" | "no_service" | "no_service_id" | "no_team"
        | "team_disabled" => (Class::Denied, NEW_WEBHOOK),
        "action_prohibited" => (Class::Rejected, NOT_ALLOWED),
        "posting_to_general_channel_denied" => (Class::Rejected, POSTING),
        "channel_is_archived" => (
            Class::Rejected,
            "its channel is archived: unarchive it, or add an incoming webhook for another channel",
        ),
        "channel_not_found" => (
            Class::Rejected,
            "its channel is no longer there: add an incoming webhook for another, and put its URL into the Secret",
        ),
        "invalid_blocks" | "invalid_blocks_format" => (Class::Rejected, BAD_BLOCKS),
        code if code == MISSING_TEXT => (Class::Rejected, "the message is empty"),
        code => (Class::Rejected, meaning(code).1),
    }
}

/// Whether a webhook that says this will take no message at all.
pub(super) fn is_dead(code: &str) -> bool {
    matches!(webhook_meaning(code).0, Class::Denied)
        || matches!(
            code,
            "action_prohibited"
                | "posting_to_general_channel_denied"
                | "channel_is_archived"
                | "channel_not_found"
        )
}

/// Whether only a webhook that lives says this of a message without anything in it.
pub(super) fn is_alive(status: u16, refusal: &Refusal) -> bool {
    refusal.code == MISSING_TEXT
        || status == 400 && !refusal.code.is_empty() && !is_dead(&refusal.code)
}
