//! Slack: what a bot may do by the Web API, incoming webhooks, and what Slack's refusals mean.
//!
//! Every method is a POST of a form, which all of them take; JSON is for some of them only. What reads
//! waits for Slack's quota; what writes has passed the gate, which has waited for it
//! ([`Bot::quota`] says whose). A secret is in the requests alone: no error, log or metric has it.

mod credential;
mod refusal;
#[cfg(test)]
mod tests;

pub use credential::{bot_token, missing_scopes, webhook_url};
pub use refusal::{Refusal, add_scopes};

use super::{
    aws::{Observer, Request},
    http::{self, Answer},
};
use crate::{
    clients::secret::Secret,
    engine::limits::{Limiter, Priority},
};
use refusal::Call;
use reqwest::{Client, RequestBuilder};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    sync::Arc,
    time::Instant,
};

/// The methods, as the limiter, the gate and the audit line call them: `slack:` and Slack's own name.
pub mod api {
    /// Whose token it is, and what it may do.
    pub const AUTH_TEST: &str = "slack:auth.test";
    /// Archives a channel, which takes the bot out of it.
    pub const ARCHIVE: &str = "slack:conversations.archive";
    /// Makes a channel.
    pub const CREATE: &str = "slack:conversations.create";
    /// One channel.
    pub const INFO: &str = "slack:conversations.info";
    /// Takes a user into a channel.
    pub const INVITE: &str = "slack:conversations.invite";
    /// Takes the bot into a public channel.
    pub const JOIN: &str = "slack:conversations.join";
    /// All channels that the bot can see.
    pub const LIST: &str = "slack:conversations.list";
    /// Who is in a channel.
    pub const MEMBERS: &str = "slack:conversations.members";
    /// Gives a channel another name.
    pub const RENAME: &str = "slack:conversations.rename";
    /// Says what a channel is for.
    pub const SET_PURPOSE: &str = "slack:conversations.setPurpose";
    /// Says what a channel is about.
    pub const SET_TOPIC: &str = "slack:conversations.setTopic";
    /// The URL of a message.
    pub const PERMALINK: &str = "slack:chat.getPermalink";
    /// Posts a message.
    pub const POST: &str = "slack:chat.postMessage";
    /// Edits a message.
    pub const UPDATE: &str = "slack:chat.update";
    /// The user of an e-mail address.
    pub const USER_BY_EMAIL: &str = "slack:users.lookupByEmail";
    /// A message by an incoming webhook, or a look whether it lives.
    pub const WEBHOOK: &str = "slack:webhook";
}

/// The most of a list that one page may hold.
const PAGE: &str = "1000";

/// More pages than any workspace has: a list that goes on after them has no end.
const PAGES: usize = 1000;

/// What an incoming webhook is called where a method would be.
const WEBHOOK: &str = "the incoming webhook";

/// What a call came to.
pub type Result<T> = std::result::Result<T, Refusal>;

/// Slack, for whoever has a token or a webhook's URL. Clones share all.
#[derive(Clone)]
pub struct Slack(Arc<Base>);

/// What all calls have in common.
struct Base {
    http: Client,
    api_url: String,
    limiter: Arc<Limiter>,
    observe: Observer,
}

impl fmt::Debug for Slack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slack")
            .field("api_url", &self.0.api_url)
            .finish_non_exhaustive()
    }
}

impl Slack {
    /// `api_url` is what the methods' names follow after a slash: `https://slack.com/api`. `observe` is
    /// told of every request, webhooks included, as those of AWS are.
    pub fn new(http: Client, api_url: &str, limiter: Arc<Limiter>, observe: Observer) -> Self {
        Self(Arc::new(Base {
            http,
            api_url: api_url.trim_end_matches('/').to_owned(),
            limiter,
            observe,
        }))
    }

