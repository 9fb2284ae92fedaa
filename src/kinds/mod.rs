//! What the four kinds have in common, and the one way in which an object is carried out: by the
//! controller through a gate, by `campanile plan` without one.

pub mod alarm_set;
pub mod cluster_view;
pub mod installation;
pub mod mark;
pub mod names;
pub mod slack_channel;
pub mod tenant;

use crate::{
    api::{ACCOUNT_BINDING, AwsTarget, DeletionPolicy, DriftEntry, DriftPolicy},
    engine::{
        error::{Class, Error, On, Result},
        informer::{ReadOptions, Subscriber},
        plan::Step,
        scope_pool::{Scope, ScopePool},
        stage::{DynStage, Failure, Gate, Origin, Report, Run, drive},
    },
    kinds::{
        cluster_view::{ClusterView, Purpose},
        installation::Installation,
    },
};
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{Resource, ResourceExt};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeSet,
    fmt::{Debug, Display},
    future::Future,
    sync::Arc,
    time::Duration,
};

/// Where an object acts, as its status records it: an AWS account and Region, Slack by a token.
pub trait Target: Clone + Debug + Display + PartialEq + Send + Sync + 'static {
    /// Whether both mean the same place; the way there may be another.
    fn same_place(&self, other: &Self) -> bool;
    /// What tells places apart, whatever the way there.
    fn place(&self) -> String;
    /// The AWS account, where it is in one.
    fn account(&self) -> Option<&str> {
        None
    }
    /// The Region, where it is in one.
    fn region(&self) -> Option<&str> {
        None
    }
}

impl Target for AwsTarget {
    fn same_place(&self, other: &Self) -> bool {
        self.place() == other.place()
    }

    fn place(&self) -> String {
        format!("{}/{}/{}", self.account_id, self.region, self.prefix)
    }

    fn account(&self) -> Option<&str> {
        Some(&self.account_id)
    }

    fn region(&self) -> Option<&str> {
        Some(&self.region)
    }
}

/// Where the objects of a kind act.
pub type TargetOf<K> = <<K as Kind>::Status as Status>::Target;

/// What opens the way to where the objects of a kind act.
pub type CredentialsOf<K> = <<K as Kind>::Watch as Scope>::Credentials;

/// The part of status that all kinds have.
pub struct Common<'a> {
    /// The conditions.
    pub conditions: &'a mut Vec<Condition>,
    /// The generation that was attempted last.
    pub observed_generation: &'a mut Option<i64>,
    /// The echo of the annotation that asks for a reconcile.
    pub last_handled_reconcile_at: &'a mut Option<String>,
    /// A digest of what was last applied completely.
    pub applied_digest: &'a mut Option<String>,
    /// What came about outside and was not repaired.
    pub drift: &'a mut Vec<DriftEntry>,
    /// How much of it there is.
    pub drift_count: &'a mut Option<i32>,
}

/// A kind's status.
pub trait Status: Clone + Debug + Default + PartialEq + Serialize + Send + Sync + 'static {
    /// Where it acts.
    type Target: Target;
    /// The part that all kinds have.
    fn common(&mut self) -> Common<'_>;
    /// Where things were made.
    fn targets(&mut self) -> &mut Vec<Self::Target>;
    /// The conditions.
    fn conditions(&mut self) -> &mut Vec<Condition> {
        self.common().conditions
    }
}

/// What the spec says about how the object is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policies {
    /// Nothing is read or written outside.
    pub suspend: bool,
    /// What is done about what came about outside.
    pub drift: DriftPolicy,
    /// What becomes of what was made when the object is deleted.
    pub deletion: DeletionPolicy,
}

/// The stages of a kind, in order.
pub trait Stages: Send {
    /// As the engine runs them.
    fn row(&mut self) -> Vec<&mut dyn DynStage>;
}

/// A condition that only one kind has. Its time of transition and generation are added later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionUpdate {
    /// The condition's type.
    pub type_: &'static str,
    /// True, False, or Unknown.
    pub holds: Option<bool>,
    /// A CamelCase word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// When an object is reported on.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The time.
    pub now: Timestamp,
    /// Whether the outside has not been read for so long that what was read last says nothing any more.
    pub stale: bool,
}

