//! What AWS refuses, denies, puts off or has given to another: the rest is done, and it is not asked again and again.

use super::*;
use campanile_world::aws::Trouble;
use std::time::Duration;

#[test]
fn an_alarm_that_aws_refuses() {
    test(|world| async move {
        let tenant = Tenant::new(world, "trouble-refused").await;
        tenant.usual_tenant().await;
        // More than a day of periods: legal for the schema, not for AWS.
        let long = json!({"period": 300, "evaluationPeriods": 500});
        tenant
            .golden(json!([
                alarm("errors", "critical", json!({})),
                alarm("long", "warning", long),
                alarm("slow", "info", json!({}))
            ]))
            .await;
        let _operator = tenant.operator().await;
        let message = tenant.ready::<AlarmSet>("golden", "PartiallyFailed").await;
        assert!(
            message.contains("AWS refused PutMetricAlarm: ValidationError"),
            "{message}"
        );
        let status = tenant.now::<AlarmSet>("golden").await.status.unwrap();
        let counts = status.counts.unwrap();
        assert_eq!((counts.desired, counts.applied, counts.failed), (3, 2, 1));
        assert_eq!(
            (
                status.alarms[0].name.as_str(),
                status.alarms[0].reason.as_deref()
            ),
            ("long", Some("Rejected"))
        );
        assert_eq!(tenant.alarms().await.len(), 2, "the others are there");
        // It is not asked again at every poll.
        let mark = world.aws.mark();
        tenant.polls(mark, 3).await;
        assert_eq!(tenant.writes_since(mark), []);
        // An edit is.
        tenant
            .golden(json!([
                alarm("errors", "critical", json!({})),
                alarm("long", "warning", json!({}))
            ]))
            .await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
    });
}

#[test]
fn things_that_are_not_ours() {
    test(|world| async move {
        let tenant = Tenant::new(world, "trouble-foreign").await;
        let foreign = tenant.name(Severity::Critical, "golden", "errors", Some("prod"));
        put_by_hand(&tenant.cloudwatch(), &foreign).await;
        // The topic's name is known once it has been made; then it is replaced by somebody else's.
        tenant.usual_tenant().await;
        let operator = tenant.operator().await;
        tenant.tenant_is("Applied").await;
        let topics = tenant.topics().await;
        let topic = topics.iter().find(|arn| arn.contains("critical")).unwrap();
        operator.stop(Duration::from_secs(10)).await.unwrap();
        let sns = tenant.sns();
        sns.delete_topic().topic_arn(topic).send().await.unwrap();
        let create = sns.create_topic().name(topic.rsplit(':').next().unwrap());
        create.send().await.unwrap();

        let mark = world.aws.mark();
        let _operator = tenant.operator().await;
        tenant
            .golden(json!([
                alarm("errors", "critical", json!({})),
                alarm("slow", "critical", json!({}))
            ]))
            .await;
        let message = tenant.ready::<AlarmSet>("golden", "Conflict").await;
        assert!(
            message.contains(&foreign) && message.contains("it was not touched"),
            "{message}"
        );
        let message = tenant.tenant_is("Conflict").await;
        assert!(
            message.contains("campanile_trouble-foreign_critical_"),
            "{message}"
        );
        let alarms = tenant.alarms().await;
        assert_eq!(alarms[&foreign].metric_name(), Some("by.hand"));
        // The other alarm is there, and keeps to the topic's name: it is in the tenant's own account, and
        // ours again once the stranger is gone.
        let other = tenant.name(Severity::Critical, "golden", "slow", Some("prod"));
        let actions = tenant.alarms().await[&other].alarm_actions().to_vec();
        assert_eq!(actions, std::slice::from_ref(topic));
        let touched = tenant.writes_since(mark);
        assert!(
            touched
                .iter()
                .all(|(_, resource)| !resource.ends_with("/errors@prod") && resource != topic),
            "{touched:?}"
        );
        // The stranger goes, and the conflict heals by itself.
        let delete = tenant.cloudwatch().delete_alarms().alarm_names(&foreign);
        delete.send().await.unwrap();
        sns.delete_topic().topic_arn(topic).send().await.unwrap();
        tenant.both_are("Applied").await;
        eventually("the alarm to point at our topic again", || async {
            let actions = tenant.alarms().await[&foreign].alarm_actions().to_vec();
            once(actions == [topic.clone()], &actions)
        })
        .await;
    });
}

