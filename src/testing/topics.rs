//! The attributes of a tenant's topics: what somebody sets there is told, and put back.

use super::{
    Operator, World,
    alarm_sets::tenant,
    operator::{ACCOUNT, POLL},
    troubles::refuse,
};
use crate::{
    api::TenantObservability,
    kinds::tenant::attributes::{TOPIC, Upkeep},
};
use serde_json::{Value as Json, json};

/// Two of the slow polls, which are those of topics.
const TWO_POLLS: std::time::Duration = POLL.saturating_mul(21);

async fn applied(more: Json) -> (World, Operator) {
    let world = World::new();
    let operator = Operator::new(&world);
    apply(&world, more);
    operator.converge().await;
    world.calls.clear();
    operator.woken();
    (world, operator)
}

fn apply(world: &World, more: Json) {
    let mut spec = tenant();
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    world.apply("TenantObservability", "vsu", spec);
}

/// The only topic there is, and its attributes.
fn topic(world: &World) -> (String, Json) {
    let mut things = world.aws.things(":sns:").into_iter();
    let (arn, topic) = things.next().unwrap();
    assert_eq!(arn.split(':').count(), 6, "{arn}");
    (arn, topic["Attributes"].clone())
}

fn set(world: &World, name: &str, value: Json) {
    let (arn, _) = topic(world);
    world
        .aws
        .edit(&arn, |topic| topic["Attributes"][name] = value);
}

async fn polled(operator: &Operator) {
    tokio::time::sleep(TWO_POLLS).await;
    drop(operator.reconcile::<TenantObservability>("vsu").await);
}

fn is(world: &World, condition: &str) -> (String, String) {
    let conditions = world.status::<TenantObservability>("vsu", "/conditions");
    let mut all = conditions.as_array().unwrap().iter();
    let found = all.find(|it| it["type"] == condition).unwrap();
    let message = found["message"].as_str().unwrap().to_owned();
    (
        world.condition::<TenantObservability>("vsu", condition),
        message,
    )
}

#[tokio::test(start_paused = true)]
async fn what_somebody_sets_on_a_topic_is_told_and_put_back_or_theirs() {
    let values = |name: &str| match name {
        "KmsMasterKeyId" => "alias/aws/sns",
        "DeliveryPolicy" => r#"{"http":{"defaultHealthyRetryPolicy":{"numRetries":0}}}"#,
        "MaximumMessageSize" => "1024",
        "SignatureVersion" => "2",
        "Policy" => r#"{"Statement":[]}"#,
        _ => "something",
    };
    let (world, operator) = applied(json!({})).await;
    let (_, before) = topic(&world);
    for (name, upkeep) in TOPIC {
        world.calls.clear();
        set(&world, name, json!(values(name)));
        polled(&operator).await;
        let sets = world.calls.count("sns:SetTopicAttributes");
        let (_, after) = topic(&world);
        match upkeep {
            Upkeep::Theirs | Upkeep::Elsewhere => {
                assert_eq!((sets, &after[name]), (0, &json!(values(name))), "{name}");
                set(&world, name, Json::Null);
            }
            _ => {
                assert_eq!(sets, 1, "{name}");
                let (drifted, told) = is(&world, "Drifted");
                assert_eq!(drifted, "False DriftRepaired", "{name}");
                let field = if *name == "Policy" { "policy" } else { name };
                assert!(told.contains(field), "{name}: {told}");
            }
        }
    }
    let (_, after) = topic(&world);
    for (name, upkeep) in TOPIC {
        match upkeep {
            Upkeep::Declared("") | Upkeep::Default("") => assert!(after[name].is_null(), "{name}"),
            Upkeep::Default(default) => assert_eq!(after[name], *default, "{name}"),
            _ => assert_eq!(after[name], before[name], "{name}"),
        }
    }
    world.calls.clear();
    polled(&operator).await;
    assert_eq!(world.calls.writes(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn while_cloudwatch_cannot_publish_delivery_is_not_ready() {
    let (world, operator) = applied(json!({"driftPolicy": "Report"})).await;
    assert_eq!(is(&world, "DeliveryReady").0, "False PendingConfirmation");
    set(&world, "KmsMasterKeyId", json!("alias/aws/sns"));
    polled(&operator).await;
    let (drifted, told) = is(&world, "Drifted");
    assert_eq!(drifted, "True DriftReported");
    assert!(
        told.contains("KmsMasterKeyId: value was alias/aws/sns"),
        "{told}"
    );
    let (ready, told) = is(&world, "DeliveryReady");
    assert_eq!(ready, "False TopicEncrypted");
    assert!(told.contains("CloudWatch can never use"), "{told}");
    assert_eq!(is(&world, "Ready").0, "True Applied");
    set(&world, "KmsMasterKeyId", Json::Null);
    polled(&operator).await;
    assert_eq!(is(&world, "DeliveryReady").0, "False PendingConfirmation");
    assert_eq!(is(&world, "Drifted").0, "False AsApplied");

    // The same where it is to be put back and may not be.
    apply(&world, json!({}));
    operator.converge().await;
    refuse(
        &world,
        "sns:SetTopicAttributes",
        "",
        403,
        "AuthorizationError",
    );
    set(&world, "KmsMasterKeyId", json!("alias/aws/sns"));
    set(&world, "MaximumMessageSize", json!("1024"));
    polled(&operator).await;
    assert_eq!(is(&world, "Ready").0, "False AccessDenied");
    let (ready, told) = is(&world, "DeliveryReady");
    assert_eq!(ready, "False TopicEncrypted");
    assert!(told.contains("more than 1024 bytes"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_declared_is_set_from_the_first_moment_and_with_every_edit() {
    let key = |id: &str| format!("arn:aws:kms:us-east-2:{ACCOUNT}:key/{id}");
    let with = |key: Option<String>| {
        let mut notify = tenant()["notify"].clone();
        if let Some(key) = key {
            notify["encryptionKeyArn"] = json!(key);
        }
        json!({ "notify": notify })
    };
    let world = World::new();
    let operator = Operator::new(&world);
    apply(&world, with(Some(key("a"))));
    operator.converge().await;
    assert_eq!(topic(&world).1["KmsMasterKeyId"], key("a"));
    assert_eq!(world.calls.count("sns:SetTopicAttributes"), 0);
    let (ready, told) = is(&world, "DeliveryReady");
    assert_eq!(ready, "False PendingConfirmation");
    assert!(
        told.contains("do kms:GenerateDataKey* and kms:Decrypt"),
        "{told}"
    );

    apply(&world, with(Some(key("b"))));
    operator.converge().await;
    assert_eq!(topic(&world).1["KmsMasterKeyId"], key("b"));
    assert_eq!(world.calls.count("sns:SetTopicAttributes"), 1);
    // Somebody takes it off: CloudWatch can publish as before.
    set(&world, "KmsMasterKeyId", Json::Null);
    polled(&operator).await;
    assert_eq!(is(&world, "Drifted").0, "False DriftRepaired");
    assert_eq!(topic(&world).1["KmsMasterKeyId"], key("b"));

    apply(&world, with(None));
    operator.converge().await;
    assert_eq!(topic(&world).1["KmsMasterKeyId"], Json::Null);
    assert!(!is(&world, "DeliveryReady").1.contains("kms:"));
}
