//! A channel that is reached by a webhook comes to be reached by a bot, or the other way round, and no alarm is lost.

use super::{Site, Told};
use crate::support::{eventually, slack::SCOPES, test};
use campanile::api::{AlarmSet, AlarmState, Severity, SlackChannel, SlackVia, TenantObservability};
use campanile_world::{aws::Outcome, slack::By};
use serde_json::json;
use std::{cell::Cell, collections::BTreeSet};

/// How many messages are on their way all the time: what a destination sends in as many seconds.
const PENDING: usize = 3;

impl Site {
    /// Lets an alarm fire, and be over, and fire, until `rests`. Each time for another reason, its number; how often.
    async fn fires_until(&self, rests: &Cell<bool>) -> usize {
        let name = self.name(Severity::Critical, "a-1");
        let mut count = 0;
        while !rests.get() {
            let state = if count % 2 == 0 {
                AlarmState::Alarm
            } else {
                AlarmState::Ok
            };
            self.turn(&name, state, &count.to_string()).await;
            count += 1;
            eventually("room for another message", || async {
                let deliveries = self.deliveries().await;
                let pending = deliveries.iter();
                let pending = pending.filter(|each| each.outcome == Outcome::Pending);
                let full = pending.count() >= PENDING;
                (!full)
                    .then_some(())
                    .ok_or_else(|| format!("{deliveries:#?}"))
            })
            .await;
        }
        count
    }

    /// Waits until the last message in a channel is by whom it should be.
    async fn heard(&self, channel: &str, whom: &str, by: impl Fn(&By) -> bool) {
        eventually(&format!("a message {whom}"), || async {
            let last = self.slack.messages(channel).pop();
            let heard = last.as_ref().is_some_and(|last| by(&last.by));
            heard.then_some(()).ok_or_else(|| format!("{last:?}"))
        })
        .await;
    }

    /// Waits until the tenant has these ways into a channel and no others, and all of its rules lead to the API
    /// destination `name`.
    async fn led_by(&self, channel: &str, name: &str, ways: &[SlackVia]) {
        let tenant = &self.tenant.namespace;
        self.tenant
            .until::<TenantObservability>(tenant, &format!("{ways:?}"), |tenant| {
                let paths = tenant.status.as_ref().unwrap().slack_paths.iter();
                let found = paths.map(|path| (&*path.channel, path.via));
                found.eq(ways.iter().map(|via| (channel, *via)))
            })
            .await;
        let events = self.events();
        eventually(&format!("all rules to lead to {name}"), || async {
            let rules = events.list_rules().send().await.unwrap();
            let mut elsewhere = Vec::new();
            for rule in rules.rules() {
                let list = events.list_targets_by_rule().rule(rule.name().unwrap());
                let targets = list.send().await.unwrap().targets.unwrap();
                let arns = targets.into_iter().map(|target| target.arn);
                elsewhere.extend(arns.filter(|arn| !arn.contains(&format!("/{name}/"))));
            }
            let all = rules.rules().len() == 3 && elsewhere.is_empty();
            all.then_some(()).ok_or_else(|| format!("{elsewhere:?}"))
        })
        .await;
        self.delivering().await;
    }
}

/// By a webhook, then by a bot, then by a webhook again, while an alarm never rests.
#[test]
fn a_channel_changes_its_way_in_without_a_gap() {
    test(|world| async move {
        let site = Site::new(world, "path-switch").await;
        site.hooked("alerts").await;
        site.notify(json!({"critical": ["alerts"]})).await;
        let _operator = site.tenant.operator().await;
        site.delivering().await;
        site.numbered(1).await;
        let token = site.slack.bot(&SCOPES);
        site.hand_over("alerts", &token).await;
        let (hook, bot) = (site.hook_path("alerts"), site.bot_path("alerts"));
        let first = site.arns(&hook).await;
        let user = By::Bot(site.slack.bot_user(&token));
        let rests = Cell::new(false);
        let switch = async {
            let reference = json!({"name": "alerts-token", "key": "token"});
            let mut spec = json!({"channel": "alerts", "tokenSecretRef": reference, "adoptionPolicy": "IfExists"});
            let own = spec.clone();
            site.tenant.apply::<SlackChannel>("alerts", own).await;
            let both = [SlackVia::Webhook, SlackVia::BotToken];
            site.led_by("alerts", &bot, &both).await;
            let second = site.arns(&bot).await;
            site.heard("alerts", "by the bot", |by| *by == user).await;
            // Where there are both, the webhook is taken.
            spec["webhookSecretRef"] = json!({"name": "alerts-hook", "key": "url"});
            site.tenant.apply::<SlackChannel>("alerts", spec).await;
            site.led_by("alerts", &hook, &both).await;
            site.heard("alerts", "by the webhook again", |by| *by != user)
                .await;
            rests.set(true);
            second
        };
        let (fired, second) = tokio::join!(site.fires_until(&rests), switch);
        let expected: BTreeSet<_> = (0..fired).map(|number| number.to_string()).collect();
        let told = eventually("all that was fired to be told", || async {
            let messages = site.slack.messages("alerts");
            let told: Vec<_> = messages.iter().map(Told::read).collect();
            let reasons: BTreeSet<_> = told.iter().map(|told| told.reason.clone()).collect();
            let missing: Vec<_> = expected.difference(&reasons).collect();
            if missing.is_empty() {
                Ok(told)
            } else {
                Err(format!("{missing:?} of {fired} are missing"))
            }
        })
        .await;
        let by_bot = told.iter().filter(|told| told.by == user).count();
        assert!((1..told.len()).contains(&by_bot), "{by_bot}");
        let deliveries = site.deliveries().await;
        let went = |arn: &str| deliveries.iter().filter(|it| it.destination == arn).count();
        let both = went(&first.1) + went(&second.1);
        assert_eq!(both, fired, "{deliveries:#?}");
        let lost = deliveries.iter();
        let lost = lost.filter(|each| each.outcome != Outcome::Delivered);
        assert_eq!(lost.collect::<Vec<_>>(), Vec::<&_>::new());
        // Each is what it was, and both go with the tenant.
        assert_eq!(site.arns(&hook).await, first);
        assert_eq!(site.arns(&bot).await, second);
        let name = &site.tenant.namespace;
        site.tenant.delete::<TenantObservability>(name).await;
        site.tenant.gone::<TenantObservability>(name).await;
        site.tenant.delete::<AlarmSet>("golden").await;
        site.tenant.gone::<AlarmSet>("golden").await;
        site.clean().await;
        site.kept_the_rules();
    });
}
