//! Holds messages and replies that must not leave before the log is durable (D1).
//!
//! A message or reply rests on all records that were appended before it. So the outbox holds it until the last
//! position at the time of its making is durable. No caller can send it early, since no caller has it.

use crate::contract::{Append, ClientRef, Executed, Output, Position, Reply, Sealed, Send};
use crate::log::record::Record;
use crate::mutant::{self, Mutant};
use crate::payload::Payload;
use bytes::Bytes;
use isonomy_wire::failure::Failure;
use isonomy_wire::id::ReplicaId;
use isonomy_wire::message::PeerMessage;
use std::collections::VecDeque;

#[derive(Clone, Debug)]
enum Held {
    Send(Send),
    Own(Send),
    Reply(Reply),
    Executed(Executed),
    Sealed(Sealed),
}

/// The outputs that wait for the disk, and those that are ready to leave.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    last: Position,
    durable: Position,
    /// The position of the last record on which a message or reply can rest.
    spoken: Position,
    appends: VecDeque<Append>,
    held: VecDeque<(Position, Held)>,
    sends: VecDeque<Send>,
    /// The due messages of the replica to itself.
    own: VecDeque<Send>,
    replies: VecDeque<Reply>,
    executed: VecDeque<Executed>,
    /// The end of the epoch, once it may be told.
    sealed: Option<Sealed>,
}

impl Outbox {
    /// The log already has records up to `position`, all durable.
    pub(crate) fn start(&mut self, position: Position) {
        assert!(self.appends.is_empty() && self.held.is_empty());
        (self.last, self.durable, self.spoken) = (position, position, position);
    }

    /// Appends a record. Messages and replies that are made from now on wait for it.
    pub(crate) fn append(&mut self, record: Record, payload: Option<Payload>) -> Position {
        self.last.0 += 1;
        // If two idle replicas told each other of these records, they would write for ever.
        if !matches!(record, Record::Heard { .. }) {
            self.spoken = self.last;
        }
        self.appends.push_back(Append { position: self.last, record, payload });
        self.last
    }

    /// The position up to which no crash can take records.
    pub(crate) fn durable(&self) -> Position {
        self.durable
    }

    /// The position of the last record on which a message or reply can rest, durable or not.
    pub(crate) fn spoken(&self) -> Position {
        self.spoken
    }

    /// Sends an answer to the replica itself, which counts when it could have left.
    pub(crate) fn send_own(&mut self, me: ReplicaId, message: PeerMessage, payload: Option<Payload>) {
        let send = Send { to: me, message, payload, lazy: false };
        if self.last <= self.durable {
            self.own.push_back(send);
        } else {
            self.hold(self.last, Held::Own(send));
        }
    }

    /// Sends a message when all records appended so far are durable.
    pub(crate) fn send(&mut self, to: ReplicaId, message: PeerMessage, payload: Option<Payload>) {
        self.send_behind(self.last, to, message, payload);
    }

    /// Sends a lazy message, for which no replica waits, when all records appended so far are durable.
    pub(crate) fn send_lazily(&mut self, to: ReplicaId, message: PeerMessage) {
        self.put(self.last, Send { to, message, payload: None, lazy: true });
    }

    /// Sends a message when the record at `position` is durable. Only C1's PreAccept may use this, since it needs no
    /// more than its block of sequence numbers.
    pub(crate) fn send_behind(
        &mut self,
        position: Position,
        to: ReplicaId,
        message: PeerMessage,
        payload: Option<Payload>,
    ) {
        self.put(position, Send { to, message, payload, lazy: false });
    }

    fn put(&mut self, position: Position, send: Send) {
        if position <= self.durable || mutant::is(Mutant::SpeakBeforeSync) {
            self.sends.push_back(send);
        } else {
            self.hold(position, Held::Send(send));
        }
    }

    /// Sends a message at once that rests on no record (D9).
    pub(crate) fn send_at_once(&mut self, to: ReplicaId, message: PeerMessage) {
        self.sends.push_back(Send { to, message, payload: None, lazy: false });
    }

