//! The only reconcile: the same for all kinds.

use super::{
    Context, Watched,
    backoff::{jittered, spread},
    gate::ObjectGate,
    status::{Before, Keep, Phase, Sum, conditions, decisive},
};
use crate::{
    api::{FINALIZER, RECONCILE_REQUESTED, Target},
    clients::kubernetes,
    error::{Class, Error, Result},
    kind::{self, Findings, Kind, Moment, Outcome, Purpose, Status, Surroundings},
};
use jiff::Timestamp;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, TypeMeta},
    runtime::{controller::Action, reflector::Store},
};
use serde::Serialize;
use serde_json::json;
use std::time::Duration;

/// The field manager of all that we write to the API server.
const MANAGER: &str = "campanile";

/// For how long what was read last says how things are, if polls are not rarer than that.
const STALE: Duration = Duration::from_secs(600);

/// What a reconcile came to: when to look again, and a label for metrics.
#[derive(Debug)]
pub struct Done {
    /// When to look again.
    pub action: Action,
    /// `ok` or the class of what decided.
    pub outcome: &'static str,
    /// Whether anything was written, outside or to status.
    pub wrote: bool,
}

impl Done {
    /// There is nothing to do until somebody does something.
    fn idle() -> Self {
        Self {
            action: Action::await_change(),
            outcome: "ok",
            wrote: false,
        }
    }
}

/// Brings one object's outside in line and its status up to date.
pub async fn reconcile<K: Kind>(
    cached: &Watched<K>,
    store: &Store<Watched<K>>,
    context: &Context,
) -> Result<Done> {
    let api = Api::<K>::namespaced(
        context.client.clone(),
        &cached.namespace().unwrap_or_default(),
    );
    // The watch may lag behind our own last status write, and the ledger in it must not be lost.
    let Some(object) =
        kubernetes::call("reading the object", api.get_opt(&cached.name_any())).await?
    else {
        context.forget(&cached.uid().unwrap_or_default());
        return Ok(Done::idle());
    };
    let uid = object.uid().unwrap_or_default();
    if cached.uid().is_some_and(|cached| cached != uid) {
        // Deleted and made anew; the new one has an event of its own.
        return Ok(Done::idle());
    }
    let deleting = object.meta().deletion_timestamp.is_some();
    if deleting
        && !object
            .finalizers()
            .iter()
            .any(|finalizer| finalizer == FINALIZER)
    {
        context.forget(&uid);
        return Ok(Done::idle());
    }
    let requested = object.annotations().get(RECONCILE_REQUESTED).cloned();
    let mut before = object.status().cloned().unwrap_or_default();
    let newly_requested = requested.is_some() && *before.last_handled_reconcile_at() != requested;
    context
        .backoff
        .begin(&uid, object.meta().generation, newly_requested);

    if !deleting {
        hold(&object, &api).await?;
    }
    let around = Surroundings::new(&context.client, &context.installation, Purpose::Act);
    let prepared = kind::prepare(&object, &around).await;
    let before = object.status().cloned().unwrap_or_default();
    let gate = ObjectGate::new(&object, store, context, before.clone());
    let outcome = kind::carry_out(
        &object,
        prepared,
        &before,
        &context.accounts,
        &around,
        Some(&gate),
    )
    .await;
    let written = gate.status.into_inner();
    finish(&object, &api, outcome, written, requested, context).await
}

/// Adds our finalizer before anything is made outside.
async fn hold<K: Kind>(object: &K, api: &Api<K>) -> Result<()> {
    if object
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == FINALIZER)
    {
        return Ok(());
    }
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    set_finalizers(object, api, finalizers).await
}

/// The version is part of the patch: a list can only be replaced whole, and others have finalizers too.
async fn set_finalizers<K: Kind>(object: &K, api: &Api<K>, finalizers: Vec<String>) -> Result<()> {
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": object.resource_version()}});
    let params = PatchParams {
        field_manager: Some(MANAGER.into()),
        ..PatchParams::default()
    };
    let (name, patch) = (object.name_any(), Patch::Merge(patch));
    kubernetes::call(
        "setting the finalizer",
        api.patch_metadata(&name, &params, &patch),
    )
    .await
    .map(drop)
}

