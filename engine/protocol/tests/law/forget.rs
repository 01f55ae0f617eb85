//! G1, G3, G4 and G5. The traps that begin with something forgotten are told in `forgetting`.

use super::recover::{ID, MINE, batch, proposals, recovering};
use super::validate::waiting;
use crate::support::solo::*;
use crate::support::{barrier, decide, id, parse, read, read_snapshot, timing};
use isonomy_protocol::conflict::conflicts;
use isonomy_protocol::limits::{BARRIER_BEHIND_MAX, PULL_BYTES_MAX};
use isonomy_protocol::log::record::Record;
use isonomy_protocol::payload::Payload;
use isonomy_protocol::snapshot::Snapshot;
use isonomy_wire::command::{Numbering, RequestBuilder};
use isonomy_wire::deps::{Deps, Floor, Frontier};
use isonomy_wire::failure::{Failure, Reason};
use isonomy_wire::id::{Ballot, InstanceId, ReplicaId, SessionId};
use isonomy_wire::message::{Gossip, PeerMessage, Value};

/// A barrier behind [`ID`].
const BARRIER: InstanceId = InstanceId { row: ReplicaId(0), seq: 2 };

/// A decision of another replica that conflicts with [`batch`].
fn rival() -> Payload {
    decide("t", 1, 0, "a")
}

/// It executes the first instance of a row and a barrier behind it, whose deps name no other row.
fn barrier_by(mut solo: Solo, row: u8, first: &Payload) -> Solo {
    let mut before = Deps::NONE;
    before.add(id(row, 1));
    solo.tell(row, commit(id(row, 1), Ballot::ZERO, Value::Attached, Deps::NONE), Some(first));
    solo.tell(row, commit(id(row, 2), Ballot::ZERO, Value::Attached, before), Some(&barrier()));
    solo
}

/// It executes ID and BARRIER.
fn with_barrier(solo: Solo) -> Solo {
    barrier_by(solo, 0, &batch())
}

/// It has forgotten all that the last barrier covers.
pub(crate) fn forgotten(mut solo: Solo) -> Solo {
    solo.take_snapshot();
    solo.sync();
    solo.said();
    solo
}

/// Replica 2 of five has forgotten ID and the barrier.
pub(crate) fn forgetful() -> Solo {
    forgotten(with_barrier(Solo::new(5, 2)))
}

fn gone() -> PeerMessage {
    PeerMessage::Gone { floor: upto([2]), floor_barrier: 1, snapshot: 1 }
}

/// What a replica reports of some instances to whoever recovers them.
fn reports(solo: &mut Solo, ids: &[InstanceId]) -> Vec<(u8, PeerMessage)> {
    ids.iter().flat_map(|id| solo.tell(3, recover(*id, ballot(9, 3)), None)).collect()
}

/// Something above the floor in every phase: promised, validated, pre-accepted, accepted.
const ABOVE: [InstanceId; 4] = [
    InstanceId { row: ReplicaId(1), seq: 1 },
    InstanceId { row: ReplicaId(1), seq: 2 },
    InstanceId { row: ReplicaId(3), seq: 1 },
    InstanceId { row: ReplicaId(4), seq: 1 },
];

fn with_some_above(mut solo: Solo) -> Solo {
    let [promised, validated, pre_accepted, accepted] = ABOVE;
    solo.tell(4, recover(promised, ballot(3, 4)), None);
    solo.tell(4, recover(validated, ballot(2, 4)), None);
    solo.tell(4, validate(validated, ballot(2, 4), upto([0, 1])), Some(&decide("v", 1, 0, "v")));
    solo.tell(3, pre_accept(pre_accepted, Deps::NONE), Some(&decide("p", 1, 0, "p")));
    let after = upto([0, 1]);
    let (ballot, value) = (ballot(1, 3), Value::Attached);
    let accept = PeerMessage::Accept { id: accepted, ballot, value, deps: upto([0, 0, 0, 1]), after };
    solo.tell(3, accept, Some(&decide("q", 1, 0, "q")));
    solo
}

#[test]
fn g1_what_is_above_the_floor_is_carried_forward() {
    let begun = || with_barrier(with_some_above(Solo::new(5, 2)));
    let expected = reports(&mut begun(), &ABOVE);
    assert_eq!(expected.len(), ABOVE.len());
    let mut solo = forgotten(begun());
    let begins = solo.cut;
    assert!(begins > 0, "what was before is cut");
    assert_eq!(reports(&mut solo, &ABOVE), expected);

    let mut solo = forgotten(begun());
    solo.restart();
    assert_eq!(solo.cut, begins);
    assert_eq!(reports(&mut solo, &ABOVE), expected);
    let mut solo = forgotten(begun());
    solo.restart();
    solo.wait(5_000);
    let leftover = PeerMessage::Recover { row: ReplicaId(2), from: 1, to: 64, ballot: ballot(1, 2) };
    assert!(solo.said_to(1).contains(&leftover), "the reserved block, too");
}

