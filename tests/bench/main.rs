//! What Campanile costs and how fast it is, as a table: `make bench`. Asserts nothing.
//!
//! Everything is as in the tests, but that the operator looks after all namespaces, as the chart
//! installs it, and that AWS's published quotas are enforced in every account.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../fleet.rs"]
#[allow(dead_code)]
mod fleet;
#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports)]
mod support;
mod table;
mod usage;

use anyhow::{Result, bail};
use campanile::api::{AlarmSet, TenantObservability};
use campanile_world::{
    World,
    aws::{Call, Mark, Trust},
};
use fleet::{ALARMS, Fleet, Operator, SET, Who, alarms, concerns, describes};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    future::Future,
    time::{Duration, Instant},
};
use support::{CLUSTER, Conditions, REGION, Tenant};
use table::{count, ratio, row, seconds, title};
use usage::Usage;

/// How many tenants the fleet has.
const TENANTS: usize = 50;
/// How many objects: each has a TenantObservability and an AlarmSet.
const OBJECTS: usize = 2 * TENANTS;
/// How often the alarms are read: by default 60 s.
const POLL: Duration = Duration::from_secs(3);
/// How often what changes rarely is read: as the default, ten times as seldom.
const SLOW: Duration = Duration::from_secs(30);
/// For how many polls the idle fleet is watched.
const POLLS: usize = 10;
/// How many alarms the large AlarmSet has.
const MANY: usize = 200;
/// How many of them are edited at once while somebody else edits one.
const EDITED: usize = 100;
/// What AWS publishes for `PutMetricAlarm`, in requests per second.
const RATE: f64 = 3.0;
/// How many edits are timed in each case.
const EDITS: usize = 5;
/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked whether an edit is applied.
const GLANCE: Duration = Duration::from_millis(20);
/// How often where what is looked at is large, so that the looking does not count.
const RARELY: Duration = Duration::from_millis(250);

fn main() {
    support::test(|world| async move {
        let began = Instant::now();
        if let Err(error) = bench(world).await {
            println!("\nThe rest was not measured: {error:#}");
        }
        let took = began.elapsed().as_secs();
        println!(
            "\nThis took {took} s. The machine's load now: {}.",
            usage::load()
        );
    });
}

async fn bench(world: &'static World) -> Result<()> {
    let build = if cfg!(debug_assertions) {
        "not optimized (PROFILE=release is)"
    } else {
        "optimized"
    };
    let cores = std::thread::available_parallelism()?;
    println!(
        "\n{TENANTS} tenants of {ALARMS} alarms in {TENANTS} accounts, each behind AWS's published quotas. \
        Polls every {} s, slow rounds every {} s.\nThe operator's build is {build}; it and the world share {cores} cores, \
        whose load was {} before.",
        POLL.as_secs(),
        SLOW.as_secs(),
        usage::load()
    );
    let fleet = Fleet::new(world, "bench", TENANTS).await;
    for tenant in &fleet.tenants {
        world.aws.limit_rates(&tenant.account);
    }
    let who = Who::new(world, "bench").await;
    let operator = start(world, &who).await;
    ready(&operator).await?;

    first_apply(world, &fleet, &who, &operator).await?;
    idle(world, &fleet, &who, &operator).await?;
    operator.process.stop(PATIENCE).await?;
    let operator = restart(world, &fleet, &who).await?;
    large(world, &fleet, &operator).await?;
    Ok(())
}

async fn start(world: &World, who: &Who) -> Operator {
    let poll = format!("--poll-interval={}s", POLL.as_secs());
    let slow = format!("--slow-poll-interval={}s", SLOW.as_secs());
    who.operator(world, &[&poll, &slow]).await
}

async fn ready(operator: &Operator) -> Result<()> {
    let ask = || async { operator.get("/readyz").await.map_err(|no| no.to_string()) };
    until("/readyz", GLANCE, ask).await.map(drop)
}

