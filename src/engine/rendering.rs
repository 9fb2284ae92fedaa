//! A change as text: in a plan, an Event, the audit line, a condition and the log. The one place that words changes
//! and cuts texts.

use crate::engine::plan::{Change, Owner, Value, Verb};
use indexmap::IndexMap;
use serde::Serialize;
use serde_json::Value as Json;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// A change for people. Secrets appear in it as digests.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub verb: Verb,
    /// To what kind of thing: the stage's name.
    #[serde(rename = "resource")]
    pub stage: &'static str,
    /// To which.
    #[serde(rename = "name")]
    pub key: String,
    /// The fields that change. A created thing has no `from`, a deleted one no fields but for the record:
    /// [`Step::losing`].
    pub fields: Vec<FieldChange>,
    /// Who holds it, in a conflict.
    #[serde(rename = "holder")]
    pub owner: Option<String>,
}

/// One field of a [`Step`].
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct FieldChange {
    /// The field's name. Within a document, the path of what changes there: `policy.Statement[0].Effect`.
    pub name: String,
    /// What it was, empty if it was not set; `None` if the thing was not there.
    pub from: Option<String>,
    /// What it becomes; empty if it is to be unset, or goes with the thing.
    pub to: String,
}

impl Step {
    /// A change of a stage, for people.
    pub fn of<K: fmt::Display, V: Value, I>(stage: &'static str, change: &Change<K, V, I>) -> Self {
        let fields = match change {
            Change::Create { to, .. } => set(to, |to| (None, to)),
            Change::Update { from, to, .. } => differences(from.fields(), to.fields()),
            Change::Delete { .. } => Vec::new(),
        };
        Self {
            verb: change.verb(),
            stage,
            key: change.key().to_string(),
            fields,
            owner: None,
        }
    }

    /// A thing that is left alone because it is not ours, for people.
    pub fn conflict(stage: &'static str, key: &impl fmt::Display, owner: &Owner) -> Self {
        Self {
            verb: Verb::Conflict,
            stage,
            key: key.to_string(),
            fields: Vec::new(),
            owner: Some(owner.to_string()),
        }
    }

    /// A deletion with all that is lost by it, for the record: people are told which thing goes.
    #[must_use]
    pub fn losing(self, was: &impl Value) -> Self {
        let fields = set(was, |was| (Some(was), String::new()));
        Self { fields, ..self }
    }

    /// Which thing: `alarm campanile/eu/vsu/critical/golden/p95`.
    pub fn thing(&self) -> String {
        format!("{} {}", self.stage, self.key)
    }

    /// What there is before it, in a line: nothing if the thing is not there. Of some things there is nothing to
    /// say but which they are.
    pub fn before(&self) -> String {
        let fields = self.side(|field| field.from.as_deref());
        if self.verb == Verb::Delete && fields.is_empty() {
            return self.key.clone();
        }
        fields
    }

    /// What there is after it, in a line.
    pub fn after(&self) -> String {
        match self.verb {
            Verb::Delete => String::new(),
            Verb::Create | Verb::Update | Verb::Conflict => self.side(|field| Some(&field.to)),
        }
    }

    fn side(&self, value: fn(&FieldChange) -> Option<&str>) -> String {
        let fields = self.fields.iter();
        let fields = fields.filter_map(|field| Some(format!("{}={}", field.name, value(field)?)));
        fields.collect::<Vec<_>>().join(" ")
    }

