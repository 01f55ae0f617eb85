//! G5: the choice of another peer when a snapshot could not be fetched, and the time for which a source waits for a
//! peer that fetches its own.

use crate::contract::Time;
use crate::limits::{HOLD_RESTARTS_MAX, HOLD_US, RETRY_DOUBLINGS_MAX, RETRY_US, VERIFY_AGAIN_US};
use crate::mutant::{self, Mutant};
use isonomy_wire::id::{PLACES_MAX, ReplicaId};

/// A peer asks for a part of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fetch {
    /// The barrier of the snapshot.
    pub barrier: u64,
    /// The peer asks for the bytes from this one on.
    pub from: u64,
}

/// Why the snapshot of a peer was not installed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FetchFailure {
    /// The bytes that came are not those of the snapshot.
    Damaged,
    /// The source does not have the snapshot any more, is silent, or sends messages that make no sense.
    Source,
    /// This replica could not keep the snapshot, for lack of room or because its disk failed.
    Own,
}

/// A wait that doubles with each failure.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pause {
    failures: u32,
    until: Time,
}

impl Pause {
    pub(crate) fn on_failure(&mut self, now: Time) {
        self.until = now.after(RETRY_US << self.failures.min(RETRY_DOUBLINGS_MAX));
        self.failures = self.failures.saturating_add(1);
    }

    pub(crate) fn is_over(&self, now: Time) -> bool {
        now >= self.until
    }
}

/// The choice of the peer whose snapshot is fetched.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    /// The chosen peer, and the barrier of its snapshot at that time.
    chosen: Option<(ReplicaId, u64)>,
    /// The barrier whose snapshot could not be fetched, by peer, and the pause; a newer snapshot needs no pause.
    failed: Vec<(u64, Pause)>,
    /// The pause after this replica could not keep a snapshot of any peer.
    own: Pause,
}

impl Sources {
    pub(crate) fn new() -> Sources {
        Sources { chosen: None, failed: vec![(0, Pause::default()); PLACES_MAX], own: Pause::default() }
    }

    pub(crate) fn chosen(&self) -> Option<ReplicaId> {
        self.chosen.map(|(source, _)| source)
    }

    /// Chooses one of the peers that offer the snapshot of a barrier, unless one is chosen already, since a transfer
    /// does not begin anew because another peer would do as well. The peer with the fewest failures comes first, then
    /// the one with the newest snapshot.
    pub(crate) fn choose(&mut self, now: Time, offers: impl Iterator<Item = (ReplicaId, u64)>) {
        if self.chosen.is_some() || !self.own.is_over(now) {
            return;
        }
        let pause = |(source, barrier): (ReplicaId, u64)| {
            let (failed, pause) = self.failed[source.index()];
            if failed == barrier { pause } else { Pause::default() }
        };
        self.chosen = offers
            .filter(|offer| pause(*offer).is_over(now))
            .min_by_key(|offer| (pause(*offer).failures, std::cmp::Reverse(offer.1)));
    }

    /// The snapshot of this barrier could not be fetched from this source.
    pub(crate) fn on_failure(&mut self, now: Time, source: ReplicaId, barrier: u64, why: FetchFailure) {
        self.chosen = None;
        if why == FetchFailure::Own {
            return self.own.on_failure(now);
        }
        let failed = &mut self.failed[source.index()];
        if failed.0 != barrier {
            *failed = (barrier, Pause::default());
        }
        failed.1.on_failure(now);
    }

    /// `barriers` barriers have executed, so a snapshot that was chosen before may not be needed any more.
    pub(crate) fn on_barrier(&mut self, barriers: u64) {
        self.chosen.take_if(|(_, barrier)| *barrier <= barriers);
    }

    /// A snapshot was installed.
    pub(crate) fn on_installed(&mut self) {
        *self = Sources::new();
    }
}

/// The progress of a peer that fetches the snapshot of a barrier.
#[derive(Clone, Copy, Debug, Default)]
struct Fetched {
    barrier: u64,
    from: u64,
    restarts: u32,
    held_until: Time,
}

/// The peers that fetch the newest snapshot, so that no other is taken meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Holds(Vec<Fetched>);

impl Holds {
    pub(crate) fn new() -> Holds {
        Holds(vec![Fetched::default(); PLACES_MAX])
    }

    /// A peer asks for bytes. The source waits for it only if it has not asked for these bytes before, or begins again,
    /// which counts only a few times.
    pub(crate) fn on_fetch(&mut self, now: Time, peer: ReplicaId, Fetch { barrier, from }: Fetch) {
        let fetched = &mut self.0[peer.index()];
        let is_begun = fetched.barrier == barrier && !mutant::is(Mutant::EndlessHold);
        if !is_begun {
            *fetched = Fetched { barrier, from, restarts: 0, held_until: now.after(HOLD_US) };
        } else if from > fetched.from {
            (fetched.from, fetched.held_until) = (from, now.after(HOLD_US));
        } else if from == 0 && fetched.restarts < HOLD_RESTARTS_MAX {
            fetched.restarts += 1;
            (fetched.from, fetched.held_until) = (0, now.after(HOLD_US));
        }
    }

