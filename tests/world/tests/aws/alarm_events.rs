//! What EventBridge hears of alarms.

use std::time::SystemTime;

use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::types::{
    ActionConfiguration, AlarmTagsPropagation, AlarmType, Metric, MetricDataQuery, MetricStat,
    StateValue, Tag,
};
use aws_sdk_eventbridge::types::PutEventsRequestEntry;
use serde_json::{Value, json};

use crate::path::Path;
use crate::receiver::Receiver;
use crate::{MINUTE, REGION, dimension, emit, put};

async fn set(client: &Client, name: &str, state: StateValue, reason: &str) {
    let set = client.set_alarm_state().alarm_name(name);
    let set = set.state_value(state).state_reason(reason);
    set.send().await.unwrap();
}

fn propagated(keys: &[&str]) -> ActionConfiguration {
    let mut tags = AlarmTagsPropagation::builder().enabled(true);
    for key in keys {
        tags = tags.included_tag_keys(*key);
    }
    ActionConfiguration::builder()
        .alarm_tags_propagation(tags.build())
        .build()
}

fn tag(key: &str, value: &str) -> Tag {
    Tag::builder().key(key).value(value).build()
}

/// A moment as AWS writes it in alarms' events, which is not RFC 3339.
fn is_moment(text: &Value) -> bool {
    let text = text.as_str().unwrap();
    text.len() == "2019-10-02T17:04:40.989+0000".len() && text.ends_with("+0000")
}

/// Takes out, and checks, what differs each time.
fn settled(mut event: Value) -> Value {
    let time = event["time"].take();
    let time: jiff::Timestamp = time.as_str().unwrap().parse().unwrap();
    assert!(time.duration_since(jiff::Timestamp::now()).abs().as_secs() < 60);
    assert_eq!(event["id"].take().as_str().unwrap().len(), 36);
    for state in ["state", "previousState"] {
        assert!(is_moment(&event["detail"][state]["timestamp"].take()));
    }
    event
}

#[tokio::test]
async fn a_metric_alarm_is_told_of_in_the_shape_of_aws() {
    let path = Path::new("100000000040").await;
    let client = path.aws.cloudwatch(path.account, REGION);
    let receiver = Receiver::start().await;
    path.whole("all", "a", &receiver.url("/")).await;
    put(&client, "a-1")
        .alarm_description("too many")
        .dimensions(dimension("prod"))
        .send()
        .await
        .unwrap();
    emit(&client, "errors", "prod", 9.0, SystemTime::now() - MINUTE).await;
    emit(&client, "errors", "prod", 1.0, SystemTime::now()).await;

    let received = receiver.wait(2).await;
    let (fired, mut ended) = (received[0].json(), received[1].json());
    assert_eq!(
        received[0].header("content-type"),
        "application/json; charset=utf-8"
    );
    let arn = format!("arn:aws:cloudwatch:{REGION}:{}:alarm:a-1", path.account);
    let id = fired["detail"]["configuration"]["metrics"][0]["id"].clone();
    assert_eq!(id.as_str().unwrap().len(), 36);
    let (state, data) = {
        let state = &fired["detail"]["state"];
        let data: Value = serde_json::from_str(state["reasonData"].as_str().unwrap()).unwrap();
        (state.clone(), data)
    };
    assert_eq!(data["recentDatapoints"], json!([9.0]));
    assert!(
        state["reason"]
            .as_str()
            .unwrap()
            .starts_with("Threshold Crossed: 1 out of the last 1 datapoints")
    );
    let expected = json!({
        "version": "0", "id": null, "detail-type": "CloudWatch Alarm State Change", "source": "aws.cloudwatch",
        "account": path.account, "time": null, "region": REGION, "resources": [arn],
        "detail": {
            "alarmName": "a-1",
            "configuration": {
                "description": "too many",
                "metrics": [{
                    "id": id,
                    "metricStat": {
                        "metric": {"namespace": "CampusCore", "name": "errors", "dimensions": {"DeploymentId": "prod"}},
                        "period": 60, "stat": "Sum",
                    },
                    "returnData": true,
                }],
            },
            "previousState": {"value": "INSUFFICIENT_DATA", "reason": "Unchecked: Initial alarm creation", "timestamp": null},
            "state": {"value": "ALARM", "reason": state["reason"], "reasonData": state["reasonData"], "timestamp": null},
        },
    });
    assert_eq!(settled(fired), expected);

    // The state that it leaves is the one that it came to.
    assert_eq!(ended["detail"]["previousState"].take(), state);
    assert_eq!(ended["detail"]["state"]["value"], "OK");
    assert_eq!(ended["detail"]["configuration"]["metrics"][0]["id"], id);
    assert_eq!(receiver.all().len(), 2);
}

