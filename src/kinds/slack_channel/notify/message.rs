//! Messages about long-running work, as people read them in Slack. Pure.
//!
//! What comes from elsewhere stands in `plain_text`, in which Slack looks for neither markup nor mentions nor
//! links, so that names of tables and code look as they are. The one text in which it does look, which
//! notifications show, is escaped. Secrets go first: what is cut off or escaped later was clean before.

use crate::{
    api::notification::Phase,
    clients::{
        secret::Secret,
        slack::{Post, clip, escape},
    },
};
use regex::Regex;
use serde_json::{Value as Json, json};
use std::{ops::Range, sync::LazyLock};

/// The most characters of a header (<https://docs.slack.dev/reference/block-kit/blocks/header-block>).
const HEADER: usize = 150;

/// The most characters of a section's text, and of any text object
/// (<https://docs.slack.dev/reference/block-kit/blocks/section-block>).
const SECTION: usize = 3000;

/// The most characters of a section's field (the same page).
const FIELD: usize = 2000;

/// The most fields of a section (the same page). It keeps a message to five blocks, of the fifty that Slack takes.
const FIELDS: usize = 10;

/// The most characters of a message's text before they are escaped, which makes at most five of one: Slack takes
/// 40,000 (<https://docs.slack.dev/reference/methods/chat.postMessage>).
const TEXT: usize = 8_000;

/// What stands for what must not be seen.
const HIDDEN: char = '…';

/// What is shown where there is nothing: Slack takes no empty text.
const NOTHING: &str = "–";

/// Some long-running work, as it is now: a rebuild of an index, a window of maintenance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What is done, in a few words: `Rebuild of idx_embeddings`.
    pub title: String,
    /// For which object, with its kind and namespace.
    pub object: String,
    /// How far it is.
    pub phase: Phase,
    /// How far it is in words, or how it ended: a line or a few. May be empty.
    pub progress: String,
    /// What there is to know beside it, each with a name; ten are shown.
    pub facts: Vec<(String, String)>,
    /// What happened one after the other, the last the reason of a failure. Grows at its end only: those that
    /// have been told are told by their number.
    pub details: Vec<String>,
}

/// The run's one message. Where it has no thread for the details, the reason of a failure stands in it.
pub fn message(run: &Run, threaded: bool, redact: &Redact) -> Post {
    let shown = |text: &str| clean(text, redact);
    let progress = Some(&*run.progress).filter(|text| !text.trim().is_empty());
    let progress = progress.map(shown);
    let (sign, word) = match (run.phase, &progress) {
        (Phase::Started, None) => ("▶️", "Started"),
        (Phase::Started, Some(_)) => ("🔄", "Running"),
        (Phase::Completed, _) => ("✅", "Completed"),
        (Phase::Failed, _) => ("❌", "Failed"),
    };
    let headline = format!("{sign} {word} · {}", shown(&run.title));
    let facts = run.facts.iter().take(FIELDS);
    let facts = facts.map(|(name, value)| format!("{}\n{}", shown(name), shown(value)));
    let facts: Vec<_> = facts.map(|fact| plain_text(&fact, FIELD)).collect();
    let reason = run.details.last();
    let reason = reason.filter(|_| !threaded && run.phase == Phase::Failed);
    let mut blocks = vec![json!({"type": "header", "text": plain_text(&headline, HEADER)})];
    blocks.extend(progress.as_deref().map(section));
    if !facts.is_empty() {
        blocks.push(json!({"type": "section", "fields": facts}));
    }
    blocks.extend(reason.map(|reason| section(&shown(reason))));
    let object = plain_text(&shown(&run.object), FIELD);
    blocks.push(json!({"type": "context", "elements": [object]}));
    let text = progress.map_or(headline.clone(), |text| format!("{headline}: {text}"));
    Post {
        text: escape(&clip(&text, TEXT)),
        blocks: Json::Array(blocks),
        thread_ts: None,
    }
}

