//! The end of a reconcile. Pure: from the outcome of a run to status, Event, the time of the next look, and whether the
//! finalizer goes; also what a deletion waits for.

use super::{
    drift::{self, Drift},
    events::{self, Happened, Note},
    status::{Before, Keep, Phase, Sum, conditions, decisive},
};
use crate::{
    api::{self, AppliedEntry, DriftEntry},
    engine::{
        applied::ThingRef,
        error::{Class, Error, WaitingOn},
        rendering::Step,
    },
    kinds::{
        self, Clock, ConditionUpdate, Kind, Outcome, Status, StatusUpdate, TargetView,
        installation::Installation,
        job::JobState,
        spec_digest,
        system::{VisitReport, Visits},
    },
};
use jiff::Timestamp;
use std::{collections::HashSet, time::Duration};

/// The shortest time until another look.
const SOON: Duration = Duration::from_secs(1);

/// What came of an object, and what this process remembers of it.
pub struct RunEnd<'a, K: Kind> {
    /// The object as it was read.
    pub object: &'a K,
    /// What came of it.
    pub outcome: &'a Outcome<K>,
    /// The status as it was last written, intents included.
    pub written: &'a K::Status,
    /// The annotation that asks for a reconcile.
    pub requested: Option<String>,
    /// This installation.
    pub installation: &'a Installation,
    /// The time.
    pub clock: Clock<'a>,
    /// When what failed is to be tried again.
    pub retry: Option<Duration>,
    /// For how long it has been failing for what passes by itself.
    pub failing_for: Duration,
    /// The drift that was told before.
    pub told: &'a HashSet<ThingRef>,
}

/// What is to be done.
pub struct Conclusion<K: Kind> {
    /// What becomes of the object.
    pub ending: Ending<K>,
    /// An Event.
    pub note: Option<Note>,
    /// The places where things stay because nobody could clean up, and why.
    pub abandoned: Vec<(String, String)>,
    /// When to look again; `None` where only a change is worth a look.
    pub requeue: Option<Duration>,
    /// `ok`, or the class of what decided.
    pub label: &'static str,
    /// Whether anything was made outside.
    pub progress: bool,
}

/// What becomes of an object.
pub enum Ending<K: Kind> {
    /// A newer edit is waiting: nothing is written, since what is wrong will be seen by its run.
    Superseded,
    /// Nothing holds the object any more.
    RemoveFinalizer,
    /// Status says what was found.
    Report(Box<Reported<K>>),
}

