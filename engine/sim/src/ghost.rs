//! What no replica knows: everything that was ever written, said and decided.
//!
//! Each replica is seen through its log: a [`View`] holds what its records say of each instance,
//! once for all that was written and once for what is durable. The ghost only remembers; what
//! must be true of it is asserted in [`crate::check`].

use isonomy_protocol::contract::{Append, Send};
use isonomy_protocol::log::record::Record;
use isonomy_protocol::payload::Payload;
use isonomy_protocol::quorum::Quorum;
use isonomy_wire::deps::Deps;
use isonomy_wire::id::{Ballot, InstanceId, REPLICAS_MAX, ReplicaId};
use isonomy_wire::message::{PeerMessage, Phase, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// A value as Accept, Commit and records name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice {
    /// Nothing is executed; else the initial coordinator's batch is.
    pub nop: bool,
    /// Its deps, zero for a Nop.
    pub deps: Deps,
}

impl Choice {
    /// The value of a message or record.
    pub fn of(value: Value, deps: Deps) -> Choice {
        let nop = value == Value::Nop;
        Choice { nop, deps: if nop { Deps::NONE } else { deps } }
    }
}

/// What the records of one replica say of an instance.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// How far it has come.
    pub phase: Phase,
    /// bal.
    pub bal: Ballot,
    /// abal.
    pub abal: Ballot,
    /// dep of its pre-acceptance at ballot 0.
    pub pre_accepted: Option<Deps>,
    /// initDep, from a proposal or a validation.
    pub init_deps: Option<Deps>,
    /// The accepted or committed value.
    pub choice: Option<Choice>,
}

/// One replica as its records show it.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// By instance.
    pub seen: BTreeMap<InstanceId, Seen>,
    /// The end of the last block of own numbers.
    pub reserved: u64,
    /// How far the log of each replica reaches at least (G6).
    pub heard: [u64; REPLICAS_MAX],
}

impl View {
    /// Takes a record in.
    pub fn apply(&mut self, record: &Record) {
        match *record {
            Record::Reserve { end } | Record::Begin { reserved: end, .. } => self.reserved = end,
            Record::Heard { positions } => self.heard = positions,
            // What is carried forward says nothing new.
            Record::Stopped { .. } | Record::Floor { .. } | Record::Carried { .. } => {}
            Record::PreAccepted { id, deps, init_deps } => {
                let seen = self.seen.entry(id).or_default();
                seen.phase = Phase::PreAccepted;
                (seen.pre_accepted, seen.init_deps) = (Some(deps), Some(init_deps));
            }
            Record::Promised { id, ballot } => self.seen.entry(id).or_default().bal = ballot,
            Record::Validated { id, init_deps, .. } => {
                self.seen.entry(id).or_default().init_deps = Some(init_deps);
            }
            Record::Accepted { id, ballot, value, deps, .. } => {
                let seen = self.seen.entry(id).or_default();
                (seen.phase, seen.bal, seen.abal) = (Phase::Accepted, ballot, ballot);
                seen.choice = Some(Choice::of(value, deps));
            }
            Record::Committed { id, ballot, value, deps, .. } => {
                let seen = self.seen.entry(id).or_default();
                (seen.phase, seen.abal) = (Phase::Committed, ballot);
                seen.bal = seen.bal.max(ballot);
                seen.choice = Some(Choice::of(value, deps));
            }
        }
    }

    /// What it says of an instance.
    pub fn of(&self, id: InstanceId) -> Seen {
        self.seen.get(&id).copied().unwrap_or_default()
    }
}

/// Instances that touch a key, by row and place, and whether they write it.
#[derive(Debug, Default)]
pub struct Accesses(BTreeMap<(ReplicaId, u64), bool>);

impl Accesses {
    fn add(&mut self, id: InstanceId, writes: bool) {
        *self.0.entry((id.row, id.seq)).or_default() |= writes;
    }

    /// Those outside of `deps`.
    pub fn outside(&self, deps: Deps) -> impl Iterator<Item = (InstanceId, bool)> {
        let rows = (0..REPLICAS_MAX as u8).map(ReplicaId);
        let found = rows.flat_map(move |row| self.0.range((row, deps.of(row) + 1)..=(row, u64::MAX)));
        found.map(|((row, seq), writes)| (InstanceId::new(*row, *seq), *writes))
    }
}

/// What a replica has done and a crash would undo.
#[derive(Debug)]
pub enum Pending {
    /// It wrote a record.
    Record(Box<Append>),
    /// By what it had written it executed so far, and its state had this hash.
    State(Deps, u64),
    /// The same of a fence.
    Fence(u64, u64),
}

