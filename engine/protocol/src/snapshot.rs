//! Snapshots: the state of a shard at a barrier (law, G4), written to bytes and read back by pure functions, as the
//! log is.
//!
//! ```text
//! snapshot = Head frame | Keys frame* | Sessions frame* | End frame
//! ```
//!
//! All frames are those of [`isonomy_wire::frame`]. Their place starts at a number made of cluster,
//! shard and barrier, so that no piece of one snapshot passes in another. The last frame holds a
//! checksum of all frames, and the reader computes the state hash again from the state that it read.

use crate::machine::Machine;
use crate::sessions::Sessions;
use isonomy_wire::deps::Frontier;
use isonomy_wire::frame::{Encoder, Frame, FrameError, Kind, Scope, Splitter};
use isonomy_wire::id::{ClusterId, Epoch, ShardId};
use rkyv::{Archive, Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// About the size of a piece in bytes; an entry or session that begins below this size is whole in the piece.
const PIECE_BYTES: usize = 256 << 10;

/// The identity of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotId {
    /// The cluster.
    pub cluster: ClusterId,
    /// The shard.
    pub shard: ShardId,
    /// The number of the barrier in the shard, from 1.
    pub barrier: u64,
}

/// The description of a snapshot in its first frame.
// The archived twins that rkyv derives have no documentation of their own.
#[allow(missing_docs)]
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotHead {
    /// The epoch.
    pub epoch: Epoch,
    /// The number of members of the epoch, which is the number of rows of the frontier.
    pub replicas: u8,
    /// The number of the barrier, from 1.
    pub barrier: u64,
    /// The instances that the state covers.
    pub frontier: Frontier,
    /// The state hash.
    pub hash: u64,
    /// The number of keys with a decision.
    pub keys: u64,
    /// The number of open and named sessions.
    pub sessions: u64,
    /// The number of commands executed since the shard began.
    pub commands: u64,
}

#[allow(missing_docs)]
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
enum Piece {
    Head(SnapshotHead),
    /// The payload has this many entries.
    Keys(u32),
    /// The payload has this many sessions.
    Sessions(u32),
    /// The checksum of all frames before.
    End(u64),
}

/// A snapshot that was read.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The description of the snapshot.
    pub head: SnapshotHead,
    /// The state and the sessions.
    pub machine: Machine,
}

/// Why bytes are not the expected snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts are the documentation.
pub enum BadSnapshot {
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("a piece comes where it does not belong")]
    Order,
    #[error("a piece does not hold what it promises")]
    Piece,
    #[error("the checksum of the whole fails")]
    Checksum,
    #[error("the state read has hash {read:016x}, not {stated:016x}")]
    Hash { read: u64, stated: u64 },
    #[error("it ends before its end")]
    CutOff,
}

impl SnapshotId {
    /// The place of the first byte.
    fn place(&self) -> u64 {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.cluster.0.to_le_bytes());
        bytes[16..18].copy_from_slice(&self.shard.0.to_le_bytes());
        bytes[24..].copy_from_slice(&self.barrier.to_le_bytes());
        xxh3_64(&bytes)
    }

    fn scope(&self) -> Scope {
        Scope { kind: Kind::Snapshot, epoch: Epoch(0), shard: self.shard }
    }
}

/// Adds one more piece to the checksum of the whole.
fn extend(checksum: u64, message: &[u8], payload_crc: u32) -> u64 {
    xxh3_64_with_seed(message, checksum ^ u64::from(payload_crc))
}

/// Frames the pieces of a snapshot.
#[derive(Clone, Debug)]
struct Framer {
    id: SnapshotId,
    place: u64,
    checksum: u64,
}

impl Framer {
    fn new(id: SnapshotId) -> Framer {
        Framer { id, place: id.place(), checksum: 0 }
    }

    fn frame(&mut self, piece: &Piece, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(payload.len() + 256);
        let crc = crc32c::crc32c(payload);
        let size = Encoder::default().frame(&mut out, self.place, self.id.scope(), piece, payload, crc);
        self.place = self.place.wrapping_add(size as u64);
        let message = rkyv::to_bytes::<rkyv::rancor::Error>(piece).expect("encoding to memory cannot fail");
        self.checksum = extend(self.checksum, &message, crc);
        out
    }
}

