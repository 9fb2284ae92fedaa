//! TenantObservability: the topics of a tenant, who hears them, and how the tenant is.

pub mod desired;
pub mod health;
pub mod sns;

use crate::{
    api::{
        AlarmSet, Health, Severity, SubscriptionEntry, SubscriptionState, Target,
        TenantObservability, TenantObservabilityStatus, TopicEntry,
    },
    clients::kubernetes,
    error::{Class, Error, On, Result},
    kind::{Findings, Installation, Kind, Lanes, Outcome, Place, Status, Surroundings, Verdict},
    names,
    plan::{Desired, Holder, Step},
    stage::{Lane, Typed},
};
use desired::{IntegrationKeys, SubscriptionKey};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::Secret as KubeSecret, apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{Api, ResourceExt, api::ListParams};
use sns::{Candidates, Subscriptions, Topics};
use std::{
    collections::{BTreeSet, btree_map::Entry},
    time::Duration,
};

/// How soon to look again at a subscription that waits to be confirmed: PagerDuty takes seconds.
const PENDING: Duration = Duration::from_secs(10);

/// What a TenantObservability refers to, and who refers to it.
pub struct Inputs {
    /// The integration keys that it names.
    pub keys: IntegrationKeys,
    /// The tenant's AlarmSets.
    pub sets: Vec<AlarmSet>,
}

/// The stages of a TenantObservability.
pub struct Row {
    /// SNS topics.
    pub topics: Typed<Topics>,
    /// Who hears them.
    pub subscriptions: Typed<Subscriptions>,
}

impl Lanes for Row {
    fn row(&mut self) -> Vec<&mut dyn Lane> {
        vec![&mut self.topics, &mut self.subscriptions]
    }
}

impl Status for TenantObservabilityStatus {
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

/// The names of the Secrets that a tenant refers to.
pub fn secret_names(tenant: &TenantObservability) -> BTreeSet<&str> {
    let recipients = tenant.spec.notify.iter().flat_map(|notify| notify.listed());
    recipients
        .flat_map(|(_, recipients)| &recipients.pager_duty)
        .map(|service| service.integration_key_secret_ref.name.as_str())
        .collect()
}

impl Kind for TenantObservability {
    const KIND: &'static str = "TenantObservability";
    type Status = TenantObservabilityStatus;
    type Inputs = Inputs;
    type Lanes = Row;

    fn status(&self) -> Option<&TenantObservabilityStatus> {
        self.status.as_ref()
    }

    async fn dereference(&self, around: &Surroundings<'_>) -> Result<Inputs> {
        let namespace = self.namespace().unwrap_or_default();
        let sets = Api::<AlarmSet>::namespaced(around.client.clone(), &namespace);
        let ours =
            ListParams::default().fields(&format!("spec.tenantRef.name={}", self.name_any()));
        let sets = kubernetes::call("listing the tenant's AlarmSets", sets.list(&ours)).await?;
        let sets = sets
            .items
            .into_iter()
            .filter(|set| set.metadata.deletion_timestamp.is_none())
            .collect();
        Ok(Inputs {
            keys: self.integration_keys(&namespace, around.client).await,
            sets,
        })
    }

    fn target(&self, _: &Inputs, installation: &Installation) -> Option<Target> {
        let prefix = format!("campanile_{}_", self.name_any());
        self.spec
            .aws
            .as_ref()
            .map(|aws| desired::target(aws, prefix, installation))
    }

    fn lanes(&self, place: &Place<'_, Self>) -> Row {
        let Place {
            target,
            account,
            inputs,
            installation,
            status,
        } = place;
        let candidates: Candidates = Severity::ALL
            .into_iter()
            .map(|severity| {
                let name = desired::topic_name(self, severity, installation);
                let arn = names::topic_arn(&target.region, &target.account_id, &name);
                (severity, (name, arn))
            })
            .collect();
        let (topics, subscriptions) = match inputs {
            Some(inputs) => (
                desired::topics(self, target, installation),
                desired::subscriptions(self, &inputs.keys, installation),
            ),
            None => (Desired::default(), Desired::default()),
        };
        let staying = candidates
            .iter()
            .filter(|(_, (name, _))| topics.wanted.contains_key(name))
            .map(|(severity, _)| *severity)
            .collect();
        let ledger = status
            .subscriptions
            .iter()
            .map(|entry| SubscriptionKey {
                severity: entry.severity,
                protocol: entry.protocol.clone(),
                endpoint: entry.endpoint.clone(),
            })
            .collect();
        let mark = installation.mark(self);
        let digester = installation.digester.clone();
        Row {
            topics: Typed::new(Topics::new(
                topics,
                candidates.clone(),
                mark,
                account.clone(),
            )),
            subscriptions: Typed::new(Subscriptions::new(
                subscriptions,
                candidates,
                staying,
                ledger,
                digester,
                account.clone(),
            )),
        }
    }

