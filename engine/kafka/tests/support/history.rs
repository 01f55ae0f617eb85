//! What a shard decides, and the orders in which its replicas execute it.

use super::PUBLICATION;
use isonomy_wire::id::{Epoch, InstanceId, ReplicaId};
use isonomy_wire::published::{Decision, Effect, Origin, PublishedBuilder};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;

const ROWS: u8 = 3;
const KEYS_PER_ROW: u32 = 4;

/// One decision: its id, `key_seq`, and value, which is missing if the key's life has ended.
pub(crate) type Expected = (String, u64, Option<Vec<u8>>);
/// The decisions of each key, in order.
pub(crate) type Decisions = BTreeMap<Vec<u8>, Vec<Expected>>;

/// Batches that execute together: one, or a component of several.
#[derive(Clone)]
pub(crate) struct Unit {
    rows: Vec<u8>,
    epoch: u32,
    pub(crate) batches: Vec<Vec<u8>>,
}

/// A history, in one order of execution.
#[derive(Clone)]
pub(crate) struct History {
    pub(crate) units: Vec<Unit>,
    pub(crate) decisions: Decisions,
}

impl History {
    /// A history of so many units. A batch decides keys of its row only; a component decides a key that all rows share, so
    /// that its place among all batches of its rows is fixed. In the last quarter another epoch has begun.
    pub(crate) fn new(seed: u64, units: usize) -> History {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut maker = Maker::default();
        for number in 0..units {
            if number == units * 3 / 4 {
                maker.begin_epoch();
            }
            let rows: Vec<u8> = if random.random_bool(0.2) {
                (0..ROWS).collect()
            } else {
                vec![random.random_range(0..ROWS)]
            };
            maker.unit(&mut random, rows);
        }
        History { units: maker.units, decisions: maker.decisions }
    }

    /// The same in another order of execution: units that have no row in common may change places.
    pub(crate) fn reordered(&self, seed: u64) -> History {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut units = self.units.clone();
        for _ in 0..20 * units.len() {
            let at = random.random_range(0..units.len() - 1);
            let (first, second) = (&units[at], &units[at + 1]);
            if first.epoch == second.epoch && !first.rows.iter().any(|row| second.rows.contains(row)) {
                units.swap(at, at + 1);
            }
        }
        History { units, decisions: self.decisions.clone() }
    }

    /// The batches, as an outbox has them.
    pub(crate) fn batches(&self) -> Vec<Vec<u8>> {
        self.units.iter().flat_map(|unit| unit.batches.clone()).collect()
    }

    /// How many decisions there are.
    pub(crate) fn len(&self) -> u64 {
        self.decisions.values().map(|decisions| decisions.len() as u64).sum()
    }

    /// How many batches lie before the first component of several batches of the second half.
    pub(crate) fn before_a_component(&self) -> usize {
        let half = self.units.len() / 2;
        let at = (half..self.units.len()).find(|&at| self.units[at].batches.len() > 1).unwrap();
        self.units[..at].iter().map(|unit| unit.batches.len()).sum()
    }
}

struct Maker {
    epoch: u32,
    seqs: [u64; ROWS as usize],
    alive: BTreeMap<Vec<u8>, u64>,
    units: Vec<Unit>,
    decisions: Decisions,
}

impl Default for Maker {
    fn default() -> Maker {
        Maker {
            epoch: 1,
            seqs: [0; 3],
            alive: BTreeMap::new(),
            units: Vec::new(),
            decisions: Decisions::new(),
        }
    }
}

impl Maker {
    fn begin_epoch(&mut self) {
        self.epoch += 1;
        self.seqs = [0; ROWS as usize];
    }

    fn unit(&mut self, random: &mut SmallRng, rows: Vec<u8>) {
        let mut batches = Vec::new();
        for &row in &rows {
            // Instances that change nothing have no batch.
            self.seqs[usize::from(row)] += random.random_range(1..3);
            let origin = Origin {
                cluster: PUBLICATION.cluster,
                shard: PUBLICATION.shard,
                epoch: Epoch(self.epoch),
                instance: InstanceId::new(ReplicaId(row), self.seqs[usize::from(row)]),
                has_more: Some(&row) != rows.last(),
            };
            batches.push(self.batch(random, &origin, rows.len() > 1));
        }
        self.units.push(Unit { rows, epoch: self.epoch, batches });
    }

    fn batch(&mut self, random: &mut SmallRng, origin: &Origin, is_shared: bool) -> Vec<u8> {
        let mut builder = PublishedBuilder::default();
        for index in 0..random.random_range(1..8) {
            let row = origin.instance.row;
            let key = if is_shared {
                "all".into()
            } else {
                format!("{row}-{}", random.random_range(0..KEYS_PER_ROW))
            };
            self.decision(random, origin, index, key.into_bytes(), &mut builder);
        }
        builder.finish(origin).unwrap().to_vec()
    }

    fn decision(
        &mut self,
        random: &mut SmallRng,
        origin: &Origin,
        index: u16,
        key: Vec<u8>,
        builder: &mut PublishedBuilder,
    ) {
        let id = origin.command(u32::from(index)).to_string();
        let before = self.alive.get(&key).copied().unwrap_or(0);
        let ends = before > 0 && random.random_bool(0.1);
        let value: Vec<u8> =
            (0..random.random_range(0..100)).map(|_| *b"abcdef".choose(random).unwrap()).collect();
        let (effect, key_seq) = match ends {
            true => (Effect::Deleted { key_seq: before }, before),
            false => (Effect::Decided { key_seq: before + 1 }, before + 1),
        };
        self.alive.insert(key.clone(), if ends { 0 } else { key_seq });
        let bytes = if ends { &[][..] } else { &value };
        builder.push(&Decision { index, effect, key: &key, value: bytes });
        self.decisions.entry(key).or_default().push((id, key_seq, (!ends).then_some(value)));
    }
}
