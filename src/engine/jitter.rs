//! Delays, spread so that what happened together does not happen together again.

use crate::engine::error::{Class, Error};
use std::time::Duration;

/// The delay before the next try: fully spread where it doubles, by a tenth where it is fixed.
/// `failures` counts the failures in a row, from 1; `None` waits for an edit.
pub fn jittered(class: Class, failures: u32) -> Option<Duration> {
    jittered_by(fastrand::f64(), class, failures)
}

/// The same after an error, which may say itself how long the other side asks us to wait.
pub fn after(error: &Error, failures: u32) -> Option<Duration> {
    after_by(fastrand::f64(), error, failures)
}

/// The same, for whoever has rolled the dice (from 0 to 1) before.
pub fn after_by(dice: f64, error: &Error, failures: u32) -> Option<Duration> {
    match error.wait {
        // Never sooner, and those who were told the same not all at once.
        Some(wait) => Some(wait.mul_f64(1.0 + 0.2 * dice)),
        None => jittered_by(dice, error.class, failures),
    }
}

/// As [`jittered`], for whoever has rolled the dice (from 0 to 1) before.
pub fn jittered_by(dice: f64, class: Class, failures: u32) -> Option<Duration> {
    const SHORTEST: Duration = Duration::from_secs(1);
    // A status that says how far it is must not be rewritten more often.
    const THROTTLED: Duration = Duration::from_secs(10);
    let delay = class.delay(failures)?;
    Some(match class {
        Class::Superseded => delay,
        Class::Throttled => delay.mul_f64(dice).max(THROTTLED),
        Class::Unavailable | Class::OutcomeUnknown => delay.mul_f64(dice).max(SHORTEST),
        // Asking at once whether a person has granted something since would be no use.
        Class::Denied => delay.mul_f64(0.5 + 0.5 * dice),
        Class::Invalid | Class::Rejected | Class::Waiting(_) | Class::Conflict => {
            spread_by(dice, delay)
        }
    })
}

/// A period, give or take a tenth.
pub fn spread(period: Duration) -> Duration {
    spread_by(fastrand::f64(), period)
}

/// The same, for whoever has rolled the dice (from 0 to 1) before.
pub fn spread_by(dice: f64, period: Duration) -> Duration {
    period.mul_f64(0.9 + 0.2 * dice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_in_bounds() {
        for _ in 0..100 {
            let delay = jittered(Class::Unavailable, 3).unwrap();
            assert!(
                delay >= Duration::from_secs(1) && delay <= Duration::from_secs(20),
                "{delay:?}"
            );
            let delay = jittered(Class::Rejected, 1).unwrap().as_secs();
            assert!((3240..=3960).contains(&delay), "{delay}");
        }
        assert_eq!(jittered(Class::Invalid, 1), None);
    }

    #[test]
    fn the_other_sides_time_goes_before_ours() {
        let wait = Duration::from_secs(30);
        let error = Error::new(Class::Throttled, "ratelimited").after(wait);
        for _ in 0..100 {
            let delay = after(&error, 9).unwrap();
            assert!((wait..=wait.mul_f64(1.2)).contains(&delay), "{delay:?}");
        }
    }
}
