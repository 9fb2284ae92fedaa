//! Tenants cannot reach each other: which account a namespace may act in, as whom, and what becomes of
//! those who try.

use crate::support::{
    CLUSTER, Conditions, REGION, Tenant, about, alarm, errors, eventually, kstatus, once, plan,
    test,
};
use campanile::api::{ACCOUNT_BINDING, AlarmSet, FINALIZER, Severity, TenantObservability};
use campanile_world::{
    World,
    aws::{Call, Mark, Trust},
    process::Process,
};
use kube::ResourceExt;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The external ids of the roles are all that is asked for.
const OUT: [&str; 1] = ["--require-account-binding=false"];

/// Nobody polls: all that is called is called for the sake of what happens.
const STILL: [&str; 4] = ["--poll-interval", "1h", "--slow-poll-interval", "1h"];

/// An operator that looks after the namespaces of these.
async fn operator(tenants: &[&Tenant], more: &[&str]) -> Process {
    let mut args = Vec::new();
    for tenant in &tenants[1..] {
        args.extend(["--watch-namespace", tenant.namespace.as_str()]);
    }
    args.extend(more);
    tenants[0].operator_with(&args).await
}

/// Applies the usual tenant and its set; waits until both are applied.
async fn at_work(tenant: &Tenant) {
    tenant.usual().await;
    tenant.both_are("Applied").await;
}

fn golden(tenant: &str) -> Value {
    json!({"tenantRef": {"name": tenant}, "alarms": errors()})
}

/// The calls that were made as somebody of an account.
fn as_whom(world: &World, since: Mark, account: &str) -> Vec<Call> {
    let mut calls = about(world, since, account);
    calls.retain(|call| call.identity.contains(account) || call.account == account);
    calls
}

#[test]
fn a_namespace_acts_only_in_the_account_that_it_is_bound_to() {
    test(|world| async move {
        let tenant = Tenant::new(world, "iso-binding").await;
        let clock = Tenant::new(world, "iso-binding-clock").await;
        let nobody = |bound: &str| {
            format!(
                "Namespace iso-binding is bound to {bound}, not to {account}: nothing is done there. If it is to be, the platform team annotates the Namespace with {ACCOUNT_BINDING}={account}",
                account = tenant.account
            )
        };
        tenant.bind(None).await;
        let mark = world.aws.mark();
        tenant.usual_tenant().await;
        let alarms =
            |threshold: i32| json!([alarm("errors", "critical", json!({"threshold": threshold}))]);
        tenant.golden(alarms(1)).await;
        let _operator = operator(&[&tenant, &clock], &[]).await;
        let refused = async |message: &str| {
            eventually("the refusal", || async {
                let set = tenant.ready::<AlarmSet>("golden", "AccessDenied").await;
                let own = tenant.tenant_is("AccessDenied").await;
                if set == message && own == message {
                    Ok(())
                } else {
                    Err(format!("{set} {own}"))
                }
            })
            .await;
        };
        refused(&nobody("no account")).await;
        let found = tenant.api::<TenantObservability>().get("iso-binding").await;
        let found = found.unwrap();
        assert_eq!(kstatus(&found), "Failed");
        assert_eq!(found.verdict("AccountReachable"), ("False", "AccessDenied"));
        let status = found.status.unwrap();
        // What the role is to ask for is said before it lets anybody in.
        assert_eq!(status.external_id.as_deref(), Some("it/iso-binding"));
        assert_eq!(status.targets, [], "nothing was made, so nothing keeps it");
        tenant.bind(Some("111122223333")).await;
        refused(&nobody("account \"111122223333\"")).await;
        let planned = plan(&tenant, &["-n", "iso-binding"]).await;
        assert_eq!(planned.code, 1);
        let told = nobody("account \"111122223333\"");
        assert!(planned.out.contains(&told), "{}", planned.out);
        let calls = about(world, mark, &tenant.account);
        assert!(calls.is_empty(), "{calls:?}");

        // Bound at last: nobody edits anything.
        let generations = async || {
            let set = tenant.now::<AlarmSet>("golden").await;
            let own = tenant.api::<TenantObservability>().get("iso-binding").await;
            (set.metadata.generation, own.unwrap().metadata.generation)
        };
        let before = generations().await;
        tenant.bind(Some(&tenant.account)).await;
        tenant.both_are("Applied").await;
        assert_eq!(generations().await, before);
        let name = tenant.name(Severity::Critical, "golden", "errors", Some("prod"));
        eventually("the alarm to tell its topic", || async {
            let actions = tenant.alarms().await[&name].alarm_actions().to_vec();
            once(actions.len() == 1, &actions)
        })
        .await;

        // Not bound any more: neither an edit nor a repair, nor even a look.
        tenant.bind(None).await;
        refused(&nobody("no account")).await;
        at_work(&clock).await;
        clock.polls(world.aws.mark(), 2).await;
        let mark = world.aws.mark();
        tenant.golden(alarms(2)).await;
        let delete = tenant.cloudwatch().delete_alarms().alarm_names(&name);
        delete.send().await.unwrap();
        refused(&nobody("no account")).await;
        clock.polls(mark, 5).await;
        let calls = about(world, mark, &tenant.account);
        assert!(calls.is_empty(), "{calls:?}");
        assert_eq!(tenant.topics().await.len(), 2, "what was made stays");

        // A deletion says what it waits for, and goes on by itself.
        tenant.delete_both().await;
        let waits = format!(
            "cleaning up in account {}, {REGION}: {}",
            tenant.account,
            nobody("no account")
        );
        for message in tenant.both_are("Deleting").await {
            assert!(message.starts_with(&waits), "{message}");
        }
        tenant.bind(Some(&tenant.account)).await;
        tenant.both_gone().await;
        assert_eq!(tenant.alarms_and_topics().await, (0, 0));
    });
}

