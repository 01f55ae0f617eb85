//! Work that is due by time alone: the core's deadlines, and the end of connections that are stuck.

use isonomy_mesh::Roster;
use isonomy_protocol::contract::Room;
use isonomy_protocol::limits::TICK_US;
use isonomy_wire::failure::Reason;
use isonomy_wire::id::ReplicaId;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::net::connection::Sink;
use crate::node::Node;
use crate::pump::Input;
use crate::told::Kind;

/// How long a client may take for a frame that it has begun, how long it may leave its answers unread, and how long
/// its machine may be silent.
pub const CLIENT_PATIENCE: Duration = Duration::from_secs(30);
/// How long a peer may be silent; a peer that lives sends gossip at least once a second. Bytes that are not
/// acknowledged for this long end the link as well, because on a link that survived a cut of the network the kernel
/// would wait for as long again before it sent anything.
pub const PEER_PATIENCE: Duration = Duration::from_secs(5);
/// The period of ticks.
pub(crate) const TICK: Duration = Duration::from_micros(TICK_US);
/// The period of ticks of an idle shard.
const IDLE_TICK: Duration = Duration::from_millis(20);
/// How often the shard looks for stuck connections.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often a log at its budget asks for a barrier. The log does not grow to the next barrier by itself, and a
/// snapshot that could not be written may succeed by now.
const BARRIER_EVERY: Duration = Duration::from_secs(5);

/// How long a member leaves it to each member with a lower place to propose the Seal, and how often it proposes one.
const SEAL_AFTER: Duration = Duration::from_millis(100);
const SEAL_EVERY: Duration = Duration::from_secs(1);

/// The size of the log on its disk, and the state of the disk.
#[derive(Clone, Copy)]
struct Held {
    hung: Option<Duration>,
    is_full: bool,
    bytes: u64,
    budget: u64,
    /// What is wrong with the publication, if too much waits for it.
    unpublished: Option<Reason>,
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
            None => self.unpublished.map_or(Room::Enough, Room::Short),
        }
    }
}

/// What the task of the ticks remembers.
struct Ticker {
    swept: Instant,
    /// When a barrier was asked for.
    asked: Instant,
    /// Who took part at the last look.
    roster: Option<Rc<Roster>>,
    /// Since when the epoch is to end, and how often a Seal was proposed since.
    sealing_since: Option<(Instant, u32)>,
    /// Since when the disk hangs, as far as the core was told (D9).
    hung_since: Option<Instant>,
}

impl Node {
    /// Tells the core the time at its deadlines, and closes stuck connections.
    pub(crate) async fn run_ticks(self: Rc<Node>) {
        let now = Instant::now();
        let mut ticker =
            Ticker { swept: now, asked: now, hung_since: None, roster: None, sealing_since: None };
        loop {
            self.shard.tick.wait().await;
            self.net.links.borrow_mut().flush_all();
            let is_quiet = self.on_tick(&mut ticker);
            self.shard.ticks.set_period(if is_quiet { IDLE_TICK } else { TICK });
        }
    }

    /// Does what is due. Returns whether nothing will be due soon.
    fn on_tick(self: &Rc<Node>, ticker: &mut Ticker) -> bool {
        self.follow_roster(ticker);
        self.apply_settings();
        let (now, due) = (self.pump.now(), self.pump.look(|core| core.next_deadline()));
        let disk_turned = self.look_at_disk(ticker);
        if disk_turned || due.is_some_and(|due| due <= now) {
            let (room, log_bytes) = (self.held().room(), self.writer.bytes());
            self.pump.take(Input::Tick { room, log_bytes });
        }
        self.writer.on_tick(self.pump.now());
        self.maybe_admit();
        self.maybe_seal(ticker);
        self.shard.mail.send_progress(self.progress());
        if ticker.swept.elapsed() >= SWEEP_EVERY {
            ticker.swept = Instant::now();
            self.sweep(ticker.swept);
            self.tell_missing();
            self.shard.mail.send_metrics(self.status());
        }
        if self.held().asks_for_barrier(ticker.asked.elapsed()) {
            ticker.asked = Instant::now();
            self.pump.take(Input::Barrier);
        }
        due.is_none_or(|due| due > now.after(TICK_US))
    }

