//! The alarms of one AlarmSet in one place, and their tags: put one by one, deleted by the hundred.

use super::{
    closing::{PAUSE, REASON, closing},
    cloudwatch::alarm_arn,
    desired::{Configuration, Live, Observed, Statistic, Wanted},
    tags::{AlarmTags, TagsInEvents, presumed},
};
use crate::{
    api::AlarmState,
    clients::aws::{Writer, alarms::DESCRIBE_ALARMS, error::Call},
    engine::{
        error::{Class, Error, Result},
        gate::{Operation, WritePermit},
        informer::{Consistency, ReadOptions, Snapshot},
        plan::{Change, Desired, Found, Owner, Verb},
        stage::{ChangeOf, Ids, ResultOf, Seen, Stage},
    },
    kinds::{aws_scope::AwsScope, mark::Ownership},
};
use aws_sdk_cloudwatch::{
    operation::put_metric_alarm::builders::PutMetricAlarmFluentBuilder,
    types::{self as sdk, ActionConfiguration, AlarmTagsPropagation, Dimension, Tag},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// The alarms of one AlarmSet in one place.
pub struct Alarms {
    /// What should be there.
    pub desired: Desired<String, Configuration>,
    /// The tags of each of them.
    tags: BTreeMap<String, AlarmTags>,
    /// What the names of all the tenant's alarms begin with.
    prefix: String,
    /// What the names of this set's alarms begin with.
    prefixes: BTreeSet<String>,
    ownership: Ownership,
    scope: Arc<AwsScope>,
    options: ReadOptions,
    endpoint: String,
}

impl Alarms {
    /// The stage of one AlarmSet, in one place. `prefix` is the tenant's, `prefixes` the set's own.
    pub fn new(
        wanted: &Wanted,
        prefix: String,
        prefixes: BTreeSet<String>,
        ownership: Ownership,
        scope: Arc<AwsScope>,
        options: ReadOptions,
    ) -> Self {
        let endpoint = scope.account.identity.scope("cloudwatch");
        Self {
            desired: wanted.alarms.clone(),
            tags: wanted.tags.clone(),
            prefix,
            prefixes,
            ownership,
            scope,
            options,
            endpoint,
        }
    }

    /// An error where one of them cannot be read: nobody can tell what to do about it, nor what it does.
    fn found(&self, observed: Snapshot<Observed>) -> Result<Seen<Self>> {
        if let Some((name, _)) = observed.iter().find(|(_, observed)| observed.unreadable) {
            let call = Call {
                identity: &self.scope.account.identity,
                api: DESCRIBE_ALARMS,
                writes: false,
            };
            let what = format!("what it says of alarm {name} cannot be read");
            return Err(call.unreadable(&what));
        }
        let found = observed.into_iter().map(|(name, observed)| {
            let found = Found {
                id: (),
                value: observed.configuration.clone(),
                owner: observed.owner(&self.ownership),
                live: observed.live.clone(),
            };
            (name, found)
        });
        Ok(found.collect())
    }

    async fn put(
        &self,
        writer: &Writer<'_>,
        name: &str,
        to: &Configuration,
        from: Option<&Configuration>,
    ) -> Result<()> {
        // AWS ignores the tags of a put that changes an alarm.
        let tags = from.is_none().then(|| self.tags_of(name));
        let put = put_metric_alarm(writer.put_metric_alarm()?, name, to, tags.as_ref());
        let outcome = writer.done(put.send().await);
        match &outcome {
            Ok(()) => self.remember(name, to, from),
            Err(error) if error.class.may_have_landed() => self.scope.alarms.invalidate(name),
            Err(_) => {}
        }
        outcome
    }

    /// Sets an alarm that fires and goes to OK, which is told as if it had come to that by itself.
    async fn close(&self, writer: &Writer<'_>, name: &str) -> Result<()> {
        let AwsScope {
            alarms, closings, ..
        } = &*self.scope;
        if alarms.get(name).is_none() {
            let message = format!("alarm {name} is to be seen once more before it is set to OK");
            return Err(Error::failing(message));
        }
        let arn = alarm_arn(&self.scope.account, name);
        let set = writer.set_alarm_state()?.alarm_name(name);
        let set = set.state_value(sdk::StateValue::Ok).state_reason(REASON);
        let outcome = writer.done(set.send().await);
        match &outcome {
            Ok(()) => {
                closings.closed(arn, true);
                alarms.update(name.to_owned(), Ok(()), |it| {
                    it.live = Live {
                        state: AlarmState::Ok,
                        since: None,
                        reason: REASON.to_owned(),
                    };
                });
            }
            Err(error) if error.class.may_have_landed() => {
                closings.closed(arn, false);
                alarms.invalidate(name);
            }
            // Another try would be refused as well, and who removes the alarm may have nothing to do with that.
            Err(error) if matches!(error.class, Class::Denied | Class::Rejected) => {
                closings.refused(arn);
                let message = format!(
                    "alarm {name} fires and is removed without an OK, so that what it opened stays open until somebody closes it: {error}"
                );
                return Err(Error::new(Class::Rejected, message));
            }
            Err(_) => {}
        }
        outcome
    }

    /// A put that went well leaves an alarm's state as it is; a new one has no data yet.
    fn remember(&self, name: &str, to: &Configuration, from: Option<&Configuration>) {
        let AwsScope { alarms, tags, .. } = &*self.scope;
        if self.desired.wanted.contains_key(name) {
            let arn = alarm_arn(&self.scope.account, name);
            self.scope.closings.forget(&arn);
        }
        let before = alarms.get(name);
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
            unreadable: false,
        };
        alarms.wrote(name, Some(now));
        let now = match from {
            None => Some(self.tags_of(name)),
            Some(_) if tags.get(name).is_some() => None,
            Some(from) => presumed(
                &from.description,
                &from.tags_in_events,
                &self.ownership.mark,
            ),
        };
        if let Some(now) = now {
            tags.wrote(name, Some(now));
        }
    }

    /// What it carries from the beginning: never less than whose it is.
    fn tags_of(&self, name: &str) -> AlarmTags {
        let tags = self.tags.get(name).cloned();
        tags.unwrap_or_else(|| AlarmTags::owned(&self.ownership.mark))
    }

    async fn delete(&self, writer: &Writer<'_>, names: Vec<String>) -> Result<()> {
        let AwsScope { alarms, tags, .. } = &*self.scope;
        let delete = writer.delete_alarms()?;
        let delete = delete.set_alarm_names(Some(names.clone()));
        let outcome = writer.done(delete.send().await);
        for name in &names {
            alarms.note(name, outcome.as_ref(), || None);
            if outcome.is_ok() {
                tags.wrote(name, None);
                let arn = alarm_arn(&self.scope.account, name);
                self.scope.closings.forget(&arn);
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
    const DEFERRAL: Option<Duration> = Some(PAUSE);

    fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn desired(&self) -> &Desired<String, Configuration> {
        &self.desired
    }

    async fn observe(&self, _: &Ids) -> Result<Seen<Self>> {
        let alarms = &self.scope.alarms;
        let observed = alarms.snapshot(&self.prefixes, &self.options);
        self.found(observed.await?)
    }

    async fn confirm(&self, keys: &BTreeSet<String>, _: &Ids) -> Result<Option<Seen<Self>>> {
        let confirmed = self.scope.alarms.confirm(keys, &self.options).await?;
        confirmed.map(|observed| self.found(observed)).transpose()
    }

    fn operation(&self, change: &ChangeOf<Self>) -> Operation<'_> {
        self.scope.account.operation(
            &self.endpoint,
            match change {
                Change::Delete { .. } => "cloudwatch:DeleteAlarms",
                Change::Update { to, .. } if to.state.is_some() => "cloudwatch:SetAlarmState",
                Change::Create { .. } | Change::Update { .. } => "cloudwatch:PutMetricAlarm",
            },
        )
    }

    /// One that fires is closed before it goes; not before the one that takes its place is there.
    fn before_deletion(&self, key: &String, seen: &Seen<Self>) -> Vec<ChangeOf<Self>> {
        let Some(found) = seen.get(key) else {
            return Vec::new();
        };
        let arn = alarm_arn(&self.scope.account, key);
        let fires = found.live.state == AlarmState::Alarm;
        match found.ours() {
            Some(ours) if fires && self.scope.closings.is_due(&arn) => {
                closing(key, &ours, &found.value)
            }
            _ => Vec::new(),
        }
    }

    /// One that fires stays until it is closed, and for a while after that, so that its OK is delivered.
    fn defers_deletion(&self, key: &String, seen: &Seen<Self>) -> bool {
        let live = seen.get(key).map(|found| found.live.state);
        let fires = live == Some(AlarmState::Alarm);
        let arn = alarm_arn(&self.scope.account, key);
        self.scope.closings.defers(&arn, fires)
    }

    /// The severity stands in the name, and an alarm whose severity moves is still that alarm.
    fn identity(&self, key: &String) -> String {
        let name = key.strip_prefix(&self.prefix).unwrap_or(key);
        name.split_once('/')
            .map_or(name, |(_, rest)| rest)
            .to_owned()
    }

    fn batch(&self, changes: &[ChangeOf<Self>]) -> usize {
        // DeleteAlarms takes a hundred names, PutMetricAlarm one.
        let deletes = |change: &ChangeOf<Self>| change.verb() == Verb::Delete;
        if changes.first().is_some_and(deletes) {
            100
        } else {
            1
        }
    }

    async fn apply(
        &self,
        permit: &WritePermit<'_>,
        change: &ChangeOf<Self>,
        _: &Ids,
    ) -> ResultOf<Self> {
        let writer = self.scope.account.writer(permit)?;
        match change {
            Change::Update { key, to, .. } if to.state.is_some() => {
                self.close(&writer, key).await.map(|()| None)
            }
            Change::Create { key, to } => self.put(&writer, key, to, None).await.map(Some),
            Change::Update { key, to, from, .. } => {
                self.put(&writer, key, to, Some(from)).await.map(Some)
            }
            Change::Delete { key, .. } => {
                self.delete(&writer, vec![key.clone()]).await.map(|()| None)
            }
        }
    }

    async fn apply_batch(
        &self,
        permit: &WritePermit<'_>,
        changes: &[ChangeOf<Self>],
        ids: &Ids,
    ) -> Vec<ResultOf<Self>> {
        if let [change] = changes {
            return vec![self.apply(permit, change, ids).await];
        }
        let names = changes.iter().map(|change| change.key().clone());
        let outcome = match self.scope.account.writer(permit) {
            Ok(writer) => self.delete(&writer, names.collect()).await,
            Err(error) => Err(error),
        };
        vec![outcome.map(|()| None); changes.len()]
    }
}

/// The call that makes an alarm, with its tags, or that replaces all of it but its tags.
fn put_metric_alarm(
    call: PutMetricAlarmFluentBuilder,
    name: &str,
    to: &Configuration,
    tags: Option<&AlarmTags>,
) -> PutMetricAlarmFluentBuilder {
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
        insufficient_data_actions,
        tags_in_events,
        state: _,
        foreign_fields: _,
    } = to;
    let dimensions = dimensions
        .iter()
        .map(|(name, value)| Dimension::builder().name(name).value(value).build())
        .collect();
    let list = |items: &BTreeSet<String>| Some(items.iter().cloned().collect());
    let put = call
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
        .set_ok_actions(list(ok_actions))
        .set_insufficient_data_actions(list(insufficient_data_actions))
        .set_action_configuration(action_configuration(tags_in_events))
        .set_tags(tags.map(sdk_tags));
    match statistic {
        Statistic::Plain(statistic) => put.statistic(sdk::Statistic::from(statistic.as_str())),
        Statistic::Extended(statistic) => put.extended_statistic(statistic),
    }
}

/// How CloudWatch is told which tags travel.
fn action_configuration(tags: &TagsInEvents) -> Option<ActionConfiguration> {
    let on = || AlarmTagsPropagation::builder().enabled(true);
    let list = |keys: &BTreeSet<String>| Some(keys.iter().cloned().collect());
    let propagation = match tags {
        // Left out, a put turns it off.
        TagsInEvents::Off => return None,
        TagsInEvents::All => on(),
        TagsInEvents::Only(keys) => on().set_included_tag_keys(list(keys)),
        TagsInEvents::AllBut(keys) => on().set_excluded_tag_keys(list(keys)),
    };
    let actions = ActionConfiguration::builder();
    Some(actions.alarm_tags_propagation(propagation.build()).build())
}

fn sdk_tags(tags: &AlarmTags) -> Vec<Tag> {
    let pairs = tags.pairs();
    pairs
        .map(|(key, value)| Tag::builder().key(key).value(value).build())
        .collect()
}

/// The tags of one AlarmSet's alarms that are ours to set. They are set when an alarm is made; this mends them.
pub struct Tags {
    desired: Desired<String, AlarmTags>,
    prefixes: BTreeSet<String>,
    scope: Arc<AwsScope>,
    options: ReadOptions,
    endpoint: String,
}

impl Tags {
    /// The tags of these alarms.
    pub fn of(alarms: &Alarms) -> Self {
        Self {
            desired: Desired {
                wanted: alarms.tags.clone(),
                ..Desired::default()
            },
            prefixes: alarms.prefixes.clone(),
            scope: alarms.scope.clone(),
            options: alarms.options.clone(),
            endpoint: alarms.endpoint.clone(),
        }
    }
}

/// The tags of what is wanted, as far as they are known. Of an alarm that is not ours, and of one whose tags
/// nobody has read, nobody can tell.
fn as_known(
    wanted: &BTreeMap<String, AlarmTags>,
    known: &Snapshot<AlarmTags>,
    is_ours: impl Fn(&str) -> bool,
) -> Seen<Tags> {
    let mut seen = Seen::<Tags>::default();
    for name in wanted.keys() {
        match known.get(name).filter(|_| is_ours(name)) {
            Some(tags) => {
                let found = Found {
                    id: (),
                    value: (**tags).clone(),
                    owner: Owner::Us,
                    live: (),
                };
                seen.found.insert(name.clone(), found);
            }
            None => drop(seen.unknown.insert(name.clone())),
        }
    }
    seen
}

impl Stage for Tags {
    const NAME: &'static str = "alarm tag";
    const NEEDS: &'static [&'static str] = &[Alarms::NAME];
    type Key = String;
    type Value = AlarmTags;
    type Id = ();
    type Live = ();

    fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn desired(&self) -> &Desired<String, AlarmTags> {
        &self.desired
    }

    /// As they are known. They are read one by one and rarely, so nobody waits for that unless somebody
    /// has asked for it; of what is not known yet nothing is to be said.
    async fn observe(&self, ids: &Ids) -> Result<Seen<Self>> {
        let tags = &self.scope.tags;
        if self.options.consistency == Consistency::Now {
            tags.snapshot(&self.prefixes, &self.options).await?;
        }
        let known = tags.known(&self.prefixes);
        Ok(as_known(&self.desired.wanted, &known, |name| {
            ids.get::<Alarms>(&name.to_owned()).is_some()
        }))
    }

    fn operation(&self, _: &ChangeOf<Self>) -> Operation<'_> {
        let account = &self.scope.account;
        account.operation(&self.endpoint, "cloudwatch:TagResource")
    }

    async fn apply(
        &self,
        permit: &WritePermit<'_>,
        change: &ChangeOf<Self>,
        _: &Ids,
    ) -> ResultOf<Self> {
        let AwsScope { account, tags, .. } = &*self.scope;
        let Change::Update { key, from, to, .. } = change else {
            return Ok(None);
        };
        let writer = account.writer(permit)?;
        let request = writer.tag_alarm()?;
        let request = request.set_tags(Some(sdk_tags(to)));
        let request = request.resource_arn(alarm_arn(account, key));
        writer.done(request.send().await)?;
        tags.wrote(key, Some(to.over(from)));
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::plan::diff,
        kinds::{
            alarm_set::{cloudwatch, tags::Key},
            mark::{Cluster, Mark},
        },
    };
    use aws_sdk_cloudwatch::{Config, config::BehaviorVersion, types::MetricAlarm};

    fn tags(environment: Option<&str>) -> AlarmTags {
        let cluster = Cluster {
            name: "eu".into(),
            uid: "0a1b2c3d".into(),
        };
        let mark = Mark::of(&cluster, "AlarmSet", "vsu", "golden");
        AlarmTags::of(&mark, "golden", "p95", environment)
    }

    fn configuration(tags_in_events: TagsInEvents) -> Configuration {
        Configuration {
            tags_in_events,
            ..cloudwatch::configuration(&MetricAlarm::builder().build())
        }
    }

    /// Whatever is asked for comes back as what it was: else there is a put every pass.
    #[test]
    fn which_tags_travel_is_read_as_it_was_written() {
        let keys = || BTreeSet::from(["cost".to_owned(), "team".into()]);
        for tags in [
            TagsInEvents::Off,
            TagsInEvents::All,
            TagsInEvents::ours(),
            TagsInEvents::Only(keys()),
            TagsInEvents::AllBut(keys()),
        ] {
            let alarm =
                MetricAlarm::builder().set_action_configuration(action_configuration(&tags));
            let read = cloudwatch::configuration(&alarm.build());
            assert_eq!(read, configuration(tags));
        }
    }

    #[test]
    fn tags_go_with_the_call_that_makes_an_alarm_and_with_no_other() {
        let version = BehaviorVersion::v2026_01_12();
        let client = aws_sdk_cloudwatch::Client::from_conf(
            Config::builder().behavior_version(version).build(),
        );
        let (tags, to) = (tags(Some("prod")), configuration(TagsInEvents::ours()));
        for given in [Some(&tags), None] {
            let put = put_metric_alarm(client.put_metric_alarm(), "a", &to, given);
            let carried = put.get_tags().clone().map(|all| {
                let pairs = all
                    .iter()
                    .map(|tag| (tag.key().unwrap(), tag.value().unwrap()));
                (all.len(), AlarmTags::among(pairs))
            });
            assert_eq!(carried, given.map(|tags| (4, tags.clone())));
            // The owner's comes first.
            let first = put.get_tags().as_ref().and_then(|all| all[0].key());
            assert_eq!(first, given.map(|_| Key::Owner.as_str()));
            let actions = put.get_action_configuration().clone().unwrap();
            let travel = actions.alarm_tags_propagation().unwrap();
            assert_eq!(travel.enabled(), Some(true));
            assert_eq!(
                travel.included_tag_keys(),
                ["campanile-alarm", "campanile-environment", "campanile-set"]
            );
            assert_eq!(travel.excluded_tag_keys, None, "AWS takes one of both");
        }
    }

    /// What is known of an alarm's tags, whether it is ours, and whether they are set again.
    #[test]
    fn tags_are_mended_on_what_is_ours_where_they_are_known() {
        let (a, right) = ("a".to_owned(), tags(None));
        let wanted = BTreeMap::from([(a.clone(), right.clone())]);
        let (damaged, stray) = (
            AlarmTags::among([("campanile-set", "silver")]),
            tags(Some("prod")),
        );
        for (known, is_ours, mends) in [
            (Some(&right), true, false),
            (Some(&damaged), true, true),
            (Some(&damaged), false, false),
            (Some(&stray), true, false),
            (None, true, false),
        ] {
            let known: BTreeMap<_, _> = known
                .map(|tags| (a.clone(), Arc::new(tags.clone())))
                .into_iter()
                // Not wanted: no business of this stage.
                .chain([("b".to_owned(), Arc::new(damaged.clone()))])
                .collect();
            let seen = as_known(&wanted, &known, |name| is_ours && name == "a");
            let desired = Desired {
                wanted: wanted.clone(),
                ..Desired::default()
            };
            let changes = diff(&desired, &seen).changes;
            let mended: Vec<_> = changes
                .iter()
                .map(|change| match change {
                    Change::Update { key, from, to, .. } => (key, from, to),
                    other => panic!("{other:?}"),
                })
                .collect();
            let expected: Vec<_> = mends
                .then_some((&a, &damaged, &right))
                .into_iter()
                .collect();
            assert_eq!(mended, expected, "{known:?}, ours: {is_ours}");
        }
    }
}
