//! Whether a secret was in a request, in whatever dress: tests prove with it that one never was.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hyper::HeaderMap;
use serde_json::Value;

use super::cbor;

/// How many dresses one may wear over another: JSON in a form in JSON, and one more.
const DEPTH: usize = 4;
const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const FOR_URLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

struct Watched {
    secret: String,
    /// The secret, and what stays of it in base64 wherever in a longer text it stands.
    needles: Vec<String>,
    seen: Vec<String>,
}

#[derive(Default)]
pub(super) struct Watch(Mutex<Vec<Watched>>);

impl Watch {
    fn list(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks for `secret` from now on.
    ///
    /// # Panics
    /// If it is shorter than eight bytes: that would be found anywhere, and its base64 nowhere.
    pub(super) fn add(&self, secret: &str) {
        assert!(secret.len() >= 8, "too short to be looked for");
        let mut list = self.list();
        if !list.iter().any(|watched| watched.secret == secret) {
            list.push(Watched {
                secret: secret.to_owned(),
                needles: needles(secret),
                seen: Vec::new(),
            });
        }
    }

    /// The requests that had it, as [`Watch::look`] named them.
    ///
    /// # Panics
    /// If nobody looked for it: no test may believe that it was not there.
    pub(super) fn seen(&self, secret: &str) -> Vec<String> {
        let list = self.list();
        let watched = list.iter().find(|watched| watched.secret == secret);
        assert!(watched.is_some(), "nobody has looked for this secret");
        watched.map_or_else(Vec::new, |watched| watched.seen.clone())
    }

    /// Looks through a request, called `name` if something is found.
    pub(super) fn look(&self, uri: &str, headers: &HeaderMap, body: &[u8], name: &str) {
        let mut list = self.list();
        if list.is_empty() {
            return;
        }
        let texts = texts(uri, headers, body);
        for watched in list.iter_mut() {
            let found = |text: &String| watched.needles.iter().any(|needle| text.contains(needle));
            if texts.iter().any(found) {
                watched.seen.push(name.to_owned());
            }
        }
    }
}

fn needles(secret: &str) -> Vec<String> {
    let mut needles = vec![secret.to_owned()];
    for alphabet in [STANDARD, FOR_URLS] {
        for offset in 0..3 {
            needles.push(core_of_base64(secret.as_bytes(), offset, alphabet));
        }
    }
    needles
}

/// The characters that encode nothing but `bytes` when so many others, up to two, stand before them in a group of three.
fn core_of_base64(bytes: &[u8], offset: usize, alphabet: &[u8; 64]) -> String {
    let bit = |index: usize| {
        bytes
            .get(index / 8)
            .map_or(0, |byte| usize::from(byte >> (7 - index % 8) & 1))
    };
    // Characters begin at multiples of six bits of the whole text, of which the first `8 * offset` are others'.
    let first = (6 - 8 * offset % 6) % 6;
    (first..)
        .step_by(6)
        .take_while(|start| start + 6 <= 8 * bytes.len())
        .map(|start| {
            let value = (start..start + 6).fold(0, |value, index| value << 1 | bit(index));
            char::from(alphabet[value])
        })
        .collect()
}

/// Everything that a request says, as it stands and taken out of its encodings.
fn texts(uri: &str, headers: &HeaderMap, body: &[u8]) -> BTreeSet<String> {
    let mut texts = BTreeSet::new();
    undress(uri, DEPTH, &mut texts);
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        undress(&format!("{name}: {value}"), DEPTH, &mut texts);
        undress(&value, DEPTH, &mut texts);
    }
    undress(&String::from_utf8_lossy(body), DEPTH, &mut texts);
    if let Some(value) = cbor::read(body) {
        leaves(&value, DEPTH, &mut texts);
    }
    texts
}

