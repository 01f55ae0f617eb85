//! Conflicts of instances (law, sections 2 and 3): the rule, and the index that applies it.

use crate::blocks::Blocks;
use crate::mutant::{self, Mutant};
use crate::payload::{Access, Payload};
use crate::state::{Place, Spot};
use crate::table::{Halves, Table};
use isonomy_wire::deps::Deps;
use isonomy_wire::id::{InstanceId, ReplicaId};

/// How many accesses ahead the index is prefetched, enough to hide a miss of the last cache.
const PREFETCH_DISTANCE: usize = 32;
/// The number of wide entries per block, which takes 1.75 MiB.
const BLOCK_WIDES: usize = 16 << 10;

/// cf(a, b): whether a hash is in both footprints and at least one side writes it. This is the only conflict
/// rule, since C1, C2 and R4 must never disagree (trap B12).
pub fn conflicts(a: &Payload, b: &Payload) -> bool {
    Touched::by(a).conflicts_with(b)
}

/// One side of the rule, made ready to be compared with many others.
#[derive(Clone, Debug)]
pub struct Touched {
    /// The accesses in the order of their hashes. Each hash occurs once, as a write if any access writes it.
    accesses: Vec<Access>,
}

impl Touched {
    /// The accesses of a batch.
    pub fn by(payload: &Payload) -> Touched {
        let mut accesses = payload.footprint().to_vec();
        // A write sorts behind a read of the same hash. In reverse order the write comes first, and `dedup` keeps it.
        accesses.sort_unstable_by(|a, b| b.cmp(a));
        accesses.dedup_by_key(|access| access.hash());
        accesses.reverse();
        Touched { accesses }
    }

    /// cf of the two batches.
    pub fn conflicts_with(&self, other: &Payload) -> bool {
        other.footprint().iter().any(|theirs| {
            let place = self.accesses.binary_search_by_key(&theirs.hash(), |mine| mine.hash());
            place.is_ok_and(|place| theirs.writes() || self.accesses[place].writes())
        })
    }
}

/// The index's entry for one hash.
#[derive(Clone, Copy, Debug, Default)]
struct HashEntry {
    /// Nothing, the last write of the only row that touched the hash, or a place in the table of wide
    /// entries. Nearly all keys are written by their home alone.
    last: Halves,
    /// The last known place of the key in the state, where the shard looks first when it executes.
    place: Place,
}

/// The number of entries that fit a cache line with their hashes.
const LINE_ENTRIES: usize = 3;

const WIDE: u64 = 1 << 63;
const ROW_SHIFT: u32 = 56;
const SEQ_MASK: u64 = (1 << ROW_SHIFT) - 1;

/// What an index entry records of a hash: the form that [`HashEntry`] packs into 64 bits.
enum LastTouch {
    Nothing,
    Write(InstanceId),
    Wide(usize),
}

impl HashEntry {
    #[inline]
    fn last_touch(self) -> LastTouch {
        let last = self.last.joined();
        if last == 0 {
            LastTouch::Nothing
        } else if last & WIDE == 0 {
            LastTouch::Write(InstanceId::new(ReplicaId((last >> ROW_SHIFT) as u8), last & SEQ_MASK))
        } else {
            LastTouch::Wide((last & !WIDE) as usize)
        }
    }

    #[inline]
    fn set(&mut self, touch: LastTouch) {
        let last = match touch {
            LastTouch::Nothing => 0,
            LastTouch::Write(id) => {
                debug_assert!(id.seq <= SEQ_MASK);
                u64::from(id.row.0) << ROW_SHIFT | id.seq
            }
            LastTouch::Wide(place) => WIDE | place as u64,
        };
        self.last = Halves::of(last);
    }
}

/// The last write and the last read of every row.
#[derive(Clone, Copy, Debug, Default)]
struct Wide {
    writes: Deps,
    reads: Deps,
}

/// The conflicts and places that the index knew for a batch before it learnt the batch.
#[derive(Debug)]
pub struct Learnt {
    /// known(batch). The entry of the id's own row is not meaningful; the rules set it.
    pub deps: Deps,
    /// The places of the keys, and of all else that the batch touches, in the order of the footprint.
    pub places: Box<[Place]>,
}