#[tokio::test]
async fn math_and_composite_alarms_are_told_of_in_the_shape_of_aws() {
    let path = Path::new("100000000041").await;
    let client = path.aws.cloudwatch(path.account, REGION);
    let receiver = Receiver::start().await;
    path.whole("all", "m", &receiver.url("/")).await;
    let metric = Metric::builder()
        .namespace("CampusCore")
        .metric_name("errors")
        .dimensions(dimension("prod"));
    let stat = MetricStat::builder()
        .metric(metric.build())
        .period(60)
        .stat("p99")
        .build();
    let source = MetricDataQuery::builder()
        .id("m1")
        .metric_stat(stat)
        .return_data(false);
    let rate = MetricDataQuery::builder()
        .id("e1")
        .expression("m1*2")
        .label("twice")
        .return_data(true);
    let create = client
        .put_metric_alarm()
        .alarm_name("m-math")
        .evaluation_periods(1)
        .threshold(1.0)
        .comparison_operator("GreaterThanThreshold".into())
        .metrics(source.build())
        .metrics(rate.build());
    create.send().await.unwrap();
    let composite = client
        .put_composite_alarm()
        .alarm_name("m-both")
        .alarm_description("of both")
        .alarm_rule("ALARM(\"m-math\")")
        .actions_enabled(false);
    composite.send().await.unwrap();
    set(&client, "m-math", StateValue::Alarm, "by \"hand\"\n<&> 🔥").await;

    let received = receiver.wait(3).await;
    let mut events: Vec<Value> = received
        .iter()
        .map(|received| settled(received.json()))
        .collect();
    events.sort_by_key(|event| event["detail"].to_string());
    let details: Vec<Value> = events
        .iter_mut()
        .map(|event| event["detail"].take())
        .collect();
    let arn = |name: &str| format!("arn:aws:cloudwatch:{REGION}:{}:alarm:{name}", path.account);
    let initial = json!({"value": "INSUFFICIENT_DATA", "reason": "Unchecked: Initial alarm creation", "timestamp": null});
    let math = details
        .iter()
        .find(|detail| detail["alarmName"] == "m-math")
        .unwrap();
    let expected = json!({
        "alarmName": "m-math",
        "configuration": {"metrics": [
            {
                "id": "m1",
                "metricStat": {
                    "metric": {"namespace": "CampusCore", "name": "errors", "dimensions": {"DeploymentId": "prod"}},
                    "period": 60, "stat": "p99",
                },
                "returnData": false,
            },
            {"id": "e1", "expression": "m1*2", "label": "twice", "returnData": true},
        ]},
        "previousState": initial,
        "state": {"value": "ALARM", "reason": "by \"hand\"\n<&> 🔥", "timestamp": null},
    });
    assert_eq!(*math, expected);

    // The composite alarm came to OK when it was made, since its child was in no alarm, and then fired without actions.
    let of_composite = |state: &str| {
        let mut found = details
            .iter()
            .filter(|detail| detail["alarmName"] == "m-both" && detail["state"]["value"] == state);
        found.next().unwrap().clone()
    };
    let (made, fired) = (of_composite("OK"), of_composite("ALARM"));
    assert_eq!(made["previousState"]["value"], "INSUFFICIENT_DATA");
    let configuration = json!({"description": "of both", "alarmRule": "ALARM(\"m-math\")"});
    assert_eq!(made["configuration"], configuration);
    assert_eq!(fired["configuration"], configuration);
    assert_eq!(fired["previousState"], made["state"]);
    let reason = fired["state"]["reason"].as_str().unwrap();
    assert!(
        reason.starts_with(&format!("{} transitioned to ALARM at ", arn("m-math"))),
        "{reason}"
    );
    let data: Value = serde_json::from_str(fired["state"]["reasonData"].as_str().unwrap()).unwrap();
    assert_eq!(data["triggeringAlarms"][0]["arn"], arn("m-math"));
    assert_eq!(data["triggeringAlarms"][0]["state"]["value"], "ALARM");

    // What is set to the state it is in does not change.
    set(&client, "m-both", StateValue::Alarm, "again").await;
    set(&client, "m-both", StateValue::Ok, "over").await;
    let last = receiver.wait(4).await[3].json();
    assert_eq!(last["detail"]["previousState"]["reason"], "again");
    assert_eq!(path.settled(4).await.len(), 4);
}

