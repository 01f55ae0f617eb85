//! A restart: the newest snapshot, then the records of the log, in their order (law, D6 and section 7).

use crate::attempt::Proposal;
use crate::contract::{Executed, Time};
use crate::execute::Step;
use crate::instance::{Carried, Choice, Instance};
use crate::log::record::Record;
use crate::mutant::{self, Mutant};
use crate::payload::Payload;
use crate::replica::Replica;
use crate::snapshot::Snapshot;
use isonomy_wire::deps::{Deps, Floor};
use isonomy_wire::id::InstanceId;
use isonomy_wire::message::{Phase, Value};

impl Replica {
    /// Loads the newest snapshot, before the log is replayed (G5).
    pub fn restore(&mut self, snapshot: Snapshot) {
        let frontier = snapshot.head.frontier;
        self.load(snapshot);
        self.forgetting.on_covered(&frontier.to_floor());
        self.raise_floor(&frontier.to_floor());
    }

    /// Replays a record that the log had when the process started. The log was checked before, so a record
    /// that contradicts earlier ones is a broken invariant.
    pub fn replay(&mut self, record: Record, payload: Option<Payload>) {
        if record.id().is_some_and(|id| self.is_forgotten(id)) {
            return;
        }
        if let Some(id) = record.id() {
            self.replayed(id).on_record(payload);
            self.learn(id);
        }
        match record {
            Record::Reserve { end } => self.numbers.replay_block(end),
            Record::Stopped { used } => self.numbers.replay_stop(used),
            Record::Begin { reserved, floor, barrier: _ } => {
                if !mutant::is(Mutant::BatchBeforeBegin) {
                    self.space.on_begin();
                }
                self.numbers.replay_block(reserved);
                self.replay_floor(&floor);
            }
            Record::Floor { upto } => self.replay_floor(&upto),
            Record::Heard { positions } => self.peers.replay_heard(positions),
            Record::PreAccepted { id, deps, init_deps } => {
                let payload = self.replayed_payload(id);
                self.replayed(id).pre_accept(deps, init_deps, payload);
                self.space.see_all(&deps, Time(0));
            }
            Record::Promised { id, ballot } => self.replayed(id).promise(ballot),
            Record::Validated { id, value: _, init_deps } => {
                let payload = self.replayed_payload(id);
                self.replayed(id).validate(init_deps, payload);
                self.space.see_all(&init_deps, Time(0));
            }
            Record::Accepted { id, ballot, value, deps, after } => {
                self.replayed(id).accept(ballot, replayed_value(value, deps, after));
                self.space.see_all(&deps, Time(0));
            }
            Record::Committed { id, ballot, value, deps, after } => {
                let after = if mutant::is(Mutant::AfterLostInReplay) { Deps::NONE } else { after };
                self.take_commit(id, ballot, replayed_value(value, deps, after));
                self.execute_replayed();
            }
            Record::Carried { id, phase, bal, abal, value, deps, after, init_deps, validated } => {
                let state = Carried { phase, bal, abal, init_dep: init_deps, validated };
                self.replay_carried(id, state, replayed_value(value, deps, after));
            }
        }
    }

    fn replay_carried(&mut self, id: InstanceId, state: Carried, value: Proposal) {
        let (deps, after) = (value.dep, value.after);
        if !self.replayed(id).carry(state, value) {
            return;
        }
        if state.phase == Phase::Committed {
            self.on_final(id);
            return self.execute_replayed();
        }
        self.space.see_all(&deps, Time(0));
        self.space.see_all(&after, Time(0));
    }

    /// G1, G5: replays a floor. Instances that it covers and the replay has not executed were not seen here, or their
    /// records are gone, so the index does not have them.
    fn replay_floor(&mut self, upto: &Floor) {
        if !self.executor.executed().is_above(upto) && !mutant::is(Mutant::ReplayedFloorUnnamed) {
            self.forgetting.on_unindexed(upto);
        }
        let batches = self.executor.skip_to(upto);
        assert_eq!(batches, 0, "G1: what a floor covers has executed, or are Nops");
        self.raise_floor(upto);
        // It was written when this barrier, at the latest, had executed.
        self.forgetting.rest_floor(self.forgetting.barriers());
    }

    fn replayed(&mut self, id: InstanceId) -> &mut Instance {
        self.space.see(id, Time(0)).expect("the log names no impossible ids")
    }

    fn replayed_payload(&mut self, id: InstanceId) -> Payload {
        let payload = self.replayed(id).payload().cloned();
        payload.expect("the log has a batch before it is pre-accepted or validated")
    }

    fn execute_replayed(&mut self) {
        if self.lacks_state() {
            return;
        }
        while let Some(step) = self.executor.poll() {
            match step {
                Step::Execute(id, Some(payload), has_more) => {
                    let places = self.space.take_places(id);
                    let (publishes, mut responses) = (self.config.publishes, Vec::new());
                    let respond = |part, response| {
                        if publishes {
                            responses.push((part, response));
                        }
                    };
                    let found = self.machine.execute(id, &payload, &places, false, respond);
                    self.index.note(&found);
                    if publishes {
                        self.outbox.tell(Executed::Batch { id, payload, responses, has_more });
                    }
                }
                Step::Execute(_, None, _) => {}
                Step::Barrier(barrier) => {
                    self.count_barrier();
                    self.tell_barrier(&barrier);
                    if let Some(record) = barrier.seal {
                        self.end_epoch(record);
                    }
                }
            }
        }
    }
}

/// The value that a record names. Its batch is known from this record or one before it.
fn replayed_value(value: Value, dep: Deps, after: Deps) -> Proposal {
    Proposal { cmd: Choice::of(value), dep, after, payload: None }
}