#[test]
fn without_bindings_the_role_alone_decides() {
    test(|world| async move {
        let tenant = Tenant::new(world, "iso-unbound").await;
        tenant.bind(None).await;
        let _operator = tenant.operator_with(&OUT).await;
        at_work(&tenant).await;
        assert_eq!(tenant.alarms_and_topics().await, (1, 2));
        // The external id is the namespace's own, and no field changes it.
        tenant.trust(Trust::external_id(format!("{CLUSTER}/another")));
        tenant.ask_tenant("now").await;
        let message = tenant.tenant_is("AccessDenied").await;
        assert!(
            message.contains("with the condition sts:ExternalId = it/iso-unbound"),
            "{message}"
        );
    });
}

/// `thief` names the role and the account of `victim`, while the clients of both are warm: it is told
/// `reason`, and the victim's account sees nothing of it.
async fn refuses_a_thief(thief: &Tenant, victim: &Tenant, more: &[&str], reason: &str) {
    let world = thief.world;
    let more = [&STILL[..], more].concat();
    let operator = operator(&[thief, victim], &more).await;
    at_work(thief).await;
    at_work(victim).await;
    // The last thing that happens to it by itself is the roll-up over its set.
    victim.healthy().await;
    let before = victim.both_versions().await;
    let there = format!("{:?}", (victim.alarms().await, victim.topics().await));

    let mark = world.aws.mark();
    let mut spec = victim.usual_spec();
    for (name, role) in [("by-default", None), ("by-name", Some(victim.role()))] {
        spec["aws"]["roleArn"] = json!(role);
        let mut spec = spec.clone();
        let aws = spec["aws"].as_object_mut().unwrap();
        aws.retain(|_, value| !value.is_null());
        thief.apply::<TenantObservability>(name, spec).await;
        thief.apply::<AlarmSet>(name, golden(name)).await;
        for message in [
            thief
                .ready::<TenantObservability>(name, "AccessDenied")
                .await,
            thief.ready::<AlarmSet>(name, "AccessDenied").await,
        ] {
            assert!(message.contains(reason), "{message}");
        }
        let refused = thief.now::<TenantObservability>(name).await;
        assert_eq!(kstatus(&refused), "Failed");
        let status = refused.status.unwrap();
        // Its own namespace's, not the victim's.
        let own = format!("{CLUSTER}/{}", thief.namespace);
        assert_eq!(status.external_id, Some(own));
        assert_eq!((status.topics.len(), status.targets.len()), (0, 0));
    }
    let calls = as_whom(world, mark, &victim.account);
    assert!(calls.is_empty(), "{calls:?}");
    let asked = about(world, mark, &victim.account);
    assert!(
        asked
            .iter()
            .all(|call| { (call.operation.as_str(), call.status) == ("AssumeRole", Some(403)) }),
        "{asked:?}"
    );
    if more.contains(&OUT[0]) {
        assert!(!asked.is_empty(), "the role was asked for, and refused");
    } else {
        assert!(asked.is_empty(), "the role was not even asked for");
    }
    // Nothing keeps what was never let in.
    for name in ["by-default", "by-name"] {
        thief.delete::<AlarmSet>(name).await;
        thief.delete::<TenantObservability>(name).await;
        thief.gone::<AlarmSet>(name).await;
        thief.gone::<TenantObservability>(name).await;
    }
    let calls = as_whom(world, mark, &victim.account);
    assert!(calls.is_empty(), "{calls:?}");
    let now = format!("{:?}", (victim.alarms().await, victim.topics().await));
    assert_eq!(now, there);
    assert_eq!(
        victim.both_versions().await,
        before,
        "nor does the victim notice"
    );
    operator
        .stop(std::time::Duration::from_secs(10))
        .await
        .unwrap();
}

