//! What is decided without a call: what is to be done next, and what leads into a channel.

use super::*;
use serde_json::{Value, json};

#[test]
fn what_is_to_be_done_next() {
    let (going, over, failed) = (Phase::Started, Phase::Completed, Phase::Failed);
    let record = |told, there: bool, details| Record {
        told,
        message: there.then(|| Posted {
            channel: "C1".into(),
            ts: "1.1".into(),
        }),
        details,
        ..Record::new("rebuild-1", "runs")
    };
    let (new, lost) = (record(None, false, 0), record(Some(going), false, 0));
    let (there, end_lost) = (record(Some(going), true, 0), record(Some(over), false, 0));
    let ended = |details| record(Some(over), true, details);
    let (post, edit, reply) = (Some(Call::Post), Some(Call::Edit), Some(Call::Reply));
    let (by_bot, by_webhook, stale, fresh) = (true, false, true, false);
    let (all, failures, starts) = (&ALL[..], &[failed][..], &[going][..]);
    for (what, record, phase, on, edits, stale, expected) in [
        ("a start", &new, going, all, by_bot, stale, post),
        ("by webhook", &new, going, all, by_webhook, stale, post),
        ("not wanted", &new, going, failures, by_bot, stale, None),
        ("an end alone", &new, over, all, by_bot, stale, post),
        ("not wanted", &new, over, failures, by_bot, stale, None),
        ("wanted", &new, failed, failures, by_bot, stale, post),
        ("progress", &there, going, all, by_bot, stale, edit),
        ("nothing new", &there, going, all, by_bot, fresh, reply),
        ("the end", &there, over, all, by_bot, fresh, edit),
        (
            "the end of what is there",
            &there,
            over,
            starts,
            by_bot,
            stale,
            edit,
        ),
        (
            "the bot is gone",
            &there,
            going,
            all,
            by_webhook,
            stale,
            None,
        ),
        ("and it is over", &there, over, all, by_webhook, stale, post),
        ("in doubt", &lost, going, all, by_bot, stale, None),
        ("over after a doubt", &lost, over, all, by_bot, stale, post),
        ("an end in doubt", &end_lost, over, all, by_bot, stale, None),
        ("an end told", &ended(1), over, all, by_bot, stale, reply),
        ("all told", &ended(2), over, all, by_bot, stale, None),
        ("over is over", &ended(0), going, all, by_bot, stale, None),
    ] {
        let on = on.iter().copied().collect();
        let run = run(phase, "", &["a", "b"]);
        let found = next(record, &run, &on, edits, stale);
        assert_eq!(found, expected, "{what}");
    }
    let run = run(over, "", &["x"; 60]);
    for (told, more) in [(MOST_DETAILS - 1, reply), (MOST_DETAILS, None)] {
        assert_eq!(next(&ended(told), &run, &ALL.into(), true, true), more);
    }
}

#[test]
fn a_record_is_small_and_comes_back() {
    let new = Record::new("rebuild-1", "runs");
    let told = Record {
        told: Some(Phase::Failed),
        message: Some(Posted {
            channel: "C1".into(),
            ts: "1.1".into(),
        }),
        details: 1,
        ..new.clone()
    };
    for (record, text) in [
        (
            new,
            json!({"run": "rebuild-1", "channel": "runs", "details": 0}),
        ),
        (
            told,
            json!({"run": "rebuild-1", "channel": "runs", "told": "Failed", "message": {"channel": "C1", "ts": "1.1"}, "details": 1}),
        ),
    ] {
        assert_eq!(serde_json::to_value(&record).unwrap(), text);
        assert_eq!(serde_json::from_value::<Record>(text).unwrap(), record);
    }
}

#[test]
fn what_leads_into_a_channel() {
    let hook = json!({"name": "hook", "key": "k"});
    let condition = |type_: &str, status: &str| {
        json!({"type": type_, "status": status, "reason": "R", "message": format!("{type_} says"),
            "lastTransitionTime": "2026-01-02T03:04:05Z"})
    };
    let channel = |spec: &Value, id: Option<&str>, conditions: &[Value], deleting: bool| {
        let mut metadata = json!({"name": "runs", "namespace": "ns"});
        if deleting {
            metadata["deletionTimestamp"] = json!("2026-01-02T03:04:05Z");
        }
        let channel: SlackChannel = serde_json::from_value(json!({
            "apiVersion": "campanile.dev/v1alpha1", "kind": "SlackChannel", "metadata": metadata,
            "spec": spec, "status": {"channelId": id, "conditions": conditions}
        }))
        .unwrap();
        channel
    };
    let both = json!({"channel": "a", "webhookSecretRef": hook});
    let (bot_only, hook_only) = (json!({"channel": "a"}), json!({"webhookSecretRef": hook}));
    let stand = |channel: &str, webhook: &str| {
        [
            condition("ChannelReady", channel),
            condition("WebhookReady", webhook),
        ]
    };
    let all_ready = stand("True", "True");
    let unknown = stand("Unknown", "Unknown");
    let no_bot = stand("False", "True");
    let neither = stand("False", "False");
    let failed = [condition("Ready", "False")];
    let (id, nothing) = (Some("C1"), "nothing is known");
    for (spec, id, conditions, bot, webhook, wanting) in [
        (&both, id, &all_ready[..], true, true, nothing),
        (&both, id, &unknown, true, true, nothing),
        (&both, None, &all_ready, false, true, nothing),
        (&both, id, &no_bot, false, true, "ChannelReady says"),
        (&both, id, &neither, false, false, "ChannelReady says"),
        (&both, id, &[], false, false, nothing),
        (&bot_only, id, &all_ready, true, false, nothing),
        (&bot_only, None, &failed, false, false, "Ready says"),
        (&hook_only, id, &all_ready, false, true, nothing),
    ] {
        let channel = channel(spec, id, conditions, false);
        let (bot_found, webhook_found, says) = ready(&channel);
        let found = (bot_found, webhook_found.is_some());
        let expected = (bot.then_some(("a", "C1")), webhook);
        assert_eq!(found, expected, "{spec} {conditions:?}");
        assert!(says.starts_with(wanting), "{says}");
    }
    let going = channel(&both, Some("C1"), &all_ready, true);
    assert_eq!(ready(&going), (None, None, "it is being deleted"));
}

#[test]
fn what_is_posted_counts_by_channel_and_no_secret_is_shown() {
    let installation = crate::kinds::installation::Installation::sample();
    let observe = std::sync::Arc::new(|_: crate::clients::aws::Request<'_>| {});
    let limiter = std::sync::Arc::new(crate::engine::limits::Limiter::new(&Default::default()));
    let slack = Slack::new(
        reqwest::Client::new(),
        "https://slack.example",
        limiter,
        observe,
    );
    let canary = || Secret::new("canary".into());
    let bot = SlackRoute::BotToken {
        token: canary(),
        channel_id: "C1".into(),
    };
    for (route, edits, api, region) in [
        (bot.clone(), false, "slack:chat.postMessage", "C1"),
        (bot, true, "slack:chat.update", ""),
        (SlackRoute::Webhook(canary()), false, WEBHOOK, ""),
    ] {
        let sender = Sender::new(
            slack.clone(),
            route,
            &installation.digester,
            "a test".into(),
        );
        let operation = sender.operation(edits, "C1");
        assert_eq!((operation.api, operation.region), (api, region));
        assert!(operation.endpoint.ends_with(operation.account));
        let shown = format!("{sender:?} {operation:?}");
        assert!(!shown.contains("canary"), "{shown}");
    }
}
