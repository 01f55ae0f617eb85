//! One thread of load with one conversation: full frames over a connection to every replica.

use anyhow::Result;
use isonomy_wire::conversation::{Conversation, LinkError, Received};
use std::sync::mpsc::Sender;
use std::time::Duration;

use super::generator::{Generator, Shared};
use super::record::{Recorded, Second};
use super::wires::{Event, What, Wires};

/// The longest sleep, so that the end of the run is noticed.
pub(crate) const WAIT_MAX_US: u64 = 20_000;
/// The shortest sleep of an open loop. Commands that fall due in between leave together, which counts in their
/// latencies.
pub(crate) const OPEN_TURN_US: u64 = 200;
/// How long sessions may take to end, in microseconds.
pub(crate) const CLOSE_US_MAX: u64 = 2_000_000;

/// Runs one thread until the end. Returns what it measured.
pub(crate) fn run(shared: &Shared, thread: u64, seconds: Sender<Second>) -> Result<Recorded> {
    let (wires, replicas) = Wires::new(&shared.members);
    let mut worker = Worker {
        shared,
        wires,
        conversation: Conversation::new(shared.options.conversation(replicas, shared.members.shards)),
        generator: Generator::new(shared, thread, seconds),
        held: false,
    };
    worker.run()?;
    Ok(worker.generator.finish())
}

struct Worker<'a> {
    shared: &'a Shared,
    wires: Wires,
    conversation: Conversation,
    generator: Generator<'a>,
    /// Whether an open loop has fallen behind by as much as may be outstanding.
    held: bool,
}

impl Worker<'_> {
    fn run(&mut self) -> Result<()> {
        let mut closing_since = None;
        loop {
            let now = self.shared.now();
            if let Some(until) = self.generator.generates_until(now) {
                self.generate(until);
            } else if self.conversation.outstanding() == 0 {
                self.conversation.close();
                let since = *closing_since.get_or_insert(now);
                if self.conversation.is_closed() || now > since + CLOSE_US_MAX {
                    return Ok(());
                }
            }
            while let Some(transmit) = self.conversation.poll_transmit(now) {
                match self.wires.link(transmit.replica, transmit.shard) {
                    Some((link, out)) => link.request(out, transmit.tag, &transmit.payload),
                    None => self.conversation.on_disconnected(transmit.replica, transmit.shard),
                }
            }
            let wait = Duration::from_micros(self.wait_us(now));
            let (conversation, shared) = (&mut self.conversation, self.shared);
            self.wires.turn(wait, |event| {
                let (replica, shard, what) = match event {
                    Event::Changed(replicas) => {
                        conversation.on_members_changed(replicas);
                        return Ok(());
                    }
                    Event::Of(replica, shard, what) => (replica, shard, what),
                };
                match what {
                    What::Connected => conversation.on_connected(replica, shard),
                    What::Lost => conversation.on_disconnected(replica, shard),
                    What::Heard => conversation.on_heard(replica, shard),
                    What::Received(Received::Response { tag, answers }) => {
                        conversation.on_response(replica, tag, answers)?;
                    }
                    What::Received(Received::Failed { tag, failure }) => {
                        conversation.on_failure(shared.now(), replica, tag, failure);
                    }
                    What::Received(Received::Welcome(_) | Received::Status(_) | Received::Sources(_)) => {
                        return Err(LinkError::Unexpected);
                    }
                }
                Ok(())
            })?;
            let now = self.shared.now();
            self.conversation.on_timeout(now);
            while let Some((replica, shard)) = self.conversation.poll_reset() {
                self.wires.reset(replica, shard);
            }
            self.generator.take_outcomes(&mut self.conversation, now);
        }
    }

    /// Submits the commands that are due.
    fn generate(&mut self, now: u64) {
        while let Some(due) = self.generator.due(now, |window| self.conversation.outstanding() < window) {
            self.held = !self.generator.submit(&mut self.conversation, now, due);
            if self.held {
                return;
            }
        }
    }

    fn wait_us(&self, now: u64) -> u64 {
        let mut until = now + WAIT_MAX_US;
        if let Some(deadline) = self.conversation.next_deadline() {
            until = until.min(deadline);
        }
        if let Some(due) = self.generator.pace.due()
            && !self.held
            && due < self.shared.end()
        {
            until = until.min(due.max(now + OPEN_TURN_US));
        }
        until.saturating_sub(now)
    }
}
