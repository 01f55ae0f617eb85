//! Requests of clients at this replica that wait for an instance, and clients that wait for the execution of one. The
//! reasons for refusals are in [`crate::phase`].

use crate::contract::{Busy, ClientRef, Room, Time};
use crate::limits::{GATHER_BYTES, PENDING_BYTES_MAX, PENDING_REQUESTS_MAX};
use crate::payload::Payload;
use isonomy_wire::command::{BATCH_BYTES_MAX, BATCH_COMMANDS_MAX};
use std::collections::{BTreeMap, VecDeque};

/// Requests on their way into an instance, and the clients that wait for them, one per part.
#[derive(Clone, Debug)]
struct Pending {
    payload: Payload,
    clients: Vec<ClientRef>,
}

impl Pending {
    fn bytes(&self) -> usize {
        self.payload.batch().payload().len()
    }
}

/// The progress of a replica's stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Stop {
    #[default]
    Serving,
    /// The replica takes no more requests.
    Stopping,
    /// The log has the record that all own instances have executed.
    Stopped,
}

/// The requests that wait for an instance, and the clients that wait for answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests {
    pending: VecDeque<Pending>,
    /// The bytes of these requests.
    bytes: usize,
    /// The clients that wait for own instances, by sequence number.
    waiters: BTreeMap<u64, Vec<ClientRef>>,
    /// G6: whether the others have confirmed that this replica was not set back.
    is_admitted: bool,
    no_quorum_since: Option<Time>,
    /// The room of the log, and the reason why requests are refused, if they are.
    room: Room,
    stop: Stop,
}

impl Requests {
    /// Queues a client's request. `Busy`: the queue is full, and the request was not taken.
    pub(crate) fn offer(&mut self, client: ClientRef, payload: Payload) -> Result<(), Busy> {
        let pending = Pending { payload, clients: vec![client] };
        if self.pending.len() >= PENDING_REQUESTS_MAX || self.bytes + pending.bytes() > PENDING_BYTES_MAX {
            return Err(Busy);
        }
        self.bytes += pending.bytes();
        self.pending.push_back(pending);
        Ok(())
    }

    /// Queues a request of the replica itself. No client waits for the answer, and the reference belongs to no
    /// connection.
    pub(crate) fn push_own(&mut self, payload: Payload) {
        let pending = Pending { payload, clients: vec![ClientRef::default()] };
        self.bytes += pending.bytes();
        self.pending.push_back(pending);
    }

    /// Puts back the requests of an instance that became a Nop. They are the next to get another instance.
    pub(crate) fn put_back(&mut self, payload: Payload, clients: Vec<ClientRef>) {
        let pending = Pending { payload, clients };
        self.bytes += pending.bytes();
        self.pending.push_front(pending);
    }

    /// Joins requests that wait, up to a batch; `None` if none waits.
    pub(crate) fn gather(&mut self) -> Option<(Payload, Vec<ClientRef>)> {
        let (mut payloads, mut clients) = (Vec::new(), Vec::new());
        let (mut bytes, mut commands) = (0, 0);
        while let Some(next) = self.pending.front() {
            let (more_bytes, more) = (next.bytes(), next.payload.batch().commands() as usize);
            let full = bytes + more_bytes > BATCH_BYTES_MAX || commands + more > BATCH_COMMANDS_MAX;
            if !payloads.is_empty() && (full || bytes + more_bytes > GATHER_BYTES) {
                break;
            }
            (bytes, commands) = (bytes + more_bytes, commands + more);
            let next = self.pending.pop_front().expect("the loop has looked at it");
            payloads.push(next.payload);
            clients.extend(next.clients);
        }
        self.bytes -= bytes;
        (!payloads.is_empty()).then(|| (Payload::join(&payloads), clients))
    }

    /// Whether no request waits for an instance.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// The number of requests that wait for an instance, and their bytes.
    pub(crate) fn queued(&self) -> (u64, u64) {
        (self.pending.len() as u64, self.bytes as u64)
    }