#[test]
pub(crate) fn g1_the_log_is_cut_only_when_the_floor_is_durable() {
    let mut solo = with_barrier(Solo::new(5, 2));
    solo.take_snapshot();
    assert_eq!(solo.cut, 0);
    solo.sync();
    assert!(solo.cut > 0);

    let mut solo = Solo::new(5, 3);
    solo.install(&forgetful().snapshot.expect("it took one"));
    assert_eq!(solo.cut, 0, "what was carried forward is not durable either");
    solo.sync();
    assert!(solo.cut > 0);
}

#[test]
pub(crate) fn g1_deps_take_the_place_of_what_the_index_lost() {
    let mut solo = forgetful();
    for _ in 0..2 {
        solo.restart();
        let said = solo.tell(1, pre_accept(id(1, 1), Deps::NONE), Some(&rival()));
        assert_eq!(said, [(1, pre_accept_ok(id(1, 1), upto([2, 0, 256])))], "D8 adds the own block");
    }
    let mut other = Solo::new(5, 1);
    let gossip = PeerMessage::Gossip(Box::new(Gossip { unindexed: upto([2]), ..Gossip::default() }));
    other.tell(2, gossip, None);
    other.ask(&rival());
    assert_eq!(other.said_to(2), [pre_accept(id(1, 1), upto([2]))], "announced, C1 names it at once");
}

#[test]
pub(crate) fn g1_a_begin_that_a_crash_left_unfinished_can_be_the_first_that_is_read() {
    let ([_, validated, pre_accepted, accepted], next) = (ABOVE, id(3, 2));
    let mut solo = with_some_above(Solo::new(5, 2));
    solo.tell(3, pre_accept(next, upto([0, 0, 0, 1])), Some(&decide("p", 2, 0, "n")));
    let mut solo = with_barrier(solo);
    let begin = solo.log.iter().position(|(record, _)| matches!(record, Record::Begin { .. }));
    let unfinished = begin.expect("the barrier has executed");
    solo.restart_behind(unfinished + 1);

    // These name batches that no record behind the Begin carries.
    solo.tell(3, accept(validated, ballot(3, 3), Value::Known, upto([4, 1])), None);
    solo.tell(3, commit(pre_accepted, Ballot::ZERO, Value::Known, upto([4])), None);
    solo.tell(3, recover(next, ballot(3, 3)), None);
    solo.tell(3, validate(next, ballot(3, 3), upto([0, 0, 0, 1])), None);
    solo.tell(4, commit(accepted, ballot(1, 3), Value::Known, upto([4, 0, 0, 1])), None);
    solo.tell(0, commit(id(0, 3), Ballot::ZERO, Value::Attached, upto([2])), Some(&rival()));
    solo.tell(0, commit(id(0, 4), Ballot::ZERO, Value::Attached, upto([3])), Some(&barrier()));
    let mut solo = forgotten(solo);
    assert!(unfinished > 0 && solo.cut > unfinished, "the log is cut for the second barrier");

    // The oldest segments went, and another crash came before the others did.
    let expected: Vec<_> = solo.core.records().collect();
    assert!(expected.len() > ABOVE.len());
    solo.cut = unfinished;
    solo.restart();
    assert_eq!(solo.core.records().collect::<Vec<_>>(), expected);
}

#[test]
fn g1_that_a_validate_was_answered_is_carried_forward() {
    let [_, validated, ..] = ABOVE;
    let mut solo = forgotten(with_barrier(with_some_above(Solo::new(5, 2))));
    solo.restart();
    let said = solo.tell(4, recover(validated, ballot(2, 4)), None);
    assert!(matches!(said[..], [(4, PeerMessage::Nack { .. })]), "R2: something has changed: {said:?}");
}

#[test]
fn d5_a_cut_carries_the_end_of_a_stop_over() {
    let mut solo = Solo::new(5, 2);
    solo.core.on_stop(solo.now);
    solo.sync();
    let mut solo = forgotten(with_barrier(solo));
    solo.restart();
    solo.wait(5_000);
    let leftover = |message: &PeerMessage| matches!(message, PeerMessage::Recover { row: ReplicaId(2), .. });
    assert!(!solo.said_to(1).iter().any(leftover), "no number was left unused");
}

