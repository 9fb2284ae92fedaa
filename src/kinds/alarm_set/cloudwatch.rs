//! The informer sources of CloudWatch: alarms, read in bulk or by name, and their tags, read one by one.

use super::{
    desired::{Configuration, Live, Observed, Statistic},
    tags::{AlarmTags, TagsInEvents},
};
use crate::{
    api::AlarmState,
    clients::aws::{
        Account,
        alarms::DESCRIBE_ALARMS,
        reading::{AwsSource, ReadBy, Reader, Reads},
    },
    engine::{
        error::Result,
        informer::{Informer, PollRate, ReadOf, Source},
        limits::Priority,
    },
    kinds::{
        attributes::{
            Attribute::{AtDefault, Declared, ReadOnly},
            Attributes,
        },
        names,
    },
};
use aws_sdk_cloudwatch::{
    operation::describe_alarms::builders::DescribeAlarmsFluentBuilder,
    types::{
        ActionConfiguration, AlarmType, CompositeAlarm, EvaluationCriteria, EvaluationWindow,
        MetricAlarm, StateValue,
    },
};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The most that DescribeAlarms takes by name, and answers at once.
const PAGE: usize = 100;

/// All alarms of this installation in one scope.
pub struct Alarms {
    /// What their names begin with.
    pub prefix: String,
}

impl Alarms {
    /// All that a request finds, page by page.
    async fn find(by: &Reads<'_>, request: DescribeAlarmsFluentBuilder) -> Result<ReadBy<Self>> {
        let request = request
            // Left out, AWS answers with metric alarms only.
            .alarm_types(AlarmType::MetricAlarm)
            .alarm_types(AlarmType::CompositeAlarm)
            .max_records(i32::try_from(PAGE).unwrap_or(i32::MAX));
        let page = async |next| {
            let page = by.alarm_page(request.clone().set_next_token(next)).await?;
            let mut found = Vec::new();
            for alarm in &page.metric {
                found.push((named(by, alarm.alarm_name())?, metric(alarm)));
            }
            for alarm in &page.composite {
                found.push((named(by, alarm.alarm_name())?, composite(alarm)));
            }
            for name in page.unreadable {
                let unknown = metric(&MetricAlarm::builder().build());
                let unreadable = Observed {
                    unreadable: true,
                    ..unknown
                };
                found.push((name, unreadable));
            }
            Ok(Some((found, page.next_token)))
        };
        let found = by.pages(DESCRIBE_ALARMS, page).await?;
        Ok(found.into_iter().flatten().collect())
    }
}

impl Reader for Alarms {
    type Key = String;
    type Value = Observed;
    const ENUMERATES: bool = true;
    const POLL_RATE: PollRate = PollRate::Poll;

    async fn read(&self, by: &Reads<'_>, _: &BTreeSet<String>) -> Result<ReadBy<Self>> {
        Self::find(by, by.alarms().alarm_name_prefix(&self.prefix)).await
    }

    async fn read_some(&self, by: &Reads<'_>, keys: &BTreeSet<String>) -> Result<ReadBy<Self>> {
        let mut found = BTreeMap::new();
        let keys: Vec<_> = keys.iter().cloned().collect();
        for names in keys.chunks(PAGE) {
            let some = by.alarms().set_alarm_names(Some(names.to_vec()));
            found.extend(Self::find(by, some).await?);
        }
        Ok(found)
    }
}

/// The tags, as far as they are ours to set, of the alarms that somebody holds. There is no bulk read of them.
pub struct HeldTags {
    account: Arc<Account>,
    alarms: Arc<Informer<AwsSource<Alarms>>>,
}

impl HeldTags {
    /// Of these alarms.
    pub fn of(account: &Arc<Account>, alarms: &Arc<Informer<AwsSource<Alarms>>>) -> Self {
        Self {
            account: account.clone(),
            alarms: alarms.clone(),
        }
    }

    async fn find(&self, name: &str, priority: Priority) -> Result<Option<AlarmTags>> {
        let by = Reads::of(&self.account, priority);
        let list = by.alarm_tags().resource_arn(alarm_arn(&self.account, name));
        // It may have been deleted since the alarms were read.
        let tags = by.find("cloudwatch:ListTagsForResource", list.send());
        let tags = tags.await?;
        Ok(tags.map(|tags| {
            let pairs = tags.tags().iter();
            let pairs = pairs.filter_map(|tag| Some((tag.key()?, tag.value().unwrap_or_default())));
            AlarmTags::among(pairs)
        }))
    }
}

impl Source for HeldTags {
    type Key = String;
    type Value = AlarmTags;
    const ENUMERATES: bool = false;
    const POLL_RATE: PollRate = PollRate::Slow;

    async fn read(&self, asked: &BTreeSet<String>, priority: Priority) -> Result<ReadOf<Self>> {
        let names = self.alarms.known(asked).into_keys().collect();
        self.read_some(&names, priority).await
    }