/// The last write and the last read per hash and row. The index is monotone: no id ever leaves it, whatever the
/// outcome of its instance (trap B8).
#[derive(Clone, Debug, Default)]
pub struct Index {
    table: Table<HashEntry, LINE_ENTRIES>,
    wides: Blocks<Wide, BLOCK_WIDES>,
    barriers: Deps,
}

impl Index {
    /// Returns known(batch), and adds the batch as `id`: C1 and C2.
    pub fn learn(&mut self, id: InstanceId, payload: &Payload) -> Learnt {
        let mut deps = Deps::NONE;
        if payload.is_barrier() {
            self.barriers.add(id);
        }
        let footprint = payload.footprint();
        for ahead in footprint.iter().take(PREFETCH_DISTANCE) {
            self.table.prefetch(ahead.hash());
        }
        let footprint = if mutant::is(Mutant::SessionsOutside) { payload.keys() } else { footprint };
        let reads_only = mutant::is(Mutant::BarrierPassesReads) && !footprint.iter().any(|it| it.writes());
        let footprint = &footprint[..footprint.len() - usize::from(reads_only)];
        let places = footprint.iter().enumerate().map(|(at, access)| {
            if let Some(ahead) = footprint.get(at + PREFETCH_DISTANCE) {
                self.table.prefetch(ahead.hash());
            }
            self.touch(id, *access, &mut deps)
        });
        let places = places.collect();
        Learnt { deps, places }
    }

    /// Notes the places of these keys in the state.
    pub fn note(&mut self, spots: &[Spot]) {
        for (at, spot) in spots.iter().enumerate() {
            if let Some(ahead) = spots.get(at + PREFETCH_DISTANCE) {
                self.table.prefetch(ahead.hash);
            }
            self.table.entry(spot.hash).place = spot.place;
        }
    }

    /// Adds the entry's conflicts to `known`, and the access to the entry. Returns the last known place of the key,
    /// or 0.
    #[inline]
    fn touch(&mut self, id: InstanceId, access: Access, known: &mut Deps) -> Place {
        let entry = self.table.entry(access.hash());
        match entry.last_touch() {
            LastTouch::Nothing if access.writes() => entry.set(LastTouch::Write(id)),
            LastTouch::Write(last) if access.writes() && last.row == id.row => {
                known.add(last);
                entry.set(LastTouch::Write(InstanceId::new(id.row, last.seq.max(id.seq))));
            }
            LastTouch::Nothing | LastTouch::Write(_) => {
                let mut wide = Wide::default();
                if let LastTouch::Write(last) = entry.last_touch() {
                    wide.writes.add(last);
                }
                touch_wide(&mut wide, id, access, known);
                entry.set(LastTouch::Wide(self.wides.push(wide)));
            }
            LastTouch::Wide(place) => touch_wide(&mut self.wides[place], id, access, known),
        }
        entry.place
    }

    /// The newest barrier of every row.
    pub fn barriers(&self) -> &Deps {
        &self.barriers
    }

