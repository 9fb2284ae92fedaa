//! What cannot be deleted at once says what it waits for, and keeps nothing else.

use super::*;
use crate::support::REGION;

#[test]
fn a_deletion_that_cannot_be_done_says_what_it_waits_for() {
    test(|world| async move {
        let tenant = Tenant::new(world, "trouble-deletion").await;
        tenant.usual().await;
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
        tenant.ask::<AlarmSet>("golden", "mended").await;
        tenant.gone::<AlarmSet>("golden").await;
        assert_eq!(tenant.alarms().await.len(), 0);
    });
}

#[test]
fn a_role_that_is_mistyped_later_does_not_keep_what_the_old_one_made() {
    test(|world| async move {
        let tenant = Tenant::new(world, "trouble-mistyped").await;
        tenant.usual().await;
        let _operator = tenant.operator().await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let mut spec = tenant.usual_spec();
        spec["aws"]["roleArn"] = json!(format!("arn:aws:iam::{}:role/campanil", tenant.account));
        tenant.tenant(spec).await;
        let message = tenant.ready::<AlarmSet>("golden", "AccessDenied").await;
        assert!(message.contains("role/campanil:"), "{message}");
        let locked_out = tenant.now::<AlarmSet>("golden").await.status.unwrap();
        assert_eq!(
            (locked_out.counts, locked_out.alarms.len()),
            (None, 0),
            "nobody knows what fires"
        );
        tenant.comes_to(Health::Unknown).await;
        tenant.delete_namespace().await;
        assert_eq!(tenant.alarms_and_topics().await, (0, 0));
    });
}

#[test]
fn a_composite_over_one_of_ours_keeps_only_that_one() {
    test(|world| async move {
        let tenant = Tenant::new(world, "trouble-composite").await;
        tenant.usual_tenant().await;
        let alarms: Value = (0..5)
            .map(|n| alarm(&format!("a{n}"), "info", json!({})))
            .collect();
        tenant.golden(alarms).await;
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
        assert_eq!(tenant.alarm_names().await, [kept]);
        let delete = cloudwatch.delete_alarms().alarm_names("by-hand");
        delete.send().await.unwrap();
        tenant.gone::<AlarmSet>("golden").await;
        assert_eq!(tenant.alarms().await.len(), 0);
    });
}
