//! Looking keys up before they are needed, so that the misses of the cache overlap.

use crate::payload::Access;
use crate::state::{Spot, State};

/// How many keys ahead a key is looked up; then its entry is on its way.
const ENTRIES_AHEAD: usize = 32;
/// How many keys ahead its slot of the table is fetched.
const SLOTS_AHEAD: usize = 2 * ENTRIES_AHEAD;

/// The keys of a batch in the order of its commands.
pub(crate) struct Keys<'a> {
    accesses: &'a [Access],
    /// The next one.
    at: usize,
    /// What was found for it and those after it, as a ring.
    spots: [Spot; ENTRIES_AHEAD],
}

impl<'a> Keys<'a> {
    pub(crate) fn new(accesses: &'a [Access], state: &State) -> Keys<'a> {
        let mut keys = Keys { accesses, at: 0, spots: [Spot::default(); ENTRIES_AHEAD] };
        keys.look(state);
        keys
    }

    /// Looks up what comes next.
    fn look(&mut self, state: &State) {
        for access in self.accesses.iter().skip(self.at).take(SLOTS_AHEAD) {
            state.prefetch(access.hash());
        }
        for (at, access) in self.accesses.iter().enumerate().skip(self.at).take(ENTRIES_AHEAD) {
            self.spots[at % ENTRIES_AHEAD] = state.look_up(access.hash());
        }
    }

    /// The next key's spot.
    #[inline]
    pub(crate) fn next(&mut self, state: &State) -> Spot {
        assert!(self.at < self.accesses.len(), "every key has its access");
        if let Some(far) = self.accesses.get(self.at + SLOTS_AHEAD) {
            state.prefetch(far.hash());
        }
        let spot = &mut self.spots[self.at % ENTRIES_AHEAD];
        let found = *spot;
        if let Some(near) = self.accesses.get(self.at + ENTRIES_AHEAD) {
            *spot = state.look_up(near.hash());
        }
        self.at += 1;
        found
    }

    /// Passes over some.
    pub(crate) fn skip(&mut self, count: usize, state: &State) {
        self.at += count;
        self.look(state);
    }
}
