//! The sequence numbers of the own row, which are reserved in blocks before they are used (C1, D5), and the blocks of
//! restarted replicas that still matter (D8).

use crate::contract::Position;
use crate::log::record::Record;
use crate::outbox::Outbox;
use isonomy_wire::deps::{Deps, Floor};
use isonomy_wire::id::ReplicaId;

/// A block of numbers up to `end`, which may be used once the record at the position is durable.
#[derive(Clone, Copy, Debug, Default)]
struct Reservation {
    end: u64,
    position: Position,
}

/// The sequence numbers of the own row, and the restart marks of all replicas.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    me: ReplicaId,
    /// The size of a block.
    block: u64,
    /// The last number used.
    used: u64,
    /// The number of the last own instance that an instance of another row is known to come after.
    named: u64,
    reserved: Reservation,
    /// The block before the reserved one.
    before: Reservation,
    /// The end of the block that a replica had reserved before its restart, by replica.
    restart_marks: Deps,
}

impl Numbers {
    /// Numbers of which none is used or reserved. A learner has no row, so it reserves blocks of no numbers.
    pub(crate) fn new(me: ReplicaId, block: u64) -> Numbers {
        let (reserved, before) = (Reservation::default(), Reservation::default());
        Numbers { me, block, used: 0, named: 0, reserved, before, restart_marks: Deps::NONE }
    }

    /// Replays the record that a block was reserved.
    pub(crate) fn replay_block(&mut self, end: u64) {
        self.reserved.end = end;
        self.mark(end);
    }

    /// Notes the own restart mark, unless there is no own row.
    fn mark(&mut self, end: u64) {
        if self.block > 0 {
            self.restart_marks.set(self.me, end);
        }
    }

    /// Replays the record that the replica stopped in good order. The log then has everything that was sent, so D8
    /// has nothing to guard.
    pub(crate) fn replay_stop(&mut self, used: u64) {
        self.reserved.end = used;
        self.mark(0);
    }

    /// D5: goes on with numbers above the reserved block. Returns the last number of the block, if some of its
    /// numbers may be unused and are not below the floor.
    pub(crate) fn start(&mut self, forgotten: u64) -> Option<u64> {
        self.reserved.end = self.reserved.end.max(forgotten);
        self.used = self.reserved.end;
        Some(self.used).filter(|last| *last > forgotten)
    }

    /// C1: reserves the next block when few numbers are left.
    pub(crate) fn reserve(&mut self, outbox: &mut Outbox) {
        if self.reserved.end - self.used < self.block / 2 {
            let end = self.used + self.block;
            let position = outbox.append(Record::Reserve { end }, None);
            self.before = std::mem::replace(&mut self.reserved, Reservation { end, position });
        }
    }

    /// The next number.
    pub(crate) fn take(&mut self) -> u64 {
        self.used += 1;
        assert!(self.used <= self.reserved.end, "D5: a number is used only when its block is reserved");
        self.used
    }

    /// The position of the record on which the use of a number rests. A number of the block before does not wait for
    /// the record of a fresh block.
    pub(crate) fn block_of(&self, seq: u64) -> Position {
        if seq <= self.before.end { self.before.position } else { self.reserved.position }
    }

    /// Ends the use of numbers. Returns the record that says so.
    pub(crate) fn stop(&mut self) -> Record {
        // A later cut carries this true end over, too (D5).
        self.reserved.end = self.used;
        Record::Stopped { used: self.used }
    }

    /// The last number used.
    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// The end of the reserved block.
    pub(crate) fn reserved(&self) -> u64 {
        self.reserved.end
    }

    /// How many own instances wait for their execution (W of section 6), if the own row has executed up to
    /// `executed`.
    pub(crate) fn unexecuted(&self, executed: u64) -> u64 {
        self.used - executed.min(self.used)
    }

    /// D8: the restart mark of a replica.
    pub(crate) fn restart_mark(&self, of: ReplicaId) -> u64 {
        self.restart_marks.of(of)
    }

    /// D8: takes the restart mark that a peer has sent.
    pub(crate) fn on_restart_mark(&mut self, of: ReplicaId, mark: u64) {
        self.restart_marks.set(of, mark);
    }

    /// D8: the restart marks that still matter, because their instances are not below the floor yet.
    pub(crate) fn open_restart_marks(&self, floor: &Floor) -> Deps {
        let mut open = self.restart_marks;
        for (mark, floor) in open.0.iter_mut().zip(&floor.0) {
            if *mark <= *floor {
                *mark = 0;
            }
        }
        open
    }

    /// C6: notes that an instance of another row comes after these, so a replica may wait for their Commits.
    pub(crate) fn name(&mut self, deps: &Deps) {
        self.named = self.named.max(deps.of(self.me));
    }

    /// C6: whether an instance of another row is known to come after the own one of this number.
    pub(crate) fn is_named(&self, seq: u64) -> bool {
        seq <= self.named
    }

    /// Verifies what must hold between any two inputs.
    pub(crate) fn check(&self) {
        assert!(self.used <= self.reserved.end, "D5: {} of {} are used", self.used, self.reserved.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: ReplicaId = ReplicaId(1);

    #[test]
    fn d5_numbers_go_on_above_the_block_that_was_reserved() {
        let (mut numbers, mut outbox) = (Numbers::new(ME, 8), Outbox::default());
        numbers.reserve(&mut outbox);
        assert_eq!((numbers.take(), numbers.take(), numbers.reserved()), (1, 2, 8));
        let mut again = Numbers::new(ME, 8);
        again.replay_block(8);
        assert_eq!(again.start(0), Some(8), "what was not used becomes Nops");
        assert_eq!(again.restart_mark(ME), 8);
        again.reserve(&mut outbox);
        assert_eq!(again.take(), 9);
    }

    #[test]
    fn d5_a_block_that_is_below_the_floor_leaves_nothing_behind() {
        let mut numbers = Numbers::new(ME, 8);
        numbers.replay_block(8);
        assert_eq!(numbers.start(11), None);
        assert_eq!(numbers.used(), 11);
    }

    #[test]
    fn d8_who_stopped_in_good_order_has_no_mark_and_leaves_no_number_out() {
        let (mut numbers, mut outbox) = (Numbers::new(ME, 8), Outbox::default());
        numbers.reserve(&mut outbox);
        numbers.take();
        assert_eq!(numbers.stop(), Record::Stopped { used: 1 });
        let mut again = Numbers::new(ME, 8);
        again.replay_block(8);
        again.replay_stop(1);
        assert_eq!((again.start(0), again.restart_mark(ME)), (Some(1), 0));
    }

    #[test]
    fn c1_a_number_rests_on_its_own_block() {
        let (mut numbers, mut outbox) = (Numbers::new(ME, 4), Outbox::default());
        numbers.reserve(&mut outbox);
        (0..3).for_each(|_| _ = numbers.take());
        numbers.reserve(&mut outbox);
        assert_eq!(numbers.reserved(), 7);
        assert_eq!((numbers.block_of(4), numbers.block_of(5)), (Position(1), Position(2)));
        numbers.check();
    }
}
