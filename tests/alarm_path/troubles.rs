//! What AWS refuses, loses and answers too late on the way to Slack: told on the resource, mended without a restart.

use super::Site;
use crate::support::{CLUSTER, Conditions, errors, test};
use campanile::{
    api::{AlarmSet, AlarmState, Severity, TenantObservability},
    kinds::names,
};
use campanile_world::aws::Trouble;
use serde_json::json;

/// What a tenant says of a trouble on its way to Slack, and how it is left.
struct Told {
    /// The reason of `Ready`.
    ready: &'static str,
    /// The reason of `DeliveryReady`.
    delivery: &'static str,
    /// What both messages say.
    says: String,
    stalled: bool,
}

/// A tenant that comes to be while something is wrong says so, and nothing else is held up. Afterwards it has each
/// thing once, and an alarm gets through.
async fn is_weathered(site: &Site, name: &str, operation: &str, trouble: Trouble, told: Told) {
    let tenant = &site.tenant;
    let account = &tenant.account;
    tenant.world.aws.trouble(account, operation, trouble);
    let spec = site.spec(json!({"critical": ["alerts"]}));
    tenant.apply::<TenantObservability>(name, spec).await;
    let spec = json!({"tenantRef": {"name": name}, "environments": ["prod"],
        "alarms": errors()});
    tenant.apply::<AlarmSet>(name, spec).await;
    tenant.ready::<AlarmSet>(name, "Applied").await;
    let says = tenant.ready::<TenantObservability>(name, told.ready).await;
    assert!(says.contains(&told.says), "{name}: {says}");
    tenant
        .stands::<TenantObservability>(name, "DeliveryReady", "False", told.delivery)
        .await;
    let object = tenant
        .until::<TenantObservability>(name, "degraded", |object| {
            let healthy = object.condition("Healthy");
            healthy.is_some_and(|healthy| healthy.reason == "Degraded")
        })
        .await;
    assert!(object.holds("AccountReachable"), "{name}");
    assert_eq!(object.holds("Stalled"), told.stalled, "{name}");
    assert_eq!(object.holds("Reconciling"), !told.stalled, "{name}");
    assert_eq!(object.status.unwrap().topics.len(), 1, "{name}");

    tenant.world.aws.allow(account, operation);
    if told.stalled {
        site.nudge(name).await;
    }
    is_whole(site, name).await;
}

/// A tenant has each thing once, and an alarm gets through.
async fn is_whole(site: &Site, name: &str) {
    site.delivers(name).await;
    let tenant = &site.tenant;
    tenant
        .stands::<TenantObservability>(name, "Healthy", "True", "Healthy")
        .await;
    let of_tenant = |thing: &String| thing.contains(&format!("_{name}_"));
    let all = site.inventory().await.into_iter().filter(of_tenant);
    let counts = all.fold([0; 5], |mut counts, thing| {
        let sorts = ["topic", "connection", "destination", "rule", "target"];
        let sort = thing.split(' ').next().unwrap();
        counts[sorts.iter().position(|known| *known == sort).unwrap()] += 1;
        counts
    });
    assert_eq!(counts, [1, 1, 1, 3, 3], "{name}");
    let before = site.slack.messages("alerts").len();
    let alarm = names::alarm(
        CLUSTER,
        name,
        Severity::Critical,
        name,
        "errors",
        Some("prod"),
    );
    site.turn(&alarm, AlarmState::Alarm, "r").await;
    let told = site.told("alerts", before + 1).await;
    assert_eq!(told[before].name, alarm);
}

#[test]
fn what_aws_refuses_on_the_way_is_told_and_mended() {
    test(|world| async move {
        let site = Site::new(world, "path-troubles").await;
        site.hooked("alerts").await;
        let _operator = site.tenant.operator().await;
        let operations = [
            "CreateConnection",
            "CreateApiDestination",
            "PutRule",
            "PutTargets",
        ];
        for (number, operation) in (1..).zip(operations) {
            let told = |ready, says, stalled| Told {
                ready,
                delivery: "SlackPathMissing",
                says,
                stalled,
            };
            let name = format!("events:{operation}");
            let allow = format!("Allow {name} to arn:aws:iam::");
            let troubles = [
                (
                    "fails",
                    Trouble::Fail5xx,
                    told("SystemUnavailable", name.clone(), false),
                ),
                ("slowed", Trouble::Throttle, told("Throttled", name, false)),
                ("denied", Trouble::Deny, told("AccessDenied", allow, true)),
            ];
            for (what, trouble, told) in troubles {
                let name = format!("{what}-{number}");
                is_weathered(&site, &name, operation, trouble, told).await;
            }
        }
        site.kept_the_rules();
    });
}

