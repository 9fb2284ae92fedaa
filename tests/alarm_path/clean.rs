//! What is missing is told and holds up nothing else; what goes leaves nothing behind.

use super::Site;
use crate::support::{CLUSTER, Conditions, Tenant, errors, eventually, slack::SCOPES, test};
use campanile::api::{
    AlarmSet, AlarmState, SLACK_PREFIX, Severity, SlackChannel, TenantObservability,
};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use std::collections::BTreeSet;

impl Site {
    /// Waits until nothing of ours is left in the account.
    pub(super) async fn clean(&self) {
        eventually("a clean account", || async {
            let left = self.inventory().await;
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:#?}"))
            }
        })
        .await;
    }

    /// How often EventBridge was asked for anything by the operator.
    fn asked(&self) -> usize {
        let Tenant { world, account, .. } = &self.tenant;
        world
            .aws
            .count(|call| call.service == "events" && call.account == *account)
    }

    /// Lets the operator's own token serve channels of this namespace whose names begin so.
    async fn lend(&self, prefix: &str) {
        let tenant = &self.tenant;
        tenant.annotate_namespace(SLACK_PREFIX, Some(prefix)).await;
    }
}

#[test]
fn nothing_is_left_whatever_goes_first() {
    test(|world| async move {
        let site = Site::new(world, "path-orders").await;
        let tenant = &site.tenant;
        let hook = site.hooked("alerts").await;
        let token = site.slack.bot(&SCOPES);
        let _operator = tenant.operator().await;
        let reference = json!({"name": "ops-token", "key": "token"});
        let ops =
            json!({"channel": "ops", "tokenSecretRef": reference, "adoptionPolicy": "IfExists"});
        let alerts = json!({"webhookSecretRef": {"name": "alerts-hook", "key": "url"}});
        let orders = [
            ["channels", "tenant", "secrets", "set"],
            ["channels", "secrets", "set", "tenant"],
            ["tenant", "set", "channels", "secrets"],
            ["secrets", "channels", "tenant", "set"],
            ["secrets", "tenant", "set", "channels"],
            ["set", "tenant", "secrets", "channels"],
        ];
        for order in orders {
            site.hook("alerts", &hook).await;
            site.hand_over("ops", &token).await;
            tenant.apply::<SlackChannel>("ops", ops.clone()).await;
            tenant.apply::<SlackChannel>("alerts", alerts.clone()).await;
            site.notify(json!({"critical": ["alerts", "ops"], "warning": ["ops"]}))
                .await;
            site.delivering().await;
            site.numbered(2).await;
            let counts = [
                site.count("rule").await,
                site.count("target").await,
                site.count("connection").await,
                site.count("destination").await,
                site.count("topic").await,
                site.count("alarm").await,
            ];
            assert_eq!(counts, [6, 9, 2, 2, 2, 2], "{order:?}");
            for (number, what) in order.into_iter().enumerate() {
                let others = site.inventory().await;
                match what {
                    "channels" => {
                        for name in ["alerts", "ops"] {
                            tenant.delete::<SlackChannel>(name).await;
                            tenant.gone::<SlackChannel>(name).await;
                        }
                    }
                    "tenant" => {
                        let name = &tenant.namespace;
                        tenant.delete::<TenantObservability>(name).await;
                        tenant.gone::<TenantObservability>(name).await;
                    }
                    "set" => {
                        tenant.delete::<AlarmSet>("golden").await;
                        tenant.gone::<AlarmSet>("golden").await;
                    }
                    _ => {
                        for name in ["alerts-hook", "ops-token"] {
                            tenant.delete::<Secret>(name).await;
                        }
                    }
                }
                // As long as the tenant asks for it, alarms go where they went.
                let reason = match what {
                    "channels" => "WaitingForChannel",
                    "secrets" => "WaitingForSecret",
                    _ => continue,
                };
                if number == 0 {
                    let name = &tenant.namespace;
                    tenant.ready::<TenantObservability>(name, reason).await;
                    tenant
                        .stands::<TenantObservability>(name, "DeliveryReady", "False", reason)
                        .await;
                    assert_eq!(site.inventory().await, others);
                    let before = site.slack.messages("alerts").len();
                    site.fire(1).await;
                    let told = site.told("alerts", before + 1).await;
                    let name = site.name(Severity::Critical, "a-1");
                    assert_eq!(told[before].name, name, "{order:?}");
                }
            }
            site.clean().await;
        }
        assert!(!site.slack.channel("ops").unwrap().is_archived);
        site.kept_the_rules();
    });
}

