use super::{
    super::http::tests::{direct, hanging_up, nowhere, serve},
    *,
};
use crate::engine::error::{Class, Error};
use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode, Uri, header},
};
use reqwest::Url;
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

/// What must be in the requests alone.
const TOKEN: &str = "xoxb-1234-canary";
const HOOK: &str = "/services/T1/B1/canary";

/// Status, headers and body.
type Reply = (u16, &'static [(&'static str, &'static str)], String);

/// Says to all requests what it was told to say, the last for ever, and remembers them.
#[derive(Default)]
struct Record {
    replies: Vec<Reply>,
    /// Path, bearer and content type, and the form or the JSON.
    requests: Vec<(String, String, Value)>,
    /// Operation and outcome.
    observed: Vec<(String, String)>,
}

struct Fake {
    url: String,
    record: Arc<Mutex<Record>>,
    limiter: Arc<Limiter>,
    slack: Slack,
}

impl Fake {
    /// So that no test waits, whatever Slack's own rates are.
    fn at(url: String, record: Arc<Mutex<Record>>) -> Self {
        let fast = [WEBHOOK, LIST, INFO];
        let fast = fast.map(|api| (api.to_owned(), 1000.0)).into();
        Self::paced(url, record, &fast)
    }

    fn paced(url: String, record: Arc<Mutex<Record>>, rates: &BTreeMap<String, f64>) -> Self {
        let limiter = Arc::new(Limiter::new(rates));
        let observed = record.clone();
        let observe: Observer = Arc::new(move |request| {
            assert_eq!(request.service, "slack");
            let (operation, outcome) = (request.operation.to_owned(), request.outcome.to_owned());
            observed.lock().unwrap().observed.push((operation, outcome));
        });
        let slack = Slack::new(direct(), &format!("{url}/api/"), limiter.clone(), observe);
        Self {
            url,
            record,
            limiter,
            slack,
        }
    }

    async fn start() -> Self {
        let record = Arc::new(Mutex::new(Record::default()));
        let shared = record.clone();
        let answer = async move |uri: Uri, headers: HeaderMap, body: Bytes| {
            let text = |name| headers.get(name).map_or("", |text| text.to_str().unwrap());
            let who = format!(
                "{} {}",
                text(header::AUTHORIZATION),
                text(header::CONTENT_TYPE)
            );
            let mut record = shared.lock().unwrap();
            record
                .requests
                .push((uri.path().to_owned(), who.trim().to_owned(), read(&body)));
            let reply = if record.replies.len() > 1 {
                record.replies.remove(0)
            } else {
                record.replies[0].clone()
            };
            let (status, more, body) = reply;
            let more: HeaderMap = more
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .collect::<HeaderMap>();
            (StatusCode::from_u16(status).unwrap(), more, body)
        };
        Self::at(serve(Router::new().fallback(answer)).await, record)
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap()
    }

    fn says(&self, replies: impl IntoIterator<Item = Value>) {
        let replies = replies.into_iter();
        self.record().replies = replies
            .map(|reply| (200, &[] as &[_], reply.to_string()))
            .collect();
    }

    fn answers(
        &self,
        status: u16,
        headers: &'static [(&'static str, &'static str)],
        body: impl Into<String>,
    ) {
        self.record().replies = vec![(status, headers, body.into())];
    }

    fn bot(&self) -> Bot {
        self.slack.bot(Secret::new(TOKEN.into()), "hmac:1".into())
    }

    fn hook(&self) -> Secret {
        Secret::new(format!("{}{HOOK}", self.url))
    }

    /// What was asked since the last time.
    fn asked(&self) -> Vec<(String, String, Value)> {
        std::mem::take(&mut self.record().requests)
    }

    fn observed(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.record().observed)
    }
}

/// A form as an object of strings, or JSON.
fn read(body: &[u8]) -> Value {
    if let Ok(value) = serde_json::from_slice(body) {
        return value;
    }
    let query = String::from_utf8(body.to_vec()).unwrap();
    let url = Url::parse(&format!("http://form/?{query}")).unwrap();
    url.query_pairs()
        .map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())))
        .collect()
}

fn channel(id: &str) -> Value {
    json!({
        "id": id, "name": "runs", "is_private": false, "is_archived": false, "is_member": true,
        "creator": "U1", "created": 1_700_000_000, "num_members": 3,
        "topic": {"value": "Q&amp;A &lt;3 <https://a.example|a.example>", "creator": "U1", "last_set": 1},
        "purpose": {"value": ""},
        "something_new": {"of": ["Slack's"]}
    })
}

const INFO: &str = "slack:conversations.info";
const JOIN: &str = "slack:conversations.join";
const SET_TOPIC: &str = "slack:conversations.setTopic";

const EDIT: Priority = Priority::Edit;

