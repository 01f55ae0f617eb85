//! Every schedule of a small cluster: stateright explores what can happen to one or two commands
//! when messages take any time, syncs come late, one replica crashes and others recover at two
//! ballots.
//!
//! The states are those of the production core. Each replica has a clock of its own that jumps past
//! all of its deadlines when it ticks, and ticks are limited; so are all other choices.

mod support;

use isonomy_protocol::contract::{Config, Output, Position, Send, Time, Timing};
use isonomy_protocol::log::record::Record;
use isonomy_protocol::mutant::Mutant;
use isonomy_protocol::replica::Replica;
use isonomy_wire::deps::Deps;
use isonomy_wire::id::{InstanceId, ReplicaId};
use isonomy_wire::message::Value;
use stateright::{Checker, Model, Property};
use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use support::{Decision, Entry, decide, is_protocol};
use xxhash_rust::xxh3::Xxh3;

const N: u8 = 3;
const V1: &str = "V1: agreement";
const V2: &str = "V2: visibility";
const V13: &str = "V13: equal states at equal frontiers";
/// Longer than any timer, doublings included.
const TICK: u64 = 100_000_000;
/// Few, so that a restarted row has few numbers to recover.
const RESERVE_BLOCK: u64 = 2;

#[derive(Clone)]
struct Node {
    core: Option<Replica>,
    log: Vec<Entry>,
    durable: usize,
    ticks: u8,
    /// It may still crash, so its syncs are steps of their own. Those of the others need no time: a
    /// late sync that nobody interrupts is a late message.
    mortal: bool,
    /// Of the log, one for each length.
    digests: Vec<u64>,
    /// Of all the above, but for what only counts.
    digest: u64,
}

/// What is under way from one to another, each message with its digest.
type Link = VecDeque<(u64, Arc<Send>)>;

/// A replica that has not changed is shared by all states that have it.
#[derive(Clone)]
struct State {
    nodes: Vec<Arc<Node>>,
    links: BTreeMap<(u8, u8), Link>,
    ticks: u8,
    digest: u64,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Action {
    Deliver(u8, u8),
    Sync(u8),
    Tick(u8),
    Crash(u8),
    Start(u8),
}

/// What is explored.
struct Small {
    /// Replicas that are asked to decide the one key.
    coordinators: Vec<u8>,
    /// Replicas that may crash, once each.
    mortal: Vec<u8>,
    /// Ticks in all; each lets one replica recover, at a ballot of its own.
    ticks: u8,
    /// A rule that is broken on purpose.
    #[cfg_attr(not(feature = "mutants"), expect(dead_code, reason = "planted with the feature only"))]
    mutant: Option<Mutant>,
}

impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        self.digest == other.digest
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.digest.hash(hasher);
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let committed: Vec<_> = self.nodes.iter().map(|node| node.committed()).collect();
        write!(f, "{committed:?} {:?}", self.links)
    }
}

impl Node {
    fn now(&self) -> Time {
        Time(1_000_000 + TICK * u64::from(self.ticks))
    }

    fn start(&mut self, id: u8) {
        let config =
            Config { timing: Timing::default(), reserve_block: RESERVE_BLOCK, ..support::config(N, id) };
        let mut core = Replica::new(config, 7);
        for (record, payload) in &self.log {
            core.replay(record.clone(), payload.clone());
        }
        core.start(self.now(), Position(self.log.len() as u64));
        core.admit(self.now());
        self.core = Some(core);
    }

    fn sync(&mut self) {
        self.durable = self.log.len();
        let (now, position) = (self.now(), Position(self.durable as u64));
        if let Some(core) = &mut self.core {
            core.on_durable(now, position);
        }
    }

    /// Ends the turn; what it says.
    fn turn(&mut self) -> Vec<Send> {
        let now = self.now();
        let Some(core) = &mut self.core else { return Vec::new() };
        core.end_turn(now);
        let mut said = Vec::new();
        while let Some(output) = core.poll() {
            match output {
                Output::Append(append) => self.log.push((append.record, append.payload)),
                Output::Send(send) if is_protocol(&send.message) => said.push(send),
                Output::Send(_)
                | Output::Reply(_)
                | Output::Executed(_)
                | Output::Cut(_)
                | Output::Sealed(_) => {}
            }
        }
        core.check();
        said
    }

    fn seal(&mut self) {
        self.digests.truncate(self.log.len());
        for entry in &self.log[self.digests.len()..] {
            self.digests.push(hash(&(self.digests.last(), format!("{entry:?}"))));
        }
        let mut text = format!(
            "{:?} {:?} {} {:?}",
            self.core,
            self.digests.last(),
            self.durable,
            (self.ticks, self.mortal)
        );
        for counted in ["counters: Counters {", "marks: Marks("] {
            if let Some(at) = text.find(counted) {
                let end = at + text[at..].find([')', '}']).expect("it is closed");
                text.replace_range(at..end, "");
            }
        }
        self.digest = hash(&text);
    }