#[test]
fn a_namespace_that_goes_at_once_leaves_nothing_in_aws() {
    test(|world| async move {
        let site = Site::new(world, "path-namespace").await;
        site.hooked("alerts").await;
        site.manned("ops").await;
        site.notify(json!({"critical": ["alerts", "ops"]})).await;
        let _operator = site.tenant.operator().await;
        site.delivering().await;
        site.numbered(2).await;
        assert_eq!(site.count("target").await, 6);
        site.fire(1).await;
        site.told("alerts", 1).await;
        site.tenant.delete_namespace().await;
        site.clean().await;
        // What fired when it went was closed first, by the way that it had been told.
        let told = site.told("alerts", 2).await;
        let name = site.name(Severity::Critical, "a-1");
        assert_eq!(told[1].name, name);
        let says = &told[1].reason;
        assert!(says.contains("Campanile removes this alarm"), "{says}");
        site.kept_the_rules();
    });
}

#[test]
fn a_channel_is_taken_out_and_another_put_in() {
    test(|world| async move {
        let site = Site::new(world, "path-swap").await;
        site.hooked("alerts").await;
        site.manned("ops").await;
        site.notify(json!({"critical": ["alerts"]})).await;
        let _operator = site.tenant.operator().await;
        site.delivering().await;
        site.numbered(4).await;
        site.fire(1).await;
        site.told("alerts", 1).await;
        let with = site.inventory().await;

        // Nobody hears it in Slack; the alarm, its topic and the channels stay.
        site.notify(json!({"critical": []})).await;
        let none = site
            .tenant
            .until::<TenantObservability>("path-swap", "no way into Slack", |tenant| {
                let status = tenant.status.as_ref().unwrap();
                tenant.holds("Ready") && status.slack_paths.is_empty()
            })
            .await;
        assert_eq!(none.condition("DeliveryReady"), None);
        let of_slack = |thing: &&String| {
            let sort = thing.split(' ').next().unwrap();
            ["rule", "target", "connection", "destination"].contains(&sort)
        };
        let left: BTreeSet<_> = with.iter().filter(|it| !of_slack(it)).cloned().collect();
        assert_eq!(site.inventory().await, left);
        assert_eq!(left.len(), 5, "a topic and four alarms: {left:?}");
        for name in ["alerts", "ops"] {
            site.tenant.ready::<SlackChannel>(name, "Applied").await;
            assert!(!site.slack.channel(name).unwrap().is_archived);
        }
        site.fire(2).await;

        site.notify(json!({"critical": ["alerts"]})).await;
        site.delivering().await;
        site.fire(3).await;
        let told = site.told("alerts", 2).await;
        assert_eq!(told[1].name, site.name(Severity::Critical, "a-3"));
        site.notify(json!({"critical": ["ops"]})).await;
        site.tenant
            .until::<TenantObservability>("path-swap", "another way", |tenant| {
                let paths = &tenant.status.as_ref().unwrap().slack_paths;
                paths.iter().map(|path| &*path.channel).eq(["ops"]) && tenant.holds("DeliveryReady")
            })
            .await;
        let all = site.inventory().await;
        let old = site.hook_path("alerts");
        assert!(all.contains(&format!("connection {}", site.bot_path("ops"))));
        assert!(!all.iter().any(|thing| thing.contains(&old)), "{all:?}");
        assert_eq!(all.iter().filter(of_slack).count(), 3 + 3 + 2);
        site.fire(4).await;
        let told = site.told("ops", 1).await;
        assert_eq!(told[0].name, site.name(Severity::Critical, "a-4"));
        site.told("alerts", 2).await;
        site.kept_the_rules();
    });
}

