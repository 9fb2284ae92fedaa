//! AlarmSet: CloudWatch alarms of one tenant.

pub mod cloudwatch;
pub mod desired;
pub mod report;

use crate::{
    api::{AlarmSet, AlarmSetStatus, AlarmState, Severity, Target, TenantObservability},
    error::{Class, Error, On, Result},
    kind::{
        Findings, Installation, Kind, Lanes, Moment, Outcome, Place, Purpose, Status, Surroundings,
    },
    names,
    plan::{Holder, Step},
    stage::{Lane, Typed},
    tenant,
};
use cloudwatch::Alarms;
use desired::Wanted;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use std::collections::BTreeMap;

/// What an AlarmSet refers to.
pub struct Inputs {
    /// Its tenant.
    pub tenant: TenantObservability,
    /// The tenant's topics that exist and are ours.
    pub topics: BTreeMap<Severity, String>,
}

/// What of a tenant's status its AlarmSets go by; they are woken when it changes.
pub fn offered(tenant: &TenantObservability) -> (Option<i64>, Vec<(Severity, &str)>) {
    let status = tenant.status.as_ref();
    let topics = status.iter().flat_map(|status| &status.topics);
    (
        status.and_then(|status| status.observed_generation),
        topics
            .map(|topic| (topic.severity, topic.arn.as_str()))
            .collect(),
    )
}

/// The one stage of an AlarmSet.
pub struct Row {
    /// What the spec asks for, those included that cannot be made.
    pub wanted: Wanted,
    /// The alarms.
    pub alarms: Typed<Alarms>,
}

impl Lanes for Row {
    fn row(&mut self) -> Vec<&mut dyn Lane> {
        vec![&mut self.alarms]
    }
}

impl Status for AlarmSetStatus {
    fn targets(&mut self) -> &mut Vec<Target> {
        &mut self.targets
    }
    fn conditions(&mut self) -> &mut Vec<Condition> {
        &mut self.conditions
    }
    fn observed_generation(&mut self) -> &mut Option<i64> {
        &mut self.observed_generation
    }
    fn last_handled_reconcile_at(&mut self) -> &mut Option<String> {
        &mut self.last_handled_reconcile_at
    }
}

impl Kind for AlarmSet {
    const KIND: &'static str = "AlarmSet";
    type Status = AlarmSetStatus;
    type Inputs = Inputs;
    type Lanes = Row;

    fn status(&self) -> Option<&AlarmSetStatus> {
        self.status.as_ref()
    }

    async fn dereference(&self, around: &Surroundings<'_>) -> Result<Inputs> {
        let (namespace, name) = (
            self.namespace().unwrap_or_default(),
            &self.spec.tenant_ref.name,
        );
        let waiting = |message: String| Error::new(Class::Waiting(On::Tenant), message);
        let found = around.get::<TenantObservability>(&namespace, name).await?;
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
            .and_then(|status| status.observed_generation);
        match around.purpose {
            // An alarm that points at a topic which is not there says so nowhere, so the topics come
            // first. Once the tenant has been looked at, its status says which there are.
            Purpose::Act if attempted.is_none() && !going => Err(waiting(format!(
                "TenantObservability {namespace}/{name} has not been applied yet; its topics come first"
            ))),
            Purpose::Plan if attempted != tenant.metadata.generation => {
                let topics = tenant::desired::topic_arns(&tenant, around.installation);
                Ok(Inputs { tenant, topics })
            }
            Purpose::Act | Purpose::Plan => {
                let topics = tenant.status.iter().flat_map(|status| &status.topics);
                let topics = topics
                    .map(|topic| (topic.severity, topic.arn.clone()))
                    .collect();
                Ok(Inputs { tenant, topics })
            }
        }
    }

    fn target(&self, inputs: &Inputs, installation: &Installation) -> Option<Target> {
        let aws = inputs.tenant.spec.aws.as_ref()?;
        let prefix = names::alarm_prefix(&installation.cluster.name, &inputs.tenant.name_any());
        Some(tenant::desired::target(aws, prefix, installation))
    }

    fn lanes(&self, place: &Place<'_, Self>) -> Row {
        let mark = place.installation.mark(self);
        let wanted = place.inputs.map_or_else(Wanted::default, |inputs| {
            let cluster = &place.installation.cluster.name;
            desired::desired(cluster, self, &inputs.tenant, &inputs.topics, &mark)
        });
        let stage = Alarms::new(
            wanted.alarms.clone(),
            place.target.prefix.clone(),
            mark,
            place.account.clone(),
        );
        Row {
            wanted,
            alarms: Typed::new(stage),
        }
    }

    fn intend(_: &mut AlarmSetStatus, _: &Step) {
        // Putting an alarm twice makes one alarm.
    }

    fn report(
        &self,
        outcome: &Outcome<Self>,
        status: &mut AlarmSetStatus,
        moment: Moment,
    ) -> Findings {
        let current = outcome
            .current()
            .and_then(|place| Some((place, place.lanes.as_ref().ok()?)));
        let Some((place, lanes, seen)) =
            current.and_then(|(place, lanes)| Some((place, lanes, lanes.alarms.seen.as_ref()?)))
        else {
            // What was read last stands for a while. Where we are locked out, nobody knows what fires.
            let mut failures = outcome.failures();
            if moment.stale || failures.any(|(_, error)| error.class == Class::Denied) {
                (status.counts, status.alarms, status.omitted) = (None, Vec::new(), None);
            }
            return Findings::default();
        };
        let listing = report::listing(&lanes.wanted, seen, &place.report);
        status.counts = Some(listing.counts);
        status.alarms = listing.entries;
        status.omitted = listing.omitted;
        let states = seen.values().filter(|found| found.holder == Holder::Us);
        let states: Vec<_> = states.map(|found| found.live.state).collect();
        let in_state = |state: AlarmState| {
            let count = states.iter().filter(|found| **found == state).count();
            (state.as_str(), i64::try_from(count).unwrap_or(i64::MAX))
        };
        Findings {
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
            ..Findings::default()
        }
    }
}
