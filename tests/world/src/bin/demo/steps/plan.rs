//! What would change, before it does.

use anyhow::Result;

use super::operator;
use crate::demo::{CLUSTER, Demo};
use crate::proof;
use crate::sabotage::Sabotage;

const SET: &str = "golden-signals";
const ALARM: &str = "chat-p95-latency";
const FROM: u32 = 5000;
const TO: u32 = 8000;
/// The exit codes of `campanile plan`.
const NOTHING: i32 = 0;
const CHANGES: i32 = 2;

/// Nothing would change.
pub async fn empty(demo: &Demo<'_>) -> Result<()> {
    demo.screen.step(
        "A plan of nothing",
        "campanile plan goes the way of the controller and writes nothing, neither in the cluster nor in AWS. All is as declared.",
    );
    let plan = demo.plan().await?;
    let read = format!("exit code {:?}\n{}{}", plan.code, plan.stdout, plan.stderr);
    proof::ensure(
        plan.code == Some(NOTHING),
        "the plan is empty, exit code 0",
        read,
    )?;
    demo.screen.proven("exit code 0: nothing would change");
    Ok(())
}

/// One threshold is edited while Campanile is away; the plan shows just that.
pub async fn of_an_edit(demo: &Demo<'_>) -> Result<()> {
    demo.screen.step(
        "A plan of an edit",
        "Campanile is stopped, so that the plan can be seen before it is carried out. Then one threshold is edited.",
    );
    demo.screen.command("kill -TERM <campanile>");
    let code = demo.stop_operator().await?;
    proof::ensure(
        code == Some(0),
        "Campanile ends with exit code 0",
        format!("{code:?}"),
    )?;
    demo.screen.proven("Campanile ended by itself, exit code 0");

    let namespace = demo.tenant().namespace.as_str();
    let mut edits = vec![threshold(demo, ALARM, TO).await?];
    if demo.breaks(Sabotage::Plan) {
        edits.push(threshold(demo, "chat-errors", 99).await?);
    }
    let patch = format!("[{}]", edits.join(","));
    demo.kubectl(&[
        "patch",
        "aset",
        SET,
        "-n",
        namespace,
        "--type=json",
        "-p",
        &patch,
    ])
    .await?;
    let plan = demo.plan().await?;
    let name = format!(
        "{}warning/{SET}/{ALARM}@prod",
        demo.tenant().alarm_prefix(CLUSTER)
    );
    let change = [
        format!("~ alarm {name}"),
        format!("threshold: {FROM} → {TO}"),
    ];
    let read = format!("exit code {:?}\n{}{}", plan.code, plan.stdout, plan.stderr);
    proof::ensure(
        plan.code == Some(CHANGES) && changes(&plan.stdout) == change,
        format!("exit code 2 and one change: {}", change.join(", ")),
        read,
    )?;
    demo.screen.proven(format!(
        "exit code 2 and this one change: {ALARM}, {}",
        change[1]
    ));
    Ok(())
}

/// The edit of a threshold, as a JSON patch that checks that it meets the alarm it means.
async fn threshold(demo: &Demo<'_>, alarm: &str, to: u32) -> Result<String> {
    let namespace = demo.tenant().namespace.as_str();
    let names = demo
        .ask(&[
            "get",
            "aset",
            SET,
            "-n",
            namespace,
            "-o",
            "jsonpath={.spec.alarms[*].name}",
        ])
        .await?;
    let at = names.split_whitespace().position(|name| name == alarm);
    let at = at.ok_or_else(|| {
        proof::Unproven::error(format!("{SET} has an alarm {alarm}"), names.clone())
    })?;
    Ok(format!(
        r#"{{"op":"test","path":"/spec/alarms/{at}/name","value":"{alarm}"}},{{"op":"replace","path":"/spec/alarms/{at}/threshold","value":{to}}}"#
    ))
}

/// The lines of a plan that say what would be done: all but objects' titles and the sum.
fn changes(plan: &str) -> Vec<String> {
    plan.lines()
        .filter(|line| line.starts_with("  "))
        .map(|line| line.trim().to_owned())
        .collect()
}

/// Campanile comes back and does what the plan said.
pub async fn applied(demo: &mut Demo<'_>) -> Result<()> {
    demo.screen.step(
        "The edit is carried out",
        "Campanile starts again and finds the AlarmSet ahead of CloudWatch. What it does is what the plan said.",
    );
    let tenant = demo.tenant();
    if demo.breaks(Sabotage::Edit) {
        demo.world.aws.deny(&tenant.account, "PutMetricAlarm");
    }
    demo.start_operator().await?;
    operator::holds_lease(demo).await?;
    let path = "jsonpath={.metadata.generation} {.status.observedGeneration} {.status.conditions[?(@.type==\"Ready\")].reason}";
    let generation = demo
        .until(
            "the AlarmSet's newest generation is Applied",
            &["get", "aset", SET, "-n", &tenant.namespace, "-o", path],
            |text| {
                let words: Vec<_> = text.split_whitespace().collect();
                matches!(words[..], [newest, observed, "Applied"] if newest == observed)
                    .then(|| words[0].to_owned())
            },
        )
        .await?;
    demo.kubectl(&["get", "aset", "-n", &tenant.namespace])
        .await?;
    demo.screen
        .proven(format!("generation {generation} of {SET} is Applied"));

    let name = format!("{}warning/{SET}/{ALARM}@prod", tenant.alarm_prefix(CLUSTER));
    let described = demo
        .world
        .aws
        .cloudwatch(&tenant.account, &tenant.region)
        .describe_alarms()
        .alarm_names(&name)
        .send()
        .await?;
    let thresholds: Vec<_> = described
        .metric_alarms()
        .iter()
        .filter_map(|alarm| alarm.threshold())
        .collect();
    proof::ensure(
        thresholds == [f64::from(TO)],
        format!("CloudWatch has the threshold {TO}"),
        format!("{thresholds:?}"),
    )?;
    demo.screen
        .proven(format!("CloudWatch has the threshold {TO}"));

    let plan = demo.plan().await?;
    let read = format!("exit code {:?}\n{}{}", plan.code, plan.stdout, plan.stderr);
    proof::ensure(plan.code == Some(NOTHING), "the plan is empty again", read)?;
    demo.screen.proven("the plan is empty again");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::changes;

    #[test]
    fn every_change_of_a_plan_is_seen() {
        let plan = "\
AlarmSet vsu/golden-signals  (account 222233334444, us-east-2)
  ~ alarm a
      threshold: 1 → 2
  ? b: was refused

0 to create, 1 to change, 0 to delete, 0 in conflict, 1 problems in 2 objects.
";
        assert_eq!(
            changes(plan),
            ["~ alarm a", "threshold: 1 → 2", "? b: was refused"]
        );
    }
}
