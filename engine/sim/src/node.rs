//! One replica process: the production core, its disk and its clock.

use crate::disk::Disk;
use crate::ghost::Ghost;
use crate::outbox::Outbox;
use crate::plan::Plan;
use crate::transfer::{Piece, Transfer, Whole};
use isonomy_protocol::admission::Admission;
use isonomy_protocol::contract::{Append, Config, Output, Position, Reply, Room, Sealed, Send, Time};
use isonomy_protocol::limits::HUNG_AFTER_US;
use isonomy_protocol::log::LogId;
use isonomy_protocol::quorum::Quorum;
use isonomy_protocol::replica::Replica;
use isonomy_protocol::snapshot::{BadSnapshot, Reader, Snapshot, SnapshotId};
use isonomy_protocol::transfer::{Fetch, FetchFailure};
use isonomy_wire::command::Part;
use isonomy_wire::deps::Frontier;
use isonomy_wire::failure::Reason;
use isonomy_wire::id::{ClusterId, Epoch, PLACES_MAX, ReplicaId, ShardId};
use isonomy_wire::message::Start;
use rand::Rng;
use rand::rngs::SmallRng;

const CLUSTER: &str = "simulated";
/// The size of a block of sequence numbers: small, so that a crash leaves few numbers unused.
const RESERVE_BLOCK: u64 = 8;
/// A snapshot of which so much was written, and which is not whole, is copied while the state changes.
const LARGE_BYTES: usize = 200 << 10;
/// The times that the clock of a process can show when it begins: clocks have no origin in common, and none that
/// outlives a process.
const ORIGINS_US: [u64; 3] = [0, 1_000_000, 1 << 50];

/// A data directory's record of processes (G6).
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// How many processes have taken part with the directory.
    pub starts: u64,
    /// The newest process of each replica that was heard.
    pub met: Vec<Option<Start>>,
}

/// A copy of a disk, made while its replica ran.
pub struct Copied {
    disk: Disk,
    /// The data directory's record of processes.
    pub identity: Identity,
}

impl Copied {
    /// How many records the copy has.
    pub fn position(&self) -> u64 {
        self.disk.durable().0
    }
}

/// One replica process: the production core, its disk and its clock.
pub struct Node {
    /// The place of the replica in its epoch.
    pub id: u8,
    /// The number of members of its epoch.
    n: u8,
    /// Its epoch: a process has one of these for each.
    pub epoch: Epoch,
    /// How its epoch has ended, once no crash can undo that.
    pub ended: Option<Sealed>,
    /// The process, if it runs.
    pub core: Option<Replica>,
    /// Whether the disk was found damaged, so that the replica never comes back.
    pub is_lost: bool,
    /// Whether the disk is damaged, or was set back, which the next start finds out.
    pub is_damaged: bool,
    /// Whether the disk is not in its newest state.
    is_set_back: bool,
    /// The data directory's record of processes.
    pub identity: Identity,
    /// The process that runs, or ran last.
    pub start: Start,
    /// How many records the log had when the process was started.
    pub began: u64,
    /// The judgement of the others about this process.
    pub admission: Admission,
    /// The last copy of the disk.
    pub copied: Option<Copied>,
    /// How often the replica was started.
    pub life: u32,
    /// Whether a snapshot of the replica is on its way to the disk.
    pub is_writing: bool,
    /// A peer's snapshot that is on its way to this replica.
    pub transfer: Option<Transfer>,
    /// Whether the file of the own snapshot is being verified.
    pub is_verifying: bool,
    /// Nothing reaches the replica before this time.
    pub paused_until: u64,
    /// The disk has no room for more of the log before this time.
    pub full_until: u64,
    /// The disk has no room for a snapshot before this time.
    pub crowded_until: u64,
    /// When a process that stops in good order is ended at the latest.
    pub stops_by: Option<u64>,
    /// No write of the disk ends before this time.
    pub hung_until: u64,
    /// When the write that is under way began.
    written_since: Option<u64>,
    /// Whether messages for which nobody waits leave, too, at the end of this turn.
    pub is_tick: bool,
    disk: Disk,
    /// What was told for publication.
    pub outbox: Outbox,
    /// The messages that were made and have not left.
    said: Vec<Send>,
    /// The file of the snapshot that is being taken.
    unfinished: Vec<u8>,
    /// Clock speed; the real one is 1.
    speed: f64,
    /// What the clock showed when the process began, and when that was.
    began_at: (u64, u64),
}