/// From the outcome to the final status, the finalizer, and when to look again.
async fn finish<K: Kind>(
    object: &K,
    api: &Api<K>,
    outcome: Outcome<K>,
    written: K::Status,
    requested: Option<String>,
    context: &Context,
) -> Result<Done> {
    let uid = object.uid().unwrap_or_default();
    let deleting = object.meta().deletion_timestamp.is_some();
    let failure = decisive(&outcome);
    let progress = outcome.places.iter().any(|place| place.report.done > 0);
    let superseded = outcome
        .failures()
        .any(|(_, error)| error.class == Class::Superseded);
    if superseded {
        // Whatever was done will be seen by the run that supersedes this one.
        return Ok(Done {
            action: Action::requeue(Duration::from_secs(1)),
            outcome: Class::Superseded.label(),
            wrote: progress,
        });
    }
    let mut status = written.clone();
    status.targets().retain(|target| !is_left(&outcome, target));
    if deleting && status.targets().is_empty() && failure.is_none() {
        let others = object
            .finalizers()
            .iter()
            .filter(|name| *name != FINALIZER)
            .cloned()
            .collect();
        set_finalizers(object, api, others).await?;
        context.forget(&uid);
        return Ok(Done {
            wrote: true,
            ..Done::idle()
        });
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
        Findings::default()
    } else {
        let unread = context.backoff.read(&uid, outcome.is_observed());
        let stale = unread >= STALE.max(context.poll_interval * 5);
        object.report(&outcome, &mut status, Moment { now, stale })
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
    let before = status.conditions().clone();
    let view = Before {
        conditions: &before,
        generation: object.meta().generation,
        now,
    };
    let keep = match &outcome.inputs {
        Some(Ok(_)) => Keep::These(findings.unknown),
        _ => Keep::All,
    };
    *status.conditions() = conditions(&view, &phase, findings.verdicts, &keep);
    *status.observed_generation() = object.meta().generation;
    *status.last_handled_reconcile_at() = requested;
    write_status(object, &written, &status, context).await?;

    let ready = status
        .conditions()
        .iter()
        .find(|condition| condition.type_ == "Ready");
    context
        .metrics
        .object(K::KIND, &uid, ready.map_or("", |ready| &ready.reason));

    let poll = spread(context.poll_interval);
    let soon = poll.min(findings.again.unwrap_or(poll));
    let wait = match failure {
        None => soon,
        // As the other side's trouble goes for reading too, everything waits.
        Some((class, _)) if class.passes() || !outcome.is_observed() => {
            jittered(class, failures).unwrap_or(poll)
        }
        // The rest of the object is in place and is watched as ever; what was denied or refused is
        // not tried again before its time.
        Some((class, _)) => jittered(class, failures).unwrap_or(poll).min(soon),
    };
    context.backoff.due(&uid, wait);
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
    Ok(Done {
        action: Action::requeue(wait),
        outcome: label,
        wrote,
    })
}

/// Whether nothing of ours is left in a place where the object does not belong any more.
fn is_left<K: Kind>(outcome: &Outcome<K>, target: &Target) -> bool {
    outcome.places.iter().any(|place| {
        !place.current
            && place.target.same_place(target)
            && place.lanes.is_ok()
            && place.report.is_settled()
    })
}

fn list(targets: &[Target]) -> String {
    targets
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// Server-side apply of the whole status, only if it changed. The one place that writes it.
pub async fn write_status<K: Kind>(
    object: &K,
    before: &K::Status,
    after: &K::Status,
    context: &Context,
) -> Result<()> {
    #[derive(Serialize, Debug)]
    struct Body<'a, S> {
        #[serde(flatten)]
        types: TypeMeta,
        metadata: Meta<'a>,
        status: &'a S,
    }
    /// So that another object of the same name, made meanwhile, does not get this one's status.
    #[derive(Serialize, Debug)]
    struct Meta<'a> {
        uid: &'a str,
    }
    if before == after {
        return Ok(());
    }
    // A successor may have written a newer one.
    if context
        .lease
        .as_ref()
        .is_some_and(|lease| lease.remaining() < kubernetes::CALL_LIMIT)
    {
        return Err(Error::new(Class::Superseded, "the lease is running out"));
    }
    let api = Api::<K>::namespaced(
        context.client.clone(),
        &object.namespace().unwrap_or_default(),
    );
    let (name, uid) = (object.name_any(), object.uid().unwrap_or_default());
    let patch = Patch::Apply(Body {
        types: TypeMeta::resource::<K>(),
        metadata: Meta { uid: &uid },
        status: after,
    });
    let params = PatchParams::apply(MANAGER).force();
    let patched = api.patch_status(&name, &params, &patch);
    match kubernetes::call_if_there("writing the status", patched).await? {
        Some(_) => Ok(()),
        None => Err(Error::new(Class::Superseded, "the object is gone")),
    }
}
