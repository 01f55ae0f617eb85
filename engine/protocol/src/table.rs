//! A hash table that never pauses: extendible hashing.
//!
//! The table grows by splitting one small segment at a time, which takes a few microseconds. An ordinary table would
//! move millions of entries at once. Keys are hashes, which are already well mixed.

use crate::blocks::Blocks;
use std::collections::BTreeMap;
use std::fmt;

const LINE_BYTES: usize = 64;
/// The cache lines of a segment, which has 8 KiB.
const SEGMENT_LINES: usize = 128;
/// Segments per block. A block has 2 MiB, so that the system can give it a huge page.
const BLOCK_SEGMENTS: usize = 256;
/// A segment with more slots in use than this share is split.
const LOAD_PERCENT: usize = 60;
/// The directory has at most 2 to this power entries. Keys beyond that, which an attacker may choose for one segment,
/// go to the overflow.
const DEPTH_MAX: u32 = 24;

/// A number in two halves. Their smaller alignment lets more slots fit a line.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Halves([u32; 2]);

impl Halves {
    #[inline]
    pub(crate) fn of(number: u64) -> Halves {
        Halves([number as u32, (number >> 32) as u32])
    }

    #[inline]
    pub(crate) fn joined(self) -> u64 {
        u64::from(self.0[1]) << 32 | u64::from(self.0[0])
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot<V> {
    /// The key with its lowest bit set, so that 0 means empty.
    key: Halves,
    value: V,
}

/// A cache line. A search begins at the first slot of a line, so that most searches end in that line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Line<V, const SLOTS: usize>([Slot<V>; SLOTS]);

#[derive(Clone, Copy, Debug)]
struct Segment<V, const SLOTS: usize>([Line<V, SLOTS>; SEGMENT_LINES]);

/// A slot of a segment: its line, and its place there.
type At = (usize, usize);

/// The properties of a segment that only growth needs.
#[derive(Clone, Copy, Debug)]
struct SegmentGrowth {
    /// The number of high bits of the mixed key that all entries share.
    depth: u32,
    used: usize,
}

/// A map from hashes, whose lowest bit is ignored, to small values, of which `SLOTS` fit a cache
/// line with their keys.
#[derive(Clone)]
pub struct Table<V, const SLOTS: usize> {
    depth: u32,
    directory: Vec<u32>,
    segments: Blocks<Segment<V, SLOTS>, BLOCK_SEGMENTS>,
    growth: Vec<SegmentGrowth>,
    overflow: BTreeMap<u64, V>,
    len: usize,
}

/// Shows the entries.
impl<V: Copy + Default + fmt::Debug, const SLOTS: usize> fmt::Debug for Table<V, SLOTS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.segments.iter().flat_map(Segment::used).map(|slot| (slot.key(), slot.value));
        let overflow = self.overflow.iter().map(|(key, value)| (*key, *value));
        f.debug_map().entries(used.chain(overflow)).finish()
    }
}

