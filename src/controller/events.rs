//! Kubernetes Events: at most one per reconcile, which sums up what happened.
//!
//! The Events are our own and not kube's Recorder's: that one folds what looks alike for some minutes
//! and sends its first note again, and here the note is the point.

use super::status::is_waiting;
use crate::{
    clients::kubernetes::{self, FIELD_MANAGER},
    engine::{
        error::Result,
        rendering::{Step, plain, shorten, summary},
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
    let made = summary(happened.made, true);
    let reported = summary(happened.reported, false).map(|would| {
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
    let waits = new && is_waiting(reason);
    (status == "False" && !expected && !known && !waits).then_some((reason, message))
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
    let kind = object.kind.as_deref().unwrap_or_default();
    let name = object.name.as_deref().unwrap_or_default();
    let doing = format!("publishing an Event of {kind} {namespace}/{name}");
    let published = kubernetes::call(&doing, api.create(&params, &event)).await;
    published.map(drop)
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
    use crate::engine::{
        error::Class,
        plan::Verb,
        rendering::{
            FieldChange,
            tests::{conflict, created, deleted},
        },
    };
    use axum::{
        Router,
        body::{Body, to_bytes},
        extract::Request,
        http::Response,
    };
    use proptest::prelude::*;
    use serde_json::json;
    use std::sync::{Arc, Mutex};

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
