//! `status.drift` and the condition `Drifted`. Pure; what is drift is found in [`crate::engine::stage`].

use crate::{
    api::{DriftChange, DriftEntry},
    engine::{
        plan::Verb,
        rendering::{Step, few, shorten},
    },
    kinds::ConditionUpdate,
};
use jiff::Timestamp;

/// The most entries that a status lists.
const LISTED: usize = 20;

/// How many things a condition names.
const TOLD: usize = 5;

/// The longest text of a field, in bytes.
const TEXT: usize = 256;

/// What a run found of drift.
#[derive(Debug, Default)]
pub struct Drift<'a> {
    /// What was left as it is.
    pub left: Vec<&'a Step>,
    /// What was repaired.
    pub repaired: Vec<&'a Step>,
    /// Whether something else is wanted than before, so that what was said is of no interest any more.
    pub edited: bool,
}

/// All of what was left, each since it was noticed first: an entry per field.
pub fn entries(left: &[&Step], before: &[DriftEntry], now: Timestamp) -> Vec<DriftEntry> {
    let mut all: Vec<_> = left.iter().flat_map(|step| of(step)).collect();
    for entry in &mut all {
        let same = |known: &&DriftEntry| {
            (known.change, &known.resource, &known.name, &known.field)
                == (entry.change, &entry.resource, &entry.name, &entry.field)
        };
        let since = before.iter().find(same).map(|known| known.since.clone());
        // To the second: it says when it was noticed, and that is not better known.
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        entry.since = since.unwrap_or_else(|| now.to_string());
    }
    all
}

/// As many as status lists, and how many there are.
pub fn listed(mut all: Vec<DriftEntry>) -> (Vec<DriftEntry>, Option<i32>) {
    let count = i32::try_from(all.len()).unwrap_or(i32::MAX);
    all.truncate(LISTED);
    (all, (count > 0).then_some(count))
}

fn of(step: &Step) -> Vec<DriftEntry> {
    let entry = |change, field, wanted, found| DriftEntry {
        resource: step.stage.to_owned(),
        name: step.key.clone(),
        change,
        field,
        wanted,
        found,
        since: String::new(),
    };
    match step.verb {
        Verb::Create => vec![entry(DriftChange::Missing, None, None, None)],
        Verb::Delete => vec![entry(DriftChange::Unexpected, None, None, None)],
        Verb::Update => {
            let fields = step.fields.iter().map(|field| {
                let from = field.from.clone().unwrap_or_default();
                entry(
                    DriftChange::Changed,
                    Some(field.name.to_string()),
                    Some(shorten(&field.to, TEXT)),
                    Some(shorten(&from, TEXT)),
                )
            });
            fields.collect()
        }
        Verb::Conflict => Vec::new(),
    }
}

/// The condition `Drifted`; `None` where it stays as it is. `stands`: it says already that nothing differs.
pub fn condition(drift: &Drift<'_>, stands: bool, now: Timestamp) -> Option<ConditionUpdate> {
    let say = |holds: bool, reason, message: String| {
        Some(ConditionUpdate::new("Drifted", holds, reason, message))
    };
    if !drift.left.is_empty() {
        let message = format!(
            "differs outside and is left as it is (driftPolicy Report): {}",
            told(&drift.left)
        );
        return say(true, "DriftReported", message);
    }
    if !drift.repaired.is_empty() {
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let message = format!("repaired at {now}: {}", told(&drift.repaired));
        return say(false, "DriftRepaired", message);
    }
    if stands && !drift.edited {
        return None;
    }
    say(false, "AsApplied", String::new())
}

/// `alarm x: threshold was 8000, wanted 5000; topic y was missing`.
fn told(steps: &[&Step]) -> String {
    few(steps.iter().map(|step| step.difference()), TOLD, "; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rendering;

    fn step(verb: Verb, key: &str, fields: &[(&'static str, &str, &str)]) -> Step {
        rendering::tests::step(verb, "alarm", key, fields)
    }

    #[test]
    fn since_is_when_it_was_noticed_first() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let (changed, missing) = (
            step(Verb::Update, "a", &[("threshold", "8", "5")]),
            step(Verb::Create, "b", &[]),
        );
        let first = entries(&[&changed], &[], at(100));
        assert_eq!(first[0].since, at(100).to_string());
        assert_eq!(
            (first[0].found.as_deref(), first[0].wanted.as_deref()),
            (Some("8"), Some("5"))
        );
        let then = entries(&[&changed, &missing], &first, at(200));
        let since: Vec<_> = then.iter().map(|entry| entry.since.clone()).collect();
        assert_eq!(since, [at(100).to_string(), at(200).to_string()]);
        assert_eq!(then[1].change, DriftChange::Missing);
    }

    #[test]
    fn twenty_are_listed_and_all_are_counted() {
        let steps: Vec<_> = (0..30)
            .map(|n| step(Verb::Create, &n.to_string(), &[]))
            .collect();
        let steps: Vec<_> = steps.iter().collect();
        let (list, count) = listed(entries(&steps, &[], Timestamp::UNIX_EPOCH));
        assert_eq!((list.len(), count), (20, Some(30)));
        assert_eq!(listed(Vec::new()), (Vec::new(), None));
    }

    #[test]
    fn the_condition_says_what_and_what_was_done() {
        let changed = step(Verb::Update, "a", &[("threshold", "8", "5")]);
        let now = Timestamp::from_second(0).unwrap();
        let say = |drift: &Drift<'_>, stands| {
            condition(drift, stands, now)
                .map(|update| (update.holds, update.reason, update.message))
        };
        let left = Drift {
            left: vec![&changed],
            ..Drift::default()
        };
        let (holds, reason, message) = say(&left, true).unwrap();
        assert_eq!((holds, reason), (Some(true), "DriftReported"));
        assert!(
            message.contains("alarm a: threshold was 8, wanted 5"),
            "{message}"
        );
        let repaired = Drift {
            repaired: vec![&changed],
            ..Drift::default()
        };
        let (holds, reason, message) = say(&repaired, true).unwrap();
        assert_eq!((holds, reason), (Some(false), "DriftRepaired"));
        assert!(
            message.starts_with("repaired at 1970-01-01T00:00:00Z: alarm a"),
            "{message}"
        );
        assert_eq!(
            say(&Drift::default(), true),
            None,
            "nothing moves without a change"
        );
        let edited = Drift {
            edited: true,
            ..Drift::default()
        };
        assert_eq!(say(&edited, true).unwrap().1, "AsApplied");
        assert_eq!(say(&Drift::default(), false).unwrap().1, "AsApplied");
    }
}
