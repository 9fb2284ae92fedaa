//! SlackChannel: a channel that is there as declared, from its first message to its archive.

use crate::support::{Conditions, Tenant, eventually, kstatus, plan_as, test, with};
use campanile::api::{SLACK_PREFIX, SlackChannel};
use campanile_world::slack::{Trouble, WEBHOOK, Workspace};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use std::time::Duration;

pub use crate::support::{
    log,
    slack::{SCOPES, all_scopes, bot_is, kept_the_rules, looks, spec, workspace},
};

#[test]
fn a_channel_is_made_kept_and_archived() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-journey").await;
        let (slack, token) = workspace(&tenant, &SCOPES).await;
        let ann = slack.add_user("ann@vsu.example");
        let bob = slack.add_user("bob@vsu.example");
        let _operator = tenant.operator().await;
        let declared = |more: Value| {
            let mut all = json!({
                "topic": "Workflow runs of VSU <&>",
                "purpose": "Start, completion and failure of scheduled work",
                "invite": ["ann@vsu.example", bob],
                "deletionPolicy": "Delete"
            });
            let fields = all.as_object_mut().unwrap();
            fields.extend(more.as_object().unwrap().clone());
            spec("vsu_runs", all)
        };
        tenant
            .apply::<SlackChannel>("runs", declared(json!({})))
            .await;
        tenant.ready::<SlackChannel>("runs", "Applied").await;
        let channel = slack.channel("vsu_runs").unwrap();
        let object = tenant
            .until::<SlackChannel>("runs", "its id and members", |object| {
                let status = object.status.as_ref();
                status.is_some_and(|status| {
                    status.channel_id.as_deref() == Some(&channel.id) && status.members == Some(3)
                })
            })
            .await;
        let ready = object.condition("ChannelReady").unwrap();
        assert_eq!((&*ready.status, &*ready.reason), ("True", "Available"));
        let status = object.status.unwrap();
        assert_eq!(status.channel.as_deref(), Some("vsu_runs"));
        assert_eq!(status.workspace.unwrap().team_id, slack.id());
        assert_eq!(status.invited, [bob.clone(), "ann@vsu.example".into()]);
        assert_eq!(channel.members.len(), 3, "{channel:?}");
        assert!(channel.members.contains(&ann), "{channel:?}");

        // A person turns it over; it is turned back.
        slack.rename("vsu_runs", "runs-of-old");
        slack.set_topic(&channel.id, "lunch");
        slack.kick(&channel.id, &ann);
        slack.remove_bot(&channel.id);
        eventually("the channel to be as declared", || async {
            let channel = slack.channel(&channel.id).unwrap();
            let right = channel.name == "vsu_runs"
                && channel.topic == "Workflow runs of VSU <&>"
                && channel.members.len() == 2;
            right.then_some(()).ok_or_else(|| format!("{channel:?}"))
        })
        .await;
        assert_eq!(slack.calls("conversations.create").len(), 1);
        assert_eq!(
            slack.calls("conversations.invite").len(),
            2,
            "who left has left"
        );

        // An edit renames it.
        tenant
            .apply::<SlackChannel>("runs", {
                let mut renamed = declared(json!({"topic": "Runs"}));
                renamed["channel"] = json!("vsu_workflows");
                renamed
            })
            .await;
        tenant.ready::<SlackChannel>("runs", "Applied").await;
        let renamed = slack.channel("vsu_workflows").unwrap();
        assert_eq!((&renamed.id, &*renamed.topic), (&channel.id, "Runs"));

        tenant.delete::<SlackChannel>("runs").await;
        tenant.gone::<SlackChannel>("runs").await;
        assert!(slack.channel(&channel.id).unwrap().is_archived);
        assert!(!token.is_empty());
        kept_the_rules(&tenant, &slack, 0);
    });
}

/// A private channel is made, lost, and found again; public ones are seen beside it by the same token.
#[test]
fn a_private_channel_out_of_sight_is_not_made_twice() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-private").await;
        let (slack, token) = workspace(&tenant, &all_scopes()).await;
        slack.create_channel("commons");
        let _operator = tenant.operator().await;
        let wanted = spec("vsu_ops", json!({"visibility": "Private", "topic": "Ops"}));
        tenant.apply::<SlackChannel>("ops", wanted).await;
        let commons = spec("commons", json!({"adoptionPolicy": "IfExists"}));
        tenant.apply::<SlackChannel>("commons", commons).await;
        tenant.ready::<SlackChannel>("ops", "Applied").await;
        tenant.ready::<SlackChannel>("commons", "Applied").await;
        let made = slack.channel("vsu_ops").unwrap();
        assert!(made.is_private && made.topic == "Ops", "{made:?}");
        bot_is(&slack, &token, "commons", true).await;

        slack.remove_bot("vsu_ops");
        let lost = tenant.ready::<SlackChannel>("ops", "AccessDenied").await;
        for part in [
            "vsu_ops",
            &made.id,
            "cannot be seen any more",
            "Invite the bot",
        ] {
            assert!(lost.contains(part), "{part}: {lost}");
        }
        let object = tenant.now::<SlackChannel>("ops").await;
        let ready = object.condition("ChannelReady").unwrap();
        assert_eq!((&*ready.status, &*ready.reason), ("False", "AccessDenied"));
        assert_eq!(kstatus(&object), "Failed");
        let status = object.status.unwrap();
        assert_eq!(
            status.channel_id.as_deref(),
            Some(&*made.id),
            "it is remembered"
        );
        looks(&slack, &token, slack.mark(), 2).await;
        assert_eq!(slack.calls("conversations.create").len(), 1);

        slack.invite(&made.id, &slack.bot_user(&token));
        tenant.ready::<SlackChannel>("ops", "Applied").await;
        tenant
            .stands::<SlackChannel>("ops", "ChannelReady", "True", "Available")
            .await;
        assert_eq!(slack.calls("conversations.create").len(), 1);
        kept_the_rules(&tenant, &slack, 0);
    });
}

