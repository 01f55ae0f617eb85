//! The pump, which alone borrows the core. Tasks own their sockets, writers and transfers, and hand the pump inputs;
//! the task of the turns takes the outputs.
//!
//! An input is a plain call and not an item in a queue: all tasks run on one core, so a queue would only copy each
//! message once more.

use isonomy_mesh::ShardSettings;
use isonomy_protocol::contract::{ClientRef, Config, Output, Position, Room, Time};
use isonomy_protocol::payload::Payload;
use isonomy_protocol::replica::Replica;
use isonomy_protocol::snapshot::Snapshot;
use isonomy_protocol::transfer::{Fetch, FetchFailure};
use isonomy_wire::id::{RecordId, ReplicaId};
use isonomy_wire::message::PeerMessage;
use std::cell::{Cell, RefCell};
use std::time::Instant;

use crate::signal::Signal;

/// Everything that can happen to the core of a shard that runs.
#[expect(
    clippy::large_enum_variant,
    reason = "messages are by far the most, and a box for each would be an allocation"
)]
pub(crate) enum Input {
    /// The other members allow this process to take part (G6).
    Admit,
    /// The peers whose links work in both directions are now these.
    Links(Vec<ReplicaId>),
    /// A peer has sent a message.
    Message { from: ReplicaId, message: PeerMessage, payload: Option<Payload> },
    /// A client has sent a request. The core may have no room for it.
    Request { client: ClientRef, payload: Payload },
    /// The log is durable up to here.
    Durable(Position),
    /// A deadline has come, or the room of the log has changed.
    Tick { room: Room, log_bytes: u64 },
    /// A barrier is wanted, and a snapshot at it.
    Barrier,
    /// The snapshot that was being taken counts.
    SnapshotTaken,
    /// The snapshot that was being taken was not written.
    SnapshotFailed,
    /// A peer asks for a piece of the snapshot at this barrier. The snapshot may not be the newest.
    Fetch { peer: ReplicaId, fetch: Fetch },
    /// The snapshot of a peer was not fetched.
    FetchFailed { source: ReplicaId, barrier: u64, failure: FetchFailure },
    /// The snapshot of a peer is here. The core may need it no longer.
    Install(Box<Snapshot>),
    /// The file of the own snapshot could not be read.
    Doubt { barrier: u64 },
    /// The file of the own snapshot was verified.
    Verified { barrier: u64, is_whole: bool },
    /// A change of the members is announced, or none is.
    Change { is_announced: bool },
    /// The epoch is to end with this record.
    Seal(RecordId),
    /// The process has ordered other settings.
    Settings(ShardSettings),
    /// The process is told to stop.
    Stop,
}

/// The core, and when its next turn is due.
pub(crate) struct Pump {
    core: RefCell<Replica>,
    origin: Instant,
    /// Whether inputs have come since the last turn.
    is_dirty: Cell<bool>,
    turn: Signal,
}

impl Pump {
    pub(crate) fn new(core: Replica) -> Pump {
        let (core, turn) = (RefCell::new(core), Signal::default());
        Pump { core, origin: Instant::now(), is_dirty: Cell::new(true), turn }
    }

    /// The core's time.
    pub(crate) fn now(&self) -> Time {
        Time(self.origin.elapsed().as_micros() as u64)
    }

    /// A moment as the core's time; 0 for one before the core.
    pub(crate) fn time_of(&self, moment: Instant) -> Time {
        Time(moment.saturating_duration_since(self.origin).as_micros() as u64)
    }

    /// Gives the core an input, after which a turn is due. Returns false for a request that must be offered again, for
    /// a fetch of a snapshot that is not the newest, and for a snapshot that is not needed any more.
    pub(crate) fn take(&self, input: Input) -> bool {
        let now = self.now();
        let core = &mut *self.core.borrow_mut();
        self.mark_dirty();
        match input {
            Input::Message { from, message, payload } => core.on_message(now, from, message, payload),
            Input::Request { client, payload } => return core.on_request(now, client, payload) == Ok(()),
            Input::Durable(position) => core.on_durable(now, position),
            Input::Tick { room, log_bytes } => {
                core.on_room(room);
                core.on_log_bytes(log_bytes);
                core.on_timeout(now);
            }
            Input::Admit => core.admit(now),
            Input::Links(linked) => core.on_links(now, &linked),
            Input::Barrier => core.propose_barrier(now),
            Input::SnapshotTaken => core.on_snapshot(now),
            Input::SnapshotFailed => core.on_snapshot_failed(now),
            Input::Fetch { peer, fetch } => return core.on_fetch(now, peer, fetch),
            Input::FetchFailed { source, barrier, failure } => {
                core.on_fetch_failed(now, source, barrier, failure);
            }
            Input::Install(snapshot) => return core.install_snapshot(now, *snapshot),
            Input::Doubt { barrier } => core.doubt_snapshot(now, barrier),
            Input::Verified { barrier, is_whole } => core.on_snapshot_verified(now, barrier, is_whole),
            Input::Change { is_announced } => core.on_change(is_announced),
            Input::Seal(record) => core.propose_seal(now, record),
            Input::Settings(ShardSettings { tuning, is_slow_agreed }) => {
                core.apply(now, tuning, is_slow_agreed);
            }
            Input::Stop => core.on_stop(now),
        }
        true
    }

    /// Lets a task look at the core.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Replica) -> T) -> T {
        look(&self.core.borrow())
    }

    /// The next bytes of the snapshot that is being taken, and none behind its last ones.
    pub(crate) fn snapshot_bytes(&self) -> Option<Vec<u8>> {
        self.core.borrow_mut().snapshot_bytes()
    }

    /// The core of the next epoch, which takes over the state of this sealed one.
    pub(crate) fn succeed(&self, config: Config) -> Replica {
        let now = self.now();
        let core = &mut *self.core.borrow_mut();
        if core.taking().is_some() {
            // Its file is not needed: the next epoch begins with a snapshot of its own.
            core.on_snapshot_failed(now);
        }
        core.succeed(config, rand::random())
    }

    /// Notes that a turn is due.
    pub(crate) fn mark_dirty(&self) {
        if !self.is_dirty.replace(true) {
            self.turn.notify();
        }
    }

    /// Waits until a turn is due. Only one task may wait.
    pub(crate) async fn turn_due(&self) {
        while !self.is_dirty.replace(false) {
            self.turn.wait().await;
        }
    }

    /// Ends a turn: gives `emit` the outputs of the core in the order of its contract.
    pub(crate) fn end_turn(&self, mut emit: impl FnMut(Time, Output)) {
        let now = self.now();
        let core = &mut *self.core.borrow_mut();
        core.end_turn(now);
        while let Some(output) = core.poll() {
            emit(now, output);
        }
    }
}
