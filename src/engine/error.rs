//! Errors as people read them on the resource, their classes, and how soon each class is retried.

use derive_more::Display;
use std::time::Duration;
use strum::IntoStaticStr;

/// What an object waits for. Decides the reason of its `Ready` condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WaitingOn {
    /// A TenantObservability that is not there, or not yet applied.
    Tenant,
    /// A Secret, or a key of one.
    Secret,
    /// A Secret that is missing where nothing can be created any more.
    Never,
    /// A SlackChannel that is not there, or that nothing gets into yet.
    Channel,
    /// Something that an earlier stage of the same object could not make, which says why.
    Prerequisite,
}

/// What is done about an error. The delays are those of [`Class::delay`].
#[derive(IntoStaticStr, Clone, Copy, Debug, PartialEq, Eq)]
#[strum(serialize_all = "snake_case")]
pub enum Class {
    /// The object itself is wrong; it waits for an edit.
    Invalid,
    /// The outside system refused this one item (HTTP 400, 422). Others go on.
    Rejected,
    /// Something that the object refers to is not there yet. Its watch wakes us.
    Waiting(WaitingOn),
    /// The outside has a thing by this name that is not ours. Never touched.
    Conflict,
    /// We may not. Stops the scope.
    Denied,
    /// Too many requests. Stops the scope.
    Throttled,
    /// The other side fails or cannot be reached.
    Unavailable,
    /// A write whose outcome is unknown: the outside is read before anything else is done.
    OutcomeUnknown,
    /// The object has moved on, or the process is ending: nothing more is written in this run.
    Superseded,
}

impl Class {
    /// Whether the rest of the scope (one credential, Region and service) would only fail the same way.
    pub fn stops_scope(self) -> bool {
        matches!(self, Self::Denied | Self::Throttled | Self::Superseded)
    }

    /// Whether a later try may succeed without anybody's edit. Only such a failure holds back the
    /// deletion of what the failed thing needs: a rejected item would hold it for ever.
    pub fn is_transient(self) -> bool {
        !matches!(self, Self::Invalid | Self::Rejected | Self::Conflict)
    }

    /// Whether a write that failed like this may have been made all the same.
    pub fn may_have_landed(self) -> bool {
        matches!(self, Self::OutcomeUnknown | Self::Unavailable)
    }

    /// Whether it passes by itself: the other side's trouble, not ours and not a person's to mend.
    pub fn passes(self) -> bool {
        matches!(
            self,
            Self::Throttled | Self::Unavailable | Self::OutcomeUnknown
        )
    }

    /// How long until the next try, before jitter; `failures` counts the failed runs in a row, from 1.
    /// `None` waits for an edit.
    pub fn delay(self, failures: u32) -> Option<Duration> {
        let doubling = |first: u64, limit: u64| {
            let factor = 1_u64 << failures.saturating_sub(1).min(16);
            Duration::from_secs(first.saturating_mul(factor).min(limit))
        };
        match self {
            Self::Invalid => None,
            Self::Rejected => Some(Duration::from_secs(3600)),
            Self::Waiting(_) => Some(Duration::from_secs(300)),
            Self::Conflict => Some(Duration::from_secs(300)),
            Self::Denied => Some(doubling(300, 3600)),
            Self::Throttled | Self::Unavailable => Some(doubling(5, 300)),
            Self::OutcomeUnknown => Some(Duration::from_secs(5)),
            Self::Superseded => Some(Duration::ZERO),
        }
    }

    /// A label for metrics and logs; the set is closed.
    pub fn label(self) -> &'static str {
        self.into()
    }
}

/// An error with its class. The message says what is wrong, with which object, and what to do.
#[derive(derive_more::Error, Display, Clone, Debug, PartialEq, Eq)]
#[display("{message}")]
pub struct Error {
    /// What is done about it.
    pub class: Class,
    /// For people; ends up in conditions. Never holds a secret.
    pub message: String,
    /// How long the other side asks us to wait, where it says so.
    pub wait: Option<Duration>,
}

/// The result of whatever can fail against the outside.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of a class.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            wait: None,
        }
    }

    /// The same, not to be tried again before the other side's time is over.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self {
            wait: Some(wait),
            ..self
        }
    }

    /// The object is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Class::Invalid, message)
    }

    /// The other side fails.
    pub fn failing(message: impl Into<String>) -> Self {
        Self::new(Class::Unavailable, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_those_of_the_design() {
        let seconds = |class: Class, failures| class.delay(failures).map(|d| d.as_secs());
        assert_eq!(seconds(Class::Invalid, 1), None);
        assert_eq!(seconds(Class::Rejected, 9), Some(3600));
        assert_eq!(seconds(Class::Waiting(WaitingOn::Tenant), 9), Some(300));
        assert_eq!(
            [1, 2, 3, 4, 5].map(|n| seconds(Class::Denied, n)),
            [300, 600, 1200, 2400, 3600].map(Some)
        );
        assert_eq!(
            [1, 2, 3, 6, 7, u32::MAX].map(|n| seconds(Class::Unavailable, n)),
            [5, 10, 20, 160, 300, 300].map(Some)
        );
    }
}