#[test]
fn a_deletion_says_what_it_waits_for_and_one_that_lets_go_leaves_it() {
    test(|world| async move {
        let site = Site::new(world, "path-waits").await;
        let name = "path-waits";
        site.hooked("alerts").await;
        site.notify(json!({"critical": ["alerts"]})).await;
        let _operator = site.tenant.operator().await;
        site.delivering().await;
        let all = site.inventory().await;
        world.aws.deny(&site.tenant.account, "DeleteConnection");
        site.tenant.delete::<TenantObservability>(name).await;
        site.tenant
            .until::<TenantObservability>(name, "what it waits for", |tenant| {
                let ready = tenant.condition("Ready").unwrap();
                ready.reason == "Deleting" && ready.message.contains("events:DeleteConnection")
            })
            .await;
        assert_eq!(site.count("target").await, 0);
        world.aws.allow(&site.tenant.account, "DeleteConnection");
        site.nudge(name).await;
        site.tenant.gone::<TenantObservability>(name).await;
        site.clean().await;

        let mut spec = site.spec(json!({"critical": ["alerts"]}));
        spec["deletionPolicy"] = json!("Orphan");
        site.tenant.tenant(spec).await;
        site.delivering().await;
        assert_eq!(site.inventory().await, all);
        site.tenant.delete::<TenantObservability>(name).await;
        site.tenant.gone::<TenantObservability>(name).await;
        assert_eq!(site.inventory().await, all);
        // Whoever comes back finds what is its own.
        site.notify(json!({"critical": ["alerts"]})).await;
        site.delivering().await;
        assert_eq!(site.inventory().await, all);
        site.tenant.delete::<TenantObservability>(name).await;
        site.tenant.gone::<TenantObservability>(name).await;
        site.clean().await;
        site.kept_the_rules();
    });
}

#[test]
fn without_slack_eventbridge_is_asked_at_first_alone() {
    test(|world| async move {
        let site = Site::new(world, "path-none").await;
        let tenant = &site.tenant;
        tenant.usual_tenant().await;
        let _operator = tenant.operator().await;
        site.golden(errors()).await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        let name = &tenant.namespace;
        tenant.ready::<TenantObservability>(name, "Applied").await;
        tenant.polls(world.aws.mark(), 4).await;
        // One of its name may have been there before it.
        let at_first = site.asked();
        assert!(at_first <= 6, "{at_first}");
        // Neither where the role alone is there.
        site.notify(json!({"critical": [], "info": []})).await;
        tenant.ready::<TenantObservability>(name, "Applied").await;
        tenant.polls(world.aws.mark(), 4).await;
        tenant.delete::<TenantObservability>(name).await;
        tenant.gone::<TenantObservability>(name).await;
        assert_eq!(site.asked(), at_first);
    });
}

/// Where the last channel is taken out, and all that led there is gone, EventBridge is asked no more.
#[test]
fn eventbridge_is_asked_no_more_once_nothing_is_left_there() {
    test(|world| async move {
        let site = Site::new(world, "path-quiet").await;
        let (tenant, name) = (&site.tenant, "path-quiet");
        site.hooked("alerts").await;
        site.notify(json!({"critical": ["alerts"]})).await;
        let _operator = tenant.operator().await;
        site.delivering().await;
        site.numbered(1).await;
        let asked = |mark| {
            world.aws.count_since(mark, |call| {
                call.service == "events" && call.account == tenant.account
            })
        };
        // So often, while somebody wants to know.
        let mark = world.aws.mark();
        tenant.polls(mark, 8).await;
        assert!(asked(mark) > 0, "what is counted below is counted at all");
        site.notify(json!({"critical": []})).await;
        tenant
            .until::<TenantObservability>(name, "no way into Slack", |tenant| {
                let status = tenant.status.as_ref().unwrap();
                tenant.holds("Ready") && status.slack_paths.is_empty()
            })
            .await;
        eventually("EventBridge to be left alone", || async {
            let mark = world.aws.mark();
            tenant.polls(mark, 8).await;
            let asked = asked(mark);
            (asked == 0).then_some(()).ok_or_else(|| asked.to_string())
        })
        .await;
        // And it is looked after again as soon as somebody asks for it.
        site.notify(json!({"critical": ["alerts"]})).await;
        site.delivering().await;
        site.fire(1).await;
        site.told("alerts", 1).await;
        site.kept_the_rules();
    });
}

