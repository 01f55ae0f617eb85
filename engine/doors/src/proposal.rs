//! What a sender proposes, from JSON to an order for the cluster.

use crate::identity::{IdempotencyKey, REQUEST_KEYS, fresh_key, identity};
use crate::problem::{Problem, Refusal};
use axum::http::HeaderMap;
use data_encoding::BASE64;
use isonomy_wire::command::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use serde::Deserialize;
use serde_json::error::{Category, Error};
use serde_json::value::RawValue;

/// A proposal as it is written. A field that is null counts as left out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    key: Option<String>,
    key_base64: Option<String>,
    /// As it was sent, byte for byte.
    #[serde(borrow)]
    payload: &'a RawValue,
    client_id: Option<String>,
    request_id: Option<String>,
    expected_seq: Option<u64>,
}

/// What the cluster is to do for a sender.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    Decide {
        key: Vec<u8>,
        value: Vec<u8>,
        name: Option<IdempotencyKey>,
    },
    DecideIf {
        key: Vec<u8>,
        value: Vec<u8>,
        expected: u64,
        name: Option<IdempotencyKey>,
    },
    /// A decision whose key is the request's own name, so that it conflicts with nothing but its repetition.
    DecideOnce {
        key: String,
        value: Vec<u8>,
    },
}

impl Order {
    /// The key that a request got because it named none.
    pub(crate) fn request_key(&self) -> Option<&str> {
        match self {
            Order::DecideOnce { key, .. } => Some(key),
            _ => None,
        }
    }

    /// Reads a proposal.
    pub(crate) fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Order, Refusal> {
        let refused = |error: Error| match error.classify() {
            Category::Data => Problem::BadField.because(error.to_string()),
            _ => Problem::BadJson.because(error.to_string()),
        };
        // The reader of fields takes them from an array, too.
        let whole: &RawValue = serde_json::from_slice(body).map_err(refused)?;
        if !whole.get().starts_with('{') {
            return Err(Problem::BadField.because("a proposal is an object with the field payload"));
        }
        let written: Written<'_> = serde_json::from_str(whole.get()).map_err(refused)?;
        let Written { key, key_base64, payload, client_id, request_id, expected_seq } = written;
        let name = identity(headers, client_id, request_id)?;
        let value = payload.get().as_bytes();
        check_value("payload", value)?;
        Order::of(key_of(key, key_base64)?, value.to_vec(), expected_seq, name)
    }

    /// What is asked for, with a checked key and a checked value.
    pub(crate) fn of(
        key: Option<Vec<u8>>,
        value: Vec<u8>,
        expected_seq: Option<u64>,
        name: Option<IdempotencyKey>,
    ) -> Result<Order, Refusal> {
        Ok(match (key, expected_seq, name) {
            (Some(key), None, name) => Order::Decide { key, value, name },
            (Some(key), Some(expected), name) => Order::DecideIf { key, value, expected, name },
            (None, Some(_), _) => {
                return Err(Problem::BadField
                    .because("expected_seq is given without a key, and counts a key's decisions"));
            }
            (None, None, name) => {
                let key = name.as_ref().map_or_else(fresh_key, IdempotencyKey::to_key);
                Order::DecideOnce { key, value }
            }
        })
    }
}

/// The key of a proposal, if it names one.
fn key_of(key: Option<String>, key_base64: Option<String>) -> Result<Option<Vec<u8>>, Refusal> {
    let wrong = |why: String| Err(Problem::BadField.because(why));
    let key = match (key, key_base64) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return wrong("key and key_base64 are both given; give one of them".into()),
        (Some(key), None) => key.into_bytes(),
        (None, Some(text)) => match BASE64.decode(text.as_bytes()) {
            Ok(key) => key,
            Err(error) => return wrong(format!("key_base64 is no base64 with its padding: {error}")),
        },
    };
    check_own_key(&key)?;
    Ok(Some(key))
}

/// Checks a key that a proposal names.
pub(crate) fn check_own_key(key: &[u8]) -> Result<(), Refusal> {
    check_key(key)?;
    match key.starts_with(REQUEST_KEYS.as_bytes()) {
        false => Ok(()),
        true => {
            let why = format!("keys that begin with {REQUEST_KEYS} belong to requests that name no key");
            Err(Problem::BadField.because(why))
        }
    }
}

/// Checks the length of a value, which senders know by this name.
pub(crate) fn check_value(what: &str, value: &[u8]) -> Result<(), Refusal> {
    match value.len() {
        0..=VALUE_BYTES_MAX => Ok(()),
        length => {
            let why = format!("{what} has {length} bytes, and at most {VALUE_BYTES_MAX} are allowed");
            Err(Problem::TooLarge.because(why))
        }
    }
}

