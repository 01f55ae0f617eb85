//! Fetches the snapshot of a peer (law, G5), piece by piece, if this replica has room for it. The core chooses the
//! peer, and decides when to try again.

use futures_lite::future::or;
use isonomy_protocol::snapshot::{BadSnapshot, Reader};
use isonomy_protocol::transfer::FetchFailure;
use isonomy_tuning::{disk, file_size};
use isonomy_wire::id::ReplicaId;
use isonomy_wire::message::PeerMessage;
use std::cell::{Cell, RefCell};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::log::disk::SEGMENTS_AHEAD;
use crate::log::recover::SEGMENT_BYTES;
use crate::node::Node;
use crate::pump::Input;
use crate::signal::Signal;
use crate::snapshot::PIECE_BYTES;
use crate::snapshot::growing::Growing;
use crate::snapshot::store::{retire, unfinished_path};
use crate::told::Kind;
use crate::waiting::is_lack_of_room;

/// How long a piece may take before the replica asks for it again.
const PIECE_PATIENCE: Duration = Duration::from_secs(2);
/// How long a source may be silent, such as after a lost link, before the transfer is given up.
const SOURCE_PATIENCE: Duration = Duration::from_secs(10);
/// The room that a snapshot must leave free for the log's next segments.
const ROOM_FOR_LOG: u64 = (SEGMENTS_AHEAD * SEGMENT_BYTES) as u64;
/// The size of a file's block, as `stat` counts blocks.
const STAT_BLOCK_BYTES: u64 = 512;

/// A piece that a peer has sent and that is not written yet.
pub(crate) struct Piece {
    pub(crate) place: PiecePlace,
    /// The length of the snapshot's file; 0 if the source has no such snapshot.
    pub(crate) total: u64,
    pub(crate) bytes: bytes::Bytes,
}

/// The source of a piece, and its place in the snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PiecePlace {
    pub(crate) source: ReplicaId,
    pub(crate) barrier: u64,
    pub(crate) from: u64,
}

/// How long the transfer waits.
#[derive(Clone, Copy)]
struct Patience {
    /// The time until the replica asks for a piece again.
    piece: Duration,
    /// The time until the replica gives the source up.
    source: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { piece: PIECE_PATIENCE, source: SOURCE_PATIENCE }
    }
}

/// The progress of the transfer of a peer's snapshot.
#[derive(Default)]
pub(crate) struct Fetching {
    /// The piece for which the transfer waits. Other pieces are dropped.
    awaited: Cell<Option<PiecePlace>>,
    piece: RefCell<Option<Piece>>,
    arrived: Signal,
    patience: Patience,
    /// The bytes that have come, and the bytes of the whole.
    pub(crate) progress: Cell<(u64, u64)>,
    /// The reason why the last transfer failed, until one succeeds.
    trouble: RefCell<String>,
}

/// Why a transfer ended early.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("this snapshot is no longer needed from that replica")]
    NotWanted,
    #[error("the received snapshot does not read ({0}); that replica verifies its file")]
    Damaged(BadSnapshot),
    #[error("that replica says that it has no such snapshot any more")]
    Missing,
    #[error("that replica has sent nothing for {} s", SOURCE_PATIENCE.as_secs())]
    Silent,
    #[error("that replica sent an impossible piece ({0}); run the same release at all members")]
    Nonsense(&'static str),
    #[error(
        "{path}: {lacking} bytes are lacking for the {total} bytes of the snapshot and the next segments of \
         the log; make room there",
        path = .dir.display()
    )]
    NoRoom { dir: PathBuf, lacking: u64, total: u64 },
    #[error(
        "{path}: the snapshot could not be written ({error}); {remedy}",
        path = .0.display(), error = .1, remedy = write_remedy(.1)
    )]
    Disk(PathBuf, std::io::Error),
}

fn write_remedy(error: &std::io::Error) -> String {
    file_size::remedy(error).unwrap_or_else(|| "check the disk and its free space".to_owned())
}

