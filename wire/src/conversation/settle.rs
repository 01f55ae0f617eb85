//! The effects of answers, failures, lost connections and time on requests under way.

use super::Conversation;
use super::config::{EPOCH_PAUSE_US, EPOCH_PAUSE_US_MAX, LANE_BITS, RETRY_DOUBLINGS_MAX, TICK_US};
use super::lane::{Flight, LaneSession, Pending, Place, RequestKind};
use super::links::Backoff;
use super::outcome::{Charge, Error, NO_TOKEN, NotTaken, Outcome};
use crate::answer::{Answer, Answers, BadResponse};
use crate::failure::{Failure, Reason};
use crate::id::{ReplicaId, SessionId, ShardId};

/// How long a conversation sends nothing to a replica without a quorum, in microseconds.
const UNAVAILABLE_PAUSE_US: u64 = 100_000;

/// The index of the lane that a tag names.
fn lane_of(tag: u64) -> usize {
    (tag & ((1 << LANE_BITS) - 1)) as usize
}

impl Conversation {
    /// The connection to a replica for a shard was welcomed and works.
    pub fn on_connected(&mut self, replica: ReplicaId, shard: ShardId) {
        self.links.on_connected(replica, shard);
        self.mark_shard_ready(shard);
    }

    /// The connection was lost. The requests that were sent on it go to another replica, unchanged.
    pub fn on_disconnected(&mut self, replica: ReplicaId, shard: ShardId) {
        self.links.on_disconnected(replica, shard);
        self.take_back(replica, shard);
    }

    /// The replica closed the connection, which was idle, to make room for another. The caller need not open it again
    /// before [`Conversation::poll_wake`] names it.
    pub fn on_yielded(&mut self, replica: ReplicaId, shard: ShardId) {
        self.links.on_yielded(replica, shard);
        self.take_back(replica, shard);
    }

