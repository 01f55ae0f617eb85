//! The state that decisions build: the latest decision of each key.
//!
//! An entry has 128 bytes, which are two cache lines that the processor fetches as one. A key and value of up to
//! `INLINE_BYTES` lie inside the entry. Entries lie in blocks that never move and are found through a table of
//! hashes, so that neither growth nor a long value costs a pause.

mod copy;

use copy::Copying;

use crate::blocks::Blocks;
use crate::table::{Table, prefetch};
use isonomy_wire::id::{CommandId, Epoch, InstanceId, ReplicaId, ShardId};
use std::fmt;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A key and value of at most this length together need no memory of their own.
const INLINE_BYTES: usize = 64;
/// Entries per block. A block has 2 MiB, so that the system can give it a huge page.
const BLOCK_ENTRIES: usize = 16 << 10;

/// The place of an entry plus one; 0 is none.
pub type Place = u32;
/// Slots of the table that fit a cache line.
const LINE_PLACES: usize = 5;

// The order of the fields puts `inline` on the second cache line, so that `fetch` reaches both lines.
#[derive(Clone, Debug)]
#[repr(C, align(128))]
struct KeyEntry {
    /// The next entry with the same hash.
    next: Place,
    key_length: u16,
    value_length: u32,
    epoch: u32,
    index: u32,
    /// The row and sequence number of the instance that decided.
    row_seq: u64,
    key_seq: u64,
    /// This entry's share of the state hash.
    digest: u64,
    /// The key and value, if they are longer than `inline`.
    long: Option<Box<[u8]>>,
    inline: [u8; INLINE_BYTES],
}

const ROW_SHIFT: u32 = 56;

impl KeyEntry {
    const FREE: KeyEntry = KeyEntry {
        next: 0,
        key_length: 0,
        value_length: 0,
        epoch: 0,
        index: 0,
        row_seq: 0,
        key_seq: 0,
        digest: 0,
        long: None,
        inline: [0; INLINE_BYTES],
    };

    #[inline]
    fn key_value(&self) -> &[u8] {
        let length = usize::from(self.key_length) + self.value_length as usize;
        match &self.long {
            Some(long) => long,
            None => &self.inline[..length],
        }
    }

    #[inline]
    fn key(&self) -> &[u8] {
        &self.key_value()[..usize::from(self.key_length)]
    }

    /// Whether the entry has a decision.
    fn is_used(&self) -> bool {
        self.key_seq > 0
    }

    /// Whether the entry is that of this key.
    #[inline]
    fn holds(&self, key: &[u8]) -> bool {
        self.is_used() && self.key() == key
    }

    /// The digest of the entry's present content.
    fn digest_now(&self) -> u64 {
        let (key_length, at) = (usize::from(self.key_length), (self.epoch, self.index));
        digest(self.key_value(), key_length, self.key_seq, self.row_seq, at)
    }

    #[inline]
    fn store(&mut self, key_length: usize, key_value: &[u8]) {
        self.key_length = key_length as u16;
        self.value_length = (key_value.len() - key_length) as u32;
        if key_value.len() <= INLINE_BYTES {
            self.inline[..key_value.len()].copy_from_slice(key_value);
            self.long = None;
        } else if let Some(long) = self.long.as_mut().filter(|long| long.len() == key_value.len()) {
            long.copy_from_slice(key_value);
        } else {
            self.long = Some(key_value.into());
        }
    }
}

const _: () = assert!(size_of::<KeyEntry>() == 128);

/// The supposed place of a key: its hash, and an entry or 0. The place is no more than a guess, whatever happens to
/// the state: its user checks whether the entry is the key's, and corrects the place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spot {
    pub(crate) hash: u64,
    pub(crate) place: Place,
}

/// The latest decision of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision<'a> {
    /// Counts the decisions of the key's life, from 1.
    pub key_seq: u64,
    /// The value decided.
    pub value: &'a [u8],
    /// The command that decided.
    pub id: CommandId,
}

/// All keys of a shard.
#[derive(Clone)]
pub struct State {
    shard: ShardId,
    table: Table<Place, LINE_PLACES>,
    /// The entries in use and the free entries.
    entries: Blocks<KeyEntry, BLOCK_ENTRIES>,
    free: Vec<Place>,
    keys: u64,
    hash: u64,
    /// A copy that is being made.
    copying: Option<Copying>,
}

/// The hash stands for the keys, which can be many.
impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "State({} keys, hash {:016x})", self.keys, self.hash)
    }
}

impl State {
    /// A state without keys.
    pub fn new(shard: ShardId) -> State {
        let (table, entries) = (Table::default(), Blocks::default());
        State { shard, table, entries, free: Vec::new(), keys: 0, hash: 0, copying: None }
    }

