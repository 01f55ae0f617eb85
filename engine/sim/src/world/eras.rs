//! Epochs: a process has a replica for each epoch that it takes part in, and each epoch has a ghost of its own. One
//! epoch is shown at a time: the world's nodes and ghost are those of that one.

use super::World;
use crate::ghost::Ghost;
use crate::node::Node;
use isonomy_protocol::contract::Config;
use isonomy_protocol::replica::Replica;
use isonomy_wire::id::Epoch;
use rand::Rng;

/// An epoch that is not shown.
pub(super) struct Era {
    nodes: Vec<Node>,
    ghost: Ghost,
}

impl Era {
    /// The place of the epoch that is shown.
    pub(super) fn shown() -> Era {
        Era { nodes: Vec::new(), ghost: Ghost::new(1, Epoch(0)) }
    }
}

impl World {
    /// Shows an epoch.
    pub(super) fn show(&mut self, era: usize) {
        if era == self.era {
            return;
        }
        for place in [self.era, era] {
            let Era { nodes, ghost } = &mut self.eras[place];
            std::mem::swap(&mut self.nodes, nodes);
            std::mem::swap(&mut self.ghost, ghost);
        }
        (self.era, self.queue.era) = (era, era);
    }

    /// The newest epoch that any replica has entered.
    pub(super) fn last_era(&self) -> usize {
        self.eras.len() - 1
    }

    /// Shows the newest epoch.
    pub(super) fn show_last(&mut self) {
        self.show(self.last_era());
    }

    /// Shows the newest epoch that a process has entered, which is where its clients go.
    pub(super) fn show_newest_of(&mut self, id: u8) {
        self.show(self.entered_era(id));
    }

    /// Makes room for the next epoch. All members are those of the epoch before, but for one that is new, perhaps.
    pub(super) fn begin_era(&mut self, fresh: Option<u8>) {
        self.show_last();
        let epoch = Epoch(self.eras.len() as u32 + 1);
        let World { nodes, plan, faults, .. } = self;
        let begin = |old: &Node| {
            let mut node = Node::new(plan, epoch, old.id, faults);
            node.is_lost = old.is_lost && fresh != Some(old.id);
            node.is_damaged = node.is_lost;
            node
        };
        let nodes = nodes.iter().map(begin).collect();
        self.eras.push(Era { nodes, ghost: Ghost::new(self.plan.n, epoch) });
    }

    /// Does the same in each epoch, and shows the one that was shown.
    pub(super) fn in_each_era(&mut self, mut what: impl FnMut(&mut World)) {
        let shown = self.era;
        for era in 0..self.eras.len() {
            self.show(era);
            what(self);
        }
        self.show(shown);
    }

    /// Whether the process runs.
    pub(super) fn is_up(&mut self, id: u8) -> bool {
        let mut is_up = false;
        self.in_each_era(|world| is_up |= world.nodes[usize::from(id)].core.is_some());
        is_up
    }

    /// Starts the process, if it can be started.
    pub(super) fn start_if_down(&mut self, id: u8) {
        self.show_newest_of(id);
        if self.nodes[usize::from(id)].is_down() {
            self.start(id);
        }
    }

    /// Starts the process in each epoch that it needs: the newest that it has entered, and those from which the state
    /// comes in which that one begins.
    pub(super) fn start(&mut self, id: u8) {
        let newest = self.entered_era(id);
        let mut made = None;
        for era in self.first_needed(id, newest)..=newest {
            self.show(era);
            self.start_in_era(id, made.take());
            if era < newest {
                made = if self.has_begun(id, era + 1) { None } else { self.hand_over(id) };
                let node = &mut self.nodes[usize::from(id)];
                if era + 1 < newest || node.ended.is_none() {
                    node.crash(&mut self.disks);
                }
            }
        }
    }

    /// The first epoch that a process needs whose newest is this one. The epoch before the newest is needed to serve
    /// others, at times.
    fn first_needed(&mut self, id: u8, newest: usize) -> usize {
        let mut first = newest;
        loop {
            let has_begun = self.has_begun(id, first);
            if first == 0 || self.is_lost_before(id, first) || (has_begun && first < newest) {
                return first;
            }
            if has_begun && self.faults.random_bool(0.5) {
                return first;
            }
            first -= 1;
        }
    }

    /// Whether the disk has a snapshot of this epoch. The epoch before is shown afterwards as it was.
    fn has_begun(&mut self, id: u8, era: usize) -> bool {
        let shown = self.era;
        self.show(era);
        let has_begun = self.nodes[usize::from(id)].kept_snapshot().is_some();
        self.show(shown);
        has_begun
    }

    fn is_lost_before(&mut self, id: u8, era: usize) -> bool {
        self.show(era - 1);
        self.nodes[usize::from(id)].is_lost
    }

    /// The sealed core that is shown makes that of the next epoch, unless it is not sealed.
    pub(super) fn hand_over(&mut self, id: u8) -> Option<Replica> {
        let (now, era) = (self.now, self.era);
        let next = Epoch(era as u32 + 2);
        let node = &mut self.nodes[usize::from(id)];
        let time = node.time(now);
        let config = Config { epoch: next, ..node.config(&self.plan) };
        let core = node.core.as_mut()?;
        let sealed = core.sealed()?;
        if core.taking().is_some() {
            core.on_snapshot_failed(time);
        }
        let made = core.succeed(config, self.faults.random());
        crate::check::on_begin(id, sealed, &made);
        self.summary.coverage.succeeded = true;
        Some(made)
    }

    /// Everybody looks for the others in each epoch.
    pub(super) fn relink_all(&mut self) {
        self.in_each_era(World::relink);
    }
}