/// AWS answers PutTargets with success, and says in it of each target that it failed.
#[test]
fn an_entry_that_failed_is_an_error() {
    test(|world| async move {
        let site = Site::new(world, "path-entries").await;
        site.hooked("alerts").await;
        let _operator = site.tenant.operator().await;
        let entries = [
            (
                "refused",
                "ManagedRuleException",
                Told {
                    ready: "PartiallyFailed",
                    delivery: "SlackPathMissing",
                    says: "target alerts: no luck".into(),
                    stalled: true,
                },
            ),
            (
                "busy",
                "ConcurrentModificationException",
                Told {
                    ready: "SystemUnavailable",
                    delivery: "SlackPathMissing",
                    says: "target alerts: no luck".into(),
                    stalled: false,
                },
            ),
            (
                "broken",
                "InternalException",
                Told {
                    ready: "SystemUnavailable",
                    delivery: "SlackPathMissing",
                    says: "target alerts: no luck".into(),
                    stalled: false,
                },
            ),
        ];
        for (name, code, told) in entries {
            let trouble = Trouble::FailEntries(code.into(), "no luck".into());
            is_weathered(&site, name, "PutTargets", trouble, told).await;
        }
        // So it is with a target that is to go.
        let name = "broken";
        let trouble = Trouble::FailEntries("ManagedRuleException".into(), "no luck".into());
        world
            .aws
            .trouble(&site.tenant.account, "RemoveTargets", trouble);
        let spec = site.spec(json!({"critical": []}));
        site.tenant.apply::<TenantObservability>(name, spec).await;
        let says = site
            .tenant
            .ready::<TenantObservability>(name, "PartiallyFailed")
            .await;
        assert!(says.contains("target alerts: no luck"), "{says}");
        world.aws.allow(&site.tenant.account, "RemoveTargets");
        site.nudge(name).await;
        site.tenant
            .ready::<TenantObservability>(name, "Applied")
            .await;
        let left = site.inventory().await.into_iter();
        let left: Vec<_> = left.filter(|it| it.contains("_broken_")).collect();
        assert_eq!(left.len(), 1, "its topic: {left:?}");
        site.kept_the_rules();
    });
}

/// Who may not hand EventBridge the role is told which permission that is; and without the role nobody is called.
#[test]
fn the_role_is_handed_over() {
    test(|world| async move {
        let site = Site::new(world, "path-role").await;
        site.hooked("alerts").await;
        let _operator = site.tenant.operator().await;
        let told = Told {
            ready: "AccessDenied",
            delivery: "SlackPathMissing",
            says: format!(
                "iam:PassRole on {} with the condition iam:PassedToService = events.amazonaws.com",
                site.role
            ),
            stalled: true,
        };
        is_weathered(&site, "passed", "iam:PassRole", Trouble::Deny, told).await;
        site.kept_the_rules();
    });
}

/// What cannot be read is not taken for absence: nothing is made or deleted on it, and what stood stands.
#[test]
fn what_cannot_be_read_is_not_made_again() {
    test(|world| async move {
        let site = Site::new(world, "path-blind").await;
        site.hooked("alerts").await;
        site.notify(json!({"critical": ["alerts"]})).await;
        let tenant = &site.tenant;
        let _operator = tenant.operator().await;
        let name = &tenant.namespace;
        site.delivering().await;
        site.numbered(1).await;
        let all = site.inventory().await;
        for (operation, trouble) in [
            ("ListRules", Trouble::Fail5xx),
            ("ListConnections", Trouble::Deny),
            ("DescribeConnection", Trouble::Throttle),
            ("DescribeApiDestination", Trouble::Fail5xx),
            ("ListTargetsByRule", Trouble::Fail5xx),
        ] {
            let denied = trouble == Trouble::Deny;
            world.aws.trouble(&tenant.account, operation, trouble);
            let mark = world.aws.mark();
            let key = format!("{operation} to be tried");
            crate::support::eventually(&key, || async {
                let tried = world.aws.count_since(mark, |call| {
                    call.account == tenant.account && call.operation == operation
                });
                (tried >= 2).then_some(()).ok_or_else(|| tried.to_string())
            })
            .await;
            if denied {
                site.nudge(name).await;
                tenant
                    .ready::<TenantObservability>(name, "AccessDenied")
                    .await;
                let says = tenant
                    .stands::<TenantObservability>(
                        name,
                        "DeliveryReady",
                        "False",
                        "SlackAccessDenied",
                    )
                    .await;
                assert!(says.contains("events:ListConnections"), "{says}");
            } else {
                let object = tenant.now::<TenantObservability>(name).await;
                assert!(object.holds("Ready"), "{operation}");
            }
            assert_eq!(site.inventory().await, all, "{operation}");
            world.aws.allow(&tenant.account, operation);
            site.nudge(name).await;
            site.delivering().await;
            let writes = tenant.writes_since(mark).into_iter();
            let writes: Vec<_> = writes.filter(|(name, _)| name != "SetAlarmState").collect();
            assert_eq!(writes, [], "{operation}");
        }
        site.fire(1).await;
        site.told("alerts", 1).await;
        site.kept_the_rules();
    });
}