#[test]
fn g1_the_first_record_of_a_log_that_was_cut_tells_the_floor() {
    let mut solo = with_barrier(settled_a_nop());
    solo.die_with_snapshot();
    assert_eq!(
        solo.core.status().floor,
        upto([2, 1]),
        "no other record tells what was settled before the cut"
    );
    let said = solo.tell(3, recover(id(1, 1), ballot(9, 3)), None);
    assert!(matches!(said[..], [(3, PeerMessage::Gone { .. })]), "{said:?}");
}

#[test]
fn g1_what_an_installed_snapshot_covers_is_not_carried_forward() {
    let mut solo = Solo::new(5, 3);
    solo.tell(0, pre_accept(ID, Deps::NONE), Some(&batch()));
    solo.install(&forgetful().snapshot.expect("it took one"));
    solo.sync();
    let kept = &solo.log[solo.cut..];
    assert!(matches!(kept[0].0, Record::Begin { floor, .. } if floor == upto([2])), "{:?}", kept[0].0);
    let covered: Vec<_> = kept.iter().filter(|(record, _)| record.id().is_some_and(|id| id == ID)).collect();
    assert!(covered.is_empty(), "{covered:?}");
}

#[test]
pub(crate) fn g3_whoever_asks_about_what_is_forgotten_is_told_so() {
    let mut solo = forgetful();
    let questions = [
        pre_accept(ID, Deps::NONE),
        accept(ID, MINE, Value::Attached, Deps::NONE),
        recover(ID, MINE),
        validate(ID, MINE, Deps::NONE),
        PeerMessage::Waiting { id: ID, supporters: 1 },
        PeerMessage::Pull { row: ID.row, from: ID.seq, to: ID.seq },
    ];
    for _ in 0..2 {
        for question in &questions {
            let said = solo.tell(3, question.clone(), Some(&batch()));
            assert_eq!(said, [(3, gone())], "{question:?}");
        }
        solo.restart();
    }
}

#[test]
fn g3_answers_and_commits_about_it_are_ignored() {
    let mut solo = forgetful();
    let (floor, conflicts) = (Floor::NONE, Vec::new());
    let heard = [
        pre_accept_ok(ID, Deps::NONE),
        accept_ok(ID, MINE),
        knows_nothing(ID, MINE),
        PeerMessage::ValidateOk { id: ID, ballot: MINE, conflicts, floor },
        commit(ID, MINE, Value::Nop, Deps::NONE),
    ];
    let records = solo.log.len();
    for message in heard {
        assert_eq!(solo.tell(3, message.clone(), None), [], "{message:?}");
    }
    assert_eq!(solo.log.len(), records);
}

#[test]
fn g3_of_a_range_only_what_is_forgotten_is_gone() {
    let next = id(0, 3);
    let range = PeerMessage::Recover { row: ID.row, from: 1, to: 3, ballot: MINE };
    assert_eq!(forgetful().tell(3, range, None), [(3, gone()), (3, knows_nothing(next, MINE))]);
    let mut solo = forgetful();
    let committed = commit(next, Ballot::ZERO, Value::Attached, upto([2]));
    solo.tell(0, committed.clone(), Some(&rival()));
    let pull = PeerMessage::Pull { row: ID.row, from: 2, to: 3 };
    assert_eq!(solo.tell(3, pull, None), [(3, gone()), (3, committed)]);
}

#[test]
fn g3_an_attempt_ends_when_its_instance_is_forgotten() {
    let mut solo = recovering(Deps::NONE);
    solo.tell(1, knows_nothing(ID, MINE), None);
    solo.install(&forgetful().snapshot.expect("it took one"));
    solo.sync();
    solo.said();
    assert_eq!(proposals(solo.tell(2, knows_nothing(ID, MINE), None)), []);
    solo.wait(5_000_000);
    let asks = |message: &PeerMessage| matches!(message, PeerMessage::Recover { row: ReplicaId(0), .. });
    assert!(!solo.said_to(1).iter().any(asks));
}

#[test]
pub(crate) fn g4_a_barrier_and_all_others_name_each_other() {
    let mut solo = Solo::new(3, 0);
    solo.tell(1, pre_accept(id(1, 1), Deps::NONE), Some(&batch()));
    solo.tell(2, pre_accept(id(2, 1), Deps::NONE), Some(&read("b")));
    solo.core.propose_barrier(solo.now);
    solo.sync();
    assert_eq!(solo.said_to(1), [pre_accept(id(0, 1), upto([0, 1, 1]))]);

    for later in [decide("u", 1, 0, "c"), read("c")] {
        let mut solo = Solo::new(3, 0);
        solo.tell(1, pre_accept(id(1, 1), Deps::NONE), Some(&barrier()));
        solo.ask(&later);
        assert_eq!(solo.said_to(1), [pre_accept(id(0, 1), upto([0, 1]))]);
        assert!(conflicts(&barrier(), &later) && conflicts(&later, &barrier()), "R4 sees it so, too");
    }
    assert!(conflicts(&barrier(), &barrier()));
}