#[test]
fn an_account_that_denies_throttles_or_fails() {
    test(|world| async move {
        for (name, trouble, reason, text) in [
            (
                "trouble-denied",
                Trouble::Deny,
                "AccessDenied",
                "Allow cloudwatch:PutMetricAlarm to arn:aws:iam::",
            ),
            (
                "trouble-throttled",
                Trouble::Throttle,
                "Throttled",
                "0 of 1 in place; throttled: cloudwatch:PutMetricAlarm",
            ),
            (
                "trouble-failing",
                Trouble::Fail5xx,
                "SystemUnavailable",
                "cloudwatch:PutMetricAlarm in account",
            ),
        ] {
            let tenant = Tenant::new(world, name).await;
            world
                .aws
                .trouble(&tenant.account, "PutMetricAlarm", trouble);
            tenant.usual().await;
            let _operator = tenant.operator().await;
            let message = tenant.ready::<AlarmSet>("golden", reason).await;
            assert!(message.contains(text), "{message}");
            // The topics have their own service, and are there.
            assert_eq!(tenant.topics().await.len(), 2);
            world.aws.allow(&tenant.account, "PutMetricAlarm");
            tenant.ask::<AlarmSet>("golden", "mended").await;
            tenant.ready::<AlarmSet>("golden", "Applied").await;
        }
    });
}

#[test]
fn a_subscription_that_is_denied_keeps_neither_topic_nor_claim() {
    test(|world| async move {
        let tenant = Tenant::new(world, "trouble-subscribe").await;
        world.aws.deny(&tenant.account, "Subscribe");
        tenant.secret("pager", "key", &pager_key("31")).await;
        tenant.tenant(paged(tenant.usual_spec())).await;
        tenant.golden(errors()).await;
        let _operator = tenant.operator().await;
        let message = tenant.tenant_is("AccessDenied").await;
        assert!(message.contains("Allow sns:Subscribe to"), "{message}");
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let denied = tenant.tenant_now().await;
        assert_eq!(
            denied.condition("DeliveryReady").unwrap().reason,
            "SubscriptionMissing"
        );
        assert!(
            denied.holds("AccountReachable"),
            "it answers; one thing is not allowed"
        );
        let status = denied.status.unwrap();
        assert_eq!(
            (status.topics.len(), status.subscriptions.len()),
            (2, 0),
            "what was never made is not ours"
        );
        let name = tenant.name(Severity::Critical, "golden", "errors", Some("prod"));
        assert_eq!(
            tenant.alarms().await[&name].alarm_actions().len(),
            1,
            "the alarm has its topic"
        );
        // It is looked at as ever, and not asked again at every look.
        let mark = world.aws.mark();
        let looks = || tenant.asked_since(mark, "ListSubscriptionsByTopic");
        at_least("four looks", 4, looks).await;
        assert_eq!(tenant.writes_since(mark), []);
    });
}

#[test]
fn an_alarm_whose_severity_moves_stays_until_the_new_one_is_there() {
    test(|world| async move {
        let tenant = Tenant::new(world, "trouble-moves").await;
        tenant.usual_tenant().await;
        let alarms = |severity: &str, more: Value| json!([alarm("errors", severity, more)]);
        tenant.golden(alarms("critical", json!({}))).await;
        let _operator = tenant.operator().await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let old = tenant.name(Severity::Critical, "golden", "errors", Some("prod"));
        // AWS refuses the new one; then it cannot even be asked for.
        let long = json!({"period": 300, "evaluationPeriods": 500});
        tenant.golden(alarms("warning", long)).await;
        tenant.ready::<AlarmSet>("golden", "PartiallyFailed").await;
        assert_eq!(tenant.alarm_names().await, std::slice::from_ref(&old));
        tenant
            .golden(alarms("info", json!({"dimensions": {"DeploymentId": "x"}})))
            .await;
        tenant.ready::<AlarmSet>("golden", "InvalidSpec").await;
        assert_eq!(tenant.alarm_names().await, [old]);
        tenant.golden(alarms("info", json!({}))).await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let new = tenant.name(Severity::Info, "golden", "errors", Some("prod"));
        assert_eq!(tenant.alarm_names().await, [new]);
    });
}
