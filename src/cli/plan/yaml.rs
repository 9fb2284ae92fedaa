//! YAML as Kubernetes reads it. Pure.
//!
//! kubectl makes JSON of a file by `sigs.k8s.io/yaml` 1.6, which takes scalars for what `go.yaml.in/yaml/v2` 2.4 takes
//! them for: YAML 1.1, but for numbers to the base 60. `010` is 8 there, and `no` is false. The grammar is that of
//! granit-parser; what Go's reader and this one make of the same text is in the table of the tests.

use granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span, StrInput, Tag, options};
use k8s_openapi::ByteString;
use serde_json::{Map, Number, Value as Json};
use std::collections::{BTreeMap, BTreeSet};

/// The most nodes that the aliases of one document may stand for: a few lines of them could fill the memory.
const ALIASED: usize = 1_000_000;

/// What the YAML language's own tags begin with.
const TAGS: &str = "tag:yaml.org,2002:";

/// Why a text is not read.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there; may quote what stands there.
    pub what: String,
}

type Result<T, E = Unreadable> = std::result::Result<T, E>;

/// The documents of a stream that are not empty.
pub fn documents(text: &str) -> Result<Vec<Json>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let (mut begin, mut first) = (0, 0);
    let mut at = 0;
    let mut read = |from: usize, to: usize, before: usize| -> Result<()> {
        let document = document(&text[from..to]).map_err(|wrong| Unreadable {
            line: before + wrong.line,
            ..wrong
        })?;
        documents.extend(document.filter(|it| !it.is_null()));
        Ok(())
    };
    // kubectl splits at these lines before anything else is looked at.
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if let Some(rest) = line.strip_prefix("---") {
            let rest = rest.trim();
            if !rest.is_empty() && !rest.starts_with('#') {
                return Err(Unreadable {
                    line: number + 1,
                    what: "only a comment may follow --- on its line: begin the document on the next one".into(),
                });
            }
            read(begin, at, first)?;
            (begin, first) = (at + line.len(), number + 1);
        }
        at += line.len();
    }
    read(begin, at, first)?;
    Ok(documents)
}

/// The first document of a text; `None` if there is none. What follows `...` is not read.
fn document(text: &str) -> Result<Option<Json>> {
    let options = options! {
        disallow_directives: true,
        emit_comments: false,
    };
    let mut composer = Composer::new(text, options);
    loop {
        match composer.next()? {
            (Event::StreamEnd, _) => return Ok(None),
            (Event::StreamStart | Event::DocumentStart(..), _) => {}
            event => return composer.node(event)?.into_json().map(Some),
        }
    }
}

/// A scalar as Go's reader types it.
#[derive(Clone, Debug, PartialEq)]
enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    /// More than an `i64` holds.
    Unsigned(u64),
    Float(f64),
    Text(String),
}

#[derive(Clone)]
enum Node {
    Scalar(Scalar, usize),
    Nested(Json),
}

impl Node {
    fn into_json(self) -> Result<Json> {
        match self {
            Self::Nested(json) => Ok(json),
            Self::Scalar(scalar, line) => {
                scalar.into_json().map_err(|what| Unreadable { line, what })
            }
        }
    }
}

struct Composer<'t> {
    events: Parser<'t, StrInput<'t>>,
    /// Whole nodes by the number of their anchor, and how many nodes each is.
    anchored: BTreeMap<usize, (Node, usize)>,
    nodes: usize,
    aliased: usize,
}

impl<'t> Composer<'t> {
    fn new(text: &'t str, options: Options) -> Self {
        Self {
            events: Parser::new_from_str_with_options(text, options),
            anchored: BTreeMap::new(),
            nodes: 0,
            aliased: 0,
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, Span)> {
        match self.events.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(unreadable(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, (event, span): (Event<'t>, Span)) -> Result<Node> {
        let line = span.start.line();
        let wrong = |what: &str| Unreadable {
            line,
            what: what.into(),
        };
        let before = self.nodes;
        self.nodes += 1;
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let scalar = scalar(&text, style, tag.as_deref()).map_err(|what| wrong(&what))?;
                (Node::Scalar(scalar, line), anchor)
            }
            Event::SequenceStart(_, anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        event => items.push(self.node(event)?.into_json()?),
                    }
                }
                (Node::Nested(Json::Array(items)), anchor)
            }
            Event::MappingStart(_, anchor, _) => {
                (Node::Nested(Json::Object(self.mapping()?)), anchor)
            }
            Event::Alias(anchor) => {
                let known = self.anchored.get(&anchor);
                let (node, size) =
                    known.ok_or_else(|| wrong("an anchor's value contains itself"))?;
                self.aliased += size;
                self.nodes += size;
                if self.aliased > ALIASED {
                    return Err(wrong("too much is repeated by aliases"));
                }
                return Ok(node.clone());
            }
            _ => return Err(wrong("there is no value where one is expected")),
        };
        if anchor != 0 {
            let size = self.nodes - before;
            self.anchored.insert(anchor, (node.clone(), size));
        }
        Ok(node)
    }

