//! The roll-up: is the tenant well? Pure. The first match wins; the README lists them in this order.

use crate::{
    api::{self, AlarmCounts, AlarmSet, AlarmState, Health, Severity, TreatMissingData},
    engine::rendering::few,
};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

/// How many alarms or problems are named.
const NAMED: usize = 5;

/// How long an alarm may be without data before that counts: a new alarm has none for some minutes.
const NO_DATA_GRACE: SignedDuration = SignedDuration::from_mins(15);

/// What the roll-up says, and why.
#[derive(Debug, PartialEq)]
pub struct RollUp {
    /// In a word.
    pub health: Health,
    /// Over all AlarmSets.
    pub counts: AlarmCounts,
    /// `1/16 firing`.
    pub summary: String,
    /// For people: what fires, or what is not in place.
    pub message: String,
    /// In how long it may say something else though nothing happens.
    pub requeue_after: Option<SignedDuration>,
}

/// The roll-up over a tenant's AlarmSets and what is wrong with the tenant itself.
/// `stale`: the account has not been read for so long that nobody knows.
pub fn roll_up(sets: &[AlarmSet], problems: &[String], stale: bool, now: Timestamp) -> RollUp {
    let mut counts = AlarmCounts::default();
    let (mut unread, mut firing, mut problems) = (Vec::new(), Vec::new(), problems.to_vec());
    let (mut suspended, mut requeue_after) = (Vec::new(), None::<SignedDuration>);
    for set in sets {
        if set.spec.suspend {
            suspended.push(set.name_any());
        }
        let Some((status, sums)) = set
            .status
            .as_ref()
            .and_then(|status| Some((status, status.counts?)))
        else {
            unread.push(set.name_any());
            continue;
        };
        counts += sums;
        let ready = api::condition(&status.common.conditions, "Ready");
        if let Some(ready) = ready.filter(|ready| ready.status == "False") {
            problems.push(format!("AlarmSet {}: {}", set.name_any(), ready.reason));
        }
        for entry in &status.alarms {
            let spec = set
                .spec
                .alarms
                .iter()
                .find(|alarm| alarm.name == entry.name);
            let place = entry
                .environment
                .as_ref()
                .map(|name| format!(" in {name}"))
                .unwrap_or_default();
            let shown = format!("{}/{}{place}", set.name_any(), entry.name);
            match entry.state {
                Some(AlarmState::Alarm)
                    if spec.is_none_or(|alarm| alarm.severity != Severity::Info) =>
                {
                    firing.push(shown);
                }
                Some(AlarmState::InsufficientData)
                    if spec.is_none_or(|alarm| {
                        alarm.treat_missing_data != Some(TreatMissingData::NotBreaching)
                    }) =>
                {
                    let since = entry.since.as_deref().unwrap_or_default();
                    // Without a time it is so new that we know of it only from our own write.
                    let Ok(at) = since.parse::<Timestamp>() else {
                        continue;
                    };
                    let left = NO_DATA_GRACE - now.duration_since(at);
                    if left.is_negative() {
                        problems.push(format!("{shown} has had no data since {since}"));
                    } else {
                        requeue_after = Some(requeue_after.map_or(left, |after| after.min(left)));
                    }
                }
                _ => {}
            }
        }
    }
    let summary = match counts.desired {
        0 if unread.is_empty() => "no alarms".to_owned(),
        0 => "not read".to_owned(),
        all => format!("{}/{all} firing", counts.firing),
    };
    let (health, message) = if stale {
        let message = "the tenant's account has not been read lately".to_owned();
        (Health::Unknown, message)
    } else if !unread.is_empty() {
        let unread = unread.join(", ");
        let why = problems
            .first()
            .map(|first| format!("; {first}"))
            .unwrap_or_default();
        let message = format!("the alarms of AlarmSet {unread} have not been read lately{why}");
        (Health::Unknown, message)
    } else if !firing.is_empty() {
        let others = match problems.len() {
            0 => String::new(),
            1 => "; 1 other problem".to_owned(),
            n => format!("; {n} other problems"),
        };
        (
            Health::Alarming,
            format!(
                "{summary}: {}{others}",
                few(firing.into_iter(), NAMED, ", ")
            ),
        )
    } else if !problems.is_empty() {
        (Health::Degraded, few(problems.into_iter(), NAMED, ", "))
    } else {
        (Health::Healthy, summary.clone())
    };
    let message = if suspended.is_empty() {
        message
    } else {
        // What was read last stands, and may be old.
        format!("{message} (suspended: AlarmSet {})", suspended.join(", "))
    };
    RollUp {
        health,
        counts,
        summary,
        message,
        requeue_after,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: &str = "2026-11-21T12:00:00Z";

    /// A set with one alarm per (severity, state, treatMissingData, since).
    fn set(reason: &str, alarms: &[(&str, &str, Value, &str)]) -> AlarmSet {
        let count = |state: &str| alarms.iter().filter(|alarm| alarm.1 == state).count();
        let specs: Vec<_> = alarms
            .iter()
            .enumerate()
            .map(|(n, (severity, _, treat, _))| {
                json!({"name": format!("a{n}"), "severity": severity, "namespace": "N", "metricName": "m",
                "statistic": "Sum", "period": 60, "evaluationPeriods": 1, "threshold": 1,
                "comparisonOperator": "GreaterThanThreshold", "treatMissingData": treat})
            })
            .collect();
        let entries: Vec<_> = alarms
            .iter()
            .enumerate()
            .map(|(n, (_, state, _, since))| json!({"name": format!("a{n}"), "state": state, "since": since}))
            .collect();
        serde_json::from_value(json!({
            "apiVersion": "campanile.dev/v1alpha1", "kind": "AlarmSet", "metadata": {"name": "golden", "namespace": "vsu"},
            "spec": {"tenantRef": {"name": "vsu"}, "alarms": specs},
            "status": {
                "counts": {"desired": alarms.len(), "applied": alarms.len(), "firing": count("ALARM"), "noData": count("INSUFFICIENT_DATA"), "failed": 0, "foreign": 0},
                "alarms": entries,
                "conditions": [{"type": "Ready", "status": if reason == "Applied" { "True" } else { "False" }, "reason": reason, "message": "", "lastTransitionTime": NOW}]
            }
        }))
        .unwrap()
    }

    fn check(sets: &[AlarmSet], problems: &[&str], health: Health, summary: &str, message: &str) {
        let problems: Vec<_> = problems.iter().map(|text| (*text).to_owned()).collect();
        let rolled = roll_up(sets, &problems, false, NOW.parse().unwrap());
        assert_eq!(
            (
                rolled.health,
                rolled.summary.as_str(),
                rolled.message.as_str()
            ),
            (health, summary, message)
        );
    }

    #[test]
    fn first_match_wins() {
        let ok = ("critical", "OK", Value::Null, NOW);
        let fires = |severity| (severity, "ALARM", Value::Null, NOW);
        let silent = |treat: Value, since| ("warning", "INSUFFICIENT_DATA", treat, since);
        let (old, fresh) = ("2026-11-21T11:00:00Z", "2026-11-21T11:50:00Z");
        let mut unread = set("Applied", std::slice::from_ref(&ok));
        unread.status = None;

        check(&[], &[], Health::Healthy, "no alarms", "no alarms");
        let fires_and_stale = [set("Applied", &[fires("critical")])];
        let stale = roll_up(&fires_and_stale, &[], true, NOW.parse().unwrap());
        assert_eq!(stale.health, Health::Unknown, "nobody knows any more");
        check(
            std::slice::from_ref(&unread),
            &[],
            Health::Unknown,
            "not read",
            "the alarms of AlarmSet golden have not been read lately",
        );
        check(
            &[set("Applied", &[ok.clone(), ok.clone()])],
            &[],
            Health::Healthy,
            "0/2 firing",
            "0/2 firing",
        );
        check(
            &[unread, set("Applied", &[fires("critical")])],
            &[],
            Health::Unknown,
            "1/1 firing",
            "the alarms of AlarmSet golden have not been read lately",
        );
        check(
            &[set("SystemUnavailable", &[fires("critical")])],
            &[],
            Health::Alarming,
            "1/1 firing",
            "1/1 firing: golden/a0; 1 other problem",
        );
        check(
            &[set("Applied", &[ok.clone(), fires("warning")])],
            &["topic is foreign"],
            Health::Alarming,
            "1/2 firing",
            "1/2 firing: golden/a1; 1 other problem",
        );
        check(
            &[set("Applied", &[fires("info")])],
            &[],
            Health::Healthy,
            "1/1 firing",
            "1/1 firing",
        );
        check(
            &[set("PartiallyFailed", std::slice::from_ref(&ok))],
            &[],
            Health::Degraded,
            "0/1 firing",
            "AlarmSet golden: PartiallyFailed",
        );
        check(&[], &["a", "b"], Health::Degraded, "no alarms", "a, b");
        check(
            &[set("Applied", &[silent(Value::Null, old)])],
            &[],
            Health::Degraded,
            "0/1 firing",
            &format!("golden/a0 has had no data since {old}"),
        );
        check(
            &[set("Applied", &[silent(Value::Null, fresh)])],
            &[],
            Health::Healthy,
            "0/1 firing",
            "0/1 firing",
        );
        check(
            &[set("Applied", &[silent(json!("notBreaching"), old)])],
            &[],
            Health::Healthy,
            "0/1 firing",
            "0/1 firing",
        );
    }

    /// Nothing happens when an alarm has been without data for too long, so the roll-up says when to ask it again.
    #[test]
    fn it_says_when_it_will_have_been_too_long_without_data() {
        let silent = |severity, treat: Value, since| (severity, "INSUFFICIENT_DATA", treat, since);
        let missing = || Value::Null;
        let sets = [
            set(
                "Applied",
                &[
                    silent("warning", missing(), "2026-11-21T11:50:00Z"),
                    silent("info", missing(), "2026-11-21T11:47:30Z"),
                    silent("critical", json!("notBreaching"), "2026-11-21T11:46:00Z"),
                ],
            ),
            set(
                "Applied",
                &[("critical", "OK", missing(), "2026-11-21T11:45:30Z")],
            ),
        ];
        let at = |time: &str| roll_up(&sets, &[], false, time.parse().unwrap());
        let now = at(NOW);
        assert_eq!(now.health, Health::Healthy);
        assert_eq!(
            now.requeue_after,
            Some(SignedDuration::from_secs(150)),
            "the first of them"
        );
        // Whoever asks in time is told to wait for the rest of it, and one second later it counts.
        let due = at("2026-11-21T12:02:30Z");
        assert_eq!(
            (due.health, due.requeue_after),
            (Health::Healthy, Some(SignedDuration::ZERO))
        );
        let late = at("2026-11-21T12:02:31Z");
        assert_eq!(late.health, Health::Degraded);
        assert_eq!(
            late.message,
            "golden/a1 has had no data since 2026-11-21T11:47:30Z"
        );
        assert_eq!(
            late.requeue_after,
            Some(SignedDuration::from_secs(149)),
            "the next of them"
        );
        let all = at("2026-11-21T12:05:01Z");
        assert_eq!((all.health, all.requeue_after), (Health::Degraded, None));
    }
}
