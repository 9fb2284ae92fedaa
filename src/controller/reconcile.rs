//! The only reconcile: the same for all kinds.

use super::{
    Ground, Watched,
    drift::{self, Drift},
    events::{self, Happened},
    gate::{ObjectGate, RunHandle},
    grants::{self, Grants},
    object::{hold, set_finalizers, write_status},
    status::{Before, Keep, Phase, Sum, conditions, decisive},
};
use crate::{
    api::{DeletionPolicy, FINALIZER, RECONCILE_REQUESTED},
    clients::kubernetes,
    engine::{
        error::{Class, On, Result},
        informer::{Consistency, ReadOptions},
        jitter::after,
        limits::Priority,
        plan::Step,
        stage::Origin,
    },
    kinds::{
        self, Clock, Kind, Outcome, RunContext, Status, StatusUpdate, Target, TargetOf,
        cluster_view::{ClusterView, Purpose},
    },
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Api, ResourceExt, runtime::controller::Action};
use std::time::Duration;
use tokio::time::Instant;

/// For how long what was read last says how things are, if polls are not rarer than that.
const STALE: Duration = Duration::from_secs(600);

/// What a reconcile came to: when to look again, and a label for metrics.
#[derive(Debug)]
pub struct ReconcileResult {
    /// When to look again.
    pub action: Action,
    /// `ok` or the class of what decided.
    pub outcome: &'static str,
    /// Whether anything was written, outside or to status.
    pub wrote: bool,
}

impl ReconcileResult {
    /// There is nothing to do until somebody does something.
    fn idle() -> Self {
        Self {
            action: Action::await_change(),
            outcome: "ok",
            wrote: false,
        }
    }
}

/// Whether somebody waits for it: an edit that was not attempted yet, a first apply that waits for something
/// else, a deletion, a request to look again.
pub fn priority<K: Kind>(object: &K) -> Priority {
    let requested = object.annotations().get(RECONCILE_REQUESTED).cloned();
    let mut status = object.status().cloned().unwrap_or_default();
    let common = status.common();
    let ahead = *common.observed_generation != object.meta().generation;
    let asked = requested.is_some() && *common.last_handled_reconcile_at != requested;
    let mut conditions = common.conditions.iter();
    let waits =
        conditions.any(|told| told.type_ == "Ready" && told.reason.starts_with("WaitingFor"));
    let waits = waits && common.applied_digest.is_none();
    if ahead || asked || waits || object.meta().deletion_timestamp.is_some() {
        Priority::Edit
    } else {
        Priority::Background
    }
}

