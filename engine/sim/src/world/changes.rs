//! Changes of the members (section 9) among all other faults: an operator announces and abandons them, any replica
//! drives them on, and the store of records is away, slow, behind, or loses its answers.

use super::{Event, World};
use crate::store::{Record, State, Store};
use isonomy_protocol::contract::Send;
use isonomy_protocol::epoch::{Entered, FIRST, Found, judge};
use isonomy_wire::id::{Epoch, RecordId, ReplicaId};
use rand::Rng;

/// How often a replica looks at the record.
const LOOK_EVERY_US: std::ops::Range<u64> = 5_000..60_000;
/// How long a request to the store takes at most.
const SLOW_US: u64 = 50_000;
/// How often the store does not answer a replica that looks at it.
const AWAY: f64 = 0.1;
/// How far what a replica sees is behind at most, in revisions.
const BEHIND_MAX: usize = 2;
/// How often a change takes a member's directory away, which another one replaces.
const REPLACES: f64 = 0.4;
/// How often an operator who finds a change abandons it.
const ABANDONS: f64 = 0.4;

/// The store, and what is known of it.
pub(super) struct Changes {
    store: Store,
    /// The revision that each replica has seen. A replica sees none before it.
    seen: Vec<usize>,
    /// What each has entered, durably.
    entered: Vec<Entered>,
    /// The store is away until then.
    away_until: u64,
}

impl Changes {
    pub(super) fn new(n: u8) -> Changes {
        let of = Entered { epoch: FIRST, record: RecordId(1) };
        let first = Record { of, predecessor: RecordId(0), fresh: None, state: State::Active };
        let (seen, entered) = (vec![0; usize::from(n)], vec![of; usize::from(n)]);
        Changes { store: Store::new(first), seen, entered, away_until: 0 }
    }

    fn newest(&self) -> Record {
        self.store.at(self.store.revision())
    }
}

/// The same epoch with another state.
fn with_state(record: Record, state: State) -> Record {
    Record { state, ..record }
}

/// The record of the next epoch.
fn successor(record: Record, id: RecordId, fresh: Option<u8>) -> Record {
    let of = Entered { epoch: Epoch(record.of.epoch.0 + 1), record: id };
    Record { of, predecessor: record.of.record, fresh, state: State::Active }
}

impl World {
    /// The epoch that a process has entered last.
    pub(super) fn entered_era(&self, id: u8) -> usize {
        self.changes.entered[usize::from(id)].epoch.0 as usize - 1
    }

    pub(super) fn plan_changes(&mut self) {
        if self.plan.change_every_us > 0 {
            for node in 0..self.plan.n {
                self.after(LOOK_EVERY_US.start, LOOK_EVERY_US.end, Event::Drive { node });
            }
            self.every(self.plan.change_every_us, Event::Change);
        }
    }

    /// All that run are in the newest epoch, and no change is under way.
    pub(super) fn has_changed(&mut self) -> bool {
        let newest = self.changes.newest();
        let up: Vec<u8> = (0..self.plan.n).filter(|id| self.is_up(*id)).collect();
        let is_there = |id: &u8| self.changes.entered[usize::from(*id)] == newest.of;
        newest.state == State::Active && up.iter().all(is_there) && self.ghost.sealed.is_none()
    }

    /// An operator announces a change, or abandons one, or the store goes away for a while.
    pub(super) fn change(&mut self) {
        self.every(self.plan.change_every_us, Event::Change);
        if self.faults.random_bool(0.2) {
            self.changes.away_until = self.now + self.faults.random_range(10_000..1_000_000);
        }
        if self.now < self.changes.away_until {
            return;
        }
        let (revision, newest) = (self.changes.store.revision(), self.changes.newest());
        match newest.state {
            State::Active => {
                let replaced = self.choose_replaced();
                let next = RecordId(self.faults.random());
                let announced = with_state(newest, State::Changing(next, replaced));
                assert!(self.changes.store.swap(revision, announced), "nobody else was there");
                if let Some(id) = replaced {
                    self.lose(id);
                }
            }
            State::Changing(..) if self.faults.random_bool(ABANDONS) => {
                let abandoned = with_state(newest, State::Active);
                assert!(self.changes.store.swap(revision, abandoned), "nobody else was there");
                self.summary.coverage.abandoned = true;
            }
            State::Changing(..) => {}
        }
    }

    /// A member whose directory is lost, or gets lost now, if there is one.
    fn choose_replaced(&mut self) -> Option<u8> {
        self.show_last();
        let lost: Vec<u8> = self.nodes.iter().filter(|node| node.is_lost).map(|node| node.id).collect();
        let may_lose = lost.len() < self.ghost.quorum.f && self.faults.random_bool(REPLACES);
        let id = self.faults.random_range(0..self.plan.n);
        lost.first().copied().or_else(|| may_lose.then_some(id))
    }

    /// The directory of a member is gone, and so is the member.
    fn lose(&mut self, id: u8) {
        self.crash(id);
        self.in_each_era(|world| {
            let node = &mut world.nodes[usize::from(id)];
            (node.is_damaged, node.is_lost) = (true, true);
        });
    }

