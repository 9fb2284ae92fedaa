//! What the tenants run: CampusCore in the one account, an instance in the other. They tell CloudWatch how they are, as they did
//! before anybody declared an alarm.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{Dimension, MetricDatum};
use campanile_world::World;

use crate::tenant::Tenant;

/// The deployment that the examples watch.
pub const DEPLOYMENT: &str = "campuscore-prod";
/// The metric of the alarm that is to fire.
pub const FAILURES: &str = "chat.request.error_count";
/// The period of that alarm.
pub const PERIOD: Duration = Duration::from_secs(300);

const INSTANCE: &str = "i-0123456789abcdef0";
/// A measure: the metric, what tells it apart besides the deployment, the value.
type Measure = (&'static str, Option<(&'static str, &'static str)>, f64);

const CHAT: (&str, &str) = ("Surface", "chat");
/// A good day. What counts failures stays away: nothing fails.
const ORDINARY: [Measure; 7] = [
    ("chat.request.duration_ms", Some(CHAT), 840.0),
    ("chat.request.count", None, 25.0),
    ("agent.run.count", None, 9.0),
    ("agent.tokens.input", None, 52_000.0),
    ("agent.tokens.output", None, 4_100.0),
    ("tool.search.duration_ms", None, 310.0),
    ("retrieval.duration_ms", None, 220.0),
];
const EMIT_EVERY: u32 = 10;
const EVALUATE_EVERY: Duration = Duration::from_secs(2);

/// Whose app is whose.
pub struct Apps {
    campuscore: Tenant,
    instance: Tenant,
}

impl Apps {
    /// The apps of the examples' tenants.
    pub fn of(tenants: &[Tenant]) -> Result<Self> {
        let tenant = |name: &str| {
            let found = tenants.iter().find(|tenant| tenant.name == name).cloned();
            found.with_context(|| format!("examples/ has no tenant {name}"))
        };
        Ok(Self {
            campuscore: tenant("vsu")?,
            instance: tenant("smallapp")?,
        })
    }

    /// The tenant that the demo follows.
    pub fn campuscore(&self) -> &Tenant {
        &self.campuscore
    }

    /// Goes on for ever, as apps and CloudWatch do: measures come in, and alarms are evaluated whether they do or not.
    pub async fn live(&self, world: &World) -> anyhow::Error {
        let beat = async {
            for number in 1_u32.. {
                tokio::time::sleep(EVALUATE_EVERY).await;
                if number % EMIT_EVERY == 0 {
                    self.emit(world).await?;
                }
                world.aws.evaluate_alarms(None).await?;
            }
            anyhow::Ok(())
        };
        match beat.await {
            Err(error) => error.context("the tenants' apps stopped"),
            Ok(()) => anyhow::anyhow!("the tenants' apps stopped"),
        }
    }

    /// One report of a good day from each.
    pub async fn emit(&self, world: &World) -> Result<()> {
        let now = SystemTime::now();
        let chat = ORDINARY.map(|(metric, more, value)| {
            let dimensions = more.into_iter().chain([("DeploymentId", DEPLOYMENT)]);
            datum(metric, dimensions, value, now)
        });
        put(world, &self.campuscore, "CampusCore", chat.into()).await?;
        let instance = [("CPUUtilization", 17.0), ("StatusCheckFailed", 0.0)];
        let instance =
            instance.map(|(metric, value)| datum(metric, [("InstanceId", INSTANCE)], value, now));
        put(world, &self.instance, "AWS/EC2", instance.into()).await
    }

    /// One report of how many chat requests of a deployment failed, as of `at`.
    pub async fn report_failures(
        &self,
        world: &World,
        deployment: &str,
        failures: f64,
        at: SystemTime,
    ) -> Result<()> {
        let report = datum(FAILURES, [("DeploymentId", deployment)], failures, at);
        put(world, &self.campuscore, "CampusCore", vec![report]).await
    }
}

fn datum<'a>(
    metric: &str,
    dimensions: impl IntoIterator<Item = (&'a str, &'a str)>,
    value: f64,
    at: SystemTime,
) -> MetricDatum {
    let dimensions = dimensions
        .into_iter()
        .map(|(name, value)| Dimension::builder().name(name).value(value).build());
    MetricDatum::builder()
        .metric_name(metric)
        .set_dimensions(Some(dimensions.collect()))
        .value(value)
        .timestamp(DateTime::from(at))
        .build()
}

async fn put(
    world: &World,
    tenant: &Tenant,
    namespace: &str,
    data: Vec<MetricDatum>,
) -> Result<()> {
    world
        .aws
        .cloudwatch(&tenant.account, &tenant.region)
        .put_metric_data()
        .namespace(namespace)
        .set_metric_data(Some(data))
        .send()
        .await
        .with_context(|| format!("account {} does not take metric data", tenant.account))?;
    Ok(())
}