    fn first_sight(status: &mut TenantObservabilityStatus) {
        status.health = Some(Health::Unknown);
    }

    fn intend(status: &mut TenantObservabilityStatus, step: &Step) {
        let Ok(key) = step.key.parse::<SubscriptionKey>() else {
            return;
        };
        let SubscriptionKey {
            severity,
            protocol,
            endpoint,
        } = key;
        let same = |entry: &SubscriptionEntry| {
            (entry.severity, &entry.protocol, &entry.endpoint) == (severity, &protocol, &endpoint)
        };
        if !status.subscriptions.iter().any(same) {
            let state = SubscriptionState::Creating;
            status.subscriptions.push(SubscriptionEntry {
                severity,
                protocol,
                endpoint,
                state,
            });
        }
    }

    fn report(
        &self,
        outcome: &Outcome<Self>,
        status: &mut TenantObservabilityStatus,
        now: Timestamp,
    ) -> Findings {
        let mut findings = Findings::default();
        let mut problems = Vec::new();
        if let Some(place) = outcome.current() {
            findings
                .verdicts
                .push(reachable(place.lanes.as_ref().err(), &place.report.failed));
            if let Ok(row) = &place.lanes {
                let delivery = self.report_delivery(row, status);
                findings.again = delivery.pending.then_some(PENDING);
                let (topics, subscriptions) = (status.topics.len(), status.subscriptions.len());
                findings.summary = format!("topics: {topics}, subscriptions: {subscriptions}");
                if let Some(verdict) = delivery.verdict {
                    if verdict.holds != Some(true) {
                        problems.push(verdict.message.clone());
                    }
                    findings.verdicts.push(verdict);
                }
            }
        }
        let lasting = |error: &Error| {
            !matches!(
                error.class,
                Class::Throttled(_) | Class::Failing | Class::Cut
            )
        };
        let failed = outcome.failures().filter(|(_, error)| lasting(error));
        for message in failed.map(|(_, error)| error.message.clone()) {
            if !problems.iter().any(|known| known.contains(&message)) {
                problems.push(message);
            }
        }
        if let Some(Ok(inputs)) = &outcome.inputs {
            let rolled = health::roll_up(&inputs.sets, &problems, now);
            status.health = Some(rolled.health);
            status.summary = Some(rolled.summary.clone());
            status.counts = Some(rolled.counts);
            findings.verdicts.push(Verdict {
                type_: "Healthy",
                holds: match rolled.health {
                    Health::Healthy => Some(true),
                    Health::Degraded | Health::Alarming => Some(false),
                    Health::Unknown => None,
                },
                reason: match rolled.health {
                    Health::Healthy => "Healthy",
                    Health::Degraded => "Degraded",
                    Health::Alarming => "Alarming",
                    Health::Unknown => "Unknown",
                },
                message: rolled.message,
            });
        }
        findings
    }
}

struct Delivery {
    verdict: Option<Verdict>,
    pending: bool,
}

impl TenantObservability {
    async fn integration_keys(&self, namespace: &str, client: &kube::Client) -> IntegrationKeys {
        let mut keys = IntegrationKeys::new();
        for (_, recipients) in self.spec.notify.iter().flat_map(|notify| notify.listed()) {
            for service in &recipients.pager_duty {
                let reference = &service.integration_key_secret_ref;
                let place = (reference.name.clone(), reference.key.clone());
                if let Entry::Vacant(entry) = keys.entry(place) {
                    let (name, key) = entry.key();
                    let key = integration_key(client, namespace, name, key).await;
                    entry.insert(key);
                }
            }
        }
        keys
    }

