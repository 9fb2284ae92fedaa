//! What Slack's answers mean, and what to do about them. Pure.

use super::{Result, WEBHOOK};
use crate::{
    clients::{
        http::{Answer, Lost},
        secret::Secret,
    },
    engine::{
        error::{Class, Error},
        rendering::shorten,
    },
};
use Class::{Denied, OutcomeUnknown, Rejected, Throttled, Unavailable};
use serde_json::Value;
use std::fmt;

/// The most bytes of what Slack says beside its code.
const DETAIL: usize = 300;

/// What to do where nothing came, or nothing that Slack says.
const ON_THE_WAY: &str =
    "It is tried again by itself; if that lasts: is that Slack, and is it let through to Slack?";

/// The same of a write.
const LOOKED_UP: &str = "Whether it was done is looked up before anything else is";

/// What to do where Slack fails.
const PASSES: &str = "it is tried again by itself";

/// Where Slack says what its codes mean that need no words here.
const METHODS: &str = "https://docs.slack.dev/reference/methods";
const WEBHOOKS: &str =
    "https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks#handling-errors";

/// A call that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Slack's own word for it, such as `name_taken`; empty where it gave none.
    pub code: String,
    /// The same for people, and what is done about it.
    pub error: Error,
}

impl Refusal {
    pub(super) fn new(code: &str, class: Class, message: String) -> Self {
        Self {
            code: code.to_owned(),
            error: Error::new(class, message),
        }
    }

    /// Hands on how long Slack asks us to stay away.
    fn after(mut self, answer: &Answer) -> Self {
        self.error.wait = answer.retry_after();
        self
    }

    /// The same, without this secret, should the other side have said it.
    pub(super) fn without(mut self, secret: &Secret) -> Self {
        let secret = secret.reveal();
        if !secret.is_empty() {
            self.error.message = self.error.message.replace(secret, "…");
        }
        self
    }

    /// How the call ended, for the metrics.
    pub(super) fn outcome(&self) -> &'static str {
        match self.error.class {
            Throttled => "throttled",
            Denied => "denied",
            Unavailable | OutcomeUnknown => "failing",
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
    /// The method, such as `slack:auth.test`.
    pub api: &'static str,
    /// What it is about: a channel, an address; may be empty.
    pub about: &'a str,
    /// Whether it changes something, so that an outcome that never came must be looked up.
    pub writes: bool,
}

impl fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.api, self.about) {
            (WEBHOOK, _) => f.write_str("the incoming webhook"),
            (_, "") => f.write_str(self.method()),
            (_, about) => write!(f, "{} of {about}", self.method()),
        }
    }
}