    /// Takes all requests that wait for an instance back, and names their clients.
    pub(crate) fn give_back(&mut self) -> impl Iterator<Item = ClientRef> + use<> {
        self.bytes = 0;
        std::mem::take(&mut self.pending).into_iter().flat_map(|pending| pending.clients)
    }

    /// Notes the clients that wait for the execution of an own instance.
    pub(crate) fn wait(&mut self, seq: u64, clients: Vec<ClientRef>) {
        // No client waits for a barrier.
        if !clients.is_empty() {
            self.waiters.insert(seq, clients);
        }
    }

    /// Takes the clients that wait for an own instance.
    pub(crate) fn take_waiters(&mut self, seq: u64) -> Option<Vec<ClientRef>> {
        self.waiters.remove(&seq)
    }

    /// Takes the clients that wait for any own instance up to a number.
    pub(crate) fn take_waiters_upto(&mut self, seq: u64) -> impl Iterator<Item = ClientRef> + use<> {
        let above = self.waiters.split_off(&(seq + 1));
        std::mem::replace(&mut self.waiters, above).into_values().flatten()
    }

    /// Takes the clients that wait for any own instance.
    pub(crate) fn take_all_waiters(&mut self) -> impl Iterator<Item = ClientRef> + use<> {
        std::mem::take(&mut self.waiters).into_values().flatten()
    }

    /// G6: the others have confirmed the state of this replica.
    pub(crate) fn admit(&mut self) {
        self.is_admitted = true;
    }

    /// G6: whether the replica was admitted.
    pub(crate) fn is_admitted(&self) -> bool {
        self.is_admitted
    }

    /// Notes whether a slow quorum can be reached.
    pub(crate) fn on_quorum(&mut self, now: Time, is_reached: bool) {
        self.no_quorum_since = if is_reached { None } else { self.no_quorum_since.or(Some(now)) };
    }

    /// How long no slow quorum could be reached, in microseconds.
    pub(crate) fn without_quorum_us(&self, now: Time) -> u64 {
        self.no_quorum_since.map_or(0, |since| now.since(since))
    }

    /// Notes whether the log may grow.
    pub(crate) fn on_room(&mut self, room: Room) {
        self.room = room;
    }

    /// Whether the log may grow.
    pub(crate) fn room(&self) -> Room {
        self.room
    }

    /// D9: whether the own disk hangs.
    pub(crate) fn is_hung(&self) -> bool {
        matches!(self.room, Room::Hung(_))
    }

    /// Stops taking requests.
    pub(crate) fn on_stop(&mut self) {
        self.stop = Stop::Stopping;
    }

    /// Notes that the log has the record that all own instances have executed.
    pub(crate) fn on_stopped(&mut self) {
        self.stop = Stop::Stopped;
    }

    /// Whether the replica takes no more requests.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop != Stop::Serving
    }

    /// Whether the log has the record that all own instances have executed.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop == Stop::Stopped
    }

    /// Verifies what must hold between any two inputs, if own instances after `executed` up to `used` wait for
    /// their execution.
    pub(crate) fn check(&self, executed: u64, used: u64) {
        assert_eq!(self.bytes, self.pending.iter().map(Pending::bytes).sum::<usize>(), "bytes that wait");
        let parts = |pending: &Pending| pending.payload.batch().parts().len();
        assert!(self.pending.iter().all(|it| it.clients.len() == parts(it)), "a client waits for each part");
        let is_open = |seq: &u64| *seq > executed && *seq <= used;
        assert!(self.waiters.keys().all(is_open), "clients wait for what has executed: {:?}", self.waiters);
    }

    /// Verifies that clients have their answers.
    pub(crate) fn check_settled(&self) {
        let is_own = |pending: &Pending| pending.clients.iter().all(|client| *client == ClientRef::default());
        assert!(self.pending.iter().all(is_own), "a request waits");
        assert!(self.waiters.is_empty(), "{:?} wait", self.waiters);
    }
}
