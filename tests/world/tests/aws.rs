//! The world's AWS and PagerDuty, seen through the real SDK.

#![allow(
    clippy::unwrap_used,
    reason = "clippy lets only the test functions themselves unwrap"
)]

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_cloudwatch::config::{Credentials, SharedCredentialsProvider};
use aws_sdk_cloudwatch::error::ProvideErrorMetadata;
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{
    AlarmType, ComparisonOperator, Dimension, HistoryItemType, Metric, MetricAlarm,
    MetricDataQuery, MetricDatum, MetricStat, StateValue, Statistic, Tag,
};
use campanile_world::aws::{Aws, OPERATOR_ACCOUNT, Trouble, Trust};
use campanile_world::install;
use campanile_world::pagerduty::PagerDuty;
use tokio::sync::OnceCell;

const REGION: &str = "us-east-2";
const KEY: &str = "0123456789abcdef0123456789abcdef";
const LIMIT: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_secs(60);

/// One AWS for all tests, each of which has accounts of its own.
async fn aws() -> &'static Aws {
    static AWS: OnceCell<Aws> = OnceCell::const_new();
    AWS.get_or_init(|| async { Aws::start(&run_dir("shared")).await.unwrap() })
        .await
}

fn run_dir(name: &str) -> PathBuf {
    install::directory()
        .join("test")
        .join(format!("aws-{name}-{}", std::process::id()))
}

/// A client that is not one of the world's own, as the operator under test is.
fn client_config(aws: &Aws, key: &str, token: Option<&str>) -> SdkConfig {
    let credentials = Credentials::new(key, "any", token.map(str::to_owned), None, "test");
    let time_limits = TimeoutConfig::builder()
        .operation_timeout(Duration::from_secs(10))
        .build();
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .region(Region::new(REGION))
        .endpoint_url(aws.endpoint())
        .retry_config(aws_config::retry::RetryConfig::disabled())
        .timeout_config(time_limits)
        .build()
}

type Put = aws_sdk_cloudwatch::operation::put_metric_alarm::builders::PutMetricAlarmFluentBuilder;

fn put(client: &aws_sdk_cloudwatch::Client, name: &str) -> Put {
    client
        .put_metric_alarm()
        .alarm_name(name)
        .namespace("CampusCore")
        .metric_name("errors")
        .statistic(Statistic::Sum)
        .period(60)
        .evaluation_periods(1)
        .comparison_operator(ComparisonOperator::GreaterThanThreshold)
        .threshold(5.0)
}

fn dimension(value: &str) -> Dimension {
    Dimension::builder()
        .name("DeploymentId")
        .value(value)
        .build()
}

async fn emit(
    client: &aws_sdk_cloudwatch::Client,
    metric: &str,
    deployment: &str,
    value: f64,
    at: SystemTime,
) {
    let datum = MetricDatum::builder()
        .metric_name(metric)
        .dimensions(dimension(deployment))
        .value(value)
        .timestamp(DateTime::from(at))
        .build();
    client
        .put_metric_data()
        .namespace("CampusCore")
        .metric_data(datum)
        .send()
        .await
        .unwrap();
}

async fn alarms(client: &aws_sdk_cloudwatch::Client) -> Vec<MetricAlarm> {
    client
        .describe_alarms()
        .send()
        .await
        .unwrap()
        .metric_alarms
        .unwrap_or_default()
}

async fn state(client: &aws_sdk_cloudwatch::Client, name: &str) -> StateValue {
    alarms(client)
        .await
        .into_iter()
        .find(|alarm| alarm.alarm_name() == Some(name))
        .unwrap()
        .state_value
        .unwrap()
}