    /// Answers when all records appended so far are durable. A failure rests on no record, and tells a client to ask
    /// another replica while the disk hangs (D9), so it is sent at once.
    pub(crate) fn reply(&mut self, client: ClientRef, outcome: Result<Bytes, Failure>) {
        let reply = Reply { client, outcome };
        let rests_on_nothing = reply.outcome.is_err() && !mutant::is(Mutant::RefusalsWait);
        if rests_on_nothing || self.last <= self.durable {
            self.replies.push_back(reply);
        } else {
            self.hold(self.last, Held::Reply(reply));
        }
    }

    /// P1: tells what has executed, when all records appended so far are durable.
    pub(crate) fn tell(&mut self, executed: Executed) {
        if self.last <= self.durable {
            self.executed.push_back(executed);
        } else {
            self.hold(self.last, Held::Executed(executed));
        }
    }

    /// Says that the epoch has ended, when all records appended so far are durable.
    pub(crate) fn say_sealed(&mut self, sealed: Sealed) {
        if self.last <= self.durable {
            self.sealed = Some(sealed);
        } else {
            self.hold(self.last, Held::Sealed(sealed));
        }
    }

    fn hold(&mut self, position: Position, held: Held) {
        // The queue is ordered by position, so an output that needs less waits a little longer.
        let behind = self.held.back().map_or(position, |(last, _)| position.max(*last));
        self.held.push_back((behind, held));
    }

    /// Releases the outputs that waited for records up to `position`, which are durable.
    pub(crate) fn on_durable(&mut self, position: Position) {
        assert!(position >= self.durable && position <= self.last, "the log jumped to {position:?}");
        self.durable = position;
        while self.held.front().is_some_and(|(needed, _)| *needed <= position) {
            match self.held.pop_front() {
                Some((_, Held::Send(send))) => self.sends.push_back(send),
                Some((_, Held::Own(send))) => self.own.push_back(send),
                Some((_, Held::Reply(reply))) => self.replies.push_back(reply),
                Some((_, Held::Executed(executed))) => self.executed.push_back(executed),
                Some((_, Held::Sealed(sealed))) => self.sealed = Some(sealed),
                None => {}
            }
        }
    }

    /// The next output; appends come before messages, and messages before replies.
    #[inline]
    pub(crate) fn poll(&mut self) -> Option<Output> {
        if let Some(append) = self.appends.pop_front() {
            return Some(Output::Append(append));
        }
        if let Some(send) = self.sends.pop_front() {
            return Some(Output::Send(send));
        }
        let reply = self.replies.pop_front().map(Output::Reply);
        let executed = || self.executed.pop_front().map(Output::Executed);
        reply.or_else(executed).or_else(|| self.sealed.take().map(Output::Sealed))
    }

    /// What has executed.
    pub(crate) fn poll_executed(&mut self) -> Option<Executed> {
        self.executed.pop_front()
    }

    /// The next message to oneself.
    pub(crate) fn poll_own(&mut self) -> Option<Send> {
        self.own.pop_front()
    }

    /// D2: whether any output waits until more of the log is durable.
    pub(crate) fn awaits_log(&self) -> bool {
        !self.held.is_empty()
    }

    /// Drops the answers that wait for the disk (D9). Returns the clients that they were for.
    pub(crate) fn take_held_answers(&mut self) -> Vec<ClientRef> {
        let mut clients = Vec::new();
        self.held.retain(|(_, held)| match held {
            Held::Reply(reply) => {
                clients.push(reply.client);
                false
            }
            Held::Send(_) | Held::Own(_) | Held::Executed(_) | Held::Sealed(_) => true,
        });
        clients
    }

    /// How many outputs wait until more of the log is durable.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Verifies that every held output waits for a record, in order. This is for tests, since it looks at everything.
    pub(crate) fn check(&self) {
        assert!(self.durable <= self.last && self.spoken <= self.last, "positions that are not there");
        assert!(
            self.held.front().is_none_or(|(needed, _)| *needed > self.durable),
            "nothing is held for nothing"
        );
        assert!(self.held.back().is_none_or(|(needed, _)| *needed <= self.last), "held for ever");
        assert!(self.held.iter().is_sorted_by_key(|(needed, _)| *needed), "released out of order");
    }

