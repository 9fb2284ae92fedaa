//! A message as people would read it, in a terminal.

use serde_json::Value;

use super::state::{Message, unescape};

/// Columns of one of two fields that stand side by side.
const FIELD: usize = 36;
/// The emoji that messages of operations use; others stay as they are written.
const EMOJI: [(&str, &str); 13] = [
    ("arrows_counterclockwise", "🔄"),
    ("bell", "🔔"),
    ("grey_question", "❔"),
    ("hourglass_flowing_sand", "⏳"),
    ("information_source", "ℹ️"),
    ("large_green_circle", "🟢"),
    ("large_yellow_circle", "🟡"),
    ("question", "❓"),
    ("red_circle", "🔴"),
    ("rotating_light", "🚨"),
    ("warning", "⚠️"),
    ("white_check_mark", "✅"),
    ("x", "❌"),
];

#[derive(Clone, Copy)]
struct Style {
    colors: bool,
}

/// As people would read it, without colors: who and when, the text, the blocks, the attachments with their bars, fields side by side,
/// buttons with where they lead. The text is left out where blocks stand for it, as Slack does.
pub fn render(message: &Message) -> String {
    Style { colors: false }.message(message)
}

/// As [`render`], with bold, underlined and colored text for a terminal that shows them.
pub fn paint(message: &Message) -> String {
    Style { colors: true }.message(message)
}

impl Style {
    fn bold(self, text: &str) -> String {
        self.code("1", text)
    }

