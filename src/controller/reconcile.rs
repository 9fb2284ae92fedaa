//! The reconcile of all kinds: finalizer, suspension, the run, then status, Event and the next look.

use super::{
    Context, ControllerContext,
    conclusion::{Conclusion, Ending, RunEnd, conclude, list},
    events::{self, Note},
    gate::{ObjectGate, RunHandle},
    object::{self, add_finalizer, set_finalizers, write_status},
    object_memory::{ObjectMemory, SystemFailures},
    status::{Before, Keep, Phase, conditions, is_waiting},
};
use crate::{
    api::{DeletionPolicy, FINALIZER, RECONCILE_REQUESTED},
    engine::{
        error::{Class, Result},
        gate::Gate,
        informer::{Consistency, ReadOptions},
        jitter::jittered,
        jobs::Reason,
        limits::Priority,
    },
    kinds::{
        self, Clock, Kind, Outcome, Status,
        cluster_view::{ClusterView, Purpose},
        job::JobState,
        stores::Watched,
        system::RunContext,
    },
};
use jiff::Timestamp;
use kube::{Api, ResourceExt, runtime::controller::Action};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// How soon an object that is suspended or being deleted looks at its job again.
const JOB_CHECK: Duration = Duration::from_secs(60);

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

    /// The run failed before it came to any system, so often in a row. Without a status nobody would know to edit
    /// anything, so even what waits for an edit is tried again.
    pub(super) fn failed(class: Class, failures: u32) -> Self {
        let wait = match class {
            Class::Superseded => Some(Duration::from_secs(1)),
            class => jittered(class, failures),
        };
        Self {
            action: Action::requeue(wait.unwrap_or(Duration::from_secs(300))),
            outcome: class.label(),
            wrote: false,
        }
    }
}

/// The request to look again that no run has answered yet.
pub fn new_request<K: Kind>(object: &K) -> Option<String> {
    let mut status = object.status().cloned().unwrap_or_default();
    let handled = status.common().last_handled_reconcile_at.take();
    let requested = object.annotations().get(RECONCILE_REQUESTED).cloned();
    requested.filter(|it| handled.as_ref() != Some(it))
}

/// Whether somebody waits for it: an edit that was not attempted yet, a first apply that waits for something
/// else, a deletion, a request to look again.
pub fn priority<K: Kind>(object: &K) -> Priority {
    let asked = new_request(object).is_some();
    let mut status = object.status().cloned().unwrap_or_default();
    let common = status.common();
    let ahead = common.observed_generation != object.meta().generation;
    let mut conditions = common.conditions.iter();
    let waits = conditions.any(|told| told.type_ == "Ready" && is_waiting(&told.reason));
    let waits = waits && common.applied_digest.is_none();
    if ahead || asked || waits || object.meta().deletion_timestamp.is_some() {
        Priority::Edit
    } else {
        Priority::Background
    }
}

/// The object with all that its status recorded when this process wrote it, or saw it first, whoever has taken that
/// away since.
async fn with_records<K: Kind>(mut object: K, context: &Context) -> Result<K> {
    let uid = object.uid().unwrap_or_default();
    let stored = object.status().cloned().unwrap_or_default();
    let Some(records) = context.stores.records::<K::Status>(&uid) else {
        let mut records = K::Status::default();
        records.restore(&stored);
        context.stores.recorded(&uid, records);
        context.stores.status_written(&uid, &object.status());
        context.stores.answered(&object);
        return Ok(object);
    };
    if context.stores.status_is_foreign(&object, &object.status()) {
        let mut status = stored.clone();
        status.restore(&records);
        write_status(&object, &stored, &status, context).await?;
        *object.status_mut() = Some(status);
    }
    Ok(object)
}

