//! The commands: keys, values and the mix, all from one seed.

use crate::options::Options;
use isonomy_wire::conversation::Action;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use rand_distr::{Distribution as _, Zipf};

use super::shape::Distribution;

/// Keys are "decision" and eight hexadecimal digits.
pub(crate) const KEY_BYTES: usize = 16;

/// Makes one command after the other, without allocating.
pub(crate) struct Workload {
    random: SmallRng,
    keys: Keys,
    /// A command is a read if 32 random bits are below `reads_below`, and else a DecideIf if they are below
    /// `decide_ifs_below`.
    reads_below: u64,
    decide_ifs_below: u64,
    key: [u8; KEY_BYTES],
    value: Vec<u8>,
    made: u64,
}

/// How the index of a key is drawn.
enum Keys {
    Uniform(u64),
    Zipf(Zipf<f64>),
    /// One of the first `hot` keys is drawn if 32 random bits are below `below`.
    Hot {
        hot: u64,
        below: u64,
        keys: u64,
    },
}

/// The operation of a command, without its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    Decide,
    DecideIf { expected: u64 },
    Read,
}

/// The command that was made last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    /// The index of the key.
    pub(crate) key: u32,
    pub(crate) op: Op,
}

impl Workload {
    /// The commands of one thread; each thread has different ones.
    pub(crate) fn new(options: &Options, thread: u64) -> Workload {
        let keys = match options.distribution {
            Distribution::Uniform => Keys::Uniform(options.keys),
            Distribution::Zipf(theta) => {
                Keys::Zipf(Zipf::new(options.keys as f64, theta).expect("the options were checked"))
            }
            Distribution::Hot { keys, share } => {
                Keys::Hot { hot: keys, below: share_of_32_bits(share), keys: options.keys }
            }
        };
        let mut random = SmallRng::seed_from_u64(options.seed ^ (thread << 48));
        let mut value = vec![0; options.value_bytes as usize];
        random.fill_bytes(&mut value);
        Workload {
            random,
            keys,
            reads_below: share_of_32_bits(options.reads),
            decide_ifs_below: share_of_32_bits(options.reads + options.decide_ifs),
            key: *b"decision00000000",
            value,
            made: 0,
        }
    }

    /// The next command; `known` tells the number of a key's latest decision, as far as was heard.
    #[inline]
    pub(crate) fn next(&mut self, known: impl FnOnce(u32) -> u64) -> (Made, Action<'_>) {
        let bits = self.random.next_u64();
        // The high half of the bits chooses the key, and the low half the operation.
        let high = bits >> 32;
        let key = match &self.keys {
            Keys::Uniform(keys) => (high * keys) >> 32,
            Keys::Zipf(zipf) => zipf.sample(&mut self.random) as u64 - 1,
            Keys::Hot { hot, below, keys } => {
                if self.random.next_u64() >> 32 < *below {
                    (high * hot) >> 32
                } else {
                    hot + ((high * (keys - hot)) >> 32)
                }
            }
        } as u32;
        write_hex(&mut self.key, key);
        let low = bits & 0xffff_ffff;
        if low < self.reads_below {
            return (Made { key, op: Op::Read }, Action::Read { key: &self.key });
        }
        // Values differ, so that nothing can be taken for an older decision.
        self.made += 1;
        let length = self.value.len().min(8);
        self.value[..length].copy_from_slice(&self.made.to_le_bytes()[..length]);
        if low < self.decide_ifs_below {
            let expected = known(key);
            let action = Action::DecideIf { key: &self.key, value: &self.value, expected };
            return (Made { key, op: Op::DecideIf { expected } }, action);
        }
        (Made { key, op: Op::Decide }, Action::Decide { key: &self.key, value: &self.value })
    }
}

/// The text of a key.
pub(crate) fn key_name(index: u32) -> String {
    format!("decision{index:08x}")
}