/// What a kind adds to what all kinds report.
#[derive(Debug, Default)]
pub struct StatusUpdate {
    /// Conditions of its own.
    pub conditions: Vec<ConditionUpdate>,
    /// What `Ready` says when nothing is wrong.
    pub summary: String,
    /// Conditions of its own of which nothing is known now; they stay as they were.
    pub unknown: Vec<&'static str>,
    /// How far it is, for an object that is throttled: `812 of 1000`.
    pub progress: Option<String>,
    /// When to look again, if sooner than usual.
    pub again: Option<Duration>,
    /// How many alarms are in which state, for kinds that have any.
    pub alarms: Vec<(&'static str, i64)>,
}

/// Where an object is carried out, and with what.
pub struct StageContext<'a, K: Kind> {
    /// The account and Region, or what stands for them.
    pub target: &'a TargetOf<K>,
    /// What is watched there, and clients that act there.
    pub watch: Arc<K::Watch>,
    /// Who asks, and how fresh the answers must be.
    pub options: &'a ReadOptions,
    /// What the object refers to; `None` where nothing is wanted any more.
    pub inputs: Option<&'a K::Inputs>,
    /// This installation.
    pub installation: &'a Installation,
    /// What was recorded before this run.
    pub status: &'a K::Status,
}

/// One of the kinds.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
    + 'static
{
    /// Its name in the API.
    const KIND: &'static str;
    /// What is written to `.status`.
    type Status: Status;
    /// What the spec refers to, as read.
    type Inputs: Send + Sync;
    /// Its stages.
    type Stages: Stages;
    /// What is watched for it.
    type Watch: Scope;

    /// The status as it was read.
    fn status(&self) -> Option<&Self::Status>;
    /// What the spec says about how it is carried out.
    fn policies(&self) -> Policies;
    /// What the keys begin with that it wants to know of, in a place.
    fn watched_keys(
        &self,
        target: &TargetOf<Self>,
        installation: &Installation,
    ) -> BTreeSet<String>;
    /// Reads what the spec refers to. Fails only if nothing at all can be done without it.
    fn dereference(
        &self,
        cluster: &ClusterView<'_>,
    ) -> impl Future<Output = Result<Self::Inputs>> + Send;
    /// Where the object acts; `None` if nowhere.
    fn target(&self, inputs: &Self::Inputs, installation: &Installation) -> Option<TargetOf<Self>>;
    /// What opens the way there. Without the inputs, where the object is being deleted and they are gone.
    fn access(
        &self,
        target: &TargetOf<Self>,
        inputs: Result<&Self::Inputs, &Error>,
        installation: &Installation,
    ) -> Result<CredentialsOf<Self>>;
    /// Its stages in one place.
    fn stages(&self, place: &StageContext<'_, Self>) -> Self::Stages;
    /// Whether nothing is known of an object while this is so: a stage that cannot look.
    fn is_vital(_failure: &Failure) -> bool {
        true
    }
    /// Whether status says for certain that nothing was made, so that nothing is to be cleaned up.
    fn made_nothing(_status: &Self::Status) -> bool {
        false
    }
    /// What status says of an object that was never looked at before.
    fn set_initial_status(_status: &mut Self::Status) {}
    /// Notes in status that a thing is about to be made which would be made twice if we forgot.
    fn intend(status: &mut Self::Status, step: &Step);
    /// Notes in status what the outside calls the thing that was made.
    fn record(_status: &mut Self::Status, _step: &Step, _id: &str) {}
    /// What status says of an object wherever it stands. Pure.
    fn set_spec_status(&self, _status: &mut Self::Status, _installation: &Installation) {}
    /// Writes what was found into status: everything but what all kinds have. Pure.
    fn report(
        &self,
        outcome: &Outcome<Self>,
        status: &mut Self::Status,
        clock: Clock,
    ) -> StatusUpdate;
}

/// What came of an object in one place.
pub struct VisitOutcome<K: Kind> {
    /// Where.
    pub target: TargetOf<K>,
    /// What led there, or would have.
    pub access: Result<CredentialsOf<K>>,
    /// Whether this is where the object belongs now, and not a place that it left.
    pub current: bool,
    /// Its stages as they were at the end; the error if one could not even get there.
    pub stages: Result<K::Stages>,
    /// What was planned and what came of it.
    pub report: Report,
    /// A digest of what is wanted there; `None` if one could not even get there.
    pub digest: Option<String>,
    /// Where the differences came from.
    pub origin: Origin,
}

impl<K: Kind> VisitOutcome<K> {
    /// What came about outside and is left as it is.
    pub fn reported_drift(&self) -> impl Iterator<Item = &Step> {
        let left = self.origin == Origin::Informer(DriftPolicy::Report);
        self.report.drift.iter().filter(move |_| left)
    }

    /// Whether all that can be made of what is wanted is there now. What is held back by the spec's own
    /// fault is not wanted until that is mended.
    pub fn is_applied(&self) -> bool {
        let Report {
            untried, failed, ..
        } = &self.report;
        let left = self.reported_drift().next().is_some();
        self.stages.is_ok() && *untried == 0 && failed.iter().all(|failure| failure.held) && !left
    }
}

/// What came of an object.
pub struct Outcome<K: Kind> {
    /// What it refers to; the error if nothing could be done without it. `None` when it is being deleted.
    pub inputs: Option<Result<K::Inputs>>,
    /// Every place where it acts or has acted.
    pub places: Vec<VisitOutcome<K>>,
}

impl<K: Kind> Outcome<K> {
    /// The place where the object belongs now.
    pub fn current(&self) -> Option<&VisitOutcome<K>> {
        self.places.iter().find(|place| place.current)
    }

    /// Whether it was known where to look and could be looked at there, whatever became of the changes there.
    pub fn is_observed(&self) -> bool {
        let blind = |place: &VisitOutcome<K>| {
            let mut failed = place.report.failed.iter();
            place.stages.is_err()
                || failed.any(|failure| failure.key.is_none() && K::is_vital(failure))
        };
        !matches!(self.inputs, Some(Err(_))) && !self.places.iter().any(blind)
    }

    /// As which errors what failed is to be tried again. What failed for want of another thing goes with
    /// that one.
    pub fn again(&self) -> impl Iterator<Item = Error> {
        let inputs = self.inputs.iter().filter_map(|read| read.as_ref().err());
        let places = self.places.iter().flat_map(|place| {
            let unreachable = place.stages.as_ref().err().cloned();
            let failed = place.report.failed.iter().map(|failure| Error {
                class: failure.again(),
                ..failure.error.clone()
            });
            unreachable.into_iter().chain(failed)
        });
        let all = inputs.cloned().chain(places);
        all.filter(|error| error.class != Class::Waiting(On::Prerequisite))
    }

    /// Everything that failed, in the order in which it did; the key is absent where it concerns more than one thing.
    pub fn failures(&self) -> impl Iterator<Item = (Option<&str>, &Error)> {
        let inputs = self
            .inputs
            .iter()
            .filter_map(|inputs| inputs.as_ref().err().map(|error| (None, error)));
        let places = self.places.iter().flat_map(|place| {
            let unreachable = place.stages.as_ref().err().map(|error| (None, error));
            let failed = place
                .report
                .failed
                .iter()
                .map(|failure| (failure.key.as_deref(), &failure.error));
            unreachable.into_iter().chain(failed)
        });
        inputs.chain(places)
    }
}

/// A place to go to.
pub struct Visit<K: Kind> {
    /// Where, by the role that the object or its tenant names now.
    pub target: TargetOf<K>,
    /// What opens the way there.
    pub access: Result<CredentialsOf<K>>,
    /// The same place by the role that led there before, for cleaning up where the new one does not.
    pub before: Option<(TargetOf<K>, Result<CredentialsOf<K>>)>,
    /// Whether the object belongs there now.
    pub current: bool,
}

/// What an object refers to, and where it goes.
pub struct Prepared<K: Kind> {
    /// As in [`Outcome::inputs`].
    pub inputs: Option<Result<K::Inputs>>,
    /// Every place where it acts or has acted.
    pub destinations: Vec<Visit<K>>,
}

/// The first half of a run: nothing but reads of the cluster.
pub async fn prepare<K: Kind>(object: &K, cluster: &ClusterView<'_>) -> Prepared<K> {
    let mut status = object.status().cloned().unwrap_or_default();
    let recorded = status.targets().clone();
    // One that has our finalizer has been looked at, and one that has been looked at has conditions.
    let wiped = recorded.is_empty() && status.conditions().is_empty();
    let read = object.dereference(cluster).await;
    let belongs = read
        .as_ref()
        .ok()
        .and_then(|inputs| object.target(inputs, cluster.installation));
    let deleting = object.meta().deletion_timestamp.is_some();
    let access = |target: &TargetOf<K>| object.access(target, read.as_ref(), cluster.installation);
    let go = |target: TargetOf<K>, before: Option<TargetOf<K>>, current: bool| Visit {
        access: access(&target),
        before: before.map(|before| (before.clone(), access(&before))),
        target,
        current,
    };
    let mut destinations = Vec::new();
    if let Some(target) = belongs.clone().filter(|_| !deleting) {
        destinations.push(go(target, None, true));
    }
    if let Some(target) = belongs.clone().filter(|_| deleting && wiped) {
        destinations.push(go(target, None, false));
    }
    for known in recorded {
        match &belongs {
            // The role may have been changed to one that works, or to one that does not.
            Some(target) if target.same_place(&known) => {
                if deleting {
                    let before = (*target != known).then_some(known);
                    destinations.push(go(target.clone(), before, false));
                }
            }
            // Without the tenant nobody can say that the object does not belong there any more.
            None if !deleting && read.is_err() => {}
            _ => destinations.push(go(known, None, false)),
        }
    }
    // Where status was lost, only what it refers to says where it was: not to know is not to be nowhere.
    let lost = deleting
        && wiped
        && matches!(&read, Err(error) if error.class != Class::Waiting(On::Tenant));
    Prepared {
        inputs: (!deleting || lost).then_some(read),
        destinations,
    }
}

/// What an object is carried out with.
pub struct RunContext<'a, K: Kind> {
    /// What is watched, and clients.
    pub scopes: &'a ScopePool<K::Watch>,
    /// The cluster.
    pub cluster: &'a ClusterView<'a>,
    /// What every write passes; without it nothing is written.
    pub gate: Option<&'a dyn TargetGate<TargetOf<K>>>,
    /// Who asks, and how fresh the answers must be.
    pub options: ReadOptions,
}

