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
    let text = |text: &str| Cbor::Text(text.to_owned());
    let body = Cbor::Map(vec![
        (text("__type"), text(code)),
        (text("message"), text(message)),
    ]);
    let mut bytes = Vec::new();
    // Writing to memory does not fail.
    let _ = ciborium::into_writer(&body, &mut bytes);
    bytes
}
