//! Takes snapshots and gives them to peers (law, G4 and G5), a piece at a time, and the shard does its own work
//! between pieces. The module `fetch` fetches snapshots.

pub(crate) mod fetch;
pub(crate) mod growing;
pub mod store;

use fetch::Fetching;
use isonomy_protocol::contract::Position;
use isonomy_protocol::replica::Replica;
use isonomy_protocol::snapshot::{Reader, SnapshotId};
use isonomy_protocol::transfer::Fetch;
use isonomy_tuning::{file_size, files};
use isonomy_wire::id::ReplicaId;
use isonomy_wire::message::PeerMessage;
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::node::Node;
use crate::pump::Input;
use crate::signal::Signal;
use crate::snapshot::growing::Growing;
use crate::told::Kind;
use store::{SnapshotError, begin, open, prune, publish, snapshot_path, unfinished_path};

/// The size of a piece of a snapshot that is sent to a peer.
pub(crate) const PIECE_BYTES: u64 = 512 << 10;
/// After each piece the shard does its own work for this many times as long as the piece took.
const REST_FACTOR: u32 = 3;
/// How often the task checks whether the log is durable so far.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How often the task checks whether a file has been verified.
const VERIFIED_EVERY: Duration = Duration::from_millis(50);

/// The snapshots that are under way.
#[derive(Default)]
pub(crate) struct Transfers {
    /// Notified when the core takes or needs a snapshot.
    wanted: Signal,
    /// Notified when the replica's own snapshot must be verified.
    doubts: Signal,
    fetching: Fetching,
}

impl Transfers {
    /// Wakes the tasks for which the core has work after a turn.
    pub(crate) fn on_turn(&self, core: &Replica) {
        if core.taking().is_some() || core.wants_snapshot().is_some() {
            self.wanted.notify();
        }
        if core.doubted_snapshot().is_some() {
            self.doubts.notify();
        }
    }

    /// The bytes of a peer's snapshot that have come, and the bytes of the whole.
    pub(crate) fn progress(&self) -> (u64, u64) {
        self.fetching.progress.get()
    }
}

impl Node {
    pub(crate) fn snapshot_id(&self, barrier: u64) -> SnapshotId {
        SnapshotId { cluster: self.data_dir.cluster_id(), shard: self.settings().shard, barrier }
    }

    /// Writes the snapshots that the core takes and fetches those that it needs, for ever. A snapshot that is being
    /// taken comes first, because until it is written every changed entry is kept twice.
    pub(crate) async fn run_snapshots(self: Rc<Node>) {
        loop {
            let (taking, wanted) = { self.pump.look(|core| (core.taking(), core.wants_snapshot())) };
            match (taking, wanted) {
                (Some((barrier, _)), _) => self.take(barrier).await,
                (None, Some((source, barrier))) => self.fetch(source, barrier).await,
                (None, None) => {
                    self.transfers.wanted.wait().await;
                    continue;
                }
            }
            self.pump.mark_dirty();
        }
    }

    /// Writes the snapshot of a barrier. The core waits longer after each failure.
    async fn take(&self, barrier: u64) {
        if let Err(error) = self.write_snapshot(barrier).await {
            if self.shard.told.may(Kind::Snapshot) {
                let remedy = match file_size::remedy(&error) {
                    Some(remedy) => remedy,
                    None if files::are_lacking(&error) => files::REMEDY.to_owned(),
                    None => "check the disk and its free space".to_owned(),
                };
                log::warn!(
                    "shard {}: the snapshot at barrier {barrier} was not written in {}: {error}; the log is kept, and a \
                     later barrier tries again; {remedy}",
                    self.settings().shard.0,
                    self.dir().display()
                );
            }
            self.pump.take(Input::SnapshotFailed);
            self.give_up_unfinished().await;
        }
    }

    async fn write_snapshot(&self, barrier: u64) -> Result<()> {
        let length = self.write_file().await?;
        self.publish_taken(barrier).await?;
        log::info!(
            "shard {}: wrote the snapshot at barrier {barrier}, {length} bytes",
            self.settings().shard.0
        );
        self.prune(barrier).await;
        Ok(())
    }

