//! Listings in pages that are shorter than AWS's, on demand. The emulator makes the NextToken, so that it leads on.

use hyper::body::Bytes;

use super::cbor;

/// Where the size of a page is written down.
enum Size {
    /// In the request's body, as AWS has it.
    MaxRecords,
    /// In the query, where the emulator's patches read it: AWS lets nobody ask for it.
    Query,
}

fn size_of(operation: &str) -> Option<Size> {
    match operation {
        "DescribeAlarms" | "DescribeAlarmHistory" => Some(Size::MaxRecords),
        "ListSubscriptionsByTopic" | "ListSubscriptions" | "ListTopics" => Some(Size::Query),
        _ => None,
    }
}

/// Whether the pages of `operation` (`DescribeAlarms` or `cloudwatch:DescribeAlarms`) can be made shorter.
pub(super) fn can_be_short(operation: &str) -> bool {
    size_of(operation.rsplit(':').next().unwrap_or(operation)).is_some()
}

/// The path with its query, and the body, of the same request for a page of at most `size` entries.
pub(super) fn shorten(operation: &str, path: &str, body: &Bytes, size: usize) -> (String, Bytes) {
    match size_of(operation) {
        Some(Size::MaxRecords) => {
            let shorter = cbor::at_most(body, "MaxRecords", size).map(Bytes::from);
            (path.to_owned(), shorter.unwrap_or_else(|| body.clone()))
        }
        Some(Size::Query) => {
            let separator = if path.contains('?') { '&' } else { '?' };
            (format!("{path}{separator}WorldPage={size}"), body.clone())
        }
        None => (path.to_owned(), body.clone()),
    }
}