    /// Slack as this bot. `key` stands for the token wherever it must not be seen: whose quota a call
    /// counts against, and what logs say. A digest, so the same for the same token alone.
    pub fn bot(&self, token: Secret, key: String) -> Bot {
        Bot {
            slack: self.clone(),
            token,
            key,
        }
    }

    /// Posts a message (what `chat.postMessage` takes, without the channel) by an incoming webhook. As all
    /// that writes, it takes no token of the limiter: [`webhook_quota`] says which it would be.
    pub async fn post_webhook(&self, url: &Secret, message: &Value) -> Result<()> {
        self.ask_webhook(url, message, true).await?.1
    }

    /// Whether an incoming webhook lives, by what it says to a message with nothing in it: there is no
    /// other way, and nothing is posted. What says neither is an error.
    pub async fn probe_webhook(&self, url: &Secret, priority: Priority) -> Result<Webhook> {
        let account = webhook_quota(url);
        let limiter = &self.0.limiter;
        limiter.take(&account, "", api::WEBHOOK, priority).await;
        let nothing = Value::Object(serde_json::Map::new());
        let asked = self.ask_webhook(url, &nothing, false).await;
        limiter.landed(&account, "", api::WEBHOOK, asked.is_ok());
        match asked? {
            (_, Ok(())) => Ok(Webhook::Alive),
            (status, Err(refusal)) if refusal::is_alive(status, &refusal) => Ok(Webhook::Alive),
            (_, Err(refusal)) if refusal::is_dead(&refusal.code) => {
                Ok(Webhook::Revoked(refusal.error.message))
            }
            (_, Err(refusal)) => Err(refusal),
        }
    }

    /// The answer's status, and what it means. A probe does not write, and is answered by a refusal.
    async fn ask_webhook(
        &self,
        url: &Secret,
        message: &Value,
        writes: bool,
    ) -> Result<(u16, Result<()>)> {
        let call = Call {
            method: WEBHOOK,
            about: "",
            writes,
        };
        let request = self.0.http.post(url.reveal()).json(message);
        let read = |answer: Answer| {
            let said = call.delivered(&answer);
            let said = said.map_err(|refusal| refusal.without(url));
            let outcome = match &said {
                Err(refusal) if writes || !refusal::is_alive(answer.status, refusal) => {
                    refusal.outcome()
                }
                _ => "ok",
            };
            ((answer.status, said), outcome)
        };
        self.exchange(call, "webhook", request, read).await
    }

    /// Sends a request, and tells whoever counts what became of it: what `read` says, beside its answer.
    async fn exchange<T>(
        &self,
        call: Call<'_>,
        operation: &str,
        request: RequestBuilder,
        read: impl FnOnce(Answer) -> (T, &'static str),
    ) -> Result<T> {
        let began = Instant::now();
        let answer = http::exchange(request).await;
        let took = began.elapsed();
        let (result, outcome) = match answer {
            Ok(answer) => {
                let (result, outcome) = read(answer);
                (Ok(result), outcome)
            }
            Err(lost) => (Err(call.lost(&lost)), "no answer"),
        };
        (self.0.observe)(Request {
            service: "slack",
            operation,
            outcome,
            took,
        });
        result
    }
}

/// Whose quota an incoming webhook counts against, as the limiter's account, in no Region, by
/// [`api::WEBHOOK`]. The URL cannot be told from it, but it is not for people all the same.
pub fn webhook_quota(url: &Secret) -> String {
    let digest = Sha256::digest(url.reveal());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether an incoming webhook takes messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Webhook {
    /// It does.
    Alive,
    /// It does not, nor will it; for people, with what to do.
    Revoked(String),
}

/// Slack as one bot. Clones are the same bot.
#[derive(Clone)]
pub struct Bot {
    slack: Slack,
    token: Secret,
    key: String,
}

impl fmt::Debug for Bot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bot")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// What a token is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// The workspace's id, `T…`.
    pub team_id: String,
    /// Its name.
    pub team: String,
    /// Its URL, `https://….slack.com/`.
    pub url: String,
    /// The bot's id as a user, `U…`.
    pub user_id: String,
    /// The bot's id as a bot, `B…`; `None` where the token is none of a bot.
    pub bot_id: Option<String>,
    /// What the token may do; `None` where Slack did not say.
    pub scopes: Option<BTreeSet<String>>,
}

/// A channel, as the bot sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Its id, `C…`. May change, though seldom.
    pub id: String,
    /// Its name, without `#`.
    pub name: String,
    /// Whether it is private.
    pub is_private: bool,
    /// Whether it is archived.
    pub is_archived: bool,
    /// Whether the bot is in it.
    pub is_member: bool,
    /// Who made it: a user's id, empty where Slack does not say.
    pub creator: String,
    /// When, in seconds since 1970; 0 where Slack does not say.
    pub created: i64,
    /// Its topic, as [`plain`] text.
    pub topic: String,
    /// Its purpose, as [`plain`] text.
    pub purpose: String,
    /// How many are in it; `None` where Slack does not say.
    pub members: Option<i64>,
}

