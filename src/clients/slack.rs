//! Slack: what a bot may do by the Web API, incoming webhooks, and what Slack's refusals mean.
//!
//! Every method is a POST of a form, which all of them take; JSON is for some of them only. What reads
//! waits for Slack's quota; what writes has passed the gate, which has waited for it. A secret is in the requests alone: no error, log or metric has it.

mod credential;
mod refusal;
#[cfg(test)]
mod tests;
mod text;

#[cfg(test)]
pub(super) use refusal::tests::all;

pub use credential::{bot_token, missing_scopes, webhook_url};
pub use refusal::{Refusal, add_scopes};
pub use text::{clip, escape, plain};

use super::{
    aws::{Observer, Request},
    http::{self, Answer},
};
use crate::{
    api::notification::Posted,
    clients::secret::Secret,
    engine::{
        error::Class,
        gate::{Operation, WritePermit},
        limits::{Limiter, Priority},
        rendering::hex,
    },
};
use refusal::Call;
use reqwest::{Client, RequestBuilder};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    future::Future,
    sync::Arc,
    time::Instant,
};

/// A message by an incoming webhook, or a look whether it lives, as the limiter, the gate and the audit line call it.
/// Methods of the Web API are called `slack:` and Slack's own name.
pub const WEBHOOK: &str = "slack:webhook";

/// All channels that a bot sees.
const LIST: &str = "slack:conversations.list";

/// The most of a list that one page may hold.
const PAGE: &str = "1000";

/// More pages than any workspace has: a list that goes on after them has no end.
const PAGES: usize = 1000;

/// What a call came to.
pub type Result<T> = std::result::Result<T, Refusal>;

/// Slack, for whoever has a token or a webhook's URL. Clones share all.
#[derive(Clone)]
pub struct Slack {
    http: Client,
    api_url: Arc<str>,
    limiter: Arc<Limiter>,
    observe: Observer,
}

impl fmt::Debug for Slack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slack({})", self.api_url)
    }
}

impl Slack {
    /// `api_url` is what the methods' names follow after a slash: `https://slack.com/api`. `observe` is
    /// told of every request, webhooks included, as those of AWS are.
    pub fn new(http: Client, api_url: &str, limiter: Arc<Limiter>, observe: Observer) -> Self {
        Self {
            http,
            api_url: api_url.trim_end_matches('/').into(),
            limiter,
            observe,
        }
    }

    /// Slack as this bot. `key` stands for the token wherever it must not be seen: as the account whose quota a
    /// call counts against, and in what logs say. A digest, so the same for the same token alone.
    pub fn bot(&self, token: Secret, key: String) -> Bot {
        Bot {
            slack: self.clone(),
            token,
            key,
        }
    }

    /// Posts a message by an incoming webhook, which takes no thread.
    pub async fn post_webhook(&self, _: &WritePermit<'_>, url: &Secret, post: &Post) -> Result<()> {
        let message = json!({
            "text": post.text,
            "blocks": post.blocks,
            "unfurl_links": false,
            "unfurl_media": false,
        });
        self.call_webhook(url, &message, true).await
    }

