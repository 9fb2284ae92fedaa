//! What cannot be read, is not heard of, or was known only to a status: it is neither absent nor forgotten.

use super::*;
use campanile_world::aws::Trouble;
use std::time::Duration;

/// Merges a patch into an object's status, past the operator.
async fn write_status(tenant: &Tenant, kind: &str, name: &str, patch: &Value) {
    let patch = patch.to_string();
    let args = [
        "-n",
        &tenant.namespace,
        "patch",
        kind,
        name,
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ];
    let patched = tenant.world.kubernetes.kubectl(args).await.unwrap();
    patched.success().unwrap();
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
        tenant.healthy().await;
        let reads = ["DescribeAlarms", "GetTopicAttributes"];
        for read in reads {
            world.aws.trouble(&tenant.account, read, Trouble::Fail5xx);
        }
        let mark = world.aws.mark();
        tenant.set("golden", json!(["*"]), alarms(2.0)).await;
        tenant
            .ready::<AlarmSet>("golden", "SystemUnavailable")
            .await;
        let set = tenant.now::<AlarmSet>("golden").await;
        assert_eq!(
            set.status.unwrap().counts.unwrap().desired,
            2,
            "what was read last stands"
        );
        let failed = || tenant.asked_since(mark, "GetTopicAttributes");
        at_least("the tenant to be looked at", 1, failed).await;
        assert_eq!(tenant.writes_since(mark), []);
        // The tenant itself was not edited, so it stays Ready for a while.
        let found = tenant.tenant_now().await;
        assert!(found.holds("Ready"));
        for read in reads {
            world.aws.allow(&tenant.account, read);
        }
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
        tenant.secret("pager", "key", &pager_key("07")).await;
        tenant.tenant(paged(tenant.usual_spec())).await;
        tenant.set("golden", json!(["*"]), errors()).await;
        let _operator = tenant.operator().await;
        tenant.both_are("Applied").await;
        let listed = tenant.subscriptions().await;
        assert_eq!(listed.len(), 1, "one subscription: {listed:?}");
        let asked = world
            .pagerduty
            .record()
            .confirmations
            .iter()
            .filter(|c| c.key.ends_with("ef07"))
            .count();
        assert_eq!(asked, 1, "PagerDuty was asked once");
        assert_eq!(tenant.alarms_and_topics().await, (2, 2));
        // Nothing is taken for a stranger's afterwards.
        tenant.delete_namespace().await;
        assert_eq!(tenant.alarms_and_topics().await, (0, 0));
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
        write_status(&tenant, "aset", "poisoned", &poison).await;
        let _operator = tenant.operator_with(&UNBOUND).await;
        // A tenant lists its sets, so another one shows that the watches are alive.
        tenant.neighbour_works().await;
    });
}

#[test]
fn what_was_made_is_cleaned_up_even_if_status_was_lost() {
    test(|world| async move {
        let tenant = Tenant::new(world, "trouble-wiped").await;
        tenant.usual().await;
        let operator = tenant.operator().await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        operator.stop(Duration::from_secs(10)).await.unwrap();
        for (kind, name) in [("aset", "golden"), ("tobs", "trouble-wiped")] {
            write_status(&tenant, kind, name, &json!({"status": null})).await;
        }
        // The set first: where it made things, only its tenant can say.
        tenant.delete::<AlarmSet>("golden").await;
        let _operator = tenant.operator().await;
        tenant.gone::<AlarmSet>("golden").await;
        tenant.delete_tenant().await;
        tenant.tenant_gone().await;
        assert_eq!(tenant.alarms_and_topics().await, (0, 0));
    });
}