#[test]
fn what_is_there_already_becomes_ours_only_where_the_spec_says_so() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-adopt").await;
        let (slack, token) = workspace(&tenant, &SCOPES).await;
        let id = slack.create_channel("vsu_runs");
        slack.set_topic(&id, "of old");
        let before = slack.channel(&id).unwrap();
        let _operator = tenant.operator().await;
        let runs = |policy: &str| {
            let more = json!({"topic": "Runs", "purpose": "All of them", "adoptionPolicy": policy});
            spec("vsu_runs", more)
        };
        tenant.apply::<SlackChannel>("runs", runs("Never")).await;
        let conflict = tenant.ready::<SlackChannel>("runs", "Conflict").await;
        assert!(
            conflict.contains("channel vsu_runs exists and is held by people")
                && conflict.contains("not touched")
                && conflict.contains("spec.adoptionPolicy"),
            "{conflict}"
        );
        let object = tenant
            .until::<SlackChannel>("runs", "its name taken", |object| {
                let ready = object.condition("ChannelReady");
                ready.is_some_and(|ready| ready.reason == "NameTaken")
            })
            .await;
        assert_eq!(kstatus(&object), "Failed");
        assert_eq!(object.status.unwrap().channel_id, None, "it is not ours");
        assert_eq!(slack.channel(&id).unwrap(), before);

        tenant.apply::<SlackChannel>("runs", runs("IfExists")).await;
        tenant.ready::<SlackChannel>("runs", "Applied").await;
        let adopted = slack.channel(&id).unwrap();
        assert_eq!(
            (&*adopted.topic, &*adopted.purpose),
            ("Runs", "All of them")
        );
        bot_is(&slack, &token, &id, true).await;
        let object = tenant.now::<SlackChannel>("runs").await;
        let status = object.status.unwrap();
        assert_eq!(status.channel_id.as_deref(), Some(&*id));

        // One channel is looked after by one object.
        let again = spec(
            "vsu_runs",
            json!({"adoptionPolicy": "IfExists", "topic": "Mine"}),
        );
        tenant.apply::<SlackChannel>("again", again).await;
        let second = tenant.ready::<SlackChannel>("again", "Conflict").await;
        let holder = format!("SlackChannel {}/runs", tenant.namespace);
        assert!(second.contains(&holder), "{second}");
        assert_eq!(slack.channel(&id).unwrap().topic, "Runs");

        // Archived ones keep their names.
        slack.create_channel("of-old");
        slack.archive("of-old");
        for (policy, reason) in [("Never", "Conflict"), ("IfExists", "PartiallyFailed")] {
            let old = spec("of-old", json!({"adoptionPolicy": policy}));
            tenant.apply::<SlackChannel>("old", old).await;
            let archived = tenant.ready::<SlackChannel>("old", reason).await;
            assert!(
                archived.contains("of-old") && archived.contains("archived"),
                "{archived}"
            );
        }

        let reports = spec(
            "vsu_reports",
            json!({"adoptionPolicy": "MustExist", "topic": "R"}),
        );
        tenant.apply::<SlackChannel>("reports", reports).await;
        let missing = tenant
            .ready::<SlackChannel>("reports", "PartiallyFailed")
            .await;
        for part in ["vsu_reports does not exist", "MustExist", "IfExists"] {
            assert!(missing.contains(part), "{missing}");
        }
        tenant
            .stands::<SlackChannel>("reports", "ChannelReady", "False", "NotAsDeclared")
            .await;
        slack.create_channel("vsu_reports");
        tenant.ready::<SlackChannel>("reports", "Applied").await;
        assert_eq!(slack.channel("vsu_reports").unwrap().topic, "R");
        let made = slack.calls("conversations.create");
        assert!(made.iter().all(|call| !call.succeeded()), "{made:#?}");
        kept_the_rules(&tenant, &slack, 0);
    });
}

