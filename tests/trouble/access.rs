//! An account that cannot be entered, or is another one.

use super::*;
use crate::support::CLUSTER;
use campanile_world::aws::Trust;

#[test]
fn a_role_that_cannot_be_assumed() {
    test(|world| async move {
        let tenant = Tenant::new(world, "trouble-role").await;
        tenant.trust(Trust::external_id("somebody-else"));
        tenant.usual().await;
        let mark = world.aws.mark();
        let _operator = tenant.operator_with(&UNBOUND).await;
        tenant.neighbour_works().await;
        let expected = format!("cannot assume {}: AccessDenied", tenant.role());
        let remedy = "with the condition sts:ExternalId = it/trouble-role";
        for message in tenant.both_are("AccessDenied").await {
            assert!(
                message.contains(&expected) && message.contains(remedy),
                "{message}"
            );
        }
        let stuck = tenant.tenant_now().await;
        assert!(stuck.holds("Stalled") && !stuck.holds("AccountReachable"));
        assert_eq!(
            stuck.status.unwrap().health,
            Some(Health::Unknown),
            "what was never read is not healthy"
        );
        assert_eq!(tenant.writes_since(mark), []);

        // Mended outside; a person asks to look again.
        tenant.trust(Trust::external_id(format!("{CLUSTER}/trouble-role")));
        tenant.look_at_tenant("now").await;
        tenant.tenant_is("Applied").await;
        tenant.ask::<AlarmSet>("golden", "now").await;
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
        let _operator = tenant.operator_with(&UNBOUND).await;
        tenant.neighbour_works().await;
        let message = tenant.tenant_is("AccessDenied").await;
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
        tenant.delete_tenant().await;
        tenant.tenant_gone().await;
    });
}
