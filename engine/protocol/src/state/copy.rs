//! A copy of the state as it is at one moment, made while the state goes on changing.
//!
//! The order of entries in a copy means nothing. So before an entry changes, its old content is appended to the copy,
//! unless the copy has it already, and the other entries are appended in the order of places. Each entry is encoded
//! once, and nothing stops for longer than that takes. At worst, entries that have changed and were not taken away
//! yet need their memory twice.

use super::{KeyEntry, Place, State};
use bytes::{Buf, BufMut};
use isonomy_wire::route::hash_key;
use std::collections::VecDeque;

/// The bytes before an entry's key and value: the lengths of both, epoch, index, row and sequence number, key_seq.
const HEAD_BYTES: usize = 2 + 4 + 4 + 4 + 8 + 8;
/// Entries that change early are gathered in pieces of this size.
const EARLY_BYTES: usize = 128 << 10;

/// Encoded entries, and their number.
#[derive(Clone, Debug, Default)]
struct EarlyPiece {
    entries: u32,
    bytes: Vec<u8>,
}

/// The progress of a copy.
#[derive(Clone, Debug)]
pub(super) struct Copying {
    /// The next entry in the order of places, from 0.
    next: usize,
    /// The number of entries at the beginning.
    end: usize,
    /// A bit for each entry from `next` on that is in the copy already.
    done: Vec<u64>,
    /// The old content of the entries that have changed since the beginning. The last piece is being filled.
    early: VecDeque<EarlyPiece>,
}

/// Why bytes are not entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BadEntry;

impl State {
    /// From here on `copy_some` gives the state as it is now.
    pub(crate) fn begin_copy(&mut self) {
        let end = self.entries.len();
        let done = vec![0; end.div_ceil(64)];
        self.copying = Some(Copying { next: 0, end, done, early: VecDeque::new() });
    }

    /// Appends entries to `out` until that has about so many bytes. Returns the number of entries, or `None` when all
    /// have been given.
    pub(crate) fn copy_some(&mut self, out: &mut Vec<u8>, bytes: usize) -> Option<u32> {
        let mut copying = self.copying.take()?;
        let mut entries = 0;
        while out.len() < bytes
            && let Some(piece) = copying.early.pop_front()
        {
            out.extend_from_slice(&piece.bytes);
            entries += piece.entries;
        }
        while out.len() < bytes && copying.next < copying.end {
            let (at, is_done) = (copying.next, copying.is_done(copying.next));
            let entry = &self.entries[at];
            if !is_done && entry.is_used() {
                encode(entry, out);
                entries += 1;
            }
            copying.next += 1;
        }
        if entries == 0 {
            return None;
        }
        self.copying = Some(copying);
        Some(entries)
    }

    /// Whether a copy is being made.
    pub(crate) fn is_copied(&self) -> bool {
        self.copying.is_some()
    }

    /// Drops the copy, since nobody needs the rest.
    pub(crate) fn end_copy(&mut self) {
        self.copying = None;
    }

    /// Saves the old content of an entry that is about to change.
    #[inline]
    pub(super) fn save(&mut self, place: Place) {
        let at = (place - 1) as usize;
        if let Some(copying) = &mut self.copying
            && at >= copying.next
            && at < copying.end
            && !copying.is_done(at)
        {
            copying.add(at, &self.entries[at]);
        }
    }

    /// Loads the entries of a copy, of which no key may be there already. Returns how many.
    pub(crate) fn load(&mut self, mut bytes: &[u8]) -> Result<u32, BadEntry> {
        let mut entries = 0;
        while !bytes.is_empty() {
            self.load_one(&mut bytes)?;
            entries += 1;
        }
        Ok(entries)
    }

    fn load_one(&mut self, bytes: &mut &[u8]) -> Result<(), BadEntry> {
        if bytes.len() < HEAD_BYTES {
            return Err(BadEntry);
        }
        let (key, value) = (usize::from(bytes.get_u16_le()), bytes.get_u32_le() as usize);
        let (epoch, index) = (bytes.get_u32_le(), bytes.get_u32_le());
        let (row_seq, key_seq) = (bytes.get_u64_le(), bytes.get_u64_le());
        let Some((key_value, rest)) = bytes.split_at_checked(key + value) else { return Err(BadEntry) };
        *bytes = rest;
        let hash = hash_key(&key_value[..key]);
        if key_seq == 0 || self.search(hash, &key_value[..key]).is_some() {
            return Err(BadEntry);
        }
        let place = self.add(hash);
        let entry = self.at_mut(place);
        (entry.epoch, entry.index, entry.row_seq, entry.key_seq) = (epoch, index, row_seq, key_seq);
        entry.store(key, key_value);
        entry.digest = entry.digest_now();
        self.hash = self.hash.wrapping_add(self.at(place).digest);
        Ok(())
    }
}