#[test]
fn people_are_invited_once_each() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-people").await;
        let (slack, _) = workspace(&tenant, &SCOPES).await;
        let ann = slack.add_user("ann@vsu.example");
        let bob = slack.add_user("bob@vsu.example");
        let eve = slack.add_user("eve@vsu.example");
        slack.deactivate(&eve);
        let _operator = tenant.operator().await;
        let runs = |invite: Value| spec("vsu_runs", json!({"invite": invite}));
        let all = json!(["ann@vsu.example", "nobody@vsu.example", bob]);
        tenant.apply::<SlackChannel>("runs", runs(all)).await;
        let unknown = tenant
            .ready::<SlackChannel>("runs", "PartiallyFailed")
            .await;
        assert!(
            unknown.contains("nobody@vsu.example") && unknown.contains("spec.invite"),
            "{unknown}"
        );
        let within = |users: &[&String]| {
            let channel = slack.channel("vsu_runs").unwrap();
            users.iter().all(|user| channel.members.contains(*user))
        };
        assert!(within(&[&ann, &bob]), "the others are there all the same");
        let object = tenant.now::<SlackChannel>("runs").await;
        assert!(object.holds("ChannelReady"), "messages get in");
        let mut invited = object.status.unwrap().invited;
        invited.sort();
        let mut expected = vec![bob.clone(), "ann@vsu.example".into()];
        expected.sort();
        assert_eq!(invited, expected);

        // Who is deactivated is told by id; by address Slack knows nobody.
        let all = json!(["ann@vsu.example", bob, eve]);
        tenant.apply::<SlackChannel>("runs", runs(all)).await;
        let gone = tenant
            .ready::<SlackChannel>("runs", "PartiallyFailed")
            .await;
        assert!(
            gone.contains("cant_invite") && gone.contains(&eve),
            "{gone}"
        );
        let all = json!([bob, "eve@vsu.example"]);
        tenant.apply::<SlackChannel>("runs", runs(all)).await;
        let gone = tenant
            .ready::<SlackChannel>("runs", "PartiallyFailed")
            .await;
        assert!(gone.contains("eve@vsu.example"), "{gone}");
        assert!(within(&[&ann]), "nobody is ever removed");

        // Who leaves has left; the others are not asked again for it.
        tenant
            .apply::<SlackChannel>("runs", runs(json!([bob])))
            .await;
        tenant.ready::<SlackChannel>("runs", "Applied").await;
        let invitations = || slack.calls("conversations.invite").len();
        let before = invitations();
        slack.kick("vsu_runs", &bob);
        tenant
            .until::<SlackChannel>("runs", "one less in it", |object| {
                object.status.as_ref().unwrap().members == Some(2)
            })
            .await;
        tenant.ready::<SlackChannel>("runs", "Applied").await;
        assert_eq!((within(&[&bob]), invitations()), (false, before));

        // Taken off the list and put back is asked for anew.
        tenant
            .apply::<SlackChannel>("runs", runs(Value::Null))
            .await;
        tenant
            .until::<SlackChannel>("runs", "nobody on the list", |object| {
                let status = object.status.as_ref().unwrap();
                status.invited.is_empty()
                    && status.common.observed_generation == object.metadata.generation
            })
            .await;
        tenant
            .apply::<SlackChannel>("runs", runs(json!([bob])))
            .await;
        eventually("bob to be back", || async {
            if within(&[&bob]) {
                Ok(())
            } else {
                Err(format!("{:?}", slack.channel("vsu_runs")))
            }
        })
        .await;
        tenant.ready::<SlackChannel>("runs", "Applied").await;
        kept_the_rules(&tenant, &slack, 0);
    });
}

fn webhook(more: Value) -> Value {
    let spec = json!({"webhookSecretRef": {"name": "hook", "key": "url"}});
    with(spec, more)
}

