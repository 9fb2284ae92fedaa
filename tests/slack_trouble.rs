//! What goes wrong between a SlackChannel and Slack is said on the resource, makes nothing twice, and is over
//! without a restart once its cause is.

use crate::{
    cli::plan_as,
    fleet::Who,
    ownership::kstatus,
    slack_channel::{SCOPES, all_scopes, bot_is, kept_the_rules, log, looks, spec, workspace},
    support::{Conditions, Tenant, eventually, test},
};
use campanile::api::SlackChannel;
use campanile_world::slack::{Call, Trouble, WEBHOOK, Workspace};
use k8s_openapi::api::{core::v1::Secret, events::v1::Event};
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const HTML: &str = "<html><title>503</title><body>we are looking into it</body></html>";

/// The shortest time between two calls in a row.
fn gap(calls: &[Call]) -> Duration {
    let pairs = calls.iter().zip(calls.iter().skip(1));
    let gaps = pairs.map(|(one, next)| Duration::try_from(next.at - one.at).unwrap());
    gaps.min().unwrap_or_default()
}

/// The channels of a name that are or were there.
fn made(slack: &Workspace, name: &str) -> usize {
    let calls = slack.calls("conversations.create").into_iter();
    let made = calls.filter(|call| call.argument("name") == name);
    // One whose answer was cut was made as well.
    made.filter(|call| call.error.is_none()).count()
}

#[test]
fn slacks_own_time_is_waited_for() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-limits").await;
        let (slack, token) = workspace(&tenant, &SCOPES).await;
        let wait = |seconds| Trouble::RateLimited {
            retry_after: seconds,
        };
        slack.trouble("conversations.list", wait(4), 1);
        slack.trouble("conversations.create", wait(5), 1);
        let _operator = tenant.operator().await;
        tenant
            .apply::<SlackChannel>("runs", spec("vsu_runs", json!({})))
            .await;
        for method in ["conversations.list", "conversations.create"] {
            let object = tenant
                .until::<SlackChannel>("runs", &format!("{method} to be throttled"), |object| {
                    let ready = object.condition("Ready");
                    ready.is_some_and(|ready| {
                        ready.reason == "Throttled" && ready.message.contains(method)
                    })
                })
                .await;
            assert!(object.holds("Reconciling") && !object.holds("Stalled"));
            assert_eq!(kstatus(&object), "InProgress");
        }
        tenant.ready::<SlackChannel>("runs", "Applied").await;
        let creates = slack.calls("conversations.create");
        assert_eq!(creates.len(), 2, "{creates:#?}");
        assert!(gap(&creates) >= Duration::from_secs(5), "{creates:#?}");
        let lists = slack.calls("conversations.list");
        let first = gap(&lists[..2]);
        assert!(first >= Duration::from_secs(4), "{first:?}: {lists:#?}");

        // Later it is nothing to be told: what was applied is still there.
        let before = tenant.api::<SlackChannel>().get("runs").await.unwrap();
        let mark = slack.mark();
        slack.trouble("conversations.list", wait(2), 2);
        eventually("the listing to be throttled twice", || async {
            let calls = slack.calls_since(mark, "conversations.list").into_iter();
            match calls.filter(|call| call.status == Some(429)).count() {
                2 => Ok(()),
                other => Err(other.to_string()),
            }
        })
        .await;
        looks(&slack, &token, slack.mark(), 2).await;
        let after = tenant.api::<SlackChannel>().get("runs").await.unwrap();
        assert_eq!(after.condition("Ready"), before.condition("Ready"));
        assert!(after.holds("Ready") && after.holds("ChannelReady"));
        // It is seen again.
        slack.set_topic("vsu_runs", "anything");
        slack.rename("vsu_runs", "other");
        bot_is(&slack, &token, "vsu_runs", true).await;
        kept_the_rules(&tenant, &slack, 4);
    });
}