impl FetchError {
    /// The failure for the core, if the end was one.
    fn failure(&self) -> Option<FetchFailure> {
        match self {
            FetchError::NotWanted => None,
            FetchError::Damaged(_) => Some(FetchFailure::Damaged),
            FetchError::Missing | FetchError::Silent | FetchError::Nonsense(_) => Some(FetchFailure::Source),
            FetchError::NoRoom { .. } | FetchError::Disk(..) => Some(FetchFailure::Own),
        }
    }
}

impl Node {
    /// Takes a piece of a peer's snapshot that has come.
    pub(crate) fn on_piece(&self, piece: Piece) {
        self.transfers.fetching.on_piece(piece);
    }

    /// Why this replica has no snapshot that it should have; empty if all is well.
    pub(crate) fn snapshot_trouble(&self) -> String {
        if self.pump.look(|core| core.is_snapshot_damaged()) {
            return "this replica's own snapshot is damaged on disk, and a new snapshot is not durable yet: \
                    check the disk"
                .into();
        }
        self.transfers.fetching.trouble.borrow().clone()
    }

    /// Fetches the snapshot of a barrier from a peer and installs it, or tells the core why that failed.
    pub(crate) async fn fetch(&self, source: ReplicaId, barrier: u64) {
        log::info!(
            "shard {}: fetching the snapshot at barrier {barrier} from replica {source}",
            self.settings().shard.0
        );
        let fetched = self.try_to_fetch(source, barrier).await;
        self.transfers.fetching.progress.set((0, 0));
        let Err(error) = fetched else {
            self.transfers.fetching.trouble.take();
            return;
        };
        self.give_up_unfinished().await;
        let Some(failure) = error.failure() else { return };
        let text = format!("the snapshot of replica {source} at barrier {barrier}: {error}");
        if self.shard.told.may(Kind::Snapshot) {
            log::warn!("shard {}: {text}", self.settings().shard.0);
        }
        self.transfers.fetching.trouble.replace(text);
        self.pump.take(Input::FetchFailed { source, barrier, failure });
    }

    async fn try_to_fetch(&self, source: ReplicaId, barrier: u64) -> Result<(), FetchError> {
        let dir = self.dir();
        let disk = |error| FetchError::Disk(dir.clone(), error);
        // The first piece says how much room the snapshot takes.
        let mut piece = self.piece(source, barrier, 0, None).await?;
        let total = piece.total;
        let mut file = self.begin_file().await.map_err(disk)?;
        self.look_for_room(total).await?;
        let mut reader = Reader::new(self.snapshot_id(barrier));
        loop {
            reader.push(&piece.bytes).map_err(FetchError::Damaged)?;
            self.append(&mut file, &piece.bytes, total).await?;
            self.transfers.fetching.progress.set((file.length(), total));
            if file.length() == total {
                break;
            }
            piece = self.piece(source, barrier, file.length(), Some(total)).await?;
        }
        let snapshot = reader.finish().map_err(FetchError::Damaged)?;
        if snapshot.head.epoch != self.seat.epoch {
            return Err(FetchError::Nonsense("the snapshot is of another epoch"));
        }
        file.finish(&self.shard.aside).await.map_err(disk)?;
        self.publish(barrier).await.map_err(disk)?;
        if !self.pump.take(Input::Install(Box::new(snapshot))) {
            // The replica's own snapshot, after which the log goes on, is the newest again.
            let retired = self.shard.aside.run(move || retire(&dir, barrier)).await;
            retired.map_err(|error| FetchError::Disk(self.dir(), error))?;
            return Err(FetchError::NotWanted);
        }
        log::info!("shard {}: installed the snapshot at barrier {barrier}", self.settings().shard.0);
        self.prune(barrier).await;
        Ok(())
    }