/// A webhook alone needs no token; whether it lives is known without anything being posted.
#[test]
fn a_webhook_is_watched_and_nothing_is_posted() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-hook").await;
        let (slack, _) = workspace(&tenant, &SCOPES).await;
        slack.create_channel("alerts");
        let first = slack.webhook("alerts");
        let _operator = tenant.operator().await;
        tenant
            .apply::<SlackChannel>("hook", webhook(json!({})))
            .await;
        let waits = tenant
            .ready::<SlackChannel>("hook", "WaitingForSecret")
            .await;
        assert!(waits.contains("Secret slack-hook/hook"), "{waits}");
        tenant.secret("hook", "url", &first).await;
        tenant.ready::<SlackChannel>("hook", "Applied").await;
        let object = tenant.now::<SlackChannel>("hook").await;
        assert!(object.holds("WebhookReady"));
        assert!(object.condition("ChannelReady").is_none());
        assert_eq!(kstatus(&object), "Current");

        for (worse, better) in [
            (
                Workspace::revoke_webhook as fn(&Workspace, &str),
                Workspace::restore_webhook as fn(&Workspace, &str),
            ),
            (Workspace::disable_webhook, Workspace::restore_webhook),
            (
                |slack, _| slack.archive("alerts"),
                |slack, _| slack.unarchive("alerts"),
            ),
        ] {
            worse(&slack, &first);
            let revoked = tenant
                .stands::<SlackChannel>("hook", "WebhookReady", "False", "Revoked")
                .await;
            let ready = tenant
                .ready::<SlackChannel>("hook", "PartiallyFailed")
                .await;
            for message in [revoked, ready] {
                assert!(
                    message.contains("Secret slack-hook/hook, key url")
                        && message.contains("incoming webhook for")
                        && !message.contains(&first),
                    "{message}"
                );
            }
            better(&slack, &first);
            tenant.ready::<SlackChannel>("hook", "Applied").await;
        }
        slack.revoke_webhook(&first);
        tenant
            .stands::<SlackChannel>("hook", "WebhookReady", "False", "Revoked")
            .await;
        let second = slack.webhook("alerts");
        tenant.secret("hook", "url", &second).await;
        tenant.ready::<SlackChannel>("hook", "Applied").await;
        tenant
            .stands::<SlackChannel>("hook", "WebhookReady", "True", "TakesMessages")
            .await;

        // Slack takes one post a second. That another came first says nothing against the webhook, and a plan
        // goes by what status says.
        let mark = slack.mark();
        let wait = Trouble::RateLimited { retry_after: 1 };
        slack.trouble_in("alerts", WEBHOOK, wait, None);
        let refused = || {
            let calls = slack.calls_since(mark, WEBHOOK);
            calls.iter().filter(|call| call.status == Some(429)).count()
        };
        eventually("three looks that come too soon", async || match refused() {
            0..3 => Err(format!("{:#?}", slack.calls_since(mark, WEBHOOK))),
            _ => Ok(()),
        })
        .await;
        let object = tenant.now::<SlackChannel>("hook").await;
        assert!(object.holds("Ready") && object.holds("WebhookReady"));
        let args = ["-n", "slack-hook", "--allow-private-endpoints"];
        let planned = plan_as(world, &[], &args, "").await;
        assert_eq!(planned.code, 0, "{}{}", planned.out, planned.err);
        slack.lift_in("alerts", WEBHOOK);

        // Another that does not answer is nobody else's trouble.
        slack.create_channel("failing");
        let third = slack.webhook("failing");
        tenant.secret("third", "url", &third).await;
        let wait = Trouble::RateLimited { retry_after: 3 };
        slack.trouble_in("failing", WEBHOOK, wait, 1);
        let down = Trouble::Error("rollup_error".into());
        slack.trouble_in("failing", WEBHOOK, down, None);
        let failing = json!({"webhookSecretRef": {"name": "third", "key": "url"}});
        tenant.apply::<SlackChannel>("failing", failing).await;
        tenant.ready::<SlackChannel>("failing", "Throttled").await;
        let told = tenant
            .ready::<SlackChannel>("failing", "SystemUnavailable")
            .await;
        assert!(told.contains("HTTP 500: rollup_error"), "{told}");
        let calls = slack.calls(WEBHOOK).into_iter();
        let calls: Vec<_> = calls.filter(|call| third.ends_with(&call.token)).collect();
        let wait = Duration::try_from(calls[1].at - calls[0].at).unwrap();
        assert!(wait >= Duration::from_secs(3), "{wait:?}");
        tenant.secret("hook", "url", &first).await;
        tenant
            .stands::<SlackChannel>("hook", "WebhookReady", "False", "Revoked")
            .await;
        tenant.secret("hook", "url", &second).await;
        tenant
            .stands::<SlackChannel>("hook", "WebhookReady", "True", "TakesMessages")
            .await;
        slack.lift_in("failing", WEBHOOK);
        tenant.ready::<SlackChannel>("failing", "Applied").await;

        // A webhook of one channel beside the care for it.
        let both = spec(
            "alerts",
            json!({"topic": "Alerts", "adoptionPolicy": "IfExists"}),
        );
        tenant.apply::<SlackChannel>("both", webhook(both)).await;
        tenant.ready::<SlackChannel>("both", "Applied").await;
        let object = tenant.now::<SlackChannel>("both").await;
        assert!(object.holds("WebhookReady") && object.holds("ChannelReady"));
        assert_eq!(slack.channel("alerts").unwrap().topic, "Alerts");
        // What ails one says nothing of the other.
        slack.revoke_webhook(&second);
        tenant
            .stands::<SlackChannel>("both", "WebhookReady", "False", "Revoked")
            .await;
        let object = tenant.now::<SlackChannel>("both").await;
        assert!(object.holds("ChannelReady"), "{object:?}");
        slack.set_topic("alerts", "lunch");
        eventually("its topic to be set again", || async {
            match slack.channel("alerts").unwrap().topic {
                topic if topic == "Alerts" => Ok(()),
                other => Err(other),
            }
        })
        .await;
        assert_eq!(slack.messages("alerts"), []);
        let posted = slack.calls(WEBHOOK);
        assert!(posted.iter().all(|call| call.body == "{}"), "{posted:#?}");
        kept_the_rules(&tenant, &slack, 0);
    });
}