    /// Whether no output is left and all records are durable.
    pub(crate) fn is_empty(&self) -> bool {
        self.last == self.durable
            && self.appends.is_empty()
            && self.held.is_empty()
            && self.sends.is_empty()
            && self.own.is_empty()
            && self.replies.is_empty()
            && self.executed.is_empty()
            && self.sealed.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_wire::failure::Reason;

    fn message(seq: u64) -> PeerMessage {
        PeerMessage::Pull { row: ReplicaId(0), from: seq, to: seq }
    }

    /// The messages that leave now, and the numbers of answers and refusals that leave with them.
    fn polled(outbox: &mut Outbox) -> (Vec<PeerMessage>, usize, usize) {
        let (mut messages, mut answers, mut refusals) = (Vec::new(), 0, 0);
        while let Some(output) = outbox.poll() {
            match output {
                Output::Send(send) => messages.push(send.message),
                Output::Reply(Reply { outcome: Ok(_), .. }) => answers += 1,
                Output::Reply(_) => refusals += 1,
                Output::Append(_) | Output::Executed(_) | Output::Cut(_) | Output::Sealed(_) => {}
            }
        }
        (messages, answers, refusals)
    }

    fn sent(outbox: &mut Outbox) -> Vec<PeerMessage> {
        polled(outbox).0
    }

    #[test]
    fn d1_nothing_leaves_before_what_it_rests_on() {
        let mut outbox = Outbox::default();
        outbox.send(ReplicaId(1), message(0), None);
        assert_eq!(sent(&mut outbox), [message(0)]);
        let first = outbox.append(Record::Reserve { end: 1 }, None);
        outbox.send(ReplicaId(1), message(1), None);
        let second = outbox.append(Record::Reserve { end: 2 }, None);
        outbox.send(ReplicaId(1), message(2), None);
        outbox.reply(ClientRef::default(), Ok(Bytes::new()));
        assert_eq!(polled(&mut outbox), (vec![], 0, 0));
        outbox.on_durable(first);
        assert_eq!(polled(&mut outbox), (vec![message(1)], 0, 0));
        outbox.on_durable(second);
        assert_eq!(polled(&mut outbox), (vec![message(2)], 1, 0));
    }

    #[test]
    fn d9_a_refusal_and_a_word_about_the_disk_rest_on_nothing() {
        let mut outbox = Outbox::default();
        outbox.append(Record::Reserve { end: 1 }, None);
        outbox.send(ReplicaId(1), message(1), None);
        outbox.send_at_once(ReplicaId(1), PeerMessage::Stalled);
        outbox.reply(ClientRef::default(), Ok(Bytes::new()));
        outbox.reply(ClientRef::default(), Err(Failure::Unavailable(Reason::DiskFull)));
        assert_eq!(polled(&mut outbox), (vec![PeerMessage::Stalled], 0, 1));
    }

    #[test]
    fn d2_only_what_is_held_asks_for_a_write() {
        let mut outbox = Outbox::default();
        let commit = outbox.append(Record::Reserve { end: 1 }, None);
        assert!(!outbox.awaits_log(), "nobody waits for it");
        outbox.send(ReplicaId(1), message(1), None);
        assert!(outbox.awaits_log());
        outbox.on_durable(commit);
        assert!(!outbox.awaits_log());
    }

    #[test]
    fn d1_the_exception_waits_for_its_block_only() {
        let mut outbox = Outbox::default();
        let block = outbox.append(Record::Reserve { end: 9 }, None);
        outbox.append(Record::Reserve { end: 10 }, None);
        outbox.send_behind(block, ReplicaId(1), message(1), None);
        assert_eq!(sent(&mut outbox), []);
        outbox.on_durable(block);
        assert_eq!(sent(&mut outbox), [message(1)]);
        outbox.send_behind(block, ReplicaId(1), message(2), None);
        assert_eq!(sent(&mut outbox), [message(2)]);
    }
}