/// Brings one object's outside in line and its status up to date.
pub async fn reconcile<K: Kind>(
    cached: &Watched<K>,
    ground: &Ground<K>,
    handle: RunHandle<'_>,
) -> Result<ReconcileResult> {
    let context = &ground.context;
    let api = Api::<K>::namespaced(
        context.client.clone(),
        &cached.namespace().unwrap_or_default(),
    );
    // The watch may lag behind our own last status write, and the ledger in it must not be lost.
    let Some(object) =
        kubernetes::call("reading the object", api.get_opt(&cached.name_any())).await?
    else {
        ground.forget(&cached.uid().unwrap_or_default());
        return Ok(ReconcileResult::idle());
    };
    let uid = object.uid().unwrap_or_default();
    if cached.uid().is_some_and(|cached| cached != uid) {
        // Deleted and made anew; the new one has an event of its own.
        return Ok(ReconcileResult::idle());
    }
    let deleting = object.meta().deletion_timestamp.is_some();
    if deleting
        && !object
            .finalizers()
            .iter()
            .any(|finalizer| finalizer == FINALIZER)
    {
        ground.forget(&uid);
        return Ok(ReconcileResult::idle());
    }
    let requested = object.annotations().get(RECONCILE_REQUESTED).cloned();
    let before = object.status().cloned().unwrap_or_default();
    let newly_requested =
        requested.is_some() && *before.clone().common().last_handled_reconcile_at != requested;
    let policies = object.policies();
    if deleting && policies.deletion == DeletionPolicy::Orphan {
        let left = list(before.clone().targets());
        tracing::info!(target: "campanile::audit", left, trace_id = handle.trace_id, "let go: deletionPolicy is Orphan");
        return remove_finalizer(&object, &api, ground).await;
    }
    if deleting && K::made_nothing(&before) {
        return remove_finalizer(&object, &api, ground).await;
    }
    if policies.suspend && !deleting {
        return suspend(&object, before, requested, ground).await;
    }
    let generation = object.meta().generation;
    context.backoff.begin(&uid, generation, newly_requested);

    if !deleting {
        hold(&object, &api).await?;
    }
    let priority = handle.priority;
    let cluster = ClusterView::new(&context.client, &context.installation, Purpose::Act);
    // Before anything is asked: what changes from now on must be seen by the gate.
    let allowed = allowed(&object.namespace().unwrap_or_default(), &cluster, context).await;
    let gate = ObjectGate::new(&object, allowed, ground, handle, before.clone());
    let prepared = kinds::prepare(&object, &cluster).await;
    let options = ReadOptions {
        uid: uid.clone(),
        priority,
        consistency: match priority {
            _ if newly_requested => Consistency::Now,
            Priority::Edit => Consistency::Retried,
            Priority::Background => Consistency::Known,
        },
        since: Instant::now(),
    };
    let run_context = RunContext {
        scopes: &ground.scopes,
        cluster: &cluster,
        gate: Some(&gate),
        options,
    };
    let outcome = kinds::carry_out(&object, prepared, &before, run_context).await;
    let written = gate.status.into_inner();
    finish(&object, &api, outcome, before, written, requested, ground).await
}

/// What the object's Namespace allows; asked for where the watch has not come to it yet. Where that fails, so
/// does the run that has to know.
async fn allowed(
    namespace: &str,
    cluster: &ClusterView<'_>,
    context: &super::Context,
) -> Option<Grants> {
    match context.bindings.of(namespace) {
        Some(known) => Some(known),
        None => cluster
            .namespace(namespace)
            .await
            .ok()?
            .as_ref()
            .map(grants::allowed),
    }
}

/// Nothing is read or written outside, and nobody is woken by it.
async fn suspend<K: Kind>(
    object: &K,
    before: K::Status,
    requested: Option<String>,
    ground: &Ground<K>,
) -> Result<ReconcileResult> {
    let context = &ground.context;
    let uid = object.uid().unwrap_or_default();
    ground.scopes.unsubscribe(&uid, None);
    context.backoff.succeeded(&uid);
    let mut status = before.clone();
    if status.conditions().is_empty() {
        K::set_initial_status(&mut status);
    }
    let view = Before {
        conditions: &before.clone().conditions().clone(),
        generation: object.meta().generation,
        now: Timestamp::now(),
    };
    let phase = Phase::Suspended(kinds::is_applied(object));
    *status.conditions() = conditions(&view, &phase, Vec::new(), &Keep::All);
    let common = status.common();
    *common.observed_generation = object.meta().generation;
    *common.last_handled_reconcile_at = requested;
    write_status(object, &before, &status, context).await?;
    context.metrics.object(K::KIND, &uid, "Suspended");
    Ok(ReconcileResult {
        wrote: status != before,
        ..ReconcileResult::idle()
    })
}

/// Whether an object has been going for so long, and for want of a way to what it made, that it is let go.
/// What fails or is throttled is not gone.
fn is_out_of_reach<K: Kind>(object: &K, class: Class, release_after: Duration) -> bool {
    let gone = match class {
        Class::Denied => true,
        Class::Waiting(on) => on != On::Prerequisite,
        _ => false,
    };
    let since = object.meta().deletion_timestamp.as_ref();
    gone && since.is_some_and(|since| {
        let going = Timestamp::now().duration_since(since.0);
        Duration::try_from(going).is_ok_and(|going| going >= release_after)
    })
}

