//! The conditions `Ready`, `Reconciling` and `Stalled`, from the class of what failed. Pure. `kubectl wait`, Flux and
//! Argo CD read them.

use crate::{
    api,
    engine::{
        error::{Class, Error, WaitingOn},
        rendering::shorten,
    },
    kinds::ConditionUpdate,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use std::time::Duration;

/// The longest message of a condition, in bytes; the API's own limit is 32768.
const MESSAGE: usize = 1024;

/// The conditions that all kinds have.
const COMMON: [&str; 3] = ["Ready", "Reconciling", "Stalled"];

/// What stands before a condition's message while nobody looks.
const LAST_KNOWN: &str = "suspended; last known: ";

/// How long an applied object stays Ready while the outside cannot be reached.
pub const GRACE: Duration = Duration::from_secs(600);

/// Where an object stands after a run.
#[derive(Debug)]
pub enum Phase {
    /// First sight: about to begin.
    Applying,
    /// A run is over.
    Ran(Sum),
    /// It is going away, and waits for this.
    Deleting(String),
    /// Nothing is done for it; whether its spec was applied before that.
    Suspended(bool),
}

/// What a run came to.
#[derive(Debug, Default)]
pub struct Sum {
    /// The failures that decide, the decisive one first: its class, how many there are, a message for people.
    pub failure: Option<(Class, String)>,
    /// How long runs have failed in a row without end; zero for the first.
    pub failing_for: Duration,
    /// What `Ready` says when nothing is wrong.
    pub summary: String,
    /// How far it is, where it is throttled.
    pub progress: Option<String>,
}

/// Which conditions of a kind's own stay as they were, because this run found nothing out about them.
#[derive(Debug)]
pub enum Keep {
    /// All: the run did not get that far.
    All,
    /// These; of others that are not said anew there is nothing to say any more.
    These(Vec<&'static str>),
}

/// What decides among several failures, the first wins: what needs a person, the widest first; then
/// what passes by itself.
fn weight(class: Class) -> u8 {
    match class {
        Class::Denied => 0,
        Class::Conflict => 1,
        Class::Invalid => 2,
        Class::Rejected => 3,
        Class::Throttled => 4,
        Class::Unavailable | Class::OutcomeUnknown => 5,
        Class::Waiting(
            WaitingOn::Tenant | WaitingOn::Secret | WaitingOn::Never | WaitingOn::Channel,
        ) => 6,
        Class::Superseded => 7,
        Class::Waiting(WaitingOn::Prerequisite) => 8,
    }
}

/// The failure that decides, with a message that tells the first of its sort and how many others there are.
pub fn decisive<'a>(
    failures: impl Iterator<Item = (Option<&'a str>, &'a Error)>,
) -> Option<(Class, String)> {
    let failures: Vec<_> = failures.collect();
    let (_, first) = failures
        .iter()
        .min_by_key(|(_, error)| weight(error.class))?;
    let mut message = first.message.clone();
    // The same text once: all alarms of an unknown environment say the same.
    let mut others: Vec<_> = failures
        .iter()
        .filter(|(_, error)| error.class != Class::Waiting(WaitingOn::Prerequisite))
        .map(|(_, error)| &error.message)
        .filter(|text| **text != first.message)
        .collect();
    others.sort_unstable();
    others.dedup();
    match others.len() {
        0 => {}
        1 => {
            message = format!(
                "{message}; and: {}",
                others.first().map(|text| text.as_str()).unwrap_or_default()
            )
        }
        n => message = format!("{message}; and {n} other problems"),
    }
    Some((first.class, message))
}

/// The reason of `Ready` for a failure.
fn reason(class: Class, applied_before: bool) -> &'static str {
    match class {
        Class::Denied => "AccessDenied",
        Class::Conflict => "Conflict",
        Class::Invalid => "InvalidSpec",
        Class::Rejected => "PartiallyFailed",
        Class::Throttled if !applied_before => "Throttled",
        Class::Throttled | Class::Unavailable | Class::OutcomeUnknown => "SystemUnavailable",
        Class::Waiting(WaitingOn::Secret | WaitingOn::Never) => "WaitingForSecret",
        Class::Waiting(WaitingOn::Channel) => "WaitingForChannel",
        // The prerequisite's own failure says why.
        Class::Waiting(WaitingOn::Tenant | WaitingOn::Prerequisite) => "WaitingForTenant",
        Class::Superseded => "Applying",
    }
}