async fn topic(sns: &aws_sdk_sns::Client, name: &str) -> String {
    sns.create_topic()
        .name(name)
        .send()
        .await
        .unwrap()
        .topic_arn
        .unwrap()
}

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
async fn many_alarms_come_in_pages() {
    let client = aws().await.cloudwatch("100000000005", REGION);
    let names: Vec<String> = (0..130).map(|number| format!("p-{number:03}")).collect();
    for name in &names {
        put(&client, name).send().await.unwrap();
    }
    put(&client, "q").send().await.unwrap();
    let first = client
        .describe_alarms()
        .alarm_name_prefix("p-")
        .max_records(100)
        .send()
        .await
        .unwrap();
    assert_eq!(first.metric_alarms().len(), 100);
    let second = client
        .describe_alarms()
        .alarm_name_prefix("p-")
        .max_records(100)
        .set_next_token(first.next_token)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (second.metric_alarms().len(), second.next_token()),
        (30, None)
    );

    let by_name = client
        .describe_alarms()
        .set_alarm_names(Some(names[..100].to_vec()))
        .max_records(100)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (by_name.metric_alarms().len(), by_name.next_token()),
        (100, None)
    );
    let by_name = client
        .describe_alarms()
        .set_alarm_names(Some(names[..60].to_vec()))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            by_name.metric_alarms().len(),
            by_name.next_token().is_some()
        ),
        (50, true)
    );

    let refusal = client
        .describe_alarms()
        .set_alarm_names(Some(names[..101].to_vec()))
        .send()
        .await
        .unwrap_err();
    assert_eq!(refusal.code(), Some("ValidationError"));
    client
        .delete_alarms()
        .set_alarm_names(Some(names[..99].to_vec()))
        .alarm_names("unknown")
        .send()
        .await
        .unwrap();
    assert_eq!(
        client
            .describe_alarms()
            .alarm_name_prefix("p-")
            .send()
            .await
            .unwrap()
            .metric_alarms()
            .len(),
        31
    );
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
async fn dimensions_datapoints_and_missing_data_count() {
    let aws = aws().await;
    let client = aws.cloudwatch("100000000007", REGION);
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

    aws.evaluate_alarms().await.unwrap();
    assert_eq!(
        states(names).await,
        ["ALARM", "OK", "INSUFFICIENT_DATA", "ALARM"]
    );
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
async fn topics_are_created_once_with_their_tags_and_attributes() {
    let sns = aws().await.sns("100000000010", REGION);
    let tag = |value: &str| {
        aws_sdk_sns::types::Tag::builder()
            .key("owner")
            .value(value)
            .build()
            .unwrap()
    };
    let create = |value: &str| sns.create_topic().name("t").tags(tag(value)).send();
    let arn = create("a & b").await.unwrap().topic_arn.unwrap();
    assert_eq!(
        create("a & b").await.unwrap().topic_arn.as_ref(),
        Some(&arn)
    );
    let refusal = create("c").await.unwrap_err();
    assert_eq!(refusal.code(), Some("InvalidParameter"));
    assert!(
        refusal
            .message()
            .unwrap()
            .contains("Topic already exists with different tags")
    );
    let refusal = sns
        .create_topic()
        .name("t")
        .attributes("DisplayName", "other")
        .send()
        .await
        .unwrap_err();
    assert!(refusal.message().unwrap().contains("different attributes"));

    let tags = sns
        .list_tags_for_resource()
        .resource_arn(&arn)
        .send()
        .await
        .unwrap();
    assert_eq!(tags.tags(), [tag("a & b")]);
    let set = |name: &str, value: &str| {
        sns.set_topic_attributes()
            .topic_arn(&arn)
            .attribute_name(name)
            .attribute_value(value)
            .send()
    };
    set("DisplayName", "pager").await.unwrap();
    assert_eq!(
        set("Policy", "nonsense").await.unwrap_err().code(),
        Some("InvalidParameter")
    );
    assert_eq!(
        set("Colour", "red").await.unwrap_err().code(),
        Some("InvalidParameter")
    );
    let attributes = sns
        .get_topic_attributes()
        .topic_arn(&arn)
        .send()
        .await
        .unwrap()
        .attributes
        .unwrap();
    assert_eq!(attributes["DisplayName"], "pager");
    assert!(
        attributes["Policy"].contains("AWS:SourceOwner")
            && !attributes.contains_key("KmsMasterKeyId")
    );

    sns.delete_topic().topic_arn(&arn).send().await.unwrap();
    sns.delete_topic().topic_arn(&arn).send().await.unwrap();
    let refusal = sns
        .get_topic_attributes()
        .topic_arn(&arn)
        .send()
        .await
        .unwrap_err();
    assert_eq!(refusal.code(), Some("NotFound"));
    let refusal = sns
        .list_tags_for_resource()
        .resource_arn(&arn)
        .send()
        .await
        .unwrap_err();
    assert_eq!(refusal.code(), Some("ResourceNotFound"));
}

#[tokio::test]
async fn who_has_not_confirmed_is_pending() {
    let aws = aws().await;
    let sns = aws.sns("100000000011", REGION);
    let pager_duty = PagerDuty::start().await.unwrap();
    pager_duty.confirm_subscriptions(false);
    let arn = topic(&sns, "t").await;
    let endpoint = format!("{}/integration/{KEY}/enqueue", pager_duty.url());
    let http = || {
        sns.subscribe()
            .topic_arn(&arn)
            .protocol("http")
            .endpoint(&endpoint)
    };
    let mail = || {
        sns.subscribe()
            .topic_arn(&arn)
            .protocol("email")
            .endpoint("oncall@vsu.example")
    };
    let told = http()
        .return_subscription_arn(true)
        .send()
        .await
        .unwrap()
        .subscription_arn
        .unwrap();
    assert!(told.starts_with(&arn));
    assert_eq!(
        http().send().await.unwrap().subscription_arn(),
        Some("pending confirmation")
    );
    assert_eq!(
        http()
            .return_subscription_arn(true)
            .send()
            .await
            .unwrap()
            .subscription_arn
            .as_ref(),
        Some(&told)
    );
    assert_eq!(
        mail().send().await.unwrap().subscription_arn(),
        Some("pending confirmation")
    );
    let refusal = http()
        .attributes("RawMessageDelivery", "true")
        .send()
        .await
        .unwrap_err();
    assert_eq!(refusal.code(), Some("InvalidParameter"));
    let refusal = sns
        .subscribe()
        .topic_arn(&arn)
        .protocol("https")
        .endpoint(&endpoint)
        .send()
        .await
        .unwrap_err();
    assert_eq!(refusal.code(), Some("InvalidParameter"));

    let listed = async || {
        let by_topic = sns
            .list_subscriptions_by_topic()
            .topic_arn(&arn)
            .send()
            .await
            .unwrap();
        let all = sns.list_subscriptions().send().await.unwrap();
        assert_eq!(by_topic.subscriptions(), all.subscriptions());
        by_topic
            .subscriptions()
            .iter()
            .map(|each| each.subscription_arn().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        listed().await,
        ["PendingConfirmation", "PendingConfirmation"]
    );
    for pending in ["PendingConfirmation", &told] {
        let refusal = sns
            .unsubscribe()
            .subscription_arn(pending)
            .send()
            .await
            .unwrap_err();
        assert_eq!(refusal.code(), Some("InvalidParameter"), "{pending}");
    }
    let invited = pager_duty
        .wait(LIMIT, |record| {
            (record.confirmations.len() >= 3).then(|| record.confirmations[0].confirmed)
        })
        .await;
    assert!(!invited.unwrap());
    assert!(pager_duty.confirmed(KEY).is_empty());

    aws.confirm_mail(&arn, "oncall@vsu.example").await.unwrap();
    assert!(
        aws.confirm_mail(&arn, "oncall@vsu.example").await.is_err(),
        "nothing is left to confirm"
    );
    pager_duty.confirm_subscriptions(true);
    http().send().await.unwrap();
    pager_duty
        .wait(LIMIT, |record| {
            record
                .confirmations
                .iter()
                .find(|invitation| invitation.confirmed)
                .cloned()
        })
        .await
        .unwrap();
    let confirmed = listed().await;
    assert_eq!(confirmed[0], told);
    assert!(confirmed[1].starts_with(&arn));
    assert_eq!(
        http().send().await.unwrap().subscription_arn.as_ref(),
        Some(&told)
    );
    sns.unsubscribe()
        .subscription_arn(&told)
        .send()
        .await
        .unwrap();
    sns.unsubscribe()
        .subscription_arn(&told)
        .send()
        .await
        .unwrap();
    assert_eq!(listed().await.len(), 1);
    sns.delete_topic().topic_arn(&arn).send().await.unwrap();
    assert!(
        sns.list_subscriptions()
            .send()
            .await
            .unwrap()
            .subscriptions()
            .is_empty()
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

#[tokio::test]
async fn roles_are_assumed_only_with_the_external_id() {
    let (account, role) = ("100000000014", "arn:aws:iam::100000000014:role/campanile");
    let aws = aws().await;
    let sts = aws_sdk_sts::Client::new(&client_config(aws, OPERATOR_ACCOUNT, None));
    let assume = |external_id: &str| {
        sts.assume_role()
            .role_arn(role)
            .role_session_name("campanile")
            .external_id(external_id)
            .send()
    };
    let refusal = assume("a/b").await.unwrap_err();
    assert_eq!(
        (
            refusal.raw_response().unwrap().status().as_u16(),
            refusal.code()
        ),
        (403, Some("AccessDenied"))
    );
    assert!(refusal.message().unwrap().ends_with(&format!(
        "is not authorized to perform: sts:AssumeRole on resource: {role}"
    )));
    aws.role(role, Trust::external_id("a/b"));
    assert_eq!(
        assume("a/c").await.unwrap_err().code(),
        Some("AccessDenied")
    );
    let credentials = assume("a/b").await.unwrap().credentials.unwrap();

    let session = client_config(
        aws,
        &credentials.access_key_id,
        Some(&credentials.session_token),
    );
    let identity = aws_sdk_sts::Client::new(&session)
        .get_caller_identity()
        .send()
        .await
        .unwrap();
    assert_eq!(identity.account(), Some(account));
    assert_eq!(
        identity.arn(),
        Some("arn:aws:sts::100000000014:assumed-role/campanile/campanile")
    );
    put(&aws_sdk_cloudwatch::Client::new(&session), "by-role")
        .send()
        .await
        .unwrap();
    assert_eq!(
        alarms(&aws.cloudwatch(account, REGION)).await[0].alarm_name(),
        Some("by-role")
    );
    let call = aws
        .calls()
        .into_iter()
        .find(|call| call.account == account && call.operation == "PutMetricAlarm")
        .unwrap();
    assert_eq!(
        (call.service.as_str(), call.write, call.status),
        ("cloudwatch", true, Some(200))
    );
    assert_eq!(call.identity, identity.arn.unwrap());
    assert_eq!(
        call.resource,
        "arn:aws:cloudwatch:us-east-2:100000000014:alarm:by-role"
    );

    aws.role(role, Trust::external_id("a/b").landing_in("100000000015"));
    let credentials = assume("a/b").await.unwrap().credentials.unwrap();
    let elsewhere = client_config(
        aws,
        &credentials.access_key_id,
        Some(&credentials.session_token),
    );
    let identity = aws_sdk_sts::Client::new(&elsewhere)
        .get_caller_identity()
        .send()
        .await
        .unwrap();
    assert_eq!(identity.account(), Some("100000000015"));

    let stranger =
        aws_sdk_cloudwatch::Client::new(&client_config(aws, "AKIAIOSFODNN7EXAMPLE", None));
    let refusal = stranger.describe_alarms().send().await.unwrap_err();
    assert_eq!(
        (
            refusal.raw_response().unwrap().status().as_u16(),
            refusal.code()
        ),
        (403, Some("InvalidClientTokenId"))
    );
    aws.remove_role(role);
    assert_eq!(
        assume("a/b").await.unwrap_err().code(),
        Some("AccessDenied")
    );
}

#[tokio::test]
async fn troubles_come_and_go_and_are_counted() {
    let account = "100000000016";
    let aws = aws().await;
    let (ours, theirs) = (
        aws.cloudwatch(account, REGION),
        aws_sdk_cloudwatch::Client::new(&client_config(aws, account, None)),
    );
    let sns = aws_sdk_sns::Client::new(&client_config(aws, account, None));
    let mark = aws.mark();
    aws.deny(account, "PutMetricAlarm");
    let refusal = put(&theirs, "a").send().await.unwrap_err();
    assert_eq!(
        (
            refusal.raw_response().unwrap().status().as_u16(),
            refusal.code()
        ),
        (403, Some("AccessDenied"))
    );
    assert!(
        refusal
            .message()
            .unwrap()
            .contains("cloudwatch:PutMetricAlarm on resource: arn:aws:cloudwatch")
    );
    put(&ours, "ours").send().await.unwrap();
    aws.allow(account, "PutMetricAlarm");
    put(&theirs, "a").send().await.unwrap();

    aws.deny(account, "sns:CreateTopic");
    let refusal = sns.create_topic().name("t").send().await.unwrap_err();
    assert_eq!(refusal.code(), Some("AuthorizationError"));
    for (trouble, code, status) in [
        (Trouble::Throttle, "Throttling", 400),
        (Trouble::Fail5xx, "InternalFailure", 500),
    ] {
        aws.trouble_times(account, "DescribeAlarms", trouble, 1);
        let failure = theirs.describe_alarms().send().await.unwrap_err();
        assert_eq!(
            (
                failure.raw_response().unwrap().status().as_u16(),
                failure.code()
            ),
            (status, Some(code))
        );
        assert_eq!(alarms(&theirs).await.len(), 2);
    }
    aws.trouble_times(account, "PutMetricAlarm", Trouble::CutAfterCommit, 1);
    let cut = put(&theirs, "cut").send().await.unwrap_err();
    assert!(
        cut.raw_response().is_none() && cut.as_service_error().is_none(),
        "{cut:?}"
    );
    assert_eq!(alarms(&ours).await.len(), 3, "it was done all the same");

    let here = |operation: &str| {
        aws.count_since(mark, |call| {
            call.account == account && call.operation == operation
        })
    };
    assert_eq!(
        (
            here("PutMetricAlarm"),
            here("DescribeAlarms"),
            here("CreateTopic")
        ),
        (3, 4, 1)
    );
    let writes = aws
        .calls_since(mark)
        .into_iter()
        .filter(|call| call.account == account && call.write);
    let outcomes: Vec<_> = writes.map(|call| (call.status, call.error)).collect();
    let error = |code: &str| Some(code.to_owned());
    assert_eq!(
        outcomes,
        [
            (Some(403), error("AccessDenied")),
            (Some(200), None),
            (Some(403), error("AuthorizationError")),
            (None, None)
        ]
    );
}

#[tokio::test]
async fn two_of_them_stand_side_by_side() {
    let other = Aws::start(&run_dir("other")).await.unwrap();
    put(&other.cloudwatch("100000000017", REGION), "a")
        .send()
        .await
        .unwrap();
    assert!(
        alarms(&aws().await.cloudwatch("100000000017", REGION))
            .await
            .is_empty()
    );
}