/// Removes our finalizer: nothing holds the object any more.
async fn remove_finalizer<K: Kind>(
    object: &K,
    api: &Api<K>,
    ground: &Ground<K>,
) -> Result<ReconcileResult> {
    let others = object
        .finalizers()
        .iter()
        .filter(|name| *name != FINALIZER)
        .cloned()
        .collect();
    set_finalizers(object, api, others).await?;
    ground.forget(&object.uid().unwrap_or_default());
    Ok(ReconcileResult {
        wrote: true,
        ..ReconcileResult::idle()
    })
}

/// From the outcome to the final status, the finalizer, and when to look again.
async fn finish<K: Kind>(
    object: &K,
    api: &Api<K>,
    outcome: Outcome<K>,
    before: K::Status,
    written: K::Status,
    requested: Option<String>,
    ground: &Ground<K>,
) -> Result<ReconcileResult> {
    let context = &ground.context;
    let uid = object.uid().unwrap_or_default();
    let deleting = object.meta().deletion_timestamp.is_some();
    let failure = decisive(&outcome);
    let made: Vec<Step> = outcome
        .places
        .iter()
        .flat_map(|place| place.report.made.iter().cloned())
        .collect();
    let progress = !made.is_empty();
    let superseded = outcome
        .failures()
        .any(|(_, error)| error.class == Class::Superseded);
    if superseded {
        // What is wrong will be seen by the run that supersedes this one; what was made will not.
        let happened = Happened {
            made: &made,
            drift: outcome
                .current()
                .is_some_and(|place| place.origin != Origin::Edit),
            ready_before: None,
            ready_after: None,
            reported: &[],
        };
        tell(object, &happened, ground).await;
        return Ok(ReconcileResult {
            action: Action::requeue(Duration::from_secs(1)),
            outcome: Class::Superseded.label(),
            wrote: progress,
        });
    }
    let current = outcome.current();
    // Where it may not go, or cannot, nothing is watched for it either.
    let reached = current.filter(|place| place.stages.is_ok());
    let access = reached.and_then(|place| place.access.as_ref().ok());
    ground.scopes.unsubscribe(&uid, access);
    let mut status = written.clone();
    status.targets().retain(|target| !is_left(&outcome, target));
    if deleting && status.targets().is_empty() && failure.is_none() {
        let happened = Happened {
            made: &made,
            drift: false,
            ready_before: None,
            ready_after: None,
            reported: &[],
        };
        tell(object, &happened, ground).await;
        return remove_finalizer(object, api, ground).await;
    }
    if let Some((class, message)) = failure.as_ref().filter(|_| deleting)
        && is_out_of_reach(object, *class, context.installation.release_after)
    {
        let object_name = format!(
            "{} {}/{}",
            K::KIND,
            object.namespace().unwrap_or_default(),
            object.name_any()
        );
        let left = list(status.targets());
        tracing::info!(target: "campanile::audit", object = object_name, left, why = message, "let go: nobody could clean up for the time of --release-after");
        return remove_finalizer(object, api, ground).await;
    }
    let failures = match &failure {
        Some((class, _)) => context.backoff.failed(&uid, *class, progress),
        None => {
            context.backoff.succeeded(&uid);
            0
        }
    };
    let now = Timestamp::now();
    let findings = if deleting {
        StatusUpdate::default()
    } else {
        let unread = context.backoff.read(&uid, outcome.is_observed());
        let stale = unread >= STALE.max(context.intervals.poll * 5);
        object.set_spec_status(&mut status, &context.installation);
        object.report(&outcome, &mut status, Clock { now, stale })
    };
    if deleting || !findings.alarms.is_empty() {
        context.metrics.alarms(&uid, findings.alarms);
    }
    let phase = if deleting {
        let why = failure.as_ref().map(|(_, message)| message.as_str());
        Phase::Deleting(format!(
            "cleaning up in {}: {}",
            list(status.targets()),
            why.unwrap_or_default()
        ))
    } else {
        let failing_for = context.backoff.failing_for(&uid);
        Phase::Ran(Sum {
            failure: failure.clone(),
            failing_for,
            summary: findings.summary,
            progress: findings.progress,
        })
    };
    let mut own = findings.conditions;
    let mut keep = findings.unknown;
    let reported = match current.filter(|place| !deleting && place.stages.is_ok()) {
        Some(place) => {
            let mut conditions = status.conditions().iter();
            let stands = conditions.any(|one| one.type_ == "Drifted" && one.status == "False");
            let (verdict, reported) = report_drift(place, &uid, &mut status, stands, now, context);
            if verdict.is_none() {
                keep.push("Drifted");
            }
            own.extend(verdict);
            reported
        }
        None => {
            keep.push("Drifted");
            if !deleting && failure.is_none() && outcome.places.is_empty() {
                *status.common().applied_digest = Some(kinds::applied_nowhere(object));
            }
            Vec::new()
        }
    };
    let known = status.conditions().clone();
    let view = Before {
        conditions: &known,
        generation: object.meta().generation,
        now,
    };
    // What an edit has left to be done later repairs nothing.
    let drift = current.is_some_and(|place| {
        let mut made = place.report.made.iter();
        place.origin != Origin::Edit && made.any(|step| place.report.drift.contains(step))
    });
    let keep = match &outcome.inputs {
        Some(Ok(_)) => Keep::These(keep),
        _ => Keep::All,
    };
    *status.conditions() = conditions(&view, &phase, own, &keep);
    let common = status.common();
    *common.observed_generation = object.meta().generation;
    *common.last_handled_reconcile_at = requested;
    write_status(object, &written, &status, context).await?;

    let ready = ready(status.conditions());
    context
        .metrics
        .object(K::KIND, &uid, ready.map_or("", |ready| &ready.reason));
    let mut before = before;
    let happened = Happened {
        made: &made,
        drift,
        ready_before: self::ready(before.conditions())
            .map(|ready| (ready.status.as_str(), ready.reason.as_str())),
        ready_after: ready.map(|ready| {
            let Condition {
                status,
                reason,
                message,
                ..
            } = ready;
            (status.as_str(), reason.as_str(), message.as_str())
        }),
        reported: &reported,
    };
    tell(object, &happened, ground).await;

    // What an item waits for, another need not.
    let again = outcome
        .again()
        .filter_map(|error| after(&error, failures))
        .chain(findings.again)
        .min();
    // Whoever may let go looks again when the time has come.
    let again = match object.meta().deletion_timestamp.as_ref() {
        Some(_) => again.map(|wait| {
            wait.min(
                context
                    .installation
                    .release_after
                    .max(Duration::from_secs(1)),
            )
        }),
        None => again,
    };
    if let Some(wait) = again {
        context.backoff.due(&uid, wait);
    }
    let label = failure.as_ref().map_or("ok", |(class, _)| class.label());
    let wrote = progress || status != written;
    match failure.as_ref().filter(|_| wrote) {
        // On the first apply everything waits for something for a moment.
        Some((Class::Waiting(_), message)) => tracing::info!(message, "waiting"),
        Some((class, message)) => {
            tracing::warn!(class = class.label(), failures, message, "not as declared");
        }
        None => {}
    }
    Ok(ReconcileResult {
        // The mirror wakes it when anything moves.
        action: again.map_or_else(Action::await_change, Action::requeue),
        outcome: label,
        wrote,
    })
}