/// The first look and the first write fail in every way; nothing is made twice.
#[test]
fn what_fails_is_tried_again_and_made_once() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-fails").await;
        let (slack, _) = workspace(&tenant, &SCOPES).await;
        let ann = slack.add_user("ann@vsu.example");
        let troubles = [
            ("html", Trouble::Status(503, HTML.into())),
            ("fatal", Trouble::Error("fatal_error".into())),
            ("cut", Trouble::CutBefore),
            ("made", Trouble::CutAfterCommit),
        ];
        for method in ["auth.test", "conversations.list"] {
            slack.trouble(method, Trouble::Status(500, HTML.into()), None);
        }
        let _operator = tenant.operator().await;
        for (name, trouble) in &troubles {
            let channel = format!("vsu_{name}");
            slack.trouble_in(&channel, "conversations.create", trouble.clone(), None);
            let wanted = spec(&channel, json!({"topic": "Runs"}));
            tenant.apply::<SlackChannel>(name, wanted).await;
        }
        let unavailable = async |name: &str, says: &str| {
            let object = tenant
                .until::<SlackChannel>(name, says, |object| {
                    let ready = object.condition("Ready");
                    ready.is_some_and(|ready| {
                        ready.reason == "SystemUnavailable" && ready.message.contains(says)
                    })
                })
                .await;
            assert!(object.holds("Reconciling") && !object.holds("Stalled"));
            assert_eq!(kstatus(&object), "InProgress");
            let message = &object.condition("Ready").unwrap().message;
            assert!(!message.contains("looking into it"), "{message}");
        };
        // The way there, step by step.
        unavailable("html", "auth.test: HTTP 500").await;
        slack.lift("auth.test");
        unavailable("html", "conversations.list").await;
        slack.trouble("conversations.list", Trouble::CutBefore, 1);
        slack.lift("conversations.list");
        for name in ["html", "fatal", "cut"] {
            unavailable(name, "conversations.create").await;
        }
        tenant.ready::<SlackChannel>("made", "Applied").await;
        for (name, _) in &troubles {
            slack.lift_in(&format!("vsu_{name}"), "conversations.create");
        }
        for (name, _) in &troubles {
            tenant.ready::<SlackChannel>(name, "Applied").await;
            let channel = format!("vsu_{name}");
            assert_eq!(made(&slack, &channel), 1, "{channel}");
            assert_eq!(slack.channel(&channel).unwrap().topic, "Runs");
        }

        // What takes a member is not even tried before the bot is one.
        slack.create_channel("vsu_there");
        let out = Trouble::Status(503, HTML.into());
        slack.trouble("conversations.join", out, None);
        let more = json!({"topic": "There", "invite": [ann], "adoptionPolicy": "MustExist"});
        tenant
            .apply::<SlackChannel>("there", spec("vsu_there", more))
            .await;
        unavailable("there", "conversations.join").await;
        slack.lift("conversations.join");
        tenant.ready::<SlackChannel>("there", "Applied").await;
        let there = slack.channel("vsu_there").unwrap();
        assert!(there.topic == "There" && there.members.contains(&ann));
        let calls = world.slack.calls().into_iter();
        let refused: Vec<_> = calls
            .filter(|call| call.workspace == slack.id())
            .filter(|call| call.error.as_deref() == Some("not_in_channel"))
            .collect();
        assert!(refused.is_empty(), "{refused:#?}");

        // What is there stays usable while its topic cannot be set.
        slack.trouble_in(
            "vsu_html",
            "conversations.setTopic",
            Trouble::Status(502, HTML.into()),
            None,
        );
        let wanted = spec("vsu_html", json!({"topic": "New"}));
        tenant.apply::<SlackChannel>("html", wanted).await;
        unavailable("html", "conversations.setTopic").await;
        let object = tenant.api::<SlackChannel>().get("html").await.unwrap();
        assert!(object.holds("ChannelReady"));
        slack.lift_in("vsu_html", "conversations.setTopic");
        tenant.ready::<SlackChannel>("html", "Applied").await;
        assert_eq!(slack.channel("vsu_html").unwrap().topic, "New");
        kept_the_rules(&tenant, &slack, 0);
    });
}

#[test]
fn a_token_that_dies_is_replaced_in_its_secret() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-token").await;
        let (slack, first) = workspace(&tenant, &SCOPES).await;
        let _operator = tenant.operator().await;
        tenant
            .apply::<SlackChannel>("runs", spec("vsu_runs", json!({"topic": "Runs"})))
            .await;
        tenant.ready::<SlackChannel>("runs", "Applied").await;
        let dead = async |token: &str, code: &str| {
            let message = tenant.ready::<SlackChannel>("runs", "AccessDenied").await;
            for part in [code, "install the app", "new bot token into the Secret"] {
                assert!(message.contains(part), "{part}: {message}");
            }
            assert!(!message.contains(token), "{message}");
            let object = tenant.api::<SlackChannel>().get("runs").await.unwrap();
            assert_eq!(kstatus(&object), "Failed");
            let ready = object.condition("ChannelReady").unwrap();
            assert_eq!((&*ready.status, &*ready.reason), ("False", "AccessDenied"));
        };
        slack.revoke(&first);
        dead(&first, "token_revoked").await;
        let second = slack.reissue(&first);
        tenant.secret("slack", "token", &second).await;
        tenant.ready::<SlackChannel>("runs", "Applied").await;
        tenant
            .stands::<SlackChannel>("runs", "ChannelReady", "True", "Available")
            .await;

        // The app is taken off the workspace, and put there again: it is in no channel any more.
        slack.uninstall(&second);
        dead(&second, "account_inactive").await;
        let third = slack.reissue(&second);
        tenant.secret("slack", "token", &third).await;
        tenant.ready::<SlackChannel>("runs", "Applied").await;
        bot_is(&slack, &third, "vsu_runs", true).await;
        let mark = slack.mark();
        looks(&slack, &third, mark, 2).await;
        let others = slack.all_calls_since(mark).into_iter();
        let others: Vec<_> = others.filter(|call| call.token != third).collect();
        assert!(
            others.is_empty(),
            "old tokens are not used any more: {others:#?}"
        );

        // A token of another workspace leads to another channel, which is none of ours.
        let elsewhere = world.slack.workspace("slack-token-2");
        tenant
            .secret("slack", "token", &elsewhere.bot(&SCOPES))
            .await;
        let conflict = tenant.ready::<SlackChannel>("runs", "Conflict").await;
        for part in [
            elsewhere.id(),
            slack.id(),
            "Secret slack-token/slack, key token",
        ] {
            assert!(conflict.contains(part), "{conflict}");
        }
        assert_eq!(elsewhere.channels().len(), 1);
        tenant.secret("slack", "token", &third).await;
        tenant.ready::<SlackChannel>("runs", "Applied").await;
        assert_eq!(slack.calls("conversations.create").len(), 1);
        kept_the_rules(&tenant, &slack, 0);
    });
}