/// As if the gate had admitted a call.
fn permit(api: &'static str) -> WritePermit<'static> {
    WritePermit::unchecked(Operation {
        endpoint: "slack",
        account: "hmac:1",
        region: "",
        identity: "a test",
        api,
    })
}

#[tokio::test]
async fn a_permit_is_of_one_token() {
    let fake = Fake::start().await;
    let operation = Operation {
        account: "hmac:2",
        ..*permit(JOIN).operation()
    };
    let other = WritePermit::unchecked(operation);
    let refused = fake.bot().write::<Value>(&other, "C1", &[]).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("is of another token"), "{refused}");
    let record = fake.record.lock().unwrap();
    assert!(record.requests.is_empty(), "nothing is sent");
}

/// A write about the first field of its form.
async fn write<T: DeserializeOwned>(
    bot: &Bot,
    api: &'static str,
    form: &[(&str, &str)],
) -> Result<T> {
    bot.write(&permit(api), form[0].1, form).await
}

async fn join(bot: &Bot, channel: &str) -> Result<OneChannel> {
    write(bot, JOIN, &[("channel", channel)]).await
}

async fn set_topic(bot: &Bot, topic: &str) -> Result<Value> {
    write(bot, SET_TOPIC, &[("channel", "C1"), ("topic", topic)]).await
}

#[tokio::test]
async fn who_the_token_is() {
    let fake = Fake::start().await;
    let said = json!({
        "ok": true, "team_id": "T1", "team": "Us", "url": "https://us.slack.com/", "user": "bell",
        "user_id": "U1", "bot_id": "B1", "is_enterprise_install": false
    });
    fake.answers(
        200,
        &[("x-oauth-scopes", "chat:write, channels:read,")],
        said.to_string(),
    );
    let workspace = fake.bot().auth_test(EDIT).await.unwrap();
    let scopes = ["chat:write", "channels:read"].map(str::to_owned);
    let expected = Workspace {
        team_id: "T1".into(),
        team: "Us".into(),
        url: "https://us.slack.com/".into(),
        user_id: "U1".into(),
        bot_id: Some("B1".into()),
        scopes: Some(scopes.into()),
    };
    assert_eq!(workspace, expected);
    let who = format!("Bearer {TOKEN} application/x-www-form-urlencoded");
    assert_eq!(fake.asked(), [("/api/auth.test".into(), who, json!({}))]);
    assert_eq!(fake.observed(), [("auth.test".into(), "ok".into())]);
    fake.says([said]);
    let workspace = fake.bot().auth_test(EDIT).await.unwrap();
    assert_eq!(workspace.scopes, None);
}

#[tokio::test]
async fn lists_are_read_to_their_end() {
    let fake = Fake::start().await;
    let page = |ids: &[&str], next: Value| {
        let channels: Vec<_> = ids.iter().map(|id| channel(id)).collect();
        json!({"ok": true, "channels": channels, "response_metadata": next})
    };
    let cursor = |text: &str| json!({"next_cursor": text});
    fake.says([
        page(&["C1", "C2"], cursor("a=")),
        page(&[], cursor("b=")),
        page(&["C3"], cursor("c=")),
        page(&[], cursor("")),
    ]);
    let channels = fake.bot().list_channels(false, EDIT).await.unwrap();
    let ids: Vec<_> = channels.iter().map(|channel| &*channel.id).collect();
    assert_eq!(ids, ["C1", "C2", "C3"]);
    let form = json!({"types": "public_channel", "exclude_archived": "false", "limit": "1000"});
    let forms: Vec<_> = fake.asked().into_iter().map(|(.., form)| form).collect();
    for (form_of_page, cursor) in forms.iter().zip([None, Some("a="), Some("b="), Some("c=")]) {
        let mut form = form.clone();
        if let Some(cursor) = cursor {
            form["cursor"] = cursor.into();
        }
        assert_eq!(*form_of_page, form);
    }
    assert_eq!(forms.len(), 4);

    // Where there is one page alone, it may say nothing of others.
    for metadata in [Value::Null, json!({}), json!({"next_cursor": null})] {
        fake.says([page(&["C1"], metadata)]);
        let channels = fake.bot().list_channels(true, EDIT).await.unwrap();
        assert_eq!(channels.len(), 1);
        let (.., form) = fake.asked().remove(0);
        assert_eq!(form["types"], "public_channel,private_channel");
    }
}

