//! The replicas: they start, crash, hear, write and speak.

use super::{Event, ProofStage, World};
use crate::coverage;
use crate::network::Sent;
use crate::plan::Bias;
use isonomy_protocol::contract::Send;
use isonomy_protocol::replica::Replica;
use isonomy_wire::id::ReplicaId;
use isonomy_wire::message::{PeerMessage, Phase};
use rand::Rng;

/// After this many turns a core is asked to check all that it has.
const CHECK_EVERY: u64 = 64;
/// How long a process takes to stop at most.
const STOP_PATIENCE_US: u64 = 300_000;

/// A turn at a time that is a multiple of this is followed by a publisher's, and the most components that it publishes.
const PUBLISH_EVERY: u64 = 5;
const COMPONENTS_MAX: u64 = 4;

impl World {
    /// Starts the replica of the epoch that is shown.
    pub(super) fn start_in_era(&mut self, id: u8, made: Option<Replica>) {
        self.maybe_set_back(id);
        let World { plan, now, nodes, ghost, faults, .. } = self;
        let node = &mut nodes[usize::from(id)];
        if !node.start(plan, *now, made, ghost, faults) {
            self.summary.coverage.damaged = true;
            return;
        }
        let life = node.life;
        if plan.trace {
            eprintln!("{:>9} {id} starts", self.now);
        }
        self.note(1, id.into(), life.into());
        self.queue.push(self.now, Event::Tick { node: id, life });
        self.after(1_000, 30_000, Event::Links);
        for client in 0..self.clients.len() {
            self.after(1_000, 30_000, Event::Connect { client, replica: self.host(id) });
        }
        self.turn(id);
    }

    /// A process is gone at once.
    pub(super) fn crash(&mut self, id: u8) {
        if !self.is_up(id) {
            return;
        }
        self.in_each_era(|world| world.crash_in_era(id));
        if self.plan.trace {
            eprintln!("{:>9} {id} crashes", self.now);
        }
        self.note(2, id.into(), 0);
        if self.faults.random_bool(0.5) {
            self.network.reset_from(id);
        }
        for client in 0..self.clients.len() {
            self.disconnect(client, id);
        }
        self.after(5_000, 50_000, Event::Links);
        let shown = self.era;
        self.show_newest_of(id);
        let damaged = self.nodes.iter().filter(|node| node.is_at_risk()).count();
        if damaged < self.ghost.quorum.f && !self.is_calm() && self.disks.random_bool(self.plan.damage) {
            let place = self.place(id).expect("it took part");
            self.nodes[usize::from(place)].damage(&mut self.disks);
        }
        self.show(shown);
        // An orphan's coordinator stays away until its proposal has been recovered.
        let most = if self.plan.bias == Bias::Orphans { 3_000_000 } else { 600_000 };
        if !self.is_calm() {
            self.after(1_000, most, Event::Start { node: id });
        }
    }

    fn crash_in_era(&mut self, process: u8) {
        let Some(place) = self.place(process) else { return };
        let node = &mut self.nodes[usize::from(place)];
        let Some(core) = &node.core else { return };
        self.summary.coverage.marks.merge(core.marks());
        self.summary.coverage.torn |= node.crash(&mut self.disks);
    }

    /// The process is asked to stop; what it has under way comes to an end, or it is ended after a while.
    pub(super) fn stop(&mut self, id: u8) {
        self.in_each_era(|world| world.stop_in_era(id));
    }

    fn stop_in_era(&mut self, process: u8) {
        let now = self.now;
        let Some(id) = self.place(process) else { return };
        let node = &mut self.nodes[usize::from(id)];
        let time = node.time(now);
        let Some(core) = &mut node.core else { return };
        core.on_stop(time);
        node.stops_by = Some(now + STOP_PATIENCE_US);
        self.turn(id);
    }

    /// A process that was asked to stop ends when it is done, or has taken too long.
    fn maybe_end(&mut self, id: u8) {
        let node = &self.nodes[usize::from(id)];
        let (Some(by), Some(core)) = (node.stops_by, &node.core) else { return };
        let is_done = core.is_idle();
        if is_done || self.now >= by {
            self.summary.coverage.stopped |= is_done;
            self.crash(self.host(id));
        }
    }

    /// Until when the process is paused, if it is. Whatever reaches a paused process reaches it later.
    pub(super) fn is_paused(&self, id: u8) -> Option<u64> {
        let until = self.nodes[usize::from(id)].paused_until;
        (until > self.now).then_some(until)
    }

