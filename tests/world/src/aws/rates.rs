//! AWS's published quotas of requests per second, where a test wants them kept.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// How many requests of an operation an account may make in a Region in a second; `None` for what no test of ours is about.
///
/// CloudWatch: the table "Amazon CloudWatch endpoints and quotas" of the AWS General Reference. SNS: the API reference, which gives
/// the figure at each listing, at Subscribe and Unsubscribe, and for tagging; what it gives none for counts as a listing, and
/// publishing has the quota of the smallest Regions. EventBridge: the table "Amazon EventBridge endpoints and quotas" of the AWS
/// General Reference; all of its control plane shares one figure, and PutEvents has that of the smallest Regions.
fn quota(service: &str, operation: &str) -> Option<usize> {
    Some(match (service, operation) {
        (
            "cloudwatch",
            "PutMetricAlarm"
            | "PutCompositeAlarm"
            | "DeleteAlarms"
            | "SetAlarmState"
            | "EnableAlarmActions"
            | "DisableAlarmActions",
        ) => 3,
        ("cloudwatch", "DescribeAlarms" | "DescribeAlarmsForMetric") => 9,
        (
            "cloudwatch",
            "ListTagsForResource"
            | "PutDashboard"
            | "GetDashboard"
            | "DeleteDashboards"
            | "ListDashboards",
        ) => 10,
        ("cloudwatch", "TagResource" | "UntagResource" | "DescribeAlarmHistory") => 20,
        ("cloudwatch", "ListMetrics") => 25,
        ("cloudwatch", "GetMetricStatistics") => 400,
        ("cloudwatch", "GetMetricData" | "PutMetricData") => 500,
        ("sns", "TagResource" | "UntagResource") => 10,
        ("sns", "Subscribe" | "Unsubscribe") => 100,
        ("sns", "Publish" | "PublishBatch") => 300,
        ("sns", _) => 30,
        ("events", "PutEvents") => 400,
        ("events", _) => 50,
        _ => return None,
    })
}

/// What counts together with `operation`.
fn counted_as<'a>(service: &str, operation: &'a str) -> &'a str {
    if service == "events" && operation != "PutEvents" {
        "the control plane"
    } else {
        operation
    }
}

/// The moments of the last second in which a request was let through. Those that were refused cost nothing, as in AWS.
#[derive(Debug, Default)]
struct Window(VecDeque<Instant>);

impl Window {
    /// Lets a request through if fewer than `limit` were within the second that ends `now`. One that is exactly a second old is not
    /// in it. `now` never goes back.
    fn admits(&mut self, limit: usize, now: Instant) -> bool {
        while self
            .0
            .front()
            .is_some_and(|&then| now.saturating_duration_since(then) >= SECOND)
        {
            self.0.pop_front();
        }
        let admitted = self.0.len() < limit;
        if admitted {
            self.0.push_back(now);
        }
        admitted
    }
}

/// Region, service, and what counts together.
type Key = (String, String, String);

/// The accounts whose requests are counted. AWS lets a burst through now and then; this never does.
#[derive(Default)]
pub(super) struct Rates(Mutex<HashMap<String, HashMap<Key, Window>>>);

