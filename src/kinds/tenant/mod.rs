//! TenantObservability: the topics of a tenant, who hears them, its alarms' way into Slack, and how the
//! tenant is.

pub mod desired;
pub mod eventbridge;
pub mod health;
pub mod sns;
pub mod stages;

use crate::{
    api::{
        self, ACCOUNT_REACHABLE, AlarmSet, AwsTarget, CommonStatus, DELIVERY_READY, Health, Links,
        Severity, SubscriptionEntry, SubscriptionState, TenantObservability,
        TenantObservabilityStatus, TopicEntry,
    },
    clients::aws::Identity,
    engine::{
        error::{Class, Error, Result, WaitingOn},
        informer::{Subscriber, Subscription},
        plan::{Desired, Owner},
        scope_pool::ScopePool,
        stage::{DynStage, Failure, StageRun},
    },
    kinds::{
        Clock, ConditionUpdate, Kind, Outcome, Policies, Status, StatusUpdate, TargetView,
        aws_scope::AwsScope,
        cluster_view::ClusterView,
        installation::Installation,
        names,
        slack_channel::route::route,
        system::{StageContext, Stages, System, SystemVisits, Systems, Target, Visited, Visitor},
    },
};
use desired::{IntegrationKeys, SubscriptionKey};
use eventbridge::{
    desired::{Ways, channels, concerns, concerns_as},
    report::{Parts, View, Way, is_slacks},
    stages::{Connections, Destinations, EventBridgeContext, RuleTargets, Rules},
};
use kube::ResourceExt;
use sns::TopicArn;
use stages::{Candidates, Subscriptions, TopicTags, Topics};
use std::{
    collections::{BTreeSet, btree_map::Entry},
    time::Duration,
};

/// What is looked at when a time has passed is looked at a moment later, so that it has.
const MOMENT: Duration = Duration::from_secs(1);

/// What a TenantObservability refers to, and who refers to it.
pub struct Inputs {
    /// The integration keys that it names.
    pub keys: IntegrationKeys,
    /// The ways into the Slack channels that it names.
    pub ways: Ways,
    /// The tenant's AlarmSets.
    pub sets: Vec<AlarmSet>,
}

/// The stages of a TenantObservability.
pub struct TenantStages {
    /// The owner's tags of topics that are to be adopted.
    pub tags: StageRun<TopicTags>,
    /// SNS topics.
    pub topics: StageRun<Topics>,
    /// Who hears them.
    pub subscriptions: StageRun<Subscriptions>,
    /// What EventBridge says to Slack of who it is.
    pub connections: StageRun<Connections>,
    /// Where EventBridge posts.
    pub destinations: StageRun<Destinations>,
    /// Which alarms go to Slack.
    pub rules: StageRun<Rules>,
    /// Where they go, and as what.
    pub targets: StageRun<RuleTargets>,
}

impl Stages for TenantStages {
    fn all(&mut self) -> Vec<&mut dyn DynStage> {
        vec![
            &mut self.tags,
            &mut self.topics,
            &mut self.subscriptions,
            &mut self.connections,
            &mut self.destinations,
            &mut self.rules,
            &mut self.targets,
        ]
    }
}

impl Status for TenantObservabilityStatus {
    fn common(&mut self) -> &mut CommonStatus {
        &mut self.common
    }

    fn places(&self) -> Vec<TargetView> {
        self.targets.iter().map(Target::view).collect()
    }
}

/// The names of the Secrets that a tenant refers to by itself. Those of its SlackChannels are theirs.
pub fn secret_names(tenant: &TenantObservability) -> BTreeSet<&str> {
    let recipients = tenant.spec.notify.iter().flat_map(|notify| notify.listed());
    recipients
        .flat_map(|(_, recipients)| &recipients.pager_duty)
        .map(|service| service.integration_key_secret_ref.name.as_str())
        .collect()
}

/// The names of the SlackChannels that a tenant's severities go to.
pub fn channel_names(tenant: &TenantObservability) -> BTreeSet<&str> {
    channels(tenant)
}

impl Kind for TenantObservability {
    const KIND: &'static str = "TenantObservability";
    type Status = TenantObservabilityStatus;
    type Inputs = Inputs;
    type Visits = SystemVisits<Self, Aws>;

    fn status(&self) -> Option<&TenantObservabilityStatus> {
        self.status.as_ref()
    }

    fn policies(&self) -> Policies {
        Policies {
            suspend: self.spec.suspend,
            drift: self.spec.drift_policy,
            deletion: self.spec.deletion_policy,
        }
    }

