//! V15: everything that a replica tells is in the durable part of its log, or in the snapshot that its disk keeps: no
//! crash takes it back, and a process that is started again knows it. That holds for messages, gossip, Gone and the
//! answers to clients alike, and a cut of the log takes nothing of it away (G1).

use crate::ghost::{Book, Ghost};
use crate::view::{Choice, Seen, View, bare};
use isonomy_protocol::contract::Append;
use isonomy_protocol::log::record::Record;
use isonomy_protocol::replica::Replica;
use isonomy_wire::id::{Ballot, InstanceId, ReplicaId};
use isonomy_wire::message::{Conflict, Gossip, PeerMessage, Phase, Value};
use std::collections::BTreeMap;

pub(super) fn check(ghost: &Ghost, node: u8, message: &PeerMessage) {
    let book = &ghost.books[usize::from(node)];
    let kept = match message {
        PeerMessage::Gossip(gossip) => is_gossip_kept(ghost, book, gossip),
        PeerMessage::Gone { floor, snapshot, .. } => {
            book.durable.floor.covers(floor) && book.snapshot.0 >= *snapshot
        }
        PeerMessage::Pull { .. } | PeerMessage::Lacking { .. } | PeerMessage::Stalled => true,
        PeerMessage::Unreadable { .. } | PeerMessage::Fetch { .. } | PeerMessage::Piece { .. } => true,
        _ => is_kept(&book.durable, node, message),
    };
    assert!(kept, "V15: replica {node} said {message:?} before it was durable");
}

/// Whether everything that a message tells about an instance is in the log.
fn is_kept(durable: &View, node: u8, message: &PeerMessage) -> bool {
    match message {
        PeerMessage::PreAccept { id, .. } => id.row != ReplicaId(node) || durable.reserved >= id.seq,
        PeerMessage::PreAcceptOk { id, deps } => durable.pre_accepted.get(id) == Some(deps),
        PeerMessage::AcceptOk { id, ballot } => {
            let seen = durable.of(*id);
            durable.is_committed(*id) || (seen.phase == Phase::Accepted && seen.abal >= *ballot)
        }
        PeerMessage::Accept { id, ballot: Ballot::ZERO, .. } => durable.pre_accepted.contains_key(id),
        PeerMessage::Accept { id, ballot, .. } | PeerMessage::Validate { id, ballot, .. } => {
            has_promised(durable, *id, *ballot)
        }
        PeerMessage::Waiting { id, .. } => durable.is_committed(*id) || durable.of(*id).bal > Ballot::ZERO,
        PeerMessage::Nack { id, promised, .. } => has_promised(durable, *id, *promised),
        PeerMessage::Recover { row, from, to, ballot } => {
            (*from..=*to).all(|seq| has_promised(durable, InstanceId::new(*row, seq), *ballot))
        }
        PeerMessage::RecoverOk { id, .. } => is_report_kept(durable, *id, message),
        PeerMessage::ValidateOk { id, ballot, conflicts, floor } => {
            let seen = durable.of(*id);
            let is_known = |conflict: &Conflict| {
                let is_there = durable.floor.contains(conflict.id) || durable.of(conflict.id).has_batch;
                is_there && (!conflict.committed || durable.is_committed(conflict.id))
            };
            let knows_proposal = durable.floor.contains(*id) || (seen.init_deps.is_some() && seen.has_batch);
            has_promised(durable, *id, *ballot)
                && knows_proposal
                && durable.floor.covers(floor)
                && conflicts.iter().all(is_known)
        }
        PeerMessage::Commit { id, value, deps, after, .. } => {
            let (told, seen) = (Choice::of(*value, *deps), durable.of(*id));
            let is_same = seen.decided() == Some(told) && seen.after == *after;
            is_same || (durable.floor.contains(*id) && seen.decided().is_none_or(|it| it == told))
        }
        other => unreachable!("not about an instance: {other:?}"),
    }
}

fn has_promised(durable: &View, id: InstanceId, ballot: Ballot) -> bool {
    durable.is_committed(id) || durable.of(id).bal >= ballot
}

/// R2: whether the report is all that the log has, unless something came after the promise.
fn is_report_kept(durable: &View, id: InstanceId, message: &PeerMessage) -> bool {
    let PeerMessage::RecoverOk { ballot, accepted, phase, value, deps, after, init_value, init_deps, .. } =
        message
    else {
        return true;
    };
    let seen = durable.of(id);
    if durable.is_committed(id) || seen.bal > *ballot || seen.abal == *ballot || seen.validated {
        return has_promised(durable, id, *ballot) && (durable.is_committed(id) || seen.abal >= *accepted);
    }
    let knows_init = seen.init_deps.is_some() && seen.has_batch;
    let told = Seen {
        phase: *phase,
        bal: *ballot,
        abal: *accepted,
        value: bare(*value),
        deps: *deps,
        after: *after,
        init_deps: if *init_value == Value::None { seen.init_deps } else { Some(*init_deps) },
        ..seen
    };
    told == seen && knows_init == (*init_value != Value::None)
}

