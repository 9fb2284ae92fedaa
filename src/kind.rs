//! What the four kinds have in common, and the one way in which an object is carried out: by the
//! controller through a gate, by `campanile plan` without one.

use crate::{
    api::Target,
    clients::{
        aws::{Account, Accounts, Identity},
        kubernetes,
    },
    error::{Error, Result},
    mark::{Cluster, Mark},
    plan::Step,
    secret::Digester,
    stage::{Gate, Lane, Report, Run, drive},
};
use jiff::Timestamp;
use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{Api, Resource, ResourceExt, api::ListParams};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt::Debug, future::Future, sync::Arc, time::Duration};

/// What does not change while this process runs.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Which installation of Campanile this is.
    pub cluster: Cluster,
    /// The role to assume where a tenant names none.
    pub tenant_role_name: String,
    /// Where PagerDuty takes events: scheme and host, no trailing slash.
    pub pagerduty_events_url: String,
    /// Digests of secrets.
    pub digester: Digester,
}

impl Installation {
    /// The mark of an object.
    pub fn mark<K: Kind>(&self, object: &K) -> Mark {
        Mark::of(
            &self.cluster,
            K::KIND,
            &object.namespace().unwrap_or_default(),
            &object.name_any(),
        )
    }
}

/// Why an object is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To carry it out: what it refers to must be there.
    Act,
    /// To say what would be done: what it refers to is taken as if it had been carried out.
    Plan,
}

/// What a kind may read while it finds out what its object refers to: the namespace around it.
pub struct Surroundings<'a> {
    /// The cluster's API.
    client: &'a kube::Client,
    /// This installation.
    pub installation: &'a Installation,
    /// Why we ask.
    pub purpose: Purpose,
}

impl<'a> Surroundings<'a> {
    /// The cluster as it is.
    pub fn new(client: &'a kube::Client, installation: &'a Installation, purpose: Purpose) -> Self {
        Self {
            client,
            installation,
            purpose,
        }
    }

    /// One object, if it is there.
    pub async fn get<T>(&self, namespace: &str, name: &str) -> Result<Option<T>>
    where
        T: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let doing = format!("reading {} {namespace}/{name}", T::kind(&()));
        kubernetes::call(
            &doing,
            Api::namespaced(self.client.clone(), namespace).get_opt(name),
        )
        .await
    }

    /// The objects of a namespace that a field selector finds.
    pub async fn list<T>(&self, namespace: &str, fields: &str) -> Result<Vec<T>>
    where
        T: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let doing = format!("listing {} in {namespace}", T::kind(&()));
        let api = Api::<T>::namespaced(self.client.clone(), namespace);
        let chosen = ListParams::default().fields(fields);
        Ok(kubernetes::call(&doing, api.list(&chosen)).await?.items)
    }
}

/// The part of status that all kinds have.
pub trait Status: Clone + Debug + Default + PartialEq + Serialize + Send + Sync + 'static {
    /// Where things were made.
    fn targets(&mut self) -> &mut Vec<Target>;
    /// The conditions.
    fn conditions(&mut self) -> &mut Vec<Condition>;
    /// The generation that was attempted last.
    fn observed_generation(&mut self) -> &mut Option<i64>;
    /// The echo of the annotation that asks for a reconcile.
    fn last_handled_reconcile_at(&mut self) -> &mut Option<String>;
}

/// The stages of a kind, in order.
pub trait Lanes: Send {
    /// As the engine runs them.
    fn row(&mut self) -> Vec<&mut dyn Lane>;
}

/// A condition that only one kind has. Its time of transition and generation are added later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
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
pub struct Moment {
    /// The time.
    pub now: Timestamp,
    /// Whether the outside has not been read for so long that what was read last says nothing any more.
    pub stale: bool,
}

/// What a kind adds to what all kinds report.
#[derive(Debug, Default)]
pub struct Findings {
    /// Conditions of its own.
    pub verdicts: Vec<Verdict>,
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
pub struct Place<'a, K: Kind> {
    /// The account and Region.
    pub target: &'a Target,
    /// Clients that act there.
    pub account: Arc<Account>,
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
    type Lanes: Lanes;

    /// The status as it was read.
    fn status(&self) -> Option<&Self::Status>;
    /// Reads what the spec refers to. Fails only if nothing at all can be done without it.
    fn dereference(
        &self,
        around: &Surroundings<'_>,
    ) -> impl Future<Output = Result<Self::Inputs>> + Send;
    /// Where the object acts; `None` if nowhere.
    fn target(&self, inputs: &Self::Inputs, installation: &Installation) -> Option<Target>;
    /// Its stages in one place.
    fn lanes(&self, place: &Place<'_, Self>) -> Self::Lanes;
    /// What status says of an object that was never looked at before.
    fn first_sight(_status: &mut Self::Status) {}
    /// Notes in status that a thing is about to be made which would be made twice if we forgot.
    fn intend(status: &mut Self::Status, step: &Step);
    /// Writes what was found into status: everything but targets and conditions. Pure.
    fn report(
        &self,
        outcome: &Outcome<Self>,
        status: &mut Self::Status,
        moment: Moment,
    ) -> Findings;
}

/// What came of an object in one place.
pub struct PlaceOutcome<K: Kind> {
    /// Where.
    pub target: Target,
    /// Whether this is where the object belongs now, and not a place that it left.
    pub current: bool,
    /// Its stages as they were at the end; the error if one could not even get there.
    pub lanes: Result<K::Lanes>,
    /// What was planned and what came of it.
    pub report: Report,
}

/// What came of an object.
pub struct Outcome<K: Kind> {
    /// What it refers to; the error if nothing could be done without it. `None` when it is being deleted.
    pub inputs: Option<Result<K::Inputs>>,
    /// Every place where it acts or has acted.
    pub places: Vec<PlaceOutcome<K>>,
}

impl<K: Kind> Outcome<K> {
    /// The place where the object belongs now.
    pub fn current(&self) -> Option<&PlaceOutcome<K>> {
        self.places.iter().find(|place| place.current)
    }

