//! What would become of one object, and of all of them together. Pure.

use crate::{
    api::DriftPolicy,
    engine::{
        error::{Class, Error, On},
        plan::Verb,
        rendering::Step,
    },
    kinds::{Kind, Outcome, TargetView, cluster_view::ObjectKey},
};
use std::collections::{BTreeMap, BTreeSet};

/// What would become of one object.
#[derive(Debug)]
pub struct Finding {
    /// Which.
    pub key: ObjectKey,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// What would be done.
    pub fate: Fate,
    /// What keeps it from being done, or even from being known.
    pub problems: Vec<Problem>,
    /// What would be done once something else is there.
    pub waits: Vec<Wait>,
}

/// What would be done for an object.
#[derive(Debug)]
pub enum Fate {
    /// These steps, in each place where it acts or has acted.
    Carried(Vec<Place>),
    /// Nothing: it is suspended.
    Suspended,
    /// Nothing outside: it is being deleted, and what it has made stays in these places.
    LetGo(Vec<TargetView>),
}

/// What would be done in one place.
#[derive(Debug)]
pub struct Place {
    /// Where.
    pub spot: TargetView,
    /// What, in order.
    pub steps: Vec<Planned>,
}

/// A step that was planned.
#[derive(Debug)]
pub struct Planned {
    /// What.
    pub step: Step,
    /// Where the difference came about outside after all had been applied: what is done about that.
    pub drift: Option<DriftPolicy>,
}

impl Planned {
    /// Whether it would be made, and not only told.
    pub fn is_made(&self) -> bool {
        self.step.verb != Verb::Conflict && self.drift != Some(DriftPolicy::Report)
    }
}

/// What is in the way.
#[derive(Debug)]
pub struct Problem {
    /// Of which thing; `None` where it concerns more than one.
    pub name: Option<String>,
    /// What is wrong, and what to do.
    pub error: Error,
}

/// What something waits for.
#[derive(Debug)]
pub struct Wait {
    /// Which thing.
    pub name: Option<String>,
    /// What is missing, and what to do.
    pub message: String,
}

impl Finding {
    /// Nothing would be done.
    pub fn of(key: ObjectKey, deleting: bool, fate: Fate) -> Self {
        Self {
            key,
            deleting,
            fate,
            problems: Vec::new(),
            waits: Vec::new(),
        }
    }

    /// Nothing is known of this object but what is wrong with it.
    pub fn problem(key: ObjectKey, error: Error) -> Self {
        let mut finding = Self::of(key, false, Fate::Carried(Vec::new()));
        finding.add(None, &error);
        finding
    }

    /// What a run without a gate came to.
    pub fn of_outcome<K: Kind>(key: ObjectKey, object: &K, outcome: &Outcome<K>) -> Self {
        let policy = object.policies().drift;
        let places = outcome.reports().map(|place| {
            let report = &place.report;
            // What cannot be made has been planned all the same, and says why below.
            let failed: BTreeSet<_> = report
                .failed
                .iter()
                .filter_map(|failure| Some((failure.stage, failure.key.as_deref()?)))
                .collect();
            let makable = |step: &&Step| {
                step.verb == Verb::Conflict || !failed.contains(&(step.stage, step.key.as_str()))
            };
            let steps = report.planned.iter().filter(makable).map(|step| Planned {
                step: step.clone(),
                drift: report.drift.contains(step).then_some(policy),
            });
            Place {
                spot: place.place.clone(),
                steps: steps.collect(),
            }
        });
        let deleting = object.meta().deletion_timestamp.is_some();
        let mut finding = Self::of(key, deleting, Fate::Carried(places.collect()));
        for (name, error) in outcome.failures() {
            finding.add(name, error);
        }
        finding
    }

    fn add(&mut self, name: Option<&str>, error: &Error) {
        let name = name.map(str::to_owned);
        match error.class {
            // The steps say so.
            Class::Conflict => {}
            Class::Waiting(On::Secret | On::Channel) => self.waits.push(Wait {
                name,
                message: error.message.clone(),
            }),
            _ => self.problems.push(Problem {
                name,
                error: error.clone(),
            }),
        }
    }

    /// The places where something would be done, or is.
    pub fn places(&self) -> &[Place] {
        match &self.fate {
            Fate::Carried(places) => places,
            Fate::Suspended | Fate::LetGo(_) => &[],
        }
    }

    /// Where the object is: where it belongs, or else where it was first.
    pub fn spot(&self) -> Option<&TargetView> {
        match &self.fate {
            Fate::Carried(places) => places.first().map(|place| &place.spot),
            Fate::Suspended => None,
            Fate::LetGo(spots) => spots.first(),
        }
    }
}

