//! The message about an alarm, as an input transformer: EventBridge makes it from its event without us.
//! Pure.
//!
//! The transformer knows no conditions, so there is one of them per state. Nor does it escape: what it puts
//! into a quoted text stays as it is, so only names, states and times go there. Free text takes the place
//! of a whole value, where EventBridge writes it as JSON. It may be empty, and no block of Slack's takes an
//! empty text: the whole message would be dropped. Attachments of the old sort take one, so the reason and
//! the description stand there.

use crate::{
    api::{AlarmState, Severity},
    clients::slack::{clip, escape},
};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// The most characters of a header (Slack's Block Kit).
const HEADER: usize = 150;

/// Around a placeholder while the template is made: characters that no text has which comes from a spec.
const OPEN: char = '\u{e000}';
const CLOSE: char = '\u{e001}';

/// What of an event goes into a message: the placeholder, and where it is.
const PATHS: [(&str, &str); 7] = [
    ("alarm", "$.detail.alarmTags.campanile-alarm"),
    ("description", "$.detail.configuration.description"),
    ("environment", "$.detail.alarmTags.campanile-environment"),
    ("name", "$.detail.alarmName"),
    ("previous", "$.detail.previousState.value"),
    ("reason", "$.detail.state.reason"),
    ("since", "$.time"),
];

/// What is known of a message before anything has happened.
#[derive(Clone, Debug)]
pub struct About<'a> {
    /// What the alarm's state has become.
    pub state: AlarmState,
    /// How bad that is.
    pub severity: Severity,
    /// What people call the tenant.
    pub tenant: &'a str,
    /// The account, 12 digits.
    pub account: &'a str,
    /// The Region.
    pub region: &'a str,
    /// The page of an alarm, whose name follows.
    pub alarm_link: &'a str,
    /// The page of all the tenant's alarms.
    pub alarms_link: &'a str,
    /// The channel by Slack's id, where a bot posts; a webhook has its own.
    pub channel_id: Option<&'a str>,
}

/// What EventBridge makes of an event before it sends it on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transformer {
    /// The placeholders, and the JSON paths of what takes their place.
    pub paths: BTreeMap<String, String>,
    /// The template, with placeholders as `<name>`.
    pub template: String,
}

impl Transformer {
    /// Whether both make the same of every event, however the template is written.
    pub fn is_same(&self, other: &Self) -> bool {
        let templates = match (tree(&self.template), tree(&other.template)) {
            (Some(one), Some(two)) => one == two,
            _ => self.template == other.template,
        };
        templates && self.paths == other.paths
    }

    /// The template for people: a JSON document where it is one, `<name>` standing for what takes the place of
    /// a whole value, `"<name>"` for what is put between quotes.
    pub fn shown(&self) -> String {
        let tree = tree(&self.template);
        tree.map_or_else(|| self.template.clone(), |tree| tree.to_string())
    }
}

/// How a state looks: a word, a sign, a colour.
fn look(state: AlarmState, severity: Severity) -> (&'static str, &'static str, &'static str) {
    match (state, severity) {
        (AlarmState::Alarm, Severity::Critical) => ("ALARM", "🚨", "#d50200"),
        (AlarmState::Alarm, Severity::Warning) => ("ALARM", "⚠️", "#de9e31"),
        (AlarmState::Alarm, Severity::Info) => ("ALARM", "ℹ️", "#439fe0"),
        (AlarmState::Ok, _) => ("OK", "✅", "#2eb67d"),
        (AlarmState::InsufficientData, _) => ("NO DATA", "❔", "#9e9ea6"),
    }
}

