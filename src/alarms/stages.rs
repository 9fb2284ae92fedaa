//! The alarms of one AlarmSet in one place, and their tags: put one by one, deleted by the hundred.

use super::{
    cloudwatch::{AlarmWatch, alarm_arn},
    desired::{Configuration, Live, Observed, Statistic},
};
use crate::{
    api::AlarmState,
    clients::aws::classify,
    error::Result,
    mark::{Mark, OwnerTag, TAG},
    outside::{Asking, Freshness, Snapshot},
    plan::{Change, Desired, Found, Holder, Verb},
    stage::{Applied, ChangeOf, Ids, Operation, Seen, Stage},
};
use aws_sdk_cloudwatch::types::{self as sdk, Dimension, Tag};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The alarms of one AlarmSet in one place.
pub struct Alarms {
    /// What should be there.
    pub desired: Desired<String, Configuration>,
    /// What the names of all the tenant's alarms begin with.
    prefix: String,
    /// What the names of this set's alarms begin with.
    interest: BTreeSet<String>,
    mark: Mark,
    watch: Arc<AlarmWatch>,
    asking: Asking,
    scope: String,
}

impl Alarms {
    /// The stage of one AlarmSet, whose mark is `mark`, in one place. `prefix` is the tenant's, `interest` the set's own.
    pub fn new(
        desired: Desired<String, Configuration>,
        prefix: String,
        interest: BTreeSet<String>,
        mark: Mark,
        watch: Arc<AlarmWatch>,
        asking: Asking,
    ) -> Self {
        let scope = watch.account.identity.scope("cloudwatch");
        Self {
            desired,
            prefix,
            interest,
            mark,
            watch,
            asking,
            scope,
        }
    }

    fn found(&self, observed: Snapshot<Observed>) -> Seen<Self> {
        let found = observed.into_iter().map(|(name, observed)| {
            let found = Found {
                id: (),
                value: observed.configuration.clone(),
                holder: observed.holder(&self.mark),
                live: observed.live.clone(),
            };
            (name, found)
        });
        found.collect()
    }

    async fn put(
        &self,
        name: &str,
        to: &Configuration,
        from: Option<&Configuration>,
    ) -> Result<()> {
        let Configuration {
            description,
            namespace,
            metric_name,
            dimensions,
            statistic,
            period,
            evaluation_periods,
            datapoints_to_alarm,
            comparison_operator,
            threshold,
            treat_missing_data,
            actions_enabled,
            alarm_actions,
            ok_actions,
            foreign_fields: _,
        } = to;
        let dimensions = dimensions
            .iter()
            .map(|(name, value)| Dimension::builder().name(name).value(value).build())
            .collect();
        let list = |items: &BTreeSet<String>| Some(items.iter().cloned().collect());
        let put = self
            .watch
            .account
            .cloudwatch()
            .put_metric_alarm()
            .alarm_name(name)
            .alarm_description(description)
            .namespace(namespace)
            .metric_name(metric_name)
            .set_dimensions(Some(dimensions))
            .period(*period)
            .evaluation_periods(*evaluation_periods)
            .datapoints_to_alarm(*datapoints_to_alarm)
            .comparison_operator(sdk::ComparisonOperator::from(comparison_operator.as_str()))
            .set_threshold(*threshold)
            .treat_missing_data(treat_missing_data)
            .actions_enabled(*actions_enabled)
            .set_alarm_actions(list(alarm_actions))
            .set_ok_actions(list(ok_actions));
        let put = match statistic {
            Statistic::Plain(statistic) => put.statistic(sdk::Statistic::from(statistic.as_str())),
            Statistic::Extended(statistic) => put.extended_statistic(statistic),
        };
        // AWS ignores the tags of a put that changes an alarm.
        let put = match from {
            Some(_) => put,
            None => put.tags(Tag::builder().key(TAG).value(self.mark.as_str()).build()),
        };
        let call = self.watch.account.write("cloudwatch", "PutMetricAlarm");
        let outcome = put.send().await.map(drop);
        let outcome = outcome.map_err(|error| classify(&call, &error));
        match &outcome {
            Ok(()) => self.remember(name, to, from),
            Err(error) if error.class.may_have_landed() => self.watch.alarms.doubt(name),
            Err(_) => {}
        }
        outcome
    }