#[tokio::test]
async fn a_list_that_has_no_end_or_breaks_off_is_an_error() {
    let fake = Fake::start().await;
    let page = |next: &str| json!({"ok": true, "channels": [channel("C1")], "response_metadata": {"next_cursor": next}});
    let failed = |code: &str| json!({"ok": false, "error": code});
    // Sends the first cursor again at once, or after another.
    for (replies, requests) in [
        (vec![page("a")], 2),
        (vec![page("a"), page("b"), page("a")], 3),
        (vec![page("a"), failed("invalid_cursor")], 2),
        (vec![page("a"), failed("internal_error")], 2),
        (vec![page("a"), json!({"ok": true})], 2),
    ] {
        fake.says(replies);
        let refusal = fake.bot().list_channels(false, EDIT).await.unwrap_err();
        assert_eq!(refusal.error.class, Class::Unavailable, "{refusal}");
        assert_eq!(fake.asked().len(), requests, "{refusal}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_no_error() {
    let fake = Fake::start().await;
    let bot = fake.bot();
    fake.says([json!({"ok": true, "channel": channel("C1")})]);
    let found = bot.channel("C1", EDIT).await.unwrap().unwrap();
    let expected = Channel {
        id: "C1".into(),
        name: "runs".into(),
        is_private: false,
        is_archived: false,
        is_member: true,
        creator: "U1".into(),
        created: 1_700_000_000,
        topic: "Q&A <3 a.example".into(),
        purpose: String::new(),
        members: Some(3),
    };
    assert_eq!(found, expected);
    let (path, _, form) = fake.asked().remove(0);
    assert_eq!(path, "/api/conversations.info");
    assert_eq!(
        form,
        json!({"channel": "C1", "include_num_members": "true"})
    );
    fake.says([json!({"ok": true, "user": {"id": "U1", "deleted": false}})]);
    let user = async |bot: &Bot| bot.user_by_email("a+b@c.example", EDIT).await;
    assert_eq!(user(&bot).await.unwrap().as_deref(), Some("U1"));
    assert_eq!(fake.asked().remove(0).2, json!({"email": "a+b@c.example"}));
    fake.says([json!({"ok": true, "user": {"id": "U1", "deleted": true}})]);
    assert_eq!(user(&bot).await.unwrap(), None);

    fake.says([json!({"ok": false, "error": "channel_not_found"})]);
    assert_eq!(bot.channel("C1", EDIT).await.unwrap(), None);
    assert_eq!(user(&bot).await.unwrap_err().code, "channel_not_found");
    fake.says([json!({"ok": false, "error": "users_not_found"})]);
    assert_eq!(user(&bot).await.unwrap(), None);
    assert_eq!(
        bot.channel("C1", EDIT).await.unwrap_err().code,
        "users_not_found"
    );
    // Nor does an answer that says nothing mean that nothing is there.
    for said in [
        json!({"ok": true}),
        json!({}),
        json!(null),
        json!({"ok": false}),
    ] {
        fake.says([said]);
        let refusal = bot.channel("C1", EDIT).await.unwrap_err();
        assert_eq!(refusal.error.class, Class::Unavailable, "{refusal}");
        assert_eq!(refusal.code, "");
    }
}

#[tokio::test]
async fn writes_say_what_slack_reads() {
    let fake = Fake::start().await;
    let bot = fake.bot();
    fake.says([
        json!({"ok": true, "channel": channel("C1"), "ts": "1.2", "warning": "already_in_channel"}),
    ]);
    let made = [("name", "runs"), ("is_private", "true")];
    let may_make = permit("slack:conversations.create");
    let made: OneChannel = bot.write(&may_make, "runs", &made).await.unwrap();
    assert_eq!(made.channel.id, "C1");
    join(&bot, "C1").await.unwrap();
    set_topic(&bot, "a&b=ü\n").await.unwrap();
    let asked: Vec<_> = fake
        .asked()
        .into_iter()
        .map(|(path, _, form)| (path, form))
        .collect();
    let expected = [
        ("create", json!({"name": "runs", "is_private": "true"})),
        ("join", json!({"channel": "C1"})),
        ("setTopic", json!({"channel": "C1", "topic": "a&b=ü\n"})),
    ];
    let expected = expected.map(|(method, form)| (format!("/api/conversations.{method}"), form));
    assert_eq!(asked, expected);

    fake.says([json!({"ok": true, "channel": "C1", "ts": "1.2", "text": "hi", "message": {}})]);
    let posted = Posted {
        channel: "C1".into(),
        ts: "1.2".into(),
    };
    let post = Post {
        text: "hi".into(),
        blocks: json!([{"type": "divider"}]),
        thread_ts: None,
    };
    let reply = Post {
        thread_ts: Some("1.1".into()),
        ..post.clone()
    };
    let may_post = permit("slack:chat.postMessage");
    for post in [&post, &reply] {
        let sent = bot.post(&may_post, "C1", None, post).await;
        assert_eq!(sent.unwrap(), posted);
    }
    let may_edit = permit("slack:chat.update");
    let updated = bot.post(&may_edit, "C1", Some("1.2"), &post).await;
    assert_eq!(updated.unwrap(), posted);
    let asked: Vec<_> = fake
        .asked()
        .into_iter()
        .map(|(path, _, form)| (path, form))
        .collect();
    let blocks = r#"[{"type":"divider"}]"#;
    let post = json!({"channel": "C1", "text": "hi", "blocks": blocks, "unfurl_links": "false", "unfurl_media": "false"});
    let mut reply = post.clone();
    reply["thread_ts"] = "1.1".into();
    let update = json!({"channel": "C1", "ts": "1.2", "text": "hi", "blocks": blocks});
    let expected = [
        ("postMessage", post),
        ("postMessage", reply),
        ("update", update),
    ];
    let expected = expected.map(|(method, form)| (format!("/api/chat.{method}"), form));
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn what_is_done_already_is_done() {
    let fake = Fake::start().await;
    let bot = fake.bot();
    fake.says([json!({"ok": false, "error": "already_in_channel", "errors": [{"user": "U2", "ok": false, "error": "already_in_channel"}]})]);
    let joined = join(&bot, "C1").await;
    assert_eq!(unless(joined.clone(), "already_in_channel"), Ok(None));
    let refusal = unless(joined, "already_archived").unwrap_err();
    assert_eq!(refusal.code, "already_in_channel");
}

/// What Slack answers, and what it means to a read and to a write.
#[tokio::test]
async fn refusals_are_told_apart() {
    use Class::{Denied, OutcomeUnknown, Rejected, Throttled, Unavailable};
    let fake = Fake::start().await;
    let bot = fake.bot();
    let code = |code: &str| json!({"ok": false, "error": code}).to_string();
    let html = || "<html>upstream</html>".to_owned();
    for (status, body, read, write, says) in [
        (200, code("invalid_auth"), Denied, Denied, "invalid_auth: the token is none of Slack's"),
        (200, code("token_revoked"), Denied, Denied, "new bot token into the Secret"),
        (200, code("missing_scope"), Denied, Denied, "add the scope that this method needs"),
        (200, json!({"ok": false, "error": "missing_scope", "needed": "groups:write", "provided": "chat:write"}).to_string(), Denied, Denied, "add the scope groups:write to the app"),
        (200, json!({"ok": false, "error": "missing_scope", "needed": "<script>"}).to_string(), Denied, Denied, "add the scope that this method needs"),
        (200, json!({"ok": false, "error": "missing_scope", "needed": "groups:read,channels:read"}).to_string(), Denied, Denied, "add the scope groups:read or channels:read to the app"),
        (200, code("ratelimited"), Throttled, Throttled, "throttled: Slack: "),
        (429, code("ratelimited"), Throttled, Throttled, "throttled: Slack: "),
        (429, html(), Throttled, Throttled, "throttled: Slack: "),
        (429, String::new(), Throttled, Throttled, "throttled: Slack: "),
        (200, code("rate_limited"), Throttled, Throttled, "rate_limited"),
        (200, code("internal_error"), Unavailable, OutcomeUnknown, "internal_error"),
        (503, code("service_unavailable"), Unavailable, OutcomeUnknown, "service_unavailable"),
        (500, code("name_taken"), Unavailable, OutcomeUnknown, "name_taken"),
        (200, code("team_added_to_org"), Unavailable, Unavailable, "this passes"),
        (500, html(), Unavailable, OutcomeUnknown, "HTTP 500"),
        (502, String::new(), Unavailable, OutcomeUnknown, "HTTP 502"),
        (200, html(), Unavailable, OutcomeUnknown, "none of Slack's"),
        (200, "null".into(), Unavailable, OutcomeUnknown, "none of Slack's"),
        (200, r#"{"ok": true}"#.into(), Unavailable, OutcomeUnknown, "none of Slack's"),
        (200, r#"{"ok": "true", "channel": {}}"#.into(), Unavailable, OutcomeUnknown, "none of Slack's"),
        (200, r#"{"ok": false}"#.into(), Unavailable, OutcomeUnknown, "none of Slack's"),
        (200, r#"{"ok": false, "error": "Not A Code"}"#.into(), Unavailable, OutcomeUnknown, "none of Slack's"),
        (302, html(), Unavailable, Unavailable, "is that Slack"),
        (404, html(), Unavailable, Unavailable, "is that Slack"),
        (403, html(), Unavailable, Unavailable, "let through to Slack"),
        (200, code("is_archived"), Rejected, Rejected, "unarchive it"),
        (200, code("name_taken"), Rejected, Rejected, "private or archived"),
        (200, code("invalid_name_specials"), Rejected, Rejected, "a-z"),
        (200, code("a_code_of_tomorrow"), Rejected, Rejected, "a_code_of_tomorrow"),
        (400, code("a_code_of_tomorrow"), Rejected, Rejected, "a_code_of_tomorrow"),
        (200, json!({"ok": false, "error": "invalid_blocks", "response_metadata": {"messages": ["[ERROR] must be\n shorter [json-pointer:/blocks/0]"]}}).to_string(), Rejected, Rejected, "Block Kit: [ERROR] must be shorter [json-pointer:/blocks/0]"),
    ] {
        fake.answers(status, &[], body.clone());
        let refusals = [
            (bot.channel("C7", EDIT).await.unwrap_err(), read, "conversations.info of C7"),
            (join(&bot, "C7").await.unwrap_err(), write, "conversations.join of C7"),
        ];
        for (refusal, class, place) in refusals {
            let Error { class: found, message, wait } = Error::from(refusal);
            assert_eq!(found, class, "{status} {body}: {message}");
            assert!(message.contains(says) && message.contains(place), "{status} {body}: {message}");
            assert_eq!(wait, None);
        }
    }
    let outcomes: BTreeSet<_> = fake
        .observed()
        .into_iter()
        .map(|(_, outcome)| outcome)
        .collect();
    assert_eq!(
        outcomes.into_iter().collect::<Vec<_>>(),
        ["denied", "failing", "refused", "throttled"]
    );
}

#[tokio::test]
async fn the_time_to_stay_away_is_handed_on() {
    let fake = Fake::start().await;
    let half_a_minute = Some(Duration::from_secs(30));
    for (status, body) in [
        (429, r#"{"ok": false, "error": "ratelimited"}"#),
        (429, "slow down"),
        (200, r#"{"ok": false, "error": "ratelimited"}"#),
        (503, r#"{"ok": false, "error": "service_unavailable"}"#),
    ] {
        fake.answers(status, &[("retry-after", "30")], body);
        let refusal = join(&fake.bot(), "C1").await.unwrap_err();
        assert_eq!(refusal.error.wait, half_a_minute, "{status} {body}");
    }
    fake.answers(429, &[("retry-after", "30")], "");
    let refusal = fake
        .slack
        .post_webhook(&permit(WEBHOOK), &fake.hook(), &Post::default())
        .await;
    assert_eq!(refusal.unwrap_err().error.wait, half_a_minute);
}

/// A refused connection has brought nothing there; a broken one may have.
#[tokio::test]
async fn what_never_got_there_is_told_from_what_got_no_answer() {
    let refused = Fake::at(nowhere().await, Arc::default());
    let cut = Fake::at(hanging_up().await, Arc::default());
    for (fake, write) in [
        (&refused, Class::Unavailable),
        (&cut, Class::OutcomeUnknown),
    ] {
        let (slack, bot, hook, post) = (&fake.slack, fake.bot(), fake.hook(), Post::default());
        for (refusal, class) in [
            (
                bot.channel("C1", EDIT).await.unwrap_err(),
                Class::Unavailable,
            ),
            (join(&bot, "C1").await.unwrap_err(), write),
            (
                bot.post(&permit("slack:chat.postMessage"), "C1", None, &post)
                    .await
                    .unwrap_err(),
                write,
            ),
            (
                slack
                    .post_webhook(&permit(WEBHOOK), &hook, &post)
                    .await
                    .unwrap_err(),
                write,
            ),
            (
                slack.probe_webhook(&hook, EDIT).await.unwrap_err(),
                Class::Unavailable,
            ),
        ] {
            assert_eq!(refusal.error.class, class, "{refusal}");
            let shown = format!("{refusal} {refusal:?}");
            assert!(
                !shown.contains("canary") && !shown.contains("127.0.0.1"),
                "{shown}"
            );
        }
        assert!(
            fake.observed()
                .iter()
                .all(|(_, outcome)| outcome == "no answer")
        );
    }
}

#[tokio::test]
async fn webhooks_answer_in_words() {
    use Class::{Denied, OutcomeUnknown, Rejected, Throttled, Unavailable};
    let fake = Fake::start().await;
    let post = Post {
        text: "hi".into(),
        ..Post::default()
    };
    fake.answers(200, &[], "ok");
    fake.slack
        .post_webhook(&permit(WEBHOOK), &fake.hook(), &post)
        .await
        .unwrap();
    let message =
        json!({"text": "hi", "blocks": null, "unfurl_links": false, "unfurl_media": false});
    let asked = (HOOK.into(), "application/json".into(), message);
    assert_eq!(fake.asked(), [asked]);
    assert_eq!(fake.observed(), [("webhook".into(), "ok".into())]);
    /// What a probe finds: it lives, it does not, or nobody knows.
    const LIVES: Option<bool> = Some(true);
    const DEAD: Option<bool> = Some(false);
    let missing = "missing_text_or_fallback_or_attachments";
    for (status, body, class, says, probe) in [
        (400, "no_text", Rejected, "empty", LIVES),
        (400, "invalid_payload", Rejected, "invalid_payload", LIVES),
        (400, "invalid_blocks\n", Rejected, "Block Kit", LIVES),
        (500, missing, Rejected, "empty", LIVES),
        (403, "invalid_token", Denied, "URL into the Secret", DEAD),
        (404, "no_team", Denied, "URL into the Secret", DEAD),
        (403, "action_prohibited", Rejected, "admin", DEAD),
        (404, "channel_not_found", Rejected, "no longer there", DEAD),
        (410, "channel_is_archived", Rejected, "archived", DEAD),
        (403, "something_new", Rejected, "something_new", None),
        (429, "", Throttled, "throttled", None),
        (429, "rate_limited", Throttled, "throttled", None),
        (500, "rollup_error", OutcomeUnknown, "rollup_error", None),
        (500, "<html>", OutcomeUnknown, "HTTP 500", None),
        (503, "", OutcomeUnknown, "HTTP 503", None),
        (302, "", Unavailable, "is that Slack", None),
        (200, "", OutcomeUnknown, "HTTP 200 with an empty body", None),
        (
            200,
            "<html>",
            OutcomeUnknown,
            "HTTP 200 with text/plain",
            None,
        ),
        (400, "<html>", Unavailable, "is that Slack", None),
        (404, "<html>", Unavailable, "is that Slack", None),
    ] {
        fake.answers(status, &[], body);
        let posted = fake
            .slack
            .post_webhook(&permit(WEBHOOK), &fake.hook(), &post)
            .await;
        let Error {
            class: found,
            message,
            ..
        } = posted.unwrap_err().into();
        assert_eq!(found, class, "{status} {body}: {message}");
        assert!(
            message.contains(says) && message.contains("incoming webhook"),
            "{status} {body}: {message}"
        );
        let probed = fake.slack.probe_webhook(&fake.hook(), EDIT).await;
        match (probed, probe) {
            (Ok(Webhook::Alive), LIVES) => {}
            (Ok(Webhook::Revoked(why)), DEAD) => assert_eq!(why, message),
            (Err(refusal), None) => assert_ne!(
                refusal.error.class, OutcomeUnknown,
                "a probe writes nothing"
            ),
            (found, _) => panic!("{status} {body}: {found:?}"),
        }
        assert_eq!(fake.asked().pop().unwrap().2, json!({}));
        let outcome = fake.observed().pop().unwrap().1;
        assert_eq!(
            outcome == "ok",
            probe == LIVES,
            "{status} {body}: {outcome}"
        );
    }
    fake.answers(200, &[], "ok");
    let probed = fake.slack.probe_webhook(&fake.hook(), EDIT).await;
    assert_eq!(probed, Ok(Webhook::Alive));
}

/// The other side may say anything, our own secrets included.
#[tokio::test]
async fn secrets_are_in_requests_alone() {
    let fake = Fake::start().await;
    let bot = fake.bot();
    let mut shown = format!("{bot:?} {:?} {:?}", fake.slack, fake.hook());
    for code in ["invalid_auth", "invalid_arguments", "internal_error"] {
        let said = format!("not with {TOKEN}!");
        let body = json!({"ok": false, "error": code, "needed": TOKEN, "response_metadata": {"messages": [said]}});
        fake.says([body]);
        let refusal = set_topic(&bot, "x").await.unwrap_err();
        assert_eq!(refusal.code, code);
        shown += &format!("{refusal} {refusal:?} {:?}", Error::from(refusal.clone()));
    }
    for code in ["missing_scope", TOKEN] {
        fake.says([json!({"ok": false, "error": code, "needed": TOKEN})]);
        let refusal = set_topic(&bot, "x").await.unwrap_err();
        shown += &format!("{refusal} {refusal:?}");
    }
    for (status, body) in [
        (404, "no_service".into()),
        (500, fake.hook().reveal().to_owned()),
        (302, fake.hook().reveal().to_owned()),
    ] {
        fake.answers(status, &[("location", "http://canary.example/")], body);
        let posted = fake
            .slack
            .post_webhook(&permit(WEBHOOK), &fake.hook(), &Post::default())
            .await;
        let probed = fake.slack.probe_webhook(&fake.hook(), EDIT).await;
        shown += &format!("{posted:?} {probed:?}");
    }
    shown += &format!("{:?} {:?}", fake.limiter, fake.observed());
    assert!(!shown.contains("canary"), "{shown}");
    assert!(
        shown.contains("hmac:1") && shown.contains("not with …!"),
        "{shown}"
    );
    assert!(fake.asked().iter().any(|(_, who, _)| who.contains(TOKEN)));
}

#[tokio::test]
async fn reads_wait_for_the_quota_and_writes_have_waited() {
    let fake = Fake::start().await;
    // One in a thousand seconds, give or take the limiter's margin.
    let seldom = [INFO, SET_TOPIC].map(|api| (api.to_owned(), 0.001));
    let fake = Fake::paced(fake.url, fake.record, &seldom.into());
    let bot = fake.bot();
    fake.says([json!({"ok": true, "channel": channel("C1")})]);
    let take = |key, api| fake.limiter.try_take(key, "", api, EDIT);
    bot.channel("C1", EDIT).await.unwrap();
    assert!(!take("hmac:1", INFO), "the read took it");
    // Other bots have quotas of their own.
    assert!(take("hmac:2", INFO));
    set_topic(&bot, "").await.unwrap();
    assert!(take("hmac:1", SET_TOPIC), "the gate takes it");
}

#[test]
fn plain_text_is_what_people_wrote() {
    for (given, text) in [
        ("", ""),
        ("Workflow runs", "Workflow runs"),
        ("a &amp; b &lt;c&gt;", "a & b <c>"),
        ("a & b <c>", "a & b <c>"),
        ("&amp;lt;", "&lt;"),
        (
            "see <https://a.example/?x=1&amp;y=2>.",
            "see https://a.example/?x=1&y=2.",
        ),
        (
            "<http://a.example|a.example>, <mailto:b@c.example|b@c.example>",
            "a.example, b@c.example",
        ),
        (
            "<@U1> of <!subteam^S1> in <#C1|runs>",
            "<@U1> of <!subteam^S1> in <#C1|runs>",
        ),
        (
            "1 < 2 <https://x.example> > <",
            "1 < 2 https://x.example > <",
        ),
        ("<https://never.ends", "<https://never.ends"),
        ("ü<https://é>ß", "ühttps://éß"),
    ] {
        assert_eq!(plain(given), text, "{given}");
    }
}

#[test]
fn escaped_text_is_no_markup() {
    for (text, escaped) in [
        ("<!here> <@U012AB3CD>", "&lt;!here&gt; &lt;@U012AB3CD&gt;"),
        ("a && b", "a &amp;&amp; b"),
        ("&lt;!here&gt;", "&amp;lt;!here&amp;gt;"),
        ("@channel *b* _i_ `c` ~s~", "@channel *b* _i_ `c` ~s~"),
    ] {
        assert_eq!(escape(text), escaped);
        assert_eq!(plain(escaped), text);
    }
}

#[test]
fn what_is_too_long_is_cut_at_a_character() {
    for (text, limit, clipped) in [
        ("", 5, ""),
        ("12345", 5, "12345"),
        ("123456", 5, "1234…"),
        ("éééééé", 5, "éééé…"),
        // Each is two of JavaScript's characters.
        ("🔥🔥", 4, "🔥🔥"),
        ("🔥🔥🔥", 5, "🔥🔥…"),
        ("🔥🔥🔥", 4, "🔥…"),
        ("🔥x", 2, "…"),
    ] {
        assert_eq!(clip(text, limit), clipped, "{text} {limit}");
    }
}

#[test]
fn only_bot_tokens_are_bot_tokens() {
    let long = format!("xoxb-{}", "1".repeat(500));
    for (text, wrong) in [
        ("xoxb-1-canary", None),
        (" xoxb-1-canary\n", None),
        ("", Some("empty")),
        (" \n", Some("empty")),
        ("xoxb-", Some("nothing follows")),
        ("canary", Some("does not begin with xoxb-")),
        ("XOXB-canary", Some("does not begin")),
        ("xoxbcanary-", Some("does not begin")),
        (
            "https://hooks.slack.com/services/canary",
            Some("does not begin"),
        ),
        ("xoxp-canary", Some("user token")),
        ("xapp-canary", Some("app-level")),
        ("xoxe.xoxb-1-canary", Some("rotation")),
        ("xoxe-1-canary", Some("rotation")),
        ("xoxb-canary canary", Some("characters")),
        ("xoxb-canary\nxoxb-canary", Some("characters")),
        ("xoxb-canary\u{e9}", Some("characters")),
        ("xoxb-canary\0", Some("characters")),
        (&long, Some("longer")),
    ] {
        let read = bot_token(text);
        match wrong {
            None => assert_eq!(read.unwrap().reveal(), "xoxb-1-canary"),
            Some(wrong) => {
                let error = read.unwrap_err();
                assert!(
                    error.contains(wrong) && error.contains("Bot User OAuth Token"),
                    "{text}: {error}"
                );
                assert!(!error.contains("canary"), "{error}");
            }
        }
    }
}

/// Slack's own, with a path that follows the host; what is wrong with all others, and what others are if allowed.
#[test]
fn only_webhooks_of_slack_are_webhooks_of_slack() {
    const GOOD: &str = "https://hooks.slack.com/services/T1/B1/canary";
    let long = format!("{GOOD}{}", "1".repeat(500));
    let slacks = |rest: &str| format!("https://hooks.slack.com{rest}");
    let mut cases = Vec::new();
    for (text, url) in [
        (GOOD, GOOD),
        (&format!(" {GOOD}\n"), GOOD),
        ("HTTPS://HOOKS.Slack.COM:443/services/T1/B1/canary", GOOD),
        (
            "https://hooks.slack-gov.com/services/T1/B1/canary",
            "https://hooks.slack-gov.com/services/T1/B1/canary",
        ),
    ] {
        cases.push((text.to_owned(), Ok(url.to_owned()), Ok(url.to_owned())));
    }
    for (text, wrong) in [
        ("", "empty"),
        (&long, "longer"),
        ("canary", "no URL"),
        ("hooks.slack.com/services/T1/B1/canary", "no URL"),
        ("https://", "no URL"),
        ("mailto:canary@slack.com", "no host"),
        ("ftp://hooks.slack.com/services/T1/B1/canary", "https://"),
        ("ftp://canary.example/", "https://"),
        ("http://hooks.slack.com/services/T1/B1/canary", "https://"),
        ("https://canary@hooks.slack.com/services/T1/B1/X1", "user"),
        ("https://:canary@hooks.slack.com/services/T1/B1/X1", "user"),
        ("https://hooks.slack.com@canary.example/", "user"),
        ("https://hooks.slack.com\\@canary.example/", "backslashes"),
        ("https://hooks.sl\tack.com/services/T1/B1/X1", "spaces"),
        (
            "https://hooks.sl\u{e4}ck.com/services/T1/B1/X1",
            "characters",
        ),
        (
            "https://hooks.slack.com./services/T1/B1/X1",
            "ends in a dot",
        ),
        ("http://canary@chat.internal/", "user"),
    ] {
        cases.push((text.to_owned(), Err(wrong), Err(wrong)));
    }
    for (rest, wrong) in [
        ("/services/T1/B1/can ary", "spaces"),
        (":8443/services/T1/B1/canary", "port"),
        ("/services/T1/B1/canary?x=1", "follows"),
        ("/services/T1/B1/canary?", "follows"),
        ("/services/T1/B1/canary#x", "follows"),
        ("/services/T1/B1/canary/", "three parts"),
        ("/services/T1/B1", "three parts"),
        ("/services/T1//canary", "three parts"),
        ("/services/T1/B1/%63anary", "three parts"),
        ("/services/../T1/B1/canary", "/services/"),
        ("/", "/services/"),
        ("/workflows/T1/A1/1/canary", "workflow"),
        ("/triggers/T1/1/canary", "workflow"),
    ] {
        cases.push((slacks(rest), Err(wrong), Err(wrong)));
    }
    for (text, url) in [
        ("https://hooks.slack.com.canary.example/", None),
        ("https://canary.slack.com/services/T1/B1/X1", None),
        ("https://169.254.169.254/services/canary", None),
        ("https://0x7f.1/canary", Some("https://127.0.0.1/canary")),
        ("http://[::1]:80/canary", Some("http://[::1]/canary")),
        ("http://chat.internal:8080/hooks/canary?x=1", None),
    ] {
        let url = url.unwrap_or(text).to_owned();
        cases.push((text.to_owned(), Err("host"), Ok(url)));
    }
    for (text, strict, lax) in cases {
        for (allow_private, expected) in [(false, strict), (true, lax)] {
            match (webhook_url(&text, allow_private), expected) {
                (Ok(url), Ok(expected)) => assert_eq!(url.reveal(), expected, "{text}"),
                (Err(error), Err(expected)) => {
                    assert!(error.contains(expected), "{text}: {error}");
                    assert!(!error.contains("canary"), "{error}");
                }
                (found, _) => panic!("{text} ({allow_private}): {found:?}"),
            }
        }
    }
}

#[test]
fn missing_scopes_are_those_that_meet_a_need() {
    for (granted, needed, missing) in [
        ("", &[][..], &[][..]),
        ("", &[&["a", "b"][..], &[]], &["a"]),
        ("a", &[&["a", "b"]], &[]),
        ("b", &[&["a", "b"], &["c"]], &["c"]),
        ("x", &[&["a", "b"], &["b", "a"], &["a"]], &["a"]),
        ("x", &[&["b"], &["a", "b"]], &["b"]),
        ("ab", &[&["a"]], &["a"]),
    ] {
        let granted = scopes_of(granted);
        assert_eq!(
            missing_scopes(&granted, needed),
            missing,
            "{granted:?} {needed:?}"
        );
    }
    let advice = add_scopes(&["channels:manage", "groups:write"]);
    assert!(
        advice.contains("the scopes channels:manage, groups:write to the app"),
        "{advice}"
    );
}
