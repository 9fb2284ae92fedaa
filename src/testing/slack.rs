//! A Slack workspace: what the Web API answers to the calls that we make, whatever the token, and an incoming
//! webhook that lives.

use super::{Broken, Call, Calls, pairs};
use crate::clients::http::{Answer, Lost, tests::DOUBLES};
use futures::FutureExt as _;
use jiff::Timestamp;
use parking_lot::Mutex;
use reqwest::{
    Request,
    header::{CONTENT_TYPE, HeaderMap},
};
use serde_json::{Value as Json, json};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What a bot may do here.
const SCOPES: &str = "channels:join,channels:manage,channels:read,channels:write.invites,chat:write,\
    chat:write.public,groups:read,groups:write,groups:write.invites,users:read,users:read.email";

/// A workspace. Clones are the same one.
#[derive(Clone)]
pub struct Slack {
    host: String,
    /// The channels by id, as Slack describes them, with who was invited.
    channels: Arc<Mutex<BTreeMap<String, Json>>>,
    messages: Arc<Mutex<Vec<Message>>>,
    calls: Calls,
}

/// What was posted.
#[derive(Clone, Debug)]
pub struct Message {
    /// The channel's id; empty where a webhook posted it.
    pub channel: String,
    /// What tells it from others.
    pub ts: String,
    /// What it answers, if anything.
    pub thread_ts: Option<String>,
    /// What it has said, the last now.
    pub texts: Vec<String>,
}

