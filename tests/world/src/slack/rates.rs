//! Slack's published rates, where a test wants them kept.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How often a method may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rate {
    /// So often a minute by each app in each workspace, and as often at once, if nothing was called before.
    PerMinute(u32),
    /// Once a second in each channel, and [`POSTS`] a minute in all of them together.
    PerChannel,
}

/// Slack says "several hundred messages per minute" for a workspace.
const POSTS: u32 = 300;
/// A second as Slack would see it, whose clock is not the caller's and whose network is not even.
const SECOND: Duration = Duration::from_millis(950);
/// Where a method is counted that channels have no part in.
const EVERYWHERE: &str = "";
const MINUTE: Duration = Duration::from_secs(60);

/// Fills steadily; each call takes one.
#[derive(Debug)]
struct Bucket {
    calls: f64,
    at: Instant,
}

/// Who calls what, and in which channel where that counts.
type Key = (String, &'static str, String);

#[derive(Debug, Default)]
pub(super) struct Rates(HashMap<Key, Bucket>);

impl Rates {
    /// Counts a call that comes `now`, or says after how long the next one would be let through. A call that is refused costs nothing.
    pub(super) fn take(
        &mut self,
        caller: &str,
        method: &'static str,
        channel: &str,
        rate: Rate,
        now: Instant,
    ) -> Result<(), Duration> {
        let (size, each, channel) = match rate {
            Rate::PerMinute(calls) => (
                f64::from(calls),
                MINUTE.div_f64(f64::from(calls.max(1))),
                EVERYWHERE,
            ),
            Rate::PerChannel => {
                self.take(caller, method, EVERYWHERE, Rate::PerMinute(POSTS), now)?;
                (1.0, SECOND, channel)
            }
        };
        let key = (caller.to_owned(), method, channel.to_owned());
        let bucket = self.0.entry(key).or_insert(Bucket {
            calls: size,
            at: now,
        });
        let filled = now
            .saturating_duration_since(bucket.at)
            .div_duration_f64(each);
        bucket.calls = (bucket.calls + filled).min(size);
        bucket.at = now;
        // A thousandth is what the arithmetic may lose.
        if bucket.calls >= 0.999 {
            bucket.calls -= 1.0;
            Ok(())
        } else {
            Err(each.mul_f64((1.0 - bucket.calls).clamp(0.0, 1.0)))
        }
    }

    /// Begins anew for the callers of a workspace.
    pub(super) fn forget(&mut self, workspace: &str) {
        self.0
            .retain(|(caller, ..), _| !caller.starts_with(workspace));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_through_what_is_published() {
        let (mut rates, began) = (Rates::default(), Instant::now());
        let at = |seconds: f64| began + Duration::from_secs_f64(seconds);
        let mut take = |caller: &str, seconds: f64| {
            rates
                .take(caller, "m", "", Rate::PerMinute(20), at(seconds))
                .is_ok()
        };
        assert_eq!((0..25).filter(|_| take("a", 0.0)).count(), 20);
        assert!(!take("a", 2.9));
        assert!(take("a", 3.0) && !take("a", 3.1), "one every three seconds");
        assert!(take("b", 3.1), "another app");
        assert_eq!(
            (0..25).filter(|_| take("a", 600.0)).count(),
            20,
            "it fills no further"
        );
    }

    #[test]
    fn a_channel_takes_one_a_second() {
        let (mut rates, began) = (Rates::default(), Instant::now());
        let mut take = |channel: &str, millis: u64| {
            let now = began + Duration::from_millis(millis);
            rates.take("a", "chat.postMessage", channel, Rate::PerChannel, now)
        };
        assert!(take("C1", 0).is_ok() && take("C2", 0).is_ok());
        let wait = take("C1", 500).unwrap_err();
        assert!(
            wait > Duration::from_millis(400) && wait < Duration::from_millis(500),
            "{wait:?}"
        );
        assert!(take("C1", 1000).is_ok() && take("C1", 1900).is_err() && take("C1", 2000).is_ok());
    }

    #[test]
    fn a_workspace_takes_some_hundred_posts_a_minute() {
        let (mut rates, began) = (Rates::default(), Instant::now());
        let mut post = |number: u32| {
            let channel = format!("C{number}");
            rates.take("a", "chat.postMessage", &channel, Rate::PerChannel, began)
        };
        assert!((0..POSTS).all(|number| post(number).is_ok()));
        assert!(post(POSTS).is_err());
    }
}