/// The results of a turn.
#[derive(Default)]
pub struct Turn {
    /// Messages that left.
    pub sends: Vec<Send>,
    /// Answers that left.
    pub replies: Vec<Reply>,
    /// Whether a write has begun.
    pub writes: bool,
    /// Whether a snapshot is being taken.
    pub takes: bool,
    /// The source and the barrier of the snapshot that is needed.
    pub fetches: Option<(u8, u64)>,
    /// Whether the file of the own snapshot must be verified.
    pub verifies: bool,
}

impl Node {
    /// A replica that never ran.
    pub fn new(plan: &Plan, n: u8, epoch: Epoch, id: u8, random: &mut SmallRng) -> Node {
        let log = LogId {
            cluster: ClusterId::of_name(CLUSTER),
            incarnation: 1,
            replica: ReplicaId(id),
            epoch,
            shard: ShardId(0),
        };
        let speed = if plan.drift > 0.0 { 1.0 + random.random_range(-plan.drift..plan.drift) } else { 1.0 };
        Node {
            id,
            n,
            epoch,
            ended: None,
            core: None,
            is_lost: false,
            is_damaged: false,
            is_set_back: false,
            identity: Identity { starts: 0, met: vec![None; PLACES_MAX] },
            start: Start::default(),
            began: 0,
            admission: Admission::new(Quorum::new(n), ReplicaId(id)),
            copied: None,
            life: 0,
            is_writing: false,
            transfer: None,
            is_verifying: false,
            paused_until: 0,
            full_until: 0,
            crowded_until: 0,
            stops_by: None,
            hung_until: 0,
            written_since: None,
            is_tick: false,
            disk: Disk::new(log),
            outbox: Outbox::default(),
            said: Vec::new(),
            unfinished: Vec::new(),
            speed,
            began_at: (0, 0),
        }
    }

    /// Whether the replica can be started.
    pub fn is_down(&self) -> bool {
        self.core.is_none() && !self.is_lost
    }

    /// The time on the replica's own clock.
    pub fn time(&self, now: u64) -> Time {
        let (shown, at) = self.began_at;
        Time(shown + (now.saturating_sub(at) as f64 * self.speed) as u64)
    }

    /// The clock jumps by so much, because the machine has slept.
    pub fn jump(&mut self, now: u64, micros: u64) {
        self.began_at = (self.time(now).0 + micros, now);
    }

    /// When the clock shows this time, not before `now`.
    pub fn real(&self, now: u64, time: Time) -> u64 {
        let (shown, at) = self.began_at;
        now.max(at + (time.0.saturating_sub(shown) as f64 / self.speed) as u64 + 1)
    }

    /// Who it is in its epoch.
    pub fn config(&self, plan: &Plan) -> Config {
        Config {
            cluster: ClusterId::of_name(CLUSTER),
            replica: ReplicaId(self.id),
            replicas: self.n,
            epoch: self.epoch,
            shard: ShardId(0),
            timing: plan.timing,
            reserve_block: RESERVE_BLOCK,
            barrier_bytes: plan.barrier_bytes,
            outlives_power: plan.outlives_power,
            rescue: plan.rescue,
            publishes: true,
        }
    }