/// A gate that is told of a place before the first write there.
pub trait TargetGate<T>: Gate {
    /// Records in status that this place is about to be written to. It has been reached, so what is
    /// made there can be cleaned up by the same way.
    fn record_target<'a>(&'a self, target: &'a T) -> BoxFuture<'a, Result<()>>;
}

impl<K: Kind> RunContext<'_, K> {
    /// Whether a namespace may act in an account at all. What a tenant writes into its spec does not say that.
    async fn admit(&self, namespace: &str, target: &TargetOf<K>) -> Result<()> {
        let bound = self.cluster.installation.require_account_binding;
        let Some(account) = target.account().filter(|_| bound) else {
            return Ok(());
        };
        let found = self.cluster.namespace(namespace).await?;
        let Some(found) = found else {
            // What is planned for a namespace that is not there yet is judged when it is.
            return match self.cluster.purpose {
                Purpose::Plan => Ok(()),
                Purpose::Act => Err(Error::failing(format!("Namespace {namespace} is gone"))),
            };
        };
        let bound = found.annotations().get(ACCOUNT_BINDING);
        if bound.is_some_and(|bound| bound == account) {
            return Ok(());
        }
        let bound = bound.map_or("no account".to_owned(), |bound| {
            format!("account {bound:?}")
        });
        Err(Error::new(
            Class::Denied,
            format!(
                "Namespace {namespace} is bound to {bound}, not to {account}: nothing is done there. If it is to be, the platform team annotates the Namespace with {ACCOUNT_BINDING}={account}"
            ),
        ))
    }

    /// What is watched in a place, by whichever way leads there; and that place, with that way.
    async fn reach(&self, destination: &Visit<K>, namespace: &str) -> Reached<K> {
        let Visit {
            target,
            access,
            before,
            current,
        } = destination;
        let go = async |access: &Result<CredentialsOf<K>>| {
            let access = match access {
                Ok(access) => access.clone(),
                // What is to be cleaned up may outlive the Secret by which it was made, but no right to use it.
                Err(error) => {
                    let outlived =
                        error.class.passes() || error.class == Class::Waiting(On::Secret);
                    let known = self.scopes.remembered(&self.options.uid);
                    known
                        .filter(|_| !current && outlived)
                        .ok_or_else(|| error.clone())?
                }
            };
            let watch = self.scopes.reach(&access).await?;
            Ok((access, watch))
        };
        let reached = match self.admit(namespace, target).await {
            Ok(()) => go(access).await,
            Err(refused) => Err(refused),
        };
        if let (Err(_), Some((before, access))) = (&reached, before)
            && self.admit(namespace, before).await.is_ok()
            && let Ok(reached) = go(access).await
        {
            return (before.clone(), Ok(reached));
        }
        (target.clone(), reached)
    }
}

