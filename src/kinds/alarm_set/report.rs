//! From what came of an AlarmSet to its status. Pure.

use super::desired::{Existing, Member, Wanted};
use crate::{
    api::{AlarmCounts, AlarmEntry, AlarmState},
    engine::{
        error::{Class, Error},
        plan::{Owner, Value},
        rendering::{Step, shorten},
    },
};
use std::collections::BTreeMap;

/// The most alarms that a status lists.
const LISTED: usize = 100;

/// The longest message of an entry, in bytes.
const MESSAGE: usize = 512;

/// What status says about the alarms.
#[derive(Debug, PartialEq)]
pub struct Listing {
    /// Over all alarms.
    pub counts: AlarmCounts,
    /// The bad ones first.
    pub entries: Vec<AlarmEntry>,
    /// How many are not listed.
    pub omitted: Option<i32>,
}

/// The listing of `wanted`, given what CloudWatch has, what failed, and what differs and is left as it is.
pub fn listing(
    wanted: &Wanted,
    seen: &Existing,
    failures: &BTreeMap<&String, &Error>,
    drifted: &BTreeMap<String, Step>,
) -> Listing {
    let mut counts = AlarmCounts::default();
    let mut entries: Vec<_> = wanted
        .members
        .iter()
        .map(|(name, member)| {
            let found = seen.get(name).filter(|found| found.owner == Owner::Us);
            let as_asked = match (wanted.alarms.wanted.get(name), found) {
                (Some(want), Some(found)) => want.is_satisfied_by(&found.value),
                _ => false,
            };
            let failure = failures.get(name).copied();
            let live = found.map(|found| &found.live);
            counts.desired += 1;
            counts.applied += i32::from(as_asked);
            counts.firing += i32::from(live.is_some_and(|live| live.state == AlarmState::Alarm));
            counts.no_data +=
                i32::from(live.is_some_and(|live| live.state == AlarmState::InsufficientData));
            let foreign = failure.is_some_and(|error| error.class == Class::Conflict);
            counts.foreign += i32::from(foreign);
            counts.failed += i32::from(failure.is_some() && !foreign);
            let drift = drifted.get(name);
            let firing = live
                .filter(|live| live.state == AlarmState::Alarm)
                .map(|live| live.reason.clone());
            let entry = AlarmEntry {
                name: member.alarm.clone(),
                environment: member.environment.clone(),
                state: live.map(|live| live.state),
                since: live.and_then(|live| live.since).map(|at| at.to_string()),
                reason: failure
                    .map(|error| reason(error).to_owned())
                    .or_else(|| drift.map(|_| "Drifted".to_owned())),
                message: failure
                    .map(|error| error.message.clone())
                    .or_else(|| drift.map(|step| step.difference()))
                    .or(firing)
                    .map(|text| shorten(&text, MESSAGE)),
            };
            (rank(member, &entry), entry)
        })
        .collect();
    entries.sort_by(|(one, _), (other, _)| one.cmp(other));
    let omitted = entries.len().saturating_sub(LISTED);
    Listing {
        counts,
        entries: entries
            .into_iter()
            .take(LISTED)
            .map(|(_, entry)| entry)
            .collect(),
        omitted: (omitted > 0).then_some(i32::try_from(omitted).unwrap_or(i32::MAX)),
    }
}

/// The bad ones first: what fires, the worst first; what failed; what has no data; the rest by name.
fn rank(member: &Member, entry: &AlarmEntry) -> impl Ord + use<> {
    let badness = match entry.state {
        Some(AlarmState::Alarm) => 0,
        _ if entry.reason.is_some() => 1,
        None => 2,
        Some(AlarmState::InsufficientData) => 3,
        Some(AlarmState::Ok) => 4,
    };
    let severity = (badness == 0).then_some(member.severity);
    (badness, severity, member.clone())
}

