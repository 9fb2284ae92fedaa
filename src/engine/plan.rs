//! What it takes to get from observed to desired. Pure; nothing else decides.

use crate::engine::{
    error::{Error, shorten},
    policy::{AdoptionPolicy, DeletionPolicy},
};
use serde_json::Value as Json;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::{Deref, DerefMut},
};

/// Who holds a thing in an outside system, read from its mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The object at hand.
    Us,
    /// Nobody that we know: it carries no mark.
    Nobody,
    /// Another object, or another installation.
    Other(String),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Us => f.write_str("this object"),
            Self::Nobody => f.write_str("nobody that Campanile knows (it carries no mark)"),
            Self::Other(mark) => f.write_str(mark),
        }
    }
}

/// A thing seen in an outside system.
#[derive(Clone, Debug, PartialEq)]
pub struct Found<V, I, L> {
    /// The name that the outside gave it, where it gives one; `()` where names are ours.
    pub id: I,
    /// Its configuration, in the form in which it is compared.
    pub value: V,
    /// Who holds it.
    pub owner: Owner,
    /// What it is doing: never compared, only reported.
    pub live: L,
}

/// Proof that a thing was seen and is ours, or nobody's and to be adopted. Only [`Found`] makes it, so
/// nothing else can be updated or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ours<I>(I);

impl<I> Ours<I> {
    /// The name that the outside gave it.
    pub fn id(&self) -> &I {
        &self.0
    }
}

impl<V, I: Clone, L> Found<V, I, L> {
    /// The right to change it, if it is ours.
    pub fn ours(&self) -> Option<Ours<I>> {
        (self.owner == Owner::Us).then(|| Ours(self.id.clone()))
    }

    /// The right to change it, if it is ours or, where the spec says so, nobody's. Another's never.
    pub fn ours_or_adopted(&self, policy: AdoptionPolicy) -> Option<Ours<I>> {
        let adopted = self.owner == Owner::Nobody && policy != AdoptionPolicy::Never;
        (adopted || self.owner == Owner::Us).then(|| Ours(self.id.clone()))
    }
}

/// A configuration. What the spec leaves unset is not managed, so desired *covers* observed where
/// all that is set is as it should be.
pub trait Value: Clone + Send + Sync {
    /// Whether `seen` is as we want it.
    fn covers(&self, seen: &Self) -> bool;
    /// Its fields for people, in a fixed order. Secrets appear as digests. They are the audit line's, and by
    /// their digest it is known whether something else is wanted than before: a field that is called
    /// otherwise in another release makes the first run of every object an edit.
    fn fields(&self) -> Vec<(&'static str, String)>;
}

/// What is decided thing by thing: one policy for all of them, and another for some.
#[derive(Clone, Debug)]
pub struct PerThing<K, P> {
    /// For all others.
    pub usual: P,
    /// For these.
    pub of: BTreeMap<K, P>,
}

impl<K: Ord, P: Copy> PerThing<K, P> {
    /// What is decided for this one.
    pub fn get(&self, key: &K) -> P {
        self.of.get(key).copied().unwrap_or(self.usual)
    }
}

impl<K, P> From<P> for PerThing<K, P> {
    fn from(usual: P) -> Self {
        let of = BTreeMap::new();
        Self { usual, of }
    }
}

/// What a stage wants.
#[derive(Clone, Debug)]
pub struct Desired<K, V> {
    /// What is to be there.
    pub wanted: BTreeMap<K, V>,
    /// What is asked for but cannot be made, and why. If it exists it stays as it is: bad input loses nothing.
    pub held: BTreeMap<K, Error>,
    /// What is done about a thing of a wanted name that carries nobody's mark.
    pub adoption: PerThing<K, AdoptionPolicy>,
    /// What becomes of a thing of ours that is not wanted any more.
    pub deletion: PerThing<K, DeletionPolicy>,
}

impl<K, V> Default for Desired<K, V> {
    /// Nothing: what deletion wants.
    fn default() -> Self {
        Self {
            wanted: BTreeMap::new(),
            held: BTreeMap::new(),
            adoption: AdoptionPolicy::Never.into(),
            deletion: DeletionPolicy::Delete.into(),
        }
    }
}

/// All that a stage has seen. What is neither found nor unknown is not there.
#[derive(Clone, Debug)]
pub struct Observed<K, V, I, L> {
    /// What is there.
    pub found: BTreeMap<K, Found<V, I, L>>,
    /// What nobody can tell of now, or not what it is like. Nothing is done about it.
    pub unknown: BTreeSet<K>,
}

impl<K, V, I, L> Default for Observed<K, V, I, L> {
    fn default() -> Self {
        Self {
            found: BTreeMap::new(),
            unknown: BTreeSet::new(),
        }
    }
}

impl<K, V, I, L> Deref for Observed<K, V, I, L> {
    type Target = BTreeMap<K, Found<V, I, L>>;