impl Call<'_> {
    /// What Slack calls the method.
    pub fn method(&self) -> &'static str {
        self.api.strip_prefix("slack:").unwrap_or(self.api)
    }

    /// The class of an error after which a write may or may not have been made.
    fn unsure(&self) -> Class {
        if self.writes {
            OutcomeUnknown
        } else {
            Unavailable
        }
    }

    /// There is no answer.
    pub fn lost(&self, lost: &Lost) -> Refusal {
        let class = if lost.sent {
            self.unsure()
        } else {
            Unavailable
        };
        self.unanswered(class, &lost.text)
    }

    /// No answer, or none of Slack's: `what` says what came.
    fn unanswered(&self, class: Class, what: &str) -> Refusal {
        let remedy = match class {
            OutcomeUnknown => LOOKED_UP,
            _ => ON_THE_WAY,
        };
        Refusal::new("", class, format!("Slack: {self}: {what}. {remedy}"))
    }

    /// An answer that says something else than a method's answers do.
    pub fn unexpected_response(&self, answer: &Answer) -> Refusal {
        // Refused by whatever stands there, so nothing was done.
        let class = match answer.status {
            300..500 => Unavailable,
            _ => self.unsure(),
        };
        let what = format!("{}, which is none of Slack's answers", answer.came());
        self.unanswered(class, &what)
    }

    /// A list whose pages never end.
    pub fn pagination_loop(&self) -> Refusal {
        self.unanswered(Unavailable, "the list does not come to an end")
    }

    fn throttled(&self, code: &str, answer: &Answer) -> Refusal {
        let said = match code {
            "" | "ratelimited" => String::new(),
            code => format!(": {code}"),
        };
        let message = format!("throttled: Slack: {self}{said}. It is asked again by itself");
        Refusal::new(code, Throttled, message).after(answer)
    }

    /// What a method of the Web API answered: the answer's JSON where it was done.
    pub fn parse_response(&self, answer: &Answer) -> Result<Value> {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let code = body["error"].as_str().and_then(code).unwrap_or_default();
        match (answer.status, body["ok"].as_bool()) {
            (429, _) => Err(self.throttled(code, answer)),
            (200..300, Some(true)) => Ok(body),
            (_, Some(false)) if !code.is_empty() => Err(self.refused(code, &body, answer)),
            _ => Err(self.unexpected_response(answer)),
        }
    }

    fn refused(&self, code: &str, body: &Value, answer: &Answer) -> Refusal {
        let (class, advice) = meaning(code, MEANINGS).unwrap_or((Rejected, ""));
        let class = match class {
            Throttled => return self.throttled(code, answer),
            OutcomeUnknown => self.unsure(),
            // Whatever it is called, a server that fails may have done part of it.
            Rejected if answer.status >= 500 => self.unsure(),
            class => class,
        };
        let advice = match body["needed"].as_str().filter(|scopes| is_scope(scopes)) {
            Some(any) if code == "missing_scope" => add_scopes(&[&any.replace(',', " or ")]),
            _ => self.advice(class, advice),
        };
        let messages = body["response_metadata"]["messages"].as_array();
        let messages = messages.into_iter().flatten().filter_map(Value::as_str);
        let messages = messages.collect::<Vec<_>>().join("; ");
        let words: Vec<_> = messages.split_whitespace().collect();
        let detail = shorten(&words.join(" "), DETAIL);
        let what = match class {
            Unavailable | OutcomeUnknown => format!("Slack: {self}"),
            _ => format!("Slack refused {self}"),
        };
        let message = joined(&[&what, code, &advice, &detail]);
        Refusal::new(code, class, message).after(answer)
    }

    /// What to do: what is known of the code, else what holds for all of its class.
    fn advice(&self, class: Class, known: &str) -> String {
        match (known, class) {
            ("", Unavailable | OutcomeUnknown) => PASSES.to_owned(),
            ("", _) if self.api == WEBHOOK => format!("Slack says what to do: {WEBHOOKS}"),
            ("", _) => format!("Slack says what to do: {METHODS}/{}", self.method()),
            (known, _) => known.to_owned(),
        }
    }

    /// What an incoming webhook answered: plain text, a code of its own beside the status.
    pub fn parse_webhook_response(&self, answer: &Answer) -> Result<()> {
        let text = String::from_utf8_lossy(&answer.body);
        let code = code(text.trim()).unwrap_or_default();
        let status = answer.status;
        let (class, message) = match status {
            200..300 if text.trim() == "ok" => return Ok(()),
            200..300 => return Err(self.unexpected_response(answer)),
            429 => return Err(self.throttled(code, answer)),
            500.. if code != MISSING_TEXT => {
                let what = format!("Slack: {self}: HTTP {status}");
                (self.unsure(), joined(&[&what, code, PASSES]))
            }
            _ if code.is_empty() => return Err(self.unexpected_response(answer)),
            _ => {
                // Whatever a code means to a bot, here it refuses one message.
                let this = || Some((Rejected, meaning(code, MEANINGS)?.1));
                let meant = meaning(code, DEAD_WEBHOOK).or_else(this);
                let (class, advice) = meant.unwrap_or((Rejected, ""));
                let what = format!("Slack refused {self}");
                (class, joined(&[&what, code, &self.advice(class, advice)]))
            }
        };
        Err(Refusal::new(code, class, message).after(answer))
    }
}

