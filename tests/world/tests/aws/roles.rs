//! Who may assume a role, and what becomes of those who have.

use aws_config::SdkConfig;
use aws_sdk_cloudwatch::config::ProvideCredentials;
use aws_sdk_cloudwatch::error::ProvideErrorMetadata;
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::types::Credentials;
use campanile_world::aws::{Aws, OPERATOR_ACCOUNT, Trust};

use crate::{REGION, alarms, aws, client_config, put};

type Refused = aws_sdk_sts::error::SdkError<AssumeRoleError>;

/// Assumes the role as the operator does.
async fn assume(aws: &Aws, role: &str, external_id: &str) -> Result<Credentials, Refused> {
    let sts = aws_sdk_sts::Client::new(&client_config(aws, OPERATOR_ACCOUNT, None));
    let assume = sts.assume_role().role_arn(role).external_id(external_id);
    let answer = assume.role_session_name("campanile").send().await?;
    Ok(answer.credentials.unwrap())
}

/// The configuration of a client with that role.
async fn assumed(aws: &Aws, role: &str, external_id: &str) -> SdkConfig {
    let credentials = assume(aws, role, external_id).await.unwrap();
    let token = Some(credentials.session_token.as_str());
    client_config(aws, &credentials.access_key_id, token)
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
async fn a_role_that_may_only_read_is_denied_what_writes() {
    let (account, role) = ("100000000028", "arn:aws:iam::100000000028:role/campanile");
    let aws = aws().await;
    aws.role(role, Trust::external_id("a/b").read_only());
    let config = assumed(aws, role, "a/b").await;
    let cloudwatch = aws_sdk_cloudwatch::Client::new(&config);
    let sns = aws_sdk_sns::Client::new(&config);
    let mark = aws.mark();
    assert_eq!(alarms(&cloudwatch).await.len(), 0);
    sns.list_topics().send().await.unwrap();
    let refusal = put(&cloudwatch, "a").send().await.unwrap_err();
    assert_eq!(refusal.raw_response().unwrap().status().as_u16(), 403);
    assert_eq!(refusal.code(), Some("AccessDenied"));
    let expected = format!(
        "User: arn:aws:sts::{account}:assumed-role/campanile/campanile is not authorized to perform: \
         cloudwatch:PutMetricAlarm on resource: arn:aws:cloudwatch:{REGION}:{account}:alarm:a"
    );
    assert!(refusal.message().unwrap().starts_with(&expected));
    let refusal = sns.create_topic().name("t").send().await.unwrap_err();
    assert_eq!(refusal.raw_response().unwrap().status().as_u16(), 403);
    assert_eq!(refusal.code(), Some("AuthorizationError"));
    let calls = aws.calls_since(mark).into_iter();
    let calls = calls.filter(|call| call.account == account);
    let errors: Vec<_> = calls.map(|call| (call.write, call.error)).collect();
    let denied = |code: &str| (true, Some(code.to_owned()));
    assert_eq!(
        errors,
        [
            (false, None),
            (false, None),
            denied("AccessDenied"),
            denied("AuthorizationError")
        ]
    );

    // Permissions are asked for at every call: the same session may write as soon as its role may, and no longer.
    aws.role(role, Trust::external_id("a/b"));
    put(&cloudwatch, "a").send().await.unwrap();
    aws.role(role, Trust::external_id("a/b").read_only());
    let delete = cloudwatch.delete_alarms().alarm_names("a");
    assert_eq!(
        delete.send().await.unwrap_err().code(),
        Some("AccessDenied")
    );
    assert_eq!(alarms(&cloudwatch).await.len(), 1);
}

#[tokio::test]
async fn sessions_outlive_a_change_of_trust_but_not_their_role() {
    let (account, role) = ("100000000029", "arn:aws:iam::100000000029:role/campanile");
    let aws = aws().await;
    aws.role(role, Trust::external_id("a/b"));
    let config = assumed(aws, role, "a/b").await;
    let cloudwatch = aws_sdk_cloudwatch::Client::new(&config);
    let sns = aws_sdk_sns::Client::new(&config);
    put(&cloudwatch, "a").send().await.unwrap();

    // Trust is asked for when the role is assumed, and not again.
    aws.role(role, Trust::external_id("a/c"));
    put(&cloudwatch, "b").send().await.unwrap();
    let refusal = assume(aws, role, "a/b").await.unwrap_err();
    assert_eq!(refusal.code(), Some("AccessDenied"));
    let next = assumed(aws, role, "a/c").await;
    put(&aws_sdk_cloudwatch::Client::new(&next), "c")
        .send()
        .await
        .unwrap();

    // With the role go its sessions, and the next role of that name is another.
    aws.remove_role(role);
    let mark = aws.mark();
    for _ in 0..2 {
        let refusal = cloudwatch.describe_alarms().send().await.unwrap_err();
        assert_eq!(refusal.raw_response().unwrap().status().as_u16(), 403);
        assert_eq!(refusal.code(), Some("InvalidClientTokenId"));
        let refusal = sns.list_topics().send().await.unwrap_err();
        assert_eq!(refusal.raw_response().unwrap().status().as_u16(), 403);
        assert_eq!(refusal.code(), Some("InvalidClientTokenId"));
        aws.role(role, Trust::external_id("a/b"));
    }
    let key = config.credentials_provider().unwrap();
    let key = key.provide_credentials().await.unwrap();
    let refused = aws.count_since(mark, |call| {
        let invalid = call.error.as_deref() == Some("InvalidClientTokenId");
        call.access_key_id == key.access_key_id() && invalid
    });
    assert_eq!(refused, 4);
    let again = assumed(aws, role, "a/b").await;
    let again = aws_sdk_cloudwatch::Client::new(&again);
    assert_eq!(alarms(&again).await.len(), 3);
    assert_eq!(alarms(&aws.cloudwatch(account, REGION)).await.len(), 3);
}