/// Where a webhook's messages go is the Secret's to say, but not to places of the cluster's own.
#[test]
fn a_webhook_that_is_none_of_slacks_is_not_asked() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-elsewhere").await;
        let (slack, _) = workspace(&tenant, &SCOPES).await;
        let url = slack.webhook("general");
        tenant.secret("hook", "url", &url).await;
        tenant
            .secret("slack", "token", "xoxb-none-of-this-workspace")
            .await;
        let _operator = tenant
            .operator_with(&["--allow-private-endpoints=false"])
            .await;
        tenant
            .apply::<SlackChannel>("hook", webhook(json!({})))
            .await;
        for (text, says) in [
            (&*url, "its host is not hooks.slack.com"),
            (
                "http://hooks.slack.com/services/T0/B0/canary",
                "does not begin with https://",
            ),
            (
                "https://canary@hooks.slack.com/services/T0/B0/X0",
                "before its host",
            ),
            (
                "https://hooks.slack.com/workflows/T0/B0/canary",
                "incoming webhook",
            ),
            ("canary", "it is no URL"),
        ] {
            tenant.secret("hook", "url", text).await;
            let told = eventually(says, || async {
                let message = tenant
                    .ready::<SlackChannel>("hook", "WaitingForSecret")
                    .await;
                if message.contains(says) {
                    Ok(message)
                } else {
                    Err(message)
                }
            })
            .await;
            assert!(
                told.contains("Secret slack-elsewhere/hook, key url")
                    && !told.contains("canary")
                    && !told.contains(&url),
                "{told}"
            );
        }
        let object = tenant.now::<SlackChannel>("hook").await;
        assert_eq!(kstatus(&object), "InProgress");
        let ready = object.condition("WebhookReady").unwrap();
        assert_eq!(
            (&*ready.status, &*ready.reason),
            ("False", "WaitingForSecret")
        );
        assert_eq!(slack.calls(WEBHOOK), []);
        kept_the_rules(&tenant, &slack, 0);
    });
}

#[test]
fn the_operators_own_token_serves_within_a_prefix() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-own").await;
        let slack = world.slack.workspace("slack-own");
        slack.limit_rates();
        let token = slack.bot(&SCOPES);
        let _operator = tenant
            .operator_in(&[("SLACK_BOT_TOKEN", &token)], &[])
            .await;
        let own = |channel: &str| json!({"channel": channel, "topic": "Runs"});
        tenant.apply::<SlackChannel>("runs", own("vsu_runs")).await;
        let denied = tenant.ready::<SlackChannel>("runs", "AccessDenied").await;
        for part in [
            "Namespace slack-own",
            SLACK_PREFIX,
            "platform team",
            "name a Secret",
        ] {
            assert!(denied.contains(part), "{denied}");
        }
        // A Secret that is named and missing never falls back to it.
        let named = spec("vsu_named", json!({}));
        tenant.apply::<SlackChannel>("named", named).await;
        let waits = tenant
            .ready::<SlackChannel>("named", "WaitingForSecret")
            .await;
        assert!(
            waits.contains("Secret slack-own/slack does not exist"),
            "{waits}"
        );
        assert_eq!(world.slack.count(|call| call.token == token), 0);

        tenant.annotate_namespace(SLACK_PREFIX, Some("vsu_")).await;
        tenant.ready::<SlackChannel>("runs", "Applied").await;
        let object = tenant.now::<SlackChannel>("runs").await;
        let status = serde_json::to_string(&object.status).unwrap();
        assert!(status.contains("the operator's own token"), "{status}");
        tenant.apply::<SlackChannel>("other", own("fsu_runs")).await;
        let outside = tenant.ready::<SlackChannel>("other", "AccessDenied").await;
        for part in ["\"vsu_\"", "fsu_runs", SLACK_PREFIX] {
            assert!(outside.contains(part), "{outside}");
        }
        // Nor is it renamed out of the prefix.
        tenant.apply::<SlackChannel>("runs", own("fsu_runs")).await;
        tenant.ready::<SlackChannel>("runs", "AccessDenied").await;
        tenant.apply::<SlackChannel>("runs", own("vsu_runs")).await;
        tenant.ready::<SlackChannel>("runs", "Applied").await;
        tenant
            .ready::<SlackChannel>("named", "WaitingForSecret")
            .await;
        let names: Vec<_> = slack.channels().into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["general", "vsu_runs"]);

        tenant.annotate_namespace(SLACK_PREFIX, None).await;
        let denied = tenant.ready::<SlackChannel>("runs", "AccessDenied").await;
        assert!(denied.contains(SLACK_PREFIX), "{denied}");
        slack.set_topic("vsu_runs", "lunch");
        tenant.annotate_namespace(SLACK_PREFIX, Some("vsu_r")).await;
        tenant.ready::<SlackChannel>("runs", "Applied").await;
        eventually("the topic to be set again", || async {
            match slack.channel("vsu_runs").unwrap().topic {
                topic if topic == "Runs" => Ok(()),
                other => Err(other),
            }
        })
        .await;
        kept_the_rules(&tenant, &slack, 0);
    });
}

