//! From an outcome to what is to be done: a row for each meaning.

use super::*;
use crate::{
    engine::{
        applied::Applied,
        plan::Verb,
        rendering::tests::{created, step},
        stage::{Failure, Report},
    },
    kinds::{
        job::JobState,
        system::{
            SystemVisits, Target, Visit,
            tests::{Place, Probe, ProbeSpec, ProbeVisits},
        },
    },
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use std::collections::BTreeSet;

const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);
const RETRY: Duration = Duration::from_secs(300);

/// A probe in two systems, in which all is as it should be.
struct Scene {
    probe: Probe,
    outcome: Outcome<Probe>,
    retry: Option<Duration>,
    failing_for: Duration,
}

impl Scene {
    fn new() -> Self {
        let mut probe = Probe::new("p", ProbeSpec::default());
        probe.metadata.generation = Some(1);
        let status = probe.status.insert(Default::default());
        status.first = vec![Place("a".into())];
        status.second = vec![Place("b".into())];
        Self {
            probe,
            outcome: Outcome {
                inputs: Some(Ok(())),
                visits: ProbeVisits {
                    first: SystemVisits(vec![visit("first", "a")]),
                    second: SystemVisits(vec![visit("second", "b")]),
                },
                applied: Applied::default(),
                edited: true,
                job: Ok(JobState::default()),
            },
            retry: None,
            failing_for: Duration::ZERO,
        }
    }

    fn first(&mut self) -> &mut VisitReport {
        &mut self.outcome.visits.first.0[0].report
    }

    fn second(&mut self) -> &mut VisitReport {
        &mut self.outcome.visits.second.0[0].report
    }

    /// `Ready` as it was.
    fn was(&mut self, status: &str, reason: &str) {
        let ready = Condition {
            type_: "Ready".into(),
            status: status.into(),
            reason: reason.into(),
            message: String::new(),
            observed_generation: Some(1),
            last_transition_time: Time(NOW),
        };
        let status = self.probe.status.as_mut().unwrap();
        status.common.conditions = vec![ready];
    }

    /// It was deleted so many hours ago.
    fn deleted(&mut self, hours: i64) {
        let at = NOW - jiff::SignedDuration::from_hours(hours);
        self.probe.metadata.deletion_timestamp = Some(Time(at));
        self.outcome.inputs = None;
        self.first().current = false;
        self.second().current = false;
    }
}

fn visit<const N: usize>(
    system: &'static str,
    place: &str,
) -> Visit<Probe, crate::kinds::system::tests::In<N>> {
    let target = Place(place.into());
    Visit {
        report: VisitReport {
            system,
            place: target.view(),
            current: true,
            reached: Ok(()),
            observed: true,
            report: Report::default(),
            applied: Some(Applied::default()),
        },
        target,
        stages: None,
    }
}

fn fail(report: &mut VisitReport, class: Class) {
    report.report.failed.push(Failure {
        stage: "label",
        key: Some("x".into()),
        error: Error::new(class, "x"),
        deletes: false,
        blocked: false,
    });
}

/// `Ready`, the Event, when to look again in seconds, the places that stay in status, and the label. Without a status
/// the first says what becomes of the object.
fn concluded(scene: &Scene) -> (String, String, Option<u64>, String, &'static str) {
    let (stale, told) = (BTreeSet::new(), HashSet::new());
    let conclusion = conclude(&RunEnd {
        object: &scene.probe,
        outcome: &scene.outcome,
        written: scene.probe.status.as_ref().unwrap(),
        requested: None,
        installation: &Installation::sample(),
        clock: Clock {
            now: NOW,
            stale: &stale,
        },
        retry: scene.retry,
        failing_for: scene.failing_for,
        told: &told,
    });
    let (ready, places) = match conclusion.ending {
        Ending::Superseded => ("superseded".into(), "-".into()),
        Ending::RemoveFinalizer => ("released".into(), "-".into()),
        Ending::Report(mut reported) => {
            let places = list(&reported.status.places());
            let ready = api::condition(reported.status.conditions(), "Ready").unwrap();
            (format!("{} {}", ready.status, ready.reason), places)
        }
    };
    let event = conclusion.note.map_or("-".into(), |note| note.reason);
    let requeue = conclusion.requeue.map(|wait| wait.as_secs());
    (ready, event, requeue, places, conclusion.label)
}

type Row = (
    &'static str,
    fn(&mut Scene),
    (
        &'static str,
        &'static str,
        Option<u64>,
        &'static str,
        &'static str,
    ),
);