    /// The sum of all entries' digests: equal at replicas with equal state, whatever the order
    /// in which commands that do not conflict were executed.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The number of keys with a decision.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// First step towards a key: fetches its slot of the table.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        self.table.prefetch(hash);
    }

    /// Second step: the first entry of the hash.
    #[inline]
    pub fn look_up(&self, hash: u64) -> Spot {
        Spot { hash, place: self.table.get(hash).unwrap_or_default() }
    }

    /// Third step: fetches the entry that is thought to be the key's, if there is one.
    #[inline]
    pub(crate) fn fetch(&self, place: Place) {
        if let Some(entry) = self.get_at(place) {
            prefetch(entry);
            prefetch(&entry.inline);
        }
    }

    #[inline]
    fn get_at(&self, place: Place) -> Option<&KeyEntry> {
        self.entries.get((place as usize).wrapping_sub(1))
    }

    #[inline]
    fn at(&self, place: Place) -> &KeyEntry {
        &self.entries[(place - 1) as usize]
    }

    #[inline]
    fn at_mut(&mut self, place: Place) -> &mut KeyEntry {
        self.save(place);
        &mut self.entries[(place - 1) as usize]
    }

    /// The entry of a key, of which there is at most one. Corrects the spot.
    #[inline]
    fn find(&self, spot: &mut Spot, key: &[u8]) -> Option<Place> {
        if !self.get_at(spot.place).is_some_and(|entry| entry.holds(key)) {
            spot.place = self.search(spot.hash, key)?;
        }
        Some(spot.place)
    }

    fn search(&self, hash: u64, key: &[u8]) -> Option<Place> {
        let mut place = self.table.get(hash)?;
        while place != 0 {
            let entry = self.at(place);
            if entry.holds(key) {
                return Some(place);
            }
            place = entry.next;
        }
        None
    }

    /// The latest decision of a key.
    pub fn get(&self, spot: &mut Spot, key: &[u8]) -> Option<Decision<'_>> {
        let entry = self.at(self.find(spot, key)?);
        let row = ReplicaId((entry.row_seq >> ROW_SHIFT) as u8);
        let instance = InstanceId::new(row, entry.row_seq & ((1 << ROW_SHIFT) - 1));
        let id = CommandId { epoch: Epoch(entry.epoch), shard: self.shard, instance, index: entry.index };
        Some(Decision { key_seq: entry.key_seq, value: &entry.key_value()[key.len()..], id })
    }

    /// Makes a value the key's latest decision. Returns the new key_seq. `key_value` is key and value in one piece;
    /// the key is `key_length` long.
    #[inline]
    pub fn decide(&mut self, spot: &mut Spot, key_value: &[u8], key_length: usize, id: CommandId) -> u64 {
        if self.find(spot, &key_value[..key_length]).is_none() {
            spot.place = self.add(spot.hash);
        }
        let row_seq = u64::from(id.instance.row.0) << ROW_SHIFT | id.instance.seq;
        let entry = self.at_mut(spot.place);
        entry.key_seq += 1;
        entry.epoch = id.epoch.0;
        entry.index = id.index;
        entry.row_seq = row_seq;
        let key_seq = entry.key_seq;
        let digest = digest(key_value, key_length, key_seq, row_seq, (id.epoch.0, id.index));
        let before = std::mem::replace(&mut entry.digest, digest);
        entry.store(key_length, key_value);
        self.hash = self.hash.wrapping_sub(before).wrapping_add(digest);
        key_seq
    }

    /// Ends a key's life. Returns the key_seq of its last decision.
    pub fn delete(&mut self, spot: &mut Spot, key: &[u8]) -> Option<u64> {
        let place = self.find(spot, key)?;
        let entry = std::mem::replace(self.at_mut(place), KeyEntry::FREE);
        self.unlink(spot.hash, place, entry.next);
        self.free.push(place);
        self.keys -= 1;
        self.hash = self.hash.wrapping_sub(entry.digest);
        Some(entry.key_seq)
    }

    /// Verifies the counts. This is for tests, since it looks at everything.
    pub fn check(&self) {
        let used = || self.entries.iter().filter(|entry| entry.is_used());
        assert_eq!(self.keys, used().count() as u64, "the number of keys");
        assert_eq!(self.keys as usize + self.free.len(), self.entries.len(), "each entry is in use or free");
        let hash = used().fold(0u64, |hash, entry| hash.wrapping_add(entry.digest_now()));
        assert_eq!(self.hash, hash, "the hash of the state");
        for entry in used() {
            let key = entry.key();
            let place = self.search(isonomy_wire::route::hash_key(key), key);
            assert!(place.is_some_and(|place| std::ptr::eq(self.at(place), entry)), "{key:?} is not found");
        }
        assert!(self.table.len() as u64 <= self.keys, "hashes without a key");
        self.table.check();
    }

    /// Adds an entry, which becomes the first of its hash.
    fn add(&mut self, hash: u64) -> Place {
        let place = self.free.pop().unwrap_or_else(|| self.entries.push(KeyEntry::FREE) as Place + 1);
        let first = self.table.entry(hash);
        let next = std::mem::replace(first, place);
        self.at_mut(place).next = next;
        self.keys += 1;
        place
    }

    /// Takes an entry out of the chain of its hash.
    fn unlink(&mut self, hash: u64, place: Place, next: Place) {
        let first = self.table.get(hash).expect("the entry was found by its hash");
        if first == place {
            if next == 0 {
                self.table.remove(hash);
            } else {
                *self.table.entry(hash) = next;
            }
            return;
        }
        let mut at = first;
        while self.at(at).next != place {
            at = self.at(at).next;
        }
        self.at_mut(at).next = next;
    }
}

