//! The proof: the network is fair, and everything that was seen must come to an end.

use super::{Event, ProofStage, Summary, World};
use crate::check;
use crate::client::Client;
use crate::contention::Contention;
use crate::history::{self, Asked, Op, Told};
use isonomy_protocol::replica::Replica;
use isonomy_wire::conversation::Routing;
use rand::Rng;
use rand::seq::IndexedRandom;
use std::collections::{BTreeMap, BTreeSet};

/// How long everything may take to be decided and executed, once the network is fair.
const PATIENCE_US: u64 = 120_000_000;
/// How often it is looked whether that is so.
const LOOK_EVERY_US: u64 = 50_000;

impl World {
    fn enter(&mut self, stage: ProofStage) {
        (self.stage, self.stage_since) = (stage, self.now);
        self.note(9, stage as u64, 0);
    }

    /// From here on the network is fair. In half of the runs a legal minority stays down.
    pub(super) fn heal(&mut self) {
        self.enter(ProofStage::Minority);
        self.network.heal();
        let mut stopping = BTreeSet::new();
        self.in_each_era(|world| {
            let asked = world.nodes.iter().filter(|node| node.stops_by.is_some());
            stopping.extend(asked.map(|node| world.host(node.id)));
        });
        stopping.into_iter().for_each(|id| self.crash(id));
        self.in_each_era(|world| world.nodes.iter_mut().for_each(|node| node.paused_until = 0));
        self.put_store_back();
        self.show_last();
        let lost = self.members().filter(|id| self.nodes[usize::from(*id)].is_at_risk());
        let lost: Vec<u8> = lost.map(|place| self.host(place)).collect();
        let most = self.ghost.quorum.f - lost.len();
        // The members to come are all needed if they are few.
        let dead = if !self.plan.quiet && !self.is_changing() && self.faults.random_bool(0.5) {
            self.faults.random_range(0..=most)
        } else {
            0
        };
        let all: Vec<u8> =
            self.members().map(|place| self.host(place)).filter(|id| !lost.contains(id)).collect();
        let dead: Vec<u8> = all.choose_multiple(&mut self.faults, dead).copied().collect();
        dead.iter().for_each(|id| self.crash(*id));
        self.start_all_but(&dead);
        self.queue.push(self.now + LOOK_EVERY_US, Event::Look);
    }

    fn start_all_but(&mut self, dead: &[u8]) {
        for id in (0..self.plan.pool).filter(|id| !dead.contains(id)) {
            self.start_if_down(id);
            for client in 0..self.clients.len() {
                self.after(1_000, 30_000, Event::Connect { client, replica: id });
            }
        }
        self.after(1_000, 30_000, Event::Links);
    }

    fn is_settled(&self) -> bool {
        let mut live = self.nodes.iter().filter_map(|node| node.core.as_ref()).map(|core| core.status());
        let Some(first) = live.next() else { return false };
        first.unexecuted == 0
            && live.all(|status| status.unexecuted == 0 && status.frontier == first.frontier)
    }

    pub(super) fn look(&mut self) {
        self.promote();
        self.show_last();
        let done = self.clients.iter().all(Client::is_done) && self.has_changed() && self.is_settled();
        if !done {
            if self.now - self.stage_since > PATIENCE_US {
                check::assert_all_executed(self.nodes.iter().filter_map(|node| node.core.as_ref()));
                let waits = self.ops.iter().find(|op| op.told.is_none());
                panic!("V16: a client waits: {waits:?}; the newest record: {:?}", self.changes.newest());
            }
            return self.queue.push(self.now + LOOK_EVERY_US, Event::Look);
        }
        match self.stage {
            ProofStage::Minority => {
                self.enter(ProofStage::All);
                self.start_all_but(&[]);
            }
            ProofStage::All => {
                self.enter(ProofStage::Reading);
                self.read_all();
            }
            ProofStage::Reading => return self.enter(ProofStage::Done),
            ProofStage::Faults | ProofStage::Done => unreachable!("nobody looks then"),
        }
        self.queue.push(self.now + LOOK_EVERY_US, Event::Look);
    }

    /// A client of its own reads every key.
    fn read_all(&mut self) {
        let mut plan = self.plan.clone();
        plan.deadline_us = PATIENCE_US;
        let mut reader = Client::new(&plan, self.clients.len(), 0);
        for key in 0..plan.keys {
            reader.ask(&plan, self.now, &mut self.ops, key, Asked::Read);
        }
        self.clients.push(reader);
        for replica in 0..plan.pool {
            self.connect(self.clients.len() - 1, replica);
        }
    }

    /// Each node publishes all that it has, unless it took over a snapshot and lacks what is not published yet.
    fn publish_the_rest(&mut self) {
        let coverage = &mut self.summary.coverage;
        for node in self.nodes.iter().filter(|node| node.core.is_some()) {
            let has_all = self.ghost.publication.publish(self.ghost.epoch, node.id, &node.outbox, usize::MAX);
            coverage.published_behind_a_gap |= has_all && node.outbox.has_gap();
        }
        coverage.publishers_took_turns |= self.ghost.publication.turns > 0;
    }

    pub(super) fn finish(mut self) -> Summary {
        self.in_each_era(|world| {
            let live: Vec<_> = world.nodes.iter().filter_map(|node| node.core.as_ref()).collect();
            live.iter().for_each(|core| core.check());
            // A member that the next epoch left out may never hear how its own one has ended.
            let is_over = |core: &&&Replica| core.sealed().is_some() || world.era == world.last_era();
            live.iter().filter(is_over).for_each(|core| core.check_settled());
            live.iter().for_each(|core| world.summary.coverage.marks.merge(core.marks()));
            world.publish_the_rest();
        });
        self.show_last();
        let live = || self.nodes.iter().filter_map(|node| node.core.as_ref());
        check::assert_all_executed(live());
        check::rows_have_no_gaps(&self.ghost);
        self.summary.coverage.deleted = self.ops.iter().any(Op::is_deleted);
        self.summary.coverage.echoed = self.clients.iter().any(|client| client.keyed.is_echoed);
        self.summary.coverage.settled = self.clients.iter().any(|client| client.keyed.is_settled);
        self.summary.coverage.repeated = self.clients.iter().any(Client::is_repeated);
        let is_fenced = |client: &Client| client.predecessor.as_ref().is_some_and(|old| old.is_fenced);
        self.summary.coverage.fenced = self.clients.iter().any(is_fenced);
        self.summary.coverage.found_out = self.clients.iter().any(Client::is_found_out);
        let largest = live().map(|core| core.largest_component()).max().unwrap_or(0);
        let starts = self.nodes.iter().map(|node| node.life as usize).sum();
        check::assert_components_are_bounded(largest, starts);
        let asked_until = self.plan.ask_until_us.min(self.plan.faults_us);
        self.summary.contention = Contention::of(&self.ops, asked_until, largest);
        let reads = &self.ops[self.ops.len() - self.plan.keys..];
        let last: BTreeMap<usize, u64> = reads.iter().map(|op| (op.key, seen(op))).collect();
        history::judge(&self.ops, &last, self.plan.routing == Routing::Home);
        self.judge_untold();
        if self.plan.quiet {
            self.judge_quiet();
        }
        self.summary.decisions =
            self.ops.iter().filter(|op| matches!(op.told, Some((_, Told::Wrote(_))))).count() as u64;
        self.summary.micros = self.now;
        self.summary
    }
}

fn seen(op: &Op) -> u64 {
    match op.told {
        Some((_, Told::Saw(seq, _))) => seq,
        other => panic!("V16: the last read of key {} was told {other:?}", op.key),
    }
}