impl Rates {
    fn accounts(&self) -> MutexGuard<'_, HashMap<String, HashMap<Key, Window>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn limit(&self, account: &str) {
        self.accounts().entry(account.to_owned()).or_default();
    }

    pub(super) fn lift(&self, account: &str) {
        self.accounts().remove(account);
    }

    /// Whether a request that comes `now` is one too many; if not, it counts. `now` never goes back.
    pub(super) fn exceeded(
        &self,
        account: &str,
        region: &str,
        service: &str,
        operation: &str,
        now: Instant,
    ) -> bool {
        let mut accounts = self.accounts();
        let (Some(windows), Some(limit)) = (accounts.get_mut(account), quota(service, operation))
        else {
            return false;
        };
        let counted = counted_as(service, operation);
        let key = [region, service, counted].map(str::to_owned).into();
        !windows.entry(key).or_default().admits(limit, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_admits_so_many_in_any_second() {
        // The limit; milliseconds at which requests come, and whether each is let through.
        type Case<'a> = (usize, &'a [(u64, bool)]);
        let cases: &[Case<'_>] = &[
            (1, &[(0, true), (999, false), (1000, true), (1001, false)]),
            // A burst, and then as the burst goes out of the window.
            (
                3,
                &[
                    (0, true),
                    (0, true),
                    (0, true),
                    (0, false),
                    (999, false),
                    (1000, true),
                    (1000, true),
                    (1000, true),
                    (1000, false),
                ],
            ),
            // Not by the second of the clock: across its border it slides.
            (
                3,
                &[
                    (500, true),
                    (900, true),
                    (990, true),
                    (1100, false),
                    (1500, true),
                    (1501, false),
                    (1900, true),
                    (1990, true),
                    (1999, false),
                ],
            ),
            // Who is refused and tries again and again is let through as soon as anybody.
            (
                1,
                &[
                    (0, true),
                    (300, false),
                    (600, false),
                    (900, false),
                    (1000, true),
                ],
            ),
            (2, &[(0, true), (5000, true), (5000, true), (5001, false)]),
            (0, &[(0, false), (1000, false)]),
        ];
        let began = Instant::now();
        for (limit, requests) in cases {
            let mut window = Window::default();
            for (number, (moment, expected)) in requests.iter().enumerate() {
                let admitted = window.admits(*limit, began + Duration::from_millis(*moment));
                assert_eq!(admitted, *expected, "{limit} a second, request {number}");
            }
        }
    }

    #[test]
    fn no_second_has_more_than_the_limit_and_no_refusal_is_in_vain() {
        let mut random = fastrand::Rng::with_seed(7);
        let began = Instant::now();
        for limit in [1, 3, 9, 30] {
            let (mut window, mut now) = (Window::default(), began);
            let mut admitted: Vec<Instant> = Vec::new();
            for _ in 0..2000 {
                now += Duration::from_millis(random.u64(..2 * 1000 / limit as u64));
                let recent = admitted.iter().rev();
                let recent = recent.take_while(|&&then| now - then < SECOND).count();
                let let_through = window.admits(limit, now);
                assert_eq!(let_through, recent < limit);
                if let_through {
                    admitted.push(now);
                }
            }
            assert!(admitted.len() < 2000, "some were refused");
            let crowded = admitted
                .windows(limit + 1)
                .find(|some| some[limit] - some[0] < SECOND);
            assert_eq!(crowded, None);
        }
    }

    #[test]
    fn each_account_region_and_operation_counts_by_itself_while_it_is_limited() {
        let (rates, now) = (Rates::default(), Instant::now());
        let refused = |account: &str, region: &str, service: &str, operation: &str| {
            let exceeded = |_: &u8| rates.exceeded(account, region, service, operation, now);
            [0; 4].iter().filter(|each| exceeded(each)).count()
        };
        assert_eq!(refused("1", "a", "cloudwatch", "PutMetricAlarm"), 0);
        rates.limit("1");
        assert_eq!(refused("1", "a", "cloudwatch", "PutMetricAlarm"), 1);
        assert_eq!(refused("1", "a", "cloudwatch", "PutMetricAlarm"), 4);
        assert_eq!(refused("1", "b", "cloudwatch", "PutMetricAlarm"), 1);
        assert_eq!(refused("1", "a", "cloudwatch", "DeleteAlarms"), 1);
        assert_eq!(refused("1", "a", "cloudwatch", "DescribeAlarms"), 0);
        assert_eq!(refused("1", "a", "sts", "AssumeRole"), 0);
        assert_eq!(refused("2", "a", "cloudwatch", "PutMetricAlarm"), 0);
        // Asking for it twice does not begin anew, lifting it does.
        rates.limit("1");
        assert_eq!(refused("1", "a", "cloudwatch", "PutMetricAlarm"), 4);
        rates.lift("1");
        assert_eq!(refused("1", "a", "cloudwatch", "PutMetricAlarm"), 0);
        rates.limit("1");
        assert_eq!(refused("1", "a", "cloudwatch", "PutMetricAlarm"), 1);
    }

    #[test]
    fn all_of_the_control_plane_of_eventbridge_counts_together() {
        let (rates, now) = (Rates::default(), Instant::now());
        rates.limit("1");
        let exceeded = |operation: &str| rates.exceeded("1", "a", "events", operation, now);
        let refused = (0..30)
            .flat_map(|_| ["ListRules", "PutTargets"])
            .filter(|operation| exceeded(operation));
        assert_eq!(refused.count(), 10);
        assert!(exceeded("CreateConnection") && !exceeded("PutEvents"));
    }

    #[test]
    fn the_quotas_are_those_that_are_published() {
        let table = [
            ("cloudwatch", "PutMetricAlarm", Some(3)),
            ("cloudwatch", "PutCompositeAlarm", Some(3)),
            ("cloudwatch", "DeleteAlarms", Some(3)),
            ("cloudwatch", "DescribeAlarms", Some(9)),
            ("cloudwatch", "ListTagsForResource", Some(10)),
            ("cloudwatch", "TagResource", Some(20)),
            ("sns", "Subscribe", Some(100)),
            ("sns", "ListSubscriptionsByTopic", Some(30)),
            ("sns", "ListTagsForResource", Some(30)),
            ("sns", "CreateTopic", Some(30)),
            ("sns", "TagResource", Some(10)),
            ("events", "PutRule", Some(50)),
            ("events", "ListApiDestinations", Some(50)),
            ("events", "PutEvents", Some(400)),
            ("sts", "AssumeRole", None),
        ];
        for (service, operation, expected) in table {
            assert_eq!(quota(service, operation), expected, "{service}:{operation}");
        }
    }
}
