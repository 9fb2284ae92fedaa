//! Topics, and who has subscribed to them.

use aws_sdk_cloudwatch::error::ProvideErrorMetadata;
use aws_sdk_sns::types::Subscription;
use campanile_world::aws::Unsubscribed;
use campanile_world::pagerduty::PagerDuty;

use crate::{KEY, LIMIT, REGION, aws, client_config, topic};

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
async fn a_reader_confirms_and_ends_a_subscription_without_asking() {
    let account = "100000000030";
    let aws = aws().await;
    let config = client_config(aws, account, None);
    let sns = aws_sdk_sns::Client::new(&config);
    let arn = topic(&sns, "t").await;
    let reader = "oncall@vsu.example";
    let subscribe = async || {
        let subscribe = sns.subscribe().topic_arn(&arn).protocol("email");
        let answer = subscribe.endpoint(reader).send().await.unwrap();
        answer.subscription_arn.unwrap()
    };
    let listed = async || {
        let listed = sns.list_subscriptions_by_topic().topic_arn(&arn);
        let listed = listed.send().await.unwrap();
        let pair = |each: &Subscription| {
            let arn = each.subscription_arn().unwrap().to_owned();
            (each.endpoint().unwrap().to_owned(), arn)
        };
        listed.subscriptions().iter().map(pair).collect::<Vec<_>>()
    };
    let literal = |text: &str| vec![(reader.to_owned(), text.to_owned())];

    // Pending until the link is clicked, however often it is asked for; each time is on record.
    let mark = aws.mark();
    for _ in 0..3 {
        assert_eq!(subscribe().await, "pending confirmation");
        assert_eq!(listed().await, literal("PendingConfirmation"));
    }
    let asked = aws.count_since(mark, |call| {
        (call.operation.as_str(), call.resource.as_str()) == ("Subscribe", &arn)
    });
    assert_eq!(asked, 3);
    let unsubscribe = aws.unsubscribe_mail(&arn, reader, Unsubscribed::Gone);
    let refused = unsubscribe.await.unwrap_err();
    assert!(refused.to_string().contains("no confirmed subscription"));
    aws.confirm_mail(&arn, reader).await.unwrap();
    let confirmed = subscribe().await;
    assert!(confirmed.starts_with(&arn));
    assert_eq!(listed().await, literal(&confirmed));

    // AWS shows either nothing or that it was deleted.
    aws.unsubscribe_mail(&arn, reader, Unsubscribed::Gone)
        .await
        .unwrap();
    assert_eq!(listed().await, []);
    let attributes = sns.get_subscription_attributes();
    let attributes = attributes.subscription_arn(&confirmed).send().await;
    assert_eq!(attributes.unwrap_err().code(), Some("NotFound"));
    assert_eq!(subscribe().await, "pending confirmation");
    aws.confirm_mail(&arn, reader).await.unwrap();
    aws.unsubscribe_mail(&arn, reader, Unsubscribed::Deleted)
        .await
        .unwrap();
    assert_eq!(listed().await, literal("Deleted"));
    let refusal = sns.unsubscribe().subscription_arn("Deleted").send().await;
    assert_eq!(refusal.unwrap_err().code(), Some("InvalidParameter"));
    let ended = aws.unsubscribe_mail(&arn, reader, Unsubscribed::Gone).await;
    assert!(ended.is_err(), "nothing is left to end");

    assert_eq!(subscribe().await, "pending confirmation");
    assert_eq!(listed().await, literal("PendingConfirmation"));
    aws.confirm_mail(&arn, reader).await.unwrap();
    assert_ne!(listed().await, literal(&confirmed), "it is another one");
}

#[tokio::test]
async fn a_deleted_topic_takes_its_subscriptions_along() {
    let aws = aws().await;
    let sns = aws.sns("100000000031", REGION);
    let reader = "oncall@vsu.example";
    let arn = topic(&sns, "t").await;
    let other = topic(&sns, "other").await;
    for arn in [&arn, &other] {
        let subscribe = sns.subscribe().topic_arn(arn).protocol("email");
        subscribe.endpoint(reader).send().await.unwrap();
        aws.confirm_mail(arn, reader).await.unwrap();
    }
    let of = async |arn: &str| {
        let listed = sns.list_subscriptions_by_topic().topic_arn(arn);
        let listed = listed.send().await;
        listed.map(|listed| listed.subscriptions().to_vec())
    };
    let before = of(&arn).await.unwrap();
    let before = before[0].subscription_arn().unwrap();
    sns.delete_topic().topic_arn(&arn).send().await.unwrap();
    assert_eq!(of(&arn).await.unwrap_err().code(), Some("NotFound"));
    let all = sns.list_subscriptions().send().await.unwrap();
    let [left] = all.subscriptions() else {
        panic!("{all:?}")
    };
    assert_eq!(left.topic_arn(), Some(other.as_str()));
    let attributes = sns.get_subscription_attributes().subscription_arn(before);
    let attributes = attributes.send().await;
    assert_eq!(attributes.unwrap_err().code(), Some("NotFound"));

    // Making it again does not bring them back.
    assert_eq!(topic(&sns, "t").await, arn);
    assert!(of(&arn).await.unwrap().is_empty());
    assert!(aws.confirm_mail(&arn, reader).await.is_err());
}
