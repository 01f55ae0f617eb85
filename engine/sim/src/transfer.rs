//! The snapshot of a peer on its way (G5), as the replica process moves it: piece by piece, each read as it comes.

use isonomy_protocol::snapshot::{BadSnapshot, Reader, Snapshot, SnapshotId};

/// The snapshot of a peer on its way.
pub struct Transfer {
    /// The replica that gives the snapshot.
    pub source: u8,
    /// The barrier of the snapshot.
    pub barrier: u64,
    /// When the last piece came.
    pub heard_at: u64,
    /// Whether a piece did not come, and the transfer went on from there.
    pub is_broken: bool,
    /// The size of the file, which the first piece says.
    total: Option<usize>,
    file: Vec<u8>,
    reader: Reader,
}

/// Bytes of a snapshot's file.
pub struct Piece {
    /// The size of the whole file in bytes.
    pub total: usize,
    /// The bytes that were asked for.
    pub bytes: Vec<u8>,
}

/// A file that has come whole.
pub struct Whole {
    /// The content of the file.
    pub snapshot: Snapshot,
    /// The bytes of the file, as it is kept.
    pub file: Vec<u8>,
}

impl Transfer {
    /// A transfer of which nothing has come.
    pub fn begin(now: u64, source: u8, id: SnapshotId) -> Transfer {
        Transfer {
            source,
            barrier: id.barrier,
            heard_at: now,
            is_broken: false,
            total: None,
            file: Vec::new(),
            reader: Reader::new(id),
        }
    }

    /// The offset of the next piece.
    pub fn from(&self) -> usize {
        self.file.len()
    }

    /// Takes the next piece. Returns whether it was the last. The error is damage.
    pub fn take(&mut self, now: u64, piece: &Piece) -> Result<bool, BadSnapshot> {
        let total = *self.total.get_or_insert(piece.total);
        assert_eq!(piece.total, total, "G5: the snapshot of one barrier has one length");
        self.reader.push(&piece.bytes)?;
        self.file.extend_from_slice(&piece.bytes);
        self.heard_at = now;
        Ok(self.file.len() == total)
    }

    /// All pieces have come.
    pub fn finish(self) -> Result<Whole, BadSnapshot> {
        Ok(Whole { snapshot: self.reader.finish()?, file: self.file })
    }
}
