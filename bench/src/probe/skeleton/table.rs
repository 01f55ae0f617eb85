//! The table of keys that every replica updates: the least that execution can cost.

use std::hint::black_box;

use super::words::keys;

/// Commands whose slots are touched before the first of them is updated, so that the misses of
/// the cache overlap.
const PASS_COMMANDS: usize = 16;
const NO_KEY: u128 = u128::MAX;

#[derive(Clone)]
struct Slot {
    key: u128,
    key_seq: u64,
    /// The instance that decided the key last.
    instance: u64,
}

/// An open hash table whose keys are all there from the start: 0 to `keys` - 1.
pub(super) struct Table {
    slots: Vec<Slot>,
    command_bytes: usize,
}

impl Table {
    pub(super) fn new(keys: u64, command_bytes: usize) -> Table {
        let empty = Slot { key: NO_KEY, key_seq: 0, instance: 0 };
        let slots = vec![empty; (2 * keys as usize).next_power_of_two()];
        let mut table = Table { slots, command_bytes };
        for key in (0..keys).map(u128::from) {
            let place = table.find(key);
            table.slots[place].key = key;
        }
        table
    }

    /// The slot where the search for a key begins.
    #[inline]
    fn place(&self, key: u128) -> usize {
        let mixed = (key as u64 ^ (key >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> self.slots.len().leading_zeros()) as usize >> 1
    }

    /// The slot of a key, or the empty slot where the key belongs.
    #[inline]
    fn find(&self, key: u128) -> usize {
        let mut place = self.place(key);
        while self.slots[place].key != key && self.slots[place].key != NO_KEY {
            place = (place + 1) & (self.slots.len() - 1);
        }
        place
    }

    /// Counts a decision at each key of a batch.
    pub(super) fn execute(&mut self, batch: &[u8], instance: u64) {
        for pass in batch.chunks(PASS_COMMANDS * self.command_bytes) {
            let touched = keys(pass, self.command_bytes).map(|key| self.slots[self.place(key)].key_seq);
            black_box(touched.fold(0, |all, key_seq| all ^ key_seq));
            for key in keys(pass, self.command_bytes) {
                let place = self.find(key);
                let slot = &mut self.slots[place];
                slot.key_seq += 1;
                slot.instance = instance;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_slot_of_its_own() {
        let (keys, command_bytes) = (1000, 24);
        let mut table = Table::new(keys, command_bytes);
        let mut batch = Vec::new();
        for key in (0..keys).map(u128::from) {
            batch.extend_from_slice(&[0; 8]);
            batch.extend_from_slice(&key.to_le_bytes());
        }
        table.execute(&batch, 7);
        table.execute(&batch[..command_bytes], 8);
        let counted = |key: u128| {
            let slot = &table.slots[table.find(key)];
            (slot.key, slot.key_seq, slot.instance)
        };
        assert_eq!(counted(0), (0, 2, 8));
        assert!((1..u128::from(keys)).all(|key| counted(key) == (key, 1, 7)));
    }
}
