//! How an object acts in one outside system: an AWS account and Region, a Slack workspace. Each has its targets in
//! status, its credentials, its stages, and fails alone.

use super::{
    Kind, TargetView, cluster_view::ClusterView, installation::Installation, mark::Ownership,
};
use crate::engine::{
    applied::Applied,
    error::{Class, Error, Result, WaitingOn},
    gate::{Gate, StatusEdit},
    informer::{ReadOptions, Subscriber, Subscription},
    scope_pool::{Scope, ScopePools},
    stage::{AppliedBefore, DynStage, Failure, Patience, Report, Run, applied_after, drive},
};
use futures::future::join_all;
use kube::ResourceExt;
use std::{
    collections::BTreeMap,
    fmt::{Debug, Display},
    future::{self, Future},
    sync::Arc,
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// How long a place may leave a run of the controller without answers where no other is done: what another system came to is not in status
/// before. The first read of a large account waits for AWS's quotas meanwhile: the tags of 3,000 alarms take this long.
const VISIT_LIMIT: Duration = Duration::from_secs(300);

/// Where an object acts in a system, as its status records it. It holds no secret.
pub trait Target: Clone + Debug + Display + PartialEq + Send + Sync + 'static {
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
    /// Whether both mean the same place; the way there may be another.
    fn same_place(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
    /// For people.
    fn view(&self) -> TargetView {
        TargetView {
            text: self.to_string(),
            account: self.account().map(str::to_owned),
            region: self.region().map(str::to_owned),
        }
    }
}

/// The stages of a system, in order.
pub trait Stages: Send + Sync {
    /// As the engine runs them.
    fn all(&mut self) -> Vec<&mut dyn DynStage>;
}

/// One outside system as a kind uses it.
pub trait System<K: Kind>: Sized + Send + Sync + 'static {
    /// What it is called in logs; no two systems of a kind share it.
    const NAME: &'static str;
    /// Where an object acts in it.
    type Target: Target;
    /// What is watched of it with one set of credentials.
    type Scope: Scope;
    /// What the object has there.
    type Stages: Stages;
    /// What it needs of what other systems of the kind have made; `()` where nothing.
    type From: Send + Sync;

    /// Where things were made.
    fn targets(status: &mut K::Status) -> &mut Vec<Self::Target>;
    /// Whether the object may act there at all: the cluster says that, and not the object's spec.
    fn admits(
        _object: &K,
        _target: &Self::Target,
        _cluster: &ClusterView<'_>,
    ) -> impl Future<Output = Result<()>> + Send {
        future::ready(Ok(()))
    }
    /// Where the object acts; `None` if nowhere.
    fn target(object: &K, inputs: &K::Inputs, installation: &Installation) -> Option<Self::Target>;
    /// What opens the way there. Without the inputs, where the object is being deleted and they are gone.
    fn credentials(
        object: &K,
        target: &Self::Target,
        inputs: Result<&K::Inputs, &Error>,
        installation: &Installation,
    ) -> Result<CredentialsOf<K, Self>>;
    /// Subscribes to what the object wants to know of in one place.
    fn subscribe(
        object: &K,
        context: &StageContext<'_, K, Self>,
        subscriber: &Subscriber,
    ) -> Vec<Subscription>;
    /// The stages of an object in one place. Without the inputs nothing is wanted there, and the policies of things
    /// that the spec names still hold: what is to be orphaned stays when the object is deleted, too.
    fn stages(object: &K, context: &StageContext<'_, K, Self>) -> Self::Stages;
    /// Whether nothing is known of an object while this is so: a stage that cannot look.
    fn is_vital(_failure: &Failure) -> bool {
        true
    }
}

/// What opens the way into a system.
pub type CredentialsOf<K, S> = <<S as System<K>>::Scope as Scope>::Credentials;

/// Where the stages of an object are run, and with what.
pub struct StageContext<'a, K: Kind, S: System<K>> {
    /// The place.
    pub target: &'a S::Target,
    /// What is watched there, and clients that act there.
    pub scope: Arc<S::Scope>,
    /// Who asks, and how fresh the answers must be.
    pub options: &'a ReadOptions,
    /// What the object refers to; `None` where nothing is wanted any more.
    pub inputs: Option<&'a K::Inputs>,
    /// This installation.
    pub installation: &'a Installation,
    /// Which things are the object's.
    pub ownership: &'a Ownership,
    /// What was recorded before this run.
    pub status: &'a K::Status,
    /// What other systems have made.
    pub from: &'a S::From,
}