/// Writes what came about outside into status, and what was applied. Answers with the condition
/// `Drifted`, if it moves, and with what is told for the first time.
fn report_drift<K: Kind>(
    place: &kinds::VisitOutcome<K>,
    uid: &str,
    status: &mut K::Status,
    stands: bool,
    now: Timestamp,
    context: &super::Context,
) -> (Option<kinds::ConditionUpdate>, Vec<Step>) {
    let observed = place
        .report
        .failed
        .iter()
        .all(|failure| failure.key.is_some());
    if !observed {
        return (None, Vec::new());
    }
    let left: Vec<_> = place.reported_drift().collect();
    let repaired = place.report.drift.iter();
    let repaired: Vec<_> = repaired
        .filter(|step| place.report.made.contains(step))
        .collect();
    let common = status.common();
    let edited = place.is_applied() && *common.applied_digest != place.digest;
    if edited {
        *common.applied_digest = place.digest.clone();
    } else if place.origin == Origin::Edit && !place.is_applied() {
        // Half of what was applied before may be gone.
        *common.applied_digest = None;
    }
    let all = drift::entries(&left, common.drift, now);
    // Status lists only the first of them, and this process remembers the others.
    let listed = |step: &Step| {
        let mut before = common.drift.iter();
        before.any(|entry| entry.resource == step.stage && entry.name == step.key)
    };
    let told = left.iter().map(|step| (step.stage, step.key.clone()));
    let untold = context.backoff.told(uid, told.collect());
    let new: Vec<_> = left
        .iter()
        .filter(|step| untold.contains(&(step.stage, step.key.clone())) && !listed(step))
        .map(|step| (*step).clone())
        .collect();
    context
        .metrics
        .drifted(K::KIND, new.len() + repaired.len(), repaired.len());
    (*common.drift, *common.drift_count) = drift::listed(all);
    let drift = Drift {
        left,
        repaired,
        edited,
    };
    (drift::verdict(&drift, stands, now), new)
}

