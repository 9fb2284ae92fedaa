//! Listings in pages.

use std::collections::BTreeSet;

use aws_sdk_cloudwatch::error::ProvideErrorMetadata;
use campanile_world::aws::Trouble;

use crate::{REGION, aws, client_config, put, topic};

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
async fn a_hundred_names_are_answered_whole() {
    let client = aws().await.cloudwatch("100000000022", REGION);
    let names: Vec<String> = (0..100).map(|number| format!("n-{number:03}")).collect();
    for name in &names {
        put(&client, name).send().await.unwrap();
    }
    // Without MaxRecords AWS answers fifty of them at a time, and the NextToken goes with the same names.
    for size in [None, Some(30), Some(100)] {
        let asked = client
            .describe_alarms()
            .set_alarm_names(Some(names.clone()));
        let pages = asked.set_max_records(size).into_paginator().send();
        let pages: Vec<_> = pages.try_collect().await.unwrap();
        let found = pages.iter().flat_map(|page| page.metric_alarms());
        let found: Vec<_> = found.map(|alarm| alarm.alarm_name().unwrap()).collect();
        assert_eq!(found, names, "{size:?}");
        let size = usize::try_from(size.unwrap_or(50)).unwrap();
        assert_eq!(pages.len(), 100_usize.div_ceil(size));
    }
}

#[tokio::test]
async fn pages_are_as_short_as_told() {
    let account = "100000000023";
    let aws = aws().await;
    let config = client_config(aws, account, None);
    let cloudwatch = aws_sdk_cloudwatch::Client::new(&config);
    let sns = aws_sdk_sns::Client::new(&config);
    let arn = topic(&sns, "t").await;
    for number in 0..5 {
        put(&cloudwatch, &format!("a-{number}"))
            .send()
            .await
            .unwrap();
        let subscribe = sns.subscribe().topic_arn(&arn).protocol("email");
        let subscribe = subscribe.endpoint(format!("{number}@vsu.example"));
        subscribe.send().await.unwrap();
    }
    aws.trouble(account, "DescribeAlarms", Trouble::ShortPages(2));
    let of_alarms = async || {
        let pages = cloudwatch.describe_alarms().max_records(100);
        let pages = pages.into_paginator().send();
        let pages: Vec<_> = pages.try_collect().await.unwrap();
        pages
            .iter()
            .map(|page| page.metric_alarms().len())
            .collect::<Vec<_>>()
    };
    assert_eq!(of_alarms().await, [2, 2, 1]);
    for operation in [
        "ListSubscriptionsByTopic",
        "ListSubscriptions",
        "ListTopics",
    ] {
        aws.trouble(account, operation, Trouble::ShortPages(2));
    }
    let pages = sns.list_subscriptions_by_topic().topic_arn(&arn);
    let pages = pages.into_paginator().send();
    let pages: Vec<_> = pages.try_collect().await.unwrap();
    let sizes: Vec<_> = pages
        .iter()
        .map(|page| page.subscriptions().len())
        .collect();
    assert_eq!(sizes, [2, 2, 1]);
    let endpoints = pages.iter().flat_map(|page| page.subscriptions());
    let endpoints: BTreeSet<_> = endpoints.map(|each| each.endpoint().unwrap()).collect();
    assert_eq!(endpoints.len(), 5);
    let first = sns.list_subscriptions().send().await.unwrap();
    assert_eq!(first.subscriptions().len(), 2);
    for name in ["u", "v"] {
        topic(&sns, name).await;
    }
    let first = sns.list_topics().send().await.unwrap();
    assert_eq!((first.topics().len(), first.next_token()), (2, Some("2")));

    // Others have their pages as ever, and so have all once it is over.
    let ours = aws.cloudwatch(account, REGION);
    assert_eq!(crate::alarms(&ours).await.len(), 5);
    aws.allow(account, "DescribeAlarms");
    assert_eq!(of_alarms().await, [5]);
}

#[tokio::test]
async fn a_listing_can_break_off() {
    let account = "100000000024";
    let aws = aws().await;
    let config = client_config(aws, account, None);
    let cloudwatch = aws_sdk_cloudwatch::Client::new(&config);
    let sns = aws_sdk_sns::Client::new(&config);
    let arn = topic(&sns, "t").await;
    for number in 0..3 {
        put(&cloudwatch, &format!("a-{number}"))
            .send()
            .await
            .unwrap();
        let subscribe = sns.subscribe().topic_arn(&arn).protocol("email");
        let subscribe = subscribe.endpoint(format!("{number}@vsu.example"));
        subscribe.send().await.unwrap();
    }
    for operation in ["DescribeAlarms", "ListSubscriptionsByTopic"] {
        aws.trouble(account, operation, Trouble::ShortPages(2));
        aws.trouble_times(account, operation, Trouble::FailLaterPages, 1);
    }
    let mark = aws.mark();
    let alarms = async |token: Option<String>| {
        let page = cloudwatch.describe_alarms().set_next_token(token);
        page.send().await
    };
    let first = alarms(None).await.unwrap();
    assert_eq!(first.metric_alarms().len(), 2);
    let failure = alarms(first.next_token.clone()).await.unwrap_err();
    assert_eq!(failure.raw_response().unwrap().status().as_u16(), 500);
    assert_eq!(failure.code(), Some("InternalFailure"));
    let second = alarms(first.next_token).await.unwrap();
    assert_eq!(
        (second.metric_alarms().len(), second.next_token()),
        (1, None)
    );

    let subscriptions = async |token: Option<String>| {
        let page = sns.list_subscriptions_by_topic().topic_arn(&arn);
        page.set_next_token(token).send().await
    };
    let first = subscriptions(None).await.unwrap();
    let failure = subscriptions(first.next_token.clone()).await.unwrap_err();
    assert_eq!(failure.code(), Some("InternalFailure"));
    let second = subscriptions(first.next_token).await.unwrap();
    assert_eq!(second.subscriptions().len(), 1);

    let calls = aws.calls_since(mark).into_iter();
    let statuses: Vec<_> = calls
        .filter(|call| call.account == account)
        .map(|call| call.status)
        .collect();
    let [good, bad] = [Some(200), Some(500)];
    assert_eq!(statuses, [good, bad, good, good, bad, good]);
}

#[tokio::test]
#[should_panic = "the pages of cloudwatch:ListTagsForResource cannot be made shorter"]
async fn what_the_emulator_answers_in_one_page_is_not_made_shorter() {
    let trouble = Trouble::ShortPages(2);
    let operation = "cloudwatch:ListTagsForResource";
    aws().await.trouble("100000000025", operation, trouble);
}