    fn code(self, code: &str, text: &str) -> String {
        if self.colors && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn bar(self, color: &str) -> String {
        let hex = match color {
            "good" => "2eb886",
            "warning" => "daa038",
            "danger" => "a30200",
            other => other.trim_start_matches('#'),
        };
        let part = |from: usize| {
            hex.get(from..from + 2)
                .and_then(|part| u8::from_str_radix(part, 16).ok())
        };
        match (part(0), part(2), part(4)) {
            (Some(red), Some(green), Some(blue)) => {
                self.code(&format!("38;2;{red};{green};{blue}"), "▌")
            }
            _ => self.code("90", "▌"),
        }
    }

    fn message(self, message: &Message) -> String {
        let time = message.at.strftime("%H:%M:%S");
        let edited = if message.edits.is_empty() {
            ""
        } else {
            " (edited)"
        };
        let mut lines = vec![format!(
            "{} {}",
            self.bold(&message.author),
            self.code("90", &format!("{time}{edited}"))
        )];
        if message.blocks.is_empty() {
            lines.extend(self.mrkdwn(&message.text));
        } else {
            lines.extend(self.blocks(&message.blocks));
        }
        for attachment in &message.attachments {
            let bar = self.bar(attachment["color"].as_str().unwrap_or_default());
            lines.extend(self.mrkdwn(attachment["pretext"].as_str().unwrap_or_default()));
            lines.extend(
                self.attachment(attachment)
                    .into_iter()
                    .map(|line| format!("{bar} {line}")),
            );
        }
        let indent = if message.thread_ts.is_some() {
            "  ↳ "
        } else {
            ""
        };
        let lines = lines.iter().enumerate().map(|(number, line)| {
            let indent = if number > 0 {
                " ".repeat(indent.chars().count())
            } else {
                indent.to_owned()
            };
            format!("{indent}{line}").trim_end().to_owned() + "\n"
        });
        lines.collect()
    }

    fn attachment(self, attachment: &Value) -> Vec<String> {
        let text = |name: &str| attachment[name].as_str().unwrap_or_default();
        let mut lines = Vec::new();
        if !text("title").is_empty() {
            let link = text("title_link");
            let link = if link.is_empty() {
                String::new()
            } else {
                format!(" {}", self.code("4", link))
            };
            lines.push(self.bold(&plain(text("title"))) + &link);
        }
        lines.extend(self.mrkdwn(text("text")));
        let fields: Vec<Value> = attachment["fields"].as_array().cloned().unwrap_or_default();
        let said = |field: &Value| {
            format!(
                "*{}*\n{}",
                field["title"].as_str().unwrap_or_default(),
                field["value"].as_str().unwrap_or_default()
            )
        };
        let is_short = |field: &Value| field["short"] == true;
        for some in fields.chunk_by(|a, b| is_short(a) && is_short(b)) {
            let some: Vec<_> = some.iter().map(said).collect();
            lines.extend(self.fields(&some));
        }
        lines.extend(self.blocks(attachment["blocks"].as_array().map_or(&[], Vec::as_slice)));
        lines.extend(self.mrkdwn(text("footer")));
        if lines.is_empty() {
            lines.extend(self.mrkdwn(text("fallback")));
        }
        lines
    }

    fn blocks(self, blocks: &[Value]) -> Vec<String> {
        blocks.iter().flat_map(|block| self.block(block)).collect()
    }

    fn block(self, block: &Value) -> Vec<String> {
        let elements = || block["elements"].as_array().into_iter().flatten();
        match block["type"].as_str().unwrap_or_default() {
            "header" => vec![self.bold(&plain(block["text"]["text"].as_str().unwrap_or_default()))],
            "divider" => vec![self.code("90", &"─".repeat(2 * FIELD))],
            "section" => {
                let mut lines = self.text(&block["text"]);
                let fields = block["fields"].as_array().into_iter().flatten();
                let fields: Vec<_> = fields
                    .map(|field| field["text"].as_str().unwrap_or_default().to_owned())
                    .collect();
                lines.extend(self.fields(&fields));
                lines.extend(self.element(&block["accessory"]));
                lines
            }
            "context" => {
                let texts: Vec<_> = elements()
                    .flat_map(|element| self.element(element))
                    .collect();
                vec![self.code("90", &texts.join("  "))]
            }
            "actions" => elements()
                .flat_map(|element| self.element(element))
                .collect(),
            "image" => self.element(block),
            "markdown" => self.mrkdwn(block["text"].as_str().unwrap_or_default()),
            _ => Vec::new(),
        }
    }

    fn text(self, text: &Value) -> Vec<String> {
        let said = text["text"].as_str().unwrap_or_default();
        if text["type"] == "plain_text" {
            plain(said).lines().map(str::to_owned).collect()
        } else {
            self.mrkdwn(said)
        }
    }

    fn element(self, element: &Value) -> Vec<String> {
        match element["type"].as_str().unwrap_or_default() {
            "button" => {
                let label = self.bold(&format!(
                    "[ {} ]",
                    plain(element["text"]["text"].as_str().unwrap_or_default())
                ));
                let link = element["url"].as_str().unwrap_or_default();
                vec![format!("{label} {}", self.code("4", link))]
            }
            "image" => vec![format!(
                "({}) {}",
                element["alt_text"].as_str().unwrap_or_default(),
                element["image_url"].as_str().unwrap_or_default()
            )],
            "mrkdwn" | "plain_text" => self.text(element),
            _ => Vec::new(),
        }
    }

    /// Two by two, as wide as the wider of the column needs.
    fn fields(self, fields: &[String]) -> Vec<String> {
        let mut lines = Vec::new();
        for pair in fields.chunks(2) {
            let columns: Vec<_> = pair.iter().map(|field| self.mrkdwn(field)).collect();
            let widths: Vec<_> = pair
                .iter()
                .map(|field| Self { colors: false }.mrkdwn(field))
                .collect();
            let height = columns.iter().map(Vec::len).max().unwrap_or_default();
            let width = widths[0]
                .iter()
                .map(|line| line.chars().count())
                .max()
                .unwrap_or_default()
                .max(FIELD);
            for row in 0..height {
                let left = columns[0].get(row).map_or("", String::as_str);
                let shown = widths[0].get(row).map_or(0, |line| line.chars().count());
                let right = columns
                    .get(1)
                    .and_then(|column| column.get(row))
                    .map_or("", String::as_str);
                let space = if right.is_empty() {
                    0
                } else {
                    width - shown + 2
                };
                lines.push(format!("{left}{}{right}", " ".repeat(space)));
            }
        }
        lines
    }

    /// Slack's own markup.
    fn mrkdwn(self, text: &str) -> Vec<String> {
        text.lines().map(|line| self.line(line)).collect()
    }

    fn line(self, line: &str) -> String {
        let mut told = String::new();
        let mut rest = line;
        while let Some(place) = rest.find(['<', '*', '`']) {
            let (before, found) = rest.split_at(place);
            told.push_str(&plain(before));
            let mark = &found[..1];
            let end = if mark == "<" { ">" } else { mark };
            match found[1..].split_once(end) {
                Some((inside, after)) if !inside.trim().is_empty() => {
                    told.push_str(&match mark {
                        "<" => self.link(inside),
                        "*" => self.bold(&self.line(inside)),
                        _ => self.code("36", &plain(inside)),
                    });
                    rest = after;
                }
                _ => {
                    told.push_str(mark);
                    rest = &found[1..];
                }
            }
        }
        told + &plain(rest)
    }

    /// `https://a|words`, `!date^…|words`, `@U…`, `#C…`.
    fn link(self, inside: &str) -> String {
        let (target, words) = inside
            .split_once('|')
            .map_or((inside, None), |(target, words)| (target, Some(words)));
        match (target.chars().next(), words) {
            (Some('!'), words) => plain(words.unwrap_or(&target.replacen('!', "@", 1))),
            (Some('@' | '#'), words) => plain(words.unwrap_or(target)),
            (_, Some(words)) => format!("{} {}", plain(words), self.code("4", &plain(target))),
            (_, None) => self.code("4", &plain(target)),
        }
    }
}

/// Text with its entities and its emoji.
fn plain(text: &str) -> String {
    let mut text = unescape(text);
    if text.contains(':') {
        for (name, emoji) in EMOJI {
            text = text.replace(&format!(":{name}:"), emoji);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::super::state::By;
    use super::*;

    fn message(text: &str, blocks: Value, attachments: Value) -> Message {
        Message {
            ts: "1.000000".to_owned(),
            thread_ts: None,
            by: By::Bot("U1".to_owned()),
            author: "campanile".to_owned(),
            text: text.to_owned(),
            blocks: blocks.as_array().cloned().unwrap_or_default(),
            attachments: attachments.as_array().cloned().unwrap_or_default(),
            metadata: None,
            broadcast: false,
            at: Timestamp::UNIX_EPOCH,
            edits: Vec::new(),
        }
    }

    #[test]
    fn an_alarm_is_readable() {
        let blocks = json!([
            {"type": "header", "text": {"type": "plain_text", "text": ":rotating_light: ALARM · critical · vsu"}},
            {"type": "section", "fields": [
                {"type": "mrkdwn", "text": "*Alarm*\nerrors"}, {"type": "mrkdwn", "text": "*State*\nALARM, was OK"},
                {"type": "mrkdwn", "text": "*Since*\nnow"},
            ]},
            {"type": "section", "text": {"type": "mrkdwn", "text": "a &lt; b\n<https://r.example|Runbook> * 2"}},
            {"type": "divider"},
            {"type": "context", "elements": [{"type": "mrkdwn", "text": "`vsu`"}]},
            {"type": "actions", "elements": [{"type": "button", "text": {"type": "plain_text", "text": "Alarm"}, "url": "https://a.example/1"}]},
        ]);
        let told = render(&message(
            "short",
            json!([]),
            json!([{"color": "#d1242f", "fallback": "f", "blocks": blocks}]),
        ));
        let expected = "\
campanile 00:00:00
short
▌ 🚨 ALARM · critical · vsu
▌ Alarm                                 State
▌ errors                                ALARM, was OK
▌ Since
▌ now
▌ a < b
▌ Runbook https://r.example * 2
▌ ────────────────────────────────────────────────────────────────────────
▌ vsu
▌ [ Alarm ] https://a.example/1
";
        assert_eq!(told, expected);
    }

    #[test]
    fn the_text_stands_in_for_nothing_and_replies_are_indented() {
        let blocks = json!([{"type": "markdown", "text": "from blocks"}]);
        let mut told = message("fallback", blocks, json!([]));
        assert!(!render(&told).contains("fallback"));
        told.thread_ts = Some("0.000001".to_owned());
        assert_eq!(render(&told), "  ↳ campanile 00:00:00\n    from blocks\n");
        let legacy = json!([{"color": "good", "title": "T", "title_link": "https://t.example", "text": "*b*", "fields": [{"title": "a", "value": "1", "short": true}, {"title": "b", "value": "2"}], "footer": "f"}]);
        let told = render(&message("", json!([]), legacy.clone()));
        assert_eq!(
            told,
            "campanile 00:00:00\n▌ T https://t.example\n▌ b\n▌ a\n▌ 1\n▌ b\n▌ 2\n▌ f\n"
        );
        let painted = paint(&message("", json!([]), legacy));
        assert!(
            painted.contains("\x1b[38;2;46;184;134m▌\x1b[0m")
                && painted.contains("\x1b[1mb\x1b[0m"),
            "{painted:?}"
        );
    }
}