impl Slack {
    /// Without a channel.
    pub fn new(calls: &Calls) -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let slack = Self {
            host: format!("slack-{number}.test"),
            channels: Arc::default(),
            messages: Arc::default(),
            calls: calls.clone(),
        };
        let (host, double) = (slack.host.clone(), slack.clone());
        let answer = move |request| double.clone().answer(request).boxed();
        DOUBLES.lock().insert(host, Arc::new(answer));
        slack
    }

    /// Another one with all channels that are there now.
    pub fn copy(&self, calls: &Calls) -> Self {
        let copy = Self::new(calls);
        copy.channels.lock().clone_from(&self.channels.lock());
        copy
    }

    /// Where it is: the methods' names follow after a slash.
    pub fn url(&self) -> String {
        format!("http://{}/api", self.host)
    }

    /// The URL of an incoming webhook.
    pub fn webhook(&self) -> String {
        format!("http://{}/services/T0/B0/canary", self.host)
    }

    /// All that was posted, in order.
    pub fn messages(&self) -> Vec<Message> {
        self.messages.lock().clone()
    }

    /// All channels, by id.
    pub fn channels(&self) -> BTreeMap<String, Json> {
        self.channels.lock().clone()
    }

    /// Changes a channel behind our back, or makes one.
    pub fn edit(&self, id: &str, edit: impl FnOnce(&mut Json)) {
        edit(self.channels.lock().entry(id.to_owned()).or_default());
    }

    async fn answer(self, request: Request) -> Result<Answer, Lost> {
        let path = request.url().path().to_owned();
        let method = path.strip_prefix("/api/").unwrap_or("webhook");
        let body = request.body().and_then(|body| body.as_bytes());
        let body = std::str::from_utf8(body.unwrap_or_default()).unwrap();
        let form: BTreeMap<String, String> = match serde_json::from_str::<Json>(body) {
            Ok(json) => {
                let text = json["text"].as_str().unwrap_or_default();
                [("text".to_owned(), text.to_owned())].into()
            }
            Err(_) => pairs(body).into_iter().collect(),
        };
        let field = |name: &str| form.get(name).map_or("", String::as_str);
        let reads = [
            "auth.",
            ".list",
            ".info",
            ".lookup",
            "webhook",
            ".getPermalink",
        ];
        let call = Call {
            system: "slack",
            operation: method.to_owned(),
            subject: format!("{}{}", field("channel"), field("name")),
            writes: !field("text").is_empty() || !reads.iter().any(|read| method.contains(read)),
        };
        let done = || self.serve(method, &field);
        let (status, mut said) = match self.calls.take(call, done).await {
            Ok(Ok(said)) => (200, said),
            Ok(Err(code)) => (200, json!({"error": code})),
            Err(Broken::Refused(status, code)) => (status, json!({"error": code})),
            Err(Broken::Cut) => {
                let text = "the connection was cut".to_owned();
                return Err(Lost { sent: true, text });
            }
            Err(Broken::Answered(status, kind, body)) => {
                return Ok(Answer {
                    status,
                    headers: [(CONTENT_TYPE, kind.parse().unwrap())]
                        .into_iter()
                        .collect(),
                    body: body.into(),
                });
            }
        };
        said["ok"] = json!(said["error"].is_null());
        let (status, body) = match (method, said["error"].as_str()) {
            ("webhook", _) if field("text").is_empty() => {
                (400, "missing_text_or_fallback_or_attachments".into())
            }
            ("webhook", code) => (status, code.unwrap_or("ok").into()),
            _ => (status, said.to_string().into()),
        };
        let mut headers = HeaderMap::new();
        if status == 429 {
            headers.insert("retry-after", "30".parse().unwrap());
        }
        headers.insert("x-oauth-scopes", SCOPES.parse().unwrap());
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    /// Posts a message; its `ts`.
    fn post<'a>(&self, field: &impl Fn(&str) -> &'a str) -> String {
        let mut messages = self.messages.lock();
        let ts = format!("{}.000100", messages.len() + 1);
        let thread = Some(field("thread_ts")).filter(|ts| !ts.is_empty());
        messages.push(Message {
            channel: field("channel").to_owned(),
            ts: ts.clone(),
            thread_ts: thread.map(str::to_owned),
            texts: vec![field("text").to_owned()],
        });
        ts
    }

    fn serve<'a>(
        &self,
        method: &str,
        field: &impl Fn(&str) -> &'a str,
    ) -> Result<Json, &'static str> {
        let mut channels = self.channels.lock();
        match method {
            "webhook" if field("text").is_empty() => return Ok(json!({})),
            "webhook" => return Ok(json!({"ts": self.post(field)})),
            "auth.test" => {
                return Ok(
                    json!({"team_id": "T0", "team": "vsu", "user_id": "U0", "bot_id": "B0",
                    "url": "https://vsu.slack.com/"}),
                );
            }
            "users.lookupByEmail" => return Ok(json!({"user": {"id": field("email")}})),
            "conversations.list" => {
                let all: Vec<_> = channels.values().cloned().collect();
                return Ok(json!({"channels": all}));
            }
            "conversations.create" => {
                let name = field("name");
                if channels.values().any(|channel| channel["name"] == name) {
                    return Err("name_taken");
                }
                let id = format!("C{}", channels.len());
                let made = json!({"id": id, "name": name, "is_member": true, "creator": "U0",
                    "is_private": field("is_private") == "true", "num_members": 1, "created": Timestamp::now().as_second()});
                channels.insert(id, made.clone());
                return Ok(json!({"channel": made}));
            }
            _ => {}
        }
        let channel = channels
            .get_mut(field("channel"))
            .ok_or("channel_not_found")?;
        match method {
            "chat.postMessage" => {
                return Ok(json!({"channel": field("channel"), "ts": self.post(field)}));
            }
            "chat.update" => {
                let mut messages = self.messages.lock();
                let at = (field("channel"), field("ts"));
                let mut messages = messages.iter_mut();
                let message = messages.find(|known| (&*known.channel, &*known.ts) == at);
                let message = message.ok_or("message_not_found")?;
                message.texts.push(field("text").to_owned());
                return Ok(json!({"channel": at.0, "ts": at.1}));
            }
            "conversations.info" => {}
            "conversations.join" => channel["is_member"] = json!(true),
            "conversations.rename" => channel["name"] = json!(field("name")),
            "conversations.setTopic" => channel["topic"] = json!({"value": stored(field("topic"))}),
            "conversations.setPurpose" => {
                channel["purpose"] = json!({"value": stored(field("purpose"))});
            }
            "conversations.archive" => {
                (channel["is_archived"], channel["is_member"]) = (json!(true), json!(false));
            }
            "conversations.invite" => channel["invited"][field("users")] = json!(true),
            _ => return Err("unknown_method"),
        }
        Ok(json!({"channel": channel}))
    }
}

/// What Slack makes of a text: emoji by their names, and what would be markup as entities.
fn stored(text: &str) -> String {
    let named = text.replace('\u{1f525}', ":fire:");
    named
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