    /// Writes all bytes that the core gives. Returns how many these were.
    async fn write_file(&self) -> Result<u64> {
        let mut file = self.begin_file().await?;
        loop {
            let began = Instant::now();
            let bytes = self.pump.snapshot_bytes();
            let Some(bytes) = bytes else { break };
            file.append(&bytes).await?;
            glommio::timer::sleep(REST_FACTOR * began.elapsed()).await;
        }
        let length = file.length();
        file.finish(&self.shard.aside).await?;
        Ok(length)
    }

    /// Lets the written snapshot count once the log is durable so far.
    async fn publish_taken(&self, barrier: u64) -> Result<()> {
        // The snapshot must not show more than the log remembers, nor take from the log what the sink has not kept.
        while self.is_ahead_of_log() || self.is_ahead_of_sink(barrier) {
            glommio::timer::sleep(LOOK_EVERY).await;
        }
        self.publish(barrier).await?;
        self.pump.take(Input::SnapshotTaken);
        Ok(())
    }

    /// Begins the file of a snapshot.
    pub(crate) async fn begin_file(&self) -> Result<Growing> {
        let dir = self.dir();
        Growing::open(&self.shard.aside.run(move || begin(&dir)).await?).await
    }

    /// Lets a whole snapshot count from now on. Before that it notes how far the log has come, so that a log that has
    /// lost its end does not pass for one that is older than the snapshot (D6).
    pub(crate) async fn publish(&self, barrier: u64) -> Result<()> {
        while self.writer.durable() == Position(0) {
            glommio::timer::sleep(LOOK_EVERY).await;
        }
        let (data_dir, shard, dir, durable) =
            (self.data_dir.clone(), self.settings().shard, self.dir(), self.writer.durable());
        let publish = move || {
            data_dir.note_reached(shard, durable)?;
            publish(&dir, barrier)
        };
        self.shard.aside.run(publish).await
    }

    /// Gives back the room of a file that was begun. Perhaps that room was lacking, and the log needs it more.
    pub(crate) async fn give_up_unfinished(&self) {
        let path = unfinished_path(&self.dir());
        let _ = self.shard.aside.run(move || std::fs::remove_file(path)).await;
    }

    /// Whether the snapshot that is being taken rests on records that are not durable.
    fn is_ahead_of_log(&self) -> bool {
        let durable = self.writer.durable();
        self.pump.look(|core| core.taking().is_some_and(|(_, cut)| durable < cut))
    }

    /// P2: whether the sink has not kept all that comes before a barrier.
    fn is_ahead_of_sink(&self, barrier: u64) -> bool {
        self.shard.feed.as_ref().is_some_and(|feed| !feed.has_kept(barrier))
    }

    /// Removes the snapshots before the newest, which counts whether this succeeds or not, and what lies of earlier
    /// epochs, from which no state has to come any more.
    pub(crate) async fn prune(&self, newest: u64) {
        let (dir, data_dir, shard) = (self.dir(), self.data_dir.clone(), self.settings().shard);
        let prune = move || prune(&dir, newest).and_then(|()| data_dir.remove_earlier(shard));
        if let Err(error) = self.shard.aside.run(prune).await {
            log::warn!(
                "shard {}: a replaced snapshot could not be removed: {error}; the next snapshot tries again",
                self.settings().shard.0
            );
        }
    }

