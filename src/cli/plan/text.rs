//! A plan for people. Pure.

use super::finding::{Finding, Planned, Tally};
use std::fmt;

/// What would become of one object: a title, and a line or more for each thing; nothing, if there is
/// nothing to say.
pub fn finding(finding: &Finding) -> String {
    let mut lines = Vec::new();
    if finding.suspended {
        lines.push("  suspended: nothing would be done".to_owned());
    }
    if finding.orphaning {
        let left: Vec<_> = finding.left.iter().map(|place| &*place.text).collect();
        lines.push(match left.join("; ").as_str() {
            "" => "  would be let go of: it has made nothing".to_owned(),
            left => {
                format!("  would be let go of (deletionPolicy Orphan): what it made stays ({left})")
            }
        });
    }
    // That stands in the title.
    let mut place = &finding.target;
    for step in &finding.steps {
        if step.target != *place {
            place = &step.target;
            lines.push(format!("  in {}:", place.text));
        }
        lines.push(planned(step));
    }
    for wait in &finding.waits {
        let name = named(wait.name.as_deref(), " ");
        lines.push(format!("  … {name}waits for: {}", wait.message));
    }
    for problem in &finding.problems {
        let name = named(problem.name.as_deref(), ": ");
        lines.push(format!("  ? {name}{}", problem.message));
    }
    if lines.is_empty() {
        return String::new();
    }
    let place = match &*finding.target.text {
        "" => String::new(),
        place => format!("  ({place})"),
    };
    let going = if finding.deleting {
        "  being deleted"
    } else {
        ""
    };
    format!("{}{place}{going}\n{}\n\n", finding.key, lines.join("\n"))
}

fn named(name: Option<&str>, separator: &str) -> String {
    name.map(|name| format!("{name}{separator}"))
        .unwrap_or_default()
}

fn planned(planned: &Planned) -> String {
    let text = planned.step.to_string();
    let mut lines: Vec<_> = text.lines().map(|line| format!("  {line}")).collect();
    let becomes = match (planned.drift, planned.repaired) {
        (false, _) => return lines.join("\n"),
        (true, true) => "would be repaired",
        (true, false) => "would only be reported (driftPolicy Report)",
    };
    let drift = format!("      came about outside since it was applied: {becomes}");
    lines.insert(1.min(lines.len()), drift);
    lines.join("\n")
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.objects == 1 { "" } else { "s" };
        let more = [
            (self.reported, "only reported"),
            (self.suspended, "suspended"),
            (self.orphaning, "let go of"),
        ];
        let more = more.iter().filter(|(count, _)| *count > 0);
        let more = more.map(|(count, what)| format!("{count} {what}"));
        let more = more.collect::<Vec<_>>().join(", ");
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
            self.create, self.update, self.delete, self.conflict
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
        super::finding::tests::{carried, key, place, planned, problem, suspended},
        *,
    };
    use crate::{
        api::DriftPolicy,
        engine::{
            error::{Class, WaitingOn},
            plan::Verb,
        },
    };

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
        assert_eq!(
            finding(&suspended("golden")),
            "AlarmSet vsu/golden\n  suspended: nothing would be done\n\n"
        );
        let gone = vec![place("1"), place("2")];
        assert_eq!(
            finding(&Finding::orphaning(key("golden"), gone)),
            "AlarmSet vsu/golden  (account 1, us-east-2)  being deleted\n  would be let go of (deletionPolicy Orphan): what it made stays (account 1, us-east-2; account 2, us-east-2)\n\n"
        );
        let mut waiting = carried(vec![]);
        waiting.waits = problem(
            Class::Waiting(WaitingOn::Secret),
            "Secret a/b does not exist",
        )
        .waits;
        waiting.problems = problem(Class::Invalid, "no").problems;
        assert_eq!(
            finding(&waiting),
            "AlarmSet vsu/golden  (account 222233334444, us-east-2)\n  … waits for: Secret a/b does not exist\n  ? no\n\n"
        );
    }

    #[test]
    fn a_place_that_was_left_is_named() {
        let mut moved = carried(vec![(Verb::Create, None)]);
        moved.steps.push(planned(Verb::Delete, None, "1"));
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
        let suspended = || suspended("x");
        let reported = || carried(vec![(Verb::Update, Some(DriftPolicy::Report))]);
        let wait = || problem(Class::Waiting(WaitingOn::Secret), "no");
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
