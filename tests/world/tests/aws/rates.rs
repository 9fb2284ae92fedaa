//! AWS's quotas of requests per second.

use aws_sdk_cloudwatch::error::ProvideErrorMetadata;
use aws_sdk_sns::types::Tag;
use futures::future::join_all;

use crate::{REGION, aws, client_config, put, topic};

#[tokio::test]
async fn rates_are_kept_to_while_they_are_limited() {
    // More at once than the quota lets through in the ten seconds that a call may take.
    const MANY: usize = 40;
    let account = "100000000020";
    let aws = aws().await;
    let ours = aws.cloudwatch(account, REGION);
    let config = client_config(aws, account, None);
    let theirs = aws_sdk_cloudwatch::Client::new(&config);
    let sns = aws_sdk_sns::Client::new(&config);
    aws.limit_rates(account);
    let mark = aws.mark();
    let puts = (0..MANY).map(|number| put(&theirs, &format!("a-{number}")).send());
    let (refused, done): (Vec<_>, Vec<_>) = join_all(puts)
        .await
        .into_iter()
        .partition(|answer| answer.is_err());
    assert!(!refused.is_empty() && done.len() >= 3, "{}", done.len());
    for refusal in refused {
        let refusal = refusal.unwrap_err();
        assert_eq!(refusal.raw_response().unwrap().status().as_u16(), 400);
        assert_eq!(refusal.code(), Some("Throttling"), "{refusal:?}");
        assert_eq!(refusal.message(), Some("Rate exceeded"));
    }
    let stored = ours.describe_alarms().max_records(100).send().await;
    let stored = stored.unwrap().metric_alarms().len();
    assert_eq!(stored, done.len(), "what was refused was not done");
    let count = |error: Option<&str>| {
        aws.count_since(mark, |call| {
            let error_is = call.error.as_deref() == error;
            call.account == account && call.operation == "PutMetricAlarm" && error_is
        })
    };
    assert_eq!(count(None), done.len());
    assert_eq!(count(Some("Throttling")), MANY - done.len());

    // SNS counts by itself. The next operation, the world's own clients and other accounts go on.
    let arn = topic(&sns, "t").await;
    let tag = Tag::builder().key("a").value("b").build().unwrap();
    let tags = (0..2 * MANY).map(|_| {
        sns.tag_resource()
            .resource_arn(&arn)
            .tags(tag.clone())
            .send()
    });
    let refusal = join_all(tags).await.into_iter().find_map(Result::err);
    let refusal = refusal.unwrap();
    assert_eq!(refusal.raw_response().unwrap().status().as_u16(), 400);
    assert_eq!(refusal.code(), Some("Throttling"), "{refusal:?}");
    sns.list_topics().send().await.unwrap();
    let other = client_config(aws, "100000000021", None);
    let other = aws_sdk_cloudwatch::Client::new(&other);
    for client in [&ours, &other] {
        for answer in join_all((0..8).map(|_| put(client, "b").send())).await {
            answer.unwrap();
        }
    }

    aws.lift_rates(account);
    for answer in join_all((0..8).map(|_| put(&theirs, "b").send())).await {
        answer.unwrap();
    }
}