/// What is said of an error, the most general first.
fn joined(parts: &[&str]) -> String {
    let parts = parts.iter().filter(|part| !part.is_empty());
    parts.copied().collect::<Vec<_>>().join(": ")
}

/// A code, if it is one.
fn code(text: &str) -> Option<&str> {
    let of = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    let is_code = (1..=64).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(of);
    is_code.then_some(text)
}

/// Whether it looks like a scope; or like several by commas, any of which would do.
fn is_scope(text: &str) -> bool {
    let of =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b":.,_-".contains(&byte);
    (1..=DETAIL).contains(&text.len()) && text.bytes().all(of)
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

/// Codes by spaces, their class, and what to do; no words where the code says it all. `Unavailable`: nothing was done.
/// `OutcomeUnknown`: it may have been done, or part of it.
type Meanings = &'static [(&'static str, Class, &'static str)];

fn meaning(code: &str, of: Meanings) -> Option<(Class, &'static str)> {
    let is_known = |codes: &str| codes.split(' ').any(|known| known == code);
    let known = of.iter().find(|(codes, ..)| is_known(codes));
    known.map(|(_, class, advice)| (*class, *advice))
}

/// A code that refuses one thing, and needs no words, is not listed. From the lists of errors of the methods' pages
/// (<https://docs.slack.dev/reference/methods>).
#[rustfmt::skip]
const MEANINGS: Meanings = &[
    ("access_denied", Denied, "Slack denies the token access to this"),
    ("accesslimited", Denied, "the app or the workspace does not allow this network: add the operator's addresses to the allowed ones"),
    ("account_inactive token_revoked", Denied, "install the app into the workspace again, and put its new bot token into the Secret"),
    ("ekm_access_denied", Denied, "the organization's admins have suspended this by its encryption keys"),
    ("enterprise_is_restricted", Denied, "the token's organization may not do this"),
    ("invalid_auth", Denied, "the token is none of Slack's, or its app does not allow the network that we come from: put a valid bot token into the Secret, or allow the operator's addresses"),
    ("missing_scope", Denied, "add the scope that this method needs to the app (OAuth & Permissions, Bot Token Scopes), and install the app again"),
    ("no_permission", Denied, "the token's app may not do this: add it to the channel, or give it the scopes that it needs and install it again"),
    ("not_allowed_token_type", Denied, "this is no bot token: put the app's bot token (xoxb-…) into the Secret"),
    ("not_authed", Denied, "no token reached Slack: put the app's bot token into the Secret"),
    ("team_access_not_granted", Denied, "the token is not for this workspace: install the app there, and put that bot token into the Secret"),
    ("team_not_found", Denied, "the token's workspace is not there any more: put a bot token of another into the Secret"),
    ("token_expired", Denied, "tokens of this app expire: switch token rotation off for the app, and put its new bot token into the Secret"),
    ("two_factor_setup_required", Denied, "the workspace requires two-factor authentication of whoever installed the app"),

    ("message_limit_exceeded rate_limited ratelimited", Throttled, ""),

    ("fetch_members_failed", Unavailable, ""),
    ("external_channel_migrating", Unavailable, "the channel is being moved; this passes"),
    ("invalid_cursor", Unavailable, "a page that was promised has expired; the list is read again from its beginning"),
    ("org_login_required team_added_to_org", Unavailable, "the workspace is being moved into an Enterprise organization; this passes"),

    ("fatal_error internal_error", OutcomeUnknown, "Slack failed, and may have done part of it"),
    ("request_timeout service_unavailable update_failed", OutcomeUnknown, ""),

    ("cannot_create_channel", Rejected, "Slack does not let this bot create it: create it by hand and /invite the bot"),
    ("cant_archive_general", Rejected, "the workspace's general channel cannot be archived"),
    ("cant_archive_required", Rejected, "a channel that all members must be in cannot be archived"),
    ("cant_invite", Rejected, "this user cannot be invited into this channel"),
    ("cant_invite_self", Rejected, "this is the bot itself: take it off the list of whom to invite"),
    ("channel_is_limited_access", Rejected, "access to the channel is limited: let an admin add the bot"),
    ("channel_not_found", Rejected, "there is no such channel, or it is private and the bot is not in it: /invite the bot there, if it exists"),
    ("deprecated_endpoint method_deprecated", Rejected, "Slack no longer has this method: a newer Campanile may do without it"),
    ("invalid_blocks invalid_blocks_format", Rejected, "the message's blocks are not valid Block Kit"),
    ("invalid_name invalid_name_maxlength invalid_name_punctuation invalid_name_required invalid_name_specials no_channel", Rejected, "a channel's name has 1 to 80 of a-z, 0-9, - and _"),
    ("is_archived is_inactive", Rejected, "the channel is archived, and a bot cannot bring it back: unarchive it in Slack and /invite the bot, or declare another channel"),
    ("edit_window_closed", Rejected, "the workspace does not let messages be edited so late"),
    ("messages_tab_disabled", Rejected, "messages to this app are switched off in its settings (App Home)"),
    ("method_not_supported_for_channel_type", Rejected, "the channel is of a kind that cannot do this"),
    ("missing_argument", Rejected, "a token of a whole organization must name a workspace, which is not supported: install the app into one workspace, and use that bot token"),
    (MISSING_TEXT, Rejected, "the message is empty"),
    ("msg_blocks_too_long msg_too_long too_long", Rejected, "it is longer than Slack takes"),
    ("name_taken", Rejected, "a channel has this name already; it may be private or archived, where the bot does not see it: /invite the bot there, or rename either"),
    ("no_external_invite_permission", Rejected, "the bot may not invite people of other organizations"),
    ("no_text", Rejected, "the message is empty"),
    ("not_authorized", Rejected, "only who created the channel, or an admin, may do this: do it by hand"),
    ("not_in_channel", Rejected, "the bot is not in the channel: let somebody who is there /invite it"),
    ("org_user_not_in_team", Rejected, "this user is not in the workspace"),
    ("posting_to_channel_denied restricted_action_non_threadable_channel restricted_action_read_only_channel restricted_action_thread_only_channel", Rejected, "the channel's posting permissions do not let the bot write there: let an admin allow it"),
    ("restricted_action", Rejected, "the workspace's settings do not let this app do it: let an admin allow it (Settings & permissions), or do it by hand"),
    ("too_many_members", Rejected, "the channel has as many members as it may have"),
    ("ura_max_channels", Rejected, "this guest is in as many channels as a guest may be"),
    ("user_is_restricted user_is_ultra_restricted", Rejected, "a guest may not do this: it takes a full member"),
    ("user_not_found", Rejected, "the workspace has no such user: correct the id or the address"),
];

/// What a webhook that lives says to a message without anything in it, with status 500 in former times.
const MISSING_TEXT: &str = "missing_text_or_fallback_or_attachments";

/// What a webhook says that takes no message at all
/// (<https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks#handling-errors>).
#[rustfmt::skip]
const DEAD_WEBHOOK: Meanings = &[
    ("invalid_token no_active_hooks no_service no_service_id no_team team_disabled", Denied, "add an incoming webhook for the channel to the app, and put its URL into the Secret"),
    ("action_prohibited", Rejected, "the workspace's settings do not let this app do it: let an admin allow it (Settings & permissions), or do it by hand"),
    ("posting_to_general_channel_denied", Rejected, "the channel's posting permissions do not let the bot write there: let an admin allow it"),
    ("channel_is_archived", Rejected, "its channel is archived: unarchive it, or add an incoming webhook for another channel"),
    ("channel_not_found", Rejected, "its channel is no longer there: add an incoming webhook for another, and put its URL into the Secret"),
];

/// Whether a webhook that says this will take no message at all.
pub(super) fn is_dead(code: &str) -> bool {
    meaning(code, DEAD_WEBHOOK).is_some()
}

/// Whether only a webhook that lives says this of a message without anything in it.
pub(super) fn is_alive(status: u16, refusal: &Refusal) -> bool {
    refusal.code == MISSING_TEXT
        || status == 400 && !refusal.code.is_empty() && !is_dead(&refusal.code)
}

#[cfg(test)]
pub(in crate::clients) mod tests {
    use super::*;
    use crate::clients::messages::Told;
    use reqwest::header::{CONTENT_TYPE, HeaderMap};
    use serde_json::json;

    fn answer(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        let kind = "text/html; charset=utf-8".parse().unwrap();
        Answer {
            status,
            headers: HeaderMap::from_iter([(CONTENT_TYPE, kind)]),
            body: body.into(),
        }
    }

    /// What every answer to some calls leads to.
    pub fn all() -> Vec<Told> {
        let known = MEANINGS.iter().chain(DEAD_WEBHOOK);
        let known = known.flat_map(|(codes, ..)| codes.split(' '));
        let codes: Vec<_> = known.chain(["a_code_of_tomorrow"]).collect();
        let mut told = Vec::new();
        for (api, about, writes) in [
            ("slack:auth.test", "", false),
            ("slack:conversations.create", "vsu_alerts", true),
        ] {
            let call = Call { api, about, writes };
            let method = call.method();
            for code in &codes {
                for status in [200, 400, 500] {
                    let body = json!({"ok": false, "error": code}).to_string();
                    let error = call
                        .parse_response(&answer(status, body))
                        .unwrap_err()
                        .error;
                    let named = match error.class {
                        Throttled => "throttled",
                        _ => code,
                    };
                    // Something follows the code that says what to do.
                    let (_, remedy) = error.message.rsplit_once(named).unwrap();
                    assert!(remedy.len() > 8, "{}", error.message);
                    told.push(Told::new(&[method, about_or(about), named], error));
                }
            }
            for (status, body) in [
                (200, ""),
                (200, "<html>"),
                (403, "<html>"),
                (429, ""),
                (503, ""),
            ] {
                let error = call
                    .parse_response(&answer(status, body))
                    .unwrap_err()
                    .error;
                let came = match status {
                    429 => "throttled".to_owned(),
                    _ => format!("HTTP {status} with "),
                };
                let remedy = match error.class {
                    OutcomeUnknown => "looked up",
                    _ => "again by itself",
                };
                told.push(Told::new(&[method, about_or(about), &came, remedy], error));
            }
            for sent in [true, false] {
                let text = "refused".to_owned();
                let error = call.lost(&Lost { sent, text }).error;
                told.push(Told::new(&[method, about_or(about), "refused"], error));
            }
            told.push(Told::new(
                &[method, "again by itself"],
                call.pagination_loop().error,
            ));
        }
        for (writes, status) in [(true, 400), (false, 403), (true, 500)] {
            let call = Call {
                api: WEBHOOK,
                about: "",
                writes,
            };
            for code in codes.iter().chain(&[""]) {
                let error = call
                    .parse_webhook_response(&answer(status, *code))
                    .unwrap_err()
                    .error;
                let (_, remedy) = error.message.rsplit_once("webhook").unwrap();
                assert!(remedy.len() > 12, "{}", error.message);
                told.push(Told::new(&["the incoming webhook", about_or(code)], error));
            }
            let error = call
                .parse_webhook_response(&answer(200, "<html>"))
                .unwrap_err()
                .error;
            told.push(Told::new(
                &["the incoming webhook", "HTTP 200 with text/html"],
                error,
            ));
        }
        told
    }

    /// What is about nothing in particular is still Slack's.
    fn about_or(about: &str) -> &str {
        match about {
            "" => "Slack",
            about => about,
        }
    }
}