/// The next part of a snapshot that is being taken.
#[derive(Clone, Debug)]
enum NextPart {
    Head,
    Keys,
    Sessions,
    Ended,
}

/// A snapshot that is being taken while the state goes on.
#[derive(Clone, Debug)]
pub(crate) struct Taking {
    pub(crate) head: SnapshotHead,
    framer: Framer,
    stage: NextPart,
    /// The sessions that were not written yet.
    sessions: Sessions,
}

impl Taking {
    /// Begins a snapshot of the machine's present state.
    pub(crate) fn begin(id: SnapshotId, head: SnapshotHead, machine: &mut Machine) -> Taking {
        machine.state.begin_copy();
        Taking { head, framer: Framer::new(id), stage: NextPart::Head, sessions: machine.sessions.clone() }
    }

    /// The next bytes of the file, from the same machine; `None` at its end.
    pub(crate) fn next_bytes(&mut self, machine: &mut Machine) -> Option<Vec<u8>> {
        if let NextPart::Head = self.stage {
            self.stage = NextPart::Keys;
            return Some(self.framer.frame(&Piece::Head(self.head), &[]));
        }
        let mut payload = Vec::with_capacity(PIECE_BYTES);
        if let NextPart::Keys = self.stage {
            if let Some(entries) = machine.state.copy_some(&mut payload, PIECE_BYTES) {
                return Some(self.framer.frame(&Piece::Keys(entries), &payload));
            }
            self.stage = NextPart::Sessions;
        }
        if let NextPart::Sessions = self.stage {
            let mut sessions = 0;
            while let Some((id, session)) =
                (payload.len() < PIECE_BYTES).then(|| self.sessions.take_first()).flatten()
            {
                Sessions::encode(id, &session, &mut payload);
                sessions += 1;
            }
            if sessions > 0 {
                return Some(self.framer.frame(&Piece::Sessions(sessions), &payload));
            }
            self.stage = NextPart::Ended;
            let end = Piece::End(self.framer.checksum);
            return Some(self.framer.frame(&end, &[]));
        }
        None
    }
}

/// Reads a snapshot from its bytes, however they are cut.
#[derive(Debug)]
pub struct Reader {
    id: SnapshotId,
    splitter: Splitter,
    checksum: u64,
    head: Option<SnapshotHead>,
    machine: Option<Machine>,
    /// Whether the reader keeps the state, or only verifies it piece by piece.
    keeps: bool,
    ended: bool,
}

impl Reader {
    /// A reader for the snapshot of this identity.
    pub fn new(id: SnapshotId) -> Reader {
        let splitter = Splitter::at(id.place(), PIECE_BYTES);
        Reader { id, splitter, checksum: 0, head: None, machine: None, keeps: true, ended: false }
    }

    /// A reader that verifies every byte of a file beside its running replica, but keeps nothing, so that it takes no
    /// memory.
    pub fn verifying(id: SnapshotId) -> Reader {
        Reader { keeps: false, ..Reader::new(id) }
    }

