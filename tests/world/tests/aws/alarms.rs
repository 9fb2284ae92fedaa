//! How alarms are kept: what is described, replaced, refused, tagged and switched off.

use std::time::SystemTime;

use aws_sdk_cloudwatch::error::ProvideErrorMetadata;
use aws_sdk_cloudwatch::types::{
    AlarmType, ComparisonOperator, HistoryItemType, Metric, MetricAlarm, MetricDataQuery,
    MetricStat, StateValue, Tag,
};

use crate::{REGION, alarms, aws, dimension, emit, put, state, topic};

#[tokio::test]
async fn what_was_never_set_is_not_described() {
    let client = aws().await.cloudwatch("100000000001", REGION);
    put(&client, "plain").send().await.unwrap();
    let [alarm] = &alarms(&client).await[..] else {
        panic!("one alarm")
    };
    assert_eq!(
        alarm.alarm_arn(),
        Some("arn:aws:cloudwatch:us-east-2:100000000001:alarm:plain")
    );
    assert_eq!(
        (alarm.actions_enabled(), alarm.state_value()),
        (Some(true), Some(&StateValue::InsufficientData))
    );
    assert_eq!(
        (
            alarm.alarm_actions(),
            alarm.ok_actions(),
            alarm.insufficient_data_actions()
        ),
        (&[][..], &[][..], &[][..])
    );
    assert_eq!(
        (
            alarm.treat_missing_data(),
            alarm.alarm_description(),
            alarm.datapoints_to_alarm()
        ),
        (None, None, None)
    );
    assert_eq!(
        (
            alarm.extended_statistic(),
            alarm.unit(),
            alarm.threshold_metric_id()
        ),
        (None, None, None)
    );
    assert_eq!(
        (
            alarm.evaluate_low_sample_count_percentile(),
            alarm.state_reason_data()
        ),
        (None, None)
    );
    assert!(alarm.metrics().is_empty() && alarm.dimensions().is_empty());
    assert!(alarm.state_transitioned_timestamp().is_some());
    assert_eq!(
        alarm.state_reason(),
        Some("Unchecked: Initial alarm creation")
    );
}