    /// What had come to differ, in a line: `alarm x: threshold was 8000, wanted 5000`.
    pub fn difference(&self) -> String {
        let thing = self.thing();
        match self.verb {
            Verb::Create => format!("{thing} was missing"),
            Verb::Delete => format!("{thing} was there and is not asked for"),
            Verb::Update | Verb::Conflict => {
                let fields = self.fields.iter().map(|field| {
                    let (from, to) = CONDITION.contrast(field);
                    format!("{} was {from}, wanted {to}", field.name)
                });
                format!("{thing}: {}", fields.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl Verb {
    /// The sign it has in a printed plan.
    pub fn sign(self) -> char {
        match self {
            Self::Create => '+',
            Self::Update => '~',
            Self::Delete => '-',
            Self::Conflict => '!',
        }
    }
}

impl fmt::Display for Step {
    /// As in a plan: `~ alarm campanile/eu/vsu/critical/golden/p95`, and a line per field.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, stage, .. } = self;
        write!(f, "{} {stage} {}", verb.sign(), plain(&self.key))?;
        if let Some(owner) = &self.owner {
            write!(f, "\n    not touched: it is held by {}", plain(owner))?;
        }
        for field in &self.fields {
            if field.from.is_some() {
                let (from, to) = PLAN.contrast(field);
                write!(f, "\n    {}: {from} → {to}", field.name)?;
            } else {
                for (name, value) in lines(&field.name, &field.to) {
                    write!(f, "\n    {name}: {value}")?;
                }
            }
        }
        Ok(())
    }
}

/// The fields of a thing that are set, on the side on which it is there.
fn set(value: &impl Value, sides: fn(String) -> (Option<String>, String)) -> Vec<FieldChange> {
    let fields = value.fields().into_iter();
    let fields = fields.filter(|(_, value)| !value.is_empty());
    let fields = fields.map(|(name, value)| {
        let (name, (from, to)) = (name.to_owned(), sides(value));
        FieldChange { name, from, to }
    });
    fields.collect()
}

fn differences(
    from: Vec<(&'static str, String)>,
    to: Vec<(&'static str, String)>,
) -> Vec<FieldChange> {
    let from: BTreeMap<_, _> = from.into_iter().collect();
    let mut changes = Vec::new();
    for (name, to) in to {
        let was = from.get(name).cloned().unwrap_or_default();
        match (document(&was), document(&to)) {
            _ if was == to => {}
            (Some(was), Some(to)) => compare(name, Some(&was), Some(&to), &mut changes),
            _ => changes.push(FieldChange {
                name: name.to_owned(),
                from: Some(was),
                to,
            }),
        }
    }
    changes
}

/// A text that is a JSON document, such as a policy.
fn document(text: &str) -> Option<Json> {
    let read = text
        .starts_with(['{', '['])
        .then(|| serde_json::from_str(text));
    read?.ok()
}

/// Where two documents differ, there being nothing at some paths of one of them.
fn compare(path: &str, from: Option<&Json>, to: Option<&Json>, changes: &mut Vec<FieldChange>) {
    match (from, to) {
        _ if from == to => {}
        (Some(Json::Object(from)), Some(Json::Object(to))) => {
            let names: BTreeSet<_> = from.keys().chain(to.keys()).collect();
            for name in names {
                let path = format!("{path}.{name}");
                compare(&path, from.get(name), to.get(name), changes);
            }
        }
        (Some(Json::Array(from)), Some(Json::Array(to))) => {
            // What stands before and after the change is the same item, whatever its number is now.
            let (before, after) = alike(from, to);
            let (from, to) = (&from[..from.len() - after], &to[..to.len() - after]);
            for at in before..from.len().max(to.len()) {
                let path = format!("{path}[{at}]");
                compare(&path, from.get(at), to.get(at), changes);
            }
        }
        _ => changes.push(FieldChange {
            name: path.to_owned(),
            from: Some(from.map(text).unwrap_or_default()),
            to: to.map(text).unwrap_or_default(),
        }),
    }
}

/// How many items are the same at the beginning of both, and at the end.
fn alike<T: PartialEq>(a: &[T], b: &[T]) -> (usize, usize) {
    let same = |(a, b): &(&T, &T)| a == b;
    let before = a.iter().zip(b).take_while(same).count();
    let (a, b) = (&a[before..], &b[before..]);
    (
        before,
        a.iter().rev().zip(b.iter().rev()).take_while(same).count(),
    )
}

/// A value of a document for people: texts without quotes.
fn text(value: &Json) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// A document is shown part by part where it is longer than this.
const LINE: usize = 100;

/// A field of a new thing, a line each: a long document in parts.
fn lines(name: &str, value: &str) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    match document(value) {
        Some(value) => take_apart(name, &value, &mut lines),
        None => lines.push((name.to_owned(), PLAN.value(value))),
    }
    lines
}

fn take_apart(path: &str, value: &Json, lines: &mut Vec<(String, String)>) {
    match value {
        _ if value.to_string().len() <= LINE => lines.push((path.to_owned(), plain(&text(value)))),
        Json::Object(fields) => {
            for (name, value) in fields {
                take_apart(&format!("{path}.{name}"), value, lines);
            }
        }
        Json::Array(items) => {
            for (at, value) in items.iter().enumerate() {
                take_apart(&format!("{path}[{at}]"), value, lines);
            }
        }
        _ => lines.push((path.to_owned(), PLAN.value(&text(value)))),
    }
}

/// How values are shown in one sort of text.
struct Values {
    /// The longest one, in bytes.
    limit: usize,
    /// How many characters are shown before and after what differs in longer ones.
    around: usize,
    /// What stands for one that is not set.
    unset: &'static str,
}

const PLAN: Values = Values {
    limit: 300,
    around: 30,
    unset: "(unset)",
};

const EVENT: Values = Values {
    limit: 80,
    around: 10,
    unset: "(unset)",
};

const CONDITION: Values = Values {
    unset: "unset",
    ..EVENT
};

impl Values {
    fn value(&self, value: &str) -> String {
        match value {
            "" => self.unset.to_owned(),
            value => plain(&shorten(value, self.limit)),
        }
    }

    /// Both values of a field: what differs in them is shown, however long they are.
    fn contrast(&self, field: &FieldChange) -> (String, String) {
        let (from, to) = (field.from.as_deref().unwrap_or_default(), &*field.to);
        if from.len().max(to.len()) <= self.limit {
            return (self.value(from), self.value(to));
        }
        let [a, b] = [from, to].map(|text| text.chars().collect::<Vec<_>>());
        let (before, after) = alike(&a, &b);
        let (skipped, left) = (
            before.saturating_sub(self.around),
            after.saturating_sub(self.around),
        );
        let window = |text: &[char]| {
            let mut shown: String = text[skipped..text.len() - left].iter().collect();
            if skipped > 0 {
                shown.insert(0, ELLIPSIS);
            }
            if left > 0 {
                shown.push(ELLIPSIS);
            }
            self.value(&shown)
        };
        (window(&a), window(&b))
    }
}

/// How many things are named of one sort in a summary, and how many fields of one thing.
const NAMED: usize = 3;

/// How many changed things are shown with their fields in a summary.
const DETAILED: usize = 2;

/// The longest name of a thing in a summary, in bytes: beyond it the end is shown, which tells things apart.
const KEY: usize = 100;

/// Many changes in a line, as done or as to do: `created 2 alarms (a, b), changed alarm c: threshold 5000 → 8000;
/// deleted 1 alarm (d)`, in the order in which the sorts come first; `None` where nothing is changed.
pub fn summary(steps: &[Step], done: bool) -> Option<String> {
    let mut groups: IndexMap<_, Vec<_>> = IndexMap::new();
    for step in steps {
        let verb = match step.verb {
            Verb::Create => "create",
            Verb::Update => "change",
            Verb::Delete => "delete",
            Verb::Conflict => continue,
        };
        groups.entry((verb, step.stage)).or_default().push(step);
    }
    let (mut told, mut separator, mut detailed) = (String::new(), "", 0);
    let is_shown = |step: &Step| step.verb == Verb::Update && !step.fields.is_empty();
    for ((verb, stage), group) in groups {
        let has_fields = detailed < DETAILED && group.iter().take(NAMED).any(|it| is_shown(it));
        let named = group.iter().map(|step| {
            let key = tail(&step.key, KEY);
            if detailed == DETAILED || !is_shown(step) {
                return key;
            }
            detailed += 1;
            format!("{key}: {}", fields(&step.fields))
        });
        let named = few(named, NAMED, if has_fields { "; " } else { ", " });
        let verb = format!("{separator}{verb}{}", if done { "d" } else { "" });
        // What comes after a list of fields that nothing closes needs more than a comma.
        (told, separator) = match group.len() {
            1 if has_fields => (format!("{told}{verb} {stage} {named}"), "; "),
            count => {
                let things = things(stage, count);
                (format!("{told}{verb} {count} {things} ({named})"), ", ")
            }
        };
    }
    (!told.is_empty()).then_some(told)
}

/// `threshold 5000 → 8000, period 60 → 300 and 2 more fields`.
fn fields(fields: &[FieldChange]) -> String {
    let shown = fields.iter().map(|field| {
        let (from, to) = EVENT.contrast(field);
        format!("{} {from} → {to}", field.name)
    });
    let shown = few(shown, NAMED, ", ");
    match fields.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} {}", things("field", more)),
    }
}

/// The first of many: `a, b and 2 more`.
pub fn few(all: impl ExactSizeIterator<Item = String>, limit: usize, separator: &str) -> String {
    let more = all.len().saturating_sub(limit);
    let shown = all.take(limit).collect::<Vec<_>>().join(separator);
    match more {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// A stage's things, as many as that.
fn things(stage: &str, count: usize) -> String {
    let ends = |ends: &[&str]| ends.iter().any(|end| stage.ends_with(end));
    match stage.strip_suffix('y') {
        _ if count == 1 => stage.to_owned(),
        Some(stem) if !ends(&["ay", "ey", "oy", "uy"]) => format!("{stem}ies"),
        _ if ends(&["s", "x", "ch", "sh"]) => format!("{stage}es"),
        _ => format!("{stage}s"),
    }
}

/// What stands for what is cut off.
const ELLIPSIS: char = '…';

/// Bytes in hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `text`, cut between two characters to at most `limit` of what `width` counts, the ellipsis included.
pub fn cut(text: &str, limit: usize, width: impl Fn(char) -> usize) -> String {
    let (mut total, mut end) = (0, 0);
    for (at, c) in text.char_indices() {
        if total + width(ELLIPSIS) <= limit {
            end = at;
        }
        total += width(c);
        if total > limit {
            return format!("{}{ELLIPSIS}", &text[..end]);
        }
    }
    text.to_owned()
}

/// `text`, cut to at most `limit` bytes.
pub fn shorten(text: &str, limit: usize) -> String {
    cut(text, limit, char::len_utf8)
}

/// The end of a text that is longer than `limit` bytes, on one line.
fn tail(text: &str, limit: usize) -> String {
    let end = &text[text.ceil_char_boundary(text.len().saturating_sub(limit))..];
    let lead = if end.len() < text.len() { "…" } else { "" };
    plain(&format!("{lead}{end}"))
}

/// A text on one line: nothing of what others write into descriptions and marks moves a terminal's cursor.
pub fn plain(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' => '⏎',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::engine::plan::Found;

    #[derive(Clone, PartialEq)]
    struct Size(u8);

    impl Value for Size {
        fn fields(&self) -> Vec<(&'static str, String)> {
            vec![("size", self.0.to_string())]
        }
    }

    /// A step that changes these fields: name, from, to.
    pub(crate) fn step(
        verb: Verb,
        stage: &'static str,
        key: &str,
        fields: &[(&'static str, &str, &str)],
    ) -> Step {
        let fields = fields.iter().map(|&(name, from, to)| FieldChange {
            name: name.into(),
            from: Some(from.into()),
            to: to.into(),
        });
        Step {
            verb,
            stage,
            key: key.into(),
            fields: fields.collect(),
            owner: None,
        }
    }

    pub(crate) fn created(key: &str) -> Step {
        let mut step = step(Verb::Create, "alarm", key, &[("threshold", "", "1")]);
        step.fields[0].from = None;
        step
    }

    pub(crate) fn changed(key: &str) -> Step {
        step(Verb::Update, "alarm", key, &[("threshold", "5000", "8000")])
    }

    pub(crate) fn deleted(key: &str) -> Step {
        step(Verb::Delete, "alarm", key, &[])
    }

    pub(crate) fn conflict(key: &str) -> Step {
        step(Verb::Conflict, "alarm", key, &[])
    }

    #[test]
    fn what_a_deletion_loses_is_only_in_the_record() {
        let seen = Found {
            id: (),
            value: Size(7),
            owner: Owner::Us,
            live: (),
        };
        let deletion: Change<&str, Size, ()> = Change::Delete {
            key: "a",
            ours: seen.ours().unwrap(),
        };
        let told = Step::of("thing", &deletion);
        assert_eq!(told.fields, []);
        let lost = FieldChange {
            name: "size".into(),
            from: Some("7".into()),
            to: String::new(),
        };
        let recorded = told.clone().losing(&Size(7));
        assert_eq!(recorded.fields, [lost]);
        assert_eq!(
            Step {
                fields: Vec::new(),
                ..recorded
            },
            told
        );
    }

    /// What a step says of a field that changes so.
    fn told(from: &str, to: &str) -> Vec<String> {
        let step = Step {
            verb: Verb::Update,
            stage: "thing",
            key: "a".into(),
            fields: differences(
                vec![("field", from.to_owned())],
                vec![("field", to.to_owned())],
            ),
            owner: None,
        };
        step.to_string()
            .lines()
            .skip(1)
            .map(|line| line.trim().to_owned())
            .collect()
    }

    #[test]
    fn of_a_document_only_what_differs_is_shown() {
        for (from, to, lines) in [
            (
                r#"{"S":[{"C":{"E":{"aws:A":"1"}},"X":"y"}],"V":"v"}"#,
                r#"{"S":[{"C":{"E":{"aws:A":"2"}},"X":"y"}],"V":"v"}"#,
                vec!["field.S[0].C.E.aws:A: 1 → 2"],
            ),
            (
                r#"{"a":1,"b":[1,2]}"#,
                r#"{"b":"x","c":{"d":null}}"#,
                vec![
                    "field.a: 1 → (unset)",
                    "field.b: [1,2] → x",
                    r#"field.c: (unset) → {"d":null}"#,
                ],
            ),
            // One that goes or comes in the middle is that one, not all that follow it.
            (
                r#"["a","b","c"]"#,
                r#"["a","c"]"#,
                vec!["field[1]: b → (unset)"],
            ),
            (
                r#"["a","a"]"#,
                r#"["a","a","a"]"#,
                vec!["field[2]: (unset) → a"],
            ),
            (
                r#"[{"x":1},{"y":1}]"#,
                r#"[{"x":2},{"z":1},{"y":1}]"#,
                vec!["field[0].x: 1 → 2", r#"field[1]: (unset) → {"z":1}"#],
            ),
            ("null", r#"{"a":1}"#, vec![r#"field: null → {"a":1}"#]),
            ("{broken", r#"{"a":1}"#, vec![r#"field: {broken → {"a":1}"#]),
            ("", "x", vec!["field: (unset) → x"]),
            ("same", "same", vec![]),
        ] {
            assert_eq!(told(from, to), lines, "{from} → {to}");
        }
    }

    #[test]
    fn what_changes_in_a_long_text_is_shown() {
        let (much, more) = ("x".repeat(500), "y".repeat(500));
        let told = told(&format!("{much}one{more}"), &format!("{much}two{more}"));
        let (before, after) = ("x".repeat(PLAN.around), "y".repeat(PLAN.around));
        assert_eq!(
            told,
            [format!(
                "field: …{before}one{after}… → …{before}two{after}…"
            )]
        );
        // What is new may be long as well, and what repeats may be of both ends.
        let told = self::told(&much, &format!("{much}{more}"));
        assert!(told[0].ends_with('…') && told[0].contains("xy"), "{told:?}");
        let told = self::told(&much, &format!("{much}xx"));
        assert_eq!(told, [format!("field: …{before} → …{before}xx")]);
        // Nor does it move anybody's cursor.
        assert_eq!(
            self::told("a\nb", "\u{1b}[2Ja"),
            ["field: a⏎b → \u{fffd}[2Ja"]
        );
    }

    #[test]
    fn a_new_document_is_shown_in_parts() {
        let long = "z".repeat(LINE);
        let document =
            format!(r#"{{"Statement":[{{"Effect":"Allow","Sid":"{long}"}}],"Version":"1"}}"#);
        assert_eq!(
            lines("policy", &document),
            [
                ("policy.Statement[0].Effect".to_owned(), "Allow".to_owned()),
                ("policy.Statement[0].Sid".into(), long),
                ("policy.Version".into(), "1".into())
            ]
        );
        let short = r#"{"a":[1]}"#;
        assert_eq!(lines("policy", short), [("policy".into(), short.into())]);
        assert_eq!(lines("x", &"z".repeat(900))[0].1.len(), PLAN.limit);
    }

    #[test]
    fn of_what_is_made_there_is_no_before_and_of_what_goes_no_after() {
        let field = |name: &str, from: Option<&str>, to: &str| FieldChange {
            name: name.into(),
            from: from.map(str::to_owned),
            to: to.into(),
        };
        for (verb, fields, from, to) in [
            (
                Verb::Create,
                vec![field("a", None, "1"), field("b", None, "2")],
                "",
                "a=1 b=2",
            ),
            (
                Verb::Update,
                vec![field("a", Some("0"), "1"), field("b", Some(""), "2")],
                "a=0 b=",
                "a=1 b=2",
            ),
            (Verb::Update, vec![field("a", Some("0"), "")], "a=0", "a="),
            (Verb::Create, vec![], "", ""),
            (
                Verb::Delete,
                vec![field("a", Some("0"), ""), field("b", Some("1"), "")],
                "a=0 b=1",
                "",
            ),
            (Verb::Delete, vec![], "critical email a@b", ""),
        ] {
            let step = Step {
                verb,
                stage: "subscription",
                key: "critical email a@b".into(),
                fields,
                owner: None,
            };
            assert_eq!((&*step.before(), &*step.after()), (from, to), "{step:?}");
        }
    }

    #[test]
    fn what_was_made_is_summed_up() {
        let wide: Vec<_> = ["a", "b", "c", "d", "e"]
            .map(|name| (name, "1", "2"))
            .to_vec();
        let cases: [(&[Step], &str); 13] = [
            (
                &[created("a"), created("b"), changed("c"), deleted("d")],
                "created 2 alarms (a, b), changed alarm c: threshold 5000 → 8000; deleted 1 alarm (d)",
            ),
            (&[created("a")], "created 1 alarm (a)"),
            (&["a", "b", "c"].map(created), "created 3 alarms (a, b, c)"),
            (
                &["a", "b", "c", "d", "e"].map(created),
                "created 5 alarms (a, b, c and 2 more)",
            ),
            (
                &["a", "b", "c", "d"].map(changed),
                "changed 4 alarms (a: threshold 5000 → 8000; b: threshold 5000 → 8000; c and 1 more)",
            ),
            (
                &[changed("a"), conflict("x"), deleted("b")],
                "changed alarm a: threshold 5000 → 8000; deleted 1 alarm (b)",
            ),
            // Sorts come together, and keep their order.
            (
                &[
                    step(Verb::Create, "topic", "t", &[]),
                    created("a"),
                    step(Verb::Create, "topic", "u", &[]),
                    deleted("z"),
                    step(Verb::Delete, "topic", "v", &[]),
                ],
                "created 2 topics (t, u), created 1 alarm (a), deleted 1 alarm (z), deleted 1 topic (v)",
            ),
            // Only the first two things with all that changed in them.
            (
                &[
                    step(Verb::Update, "topic", "t", &[("policy", "", "x\ny")]),
                    changed("a"),
                    changed("b"),
                ],
                "changed topic t: policy (unset) → x⏎y; changed 2 alarms (a: threshold 5000 → 8000; b)",
            ),
            (
                &[step(Verb::Update, "alarm", "a", &wide)],
                "changed alarm a: a 1 → 2, b 1 → 2, c 1 → 2 and 2 more fields",
            ),
            (
                &[step(Verb::Update, "alarm", "a", &wide[..4])],
                "changed alarm a: a 1 → 2, b 1 → 2, c 1 → 2 and 1 more field",
            ),
            (
                &[step(Verb::Update, "alarm tag", "a", &[])],
                "changed 1 alarm tag (a)",
            ),
            (
                &["a", "b"].map(|key| step(Verb::Delete, "policy", key, &[])),
                "deleted 2 policies (a, b)",
            ),
            (
                &[step(
                    Verb::Update,
                    "alarm",
                    "a\u{1b}[2J",
                    &[("unit", "x", "")],
                )],
                "changed alarm a\u{fffd}[2J: unit x → (unset)",
            ),
        ];
        for (made, text) in cases {
            assert_eq!(summary(made, true).as_deref(), Some(text));
        }
        assert_eq!(
            summary(&[created("a"), changed("b"), deleted("c")], false).as_deref(),
            Some("create 1 alarm (a), change alarm b: threshold 5000 → 8000; delete 1 alarm (c)")
        );
    }

    #[test]
    fn many_things_have_a_word() {
        for (one, many) in [
            ("alarm", "alarms"),
            ("alarm tag", "alarm tags"),
            ("log group", "log groups"),
            ("policy", "policies"),
            ("key", "keys"),
            ("index", "indexes"),
            ("patch", "patches"),
            ("alias", "aliases"),
        ] {
            assert_eq!((things(one, 1), things(one, 2)), (one.into(), many.into()));
        }
    }

    #[test]
    fn what_differs_in_long_values_is_shown_and_so_is_the_end_of_a_name() {
        let contrast = |from: &str, to: &str| {
            EVENT.contrast(&FieldChange {
                name: "field".into(),
                from: Some(from.into()),
                to: to.into(),
            })
        };
        let long = "x".repeat(200);
        let (from, to) = contrast(&format!("{long}one"), &format!("{long}two{long}"));
        assert_eq!(from, "…xxxxxxxxxxone");
        assert!(
            to.starts_with("…xxxxxxxxxxtwoxxx") && to.ends_with("x…") && to.len() <= EVENT.limit
        );
        assert_eq!(
            contrast(&long, ""),
            (shorten(&long, EVENT.limit), "(unset)".into())
        );
        assert_eq!(contrast(&long, &format!("{long}é")).1, "…xxxxxxxxxxé");
        let name = format!("{}/p95", "é".repeat(200));
        let shown = tail(&name, KEY);
        assert!(
            shown.starts_with("…é") && shown.ends_with("é/p95"),
            "{shown}"
        );
        assert_eq!(tail("a/b", KEY), "a/b");
        assert_eq!(tail("", KEY), "");
    }

    #[test]
    fn cutting_keeps_characters_whole() {
        assert_eq!(shorten("short", 10), "short");
        assert_eq!(shorten("éééé", 6), "é…");
        assert!(shorten(&"x".repeat(50), 20).len() <= 20);
        assert_eq!(cut("🔥🔥🔥", 5, char::len_utf16), "🔥🔥…");
        assert_eq!(cut("🔥🔥🔥", 6, char::len_utf16), "🔥🔥🔥");
    }
}