    /// Whether the source waits for a peer that fetches this snapshot.
    pub(crate) fn holds(&self, now: Time, barrier: u64) -> bool {
        self.0.iter().any(|fetched| fetched.barrier == barrier && now < fetched.held_until)
    }
}

/// The state of the file of the replica's own newest snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OwnFile {
    is_doubted: bool,
    is_damaged: bool,
    /// When the file was verified last.
    verified_at: Option<Time>,
}

impl OwnFile {
    /// A reader could not read the file, so it must be verified, but not all the time.
    pub(crate) fn doubt(&mut self, now: Time) {
        let is_known = self.is_damaged || self.verified_at.is_some_and(|at| now.since(at) < VERIFY_AGAIN_US);
        self.is_doubted |= !is_known;
    }

    /// Whether the file must be verified.
    pub(crate) fn is_doubted(&self) -> bool {
        self.is_doubted
    }

    /// The file was verified, and is whole or not. Returns whether it is newly known to be damaged.
    pub(crate) fn on_verified(&mut self, now: Time, is_whole: bool) -> bool {
        (self.is_doubted, self.verified_at) = (false, Some(now));
        !is_whole && !std::mem::replace(&mut self.is_damaged, true)
    }

    /// Whether the file is damaged. Such a file is given to no peer, and another snapshot is taken.
    pub(crate) fn is_damaged(&self) -> bool {
        self.is_damaged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ReplicaId = ReplicaId(0);
    const B: ReplicaId = ReplicaId(1);

    fn choose(sources: &mut Sources, now: Time, offers: &[(ReplicaId, u64)]) -> Option<ReplicaId> {
        sources.choose(now, offers.iter().copied());
        sources.chosen()
    }

    #[test]
    fn the_wait_for_a_source_doubles_up_to_a_limit() {
        let (mut sources, mut now) = (Sources::new(), Time(1));
        let mut waits = Vec::new();
        for _ in 0..10 {
            assert_eq!(choose(&mut sources, now, &[(A, 5)]), Some(A));
            sources.on_failure(now, A, 5, FetchFailure::Source);
            let failed = now;
            while choose(&mut sources, now, &[(A, 5)]).is_none() {
                now = now.after(RETRY_US / 4);
            }
            waits.push(now.since(failed) / RETRY_US);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 32, 32, 32, 32]);
        assert_eq!(waits[5], 1 << RETRY_DOUBLINGS_MAX);
    }

    #[test]
    fn another_source_comes_first_and_a_newer_snapshot_is_another_matter() {
        let (mut sources, now) = (Sources::new(), Time(1));
        sources.on_failure(now, A, 5, FetchFailure::Damaged);
        assert_eq!(choose(&mut sources, now, &[(A, 5)]), None);
        assert_eq!(choose(&mut sources, now, &[(A, 5), (B, 4)]), Some(B));
        sources.on_failure(now, B, 4, FetchFailure::Source);
        assert_eq!(choose(&mut sources, now, &[(A, 5), (B, 4)]), None);
        assert_eq!(choose(&mut sources, now, &[(A, 6), (B, 4)]), Some(A));
        // The transfer stays with the source that it has begun with.
        assert_eq!(choose(&mut sources, now, &[(A, 6), (B, 9)]), Some(A));
        sources.on_barrier(6);
        assert_eq!(sources.chosen(), None);
    }

    #[test]
    fn want_of_room_is_nobodys_fault_and_no_source_is_asked() {
        let (mut sources, now) = (Sources::new(), Time(1));
        sources.on_failure(now, A, 5, FetchFailure::Own);
        assert_eq!(choose(&mut sources, now, &[(A, 6), (B, 7)]), None);
        let later = now.after(RETRY_US);
        sources.on_failure(now, B, 7, FetchFailure::Source);
        assert_eq!(choose(&mut sources, later, &[(A, 5)]), Some(A), "it did not fail");
    }

    #[test]
    fn whoever_gets_on_is_waited_for_and_nobody_else() {
        let (mut holds, mut now) = (Holds::new(), Time(1));
        for from in 0..100 {
            holds.on_fetch(now, A, Fetch { barrier: 5, from });
            now = now.after(HOLD_US / 2);
            assert!(holds.holds(now, 5) && !holds.holds(now, 6));
        }
        // The peer asks for one piece for ever.
        let last = now;
        for _ in 0..100 {
            holds.on_fetch(now, A, Fetch { barrier: 5, from: 99 });
            now = now.after(HOLD_US / 2);
        }
        assert!(!holds.holds(last.after(HOLD_US), 5));
        // The peer begins again for ever.
        let held = |holds: &mut Holds, peer: ReplicaId, mut now: Time| {
            let first = now;
            while {
                holds.on_fetch(now, peer, Fetch { barrier: 5, from: 0 });
                holds.holds(now, 5)
            } {
                now = now.after(HOLD_US / 2);
            }
            now.since(first)
        };
        let bound = (u64::from(HOLD_RESTARTS_MAX) + 2) * HOLD_US;
        assert!(held(&mut holds, A, now) <= bound);
        // Other peers are not held responsible for that.
        holds.on_fetch(now, B, Fetch { barrier: 5, from: 0 });
        assert!(holds.holds(now, 5));
        assert!(held(&mut holds, B, now) <= bound);
    }
}
