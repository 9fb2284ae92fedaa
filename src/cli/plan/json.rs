//! A plan for machines: one document whose fields stay. Pure.

use super::finding::{Fate, Finding, Place, Planned, Tally};
use crate::engine::{plan::Verb, rendering::FieldChange};
use serde::Serialize;

/// All of it.
#[derive(Serialize, Debug)]
pub struct Document<'a> {
    objects: Vec<Object<'a>>,
    summary: Summary,
}

#[derive(Serialize, Debug)]
struct Object<'a> {
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
    /// Where it belongs; `null` where that is not known, or not in AWS.
    account: Option<&'a str>,
    region: Option<&'a str>,
    suspended: bool,
    deleting: bool,
    /// It is being deleted, and what it made stays.
    orphaning: bool,
    steps: Vec<Step<'a>>,
    problems: Vec<Problem<'a>>,
    waits: Vec<Wait<'a>>,
}

#[derive(Serialize, Debug)]
struct Step<'a> {
    verb: &'static str,
    /// `alarm`, `topic`, `subscription`, `alarm tag`.
    resource: &'static str,
    name: &'a str,
    /// Where; the object's own unless it has moved. `null` outside of AWS.
    account: Option<&'a str>,
    region: Option<&'a str>,
    fields: Vec<Field<'a>>,
    /// Who holds it, in a conflict.
    #[serde(rename = "holder")]
    owner: Option<&'a str>,
    /// Whether it came about outside after all had been applied.
    drift: bool,
    /// Whether that would be repaired.
    repaired: bool,
}

#[derive(Serialize, Debug)]
struct Field<'a> {
    name: &'a str,
    /// `null` for a thing that is new, empty where it was not set.
    from: Option<&'a str>,
    /// Empty where it is not set any more.
    to: &'a str,
}

#[derive(Serialize, Debug)]
struct Problem<'a> {
    /// `null` where it concerns more than one thing.
    name: Option<&'a str>,
    class: &'static str,
    message: &'a str,
}

#[derive(Serialize, Debug)]
struct Wait<'a> {
    name: Option<&'a str>,
    message: &'a str,
}

#[derive(Serialize, Debug)]
struct Summary {
    create: usize,
    update: usize,
    delete: usize,
    conflict: usize,
    /// Differences that came about outside. Those that would be repaired count above as well.
    drift: usize,
    problems: usize,
    waits: usize,
    objects: usize,
}

impl<'a> Document<'a> {
    /// Of all findings, in their order, those included of which there is nothing to say.
    pub fn new(findings: &'a [Finding], tally: &Tally) -> Self {
        Self {
            objects: findings.iter().map(object).collect(),
            summary: Summary {
                create: tally.count(Verb::Create),
                update: tally.count(Verb::Update),
                delete: tally.count(Verb::Delete),
                conflict: tally.count(Verb::Conflict),
                drift: tally.drift,
                problems: tally.problems,
                waits: tally.waits,
                objects: tally.objects,
            },
        }
    }
}

fn object(finding: &Finding) -> Object<'_> {
    let spot = finding.spot();
    let steps = finding.places().iter().flat_map(|place| {
        let planned = place.steps.iter();
        planned.map(move |planned| step(place, planned))
    });
    let problems = finding.problems.iter().map(|problem| Problem {
        name: problem.name.as_deref(),
        class: problem.error.class.label(),
        message: &problem.error.message,
    });
    let waits = finding.waits.iter().map(|wait| Wait {
        name: wait.name.as_deref(),
        message: &wait.message,
    });
    Object {
        kind: &finding.key.kind,
        namespace: &finding.key.namespace,
        name: &finding.key.name,
        account: spot.and_then(|spot| spot.account.as_deref()),
        region: spot.and_then(|spot| spot.region.as_deref()),
        suspended: matches!(finding.fate, Fate::Suspended),
        deleting: finding.deleting,
        orphaning: matches!(finding.fate, Fate::LetGo(_)),
        steps: steps.collect(),
        problems: problems.collect(),
        waits: waits.collect(),
    }
}

fn step<'a>(place: &'a Place, planned: &'a Planned) -> Step<'a> {
    let step = &planned.step;
    Step {
        verb: match step.verb {
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Delete => "delete",
            Verb::Conflict => "conflict",
        },
        resource: step.stage,
        name: &step.key,
        account: place.spot.account.as_deref(),
        region: place.spot.region.as_deref(),
        fields: step.fields.iter().map(field).collect(),
        owner: step.owner.as_deref(),
        drift: planned.drift.is_some(),
        repaired: planned.drift.is_some() && planned.is_made(),
    }
}

fn field(change: &FieldChange) -> Field<'_> {
    Field {
        name: &change.name,
        from: change.from.as_deref(),
        to: &change.to,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::tests::carried, *};
    use crate::{
        api::DriftPolicy,
        engine::error::{Class, Error},
    };
    use serde_json::{Value, json};

    #[test]
    fn the_document_stays_as_it_is() {
        let mut finding = carried(vec![
            (Verb::Update, Some(DriftPolicy::Report)),
            (Verb::Conflict, None),
        ]);
        let error = Error::new(Class::Denied, "no");
        finding.problems = Finding::problem(finding.key.clone(), error).problems;
        let mut tally = Tally::default();
        tally.add(&finding);
        let findings = [finding];
        let document = Document::new(&findings, &tally);
        let place = |mut step: Value| {
            step["account"] = json!("222233334444");
            step["region"] = json!("us-east-2");
            step
        };
        assert_eq!(
            serde_json::to_value(&document).unwrap(),
            json!({
                "objects": [place(json!({
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
                }))],
                "summary": {
                    "create": 0, "update": 0, "delete": 0, "conflict": 1, "drift": 1, "problems": 1, "waits": 0, "objects": 1
                }
            })
        );
    }
}
