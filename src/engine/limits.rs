//! How fast each API may be asked: the published quotas, and a limiter per account, Region and API that counts as the
//! vendor does. Background calls leave room, so that an edit never waits for them.
//!
//! AWS counts requests per account, Region and API, whoever sends them; Slack per app and workspace
//! (which is a token), and method. So a [`Limiter`] is shared by all of the process. There is no task behind it: who waits is the first of a queue and sleeps until
//! its turn, and a wait that is given up leaves the queue. As with any fair queue, one that waits
//! must go on being polled, or those behind it wait too.

use super::error::Error;
use Quota::{InBursts, PerSecond};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Mutex as Queue, Notify},
    time::{Instant, sleep_until},
};

/// In any such span at most a second's worth of requests is let through. More than a second: what
/// leaves us evenly arrives with some tens of milliseconds of jitter, and the other side counts arrivals.
const RATE_WINDOW: Duration = Duration::from_millis(1020);

/// How many answers it takes until the least latency seen is trusted.
const MIN_LATENCY_SAMPLES: u32 = 20;

/// A bucket that nobody has asked for this long is full again, and is dropped.
const IDLE: Duration = Duration::from_secs(120);

/// The highest rate, in requests per second: as many moments are remembered per bucket.
const MAX_RATE: f64 = 1000.0;

/// The longest time between two requests: thirty years, so that no rate is too low for the clock.
const MAX_INTERVAL: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// The most bytes of an operation's name, service included.
const MAX_NAME_LEN: usize = 128;

/// What the outside publishes of an API.
#[derive(Clone, Copy, Debug)]
enum Quota {
    /// Requests per second.
    PerSecond(f64),
    /// Requests per minute, of which [`BURST`] may go at once.
    InBursts(f64),
}

/// So many requests to Slack may go at once, in the time that so many take on the average: what Slack counts
/// is minutes, of which each holds a whole number of such times for every tier.
const BURST: usize = 5;

/// What AWS lets one account send in one Region and Slack one app to one workspace, where they say so: by API, and
/// of those of a service that are not here.
///
/// CloudWatch: "CloudWatch service quotas"
/// (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_limits.html>).
/// SNS: "Amazon SNS endpoints and quotas" (<https://docs.aws.amazon.com/general/latest/gr/sns.html>), what it gives
/// to its lists for the other actions; tagging actions by the API reference of `TagResource`.
/// Where AWS's pages differ, the lower. These are the defaults of an account: some can be raised, which
/// is what `--aws-rate` is for.
///
/// Slack: "Web API rate limits" (<https://docs.slack.dev/apis/web-api/rate-limits>) and the methods' pages. Tier 2 is
/// 20 a minute, tier 3 is 50, tier 4 is 100; `auth.test` and `chat.getPermalink` have limits of their own, of
/// "hundreds". Posts are one a second and channel, and by a webhook. Edits are of tier 3, whatever the channel, and
/// come one by one, since those of one message are never more than one a second.
const PUBLISHED: &[(&str, Quota)] = &[
    ("cloudwatch:DeleteAlarms", PerSecond(3.0)),
    ("cloudwatch:DescribeAlarmHistory", PerSecond(3.0)),
    ("cloudwatch:DescribeAlarms", PerSecond(9.0)),
    ("cloudwatch:DescribeAlarmsForMetric", PerSecond(3.0)),
    ("cloudwatch:DisableAlarmActions", PerSecond(3.0)),
    ("cloudwatch:EnableAlarmActions", PerSecond(3.0)),
    ("cloudwatch:ListMetrics", PerSecond(25.0)),
    ("cloudwatch:ListTagsForResource", PerSecond(10.0)),
    ("cloudwatch:PutCompositeAlarm", PerSecond(3.0)),
    ("cloudwatch:PutMetricAlarm", PerSecond(3.0)),
    ("cloudwatch:SetAlarmState", PerSecond(3.0)),
    ("cloudwatch:TagResource", PerSecond(20.0)),
    ("cloudwatch:UntagResource", PerSecond(20.0)),
    ("slack:", InBursts(20.0)),
    ("slack:auth.test", InBursts(100.0)),
    ("slack:chat.getPermalink", InBursts(100.0)),
    ("slack:chat.postMessage", PerSecond(1.0)),
    ("slack:chat.update", PerSecond(50.0 / 60.0)),
    ("slack:conversations.info", InBursts(50.0)),
    ("slack:conversations.invite", InBursts(50.0)),
    ("slack:conversations.join", InBursts(50.0)),
    ("slack:conversations.members", InBursts(100.0)),
    ("slack:users.lookupByEmail", InBursts(50.0)),
    ("slack:webhook", PerSecond(1.0)),
    ("sns:", PerSecond(30.0)),
    ("sns:Subscribe", PerSecond(100.0)),
    ("sns:TagResource", PerSecond(10.0)),
    ("sns:Unsubscribe", PerSecond(100.0)),
    ("sns:UntagResource", PerSecond(10.0)),
];