/// What a tenant says of a way into Slack that is not there.
struct Missing {
    reason: &'static str,
    says: Vec<&'static str>,
}

/// A tenant whose way into Slack is not there has its topics and its alarms, and says what is missing.
async fn is_told(site: &Site, name: &str, missing: Missing) {
    let Missing { reason, says } = missing;
    let tenant = &site.tenant;
    let spec = json!({"tenantRef": {"name": name}, "environments": ["prod"],
        "alarms": errors()});
    tenant.apply::<AlarmSet>(name, spec).await;
    tenant.ready::<AlarmSet>(name, "Applied").await;
    let ready = tenant.ready::<TenantObservability>(name, reason).await;
    let delivery = tenant
        .stands::<TenantObservability>(name, "DeliveryReady", "False", reason)
        .await;
    for part in says {
        assert!(ready.contains(part), "{name}: {part:?} in {ready:?}");
        assert!(delivery.contains(part), "{name}: {part:?} in {delivery:?}");
    }
    let healthy = tenant
        .stands::<TenantObservability>(name, "Healthy", "False", "Degraded")
        .await;
    assert!(healthy.contains(&delivery), "{name}: {healthy}");
    let object = tenant.now::<TenantObservability>(name).await;
    assert!(object.holds("AccountReachable"));
    assert!(object.holds("Reconciling") && !object.holds("Stalled"));
    let topics = object.status.unwrap().topics;
    assert_eq!(topics.len(), 1, "{name}");
    // The alarm tells its topic.
    let alarms = tenant.alarms().await.into_iter();
    let mut ours = alarms.filter(|(alarm, _)| alarm.contains(&format!("/{name}/")));
    let (_, alarm) = ours.next().unwrap();
    assert_eq!(alarm.alarm_actions(), [topics[0].arn.clone()], "{name}");
}

/// What was missing has come: an alarm gets through.
async fn is_heard(site: &Site, name: &str, channel: &str) {
    site.delivers(name).await;
    site.tenant
        .stands::<TenantObservability>(name, "Healthy", "True", "Healthy")
        .await;
    let alarm = campanile::kinds::names::alarm(
        CLUSTER,
        name,
        Severity::Critical,
        name,
        "errors",
        Some("prod"),
    );
    site.turn(&alarm, AlarmState::Alarm, "r").await;
    let told = site.told(channel, 1).await;
    assert_eq!(told[0].name, alarm);
    site.turn(&alarm, AlarmState::Ok, "r").await;
}