    /// Starts the process from what its disk holds, with the core that the one of the epoch before has made, if it
    /// has. False: the disk is damaged, and the replica must not vote any more.
    pub fn start(
        &mut self,
        plan: &Plan,
        now: u64,
        made: Option<Replica>,
        ghost: &mut Ghost,
        random: &mut SmallRng,
    ) -> bool {
        assert!(self.core.is_none(), "it runs already");
        let durable_before = self.disk.durable().0;
        let entries = match self.disk.recover() {
            Ok(entries) => entries,
            Err(why) => {
                assert!(self.is_damaged, "D6: replica {} refuses its own undamaged log: {why}", self.id);
                self.is_lost = true;
                return false;
            }
        };
        self.began_at = (ORIGINS_US[random.random_range(0..ORIGINS_US.len())], now);
        let seed = random.random();
        let mut core = made.unwrap_or_else(|| Replica::new(self.config(plan), seed));
        let mut kept = (0, Frontier::NONE);
        if self.disk.snapshot().is_none() {
            self.outbox.begin(self.epoch);
        }
        if let Some((barrier, bytes)) = self.disk.snapshot() {
            let snapshot = match read_snapshot(*barrier, bytes) {
                Ok(snapshot) => snapshot,
                Err(why) => {
                    let id = self.id;
                    assert!(self.is_at_risk(), "G5: replica {id} refuses its own undamaged snapshot: {why}");
                    self.is_lost = true;
                    return false;
                }
            };
            kept = (*barrier, snapshot.head.frontier);
            core.restore(snapshot);
        }
        for (record, payload) in &entries {
            core.replay(record.clone(), payload.clone());
        }
        while let Some(executed) = core.poll_executed() {
            self.outbox.take(self.epoch, executed);
        }
        ghost.on_restart(self.id, (self.disk.durable().0 - durable_before) as usize, kept);
        if !self.is_set_back {
            crate::check::on_replayed(ghost, self.id, &core);
        }
        core.start(self.time(now), self.disk.durable());
        core.check();
        self.core = Some(core);
        self.start = Start { number: self.identity.starts + 1, nonce: random.random() };
        self.began = self.disk.durable().0;
        self.admission = Admission::new(Quorum::new(self.n), ReplicaId(self.id));
        self.life += 1;
        (self.is_writing, self.is_verifying, self.transfer) = (false, false, None);
        true
    }

    /// The process is gone. Returns whether a part of a group stays on disk.
    pub fn crash(&mut self, random: &mut SmallRng) -> bool {
        self.core = None;
        self.stops_by = None;
        self.paused_until = 0;
        self.unfinished.clear();
        self.said.clear();
        self.written_since = None;
        self.outbox.lose_tail();
        self.disk.crash(random)
    }

    /// A bit of the snapshot's file flips while the replica runs.
    pub fn rot(&mut self, random: &mut SmallRng) {
        self.disk.rot(random);
    }

    /// Whether the disk is damaged, or will be found so at the next start.
    pub fn is_at_risk(&self) -> bool {
        self.is_damaged || self.disk.is_rotten()
    }

    /// Whether a copy of the state is under way that takes more than a piece.
    pub fn copies(&self) -> bool {
        self.unfinished.len() > LARGE_BYTES
    }

    /// The barrier of the snapshot that the disk keeps.
    pub fn kept_snapshot(&self) -> Option<u64> {
        self.disk.snapshot().map(|(barrier, _)| *barrier)
    }

    /// Something on the disk changes while the replica is down.
    pub fn damage(&mut self, random: &mut SmallRng) {
        self.is_damaged = true;
        self.disk.damage(random);
    }

    /// Copies the disk, if the replica runs.
    pub fn copy(&mut self) {
        if self.core.is_some() && !self.is_damaged {
            self.copied = Some(Copied { disk: self.disk.copy(), identity: self.identity.clone() });
        }
    }

    /// The disk becomes the copy that was made of it.
    pub fn set_back(&mut self) {
        let Copied { disk, identity } = self.copied.take().expect("it was copied");
        (self.disk, self.identity) = (disk, identity);
        (self.is_damaged, self.is_set_back) = (true, true);
    }