#[test]
fn who_names_anothers_account_is_refused_by_the_binding() {
    test(|world| async move {
        let thief = Tenant::new(world, "iso-thief").await;
        let victim = Tenant::new(world, "iso-victim").await;
        // Even where the role would let anybody in.
        victim.trust(Trust::default());
        let reason = format!(
            "Namespace iso-thief is bound to account {:?}, not to {}: nothing is done there",
            thief.account, victim.account
        );
        refuses_a_thief(&thief, &victim, &[], &reason).await;
    });
}

#[test]
fn who_names_anothers_role_is_refused_by_its_external_id() {
    test(|world| async move {
        let thief = Tenant::new(world, "iso-thief-2").await;
        let victim = Tenant::new(world, "iso-victim-2").await;
        let reason = format!("cannot assume {}: AccessDenied", victim.role());
        refuses_a_thief(&thief, &victim, &OUT, &reason).await;
    });
}

#[test]
fn two_namespaces_of_one_account_share_no_client() {
    test(|world| async move {
        let one = Tenant::new(world, "iso-one").await;
        let mut two = Tenant::new(world, "iso-two").await;
        // The same account, by a role of its own.
        two.account = one.account.clone();
        two.bind(Some(&one.account)).await;
        let other = format!("arn:aws:iam::{}:role/other", one.account);
        let ours = |tenant: &Tenant| Trust::external_id(format!("{CLUSTER}/{}", tenant.namespace));
        world.aws.role(&one.role(), ours(&one));
        world.aws.role(&other, ours(&two));
        let mark = world.aws.mark();
        let mut spec = two.usual_spec();
        spec["aws"]["roleArn"] = json!(other);
        two.tenant(spec).await;
        two.golden(errors()).await;
        let _operator = operator(&[&one, &two], &[]).await;
        at_work(&one).await;
        two.ready::<AlarmSet>("golden", "Applied").await;
        one.polls(mark, 6).await;

        let calls = about(world, mark, &one.account);
        let by = |role: &str| -> BTreeSet<String> {
            let role = format!(":assumed-role/{role}/");
            let calls = calls.iter().filter(|call| call.identity.contains(&role));
            calls.map(|call| call.access_key_id.clone()).collect()
        };
        let (first, second) = (by("campanile"), by("other"));
        assert!(!first.is_empty() && !second.is_empty());
        assert!(first.is_disjoint(&second), "{first:?} {second:?}");
        // Each writes what is its own, and nothing else.
        for (role, own, others) in [
            ("campanile", "iso-one", "iso-two"),
            ("other", "iso-two", "iso-one"),
        ] {
            let role = format!(":assumed-role/{role}/");
            let writes = calls
                .iter()
                .filter(|call| call.write && call.identity.contains(&role));
            let about: Vec<_> = writes.map(|call| call.resource.as_str()).collect();
            assert!(
                about.len() == 3
                    && about
                        .iter()
                        .all(|it| it.contains(own) && !it.contains(others)),
                "{about:?}"
            );
        }
        for (tenant, id) in [(&one, "it/iso-one"), (&two, "it/iso-two")] {
            let api = tenant.api::<TenantObservability>();
            let status = api.get(&tenant.namespace).await.unwrap().status.unwrap();
            assert_eq!(status.external_id.as_deref(), Some(id));
        }

        // What bears the same name outside is whose mark it bears.
        for tenant in [&one, &two] {
            let mut spec = two.usual_spec();
            spec["notify"] = json!({});
            if tenant.namespace == two.namespace {
                spec["aws"]["roleArn"] = json!(other);
                tenant.apply::<TenantObservability>("iso-one", spec).await;
            }
            tenant.apply::<AlarmSet>("shared", golden("iso-one")).await;
            if tenant.namespace == one.namespace {
                tenant.ready::<AlarmSet>("shared", "Applied").await;
            }
        }
        let message = two.ready::<AlarmSet>("shared", "Conflict").await;
        assert!(
            message.contains("/AlarmSet/iso-one/shared; it was not touched"),
            "{message}"
        );
        two.delete::<AlarmSet>("shared").await;
        two.gone::<AlarmSet>("shared").await;
        let shared = one.name(Severity::Critical, "shared", "errors", None);
        let there = one.alarms().await;
        let description = there[&shared].alarm_description().unwrap();
        assert!(
            description.ends_with("/AlarmSet/iso-one/shared"),
            "{description}"
        );

        // The same role is another's as long as it asks for another's external id, warm as its clients are.
        let mark = world.aws.mark();
        two.usual_tenant().await;
        let message = two.tenant_is("AccessDenied").await;
        let remedy = "with the condition sts:ExternalId = it/iso-two";
        assert!(
            message.contains("cannot assume") && message.contains(remedy),
            "{message}"
        );
        two.ready::<AlarmSet>("golden", "AccessDenied").await;
        let calls = about(world, mark, &one.account);
        let strangers = calls.iter().filter(|call| {
            call.identity.contains(":assumed-role/campanile/")
                && (call.write || call.resource.contains("iso-two"))
        });
        assert_eq!(strangers.count(), 0, "{calls:?}");
        assert_eq!(one.alarms_and_topics().await, (3, 4));
    });
}