    fn mapping(&mut self) -> Result<Map<String, Json>> {
        let (mut fields, mut written) = (Map::new(), BTreeSet::new());
        loop {
            let (event, span) = self.next()?;
            let wrong = |what: String| Unreadable {
                line: span.start.line(),
                what,
            };
            let merges = match &event {
                Event::MappingEnd => return Ok(fields),
                Event::Scalar(text, style, _, tag) => is_merge(text, *style, tag.as_deref()),
                _ => false,
            };
            let key = self.node((event, span))?;
            let value = self.next()?;
            let value = self.node(value)?.into_json()?;
            if merges {
                // Whatever comes later counts, merged or not.
                let merged = merged(value)
                    .ok_or_else(|| wrong("<< takes a mapping, or a list of mappings".into()))?;
                fields.extend(merged);
                continue;
            }
            let key = match key {
                Node::Scalar(key, _) => key.into_key().map_err(wrong)?,
                Node::Nested(_) => {
                    return Err(wrong("a key must be a text: put it in quotes".into()));
                }
            };
            if !written.insert(key.clone()) {
                return Err(wrong(format!("{key:?} stands there twice")));
            }
            fields.insert(key, value);
        }
    }
}

fn unreadable(error: &ScanError) -> Unreadable {
    Unreadable {
        line: error.marker().line(),
        what: error.info(),
    }
}