    pub(super) fn deliver(&mut self, from: u8, life: u32, again: bool, send: Box<Send>) {
        let to = send.to.0;
        let is_there = self.is_hosted(from) && self.is_hosted(to);
        if !is_there || !self.network.is_current(self.host(from), self.host(to), life) {
            return;
        }
        if let Some(until) = self.is_paused(to) {
            return self.queue.push(until, Event::Deliver { from, life, again, send });
        }
        let time = self.nodes[usize::from(to)].time(self.now);
        let Some(core) = &mut self.nodes[usize::from(to)].core else { return self.misdeliver(from, *send) };
        if again {
            self.summary.coverage.duplicated(&send.message);
        }
        let written = &self.ghost.books[usize::from(to)].written;
        let is_committed = |id| written.of(id).phase == Phase::Committed;
        if coverage::id_of(&send.message).is_some_and(is_committed) {
            self.summary.coverage.late(&send.message);
        }
        let dies = self.plan.bias == Bias::CoordinatorsDie
            && self.now < self.plan.bias_us
            && matches!(send.message, PeerMessage::PreAcceptOk { .. })
            && self.faults.random_bool(0.1);
        if self.plan.trace {
            eprintln!("{:>9} {from} -> {to}  {:?}", self.now, send.message);
        }
        core.on_message(time, ReplicaId(from), send.message, send.payload);
        self.note(3, from.into(), to.into());
        self.turn(to);
        if dies {
            self.after(0, 3_000, Event::Crash { node: self.host(to) });
        }
    }

    pub(super) fn tick(&mut self, id: u8, life: u32) {
        if self.nodes[usize::from(id)].life != life {
            return;
        }
        if let Some(until) = self.is_paused(id) {
            return self.queue.push(until, Event::Tick { node: id, life });
        }
        let node = &mut self.nodes[usize::from(id)];
        let time = node.time(self.now);
        let Some(core) = &mut node.core else { return };
        core.on_timeout(time);
        node.is_tick = true;
        let next = core.next_deadline().unwrap_or(time.after(5_000));
        let at = self.nodes[usize::from(id)].real(self.now, next).max(self.now + 1);
        self.queue.push(at, Event::Tick { node: id, life });
        self.note(4, id.into(), 0);
        self.turn(id);
    }

    pub(super) fn synced(&mut self, id: u8, life: u32) {
        let node = &mut self.nodes[usize::from(id)];
        if node.life != life || node.core.is_none() {
            return;
        }
        if let Some(until) = self.is_paused(id) {
            return self.queue.push(until, Event::Synced { node: id, life });
        }
        let hung_until = self.nodes[usize::from(id)].hung_until;
        if hung_until > self.now {
            return self.queue.push(hung_until, Event::Synced { node: id, life });
        }
        if !self.is_calm() && self.disks.random_bool(self.plan.write_fails) {
            self.summary.coverage.failed_write = true;
            return self.crash(self.host(id));
        }
        self.nodes[usize::from(id)].synced(self.now, &mut self.ghost);
        self.note(5, id.into(), 0);
        self.turn(id);
    }

    pub(super) fn room(&mut self, id: u8) {
        match self.is_paused(id) {
            Some(until) => self.queue.push(until, Event::Room { node: id }),
            None => self.turn(id),
        }
    }

    pub(super) fn write_snapshot(&mut self, id: u8, life: u32) {
        if self.nodes[usize::from(id)].life != life {
            return;
        }
        if let Some(until) = self.is_paused(id) {
            return self.queue.push(until, Event::Snapshot { node: id, life });
        }
        let node = &mut self.nodes[usize::from(id)];
        let before = node.kept_snapshot();
        let dies = self.stage == ProofStage::Faults && self.disks.random_bool(self.plan.between);
        node.is_writing = node.write_snapshot(self.now, dies, &mut self.ghost);
        if dies && node.kept_snapshot() != before {
            self.summary.coverage.between = true;
            return self.crash(self.host(id));
        }
        if node.is_writing {
            self.after(100, 20_000, Event::Snapshot { node: id, life });
        }
        self.maybe_rot(id, before);
        self.note(6, id.into(), 0);
        self.turn(id);
    }

    /// A snapshot that was just kept does not always stay as it is.
    pub(super) fn maybe_rot(&mut self, id: u8, before: Option<u64>) {
        let at_risk = self.nodes.iter().filter(|node| node.is_at_risk()).count();
        let node = &mut self.nodes[usize::from(id)];
        let is_new = node.kept_snapshot() != before;
        let may_rot = is_new && self.stage == ProofStage::Faults && at_risk < self.ghost.quorum.f;
        if may_rot && self.disks.random_bool(self.plan.rot) {
            node.rot(&mut self.disks);
        }
    }

