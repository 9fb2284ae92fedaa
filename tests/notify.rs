//! Messages about long-running work, through Campanile's own client to Slack: one per run, whatever happens.

use crate::support::{
    CLUSTER, Tenant,
    slack::{SCOPES, spec, workspace},
    test,
};
use campanile::{
    api::{
        SlackChannel,
        notification::{Phase, Record},
    },
    clients::{
        Clients,
        secret::{Digester, Secret},
        slack::bot_token,
    },
    engine::{
        error::{Class, Error, Result, WaitingOn},
        gate::{Gate, Operation, StatusEdit},
        limits::{Limiter, Priority},
        rendering::Step,
    },
    kinds::{
        cluster_view::{ClusterView, Purpose},
        installation::Installation,
        mark::Cluster,
        slack_channel::{
            notify::{Notifier, Sender, message::Run, sender},
            route::SlackRoute,
        },
    },
};
use campanile_world::slack::{Message, Trouble, WEBHOOK, Workspace};
use futures::future::BoxFuture;
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::sync::watch;

const ALL: [Phase; 3] = [Phase::Started, Phase::Completed, Phase::Failed];
const POST: &str = "chat.postMessage";
const RUN: &str = "rebuild-1";

fn run(phase: Phase, progress: &str, details: &[&str]) -> Run {
    Run {
        title: "Rebuild of idx_embeddings".into(),
        object: "IndexMaintenancePolicy vsu/knowledge-base".into(),
        phase,
        progress: progress.into(),
        facts: vec![("Table".into(), "main_app_chunks".into())],
        details: details.iter().map(|detail| (*detail).into()).collect(),
    }
}

/// What the status of somebody who tells of runs has of each, as it would be in the cluster.
type Status = BTreeMap<String, String>;

/// Lets everything through that the quota allows, and remembers all that an audit line could say.
struct Open {
    limiter: Arc<Limiter>,
    status: Mutex<Status>,
    said: Mutex<Vec<String>>,
}

impl Gate for Open {
    fn enter<'a>(&'a self, operation: Operation<'a>, _: &'a [Step]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let Operation {
                account,
                region,
                api,
                ..
            } = operation;
            self.limiter
                .take(account, region, api, Priority::Edit)
                .await;
            Ok(())
        })
    }

    fn edit<'a>(&'a self, edit: &'a StatusEdit) -> BoxFuture<'a, Result<()>> {
        edit.apply(&mut *self.status.lock().unwrap());
        Box::pin(async { Ok(()) })
    }

    fn answered(&self, operation: Operation<'_>, outcomes: &[(&Step, Result<(), &Error>)]) {
        let Operation {
            account,
            region,
            api,
            ..
        } = operation;
        let done = outcomes.iter().any(|(_, outcome)| outcome.is_ok());
        self.limiter.request_finished(account, region, api, done);
        for (_, outcome) in outcomes {
            if let Err(error) = outcome {
                self.limiter.pause(account, region, api, error);
            }
        }
        let said = format!("{operation:?} {outcomes:?}");
        self.said.lock().unwrap().push(said);
    }

    fn refused(&self, operation: Operation<'_>, _: &Step) -> Option<Error> {
        let Operation {
            account,
            region,
            api,
            ..
        } = operation;
        self.limiter.paused(account, region, api)
    }
}

/// The record of a run, in the status of somebody who tells of it.
fn saved(record: Record) -> StatusEdit {
    StatusEdit::new(move |status: &mut Status| {
        let saved = serde_json::to_string(&record).unwrap();
        status.insert(record.run.clone(), saved);
    })
}

/// Somebody who tells of runs.
struct Teller<'a> {
    tenant: &'a Tenant,
    installation: Installation,
    clients: Clients,
    gate: Open,
}