fn is_merge(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> bool {
    let is_meant = match tag.map(name) {
        None => style == ScalarStyle::Plain,
        Some(tag) => tag == "merge",
    };
    text == "<<" && is_meant
}

/// What `<<` merges; of several the earlier ones count more.
fn merged(value: Json) -> Option<Map<String, Json>> {
    match value {
        Json::Object(fields) => Some(fields),
        Json::Array(items) => {
            let mut all = Map::new();
            for item in items.into_iter().rev() {
                let Json::Object(fields) = item else {
                    return None;
                };
                all.extend(fields);
            }
            Some(all)
        }
        _ => None,
    }
}

/// The name of one of the language's own tags; nothing of another.
fn name(tag: &Tag) -> String {
    let name = tag.suffix_in_namespace(TAGS);
    name.unwrap_or_default().into_owned()
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Scalar, String> {
    let Some(tag) = tag else {
        return Ok(match style {
            ScalarStyle::Plain => plain(text),
            _ => Scalar::Text(text.to_owned()),
        });
    };
    let tag = name(tag);
    let typed = plain(text);
    match (tag.as_str(), typed) {
        ("null", Scalar::Null) => Ok(Scalar::Null),
        ("bool", Scalar::Bool(value)) => Ok(Scalar::Bool(value)),
        ("int", number @ (Scalar::Int(_) | Scalar::Unsigned(_))) => Ok(number),
        ("float", number @ (Scalar::Float(_) | Scalar::Int(_))) => Ok(number),
        ("null" | "bool" | "int" | "float", _) => Err(format!("{text:?} is no !!{tag}")),
        ("binary", _) => {
            let bytes = serde_json::from_value::<ByteString>(text.into());
            let bytes = bytes.map_err(|_| "!!binary is not base64".to_owned())?;
            let text = String::from_utf8_lossy(&bytes.0).into_owned();
            Ok(Scalar::Text(text))
        }
        _ => Ok(Scalar::Text(text.to_owned())),
    }
}

/// What a plain scalar is: `resolve` of go-yaml v2.
fn plain(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Scalar::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Scalar::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Scalar::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let number = match text.as_bytes().first() {
        Some(b'.') => separated(text).and_then(|text| float(&text)),
        Some(b'+' | b'-' | b'0'..=b'9') => {
            let text = text.replace('_', "");
            int(&text).or_else(|| float(&text))
        }
        _ => None,
    };
    number.unwrap_or_else(|| Scalar::Text(text.to_owned()))
}

/// The text without `_`, each of which must be between two digits.
fn separated(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let fits = |at: usize| bytes[at] != b'_' || at > 0 && is_digit(at - 1) && is_digit(at + 1);
    (0..bytes.len()).all(fits).then(|| text.replace('_', ""))
}

/// `strconv.ParseInt(text, 0, 64)`, and what go-yaml reads besides: more than an `i64` holds, and a sign behind `0b`.
fn int(text: &str) -> Option<Scalar> {
    let (sign, digits) = signed(text);
    let prefixed = |radix, digits: &str| magnitude(digits, radix).and_then(|it| sized(sign, it));
    let lower = digits.to_ascii_lowercase();
    if let Some(digits) = lower.strip_prefix("0x") {
        prefixed(16, digits)
    } else if let Some(digits) = lower.strip_prefix("0o") {
        prefixed(8, digits)
    } else if let Some(bits) = lower.strip_prefix("0b") {
        let inner = || {
            let (inner, bits) = signed(text.strip_prefix("0b")?);
            sized(inner, magnitude(bits, 2)?)
        };
        prefixed(2, bits).or_else(inner)
    } else if digits.starts_with('0') {
        prefixed(8, digits)
    } else {
        prefixed(10, digits)
    }
}

/// A sign, if there is one, and the rest.
fn signed(text: &str) -> (Option<char>, &str) {
    let sign = text.chars().next().filter(|sign| matches!(sign, '+' | '-'));
    (sign, &text[usize::from(sign.is_some())..])
}

fn magnitude(digits: &str, radix: u32) -> Option<u64> {
    let are_digits = digits.chars().all(|digit| digit.is_digit(radix));
    are_digits.then(|| u64::from_str_radix(digits, radix).ok())?
}

fn sized(sign: Option<char>, magnitude: u64) -> Option<Scalar> {
    match (sign, i64::try_from(magnitude)) {
        (Some('-'), _) => 0_i64.checked_sub_unsigned(magnitude).map(Scalar::Int),
        (_, Ok(number)) => Some(Scalar::Int(number)),
        (None, Err(_)) => Some(Scalar::Unsigned(magnitude)),
        (Some(_), Err(_)) => None,
    }
}

/// A decimal number with a point, an exponent, or too many digits for an integer: neither `inf`, `0x1p-2` nor what is
/// too large.
fn float(text: &str) -> Option<Scalar> {
    let (_, digits) = signed(text);
    let begins = digits
        .trim_start_matches('.')
        .starts_with(|it: char| it.is_ascii_digit());
    let of = |it: char| it.is_ascii_digit() || matches!(it, '.' | 'e' | 'E' | '+' | '-');
    if !begins || !digits.chars().all(of) {
        return None;
    }
    let number = text.parse::<f64>().ok()?;
    number.is_finite().then_some(Scalar::Float(number))
}

impl Scalar {
    fn into_json(self) -> Result<Json, String> {
        match self {
            Self::Null => Ok(Json::Null),
            Self::Bool(value) => Ok(value.into()),
            Self::Int(number) => Ok(number.into()),
            Self::Unsigned(number) => Ok(number.into()),
            Self::Float(number) => {
                float_json(number).ok_or_else(|| "JSON has no such number".to_owned())
            }
            Self::Text(text) => Ok(text.into()),
        }
    }

    fn into_key(self) -> Result<String, String> {
        match self {
            Self::Bool(value) => Ok(value.to_string()),
            Self::Int(number) => Ok(number.to_string()),
            Self::Float(number) => Ok(float_key(number)),
            Self::Text(text) => Ok(text),
            Self::Null | Self::Unsigned(_) => Err("a key must be a text: put it in quotes".into()),
        }
    }
}

/// JSON with all numbers as Go leaves them.
pub fn whole(mut json: Json) -> Json {
    match &mut json {
        Json::Number(number) if number.is_f64() => {
            let whole = number.as_f64().and_then(float_json);
            whole.unwrap_or(json)
        }
        Json::Array(items) => {
            for item in items {
                *item = whole(item.take());
            }
            json
        }
        Json::Object(fields) => {
            for value in fields.values_mut() {
                *value = whole(value.take());
            }
            json
        }
        _ => json,
    }
}

/// A number as it is after Go has written it as JSON and read that: an integer where it is one.
fn float_json(number: f64) -> Option<Json> {
    /// 2⁶³, the first that an `i64` does not hold.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if number.fract() == 0.0 && number.abs() < LIMIT {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and in range")]
        let whole = number as i64;
        return Some(whole.into());
    }
    Number::from_f64(number).map(Json::Number)
}

/// `strconv.FormatFloat(number, 'g', -1, 32)`, which is what a key becomes.
fn float_key(number: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "Go does so")]
    let number = number as f32;
    if number.is_nan() {
        return ".nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { ".inf" } else { "-.inf" }.into();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// `sigs.k8s.io/yaml` v1.6.0 was asked for each of these.
    #[test]
    fn scalars_are_what_go_takes_them_for() {
        for (text, value) in [
            ("010", json!(8)),
            ("-010", json!(-8)),
            ("+010", json!(8)),
            ("0o10", json!(8)),
            ("0O17", json!(15)),
            ("0x1F", json!(31)),
            ("-0X1f", json!(-31)),
            ("0b101", json!(5)),
            ("-0B11", json!(-3)),
            ("0b-1", json!(-1)),
            ("-0b-1", json!("-0b-1")),
            ("0B-1", json!("0B-1")),
            ("0b2", json!("0b2")),
            ("0x", json!("0x")),
            ("0o8", json!("0o8")),
            ("08", json!(8)),
            ("089", json!(89)),
            ("09.5", json!(9.5)),
            ("00", json!(0)),
            ("-0", json!(0)),
            ("1_000", json!(1000)),
            ("1__0_", json!(10)),
            ("-_1", json!(-1)),
            ("0_8", json!(8)),
            ("0x_1F", json!(31)),
            ("_1", json!("_1")),
            ("1_0.5", json!(10.5)),
            (".5_0", json!(0.5)),
            ("._5", json!("._5")),
            ("60.0", json!(60)),
            ("60.", json!(60)),
            ("6e1", json!(60)),
            ("1.e5", json!(100_000)),
            ("1.5e+2", json!(150)),
            ("1e-3", json!(0.001)),
            ("+.5", json!(0.5)),
            ("-.5", json!(-0.5)),
            ("-0.0", json!(0)),
            ("0.30000000000000004", json!(0.300_000_000_000_000_04)),
            ("1e19", json!(1e19)),
            ("1e400", json!("1e400")),
            (".1e400", json!(".1e400")),
            ("9223372036854775807", json!(i64::MAX)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("18446744073709551615", json!(u64::MAX)),
            ("18446744073709551616", json!(18_446_744_073_709_551_616.0)),
            ("-9223372036854775809", json!(-9_223_372_036_854_775_809.0)),
            ("0xFFFFFFFFFFFFFFFFF", json!("0xFFFFFFFFFFFFFFFFF")),
            ("0777777777777777777777777", json!(7.777_777_777_777_778e23)),
            ("0x1p-2", json!("0x1p-2")),
            ("12e", json!("12e")),
            ("e5", json!("e5")),
            (".e5", json!(".e5")),
            ("..5", json!("..5")),
            ("1.2.3", json!("1.2.3")),
            ("1-2", json!("1-2")),
            ("+", json!("+")),
            (".", json!(".")),
            ("inf", json!("inf")),
            ("nan", json!("nan")),
            ("+inf", json!("+inf")),
            ("1:30", json!("1:30")),
            ("2001-12-14", json!("2001-12-14")),
            ("y", json!(true)),
            ("Y", json!(true)),
            ("yes", json!(true)),
            ("ON", json!(true)),
            ("True", json!(true)),
            ("n", json!(false)),
            ("No", json!(false)),
            ("off", json!(false)),
            ("yEs", json!("yEs")),
            ("oFF", json!("oFF")),
            ("tRue", json!("tRue")),
            ("~", json!(null)),
            ("", json!(null)),
            ("Null", json!(null)),
            ("NULL", json!(null)),
            ("nULL", json!("nULL")),
            ("<<", json!("<<")),
            ("\"010\"", json!("010")),
            ("'yes'", json!("yes")),
            ("''", json!("")),
            ("|\n  010", json!("010\n")),
            ("!!str 010", json!("010")),
            ("!!str", json!("")),
            ("!!int \"010\"", json!(8)),
            ("!!float 0x10", json!(16)),
            ("!!bool 'on'", json!(true)),
            ("!!null ''", json!(null)),
            ("!!binary aGk=", json!("hi")),
            ("!!timestamp 2001-12-14", json!("2001-12-14")),
            ("! 010", json!("010")),
            ("!mine 010", json!("010")),
            ("!!set {b, c}", json!({"b": null, "c": null})),
        ] {
            let read = documents(&format!("a: {text}"));
            assert_eq!(read, Ok(vec![json!({"a": value})]), "{text}");
        }
        for text in [
            ".inf",
            "-.Inf",
            ".nan",
            "!!int x",
            "!!bool 1",
            "!!null x",
            "!!binary '!'",
            "@x",
            "[1, 2",
            "*x",
            "&x [*x]",
        ] {
            let read = documents(&format!("a: {text}"));
            assert!(
                read.as_ref().is_err_and(|wrong| wrong.line == 1),
                "{text}: {read:?}"
            );
        }
    }

    #[test]
    fn keys_are_what_go_makes_of_them() {
        for (text, key) in [
            ("010", "8"),
            ("0x1F", "31"),
            ("\"010\"", "010"),
            ("y", "true"),
            ("no", "false"),
            ("'no'", "no"),
            ("1.5", "1.5"),
            ("1e5", "100000"),
            ("1e6", "1e+06"),
            ("16777217.0", "1.6777216e+07"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("-0.0", "-0"),
            ("1e39", ".inf"),
            (".nan", ".nan"),
            ("2001-12-14", "2001-12-14"),
            ("'<<'", "<<"),
        ] {
            let read = documents(&format!("{text}: a"));
            assert_eq!(read, Ok(vec![json!({key: "a"})]), "{text}");
        }
        for text in [
            "~: a",
            "18446744073709551615: a",
            "? [a]\n: b",
            "? {a: 1}\n: b",
        ] {
            let wrong = documents(text).unwrap_err();
            assert!(wrong.what.contains("put it in quotes"), "{text}: {wrong:?}");
        }
        for text in [
            "a: 1\na: 2",
            "a: 1\n\"a\": 2",
            "8: 1\n010: 2",
            "y: 1\n'true': 2",
        ] {
            let wrong = documents(text).unwrap_err();
            assert_eq!(
                (wrong.line, wrong.what.contains("twice")),
                (2, true),
                "{text}"
            );
        }
    }

    /// kubectl reads duplicates without a word, and what is merged may be written over.
    #[test]
    fn what_is_anchored_is_repeated_and_merged() {
        for (text, value) in [
            ("a: &x 010\nb: *x", json!({"a": 8, "b": 8})),
            ("a: &x 1\nb: &x 2\nc: *x", json!({"a": 1, "b": 2, "c": 2})),
            ("&x a: 1\nb: *x", json!({"a": 1, "b": "a"})),
            (
                "a: &x {b: 1}\nc:\n  <<: *x\n  d: 2",
                json!({"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
            ),
            (
                "a: &x {b: 1}\nc:\n  <<: *x\n  b: 3",
                json!({"a": {"b": 1}, "c": {"b": 3}}),
            ),
            (
                "<<: [{b: 1}, {b: 2, e: 4}]\nd: 1",
                json!({"b": 1, "d": 1, "e": 4}),
            ),
        ] {
            assert_eq!(documents(text), Ok(vec![value]), "{text}");
        }
        for text in ["<<: 1", "<<: [1]"] {
            assert!(
                documents(text).unwrap_err().what.contains("<< takes"),
                "{text}"
            );
        }
        let mut bomb = "a0: &x0 [0]\n".to_owned();
        for at in 1..40 {
            let before = at - 1;
            bomb += &format!("a{at}: &x{at} [*x{before}, *x{before}]\n");
        }
        assert!(documents(&bomb).unwrap_err().what.contains("aliases"));
    }

    #[test]
    fn a_stream_is_split_as_kubectl_does() {
        for (text, all) in [
            ("", vec![]),
            ("# only\n---\n~\n---", vec![]),
            ("\u{feff}a: 1", vec![json!({"a": 1})]),
            (
                "a: 1\r\n---\r\nb: 2\r\n",
                vec![json!({"a": 1}), json!({"b": 2})],
            ),
            (
                "---\n# c\na: 1\n--- # c\n- 010",
                vec![json!({"a": 1}), json!([8])],
            ),
            ("a: 1\n...\nb: 2", vec![json!({"a": 1})]),
            ("a: |\n  x\n  ---\n  y\n", vec![json!({"a": "x\n---\ny\n"})]),
        ] {
            assert_eq!(documents(text), Ok(all), "{text}");
        }
        for (text, line) in [
            ("--- a", 1),
            ("a: 1\n---\nb: [", 3),
            ("a: 1\n---\nb: 1\n\n--- {c: 1}", 5),
            ("%YAML 1.2\n---\na: 1", 1),
            ("a: b: c", 1),
            ("a: 1\n---\nb: 1\nb: 2", 4),
        ] {
            assert_eq!(documents(text).unwrap_err().line, line, "{text}");
        }
    }
}
