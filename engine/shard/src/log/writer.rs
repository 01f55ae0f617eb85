//! The writer of the log: one write at a time, and the next group gathers meanwhile.

use isonomy_protocol::contract::{Position, Time};
use std::cell::{Cell, RefCell, RefMut};

use super::disk::Disk;
use super::groups::{Log, Write};
use crate::signal::Signal;

/// The groups in memory and the disk below them.
pub(crate) struct Writer {
    log: RefCell<Log>,
    pub(crate) disk: Disk,
    /// Notified when there is something to write.
    wanted: Signal,
    /// Notified when a group was written.
    pub(crate) written: Signal,
    /// The bytes that the log held when the process started.
    bytes_before: u64,
    /// Whether no further write is to begin.
    is_over: Cell<bool>,
}

impl Writer {
    pub(crate) fn new(log: Log, disk: Disk, bytes_before: u64) -> Writer {
        let (log, wanted, written) = (RefCell::new(log), Signal::default(), Signal::default());
        Writer { log, disk, wanted, written, bytes_before, is_over: Cell::new(false) }
    }

    /// The groups, for the records of a turn.
    pub(crate) fn log(&self) -> RefMut<'_, Log> {
        self.log.borrow_mut()
    }

    /// Lets the groups be written, because messages or replies wait for them.
    pub(crate) fn want(&self) {
        if self.log.borrow().has_work() {
            self.wanted.notify();
        }
    }

    /// The time has come to look at the groups: an idle log marks its end (D6), and a group that has gathered for long
    /// enough is written.
    pub(crate) fn on_tick(&self, now: Time) {
        let log = &mut *self.log.borrow_mut();
        log.mark_if_idle(now);
        if log.is_due(now) {
            self.wanted.notify();
        }
    }

    /// No further write begins.
    pub(crate) fn end(&self) {
        self.is_over.set(true);
        self.wanted.notify();
    }

    /// Waits for the next write; none comes after the end. A group is written when something waits for it or when it
    /// has gathered for long enough.
    pub(crate) async fn next(&self, now: impl Fn() -> Time, is_awaited: impl Fn() -> bool) -> Option<Write> {
        while !self.is_over.get() {
            let now = now();
            let is_due = is_awaited() || self.log.borrow().is_due(now);
            let write = if is_due { self.log.borrow_mut().take(now) } else { None };
            match write {
                Some(write) => return Some(write),
                None => self.wanted.wait().await,
            }
        }
        None
    }

    /// Writes a group. Returns the position that is durable then.
    pub(crate) async fn write(&self, write: Write) -> Position {
        let durable = self.disk.write(write).await;
        self.log.borrow_mut().durable = durable;
        durable
    }

    /// The position that is durable.
    pub(crate) fn durable(&self) -> Position {
        self.log.borrow().durable
    }

    /// Whether so much waits for the disk that peers must wait as well.
    pub(crate) fn is_behind(&self) -> bool {
        self.log.borrow().is_behind()
    }

    /// The bytes that wait for the disk.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.log.borrow().waiting_bytes()
    }

    /// The bytes that all groups so far take, with those of earlier processes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes_before + self.log.borrow().bytes
    }

    /// The bytes and the groups that were written since the start.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let log = self.log.borrow();
        (log.bytes, log.groups)
    }
}
