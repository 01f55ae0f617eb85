//! Random schedules over whole clusters: loss, duplication, reordering, crashes with loss of all
//! that was not synced, restarts; then everything heals and must come to one end.
//!
//! `ISONOMY_SEED=n` runs one seed, `ISONOMY_SEEDS=m` as many.

mod support;

use isonomy_protocol::contract::{ClientRef, Timing};
use isonomy_wire::answer::Answer;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use support::*;

/// What a link holds before it counts as broken.
const LINK_MESSAGES_MAX: usize = 512;

/// A client with one named stream: asks, retries elsewhere, remembers what it was told.
struct Client {
    name: String,
    keys: Vec<String>,
    /// The highest key_seq of the key that anyone had been told when the request was first made.
    told_before: Vec<u64>,
    answers: BTreeMap<u64, Answer>,
}

impl Client {
    fn answered_below(&self) -> u64 {
        (1..).find(|number| !self.answers.contains_key(number)).expect("numbers do not end")
    }
}

struct Run {
    world: World,
    random: SmallRng,
    clients: Vec<Client>,
    /// The highest key_seq that anyone was told, per key.
    told: BTreeMap<String, u64>,
    crashes: bool,
    loss: bool,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut random = SmallRng::seed_from_u64(seed);
        // Half of the seeds with five replicas and more: several faults need them.
        let n = if random.random_bool(0.5) { random.random_range(1..=4) } else { random.random_range(5..=9) };
        let clients = (0..random.random_range(1..5))
            .map(|at| Client {
                name: format!("c{at}"),
                keys: Vec::new(),
                told_before: Vec::new(),
                answers: BTreeMap::new(),
            })
            .collect();
        let (crashes, loss) = (random.random_bool(0.6), random.random_bool(0.6));
        // In a third of the seeds everybody suspects everybody all the time.
        let recover_us = if random.random_bool(0.3) { 15_000 } else { timing().recover_us };
        let mut world = World::with_timing(n, Timing { recover_us, ..timing() });
        world.check_every = 50;
        Run { world, random, clients, told: BTreeMap::new(), crashes, loss }
    }

    fn up(&mut self) -> Option<u8> {
        let up: Vec<u8> = (0..self.world.n).filter(|id| self.world.is_up(*id)).collect();
        (!up.is_empty()).then(|| up[self.random.random_range(0..up.len())])
    }

    fn ask(&mut self) {
        let Some(node) = self.up() else { return };
        let which = self.random.random_range(0..self.clients.len());
        let client = &mut self.clients[which];
        let fresh = client.keys.len() < 20 && self.random.random_bool(0.6);
        if fresh {
            let keys = ["a", "b", "c", "d"];
            let key = keys[self.random.random_range(0..keys.len())];
            client.told_before.push(self.told.get(key).copied().unwrap_or(0));
            client.keys.push(key.into());
        }
        if client.keys.is_empty() {
            return;
        }
        let number = if fresh { client.keys.len() } else { self.random.random_range(1..=client.keys.len()) };
        self.send(node, which, number as u64);
    }

    fn send(&mut self, node: u8, which: usize, number: u64) {
        let client = &self.clients[which];
        if client.answers.contains_key(&number) {
            return;
        }
        let key = &client.keys[number as usize - 1];
        let payload = decide(&client.name, number, client.answered_below(), key);
        let from = ClientRef { connection: which as u64 + 1, tag: number };
        self.world.request(node, from, payload);
    }

    fn collect(&mut self) {
        for node in 0..self.world.n {
            let replies = std::mem::take(&mut self.world.nodes[node as usize].replies);
            for reply in replies.into_iter().filter(|reply| reply.outcome.is_ok()) {
                for (from, answer) in answers_of(reply) {
                    let client = &mut self.clients[from.connection as usize - 1];
                    let known = client.answers.entry(from.tag).or_insert_with(|| answer.clone());
                    assert!(
                        *known == answer || answer == Answer::Duplicate,
                        "a retry was answered {answer:?}, first {known:?}"
                    );
                    let (key, number) = (&client.keys[from.tag as usize - 1], from.tag as usize - 1);
                    let told = self.told.entry(key.clone()).or_default();
                    *told = key_seq(known).max(*told);
                    assert!(key_seq(known) > client.told_before[number], "V14: an answer from before");
                }
            }
        }
    }

    /// Delivers from one link: a single message, or a burst as a busy link would.
    fn network(&mut self) {
        let links: Vec<(u8, u8)> =
            self.world.links.iter().filter(|(_, queue)| !queue.is_empty()).map(|(link, _)| *link).collect();
        if links.is_empty() {
            return;
        }
        let link = links[self.random.random_range(0..links.len())];
        let burst = if self.random.random_bool(0.7) { 1 } else { 64 };
        for _ in 0..burst {
            self.deliver_one(link);
        }
        // Whoever is so slow loses the connection and all that was on it.
        if self.world.links.get(&link).is_some_and(|queue| queue.len() > LINK_MESSAGES_MAX) {
            self.world.lose(link.0, link.1);
        }
    }

    fn deliver_one(&mut self, link: (u8, u8)) {
        let Some(queue) = self.world.links.get_mut(&link).filter(|queue| !queue.is_empty()) else { return };
        let place = if self.loss { self.random.random_range(0..queue.len()) } else { 0 };
        let send = queue.remove(place).expect("it is in range");
        if self.loss && self.random.random_bool(0.1) {
            return;
        }
        if self.loss && self.random.random_bool(0.1) {
            queue.push_back(send.clone());
        }
        self.world.deliver(link.0, send);
    }

    fn crash_or_restart(&mut self) {
        let id = self.random.random_range(0..self.world.n);
        if !self.world.is_up(id) {
            self.world.start(id);
            return;
        }
        let down = (0..self.world.n).filter(|id| !self.world.is_up(*id)).count();
        let all = self.random.random_bool(0.1);
        if all || down < (self.world.n as usize - 1) / 2 {
            if self.random.random_bool(0.5) { self.world.crash(id) } else { self.world.crash_quietly(id) }
        }
    }

    fn disturb(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.random.random_range(0..100) {
                0..=11 => self.ask(),
                12..=69 => self.network(),
                70..=87 => {
                    if let Some(node) = self.up() {
                        self.world.sync(node);
                    }
                }
                88..=97 => {
                    let micros = self.random.random_range(1_000..60_000);
                    self.world.pass(micros);
                }
                _ if self.crashes => self.crash_or_restart(),
                _ => {}
            }
            self.collect();
        }
    }

    /// Everything works again, but in some runs up to f stay dead at first. Clients retry: all
    /// must be decided, once, and be the same.
    fn heal(&mut self) {
        let down: Vec<u8> = (0..self.world.n).filter(|id| !self.world.is_up(*id)).collect();
        let may_stay_dead = (self.world.n as usize - 1) / 2;
        let dead = if self.random.random_bool(0.5) { may_stay_dead.min(down.len()) } else { 0 };
        down[dead..].iter().for_each(|id| self.world.start(*id));
        self.come_to_an_end();
        if dead > 0 {
            self.world.assert_converged();
            down[..dead].iter().for_each(|id| self.world.start(*id));
            self.come_to_an_end();
        }
    }

    fn come_to_an_end(&mut self) {
        let up: Vec<u8> = (0..self.world.n).filter(|id| self.world.is_up(*id)).collect();
        for round in 0..60 {
            self.world.run(500_000);
            self.collect();
            let open: Vec<(usize, u64)> = (0..self.clients.len())
                .flat_map(|which| {
                    (1..=self.clients[which].keys.len() as u64).map(move |number| (which, number))
                })
                .filter(|(which, number)| !self.clients[*which].answers.contains_key(number))
                .collect();
            let waiting = up.iter().any(|id| self.world.core(*id).status().unexecuted > 0);
            if open.is_empty() && !waiting {
                break;
            }
            for (which, number) in open {
                self.send(up[(which + round) % up.len()], which, number);
            }
        }
        // Long enough for the last word to be said again, in case it was lost.
        self.world.run(500_000);
        self.collect();
    }

    /// Each request has one answer, and the key_seqs of a key are 1, 2, 3 ... without gaps.
    fn verify(&mut self) {
        self.world.assert_converged();
        self.world.ghost.assert_visibility();
        let mut per_key: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for client in &self.clients {
            assert_eq!(client.answers.len(), client.keys.len(), "V16: {} was not answered", client.name);
            for (number, answer) in &client.answers {
                per_key.entry(&client.keys[*number as usize - 1]).or_default().push(key_seq(answer));
            }
        }
        for (key, mut seqs) in per_key {
            seqs.sort_unstable();
            let expected: Vec<u64> = (1..=seqs.len() as u64).collect();
            assert_eq!(seqs, expected, "key {key}: each decision is executed once");
        }
    }
}

fn run(seed: u64) {
    let mut run = Run::new(seed);
    let steps = run.random.random_range(50..1500);
    run.disturb(steps);
    run.heal();
    run.verify();
}

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("it is a number"))
}

#[test]
fn any_schedule_ends_in_agreement() {
    if let Some(seed) = number_from("ISONOMY_SEED") {
        return run(seed);
    }
    for seed in 0..number_from("ISONOMY_SEEDS").unwrap_or(40) {
        let result = std::panic::catch_unwind(|| run(seed));
        assert!(result.is_ok(), "seed {seed} fails; ISONOMY_SEED={seed} repeats it");
    }
}