/// What an object is carried out with.
pub struct RunContext<'a> {
    /// What is watched, and clients.
    pub systems: &'a ScopePools,
    /// The cluster.
    pub cluster: &'a ClusterView<'a>,
    /// What every write passes; without it nothing is written.
    pub gate: Option<&'a dyn Gate>,
    /// Who asks, and how fresh the answers must be.
    pub options: ReadOptions,
    /// The systems that failed lately and whose time has not come, with what they said: nothing is written there.
    pub held_back: BTreeMap<&'static str, Error>,
}

/// Visits the systems of one object.
pub struct Visitor<'a, K: Kind> {
    /// The object.
    pub object: &'a K,
    /// What was recorded before this run.
    pub status: &'a K::Status,
    /// What the object refers to.
    pub read: Result<&'a K::Inputs, &'a Error>,
    /// Which things are the object's.
    pub(super) ownership: Ownership,
    pub(super) deleting: bool,
    /// Whether status was lost.
    pub(super) wiped: bool,
    pub(super) edited: bool,
    pub(super) applied: Applied,
    /// Cancelled when the first place is done: from then on the others keep the object's status waiting.
    pub(super) place_done: CancellationToken,
    pub(super) context: RunContext<'a>,
}

/// What came of one place, without the types of its system.
#[derive(Debug)]
pub struct VisitReport {
    /// The system.
    pub system: &'static str,
    /// Where.
    pub place: TargetView,
    /// Whether this is where the object belongs now, and not a place that it left.
    pub current: bool,
    /// Whether one could get there.
    pub reached: Result<()>,
    /// Whether all that is vital could be looked at.
    pub observed: bool,
    /// What was planned and what came of it.
    pub report: Report,
    /// What is applied there now, thing by thing; `None` if one could not even get there.
    pub applied: Option<Applied>,
}

impl VisitReport {
    /// Whether all that can be made of what is wanted is there now. What is held back by the spec's own
    /// fault is not wanted until that is mended.
    pub fn is_applied(&self) -> bool {
        let Report {
            untried,
            failed,
            reported,
            ..
        } = &self.report;
        let failed = failed.iter().any(|failure| !failure.blocked);
        self.reached.is_ok() && *untried == 0 && !failed && reported.is_empty()
    }

    /// Whether nothing is left to be done there.
    pub fn is_settled(&self) -> bool {
        self.reached.is_ok() && self.report.is_settled()
    }

    /// Whether every stage could be looked at.
    pub fn is_seen(&self) -> bool {
        let mut failed = self.report.failed.iter();
        self.reached.is_ok() && failed.all(|failure| failure.key.is_some())
    }

    /// Everything that failed, in order.
    pub fn failures(&self) -> impl Iterator<Item = (Option<&str>, &Error)> {
        let unreachable = self.reached.as_ref().err().map(|error| (None, error));
        let failed = self.report.failed.iter();
        let failed = failed.map(|failure| (failure.key.as_deref(), &failure.error));
        unreachable.into_iter().chain(failed)
    }
}

/// What came of one place.
pub struct Visit<K: Kind, S: System<K>> {
    /// Where.
    pub target: S::Target,
    /// What came of it.
    pub report: VisitReport,
    /// Its stages as they were at the end; `None` if one could not even get there.
    pub stages: Option<S::Stages>,
}

/// What came of a system: every place where the object acts or has acted.
pub struct SystemVisits<K: Kind, S: System<K>>(pub Vec<Visit<K, S>>);

impl<K: Kind, S: System<K>> SystemVisits<K, S> {
    /// The place where the object belongs now.
    pub fn current(&self) -> Option<&Visit<K, S>> {
        self.0.iter().find(|visit| visit.report.current)
    }
}

/// What came of a system, without its types.
pub trait Visited<K: Kind>: Send + Sync {
    /// What the system is called.
    fn name(&self) -> &'static str;
    /// What came of each place.
    fn reports(&self) -> Vec<&VisitReport>;
    /// Takes the places out of status where the object does not belong any more and of which `is_left` says that
    /// nothing is to be done there. The others are there, whatever status had lost.
    fn update_targets(&self, status: &mut K::Status, is_left: &dyn Fn(&VisitReport) -> bool);
}

