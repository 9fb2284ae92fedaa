//! What a run says to those who watch the object: at most one Kubernetes Event, summed up, and only if
//! something happened.
//!
//! The Events are our own and not kube's Recorder's: that one folds what looks alike for some minutes
//! and sends its first note again, and here the note is the point.

use crate::{
    clients::kubernetes::{self, FIELD_MANAGER},
    engine::{
        error::{Result, shorten},
        plan::{FieldChange, Step, Verb},
    },
};
use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};

/// Who all our Events are from.
const CONTROLLER: &str = "campanile.dev/campanile";

/// The longest note, in bytes; the API's own limit is 1024.
const NOTE: usize = 1000;

/// The longest message of `Ready` in a note that has more to say.
const MESSAGE: usize = 600;

/// The longest `reportingInstance`, in bytes: the API's limit.
const INSTANCE: usize = 128;

/// The longest name of an object, in bytes: the API's limit.
const NAME: usize = 253;

/// How many things are named of one sort, and how many fields of one thing.
const NAMED: usize = 3;

/// How many changed things are shown with their fields.
const DETAILED: usize = 2;

/// The longest name of a thing, in bytes: beyond it the end is shown, which tells things apart.
const KEY: usize = 100;

/// The longest value of a field, in bytes.
const VALUE: usize = 80;

/// How many characters are shown before what differs in values that are longer.
const AROUND: usize = 10;

/// What a run says to those who watch the object: at most one Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Whether somebody should look.
    pub warning: bool,
    /// Why, for machines: `Applied`, `DriftRepaired`, `DriftDetected`, or the reason of `Ready`.
    pub reason: String,
    /// What was being done, for machines: `Apply`, `Repair` or `Observe`.
    pub action: &'static str,
    /// For people, at most 1000 bytes. The same happening gives the same text.
    pub text: String,
}

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Happened<'a> {
    /// Changes that were made, in order.
    pub made: &'a [Step],
    /// They repaired what had changed outside.
    pub drift: bool,
    /// `Ready` as it was: status, reason; `None` if there was none.
    pub ready_before: Option<(&'a str, &'a str)>,
    /// `Ready` as it is: status, reason, message.
    pub ready_after: Option<(&'a str, &'a str, &'a str)>,
    /// Drift that is newly told and not repaired, as the changes that would repair it.
    pub reported: &'a [Step],
}

/// What to say of it, if anything. What needs somebody goes first: `Ready` that has become bad, then
/// drift that stays; the text says the rest as well.
pub fn note(happened: &Happened<'_>) -> Option<Note> {
    let made = summary(happened.made, Tense::ReconcileResult);
    let reported = summary(happened.reported, Tense::Would).map(|would| {
        format!("differs from the spec outside and is left as it is: a repair would {would}")
    });
    let also = made.as_ref().map(|made| format!("this run {made}"));
    let (warning, reason, action, said) = if let Some((reason, message)) = gone_bad(happened) {
        let rest = reported.is_some() || also.is_some();
        let message = if message.is_empty() {
            "not ready"
        } else {
            message
        };
        let message = shorten(&plain(message), if rest { MESSAGE } else { NOTE });
        (true, reason, "Apply", vec![Some(message), also, reported])
    } else if reported.is_some() {
        (true, "DriftDetected", "Observe", vec![reported, also])
    } else if happened.drift {
        (false, "DriftRepaired", "Repair", vec![made])
    } else {
        (false, "Applied", "Apply", vec![made])
    };
    let said: Vec<_> = said.into_iter().flatten().collect();
    (!said.is_empty()).then(|| Note {
        warning,
        reason: reason.to_owned(),
        action,
        text: shorten(&said.join("; "), NOTE),
    })
}

