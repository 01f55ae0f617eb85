//! The clients: they connect, ask and are answered.

use super::{Event, World};
use crate::client::{Client, Fresh};
use bytes::Bytes;
use isonomy_protocol::contract::{Busy, ClientRef, Reply};
use isonomy_protocol::payload::Payload;
use isonomy_wire::answer::Answers;
use isonomy_wire::failure::Failure;
use isonomy_wire::id::{ReplicaId, ShardId};
use rand::Rng;

/// A full replica is asked again after this.
const BUSY_PAUSE_US: u64 = 1_000;
const SHARD: ShardId = ShardId(0);

impl World {
    pub(super) fn connect(&mut self, client: usize, replica: u8) {
        self.show_newest_of(replica);
        let Some(place) = self.place(replica) else { return };
        let connection = &mut self.clients[client].connections[usize::from(replica)];
        if connection.is_none() && self.nodes[usize::from(place)].core.is_some() {
            self.connections += 1;
            *connection = Some(self.connections);
            self.clients[client].conversation.on_connected(ReplicaId(replica), SHARD);
            self.attend(client);
        }
    }

    pub(super) fn disconnect(&mut self, client: usize, replica: u8) {
        if self.clients[client].connections[usize::from(replica)].take().is_some() {
            self.clients[client].conversation.on_disconnected(ReplicaId(replica), SHARD);
            self.attend(client);
        }
    }

    pub(super) fn act(&mut self, client: usize) {
        self.maybe_begin_anew(client);
        if let Some(at) = self.clients[client].act(&self.plan, self.now, &mut self.ops) {
            self.queue.push(at, Event::Act { client });
        }
        self.note(6, client as u64, self.ops.len() as u64);
        self.attend(client);
    }

    /// A client may have ended its conversation, or been started again.
    fn maybe_begin_anew(&mut self, client: usize) {
        let old = match self.clients[client].restart(&self.plan, self.now, &self.ops) {
            Fresh::No => return self.let_predecessors_go_on(client),
            Fresh::Process => None,
            Fresh::Successor(old) => Some(*old),
        };
        self.summary.coverage.left |= !self.clients[client].is_source();
        if let Some(old) = old {
            self.clients.push(old);
            self.attend(self.clients.len() - 1);
        }
        for replica in 0..self.plan.pool {
            self.clients[client].connections[usize::from(replica)] = None;
            self.after(1_000, 30_000, Event::Connect { client, replica });
        }
    }

    /// S5: the process of a source that has a successor does not know, and goes on.
    fn let_predecessors_go_on(&mut self, client: usize) {
        if !self.clients[client].has_progressed() {
            return;
        }
        for index in 0..self.clients.len() {
            let Client { predecessor, conversation, .. } = &mut self.clients[index];
            if predecessor.as_mut().is_some_and(|old| old.goes_on(conversation, self.now)) {
                self.attend(index);
            }
        }
    }

    /// Sends what a conversation has to send, notes what it has learnt, and wakes it in time.
    pub(super) fn attend(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.collect(self.now, &mut self.ops);
        let mut dead = Vec::new();
        while let Some((replica, _)) = client.conversation.poll_reset() {
            client.connections[replica.index()] = None;
            dead.push(replica.0);
        }
        while let Some(transmit) = client.conversation.poll_transmit(self.now) {
            let replica = transmit.replica.0;
            let connection =
                client.connections[usize::from(replica)].expect("it sends to whom it is connected");
            let (tag, payload) = (transmit.tag, transmit.payload);
            let mut at = self.now + self.faults.random_range(20..500);
            if !self.plan.reordering {
                let last = &mut client.sent_until[usize::from(replica)];
                at = at.max(*last);
                *last = at;
            }
            self.queue.push(at, Event::Request { client: index, replica, connection, tag, payload });
        }
        if client.wake_at.is_none()
            && let Some(at) = client.conversation.next_deadline()
        {
            client.wake_at = Some(at.max(self.now + 1));
            self.queue.push(at.max(self.now + 1), Event::Wake { client: index });
        }
        for replica in dead {
            // A replica that stands still does not welcome a client either.
            let delay = self.faults.random_range(1_000..30_000);
            let at = self.now.max(self.is_process_paused(replica).unwrap_or(0)) + delay;
            self.queue.push(at, Event::Connect { client: index, replica });
        }
    }

    /// Until when a process is paused, if it is.
    fn is_process_paused(&mut self, process: u8) -> Option<u64> {
        let mut until = 0;
        self.for_each_node(process, |node| until = until.max(node.paused_until));
        (until > self.now).then_some(until)
    }

    fn is_connected(&self, client: usize, replica: u8, connection: u64) -> bool {
        self.clients[client].connections[usize::from(replica)] == Some(connection)
    }

    pub(super) fn request(&mut self, client: usize, replica: u8, connection: u64, tag: u64, payload: Bytes) {
        // Requests that were sent on a connection that broke may still arrive.
        if !self.is_connected(client, replica, connection) && self.faults.random_bool(0.5) {
            return;
        }
        self.show_newest_of(replica);
        let Some(place) = self.place(replica) else { return };
        if let Some(until) = self.is_paused(place) {
            return self.queue.push(until, Event::Request { client, replica, connection, tag, payload });
        }
        let time = self.nodes[usize::from(place)].time(self.now);
        let Some(core) = &mut self.nodes[usize::from(place)].core else { return };
        let crc = crc32c::crc32c(&payload);
        let parsed = Payload::parse(payload.clone(), crc).expect("conversations send valid requests");
        let keys = parsed.keys().len() as u64;
        let asks = ClientRef { connection: (client as u64) << 32 | connection, tag };
        if let Err(Busy) = core.on_request(time, asks, parsed) {
            let again = Event::Request { client, replica, connection, tag, payload };
            return self.queue.push(self.now + BUSY_PAUSE_US, again);
        }
        *self.unanswered.entry((replica, asks)).or_default() += 1;
        self.asked += keys;
        self.note(7, client as u64, replica.into());
        self.turn(place);
    }

    pub(super) fn reply(&mut self, replica: u8, reply: Reply) {
        let ClientRef { connection, tag } = reply.client;
        let (client, connection) = ((connection >> 32) as usize, connection & u64::from(u32::MAX));
        // A replica proposes the end of idle sessions itself, and nobody waits for the answer.
        if connection == 0 {
            return;
        }
        let unanswered = self.unanswered.get_mut(&(replica, reply.client)).expect("it was asked");
        *unanswered = unanswered.checked_sub(1).expect("each request has one reply");
        let at = self.now + self.faults.random_range(20..500);
        self.queue.push(at, Event::Answer { client, replica, connection, tag, outcome: reply.outcome });
    }

    pub(super) fn answer(
        &mut self,
        client: usize,
        replica: u8,
        connection: u64,
        tag: u64,
        outcome: Result<Bytes, Failure>,
    ) {
        if !self.is_connected(client, replica, connection) {
            return;
        }
        self.note(8, client as u64, outcome.is_ok().into());
        let outcome = outcome.map(|response| Answers::parse(response).expect("responses decode"));
        self.expect_fresh(&outcome);
        let conversation = &mut self.clients[client].conversation;
        match outcome {
            Ok(answers) => {
                conversation
                    .on_response(ReplicaId(replica), tag, answers)
                    .expect("responses fit their requests");
            }
            Err(failure) => conversation.on_failure(self.now, ReplicaId(replica), tag, failure),
        }
        self.attend(client);
    }
}
