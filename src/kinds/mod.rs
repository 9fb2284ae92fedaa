//! What a kind is: what it refers to, the systems that it acts in, and what its status says of them. Each kind has a
//! module of its own.
//!
//! | module | what lives in it |
//! |---|---|
//! | [`alarm_set`], [`tenant`], [`slack_channel`] | the kinds |
//! | [`job`] | how an object has work that outlives a run |
//! | [`system`] | how an object acts in one outside system: targets, credentials, a visit |
//! | [`systems`] | the systems that there are |
//! | [`aws_scope`] | what is watched of one AWS account, for all kinds |
//! | [`names`], [`mark`] | what things are called outside, and how ours are told from others' |
//! | [`cluster_view`] | what a kind may read of the cluster: from its API server, or from what is watched |
//! | [`stores`], [`grants`] | what is watched of the cluster: objects, and what Namespaces allow |
//! | [`overlay`] | what a plan takes from files instead |
//! | [`installation`] | what does not change while this process runs |

pub mod alarm_set;
pub mod attributes;
pub mod aws_scope;
pub mod cluster_view;
pub mod grants;
pub mod installation;
pub mod job;
pub mod mark;
pub mod names;
pub mod overlay;
pub mod slack_channel;
pub mod stores;
pub mod system;
pub mod systems;
pub mod tenant;

use crate::{
    api::{AppliedEntry, CommonStatus, DeletionPolicy, DriftPolicy},
    engine::{
        applied::Applied,
        error::{Class, Error, Result, WaitingOn},
        rendering::hex,
    },
};
use cluster_view::ClusterView;
use installation::Installation;
use jiff::Timestamp;
use job::{JobContext, JobState, KindJobs};
use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{Resource, ResourceExt, core::object::HasStatus};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeSet,
    fmt::Debug,
    future::{self, Future},
    time::Duration,
};
use system::{RunContext, System, SystemVisits, Visited, Visitor, Visits};
use tokio_util::sync::CancellationToken;

/// A kind's status.
pub trait Status: Clone + Debug + Default + PartialEq + Serialize + Send + Sync + 'static {
    /// The part that all kinds have.
    fn common(&mut self) -> &mut CommonStatus;
    /// Where things were made, in all systems.
    fn places(&self) -> Vec<TargetView>;
    /// Has recorded what `known` has of what was made: enough to find it again, to change and to delete it.
    fn take_records(&mut self, known: &Self);
    /// The same, and what it says of what was applied, and of what came to differ from that.
    fn restore(&mut self, known: &Self) {
        self.take_records(known);
        let mut known = known.clone();
        let (own, known) = (self.common(), known.common());
        own.applied = known.applied.take();
        own.applied_digest = known.applied_digest.take();
        own.drift = std::mem::take(&mut known.drift);
        own.drift_count = known.drift_count;
    }
    /// The conditions.
    fn conditions(&mut self) -> &mut Vec<Condition> {
        &mut self.common().conditions
    }
}

/// A place where an object acts, for people.
#[derive(Serialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetView {
    /// In words.
    #[serde(skip)]
    pub text: String,
    /// The AWS account, where it is in one.
    pub account: Option<String>,
    /// The Region, where it is in one.
    pub region: Option<String>,
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

impl ConditionUpdate {
    /// `holds`: a bool, or `None` for Unknown.
    pub fn new(
        type_: &'static str,
        holds: impl Into<Option<bool>>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        let (holds, message) = (holds.into(), message.into());
        Self {
            type_,
            holds,
            reason,
            message,
        }
    }
}

/// When an object is reported on.
#[derive(Clone, Copy, Debug)]
pub struct Clock<'a> {
    /// The time.
    pub now: Timestamp,
    /// The systems that have not been read for so long that what was read last says nothing any more.
    pub stale: &'a BTreeSet<&'static str>,
}

impl Clock<'_> {
    /// Whether this system has not been read for so long.
    pub fn is_stale<K: Kind, S: System<K>>(&self, _: &SystemVisits<K, S>) -> bool {
        self.stale.contains(S::NAME)
    }
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
    pub requeue_after: Option<Duration>,
    /// How many alarms are in which state, for kinds that have any.
    pub alarms: Vec<(&'static str, i64)>,
}

/// What is in a namespace, and can be read, written and watched.
pub trait NamespacedObject:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
    + 'static
{
}

impl<T> NamespacedObject for T where
    T: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize
        + Send
        + Sync
        + 'static
{
}

/// One of the kinds.
pub trait Kind: NamespacedObject + HasStatus<Status: Status> {
    /// Its name in the API.
    const KIND: &'static str;
    /// What the spec refers to, as read.
    type Inputs: Send + Sync;
    /// What came of each of its systems.
    type Visits: Visits<Self>;
    /// Whether its objects have jobs.
    const HAS_JOBS: bool = false;