    fn take_back(&mut self, replica: ReplicaId, shard: ShardId) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.shard == shard) {
            lane.on_silence(|at, _| at == replica);
        }
        self.mark_shard_ready(shard);
    }

    /// Bytes have come on a connection, which is therefore not dead, even if no whole message has come.
    pub fn on_heard(&mut self, replica: ReplicaId, shard: ShardId) {
        if self.links.on_heard(replica, shard) {
            self.mark_shard_ready(shard);
        }
    }

    /// A request has an answer of any kind.
    fn on_reply(&mut self, replica: ReplicaId, tag: u64) {
        let Some(shard) = self.lanes.get(lane_of(tag)).map(|lane| lane.shard) else { return };
        if self.links.on_reply(replica, shard) {
            self.mark_shard_ready(shard);
        }
    }

    /// A response has come. The first answer to a request counts; later copies are ignored.
    ///
    /// # Errors
    ///
    /// [`BadResponse`] if the response does not fit its request. The replica does not follow the protocol; close the
    /// connection.
    pub fn on_response(&mut self, replica: ReplicaId, tag: u64, answers: Answers) -> Result<(), BadResponse> {
        self.on_reply(replica, tag);
        self.take_response(Some(replica), tag, answers)
    }

    /// A response has come on a connection of an earlier epoch. The answer counts as any other, but says nothing about
    /// the present members.
    ///
    /// # Errors
    ///
    /// [`BadResponse`] as for [`Conversation::on_response`].
    pub fn on_late_response(&mut self, tag: u64, answers: Answers) -> Result<(), BadResponse> {
        self.take_response(None, tag, answers)
    }

    fn take_response(
        &mut self,
        from: Option<ReplicaId>,
        tag: u64,
        answers: Answers,
    ) -> Result<(), BadResponse> {
        let Some((index, place)) = self.find(tag) else { return Ok(()) };
        let lane = &mut self.lanes[index];
        let flight = &lane.flights[place];
        let first = answers.first();
        match (flight.kind, &first) {
            (RequestKind::Open, Some(Answer::Opened { .. })) => {}
            (RequestKind::End, Some(Answer::Ended { .. } | Answer::Expired)) => {}
            (RequestKind::Attach, Some(Answer::Standing(_))) => {}
            (RequestKind::Open | RequestKind::End | RequestKind::Attach, _) => return Err(BadResponse),
            (RequestKind::Writes | RequestKind::Reads | RequestKind::Keyed, _) => {}
        }
        if answers.len() != flight.commands {
            return Err(BadResponse);
        }
        let (shard, kind) = (lane.shard, flight.kind);
        let sent = flight.place;
        if let Some(replica) = from {
            let sent_at = match sent {
                Place::Sent { replica: to, at } if to == replica => Some(at),
                _ => None,
            };
            if self.links.on_answer(replica, shard, kind.class(), sent_at) {
                self.mark_shard_ready(shard);
            }
        }
        self.mark_ready(index);
        let lane = &mut self.lanes[index];
        if kind == RequestKind::Writes && answers.are_early() {
            lane.on_early(place);
            return Ok(());
        }
        let flight = lane.land(place);
        match (kind, first) {
            (RequestKind::Open, Some(Answer::Opened { session })) => {
                assert_eq!(lane.session, LaneSession::Opening, "a lane opens one session at a time");
                (lane.session, lane.next) = (LaneSession::Open(session), 1);
            }
            (RequestKind::End, Some(Answer::Ended { low })) => {
                self.on_ended(index, flight.session, Some(low))
            }
            (RequestKind::End, _) => self.on_ended(index, flight.session, None),
            (RequestKind::Writes, _) => self.on_written(index, flight, answers),
            (RequestKind::Reads, _) => self.on_read(index, flight, answers),
            // The key stands for another command: the number is the digest of the command.
            (RequestKind::Keyed, Some(Answer::Duplicate)) => self.settle(flight, Err(Error::KeyReused)),
            (RequestKind::Keyed, _) => self.settle(flight, Ok(answers)),
            (RequestKind::Attach, Some(Answer::Standing(standing))) => {
                self.on_standing(index, flight.session, *standing)
            }
            (RequestKind::Open | RequestKind::Attach, _) => unreachable!("looked at above"),
        }
        Ok(())
    }

    fn on_written(&mut self, index: usize, flight: Flight, answers: Answers) {
        if answers.are_fenced() {
            self.stop(index, flight.first);
            return self.settle(flight, Err(Error::Fenced));
        }
        if !answers.are_expired() {
            self.settle(flight, Ok(answers));
            self.lanes[index].release();
            return self.lanes[index].maybe_begin_afresh();
        }
        if self.source.is_some() {
            self.stop(index, flight.first);
            return self.settle(flight, Err(Error::Expired));
        }
        // The only copy of the request came too late for its session. The request had no effect, and so had none of
        // those behind it (S2).
        let (session, first) = (flight.session, flight.first);
        let low = (flight.unsettled == 1).then_some(first);
        self.resolve(index, flight, low);
        self.resolve_from(index, first, low);
        self.lanes[index].on_session_gone(session);
    }

    /// The session of a lane has ended. `low` is its next number at its end, if that is known.
    fn on_ended(&mut self, index: usize, session: SessionId, low: Option<u64>) {
        self.resolve_from(index, 0, low);
        self.lanes[index].on_session_gone(session);
    }

    /// Settles the requests from a number on whose session has ended.
    fn resolve_from(&mut self, index: usize, first: u64, low: Option<u64>) {
        while let Some(flight) = self.lanes[index].land_write_from(first) {
            self.resolve(index, flight, low);
        }
    }

    /// Settles a request whose session has ended. Commands that certainly had no effect are sent again on another
    /// session.
    fn resolve(&mut self, index: usize, flight: Flight, low: Option<u64>) {
        let may_have_effect = low.map_or(flight.unsettled > 0, |low| flight.first < low);
        if may_have_effect {
            return self.settle(flight, Err(Error::Expired));
        }
        let writes = &mut self.lanes[index].writes;
        let builder = writes.builder();
        writes.put_back(Pending::again(flight, builder));
    }

    /// Takes the answers to reads, and asks again for values that did not fit the response.
    fn on_read(&mut self, index: usize, mut flight: Flight, answers: Answers) {
        if answers.any_omitted() {
            let reads = &mut self.lanes[index].reads;
            let builder = reads.builder();
            reads.put_back(flight.take_omitted(&answers, builder));
        }
        self.settle(flight, Ok(answers));
    }

    /// The replica has refused or failed a request.
    pub fn on_failure(&mut self, now: u64, replica: ReplicaId, tag: u64, failure: Failure) {
        self.on_reply(replica, tag);
        let Some((index, place)) = self.find(tag) else { return };
        let lane = &mut self.lanes[index];
        let (shard, flight) = (lane.shard, &mut lane.flights[place]);
        if !matches!(flight.place, Place::Sent { replica: at, .. } if at == replica) {
            return;
        }
        self.last_refusal = Some((replica, failure.clone()));
        match failure {
            Failure::Overloaded { retry_after_ms, .. } => {
                // Another replica may take it at once.
                let (pause, class) = (1000 * u64::from(retry_after_ms), flight.kind.class());
                let backoff = Backoff { pause, longest: self.config.retry_us };
                flight.unsettled -= 1;
                lane.send_again(place);
                self.links.overloaded(replica, shard, class, now, backoff);
            }
            Failure::Unavailable(reason) | Failure::Unknown(reason) => {
                // Of an unknown outcome the copy may still have its effect.
                flight.unsettled -= u32::from(matches!(failure, Failure::Unavailable(_)));
                let class = flight.kind.class();
                lane.send_again(place);
                match reason {
                    Reason::EpochEnded { .. } => {
                        let backoff = Backoff { pause: EPOCH_PAUSE_US, longest: EPOCH_PAUSE_US_MAX };
                        self.links.overloaded(replica, shard, class, now, backoff);
                    }
                    _ => self.links.suspect(replica, shard, now + UNAVAILABLE_PAUSE_US),
                }
            }
            Failure::Invalid { why } => {
                let opens = matches!(flight.kind, RequestKind::Open | RequestKind::Attach);
                self.give_up(now, index, place, Error::Invalid(why.clone()));
                // No session will come for the requests that wait for one.
                while opens && let Some(pending) = self.lanes[index].writes.take_older(u64::MAX) {
                    self.report(pending.tokens, pending.charge, Err(Error::Invalid(why.clone())));
                }
            }
        }
        self.mark_ready(index);
    }

    fn find(&self, tag: u64) -> Option<(usize, usize)> {
        let index = lane_of(tag);
        let place = self.lanes.get(index)?.flights.iter().position(|flight| flight.tag == tag)?;
        Some((index, place))
    }

    /// Gives up a request that will not be answered. Requests behind it on its session cannot be executed without it,
    /// so the session is ended, whose answer tells which were executed. A named source stops instead, since it can
    /// submit the same number again.
    fn give_up(&mut self, now: u64, index: usize, place: usize, error: Error) {
        let until = now.saturating_add(self.config.deadline_us);
        let lane = &mut self.lanes[index];
        let flight = lane.land(place);
        match flight.kind {
            RequestKind::Open => lane.session = LaneSession::Closed,
            RequestKind::Attach => lane.session = LaneSession::Detached(flight.session),
            RequestKind::Writes if self.source.is_some() => self.stop(index, flight.first),
            RequestKind::Writes => {
                lane.end_session(until);
                lane.maybe_begin_afresh();
            }
            RequestKind::End => self.on_ended(index, flight.session, None),
            RequestKind::Reads | RequestKind::Keyed => {}
        }
        self.settle(flight, Err(error));
    }

    /// Stops a lane at a number of a named source that failed.
    pub(super) fn stop(&mut self, index: usize, number: u64) {
        let lane = &mut self.lanes[index];
        if self.source.is_some() {
            lane.stopped = Some(lane.stopped.map_or(number, |stopped| stopped.min(number)));
        }
    }

    fn settle(&mut self, flight: Flight, result: Result<Answers, Error>) {
        self.report(flight.tokens, flight.charge, result);
    }

    pub(super) fn report(&mut self, tokens: Vec<u64>, charge: Charge, result: Result<Answers, Error>) {
        if tokens.iter().any(|token| *token != NO_TOKEN) {
            self.outcomes.push_back(Outcome { tokens, result, charge });
        }
    }

    /// Time has passed. Call this at [`Conversation::next_deadline`].
    pub fn on_timeout(&mut self, now: u64) {
        if now < self.next_tick {
            return;
        }
        let late = now - self.next_tick;
        self.next_tick = now + TICK_US;
        self.look_at_links(now, late);
        for index in 0..self.lanes.len() {
            if self.lanes[index].is_busy() {
                self.look_at_flights(now, index);
                self.lanes[index].release();
                self.give_up_pending(now, index);
                self.mark_ready(index);
            }
            if self.is_leaving(index) {
                self.lanes[index].maybe_leave_session(now);
                self.lanes[index].maybe_end(now.saturating_add(self.config.deadline_us));
                self.mark_ready(index);
            }
        }
    }

    /// Has dead connections opened anew, and sends their requests to other replicas.
    fn look_at_links(&mut self, now: u64, late: u64) {
        let retry = self.config.retry_us;
        let skipped = if late > retry / 2 { late } else { 0 };
        let first = self.resets.len();
        self.links.bury(now, skipped, retry, |replica, shard| self.resets.push_back((replica, shard)));
        for place in first..self.resets.len() {
            let (replica, shard) = self.resets[place];
            self.take_back(replica, shard);
        }
    }

    /// The next connection for the caller to close and open anew, because it carries nothing any more. The conversation
    /// counts the connection as lost until [`Conversation::on_connected`] tells of the new one.
    pub fn poll_reset(&mut self) -> Option<(ReplicaId, ShardId)> {
        self.resets.pop_front()
    }

    /// The next resting connection for the caller to open, because the conversation has something to send on it.
    pub fn poll_wake(&mut self) -> Option<(ReplicaId, ShardId)> {
        self.wakes.pop_front()
    }

    fn look_at_flights(&mut self, now: u64, index: usize) {
        let (retry, deadline) = (self.config.retry_us, self.config.deadline_us);
        let shard = self.lanes[index].shard;
        let is_old =
            |flight: &Flight| flight.kind != RequestKind::End && now >= flight.since.saturating_add(deadline);
        while let Some(place) = self.lanes[index].flights.iter().position(is_old) {
            let is_open = self.lanes[index].flights[place].unsettled > 0;
            let error = if is_open { Error::TimedOut } else { self.not_taken(index) };
            self.give_up(now, index, place, error);
        }
        let links = &mut self.links;
        self.lanes[index].on_silence(|replica, flight| {
            let Place::Sent { at, .. } = flight.place else { return false };
            let is_late = now >= at + (retry << (flight.sends - 1).min(RETRY_DOUBLINGS_MAX));
            if is_late {
                links.silent(replica, shard, at..now, retry);
            }
            is_late
        });
    }

    /// Gives up commands that waited in the conversation past their deadline, and all commands behind a number of a named
    /// source that failed.
    fn give_up_pending(&mut self, now: u64, index: usize) {
        for kind in [RequestKind::Writes, RequestKind::Reads, RequestKind::Keyed] {
            loop {
                let stopped = self.lanes[index].stopped.map(|_| u64::MAX);
                let Some(limit) = stopped.or(now.checked_sub(self.config.deadline_us)) else { break };
                let Some(pending) = self.lanes[index].queue(kind).take_older(limit) else { break };
                let error = self.not_taken(index);
                let next = self.lanes[index].next;
                self.stop(index, next);
                self.report(pending.tokens, pending.charge, Err(error));
            }
        }
    }

    fn not_taken(&self, index: usize) -> Error {
        let lane = &self.lanes[index];
        let shard = lane.shard;
        if let Some(number) = lane.stopped {
            return not_taken(NotTaken::Behind(number));
        }
        if !self.links.is_connected(shard) {
            return not_taken(NotTaken::Unconnected(shard));
        }
        let refused = |(replica, failure)| NotTaken::Refused { replica, failure };
        not_taken(self.last_refusal.clone().map_or(NotTaken::Silent, refused))
    }
}

fn not_taken(why: NotTaken) -> Error {
    Error::NotTaken { why, troubles: Vec::new() }
}
