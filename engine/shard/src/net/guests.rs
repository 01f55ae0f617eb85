//! Guests: connections that were welcomed at the port for clients. When all places are taken, the guest that has been
//! idle for longest makes room for a newcomer; a guest with a request under way stays. Operators have places of their
//! own.

use isonomy_protocol::contract::ClientRef;
use isonomy_wire::message::Refusal;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::net::connection::Sink;
use crate::net::limits::OPERATORS_MAX;
use crate::tally::Asked;

/// A client is idle when nothing was under way on its connection for this long. A client that sends requests more
/// often keeps its place.
pub(crate) const CLIENT_IDLE_MIN: Duration = Duration::from_secs(10);
/// An operator is idle when nothing was under way on its connection for this long, since operators send their
/// requests at once.
const OPERATOR_IDLE_MIN: Duration = Duration::from_secs(1);

/// The guests of a shard.
pub(crate) struct Guests {
    clients: Seats,
    operators: Seats,
    /// The number of the last connection; no number is used twice.
    last: u64,
    /// How many newcomers found no place.
    pub(crate) refused: u64,
    /// How many guests made room.
    pub(crate) yielded: u64,
}

/// A newcomer that has a place.
pub(crate) struct Admitted {
    pub(crate) id: u64,
    /// The guest that must leave for it, and how long that guest was idle.
    pub(crate) yielding: Option<(Rc<Sink>, Duration)>,
}

/// Places of one kind.
struct Seats {
    max: u32,
    idle_min: Duration,
    guests: BTreeMap<u64, Guest>,
    /// How many guests were told to leave and have lost their places already.
    leaving: u32,
    /// The idle guests that the last search found, with the time since which they are idle; the idlest comes last.
    idlest: Vec<(Instant, u64)>,
    /// The time before which a search finds no idle guest.
    search_from: Option<Instant>,
}

struct Guest {
    sink: Rc<Sink>,
    /// The requests without an answer, the oldest first.
    under_way: RefCell<VecDeque<Asked>>,
    is_leaving: bool,
}

impl Guest {
    fn idle_since(&self) -> Option<Instant> {
        if self.is_leaving || !self.under_way.borrow().is_empty() { None } else { self.sink.idle_since() }
    }
}

impl Seats {
    fn new(max: u32, idle_min: Duration) -> Seats {
        let (guests, idlest) = (BTreeMap::new(), Vec::new());
        Seats { max, idle_min, guests, leaving: 0, idlest, search_from: None }
    }

    fn taken(&self) -> u32 {
        self.guests.len() as u32 - self.leaving
    }

    fn has_room(&self) -> bool {
        self.taken() < self.max
    }

    /// The guest that has been idle for longest, if that is long enough.
    fn idlest(&mut self, now: Instant) -> Option<(Instant, u64)> {
        loop {
            while let Some((since, id)) = self.idlest.pop() {
                let is_still_idle = |guest: &Guest| guest.idle_since() == Some(since);
                if self.guests.get(&id).is_some_and(is_still_idle) {
                    return Some((since, id));
                }
            }
            if self.search_from.is_some_and(|from| now < from) {
                return None;
            }
            self.search(now);
        }
    }

    /// Looks at all guests once, so that a crowd of newcomers costs little. No guest that is busy now is idle before
    /// `idle_min` has passed.
    fn search(&mut self, now: Instant) {
        let mut from = now + self.idle_min;
        for (id, guest) in &self.guests {
            let Some(since) = guest.idle_since() else { continue };
            let idle_from = since + self.idle_min;
            if idle_from <= now {
                self.idlest.push((since, *id));
            } else {
                from = from.min(idle_from);
            }
        }
        self.idlest.sort_unstable_by(|one, other| other.cmp(one));
        self.search_from = self.idlest.is_empty().then_some(from);
    }

    /// The idlest guest gives up its place.
    fn make_room(&mut self, now: Instant) -> Option<(Rc<Sink>, Duration)> {
        let (since, id) = self.idlest(now)?;
        let guest = self.guests.get_mut(&id).expect("it was just found");
        guest.is_leaving = true;
        self.leaving += 1;
        Some((guest.sink.clone(), now.saturating_duration_since(since)))
    }

