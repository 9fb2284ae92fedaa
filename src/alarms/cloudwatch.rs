//! The alarms in one account: reading them in bulk, putting them one by one, deleting them by the hundred.

use super::desired::{Configuration, Live, Statistic};
use crate::{
    api::AlarmState,
    clients::aws::{Account, Call, classify},
    error::{Error, Result},
    mark::{Mark, TAG},
    plan::{Change, Desired, Found, Holder, Verb},
    stage::{Applied, ChangeOf, Ids, Seen, Stage},
};
use aws_sdk_cloudwatch::types::{
    self as sdk, AlarmType, CompositeAlarm, Dimension, MetricAlarm, StateValue, Tag,
};
use jiff::Timestamp;
use std::{collections::BTreeMap, sync::Arc};

/// The alarms of one AlarmSet in one account and Region.
pub struct Alarms {
    /// What should be there.
    pub desired: Desired<String, Configuration>,
    /// What the names of all the tenant's alarms begin with.
    pub prefix: String,
    /// Ours.
    pub mark: Mark,
    /// Clients that act there.
    pub account: Arc<Account>,
    scope: String,
}

impl Alarms {
    /// The stage of one AlarmSet in one place.
    pub fn new(
        desired: Desired<String, Configuration>,
        prefix: String,
        mark: Mark,
        account: Arc<Account>,
    ) -> Self {
        let identity = &account.identity;
        let scope = format!(
            "{}/{}/{}/cloudwatch",
            identity.role_arn, identity.external_id, identity.region
        );
        Self {
            desired,
            prefix,
            mark,
            account,
            scope,
        }
    }

    async fn put(&self, name: &str, to: &Configuration, created: bool) -> Result<()> {
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
        let list =
            |items: &std::collections::BTreeSet<String>| Some(items.iter().cloned().collect());
        let put = self
            .account
            .cloudwatch
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
        let put = if created {
            put.tags(Tag::builder().key(TAG).value(self.mark.as_str()).build())
        } else {
            put
        };
        let call = Call::write(&self.account.identity, "cloudwatch", "PutMetricAlarm");
        put.send()
            .await
            .map(drop)
            .map_err(|error| classify(&call, &error))
    }

    async fn delete(&self, names: Vec<String>) -> Result<()> {
        let call = Call::write(&self.account.identity, "cloudwatch", "DeleteAlarms");
        let delete = self
            .account
            .cloudwatch
            .delete_alarms()
            .set_alarm_names(Some(names));
        delete
            .send()
            .await
            .map(drop)
            .map_err(|error| classify(&call, &error))
    }

    fn holder(&self, description: Option<&str>) -> Holder {
        match description.and_then(Mark::in_description) {
            Some(mark) if mark == self.mark => Holder::Us,
            Some(mark) => Holder::Other(mark.to_string()),
            None => Holder::Nobody,
        }
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

    /// By prefix rather than by name: the same pages also show what the spec no longer lists.
    async fn observe(&self, _: &Ids) -> Result<Seen<Self>> {
        let mut pages = self
            .account
            .cloudwatch
            .describe_alarms()
            .alarm_name_prefix(&self.prefix)
            // Left out, AWS answers with metric alarms only.
            .alarm_types(AlarmType::MetricAlarm)
            .alarm_types(AlarmType::CompositeAlarm)
            .max_records(100)
            .into_paginator()
            .send();
        let mut seen = BTreeMap::new();
        while let Some(page) = pages.next().await {
            let call = Call::read(&self.account.identity, "cloudwatch", "DescribeAlarms");
            let page = page.map_err(|error| classify(&call, &error))?;
            for alarm in page.metric_alarms() {
                seen.insert(named(alarm.alarm_name())?, self.found(alarm));
            }
            for alarm in page.composite_alarms() {
                seen.insert(named(alarm.alarm_name())?, self.found_composite(alarm));
            }
        }
        Ok(seen)
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
            match change {
                Change::Create { key, to } => {
                    outcomes.push(self.put(key, to, true).await.map(|()| Applied::Done))
                }
                Change::Update { key, to, .. } => {
                    outcomes.push(self.put(key, to, false).await.map(|()| Applied::Done));
                }
                Change::Delete { key, .. } => deleted.push(key.clone()),
                Change::Conflict { .. } => {}
            }
        }
        if !deleted.is_empty() {
            let count = deleted.len();
            let outcome = self.delete(deleted).await.map(|()| Applied::Done);
            outcomes.extend(std::iter::repeat_n(outcome, count));
        }
        outcomes
    }
}

fn named(name: Option<&str>) -> Result<String> {
    name.map(str::to_owned)
        .ok_or_else(|| Error::failing("DescribeAlarms answered with an alarm without a name"))
}

impl Alarms {
    fn found(&self, alarm: &MetricAlarm) -> Found<Configuration, (), Live> {
        Found {
            id: (),
            value: configuration(alarm),
            holder: self.holder(alarm.alarm_description()),
            live: live(
                alarm.state_value(),
                alarm
                    .state_transitioned_timestamp()
                    .or(alarm.state_updated_timestamp()),
                alarm.state_reason(),
            ),
        }
    }

