//! A plan for people. Pure.

use super::finding::{Fate, Finding, Planned, Tally};
use crate::{api::DriftPolicy, engine::plan::Verb};
use std::fmt;

/// What would become of one object: a title, and a line or more for each thing; nothing, if there is
/// nothing to say.
pub fn finding(finding: &Finding) -> String {
    let mut lines = Vec::new();
    match &finding.fate {
        Fate::Suspended => lines.push("  suspended: nothing would be done".to_owned()),
        Fate::LetGo(spots) if spots.is_empty() => {
            lines.push("  would be let go of: it has made nothing".to_owned());
        }
        Fate::LetGo(spots) => {
            let places: Vec<_> = spots.iter().map(|spot| spot.text.as_str()).collect();
            lines.push(format!(
                "  would be let go of (deletionPolicy Orphan): what it made stays ({})",
                places.join("; ")
            ));
        }
        Fate::Carried(places) => {
            for (number, place) in places.iter().enumerate() {
                // The first one stands in the title.
                if number > 0 && !place.steps.is_empty() {
                    lines.push(format!("  in {}:", place.spot.text));
                }
                lines.extend(place.steps.iter().map(planned));
            }
        }
    }
    for wait in &finding.waits {
        let name = named(wait.name.as_deref(), " ");
        lines.push(format!("  … {name}waits for: {}", wait.message));
    }
    for problem in &finding.problems {
        let name = named(problem.name.as_deref(), ": ");
        lines.push(format!("  ? {name}{}", problem.error.message));
    }
    if lines.is_empty() {
        return String::new();
    }
    let place = finding.spot().map(|spot| format!("  ({})", spot.text));
    let going = if finding.deleting {
        "  being deleted"
    } else {
        ""
    };
    format!(
        "{} {}/{}{}{going}\n{}\n\n",
        finding.key.kind,
        finding.key.namespace,
        finding.key.name,
        place.unwrap_or_default(),
        lines.join("\n")
    )
}

fn named(name: Option<&str>, separator: &str) -> String {
    name.map(|name| format!("{name}{separator}"))
        .unwrap_or_default()
}