/// A detail, as an answer to the run's message of that `ts`.
pub fn reply(detail: &str, ts: &str, redact: &Redact) -> Post {
    let detail = clean(detail, redact);
    Post {
        text: escape(&clip(&detail, TEXT)),
        blocks: json!([section(&detail)]),
        thread_ts: Some(ts.to_owned()),
    }
}

fn section(text: &str) -> Json {
    json!({"type": "section", "text": plain_text(text, SECTION)})
}

/// A text in which Slack looks for nothing, `:fire:` included.
fn plain_text(text: &str, limit: usize) -> Json {
    json!({"type": "plain_text", "text": clip(text, limit), "emoji": false})
}

/// A text without secrets and without what nobody can see; never empty.
fn clean(text: &str, redact: &Redact) -> String {
    let mut text = redact.text(text);
    text.retain(|c| c == '\n' || c == '\t' || !c.is_control());
    // What stood between the parts of a token is gone.
    let text = redact.text(text.trim());
    if text.is_empty() {
        NOTHING.into()
    } else {
        text
    }
}

/// What looks like an incoming webhook, on Slack's own host or with such a path; and what looks like a token:
/// `xoxb-…` and its like, and `xapp-…`. Punctuation after a URL is not part of it.
#[expect(clippy::expect_used, reason = "a constant")]
static SECRET: LazyLock<Regex> = LazyLock::new(|| {
    let outside = r#"\s"'`<>|(){}\[\],;"#;
    let (any, part) = (format!("[^{outside}]"), format!("[^{outside}/]"));
    let host = r"hooks\.slack(?:-gov)?\.com[/:%\\]";
    let path = format!("/services/t{part}+/b{part}+/{part}");
    let token = r"(?:xox|xapp)[a-z0-9_.%]*-[-a-z0-9_.%]*[a-z0-9][-a-z0-9_.%]*";
    let pattern = format!("(?i){any}*(?:{host}|{path}){any}*[^{outside}:.!?]|{token}");
    Regex::new(&pattern).expect("a pattern")
});

/// Takes secrets out of texts: those that it knows, and whatever looks like a token or a webhook of Slack's.
#[derive(Clone, Debug, Default)]
pub struct Redact(Vec<Secret>);

