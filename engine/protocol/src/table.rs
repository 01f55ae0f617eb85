//! A hash table that never pauses: extendible hashing.
//!
//! It grows by splitting one small segment at a time, a few microseconds each, where an ordinary
//! table would move millions of entries at once. Keys are hashes, already well mixed.

use std::fmt;

/// Slots of a fresh segment: 8 KiB with 8-byte values.
const SEGMENT_SLOTS: usize = 512;
/// A segment with more than this share of its slots in use is split.
const LOAD_PERCENT: usize = 80;
/// The directory has at most 2 to this power entries. Segments that keys chosen by an attacker
/// fill beyond that grow instead.
const DEPTH_MAX: u32 = 24;

#[derive(Clone, Copy, Debug)]
struct Slot<V> {
    /// The key with its lowest bit set, so that 0 means empty.
    key: u64,
    value: V,
}

#[derive(Clone, Debug)]
struct Segment<V> {
    /// How many high bits of the mixed key all entries share.
    depth: u32,
    used: usize,
    slots: Box<[Slot<V>]>,
}

/// A map from hashes, whose lowest bit is ignored, to small values.
#[derive(Clone)]
pub struct Table<V> {
    depth: u32,
    directory: Vec<u32>,
    segments: Vec<Segment<V>>,
    len: usize,
}

/// The slots in use.
impl<V: fmt::Debug> fmt::Debug for Table<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slots = self.segments.iter().flat_map(|segment| &segment.slots);
        f.debug_map().entries(slots.filter(|slot| slot.key != 0).map(|slot| (slot.key, &slot.value))).finish()
    }
}

/// Spreads keys whose high bits are alike, such as all keys of one shard.
#[inline]
fn mix(key: u64) -> u64 {
    key.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl<V: Copy + Default> Segment<V> {
    fn new(depth: u32, slots: usize) -> Segment<V> {
        let empty = Slot { key: 0, value: V::default() };
        Segment { depth, used: 0, slots: vec![empty; slots].into() }
    }

    /// Where the key is, or the empty slot where it would go.
    #[inline]
    fn find(&self, key: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = home(key, mask);
        loop {
            let here = self.slots[at].key;
            if here == key || here == 0 {
                return at;
            }
            at = (at + 1) & mask;
        }
    }

    fn is_full(&self) -> bool {
        self.used * 100 >= self.slots.len() * LOAD_PERCENT
    }

    fn insert_new(&mut self, slot: Slot<V>) {
        let at = self.find(slot.key);
        self.slots[at] = slot;
        self.used += 1;
    }

    /// Empties the slot and moves up what had to step aside for it.
    fn remove_at(&mut self, mut hole: usize) {
        let mask = self.slots.len() - 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let key = self.slots[at].key;
            if key == 0 {
                break;
            }
            let wanted = home(key, mask);
            // Whether `wanted` lies cyclically outside (hole, at]: then the entry may move up.
            if at.wrapping_sub(wanted) & mask >= at.wrapping_sub(hole) & mask {
                self.slots[hole] = self.slots[at];
                hole = at;
            }
        }
        self.slots[hole] = Slot { key: 0, value: V::default() };
        self.used -= 1;
    }
}

#[inline]
fn home(key: u64, mask: usize) -> usize {
    // Low bits of the mixed key's high half: independent of the directory's bits for any
    // directory below 2^32.
    (mix(key) >> 20) as usize & mask
}

impl<V: Copy + Default> Default for Table<V> {
    fn default() -> Table<V> {
        Table { depth: 0, directory: vec![0], segments: vec![Segment::new(0, SEGMENT_SLOTS)], len: 0 }
    }
}

