//! EventBridge connections and API destinations.

use aws_sdk_eventbridge::error::ProvideErrorMetadata;
use aws_sdk_eventbridge::types::{
    ApiDestinationHttpMethod, ApiDestinationState, ConnectionAuthorizationType, ConnectionState,
    UpdateConnectionApiKeyAuthRequestParameters, UpdateConnectionAuthRequestParameters,
};
use campanile_world::aws::{OPERATOR_ACCOUNT, Trouble, Trust};

use crate::path::{Path, api_key};
use crate::{REGION, client_config};

fn new_value(value: &str) -> UpdateConnectionAuthRequestParameters {
    let key = UpdateConnectionApiKeyAuthRequestParameters::builder().api_key_value(value);
    UpdateConnectionAuthRequestParameters::builder()
        .api_key_auth_parameters(key.build())
        .build()
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text
            .bytes()
            .all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

#[tokio::test]
async fn a_connection_keeps_its_value_to_itself() {
    let path = Path::new("100000000055").await;
    let events = &path.events;
    let create = events
        .create_connection()
        .name("c")
        .description("ours")
        .authorization_type(ConnectionAuthorizationType::ApiKey)
        .auth_parameters(api_key("Authorization", "Bearer canary-value"));
    let created = create.clone().send().await.unwrap();
    assert_eq!(
        created.connection_state(),
        Some(&ConnectionState::Authorized)
    );
    assert!(created.creation_time().is_some() && created.last_modified_time().is_some());
    let arn = created.connection_arn.unwrap();
    let id = arn.strip_prefix(&format!(
        "arn:aws:events:{REGION}:{}:connection/c/",
        path.account
    ));
    assert!(id.is_some_and(is_uuid), "{arn}");
    let again = create.send().await.unwrap_err();
    assert!(
        again
            .as_service_error()
            .unwrap()
            .is_resource_already_exists_exception()
    );

    let describe = async || events.describe_connection().name("c").send().await.unwrap();
    let found = describe().await;
    assert!(!format!("{found:?}").contains("canary"));
    assert_eq!(
        (found.connection_arn(), found.description()),
        (Some(arn.as_str()), Some("ours"))
    );
    let key = found
        .auth_parameters()
        .unwrap()
        .api_key_auth_parameters()
        .unwrap();
    assert_eq!(key.api_key_name(), Some("Authorization"));
    let secret = found.secret_arn().unwrap();
    let expected = format!(
        "arn:aws:secretsmanager:{REGION}:{}:secret:events!connection/c/",
        path.account
    );
    let id = secret.strip_prefix(&expected).unwrap();
    assert!(is_uuid(&id[..36]), "{secret}");

    // An update changes what it names, and no identity.
    let update = events.update_connection().name("c");
    let updated = update
        .auth_parameters(new_value("Bearer other"))
        .send()
        .await
        .unwrap();
    assert_eq!(updated.connection_arn(), Some(arn.as_str()));
    assert_eq!(
        updated.connection_state(),
        Some(&ConnectionState::Authorized)
    );
    let after = describe().await;
    assert_eq!(
        (after.secret_arn(), after.description()),
        (found.secret_arn(), Some("ours"))
    );
    assert_eq!(after.auth_parameters(), found.auth_parameters());

    // Deauthorized by hand, it is authorized again by new parameters alone.
    let state = async || describe().await.connection_state.unwrap();
    events
        .deauthorize_connection()
        .name("c")
        .send()
        .await
        .unwrap();
    assert_eq!(state().await, ConnectionState::Deauthorized);
    let update = events.update_connection().name("c");
    update.clone().description("theirs").send().await.unwrap();
    assert_eq!(state().await, ConnectionState::Deauthorized);
    update
        .auth_parameters(new_value("Bearer other"))
        .send()
        .await
        .unwrap();
    assert_eq!(state().await, ConnectionState::Authorized);

    // The next one of that name is another.
    events.delete_connection().name("c").send().await.unwrap();
    assert_ne!(path.connection("c", "Bearer key").await, arn);
}

#[tokio::test]
async fn a_destination_is_active_while_its_connection_is_authorized() {
    let path = Path::new("100000000056").await;
    let events = &path.events;
    let connection = path.connection("c", "Bearer key").await;
    let create = events
        .create_api_destination()
        .name("d")
        .description("ours")
        .connection_arn(&connection)
        .invocation_endpoint("https://slack.com/api/chat.postMessage")
        .http_method(ApiDestinationHttpMethod::Post);
    let created = create.clone().send().await.unwrap();
    assert_eq!(
        created.api_destination_state(),
        Some(&ApiDestinationState::Active)
    );
    let arn = created.api_destination_arn.unwrap();
    let id = arn.strip_prefix(&format!(
        "arn:aws:events:{REGION}:{}:api-destination/d/",
        path.account
    ));
    assert!(id.is_some_and(is_uuid), "{arn}");
    let again = create.clone().send().await.unwrap_err();
    assert!(
        again
            .as_service_error()
            .unwrap()
            .is_resource_already_exists_exception()
    );
    let describe = async || {
        events
            .describe_api_destination()
            .name("d")
            .send()
            .await
            .unwrap()
    };
    let found = describe().await;
    assert_eq!(found.api_destination_arn(), Some(arn.as_str()));
    assert_eq!(found.connection_arn(), Some(connection.as_str()));
    assert_eq!(found.description(), Some("ours"));
    assert_eq!(
        found.invocation_endpoint(),
        Some("https://slack.com/api/chat.postMessage")
    );
    assert_eq!(found.invocation_rate_limit_per_second(), Some(300));

    let update = events.update_api_destination().name("d");
    let update = update
        .invocation_rate_limit_per_second(1)
        .invocation_endpoint("https://hooks.slack.com/services/x");
    let updated = update.send().await.unwrap();
    assert_eq!(updated.api_destination_arn(), Some(arn.as_str()));
    let found = describe().await;
    assert_eq!(
        (
            found.description(),
            found.invocation_rate_limit_per_second()
        ),
        (Some("ours"), Some(1))
    );
    assert_eq!(
        found.invocation_endpoint(),
        Some("https://hooks.slack.com/services/x")
    );

    let state = async || describe().await.api_destination_state.unwrap();
    events
        .deauthorize_connection()
        .name("c")
        .send()
        .await
        .unwrap();
    assert_eq!(state().await, ApiDestinationState::Inactive);
    let update = events
        .update_connection()
        .name("c")
        .auth_parameters(new_value("v"));
    update.send().await.unwrap();
    // A connection in use can be deleted; the destination does not follow the next one of that name.
    assert_eq!(state().await, ApiDestinationState::Active);
    events.delete_connection().name("c").send().await.unwrap();
    assert_eq!(state().await, ApiDestinationState::Inactive);
    let second = path.connection("c", "Bearer key").await;
    assert_eq!(state().await, ApiDestinationState::Inactive);
    let update = events
        .update_api_destination()
        .name("d")
        .connection_arn(&second);
    update.send().await.unwrap();
    assert_eq!(state().await, ApiDestinationState::Active);

    let missing = create.name("e").send().await.unwrap_err();
    assert!(
        missing
            .as_service_error()
            .unwrap()
            .is_resource_not_found_exception()
    );
    let plain = events.update_api_destination().name("d");
    let refused = plain
        .invocation_endpoint("http://example.com/")
        .send()
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Some("ValidationException"));
}