/// Each is named before the first call that needs it, and does its work as soon as it is granted.
#[test]
fn a_scope_that_is_missing_is_named_before_it_is_needed() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-scopes").await;
        let slack = world.slack.workspace("slack-scopes");
        slack.limit_rates();
        slack.create_channel("there");
        slack.add_user("ann@vsu.example");
        let rows = [
            ("channels:read", "conversations.list", "vsu_a", json!({})),
            (
                "channels:manage",
                "conversations.create",
                "vsu_b",
                json!({}),
            ),
            (
                "channels:join",
                "conversations.join",
                "there",
                json!({"adoptionPolicy": "IfExists"}),
            ),
            (
                "users:read.email",
                "users.lookupByEmail",
                "vsu_d",
                json!({"invite": ["ann@vsu.example"]}),
            ),
            (
                "groups:read",
                "conversations.list",
                "vsu_e",
                json!({"visibility": "Private"}),
            ),
            (
                "groups:write",
                "conversations.create",
                "vsu_f",
                json!({"visibility": "Private"}),
            ),
        ];
        let mut tokens = Vec::new();
        for (number, (missing, _, channel, more)) in rows.iter().enumerate() {
            let granted = all_scopes().into_iter().filter(|scope| scope != missing);
            let token = slack.bot(&granted.collect::<Vec<_>>());
            let name = format!("by-{number}");
            tenant.secret(&name, "token", &token).await;
            let mut wanted = spec(channel, more.clone());
            wanted["tokenSecretRef"]["name"] = json!(name);
            tenant.apply::<SlackChannel>(&name, wanted).await;
            tokens.push((name, token));
        }
        let _operator = tenant.operator().await;
        for ((missing, _, _, _), (name, _)) in rows.iter().zip(&tokens) {
            let message = tenant.ready::<SlackChannel>(name, "AccessDenied").await;
            let source = format!("Secret slack-scopes/{name}, key token lacks {missing}");
            assert!(
                message.contains(&source) && message.contains("install the app again"),
                "{missing}: {message}"
            );
            let object = tenant.api::<SlackChannel>().get(name).await.unwrap();
            assert_eq!(kstatus(&object), "Failed");
        }
        // Nor is it called on the way round.
        let mark = slack.mark();
        for (_, token) in &tokens {
            eventually("three looks at what is granted", || async {
                let calls = slack.calls_since(mark, "auth.test").into_iter();
                match calls.filter(|call| call.token == *token).count() {
                    found if found >= 3 => Ok(()),
                    found => Err(found.to_string()),
                }
            })
            .await;
        }
        let calls = world.slack.calls().into_iter();
        let refused: Vec<_> = calls
            .filter(|call| call.workspace == slack.id())
            .filter(|call| call.error.as_deref() == Some("missing_scope"))
            .collect();
        assert!(refused.is_empty(), "{refused:#?}");
        for ((missing, method, _, _), (_, token)) in rows.iter().zip(&tokens) {
            let private = |call: &Call| call.argument("types").contains("private_channel");
            let calls = slack.calls(method).into_iter();
            let calls = calls.filter(|call| call.token == *token);
            let needing: Vec<_> = calls
                .filter(|call| *missing != "groups:read" || private(call))
                .collect();
            assert!(needing.is_empty(), "{missing}: {needing:#?}");
        }

        for (_, token) in &tokens {
            slack.set_scopes(token, &all_scopes());
        }
        for (name, _) in &tokens {
            tenant.ready::<SlackChannel>(name, "Applied").await;
        }
        assert_eq!(slack.channel("vsu_d").unwrap().members.len(), 2);
        kept_the_rules(&tenant, &slack, 0);
    });
}

