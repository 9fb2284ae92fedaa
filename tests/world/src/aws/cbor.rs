//! CBOR as the JSON it stands for, which is what the checks are written against.

use ciborium::Value as Cbor;
use serde_json::{Map, Value as Json};

/// Reads one CBOR item; `None` if it is not one. Tags (times) are dropped, bytes become text.
pub(super) fn read(bytes: &[u8]) -> Option<Json> {
    if bytes.is_empty() {
        return Some(Json::Object(Map::new()));
    }
    json(ciborium::from_reader(bytes).ok()?)
}

fn json(value: Cbor) -> Option<Json> {
    Some(match value {
        Cbor::Null => Json::Null,
        Cbor::Bool(value) => value.into(),
        Cbor::Integer(value) => i64::try_from(value).ok()?.into(),
        Cbor::Float(value) => value.into(),
        Cbor::Text(value) => value.into(),
        Cbor::Bytes(value) => String::from_utf8_lossy(&value).into(),
        Cbor::Tag(_, value) => json(*value)?,
        Cbor::Array(values) => Json::Array(values.into_iter().map(json).collect::<Option<_>>()?),
        Cbor::Map(entries) => {
            let entries = entries
                .into_iter()
                .map(|(key, value)| Some((key.into_text().ok()?, json(value)?)));
            Json::Object(entries.collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

/// An error as rpc-v2-CBOR has it.
pub(super) fn error(code: &str, message: &str) -> Vec<u8> {
    write(&Cbor::Map(vec![
        (text("__type"), text(code)),
        (text("message"), text(message)),
    ]))
}

/// The map in `bytes` with `key` at most `limit`; `None` if they are no map.
pub(super) fn at_most(bytes: &[u8], key: &str, limit: usize) -> Option<Vec<u8>> {
    let Cbor::Map(mut entries) = ciborium::from_reader(bytes).ok()? else {
        return None;
    };
    let key = text(key);
    let asked = entries
        .iter()
        .find_map(|(name, value)| (*name == key).then(|| value.as_integer()))
        .flatten();
    let asked = asked.and_then(|asked| usize::try_from(asked).ok());
    entries.retain(|(name, _)| *name != key);
    let limit = asked.map_or(limit, |asked| asked.min(limit));
    entries.push((key, Cbor::from(u64::try_from(limit).ok()?)));
    Some(write(&Cbor::Map(entries)))
}

fn text(text: &str) -> Cbor {
    Cbor::Text(text.to_owned())
}

fn write(value: &Cbor) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to memory does not fail.
    let _ = ciborium::into_writer(value, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Cbor, at_most, read, text, write};

    #[test]
    fn a_page_is_made_no_larger_than_asked_for() {
        let body = |size: Option<u64>| {
            let size = size.map(|size| (text("MaxRecords"), Cbor::from(size)));
            let prefix = (text("AlarmNamePrefix"), text("p-"));
            write(&Cbor::Map(
                [Some(prefix), size].into_iter().flatten().collect(),
            ))
        };
        for (asked, limit, given) in [
            (None, 2, 2),
            (Some(100), 2, 2),
            (Some(1), 2, 1),
            (Some(2), 2, 2),
        ] {
            let bytes = at_most(&body(asked), "MaxRecords", limit).unwrap();
            let expected = json!({"AlarmNamePrefix": "p-", "MaxRecords": given});
            assert_eq!(read(&bytes), Some(expected), "{asked:?}");
        }
        assert_eq!(at_most(&write(&text("no map")), "MaxRecords", 2), None);
        assert_eq!(at_most(b"", "MaxRecords", 2), None);
    }
}
