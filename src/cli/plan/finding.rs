//! What would become of one object, and of all of them together: as `-o json` prints it, whose fields stay. Pure.

use crate::{
    api::DriftPolicy,
    engine::{
        error::{Class, Error, WaitingOn},
        plan::Verb,
        rendering::Step,
    },
    kinds::{Kind, Outcome, TargetView, overlay::ObjectKey},
};
use serde::Serialize;

/// What would become of one object.
#[derive(Serialize, Debug, Default)]
pub struct Finding {
    /// Which.
    #[serde(flatten)]
    pub key: ObjectKey,
    /// Where it belongs, or else where it was first; without words where that is not known.
    #[serde(flatten)]
    pub target: TargetView,
    /// Whether nothing would be done because it is suspended.
    pub suspended: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it is being deleted and what it made stays.
    pub orphaning: bool,
    /// Where that is.
    #[serde(skip)]
    pub left: Vec<TargetView>,
    /// What would be done, in order.
    pub steps: Vec<Planned>,
    /// What keeps it from being done, or even from being known.
    pub problems: Vec<Problem>,
    /// What would be done once something else is there.
    pub waits: Vec<Wait>,
}

/// A step that was planned.
#[derive(Serialize, Debug)]
pub struct Planned {
    /// What.
    #[serde(flatten)]
    pub step: Step,
    /// Where; the object's own unless it has moved.
    #[serde(flatten)]
    pub target: TargetView,
    /// Whether it came about outside after all had been applied.
    pub drift: bool,
    /// Whether that would be repaired, and not only told.
    pub repaired: bool,
}

/// What is in the way.
#[derive(Serialize, Debug)]
pub struct Problem {
    /// Of which thing; `None` where it concerns more than one.
    pub name: Option<String>,
    /// What class of error it is.
    pub class: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

/// What something waits for.
#[derive(Serialize, Debug)]
pub struct Wait {
    /// Which thing.
    pub name: Option<String>,
    /// What is missing, and what to do.
    pub message: String,
}

impl Finding {
    /// Nothing would be done.
    pub fn of(key: ObjectKey, deleting: bool) -> Self {
        Self {
            key,
            deleting,
            ..Self::default()
        }
    }

    /// Nothing would be done outside: it is being deleted, and what it made stays in these places.
    pub fn orphaning(key: ObjectKey, left: Vec<TargetView>) -> Self {
        Self {
            target: left.first().cloned().unwrap_or_default(),
            orphaning: true,
            left,
            ..Self::of(key, true)
        }
    }

    /// Nothing is known of this object but what is wrong with it.
    pub fn problem(key: ObjectKey, error: &Error) -> Self {
        let mut finding = Self::of(key, false);
        finding.add(None, error);
        finding
    }

    /// What a run without a gate came to.
    pub fn of_outcome<K: Kind>(key: ObjectKey, object: &K, outcome: &Outcome<K>) -> Self {
        let repairs = object.policies().drift == DriftPolicy::Repair;
        let mut finding = Self::of(key, object.meta().deletion_timestamp.is_some());
        let mut places = outcome.reports().map(|visit| &visit.place);
        finding.target = places.next().cloned().unwrap_or_default();
        for visit in outcome.reports() {
            let report = &visit.report;
            // What cannot be made has been planned all the same, and says why below.
            let is_makable = |step: &&Step| {
                let of = (step.stage, Some(&*step.key));
                let mut failed = report.failed.iter();
                step.verb == Verb::Conflict
                    || !failed.any(|failure| (failure.stage, failure.key.as_deref()) == of)
            };
            let steps = report.planned.iter().filter(is_makable).map(|step| {
                let drift = report.drift.contains(step);
                Planned {
                    step: step.clone(),
                    target: visit.place.clone(),
                    drift,
                    repaired: drift && repairs,
                }
            });
            finding.steps.extend(steps);
        }
        for (name, error) in outcome.failures() {
            finding.add(name, error);
        }
        finding
    }

    fn add(&mut self, name: Option<&str>, error: &Error) {
        let (name, message) = (name.map(str::to_owned), error.message.clone());
        let class = error.class.label();
        match error.class {
            // The steps say so.
            Class::Conflict => {}
            Class::Waiting(WaitingOn::Secret | WaitingOn::Never | WaitingOn::Channel) => {
                self.waits.push(Wait { name, message })
            }
            _ => self.problems.push(Problem {
                name,
                class,
                message,
            }),
        }
    }
}

/// What was found over all objects.
#[derive(Serialize, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many things would be made.
    pub create: usize,
    /// How many would be changed.
    pub update: usize,
    /// How many would be deleted.
    pub delete: usize,
    /// How many would be left alone because they are not ours.
    pub conflict: usize,
    /// How many differences came about outside; those that would be repaired count above as well.
    pub drift: usize,
    /// How many of these would only be told.
    #[serde(skip)]
    pub reported: usize,
    /// What is in the way.
    pub problems: usize,
    /// What would be done once something else is there.
    pub waits: usize,
    /// How many objects were looked at.
    pub objects: usize,
    /// How many of them are suspended.
    #[serde(skip)]
    pub suspended: usize,
    /// How many of them are going, and what they made stays.
    #[serde(skip)]
    pub orphaning: usize,
}

