//! What happens by time alone: the core's deadlines, and the end of connections that are stuck.

use isonomy_protocol::contract::Room;
use isonomy_protocol::limits::TICK_US;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Node;
use super::link::Sink;
use super::pulse::Pulse;
use crate::told::Kind;

/// How long a client may take for a frame that it has begun, leave its answers unread, and let its
/// machine be silent.
pub(crate) const CLIENT_PATIENCE: Duration = Duration::from_secs(30);
/// How long a peer may be silent: while it lives it says at least how far it is, once a second. What is
/// not acknowledged for so long ends the link as well: on one that survived a cut of the network, the
/// kernel would wait for as long again before it sent anything.
pub(crate) const PEER_PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether something is due.
pub(super) const BEAT: Duration = Duration::from_micros(TICK_US);
/// The same when nothing was.
const QUIET_BEAT: Duration = Duration::from_millis(20);
/// How often connections are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often a log at its budget asks for a fence. It does not grow by itself to the next one, and
/// a snapshot that could not be written may succeed by now.
const FENCE_EVERY: Duration = Duration::from_secs(5);

impl Node {
    /// Tells the core the time when it asks for it, and sweeps connections.
    pub(super) async fn run_ticks(self: Rc<Node>, pulse: Pulse) {
        let (mut swept, mut fenced) = (Instant::now(), Instant::now());
        loop {
            pulse.wait().await;
            self.beat.notify();
            self.inner.borrow_mut().links.flush_all();
            let (now, due) = (self.now(), self.inner.borrow().core.next_deadline());
            let is_quiet = due.is_none_or(|due| due > now.after(TICK_US));
            pulse.set_period(if is_quiet { QUIET_BEAT } else { BEAT });
            let disk_turned = self.look_at_disk();
            if disk_turned || due.is_some_and(|due| due <= now) {
                let room = self.room();
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
                self.sweep();
                self.tell_missing();
            }
            if self.is_over_budget() && !self.disk.is_full() && fenced.elapsed() >= FENCE_EVERY {
                fenced = Instant::now();
                self.inner.borrow_mut().core.propose_fence(now);
                self.touch();
            }
        }
    }

    fn is_over_budget(&self) -> bool {
        self.disk.held_bytes() >= self.config.log_budget
    }

    fn mark_log(&self) {
        let now = self.now();
        let log = &mut self.inner.borrow_mut().log;
        log.mark_if_idle(now);
        if log.is_due(now) {
            self.write.notify();
        }
    }

    /// D9: whether the disk has begun to hang since the last beat, or answers again.
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

    fn room(&self) -> Room {
        if let Some(hung) = self.disk.hung_for() {
            return Room::Hung(if self.disk.is_full() {
                "its disk is full; make room on it, or ask another replica".into()
            } else {
                format!("its disk has not answered for {hung:.1?}; ask another replica")
            });
        }
        if self.disk.is_full() {
            return Room::Gone("its disk is full; make room on it, or ask another replica".into());
        }
        if !self.is_over_budget() {
            return Room::Enough;
        }
        let (held, budget) = (self.disk.held_bytes(), self.config.log_budget);
        Room::Short(format!(
            "the log holds {held} bytes of {budget} (`log_budget_mib`) until the next snapshot"
        ))
    }

    fn sweep(&self) {
        for (kind, count) in self.told.held_back() {
            log::warn!("shard {}: {count} more lines about {kind} were held back", self.shard.0);
        }
        let inner = self.inner.borrow();
        inner.guests.sinks().for_each(|sink| close_if_stuck(sink));
        // Peers that are not read look silent.
        if inner.is_behind() {
            return;
        }
        for sink in inner.links.incoming() {
            if sink.silent_for() > PEER_PATIENCE {
                sink.close("it was silent for too long");
            }
        }
    }
}

fn close_if_stuck(sink: &Sink) {
    if sink.partial_for() > CLIENT_PATIENCE {
        sink.close("it did not finish a frame in time");
    }
    if sink.stuck_for() > CLIENT_PATIENCE {
        sink.close("it does not read its answers");
    }
}
