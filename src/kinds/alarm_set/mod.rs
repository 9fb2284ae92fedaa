//! AlarmSet: CloudWatch alarms of one tenant.

pub mod closing;
pub mod cloudwatch;
pub mod desired;
pub mod report;
pub mod stages;
pub mod tags;

use crate::{
    api::{
        self, ACCOUNT_REACHABLE, AlarmSet, AlarmSetStatus, AlarmState, AwsTarget, CommonStatus,
        Severity, TenantObservability,
    },
    clients::aws::Identity,
    engine::{
        error::{Class, Error, Result, WaitingOn},
        informer::{Subscriber, Subscription},
        plan::Owner,
        stage::{DynStage, StageRun},
    },
    kinds::{
        Clock, Kind, Outcome, Policies, Status, StatusUpdate, TargetView,
        aws_scope::{self, AwsScope},
        cluster_view::{ClusterView, Purpose},
        installation::Installation,
        names,
        system::{StageContext, Stages, System, SystemVisits, Target, Visitor},
        tenant,
    },
};
use desired::Wanted;
use kube::ResourceExt;
use stages::{Alarms, Tags};
use std::collections::{BTreeMap, BTreeSet};

/// What an AlarmSet refers to.
pub struct Inputs {
    /// Its tenant.
    pub tenant: TenantObservability,
    /// Whom alarms tell: the tenant's topics that exist and are ours, and those that its spec names.
    pub topics: BTreeMap<Severity, BTreeSet<String>>,
}

/// What of a tenant's status its AlarmSets go by; they are woken when it changes. The topics are what it
/// offers; a role that lets the tenant in will let them in as well, and they need not wait for their time.
pub fn offered(tenant: &TenantObservability) -> (Option<i64>, Option<&str>, Vec<(Severity, &str)>) {
    let status = tenant.status.as_ref();
    let topics = status.iter().flat_map(|status| &status.topics);
    let reachable =
        status.and_then(|status| api::condition(&status.common.conditions, ACCOUNT_REACHABLE));
    (
        status.and_then(|status| status.common.observed_generation),
        reachable.map(|reachable| reachable.status.as_str()),
        topics
            .map(|topic| (topic.severity, topic.arn.as_str()))
            .collect(),
    )
}

/// The stages of an AlarmSet.
pub struct AlarmSetStages {
    /// What the spec asks for, those included that cannot be made.
    pub wanted: Wanted,
    /// The alarms.
    pub alarms: StageRun<Alarms>,
    /// Their tags.
    pub tags: StageRun<Tags>,
}

impl Stages for AlarmSetStages {
    fn all(&mut self) -> Vec<&mut dyn DynStage> {
        vec![&mut self.alarms, &mut self.tags]
    }
}

impl Status for AlarmSetStatus {
    fn common(&mut self) -> &mut CommonStatus {
        &mut self.common
    }

    fn places(&self) -> Vec<TargetView> {
        self.targets.iter().map(Target::view).collect()
    }

    fn take_records(&mut self, known: &Self) {
        self.targets = known.targets.clone();
    }
}

impl Kind for AlarmSet {
    const KIND: &'static str = "AlarmSet";
    type Inputs = Inputs;
    type Visits = SystemVisits<Self, Aws>;

    fn policies(&self) -> Policies {
        Policies {
            suspend: self.spec.suspend,
            drift: self.spec.drift_policy,
            deletion: self.spec.deletion_policy,
        }
    }

    async fn dereference(&self, cluster: &ClusterView<'_>) -> Result<Inputs> {
        let (namespace, name) = (
            self.namespace().unwrap_or_default(),
            &self.spec.tenant_ref.name,
        );
        let waiting = |message: String| Error::new(Class::Waiting(WaitingOn::Tenant), message);
        let found = cluster.get::<TenantObservability>(&namespace, name).await?;
        let tenant = found.ok_or_else(|| {
            waiting(format!(
                "TenantObservability {namespace}/{name} does not exist: create it, or correct spec.tenantRef"
            ))
        })?;
        // On its way out, a set only asks where it was.
        let going = self.metadata.deletion_timestamp.is_some();
        if tenant.metadata.deletion_timestamp.is_some() && !going {
            return Err(waiting(format!(
                "TenantObservability {namespace}/{name} is being deleted; the alarms stay until this AlarmSet is deleted too"
            )));
        }
        if tenant.spec.aws.is_none() {
            return Err(waiting(format!(
                "TenantObservability {namespace}/{name} names no AWS account: add its aws block"
            )));
        }
        let attempted = tenant
            .status
            .as_ref()
            .and_then(|status| status.common.observed_generation);
        match cluster.purpose {
            // An alarm that points at a topic which is not there says so nowhere, so the topics come
            // first. Once the tenant has been looked at, its status says which there are.
            Purpose::Act if attempted.is_none() && !going => Err(waiting(format!(
                "TenantObservability {namespace}/{name} has not been applied yet; its topics come first"
            ))),
            Purpose::Plan if attempted.is_none() || attempted != tenant.metadata.generation => {
                let own = tenant::desired::topic_arns(&tenant, cluster.installation);
                let topics = tenant::desired::alarm_actions(&tenant, own);
                Ok(Inputs { tenant, topics })
            }
            Purpose::Act | Purpose::Plan => {
                let own = tenant.status.iter().flat_map(|status| &status.topics);
                let own = own.map(|topic| (topic.severity, topic.arn.clone()));
                let topics = tenant::desired::alarm_actions(&tenant, own.collect());
                Ok(Inputs { tenant, topics })
            }
        }
    }

