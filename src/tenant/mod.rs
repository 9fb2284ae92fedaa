//! TenantObservability: the topics of a tenant, who hears them, and how the tenant is.

pub mod desired;
pub mod health;
pub mod sns;

use crate::{
    api::{
        AlarmSet, Health, Severity, SubscriptionEntry, SubscriptionState, Target,
        TenantObservability, TenantObservabilityStatus, TopicEntry,
    },
    error::{Class, Error, On, Result},
    kind::{
        Findings, Installation, Kind, Lanes, Moment, Outcome, Place, Status, Surroundings, Verdict,
    },
    names,
    plan::{Desired, Holder, Step},
    stage::{Failure, Lane, Typed},
};
use desired::{IntegrationKeys, SubscriptionKey};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::Secret as KubeSecret, apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::ResourceExt;
use sns::{Candidates, Subscriptions, Topics};
use std::{
    collections::{BTreeSet, btree_map::Entry},
    time::Duration,
};

/// How soon to look again at a subscription that waits to be confirmed: PagerDuty takes seconds.
const PENDING: Duration = Duration::from_secs(10);

/// For how long to look that often.
const PATIENCE: SignedDuration = SignedDuration::from_mins(5);

const PENDING_CONFIRMATION: &str = "PendingConfirmation";

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
        let ours = format!("spec.tenantRef.name={}", self.name_any());
        let sets = around
            .list::<AlarmSet>(&namespace, &ours)
            .await?
            .into_iter();
        let sets = sets
            .filter(|set| set.metadata.deletion_timestamp.is_none())
            .collect();
        Ok(Inputs {
            keys: self.integration_keys(&namespace, around).await,
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
        moment: Moment,
    ) -> Findings {
        let now = moment.now;
        let mut findings = Findings::default();
        let mut problems = Vec::new();
        if let Some(place) = outcome.current() {
            match reachable(place.lanes.as_ref().err(), &place.report.failed) {
                Some(verdict) => findings.verdicts.push(verdict),
                None => findings.unknown.push("AccountReachable"),
            }
            let delivery = match &place.lanes {
                Ok(row) => self.report_delivery(row, status),
                Err(_) => Delivery::Unknown,
            };
            match delivery {
                Delivery::Unknown => {
                    findings.unknown.push("DeliveryReady");
                    // What was wrong when it was read last still is, for all we know.
                    let last = status
                        .conditions
                        .iter()
                        .find(|last| last.type_ == "DeliveryReady");
                    let wrong = last.filter(|last| last.status == "False");
                    problems.extend(wrong.map(|last| last.message.clone()));
                }
                Delivery::ToNobody => {}
                Delivery::Known(verdict) => {
                    if verdict.holds != Some(true) {
                        problems.push(verdict.message.clone());
                    }
                    if verdict.reason == PENDING_CONFIRMATION {
                        findings.again = since(status, "DeliveryReady", PENDING_CONFIRMATION, now)
                            .is_none_or(|waiting| waiting < PATIENCE)
                            .then_some(PENDING);
                    }
                    findings.verdicts.push(verdict);
                }
            }
            let (topics, subscriptions) = (status.topics.len(), status.subscriptions.len());
            findings.summary = format!("topics: {topics}, subscriptions: {subscriptions}");
        }
        let lasting = outcome
            .failures()
            .filter(|(_, error)| !error.class.passes());
        for message in lasting.map(|(_, error)| error.message.clone()) {
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

impl TenantObservability {
    async fn integration_keys(
        &self,
        namespace: &str,
        around: &Surroundings<'_>,
    ) -> IntegrationKeys {
        let mut keys = IntegrationKeys::new();
        for (_, recipients) in self.spec.notify.iter().flat_map(|notify| notify.listed()) {
            for service in &recipients.pager_duty {
                let reference = &service.integration_key_secret_ref;
                let place = (reference.name.clone(), reference.key.clone());
                if let Entry::Vacant(entry) = keys.entry(place) {
                    let (name, key) = entry.key();
                    let key = integration_key(around, namespace, name, key).await;
                    entry.insert(key);
                }
            }
        }
        keys
    }

    /// Topics and subscriptions into status, and whether messages reach those who should hear them.
    fn report_delivery(&self, row: &Row, status: &mut TenantObservabilityStatus) -> Delivery {
        let (topics, subscriptions) = (&row.topics.stage, &row.subscriptions.stage);
        let Some(seen) = &row.topics.seen else {
            return Delivery::Unknown;
        };
        let is_ours = |name: &String| {
            seen.get(name)
                .is_some_and(|found| found.holder == Holder::Us)
        };
        status.topics = topics
            .candidates
            .iter()
            .filter(|(_, (name, _))| topics.desired.wanted.contains_key(name) && is_ours(name))
            .map(|(severity, (_, arn))| TopicEntry {
                severity: *severity,
                arn: arn.clone(),
            })
            .collect();
        let missing: Vec<_> = topics
            .desired
            .wanted
            .keys()
            .filter(|name| !is_ours(name))
            .cloned()
            .collect();

        // With a topic its subscriptions went by themselves.
        let has_topic = |key: &SubscriptionKey| {
            topics
                .candidates
                .get(&key.severity)
                .is_some_and(|(name, _)| is_ours(name))
        };
        let Some(seen) = &row.subscriptions.seen else {
            return Delivery::Unknown;
        };
        let Desired { wanted, held } = &subscriptions.desired;
        status.subscriptions = subscriptions
            .made()
            .iter()
            .filter(|key| wanted.contains_key(key) || seen.contains_key(key) && has_topic(key))
            .map(|key| SubscriptionEntry {
                severity: key.severity,
                protocol: key.protocol.clone(),
                endpoint: key.endpoint.clone(),
                state: seen
                    .get(key)
                    .map_or(SubscriptionState::Creating, |found| found.live),
            })
            .collect();
        let in_state = |state: Option<SubscriptionState>| {
            let late = wanted
                .iter()
                .filter(|(key, _)| seen.get(key).map(|found| found.live) == state);
            late.map(|(key, to)| format!("{} ({})", to.recipient, key.severity))
                .collect::<Vec<_>>()
        };
        let (absent, pending) = (in_state(None), in_state(Some(SubscriptionState::Pending)));
        let held: Vec<_> = held.values().map(|error| error.message.clone()).collect();
        if missing.is_empty() && held.is_empty() && wanted.is_empty() {
            return Delivery::ToNobody;
        }
        let (holds, reason, message) = if !missing.is_empty() {
            (
                false,
                "TopicMissing",
                format!("topic {} is not there", missing.join(", ")),
            )
        } else if !held.is_empty() {
            (false, "WaitingForSecret", held.join("; "))
        } else if !absent.is_empty() {
            (
                false,
                "SubscriptionMissing",
                format!("not subscribed: {}", absent.join(", ")),
            )
        } else if !pending.is_empty() {
            let late = pending.join(", ");
            (
                false,
                PENDING_CONFIRMATION,
                format!("not confirmed yet by {late}: messages do not reach them"),
            )
        } else {
            (true, "Delivering", String::new())
        };
        Delivery::Known(Verdict {
            type_: "DeliveryReady",
            holds: Some(holds),
            reason,
            message,
        })
    }
}

/// Whether messages reach those who should hear them.
enum Delivery {
    /// It could not be read.
    Unknown,
    /// Nobody is to hear anything, so there is nothing to say.
    ToNobody,
    /// It was read.
    Known(Verdict),
}

/// How long a condition has been as it is for that reason.
fn since(
    status: &TenantObservabilityStatus,
    type_: &str,
    reason: &str,
    now: Timestamp,
) -> Option<SignedDuration> {
    let found = status
        .conditions
        .iter()
        .find(|found| found.type_ == type_ && found.reason == reason)?;
    Some(now.duration_since(found.last_transition_time.0))
}

async fn integration_key(
    around: &Surroundings<'_>,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<crate::secret::Secret> {
    let waiting = |message: String| Error::new(Class::Waiting(On::Secret), message);
    let secret = around.get::<KubeSecret>(namespace, name).await?;
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

/// Whether the account answered us; `None` where that passes by itself and says nothing yet.
fn reachable(unreachable: Option<&Error>, failed: &[Failure]) -> Option<Verdict> {
    let blind = failed.iter().find(|failure| failure.key.is_none());
    let (holds, reason, message) = match unreachable.or(blind.map(|failure| &failure.error)) {
        None => (true, "Reachable", String::new()),
        Some(error) if error.class == Class::Denied => {
            (false, "AccessDenied", error.message.clone())
        }
        Some(_) => return None,
    };
    Some(Verdict {
        type_: "AccountReachable",
        holds: Some(holds),
        reason,
        message,
    })
}
