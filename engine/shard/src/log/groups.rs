//! The memory side of a shard's log: records gather in groups, which are written one after the other.
//! It takes the time as an argument and knows nothing of files.

use glommio::io::DmaBuffer;
use isonomy_protocol::contract::{Append, Position, Time};
use isonomy_protocol::log::group::{GROUP_HEAD_BYTES, Group, GroupEncoder, group_bytes};
use isonomy_protocol::log::record::Record;
use isonomy_protocol::log::{BLOCK_BYTES, LogId};
use std::collections::VecDeque;

use crate::log::recover::SEGMENT_BYTES;

/// A group is closed when it has so many bytes, if more records come while another is written.
pub(crate) const GROUP_BYTES_MAX: usize = 512 << 10;
/// Bytes of closed groups that may wait for the disk before peers have to wait, too.
const LOG_BACKLOG_BYTES_MAX: usize = 32 << 20;
/// How long a group gathers for which no message or reply waits, until the shard's next tick after that.
const GATHER_AT_MOST_US: u64 = 2_000;
/// The time without writes after which a log is idle.
const MARK_AFTER_US: u64 = 50_000;

/// The largest record fits a fresh segment.
const _: () = assert!(SEGMENT_BYTES >= 4 * isonomy_wire::command::BATCH_BYTES_MAX);

/// The place of the log's next bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail {
    pub(crate) segment: u64,
    pub(crate) offset: usize,
    pub(crate) next: Position,
}

/// A group that gathers records, or waits for its write.
struct Gathering {
    since: Time,
    buffer: DmaBuffer,
    group: Group,
    segment: u64,
    offset: usize,
}

/// The groups of a log; see the module.
pub(crate) struct Log {
    id: LogId,
    encoder: GroupEncoder,
    tail: Tail,
    gathering: Option<Gathering>,
    full: VecDeque<Gathering>,
    /// The bytes of these groups.
    waiting: usize,
    pub(crate) durable: Position,
    /// The position that the last group marks as durable.
    marked: Position,
    written_at: Time,
    /// The bytes written since the start.
    pub(crate) bytes: u64,
    pub(crate) groups: u64,
}

/// One write of the log.
pub(crate) struct Write {
    pub(crate) buffer: DmaBuffer,
    pub(crate) segment: u64,
    pub(crate) offset: usize,
    pub(crate) first: Position,
    pub(crate) last: Position,
}

impl Log {
    pub(crate) fn new(id: LogId, tail: Tail) -> Log {
        let durable = Position(tail.next.0 - 1);
        Log {
            id,
            encoder: GroupEncoder::new(id),
            tail,
            gathering: None,
            full: VecDeque::new(),
            waiting: 0,
            durable,
            marked: durable,
            written_at: Time::default(),
            bytes: 0,
            groups: 0,
        }
    }

    /// Adds a record to the group that gathers. The core bounds how much can gather, since it limits the instances
    /// whose records are not durable.
    pub(crate) fn append(&mut self, now: Time, append: &Append) {
        if begins_segment(append)
            && let Some(gathering) = self.gathering.take()
        {
            self.close_group(gathering);
        }
        loop {
            let mut gathering = self.gathering.take().unwrap_or_else(|| {
                self.open_group(now, group_bytes(append.payload.as_ref()), begins_segment(append))
            });
            let Gathering { buffer, group, segment, offset, .. } = &mut gathering;
            let place = self.id.place(*segment).wrapping_add(*offset as u64);
            if self.encoder.append(group, buffer.as_bytes_mut(), place, append) {
                self.tail.next.0 += 1;
                self.gathering = Some(gathering);
                return;
            }
            self.close_group(gathering);
        }
    }

    /// Opens a group where the last one ended, or in the next segment if the needed bytes do not fit or must begin a
    /// segment.
    fn open_group(&mut self, now: Time, needed: usize, begins: bool) -> Gathering {
        if self.tail.offset + needed > SEGMENT_BYTES || begins {
            (self.tail.segment, self.tail.offset) = (self.tail.segment + 1, BLOCK_BYTES);
        }
        let Tail { segment, offset, next } = self.tail;
        let size = GROUP_BYTES_MAX.max(needed).min(SEGMENT_BYTES - offset);
        let buffer = glommio::allocate_dma_buffer(size);
        Gathering { since: now, buffer, group: Group::new(next), segment, offset }
    }

    fn close_group(&mut self, gathering: Gathering) {
        let size = gathering.group.padded_bytes();
        self.tail.offset = gathering.offset + size;
        self.waiting += size;
        self.full.push_back(gathering);
    }

    /// D6: writes the durable position of an idle log once more, in a group without records, so that nothing but a
    /// group in flight ever looks torn.
    pub(crate) fn mark_if_idle(&mut self, now: Time) {
        let idle = !self.has_work() && self.durable.0 + 1 == self.tail.next.0;
        if idle && self.marked < self.durable && now.since(self.written_at) >= MARK_AFTER_US {
            let group = self.open_group(now, GROUP_HEAD_BYTES, false);
            self.close_group(group);
        }
    }

    /// The bytes of the groups that wait for the disk.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.waiting as u64
    }

    /// Whether so much waits for the disk that peers must wait as well.
    pub(crate) fn is_behind(&self) -> bool {
        self.waiting > LOG_BACKLOG_BYTES_MAX
    }

    /// Whether the gathering group must be written even if no message or reply waits for it.
    pub(crate) fn is_due(&self, now: Time) -> bool {
        let gathers = |gathering: &Gathering| now.since(gathering.since) >= GATHER_AT_MOST_US;
        !self.full.is_empty() || self.gathering.as_ref().is_some_and(gathers)
    }

    pub(crate) fn has_work(&self) -> bool {
        self.gathering.is_some() || !self.full.is_empty()
    }

    /// The next group to write, which is the one that gathers if no other is left.
    pub(crate) fn take(&mut self, now: Time) -> Option<Write> {
        if self.full.is_empty()
            && let Some(gathering) = self.gathering.take()
        {
            self.close_group(gathering);
        }
        let Gathering { mut buffer, group, segment, offset, .. } = self.full.pop_front()?;
        let place = self.id.place(segment).wrapping_add(offset as u64);
        let size = self.encoder.finish(&group, buffer.as_bytes_mut(), place, self.durable);
        buffer.trim_to_size(size);
        self.waiting -= size;
        (self.marked, self.written_at) = (self.durable, now);
        let last = group.last();
        let first = Position(last.0 + 1 - u64::from(group.records()));
        self.bytes += size as u64;
        self.groups += 1;
        Some(Write { buffer, segment, offset, first, last })
    }
}

/// G1: whether a record begins a segment. The records before it can be cut, and only whole segments are.
fn begins_segment(append: &Append) -> bool {
    matches!(append.record, Record::Begin { .. })
}

#[cfg(test)]
mod tests;