    /// The number of hashes known.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether the index knows no hash.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}

fn touch_wide(wide: &mut Wide, id: InstanceId, access: Access, known: &mut Deps) {
    known.merge(&wide.writes);
    if access.writes() {
        known.merge(&wide.reads);
        wide.writes.add(id);
    } else {
        wide.reads.add(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_wire::command::{Numbering, RequestBuilder};
    use isonomy_wire::id::SessionId;
    use proptest::prelude::*;

    /// A payload that writes and reads these keys.
    fn payload(writes: &[u8], reads: &[u8]) -> Payload {
        let mut builder = RequestBuilder::default();
        let mut parts = Vec::new();
        if !writes.is_empty() {
            writes.iter().for_each(|key| builder.decide(&[*key], b"").unwrap());
            parts.push(builder.encode(SessionId::named(&format!("{writes:?}{reads:?}")), Numbering::at(1)));
        }
        if !reads.is_empty() {
            reads.iter().for_each(|key| builder.read(&[*key]).unwrap());
            parts.push(builder.encode(SessionId::NONE, Numbering::NONE));
        }
        let parse = |part: &bytes::Bytes| Payload::parse(part.clone(), crc32c::crc32c(part)).unwrap();
        Payload::join(&parts.iter().map(parse).collect::<Vec<_>>())
    }

    fn id(row: u8, seq: u64) -> InstanceId {
        InstanceId::new(ReplicaId(row), seq)
    }

    #[test]
    fn writes_conflict_with_all_and_reads_with_writes() {
        assert!(conflicts(&payload(b"ab", b""), &payload(b"b", b"")));
        assert!(conflicts(&payload(b"ab", b""), &payload(b"", b"b")));
        assert!(conflicts(&payload(b"", b"b"), &payload(b"ab", b"")));
        assert!(!conflicts(&payload(b"", b"ab"), &payload(b"", b"b")));
        assert!(!conflicts(&payload(b"a", b""), &payload(b"b", b"")));
        // A key that one side both reads and writes.
        assert!(conflicts(&payload(b"x", b"x"), &payload(b"", b"x")));
        assert!(conflicts(&payload(b"", b"x"), &payload(b"x", b"x")));
    }

    #[test]
    fn one_session_conflicts_with_itself() {
        let mut builder = RequestBuilder::default();
        let mut on_session = |key: &[u8]| {
            builder.decide(key, b"").unwrap();
            let bytes = builder.encode(SessionId::named("same"), Numbering::at(7));
            let crc = crc32c::crc32c(&bytes);
            Payload::parse(bytes, crc).unwrap()
        };
        let (a, b) = (on_session(b"a"), on_session(b"b"));
        assert!(conflicts(&a, &b), "trap B18");
    }

    #[test]
    fn reads_see_writes_only_and_writes_see_both() {
        let mut index = Index::default();
        index.learn(id(0, 1), &payload(b"k", b""));
        assert_eq!(index.learn(id(1, 1), &payload(b"", b"k")).deps.0[..3], [1, 0, 0]);
        assert_eq!(index.learn(id(2, 1), &payload(b"", b"k")).deps.0[..3], [1, 0, 0]);
        assert_eq!(index.learn(id(0, 2), &payload(b"k", b"")).deps.0[..3], [1, 1, 1]);
    }

    #[test]
    fn wide_entries_of_many_blocks_are_told_apart() {
        let mut index = Index::default();
        let keys: Vec<u32> = (0..BLOCK_WIDES as u32 + 1).collect();
        // Every row writes each key in an instance that belongs to the key alone. The second row makes the entry
        // wide, and the third row finds it.
        for row in 0..3 {
            for key in &keys {
                let mut builder = RequestBuilder::default();
                builder.decide(&key.to_le_bytes(), b"").unwrap();
                let bytes = builder.encode(SessionId::named(&key.to_string()), Numbering::at(1));
                let crc = crc32c::crc32c(&bytes);
                let payload = Payload::parse(bytes, crc).unwrap();
                let known = index.learn(id(row, u64::from(*key) + 1), &payload).deps;
                let first = if row == 0 { 0 } else { u64::from(*key) + 1 };
                assert_eq!(known.0[0], first, "key {key}");
            }
        }
        // Each key and its session have a wide entry, and so has the hash that all batches but barriers read.
        assert_eq!(index.wides.len(), 2 * keys.len() + 1);
    }

    proptest! {
        /// The index against its definition: the last conflicting id of every row.
        #[test]
        fn the_index_knows_what_the_rule_says(
            batches in prop::collection::vec(
                (0u8..4, prop::collection::vec(0u8..12, 0..4), prop::collection::vec(0u8..12, 0..4)), 1..60),
        ) {
            let mut index = Index::default();
            let mut seqs = [0u64; 4];
            let mut learnt: Vec<(InstanceId, Payload)> = Vec::new();
            for (row, writes, reads) in batches {
                if writes.is_empty() && reads.is_empty() {
                    continue;
                }
                let payload = payload(&writes, &reads);
                seqs[row as usize] += 1;
                let new = id(row, seqs[row as usize]);
                let mut expected = Deps::NONE;
                for (other, theirs) in &learnt {
                    if conflicts(&payload, theirs) {
                        expected.add(*other);
                    }
                }
                let mut known = index.learn(new, &payload).deps;
                known.set(new.row, expected.of(new.row));
                prop_assert_eq!(known, expected);
                learnt.push((new, payload));
            }
        }
    }
}
