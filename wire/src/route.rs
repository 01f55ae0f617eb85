//! The place of a key: its hash, its shard and the replica that should coordinate it.

use crate::id::{ReplicaId, ShardId};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The version of the hash and the conflict rule below. Replicas that disagree on either must not talk to
/// each other (trap B12), so the hello compares the version.
pub const RULE_VERSION: u32 = 2;

/// The hash of a key: XXH3, 64 bits, no seed.
#[inline]
pub fn hash_key(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The shard of a key: the high part of `hash * shards`.
#[inline]
pub fn shard_of(hash: u64, shards: u16) -> ShardId {
    ShardId(((u128::from(hash) * u128::from(shards)) >> 64) as u16)
}

/// The replica that should coordinate a key, by rendezvous hashing over `replicas` members.
///
/// When all clients follow this choice, conflicts come from one row and the fast path stays near 100 %.
/// The choice is a hint: any replica takes any key.
#[inline]
pub fn home_of(hash: u64, replicas: u8) -> ReplicaId {
    let mut best = (0, 0);
    for replica in 0..replicas {
        // A multiplication by an odd constant per replica and a fold mix well, take a few instructions, and give the
        // same result at every client and replica.
        let mixed = u128::from(hash ^ HOME_SALT[replica as usize]) * u128::from(HOME_SALT[0]);
        let score = (mixed >> 64) as u64 ^ mixed as u64;
        if score >= best.0 {
            best = (score, replica);
        }
    }
    ReplicaId(best.1)
}

/// Odd constants from the fractional digits of the square roots of the first primes.
const HOME_SALT: [u64; crate::id::REPLICAS_MAX] = [
    0x6a09_e667_f3bc_c909,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
    0xcbbb_9d5d_c105_9ed9,
];

/// The hash of a session in a footprint. The seed of the hash keeps sessions apart from keys.
#[inline]
pub fn hash_session(session: crate::id::SessionId) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&session.high.to_le_bytes());
    bytes[8..].copy_from_slice(&session.low.to_le_bytes());
    xxh3_64_with_seed(&bytes, 0x7374_7265_616d)
}

/// The hash that every batch reads and a barrier writes, so that a barrier conflicts with everything by the one
/// conflict rule (G4).
pub const BARRIER_HASH: u64 = 0x6665_6e63_6566_6566;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_and_shards_are_spread_evenly() {
        let keys = 30_000u32;
        for replicas in 1..=9u8 {
            let mut homes = vec![0u32; replicas as usize];
            let mut shards = [0u32; 7];
            for key in 0..keys {
                let hash = hash_key(&key.to_le_bytes());
                homes[home_of(hash, replicas).index()] += 1;
                shards[shard_of(hash, 7).0 as usize] += 1;
            }
            let fair = keys / u32::from(replicas);
            assert!(homes.iter().all(|n| n.abs_diff(fair) < fair / 8), "{replicas}: {homes:?}");
            assert!(shards.iter().all(|n| n.abs_diff(keys / 7) < keys / 56), "{shards:?}");
        }
    }

    #[test]
    fn a_new_member_takes_keys_only_for_itself() {
        for key in 0..10_000u32 {
            let hash = hash_key(&key.to_le_bytes());
            let (before, after) = (home_of(hash, 4), home_of(hash, 5));
            assert!(after == before || after == ReplicaId(4));
        }
    }

    #[test]
    fn the_hash_is_the_documented_one() {
        // XXH3-64 of the empty input, from the reference implementation.
        assert_eq!(hash_key(b""), 0x2d06_8005_38d3_94c2);
    }
}
