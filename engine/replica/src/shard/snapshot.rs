//! Taking snapshots, and fetching them from a peer (law, G4 and G5), a piece at a time between which
//! the shard does its own work.

use isonomy_protocol::contract::Position;
use isonomy_protocol::snapshot::{Reader, SnapshotId};
use isonomy_wire::id::ReplicaId;
use isonomy_wire::message::PeerMessage;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Error, Result};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Node;
use super::growing::Growing;
use super::signal::Signal;
use crate::files;
use crate::snapshots::{begin, prune, publish, snapshot_path, unfinished_path};
use crate::told::Kind;

/// A peer is sent so many bytes of a snapshot at a time.
const PIECE_BYTES: u64 = 512 << 10;
/// After each piece the shard goes on with its own work for so many times as long.
const REST_FACTOR: u32 = 3;
/// How long a piece may take to come before it is asked for again.
const PIECE_PATIENCE: Duration = Duration::from_secs(2);
/// How long a lost link may take to come back before a transfer is given up.
const LINK_PATIENCE: Duration = Duration::from_secs(10);
/// After something failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether the log is durable so far.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What a peer has sent, not yet written.
struct Piece {
    source: ReplicaId,
    fence: u64,
    from: u64,
    total: u64,
    bytes: bytes::Bytes,
}

/// How far the transfer of a peer's snapshot has come.
#[derive(Default)]
pub(super) struct Fetching {
    pieces: RefCell<VecDeque<Piece>>,
    arrived: Signal,
    /// The bytes that have come, and all of them.
    pub(super) progress: Cell<(u64, u64)>,
}

impl Node {
    fn snapshot_id(&self, fence: u64) -> SnapshotId {
        SnapshotId { cluster: self.data_dir.cluster_id(), shard: self.shard, fence }
    }

    /// Writes the snapshots that the core takes and fetches those that it needs, for ever.
    pub(super) async fn run_snapshots(self: Rc<Node>) {
        loop {
            let (taking, wanted) = {
                let inner = self.inner.borrow();
                (inner.core.taking(), inner.core.wants_snapshot())
            };
            let done = match (taking, wanted) {
                (_, Some((source, fence))) => self.fetch(source, fence).await,
                (Some((fence, _)), None) => self.take(fence).await,
                (None, None) => {
                    self.snapshots.wait().await;
                    continue;
                }
            };
            if let Err(error) = done {
                if self.told.may(Kind::Snapshot) {
                    let remedy =
                        if files::are_lacking(&error) { files::REMEDY } else { "it will be tried again" };
                    let shard = self.shard.0;
                    log::warn!(
                        "shard {shard}: a snapshot was not written: {error}; the log is kept; {remedy}"
                    );
                }
                self.inner.borrow_mut().core.on_snapshot_failed();
                // Perhaps it is room that was lacking, and the log needs it more.
                let path = unfinished_path(&self.dir());
                let _ = self.aside.run(move || std::fs::remove_file(path)).await;
                glommio::timer::sleep(RETRY_PAUSE).await;
            }
            self.touch();
        }
    }

    /// Writes the snapshot of a fence.
    async fn take(&self, fence: u64) -> Result<()> {
        let mut file = self.begin_file().await?;
        loop {
            let began = Instant::now();
            let bytes = self.inner.borrow_mut().core.snapshot_bytes();
            let Some(bytes) = bytes else { break };
            file.append(&bytes).await?;
            glommio::timer::sleep(REST_FACTOR * began.elapsed()).await;
        }
        let length = file.length();
        file.finish(&self.aside).await?;
        // What it shows must not be more than the log remembers.
        while self.is_ahead_of_log() {
            glommio::timer::sleep(LOOK_EVERY).await;
        }
        self.publish(fence).await?;
        let now = self.now();
        self.inner.borrow_mut().core.on_snapshot(now);
        log::info!("shard {}: snapshot at fence {fence}, {length} bytes", self.shard.0);
        self.prune(fence).await
    }

    /// The file of a snapshot that begins.
    async fn begin_file(&self) -> Result<Growing> {
        let dir = self.dir();
        Growing::open(&self.aside.run(move || begin(&dir)).await?).await
    }

    /// A snapshot that is whole counts from now on. Before that it is noted how far the log has come, so
    /// that a log that has lost its end is not taken for one that is older than the snapshot (D6).
    async fn publish(&self, fence: u64) -> Result<()> {
        while self.durable() == Position(0) {
            glommio::timer::sleep(LOOK_EVERY).await;
        }
        let (data_dir, shard, dir, durable) = (self.data_dir.clone(), self.shard, self.dir(), self.durable());
        let publish = move || {
            data_dir.note_reached(shard, durable)?;
            publish(&dir, fence)
        };
        self.aside.run(publish).await
    }

    fn durable(&self) -> Position {
        self.inner.borrow().log.durable
    }

    /// Whether the snapshot that is being taken rests on records that are not durable.
    fn is_ahead_of_log(&self) -> bool {
        let inner = self.inner.borrow();
        inner.core.taking().is_some_and(|(_, cut)| inner.log.durable < cut)
    }

