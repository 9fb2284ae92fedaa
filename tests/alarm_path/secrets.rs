//! What is secret stays where it belongs; and what a plan shows of the way to Slack.

use super::Site;
use crate::support::{
    Address, Conditions, REGION, alarm, eventually, log, once, plan_as, slack::SCOPES, test,
};
use campanile::api::{AlarmSet, AlarmState, SLACK_PREFIX, Severity, SlackChannel};
use campanile_world::aws::Trouble;
use k8s_openapi::api::events::v1::Event;
use serde_json::json;
use std::{collections::BTreeSet, time::Duration};

/// What nothing may show a part of: the end, which tells one from another.
fn tail(secret: &str) -> String {
    secret[secret.len() - 12..].to_owned()
}

#[test]
fn a_secret_is_only_where_it_belongs() {
    test(|world| async move {
        let site = Site::new(world, "path-secret").await;
        let tenant = &site.tenant;
        tenant
            .annotate_namespace(SLACK_PREFIX, Some("path-secret"))
            .await;
        let operators = site.slack.bot(&SCOPES);
        let hook = site.hooked("alerts").await;
        let own = site.manned("ops").await;
        // By the operator's token, and beside it a webhook for alarms.
        let runs = |more| {
            let mut spec = json!({"channel": "path-secret-runs", "topic": "Runs"});
            if more {
                spec["webhookSecretRef"] = json!({"name": "runs-hook", "key": "url"});
            }
            spec
        };
        tenant.apply::<SlackChannel>("runs", runs(false)).await;
        let other_own = site.slack.reissue(&own);
        let other_hook = site.slack.webhook("alerts");
        let mut secrets = vec![
            operators.clone(),
            own.clone(),
            hook.clone(),
            other_own.clone(),
            other_hook.clone(),
        ];
        for secret in &secrets {
            world.aws.watch_for(secret);
        }
        let address = Address::free();
        let loud = [
            ("CAMPANILE_LOG", "debug"),
            ("SLACK_BOT_TOKEN", operators.as_str()),
        ];
        let operator = tenant.operator_in(&loud, &address.option()).await;
        let mut seen = Vec::new();
        let objects = async || {
            let own = tenant.tenant_now().await;
            let channels = tenant.list::<SlackChannel>().await;
            let events = tenant.list::<Event>().await;
            [
                serde_json::to_string(&own).unwrap(),
                serde_json::to_string(&channels).unwrap(),
                serde_json::to_string(&events).unwrap(),
            ]
        };
        let plans = async || {
            let mut all = Vec::new();
            for format in ["text", "json"] {
                let args = [
                    "-n",
                    "path-secret",
                    "-o",
                    format,
                    "--allow-private-endpoints",
                ];
                let planned = plan_as(world, &loud, &args, "").await;
                all.extend([planned.out, planned.err]);
            }
            all
        };
        // AWS quotes what it was given, in its own way.
        for (operation, given, notify) in [
            ("CreateConnection", &own, json!({"critical": ["ops"]})),
            (
                "CreateApiDestination",
                &hook,
                json!({"critical": ["alerts", "ops"], "warning": ["runs"]}),
            ),
        ] {
            let escaped = given.replace(':', "%3A").replace('/', "%2F");
            let part = given.rsplit('/').next().unwrap();
            let quoted = format!("{given} ({escaped}; '{part}') is not good");
            let refusal = Trouble::Answer(400, "ValidationException".into(), quoted);
            world.aws.trouble(&tenant.account, operation, refusal);
            site.notify(notify).await;
            let refused = tenant.tenant_is("PartiallyFailed").await;
            let says = format!(
                "AWS refused events:{operation} in account {}, {REGION}: ValidationException: ",
                tenant.account
            );
            assert!(
                refused.contains(&says) && refused.contains("is not good"),
                "{refused}"
            );
            eventually("the Event that tells the refusal", || async {
                let all = objects().await;
                let told = all[2].contains(&says);
                told.then_some(()).ok_or_else(|| all[2].clone())
            })
            .await;
            seen.extend(objects().await);
            seen.extend(plans().await);
            world.aws.allow(&tenant.account, operation);
            site.nudge("path-secret").await;
            tenant
                .tenant_until("no refusal any more", |tenant| {
                    let ready = tenant.condition("Ready").unwrap();
                    ["Applied", "WaitingForChannel"].contains(&&*ready.reason)
                })
                .await;
        }
        let third = site.slack.webhook("path-secret-runs");
        world.aws.watch_for(&third);
        secrets.push(third.clone());
        site.hook("runs", &third).await;
        tenant.apply::<SlackChannel>("runs", runs(true)).await;
        site.delivering().await;
        seen.extend(objects().await);
        seen.extend(plans().await);
        site.golden(json!([
            alarm("a-1", "critical", json!({})),
            alarm("slow", "warning", json!({}))
        ]))
        .await;
        tenant.ready::<AlarmSet>("golden", "Applied").await;
        site.fire(1).await;
        site.told("alerts", 1).await;
        site.told("ops", 1).await;

        // Other secrets.
        site.hook("alerts", &other_hook).await;
        site.hand_over("ops", &other_own).await;
        for (operation, secret) in [
            ("UpdateConnection", &other_own),
            ("UpdateApiDestination", &other_hook),
        ] {
            let call = format!("{} events:{operation}", tenant.account);
            eventually(&call, || async {
                let seen = world.aws.seen(secret);
                once(seen == [call.clone()], &seen)
            })
            .await;
        }
        site.delivering().await;
        seen.extend(objects().await);
        seen.push(address.metrics().await);

        // Somebody copies the operator's own token: it goes nowhere.
        site.hand_over("ops", &operators).await;
        tenant.tenant_is("WaitingForSecret").await;
        seen.extend(objects().await);
        seen.extend(plans().await);
        tenant.delete_tenant().await;
        tenant.tenant_gone().await;
        operator.stop(Duration::from_secs(10)).await.unwrap();
        let log = log(&operator).await;
        for line in [
            "\"api\":\"events:CreateConnection\"",
            "\"api\":\"events:UpdateConnection\"",
            "\"api\":\"events:UpdateApiDestination\"",
        ] {
            assert!(log.contains(line), "{line}");
        }
        seen.push(log);

        let asked = |secret: &str| world.aws.seen(secret).into_iter().collect::<BTreeSet<_>>();
        let calls = |operations: &[&str]| {
            let calls = operations.iter();
            calls
                .map(|it| format!("{} events:{it}", tenant.account))
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(asked(&operators), BTreeSet::new());
        assert_eq!(asked(&own), calls(&["CreateConnection"]));
        assert_eq!(asked(&other_own), calls(&["UpdateConnection"]));
        assert_eq!(asked(&hook), calls(&["CreateApiDestination"]));
        assert_eq!(asked(&third), calls(&["CreateApiDestination"]));
        assert_eq!(asked(&other_hook), calls(&["UpdateApiDestination"]));
        for text in seen {
            for secret in &secrets {
                if let Some(at) = text.find(&tail(secret)) {
                    let around = text.get(at.saturating_sub(300)..at + 60);
                    panic!("{secret} in {around:?}");
                }
            }
        }
        site.kept_the_rules();
    });
}

/// The rule, the transformer and the target, as a diff that one can read.
#[test]
fn a_plan_shows_the_way_to_slack() {
    test(|world| async move {
        let site = Site::new(world, "path-plan").await;
        let tenant = &site.tenant;
        site.hooked("alerts").await;
        site.notify(json!({"critical": ["alerts"]})).await;
        let plan = async |code: i32| {
            let args = ["-n", "path-plan", "--allow-private-endpoints"];
            let planned = plan_as(world, &[], &args, "").await;
            assert_eq!(planned.code, code, "{}{}", planned.out, planned.err);
            planned.out
        };
        let has = |told: &str, lines: &[&str]| {
            let lines = lines.iter().map(|line| format!("\n{line}\n"));
            for line in lines {
                assert!(told.contains(&line), "{line:?} in:\n{told}");
            }
        };
        let path = site.hook_path("alerts");
        let rule = |state| site.rule(Severity::Critical, state);
        let (alarm, ok) = (rule(AlarmState::Alarm), rule(AlarmState::Ok));
        let role = &site.role;
        let console =
            "https://us-east-2.console.aws.amazon.com/cloudwatch/home?region=us-east-2#alarmsV2:";
        let told = plan(2).await;
        has(
            &told,
            &[
                &format!("  + connection {path}\n      channel: alerts\n      header: X-Campanile"),
                &format!("  + api destination {path}"),
                "      method: POST\n      requests per second: 1",
                &format!("  + rule {alarm}"),
                r#"      pattern.detail: {"alarmName":[{"prefix":"campanile/it/path-plan/critical/"}],"state":{"value":["ALARM"]}}"#,
                &format!("  + rule {ok}"),
                r#"      pattern.detail.previousState: {"value":["ALARM"]}"#,
                r#"      pattern.detail.state: {"value":["OK"]}"#,
                &format!(
                    "  + rule target {alarm}/alerts\n      api destination: {path}\n      role: {role}"
                ),
                "      input.reason: $.detail.state.reason",
                "      message.attachments[0].color: #d50200",
                r##"      message.attachments[1]: {"color":"#d50200","fallback":"Reason","mrkdwn_in":[],"text":"<reason>","title":"Reason"}"##,
                &format!(
                    "      message.attachments[3].blocks[0].elements[0].url: {console}alarm/<name>"
                ),
                "      message.text: 🚨 ALARM · critical · path-plan: <alarm> <environment>",
                "9 to create, 0 to change, 0 to delete, 0 in conflict, 0 problems in 2 objects.",
            ],
        );
        // Of the webhook there is a digest.
        let digest = told.split_once("\n      endpoint: hmac:").unwrap().1;
        assert_eq!(digest.split('\n').next().unwrap().len(), 16);

        let operator = tenant.operator().await;
        site.delivering().await;
        tenant.ready::<SlackChannel>("alerts", "Applied").await;
        operator.stop(Duration::from_secs(10)).await.unwrap();
        let told = plan(0).await;
        assert_eq!(
            told.trim(),
            "Nothing would change: 2 objects are as declared."
        );

        // What somebody did outside.
        let disable = site.events().disable_rule().name(&alarm);
        disable.send().await.unwrap();
        let told = plan(2).await;
        let line = format!(
            "  ~ rule {alarm}\n      came about outside since it was applied: would be repaired\n      state: DISABLED → ENABLED"
        );
        has(&told, &[&line]);
        let enable = site.events().enable_rule().name(&alarm);
        enable.send().await.unwrap();

        let mut spec = site.spec(json!({"critical": ["alerts"]}));
        spec["displayName"] = json!("Virginia State");
        tenant.tenant(spec).await;
        let told = plan(2).await;
        has(
            &told,
            &[
                &format!("  ~ rule target {alarm}/alerts"),
                "      message.blocks[0].text.text: 🚨 ALARM · critical · path-plan → 🚨 ALARM · critical · Virginia State",
                "      message.attachments[0].blocks[0].fields[3].text: *Tenant*⏎path-plan → *Tenant*⏎Virginia State",
                &format!("  ~ rule target {ok}/alerts"),
                "0 to create, 3 to change, 0 to delete, 0 in conflict, 0 problems in 2 objects.",
            ],
        );
        assert!(!told.contains("color"), "only what changes: {told}");

        // What is not asked for any more.
        site.notify(json!({"critical": []})).await;
        let told = plan(2).await;
        has(
            &told,
            &[
                &format!("  - rule target {alarm}/alerts"),
                &format!("  - rule {alarm}"),
                &format!("  - api destination {path}"),
                &format!("  - connection {path}"),
                "0 to create, 0 to change, 8 to delete, 0 in conflict, 0 problems in 2 objects.",
            ],
        );
    });
}