/// A place, and what opened the way there with what is watched there.
type Reached<K> = (
    TargetOf<K>,
    Result<(CredentialsOf<K>, Arc<<K as Kind>::Watch>)>,
);

/// The second half: observes, plans, and through the gate, if there is one, applies.
pub async fn carry_out<K: Kind>(
    object: &K,
    prepared: Prepared<K>,
    status: &K::Status,
    run_context: RunContext<'_, K>,
) -> Outcome<K> {
    let namespace = object.namespace().unwrap_or_default();
    let installation = run_context.cluster.installation;
    let inputs = prepared
        .inputs
        .as_ref()
        .and_then(|inputs| inputs.as_ref().ok());
    let (applied, attempted) = {
        let mut known = status.clone();
        let common = known.common();
        // An edit that was taken back half way wants what was applied before, and does not have it: one of
        // them was never attempted to its end.
        let seen = common.observed_generation.unwrap_or_default();
        let attempted = object.meta().generation.unwrap_or_default() - seen <= 1;
        (common.applied_digest.take(), attempted)
    };
    let mut places = Vec::new();
    for destination in &prepared.destinations {
        let current = destination.current;
        let mut run = match run_context.gate {
            Some(gate) => Run::through(gate),
            None => Run::plan(),
        };
        let (target, reached) = run_context.reach(destination, &namespace).await;
        let access = reached.as_ref().map(|(access, _)| access.clone());
        let access = access.map_err(Clone::clone);
        let mut wanted = None;
        let stages = async {
            let (access, mut watch) = reached?;
            if let Some(gate) = run_context.gate {
                gate.record_target(&target).await?;
            }
            if current {
                let subscriber = Subscriber {
                    namespace: namespace.clone(),
                    name: object.name_any(),
                    watched_keys: object.watched_keys(&target, installation),
                };
                watch = run_context.scopes.subscribe(
                    &access,
                    watch,
                    &run_context.options.uid,
                    &subscriber,
                );
            }
            let mut stages = object.stages(&StageContext {
                target: &target,
                watch,
                options: &run_context.options,
                inputs: inputs.filter(|_| current),
                installation,
                status,
            });
            let digest = digest(&target, &mut stages);
            let before = applied
                .as_ref()
                .and_then(|applied| applied.split('-').next());
            if current && attempted && before == Some(&digest) {
                run.origin = Origin::Informer(object.policies().drift);
            }
            wanted = Some(format!("{digest}-{}", spec_digest(object)));
            drive(&mut stages.row(), &mut run).await;
            Ok(stages)
        }
        .await;
        let report = run.report;
        places.push(VisitOutcome {
            target,
            access,
            current,
            stages,
            report,
            digest: wanted,
            origin: run.origin,
        });
    }
    Outcome {
        inputs: prepared.inputs,
        places,
    }
}