fn undress(text: &str, depth: usize, texts: &mut BTreeSet<String>) {
    if !texts.insert(text.to_owned()) || depth == 0 {
        return;
    }
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        leaves(&value, depth - 1, texts);
    }
    if text.contains(['%', '+']) {
        // Once with a `+` that is a space, and once with one that is itself.
        for text in [text.to_owned(), text.replace('+', "%2B")] {
            let whole =
                form_urlencoded::parse(text.replace('&', "%26").replace('=', "%3D").as_bytes())
                    .map(|(text, _)| text.into_owned())
                    .collect::<String>();
            undress(&whole, depth - 1, texts);
        }
    }
    if text.contains('=') {
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            undress(&name, depth - 1, texts);
            undress(&value, depth - 1, texts);
        }
    }
}

/// The keys and the texts in a tree, whatever they hold themselves.
fn leaves(value: &Value, depth: usize, texts: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => undress(text, depth, texts),
        Value::Array(values) => {
            for value in values {
                leaves(value, depth, texts);
            }
        }
        Value::Object(members) => {
            for (key, value) in members {
                undress(key, depth, texts);
                leaves(value, depth, texts);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use serde_json::json;

    use super::*;

    const SECRET: &str = "xoxb-1/2+3\"é";

    fn base64(bytes: &[u8], alphabet: &[u8; 64]) -> String {
        bytes
            .chunks(3)
            .flat_map(|group| {
                let byte = |index: usize| usize::from(group.get(index).copied().unwrap_or(0));
                let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
                (0..=group.len())
                    .map(move |index| char::from(alphabet[bits >> (18 - 6 * index) & 63]))
            })
            .collect()
    }

    fn form(text: &str) -> String {
        form_urlencoded::byte_serialize(text.as_bytes()).collect()
    }

    fn found(uri: &str, header: &str, body: &[u8]) -> bool {
        let watch = Watch::default();
        watch.add(SECRET);
        let mut headers = HeaderMap::new();
        headers.insert("x-any", HeaderValue::from_bytes(header.as_bytes()).unwrap());
        watch.look(uri, &headers, body, "here");
        watch.look("/", &HeaderMap::new(), b"", "there");
        match &watch.seen(SECRET)[..] {
            [] => false,
            [name] if name == "here" => true,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_is_found_in_any_dress() {
        let nested = json!({"Input": json!({"text": format!("Bearer {SECRET}")}).to_string()});
        let mut cbor = Vec::new();
        ciborium::into_writer(&nested, &mut cbor).unwrap();
        let mut bodies = vec![
            SECRET.to_owned(),
            json!({"ApiKeyValue": SECRET}).to_string(),
            json!({SECRET: 1}).to_string(),
            nested.to_string(),
            format!("Action=Publish&Message={}", form(SECRET)),
            format!("Message={}", form(&nested.to_string())),
            format!("\"{}\"", "xoxb-1\\/2\\u002b3\\u0022\\u00e9"),
        ];
        for before in ["", "a", "ab", "abc", "Bearer "] {
            for alphabet in [STANDARD, FOR_URLS] {
                let text = base64(format!("{before}{SECRET} and more").as_bytes(), alphabet);
                bodies.push(format!("prefix/{text}=="));
                bodies.push(json!({"Secret": text}).to_string());
                bodies.push(format!("a={}", form(&text)));
            }
        }
        for body in bodies {
            assert!(found("/", "", body.as_bytes()), "{body}");
        }
        assert!(found("/", "", &cbor));
        assert!(found("/", &format!("Bearer {SECRET}"), b""));
        assert!(found(&format!("/path?key={}", form(SECRET)), "", b""));
        let percent: String = SECRET.bytes().map(|byte| format!("%{byte:02x}")).collect();
        assert!(found(&format!("/{percent}"), "", b""));
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        for body in ["", "xoxb-1/2", "xoxb-1%2F2 3", "{\"a\":[1,null]}", "a=b&c"] {
            assert!(!found("/", "Bearer", body.as_bytes()), "{body}");
        }
    }

    #[test]
    #[should_panic(expected = "nobody has looked")]
    fn what_nobody_looked_for_is_no_proof() {
        Watch::default().seen(SECRET);
    }
}