    /// What it has committed, durably.
    fn committed(&self) -> BTreeMap<InstanceId, Decision> {
        let durable = self.log[..self.durable].iter();
        let of = |(record, _): &Entry| match *record {
            Record::Committed { id, value, deps, after, .. } => {
                let nop = value == Value::Nop;
                Some((id, Decision { nop, deps: if nop { Deps::NONE } else { deps }, after }))
            }
            _ => None,
        };
        durable.filter_map(of).collect()
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = Xxh3::default();
    value.hash(&mut hasher);
    hasher.finish()
}

impl State {
    /// Changes one replica, ends its turn and sends what it says.
    fn change(&mut self, id: u8, what: impl FnOnce(&mut Node)) {
        let node = Arc::make_mut(&mut self.nodes[usize::from(id)]);
        what(node);
        let mut sends = node.turn();
        while !node.mortal && node.durable < node.log.len() {
            node.sync();
            sends.extend(node.turn());
        }
        node.seal();
        for send in sends {
            // Whoever is down hears nothing.
            if self.nodes[send.to.index()].core.is_some() {
                self.links
                    .entry((id, send.to.0))
                    .or_default()
                    .push_back((hash(&format!("{send:?}")), Arc::new(send)));
            }
        }
    }

    fn relink(&mut self) {
        let up: Vec<ReplicaId> =
            (0..N).filter(|id| self.nodes[usize::from(*id)].core.is_some()).map(ReplicaId).collect();
        for id in &up {
            let linked: Vec<ReplicaId> = up.iter().copied().filter(|other| other != id).collect();
            self.change(id.0, |node| {
                let now = node.now();
                node.core.as_mut().expect("it is up").on_links(now, &linked);
            });
        }
    }

    fn seal(&mut self) {
        self.links.retain(|_, queue| !queue.is_empty());
        let nodes: Vec<u64> = self.nodes.iter().map(|node| node.digest).collect();
        let said = |link: &Link| link.iter().map(|(digest, _)| *digest).collect::<Vec<_>>();
        let links: Vec<_> = self.links.iter().map(|(ends, link)| (*ends, said(link))).collect();
        self.digest = hash(&(nodes, links, self.ticks));
    }

    fn settle(&mut self) {
        loop {
            (0..N).for_each(|id| self.change(id, Node::sync));
            self.links.retain(|_, queue| !queue.is_empty());
            let Some((from, to)) = self.links.keys().next().copied() else { return };
            self.deliver(from, to);
        }
    }

    fn deliver(&mut self, from: u8, to: u8) {
        let (_, send) = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front).expect("it was there");
        self.change(to, |node| {
            let now = node.now();
            let core = node.core.as_mut().expect("nothing is sent to who is down");
            core.on_message(now, ReplicaId(from), send.message.clone(), send.payload.clone());
        });
    }
}

