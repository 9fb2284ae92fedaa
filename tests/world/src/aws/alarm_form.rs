//! What CloudWatch refuses as a `ValidationError`, which the emulator takes.
//!
//! Pure: a request body in, AWS's message out. Where AWS's own words are not known the message says what is wrong in its manner.

use serde::Deserialize;
use serde_json::Value;

const DAY: i64 = 86_400;
const BANDS: [&str; 3] = [
    "LessThanLowerOrGreaterThanUpperThreshold",
    "LessThanLowerThreshold",
    "GreaterThanUpperThreshold",
];
const OPERATORS: [&str; 4] = [
    "GreaterThanOrEqualToThreshold",
    "GreaterThanThreshold",
    "LessThanThreshold",
    "LessThanOrEqualToThreshold",
];
const STATISTICS: [&str; 5] = ["SampleCount", "Average", "Sum", "Minimum", "Maximum"];
const MISSING: [&str; 4] = ["breaching", "notBreaching", "ignore", "missing"];
const STATES: [&str; 3] = ["OK", "ALARM", "INSUFFICIENT_DATA"];
const UNITS: [&str; 27] = [
    "Seconds",
    "Microseconds",
    "Milliseconds",
    "Bytes",
    "Kilobytes",
    "Megabytes",
    "Gigabytes",
    "Terabytes",
    "Bits",
    "Kilobits",
    "Megabits",
    "Gigabits",
    "Terabits",
    "Percent",
    "Count",
    "Bytes/Second",
    "Kilobytes/Second",
    "Megabytes/Second",
    "Gigabytes/Second",
    "Terabytes/Second",
    "Bits/Second",
    "Kilobits/Second",
    "Megabits/Second",
    "Gigabits/Second",
    "Terabits/Second",
    "Count/Second",
    "None",
];
/// The services that an alarm can act through.
const ACTED_THROUGH: [&str; 9] = [
    "sns",
    "ec2",
    "automate",
    "autoscaling",
    "ssm",
    "ssm-incidents",
    "ssm-contacts",
    "lambda",
    "aiops",
];

type Checked = Result<(), String>;

/// Checks the body of `operation`; `region` is where it is sent. Operations without rules of their own pass.
pub(super) fn check(operation: &str, body: &Value, region: &str) -> Checked {
    match operation {
        "PutMetricAlarm" => read::<MetricAlarm>(body)?.check(region),
        "PutCompositeAlarm" => read::<CompositeAlarm>(body)?.check(region),
        "DescribeAlarms" => read::<Describe>(body)?.check(),
        "DeleteAlarms" | "EnableAlarmActions" | "DisableAlarmActions" => {
            read::<Names>(body)?.check()
        }
        "SetAlarmState" => read::<SetState>(body)?.check(),
        _ => Ok(()),
    }
}