    /// Something by one of our names that no AlarmSet makes: in the way, and never ours to change.
    fn found_composite(&self, alarm: &CompositeAlarm) -> Found<Configuration, (), Live> {
        let holder = match self.holder(alarm.alarm_description()) {
            Holder::Us | Holder::Nobody => Holder::Other("a composite alarm".into()),
            other => other,
        };
        Found {
            id: (),
            value: configuration(&MetricAlarm::builder().build()),
            holder,
            live: live(
                alarm.state_value(),
                alarm.state_transitioned_timestamp(),
                alarm.state_reason(),
            ),
        }
    }
}

fn live(
    state: Option<&StateValue>,
    since: Option<&aws_sdk_cloudwatch::primitives::DateTime>,
    reason: Option<&str>,
) -> Live {
    Live {
        state: match state {
            Some(StateValue::Alarm) => AlarmState::Alarm,
            Some(StateValue::Ok) => AlarmState::Ok,
            _ => AlarmState::InsufficientData,
        },
        since: since.and_then(|at| Timestamp::from_second(at.secs()).ok()),
        reason: reason.unwrap_or_default().to_owned(),
    }
}

/// What DescribeAlarms says, with what AWS leaves out where it is unset in the form in which we compare.
fn configuration(alarm: &MetricAlarm) -> Configuration {
    let evaluation_periods = alarm.evaluation_periods().unwrap_or_default();
    let mut foreign_fields = Vec::new();
    if let Some(unit) = alarm.unit() {
        foreign_fields.push(format!("unit {unit}"));
    }
    if !alarm.metrics().is_empty() {
        foreign_fields.push(format!("{} metrics", alarm.metrics().len()));
    }
    if let Some(id) = alarm.threshold_metric_id() {
        foreign_fields.push(format!("thresholdMetricId {id}"));
    }
    if let Some(evaluate) = alarm
        .evaluate_low_sample_count_percentile()
        .filter(|text| *text != "evaluate")
    {
        foreign_fields.push(format!("evaluateLowSampleCountPercentile {evaluate}"));
    }
    if !alarm.insufficient_data_actions().is_empty() {
        foreign_fields.push(format!(
            "insufficientDataActions {}",
            alarm.insufficient_data_actions().join(", ")
        ));
    }
    Configuration {
        description: alarm.alarm_description().unwrap_or_default().to_owned(),
        namespace: alarm.namespace().unwrap_or_default().to_owned(),
        metric_name: alarm.metric_name().unwrap_or_default().to_owned(),
        dimensions: alarm
            .dimensions()
            .iter()
            .map(|pair| {
                (
                    pair.name().unwrap_or_default().to_owned(),
                    pair.value().unwrap_or_default().to_owned(),
                )
            })
            .collect(),
        statistic: match (alarm.statistic(), alarm.extended_statistic()) {
            (Some(statistic), _) => Statistic::Plain(statistic.as_str().to_owned()),
            (None, extended) => Statistic::Extended(extended.unwrap_or_default().to_owned()),
        },
        period: alarm.period().unwrap_or_default(),
        evaluation_periods,
        datapoints_to_alarm: alarm.datapoints_to_alarm().unwrap_or(evaluation_periods),
        comparison_operator: alarm
            .comparison_operator()
            .map(|operator| operator.as_str().to_owned())
            .unwrap_or_default(),
        threshold: alarm.threshold(),
        treat_missing_data: alarm.treat_missing_data().unwrap_or("missing").to_owned(),
        actions_enabled: alarm.actions_enabled().unwrap_or(true),
        alarm_actions: alarm.alarm_actions().iter().cloned().collect(),
        ok_actions: alarm.ok_actions().iter().cloned().collect(),
        foreign_fields,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What AWS leaves out where it is unset must not read as a difference: else there is a put every pass.
    #[test]
    fn what_aws_leaves_out_reads_as_its_default() {
        let alarm = MetricAlarm::builder()
            .alarm_name("a")
            .evaluation_periods(3)
            .threshold(1.0)
            .statistic(sdk::Statistic::Sum)
            .comparison_operator(sdk::ComparisonOperator::GreaterThanThreshold)
            .build();
        let seen = configuration(&alarm);
        assert_eq!(seen.datapoints_to_alarm, 3);
        assert_eq!(seen.treat_missing_data, "missing");
        assert!(seen.actions_enabled);
        assert_eq!(seen.foreign_fields, Vec::<String>::new());
    }

    #[test]
    fn what_we_never_set_is_seen() {
        let alarm = MetricAlarm::builder()
            .unit(sdk::StandardUnit::Seconds)
            .insufficient_data_actions("arn:x")
            .evaluate_low_sample_count_percentile("ignore")
            .build();
        assert_eq!(
            configuration(&alarm).foreign_fields,
            [
                "unit Seconds",
                "evaluateLowSampleCountPercentile ignore",
                "insufficientDataActions arn:x"
            ]
        );
    }
}