/// What was found over all objects.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many steps of each verb there are, but for those that would only be told.
    pub verbs: BTreeMap<Verb, usize>,
    /// How many differences came about outside.
    pub drift: usize,
    /// How many of these would only be told.
    pub reported: usize,
    /// What is in the way.
    pub problems: usize,
    /// What would be done once something else is there.
    pub waits: usize,
    /// How many objects were looked at.
    pub objects: usize,
    /// How many of them are suspended.
    pub suspended: usize,
    /// How many of them are going, and what they made stays.
    pub remove_finalizer: usize,
}

impl Tally {
    /// Adds an object's.
    pub fn add(&mut self, finding: &Finding) {
        self.objects += 1;
        self.problems += finding.problems.len();
        self.waits += finding.waits.len();
        match finding.fate {
            Fate::Carried(_) => {}
            Fate::Suspended => self.suspended += 1,
            Fate::LetGo(_) => self.remove_finalizer += 1,
        }
        for planned in finding.places().iter().flat_map(|place| &place.steps) {
            self.drift += usize::from(planned.drift.is_some());
            if planned.drift == Some(DriftPolicy::Report) {
                self.reported += 1;
            } else {
                *self.verbs.entry(planned.step.verb).or_default() += 1;
            }
        }
    }

    /// How many steps of a verb there are.
    pub fn count(&self, verb: Verb) -> usize {
        self.verbs.get(&verb).copied().unwrap_or_default()
    }

    /// The exit code: 1 where something is in the way, 2 where something would be done or is in conflict.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self { problems: 1.., .. } => 1,
            Self { waits: 1.., .. } => 2,
            Self { verbs, .. } if !verbs.is_empty() => 2,
            Self { .. } => 0,
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::engine::rendering::FieldChange;
    use crate::{api::AwsTarget, kinds::system::Target as _};

    pub fn step(verb: Verb, key: &str) -> Step {
        let field = FieldChange {
            name: "threshold".into(),
            from: (verb == Verb::Update).then(|| "1".into()),
            to: "2".into(),
        };
        Step {
            verb,
            stage: "alarm",
            key: key.into(),
            fields: match verb {
                Verb::Create | Verb::Update => vec![field],
                Verb::Delete | Verb::Conflict => Vec::new(),
            },
            owner: (verb == Verb::Conflict).then(|| "somebody".into()),
        }
    }

    pub fn spot(account: &str) -> TargetView {
        AwsTarget {
            account_id: account.into(),
            region: "us-east-2".into(),
            role_arn: "arn".into(),
            prefix: "p".into(),
        }
        .view()
    }

    pub fn key(name: &str) -> ObjectKey {
        ObjectKey {
            kind: "AlarmSet".into(),
            namespace: "vsu".into(),
            name: name.into(),
        }
    }

    pub fn carried(steps: Vec<(Verb, Option<DriftPolicy>)>) -> Finding {
        let steps = steps.into_iter().map(|(verb, drift)| Planned {
            step: step(verb, "a"),
            drift,
        });
        let place = Place {
            spot: spot("222233334444"),
            steps: steps.collect(),
        };
        Finding::of(key("golden"), false, Fate::Carried(vec![place]))
    }

    #[test]
    fn the_exit_code_says_the_worst() {
        let code = |findings: &[Finding]| {
            let mut tally = Tally::default();
            findings.iter().for_each(|finding| tally.add(finding));
            tally.exit_code()
        };
        let (repair, report) = (Some(DriftPolicy::Repair), Some(DriftPolicy::Report));
        let nothing = || carried(vec![]);
        let failing = |class| Finding::problem(key("x"), Error::new(class, "so it is"));
        assert_eq!(code(&[]), 0);
        assert_eq!(code(&[nothing()]), 0);
        assert_eq!(code(&[carried(vec![(Verb::Update, report)])]), 0);
        assert_eq!(code(&[carried(vec![(Verb::Update, repair)])]), 2);
        for verb in [Verb::Create, Verb::Update, Verb::Delete, Verb::Conflict] {
            assert_eq!(code(&[nothing(), carried(vec![(verb, None)])]), 2);
        }
        assert_eq!(code(&[failing(Class::Waiting(On::Secret))]), 2);
        assert_eq!(code(&[failing(Class::Waiting(On::Tenant))]), 1);
        assert_eq!(
            code(&[failing(Class::Denied), carried(vec![(Verb::Create, None)])]),
            1
        );
        assert_eq!(code(&[Finding::of(key("x"), false, Fate::Suspended)]), 0);
    }
}