/// Reason and message of `Ready`, if it is bad now and was not so, or for another reason.
fn gone_bad<'a>(happened: &Happened<'a>) -> Option<(&'a str, &'a str)> {
    let (status, reason, message) = happened.ready_after?;
    // These are on their way to where they were told to go.
    let expected = matches!(reason, "Deleting" | "Applying" | "Suspended");
    let known = happened.ready_before == Some(("False", reason));
    // At first sight everything waits for something for a moment.
    let new = happened
        .ready_before
        .is_none_or(|(status, _)| status == "Unknown");
    let waits = new && reason.starts_with("WaitingFor");
    (status == "False" && !expected && !known && !waits).then_some((reason, message))
}

#[derive(Clone, Copy)]
enum Tense {
    ReconcileResult,
    Would,
}

impl Tense {
    /// `None` for what is left alone.
    fn of(self, verb: Verb) -> Option<&'static str> {
        Some(match (self, verb) {
            (Self::ReconcileResult, Verb::Create) => "created",
            (Self::ReconcileResult, Verb::Update) => "changed",
            (Self::ReconcileResult, Verb::Delete) => "deleted",
            (Self::Would, Verb::Create) => "create",
            (Self::Would, Verb::Update) => "change",
            (Self::Would, Verb::Delete) => "delete",
            (_, Verb::Conflict) => return None,
        })
    }
}