/// Whether a reason of `Ready` says that the object waits for something that it refers to.
pub fn is_waiting(told: &str) -> bool {
    use WaitingOn::{Channel, Prerequisite, Secret, Tenant};
    let mut all = [Tenant, Secret, Channel, Prerequisite].into_iter();
    all.any(|on| reason(Class::Waiting(on), false) == told)
}

/// What is known of an object before its new conditions are made.
pub struct Before<'a> {
    /// The conditions as they were.
    pub conditions: &'a [Condition],
    /// The generation that is looked at.
    pub generation: Option<i64>,
    /// When.
    pub now: Timestamp,
}

impl Before<'_> {
    /// Whether this very generation has been applied.
    fn applied(&self) -> bool {
        self.ready().is_some_and(|ready| {
            ready.status == "True" && ready.observed_generation == self.generation
        })
    }

    fn ready(&self) -> Option<&Condition> {
        api::condition(self.conditions, "Ready")
    }

    /// Without a change nothing moves, so that an unchanged outcome is an unchanged status.
    fn condition(&self, update: ConditionUpdate) -> Condition {
        let status = match update.holds {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let since = api::condition(self.conditions, update.type_)
            .filter(|before| before.status == status)
            .map_or(Time(self.now), |before| before.last_transition_time.clone());
        Condition {
            type_: update.type_.to_owned(),
            status: status.to_owned(),
            reason: update.reason.to_owned(),
            message: shorten(&update.message, MESSAGE),
            observed_generation: self.generation,
            last_transition_time: since,
        }
    }
}