/// Brings one object's outside in line and its status up to date.
pub async fn reconcile<K: Kind>(
    cached: &Watched<K>,
    controller: &ControllerContext<K>,
    handle: RunHandle<'_>,
) -> Result<ReconcileResult> {
    let context = &controller.context;
    let api = Api::<K>::namespaced(
        context.client.clone(),
        &cached.namespace().unwrap_or_default(),
    );
    let Some(object) = object::read(&cached.name_any(), &api, &context.stores).await? else {
        controller.forget(&cached.uid().unwrap_or_default());
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
        controller.release(&uid);
        return Ok(ReconcileResult::idle());
    }
    let requested = object.annotations().get(RECONCILE_REQUESTED).cloned();
    let object = with_records(object, context).await?;
    let mut before = object.status().cloned().unwrap_or_default();
    let new_request = new_request(&object);
    let policies = object.policies();
    let generation = object.meta().generation;
    let is_requested = new_request.is_some();
    let superseded = context.object_memory.begin(&uid, generation, new_request);
    let (priority, trace_id) = (handle.priority, handle.trace_id);
    let cluster = ClusterView::new(&context.client, &context.installation, Purpose::Act);
    let cluster = cluster.watched(&context.stores);
    // Before anything is asked: what changes from now on must be seen by the gate. Where this fails, so does the run
    // that has to know.
    let namespace = object.namespace().unwrap_or_default();
    let grants = cluster.grants(&namespace).await.unwrap_or_default();
    let gate = ObjectGate::new(
        &object,
        grants,
        controller,
        handle,
        superseded.clone(),
        before.clone(),
    );
    let stop = match deleting {
        true => Some(Reason::Deleted),
        false => policies.suspend.then_some(Reason::Suspended),
    };
    // A suspended object keeps what it made, and so is not to go without being cleaned up.
    let made = !before.places().is_empty() && !K::made_nothing(&before);
    if !deleting && (!policies.suspend || made) {
        add_finalizer(&object, &api, &context.stores).await?;
    }
    // Before the systems are visited: a slot waits for its owner only so long, and what is to stop must not wait.
    let mut job = Ok(JobState::default());
    if K::HAS_JOBS {
        let inputs = object.dereference(&cluster).await;
        let edited = is_requested || !kinds::is_applied(&object);
        job = controller
            .drive_job(&object, inputs.as_ref(), &gate, edited, stop)
            .await;
        before = gate.status.lock().await.clone();
        if deleting {
            if let Some(ended) = wait_for_job(&object, &before, job, controller).await? {
                return Ok(ended);
            }
            job = Ok(JobState::default());
        }
    }
    if deleting && policies.deletion == DeletionPolicy::Orphan {
        let left = list(&before.places());
        tracing::info!(target: "campanile::audit", left, trace_id, "let go: deletionPolicy is Orphan");
        return remove_finalizer(&object, &api, controller).await;
    }
    if deleting && K::made_nothing(&before) {
        return remove_finalizer(&object, &api, controller).await;
    }
    if policies.suspend && !deleting {
        let mut suspended = suspend(&object, before, requested, controller).await?;
        if job.is_err() {
            suspended.action = Action::requeue(JOB_CHECK);
        }
        return Ok(suspended);
    }
    let options = ReadOptions {
        uid,
        priority,
        consistency: match priority {
            _ if is_requested => Consistency::Now,
            Priority::Edit => Consistency::Retried,
            Priority::Background => Consistency::Known,
        },
        since: Instant::now(),
        superseded,
    };
    let mut run_context = context.run_context(&cluster, &gate, options);
    if deleting {
        let holds = object.holds_deletion(&cluster).await?;
        run_context.held_back.extend(holds);
    }
    let mut outcome = kinds::run(&object, &before, run_context).await;
    outcome.job = job;
    let written = gate.status.into_inner();
    carry_through(&object, &api, &outcome, written, requested, controller).await
}

impl Context {
    /// What an object is carried out with in a run of the controller.
    pub(super) fn run_context<'a>(
        &'a self,
        cluster: &'a ClusterView<'a>,
        gate: &'a dyn Gate,
        options: ReadOptions,
    ) -> RunContext<'a> {
        RunContext {
            systems: &self.systems,
            cluster,
            gate: Some(gate),
            held_back: self.object_memory.held_back(&options.uid),
            options,
        }
    }
}

