//! Hooks for the faults that take more than a condition. The rules call each hook where its fault belongs; without
//! the feature the hooks do nothing.

#[cfg(feature = "mutants")]
mod bodies {
    use crate::instance::Instance;
    use crate::mutant::{Mutant, is};
    use crate::phase::recover::report;
    use crate::quorum::ReplicaSet;
    use crate::replica::Replica;
    use isonomy_wire::answer::ResponseBuilder;
    use isonomy_wire::deps::Deps;
    use isonomy_wire::id::{Ballot, InstanceId, PLACES_MAX, ReplicaId};
    use isonomy_wire::message::{PeerMessage, Phase};
    use isonomy_wire::route::hash_key;

    /// [`Mutant::DropAbal`]: an accepted value looks as young as the promise before the present one.
    pub(crate) fn on_promise(abal: &mut Ballot, promised: Ballot, phase: Phase) {
        if is(Mutant::DropAbal) && phase == Phase::Accepted {
            *abal = promised;
        }
    }

    /// [`Mutant::AfterLostInAccept`].
    pub(crate) fn on_accept(after: &mut Deps) {
        if is(Mutant::AfterLostInAccept) {
            *after = Deps::NONE;
        }
    }

    /// [`Mutant::LearnerVotes`]: the places whose replicas are asked for votes.
    pub(crate) fn voters(n: usize, learners: ReplicaSet) -> u8 {
        let mut linked = (0..PLACES_MAX as u8).filter(|id| learners.contains(ReplicaId(*id)));
        let last = linked.next_back().filter(|_| is(Mutant::LearnerVotes));
        last.map_or(n as u8, |last| last + 1)
    }

    impl Replica {
        /// [`Mutant::ReplyAtCommit`]: each Decide is answered with the next key_seq.
        pub(crate) fn reply_too_early(&mut self, id: InstanceId) {
            if !is(Mutant::ReplyAtCommit) || id.row != self.me {
                return;
            }
            let Some(payload) = self.space.get(id).and_then(|instance| instance.payload().cloned()) else {
                return;
            };
            let Some(waiters) = self.requests.take_waiters(id.seq) else { return };
            for (part, client) in payload.batch().parts().iter().zip(waiters) {
                let mut answers = ResponseBuilder::new(self.config.epoch, self.config.shard);
                for (index, command) in (part.index..).zip(payload.batch().commands_of(part)) {
                    let state = &self.machine.state;
                    let entry = state.get(&mut state.look_up(hash_key(command.key)), command.key);
                    answers.committed(id, index, entry.map_or(0, |entry| entry.key_seq) + 1);
                }
                self.outbox.reply(client, Ok(answers.encode()));
            }
        }

        /// [`Mutant::NopsLeaveIndex`].
        pub(crate) fn leave_out_nops(&self, deps: &mut Deps) {
            if !is(Mutant::NopsLeaveIndex) {
                return;
            }
            let is_nop =
                |row, seq| self.space.get(InstanceId::new(row, seq)).is_some_and(Instance::is_committed_nop);
            for row in self.peers.others() {
                while deps.of(row) > 0 && is_nop(row, deps.of(row)) {
                    deps.set(row, deps.of(row) - 1);
                }
            }
        }

        /// [`Mutant::ForgottenAccepts`].
        pub(crate) fn accept_forgotten(&mut self, to: ReplicaId, question: &PeerMessage) {
            if let PeerMessage::Accept { id, ballot, .. } = *question
                && is(Mutant::ForgottenAccepts)
            {
                self.outbox.send(to, PeerMessage::AcceptOk { id, ballot }, None);
            }
        }

        /// [`Mutant::ForgottenIsNew`]. Returns whether the question was answered.
        pub(crate) fn answer_forgotten_as_new(
            &mut self,
            to: ReplicaId,
            id: InstanceId,
            ballot: Ballot,
        ) -> bool {
            let is_new = is(Mutant::ForgottenIsNew) && self.is_forgotten(id);
            if is_new {
                self.outbox.send(to, report(id, ballot, &Instance::default()), None);
            }
            is_new
        }
    }
}

#[cfg(not(feature = "mutants"))]
mod bodies {
    use crate::quorum::ReplicaSet;
    use crate::replica::Replica;
    use isonomy_wire::deps::Deps;
    use isonomy_wire::id::{Ballot, InstanceId, ReplicaId};
    use isonomy_wire::message::{PeerMessage, Phase};

    #[inline(always)]
    pub(crate) fn on_promise(_: &mut Ballot, _: Ballot, _: Phase) {}

    #[inline(always)]
    pub(crate) fn on_accept(_: &mut Deps) {}

    #[inline(always)]
    pub(crate) fn voters(n: usize, _: ReplicaSet) -> u8 {
        n as u8
    }

    impl Replica {
        #[inline(always)]
        pub(crate) fn reply_too_early(&mut self, _: InstanceId) {}

        #[inline(always)]
        pub(crate) fn leave_out_nops(&self, _: &mut Deps) {}

        #[inline(always)]
        pub(crate) fn accept_forgotten(&mut self, _: ReplicaId, _: &PeerMessage) {}

        #[inline(always)]
        pub(crate) fn answer_forgotten_as_new(&mut self, _: ReplicaId, _: InstanceId, _: Ballot) -> bool {
            false
        }
    }
}

pub(crate) use bodies::{on_accept, on_promise, voters};
