//! Messages about long-running work, as people read them in Slack. Pure.
//!
//! What comes from elsewhere stands in `plain_text`, in which Slack looks for neither markup nor mentions nor
//! links, so that names of tables and code look as they are. The one text in which it does look, which
//! notifications show, is escaped. Secrets go first: what is cut off or escaped later was clean before.

use crate::clients::{secret::Secret, slack::Post};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use std::{fmt, ops::Range};

/// The most characters of a header (<https://docs.slack.dev/reference/block-kit/blocks/header-block>).
const HEADER: usize = 150;

/// The most characters of a section's text, and of any text object
/// (<https://docs.slack.dev/reference/block-kit/blocks/section-block>).
const SECTION: usize = 3000;

/// The most characters of a section's field (the same page).
const FIELD: usize = 2000;

/// The most fields of a section (the same page). It keeps a message to five blocks, of the fifty that Slack takes.
const FIELDS: usize = 10;

/// The most characters of a message's text (<https://docs.slack.dev/reference/methods/chat.postMessage>).
const TEXT: usize = 40_000;

/// What stands for what must not be seen, and for what is cut off.
const ELLIPSIS: char = '…';

/// What is shown where there is nothing: Slack takes no empty text.
const NOTHING: &str = "–";

/// How far a run is, as far as it concerns who hears of it.
#[derive(
    Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
pub enum Phase {
    /// It is under way.
    Started,
    /// It has done what it was to do.
    Completed,
    /// It has not.
    Failed,
}