fn read<T: serde::de::DeserializeOwned>(body: &Value) -> Result<T, String> {
    T::deserialize(body).map_err(|error| format!("1 validation error detected: {error}"))
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Common {
    alarm_name: Option<String>,
    alarm_description: Option<String>,
    alarm_actions: Vec<String>,
    #[serde(rename = "OKActions")]
    ok_actions: Vec<String>,
    insufficient_data_actions: Vec<String>,
    action_configuration: Option<ActionConfiguration>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ActionConfiguration {
    alarm_tags_propagation: Option<TagsPropagation>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct TagsPropagation {
    enabled: Option<bool>,
    included_tag_keys: Option<Vec<String>>,
    excluded_tag_keys: Option<Vec<String>>,
}

impl TagsPropagation {
    fn check(&self) -> Checked {
        if self.enabled.is_none() {
            return Err("The parameter Enabled is required".to_owned());
        }
        if self.included_tag_keys.is_some() && self.excluded_tag_keys.is_some() {
            return Err(
                "IncludedTagKeys and ExcludedTagKeys cannot be specified together".to_owned(),
            );
        }
        let lists = [
            ("includedTagKeys", &self.included_tag_keys),
            ("excludedTagKeys", &self.excluded_tag_keys),
        ];
        for (field, keys) in lists {
            let Some(keys) = keys else { continue };
            if !(1..=50).contains(&keys.len()) {
                return Err(constraint(
                    field,
                    "[..]",
                    "Member must have length between 1 and 50",
                ));
            }
            for key in keys {
                length(field, Some(key), 1, 128)?;
            }
        }
        Ok(())
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct MetricAlarm {
    #[serde(flatten)]
    common: Common,
    metric_name: Option<String>,
    namespace: Option<String>,
    statistic: Option<String>,
    extended_statistic: Option<String>,
    dimensions: Vec<Dimension>,
    period: Option<i64>,
    unit: Option<String>,
    evaluation_periods: Option<i64>,
    datapoints_to_alarm: Option<i64>,
    threshold: Option<f64>,
    comparison_operator: Option<String>,
    treat_missing_data: Option<String>,
    evaluate_low_sample_count_percentile: Option<String>,
    metrics: Vec<Query>,
    threshold_metric_id: Option<String>,
    evaluation_criteria: Option<Value>,
    evaluation_interval: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Dimension {
    name: String,
    value: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Query {
    id: String,
    metric_stat: Option<MetricStat>,
    expression: Option<String>,
    return_data: Option<bool>,
    period: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct MetricStat {
    metric: Metric,
    period: Option<i64>,
    stat: Option<String>,
    unit: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Metric {
    namespace: Option<String>,
    metric_name: Option<String>,
    dimensions: Vec<Dimension>,
}

impl Common {
    fn check(&self, region: &str) -> Checked {
        let name = self.alarm_name.as_deref();
        length("alarmName", name, 1, 255)?;
        let name = name.unwrap_or_default();
        if name.chars().any(|character| character.is_ascii_control()) {
            return Err(constraint(
                "alarmName",
                name,
                "Member must not contain ASCII control characters",
            ));
        }
        if let Some(description) = &self.alarm_description {
            length("alarmDescription", Some(description), 0, 1024)?;
        }
        let configuration = self.action_configuration.as_ref();
        if let Some(tags) = configuration.and_then(|each| each.alarm_tags_propagation.as_ref()) {
            tags.check()?;
        }
        let lists = [
            ("alarmActions", &self.alarm_actions),
            ("oKActions", &self.ok_actions),
            ("insufficientDataActions", &self.insufficient_data_actions),
        ];
        for (field, actions) in lists {
            if actions.len() > 5 {
                return Err(constraint(
                    field,
                    &format!("{actions:?}"),
                    "Member must have length less than or equal to 5",
                ));
            }
            for (index, action) in actions.iter().enumerate() {
                action_arn(action, region)?;
                if actions.iter().take(index).any(|earlier| earlier == action) {
                    return Err(format!("Duplicate action in {field}: {action}"));
                }
            }
        }
        Ok(())
    }

    fn actions(&self) -> impl Iterator<Item = &String> {
        self.alarm_actions
            .iter()
            .chain(&self.ok_actions)
            .chain(&self.insufficient_data_actions)
    }
}

impl MetricAlarm {
    fn check(&self, region: &str) -> Checked {
        self.common.check(region)?;
        one_of(
            "treatMissingData",
            self.treat_missing_data.as_deref(),
            &MISSING,
        )?;
        one_of(
            "evaluateLowSampleCountPercentile",
            self.evaluate_low_sample_count_percentile.as_deref(),
            &["evaluate", "ignore"],
        )?;
        if self.evaluation_criteria.is_some() {
            return self.check_prom_ql();
        }
        if self.evaluation_interval.is_some() {
            return Err(
                "EvaluationInterval can only be specified together with EvaluationCriteria"
                    .to_owned(),
            );
        }
        let periods = at_least_one("evaluationPeriods", self.evaluation_periods)?;
        if let Some(datapoints) = self.datapoints_to_alarm {
            at_least_one("datapointsToAlarm", Some(datapoints))?;
            if datapoints > periods {
                return Err(
                    "DatapointsToAlarm must be less than or equal to EvaluationPeriods".to_owned(),
                );
            }
        }
        self.check_threshold()?;
        let period = if self.metrics.is_empty() {
            self.check_metric()?
        } else {
            self.check_metrics()?
        };
        let limit = if period >= 3600 { 7 * DAY } else { DAY };
        if periods.saturating_mul(period) > limit {
            let span = if period >= 3600 {
                "seven days"
            } else {
                "a day"
            };
            return Err(format!(
                "Metrics cannot be checked across more than {span} (EvaluationPeriods * Period must be <= {limit})"
            ));
        }
        Ok(())
    }

    fn check_threshold(&self) -> Checked {
        let operator = required("ComparisonOperator", self.comparison_operator.as_deref())?;
        let band = BANDS.contains(&operator);
        if !band {
            one_of("comparisonOperator", Some(operator), &OPERATORS)?;
        }
        match (&self.threshold_metric_id, self.threshold) {
            (None, None) => Err("The parameter Threshold is required".to_owned()),
            (Some(_), Some(_)) => {
                Err("Threshold and ThresholdMetricId cannot be specified together".to_owned())
            }
            (None, Some(threshold)) if !threshold.is_finite() => {
                Err("Threshold must be a finite number".to_owned())
            }
            (None, Some(_)) if band => Err(format!(
                "ThresholdMetricId must be specified when ComparisonOperator is {operator}"
            )),
            (None, Some(_)) => Ok(()),
            (Some(_), None) if !band => Err(format!(
                "ComparisonOperator {operator} cannot be used together with ThresholdMetricId"
            )),
            (Some(id), None) => {
                let query = self.metrics.iter().find(|query| query.id == *id);
                let band = query
                    .and_then(|query| query.expression.as_deref())
                    .is_some_and(|text| text.contains("ANOMALY_DETECTION_BAND"));
                if !band {
                    return Err("Metrics list must contain exactly one metric matching the ThresholdMetricId parameter".to_owned());
                }
                if self
                    .common
                    .actions()
                    .any(|action| action.contains(":autoscaling:"))
                {
                    return Err("Auto Scaling actions are not supported for alarms based on anomaly detection models".to_owned());
                }
                Ok(())
            }
        }
    }

    /// The form with one metric; its period.
    fn check_metric(&self) -> Result<i64, String> {
        let name = required("MetricName", self.metric_name.as_deref())?;
        let namespace = required("Namespace", self.namespace.as_deref())?;
        metric("metricName", "namespace", name, namespace)?;
        dimensions(&self.dimensions)?;
        match (&self.statistic, &self.extended_statistic) {
            (Some(statistic), None) => one_of("statistic", Some(statistic), &STATISTICS)?,
            (None, Some(extended)) if is_extended(extended) => {}
            (None, Some(extended)) => {
                return Err(format!(
                    "The value {extended} for parameter ExtendedStatistic is not supported."
                ));
            }
            (None, None) => {
                return Err(
                    "Exactly one of Statistic and ExtendedStatistic must be specified".to_owned(),
                );
            }
            (Some(_), Some(_)) => {
                return Err(
                    "Statistic and ExtendedStatistic cannot be specified together".to_owned(),
                );
            }
        }
        if self.evaluate_low_sample_count_percentile.is_some()
            && !self
                .extended_statistic
                .as_deref()
                .is_some_and(is_percentile)
        {
            return Err("EvaluateLowSampleCountPercentile can only be specified with a percentile ExtendedStatistic".to_owned());
        }
        one_of("unit", self.unit.as_deref(), &UNITS)?;
        legal_period(self.period)
    }

    /// The form with several; the longest period.
    fn check_metrics(&self) -> Result<i64, String> {
        let beside = [
            ("MetricName", self.metric_name.is_some()),
            ("Namespace", self.namespace.is_some()),
            ("Statistic", self.statistic.is_some()),
            ("ExtendedStatistic", self.extended_statistic.is_some()),
            ("Dimensions", !self.dimensions.is_empty()),
            ("Period", self.period.is_some()),
            ("Unit", self.unit.is_some()),
        ];
        if let Some((field, _)) = beside.iter().find(|(_, set)| *set) {
            return Err(format!("{field} cannot be specified together with Metrics"));
        }
        if self.metrics.len() > 20 {
            return Err(constraint(
                "metrics",
                "[..]",
                "Member must have length less than or equal to 20",
            ));
        }
        let (mut stats, mut expressions, mut longest) = (0, 0, None);
        for (index, query) in self.metrics.iter().enumerate() {
            if !is_id(&query.id) {
                return Err(format!(
                    "Invalid Id '{}': an Id must start with a lowercase letter and consist of letters, digits and underscores",
                    query.id
                ));
            }
            if self
                .metrics
                .iter()
                .take(index)
                .any(|earlier| earlier.id == query.id)
            {
                return Err(format!(
                    "The values for parameter Id in Metrics are not unique: {}",
                    query.id
                ));
            }
            match (&query.metric_stat, &query.expression) {
                (Some(stat), None) => {
                    stats += 1;
                    longest = longest.max(Some(stat.check()?));
                }
                (None, Some(expression)) => {
                    expressions += 1;
                    length("metrics.member.expression", Some(expression), 1, 2048)?;
                    if query.period.is_some() {
                        longest = longest.max(Some(legal_period(query.period)?));
                    }
                }
                _ => {
                    return Err(format!(
                        "Exactly one of MetricStat and Expression must be specified for Id {}",
                        query.id
                    ));
                }
            }
        }
        if stats > 10 || expressions > 10 {
            return Err(
                "Metrics can contain at most 10 MetricStat and 10 Expression elements".to_owned(),
            );
        }
        // The band of an anomaly alarm may return data beside the metric; unset means that it returns.
        let returning = |query: &&Query| {
            query.return_data.unwrap_or(true)
                && Some(&query.id) != self.threshold_metric_id.as_ref()
        };
        if self.metrics.iter().filter(returning).count() != 1 {
            return Err("Exactly one element of the metrics list should return data.".to_owned());
        }
        longest.ok_or_else(|| "Period must be specified for a Metrics Insights query".to_owned())
    }

    fn check_prom_ql(&self) -> Checked {
        let beside = [
            ("MetricName", self.metric_name.is_some()),
            ("Namespace", self.namespace.is_some()),
            ("Statistic", self.statistic.is_some()),
            ("ExtendedStatistic", self.extended_statistic.is_some()),
            ("Dimensions", !self.dimensions.is_empty()),
            ("Period", self.period.is_some()),
            ("Unit", self.unit.is_some()),
            ("EvaluationPeriods", self.evaluation_periods.is_some()),
            ("DatapointsToAlarm", self.datapoints_to_alarm.is_some()),
            ("Threshold", self.threshold.is_some()),
            ("ComparisonOperator", self.comparison_operator.is_some()),
            ("Metrics", !self.metrics.is_empty()),
            ("ThresholdMetricId", self.threshold_metric_id.is_some()),
        ];
        if let Some((field, _)) = beside.iter().find(|(_, set)| *set) {
            return Err(format!(
                "{field} cannot be specified together with EvaluationCriteria"
            ));
        }
        match self.evaluation_interval {
            Some(interval) if is_period(interval) && interval <= 3600 => Ok(()),
            _ => Err(
                "EvaluationInterval must be 10, 20, 30 or a multiple of 60 up to 3600".to_owned(),
            ),
        }
    }
}

impl MetricStat {
    fn check(&self) -> Result<i64, String> {
        let name = required("MetricName", self.metric.metric_name.as_deref())?;
        let namespace = required("Namespace", self.metric.namespace.as_deref())?;
        metric(
            "metricStat.metric.metricName",
            "metricStat.metric.namespace",
            name,
            namespace,
        )?;
        dimensions(&self.metric.dimensions)?;
        let stat = required("Stat", self.stat.as_deref())?;
        if !STATISTICS.contains(&stat) && !is_extended(stat) {
            return Err(format!(
                "The value {stat} for parameter Stat is not supported."
            ));
        }
        one_of("metricStat.unit", self.unit.as_deref(), &UNITS)?;
        legal_period(self.period)
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CompositeAlarm {
    #[serde(flatten)]
    common: Common,
    alarm_rule: Option<String>,
    actions_suppressor: Option<String>,
    actions_suppressor_wait_period: Option<i64>,
    actions_suppressor_extension_period: Option<i64>,
}

impl CompositeAlarm {
    fn check(&self, region: &str) -> Checked {
        self.common.check(region)?;
        length("alarmRule", self.alarm_rule.as_deref(), 1, 10_240)?;
        if self
            .common
            .actions()
            .any(|action| action.contains(":ec2:") || action.contains(":autoscaling:"))
        {
            return Err(
                "EC2 and Auto Scaling actions are not supported for composite alarms".to_owned(),
            );
        }
        let periods = self.actions_suppressor_wait_period.is_some()
            && self.actions_suppressor_extension_period.is_some();
        if self.actions_suppressor.is_some() && !periods {
            return Err("ActionsSuppressorWaitPeriod and ActionsSuppressorExtensionPeriod are required with ActionsSuppressor".to_owned());
        }
        Ok(())
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Describe {
    alarm_names: Vec<String>,
    alarm_name_prefix: Option<String>,
    children_of_alarm_name: Option<String>,
    parents_of_alarm_name: Option<String>,
    action_prefix: Option<String>,
    state_value: Option<String>,
    alarm_types: Vec<String>,
}

impl Describe {
    fn check(&self) -> Checked {
        names(&self.alarm_names)?;
        one_of("stateValue", self.state_value.as_deref(), &STATES)?;
        for kind in &self.alarm_types {
            one_of(
                "alarmTypes",
                Some(kind),
                &["MetricAlarm", "CompositeAlarm", "LogAlarm"],
            )?;
        }
        if !self.alarm_names.is_empty() && self.alarm_name_prefix.is_some() {
            return Err(
                "AlarmNamePrefix and AlarmNames cannot be specified at the same time".to_owned(),
            );
        }
        // The emulator would ignore these and answer with every alarm.
        if self.children_of_alarm_name.is_some()
            || self.parents_of_alarm_name.is_some()
            || self.action_prefix.is_some()
        {
            return Err(
                "the test world answers no ChildrenOfAlarmName, ParentsOfAlarmName or ActionPrefix"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Names {
    alarm_names: Vec<String>,
}

impl Names {
    fn check(&self) -> Checked {
        names(&self.alarm_names)
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct SetState {
    alarm_name: Option<String>,
    state_value: Option<String>,
    state_reason: Option<String>,
}

impl SetState {
    fn check(&self) -> Checked {
        length("alarmName", self.alarm_name.as_deref(), 1, 255)?;
        length("stateReason", self.state_reason.as_deref(), 0, 1023)?;
        one_of(
            "stateValue",
            Some(required("StateValue", self.state_value.as_deref())?),
            &STATES,
        )
    }
}

fn constraint(field: &str, value: &str, rule: &str) -> String {
    format!(
        "1 validation error detected: Value '{value}' at '{field}' failed to satisfy constraint: {rule}"
    )
}

fn required<'a>(field: &str, value: Option<&'a str>) -> Result<&'a str, String> {
    value.ok_or_else(|| format!("The parameter {field} is required"))
}

fn length(field: &str, value: Option<&str>, least: usize, most: usize) -> Checked {
    let Some(value) = value else {
        return Err(format!(
            "1 validation error detected: Value null at '{field}' failed to satisfy constraint: Member must not be null"
        ));
    };
    // AWS counts as Java does.
    match value.encode_utf16().count() {
        found if found < least => Err(constraint(
            field,
            value,
            &format!("Member must have length greater than or equal to {least}"),
        )),
        found if found > most => Err(constraint(
            field,
            value,
            &format!("Member must have length less than or equal to {most}"),
        )),
        _ => Ok(()),
    }
}

fn one_of(field: &str, value: Option<&str>, legal: &[&str]) -> Checked {
    match value {
        Some(value) if !legal.contains(&value) => Err(constraint(
            field,
            value,
            &format!("Member must satisfy enum value set: [{}]", legal.join(", ")),
        )),
        _ => Ok(()),
    }
}

fn at_least_one(field: &str, value: Option<i64>) -> Result<i64, String> {
    match value {
        None => Err(format!(
            "The parameter {}{} is required",
            field[..1].to_uppercase(),
            &field[1..]
        )),
        Some(value) if value < 1 => Err(constraint(
            field,
            &value.to_string(),
            "Member must have value greater than or equal to 1",
        )),
        Some(value) => Ok(value),
    }
}

fn names(names: &[String]) -> Checked {
    if names.len() > 100 {
        return Err(constraint(
            "alarmNames",
            "[..]",
            "Member must have length less than or equal to 100",
        ));
    }
    names
        .iter()
        .try_for_each(|name| length("alarmNames", Some(name), 1, 255))
}

fn metric(name_field: &str, namespace_field: &str, name: &str, namespace: &str) -> Checked {
    length(name_field, Some(name), 1, 255)?;
    length(namespace_field, Some(namespace), 1, 255)?;
    if namespace.starts_with(':') {
        return Err(constraint(
            namespace_field,
            namespace,
            "Member must satisfy regular expression pattern: [^:].*",
        ));
    }
    Ok(())
}

fn dimensions(dimensions: &[Dimension]) -> Checked {
    if dimensions.len() > 30 {
        return Err(constraint(
            "dimensions",
            "[..]",
            "Member must have length less than or equal to 30",
        ));
    }
    for (index, Dimension { name, value }) in dimensions.iter().enumerate() {
        length("dimensions.member.name", Some(name), 1, 255)?;
        length("dimensions.member.value", Some(value), 1, 1024)?;
        let printable = |text: &str| {
            text.chars()
                .all(|character| character.is_ascii() && !character.is_ascii_control())
        };
        if name.starts_with(':') || !printable(name) || !printable(value) {
            return Err(constraint(
                "dimensions.member",
                &format!("{name}={value}"),
                "Member must consist of ASCII characters and not start with a colon",
            ));
        }
        if dimensions
            .iter()
            .take(index)
            .any(|earlier| earlier.name == *name)
        {
            return Err(format!(
                "No dimension may be specified more than once: {name}"
            ));
        }
    }
    Ok(())
}

fn is_period(seconds: i64) -> bool {
    matches!(seconds, 10 | 20 | 30) || (seconds > 0 && seconds % 60 == 0)
}

fn legal_period(period: Option<i64>) -> Result<i64, String> {
    let period = period.ok_or("The parameter Period is required")?;
    if is_period(period) {
        Ok(period)
    } else {
        Err(format!(
            "Invalid Period {period}: it must be 10, 20, 30 or a multiple of 60"
        ))
    }
}

fn is_id(id: &str) -> bool {
    let legal = |character: char| character.is_ascii_alphanumeric() || character == '_';
    id.len() <= 255
        && id.starts_with(|first: char| first.is_ascii_lowercase())
        && id.chars().all(legal)
}

fn is_percentile(statistic: &str) -> bool {
    statistic.strip_prefix('p').is_some_and(is_percentage)
}

/// `p95`, `tm99.9`, `wm`, `tc`, `ts` and the long forms `TM(2%:98%)`, `PR(:300)`, `IQM`.
fn is_extended(statistic: &str) -> bool {
    let lower = statistic.to_ascii_lowercase();
    let short = ["p", "tm", "wm", "tc", "ts"]
        .iter()
        .any(|kind| lower.strip_prefix(kind).is_some_and(is_percentage));
    let bound = |text: &str| {
        text.is_empty()
            || text
                .strip_suffix('%')
                .unwrap_or(text)
                .parse::<f64>()
                .is_ok()
    };
    let long = ["pr(", "tm(", "wm(", "tc(", "ts("].iter().any(|kind| {
        let range = lower
            .strip_prefix(kind)
            .and_then(|rest| rest.strip_suffix(')'))
            .and_then(|range| range.split_once(':'));
        range.is_some_and(|(from, to)| {
            bound(from) && bound(to) && !(from.is_empty() && to.is_empty())
        })
    });
    short || long || lower == "iqm"
}

fn is_percentage(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
        && text.parse::<f64>().is_ok_and(|value| value <= 100.0)
}

fn action_arn(arn: &str, region: &str) -> Checked {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", partition, service, arn_region, _, resource] = parts[..] else {
        return Err(format!("Invalid arn syntax: {arn}"));
    };
    if arn.len() > 1024
        || !partition.starts_with("aws")
        || resource.is_empty()
        || !ACTED_THROUGH.contains(&service)
    {
        return Err(format!("Invalid arn syntax: {arn}"));
    }
    if service == "sns" && arn_region != region {
        return Err(format!(
            "Invalid region {arn_region} specified. Only {region} is supported."
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TOPIC: &str = "arn:aws:sns:us-east-2:222233334444:topic";

    fn metric() -> Value {
        json!({
            "AlarmName": "a", "MetricName": "m", "Namespace": "n", "Period": 300, "EvaluationPeriods": 3,
            "ComparisonOperator": "GreaterThanThreshold", "Threshold": 5.0, "Statistic": "Average",
        })
    }

    fn query(id: &str, returns: bool) -> Value {
        json!({"Id": id, "ReturnData": returns, "MetricStat": {
            "Metric": {"Namespace": "n", "MetricName": "m"}, "Period": 60, "Stat": "Sum"}})
    }

    fn math() -> Value {
        json!({
            "AlarmName": "a", "EvaluationPeriods": 1, "ComparisonOperator": "GreaterThanThreshold", "Threshold": 5.0,
            "Metrics": [{"Id": "rate", "Expression": "100 * e / r", "ReturnData": true}, query("e", false), query("r", false)],
        })
    }

    fn anomaly() -> Value {
        json!({
            "AlarmName": "a", "EvaluationPeriods": 1, "ComparisonOperator": "GreaterThanUpperThreshold", "ThresholdMetricId": "band",
            "Metrics": [query("m1", true), {"Id": "band", "Expression": "ANOMALY_DETECTION_BAND(m1, 2)", "ReturnData": true}],
        })
    }

    /// `form` with the fields of `changes` set, or removed where they are null.
    fn with(mut form: Value, changes: &Value) -> Value {
        let fields = form.as_object_mut().unwrap();
        for (field, value) in changes.as_object().unwrap() {
            if value.is_null() {
                fields.remove(field)
            } else {
                fields.insert(field.clone(), value.clone())
            };
        }
        form
    }

    fn propagating(tags: &Value) -> Value {
        json!({"ActionConfiguration": {"AlarmTagsPropagation": tags}})
    }

    #[test]
    fn the_legal_forms_pass() {
        let legal = [
            metric(),
            with(
                metric(),
                &json!({"Threshold": 5, "Period": 10, "EvaluationPeriods": 1}),
            ),
            with(metric(), &json!({"Period": 3600, "EvaluationPeriods": 168})),
            with(
                metric(),
                &json!({"Statistic": null, "ExtendedStatistic": "p99.9", "EvaluateLowSampleCountPercentile": "ignore"}),
            ),
            with(
                metric(),
                &json!({"Statistic": null, "ExtendedStatistic": "TM(2%:98%)"}),
            ),
            with(
                metric(),
                &json!({"AlarmName": "ü".repeat(255), "AlarmDescription": "x".repeat(1024), "DatapointsToAlarm": 3}),
            ),
            with(
                metric(),
                &json!({"AlarmActions": [TOPIC], "OKActions": [TOPIC], "TreatMissingData": "ignore"}),
            ),
            with(metric(), &propagating(&json!({"Enabled": true}))),
            with(
                metric(),
                &propagating(&json!({"Enabled": true, "IncludedTagKeys": ["a", "b"]})),
            ),
            math(),
            anomaly(),
            json!({"AlarmName": "a", "EvaluationCriteria": {"PromQLCriteria": {"Query": "up == 0"}}, "EvaluationInterval": 60}),
        ];
        for form in legal {
            assert_eq!(
                check("PutMetricAlarm", &form, "us-east-2"),
                Ok(()),
                "{form}"
            );
        }
    }

    #[test]
    fn what_is_illegal_is_refused_and_named() {
        let topics: Vec<String> = (0..6).map(|number| format!("{TOPIC}{number}")).collect();
        let many: Vec<Value> = (0..31)
            .map(|number| json!({"Name": format!("d{number}"), "Value": "v"}))
            .collect();
        let cases = [
            (
                with(metric(), &propagating(&json!({"IncludedTagKeys": ["a"]}))),
                "Enabled",
            ),
            (
                with(
                    metric(),
                    &propagating(&json!({"Enabled": true, "IncludedTagKeys": []})),
                ),
                "includedTagKeys",
            ),
            (
                with(
                    metric(),
                    &propagating(&json!({"Enabled": true, "ExcludedTagKeys": ["x".repeat(129)]})),
                ),
                "excludedTagKeys",
            ),
            (
                with(
                    metric(),
                    &propagating(
                        &json!({"Enabled": true, "IncludedTagKeys": ["a"], "ExcludedTagKeys": ["b"]}),
                    ),
                ),
                "together",
            ),
            (with(metric(), &json!({"AlarmName": null})), "alarmName"),
            (with(metric(), &json!({"AlarmName": ""})), "alarmName"),
            (
                with(metric(), &json!({"AlarmName": "x".repeat(256)})),
                "less than or equal to 255",
            ),
            (with(metric(), &json!({"AlarmName": "a\tb"})), "control"),
            (
                with(metric(), &json!({"AlarmDescription": "x".repeat(1025)})),
                "alarmDescription",
            ),
            (with(metric(), &json!({"MetricName": null})), "MetricName"),
            (with(metric(), &json!({"Namespace": null})), "Namespace"),
            (with(metric(), &json!({"Namespace": ":n"})), "namespace"),
            (with(metric(), &json!({"Threshold": null})), "Threshold"),
            (
                with(metric(), &json!({"ComparisonOperator": null})),
                "ComparisonOperator",
            ),
            (
                with(metric(), &json!({"ComparisonOperator": "Greater"})),
                "comparisonOperator",
            ),
            (
                with(
                    metric(),
                    &json!({"ComparisonOperator": "GreaterThanUpperThreshold"}),
                ),
                "ThresholdMetricId",
            ),
            (with(metric(), &json!({"Statistic": null})), "Statistic"),
            (
                with(metric(), &json!({"ExtendedStatistic": "p95"})),
                "together",
            ),
            (
                with(metric(), &json!({"Statistic": "p95"})),
                "enum value set",
            ),
            (
                with(
                    metric(),
                    &json!({"Statistic": null, "ExtendedStatistic": "Average"}),
                ),
                "ExtendedStatistic",
            ),
            (
                with(
                    metric(),
                    &json!({"Statistic": null, "ExtendedStatistic": "p101"}),
                ),
                "ExtendedStatistic",
            ),
            (
                with(
                    metric(),
                    &json!({"EvaluateLowSampleCountPercentile": "ignore"}),
                ),
                "percentile",
            ),
            (with(metric(), &json!({"Period": null})), "Period"),
            (with(metric(), &json!({"Period": 45})), "Period"),
            (with(metric(), &json!({"Period": 0})), "Period"),
            (
                with(metric(), &json!({"EvaluationPeriods": null})),
                "EvaluationPeriods",
            ),
            (
                with(metric(), &json!({"EvaluationPeriods": 0})),
                "evaluationPeriods",
            ),
            (with(metric(), &json!({"EvaluationPeriods": 289})), "86400"),
            (
                with(metric(), &json!({"Period": 3600, "EvaluationPeriods": 169})),
                "604800",
            ),
            (
                with(metric(), &json!({"DatapointsToAlarm": 4})),
                "DatapointsToAlarm",
            ),
            (
                with(metric(), &json!({"DatapointsToAlarm": 0})),
                "datapointsToAlarm",
            ),
            (
                with(metric(), &json!({"TreatMissingData": "NotBreaching"})),
                "treatMissingData",
            ),
            (with(metric(), &json!({"Unit": "Furlongs"})), "unit"),
            (with(metric(), &json!({"Dimensions": many})), "dimensions"),
            (
                with(
                    metric(),
                    &json!({"Dimensions": [{"Name": "d", "Value": ""}]}),
                ),
                "dimensions",
            ),
            (
                with(
                    metric(),
                    &json!({"Dimensions": [{"Name": "d", "Value": "1"}, {"Name": "d", "Value": "2"}]}),
                ),
                "more than once",
            ),
            (
                with(metric(), &json!({"AlarmActions": topics})),
                "alarmActions",
            ),
            (
                with(metric(), &json!({"OKActions": ["topic"]})),
                "Invalid arn syntax: topic",
            ),
            (
                with(
                    metric(),
                    &json!({"AlarmActions": ["arn:aws:sns:us-east-1:222233334444:t"]}),
                ),
                "Only us-east-2 is supported",
            ),
            (
                with(metric(), &json!({"Metrics": [query("m", true)]})),
                "together with Metrics",
            ),
            (
                with(metric(), &json!({"ThresholdMetricId": "m"})),
                "together",
            ),
            (
                with(metric(), &json!({"EvaluationInterval": 60})),
                "EvaluationInterval",
            ),
            (
                with(
                    math(),
                    &json!({"Metrics": [query("a", true), query("b", true)]}),
                ),
                "Exactly one element",
            ),
            (
                with(math(), &json!({"Metrics": [query("a", false)]})),
                "Exactly one element",
            ),
            (
                with(
                    math(),
                    &json!({"Metrics": [query("a", true), query("a", false)]}),
                ),
                "not unique",
            ),
            (
                with(math(), &json!({"Metrics": [query("A", true)]})),
                "Invalid Id",
            ),
            (
                with(
                    math(),
                    &json!({"Metrics": [{"Id": "a", "ReturnData": true}]}),
                ),
                "MetricStat and Expression",
            ),
            (with(anomaly(), &json!({"Threshold": 1.0})), "together"),
            (
                with(anomaly(), &json!({"ThresholdMetricId": "m1"})),
                "ThresholdMetricId",
            ),
            (
                with(
                    anomaly(),
                    &json!({"ComparisonOperator": "GreaterThanThreshold"}),
                ),
                "ThresholdMetricId",
            ),
            (
                with(
                    anomaly(),
                    &json!({"AlarmActions": ["arn:aws:autoscaling:us-east-2:1:scalingPolicy:x"]}),
                ),
                "Auto Scaling",
            ),
        ];
        for (form, word) in cases {
            let refusal = check("PutMetricAlarm", &form, "us-east-2").expect_err(&form.to_string());
            assert!(
                refusal.contains(word),
                "{refusal:?} does not say {word:?} of {form}"
            );
        }
    }

    #[test]
    fn other_operations_have_their_rules_too() {
        let many: Vec<String> = (0..101).map(|number| number.to_string()).collect();
        let refused = [
            ("DescribeAlarms", json!({"AlarmNames": many})),
            (
                "DescribeAlarms",
                json!({"AlarmNames": ["a"], "AlarmNamePrefix": "a"}),
            ),
            ("DescribeAlarms", json!({"ChildrenOfAlarmName": "a"})),
            ("DeleteAlarms", json!({"AlarmNames": many})),
            (
                "SetAlarmState",
                json!({"AlarmName": "a", "StateReason": "r", "StateValue": "FIRING"}),
            ),
            (
                "PutCompositeAlarm",
                json!({"AlarmName": "a", "AlarmRule": "x".repeat(10_241)}),
            ),
            (
                "PutCompositeAlarm",
                json!({"AlarmName": "a", "AlarmRule": "TRUE", "ActionsSuppressor": "b"}),
            ),
        ];
        for (operation, body) in refused {
            assert!(
                check(operation, &body, "us-east-2").is_err(),
                "{operation} {body}"
            );
        }
        assert_eq!(
            check(
                "DescribeAlarms",
                &json!({"AlarmNamePrefix": "a", "AlarmTypes": ["CompositeAlarm"]}),
                "us-east-2"
            ),
            Ok(())
        );
        assert_eq!(check("TagResource", &json!({}), "us-east-2"), Ok(()));
    }
}