    fn remove(&mut self, id: u64) {
        let guest = self.guests.remove(&id);
        self.leaving -= u32::from(guest.is_some_and(|guest| guest.is_leaving));
    }
}

impl Guests {
    pub(crate) fn new(clients_max: u32) -> Guests {
        Guests {
            clients: Seats::new(clients_max, CLIENT_IDLE_MIN),
            operators: Seats::new(OPERATORS_MAX, OPERATOR_IDLE_MIN),
            last: 0,
            refused: 0,
            yielded: 0,
        }
    }

    /// Finds a place. No guest leaves while a place is free. An operator takes a client's place if the operators'
    /// places are taken, and no client takes an operator's place.
    pub(crate) fn admit(
        &mut self,
        now: Instant,
        is_operator: bool,
        sink: &Rc<Sink>,
    ) -> Result<Admitted, Refusal> {
        let Guests { clients, operators, .. } = self;
        let (seats, yielding) = if is_operator && operators.has_room() {
            (operators, None)
        } else if clients.has_room() {
            (clients, None)
        } else if is_operator && let Some(yielding) = operators.make_room(now) {
            (operators, Some(yielding))
        } else if let Some(yielding) = clients.make_room(now) {
            (clients, Some(yielding))
        } else {
            self.refused += 1;
            return Err(Refusal::TooManyConnections { limit: self.clients.max });
        };
        self.last += 1;
        let guest = Guest { sink: sink.clone(), under_way: RefCell::default(), is_leaving: false };
        seats.guests.insert(self.last, guest);
        self.yielded += u64::from(yielding.is_some());
        Ok(Admitted { id: self.last, yielding })
    }

    pub(crate) fn remove(&mut self, id: u64) {
        self.clients.remove(id);
        self.operators.remove(id);
    }

    fn get(&self, id: u64) -> Option<&Guest> {
        self.clients.guests.get(&id).or_else(|| self.operators.guests.get(&id))
    }

    /// A guest has sent a request that is not answered at once.
    pub(crate) fn on_request(&self, id: u64, asked: Asked) {
        if let Some(guest) = self.get(id) {
            guest.under_way.borrow_mut().push_back(asked);
        }
    }

    /// A request is answered. Returns the guest that sent it, if that is still here, and what it had asked.
    pub(crate) fn on_answer(&self, client: ClientRef) -> Option<(&Rc<Sink>, Asked)> {
        let guest = self.get(client.connection)?;
        let mut under_way = guest.under_way.borrow_mut();
        // Answers leave mostly in the order of the requests.
        let place = under_way.iter().position(|asked| asked.tag == client.tag);
        let asked = place.and_then(|place| under_way.remove(place)).expect("each request is answered once");
        Some((&guest.sink, asked))
    }

    /// The number of guests, with those that are leaving.
    pub(crate) fn len(&self) -> usize {
        self.clients.guests.len() + self.operators.guests.len()
    }

    pub(crate) fn sinks(&self) -> impl Iterator<Item = &Rc<Sink>> {
        let all = self.clients.guests.values().chain(self.operators.guests.values());
        all.map(|guest| &guest.sink)
    }