/// From 50 tenants applied at once to the last of them being as declared.
async fn first_apply(world: &World, fleet: &Fleet, who: &Who, operator: &Operator) -> Result<()> {
    title("First apply of the fleet");
    let before = Usage::of(&operator.process)?;
    let (calls, writes) = (world.aws.mark(), world.kubernetes.mark_writes());
    let began = Instant::now();
    fleet.apply().await;
    row("applying the manifests", seconds(began.elapsed()), "");
    until("the fleet to be applied", RARELY, || fleet.is_applied()).await?;
    let least = ALARMS as f64 / RATE;
    let wanted = format!("the quota alone: {least:.1} s");
    row(
        "until all is as declared",
        seconds(began.elapsed()),
        &wanted,
    );
    at_rest(world, fleet, operator).await?;
    let usage = Usage::of(&operator.process)?;

    let calls = about(fleet, world.aws.calls_since(calls));
    let describes: usize = describes(&calls).values().sum();
    let others = (calls.len() - describes) as f64 / TENANTS as f64;
    row("outside calls per tenant, polls aside", ratio(others), "");
    throttled(&calls);
    let writes = who.writes_since(world, writes);
    let of = |which: fn(&str, &str) -> bool| {
        let which = writes
            .iter()
            .filter(|one| which(&one.resource, &one.subresource));
        ratio(which.count() as f64 / OBJECTS as f64)
    };
    row("status writes per object", of(|_, sub| sub == "status"), "");
    row(
        "Events per object",
        of(|resource, _| resource == "events"),
        "",
    );
    let reconciles = operator.reconciles().await? as f64 / OBJECTS as f64;
    row("reconciles per object", ratio(reconciles), "");
    usage.rows_since(&before);
    Ok(())
}

/// Nothing happens.
async fn idle(world: &World, fleet: &Fleet, who: &Who, operator: &Operator) -> Result<()> {
    title(&format!("The idle fleet, over {POLLS} polls"));
    let before = Usage::of(&operator.process)?;
    let reconciles = operator.reconciles().await?;
    let (calls, writes) = (world.aws.mark(), world.kubernetes.mark_writes());
    let began = Instant::now();
    until("polls", RARELY, || async {
        fleet.are_polled(world, calls, POLLS)
    })
    .await?;
    let took = began.elapsed();
    let usage = Usage::of(&operator.process)?;

    let reconciles = operator.reconciles().await? - reconciles;
    row("reconciles", count(reconciles), "0");
    let writes = who.writes_since(world, writes).len();
    row("API-server writes but the Lease", count(writes), "0");
    let calls = about(fleet, world.aws.calls_since(calls));
    let describes: usize = describes(&calls).values().sum();
    let per = |calls: usize, every: Duration| {
        let rounds = took.as_secs_f64() / every.as_secs_f64();
        ratio(calls as f64 / TENANTS as f64 / rounds)
    };
    row(
        "DescribeAlarms per account and poll",
        per(describes, POLL),
        "1, the poll being a tenth sooner or later",
    );
    let rest = calls.len() - describes;
    row(
        "other calls per account and slow round",
        per(rest, SLOW),
        "25",
    );
    throttled(&calls);
    let cpu = (usage.cpu - before.cpu).as_secs_f64();
    let polls = took.as_secs_f64() / POLL.as_secs_f64();
    row(
        "CPU per poll of the fleet",
        format!("{:.0} ms", cpu * 1000.0 / polls),
        "",
    );
    usage.rows_since(&before);
    Ok(())
}

