//! The examples, from nothing to Healthy.

use anyhow::Result;

use super::mail;
use crate::demo::{Demo, in_repository, typed};
use crate::proof::{self, Look, Unproven};
use crate::table::Row;
use crate::tenant::Tenant;
use crate::watch::Watch;

/// How wide a column of the watch is shown.
const WIDTH: usize = 19;

/// The watch that follows the tenants, and how much of it was shown.
pub struct Followed {
    watch: Watch,
    shown: usize,
}

impl Followed {
    /// Shows every state that a tenant goes through, until each is as it `should` be: READY, to its first
    /// letters, and HEALTH.
    async fn until(
        &mut self,
        demo: &Demo<'_>,
        expected: &str,
        should: impl Fn(&Tenant) -> (&'static str, &'static str),
    ) -> Result<()> {
        let screen = demo.screen;
        let all_turned = proof::until(screen, demo.options.limit, expected, async || {
            let states = changes(self.watch.rows());
            for row in &states[self.shown..] {
                if self.shown == 0 {
                    screen.output(&lined_up(row.headings()));
                }
                screen.output(&lined_up(row.headings().map(|heading| row.cell(heading))));
                self.shown += 1;
            }
            let mut tenants = demo.tenants.iter();
            let all = tenants.all(|tenant| turned(&states, &tenant.name, should(tenant)));
            Ok(match all {
                true => Look::Seen(()),
                false => Look::NotYet("nothing else".to_owned()),
            })
        })
        .await;
        let Err(error) = all_turned else {
            return Ok(());
        };
        let wide = demo
            .kubectl_quietly(&["get", "tobs,aset", "-A", "-o", "wide"])
            .await?;
        Err(match error.downcast::<Unproven>() {
            Ok(Unproven { expected, .. }) => Unproven::error(expected, wide.stdout + &wide.stderr),
            Err(error) => error,
        })
    }
}

/// Applies them all and follows them until everything is in place that Campanile can do by itself.
pub async fn apply(demo: &Demo<'_>) -> Result<Followed> {
    let screen = demo.screen;
    screen.step(
        "examples/ are applied",
        "Two tenants, each in a Namespace and an AWS account of its own: vsu with the golden signals of its chat and its agents, \
         smallapp with one EC2 instance. Their apps run already. Campanile makes topics, subscribes the pager, has AWS invite who \
         hears by mail, and puts the alarms. What opens Slack is not in the files, so vsu waits for it, and for nothing else.",
    );
    let watch = Watch::start(demo.world, "tobs", demo.options.limit).await?;
    let examples = in_repository("examples/")?;
    demo.kubectl(&["apply", "--server-side", "-f", &examples])
        .await?;

    screen.command(&typed("kubectl", &["get", "tobs", "-A", "--watch"]));
    let mut followed = Followed { watch, shown: 0 };
    let followed_tenant = demo.tenant();
    let expected = "every tenant turns from Applying to Healthy, but for who waits for its readers and for Slack";
    let should = |tenant: &Tenant| match tenant == followed_tenant {
        true => ("WaitingFor", "Degraded"),
        false => ("Applied", "Healthy"),
    };
    followed.until(demo, expected, should).await?;
    for tenant in demo.tenants {
        let (name, (ready, health)) = (&tenant.name, should(tenant));
        screen.proven(match ready {
            "Applied" => format!("{name} was seen Applying, then Applied and {health}"),
            _ => format!(
                "{name} was seen Applying; now it waits, {health}, and its alarms are watched"
            ),
        });
    }
    Ok(followed)
}

/// The readers accept, and the tenant is well.
pub async fn confirmed(demo: &Demo<'_>, mut followed: Followed) -> Result<()> {
    let (screen, tenant) = (demo.screen, demo.tenant());
    screen.step(
        "The readers confirm",
        "Everything is Applied and the alarms are watched, so nothing waits: not Flux, not Argo CD. But a message to somebody who has \
         not confirmed reaches nobody. The tenant says so, in DeliveryReady and in HEALTH.",
    );
    let path = "jsonpath={range .status.conditions[?(@.type==\"DeliveryReady\")]}{.reason} {.message}{end}";
    let args = [
        "get",
        "tobs",
        &tenant.name,
        "-n",
        &tenant.namespace,
        "-o",
        path,
    ];
    // PagerDuty confirms by itself, within seconds.
    let said = demo
        .until(
            "only the readers of mail have not confirmed",
            &args,
            |text| {
                let waits = text.starts_with("PendingConfirmation ") && text.contains('@');
                (waits && !text.contains("PagerDuty")).then(|| text.to_owned())
            },
        )
        .await?;
    screen.command(&typed("kubectl", &args));
    screen.output(&said);
    mail::confirmed(demo).await?;
    screen.command(&typed("kubectl", &["get", "tobs", "-A", "--watch"]));
    let expected = "every tenant is Applied and Healthy";
    followed
        .until(demo, expected, |_| ("Applied", "Healthy"))
        .await?;
    healthy(demo).await
}

