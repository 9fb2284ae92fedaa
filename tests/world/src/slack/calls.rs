//! The record of what was called.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

/// One call, as it was answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Call {
    /// When it was answered.
    pub at: Timestamp,
    /// `conversations.create`, or `webhook`.
    pub method: String,
    /// The workspace's id; empty if the token or the webhook's path belongs to none.
    pub workspace: String,
    /// The token as it came; at a webhook its path. Empty if there was none.
    pub token: String,
    /// The channel that it was about, by its id of then; empty if there was none, or it is not visible to anybody.
    pub channel: String,
    /// What was sent, a form's values as text.
    pub arguments: BTreeMap<String, Value>,
    /// The request's `Content-Type`; empty if there was none.
    pub content_type: String,
    /// The body as it came.
    pub body: String,
    /// The HTTP status; `None` when the connection was cut instead.
    pub status: Option<u16>,
    /// The error of an answer that is not a success; what a cut one would have said.
    pub error: Option<String>,
}

impl Call {
    /// Whether the caller was told that it worked.
    pub fn succeeded(&self) -> bool {
        self.status == Some(200) && self.error.is_none()
    }

    /// An argument that is text; empty if there is none.
    pub fn argument(&self, name: &str) -> &str {
        self.arguments
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

/// A place in the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(pub(super) usize);