    /// Opens links to learners that have come, closes those of learners that have gone, and tells the core whether a
    /// change is announced.
    fn follow_roster(self: &Rc<Node>, ticker: &mut Ticker) {
        let roster = self.roster();
        if ticker.roster.as_ref().is_some_and(|known| Rc::ptr_eq(known, &roster)) {
            return;
        }
        self.open_links();
        self.pump.take(Input::Change { is_announced: roster.is_changing });
        let known = ticker.roster.replace(roster.clone());
        for place in roster.places.len()..known.map_or(0, |known| known.places.len()) {
            self.net.links.borrow().close(ReplicaId(place as u8));
        }
    }

    /// Gives the core the settings that the process has ordered, if it has others.
    fn apply_settings(&self) {
        if let Some(ordered) = self.shard.mail.settings()
            && self.pump.look(|core| core.settings()) != (ordered.tuning, ordered.is_slow_agreed)
        {
            self.pump.take(Input::Settings(ordered));
        }
    }

    /// Proposes a Seal if the epoch is to end and has not. The members begin one after the other, because Seals that
    /// meet hold each other up.
    fn maybe_seal(&self, ticker: &mut Ticker) {
        let Some(record) = self.shard.mail.sealing() else { return };
        if self.seat.is_learner() || self.pump.look(|core| core.sealed().is_some()) {
            return;
        }
        let (since, tries) = ticker.sealing_since.get_or_insert_with(|| (Instant::now(), 0));
        let due = SEAL_AFTER * u32::from(self.seat.replica.0) + SEAL_EVERY * *tries;
        if since.elapsed() >= due {
            *tries += 1;
            self.pump.take(Input::Seal(record));
        }
    }

    fn held(&self) -> Held {
        let disk = &self.writer.disk;
        Held {
            hung: disk.hung_for(),
            is_full: disk.is_full(),
            bytes: disk.held_bytes(),
            budget: self.settings().log_budget,
            unpublished: self.unpublished(),
        }
    }

    /// Whether more waits for publication than may.
    fn unpublished(&self) -> Option<Reason> {
        let feed = self.shard.feed.as_ref()?;
        let (held_bytes, budget_bytes) = (feed.backlog(), self.settings().publish_budget);
        let is_behind = held_bytes > budget_bytes || feed.is_behind();
        is_behind.then_some(Reason::PublicationBehind { held_bytes, budget_bytes })
    }

    /// D9: returns whether the disk has begun to hang or to answer again since the last tick, and logs it.
    fn look_at_disk(&self, ticker: &mut Ticker) -> bool {
        let (hung, since) = (self.writer.disk.hung_for(), ticker.hung_since);
        if hung.is_some() == since.is_some() {
            return false;
        }
        ticker.hung_since = hung.and_then(|hung| Instant::now().checked_sub(hung));
        if !self.shard.told.may(Kind::HungDisk) {
            return true;
        }
        match (hung, since) {
            (Some(hung), _) => log::warn!(
                "shard {}: the disk has not answered for {hung:.1?}. Until the disk answers, this replica \
                 proposes nothing and sends clients to other replicas; nothing acknowledged is lost. See \
                 docs/OPERATIONS.md, \"A disk that hangs\"",
                self.settings().shard.0
            ),
            (None, since) => log::info!(
                "shard {}: the disk answers again after {:.1?}",
                self.settings().shard.0,
                since.map_or(Duration::ZERO, |since| since.elapsed())
            ),
        }
        true
    }

    fn sweep(&self, now: Instant) {
        for (kind, count) in self.shard.told.held_back() {
            log::warn!("shard {}: {count} more lines about {kind} were held back", self.settings().shard.0);
        }
        self.net.guests.borrow().sinks().for_each(|sink| close_if_stuck(sink, now));
        // Peers look silent while the shard does not read from them.
        if self.is_behind() {
            return;
        }
        for sink in self.net.links.borrow().incoming() {
            if sink.silent_for(now) > PEER_PATIENCE {
                sink.close("the peer was silent for too long");
            }
        }
    }
}

fn close_if_stuck(sink: &Sink, now: Instant) {
    if sink.partial_for(now) > CLIENT_PATIENCE {
        sink.close("the other side did not finish a frame in time");
    }
    if sink.stuck_for(now) > CLIENT_PATIENCE {
        sink.close("the other side does not read its answers");
    }
}

#[cfg(test)]
mod tests;