/// A message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Post {
    /// The text in Slack's mrkdwn, what is from elsewhere escaped; where there are blocks, what
    /// notifications show. At most 40 000 characters.
    pub text: String,
    /// A list of blocks, at most 50.
    pub blocks: Option<Value>,
    /// A list of attachments.
    pub attachments: Option<Value>,
    /// The message that it answers, by its `ts`. Counts when it is posted only.
    pub thread_ts: Option<String>,
}

/// Where a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// The channel's id.
    pub channel: String,
    /// What tells the message from the others of the channel.
    pub ts: String,
}

impl Bot {
    /// What stands for the token: see [`Slack::bot`].
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whose quota a call counts against, as account and Region of the limiter: Slack counts by app,
    /// workspace and method, and what is posted by channel as well. `channel` is its id.
    pub fn quota<'a>(&'a self, api: &str, channel: &'a str) -> (&'a str, &'a str) {
        let part = if api == api::POST { channel } else { "" };
        (&self.key, part)
    }

    /// Whose the token is, and what it may do.
    pub async fn auth_test(&self, priority: Priority) -> Result<Workspace> {
        #[derive(Deserialize)]
        struct Answered {
            team_id: String,
            team: String,
            url: String,
            user_id: String,
            bot_id: Option<String>,
        }
        let (said, answer) = self.read(api::AUTH_TEST, "", &[], priority).await?;
        let Answered {
            team_id,
            team,
            url,
            user_id,
            bot_id,
        } = said;
        let scopes = answer.headers.get("x-oauth-scopes");
        let scopes = scopes
            .and_then(|scopes| scopes.to_str().ok())
            .map(scopes_of);
        Ok(Workspace {
            team_id,
            team,
            url,
            user_id,
            bot_id,
            scopes,
        })
    }

    /// All public channels, archived ones too, and where `private` is true those private ones that the bot
    /// is in. A list that does not come whole is an error.
    pub async fn list_channels(&self, private: bool, priority: Priority) -> Result<Vec<Channel>> {
        #[derive(Deserialize)]
        struct Page {
            channels: Vec<Raw>,
        }
        let types = if private {
            "public_channel,private_channel"
        } else {
            "public_channel"
        };
        let form = [("types", types), ("exclude_archived", "false")];
        let pages = self.pages(api::LIST, types, &form, priority).await?;
        let channels = pages.into_iter().flat_map(|page: Page| page.channels);
        Ok(channels.map(Channel::from).collect())
    }

    /// The channel with this id; `None` where there is none, or none that the bot can see.
    pub async fn channel(&self, id: &str, priority: Priority) -> Result<Option<Channel>> {
        let form = [("channel", id), ("include_num_members", "true")];
        let said = self.read(api::INFO, id, &form, priority).await;
        let found = found(said, "channel_not_found")?;
        Ok(found.map(|(Holding { channel }, _)| channel.into()))
    }

    /// The ids of all who are in a channel.
    pub async fn members(&self, channel: &str, priority: Priority) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            members: Vec<String>,
        }
        let form = [("channel", channel)];
        let pages = self.pages(api::MEMBERS, channel, &form, priority).await?;
        let members = pages.into_iter().flat_map(|page: Page| page.members);
        Ok(members.collect())
    }

    /// The id of the user with this address; `None` where nobody has it, or has it no longer.
    pub async fn user_by_email(&self, email: &str, priority: Priority) -> Result<Option<String>> {
        #[derive(Deserialize)]
        struct Answered {
            user: User,
        }
        #[derive(Deserialize)]
        struct User {
            id: String,
            deleted: Option<bool>,
        }
        let form = [("email", email)];
        let said = self.read(api::USER_BY_EMAIL, email, &form, priority).await;
        let user = found(said, "users_not_found")?.map(|(Answered { user }, _)| user);
        let user = user.filter(|user| user.deleted != Some(true));
        Ok(user.map(|user| user.id))
    }

    /// The URL of a message.
    pub async fn permalink(&self, channel: &str, ts: &str, priority: Priority) -> Result<String> {
        #[derive(Deserialize)]
        struct Answered {
            permalink: String,
        }
        let form = [("channel", channel), ("message_ts", ts)];
        let said = self.read(api::PERMALINK, channel, &form, priority).await?;
        let (Answered { permalink }, _) = said;
        Ok(permalink)
    }

    /// Makes a channel; the bot is in it from the beginning. Making it twice is refused: `name_taken`.
    pub async fn create(&self, name: &str, private: bool) -> Result<Channel> {
        let is_private = if private { "true" } else { "false" };
        let form = [("name", name), ("is_private", is_private)];
        let Holding { channel } = self.write(api::CREATE, name, &form).await?;
        Ok(channel.into())
    }

    /// Takes the bot into a public channel. It may be there already.
    pub async fn join(&self, channel: &str) -> Result<Channel> {
        let form = [("channel", channel)];
        let Holding { channel } = self.write(api::JOIN, channel, &form).await?;
        Ok(channel.into())
    }

    /// Gives a channel another name. Slack lets only its creator or an admin do so.
    pub async fn rename(&self, channel: &str, name: &str) -> Result<Channel> {
        let form = [("channel", channel), ("name", name)];
        let Holding { channel } = self.write(api::RENAME, channel, &form).await?;
        Ok(channel.into())
    }

    /// Sets a channel's topic, at most 250 characters.
    pub async fn set_topic(&self, channel: &str, topic: &str) -> Result<()> {
        let form = [("channel", channel), ("topic", topic)];
        let Nothing {} = self.write(api::SET_TOPIC, channel, &form).await?;
        Ok(())
    }

    /// Sets a channel's purpose, at most 250 characters.
    pub async fn set_purpose(&self, channel: &str, purpose: &str) -> Result<()> {
        let form = [("channel", channel), ("purpose", purpose)];
        let Nothing {} = self.write(api::SET_PURPOSE, channel, &form).await?;
        Ok(())
    }

    /// Takes a user into a channel, by id. Done as well if they are in it.
    pub async fn invite(&self, channel: &str, user: &str) -> Result<()> {
        let form = [("channel", channel), ("users", user)];
        let said = self.write(api::INVITE, channel, &form).await;
        found(said, "already_in_channel").map(|_: Option<Nothing>| ())
    }

    /// Archives a channel. The bot is out of it then, and cannot bring it back. Done as well if it is archived.
    pub async fn archive(&self, channel: &str) -> Result<()> {
        let form = [("channel", channel)];
        let said = self.write(api::ARCHIVE, channel, &form).await;
        found(said, "already_archived").map(|_: Option<Nothing>| ())
    }

    /// Posts a message, links in it not unfolded. Posting it twice makes two.
    pub async fn post(&self, channel: &str, post: &Post) -> Result<Posted> {
        let (blocks, attachments) = (json(&post.blocks), json(&post.attachments));
        let mut form = vec![
            ("channel", channel),
            ("text", &post.text),
            ("unfurl_links", "false"),
            ("unfurl_media", "false"),
        ];
        let parts = [
            ("blocks", &blocks),
            ("attachments", &attachments),
            ("thread_ts", &post.thread_ts),
        ];
        let parts = parts.into_iter();
        form.extend(parts.filter_map(|(name, value)| Some((name, value.as_deref()?))));
        self.write(api::POST, channel, &form)
            .await
            .map(Sent::posted)
    }

    /// Makes a message of the bot's own into this one. What `post` does not have, the message has no longer.
    pub async fn update(&self, channel: &str, ts: &str, post: &Post) -> Result<Posted> {
        let (blocks, attachments) = (json(&post.blocks), json(&post.attachments));
        // Left out, they would stay as they are.
        let or_none = |list: Option<String>| list.unwrap_or_else(|| "[]".into());
        let (blocks, attachments) = (or_none(blocks), or_none(attachments));
        let form = [
            ("channel", channel),
            ("ts", ts),
            ("text", &post.text),
            ("blocks", &blocks),
            ("attachments", &attachments),
        ];
        self.write(api::UPDATE, channel, &form)
            .await
            .map(Sent::posted)
    }

    /// All pages of a list. A page may be short or empty and still not be the last.
    async fn pages<T: DeserializeOwned>(
        &self,
        api: &'static str,
        about: &str,
        form: &[(&str, &str)],
        priority: Priority,
    ) -> Result<Vec<T>> {
        #[derive(Deserialize)]
        struct Page<T> {
            #[serde(flatten)]
            things: T,
            response_metadata: Option<Metadata>,
        }
        #[derive(Deserialize)]
        struct Metadata {
            next_cursor: Option<String>,
        }
        let mut seen = HashSet::new();
        let (mut pages, mut cursor) = (Vec::new(), String::new());
        loop {
            let mut form = form.to_vec();
            form.push(("limit", PAGE));
            if !cursor.is_empty() {
                form.push(("cursor", &cursor));
            }
            let (page, _) = self.read(api, about, &form, priority).await?;
            let Page {
                things,
                response_metadata,
            } = page;
            pages.push(things);
            let next = response_metadata.and_then(|metadata| metadata.next_cursor);
            cursor = next.unwrap_or_default();
            if cursor.is_empty() {
                return Ok(pages);
            }
            if pages.len() >= PAGES || !seen.insert(cursor.clone()) {
                return Err(call(api, about, false).endless(pages.len()));
            }
        }
    }

    /// A call that changes nothing, once the quota allows it.
    async fn read<T: DeserializeOwned>(
        &self,
        api: &'static str,
        about: &str,
        form: &[(&str, &str)],
        priority: Priority,
    ) -> Result<(T, Answer)> {
        let (account, part) = self.quota(api, "");
        let limiter = &self.slack.0.limiter;
        limiter.take(account, part, api, priority).await;
        self.call(api, call(api, about, false), form).await
    }

    /// A call that changes something in, or makes, the channel `about`. It has passed the gate.
    async fn write<T: DeserializeOwned>(
        &self,
        api: &'static str,
        about: &str,
        form: &[(&str, &str)],
    ) -> Result<T> {
        let (answer, _) = self.call(api, call(api, about, true), form).await?;
        Ok(answer)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        api: &'static str,
        call: Call<'_>,
        form: &[(&str, &str)],
    ) -> Result<(T, Answer)> {
        let Base { http, api_url, .. } = &*self.slack.0;
        let request = http
            .post(format!("{api_url}/{}", method(api)))
            .bearer_auth(self.token.reveal())
            .form(form);
        let read = |answer: Answer| {
            let said = call
                .answered(&answer)
                .and_then(|body| T::deserialize(body).map_err(|_| call.strange(answer.status)));
            let outcome = said.as_ref().map_or_else(Refusal::outcome, |_| "ok");
            (said.map(|said| (said, answer)), outcome)
        };
        let exchanged = self.slack.exchange(call, method(api), request, read).await;
        exchanged
            .and_then(|said| said)
            .map_err(|refusal| refusal.without(&self.token))
    }
}

