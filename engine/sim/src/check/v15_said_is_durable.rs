//! V15: what a message promises is in the durable part of its sender's log: no crash takes it back.

use crate::ghost::Ghost;
use isonomy_wire::id::{InstanceId, ReplicaId};
use isonomy_wire::message::{PeerMessage, Phase};

pub(super) fn check(ghost: &Ghost, node: u8, message: &PeerMessage) {
    let durable = &ghost.books[usize::from(node)].durable;
    let kept = match message {
        PeerMessage::PreAccept { id, .. } => id.row != ReplicaId(node) || durable.reserved >= id.seq,
        PeerMessage::PreAcceptOk { id, deps } => durable.of(*id).pre_accepted == Some(*deps),
        PeerMessage::AcceptOk { id, ballot } => {
            let seen = durable.of(*id);
            seen.phase == Phase::Committed || (seen.phase == Phase::Accepted && seen.abal >= *ballot)
        }
        PeerMessage::Accept { id, ballot, .. } => durable.of(*id).bal >= *ballot,
        PeerMessage::Recover { row, from, to, ballot } => {
            (*from..=*to).all(|seq| durable.of(InstanceId::new(*row, seq)).bal >= *ballot)
        }
        PeerMessage::RecoverOk { id, ballot, accepted, phase, .. } => {
            let seen = durable.of(*id);
            // What was committed since is told as it was before.
            let is_told =
                *phase != Phase::Accepted || seen.phase != Phase::Accepted || seen.abal >= *accepted;
            seen.bal >= *ballot && is_told
        }
        PeerMessage::ValidateOk { id, ballot, .. } => {
            let seen = durable.of(*id);
            seen.bal >= *ballot && seen.init_deps.is_some()
        }
        PeerMessage::Commit { id, .. } => durable.of(*id).phase == Phase::Committed,
        _ => true,
    };
    assert!(kept, "V15: replica {node} said {message:?} before it was durable");
}
