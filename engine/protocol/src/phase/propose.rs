//! C1 to C3: the initial coordinator proposes at ballot 0, and every replica pre-accepts.

use crate::attempt::{Attempt, Proposal, Stage, asked_at};
use crate::conflict::Learnt;
use crate::contract::{ClientRef, Time};
use crate::instance::Choice;
use crate::log::record::Record;
use crate::marks::Mark;
use crate::mutant::{self, Mutant};
use crate::payload::Payload;
use crate::quorum::ReplicaSet;
use crate::replica::Replica;
use isonomy_wire::deps::Deps;
use isonomy_wire::id::{Ballot, InstanceId, ReplicaId};
use isonomy_wire::message::{PeerMessage, Phase};

impl Replica {
    /// C1: proposes a batch in a new instance of the own row.
    pub(crate) fn submit(&mut self, now: Time, payload: Payload, clients: Vec<ClientRef>) {
        self.numbers.reserve(&mut self.outbox);
        let id = InstanceId::new(self.me, self.numbers.take());
        let Learnt { mut deps, places } = self.index.learn(id, &payload);
        deps.merge(&self.open_restart_marks());
        let mut unindexed = *self.forgetting.unindexed();
        self.peers.merge_unindexed(&mut unindexed);
        deps.merge(&unindexed.to_deps());
        // G4: Nops of which nobody here saw a batch are in no index. A barrier names those that are forgotten here, so
        // that its snapshot covers the floor.
        if payload.is_barrier() {
            deps.merge(&self.forgetting.floor().to_deps());
        }
        // S1: a batch conflicts with the Opens of its sessions. The session's id names the Open, so
        // that the edge is there whether the Open is known here or not. An Open of an earlier epoch comes before all.
        let epoch = self.config.epoch;
        for open in payload.batch().parts().iter().filter_map(|part| part.session.opened_during(epoch)) {
            deps.add(open);
        }
        let row_edge = if mutant::is(Mutant::NoRowEdge) { 0 } else { id.seq - 1 };
        deps.set(self.me, row_edge);
        self.leave_out_nops(&mut deps);

        // The message may leave before the replica's own record is durable, but not before the
        // block of sequence numbers is: no number is ever used twice (D5).
        let message = PeerMessage::PreAccept { id, deps };
        let block = self.numbers.block_of(id.seq);
        for to in self.peers.others() {
            self.outbox.send_behind(block, to, message.clone(), Some(payload.clone()));
        }
        self.attempts.insert(
            id,
            Attempt {
                ballot: Ballot::ZERO,
                stage: Stage::PreAccepting { oks: ReplicaSet::default(), equal: 0, union: Deps::NONE },
                began: now,
                sent: now,
            },
        );
        self.guardrail.on_proposed(now, id.seq);
        self.requests.wait(id.seq, clients);
        let instance = self.space.see(id, now).expect("the own row goes on without gaps");
        instance.learn(places);
        self.pre_accept(id, deps, deps, payload);
        if mutant::is(Mutant::EagerCoordinator) {
            return self.on_pre_accept_ok(now, self.me, id, &deps);
        }
        self.outbox.send_own(self.me, PeerMessage::PreAcceptOk { id, deps }, None);
    }

    /// The restart marks that still matter, because the ids that they name are not below the floor yet (D8).
    fn open_restart_marks(&self) -> Deps {
        if mutant::is(Mutant::NoRestartMarks) {
            return Deps::NONE;
        }
        self.numbers.open_restart_marks(self.forgetting.floor())
    }

    /// C2, the part that changes the state.
    fn pre_accept(&mut self, id: InstanceId, dep: Deps, init_dep: Deps, payload: Payload) {
        let instance = self.space.get_mut(id).expect("the id was seen");
        instance.pre_accept(dep, init_dep, payload);
        let (_, payload) = instance.name_in_log();
        self.outbox.append(Record::PreAccepted { id, deps: dep, init_deps: init_dep }, payload);
    }