fn planned(planned: &Planned) -> String {
    let text = planned.step.to_string();
    let mut lines: Vec<_> = text.lines().map(|line| format!("  {line}")).collect();
    let becomes = match planned.drift {
        None => return lines.join("\n"),
        Some(DriftPolicy::Repair) => "would be repaired",
        Some(DriftPolicy::Report) => "would only be reported (driftPolicy Report)",
    };
    let drift = format!("      came about outside since it was applied: {becomes}");
    lines.insert(1.min(lines.len()), drift);
    lines.join("\n")
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.objects == 1 { "" } else { "s" };
        let mut more = Vec::new();
        if self.reported > 0 {
            more.push(format!("{} only reported", self.reported));
        }
        if self.suspended > 0 {
            more.push(format!("{} suspended", self.suspended));
        }
        if self.remove_finalizer > 0 {
            more.push(format!("{} let go of", self.remove_finalizer));
        }
        let more = more.join(", ");
        if self.exit_code() == 0 {
            return match (self.objects, more.as_str()) {
                (0, _) => f.write_str("There are no objects here."),
                (1, "") => f.write_str("Nothing would change: 1 object is as declared."),
                (n, "") => write!(f, "Nothing would change: {n} objects are as declared."),
                (n, more) => write!(f, "Nothing would change in {n} object{plural}: {more}."),
            };
        }
        write!(
            f,
            "{} to create, {} to change, {} to delete, {} in conflict, ",
            self.count(Verb::Create),
            self.count(Verb::Update),
            self.count(Verb::Delete),
            self.count(Verb::Conflict)
        )?;
        if self.waits > 0 {
            write!(f, "{} to wait, ", self.waits)?;
        }
        if !more.is_empty() {
            write!(f, "{more}, ")?;
        }
        write!(
            f,
            "{} problems in {} object{plural}.",
            self.problems, self.objects
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::finding::{
            Place,
            tests::{carried, key, spot, step},
        },
        *,
    };
    use crate::engine::error::{Class, Error, On};

    #[test]
    fn what_would_be_done_is_told() {
        let told = finding(&carried(vec![
            (Verb::Create, None),
            (Verb::Update, Some(DriftPolicy::Repair)),
            (Verb::Delete, Some(DriftPolicy::Report)),
            (Verb::Conflict, None),
        ]));
        assert_eq!(
            told,
            "AlarmSet vsu/golden  (account 222233334444, us-east-2)
  + alarm a
      threshold: 2
  ~ alarm a
      came about outside since it was applied: would be repaired
      threshold: 1 → 2
  - alarm a
      came about outside since it was applied: would only be reported (driftPolicy Report)
  ! alarm a
      not touched: it is held by somebody

"
        );
        assert_eq!(finding(&carried(vec![])), "");
    }

    #[test]
    fn what_would_not_be_done_is_told() {
        let suspended = Finding::of(key("golden"), false, Fate::Suspended);
        assert_eq!(
            finding(&suspended),
            "AlarmSet vsu/golden\n  suspended: nothing would be done\n\n"
        );
        let gone = Fate::LetGo(vec![spot("1"), spot("2")]);
        assert_eq!(
            finding(&Finding::of(key("golden"), true, gone)),
            "AlarmSet vsu/golden  (account 1, us-east-2)  being deleted\n  would be let go of (deletionPolicy Orphan): what it made stays (account 1, us-east-2; account 2, us-east-2)\n\n"
        );
        let mut waiting = carried(vec![]);
        waiting.waits = Finding::problem(
            key("x"),
            Error::new(Class::Waiting(On::Secret), "Secret a/b does not exist"),
        )
        .waits;
        waiting.problems = Finding::problem(key("x"), Error::invalid("no")).problems;
        assert_eq!(
            finding(&waiting),
            "AlarmSet vsu/golden  (account 222233334444, us-east-2)\n  … waits for: Secret a/b does not exist\n  ? no\n\n"
        );
    }

    #[test]
    fn a_place_that_was_left_is_named() {
        let mut moved = carried(vec![(Verb::Create, None)]);
        let left = Planned {
            step: step(Verb::Delete, "a"),
            drift: None,
        };
        if let Fate::Carried(places) = &mut moved.fate {
            places.push(Place {
                spot: spot("1"),
                steps: vec![left],
            });
        }
        let told = finding(&moved);
        assert!(
            told.contains("\n  in account 1, us-east-2:\n  - alarm a\n"),
            "{told}"
        );
    }

    #[test]
    fn the_last_line_sums_up() {
        let sum = |findings: &[Finding]| {
            let mut tally = Tally::default();
            findings.iter().for_each(|finding| tally.add(finding));
            tally.to_string()
        };
        let nothing = || carried(vec![]);
        let suspended = || Finding::of(key("x"), false, Fate::Suspended);
        let reported = || carried(vec![(Verb::Update, Some(DriftPolicy::Report))]);
        let wait = || Finding::problem(key("x"), Error::new(Class::Waiting(On::Secret), "no"));
        assert_eq!(sum(&[]), "There are no objects here.");
        assert_eq!(
            sum(&[nothing()]),
            "Nothing would change: 1 object is as declared."
        );
        assert_eq!(
            sum(&[nothing(), nothing()]),
            "Nothing would change: 2 objects are as declared."
        );
        assert_eq!(
            sum(&[suspended(), reported()]),
            "Nothing would change in 2 objects: 1 only reported, 1 suspended."
        );
        let changes = || carried(vec![(Verb::Create, None), (Verb::Delete, None)]);
        assert_eq!(
            sum(&[changes()]),
            "1 to create, 0 to change, 1 to delete, 0 in conflict, 0 problems in 1 object."
        );
        assert_eq!(
            sum(&[changes(), suspended(), wait()]),
            "1 to create, 0 to change, 1 to delete, 0 in conflict, 1 to wait, 1 suspended, 0 problems in 3 objects."
        );
    }
}