    /// Handles a peer's request for a part of the newest snapshot.
    pub(crate) fn on_fetch(self: &Rc<Node>, peer: ReplicaId, fetch: Fetch) {
        let is_newest = self.pump.take(Input::Fetch { peer, fetch });
        let Fetch { barrier, from } = fetch;
        let (node, path) = (self.clone(), snapshot_path(&self.dir(), barrier));
        let give = async move {
            let read = move || read_piece(&path, from);
            let read =
                if is_newest { node.shard.aside.try_run(read).await } else { Some(Ok((0, Vec::new()))) };
            // The peer asks again for a piece for which there is no time.
            let Some(read) = read else { return };
            let (total, bytes) = read.unwrap_or_else(|error| {
                if node.shard.told.may(Kind::Snapshot) {
                    log::warn!(
                        "shard {}: a snapshot cannot be sent to a peer: {error}",
                        node.settings().shard.0
                    );
                }
                node.pump.take(Input::Doubt { barrier });
                (0, Vec::new())
            });
            node.net.say_to_peer(peer, &PeerMessage::Piece { barrier, from, total }, &bytes);
        };
        glommio::spawn_local(give).detach();
    }

    /// Verifies the file of the replica's own snapshot whenever a reader could not read it, for ever. This runs on a
    /// thread of its own, which lets the log's writes pass.
    pub(crate) async fn run_verifications(self: Rc<Node>) {
        loop {
            let doubted = self.pump.look(|core| core.doubted_snapshot());
            let Some(barrier) = doubted else {
                self.transfers.doubts.wait().await;
                continue;
            };
            let outcome = self.verify_own(barrier).await;
            if self.pump.look(|core| core.doubted_snapshot()) == Some(barrier) {
                self.pump.take(Input::Verified { barrier, is_whole: outcome.is_ok() });
                self.tell_verified(barrier, outcome);
            }
        }
    }

    async fn verify_own(&self, barrier: u64) -> std::result::Result<(), SnapshotError> {
        let (path, id) = (snapshot_path(&self.dir(), barrier), self.snapshot_id(barrier));
        let read = path.clone();
        let thread = std::thread::Builder::new().name("verify".into()).spawn(move || verify(&read, id));
        let thread = thread.map_err(|error| SnapshotError::Io(path, error))?;
        while !thread.is_finished() {
            glommio::timer::sleep(VERIFIED_EVERY).await;
        }
        thread.join().expect("reading does not panic")
    }

    fn tell_verified(&self, barrier: u64, outcome: std::result::Result<(), SnapshotError>) {
        match outcome {
            Ok(()) => log::warn!(
                "shard {}: a peer could not read the snapshot at barrier {barrier} that this replica sent, but \
                 the file is whole: the memory of the peer's machine or of this machine changes data; check \
                 the memory of both machines",
                self.settings().shard.0
            ),
            Err(error) => log::error!(
                "shard {}: {error}: the disk of this replica changes or loses data; check it. This replica \
                 goes on from memory and takes a new snapshot at once. Do not stop this replica before that \
                 snapshot is durable, because it would not start again",
                self.settings().shard.0
            ),
        }
    }
}

/// Reads the piece of a file at an offset. Returns the file's length and the piece.
fn read_piece(path: &Path, from: u64) -> std::result::Result<(u64, Vec<u8>), SnapshotError> {
    let file = open(path)?;
    let read = || {
        let total = file.metadata()?.len();
        let mut bytes = vec![0; total.saturating_sub(from).min(PIECE_BYTES) as usize];
        file.read_exact_at(&mut bytes, from)?;
        Ok((total, bytes))
    };
    read().map_err(|error| SnapshotError::Io(path.into(), error))
}

/// Reads a whole snapshot without keeping it, with a rest after each piece.
fn verify(path: &Path, id: SnapshotId) -> std::result::Result<(), SnapshotError> {
    let io = |error: Error| SnapshotError::Io(path.into(), error);
    let broken = |broken| SnapshotError::broken(path, broken);
    let mut file = open(path)?;
    let (mut reader, mut piece) = (Reader::verifying(id), vec![0; PIECE_BYTES as usize]);
    loop {
        let began = Instant::now();
        match file.read(&mut piece) {
            Ok(0) => return reader.verify().map_err(broken),
            Ok(count) => reader.push(&piece[..count]).map_err(broken)?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(io(error)),
        }
        std::thread::sleep(REST_FACTOR * began.elapsed());
    }
}

#[cfg(test)]
mod tests;
