//! An alarm fires, somebody hears of it, and it is over.

use std::time::SystemTime;

use anyhow::{Context, Result};
use campanile_world::pagerduty::Notification;
use jiff::Timestamp;
use serde_json::json;

use super::slack;
use crate::app::{DEPLOYMENT, FAILURES, PERIOD};
use crate::demo::{CLUSTER, Demo};
use crate::proof::Unproven;
use crate::sabotage::Sabotage;

const SET: &str = "golden-signals";
const ALARM: &str = "chat-errors";
const MANY: f64 = 42.0;

fn alarm_name(demo: &Demo<'_>) -> String {
    format!(
        "{}critical/{SET}/{ALARM}@prod",
        demo.tenant().alarm_prefix(CLUSTER)
    )
}

/// Reports as the app does: how many requests failed in the interval that `at` is in.
async fn report(demo: &Demo<'_>, deployment: &str, failures: f64, at: SystemTime) -> Result<()> {
    let time = Timestamp::try_from(at)?;
    demo.screen.command(&format!(
        "aws cloudwatch put-metric-data --namespace CampusCore --metric-name {FAILURES} \\\n        \
         --dimensions DeploymentId={deployment} --timestamp {time:.0} --value {failures}"
    ));
    demo.apps
        .report_failures(demo.world, deployment, failures, at)
        .await
}

/// Failures are reported; the tenant is Alarming.
pub async fn fires(demo: &Demo<'_>) -> Result<()> {
    demo.screen.step(
        "Chat fails",
        "CampusCore reports that 42 chat requests failed in the last five minutes. The alarm chat-errors allows ten. Nobody tells \
         Campanile: it reads the alarms' states as CloudWatch evaluates them.",
    );
    if demo.breaks(Sabotage::Pager) {
        unsubscribe(demo).await?;
    }
    if let Some(role) = demo.tenant().invoke_role_arn.as_ref()
        && demo.breaks(Sabotage::Message)
    {
        demo.world.aws.remove_events_role(role).await?;
    }
    let deployment = match demo.breaks(Sabotage::Alarm) {
        true => "campuscore-pilot",
        false => DEPLOYMENT,
    };
    // The interval that ended last: what follows in `ends` is then the newer one, whenever that is.
    report(demo, deployment, MANY, SystemTime::now() - PERIOD).await?;
    let namespace = demo.tenant().namespace.as_str();
    let rows = demo
        .until_table(
            "the tenant is Alarming, with 1 alarm firing",
            &["get", "tobs,aset", "-n", namespace],
            |rows| {
                let tenant = |row: &crate::table::Row| {
                    row.cell("HEALTH") == "Alarming"
                        && row.cell("ALARMS").starts_with("1/")
                        && row.cell("READY") == "Applied"
                };
                rows.iter().any(tenant) && rows.iter().any(|row| row.cell("FIRING") == "1")
            },
        )
        .await?;
    let tenant = rows.iter().find(|row| !row.cell("HEALTH").is_empty());
    let tenant = tenant.context("kubectl shows no tenant")?;
    demo.screen.proven(format!(
        "{namespace} is {}, {}; Ready stays {}",
        tenant.cell("HEALTH"),
        tenant.cell("ALARMS"),
        tenant.cell("READY")
    ));
    let path = format!("jsonpath={{.status.alarms[?(@.name==\"{ALARM}\")]['state','message']}}");
    let said = demo
        .ask(&["get", "aset", SET, "-n", namespace, "-o", &path])
        .await?;
    let Some(why) = said.strip_prefix("ALARM ") else {
        return Err(Unproven::error(format!("it is {ALARM} that fires"), said));
    };
    demo.screen.proven(format!(
        "the AlarmSet says which alarm, {ALARM}, and why: {why}"
    ));
    Ok(())
}

/// The pager's own record has it.
pub async fn pages(demo: &Demo<'_>) -> Result<()> {
    demo.screen.step(
        "Somebody hears of it",
        "CloudWatch tells the topic that Campanile made for critical alarms, the topic tells PagerDuty, by the integration key that \
         is in the tenant's Secret. This is PagerDuty's own record:",
    );
    let told = heard(demo, "ALARM").await?;
    demo.screen
        .proven(format!("PagerDuty was told: {}", told.subject));
    Ok(())
}

