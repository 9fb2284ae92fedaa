//! A bot that is thrown out of its channel: it comes back where it may, and the tenant says so where it may not.

use super::Site;
use crate::{
    slack_channel::all_scopes,
    support::{eventually, test},
};
use campanile::api::{Severity, SlackChannel, TenantObservability};
use campanile_world::aws::Outcome;
use serde_json::{Value, json};

impl Site {
    /// A SlackChannel that a bot of the tenant's own makes; its token.
    async fn kept(&self, name: &str, visibility: &str) -> String {
        let token = self.slack.bot(&all_scopes());
        self.hand_over(name, &token).await;
        let reference = json!({"name": format!("{name}-token"), "key": "token"});
        let spec: Value =
            json!({"channel": name, "visibility": visibility, "tokenSecretRef": reference});
        self.tenant.apply::<SlackChannel>(name, spec).await;
        token
    }
}

/// Nobody but a person lets a bot into a private channel again. Until then alarms go nowhere, which EventBridge does
/// not see.
#[test]
fn a_bot_that_is_out_of_a_private_channel_is_told_until_it_is_let_in() {
    test(|world| async move {
        let site = Site::new(world, "path-out").await;
        let token = site.kept("ops", "Private").await;
        site.notify(json!({"critical": ["ops"]})).await;
        let _operator = site.tenant.operator().await;
        site.delivering().await;
        site.numbered(2).await;
        site.slack.remove_bot("ops");
        let says = site
            .tenant
            .stands::<TenantObservability>("path-out", "DeliveryReady", "False", "ChannelNotReady")
            .await;
        for part in ["SlackChannel path-out/ops: ", "Invite the bot"] {
            assert!(says.contains(part), "{says}");
        }
        site.tenant
            .stands::<SlackChannel>("ops", "ChannelReady", "False", "AccessDenied")
            .await;
        site.tenant
            .stands::<TenantObservability>("path-out", "Healthy", "False", "Degraded")
            .await;
        site.fire(1).await;
        let lost = site.delivery("it to be taken for delivered", |deliveries| {
            let last = deliveries.last()?;
            (last.outcome == Outcome::Delivered).then(|| last.statuses.clone())
        });
        assert_eq!(lost.await, [200]);
        assert_eq!(site.slack.messages("ops"), []);

        site.slack.invite("ops", &site.slack.bot_user(&token));
        site.delivering().await;
        site.tenant
            .stands::<TenantObservability>("path-out", "DeliveryReady", "True", "Delivering")
            .await;
        site.fire(2).await;
        let told = site.told("ops", 1).await;
        assert_eq!(told[0].name, site.name(Severity::Critical, "a-2"));
        site.kept_the_rules();
    });
}

/// Into a public one it goes by itself, and the next alarm arrives.
#[test]
fn a_bot_that_is_out_of_a_public_channel_comes_back() {
    test(|world| async move {
        let site = Site::new(world, "path-back").await;
        let token = site.kept("ops", "Public").await;
        site.notify(json!({"critical": ["ops"]})).await;
        let _operator = site.tenant.operator().await;
        site.delivering().await;
        site.numbered(1).await;
        let bot = site.slack.bot_user(&token);
        site.slack.remove_bot("ops");
        eventually("the bot to be back", || async {
            let channel = site.slack.channel("ops").unwrap();
            (channel.members.contains(&bot))
                .then_some(())
                .ok_or_else(|| format!("{channel:?}"))
        })
        .await;
        site.delivering().await;
        site.fire(1).await;
        let told = site.told("ops", 1).await;
        assert_eq!(told[0].name, site.name(Severity::Critical, "a-1"));
        site.kept_the_rules();
    });
}