    /// Ends the turn, and takes all outputs of the core.
    pub fn turn(&mut self, now: u64, trace: bool, ghost: &mut Ghost) -> Turn {
        let time = self.time(now);
        let full = now < self.full_until;
        let room = self.room(now);
        let mut turn = Turn::default();
        let Some(core) = &mut self.core else { return turn };
        core.on_room(room);
        core.on_log_bytes(self.disk.bytes());
        core.end_turn(time);
        let mut cut = None;
        while let Some(output) = core.poll() {
            match output {
                Output::Append(append) => {
                    if trace {
                        eprintln!("{now:>9} {} writes {:?}{}", self.id, append.record, batch_of(&append));
                    }
                    ghost.on_append(self.id, &append);
                    self.disk.append(append);
                }
                Output::Send(send) => {
                    ghost.on_send(self.id, &send);
                    self.said.push(send);
                }
                Output::Reply(reply) => {
                    ghost.on_reply(self.id, &reply);
                    turn.replies.push(reply);
                }
                Output::Executed(executed) => self.outbox.take(self.epoch, executed),
                Output::Sealed(sealed) => {
                    ghost.on_sealed(self.id, sealed);
                    self.ended = Some(sealed);
                }
                Output::Cut(position) => cut = Some(position),
            }
        }
        let frontier = *core.executed();
        if frontier != ghost.frontiers[usize::from(self.id)] {
            if trace {
                eprintln!("{now:>9} {} executed {frontier:?} {:016x}", self.id, core.state_hash());
            }
            ghost.on_executed(self.id, frontier, core.state_hash());
        }
        if core.sealed().is_some() {
            ghost.on_end(self.id, frontier);
        }
        if let Some(last) = core.last_barrier() {
            ghost.on_barrier(self.id, last);
        }
        if let Some(position) = cut {
            ghost.on_cut(self.id, position);
            self.disk.cut(position);
        }
        turn.takes = core.taking().is_some();
        turn.fetches = core.wants_snapshot().map(|(source, barrier)| (source.0, barrier));
        turn.verifies = core.doubted_snapshot().is_some();
        turn.writes = self.disk.begin_write(full);
        if turn.writes {
            self.written_since = Some(now);
        }
        turn.sends = self.leave();
        turn
    }

    /// Whether the log may grow, and whether the disk answers.
    fn room(&self, now: u64) -> Room {
        if self.written_since.is_some_and(|since| now - since >= HUNG_AFTER_US) {
            Room::Hung(Reason::DiskHung { for_ms: 0 })
        } else if now < self.full_until {
            Room::Gone(Reason::DiskFull)
        } else {
            Room::Enough
        }
    }

    /// The messages that leave now: to each replica either all that were made for it, or none.
    fn leave(&mut self) -> Vec<Send> {
        let all = std::mem::take(&mut self.is_tick);
        let urgent: Vec<ReplicaId> = self.said.iter().filter(|send| !send.lazy).map(|send| send.to).collect();
        let (now, later) = self.said.drain(..).partition(|send| all || urgent.contains(&send.to));
        self.said = later;
        now
    }

    /// Writes the next piece of the snapshot that is being taken to the disk. Returns whether more follow. A process
    /// that `dies` does not hear of the last piece.
    pub fn write_snapshot(&mut self, now: u64, dies: bool, ghost: &mut Ghost) -> bool {
        let time = self.time(now);
        let Some(core) = &mut self.core else { return false };
        let Some((barrier, cut)) = core.taking() else {
            self.unfinished.clear();
            return false;
        };
        if now < self.crowded_until {
            self.unfinished.clear();
            core.on_snapshot_failed(time);
            return false;
        }
        if let Some(bytes) = core.snapshot_bytes() {
            self.unfinished.extend(bytes);
            return true;
        }
        if self.disk.durable() < cut {
            return true;
        }
        let file = std::mem::take(&mut self.unfinished);
        let written = read_snapshot(barrier, &file).expect("a snapshot reads as it was written");
        ghost.on_snapshot(self.id, barrier, written.head.frontier);
        self.disk.keep_snapshot(barrier, file);
        if !dies {
            core.on_snapshot(time);
        }
        false
    }

