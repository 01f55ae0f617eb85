//! Changes of the members (section 9) among all other faults: an operator announces, promotes and cancels them, any
//! replica drives them on, and the store of records is away, slow, behind, or loses its answers.

use super::{Event, World};
use crate::store::{Change, Record, Stage, Store};
use isonomy_protocol::contract::Send;
use isonomy_protocol::epoch::{Entered, FIRST, RecordFound, judge};
use isonomy_wire::id::{Epoch, REPLICAS_MAX, RecordId, ReplicaId};
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use std::collections::BTreeSet;

/// How often a replica looks at the record.
const LOOK_EVERY_US: std::ops::Range<u64> = 5_000..60_000;
/// How long a request to the store takes at most.
const SLOW_US: u64 = 50_000;
/// How often the store does not answer a replica that looks at it.
const AWAY: f64 = 0.1;
/// How far what a replica sees is behind at most, in revisions.
const BEHIND_MAX: usize = 2;
/// How often a change takes a member's directory away.
const LOSES: f64 = 0.4;
/// How often a change makes the cluster larger or smaller, and by how many members at most.
const RESIZES: f64 = 0.3;
const RESIZED_MAX: usize = 2;
/// How often members change their places.
const MOVES: f64 = 0.2;
/// How often an operator says himself when the members change.
const HOLDS: f64 = 0.2;
/// How often the store is set back to a backup, and for how long at most, until its newest state is put back.
const SET_BACK: f64 = 0.08;
const SET_BACK_US: u64 = 500_000;
/// How often an operator who finds a change cancels it.
const CANCELS: f64 = 0.3;

/// The store, and what is known of it.
pub(super) struct Changes {
    store: Store,
    /// The revision that each process has seen. A process sees none before it.
    seen: Vec<usize>,
    /// What each has entered, durably.
    entered: Vec<Entered>,
    /// The processes that have said that they are close, and that they hold the state at the Seal, by change.
    close: BTreeSet<(RecordId, u8)>,
    held: BTreeSet<(RecordId, u8)>,
    /// The store is away until then.
    away_until: u64,
    /// The store is as it was at this revision until then. Whatever is written to it is lost.
    backup: usize,
    set_back_until: u64,
}

impl Changes {
    pub(super) fn new(n: u8, pool: u8) -> Changes {
        let of = Entered { epoch: FIRST, record: RecordId(1) };
        let first = Record { of, predecessor: RecordId(0), members: (0..n).collect(), change: None };
        let (seen, entered) = (vec![0; usize::from(pool)], vec![of; usize::from(pool)]);
        let (close, held) = (BTreeSet::new(), BTreeSet::new());
        let (store, away_until) = (Store::new(first), 0);
        Changes { store, seen, entered, close, held, away_until, backup: 0, set_back_until: 0 }
    }

    pub(super) fn newest(&self) -> Record {
        self.store.at(self.store.revision()).clone()
    }

    /// Whether a slow quorum of the next members, and all new ones, are close.
    fn are_close(&self, record: &Record, change: &Change) -> bool {
        let is_close = |process: &u8| self.close.contains(&(change.id, *process));
        let close = change.to.iter().filter(|process| is_close(process)).count();
        close >= slow(change) && record.learners().iter().all(is_close)
    }

    /// Whether a slow quorum of the next members holds the state at the Seal.
    fn is_held(&self, change: &Change) -> bool {
        let holds = |process: &&u8| self.held.contains(&(change.id, **process));
        change.to.iter().filter(holds).count() >= slow(change)
    }
}

/// The slow quorum of the members to come.
fn slow(change: &Change) -> usize {
    crate::restated::Sizes::of(change.to.len() as u8).slow
}

/// The same epoch with another change, or none.
fn with_change(record: &Record, change: Option<Change>) -> Record {
    Record { change, ..record.clone() }
}

/// The record of the next epoch.
fn successor(record: &Record, change: &Change) -> Record {
    let of = Entered { epoch: Epoch(record.of.epoch.0 + 1), record: change.id };
    Record { of, predecessor: record.of.record, members: change.to.clone(), change: None }
}