/// A digest of all that is wanted in a place.
fn digest(target: &impl Target, stages: &mut impl Stages) -> String {
    let mut digest = Sha256::new_with_prefix(format!("{}\n", target.place()));
    for stage in stages.row() {
        stage.digest(&mut digest);
    }
    hex(digest)
}

/// What was applied, of an object that wants nothing outside.
pub fn applied_nowhere<K: Kind>(object: &K) -> String {
    format!("-{}", spec_digest(object))
}

/// A digest of a spec but for whether it is suspended.
fn spec_digest<K: Kind>(object: &K) -> String {
    let mut object = serde_json::to_value(object).unwrap_or_default();
    let mut spec = object.get_mut("spec").map(Value::take).unwrap_or_default();
    if let Some(fields) = spec.as_object_mut() {
        fields.remove("suspend");
    }
    hex(Sha256::new_with_prefix(spec.to_string()))
}

/// Whether the spec, but for being suspended, is what was last applied completely.
pub fn is_applied<K: Kind>(object: &K) -> bool {
    let mut status = object.status().cloned().unwrap_or_default();
    let applied = status.common().applied_digest.take();
    let applied = applied
        .as_ref()
        .and_then(|applied| applied.split('-').nth(1));
    applied == Some(&spec_digest(object))
}

/// 16 hexadecimal characters.
fn hex(digest: Sha256) -> String {
    let digest = digest.finalize();
    let bytes = digest.iter().take(8);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}