/// What Slack calls a method.
fn method(api: &str) -> &str {
    api.strip_prefix("slack:").unwrap_or(api)
}

fn call<'a>(api: &'a str, about: &'a str, writes: bool) -> Call<'a> {
    Call {
        method: method(api),
        about,
        writes,
    }
}

/// What was found; a refusal by this code says that there is nothing, or nothing to do.
fn found<T>(said: Result<T>, code: &str) -> Result<Option<T>> {
    match said {
        Err(refusal) if refusal.code == code => Ok(None),
        said => said.map(Some),
    }
}

/// `chat:write,channels:read` as a set.
fn scopes_of(text: &str) -> BTreeSet<String> {
    let scopes = text.split(',').map(str::trim);
    let scopes = scopes.filter(|scope| !scope.is_empty());
    scopes.map(str::to_owned).collect()
}

fn json(value: &Option<Value>) -> Option<String> {
    value.as_ref().map(Value::to_string)
}

/// Text as people wrote it. Slack gives `&`, `<` and `>` back as `&amp;`, `&lt;` and `&gt;`, and addresses as
/// `<https://…>` or `<http://…|…>`. To compare, make both sides plain.
pub fn plain(text: &str) -> String {
    let (mut plain, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, link)) = rest.split_once('<') {
        plain += before;
        let inner = link.split_once('>');
        let address = inner.and_then(|(inner, _)| {
            let (target, label) = inner.split_once('|').unwrap_or((inner, inner));
            let is_address = ["https://", "http://", "mailto:"]
                .iter()
                .any(|scheme| target.starts_with(scheme));
            is_address.then_some(label)
        });
        match (inner, address) {
            (Some((_, after)), Some(address)) => {
                plain += address;
                rest = after;
            }
            _ => {
                plain.push('<');
                rest = link;
            }
        }
    }
    plain += rest;
    // The last of them last: what it leaves is not looked at again.
    plain
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}