    pub(super) fn verified(&mut self, id: u8, life: u32) {
        if self.nodes[usize::from(id)].life != life {
            return;
        }
        if let Some(until) = self.is_paused(id) {
            return self.queue.push(until, Event::Verified { node: id, life });
        }
        let node = &mut self.nodes[usize::from(id)];
        node.is_verifying = false;
        node.verify_snapshot(self.now);
        self.note(8, id.into(), 0);
        self.turn(id);
    }

    pub(super) fn relink(&mut self) {
        let places = 0..self.nodes.len() as u8;
        places.clone().for_each(|id| self.ask_others(id));
        for id in places {
            let linked = self.linked(id);
            let time = self.nodes[usize::from(id)].time(self.now);
            if let Some(core) = &mut self.nodes[usize::from(id)].core {
                core.on_links(time, &linked);
                self.turn(id);
            }
        }
    }

    /// Publishers take turns at any time, since nothing but their fencing keeps them apart.
    fn maybe_publish(&mut self, id: u8) {
        if self.now.is_multiple_of(PUBLISH_EVERY) {
            let (epoch, node) = (self.ghost.epoch, &self.nodes[usize::from(id)]);
            let components = (self.now / PUBLISH_EVERY % COMPONENTS_MAX) as usize + 1;
            self.ghost.publication.publish(epoch, id, &node.outbox, components);
        }
    }

    /// Ends the turn of a replica, and sends its outputs on their way.
    pub(super) fn turn(&mut self, id: u8) {
        let (copies, before) = (self.nodes[usize::from(id)].copies(), self.ghost.frontiers[usize::from(id)]);
        let turn = self.nodes[usize::from(id)].turn(self.now, self.plan.trace, &mut self.ghost);
        self.summary.coverage.copied |= copies && self.ghost.frontiers[usize::from(id)] != before;
        self.maybe_publish(id);
        let life = self.nodes[usize::from(id)].life;
        if turn.writes {
            let slow = self.plan.bias == Bias::OwnRecordsLost && self.now < self.plan.bias_us;
            let tail = !self.is_calm() && self.disks.random_bool(self.plan.sync_tail);
            let factor = if tail {
                100
            } else if slow {
                10
            } else {
                1
            };
            let pause = self.disks.random_range(1..=self.plan.sync_us) * factor;
            self.queue.push(self.now + pause, Event::Synced { node: id, life });
        }
        if turn.takes && !self.nodes[usize::from(id)].is_writing {
            self.nodes[usize::from(id)].is_writing = true;
            self.after(100, 20_000, Event::Snapshot { node: id, life });
        }
        if let Some((source, barrier)) = turn.fetches {
            self.begin_transfer(id, source, barrier);
        }
        if turn.verifies && !self.nodes[usize::from(id)].is_verifying {
            self.nodes[usize::from(id)].is_verifying = true;
            self.after(100, 20_000, Event::Verified { node: id, life });
        }
        for send in turn.sends {
            self.send(id, send);
        }
        for reply in turn.replies {
            self.reply(self.host(id), reply);
        }
        self.turns += 1;
        if self.turns.is_multiple_of(CHECK_EVERY)
            && let Some(core) = &self.nodes[usize::from(id)].core
        {
            core.check();
            crate::check::on_status(&self.ghost, id, core);
        }
        self.maybe_end(id);
    }

    fn send(&mut self, from: u8, send: Send) {
        if !self.is_hosted(send.to.0) {
            return;
        }
        let (now, message, calm) = (self.now, &send.message, self.is_calm());
        let (host, to) = (self.host(from), self.host(send.to.0));
        // A connection begins with a welcome.
        if !self.nodes[usize::from(from)].admission.is_welcomed_by(send.to) {
            return;
        }
        let fate = self.network.send(&self.plan, Sent { now, from: host, to, message, calm });
        let dies = self.now < self.plan.bias_us
            && matches!(send.message, PeerMessage::PreAccept { .. })
            && match self.plan.bias {
                Bias::OwnRecordsLost => self.faults.random_bool(0.05),
                Bias::Orphans => match self.plan.deaf {
                    Some(deaf) => deaf.orphan == host && self.faults.random_bool(0.4),
                    None => self.faults.random_bool(0.1),
                },
                _ => false,
            };
        for (copy, at) in fate.arrivals.into_iter().enumerate() {
            let event =
                Event::Deliver { from, life: fate.life, again: copy > 0, send: Box::new(send.clone()) };
            self.queue.push(at, event);
        }
        // An orphan's coordinator may also be there and silent for a while.
        if dies && self.plan.bias == Bias::Orphans && self.faults.random_bool(0.5) {
            self.nodes[usize::from(from)].paused_until = self.now + self.faults.random_range(20_000..800_000);
        } else if dies {
            self.after(0, 500, Event::Crash { node: host });
        }
    }
}
