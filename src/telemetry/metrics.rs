//! Prometheus series. No label's values grow with the fleet: what is said of single objects is summed.

use crate::engine::{
    error::{Error, Result},
    scope_pool::Ages,
};
use parking_lot::Mutex;
use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Metric, Registry, Unit},
};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

/// A reconcile that had nothing to do takes milliseconds; two hundred puts at three a second take a minute.
const RECONCILE_SECONDS: [f64; 12] = [
    0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0, 180.0,
];
const REQUEST_SECONDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// What the operator counts. Clones count into the same series.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    reconciles: Family<Labels<2>, Counter>,
    reconcile_duration: Seconds<1>,
    requests: Family<Labels<3>, Counter>,
    request_duration: Seconds<2>,
    objects: Family<Labels<2>, Gauge>,
    alarms: Family<Labels<1>, Gauge>,
    leader: Gauge,
    drift_found: Family<Labels<1>, Counter>,
    drift_repaired: Family<Labels<1>, Counter>,
    mirrors: Family<Labels<1>, Gauge>,
    mirrors_failing: Family<Labels<1>, Gauge>,
    mirror_age: Family<Labels<2>, Gauge<f64, AtomicU64>>,
    /// What was last said of each object, by UID, so that it can be taken back.
    said: Mutex<HashMap<String, Said>>,
}

