//! An account that does not let us in, or leads elsewhere: told on all that need it, with whom to trust.

use super::*;
use crate::support::{CLUSTER, REGION};
use campanile_world::aws::Trust;

#[test]
fn a_role_that_does_not_let_us_in_is_said_on_all_that_need_it() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-role").await;
        let _operator = in_place(&tenant, tenant.usual_spec()).await;
        let (role, namespace) = (tenant.role(), &tenant.namespace);
        tenant.healthy().await;
        let (name, right) = errors(&tenant).await;
        let external_id = format!("{CLUSTER}/{namespace}");
        let trust = || Trust::external_id(&external_id);
        let remedy = format!("sts:ExternalId = {external_id}");
        let elsewhere = "999900002222";
        // How often the role let us into the account, and how often it did not.
        let asked_for = |mark: Mark| {
            let well = world.aws.count_since(mark, |call| {
                (call.operation.as_str(), &call.account) == ("GetCallerIdentity", &tenant.account)
            });
            let in_vain = world.aws.count_since(mark, |call| {
                let refused = call.operation == "AssumeRole" && !call.succeeded();
                refused && call.resource == role
                    || call.operation == "GetCallerIdentity" && call.account == elsewhere
            });
            (well, in_vain)
        };
        enum Harm {
            Trust(Trust),
            Deleted,
        }
        let cases = [
            (
                "trust changed",
                Harm::Trust(Trust::external_id("it/somebody")),
                &remedy,
                "tenant",
            ),
            ("deleted", Harm::Deleted, &remedy, "tenant"),
            ("deleted, the set asks", Harm::Deleted, &remedy, "set"),
            (
                "leads elsewhere",
                Harm::Trust(trust().landing_in(elsewhere)),
                &format!("leads to account {elsewhere}"),
                "set",
            ),
        ];
        for (what, harm, says, asked) in cases {
            let denied = "AccessDenied";
            let of_tenant = events::<TenantObservability>(&tenant, namespace, denied).await;
            let of_set = events::<AlarmSet>(&tenant, "golden", denied).await;
            let before = (of_tenant.len(), of_set.len());
            match harm {
                Harm::Trust(trust) => tenant.trust(trust),
                Harm::Deleted => world.aws.remove_role(&role),
            }
            let mark = world.aws.mark();
            for message in tenant.both_are(denied).await {
                assert!(message.contains(says.as_str()), "{what}: {message}");
            }
            // It is asked once per slow poll, and by each watch when it is refused and when it hears of that.
            let (well, in_vain) = asked_for(mark);
            assert!(well < POLLS, "{what}: found after {well} polls");
            assert!((1..=5).contains(&in_vain), "{what}: asked {in_vain} times");
            told::<TenantObservability>(&tenant, namespace, denied, before.0).await;
            told::<AlarmSet>(&tenant, "golden", denied, before.1).await;
            let locked_out = tenant.tenant_now().await;
            let found = locked_out.verdict("AccountReachable");
            assert_eq!(found, ("False", denied), "{what}");
            let reachable = locked_out.condition("AccountReachable").unwrap();
            assert!(
                reachable.message.contains(says.as_str()),
                "{what}: {reachable:?}"
            );
            tenant.comes_to(Health::Unknown).await;
            let status = locked_out.status.unwrap();
            assert_eq!(status.external_id.as_ref(), Some(&external_id), "{what}");
            assert!(status.links.unwrap().alarms.is_some(), "{what}");
            let topics = status.topics.len();
            assert_eq!(topics, 2, "{what}: they are there, for all we know");
            let set = tenant.now::<AlarmSet>("golden").await;
            assert_eq!(
                set.status.unwrap().counts,
                None,
                "{what}: nobody knows what fires"
            );

            // What happens meanwhile is mended afterwards.
            let delete = tenant.cloudwatch().delete_alarms().alarm_names(&name);
            delete.send().await.unwrap();
            assert_eq!(tenant.writes_since(mark), [], "{what}");
            tenant.trust(trust());
            match asked {
                "set" => tenant.ask::<AlarmSet>("golden", what).await,
                _ => tenant.ask_tenant(what).await,
            }
            // Whoever is asked, the other hears of it.
            tenant.both_are("Applied").await;
            is_as_before(&tenant, what, &right).await;
            let well = |tenant: &TenantObservability| {
                tenant.holds("AccountReachable") && tenant.holds("Healthy")
            };
            tenant.until(namespace, "healthy again", well).await;
        }
    });
}

#[test]
fn whom_to_trust_is_said_before_anybody_lets_us_in() {
    test(|world| async move {
        let tenant = Tenant::new(world, "damage-external-id").await;
        tenant.trust(Trust::external_id("it/somebody"));
        // Without topics: nothing else of the tenant's status tells its sets that it got in.
        let mut spec = tenant.usual_spec();
        spec["notify"] = Value::Null;
        declare(&tenant, spec).await;
        let _operator = operator(&tenant, &[]).await;
        let namespace = &tenant.namespace;
        tenant.tenant_is("AccessDenied").await;
        let refused = tenant.tenant_now().await;
        let status = refused.status.unwrap();
        assert_eq!(status.external_id, Some(format!("{CLUSTER}/{namespace}")));
        let link = status.links.unwrap().alarms.unwrap();
        assert_eq!(
            link,
            format!(
                "https://{REGION}.console.aws.amazon.com/cloudwatch/home?region={REGION}#alarmsV2:?~(search~'campanile*2f{CLUSTER}*2f{namespace}*2f)"
            )
        );
        tenant.ready::<AlarmSet>("golden", "AccessDenied").await;

        // Mended, and the tenant is asked to look again: its sets need not be.
        tenant.trust(Trust::external_id(format!("{CLUSTER}/{namespace}")));
        tenant.ask_tenant("mended").await;
        tenant.both_are("Applied").await;
    });
}