/// The digest of an entry. It depends on the entry's content only, so that it can be computed again from a copy of
/// the state.
#[inline]
fn digest(
    key_value: &[u8],
    key_length: usize,
    key_seq: u64,
    row_seq: u64,
    (epoch, index): (u32, u32),
) -> u64 {
    let place = u64::from(epoch) << 32 ^ u64::from(index) << 16 ^ key_length as u64;
    let seed = key_seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ row_seq.rotate_left(17) ^ place;
    xxh3_64_with_seed(key_value, seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_wire::route::hash_key;
    use std::collections::BTreeMap;

    fn id(seq: u64) -> CommandId {
        let instance = InstanceId::new(ReplicaId(2), seq);
        CommandId { epoch: Epoch(1), shard: ShardId(0), instance, index: 3 }
    }

    fn decide(state: &mut State, hash: u64, key: &[u8], value: &[u8], seq: u64) -> u64 {
        state.decide(&mut state.look_up(hash), &[key, value].concat(), key.len(), id(seq))
    }

    #[test]
    fn decisions_count_from_one_in_each_life() {
        let mut state = State::new(ShardId(0));
        let hash = hash_key(b"k");
        assert_eq!(state.get(&mut state.look_up(hash), b"k"), None);
        assert_eq!(decide(&mut state, hash, b"k", b"one", 1), 1);
        assert_eq!(decide(&mut state, hash, b"k", b"two", 2), 2);
        assert_eq!(
            state.get(&mut state.look_up(hash), b"k"),
            Some(Decision { key_seq: 2, value: b"two", id: id(2) })
        );
        assert_eq!(state.delete(&mut state.look_up(hash), b"k"), Some(2));
        assert_eq!(state.delete(&mut state.look_up(hash), b"k"), None);
        assert_eq!((state.hash(), state.keys()), (0, 0));
        assert_eq!(decide(&mut state, hash, b"k", b"three", 3), 1);
    }

    #[test]
    fn colliding_hashes_keep_their_keys_apart() {
        let mut state = State::new(ShardId(0));
        for (seq, key) in [b"a", b"b", b"c"].into_iter().enumerate() {
            assert_eq!(decide(&mut state, 42, key, b"v", seq as u64 + 1), 1);
        }
        assert_eq!(state.delete(&mut state.look_up(42), b"b"), Some(1));
        assert_eq!(state.get(&mut state.look_up(42), b"b"), None);
        assert!(
            state.get(&mut state.look_up(42), b"a").is_some()
                && state.get(&mut state.look_up(42), b"c").is_some()
        );
        assert_eq!(state.delete(&mut state.look_up(42), b"c"), Some(1));
        assert_eq!(state.delete(&mut state.look_up(42), b"a"), Some(1));
        assert!(state.table.is_empty());
    }

    #[test]
    fn the_hash_depends_on_the_state_and_not_on_the_way_to_it() {
        let (mut left, mut right) = (State::new(ShardId(0)), State::new(ShardId(0)));
        let keys: Vec<Vec<u8>> = (0..50u8).map(|n| vec![n; 1 + n as usize]).collect();
        for (seq, key) in keys.iter().enumerate() {
            decide(&mut left, hash_key(key), key, &vec![7; 10 * seq], seq as u64 + 1);
        }
        for (seq, key) in keys.iter().enumerate().rev() {
            decide(&mut right, hash_key(key), key, &vec![7; 10 * seq], seq as u64 + 1);
        }
        assert_eq!(left.hash(), right.hash());
        decide(&mut right, hash_key(&keys[0]), &keys[0], b"", 99);
        assert_ne!(left.hash(), right.hash());
    }

    #[test]
    fn it_is_a_map_through_growth_and_long_values() {
        let mut state = State::new(ShardId(0));
        let mut model: BTreeMap<Vec<u8>, (u64, Vec<u8>)> = BTreeMap::new();
        for step in 0..30_000u64 {
            let key = (step * 7919 % 6000).to_le_bytes().to_vec();
            if step % 5 == 4 {
                let expected = model.remove(&key).map(|(key_seq, _)| key_seq);
                assert_eq!(state.delete(&mut state.look_up(hash_key(&key)), &key), expected);
                continue;
            }
            let value = vec![step as u8; (step % 200) as usize];
            let entry = model.entry(key.clone()).or_default();
            *entry = (entry.0 + 1, value.clone());
            assert_eq!(decide(&mut state, hash_key(&key), &key, &value, step + 1), entry.0);
        }
        assert_eq!(state.keys(), model.len() as u64);
        for (key, (key_seq, value)) in &model {
            let decision = state.get(&mut state.look_up(hash_key(key)), key).unwrap();
            assert_eq!((decision.key_seq, decision.value), (*key_seq, &value[..]));
        }
    }
}
