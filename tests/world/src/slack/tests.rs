//! Tests of the Slack stand-in over HTTP: its rules, errors, pages, rates and troubles.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Response};
use serde_json::{Value, json};

use super::*;

const LIMIT: Duration = Duration::from_secs(10);

struct World {
    slack: Slack,
    workspace: Workspace,
    client: Client,
    token: String,
}

impl World {
    async fn start() -> Self {
        let slack = Slack::start().await.unwrap();
        let workspace = slack.workspace("campus");
        let token = workspace.bot(&ALL_SCOPES);
        let client = Client::builder().no_proxy().build().unwrap();
        Self {
            slack,
            workspace,
            client,
            token,
        }
    }

    fn request(&self, token: &str, method: &str) -> reqwest::RequestBuilder {
        let url = format!("{}/{method}", self.slack.api_url());
        self.client.post(url).bearer_auth(token)
    }

    async fn send(&self, token: &str, method: &str, form: &[(&str, &str)]) -> Response {
        self.request(token, method).form(form).send().await.unwrap()
    }

    async fn call_as(&self, token: &str, method: &str, form: &[(&str, &str)]) -> Value {
        let answer = self.send(token, method, form).await;
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }

    async fn call(&self, method: &str, form: &[(&str, &str)]) -> Value {
        self.call_as(&self.token, method, form).await
    }

    /// The error, or `ok`.
    async fn error(&self, method: &str, form: &[(&str, &str)]) -> String {
        word(&self.call(method, form).await)
    }

    async fn create(&self, name: &str) -> String {
        let answer = self.call("conversations.create", &[("name", name)]).await;
        answer["channel"]["id"].as_str().unwrap().to_owned()
    }