/// A replica's records: all, and those that are durable.
#[derive(Default)]
pub struct Book {
    /// Everything that was written.
    pub written: View,
    /// What a crash cannot take.
    pub durable: View,
    /// What is not durable, in order.
    pub pending: VecDeque<Pending>,
    /// The last fence that executed in its present life.
    pub fence: u64,
    /// Conflicting pre-acceptances are looked up here (V7): ids by hash, and whether they write.
    pub pre_accepted: HashMap<u64, Accesses>,
    /// Own proposals that were told to others, durable or not (D8).
    pub said: BTreeSet<InstanceId>,
}

/// A decision.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The value.
    pub choice: Choice,
    /// The largest `after` that any replica has.
    pub after: Deps,
}

/// See the module.
pub struct Ghost {
    /// The sizes of the cluster.
    pub quorum: Quorum,
    /// By replica.
    pub books: Vec<Book>,
    /// What was proposed: each id's only batch.
    pub payloads: BTreeMap<InstanceId, Payload>,
    /// initDep of each proposal.
    pub init_deps: BTreeMap<InstanceId, Deps>,
    /// All decisions that are durable anywhere.
    pub decisions: BTreeMap<InstanceId, Decision>,
    /// Decisions for a batch by hash, and whether they write it (V2).
    pub decided: HashMap<u64, Accesses>,
    /// What was said in Accepts.
    pub proposed: BTreeMap<(InstanceId, Ballot), Choice>,
    /// Replicas that accepted durably, and what (V10).
    pub accepted: BTreeMap<(InstanceId, Ballot), (Choice, BTreeSet<u8>)>,
    /// Values that a quorum has accepted, with the lowest ballot.
    pub chosen: BTreeMap<InstanceId, (Ballot, Choice)>,
    /// Committed on the fast path.
    pub fast: BTreeMap<InstanceId, Deps>,
    /// The state's hash at each frontier (V13).
    pub states: HashMap<Deps, u64>,
    /// The same at each fence.
    pub fences: HashMap<u64, u64>,
    /// What the replicas last had executed.
    pub frontiers: Vec<Deps>,
}

impl Ghost {
    /// Of a cluster that has done nothing.
    pub fn new(n: u8) -> Ghost {
        Ghost {
            quorum: Quorum::new(n),
            books: (0..n).map(|_| Book::default()).collect(),
            payloads: BTreeMap::new(),
            init_deps: BTreeMap::new(),
            decisions: BTreeMap::new(),
            decided: HashMap::new(),
            proposed: BTreeMap::new(),
            accepted: BTreeMap::new(),
            chosen: BTreeMap::new(),
            fast: BTreeMap::new(),
            states: HashMap::new(),
            fences: HashMap::new(),
            frontiers: vec![Deps::NONE; usize::from(n)],
        }
    }

    /// A replica writes a record.
    pub fn on_append(&mut self, node: u8, append: &Append) {
        crate::check::on_append(self, node, append);
        if let Record::PreAccepted { id, .. } = append.record {
            let payload = append.payload.as_ref().expect("the record carries the batch");
            let book = &mut self.books[usize::from(node)];
            for access in payload.footprint() {
                book.pre_accepted.entry(access.hash()).or_default().add(id, access.writes());
            }
        }
        let book = &mut self.books[usize::from(node)];
        book.written.apply(&append.record);
        book.pending.push_back(Pending::Record(Box::new(append.clone())));
    }

    /// The oldest `count` records of a replica are durable now.
    pub fn on_durable(&mut self, node: u8, mut count: usize) {
        loop {
            let pending = &mut self.books[usize::from(node)].pending;
            let is_due = pending.front().is_some_and(|next| count > 0 || !matches!(next, Pending::Record(_)));
            if !is_due {
                return;
            }
            match pending.pop_front() {
                Some(Pending::Record(append)) => {
                    count -= 1;
                    self.books[usize::from(node)].durable.apply(&append.record);
                    self.note_proposal(&append);
                    self.note_durable(node, &append.record);
                }
                Some(Pending::State(frontier, hash)) => {
                    crate::check::on_durable_state(self, node, frontier, hash);
                    self.states.entry(frontier).or_insert(hash);
                }
                Some(Pending::Fence(fence, hash)) => {
                    let known = *self.fences.entry(fence).or_insert(hash);
                    crate::check::on_durable_fence(node, fence, hash, known);
                }
                None => return,
            }
        }
    }

