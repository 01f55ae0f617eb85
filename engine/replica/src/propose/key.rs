//! The key of a line: only its field is looked at closely, the rest is part of a value.

use isonomy_wire::command::{Invalid, check_key};
use serde::Deserializer as _;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::Deserializer;
use serde_json::error::Category;
use serde_json::value::RawValue;
use std::fmt;

/// Why a line has no key.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyError {
    /// The line ends before its object does.
    #[error("the line ends in the middle of an object")]
    CutOff,
    #[error("the line is not JSON: {0}; each line must be one object")]
    NotJson(String),
    #[error("the line is {0}, not an object; each line must be one object")]
    NotAnObject(&'static str),
    #[error("more text follows behind the object of the line; write one object per line")]
    Trailing,
    #[error("the line has no field '{0}'; name the field that holds the key with --key")]
    NoField(String),
    #[error("the line has the field '{0}' more than once, so the key is not clear; keep one of these fields")]
    Twice(String),
    #[error("the field '{field}' is {kind}; a key must be text or a number")]
    Kind { field: String, kind: &'static str },
    #[error("the field '{field}' is not valid text: {why}; correct the text")]
    Text { field: String, why: String },
    #[error("the field '{field}' cannot be a key: {why}")]
    Length { field: String, why: Invalid },
}

/// The key that a line's field holds. A number is the text that stands there: two that a program
/// would round to the same are two keys.
pub(super) fn key_of(line: &[u8], field: &str) -> Result<String, KeyError> {
    let named = || field.to_owned();
    let key = match raw_of(line, field)? {
        RawField::None => return Err(KeyError::NoField(named())),
        RawField::Twice => return Err(KeyError::Twice(named())),
        RawField::Once(raw) => match kind_of(raw.as_bytes()) {
            "text" => serde_json::from_str(raw)
                .map_err(|error| KeyError::Text { field: named(), why: without_place(&error) })?,
            "a number" | "a truth value" => raw.to_owned(),
            kind => return Err(KeyError::Kind { field: named(), kind }),
        },
    };
    check_key(key.len()).map_err(|why| KeyError::Length { field: named(), why })?;
    Ok(key)
}

/// What kind of JSON this is, by its beginning.
fn kind_of(json: &[u8]) -> &'static str {
    match json.first() {
        Some(b'"') => "text",
        Some(b'-' | b'0'..=b'9') => "a number",
        Some(b't' | b'f') => "a truth value",
        Some(b'n') => "null",
        Some(b'[') => "an array",
        Some(b'{') => "an object",
        _ => "no JSON",
    }
}

/// The text of a field's value.
enum RawField<'a> {
    None,
    Once(&'a str),
    Twice,
}

fn raw_of<'a>(line: &'a [u8], field: &str) -> Result<RawField<'a>, KeyError> {
    let mut json = Deserializer::from_slice(line);
    match json.deserialize_map(Object { field }) {
        Ok(raw) => json.end().map(|()| raw).map_err(|_| KeyError::Trailing),
        Err(error) if is_cut_off(line, &error) => Err(KeyError::CutOff),
        Err(error) if error.classify() == Category::Data => {
            Err(KeyError::NotAnObject(kind_of(line.trim_ascii_start())))
        }
        Err(error) => Err(KeyError::NotJson(format!("{}, column {}", without_place(&error), error.column()))),
    }
}

/// Whether only the end of the object is missing. The parser takes a number that is cut off for a wrong number.
fn is_cut_off(line: &[u8], error: &serde_json::Error) -> bool {
    let in_number = error.column() == line.len() && matches!(line, [.., b'-' | b'+' | b'.' | b'e' | b'E']);
    error.classify() == Category::Eof || error.classify() == Category::Syntax && in_number
}

/// What a parser says, without the place: to it the line is a whole input, and its lines are others.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(what, _)| what.to_owned())
}

/// Visits an object and keeps the text of one field's value. Values of the others are skipped, not
/// understood, and so are their names, which need not even be text.
struct Object<'f> {
    field: &'f str,
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = RawField<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawField<'de>, A::Error> {
        let mut found = RawField::None;
        while let Some(is_field) = map.next_key_seed(Name { wanted: self.field })? {
            if !is_field {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let raw: &'de RawValue = map.next_value()?;
            found = match found {
                RawField::None => RawField::Once(raw.get()),
                RawField::Once(_) | RawField::Twice => RawField::Twice,
            };
        }
        Ok(found)
    }
}

/// Whether the name of a field is the wanted one.
struct Name<'f> {
    wanted: &'f str,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = bool;

    fn deserialize<D: serde::Deserializer<'de>>(self, name: D) -> Result<bool, D::Error> {
        name.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_bytes<E: serde::de::Error>(self, name: &[u8]) -> Result<bool, E> {
        Ok(name == self.wanted.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(line: &str) -> String {
        key_of(line.as_bytes(), "id").unwrap()
    }

    fn told(line: &str) -> String {
        key_of(line.as_bytes(), "id").unwrap_err().to_string()
    }

    #[test]
    fn a_key_is_text_or_a_number_as_it_stands_there() {
        assert_eq!(key(r#"{"id": "a", "x": 1}"#), "a");
        assert_eq!(key(r#"{"x": {"id": 1}, "\u0069d": "\u00e9\n"}"#), "é\n");
        for number in
            ["17", "-0", "1.0", "1.50", "1E3", "1e400", "18446744073709551616", "18446744073709551617"]
        {
            assert_eq!(key(&format!("{{\"id\": {number} }}")), number);
        }
        assert_eq!(key(r#"{"id":true}"#), "true");
    }

    #[test]
    fn everything_else_says_what_it_is() {
        assert!(told("{}").contains("no field 'id'"));
        assert!(told(r#"{"ID": 1}"#).contains("no field 'id'"));
        assert!(told(r#"{"id": 1, "x": 2, "id": 1}"#).contains("more than once"));
        assert!(told(r#"{"id": [1]}"#).contains("is an array; a key must be text or a number"));
        assert!(told(r#"{"id": {"id": 1}}"#).contains("is an object"));
        assert!(told(r#"{"id": null}"#).contains("is null"));
        assert!(told(r#"{"id": ""}"#).contains("1 to 1024"));
        assert!(told(&format!(r#"{{"id": "{}"}}"#, "k".repeat(1025))).contains("1025 bytes"));
        assert!(told(r#"{"id": "\ud800"}"#).contains("the field 'id' is not valid text"));
        assert!(told(r#"{"id": 1} x"#).contains("more text follows"));
        let nonsense = told(r#"{"id": 01}"#);
        assert!(nonsense.contains("not JSON") && nonsense.contains("column 9"), "{nonsense}");
        assert!(!nonsense.contains("line 1"), "only the caller knows the line: {nonsense}");
    }

    #[test]
    fn a_key_that_is_no_utf8_is_no_text() {
        let error = key_of(b"{\"id\": \"\xff\"}", "id").unwrap_err();
        assert!(
            error.to_string().contains("not JSON") || error.to_string().contains("not valid text"),
            "{error}"
        );
    }
}
