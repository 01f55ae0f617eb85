//! Epochs: a process has a replica for each epoch that it takes part in, and each epoch has a ghost of its own. One
//! epoch is shown at a time: the world's nodes and ghost are those of that one. A node is known by its place in its
//! epoch, and a process by a number that it keeps.

use super::World;
use crate::ghost::Ghost;
use crate::node::Node;
use isonomy_protocol::replica::Replica;
use isonomy_wire::id::Epoch;
use rand::Rng;

/// An epoch that is not shown.
pub(super) struct Era {
    nodes: Vec<Node>,
    /// The process of each node.
    hosts: Vec<u8>,
    ghost: Ghost,
}

/// The host of a node whose process has gone for good.
const NOBODY: u8 = u8::MAX;

impl Era {
    /// The place of the epoch that is shown.
    pub(super) fn shown() -> Era {
        Era { nodes: Vec::new(), hosts: Vec::new(), ghost: Ghost::new(1, Epoch(0)) }
    }
}

impl World {
    /// Shows an epoch.
    pub(super) fn show(&mut self, era: usize) {
        if era == self.era {
            return;
        }
        for place in [self.era, era] {
            let Era { nodes, hosts, ghost } = &mut self.eras[place];
            std::mem::swap(&mut self.nodes, nodes);
            std::mem::swap(&mut self.hosts, hosts);
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
    pub(super) fn show_newest_of(&mut self, process: u8) {
        self.show(self.entered_era(process));
    }

    /// The process of a node of the epoch that is shown.
    pub(super) fn host(&self, place: u8) -> u8 {
        self.hosts[usize::from(place)]
    }

    /// The place of a process in the epoch that is shown, if it takes part.
    pub(super) fn place(&self, process: u8) -> Option<u8> {
        self.hosts.iter().position(|host| *host == process).map(|place| place as u8)
    }

    /// Whether the process of a node is there.
    pub(super) fn is_hosted(&self, place: u8) -> bool {
        self.host(place) != NOBODY
    }

    /// The places of the members of the epoch that is shown.
    pub(super) fn members(&self) -> std::ops::Range<u8> {
        0..self.ghost.n as u8
    }

    /// Makes room for the next epoch with these members. A member whose directory was lost is still lost.
    pub(super) fn begin_era(&mut self, members: &[u8]) {
        self.show_last();
        let (epoch, n) = (Epoch(self.eras.len() as u32 + 1), members.len() as u8);
        let mut nodes = Vec::new();
        for (place, process) in (0..).zip(members) {
            let before = self.place(*process).map(|place| &self.nodes[usize::from(place)]);
            let is_lost = before.is_some_and(|node| node.is_lost);
            let mut node = Node::new(&self.plan, n, epoch, place, &mut self.faults);
            (node.is_lost, node.is_damaged) = (is_lost, is_lost);
            nodes.push(node);
        }
        self.eras.push(Era { nodes, hosts: members.to_vec(), ghost: Ghost::new(n, epoch) });
    }

    /// A process with an empty directory has a learner at this place of the newest epoch.
    pub(super) fn join(&mut self, process: u8, place: u8) {
        self.dismiss(process);
        self.show_last();
        let (epoch, n, index) = (Epoch(self.eras.len() as u32), self.ghost.n as u8, usize::from(place));
        let mut node = Node::new(&self.plan, n, epoch, place, &mut self.faults);
        self.ghost.on_learner(place);
        if let Some(before) = self.nodes.get_mut(index) {
            node.life = before.life + 1;
            (*before, self.hosts[index]) = (node, process);
        } else {
            self.nodes.push(node);
            self.hosts.push(process);
        }
    }

    /// A process is gone for good with its directory.
    pub(super) fn dismiss(&mut self, process: u8) {
        self.crash(process);
        self.in_each_era(|world| {
            if let Some(place) = world.place(process) {
                let node = &mut world.nodes[usize::from(place)];
                (node.is_damaged, node.is_lost) = (true, true);
                world.hosts[usize::from(place)] = NOBODY;
            }
        });
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

    /// Does the same with each node of a process.
    pub(super) fn for_each_node(&mut self, process: u8, mut what: impl FnMut(&mut Node)) {
        self.in_each_era(|world| {
            if let Some(place) = world.place(process) {
                what(&mut world.nodes[usize::from(place)]);
            }
        });
    }

    /// Whether the process runs.
    pub(super) fn is_up(&mut self, process: u8) -> bool {
        let mut is_up = false;
        self.for_each_node(process, |node| is_up |= node.core.is_some());
        is_up
    }

    /// Starts the process, if it can be started.
    pub(super) fn start_if_down(&mut self, process: u8) {
        self.show_newest_of(process);
        if self.place(process).is_some_and(|place| self.nodes[usize::from(place)].is_down()) {
            self.start(process);
        }
    }

    /// Starts the process in each epoch that it needs: the newest that it has entered, and those from which the state
    /// comes in which that one begins.
    pub(super) fn start(&mut self, process: u8) {
        let newest = self.entered_era(process);
        let mut made = None;
        for era in self.first_needed(process, newest)..=newest {
            self.show(era);
            let place = self.place(process).expect("it takes part");
            self.start_in_era(place, made.take());
            if era < newest {
                made = if self.has_begun(process, era + 1) { None } else { self.hand_over(process) };
                let node = &mut self.nodes[usize::from(place)];
                if era + 1 < newest || node.ended.is_none() {
                    node.crash(&mut self.disks);
                }
            }
        }
    }

    /// The first epoch that a process needs whose newest is this one. The epoch before the newest is needed to serve
    /// others, at times.
    fn first_needed(&mut self, process: u8, newest: usize) -> usize {
        let mut first = newest;
        loop {
            let has_begun = self.has_begun(process, first);
            if first == 0 || self.is_lost_before(process, first) || (has_begun && first < newest) {
                return first;
            }
            if has_begun && self.faults.random_bool(0.5) {
                return first;
            }
            first -= 1;
        }
    }

    /// Whether the disk has a snapshot of this epoch. The epoch before is shown afterwards as it was.
    fn has_begun(&mut self, process: u8, era: usize) -> bool {
        let shown = self.era;
        self.show(era);
        let place = self.place(process).expect("it takes part");
        let has_begun = self.nodes[usize::from(place)].kept_snapshot().is_some();
        self.show(shown);
        has_begun
    }

    fn is_lost_before(&mut self, process: u8, era: usize) -> bool {
        self.show(era - 1);
        self.place(process).is_none_or(|place| self.nodes[usize::from(place)].is_lost)
    }

    /// The sealed core of a process that is shown makes that of the next epoch, unless it is not sealed.
    pub(super) fn hand_over(&mut self, process: u8) -> Option<Replica> {
        let (now, era) = (self.now, self.era);
        self.show(era + 1);
        let next = self.place(process).expect("it is a member");
        let config = self.nodes[usize::from(next)].config(&self.plan);
        self.show(era);
        let place = self.place(process)?;
        let node = &mut self.nodes[usize::from(place)];
        let time = node.time(now);
        let core = node.core.as_mut()?;
        let sealed = core.sealed()?;
        if core.taking().is_some() {
            core.on_snapshot_failed(time);
        }
        let made = core.succeed(config, self.faults.random());
        crate::check::on_begin(place, sealed, &made);
        self.summary.coverage.succeeded = true;
        Some(made)
    }

    /// Everybody looks for the others in each epoch.
    pub(super) fn relink_all(&mut self) {
        self.in_each_era(World::relink);
    }
}