#[test]
pub(crate) fn g4_the_floor_is_what_the_barrier_names() {
    let mut solo = Solo::new(5, 2);
    // A Nop that has executed here before the barrier, and a batch behind it: both stay.
    let nop = commit(id(1, 1), ballot(1, 3), Value::Nop, Deps::NONE);
    solo.tell(3, nop.clone(), None);
    let mut solo = with_barrier(solo);
    let later = commit(id(3, 1), Ballot::ZERO, Value::Attached, upto([2]));
    solo.tell(3, later.clone(), Some(&rival()));
    let mut solo = forgotten(solo);
    assert_eq!(solo.core.executed(), &upto([2, 1, 0, 1]));
    for (row, kept) in [(1, nop), (3, later)] {
        let pull = PeerMessage::Pull { row: ReplicaId(row), from: 1, to: 1 };
        assert_eq!(solo.tell(4, pull, None), [(4, kept)]);
    }
    let pull = PeerMessage::Pull { row: ReplicaId(0), from: 1, to: 2 };
    assert_eq!(solo.tell(4, pull, None), [(4, gone())]);
}

#[test]
fn g4_a_barrier_names_the_nops_that_are_forgotten_where_it_is_proposed() {
    let mut solo = Solo::new(3, 0);
    // All have executed a Nop of which this replica never saw a batch, and forgotten it.
    solo.tell(2, commit(id(1, 1), ballot(1, 2), Value::Nop, Deps::NONE), None);
    for peer in [1, 2] {
        let gossip = Gossip { executed: upto([0, 1]), ..Gossip::default() };
        solo.tell(peer, PeerMessage::Gossip(Box::new(gossip)), None);
    }
    solo.wait(100_000);
    assert_eq!(solo.core.status().floor, upto([0, 1]), "the story is that it has forgotten the Nop");
    solo.core.propose_barrier(solo.now);
    solo.sync();
    assert_eq!(solo.said_to(1), [pre_accept(id(0, 1), upto([0, 1]))], "no index has the Nop");
    solo.tell(1, pre_accept_ok(id(0, 1), upto([0, 1])), None);
    let (barrier, bytes) = forgotten(solo).snapshot.expect("it took one");
    let Snapshot { head, .. } = read_snapshot(barrier, &bytes);
    assert_eq!(head.frontier, upto([1, 1]), "the snapshot covers the floor");
}

/// What the core itself proposed among what it said.
pub(crate) fn proposes_a_barrier(solo: &mut Solo) -> bool {
    solo.said_to(1).iter().any(|message| matches!(message, PeerMessage::PreAccept { .. }))
}

#[test]
fn g4_a_barrier_is_proposed_when_the_log_has_grown() {
    let mut solo = Solo::with_barriers(3, 0, 1_000);
    let grow = |solo: &mut Solo, seq: u64| {
        let committed = commit(id(1, seq), Ballot::ZERO, Value::Attached, upto([0, seq - 1]));
        solo.tell(1, committed, Some(&decide("s", seq, 0, "a")));
    };
    grow(&mut solo, 1);
    solo.wait(5_000);
    assert!(!proposes_a_barrier(&mut solo), "there is little to forget");
    // Something older than a moment is undecided: the barrier would wait for it, and all for the barrier.
    solo.tell(2, pre_accept(id(2, 1), Deps::NONE), Some(&decide("t", 1, 0, "b")));
    solo.wait(100_000);
    (2..=5).for_each(|seq| grow(&mut solo, seq));
    solo.wait(5_000);
    assert!(!proposes_a_barrier(&mut solo));
    solo.tell(2, commit(id(2, 1), Ballot::ZERO, Value::Known, Deps::NONE), None);
    solo.wait(5_000);
    assert!(proposes_a_barrier(&mut solo));
    solo.wait(100_000);
    (6..=20).for_each(|seq| grow(&mut solo, seq));
    let first = pre_accept(id(0, 1), upto([0, 5, 1]));
    let other =
        |message: &&PeerMessage| matches!(message, PeerMessage::PreAccept { .. }) && **message != first;
    assert_eq!(solo.said_to(1).iter().find(other), None, "one at a time");
}

#[test]
fn g4_who_lacks_much_proposes_no_barrier() {
    let mut solo = Solo::with_barriers(3, 0, 1);
    let gossip = Gossip { executed: upto([0, BARRIER_BEHIND_MAX + 1]), ..Gossip::default() };
    solo.tell(1, PeerMessage::Gossip(Box::new(gossip)), None);
    solo.wait(5_000);
    assert!(!proposes_a_barrier(&mut solo), "all would wait for it to catch up");
    solo.tell(1, commit(id(1, 1), Ballot::ZERO, Value::Attached, Deps::NONE), Some(&rival()));
    solo.wait(5_000);
    assert!(proposes_a_barrier(&mut solo));
}