/// People do with a channel whatever they like.
#[test]
fn what_people_do_to_a_channel_is_mended_or_told() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-people-do").await;
        let (slack, token) = workspace(&tenant, &SCOPES).await;
        let ann = slack.add_user("ann@vsu.example");
        let hers = slack.create_channel("hers");
        let _operator = tenant.operator().await;
        let wanted = [
            ("told", spec("vsu_told", json!({"driftPolicy": "Report"}))),
            ("shut", spec("vsu_shut", json!({"topic": "Shut"}))),
            ("hers", spec("hers", json!({"adoptionPolicy": "IfExists"}))),
            (
                "gone",
                spec("vsu_gone", json!({"topic": "T", "invite": [ann]})),
            ),
            (
                "moved",
                spec("vsu_moved", json!({"topic": "M", "invite": [ann]})),
            ),
        ];
        for (name, wanted) in &wanted {
            tenant.apply::<SlackChannel>(name, wanted.clone()).await;
        }
        let mut ids = std::collections::BTreeMap::new();
        for (name, _) in &wanted {
            tenant.ready::<SlackChannel>(name, "Applied").await;
            let object = tenant.api::<SlackChannel>().get(name).await.unwrap();
            ids.insert(*name, object.status.unwrap().channel_id.unwrap());
        }

        slack.remove_bot("vsu_told");
        slack.archive("vsu_shut");
        slack.rename("hers", "hers-alone");
        slack.delete_channel("vsu_gone");
        slack.kick("vsu_moved", &ann);
        let moved = slack.change_id("vsu_moved");

        // Told and left.
        let told = tenant
            .until::<SlackChannel>("told", "drifted", |object| object.holds("Drifted"))
            .await;
        assert!(told.holds("Ready"));
        let status = told.status.unwrap();
        assert_eq!(
            status.common.drift_count,
            Some(1),
            "{:?}",
            status.common.drift
        );
        assert_eq!(status.common.drift[0].resource, "membership");

        // Archived: a bot cannot undo that.
        let archived = tenant
            .stands::<SlackChannel>("shut", "ChannelReady", "False", "Archived")
            .await;
        let ready = tenant
            .ready::<SlackChannel>("shut", "PartiallyFailed")
            .await;
        for message in [archived, ready] {
            for part in [
                "vsu_shut is archived",
                "unarchive it in Slack",
                "invite the bot",
            ] {
                assert!(message.contains(part), "{message}");
            }
        }
        let object = tenant.api::<SlackChannel>().get("shut").await.unwrap();
        assert_eq!(kstatus(&object), "Failed");

        // A name that only its creator may give back.
        let foreign = tenant
            .ready::<SlackChannel>("hers", "PartiallyFailed")
            .await;
        for part in ["not_authorized", "only who created the channel", "by hand"] {
            assert!(foreign.contains(part), "{foreign}");
        }

        // Made anew, with whoever was invited.
        eventually("a channel in its place", || async {
            match slack.channel("vsu_gone") {
                Some(new) if new.topic == "T" && new.members.contains(&ann) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        let anew = slack.channel("vsu_gone").unwrap();
        assert_ne!(anew.id, ids["gone"]);
        assert_eq!(made(&slack, "vsu_gone"), 2);

        // Another id, the same channel: who left has left.
        for (name, id) in [("gone", &anew.id), ("moved", &moved)] {
            tenant
                .until::<SlackChannel>(name, "its id to follow", |object| {
                    let status = object.status.as_ref().unwrap();
                    status.channel_id.as_ref() == Some(id)
                })
                .await;
            tenant.ready::<SlackChannel>(name, "Applied").await;
        }
        assert_eq!(made(&slack, "vsu_moved"), 1);
        assert!(!slack.channel(&moved).unwrap().members.contains(&ann));

        // Nobody tries what has been refused over and over.
        looks(&slack, &token, slack.mark(), 2).await;
        let renames = slack.calls("conversations.rename");
        assert_eq!(renames.len(), 1, "{renames:#?}");
        assert!(slack.calls("conversations.unarchive").is_empty());
        assert!(
            slack
                .calls("conversations.join")
                .iter()
                .all(|call| call.channel == hers)
        );
        bot_is(&slack, &token, "vsu_told", false).await;

        // People undo what they did, or ask for it to be undone.
        slack.unarchive("vsu_shut");
        slack.rename("hers-alone", "hers");
        for name in ["shut", "hers"] {
            tenant.ready::<SlackChannel>(name, "Applied").await;
        }
        tenant
            .stands::<SlackChannel>("shut", "ChannelReady", "True", "Available")
            .await;
        bot_is(&slack, &token, "vsu_shut", true).await;
        let repaired = spec("vsu_told", json!({"driftPolicy": "Repair"}));
        tenant.apply::<SlackChannel>("told", repaired).await;
        bot_is(&slack, &token, "vsu_told", true).await;
        tenant
            .until::<SlackChannel>("told", "not drifted", |object| !object.holds("Drifted"))
            .await;
        for name in ["told", "shut", "hers"] {
            let object = tenant.api::<SlackChannel>().get(name).await.unwrap();
            let status = object.status.unwrap();
            assert_eq!(status.channel_id.as_ref(), Some(&ids[name]), "{name}");
        }
        kept_the_rules(&tenant, &slack, 0);
    });
}

/// Archived by people, and given up there: another name is another channel.
#[test]
fn another_name_in_place_of_an_archived_channel() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-shut").await;
        let (slack, _) = workspace(&tenant, &SCOPES).await;
        let ann = slack.add_user("ann@vsu.example");
        let _operator = tenant.operator().await;
        let runs = |channel: &str| spec(channel, json!({"topic": "Runs", "invite": [ann]}));
        tenant.apply::<SlackChannel>("runs", runs("vsu_runs")).await;
        tenant.ready::<SlackChannel>("runs", "Applied").await;
        slack.archive("vsu_runs");
        tenant
            .stands::<SlackChannel>("runs", "ChannelReady", "False", "Archived")
            .await;
        tenant
            .apply::<SlackChannel>("runs", runs("vsu_runs_2"))
            .await;
        tenant.ready::<SlackChannel>("runs", "Applied").await;
        let new = slack.channel("vsu_runs_2").unwrap();
        assert!(new.topic == "Runs" && new.members.contains(&ann), "{new:?}");
        let object = tenant.api::<SlackChannel>().get("runs").await.unwrap();
        assert_eq!(object.status.unwrap().channel_id, Some(new.id));
        assert!(slack.channel("vsu_runs").unwrap().is_archived);
        kept_the_rules(&tenant, &slack, 0);
    });
}