    fn deref(&self) -> &Self::Target {
        &self.found
    }
}

impl<K, V, I, L> DerefMut for Observed<K, V, I, L> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.found
    }
}

impl<K: Ord, V, I, L> FromIterator<(K, Found<V, I, L>)> for Observed<K, V, I, L> {
    fn from_iter<T: IntoIterator<Item = (K, Found<V, I, L>)>>(found: T) -> Self {
        Self {
            found: found.into_iter().collect(),
            ..Self::default()
        }
    }
}

/// One step from observed to desired.
#[derive(Clone, Debug)]
pub enum Change<K, V, I> {
    /// Make it.
    Create {
        /// Which.
        key: K,
        /// As what.
        to: V,
    },
    /// Bring it back to what it should be.
    Update {
        /// Which.
        key: K,
        /// The right to.
        ours: Ours<I>,
        /// What it is.
        from: V,
        /// What it should be.
        to: V,
    },
    /// Remove it.
    Delete {
        /// Which.
        key: K,
        /// The right to.
        ours: Ours<I>,
    },
}

impl<K, V, I> Change<K, V, I> {
    /// Which thing.
    pub fn key(&self) -> &K {
        match self {
            Self::Create { key, .. } | Self::Update { key, .. } | Self::Delete { key, .. } => key,
        }
    }

    /// What is done to it.
    pub fn verb(&self) -> Verb {
        match self {
            Self::Create { .. } => Verb::Create,
            Self::Update { .. } => Verb::Update,
            Self::Delete { .. } => Verb::Delete,
        }
    }
}

/// All that it takes, and what stands in the way.
#[derive(Clone, Debug)]
pub struct Plan<K, V, I> {
    /// What is to be done.
    pub changes: Vec<Change<K, V, I>>,
    /// What is wanted and somebody else's: it is left alone and told.
    pub conflicts: Vec<(K, Owner)>,
}

/// What a change does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Something is made.
    Create,
    /// Something is changed.
    Update,
    /// Something is removed.
    Delete,
    /// Something is left alone because it is not ours.
    Conflict,
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

/// The way from `seen` to `desired`. Of what is unknown it says nothing.
pub fn diff<K: Ord + Clone, V: Value, I: Clone, L>(
    desired: &Desired<K, V>,
    seen: &Observed<K, V, I, L>,
) -> Plan<K, V, I> {
    let Desired {
        wanted,
        held,
        adoption,
        deletion,
    } = desired;
    let (mut changes, mut conflicts) = (Vec::new(), Vec::new());
    let known = |key: &K| !seen.unknown.contains(key);
    for (key, to) in wanted.iter().filter(|(key, _)| known(key)) {
        let (key, to) = (key.clone(), to.clone());
        let Some(found) = seen.found.get(&key) else {
            changes.push(Change::Create { key, to });
            continue;
        };
        match found.ours_or_adopted(adoption.get(&key)) {
            None => conflicts.push((key, found.owner.clone())),
            Some(_) if to.covers(&found.value) => {}
            Some(ours) => changes.push(Change::Update {
                key,
                ours,
                from: found.value.clone(),
                to,
            }),
        }
    }
    let stays = |key: &K| {
        let asked_for = wanted.contains_key(key) || held.contains_key(key);
        asked_for || deletion.get(key) == DeletionPolicy::Orphan
    };
    let gone = seen.found.iter();
    let gone = gone.filter(|(key, _)| known(key) && !stays(key));
    changes.extend(gone.filter_map(|(key, found)| {
        let ours = found.ours()?;
        let key = key.clone();
        Some(Change::Delete { key, ours })
    }));
    Plan { changes, conflicts }
}

/// A change for people: what `campanile plan` prints and what the log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub verb: Verb,
    /// To what kind of thing: the stage's name.
    pub stage: &'static str,
    /// To which.
    pub key: String,
    /// The fields that change: name, from, to. A created thing has no `from`, a deleted one no fields but
    /// for the record: [`Step::losing`].
    pub fields: Vec<FieldChange>,
    /// Who holds it, in a conflict.
    pub owner: Option<String>,
}