impl World {
    /// The epoch that a process has entered last.
    pub(super) fn entered_era(&self, process: u8) -> usize {
        self.changes.entered[usize::from(process)].epoch.0 as usize - 1
    }

    pub(super) fn plan_changes(&mut self) {
        if self.plan.change_every_us > 0 {
            for node in 0..self.plan.pool {
                self.after(LOOK_EVERY_US.start, LOOK_EVERY_US.end, Event::Drive { node });
            }
            self.every(self.plan.change_every_us, Event::Change);
        }
    }

    /// Whether a change is announced.
    pub(super) fn is_changing(&self) -> bool {
        self.changes.newest().change.is_some()
    }

    /// All members that run are in the newest epoch, and no change is under way.
    pub(super) fn has_changed(&mut self) -> bool {
        let newest = self.changes.newest();
        let is_there = |process: &u8| self.changes.entered[usize::from(*process)] == newest.of;
        let waits: Vec<u8> = newest.members.iter().copied().filter(|process| !is_there(process)).collect();
        newest.change.is_none()
            && !waits.into_iter().any(|process| self.is_up(process))
            && self.ghost.sealed.is_none()
    }

    /// An operator announces a change, promotes or cancels one, or the store goes away for a while.
    pub(super) fn change(&mut self) {
        self.every(self.plan.change_every_us, Event::Change);
        if self.faults.random_bool(0.2) {
            self.changes.away_until = self.now + self.faults.random_range(10_000..1_000_000);
        }
        if self.now >= self.changes.set_back_until && self.faults.random_bool(SET_BACK) {
            self.changes.backup = self.faults.random_range(0..=self.changes.store.revision());
            self.changes.set_back_until = self.now + self.faults.random_range(10_000..SET_BACK_US);
        }
        if self.now < self.changes.away_until || self.is_store_set_back() {
            return;
        }
        let newest = self.changes.newest();
        match &newest.change {
            None => self.announce(&newest),
            Some(change) if self.faults.random_bool(CANCELS) => self.cancel(&newest, change),
            Some(_) => self.promote(),
        }
    }

    /// Whether the store is in an old state.
    fn is_store_set_back(&self) -> bool {
        self.now < self.changes.set_back_until
    }

    /// The newest state of the store is put back, if it was set back.
    pub(super) fn put_store_back(&mut self) {
        self.changes.set_back_until = 0;
    }

    /// An operator writes, and nobody else was there.
    fn write(&mut self, record: Record) {
        let revision = self.changes.store.revision();
        assert!(self.changes.store.swap(revision, record), "nobody else was there");
    }

    fn announce(&mut self, newest: &Record) {
        let to = self.choose_members(&newest.members);
        let stage = if self.faults.random_bool(HOLDS) { Stage::Held } else { Stage::Learning };
        let change = Change { id: RecordId(self.faults.random()), to, stage };
        let announced = with_change(newest, Some(change));
        let learners = announced.learners();
        self.write(announced);
        for (place, process) in (newest.members.len() as u8..).zip(learners) {
            self.join(process, place);
            self.changes.entered[usize::from(process)] = newest.of;
            self.changes.seen[usize::from(process)] = self.changes.store.revision();
            self.after(1_000, 300_000, Event::Start { node: process });
        }
    }

    /// Members whose directory is lost are replaced or removed, and others come or go.
    fn choose_members(&mut self, members: &[u8]) -> Vec<u8> {
        self.show_last();
        let (n, f) = (members.len(), self.ghost.quorum.f);
        let lost = self.nodes[..n].iter().filter(|node| node.is_lost).count();
        if lost < f && self.faults.random_bool(LOSES) {
            let process = *members.choose(&mut self.faults).expect("there are members");
            self.lose(process);
            self.show_last();
        }
        let mut free: Vec<u8> = (0..self.plan.pool).filter(|process| !members.contains(process)).collect();
        free.shuffle(&mut self.faults);
        let mut to = Vec::new();
        for (place, process) in members.iter().enumerate() {
            if !self.nodes[place].is_lost {
                to.push(*process);
            } else if self.faults.random_bool(0.7) {
                self.summary.coverage.replaced |= !free.is_empty();
                to.extend(free.pop());
            }
        }
        if self.faults.random_bool(RESIZES) {
            let more = self.faults.random_range(1..=RESIZED_MAX).min(REPLICAS_MAX - to.len());
            to.extend(free.drain(..more.min(free.len())));
        } else if self.faults.random_bool(RESIZES) {
            let fewer = self.faults.random_range(1..=RESIZED_MAX);
            to.shuffle(&mut self.faults);
            to.truncate(to.len().saturating_sub(fewer).max(1));
        }
        if self.faults.random_bool(MOVES) {
            to.shuffle(&mut self.faults);
        }
        to
    }

