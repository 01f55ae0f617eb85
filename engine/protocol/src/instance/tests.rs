//! V1, V4 and V5 in the transitions: a transition that the law forbids panics, and one that the law allows does not.

use super::*;
use isonomy_wire::command::{Numbering, RequestBuilder};
use isonomy_wire::id::{ReplicaId, SessionId};
use std::panic::{AssertUnwindSafe, catch_unwind};

const ID: InstanceId = InstanceId { row: ReplicaId(0), seq: 1 };

fn ballot(round: u32) -> Ballot {
    Ballot { round, replica: ReplicaId(1) }
}

fn batch() -> Payload {
    let mut builder = RequestBuilder::default();
    builder.decide(b"k", b"v").unwrap();
    let bytes = builder.encode(SessionId::named("s"), Numbering::at(1));
    let crc = crc32c::crc32c(&bytes);
    Payload::parse(bytes, crc).unwrap()
}

fn value() -> Proposal {
    Proposal { cmd: Choice::Initial, payload: Some(batch()), ..Proposal::nop() }
}

fn pre_accepted() -> Instance {
    let mut instance = Instance::seen(Time(0));
    instance.pre_accept(Deps::NONE, Deps::NONE, batch());
    instance
}

fn promised() -> Instance {
    let mut instance = pre_accepted();
    instance.promise(ballot(2));
    instance
}

fn committed() -> Instance {
    let mut instance = promised();
    instance.accept(ballot(2), value());
    assert!(instance.commit(ID, ballot(2), value()));
    instance
}

fn is_refused(mut instance: Instance, transition: impl FnOnce(&mut Instance)) -> bool {
    catch_unwind(AssertUnwindSafe(|| transition(&mut instance))).is_err()
}

#[test]
fn v4_a_promise_stands() {
    assert!(is_refused(promised(), |it| it.promise(ballot(2))));
    assert!(is_refused(promised(), |it| it.promise(ballot(1))));
    assert!(is_refused(promised(), |it| it.accept(ballot(1), value())));
    assert!(is_refused(promised(), |it| it.pre_accept(Deps::NONE, Deps::NONE, batch())));
    assert!(!is_refused(promised(), |it| it.accept(ballot(2), value())));
    assert!(!is_refused(promised(), |it| it.promise(ballot(3))));
}

#[test]
fn v4_what_is_committed_stays_so() {
    assert!(is_refused(committed(), |it| it.promise(ballot(9))));
    assert!(is_refused(committed(), |it| it.accept(ballot(9), value())));
    assert!(is_refused(committed(), |it| it.validate(Deps::NONE, batch())));
    assert!(!committed().commit(ID, ballot(1), value()), "the same value again changes nothing");
}

#[test]
fn v1_two_values_are_a_broken_invariant() {
    assert!(is_refused(committed(), |it| _ = it.commit(ID, ballot(3), Proposal::nop())));
}

#[test]
fn v5_there_is_one_init_dep() {
    let mut other = Deps::NONE;
    other.set(ReplicaId(2), 1);
    assert!(is_refused(promised(), |it| it.validate(other, batch())));
    assert!(!is_refused(promised(), |it| it.validate(Deps::NONE, batch())));
}

#[test]
fn v4_a_record_that_is_carried_does_not_go_back() {
    let (phase, bal, init_dep) = (Phase::PreAccepted, ballot(2), Some(Deps::NONE));
    let state = Carried { phase, bal, abal: Ballot::ZERO, init_dep, validated: false };
    assert!(!is_refused(promised(), |it| assert!(it.carry(state, value()))));
    assert!(is_refused(promised(), |it| _ = it.carry(Carried { bal: ballot(1), ..state }, value())));
    assert!(is_refused(promised(), |it| _ = it.carry(Carried { phase: Phase::Init, ..state }, value())));
    assert!(!committed().carry(state, value()), "a commit stands for all that came before");
}
