//! Every message that an answer from outside leads to: none has an empty part, and each says where, what, and what to do.

use super::{aws, kubernetes, slack};
use crate::engine::error::{Class, Error};
use regex::Regex;
use std::collections::BTreeSet;

/// An error, and what its message must say: the operation, whom it is about, the code, what to do.
pub struct Told {
    /// Each of them once, as it stands there.
    pub parts: Vec<String>,
    /// The error.
    pub error: Error,
}

impl Told {
    /// Of these parts.
    pub fn new(parts: &[&str], error: Error) -> Self {
        let parts = parts.iter().map(|part| (*part).to_owned()).collect();
        Self { parts, error }
    }
}

#[test]
fn no_message_has_an_empty_part() {
    let empty = Regex::new(r": *(?:[;,.)]|$)|: +:|, *,|\( *\)|  |\. \.|^[:;,. ]").unwrap();
    for (service, told, classes) in [
        (
            "AWS",
            aws::error::tests::all(),
            &[
                Class::Rejected,
                Class::Denied,
                Class::Throttled,
                Class::Unavailable,
                Class::OutcomeUnknown,
            ][..],
        ),
        (
            "Slack",
            slack::all(),
            &[
                Class::Rejected,
                Class::Denied,
                Class::Throttled,
                Class::Unavailable,
                Class::OutcomeUnknown,
            ],
        ),
        (
            "Kubernetes",
            kubernetes::tests::all(),
            &[
                Class::Rejected,
                Class::Denied,
                Class::Throttled,
                Class::Unavailable,
            ],
        ),
    ] {
        let mut met = BTreeSet::new();
        for Told { parts, error } in told {
            let Error { class, message, .. } = error;
            met.insert(class.label());
            assert!(!empty.is_match(&message), "{service}: {message}");
            for part in parts {
                assert!(
                    !part.is_empty() && message.contains(&part),
                    "{message}: {part}"
                );
            }
        }
        assert_eq!(
            met,
            classes.iter().map(|class| class.label()).collect(),
            "{service}"
        );
    }
}