    /// Whether an incoming webhook lives, by what it says to a message with nothing in it: there is no
    /// other way, and nothing is posted. What says neither is an error.
    pub async fn probe_webhook(&self, url: &Secret, priority: Priority) -> Result<Webhook> {
        let account = hex(&Sha256::digest(url.reveal()));
        let nothing = json!({});
        let said = self.call_webhook(url, &nothing, false);
        match self.read(&account, WEBHOOK, priority, said).await {
            Ok(()) => Ok(Webhook::Alive),
            Err(refusal) if refusal::is_dead(&refusal.code) => {
                Ok(Webhook::Revoked(refusal.error.message))
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// A call that changes nothing, once the quota allows it; an error where Slack asked to be left alone.
    async fn read<T>(
        &self,
        account: &str,
        api: &str,
        priority: Priority,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let limiter = &self.limiter;
        if let Some(error) = limiter.paused(account, "", api) {
            let code = String::new();
            return Err(Refusal { code, error });
        }
        limiter.take(account, "", api, priority).await;
        let said = call.await;
        limiter.request_finished(account, "", api, said.is_ok());
        if let Err(refusal) = &said {
            limiter.pause(account, "", api, &refusal.error);
        }
        said
    }

    /// A probe does not write, and is answered by a refusal.
    async fn call_webhook(&self, url: &Secret, message: &Value, writes: bool) -> Result<()> {
        let call = Call {
            api: WEBHOOK,
            about: "",
            writes,
        };
        let request = self.http.post(url.reveal()).json(message);
        let read = |answer: &Answer| match call.parse_webhook_response(answer) {
            Err(refusal) if !writes && refusal::is_alive(answer.status, &refusal) => Ok(()),
            said => said,
        };
        let said = self.exchange(call, request, url, read).await;
        said.map(|_| ())
    }

    /// Sends a request, reads its answer, and tells whoever counts what became of it.
    async fn exchange<T>(
        &self,
        call: Call<'_>,
        request: RequestBuilder,
        secret: &Secret,
        read: impl FnOnce(&Answer) -> Result<T>,
    ) -> Result<(T, Answer)> {
        let began = Instant::now();
        let answer = http::exchange(request).await;
        let took = began.elapsed();
        let is_lost = answer.is_err();
        let answer = answer.map_err(|lost| call.lost(&lost));
        let read = answer.and_then(|answer| Ok((read(&answer)?, answer)));
        (self.observe)(Request {
            service: "slack",
            operation: call.method(),
            outcome: match &read {
                Ok(_) => "ok",
                Err(_) if is_lost => "no answer",
                Err(refusal) => refusal.outcome(),
            },
            took,
        });
        read.map_err(|refusal| refusal.without(secret))
    }
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
#[derive(Clone, Debug)]
pub struct Bot {
    slack: Slack,
    token: Secret,
    key: String,
}

/// What a token is good for.
#[derive(Deserialize, Clone, Debug, PartialEq, Eq)]
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
    #[serde(skip)]
    pub scopes: Option<BTreeSet<String>>,
}

/// A channel, as the bot sees it.
#[derive(Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Its id, `C…`. May change, though seldom.
    pub id: String,
    /// Its name, without `#`.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// Whether it is private.
    #[serde(default, deserialize_with = "or_default")]
    pub is_private: bool,
    /// Whether it is archived.
    #[serde(default, deserialize_with = "or_default")]
    pub is_archived: bool,
    /// Whether the bot is in it.
    #[serde(default, deserialize_with = "or_default")]
    pub is_member: bool,
    /// Who made it: a user's id, empty where Slack does not say.
    #[serde(default, deserialize_with = "or_default")]
    pub creator: String,
    /// When, in seconds since 1970; 0 where Slack does not say.
    #[serde(default, deserialize_with = "or_default")]
    pub created: i64,
    /// Its topic, as [`plain`] text.
    #[serde(default, deserialize_with = "text")]
    pub topic: String,
    /// Its purpose, as [`plain`] text.
    #[serde(default, deserialize_with = "text")]
    pub purpose: String,
    /// How many are in it; `None` where Slack does not say.
    #[serde(rename = "num_members")]
    pub members: Option<i64>,
}

/// What may be `null` as well as left out.
fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
) -> std::result::Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

fn text<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<String, D::Error> {
    #[derive(Deserialize)]
    struct Text {
        value: Option<String>,
    }
    let text = Option::<Text>::deserialize(from)?;
    let value = text.and_then(|text| text.value);
    Ok(plain(&value.unwrap_or_default()))
}

/// A message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Post {
    /// The text in Slack's mrkdwn, what is from elsewhere escaped; where there are blocks, what
    /// notifications show. At most 40 000 characters.
    pub text: String,
    /// A list of blocks, at most 50.
    pub blocks: Value,
    /// The message that it answers, by its `ts`. Counts when it is posted only.
    pub thread_ts: Option<String>,
}

/// What an answer says of one channel.
#[derive(Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct OneChannel {
    /// The channel.
    pub channel: Channel,
}

impl Bot {
    /// Whose the token is, and what it may do.
    pub async fn auth_test(&self, priority: Priority) -> Result<Workspace> {
        let (workspace, answer) = self.read("slack:auth.test", "", &[], priority).await?;
        let scopes = answer.headers.get("x-oauth-scopes");
        let scopes = scopes.and_then(|scopes| scopes.to_str().ok());
        Ok(Workspace {
            scopes: scopes.map(scopes_of),
            ..workspace
        })
    }