#[test]
fn a_channel_stays_or_is_archived_when_its_object_goes() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-gone").await;
        let (slack, token) = workspace(&tenant, &SCOPES).await;
        let operator = tenant.operator().await;
        let archived = json!({"deletionPolicy": "Delete"});
        tenant
            .apply::<SlackChannel>("stays", spec("vsu_stays", json!({})))
            .await;
        for name in ["goes", "left"] {
            let wanted = spec(&format!("vsu_{name}"), archived.clone());
            tenant.apply::<SlackChannel>(name, wanted).await;
        }
        for name in ["stays", "goes", "left"] {
            tenant.ready::<SlackChannel>(name, "Applied").await;
        }
        let is_archived = |name: &str| slack.channel(name).unwrap().is_archived;
        tenant.delete::<SlackChannel>("stays").await;
        tenant.gone::<SlackChannel>("stays").await;
        assert!(!is_archived("vsu_stays"));
        assert_eq!(slack.calls("conversations.archive"), []);

        // The Secret first: the process remembers what was in it.
        tenant.delete::<Secret>("slack").await;
        let waits = tenant
            .ready::<SlackChannel>("goes", "WaitingForSecret")
            .await;
        assert!(
            waits.contains("Secret slack-gone/slack does not exist"),
            "{waits}"
        );
        tenant.delete::<SlackChannel>("goes").await;
        tenant.gone::<SlackChannel>("goes").await;
        assert!(is_archived("vsu_goes") && !is_archived("vsu_left"));
        let log = log(&operator).await;
        assert!(
            log.contains("\"api\":\"slack:conversations.archive\""),
            "an audit line"
        );
        assert!(!log.contains("let go: nobody could clean up"));

        // Nobody is left who knows the token.
        operator.stop(Duration::from_secs(10)).await.unwrap();
        tenant.delete::<SlackChannel>("left").await;
        let operator = tenant.operator_with(&["--release-after", "2s"]).await;
        tenant.gone::<SlackChannel>("left").await;

        // Nor is there a way by a token that is dead, or of another workspace.
        let elsewhere = world.slack.workspace("slack-gone-2").bot(&SCOPES);
        for name in ["dead", "elsewhere"] {
            tenant.secret("slack", "token", &token).await;
            let wanted = spec(&format!("vsu_{name}"), archived.clone());
            tenant.apply::<SlackChannel>(name, wanted).await;
            tenant.ready::<SlackChannel>(name, "Applied").await;
            if name == "dead" {
                slack.revoke(&token);
                tenant.ready::<SlackChannel>(name, "AccessDenied").await;
            } else {
                tenant.secret("slack", "token", &elsewhere).await;
                tenant.ready::<SlackChannel>(name, "Conflict").await;
            }
            tenant.delete::<SlackChannel>(name).await;
            tenant.gone::<SlackChannel>(name).await;
            slack.restore(&token);
        }
        let log = self::log(&operator).await;
        for (name, why) in [
            ("left", "Secret slack-gone/slack does not exist"),
            ("dead", "token_revoked"),
            ("elsewhere", "leads to workspace slack-gone-2"),
        ] {
            assert!(!is_archived(&format!("vsu_{name}")), "{name}");
            let object = format!("SlackChannel slack-gone/{name}");
            let mut lines = log.lines();
            let line = lines.find(|line| line.contains("let go: ") && line.contains(&object));
            let line = line.unwrap_or_else(|| panic!("no audit line of {name}: {log}"));
            assert!(line.contains("\"target\":\"campanile::audit\""), "{line}");
            assert!(
                line.contains("nobody could clean up") && line.contains(why),
                "{line}"
            );
        }
        kept_the_rules(&tenant, &slack, 0);
    });
}

#[test]
fn a_namespace_that_goes_at_once_leaves_its_channels_archived() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-namespace").await;
        let (slack, _) = workspace(&tenant, &SCOPES).await;
        slack.create_channel("alerts");
        tenant.secret("hook", "url", &slack.webhook("alerts")).await;
        let _operator = tenant.operator().await;
        let archived = json!({"deletionPolicy": "Delete"});
        let runs = spec("vsu_runs", archived.clone());
        tenant.apply::<SlackChannel>("runs", runs.clone()).await;
        tenant
            .apply::<SlackChannel>("hook", webhook(archived))
            .await;
        let both = webhook(with(runs, json!({"channel": "vsu_both"})));
        tenant.apply::<SlackChannel>("both", both).await;
        for name in ["runs", "hook", "both"] {
            tenant.ready::<SlackChannel>(name, "Applied").await;
        }
        tenant.delete_namespace().await;
        for name in ["vsu_runs", "vsu_both"] {
            assert!(slack.channel(name).unwrap().is_archived, "{name}");
        }
        assert!(!slack.channel("alerts").unwrap().is_archived);
        kept_the_rules(&tenant, &slack, 0);
    });
}

#[test]
fn a_deletion_waits_for_slack_to_be_back() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-down").await;
        let (slack, _) = workspace(&tenant, &SCOPES).await;
        let _operator = tenant.operator().await;
        let wanted = spec("vsu_runs", json!({"deletionPolicy": "Delete"}));
        tenant.apply::<SlackChannel>("runs", wanted).await;
        tenant.ready::<SlackChannel>("runs", "Applied").await;
        slack.trouble("*", Trouble::CutBefore, None);
        tenant.delete::<SlackChannel>("runs").await;
        let object = tenant
            .until::<SlackChannel>("runs", "why it is still there", |object| {
                let ready = object.condition("Ready").unwrap();
                ready.reason == "Deleting" && ready.message.contains("Slack: ")
            })
            .await;
        assert_eq!(kstatus(&object), "Terminating");
        slack.lift("*");
        tenant.gone::<SlackChannel>("runs").await;
        assert!(slack.channel("vsu_runs").unwrap().is_archived);
        kept_the_rules(&tenant, &slack, 0);
    });
}