/// What status says, and what else is told.
pub struct Reported<K: Kind> {
    /// The status.
    pub status: K::Status,
    /// What decided, if anything failed.
    pub failure: Option<(Class, String)>,
    /// How many alarms are in which state; `None` where that is not known anew.
    pub alarms: Option<Vec<(&'static str, i64)>>,
    /// The reason of `Ready`.
    pub ready: String,
    /// The drift that is told now; `None` where it is not known anew.
    pub told: Option<HashSet<ThingRef>>,
    /// How many differences are told for the first time or were repaired, and how many were repaired.
    pub drifted: (usize, usize),
}

/// Concludes a reconcile.
pub fn conclude<K: Kind>(end: &RunEnd<'_, K>) -> Conclusion<K> {
    let RunEnd {
        object,
        outcome,
        written,
        installation,
        clock,
        ..
    } = end;
    let deleting = object.meta().deletion_timestamp.is_some();
    let made: Vec<Step> = outcome
        .reports()
        .flat_map(|it| it.report.made.clone())
        .collect();
    let repairs = |visit: &VisitReport| {
        let mut made = visit.report.made.iter();
        made.any(|step| visit.report.drift.contains(step))
    };
    let drift = outcome.current().any(repairs);
    let happened = Happened {
        made: &made,
        drift,
        ready_before: None,
        ready_after: None,
        reported: &[],
    };
    let ended = |ending, abandoned| Conclusion {
        requeue: matches!(ending, Ending::Superseded).then_some(SOON),
        label: match ending {
            Ending::Superseded => Class::Superseded.label(),
            _ => "ok",
        },
        ending,
        note: events::note(&happened),
        abandoned,
        progress: !made.is_empty(),
    };
    if outcome.is_superseded() {
        return ended(Ending::Superseded, Vec::new());
    }
    let mut status = K::Status::clone(written);
    let inputs = outcome.inputs.iter().filter_map(|read| read.as_ref().err());
    // What the object refers to says where it acts, where status does not.
    let unread = inputs.map(|error| (String::new(), vec![(None, error)], false));
    let visits = outcome.reports().map(|visit| {
        let failures = visit.failures().collect();
        (visit.place.text.clone(), failures, visit.is_settled())
    });
    let (mut abandoned, mut failures, mut settled) = (Vec::new(), Vec::new(), true);
    for (place, failed, is_settled) in unread.chain(visits) {
        match why_abandoned(end, failed.iter().copied()) {
            Some(why) => abandoned.push((place, why)),
            None => {
                settled &= is_settled;
                failures.extend(failed);
            }
        }
    }
    let is_left =
        |visit: &VisitReport| visit.is_settled() || why_abandoned(end, visit.failures()).is_some();
    for visited in outcome.visits.systems() {
        visited.update_targets(&mut status, &is_left);
    }
    if deleting && settled {
        return ended(Ending::RemoveFinalizer, abandoned);
    }
    let failure = decisive(failures.into_iter());
    let wait = outcome.reports().filter_map(|it| it.report.wait).min();
    let update = if deleting {
        StatusUpdate::default()
    } else {
        if let Ok(JobState {
            progress: Some(progress),
            ..
        }) = &outcome.job
        {
            progress.apply(&mut status);
        }
        object.set_spec_status(&mut status, installation);
        object.report(outcome, &mut status, *clock)
    };
    let StatusUpdate {
        conditions: mut own,
        summary,
        unknown: mut keep,
        progress,
        requeue_after,
        alarms,
    } = update;
    let phase = if deleting {
        let why = failure.as_ref().map(|(_, message)| message.as_str());
        let places = list(&status.places());
        let closing =
            wait.map(|_| "alarms that fire were set to OK, and go once that is delivered");
        let why = why.or(closing).unwrap_or_default();
        let way_out = failure
            .as_ref()
            .and_then(|(class, _)| released_at(end, *class))
            .map(|at| format!("; it lets go by itself at {at}, and at once if spec.deletionPolicy is set to Orphan"))
            .unwrap_or_default();
        Phase::Deleting(format!("cleaning up in {places}: {why}{way_out}"))
    } else {
        Phase::Ran(Sum {
            failure: failure.clone(),
            failing_for: end.failing_for,
            summary,
            progress,
        })
    };
    let found = (!deleting).then(|| find_drift(end, &mut status)).flatten();
    match &found {
        Some(found) => {
            if found.condition.is_none() {
                keep.push("Drifted");
            }
            own.extend(found.condition.clone());
        }
        None => keep.push("Drifted"),
    }
    if !deleting {
        remember_applied(end, &mut status, failure.is_none());
    }
    let known = status.conditions().clone();
    let before = Before {
        conditions: &known,
        generation: object.meta().generation,
        now: clock.now,
    };
    let keep = match &outcome.inputs {
        Some(Ok(_)) => Keep::These(keep),
        _ => Keep::All,
    };
    *status.conditions() = conditions(&before, &phase, own, &keep);
    let common = status.common();
    common.observed_generation = object.meta().generation;
    common.last_handled_reconcile_at = end.requested.clone();

    let mut previous = object.status().cloned().unwrap_or_default();
    let was = api::condition(previous.conditions(), "Ready");
    let is = api::condition(status.conditions(), "Ready");
    let reported = found.as_ref().map_or(&[][..], |found| &found.new);
    let note = events::note(&Happened {
        ready_before: was.map(|ready| (ready.status.as_str(), ready.reason.as_str())),
        ready_after: is.map(|ready| (&*ready.status, &*ready.reason, &*ready.message)),
        reported,
        ..happened
    });
    let ready = is.map_or_else(String::new, |ready| ready.reason.clone());
    // Whoever may abandon something looks again when the time has come.
    let release = deleting.then(|| installation.release_after.max(SOON));
    let due = outcome.job.as_ref().ok().and_then(|job| job.due);
    let due = due.map(|due| Duration::try_from(due.duration_since(clock.now)).unwrap_or_default());
    // What an earlier stage could not make is tried again with that; nobody tries again what waits for other objects.
    let held = Class::Waiting(WaitingOn::Prerequisite);
    let is_held = deleting && failure.as_ref().is_some_and(|(class, _)| *class == held);
    let asked = outcome.failures().filter_map(|(_, error)| error.wait).min();
    let held = asked.or(held.delay(1)).filter(|_| is_held);
    let waits = end.retry.into_iter().chain(requeue_after);
    let waits = waits.chain(wait).chain(held);
    let requeue = waits.chain(due.map(|due| due.max(SOON))).min();
    let requeue = requeue.map(|wait| release.map_or(wait, |release| wait.min(release)));
    let label = failure.as_ref().map_or("ok", |(class, _)| class.label());
    let reported = Reported {
        failure,
        alarms: (deleting || !alarms.is_empty()).then_some(alarms),
        ready,
        drifted: found
            .as_ref()
            .map_or((0, 0), |it| (it.new.len() + it.repaired, it.repaired)),
        told: found.map(|found| found.told),
        status,
    };
    Conclusion {
        ending: Ending::Report(Box::new(reported)),
        note,
        abandoned,
        requeue,
        label,
        progress: !made.is_empty(),
    }
}

/// Why what an object made in a place is abandoned: the object has been deleted for `--release-after`, and what
/// failed there is that nobody is let in; at once, where nobody can be any more. A place that fails or throttles is
/// waited for.
fn why_abandoned<'a, K: Kind>(
    end: &RunEnd<'_, K>,
    failures: impl Iterator<Item = (Option<&'a str>, &'a Error)>,
) -> Option<String> {
    let (class, why) = decisive(failures)?;
    (end.clock.now >= released_at(end, class)?).then_some(why)
}