#[test]
fn g4_what_the_log_held_at_the_start_has_grown_too() {
    let mut solo = Solo::with_barriers(3, 0, 1_000);
    // Never as much between two crashes, so that nobody would ever forget.
    for seq in 1..=3 {
        let committed = commit(id(1, seq), Ballot::ZERO, Value::Attached, upto([0, seq - 1]));
        solo.tell(1, committed, Some(&decide("s", seq, 0, "a")));
        solo.sync();
        solo.restart();
    }
    solo.wait(5_000);
    assert!(proposes_a_barrier(&mut solo));
}

/// A peer says what its state was at the first barrier.
fn differing() -> PeerMessage {
    PeerMessage::Gossip(Box::new(Gossip { barrier: 1, barrier_hash: 1, ..Gossip::default() }))
}

#[test]
#[should_panic(expected = "the state of replica 2 differs from that of replicas 1, 3")]
fn g4_who_differs_from_two_at_a_barrier_stops() {
    let mut solo = forgetful();
    solo.tell(1, differing(), None);
    solo.tell(1, differing(), None);
    assert_eq!(reports(&mut solo, &[ID]), [(3, gone())], "one alone may be the one that is wrong");
    solo.tell(3, differing(), None);
}

#[test]
fn g6_what_was_heard_of_peers_outlives_a_cut() {
    let mut solo = Solo::new(5, 0);
    let heard = PeerMessage::Gossip(Box::new(Gossip { position: 50, ..Gossip::default() }));
    solo.tell(1, heard, None);
    solo.wait(2_000_000);
    solo.install(&forgetful().snapshot.expect("it took one"));
    solo.sync();
    solo.sync();
    assert!(solo.cut > 0, "the log was cut");
    solo.restart();
    assert_eq!(solo.core.heard(ReplicaId(1)), 50);
}

#[test]
fn g5_a_snapshot_brings_the_state_and_leaves_what_is_above() {
    let mut source = forgetful();
    let snapshot = source.snapshot.take().expect("it took one");
    let expected = reports(&mut with_some_above(Solo::new(5, 0)), &ABOVE);
    for restarts in 0..2 {
        let mut solo = with_some_above(Solo::new(5, 0));
        // It pre-accepted what it is to forget, and never heard more of it.
        solo.tell(3, recover(ID, ballot(1, 3)), None);
        solo.install(&snapshot);
        solo.sync();
        solo.said();
        (0..restarts).for_each(|_| solo.restart());
        assert_eq!(solo.core.state_hash(), source.core.state_hash());
        assert_eq!(solo.core.executed(), &upto([2]));
        assert_eq!(solo.tell(3, recover(ID, ballot(9, 3)), None), [(3, gone())]);
        assert_eq!(reports(&mut solo, &ABOVE), expected);
    }
}

#[test]
pub(crate) fn g5_what_an_installed_snapshot_covers_is_named() {
    let mut solo = Solo::new(5, 3);
    solo.install(&forgetful().snapshot.expect("it took one"));
    solo.sync();
    solo.said();
    let said = solo.tell(1, pre_accept(id(1, 1), Deps::NONE), Some(&rival()));
    assert_eq!(said, [(1, pre_accept_ok(id(1, 1), upto([2])))], "B16");
}

#[test]
fn g5_who_has_executed_the_barrier_installs_nothing() {
    let mut solo = with_barrier(Solo::new(5, 2));
    solo.tell(3, commit(id(3, 1), Ballot::ZERO, Value::Attached, upto([2])), Some(&rival()));
    let before = (*solo.core.executed(), solo.core.state_hash());
    let (barrier, bytes) = forgetful().snapshot.expect("it took one");
    solo.core.install_snapshot(solo.now, read_snapshot(barrier, &bytes));
    solo.sync();
    assert_eq!((*solo.core.executed(), solo.core.state_hash()), before);
    assert_eq!(
        reports(&mut solo, &[BARRIER]),
        [(3, commit(BARRIER, Ballot::ZERO, Value::Attached, upto([1])))]
    );
}