    /// A peer asks for bytes of a snapshot. Chance decides how many it is given.
    pub fn give_piece(&mut self, now: u64, peer: u8, fetch: Fetch, random: &mut SmallRng) -> Option<Piece> {
        let time = self.time(now);
        let is_newest = self.core.as_mut()?.on_fetch(time, ReplicaId(peer), fetch);
        let (kept, file) = self.disk.snapshot().filter(|_| is_newest)?;
        assert_eq!(*kept, fetch.barrier, "G5: a replica offers the snapshot that its disk keeps");
        let from = fetch.from as usize;
        let length = random.random_range(1..=file.len() / 2 + 1).min(file.len() - from);
        Some(Piece { total: file.len(), bytes: file[from..from + length].to_vec() })
    }

    /// Begins to fetch the snapshot of a barrier from a peer.
    pub fn begin_transfer(&mut self, now: u64, source: u8, barrier: u64) {
        self.transfer = Some(Transfer::begin(now, source, id_of(barrier)));
    }

    /// Whether this is the snapshot that the replica wants.
    pub fn wants_snapshot(&self, source: u8, barrier: u64) -> bool {
        self.core.as_ref().and_then(Replica::wants_snapshot) == Some((ReplicaId(source), barrier))
    }

    /// The snapshot of a peer could not be fetched.
    pub fn fetch_failed(&mut self, now: u64, source: u8, barrier: u64, why: FetchFailure) {
        let time = self.time(now);
        let Some(core) = &mut self.core else { return };
        core.on_fetch_failed(time, ReplicaId(source), barrier, why);
    }

    /// The snapshot of a peer has come whole. A process that `dies` keeps it, and knows nothing of it.
    pub fn install_snapshot(&mut self, now: u64, whole: Whole, dies: bool, ghost: &mut Ghost) {
        let time = self.time(now);
        // The snapshot counts only once the log has begun (D6); until then it is still wanted.
        if self.disk.durable() == Position(0) {
            return;
        }
        let Some(core) = &mut self.core else { return };
        let Whole { snapshot, file } = whole;
        let barrier = snapshot.head.barrier;
        ghost.on_snapshot(self.id, barrier, snapshot.head.frontier);
        self.disk.keep_snapshot(barrier, file);
        self.unfinished.clear();
        if !dies {
            core.install_snapshot(time, snapshot);
        }
    }

    /// The file of the own snapshot is read.
    pub fn verify_snapshot(&mut self, now: u64) {
        let time = self.time(now);
        let Some(core) = &mut self.core else { return };
        let (Some(barrier), Some((kept, bytes))) = (core.doubted_snapshot(), self.disk.snapshot()) else {
            return;
        };
        let mut reader = Reader::verifying(id_of(*kept));
        let is_whole = reader.push(bytes).and_then(|()| reader.verify()).is_ok();
        core.on_snapshot_verified(time, barrier, is_whole);
    }

    /// The write that was under way is done.
    pub fn synced(&mut self, now: u64, ghost: &mut Ghost) {
        let before = self.disk.durable().0;
        self.written_since = None;
        let position = self.disk.end_write();
        ghost.on_durable(self.id, (position.0 - before) as usize);
        let time = self.time(now);
        if let Some(core) = &mut self.core {
            core.on_durable(time, position);
        }
    }
}

fn id_of(barrier: u64) -> SnapshotId {
    SnapshotId { cluster: ClusterId::of_name(CLUSTER), shard: ShardId(0), barrier }
}

fn read_snapshot(barrier: u64, bytes: &[u8]) -> Result<Snapshot, BadSnapshot> {
    let mut reader = Reader::new(id_of(barrier));
    reader.push(bytes)?;
    reader.finish()
}

/// The commands that a record carries, as text.
fn batch_of(append: &Append) -> String {
    let Some(payload) = &append.payload else { return String::new() };
    let batch = payload.batch();
    let part = |part: &Part| {
        let commands = batch.commands_of(part);
        let commands = commands.map(|it| format!("{}:{:?}({})", it.number, it.op, it.key.escape_ascii()));
        format!(" {:?} {}", part.session, commands.collect::<Vec<_>>().join(" "))
    };
    batch.parts().iter().map(part).collect()
}