    async fn dereference(&self, cluster: &ClusterView<'_>) -> Result<Inputs> {
        let namespace = self.namespace().unwrap_or_default();
        let ours = format!("spec.tenantRef.name={}", self.name_any());
        let sets = cluster
            .list::<AlarmSet>(&namespace, &ours)
            .await?
            .into_iter();
        let sets = sets
            .filter(|set| set.metadata.deletion_timestamp.is_none())
            .collect();
        let mut ways = Ways::new();
        for channel in channels(self) {
            let way = route(channel, &namespace, cluster).await;
            ways.insert(channel.to_owned(), way);
        }
        Ok(Inputs {
            keys: self.integration_keys(&namespace, cluster).await,
            ways,
            sets,
        })
    }

    async fn visit(visitor: &Visitor<'_, Self>) -> Self::Visits {
        visitor.visit::<Aws>().await
    }

    fn visited(visits: &Self::Visits) -> Vec<&dyn Visited<Self>> {
        vec![visits]
    }

    fn set_spec_status(&self, status: &mut TenantObservabilityStatus, installation: &Installation) {
        let namespace = self.namespace().unwrap_or_default();
        let aws = self.spec.aws.as_ref();
        status.external_id = aws.map(|_| installation.external_id(&namespace));
        status.links = aws.map(|aws| Links {
            alarms: Some(desired::alarms_link(
                self,
                &aws.region,
                &installation.cluster.name,
            )),
        });
    }

    fn set_initial_status(status: &mut TenantObservabilityStatus) {
        status.health = Some(Health::Unknown);
    }

    fn report(
        &self,
        outcome: &Outcome<Self>,
        status: &mut TenantObservabilityStatus,
        clock: Clock,
    ) -> StatusUpdate {
        let now = clock.now;
        let mut findings = StatusUpdate::default();
        let mut problems = Vec::new();
        if let Some(visit) = outcome.visits.current() {
            let failed = &visit.report.report.failed;
            match reachable(visit.report.reached.as_ref().err(), failed) {
                Some(verdict) => findings.conditions.push(verdict),
                None => findings.unknown.push(ACCOUNT_REACHABLE),
            }
            let delivery = match &visit.stages {
                Some(row) => {
                    let delivery = self.report_delivery(row, status);
                    let view = view(row);
                    view.record(status);
                    delivery.and(view.way(failed))
                }
                None => Delivery::Unknown,
            };
            match delivery {
                Delivery::Unknown => {
                    findings.unknown.push(DELIVERY_READY);
                    // What was wrong when it was read last still is, for all we know.
                    let last = api::condition(status.conditions(), DELIVERY_READY);
                    let wrong = last.filter(|last| last.status == "False");
                    problems.extend(wrong.map(|last| last.message.clone()));
                }
                Delivery::ToNobody => {}
                Delivery::Known(troubles) => {
                    let verdict = delivering(&troubles);
                    if verdict.holds != Some(true) {
                        problems.push(verdict.message.clone());
                    }
                    findings.conditions.push(verdict);
                }
            }
            let (topics, subscriptions) = (status.topics.len(), status.subscriptions.len());
            findings.summary = format!("topics: {topics}, subscriptions: {subscriptions}");
            let paths = status.slack_paths.iter();
            let channels: BTreeSet<_> = paths.map(|path| &path.channel).collect();
            if !channels.is_empty() {
                findings.summary += &format!(", Slack channels: {}", channels.len());
            }
            if let Some(row) = &visit.stages {
                findings.requeue_after = self.again(row, status);
            }
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
            let rolled = health::roll_up(&inputs.sets, &problems, clock.stale, now);
            status.health = Some(rolled.health);
            status.summary = Some(rolled.summary.clone());
            status.counts = Some(rolled.counts);
            let again = rolled.again.map(|again| again.unsigned_abs() + MOMENT);
            findings.requeue_after = findings.requeue_after.into_iter().chain(again).min();
            let (holds, reason) = match rolled.health {
                Health::Healthy => (Some(true), "Healthy"),
                Health::Degraded => (Some(false), "Degraded"),
                Health::Alarming => (Some(false), "Alarming"),
                Health::Unknown => (None, "Unknown"),
            };
            let healthy = ConditionUpdate::new("Healthy", holds, reason, rolled.message);
            findings.conditions.push(healthy);
        }
        findings
    }
}

/// The tenant's AWS account.
pub struct Aws;

impl System<TenantObservability> for Aws {
    const NAME: &'static str = "aws";
    type Target = AwsTarget;
    type Scope = AwsScope;
    type Stages = TenantStages;

    fn pool(systems: &Systems) -> &ScopePool<AwsScope> {
        &systems.aws
    }

