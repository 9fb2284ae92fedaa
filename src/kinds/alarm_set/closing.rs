//! How an alarm that fires is closed before it is removed, so that what it opened elsewhere is closed too.

use super::desired::Configuration;
use crate::engine::plan::{Change, Ours};
use parking_lot::Mutex;
use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;

/// How long an alarm stays after it was set to OK. CloudWatch acts on a change of state, and SNS and EventBridge deliver
/// it, within seconds; the topics and rules stay until the alarms are gone.
pub const PAUSE: Duration = Duration::from_secs(10);

/// What CloudWatch, and everybody who is told, reads as the reason of the OK.
pub const REASON: &str = "Campanile removes this alarm while it fires: it is closed, which does not say that the trouble is over.";

/// What no metric exceeds, or falls below where it is negative: CloudWatch takes values up to 2^360, about 2.3e108.
const OUT_OF_REACH: f64 = 1e108;

/// The changes that close an alarm. CloudWatch evaluates a metric alarm again within seconds, and would open anew what the
/// OK has closed: so that it cannot, what it tells is cut off and its threshold put out of reach before.
pub fn closing(
    key: &str,
    ours: &Ours<()>,
    found: &Configuration,
) -> Vec<Change<String, Configuration, ()>> {
    let mut disarmed = Configuration {
        alarm_actions: [].into(),
        ..found.clone()
    };
    // One that is about several metrics, or about none, cannot be put as one that is about one.
    let is_plain = found.threshold.is_some() && !found.metric_name.is_empty();
    if let Some(threshold) = disarmed.threshold.as_mut().filter(|_| is_plain) {
        // What we do not know of goes with the alarm.
        disarmed.foreign_fields = Vec::new();
        *threshold = match found.comparison_operator.starts_with("Less") {
            true => -OUT_OF_REACH,
            false => OUT_OF_REACH,
        };
        disarmed.treat_missing_data = "notBreaching".into();
    }
    let change = |from: &Configuration, to: &Configuration| Change::Update {
        key: key.to_owned(),
        ours: ours.clone(),
        from: from.clone(),
        to: to.clone(),
    };
    let mut changes = Vec::new();
    if is_plain && disarmed != *found {
        changes.push(change(found, &disarmed));
    }
    let state = |state| Configuration {
        state: Some(state),
        ..found.clone()
    };
    changes.push(change(&state("ALARM"), &state("OK, because it is removed")));
    changes
}

/// What came of closing an alarm.
#[derive(Clone, Copy, Debug)]
enum Closing {
    /// It was set to OK then, or may have been where `certain` is not set.
    Closed { at: Instant, certain: bool },
    /// It may not be.
    Refused,
}

/// The alarms that this process has closed and not removed yet, by ARN. What another process closed before it was so long
/// ago that its OK is delivered.
#[derive(Debug, Default)]
pub struct Closings(Mutex<HashMap<String, Closing>>);

impl Closings {
    /// An alarm was set to OK; `certain`: or may have been.
    pub fn closed(&self, arn: String, certain: bool) {
        let at = Instant::now();
        self.0.lock().insert(arn, Closing::Closed { at, certain });
    }

    /// It may not be set to OK.
    pub fn refused(&self, arn: String) {
        self.0.lock().insert(arn, Closing::Refused);
    }

    /// It is gone, or there to stay.
    pub fn forget(&self, arn: &str) {
        self.0.lock().remove(arn);
    }

    /// Whether one that fires and goes is to be closed: once.
    pub fn is_due(&self, arn: &str) -> bool {
        let known = self.0.lock().get(arn).copied();
        matches!(known, None | Some(Closing::Closed { certain: false, .. }))
    }

    /// Whether one that goes is to stay for the time being; `fires`: as it was seen last.
    pub fn defers(&self, arn: &str, fires: bool) -> bool {
        match self.0.lock().get(arn) {
            Some(Closing::Refused) => false,
            Some(Closing::Closed { at, certain }) if *certain || !fires => at.elapsed() < PAUSE,
            Some(Closing::Closed { .. }) | None => fires,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::{
            plan::{Found, Owner},
            rendering::Step,
        },
        kinds::alarm_set::cloudwatch,
    };
    use aws_sdk_cloudwatch::types::{ComparisonOperator, MetricAlarm, StandardUnit};

    #[test]
    fn what_fires_is_disarmed_once_and_then_set_to_ok() {
        let alarm = |operator: ComparisonOperator, unit: Option<StandardUnit>| {
            let alarm = MetricAlarm::builder()
                .metric_name("errors")
                .comparison_operator(operator)
                .set_unit(unit)
                .alarm_actions("arn:topic")
                .ok_actions("arn:topic")
                .threshold(5.0);
            cloudwatch::configuration(&alarm.build())
        };
        use ComparisonOperator::{GreaterThanThreshold, LessThanOrEqualToThreshold};
        let ok = "state ALARM → OK, because it is removed";
        let steps = |found: &Configuration| {
            let seen = Found {
                id: (),
                value: found.clone(),
                owner: Owner::Us,
                live: (),
            };
            let changes = closing("a", &seen.ours().unwrap(), found);
            let steps = changes.iter().map(|change| {
                let fields = Step::of("alarm", change).fields.into_iter();
                let fields = fields.map(|field| {
                    let from = field.from.unwrap_or_default();
                    format!("{} {from} → {}", field.name, field.to)
                });
                fields.collect::<Vec<_>>().join(", ")
            });
            let last = changes.iter().rev().nth(1).map(|change| match change {
                Change::Update { to, .. } => to.clone(),
                other => panic!("{other:?}"),
            });
            (steps.collect::<Vec<_>>(), last)
        };
        for (operator, sign) in [
            (GreaterThanThreshold, ""),
            (LessThanOrEqualToThreshold, "-"),
        ] {
            let (told, disarmed) = steps(&alarm(operator, None));
            let zeros = "0".repeat(108);
            let out_of_reach = format!(
                "threshold 5 → {sign}1{zeros}, treatMissingData missing → notBreaching, alarmActions arn:topic → "
            );
            assert_eq!(told, [&*out_of_reach, ok]);
            let disarmed = disarmed.unwrap();
            assert_eq!(disarmed.ok_actions, ["arn:topic".to_owned()].into());
            assert_eq!(steps(&disarmed).0, [ok]);
        }
        let (told, disarmed) = steps(&alarm(GreaterThanThreshold, Some(StandardUnit::Seconds)));
        assert_eq!(told.len(), 2, "its unit goes with it: {told:?}");
        assert!(disarmed.unwrap().foreign_fields.is_empty());
        let of_several = Configuration {
            metric_name: String::new(),
            ..alarm(GreaterThanThreshold, None)
        };
        assert_eq!(steps(&of_several).0, [ok], "a put would be refused");
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_is_closed_once_and_stays_for_the_pause() {
        let closings = Closings::default();
        let told = |fires| (closings.is_due("a"), closings.defers("a", fires));
        assert_eq!(told(true), (true, true));
        assert!(!closings.defers("a", false), "it does not fire");
        closings.closed("a".into(), false);
        assert_eq!(told(true), (true, true), "it did not land");
        assert!(closings.defers("a", false), "it landed");
        closings.closed("a".into(), true);
        assert_eq!(told(true), (false, true));
        tokio::time::advance(PAUSE).await;
        assert_eq!(told(true), (false, false), "it fell back");
        closings.refused("a".into());
        assert_eq!(told(true), (false, false));
        closings.forget("a");
        assert_eq!(told(true), (true, true));
    }
}
