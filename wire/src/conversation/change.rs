//! The change of the members (law, section 9). The sessions go along into the next epoch, so everything under way is
//! sent again under its numbers.
//!
//! The number of members decides which home a key has, and so on which lane its commands go. When that number changes,
//! the commands of a key may move to another lane, which knows nothing of those before them. So writes that are
//! submitted after the change wait behind a *gate* until all earlier ones are settled.

use super::Conversation;
use super::lane::Lane;
use super::links::LinkTable;
use crate::id::{REPLICAS_MAX, ReplicaId};
use crate::route::{hash_session, home_of};

impl Conversation {
    /// The cluster has other members: from now on a [`ReplicaId`] is a place among these `replicas`, and none of them
    /// is connected. Requests without an answer are sent again, under the same numbers. Connections to the members
    /// before tell nothing but [`Conversation::on_late_response`].
    ///
    /// # Panics
    ///
    /// When `replicas` is not from 1 to 9.
    pub fn on_members_changed(&mut self, replicas: u8) {
        assert!((1..=REPLICAS_MAX).contains(&replicas.into()), "1 to {REPLICAS_MAX} replicas");
        self.links = LinkTable::new(replicas, self.config.shards);
        self.last_refusal = None;
        self.resets.clear();
        self.wakes.clear();
        self.lanes.iter_mut().for_each(Lane::on_members_changed);
        if std::mem::replace(&mut self.config.replicas, replicas) != replicas {
            self.move_homes();
        }
        self.mark_all_ready();
    }

    /// Adapts the lanes to the new number of members.
    fn move_homes(&mut self) {
        let replicas = self.config.replicas;
        if let Some(process) = &self.source {
            for lane in &mut self.lanes {
                lane.home = home_of(hash_session(process.name.session(lane.shard)), replicas);
            }
            return;
        }
        for home in (0..replicas).skip(self.lanes.len() / usize::from(self.config.shards)) {
            self.lanes.extend(Lane::of_home(ReplicaId(home), self.config.shards));
        }
        self.lanes.iter_mut().for_each(|lane| lane.writes.cut());
        if self.gates.back() != Some(&self.gathered) {
            self.gates.push_back(self.gathered);
        }
    }

    /// The last serial of the writes that may be sent for the first time.
    pub(super) fn gate(&self) -> u64 {
        self.gates.front().copied().unwrap_or(u64::MAX)
    }

    /// Opens the gate if all writes before it are settled.
    pub(super) fn maybe_open_gate(&mut self) {
        while let Some(gate) = self.gates.front().copied()
            && self.lanes.iter().all(|lane| lane.is_settled(gate))
        {
            self.gates.pop_front();
            self.mark_all_ready();
        }
    }

    /// Whether a lane ends its session when it has no more writes: because the conversation closes, or because the
    /// epoch has no such home and all keys have moved to others.
    pub(super) fn is_leaving(&self, index: usize) -> bool {
        self.closing || (self.lanes[index].home.0 >= self.config.replicas && self.gates.is_empty())
    }

    pub(super) fn mark_all_ready(&mut self) {
        (0..self.lanes.len()).for_each(|index| self.mark_ready(index));
    }
}
