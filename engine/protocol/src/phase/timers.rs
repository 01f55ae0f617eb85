//! Steps that time alone causes: slow paths, resends, recoveries, and the end of idle sessions.

use crate::attempt::{Attempt, Stage};
use crate::contract::{Time, Timing};
use crate::instance::Instance;
use crate::limits::{RECOVER_DOUBLINGS_MAX, RECOVER_RANGE_MAX, RECOVER_SCAN_MAX, RECOVERIES_MAX};
use crate::marks::Mark;
use crate::mutant::{self, Mutant};
use crate::payload::Payload;
use crate::phase::accept::accept_of;
use crate::replica::Replica;
use isonomy_wire::command::RequestBuilder;
use isonomy_wire::id::{InstanceId, ReplicaId, SessionId};
use isonomy_wire::message::PeerMessage;
use isonomy_wire::route::{hash_session, home_of};
use xxhash_rust::xxh3::xxh3_64_with_seed;

impl Replica {
    /// The period of housekeeping has passed.
    pub(crate) fn tick(&mut self, now: Time) {
        if self.is_sealed() {
            self.maybe_gossip(now);
            return self.maybe_note_heard(now);
        }
        if self.lacks_state() {
            self.choose_source(now);
        }
        if self.is_learner() {
            return self.tick_as_learner(now);
        }
        let ids: Vec<InstanceId> = self.attempts.keys().copied().collect();
        for id in ids {
            self.maybe_go_slow(now, id);
            self.maybe_try_again(now, id);
            self.maybe_resend(now, id);
        }
        self.look_at_guardrail(now);
        self.recover_overdue(now);
        self.maybe_pull(now);
        self.maybe_gossip(now);
        self.maybe_note_heard(now);
        self.maybe_barrier(now);
        self.end_idle_sessions(now);
    }

    /// R6e: a recovery that makes no progress starts over with a higher ballot.
    fn maybe_try_again(&mut self, now: Time, id: InstanceId) {
        let Some(attempt) = self.attempts.get(&id) else { return };
        let recovering =
            matches!(attempt.stage, Stage::Recovering { .. } | Stage::Validating(_) | Stage::Waiting(_));
        if recovering && now.since(attempt.began) >= self.patience(id, 0) {
            self.marks.set(Mark::R6e);
            self.recover(now, id.row, id.seq..=id.seq);
        }
    }

    /// Sends an attempt's question again to the replicas that have not answered it.
    fn maybe_resend(&mut self, now: Time, id: InstanceId) {
        let Some(attempt) = self.attempts.get_mut(&id) else { return };
        if now.since(attempt.sent) < self.tuning.resend_us {
            return;
        }
        attempt.sent = now;
        self.marks.set(Mark::Resent);
        let attempt = &self.attempts[&id];
        let Some((message, payload)) = self.question(id, attempt) else { return };
        let silent: Vec<ReplicaId> = self.peers.others().filter(|to| attempt.stage.awaits(*to)).collect();
        for to in silent {
            self.counters.resent[to.index()] += 1;
            self.outbox.send(to, message.clone(), payload.clone());
        }
    }

    /// The question of an attempt to the others at its stage, with the batch, since a replica that does not answer
    /// may lack it.
    fn question(&self, id: InstanceId, attempt: &Attempt) -> Option<(PeerMessage, Option<Payload>)> {
        let ballot = attempt.ballot;
        Some(match &attempt.stage {
            Stage::PreAccepting { .. } => {
                let instance = self.space.get(id)?;
                let deps = *instance.init_dep().expect("own proposals have initDep");
                (PeerMessage::PreAccept { id, deps }, instance.payload().cloned())
            }
            Stage::Accepting { value, .. } => accept_of(id, ballot, value, true),
            Stage::Recovering { .. } => {
                (PeerMessage::Recover { row: id.row, from: id.seq, to: id.seq, ballot }, None)
            }
            Stage::Validating(validation) => {
                let message = PeerMessage::Validate { id, ballot, deps: validation.dep };
                (message, Some(validation.payload.clone()))
            }
            Stage::Waiting(validation) => {
                (PeerMessage::Waiting { id, supporters: validation.supporters as u8 }, None)
            }
        })
    }