/// Somebody private has the name; the bot only learns that by asking for it, once.
#[test]
fn a_name_that_somebody_out_of_sight_has() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-taken").await;
        let (slack, token) = workspace(&tenant, &all_scopes()).await;
        let public = slack.create_private_channel("vsu_runs");
        let private = slack.create_private_channel("vsu_ops");
        let _operator = tenant.operator().await;
        tenant
            .apply::<SlackChannel>("runs", spec("vsu_runs", json!({"topic": "Runs"})))
            .await;
        let ops = json!({"visibility": "Private", "topic": "Ops", "adoptionPolicy": "IfExists"});
        tenant
            .apply::<SlackChannel>("ops", spec("vsu_ops", ops))
            .await;
        for (name, channel) in [("runs", "vsu_runs"), ("ops", "vsu_ops")] {
            let taken = tenant.ready::<SlackChannel>(name, "Conflict").await;
            let stands = tenant.stands::<SlackChannel>(name, "ChannelReady", "False", "NameTaken");
            assert_eq!(stands.await, taken);
            for part in [
                channel,
                "is taken",
                "cannot see",
                "invite the bot",
                "another name",
            ] {
                assert!(taken.contains(part), "{taken}");
            }
            let object = tenant.api::<SlackChannel>().get(name).await.unwrap();
            assert_eq!(kstatus(&object), "Failed");
        }
        // Whatever wakes the objects, Slack is not asked again.
        let mark = slack.mark();
        tenant.bind(None).await;
        looks(&slack, &token, mark, 3).await;
        assert_eq!(slack.calls("conversations.create").len(), 2, "once each");

        tenant
            .apply::<SlackChannel>("runs", spec("vsu_runs_2", json!({"topic": "Runs"})))
            .await;
        slack.invite(&private, &slack.bot_user(&token));
        for name in ["runs", "ops"] {
            tenant.ready::<SlackChannel>(name, "Applied").await;
        }
        assert_eq!(slack.channel("vsu_runs_2").unwrap().topic, "Runs");
        assert_eq!(slack.channel(&private).unwrap().topic, "Ops");
        assert_eq!(slack.channel(&public).unwrap().topic, "");
        assert_eq!(slack.calls("conversations.create").len(), 3);
        kept_the_rules(&tenant, &slack, 0);
    });
}

/// What is looked for is on the last page, after short and empty ones.
#[test]
fn a_listing_is_read_to_its_end() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-pages").await;
        let (slack, _) = workspace(&tenant, &SCOPES).await;
        for name in ["a", "b", "c", "d"] {
            slack.create_channel(name);
        }
        let last = slack.create_channel("vsu_runs");
        slack.trouble("conversations.list", Trouble::ShortPages, None);
        let _operator = tenant.operator_with(&["--slow-poll-interval", "1h"]).await;
        let adopted = json!({"adoptionPolicy": "MustExist", "topic": "Runs"});
        tenant
            .apply::<SlackChannel>("runs", spec("vsu_runs", adopted))
            .await;
        tenant.ready::<SlackChannel>("runs", "Applied").await;
        assert_eq!(slack.channel(&last).unwrap().topic, "Runs");
        let pages = slack.calls("conversations.list");
        assert!(pages.len() >= 7, "{}", pages.len());
        // A listing that breaks off is none: nothing is made for want of what it did not come to.
        slack.trouble(
            "conversations.list",
            Trouble::Error("invalid_cursor".into()),
            1,
        );
        tenant
            .apply::<SlackChannel>("last", spec("d", json!({"adoptionPolicy": "IfExists"})))
            .await;
        tenant.ready::<SlackChannel>("last", "Applied").await;
        assert!(slack.calls("conversations.create").is_empty());
        kept_the_rules(&tenant, &slack, 0);
    });
}

/// Slack has no look-up by name, and lets nobody list channels more than twenty times a minute.
#[test]
fn many_channels_share_a_listing() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-many").await;
        let (slack, _) = workspace(&tenant, &SCOPES).await;
        for number in 0..5 {
            slack.create_channel(&format!("vsu_{number}"));
        }
        let _operator = tenant.operator_with(&["--slow-poll-interval", "1h"]).await;
        let names: Vec<_> = (0..10).map(|number| format!("runs-{number}")).collect();
        for (number, name) in names.iter().enumerate() {
            let more = json!({"adoptionPolicy": "IfExists", "purpose": "Shared"});
            let wanted = spec(&format!("vsu_{number}"), more);
            tenant.apply::<SlackChannel>(name, wanted).await;
        }
        for name in &names {
            tenant.ready::<SlackChannel>(name, "Applied").await;
        }
        let lists = slack.calls("conversations.list").len();
        assert!((1..=3).contains(&lists), "{lists}");
        assert_eq!(slack.calls("conversations.create").len(), 5);
        kept_the_rules(&tenant, &slack, 0);
    });
}

