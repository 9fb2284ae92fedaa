//! Block Kit, as strict as Slack: a message that breaks a rule is refused with the place and the reason.
//!
//! The limits are those of Slack's reference of blocks, elements and composition objects.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

const MOST_BLOCKS: usize = 50;
const MOST_FIELDS: usize = 10;
const MOST_CONTEXT: usize = 10;
const MOST_ACTIONS: usize = 25;
const LONGEST_HEADER: usize = 150;
const LONGEST_TEXT: usize = 3000;
const LONGEST_FIELD: usize = 2000;
const LONGEST_BUTTON: usize = 75;
const LONGEST_URL: usize = 3000;
const LONGEST_ID: usize = 255;
const LONGEST_MARKDOWN: usize = 12_000;

struct Checker {
    messages: Vec<String>,
    block_ids: BTreeSet<String>,
}

type Object = Map<String, Value>;

/// What is wrong with `blocks`, which stand at `place`.
pub(super) fn check(blocks: &[Value], place: &str) -> Vec<String> {
    let mut checker = Checker {
        messages: Vec::new(),
        block_ids: BTreeSet::new(),
    };
    if blocks.len() > MOST_BLOCKS {
        checker.say(place, &format!("no more than {MOST_BLOCKS} items allowed"));
    }
    for (number, block) in blocks.iter().enumerate() {
        checker.block(block, &format!("{place}/{number}"));
    }
    checker.messages
}

/// What legacy attachments may have beside blocks. Slack ignores what it does not know: here it is refused, so that a slip is seen.
const ATTACHMENT: [&str; 17] = [
    "blocks",
    "color",
    "fallback",
    "text",
    "pretext",
    "title",
    "title_link",
    "fields",
    "footer",
    "footer_icon",
    "ts",
    "mrkdwn_in",
    "author_name",
    "author_link",
    "author_icon",
    "image_url",
    "thumb_url",
];

/// What is wrong with `attachment`, which stands at `place`. Empty texts are fine here, as in Slack.
pub(super) fn check_attachment(attachment: &Value, place: &str) -> Vec<String> {
    let mut checker = Checker {
        messages: Vec::new(),
        block_ids: BTreeSet::new(),
    };
    let Value::Object(object) = attachment else {
        checker.say(place, "must provide an object");
        return checker.messages;
    };
    checker.only(object, &ATTACHMENT, place);
    for (name, value) in object {
        let at = format!("{place}/{name}");
        match (name.as_str(), value) {
            ("blocks", Value::Array(blocks)) => checker.messages.extend(check(blocks, &at)),
            ("blocks", _) => checker.say(&at, "must provide an array"),
            ("color", Value::String(color)) if is_color(color) => {}
            ("color", _) => {
                checker.say(&at, "must be good, warning, danger or a hexadecimal color")
            }
            ("fields", Value::Array(fields)) => {
                for (number, field) in fields.iter().enumerate() {
                    let at = format!("{at}/{number}");
                    match field {
                        Value::Object(field) => {
                            checker.only(field, &["title", "value", "short"], &at);
                            for name in ["title", "value"] {
                                if field.get(name).is_some_and(|value| !value.is_string()) {
                                    checker.say(&format!("{at}/{name}"), "must be a string");
                                }
                            }
                        }
                        _ => checker.say(&at, "must provide an object"),
                    }
                }
            }
            ("fields" | "mrkdwn_in", value) => {
                if !value.is_array() {
                    checker.say(&at, "must provide an array");
                }
            }
            ("ts", value) => {
                if !value.is_number() && !value.is_string() {
                    checker.say(&at, "must be a number");
                }
            }
            ("title_link" | "author_link" | "image_url" | "thumb_url", Value::String(url)) => {
                checker.url(url, &at)
            }
            (_, value) => {
                if !value.is_string() {
                    checker.say(&at, "must be a string");
                }
            }
        }
    }
    checker.messages
}

