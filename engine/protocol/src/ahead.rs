//! Keys are looked up before they are needed, so that the cache misses of several keys overlap.

use crate::payload::Access;
use crate::state::{Place, Spot, State};

/// How many keys ahead of its use a key is looked up and its entry fetched.
const ENTRIES_AHEAD: usize = 32;
/// How many keys ahead of its use a key's slot of the table is fetched, if the conflict index knew no place.
const SLOTS_AHEAD: usize = 2 * ENTRIES_AHEAD;
/// How many keys are fetched at a time. Most keys lie on pages whose addresses the processor must look up first, and
/// fetches close to each other wait for these look-ups together.
const BURST: usize = 8;
/// The most keys that have been looked up and not used yet.
const LOOKED_UP_MAX: usize = 2 * ENTRIES_AHEAD;
const _: () = assert!(ENTRIES_AHEAD + BURST <= LOOKED_UP_MAX);

/// The keys of a batch in the order of its commands.
pub(crate) struct Keys<'a> {
    accesses: &'a [Access],
    /// The places at which the conflict index knew the keys; 0, or no item, for a key of which it knew none.
    places: &'a [Place],
    /// The next key.
    at: usize,
    /// The supposed places of the next key and of the keys after it, as a ring.
    looked_up: [Place; LOOKED_UP_MAX],
    /// The spots of which the conflict index must be told.
    found: Vec<Spot>,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(accesses: &'a [Access], places: &'a [Place], state: &State) -> Keys<'a> {
        let mut keys = Keys { accesses, places, at: 0, looked_up: [0; LOOKED_UP_MAX], found: Vec::new() };
        keys.look(state);
        keys
    }

    /// Looks up the next keys, up to those that the next burst looks up.
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

    /// Passes over `count` keys.
    pub(crate) fn skip(&mut self, count: usize, state: &State) {
        self.at += count;
        self.look(state);
    }

    /// The spots of the keys whose place the conflict index did not know, or knew wrongly.
    pub(crate) fn into_found(self) -> Vec<Spot> {
        self.found
    }
}
