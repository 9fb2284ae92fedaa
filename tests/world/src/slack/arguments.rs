//! The arguments of a call, as form or as JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// How the arguments came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// `application/x-www-form-urlencoded`, or no body at all.
    Form,
    /// `application/json`.
    Json,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Arguments {
    pub(super) written: Written,
    pub(super) values: BTreeMap<String, Value>,
    /// JSON came without `charset`.
    pub(super) no_charset: bool,
    /// Names that came twice in a form.
    pub(super) repeated: Vec<String>,
}

impl Arguments {
    pub(super) fn none() -> Self {
        Self {
            written: Written::Form,
            values: BTreeMap::new(),
            no_charset: false,
            repeated: Vec::new(),
        }
    }

    /// Reads a body; the error that Slack has where it cannot.
    pub(super) fn read(content_type: Option<&str>, body: &[u8]) -> Result<Self, &'static str> {
        let Some(content_type) = content_type else {
            return if body.is_empty() {
                Ok(Self::none())
            } else {
                Err("missing_post_type")
            };
        };
        let mut parts = content_type.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let charset = parts.find_map(|part| {
            part.to_ascii_lowercase()
                .strip_prefix("charset=")
                .map(str::to_owned)
        });
        if charset
            .as_deref()
            .is_some_and(|charset| charset.trim_matches('"') != "utf-8")
        {
            return Err("invalid_charset");
        }
        match kind.as_str() {
            "application/x-www-form-urlencoded" => {
                if std::str::from_utf8(body).is_err() {
                    return Err("invalid_form_data");
                }
                let mut read = Self::none();
                for (name, value) in form_urlencoded::parse(body) {
                    if read
                        .values
                        .insert(name.to_string(), Value::from(value.into_owned()))
                        .is_some()
                    {
                        read.repeated.push(name.into_owned());
                    }
                }
                Ok(read)
            }
            "application/json" => {
                let values: Map<String, Value> = if body.is_empty() {
                    Map::new()
                } else {
                    serde_json::from_slice(body).map_err(|_| "invalid_arguments")?
                };
                Ok(Self {
                    written: Written::Json,
                    values: values.into_iter().collect(),
                    no_charset: charset.is_none(),
                    repeated: Vec::new(),
                })
            }
            _ => Err("invalid_post_type"),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).and_then(Value::as_str)
    }

    /// As [`Self::text`], empty where there is none.
    pub(super) fn text_or_empty(&self, name: &str) -> &str {
        self.text(name).unwrap_or_default()
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        match self.values.get(name) {
            Some(Value::Bool(flag)) => *flag,
            Some(Value::String(text)) => text == "true" || text == "1",
            _ => false,
        }
    }

    /// A whole number; `Err` where it is none.
    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, ()> {
        match self.values.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) => number.as_i64().map(Some).ok_or(()),
            Some(Value::String(text)) => text.parse().map(Some).map_err(drop),
            Some(_) => Err(()),
        }
    }

    /// A tree, in a form as text that holds JSON; `Err` where it is no JSON.
    pub(super) fn tree(&self, name: &str) -> Result<Option<Value>, ()> {
        match self.values.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => serde_json::from_str(text).map(Some).map_err(drop),
            Some(other) => Ok(Some(other.clone())),
        }
    }

    pub(super) fn as_json(&self) -> Value {
        Value::Object(self.values.clone().into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FORM: Option<&str> = Some("application/x-www-form-urlencoded");

    #[test]
    fn reads_a_form() {
        let read = Arguments::read(
            FORM,
            b"name=a%26b&is_private=true&limit=7&blocks=%5B1%5D&limit=8",
        )
        .unwrap();
        assert_eq!(read.text("name"), Some("a&b"));
        assert!(read.flag("is_private") && !read.flag("other"));
        assert_eq!(read.number("limit"), Ok(Some(8)));
        assert_eq!(read.number("name"), Err(()));
        assert_eq!(read.tree("blocks"), Ok(Some(json!([1]))));
        assert_eq!(read.tree("name"), Err(()));
        assert_eq!(read.repeated, ["limit"]);
    }

    #[test]
    fn is_strict_about_content_types() {
        type Case<'a> = (Option<&'a str>, &'a [u8], Result<bool, &'a str>);
        let table: [Case<'_>; 10] = [
            (None, b"", Ok(false)),
            (None, b"a=b", Err("missing_post_type")),
            (FORM, b"a=b", Ok(false)),
            (FORM, b"\xff", Err("invalid_form_data")),
            (Some("application/json; charset=utf-8"), b"{}", Ok(false)),
            (Some("application/json;charset=UTF-8"), b"{}", Ok(false)),
            (Some("application/json"), b"{\"a\":1}", Ok(true)),
            (
                Some("application/json; charset=latin1"),
                b"{}",
                Err("invalid_charset"),
            ),
            (
                Some("application/json; charset=utf-8"),
                b"[]",
                Err("invalid_arguments"),
            ),
            (
                Some("multipart/form-data; boundary=x"),
                b"",
                Err("invalid_post_type"),
            ),
        ];
        for (content_type, body, expected) in table {
            let read = Arguments::read(content_type, body).map(|read| read.no_charset);
            assert_eq!(read, expected, "{content_type:?}");
        }
    }
}