#[test]
fn an_outcome_says_what_is_to_be_done() {
    let rows: [Row; 20] = [
        (
            "it was made",
            |it| it.first().report.made = vec![created("x")],
            ("True Applied", "Applied", None, "a; b", "ok"),
        ),
        (
            "nothing was to be done",
            |it| it.was("True", "Applied"),
            ("True Applied", "-", None, "a; b", "ok"),
        ),
        (
            "the kind wants to look again",
            |it| it.probe.spec = serde_json::from_str(r#"{"look_again": 60}"#).unwrap(),
            ("True Applied", "-", Some(60), "a; b", "ok"),
        ),
        (
            "the sooner of two times",
            |it| {
                it.probe.spec = serde_json::from_str(r#"{"look_again": 600}"#).unwrap();
                it.was("True", "Applied");
                it.retry = Some(RETRY);
                fail(it.second(), Class::Throttled);
            },
            ("True Applied", "-", Some(300), "a; b", "throttled"),
        ),
        (
            "what came about outside was put right",
            |it| {
                it.was("True", "Applied");
                let drift = vec![step(Verb::Update, "label", "x", &[])];
                it.first().report.drift = drift.clone();
                it.first().report.made = drift;
            },
            ("True Applied", "DriftRepaired", None, "a; b", "ok"),
        ),
        (
            "or is told, though another system cannot be reached",
            |it| {
                it.was("True", "Applied");
                it.second().reached = Err(Error::failing("x"));
                it.first().report.reported = vec![created("x")];
            },
            ("True Applied", "DriftDetected", None, "a; b", "unavailable"),
        ),
        (
            "a person is needed",
            |it| {
                it.was("True", "Applied");
                it.retry = Some(RETRY);
                fail(it.first(), Class::Throttled);
                fail(it.second(), Class::Denied);
            },
            (
                "False AccessDenied",
                "AccessDenied",
                Some(300),
                "a; b",
                "denied",
            ),
        ),
        (
            "and was needed before",
            |it| {
                it.was("False", "AccessDenied");
                fail(it.second(), Class::Denied);
            },
            ("False AccessDenied", "-", None, "a; b", "denied"),
        ),
        (
            "it has not passed for too long",
            |it| {
                it.was("True", "Applied");
                it.failing_for = Duration::from_secs(601);
                fail(it.first(), Class::Unavailable);
            },
            (
                "False SystemUnavailable",
                "SystemUnavailable",
                None,
                "a; b",
                "unavailable",
            ),
        ),
        (
            "what it refers to is not there yet",
            |it| {
                let waiting = Error::new(Class::Waiting(WaitingOn::Secret), "x");
                it.outcome.inputs = Some(Err(waiting));
            },
            ("False WaitingForSecret", "-", None, "a; b", "waiting"),
        ),
        (
            "a newer edit ended it",
            |it| {
                fail(it.first(), Class::Superseded);
                it.second().report.made = vec![created("x")];
            },
            ("superseded", "Applied", Some(1), "-", "superseded"),
        ),
        (
            "it is deleted",
            |it| it.deleted(0),
            ("released", "-", None, "-", "ok"),
        ),
        (
            "in one system",
            |it| {
                it.deleted(25);
                it.retry = Some(RETRY);
                fail(it.second(), Class::Throttled);
            },
            ("False Deleting", "-", Some(300), "b", "throttled"),
        ),
        (
            "and nobody is let into the other",
            |it| {
                it.deleted(23);
                it.retry = Some(RETRY);
                fail(it.second(), Class::Denied);
            },
            ("False Deleting", "-", Some(300), "b", "denied"),
        ),
        (
            "for too long",
            |it| {
                it.deleted(25);
                fail(it.second(), Class::Denied);
            },
            ("released", "-", None, "-", "ok"),
        ),
        (
            "and nobody ever can be",
            |it| {
                it.deleted(0);
                fail(it.second(), Class::Waiting(WaitingOn::Never));
            },
            ("released", "-", None, "-", "ok"),
        ),
        (
            "other objects go first",
            |it| {
                it.deleted(25);
                fail(it.second(), Class::Waiting(WaitingOn::Prerequisite));
            },
            ("False Deleting", "-", Some(300), "b", "waiting"),
        ),
        (
            "what it said last is being delivered",
            |it| {
                it.deleted(0);
                let report = &mut it.second().report;
                (report.later, report.wait) = (1, Some(Duration::from_secs(10)));
            },
            ("False Deleting", "-", Some(10), "b", "ok"),
        ),
        (
            "which does not let go of the first",
            |it| {
                it.deleted(25);
                fail(it.first(), Class::Unavailable);
                fail(it.second(), Class::Denied);
            },
            ("False Deleting", "-", None, "a", "unavailable"),
        ),
        (
            "a status that was lost cannot be told from the spec",
            |it| {
                it.deleted(23);
                let status = it.probe.status.as_mut().unwrap();
                (status.first, status.second) = (Vec::new(), Vec::new());
                it.outcome.visits.first.0.clear();
                it.outcome.visits.second.0.clear();
                it.outcome.inputs = Some(Err(Error::failing("x")));
            },
            ("False Deleting", "-", None, "", "unavailable"),
        ),
    ];
    for (name, arrange, (ready, event, requeue, places, label)) in rows {
        let mut scene = Scene::new();
        arrange(&mut scene);
        let expected = (ready.into(), event.into(), requeue, places.into(), label);
        assert_eq!(concluded(&scene), expected, "{name}");
    }
}