#[test]
fn g5_who_has_executed_the_barrier_takes_what_the_floor_has_beyond_for_nops() {
    let state = with_barrier(Solo::new(5, 2)).core.state_hash();
    // The others have executed two instances of row 1 before the barrier that it does not name.
    let mut solo = with_a_peers_floor();
    for _ in 0..2 {
        assert_eq!((solo.core.executed(), solo.core.state_hash()), (&upto([2, 2]), state));
        assert_eq!(solo.core.wants_snapshot(), None);
        let said = solo.tell(4, recover(id(1, 2), MINE), None);
        assert!(matches!(said[..], [(4, PeerMessage::Gone { .. })]), "{said:?}");
        solo.restart();
    }
}

/// It has taken over a floor that covers two instances of row 1 of which it never heard.
fn with_a_peers_floor() -> Solo {
    let mut solo = with_barrier(Solo::new(5, 2));
    let floor = upto([2, 2]);
    let gossip = Gossip { committed: upto([2, 2]), snapshot: 1, ..Gossip::default() };
    solo.tell(3, PeerMessage::Gossip(Box::new(gossip)), None);
    solo.tell(3, PeerMessage::Gone { floor, floor_barrier: 1, snapshot: 1 }, None);
    solo.wait(100_000);
    solo
}

/// All have executed a Nop that was a rival, and forgotten it; no barrier names it.
fn settled_a_nop() -> Solo {
    let mut solo = Solo::new(5, 2);
    solo.tell(1, pre_accept(id(1, 1), Deps::NONE), Some(&rival()));
    solo.tell(3, commit(id(1, 1), ballot(1, 3), Value::Nop, Deps::NONE), None);
    for peer in [0, 1, 3, 4] {
        let gossip = Gossip { executed: upto([0, 1]), ..Gossip::default() };
        solo.tell(peer, PeerMessage::Gossip(Box::new(gossip)), None);
    }
    solo.wait(100_000);
    assert_eq!(solo.core.status().floor, upto([0, 1]), "all have executed it");
    solo
}

/// The same, and its records are cut with those of the next barrier.
fn without_records_of_a_nop() -> Solo {
    let solo = forgotten(with_barrier(settled_a_nop()));
    assert!(solo.cut > 0);
    solo
}

/// The snapshot of another replica at a barrier of row 0, which its frontier names; the barrier was recovered
/// there, and is after Nops of row 1 or 2 as that recovery found them.
fn snapshot_after(barriers: u64, after: Deps) -> (u64, Vec<u8>) {
    let mut solo = with_barrier(Solo::new(5, 4));
    for nop in [id(1, 1), id(2, 1)] {
        solo.tell(3, commit(nop, ballot(1, 3), Value::Nop, Deps::NONE), None);
    }
    for seq in 3..2 + barriers {
        let (ballot, value, deps) = (ballot(1, 3), Value::Attached, upto([seq - 1]));
        let recovered = PeerMessage::Commit { id: id(0, seq), ballot, value, deps, after };
        solo.take_snapshot();
        solo.tell(3, recovered, Some(&barrier()));
    }
    forgotten(solo).snapshot.expect("it took one")
}

/// It has installed the snapshots of two peers, one after the other. Each covers a Nop that the other does
/// not; both were rivals.
fn with_two_peers_snapshots() -> Solo {
    let mut solo = Solo::new(5, 2);
    solo.install(&snapshot_after(2, upto([0, 1])));
    solo.sync();
    solo.install(&snapshot_after(3, upto([0, 0, 1])));
    solo.sync();
    assert_eq!(solo.core.status().floor, upto([4, 1, 1]));
    solo
}

#[test]
pub(crate) fn section_7_a_restart_names_what_it_named_before() {
    let named = |solo: &mut Solo| match solo.tell(3, pre_accept(id(3, 1), Deps::NONE), Some(&batch()))[..] {
        [(3, PeerMessage::PreAcceptOk { deps, .. })] => deps,
        ref other => panic!("{other:?}"),
    };
    for (begun, at_least) in [
        (with_a_peers_floor as fn() -> Solo, upto([2, 2])),
        (without_records_of_a_nop, upto([0, 1])),
        (forgetful, upto([2])),
        (with_two_peers_snapshots, upto([4, 1, 1])),
    ] {
        assert!(named(&mut begun()).covers(&at_least), "the story is that it names {at_least:?}");
        let mut solo = begun();
        for _ in 0..2 {
            solo.restart();
        }
        assert!(named(&mut solo).covers(&at_least), "after restarts, too: {at_least:?}");
    }
}

#[test]
fn g5_a_snapshot_that_was_being_taken_ends_with_an_install() {
    let mut solo = with_barrier(Solo::new(5, 2));
    assert!(solo.core.taking().is_some());
    solo.install(&snapshot_after(2, Deps::NONE));
    assert_eq!(solo.core.taking(), None, "its state is gone");
}