    async fn hook(&self, url: &str, body: &Value) -> (u16, String) {
        let answer = self.client.post(url).json(body).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    fn kept(&self) {
        assert_eq!(self.slack.violations(), Vec::<String>::new());
    }
}

fn word(answer: &Value) -> String {
    match answer["error"].as_str() {
        Some(error) => {
            assert_eq!(answer["ok"], false);
            error.to_owned()
        }
        None => {
            assert_eq!(answer["ok"], true, "{answer}");
            "ok".to_owned()
        }
    }
}

#[tokio::test]
async fn a_token_is_good_for_its_workspace_and_its_scopes() {
    let world = World::start().await;
    let campus = &world.workspace;
    let who = world.send(&world.token, "auth.test", &[]).await;
    let scopes = who.headers()["x-oauth-scopes"].to_str().unwrap().to_owned();
    assert_eq!(scopes, ALL_SCOPES.join(","));
    let who: Value = who.json().await.unwrap();
    assert_eq!(who["team_id"], campus.id());
    assert_eq!(who["url"], "https://campus.slack.com/");
    assert_eq!(who["user_id"], campus.bot_user(&world.token));

    let reader = campus.bot(&["channels:read"]);
    let refused = world
        .call_as(&reader, "conversations.create", &[("name", "a")])
        .await;
    assert_eq!(refused["error"], "missing_scope");
    assert_eq!(
        (&refused["needed"], &refused["provided"]),
        (
            &json!("channels:manage,groups:write"),
            &json!("channels:read")
        )
    );
    let private = [("types", "public_channel,private_channel")];
    let refused = world.call_as(&reader, "conversations.list", &private).await;
    assert_eq!(refused["needed"], "groups:read");
    campus.set_scopes(&reader, &["channels:manage"]);
    let secret = [("name", "a"), ("is_private", "true")];
    let refused = world
        .call_as(&reader, "conversations.create", &secret)
        .await;
    assert_eq!(refused["needed"], "groups:write");
    assert_eq!(
        word(
            &world
                .call_as(&reader, "conversations.create", &[("name", "a")])
                .await
        ),
        "ok"
    );
    let answer = world.send(&reader, "auth.test", &[]).await;
    assert_eq!(answer.headers()["x-oauth-scopes"], "channels:manage");

    let again = campus.reissue(&world.token);
    campus.revoke(&world.token);
    assert_eq!(world.error("auth.test", &[]).await, "token_revoked");
    let who = world.call_as(&again, "auth.test", &[]).await;
    assert_eq!(who["user_id"], campus.bot_user(&world.token));
    campus.uninstall(&again);
    assert_eq!(
        word(&world.call_as(&again, "auth.test", &[]).await),
        "account_inactive"
    );
    campus.restore(&again);
    assert_eq!(word(&world.call_as(&again, "auth.test", &[]).await), "ok");
    assert_eq!(
        word(&world.call_as("xoxb-1-2-x", "auth.test", &[]).await),
        "invalid_auth"
    );
    let bare = world
        .client
        .post(format!("{}/auth.test", world.slack.api_url()))
        .send()
        .await
        .unwrap();
    assert_eq!(word(&bare.json().await.unwrap()), "not_authed");
    world.kept();

    let other = world.slack.workspace("other");
    let stranger = other.bot(&ALL_SCOPES);
    assert_eq!(
        world.call_as(&stranger, "team.info", &[]).await["team"]["name"],
        "other"
    );
    let elsewhere = campus.channel("general").unwrap().id;
    let answer = world
        .call_as(&stranger, "conversations.info", &[("channel", &elsewhere)])
        .await;
    assert_eq!(word(&answer), "channel_not_found");
}

#[tokio::test]
async fn names_are_checked_and_taken_by_whoever_holds_them() {
    let world = World::start().await;
    let campus = &world.workspace;
    campus.create_private_channel("hidden");
    let archived = world.create("old").await;
    assert_eq!(
        world
            .error("conversations.archive", &[("channel", &archived)])
            .await,
        "ok"
    );
    for name in ["general", "hidden", "old"] {
        assert_eq!(
            world.error("conversations.create", &[("name", name)]).await,
            "name_taken",
            "{name}"
        );
    }
    world.kept();
    let long = "a".repeat(81);
    let table = [
        ("Loud", "invalid_name_specials"),
        ("a b", "invalid_name_specials"),
        ("#a", "invalid_name_specials"),
        (&long, "invalid_name_maxlength"),
        ("", "invalid_name_required"),
        ("-_-", "invalid_name_punctuation"),
    ];
    for (name, expected) in table {
        assert_eq!(
            world.error("conversations.create", &[("name", name)]).await,
            expected,
            "{name}"
        );
    }
    let (mine, theirs) = (world.create("mine").await, campus.create_channel("theirs"));
    assert_eq!(
        world
            .error("conversations.join", &[("channel", &theirs)])
            .await,
        "ok"
    );
    let rename = async |channel: &str, name: &str| {
        world
            .error(
                "conversations.rename",
                &[("channel", channel), ("name", name)],
            )
            .await
    };
    assert_eq!(rename(&theirs, "ours").await, "not_authorized");
    assert_eq!(rename(&mine, "hidden").await, "name_taken");
    assert_eq!(rename(&mine, "ours").await, "ok");
    assert_eq!(campus.channel(&mine).unwrap().name, "ours");
    campus.delete_channel("hidden");
    assert_eq!(rename(&mine, "hidden").await, "ok");
    campus.remove_bot("hidden");
    assert_eq!(rename(&mine, "again").await, "not_in_channel");
}

#[tokio::test]
async fn a_bot_cannot_take_archiving_back() {
    let world = World::start().await;
    let campus = &world.workspace;
    let id = world.create("alarms").await;
    let channel = [("channel", id.as_str())];
    assert_eq!(world.error("conversations.archive", &channel).await, "ok");
    assert!(
        !campus
            .channel(&id)
            .unwrap()
            .members
            .contains(&campus.bot_user(&world.token))
    );
    let table = [
        ("conversations.archive", "already_archived"),
        ("conversations.unarchive", "not_in_channel"),
        ("conversations.join", "is_archived"),
        ("conversations.info", "ok"),
    ];
    for (method, expected) in table {
        assert_eq!(world.error(method, &channel).await, expected, "{method}");
    }
    assert_eq!(
        world
            .error("conversations.setTopic", &[channel[0], ("topic", "t")])
            .await,
        "is_archived"
    );
    assert_eq!(
        world
            .error("chat.postMessage", &[channel[0], ("text", "t")])
            .await,
        "is_archived"
    );
    campus.unarchive(&id);
    assert_eq!(
        world.error("conversations.unarchive", &channel).await,
        "not_archived"
    );
    assert_eq!(
        world
            .error("conversations.setTopic", &[channel[0], ("topic", "t")])
            .await,
        "not_in_channel"
    );
    assert_eq!(
        world.error("conversations.archive", &channel).await,
        "not_in_channel"
    );
    assert_eq!(world.error("conversations.join", &channel).await, "ok");
    let again = world.call("conversations.join", &channel).await;
    assert_eq!(
        (word(&again).as_str(), &again["warning"]),
        ("ok", &json!("already_in_channel"))
    );
    let general = campus.channel("general").unwrap().id;
    assert_eq!(
        world
            .error("conversations.archive", &[("channel", &general)])
            .await,
        "cant_archive_general"
    );
    world.kept();
}

#[tokio::test]
async fn a_private_channel_is_there_for_its_members_alone() {
    let world = World::start().await;
    let campus = &world.workspace;
    let hidden = campus.create_private_channel("hidden");
    let methods = ["info", "members", "join", "archive", "unarchive"];
    for method in methods {
        let method = format!("conversations.{method}");
        assert_eq!(
            world.error(&method, &[("channel", &hidden)]).await,
            "channel_not_found",
            "{method}"
        );
    }
    assert_eq!(
        world
            .error("chat.postMessage", &[("channel", &hidden), ("text", "a")])
            .await,
        "channel_not_found"
    );
    let names = async |method: &str| {
        let answer = world
            .call(method, &[("types", "public_channel,private_channel")])
            .await;
        let channels = answer["channels"].as_array().unwrap().clone();
        channels
            .iter()
            .map(|channel| channel["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("conversations.list").await, ["general"]);
    campus.invite("hidden", &campus.bot_user(&world.token));
    assert_eq!(names("conversations.list").await, ["general", "hidden"]);
    assert_eq!(names("users.conversations").await, ["hidden"]);
    assert_eq!(
        world
            .error("conversations.info", &[("channel", &hidden)])
            .await,
        "ok"
    );
    campus.set_scopes(&world.token, &["channels:read"]);
    assert_eq!(
        world
            .call("conversations.info", &[("channel", &hidden)])
            .await["needed"],
        "groups:read"
    );
    campus.set_scopes(&world.token, &ALL_SCOPES);

    let id = world.create("open").await;
    let new = campus.change_id("open");
    assert_eq!(
        world.error("conversations.info", &[("channel", &id)]).await,
        "channel_not_found"
    );
    assert_eq!(
        world
            .error("conversations.info", &[("channel", &new)])
            .await,
        "ok"
    );
    campus.make_private("open");
    campus.remove_bot("open");
    assert_eq!(
        world
            .error("conversations.info", &[("channel", &new)])
            .await,
        "channel_not_found"
    );
    campus.make_public("open");
    assert_eq!(
        world.call("conversations.info", &[("channel", &new)]).await["channel"]["is_member"],
        false
    );
    world.kept();
}

#[tokio::test]
async fn topics_are_given_back_as_slack_escapes_them() {
    let world = World::start().await;
    let id = world.create("alarms").await;
    let topic = [("channel", id.as_str()), ("topic", "R&D <alarms>")];
    assert_eq!(world.error("conversations.setTopic", &topic).await, "ok");
    let long = "é".repeat(250);
    assert_eq!(
        world
            .error("conversations.setPurpose", &[topic[0], ("purpose", &long)])
            .await,
        "ok"
    );
    let info = world
        .call(
            "conversations.info",
            &[topic[0], ("include_num_members", "true")],
        )
        .await;
    assert_eq!(info["channel"]["topic"]["value"], "R&amp;D &lt;alarms&gt;");
    assert_eq!(info["channel"]["purpose"]["value"], long);
    assert_eq!(info["channel"]["num_members"], 1);
    let told = || world.workspace.channel("alarms").unwrap().topic;
    assert_eq!(told(), "R&D <alarms>");
    let escaped = [topic[0], ("topic", "Q&amp;A")];
    assert_eq!(world.error("conversations.setTopic", &escaped).await, "ok");
    assert_eq!(told(), "Q&A", "what people see");
    world.kept();
    assert_eq!(
        world
            .error(
                "conversations.setTopic",
                &[topic[0], ("topic", &(long + "a"))]
            )
            .await,
        "too_long"
    );
}

#[tokio::test]
async fn invitations_are_refused_one_by_one() {
    let world = World::start().await;
    let campus = &world.workspace;
    let id = world.create("alarms").await;
    let (ann, bob, eve) = (
        campus.add_user("ann@campus.example"),
        campus.add_user("bob@campus.example"),
        campus.add_user("eve@campus.example"),
    );
    let found = world
        .call("users.lookupByEmail", &[("email", "Ann@Campus.example")])
        .await;
    assert_eq!(found["user"]["id"], json!(ann));
    assert_eq!(
        world
            .error("users.lookupByEmail", &[("email", "x@campus.example")])
            .await,
        "users_not_found"
    );
    campus.deactivate(&eve);
    assert_eq!(
        world
            .error("users.lookupByEmail", &[("email", "eve@campus.example")])
            .await,
        "users_not_found"
    );
    let invite = async |users: &str, force: &str| {
        world
            .call(
                "conversations.invite",
                &[("channel", &id), ("users", users), ("force", force)],
            )
            .await
    };
    assert_eq!(word(&invite(&ann, "false").await), "ok");
    assert_eq!(word(&invite(&ann, "false").await), "already_in_channel");
    assert_eq!(
        word(&invite(&campus.bot_user(&world.token), "false").await),
        "cant_invite_self"
    );
    assert_eq!(word(&invite("U0NOBODY", "false").await), "user_not_found");
    let several = format!("{ann},{bob},{eve}");
    let refused = invite(&several, "false").await;
    assert_eq!(
        refused["errors"],
        json!([
            {"user": ann, "ok": false, "error": "already_in_channel"}, {"user": eve, "ok": false, "error": "cant_invite"},
        ])
    );
    assert!(
        !campus.channel(&id).unwrap().members.contains(&bob),
        "one for all"
    );
    let forced = invite(&several, "true").await;
    assert_eq!(
        (
            word(&forced).as_str(),
            forced["errors"].as_array().unwrap().len()
        ),
        ("ok", 2)
    );
    let members = world
        .call("conversations.members", &[("channel", &id)])
        .await;
    assert_eq!(members["members"].as_array().unwrap().len(), 3);
    campus.remove_bot(&id);
    assert_eq!(word(&invite(&bob, "false").await), "not_in_channel");
    world.kept();
}

#[tokio::test]
async fn listings_go_on_through_short_and_empty_pages() {
    let world = World::start().await;
    let campus = &world.workspace;
    for number in 0..7 {
        campus.create_channel(&format!("c{number}"));
    }
    let pages = async |limit: &str| {
        let (mut pages, mut cursor) = (Vec::new(), String::new());
        loop {
            let answer = world
                .call(
                    "conversations.list",
                    &[("limit", limit), ("cursor", &cursor)],
                )
                .await;
            pages.push(answer["channels"].as_array().unwrap().len());
            cursor = answer["response_metadata"]["next_cursor"]
                .as_str()
                .unwrap()
                .to_owned();
            if cursor.is_empty() {
                return pages;
            }
        }
    };
    assert_eq!(pages("3").await, [3, 3, 2]);
    assert_eq!(pages("8").await, [8]);
    campus.trouble("conversations.list", Trouble::ShortPages, None);
    assert_eq!(pages("1000").await, [0, 2, 0, 2, 0, 2, 0, 2, 0]);
    campus.lift("conversations.list");
    assert_eq!(pages("1000").await, [8]);

    let first = world.call("conversations.list", &[("limit", "2")]).await;
    let cursor = first["response_metadata"]["next_cursor"].as_str().unwrap();
    campus.delete_channel("c1");
    let rest = world
        .call("conversations.list", &[("limit", "2"), ("cursor", cursor)])
        .await;
    assert_eq!(
        rest["channels"][0]["name"], "c2",
        "what is gone meanwhile shifts nothing"
    );
    let other = [("exclude_archived", "true"), ("cursor", cursor)];
    assert_eq!(
        world.error("conversations.list", &other).await,
        "invalid_cursor"
    );
    assert_eq!(
        world
            .error("conversations.list", &[("cursor", "dGVhbTo=")])
            .await,
        "invalid_cursor"
    );
    campus.archive("c2");
    let open = world
        .call("conversations.list", &[("exclude_archived", "true")])
        .await;
    assert_eq!(open["channels"].as_array().unwrap().len(), 6);
    world.kept();
    assert_eq!(
        world
            .error("conversations.list", &[("limit", "1001")])
            .await,
        "invalid_limit"
    );
    assert_eq!(
        world.error("conversations.list", &[("types", "all")]).await,
        "invalid_types"
    );
}

#[tokio::test]
async fn messages_are_kept_as_they_came() {
    let world = World::start().await;
    let campus = &world.workspace;
    let id = world.create("alarms").await;
    let blocks = json!([{"type": "section", "text": {"type": "mrkdwn", "text": "a & <b>"}}]);
    let metadata = json!({"event_type": "run", "event_payload": {"uid": "1"}});
    let (text, tree) = (blocks.to_string(), metadata.to_string());
    let first = world
        .call(
            "chat.postMessage",
            &[
                ("channel", &id),
                ("text", "short"),
                ("blocks", &text),
                ("metadata", &tree),
                ("unfurl_links", "false"),
            ],
        )
        .await;
    let ts = first["ts"].as_str().unwrap();
    assert_eq!(first["message"]["blocks"], blocks);
    let reply = world
        .call(
            "chat.postMessage",
            &[("channel", &id), ("text", "more"), ("thread_ts", ts)],
        )
        .await;
    let edit = [
        ("channel", id.as_str()),
        ("ts", ts),
        ("text", "done"),
        ("blocks", "[]"),
    ];
    assert_eq!(world.error("chat.update", &edit).await, "ok");
    let link = world
        .call("chat.getPermalink", &[("channel", &id), ("message_ts", ts)])
        .await;
    assert_eq!(
        link["permalink"],
        format!(
            "https://campus.slack.com/archives/{id}/p{}",
            ts.replace('.', "")
        )
    );
    let messages = campus.messages("alarms");
    assert_eq!(messages.len(), 2);
    assert_eq!(
        (
            messages[0].text.as_str(),
            messages[0].blocks.len(),
            messages[0].metadata.as_ref()
        ),
        ("done", 0, Some(&metadata))
    );
    assert_eq!(
        (
            messages[0].edits[0].text.as_str(),
            &json!(messages[0].edits[0].blocks)
        ),
        ("short", &blocks)
    );
    assert_eq!(messages[0].by, By::Bot(campus.bot_user(&world.token)));
    assert_eq!(messages[1].thread_ts.as_deref(), Some(ts));
    assert_ne!(reply["ts"], first["ts"]);

    let stranger = campus.bot_named("other", &ALL_SCOPES);
    assert_eq!(
        word(&world.call_as(&stranger, "chat.update", &edit).await),
        "cant_update_message"
    );
    let gone = [
        ("channel", id.as_str()),
        ("ts", "1000000.000001"),
        ("text", "a"),
    ];
    assert_eq!(world.error("chat.update", &gone).await, "message_not_found");
    assert_eq!(
        world
            .error(
                "chat.postMessage",
                &[
                    ("channel", &id),
                    ("text", "a"),
                    ("thread_ts", "1000000.000001")
                ]
            )
            .await,
        "cannot_reply_to_message"
    );
    assert_eq!(
        word(&world.call_as(&stranger, "chat.delete", &edit[..2]).await),
        "cant_delete_message"
    );
    assert_eq!(world.error("chat.delete", &edit[..2]).await, "ok");
    assert_eq!(
        world.error("chat.delete", &edit[..2]).await,
        "message_not_found"
    );

    assert_eq!(
        world
            .error("chat.postMessage", &[("channel", &id), ("text", " ")])
            .await,
        "no_text"
    );
    let bad = world
        .call(
            "chat.postMessage",
            &[("channel", &id), ("blocks", r#"[{"type":"section"}]"#)],
        )
        .await;
    assert_eq!(bad["error"], "invalid_blocks");
    assert_eq!(
        bad["response_metadata"]["messages"][0],
        "[ERROR] must define either `fields` or `text` [json-pointer:/blocks/0]"
    );
    let nested = r#"[{"blocks":[{"type":"poll"}]}]"#;
    assert_eq!(
        world
            .error(
                "chat.postMessage",
                &[("channel", &id), ("attachments", nested)]
            )
            .await,
        "invalid_blocks"
    );
    assert_eq!(
        world
            .error("chat.postMessage", &[("channel", &id), ("blocks", "[{")])
            .await,
        "invalid_blocks_format"
    );

    let open = campus.create_channel("open");
    let post = [("channel", open.as_str()), ("text", "a")];
    assert_eq!(world.error("chat.postMessage", &post).await, "ok");
    campus.set_scopes(&world.token, &["chat:write"]);
    assert_eq!(
        world.error("chat.postMessage", &post).await,
        "not_in_channel"
    );
    world.kept();
    campus.set_scopes(&world.token, &ALL_SCOPES);
    let long = "a".repeat(40_001);
    assert_eq!(
        world
            .error("chat.postMessage", &[("channel", &id), ("text", &long)])
            .await,
        "msg_too_long"
    );
}

#[tokio::test]
async fn what_breaks_the_contract_is_told_and_changes_nothing() {
    let world = World::start().await;
    let campus = &world.workspace;
    let id = world.create("alarms").await;
    let told = |what: &str| {
        let found = campus.take_violations();
        assert!(
            found.iter().any(|each| each.contains(what)),
            "{what}: {found:?}"
        );
    };
    assert_eq!(
        world
            .error(
                "conversations.create",
                &[("name", "b"), ("private", "true")]
            )
            .await,
        "invalid_arg_name"
    );
    told("campus conversations.create request: unknown argument private");
    let json_at = async |method: &str, kind: &str, body: &str| {
        let request = world
            .request(&world.token, method)
            .header(CONTENT_TYPE, kind.to_owned());
        let answer = request.body(body.to_owned()).send().await.unwrap();
        answer.json::<Value>().await.unwrap()
    };
    let body = json!({ "channel": id }).to_string();
    let utf8 = "application/json; charset=utf-8";
    let ignored = json_at("conversations.info", utf8, &body).await;
    assert_eq!(
        (
            word(&ignored).as_str(),
            &ignored["response_metadata"]["messages"][0]
        ),
        (
            "invalid_arguments",
            &json!("[ERROR] missing required field: channel")
        )
    );
    told("a JSON body, which the method ignores");
    let twice = [("channel", id.as_str()), ("topic", "a"), ("topic", "b")];
    assert_eq!(
        world.error("conversations.setTopic", &twice).await,
        "invalid_arguments"
    );
    told("topic was sent twice");
    assert_eq!(
        world.error("conversations.rename2", &[]).await,
        "unknown_method"
    );
    told("no such method");
    let got = world
        .client
        .get(format!("{}/auth.test", world.slack.api_url()))
        .bearer_auth(&world.token)
        .send()
        .await
        .unwrap();
    assert_eq!(word(&got.json().await.unwrap()), "invalid_post_type");
    told("GET instead of POST");
    assert_eq!(
        word(&json_at("auth.test", "text/plain", "x").await),
        "invalid_post_type"
    );
    told("cannot be read");
    if world.slack.is_judged() {
        assert_eq!(
            world
                .error("chat.postMessage", &[("channel", "#alarms"), ("text", "a")])
                .await,
            "channel_not_found"
        );
        told("does not match");
    }
    campus.trouble("auth.test", Trouble::Error("name_taken".to_owned()), 1);
    assert_eq!(world.error("auth.test", &[]).await, "name_taken");
    if world.slack.is_judged() {
        told("the method has no error name_taken");
    }
    let bare = json_at(
        "conversations.setTopic",
        "application/json",
        &json!({"channel": id, "topic": "t"}).to_string(),
    )
    .await;
    assert_eq!(
        (
            word(&bare).as_str(),
            &bare["warning"],
            &bare["response_metadata"]["warnings"]
        ),
        ("ok", &json!("missing_charset"), &json!(["missing_charset"]))
    );
    assert_eq!(campus.channels().len(), 2);
    assert_eq!(campus.channel(&id).unwrap().topic, "t");
    world.kept();
}

#[tokio::test]
async fn webhooks_answer_in_plain_text() {
    let world = World::start().await;
    let campus = &world.workspace;
    let url = campus.webhook(&campus.create_channel("alarms"));
    let said = |status: u16, text: &str| (status, text.to_owned());
    assert_eq!(
        world
            .hook(
                &url,
                &json!({"text": "a", "attachments": [{"color": "good", "text": "b"}]})
            )
            .await,
        said(200, "ok")
    );
    assert_eq!(world.hook(&url, &json!({})).await, said(400, "no_text"));
    assert_eq!(
        world.hook(&url, &json!({"text": ""})).await,
        said(400, "no_text")
    );
    assert_eq!(
        world
            .hook(&url, &json!({"blocks": [{"type": "header"}]}))
            .await,
        said(400, "invalid_blocks")
    );
    let message = &campus.messages("alarms")[0];
    assert!(matches!(&message.by, By::Webhook(bot) if url.contains(bot.as_str())));
    campus.change_id("alarms");
    campus.rename("alarms", "alerts");
    assert_eq!(
        world.hook(&url, &json!({"text": "b"})).await,
        said(200, "ok")
    );
    assert_eq!(campus.messages("alerts").len(), 2);
    campus.archive("alerts");
    assert_eq!(
        world.hook(&url, &json!({})).await,
        said(410, "channel_is_archived")
    );
    campus.unarchive("alerts");
    campus.disable_webhook(&url);
    assert_eq!(
        world.hook(&url, &json!({})).await,
        said(403, "invalid_token")
    );
    campus.revoke_webhook(&url);
    assert_eq!(world.hook(&url, &json!({})).await, said(404, "no_service"));
    campus.restore_webhook(&url);
    let (base, _) = url.rsplit_once('/').unwrap();
    assert_eq!(
        world.hook(&format!("{base}/wrong"), &json!({})).await,
        said(403, "invalid_token")
    );
    let nowhere = format!("{}/services/T0/B0/x", world.slack.url());
    assert_eq!(world.hook(&nowhere, &json!({})).await, said(404, "no_team"));
    campus.trouble(WEBHOOK, Trouble::Error("action_prohibited".to_owned()), 1);
    assert_eq!(
        world.hook(&url, &json!({"text": "a"})).await,
        said(403, "action_prohibited")
    );
    campus.trouble(WEBHOOK, Trouble::Error("rollup_error".to_owned()), 1);
    assert_eq!(
        world.hook(&url, &json!({"text": "a"})).await,
        said(500, "rollup_error")
    );
    world.kept();
    let elsewhere = json!({"text": "a", "channel": "#b"});
    assert_eq!(
        world.hook(&url, &elsewhere).await,
        said(400, "invalid_payload")
    );
    let form = world
        .client
        .post(&url)
        .form(&[("payload", "{}")])
        .send()
        .await
        .unwrap();
    assert_eq!(form.status(), 400);
    assert!(
        campus
            .take_violations()
            .iter()
            .any(|each| each.contains("it takes JSON"))
    );
    campus.delete_channel("alerts");
    assert_eq!(
        world.hook(&url, &json!({})).await,
        said(404, "channel_not_found")
    );
    assert_eq!(
        campus
            .calls(WEBHOOK)
            .iter()
            .filter(|call| call.succeeded())
            .count(),
        2
    );
}

#[tokio::test]
async fn troubles_come_as_they_were_set() {
    let world = World::start().await;
    let campus = &world.workspace;
    let mark = world.slack.mark();
    let html = "<html>Sorry</html>";
    campus.trouble(
        "conversations.create",
        Trouble::Status(500, html.to_owned()),
        1,
    );
    campus.trouble("conversations.create", Trouble::CutBefore, 1);
    campus.trouble("conversations.create", Trouble::CutAfterCommit, 1);
    campus.trouble(
        "conversations.create",
        Trouble::RateLimited { retry_after: 7 },
        1,
    );
    campus.trouble(
        "conversations.create",
        Trouble::Error("restricted_action".to_owned()),
        1,
    );
    let create = |name: &'static str| {
        world
            .request(&world.token, "conversations.create")
            .form(&[("name", name)])
            .send()
    };
    let sorry = create("a").await.unwrap();
    assert_eq!(
        (
            sorry.status().as_u16(),
            sorry.text().await.unwrap().as_str()
        ),
        (500, html)
    );
    create("a").await.unwrap_err();
    assert!(campus.channel("a").is_none());
    create("a").await.unwrap_err();
    assert!(campus.channel("a").is_some());
    let limited = create("b").await.unwrap();
    assert_eq!(
        (
            limited.status().as_u16(),
            limited.headers()["retry-after"].to_str().unwrap()
        ),
        (429, "7")
    );
    assert_eq!(
        limited.json::<Value>().await.unwrap(),
        json!({"ok": false, "error": "ratelimited"})
    );
    assert_eq!(
        world.error("conversations.create", &[("name", "b")]).await,
        "restricted_action"
    );
    assert_eq!(
        world.error("conversations.create", &[("name", "b")]).await,
        "ok"
    );
    let told: Vec<_> = campus
        .calls_since(mark, "conversations.create")
        .into_iter()
        .map(|call| (call.status, call.error))
        .collect();
    let expected = [
        (Some(500), Some("500")),
        (None, Some("cut")),
        (None, None),
        (Some(429), Some("ratelimited")),
        (Some(200), Some("restricted_action")),
        (Some(200), None),
    ];
    assert_eq!(
        told,
        expected.map(|(status, error)| (status, error.map(str::to_owned)))
    );

    // In one channel, by its name; and by the name that it is to get.
    campus.trouble_in("b", "*", Trouble::Error("internal_error".to_owned()), None);
    let (a, b) = (
        campus.channel("a").unwrap().id,
        campus.channel("b").unwrap().id,
    );
    assert_eq!(
        world.error("conversations.info", &[("channel", &a)]).await,
        "ok"
    );
    assert_eq!(
        world.error("conversations.info", &[("channel", &b)]).await,
        "internal_error"
    );
    assert_eq!(
        world.error("conversations.create", &[("name", "b")]).await,
        "internal_error"
    );
    campus.lift_in("b", "*");
    assert_eq!(
        world.error("conversations.info", &[("channel", &b)]).await,
        "ok"
    );
    let late = Duration::from_millis(50);
    world
        .slack
        .trouble("auth.test", Filter::any(), Trouble::Slow(late), 1);
    let began = std::time::Instant::now();
    assert_eq!(world.error("auth.test", &[]).await, "ok");
    assert!(began.elapsed() >= late);
    world.kept();
}

#[tokio::test]
async fn rates_are_kept_on_request() {
    let world = World::start().await;
    let campus = &world.workspace;
    campus.limit_rates();
    let id = world.create("alarms").await;
    let status = async |token: &str| {
        let answer = world
            .send(token, "conversations.create", &[("name", "general")])
            .await;
        let wait = answer
            .headers()
            .get("retry-after")
            .map(|wait| wait.to_str().unwrap().parse::<u64>().unwrap());
        (answer.status().as_u16(), wait)
    };
    let mut refused = None;
    for _ in 0..40 {
        if let (429, wait) = status(&world.token).await {
            refused = wait;
            break;
        }
    }
    let wait = refused.unwrap();
    assert!((1..=3).contains(&wait), "{wait}");
    let other = campus.bot(&ALL_SCOPES);
    assert_eq!(status(&other).await.0, 200, "each app by itself");
    let post = async || {
        world
            .send(
                &world.token,
                "chat.postMessage",
                &[("channel", &id), ("text", "a")],
            )
            .await
            .status()
            .as_u16()
    };
    assert_eq!(post().await, 200);
    let mut posted = Vec::new();
    while !posted.contains(&429) {
        assert!(posted.len() < 100, "nothing is refused");
        posted.push(post().await);
    }
    campus.lift_rates();
    assert_eq!((post().await, post().await), (200, 200));
    world.kept();
}

#[tokio::test]
async fn calls_and_messages_can_be_waited_for() {
    let world = World::start().await;
    let campus = &world.workspace;
    let url = campus.webhook(&campus.create_channel("alarms"));
    let body = json!({"text": "fire"});
    let (sent, seen) = tokio::join!(
        world.hook(&url, &body),
        campus.wait_for_message("alarms", LIMIT, |message| message.text == "fire"),
    );
    assert_eq!(
        (sent.0, seen.unwrap().author.as_str()),
        (200, "incoming-webhook")
    );
    let missed = campus
        .wait_for_message("alarms", Duration::from_millis(1), |message| {
            message.text == "smoke"
        })
        .await;
    assert!(
        missed.unwrap_err().to_string().contains("fire"),
        "it shows what is there"
    );
    let record = world
        .client
        .get(format!("{}/record", world.slack.url()))
        .send()
        .await
        .unwrap();
    let record = record.text().await.unwrap();
    assert!(
        record.contains("#alarms") && record.contains("fire") && !record.contains(&world.token),
        "{record}"
    );
    let call = &campus.calls(WEBHOOK)[0];
    assert!(
        url.ends_with(&call.token)
            && call.argument("text") == "fire"
            && call.content_type == "application/json"
    );
    assert_eq!(
        world
            .slack
            .count(|call| call.method == WEBHOOK && call.succeeded()),
        1
    );
}