/// `created 2 alarms (a, b), changed alarm c: threshold 5000 → 8000; deleted 1 alarm (d)`, in the order in
/// which the sorts come first; `None` where nothing is changed.
fn summary(steps: &[Step], tense: Tense) -> Option<String> {
    let mut groups: Vec<(&'static str, Vec<&Step>)> = Vec::new();
    for step in steps {
        let Some(verb) = tense.of(step.verb) else {
            continue;
        };
        let same = |group: &&mut (&str, Vec<&Step>)| {
            let of = group.1.first();
            of.is_some_and(|of| (of.verb, of.stage) == (step.verb, step.stage))
        };
        match groups.iter_mut().find(same) {
            Some((_, group)) => group.push(step),
            None => groups.push((verb, vec![step])),
        }
    }
    let mut told = String::new();
    // What comes after a list of fields that nothing closes needs more than a comma.
    let mut separator = "";
    let mut detailed = 0;
    for (verb, group) in groups {
        told.push_str(separator);
        let (clause, is_open) = clause(verb, &group, &mut detailed);
        told.push_str(&clause);
        separator = if is_open { "; " } else { ", " };
    }
    (!told.is_empty()).then_some(told)
}

/// What was done to things of one sort, and whether it ends in a list of fields.
fn clause(verb: &str, group: &[&Step], detailed: &mut usize) -> (String, bool) {
    let mut has_fields = false;
    let named = group.iter().take(NAMED).map(|step| {
        let fields = if step.verb == Verb::Update && *detailed < DETAILED {
            *detailed += 1;
            fields(&step.fields)
        } else {
            None
        };
        let key = key(&step.key);
        match fields {
            Some(fields) => {
                has_fields = true;
                format!("{key}: {fields}")
            }
            None => key,
        }
    });
    let named: Vec<_> = named.collect();
    let stage = group.first().map_or("", |step| step.stage);
    if let ([one], true) = (named.as_slice(), has_fields) {
        return (format!("{verb} {stage} {one}"), true);
    }
    let count = group.len();
    let stage = things(stage, count);
    let named = named.join(if has_fields { "; " } else { ", " });
    let more = match count.saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (format!("{verb} {count} {stage} ({named}{more})"), false)
}

/// `threshold 5000 → 8000, period 60 → 300`; `None` if there is nothing to show.
fn fields(fields: &[FieldChange]) -> Option<String> {
    let shown = fields.iter().take(NAMED).map(|field| {
        let (from, to) = contrast(field.from.as_deref().unwrap_or_default(), &field.to);
        format!("{} {from} → {to}", field.name)
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    let more = match fields.len().saturating_sub(NAMED) {
        0 => String::new(),
        1 => " and 1 more field".to_owned(),
        more => format!(" and {more} more fields"),
    };
    (!shown.is_empty()).then(|| format!("{shown}{more}"))
}

/// Two values of a field, so short that what differs in them is still there.
fn contrast(from: &str, to: &str) -> (String, String) {
    let is_long = from.len().max(to.len()) > VALUE;
    let alike = from.chars().zip(to.chars()).take_while(|(a, b)| a == b);
    let skipped = if is_long {
        alike.count().saturating_sub(AROUND)
    } else {
        0
    };
    let shown = |text: &str| {
        if text.is_empty() {
            return "(unset)".to_owned();
        }
        let lead = if skipped > 0 { "…" } else { "" };
        let rest: String = text.chars().skip(skipped).collect();
        plain(&shorten(&format!("{lead}{rest}"), VALUE))
    };
    (shown(from), shown(to))
}

/// The name of a thing, its beginning left out where it is long.
fn key(key: &str) -> String {
    let mut ends = key.char_indices().map(|(at, _)| &key[at..]);
    let end = ends.find(|end| end.len() <= KEY).unwrap_or_default();
    let lead = if end.len() < key.len() { "…" } else { "" };
    plain(&format!("{lead}{end}"))
}

/// One line, without anything that would move the cursor of a terminal.
fn plain(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' => '⏎',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(shown).collect()
}

/// A stage's things, as many as that.
fn things(stage: &str, count: usize) -> String {
    if count == 1 {
        return stage.to_owned();
    }
    let before_y = stage.strip_suffix('y');
    match before_y.filter(|stem| !stem.ends_with(['a', 'e', 'i', 'o', 'u'])) {
        Some(stem) => format!("{stem}ies"),
        None if stage.ends_with(['s', 'x']) || stage.ends_with("ch") || stage.ends_with("sh") => {
            format!("{stage}es")
        }
        None => format!("{stage}s"),
    }
}

/// Tells the API server, once: an Event that is lost is not worth another try. `instance` is the replica
/// that speaks. The Event goes where the object is.
pub async fn publish(
    client: &Client,
    object: &ObjectReference,
    note: &Note,
    instance: &str,
) -> Result<()> {
    let event = event(object, note, instance, Timestamp::now());
    let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
    let api = Api::<Event>::namespaced(client.clone(), namespace);
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PostParams::default()
    };
    kubernetes::call("publishing an event", api.create(&params, &event))
        .await
        .map(drop)
}

/// The Event of a note. Its name is told apart by the time: the server's own suffix is only five
/// characters, and these names say when they were made.
fn event(object: &ObjectReference, note: &Note, instance: &str, now: Timestamp) -> Event {
    let suffix = format!(".{:x}", now.as_nanosecond());
    let name = object.name.as_deref().unwrap_or("campanile");
    let end = name.floor_char_boundary(NAME.saturating_sub(suffix.len()));
    let stem = name[..end].trim_end_matches(['.', '-']);
    // The API requires one.
    let instance = if instance.is_empty() {
        "campanile"
    } else {
        instance
    };
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{stem}{suffix}")),
            // Where events of objects without a namespace belong.
            namespace: Some(object.namespace.clone().unwrap_or_else(|| "default".into())),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.into()),
        reason: Some(note.reason.clone()),
        action: Some(note.action.into()),
        note: Some(note.text.clone()),
        regarding: Some(object.clone()),
        reporting_controller: Some(CONTROLLER.into()),
        reporting_instance: Some(shorten(instance, INSTANCE)),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::error::Class;
    use axum::{
        Router,
        body::{Body, to_bytes},
        extract::Request,
        http::Response,
    };
    use proptest::prelude::*;
    use serde_json::json;
    use std::sync::{Arc, Mutex};

    fn step(
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

    fn created(key: &str) -> Step {
        let mut step = step(Verb::Create, "alarm", key, &[("threshold", "", "1")]);
        step.fields[0].from = None;
        step
    }

    fn changed(key: &str) -> Step {
        step(Verb::Update, "alarm", key, &[("threshold", "5000", "8000")])
    }

    fn deleted(key: &str) -> Step {
        step(Verb::Delete, "alarm", key, &[])
    }

    fn conflict(key: &str) -> Step {
        step(Verb::Conflict, "alarm", key, &[])
    }

    type Ready<'a> = Option<(&'a str, &'a str)>;

    fn said(happened: &Happened<'_>) -> Option<(bool, String, &'static str, String)> {
        let note = note(happened)?;
        Some((note.warning, note.reason, note.action, note.text))
    }

    #[test]
    fn what_is_said_when() {
        let (made, left) = ([created("a"), created("b")], [deleted("x")]);
        let would =
            "differs from the spec outside and is left as it is: a repair would delete 1 alarm (x)";
        let did = "created 2 alarms (a, b)";
        let denied = "not allowed";
        let also = |text: &str| format!("{text}; this run {did}");
        let good: Ready<'_> = Some(("True", "Applied"));
        let bad: Ready<'_> = Some(("False", "AccessDenied"));
        let none: &[Step] = &[];
        type Said<'a> = Option<(bool, &'a str, &'a str, String)>;
        type Case<'a> = (&'a [Step], bool, &'a [Step], Ready<'a>, Ready<'a>, Said<'a>);
        let cases: [Case<'_>; 20] = [
            (none, false, none, None, None, None),
            (none, false, none, good, good, None),
            (none, true, none, good, good, None),
            (&[conflict("x")], true, &[conflict("y")], good, good, None),
            (
                &made,
                false,
                none,
                None,
                good,
                Some((false, "Applied", "Apply", did.into())),
            ),
            (
                &made,
                true,
                none,
                good,
                good,
                Some((false, "DriftRepaired", "Repair", did.into())),
            ),
            (
                none,
                false,
                &left,
                good,
                good,
                Some((true, "DriftDetected", "Observe", would.into())),
            ),
            (
                &made,
                false,
                &left,
                good,
                good,
                Some((true, "DriftDetected", "Observe", also(would))),
            ),
            (
                &made,
                true,
                &left,
                good,
                good,
                Some((true, "DriftDetected", "Observe", also(would))),
            ),
            // Ready becomes bad: from nothing, from good, from unknown, from another reason.
            (
                none,
                false,
                none,
                None,
                bad,
                Some((true, "AccessDenied", "Apply", denied.into())),
            ),
            (
                none,
                false,
                none,
                good,
                bad,
                Some((true, "AccessDenied", "Apply", denied.into())),
            ),
            (
                none,
                false,
                none,
                Some(("Unknown", "Applying")),
                bad,
                Some((true, "AccessDenied", "Apply", denied.into())),
            ),
            (
                none,
                false,
                none,
                Some(("False", "Conflict")),
                bad,
                Some((true, "AccessDenied", "Apply", denied.into())),
            ),
            (
                &made,
                true,
                none,
                good,
                bad,
                Some((true, "AccessDenied", "Apply", also(denied))),
            ),
            (
                &made,
                false,
                &left,
                good,
                bad,
                Some((
                    true,
                    "AccessDenied",
                    "Apply",
                    format!("{}; {would}", also(denied)),
                )),
            ),
            // It was so before, it becomes good, or it is as it was asked to be.
            (none, false, none, bad, bad, None),
            (none, false, none, bad, good, None),
            (none, false, none, good, Some(("False", "Deleting")), None),
            (none, false, none, good, Some(("False", "Suspended")), None),
            (none, false, none, good, Some(("False", "Applying")), None),
        ];
        for (at, (made, drift, reported, before, after, expected)) in cases.into_iter().enumerate()
        {
            let happened = Happened {
                made,
                drift,
                ready_before: before,
                ready_after: after.map(|(status, reason)| (status, reason, denied)),
                reported,
            };
            let expected = expected
                .map(|(warning, reason, action, text)| (warning, reason.to_owned(), action, text));
            assert_eq!(said(&happened), expected, "case {at}");
        }
        // What is made on the way to a good or a bad end is told, and once.
        for (before, after) in [(bad, bad), (good, Some(("False", "Deleting")))] {
            let happened = Happened {
                made: &made,
                ready_before: before,
                ready_after: after.map(|(status, reason)| (status, reason, denied)),
                ..Happened::default()
            };
            assert_eq!(
                said(&happened),
                Some((false, "Applied".into(), "Apply", did.into()))
            );
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
            assert_eq!(summary(made, Tense::ReconcileResult).as_deref(), Some(text));
        }
        assert_eq!(
            summary(&[created("a"), changed("b"), deleted("c")], Tense::Would).as_deref(),
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
        let long = "x".repeat(200);
        let (from, to) = contrast(&format!("{long}one"), &format!("{long}two{long}"));
        assert_eq!(from, "…xxxxxxxxxxone");
        assert!(to.starts_with("…xxxxxxxxxxtwoxxx") && to.ends_with("x…") && to.len() <= VALUE);
        assert_eq!(
            contrast(&long, ""),
            (shorten(&long, VALUE), "(unset)".into())
        );
        assert_eq!(contrast(&long, &format!("{long}é")).1, "…xxxxxxxxxxé");
        let name = format!("{}/p95", "é".repeat(200));
        let shown = key(&name);
        assert!(
            shown.starts_with("…é") && shown.ends_with("é/p95"),
            "{shown}"
        );
        assert_eq!(key("a/b"), "a/b");
        assert_eq!(key(""), "");
    }

    #[test]
    fn a_long_message_leaves_room_for_what_was_made() {
        let message = "é".repeat(2000);
        let mut happened = Happened {
            ready_after: Some(("False", "Conflict", &message)),
            ..Happened::default()
        };
        let (_, _, _, text) = said(&happened).unwrap();
        assert!(
            text.len() > NOTE - 4 && text.len() <= NOTE,
            "{}",
            text.len()
        );
        let made = [created("a")];
        happened.made = &made;
        let (_, _, _, text) = said(&happened).unwrap();
        assert!(text.ends_with("é…; this run created 1 alarm (a)"), "{text}");
        happened.ready_after = Some(("False", "Conflict", ""));
        let (_, _, _, text) = said(&happened).unwrap();
        assert_eq!(text, "not ready; this run created 1 alarm (a)");
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let verb = prop_oneof![
            Just(Verb::Create),
            Just(Verb::Update),
            Just(Verb::Delete),
            Just(Verb::Conflict)
        ];
        let stage = prop_oneof![Just("alarm"), Just("topic"), Just("policy")];
        // Long and short, of one byte and of more, with what moves a cursor.
        let text = || "([a-é]{0,9}|[ab\n\u{1b}→]{100,200})";
        let field = (text(), text()).prop_map(|(from, to)| FieldChange {
            name: "field".into(),
            from: Some(from),
            to,
        });
        let fields = proptest::collection::vec(field, 0..6);
        let step = (verb, stage, text(), fields).prop_map(|(verb, stage, key, fields)| Step {
            verb,
            stage,
            key,
            fields,
            owner: None,
        });
        proptest::collection::vec(step, 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_note_is_too_long_and_what_happens_twice_is_told_the_same(
            made in steps(),
            reported in steps(),
            message in "([a-é]{0,9}|[ab\n→]{900,1500})",
            drift in any::<bool>(),
            bad in any::<bool>(),
        ) {
            let happened = Happened {
                made: &made,
                drift,
                ready_before: None,
                ready_after: bad.then_some(("False", "Conflict", message.as_str())),
                reported: &reported,
            };
            let note = note(&happened);
            prop_assert_eq!(&note, &super::note(&happened));
            let changes = |steps: &[Step]| steps.iter().any(|step| step.verb != Verb::Conflict);
            prop_assert_eq!(note.is_some(), bad || changes(&made) || changes(&reported));
            if let Some(note) = note {
                prop_assert!(!note.text.is_empty() && note.text.len() <= NOTE);
                prop_assert!(!note.text.contains(char::is_control), "{:?}", note.text);
            }
        }
    }

    fn object(name: &str) -> ObjectReference {
        ObjectReference {
            api_version: Some("campanile.dev/v1alpha1".into()),
            kind: Some("AlarmSet".into()),
            name: Some(name.into()),
            namespace: Some("vsu".into()),
            uid: Some("1-2-3".into()),
            ..ObjectReference::default()
        }
    }

    fn applied() -> Note {
        Note {
            warning: false,
            reason: "Applied".into(),
            action: "Apply",
            text: "created 1 alarm (a)".into(),
        }
    }

    #[test]
    fn an_event_is_as_the_api_wants_it() {
        let now = Timestamp::new(1_800_000_000, 7).unwrap();
        let event = event(&object("golden"), &applied(), "pod-1", now);
        assert_eq!(
            serde_json::to_value(&event).unwrap(),
            json!({
                "apiVersion": "events.k8s.io/v1",
                "kind": "Event",
                "metadata": {"name": "golden.18fae27693b40007", "namespace": "vsu"},
                "eventTime": "2027-01-15T08:00:00.000000Z",
                "type": "Normal",
                "reason": "Applied",
                "action": "Apply",
                "note": "created 1 alarm (a)",
                "regarding": {
                    "apiVersion": "campanile.dev/v1alpha1",
                    "kind": "AlarmSet",
                    "name": "golden",
                    "namespace": "vsu",
                    "uid": "1-2-3",
                },
                "reportingController": "campanile.dev/campanile",
                "reportingInstance": "pod-1",
            })
        );
    }

    #[test]
    fn an_event_stays_within_the_bounds_of_the_api() {
        let now = Timestamp::now();
        let named = |name: &str| {
            event(&object(name), &applied(), "x", now)
                .metadata
                .name
                .unwrap()
        };
        let long = named(&format!("{}.b", "a".repeat(NAME - 18)));
        assert!(
            long.len() <= NAME && !long.contains("-.") && !long.contains(".."),
            "{long}"
        );
        assert_eq!(named(&"a".repeat(NAME)).len(), NAME);
        let other = event(
            &object("a"),
            &applied(),
            "x",
            Timestamp::now() + std::time::Duration::from_nanos(1),
        );
        assert_ne!(Some(named("a")), other.metadata.name);
        let warning = Note {
            warning: true,
            ..applied()
        };
        let bare = ObjectReference {
            namespace: None,
            ..object("a")
        };
        let event = event(&bare, &warning, "", now);
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(event.reporting_instance.as_deref(), Some("campanile"));
        let event = super::event(&bare, &warning, &"x".repeat(200), now);
        assert_eq!(event.reporting_instance.unwrap().len(), INSTANCE);
    }

    /// An API server that answers so, and what it was sent.
    async fn published(code: u16) -> (Result<()>, Vec<(String, Event)>) {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let answer = {
            let sent = sent.clone();
            move |request: Request| {
                let sent = sent.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = to_bytes(body, 1 << 20).await.unwrap();
                    let event: Event = serde_json::from_slice(&body).unwrap();
                    let line = format!("{} {}", head.method, head.uri.path());
                    sent.lock().unwrap().push((line, event));
                    let refusal = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                        "reason": "Forbidden", "message": "no", "code": code});
                    let answer = match code {
                        201 => body.to_vec(),
                        _ => serde_json::to_vec(&refusal).unwrap(),
                    };
                    Response::builder()
                        .status(code)
                        .body(Body::from(answer))
                        .unwrap()
                }
            }
        };
        let client = Client::new(Router::new().fallback(answer), "vsu");
        let done = publish(&client, &object("golden"), &applied(), "pod-1").await;
        let sent = sent.lock().unwrap().clone();
        (done, sent)
    }

    #[tokio::test]
    async fn a_note_is_published_once_whatever_comes_of_it() {
        let (done, sent) = published(201).await;
        assert_eq!(done, Ok(()));
        let (line, event) = &sent[0];
        assert_eq!(line, "POST /apis/events.k8s.io/v1/namespaces/vsu/events");
        assert_eq!(event.note.as_deref(), Some("created 1 alarm (a)"));
        assert_eq!(sent.len(), 1);
        let (done, sent) = published(403).await;
        assert_eq!((done.unwrap_err().class, sent.len()), (Class::Denied, 1));
    }
}
