//! The rules of the law, one module per phase, each rule cited above its function.

mod accept;
mod commit;
mod gossip;
mod propose;
mod recover;
mod timers;
mod validate;

use crate::contract::Time;
use crate::payload::Payload;
use crate::replica::Replica;
use isonomy_wire::deps::Deps;
use isonomy_wire::id::{InstanceId, ReplicaId};
use isonomy_wire::message::PeerMessage;

impl Replica {
    /// One message, from another replica or from this one.
    pub(crate) fn handle(
        &mut self,
        now: Time,
        from: ReplicaId,
        message: PeerMessage,
        payload: Option<Payload>,
    ) {
        if !self.is_sensible(now, &message) {
            return;
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
                let proposal = self.proposal_of(id, value, deps, after, payload);
                self.on_commit(now, from, id, ballot, proposal);
            }
            PeerMessage::Nack { id, refused, promised } => self.on_nack(now, id, refused, promised),
            PeerMessage::Lacking { id, ballot } => self.on_lacking(from, id, ballot),
            PeerMessage::Recover { row, from: first, to, ballot } => {
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
            PeerMessage::Pull { row, from: first, to } => self.on_pull(from, row, first, to),
            PeerMessage::Gossip { committed, executed, restart_mark, state_hash } => {
                self.on_gossip(now, from, committed, executed, restart_mark, state_hash);
            }
        }
    }

    /// Whether every id in the message is possible, and none is settled: about those nobody has
    /// to be told anything. Whatever is mentioned is seen from here on.
    fn is_sensible(&mut self, now: Time, message: &PeerMessage) -> bool {
        let (id, mentioned) = match message {
            PeerMessage::PreAccept { id, deps } | PeerMessage::PreAcceptOk { id, deps } => {
                (*id, [*deps, Deps::NONE])
            }
            PeerMessage::Accept { id, deps, after, .. } | PeerMessage::Commit { id, deps, after, .. } => {
                (*id, [*deps, *after])
            }
            PeerMessage::RecoverOk { id, deps, after, .. } => (*id, [*deps, *after]),
            PeerMessage::Validate { id, deps, .. } => (*id, [*deps, Deps::NONE]),
            PeerMessage::ValidateOk { id, floor, .. } => (*id, [*floor, Deps::NONE]),
            PeerMessage::AcceptOk { id, .. }
            | PeerMessage::Nack { id, .. }
            | PeerMessage::Lacking { id, .. }
            | PeerMessage::Waiting { id, .. } => (*id, [Deps::NONE; 2]),
            PeerMessage::Recover { row, from, to, .. } => {
                if *from == 0 || to < from || to - from >= crate::limits::RECOVER_RANGE_MAX {
                    return false;
                }
                return self.see_all(&single(InstanceId::new(*row, *to)), now);
            }
            PeerMessage::Pull { .. } | PeerMessage::Gossip { .. } => return true,
        };
        if id.row.index() >= self.quorum.n || self.settled.contains(id) || id.seq == 0 {
            return false;
        }
        self.see_all(&single(id), now) && mentioned.iter().all(|deps| self.see_all(deps, now))
    }
}

fn single(id: InstanceId) -> Deps {
    let mut deps = Deps::NONE;
    if id.row.index() < deps.0.len() {
        deps.add(id);
    }
    deps
}
