//! An alarm over metrics: over one, over what is reckoned from several, or by a query in PromQL.

use serde::Deserialize;
use serde_json::Value;

use super::{
    Checked, at_most,
    common::Common,
    constraint, length,
    metric::{
        Dimension, MetricStat, STATISTICS, UNITS, dimensions, is_extended, is_percentile,
        is_period, legal_period, metric,
    },
    none_beside, one_of, required,
};

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
const MISSING: [&str; 4] = ["breaching", "notBreaching", "ignore", "missing"];

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct MetricAlarm {
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
struct Query {
    id: String,
    metric_stat: Option<MetricStat>,
    expression: Option<String>,
    return_data: Option<bool>,
    period: Option<i64>,
}

impl MetricAlarm {
    pub(super) fn check(&self, region: &str) -> Checked {
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

    /// What the form with one metric has, and whether it is given.
    fn of_one_metric(&self) -> [(&'static str, bool); 7] {
        [
            ("MetricName", self.metric_name.is_some()),
            ("Namespace", self.namespace.is_some()),
            ("Statistic", self.statistic.is_some()),
            ("ExtendedStatistic", self.extended_statistic.is_some()),
            ("Dimensions", !self.dimensions.is_empty()),
            ("Period", self.period.is_some()),
            ("Unit", self.unit.is_some()),
        ]
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
        none_beside("Metrics", &self.of_one_metric())?;
        at_most("metrics", self.metrics.len(), 20)?;
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
        let evaluated = [
            ("EvaluationPeriods", self.evaluation_periods.is_some()),
            ("DatapointsToAlarm", self.datapoints_to_alarm.is_some()),
            ("Threshold", self.threshold.is_some()),
            ("ComparisonOperator", self.comparison_operator.is_some()),
            ("Metrics", !self.metrics.is_empty()),
            ("ThresholdMetricId", self.threshold_metric_id.is_some()),
        ];
        none_beside("EvaluationCriteria", &self.of_one_metric())?;
        none_beside("EvaluationCriteria", &evaluated)?;
        match self.evaluation_interval {
            Some(interval) if is_period(interval) && interval <= 3600 => Ok(()),
            _ => Err(
                "EvaluationInterval must be 10, 20, 30 or a multiple of 60 up to 3600".to_owned(),
            ),
        }
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

fn is_id(id: &str) -> bool {
    let legal = |character: char| character.is_ascii_alphanumeric() || character == '_';
    id.len() <= 255
        && id.starts_with(|first: char| first.is_ascii_lowercase())
        && id.chars().all(legal)
}