/// The message about an alarm.
pub fn message(about: &About<'_>) -> Transformer {
    let About {
        state,
        severity,
        tenant,
        account,
        region,
        alarm_link,
        alarms_link,
        channel_id,
    } = about;
    let (word, sign, color) = look(*state, *severity);
    let value = |name: &str| format!("{OPEN}{name}{CLOSE}");
    let (alarm, environment) = (value("alarm"), value("environment"));
    let escaped = escape(&plain(tenant));
    let summary = format!("{sign} {word} · {severity} · {escaped}: {alarm} {environment}");
    let field =
        |title: &str, text: String| json!({"type": "mrkdwn", "text": format!("*{title}*\n{text}")});
    let transition = format!("{} → {state}", value("previous"));
    let facts = json!({
        "type": "section",
        "fields": [
            field("Alarm", format!("{alarm} {environment}")),
            field("State", transition),
            field("Severity", severity.to_string()),
            field("Tenant", escaped),
            field("Since", value("since")),
            field("Account", format!("{account}, {region}")),
        ]
    });
    let name = json!({
        "type": "context",
        "elements": [{"type": "plain_text", "text": value("name")}]
    });
    let button = |text: &str, url: String| json!({"type": "button", "text": {"type": "plain_text", "text": text}, "url": url});
    let buttons = json!({
        "type": "actions",
        "elements": [
            button("Alarm", format!("{alarm_link}{}", value("name"))),
            button("All alarms of the tenant", (*alarms_link).to_owned()),
        ]
    });
    let blocks = |fallback: &str, block: Json| json!({"color": color, "fallback": fallback, "blocks": block});
    // Without `mrkdwn_in` nothing in it is taken for markup.
    let text = |title: &str, text: String| json!({"color": color, "fallback": title, "title": title, "text": text, "mrkdwn_in": []});
    let header = clip(
        &format!("{sign} {word} · {severity} · {}", plain(tenant)),
        HEADER,
    );
    let mut message = json!({
        "text": summary,
        "blocks": [{
            "type": "header",
            "text": {"type": "plain_text", "text": header, "emoji": true}
        }],
        "attachments": [
            blocks(&summary, json!([facts, name])),
            text("Reason", value("reason")),
            text("Description", value("description")),
            blocks("Links", json!([buttons])),
        ],
        "unfurl_links": false,
        "unfurl_media": false,
    });
    if let (Some(id), Some(fields)) = (channel_id, message.as_object_mut()) {
        fields.insert("channel".into(), json!(id));
    }
    Transformer {
        paths: PATHS
            .map(|(name, path)| (name.to_owned(), path.to_owned()))
            .into(),
        template: template(&message),
    }
}

/// A text without what would be taken for a placeholder.
fn plain(text: &str) -> String {
    text.replace([OPEN, CLOSE], "")
}