/// Where AWS publishes nothing, or nothing that we know: low enough for every control API that we
/// know of whose calls are not in [`PUBLISHED`].
const UNPUBLISHED: f64 = 10.0;

/// How urgent a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Somebody has edited, deleted or asked, and may be waiting for it.
    Edit,
    /// Looking whether all is as it was, and repairing it.
    Background,
}

/// All buckets: one per account, Region and API.
#[derive(Debug)]
pub struct Limiter {
    rates: BTreeMap<String, f64>,
    buckets: Mutex<Buckets>,
}

#[derive(Debug)]
struct Buckets {
    /// By account, Region and operation.
    all: HashMap<(String, String, String), Arc<Bucket>>,
    /// When to look for idle ones again.
    sweep: Instant,
}

impl Limiter {
    /// A limiter with AWS's published rates, unless `rates` has another: operation (`PutMetricAlarm`, or
    /// `cloudwatch:PutMetricAlarm`, which goes before) → requests per second, over 0 and up to 1000, as
    /// [`parse_rate`] gives them; any other number is ignored. Of a fraction above one the whole part
    /// counts, for a window has no room for part of a request.
    pub fn new(rates: &BTreeMap<String, f64>) -> Self {
        let rates = rates.iter().filter(|(_, rate)| is_rate(**rate));
        Self {
            rates: rates.map(|(name, rate)| (name.clone(), *rate)).collect(),
            buckets: Mutex::new(Buckets {
                all: HashMap::new(),
                sweep: Instant::now(),
            }),
        }
    }

    /// Takes a token if there is one now and nobody who goes first is waiting for it. `operation` as IAM
    /// spells it: `cloudwatch:PutMetricAlarm`.
    pub fn try_take(
        &self,
        account: &str,
        region: &str,
        operation: &str,
        priority: Priority,
    ) -> bool {
        let bucket = self.bucket(account, region, operation);
        let mut state = bucket.state.lock();
        let others = match priority {
            Priority::Edit => state.edits,
            Priority::Background => state.edits + state.background,
        };
        others == 0 && state.start(bucket.rate, priority).is_ok()
    }

    /// Waits for a token, first come first served within an urgency, edits before background. The last
    /// token of a window is never given to background, where a window has two or more. May be dropped
    /// at any time: the token is only taken when it is given.
    pub async fn take(&self, account: &str, region: &str, operation: &str, priority: Priority) {
        let bucket = self.bucket(account, region, operation);
        let _waiting = Waiting::begin(&bucket, priority);
        // The queue is the mutex's own, which is fair; whoever has it is the first.
        let _first = bucket.queue(priority).lock().await;
        loop {
            let answer = bucket.state.lock().admit(bucket.rate, priority);
            match answer {
                Ok(()) => return,
                Err(Wait::Until(at)) => sleep_until(at).await,
                Err(Wait::ForEdits) => bucket.no_edits.notified().await,
            }
        }
    }

    /// A request that took a token has been answered. The other side counts arrivals: the request counts from its
    /// answer, less the shortest latency that was seen, which is an upper bound on its arrival. `done`: whether it
    /// did what it was to do; what is refused, or never got there, may be answered sooner than that latency.
    pub fn request_finished(&self, account: &str, region: &str, operation: &str, done: bool) {
        let bucket = self.bucket(account, region, operation);
        bucket.state.lock().finished(Instant::now(), done);
    }

    /// The other side asks to be left alone for as long as this error says, if it says so. Whoever is about to ask
    /// for the same meanwhile is given the error.
    pub fn pause(&self, account: &str, region: &str, operation: &str, error: &Error) {
        if let Some(wait) = error.wait {
            let paused = Some((Instant::now() + wait, error.clone()));
            self.bucket(account, region, operation).state.lock().paused = paused;
        }
    }

    /// What it said then, with the rest of its time, where that is not over yet.
    pub fn paused(&self, account: &str, region: &str, operation: &str) -> Option<Error> {
        let bucket = self.bucket(account, region, operation);
        let (until, error) = bucket.state.lock().paused.clone()?;
        let rest = until.saturating_duration_since(Instant::now());
        (!rest.is_zero()).then(|| error.after(rest))
    }

    fn bucket(&self, account: &str, region: &str, operation: &str) -> Arc<Bucket> {
        let mut buckets = self.buckets.lock();
        let now = Instant::now();
        if buckets.sweep <= now {
            buckets.sweep = now + IDLE;
            // Nobody else can get hold of one meanwhile: that takes the lock that we have.
            buckets
                .all
                .retain(|_, bucket| Arc::strong_count(bucket) > 1 || bucket.is_remembering(now));
        }
        let key = (account.to_owned(), region.to_owned(), operation.to_owned());
        let bucket = buckets.all.entry(key);
        let bucket = bucket.or_insert_with(|| Arc::new(Bucket::new(self.rate(operation))));
        bucket.clone()
    }