    /// The directory of a member is gone, and so is the member.
    fn lose(&mut self, process: u8) {
        self.crash(process);
        self.for_each_node(process, |node| (node.is_damaged, node.is_lost) = (true, true));
    }

    /// An operator lets the change that waits for it go on, once the new members have copied the state.
    pub(super) fn promote(&mut self) {
        let newest = self.changes.newest();
        let is_ready =
            |change: &&Change| change.stage == Stage::Held && self.changes.are_close(&newest, change);
        if let Some(change) = newest.change.as_ref().filter(is_ready) {
            let sealing = Change { stage: Stage::Sealing, ..change.clone() };
            self.write(with_change(&newest, Some(sealing)));
            self.summary.coverage.promoted = true;
        }
    }

    /// Before a Seal can have been proposed nothing comes of the change; later the epoch ends with the members that it
    /// has. The learners go.
    fn cancel(&mut self, newest: &Record, change: &Change) {
        let ends = Change { to: newest.members.clone(), ..change.clone() };
        let is_late = change.stage == Stage::Sealing;
        if is_late && ends == *change {
            return;
        }
        self.write(with_change(newest, is_late.then_some(ends)));
        newest.learners().into_iter().for_each(|process| self.dismiss(process));
        self.summary.coverage.abandoned |= !is_late;
        self.summary.coverage.abandoned_late |= is_late;
    }

    /// A replica looks at the record, and does what comes next.
    pub(super) fn drive(&mut self, process: u8) {
        self.after(LOOK_EVERY_US.start, LOOK_EVERY_US.end, Event::Drive { node: process });
        self.show_newest_of(process);
        let is_away =
            !self.is_calm() && (self.now < self.changes.away_until || self.faults.random_bool(AWAY));
        let Some(place) = self.place(process).filter(|_| !is_away) else { return };
        if self.nodes[usize::from(place)].core.is_none() || self.is_paused(place).is_some() {
            return;
        }
        let revision = self.revision_for(process);
        let record = self.changes.store.at(revision).clone();
        match judge(self.changes.entered[usize::from(process)], record.of, record.predecessor) {
            Ok(RecordFound::Later) if record.members.contains(&process) => self.enter_epoch(process, &record),
            // The next epoch leaves it out: it serves on.
            Ok(RecordFound::Later) => {}
            Ok(RecordFound::Same) => self.drive_on(process, place, revision, &record),
            // It stops, and is started again until the newest state is back.
            Err(_) if self.is_store_set_back() => {
                self.summary.coverage.store_set_back = true;
                self.crash(process);
            }
            Err(back) => panic!("section 9: process {process} is told that the store went back: {back}"),
        }
    }

    /// The revision of the record that a process sees when it looks.
    fn revision_for(&mut self, process: u8) -> usize {
        let (newest, index) = (self.changes.store.revision(), usize::from(process));
        if self.is_store_set_back() {
            let (seen, backup) = (&mut self.changes.seen[index], self.changes.backup);
            *seen = backup.max(*seen);
            return backup;
        }
        let behind = if self.is_calm() { 0 } else { self.faults.random_range(0..=BEHIND_MAX) };
        let revision = self.changes.seen[index].max(newest.saturating_sub(behind));
        self.changes.seen[index] = revision;
        revision
    }