    /// A put that went well leaves an alarm's state as it is; a new one has no data yet.
    fn remember(&self, name: &str, to: &Configuration, from: Option<&Configuration>) {
        let AlarmWatch { alarms, tags, .. } = &*self.watch;
        let before = alarms.known(name).remove(name);
        let live = before.map_or_else(
            || Live {
                state: AlarmState::InsufficientData,
                since: None,
                reason: String::new(),
            },
            |before| before.live.clone(),
        );
        let now = Observed {
            configuration: to.clone(),
            live,
            composite: false,
        };
        alarms.wrote(name, Some(now));
        match from {
            None => tags.wrote(name, Some(OwnerTag(Some(self.mark.to_string())))),
            // Adopted: the tag is missing, as far as we know.
            Some(from) if Mark::in_description(&from.description).is_none() => {
                if !tags.known(name).contains_key(name) {
                    tags.wrote(name, Some(OwnerTag(None)));
                }
            }
            Some(_) => {}
        }
    }

    async fn delete(&self, names: Vec<String>) -> Result<()> {
        let AlarmWatch {
            account,
            alarms,
            tags,
        } = &*self.watch;
        let call = account.write("cloudwatch", "DeleteAlarms");
        let delete = account.cloudwatch().delete_alarms();
        let outcome = delete.set_alarm_names(Some(names.clone())).send().await;
        let outcome = outcome.map(drop).map_err(|error| classify(&call, &error));
        for name in &names {
            match &outcome {
                Ok(()) => {
                    alarms.wrote(name, None);
                    tags.wrote(name, None);
                }
                Err(error) if error.class.may_have_landed() => alarms.doubt(name),
                Err(_) => {}
            }
        }
        outcome
    }
}

impl Stage for Alarms {
    const NAME: &'static str = "alarm";
    type Key = String;
    type Value = Configuration;
    type Id = ();
    type Live = Live;

    fn scope(&self) -> &str {
        &self.scope
    }

    fn desired(&self) -> &Desired<String, Configuration> {
        &self.desired
    }

    async fn observe(&self, _: &Ids) -> Result<Seen<Self>> {
        let observed = self.watch.alarms.snapshot(&self.interest, &self.asking);
        Ok(self.found(observed.await?))
    }

    async fn confirm(&self, keys: &BTreeSet<String>, _: &Ids) -> Result<Option<Seen<Self>>> {
        let alarms = &self.watch.alarms;
        if alarms.is_fresh(self.asking.since) {
            return Ok(None);
        }
        Ok(Some(self.found(alarms.confirm(keys, &self.asking).await?)))
    }

    fn operation(&self, change: &ChangeOf<Self>) -> Operation<'_> {
        self.watch.account.operation(
            &self.scope,
            match change.verb() {
                Verb::Delete => "cloudwatch:DeleteAlarms",
                _ => "cloudwatch:PutMetricAlarm",
            },
        )
    }

    /// The severity stands in the name, and an alarm whose severity moves is still that alarm.
    fn identity(&self, key: &String) -> String {
        let name = key.strip_prefix(&self.prefix).unwrap_or(key);
        name.split_once('/')
            .map_or(name, |(_, rest)| rest)
            .to_owned()
    }

    fn batch(&self, verb: Verb) -> usize {
        // DeleteAlarms takes a hundred names, PutMetricAlarm one.
        if verb == Verb::Delete { 100 } else { 1 }
    }

    async fn apply(&self, changes: &[ChangeOf<Self>], _: &Ids) -> Vec<Result<Applied>> {
        let mut outcomes = Vec::with_capacity(changes.len());
        let mut deleted = Vec::new();
        for change in changes {
            let outcome = match change {
                Change::Create { key, to } => self.put(key, to, None).await,
                Change::Update { key, to, from, .. } => self.put(key, to, Some(from)).await,
                Change::Delete { key, .. } => {
                    deleted.push(key.clone());
                    continue;
                }
                Change::Conflict { .. } => continue,
            };
            outcomes.push(outcome.map(|()| Applied::Done));
        }
        if !deleted.is_empty() {
            let count = deleted.len();
            let outcome = self.delete(deleted).await.map(|()| Applied::Done);
            outcomes.extend(std::iter::repeat_n(outcome, count));
        }
        outcomes
    }
}