/// When an object that is being deleted lets go of what it cannot clean up for such a reason; `None` where it does not.
fn released_at<K: Kind>(end: &RunEnd<'_, K>, class: Class) -> Option<Timestamp> {
    let since = end.object.meta().deletion_timestamp.as_ref()?;
    let after = match class {
        Class::Waiting(WaitingOn::Prerequisite) => return None,
        Class::Waiting(WaitingOn::Never) => Duration::ZERO,
        Class::Denied | Class::Waiting(_) => end.installation.release_after,
        _ => return None,
    };
    since.0.checked_add(after).ok()
}

/// What came about outside.
struct FoundDrift {
    /// The condition `Drifted`, if it moves.
    condition: Option<ConditionUpdate>,
    /// What is told for the first time.
    new: Vec<Step>,
    /// All that is told.
    told: HashSet<ThingRef>,
    /// How much was repaired.
    repaired: usize,
}

/// Writes what came about outside into status. What was told before of a system that could not be looked at stands;
/// `None` where none could be.
fn find_drift<K: Kind>(end: &RunEnd<'_, K>, status: &mut K::Status) -> Option<FoundDrift> {
    let current = end.outcome.current();
    let (visits, unseen): (Vec<_>, Vec<_>) = current.partition(|visit| visit.is_seen());
    visits.first()?;
    let reported = visits.iter().flat_map(|visit| {
        let steps = visit.report.reported.iter();
        steps.map(|step| {
            let (system, stage, key) = (visit.system, step.stage, step.key.clone());
            (ThingRef { system, stage, key }, step)
        })
    });
    let reported: Vec<_> = reported.collect();
    let repaired = visits.iter().flat_map(|visit| {
        let made = &visit.report.made;
        visit.report.drift.iter().filter(|step| made.contains(step))
    });
    let repaired: Vec<_> = repaired.collect();
    let common = status.common();
    let complete = visits.iter().all(|visit| visit.is_applied());
    let things = common.applied.as_ref().map(|before| &before.things);
    let edited = complete && (end.outcome.edited || things != Some(&end.outcome.applied));
    // Status lists only the first of them, and this process remembers the others.
    let known = |thing: &ThingRef| {
        let mut listed = common.drift.iter();
        end.told.contains(thing)
            || listed.any(|entry| entry.resource == thing.stage && entry.name == thing.key)
    };
    let new = reported.iter().filter(|(thing, _)| !known(thing));
    let new = new.map(|(_, step)| (*step).clone()).collect();
    let (mut told, left): (HashSet<_>, Vec<_>) = reported.into_iter().unzip();
    let mut all = drift::entries(&left, &common.drift, end.clock.now);
    let is_unseen = |system: &str| unseen.iter().any(|visit| visit.system == system);
    let others = end.told.iter().filter(|thing| is_unseen(thing.system));
    told.extend(others.cloned());
    let stands = |entry: &&DriftEntry| {
        let is = |thing: &&ThingRef| thing.stage == entry.resource && thing.key == entry.name;
        let mut told = end.told.iter().filter(is).peekable();
        // After a restart, what was applied says which system has such things.
        let has = |system| things.is_some_and(|it| it.has_stage(system, &entry.resource));
        let is_others = match told.peek() {
            Some(_) => told.any(|thing| is_unseen(thing.system)),
            None => unseen.iter().any(|visit| has(visit.system)),
        };
        is_others && !all.contains(entry)
    };
    let others: Vec<_> = common.drift.iter().filter(stands).cloned().collect();
    let said = api::condition(&common.conditions, "Drifted");
    let said = said.map(|drifted| drifted.status == "True");
    let is_unknown = match &*others {
        [] => repaired.is_empty() && !unseen.is_empty() && said != Some(true),
        _ => true,
    };
    let is_kept = left.is_empty() && is_unknown;
    all.extend(others);
    (common.drift, common.drift_count) = drift::listed(all);
    let count = repaired.len();
    let drift = Drift {
        left,
        repaired,
        edited,
    };
    let condition = drift::condition(&drift, said == Some(false), end.clock.now);
    Some(FoundDrift {
        condition: condition.filter(|_| !is_kept),
        new,
        told,
        repaired: count,
    })
}