fn share_of_32_bits(percent: u8) -> u64 {
    (u64::from(percent) << 32) / 100
}

#[inline]
fn write_hex(key: &mut [u8; KEY_BYTES], index: u32) {
    for (pair, byte) in key[8..].chunks_exact_mut(2).zip(index.to_be_bytes()) {
        pair.copy_from_slice(&HEX[usize::from(byte)]);
    }
}

/// Two digits for every byte.
const HEX: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::tests::parsed;
    use std::collections::BTreeMap;

    fn workload(arguments: &str) -> Workload {
        Workload::new(&parsed(arguments), 0)
    }

    /// How often each key comes in so many commands, and how many are reads and DecideIfs.
    fn count(workload: &mut Workload, commands: u32) -> (BTreeMap<Vec<u8>, u32>, [u32; 2]) {
        let (mut keys, mut shares) = (BTreeMap::new(), [0; 2]);
        for _ in 0..commands {
            let (made, action) = workload.next(|key| u64::from(key) + 7);
            let key = match action {
                Action::Read { key } => {
                    shares[0] += 1;
                    key
                }
                Action::DecideIf { key, expected, .. } => {
                    assert_eq!(expected, u64::from(made.key) + 7);
                    shares[1] += 1;
                    key
                }
                Action::Decide { key, value } => {
                    assert_eq!(value.len(), 48);
                    key
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(key, key_name(made.key).as_bytes());
            *keys.entry(key.to_vec()).or_default() += 1;
        }
        (keys, shares)
    }

    #[test]
    fn uniform_keys_come_alike_and_each_op_as_often_as_asked() {
        let (keys, [reads, ifs]) = count(&mut workload("--keys 50 --reads 30 --decide-ifs 20"), 50_000);
        assert_eq!(keys.len(), 50);
        assert_eq!(keys.first_key_value().unwrap().0, b"decision00000000");
        assert_eq!(keys.last_key_value().unwrap().0, b"decision00000031");
        assert!(keys.values().all(|count| count.abs_diff(1000) < 200), "{keys:?}");
        assert!(reads.abs_diff(15_000) < 500 && ifs.abs_diff(10_000) < 500, "{reads} {ifs}");
        assert_eq!(count(&mut workload("--reads 0"), 1000).1, [0, 0]);
        assert_eq!(count(&mut workload("--reads 100"), 1000).1, [1000, 0]);
        assert_eq!(count(&mut workload("--decide-ifs 100"), 1000).1, [0, 1000]);
    }

    #[test]
    fn zipf_keys_come_by_their_rank() {
        let (keys, _) = count(&mut workload("--keys 1000 --distribution zipf:1"), 100_000);
        let of = |index: u32| keys[key_name(index).as_bytes()];
        // The harmonic number of 1000 is 7.49.
        assert!(of(0).abs_diff(13_360) < 700, "{}", of(0));
        assert!(of(1).abs_diff(6_680) < 500, "{}", of(1));
        assert!(of(9).abs_diff(1_336) < 250, "{}", of(9));
        assert!(keys.keys().all(|key| key <= &b"decision000003e7".to_vec()));
    }

    #[test]
    fn hot_keys_get_their_share_and_the_others_the_rest() {
        let (keys, _) = count(&mut workload("--keys 20 --distribution hot:4:80"), 40_000);
        assert_eq!(keys.len(), 20);
        let of = |index: u32| keys[key_name(index).as_bytes()];
        assert!((0..4).all(|key| of(key).abs_diff(8000) < 500), "{keys:?}");
        assert!((4..20).all(|key| of(key).abs_diff(500) < 120), "{keys:?}");
    }

    #[test]
    fn one_seed_gives_the_same_commands() {
        let keys = |arguments| count(&mut workload(arguments), 100).0;
        assert_eq!(keys("--seed 5"), keys("--seed 5"));
        assert_ne!(keys("--seed 5"), keys("--seed 6"));
    }
}
