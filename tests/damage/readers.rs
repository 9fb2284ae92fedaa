//! Who reads an alarm by mail is invited once, and again only where a person wants it; who has subscribed by hand is
//! left alone.

use super::*;
use campanile_world::aws::Unsubscribed;

/// The usual tenant, with these addresses for what is critical.
fn with_mail(tenant: &Tenant, addresses: &[&str]) -> Value {
    let mut spec = tenant.usual_spec();
    if !addresses.is_empty() {
        spec["notify"]["critical"] = json!({"emails": addresses});
    }
    spec
}

/// Subscribes an address by hand, as somebody does who has nothing to do with us.
async fn subscribe(tenant: &Tenant, topic: &str, address: &str) {
    let subscribe = tenant.sns().subscribe().topic_arn(topic);
    let subscribe = subscribe.protocol("email").endpoint(address);
    subscribe.send().await.unwrap();
}

/// Waits until this address is subscribed to a topic, and no other.
async fn only(tenant: &Tenant, topic: &str, address: &str) {
    eventually(&format!("only {address}"), || async {
        let all = subscriptions(tenant, topic).await;
        once(all.keys().eq([address]), &all)
    })
    .await;
}

#[test]
fn a_reader_of_mail_is_invited_once() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-mail").await;
        let (oncall, by_hand) = ("oncall@vsu.example", "by-hand@vsu.example");
        let first = in_place(&tenant, with_mail(&tenant, &[oncall])).await;
        let pending = tenant.delivery("PendingConfirmation").await;
        let told = pending.condition("DeliveryReady").unwrap();
        assert_eq!(told.status, "False");
        assert!(
            told.message.contains("oncall@vsu.example (critical)"),
            "{told:?}"
        );
        let pending = tenant.comes_to(Health::Degraded).await;
        assert_eq!(pending.verdict("Ready").1, "Applied");
        assert!(pending.holds("Ready") && !pending.holds("Healthy"));
        assert!(
            pending.condition("Reconciling").is_none() && pending.condition("Stalled").is_none()
        );

        // Somebody subscribes by hand; that is not ours.
        let topic = critical_topic(&tenant).await;
        subscribe(&tenant, &topic, by_hand).await;
        looks(&tenant, &topic, 4).await;
        assert_eq!(invited(&tenant), 1, "over many polls");
        let _second = restarted(&tenant, first).await;
        looks(&tenant, &topic, 3).await;
        assert_eq!(invited(&tenant), 1, "after a restart");
        let mut edited = with_mail(&tenant, &[oncall]);
        edited["environments"] = json!([{"name": "prod", "deploymentId": "app-prod"}]);
        tenant.tenant(edited).await;
        tenant.tenant_is("Applied").await;
        let seen = tenant.look_at_tenant("look").await;
        looks(&tenant, &topic, 2).await;
        assert_eq!(invited(&tenant), 1, "after an edit, and a request to look");
        let [one] = &seen.status.as_ref().unwrap().subscriptions[..] else {
            panic!("ours alone: {seen:?}")
        };
        assert_eq!(
            (one.endpoint.as_str(), one.state),
            (oncall, SubscriptionState::Pending)
        );

        world.aws.confirm_mail(&topic, oncall).await.unwrap();
        let mark = world.aws.mark();
        tenant.delivery("Delivering").await;
        Look::topic(&topic, 0).in_time(&tenant, mark, Timestamp::now(), "confirmed");
        state(&tenant, oncall, SubscriptionState::Confirmed).await;
        tenant.healthy().await;

        // Out, and in again: a new invitation.
        tenant.tenant(with_mail(&tenant, &[])).await;
        only(&tenant, &topic, by_hand).await;
        tenant.tenant_is("Applied").await;
        tenant.tenant(with_mail(&tenant, &[oncall])).await;
        state(&tenant, oncall, SubscriptionState::Pending).await;
        looks(&tenant, &topic, 2).await;
        assert_eq!(invited(&tenant), 2);
        let all = subscriptions(&tenant, &topic).await;
        assert_eq!(all[by_hand], "PendingConfirmation", "{all:?}");

        // Out while it is pending: it cannot be removed before it is confirmed; then it is.
        tenant.tenant(with_mail(&tenant, &[])).await;
        tenant.tenant_is("Applied").await;
        looks(&tenant, &topic, 2).await;
        world.aws.confirm_mail(&topic, oncall).await.unwrap();
        only(&tenant, &topic, by_hand).await;
        assert_eq!(invited(&tenant), 2);
    });
}

