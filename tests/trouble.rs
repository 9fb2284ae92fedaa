//! What goes wrong is said on the resource, for the person who reads it, and holds up nothing else.

use crate::{
    journey::put_by_hand,
    support::{CLUSTER, Conditions, REGION, Tenant, alarm, eventually, test},
};
use campanile::api::{AlarmSet, Health, Severity, TenantObservability};
use campanile_world::aws::{Trouble, Trust};
use serde_json::json;

#[test]
fn a_role_that_cannot_be_assumed() {
    test(|world| async move {
        let tenant = Tenant::new(world, "trouble-role").await;
        tenant.trust(Trust::external_id("somebody-else"));
        tenant.usual_tenant().await;
        tenant
            .set(
                "golden",
                json!(["prod"]),
                json!([alarm("errors", "critical", json!({}))]),
            )
            .await;
        let mark = world.aws.mark();
        let _operator = tenant
            .operator_with(&["--require-account-binding=false"])
            .await;
        tenant.neighbour_works().await;
        let expected = format!("cannot assume {}: AccessDenied", tenant.role());
        let remedy = "with the condition sts:ExternalId = it/trouble-role";
        for message in [
            tenant
                .ready::<TenantObservability>(&tenant.namespace, "AccessDenied")
                .await,
            tenant.ready::<AlarmSet>("golden", "AccessDenied").await,
        ] {
            assert!(
                message.contains(&expected) && message.contains(remedy),
                "{message}"
            );
        }
        let stuck = tenant
            .api::<TenantObservability>()
            .get(&tenant.namespace)
            .await
            .unwrap();
        assert!(stuck.holds("Stalled") && !stuck.holds("AccountReachable"));
        assert_eq!(
            stuck.status.unwrap().health,
            Some(Health::Unknown),
            "what was never read is not healthy"
        );
        assert_eq!(tenant.writes_since(mark), []);

        // Mended outside; a person asks to look again.
        tenant.trust(Trust::external_id(format!("{CLUSTER}/trouble-role")));
        tenant
            .annotate::<TenantObservability>(
                &tenant.namespace,
                "reconcile.fluxcd.io/requestedAt",
                "now",
            )
            .await;
        tenant
            .ready::<TenantObservability>(&tenant.namespace, "Applied")
            .await;
        let told = tenant
            .api::<TenantObservability>()
            .get(&tenant.namespace)
            .await
            .unwrap();
        assert_eq!(
            told.status.unwrap().last_handled_reconcile_at.as_deref(),
            Some("now")
        );
        tenant
            .annotate::<AlarmSet>("golden", "reconcile.fluxcd.io/requestedAt", "now")
            .await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
    });
}

#[test]
fn an_account_that_does_not_match() {
    test(|world| async move {
        let tenant = Tenant::new(world, "trouble-account").await;
        tenant.trust(
            Trust::external_id(format!("{CLUSTER}/trouble-account")).landing_in("999900001111"),
        );
        tenant.usual_tenant().await;
        let mark = world.aws.mark();
        let _operator = tenant
            .operator_with(&["--require-account-binding=false"])
            .await;
        tenant.neighbour_works().await;
        let message = tenant
            .ready::<TenantObservability>(&tenant.namespace, "AccessDenied")
            .await;
        let expected = format!(
            "leads to account 999900001111, but the tenant's spec.aws.accountId is {}: nothing was written",
            tenant.account
        );
        assert!(message.contains(&expected), "{message}");
        assert_eq!(
            world
                .aws
                .count_since(mark, |call| call.account == "999900001111" && call.write),
            0
        );
        // Nothing was made there, so nothing keeps it.
        tenant
            .delete::<TenantObservability>(&tenant.namespace)
            .await;
        tenant.gone::<TenantObservability>(&tenant.namespace).await;
    });
}