/// Nothing is read or written outside, and nobody is woken by it.
async fn suspend<K: Kind>(
    object: &K,
    before: K::Status,
    requested: Option<String>,
    controller: &ControllerContext<K>,
) -> Result<ReconcileResult> {
    let context = &controller.context;
    let uid = object.uid().unwrap_or_default();
    context.systems.unsubscribe(&uid);
    context.object_memory.succeeded(&uid);
    let mut status = before.clone();
    if status.conditions().is_empty() {
        K::set_initial_status(&mut status);
    }
    let view = Before {
        conditions: &before.clone().conditions().clone(),
        generation: object.meta().generation,
        now: Timestamp::now(),
    };
    kinds::note_not_attempted(object, status.common());
    let digest = kinds::spec_digest(object);
    let phase = Phase::Suspended(status.common().applied_digest.as_ref() == Some(&digest));
    *status.conditions() = conditions(&view, &phase, Vec::new(), &Keep::All);
    let common = status.common();
    common.observed_generation = object.meta().generation;
    common.last_handled_reconcile_at = requested;
    write_status(object, &before, &status, context).await?;
    context.metrics.object(K::KIND, &uid, "Suspended");
    Ok(ReconcileResult {
        wrote: status != before,
        ..ReconcileResult::idle()
    })
}

/// Says that an object that is being deleted waits for its job, if it does. What nobody could find out about the job
/// holds it for `--release-after`.
async fn wait_for_job<K: Kind>(
    object: &K,
    before: &K::Status,
    job: Result<JobState>,
    controller: &ControllerContext<K>,
) -> Result<Option<ReconcileResult>> {
    let context = &controller.context;
    let (message, class) = match job {
        Ok(job) if job.is_active => ("its job has not ended yet".to_owned(), Class::Unavailable),
        // The finalizer goes by the version that was read, which is older than what was just recorded.
        Ok(_) if object.status().cloned().unwrap_or_default() != *before => {
            return Ok(Some(ReconcileResult {
                action: Action::requeue(Duration::ZERO),
                outcome: "ok",
                wrote: true,
            }));
        }
        Ok(_) => return Ok(None),
        Err(error) if error.class == Class::Superseded => return Err(error),
        Err(error) => (error.message, error.class),
    };
    let now = Timestamp::now();
    let since = object.meta().deletion_timestamp.as_ref();
    let deleted = since.and_then(|since| Duration::try_from(now.duration_since(since.0)).ok());
    if deleted.is_some_and(|deleted| deleted >= context.installation.release_after) {
        record_abandoned(object, &[("its job".to_owned(), message)]);
        return Ok(None);
    }
    let mut status = before.clone();
    let known = status.conditions().clone();
    let view = Before {
        conditions: &known,
        generation: object.meta().generation,
        now,
    };
    *status.conditions() = conditions(&view, &Phase::Deleting(message), Vec::new(), &Keep::All);
    status.common().observed_generation = object.meta().generation;
    write_status(object, before, &status, context).await?;
    Ok(Some(ReconcileResult {
        // The job wakes it when it ends.
        action: Action::requeue(JOB_CHECK.min(context.installation.release_after)),
        outcome: class.label(),
        wrote: status != *before,
    }))
}

/// Removes our finalizer: nothing holds the object any more.
async fn remove_finalizer<K: Kind>(
    object: &K,
    api: &Api<K>,
    controller: &ControllerContext<K>,
) -> Result<ReconcileResult> {
    let others = object
        .finalizers()
        .iter()
        .filter(|name| *name != FINALIZER)
        .cloned()
        .collect();
    let (uid, memory) = (
        object.uid().unwrap_or_default(),
        &controller.context.object_memory,
    );
    memory.let_go(&uid, true);
    let removed = set_finalizers(object, api, others, &controller.context.stores).await;
    memory.let_go(&uid, removed.is_ok());
    removed?;
    controller.release(&uid);
    Ok(ReconcileResult {
        wrote: true,
        ..ReconcileResult::idle()
    })
}