/// The operator starts over a fleet that is as declared.
async fn restart(world: &World, fleet: &Fleet, who: &Who) -> Result<Operator> {
    title("Restart over the idle fleet");
    let (calls, writes) = (world.aws.mark(), world.kubernetes.mark_writes());
    let began = Instant::now();
    let operator = start(world, who).await;
    ready(&operator).await?;
    row("until /readyz", seconds(began.elapsed()), "");
    until("every object to have been looked at", RARELY, || async {
        let metrics = operator.get("/metrics").await;
        let metrics = metrics.map_err(|no| no.to_string())?;
        let objects = metrics
            .lines()
            .filter(|line| line.starts_with("campanile_objects{"));
        let applied: usize = objects
            .filter(|line| line.contains(r#"ready="Applied""#))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok())
            .sum();
        if applied == OBJECTS {
            Ok(())
        } else {
            Err(format!("{applied} of {OBJECTS}"))
        }
    })
    .await?;
    row(
        "until every object was looked at",
        seconds(began.elapsed()),
        "",
    );
    let read = about(fleet, world.aws.calls_since(calls));
    row(
        "outside calls per tenant",
        ratio(read.len() as f64 / TENANTS as f64),
        "",
    );
    let written = read.iter().filter(|call| call.write).count();
    row("outside writes", count(written), "0");
    throttled(&read);
    at_rest(world, fleet, &operator).await?;
    let writes = who.writes_since(world, writes);
    row("API-server writes but the Lease", count(writes.len()), "0");
    Usage::of(&operator.process)?.rows_since(&Usage::default());
    Ok(operator)
}

/// 200 alarms of one AlarmSet at AWS's rates, and what others feel of it.
async fn large(world: &'static World, fleet: &Fleet, operator: &Operator) -> Result<()> {
    let large = Tenant::new(world, "bench-large").await;
    world.aws.limit_rates(&large.account);
    large.usual_tenant().await;
    let near = near(world, &large).await?;
    let far = fleet.tenants.first().unwrap();
    for tenant in [&large, &near] {
        let name = &tenant.namespace;
        let applied = || is_applied::<TenantObservability>(tenant, name, None);
        until("a tenant to be applied", RARELY, applied).await?;
    }
    let set = || is_applied::<AlarmSet>(&near, SET, None);
    until("an AlarmSet to be applied", RARELY, set).await?;
    at_rest(world, fleet, operator).await?;
    let mut thresholds = 11..;
    let (mut alone_near, mut alone_far) = (Times::default(), Times::default());
    for threshold in thresholds.by_ref().take(EDITS) {
        alone_near.push(edit(&near, threshold).await?);
        alone_far.push(edit(far, threshold).await?);
    }

    title(&format!("{MANY} alarms of one AlarmSet"));
    let mark = world.aws.mark();
    let (took, meanwhile_far) = put(&large, alarms(MANY), far, &mut thresholds, MANY).await?;
    puts(world, &large, mark, MANY, took);
    title(&format!(
        "An edit of one alarm in another account while those {MANY} are put"
    ));
    compare(&alone_far, &meanwhile_far);

    title(&format!(
        "An edit of one alarm of another tenant of that account while {EDITED} are edited"
    ));
    let mut edited = alarms(MANY);
    for alarm in edited.as_array_mut().unwrap().iter_mut().take(EDITED) {
        alarm["threshold"] = json!(11);
    }
    let mark = world.aws.mark();
    let (took, meanwhile_near) = put(&large, edited, &near, &mut thresholds, EDITED).await?;
    compare(&alone_near, &meanwhile_near);
    puts(world, &large, mark, EDITED + meanwhile_near.0.len(), took);
    Ok(())
}

/// Another tenant of the same account, in a namespace of its own.
async fn near(world: &'static World, large: &Tenant) -> Result<Tenant> {
    let mut near = Tenant::new(world, "bench-near").await;
    near.account.clone_from(&large.account);
    let role = format!("arn:aws:iam::{}:role/near", near.account);
    let external_id = format!("{CLUSTER}/{}", near.namespace);
    world.aws.role(&role, Trust::external_id(external_id));
    near.bind(Some(&near.account)).await;
    let mut spec = near.usual_spec();
    spec["aws"] = json!({"accountId": near.account, "region": REGION, "roleArn": role});
    near.tenant(spec).await;
    near.set(SET, json!(["prod"]), alarms(ALARMS)).await;
    Ok(near)
}

/// Applies alarms to the large tenant, and edits of one alarm of another one until they are all there.
async fn put(
    large: &Tenant,
    alarms: Value,
    other: &Tenant,
    thresholds: &mut impl Iterator<Item = i32>,
    count: usize,
) -> Result<(Duration, Times)> {
    let began = Instant::now();
    let set = large.set("many", json!(["prod"]), alarms).await;
    let applied = || is_applied::<AlarmSet>(large, "many", set.metadata.generation);
    let all = async {
        until("all alarms to be put", RARELY, applied).await?;
        anyhow::Ok(began.elapsed())
    };
    let edits = async {
        // Spread over the time that it takes at the least.
        let pause = Duration::from_secs_f64(count as f64 / RATE / (EDITS + 1) as f64);
        let mut times = Times::default();
        for (number, threshold) in (1..).zip(thresholds.take(EDITS)) {
            tokio::time::sleep_until((began + pause * number).into()).await;
            times.push(edit(other, threshold).await?);
        }
        anyhow::Ok(times)
    };
    tokio::try_join!(all, edits)
}

/// Edits one alarm. Answers with how long it took until status said that it is applied.
async fn edit(tenant: &Tenant, threshold: i32) -> Result<Duration> {
    let mut edited = alarms(ALARMS);
    edited[0]["threshold"] = json!(threshold);
    let began = Instant::now();
    let set = tenant.set(SET, json!(["prod"]), edited).await;
    let applied = || is_applied::<AlarmSet>(tenant, SET, set.metadata.generation);
    until("an edit to be applied", GLANCE, applied).await?;
    Ok(began.elapsed())
}

/// Whether an object is applied, at this generation if that is known.
async fn is_applied<K: Conditions>(
    tenant: &Tenant,
    name: &str,
    generation: Option<i64>,
) -> Result<(), String> {
    let object = tenant.api::<K>().get(name).await;
    let object = object.map_err(|error| error.to_string())?;
    let ready = object.condition("Ready");
    let generation = generation.or(object.meta().generation);
    let applied = ready
        .is_some_and(|ready| ready.reason == "Applied" && ready.observed_generation == generation);
    if applied {
        Ok(())
    } else {
        Err(format!("{ready:?}"))
    }
}

/// What the puts of an account came to.
fn puts(world: &World, tenant: &Tenant, mark: Mark, count: usize, took: Duration) {
    let mut calls = world.aws.calls_since(mark);
    calls.retain(|call| concerns(call, &tenant.account));
    let made = calls
        .iter()
        .filter(|call| call.operation == "PutMetricAlarm");
    row(
        "PutMetricAlarm in that account",
        table::count(made.count()),
        &count.to_string(),
    );
    let least = count as f64 / RATE;
    let wanted = format!("the quota alone: {least:.1} s");
    row("until all are there", seconds(took), &wanted);
    // What is done once is not made up for by less.
    let wanted = if count < MANY { "" } else { "at most 1.05" };
    row("ratio", ratio(took.as_secs_f64() / least), wanted);
    throttled(&calls);
}

fn throttled(calls: &[Call]) {
    let throttled = calls.iter().filter(|call| {
        let error = call.error.as_deref();
        error.is_some_and(|code| code.contains("Throttl"))
    });
    row("throttled answers", count(throttled.count()), "0");
}

fn compare(alone: &Times, meanwhile: &Times) {
    row("alone: median, longest", alone.shown(), "");
    row("meanwhile: median, longest", meanwhile.shown(), "");
    let more = meanwhile.longest().as_secs_f64() - alone.median().as_secs_f64();
    row(
        "the longest meanwhile takes longer by",
        format!("{more:.2} s"),
        "at most 2 s",
    );
}

/// How long each of some edits took.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn push(&mut self, took: Duration) {
        self.0.push(took);
        self.0.sort_unstable();
    }

    fn median(&self) -> Duration {
        self.0.get(self.0.len() / 2).copied().unwrap_or_default()
    }

    fn longest(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }

    fn shown(&self) -> String {
        format!("{}, {}", seconds(self.median()), seconds(self.longest()))
    }
}

/// Waits until nothing was reconciled for two polls of each account.
async fn at_rest(world: &World, fleet: &Fleet, operator: &Operator) -> Result<()> {
    loop {
        let before = operator.reconciles().await?;
        let mark = world.aws.mark();
        until("polls", RARELY, || async {
            fleet.are_polled(world, mark, 2)
        })
        .await?;
        if operator.reconciles().await? == before {
            return Ok(());
        }
    }
}

fn about(fleet: &Fleet, mut calls: Vec<Call>) -> Vec<Call> {
    let accounts: BTreeSet<_> = fleet.accounts();
    calls.retain(|call| accounts.iter().any(|account| concerns(call, account)));
    calls
}

async fn until<T, F>(what: &str, every: Duration, ask: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T, String>>,
{
    let began = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(last) if began.elapsed() > PATIENCE => {
                bail!("waited {PATIENCE:?} for {what}; last seen: {last}")
            }
            Err(_) => tokio::time::sleep(every).await,
        }
    }
}