impl<K: Kind, S: System<K>> Visited<K> for SystemVisits<K, S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn reports(&self) -> Vec<&VisitReport> {
        self.0.iter().map(|visit| &visit.report).collect()
    }

    fn update_targets(&self, status: &mut K::Status, is_left: &dyn Fn(&VisitReport) -> bool) {
        let targets = S::targets(status);
        for visit in self.0.iter().filter(|visit| !visit.report.current) {
            let known = targets
                .iter()
                .position(|target| visit.target.same_place(target));
            match (known, is_left(&visit.report)) {
                (Some(known), true) => drop(targets.remove(known)),
                (None, false) => targets.push(visit.target.clone()),
                _ => {}
            }
        }
    }
}

/// What came of all systems of a kind, without their types.
pub trait Visits<K: Kind>: Send + Sync {
    /// One by one.
    fn systems(&self) -> Vec<&dyn Visited<K>>;
}

impl<K: Kind, S: System<K>> Visits<K> for SystemVisits<K, S> {
    fn systems(&self) -> Vec<&dyn Visited<K>> {
        vec![self]
    }
}

/// A place to go to.
struct Destination<K: Kind, S: System<K>> {
    /// Where, by the role that the object or its tenant names now.
    target: S::Target,
    /// The same place by the role that led there before, for cleaning up where the new one does not.
    before: Option<S::Target>,
    /// Whether the object belongs there now.
    current: bool,
}