/// One field of a [`Step`].
#[derive(Clone, Debug, PartialEq, Eq)]
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
            Change::Create { to, .. } => to
                .fields()
                .into_iter()
                .filter(|(_, to)| !to.is_empty())
                .map(|(name, to)| FieldChange {
                    name: name.to_owned(),
                    from: None,
                    to,
                })
                .collect(),
            Change::Update { from, to, .. } => changed(from.fields(), to.fields()),
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
        let fields = was.fields().into_iter();
        let fields = fields.filter(|(_, was)| !was.is_empty());
        let fields = fields.map(|(name, was)| FieldChange {
            name: name.to_owned(),
            from: Some(was),
            to: String::new(),
        });
        Self {
            fields: fields.collect(),
            ..self
        }
    }
}

fn changed(from: Vec<(&'static str, String)>, to: Vec<(&'static str, String)>) -> Vec<FieldChange> {
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
            let alike = |(a, b): &(&Json, &Json)| a == b;
            let before = from.iter().zip(to).take_while(alike).count();
            let after = from.iter().rev().zip(to.iter().rev());
            let after = after.take_while(alike).count();
            let after = after.min(from.len().min(to.len()) - before);
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

/// A value of a document for people: texts without quotes.
fn text(value: &Json) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// The most characters of a value that are shown to people.
const SHOWN: usize = 300;

/// How many characters are shown before and after what differs in a text that is longer.
const AROUND: usize = 30;

/// A document is shown part by part where it is longer than this.
const LINE: usize = 100;

/// A value on one line: nothing of what others write into descriptions and marks moves a terminal's cursor.
fn plain(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' => '⏎',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(shown).collect()
}

/// The same, as short as it may have to be.
fn brief(text: &str) -> String {
    if text.is_empty() {
        return "(unset)".to_owned();
    }
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    plain(&shown)
}

/// Two values of a field: what differs in them is shown, however long they are.
fn contrast(from: &str, to: &str) -> (String, String) {
    let (a, b): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let shorter = a.len().min(b.len());
    if a.len().max(b.len()) <= SHOWN {
        return (brief(from), brief(to));
    }
    let alike = |(a, b): &(&char, &char)| a == b;
    let before = a.iter().zip(&b).take_while(alike).count();
    let after = a.iter().rev().zip(b.iter().rev()).take_while(alike).count();
    let after = after.min(shorter - before);
    let (skipped, left) = (before.saturating_sub(AROUND), after.saturating_sub(AROUND));
    let window = |text: &[char]| {
        let end = text.len() - left;
        let shown = brief(&text[skipped..end].iter().collect::<String>());
        let lead = if skipped > 0 { "…" } else { "" };
        let rest = if left > 0 && !shown.ends_with('…') {
            "…"
        } else {
            ""
        };
        format!("{lead}{shown}{rest}")
    };
    (window(&a), window(&b))
}

/// A field of a new thing, a line each: a long document in parts.
fn lines(name: &str, value: &str) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    match document(value) {
        Some(value) => take_apart(name, &value, &mut lines),
        None => lines.push((name.to_owned(), brief(value))),
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
        _ => lines.push((path.to_owned(), brief(&text(value)))),
    }
}