impl Redact {
    /// Of these secrets, and of those that look like some.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        Self(secrets.into_iter().cloned().collect())
    }

    /// The same, of one more.
    pub fn and(&self, secret: &Secret) -> Self {
        Self(self.0.iter().chain([secret]).cloned().collect())
    }

    /// The text, with `…` in place of every secret.
    pub fn text(&self, text: &str) -> String {
        let mut hidden: Vec<_> = SECRET.find_iter(text).map(|found| found.range()).collect();
        // A secret from a file often ends in a line break that nobody quotes.
        let known = self.0.iter().map(|secret| secret.reveal().trim());
        for secret in known.filter(|secret| !secret.is_empty()) {
            let found = text.match_indices(secret);
            hidden.extend(found.map(|(start, _)| start..start + secret.len()));
        }
        hidden.sort_by_key(|range| range.start);
        let (mut clean, mut at) = (String::with_capacity(text.len()), 0);
        for Range { start, end } in hidden {
            // What overlaps or touches goes under one sign.
            if start > at || clean.is_empty() {
                clean.push_str(&text[at..start]);
                clean.push(HIDDEN);
            }
            at = at.max(end);
        }
        clean.push_str(&text[at..]);
        clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOKEN: &str = "xoxb-1234567890-canary0123456789";
    const HOOK: &str = "https://hooks.slack.com/services/T0CANARY/B0CANARY/canary0123456789";

    /// A run that says the same everywhere.
    fn run(phase: Phase, says: &str) -> Run {
        Run {
            title: says.into(),
            object: says.into(),
            phase,
            progress: says.into(),
            facts: vec![(says.into(), says.into()); 12],
            details: vec![says.into()],
        }
    }

    /// Every text of a message: the kind of text (`text` for the one beside the blocks), what it says, and the
    /// most characters that Slack takes there.
    fn texts(post: &Post) -> Vec<(String, String, usize)> {
        fn of(text: &Json, limit: usize, found: &mut Vec<(String, String, usize)>) {
            let part = |name: &str| text[name].as_str().unwrap().to_owned();
            found.push((part("type"), part("text"), limit));
        }
        let mut found = vec![("text".to_owned(), post.text.clone(), 40_000)];
        let blocks = post.blocks.as_array().unwrap();
        assert!((1..=50).contains(&blocks.len()));
        for block in blocks {
            match block["type"].as_str().unwrap() {
                "header" => of(&block["text"], 150, &mut found),
                "section" => {
                    if let Some(text) = block.get("text") {
                        of(text, 3000, &mut found);
                    }
                    let fields = block.get("fields").and_then(Json::as_array);
                    assert!(fields.is_none_or(|fields| (1..=10).contains(&fields.len())));
                    let fields = fields.into_iter().flatten();
                    fields.for_each(|field| of(field, 2000, &mut found));
                }
                "context" => of(&block["elements"][0], 2000, &mut found),
                other => panic!("{other}"),
            }
        }
        found
    }

    fn check(post: &Post) {
        for (kind, text, limit) in texts(post) {
            let length = text.encode_utf16().count();
            assert!((1..=limit).contains(&length), "{length} of {limit}: {text}");
            if kind == "text" {
                assert!(!text.contains(['<', '>']), "{text}");
                let entities = text.matches('&').count();
                let known = ["&amp;", "&lt;", "&gt;"].map(|entity| text.matches(entity).count());
                assert_eq!(entities, known.iter().sum::<usize>(), "{text}");
            } else {
                assert_eq!(kind, "plain_text", "{text}");
            }
        }
    }

    /// All that can be said of a run, each of it as Slack takes it.
    fn all(run: &Run, redact: &Redact) -> [Post; 3] {
        let detail = run.details.last().map_or("", String::as_str);
        let posts = [
            message(run, true, redact),
            message(run, false, redact),
            reply(detail, "1.1", redact),
        ];
        posts.iter().for_each(check);
        posts
    }

    #[test]
    fn every_phase_has_its_message() {
        let facts = [("Table", "main_app_chunks"), ("Size", "1.2 GiB")];
        for (phase, progress, head) in [
            (Phase::Started, "", "▶️ Started"),
            (Phase::Started, "7 of 10", "🔄 Running"),
            (Phase::Completed, "14 min", "✅ Completed"),
            (Phase::Failed, "after 3 min", "❌ Failed"),
        ] {
            let run = Run {
                title: "Rebuild of idx_embeddings".into(),
                object: "IndexMaintenancePolicy vsu/knowledge-base".into(),
                phase,
                progress: progress.into(),
                facts: facts
                    .map(|(name, value)| (name.into(), value.into()))
                    .into(),
                details: vec!["vacuumed".into(), "<!here> lock timeout".into()],
            };
            let head = format!("{head} · {}", run.title);
            let text = match progress {
                "" => head.clone(),
                progress => format!("{head}: {progress}"),
            };
            let [threaded, alone, reply] = all(&run, &Redact::default());
            for (post, reason) in [(&threaded, false), (&alone, phase == Phase::Failed)] {
                let mut says = vec![text.as_str(), &head];
                says.extend(Some(progress).filter(|progress| !progress.is_empty()));
                says.extend(["Table\nmain_app_chunks", "Size\n1.2 GiB"]);
                says.extend(reason.then_some(run.details[1].as_str()));
                says.push(&run.object);
                let found: Vec<_> = texts(post).into_iter().map(|(_, text, _)| text).collect();
                assert_eq!(found, says);
            }
            assert_eq!(reply.text, "&lt;!here&gt; lock timeout");
            assert_eq!(reply.thread_ts.as_deref(), Some("1.1"));
        }
    }

    #[test]
    fn nothing_is_shown_as_nothing() {
        for nothing in ["", " \n", "\u{0}\u{7}", "\u{a0}"] {
            let [.., reply] = all(&run(Phase::Failed, nothing), &Redact::default());
            assert_eq!(reply.text, NOTHING);
        }
    }

    #[test]
    fn secrets_are_taken_out() {
        let known = ["hunter2\n", "abcdef", "defghi", "aa", "", "ümläut"];
        let known = known.map(|secret| Secret::new(secret.into()));
        let redact = Redact::new(&known);
        let hook = "http://127.0.0.1:8080/services/T0CANARY/B0CANARY/canary";
        for (text, clean) in [
            ("postgres://u:hunter2@db/x hunter2", "postgres://u:…@db/x …"),
            ("xabcdefghix", "x…x"),
            ("abcdef and defghi", "… and …"),
            ("baaaab", "b…b"),
            ("ein ümläut hier", "ein … hier"),
            (TOKEN, "…"),
            ("(xoxp-1-2) XOXA-12 xoxe.xoxb-1-a_b%2F", "(…) … …"),
            ("token=xapp-1-A0-9", "token=…"),
            (HOOK, "…"),
            (
                &format!("POST \"{HOOK}\": no_service"),
                "POST \"…\": no_service",
            ),
            (&format!("<{}|x>", HOOK.to_uppercase()), "<…|x>"),
            ("https:\\/\\/hooks.slack.com\\/services\\/T1", "…"),
            ("u=https%3A%2F%2Fhooks.slack.com%2Fservices%2FT1", "…"),
            ("https://hooks.slack-gov.com/x", "…"),
            (&format!("POST {HOOK}: no_service"), "POST …: no_service"),
            (hook, "…"),
        ] {
            assert_eq!(redact.text(text), clean, "{text}");
        }
        for harmless in [
            "nothing to hide",
            // Our own errors speak of them.
            "put a bot token (xoxb-…) there",
            "xoxo",
            "hooks.slack.com: connection refused",
            "GET /services/tenants",
            "GET /services/t/b/x",
        ] {
            assert_eq!(redact.text(harmless), harmless);
        }
        let more = Secret::new("https://proxy.example/canary".into());
        let all = redact.and(&more);
        assert_eq!(all.text("https://proxy.example/canary hunter2"), "… …");
        assert!(!format!("{all:?}").contains("hunter2"));
    }

    #[test]
    fn secrets_go_before_anything_is_cut_or_dropped() {
        let secret = Secret::new("<canary&canary>".repeat(4));
        let redact = Redact::new([&secret]);
        for before in [0, 1, 140, 149, 1990, 1999, 2990, 2999] {
            let spread = |text: &str| text.split("").collect::<Vec<_>>().join("\u{0}");
            let pad = "x".repeat(before);
            let text = format!(
                "{pad} {} {TOKEN} {HOOK} {} {}",
                secret.reveal(),
                spread(TOKEN),
                spread(HOOK)
            );
            for post in all(&run(Phase::Failed, &text), &redact) {
                for (_, text, _) in texts(&post) {
                    assert!(!text.to_lowercase().contains("canary"), "{text}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn whatever_it_says_slack_takes_it_and_secrets_stay(
            text in "(\\PC|[<>&\n\u{0}🔥]){0,100}",
            secret in "[a-c<&é]{1,5}",
            times in 1_usize..60,
        ) {
            let secret = Secret::new(secret);
            let redact = Redact::new([&secret]);
            let text = format!("{text}{}", secret.reveal()).repeat(times);
            let clean = redact.text(&text);
            prop_assert!(!clean.contains(secret.reveal()), "{clean}");
            all(&run(Phase::Failed, &text), &redact);
        }
    }
}
