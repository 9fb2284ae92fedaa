//! A tenant goes, and nothing of it stays in AWS.

use std::time::Duration;

use anyhow::Result;
use aws_sdk_cloudwatch::types::{ComparisonOperator, Statistic};

use super::slack;
use crate::demo::{CLUSTER, Demo, typed};
use crate::proof::{self, Unproven};
use crate::sabotage::Sabotage;

/// What the account's people made by hand, which is none of Campanile's business.
const BY_HAND: &str = "disk-full-by-hand";

/// Kubernetes itself looks again only after some 9 seconds whether the objects in a Namespace are gone.
const AT_LEAST: Duration = Duration::from_secs(30);

/// Deletes the tenant's Namespace and looks what is left.
pub async fn leaves_nothing(demo: &Demo<'_>) -> Result<()> {
    let tenant = demo.tenant();
    demo.screen.step(
        "A tenant goes",
        "Its Namespace is deleted, with everything in it at once. Campanile holds the objects until their alarms, topics and \
         rules are gone from AWS. What somebody made by hand in that account stays, and so do the channels in Slack: they hold what \
         people said.",
    );
    by_hand(demo).await?;
    let prefix = tenant.alarm_prefix(CLUSTER);
    let alarms = demo.alarms_in_aws(tenant, &prefix).await?.len();
    let topics = demo.topics_in_aws(tenant).await?.len();
    let events = demo.events_in_aws(tenant).await?.len();
    demo.screen.say(&format!(
        "Before: {alarms} alarms of {prefix}, 1 by hand, {topics} topics, {events} rules, connections and API destinations, all in \
         account {}.",
        tenant.account
    ));
    proof::ensure(
        alarms > 0 && topics > 0 && events > 0,
        "there is something to clean up",
        format!("{alarms} alarms, {topics} topics, {events} for Slack"),
    )?;
    let channels = slack::both(demo)?;

    if demo.breaks(Sabotage::Leftovers) {
        demo.world.aws.deny(&tenant.account, "DeleteAlarms");
    }
    let limit = format!("--timeout={}s", demo.options.limit.max(AT_LEAST).as_secs());
    let delete = ["delete", "namespace", tenant.namespace.as_str()];
    demo.screen.command(&typed("kubectl", &delete));
    let deleted = demo
        .kubectl_quietly(&[delete.as_slice(), &[limit.as_str()]].concat())
        .await?;
    demo.screen
        .output(&format!("{}{}", deleted.stdout, deleted.stderr));
    let namespace = ["get", "namespace", tenant.namespace.as_str()];
    let left = demo.kubectl_quietly(&namespace).await?;
    if deleted.code != Some(0) || !left.stderr.contains("NotFound") {
        let objects = [
            "get",
            "tobs,aset,slc",
            "-n",
            &tenant.namespace,
            "-o",
            "wide",
        ];
        let objects = demo.kubectl_quietly(&objects).await?;
        let read = [left.stdout, left.stderr, objects.stdout, objects.stderr].concat();
        return Err(Unproven::error(
            format!("the namespace {} is gone", tenant.namespace),
            read,
        ));
    }
    demo.screen.command(&typed("kubectl", &namespace));
    demo.screen.output(&left.stderr);
    demo.screen
        .proven("the namespace is gone, and the objects in it");
    clean(demo, &prefix).await?;
    let left = slack::both(demo)?;
    proof::ensure(
        left == channels,
        "both channels are in Slack as they were",
        format!("{left:?}"),
    )?;
    demo.screen
        .proven("both channels are in Slack as they were");

    demo.kubectl(&["get", "tobs", "-A"]).await?;
    for other in demo.tenants.iter().filter(|other| *other != tenant) {
        let health = [
            "get",
            "tobs",
            &other.name,
            "-n",
            &other.namespace,
            "-o",
            "jsonpath={.status.health}",
        ];
        let health = demo.ask(&health).await?;
        proof::ensure(
            health == "Healthy",
            format!("{} is not touched", other.name),
            health,
        )?;
        demo.screen
            .proven(format!("{} is not touched by it", other.name));
    }
    Ok(())
}

/// AWS's own account of it: no alarm under the prefix, no topic, no rule; and what is not Campanile's is still there.
async fn clean(demo: &Demo<'_>, prefix: &str) -> Result<()> {
    let tenant = demo.tenant();
    demo.screen.command(&format!(
        "aws cloudwatch describe-alarms --alarm-name-prefix {prefix} --query 'MetricAlarms[].AlarmName'"
    ));
    let alarms = demo.alarms_in_aws(tenant, prefix).await?;
    demo.screen.output(&serde_json::to_string(&alarms)?);
    demo.screen
        .command("aws sns list-topics --query 'Topics[].TopicArn'");
    let topics = demo.topics_in_aws(tenant).await?;
    demo.screen.output(&serde_json::to_string(&topics)?);
    let events = demo.events_in_aws(tenant).await?;
    let read = format!("alarms {alarms:?}\ntopics {topics:?}\nrules and their like {events:?}");
    proof::ensure(
        alarms.is_empty() && topics.is_empty() && events.is_empty(),
        "AWS has no alarm, no topic and nothing for Slack of the tenant",
        read,
    )?;
    let others = demo.alarms_in_aws(tenant, "").await?;
    proof::ensure(
        others == [BY_HAND],
        format!("only {BY_HAND} is left in the account"),
        format!("{others:?}"),
    )?;
    demo.screen.proven(format!(
        "nothing of Campanile's is left in AWS; {BY_HAND} is"
    ));
    Ok(())
}

async fn by_hand(demo: &Demo<'_>) -> Result<()> {
    let tenant = demo.tenant();
    demo.world
        .aws
        .cloudwatch(&tenant.account, &tenant.region)
        .put_metric_alarm()
        .alarm_name(BY_HAND)
        .namespace("CWAgent")
        .metric_name("disk_used_percent")
        .statistic(Statistic::Maximum)
        .period(300)
        .evaluation_periods(1)
        .comparison_operator(ComparisonOperator::GreaterThanThreshold)
        .threshold(90.0)
        .send()
        .await?;
    Ok(())
}
