//! Requests as the load generator makes them: 1024 commands of 64 bytes.

use bytes::Bytes;
use isonomy_protocol::payload::Payload;
use isonomy_wire::command::{Numbering, RequestBuilder};
use isonomy_wire::id::SessionId;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

pub(crate) const COMMANDS: usize = 1024;
const VALUE: [u8; 48] = [7; 48];

fn key(index: u64) -> [u8; 16] {
    let mut key = *b"decision\0\0\0\0\0\0\0\0";
    key[8..].copy_from_slice(&index.to_be_bytes());
    key
}

/// One request with random keys.
pub(crate) fn request(builder: &mut RequestBuilder, random: &mut SmallRng, keys: u64, first: u64) -> Bytes {
    for _ in 0..COMMANDS {
        builder.decide(&key(random.random_range(0..keys)), &VALUE).expect("it is legal");
    }
    builder.encode(SessionId::named("bench"), Numbering { first, answered_below: first })
}

fn parse(bytes: Bytes) -> Payload {
    let crc = crc32c::crc32c(&bytes);
    Payload::parse(bytes, crc).expect("it is legal")
}

/// Payloads with random keys, numbered one after the other.
pub(crate) fn payloads(count: u64, keys: u64) -> Vec<Payload> {
    let (mut builder, mut random) = (RequestBuilder::default(), SmallRng::seed_from_u64(1));
    let first = |n| 1 + n * COMMANDS as u64;
    (0..count).map(|n| parse(request(&mut builder, &mut random, keys, first(n)))).collect()
}
