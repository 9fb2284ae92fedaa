//! Prometheus series. No label's values grow with the fleet: what is said of single objects is summed.

use crate::engine::{
    error::{Error, Result},
    scope_pool::Ages,
};
use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
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
    reconciles: Family<Reconciles, Counter>,
    reconcile_duration: Seconds<Kind>,
    requests: Family<Requests, Counter>,
    request_duration: Seconds<Operation>,
    objects: Family<Objects, Gauge>,
    alarms: Family<Alarms, Gauge>,
    leader: Gauge,
    drift_found: Family<Kind, Counter>,
    drift_repaired: Family<Kind, Counter>,
    mirrors: Family<Kind, Gauge>,
    mirrors_failing: Family<Kind, Gauge>,
    mirror_age: Family<Rhythms, Gauge<f64, AtomicU64>>,
    /// What was last said of each object, by UID, so that it can be taken back.
    said: Mutex<HashMap<String, Said>>,
}

type Seconds<L> = Family<L, Histogram, fn() -> Histogram>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rhythms {
    kind: &'static str,
    rhythm: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconciles {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    service: String,
    operation: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Requests {
    service: String,
    operation: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Objects {
    kind: &'static str,
    ready: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Alarms {
    state: &'static str,
}

#[derive(Default)]
struct Said {
    object: Option<Objects>,
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
        let mut registry = Registry::with_prefix("campanile");
        let reconciles = Family::default();
        let reconcile_duration: Seconds<_> =
            Family::new_with_constructor(|| Histogram::new(RECONCILE_SECONDS));
        let requests = Family::default();
        let request_duration: Seconds<_> =
            Family::new_with_constructor(|| Histogram::new(REQUEST_SECONDS));
        let (objects, alarms, leader) = (Family::default(), Family::default(), Gauge::default());
        registry.register(
            "reconciles",
            "Reconciles by how they ended",
            reconciles.clone(),
        );
        registry.register_with_unit(
            "reconcile_duration",
            "How long reconciles take",
            Unit::Seconds,
            reconcile_duration.clone(),
        );
        registry.register(
            "outside_requests",
            "Requests to the outside by how they ended",
            requests.clone(),
        );
        registry.register_with_unit(
            "outside_request_duration",
            "How long requests to the outside take",
            Unit::Seconds,
            request_duration.clone(),
        );
        registry.register(
            "objects",
            "Objects by the reason of their Ready condition",
            objects.clone(),
        );
        registry.register("alarms", "Alarms by state", alarms.clone());
        registry.register("leader", "Whether this replica leads", leader.clone());
        let (drift_found, drift_repaired) = (Family::default(), Family::default());
        registry.register(
            "drift_found",
            "Things that had come to differ outside since they were applied",
            drift_found.clone(),
        );
        registry.register(
            "drift_repaired",
            "Those of them that were repaired",
            drift_repaired.clone(),
        );
        let (mirrors, mirrors_failing) = (Family::default(), Family::default());
        let mirror_age = Family::default();
        registry.register(
            "mirrors",
            "Credential scopes that are watched outside",
            mirrors.clone(),
        );
        registry.register(
            "mirrors_failing",
            "Those of them of which something could not be read the last time",
            mirrors_failing.clone(),
        );
        registry.register_with_unit(
            "mirror_age",
            "The age of the oldest of what was read last, by how often it is read",
            Unit::Seconds,
            mirror_age.clone(),
        );
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Which Campanile this is", version);
        Self(Arc::new(Inner {
            registry,
            reconciles,
            reconcile_duration,
            requests,
            request_duration,
            objects,
            alarms,
            leader,
            drift_found,
            drift_repaired,
            mirrors,
            mirrors_failing,
            mirror_age,
            said: Mutex::default(),
        }))
    }

    /// A reconcile has ended: `ok`, `panic`, or the label of its error's class.
    pub fn reconciled(&self, kind: &'static str, outcome: &'static str, took: Duration) {
        self.0
            .reconciles
            .get_or_create(&Reconciles { kind, outcome })
            .inc();
        self.0
            .reconcile_duration
            .get_or_create(&Kind { kind })
            .observe(took.as_secs_f64());
    }

    /// A request to the outside has ended: `ok`, or the label of its error's class.
    pub fn requested(&self, service: &str, operation: &str, outcome: &'static str, took: Duration) {
        let (service, operation) = (service.to_owned(), operation.to_owned());
        let labels = Requests {
            service: service.clone(),
            operation: operation.clone(),
            outcome,
        };
        self.0.requests.get_or_create(&labels).inc();
        self.0
            .request_duration
            .get_or_create(&Operation { service, operation })
            .observe(took.as_secs_f64());
    }

    /// The object with this UID now has this reason in its `Ready` condition.
    pub fn object(&self, kind: &'static str, uid: &str, ready: &str) {
        let mut said = self.0.said.lock();
        let now = Objects {
            kind,
            ready: ready.to_owned(),
        };
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
            family.get_or_create(&Kind { kind }).inc_by(count);
        }
    }

    /// How old what objects of this kind know of the outside is.
    pub fn mirrors(&self, kind: &'static str, ages: Ages) {
        let count = |count| i64::try_from(count).unwrap_or(i64::MAX);
        let labels = Kind { kind };
        let Inner {
            mirrors,
            mirrors_failing,
            mirror_age,
            ..
        } = &*self.0;
        mirrors.get_or_create(&labels).set(count(ages.open));
        mirrors_failing
            .get_or_create(&labels)
            .set(count(ages.failing));
        for (rhythm, age) in [("poll", ages.polled), ("slow", ages.slow)] {
            let labels = Rhythms { kind, rhythm };
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

    fn take_back(&self, object: Option<Objects>) {
        if let Some(object) = object {
            self.0.objects.get_or_create(&object).dec();
        }
    }

    fn add_alarms(&self, counts: &BTreeMap<&'static str, i64>, sign: i64) {
        for (&state, count) in counts {
            self.0
                .alarms
                .get_or_create(&Alarms { state })
                .inc_by(sign * count);
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
