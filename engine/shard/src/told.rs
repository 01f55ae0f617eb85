//! Limits how often lines of one kind are logged: neither repetition nor strangers may fill a log.

use std::cell::RefCell;
use std::time::{Duration, Instant};

/// The most lines of one kind that are logged in a period. Further lines are only counted.
const LINES_MAX: u32 = 10;
/// See [`LINES_MAX`].
const PERIOD: Duration = Duration::from_secs(10);

/// The kinds of lines that repeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A connection came from neither a peer nor a client, or was refused.
    Stranger,
    /// A connection could not be accepted.
    Accept,
    /// A link to a peer could not be made.
    NoLink,
    /// A link has ended.
    LinkEnd,
    /// A snapshot was not written.
    Snapshot,
    /// A disk is slow, or has recovered.
    SlowDisk,
    /// A disk is full.
    FullDisk,
    /// A disk hangs, or has stopped hanging.
    HungDisk,
    /// A peer reports that its disk hangs.
    PeerDisk,
    /// A client was refused because all places were taken.
    NoPlace,
    /// An idle client made room for another.
    MadeRoom,
}

impl Kind {
    const COUNT: usize = Kind::MadeRoom as usize + 1;
    const ALL: [Kind; Kind::COUNT] = [
        Kind::Stranger,
        Kind::Accept,
        Kind::NoLink,
        Kind::LinkEnd,
        Kind::Snapshot,
        Kind::SlowDisk,
        Kind::FullDisk,
        Kind::HungDisk,
        Kind::PeerDisk,
        Kind::NoPlace,
        Kind::MadeRoom,
    ];

    /// A lasting condition needs only one line.
    fn lines_max(self) -> u32 {
        if matches!(self, Kind::SlowDisk | Kind::PeerDisk | Kind::NoPlace | Kind::MadeRoom) {
            1
        } else {
            LINES_MAX
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Stranger => "connections for peers that ended",
            Kind::Accept => "connections that could not be accepted",
            Kind::NoLink => "links that could not be opened",
            Kind::LinkEnd => "links that ended",
            Kind::Snapshot => "snapshots that were not written",
            Kind::SlowDisk => "slow writes",
            Kind::FullDisk => "a full disk",
            Kind::HungDisk => "a disk that hangs",
            Kind::PeerDisk => "peers' disks that hang",
            Kind::NoPlace => "clients that were refused",
            Kind::MadeRoom => "idle clients that made room",
        }
    }
}

/// Lines of one kind since the period began.
#[derive(Clone, Copy, Default)]
struct Lines {
    since: Option<Instant>,
    told: u32,
    held_back: u64,
}

/// See the module. Each shard has one.
#[derive(Default)]
pub(crate) struct Told {
    kinds: RefCell<[Lines; Kind::COUNT]>,
}

impl Told {
    /// Whether another line of this kind may be logged. The line is counted in either case.
    pub(crate) fn may(&self, kind: Kind) -> bool {
        self.may_at(Instant::now(), kind)
    }

    fn may_at(&self, now: Instant, kind: Kind) -> bool {
        let lines = &mut self.kinds.borrow_mut()[kind as usize];
        lines.since.get_or_insert(now);
        let may = lines.told < kind.lines_max();
        if may {
            lines.told += 1;
        } else {
            lines.held_back += 1;
        }
        may
    }

    /// Ends the periods that are over, and returns how many lines of each kind were held back in them. The caller
    /// calls again within about a second.
    pub(crate) fn held_back(&self) -> Vec<(&'static str, u64)> {
        self.held_back_at(Instant::now())
    }

    fn held_back_at(&self, now: Instant) -> Vec<(&'static str, u64)> {
        let mut kinds = self.kinds.borrow_mut();
        let over = |lines: &Lines| lines.since.is_some_and(|since| now.duration_since(since) >= PERIOD);
        let ended = Kind::ALL.into_iter().zip(kinds.iter_mut()).filter(|(_, lines)| over(lines));
        let counts = ended.map(|(kind, lines)| (kind.name(), std::mem::take(lines).held_back));
        counts.filter(|(_, held_back)| *held_back > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_by_a_few_lines_and_a_count() {
        let (told, began) = (Told::default(), Instant::now());
        let may = (0..2000).filter(|_| told.may_at(began, Kind::Stranger)).count();
        assert_eq!(may, LINES_MAX as usize);
        assert_eq!(told.held_back_at(began + PERIOD / 2), [], "the period is not over");
        assert_eq!(told.held_back_at(began + PERIOD), [(Kind::Stranger.name(), 1990)]);
        assert_eq!(told.held_back_at(began + 2 * PERIOD), [], "each is counted once");
        assert!(told.may_at(began + PERIOD, Kind::Stranger), "and another period begins");
    }

    #[test]
    fn kinds_do_not_hold_each_other_back() {
        let (told, began) = (Told::default(), Instant::now());
        (0..100).for_each(|_| _ = told.may_at(began, Kind::Stranger));
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Stranger) {
            assert!(told.may_at(began, kind), "{kind:?}");
        }
        assert!(!told.may_at(began, Kind::SlowDisk), "what lasts is told once");
    }

    #[test]
    fn all_kinds_are_listed_in_their_order() {
        assert!(Kind::ALL.iter().enumerate().all(|(place, kind)| *kind as usize == place));
    }
}