impl<V: Copy + Default> Table<V> {
    /// The number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    fn segment_of(&self, key: u64) -> usize {
        // A shift by 64 is not defined, so depth 0 takes two steps.
        self.directory[(mix(key) >> 1 >> (63 - self.depth)) as usize] as usize
    }

    /// The value of a key.
    #[inline]
    pub fn get(&self, key: u64) -> Option<V> {
        let key = key | 1;
        let segment = &self.segments[self.segment_of(key)];
        let slot = &segment.slots[segment.find(key)];
        (slot.key != 0).then_some(slot.value)
    }

    /// The value of a key, made if there is none.
    #[inline]
    pub fn entry(&mut self, key: u64) -> &mut V {
        let key = key | 1;
        let mut which = self.segment_of(key);
        let mut at = self.segments[which].find(key);
        if self.segments[which].slots[at].key == 0 {
            if self.segments[which].is_full() {
                self.make_room(key);
                which = self.segment_of(key);
                at = self.segments[which].find(key);
            }
            let segment = &mut self.segments[which];
            segment.slots[at].key = key;
            segment.used += 1;
            self.len += 1;
        }
        &mut self.segments[which].slots[at].value
    }

    /// Removes a key; its value, if it had one.
    pub fn remove(&mut self, key: u64) -> Option<V> {
        let key = key | 1;
        let which = self.segment_of(key);
        let segment = &mut self.segments[which];
        let at = segment.find(key);
        let slot = segment.slots[at];
        if slot.key == 0 {
            return None;
        }
        segment.remove_at(at);
        self.len -= 1;
        Some(slot.value)
    }

    /// Tells the processor that the entry will be asked for soon.
    #[inline]
    pub fn prefetch(&self, key: u64) {
        let key = key | 1;
        let segment = &self.segments[self.segment_of(key)];
        prefetch(&segment.slots[home(key, segment.slots.len() - 1)]);
    }

    /// Splits the key's segment until it has room; grows it where the directory must not.
    fn make_room(&mut self, key: u64) {
        loop {
            let which = self.segment_of(key);
            if !self.segments[which].is_full() {
                return;
            }
            if self.segments[which].depth >= DEPTH_MAX {
                let grown = Segment::new(DEPTH_MAX, 2 * self.segments[which].slots.len());
                let old = std::mem::replace(&mut self.segments[which], grown);
                for slot in old.slots.iter().filter(|slot| slot.key != 0) {
                    self.segments[which].insert_new(*slot);
                }
                return;
            }
            self.split(which, mix(key));
        }
    }

    /// Divides a segment in two by the next bit of the mixed keys. `mixed` is one of them.
    fn split(&mut self, which: usize, mixed: u64) {
        let depth = self.segments[which].depth + 1;
        if depth > self.depth {
            self.directory = self.directory.iter().flat_map(|segment| [*segment; 2]).collect();
            self.depth = depth;
        }
        let slots = self.segments[which].slots.len();
        let old = std::mem::replace(&mut self.segments[which], Segment::new(depth, slots));
        let sibling = self.segments.len();
        self.segments.push(Segment::new(depth, slots));
        // The directory entries that share the old segment's bits; the upper half moves.
        let span = 1usize << (self.depth - depth);
        let first = (mixed >> 1 >> (63 - self.depth)) as usize & !(2 * span - 1);
        self.directory[first + span..first + 2 * span].fill(sibling as u32);
        for slot in old.slots.iter().filter(|slot| slot.key != 0) {
            let target = if mix(slot.key) >> (64 - depth) & 1 == 1 { sibling } else { which };
            self.segments[target].insert_new(*slot);
        }
    }
}

/// Tells the processor that the cache line will be read soon.
#[inline]
#[allow(unsafe_code)]
pub fn prefetch<T>(target: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program can observe, and the address is that of
    // a live reference.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(target).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = target;
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::SmallRng};
    use std::collections::BTreeMap;

    #[test]
    fn it_is_a_map() {
        let mut random = SmallRng::seed_from_u64(7);
        let (mut table, mut model) = (Table::<u64>::default(), BTreeMap::new());
        for step in 0..200_000u64 {
            let key = random.random_range(0..40_000u64).wrapping_mul(0xdead_beef_cafe_f00d) & !1;
            if random.random_range(0..4) == 0 {
                assert_eq!(table.remove(key), model.remove(&key));
            } else {
                *table.entry(key) = step;
                model.insert(key, step);
            }
            assert_eq!(table.len(), model.len());
        }
        for (key, value) in &model {
            assert_eq!(table.get(*key), Some(*value));
        }
        assert!(table.segments.len() > 32, "it was split");
    }

    #[test]
    fn keys_with_equal_high_bits_do_not_blow_up_the_directory() {
        let inverse = {
            // The multiplicative inverse of the mixing constant, by Newton's iteration.
            let factor = mix(1);
            (0..6).fold(factor, |x, _| x.wrapping_mul(2u64.wrapping_sub(factor.wrapping_mul(x))))
        };
        let mut table = Table::<u32>::default();
        for low in 0..3000u64 {
            *table.entry((low << 1 | 1).wrapping_mul(inverse)) = low as u32;
        }
        assert!(table.directory.len() <= 1 << DEPTH_MAX);
        for low in 0..3000u64 {
            assert_eq!(table.get((low << 1 | 1).wrapping_mul(inverse)), Some(low as u32));
        }
    }
}
