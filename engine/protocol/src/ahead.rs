//! Looking keys up before they are needed, so that the misses of the cache overlap.

use crate::payload::Access;
use crate::state::{Place, Spot, State};

/// How many keys ahead a key is looked up; then its entry is on its way.
const ENTRIES_AHEAD: usize = 32;
/// How many keys ahead its slot of the table is fetched, if that is needed.
const SLOTS_AHEAD: usize = 2 * ENTRIES_AHEAD;

/// The keys of a batch in the order of its commands.
pub(crate) struct Keys<'a> {
    accesses: &'a [Access],
    /// Where the conflict index said that they are, as far as it did.
    places: &'a [Place],
    /// The next one.
    at: usize,
    /// What is thought of it and those after it, as a ring.
    spots: [Spot; ENTRIES_AHEAD],
    /// Those of which the index has to be told.
    found: Vec<Spot>,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(accesses: &'a [Access], places: &'a [Place], state: &State) -> Keys<'a> {
        let spots = [Spot::default(); ENTRIES_AHEAD];
        let mut keys = Keys { accesses, places, at: 0, spots, found: Vec::new() };
        keys.look(state);
        keys
    }

    /// Looks up what comes next.
    fn look(&mut self, state: &State) {
        (self.at..self.at + SLOTS_AHEAD).for_each(|far| self.fetch_slot(far, state));
        (self.at..self.at + ENTRIES_AHEAD).for_each(|near| self.fetch_entry(near, state));
    }

    #[inline]
    fn place(&self, at: usize) -> Place {
        self.places.get(at).copied().unwrap_or_default()
    }

    #[inline]
    fn fetch_slot(&self, at: usize, state: &State) {
        if let Some(access) = self.accesses.get(at)
            && self.place(at) == 0
        {
            state.prefetch(access.hash());
        }
    }

    #[inline]
    fn fetch_entry(&mut self, at: usize, state: &State) {
        if let Some(access) = self.accesses.get(at) {
            self.spots[at % ENTRIES_AHEAD] = match self.place(at) {
                0 => state.look_up(access.hash()),
                place => state.guess(access.hash(), place),
            };
        }
    }

    /// The next key's spot.
    #[inline]
    pub(crate) fn next(&mut self, state: &State) -> Spot {
        assert!(self.at < self.accesses.len(), "every key has its access");
        let spot = self.spots[self.at % ENTRIES_AHEAD];
        self.fetch_slot(self.at + SLOTS_AHEAD, state);
        self.fetch_entry(self.at + ENTRIES_AHEAD, state);
        self.at += 1;
        spot
    }

    /// The spot that `next` gave has been used, and perhaps corrected.
    #[inline]
    pub(crate) fn used(&mut self, spot: Spot) {
        if spot.place != self.place(self.at - 1) {
            self.found.push(spot);
        }
    }

    /// Passes over some.
    pub(crate) fn skip(&mut self, count: usize, state: &State) {
        self.at += count;
        self.look(state);
    }

    /// Where keys are of which the index said something else, or nothing.
    pub(crate) fn into_found(self) -> Vec<Spot> {
        self.found
    }
}
