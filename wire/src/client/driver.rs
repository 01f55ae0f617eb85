//! The task behind a client: owns the conversation and moves its requests and answers.

use super::CallError;
use super::clock::Clock;
use super::links::{Event, Links, What};
use super::troubles::Troubles;
use crate::answer::Answer;
use crate::conversation::{Action, Conversation, Error, Received, SubmitError};
use crate::message::Welcome;
use crate::view::View;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

/// The most calls that wait for the driver; further calls wait in their callers.
pub(super) const CALLS_MAX: usize = 4096;

/// A command that owns its bytes.
#[derive(Debug)]
pub(super) enum OwnedCommand {
    Decide { key: Bytes, value: Bytes },
    DecideIf { key: Bytes, value: Bytes, expected: u64 },
    Read { key: Bytes },
    Delete { key: Bytes },
}

impl OwnedCommand {
    fn action(&self) -> Action<'_> {
        match self {
            OwnedCommand::Decide { key, value } => Action::Decide { key, value },
            OwnedCommand::DecideIf { key, value, expected } => {
                Action::DecideIf { key, value, expected: *expected }
            }
            OwnedCommand::Read { key } => Action::Read { key },
            OwnedCommand::Delete { key } => Action::Delete { key },
        }
    }
}

/// What makes a command that is sent again take effect once.
#[derive(Clone, Debug)]
pub(super) enum Way {
    /// The session and the number that the conversation chooses.
    Plain,
    /// The number that a named source gives.
    Numbered(u64),
    /// The idempotency key that the caller gives.
    Keyed(Bytes),
}

/// A command and the sender for its answer.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) command: OwnedCommand,
    pub(super) way: Way,
    pub(super) reply: oneshot::Sender<Result<Answer, CallError>>,
}

/// The callers that wait, by token.
#[derive(Debug, Default)]
struct Waiters {
    slots: Vec<Option<oneshot::Sender<Result<Answer, CallError>>>>,
    free: Vec<usize>,
}

impl Waiters {
    fn add(&mut self, reply: oneshot::Sender<Result<Answer, CallError>>) -> u64 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(reply);
        slot as u64
    }

    fn take(&mut self, token: u64) -> oneshot::Sender<Result<Answer, CallError>> {
        let slot = token as usize;
        self.free.push(slot);
        self.slots[slot].take().expect("the conversation returns each token once")
    }
}

/// The state of the task.
pub(super) struct Driver {
    conversation: Conversation,
    links: Links,
    calls: mpsc::Receiver<Call>,
    /// A call that the conversation had no room for.
    held: Option<Call>,
    waiters: Waiters,
    clock: Clock,
}

impl Driver {
    pub(super) fn new(conversation: Conversation, welcome: &Welcome, calls: mpsc::Receiver<Call>) -> Driver {
        let (links, waiters) = (Links::new(welcome), Waiters::default());
        Driver { conversation, links, calls, held: None, waiters, clock: Clock::new() }
    }

    /// A handle to the reasons for missing connections.
    pub(super) fn troubles(&self) -> Troubles {
        self.links.troubles.clone()
    }

    /// Runs until all handles are gone and every command has its outcome. Returns the conversation.
    pub(super) async fn run(mut self) -> Conversation {
        let mut open = true;
        while open || !self.conversation.is_closed() {
            self.pump();
            let deadline = self.clock.sleep_until(self.conversation.next_deadline());
            tokio::select! {
                call = self.calls.recv(), if open && self.held.is_none() => match call {
                    Some(call) => self.take_calls(call),
                    None => open = false,
                },
                event = self.links.events.recv() => {
                    self.on_event(event.expect("the links hold a sender"));
                    while let Ok(event) = self.links.events.try_recv() {
                        self.on_event(event);
                    }
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    for (replica, shard) in self.links.heard() {
                        self.conversation.on_heard(replica, shard);
                    }
                    self.conversation.on_timeout(self.clock.now());
                    while let Some((replica, shard)) = self.conversation.poll_reset() {
                        self.links.reset(replica, shard);
                    }
                }
            }
            if !open && self.held.is_none() {
                self.conversation.close();
            }
        }
        self.conversation
    }