    /// Topics and subscriptions into status, and whether messages reach those who should hear them.
    fn report_delivery(&self, row: &Row, status: &mut TenantObservabilityStatus) -> Delivery {
        let Row {
            topics,
            subscriptions,
        } = row;
        let stage = &topics.stage;
        if let Some(seen) = &topics.seen {
            let ours = |name: &String| {
                seen.get(name)
                    .is_some_and(|found| found.holder == Holder::Us)
            };
            status.topics = stage
                .candidates
                .iter()
                .filter(|(_, (name, _))| stage.desired.wanted.contains_key(name) && ours(name))
                .map(|(severity, (_, arn))| TopicEntry {
                    severity: *severity,
                    arn: arn.clone(),
                })
                .collect();
        }
        let wanted = &subscriptions.stage.desired;
        let mut late = Vec::new();
        if let Some(seen) = &subscriptions.seen {
            let made = subscriptions.stage.made();
            status.subscriptions = made
                .iter()
                .filter(|key| seen.contains_key(key) || wanted.wanted.contains_key(key))
                .map(|key| SubscriptionEntry {
                    severity: key.severity,
                    protocol: key.protocol.clone(),
                    endpoint: key.endpoint.clone(),
                    state: seen
                        .get(key)
                        .map_or(SubscriptionState::Creating, |found| found.live),
                })
                .collect();
            late = wanted
                .wanted
                .iter()
                .filter(|(key, _)| {
                    seen.get(key)
                        .is_none_or(|found| found.live != SubscriptionState::Confirmed)
                })
                .map(|(key, subscription)| format!("{} ({})", subscription.recipient, key.severity))
                .collect();
        }
        let missing: Vec<_> = stage
            .desired
            .wanted
            .keys()
            .filter(|name| {
                !status
                    .topics
                    .iter()
                    .any(|topic| topic.arn.ends_with(&format!(":{name}")))
            })
            .cloned()
            .collect();
        let held: Vec<_> = wanted
            .held
            .values()
            .map(|error| error.message.clone())
            .collect();
        let (holds, reason, message) = if topics.seen.is_none() || subscriptions.seen.is_none() {
            let message = "the topics and who hears them could not be read".to_owned();
            (None, "Unknown", message)
        } else if !missing.is_empty() {
            (
                Some(false),
                "TopicMissing",
                format!("topic {} is not there", missing.join(", ")),
            )
        } else if !held.is_empty() {
            (Some(false), "WaitingForSecret", held.join("; "))
        } else if !late.is_empty() {
            let message = format!(
                "not confirmed yet by {}: messages do not reach them",
                late.join(", ")
            );
            (Some(false), "PendingConfirmation", message)
        } else {
            (Some(true), "Delivering", String::new())
        };
        let verdict = (!stage.desired.wanted.is_empty()).then_some(Verdict {
            type_: "DeliveryReady",
            holds,
            reason,
            message,
        });
        Delivery {
            verdict,
            pending: !late.is_empty(),
        }
    }
}

async fn integration_key(
    client: &kube::Client,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<crate::secret::Secret> {
    let waiting = |message: String| Error::new(Class::Waiting(On::Secret), message);
    let api = Api::<KubeSecret>::namespaced(client.clone(), namespace);
    let secret = kubernetes::call(
        &format!("reading Secret {namespace}/{name}"),
        api.get_opt(name),
    )
    .await?;
    let secret = secret.ok_or_else(|| {
        waiting(format!(
            "Secret {namespace}/{name} does not exist: create it with the key {key}"
        ))
    })?;
    let data = secret.data.unwrap_or_default();
    let bytes = data.get(key).ok_or_else(|| {
        waiting(format!(
            "Secret {namespace}/{name} has no key {key}: add it, or correct the reference"
        ))
    })?;
    std::str::from_utf8(&bytes.0).ok().and_then(desired::integration_key).ok_or_else(|| {
        waiting(format!(
            "key {key} of Secret {namespace}/{name} is not a PagerDuty integration key (letters and digits, at most 64)"
        ))
    })
}

/// Whether the account answered us.
fn reachable(unreachable: Option<&Error>, failed: &[crate::stage::Failure]) -> Verdict {
    let blind = failed
        .iter()
        .find(|failure| failure.key.is_none())
        .map(|failure| &failure.error);
    let (holds, reason, message) = match unreachable.or(blind) {
        None => (Some(true), "Reachable", String::new()),
        Some(error) => match error.class {
            Class::Denied => (Some(false), "AccessDenied", error.message.clone()),
            Class::Superseded => (None, "Unknown", error.message.clone()),
            _ => (Some(false), "Unreachable", error.message.clone()),
        },
    };
    Verdict {
        type_: "AccountReachable",
        holds,
        reason,
        message,
    }
}