    /// Takes the next bytes of the file. [`FrameError::Version`] means that another release wrote the file, if the
    /// bytes begin with a whole frame; a cut frame of another version counts as damage.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), BadSnapshot> {
        while !bytes.is_empty() {
            let room = self.splitter.room();
            let count = room.len().min(bytes.len());
            room[..count].copy_from_slice(&bytes[..count]);
            self.splitter.received(count);
            bytes = &bytes[count..];
            while let Some(frame) =
                self.splitter.next_frame().map_err(|error| self.splitter.told_apart(error))?
            {
                self.take(frame)?;
            }
        }
        Ok(())
    }

    /// The description of the snapshot, once it was read.
    pub fn head(&self) -> Option<&SnapshotHead> {
        self.head.as_ref()
    }

    fn take(&mut self, frame: Frame) -> Result<(), BadSnapshot> {
        let piece: Piece = frame.decode(self.id.scope())?;
        if self.ended {
            return Err(BadSnapshot::Order);
        }
        match (piece, &mut self.machine) {
            (Piece::Head(head), None) => {
                if head.barrier != self.id.barrier {
                    return Err(BadSnapshot::Order);
                }
                self.machine = Some(Machine::new(head.epoch, self.id.shard));
                self.head = Some(head);
            }
            (Piece::Keys(_) | Piece::Sessions(_), Some(_)) if !self.keeps => {}
            (Piece::Keys(entries), Some(machine)) => {
                let loaded = machine.state.load(&frame.payload);
                loaded.ok().filter(|loaded| *loaded == entries).ok_or(BadSnapshot::Piece)?;
            }
            (Piece::Sessions(sessions), Some(machine)) => {
                let loaded = machine.sessions.load(frame.payload.clone());
                loaded.ok().filter(|loaded| *loaded == sessions).ok_or(BadSnapshot::Piece)?;
            }
            (Piece::End(checksum), Some(_)) if checksum == self.checksum => self.ended = true,
            (Piece::End(_), Some(_)) => return Err(BadSnapshot::Checksum),
            _ => return Err(BadSnapshot::Order),
        }
        self.checksum = extend(self.checksum, &frame.message, frame.payload_crc);
        Ok(())
    }

    /// Checks, after all bytes were given, that they are the bytes that were written.
    pub fn verify(&self) -> Result<(), BadSnapshot> {
        let is_whole = self.head.is_some() && self.ended && !self.splitter.has_partial();
        if is_whole { Ok(()) } else { Err(BadSnapshot::CutOff) }
    }

    /// Returns the snapshot, after all bytes were given.
    pub fn finish(self) -> Result<Snapshot, BadSnapshot> {
        self.verify()?;
        let (Some(head), Some(mut machine)) = (self.head, self.machine) else {
            return Err(BadSnapshot::CutOff);
        };
        machine.resume(head.commands);
        let counts = (machine.state.keys(), machine.sessions.len() as u64);
        if machine.hash() != head.hash || counts != (head.keys, head.sessions) {
            return Err(BadSnapshot::Hash { read: machine.hash(), stated: head.hash });
        }
        Ok(Snapshot { head, machine })
    }
}