    /// What the spec says about how it is carried out.
    fn policies(&self) -> Policies;
    /// The names of the Secrets that it refers to by itself.
    fn secret_names(&self) -> BTreeSet<&str> {
        BTreeSet::new()
    }
    /// Reads what the spec refers to. Fails only if nothing at all can be done without it.
    fn dereference(
        &self,
        cluster: &ClusterView<'_>,
    ) -> impl Future<Output = Result<Self::Inputs>> + Send;
    /// Visits its systems: side by side, but for what one makes and another needs.
    fn visit(visitor: &Visitor<'_, Self>) -> impl Future<Output = Self::Visits> + Send;
    /// Brings its job in line with what it wants, by [`JobContext::drive`].
    fn drive_job(
        &self,
        _context: &JobContext<'_, Self>,
    ) -> impl Future<Output = Result<JobState>> + Send {
        future::ready(Ok(JobState::default()))
    }
    /// Keeps the place of the job that its status claims, by [`Jobs::reserve`](crate::engine::jobs::Jobs::reserve).
    fn reserve_job(&self, _jobs: &KindJobs) -> Result<()> {
        Ok(())
    }
    /// Whether status says for certain that nothing was made, so that nothing is to be cleaned up.
    fn made_nothing(_status: &Self::Status) -> bool {
        false
    }
    /// The systems in which nothing may be removed yet, and why: other objects still need it there.
    fn holds_deletion(
        &self,
        _cluster: &ClusterView<'_>,
    ) -> impl Future<Output = Result<Option<(&'static str, Error)>>> + Send {
        future::ready(Ok(None))
    }
    /// Sets the fields of a status that was never written before.
    fn set_initial_status(_status: &mut Self::Status) {}
    /// Sets the status fields that depend on the spec alone. Pure.
    fn set_spec_status(&self, _status: &mut Self::Status, _installation: &Installation) {}
    /// Writes what was found into status: everything but what all kinds have. Pure.
    fn report(
        &self,
        outcome: &Outcome<Self>,
        status: &mut Self::Status,
        clock: Clock<'_>,
    ) -> StatusUpdate;
}

/// What came of an object.
pub struct Outcome<K: Kind> {
    /// What it refers to; the error if nothing could be done without it. `None` when it is being deleted.
    pub inputs: Option<Result<K::Inputs>>,
    /// What came of its systems.
    pub visits: K::Visits,
    /// What is applied now, thing by thing, in all systems.
    pub applied: Applied,
    /// Whether the spec was edited since it was attempted last.
    pub edited: bool,
    /// How it stands with its job.
    pub job: Result<JobState>,
}

impl<K: Kind> Outcome<K> {
    /// What came of every place where it acts or has acted.
    pub fn reports(&self) -> impl Iterator<Item = &system::VisitReport> {
        self.visits.systems().into_iter().flat_map(Visited::reports)
    }

    /// The same of the places where the object belongs now.
    pub fn current(&self) -> impl Iterator<Item = &system::VisitReport> {
        self.reports().filter(|visit| visit.current)
    }

    /// Of each system, whether it was known where to look and could be looked at where the object belongs now, whatever
    /// became of the changes there.
    pub fn observed(&self) -> impl Iterator<Item = (&'static str, bool)> {
        let read = !matches!(self.inputs, Some(Err(_)));
        let systems = self.visits.systems().into_iter();
        systems.map(move |system| {
            let reports = system.reports();
            let mut current = reports.iter().filter(|visit| visit.current);
            let seen = current.all(|visit| visit.observed);
            (system.name(), read && seen)
        })
    }

    /// As which errors what failed is to be tried again, and in which system. What failed for want of another thing
    /// goes with that one.
    pub fn retries(&self) -> impl Iterator<Item = (&'static str, Error)> {
        let inputs = self.inputs.iter().filter_map(|read| read.as_ref().err());
        let inputs = inputs.map(|error| ("", error.clone()));
        let visits = self.reports().flat_map(|visit| {
            let unreachable = visit.reached.as_ref().err().cloned();
            let failed = visit.report.failed.iter().map(|failure| Error {
                class: failure.retry_class(),
                ..failure.error.clone()
            });
            let all = unreachable.into_iter().chain(failed);
            all.map(|error| (visit.system, error))
        });
        let job = self.job.as_ref().err().map(|error| ("job", error.clone()));
        let all = inputs.chain(visits).chain(job);
        all.filter(|(_, error)| error.class != Class::Waiting(WaitingOn::Prerequisite))
    }