#[test]
fn a_channel_at_rest_costs_its_looks_alone() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-idle").await;
        let (slack, token) = workspace(&tenant, &all_scopes()).await;
        slack.create_channel("alerts");
        slack.add_user("ann@vsu.example");
        tenant.secret("hook", "url", &slack.webhook("alerts")).await;
        let who = Who::new(world, "slack-idle").await;
        let operator = who
            .operator(
                world,
                &[
                    "--watch-namespace=slack-idle",
                    "--poll-interval=500ms",
                    "--slow-poll-interval=1s",
                    "--allow-private-endpoints",
                ],
            )
            .await;
        let hook = json!({"name": "hook", "key": "url"});
        let more = json!({
            "topic": "Runs & more 🔥 of <https://vsu.example>", "purpose": "P", "invite": ["ann@vsu.example"],
            "webhookSecretRef": hook
        });
        tenant
            .apply::<SlackChannel>("runs", spec("vsu_runs", more))
            .await;
        let ops = spec("vsu_ops", json!({"visibility": "Private"}));
        tenant.apply::<SlackChannel>("ops", ops).await;
        // What is wrong and stays wrong costs no more.
        slack.create_private_channel("vsu_taken");
        let taken = spec("vsu_taken", json!({"topic": "T"}));
        tenant.apply::<SlackChannel>("taken", taken).await;
        tenant
            .apply::<SlackChannel>("hook", json!({"webhookSecretRef": hook}))
            .await;
        for name in ["runs", "ops", "hook"] {
            tenant.ready::<SlackChannel>(name, "Applied").await;
        }
        tenant.ready::<SlackChannel>("taken", "Conflict").await;
        let members = |name: &'static str, members: i32| {
            tenant.until::<SlackChannel>(name, "who is in it", move |object| {
                object.status.as_ref().unwrap().members == Some(members)
            })
        };
        members("runs", 2).await;
        members("ops", 1).await;
        looks(&slack, &token, slack.mark(), 2).await;
        operator.still().await;

        let reconciles = operator.reconciles().await.unwrap();
        let (mark, writes) = (slack.mark(), world.kubernetes.mark_writes());
        looks(&slack, &token, mark, 6).await;
        assert_eq!(who.writes_since(world, writes), []);
        assert_eq!(operator.reconciles().await.unwrap() - reconciles, 0);
        let looked = ["auth.test", "conversations.list", WEBHOOK];
        let calls = slack.all_calls_since(mark).into_iter();
        let others: Vec<_> = calls
            .filter(|call| !looked.contains(&call.method.as_str()))
            .collect();
        assert!(others.is_empty(), "{others:#?}");
        kept_the_rules(&tenant, &slack, 0);
    });
}

async fn metrics(address: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: campanile\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[test]
fn a_token_and_a_webhook_are_nowhere_where_people_look() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-secret").await;
        let (slack, token) = workspace(&tenant, &SCOPES).await;
        slack.create_channel("alerts");
        let url = slack.webhook("alerts");
        tenant.secret("hook", "url", &url).await;
        let (own, canary) = (slack.bot(&SCOPES), "xoxp-canary-c0ffee");
        // Nothing of theirs is nothing either.
        let tail = |text: &str| text[text.len() - 12..].to_owned();
        let secrets = [&token, &url, &own].map(|text| tail(text));
        let port = campanile_world::port::free().unwrap();
        let address = format!("127.0.0.1:{port}");
        let loud = [("CAMPANILE_LOG", "debug"), ("SLACK_BOT_TOKEN", &*own)];
        let operator = tenant
            .operator_in(&loud, &["--metrics-addr", &address])
            .await;
        let hook = json!({"webhookSecretRef": {"name": "hook", "key": "url"}});
        let quoting = format!("<html>{token} {url}</html>");
        slack.trouble(
            "conversations.create",
            Trouble::Status(500, quoting.clone()),
            1,
        );
        slack.trouble(WEBHOOK, Trouble::Status(500, quoting), 1);
        tenant
            .apply::<SlackChannel>("runs", spec("vsu_runs", json!({"topic": "Runs"})))
            .await;
        tenant.apply::<SlackChannel>("hook", hook).await;
        tenant
            .apply::<SlackChannel>("own", json!({"channel": "vsu_own"}))
            .await;
        let mut seen = Vec::new();
        let objects = async || {
            let mut all = Vec::new();
            for name in ["runs", "hook", "own"] {
                let object = tenant.api::<SlackChannel>().get(name).await.unwrap();
                all.push(serde_json::to_string(&object).unwrap());
            }
            let events = tenant.api::<Event>().list(&ListParams::default()).await;
            all.push(serde_json::to_string(&events.unwrap().items).unwrap());
            all
        };
        let plans = async |namespace: &str| {
            let mut all = Vec::new();
            for format in ["text", "json"] {
                let args = ["-n", namespace, "-o", format, "--allow-private-endpoints"];
                let planned = plan_as(world, &loud, &args, "").await;
                all.extend([planned.out, planned.err]);
            }
            all
        };
        tenant.ready::<SlackChannel>("own", "AccessDenied").await;
        seen.extend(plans("slack-secret").await);
        for name in ["runs", "hook"] {
            tenant.ready::<SlackChannel>(name, "Applied").await;
        }
        seen.extend(objects().await);
        slack.set_topic("vsu_runs", "lunch");
        seen.extend(plans("slack-secret").await);

        slack.revoke(&token);
        slack.revoke_webhook(&url);
        tenant.ready::<SlackChannel>("runs", "AccessDenied").await;
        tenant
            .ready::<SlackChannel>("hook", "PartiallyFailed")
            .await;
        seen.extend(objects().await);
        seen.extend(plans("slack-secret").await);
        tenant.secret("slack", "token", canary).await;
        tenant.secret("hook", "url", &format!("{url} ")).await;
        tenant.secret("hook", "url", &format!("ftp{url}")).await;
        for name in ["runs", "hook"] {
            tenant.ready::<SlackChannel>(name, "WaitingForSecret").await;
        }
        seen.extend(objects().await);
        seen.extend(plans("slack-secret").await);
        let metrics = metrics(&address).await;
        let counted = r#"campanile_outside_requests_total{service="slack",operation="auth.test""#;
        assert!(metrics.contains(counted), "{metrics}");
        seen.push(metrics);
        operator.stop(Duration::from_secs(10)).await.unwrap();
        let log = log(&operator).await;
        for line in ["slack:conversations.create", "HTTP 500", "token_revoked"] {
            assert!(log.contains(line), "{line}");
        }
        seen.push(log);
        kept_the_rules(&tenant, &slack, 0);
        let planned = |text: &String| text.contains("slack-secret/own");
        assert!(seen.iter().any(planned), "plans tell of the channels");
        for text in seen {
            for secret in secrets.iter().map(String::as_str).chain(["c0ffee"]) {
                assert!(!text.contains(secret), "{secret}: {text}");
            }
        }
    });
}