impl fmt::Display for Step {
    /// `~ alarm campanile/eu/vsu/critical/golden/p95` and a line per field.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            verb,
            stage,
            key,
            fields,
            owner,
        } = self;
        write!(f, "{} {stage} {}", verb.sign(), plain(key))?;
        if let Some(owner) = owner {
            write!(f, "\n    not touched: it is held by {}", plain(owner))?;
        }
        for FieldChange { name, from, to } in fields {
            match from {
                Some(from) => {
                    let (from, to) = contrast(from, to);
                    write!(f, "\n    {name}: {from} → {to}")?;
                }
                None => {
                    for (name, value) in lines(name, to) {
                        write!(f, "\n    {name}: {value}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// What had come to differ, in a line: `alarm x: threshold was 8000, wanted 5000`.
pub fn tell(step: &Step) -> String {
    let thing = format!("{} {}", step.stage, step.key);
    match step.verb {
        Verb::Create => format!("{thing} was missing"),
        Verb::Delete => format!("{thing} was there and is not asked for"),
        Verb::Update | Verb::Conflict => {
            let fields = step.fields.iter().map(|field| {
                let from = field.from.as_deref().unwrap_or_default();
                let shown = |text: &str| match text {
                    "" => "unset".to_owned(),
                    text => shorten(&text.replace('\n', "⏎"), 80),
                };
                format!(
                    "{} was {}, wanted {}",
                    field.name,
                    shown(from),
                    shown(&field.to)
                )
            });
            format!("{thing}: {}", fields.collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Size(u8);

    impl Value for Size {
        fn covers(&self, seen: &Self) -> bool {
            self == seen
        }
        fn fields(&self) -> Vec<(&'static str, String)> {
            vec![("size", self.0.to_string())]
        }
    }

    fn found(size: u8, owner: Owner) -> Found<Size, u8, ()> {
        Found {
            id: size,
            value: Size(size),
            owner,
            live: (),
        }
    }

    fn shown(plan: &Plan<&str, Size, u8>) -> Vec<String> {
        let changes = plan.changes.iter();
        let changes = changes.map(|change| Step::of("thing", change));
        let conflicts = plan.conflicts.iter();
        let conflicts = conflicts.map(|(key, owner)| Step::conflict("thing", key, owner));
        changes
            .chain(conflicts)
            .map(|step| step.to_string())
            .collect()
    }

    #[test]
    fn creates_updates_deletes_and_leaves_others_alone() {
        let desired = Desired {
            wanted: [
                ("a", Size(1)),
                ("b", Size(2)),
                ("c", Size(3)),
                ("v", Size(1)),
                ("x", Size(4)),
            ]
            .into(),
            held: [("h", Error::invalid("no such environment"))].into(),
            deletion: PerThing {
                usual: DeletionPolicy::Delete,
                of: [("o", DeletionPolicy::Orphan)].into(),
            },
            ..Desired::default()
        };
        let seen = [
            ("b", found(2, Owner::Us)),
            ("c", found(0, Owner::Us)),
            ("h", found(1, Owner::Us)),
            ("o", found(1, Owner::Us)),
            ("u", found(1, Owner::Us)),
            ("x", found(4, Owner::Nobody)),
            (
                "y",
                found(5, Owner::Other("campanile:eu/1/AlarmSet/a/b".into())),
            ),
            ("z", found(9, Owner::Us)),
        ];
        let seen = Observed {
            found: seen.into(),
            unknown: ["u", "v"].into(),
        };
        assert_eq!(
            shown(&diff(&desired, &seen)),
            [
                "+ thing a\n    size: 1",
                "~ thing c\n    size: 0 → 3",
                "- thing z",
                "! thing x\n    not touched: it is held by nobody that Campanile knows (it carries no mark)",
            ]
        );
    }

    #[test]
    fn what_a_deletion_loses_is_only_in_the_record() {
        let deletion: Change<&str, Size, u8> = Change::Delete {
            key: "a",
            ours: found(7, Owner::Us).ours().unwrap(),
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
            fields: changed(
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
        let (before, after) = ("x".repeat(AROUND), "y".repeat(AROUND));
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
        assert_eq!(lines("x", &"z".repeat(900))[0].1.chars().count(), SHOWN + 1);
    }

    fn owner() -> impl Strategy<Value = Owner> {
        prop_oneof![
            Just(Owner::Us),
            Just(Owner::Nobody),
            Just(Owner::Other("other".into()))
        ]
    }

    proptest! {
        #[test]
        fn applying_a_plan_leaves_none_and_touches_no_foreigner(
            wanted in proptest::collection::btree_map(0_u8..20, any::<u8>(), 0..15),
            seen in proptest::collection::btree_map(0_u8..20, (any::<u8>(), owner()), 0..15),
        ) {
            let desired = Desired { wanted: wanted.into_iter().map(|(k, v)| (k, Size(v))).collect(), ..Desired::default() };
            let before: Observed<_, _, _, _> = seen.into_iter().map(|(k, (v, h))| (k, found(v, h))).collect();
            let mut after = before.clone();
            for change in diff(&desired, &before).changes {
                match change {
                    Change::Create { key, to } => drop(after.insert(key, Found { id: 0, value: to, owner: Owner::Us, live: () })),
                    Change::Update { key, to, .. } => after.get_mut(&key).unwrap().value = to,
                    Change::Delete { key, .. } => drop(after.remove(&key)),
                }
            }
            let foreign = |map: &Observed<u8, Size, u8, ()>| map.iter().filter(|(_, f)| f.owner != Owner::Us).map(|(k, f)| (*k, f.clone())).collect::<Vec<_>>();
            prop_assert_eq!(foreign(&before), foreign(&after));
            prop_assert!(diff(&desired, &after).changes.is_empty());
        }
    }
}