/// What `kubectl wait`, Flux and Argo CD see.
#[test]
fn a_channel_says_how_it_stands() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-stands").await;
        let slack = world.slack.workspace("slack-stands");
        slack.limit_rates();
        let (token, witness) = (slack.bot(&SCOPES), slack.bot(&SCOPES));
        let _operator = tenant.operator().await;
        let runs = |more: Value| spec("vsu_runs", with(json!({"topic": "Runs"}), more));
        tenant.apply::<SlackChannel>("runs", runs(json!({}))).await;
        let waits = tenant
            .ready::<SlackChannel>("runs", "WaitingForSecret")
            .await;
        assert!(
            waits
                .contains("Secret slack-stands/slack does not exist: create it with the key token"),
            "{waits}"
        );
        let object = tenant.now::<SlackChannel>("runs").await;
        assert!(object.holds("Reconciling") && !object.holds("Stalled"));
        assert_eq!(kstatus(&object), "InProgress");
        for (text, says) in [
            ("xoxp-canary-1", "it is a user token (xoxp-…)"),
            ("xapp-canary-1", "it is an app-level token (xapp-…)"),
            ("xoxe.xoxb-canary-1", "token rotation"),
            ("canary", "it does not begin with xoxb-"),
            ("xoxb-ca nary", "characters in it that no token has"),
            ("", "it is empty"),
        ] {
            tenant.secret("slack", "token", text).await;
            eventually(says, || async {
                let message = tenant
                    .ready::<SlackChannel>("runs", "WaitingForSecret")
                    .await;
                assert!(!message.contains("nary"), "{message}");
                let place = message.contains("Secret slack-stands/slack, key token");
                if place && message.contains(says) {
                    Ok(())
                } else {
                    Err(message)
                }
            })
            .await;
        }
        tenant.secret("slack", "other", &token).await;
        eventually("the key to be missed", || async {
            let message = tenant
                .ready::<SlackChannel>("runs", "WaitingForSecret")
                .await;
            let right = message.contains("Secret slack-stands/slack has no key token");
            if right { Ok(()) } else { Err(message) }
        })
        .await;
        assert!(slack.calls("auth.test").is_empty());
        // With what an editor leaves at its end.
        tenant.secret("slack", "token", &format!("{token}\n")).await;
        let summary = tenant.ready::<SlackChannel>("runs", "Applied").await;
        assert!(summary.contains("channel vsu_runs"), "{summary}");
        let object = tenant.now::<SlackChannel>("runs").await;
        assert_eq!(kstatus(&object), "Current");
        let status = object.status.unwrap();
        let channel = slack.channel("vsu_runs").unwrap();
        let link = format!("{}archives/{}", slack.url(), channel.id);
        assert_eq!(status.link.as_deref(), Some(&*link));

        // Suspended: whatever happens there is not even looked at.
        let suspended = runs(json!({"suspend": true}));
        tenant.apply::<SlackChannel>("runs", suspended).await;
        tenant.ready::<SlackChannel>("runs", "Suspended").await;
        let object = tenant.now::<SlackChannel>("runs").await;
        assert_eq!((kstatus(&object), object.holds("Ready")), ("Current", true));
        slack.set_topic("vsu_runs", "lunch");
        let mark = slack.mark();
        tenant.secret("witness", "token", &witness).await;
        let other =
            json!({"channel": "witness", "tokenSecretRef": {"name": "witness", "key": "token"}});
        tenant.apply::<SlackChannel>("witness", other).await;
        tenant.ready::<SlackChannel>("witness", "Applied").await;
        looks(&slack, &witness, slack.mark(), 2).await;
        let calls = slack.all_calls_since(mark).into_iter();
        let calls: Vec<_> = calls.filter(|call| call.token == token).collect();
        assert!(calls.is_empty(), "{calls:#?}");
        let suspended = runs(json!({"suspend": true, "purpose": "More"}));
        tenant.apply::<SlackChannel>("runs", suspended).await;
        let object = tenant
            .until::<SlackChannel>("runs", "behind its spec", |object| !object.holds("Ready"))
            .await;
        assert_eq!(object.condition("Ready").unwrap().reason, "Suspended");
        assert_eq!(kstatus(&object), "InProgress");
        tenant
            .apply::<SlackChannel>("runs", runs(json!({"purpose": "More"})))
            .await;
        tenant.ready::<SlackChannel>("runs", "Applied").await;
        let channel = slack.channel("vsu_runs").unwrap();
        assert_eq!((&*channel.topic, &*channel.purpose), ("Runs", "More"));
        kept_the_rules(&tenant, &slack, 0);
    });
}