/// Without what looks the same as that object did before.
fn changes(rows: Vec<Row>) -> Vec<Row> {
    let mut kept: Vec<Row> = Vec::new();
    for row in rows {
        let same = |heading: &str, other: &Row| row.cell(heading) == other.cell(heading);
        let before = kept
            .iter()
            .rfind(|other| same("NAMESPACE", other) && same("NAME", other));
        if before.is_none_or(|before| {
            !["HEALTH", "ALARMS", "READY"]
                .iter()
                .all(|heading| same(heading, before))
        }) {
            kept.push(row);
        }
    }
    kept
}

/// kubectl's columns shift while it learns how wide they are; here they stay.
fn lined_up<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    cells.map(|cell| format!("{cell:<WIDTH$}")).collect()
}

/// Whether the watch saw this tenant first as Applying and, now, as `ready`, to its first letters, and of that health.
fn turned(rows: &[Row], name: &str, (ready, health): (&str, &str)) -> bool {
    let states: Vec<_> = rows.iter().filter(|row| row.cell("NAME") == name).collect();
    let applying = states.iter().any(|row| row.cell("READY") == "Applying");
    let is_now = states
        .last()
        .is_some_and(|row| row.cell("READY").starts_with(ready) && row.cell("HEALTH") == health);
    applying && is_now
}

/// Waits until everything is in place and nothing fires, and shows that.
pub async fn healthy(demo: &Demo<'_>) -> Result<()> {
    let tenants = demo.tenants.len();
    let rows = demo
        .until_table(
            "all is Applied and Healthy, every alarm has its data, and none fires",
            &["get", "tobs,aset", "-A"],
            |rows| {
                let well: Vec<_> = rows.iter().filter(|row| is_well(row)).collect();
                let sets = well
                    .iter()
                    .filter(|row| row.cell("HEALTH").is_empty())
                    .count();
                well.len() == rows.len() && well.len() >= sets + tenants && sets >= tenants
            },
        )
        .await?;
    for row in rows.iter().filter(|row| !row.cell("HEALTH").is_empty()) {
        let (name, alarms) = (row.cell("NAMESPACE"), row.cell("ALARMS"));
        demo.screen
            .proven(format!("{name} is {}, {alarms}", row.cell("HEALTH")));
    }
    Ok(())
}

fn is_well(row: &Row) -> bool {
    let quiet = match row.cell("HEALTH") {
        "" => row.cell("FIRING") == "0" && row.cell("NODATA") == "0" && row.cell("ALARMS") != "0",
        health => health == "Healthy" && row.cell("ALARMS").starts_with("0/"),
    };
    quiet && row.cell("READY") == "Applied"
}

#[cfg(test)]
mod tests {
    use super::{changes, turned};
    use crate::table::rows;

    #[test]
    fn only_from_applying_to_healthy_counts() {
        let seen = |lines: &[&str]| {
            let heading = "NAMESPACE   NAME        HEALTH     READY      AGE";
            turned(
                &changes(rows(&[&[heading], lines].concat().join("\n"))),
                "vsu",
                ("Applied", "Healthy"),
            )
        };
        let applying = "vsu         vsu         Unknown    Applying   0s";
        let healthy = "vsu         vsu         Healthy    Applied    2s";
        let degraded = "vsu         vsu         Degraded   Applied    3s";
        let other = "smallapp    smallapp    Unknown    Applying   0s";
        assert!(seen(&[applying, applying, healthy, healthy]));
        assert!(!seen(&[healthy]) && !seen(&[applying]) && !seen(&[]));
        assert!(!seen(&[applying, healthy, degraded]) && !seen(&[other, healthy]));
    }
}