#[tokio::test]
async fn what_is_not_there_is_said_so() {
    let path = Path::new("100000000057").await;
    let events = &path.events;
    let code = |error: &dyn ProvideErrorMetadata| error.code().map(str::to_owned);
    let codes = [
        code(
            &events
                .describe_connection()
                .name("x")
                .send()
                .await
                .unwrap_err(),
        ),
        code(
            &events
                .update_connection()
                .name("x")
                .send()
                .await
                .unwrap_err(),
        ),
        code(
            &events
                .deauthorize_connection()
                .name("x")
                .send()
                .await
                .unwrap_err(),
        ),
        code(
            &events
                .delete_connection()
                .name("x")
                .send()
                .await
                .unwrap_err(),
        ),
        code(
            &events
                .describe_api_destination()
                .name("x")
                .send()
                .await
                .unwrap_err(),
        ),
        code(
            &events
                .update_api_destination()
                .name("x")
                .send()
                .await
                .unwrap_err(),
        ),
        code(
            &events
                .delete_api_destination()
                .name("x")
                .send()
                .await
                .unwrap_err(),
        ),
    ];
    for code in codes {
        assert_eq!(code.as_deref(), Some("ResourceNotFoundException"));
    }
    let long = "x".repeat(513);
    let create = events
        .create_connection()
        .name("c")
        .authorization_type(ConnectionAuthorizationType::ApiKey);
    let refused = create
        .auth_parameters(api_key("Authorization", &long))
        .send()
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Some("ValidationException"));
    assert!(!refused.message().unwrap().contains(&long));
}