impl<'a> Teller<'a> {
    async fn new(tenant: &'a Tenant) -> Self {
        let installation = Installation {
            formers: Vec::new(),
            cluster: Cluster {
                name: CLUSTER.into(),
                uid: "0a1b2c3d".into(),
            },
            tenant_role_name: "campanile".into(),
            pagerduty_events_url: "https://events.pagerduty.com".into(),
            slack_api_url: tenant.world.slack.api_url(),
            slack_token: None,
            digester: Digester::new(b"key").unwrap(),
            require_account_binding: true,
            allow_private_endpoints: true,
            release_after: Duration::from_secs(24 * 3600),
        };
        let limiter = Arc::new(Limiter::new(&BTreeMap::new()));
        let observer = Arc::new(|_: campanile::clients::aws::Request<'_>| {});
        let clients = Clients::from_environment(
            &installation.cluster.name,
            &installation.slack_api_url,
            limiter.clone(),
            observer,
        )
        .await;
        Self {
            tenant,
            installation,
            clients: clients.unwrap(),
            gate: Open {
                limiter,
                status: Mutex::default(),
                said: Mutex::default(),
            },
        }
    }

    /// What carries messages into the channel of a SlackChannel.
    async fn sender(&self, channel: &str) -> Result<Sender> {
        let Self {
            tenant,
            installation,
            clients,
            ..
        } = self;
        let around = ClusterView::new(&tenant.client, installation, Purpose::Act);
        sender(channel, &tenant.namespace, &around, &clients.slack).await
    }

    /// The same by a token, without a SlackChannel.
    fn bot(&self, slack: &Workspace, token: &str, channel: &str) -> Sender {
        let route = SlackRoute::BotToken {
            token: bot_token(token).unwrap(),
            channel_id: slack.channel(channel).unwrap().id,
        };
        self.by(route)
    }

    fn by(&self, route: SlackRoute) -> Sender {
        let (slack, digester) = (&self.clients.slack, &self.installation.digester);
        Sender::new(slack.clone(), route, digester, "a test".into())
    }

    /// A process that begins, and knows what status says of a run.
    fn notifier(&self, run: &str) -> Notifier {
        let status = self.gate.status.lock().unwrap();
        let record = status.get(run);
        let record = record.map(|saved| serde_json::from_str(saved).unwrap());
        let record = record.unwrap_or_else(|| Record::new(run, "runs"));
        Notifier::new(record, ALL, [], Box::new(saved))
    }

    async fn tell(
        &self,
        notifier: &mut Notifier,
        sender: &Sender,
        run: &Run,
    ) -> Result<Option<Duration>> {
        notifier.tell(sender, run, &self.gate).await
    }

    /// The same, by a process that begins.
    async fn tell_anew(&self, sender: &Sender, run: &Run) -> Result<Option<Duration>> {
        let mut notifier = self.notifier(RUN);
        self.tell(&mut notifier, sender, run).await
    }

    /// The same; where somebody else has just used what Slack lets through, as the operator does that asks whether a
    /// webhook lives, it is told again when Slack says.
    async fn tell_in_time(&self, sender: &Sender, run: &Run) -> Result<Option<Duration>> {
        loop {
            match self.tell_anew(sender, run).await {
                Err(error) if error.class == Class::Throttled => {
                    tokio::time::sleep(error.wait.unwrap()).await;
                }
                told => return told,
            }
        }
    }

    /// All that is kept or logged.
    fn traces(&self) -> String {
        let said = self.gate.said.lock().unwrap();
        format!("{:?} {said:?}", self.gate.status.lock().unwrap())
    }
}

/// What people see of a message: its text, and all texts of its blocks.
fn shown(message: &Message) -> String {
    format!("{} {}", message.text, json!(message.blocks))
}

/// The texts of a channel's messages, answers indented.
fn seen(slack: &Workspace, channel: &str) -> Vec<String> {
    let messages = slack.messages(channel);
    let said = messages.iter().map(|message| {
        let indent = message.thread_ts.as_ref().map_or("", |_| "  ");
        format!("{indent}{}", message.text)
    });
    said.collect()
}

fn by_the_rules(slack: &Workspace) {
    assert_eq!(slack.violations(), Vec::<String>::new());
}

#[test]
fn a_run_is_one_message_that_is_edited_and_answered() {
    test(|world| async move {
        let tenant = Tenant::new(world, "notify-bot").await;
        let (slack, token) = workspace(&tenant, &SCOPES).await;
        let _operator = tenant.operator().await;
        tenant
            .apply::<SlackChannel>("runs", spec("vsu_runs", json!({})))
            .await;
        tenant.ready::<SlackChannel>("runs", "Applied").await;
        let teller = Teller::new(&tenant).await;
        let sender = teller.sender("runs").await.unwrap();
        assert!(!format!("{sender:?}").contains(&token));
        // Each by a process of its own, which knows what status says.
        for now in [
            run(Phase::Started, "", &[]),
            run(Phase::Started, "1 of 2", &["idx_a: <!here> done & dusted"]),
            run(
                Phase::Failed,
                "after 3 min",
                &["idx_a: <!here> done & dusted", "lock timeout"],
            ),
        ] {
            for _ in 0..2 {
                let told = teller.tell_anew(&sender, &now).await;
                assert_eq!(told, Ok(None));
            }
        }
        assert_eq!(
            seen(&slack, "vsu_runs"),
            [
                "❌ Failed · Rebuild of idx_embeddings: after 3 min",
                "  idx_a: &lt;!here&gt; done &amp; dusted",
                "  lock timeout",
            ]
        );
        let messages = slack.messages("vsu_runs");
        let before = messages[0].edits.iter().map(|edit| edit.text.as_str());
        let before: std::collections::BTreeSet<_> = before.collect();
        let expected = [
            "▶️ Started · Rebuild of idx_embeddings",
            "🔄 Running · Rebuild of idx_embeddings: 1 of 2",
        ];
        assert_eq!(before, expected.into());
        assert!(shown(&messages[0]).contains("Table\\nmain_app_chunks"));
        for answer in &messages[1..] {
            assert_eq!(answer.thread_ts.as_ref(), Some(&messages[0].ts));
            assert!(!answer.broadcast);
        }
        // One a second, which was waited for.
        assert_eq!(slack.calls(POST).len(), 3);
        assert!(slack.calls(POST).iter().all(|call| call.succeeded()));
        by_the_rules(&slack);
        assert!(!teller.traces().contains(&token));
    });
}

#[test]
fn a_post_whose_answer_is_lost_is_not_made_again() {
    test(|world| async move {
        let tenant = Tenant::new(world, "notify-cut").await;
        let (slack, token) = workspace(&tenant, &SCOPES).await;
        for (trouble, channel, there) in [
            (Trouble::CutAfterCommit, "cut-after", true),
            (Trouble::CutBefore, "cut-before", false),
        ] {
            slack.create_channel(channel);
            slack.invite(channel, &slack.bot_user(&token));
            let teller = Teller::new(&tenant).await;
            let sender = teller.bot(&slack, &token, channel);
            slack.trouble_in(channel, POST, trouble, 1);
            let mut first = teller.notifier(RUN);
            let started = run(Phase::Started, "", &[]);
            let lost = teller
                .tell(&mut first, &sender, &started)
                .await
                .unwrap_err();
            assert_eq!(lost.class, Class::OutcomeUnknown, "{lost}");
            let start = "▶️ Started · Rebuild of idx_embeddings".to_owned();
            let left = Vec::from_iter(there.then_some(start));
            // Neither by this process nor by the next.
            for mut notifier in [first, teller.notifier(RUN)] {
                for progress in ["", "1 of 2"] {
                    let now = run(Phase::Started, progress, &["vacuumed"]);
                    let told = teller.tell(&mut notifier, &sender, &now).await;
                    assert_eq!(told, Ok(None));
                    assert_eq!(seen(&slack, channel), left);
                }
            }
            let over = run(Phase::Completed, "", &["vacuumed"]);
            for _ in 0..2 {
                let told = teller.tell_anew(&sender, &over).await;
                assert_eq!(told, Ok(None));
                let end = ["✅ Completed · Rebuild of idx_embeddings", "  vacuumed"];
                let expected = [left.clone(), end.map(str::to_owned).into()].concat();
                assert_eq!(seen(&slack, channel), expected);
            }
        }
        by_the_rules(&slack);
    });
}

#[test]
fn slack_says_how_long_to_wait_and_nothing_is_lost() {
    test(|world| async move {
        let tenant = Tenant::new(world, "notify-rate").await;
        let (slack, token) = workspace(&tenant, &SCOPES).await;
        slack.create_channel("runs");
        slack.invite("runs", &slack.bot_user(&token));
        let teller = Teller::new(&tenant).await;
        let sender = teller.bot(&slack, &token, "runs");
        let limited = || slack.trouble(POST, Trouble::RateLimited { retry_after: 2 }, 1);
        limited();
        let mut notifier = teller.notifier(RUN);
        let started = run(Phase::Started, "", &[]);
        let refused = teller.tell(&mut notifier, &sender, &started).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.class, Class::Throttled);
        assert_eq!(refused.wait, Some(Duration::from_secs(2)));
        let again = teller.tell(&mut notifier, &sender, &started).await;
        assert_eq!(again.unwrap_err().class, Class::Throttled);
        assert_eq!(slack.calls(POST).len(), 1, "Slack wants to be left alone");
        assert_eq!(seen(&slack, "runs"), Vec::<String>::new());
        // Who follows waits for it.
        limited();
        let (_says, mut runs) = watch::channel(run(Phase::Completed, "", &["vacuumed"]));
        let began = Instant::now();
        let mut notifier = teller.notifier(RUN);
        let followed = notifier.follow(&sender, &mut runs, &teller.gate);
        assert_eq!(followed.await, Ok(()));
        assert!(began.elapsed() >= Duration::from_secs(2));
        assert_eq!(
            seen(&slack, "runs"),
            ["✅ Completed · Rebuild of idx_embeddings", "  vacuumed"]
        );
        by_the_rules(&slack);
    });
}