/// Checks the length of a key.
pub(crate) fn check_key(key: &[u8]) -> Result<(), Refusal> {
    match key.len() {
        1..=KEY_BYTES_MAX => Ok(()),
        length => Err(Problem::BadField
            .because(format!("the key has {length} bytes, and 1 to {KEY_BYTES_MAX} are allowed"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Order, Refusal> {
        Order::parse(&HeaderMap::new(), text.as_bytes())
    }

    #[test]
    fn the_payload_is_kept_as_it_was_sent() {
        for payload in
            [r#"{ "b":1,"a" : [1.50, 1e400] }"#, "null", "\"\\u00e9 \\ud83d\"", "12345678901234567890123"]
        {
            let text = format!("{{\"key\":\"k\", \"payload\": {payload} }}");
            let (key, value) = (b"k".to_vec(), payload.as_bytes().to_vec());
            assert_eq!(parse(&text), Ok(Order::Decide { key, value, name: None }));
        }
    }

    #[test]
    fn a_key_is_text_or_bytes() {
        let of = |text: &str| match parse(text).unwrap() {
            Order::Decide { key, .. } => key,
            other => panic!("{other:?}"),
        };
        assert_eq!(of(r#"{"key":"\u00e9","payload":0}"#), "é".as_bytes());
        assert_eq!(of(r#"{"key_base64":"/wA=","payload":0,"client_id":null}"#), [0xff, 0]);
    }

    #[test]
    fn what_is_asked_for_depends_on_what_is_given() {
        let value = b"0".to_vec();
        let once = |key: &str| Ok(Order::DecideOnce { key: key.into(), value: value.clone() });
        let named = r#""client_id":"a","request_id":"b""#;
        assert_eq!(parse(&format!("{{\"payload\":0,{named}}}")), once("isonomy/request/client/a/b"));
        let conditional =
            Order::DecideIf { key: b"k".to_vec(), value: value.clone(), expected: 0, name: None };
        assert_eq!(parse(r#"{"key":"k","payload":0,"expected_seq":0}"#), Ok(conditional));
        assert!(matches!(
            parse(&format!("{{\"key\":\"k\",\"payload\":0,{named}}}")),
            Ok(Order::Decide { name: Some(_), .. })
        ));
        let fresh = parse(r#"{"payload":0}"#).unwrap();
        assert_ne!(fresh, parse(r#"{"payload":0}"#).unwrap());
        let mut headers = HeaderMap::new();
        headers.insert("idempotency-key", "n".parse().unwrap());
        assert_eq!(Order::parse(&headers, br#"{"payload":0}"#), once("isonomy/request/key/n"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let long = format!(r#"{{"key":"{}","payload":0}}"#, "x".repeat(KEY_BYTES_MAX + 1));
        let large = format!(r#"{{"payload":"{}"}}"#, "x".repeat(VALUE_BYTES_MAX - 1));
        for (text, problem, why) in [
            ("", Problem::BadJson, "EOF"),
            ("{\"payload\":0", Problem::BadJson, "EOF"),
            ("{\"payload\":0} x", Problem::BadJson, "trailing"),
            ("{\"payload\":01}", Problem::BadJson, "number"),
            ("[]", Problem::BadField, "an object"),
            ("[null,null,1,null,null,null]", Problem::BadField, "an object"),
            ("{}", Problem::BadField, "missing field `payload`"),
            (r#"{"payload":0,"paylod":1}"#, Problem::BadField, "unknown field `paylod`"),
            (r#"{"payload":0,"payload":1}"#, Problem::BadField, "duplicate field"),
            (r#"{"payload":0,"key":7}"#, Problem::BadField, "expected a string"),
            (r#"{"payload":0,"key":""}"#, Problem::BadField, "0 bytes"),
            (&long, Problem::BadField, "1025 bytes"),
            (&large, Problem::TooLarge, "1048577 bytes"),
            (r#"{"payload":0,"key":"a","key_base64":"YQ=="}"#, Problem::BadField, "both"),
            (r#"{"payload":0,"key_base64":"YQ"}"#, Problem::BadField, "base64"),
            (r#"{"payload":0,"key":"k","expected_seq":-1}"#, Problem::BadField, "-1"),
            (r#"{"payload":0,"expected_seq":1}"#, Problem::BadField, "without a key"),
            (r#"{"payload":0,"key":"isonomy/request/x"}"#, Problem::BadField, "belong to requests"),
        ] {
            let refusal = parse(text).unwrap_err();
            assert_eq!(refusal.problem, problem, "{text}: {}", refusal.why);
            assert!(refusal.why.contains(why), "{}", refusal.why);
        }
        assert_eq!(
            Order::parse(&HeaderMap::new(), b"{\"payload\":\"\xff\"}").unwrap_err().problem,
            Problem::BadJson
        );
    }
}