#[test]
fn a_forged_status_leads_into_nobody_elses_account() {
    test(|world| async move {
        for (thief, victim, more, reason) in [
            ("iso-forger", "iso-forged", &[][..], "is bound to account"),
            ("iso-forger-2", "iso-forged-2", &OUT[..], "cannot assume"),
        ] {
            let thief = Tenant::new(world, thief).await;
            let victim = Tenant::new(world, victim).await;
            let more = [&STILL[..], more].concat();
            let running = operator(&[&thief, &victim], &more).await;
            at_work(&thief).await;
            at_work(&victim).await;
            let there = format!("{:?}", (victim.alarms().await, victim.topics().await));
            // One that runs would take back what somebody else writes there.
            running
                .stop(std::time::Duration::from_secs(10))
                .await
                .unwrap();
            let mark = world.aws.mark();
            // The victim's own targets, beside those of the thief.
            let set = thief.now::<AlarmSet>("golden").await;
            let theirs = victim.now::<AlarmSet>("golden").await;
            let mut targets = set.status.unwrap().targets;
            targets.extend(theirs.status.unwrap().targets);
            let own = thief.tenant_now().await;
            let theirs = victim.tenant_now().await;
            let mut topics = own.status.unwrap().targets;
            topics.extend(theirs.status.unwrap().targets);
            // The tenant's first: its set's status wakes it, and what it then writes must not undo this.
            let forged = json!({"targets": topics});
            thief
                .patch_status::<TenantObservability>(&thief.namespace, forged)
                .await;
            let forged = json!({"targets": targets});
            thief.patch_status::<AlarmSet>("golden", forged).await;
            thief.delete_both().await;
            let _operator = operator(&[&thief], &more).await;
            let place = format!("cleaning up in account {}, {REGION}: ", victim.account);
            let is_so = |message: &str| message.starts_with(&place) && message.contains(reason);
            let message = thief.ready::<AlarmSet>("golden", "Deleting").await;
            assert!(is_so(&message), "{message}");
            // It keeps its own topics until its set needs them no more.
            thief
                .until::<TenantObservability>(&thief.namespace, "its own topics gone", |tenant| {
                    let ready = tenant.condition("Ready");
                    ready.is_some_and(|ready| is_so(&ready.message))
                })
                .await;
            let calls = as_whom(world, mark, &victim.account);
            assert!(calls.is_empty(), "{calls:?}");
            let now = format!("{:?}", (victim.alarms().await, victim.topics().await));
            assert_eq!(now, there);
            // Its own things are gone, whatever else it waits for.
            assert_eq!(thief.alarms_and_topics().await, (0, 0));
            let orphan = json!({"deletionPolicy": "Orphan"});
            thief.patch::<AlarmSet>("golden", orphan.clone()).await;
            thief
                .patch::<TenantObservability>(&thief.namespace, orphan)
                .await;
            thief.both_gone().await;
            let held = victim.now::<AlarmSet>("golden").await;
            assert_eq!(held.finalizers(), [FINALIZER]);
            let calls = as_whom(world, mark, &victim.account);
            assert!(calls.is_empty(), "{calls:?}");
        }
    });
}
