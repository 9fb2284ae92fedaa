//! What is suspended is not even looked at, and says what is known of it.

use super::*;
use campanile::api::Health;
use campanile_world::process::Process;
use std::time::Duration;

/// Two tenants under one operator. The second one's polls are a clock for what the first one does not do.
async fn beside(tenant: &Tenant, clock: &Tenant) -> Process {
    let operator = tenant
        .operator_with(&["--watch-namespace", &clock.namespace])
        .await;
    clock.usual().await;
    clock.ready::<AlarmSet>("golden", "Applied").await;
    operator
}

#[test]
fn what_is_suspended_is_not_even_looked_at() {
    test(|world| async move {
        let tenant = Tenant::new(world, "own-suspended").await;
        let clock = Tenant::new(world, "own-suspended-clock").await;
        let operator = beside(&tenant, &clock).await;
        let alarms =
            |threshold: i32| json!([alarm("errors", "critical", json!({"threshold": threshold}))]);
        let set = |threshold, suspend: bool| {
            let suspend = if suspend {
                json!({"suspend": true})
            } else {
                json!({})
            };
            set_spec("own-suspended", alarms(threshold), suspend)
        };
        tenant.usual_tenant().await;
        tenant.apply::<AlarmSet>("golden", set(1, false)).await;
        tenant
            .tenant_until("healthy", |tenant| {
                tenant.holds("Healthy") && tenant.holds("Ready")
            })
            .await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;

        let stop = with(tenant.usual_spec(), json!({"suspend": true}));
        tenant.tenant(stop.clone()).await;
        tenant.apply::<AlarmSet>("golden", set(1, true)).await;
        tenant.both_are("Suspended").await;
        let set_now = async || tenant.now::<AlarmSet>("golden").await;
        assert!(set_now().await.holds("Ready") && tenant.tenant_now().await.holds("Ready"));
        assert_eq!(
            (
                kstatus(&set_now().await),
                kstatus(&tenant.tenant_now().await)
            ),
            ("Current", "Current")
        );
        // Its health is what it was, and says since when nobody looks.
        let known = tenant.tenant_now().await;
        assert_eq!(known.status.as_ref().unwrap().health, Some(Health::Healthy));
        let healthy = known.condition("Healthy").unwrap();
        assert_eq!(
            (healthy.status.as_str(), healthy.message.as_str()),
            ("True", "suspended; last known: 0/1 firing")
        );

        // What was under way when it was suspended is over; then much happens, and nothing comes of it.
        clock.polls(world.aws.mark(), 2).await;
        let mark = world.aws.mark();
        let quiet = async |times| {
            let since = world.aws.mark();
            clock.polls(since, times).await;
            let calls = about(world, mark, &tenant.account);
            assert!(calls.is_empty(), "{calls:?}");
        };
        let name = tenant.name(Severity::Critical, "golden", "errors", None);
        let delete = tenant.cloudwatch().delete_alarms().alarm_names(&name);
        delete.send().await.unwrap();
        let (_, arn) = topic(&tenant, "own-suspended", Severity::Critical);
        let delete = tenant.sns().delete_topic().topic_arn(&arn);
        delete.send().await.unwrap();
        let before = tenant.both_versions().await;
        quiet(4).await;
        assert_eq!(
            tenant.both_versions().await,
            before,
            "nothing to say, either"
        );
        // Whoever asks for a look is told that he was heard, and no more.
        tenant.look::<AlarmSet>("golden", "now").await;
        let planned = plan(&tenant, &["-n", "own-suspended"]).await;
        assert_eq!(planned.code, 0);
        assert!(
            planned.out.contains("  suspended: nothing would be done\n"),
            "{}",
            planned.out
        );
        quiet(2).await;
        // Nor does an operator that begins only now get into the account.
        operator.stop(Duration::from_secs(10)).await.unwrap();
        let before = tenant.both_versions().await;
        let _operator = beside(&tenant, &clock).await;
        quiet(2).await;
        assert_eq!(tenant.both_versions().await, before);

        // An edit is not applied, and that is said; taken back, it is as it was.
        tenant.apply::<AlarmSet>("golden", set(2, true)).await;
        let ahead = with(stop.clone(), json!({"notify": {"critical": {}}}));
        tenant.tenant(ahead).await;
        tenant.both_are("Suspended").await;
        assert!(!set_now().await.holds("Ready") && !tenant.tenant_now().await.holds("Ready"));
        assert_eq!(
            (
                kstatus(&set_now().await),
                kstatus(&tenant.tenant_now().await)
            ),
            ("InProgress", "InProgress")
        );
        tenant.tenant(stop).await;
        tenant.both_are("Suspended").await;
        assert!(!set_now().await.holds("Ready") && tenant.tenant_now().await.holds("Ready"));
        assert_eq!(
            tenant
                .tenant_now()
                .await
                .condition("Healthy")
                .unwrap()
                .message,
            "suspended; last known: 0/1 firing",
            "said once"
        );
        quiet(2).await;

        // It goes on where it is: with the edit, and with what somebody did meanwhile repaired.
        tenant.usual_tenant().await;
        tenant.apply::<AlarmSet>("golden", set(2, false)).await;
        tenant.both_are("Applied").await;
        assert_eq!(tenant.alarms().await[&name].threshold(), Some(2.0));
        assert!(tenant.topics().await.contains(&arn));
        eventually("the alarm to tell its topic", || async {
            let actions = tenant.alarms().await[&name].alarm_actions().to_vec();
            once(actions == [arn.clone()], &actions)
        })
        .await;
        tenant
            .tenant_until("healthy, as seen now", |tenant| {
                tenant.condition("Healthy").unwrap().message == "0/1 firing"
            })
            .await;

        // One that begins suspended holds nothing, is not applied, and goes at once.
        let spec = set_spec("own-suspended", alarms(1), json!({"suspend": true}));
        tenant.apply::<AlarmSet>("asleep", spec).await;
        tenant.ready::<AlarmSet>("asleep", "Suspended").await;
        let asleep = tenant.now::<AlarmSet>("asleep").await;
        assert!(!asleep.holds("Ready") && asleep.finalizers().is_empty());
        assert_eq!(kstatus(&asleep), "InProgress");
        tenant.delete::<AlarmSet>("asleep").await;
        tenant.gone::<AlarmSet>("asleep").await;

        // An edit that comes along with it is not applied either. A deletion is carried out all the same.
        let mark = world.aws.mark();
        tenant.apply::<AlarmSet>("golden", set(3, true)).await;
        tenant.ready::<AlarmSet>("golden", "Suspended").await;
        assert!(!set_now().await.holds("Ready"));
        assert_eq!(tenant.writes_since(mark), []);
        tenant
            .patch::<TenantObservability>("own-suspended", json!({"suspend": true}))
            .await;
        tenant.delete_both().await;
        tenant.both_gone().await;
        assert_eq!(tenant.alarms_and_topics().await, (0, 0));
    });
}

