//! The faults.

use super::{Event, World};
use rand::Rng;

/// All jumps of a run together are shorter than sessions live.
const JUMP_US_MAX: u64 = 5_000_000;

impl World {
    pub(super) fn fail(&mut self, event: Event) {
        self.show_last();
        let n = self.plan.pool;
        let node = self.faults.random_range(0..n);
        match event {
            Event::Partition => {
                self.partition(node);
                self.after(5_000, 1_000_000, Event::Mend);
                self.after(5_000, 50_000, Event::Links);
                self.every(self.plan.partition_every_us, Event::Partition);
            }
            Event::Reset => {
                let to = self.faults.random_range(0..n);
                self.network.reset(node, to);
                if self.faults.random_bool(0.3) && !self.clients.is_empty() {
                    let client = self.faults.random_range(0..self.clients.len());
                    self.disconnect(client, node);
                    self.after(1_000, 30_000, Event::Connect { client, replica: node });
                }
                self.every(self.plan.reset_every_us, Event::Reset);
            }
            Event::Pause => {
                let until = self.now + self.faults.random_range(1_000..800_000);
                self.for_each_node(node, |node| node.paused_until = until);
                self.every(self.plan.pause_every_us, Event::Pause);
            }
            Event::Fill => {
                self.fill(node);
                self.every(self.plan.full_every_us, Event::Fill);
            }
            Event::Hang => {
                // A minority hangs at most, so that the others have to go on.
                let hung = self.nodes.iter().filter(|node| node.hung_until > self.now).count();
                if hung < self.ghost.quorum.f {
                    let until = self.now + self.faults.random_range(1_000_000..5_000_000);
                    self.for_each_node(node, |node| node.hung_until = until);
                }
                self.every(self.plan.hang_every_us, Event::Hang);
            }
            Event::Copy => {
                if let Some(place) = self.place(node) {
                    self.nodes[usize::from(place)].copy();
                }
                self.every(self.plan.copy_every_us, Event::Copy);
            }
            Event::Jump => {
                let micros = self.faults.random_range(10_000..JUMP_US_MAX);
                let now = self.now;
                self.for_each_node(node, |node| node.jump(now, micros));
                self.every(self.plan.jump_every_us, Event::Jump);
            }
            Event::Wrong => {
                self.ask_wrongly(node);
                self.every(self.plan.wrong_every_us, Event::Wrong);
            }
            Event::CrashSome => {
                let all = self.faults.random_bool(self.plan.all_crash);
                for id in (0..n).filter(|id| all || *id == node) {
                    let stops = self.faults.random_bool(self.plan.stops);
                    if stops { self.stop(id) } else { self.crash(id) }
                }
                self.every(self.plan.crash_every_us, Event::CrashSome);
            }
            _ => unreachable!("the caller has checked"),
        }
    }

    /// The disk of a process has no room for a while.
    fn fill(&mut self, process: u8) {
        let until = self.now + self.faults.random_range(1_000..1_000_000);
        // What is written in one place may have room when what is written in the other has not.
        let (log, snapshots) = [(until, until), (until, 0), (0, until)][self.faults.random_range(0..3)];
        self.in_each_era(|world| {
            let Some(node) = world.place(process) else { return };
            let full = &mut world.nodes[usize::from(node)];
            full.full_until = full.full_until.max(log);
            full.crowded_until = full.crowded_until.max(snapshots);
            world.queue.push(until, Event::Room { node });
        });
    }

    /// Some are cut off from the others, one from all, or one link fails in one direction.
    fn partition(&mut self, node: u8) {
        let n = self.plan.pool;
        let kind = self.faults.random_range(0..3);
        if kind == 0 {
            let to = self.faults.random_range(0..n);
            return self.network.cut(node, to, true);
        }
        let inside: Vec<bool> =
            (0..n).map(|id| id == node || (kind == 1 && self.faults.random_bool(0.5))).collect();
        let one_way = self.faults.random_bool(0.3);
        for from in 0..n {
            for to in 0..n {
                let crosses = inside[usize::from(from)] != inside[usize::from(to)];
                if crosses && (!one_way || inside[usize::from(from)]) {
                    self.network.cut(from, to, true);
                }
            }
        }
    }
}
