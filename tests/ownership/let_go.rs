//! What is let go of stays as it is, and is taken back by the same objects.

use super::*;
use campanile_world::aws::Trust;

#[test]
fn what_is_let_go_of_stays_and_is_taken_back() {
    test(|world| async move {
        let tenant = Tenant::new(world, "own-orphan").await;
        let orphan = json!({"deletionPolicy": "Orphan"});
        let notify =
            json!({"notify": {"critical": {"emails": ["oncall@vsu.example"]}, "warning": {}}});
        let spec = with(with(tenant.usual_spec(), orphan.clone()), notify);
        let alarms = json!([
            alarm("errors", "critical", json!({})),
            alarm("slow", "warning", json!({}))
        ]);
        let set = set_spec("own-orphan", alarms, orphan);
        let apply = async || {
            tenant.tenant(spec.clone()).await;
            tenant.apply::<AlarmSet>("golden", set.clone()).await;
            tenant.both_are("Applied").await;
        };
        let everything = async || {
            let mut all = BTreeMap::new();
            for name in tenant.alarm_names().await {
                all.insert(name.clone(), alarm_as_it_is(&tenant, &name).await);
            }
            for arn in tenant.topics().await {
                all.insert(arn.clone(), topic_as_it_is(&tenant, &arn).await);
            }
            all
        };
        let _operator = tenant.operator().await;
        apply().await;
        let before = everything().await;
        assert_eq!(before.len(), 4);
        for (kind, name) in [
            ("AlarmSet", "golden"),
            ("TenantObservability", "own-orphan"),
        ] {
            let mark = mark_of(&tenant, kind, name).await;
            let marked = before.values().filter(|thing| thing.contains(&mark));
            assert_eq!(marked.count(), 2, "{mark}");
        }

        // The account lets nobody in any more, and nothing waits for that.
        world.aws.remove_role(&tenant.role());
        let mark = world.aws.mark();
        tenant.delete_both().await;
        tenant.both_gone().await;
        assert_eq!(everything().await, before);
        assert_eq!(tenant.writes_since(mark), [], "not even tried");

        // The same objects find what they made, and have nothing to do.
        tenant.trust(Trust::external_id(format!("{CLUSTER}/own-orphan")));
        apply().await;
        let settled = world.aws.mark();
        tenant.polls(settled, 3).await;
        assert_eq!(tenant.writes_since(mark), []);
        assert_eq!(everything().await, before);
        let again = tenant.tenant_now().await;
        assert_eq!(again.status.unwrap().topics.len(), 2);

        // Deleted another way it all goes.
        let delete = json!({"deletionPolicy": "Delete"});
        tenant.patch::<AlarmSet>("golden", delete.clone()).await;
        tenant
            .patch::<TenantObservability>("own-orphan", delete)
            .await;
        tenant.delete_both().await;
        tenant.both_gone().await;
        assert_eq!(everything().await, BTreeMap::new());
    });
}

#[test]
fn a_deletion_that_hangs_can_be_let_go_of() {
    test(|world| async move {
        let tenant = Tenant::new(world, "own-hangs").await;
        tenant.usual_tenant().await;
        let alarms = errors();
        tenant.set("golden", json!(["*"]), alarms).await;
        let _operator = tenant.operator().await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        world.aws.remove_role(&tenant.role());
        tenant.delete_both().await;
        let place = format!("cleaning up in account {}, {REGION}: ", tenant.account);
        for message in tenant.both_are("Deleting").await {
            assert!(message.starts_with(&place), "{message}");
        }
        let hanging = tenant.now::<AlarmSet>("golden").await;
        assert_eq!(kstatus(&hanging), "Terminating");

        let orphan = json!({"deletionPolicy": "Orphan"});
        tenant.patch::<AlarmSet>("golden", orphan.clone()).await;
        tenant
            .patch::<TenantObservability>("own-hangs", orphan)
            .await;
        tenant.both_gone().await;
        assert_eq!(tenant.alarms_and_topics().await, (2, 2));
    });
}