#[test]
fn g5_what_the_log_had_grown_before_an_install_asks_for_no_barrier() {
    let mut solo = Solo::with_barriers(5, 3, 1_000);
    // No barrier is proposed over something older than a moment, which the snapshot covers.
    solo.tell(0, pre_accept(ID, Deps::NONE), Some(&batch()));
    solo.wait(100_000);
    // Many records, of which one is carried forward.
    (1..=10).for_each(|round| drop(solo.tell(4, recover(id(4, 1), ballot(round, 4)), None)));
    solo.wait(5_000);
    assert!(!proposes_a_barrier(&mut solo), "the story is that it could not yet");
    solo.install(&forgetful().snapshot.expect("it took one"));
    solo.sync();
    solo.wait(5_000);
    assert!(!proposes_a_barrier(&mut solo), "all that is behind a barrier now");
}

#[test]
fn g5_who_lacks_the_barrier_wants_the_snapshot() {
    let mut solo = Solo::new(5, 3);
    let gossip = Gossip { committed: upto([2]), floor: upto([2]), snapshot: 1, ..Gossip::default() };
    solo.tell(2, PeerMessage::Gossip(Box::new(gossip)), None);
    solo.wait(100_000);
    assert_eq!(solo.core.wants_snapshot(), Some((ReplicaId(2), 1)));
    solo.install(&forgetful().snapshot.expect("it took one"));
    assert_eq!(solo.core.wants_snapshot(), None);
}

/// The ranges that it asks others for.
fn pulls(said: Vec<(u8, PeerMessage)>) -> Vec<(u64, u64)> {
    let range = |(_, message)| match message {
        PeerMessage::Pull { from, to, .. } => Some((from, to)),
        _ => None,
    };
    said.into_iter().filter_map(range).collect()
}

#[test]
fn g5_a_range_that_is_too_much_for_one_answer_goes_on_where_that_ends() {
    let mut builder = RequestBuilder::default();
    builder.decide(b"key", &vec![0; PULL_BYTES_MAX / 9]).expect("it fits");
    let ninth = parse(builder.encode(SessionId::named("s"), Numbering::at(1)));
    let (mut source, mut solo) = (Solo::new(3, 1), Solo::new(3, 2));
    let committed = |seq| commit(id(0, seq), Ballot::ZERO, Value::Attached, upto([seq - 1]));
    (1..=20).for_each(|seq| drop(source.tell(0, committed(seq), Some(&ninth))));
    let gossip = Gossip { committed: upto([20]), ..Gossip::default() };
    solo.tell(1, PeerMessage::Gossip(Box::new(gossip)), None);
    solo.wait(300_000);
    let mut asked = pulls(solo.said()).pop();
    // Each answer is asked for as soon as the last one has come.
    let mut answers = Vec::new();
    while let Some((from, to)) = asked.take() {
        let pull = PeerMessage::Pull { row: ReplicaId(0), from, to };
        let brought = source.tell(2, pull, None);
        answers.push(brought.len());
        for (_, message) in brought {
            asked = pulls(solo.tell(1, message, Some(&ninth))).pop().or(asked);
        }
    }
    assert_eq!((solo.core.executed(), answers), (&upto([20]), vec![9, 9, 2]));
}

#[test]
fn g5_what_comes_slowly_is_not_asked_for_twice() {
    let mut solo = Solo::new(3, 2);
    let gossip = Gossip { committed: upto([9]), ..Gossip::default() };
    solo.tell(1, PeerMessage::Gossip(Box::new(gossip)), None);
    let patience = timing().resend_us;
    solo.wait(patience);
    assert_eq!(pulls(solo.said()), [(1, 9)]);
    for seq in 1..=4 {
        let committed = commit(id(0, seq), Ballot::ZERO, Value::Attached, upto([seq - 1]));
        solo.tell(1, committed, Some(&decide("s", seq, 0, "a")));
        solo.wait(patience - 5_000);
        assert_eq!(pulls(solo.said()), []);
    }
    solo.wait(5_000);
    assert_eq!(pulls(solo.said()), [(5, 9)], "nothing comes any more");
}

#[test]
fn g5_own_clients_are_sent_to_their_sessions() {
    let mut solo = Solo::new(5, 0);
    solo.ask(&batch());
    solo.sync();
    solo.install(&forgetful().snapshot.expect("it took one"));
    solo.sync();
    let outcome = solo.replies.pop().expect("it is answered").outcome;
    assert!(matches!(outcome, Err(Failure::Unknown(Reason::StateReplaced))), "{outcome:?}");
}

/// An Accept or Commit that comes after ID.
fn behind(id: InstanceId) -> [PeerMessage; 2] {
    let (ballot, value, deps, after) = (ballot(1, 3), Value::Attached, Deps::NONE, upto([1]));
    let accept = PeerMessage::Accept { id, ballot, value, deps, after };
    [accept, PeerMessage::Commit { id, ballot, value, deps, after }]
}