    /// All public channels, archived ones too, and where `private` is true those private ones that the bot
    /// is in. A list that does not come whole is an error.
    pub async fn list_channels(&self, private: bool, priority: Priority) -> Result<Vec<Channel>> {
        #[derive(Deserialize)]
        struct Page {
            channels: Vec<Channel>,
            response_metadata: Option<Metadata>,
        }
        #[derive(Deserialize)]
        struct Metadata {
            next_cursor: Option<String>,
        }
        let types = if private {
            "public_channel,private_channel"
        } else {
            "public_channel"
        };
        let (mut channels, mut cursor, mut seen) = (Vec::new(), String::new(), HashSet::new());
        // A page may be short or empty and still not be the last.
        while seen.len() < PAGES && seen.insert(cursor.clone()) {
            let mut form = vec![
                ("types", types),
                ("exclude_archived", "false"),
                ("limit", PAGE),
            ];
            if !cursor.is_empty() {
                form.push(("cursor", &cursor));
            }
            let (page, _): (Page, _) = self.read(LIST, types, &form, priority).await?;
            channels.extend(page.channels);
            let metadata = page.response_metadata;
            cursor = metadata
                .and_then(|metadata| metadata.next_cursor)
                .unwrap_or_default();
            if cursor.is_empty() {
                return Ok(channels);
            }
        }
        Err(call(LIST, types, false).pagination_loop())
    }

    /// The channel with this id; `None` where there is none, or none that the bot can see.
    pub async fn channel(&self, id: &str, priority: Priority) -> Result<Option<Channel>> {
        let form = [("channel", id), ("include_num_members", "true")];
        let said = self
            .read("slack:conversations.info", id, &form, priority)
            .await;
        let found = unless(said, "channel_not_found")?;
        Ok(found.map(|(OneChannel { channel }, _)| channel))
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
        let said = self
            .read("slack:users.lookupByEmail", email, &form, priority)
            .await;
        let user = unless(said, "users_not_found")?.map(|(Answered { user }, _)| user);
        let user = user.filter(|user| user.deleted != Some(true));
        Ok(user.map(|user| user.id))
    }

    /// Posts a message, links in it not unfolded, or makes the one of the `ts` that it `edits`, which must be the
    /// bot's own, into this one. Posting it twice makes two.
    pub async fn post(
        &self,
        permit: &WritePermit<'_>,
        channel: &str,
        edits: Option<&str>,
        post: &Post,
    ) -> Result<Posted> {
        let blocks = post.blocks.to_string();
        let mut form = vec![
            ("channel", channel),
            ("text", &post.text),
            ("blocks", &blocks),
        ];
        if let Some(ts) = edits {
            form.push(("ts", ts));
        } else {
            form.extend([("unfurl_links", "false"), ("unfurl_media", "false")]);
            form.extend(post.thread_ts.iter().map(|ts| ("thread_ts", ts.as_str())));
        }
        self.write(permit, channel, &form).await
    }

    async fn read<T: DeserializeOwned>(
        &self,
        api: &'static str,
        about: &str,
        form: &[(&str, &str)],
        priority: Priority,
    ) -> Result<(T, Answer)> {
        let said = self.call(call(api, about, false), form);
        self.slack.read(&self.key, api, priority, said).await
    }

    /// Makes the call that was admitted, which changes, or makes, the channel `about`.
    pub async fn write<T: DeserializeOwned>(
        &self,
        permit: &WritePermit<'_>,
        about: &str,
        form: &[(&str, &str)],
    ) -> Result<T> {
        let Operation { account, api, .. } = permit.operation();
        if *account != self.key {
            let message = format!("the permit for {api} is of another token: this is a bug");
            return Err(Refusal::new("", Class::Unavailable, message));
        }
        let (said, _) = self.call(call(api, about, true), form).await?;
        Ok(said)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        call: Call<'_>,
        form: &[(&str, &str)],
    ) -> Result<(T, Answer)> {
        let Slack { http, api_url, .. } = &self.slack;
        let request = http.post(format!("{api_url}/{}", call.method()));
        let request = request.bearer_auth(self.token.reveal()).form(form);
        let read = |answer: &Answer| {
            let body = call.parse_response(answer)?;
            T::deserialize(body).map_err(|_| call.unexpected_response(answer))
        };
        self.slack.exchange(call, request, &self.token, read).await
    }
}

fn call<'a>(api: &'static str, about: &'a str, writes: bool) -> Call<'a> {
    Call { api, about, writes }
}

/// What was answered; `None` where a refusal by this code says that there is nothing, or nothing to do.
fn unless<T>(said: Result<T>, code: &str) -> Result<Option<T>> {
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