    /// The next step of a change, which any replica takes.
    fn drive_on(&mut self, process: u8, place: u8, revision: usize, record: &Record) {
        let (now, node) = (self.now, &mut self.nodes[usize::from(place)]);
        let time = node.time(now);
        let (ended, Some(core)) = (node.ended, &mut node.core) else { return };
        core.on_change(record.change.is_some());
        let Some(change) = &record.change else { return };
        if core.is_close() {
            self.changes.close.insert((change.id, process));
        }
        if ended.is_some_and(|sealed| sealed.record == change.id) {
            self.changes.held.insert((change.id, process));
        }
        match (change.stage, ended) {
            (Stage::Learning, _) if self.changes.are_close(record, change) => {
                let sealing = Change { stage: Stage::Sealing, ..change.clone() };
                self.swap_soon(revision, with_change(record, Some(sealing)));
            }
            (Stage::Learning | Stage::Held, _) => {}
            (Stage::Sealing, None) => {
                core.propose_seal(time, change.id);
                self.turn(place);
            }
            (Stage::Sealing, Some(sealed)) => {
                assert_eq!(
                    sealed.record, change.id,
                    "section 9: only one change of an epoch comes to its Seal"
                );
                if self.changes.is_held(change) {
                    self.swap_soon(revision, successor(record, change));
                }
            }
        }
    }

    /// A request to the store, which may take its time or not arrive. Nobody counts on its answer.
    fn swap_soon(&mut self, revision: usize, record: Record) {
        if self.is_calm() || self.faults.random_bool(0.9) {
            self.after(100, SLOW_US, Event::Swap { revision, record: Box::new(record) });
        }
    }

    /// A request has reached the store.
    pub(super) fn swap(&mut self, revision: usize, record: Record) {
        let before = self.changes.newest();
        if self.is_store_set_back() || !self.changes.store.swap(revision, record.clone()) {
            self.summary.coverage.competed = true;
            return;
        }
        if record.of == before.of {
            return;
        }
        let (old, new) = (&before.members, &record.members);
        let coverage = &mut self.summary.coverage;
        coverage.changed = true;
        coverage.learned |= new.iter().any(|process| !old.contains(process));
        coverage.grown |= new.len() > old.len();
        coverage.shrunk |= new.len() < old.len();
        self.begin_era(new);
    }

    /// A process enters a later epoch: with the state at the Seal, or without any state.
    fn enter_epoch(&mut self, process: u8, record: &Record) {
        let (from, to) = (self.era, record.of.epoch.0 as usize - 1);
        let place = self.place(process).expect("the caller has looked");
        let node = &mut self.nodes[usize::from(place)];
        let core = node.core.as_ref().expect("the caller has looked");
        let is_sealed = core.sealed().is_some();
        if is_sealed && (node.ended.is_none() || (core.taking().is_some() && self.faults.random_bool(0.5))) {
            return;
        }
        self.changes.entered[usize::from(process)] = record.of;
        let made = if to == from + 1 { self.hand_over(process) } else { None };
        if made.is_none() {
            self.leave_epoch(process);
        }
        for era in 0..to.saturating_sub(1) {
            self.show(era);
            self.leave_epoch(process);
        }
        self.show(to);
        let place = self.place(process).expect("it is a member");
        self.start_in_era(place, made);
    }

    /// The process takes no part any more in the epoch that is shown.
    fn leave_epoch(&mut self, process: u8) {
        let Some(place) = self.place(process) else { return };
        let node = &mut self.nodes[usize::from(place)];
        let Some(core) = &node.core else { return };
        self.summary.coverage.marks.merge(core.marks());
        node.crash(&mut self.disks);
        (0..self.clients.len()).for_each(|client| self.disconnect(client, process));
        for client in 0..self.clients.len() {
            self.after(1_000, 30_000, Event::Connect { client, replica: process });
        }
    }

    /// A message of an epoch reaches a process that has no replica in it, or none any more.
    pub(super) fn misdeliver(&mut self, from: u8, send: Send) {
        let (sent_in, process) = (Epoch(self.era as u32 + 1), self.host(send.to.0));
        self.show_newest_of(process);
        let Some(to) = self.place(process) else { return };
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