#[test]
pub(crate) fn r4_the_floor_is_told() {
    let mut solo = forgetful();
    solo.tell(3, recover(id(1, 1), MINE), None);
    let said = solo.tell(3, validate(id(1, 1), MINE, Deps::NONE), Some(&rival()));
    let conflicts = Vec::new();
    let ok = PeerMessage::ValidateOk { id: id(1, 1), ballot: MINE, conflicts, floor: upto([2]) };
    assert_eq!(said, [(3, ok)], "B15");
}

#[test]
fn r6_what_is_forgotten_here_meanwhile_comes_before() {
    let mut solo = waiting();
    let source = forgotten(barrier_by(Solo::new(5, 4), 2, &rival()));
    solo.install(&source.snapshot.expect("it took one"));
    solo.sync();
    let (deps, after) = (Deps::NONE, upto([0, 0, 2]));
    let accept = PeerMessage::Accept { id: ID, ballot: MINE, value: Value::Attached, deps, after };
    assert_eq!(proposals(solo.said()), [accept], "the conflict that it waited for is at the floor");
}

#[test]
pub(crate) fn c4_after_stays_with_the_accepted_value() {
    let mut solo = Solo::new(5, 2);
    let [accept, _] = behind(id(1, 1));
    solo.tell(3, accept, Some(&rival()));
    for round in 2..4 {
        let said = solo.tell(4, recover(id(1, 1), ballot(round, 4)), None);
        let [(4, PeerMessage::RecoverOk { after, .. })] = &said[..] else { panic!("{said:?}") };
        assert_eq!(after, &upto([1]));
        solo.restart();
    }
}

#[test]
pub(crate) fn section_6_what_comes_after_waits_for_what_conflicts() {
    let mut solo = Solo::new(5, 2);
    let [_, commit_behind] = behind(id(1, 1));
    solo.tell(3, commit_behind, Some(&rival()));
    for _ in 0..2 {
        assert_eq!(solo.core.executed(), &Frontier::NONE);
        solo.restart();
    }
    solo.tell(0, commit(ID, Ballot::ZERO, Value::Attached, Deps::NONE), Some(&batch()));
    assert_eq!(solo.core.executed(), &upto([1, 1]));
}

#[test]
fn what_is_dropped_is_counted_by_its_reason() {
    let mut solo = forgetful();
    let before = solo.core.status().messages_dropped;
    solo.tell(1, accept_ok(id(7, 1), ballot(1, 1)), None);
    solo.tell(1, accept_ok(ID, ballot(1, 1)), None);
    solo.tell(1, accept_ok(ID, ballot(1, 1)), None);
    (0..3).for_each(|_| _ = solo.tell(1, pre_accept_ok(id(2, 1), Deps::NONE), None));
    let after = solo.core.status().messages_dropped;
    assert_eq!(after.impossible - before.impossible, 1, "there is no row 7");
    assert_eq!(after.forgotten - before.forgotten, 2);
    assert_eq!(after.late - before.late, 3, "nothing was asked");
    assert_eq!(after.not_admitted, 0);
}

#[test]
fn g5_a_floor_that_was_taken_over_is_not_taken_for_one_of_the_own_snapshot() {
    // P has executed the second barrier, and its snapshot there is not durable yet. It takes over the floor of a peer.
    let mut p = forgetful();
    p.tell(0, commit(id(0, 3), Ballot::ZERO, Value::Attached, upto([2])), Some(&rival()));
    p.tell(0, commit(id(0, 4), Ballot::ZERO, Value::Attached, upto([3])), Some(&barrier()));
    let frontier = upto([4, 1]);
    let of_q = Gossip {
        committed: frontier,
        executed: frontier,
        floor: frontier.to_floor(),
        floor_barrier: 2,
        snapshot: 2,
        ..Gossip::default()
    };
    p.tell(1, PeerMessage::Gossip(Box::new(of_q)), None);
    p.wait(400_000);
    let told = p.sent().into_iter().filter_map(|send| match send.message {
        PeerMessage::Gossip(gossip) => Some(gossip),
        _ => None,
    });
    let told = told.last().expect("it gossips");
    assert_eq!((told.floor, told.floor_barrier, told.snapshot), (frontier.to_floor(), 2, 1));
    // M has executed the first barrier only, and may not take for Nops what it lacks before the second.
    let mut m = with_barrier(Solo::new(5, 3));
    let before = *m.core.executed();
    m.tell(2, PeerMessage::Gossip(told), None);
    m.wait(400_000);
    assert_eq!(*m.core.executed(), before);
}
