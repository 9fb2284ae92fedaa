//! TenantObservability: the topics of a tenant, who hears them, the path of its alarms into Slack, and how the
//! tenant is.

pub mod attributes;
pub mod desired;
pub mod eventbridge;
pub mod health;
pub mod listing;
mod report;
pub mod sns;
pub mod stages;
pub mod subscription_list;
pub mod transitions;

use crate::{
    api::{
        self, ACCOUNT_REACHABLE, AlarmSet, AwsTarget, CommonStatus, DELIVERY_READY, FINALIZER,
        Health, Links, Severity, TenantObservability, TenantObservabilityStatus,
    },
    clients::aws::Identity,
    engine::{
        error::{Class, Error, Result, WaitingOn},
        informer::{Subscriber, Subscription},
        stage::{DynStage, Failure, StageRun},
    },
    kinds::{
        Clock, ConditionUpdate, Kind, Outcome, Policies, Status, StatusUpdate, TargetView,
        aws_scope::{self, AwsScope},
        cluster_view::ClusterView,
        installation::Installation,
        names,
        slack_channel::route::route,
        system::{StageContext, Stages, System, SystemVisits, Target, Visitor},
    },
};
use desired::{Integrations, SubscriptionKey};
use eventbridge::{
    desired::{Routes, channels, concerns, concerns_as},
    report::{Delivery, is_slacks},
    stages::{AlarmRules, EventBridgeContext, SlackPaths},
};
use jiff::Timestamp;
use kube::ResourceExt;
use listing::SubscriptionLists;
use sns::TopicArn;
use stages::{
    Candidates, KnownSubscriptions, Subscriptions, TopicTags, Topics,
    attributes::{SubscriptionAttributes, TopicAttributes},
};
use std::{
    collections::{BTreeSet, btree_map::Entry},
    time::Duration,
};

/// What is looked at when a time has passed is looked at a moment later, so that it has.
const MOMENT: Duration = Duration::from_secs(1);

/// How long after a tenant an AlarmSet of it may be deleted by the same command or controller.
const TOGETHER: Duration = Duration::from_secs(5);

/// What a TenantObservability refers to, and who refers to it.
pub struct Inputs {
    /// The integration keys that it names.
    pub integrations: Integrations,
    /// The routes into the Slack channels that it names.
    pub routes: Routes,
    /// The tenant's AlarmSets.
    pub sets: Vec<AlarmSet>,
}

/// The stages of a TenantObservability.
pub struct TenantStages {
    /// The owner's tags of topics that are to be adopted.
    pub tags: StageRun<TopicTags>,
    /// SNS topics.
    pub topics: StageRun<Topics>,
    /// Their attributes.
    pub topic_attributes: StageRun<TopicAttributes>,
    /// Which of those who hear them were subscribed by us.
    pub lists: StageRun<SubscriptionLists>,
    /// Who hears them.
    pub subscriptions: StageRun<Subscriptions>,
    /// How.
    pub subscription_attributes: StageRun<SubscriptionAttributes>,
    /// The connections and API destinations by which EventBridge gets into Slack.
    pub slack: StageRun<SlackPaths>,
    /// Which alarms go there, and as what.
    pub rules: StageRun<AlarmRules>,
}

