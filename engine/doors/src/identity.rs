//! The name of a request, under which its repetition is known.

use crate::headers::value;
use crate::limits::ID_BYTES_MAX;
use crate::problem::{Problem, Refusal};
use axum::http::HeaderMap;

/// The keys that begin so belong to requests without a key of their own; see docs/HTTP.md.
pub(crate) const REQUEST_KEYS: &str = "isonomy/request/";

/// The field of a request's name (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The name that a sender gives to a request. docs/HTTP.md says for how long the name stands for that request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum IdempotencyKey {
    /// One text, such as the header field `Idempotency-Key`.
    Single(String),
    /// From `client_id` and `request_id`.
    Pair { client_id: String, request_id: String },
}

impl IdempotencyKey {
    /// A name of one text, which senders give by a field of this name.
    pub(crate) fn single(what: &str, text: String) -> Result<IdempotencyKey, String> {
        check(what, &text)?;
        Ok(IdempotencyKey::Single(text))
    }

    /// A name in two parts.
    pub(crate) fn pair(client_id: String, request_id: String) -> Result<IdempotencyKey, String> {
        check("client_id", &client_id)?;
        check("request_id", &request_id)?;
        Ok(IdempotencyKey::Pair { client_id, request_id })
    }

    /// The key of the decision of a request that names no key.
    pub(crate) fn to_key(&self) -> String {
        match self {
            IdempotencyKey::Single(key) => format!("{REQUEST_KEYS}key/{key}"),
            IdempotencyKey::Pair { client_id, request_id } => {
                let client_id = client_id.replace('%', "%25").replace('/', "%2F");
                format!("{REQUEST_KEYS}client/{client_id}/{request_id}")
            }
        }
    }
}

/// The key of a request without a key and without a name, which is none other's.
pub(crate) fn fresh_key() -> String {
    format!("{REQUEST_KEYS}random/{:032x}", rand::random::<u128>())
}

/// The name of a request, if it has one.
pub(crate) fn identity(
    headers: &HeaderMap,
    client_id: Option<String>,
    request_id: Option<String>,
) -> Result<Option<IdempotencyKey>, Refusal> {
    let header = value(headers, IDEMPOTENCY_KEY)?.map(unquoted).transpose()?;
    let pair = match (client_id, request_id) {
        (None, None) => None,
        (Some(client_id), Some(request_id)) => {
            let pair = IdempotencyKey::pair(client_id, request_id);
            Some(pair.map_err(|why| Problem::BadField.because(why))?)
        }
        _ => {
            return Err(Problem::BadField
                .because("client_id and request_id name a request together, and one is missing"));
        }
    };
    match (header, pair) {
        (Some(_), Some(_)) => Err(Problem::BadField.because(
            "the request has two names: Idempotency-Key, and client_id with request_id; give one of them",
        )),
        (header, pair) => Ok(header.or(pair)),
    }
}

/// The draft has the name in quotes; many senders leave them out.
fn unquoted(text: &str) -> Result<IdempotencyKey, Refusal> {
    let wrong = |why: String| Problem::BadHeader.because(why);
    let bare = match text.strip_prefix('"') {
        None => text,
        Some(rest) => rest
            .strip_suffix('"')
            .filter(|inner| !inner.contains(['"', '\\']))
            .ok_or_else(|| wrong("Idempotency-Key has quotes or backslashes inside".into()))?,
    };
    IdempotencyKey::single("Idempotency-Key", bare.into()).map_err(wrong)
}

fn check(what: &str, id: &str) -> Result<(), String> {
    match id.len() {
        1..=ID_BYTES_MAX => Ok(()),
        length => Err(format!("{what} has {length} bytes, and 1 to {ID_BYTES_MAX} are allowed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_wire::command::KEY_BYTES_MAX;

    fn of(
        header: Option<&str>,
        pair: (Option<&str>, Option<&str>),
    ) -> Result<Option<IdempotencyKey>, Refusal> {
        let mut headers = HeaderMap::new();
        header.map(|text| headers.insert("idempotency-key", text.parse().unwrap()));
        identity(&headers, pair.0.map(Into::into), pair.1.map(Into::into))
    }

    #[test]
    fn a_request_has_one_name_or_none() {
        assert_eq!(of(None, (None, None)), Ok(None));
        let named = Ok(Some(IdempotencyKey::Single("8e03978e".into())));
        assert_eq!(
            (of(Some("\"8e03978e\""), (None, None)), of(Some("8e03978e"), (None, None))),
            (named.clone(), named)
        );
        let pair = of(None, (Some("shop"), Some("17"))).unwrap().unwrap();
        assert_eq!(pair.to_key(), "isonomy/request/client/shop/17");
        let long = "x".repeat(ID_BYTES_MAX + 1);
        for (header, pair, problem) in [
            (Some("a"), (Some("b"), Some("c")), Problem::BadField),
            (None, (Some("b"), None), Problem::BadField),
            (None, (None, Some("c")), Problem::BadField),
            (None, (Some(""), Some("c")), Problem::BadField),
            (None, (Some("b"), Some(&*long)), Problem::BadField),
            (Some(&*long), (None, None), Problem::BadHeader),
            (Some("\"a"), (None, None), Problem::BadHeader),
            (Some("\"a\"b\""), (None, None), Problem::BadHeader),
            (Some("\"\""), (None, None), Problem::BadHeader),
        ] {
            assert_eq!(of(header, pair).unwrap_err().problem, problem, "{header:?} {pair:?}");
        }
    }

    #[test]
    fn names_that_differ_have_keys_that_differ_and_fit() {
        let pair =
            |client: &str, request: &str| of(None, (Some(client), Some(request))).unwrap().unwrap().to_key();
        assert_ne!(pair("a", "b/c"), pair("a/b", "c"));
        assert_ne!(pair("a%2Fb", "c"), pair("a/b", "c"));
        assert_ne!(of(Some("a/b"), (None, None)).unwrap().unwrap().to_key(), pair("a", "b"));
        let longest = pair(&"/".repeat(ID_BYTES_MAX), &"x".repeat(ID_BYTES_MAX));
        assert!(longest.len() <= KEY_BYTES_MAX, "{}", longest.len());
        assert_ne!(fresh_key(), fresh_key());
    }
}