    async fn prune(&self, newest: u64) -> Result<()> {
        let dir = self.dir();
        self.aside.run(move || prune(&dir, newest)).await
    }

    /// A peer asks for a part of the newest snapshot.
    pub(super) fn on_fetch(self: &Rc<Node>, peer: ReplicaId, fence: u64, from: u64) {
        let now = self.now();
        let is_newest = self.inner.borrow_mut().core.on_fetch(now, fence);
        let (node, path) = (self.clone(), snapshot_path(&self.dir(), fence));
        let give = async move {
            let read = move || read_piece(&path, from);
            let read = if is_newest { node.aside.try_run(read).await } else { Some(Ok((0, Vec::new()))) };
            // A piece that there is no time for is asked for again.
            let Some(read) = read else { return };
            let (total, bytes) = read.unwrap_or_default();
            let message = PeerMessage::Piece { fence, from, total };
            let scope = node.peer_scope();
            let mut inner = node.inner.borrow_mut();
            let super::Inner { links, encoder, .. } = &mut *inner;
            links.push_bytes(encoder, scope, peer, &message, &bytes);
            links.flush();
        };
        glommio::spawn_local(give).detach();
    }

    /// A part of a peer's snapshot has come.
    pub(super) fn on_piece(&self, source: ReplicaId, fence: u64, from: u64, total: u64, bytes: bytes::Bytes) {
        // One is asked for at a time; what nobody waits for is dropped with the next.
        let mut pieces = self.fetching.pieces.borrow_mut();
        pieces.clear();
        pieces.push_back(Piece { source, fence, from, total, bytes });
        self.fetching.arrived.notify();
    }

    /// Fetches the snapshot of a fence from a peer, piece by piece, and installs it.
    async fn fetch(&self, source: ReplicaId, fence: u64) -> Result<()> {
        log::info!("shard {}: fetching the snapshot at fence {fence} from replica {source}", self.shard.0);
        let mut file = self.begin_file().await?;
        let mut reader = Reader::new(self.snapshot_id(fence));
        loop {
            if !self.is_wanted(source, fence).await {
                self.fetching.progress.set((0, 0));
                return Ok(());
            }
            let Some(piece) = self.next_piece(source, fence, file.length()).await else { continue };
            if piece.total == 0 {
                // It has a newer one by now, and says so with its next gossip.
                glommio::timer::sleep(RETRY_PAUSE).await;
                continue;
            }
            reader.push(&piece.bytes).map_err(Error::other)?;
            file.append(&piece.bytes).await?;
            self.fetching.progress.set((file.length(), piece.total));
            if file.length() >= piece.total {
                break;
            }
        }
        let snapshot = reader.finish().map_err(Error::other)?;
        file.finish(&self.aside).await?;
        self.publish(fence).await?;
        let now = self.now();
        self.inner.borrow_mut().core.install_snapshot(now, snapshot);
        self.fetching.progress.set((0, 0));
        log::info!("shard {}: installed the snapshot at fence {fence}", self.shard.0);
        self.prune(fence).await
    }

    /// Whether it still is this snapshot that is needed. A link that is lost may come back: the
    /// transfer goes on where it was.
    async fn is_wanted(&self, source: ReplicaId, fence: u64) -> bool {
        let began = Instant::now();
        loop {
            match self.inner.borrow().core.wants_snapshot() {
                Some(wanted) => return wanted == (source, fence),
                None if began.elapsed() > LINK_PATIENCE => return false,
                None => {}
            }
            glommio::timer::sleep(LOOK_EVERY).await;
        }
    }

    /// Asks for the piece at this byte and waits for it; `None` if it does not come.
    async fn next_piece(&self, source: ReplicaId, fence: u64, from: u64) -> Option<Piece> {
        {
            let scope = self.peer_scope();
            let mut inner = self.inner.borrow_mut();
            let super::Inner { links, encoder, .. } = &mut *inner;
            links.push_bytes(encoder, scope, source, &PeerMessage::Fetch { fence, from }, &[]);
            links.flush();
        }
        let arrived = async {
            loop {
                let piece = self.fetching.pieces.borrow_mut().pop_front();
                match piece {
                    Some(piece) if (piece.source, piece.fence, piece.from) == (source, fence, from) => {
                        return Some(piece);
                    }
                    _ => self.fetching.arrived.wait().await,
                }
            }
        };
        let late = async {
            glommio::timer::sleep(PIECE_PATIENCE).await;
            None
        };
        futures_lite::future::or(arrived, late).await
    }
}

/// The piece of a file at a byte, and the file's length.
fn read_piece(path: &std::path::Path, from: u64) -> Result<(u64, Vec<u8>)> {
    let file = File::open(path)?;
    let total = file.metadata()?.len();
    let mut bytes = vec![0; total.saturating_sub(from).min(PIECE_BYTES) as usize];
    file.read_exact_at(&mut bytes, from)?;
    Ok((total, bytes))
}