    fn rate(&self, operation: &str) -> Rate {
        let bare = operation.split_once(':').map(|(_, bare)| bare);
        let asked = self.rates.get(operation);
        let asked = asked.or_else(|| self.rates.get(bare?));
        asked.map_or_else(|| published(operation), |rate| Rate::of(*rate))
    }
}

/// The outside's own rate for an operation, or what we take for it.
fn published(operation: &str) -> Rate {
    let service = operation.find(':').map_or("", |at| &operation[..=at]);
    let known = |name| PUBLISHED.iter().find(|(known, _)| *known == name);
    match known(operation).or_else(|| known(service)) {
        Some((_, PerSecond(rate))) => Rate::of(*rate),
        Some((_, InBursts(rate))) => Rate::in_bursts(BURST, rate / 60.0),
        None => Rate::of(UNPUBLISHED),
    }
}

/// How many requests may begin in any span of this length.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rate {
    most: usize,
    window: Duration,
}

impl Rate {
    fn of(rate: f64) -> Self {
        if rate >= 1.0 {
            return Self {
                most: rate.min(MAX_RATE) as usize,
                window: RATE_WINDOW,
            };
        }
        Self::in_bursts(1, rate)
    }

    /// So many at once, and at this rate per second on the average.
    fn in_bursts(most: usize, rate: f64) -> Self {
        let window = Duration::try_from_secs_f64(RATE_WINDOW.as_secs_f64() * most as f64 / rate);
        Self {
            most,
            window: window.unwrap_or(MAX_INTERVAL).min(MAX_INTERVAL),
        }
    }

    /// What must not have begun yet for one more to be let through: an edit that comes right after
    /// background work still finds a token.
    fn limit(self, priority: Priority) -> usize {
        match priority {
            Priority::Background if self.most >= 2 => self.most - 1,
            _ => self.most,
        }
    }
}

#[derive(Debug)]
struct Bucket {
    rate: Rate,
    state: Mutex<State>,
    edits: Queue<()>,
    background: Queue<()>,
    /// The last edit that waited waits no more. Only the first of the background listens.
    no_edits: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// When the requests of the last window began, oldest first.
    starts: VecDeque<Instant>,
    /// When the last one really began.
    began: Option<Instant>,
    /// The shortest time from there to an answer.
    fastest: Option<Duration>,
    /// How many answers that is the shortest of.
    answers: u32,
    /// Until when the other side asked to be left alone, and in which words.
    paused: Option<(Instant, Error)>,
    /// How many edits wait.
    edits: usize,
    /// How much background work waits.
    background: usize,
}

/// What the first of a queue waits for.
enum Wait {
    Until(Instant),
    ForEdits,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        Self {
            rate,
            state: Mutex::default(),
            edits: Queue::default(),
            background: Queue::default(),
            no_edits: Notify::new(),
        }
    }

    fn queue(&self, priority: Priority) -> &Queue<()> {
        match priority {
            Priority::Edit => &self.edits,
            Priority::Background => &self.background,
        }
    }

    /// Whether a new bucket in its place would let more through, or it was used lately.
    fn is_remembering(&self, now: Instant) -> bool {
        let state = self.state.lock();
        let last = state.starts.back();
        let last = last.map(|last| *last + self.rate.window.max(IDLE));
        let paused = state.paused.as_ref().map(|(until, _)| *until);
        last.max(paused).is_some_and(|until| until > now)
    }
}

impl State {
    /// Begins a request now, or says when the window has room for it, should nobody else take it.
    fn start(&mut self, rate: Rate, priority: Priority) -> Result<(), Instant> {
        let now = Instant::now();
        let is_over = |start: &Instant| *start + rate.window <= now;
        while self.starts.front().is_some_and(is_over) {
            self.starts.pop_front();
        }
        let over = self.starts.len().checked_sub(rate.limit(priority));
        match over.and_then(|over| self.starts.get(over)) {
            Some(blocking) => Err(*blocking + rate.window),
            None => {
                self.starts.push_back(now);
                self.began = Some(now);
                Ok(())
            }
        }
    }

    /// An answer is there. Of several under way nobody knows whose it is: it is taken for that of the latest
    /// to begin, which keeps them in order and makes the way no longer than it was.
    fn finished(&mut self, now: Instant, done: bool) {
        if let Some(began) = self.began.filter(|_| done) {
            let took = now.saturating_duration_since(began);
            let fastest = self.fastest.map_or(took, |fastest| fastest.min(took));
            self.fastest = Some(fastest);
            self.answers = self.answers.saturating_add(1);
        }
        let known = self
            .fastest
            .filter(|_| done && self.answers > MIN_LATENCY_SAMPLES);
        let sure = known.unwrap_or_default();
        if let Some(last) = self.starts.back_mut() {
            *last = (now - sure).max(*last);
        }
    }