#[test]
fn a_channel_that_cannot_work_is_refused_with_what_to_do() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-schema").await;
        let token = json!({"name": "slack", "key": "token"});
        let about = "tokenSecretRef, topic, purpose, invite, visibility and adoptionPolicy are about a channel: add channel, or remove them";
        let many: Vec<_> = (0..51).map(|n| format!("p{n}@vsu.example")).collect();
        let named = "a channel's name has lower-case letters, digits, _ and - only, and no #";
        let invited = "invite people by the address that Slack knows";
        for (spec, expected) in [
            (
                json!({}),
                "a SlackChannel is a channel, an incoming webhook, or both: add channel or webhookSecretRef",
            ),
            (
                json!({"tokenSecretRef": token}),
                "a SlackChannel is a channel, an incoming webhook, or both",
            ),
            (webhook(json!({"topic": "T"})), about),
            (webhook(json!({"purpose": "P"})), about),
            (webhook(json!({"invite": ["U012AB3CD"]})), about),
            (webhook(json!({"visibility": "Private"})), about),
            (webhook(json!({"adoptionPolicy": "IfExists"})), about),
            (webhook(json!({"tokenSecretRef": token})), about),
            (spec("Alerts", json!({})), named),
            (spec("#alerts", json!({})), named),
            (spec("vsu alerts", json!({})), named),
            (spec("vsu.alerts", json!({})), named),
            (spec("vsü", json!({})), named),
            (spec("", json!({})), "spec.channel"),
            (
                spec(&"a".repeat(81), json!({})),
                "spec.channel: Too long: may not be more than 80",
            ),
            (
                spec("a", json!({"topic": "t".repeat(251)})),
                "spec.topic: Too long: may not be more than 250",
            ),
            (spec("a", json!({"topic": ""})), "spec.topic"),
            (
                spec("a", json!({"purpose": "p".repeat(251)})),
                "spec.purpose: Too long: may not be more than 250",
            ),
            (
                spec("a", json!({"invite": many})),
                "spec.invite: Too many: 51: must have at most 50 items",
            ),
            (spec("a", json!({"invite": ["ann"]})), invited),
            (
                spec("a", json!({"invite": ["ann@vsu.example", "@ann"]})),
                "spec.invite[1]",
            ),
            (spec("a", json!({"invite": ["ann@vsu"]})), invited),
            (
                spec("a", json!({"invite": ["ann@vsu.example,bob@vsu.example"]})),
                invited,
            ),
            (spec("a", json!({"invite": ["C012AB3CD"]})), invited),
            (spec("a", json!({"invite": ["u012ab3cd"]})), invited),
            (
                spec("a", json!({"invite": ["U012AB3CD", "U012AB3CD"]})),
                "uplicate",
            ),
            (
                spec("a", json!({"visibility": "Secret"})),
                "supported values: \"Public\", \"Private\"",
            ),
            (
                spec("a", json!({"deletionPolicy": "Archive"})),
                "supported values: \"Delete\", \"Orphan\"",
            ),
            (
                spec("a", json!({"tokenSecretRef": {"name": "slack"}})),
                "spec.tokenSecretRef.key: Required value",
            ),
            (
                json!({"webhookSecretRef": {"name": "Hook", "key": "url"}}),
                "spec.webhookSecretRef.name",
            ),
        ] {
            tenant
                .refuses::<SlackChannel>("refused", spec, expected)
                .await;
        }
        for name in ["a.b", &"a".repeat(64)] {
            let spec = spec("a", json!({}));
            tenant
                .refuses::<SlackChannel>(name, spec, "metadata.name")
                .await;
        }

        // What cannot be changed.
        let public = spec("a", json!({}));
        tenant.apply::<SlackChannel>("public", public.clone()).await;
        let stated = with(public.clone(), json!({"visibility": "Public"}));
        tenant.apply::<SlackChannel>("public", stated).await;
        let private = with(public, json!({"visibility": "Private"}));
        tenant
            .apply::<SlackChannel>("private", private.clone())
            .await;
        for (name, to) in [("public", json!("Private")), ("private", Value::Null)] {
            let spec = with(private.clone(), json!({"visibility": to}));
            let refused = tenant.try_apply::<SlackChannel>(name, spec).await;
            let error = refused.expect_err(name).to_string();
            assert!(
                error.contains("visibility cannot be changed") && error.contains("make a new one"),
                "{error}"
            );
        }
        // Before anybody looks after it, it is not done with: kstatus knows that by the generation.
        let written = tenant.now::<SlackChannel>("public").await;
        assert!(written.conditions().is_empty());
    });
}

#[test]
fn every_part_of_a_channel_may_be_as_long_as_its_bound() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-bounds").await;
        let key = json!({"name": "s".repeat(253), "key": "k".repeat(253)});
        let end = ".example";
        let people: Vec<_> = (0..50)
            .map(|n| {
                format!(
                    "{n:02}{}@{}{end}",
                    "a".repeat(62),
                    "b".repeat(254 - 65 - end.len())
                )
            })
            .collect();
        assert!(people.iter().all(|address| address.len() == 254));
        // The bounds are of characters.
        let full = |letter: &str| {
            json!({
                "channel": "c".repeat(80), "tokenSecretRef": key, "webhookSecretRef": key,
                "visibility": "Private", "topic": letter.repeat(250), "purpose": letter.repeat(250),
                "invite": people, "adoptionPolicy": "MustExist", "suspend": true,
                "driftPolicy": "Report", "deletionPolicy": "Delete"
            })
        };
        let name = "n".repeat(63);
        for letter in ["t", "ü", "🔥"] {
            let spec = full(letter);
            let size = spec.to_string().len();
            assert!(size < 1 << 20, "{size}");
            let applied = tenant.apply::<SlackChannel>(&name, spec.clone()).await;
            assert_eq!(applied.spec.invite.len(), 50);
            assert_eq!(serde_json::to_value(&applied.spec).unwrap(), spec);
        }
    });
}
