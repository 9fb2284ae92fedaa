//! What goes wrong on demand.

use aws_sdk_cloudwatch::error::ProvideErrorMetadata;
use campanile_world::aws::Trouble;

use crate::{REGION, alarms, aws, client_config, put};

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
