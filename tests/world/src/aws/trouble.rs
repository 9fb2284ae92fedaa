//! What can go wrong with a call, on demand.
//!
//! The one place for it: the proxy asks before it forwards a call ([`Troubles::meet`]) and hands the answer to the trouble it met
//! afterwards. A new kind is a variant here and an arm at one of these two places in `proxy.rs`.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
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
    /// A page holds at most so many entries (at least one), and a NextToken leads to the rest. It stands beside any other trouble of
    /// the operation, so that few entries make a listing that breaks off. Only for DescribeAlarms, DescribeAlarmHistory,
    /// ListSubscriptionsByTopic, ListSubscriptions, ListTopics, ListRules, ListTargetsByRule, ListConnections and
    /// ListApiDestinations: the other listings of CloudWatch and SNS the emulator answers in one page, and those of other services
    /// come in pages of their own size.
    ShortPages(usize),
    /// The first page comes, but what carries a NextToken is answered with HTTP 500, whatever the service. First pages do not use it
    /// up.
    FailLaterPages,
    /// Nothing is done, and the answer is HTTP 200 with every entry failed for this code and message. Only for PutTargets,
    /// RemoveTargets and PutEvents.
    FailEntries(String, String),
}

struct Active {
    trouble: Trouble,
    left: Option<usize>,
}

/// What a call meets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Met {
    /// What happens to it.
    pub(super) trouble: Option<Trouble>,
    /// How many entries its answer may hold.
    pub(super) page: Option<usize>,
}

/// An operation of an account, and whether it is about the size of its pages, which goes with anything else.
type Key = (String, String, bool);

#[derive(Default)]
pub(super) struct Troubles(Mutex<HashMap<Key, Active>>);

impl Troubles {
    fn table(&self) -> MutexGuard<'_, HashMap<Key, Active>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(
        &self,
        account: &str,
        operation: &str,
        trouble: Trouble,
        left: Option<usize>,
    ) {
        let pages = matches!(trouble, Trouble::ShortPages(_));
        let key = (account.to_owned(), operation.to_owned(), pages);
        self.table().insert(key, Active { trouble, left });
    }

    pub(super) fn lift(&self, account: &str, operation: &str) {
        let mut table = self.table();
        for pages in [false, true] {
            table.remove(&(account.to_owned(), operation.to_owned(), pages));
        }
    }

    /// What a call meets, which is used up by it if it was set for a number of calls. `later_page` says whether it carries a
    /// NextToken.
    pub(super) fn meet(
        &self,
        account: &str,
        service: &str,
        operation: &str,
        later_page: bool,
    ) -> Met {
        let mut table = self.table();
        let mut take = |pages: bool| {
            let names = [operation.to_owned(), format!("{service}:{operation}")];
            let mut keys = names
                .map(|name| (account.to_owned(), name, pages))
                .into_iter();
            let key = keys.find(|key| table.contains_key(key))?;
            let active = table.get_mut(&key)?;
            if active.trouble == Trouble::FailLaterPages && !later_page {
                return None;
            }
            let trouble = active.trouble.clone();
            if let Some(left) = &mut active.left {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    table.remove(&key);
                }
            }
            Some(trouble)
        };
        Met {
            trouble: take(false),
            page: take(true).and_then(|trouble| match trouble {
                Trouble::ShortPages(size) => Some(size.max(1)),
                _ => None,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(trouble: Option<Trouble>, page: Option<usize>) -> Met {
        Met { trouble, page }
    }

    #[test]
    fn is_met_as_often_as_it_was_set_for() {
        let troubles = Troubles::default();
        troubles.set("1", "TagResource", Trouble::Throttle, Some(2));
        troubles.set("1", "sns:Subscribe", Trouble::Deny, None);
        let meet = |account, operation| troubles.meet(account, "sns", operation, false);
        let found: Vec<_> = (0..3)
            .map(|_| meet("1", "TagResource").trouble.is_some())
            .collect();
        assert_eq!(found, [true, true, false]);
        assert_eq!(meet("1", "Subscribe"), met(Some(Trouble::Deny), None));
        assert_eq!(meet("2", "Subscribe"), Met::default());
        troubles.lift("1", "sns:Subscribe");
        assert_eq!(meet("1", "Subscribe"), Met::default());
    }

    #[test]
    fn short_pages_go_with_anything_and_later_ones_alone_fail() {
        let troubles = Troubles::default();
        troubles.set("1", "List", Trouble::ShortPages(0), None);
        troubles.set("1", "List", Trouble::FailLaterPages, Some(1));
        let meet = |later_page| troubles.meet("1", "sns", "List", later_page);
        let failed = || met(Some(Trouble::FailLaterPages), Some(1));
        assert_eq!(meet(false), met(None, Some(1)));
        assert_eq!(meet(true), failed());
        assert_eq!(meet(true), met(None, Some(1)), "it was used up");
        troubles.set("1", "List", Trouble::FailLaterPages, None);
        assert_eq!(meet(true), failed());
        troubles.lift("1", "List");
        assert_eq!(meet(true), Met::default());
    }
}