impl<K: Kind> Visitor<'_, K> {
    /// Visits one system: every place there where the object acts or has acted. `from` is what it needs of those that
    /// were visited before.
    pub async fn visit<S: System<K>>(&self, from: S::From) -> SystemVisits<K, S> {
        let destinations = self.destinations::<S>().into_iter();
        let visits = destinations.map(|destination| self.visit_place::<S>(destination, &from));
        let visits = join_all(visits).await;
        let stays = |visit: &Visit<K, S>| visit.report.current && visit.stages.is_some();
        if !visits.iter().any(stays) {
            // Where it may not go, or cannot, nothing is watched for it either.
            let uid = &self.context.options.uid;
            if let Ok(pool) = self.context.systems.of::<S::Scope>() {
                pool.unsubscribe(uid, Some(S::NAME));
            }
        }
        SystemVisits(visits)
    }

    /// Where to go: where the object belongs, and where it has been.
    fn destinations<S: System<K>>(&self) -> Vec<Destination<K, S>> {
        let recorded = S::targets(&mut self.status.clone()).clone();
        let installation = self.context.cluster.installation;
        let inputs = self.read.ok();
        let belongs = inputs.and_then(|inputs| S::target(self.object, inputs, installation));
        let go = |target: S::Target, before: Option<S::Target>, current: bool| Destination {
            target,
            before,
            current,
        };
        let mut all = Vec::new();
        let here = belongs.clone().filter(|_| !self.deleting || self.wiped);
        all.extend(here.map(|target| go(target, None, !self.deleting)));
        for known in recorded {
            match &belongs {
                // The role may have been changed to one that works, or to one that does not.
                Some(target) if target.same_place(&known) => {
                    if self.deleting {
                        let before = (*target != known).then_some(known);
                        all.push(go(target.clone(), before, false));
                    }
                }
                // Without the tenant nobody can say that the object does not belong there any more.
                None if !self.deleting && self.read.is_err() => {}
                _ => all.push(go(known, None, false)),
            }
        }
        all
    }

    async fn visit_place<S: System<K>>(
        &self,
        destination: Destination<K, S>,
        from: &S::From,
    ) -> Visit<K, S> {
        let RunContext {
            systems,
            cluster,
            gate,
            options,
            held_back,
        } = &self.context;
        let current = destination.current;
        let mut patience = match gate {
            Some(_) => {
                let place = destination.target.to_string();
                // Nothing polls where the object does not belong any more: what is cut off there begins anew.
                let hurried = current.then(|| self.place_done.clone());
                Patience::new(place, VISIT_LIMIT, hurried.unwrap_or_default())
            }
            // Nothing else waits for what is only planned.
            None => Patience::default(),
        };
        let (target, reached) = self.reach::<S>(destination, &mut patience).await;
        let place = target.place();
        let applied_before = self.applied.system(S::NAME);
        let before = AppliedBefore {
            applied: &applied_before,
            drift: self.object.policies().drift,
        };
        let before = Some(before).filter(|_| current && !self.edited);
        let run = Run::new(*gate, &place).since(before).within(patience);
        let mut run = run.held_back(held_back.get(S::NAME).cloned());
        let mut applied = None;
        let stages = async {
            let (credentials, scope) = reached?;
            if let Some(gate) = gate {
                // It has been reached, so what is made there can be cleaned up by the same way.
                gate.edit(&record_target::<K, S>(&target)).await?;
            }
            let context = StageContext {
                target: &target,
                scope,
                options,
                inputs: self.read.ok().filter(|_| current),
                installation: cluster.installation,
                ownership: &self.ownership,
                status: self.status,
                from,
            };
            if current {
                let subscriber = Subscriber {
                    kind: K::KIND,
                    namespace: self.object.namespace().unwrap_or_default(),
                    name: self.object.name_any(),
                    uid: options.uid.clone(),
                };
                let subscriptions = S::subscribe(self.object, &context, &subscriber);
                let (pool, scope) = (systems.of::<S::Scope>()?, context.scope.clone());
                pool.subscribe(S::NAME, subscriber, credentials, scope, subscriptions);
            }
            let mut stages = S::stages(self.object, &context);
            let mut all = stages.all();
            drive(&mut all, &mut run).await;
            applied = Some(applied_after(&all, &place, &applied_before));
            Ok(stages)
        }
        .await;
        self.place_done.cancel();
        let report = run.report;
        let blind = |failure: &Failure| failure.key.is_none() && S::is_vital(failure);
        let (stages, reached) = match stages {
            Ok(stages) => (Some(stages), Ok(())),
            Err(error) => (None, Err(error)),
        };
        let report = VisitReport {
            system: S::NAME,
            place: target.view(),
            current,
            observed: reached.is_ok() && !report.failed.iter().any(blind),
            reached,
            report,
            applied,
        };
        Visit {
            target,
            report,
            stages,
        }
    }

    /// What is watched in a place, by whichever way leads there; and that place, with that way.
    async fn reach<S: System<K>>(
        &self,
        destination: Destination<K, S>,
        patience: &mut Patience,
    ) -> Reached<K, S> {
        let Destination {
            target,
            before,
            current,
        } = destination;
        let reached = self.open::<S>(&target, current, patience).await;
        if let (Err(_), Some(before)) = (&reached, before)
            && let Ok(reached) = self.open::<S>(&before, current, patience).await
        {
            return (before, Ok(reached));
        }
        (target, reached)
    }

    async fn open<S: System<K>>(
        &self,
        target: &S::Target,
        current: bool,
        patience: &mut Patience,
    ) -> Opened<K, S> {
        S::admits(self.object, target, self.context.cluster).await?;
        let (pool, options) = (
            self.context.systems.of::<S::Scope>()?,
            &self.context.options,
        );
        let installation = self.context.cluster.installation;
        let credentials = match S::credentials(self.object, target, self.read, installation) {
            Ok(credentials) => credentials,
            // What is to be cleaned up may outlive the Secret by which it was made, but no right to use it.
            Err(error) => {
                use WaitingOn::{Never, Secret};
                let outlived =
                    error.class.passes() || matches!(error.class, Class::Waiting(Secret | Never));
                let known = pool.remembered(&options.uid, S::NAME);
                known.filter(|_| !current && outlived).ok_or(error)?
            }
        };
        let scope = patience.wait(pool.reach(&credentials, options)).await?;
        Ok((credentials, scope))
    }
}

/// The way into a place, and what is watched there.
type Opened<K, S> = Result<(CredentialsOf<K, S>, Arc<<S as System<K>>::Scope>)>;

/// A place, with the way that leads there.
type Reached<K, S> = (<S as System<K>>::Target, Opened<K, S>);

fn record_target<K: Kind, S: System<K>>(target: &S::Target) -> StatusEdit {
    let target = target.clone();
    StatusEdit::new(move |status: &mut K::Status| {
        let targets = S::targets(status);
        match targets.iter_mut().find(|known| known.same_place(&target)) {
            Some(known) => *known = target.clone(),
            None => targets.push(target.clone()),
        }
    })
}

#[cfg(test)]
pub(crate) mod tests;
