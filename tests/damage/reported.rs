//! Drift that is to be reported is told and left.

use super::*;
use campanile::api::{DriftChange, DriftEntry};

/// The drift in a set's status, once there is so much of it.
async fn drift_of(tenant: &Tenant, count: i32) -> (AlarmSet, Vec<DriftEntry>) {
    let right = |set: &AlarmSet| {
        let status = set.status.as_ref();
        status.is_some_and(|status| status.common.drift_count == Some(count))
    };
    let set = tenant
        .until("golden", &format!("{count} drifted"), right)
        .await;
    let drift = set.status.as_ref().unwrap().common.drift.clone();
    (set, drift)
}

/// Applies the set with this policy; the threshold is that of the alarm that nobody meddles with.
async fn golden(tenant: &Tenant, policy: Option<&str>, threshold: f64) {
    let alarms = json!([
        alarm("errors", "critical", json!({})),
        alarm("other", "critical", json!({"threshold": threshold})),
        alarm("slow", "warning", json!({}))
    ]);
    let name = json!({"name": tenant.namespace});
    let spec = json!({"tenantRef": name, "environments": ["prod"], "driftPolicy": policy, "alarms": alarms});
    tenant.apply::<AlarmSet>("golden", spec).await;
}

/// That nothing stands in status as drift.
fn has_not_drifted(set: AlarmSet) {
    let status = set.status.unwrap();
    assert_eq!(
        (status.common.drift, status.common.drift_count),
        (Vec::new(), None)
    );
}

#[test]
fn drift_that_is_only_reported() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-report").await;
        tenant.usual_tenant().await;
        golden(&tenant, Some("Report"), 1.0).await;
        let site = Site::new(tenant).await;
        let tenant = &site.tenant;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let named = |severity, alarm: &str| tenant.name(severity, "golden", alarm, Some("prod"));
        let errors = named(Severity::Critical, "errors");
        let slow = named(Severity::Warning, "slow");
        let alarms = tenant.alarms().await;
        let cloudwatch = tenant.cloudwatch();
        let meddle = async |threshold: f64| {
            let put = put(&cloudwatch, &alarms[&errors]).threshold(threshold);
            put.send().await.unwrap();
        };

        // The state of a new alarm is read once more.
        tenant.polls(world.aws.mark(), 3).await;
        meddle(99.0).await;
        let mark = world.aws.mark();
        let (set, drift) = drift_of(tenant, 1).await;
        let (at, note) = told::<AlarmSet>(tenant, "golden", "DriftDetected", 0).await;
        Look::alarms(1).in_time(tenant, mark, at, "drift");
        assert!(note.contains("threshold 99 → 10"), "{note}");
        let changed = DriftEntry {
            resource: "alarm".into(),
            name: errors.clone(),
            change: DriftChange::Changed,
            field: Some("threshold".into()),
            wanted: Some("10".into()),
            found: Some("99".into()),
            since: drift[0].since.clone(),
        };
        assert_eq!(drift, std::slice::from_ref(&changed));
        let noticed: Timestamp = changed.since.parse().unwrap();
        assert!(noticed <= Timestamp::now());
        assert_eq!(set.verdict("Drifted"), ("True", "DriftReported"));
        assert!(set.holds("Ready"));
        assert_eq!(first_entry(&set), ("errors", Some("Drifted")));

        let delete = cloudwatch.delete_alarms().alarm_names(&slow);
        delete.send().await.unwrap();
        let (set, drift) = drift_of(tenant, 2).await;
        assert_eq!(drift[0], changed, "since does not move");
        let missing = (drift[1].name.as_str(), drift[1].change, &drift[1].field);
        assert_eq!(missing, (slow.as_str(), DriftChange::Missing, &None));
        let counts = set.status.as_ref().unwrap().counts.unwrap();
        assert_eq!((counts.desired, counts.applied), (3, 1));
        assert!(set.holds("Ready"));
        told::<AlarmSet>(tenant, "golden", "DriftDetected", 1).await;
        // It drifts further.
        meddle(98.0).await;
        let further = |set: &AlarmSet| {
            let first = set.status.as_ref().unwrap().common.drift.first();
            first.is_some_and(|entry| entry.found.as_deref() == Some("98"))
        };
        let set = tenant.until("golden", "98", further).await;
        let drift = set.status.unwrap().common.drift;
        assert_eq!(drift[0].since, changed.since, "since does not move");
        assert_eq!(site.counted::<AlarmSet>().await, (Some(2), Some(0)));

        // Nor is anything written later, or by a successor.
        tenant.is_quiet("when it is told").await;
        let _second = restarted(tenant, site.operator).await;
        tenant.is_quiet("by a successor").await;
        let set = tenant.look::<AlarmSet>("golden", "look").await;
        assert_eq!(set.status.unwrap().common.drift, drift);
        assert_eq!(tenant.writes_since(mark), [], "nothing was written at all");

        // An edit of another alarm applies the whole spec.
        golden(tenant, Some("Report"), 2.0).await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        for name in [&errors, &slow] {
            is_as_before(tenant, "edited", &alarms[name]).await;
        }
        let set = tenant.now::<AlarmSet>("golden").await;
        assert_eq!(set.verdict("Drifted"), ("False", "AsApplied"));
        has_not_drifted(set);

        // What is reported is repaired as soon as it is to be.
        meddle(97.0).await;
        drift_of(tenant, 1).await;
        golden(tenant, None, 2.0).await;
        let repaired = |set: &AlarmSet| set.verdict("Drifted").1 == "DriftRepaired";
        has_not_drifted(tenant.until("golden", "repaired", repaired).await);
        is_as_before(tenant, "repaired", &alarms[&errors]).await;
        told::<AlarmSet>(tenant, "golden", "DriftRepaired", 0).await;
    });
}
