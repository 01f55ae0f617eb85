//! The snapshot of a peer on its way (G5), as the replica process moves it: piece by piece, each read as it comes.

use isonomy_protocol::snapshot::{Broken, Reader, Snapshot, SnapshotId};

/// See the module.
pub struct Transfer {
    /// Who gives it.
    pub source: u8,
    /// The barrier of the snapshot.
    pub barrier: u64,
    /// When the last piece came.
    pub heard_at: u64,
    /// A piece did not come, and the transfer went on from there.
    pub is_broken: bool,
    /// All bytes of the file, which the first piece says.
    total: Option<usize>,
    file: Vec<u8>,
    reader: Reader,
}

/// Bytes of a snapshot's file.
pub struct Piece {
    /// The bytes of all of it.
    pub total: usize,
    /// Those that were asked for.
    pub bytes: Vec<u8>,
}

/// A file that has come whole.
pub struct Whole {
    /// What it says.
    pub snapshot: Snapshot,
    /// As it is kept.
    pub file: Vec<u8>,
}

impl Transfer {
    /// Nothing has come.
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

    /// Where the next piece begins.
    pub fn from(&self) -> usize {
        self.file.len()
    }

    /// The next piece has come; whether it was the last. The error is damage.
    pub fn take(&mut self, now: u64, piece: &Piece) -> Result<bool, Broken> {
        let total = *self.total.get_or_insert(piece.total);
        assert_eq!(piece.total, total, "G5: the snapshot of one barrier has one length");
        self.reader.push(&piece.bytes)?;
        self.file.extend_from_slice(&piece.bytes);
        self.heard_at = now;
        Ok(self.file.len() == total)
    }

    /// All pieces have come.
    pub fn finish(self) -> Result<Whole, Broken> {
        Ok(Whole { snapshot: self.reader.finish()?, file: self.file })
    }
}