    /// C2: on PreAccept.
    pub(crate) fn on_pre_accept(
        &mut self,
        now: Time,
        from: ReplicaId,
        id: InstanceId,
        deps: Deps,
        payload: Option<Payload>,
    ) {
        let lawful = from == id.row && deps.of(id.row) == id.seq - 1;
        let (true, Some(payload)) = (lawful, payload) else { return };
        let Some(instance) = self.space.get(id) else { return };
        if instance.is_committed() {
            return self.answer_with_commit(from, id);
        }
        if instance.bal() > Ballot::ZERO || instance.phase() > Phase::PreAccepted {
            let message = PeerMessage::Nack { id, refused: Ballot::ZERO, promised: instance.bal() };
            self.marks.set(Mark::C2Nack);
            return self.outbox.send(from, message, None);
        }
        if instance.phase() == Phase::Init {
            let Learnt { deps: mut dep, places } = self.index.learn(id, &payload);
            self.leave_out_nops(&mut dep);
            dep.merge(&deps);
            if !mutant::is(Mutant::NoFloorInDeps) {
                dep.merge(&self.forgetting.unindexed().to_deps());
            }
            // D8: ids of this replica's own row that it may have forgotten are named blindly.
            let mark = self.open_restart_marks().of(self.me);
            if mark > dep.of(self.me) {
                self.marks.set(Mark::D8Open);
                dep.set(self.me, mark);
            }
            dep.set(id.row, deps.of(id.row));
            self.space.see_all(&dep, now);
            self.space.get_mut(id).expect("it is there").learn(places);
            self.pre_accept(id, dep, deps, payload);
        } else {
            self.marks.set(Mark::C2Again);
        }
        // A duplicate is answered from the stored state.
        let deps = *self.space.get(id).expect("it is there").dep();
        self.numbers.name(&deps);
        self.outbox.send(from, PeerMessage::PreAcceptOk { id, deps }, None);
    }

    /// C3: on PreAcceptOk at the initial coordinator.
    pub(crate) fn on_pre_accept_ok(&mut self, now: Time, from: ReplicaId, id: InstanceId, deps: &Deps) {
        self.observe_answer(from, id, deps);
        let dropped = &mut self.counters.dropped;
        let Some(attempt) = asked_at(&mut self.attempts, dropped, id, Ballot::ZERO) else { return };
        let Some(instance) = self.space.get(id) else { return };
        let Stage::PreAccepting { oks, equal, union } = &mut attempt.stage else { return };
        assert!(instance.bal() == Ballot::ZERO && instance.phase() == Phase::PreAccepted, "C3: {id:?}");
        if !oks.insert(from) {
            return;
        }
        *equal += usize::from(instance.init_dep() == Some(deps));
        union.merge(deps);
        let fast = self.quorum.fast() - usize::from(mutant::is(Mutant::SmallFastQuorum));
        if *equal >= fast && oks.contains(self.me) {
            // C3a: the fast path.
            self.counters.fast += 1;
            self.marks.set(Mark::C3Fast);
            let dep = *instance.dep();
            let value = Proposal { cmd: Choice::Initial, dep, after: Deps::NONE, payload: None };
            self.decide(now, id, Ballot::ZERO, value);
        } else {
            self.maybe_go_slow(now, id);
        }
    }

    /// C3b: takes the slow path once the fast path is impossible or took too long, and at once in slow mode. Exactly one
    /// of the two paths is taken, since the stage ends with either.
    pub(crate) fn maybe_go_slow(&mut self, now: Time, id: InstanceId) {
        let Some(attempt) = self.attempts.get(&id) else { return };
        let Stage::PreAccepting { oks, equal, union } = &attempt.stage else { return };
        let is_slow = self.is_slow();
        let is_quorum = oks.len() >= self.quorum.slow() || (is_slow && mutant::is(Mutant::SlowWithoutQuorum));
        if !is_quorum || !oks.contains(self.me) {
            return;
        }
        let answers_to_come =
            self.peers.others().filter(|id| !oks.contains(*id) && self.peers.is_reached(*id)).count();
        let possible = equal + answers_to_come >= self.quorum.fast();
        let late = now.since(attempt.began) >= self.tuning.fast_path_us;
        match (possible, is_slow, late) {
            (false, ..) => {}
            (true, true, _) => self.marks.set(Mark::C3Hurried),
            (true, false, true) => self.counters.waited_in_vain += 1,
            (true, false, false) => return,
        }
        let value = Proposal { cmd: Choice::Initial, dep: *union, after: Deps::NONE, payload: None };
        self.counters.slow += 1;
        self.marks.set(Mark::C3Slow);
        self.propose(now, id, Ballot::ZERO, value);
    }
}
