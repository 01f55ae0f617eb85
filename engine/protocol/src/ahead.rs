//! Looking keys up before they are needed, so that the misses of the cache overlap.

use crate::payload::Access;
use crate::state::{Place, Spot, State};

/// How many keys ahead a key is looked up; then its entry is on its way.
const ENTRIES_AHEAD: usize = 32;
/// How many keys ahead its slot of the table is fetched, if that is needed.
const SLOTS_AHEAD: usize = 2 * ENTRIES_AHEAD;
/// How many keys are fetched at a time. Most lie on pages whose addresses the processor has to look
/// up, for which a fetch waits: close to each other they wait together.
const BURST: usize = 8;
/// Keys that have been looked up and not used, at most.
const LOOKED_UP_MAX: usize = 2 * ENTRIES_AHEAD;
const _: () = assert!(ENTRIES_AHEAD + BURST <= LOOKED_UP_MAX);

/// The keys of a batch in the order of its commands.
pub(crate) struct Keys<'a> {
    accesses: &'a [Access],
    /// Where the conflict index said that they are, as far as it did.
    places: &'a [Place],
    /// The next one.
    at: usize,
    /// Where it and those after it are thought to be, as a ring.
    looked_up: [Place; LOOKED_UP_MAX],
    /// Those of which the index has to be told.
    found: Vec<Spot>,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(accesses: &'a [Access], places: &'a [Place], state: &State) -> Keys<'a> {
        let mut keys = Keys { accesses, places, at: 0, looked_up: [0; LOOKED_UP_MAX], found: Vec::new() };
        keys.look(state);
        keys
    }

    /// Looks up what comes next, as far as the next burst does not.
    fn look(&mut self, state: &State) {
        let until_burst = self.at.next_multiple_of(BURST) - self.at;
        self.fetch_slots(self.at, until_burst + SLOTS_AHEAD, state);
        self.fetch_entries(self.at, until_burst + ENTRIES_AHEAD, state);
    }

    fn burst(&mut self, state: &State) {
        self.fetch_slots(self.at + SLOTS_AHEAD, BURST, state);
        self.fetch_entries(self.at + ENTRIES_AHEAD, BURST, state);
    }

    #[inline]
    fn place(&self, at: usize) -> Place {
        self.places.get(at).copied().unwrap_or_default()
    }

    #[inline]
    fn fetch_slots(&self, from: usize, count: usize, state: &State) {
        for (at, access) in self.accesses.iter().enumerate().skip(from).take(count) {
            if self.place(at) == 0 {
                state.prefetch(access.hash());
            }
        }
    }

    #[inline]
    fn fetch_entries(&mut self, from: usize, count: usize, state: &State) {
        for (at, access) in self.accesses.iter().enumerate().skip(from).take(count) {
            let place = match self.place(at) {
                0 => state.look_up(access.hash()).place,
                place => place,
            };
            state.fetch(place);
            self.looked_up[at % LOOKED_UP_MAX] = place;
        }
    }

    /// The next key's spot.
    #[inline]
    pub(crate) fn next(&mut self, state: &State) -> Spot {
        assert!(self.at < self.accesses.len(), "every key has its access");
        if self.at.is_multiple_of(BURST) {
            self.burst(state);
        }
        let (hash, place) = (self.accesses[self.at].hash(), self.looked_up[self.at % LOOKED_UP_MAX]);
        self.at += 1;
        Spot { hash, place }
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
