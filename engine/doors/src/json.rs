//! JSON that leaves the doors.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use serde::Serialize;
use serde_json::value::RawValue;

/// The type of a JSON body.
pub(crate) const JSON: &str = "application/json";

/// A value: JSON as it was decided, or base64 if it is none. Without either there is no value to tell.
#[derive(Serialize, Default)]
pub(crate) struct Payload {
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

impl Payload {
    pub(crate) fn of(value: &[u8]) -> Payload {
        match serde_json::from_slice::<&RawValue>(value) {
            Ok(payload) => Payload { payload: Some(on_one_line(payload)), payload_base64: None },
            Err(_) => Payload { payload: None, payload_base64: Some(BASE64.encode(value)) },
        }
    }
}

/// JSON has line breaks between its tokens only, where a space means the same.
fn on_one_line(payload: &RawValue) -> Box<RawValue> {
    if !payload.get().contains(['\n', '\r']) {
        return payload.to_owned();
    }
    let line = payload.get().replace(['\n', '\r'], " ");
    RawValue::from_string(line).expect("a space is allowed wherever a line break is")
}

/// A key: text, or base64 if it is none.
#[derive(Serialize)]
pub(crate) struct Key<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
}

impl Key<'_> {
    pub(crate) fn of(key: &[u8]) -> Key<'_> {
        match std::str::from_utf8(key) {
            Ok(text) => Key { key: Some(text), key_base64: None },
            Err(_) => Key { key: None, key_base64: Some(BASE64.encode(key)) },
        }
    }
}

/// The outcome of a proposal.
#[derive(Serialize)]
pub(crate) struct Outcome<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) command_id: Option<String>,
    pub(crate) status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<&'a str>,
    pub(crate) key_seq: u64,
    pub(crate) shard: u16,
    #[serde(flatten)]
    pub(crate) payload: Payload,
}

/// A decision that a reader is told of.
#[derive(Serialize)]
pub(crate) struct Told<'a> {
    #[serde(flatten)]
    pub(crate) key: Key<'a>,
    pub(crate) key_seq: u64,
    pub(crate) command_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<&'static str>,
    #[serde(flatten)]
    pub(crate) payload: Payload,
}

/// A value as one line.
pub(crate) fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("writing to memory cannot fail");
    line.push(b'\n');
    line
}

/// An answer of JSON.
pub(crate) fn answer(body: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, JSON)], body).into_response()
}