#[test]
fn an_environment_that_the_tenant_does_not_have() {
    test(|world| async move {
        let tenant = Tenant::new(world, "trouble-environment").await;
        tenant.usual_tenant().await;
        tenant
            .set(
                "golden",
                json!(["prod", "stage"]),
                json!([
                    alarm("errors", "critical", json!({})),
                    alarm("slow", "warning", json!({}))
                ]),
            )
            .await;
        let _operator = tenant.operator().await;
        let message = tenant.ready::<AlarmSet>("golden", "InvalidSpec").await;
        assert_eq!(
            message,
            "environment stage is not one of tenant trouble-environment's (pilot, prod): correct spec.environments here, or add it there"
        );
        let set = tenant.api::<AlarmSet>().get("golden").await.unwrap();
        assert!(set.holds("Stalled"));
        let status = set.status.unwrap();
        let counts = status.counts.unwrap();
        assert_eq!((counts.desired, counts.applied, counts.failed), (4, 2, 2));
        assert_eq!(
            (
                status.alarms[0].environment.as_deref(),
                status.alarms[0].reason.as_deref()
            ),
            (Some("stage"), Some("Invalid"))
        );
        assert_eq!(tenant.alarms().await.len(), 2, "the others are there");
        // The environment comes.
        let mut spec = tenant.usual_spec();
        spec["environments"] = json!([{"name": "pilot"}, {"name": "prod"}, {"name": "stage"}]);
        tenant.tenant(spec).await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        assert_eq!(tenant.alarms().await.len(), 4);
        // It goes again: what it asked for cannot be made any more, and is not lost either.
        tenant.usual_tenant().await;
        tenant.ready::<AlarmSet>("golden", "InvalidSpec").await;
        assert_eq!(tenant.alarms().await.len(), 4);
    });
}

#[test]
fn a_secret_that_is_missing() {
    test(|world| async move {
        let tenant = Tenant::new(world, "trouble-secret").await;
        let mut spec = tenant.usual_spec();
        spec["notify"]["critical"] = json!({"pagerDuty": [{"name": "primary", "integrationKeySecretRef": {"name": "pager", "key": "key"}}]});
        tenant.tenant(spec.clone()).await;
        tenant
            .set(
                "golden",
                json!(["prod"]),
                json!([alarm("errors", "critical", json!({}))]),
            )
            .await;
        let _operator = tenant.operator().await;
        let message = tenant
            .ready::<TenantObservability>(&tenant.namespace, "WaitingForSecret")
            .await;
        assert_eq!(
            message,
            "Secret trouble-secret/pager does not exist: create it with the key key"
        );
        // The alarms and topics do not wait for it.
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        assert_eq!(
            (tenant.alarms().await.len(), tenant.topics().await.len()),
            (1, 2)
        );
        let degraded = |tenant: &TenantObservability| {
            tenant.status.as_ref().unwrap().health == Some(Health::Degraded)
        };
        let waiting = tenant
            .until::<TenantObservability>(&tenant.namespace, "degraded", degraded)
            .await;
        assert_eq!(
            waiting.condition("DeliveryReady").unwrap().reason,
            "WaitingForSecret"
        );

        // Nor does what goes.
        let mut less = spec.clone();
        less["notify"].as_object_mut().unwrap().remove("warning");
        tenant.tenant(less).await;
        eventually("the warning topic to be gone", || async {
            let topics = tenant.topics().await;
            if topics.len() == 1 {
                Ok(())
            } else {
                Err(format!("{topics:?}"))
            }
        })
        .await;

        tenant.secret("pager", "other", "x").await;
        eventually("the key to be missed", || async {
            let message = tenant
                .ready::<TenantObservability>(&tenant.namespace, "WaitingForSecret")
                .await;
            if message.contains("has no key key") {
                Ok(())
            } else {
                Err(message)
            }
        })
        .await;
        tenant.secret("pager", "key", "not/a/key").await;
        eventually("the key to be refused", || async {
            let message = tenant
                .ready::<TenantObservability>(&tenant.namespace, "WaitingForSecret")
                .await;
            if message.contains("is not a PagerDuty integration key") {
                Ok(())
            } else {
                Err(message)
            }
        })
        .await;
        tenant
            .secret("pager", "key", "abcdefabcdefabcdefabcdefabcdef99")
            .await;
        tenant
            .ready::<TenantObservability>(&tenant.namespace, "Applied")
            .await;
    });
}

