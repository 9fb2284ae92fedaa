//! The attributes of a tenant's topics and of who hears them: what somebody sets there is told, and put back. Who hears
//! of which change of state.

use super::{
    Fault, Operator, World,
    alarm_sets::{alarms, tenant},
    operator::{ACCOUNT, POLL},
    troubles::refuse,
};
use crate::{
    api::{AlarmSet, TenantObservability},
    kinds::tenant::attributes::{SUBSCRIPTION, TOPIC, Upkeep},
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

/// A tenant with a reader and a pager, both of whom have confirmed and whose attributes were looked at.
async fn heard(more: Json) -> (World, Operator, Vec<String>) {
    let world = World::new();
    let operator = Operator::new(&world);
    world.secret("pager", "key", "0123456789abcdef0123456789abcdef");
    let mut all = json!({"notify": {"warning": {
        "emails": ["platform@vsu.example"],
        "pagerDuty": [{"name": "primary", "integrationKeySecretRef": {"name": "pager", "key": "key"}}]
    }}});
    all.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    apply(&world, all);
    operator.converge().await;
    let subscriptions = world.aws.confirm();
    assert_eq!(subscriptions.len(), 2);
    polled(&operator).await;
    operator.converge().await;
    assert_eq!(is(&world, "DeliveryReady").0, "True Delivering");
    world.calls.clear();
    (world, operator, subscriptions)
}

#[tokio::test(start_paused = true)]
async fn what_somebody_sets_on_a_subscription_is_told_and_put_back_or_theirs() {
    let values = |name: &str| match name {
        "FilterPolicy" => r#"{"store":["none"]}"#,
        "FilterPolicyScope" => "Another",
        "DeliveryPolicy" => r#"{"throttlePolicy":{"maxReceivesPerSecond":1}}"#,
        "RawMessageDelivery" => "true",
        _ => "something",
    };
    let (world, operator, subscriptions) = heard(json!({})).await;
    let attributes = |arn: &str| world.aws.things(arn)[arn]["Attributes"].clone();
    for arn in &subscriptions {
        for (name, upkeep) in SUBSCRIPTION {
            world.calls.clear();
            let before = attributes(arn);
            let set = |value: Json| {
                world.aws.edit(arn, |it| {
                    if it["Attributes"].is_null() {
                        it["Attributes"] = json!({});
                    }
                    it["Attributes"][name] = value;
                });
            };
            set(json!(values(name)));
            polled(&operator).await;
            let sets = world.calls.count("sns:SetSubscriptionAttributes");
            let after = attributes(arn);
            match upkeep {
                Upkeep::Theirs | Upkeep::Elsewhere => {
                    assert_eq!((sets, &after[name]), (0, &json!(values(name))), "{name}");
                    set(Json::Null);
                }
                Upkeep::Declared(default) | Upkeep::Default(default) => {
                    assert_eq!(sets, 1, "{name}");
                    let now = after[name].as_str().unwrap_or(default);
                    assert_eq!(now, before[name].as_str().unwrap_or(default), "{name}");
                    let (drifted, told) = is(&world, "Drifted");
                    assert_eq!(drifted, "False DriftRepaired", "{name}");
                    assert!(told.contains(name), "{name}: {told}");
                }
                Upkeep::OfTopic => unreachable!("{name}"),
            }
        }
    }
    // What that costs while nothing happens.
    world.calls.clear();
    tokio::time::sleep(TWO_POLLS).await;
    let reads = world.calls.count("sns:GetSubscriptionAttributes");
    assert!((2..=6).contains(&reads), "{reads}");
    assert_eq!(world.calls.writes(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn while_a_subscription_is_filtered_or_raw_delivery_is_not_ready() {
    let (world, operator, subscriptions) = heard(json!({"driftPolicy": "Report"})).await;
    for (name, value, says) in [
        (
            "FilterPolicy",
            r#"{"store":["none"]}"#,
            "another filter policy than ours",
        ),
        ("RawMessageDelivery", "true", "alarms come raw"),
    ] {
        let arn = &subscriptions[0];
        let before = world.aws.things(arn)[arn].clone();
        world.aws.edit(arn, |it| {
            if it["Attributes"].is_null() {
                it["Attributes"] = json!({});
            }
            it["Attributes"][name] = json!(value);
        });
        polled(&operator).await;
        assert_eq!(is(&world, "Drifted").0, "True DriftReported", "{name}");
        let (ready, told) = is(&world, "DeliveryReady");
        assert_eq!(ready, "False SubscriptionNotAsDeclared", "{name}");
        assert!(told.contains(says), "{told}");
        world.aws.edit(arn, |it| *it = before);
        polled(&operator).await;
        assert_eq!(is(&world, "DeliveryReady").0, "True Delivering", "{name}");
    }
}

/// Roles that were made before these calls were do not have them.
#[tokio::test(start_paused = true)]
async fn a_role_that_may_not_look_at_subscriptions_or_set_them_goes_on_as_before() {
    for denied in [
        "sns:GetSubscriptionAttributes",
        "sns:SetSubscriptionAttributes",
    ] {
        let (world, operator, subscriptions) = heard(json!({})).await;
        let raw = |arn: &String, value| {
            world.aws.edit(arn, |it| {
                if it["Attributes"].is_null() {
                    it["Attributes"] = json!({});
                }
                it["Attributes"]["RawMessageDelivery"] = json!(value);
            });
        };
        refuse(&world, denied, "", 403, "AuthorizationError");
        raw(&subscriptions[0], "true");
        polled(&operator).await;
        tokio::time::sleep(POLL).await;
        drop(operator.reconcile::<TenantObservability>("vsu").await);
        assert_eq!(is(&world, "Ready").0, "True Applied", "{denied}");
        let (_, told) = is(&world, "DeliveryReady");
        let grant = format!("Allow {denied} to arn:aws:iam::{ACCOUNT}:role/campanile");
        assert!(told.contains(&grant), "{told}");
        // What else is to be done is done.
        let (arn, _) = topic(&world);
        set(&world, "KmsMasterKeyId", json!("alias/aws/sns"));
        polled(&operator).await;
        assert!(world.aws.things(&arn)[&arn]["Attributes"]["KmsMasterKeyId"].is_null());
        // Once it may, and somebody asks, it is put back.
        world.calls.clear();
        world
            .cluster
            .edit::<TenantObservability>(super::operator::NAMESPACE, "vsu", |it| {
                it["metadata"]["annotations"] = json!({"reconcile.fluxcd.io/requestedAt": "now"});
            });
        operator.converge().await;
        assert_eq!(
            world.calls.count("sns:SetSubscriptionAttributes"),
            1,
            "{denied}"
        );
        assert_eq!(
            is(&world, "DeliveryReady"),
            ("True Delivering".into(), String::new())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_never_wrong_is_no_news() {
    let (world, operator, _) = heard(json!({})).await;
    world.apply(
        "AlarmSet",
        "golden",
        alarms(&[("errors", 1.0), ("latency", 2.0)], json!({})),
    );
    operator.converge().await;
    assert_eq!(
        world.condition::<AlarmSet>("golden", "Ready"),
        "True Applied"
    );
    let alarms: Vec<_> = world.aws.things(":alarm:").into_keys().collect();
    let (mail, pager) = ("platform@vsu.example", "https://");
    let told = |alarm: &str, to: &str| {
        let told = world.aws.transition(alarm, to);
        let is_told = |whom: &str| told.iter().any(|endpoint| endpoint.starts_with(whom));
        (is_told(mail), is_told(pager))
    };
    for alarm in &alarms {
        // A pager has nothing to close then, and must not miss it where it has.
        assert_eq!(told(alarm, "OK"), (false, true), "the first good data");
        assert_eq!(told(alarm, "INSUFFICIENT_DATA"), (false, false));
        assert_eq!(told(alarm, "ALARM"), (true, true));
        assert_eq!(told(alarm, "OK"), (true, true));
        assert_eq!(told(alarm, "ALARM"), (true, true));
        assert_eq!(told(alarm, "INSUFFICIENT_DATA"), (true, false));
        assert_eq!(told(alarm, "OK"), (false, true), "what was open is closed");
    }
}

/// They were made by a release that set no filter policy.
#[tokio::test(start_paused = true)]
async fn subscriptions_from_before_are_given_their_filter_which_is_no_drift() {
    for policy in ["Repair", "Report"] {
        let (world, operator, subscriptions) = heard(json!({"driftPolicy": policy})).await;
        drop(operator);
        for arn in &subscriptions {
            world.aws.edit(arn, |it| it["Attributes"] = Json::Null);
        }
        world
            .cluster
            .edit::<TenantObservability>(super::operator::NAMESPACE, "vsu", |it| {
                let things = it["status"]["applied"]["things"].as_object_mut().unwrap();
                assert!(things.remove("aws/subscription attribute").is_some());
            });
        let operator = Operator::new(&world);
        operator.converge().await;
        let aws = world.aws.clone();
        let attributes = move |arn: &str| aws.things(arn)[arn]["Attributes"].clone();
        let (seen, all, mut calls) = (attributes.clone(), subscriptions.clone(), 0);
        world.calls.fail(move |_, call| {
            for attributes in all.iter().map(|arn| seen(arn)) {
                let filtered = !attributes["FilterPolicy"].is_null();
                let of_body = attributes["FilterPolicyScope"] == "MessageBody";
                assert!(of_body || !filtered, "it hears nothing: {attributes}");
            }
            let sets = call.operation == "sns:SetSubscriptionAttributes";
            calls += usize::from(sets);
            (sets && calls == 1).then_some(Fault::Refuse(500, "InternalFailure"))
        });
        polled(&operator).await;
        operator.converge().await;
        for arn in &subscriptions {
            let attributes = attributes(arn);
            assert_eq!(attributes["FilterPolicyScope"], "MessageBody", "{policy}");
            assert!(
                attributes["FilterPolicy"].as_str().unwrap().contains("$or"),
                "{policy}"
            );
        }
        assert_eq!(is(&world, "Drifted").0, "False AsApplied", "{policy}");
        assert_eq!(is(&world, "DeliveryReady").0, "True Delivering", "{policy}");
    }
}
