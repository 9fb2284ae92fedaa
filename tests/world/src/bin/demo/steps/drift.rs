//! Somebody deletes an alarm in AWS, and it comes back.

use anyhow::Result;
use jiff::{Timestamp, Unit};
use serde_json::Value;

use crate::demo::{CLUSTER, Demo, typed};
use crate::proof;
use crate::sabotage::Sabotage;

const SET: &str = "golden-signals";
const ALARM: &str = "retrieval-errors";

/// Deletes it in AWS and reads in the AlarmSet's status that there is a new one.
pub async fn repaired(demo: &Demo<'_>) -> Result<()> {
    let tenant = demo.tenant();
    demo.screen.step(
        "An alarm is deleted behind Campanile's back",
        "Somebody tidies up in the AWS console. Campanile compares what CloudWatch has with what is declared, all the time, and puts \
         the alarm back. Here it looks every second; a minute is usual.",
    );
    if demo.breaks(Sabotage::Drift) {
        demo.stop_operator().await?;
    }
    let path = format!("jsonpath={{.status.alarms[?(@.name==\"{ALARM}\")]}}");
    let args = ["get", "aset", SET, "-n", &tenant.namespace, "-o", &path];
    // Status tells times to the second, so the deletion gets a second that is not the old state's.
    let expected = format!("the AlarmSet lists {ALARM}");
    let old = demo
        .until(&expected, &args, |text| {
            since(text).filter(|old| *old < this_second())
        })
        .await?;
    let name = format!(
        "{}critical/{SET}/{ALARM}@prod",
        tenant.alarm_prefix(CLUSTER)
    );
    let deleted = this_second();
    demo.screen.command(&format!(
        "aws cloudwatch delete-alarms --alarm-names {name}"
    ));
    let cloudwatch = demo.world.aws.cloudwatch(&tenant.account, &tenant.region);
    cloudwatch.delete_alarms().alarm_names(&name).send().await?;

    let expected = format!(
        "the AlarmSet lists {ALARM} in a state that began when the old one had been deleted, {deleted}"
    );
    let (new, entry) = demo
        .until(&expected, &args, |text| {
            since(text)
                .filter(|new| *new >= deleted)
                .map(|new| (new, text.to_owned()))
        })
        .await?;
    demo.screen.command(&typed("kubectl", &args));
    demo.screen.output(&entry);
    demo.screen.proven(format!(
        "it is a new alarm: its state began at {new:.0}, that of the deleted one at {old:.0}"
    ));

    demo.until_table(
        "all alarms are in place",
        &["get", "aset", "-n", &tenant.namespace],
        |rows| {
            let in_place = |row: &crate::table::Row| {
                row.cell("READY") == "Applied" && row.cell("NODATA") == "0"
            };
            !rows.is_empty() && rows.iter().all(in_place)
        },
    )
    .await?;
    let found = demo.alarms_in_aws(tenant, &name).await?;
    proof::ensure(
        found == [name.clone()],
        format!("CloudWatch has {name}"),
        format!("{found:?}"),
    )?;
    demo.screen.proven(format!(
        "CloudWatch has {ALARM} again, and the AlarmSet is Applied"
    ));
    told(demo).await
}

/// What happened stays readable: in the condition, and as an Event.
async fn told(demo: &Demo<'_>) -> Result<()> {
    let namespace = demo.tenant().namespace.as_str();
    let path = "jsonpath={range .status.conditions[?(@.type==\"Drifted\")]}{.status} {.reason} {.message}{end}";
    let args = ["get", "aset", SET, "-n", namespace, "-o", path];
    let condition = demo.kubectl(&args).await?;
    proof::ensure(
        condition.starts_with("False DriftRepaired ")
            && condition.contains(&format!("{ALARM}@prod was missing")),
        format!("the condition Drifted says that {ALARM} was missing and was repaired"),
        condition,
    )?;
    let about = format!("involvedObject.name={SET},reason=DriftRepaired");
    let args = ["get", "events", "-n", namespace, "--field-selector", &about];
    let tells = |text: &str| text.lines().filter(|line| line.contains(ALARM)).count();
    let expected = format!("an Event tells of {ALARM}");
    let events = demo
        .until(&expected, &args, |text| {
            (tells(text) > 0).then(|| text.to_owned())
        })
        .await?;
    demo.screen.command(&typed("kubectl", &args));
    demo.screen.output(&events);
    proof::ensure(tells(&events) == 1, "it is one Event", events)?;
    demo.screen
        .proven("the condition Drifted and one Event tell what was found and what was done");
    Ok(())
}

/// When an alarm went into its state, by its entry in an AlarmSet's status.
fn since(entry: &str) -> Option<Timestamp> {
    let entry: Value = serde_json::from_str(entry).ok()?;
    entry["since"].as_str()?.parse().ok()
}

fn this_second() -> Timestamp {
    let now = Timestamp::now();
    let second = jiff::TimestampRound::new()
        .smallest(Unit::Second)
        .mode(jiff::RoundMode::Trunc);
    now.round(second).unwrap_or(now)
}