/// Names and values.
type Labels<const N: usize> = [(&'static str, String); N];

type Seconds<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

fn labels<const N: usize>(labels: [(&'static str, &str); N]) -> Labels<N> {
    labels.map(|(name, value)| (name, value.to_owned()))
}

/// A series without a unit, registered.
fn series<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

/// A series of seconds, registered.
fn seconds<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
    metric
}

#[derive(Default)]
struct Said {
    object: Option<Labels<2>>,
    alarms: BTreeMap<&'static str, i64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All series, empty.
    pub fn new() -> Self {
        let mut all = Registry::with_prefix("campanile");
        let registry = &mut all;
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Which Campanile this is", version);
        Self(Arc::new(Inner {
            reconciles: series(registry, "reconciles", "Reconciles by how they ended"),
            reconcile_duration: seconds(
                registry,
                "reconcile_duration",
                "How long reconciles take",
                Family::new_with_constructor(|| Histogram::new(RECONCILE_SECONDS)),
            ),
            requests: series(
                registry,
                "outside_requests",
                "Requests to the outside by how they ended",
            ),
            request_duration: seconds(
                registry,
                "outside_request_duration",
                "How long requests to the outside take",
                Family::new_with_constructor(|| Histogram::new(REQUEST_SECONDS)),
            ),
            objects: series(
                registry,
                "objects",
                "Objects by the reason of their Ready condition",
            ),
            alarms: series(registry, "alarms", "Alarms by state"),
            leader: series(registry, "leader", "Whether this replica leads"),
            drift_found: series(
                registry,
                "drift_found",
                "Things that had come to differ outside since they were applied",
            ),
            drift_repaired: series(
                registry,
                "drift_repaired",
                "Those of them that were repaired",
            ),
            mirrors: series(
                registry,
                "mirrors",
                "Credential scopes that are watched outside",
            ),
            mirrors_failing: series(
                registry,
                "mirrors_failing",
                "Those of them of which something could not be read the last time",
            ),
            mirror_age: seconds(
                registry,
                "mirror_age",
                "The age of the oldest of what was read last, by how often it is read",
                Family::default(),
            ),
            registry: all,
            said: Mutex::default(),
        }))
    }

    /// A reconcile has ended: `ok`, `panic`, or the label of its error's class.
    pub fn reconciled(&self, kind: &'static str, outcome: &'static str, took: Duration) {
        let Inner {
            reconciles,
            reconcile_duration,
            ..
        } = &*self.0;
        let ended = labels([("kind", kind), ("outcome", outcome)]);
        reconciles.get_or_create(&ended).inc();
        let kind = labels([("kind", kind)]);
        let duration = reconcile_duration.get_or_create(&kind);
        duration.observe(took.as_secs_f64());
    }

    /// A request to the outside has ended: `ok`, or the label of its error's class.
    pub fn requested(&self, service: &str, operation: &str, outcome: &'static str, took: Duration) {
        let Inner {
            requests,
            request_duration,
            ..
        } = &*self.0;
        let [service, operation] = [("service", service), ("operation", operation)];
        let ended = labels([service, operation, ("outcome", outcome)]);
        requests.get_or_create(&ended).inc();
        let duration = request_duration.get_or_create(&labels([service, operation]));
        duration.observe(took.as_secs_f64());
    }

    /// The object with this UID now has this reason in its `Ready` condition.
    pub fn object(&self, kind: &'static str, uid: &str, ready: &str) {
        let mut said = self.0.said.lock();
        let now = labels([("kind", kind), ("ready", ready)]);
        self.0.objects.get_or_create(&now).inc();
        let before = said.entry(uid.to_owned()).or_default().object.replace(now);
        self.take_back(before);
    }

    /// The object with this UID now has so many alarms in each state.
    pub fn alarms(&self, uid: &str, counts: impl IntoIterator<Item = (&'static str, i64)>) {
        let mut said = self.0.said.lock();
        let now: BTreeMap<_, _> = counts.into_iter().collect();
        self.add_alarms(&now, 1);
        let before = std::mem::replace(&mut said.entry(uid.to_owned()).or_default().alarms, now);
        self.add_alarms(&before, -1);
    }

    /// The object is gone: it no longer counts.
    pub fn forget(&self, uid: &str) {
        let mut said = self.0.said.lock();
        if let Some(Said { object, alarms }) = said.remove(uid) {
            self.take_back(object);
            self.add_alarms(&alarms, -1);
        }
    }

    /// So many things were found to have come to differ outside, and so many of them were repaired.
    pub fn drifted(&self, kind: &'static str, found: usize, repaired: usize) {
        let counts = [
            (&self.0.drift_found, found),
            (&self.0.drift_repaired, repaired),
        ];
        for (family, count) in counts {
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            family
                .get_or_create(&labels([("kind", kind)]))
                .inc_by(count);
        }
    }

    /// How old what objects of this kind know of the outside is.
    pub fn mirrors(&self, kind: &'static str, ages: Ages) {
        let count = |count| i64::try_from(count).unwrap_or(i64::MAX);
        let of_kind = labels([("kind", kind)]);
        let Inner {
            mirrors,
            mirrors_failing,
            mirror_age,
            ..
        } = &*self.0;
        mirrors.get_or_create(&of_kind).set(count(ages.open));
        mirrors_failing
            .get_or_create(&of_kind)
            .set(count(ages.failing));
        for (rhythm, age) in [("poll", ages.polled), ("slow", ages.slow)] {
            let labels = labels([("kind", kind), ("rhythm", rhythm)]);
            mirror_age.get_or_create(&labels).set(age.as_secs_f64());
        }
    }

    /// Whether this replica leads.
    pub fn leader(&self, leads: bool) {
        self.0.leader.set(i64::from(leads));
    }

    /// All series in the OpenMetrics text format.
    pub fn text(&self) -> Result<String> {
        // Held so that no sum is read between the two halves of a change.
        let _said = self.0.said.lock();
        let mut text = String::new();
        text::encode(&mut text, &self.0.registry)
            .map_err(|error| Error::failing(format!("could not write the metrics: {error}")))?;
        Ok(text)
    }

    fn take_back(&self, object: Option<Labels<2>>) {
        if let Some(object) = object {
            self.0.objects.get_or_create(&object).dec();
        }
    }

    fn add_alarms(&self, counts: &BTreeMap<&'static str, i64>, sign: i64) {
        for (&state, count) in counts {
            let alarms = self.0.alarms.get_or_create(&labels([("state", state)]));
            alarms.inc_by(sign * count);
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_says(metrics: &Metrics, lines: &[&str]) {
        let text = metrics.text().unwrap();
        for line in lines {
            assert!(
                text.lines().any(|found| found == *line),
                "no {line} in\n{text}"
            );
        }
    }

    #[test]
    fn the_series_have_the_names_that_are_promised() {
        let metrics = Metrics::new();
        metrics.reconciled("AlarmSet", "ok", Duration::from_millis(30));
        metrics.reconciled("AlarmSet", "throttled", Duration::from_secs(2));
        metrics.requested(
            "cloudwatch",
            "PutMetricAlarm",
            "ok",
            Duration::from_millis(8),
        );
        metrics.leader(true);
        assert_says(
            &metrics,
            &[
                r#"campanile_reconciles_total{kind="AlarmSet",outcome="ok"} 1"#,
                r#"campanile_reconciles_total{kind="AlarmSet",outcome="throttled"} 1"#,
                r#"campanile_reconcile_duration_seconds_bucket{le="0.05",kind="AlarmSet"} 1"#,
                r#"campanile_reconcile_duration_seconds_count{kind="AlarmSet"} 2"#,
                r#"campanile_outside_requests_total{service="cloudwatch",operation="PutMetricAlarm",outcome="ok"} 1"#,
                r#"campanile_outside_request_duration_seconds_count{service="cloudwatch",operation="PutMetricAlarm"} 1"#,
                "campanile_leader 1",
                concat!(
                    r#"campanile_build_info{version=""#,
                    env!("CARGO_PKG_VERSION"),
                    r#""} 1"#
                ),
                "# EOF",
            ],
        );
    }

    #[test]
    fn sums_follow_their_objects_and_forget_them() {
        let metrics = Metrics::new();
        metrics.object("AlarmSet", "1", "Applied");
        metrics.object("AlarmSet", "2", "Applied");
        metrics.object("AlarmSet", "2", "Applied");
        metrics.alarms("1", [("OK", 3), ("ALARM", 1)]);
        metrics.alarms("2", [("OK", 4)]);
        let (applied, denied) = (
            r#"campanile_objects{kind="AlarmSet",ready="Applied"}"#,
            r#"campanile_objects{kind="AlarmSet",ready="Denied"}"#,
        );
        let (ok, alarm) = (
            r#"campanile_alarms{state="OK"}"#,
            r#"campanile_alarms{state="ALARM"}"#,
        );
        let says = |expected: &[(&str, i64)]| {
            let lines: Vec<_> = expected
                .iter()
                .map(|(series, value)| format!("{series} {value}"))
                .collect();
            assert_says(
                &metrics,
                &lines.iter().map(String::as_str).collect::<Vec<_>>(),
            );
        };
        says(&[(applied, 2), (ok, 7), (alarm, 1)]);

        metrics.object("AlarmSet", "2", "Denied");
        metrics.alarms("1", [("OK", 4)]);
        says(&[(applied, 1), (denied, 1), (ok, 8), (alarm, 0)]);

        metrics.forget("2");
        metrics.forget("2");
        metrics.forget("never seen");
        says(&[(applied, 1), (denied, 0), (ok, 4)]);
        metrics.forget("1");
        says(&[(applied, 0), (denied, 0), (ok, 0), (alarm, 0)]);
    }
}
