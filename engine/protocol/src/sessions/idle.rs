//! The last use of each session, by the local clock, which decides only when an end is proposed (S4, S5).

use super::Sessions;
use crate::contract::Time;
use crate::limits::IDLE_ENDS_MAX;
use isonomy_wire::id::SessionId;
use std::collections::BTreeMap;

/// How often sessions are looked through, unless an eighth of the time that they may be idle is less.
const CHECK_US: u64 = 10_000_000;

/// The last use of each session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Idle {
    used: BTreeMap<SessionId, Time>,
    checked: Time,
}

impl Idle {
    /// The idle time of all sessions begins here.
    pub(crate) fn start(&mut self, now: Time, sessions: &Sessions) {
        self.used = sessions.iter().map(|(id, _)| (*id, now)).collect();
    }

    /// A session was used.
    #[inline]
    pub(crate) fn on_use(&mut self, now: Time, id: SessionId) {
        self.used.insert(id, now);
    }

    /// For how long a session has not been used, in microseconds.
    pub(crate) fn idle_us(&self, now: Time, id: SessionId) -> u64 {
        self.used.get(&id).map_or(0, |used| now.since(*used))
    }

    /// Some of the sessions that were not used for as long as `patience_us` says of each. A session is named again only after
    /// that time has passed once more. `idle_us_min` is the shortest patience.
    pub(crate) fn poll(
        &mut self,
        now: Time,
        sessions: &Sessions,
        idle_us_min: u64,
        patience_us: impl Fn(SessionId) -> u64,
    ) -> Vec<SessionId> {
        if now.since(self.checked) < CHECK_US.min(idle_us_min / 8) {
            return Vec::new();
        }
        self.checked = now;
        self.used.retain(|id, _| sessions.get(*id).is_some());
        // A session may be opened and never used, so its idle time begins here.
        for (id, _) in sessions.iter() {
            self.used.entry(*id).or_insert(now);
        }
        let is_old = |(id, used): (&SessionId, &Time)| now.since(*used) >= patience_us(*id);
        let old: Vec<SessionId> =
            self.used.iter().filter(|entry| is_old(*entry)).map(|(id, _)| *id).take(IDLE_ENDS_MAX).collect();
        old.iter().for_each(|id| self.on_use(now, *id));
        old
    }
}
