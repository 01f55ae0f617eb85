//! Room or open files that the next segment may be lacking. The log waits until they are there.

use crate::told::Kind;
use crate::waiting::{Reminder, Trouble, is_lack_of_room};
use isonomy_tuning::files;
use std::io::Error;
use std::time::Duration;

use super::Disk;
use crate::log::recover::{SEGMENT_BYTES, segment_path};

/// A lack that can pass by itself, and before which nothing was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lack {
    Room,
    Files,
}

impl Lack {
    pub(crate) fn of(error: &Error) -> Option<Lack> {
        if is_lack_of_room(error.kind()) {
            return Some(Lack::Room);
        }
        files::are_lacking(error).then_some(Lack::Files)
    }
}

impl Disk {
    pub(crate) fn lacks_nothing(&self) {
        self.lack.set(None);
        self.lack_told.replace(None);
    }

    /// Logs what is lacking, again and again until it is there.
    pub(crate) fn tell_lack(&self, lack: Lack, segment: u64, error: Error) {
        self.lack.set(Some(lack));
        let is_due =
            self.lack_told.borrow_mut().get_or_insert_with(|| Reminder::new(Duration::ZERO)).is_due();
        if !is_due || !self.told.may(Kind::FullDisk) {
            return;
        }
        let shard = self.id.shard.0;
        match (lack, Trouble::of_file(&segment_path(&self.dir, segment), error)) {
            (Lack::Room, Ok(trouble)) => log::warn!(
                "shard {shard}: the disk is full. The log needs a segment of {SEGMENT_BYTES} bytes, and \
                 clients are refused until the disk has room: {trouble}"
            ),
            (_, Err(error)) => log::warn!(
                "shard {shard}: the next segment of the log cannot be opened ({error}), and decisions wait for \
                 this segment; {}",
                files::REMEDY
            ),
            (Lack::Files, Ok(_)) => unreachable!("a lack of files is not one of room"),
        }
    }
}
