//! The rules of the law, one module per phase, each rule cited above its function.

mod accept;
mod barrier;
mod commit;
pub(crate) mod gossip;
pub(crate) mod learn;
mod propose;
pub(crate) mod pull;
pub(crate) mod recover;
mod request;
mod seal;
mod stall;
mod timers;
mod transfer;
pub(crate) mod tuning;
mod validate;

use crate::contract::Time;
use crate::mutant::{self, Mutant};
use crate::payload::Payload;
use crate::peers::Gone;
use crate::phase::pull::Range;
use crate::replica::Replica;
use isonomy_wire::deps::Deps;
use isonomy_wire::id::{InstanceId, ReplicaId};
use isonomy_wire::message::PeerMessage;

impl Replica {
    /// Handles one message, from another replica or from this one.
    pub(crate) fn handle(
        &mut self,
        now: Time,
        from: ReplicaId,
        message: PeerMessage,
        payload: Option<Payload>,
    ) {
        if self.is_sealed() {
            return self.handle_sealed(now, from, &message);
        }
        if self.is_learner() && learn::is_about_votes(&message) {
            self.counters.dropped.as_learner += 1;
            return;
        }
        match self.judge(now, from, &message) {
            Judged::Sensible => {}
            Judged::Impossible => {
                self.counters.dropped.impossible += 1;
                return;
            }
            Judged::Forgotten => {
                self.counters.dropped.forgotten += 1;
                return;
            }
        }
        match message {
            PeerMessage::PreAccept { id, deps } => self.on_pre_accept(now, from, id, deps, payload),
            PeerMessage::PreAcceptOk { id, deps } => self.on_pre_accept_ok(now, from, id, &deps),
            PeerMessage::Accept { id, ballot, value, deps, after } => {
                let proposal = self.proposal_of(id, value, deps, after, payload);
                self.on_accept(now, from, id, ballot, proposal);
            }
            PeerMessage::AcceptOk { id, ballot } => self.on_accept_ok(now, from, id, ballot),
            PeerMessage::Commit { id, ballot, value, deps, after } => {
                let bytes = payload.as_ref().map_or(0, |payload| payload.batch().payload().len());
                let proposal = self.proposal_of(id, value, deps, after, payload);
                self.on_commit(now, from, id, ballot, proposal);
                self.pull_on(now, id, bytes);
            }
            PeerMessage::Nack { id, refused, promised } => self.on_nack(now, id, refused, promised),
            PeerMessage::Lacking { id, ballot } => self.on_lacking(from, id, ballot),
            PeerMessage::Recover { row, from: first, to, ballot } => {
                if self.forgetting.floor().of(row) >= first && !mutant::is(Mutant::ForgottenIsNew) {
                    self.say_gone(from);
                }
                for seq in first..=to {
                    self.on_recover(now, from, InstanceId::new(row, seq), ballot);
                }
            }
            PeerMessage::RecoverOk { .. } => self.on_recover_ok(now, from, message, payload),
            PeerMessage::Validate { id, ballot, deps } => {
                self.on_validate(now, from, id, ballot, deps, payload);
            }
            PeerMessage::ValidateOk { id, ballot, conflicts, floor } => {
                self.on_validate_ok(now, from, id, ballot, &conflicts, &floor);
            }
            PeerMessage::Waiting { id, supporters } => self.on_waiting(now, id, supporters),
            PeerMessage::Pull { row, from: first, to } => self.on_pull(from, Range { row, first, to }),
            PeerMessage::Gone { floor, floor_barrier, snapshot } => {
                self.on_gone(now, from, &Gone { floor, floor_barrier, snapshot });
            }
            PeerMessage::Stalled => self.on_stalled(now, from),
            PeerMessage::Gossip(gossip) => self.on_gossip(now, from, &gossip),
            PeerMessage::Unreadable { barrier } => self.doubt_snapshot(now, barrier),
            // The caller moves the bytes of snapshots, since it has the files.
            PeerMessage::Fetch { .. } | PeerMessage::Piece { .. } => {}
        }
    }

    /// Judges whether every id in the message is possible, and whether the message is about a forgotten instance.
    /// Questions about forgotten instances are answered here (G3). All ids that are mentioned are seen from here on.
    fn judge(&mut self, now: Time, from: ReplicaId, message: &PeerMessage) -> Judged {
        let (id, mentioned) = match message {
            PeerMessage::PreAccept { id, deps } | PeerMessage::PreAcceptOk { id, deps } => {
                (*id, [*deps, Deps::NONE])
            }
            PeerMessage::Accept { id, deps, after, .. } | PeerMessage::Commit { id, deps, after, .. } => {
                (*id, [*deps, *after])
            }
            PeerMessage::RecoverOk { id, deps, after, .. } => (*id, [*deps, *after]),
            PeerMessage::Validate { id, deps, .. } => (*id, [*deps, Deps::NONE]),
            PeerMessage::ValidateOk { id, floor, .. } => (*id, [floor.to_deps(), Deps::NONE]),
            PeerMessage::AcceptOk { id, .. }
            | PeerMessage::Nack { id, .. }
            | PeerMessage::Lacking { id, .. }
            | PeerMessage::Waiting { id, .. } => (*id, [Deps::NONE; 2]),
            PeerMessage::Recover { row, from, to, .. } => {
                if *from == 0 || to < from || to - from >= crate::limits::RECOVER_RANGE_MAX {
                    return Judged::Impossible;
                }
                return Judged::of(self.space.see_all(&single(InstanceId::new(*row, *to)), now));
            }
            // The ids in these messages are bounded where they are used: rows, floors and barriers.
            PeerMessage::Pull { .. }
            | PeerMessage::Gone { .. }
            | PeerMessage::Stalled
            | PeerMessage::Gossip(_)
            | PeerMessage::Unreadable { .. }
            | PeerMessage::Fetch { .. }
            | PeerMessage::Piece { .. } => return Judged::Sensible,
        };
        if id.row.index() >= self.quorum.n || id.seq == 0 {
            return Judged::Impossible;
        }
        if self.is_forgotten(id) {
            if asks(message) && from != self.me {
                self.accept_forgotten(from, message);
                self.say_gone(from);
            }
            return Judged::Forgotten;
        }
        let sensible = self.space.see_all(&single(id), now)
            && mentioned.iter().all(|deps| self.space.see_all(deps, now));
        if sensible && id.row != self.me {
            mentioned.iter().for_each(|deps| self.numbers.name(deps));
        }
        Judged::of(sensible)
    }
}

/// The judgement on a message before its rule handles it.
enum Judged {
    Sensible,
    Impossible,
    Forgotten,
}

impl Judged {
    fn of(is_possible: bool) -> Judged {
        if is_possible { Judged::Sensible } else { Judged::Impossible }
    }
}

/// Whether the sender waits for an answer (G3); Commits and answers are ignored.
fn asks(message: &PeerMessage) -> bool {
    matches!(
        message,
        PeerMessage::PreAccept { .. }
            | PeerMessage::Accept { .. }
            | PeerMessage::Validate { .. }
            | PeerMessage::Waiting { .. }
    )
}

fn single(id: InstanceId) -> Deps {
    let mut deps = Deps::NONE;
    if id.row.index() < deps.0.len() {
        deps.add(id);
    }
    deps
}