/// Spreads keys whose high bits are alike, such as all keys of one shard.
#[inline]
fn mix(key: u64) -> u64 {
    key.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The line where the search for a key begins.
#[inline]
fn home(key: u64) -> usize {
    // These are low bits of the mixed key's high half, which are independent of the directory's bits for any
    // directory below 2^32.
    (mix(key) >> 22) as usize % SEGMENT_LINES
}

impl<V: Copy + Default> Slot<V> {
    fn new(key: u64, value: V) -> Slot<V> {
        Slot { key: Halves::of(key), value }
    }

    #[inline]
    fn key(&self) -> u64 {
        self.key.joined()
    }
}

impl<V: Copy + Default, const SLOTS: usize> Line<V, SLOTS> {
    /// The place of the slot that has the key. All slots are compared, since the processor would often guess a branch
    /// for each of them the wrong way.
    #[inline]
    fn find(&self, key: u64) -> Option<usize> {
        let slots = self.0.iter().enumerate();
        let found = slots.fold(0, |found: u32, (at, slot)| found | u32::from(slot.key() == key) << at);
        (found != 0).then(|| found.trailing_zeros() as usize)
    }
}

impl<V: Copy + Default, const SLOTS: usize> Segment<V, SLOTS> {
    /// The number of slots.
    const SIZE: usize = SEGMENT_LINES * SLOTS;

    fn empty() -> Self {
        const { assert!(SLOTS == LINE_BYTES / size_of::<Slot<V>>(), "as many as fit") };
        Segment([Line([Slot::new(0, V::default()); SLOTS]); SEGMENT_LINES])
    }

    fn used(&self) -> impl Iterator<Item = &Slot<V>> {
        self.0.iter().flat_map(|line| &line.0).filter(|slot| slot.key() != 0)
    }

    #[inline]
    fn slot(&self, (line, place): At) -> &Slot<V> {
        &self.0[line].0[place]
    }

    #[inline]
    fn slot_mut(&mut self, (line, place): At) -> &mut Slot<V> {
        &mut self.0[line].0[place]
    }

    /// The slot that has the key, or the empty slot where the key would go.
    #[inline]
    fn find(&self, key: u64) -> At {
        let mut line = home(key);
        loop {
            let here = &self.0[line];
            if let Some(place) = here.find(key).or_else(|| here.find(0)) {
                return (line, place);
            }
            line = (line + 1) % SEGMENT_LINES;
        }
    }

    /// Empties the slot, and moves up the entries that had to step aside for it.
    fn remove_at(&mut self, (line, place): At) {
        let at = |slot: usize| (slot / SLOTS, slot % SLOTS);
        let distance = |from: usize, to: usize| (to + Self::SIZE - from) % Self::SIZE;
        let mut hole = line * SLOTS + place;
        let mut next = hole;
        loop {
            next = (next + 1) % Self::SIZE;
            let key = self.slot(at(next)).key();
            if key == 0 {
                break;
            }
            // The entry may move to any place from its home on.
            let home = home(key) * SLOTS;
            if distance(home, next) >= distance(hole, next) {
                *self.slot_mut(at(hole)) = *self.slot(at(next));
                hole = next;
            }
        }
        *self.slot_mut(at(hole)) = Slot::new(0, V::default());
    }
}

impl<V: Copy + Default, const SLOTS: usize> Default for Table<V, SLOTS> {
    fn default() -> Self {
        let (segments, overflow) = (Blocks::default(), BTreeMap::new());
        let mut table =
            Table { depth: 0, directory: vec![0], segments, growth: Vec::new(), overflow, len: 0 };
        table.add_segment(0);
        table
    }
}

impl<V: Copy + Default, const SLOTS: usize> Table<V, SLOTS> {
    /// The number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Verifies the counts. This is for tests, since it looks at everything.
    pub fn check(&self) {
        let used: Vec<usize> = self.segments.iter().map(|segment| segment.used().count()).collect();
        assert!(used.iter().eq(self.growth.iter().map(|it| &it.used)), "the slots in use");
        assert_eq!(self.len, used.iter().sum::<usize>() + self.overflow.len(), "the number of entries");
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
        let slot = segment.slot(segment.find(key));
        if slot.key() == 0 { self.overflow.get(&key).copied() } else { Some(slot.value) }
    }

    /// The value of a key, which is made if there is none.
    #[inline]
    pub fn entry(&mut self, key: u64) -> &mut V {
        let key = key | 1;
        let which = self.segment_of(key);
        let at = self.segments[which].find(key);
        if self.segments[which].slot(at).key() == 0 {
            return self.add(key);
        }
        &mut self.segments[which].slot_mut(at).value
    }

    /// Adds a key that has no slot. Returns its value.
    fn add(&mut self, key: u64) -> &mut V {
        let which = self.make_room(key);
        if self.is_full(which) || self.overflow.contains_key(&key) {
            self.len += usize::from(!self.overflow.contains_key(&key));
            return self.overflow.entry(key).or_default();
        }
        self.len += 1;
        let at = self.insert_new(which, Slot::new(key, V::default()));
        &mut self.segments[which].slot_mut(at).value
    }

    fn is_full(&self, which: usize) -> bool {
        self.growth[which].used * 100 >= SEGMENT_LINES * SLOTS * LOAD_PERCENT
    }

    fn insert_new(&mut self, which: usize, slot: Slot<V>) -> At {
        let segment = &mut self.segments[which];
        let at = segment.find(slot.key());
        *segment.slot_mut(at) = slot;
        self.growth[which].used += 1;
        at
    }

    /// Removes a key. Returns its value, if it had one.
    pub fn remove(&mut self, key: u64) -> Option<V> {
        let key = key | 1;
        let which = self.segment_of(key);
        let segment = &mut self.segments[which];
        let at = segment.find(key);
        let slot = *segment.slot(at);
        if slot.key() == 0 {
            let removed = self.overflow.remove(&key);
            self.len -= usize::from(removed.is_some());
            return removed;
        }
        segment.remove_at(at);
        self.growth[which].used -= 1;
        self.len -= 1;
        Some(slot.value)
    }

    /// Tells the processor that the entry will be asked for soon.
    #[inline]
    pub fn prefetch(&self, key: u64) {
        let key = key | 1;
        prefetch(&self.segments[self.segment_of(key)].0[home(key)]);
    }

    /// Splits the key's segment until it has room, or must not be split any more. Returns the segment's place.
    fn make_room(&mut self, key: u64) -> usize {
        loop {
            let which = self.segment_of(key);
            let SegmentGrowth { depth, .. } = self.growth[which];
            if !self.is_full(which) || depth >= DEPTH_MAX {
                return which;
            }
            self.split(which, mix(key));
        }
    }

    /// Adds an empty segment. Returns its place.
    fn add_segment(&mut self, depth: u32) -> usize {
        self.growth.push(SegmentGrowth { depth, used: 0 });
        self.segments.push(Segment::empty())
    }

    /// Divides a segment in two by the next bit of the mixed keys. `mixed` is one of these keys.
    fn split(&mut self, which: usize, mixed: u64) {
        let depth = self.growth[which].depth + 1;
        if depth > self.depth {
            self.directory = self.directory.iter().flat_map(|segment| [*segment; 2]).collect();
            self.depth = depth;
        }
        let sibling = self.add_segment(depth);
        self.growth[which] = SegmentGrowth { depth, used: 0 };
        let old = std::mem::replace(&mut self.segments[which], Segment::empty());
        // The directory entries that share the old segment's bits; the upper half moves.
        let span = 1usize << (self.depth - depth);
        let first = (mixed >> 1 >> (63 - self.depth)) as usize & !(2 * span - 1);
        self.directory[first + span..first + 2 * span].fill(sibling as u32);
        for slot in old.used() {
            let target = if mix(slot.key()) >> (64 - depth) & 1 == 1 { sibling } else { which };
            self.insert_new(target, *slot);
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
        let (mut table, mut model) = (Table::<u32, 5>::default(), BTreeMap::new());
        for step in 0..200_000u32 {
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
        assert!(table.growth.len() > 32, "it was split");
    }

    #[test]
    fn keys_with_equal_high_bits_do_not_blow_up_the_directory() {
        let inverse = {
            // The multiplicative inverse of the mixing constant, by Newton's iteration.
            let factor = mix(1);
            (0..6).fold(factor, |x, _| x.wrapping_mul(2u64.wrapping_sub(factor.wrapping_mul(x))))
        };
        let mut table = Table::<u32, 5>::default();
        for low in 0..3000u64 {
            *table.entry((low << 1 | 1).wrapping_mul(inverse)) = low as u32;
        }
        assert!(table.directory.len() <= 1 << DEPTH_MAX);
        for low in 0..3000u64 {
            let key = (low << 1 | 1).wrapping_mul(inverse);
            assert_eq!(table.get(key), Some(low as u32));
            *table.entry(key) += 1;
            assert_eq!(table.remove(key), Some(low as u32 + 1));
            assert_eq!((table.get(key), table.len()), (None, 2999 - low as usize));
        }
    }
}