    /// The same for the first of its queue.
    fn admit(&mut self, rate: Rate, priority: Priority) -> Result<(), Wait> {
        if priority == Priority::Background && self.edits > 0 {
            return Err(Wait::ForEdits);
        }
        self.start(rate, priority).map_err(Wait::Until)
    }

    fn waiting(&mut self, priority: Priority) -> &mut usize {
        match priority {
            Priority::Edit => &mut self.edits,
            Priority::Background => &mut self.background,
        }
    }
}

/// Somebody waits, until this is dropped.
struct Waiting<'a> {
    bucket: &'a Bucket,
    priority: Priority,
}

impl<'a> Waiting<'a> {
    fn begin(bucket: &'a Bucket, priority: Priority) -> Self {
        *bucket.state.lock().waiting(priority) += 1;
        Self { bucket, priority }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.bucket.state.lock();
        let waiting = state.waiting(self.priority);
        *waiting = waiting.saturating_sub(1);
        if self.priority == Priority::Edit && *waiting == 0 {
            self.bucket.no_edits.notify_one();
        }
    }
}

fn is_rate(rate: f64) -> bool {
    rate > 0.0 && rate <= MAX_RATE
}

/// A value of `--aws-rate`: `PutMetricAlarm=3` or `cloudwatch:PutMetricAlarm=3`, as operation and
/// requests per second (over 0, up to 1000). The operation comes back as it was written, spaces around
/// it removed. The error says what to write instead.
pub fn parse_rate(text: &str) -> Result<(String, f64), String> {
    let Some((operation, rate)) = text.split_once('=') else {
        return Err("write OPERATION=RATE, such as PutMetricAlarm=3".into());
    };
    let (operation, rate) = (operation.trim(), rate.trim());
    if !is_operation(operation) {
        return Err(format!(
            "{operation:?} is no operation: write it as IAM does, such as PutMetricAlarm or cloudwatch:PutMetricAlarm"
        ));
    }
    match rate.parse() {
        Ok(number) if is_rate(number) => Ok((operation.to_owned(), number)),
        _ => Err(format!(
            "{rate:?} is no rate: write requests per second, more than 0 and at most {MAX_RATE}"
        )),
    }
}

