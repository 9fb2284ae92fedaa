//! The record of what was called.

use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::Serialize;

/// Who called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum By {
    /// Somebody with credentials: the operator under test, unless a test says otherwise.
    Client,
    /// A client that [`super::Aws`] handed out.
    World,
    /// A link in a message, which carries no credentials.
    Link,
}

/// One call, as it was answered.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// When it was answered.
    pub at: Timestamp,
    /// Who called.
    pub by: By,
    /// The account it went to: the assumed role's, where one was assumed. Empty if the caller was not recognised.
    pub account: String,
    /// The Region it was signed for.
    pub region: String,
    /// The caller's ARN; empty if it was not recognised.
    pub identity: String,
    /// The access key it was signed with.
    pub access_key_id: String,
    /// As IAM spells it: `cloudwatch`, `sns`, `sts`, `events`, `logs`.
    pub service: String,
    /// `PutMetricAlarm`.
    pub operation: String,
    /// What it is about, as far as that is one thing: an ARN or a name. Empty otherwise.
    pub resource: String,
    /// Whether it changes anything.
    pub write: bool,
    /// The HTTP status; `None` when the connection was cut instead.
    pub status: Option<u16>,
    /// The error code of an answer that is not a success.
    pub error: Option<String>,
}

impl Call {
    /// Whether the caller was told that it worked.
    pub fn succeeded(&self) -> bool {
        self.status
            .is_some_and(|status| (200..300).contains(&status))
    }
}

/// A place in the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(usize);

impl Mark {
    pub(super) const START: Self = Self(0);
}

#[derive(Default)]
pub(super) struct Calls(Mutex<Vec<Call>>);

impl Calls {
    pub(super) fn push(&self, call: Call) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(call);
    }

    pub(super) fn mark(&self) -> Mark {
        Mark(self.0.lock().unwrap_or_else(PoisonError::into_inner).len())
    }

    pub(super) fn since(&self, Mark(begin): Mark) -> Vec<Call> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(begin..)
            .unwrap_or_default()
            .to_vec()
    }
}

/// Whether `operation` changes anything. AssumeRole and the like only hand out what there is.
pub(super) fn is_write(operation: &str) -> bool {
    const READS: [&str; 9] = [
        "Describe",
        "List",
        "Get",
        "Filter",
        "Test",
        "Lookup",
        "Query",
        "Search",
        "AssumeRole",
    ];
    !READS.iter().any(|prefix| operation.starts_with(prefix))
}
