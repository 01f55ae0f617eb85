//! Whether the segments of a log are all of it (law, D6): what is read back must not be less than what
//! the replica may have promised. Pure, so that a simulated disk is judged as a real one is.
//!
//! What a crash leaves is legal at every point:
//!
//! - *Segments are made* one after the other under another name, and are whole when they get theirs: some
//!   of those at the end are missing.
//! - *A segment begins* with its head and then its first group: a head without groups, or with a torn one.
//! - *The log is cut* by taking the names of its oldest segments, in order, once the floor is durable: what
//!   is left may begin before the record [`Record::Begin`] for which it was cut. All before it is left out.
//! - *A snapshot is taken*: its file counts after `Begin` is durable, and nothing is cut before.
//! - *A peer's snapshot is installed*: its file counts first. Until `Begin` is durable the log is older than
//!   the snapshot, and not cut for it; what the snapshot covers is left out (G5). Its file counts only once
//!   the log has begun.
//! - *What the log has reached* is noted after that is durable, and before anything rests on the log's first
//!   record or on a snapshot: the log may hold more.

use crate::contract::Position;
use crate::log::SegmentHead;
use crate::log::record::Record;
use crate::log::scan::Remains;
use crate::mutant::{self, Mutant};

/// What is known of a log from elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// It held this record once; 0 if nobody has noted that it ever held one.
    pub reached: Position,
    /// It began with a snapshot that was restored.
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

/// What a segment begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// A head.
    Head(SegmentHead),
    /// An empty block, and this lies behind it.
    Empty(Remains),
}

/// What a segment is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// It waits for its use.
    Prepared,
    /// Its first record has this position, if it has any.
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
    /// What segments that are prepared say was durable.
    reached: Position,
    /// Whether records are not handed over yet: those before the one for which the log was cut.
    skips: bool,
    hole: Option<Hole>,
}

impl Chain {
    /// Of a log of which this is known. What is missing from its snapshots is told before any record is
    /// handed over.
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

    /// The next segment, by number.
    pub fn enter(&mut self, segment: u64, start: Start) -> Result<Use, Hole> {
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
        // Where a log begins that was cut, its first segment says.
        if self.prepared || (head.first != self.next.0 && !is_cut_here) {
            return Err(Hole::Records { found: head.first, last: self.next.0 - 1 });
        }
        self.skips |= is_cut_here;
        self.next = Position(head.first);
        Ok(Use::Begun(self.next))
    }

    fn prepare(&mut self, remains: Remains, is_cut_here: bool) -> Result<Use, Hole> {
        self.prepared = true;
        if mutant::is(Mutant::HoleIsEnd) {
            return Ok(Use::Prepared);
        }
        self.reached = self.reached.max(remains.durable);
        match remains.group {
            Some(at) => Err(Hole::Head(at)),
            None if is_cut_here => Err(Hole::Beginning),
            None => Ok(Use::Prepared),
        }
    }

    /// Whether the next record of the segment says something. Before the one for which the log was cut
    /// none does: that one and those behind it stand for all before (G1), with its snapshot.
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

    /// The segment has been read; the position that follows its last record.
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