    /// Whether a newer edit, or the end of the process, ended the run.
    pub fn is_superseded(&self) -> bool {
        let mut failures = self.failures();
        failures.any(|(_, error)| error.class == Class::Superseded)
    }

    /// Everything that failed, in the order in which it did; the key is absent where it concerns more than one thing.
    pub fn failures(&self) -> impl Iterator<Item = (Option<&str>, &Error)> {
        let inputs = self.inputs.iter().filter_map(|read| read.as_ref().err());
        let visits = self.reports().flat_map(system::VisitReport::failures);
        let job = self.job.as_ref().err().map(|error| (None, error));
        inputs.map(|error| (None, error)).chain(visits).chain(job)
    }
}

/// Carries an object out: reads what it refers to, visits its systems, and through the gate, if there is one, applies.
pub async fn run<K: Kind>(object: &K, status: &K::Status, context: RunContext<'_>) -> Outcome<K> {
    let namespace = object.namespace().unwrap_or_default();
    let formers = context.cluster.formers(&namespace).await;
    let read = match &formers {
        Ok(_) => object.dereference(context.cluster).await,
        Err(error) => Err(error.clone()),
    };
    let formers = formers.unwrap_or_default();
    let mut known = status.clone();
    let common = known.common();
    let before = common.applied.take();
    let passed_over = has_passed_over(object, common);
    let same = |before: &AppliedEntry| !passed_over && before.spec == spec_digest(object);
    let edited = !before.as_ref().is_some_and(same);
    // One that has our finalizer has been looked at, and one that has been looked at has conditions. Those that its
    // deletion wrote say nothing of where it was before. What was applied was applied somewhere.
    let applied_once = before.is_some() || common.applied_digest.is_some();
    let mut conditions = common.conditions.iter();
    let unseen = applied_once || conditions.all(|it| it.reason == "Deleting");
    let wiped = status.places().is_empty() && unseen;
    let deleting = object.meta().deletion_timestamp.is_some();
    let applied = before.map(|before| before.things).unwrap_or_default();
    let visitor = Visitor {
        object,
        status,
        read: read.as_ref(),
        ownership: context.cluster.installation.ownership(object, &formers),
        deleting,
        wiped,
        edited,
        applied: if edited { applied.outdated() } else { applied },
        place_done: CancellationToken::new(),
        context,
    };
    let visits = Box::pin(K::visit(&visitor)).await;
    let mut applied = Applied::default();
    for system in visits.systems() {
        let mut current = system.reports().into_iter().filter(|visit| visit.current);
        let now = current.find_map(|visit| visit.applied.clone());
        // What could not be visited is remembered as it was.
        let before = || visitor.applied.system(system.name());
        applied.add_system(system.name(), now.unwrap_or_else(before));
    }
    // Where status was lost, only what the spec refers to says where things were made: the finalizer stays while that
    // cannot be read.
    let lost = deleting
        && wiped
        && matches!(&read, Err(error) if error.class != Class::Waiting(WaitingOn::Tenant));
    Outcome {
        inputs: (!deleting || lost).then_some(read),
        visits,
        applied,
        edited,
        job: Ok(JobState::default()),
    }
}

/// Whether an edit was never attempted to its end. One that was taken back half way wants what was applied before, and
/// does not have it.
fn has_passed_over<K: Kind>(object: &K, known: &CommonStatus) -> bool {
    let seen = known.observed_generation.unwrap_or_default();
    object.meta().generation.unwrap_or_default() - seen > 1
}

/// To be called before the generation is noted of an object of which nothing was attempted: what is applied is not known
/// where an edit was passed over.
pub fn note_not_attempted<K: Kind>(object: &K, known: &mut CommonStatus) {
    if has_passed_over(object, known) {
        forget_applied(known);
    }
}

/// The next run takes its spec for one that was edited.
pub fn forget_applied(known: &mut CommonStatus) {
    known.applied_digest = None;
    if let Some(applied) = &mut known.applied {
        applied.spec.clear();
    }
}

/// A digest of what a spec says of what is wanted.
pub fn spec_digest<K: Kind>(object: &K) -> String {
    let mut object = serde_json::to_value(object).unwrap_or_default();
    let mut spec = object.get_mut("spec").map(Value::take).unwrap_or_default();
    if let Some(fields) = spec.as_object_mut() {
        for how in ["suspend", "driftPolicy", "deletionPolicy"] {
            fields.remove(how);
        }
    }
    hex(&Sha256::digest(spec.to_string())[..8])
}

/// Whether the spec, but for being suspended, is what was last applied completely.
pub fn is_applied<K: Kind>(object: &K) -> bool {
    let mut status = object.status().cloned().unwrap_or_default();
    let applied = status.common().applied_digest.take();
    applied.is_some_and(|applied| applied == spec_digest(object))
}
