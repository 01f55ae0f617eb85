//! The rows of instances of a shard, one per replica (law, section 3).

use crate::contract::Time;
use crate::instance::Instance;
use crate::limits::ROW_AHEAD_MAX;
use crate::state::Place;
use isonomy_wire::deps::{Deps, Floor};
use isonomy_wire::id::{InstanceId, ReplicaId};
use std::collections::VecDeque;

/// One coordinator's instances from the first that is not forgotten.
#[derive(Clone, Debug, Default)]
struct Row {
    /// The number up to which all instances are forgotten.
    forgotten: u64,
    instances: VecDeque<Instance>,
}

/// All instances of a shard.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    rows: Vec<Row>,
}

impl Space {
    /// Empty rows for `n` replicas.
    pub(crate) fn new(n: usize) -> Space {
        Space { rows: (0..n).map(|_| Row::default()).collect() }
    }

    /// The instance, if it was seen and is not forgotten.
    #[inline]
    pub(crate) fn get(&self, id: InstanceId) -> Option<&Instance> {
        let row = self.rows.get(id.row.index())?;
        row.instances.get(id.seq.checked_sub(row.forgotten + 1)? as usize)
    }

    /// The instance, mutable, if it was seen and is not forgotten.
    #[inline]
    pub(crate) fn get_mut(&mut self, id: InstanceId) -> Option<&mut Instance> {
        let row = self.rows.get_mut(id.row.index())?;
        row.instances.get_mut(id.seq.checked_sub(row.forgotten + 1)? as usize)
    }

    /// Takes the entry hints from the conflict index, for an instance that executes now.
    pub(crate) fn take_places(&mut self, id: InstanceId) -> Box<[Place]> {
        self.get_mut(id).map(Instance::take_places).unwrap_or_default()
    }

    /// Makes sure that the id and all ids before it in its row are there, since rows have no gaps. Returns `None` if
    /// the id is forgotten, of no row, or impossibly far ahead.
    #[inline]
    pub(crate) fn see(&mut self, id: InstanceId, now: Time) -> Option<&mut Instance> {
        let row = self.rows.get_mut(id.row.index())?;
        let place = id.seq.checked_sub(row.forgotten + 1)? as usize;
        if place as u64 >= row.instances.len() as u64 + ROW_AHEAD_MAX {
            return None;
        }
        while row.instances.len() <= place {
            row.instances.push_back(Instance::seen(now));
        }
        row.instances.get_mut(place)
    }

    /// Makes sure that all ids in `deps` are there, since a replica that learns of an id must see to it that the id
    /// is decided (section 5). Returns false if the deps name an impossible id.
    pub(crate) fn see_all(&mut self, deps: &Deps, now: Time) -> bool {
        for (row, seq) in deps.0.iter().enumerate() {
            let id = InstanceId::new(ReplicaId(row as u8), *seq);
            let known = self.rows.get(row).is_some_and(|row| *seq <= row.forgotten);
            if *seq > 0 && !known && self.see(id, now).is_none() {
                return false;
            }
        }
        true
    }

    /// Restarts the timeouts of all instances that were seen before.
    pub(crate) fn restart_patience(&mut self, now: Time) {
        self.rows
            .iter_mut()
            .flat_map(|row| &mut row.instances)
            .for_each(|instance| instance.restart_patience(now));
    }

    /// A Begin record was read back.
    pub(crate) fn on_begin(&mut self) {
        self.rows.iter_mut().flat_map(|row| &mut row.instances).for_each(Instance::on_begin);
    }

    /// The highest sequence number seen in a row.
    pub(crate) fn last(&self, row: ReplicaId) -> u64 {
        let row = &self.rows[row.index()];
        row.forgotten + row.instances.len() as u64
    }

    /// Forgets all instances at or below a floor, seen or not.
    pub(crate) fn forget(&mut self, floor: &Floor) {
        for (row, upto) in self.rows.iter_mut().zip(&floor.0) {
            let count = upto.saturating_sub(row.forgotten);
            row.instances.drain(..row.instances.len().min(count as usize));
            row.forgotten += count;
        }
    }

    /// All ids that are not forgotten, row by row, with their state.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (InstanceId, &Instance)> {
        self.rows.iter().enumerate().flat_map(|(index, row)| {
            row.instances.iter().enumerate().map(move |(place, instance)| {
                let seq = row.forgotten + 1 + place as u64;
                (InstanceId::new(ReplicaId(index as u8), seq), instance)
            })
        })
    }

    /// The ids of one row behind `after`, in order.
    pub(crate) fn behind(&self, row: ReplicaId, after: u64) -> impl Iterator<Item = (InstanceId, &Instance)> {
        let rows = &self.rows[row.index()];
        let skip = after.saturating_sub(rows.forgotten) as usize;
        rows.instances
            .iter()
            .enumerate()
            .skip(skip)
            .map(move |(place, instance)| (InstanceId::new(row, rows.forgotten + 1 + place as u64), instance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(row: u8, seq: u64) -> InstanceId {
        InstanceId::new(ReplicaId(row), seq)
    }

    #[test]
    fn rows_have_no_gaps_and_forget_from_the_front() {
        let mut space = Space::new(2);
        space.see(id(1, 3), Time(5)).unwrap();
        assert_eq!(space.last(ReplicaId(1)), 3);
        assert_eq!(space.get(id(1, 1)).unwrap().waits(Time(7)), 2);
        space.forget(&Floor([0, 2, 0, 0, 0, 0, 0, 0, 0]));
        assert!(space.get(id(1, 2)).is_none());
        assert!(space.see(id(1, 2), Time(6)).is_none());
        assert!(space.get(id(1, 3)).is_some());
        assert_eq!(space.behind(ReplicaId(1), 0).map(|(id, _)| id.seq).collect::<Vec<_>>(), [3]);
        assert_eq!(space.behind(ReplicaId(1), 3).count(), 0);
    }

    #[test]
    fn impossible_ids_are_refused() {
        let mut space = Space::new(2);
        assert!(space.see(id(2, 1), Time(0)).is_none());
        assert!(space.see(id(0, 0), Time(0)).is_none());
        assert!(space.see(id(0, u64::MAX), Time(0)).is_none());
        assert!(!space.see_all(&Deps([0, 0, 1, 0, 0, 0, 0, 0, 0]), Time(0)));
        assert!(space.see_all(&Deps([4, 2, 0, 0, 0, 0, 0, 0, 0]), Time(0)));
        assert_eq!(space.last(ReplicaId(0)), 4);
    }
}
