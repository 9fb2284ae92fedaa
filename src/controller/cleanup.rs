//! Cleans up after objects that have gone without our finalizer, which somebody else took off.

use super::{
    ASIDE, ControllerContext,
    conclusion::Ending,
    gate::{ObjectGate, RunHandle},
    reconcile::{conclude_run, record_abandoned},
};
use crate::{
    api::DeletionPolicy,
    engine::{
        informer::{Consistency, ReadOptions},
        limits::Priority,
    },
    kinds::{
        self, Kind, Status,
        cluster_view::{ClusterView, Purpose},
        stores::Watched,
    },
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{ResourceExt, runtime::reflector::ObjectRef};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// The pause where nothing says when to try again.
const PAUSE: Duration = Duration::from_secs(300);

/// Cleans up after one of them. What could not be done
/// by `--release-after`, or by the end of the process, is told to the audit log.
pub(super) async fn clean_up<K: Kind>(mut object: K, controller: Arc<ControllerContext<K>>) {
    let context = &controller.context;
    let (uid, namespace) = (
        object.uid().unwrap_or_default(),
        object.namespace().unwrap_or_default(),
    );
    object.meta_mut().deletion_timestamp = Some(Time(Timestamp::now()));
    let mut status = object.status().cloned().unwrap_or_default();
    let leave = |status: &K::Status, why: &str| {
        let left = status
            .places()
            .into_iter()
            .map(|place| (place.text, why.to_owned()));
        record_abandoned(&object, &left.collect::<Vec<_>>());
    };
    if object.policies().deletion == DeletionPolicy::Orphan {
        return leave(
            &status,
            "it was deleted without its finalizer, and deletionPolicy is Orphan",
        );
    }
    let name = ObjectRef::<Watched<K>>::new(&object.name_any()).within(&namespace);
    loop {
        if controller.store.get(&name).is_some() {
            return leave(&status, "another object of its name looks after it now");
        }
        let Some(permit) = context.pools.admit(&namespace, Priority::Edit).await else {
            sleep(ASIDE).await;
            continue;
        };
        let trace_id = format!("{:032x}", fastrand::u128(..));
        let handle = RunHandle {
            priority: Priority::Edit,
            trace_id: &trace_id,
            permit,
        };
        let superseded = context
            .object_memory
            .begin(&uid, object.meta().generation, None);
        let cluster = ClusterView::new(&context.client, &context.installation, Purpose::Act);
        let cluster = cluster.watched(&context.stores);
        let grants = cluster.grants(&namespace).await.unwrap_or_default();
        let gate = ObjectGate::new(
            &object,
            grants,
            &controller,
            handle,
            superseded.clone(),
            status.clone(),
        );
        let gate = gate.of_gone();
        let options = ReadOptions {
            uid: uid.clone(),
            priority: Priority::Edit,
            consistency: Consistency::Retried,
            since: Instant::now(),
            superseded,
        };
        let mut run_context = context.run_context(&cluster, &gate, options);
        // Where nobody can tell, the end of the wait does not hang on it.
        if let Ok(held) = object.holds_deletion(&cluster).await {
            run_context.held_back.extend(held);
        }
        let outcome = kinds::run(&object, &status, run_context).await;
        let written = gate.status.into_inner();
        let (conclusion, _) = conclude_run(&object, &outcome, &written, None, &controller);
        record_abandoned(&object, &conclusion.abandoned);
        match conclusion.ending {
            Ending::RemoveFinalizer => return controller.forget(&uid),
            Ending::Report(reported) => status = reported.status,
            Ending::Superseded => status = written,
        }
        let pause = sleep(conclusion.requeue.unwrap_or(PAUSE));
        if context.shutdown.run_until_cancelled(pause).await.is_none() {
            return leave(
                &status,
                "it was deleted without its finalizer, and the operator ends",
            );
        }
    }
}