    fn targets(status: &mut TenantObservabilityStatus) -> &mut Vec<AwsTarget> {
        &mut status.targets
    }

    fn target(
        tenant: &TenantObservability,
        _: &Inputs,
        installation: &Installation,
    ) -> Option<AwsTarget> {
        let prefix = names::tenant_prefix(&tenant.name_any());
        tenant
            .spec
            .aws
            .as_ref()
            .map(|aws| desired::target(aws, prefix, installation))
    }

    fn credentials(
        tenant: &TenantObservability,
        target: &AwsTarget,
        _: Result<&Inputs, &Error>,
        installation: &Installation,
    ) -> Result<Identity> {
        Ok(installation.identity(target, &tenant.namespace().unwrap_or_default()))
    }

    fn subscribe(
        tenant: &TenantObservability,
        context: &StageContext<'_, TenantObservability, Self>,
        subscriber: &Subscriber,
    ) -> Vec<Subscription> {
        let scope = &context.scope;
        let own = tenant.candidates(context.target, context.installation);
        let own = own.into_values().map(|(_, arn)| arn);
        let topics = own.chain(tenant.named_topics()).collect();
        let mut subscriptions = vec![
            scope.trust.subscribe(subscriber, BTreeSet::new()),
            scope.topics.subscribe(subscriber, topics),
        ];
        if concerns(tenant) {
            let prefix = BTreeSet::from([names::tenant_prefix(&tenant.name_any())]);
            subscriptions.push(scope.rules.subscribe(subscriber, prefix.clone()));
            subscriptions.push(scope.paths.subscribe(subscriber, prefix));
        }
        subscriptions
    }

    fn stages(
        tenant: &TenantObservability,
        context: &StageContext<'_, TenantObservability, Self>,
    ) -> TenantStages {
        let StageContext {
            target,
            scope,
            options,
            inputs,
            installation,
            status,
        } = context;
        let candidates = tenant.candidates(target, installation);
        let (topics, subscriptions, slack) = match inputs {
            Some(inputs) => (
                desired::topics(tenant, target, installation),
                desired::subscriptions(tenant, &inputs.keys, installation),
                eventbridge::desired::wanted(tenant, &inputs.ways, target, installation),
            ),
            None => Default::default(),
        };
        let (scope, options) = (scope.clone(), (*options).clone());
        let events = EventBridgeContext::new(
            tenant,
            &slack,
            status,
            scope.clone(),
            options.clone(),
            installation,
        );
        let (connections, destinations, rules, targets) =
            eventbridge::stages::stages(slack, &events);
        let staying = candidates
            .iter()
            .filter(|(_, (name, _))| topics.wanted.contains_key(name))
            .map(|(severity, _)| *severity)
            .collect();
        let ledger = status.subscriptions.iter();
        let ledger = ledger.map(|entry| (SubscriptionKey::from(entry), entry.state));
        let topics = Topics::new(
            topics,
            candidates,
            tenant.named_topics().collect(),
            installation.mark(tenant),
            scope,
            options,
        );
        let digester = installation.digester.clone();
        let subscriptions =
            Subscriptions::new(subscriptions, &topics, staying, ledger.collect(), digester);
        TenantStages {
            tags: StageRun::new(TopicTags::of(&topics)),
            topics: StageRun::new(topics),
            subscriptions: StageRun::new(subscriptions),
            connections: StageRun::new(connections),
            destinations: StageRun::new(destinations),
            rules: StageRun::new(rules),
            targets: StageRun::new(targets),
        }
    }

    /// The alarms are as well known without Slack as with it.
    fn is_vital(failure: &Failure) -> bool {
        !is_slacks(failure)
    }
}

impl TenantObservability {
    /// All topics that the tenant has or may have had in a place.
    fn candidates(&self, target: &AwsTarget, installation: &Installation) -> Candidates {
        let severities = Severity::ALL.into_iter();
        severities
            .map(|severity| {
                let name = desired::topic_name(self, severity, installation);
                let arn = names::topic_arn(&target.region, &target.account_id, &name);
                (severity, (name, TopicArn(arn)))
            })
            .collect()
    }

    /// The ARNs of the topics of somebody's own that the spec names.
    fn named_topics(&self) -> impl Iterator<Item = TopicArn> {
        let listed = self.spec.notify.iter().flat_map(|notify| notify.listed());
        let named = listed.flat_map(|(_, recipients)| &recipients.topic_arns);
        named.map(|arn| TopicArn(arn.clone()))
    }