#[test]
fn a_tenant_that_does_not_exist() {
    test(|world| async move {
        let tenant = Tenant::new(world, "trouble-tenant").await;
        tenant
            .set(
                "golden",
                json!(["prod"]),
                json!([alarm("errors", "critical", json!({}))]),
            )
            .await;
        let _operator = tenant
            .operator_with(&["--require-account-binding=false"])
            .await;
        tenant.neighbour_works().await;
        let message = tenant.ready::<AlarmSet>("golden", "WaitingForTenant").await;
        assert_eq!(
            message,
            "TenantObservability trouble-tenant/trouble-tenant does not exist: create it, or correct spec.tenantRef"
        );
        let set = tenant.api::<AlarmSet>().get("golden").await.unwrap();
        assert!(set.holds("Reconciling") && !set.holds("Stalled"));
        tenant.usual_tenant().await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        // One that never had anything outside goes at once, tenant or not.
        let spec =
            json!({"tenantRef": {"name": "nobody"}, "alarms": [alarm("a", "info", json!({}))]});
        tenant.apply::<AlarmSet>("lonely", spec).await;
        tenant.ready::<AlarmSet>("lonely", "WaitingForTenant").await;
        tenant.delete::<AlarmSet>("lonely").await;
        tenant.gone::<AlarmSet>("lonely").await;
    });
}