#[test]
fn a_token_that_is_revoked_and_restored_loses_nothing() {
    test(|world| async move {
        let tenant = Tenant::new(world, "notify-revoked").await;
        let (slack, token) = workspace(&tenant, &SCOPES).await;
        slack.create_channel("runs");
        slack.invite("runs", &slack.bot_user(&token));
        let teller = Teller::new(&tenant).await;
        let sender = teller.bot(&slack, &token, "runs");
        let mut notifier = teller.notifier(RUN);
        for now in [
            run(Phase::Started, "", &[]),
            run(Phase::Failed, "", &["lock timeout"]),
        ] {
            slack.revoke(&token);
            let refused = teller.tell(&mut notifier, &sender, &now).await.unwrap_err();
            assert_eq!(refused.class, Class::Denied);
            assert!(refused.message.contains("token_revoked"), "{refused}");
            assert!(!refused.message.contains(&token));
            slack.restore(&token);
            let told = teller.tell(&mut notifier, &sender, &now).await;
            assert_eq!(told, Ok(None));
        }
        assert_eq!(
            seen(&slack, "runs"),
            ["❌ Failed · Rebuild of idx_embeddings", "  lock timeout"]
        );
        // The bot is thrown out, and comes back.
        slack.kick("runs", &slack.bot_user(&token));
        let (mut notifier, other) = (teller.notifier("rebuild-2"), run(Phase::Completed, "", &[]));
        let refused = teller
            .tell(&mut notifier, &sender, &other)
            .await
            .unwrap_err();
        assert_eq!(refused.class, Class::Rejected);
        assert!(refused.message.contains("/invite"), "{refused}");
        slack.invite("runs", &slack.bot_user(&token));
        let told = teller.tell(&mut notifier, &sender, &other).await;
        assert_eq!(told, Ok(None));
        assert_eq!(seen(&slack, "runs").len(), 3);
        by_the_rules(&slack);
    });
}