    async fn append(&self, file: &mut Growing, bytes: &[u8], total: u64) -> Result<(), FetchError> {
        let (dir, length) = (self.dir(), file.length());
        file.append(bytes).await.map_err(|error| {
            if is_lack_of_room(error.kind()) {
                FetchError::NoRoom { dir, lacking: total - length, total }
            } else {
                FetchError::Disk(dir, error)
            }
        })
    }

    /// Checks that the disk has room for the file that was begun and the next segments of the log.
    async fn look_for_room(&self, total: u64) -> Result<(), FetchError> {
        let (dir, needed) = (self.dir(), total + ROOM_FOR_LOG);
        let measured = dir.clone();
        let room = self.shard.aside.run(move || room(&measured)).await;
        let room = room.map_err(|error| FetchError::Disk(dir.clone(), error))?;
        match needed.checked_sub(room).filter(|lacking| *lacking > 0) {
            Some(lacking) => Err(FetchError::NoRoom { dir, lacking, total }),
            None => Ok(()),
        }
    }

    /// Fetches the piece at this offset.
    async fn piece(
        &self,
        source: ReplicaId,
        barrier: u64,
        from: u64,
        total: Option<u64>,
    ) -> Result<Piece, FetchError> {
        let is_wanted = || self.pump.look(|core| core.wants_snapshot()) == Some((source, barrier));
        let ask = || self.net.say_to_peer(source, &PeerMessage::Fetch { barrier, from }, &[]);
        let piece =
            self.transfers.fetching.await_piece(PiecePlace { source, barrier, from }, is_wanted, ask).await?;
        piece.check(total)?;
        Ok(piece)
    }
}

impl Fetching {
    fn on_piece(&self, piece: Piece) {
        if self.awaited.get() == Some(piece.place) {
            self.awaited.set(None);
            self.piece.replace(Some(piece));
            self.arrived.notify();
        }
    }

    /// Asks for the piece at this place until it comes or the source has used up its time. A lost link may come back
    /// meanwhile, and the transfer then goes on where it was.
    async fn await_piece(
        &self,
        place: PiecePlace,
        is_wanted: impl Fn() -> bool,
        ask: impl Fn(),
    ) -> Result<Piece, FetchError> {
        let began = Instant::now();
        // A piece that came after the end of its transfer is dropped.
        self.piece.take();
        loop {
            if !is_wanted() {
                return Err(FetchError::NotWanted);
            }
            self.awaited.set(Some(place));
            ask();
            let arrived = async { Some(self.next_piece().await) };
            let late = async {
                glommio::timer::sleep(self.patience.piece).await;
                None
            };
            if let Some(piece) = or(arrived, late).await {
                return Ok(piece);
            }
            if began.elapsed() >= self.patience.source {
                return Err(FetchError::Silent);
            }
        }
    }

    async fn next_piece(&self) -> Piece {
        loop {
            let piece = self.piece.take();
            match piece {
                Some(piece) => return piece,
                None => self.arrived.wait().await,
            }
        }
    }
}

impl Piece {
    /// Checks that this can be a piece of a file of this length, which the first piece named.
    fn check(&self, total: Option<u64>) -> Result<(), FetchError> {
        let length = self.bytes.len() as u64;
        let what = match total {
            _ if self.total == 0 => return Err(FetchError::Missing),
            Some(total) if total != self.total => "the length of the snapshot has changed",
            _ if length > PIECE_BYTES => "the piece is too long",
            _ if length == 0 => "the piece is empty before the end of the snapshot",
            _ if length > self.total.saturating_sub(self.place.from) => {
                "the piece goes beyond the end of the snapshot"
            }
            _ => return Ok(()),
        };
        Err(FetchError::Nonsense(what))
    }
}

/// The bytes that may be written to a directory's file system; the file that was begun there counts as room.
fn room(dir: &Path) -> std::io::Result<u64> {
    let free = disk::free_bytes(dir)?;
    let begun = std::fs::metadata(unfinished_path(dir))?.blocks() * STAT_BLOCK_BYTES;
    Ok(free + begun)
}

#[cfg(test)]
mod tests;