#[test]
fn a_tenant_says_which_of_its_sets_is_suspended() {
    test(|world| async move {
        let tenant = Tenant::new(world, "own-asleep").await;
        let clock = Tenant::new(world, "own-asleep-clock").await;
        let _operator = beside(&tenant, &clock).await;
        tenant.usual_tenant().await;
        let spec = |suspend: bool| {
            let alarms = errors();
            let more = json!({"environments": ["prod"], "suspend": suspend});
            set_spec("own-asleep", alarms, more)
        };
        tenant.apply::<AlarmSet>("golden", spec(false)).await;
        tenant.healthy().await;
        tenant.apply::<AlarmSet>("golden", spec(true)).await;
        tenant.ready::<AlarmSet>("golden", "Suspended").await;
        let asleep = "0/1 firing (suspended: AlarmSet golden)";
        let says = |text: &'static str| {
            move |tenant: &TenantObservability| tenant.condition("Healthy").unwrap().message == text
        };
        tenant.tenant_until(asleep, says(asleep)).await;
        tenant.emit("errors", "app-prod", 50.0, 1).await;
        clock.polls(world.aws.mark(), 4).await;
        let known = tenant.tenant_now().await;
        assert!(known.holds("Healthy") && says(asleep)(&known), "{known:?}");
        tenant.apply::<AlarmSet>("golden", spec(false)).await;
        tenant.comes_to(Health::Alarming).await;
    });
}

#[test]
fn what_acts_nowhere_is_applied_when_it_is_suspended() {
    test(|world| async move {
        let tenant = Tenant::new(world, "own-nowhere").await;
        let _operator = tenant.operator().await;
        let spec = |environment: &str| json!({"environments": [{"name": environment}]});
        tenant.tenant(spec("prod")).await;
        tenant.tenant_is("Applied").await;
        for (environment, is_applied, status) in
            [("prod", true, "Current"), ("pilot", false, "InProgress")]
        {
            let suspended = with(spec(environment), json!({"suspend": true}));
            tenant.tenant(suspended).await;
            tenant.tenant_is("Suspended").await;
            let found = tenant.tenant_now().await;
            assert_eq!(
                (found.holds("Ready"), kstatus(&found)),
                (is_applied, status)
            );
        }
    });
}