#[test]
fn a_webhook_hears_of_the_start_and_of_the_end() {
    test(|world| async move {
        let tenant = Tenant::new(world, "notify-hook").await;
        let (slack, _) = workspace(&tenant, &SCOPES).await;
        slack.create_channel("alerts");
        let url = slack.webhook("alerts");
        tenant.secret("hook", "url", &url).await;
        let _operator = tenant.operator_with(&["--slow-poll-interval", "1h"]).await;
        let hook = json!({"webhookSecretRef": {"name": "hook", "key": "url"}});
        tenant.apply::<SlackChannel>("runs", hook).await;
        tenant.ready::<SlackChannel>("runs", "Applied").await;
        let teller = Teller::new(&tenant).await;
        let sender = teller.sender("runs").await.unwrap();
        let secret = url.rsplit('/').next().unwrap();
        assert!(!format!("{sender:?}").contains(secret));
        let reason = format!("POST {url}: <!channel> & more");
        let told = [
            run(Phase::Started, "", &[]),
            run(Phase::Started, "1 of 2", &["vacuumed"]),
            run(Phase::Failed, "after 3 min", &["vacuumed", &reason]),
        ];
        for now in &told[..2] {
            let told = teller.tell_in_time(&sender, now).await;
            assert_eq!(told, Ok(None));
        }
        slack.disable_webhook(&url);
        let refused = teller.tell_in_time(&sender, &told[2]).await.unwrap_err();
        assert_eq!(refused.class, Class::Denied);
        assert!(!refused.message.contains(secret), "{refused}");
        slack.restore_webhook(&url);
        for _ in 0..2 {
            let told = teller.tell_in_time(&sender, &told[2]).await;
            assert_eq!(told, Ok(None));
        }
        let messages = slack.messages("alerts");
        assert_eq!(
            seen(&slack, "alerts"),
            [
                "▶️ Started · Rebuild of idx_embeddings",
                "❌ Failed · Rebuild of idx_embeddings: after 3 min"
            ]
        );
        let end = shown(&messages[1]);
        assert!(end.contains("POST …: <!channel> & more"), "{end}");
        assert!(messages.iter().all(|message| message.thread_ts.is_none()));
        let posts = slack.calls(WEBHOOK).into_iter();
        let posts = posts.filter(|call| call.succeeded() && call.body.contains("Rebuild"));
        assert_eq!(posts.count(), 2);
        assert!(!teller.traces().contains(secret), "{}", teller.traces());
        by_the_rules(&slack);
    });
}