    async fn read_some(&self, keys: &BTreeSet<String>, priority: Priority) -> Result<ReadOf<Self>> {
        let mut found = BTreeMap::new();
        for name in keys {
            if let Some(tags) = self.find(name, priority).await? {
                found.insert(name.clone(), tags);
            }
        }
        Ok(found)
    }
}

/// An alarm's ARN in an account.
pub fn alarm_arn(account: &Account, name: &str) -> String {
    let identity = &account.identity;
    names::alarm_arn(&identity.region, &identity.account_id, name)
}

fn named(by: &Reads<'_>, name: Option<&str>) -> Result<String> {
    by.told(
        DESCRIBE_ALARMS,
        "the name of an alarm",
        name.map(str::to_owned),
    )
}

fn metric(alarm: &MetricAlarm) -> Observed {
    Observed {
        configuration: configuration(alarm),
        live: live(
            alarm.state_value(),
            alarm
                .state_transitioned_timestamp()
                .or(alarm.state_updated_timestamp()),
            alarm.state_reason(),
        ),
        composite: false,
        unreadable: false,
    }
}

fn composite(alarm: &CompositeAlarm) -> Observed {
    let description = alarm.alarm_description().unwrap_or_default();
    let plain = MetricAlarm::builder()
        .alarm_description(description)
        .build();
    Observed {
        configuration: configuration(&plain),
        live: live(
            alarm.state_value(),
            alarm.state_transitioned_timestamp(),
            alarm.state_reason(),
        ),
        composite: true,
        unreadable: false,
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
pub(super) fn configuration(alarm: &MetricAlarm) -> Configuration {
    let evaluation_periods = alarm.evaluation_periods().unwrap_or_default();
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
        insufficient_data_actions: alarm.insufficient_data_actions().iter().cloned().collect(),
        tags_in_events: tags_in_events(alarm.action_configuration()),
        state: None,
        foreign_fields: foreign_fields(alarm),
    }
}

/// What each attribute of a metric alarm is to us.
pub const OF_ALARM: Attributes = &[
    ("alarm_name", Declared),
    ("alarm_arn", ReadOnly),
    ("alarm_description", Declared),
    ("alarm_configuration_updated_timestamp", ReadOnly),
    ("actions_enabled", Declared),
    ("ok_actions", Declared),
    ("alarm_actions", Declared),
    ("insufficient_data_actions", Declared),
    ("state_value", ReadOnly),
    ("state_reason", ReadOnly),
    ("state_reason_data", ReadOnly),
    ("state_updated_timestamp", ReadOnly),
    ("metric_name", Declared),
    ("namespace", Declared),
    ("statistic", Declared),
    ("extended_statistic", Declared),
    ("dimensions", Declared),
    ("period", Declared),
    ("unit", AtDefault),
    ("evaluation_periods", Declared),
    ("datapoints_to_alarm", Declared),
    ("threshold", Declared),
    ("comparison_operator", Declared),
    ("treat_missing_data", Declared),
    ("evaluate_low_sample_count_percentile", AtDefault),
    ("metrics", AtDefault),
    ("threshold_metric_id", AtDefault),
    ("evaluation_state", ReadOnly),
    ("state_transitioned_timestamp", ReadOnly),
    ("evaluation_window", AtDefault),
    ("warm_up_configuration", AtDefault),
    ("evaluation_criteria", AtDefault),
    ("evaluation_interval", AtDefault),
    ("action_configuration", Declared),
];

/// What stands in an alarm that we leave at its default, in the words of the API.
fn foreign_fields(alarm: &MetricAlarm) -> Vec<String> {
    let window = alarm.evaluation_window().and_then(|window| match window {
        EvaluationWindow::SlidingWindow(_) => None,
        EvaluationWindow::WallClockWindow(window) => {
            let zone = window.timezone().unwrap_or("UTC");
            Some(format!("wall clock of {zone}"))
        }
        _ => Some("of a sort that this version does not know".into()),
    });
    let criteria = alarm.evaluation_criteria().map(|criteria| match criteria {
        EvaluationCriteria::PromQlCriteria(criteria) => {
            criteria.query().unwrap_or_default().to_owned()
        }
        _ => "of a sort that this version does not know".into(),
    });
    let evaluate = alarm.evaluate_low_sample_count_percentile();
    let evaluate = evaluate.filter(|text| *text != "evaluate");
    let count = Some(alarm.metrics().len()).filter(|count| *count > 0);
    let warm_up = alarm.warm_up_configuration();
    let warm_up = warm_up.map(|it| it.warm_up_period_duration_in_minutes.unwrap_or_default());
    let interval = alarm.evaluation_interval();
    let fields = [
        ("unit", alarm.unit().map(ToString::to_string)),
        ("metrics", count.map(|count| count.to_string())),
        (
            "thresholdMetricId",
            alarm.threshold_metric_id().map(str::to_owned),
        ),
        (
            "evaluateLowSampleCountPercentile",
            evaluate.map(str::to_owned),
        ),
        ("evaluationWindow", window),
        (
            "warmUpConfiguration",
            warm_up.map(|minutes| format!("{minutes} minutes")),
        ),
        ("evaluationCriteria", criteria),
        (
            "evaluationInterval",
            interval.map(|seconds| format!("{seconds} s")),
        ),
    ];
    let set = fields.into_iter();
    set.filter_map(|(name, value)| Some(format!("{name} {}", value?)))
        .collect()
}

/// Which tags travel, by what DescribeAlarms says of it, which may be nothing.
fn tags_in_events(actions: Option<&ActionConfiguration>) -> TagsInEvents {
    let propagation = actions.and_then(ActionConfiguration::alarm_tags_propagation);
    let Some(propagation) = propagation.filter(|tags| tags.enabled() == Some(true)) else {
        return TagsInEvents::Off;
    };
    let keys = |keys: &[String]| keys.iter().cloned().collect();
    match (
        propagation.included_tag_keys(),
        propagation.excluded_tag_keys(),
    ) {
        ([], []) => TagsInEvents::All,
        ([], excluded) => TagsInEvents::AllBut(keys(excluded)),
        (included, _) => TagsInEvents::Only(keys(included)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::attributes::tests::assert_complete;
    use aws_sdk_cloudwatch::types as sdk;

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
        assert_eq!(seen.tags_in_events, TagsInEvents::Off);
        assert_eq!(seen.foreign_fields, Vec::<String>::new());
    }

    #[test]
    fn tags_travel_only_where_that_is_said() {
        let propagation = || sdk::AlarmTagsPropagation::builder();
        let keys = |keys: &[&str]| Some(keys.iter().map(|key| (*key).to_owned()).collect());
        let ours = ["campanile-set", "campanile-alarm", "campanile-environment"];
        for (propagation, expected) in [
            (None, TagsInEvents::Off),
            (Some(propagation()), TagsInEvents::Off),
            (
                Some(
                    propagation()
                        .enabled(false)
                        .set_included_tag_keys(keys(&ours)),
                ),
                TagsInEvents::Off,
            ),
            (
                Some(
                    propagation()
                        .enabled(true)
                        .set_included_tag_keys(keys(&ours))
                        .set_excluded_tag_keys(keys(&[])),
                ),
                TagsInEvents::ours(),
            ),
            (
                Some(
                    propagation()
                        .enabled(true)
                        .set_included_tag_keys(keys(&[]))
                        .set_excluded_tag_keys(keys(&[])),
                ),
                TagsInEvents::All,
            ),
        ] {
            let actions = sdk::ActionConfiguration::builder()
                .set_alarm_tags_propagation(propagation.map(|tags| tags.build()));
            assert_eq!(tags_in_events(Some(&actions.build())), expected);
        }
        assert_eq!(tags_in_events(None), TagsInEvents::Off);
    }

    /// The name of each attribute that is to be at its default, as the API spells it.
    #[test]
    fn what_we_never_set_is_seen() {
        assert_complete(OF_ALARM, &MetricAlarm::builder().build());
        let promql = sdk::AlarmPromQlCriteria::builder().query("up == 0").build();
        let clock = sdk::WallClockWindow::builder().timezone("UTC").build();
        let warm_up = sdk::WarmUpConfiguration::builder().warm_up_period_duration_in_minutes(9);
        let alarm = MetricAlarm::builder()
            .unit(sdk::StandardUnit::Seconds)
            .metrics(sdk::MetricDataQuery::builder().id("m1").build())
            .threshold_metric_id("band")
            .evaluate_low_sample_count_percentile("ignore")
            .evaluation_window(EvaluationWindow::WallClockWindow(clock))
            .warm_up_configuration(warm_up.build())
            .evaluation_criteria(EvaluationCriteria::PromQlCriteria(promql))
            .evaluation_interval(30);
        let seen = configuration(&alarm.build()).foreign_fields;
        assert_eq!(
            seen,
            [
                "unit Seconds",
                "metrics 1",
                "thresholdMetricId band",
                "evaluateLowSampleCountPercentile ignore",
                "evaluationWindow wall clock of UTC",
                "warmUpConfiguration 9 minutes",
                "evaluationCriteria up == 0",
                "evaluationInterval 30 s",
            ]
        );
        let named = |name: &str| name.replace('_', "");
        let seen: BTreeSet<_> = seen
            .iter()
            .filter_map(|it| it.split(' ').next())
            .map(str::to_lowercase)
            .collect();
        let at_default = OF_ALARM.iter().filter(|(_, ours)| *ours == AtDefault);
        let at_default: BTreeSet<_> = at_default.map(|(name, _)| named(name)).collect();
        assert_eq!(seen, at_default);
    }

    #[test]
    fn a_sliding_window_is_the_default() {
        let window = EvaluationWindow::SlidingWindow(sdk::SlidingWindow::builder().build());
        let alarm = MetricAlarm::builder().evaluation_window(window).build();
        assert_eq!(configuration(&alarm).foreign_fields, Vec::<String>::new());
    }
}