    async fn visit(visitor: &Visitor<'_, Self>) -> Self::Visits {
        visitor.visit::<Aws>(()).await
    }

    fn report(
        &self,
        outcome: &Outcome<Self>,
        status: &mut AlarmSetStatus,
        clock: Clock<'_>,
    ) -> StatusUpdate {
        let current = outcome.visits.current();
        let stages = current.and_then(|visit| visit.stages.as_ref());
        let looked = stages.and_then(|stages| Some((stages, stages.alarms.seen.as_ref()?)));
        let Some((stages, seen)) = looked else {
            // What was read last stands for a while. Where we are locked out, nobody knows what fires.
            let mut failures = outcome.failures();
            let stale = clock.is_stale(&outcome.visits);
            if stale || failures.any(|(_, error)| error.class == Class::Denied) {
                (status.counts, status.alarms, status.omitted) = (None, Vec::new(), None);
            }
            return StatusUpdate::default();
        };
        let AlarmSetStages {
            wanted,
            alarms,
            tags,
        } = stages;
        let failures = wanted.alarms.blocked.iter().chain(&alarms.failed);
        let failures = failures.chain(&tags.failed).collect();
        let listing = report::listing(wanted, seen, &failures, &alarms.reported);
        status.counts = Some(listing.counts);
        status.alarms = listing.entries;
        status.omitted = listing.omitted;
        let states = seen.found.values().filter(|found| found.owner == Owner::Us);
        let states: Vec<_> = states.map(|found| found.live.state).collect();
        let in_state = |state: AlarmState| {
            let count = states.iter().filter(|found| **found == state).count();
            (state.into(), i64::try_from(count).unwrap_or(i64::MAX))
        };
        StatusUpdate {
            alarms: [
                AlarmState::Alarm,
                AlarmState::InsufficientData,
                AlarmState::Ok,
            ]
            .map(in_state)
            .to_vec(),
            progress: Some(format!(
                "{} of {}",
                listing.counts.applied, listing.counts.desired
            )),
            summary: match listing.counts.applied {
                1 => "1 alarm is in place".into(),
                n => format!("{n} alarms are in place"),
            },
            ..StatusUpdate::default()
        }
    }
}

impl AlarmSet {
    /// What the names of its alarms begin with.
    fn prefixes(&self, installation: &Installation) -> BTreeSet<String> {
        let (cluster, tenant) = (&installation.cluster.name, &self.spec.tenant_ref.name);
        names::alarm_set_prefixes(cluster, tenant, &self.name_any())
    }
}

/// The tenant's AWS account, as an AlarmSet uses it.
pub struct Aws;

impl System<AlarmSet> for Aws {
    const NAME: &'static str = "aws";
    type Target = AwsTarget;
    type Scope = AwsScope;
    type Stages = AlarmSetStages;
    type From = ();

    fn targets(status: &mut AlarmSetStatus) -> &mut Vec<AwsTarget> {
        &mut status.targets
    }

    async fn admits(set: &AlarmSet, target: &AwsTarget, cluster: &ClusterView<'_>) -> Result<()> {
        let namespace = set.namespace().unwrap_or_default();
        aws_scope::admits(&namespace, &target.account_id, cluster).await
    }

    fn target(_: &AlarmSet, inputs: &Inputs, installation: &Installation) -> Option<AwsTarget> {
        let aws = inputs.tenant.spec.aws.as_ref()?;
        let prefix = names::alarm_prefix(&installation.cluster.name, &inputs.tenant.name_any());
        Some(tenant::desired::target(aws, prefix, installation))
    }

    fn credentials(
        set: &AlarmSet,
        target: &AwsTarget,
        _: Result<&Inputs, &Error>,
        installation: &Installation,
    ) -> Result<Identity> {
        Ok(installation.identity(target, &set.namespace().unwrap_or_default()))
    }

    fn subscribe(
        set: &AlarmSet,
        context: &StageContext<'_, AlarmSet, Self>,
        subscriber: &Subscriber,
    ) -> Vec<Subscription> {
        let (scope, prefixes) = (&context.scope, set.prefixes(context.installation));
        vec![
            scope.alarms.subscribe(subscriber, prefixes.clone()),
            scope.tags.subscribe(subscriber, prefixes),
        ]
    }

    fn stages(set: &AlarmSet, context: &StageContext<'_, AlarmSet, Self>) -> AlarmSetStages {
        let (target, installation) = (context.target, context.installation);
        let ownership = context.ownership.clone();
        let wanted = context.inputs.map_or_else(Wanted::default, |inputs| {
            let cluster = &installation.cluster.name;
            desired::desired(
                cluster,
                set,
                &inputs.tenant,
                &inputs.topics,
                &ownership.mark,
            )
        });
        let alarms = Alarms::new(
            &wanted,
            target.prefix.clone(),
            set.prefixes(installation),
            ownership,
            context.scope.clone(),
            context.options.clone(),
        );
        let tags = Tags::of(&alarms);
        AlarmSetStages {
            wanted,
            alarms: StageRun::new(alarms),
            tags: StageRun::new(tags),
        }
    }
}