#[tokio::test]
async fn tags_are_told_where_they_are_asked_for() {
    let path = Path::new("100000000042").await;
    let client = path.aws.cloudwatch(path.account, REGION);
    let receiver = Receiver::start().await;
    path.whole("all", "t", &receiver.url("/")).await;
    let create = |name: &str| {
        put(&client, name)
            .tags(tag("campanile-alarm", "a"))
            .tags(tag("team", "x"))
    };
    create("t-none").send().await.unwrap();
    let all = create("t-all").action_configuration(propagated(&[]));
    all.send().await.unwrap();
    let wanted = propagated(&["campanile-alarm", "campanile-environment"]);
    let some = create("t-some").action_configuration(wanted.clone());
    some.send().await.unwrap();
    let composite = client
        .put_composite_alarm()
        .alarm_name("t-composite")
        .alarm_rule("FALSE")
        .tags(tag("campanile-alarm", "c"))
        .action_configuration(wanted.clone());
    composite.send().await.unwrap();
    for name in ["t-none", "t-all", "t-some"] {
        set(&client, name, StateValue::Alarm, "r").await;
    }
    let told: std::collections::BTreeMap<String, (Value, Value)> = receiver
        .wait(4)
        .await
        .iter()
        .map(|received| {
            let mut detail = received.json()["detail"].take();
            let name = detail["alarmName"].as_str().unwrap().to_owned();
            (
                name,
                (detail["alarmTags"].take(), detail["alarmTagsStatus"].take()),
            )
        })
        .collect();
    assert_eq!(told["t-none"], (Value::Null, Value::Null));
    let success = json!("SUCCESS");
    let both = json!({"campanile-alarm": "a", "team": "x"});
    assert_eq!(told["t-all"], (both, success.clone()));
    assert_eq!(
        told["t-some"],
        (json!({"campanile-alarm": "a"}), success.clone())
    );
    assert_eq!(
        told["t-composite"],
        (json!({"campanile-alarm": "c"}), success)
    );

    // It is described as it was put, and cleared by a put without it.
    let described = async || {
        let describe = client
            .describe_alarms()
            .alarm_types(AlarmType::MetricAlarm)
            .alarm_types(AlarmType::CompositeAlarm)
            .send()
            .await
            .unwrap();
        let metric = describe.metric_alarms().iter();
        let metric = metric.map(|alarm| alarm.action_configuration().cloned());
        let composite = describe.composite_alarms().iter();
        let composite = composite.map(|alarm| alarm.action_configuration().cloned());
        metric.chain(composite).collect::<Vec<_>>()
    };
    let (all, some) = (Some(propagated(&[])), Some(wanted));
    assert_eq!(described().await, [all, None, some.clone(), some]);
    for name in ["t-all", "t-some"] {
        put(&client, name).send().await.unwrap();
    }
    let again = client.put_composite_alarm().alarm_name("t-composite");
    again.alarm_rule("FALSE").send().await.unwrap();
    assert_eq!(described().await, [None, None, None, None]);
}

#[tokio::test]
async fn only_cloudwatch_itself_speaks_for_alarms() {
    let path = Path::new("100000000043").await;
    let receiver = Receiver::start().await;
    path.whole("all", "", &receiver.url("/")).await;
    let entry = PutEventsRequestEntry::builder()
        .source("aws.cloudwatch")
        .detail_type("CloudWatch Alarm State Change")
        .detail("{\"alarmName\":\"forged\"}")
        .build();
    let answer = path
        .events
        .put_events()
        .entries(entry)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.failed_entry_count, 1);
    let code = answer.entries()[0].error_code().unwrap();
    assert_eq!(code, "NotAuthorizedForSourceException");
    assert_eq!(path.deliveries().await, []);
}

#[tokio::test]
async fn a_change_of_the_configuration_is_another_event() {
    let path = Path::new("100000000044").await;
    let client = path.aws.cloudwatch(path.account, REGION);
    let receiver = Receiver::start().await;
    let destination = path.destination("d", &receiver.url("/"), None).await;
    path.rule("every", json!({"source": ["aws.cloudwatch"]}))
        .await;
    path.put("every", path.target("t", &destination)).await;
    put(&client, "c").send().await.unwrap();
    put(&client, "c").threshold(7.0).send().await.unwrap();
    client
        .delete_alarms()
        .alarm_names("c")
        .send()
        .await
        .unwrap();
    let mut told: Vec<_> = receiver
        .wait(3)
        .await
        .iter()
        .map(|received| {
            let event = received.json();
            assert_eq!(
                event["detail-type"],
                "CloudWatch Alarm Configuration Change"
            );
            let detail = &event["detail"];
            let threshold = |key: &str| detail[key]["threshold"].as_f64();
            let operation = detail["operation"].as_str().unwrap().to_owned();
            (
                operation,
                threshold("configuration"),
                threshold("previousConfiguration"),
            )
        })
        .collect();
    told.sort_by(|one, other| one.0.cmp(&other.0));
    let expected = [
        ("create".to_owned(), Some(5.0), None),
        ("delete".to_owned(), Some(7.0), None),
        ("update".to_owned(), Some(7.0), Some(5.0)),
    ];
    assert_eq!(told, expected);
}