#[test]
fn a_reader_of_mail_who_leaves_is_not_invited_again_by_itself() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-unsubscribed").await;
        let (one, two) = ("one@vsu.example", "two@vsu.example");
        let first = in_place(&tenant, with_mail(&tenant, &[one, two])).await;
        tenant.delivery("PendingConfirmation").await;
        let topic = critical_topic(&tenant).await;
        for address in [one, two] {
            world.aws.confirm_mail(&topic, address).await.unwrap();
        }
        tenant.delivery("Delivering").await;
        assert_eq!(invited(&tenant), 2);
        // What was pending is settled; from now on it is looked at slowly.
        for (address, listed) in [(one, Unsubscribed::Gone), (two, Unsubscribed::Deleted)] {
            let left = world.aws.unsubscribe_mail(&topic, address, listed);
            left.await.unwrap();
            let mark = world.aws.mark();
            let gone = state(&tenant, address, SubscriptionState::Gone).await;
            Look::topic(&topic, 0).in_time(&tenant, mark, Timestamp::now(), address);
            let expected = ("False", "SubscriptionGone");
            assert_eq!(gone.verdict("DeliveryReady"), expected, "{address}");
            let told = gone.condition("DeliveryReady").unwrap();
            let whom = format!("{address} (critical)");
            assert!(told.message.contains(&whom), "{told:?}");
            assert!(gone.holds("Ready"), "{address}");
            tenant.comes_to(Health::Degraded).await;
        }
        looks(&tenant, &topic, 2).await;
        let _second = restarted(&tenant, first).await;
        looks(&tenant, &topic, 2).await;
        let mut edited = with_mail(&tenant, &[one, two]);
        edited["environments"] = json!([{"name": "prod", "deploymentId": "app-prod"}]);
        tenant.tenant(edited).await;
        tenant.tenant_is("Applied").await;
        tenant.ask_tenant("look").await;
        looks(&tenant, &topic, 3).await;
        assert_eq!(invited(&tenant), 2);
        assert!(
            subscriptions(&tenant, &topic)
                .await
                .values()
                .all(|arn| arn == "Deleted")
        );

        // A person wants one of them back.
        tenant.tenant(with_mail(&tenant, &[two])).await;
        tenant
            .tenant_until("one less", |tenant| {
                tenant.status.as_ref().unwrap().subscriptions.len() == 1
            })
            .await;
        tenant.tenant(with_mail(&tenant, &[one, two])).await;
        state(&tenant, one, SubscriptionState::Pending).await;
        world.aws.confirm_mail(&topic, one).await.unwrap();
        state(&tenant, one, SubscriptionState::Confirmed).await;
        let back = state(&tenant, two, SubscriptionState::Gone).await;
        assert_eq!(back.verdict("DeliveryReady").1, "SubscriptionGone");
        assert_eq!(invited(&tenant), 3);
    });
}

