//! SlackChannels, from the object to the workspace.

use super::{
    Operator, World,
    operator::{NAMESPACE, POLL},
};
use crate::api::SlackChannel;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value as Json, json};

/// A channel that is looked after by a token.
pub fn channel(world: &World, more: Json) {
    world.secret("slack", "token", "xoxb-0-secret");
    let mut spec = json!({"channel": "vsu_alerts", "topic": "Alarms",
        "tokenSecretRef": {"name": "slack", "key": "token"}, "invite": ["oncall@vsu.example"]});
    let fields = spec.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    world.apply("SlackChannel", "alerts", spec);
}

fn only(world: &World) -> Json {
    let mut channels = world.slack.channels();
    assert_eq!(channels.len(), 1, "{channels:?}");
    channels.pop_first().unwrap().1
}

#[tokio::test(start_paused = true)]
async fn the_same_object_made_again_has_its_channel_back() {
    let world = World::new();
    let operator = Operator::new(&world);
    channel(&world, json!({}));
    operator.converge().await;
    let made = only(&world);
    world.cluster.delete::<SlackChannel>(NAMESPACE, "alerts");
    operator.converge().await;
    assert_eq!(only(&world)["is_archived"], Json::Null, "it stays");
    channel(&world, json!({}));
    Operator::new(&world).converge().await;
    let ready = world.condition::<SlackChannel>("alerts", "Ready");
    assert_eq!(ready, "True Applied");
    assert_eq!(only(&world)["id"], made["id"]);
}

/// A Namespace that is deleted loses its Secrets before its other objects.
#[tokio::test(start_paused = true)]
async fn a_channel_is_archived_though_its_token_went_first_and_its_webhook_was_there() {
    let world = World::new();
    let operator = Operator::new(&world);
    world.secret("hook", "url", &world.slack.webhook());
    channel(
        &world,
        json!({"deletionPolicy": "Delete", "webhookSecretRef": {"name": "hook", "key": "url"}}),
    );
    operator.converge().await;
    let ready = || world.condition::<SlackChannel>("alerts", "Ready");
    assert_eq!(ready(), "True Applied");
    world.cluster.delete::<Secret>(NAMESPACE, "slack");
    operator.reconcile::<SlackChannel>("alerts").await.unwrap();
    assert_eq!(ready(), "False WaitingForSecret");
    world.cluster.delete::<SlackChannel>(NAMESPACE, "alerts");
    operator.converge().await;
    assert_eq!(only(&world)["is_archived"], true);
    assert_eq!(world.cluster.names::<SlackChannel>(), []);
}

#[tokio::test(start_paused = true)]
async fn a_channel_is_made_once_mended_and_archived() {
    let world = World::new();
    let operator = Operator::new(&world);
    channel(&world, json!({"deletionPolicy": "Delete"}));
    operator.converge().await;
    assert_eq!(
        world.condition::<SlackChannel>("alerts", "Ready"),
        "True Applied"
    );
    let made = only(&world);
    assert_eq!(made["topic"]["value"], "Alarms");
    assert_eq!(made["invited"]["oncall@vsu.example"], true);

    world.calls.clear();
    for _ in 0..3 {
        operator.reconcile::<SlackChannel>("alerts").await.unwrap();
        tokio::time::sleep(POLL * 20).await;
    }
    assert_eq!(world.calls.writes(), Vec::<String>::new());

    let id = made["id"].as_str().unwrap();
    world
        .slack
        .edit(id, |it| it["topic"]["value"] = json!("by hand"));
    tokio::time::sleep(POLL * 20).await;
    assert!(operator.woken().contains("alerts"));
    operator.converge().await;
    assert_eq!(only(&world)["topic"]["value"], "Alarms");

    world.cluster.delete::<SlackChannel>(NAMESPACE, "alerts");
    operator.converge().await;
    assert_eq!(only(&world)["is_archived"], true);
    assert_eq!(world.cluster.names::<SlackChannel>(), []);
}

/// Slack has another text than was written, and any text that people read alike would do for it but one.
#[tokio::test(start_paused = true)]
async fn one_emoji_in_the_place_of_another_is_drift() {
    let world = World::new();
    channel(&world, json!({"topic": "\u{1f525} Alarms & more"}));
    Operator::new(&world).converge().await;
    let topic = || only(&world)["topic"]["value"].as_str().unwrap().to_owned();
    let made = topic();
    assert_eq!(made, ":fire: Alarms &amp; more");
    let id = only(&world)["id"].as_str().unwrap().to_owned();
    for wiped in [false, true] {
        if wiped {
            world.wipe::<SlackChannel>();
        }
        let operator = Operator::new(&world);
        operator.converge().await;
        world.calls.clear();
        tokio::time::sleep(POLL * 11).await;
        operator.converge().await;
        assert_eq!(
            world.calls.count("conversations.setTopic"),
            0,
            "it is as it was made"
        );
        world.slack.edit(&id, |channel| {
            channel["topic"]["value"] = json!(":ocean: Alarms &amp; more");
        });
        tokio::time::sleep(POLL * 11).await;
        operator.converge().await;
        assert_eq!(topic(), made);
        let drifted = world.condition::<SlackChannel>("alerts", "Drifted");
        assert_eq!(drifted, "False DriftRepaired");
    }
}