    /// How long an instance may stay undecided before the replica of this rank recovers it. The time doubles at each
    /// try, and is spread so that two replicas do not meet again and again. It is equal for all instances of a row
    /// with as many tries, so that instances that got stuck together are recovered in one message.
    fn patience(&self, id: InstanceId, rank: u64) -> u64 {
        let tries = self.space.get(id).map_or(0, Instance::tries);
        let timing = &self.tuning;
        let is_reached = self.peers.live().contains(id.row);
        let base = if is_reached { timing.recover_us } else { timing.suspect_us.min(timing.recover_us) };
        let base = base << tries.min(RECOVER_DOUBLINGS_MAX);
        let salt = [id.row.0, self.me.0, tries as u8];
        base * (rank + 1) + xxh3_64_with_seed(&salt, self.seed) % (base / 4 + 1)
    }

    /// The rank of this replica in the recovery of a row: the row's owner comes first, then the next live replica, by
    /// index.
    fn rank(&self, row: ReplicaId) -> u64 {
        let (n, live) = (self.quorum.n as u8, self.peers.live());
        let order = (0..n).map(|step| ReplicaId((row.0 + step) % n));
        order.filter(|id| live.contains(*id)).position(|id| id == self.me).unwrap_or(0) as u64
    }

    /// R1 for all instances that were seen, in whatever way, and are undecided for too long.
    fn recover_overdue(&mut self, now: Time) {
        if self.peers.live().len() < self.quorum.slow() {
            return;
        }
        for row in (0..self.quorum.n as u8).map(ReplicaId) {
            let rank = self.rank(row);
            let overdue = self.overdue(now, row, rank);
            let mut start = 0;
            for end in 1..=overdue.len() {
                let run = (end - start) as u64;
                let joined = end < overdue.len() && overdue[end] == overdue[end - 1] + 1;
                if !joined || run == RECOVER_RANGE_MAX {
                    self.recover(now, row, overdue[start]..=overdue[end - 1]);
                    start = end;
                }
            }
        }
    }

    /// The sequence numbers of a row whose recovery is due.
    fn overdue(&self, now: Time, row: ReplicaId, rank: u64) -> Vec<u64> {
        let room = RECOVERIES_MAX.saturating_sub(self.attempts.len());
        let undecided = self.space.behind(row, self.executor.committed().of(row));
        let overdue = undecided.take(RECOVER_SCAN_MAX).filter(|(id, instance)| {
            // A replica takes up its own undecided instances from before a restart at once, since nobody else
            // proposes them at ballot 0.
            let own_past =
                row == self.me && instance.tries() == 0 && id.seq <= self.numbers.restart_mark(row);
            // An instance that another replica has committed is pulled from there (G5).
            let elsewhere = || self.peers.others().any(|peer| self.peers.is_committed_at(peer, *id));
            !instance.is_committed()
                && !self.attempts.contains_key(id)
                && (own_past || instance.waits(now) >= self.patience(*id, rank))
                && !elsewhere()
        });
        overdue.take(room).map(|(id, _)| id.seq).collect()
    }

    /// S4, S5, S6: proposes the end of sessions that nobody has used for long. The session's opener does
    /// it, or the home of a session that is named, keyed or of an earlier epoch, or whoever lives next to it.
    fn end_idle_sessions(&mut self, now: Time) {
        let Timing { session_idle_us, source_idle_us, keyed_idle_us, .. } = self.config.timing;
        if self.requests.is_stopping() {
            return;
        }
        let patience = |id: SessionId| match id {
            _ if id.is_named() => source_idle_us,
            _ if id.is_keyed() => keyed_idle_us,
            _ => session_idle_us,
        };
        let shortest = session_idle_us.min(source_idle_us).min(keyed_idle_us);
        for id in self.idle.poll(now, &self.machine.sessions, shortest, patience) {
            if mutant::is(Mutant::ClockEndsSessions) {
                self.machine.sessions.end(id);
            }
            let opener = id.opened_during(self.config.epoch).map(|open| open.row);
            let home = opener.unwrap_or_else(|| home_of(hash_session(id), self.config.replicas));
            if self.rank(home) == 0 {
                self.propose_end(id);
            }
        }
    }

    fn propose_end(&mut self, id: SessionId) {
        self.marks.set(Mark::SessionEnded);
        let Some(session) = self.machine.sessions.get(id) else { return };
        let mut builder = RequestBuilder::default();
        builder.end_idle(session.low(), session.owner());
        let payload = Payload::of_request(&mut builder, id);
        self.requests.push_own(payload);
    }
}