impl Tally {
    /// Adds an object's.
    pub fn add(&mut self, finding: &Finding) {
        self.objects += 1;
        self.problems += finding.problems.len();
        self.waits += finding.waits.len();
        self.suspended += usize::from(finding.suspended);
        self.orphaning += usize::from(finding.orphaning);
        for planned in &finding.steps {
            self.drift += usize::from(planned.drift);
            *match planned.step.verb {
                _ if planned.drift && !planned.repaired => &mut self.reported,
                Verb::Create => &mut self.create,
                Verb::Update => &mut self.update,
                Verb::Delete => &mut self.delete,
                Verb::Conflict => &mut self.conflict,
            } += 1;
        }
    }

    /// The exit code: 1 where something is in the way, 2 where something would be done or is in conflict.
    pub fn exit_code(&self) -> u8 {
        let done = self.create + self.update + self.delete + self.conflict;
        match (self.problems, self.waits + done) {
            (0, 0) => 0,
            (0, _) => 2,
            _ => 1,
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::{api::AwsTarget, engine::rendering::FieldChange, kinds::system::Target as _};
    use serde_json::{Value, json};

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

    pub fn place(account: &str) -> TargetView {
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

    pub fn planned(verb: Verb, drift: Option<DriftPolicy>, account: &str) -> Planned {
        Planned {
            step: step(verb, "a"),
            target: place(account),
            drift: drift.is_some(),
            repaired: drift == Some(DriftPolicy::Repair),
        }
    }

    pub fn carried(steps: Vec<(Verb, Option<DriftPolicy>)>) -> Finding {
        const ACCOUNT: &str = "222233334444";
        let steps = steps.into_iter();
        let steps = steps.map(|(verb, drift)| planned(verb, drift, ACCOUNT));
        Finding {
            target: place(ACCOUNT),
            steps: steps.collect(),
            ..Finding::of(key("golden"), false)
        }
    }

    pub fn problem(class: Class, message: &str) -> Finding {
        Finding::problem(key("x"), &Error::new(class, message))
    }

    pub fn suspended(name: &str) -> Finding {
        Finding {
            suspended: true,
            ..Finding::of(key(name), false)
        }
    }

    #[test]
    fn the_fields_of_the_document_stay() {
        let mut finding = carried(vec![
            (Verb::Update, Some(DriftPolicy::Report)),
            (Verb::Conflict, None),
        ]);
        finding.problems = problem(Class::Denied, "no").problems;
        let mut tally = Tally::default();
        tally.add(&finding);
        let place = |mut step: Value| {
            step["account"] = json!("222233334444");
            step["region"] = json!("us-east-2");
            step
        };
        assert_eq!(
            json!(finding),
            place(json!({
                "kind": "AlarmSet", "namespace": "vsu", "name": "golden",
                "suspended": false, "deleting": false, "orphaning": false,
                "steps": [
                    place(json!({
                        "verb": "update", "resource": "alarm", "name": "a", "holder": null, "drift": true, "repaired": false,
                        "fields": [{"name": "threshold", "from": "1", "to": "2"}]
                    })),
                    place(json!({
                        "verb": "conflict", "resource": "alarm", "name": "a", "holder": "somebody", "drift": false,
                        "repaired": false, "fields": []
                    }))
                ],
                "problems": [{"name": null, "class": "denied", "message": "no"}],
                "waits": []
            }))
        );
        assert_eq!(
            json!(tally),
            json!({
                "create": 0, "update": 0, "delete": 0, "conflict": 1, "drift": 1, "problems": 1, "waits": 0, "objects": 1
            })
        );
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
        let failing = |class| problem(class, "so it is");
        assert_eq!(code(&[]), 0);
        assert_eq!(code(&[nothing()]), 0);
        assert_eq!(code(&[carried(vec![(Verb::Update, report)])]), 0);
        assert_eq!(code(&[carried(vec![(Verb::Update, repair)])]), 2);
        for verb in [Verb::Create, Verb::Update, Verb::Delete, Verb::Conflict] {
            assert_eq!(code(&[nothing(), carried(vec![(verb, None)])]), 2);
        }
        assert_eq!(code(&[failing(Class::Waiting(WaitingOn::Secret))]), 2);
        assert_eq!(code(&[failing(Class::Waiting(WaitingOn::Tenant))]), 1);
        assert_eq!(
            code(&[failing(Class::Denied), carried(vec![(Verb::Create, None)])]),
            1
        );
        assert_eq!(code(&[suspended("x")]), 0);
    }
}