#[test]
fn where_no_channel_is_ready_nothing_happens() {
    test(|world| async move {
        let tenant = Tenant::new(world, "notify-nowhere").await;
        let (slack, token) = workspace(&tenant, &SCOPES).await;
        let teller = Teller::new(&tenant).await;
        let started = run(Phase::Started, "", &[]);
        let waits = async |teller: &Teller<'_>, says: &str| {
            let error = teller.sender("runs").await.unwrap_err();
            assert_eq!(error.class, Class::Waiting(WaitingOn::Channel));
            assert!(
                error.message.contains("SlackChannel notify-nowhere/runs"),
                "{error}"
            );
            assert!(error.message.contains(says), "{error}");
        };
        waits(&teller, "does not exist").await;
        tenant
            .apply::<SlackChannel>("runs", spec("vsu_runs", json!({})))
            .await;
        waits(&teller, "nothing is known of it yet").await;
        assert_eq!(slack.calls(POST).len() + slack.calls(WEBHOOK).len(), 0);
        assert_eq!(teller.traces(), "{} []");
        // A channel that was ready and is not any more; one that comes back needs nobody's restart.
        let _operator = tenant.operator().await;
        tenant.ready::<SlackChannel>("runs", "Applied").await;
        assert!(teller.sender("runs").await.is_ok());
        slack.archive("vsu_runs");
        let status = async |wanted: &'static str| {
            tenant
                .until::<SlackChannel>("runs", wanted, |channel| {
                    let status = channel.status.as_ref().unwrap();
                    let mut all = status.common.conditions.iter();
                    all.any(|one| one.type_ == "ChannelReady" && one.status == wanted)
                })
                .await;
        };
        status("False").await;
        waits(&teller, "archived").await;
        slack.unarchive("vsu_runs");
        slack.invite("vsu_runs", &slack.bot_user(&token));
        status("True").await;
        let sender = teller.sender("runs").await.unwrap();
        let told = teller.tell_anew(&sender, &started).await;
        assert_eq!(told, Ok(None));
        assert_eq!(seen(&slack, "vsu_runs").len(), 1);
        by_the_rules(&slack);
    });
}

