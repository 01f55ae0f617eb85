//! Decisions and health by gRPC. docs/GRPC.md is the contract, and wire/proto its description for generators of clients.

mod body;
mod calls;
mod connection;
mod health;
mod proposals;
mod refusal;
mod service;
mod watch;
mod words;

pub(crate) use connection::serve;

use crate::limits::DEADLINE_MAX;
use crate::problem::{Problem, Refusal};
use std::time::Duration;
use tonic::metadata::MetadataMap;

/// What protobuf describes.
#[allow(missing_docs, unreachable_pub, clippy::all)]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/isonomy.v1.rs"));
}

/// The same for reflection.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/isonomy.bin"));

/// How long the sender of a call wants to wait, if it says so.
fn patience(metadata: &MetadataMap) -> Result<Option<Duration>, Refusal> {
    let Some(text) = metadata.get("grpc-timeout") else { return Ok(None) };
    let parsed = text.to_str().ok().and_then(parse_timeout);
    parsed.map(Some).ok_or_else(|| {
        Problem::BadField
            .because("grpc-timeout is not up to eight digits and one of the units H, M, S, m, u, n")
    })
}

/// The longest time for a decision or a read.
fn deadline(metadata: &MetadataMap) -> Result<Duration, Refusal> {
    Ok(patience(metadata)?.map_or(DEADLINE_MAX, |patience| patience.min(DEADLINE_MAX)))
}

fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(3600 * count),
        "M" => Duration::from_secs(60 * count),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_digits_and_a_unit_and_caps_at_the_longest_deadline() {
        let of = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            deadline(&metadata)
        };
        assert_eq!(deadline(&MetadataMap::new()), Ok(DEADLINE_MAX));
        for (text, micros) in
            [("250m", 250_000), ("1S", 1_000_000), ("7u", 7), ("4000n", 4), ("99999999H", 5_000_000)]
        {
            assert_eq!(of(text), Ok(Duration::from_micros(micros)), "{text}");
        }
        for text in ["", "1", "m", "1s", "123456789m", "-1S", "1.5S", "é"] {
            assert!(parse_timeout(text).is_none(), "{text}");
        }
        assert_eq!(of("soon").unwrap_err().problem, Problem::BadField);
    }
}
