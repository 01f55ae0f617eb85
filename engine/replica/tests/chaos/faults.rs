//! What happens to the replicas: kills, losses of power, pauses, and time to recover or not.

use super::support::{Cluster, eventually};
use super::volatile::VolatileDisk;
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rustix::process::Signal;
use std::thread::sleep;
use std::time::Duration;

/// How long a killed replica stays away at most.
const AWAY_MAX: Duration = Duration::from_secs(2);
/// How long a replica is paused at most.
const PAUSED_MAX: Duration = Duration::from_secs(3);
/// Between two replicas of a round, at most.
const STAGGER_MAX: Duration = Duration::from_millis(300);
/// After a round, at most. Often the next one comes while the last one is not yet made good.
const CALM_MAX: Duration = Duration::from_millis(1500);
/// How often a transfer is cut off until one goes on.
const LEFT_BEHIND_MAX: u32 = 10;
/// What a replica logs when it begins to fetch a snapshot, and when it has installed one.
const FETCHING: &str = ": fetching the snapshot";
const INSTALLED: &str = ": installed the snapshot";
/// After so many rounds on average all replicas must find each other and decide.
const ROUNDS_UNTIL_WHOLE: u32 = 3;

/// How often it happened.
#[derive(Default, Debug)]
pub(crate) struct Tally {
    pub(crate) rounds: u32,
    /// Replicas that were killed, all in all.
    pub(crate) killed: u32,
    /// Rounds that killed all at a time.
    pub(crate) killed_all: u32,
    pub(crate) paused: u32,
    /// Replicas that were killed while they fetched a snapshot.
    pub(crate) interrupted: u32,
    /// Changes that a disk forgot when its replica lost power.
    pub(crate) forgotten: usize,
}

pub(crate) struct Faults<'a> {
    rng: SmallRng,
    /// Whoever is killed loses power, too, if there are any.
    disks: &'a [VolatileDisk],
    pub(crate) tally: Tally,
}

impl Faults<'_> {
    pub(crate) fn new(rng: SmallRng, disks: &[VolatileDisk]) -> Faults<'_> {
        Faults { rng, disks, tally: Tally::default() }
    }

    /// One round; all replicas run afterwards, though they may still be starting.
    /// `decided` says how many commands have.
    pub(crate) fn round(&mut self, cluster: &mut Cluster, decided: impl Fn() -> u64) {
        let mut order = cluster.running();
        order.shuffle(&mut self.rng);
        match self.rng.random_range(0..20) {
            0..9 => self.kill(cluster, &order[..1]),
            9..11 => self.kill(cluster, &order[..2]),
            11..14 => self.end_all(cluster),
            14..18 => {
                self.pause(cluster, order[0]);
                cluster.signal(order[0], Signal::CONT);
            }
            // It never learns that it was paused.
            _ => {
                self.pause(cluster, order[0]);
                self.kill(cluster, &order[..1]);
            }
        }
        self.tally.rounds += 1;
        if self.rng.random_ratio(1, ROUNDS_UNTIL_WHOLE) {
            wait_whole(cluster, decided);
        }
        self.wait(CALM_MAX);
        cluster.assert_running();
    }

    /// One replica is away until the others have cut their logs, fetches a snapshot, is killed meanwhile, and
    /// installs one. A transfer that was faster than the kill leaves nothing to install: then another round.
    pub(crate) fn leave_behind(&mut self, cluster: &mut Cluster) {
        let has_installed = (0..LEFT_BEHIND_MAX).any(|_| self.leave_one_behind(cluster));
        assert!(has_installed, "of {LEFT_BEHIND_MAX} transfers that were cut off none went on");
    }

    /// Whether the replica has installed a snapshot in the end.
    fn leave_one_behind(&mut self, cluster: &mut Cluster) -> bool {
        let mut order = cluster.running();
        order.shuffle(&mut self.rng);
        let (victim, other) = (order[0], order[1]);
        self.end(cluster, victim);
        let snapshot = |cluster: &Cluster| cluster.status(other, 0).map(|status| status.snapshot);
        let mut goal = None;
        eventually("a status", || {
            goal = snapshot(cluster).map(|barrier| barrier + 2);
            goal.is_some()
        });
        eventually("two more snapshots", || snapshot(cluster) >= goal);
        let count = |cluster: &Cluster, what| cluster.log(victim).matches(what).count();
        let (begun, installed) = (count(cluster, FETCHING), count(cluster, INSTALLED));
        self.begin(cluster, victim);
        eventually("a transfer", || count(cluster, FETCHING) > begun);
        self.end(cluster, victim);
        self.tally.interrupted += 1;
        self.begin(cluster, victim);
        let barriers = |cluster: &Cluster| cluster.status(victim, 0).map(|status| status.barrier);
        eventually("that it has caught up", || barriers(cluster) >= goal);
        self.tally.rounds += 1;
        count(cluster, INSTALLED) > installed
    }

    /// Kills all of them.
    pub(crate) fn end_all(&mut self, cluster: &mut Cluster) {
        let mut order = cluster.running();
        order.shuffle(&mut self.rng);
        self.kill(cluster, &order);
        self.tally.killed_all += 1;
    }

    /// Kills a replica, without power if it has a disk for that.
    fn end(&mut self, cluster: &mut Cluster, victim: usize) {
        if let Some(disk) = self.disks.get(victim) {
            disk.power_off();
        }
        cluster.kill(victim);
        self.tally.killed += 1;
    }

    fn begin(&mut self, cluster: &mut Cluster, victim: usize) {
        if let Some(disk) = self.disks.get(victim) {
            self.tally.forgotten += disk.power_on(&mut self.rng);
        }
        cluster.spawn(victim);
    }

    /// Kills these, half of the time all at once, and starts them in another order.
    fn kill(&mut self, cluster: &mut Cluster, victims: &[usize]) {
        let at_once: bool = self.rng.random();
        for (place, victim) in victims.iter().enumerate() {
            if place > 0 && !at_once {
                self.wait(STAGGER_MAX);
            }
            self.end(cluster, *victim);
        }
        self.wait(AWAY_MAX);
        let mut victims = victims.to_vec();
        victims.shuffle(&mut self.rng);
        for victim in victims {
            self.begin(cluster, victim);
            self.wait(STAGGER_MAX);
        }
    }

    fn pause(&mut self, cluster: &mut Cluster, victim: usize) {
        cluster.signal(victim, Signal::STOP);
        self.wait(PAUSED_MAX);
        self.tally.paused += 1;
    }

    fn wait(&mut self, at_most: Duration) {
        sleep(self.rng.random_range(Duration::ZERO..at_most));
    }
}

/// All replicas find each other, and something is decided.
pub(crate) fn wait_whole(cluster: &mut Cluster, decided: impl Fn() -> u64) {
    cluster.wait_linked();
    let before = decided();
    eventually("a decision", || decided() > before);
}