#[tokio::test]
async fn what_was_set_is_described_and_an_update_replaces_it_but_not_the_state() {
    let client = aws().await.cloudwatch("100000000002", REGION);
    let tag = |value: &str| Tag::builder().key("owner").value(value).build();
    put(&client, "a")
        .treat_missing_data("missing")
        .alarm_description("d")
        .tags(tag("us"))
        .send()
        .await
        .unwrap();
    let moment = alarms(&client).await[0].state_transitioned_timestamp;
    client
        .set_alarm_state()
        .alarm_name("a")
        .state_value(StateValue::Ok)
        .state_reason("r")
        .send()
        .await
        .unwrap();
    let [before] = &alarms(&client).await[..] else {
        panic!("one alarm")
    };
    assert_eq!(
        (before.treat_missing_data(), before.alarm_description()),
        (Some("missing"), Some("d"))
    );
    assert!(before.state_transitioned_timestamp > moment);

    put(&client, "a")
        .threshold(6.0)
        .tags(tag("them"))
        .send()
        .await
        .unwrap();
    let [after] = &alarms(&client).await[..] else {
        panic!("one alarm")
    };
    assert_eq!(
        (after.threshold(), after.alarm_description()),
        (Some(6.0), None)
    );
    assert_eq!(
        (after.state_value(), after.state_reason()),
        (Some(&StateValue::Ok), Some("r"))
    );
    assert_eq!(
        after.state_transitioned_timestamp,
        before.state_transitioned_timestamp
    );

    let arn = after.alarm_arn().unwrap();
    let owner = async || {
        let tags = client
            .list_tags_for_resource()
            .resource_arn(arn)
            .send()
            .await
            .unwrap();
        tags.tags()
            .iter()
            .map(|tag| {
                (
                    tag.key().unwrap().to_owned(),
                    tag.value().unwrap().to_owned(),
                )
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        owner().await,
        [("owner".to_owned(), "us".to_owned())],
        "tags of an update are ignored"
    );
    client
        .tag_resource()
        .resource_arn(arn)
        .tags(tag("we"))
        .send()
        .await
        .unwrap();
    assert_eq!(owner().await, [("owner".to_owned(), "we".to_owned())]);
}

#[tokio::test]
async fn metric_math_is_kept_and_evaluated() {
    let client = aws().await.cloudwatch("100000000003", REGION);
    let query = |id: &str, name: &str| {
        let metric = Metric::builder()
            .namespace("CampusCore")
            .metric_name(name)
            .dimensions(dimension("prod"))
            .build();
        let stat = MetricStat::builder()
            .metric(metric)
            .period(60)
            .stat("Sum")
            .build();
        MetricDataQuery::builder()
            .id(id)
            .metric_stat(stat)
            .return_data(false)
            .build()
    };
    let rate = MetricDataQuery::builder()
        .id("rate")
        .expression("100 * errors / requests")
        .return_data(true)
        .build();
    let queries = vec![
        rate,
        query("errors", "errors"),
        query("requests", "requests"),
    ];
    let put = client
        .put_metric_alarm()
        .alarm_name("rate")
        .set_metrics(Some(queries.clone()))
        .evaluation_periods(1);
    put.comparison_operator(ComparisonOperator::GreaterThanThreshold)
        .threshold(10.0)
        .send()
        .await
        .unwrap();
    let now = SystemTime::now();
    emit(&client, "requests", "prod", 50.0, now).await;
    assert_eq!(
        state(&client, "rate").await,
        StateValue::InsufficientData,
        "one of the two has no data"
    );
    emit(&client, "errors", "prod", 10.0, now).await;
    let [alarm] = &alarms(&client).await[..] else {
        panic!("one alarm")
    };
    assert_eq!(alarm.metrics(), queries);
    assert_eq!(
        (alarm.period(), alarm.statistic(), alarm.state_value()),
        (None, None, Some(&StateValue::Alarm))
    );
    assert!(
        alarm.state_reason().unwrap().contains("[20.0 ("),
        "{alarm:?}"
    );
}

#[tokio::test]
async fn what_is_illegal_is_refused() {
    let client = aws().await.cloudwatch("100000000004", REGION);
    let illegal = [
        put(&client, "bad").period(45),
        put(&client, "bad").datapoints_to_alarm(2),
        put(&client, "bad").extended_statistic("p95"),
        put(&client, "bad\n"),
        client.put_metric_alarm().alarm_name("bad"),
    ];
    for put in illegal {
        let refusal = put.send().await.unwrap_err();
        assert_eq!(refusal.raw_response().unwrap().status().as_u16(), 400);
        assert_eq!(refusal.code(), Some("ValidationError"), "{refusal:?}");
        assert!(refusal.message().is_some_and(|message| !message.is_empty()));
    }
    assert!(alarms(&client).await.is_empty());
    let missing = client
        .set_alarm_state()
        .alarm_name("none")
        .state_value(StateValue::Ok)
        .state_reason("r")
        .send()
        .await;
    let missing = missing.unwrap_err();
    assert_eq!(missing.code(), Some("ResourceNotFound"));
    assert!(missing.into_service_error().is_resource_not_found());
}

#[tokio::test]
async fn composites_are_described_only_when_asked_for_and_hold_their_children() {
    let account = "100000000006";
    let client = aws().await.cloudwatch(account, REGION);
    let arn = topic(&aws().await.sns(account, REGION), "t").await;
    put(&client, "child").send().await.unwrap();
    client
        .put_composite_alarm()
        .alarm_name("parent")
        .alarm_rule("ALARM(\"child\")")
        .alarm_actions(&arn)
        .send()
        .await
        .unwrap();
    let silent = client.describe_alarms().send().await.unwrap();
    assert_eq!(
        (
            silent.metric_alarms().len(),
            silent.composite_alarms().len()
        ),
        (1, 0)
    );
    let asked = client
        .describe_alarms()
        .alarm_types(AlarmType::CompositeAlarm)
        .send()
        .await
        .unwrap();
    let [parent] = asked.composite_alarms() else {
        panic!("one composite")
    };
    assert_eq!(
        (parent.alarm_description(), parent.state_value()),
        (None, Some(&StateValue::Ok))
    );
    let refusal = client
        .delete_alarms()
        .alarm_names("child")
        .send()
        .await
        .unwrap_err();
    assert_eq!(refusal.code(), Some("ValidationError"));
    client
        .set_alarm_state()
        .alarm_name("child")
        .state_value(StateValue::Alarm)
        .state_reason("r")
        .send()
        .await
        .unwrap();
    let asked = client
        .describe_alarms()
        .alarm_types(AlarmType::CompositeAlarm)
        .send()
        .await
        .unwrap();
    assert_eq!(
        asked.composite_alarms()[0].state_value(),
        Some(&StateValue::Alarm)
    );
    let history = client
        .describe_alarm_history()
        .alarm_name("parent")
        .alarm_types(AlarmType::CompositeAlarm)
        .history_item_type(HistoryItemType::Action)
        .send()
        .await
        .unwrap();
    let [action] = history.alarm_history_items() else {
        panic!("one action")
    };
    let summary = format!("Successfully executed action {arn}");
    assert_eq!(action.history_summary(), Some(summary.as_str()));
}

#[tokio::test]
async fn accounts_and_regions_do_not_see_each_other() {
    let aws = aws().await;
    let (one, two) = (
        aws.cloudwatch("100000000008", REGION),
        aws.cloudwatch("100000000009", REGION),
    );
    put(&one, "a").send().await.unwrap();
    assert_eq!((alarms(&one).await.len(), alarms(&two).await.len()), (1, 0));
    assert!(
        alarms(&aws.cloudwatch("100000000008", "eu-west-1"))
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn tags_are_put_once_and_then_added_and_taken_away() {
    let client = aws().await.cloudwatch("100000000026", REGION);
    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
    put(&client, "a")
        .tags(tag("owner", "us"))
        .tags(tag("team", "one"))
        .send()
        .await
        .unwrap();
    let composite = || {
        let composite = client.put_composite_alarm().alarm_name("c");
        composite.alarm_rule("ALARM(\"a\")")
    };
    composite().tags(tag("owner", "us")).send().await.unwrap();
    put(&client, "bare").send().await.unwrap();
    let arn = |name: &str| format!("arn:aws:cloudwatch:{REGION}:100000000026:alarm:{name}");
    let tags = async |name: &str| {
        let tags = client.list_tags_for_resource().resource_arn(arn(name));
        let tags = tags.send().await.unwrap().tags.unwrap_or_default();
        let pair = |tag: &Tag| format!("{}={}", tag.key().unwrap(), tag.value().unwrap());
        let mut tags: Vec<String> = tags.iter().map(pair).collect();
        tags.sort();
        tags
    };
    assert_eq!(tags("a").await, ["owner=us", "team=one"]);
    assert_eq!(tags("c").await, ["owner=us"]);
    assert_eq!(tags("bare").await, [""; 0]);

    // An update takes none, however they are given.
    put(&client, "a")
        .tags(tag("owner", "them"))
        .send()
        .await
        .unwrap();
    put(&client, "bare")
        .tags(tag("owner", "them"))
        .send()
        .await
        .unwrap();
    composite().tags(tag("owner", "them")).send().await.unwrap();
    assert_eq!(tags("a").await, ["owner=us", "team=one"]);
    assert_eq!(tags("c").await, ["owner=us"]);
    assert_eq!(tags("bare").await, [""; 0]);

    let add = client.tag_resource().resource_arn(arn("a"));
    add.tags(tag("owner", "we"))
        .tags(tag("new", "1"))
        .send()
        .await
        .unwrap();
    assert_eq!(tags("a").await, ["new=1", "owner=we", "team=one"]);
    let take = client.untag_resource().resource_arn(arn("a"));
    take.tag_keys("team")
        .tag_keys("unknown")
        .send()
        .await
        .unwrap();
    assert_eq!(tags("a").await, ["new=1", "owner=we"]);

    // What is gone has no tags, and what is made anew has those of its making.
    let delete = client.delete_alarms().alarm_names("bare");
    delete.send().await.unwrap();
    let missing = client.list_tags_for_resource().resource_arn(arn("bare"));
    let missing = missing.send().await.unwrap_err().into_service_error();
    assert!(missing.is_resource_not_found_exception(), "{missing:?}");
    let missing = client.tag_resource().resource_arn(arn("bare"));
    let missing = missing.tags(tag("a", "b")).send().await.unwrap_err();
    let missing = missing.into_service_error();
    assert!(missing.is_resource_not_found_exception(), "{missing:?}");
    put(&client, "bare")
        .tags(tag("owner", "us"))
        .send()
        .await
        .unwrap();
    assert_eq!(tags("bare").await, ["owner=us"]);
}

#[tokio::test]
async fn an_alarm_whose_actions_are_off_acts_no_more_until_they_are_on_or_it_is_put() {
    let account = "100000000027";
    let client = aws().await.cloudwatch(account, REGION);
    let arn = topic(&aws().await.sns(account, REGION), "t").await;
    for name in ["a", "b"] {
        put(&client, name).alarm_actions(&arn).send().await.unwrap();
    }
    let enabled = async || {
        let alarms = alarms(&client).await;
        let enabled = |alarm: &MetricAlarm| alarm.actions_enabled().unwrap();
        alarms.iter().map(enabled).collect::<Vec<_>>()
    };
    let acted = async || {
        for value in [StateValue::Ok, StateValue::Alarm] {
            let set = client.set_alarm_state().alarm_name("a").state_reason("r");
            set.state_value(value).send().await.unwrap();
        }
        let history = client.describe_alarm_history().alarm_name("a");
        let history = history.history_item_type(HistoryItemType::Action);
        history.send().await.unwrap().alarm_history_items().len()
    };
    assert_eq!(enabled().await, [true, true]);
    assert_eq!(acted().await, 1);
    let off = client.disable_alarm_actions().alarm_names("a");
    off.alarm_names("unknown").send().await.unwrap();
    assert_eq!(enabled().await, [false, true]);
    assert_eq!(acted().await, 1);
    let on = client.enable_alarm_actions().alarm_names("a");
    on.send().await.unwrap();
    assert_eq!(enabled().await, [true, true]);
    assert_eq!(acted().await, 2);

    // A put replaces what was set by hand.
    let off = client.disable_alarm_actions();
    let off = off.set_alarm_names(Some(vec!["a".to_owned(), "b".to_owned()]));
    off.send().await.unwrap();
    put(&client, "a").alarm_actions(&arn).send().await.unwrap();
    put(&client, "b")
        .actions_enabled(false)
        .send()
        .await
        .unwrap();
    assert_eq!(enabled().await, [true, false]);
    assert_eq!(acted().await, 3);
}