/// Writes the snapshot under another identity, with which a backup is restored as another cluster.
pub fn rebrand(snapshot: &mut Snapshot, id: SnapshotId, mut write: impl FnMut(&[u8])) {
    let mut taking = Taking::begin(id, snapshot.head, &mut snapshot.machine);
    while let Some(bytes) = taking.next_bytes(&mut snapshot.machine) {
        write(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Payload;
    use isonomy_wire::command::{Numbering, RequestBuilder};
    use isonomy_wire::id::{InstanceId, ReplicaId, SessionId};
    use isonomy_wire::message::WIRE_VERSION;

    const ID: SnapshotId = SnapshotId { cluster: ClusterId(7), shard: ShardId(3), barrier: 5 };

    fn machine(keys: u32) -> Machine {
        let mut machine = Machine::new(Epoch(1), ID.shard);
        let mut builder = RequestBuilder::default();
        for key in 0..keys {
            builder.decide(&key.to_le_bytes(), &vec![1; key as usize % 90]).unwrap();
            if key % 100 == 99 || key + 1 == keys {
                let first = u64::from(key - key % 100) + 1;
                let bytes = builder.encode(SessionId::named("s"), Numbering { first, answered_below: first });
                let crc = crc32c::crc32c(&bytes);
                let id = InstanceId::new(ReplicaId(0), first);
                machine.execute(id, &Payload::parse(bytes, crc).unwrap(), &[], true, |_, _| ());
            }
        }
        machine
    }

    fn image(machine: &mut Machine) -> (SnapshotHead, Vec<u8>) {
        let mut frontier = Frontier::NONE;
        frontier.set(ReplicaId(0), 900);
        let (hash, keys, sessions) = (machine.hash(), machine.state.keys(), machine.sessions.len() as u64);
        let (barrier, commands) = (ID.barrier, machine.commands());
        let head =
            SnapshotHead { epoch: Epoch(1), replicas: 3, barrier, frontier, hash, keys, sessions, commands };
        let mut taking = Taking::begin(ID, head, machine);
        let bytes = std::iter::from_fn(|| taking.next_bytes(machine)).flatten().collect();
        (head, bytes)
    }

    fn read(bytes: &[u8], cut: usize) -> Result<Snapshot, BadSnapshot> {
        let mut reader = Reader::new(ID);
        bytes.chunks(cut).try_for_each(|chunk| reader.push(chunk))?;
        reader.finish()
    }

    fn verify(bytes: &[u8]) -> Result<(), BadSnapshot> {
        let mut reader = Reader::verifying(ID);
        bytes.chunks(4096).try_for_each(|chunk| reader.push(chunk))?;
        reader.verify()
    }

    #[test]
    fn a_snapshot_is_read_as_it_was_written() {
        let mut machine = machine(9000);
        let (head, bytes) = image(&mut machine);
        assert!(bytes.len() > 2 * PIECE_BYTES, "several pieces");
        for cut in [1000, 4096, bytes.len()] {
            let snapshot = read(&bytes, cut).unwrap();
            assert_eq!(snapshot.head, head);
            assert_eq!(verify(&bytes), Ok(()));
            assert_eq!((snapshot.machine.hash(), snapshot.machine.commands()), (head.hash, 9000));
        }
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_refused() {
        let (_, bytes) = image(&mut machine(20));
        assert!(read(&bytes, 64).is_ok());
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length], 4096).is_err(), "cut to {length}");
            assert!(verify(&bytes[..length]).is_err(), "cut to {length}");
        }
        let mut harmless = Vec::new();
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let is_read = read(&flipped, 4096).is_ok();
            assert_eq!(verify(&flipped).is_ok(), is_read, "byte {}", bit / 8);
            if is_read {
                harmless.push(bit / 8);
            }
        }
        println!("{} truncations, {} flipped bits", bytes.len(), 8 * bytes.len());
        assert!(harmless.iter().all(|at| bytes[*at] == 0), "only padding may change: {harmless:?}");
    }

    #[test]
    fn a_flipped_bit_of_a_piece_that_fills_most_of_the_buffer_is_refused() {
        let (_, bytes) = image(&mut machine(400));
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        for cut in [1000, 4096, bytes.len()] {
            assert_eq!(read(&flipped, cut).unwrap_err(), BadSnapshot::Frame(FrameError::Checksum), "{cut}");
        }
    }

    #[test]
    fn one_of_another_release_is_no_damage_and_a_flipped_bit_of_its_version_is() {
        let (_, bytes) = image(&mut machine(20));
        let (mut older, mut flipped) = (bytes.clone(), bytes);
        crate::log::tests::set_version(&mut older, WIRE_VERSION - 1);
        assert_eq!(
            read(&older, 4096).unwrap_err(),
            BadSnapshot::Frame(FrameError::Version(WIRE_VERSION - 1))
        );
        flipped[4] = WIRE_VERSION - 1;
        assert_eq!(read(&flipped, 4096).unwrap_err(), BadSnapshot::Frame(FrameError::Checksum));
    }

    #[test]
    fn no_other_snapshot_passes_for_it() {
        let (_, bytes) = image(&mut machine(20));
        for id in [
            SnapshotId { barrier: 6, ..ID },
            SnapshotId { cluster: ClusterId(8), ..ID },
            SnapshotId { shard: ShardId(4), ..ID },
        ] {
            let mut reader = Reader::new(id);
            assert!(reader.push(&bytes).is_err(), "{id:?}");
        }
    }

    #[test]
    fn a_restored_one_belongs_to_its_new_cluster() {
        let (head, bytes) = image(&mut machine(20));
        let other = SnapshotId { cluster: ClusterId(9), ..ID };
        let mut copy = Vec::new();
        rebrand(&mut read(&bytes, 4096).unwrap(), other, |bytes| copy.extend_from_slice(bytes));
        assert!(read(&copy, 4096).is_err());
        let mut reader = Reader::new(other);
        reader.push(&copy).unwrap();
        assert_eq!(reader.finish().unwrap().head, head);
    }
}