fn reason(error: &Error) -> &'static str {
    match error.class {
        Class::Invalid => "Invalid",
        Class::Rejected => "Rejected",
        Class::Conflict => "Conflict",
        Class::Denied => "AccessDenied",
        Class::Throttled => "Throttled",
        Class::Waiting(_) => "Waiting",
        Class::Unavailable | Class::OutcomeUnknown | Class::Superseded => "Failing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::Severity,
        engine::plan::Found,
        kinds::alarm_set::{
            desired::{Configuration, Live},
            tags::TagsInEvents,
        },
    };

    fn configuration() -> Configuration {
        Configuration {
            description: String::new(),
            namespace: "N".into(),
            metric_name: "m".into(),
            dimensions: BTreeMap::new(),
            statistic: super::super::desired::Statistic::parse("Sum"),
            period: 60,
            evaluation_periods: 1,
            datapoints_to_alarm: 1,
            comparison_operator: "GreaterThanThreshold".into(),
            threshold: Some(1.0),
            treat_missing_data: "missing".into(),
            actions_enabled: true,
            alarm_actions: Default::default(),
            ok_actions: Default::default(),
            insufficient_data_actions: Default::default(),
            tags_in_events: TagsInEvents::ours(),
            state: None,
            foreign_fields: vec![],
        }
    }

    fn add(
        wanted: &mut Wanted,
        seen: &mut Existing,
        name: &str,
        severity: Severity,
        state: Option<AlarmState>,
        owner: Owner,
    ) {
        wanted.members.insert(
            name.into(),
            Member {
                alarm: name.into(),
                environment: None,
                severity,
            },
        );
        wanted.alarms.wanted.insert(name.into(), configuration());
        if let Some(state) = state {
            let live = Live {
                state,
                since: None,
                reason: format!("{name} crossed"),
            };
            seen.insert(
                name.into(),
                Found {
                    id: (),
                    value: configuration(),
                    owner,
                    live,
                },
            );
        }
    }

    #[test]
    fn the_bad_ones_come_first_and_are_counted() {
        let (mut wanted, mut seen) = (Wanted::default(), Existing::new());
        use AlarmState::{Alarm, InsufficientData, Ok};
        add(
            &mut wanted,
            &mut seen,
            "a-ok",
            Severity::Critical,
            Some(Ok),
            Owner::Us,
        );
        add(
            &mut wanted,
            &mut seen,
            "b-nodata",
            Severity::Critical,
            Some(InsufficientData),
            Owner::Us,
        );
        add(
            &mut wanted,
            &mut seen,
            "c-failed",
            Severity::Info,
            None,
            Owner::Us,
        );
        add(
            &mut wanted,
            &mut seen,
            "d-foreign",
            Severity::Info,
            Some(Alarm),
            Owner::Nobody,
        );
        add(
            &mut wanted,
            &mut seen,
            "e-info",
            Severity::Info,
            Some(Alarm),
            Owner::Us,
        );
        add(
            &mut wanted,
            &mut seen,
            "f-critical",
            Severity::Critical,
            Some(Alarm),
            Owner::Us,
        );
        let failures = [
            ("c-failed".to_owned(), Error::new(Class::Rejected, "why")),
            ("d-foreign".to_owned(), Error::new(Class::Conflict, "why")),
        ];
        let failures = failures.iter().map(|(name, error)| (name, error)).collect();
        let listing = listing(&wanted, &seen, &failures, &BTreeMap::new());
        assert_eq!(
            listing.counts,
            AlarmCounts {
                desired: 6,
                applied: 4,
                firing: 2,
                no_data: 1,
                failed: 1,
                foreign: 1
            }
        );
        let shown: Vec<_> = listing
            .entries
            .iter()
            .map(|entry| entry.name.as_str())
            .collect();
        assert_eq!(
            shown,
            [
                "f-critical",
                "e-info",
                "c-failed",
                "d-foreign",
                "b-nodata",
                "a-ok"
            ]
        );
        assert_eq!(
            listing.entries[0].message.as_deref(),
            Some("f-critical crossed")
        );
        assert_eq!(
            listing.entries[3].state, None,
            "a foreign alarm's state is not ours to report"
        );
        assert_eq!(listing.omitted, None);
    }

    #[test]
    fn a_hundred_are_listed_and_the_rest_counted() {
        let (mut wanted, mut seen) = (Wanted::default(), Existing::new());
        for n in 0..150 {
            add(
                &mut wanted,
                &mut seen,
                &format!("a{n:03}"),
                Severity::Info,
                Some(AlarmState::Ok),
                Owner::Us,
            );
        }
        add(
            &mut wanted,
            &mut seen,
            "z",
            Severity::Info,
            Some(AlarmState::Alarm),
            Owner::Us,
        );
        let listing = listing(&wanted, &seen, &BTreeMap::new(), &BTreeMap::new());
        assert_eq!(
            (
                listing.entries.len(),
                listing.omitted,
                listing.counts.desired
            ),
            (100, Some(51), 151)
        );
        assert_eq!(listing.entries[0].name, "z");
    }
}