#[tokio::test]
async fn listings_of_connections_and_destinations_come_in_pages() {
    let account = "100000000058";
    let path = Path::new(account).await;
    let names = [
        "campanile_a_1",
        "campanile_a_2",
        "campanile_a_3",
        "campanile_b",
    ];
    for name in names {
        path.destination(name, "https://slack.com/x", Some(1)).await;
    }
    let theirs = aws_sdk_eventbridge::Client::new(&client_config(path.aws, account, None));
    for operation in ["ListConnections", "ListApiDestinations"] {
        path.aws.trouble(account, operation, Trouble::ShortPages(2));
    }
    let connections = async |token: Option<String>| {
        let list = theirs
            .list_connections()
            .name_prefix("campanile_a_")
            .set_next_token(token);
        let page = list.send().await.unwrap();
        let names = page
            .connections()
            .iter()
            .map(|each| each.name().unwrap().to_owned());
        (names.collect::<Vec<_>>(), page.next_token)
    };
    let destinations = async |token: Option<String>| {
        let list = theirs
            .list_api_destinations()
            .name_prefix("campanile_a_")
            .set_next_token(token);
        let page = list.send().await.unwrap();
        let found = page.api_destinations();
        assert!(
            found
                .iter()
                .all(|each| each.invocation_rate_limit_per_second() == Some(1))
        );
        let names = found.iter().map(|each| each.name().unwrap().to_owned());
        (names.collect::<Vec<_>>(), page.next_token)
    };
    let (first, token) = connections(None).await;
    assert_eq!(first, names[..2]);
    assert_eq!(connections(token).await, (vec![names[2].to_owned()], None));
    let (first, token) = destinations(None).await;
    assert_eq!(first, names[..2]);
    assert_eq!(destinations(token).await, (vec![names[2].to_owned()], None));
    let state = theirs
        .list_connections()
        .connection_state(ConnectionState::Deauthorized);
    assert_eq!(state.send().await.unwrap().connections(), []);
}

#[tokio::test]
async fn a_role_works_in_its_own_account_and_only_as_it_may() {
    let (account, role) = ("100000000059", "arn:aws:iam::100000000059:role/campanile");
    let path = Path::new(account).await;
    path.aws.role(role, Trust::external_id("a/b"));
    let sts = aws_sdk_sts::Client::new(&client_config(path.aws, OPERATOR_ACCOUNT, None));
    let assume = sts.assume_role().role_arn(role).external_id("a/b");
    let assumed = assume.role_session_name("campanile").send().await.unwrap();
    let session = assumed.credentials.unwrap();
    let config = client_config(
        path.aws,
        &session.access_key_id,
        Some(&session.session_token),
    );
    let theirs = aws_sdk_eventbridge::Client::new(&config);
    let create = |name: &str| {
        theirs
            .create_connection()
            .name(name)
            .authorization_type(ConnectionAuthorizationType::ApiKey)
            .auth_parameters(api_key("Authorization", "Bearer key"))
    };
    create("c").send().await.unwrap();
    assert!(
        path.events
            .describe_connection()
            .name("c")
            .send()
            .await
            .is_ok()
    );

    path.aws.role(role, Trust::external_id("a/b").read_only());
    theirs.describe_connection().name("c").send().await.unwrap();
    theirs.list_rules().send().await.unwrap();
    let refused = create("d").send().await.unwrap_err();
    assert_eq!(refused.raw_response().unwrap().status().as_u16(), 400);
    assert_eq!(refused.code(), Some("AccessDeniedException"));
    let expected = format!(
        "events:CreateConnection on resource: arn:aws:events:{REGION}:{account}:connection/d"
    );
    assert!(
        refused.message().unwrap().contains(&expected),
        "{refused:?}"
    );

    // Its troubles and its quota are EventBridge's.
    path.aws.role(role, Trust::external_id("a/b"));
    path.aws
        .trouble_times(account, "events:ListRules", Trouble::Throttle, 1);
    let refused = theirs.list_rules().send().await.unwrap_err();
    assert_eq!(refused.code(), Some("ThrottlingException"));
    path.aws.limit_rates(account);
    let calls = futures::future::join_all((0..200).map(|_| theirs.list_rules().send())).await;
    path.aws.lift_rates(account);
    let refused: Vec<_> = calls.into_iter().filter_map(Result::err).collect();
    assert!(!refused.is_empty(), "more than fifty in a second");
    assert!(
        refused
            .iter()
            .all(|error| error.code() == Some("ThrottlingException"))
    );
}

#[tokio::test]
async fn a_secret_is_seen_wherever_it_goes() {
    let account = "100000000060";
    let path = Path::new(account).await;
    let (sent, kept) = ("xoxb-1234-canary/+\"60", "xoxb-1234-never-sent60");
    for secret in [sent, kept] {
        path.aws.watch_for(secret);
    }
    assert_eq!(path.aws.seen(sent), Vec::<String>::new());
    path.connection("c", &format!("Bearer {sent}")).await;
    path.aws
        .cloudwatch(account, REGION)
        .describe_alarms()
        .alarm_name_prefix(sent)
        .send()
        .await
        .unwrap();
    let topic = path
        .aws
        .sns(account, REGION)
        .create_topic()
        .name("t")
        .send()
        .await
        .unwrap();
    let publish = path
        .aws
        .sns(account, REGION)
        .publish()
        .message(format!("of {sent}"));
    publish
        .topic_arn(topic.topic_arn.unwrap())
        .send()
        .await
        .unwrap();
    let expected = [
        "events:CreateConnection",
        "cloudwatch:DescribeAlarms",
        "sns:Publish",
    ];
    assert_eq!(
        path.aws.seen(sent),
        expected.map(|call| format!("{account} {call}"))
    );
    assert_eq!(path.aws.seen(kept), Vec::<String>::new());
}