    /// What a record says of a proposal. An id counts as used once it was said or is durable:
    /// nobody hears of what a crash takes before that.
    fn note_proposal(&mut self, append: &Append) {
        if let (Some(id), Some(payload)) = (append.record.id(), &append.payload) {
            self.payloads.entry(id).or_insert_with(|| payload.clone());
        }
        if let Record::PreAccepted { id, init_deps, .. } | Record::Validated { id, init_deps, .. } =
            append.record
        {
            self.init_deps.entry(id).or_insert(init_deps);
        }
    }

    fn note_durable(&mut self, node: u8, record: &Record) {
        match *record {
            Record::Accepted { id, ballot, value, deps, .. } => {
                let choice = Choice::of(value, deps);
                let (_, oks) = self.accepted.entry((id, ballot)).or_insert((choice, BTreeSet::new()));
                oks.insert(node);
                if oks.len() >= self.quorum.slow() {
                    self.chosen.entry(id).or_insert((ballot, choice));
                    crate::check::on_chosen(self, id);
                }
            }
            Record::Committed { id, ballot, value, deps, after } => {
                let choice = Choice::of(value, deps);
                if ballot == Ballot::ZERO && !self.proposed.contains_key(&(id, ballot)) {
                    self.fast.entry(id).or_insert(deps);
                }
                let known = self.decisions.contains_key(&id);
                let decision = self.decisions.entry(id).or_insert(Decision { choice, after });
                decision.after.merge(&after);
                crate::check::on_decision(self, id, choice);
                if !known && !choice.nop {
                    for access in self.payloads[&id].footprint() {
                        self.decided.entry(access.hash()).or_default().add(id, access.writes());
                    }
                }
            }
            _ => {}
        }
    }

    /// A message leaves a replica.
    pub fn on_send(&mut self, node: u8, send: &Send) {
        crate::check::on_send(self, node, send);
        if let (PeerMessage::PreAccept { id, deps }, Some(payload)) = (&send.message, &send.payload) {
            self.payloads.entry(*id).or_insert_with(|| payload.clone());
            self.init_deps.entry(*id).or_insert(*deps);
            self.books[usize::from(node)].said.insert(*id);
        }
        if let PeerMessage::Accept { id, ballot, value, deps, .. } = send.message {
            self.proposed.entry((id, ballot)).or_insert(Choice::of(value, deps));
        }
    }

    /// A replica has executed so far. Others can hear of it once what it rests on is durable.
    pub fn on_executed(&mut self, node: u8, frontier: Deps, hash: u64) {
        crate::check::on_executed(self, node, frontier);
        self.frontiers[usize::from(node)] = frontier;
        self.books[usize::from(node)].pending.push_back(Pending::State(frontier, hash));
        self.on_durable(node, 0);
    }

    /// The last fence that has executed at a replica. Others can hear of it as they hear of states.
    pub fn on_fence(&mut self, node: u8, fence: u64, hash: u64) {
        let book = &mut self.books[usize::from(node)];
        if std::mem::replace(&mut book.fence, fence) != fence {
            book.pending.push_back(Pending::Fence(fence, hash));
            self.on_durable(node, 0);
        }
    }

    /// A process is gone, and its log was read back: so many records more are durable.
    pub fn on_restart(&mut self, node: u8, kept: usize) {
        self.on_durable(node, kept);
        let book = &mut self.books[usize::from(node)];
        book.pending.clear();
        book.fence = 0;
        book.written = book.durable.clone();
        let written = &book.written;
        let said = &book.said;
        let is_there = |id: InstanceId| {
            said.contains(&id) || written.seen.get(&id).is_some_and(|seen| seen.pre_accepted.is_some())
        };
        for ids in book.pre_accepted.values_mut() {
            ids.0.retain(|(row, seq), _| is_there(InstanceId::new(*row, *seq)));
        }
        self.frontiers[usize::from(node)] = Deps::NONE;
    }

    /// How many replicas pre-accepted exactly what was proposed, durably.
    pub fn equal_answers(&self, id: InstanceId) -> usize {
        let equal = |book: &&Book| {
            let seen = book.durable.of(id);
            seen.pre_accepted.is_some() && seen.pre_accepted == self.init_deps.get(&id).copied()
        };
        self.books.iter().filter(equal).count()
    }

    /// Whether one batch conflicts with another by the footprints that were seen.
    pub fn conflict(&self, a: InstanceId, b: InstanceId) -> bool {
        match (self.payloads.get(&a), self.payloads.get(&b)) {
            (Some(a), Some(b)) => isonomy_protocol::conflict::conflicts(a, b),
            _ => false,
        }
    }
}
