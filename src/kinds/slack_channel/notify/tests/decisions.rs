//! What is decided without a call: what is to be done next, and which way leads into a channel.

use super::*;
use serde_json::{Value, json};

/// What [`next`] is asked.
struct Case<'a> {
    posting: &'a Posting,
    phase: Phase,
    on: &'a [Phase],
    edits: bool,
    stale: bool,
}

impl<'a> Case<'a> {
    /// By a bot, of a run of which everything is to be told, and something else than has been said.
    fn usual(posting: &'a Posting, phase: Phase) -> Self {
        Self {
            posting,
            phase,
            on: &ALL,
            edits: true,
            stale: true,
        }
    }

    fn by_webhook(posting: &'a Posting, phase: Phase) -> Self {
        let edits = false;
        Self {
            edits,
            ..Self::usual(posting, phase)
        }
    }

    /// Nothing has changed since.
    fn told(posting: &'a Posting, phase: Phase) -> Self {
        let stale = false;
        Self {
            stale,
            ..Self::usual(posting, phase)
        }
    }

    /// Only this is to be told.
    fn only(on: &'a [Phase], posting: &'a Posting, phase: Phase) -> Self {
        Self {
            on,
            ..Self::usual(posting, phase)
        }
    }
}

#[test]
fn what_is_to_be_done_next() {
    use Delivery::{Intended, Posted};
    let posting = |started, ended, there: bool, details| Posting {
        started,
        ended,
        channel_id: there.then(|| "C1".into()),
        ts: there.then(|| "1.1".into()),
        details,
        ..Posting::new("rebuild-1", CHANNEL)
    };
    let post = |part| Some(Deed::Post(part));
    let edit = || Some(Deed::Edit);
    let (going, over, failed) = (Phase::Started, Phase::Completed, Phase::Failed);
    let new = posting(None, None, false, 0);
    let there = posting(Some(Posted), None, true, 0);
    let lost = posting(Some(Intended), None, false, 0);
    let end_lost = posting(None, Some(Intended), false, 0);
    let ended = |details| posting(Some(Posted), Some(Posted), true, details);
    for (what, case, expected) in [
        ("a start", Case::usual(&new, going), post(Part::Start)),
        (
            "a start by webhook",
            Case::by_webhook(&new, going),
            post(Part::Start),
        ),
        ("not wanted", Case::only(&[failed], &new, going), None),
        ("an end alone", Case::usual(&new, over), post(Part::End)),
        ("an end not wanted", Case::only(&[failed], &new, over), None),
        (
            "a failure wanted",
            Case::only(&[failed], &new, failed),
            post(Part::End),
        ),
        ("progress", Case::usual(&there, going), edit()),
        (
            "nothing new",
            Case::told(&there, going),
            post(Part::Detail(0)),
        ),
        ("the end", Case::told(&there, over), edit()),
        (
            "the end is told whatever is wanted",
            Case::only(&[going], &there, over),
            edit(),
        ),
        ("the bot is gone", Case::by_webhook(&there, going), None),
        (
            "the bot is gone at the end",
            Case::by_webhook(&there, over),
            post(Part::End),
        ),
        ("in doubt", Case::usual(&lost, going), None),
        (
            "over after a doubt",
            Case::usual(&lost, over),
            post(Part::End),
        ),
        ("an end in doubt", Case::usual(&end_lost, over), None),
        (
            "an end told",
            Case::usual(&ended(1), over),
            post(Part::Detail(1)),
        ),
        ("all told", Case::usual(&ended(2), over), None),
        ("over is over", Case::usual(&ended(0), going), None),
    ] {
        let on = case.on.iter().copied().collect();
        let run = run(case.phase, "", &["a", "b"]);
        let found = next(case.posting, &run, &on, case.edits, case.stale);
        assert_eq!(found, expected, "{what}");
    }
    let details = vec!["x"; MOST_DETAILS + 5];
    let run = run(Phase::Completed, "", &details);
    let on = ALL.into();
    for (told, more) in [(MOST_DETAILS - 1, true), (MOST_DETAILS, false)] {
        let posting = ended(told as i32);
        assert_eq!(next(&posting, &run, &on, true, true).is_some(), more);
    }
}

#[test]
fn a_posting_is_small_and_comes_back() {
    let new = Posting::new("rebuild-1", CHANNEL);
    let posted = Posted {
        channel: "C1".into(),
        ts: "1.1".into(),
    };
    let started = new.intended(Part::Start).posted(Part::Start, Some(posted));
    let told = started.intended(Part::Detail(0)).edited_to_the_end();
    for (posting, text) in [
        (new.clone(), json!({"run": "rebuild-1", "channel": "runs"})),
        (
            new.intended(Part::Start),
            json!({"run": "rebuild-1", "channel": "runs", "started": "Intended"}),
        ),
        (
            told,
            json!({"run": "rebuild-1", "channel": "runs", "channelId": "C1", "ts": "1.1", "started": "Posted", "ended": "Posted", "details": 1}),
        ),
    ] {
        assert_eq!(serde_json::to_value(&posting).unwrap(), text);
        assert_eq!(serde_json::from_value::<Posting>(text).unwrap(), posting);
    }
}

#[tokio::test]
async fn where_nothing_is_named_nothing_happens() {
    let memory = Memory::bot();
    let mut book = memory.clone();
    let told = memory
        .notifier()
        .tell(&Door::nowhere(), &started(), &mut book, &memory)
        .await;
    assert_eq!(told, Ok(Told::All));
    let place = memory.place();
    assert!(place.record.is_empty() && place.saved.is_empty());
}

#[test]
fn which_way_leads_into_a_channel() {
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
    let ready = stand("True", "True");
    let unknown = stand("Unknown", "Unknown");
    let no_bot = stand("False", "True");
    let neither = stand("False", "False");
    let failed = [condition("Ready", "False")];
    let (id, nothing) = (Some("C1"), "nothing is known");
    for (spec, id, conditions, bot, webhook, wanting) in [
        (&both, id, &ready[..], true, true, nothing),
        (&both, id, &unknown, true, true, nothing),
        (&both, None, &ready, false, true, nothing),
        (&both, id, &no_bot, false, true, "ChannelReady says"),
        (&both, id, &neither, false, false, "ChannelReady says"),
        (&both, id, &[], false, false, nothing),
        (&bot_only, id, &ready, true, false, nothing),
        (&bot_only, None, &failed, false, false, "Ready says"),
        (&hook_only, id, &ready, false, true, nothing),
    ] {
        let channel = channel(spec, id, conditions, false);
        let ways = ways(Some(&channel), "runs", "ns").unwrap();
        let found = (ways.bot, ways.webhook.is_some());
        assert_eq!(
            found,
            (bot.then_some(("a", "C1")), webhook),
            "{spec} {conditions:?}"
        );
        assert!(ways.wanting.starts_with(wanting), "{}", ways.wanting);
    }
    let going = channel(&both, Some("C1"), &ready, true);
    for (channel, says) in [(None, "does not exist"), (Some(&going), "is being deleted")] {
        let error = ways(channel, "runs", "ns").unwrap_err();
        assert_eq!(error.class, Class::Waiting(On::Channel));
        assert!(
            error.message.contains("SlackChannel ns/runs") && error.message.contains(says),
            "{error}"
        );
    }
}