impl Phase {
    /// Whether nothing more happens in the run.
    pub fn is_over(self) -> bool {
        self != Self::Started
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Some long-running work, as it is now: a rebuild of an index, a window of maintenance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What tells it from all other runs of the same object, for ever: it is in the ledger and in the audit line.
    pub id: String,
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

/// The run's one message.
pub fn message(run: &Run, redact: &Redact) -> Post {
    composed(run, None, redact)
}

/// The same for where there is no thread for the details: the reason of a failure stands in it.
pub fn message_without_thread(run: &Run, redact: &Redact) -> Post {
    let reason = run.details.last();
    let reason = reason.filter(|_| run.phase == Phase::Failed);
    composed(run, reason.map(String::as_str), redact)
}

/// A detail, as an answer to the run's message. Where that is, the caller adds.
pub fn reply(detail: &str, redact: &Redact) -> Post {
    let detail = clean(detail, redact);
    Post {
        text: escape(&detail, TEXT),
        blocks: json!([section(&detail)]),
        ..Post::default()
    }
}

fn composed(run: &Run, reason: Option<&str>, redact: &Redact) -> Post {
    let headline = headline(run, redact);
    let progress = (!run.progress.trim().is_empty()).then(|| clean(&run.progress, redact));
    let facts = run.facts.iter().take(FIELDS);
    let facts: Vec<_> = facts
        .map(|(name, value)| {
            let fact = format!("{}\n{}", clean(name, redact), clean(value, redact));
            plain_text(&fact, FIELD)
        })
        .collect();
    let mut blocks = vec![json!({"type": "header", "text": plain_text(&headline, HEADER)})];
    blocks.extend(progress.as_deref().map(section));
    if !facts.is_empty() {
        blocks.push(json!({"type": "section", "fields": facts}));
    }
    blocks.extend(reason.map(|reason| section(&clean(reason, redact))));
    let object = plain_text(&clean(&run.object, redact), FIELD);
    blocks.push(json!({"type": "context", "elements": [object]}));
    let text = match &progress {
        Some(progress) => format!("{headline}: {progress}"),
        None => headline,
    };
    Post {
        text: escape(&text, TEXT),
        blocks: Json::Array(blocks),
        ..Post::default()
    }
}

fn headline(run: &Run, redact: &Redact) -> String {
    let (sign, word) = match run.phase {
        Phase::Started if run.progress.trim().is_empty() => ("▶️", "Started"),
        Phase::Started => ("🔄", "Running"),
        Phase::Completed => ("✅", "Completed"),
        Phase::Failed => ("❌", "Failed"),
    };
    format!("{sign} {word} · {}", clean(&run.title, redact))
}

fn section(text: &str) -> Json {
    json!({"type": "section", "text": plain_text(text, SECTION)})
}

/// A text in which Slack looks for nothing, `:fire:` included.
fn plain_text(text: &str, limit: usize) -> Json {
    json!({"type": "plain_text", "text": clip(text, limit), "emoji": false})
}

/// A text without secrets and without what nobody can see; never empty.
pub(super) fn clean(text: &str, redact: &Redact) -> String {
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

/// A text of at most `limit` characters, as JavaScript counts them, an ellipsis included.
pub fn clip(text: &str, limit: usize) -> String {
    fit(text, limit, |_| None)
}

/// A text in which Slack looks for markup, so that there is none to be found: `&`, `<` and `>` are written as
/// Slack wants them, and none of these is cut in two. At most `limit` characters of what is sent.
pub fn escape(text: &str, limit: usize) -> String {
    fit(text, limit, |c| match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        _ => None,
    })
}

fn fit(text: &str, limit: usize, entity: fn(char) -> Option<&'static str>) -> String {
    let width = |c: char| entity(c).map_or(c.len_utf16(), str::len);
    let whole = text.chars().map(width).sum::<usize>() <= limit;
    let mut left = if whole {
        limit
    } else {
        limit.saturating_sub(1)
    };
    let mut fitted = String::new();
    for c in text.chars() {
        let Some(rest) = left.checked_sub(width(c)) else {
            break;
        };
        left = rest;
        match entity(c) {
            Some(entity) => fitted.push_str(entity),
            None => fitted.push(c),
        }
    }
    if !whole {
        fitted.push(ELLIPSIS);
    }
    fitted
}

/// Takes secrets out of texts: those that it knows, and whatever looks like a token or a webhook of Slack's.
#[derive(Clone, Debug, Default)]
pub struct Redact(Vec<Secret>);

impl Redact {
    /// Of these secrets, and of those that look like some.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        Self(secrets.into_iter().cloned().collect())
    }

    /// The same, of one more.
    pub fn and(&self, secret: Option<&Secret>) -> Self {
        Self(self.0.iter().chain(secret).cloned().collect())
    }

    /// The text, with `…` in place of every secret.
    pub fn text(&self, text: &str) -> String {
        // A secret from a file often ends in a line break that nobody quotes.
        let known = self.0.iter().map(|secret| secret.reveal().trim());
        let known = known.filter(|secret| !secret.is_empty());
        let mut hidden: Vec<_> = known.flat_map(|secret| every(text, secret)).collect();
        // The same bytes at the same places, but for capitals.
        let lower = text.to_ascii_lowercase();
        hidden.extend(tokens(&lower));
        hidden.extend(webhooks(&lower));
        hidden.sort_by_key(|range| range.start);
        let (mut clean, mut at) = (String::with_capacity(text.len()), 0);
        for Range { start, end } in hidden {
            // What overlaps or touches goes under one sign.
            if start > at || clean.is_empty() {
                clean.push_str(&text[at..start]);
                clean.push(ELLIPSIS);
            }
            at = at.max(end);
        }
        clean.push_str(&text[at..]);
        clean
    }
}

/// Where a secret occurs, overlaps included.
fn every(text: &str, secret: &str) -> Vec<Range<usize>> {
    let step = secret.chars().next().map_or(1, char::len_utf8);
    let (mut found, mut from) = (Vec::new(), 0);
    while let Some(at) = text.get(from..).and_then(|rest| rest.find(secret)) {
        let start = from + at;
        found.push(start..start + secret.len());
        from = start + step;
    }
    found
}

/// Where something looks like a token: `xoxb-…` and its like, and `xapp-…`.
fn tokens(lower: &str) -> Vec<Range<usize>> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.%".contains(c);
    let begins = lower
        .match_indices("xox")
        .chain(lower.match_indices("xapp"));
    let ranges = begins.filter_map(|(start, _)| {
        let rest = &lower[start..];
        let token = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
        let secret = token.split_once('-').map(|(_, secret)| secret);
        let is_token = secret.is_some_and(|secret| secret.contains(|c: char| c.is_alphanumeric()));
        is_token.then(|| start..start + token.len())
    });
    ranges.collect()
}

