//! `/v1/decisions/KEY`: the latest decision of a key, and its end.

use crate::headers::deadline;
use crate::identity::identity;
use crate::json::{self, Key, Payload, Told};
use crate::problem::{Problem, Refusal};
use crate::proposal::check_key;
use crate::router::Rooms;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use percent_encoding::percent_decode_str;

/// What comes before the key.
const PLACE: &str = "/v1/decisions/";

/// The latest decision. It is linearizable, and so no staler than any bound that the query names.
pub(crate) async fn read(State(house): Rooms, headers: HeaderMap, uri: Uri) -> Result<Response, Refusal> {
    let (key, deadline) = (key_of(&uri)?, deadline(&headers)?);
    check_staleness(uri.query())?;
    let _place = house.enter()?;
    let found = house.cluster.read(key.clone(), deadline).await?.ok_or_else(missing)?;
    let told = Told {
        key: Key::of(&key),
        key_seq: found.key_seq,
        command_id: found.id.to_string(),
        status: None,
        payload: Payload::of(&found.value),
    };
    Ok(json::answer(json::line(&told)))
}

/// Ends the key's life, so that its next decision has number 1.
pub(crate) async fn delete(State(house): Rooms, headers: HeaderMap, uri: Uri) -> Result<Response, Refusal> {
    let (key, deadline) = (key_of(&uri)?, deadline(&headers)?);
    let name = identity(&headers, None, None)?;
    let _place = house.enter()?;
    let deleted = house.cluster.delete(key.clone(), name, deadline).await?.ok_or_else(missing)?;
    let told = Told {
        key: Key::of(&key),
        key_seq: deleted.key_seq,
        command_id: deleted.id.to_string(),
        status: Some("deleted"),
        payload: Payload::default(),
    };
    Ok(json::answer(json::line(&told)))
}

pub(crate) fn missing() -> Refusal {
    Problem::NoDecision.because("this key has no decision")
}

/// The bytes of the key in a path, which may be percent-encoded.
fn key_of(uri: &Uri) -> Result<Vec<u8>, Refusal> {
    let encoded = uri.path().strip_prefix(PLACE).expect("the route leads here");
    let key: Vec<u8> = percent_decode_str(encoded).collect();
    check_key(&key)?;
    Ok(key)
}

fn check_staleness(query: Option<&str>) -> Result<(), Refusal> {
    for part in query.unwrap_or_default().split('&') {
        let Some(text) = part.strip_prefix("max_staleness_ms=") else { continue };
        if text.parse::<u64>().is_err() {
            return Err(Problem::BadQuery.because("max_staleness_ms is no number of milliseconds"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_a_path_is_any_bytes() {
        let key = |path: &str| key_of(&path.parse().unwrap());
        assert_eq!(key("/v1/decisions/order/17").unwrap(), b"order/17");
        assert_eq!(key("/v1/decisions/order%2F17%20%FF?x").unwrap(), b"order/17 \xff");
        assert_eq!(key("/v1/decisions/100%").unwrap(), b"100%");
        let long = format!("/v1/decisions/{}", "x".repeat(1025));
        assert_eq!(key(&long).unwrap_err().problem, Problem::BadField);
    }

    #[test]
    fn a_staleness_is_a_number() {
        for query in [None, Some("max_staleness_ms=0"), Some("a&max_staleness_ms=500")] {
            assert_eq!(check_staleness(query), Ok(()));
        }
        for query in ["max_staleness_ms=", "max_staleness_ms=-1", "max_staleness_ms=1s"] {
            assert_eq!(check_staleness(Some(query)).unwrap_err().problem, Problem::BadQuery);
        }
    }
}