/// Neither of them can know of the other before it is there.
#[test]
fn of_two_that_name_one_channel_one_has_it() {
    test(|world| async move {
        for (name, policy) in [("slack-two", "Never"), ("slack-two-adopt", "IfExists")] {
            let tenant = Tenant::new(world, name).await;
            let (slack, token) = workspace(&tenant, &SCOPES).await;
            if policy == "IfExists" {
                slack.create_channel("vsu_runs");
            }
            // Both have looked before either has made it.
            slack.trouble(
                "conversations.create",
                Trouble::Slow(Duration::from_secs(2)),
                2,
            );
            for (object, topic) in [("one", "First"), ("two", "Second")] {
                let more =
                    json!({"topic": topic, "adoptionPolicy": policy, "deletionPolicy": "Delete"});
                tenant
                    .apply::<SlackChannel>(object, spec("vsu_runs", more))
                    .await;
            }
            let _operator = tenant.operator().await;
            let reason = |object: &SlackChannel| {
                let ready = object.condition("Ready");
                ready.map(|ready| ready.reason.clone()).unwrap_or_default()
            };
            let (has, other) = eventually("one to have it and the other not", || async {
                let api = tenant.api::<SlackChannel>();
                let one = reason(&api.get("one").await.unwrap());
                let two = reason(&api.get("two").await.unwrap());
                match (&*one, &*two) {
                    ("Applied", "Conflict") => Ok(("one", "two")),
                    ("Conflict", "Applied") => Ok(("two", "one")),
                    _ => Err(format!("{one} {two}")),
                }
            })
            .await;
            assert!(made(&slack, "vsu_runs") <= 1);
            let topic = if has == "one" { "First" } else { "Second" };
            let mark = slack.mark();
            looks(&slack, &token, mark, 3).await;
            assert_eq!(slack.channel("vsu_runs").unwrap().topic, topic);
            assert!(slack.calls_since(mark, "conversations.setTopic").is_empty());
            // Whose it is not takes nothing along.
            tenant.delete::<SlackChannel>(other).await;
            tenant.gone::<SlackChannel>(other).await;
            assert!(!slack.channel("vsu_runs").unwrap().is_archived);
            tenant.ready::<SlackChannel>(has, "Applied").await;
            assert_eq!(slack.violations(), Vec::<String>::new());
        }
    });
}

/// Slack answers a bot that may not post with a status that EventBridge takes for success.
#[test]
fn a_bot_that_cannot_post_is_said_to_be_one() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-mute").await;
        let mute: Vec<_> = SCOPES
            .into_iter()
            .filter(|it| *it != "chat:write")
            .collect();
        let (slack, token) = workspace(&tenant, &mute).await;
        let _operator = tenant.operator().await;
        tenant
            .apply::<SlackChannel>("runs", spec("vsu_runs", json!({})))
            .await;
        let says = tenant
            .stands::<SlackChannel>("runs", "ChannelReady", "False", "CannotPost")
            .await;
        assert!(says.contains("chat:write"), "{says}");
        tenant.ready::<SlackChannel>("runs", "Applied").await;
        slack.set_scopes(&token, &SCOPES);
        tenant
            .stands::<SlackChannel>("runs", "ChannelReady", "True", "Available")
            .await;
        // Where a webhook is the way in, the bot need not post.
        slack.set_scopes(&token, &mute);
        let url = slack.webhook("vsu_runs");
        tenant.secret("hook", "url", &url).await;
        let both = spec(
            "vsu_runs",
            json!({"webhookSecretRef": {"name": "hook", "key": "url"}}),
        );
        tenant.apply::<SlackChannel>("runs", both).await;
        for type_ in ["ChannelReady", "WebhookReady"] {
            tenant
                .until::<SlackChannel>("runs", type_, |object| object.holds(type_))
                .await;
        }
        kept_the_rules(&tenant, &slack, 0);
    });
}

/// The webhook of a channel can only be made once the channel is there.
#[test]
fn a_webhook_that_comes_last_is_asked_at_once() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-last").await;
        let (slack, _) = workspace(&tenant, &SCOPES).await;
        let first = slack.webhook(&slack.create_channel("first"));
        tenant.secret("first", "url", &first).await;
        // Looked at so rarely that only being told helps.
        let _operator = tenant.operator_with(&["--slow-poll-interval", "1h"]).await;
        let with = |channel: &str, secret: &str| {
            let more = json!({"webhookSecretRef": {"name": secret, "key": "url"}, "adoptionPolicy": "IfExists"});
            spec(channel, more)
        };
        tenant
            .apply::<SlackChannel>("first", with("first", "first"))
            .await;
        tenant
            .apply::<SlackChannel>("second", with("vsu_second", "second"))
            .await;
        tenant.ready::<SlackChannel>("first", "Applied").await;
        tenant
            .ready::<SlackChannel>("second", "WaitingForSecret")
            .await;
        // Everything there is is read once more meanwhile.
        tenant
            .apply::<SlackChannel>("third", with("vsu_third", "first"))
            .await;
        tenant.ready::<SlackChannel>("third", "Applied").await;
        let second = slack.webhook("vsu_second");
        tenant.secret("second", "url", &second).await;
        tenant.ready::<SlackChannel>("second", "Applied").await;
        kept_the_rules(&tenant, &slack, 0);
    });
}