#[test]
fn a_topic_that_cannot_be_made_again_at_once_loses_no_reader() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-no-topic").await;
        let (oncall, namespace) = ("oncall@vsu.example", &tenant.namespace);
        tenant.tenant(with_mail(&tenant, &[oncall])).await;
        let _operator = operator(&tenant, &[]).await;
        tenant.delivery("PendingConfirmation").await;
        let topic = critical_topic(&tenant).await;
        world.aws.confirm_mail(&topic, oncall).await.unwrap();
        tenant.delivery("Delivering").await;
        world.aws.deny(&tenant.account, "CreateTopic");
        let delete = tenant.sns().delete_topic().topic_arn(&topic);
        delete.send().await.unwrap();
        let mark = world.aws.mark();
        let denied = "AccessDenied";
        let message = tenant.tenant_is(denied).await;
        assert!(message.contains("Allow sns:CreateTopic to"), "{message}");
        let (at, _) = told::<TenantObservability>(&tenant, namespace, denied, 0).await;
        Look::topic(&topic, 1).in_time(&tenant, mark, at, "the denial");
        tenant.delivery("TopicMissing").await;
        Look::topic(&topic, 0).times(&tenant, mark, 4).await;
        // Nobody has left: there was nothing to hear.
        state(&tenant, oncall, SubscriptionState::Creating).await;
        assert_eq!(invited(&tenant), 1);
        world.aws.allow(&tenant.account, "CreateTopic");
        tenant.ask_tenant("mended").await;
        tenant.tenant_is("Applied").await;
        state(&tenant, oncall, SubscriptionState::Pending).await;
        looks(&tenant, &topic, 2).await;
        assert_eq!(invited(&tenant), 2, "once more");
    });
}

#[test]
fn a_severity_that_loses_its_last_reader_keeps_its_topic() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-null").await;
        let (oncall, by_hand) = ("oncall@vsu.example", "by-hand@vsu.example");
        let namespace = &tenant.namespace;
        let first = in_place(&tenant, with_mail(&tenant, &[oncall])).await;
        tenant.delivery("PendingConfirmation").await;
        let topic = critical_topic(&tenant).await;
        subscribe(&tenant, &topic, by_hand).await;
        for address in [oncall, by_hand] {
            world.aws.confirm_mail(&topic, address).await.unwrap();
        }
        tenant.delivery("Delivering").await;
        let (_, mut right) = errors(&tenant).await;
        // It tells our topic that data ended only while somebody reads mail.
        assert_eq!(right.insufficient_data_actions().join(" "), topic);
        right.insufficient_data_actions = Some(Vec::new());

        let mark = world.aws.mark();
        tenant.usual_tenant().await;
        let args = ["-n", namespace, "get", "tobs", namespace, "-o", "json"];
        let stored = world.kubernetes.kubectl(args).await.unwrap();
        let stored: Value = serde_json::from_str(&stored.success().unwrap()).unwrap();
        let notify = stored["spec"]["notify"].as_object().unwrap();
        // Either is "listed, with nobody"; server-side apply stores the former for what was applied as the latter.
        assert!(
            notify["critical"].is_null() || notify["critical"] == json!({}),
            "{notify:?}"
        );
        tenant.tenant_is("Applied").await;
        only(&tenant, &topic, by_hand).await;
        Look::topic(&topic, 0).times(&tenant, mark, 3).await;
        let _second = restarted(&tenant, first).await;
        tenant.polls(world.aws.mark(), 3).await;
        let writes = tenant.writes_since(mark);
        let operations = writes.iter().map(|(operation, _)| operation.as_str());
        let mut operations: Vec<_> = operations.collect();
        operations.sort_unstable();
        // The topic lists first that the reader is to go, and then that it is gone.
        let right_ones = [
            "PutMetricAlarm",
            "TagResource",
            "TagResource",
            "Unsubscribe",
        ];
        assert_eq!(operations, right_ones, "{writes:?}");
        let mut about = writes
            .iter()
            .filter(|(operation, _)| operation == "Unsubscribe");
        assert!(
            about.all(|(_, about)| about.starts_with(&topic)),
            "{writes:?}"
        );
        is_as_before(&tenant, "nobody hears it", &right).await;
        let found = tenant.tenant_now().await;
        assert_eq!(found.status.unwrap().topics.len(), 2);
    });
}