fn is_color(color: &str) -> bool {
    let hex = color.strip_prefix('#').unwrap_or(color);
    ["good", "warning", "danger"].contains(&color)
        || ([3, 6].contains(&hex.len()) && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether people would see anything of `attachment`.
pub(super) fn shows_something(attachment: &Value) -> bool {
    let has_text = |name: &str| {
        attachment[name]
            .as_str()
            .is_some_and(|text| !text.trim().is_empty())
    };
    let has_entries = |name: &str| {
        attachment[name]
            .as_array()
            .is_some_and(|list| !list.is_empty())
    };
    [
        "text",
        "pretext",
        "title",
        "fallback",
        "image_url",
        "author_name",
    ]
    .into_iter()
    .any(has_text)
        || has_entries("blocks")
        || has_entries("fields")
}

impl Checker {
    fn say(&mut self, place: &str, what: &str) {
        self.messages.push(format!("{what} [json-pointer:{place}]"));
    }

    fn only(&mut self, object: &Object, allowed: &[&str], place: &str) {
        for name in object
            .keys()
            .filter(|name| !allowed.contains(&name.as_str()))
        {
            self.say(place, &format!("invalid additional property: {name}"));
        }
    }

    /// A string of `shortest` to `longest` characters.
    fn string(
        &mut self,
        object: &Object,
        name: &str,
        bounds: (usize, usize),
        required: bool,
        place: &str,
    ) {
        let (shortest, longest) = bounds;
        let at = format!("{place}/{name}");
        match object.get(name) {
            None if required => self.say(place, &format!("missing required field: {name}")),
            None => {}
            Some(Value::String(text)) => {
                let length = text.chars().count();
                if length < shortest {
                    self.say(
                        &at,
                        &format!("must be more than {} characters", shortest - 1),
                    );
                }
                if length > longest {
                    self.say(
                        &at,
                        &format!("must be less than {} characters", longest + 1),
                    );
                }
            }
            Some(_) => self.say(&at, "must be a string"),
        }
    }

    fn flag(&mut self, object: &Object, name: &str, place: &str) {
        if object.get(name).is_some_and(|value| !value.is_boolean()) {
            self.say(&format!("{place}/{name}"), "must be a boolean");
        }
    }

    fn url(&mut self, url: &str, place: &str) {
        let is_link = reqwest::Url::parse(url)
            .is_ok_and(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
        if !is_link {
            self.say(place, "invalid url");
        }
        if url.chars().count() > LONGEST_URL {
            self.say(
                place,
                &format!("must be less than {} characters", LONGEST_URL + 1),
            );
        }
    }

    /// A text object of one of the `kinds`.
    fn text(&mut self, value: Option<&Value>, kinds: &[&str], longest: usize, place: &str) {
        let Some(Value::Object(text)) = value else {
            return self.say(place, "must provide a text object");
        };
        let kind = text.get("type").and_then(Value::as_str).unwrap_or_default();
        if !kinds.contains(&kind) {
            self.say(
                &format!("{place}/type"),
                &format!("must be one of: {}", kinds.join(", ")),
            );
        }
        let flag = if kind == "mrkdwn" {
            "verbatim"
        } else {
            "emoji"
        };
        self.only(text, &["type", "text", flag], place);
        self.flag(text, flag, place);
        self.string(text, "text", (1, longest), true, place);
    }

    fn block(&mut self, block: &Value, place: &str) {
        let Value::Object(object) = block else {
            return self.say(place, "must provide an object");
        };
        if let Some(Value::String(id)) = object.get("block_id")
            && !self.block_ids.insert(id.clone())
        {
            self.say(place, &format!("block_id \"{id}\" already exists"));
        }
        self.string(object, "block_id", (1, LONGEST_ID), false, place);
        let both = ["plain_text", "mrkdwn"];
        match object.get("type").and_then(Value::as_str) {
            None => self.say(place, "missing required field: type"),
            Some("divider") => self.only(object, &["type", "block_id"], place),
            Some("header") => {
                self.only(object, &["type", "block_id", "text"], place);
                self.text(
                    object.get("text"),
                    &["plain_text"],
                    LONGEST_HEADER,
                    &format!("{place}/text"),
                );
            }
            Some("section") => {
                self.only(
                    object,
                    &["type", "block_id", "text", "fields", "accessory", "expand"],
                    place,
                );
                self.flag(object, "expand", place);
                if !object.contains_key("text") && !object.contains_key("fields") {
                    self.say(place, "must define either `fields` or `text`");
                }
                if let Some(text) = object.get("text") {
                    self.text(Some(text), &both, LONGEST_TEXT, &format!("{place}/text"));
                }
                if let Some(fields) = object.get("fields") {
                    let at = format!("{place}/fields");
                    for (number, field) in self
                        .entries(Some(fields), MOST_FIELDS, &at)
                        .iter()
                        .enumerate()
                    {
                        self.text(Some(field), &both, LONGEST_FIELD, &format!("{at}/{number}"));
                    }
                }
                if let Some(accessory) = object.get("accessory") {
                    self.element(accessory, true, &format!("{place}/accessory"));
                }
            }
            Some("context") => {
                self.only(object, &["type", "block_id", "elements"], place);
                let at = format!("{place}/elements");
                for (number, element) in self
                    .entries(object.get("elements"), MOST_CONTEXT, &at)
                    .iter()
                    .enumerate()
                {
                    let at = format!("{at}/{number}");
                    if element["type"] == "image" {
                        self.element(element, true, &at);
                    } else {
                        self.text(Some(element), &both, LONGEST_TEXT, &at);
                    }
                }
            }
            Some("actions") => {
                self.only(object, &["type", "block_id", "elements"], place);
                let at = format!("{place}/elements");
                let mut ids = BTreeSet::new();
                for (number, element) in self
                    .entries(object.get("elements"), MOST_ACTIONS, &at)
                    .iter()
                    .enumerate()
                {
                    if let Some(id) = element["action_id"].as_str()
                        && !ids.insert(id.to_owned())
                    {
                        self.say(&at, &format!("action_id \"{id}\" already exists"));
                    }
                    self.element(element, false, &format!("{at}/{number}"));
                }
            }
            Some("image") => {
                self.only(
                    object,
                    &["type", "block_id", "image_url", "alt_text", "title"],
                    place,
                );
                self.image(object, place);
                if let Some(title) = object.get("title") {
                    self.text(
                        Some(title),
                        &["plain_text"],
                        LONGEST_FIELD,
                        &format!("{place}/title"),
                    );
                }
            }
            Some("markdown") => {
                self.only(object, &["type", "block_id", "text"], place);
                self.string(object, "text", (1, LONGEST_MARKDOWN), true, place);
            }
            Some(other) => self.say(
                &format!("{place}/type"),
                &format!("unsupported type: {other}"),
            ),
        }
    }

    /// The entries of a list that may be neither missing nor empty.
    fn entries(&mut self, list: Option<&Value>, most: usize, place: &str) -> Vec<Value> {
        match list {
            Some(Value::Array(list)) => {
                if list.is_empty() {
                    self.say(place, "must contain at least 1 item");
                }
                if list.len() > most {
                    self.say(place, &format!("no more than {most} items allowed"));
                }
                list.clone()
            }
            _ => {
                self.say(place, "must provide an array");
                Vec::new()
            }
        }
    }

    fn image(&mut self, object: &Object, place: &str) {
        self.string(object, "image_url", (1, LONGEST_URL), true, place);
        self.string(object, "alt_text", (1, LONGEST_FIELD), true, place);
        if let Some(Value::String(url)) = object.get("image_url") {
            self.url(url, &format!("{place}/image_url"));
        }
    }

    /// Buttons; images where they may stand. People cannot answer the operator, so it has no use for the rest.
    fn element(&mut self, element: &Value, images: bool, place: &str) {
        let Value::Object(object) = element else {
            return self.say(place, "must provide an object");
        };
        match object.get("type").and_then(Value::as_str) {
            Some("image") if images => {
                self.only(object, &["type", "image_url", "alt_text"], place);
                self.image(object, place);
            }
            Some("button") => {
                let allowed = [
                    "type",
                    "text",
                    "action_id",
                    "url",
                    "value",
                    "style",
                    "confirm",
                    "accessibility_label",
                ];
                self.only(object, &allowed, place);
                self.text(
                    object.get("text"),
                    &["plain_text"],
                    LONGEST_BUTTON,
                    &format!("{place}/text"),
                );
                self.string(object, "action_id", (1, LONGEST_ID), false, place);
                self.string(object, "url", (1, LONGEST_URL), false, place);
                self.string(object, "value", (1, LONGEST_FIELD), false, place);
                self.string(
                    object,
                    "accessibility_label",
                    (1, LONGEST_BUTTON),
                    false,
                    place,
                );
                if let Some(Value::String(url)) = object.get("url") {
                    self.url(url, &format!("{place}/url"));
                }
                if object
                    .get("style")
                    .is_some_and(|style| style != "primary" && style != "danger")
                {
                    self.say(&format!("{place}/style"), "must be one of: primary, danger");
                }
            }
            other => self.say(
                &format!("{place}/type"),
                &format!("unsupported type: {}", other.unwrap_or_default()),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn long(length: usize) -> String {
        "é".repeat(length)
    }

    #[test]
    fn takes_what_slack_takes() {
        let section =
            |length| json!({"type": "section", "text": {"type": "mrkdwn", "text": long(length)}});
        let field = |length| json!({"type": "mrkdwn", "text": long(length)});
        let url = format!("https://example.com/{}", "a".repeat(LONGEST_URL - 20));
        let good = [
            json!({"type": "divider"}),
            json!({"type": "header", "text": {"type": "plain_text", "text": long(150), "emoji": true}}),
            section(1),
            section(3000),
            json!({"type": "section", "fields": vec![field(2000); 10]}),
            json!({"type": "context", "elements": [{"type": "mrkdwn", "text": "a"}, {"type": "image", "image_url": "https://a.example/i.png", "alt_text": "i"}]}),
            json!({"type": "actions", "block_id": "b", "elements": [{"type": "button", "text": {"type": "plain_text", "text": "Go"}, "url": url, "style": "danger"}]}),
            json!({"type": "markdown", "text": "**a**"}),
        ];
        assert_eq!(check(&good, "/blocks"), Vec::<String>::new());
        assert_eq!(
            check(&vec![json!({"type": "divider"}); 50], "/blocks"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn refuses_what_slack_refuses() {
        let text = |kind: &str, text: &str| json!({"type": kind, "text": text});
        let button = |url: &str| json!({"type": "actions", "elements": [{"type": "button", "text": text("plain_text", "a"), "url": url}]});
        let table = [
            (
                json!("x"),
                "must provide an object [json-pointer:/blocks/0]",
            ),
            (json!({"text": 1}), "missing required field: type"),
            (
                json!({"type": "poll"}),
                "unsupported type: poll [json-pointer:/blocks/0/type]",
            ),
            (
                json!({"type": "divider", "colour": "red"}),
                "invalid additional property: colour [json-pointer:/blocks/0]",
            ),
            (
                json!({"type": "header", "text": text("mrkdwn", "a")}),
                "must be one of: plain_text [json-pointer:/blocks/0/text/type]",
            ),
            (
                json!({"type": "header", "text": text("plain_text", &long(151))}),
                "must be less than 151 characters [json-pointer:/blocks/0/text/text]",
            ),
            (
                json!({"type": "header", "text": "a"}),
                "must provide a text object [json-pointer:/blocks/0/text]",
            ),
            (json!({"type": "section"}), "must define either"),
            (
                json!({"type": "section", "text": text("mrkdwn", "")}),
                "must be more than 0 characters [json-pointer:/blocks/0/text/text]",
            ),
            (
                json!({"type": "section", "text": text("mrkdwn", &long(3001))}),
                "must be less than 3001 characters [json-pointer:/blocks/0/text/text]",
            ),
            (
                json!({"type": "section", "text": {"type": "mrkdwn", "text": 5}}),
                "must be a string",
            ),
            (
                json!({"type": "section", "text": {"type": "mrkdwn", "text": "a", "emoji": true}}),
                "invalid additional property: emoji",
            ),
            (
                json!({"type": "section", "fields": vec![text("mrkdwn", "a"); 11]}),
                "no more than 10 items allowed [json-pointer:/blocks/0/fields]",
            ),
            (json!({"type": "section", "fields": []}), "at least 1 item"),
            (
                json!({"type": "section", "fields": [text("mrkdwn", &long(2001))]}),
                "must be less than 2001 characters [json-pointer:/blocks/0/fields/0/text]",
            ),
            (
                json!({"type": "context", "elements": vec![text("mrkdwn", "a"); 11]}),
                "no more than 10 items",
            ),
            (
                json!({"type": "actions", "elements": [text("mrkdwn", "a")]}),
                "unsupported type: mrkdwn",
            ),
            (
                button(&format!("https://a.example/{}", "a".repeat(3000))),
                "must be less than 3001 characters [json-pointer:/blocks/0/elements/0/url]",
            ),
            (button("not a link"), "invalid url"),
            (button("javascript:alert(1)"), "invalid url"),
            (
                json!({"type": "divider", "block_id": long(256)}),
                "must be less than 256",
            ),
        ];
        for (block, expected) in table {
            let messages = check(std::slice::from_ref(&block), "/blocks");
            assert!(
                messages.iter().any(|message| message.contains(expected)),
                "{block}: {messages:?}"
            );
        }
        let twice = json!({"type": "divider", "block_id": "a"});
        assert!(check(&[twice.clone(), twice], "/blocks")[0].contains("already exists"));
        assert!(
            check(&vec![json!({"type": "divider"}); 51], "/blocks")[0]
                .contains("no more than 50 items allowed [json-pointer:/blocks]")
        );
    }

    #[test]
    fn attachments_are_looked_into() {
        let good = json!({"color": "#d1242f", "fallback": "f", "text": "", "fields": [{"title": "a", "value": "", "short": true}], "blocks": [{"type": "divider"}]});
        assert_eq!(
            check_attachment(&good, "/attachments/0"),
            Vec::<String>::new()
        );
        let table = [
            (json!([]), "must provide an object"),
            (
                json!({"blocks": [{"type": "header"}]}),
                "[json-pointer:/attachments/0/blocks/0/text]",
            ),
            (json!({"color": "crimson"}), "hexadecimal"),
            (json!({"colour": "red"}), "additional property: colour"),
            (json!({"text": 1}), "must be a string"),
            (
                json!({"fields": [{"name": "a"}]}),
                "additional property: name",
            ),
            (json!({"title_link": "nowhere"}), "invalid url"),
        ];
        for (attachment, expected) in table {
            let messages = check_attachment(&attachment, "/attachments/0");
            assert!(
                messages.iter().any(|message| message.contains(expected)),
                "{attachment}: {messages:?}"
            );
        }
        assert!(!shows_something(&json!({"color": "good", "text": " "})));
        assert!(shows_something(&good));
    }
}