/// One Event about what happened, if anything did. Nothing depends on it.
async fn tell<K: Kind>(object: &K, happened: &Happened<'_>, ground: &Ground<K>) {
    let Some(note) = events::note(happened) else {
        return;
    };
    let context = &ground.context;
    let about = object.object_ref(&());
    let published = events::publish(&context.client, &about, &note, &context.replica);
    if let Err(error) = published.await {
        tracing::warn!(%error, "an Event could not be written");
    }
}

fn ready(conditions: &[Condition]) -> Option<&Condition> {
    conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")
}

/// Whether nothing of ours is left in a place where the object does not belong any more.
fn is_left<K: Kind>(outcome: &Outcome<K>, target: &TargetOf<K>) -> bool {
    outcome.places.iter().any(|place| {
        !place.current
            && place.target.same_place(target)
            && place.stages.is_ok()
            && place.report.is_settled()
    })
}

fn list(targets: &[impl Target]) -> String {
    targets
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::AlarmSet;
    use serde_json::json;

    #[test]
    fn somebody_waits_for_what_is_new_and_for_what_waited_itself() {
        use Priority::{Background, Edit};
        for (seen, reason, requested, deleting, expected) in [
            (None, "", false, false, Edit),
            (Some(1), "Applied", false, false, Edit),
            (Some(2), "Applied", false, false, Background),
            (Some(2), "PartiallyFailed", false, false, Background),
            (Some(2), "WaitingForTenant", false, false, Edit),
            (Some(2), "WaitingForSecret", false, false, Edit),
            // The rest of it is in place.
            (Some(3), "WaitingForSecret", false, false, Background),
            (Some(2), "Applied", true, false, Edit),
            (Some(2), "Applied", false, true, Edit),
        ] {
            let at = "2026-01-02T03:04:05Z";
            let mut object = json!({
                "apiVersion": "campanile.dev/v1alpha1", "kind": "AlarmSet",
                "metadata": {"name": "a", "namespace": "ns", "generation": 2},
                "spec": {"tenantRef": {"name": "t"}, "alarms": []}
            });
            if let Some(seen) = seen {
                let ready = json!({"type": "Ready", "status": "False", "reason": reason,
                    "message": "", "lastTransitionTime": at});
                object["status"] =
                    json!({"observedGeneration": 2.min(seen), "conditions": [ready]});
                if seen > 2 {
                    object["status"]["appliedDigest"] = json!("d");
                }
            }
            if requested {
                object["metadata"]["annotations"] = json!({RECONCILE_REQUESTED: "now"});
            }
            if deleting {
                object["metadata"]["deletionTimestamp"] = json!(at);
            }
            let object: AlarmSet = serde_json::from_value(object).unwrap();
            assert_eq!(priority(&object), expected, "{seen:?} {reason}");
        }
    }
}