#[test]
fn what_is_missing_is_told_and_holds_up_nothing_else() {
    test(|world| async move {
        let site = Site::new(world, "path-missing").await;
        let tenant = &site.tenant;
        let operators = site.slack.bot(&SCOPES);
        world.aws.watch_for(&operators);
        let token = [("SLACK_BOT_TOKEN", operators.as_str())];
        let _operator = tenant.operator_in(&token, &[]).await;
        let apply = async |name: &str, channel: &str| {
            let spec = site.spec(json!({"critical": [channel]}));
            tenant.apply::<TenantObservability>(name, spec).await;
        };

        apply("no-channel", "alerts").await;
        let missing = Missing {
            reason: "WaitingForChannel",
            says: vec!["SlackChannel path-missing/alerts does not exist: create it"],
        };
        is_told(&site, "no-channel", missing).await;
        assert_eq!(site.count("connection").await + site.count("rule").await, 0);
        site.hooked("alerts").await;
        is_heard(&site, "no-channel", "alerts").await;

        site.slack.create_channel("hooks");
        let reference = json!({"webhookSecretRef": {"name": "hooks-hook", "key": "url"}});
        tenant.apply::<SlackChannel>("hooks", reference).await;
        apply("no-secret", "hooks").await;
        let missing = Missing {
            reason: "WaitingForSecret",
            says: vec!["Secret path-missing/hooks-hook does not exist: create it with the key url"],
        };
        is_told(&site, "no-secret", missing).await;
        site.hook("hooks", "https://example.com/services/T0/B0/canary")
            .await;
        site.hook("hooks", "no URL canary").await;
        let unfit = tenant
            .until::<TenantObservability>("no-secret", "an unfit URL", |tenant| {
                let ready = tenant.condition("Ready").unwrap();
                let part = "key url of Secret path-missing/hooks-hook: this is no URL of an incoming webhook";
                ready.reason == "WaitingForSecret" && ready.message.contains(part)
            })
            .await;
        assert!(!serde_json::to_string(&unfit).unwrap().contains("canary"));
        site.hook("hooks", &site.slack.webhook("hooks")).await;
        is_heard(&site, "no-secret", "hooks").await;

        // The channel is there by the operator's token, and that is no way in.
        site.lend("path_").await;
        let own = json!({"channel": "path_runs"});
        tenant.apply::<SlackChannel>("runs", own).await;
        tenant.ready::<SlackChannel>("runs", "Applied").await;
        apply("no-way", "runs").await;
        let missing = Missing {
            reason: "WaitingForChannel",
            says: vec![
                "SlackChannel path-missing/runs has no way in for alarms",
                "the operator's own token never goes into a tenant's account",
                "spec.webhookSecretRef",
                "spec.tokenSecretRef",
            ],
        };
        is_told(&site, "no-way", missing).await;
        // Nor where somebody has copied it.
        let copied = json!({"channel": "path_runs", "adoptionPolicy": "IfExists", "tokenSecretRef": {"name": "runs-token", "key": "token"}});
        site.hand_over("runs", &operators).await;
        tenant.apply::<SlackChannel>("runs", copied).await;
        let says = tenant
            .ready::<TenantObservability>("no-way", "WaitingForSecret")
            .await;
        assert!(says.contains("this is the operator's own token"), "{says}");
        let both = json!({"channel": "path_runs", "webhookSecretRef": {"name": "runs-hook", "key": "url"}});
        site.hook("runs", &site.slack.webhook("path_runs")).await;
        tenant.apply::<SlackChannel>("runs", both).await;
        is_heard(&site, "no-way", "path_runs").await;
        assert_eq!(world.aws.seen(&operators), Vec::<String>::new());
        site.kept_the_rules();
    });
}

/// One channel that is missing does not keep an alarm from the others.
#[test]
fn one_channel_that_is_missing_does_not_hold_up_the_others() {
    test(|world| async move {
        let site = Site::new(world, "path-some").await;
        let tenant = &site.tenant;
        site.hooked("alerts").await;
        site.notify(json!({"critical": ["alerts", "later"], "warning": ["later"]}))
            .await;
        let _operator = tenant.operator().await;
        let name = &tenant.namespace;
        let says = tenant
            .stands::<TenantObservability>(name, "DeliveryReady", "False", "WaitingForChannel")
            .await;
        assert!(says.contains("path-some/later"), "{says}");
        site.numbered(2).await;
        site.fire(1).await;
        site.told("alerts", 1).await;
        site.hooked("later").await;
        site.delivering().await;
        site.fire(2).await;
        site.told("alerts", 2).await;
        site.told("later", 1).await;
        // A severity whose way is missing is refused where the role is.
        let mut spec: Value = site.spec(json!({"critical": ["alerts"]}));
        spec["eventBridge"] = Value::Null;
        let refused = tenant.try_apply::<TenantObservability>(name, spec).await;
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("eventBridge.invokeRoleArn"), "{refused}");
        site.kept_the_rules();
    });
}