    /// Sends the conversation's requests to replicas and its outcomes to callers.
    fn pump(&mut self) {
        loop {
            let has_told = self.tell_outcomes();
            if let Some(call) = self.held.take() {
                self.submit(call);
            }
            match self.conversation.poll_transmit(self.clock.now()) {
                Some(transmit) => self.links.send(transmit),
                None if has_told => {}
                None => break,
            }
        }
        while let Some((replica, shard)) = self.conversation.poll_wake() {
            self.links.wake(replica, shard);
        }
    }

    /// Sends the outcomes of commands to their callers. Returns whether there were any.
    fn tell_outcomes(&mut self) -> bool {
        let mut any = false;
        while let Some(outcome) = self.conversation.poll_outcome() {
            any = true;
            for (token, answer) in outcome.each() {
                let answer = answer.map_err(|error| CallError::from(self.explain(error)));
                // A caller that went away needs no answer.
                let _ = self.waiters.take(token).send(answer);
            }
            self.conversation.recycle(outcome);
        }
        any
    }

    /// Adds the replicas that are not connected to an error for which that may be the reason.
    fn explain(&self, error: Error) -> Error {
        let Error::NotTaken { why, .. } = error else { return error };
        Error::NotTaken { why, troubles: self.links.troubles.unconnected() }
    }

    fn take_calls(&mut self, call: Call) {
        self.submit(call);
        while self.held.is_none()
            && let Ok(call) = self.calls.try_recv()
        {
            self.submit(call);
        }
    }

    fn submit(&mut self, call: Call) {
        let now = self.clock.now();
        let token = self.waiters.add(call.reply);
        let action = call.command.action();
        let submitted = match &call.way {
            Way::Plain => self.conversation.submit(now, &action, token),
            Way::Numbered(number) => self.conversation.submit_numbered(now, *number, &action, token),
            Way::Keyed(idempotency_key) => {
                self.conversation.submit_keyed(now, idempotency_key, &action, token)
            }
        };
        let Err(error) = submitted else { return };
        let reply = self.waiters.take(token);
        if error == SubmitError::Full {
            self.held = Some(Call { reply, ..call });
        } else {
            let _ = reply.send(Err(error.into()));
        }
    }

    fn on_event(&mut self, event: Event) {
        let Event { epoch, replica, shard, what } = event;
        if epoch != self.links.epoch() {
            return self.on_late(what);
        }
        match what {
            What::Told(view) => self.learn(view),
            What::Connected => self.conversation.on_connected(replica, shard),
            What::Lost => self.conversation.on_disconnected(replica, shard),
            What::Yielded => self.conversation.on_yielded(replica, shard),
            What::Received(Received::Response { tag, answers }) => {
                self.links.troubles.answered();
                if self.conversation.on_response(replica, tag, answers).is_err() {
                    self.links.reset(replica, shard);
                }
            }
            What::Received(Received::Failed { tag, failure }) => {
                self.links.troubles.refused(replica, &failure);
                self.conversation.on_failure(self.clock.now(), replica, tag, failure);
            }
            // The client asks for none of these.
            What::Received(Received::Welcome(_) | Received::Status(_) | Received::Sources(_)) => {}
        }
    }

    /// An event of a connection of an earlier epoch. What was answered there counts, and so does what is told of the
    /// members.
    fn on_late(&mut self, what: What) {
        match what {
            What::Told(view) => self.learn(view),
            What::Received(Received::Response { tag, answers }) => {
                // The connection is given up already, whatever comes on it.
                let _ = self.conversation.on_late_response(tag, answers);
            }
            What::Received(_) | What::Connected | What::Lost | What::Yielded => {}
        }
    }

    fn learn(&mut self, view: View) {
        if self.links.learn(view) {
            self.conversation.on_members_changed(self.links.replicas());
        }
    }
}
