//! Judges whether segments are the whole log (law, D6): a replica must not read back less than it may have promised.
//! All functions are pure, so that a simulated disk is judged like a real one.
//!
//! A crash during any of these steps leaves a legal log:
//!
//! - *Segments are made* one after the other under another name, and each is whole when it gets its own name. After a
//!   crash, some segments at the end are missing.
//! - *A segment begins* with its head, and its first group follows. A crash leaves a head without groups, or with a
//!   torn group.
//! - *The log is cut* by taking away the names of its oldest segments, in order, once the floor is durable. The rest
//!   may begin before the record [`Record::Begin`] for which the log was cut, and records before that one are left
//!   out.
//! - *A snapshot is taken*: its file counts once `Begin` is durable, and nothing is cut before.
//! - *A peer's snapshot is installed*: its file counts first. Until `Begin` is durable, the log is older than the
//!   snapshot and is not cut for it; instances that the snapshot covers are left out (G5). The file counts only once
//!   the log has begun.
//! - *The reach of the log* is noted when the log is durable so far, and before anything rests on the log's first
//!   record or on a snapshot. The log may hold more records than the note says.

use crate::contract::Position;
use crate::log::SegmentHead;
use crate::log::record::Record;
use crate::log::scan::Remains;
use crate::mutant::{self, Mutant};

/// Facts about a log that are known from elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// The position of a record that the log is noted to have held once; 0 if no record was noted.
    pub reached: Position,
    /// Whether the log began with a restored snapshot.
    pub restored: bool,
    /// The barrier of the newest snapshot; 0 if there is none.
    pub snapshot: u64,
}

/// Why segments are not all of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts are the documentation.
pub enum Hole {
    #[error("segment {0} of the log is missing before it")]
    Segment(u64),
    #[error("its first block is empty, but a group of its records lies at byte {0}")]
    Head(usize),
    #[error("the log begins with it, but it is empty")]
    Beginning,
    #[error("it begins with record {found}, but the log ends with record {last} before it")]
    Records { found: u64, last: u64 },
    #[error("the log begins with segment {0}, and its snapshot is missing")]
    Snapshot(u64),
    #[error(
        "what is left of the log needs the snapshot of barrier {needed}, but the newest is that of {found}"
    )]
    OldSnapshot { needed: u64, found: u64 },
    #[error("the log was cut, and what it was cut for is missing")]
    Cut,
    #[error("the snapshot that it was restored with is missing")]
    Restored,
    #[error("the snapshot of barrier {0} is here, but not the log")]
    Log(u64),
    #[error("the log ends with record {last}, but it held record {reached} once")]
    End { last: u64, reached: u64 },
}

/// The beginning of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// A head.
    Head(SegmentHead),
    /// An empty block, and the remains behind it.
    Empty(Remains),
}

/// The use of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentUse {
    /// The segment waits for its use.
    Prepared,
    /// The segment is in use. Its first record, if it has any, has this position.
    Begun(Position),
}

/// Follows a log while it is read, segment by segment.
#[derive(Debug)]
pub struct Chain {
    known: Known,
    /// The numbers of the first segment and of the next.
    segments: Option<(u64, u64)>,
    next: Position,
    prepared: bool,
    /// The highest position that is known to have been durable, from elsewhere and from prepared segments.
    reached: Position,
    /// Whether records are left out, because they come before the record for which the log was cut.
    skips: bool,
    hole: Option<Hole>,
}

impl Chain {
    /// A chain for a log of which this is known. A missing snapshot of a restored log is reported before any record
    /// is handed over.
    pub fn new(known: Known) -> Result<Chain, Hole> {
        if known.restored && known.snapshot == 0 {
            return Err(Hole::Restored);
        }
        Ok(Chain {
            known,
            segments: None,
            next: Position(1),
            prepared: false,
            reached: known.reached,
            skips: false,
            hole: None,
        })
    }

    /// Enters the next segment, in the order of the numbers. Returns the use of the segment.
    pub fn enter(&mut self, segment: u64, start: Start) -> Result<SegmentUse, Hole> {
        let (first, expected) = self.segments.unwrap_or((segment, segment.max(1)));
        if segment != expected {
            return Err(Hole::Segment(expected));
        }
        let is_cut_here = self.segments.is_none() && first > 1;
        if is_cut_here && self.known.snapshot == 0 {
            return Err(Hole::Snapshot(first));
        }
        self.segments = Some((first, segment + 1));
        let head = match start {
            Start::Head(head) => head,
            Start::Empty(remains) => return self.prepare(remains, is_cut_here),
        };
        // The first segment of a log that was cut says where the log begins.
        if self.prepared || (head.first != self.next.0 && !is_cut_here) {
            return Err(Hole::Records { found: head.first, last: self.next.0 - 1 });
        }
        self.skips |= is_cut_here;
        self.next = Position(head.first);
        Ok(SegmentUse::Begun(self.next))
    }

    fn prepare(&mut self, remains: Remains, is_cut_here: bool) -> Result<SegmentUse, Hole> {
        self.prepared = true;
        if mutant::is(Mutant::HoleIsEnd) {
            return Ok(SegmentUse::Prepared);
        }
        self.reached = self.reached.max(remains.durable);
        match remains.group {
            Some(at) => Err(Hole::Head(at)),
            None if is_cut_here => Err(Hole::Beginning),
            None => Ok(SegmentUse::Prepared),
        }
    }

    /// Whether the next record of the segment counts. No record before the `Begin` for which the log was cut counts:
    /// that `Begin` and the records behind it stand for all records before (G1), together with the snapshot. If a crash
    /// has left an earlier `Begin` unfinished, and has left its segment here, the records behind that one are read first.
    pub fn takes(&mut self, record: &Record) -> bool {
        if self.skips
            && let Record::Begin { barrier, .. } = *record
        {
            let found = self.known.snapshot;
            self.skips = barrier > found;
            if self.skips {
                self.hole.get_or_insert(Hole::OldSnapshot { needed: barrier, found });
            }
        }
        !self.skips && self.hole.is_none()
    }

    /// The segment has been read, and `next` is the position behind its last record.
    pub fn leave(&mut self, next: Position) -> Result<(), Hole> {
        self.next = next;
        self.hole.map_or(Ok(()), Err)
    }

    /// There are no more segments.
    pub fn finish(self) -> Result<(), Hole> {
        let Known { restored, snapshot, .. } = self.known;
        let last = self.next.0 - 1;
        if mutant::is(Mutant::HoleIsEnd) {
            Ok(())
        } else if self.skips {
            Err(Hole::Cut)
        } else if last < self.reached.0 {
            Err(Hole::End { last, reached: self.reached.0 })
        } else if last == 0 && snapshot > 0 && !restored {
            Err(Hole::Log(snapshot))
        } else {
            Ok(())
        }
    }
}