/// A webhook needs no token: it is asked whatever becomes of that, and what has been made stays known.
#[test]
fn a_webhook_is_asked_though_the_token_cannot_be_read() {
    test(|world| async move {
        let tenant = Tenant::new(world, "slack-tokenless").await;
        let (slack, token) = workspace(&tenant, &SCOPES).await;
        slack.create_channel("hooked");
        let url = slack.webhook("hooked");
        tenant.secret("hook", "url", &url).await;
        let _operator = tenant.operator().await;
        let hook = json!({"webhookSecretRef": {"name": "hook", "key": "url"}, "topic": "Runs"});
        tenant
            .apply::<SlackChannel>("runs", spec("vsu_runs", hook))
            .await;
        tenant.ready::<SlackChannel>("runs", "Applied").await;
        let before = tenant.now::<SlackChannel>("runs").await.status.unwrap();
        let secrets = kube::Api::<Secret>::namespaced(tenant.client.clone(), "slack-tokenless");
        secrets
            .delete("slack", &DeleteParams::default())
            .await
            .unwrap();
        tenant
            .ready::<SlackChannel>("runs", "WaitingForSecret")
            .await;
        for (worse, status, reason) in
            [(true, "False", "Revoked"), (false, "True", "TakesMessages")]
        {
            if worse {
                slack.revoke_webhook(&url);
            } else {
                slack.restore_webhook(&url);
            }
            tenant
                .stands::<SlackChannel>("runs", "WebhookReady", status, reason)
                .await;
            let missing = tenant
                .stands::<SlackChannel>("runs", "ChannelReady", "False", "WaitingForSecret")
                .await;
            assert!(
                missing.contains("Secret slack-tokenless/slack"),
                "{missing}"
            );
        }
        let mark = slack.mark();
        tenant.secret("slack", "token", &token).await;
        tenant.ready::<SlackChannel>("runs", "Applied").await;
        let after = tenant.now::<SlackChannel>("runs").await.status.unwrap();
        assert_eq!(
            (after.channel_id, after.targets, after.invited),
            (before.channel_id, before.targets, before.invited)
        );
        let writes = slack.all_calls_since(mark).into_iter();
        let writes =
            writes.filter(|call| call.method.contains("create") || call.method.contains("set"));
        assert_eq!(writes.count(), 0);
        kept_the_rules(&tenant, &slack, 0);
    });
}

/// Slack has no marks: after a restart whoever comes first must not have what another has made.
#[test]
fn a_restart_gives_no_channel_away() {
    test(|world| async move {
        let maker = Tenant::new(world, "slack-maker").await;
        let taker = Tenant::new(world, "slack-aker-2").await;
        let (slack, token) = workspace(&maker, &SCOPES).await;
        // The same by another token of the same workspace.
        let third = Tenant::new(world, "slack-aker-3").await;
        taker.secret("slack", "token", &token).await;
        third.secret("slack", "token", &slack.bot(&SCOPES)).await;
        let watched = [
            "--watch-namespace",
            "slack-aker-2",
            "--watch-namespace",
            "slack-aker-3",
        ];
        let operator = maker.operator_with(&watched).await;
        maker
            .apply::<SlackChannel>("runs", spec("vsu_runs", json!({"topic": "Made"})))
            .await;
        maker.ready::<SlackChannel>("runs", "Applied").await;
        let id = slack.channel("vsu_runs").unwrap().id;
        let more =
            json!({"topic": "Taken", "adoptionPolicy": "IfExists", "deletionPolicy": "Delete"});
        for tenant in [&taker, &third] {
            tenant
                .apply::<SlackChannel>("runs", spec("vsu_runs", more.clone()))
                .await;
            let says = tenant.ready::<SlackChannel>("runs", "Conflict").await;
            assert!(
                says.contains("a SlackChannel of another Namespace"),
                "{says}"
            );
        }
        operator.kill().await.unwrap();
        let mark = slack.mark();
        let _operator = maker.operator_with(&watched).await;
        looks(&slack, &token, mark, 3).await;
        for tenant in [&taker, &third] {
            tenant.ready::<SlackChannel>("runs", "Conflict").await;
            tenant.delete::<SlackChannel>("runs").await;
            tenant.gone::<SlackChannel>("runs").await;
        }
        maker.ready::<SlackChannel>("runs", "Applied").await;
        let object = maker.api::<SlackChannel>().get("runs").await.unwrap();
        assert_eq!(object.status.unwrap().channel_id.as_deref(), Some(&*id));
        let channel = slack.channel(&id).unwrap();
        assert_eq!((&*channel.topic, channel.is_archived), ("Made", false));
        kept_the_rules(&maker, &slack, 0);
    });
}