/// The owner's tags of one AlarmSet's alarms. They are set when an alarm is made; this mends them.
pub struct Tags {
    desired: Desired<String, OwnerTag>,
    interest: BTreeSet<String>,
    watch: Arc<AlarmWatch>,
    asking: Asking,
    scope: String,
}

impl Tags {
    /// The tags of these alarms.
    pub fn of(alarms: &Alarms) -> Self {
        let tag = OwnerTag(Some(alarms.mark.to_string()));
        let names = alarms.desired.wanted.keys();
        Self {
            desired: Desired {
                wanted: names.map(|name| (name.clone(), tag.clone())).collect(),
                ..Desired::default()
            },
            interest: alarms.interest.clone(),
            watch: alarms.watch.clone(),
            asking: alarms.asking.clone(),
            scope: alarms.scope.clone(),
        }
    }
}

impl Stage for Tags {
    const NAME: &'static str = "alarm tag";
    const NEEDS: &'static [&'static str] = &[Alarms::NAME];
    type Key = String;
    type Value = OwnerTag;
    type Id = ();
    type Live = ();

    fn scope(&self) -> &str {
        &self.scope
    }

    fn desired(&self) -> &Desired<String, OwnerTag> {
        &self.desired
    }

    /// As they are known. They are read one by one and rarely, so nobody waits for that unless somebody
    /// has asked for it; of what is not known yet nothing is to be said.
    async fn observe(&self, ids: &Ids) -> Result<Seen<Self>> {
        let tags = &self.watch.tags;
        if self.asking.freshness == Freshness::Now {
            tags.snapshot(&self.interest, &self.asking).await?;
        }
        let known = self.interest.iter().flat_map(|prefix| tags.known(prefix));
        let known: BTreeMap<_, _> = known.collect();
        let seen = self.desired.wanted.iter().map(|(name, wanted)| {
            let ours = ids.get(Alarms::NAME, name).is_some() || ids.is_new(Alarms::NAME, name);
            let tag = known.get(name).filter(|_| ours);
            let found = Found {
                id: (),
                value: tag.map_or_else(|| wanted.clone(), |tag| (**tag).clone()),
                holder: Holder::Us,
                live: (),
            };
            (name.clone(), found)
        });
        Ok(seen.collect())
    }

    fn operation(&self, _: &ChangeOf<Self>) -> Operation<'_> {
        let account = &self.watch.account;
        account.operation(&self.scope, "cloudwatch:TagResource")
    }

    async fn apply(&self, changes: &[ChangeOf<Self>], _: &Ids) -> Vec<Result<Applied>> {
        let AlarmWatch { account, tags, .. } = &*self.watch;
        let mut outcomes = Vec::with_capacity(changes.len());
        for change in changes {
            let (Change::Create { key, to } | Change::Update { key, to, .. }) = change else {
                continue;
            };
            let tag = Tag::builder().key(TAG).set_value(to.0.clone()).build();
            let request = account.cloudwatch().tag_resource().tags(tag);
            let call = account.write("cloudwatch", "TagResource");
            let outcome = request.resource_arn(alarm_arn(account, key)).send().await;
            let outcome = outcome.map_err(|error| classify(&call, &error));
            if outcome.is_ok() {
                tags.wrote(key, Some(to.clone()));
            }
            outcomes.push(outcome.map(|_| Applied::Done));
        }
        outcomes
    }
}