/// Does what was concluded, and says when to look again.
async fn carry_through<K: Kind>(
    object: &K,
    api: &Api<K>,
    outcome: &Outcome<K>,
    written: K::Status,
    requested: Option<String>,
    controller: &ControllerContext<K>,
) -> Result<ReconcileResult> {
    let (context, memory) = (&controller.context, &controller.context.object_memory);
    let uid = object.uid().unwrap_or_default();
    let (conclusion, failures) = conclude_run(object, outcome, &written, requested, controller);
    let Conclusion {
        ending,
        note,
        abandoned,
        requeue,
        label,
        progress: mut wrote,
    } = conclusion;
    record_abandoned(object, &abandoned);
    match ending {
        Ending::Superseded => {}
        Ending::RemoveFinalizer => {
            emit_event(object, note, controller).await;
            return remove_finalizer(object, api, controller).await;
        }
        Ending::Report(reported) => {
            if let Some(alarms) = reported.alarms {
                context.metrics.alarms(&uid, alarms);
            }
            if let Some(told) = reported.told {
                memory.tell(&uid, told);
                let (found, repaired) = reported.drifted;
                context.metrics.drifted(K::KIND, found, repaired);
            }
            write_status(object, &written, &reported.status, context).await?;
            context.metrics.object(K::KIND, &uid, &reported.ready);
            wrote |= reported.status != written;
            match reported.failure.filter(|_| wrote) {
                // On the first apply everything waits for something for a moment.
                Some((Class::Waiting(_), message)) => tracing::info!(message, "waiting"),
                Some((class, message)) => {
                    tracing::warn!(class = class.label(), failures, message, "not as declared");
                }
                None => {}
            }
        }
    }
    emit_event(object, note, controller).await;
    Ok(ReconcileResult {
        // The informers wake it when anything moves.
        action: requeue.map_or_else(Action::await_change, Action::requeue),
        outcome: label,
        wrote,
    })
}

/// Concludes a run, by what this process remembers of the object; also how often it has failed in a row.
pub(super) fn conclude_run<K: Kind>(
    object: &K,
    outcome: &Outcome<K>,
    written: &K::Status,
    requested: Option<String>,
    controller: &ControllerContext<K>,
) -> (Conclusion<K>, u32) {
    let (context, memory) = (&controller.context, &controller.context.object_memory);
    let uid = object.uid().unwrap_or_default();
    let (failures, retry) = remember_failures(&uid, outcome, memory);
    let deleting = object.meta().deletion_timestamp.is_some();
    let limit = STALE.max(context.intervals.poll * 5);
    let unread = outcome
        .observed()
        .filter(|(system, observed)| memory.read(&uid, system, deleting || *observed) >= limit);
    let stale = unread.map(|(system, _)| system).collect();
    let clock = Clock {
        now: Timestamp::now(),
        stale: &stale,
    };
    let conclusion = conclude(&RunEnd {
        object,
        outcome,
        written,
        requested,
        installation: &context.installation,
        clock,
        retry,
        failing_for: memory.failing_for(&uid),
        told: &memory.told(&uid),
    });
    (conclusion, failures)
}

/// One audit line per place where things stay.
pub(super) fn record_abandoned<K: Kind>(object: &K, abandoned: &[(String, String)]) {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let object = format!("{} {namespace}/{name}", K::KIND);
    for (left, why) in abandoned {
        tracing::info!(target: "campanile::audit", object, left, why, "let go: nobody could clean up");
    }
}

/// Remembers what failed; a run that was superseded says nothing of that.
fn remember_failures<K: Kind>(
    uid: &str,
    outcome: &Outcome<K>,
    memory: &ObjectMemory,
) -> (u32, Option<Duration>) {
    if outcome.is_superseded() {
        return (0, None);
    }
    let mut failed: BTreeMap<&str, SystemFailures> = BTreeMap::new();
    for (system, error) in outcome.retries() {
        failed.entry(system).or_default().errors.push(error);
    }
    for visit in outcome.reports() {
        if let Some(failures) = failed.get_mut(visit.system) {
            failures.progress |= !visit.report.made.is_empty();
        }
    }
    memory.concluded(uid, &failed)
}

/// One Event about what happened, if anything did. Nothing depends on it.
async fn emit_event<K: Kind>(object: &K, note: Option<Note>, controller: &ControllerContext<K>) {
    let Some(note) = note else { return };
    let context = &controller.context;
    let about = object.object_ref(&());
    let published = events::publish(&context.client, &about, &note, &context.replica);
    if let Err(error) = published.await {
        tracing::warn!(%error, "an Event could not be written");
    }
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