/// An answer that need not say any more.
#[derive(Deserialize)]
struct Nothing {}

#[derive(Deserialize)]
struct Holding {
    channel: Raw,
}

#[derive(Deserialize)]
struct Sent {
    channel: String,
    ts: String,
}

impl Sent {
    fn posted(self) -> Posted {
        let Self { channel, ts } = self;
        Posted { channel, ts }
    }
}

/// A channel as Slack writes it.
#[derive(Deserialize)]
struct Raw {
    id: String,
    name: Option<String>,
    is_private: Option<bool>,
    is_archived: Option<bool>,
    is_member: Option<bool>,
    creator: Option<String>,
    created: Option<i64>,
    topic: Option<Text>,
    purpose: Option<Text>,
    num_members: Option<i64>,
}

#[derive(Deserialize)]
struct Text {
    value: Option<String>,
}

impl From<Raw> for Channel {
    fn from(raw: Raw) -> Self {
        let text = |text: Option<Text>| {
            let value = text.and_then(|text| text.value);
            plain(&value.unwrap_or_default())
        };
        Self {
            id: raw.id,
            name: raw.name.unwrap_or_default(),
            is_private: raw.is_private.unwrap_or_default(),
            is_archived: raw.is_archived.unwrap_or_default(),
            is_member: raw.is_member.unwrap_or_default(),
            creator: raw.creator.unwrap_or_default(),
            created: raw.created.unwrap_or_default(),
            topic: text(raw.topic),
            purpose: text(raw.purpose),
            members: raw.num_members,
        }
    }
}