impl Copying {
    fn is_done(&self, at: usize) -> bool {
        self.done[at / 64] >> (at % 64) & 1 != 0
    }

    /// Adds an entry to the copy out of turn.
    fn add(&mut self, at: usize, entry: &KeyEntry) {
        self.done[at / 64] |= 1 << (at % 64);
        if !entry.is_used() {
            return;
        }
        if self.early.back().is_none_or(|piece| piece.bytes.len() >= EARLY_BYTES) {
            self.early.push_back(EarlyPiece::default());
        }
        let piece = self.early.back_mut().expect("there is one");
        encode(entry, &mut piece.bytes);
        piece.entries += 1;
    }
}

fn encode(entry: &KeyEntry, out: &mut Vec<u8>) {
    out.put_u16_le(entry.key_length);
    out.put_u32_le(entry.value_length);
    out.put_u32_le(entry.epoch);
    out.put_u32_le(entry.index);
    out.put_u64_le(entry.row_seq);
    out.put_u64_le(entry.key_seq);
    out.put_slice(entry.key_value());
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_wire::id::{CommandId, Epoch, InstanceId, ReplicaId, ShardId};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn decide(state: &mut State, key: u32, value: &[u8], seq: u64) {
        let instance = InstanceId::new(ReplicaId(2), seq);
        let id = CommandId { epoch: Epoch(1), shard: ShardId(0), instance, index: 3 };
        let key = key.to_le_bytes();
        state.decide(&mut state.look_up(hash_key(&key)), &[&key, value].concat(), key.len(), id);
    }

    fn delete(state: &mut State, key: u32) {
        let key = key.to_le_bytes();
        state.delete(&mut state.look_up(hash_key(&key)), &key);
    }

    fn all(state: &State) -> BTreeMap<u32, (u64, Vec<u8>)> {
        let keys = (0u32..200).map(|key| (key, key.to_le_bytes()));
        keys.filter_map(|(key, bytes)| {
            let decision = state.get(&mut state.look_up(hash_key(&bytes)), &bytes)?;
            Some((key, (decision.key_seq, decision.value.to_vec())))
        })
        .collect()
    }

    proptest! {
        #[test]
        fn a_copy_is_the_state_at_its_beginning_whatever_happens_meanwhile(
            before in prop::collection::vec((0u32..200, prop::bool::weighted(0.2), 0usize..150), 0..400),
            during in prop::collection::vec((0u32..200, prop::bool::weighted(0.2), 0usize..150), 0..400),
            every in 1usize..20,
        ) {
            let mut state = State::new(ShardId(0));
            let mut seq = 0;
            let mut change = |state: &mut State, (key, deletes, length): (u32, bool, usize)| {
                seq += 1;
                if deletes { delete(state, key) } else { decide(state, key, &vec![seq as u8; length], seq) }
            };
            before.into_iter().for_each(|what| change(&mut state, what));
            let (expected, hash) = (all(&state), state.hash());
            state.begin_copy();
            let mut copy = State::new(ShardId(0));
            let mut take = |state: &mut State| {
                let mut out = Vec::new();
                let taken = state.copy_some(&mut out, 2000);
                assert_eq!(copy.load(&out).unwrap(), taken.unwrap_or(0));
                taken.is_some()
            };
            for (at, what) in during.into_iter().enumerate() {
                change(&mut state, what);
                if at.is_multiple_of(every) {
                    take(&mut state);
                }
            }
            while take(&mut state) {}
            prop_assert_eq!((all(&copy), copy.hash()), (expected, hash));
        }
    }

    #[test]
    fn what_is_not_an_entry_is_refused() {
        let mut state = State::new(ShardId(0));
        (0..3).for_each(|key| decide(&mut state, key, b"value", 1));
        state.begin_copy();
        let mut bytes = Vec::new();
        assert_eq!(state.copy_some(&mut bytes, usize::MAX), Some(3));
        assert_eq!(state.copy_some(&mut Vec::new(), usize::MAX), None);
        let whole = bytes.len() / 3;
        for length in 1..bytes.len() {
            let loaded = State::new(ShardId(0)).load(&bytes[..length]);
            assert_eq!(loaded.is_ok(), length % whole == 0, "{length}");
        }
        assert_eq!(state.load(&bytes), Err(BadEntry), "a key comes once");
    }
}
