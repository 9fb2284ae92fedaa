//! The tenant's channels in Slack, and what is read there.

use anyhow::Result;
use campanile_world::slack::{Channel, Message, render};

use crate::demo::Demo;
use crate::proof::{self, Unproven};
use crate::sabotage::Sabotage;
use crate::slack::{ALERTS, RUNS};
use crate::table::Row;

/// The Secrets: name, key, and what a person writes for what is in it.
const TOKEN: [&str; 3] = ["vsu-slack", "token", "$SLACK_BOT_TOKEN"];
const WEBHOOK: [&str; 3] = ["vsu-alerts-webhook", "url", "$SLACK_WEBHOOK_URL"];
/// The lines of a message up to what the alarm's state is.
const BRIEF: usize = 4;
const RUNBOOK: &str = "https://runbooks.example/chat-errors";

/// From two Secrets to two channels.
pub async fn channels(demo: &Demo<'_>) -> Result<()> {
    demo.screen.step(
        "Slack opens",
        "The Secrets with what opens Slack are in no file. The people of vsu have made a Slack app; its bot's token lets Campanile make \
         the channels. The webhook, by which alarms get in, a person makes once its channel is there.",
    );
    if demo.breaks(Sabotage::Channels) {
        demo.slack.forbid_channels();
    }
    opened(demo).await?;
    let [alerts, runs] = both(demo)?;
    let members = &alerts.members;
    let workspace = demo.slack.workspace();
    let posts = [ALERTS, RUNS].map(|name| workspace.messages(name).len());
    proof::ensure(
        alerts.topic == "Alarms of Virginia State University"
            && runs.topic == "Workflow runs of Virginia State University"
            && members.contains(demo.slack.on_call())
            && posts == [0, 0],
        "Slack has both channels with their topics, who is on call is invited, and nothing is posted",
        format!("{alerts:?}\n{runs:?}\nmessages: {posts:?}"),
    )?;
    demo.screen.proven(format!(
        "Slack has #{ALERTS} and #{RUNS} with their topics, who is on call is invited, and nothing was posted to find that out"
    ));
    Ok(())
}

/// Gives the token and then the webhook, and waits until the channels are as declared; shows that.
pub async fn opened(demo: &Demo<'_>) -> Result<()> {
    let namespace = demo.tenant().namespace.as_str();
    let channels = ["get", "slc", "-n", namespace];
    let has_id = |row: &Row| row.cell("ID").starts_with('C') && !row.cell("CHANNEL").is_empty();
    secret(demo, TOKEN, demo.slack.token()).await?;
    demo.until_table(
        "both channels are there, and one waits for its webhook",
        &channels,
        |rows| {
            let ready = |row: &Row| match row.cell("NAME") {
                "vsu-alerts" => row.cell("READY") == "WaitingForSecret",
                _ => row.cell("READY") == "Applied",
            };
            rows.len() == 2 && rows.iter().all(|row| has_id(row) && ready(row))
        },
    )
    .await?;
    secret(demo, WEBHOOK, demo.slack.webhook()).await?;
    demo.until_table("both channels are Applied", &channels, |rows| {
        let ready = |row: &Row| has_id(row) && row.cell("READY") == "Applied";
        rows.len() == 2 && rows.iter().all(ready)
    })
    .await?;
    Ok(())
}

/// Makes a Secret as a person does. What is in it is not shown.
async fn secret(demo: &Demo<'_>, [name, key, shown]: [&str; 3], value: &str) -> Result<()> {
    let namespace = demo.tenant().namespace.as_str();
    demo.screen.command(&format!(
        "kubectl -n {namespace} create secret generic {name} --from-literal={key}=\"{shown}\""
    ));
    let literal = format!("--from-literal={key}={value}");
    let create = [
        "-n", namespace, "create", "secret", "generic", name, &literal,
    ];
    // Not by way of the screen, which shows what is waited for.
    let output = demo.world.kubernetes.kubectl(create).await?;
    demo.screen.output(&output.success()?);
    Ok(())
}

/// The channels as Slack has them.
pub fn both(demo: &Demo<'_>) -> Result<[Channel; 2]> {
    let workspace = demo.slack.workspace();
    match [ALERTS, RUNS].map(|name| workspace.channel(name)) {
        [Some(alerts), Some(runs)] => Ok([alerts, runs]),
        found => Err(Unproven::error(
            format!("Slack has {ALERTS} and {RUNS}"),
            format!("{found:?}"),
        )),
    }
}