/// Writes what is applied now into status.
fn remember_applied<K: Kind>(end: &RunEnd<'_, K>, status: &mut K::Status, well: bool) {
    let (object, outcome) = (end.object, end.outcome);
    let attempted = outcome.current().any(|visit| visit.applied.is_some());
    let read = matches!(outcome.inputs, Some(Ok(_)));
    if outcome.edited && !attempted && (!read || outcome.current().next().is_some()) {
        kinds::forget_applied(status.common());
    }
    if !read {
        return;
    }
    let mut current = outcome.current().peekable();
    let nowhere = current.peek().is_none();
    let complete = if nowhere {
        well
    } else {
        current.all(VisitReport::is_applied)
    };
    let (common, spec) = (status.common(), spec_digest(object));
    if complete {
        common.applied_digest = Some(spec.clone());
    } else if outcome.edited {
        // Half of what was applied before may be gone.
        common.applied_digest = None;
    }
    if nowhere || outcome.current().any(|visit| visit.applied.is_some()) {
        let things = outcome.applied.clone();
        common.applied = Some(AppliedEntry { spec, things });
    }
}

/// Places, for people.
pub fn list(places: &[TargetView]) -> String {
    let texts: Vec<_> = places.iter().map(|place| place.text.as_str()).collect();
    texts.join("; ")
}

#[cfg(test)]
mod tests;
