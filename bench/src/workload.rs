//! Which commands come: keys, values and the mix of reads, all from one seed.

use crate::options::{Distribution, Options};
use isonomy_wire::session::Action;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use rand_distr::{Distribution as _, Zipf};

/// Keys are "decision" and eight hexadecimal digits.
pub(crate) const KEY_BYTES: usize = 16;

/// Makes one command after the other, without allocating.
pub(crate) struct Workload {
    random: SmallRng,
    keys: u64,
    zipf: Option<Zipf<f64>>,
    /// A command is a read if 32 random bits are below this.
    reads_below: u64,
    key: [u8; KEY_BYTES],
    value: Vec<u8>,
    made: u64,
}

impl Workload {
    /// The commands of one thread; each thread has others.
    pub(crate) fn new(options: &Options, thread: u64) -> Workload {
        let zipf = match options.distribution {
            Distribution::Uniform => None,
            Distribution::Zipf(theta) => {
                Some(Zipf::new(options.keys as f64, theta).expect("the options were checked"))
            }
        };
        let mut random = SmallRng::seed_from_u64(options.seed ^ (thread << 48));
        let mut value = vec![0; options.value_bytes as usize];
        random.fill_bytes(&mut value);
        Workload {
            random,
            keys: options.keys,
            zipf,
            reads_below: (u64::from(options.reads) << 32) / 100,
            key: *b"decision00000000",
            value,
            made: 0,
        }
    }

    /// The next command.
    #[inline]
    pub(crate) fn next(&mut self) -> Action<'_> {
        let bits = self.random.next_u64();
        let index = match self.zipf {
            // The high half chooses the key, the low half whether it is read.
            None => ((bits >> 32) * self.keys) >> 32,
            Some(zipf) => zipf.sample(&mut self.random) as u64 - 1,
        };
        write_hex(&mut self.key, index as u32);
        if bits & 0xffff_ffff < self.reads_below {
            return Action::Read { key: &self.key };
        }
        // Values differ, so that nothing can be taken for an older decision.
        self.made += 1;
        let length = self.value.len().min(8);
        self.value[..length].copy_from_slice(&self.made.to_le_bytes()[..length]);
        Action::Decide { key: &self.key, value: &self.value }
    }
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

    /// How often each key comes in so many commands, and how many are reads.
    fn count(workload: &mut Workload, commands: u32) -> (BTreeMap<Vec<u8>, u32>, u32) {
        let (mut keys, mut reads) = (BTreeMap::new(), 0);
        for _ in 0..commands {
            let key = match workload.next() {
                Action::Read { key } => {
                    reads += 1;
                    key
                }
                Action::Decide { key, value } => {
                    assert_eq!(value.len(), 48);
                    key
                }
                other => panic!("{other:?}"),
            };
            *keys.entry(key.to_vec()).or_default() += 1;
        }
        (keys, reads)
    }

    #[test]
    fn uniform_keys_come_alike_and_reads_as_often_as_asked() {
        let (keys, reads) = count(&mut workload("--keys 50 --reads 30"), 50_000);
        assert_eq!(keys.len(), 50);
        assert_eq!(keys.first_key_value().unwrap().0, b"decision00000000");
        assert_eq!(keys.last_key_value().unwrap().0, b"decision00000031");
        assert!(keys.values().all(|count| count.abs_diff(1000) < 200), "{keys:?}");
        assert!(reads.abs_diff(15_000) < 500, "{reads}");
        assert_eq!(count(&mut workload("--reads 0"), 1000).1, 0);
        assert_eq!(count(&mut workload("--reads 100"), 1000).1, 1000);
    }

    #[test]
    fn zipf_keys_come_by_their_rank() {
        let (keys, _) = count(&mut workload("--keys 1000 --distribution zipf:1"), 100_000);
        let of = |index: u32| keys[format!("decision{index:08x}").as_bytes()];
        // The harmonic number of 1000 is 7.49.
        assert!(of(0).abs_diff(13_360) < 700, "{}", of(0));
        assert!(of(1).abs_diff(6_680) < 500, "{}", of(1));
        assert!(of(9).abs_diff(1_336) < 250, "{}", of(9));
        assert!(keys.keys().all(|key| key <= &b"decision000003e7".to_vec()));
    }

    #[test]
    fn one_seed_gives_the_same_commands() {
        let keys = |arguments| count(&mut workload(arguments), 100).0;
        assert_eq!(keys("--seed 5"), keys("--seed 5"));
        assert_ne!(keys("--seed 5"), keys("--seed 6"));
    }
}
