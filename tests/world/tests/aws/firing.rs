//! When alarms fire, and whom that reaches.

use std::time::{Duration, SystemTime};

use aws_sdk_cloudwatch::types::{HistoryItemType, StateValue};
use campanile_world::pagerduty::PagerDuty;

use crate::{KEY, LIMIT, MINUTE, REGION, alarms, aws, dimension, emit, put, topic};

#[tokio::test]
async fn dimensions_datapoints_and_missing_data_count() {
    let account = "100000000007";
    let aws = aws().await;
    let client = aws.cloudwatch(account, REGION);
    put(&client, "prod")
        .dimensions(dimension("prod"))
        .send()
        .await
        .unwrap();
    put(&client, "pilot")
        .dimensions(dimension("pilot"))
        .treat_missing_data("notBreaching")
        .send()
        .await
        .unwrap();
    put(&client, "none").send().await.unwrap();
    put(&client, "two of three")
        .dimensions(dimension("prod"))
        .evaluation_periods(3)
        .datapoints_to_alarm(2)
        .send()
        .await
        .unwrap();
    let now = SystemTime::now();
    emit(&client, "errors", "prod", 9.0, now).await;
    let states = async |names: [&str; 4]| {
        let all = alarms(&client).await;
        names.map(|name| {
            all.iter()
                .find(|alarm| alarm.alarm_name() == Some(name))
                .unwrap()
                .state_value()
                .unwrap()
                .as_str()
                .to_owned()
        })
    };
    let names = ["prod", "pilot", "none", "two of three"];
    assert_eq!(
        states(names).await,
        [
            "ALARM",
            "INSUFFICIENT_DATA",
            "INSUFFICIENT_DATA",
            "INSUFFICIENT_DATA"
        ]
    );
    emit(&client, "errors", "prod", 9.0, now - MINUTE).await;
    assert_eq!(
        states(names).await,
        ["ALARM", "INSUFFICIENT_DATA", "INSUFFICIENT_DATA", "ALARM"]
    );

    aws.evaluate_alarms(Some(account)).await.unwrap();
    assert_eq!(
        states(names).await,
        ["ALARM", "OK", "INSUFFICIENT_DATA", "ALARM"]
    );
}

#[tokio::test]
async fn an_alarm_reaches_pagerduty_within_a_second_and_so_does_its_end() {
    let account = "100000000012";
    let aws = aws().await;
    let (client, sns) = (aws.cloudwatch(account, REGION), aws.sns(account, REGION));
    let pager_duty = PagerDuty::start().await.unwrap();
    let arn = topic(&sns, "pager").await;
    let endpoint = format!("{}/integration/{KEY}/enqueue", pager_duty.url());
    sns.subscribe()
        .topic_arn(&arn)
        .protocol("http")
        .endpoint(endpoint)
        .send()
        .await
        .unwrap();
    pager_duty
        .wait(LIMIT, |record| {
            (!record.confirmations.is_empty()).then_some(())
        })
        .await
        .unwrap();
    assert!(pager_duty.confirmed(KEY).contains(&arn));
    for (name, deployment) in [("fires", "prod"), ("rests", "pilot")] {
        put(&client, name)
            .dimensions(dimension(deployment))
            .alarm_actions(&arn)
            .ok_actions(&arn)
            .send()
            .await
            .unwrap();
    }
    let second = Duration::from_secs(1);
    emit(&client, "errors", "prod", 9.0, SystemTime::now() - MINUTE).await;
    let fired = pager_duty
        .wait_for(KEY, "fires", "ALARM", second)
        .await
        .unwrap();
    assert_eq!(fired.subject, "ALARM: \"fires\" in US East (Ohio)");
    assert_eq!(
        (
            fired.old_state.as_str(),
            fired.account.as_str(),
            fired.region.as_str()
        ),
        ("INSUFFICIENT_DATA", account, REGION)
    );
    emit(&client, "errors", "prod", 1.0, SystemTime::now()).await;
    let ended = pager_duty
        .wait_for(KEY, "fires", "OK", second)
        .await
        .unwrap();
    assert_eq!(ended.old_state, "ALARM");
    assert_eq!(
        pager_duty.received(KEY).len(),
        2,
        "the other deployment's alarm is silent"
    );

    sns.publish()
        .topic_arn(&arn)
        .message("hello")
        .send()
        .await
        .unwrap();
    let dropped = pager_duty
        .wait(LIMIT, |record| record.dropped.first().cloned())
        .await
        .unwrap();
    assert!(dropped.reason.contains("not an alarm's"), "{dropped:?}");
}

#[tokio::test]
async fn an_alarm_publishes_only_where_the_topic_lets_it() {
    let account = "100000000013";
    let aws = aws().await;
    let (client, sns) = (aws.cloudwatch(account, REGION), aws.sns(account, REGION));
    let arn = topic(&sns, "guarded").await;
    let policy = |prefix: &str| {
        let condition = serde_json::json!({
            "StringEquals": {"aws:SourceAccount": account},
            "ArnLike": {"aws:SourceArn": format!("arn:aws:cloudwatch:{REGION}:{account}:alarm:{prefix}*")},
        });
        let statement = serde_json::json!({
            "Effect": "Allow", "Principal": {"Service": "cloudwatch.amazonaws.com"}, "Action": "sns:Publish", "Resource": arn,
            "Condition": condition,
        });
        serde_json::json!({"Version": "2012-10-17", "Statement": [statement]}).to_string()
    };
    put(&client, "acme-a")
        .alarm_actions(&arn)
        .send()
        .await
        .unwrap();
    let mut outcomes = Vec::new();
    for policy in [None, Some(policy("other-")), Some(policy("acme-"))] {
        if let Some(policy) = policy {
            let set = sns
                .set_topic_attributes()
                .topic_arn(&arn)
                .attribute_name("Policy")
                .attribute_value(policy);
            set.send().await.unwrap();
        }
        for value in [StateValue::Ok, StateValue::Alarm] {
            client
                .set_alarm_state()
                .alarm_name("acme-a")
                .state_value(value)
                .state_reason("r")
                .send()
                .await
                .unwrap();
        }
        let history = client
            .describe_alarm_history()
            .alarm_name("acme-a")
            .history_item_type(HistoryItemType::Action)
            .max_records(1);
        let history = history.send().await.unwrap();
        let summary = history.alarm_history_items()[0].history_summary().unwrap();
        outcomes.push(summary.split(' ').next().unwrap().to_owned());
    }
    assert_eq!(outcomes, ["Successfully", "Failed", "Successfully"]);
}