/// `Ready`, `Reconciling` and `Stalled` (the latter two only while they hold), then the kind's own.
pub fn conditions(
    before: &Before<'_>,
    phase: &Phase,
    own: Vec<ConditionUpdate>,
    keep: &Keep,
) -> Vec<Condition> {
    let mut all = Vec::new();
    let mut kept_ready = None;
    match phase {
        Phase::Applying => {
            all.push(ConditionUpdate::new(
                "Ready",
                None,
                "Applying",
                "applying for the first time",
            ));
            all.push(ConditionUpdate::new(
                "Reconciling",
                Some(true),
                "Applying",
                "applying for the first time",
            ));
        }
        Phase::Deleting(waits) => {
            all.push(ConditionUpdate::new(
                "Ready",
                Some(false),
                "Deleting",
                waits,
            ));
            all.push(ConditionUpdate::new(
                "Reconciling",
                Some(true),
                "Deleting",
                waits,
            ));
        }
        Phase::Suspended(applied) => {
            let message = if *applied {
                "suspended (spec.suspend): what is known was known before"
            } else {
                "suspended (spec.suspend): this spec has not been applied"
            };
            all.push(ConditionUpdate::new(
                "Ready",
                Some(*applied),
                "Suspended",
                message,
            ));
        }
        Phase::Ran(Sum {
            failure: None,
            summary,
            ..
        }) => {
            all.push(ConditionUpdate::new(
                "Ready",
                Some(true),
                "Applied",
                summary,
            ));
        }
        Phase::Ran(Sum {
            failure: Some((class, message)),
            failing_for,
            progress,
            ..
        }) => {
            let message = match (class, progress) {
                (Class::Throttled, Some(progress)) => &format!("{progress} in place; {message}"),
                _ => message,
            };
            let (applied, passing) = (before.applied(), class.passes());
            let reason = reason(*class, applied);
            if passing && applied && *failing_for < GRACE {
                kept_ready = before.ready().cloned();
            } else {
                all.push(ConditionUpdate::new("Ready", Some(false), reason, message));
                // A person must act: Flux and Argo CD stop waiting. (Conflict and denial are still retried.)
                let stalled = matches!(
                    class,
                    Class::Denied | Class::Conflict | Class::Invalid | Class::Rejected
                );
                let type_ = if stalled { "Stalled" } else { "Reconciling" };
                all.push(ConditionUpdate::new(type_, Some(true), reason, message));
            }
        }
    }
    let own_types: Vec<_> = own.iter().map(|update| update.type_).collect();
    all.extend(own);
    let made = all.into_iter().map(|update| before.condition(update));
    let mut made: Vec<_> = kept_ready.into_iter().chain(made).collect();
    let stays = |type_: &str| match keep {
        Keep::All => !COMMON.contains(&type_),
        Keep::These(types) => types.contains(&type_),
    };
    let stay = before.conditions.iter().filter(|condition| {
        let type_ = condition.type_.as_str();
        stays(type_) && !own_types.contains(&type_)
    });
    made.extend(stay.cloned());
    if matches!(phase, Phase::Suspended(_)) {
        for condition in made.iter_mut().filter(|one| one.type_ == "Healthy") {
            // Once, however often it is looked at.
            if !condition.message.starts_with(LAST_KNOWN) {
                let message = format!("{LAST_KNOWN}{}", condition.message);
                condition.message = shorten(&message, MESSAGE);
            }
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ran(failure: Option<Class>, failing_for: u64) -> Phase {
        Phase::Ran(Sum {
            failure: failure.map(|class| (class, "why".into())),
            failing_for: Duration::from_secs(failing_for),
            summary: "all in place".into(),
            progress: Some("812 of 1000".into()),
        })
    }

    fn make(before: &[Condition], generation: i64, phase: &Phase, second: i64) -> Vec<Condition> {
        let before = Before {
            conditions: before,
            generation: Some(generation),
            now: at(second),
        };
        conditions(&before, phase, vec![], &Keep::All)
    }

    /// What kstatus makes of an object: <https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus>.
    fn kstatus(
        conditions: &[Condition],
        generation: i64,
        observed: Option<i64>,
        deleting: bool,
    ) -> &'static str {
        let holds = |type_: &str| {
            conditions
                .iter()
                .any(|c| c.type_ == type_ && c.status == "True")
        };
        let not_ready = conditions
            .iter()
            .any(|c| c.type_ == "Ready" && c.status != "True");
        match () {
            () if deleting => "Terminating",
            () if observed.is_some_and(|observed| observed != generation) => "InProgress",
            () if holds("Stalled") => "Failed",
            () if holds("Reconciling") => "InProgress",
            () if not_ready => "InProgress",
            () => "Current",
        }
    }

    fn shown(conditions: &[Condition]) -> String {
        conditions
            .iter()
            .map(|c| format!("{}={}/{}", c.type_, c.status, c.reason))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn every_row_of_the_table() {
        let fresh: Vec<Condition> = vec![];
        let applied = make(&[], 1, &ran(None, 0), 1);
        for (name, before, generation, phase, expected, status) in [
            (
                "first sight",
                &fresh,
                1,
                Phase::Applying,
                "Ready=Unknown/Applying Reconciling=True/Applying",
                "InProgress",
            ),
            (
                "applied",
                &fresh,
                1,
                ran(None, 0),
                "Ready=True/Applied",
                "Current",
            ),
            (
                "5xx on first apply",
                &fresh,
                1,
                ran(Some(Class::Unavailable), 0),
                "Ready=False/SystemUnavailable Reconciling=True/SystemUnavailable",
                "InProgress",
            ),
            (
                "waiting for a tenant",
                &applied,
                1,
                ran(Some(Class::Waiting(WaitingOn::Tenant)), 0),
                "Ready=False/WaitingForTenant Reconciling=True/WaitingForTenant",
                "InProgress",
            ),
            (
                "waiting for a Secret",
                &fresh,
                1,
                ran(Some(Class::Waiting(WaitingOn::Secret)), 0),
                "Ready=False/WaitingForSecret Reconciling=True/WaitingForSecret",
                "InProgress",
            ),
            (
                "throttled on first apply",
                &fresh,
                1,
                ran(Some(Class::Throttled), 0),
                "Ready=False/Throttled Reconciling=True/Throttled",
                "InProgress",
            ),
            (
                "throttled later",
                &applied,
                1,
                ran(Some(Class::Throttled), 599),
                "Ready=True/Applied",
                "Current",
            ),
            (
                "unreachable for long",
                &applied,
                1,
                ran(Some(Class::Unavailable), 600),
                "Ready=False/SystemUnavailable Reconciling=True/SystemUnavailable",
                "InProgress",
            ),
            (
                "unreachable after an edit",
                &applied,
                2,
                ran(Some(Class::Unavailable), 1),
                "Ready=False/SystemUnavailable Reconciling=True/SystemUnavailable",
                "InProgress",
            ),
            (
                "invalid",
                &applied,
                1,
                ran(Some(Class::Invalid), 0),
                "Ready=False/InvalidSpec Stalled=True/InvalidSpec",
                "Failed",
            ),
            (
                "conflict",
                &applied,
                1,
                ran(Some(Class::Conflict), 0),
                "Ready=False/Conflict Stalled=True/Conflict",
                "Failed",
            ),
            (
                "denied",
                &applied,
                1,
                ran(Some(Class::Denied), 0),
                "Ready=False/AccessDenied Stalled=True/AccessDenied",
                "Failed",
            ),
            (
                "an item failed",
                &applied,
                1,
                ran(Some(Class::Rejected), 0),
                "Ready=False/PartiallyFailed Stalled=True/PartiallyFailed",
                "Failed",
            ),
        ] {
            let made = make(before, generation, &phase, 2);
            assert_eq!(shown(&made), expected, "{name}");
            assert_eq!(
                kstatus(&made, generation, Some(generation), false),
                status,
                "{name}"
            );
        }
        for (before, expected, status) in [
            (true, "Ready=True/Suspended", "Current"),
            (false, "Ready=False/Suspended", "InProgress"),
        ] {
            let made = make(&applied, 2, &Phase::Suspended(before), 2);
            assert_eq!(shown(&made), expected);
            assert_eq!(kstatus(&made, 2, Some(2), false), status);
            let again = make(&made, 2, &Phase::Suspended(before), 3);
            assert_eq!(again, made, "nothing moves");
        }
        let drifted = ConditionUpdate {
            type_: "Drifted",
            holds: Some(true),
            reason: "DriftReported",
            message: String::new(),
        };
        let unconfirmed = ConditionUpdate {
            type_: "DeliveryReady",
            holds: Some(false),
            reason: "PendingConfirmation",
            message: String::new(),
        };
        let before = Before {
            conditions: &applied,
            generation: Some(1),
            now: at(2),
        };
        let own = vec![drifted, unconfirmed];
        let made = conditions(&before, &ran(None, 0), own, &Keep::These(vec![]));
        assert_eq!(
            shown(&made),
            "Ready=True/Applied Drifted=True/DriftReported DeliveryReady=False/PendingConfirmation"
        );
        assert_eq!(kstatus(&made, 1, Some(1), false), "Current");
        let deleting = make(&applied, 2, &Phase::Deleting("3 alarms".into()), 2);
        assert_eq!(
            shown(&deleting),
            "Ready=False/Deleting Reconciling=True/Deleting"
        );
        assert_eq!(kstatus(&deleting, 2, Some(2), true), "Terminating");
        assert_eq!(
            kstatus(&[], 1, Some(-1), false),
            "InProgress",
            "before the first status write the schema says that nothing was attempted"
        );
    }

    #[test]
    fn nothing_moves_without_a_change() {
        let first = make(&[], 1, &ran(None, 0), 1);
        assert_eq!(make(&first, 1, &ran(None, 0), 2), first);
        let failed = make(&first, 1, &ran(Some(Class::Denied), 0), 3);
        assert_eq!(failed[0].last_transition_time.0, at(3));
        assert_eq!(make(&failed, 1, &ran(Some(Class::Denied), 9), 4), failed);
        let grace = make(&first, 1, &ran(Some(Class::Unavailable), 9), 5);
        assert_eq!(grace, first);
    }

    #[test]
    fn a_kinds_own_conditions_stay_only_while_nothing_is_known_of_them() {
        let own = |type_| ConditionUpdate {
            type_,
            holds: Some(true),
            reason: "Well",
            message: String::new(),
        };
        let run = |before: &[Condition], own: Vec<ConditionUpdate>, keep: Keep| {
            let before = Before {
                conditions: before,
                generation: Some(1),
                now: at(1),
            };
            conditions(&before, &ran(None, 0), own, &keep)
        };
        let types = |made: &[Condition]| {
            made.iter()
                .map(|c| c.type_.clone())
                .collect::<Vec<_>>()
                .join(" ")
        };
        let first = run(
            &[],
            vec![own("Healthy"), own("DeliveryReady")],
            Keep::These(vec![]),
        );
        assert_eq!(types(&first), "Ready Healthy DeliveryReady");
        assert_eq!(
            types(&run(&first, vec![], Keep::All)),
            "Ready Healthy DeliveryReady"
        );
        let unknown = run(
            &first,
            vec![own("Healthy")],
            Keep::These(vec!["DeliveryReady"]),
        );
        assert_eq!(types(&unknown), "Ready Healthy DeliveryReady");
        assert_eq!(
            types(&run(&first, vec![own("Healthy")], Keep::These(vec![]))),
            "Ready Healthy"
        );
    }

    #[test]
    fn a_throttled_object_says_how_far_it_is() {
        let made = make(&[], 1, &ran(Some(Class::Throttled), 0), 1);
        assert_eq!(made[0].message, "812 of 1000 in place; why");
    }
}
