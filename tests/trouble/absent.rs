//! What a spec refers to and is not there, or not what it should be.

use super::*;

/// Waits until the tenant says this of the Secret that it waits for.
async fn waits_for_secret(tenant: &Tenant, says: &str) {
    eventually(&format!("a Secret that {says}"), || async {
        let message = tenant.tenant_is("WaitingForSecret").await;
        if message.contains(says) {
            Ok(())
        } else {
            Err(message)
        }
    })
    .await;
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
            "environment stage is not one of tenant trouble-environment's (pilot, prod): correct spec.environments here, or add it there; until then no alarm of this set is removed"
        );
        let set = tenant.now::<AlarmSet>("golden").await;
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
        let spec = paged(tenant.usual_spec());
        tenant.tenant(spec.clone()).await;
        tenant.golden(errors()).await;
        let _operator = tenant.operator().await;
        let message = tenant.tenant_is("WaitingForSecret").await;
        assert_eq!(
            message,
            "Secret trouble-secret/pager does not exist: create it with the key key"
        );
        // The alarms and topics do not wait for it.
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        assert_eq!(tenant.alarms_and_topics().await, (1, 2));
        let waiting = tenant.comes_to(Health::Degraded).await;
        assert_eq!(
            waiting.condition("DeliveryReady").unwrap().reason,
            "WaitingForSecret"
        );

        // Nor does what goes.
        let mut less = spec;
        less["notify"].as_object_mut().unwrap().remove("warning");
        tenant.tenant(less).await;
        eventually("the warning topic to be gone", || async {
            match &tenant.topics().await[..] {
                [_] => Ok(()),
                topics => Err(format!("{topics:?}")),
            }
        })
        .await;

        tenant.secret("pager", "other", "x").await;
        waits_for_secret(&tenant, "has no key key").await;
        tenant.secret("pager", "key", "not/a/key").await;
        waits_for_secret(&tenant, "is neither a PagerDuty integration key").await;
        tenant.secret("pager", "key", &pager_key("99")).await;
        tenant.tenant_is("Applied").await;
    });
}

#[test]
fn a_tenant_that_does_not_exist() {
    test(|world| async move {
        let tenant = Tenant::new(world, "trouble-tenant").await;
        tenant.golden(errors()).await;
        let _operator = tenant.operator_with(&UNBOUND).await;
        tenant.neighbour_works().await;
        let message = tenant.ready::<AlarmSet>("golden", "WaitingForTenant").await;
        assert_eq!(
            message,
            "TenantObservability trouble-tenant/trouble-tenant does not exist: create it, or correct spec.tenantRef"
        );
        let set = tenant.now::<AlarmSet>("golden").await;
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