    /// Whether it was known where to look and could be looked at there, whatever became of the changes there.
    pub fn is_observed(&self) -> bool {
        let blind = |place: &PlaceOutcome<K>| {
            place.lanes.is_err()
                || place
                    .report
                    .failed
                    .iter()
                    .any(|failure| failure.key.is_none())
        };
        !matches!(self.inputs, Some(Err(_))) && !self.places.iter().any(blind)
    }

    /// Everything that failed, in the order in which it did; the key is absent where it concerns more than one thing.
    pub fn failures(&self) -> impl Iterator<Item = (Option<&str>, &Error)> {
        let inputs = self
            .inputs
            .iter()
            .filter_map(|inputs| inputs.as_ref().err().map(|error| (None, error)));
        let places = self.places.iter().flat_map(|place| {
            let unreachable = place.lanes.as_ref().err().map(|error| (None, error));
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
#[derive(Clone, Debug)]
pub struct Destination {
    /// Where, by the role that the object or its tenant names now.
    pub target: Target,
    /// The same place by the role that led there before, for cleaning up where the new one does not.
    pub before: Option<Target>,
    /// Whether the object belongs there now.
    pub current: bool,
}

/// What an object refers to, and where it goes.
pub struct Prepared<K: Kind> {
    /// As in [`Outcome::inputs`].
    pub inputs: Option<Result<K::Inputs>>,
    /// Every place where it acts or has acted.
    pub destinations: Vec<Destination>,
}

/// The first half of a run: nothing but reads of the cluster.
pub async fn prepare<K: Kind>(object: &K, around: &Surroundings<'_>) -> Prepared<K> {
    let mut status = object.status().cloned().unwrap_or_default();
    let recorded = status.targets().clone();
    // One that has our finalizer has been looked at, and one that has been looked at has conditions.
    let wiped = recorded.is_empty() && status.conditions().is_empty();
    let read = object.dereference(around).await;
    let belongs = read
        .as_ref()
        .ok()
        .and_then(|inputs| object.target(inputs, around.installation));
    let deleting = object.meta().deletion_timestamp.is_some();
    let left = |target: Target, before: Option<Target>| Destination {
        target,
        before,
        current: false,
    };
    let mut destinations = Vec::new();
    if let Some(target) = belongs.clone().filter(|_| !deleting) {
        destinations.push(Destination {
            target,
            before: None,
            current: true,
        });
    }
    if let Some(target) = belongs.clone().filter(|_| deleting && wiped) {
        destinations.push(left(target, None));
    }
    for known in recorded {
        match &belongs {
            // The role may have been changed to one that works, or to one that does not.
            Some(target) if target.same_place(&known) => {
                if deleting {
                    let before = (*target != known).then_some(known);
                    destinations.push(left(target.clone(), before));
                }
            }
            // Without the tenant nobody can say that the object does not belong there any more.
            None if !deleting && read.is_err() => {}
            _ => destinations.push(left(known, None)),
        }
    }
    Prepared {
        inputs: (!deleting).then_some(read),
        destinations,
    }
}

/// Clients that act in a place, by whichever role leads there; and that place, with that role.
async fn reach(
    destination: &Destination,
    external_id: &str,
    accounts: &Accounts,
) -> (Target, Result<Arc<Account>>) {
    let go = async |target: &Target| {
        let identity = Identity {
            role_arn: target.role_arn.clone(),
            external_id: external_id.to_owned(),
            account_id: target.account_id.clone(),
            region: target.region.clone(),
        };
        accounts.get(&identity).await
    };
    let reached = go(&destination.target).await;
    if let (Err(_), Some(before)) = (&reached, &destination.before)
        && let Ok(account) = go(before).await
    {
        return (before.clone(), Ok(account));
    }
    (destination.target.clone(), reached)
}

/// The second half: observes, plans, and through the gate, if there is one, applies.
pub async fn carry_out<K: Kind>(
    object: &K,
    prepared: Prepared<K>,
    status: &K::Status,
    accounts: &Accounts,
    around: &Surroundings<'_>,
    gate: Option<&dyn Gate>,
) -> Outcome<K> {
    let namespace = object.namespace().unwrap_or_default();
    let external_id = format!("{}/{namespace}", around.installation.cluster.name);
    let inputs = prepared
        .inputs
        .as_ref()
        .and_then(|inputs| inputs.as_ref().ok());
    let mut places = Vec::new();
    for destination in &prepared.destinations {
        let current = destination.current;
        let mut run = gate.map_or_else(Run::plan, Run::through);
        let (target, account) = reach(destination, &external_id, accounts).await;
        let lanes = async {
            let account = account?;
            if let Some(gate) = gate {
                gate.arrive(&target).await?;
            }
            let mut lanes = object.lanes(&Place {
                target: &target,
                account,
                inputs: inputs.filter(|_| current),
                installation: around.installation,
                status,
            });
            drive(&mut lanes.row(), &mut run).await;
            Ok(lanes)
        }
        .await;
        let report = run.report;
        places.push(PlaceOutcome {
            target,
            current,
            lanes,
            report,
        });
    }
    Outcome {
        inputs: prepared.inputs,
        places,
    }
}
