//! Section 9: the Seal ends an epoch, and the core of the next one begins with the state at the Seal.

use crate::contract::{Config, Executed, Position, Sealed, StateAt, Time};
use crate::epoch::EpochStage;
use crate::machine::Machine;
use crate::mutant::{self, Mutant};
use crate::phase::pull::Range;
use crate::replica::Replica;
use isonomy_wire::command::RequestBuilder;
use isonomy_wire::deps::Frontier;
use isonomy_wire::failure::{Failure, Reason};
use isonomy_wire::id::{RecordId, ReplicaId};
use isonomy_wire::message::{Gossip, PeerMessage};

impl Replica {
    /// Proposes a Seal that names the record which is to follow, at once, unless this replica may not propose a
    /// barrier either. Whoever drives a change proposes again until the epoch has ended.
    pub fn propose_seal(&mut self, now: Time, record: RecordId) {
        let mut request = RequestBuilder::default();
        request.seal(record);
        self.submit_barrier(now, request);
    }

    /// A Seal has executed: the epoch ends here. What has not executed is void, so nobody waits for it any more, and
    /// a client may ask for it again in the next epoch. The replica does not say that it never executes: this may not
    /// be durable, and a crash can turn a Seal that was decided here and told to nobody into a Nop (R3.3).
    pub(crate) fn end_epoch(&mut self, record: RecordId) {
        let sealed = Sealed { record, barrier: self.forgetting.barriers(), hash: self.machine.hash() };
        self.stage = EpochStage::Ended { sealed, is_handed_over: false };
        self.attempts.clear();
        self.waiting.clear();
        let reason = self.epoch_ended();
        self.give_back_pending(reason);
        for client in self.requests.take_all_waiters() {
            self.outbox.reply(client, Err(Failure::Unknown(reason)));
        }
        self.outbox.say_sealed(sealed);
    }

    /// Why a sealed replica takes no request.
    pub(crate) fn epoch_ended(&self) -> Reason {
        Reason::EpochEnded { epoch: self.config.epoch }
    }

    /// A message to a sealed replica. Only what helps another one to catch up as far as the Seal is answered.
    pub(crate) fn handle_sealed(&mut self, now: Time, from: ReplicaId, message: &PeerMessage) {
        match message {
            &PeerMessage::Pull { row, from: first, to } => self.on_pull(from, Range { row, first, to }),
            PeerMessage::Gossip(gossip) => self.on_gossip_sealed(from, gossip),
            PeerMessage::Stalled => self.on_stalled(now, from),
            PeerMessage::Unreadable { barrier } => self.doubt_snapshot(now, *barrier),
            // The bytes of snapshots are moved by whoever has the files.
            PeerMessage::Fetch { .. } | PeerMessage::Piece { .. } => {}
            PeerMessage::PreAccept { .. }
            | PeerMessage::PreAcceptOk { .. }
            | PeerMessage::Accept { .. }
            | PeerMessage::AcceptOk { .. }
            | PeerMessage::Commit { .. }
            | PeerMessage::Nack { .. }
            | PeerMessage::Lacking { .. }
            | PeerMessage::Recover { .. }
            | PeerMessage::RecoverOk { .. }
            | PeerMessage::Validate { .. }
            | PeerMessage::ValidateOk { .. }
            | PeerMessage::Waiting { .. }
            | PeerMessage::Gone { .. } => self.counters.dropped.sealed += 1,
        }
    }

    fn on_gossip_sealed(&mut self, from: ReplicaId, gossip: &Gossip) {
        self.peers.on_gossip(from, gossip);
        if from != self.me && from.index() < self.quorum.n {
            self.compare_state();
        }
    }

    /// The core of the next epoch, which takes the state of this sealed one over. The caller replays the log that the
    /// replica has in that epoch, if there is one, and goes on as after `restore`. The end must be durable: it was read
    /// from the log, or [`Output::Sealed`](crate::contract::Output::Sealed) has come.
    ///
    /// The state goes to the disk as a snapshot of the next epoch at its beginning, which [`taking`](Replica::taking)
    /// names at once. Until that is durable the disk must keep the log and the snapshot of this epoch, from which a
    /// restart makes the sealed core again. This core goes on serving what was decided in its epoch.
    ///
    /// # Panics
    ///
    /// When this core is not sealed, is taking a snapshot, or has handed its state over before, and when the epoch of
    /// the configuration is not the next.
    pub fn succeed(&mut self, config: Config, seed: u64) -> Replica {
        let EpochStage::Ended { sealed, is_handed_over: false } = self.stage else {
            panic!("only a sealed epoch hands its state over, and once")
        };
        assert!(self.taking().is_none(), "a snapshot is being taken of the state that is to be handed over");
        let is_next = config.epoch.0 == self.config.epoch.0 + 1;
        let is_same = (config.cluster, config.shard) == (self.config.cluster, self.config.shard);
        assert!(is_next && is_same, "section 9: the core of the next epoch of the same shard");
        self.stage = EpochStage::Ended { sealed, is_handed_over: true };
        let mut emptied = Machine::new(self.config.epoch, self.config.shard);
        emptied.resume(self.machine.commands());
        let machine = std::mem::replace(&mut self.machine, emptied);

        let mut next = Replica::new(config, seed);
        next.machine = machine.entering(next.config.epoch);
        if mutant::is(Mutant::SessionsLeftBehind) {
            next.machine.sessions = Default::default();
        }
        next.tuning = self.tuning;
        next.guardrail.on_agreed(self.guardrail.is_agreed());
        next.stage = EpochStage::Open;
        let barrier = sealed.barrier + 1;
        next.forgetting.on_begun(StateAt { barrier, hash: next.machine.hash() });
        if next.config.publishes {
            next.outbox.tell(Executed::Barrier { barrier, frontier: Frontier::NONE, is_seal: false });
        }
        // It cuts nothing, and counts once the log of the epoch has begun (D6).
        next.begin_snapshot(Frontier::NONE, Position(1));
        next
    }
}