/// What stands in the channel for alarms now that `alarm` fires.
pub async fn fires(demo: &Demo<'_>, alarm: &str) -> Result<()> {
    demo.screen.step(
        "And it is read in Slack",
        "EventBridge, in the tenant's account, meets the same change with the rule that Campanile made, makes a message of it and posts \
         it by the webhook, whether Campanile runs or not. What people read in #vsu_alerts:",
    );
    let message = said(demo, "ALARM", alarm, usize::MAX).await?;
    let tenant = demo.tenant();
    let path = "jsonpath={.status.links.alarms}";
    let status = [
        "get",
        "tobs",
        &tenant.name,
        "-n",
        &tenant.namespace,
        "-o",
        path,
    ];
    let all = demo.ask(&status).await?;
    let (text, links) = (render(&message), buttons(&message));
    proof::ensure(
        text.contains(RUNBOOK)
            && text.contains("OK → ALARM")
            && links.first().is_some_and(|link| link.ends_with(alarm))
            && links.get(1) == Some(&all),
        "it says what the state was before, names the runbook, and has buttons to the alarm and to status.links.alarms",
        format!("{text}status.links.alarms: {all}"),
    )?;
    demo.screen.proven(
        "it names the runbook, and its buttons lead to the alarm and to the tenant's status.links.alarms",
    );
    let workspace = demo.slack.workspace();
    let (alerts, runs) = (workspace.messages(ALERTS), workspace.messages(RUNS));
    proof::ensure(
        alerts.len() == 1 && runs.is_empty(),
        format!("#{ALERTS} has one message, and #{RUNS} has none"),
        [alerts, runs]
            .concat()
            .iter()
            .map(render)
            .collect::<String>(),
    )?;
    demo.screen.proven(format!(
        "it is the only one: that new alarms came to be OK is no news, and #{RUNS} is for info"
    ));
    Ok(())
}

/// The same once it is over.
pub async fn is_over(demo: &Demo<'_>, alarm: &str) -> Result<()> {
    let message = said(demo, "OK", alarm, BRIEF).await?;
    let workspace = demo.slack.workspace();
    let alerts = workspace.messages(ALERTS);
    let violations = workspace.violations();
    proof::ensure(
        alerts.last() == Some(&message) && alerts.len() == 2 && violations.is_empty(),
        "Slack has the one message and the other, and found nothing wrong with them",
        format!(
            "{}{}",
            alerts.iter().map(render).collect::<String>(),
            violations.join("\n")
        ),
    )?;
    demo.screen
        .proven(format!("#{ALERTS} has both messages and no other"));
    Ok(())
}

/// Waits for the message that says this of the alarm, and shows `lines` of it.
async fn said(demo: &Demo<'_>, state: &str, alarm: &str, lines: usize) -> Result<Message> {
    let workspace = demo.slack.workspace();
    let waited = workspace.wait_for_message(ALERTS, demo.options.limit, |message| {
        head(message).is_some_and(|head| head.contains(&format!("{state} · critical · ")))
            && render(message).contains(alarm)
    });
    let Ok(message) = waited.await else {
        let account = &demo.tenant().account;
        let deliveries = demo.world.aws.deliveries(account).await?;
        let deliveries = deliveries.iter().map(|it| format!("{it:?}\n"));
        let messages = workspace.messages(ALERTS);
        return Err(Unproven::error(
            format!("#{ALERTS} has a message that {alarm} is {state}"),
            format!(
                "{} messages in it\n{}EventBridge's deliveries:\n{}",
                messages.len(),
                messages.iter().map(render).collect::<String>(),
                deliveries.collect::<String>()
            ),
        ));
    };
    demo.screen.message(&message, lines);
    demo.screen.proven(format!(
        "#{ALERTS} has it by the webhook: {}",
        head(&message).unwrap_or_default()
    ));
    Ok(message)
}

/// What stands at the head of a message.
fn head(message: &Message) -> Option<&str> {
    message.blocks.first()?["text"]["text"].as_str()
}

/// Where the buttons of a message lead, in order.
fn buttons(message: &Message) -> Vec<String> {
    let blocks = message.attachments.iter();
    let blocks = blocks.flat_map(|attachment| attachment["blocks"].as_array());
    let elements = blocks
        .flatten()
        .flat_map(|block| block["elements"].as_array());
    let buttons = elements.flatten().filter(|it| it["type"] == "button");
    buttons
        .filter_map(|button| button["url"].as_str())
        .map(str::to_owned)
        .collect()
}
