//! A copy of the state as it is at one moment, made while the state goes on changing.
//!
//! The copy is read page by page. Whoever changes an entry first saves its page, if that was not
//! read yet: so nothing stops for longer than it takes to copy a page, and at worst the memory of
//! the pages that changed is needed twice.

use super::{BLOCK_ENTRIES, Entry, Place, State};
use bytes::{Buf, BufMut};
use isonomy_wire::route::hash_key;

/// Entries per page: 4 KiB.
pub(super) const PAGE_ENTRIES: usize = 32;
/// What an entry's bytes begin with: the lengths of key and value, epoch, index, row and sequence
/// number, key_seq.
const HEAD_BYTES: usize = 2 + 4 + 4 + 4 + 8 + 8;

type Page = [Entry; PAGE_ENTRIES];

const _: () = assert!(BLOCK_ENTRIES.is_multiple_of(PAGE_ENTRIES));

/// How far a copy has come.
#[derive(Clone, Debug)]
pub(super) struct Copying {
    /// The next page to read.
    next: usize,
    /// Pages that have changed since, as they were.
    saved: Vec<Option<Box<Page>>>,
}

/// Why bytes are not entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BadEntry;

impl State {
    /// The state as it is now is what `copy_some` gives from here on.
    pub(crate) fn begin_copy(&mut self) {
        let pages = (self.used as usize).div_ceil(PAGE_ENTRIES);
        self.copying = Some(Copying { next: 0, saved: vec![None; pages] });
    }

    /// Appends entries to `out` until that has so many bytes. The number of entries; `None` when
    /// all have been given.
    pub(crate) fn copy_some(&mut self, out: &mut Vec<u8>, bytes: usize) -> Option<u32> {
        let Some(mut copying) = self.copying.take_if(|copying| copying.next < copying.saved.len()) else {
            self.copying = None;
            return None;
        };
        let mut entries = 0;
        while out.len() < bytes && copying.next < copying.saved.len() {
            let saved = copying.saved[copying.next].take();
            let page = saved.as_deref().unwrap_or_else(|| self.page(copying.next));
            // Entries that are free have no decision.
            for entry in page.iter().filter(|entry| entry.key_seq > 0) {
                encode(entry, out);
                entries += 1;
            }
            copying.next += 1;
        }
        self.copying = Some(copying);
        Some(entries)
    }

    /// Before an entry changes.
    #[inline]
    pub(super) fn save_page(&mut self, place: Place) {
        if self.copying.is_some() {
            self.save_page_of((place - 1) as usize / PAGE_ENTRIES);
        }
    }

    fn save_page_of(&mut self, page: usize) {
        let copying = self.copying.as_ref().expect("the caller has checked");
        if page >= copying.next && copying.saved.get(page).is_some_and(Option::is_none) {
            let copy = Box::new(self.page(page).clone());
            self.copying.as_mut().expect("it is there").saved[page] = Some(copy);
        }
    }

    fn page(&self, page: usize) -> &Page {
        let first = page * PAGE_ENTRIES;
        let block = &self.blocks[first / BLOCK_ENTRIES][first % BLOCK_ENTRIES..];
        block.first_chunk().expect("pages divide blocks")
    }

    /// Takes the entries of a copy in, each of a key that is not there.
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

fn encode(entry: &Entry, out: &mut Vec<u8>) {
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
        state.decide(state.look_up(hash_key(&key)), &[&key, value].concat(), key.len(), id);
    }

    fn retire(state: &mut State, key: u32) {
        let key = key.to_le_bytes();
        state.retire(state.look_up(hash_key(&key)), &key);
    }

    fn all(state: &State) -> BTreeMap<u32, (u64, Vec<u8>)> {
        let keys = (0u32..200).map(|key| (key, key.to_le_bytes()));
        keys.filter_map(|(key, bytes)| {
            let decision = state.get(state.look_up(hash_key(&bytes)), &bytes)?;
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
            let mut change = |state: &mut State, (key, retires, length): (u32, bool, usize)| {
                seq += 1;
                if retires { retire(state, key) } else { decide(state, key, &vec![seq as u8; length], seq) }
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
