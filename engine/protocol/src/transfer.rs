//! G5: whose snapshot is fetched when one could not be had, and how long a source waits for whoever
//! fetches its own.

use crate::contract::Time;
use crate::limits::{HOLD_RESTARTS_MAX, HOLD_US, RETRY_DOUBLINGS_MAX, RETRY_US, VERIFY_AGAIN_US};
use crate::mutant::{self, Mutant};
use isonomy_wire::id::ReplicaId;

/// Why the snapshot of a peer was not taken over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FetchFailure {
    /// Its bytes are not those of the snapshot.
    Damaged,
    /// The source does not have it any more, says nothing, or says what makes no sense.
    Source,
    /// This replica could not keep it, for want of room or because its disk failed.
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
    /// Who was chosen, and the barrier of its snapshot then.
    chosen: Option<(ReplicaId, u64)>,
    /// By peer the barrier whose snapshot could not be had. A newer one is another matter.
    failed: Vec<(u64, Pause)>,
    /// This replica could keep none, whoever sent it.
    own: Pause,
}

impl Sources {
    pub(crate) fn new(replicas: usize) -> Sources {
        Sources { chosen: None, failed: vec![(0, Pause::default()); replicas], own: Pause::default() }
    }

    pub(crate) fn chosen(&self) -> Option<ReplicaId> {
        self.chosen.map(|(source, _)| source)
    }

    /// Chooses one of those that offer the snapshot of a barrier, unless one was chosen: a transfer is
    /// not begun anew because another would do as well. The one that has failed least comes first, then
    /// the newest snapshot.
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

    /// The snapshot of this barrier could not be had from this source.
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

    /// So many barriers have executed: a snapshot that was chosen before may not be needed any more.
    pub(crate) fn on_barrier(&mut self, barriers: u64) {
        self.chosen.take_if(|(_, barrier)| *barrier <= barriers);
    }

    /// A snapshot was installed.
    pub(crate) fn on_installed(&mut self) {
        *self = Sources::new(self.failed.len());
    }
}

/// How far a peer has fetched the snapshot of a barrier.
#[derive(Clone, Copy, Debug, Default)]
struct Fetched {
    barrier: u64,
    from: u64,
    restarts: u32,
    held_until: Time,
}

/// Who fetches the newest snapshot, so that no other is taken meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Holds(Vec<Fetched>);

impl Holds {
    pub(crate) fn new(replicas: usize) -> Holds {
        Holds(vec![Fetched::default(); replicas])
    }

    /// A peer asks for the bytes from here on. Only what it has not asked for before, or one of a few
    /// beginnings, lets it be waited for.
    pub(crate) fn on_fetch(&mut self, now: Time, peer: ReplicaId, barrier: u64, from: u64) {
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

    /// Whether somebody is waited for who fetches this snapshot.
    pub(crate) fn holds(&self, now: Time, barrier: u64) -> bool {
        self.0.iter().any(|fetched| fetched.barrier == barrier && now < fetched.held_until)
    }
}

/// What is known of the file of the own newest snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OwnFile {
    is_doubted: bool,
    is_damaged: bool,
    /// When it was verified last.
    verified_at: Option<Time>,
}

impl OwnFile {
    /// Somebody could not read it, so it is to be verified, but not all the time.
    pub(crate) fn doubt(&mut self, now: Time) {
        let is_known = self.is_damaged || self.verified_at.is_some_and(|at| now.since(at) < VERIFY_AGAIN_US);
        self.is_doubted |= !is_known;
    }

    /// Whether it is to be verified.
    pub(crate) fn is_doubted(&self) -> bool {
        self.is_doubted
    }

    /// It was read, or did not read. Whether it is known to be damaged only since now.
    pub(crate) fn on_verified(&mut self, now: Time, is_whole: bool) -> bool {
        (self.is_doubted, self.verified_at) = (false, Some(now));
        !is_whole && !std::mem::replace(&mut self.is_damaged, true)
    }

    /// It does not read: it is given to nobody, and another is taken.
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
        let (mut sources, mut now) = (Sources::new(3), Time(1));
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
        let (mut sources, now) = (Sources::new(3), Time(1));
        sources.on_failure(now, A, 5, FetchFailure::Damaged);
        assert_eq!(choose(&mut sources, now, &[(A, 5)]), None);
        assert_eq!(choose(&mut sources, now, &[(A, 5), (B, 4)]), Some(B));
        sources.on_failure(now, B, 4, FetchFailure::Source);
        assert_eq!(choose(&mut sources, now, &[(A, 5), (B, 4)]), None);
        assert_eq!(choose(&mut sources, now, &[(A, 6), (B, 4)]), Some(A));
        // It stays with the one that it has begun with.
        assert_eq!(choose(&mut sources, now, &[(A, 6), (B, 9)]), Some(A));
        sources.on_barrier(6);
        assert_eq!(sources.chosen(), None);
    }

    #[test]
    fn want_of_room_is_nobodys_fault_and_no_source_is_asked() {
        let (mut sources, now) = (Sources::new(3), Time(1));
        sources.on_failure(now, A, 5, FetchFailure::Own);
        assert_eq!(choose(&mut sources, now, &[(A, 6), (B, 7)]), None);
        let later = now.after(RETRY_US);
        sources.on_failure(now, B, 7, FetchFailure::Source);
        assert_eq!(choose(&mut sources, later, &[(A, 5)]), Some(A), "it did not fail");
    }

    #[test]
    fn whoever_gets_on_is_waited_for_and_nobody_else() {
        let (mut holds, mut now) = (Holds::new(3), Time(1));
        for from in 0..100 {
            holds.on_fetch(now, A, 5, from);
            now = now.after(HOLD_US / 2);
            assert!(holds.holds(now, 5) && !holds.holds(now, 6));
        }
        // The same piece for ever.
        let last = now;
        for _ in 0..100 {
            holds.on_fetch(now, A, 5, 99);
            now = now.after(HOLD_US / 2);
        }
        assert!(!holds.holds(last.after(HOLD_US), 5));
        // From the beginning for ever.
        let held = |holds: &mut Holds, peer: ReplicaId, mut now: Time| {
            let first = now;
            while {
                holds.on_fetch(now, peer, 5, 0);
                holds.holds(now, 5)
            } {
                now = now.after(HOLD_US / 2);
            }
            now.since(first)
        };
        let bound = (u64::from(HOLD_RESTARTS_MAX) + 2) * HOLD_US;
        assert!(held(&mut holds, A, now) <= bound);
        // That was nobody else's fault.
        holds.on_fetch(now, B, 5, 0);
        assert!(holds.holds(now, 5));
        assert!(held(&mut holds, B, now) <= bound);
    }
}