/// The bot goes before the webhook, and a Secret that is missing is no reason to say nothing.
#[test]
fn the_bot_goes_before_the_webhook() {
    test(|world| async move {
        let tenant = Tenant::new(world, "notify-ways").await;
        let slack = world.slack.workspace(&tenant.namespace);
        let channel = slack.create_channel("vsu_runs");
        let hook = json!({"webhookSecretRef": {"name": "hook", "key": "url"}});
        tenant
            .apply::<SlackChannel>("runs", spec("vsu_runs", hook))
            .await;
        // As an operator would leave it.
        let ready = |type_: &str| {
            json!({"type": type_, "status": "True", "reason": "R", "message": "",
                "lastTransitionTime": "2026-01-02T03:04:05Z"})
        };
        let conditions = ["ChannelReady", "WebhookReady"].map(ready);
        let status = json!({"channelId": channel, "conditions": conditions});
        tenant.patch_status::<SlackChannel>("runs", status).await;
        let teller = Teller::new(&tenant).await;
        let error = teller.sender("runs").await.unwrap_err();
        assert_eq!(error.class, Class::Waiting(WaitingOn::Channel));
        assert!(error.message.contains("Secret notify-ways/hook"), "{error}");
        for (secret, key, value) in [
            ("hook", "url", slack.webhook("vsu_runs")),
            ("slack", "token", slack.bot(&SCOPES)),
        ] {
            tenant.secret(secret, key, &value).await;
            let sender = format!("{:?}", teller.sender("runs").await.unwrap());
            let identity = format!("Secret notify-ways/{secret}, key {key}");
            assert!(sender.contains(&identity), "{sender}");
            assert!(
                !sender.contains(value.rsplit('/').next().unwrap()),
                "{sender}"
            );
        }
    });
}

#[test]
fn no_secret_is_said_or_kept() {
    test(|world| async move {
        let tenant = Tenant::new(world, "notify-canary").await;
        let (slack, token) = workspace(&tenant, &SCOPES).await;
        slack.create_channel("runs");
        slack.invite("runs", &slack.bot_user(&token));
        let url = slack.webhook("runs");
        let known = Secret::new("postgres://app:canary@db/app\n".into());
        let says = format!("{} {token} {url} {}", known.reveal(), known.reveal().trim());
        let teller = Teller::new(&tenant).await;
        let hook = SlackRoute::Webhook(Secret::new(url.clone()));
        for sender in [teller.bot(&slack, &token, "runs"), teller.by(hook)] {
            let teller = Teller::new(&tenant).await;
            let record = Record::new(RUN, "runs");
            let mut notifier = Notifier::new(record, ALL, [&known], Box::new(saved));
            for phase in [Phase::Started, Phase::Failed] {
                let now = Run {
                    title: says.clone(),
                    object: says.clone(),
                    facts: vec![(says.clone(), says.clone())],
                    ..run(phase, &says, &[&says])
                };
                let told = teller.tell(&mut notifier, &sender, &now).await;
                assert_eq!(told, Ok(None));
            }
            let traces = teller.traces();
            let secret = url.rsplit('/').next().unwrap();
            for canary in ["canary", token.as_str(), secret] {
                assert!(!traces.contains(canary), "{traces}");
                let said = [POST, "chat.update", WEBHOOK].map(|method| slack.calls(method));
                for call in said.iter().flatten() {
                    assert!(!call.body.contains(canary), "{}", call.body);
                }
                for message in slack.messages("runs") {
                    let message = format!("{message:?}");
                    assert!(!message.contains(canary), "{message}");
                }
            }
        }
        assert_eq!(slack.messages("runs").len(), 4);
        by_the_rules(&slack);
    });
}
