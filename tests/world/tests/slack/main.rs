//! The world's Slack, seen through Slack's official client.

#![allow(
    clippy::unwrap_used,
    reason = "clippy lets only the test functions themselves unwrap"
)]

use std::path::Path;

use campanile_world::install;
use campanile_world::slack::{ALL_SCOPES, By, Slack, Trouble, WEBHOOK, Workspace, render};
use serde_json::{Value, json};
use tokio::process::Command;

/// Carries out a step of `client.py`, in an environment of its own; what it tells.
async fn client(slack: &Slack, step: &str, environment: &[(&str, &str)]) -> Value {
    let python = tokio::task::spawn_blocking(install::python)
        .await
        .unwrap()
        .unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slack/client.py");
    let output = Command::new(python)
        .args(["-B".as_ref(), script.as_os_str(), step.as_ref()])
        .env_clear()
        .env("SLACK_API_URL", slack.api_url())
        .envs(environment.iter().copied())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{step}: {told}\n{errors}");
    serde_json::from_str(&told).unwrap()
}

async fn world() -> (Slack, Workspace, String) {
    let slack = Slack::start().await.unwrap();
    let campus = slack.workspace("campus");
    let token = campus.bot(&ALL_SCOPES);
    (slack, campus, token)
}

#[tokio::test]
async fn the_official_client_agrees() {
    let (slack, campus, token) = world().await;
    let ann = campus.add_user("ann@campus.example");
    let told = client(&slack, "journey", &[("SLACK_BOT_TOKEN", &token)]).await;
    let bot = campus.bot_user(&token);
    assert_eq!(
        (&told["who"]["team_id"], &told["who"]["user_id"]),
        (&json!(campus.id()), &json!(bot))
    );
    assert_eq!(told["scopes"], ALL_SCOPES.join(","));
    assert_eq!(
        (&told["ann"], &told["team"]),
        (&json!(ann), &json!(campus.id()))
    );

    let id = told["channel"].as_str().unwrap();
    let channel = campus.channel(id).unwrap();
    assert_eq!(
        (
            channel.name.as_str(),
            channel.topic.as_str(),
            channel.purpose.as_str()
        ),
        ("vsu-old", "Alarms of vsu", "What fires")
    );
    assert!(
        channel.is_archived && channel.members.contains(&ann) && !channel.members.contains(&bot)
    );
    assert_eq!(
        (
            &told["info"]["num_members"],
            &told["info"]["topic"]["value"]
        ),
        (&json!(2), &json!("Alarms of vsu"))
    );
    assert_eq!(
        (&told["own"], &told["renamed"]),
        (&json!(["vsu-old"]), &json!("vsu-old"))
    );
    let mut members: Vec<String> = serde_json::from_value(told["members"].clone()).unwrap();
    let mut expected = [ann, bot.clone()];
    members.sort();
    expected.sort();
    assert_eq!(members, expected);
    assert_eq!(told["unarchive"], "not_in_channel");

    let messages = campus.messages(id);
    assert_eq!(messages.len(), 2);
    assert_eq!(
        (&told["first"], &told["reply"]),
        (&json!(messages[0].ts), &json!(messages[1].ts))
    );
    assert_eq!(
        (
            messages[0].text.as_str(),
            messages[0].blocks.len(),
            messages[0].attachments.len()
        ),
        ("completed", 0, 1)
    );
    assert_eq!(
        (
            messages[0].edits[0].text.as_str(),
            messages[0].edits[0].blocks.len()
        ),
        ("started", 4)
    );
    assert_eq!(
        (&messages[0].by, messages[1].thread_ts.as_ref()),
        (&By::Bot(bot), Some(&messages[0].ts))
    );
    assert_eq!(told["edited"]["text"], "completed");
    assert!(told["link"].as_str().unwrap().contains(id));
    assert!(render(&messages[0]).contains("▌ fine"));
    assert_eq!(slack.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn the_official_client_pages_through_short_and_empty_pages() {
    let (slack, campus, token) = world().await;
    for number in 0..4 {
        campus.create_channel(&format!("c{number}"));
    }
    campus.create_channel("old");
    campus.archive("old");
    let told = client(&slack, "pages", &[("SLACK_BOT_TOKEN", &token)]).await;
    assert_eq!(told, json!([["general", "c0", "c1"], ["c2", "c3"]]));
    campus.trouble("conversations.list", Trouble::ShortPages, None);
    let told = client(&slack, "pages", &[("SLACK_BOT_TOKEN", &token)]).await;
    assert_eq!(
        told,
        json!([[], ["general", "c0"], [], ["c1", "c2"], [], ["c3"], []])
    );
    assert_eq!(campus.calls("conversations.list").len(), 9);
    assert_eq!(slack.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn the_official_client_understands_the_errors() {
    let (slack, campus, token) = world().await;
    let (poor, dead) = (campus.bot(&["channels:read"]), campus.bot(&ALL_SCOPES));
    campus.revoke(&dead);
    let tokens = [
        ("SLACK_BOT_TOKEN", token.as_str()),
        ("POOR_TOKEN", &poor),
        ("DEAD_TOKEN", &dead),
    ];
    let told = client(&slack, "errors", &tokens).await;
    let errors = ["taken", "nobody", "nowhere", "blocks", "scope", "dead"].map(|name| {
        assert_eq!(
            (&told[name]["status"], &told[name]["ok"]),
            (&json!(200), &json!(false)),
            "{name}"
        );
        told[name]["error"].as_str().unwrap()
    });
    let expected = [
        "name_taken",
        "users_not_found",
        "channel_not_found",
        "invalid_blocks",
        "missing_scope",
        "token_revoked",
    ];
    assert_eq!(errors, expected);
    assert_eq!(told["scope"]["provided"], "channels:read");
    assert_eq!(
        told["blocks"]["response_metadata"]["messages"][0],
        "[ERROR] must be more than 0 characters [json-pointer:/blocks/0/text/text]"
    );
    assert_eq!(slack.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn the_official_client_waits_as_it_is_told() {
    let (slack, campus, token) = world().await;
    campus.trouble("auth.test", Trouble::RateLimited { retry_after: 1 }, 2);
    let told = client(&slack, "limited", &[("SLACK_BOT_TOKEN", &token)]).await;
    assert_eq!(
        (&told["refused"]["status"], &told["refused"]["error"]),
        (&json!(429), &json!("ratelimited"))
    );
    assert_eq!(told["refused"]["headers"]["retry-after"], "1");
    assert_eq!(told["patient"], true);
    let calls: Vec<_> = campus
        .calls("auth.test")
        .iter()
        .map(|call| call.status)
        .collect();
    assert_eq!(calls, [Some(429), Some(429), Some(200)]);
}

#[tokio::test]
async fn the_official_client_posts_to_webhooks() {
    let (slack, campus, _) = world().await;
    let url = campus.webhook(&campus.create_channel("alarms"));
    let told = client(&slack, "webhook", &[("SLACK_WEBHOOK_URL", &url)]).await;
    assert_eq!(
        told,
        json!([
            [200, "ok"],
            [200, "ok"],
            [400, "invalid_blocks"],
            [400, "no_text"]
        ])
    );
    let messages = campus.messages("alarms");
    assert_eq!(
        (
            messages.len(),
            messages[0].blocks.len(),
            messages[1].text.as_str()
        ),
        (2, 4, "smoke")
    );
    assert_eq!(messages[1].attachments[0]["color"], "#d1242f");
    campus.revoke_webhook(&url);
    let told = client(&slack, "dead_webhook", &[("SLACK_WEBHOOK_URL", &url)]).await;
    assert_eq!(told, json!([404, "no_service"]));
    assert_eq!(campus.calls(WEBHOOK).len(), 5);
    assert_eq!(slack.violations(), Vec::<String>::new());
}