impl Model for Small {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let fresh = Node {
            mortal: false,
            core: None,
            log: Vec::new(),
            durable: 0,
            ticks: 0,
            digests: Vec::new(),
            digest: 0,
        };
        let nodes = (0..N).map(|_| Arc::new(fresh.clone())).collect();
        let mut state = State { nodes, links: BTreeMap::new(), ticks: 0, digest: 0 };
        (0..N).for_each(|id| state.change(id, |node| node.start(id)));
        state.relink();
        state.settle();
        for id in &self.mortal {
            Arc::make_mut(&mut state.nodes[usize::from(*id)]).mortal = true;
        }
        for id in &self.coordinators {
            state.change(*id, |node| {
                let (now, batch) = (node.now(), decide(&format!("{id}"), 1, 0, "k"));
                let core = node.core.as_mut().expect("it is up");
                core.on_request(now, Default::default(), batch).expect("the queue is not full");
            });
        }
        state.seal();
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend(state.links.keys().map(|(from, to)| Action::Deliver(*from, *to)));
        for (id, node) in (0..N).zip(&state.nodes) {
            if node.core.is_none() {
                actions.push(Action::Start(id));
                continue;
            }
            if node.mortal && node.durable < node.log.len() {
                actions.push(Action::Sync(id));
            }
            if state.ticks < self.ticks {
                actions.push(Action::Tick(id));
            }
            if node.mortal {
                actions.push(Action::Crash(id));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        // The checker has threads of its own.
        #[cfg(feature = "mutants")]
        isonomy_protocol::mutant::plant(self.mutant);
        let mut state = last.clone();
        match action {
            Action::Deliver(from, to) => state.deliver(from, to),
            Action::Sync(id) => state.change(id, Node::sync),
            Action::Tick(id) => {
                state.ticks += 1;
                state.change(id, |node| {
                    node.ticks += 1;
                    let now = node.now();
                    node.core.as_mut().expect("it is up").on_timeout(now);
                });
            }
            Action::Crash(id) => {
                state.change(id, |node| {
                    node.core = None;
                    node.mortal = false;
                    node.log.truncate(node.durable);
                });
                state.links.retain(|(from, to), _| *from != id && *to != id);
                state.relink();
            }
            Action::Start(id) => {
                state.change(id, |node| node.start(id));
                state.relink();
            }
        }
        state.seal();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Small>> {
        let mut properties = vec![
            Property::always(V1, |_, state| agree(state)),
            Property::always(V2, |_, state| see_each_other(state)),
            Property::always(V13, |_, state| are_equal(state)),
            Property::sometimes("all are decided", |model: &Small, state: &State| {
                let decided = |id: &u8| decided(state).contains_key(&InstanceId::new(ReplicaId(*id), 1));
                model.coordinators.iter().all(decided)
            }),
        ];
        if self.ticks > 0 {
            properties.push(Property::sometimes("one becomes a Nop", |_, state| {
                decided(state).values().any(|decision| decision.nop)
            }));
        }
        properties
    }
}

fn decided(state: &State) -> BTreeMap<InstanceId, Decision> {
    state.nodes.iter().flat_map(|node| node.committed()).collect()
}

fn agree(state: &State) -> bool {
    let decided = decided(state);
    let same =
        |(id, one): (InstanceId, Decision)| (one.nop, one.deps) == (decided[&id].nop, decided[&id].deps);
    state.nodes.iter().flat_map(|node| node.committed()).all(same)
}

/// All batches write the one key.
fn see_each_other(state: &State) -> bool {
    let real: Vec<_> = decided(state).into_iter().filter(|(_, decision)| !decision.nop).collect();
    let ordered = |at: usize| {
        let (a, left) = &real[at];
        real[at + 1..].iter().all(|(b, right)| left.names(*b) || right.names(*a))
    };
    (0..real.len()).all(ordered)
}

fn are_equal(state: &State) -> bool {
    let mut known = BTreeMap::new();
    let cores = state.nodes.iter().filter_map(|node| node.core.as_ref());
    cores
        .into_iter()
        .all(|core| *known.entry(core.executed().0).or_insert(core.state_hash()) == core.state_hash())
}

/// Of what is too large to explore whole, so many states are generated, unless the environment
/// says how many.
const PART: usize = 100_000;
const PART_FROM: &str = "ISONOMY_MODEL_STATES";

fn part() -> usize {
    let given = std::env::var(PART_FROM).ok();
    given.map_or(PART, |text| {
        text.parse().unwrap_or_else(|_| panic!("{PART_FROM}={text}: give a number of states"))
    })
}

/// Explores everything, or until so many states were generated; prints how many are different.
fn explore(what: &str, small: Small, most: usize) {
    let checked = small.checker().threads(2).target_state_count(most).spawn_dfs().join();
    let whole = checked.state_count() < most;
    let (states, steps) = (checked.unique_state_count(), checked.max_depth());
    println!("{what}: {} {states} states, up to {steps} steps", if whole { "all" } else { "some" });
    if whole {
        return checked.assert_properties();
    }
    // What a part does not reach, the rest may.
    [V1, V2, V13].iter().for_each(|name| checked.assert_no_discovery(name));
}

fn one(mortal: &[u8], ticks: u8) -> Small {
    Small { coordinators: vec![0], mortal: mortal.into(), ticks, mutant: None }
}

fn two(mortal: &[u8], ticks: u8) -> Small {
    Small { coordinators: vec![0, 1], ..one(mortal, ticks) }
}

#[test]
fn one_command_in_every_schedule() {
    explore("one command", one(&[], 0), usize::MAX);
    explore("one command, a recovery", one(&[], 1), usize::MAX);
    explore("one command, its coordinator crashes, a recovery", one(&[0], 1), usize::MAX);
    explore("one command, recoveries at two ballots", one(&[], 2), usize::MAX);
    explore("one command, its coordinator crashes, recoveries at two ballots", one(&[0], 2), part());
}

#[test]
fn two_commands_in_many_schedules() {
    explore("two commands", two(&[], 0), usize::MAX);
    explore("two commands, a coordinator crashes", two(&[0], 0), usize::MAX);
    explore("two commands, a recovery", two(&[], 1), part());
    explore("two commands, a coordinator crashes, recoveries at two ballots", two(&[0], 2), part());
}

/// Without the fault, this exploration is one of the above.
#[cfg(feature = "mutants")]
#[test]
fn a_broken_rule_is_found() {
    let mutant = Mutant::ManySupporters;
    let small = Small { mutant: Some(mutant), ..one(&[], 1) };
    let found = isonomy_protocol::mutant::is_noticed(mutant, || explore("a broken rule", small, usize::MAX));
    assert!(found, "nobody noticed");
}
