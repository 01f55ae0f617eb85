//! What happens to the replicas: kills, pauses, and time to recover or not.

use super::support::{Cluster, eventually};
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
}

pub(crate) struct Faults {
    rng: SmallRng,
    pub(crate) tally: Tally,
}

impl Faults {
    pub(crate) fn new(rng: SmallRng) -> Faults {
        Faults { rng, tally: Tally::default() }
    }

    /// One round; all replicas run afterwards, though they may still be starting.
    /// `decided` says how many commands have.
    pub(crate) fn round(&mut self, cluster: &mut Cluster, decided: impl Fn() -> u64) {
        let mut order = cluster.running();
        order.shuffle(&mut self.rng);
        match self.rng.random_range(0..20) {
            0..9 => self.kill(cluster, &order[..1]),
            9..11 => self.kill(cluster, &order[..2]),
            11..14 => {
                self.kill(cluster, &order);
                self.tally.killed_all += 1;
            }
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

    /// Kills these, half of the time all at once, and starts them in another order.
    fn kill(&mut self, cluster: &mut Cluster, victims: &[usize]) {
        let at_once: bool = self.rng.random();
        for (place, victim) in victims.iter().enumerate() {
            if place > 0 && !at_once {
                self.wait(STAGGER_MAX);
            }
            cluster.kill(*victim);
            self.tally.killed += 1;
        }
        self.wait(AWAY_MAX);
        let mut victims = victims.to_vec();
        victims.shuffle(&mut self.rng);
        for victim in victims {
            cluster.spawn(victim);
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
