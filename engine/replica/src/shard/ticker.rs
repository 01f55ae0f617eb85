//! Work that is due by time alone: the core's deadlines, and the end of connections that are stuck.

use isonomy_protocol::contract::Room;
use isonomy_protocol::limits::TICK_US;
use isonomy_wire::failure::Reason;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Node;
use super::link::Sink;
use super::ticks::Ticks;
use crate::told::Kind;

/// How long a client may take for a frame that it has begun, how long it may leave its answers unread, and how long
/// its machine may be silent.
pub(crate) const CLIENT_PATIENCE: Duration = Duration::from_secs(30);
/// How long a peer may be silent; a peer that lives sends gossip at least once a second. Bytes that are not
/// acknowledged for this long end the link as well, because on a link that survived a cut of the network the kernel
/// would wait for as long again before it sent anything.
pub(crate) const PEER_PATIENCE: Duration = Duration::from_secs(5);
/// The period of ticks.
pub(super) const TICK: Duration = Duration::from_micros(TICK_US);
/// The period of ticks of an idle shard.
const IDLE_TICK: Duration = Duration::from_millis(20);
/// How often the shard looks for stuck connections.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often a log at its budget asks for a barrier. The log does not grow to the next barrier by itself, and a
/// snapshot that could not be written may succeed by now.
const BARRIER_EVERY: Duration = Duration::from_secs(5);

/// The size of the log on its disk, and the state of the disk.
#[derive(Clone, Copy)]
struct Held {
    hung: Option<Duration>,
    is_full: bool,
    bytes: u64,
    budget: u64,
}

impl Held {
    fn is_over_budget(self) -> bool {
        self.bytes >= self.budget
    }

    /// Whether to ask for a barrier, given the time since the last one. A snapshot needs room as well.
    fn asks_for_barrier(self, since_last: Duration) -> bool {
        self.is_over_budget() && !self.is_full && since_last >= BARRIER_EVERY
    }

    /// The room that the core still has; the worst reason comes first.
    fn room(self) -> Room {
        let Held { bytes: held_bytes, budget: budget_bytes, .. } = self;
        match self.hung {
            Some(_) if self.is_full => Room::Hung(Reason::DiskFull),
            Some(hung) => Room::Hung(Reason::DiskHung { for_ms: hung.as_millis() as u32 }),
            None if self.is_full => Room::Gone(Reason::DiskFull),
            None if self.is_over_budget() => Room::Short(Reason::LogFull { held_bytes, budget_bytes }),
            None => Room::Enough,
        }
    }
}

impl Node {
    /// Tells the core the time at its deadlines, and closes stuck connections.
    pub(super) async fn run_ticks(self: Rc<Node>, ticks: Ticks) {
        let (mut swept, mut asked) = (Instant::now(), Instant::now());
        loop {
            ticks.wait().await;
            self.tick.notify();
            self.inner.borrow_mut().links.flush_all();
            let (now, due) = (self.now(), self.inner.borrow().core.next_deadline());
            let is_quiet = due.is_none_or(|due| due > now.after(TICK_US));
            ticks.set_period(if is_quiet { IDLE_TICK } else { TICK });
            let disk_turned = self.look_at_disk();
            if disk_turned || due.is_some_and(|due| due <= now) {
                let room = self.held().room();
                let super::Inner { core, log, .. } = &mut *self.inner.borrow_mut();
                core.on_room(room);
                core.on_log_bytes(self.log_bytes_before + log.bytes);
                core.on_timeout(now);
                self.touch();
            }
            self.mark_log();
            self.maybe_admit();
            if swept.elapsed() >= SWEEP_EVERY {
                swept = Instant::now();
                self.sweep(swept);
                self.tell_missing();
            }
            if self.held().asks_for_barrier(asked.elapsed()) {
                asked = Instant::now();
                self.inner.borrow_mut().core.propose_barrier(now);
                self.touch();
            }
        }
    }

    fn held(&self) -> Held {
        Held {
            hung: self.disk.hung_for(),
            is_full: self.disk.is_full(),
            bytes: self.disk.held_bytes(),
            budget: self.config.log_budget,
        }
    }

    fn mark_log(&self) {
        let now = self.now();
        let log = &mut self.inner.borrow_mut().log;
        log.mark_if_idle(now);
        if log.is_due(now) {
            self.write.notify();
        }
    }

    /// D9: returns whether the disk has begun to hang or to answer again since the last tick, and logs it.
    fn look_at_disk(&self) -> bool {
        let (hung, since) = (self.disk.hung_for(), self.hung_since.get());
        if hung.is_some() == since.is_some() {
            return false;
        }
        self.hung_since.set(hung.and_then(|hung| Instant::now().checked_sub(hung)));
        if !self.told.may(Kind::HungDisk) {
            return true;
        }
        match (hung, since) {
            (Some(hung), _) => log::warn!(
                "shard {}: the disk has not answered for {hung:.1?}. Until it does, this replica proposes nothing, \
                 sends clients to others, and nothing acknowledged is lost. See docs/OPERATIONS.md, \"A disk that \
                 hangs\"",
                self.shard.0
            ),
            (None, since) => log::info!(
                "shard {}: the disk answers again; it took {:.1?}",
                self.shard.0,
                since.map_or(Duration::ZERO, |since| since.elapsed())
            ),
        }
        true
    }

    fn sweep(&self, now: Instant) {
        for (kind, count) in self.told.held_back() {
            log::warn!("shard {}: {count} more lines about {kind} were held back", self.shard.0);
        }
        let inner = self.inner.borrow();
        inner.guests.sinks().for_each(|sink| close_if_stuck(sink, now));
        // Peers look silent while the shard does not read from them.
        if inner.is_behind() {
            return;
        }
        for sink in inner.links.incoming() {
            if sink.silent_for(now) > PEER_PATIENCE {
                sink.close("it was silent for too long");
            }
        }
    }
}

fn close_if_stuck(sink: &Sink, now: Instant) {
    if sink.partial_for(now) > CLIENT_PATIENCE {
        sink.close("it did not finish a frame in time");
    }
    if sink.stuck_for(now) > CLIENT_PATIENCE {
        sink.close("it does not read its answers");
    }
}

#[cfg(test)]
mod tests;
