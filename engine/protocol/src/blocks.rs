//! Items that never move, because they lie in blocks, one block after the other. A vector would copy all of its items
//! to grow.

use std::ops::{Index, IndexMut};

/// Items by their place. Each block holds `N` items; only the last may hold fewer.
#[derive(Clone, Debug)]
pub(crate) struct Blocks<T, const N: usize>(Vec<Vec<T>>);

impl<T, const N: usize> Default for Blocks<T, N> {
    fn default() -> Blocks<T, N> {
        Blocks(Vec::new())
    }
}

impl<T, const N: usize> Blocks<T, N> {
    /// How many items there are.
    pub(crate) fn len(&self) -> usize {
        self.0.last().map_or(0, |last| (self.0.len() - 1) * N + last.len())
    }

    /// Adds an item, and returns its place.
    pub(crate) fn push(&mut self, item: T) -> usize {
        let place = self.len();
        if place.is_multiple_of(N) {
            self.0.push(Vec::with_capacity(N));
        }
        self.0[place / N].push(item);
        place
    }

    /// The item at a place, if there is one.
    #[inline]
    pub(crate) fn get(&self, place: usize) -> Option<&T> {
        self.0.get(place / N)?.get(place % N)
    }

    /// All items in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten()
    }
}

impl<T, const N: usize> Index<usize> for Blocks<T, N> {
    type Output = T;

    #[inline]
    fn index(&self, place: usize) -> &T {
        &self.0[place / N][place % N]
    }
}

impl<T, const N: usize> IndexMut<usize> for Blocks<T, N> {
    #[inline]
    fn index_mut(&mut self, place: usize) -> &mut T {
        &mut self.0[place / N][place % N]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_follow_each_other_and_items_stay() {
        let mut blocks = Blocks::<usize, 4>::default();
        let first = std::ptr::from_ref({
            assert_eq!((blocks.len(), blocks.push(0)), (0, 0));
            &blocks[0]
        });
        for item in 1..9 {
            assert_eq!(blocks.push(item), item);
        }
        blocks[4] += 100;
        assert_eq!(blocks.iter().copied().collect::<Vec<_>>(), [0, 1, 2, 3, 104, 5, 6, 7, 8]);
        assert_eq!((blocks.len(), blocks[8]), (9, 8));
        assert_eq!((blocks.get(8), blocks.get(9), blocks.get(12)), (Some(&8), None, None));
        assert_eq!(first, std::ptr::from_ref(&blocks[0]));
    }
}