#[test]
fn an_alarm_that_aws_refuses() {
    test(|world| async move {
        let tenant = Tenant::new(world, "trouble-refused").await;
        tenant.usual_tenant().await;
        // More than a day of periods: legal for the schema, not for AWS.
        let long = json!({"period": 300, "evaluationPeriods": 500});
        tenant
            .set(
                "golden",
                json!(["prod"]),
                json!([
                    alarm("errors", "critical", json!({})),
                    alarm("long", "warning", long),
                    alarm("slow", "info", json!({}))
                ]),
            )
            .await;
        let _operator = tenant.operator().await;
        let message = tenant.ready::<AlarmSet>("golden", "PartiallyFailed").await;
        assert!(
            message.contains("AWS refused PutMetricAlarm: ValidationError"),
            "{message}"
        );
        let status = tenant
            .api::<AlarmSet>()
            .get("golden")
            .await
            .unwrap()
            .status
            .unwrap();
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
            .set(
                "golden",
                json!(["prod"]),
                json!([
                    alarm("errors", "critical", json!({})),
                    alarm("long", "warning", json!({}))
                ]),
            )
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
        tenant
            .ready::<TenantObservability>(&tenant.namespace, "Applied")
            .await;
        let topics = tenant.topics().await;
        let topic = topics.iter().find(|arn| arn.contains("critical")).unwrap();
        operator
            .stop(std::time::Duration::from_secs(10))
            .await
            .unwrap();
        tenant
            .sns()
            .delete_topic()
            .topic_arn(topic)
            .send()
            .await
            .unwrap();
        tenant
            .sns()
            .create_topic()
            .name(topic.rsplit(':').next().unwrap())
            .send()
            .await
            .unwrap();

        let mark = world.aws.mark();
        let _operator = tenant.operator().await;
        tenant
            .set(
                "golden",
                json!(["prod"]),
                json!([
                    alarm("errors", "critical", json!({})),
                    alarm("slow", "critical", json!({}))
                ]),
            )
            .await;
        let message = tenant.ready::<AlarmSet>("golden", "Conflict").await;
        assert!(
            message.contains(&foreign) && message.contains("it was not touched"),
            "{message}"
        );
        let message = tenant
            .ready::<TenantObservability>(&tenant.namespace, "Conflict")
            .await;
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
        tenant
            .cloudwatch()
            .delete_alarms()
            .alarm_names(&foreign)
            .send()
            .await
            .unwrap();
        tenant
            .sns()
            .delete_topic()
            .topic_arn(topic)
            .send()
            .await
            .unwrap();
        tenant
            .ready::<TenantObservability>(&tenant.namespace, "Applied")
            .await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        eventually("the alarm to point at our topic again", || async {
            let actions = tenant.alarms().await[&foreign].alarm_actions().to_vec();
            if actions == [topic.clone()] {
                Ok(())
            } else {
                Err(format!("{actions:?}"))
            }
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
            tenant.usual_tenant().await;
            tenant
                .set(
                    "golden",
                    json!(["prod"]),
                    json!([alarm("errors", "critical", json!({}))]),
                )
                .await;
            let _operator = tenant.operator().await;
            let message = tenant.ready::<AlarmSet>("golden", reason).await;
            assert!(message.contains(text), "{message}");
            // The topics have their own service, and are there.
            assert_eq!(tenant.topics().await.len(), 2);
            world.aws.allow(&tenant.account, "PutMetricAlarm");
            tenant
                .annotate::<AlarmSet>("golden", "reconcile.fluxcd.io/requestedAt", "mended")
                .await;
            tenant.ready::<AlarmSet>("golden", "Applied").await;
        }
    });
}

#[test]
fn a_read_that_fails_is_not_absence() {
    test(|world| async move {
        let tenant = Tenant::new(world, "trouble-read").await;
        tenant.usual_tenant().await;
        let alarms =
            |threshold: f64| json!([alarm("errors", "critical", json!({"threshold": threshold}))]);
        tenant.set("golden", json!(["*"]), alarms(1.0)).await;
        let _operator = tenant.operator().await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        tenant
            .until::<TenantObservability>(&tenant.namespace, "healthy", |tenant| {
                tenant.holds("Healthy")
            })
            .await;
        world
            .aws
            .trouble(&tenant.account, "DescribeAlarms", Trouble::Fail5xx);
        world
            .aws
            .trouble(&tenant.account, "GetTopicAttributes", Trouble::Fail5xx);
        let mark = world.aws.mark();
        tenant.set("golden", json!(["*"]), alarms(2.0)).await;
        tenant
            .ready::<AlarmSet>("golden", "SystemUnavailable")
            .await;
        let set = tenant.api::<AlarmSet>().get("golden").await.unwrap();
        assert_eq!(
            set.status.unwrap().counts.unwrap().desired,
            2,
            "what was read last stands"
        );
        let failed = || {
            world.aws.count_since(mark, |call| {
                call.account == tenant.account && call.operation == "GetTopicAttributes"
            })
        };
        eventually("the tenant to be looked at", || async {
            if failed() >= 1 {
                Ok(())
            } else {
                Err(failed().to_string())
            }
        })
        .await;
        assert_eq!(tenant.writes_since(mark), []);
        // The tenant itself was not edited, so it stays Ready for a while.
        assert!(
            tenant
                .api::<TenantObservability>()
                .get(&tenant.namespace)
                .await
                .unwrap()
                .holds("Ready")
        );
        world.aws.allow(&tenant.account, "DescribeAlarms");
        world.aws.allow(&tenant.account, "GetTopicAttributes");
        tenant.ready::<AlarmSet>("golden", "Applied").await;
    });
}

#[test]
fn a_write_whose_answer_is_lost() {
    test(|world| async move {
        let tenant = Tenant::new(world, "trouble-cut").await;
        for operation in [
            "CreateTopic",
            "Subscribe",
            "PutMetricAlarm",
            "SetTopicAttributes",
        ] {
            world
                .aws
                .trouble_times(&tenant.account, operation, Trouble::CutAfterCommit, 1);
        }
        tenant
            .secret("pager", "key", "abcdefabcdefabcdefabcdefabcdef07")
            .await;
        let mut spec = tenant.usual_spec();
        spec["notify"]["critical"] = json!({"pagerDuty": [{"name": "primary", "integrationKeySecretRef": {"name": "pager", "key": "key"}}]});
        tenant.tenant(spec).await;
        tenant
            .set(
                "golden",
                json!(["*"]),
                json!([alarm("errors", "critical", json!({}))]),
            )
            .await;
        let _operator = tenant.operator().await;
        tenant
            .ready::<TenantObservability>(&tenant.namespace, "Applied")
            .await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let listed = tenant.sns().list_subscriptions().send().await.unwrap();
        assert_eq!(
            listed.subscriptions().len(),
            1,
            "one subscription: {listed:?}"
        );
        let asked = world
            .pagerduty
            .record()
            .confirmations
            .iter()
            .filter(|c| c.key.ends_with("ef07"))
            .count();
        assert_eq!(asked, 1, "PagerDuty was asked once");
        assert_eq!(
            (tenant.alarms().await.len(), tenant.topics().await.len()),
            (2, 2)
        );
        // Nothing is taken for a stranger's afterwards.
        tenant.delete_namespace().await;
        assert_eq!(
            (tenant.alarms().await.len(), tenant.topics().await.len()),
            (0, 0)
        );
    });
}

#[test]
fn a_deletion_that_cannot_be_done_says_what_it_waits_for() {
    test(|world| async move {
        let tenant = Tenant::new(world, "trouble-deletion").await;
        tenant.usual_tenant().await;
        tenant
            .set(
                "golden",
                json!(["prod"]),
                json!([alarm("errors", "critical", json!({}))]),
            )
            .await;
        let _operator = tenant.operator().await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        world.aws.deny(&tenant.account, "DeleteAlarms");
        tenant.delete::<AlarmSet>("golden").await;
        let message = tenant.ready::<AlarmSet>("golden", "Deleting").await;
        let place = format!(
            "cleaning up in account {}, {REGION}: cloudwatch:DeleteAlarms",
            tenant.account
        );
        assert!(
            message.contains(&place) && message.contains("was denied"),
            "{message}"
        );
        world.aws.allow(&tenant.account, "DeleteAlarms");
        tenant
            .annotate::<AlarmSet>("golden", "reconcile.fluxcd.io/requestedAt", "mended")
            .await;
        tenant.gone::<AlarmSet>("golden").await;
        assert_eq!(tenant.alarms().await.len(), 0);
    });
}

#[test]
fn a_role_that_is_mistyped_later_does_not_keep_what_the_old_one_made() {
    test(|world| async move {
        let tenant = Tenant::new(world, "trouble-mistyped").await;
        tenant.usual_tenant().await;
        tenant
            .set(
                "golden",
                json!(["prod"]),
                json!([alarm("errors", "critical", json!({}))]),
            )
            .await;
        let _operator = tenant.operator().await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let mut spec = tenant.usual_spec();
        spec["aws"]["roleArn"] = json!(format!("arn:aws:iam::{}:role/campanil", tenant.account));
        tenant.tenant(spec).await;
        let message = tenant.ready::<AlarmSet>("golden", "AccessDenied").await;
        assert!(message.contains("role/campanil:"), "{message}");
        let locked_out = tenant
            .api::<AlarmSet>()
            .get("golden")
            .await
            .unwrap()
            .status
            .unwrap();
        assert_eq!(
            (locked_out.counts, locked_out.alarms.len()),
            (None, 0),
            "nobody knows what fires"
        );
        let unknown = |tenant: &TenantObservability| {
            tenant.status.as_ref().unwrap().health == Some(Health::Unknown)
        };
        tenant
            .until::<TenantObservability>(&tenant.namespace, "unknown", unknown)
            .await;
        tenant.delete_namespace().await;
        assert_eq!(
            (tenant.alarms().await.len(), tenant.topics().await.len()),
            (0, 0)
        );
    });
}

#[test]
fn a_composite_over_one_of_ours_keeps_only_that_one() {
    test(|world| async move {
        let tenant = Tenant::new(world, "trouble-composite").await;
        tenant.usual_tenant().await;
        let alarms: serde_json::Value = (0..5)
            .map(|n| alarm(&format!("a{n}"), "info", json!({})))
            .collect();
        tenant.set("golden", json!(["prod"]), alarms).await;
        let _operator = tenant.operator().await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let kept = tenant.name(Severity::Info, "golden", "a2", Some("prod"));
        let cloudwatch = tenant.cloudwatch();
        let put = cloudwatch
            .put_composite_alarm()
            .alarm_name("by-hand")
            .alarm_rule(format!("ALARM(\"{kept}\")"));
        put.send().await.unwrap();
        tenant.delete::<AlarmSet>("golden").await;
        let message = tenant.ready::<AlarmSet>("golden", "Deleting").await;
        assert!(
            message.contains("composite alarm(s) depending on"),
            "{message}"
        );
        assert_eq!(
            tenant.alarms().await.into_keys().collect::<Vec<_>>(),
            [kept]
        );
        cloudwatch
            .delete_alarms()
            .alarm_names("by-hand")
            .send()
            .await
            .unwrap();
        tenant.gone::<AlarmSet>("golden").await;
        assert_eq!(tenant.alarms().await.len(), 0);
    });
}

#[test]
fn a_subscription_that_is_denied_keeps_neither_topic_nor_claim() {
    test(|world| async move {
        let tenant = Tenant::new(world, "trouble-subscribe").await;
        world.aws.deny(&tenant.account, "Subscribe");
        tenant
            .secret("pager", "key", "abcdefabcdefabcdefabcdefabcdef31")
            .await;
        let mut spec = tenant.usual_spec();
        spec["notify"]["critical"] = json!({"pagerDuty": [{"name": "primary", "integrationKeySecretRef": {"name": "pager", "key": "key"}}]});
        tenant.tenant(spec).await;
        tenant
            .set(
                "golden",
                json!(["prod"]),
                json!([alarm("errors", "critical", json!({}))]),
            )
            .await;
        let _operator = tenant.operator().await;
        let message = tenant
            .ready::<TenantObservability>(&tenant.namespace, "AccessDenied")
            .await;
        assert!(message.contains("Allow sns:Subscribe to"), "{message}");
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let denied = tenant
            .api::<TenantObservability>()
            .get(&tenant.namespace)
            .await
            .unwrap();
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
        let looks = || {
            world.aws.count_since(mark, |call| {
                call.account == tenant.account && call.operation == "ListSubscriptionsByTopic"
            })
        };
        eventually("four looks", || async {
            if looks() >= 4 {
                Ok(())
            } else {
                Err(looks().to_string())
            }
        })
        .await;
        assert_eq!(tenant.writes_since(mark), []);
    });
}

#[test]
fn an_alarm_whose_severity_moves_stays_until_the_new_one_is_there() {
    test(|world| async move {
        let tenant = Tenant::new(world, "trouble-moves").await;
        tenant.usual_tenant().await;
        let alarms =
            |severity: &str, more: serde_json::Value| json!([alarm("errors", severity, more)]);
        tenant
            .set("golden", json!(["prod"]), alarms("critical", json!({})))
            .await;
        let _operator = tenant.operator().await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let old = tenant.name(Severity::Critical, "golden", "errors", Some("prod"));
        // AWS refuses the new one; then it cannot even be asked for.
        let long = json!({"period": 300, "evaluationPeriods": 500});
        tenant
            .set("golden", json!(["prod"]), alarms("warning", long))
            .await;
        tenant.ready::<AlarmSet>("golden", "PartiallyFailed").await;
        assert_eq!(
            tenant.alarms().await.into_keys().collect::<Vec<_>>(),
            std::slice::from_ref(&old)
        );
        tenant
            .set(
                "golden",
                json!(["prod"]),
                alarms("info", json!({"dimensions": {"DeploymentId": "x"}})),
            )
            .await;
        tenant.ready::<AlarmSet>("golden", "InvalidSpec").await;
        assert_eq!(tenant.alarms().await.into_keys().collect::<Vec<_>>(), [old]);
        tenant
            .set("golden", json!(["prod"]), alarms("info", json!({})))
            .await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let new = tenant.name(Severity::Info, "golden", "errors", Some("prod"));
        assert_eq!(tenant.alarms().await.into_keys().collect::<Vec<_>>(), [new]);
    });
}

#[test]
fn a_status_that_nobody_can_read_keeps_no_other_object_from_being_seen() {
    test(|world| async move {
        let tenant = Tenant::new(world, "trouble-poison").await;
        tenant.usual_tenant().await;
        tenant
            .set(
                "poisoned",
                json!(["prod"]),
                json!([alarm("a", "info", json!({}))]),
            )
            .await;
        let poison = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "X", "message": "",
            "lastTransitionTime": "9999-12-31T23:59:59-12:00"}]}});
        let args = [
            "-n",
            "trouble-poison",
            "patch",
            "aset",
            "poisoned",
            "--subresource=status",
            "--type=merge",
            "-p",
            &poison.to_string(),
        ];
        world
            .kubernetes
            .kubectl(args)
            .await
            .unwrap()
            .success()
            .unwrap();
        let _operator = tenant
            .operator_with(&["--require-account-binding=false"])
            .await;
        // A tenant lists its sets, so another one shows that the watches are alive.
        tenant.neighbour_works().await;
    });
}