    async fn integration_keys(
        &self,
        namespace: &str,
        cluster: &ClusterView<'_>,
    ) -> IntegrationKeys {
        let mut keys = IntegrationKeys::new();
        for (_, recipients) in self.spec.notify.iter().flat_map(|notify| notify.listed()) {
            for service in &recipients.pager_duty {
                let reference = &service.integration_key_secret_ref;
                let place = (reference.name.clone(), reference.key.clone());
                if let Entry::Vacant(entry) = keys.entry(place) {
                    let (name, key) = entry.key();
                    let key = integration_key(cluster, namespace, name, key).await;
                    entry.insert(key);
                }
            }
        }
        keys
    }

    /// When the way into Slack is to be looked at again, if anything there is only a matter of time.
    fn again(&self, row: &TenantStages, status: &TenantObservabilityStatus) -> Option<Duration> {
        // Nothing is left of it, but this run still wanted to know: the next one says that nobody does.
        let over = concerns(self) && !concerns_as(self, Some(status));
        let destinations = row.destinations.seen.as_ref();
        let drained = destinations.and_then(|seen| row.destinations.stage.events.drained_in(seen));
        let over = over.then_some(Duration::ZERO);
        let again = over.into_iter().chain(drained).min();
        again.map(|again| again + MOMENT)
    }

    /// Topics and subscriptions into status, and whether messages reach those who should hear them.
    fn report_delivery(
        &self,
        row: &TenantStages,
        status: &mut TenantObservabilityStatus,
    ) -> Delivery {
        let (topics, subscriptions) = (&row.topics.stage, &row.subscriptions.stage);
        let Some(seen) = &row.topics.seen else {
            return Delivery::Unknown;
        };
        let is_ours = |name: &String| seen.get(name).is_some_and(|found| found.owner == Owner::Us);
        let is_there = |name: &String| seen.contains_key(name);
        // What happens to a topic outside is no reason to take the alarms off it: it is made again, or given
        // back, and until then nobody else has that name in the tenant's own account.
        let known: BTreeSet<_> = status.topics.iter().map(|topic| topic.severity).collect();
        status.topics = topics
            .candidates
            .iter()
            .filter(|(_, (name, _))| topics.desired.wanted.contains_key(name))
            .filter(|(severity, (name, _))| is_ours(name) || known.contains(severity))
            .map(|(severity, (_, arn))| TopicEntry {
                severity: *severity,
                arn: arn.0.clone(),
            })
            .collect();
        let not_ours = topics.desired.wanted.keys().filter(|name| !is_ours(name));
        let (taken, missing): (Vec<_>, Vec<_>) = not_ours.partition(|name| is_there(name));
        let taken: Vec<_> = taken.into_iter().map(String::as_str).collect();
        let mut missing: Vec<_> = missing.into_iter().map(String::as_str).collect();
        missing.extend(topics.absent());
        // Of who hears a topic that is not ours to look into, what was known last stands.
        let is_taken = |key: &SubscriptionKey| {
            let topic = topics.candidates.get(&key.severity);
            topic.is_some_and(|(name, _)| taken.contains(&name.as_str()))
        };

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
        let Desired {
            wanted, blocked, ..
        } = &subscriptions.desired;
        let made = subscriptions.made();
        let state = |key: &SubscriptionKey| match seen.get(key) {
            Some(found) => found.live,
            None if is_taken(key) => made
                .get(key)
                .copied()
                .unwrap_or(SubscriptionState::Creating),
            None if subscriptions.is_gone(key) => SubscriptionState::Gone,
            None => SubscriptionState::Creating,
        };
        status.subscriptions = made
            .keys()
            .filter(|key| wanted.contains_key(key) || seen.contains_key(key) && has_topic(key))
            .map(|key| SubscriptionEntry {
                severity: key.severity,
                protocol: key.protocol.clone(),
                endpoint: key.endpoint.clone(),
                state: state(key),
            })
            .collect();
        let in_state = |state_wanted: SubscriptionState| {
            let late = wanted.iter().filter(|(key, _)| !is_taken(key));
            let late = late.filter(|(key, _)| state(key) == state_wanted);
            let late = late.map(|(key, to)| format!("{} ({})", to.recipient, key.severity));
            late.collect::<Vec<_>>().join(", ")
        };
        let blocked: Vec<_> = blocked
            .values()
            .map(|error| error.message.clone())
            .collect();
        if missing.is_empty()
            && taken.is_empty()
            && blocked.is_empty()
            && wanted.is_empty()
            && !topics.has_named()
        {
            return Delivery::ToNobody;
        }
        let mut troubles = Vec::new();
        if !taken.is_empty() {
            let taken = taken.join(", ");
            let says = format!(
                "topic {taken} does not carry our mark, so who hears it is not looked after (see Ready)"
            );
            troubles.push(("TopicConflict", says));
        }
        if !missing.is_empty() {
            let missing = missing.join(", ");
            troubles.push(("TopicMissing", format!("topic {missing} is not there")));
        }
        if !blocked.is_empty() {
            troubles.push(("WaitingForSecret", blocked.join("; ")));
        }
        for (reason, state, says) in [
            (
                "SubscriptionMissing",
                SubscriptionState::Creating,
                "not subscribed",
            ),
            (
                "SubscriptionGone",
                SubscriptionState::Gone,
                "unsubscribed, or never confirmed within the time that AWS gives (to invite again, take the address out of the spec and put it back in)",
            ),
            (
                "PendingConfirmation",
                SubscriptionState::Pending,
                "not confirmed yet, so messages do not reach them",
            ),
        ] {
            let who = in_state(state);
            if !who.is_empty() {
                troubles.push((reason, format!("{says}: {who}")));
            }
        }
        Delivery::Known(troubles)
    }
}

