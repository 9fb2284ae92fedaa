//! What can go wrong with a call, on demand.
//!
//! The one place for it: the proxy asks before it forwards a call ([`Troubles::meet`]) and hands the answer to the trouble it met
//! afterwards. A new kind is a variant here and an arm at one of these two places in `proxy.rs`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What happens to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The permission is missing: refused as that service refuses.
    Deny,
    /// Too many requests: refused as that service throttles.
    Throttle,
    /// Nothing is done, HTTP 500.
    Fail5xx,
    /// It is done, but the connection is cut instead of an answer.
    CutAfterCommit,
    /// It is done, but late.
    Delay(Duration),
    /// Nothing is done, and the answer is this status, code and message.
    Answer(u16, String, String),
}

struct Active {
    trouble: Trouble,
    left: Option<usize>,
}

#[derive(Default)]
pub(super) struct Troubles(Mutex<HashMap<(String, String), Active>>);

impl Troubles {
    pub(super) fn set(
        &self,
        account: &str,
        operation: &str,
        trouble: Trouble,
        left: Option<usize>,
    ) {
        let key = (account.to_owned(), operation.to_owned());
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, Active { trouble, left });
    }

    pub(super) fn lift(&self, account: &str, operation: &str) {
        let key = (account.to_owned(), operation.to_owned());
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&key);
    }

    /// The trouble that a call meets, which is used up by it if it was set for a number of calls.
    pub(super) fn meet(&self, account: &str, service: &str, operation: &str) -> Option<Trouble> {
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let names = [operation.to_owned(), format!("{service}:{operation}")];
        let key = names
            .into_iter()
            .map(|name| (account.to_owned(), name))
            .find(|key| troubles.contains_key(key))?;
        let active = troubles.get_mut(&key)?;
        let trouble = active.trouble.clone();
        if let Some(left) = &mut active.left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                troubles.remove(&key);
            }
        }
        Some(trouble)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_met_as_often_as_it_was_set_for() {
        let troubles = Troubles::default();
        troubles.set("1", "TagResource", Trouble::Throttle, Some(2));
        troubles.set("1", "sns:Subscribe", Trouble::Deny, None);
        let met: Vec<_> = (0..3)
            .map(|_| troubles.meet("1", "sns", "TagResource").is_some())
            .collect();
        assert_eq!(met, [true, true, false]);
        assert_eq!(troubles.meet("1", "sns", "Subscribe"), Some(Trouble::Deny));
        assert_eq!(troubles.meet("2", "sns", "Subscribe"), None);
        troubles.lift("1", "sns:Subscribe");
        assert_eq!(troubles.meet("1", "sns", "Subscribe"), None);
    }
}