/// The text of a template: `<` and `>` are a placeholder's and nothing else's, so that what is a constant
/// has them as JSON's escapes. A text that is a placeholder and nothing more loses its quotes.
fn template(message: &Json) -> String {
    let text = message.to_string();
    let text = [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026")]
        .into_iter()
        .fold(text, |text, (c, escape)| text.replace(c, escape));
    let whole = PATHS.map(|(name, _)| name).into_iter();
    let text = whole.fold(text, |text, name| {
        text.replace(&format!("\"{OPEN}{name}{CLOSE}\""), &format!("<{name}>"))
    });
    text.replace(OPEN, "<").replace(CLOSE, ">")
}

/// A template as a tree. What takes the place of a whole value is the text `<name>` there, and a text that is
/// a placeholder between quotes has those quotes: the one is JSON whatever is put there, the other is not.
fn tree(template: &str) -> Option<Json> {
    let mut read = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(c) = rest.chars().next() {
        if c == '"' {
            let end = string_end(rest)?;
            let (text, after) = rest.split_at(end);
            let inner = &text[1..end - 1];
            if placeholder(inner).is_some_and(|end| end == inner.len()) {
                read.push_str(&format!("\"\\\"{inner}\\\"\""));
            } else {
                read.push_str(text);
            }
            rest = after;
        } else if let Some(end) = placeholder(rest) {
            let (name, after) = rest.split_at(end);
            read.push_str(&format!("\"{name}\""));
            rest = after;
        } else {
            read.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    serde_json::from_str(&read).ok()
}

/// Where the JSON string ends with which a text begins.
fn string_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    let mut all = text.char_indices().skip(1);
    all.find(|(_, c)| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    })
    .map(|(at, _)| at + 1)
}

/// Where the placeholder ends with which a text begins.
fn placeholder(text: &str) -> Option<usize> {
    let name = text.strip_prefix('<')?;
    let end = name.find('>')?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let named = end > 0 && name.bytes().take(end).all(plain);
    named.then_some(end + 2)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What EventBridge makes of an event, as far as its documentation says and people have recorded: values
    /// between quotes as they are, whole values as JSON, what is not there as nothing or as an empty text.
    pub fn transform(transformer: &Transformer, event: &Json) -> String {
        let (mut made, mut rest, mut quoted) =
            (String::new(), transformer.template.as_str(), false);
        while let Some(c) = rest.chars().next() {
            if let Some(end) = placeholder(rest) {
                let path = &transformer.paths[&rest[1..end - 1]];
                let mut names = path.strip_prefix("$.").unwrap().split('.');
                let found = names.try_fold(event, |event, name| event.get(name));
                match (found, quoted) {
                    (Some(Json::String(text)), true) => made.push_str(text),
                    (Some(value), _) => made.push_str(&value.to_string()),
                    (None, true) => {}
                    (None, false) => made.push_str("\"\""),
                }
                rest = &rest[end..];
                continue;
            }
            assert!(!matches!(c, '<' | '>'), "they cannot be escaped: {rest}");
            let end = if c == '\\' { 2 } else { c.len_utf8() };
            quoted ^= c == '"';
            made.push_str(&rest[..end]);
            rest = &rest[end..];
        }
        made
    }

    /// A complaint about a message as Slack would have it.
    pub fn complaints(message: &Json) -> Vec<String> {
        fn text(at: &str, text: &Json, limit: usize, found: &mut Vec<String>) {
            let kind = text["type"].as_str().unwrap_or_default();
            let says = text["text"].as_str();
            let length = says.map(|says| says.encode_utf16().count());
            let fits = length.is_some_and(|length| (1..=limit).contains(&length));
            if !fits || !matches!(kind, "plain_text" | "mrkdwn") {
                found.push(format!("{at}: {text}"));
            }
            if kind == "mrkdwn" && says.is_some_and(|says| says.contains(['<', '>'])) {
                found.push(format!("{at}: markup: {text}"));
            }
        }
        fn blocks(blocks: &Json, found: &mut Vec<String>) {
            for block in blocks.as_array().into_iter().flatten() {
                let list = |name: &str| block[name].as_array().cloned().unwrap_or_default();
                match block["type"].as_str() {
                    Some("header") => {
                        text("header", &block["text"], 150, found);
                        if block["text"]["type"] != "plain_text" {
                            found.push("header: not plain".into());
                        }
                    }
                    Some("section") => {
                        if block.get("text").is_some() {
                            text("section", &block["text"], 3000, found);
                        }
                        let fields = list("fields");
                        if fields.len() > 10 || fields.is_empty() && block.get("text").is_none() {
                            found.push("section: fields".into());
                        }
                        for field in fields {
                            text("field", &field, 2000, found);
                        }
                    }
                    Some("context") => {
                        let elements = list("elements");
                        if !(1..=10).contains(&elements.len()) {
                            found.push("context: elements".into());
                        }
                        for element in elements {
                            text("context", &element, 2000, found);
                        }
                    }
                    Some("actions") => {
                        let elements = list("elements");
                        if !(1..=25).contains(&elements.len()) {
                            found.push("actions: elements".into());
                        }
                        for element in elements {
                            text("button", &element["text"], 75, found);
                            let url = element["url"].as_str().unwrap_or_default();
                            if !url.starts_with("https://") || url.len() > 3000 {
                                found.push(format!("button: {url}"));
                            }
                        }
                    }
                    _ => found.push(format!("block: {block}")),
                }
            }
        }
        let mut found = Vec::new();
        if message["text"].as_str().is_none_or(str::is_empty) {
            found.push("no text".into());
        }
        blocks(&message["blocks"], &mut found);
        for attachment in message["attachments"].as_array().into_iter().flatten() {
            blocks(&attachment["blocks"], &mut found);
            let old = attachment.get("blocks").is_none();
            if old && !(attachment["title"].is_string() && attachment["text"].is_string()) {
                found.push(format!("attachment: {attachment}"));
            }
            if attachment["color"]
                .as_str()
                .is_none_or(|color| color.len() != 7)
            {
                found.push(format!("colour: {attachment}"));
            }
        }
        found
    }

    /// As AWS's own example, with tags.
    pub fn event(name: &str, state: &str, previous: &str, description: &str, reason: &str) -> Json {
        json!({
            "version": "0", "id": "c4c1c1c9-6542-e61b-6ef0-8c4d36933a92",
            "detail-type": "CloudWatch Alarm State Change", "source": "aws.cloudwatch",
            "account": "222233334444", "time": "2026-11-21T17:04:40Z", "region": "us-east-2",
            "resources": [format!("arn:aws:cloudwatch:us-east-2:222233334444:alarm:{name}")],
            "detail": {
                "alarmName": name,
                "alarmTags": {"campanile-set": "golden", "campanile-alarm": "p95", "campanile-environment": "prod"},
                "alarmTagsStatus": "SUCCESS",
                "configuration": {"description": description, "metrics": []},
                "previousState": {"value": previous, "reason": "..", "timestamp": "2026-11-20T13:56:40.987+0000"},
                "state": {"value": state, "reason": reason, "reasonData": "{\"a\":\"b\"}", "timestamp": "2026-11-21T17:04:40.989+0000"}
            }
        })
    }

    const NAME: &str = "campanile/eu/vsu/critical/golden/p95@prod";

    pub fn about<'a>(state: AlarmState, severity: Severity, tenant: &'a str) -> About<'a> {
        About {
            state,
            severity,
            tenant,
            account: "222233334444",
            region: "us-east-2",
            alarm_link: "https://us-east-2.console.aws.amazon.com/cloudwatch/home?region=us-east-2#alarmsV2:alarm/",
            alarms_link: "https://us-east-2.console.aws.amazon.com/cloudwatch/home?region=us-east-2#alarmsV2:?~(search~'campanile*2feu*2fvsu*2f)",
            channel_id: None,
        }
    }

    const STATES: [AlarmState; 3] = [
        AlarmState::Alarm,
        AlarmState::Ok,
        AlarmState::InsufficientData,
    ];

    fn rendered(about: &About<'_>, event: &Json) -> Json {
        let text = transform(&message(about), event);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    #[test]
    fn it_is_what_people_want_to_read() {
        let about = about(
            AlarmState::Alarm,
            Severity::Critical,
            "Virginia State University",
        );
        let description =
            "p95 above 5 s\nhttps://runbooks.example/p95\ncampanile:eu/0a1b2c3d/AlarmSet/ns/golden";
        let reason =
            "Threshold Crossed: 1 datapoint [6000.0] was greater than the threshold (5000.0).";
        let shown = rendered(&about, &event(NAME, "ALARM", "OK", description, reason));
        assert_eq!(
            shown["text"],
            "🚨 ALARM · critical · Virginia State University: p95 prod"
        );
        assert_eq!(
            shown["blocks"][0]["text"]["text"],
            "🚨 ALARM · critical · Virginia State University"
        );
        let facts = &shown["attachments"][0];
        assert_eq!(facts["color"], "#d50200");
        let fields: Vec<_> = facts["blocks"][0]["fields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|field| field["text"].as_str().unwrap())
            .collect();
        assert_eq!(
            fields,
            [
                "*Alarm*\np95 prod",
                "*State*\nOK → ALARM",
                "*Severity*\ncritical",
                "*Tenant*\nVirginia State University",
                "*Since*\n2026-11-21T17:04:40Z",
                "*Account*\n222233334444, us-east-2",
            ]
        );
        assert_eq!(facts["blocks"][1]["elements"][0]["text"], NAME);
        let text = |at: usize| {
            let attachment = &shown["attachments"][at];
            (
                attachment["title"].as_str().unwrap(),
                attachment["text"].as_str().unwrap(),
            )
        };
        assert_eq!(text(1), ("Reason", reason));
        assert_eq!(text(2), ("Description", description));
        let buttons = &shown["attachments"][3]["blocks"][0]["elements"];
        assert_eq!(
            buttons[0]["url"],
            format!(
                "https://us-east-2.console.aws.amazon.com/cloudwatch/home?region=us-east-2#alarmsV2:alarm/{NAME}"
            )
        );
        assert_eq!(buttons[1]["url"], about.alarms_link);
        assert!(shown.get("channel").is_none(), "a webhook has its own");
    }

    #[test]
    fn a_bot_is_told_the_channel() {
        let about = About {
            channel_id: Some("C012AB3CD"),
            ..about(AlarmState::Ok, Severity::Info, "vsu")
        };
        let shown = rendered(&about, &event(NAME, "OK", "ALARM", "d", "r"));
        assert_eq!(shown["channel"], "C012AB3CD");
    }

    #[test]
    fn states_are_told_apart_at_a_glance() {
        let mut looks = std::collections::BTreeSet::new();
        for state in STATES {
            for severity in Severity::ALL {
                let about = about(state, severity, "vsu");
                let shown = rendered(&about, &event(NAME, state.into(), "ALARM", "d", "r"));
                let header = shown["blocks"][0]["text"]["text"]
                    .as_str()
                    .unwrap()
                    .to_owned();
                assert!(header.contains(&severity.to_string()), "{header}");
                let colors: std::collections::BTreeSet<_> = shown["attachments"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|attachment| attachment["color"].to_string())
                    .collect();
                assert_eq!(colors.len(), 1, "one bar");
                looks.insert((header, colors));
            }
        }
        assert_eq!(looks.len(), 9);
        let colors: std::collections::BTreeSet<_> =
            looks.iter().map(|(_, colors)| colors).collect();
        assert_eq!(colors.len(), 5, "three of ALARM, one of OK, one of no data");
    }

    /// Whatever somebody wrote into an alarm, and whatever is missing of it, reaches Slack as it was written.
    #[test]
    fn nothing_in_an_alarm_breaks_it() {
        let long = "\"<&>".repeat(256);
        let nasty = [
            "",
            "plain",
            "\"quoted\" and \\back\\slashed\\\"",
            "two\nlines\r\n\ttabbed",
            "<!channel> <https://example.com|x> & < > &amp;",
            "🚨 ünïcödé → \u{2028}",
            "<reason><name><unknown>",
            "{\"json\": [1, null]}",
            "\u{e000}reason\u{e001}",
            long.as_str(),
        ];
        for state in STATES {
            let made = message(&about(state, Severity::Critical, "vsu"));
            for description in nasty {
                for reason in nasty {
                    let event = event(NAME, state.into(), "ALARM", description, reason);
                    let text = transform(&made, &event);
                    let shown: Json = serde_json::from_str(&text).unwrap();
                    assert_eq!(complaints(&shown), Vec::<String>::new());
                    assert_eq!(shown["attachments"][1]["text"], reason);
                    assert_eq!(shown["attachments"][2]["text"], description);
                }
            }
        }
        // What is not there at all.
        let about = about(AlarmState::Alarm, Severity::Critical, "vsu");
        for gone in ["alarmTags", "configuration", "previousState"] {
            let mut event = event(NAME, "ALARM", "OK", "d", "r");
            event["detail"].as_object_mut().unwrap().remove(gone);
            assert_eq!(
                complaints(&rendered(&about, &event)),
                Vec::<String>::new(),
                "{gone}"
            );
        }
        let mut event = event(NAME, "ALARM", "OK", "d", "r");
        let detail = event["detail"].as_object_mut().unwrap();
        detail["alarmTags"]
            .as_object_mut()
            .unwrap()
            .remove("campanile-environment");
        detail["state"].as_object_mut().unwrap().remove("reason");
        let shown = rendered(&about, &event);
        assert_eq!(complaints(&shown), Vec::<String>::new());
        assert_eq!(
            shown["attachments"][0]["blocks"][0]["fields"][0]["text"],
            "*Alarm*\np95 "
        );
    }

    /// What a tenant calls itself is a constant of the template, where `<` would begin a placeholder.
    #[test]
    fn nothing_in_a_tenants_name_breaks_it() {
        let long = "🚨&<".repeat(42);
        for tenant in [
            "A & B <C>",
            "<reason>",
            "\"quoted\\",
            "&lt;",
            "\u{e000}reason\u{e001}",
            "*bold* _it_ ~no~ `code`",
            long.as_str(),
            &"x".repeat(128),
        ] {
            for state in STATES {
                let about = about(state, Severity::Critical, tenant);
                let made = message(&about);
                assert!(
                    made.template.encode_utf16().count() <= 8192 && made.template.len() <= 8192
                );
                let shown = rendered(&about, &event(NAME, state.into(), "ALARM", "d", "r"));
                assert_eq!(complaints(&shown), Vec::<String>::new(), "{tenant}");
                let whole = tenant.replace([OPEN, CLOSE], "");
                let header = shown["blocks"][0]["text"]["text"].as_str().unwrap();
                assert!(
                    header.ends_with(&whole) || header.ends_with('…'),
                    "{header}"
                );
                let field = &shown["attachments"][0]["blocks"][0]["fields"][3]["text"];
                assert_eq!(field, &format!("*Tenant*\n{}", escape(&whole)));
            }
        }
    }

    #[test]
    fn it_fits_into_what_eventbridge_takes() {
        let tenant = "&".repeat(128);
        let region = "x".repeat(32);
        let link = format!(
            "https://{region}.console.amazonaws-us-gov.com/cloudwatch/home?region={region}#alarmsV2:"
        );
        let prefix = format!("campanile*2f{}*2f{}*2f", "x".repeat(32), "x".repeat(36));
        let about = About {
            region: &region,
            alarm_link: &format!("{link}alarm/"),
            alarms_link: &format!("{link}?~(search~'{prefix})"),
            channel_id: Some("C012AB3CDEFGHIJ"),
            ..about(AlarmState::InsufficientData, Severity::Critical, &tenant)
        };
        let Transformer { paths, template } = message(&about);
        assert!(template.len() <= 8192, "{}", template.len());
        assert!(paths.len() <= 100);
        for (name, path) in paths {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
            assert!(name.bytes().all(plain) && path.len() <= 256);
            assert!(template.contains(&format!("<{name}>")), "{name} is used");
        }
    }

    #[test]
    fn only_names_states_and_times_are_put_between_quotes() {
        let about = about(AlarmState::Alarm, Severity::Critical, "vsu");
        let shown = message(&about).shown();
        let tree: Json = serde_json::from_str(&shown).unwrap();
        let mut between = std::collections::BTreeSet::new();
        fn walk(value: &Json, between: &mut std::collections::BTreeSet<String>) {
            match value {
                Json::Array(items) => items.iter().for_each(|item| walk(item, between)),
                Json::Object(fields) => fields.values().for_each(|field| walk(field, between)),
                Json::String(text) if placeholder(text) != Some(text.len()) => {
                    let names = PATHS.iter().map(|(name, _)| name);
                    let named = names.filter(|name| text.contains(&format!("<{name}>")));
                    between.extend(named.map(|name| (*name).to_owned()));
                }
                _ => {}
            }
        }
        walk(&tree, &mut between);
        let between: Vec<_> = between.iter().map(String::as_str).collect();
        assert_eq!(
            between,
            ["alarm", "environment", "name", "previous", "since"]
        );
    }

    #[test]
    fn templates_are_compared_as_trees() {
        let with = |template: &str| Transformer {
            paths: BTreeMap::new(),
            template: template.into(),
        };
        for (one, other, same) in [
            (
                r#"{"a":<x>,"b":"c <y>"}"#,
                "{ \"b\" : \"c <y>\",\n\"a\" : <x> }",
                true,
            ),
            (r#"{"a":"\u003c"}"#, r#"{"a":"\u003C"}"#, true),
            (r#"{"a":"\"<x>"}"#, r#"{"a":"\u0022<x>"}"#, true),
            (r#"{"a":<x>}"#, r#"{"a":"<x>"}"#, false),
            (r#"{"a":<x>}"#, r#"{"a":<y>}"#, false),
            (r#"{"a":<x>}"#, r#"{"a":<x>,"b":1}"#, false),
            ("<x> is text", "<x> is text", true),
            ("<x> is text", "<x>  is text", false),
        ] {
            assert_eq!(with(one).is_same(&with(other)), same, "{one} {other}");
        }
        // What differs is seen to differ.
        assert_eq!(with(r#"{"a":<x>}"#).shown(), r#"{"a":"<x>"}"#);
        assert_eq!(with(r#"{"a":"<x>"}"#).shown(), r#"{"a":"\"<x>\""}"#);
        assert_eq!(with("<x> is text").shown(), "<x> is text");
        let made = message(&about(AlarmState::Alarm, Severity::Info, "A <B>"));
        let spaced = Transformer {
            template: made.template.replace("\":", "\" : "),
            ..made.clone()
        };
        assert!(made.is_same(&spaced) && made != spaced);
        assert_eq!(made.shown(), spaced.shown());
        let other = message(&about(AlarmState::Ok, Severity::Info, "A <B>"));
        assert!(!made.is_same(&other));
    }
}