/// What was wanted on the way to Slack, and what there is.
fn view(row: &TenantStages) -> View<'_> {
    let events = &row.connections.stage.events;
    View {
        wanted: Parts {
            connections: &row.connections.stage.desired,
            destinations: &row.destinations.stage.desired,
            rules: &row.rules.stage.desired,
            targets: &row.targets.stage.desired,
        },
        paths: events.paths(),
        ledger: events.known(),
        connections: row.connections.seen.as_ref(),
        destinations: row.destinations.seen.as_ref(),
        rules: row.rules.seen.as_ref(),
        targets: row.targets.seen.as_ref(),
    }
}

/// Whether messages reach those who should hear them.
enum Delivery {
    /// It could not be read.
    Unknown,
    /// Nobody is to hear anything, so there is nothing to say.
    ToNobody,
    /// It was read: what is in the way, a reason and a text each.
    Known(Vec<(&'static str, String)>),
}

impl Delivery {
    /// The same with what is known of the way into Slack.
    fn and(self, slack: Way) -> Self {
        match (self, slack) {
            (delivery, Way::Unasked) => delivery,
            // What is known to be wrong is told, whatever is not known.
            (Self::Unknown, Way::Known(troubles)) if !troubles.is_empty() => Self::Known(troubles),
            (Self::Known(troubles), Way::Unknown) if !troubles.is_empty() => Self::Known(troubles),
            (Self::Unknown, _) | (_, Way::Unknown) => Self::Unknown,
            (Self::ToNobody, Way::Known(troubles)) => Self::Known(troubles),
            (Self::Known(mut all), Way::Known(troubles)) => {
                all.extend(troubles);
                Self::Known(all)
            }
        }
    }
}

/// The condition that says it.
fn delivering(troubles: &[(&'static str, String)]) -> ConditionUpdate {
    // What a reader has yet to confirm is the least: anything else is said before it.
    let mut troubles: Vec<_> = troubles.iter().collect();
    troubles.sort_by_key(|(reason, _)| *reason == "PendingConfirmation");
    let told: Vec<_> = troubles.iter().map(|(_, text)| text.as_str()).collect();
    let reason = troubles.first().map_or("Delivering", |(reason, _)| reason);
    ConditionUpdate::new(DELIVERY_READY, troubles.is_empty(), reason, told.join("; "))
}

async fn integration_key(
    cluster: &ClusterView<'_>,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<crate::clients::secret::Secret> {
    let text = cluster.secret(namespace, name, key).await?;
    desired::integration_key(&text).ok_or_else(|| {
        let message = format!(
            "key {key} of Secret {namespace}/{name} is not a PagerDuty integration key (letters and digits, at most 64)"
        );
        Error::new(Class::Waiting(WaitingOn::Secret), message)
    })
}

/// Whether the account answered us; `None` where that passes by itself and says nothing yet.
fn reachable(unreachable: Option<&Error>, failed: &[Failure]) -> Option<ConditionUpdate> {
    // Alarms need no EventBridge: what is in the way there is told of their delivery.
    let others = failed.iter().filter(|failure| !is_slacks(failure));
    let mut others = others.filter(|failure| failure.key.is_none());
    let blind = others.next();
    let (holds, reason, message) = match unreachable.or(blind.map(|failure| &failure.error)) {
        None => (true, "Reachable", ""),
        Some(error) if error.class == Class::Denied => (false, "AccessDenied", &*error.message),
        Some(_) => return None,
    };
    Some(ConditionUpdate::new(
        ACCOUNT_REACHABLE,
        holds,
        reason,
        message,
    ))
}