fn is_gossip_kept(ghost: &Ghost, book: &Book, gossip: &Gossip) -> bool {
    let Book { durable, snapshot, position, .. } = book;
    let is_known = |known: Option<&u64>, told: u64| known.is_none_or(|known| *known == told);
    durable.committed.covers(&gossip.committed)
        && durable.committed.covers(&gossip.executed)
        && durable.floor.covers(&gossip.floor)
        && durable.floor.covers(&gossip.unindexed)
        && gossip.restart_mark <= durable.reserved
        && gossip.snapshot <= snapshot.0
        && gossip.position <= *position
        && is_known(ghost.states.get(&gossip.executed), gossip.state_hash)
        && is_known(ghost.barriers.get(&gossip.barrier), gossip.barrier_hash)
}

pub(super) fn check_answer(node: u8, id: InstanceId, rests_on: Result<(), InstanceId>) {
    if let Err(lacking) = rests_on {
        panic!("V15: replica {node} answered from {id:?} before {lacking:?} was durable");
    }
}

/// A record that stands for others says what they say, and a record that refers to a batch refers to one that is
/// there.
pub(super) fn check_record(ghost: &Ghost, node: u8, append: &Append) {
    let written = &ghost.books[usize::from(node)].written;
    let is_true = match &append.record {
        Record::Begin { reserved, floor, .. } => {
            *reserved == written.reserved && floor.covers(&written.floor)
        }
        Record::Heard { positions } => positions.iter().zip(&written.heard).all(|(new, old)| new >= old),
        Record::Validated { id, value: Value::Known, .. }
        | Record::Accepted { id, value: Value::Known, .. }
        | Record::Committed { id, value: Value::Known, .. } => written.of(*id).has_batch,
        Record::Carried { value: Value::Attached, .. } => append.payload.is_some(),
        _ => true,
    };
    assert!(is_true, "G1: replica {node} writes {:?}, and its log says something else", append.record);
    if let Record::Carried { id, .. } = append.record {
        let covered = &ghost.books[usize::from(node)].snapshot.1;
        assert!(
            !covered.contains(id),
            "G1: replica {node} carries {id:?} forward, which its snapshot covers"
        );
    }
}

/// The rest of the log says of everything above the snapshot what the whole log said.
pub(super) fn check_cut(ghost: &Ghost, node: u8) {
    let book = &ghost.books[usize::from(node)];
    let (mut left, frontier) = (View::default(), book.snapshot.1);
    left.raise_floor(&frontier.to_floor());
    book.kept.iter().for_each(|append| left.apply(append));
    let before = &book.durable;
    let says = |what: &str, one: &dyn std::fmt::Debug, other: &dyn std::fmt::Debug| {
        format!("G1: replica {node} has cut {what} from its log: {other:?}, and what is left says {one:?}")
    };
    assert_eq!(left.reserved, before.reserved, "{}", says("its block", &left.reserved, &before.reserved));
    assert_eq!(left.heard, before.heard, "{}", says("what it heard", &left.heard, &before.heard));
    assert!(left.floor.covers(&before.floor), "{}", says("its floor", &left.floor, &before.floor));
    for (id, seen) in before.seen.iter().filter(|(id, _)| !frontier.contains(**id)) {
        let again = left.of(*id);
        // A Nop that a floor covers needs no record, nor does an instance that is undecided here and was a Nop
        // elsewhere.
        let is_covered = before.floor.contains(*id) && seen.decided().is_none_or(|it| it.nop);
        assert!(again == *seen || is_covered, "{}", says(&format!("{id:?}"), &again, seen));
    }
}

/// Section 7, Replay: a process that was started again knows everything that its log says of each instance.
pub(super) fn check_replayed(ghost: &Ghost, node: u8, core: &Replica) {
    let (durable, floor) = (&ghost.books[usize::from(node)].durable, core.status().floor);
    let known = core.records().filter_map(|(record, payload)| Seen::carried(&record, payload.as_ref()));
    let known: BTreeMap<InstanceId, Seen> = known.collect();
    let told = durable.seen.iter().filter(|(id, _)| !floor.contains(**id));
    for (id, seen) in told {
        let replayed = known.get(id).copied().unwrap_or_default();
        assert_eq!(
            replayed, *seen,
            "section 7: replica {node} was started again, {id:?}, its log on the right"
        );
    }
    assert!(floor.covers(&durable.floor), "section 7: replica {node} was started again below its floor");
}