    /// A replica looks at the record, and does what comes next.
    pub(super) fn drive(&mut self, id: u8) {
        self.after(LOOK_EVERY_US.start, LOOK_EVERY_US.end, Event::Drive { node: id });
        self.show_newest_of(id);
        let is_away =
            !self.is_calm() && (self.now < self.changes.away_until || self.faults.random_bool(AWAY));
        if is_away || self.nodes[usize::from(id)].core.is_none() || self.is_paused(id).is_some() {
            return;
        }
        let (newest, place) = (self.changes.store.revision(), usize::from(id));
        let behind = if self.is_calm() { 0 } else { self.faults.random_range(0..=BEHIND_MAX) };
        let revision = self.changes.seen[place].max(newest.saturating_sub(behind));
        self.changes.seen[place] = revision;
        let record = self.changes.store.at(revision);
        let entered = self.changes.entered[place];
        match judge(entered, record.of, record.predecessor) {
            Ok(Found::Later) => self.enter_epoch(id, record),
            Ok(Found::Same) => self.drive_on(id, revision, record),
            Err(back) => panic!("section 9: replica {id} is told that the store went back: {back}"),
        }
    }

    /// The next step of a change, which any replica takes.
    fn drive_on(&mut self, id: u8, revision: usize, record: Record) {
        let (now, node) = (self.now, &mut self.nodes[usize::from(id)]);
        let time = node.time(now);
        let (ended, Some(core)) = (node.ended, &mut node.core) else { return };
        match (ended, record.state) {
            (None, State::Active) => {}
            (None, State::Changing(next, _)) => {
                core.propose_seal(time, next);
                self.turn(id);
            }
            (Some(_), _) if !self.is_state_safe(id) => {}
            (Some(sealed), State::Changing(next, replaced)) if sealed.record == next => {
                self.swap_soon(revision, successor(record, next, replaced));
            }
            // The change of the Seal was abandoned: the members stay, whatever else was announced.
            (Some(_), State::Active | State::Changing(..)) => {
                let again = RecordId(self.faults.random());
                self.swap_soon(revision, successor(record, again, None));
            }
        }
    }

    /// A slow quorum has the state at the Seal durably.
    fn is_state_safe(&mut self, id: u8) -> bool {
        let reached = self.reached(id);
        let have = reached.iter().filter(|peer| self.nodes[peer.index()].ended.is_some()).count();
        have + 1 >= self.ghost.quorum.slow
    }

    /// A request to the store, which may take its time or not arrive. Nobody counts on its answer.
    fn swap_soon(&mut self, revision: usize, record: Record) {
        if self.is_calm() || self.faults.random_bool(0.9) {
            self.after(100, SLOW_US, Event::Swap { revision, record: Box::new(record) });
        }
    }

    /// A request has reached the store.
    pub(super) fn swap(&mut self, revision: usize, record: Record) {
        if !self.changes.store.swap(revision, record) {
            self.summary.coverage.competed = true;
            return;
        }
        self.summary.coverage.changed = true;
        self.begin_era(record.fresh);
        // The new member has been made with the record.
        if let Some(id) = record.fresh {
            self.changes.entered[usize::from(id)] = record.of;
            self.changes.seen[usize::from(id)] = self.changes.store.revision();
            self.summary.coverage.replaced = true;
            self.after(1_000, 300_000, Event::Start { node: id });
        }
    }

    /// A replica enters a later epoch: with the state at the Seal, or without any state.
    fn enter_epoch(&mut self, id: u8, record: Record) {
        let (from, to) = (self.era, record.of.epoch.0 as usize - 1);
        let node = &mut self.nodes[usize::from(id)];
        let core = node.core.as_ref().expect("the caller has looked");
        let is_sealed = core.sealed().is_some();
        if is_sealed && (node.ended.is_none() || (core.taking().is_some() && self.faults.random_bool(0.5))) {
            return;
        }
        self.changes.entered[usize::from(id)] = record.of;
        let made = if to == from + 1 { self.hand_over(id) } else { None };
        if made.is_none() {
            self.leave_epoch(id);
        }
        for era in 0..to.saturating_sub(1) {
            self.show(era);
            self.leave_epoch(id);
        }
        self.show(to);
        self.start_in_era(id, made);
    }

    /// The process takes no part any more in the epoch that is shown.
    fn leave_epoch(&mut self, id: u8) {
        let node = &mut self.nodes[usize::from(id)];
        let Some(core) = &node.core else { return };
        self.summary.coverage.marks.merge(core.marks());
        node.crash(&mut self.disks);
        (0..self.clients.len()).for_each(|client| self.disconnect(client, id));
        for client in 0..self.clients.len() {
            self.after(1_000, 30_000, Event::Connect { client, replica: id });
        }
    }

    /// A message of an epoch reaches a process that has no replica in it, or none any more.
    pub(super) fn misdeliver(&mut self, from: u8, send: Send) {
        let (sent_in, to) = (Epoch(self.era as u32 + 1), send.to.0);
        self.show_newest_of(to);
        let node = &mut self.nodes[usize::from(to)];
        let time = node.time(self.now);
        let Some(core) = &mut node.core else { return };
        match core.check_epoch(sent_in) {
            Ok(()) => {
                core.on_message(time, ReplicaId(from), send.message, send.payload);
                self.turn(to);
            }
            Err(_) => self.summary.coverage.hinted = true,
        }
    }
}
