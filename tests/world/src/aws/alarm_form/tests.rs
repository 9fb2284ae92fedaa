//! What passes, and what is refused with which word.

use serde_json::json;

use super::*;

const REGION: &str = "us-east-2";
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

/// That no such alarm can be put, each for a reason in which this is said.
fn refuses(form: &Value, cases: &[(Value, &str)]) {
    for (changes, says) in cases {
        let form = with(form.clone(), changes);
        let refusal = check("PutMetricAlarm", &form, REGION).expect_err(&form.to_string());
        assert!(
            refusal.contains(says),
            "{refusal:?} does not say {says:?} of {form}"
        );
    }
}

#[test]
fn the_legal_forms_pass() {
    let of_a_metric = [
        json!({}),
        json!({"Threshold": 5, "Period": 10, "EvaluationPeriods": 1}),
        json!({"Period": 3600, "EvaluationPeriods": 168}),
        json!({"Statistic": null, "ExtendedStatistic": "p99.9", "EvaluateLowSampleCountPercentile": "ignore"}),
        json!({"Statistic": null, "ExtendedStatistic": "TM(2%:98%)"}),
        json!({"AlarmName": "ü".repeat(255), "AlarmDescription": "x".repeat(1024), "DatapointsToAlarm": 3}),
        json!({"AlarmActions": [TOPIC], "OKActions": [TOPIC], "TreatMissingData": "ignore"}),
        propagating(&json!({"Enabled": true})),
        propagating(&json!({"Enabled": true, "IncludedTagKeys": ["a", "b"]})),
    ];
    let prom_ql = json!({"AlarmName": "a", "EvaluationCriteria": {"PromQLCriteria": {"Query": "up == 0"}}, "EvaluationInterval": 60});
    let legal = of_a_metric.map(|changes| with(metric(), &changes));
    for form in legal.into_iter().chain([math(), anomaly(), prom_ql]) {
        assert_eq!(check("PutMetricAlarm", &form, REGION), Ok(()), "{form}");
    }
}

#[test]
fn what_is_illegal_is_refused_and_named() {
    let topics: Vec<String> = (0..6).map(|number| format!("{TOPIC}{number}")).collect();
    let many: Vec<Value> = (0..31)
        .map(|number| json!({"Name": format!("d{number}"), "Value": "v"}))
        .collect();
    let elsewhere = "arn:aws:sns:us-east-1:222233334444:t";
    let scaling = "arn:aws:autoscaling:us-east-2:1:scalingPolicy:x";
    refuses(
        &metric(),
        &[
            (propagating(&json!({"IncludedTagKeys": ["a"]})), "Enabled"),
            (
                propagating(&json!({"Enabled": true, "IncludedTagKeys": []})),
                "includedTagKeys",
            ),
            (
                propagating(&json!({"Enabled": true, "ExcludedTagKeys": ["x".repeat(129)]})),
                "excludedTagKeys",
            ),
            (
                propagating(
                    &json!({"Enabled": true, "IncludedTagKeys": ["a"], "ExcludedTagKeys": ["b"]}),
                ),
                "together",
            ),
            (json!({"AlarmName": null}), "alarmName"),
            (json!({"AlarmName": ""}), "alarmName"),
            (
                json!({"AlarmName": "x".repeat(256)}),
                "less than or equal to 255",
            ),
            (json!({"AlarmName": "a\tb"}), "control"),
            (
                json!({"AlarmDescription": "x".repeat(1025)}),
                "alarmDescription",
            ),
            (json!({"MetricName": null}), "MetricName"),
            (json!({"Namespace": null}), "Namespace"),
            (json!({"Namespace": ":n"}), "namespace"),
            (json!({"Threshold": null}), "Threshold"),
            (json!({"ComparisonOperator": null}), "ComparisonOperator"),
            (
                json!({"ComparisonOperator": "Greater"}),
                "comparisonOperator",
            ),
            (
                json!({"ComparisonOperator": "GreaterThanUpperThreshold"}),
                "ThresholdMetricId",
            ),
            (json!({"Statistic": null}), "Statistic"),
            (json!({"ExtendedStatistic": "p95"}), "together"),
            (json!({"Statistic": "p95"}), "enum value set"),
            (
                json!({"Statistic": null, "ExtendedStatistic": "Average"}),
                "ExtendedStatistic",
            ),
            (
                json!({"Statistic": null, "ExtendedStatistic": "p101"}),
                "ExtendedStatistic",
            ),
            (
                json!({"EvaluateLowSampleCountPercentile": "ignore"}),
                "percentile",
            ),
            (json!({"Period": null}), "Period"),
            (json!({"Period": 45}), "Period"),
            (json!({"Period": 0}), "Period"),
            (json!({"EvaluationPeriods": null}), "EvaluationPeriods"),
            (json!({"EvaluationPeriods": 0}), "evaluationPeriods"),
            (json!({"EvaluationPeriods": 289}), "86400"),
            (json!({"Period": 3600, "EvaluationPeriods": 169}), "604800"),
            (json!({"DatapointsToAlarm": 4}), "DatapointsToAlarm"),
            (json!({"DatapointsToAlarm": 0}), "datapointsToAlarm"),
            (
                json!({"TreatMissingData": "NotBreaching"}),
                "treatMissingData",
            ),
            (json!({"Unit": "Furlongs"}), "unit"),
            (json!({"Dimensions": many}), "dimensions"),
            (
                json!({"Dimensions": [{"Name": "d", "Value": ""}]}),
                "dimensions",
            ),
            (
                json!({"Dimensions": [{"Name": "d", "Value": "1"}, {"Name": "d", "Value": "2"}]}),
                "more than once",
            ),
            (json!({"AlarmActions": topics}), "alarmActions"),
            (json!({"OKActions": ["topic"]}), "Invalid arn syntax: topic"),
            (
                json!({"AlarmActions": [elsewhere]}),
                "Only us-east-2 is supported",
            ),
            (
                json!({"Metrics": [query("m", true)]}),
                "together with Metrics",
            ),
            (json!({"ThresholdMetricId": "m"}), "together"),
            (json!({"EvaluationInterval": 60}), "EvaluationInterval"),
        ],
    );
    refuses(
        &math(),
        &[
            (
                json!({"Metrics": [query("a", true), query("b", true)]}),
                "Exactly one element",
            ),
            (
                json!({"Metrics": [query("a", false)]}),
                "Exactly one element",
            ),
            (
                json!({"Metrics": [query("a", true), query("a", false)]}),
                "not unique",
            ),
            (json!({"Metrics": [query("A", true)]}), "Invalid Id"),
            (
                json!({"Metrics": [{"Id": "a", "ReturnData": true}]}),
                "MetricStat and Expression",
            ),
        ],
    );
    refuses(
        &anomaly(),
        &[
            (json!({"Threshold": 1.0}), "together"),
            (json!({"ThresholdMetricId": "m1"}), "ThresholdMetricId"),
            (
                json!({"ComparisonOperator": "GreaterThanThreshold"}),
                "ThresholdMetricId",
            ),
            (json!({"AlarmActions": [scaling]}), "Auto Scaling"),
        ],
    );
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
            check(operation, &body, REGION).is_err(),
            "{operation} {body}"
        );
    }
    let listing = json!({"AlarmNamePrefix": "a", "AlarmTypes": ["CompositeAlarm"]});
    assert_eq!(check("DescribeAlarms", &listing, REGION), Ok(()));
    assert_eq!(check("TagResource", &json!({}), REGION), Ok(()));
}