    /// The number of clients and of their places, and the number of operators.
    pub(crate) fn taken(&self) -> ((u32, u32), u32) {
        ((self.clients.taken(), self.clients.max), self.operators.taken())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_protocol::contract::Time;

    /// So many that none of two places is free.
    fn full() -> (Guests, Vec<u64>) {
        let mut guests = Guests::new(2);
        let ids = (0..2).map(|_| admit(&mut guests, Instant::now(), false).unwrap().id).collect();
        (guests, ids)
    }

    fn admit(guests: &mut Guests, now: Instant, is_operator: bool) -> Result<Admitted, Refusal> {
        guests.admit(now, is_operator, &Rc::new(Sink::new()))
    }

    fn asked(tag: u64) -> Asked {
        Asked { tag, commands: tag as u32, at: Time(tag) }
    }

    fn sink_of(guests: &Guests, id: u64) -> Rc<Sink> {
        guests.clients.guests[&id].sink.clone()
    }

    fn later() -> Instant {
        Instant::now() + CLIENT_IDLE_MIN
    }

    #[test]
    fn the_guest_that_was_idle_for_longest_makes_room() {
        let (mut guests, ids) = full();
        assert!(admit(&mut guests, Instant::now(), false).is_err(), "nobody is idle yet");
        let first = sink_of(&guests, ids[0]);
        let admitted = admit(&mut guests, later(), false).unwrap();
        let (sink, idle) = admitted.yielding.unwrap();
        assert!(Rc::ptr_eq(&sink, &first) && idle >= CLIENT_IDLE_MIN);
        assert_eq!((guests.taken(), guests.len()), (((2, 2), 0), 3), "it is here until it has gone");
        // It leaves once, and its place is taken.
        let second = sink_of(&guests, ids[1]);
        let (sink, _) = admit(&mut guests, later(), false).unwrap().yielding.unwrap();
        assert!(Rc::ptr_eq(&sink, &second));
        ids.into_iter().for_each(|id| guests.remove(id));
        assert_eq!((guests.taken(), guests.len(), guests.yielded), (((2, 2), 0), 2, 2));
    }

    #[test]
    fn whoever_waits_for_an_answer_stays() {
        let (mut guests, ids) = full();
        ids.iter().for_each(|id| guests.on_request(*id, asked(5)));
        guests.on_request(ids[0], asked(6));
        // The answers need not come in the order of the requests.
        assert_eq!(guests.on_answer(ClientRef { connection: ids[0], tag: 6 }).unwrap().1, asked(6));
        assert_eq!(guests.on_answer(ClientRef { connection: ids[1], tag: 5 }).unwrap().1, asked(5));
        let second = sink_of(&guests, ids[1]);
        let (sink, _) = admit(&mut guests, later(), false).unwrap().yielding.unwrap();
        assert!(Rc::ptr_eq(&sink, &second), "the first waits for another answer");
        // What has come since then is a request, perhaps.
        let (mut guests, ids) = full();
        let beginning = sink_of(&guests, ids[0]);
        beginning.on_heard(Instant::now() + CLIENT_IDLE_MIN);
        let second = sink_of(&guests, ids[1]);
        let (sink, _) = admit(&mut guests, later(), false).unwrap().yielding.unwrap();
        assert!(Rc::ptr_eq(&sink, &second));
    }

    #[test]
    fn a_search_in_vain_is_not_repeated_before_somebody_can_be_idle() {
        let (mut guests, _) = full();
        assert!(admit(&mut guests, Instant::now(), false).is_err());
        let from = guests.clients.search_from.unwrap();
        assert!(from > Instant::now() && from <= later());
        assert!(admit(&mut guests, from - Duration::from_micros(1), false).is_err());
        assert_eq!((guests.clients.search_from, guests.refused), (Some(from), 2));
        assert!(admit(&mut guests, from, false).is_ok());
    }

    #[test]
    fn operators_have_places_that_clients_do_not_get() {
        let (mut guests, ids) = full();
        ids.iter().for_each(|id| guests.on_request(*id, asked(5)));
        for _ in 0..OPERATORS_MAX {
            let now = Instant::now();
            assert!(admit(&mut guests, now, true).unwrap().yielding.is_none());
            assert!(admit(&mut guests, now, false).is_err());
        }
        assert!(admit(&mut guests, Instant::now(), true).is_err(), "their places are bounded, too");
        let soon = Instant::now() + OPERATOR_IDLE_MIN;
        assert!(admit(&mut guests, soon, true).unwrap().yielding.is_some());
        assert!(admit(&mut guests, later(), false).is_err(), "nor the place of an idle operator");
        // Where clients leave a place free, no operator has to go.
        guests.remove(ids[0]);
        assert!(admit(&mut guests, later(), true).unwrap().yielding.is_none());
        assert_eq!(guests.taken(), ((2, 2), OPERATORS_MAX));
    }
}
