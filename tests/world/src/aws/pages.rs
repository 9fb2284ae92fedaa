//! Listings in pages that are shorter than AWS's, on demand. The emulator makes the NextToken, so that it leads on.

use hyper::body::Bytes;

use super::cbor;

/// Where the size of a page is written down.
enum Size {
    /// In the request's body, as AWS has it.
    MaxRecords,
    /// In the request's body, as AWS has it, in JSON.
    Limit,
    /// In the query, where the emulator's patches read it: AWS lets nobody ask for it.
    Query,
}

fn size_of(operation: &str) -> Option<Size> {
    match operation {
        "DescribeAlarms" | "DescribeAlarmHistory" => Some(Size::MaxRecords),
        "ListSubscriptionsByTopic" | "ListSubscriptions" | "ListTopics" => Some(Size::Query),
        "ListRules" | "ListTargetsByRule" | "ListConnections" | "ListApiDestinations" => {
            Some(Size::Limit)
        }
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
        Some(Size::Limit) => {
            let shorter = limited(body, size).map(Bytes::from);
            (path.to_owned(), shorter.unwrap_or_else(|| body.clone()))
        }
        Some(Size::Query) => {
            let separator = if path.contains('?') { '&' } else { '?' };
            (format!("{path}{separator}WorldPage={size}"), body.clone())
        }
        None => (path.to_owned(), body.clone()),
    }
}

/// The JSON object with a `Limit` of at most `size`; `None` if it is none.
fn limited(body: &[u8], size: usize) -> Option<Vec<u8>> {
    let mut body: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body).ok()?;
    let asked = body.get("Limit").and_then(serde_json::Value::as_u64);
    let size = u64::try_from(size).ok()?;
    let size = asked.map_or(size, |asked| asked.min(size));
    body.insert("Limit".to_owned(), size.into());
    serde_json::to_vec(&body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_json_is_made_no_larger_than_asked_for() {
        let cases = [
            ("{}", Some("{\"Limit\":2}")),
            (
                "{\"Limit\":100,\"Rule\":\"r\"}",
                Some("{\"Limit\":2,\"Rule\":\"r\"}"),
            ),
            ("{\"Limit\":1}", Some("{\"Limit\":1}")),
            ("[]", None),
            ("", None),
        ];
        for (asked, given) in cases {
            let found = limited(asked.as_bytes(), 2).map(|body| String::from_utf8(body).unwrap());
            assert_eq!(found.as_deref(), given, "{asked}");
        }
    }
}