/// `Operation` or `service:Operation`. Case matters: a rate for a name that is
/// written otherwise would be ignored.
fn is_operation(text: &str) -> bool {
    let (service, operation) = text.split_once(':').unwrap_or(("any", text));
    let of = |text: &str, first: fn(&u8) -> bool, rest: fn(&u8) -> bool| {
        text.as_bytes().first().is_some_and(first) && text.bytes().all(|byte| rest(&byte))
    };
    let in_service = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    text.len() <= MAX_NAME_LEN
        && of(service, u8::is_ascii_lowercase, in_service)
        && of(operation, u8::is_ascii_uppercase, u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::{super::error::Class, *};
    use Priority::{Background, Edit};
    use futures::future::join_all;
    use proptest::prelude::*;
    use tokio::time::{advance, timeout};

    const PUT: &str = "cloudwatch:PutMetricAlarm";

    /// How much later than its moment a timer may go off: it counts in whole milliseconds.
    const TICK: Duration = Duration::from_millis(2);

    fn at(rate: f64) -> Limiter {
        Limiter::new(&[(PUT.to_owned(), rate)].into())
    }

    async fn take(limiter: &Limiter, priority: Priority) {
        limiter.take("1", "eu", PUT, priority).await;
    }

    fn try_take(limiter: &Limiter, priority: Priority) -> bool {
        limiter.try_take("1", "eu", PUT, priority)
    }

    /// How many tokens can be had at once.
    fn burst(limiter: &Limiter, priority: Priority) -> usize {
        (0..2000)
            .take_while(|_| try_take(limiter, priority))
            .count()
    }

    fn waiting(limiter: &Limiter) -> (usize, usize) {
        let bucket = limiter.bucket("1", "eu", PUT);
        let state = bucket.state.lock();
        (state.edits, state.background)
    }

    #[test]
    fn rates_are_the_published_ones_unless_others_are_asked_for() {
        let asked = [
            ("PutMetricAlarm", 30.0),
            ("cloudwatch:TagResource", 40.0),
            ("TagResource", 50.0),
            ("DeleteAlarms", f64::NAN),
            ("Subscribe", 0.0),
            ("DescribeAlarms", 1e9),
            ("CreateTopic", 2.5),
            ("AssumeRole", 0.5),
            ("GetCallerIdentity", 1e-300),
        ];
        let asked = asked.map(|(name, rate)| (name.to_owned(), rate));
        let limiter = Limiter::new(&asked.into());
        for (operation, most, window) in [
            ("cloudwatch:PutMetricAlarm", 30, RATE_WINDOW),
            ("cloudwatch:PutCompositeAlarm", 3, RATE_WINDOW),
            ("cloudwatch:TagResource", 40, RATE_WINDOW),
            ("sns:TagResource", 50, RATE_WINDOW),
            ("cloudwatch:DeleteAlarms", 3, RATE_WINDOW),
            ("cloudwatch:DescribeAlarms", 9, RATE_WINDOW),
            ("cloudwatch:ListTagsForResource", 10, RATE_WINDOW),
            ("sns:Subscribe", 100, RATE_WINDOW),
            ("sns:CreateTopic", 2, RATE_WINDOW),
            ("sns:ListSubscriptionsByTopic", 30, RATE_WINDOW),
            ("sns:SetTopicAttributes", 30, RATE_WINDOW),
            ("events:PutRule", 10, RATE_WINDOW),
            ("sts:AssumeRole", 1, RATE_WINDOW * 2),
            ("sts:GetCallerIdentity", 1, MAX_INTERVAL),
            ("slack:conversations.create", 5, RATE_WINDOW * 15),
            ("slack:conversations.info", 5, RATE_WINDOW * 6),
            ("slack:conversations.members", 5, RATE_WINDOW * 3),
            ("slack:a.method", 5, RATE_WINDOW * 15),
            ("slack:chat.update", 1, RATE_WINDOW * 6 / 5),
            ("slack:chat.postMessage", 1, RATE_WINDOW),
            ("slack:webhook", 1, RATE_WINDOW),
        ] {
            assert_eq!(
                limiter.rate(operation),
                Rate { most, window },
                "{operation}"
            );
        }
    }

    #[test]
    fn published_rates_are_in_order_and_are_rates() {
        assert!(PUBLISHED.is_sorted_by(|one, other| one.0 < other.0));
        for (name, quota) in PUBLISHED {
            let (PerSecond(rate) | InBursts(rate)) = quota;
            let fits = name.starts_with("slack:") || name.ends_with(':') || is_operation(name);
            assert!(fits && is_rate(*rate), "{name}");
        }
    }

    /// Slack counts by the minute: however they are asked for, no minute has more than the tier allows.
    #[tokio::test(start_paused = true)]
    async fn no_minute_has_more_than_slack_allows() {
        let known = PUBLISHED.iter().filter_map(|(name, quota)| match quota {
            InBursts(rate) => Some((*name, *rate)),
            PerSecond(_) => None,
        });
        let mut random = fastrand::Rng::with_seed(7);
        for (api, per_minute) in known.chain([("slack:chat.update", 50.0)]) {
            let limiter = Limiter::new(&BTreeMap::new());
            let mut began = Vec::new();
            for _ in 0..400 {
                limiter.take("1", "", api, Edit).await;
                began.push(Instant::now());
                if random.u32(0..20) == 0 {
                    advance(Duration::from_secs(random.u64(0..90))).await;
                }
            }
            let most = per_minute as usize;
            for minute in began.windows(most + 1) {
                let took = minute[most] - minute[0];
                assert!(took >= Duration::from_secs(60), "{api}: {took:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_for_one_operation_and_passes() {
        let limiter = at(3.0);
        let throttled = |message: &str| Error::new(Class::Throttled, message);
        let paused = |operation| limiter.paused("1", "eu", operation);
        // Where no time is named there is none to wait for.
        limiter.pause("1", "eu", PUT, &throttled("no time"));
        assert_eq!(paused(PUT), None);
        let wait = IDLE * 3;
        limiter.pause("1", "eu", PUT, &throttled("later").after(wait));
        advance(wait / 2).await;
        assert_eq!(paused(PUT), Some(throttled("later").after(wait / 2)));
        assert_eq!(paused("cloudwatch:DeleteAlarms"), None);
        advance(wait / 2).await;
        assert_eq!(paused(PUT), None);
    }

    #[test]
    fn rates_of_the_command_line() {
        for (text, read) in [
            ("PutMetricAlarm=3", Some(("PutMetricAlarm", 3.0))),
            (
                "cloudwatch:PutMetricAlarm=3",
                Some(("cloudwatch:PutMetricAlarm", 3.0)),
            ),
            (" sns:Subscribe = 0.5 ", Some(("sns:Subscribe", 0.5))),
            ("GetRule2=1000", Some(("GetRule2", 1000.0))),
            (
                "application-signals:ListX=1",
                Some(("application-signals:ListX", 1.0)),
            ),
            ("PutMetricAlarm", None),
            ("PutMetricAlarm=", None),
            ("PutMetricAlarm=three", None),
            ("PutMetricAlarm=3/s", None),
            ("PutMetricAlarm=3=4", None),
            ("PutMetricAlarm=0", None),
            ("PutMetricAlarm=-1", None),
            ("PutMetricAlarm=1000.1", None),
            ("PutMetricAlarm=inf", None),
            ("PutMetricAlarm=NaN", None),
            ("=3", None),
            ("putMetricAlarm=3", None),
            ("Put Metric=3", None),
            ("CloudWatch:PutMetricAlarm=3", None),
            (":PutMetricAlarm=3", None),
            ("cloudwatch:=3", None),
            ("a:b:C=3", None),
        ] {
            let read = read.map(|(operation, rate)| (operation.to_owned(), rate));
            assert_eq!(parse_rate(text).ok(), read, "{text}");
        }
        let long = format!("{}=3", "A".repeat(MAX_NAME_LEN + 1));
        assert!(parse_rate(&long).is_err());
        for (text, says) in [
            ("3", "OPERATION=RATE"),
            ("alarm=3", "\"alarm\" is no operation"),
            (
                "PutMetricAlarm=x",
                "\"x\" is no rate: write requests per second, more than 0 and at most 1000",
            ),
        ] {
            let error = parse_rate(text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    /// One after the other, each on its way for as long as it likes but for what all take, and seen by the
    /// other side at any moment of that.
    #[tokio::test(start_paused = true)]
    async fn however_slow_the_way_no_second_sees_too_many_arrive() {
        for (least_there, least_back) in [(0, 0), (30, 0), (0, 30), (200, 100)] {
            let limiter = Limiter::new(&BTreeMap::new());
            let (api, mut arrived) = ("cloudwatch:PutMetricAlarm", Vec::new());
            let mut random = fastrand::Rng::with_seed(7);
            for nth in 0..300 {
                limiter.take("1", "r", api, Priority::Edit).await;
                // One of the first goes as fast as any.
                let (there, back) = match nth {
                    3 => (0, 0),
                    _ => (random.u64(0..900), random.u64(0..50)),
                };
                tokio::time::sleep(Duration::from_millis(least_there + there)).await;
                arrived.push(Instant::now());
                tokio::time::sleep(Duration::from_millis(least_back + back)).await;
                limiter.request_finished("1", "r", api, true);
            }
            for four in arrived.windows(4) {
                let took = four[3] - four[0];
                assert!(took >= Duration::from_secs(1), "{took:?}");
            }
        }
    }

    /// The way to AWS and back takes its time, and costs none.
    #[tokio::test(start_paused = true)]
    async fn an_even_way_slows_nothing_down() {
        let limiter = at(3.0);
        let mut random = fastrand::Rng::with_seed(7);
        let began = Instant::now();
        for nth in 0..200 {
            take(&limiter, Edit).await;
            // Some are refused on the way, which is no way to go by.
            let least = if nth % 7 == 0 { 0 } else { 80 };
            tokio::time::sleep(Duration::from_millis(least + random.u64(0..20))).await;
            limiter.request_finished("1", "eu", PUT, nth % 7 != 0);
        }
        let took = began.elapsed().as_secs_f64();
        assert!(took <= 1.05 * 200.0 / 3.0, "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_holds_a_seconds_worth_after_idling_too() {
        let limiter = at(3.0);
        advance(Duration::from_secs(100)).await;
        assert_eq!(burst(&limiter, Edit), 3);
        advance(RATE_WINDOW - Duration::from_millis(1)).await;
        assert_eq!(burst(&limiter, Edit), 0);
        advance(Duration::from_millis(1)).await;
        assert_eq!(burst(&limiter, Edit), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn less_than_one_a_second_is_one_in_a_longer_time() {
        let limiter = at(0.5);
        let began = Instant::now();
        for _ in 0..3 {
            take(&limiter, Background).await;
        }
        let took = began.elapsed();
        assert!(
            took >= RATE_WINDOW * 4 && took <= RATE_WINDOW * 4 + TICK * 2,
            "{took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn two_hundred_edits_take_little_longer_than_the_rate_allows() {
        let limiter = at(3.0);
        let began = Instant::now();
        join_all((0..200).map(|_| take(&limiter, Edit))).await;
        let took = began.elapsed().as_secs_f64();
        assert!(took <= 1.05 * 200.0 / 3.0, "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn background_alone_leaves_one_of_each_window() {
        let limiter = at(3.0);
        let began = Instant::now();
        join_all((0..200).map(|_| take(&limiter, Background))).await;
        let took = began.elapsed().as_secs_f64();
        assert!((1.0..=1.05).contains(&(took / (200.0 / 2.0))), "{took}");
        // In the busiest of windows an edit need not wait.
        assert_eq!((burst(&limiter, Background), burst(&limiter, Edit)), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn edits_overtake_background() {
        let limiter = Arc::new(at(2.0));
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for priority in [Background, Background, Background, Edit, Edit, Edit, Edit] {
            let (limiter, order) = (limiter.clone(), order.clone());
            tasks.push(tokio::spawn(async move {
                take(&limiter, priority).await;
                order.lock().push(priority);
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        let order = order.lock();
        assert_eq!(
            order[..],
            [Background, Edit, Edit, Edit, Edit, Background, Background]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_wait_does_not_push_in() {
        let limiter = Arc::new(at(2.0));
        assert_eq!(burst(&limiter, Edit), 2);
        let background = tokio::spawn({
            let limiter = limiter.clone();
            async move { take(&limiter, Background).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(waiting(&limiter), (0, 1));
        // Nobody that waits has been polled since: the window is empty, and the first has a right to it.
        advance_without_polling(&limiter, RATE_WINDOW);
        assert!(!try_take(&limiter, Background));
        assert!(try_take(&limiter, Edit));
        background.await.unwrap();
        assert_eq!(waiting(&limiter), (0, 0));
    }

    /// As if this much time had gone by.
    fn advance_without_polling(limiter: &Limiter, by: Duration) {
        let bucket = limiter.bucket("1", "eu", PUT);
        for start in &mut bucket.state.lock().starts {
            *start -= by;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_given_up_leaves_no_trace() {
        let limiter = at(3.0);
        assert_eq!(burst(&limiter, Edit), 3);
        let soon = Duration::from_millis(100);
        for priority in [Edit, Background, Edit] {
            assert!(timeout(soon, take(&limiter, priority)).await.is_err());
        }
        {
            // One sleeps, one stands behind it, one of the background waits for both.
            let all = async {
                tokio::join!(
                    take(&limiter, Edit),
                    take(&limiter, Edit),
                    take(&limiter, Background)
                )
            };
            assert!(timeout(soon, all).await.is_err());
        }
        // Never polled, so never there.
        drop(take(&limiter, Edit));
        assert_eq!(waiting(&limiter), (0, 0));
        advance(RATE_WINDOW).await;
        assert_eq!(burst(&limiter, Edit), 3, "no token was lost");
    }

    #[tokio::test(start_paused = true)]
    async fn background_goes_on_when_the_edits_before_it_are_given_up() {
        let limiter = Arc::new(at(1.0));
        take(&limiter, Edit).await;
        let edit = tokio::spawn({
            let limiter = limiter.clone();
            async move { take(&limiter, Edit).await }
        });
        let background = tokio::spawn({
            let limiter = limiter.clone();
            async move {
                take(&limiter, Background).await;
                Instant::now()
            }
        });
        let began = Instant::now();
        tokio::task::yield_now().await;
        assert_eq!(waiting(&limiter), (1, 1));
        edit.abort();
        assert!(edit.await.unwrap_err().is_cancelled());
        let ended = timeout(Duration::from_secs(86400), background).await;
        let waited = ended.expect("it was forgotten").unwrap() - began;
        assert!(waited <= RATE_WINDOW + TICK, "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn accounts_regions_and_operations_do_not_touch_each_other() {
        let limiter = at(2.0);
        assert_eq!(burst(&limiter, Edit), 2);
        for (account, region, operation) in [
            ("2", "eu", PUT),
            ("1", "us", PUT),
            ("1", "eu", "cloudwatch:DeleteAlarms"),
        ] {
            assert!(limiter.try_take(account, region, operation, Edit));
        }
        assert!(!try_take(&limiter, Edit));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_idle_is_dropped_and_what_still_counts_is_not() {
        let limiter = Limiter::new(&[("AssumeRole".to_owned(), 0.001)].into());
        for account in 0..500 {
            limiter
                .take(&account.to_string(), "eu", PUT, Background)
                .await;
        }
        let assume = || limiter.try_take("1", "eu", "sts:AssumeRole", Edit);
        assert!(assume());
        let kept = || limiter.buckets.lock().all.len();
        assert_eq!(kept(), 501);
        advance(IDLE * 2).await;
        assert!(!assume(), "its window is not over");
        assert_eq!(kept(), 1);
        {
            let waits = limiter.take("1", "eu", "sts:AssumeRole", Edit);
            tokio::pin!(waits);
            assert!(timeout(IDLE, &mut waits).await.is_err());
            advance(IDLE * 20).await;
            assert!(!assume(), "somebody is before us, however long ago");
            waits.await;
        }
        advance(IDLE * 20).await;
        assert!(try_take(&limiter, Edit));
        assert_eq!(kept(), 1);
    }

    /// Threads that come, go and give up: a wake-up that is lost would leave one waiting for ever.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nobody_is_forgotten_among_threads() {
        let limiter = Arc::new(at(MAX_RATE));
        let mut tasks = Vec::new();
        for n in 0..1500_u64 {
            let limiter = limiter.clone();
            tasks.push(tokio::spawn(async move {
                let priority = if n % 3 == 0 { Background } else { Edit };
                if n % 5 == 0 {
                    let patience = Duration::from_millis(n % 40);
                    drop(timeout(patience, take(&limiter, priority)).await);
                } else {
                    take(&limiter, priority).await;
                }
            }));
        }
        let all = async {
            for task in tasks {
                task.await.unwrap();
            }
        };
        assert!(timeout(Duration::from_secs(120), all).await.is_ok());
        assert_eq!(waiting(&limiter), (0, 0));
    }

    /// How somebody asks for a token.
    #[derive(Clone, Copy, Debug)]
    enum Ask {
        /// And waits for it.
        Wait,
        /// And waits this long at most, in milliseconds.
        UpTo(u64),
        /// And does not wait.
        Now,
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum What {
        Came,
        Began,
        Left,
    }

    #[derive(Clone, Copy, Debug)]
    struct Event {
        who: usize,
        what: What,
        when: Instant,
    }

    type Script = Vec<(u64, Priority, Ask)>;

    /// Who came when and what became of it, in order.
    async fn play(limiter: Arc<Limiter>, script: &Script) -> Vec<Event> {
        let told = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for (who, &(pause, priority, ask)) in script.iter().enumerate() {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let (limiter, told) = (limiter.clone(), told.clone());
            tasks.push(tokio::spawn(async move {
                let tell = |what| {
                    let when = Instant::now();
                    told.lock().push(Event { who, what, when });
                };
                tell(What::Came);
                let got = match ask {
                    Ask::Wait => {
                        take(&limiter, priority).await;
                        true
                    }
                    Ask::UpTo(patience) => {
                        let patience = Duration::from_millis(patience);
                        timeout(patience, take(&limiter, priority)).await.is_ok()
                    }
                    Ask::Now => try_take(&limiter, priority),
                };
                tell(if got { What::Began } else { What::Left });
            }));
        }
        for task in tasks {
            // Time goes by as soon as nothing else happens, so who waits for ever is found at once.
            let ended = timeout(Duration::from_secs(86400), task).await;
            ended.expect("somebody was forgotten").unwrap();
        }
        let told = told.lock();
        told.clone()
    }

    /// All that is promised, over what happened.
    fn judge(rate: Rate, script: &Script, told: &[Event]) {
        let priority = |who: usize| script[who].1;
        let starts: Vec<_> = told
            .iter()
            .filter(|event| event.what == What::Began)
            .collect();
        for pair in starts.windows(rate.most + 1) {
            let span = pair[rate.most].when - pair[0].when;
            assert!(span >= rate.window, "{} began in {span:?}", rate.most + 1);
        }
        let came = |who| {
            let came = |event: &&Event| event.who == who && event.what == What::Came;
            told.iter().find(came).unwrap().when
        };
        // Since when no edit has waited.
        let mut edits = 0;
        let mut free = came(0);
        let mut last = [None, None];
        let mut begun = 0_usize;
        for event in told {
            let edit = priority(event.who) == Edit;
            let waits = !matches!(script[event.who].2, Ask::Now);
            match event.what {
                What::Came => edits += usize::from(edit && waits),
                What::Began | What::Left if edit && waits => {
                    edits -= 1;
                    free = event.when;
                }
                What::Began | What::Left => {}
            }
            if event.what != What::Began {
                continue;
            }
            let limit = rate.limit(priority(event.who));
            if !edit {
                assert_eq!(edits, 0, "{event:?} began while an edit waited");
            }
            let room = begun.checked_sub(limit);
            let room = room.map(|nth| starts[nth].when + rate.window);
            begun += 1;
            if let Some(room) = room {
                assert!(event.when >= room, "{event:?} began before {room:?}");
            }
            if waits {
                let before = last[usize::from(edit)].replace(event.who);
                assert!(before < Some(event.who), "{event:?} overtook {before:?}");
                let due = came(event.who).max(if edit { came(event.who) } else { free });
                let due = room.map_or(due, |room| due.max(room));
                assert!(event.when <= due + TICK, "{event:?} was due at {due:?}");
            }
        }
        for (who, (_, _, ask)) in script.iter().enumerate() {
            let began = starts.iter().any(|event| event.who == who);
            assert!(began || !matches!(ask, Ask::Wait), "{who} never began");
        }
    }

    fn script() -> impl Strategy<Value = Script> {
        let pause = prop_oneof![3 => Just(0_u64), 2 => 0_u64..50, 1 => 0_u64..3000];
        let priority = prop_oneof![Just(Edit), Just(Background)];
        let ask = prop_oneof![
            3 => Just(Ask::Wait),
            2 => (0_u64..3000).prop_map(Ask::UpTo),
            1 => Just(Ask::Now),
        ];
        proptest::collection::vec((pause, priority, ask), 1..80)
    }

    proptest! {
        #[test]
        fn every_promise_holds_however_requests_come(
            rate in prop_oneof![Just(0.5), Just(1.0), Just(2.0), Just(2.5), Just(3.0), Just(10.0)],
            script in script(),
        ) {
            let paused = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            paused.block_on(async {
                let limiter = Arc::new(at(rate));
                let rate = Rate::of(rate);
                let told = play(limiter.clone(), &script).await;
                judge(rate, &script, &told);
                assert_eq!(waiting(&limiter), (0, 0));
                advance(rate.window).await;
                assert_eq!(burst(&limiter, Edit), rate.most, "no token was lost");
            });
        }
    }
}
