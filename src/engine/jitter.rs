//! Requeue and poll delays with random jitter, so that objects which failed together are not retried together.

use crate::engine::error::{Class, Error};
use std::time::Duration;

/// The delay before the next try, with jitter: from zero to the whole delay where it doubles, 10 % more or less
/// where it is fixed. `failures` counts the failures in a row, from 1; `None` waits for an edit.
pub fn jittered(class: Class, failures: u32) -> Option<Duration> {
    jittered_by(fastrand::f64(), class, failures)
}

/// The same after an error, which may say itself how long the other side asks us to wait.
pub fn after(error: &Error, failures: u32) -> Option<Duration> {
    after_by(fastrand::f64(), error, failures)
}

/// The same with a random number (0 to 1) that the caller keeps.
pub fn after_by(random: f64, error: &Error, failures: u32) -> Option<Duration> {
    match error.wait {
        // Never before Retry-After, and up to 20 % later.
        Some(wait) => Some(wait.mul_f64(1.0 + 0.2 * random)),
        None => jittered_by(random, error.class, failures),
    }
}

/// As [`jittered`], with a random number (0 to 1) that the caller keeps.
pub fn jittered_by(random: f64, class: Class, failures: u32) -> Option<Duration> {
    const SHORTEST: Duration = Duration::from_secs(1);
    // A throttled object writes its progress into status at each try, which must not come more often.
    const THROTTLED: Duration = Duration::from_secs(10);
    let delay = class.delay(failures)?;
    Some(match class {
        Class::Superseded => delay,
        Class::Throttled => delay.mul_f64(random).max(THROTTLED),
        Class::Unavailable | Class::OutcomeUnknown => delay.mul_f64(random).max(SHORTEST),
        // A person has to grant something first, which takes minutes.
        Class::Denied => delay.mul_f64(0.5 + 0.5 * random),
        Class::Invalid | Class::Rejected | Class::Waiting(_) | Class::Conflict => {
            spread_by(random, delay)
        }
    })
}

/// The period, 10 % more or less, by a random number (0 to 1) that the caller keeps.
pub fn spread_by(random: f64, period: Duration) -> Duration {
    period.mul_f64(0.9 + 0.2 * random)
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