/// Where something looks like the URL of an incoming webhook, on Slack's own host or with such a path.
fn webhooks(lower: &str) -> Vec<Range<usize>> {
    let is_end = |c: char| c.is_whitespace() || "\"'`<>|(){}[],;".contains(c);
    let mut found = Vec::new();
    let mut start = 0;
    for word in lower.split(is_end) {
        let is_host = ["hooks.slack.com", "hooks.slack-gov.com"]
            .iter()
            .any(|host| {
                let after = word.match_indices(host);
                let mut after = after.filter_map(|(at, _)| word[at + host.len()..].chars().next());
                after.any(|c| "/:%\\".contains(c))
            });
        let is_path = word.match_indices("/services/").any(|(at, begin)| {
            let mut parts = word[at + begin.len()..].split('/');
            let mut next = |first: &str| {
                let part = parts.next().unwrap_or_default();
                part.len() > 1 && part.starts_with(first)
            };
            next("t") && next("b") && next("")
        });
        if is_host || is_path {
            // What ends a clause is none of its.
            let url = word.trim_end_matches([':', '.', '!', '?']);
            found.push(start..start + url.len());
        }
        let end = start + word.len();
        let gap = lower[end..].chars().next().map_or(0, char::len_utf8);
        start = end + gap;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOKEN: &str = "xoxb-1234567890-canary0123456789";
    const HOOK: &str = "https://hooks.slack.com/services/T0CANARY/B0CANARY/canary0123456789";

    pub fn run(phase: Phase) -> Run {
        Run {
            id: "rebuild-1".into(),
            title: "Rebuild of idx_embeddings".into(),
            object: "IndexMaintenancePolicy vsu/knowledge-base".into(),
            phase,
            progress: String::new(),
            facts: Vec::new(),
            details: Vec::new(),
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

    #[test]
    fn every_phase_has_its_message() {
        let with = |phase, progress: &str| {
            let facts = [("Table", "main_app_chunks"), ("Size", "1.2 GiB")];
            Run {
                progress: progress.into(),
                facts: facts
                    .map(|(name, value)| (name.into(), value.into()))
                    .into(),
                details: vec!["vacuumed".into(), "lock timeout".into()],
                ..run(phase)
            }
        };
        let facts = ["Table\nmain_app_chunks", "Size\n1.2 GiB"];
        let object = "IndexMaintenancePolicy vsu/knowledge-base";
        for (run, head, rest, reason) in [
            (with(Phase::Started, ""), "▶️ Started", vec![], false),
            (
                with(Phase::Started, "7 of 10"),
                "🔄 Running",
                vec!["7 of 10"],
                false,
            ),
            (
                with(Phase::Completed, "14 min"),
                "✅ Completed",
                vec!["14 min"],
                false,
            ),
            (
                with(Phase::Failed, "after 3 min"),
                "❌ Failed",
                vec!["after 3 min"],
                true,
            ),
        ] {
            let head = format!("{head} · Rebuild of idx_embeddings");
            let text = match rest.first() {
                Some(progress) => format!("{head}: {progress}"),
                None => head.clone(),
            };
            let mut says = vec![text.as_str(), head.as_str()];
            says.extend(&rest);
            says.extend(facts);
            let threaded = message(&run, &Redact::default());
            let alone = message_without_thread(&run, &Redact::default());
            for (post, more) in [(&threaded, false), (&alone, reason)] {
                check(post);
                let mut says = says.clone();
                says.extend(more.then_some("lock timeout"));
                says.push(object);
                let found: Vec<_> = texts(post).into_iter().map(|(_, text, _)| text).collect();
                assert_eq!(found, says);
            }
        }
        let bare = message_without_thread(&run(Phase::Failed), &Redact::default());
        check(&bare);
        let said = reply(
            "ERROR: canceling statement\nDETAIL: <!here>",
            &Redact::default(),
        );
        check(&said);
        assert_eq!(
            said.text,
            "ERROR: canceling statement\nDETAIL: &lt;!here&gt;"
        );
    }

    #[test]
    fn nothing_becomes_a_mention_or_a_link() {
        for (text, escaped) in [
            ("plain", "plain"),
            ("<!here> <!channel>", "&lt;!here&gt; &lt;!channel&gt;"),
            ("<@U012AB3CD>", "&lt;@U012AB3CD&gt;"),
            ("@channel @here", "@channel @here"),
            (
                "<https://evil.example|good.example>",
                "&lt;https://evil.example|good.example&gt;",
            ),
            ("a && b", "a &amp;&amp; b"),
            ("&lt;!here&gt;", "&amp;lt;!here&amp;gt;"),
            ("*b* _i_ `c` ~s~", "*b* _i_ `c` ~s~"),
        ] {
            assert_eq!(escape(text, TEXT), escaped);
            let run = Run {
                title: text.into(),
                progress: text.into(),
                facts: vec![(text.into(), text.into())],
                details: vec![text.into()],
                object: text.into(),
                ..run(Phase::Failed)
            };
            check(&message_without_thread(&run, &Redact::default()));
            check(&reply(text, &Redact::default()));
        }
    }

    #[test]
    fn what_is_too_long_is_cut_at_a_character() {
        for (text, limit, clipped) in [
            ("", 5, ""),
            ("12345", 5, "12345"),
            ("123456", 5, "1234…"),
            ("ééééé", 5, "ééééé"),
            ("éééééé", 5, "éééé…"),
            // Each is two of JavaScript's characters.
            ("🔥🔥", 4, "🔥🔥"),
            ("🔥🔥🔥", 5, "🔥🔥…"),
            ("🔥🔥🔥", 4, "🔥…"),
        ] {
            assert_eq!(clip(text, limit), clipped, "{text} {limit}");
        }
        for (text, limit, escaped) in [
            ("<>", 8, "&lt;&gt;"),
            ("<>", 7, "&lt;…"),
            ("<>", 4, "…"),
            ("a&b", 7, "a&amp;b"),
            ("a&b", 6, "a…"),
        ] {
            assert_eq!(escape(text, limit), escaped, "{text} {limit}");
        }
    }

    #[test]
    fn nothing_is_shown_as_nothing() {
        for nothing in ["", " \n", "\u{0}\u{7}", "\u{a0}"] {
            let run = Run {
                title: nothing.into(),
                object: nothing.into(),
                progress: nothing.into(),
                facts: vec![(nothing.into(), nothing.into())],
                details: vec![nothing.into()],
                ..run(Phase::Failed)
            };
            check(&message_without_thread(&run, &Redact::default()));
            assert_eq!(reply(nothing, &Redact::default()).text, NOTHING);
        }
    }

    #[test]
    fn secrets_are_taken_out() {
        let known = ["hunter2\n", "abcdef", "defghi", "aa", "", "ümläut"];
        let known = known.map(|secret| Secret::new(secret.into()));
        let redact = Redact::new(&known);
        let hook = "http://127.0.0.1:8080/services/T0CANARY/B0CANARY/canary";
        for (text, clean) in [
            ("nothing to hide", "nothing to hide"),
            ("postgres://u:hunter2@db/x hunter2", "postgres://u:…@db/x …"),
            ("xabcdefghix", "x…x"),
            ("abcdef and defghi", "… and …"),
            ("baaaab", "b…b"),
            ("ein ümläut hier", "ein … hier"),
            (TOKEN, "…"),
            ("(xoxp-1-2) XOXA-12 xoxe.xoxb-1-a_b%2F", "(…) … …"),
            ("token=xapp-1-A0-9", "token=…"),
            // Our own errors speak of them.
            (
                "put a bot token (xoxb-…) there",
                "put a bot token (xoxb-…) there",
            ),
            ("xoxo", "xoxo"),
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
            (
                "hooks.slack.com refuses connections",
                "hooks.slack.com refuses connections",
            ),
            ("GET /services/tenants", "GET /services/tenants"),
            ("GET /services/t/b/x", "GET /services/t/b/x"),
        ] {
            assert_eq!(redact.text(text), clean, "{text}");
        }
        let more = Secret::new("https://proxy.example/canary".into());
        let all = redact.and(Some(&more));
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
            let run = Run {
                title: text.clone(),
                object: text.clone(),
                progress: text.clone(),
                facts: vec![(text.clone(), text.clone()); 12],
                details: vec![text.clone()],
                ..run(Phase::Failed)
            };
            for post in [message_without_thread(&run, &redact), reply(&text, &redact)] {
                check(&post);
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
            texts_of in proptest::collection::vec("(\\PC|[<>&\n\u{0}🔥]){0,100}", 5),
            secret in "[a-c<&é]{1,5}",
            times in 1_usize..60,
        ) {
            let secret = Secret::new(secret);
            let redact = Redact::new([&secret]);
            let mut words = texts_of.into_iter().map(|text| format!("{text}{}", secret.reveal()).repeat(times));
            let mut word = || words.next().unwrap();
            let run = Run {
                title: word(), object: word(), progress: word(), facts: vec![(word(), String::new())],
                details: vec![word()], ..run(Phase::Failed)
            };
            for text in [&run.title, &run.progress, &run.details[0]] {
                let clean = redact.text(text);
                prop_assert!(!clean.contains(secret.reveal().trim()), "{clean}");
            }
            check(&message_without_thread(&run, &redact));
            check(&reply(&run.details[0], &redact));
        }
    }
}