#[test]
fn what_was_made_is_cleaned_up_even_if_status_was_lost() {
    test(|world| async move {
        let tenant = Tenant::new(world, "trouble-wiped").await;
        tenant.usual_tenant().await;
        tenant
            .set(
                "golden",
                json!(["prod"]),
                json!([alarm("errors", "critical", json!({}))]),
            )
            .await;
        let operator = tenant.operator().await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        operator
            .stop(std::time::Duration::from_secs(10))
            .await
            .unwrap();
        for (kind, name) in [("aset", "golden"), ("tobs", "trouble-wiped")] {
            let args = [
                "-n",
                "trouble-wiped",
                "patch",
                kind,
                name,
                "--subresource=status",
                "--type=merge",
                "-p",
                r#"{"status":null}"#,
            ];
            world
                .kubernetes
                .kubectl(args)
                .await
                .unwrap()
                .success()
                .unwrap();
        }
        // The set first: where it made things, only its tenant can say.
        tenant.delete::<AlarmSet>("golden").await;
        let _operator = tenant.operator().await;
        tenant.gone::<AlarmSet>("golden").await;
        tenant.delete::<TenantObservability>("trouble-wiped").await;
        tenant.gone::<TenantObservability>("trouble-wiped").await;
        assert_eq!(
            (tenant.alarms().await.len(), tenant.topics().await.len()),
            (0, 0)
        );
    });
}