/// Slack has it.
pub async fn is_read(demo: &Demo<'_>) -> Result<()> {
    slack::fires(demo, &alarm_name(demo)).await
}

/// No failures any more; the tenant is Healthy, the pager knows, and so does Slack.
pub async fn ends(demo: &Demo<'_>) -> Result<()> {
    demo.screen.step(
        "Chat works again",
        "The next report counts no failures. The alarm goes back to OK, the tenant to Healthy, and PagerDuty hears that too, so that \
         the incident resolves by itself. In Slack it turns green.",
    );
    if demo.breaks(Sabotage::Resolved) {
        let webhook = demo.slack.webhook();
        demo.slack.workspace().revoke_webhook(webhook);
    }
    let failures = if demo.breaks(Sabotage::Recovery) {
        MANY
    } else {
        0.0
    };
    report(demo, DEPLOYMENT, failures, SystemTime::now()).await?;
    let namespace = demo.tenant().namespace.as_str();
    demo.until_table(
        "the tenant is Healthy again",
        &["get", "tobs", "-n", namespace],
        |rows| {
            rows.iter()
                .any(|row| row.cell("HEALTH") == "Healthy" && row.cell("ALARMS").starts_with("0/"))
        },
    )
    .await?;
    demo.screen.proven(format!("{namespace} is Healthy"));
    let told = heard(demo, "OK").await?;
    demo.screen
        .proven(format!("PagerDuty was told: {}", told.subject));
    slack::is_over(demo, &alarm_name(demo)).await
}

/// What the pager was told about the alarm, by the key that the cluster's Secret holds; shows its record of that.
async fn heard(demo: &Demo<'_>, state: &str) -> Result<Notification> {
    let namespace = demo.tenant().namespace.as_str();
    let template = "go-template={{.data.integrationKey | base64decode}}";
    let secret = [
        "get",
        "secret",
        "vsu-pagerduty",
        "-n",
        namespace,
        "-o",
        template,
    ];
    let key = demo.ask(&secret).await?;
    let (name, pager) = (alarm_name(demo), &demo.world.pagerduty);
    let is = |told: &Notification, state: &str| {
        told.key == key && told.alarm_name == name && told.new_state == state
    };
    let waited = pager.wait(demo.options.limit, |record| {
        // Going OK for the first time is not what ends an incident.
        let fired = record.received.iter().position(|told| is(told, "ALARM"))?;
        let later = record.received.iter().enumerate().skip(fired);
        later
            .into_iter()
            .find(|(_, told)| is(told, state))
            .map(|(at, told)| (at, told.clone()))
    });
    let Ok((at, told)) = waited.await else {
        let received = pager.record().received;
        let received: Vec<_> = received
            .iter()
            .map(|told| format!("{} {}", told.at, told.subject))
            .collect();
        return Err(Unproven::error(
            format!("PagerDuty was told that {name} is {state}"),
            format!(
                "{} messages in its record:\n{}",
                received.len(),
                received.join("\n")
            ),
        ));
    };
    let shown = json!({"subject": told.subject, "new_state": told.new_state, "topic_arn": told.topic_arn, "at": told.at});
    demo.screen.command(&format!(
        "curl -s {}/record | jq '.received[{at}] | {{at, new_state, subject, topic_arn}}'",
        pager.url()
    ));
    demo.screen.output(&serde_json::to_string_pretty(&shown)?);
    Ok(told)
}

/// Takes PagerDuty off the topic, for good: it does not confirm anything any more.
async fn unsubscribe(demo: &Demo<'_>) -> Result<()> {
    demo.world.pagerduty.confirm_subscriptions(false);
    let tenant = demo.tenant();
    let sns = demo.world.aws.sns(&tenant.account, &tenant.region);
    for topic in demo.topics_in_aws(tenant).await? {
        let listed = sns
            .list_subscriptions_by_topic()
            .topic_arn(topic)
            .send()
            .await?;
        let pagers = listed.subscriptions().iter();
        let pagers = pagers.filter(|subscription| subscription.protocol() != Some("email"));
        for subscription in pagers {
            sns.unsubscribe()
                .set_subscription_arn(subscription.subscription_arn.clone())
                .send()
                .await?;
        }
    }
    Ok(())
}