impl Stages for TenantStages {
    fn all(&mut self) -> Vec<&mut dyn DynStage> {
        vec![
            &mut self.tags,
            &mut self.topics,
            &mut self.topic_attributes,
            &mut self.lists,
            &mut self.subscriptions,
            &mut self.subscription_attributes,
            &mut self.slack,
            &mut self.rules,
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

    fn take_records(&mut self, known: &Self) {
        self.targets = known.targets.clone();
        self.topics = known.topics.clone();
        self.subscriptions = known.subscriptions.clone();
        self.slack_paths = known.slack_paths.clone();
    }
}

/// The names of the SlackChannels that a tenant's severities go to.
pub fn channel_names(tenant: &TenantObservability) -> BTreeSet<&str> {
    channels(tenant)
}

impl Kind for TenantObservability {
    const KIND: &'static str = "TenantObservability";
    type Inputs = Inputs;
    type Visits = SystemVisits<Self, Aws>;

    fn policies(&self) -> Policies {
        Policies {
            suspend: self.spec.suspend,
            drift: self.spec.drift_policy,
            deletion: self.spec.deletion_policy,
        }
    }

    /// Those of its SlackChannels are theirs.
    fn secret_names(&self) -> BTreeSet<&str> {
        let recipients = self.spec.notify.iter().flat_map(|notify| notify.listed());
        recipients
            .flat_map(|(_, recipients)| &recipients.pager_duty)
            .map(|service| service.integration_key_secret_ref.name.as_str())
            .collect()
    }

    async fn dereference(&self, cluster: &ClusterView<'_>) -> Result<Inputs> {
        let (namespace, name) = (self.namespace().unwrap_or_default(), self.name_any());
        let selector = format!("spec.tenantRef.name={name}");
        let ours = |set: &AlarmSet| set.spec.tenant_ref.name == name;
        let mut sets = cluster.list(&namespace, &selector, ours).await?;
        sets.retain(|set| set.metadata.deletion_timestamp.is_none());
        let mut routes = Routes::new();
        for channel in channels(self) {
            let found = route(channel, &namespace, cluster).await;
            routes.insert(channel.to_owned(), found);
        }
        Ok(Inputs {
            integrations: self.integrations(&namespace, cluster).await,
            routes,
            sets,
        })
    }

    async fn visit(visitor: &Visitor<'_, Self>) -> Self::Visits {
        visitor.visit::<Aws>(()).await
    }

    /// What its alarms that fire say last goes by its topics and rules: the AlarmSets that go with it go first.
    async fn holds_deletion(
        &self,
        cluster: &ClusterView<'_>,
    ) -> Result<Option<(&'static str, Error)>> {
        let (namespace, name) = (self.namespace().unwrap_or_default(), self.name_any());
        let selector = format!("spec.tenantRef.name={name}");
        let ours = |set: &AlarmSet| set.spec.tenant_ref.name == name;
        let mut sets = cluster.list(&namespace, &selector, ours).await?;
        let since = self.metadata.deletion_timestamp.as_ref();
        let since = since.and_then(|at| Duration::try_from(Timestamp::now() - at.0).ok());
        let together = since.is_some_and(|since| since < TOGETHER);
        let goes = together || !sets.is_empty() && cluster.is_terminating(&namespace).await;
        let here = self.spec.aws.as_ref();
        let here = here.map(|aws| (&aws.account_id, &aws.region));
        sets.retain(|set| {
            let mut targets = set.status.iter().flat_map(|status| &status.targets);
            // One that has left, or cannot be cleaned up elsewhere, needs nothing here. One whose status was wiped
            // learns from us where it was.
            let acts_here = targets.clone().next().is_none()
                || targets.any(|target| here == Some((&target.account_id, &target.region)));
            let is_held = set.finalizers().iter().any(|it| it == FINALIZER);
            acts_here && is_held && (goes || set.metadata.deletion_timestamp.is_some())
        });
        let names: Vec<_> = sets.iter().map(ResourceExt::name_any).collect();
        let held = (!names.is_empty()).then(|| {
            let message = format!(
                "AlarmSet {} goes first: what its alarms say last goes by these topics and rules",
                names.join(", ")
            );
            let held = Error::new(Class::Waiting(WaitingOn::Prerequisite), message);
            let mut going = sets.iter().map(|set| &set.metadata.deletion_timestamp);
            let held = match going.all(Option::is_some) {
                // Their end wakes it.
                true => held,
                false => held.after(TOGETHER),
            };
            (Aws::NAME, held)
        });
        Ok(held)
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
        clock: Clock<'_>,
    ) -> StatusUpdate {
        let now = clock.now;
        let mut updates = StatusUpdate::default();
        let mut problems = Vec::new();
        if let Some(visit) = outcome.visits.current() {
            let failed = &visit.report.report.failed;
            match report::reachable(visit.report.reached.as_ref().err(), failed) {
                Some(update) => updates.conditions.push(update),
                None => updates.unknown.push(ACCOUNT_REACHABLE),
            }
            let delivery = match &visit.stages {
                Some(stages) => report::delivery(stages, failed, status),
                None => Delivery::Unknown,
            };
            let sets = outcome.inputs.iter().flatten();
            let silent = report::silent_alarms(sets.flat_map(|inputs| &inputs.sets));
            let delivery = match delivery {
                Delivery::Known(troubles) => {
                    Delivery::Known([troubles, silent.into_iter().collect()].concat())
                }
                nothing => nothing,
            };
            match delivery {
                Delivery::Unknown => {
                    updates.unknown.push(DELIVERY_READY);
                    // What was wrong when it was read last still is, for all we know.
                    let last = api::condition(status.conditions(), DELIVERY_READY);
                    let wrong = last.filter(|last| last.status == "False");
                    problems.extend(wrong.map(|last| last.message.clone()));
                }
                Delivery::ToNobody => {}
                Delivery::Known(troubles) => {
                    let stages = visit.stages.as_ref();
                    let provisos = stages.map(report::provisos).unwrap_or_default();
                    let update = report::delivering(&troubles, &provisos);
                    if update.holds != Some(true) {
                        problems.push(update.message.clone());
                    }
                    updates.conditions.push(update);
                }
            }
            let (topics, subscriptions) = (status.topics.len(), status.subscriptions.len());
            updates.summary = format!("topics: {topics}, subscriptions: {subscriptions}");
            let paths = status.slack_paths.iter();
            let channels: BTreeSet<_> = paths.map(|path| &path.channel).collect();
            if !channels.is_empty() {
                updates.summary += &format!(", Slack channels: {}", channels.len());
            }
            if let Some(stages) = &visit.stages {
                updates.requeue_after = self.requeue_after(stages, status);
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
            let stale = clock.is_stale(&outcome.visits);
            let rolled = health::roll_up(&inputs.sets, &problems, stale, now);
            status.health = Some(rolled.health);
            status.summary = Some(rolled.summary.clone());
            status.counts = Some(rolled.counts);
            let after = rolled
                .requeue_after
                .map(|after| after.unsigned_abs() + MOMENT);
            updates.requeue_after = updates.requeue_after.into_iter().chain(after).min();
            let (holds, reason) = match rolled.health {
                Health::Healthy => (Some(true), "Healthy"),
                Health::Degraded => (Some(false), "Degraded"),
                Health::Alarming => (Some(false), "Alarming"),
                Health::Unknown => (None, "Unknown"),
            };
            let healthy = ConditionUpdate::new("Healthy", holds, reason, rolled.message);
            updates.conditions.push(healthy);
        }
        updates
    }
}

/// The tenant's AWS account.
pub struct Aws;

impl System<TenantObservability> for Aws {
    const NAME: &'static str = "aws";
    type Target = AwsTarget;
    type Scope = AwsScope;
    type Stages = TenantStages;
    type From = ();

    fn targets(status: &mut TenantObservabilityStatus) -> &mut Vec<AwsTarget> {
        &mut status.targets
    }

    async fn admits(
        tenant: &TenantObservability,
        target: &AwsTarget,
        cluster: &ClusterView<'_>,
    ) -> Result<()> {
        let namespace = tenant.namespace().unwrap_or_default();
        aws_scope::admits(&namespace, &target.account_id, cluster).await
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
        let own: Vec<_> = own.into_values().map(|(_, arn)| arn).collect();
        let heard = own.iter().map(TopicArn::subscriptions).collect();
        let topics = own.into_iter().chain(tenant.named_topics()).collect();
        let mut subscriptions = vec![
            scope.trust.subscribe(subscriber, BTreeSet::new()),
            scope.topics.subscribe(subscriber, topics),
            scope.subscription_attributes.subscribe(subscriber, heard),
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
            ownership,
            status,
            from: (),
        } = context;
        let candidates = tenant.candidates(target, installation);
        let (topics, subscriptions, slack) = match inputs {
            Some(inputs) => (
                desired::topics(tenant, target, installation),
                desired::subscriptions(tenant, &inputs.integrations, installation),
                eventbridge::desired::wanted(tenant, &inputs.routes, target, installation),
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
            (*ownership).clone(),
            installation,
        );
        let (slack, rules) = eventbridge::stages::stages(slack, &events);
        let staying: BTreeSet<_> = candidates
            .iter()
            .filter(|(_, (name, _))| topics.wanted.contains_key(name))
            .map(|(severity, _)| *severity)
            .collect();
        let recorded = status.subscriptions.iter();
        let recorded = recorded.map(|entry| (SubscriptionKey::from(entry), entry.state));
        let topics = Topics::new(
            topics,
            desired::topic_attributes(tenant),
            candidates,
            tenant.named_topics().collect(),
            (*ownership).clone(),
            scope,
            options,
        );
        let recorded: KnownSubscriptions = recorded.collect();
        let digester = installation.digester.clone();
        let lists = SubscriptionLists::new(
            &subscriptions,
            &topics,
            &staying,
            recorded.clone(),
            digester.clone(),
        );
        let subscriptions = Subscriptions::new(subscriptions, &topics, staying, recorded, digester);
        TenantStages {
            tags: StageRun::new(TopicTags::of(&topics)),
            topic_attributes: StageRun::new(TopicAttributes::of(&topics)),
            topics: StageRun::new(topics),
            subscription_attributes: StageRun::new(SubscriptionAttributes::of(&subscriptions)),
            lists: StageRun::new(lists),
            subscriptions: StageRun::new(subscriptions),
            slack: StageRun::new(slack),
            rules: StageRun::new(rules),
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

    async fn integrations(&self, namespace: &str, cluster: &ClusterView<'_>) -> Integrations {
        let mut keys = Integrations::new();
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

    /// When the paths into Slack are to be looked at again, if anything there is only a matter of time.
    fn requeue_after(
        &self,
        stages: &TenantStages,
        status: &TenantObservabilityStatus,
    ) -> Option<Duration> {
        // Nothing is left of it, but this run still wanted to know: the next one says that nobody does.
        let over = concerns(self) && !concerns_as(self, Some(status));
        let seen = stages.slack.seen.as_ref();
        let drained = seen.and_then(|seen| stages.slack.stage.events.drained_in(seen));
        let over = over.then_some(Duration::ZERO);
        let after = over.into_iter().chain(drained).min();
        after.map(|after| after + MOMENT)
    }
}

async fn integration_key(
    cluster: &ClusterView<'_>,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<crate::clients::secret::Secret> {
    let text = cluster.secret(namespace, name, key).await?;
    desired::integration(&text, cluster.installation).ok_or_else(|| {
        let message = format!(
            "key {key} of Secret {namespace}/{name} is neither a PagerDuty integration key (letters and digits, at most 64) nor an integration URL of events.pagerduty.com or events.eu.pagerduty.com (https://…/integration/<key>/enqueue)"
        );
        Error::new(Class::Waiting(WaitingOn::Secret), message)
    })
}
