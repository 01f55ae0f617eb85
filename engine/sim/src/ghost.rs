//! Knowledge that no replica has: everything that was ever written, said and decided.
//!
//! Each replica is seen through its log: a [`View`] holds what its records say of each instance, once for all records
//! that were written and once for the durable ones. The ghost only remembers; [`crate::check`] asserts what must be
//! true of its knowledge.

use crate::outbox::Publication;
use crate::restated::{Sizes, Touches};
use crate::view::{Choice, View};
use isonomy_protocol::contract::{Append, Position, Reply, Sealed, Send, StateAt};
use isonomy_protocol::log::record::Record;
use isonomy_protocol::payload::Payload;
use isonomy_wire::answer::Answers;
use isonomy_wire::deps::{Deps, Frontier};
use isonomy_wire::id::{Ballot, Epoch, InstanceId, REPLICAS_MAX, ReplicaId};
use isonomy_wire::message::{PeerMessage, Phase};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// Instances that touch a key, by row and place, and whether they write it.
#[derive(Debug, Default)]
pub struct Accesses(BTreeMap<(ReplicaId, u64), bool>);

impl Accesses {
    fn add(&mut self, id: InstanceId, writes: bool) {
        *self.0.entry((id.row, id.seq)).or_default() |= writes;
    }

    /// The instances outside of `deps`.
    pub fn outside(&self, deps: Deps) -> impl Iterator<Item = (InstanceId, bool)> {
        let rows = (0..REPLICAS_MAX as u8).map(ReplicaId);
        let found = rows.flat_map(move |row| self.0.range((row, deps.of(row) + 1)..=(row, u64::MAX)));
        found.map(|((row, seq), writes)| (InstanceId::new(*row, *seq), *writes))
    }
}

/// The steps of a replica that a crash would undo.
#[derive(Debug)]
pub enum Pending {
    /// The replica wrote a record.
    Record(Box<Append>),
    /// By its records so far the replica executed up to this frontier, and its state had this hash.
    State(Frontier, u64),
    /// By its records so far the replica executed this barrier, and its state had this hash.
    Barrier(u64, u64),
}

/// The counts of a replica since it was started, as its records show them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counted {
    /// Own instances that it has committed on the fast path.
    pub fast: u64,
    /// Own instances for which it took the slow path.
    pub slow: u64,
    /// Recoveries that it has begun.
    pub recoveries: u64,
}

/// A replica's records: all of them, and those that are durable.
#[derive(Default)]
pub struct Book {
    /// Everything that was written.
    pub written: View,
    /// The part that a crash cannot take.
    pub durable: View,
    /// The part that is not durable, in order.
    pub pending: VecDeque<Pending>,
    /// The durable records that the log still has.
    pub kept: VecDeque<Append>,
    /// How many records were durable.
    pub position: u64,
    /// The snapshot that its disk keeps: its barrier and frontier.
    pub snapshot: (u64, Frontier),
    /// All instances up to here are durably committed, with all that comes before them: a restart could execute them.
    pub executable: Deps,
    /// The last barrier that executed in its present life.
    pub barrier: u64,
    /// The index of pre-acceptances, in which conflicts are looked up (V7): ids by hash, and whether they write.
    pub pre_accepted: HashMap<u64, Accesses>,
    /// Own proposals that were told to others, durable or not (D8).
    pub said: BTreeSet<InstanceId>,
    /// The figures that the replica's present process must have counted.
    pub counted: Counted,
}

impl Book {
    /// Only the coordinator commits at ballot 0, and a replica that recovers promises its own ballot.
    fn count(&mut self, node: u8, record: &Record) {
        let (me, counted) = (ReplicaId(node), &mut self.counted);
        match *record {
            Record::Accepted { id, ballot: Ballot::ZERO, .. } if id.row == me => counted.slow += 1,
            Record::Committed { id, ballot: Ballot::ZERO, .. } if id.row == me => {
                counted.fast += u64::from(self.written.of(id).phase == Phase::PreAccepted);
            }
            Record::Promised { ballot, .. } if ballot.replica == me => counted.recoveries += 1,
            _ => {}
        }
    }
}

/// A decision.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The value.
    pub choice: Choice,
    /// The largest `after` that any replica has.
    pub after: Deps,
}

/// Everything that was ever written, said and decided.
pub struct Ghost {
    /// The epoch.
    pub epoch: Epoch,
    /// Its end, as the first replica has told it (section 9).
    pub sealed: Option<Sealed>,
    /// What its publishers have published.
    pub publication: Publication,
    /// Where the present processes have ended it, durably or not.
    pub ends: Vec<Option<Frontier>>,
    /// The number of members. Learners have the places behind theirs.
    pub n: usize,
    /// The sizes of the cluster.
    pub quorum: Sizes,
    /// The books, by replica.
    pub books: Vec<Book>,
    /// The proposals: each id's only batch.
    pub payloads: BTreeMap<InstanceId, Payload>,
    /// The things that these batches touch.
    pub touches: BTreeMap<InstanceId, Touches>,
    /// initDep of each proposal.
    pub init_deps: BTreeMap<InstanceId, Deps>,
    /// All decisions that are durable anywhere.
    pub decisions: BTreeMap<InstanceId, Decision>,
    /// Decisions for a batch by hash, and whether they write it (V2).
    pub decided: HashMap<u64, Accesses>,
    /// The values that Accepts have carried.
    pub proposed: BTreeMap<(InstanceId, Ballot), Choice>,
    /// The values that replicas accepted durably, and these replicas (V10).
    pub accepted: BTreeMap<(InstanceId, Ballot), (Choice, BTreeSet<u8>)>,
    /// Values that a quorum has accepted, with the lowest ballot.
    pub chosen: BTreeMap<InstanceId, (Ballot, Choice)>,
    /// The instances that were committed on the fast path, and their deps.
    pub fast: BTreeMap<InstanceId, Deps>,
    /// The state's hash at each frontier (V13).
    pub states: HashMap<Frontier, u64>,
    /// The state's hash at each barrier.
    pub barriers: HashMap<u64, u64>,
    /// The instances that the replicas had executed last.
    pub frontiers: Vec<Frontier>,
}

impl Ghost {
    /// Of an epoch in which nothing was done.
    pub fn new(n: u8, epoch: Epoch) -> Ghost {
        Ghost {
            epoch,
            sealed: None,
            publication: Publication::default(),
            ends: vec![None; usize::from(n)],
            n: usize::from(n),
            quorum: Sizes::of(n),
            books: (0..n).map(|_| Book::default()).collect(),
            payloads: BTreeMap::new(),
            touches: BTreeMap::new(),
            init_deps: BTreeMap::new(),
            decisions: BTreeMap::new(),
            decided: HashMap::new(),
            proposed: BTreeMap::new(),
            accepted: BTreeMap::new(),
            chosen: BTreeMap::new(),
            fast: BTreeMap::new(),
            states: HashMap::new(),
            barriers: HashMap::new(),
            frontiers: vec![Frontier::NONE; usize::from(n)],
        }
    }

    /// A learner begins with an empty directory, at a place that may have been another one's.
    pub fn on_learner(&mut self, place: u8) {
        let places = self.books.len().max(usize::from(place) + 1);
        self.books.resize_with(places, Book::default);
        self.ends.resize(places, None);
        self.frontiers.resize(places, Frontier::NONE);
        let place = usize::from(place);
        (self.books[place], self.ends[place], self.frontiers[place]) =
            (Book::default(), None, Frontier::NONE);
    }

    /// The books of the members. What a learner has written counts for no quorum (section 9).
    pub fn members(&self) -> &[Book] {
        &self.books[..self.n]
    }

    /// A replica writes a record.
    pub fn on_append(&mut self, node: u8, append: &Append) {
        crate::check::on_append(self, node, append);
        if let Record::PreAccepted { id, .. } = append.record {
            let payload = append.payload.as_ref().expect("the record carries the batch");
            let book = &mut self.books[usize::from(node)];
            for (thing, writes) in Touches::of(self.epoch, id, payload).things {
                book.pre_accepted.entry(thing).or_default().add(id, writes);
            }
        }
        let book = &mut self.books[usize::from(node)];
        book.count(node, &append.record);
        book.written.apply(append);
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
                    let book = &mut self.books[usize::from(node)];
                    book.durable.apply(&append);
                    book.position = append.position.0;
                    self.note_proposal(&append);
                    self.note_durable(node, &append.record);
                    self.books[usize::from(node)].kept.push_back(*append);
                }
                Some(Pending::State(frontier, hash)) => {
                    crate::check::on_durable_state(self, node, frontier, hash);
                    self.states.entry(frontier).or_insert(hash);
                }
                Some(Pending::Barrier(barrier, hash)) => {
                    let known = *self.barriers.entry(barrier).or_insert(hash);
                    crate::check::on_durable_barrier(node, barrier, hash, known);
                }
                None => return,
            }
        }
    }

    /// Notes what a record says of a proposal. An id counts as used once it was said or is durable, since nobody
    /// hears of an id that a crash takes before that.
    fn note_proposal(&mut self, append: &Append) {
        if let (Some(id), Some(payload)) = (append.record.id(), &append.payload) {
            self.note_payload(id, payload);
        }
        if let Record::PreAccepted { id, init_deps, .. } | Record::Validated { id, init_deps, .. } =
            append.record
        {
            self.init_deps.entry(id).or_insert(init_deps);
        }
    }

    fn note_payload(&mut self, id: InstanceId, payload: &Payload) {
        if let Entry::Vacant(fresh) = self.payloads.entry(id) {
            fresh.insert(payload.clone());
            self.touches.insert(id, Touches::of(self.epoch, id, payload));
        }
    }

    fn note_durable(&mut self, node: u8, record: &Record) {
        match *record {
            Record::Accepted { id, ballot, value, deps, .. } => {
                let choice = Choice::of(value, deps);
                let (_, oks) = self.accepted.entry((id, ballot)).or_insert((choice, BTreeSet::new()));
                if usize::from(node) < self.n {
                    oks.insert(node);
                }
                if oks.len() >= self.quorum.slow {
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
                crate::check::on_decision(self, id, ballot, choice);
                if !known && !choice.nop {
                    let Touches { things, made } = &self.touches[&id];
                    for (thing, writes) in things.iter().chain(made) {
                        self.decided.entry(*thing).or_default().add(id, *writes);
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
            self.note_payload(*id, payload);
            self.init_deps.entry(*id).or_insert(*deps);
            self.books[usize::from(node)].said.insert(*id);
        }
        if let PeerMessage::Accept { id, ballot, value, deps, .. } = send.message {
            self.proposed.entry((id, ballot)).or_insert(Choice::of(value, deps));
        }
    }

    /// An answer leaves a replica.
    pub fn on_reply(&mut self, node: u8, reply: &Reply) {
        let Ok(response) = &reply.outcome else { return };
        let answers = Answers::parse(response.clone()).expect("responses decode");
        // What an earlier epoch has answered is repeated from the state in which this one began.
        let here = self.epoch;
        for (_, id) in answers.instances().filter(|(epoch, _)| *epoch == here) {
            let rests_on = self.executable(node, id);
            crate::check::on_answer(node, id, rests_on);
        }
    }

    /// Whether an instance and all that comes before it are durably committed at a replica. The error is an instance
    /// that is not.
    fn executable(&mut self, node: u8, id: InstanceId) -> Result<(), InstanceId> {
        let Book { durable, executable, .. } = &mut self.books[usize::from(node)];
        let mut upto = *executable;
        upto.merge(&durable.floor.to_deps());
        let (mut looked_at, mut wanted) = (upto, upto);
        wanted.add(id);
        while let Some(next) = first_outside(&looked_at, &wanted) {
            let seen = durable.of(next);
            let Some(decided) = seen.decided() else { return Err(next) };
            wanted.merge(&decided.deps);
            looked_at.set(next.row, next.seq);
        }
        *executable = looked_at;
        Ok(())
    }

    /// The file of a snapshot is durable at a replica.
    pub fn on_snapshot(&mut self, node: u8, barrier: u64, frontier: Frontier) {
        self.books[usize::from(node)].snapshot = (barrier, frontier);
    }

    /// A replica's log before this position may go.
    pub fn on_cut(&mut self, node: u8, position: Position) {
        let book = &mut self.books[usize::from(node)];
        while book.kept.front().is_some_and(|append| append.position < position) {
            book.kept.pop_front();
        }
        crate::check::on_cut(self, node);
    }

    /// A replica has executed up to this frontier. Others can hear of that once the records on which it rests are
    /// durable.
    pub fn on_executed(&mut self, node: u8, frontier: Frontier, hash: u64) {
        crate::check::on_executed(self, node, frontier);
        self.frontiers[usize::from(node)] = frontier;
        self.books[usize::from(node)].pending.push_back(Pending::State(frontier, hash));
        self.on_durable(node, 0);
    }

    /// The last barrier that has executed at a replica. Others can hear of it as they hear of states.
    pub fn on_barrier(&mut self, node: u8, StateAt { barrier, hash }: StateAt) {
        let book = &mut self.books[usize::from(node)];
        if std::mem::replace(&mut book.barrier, barrier) != barrier {
            book.pending.push_back(Pending::Barrier(barrier, hash));
            self.on_durable(node, 0);
        }
    }

    /// A replica has executed a Seal.
    pub fn on_end(&mut self, node: u8, frontier: Frontier) {
        self.ends[usize::from(node)] = Some(frontier);
    }

    /// A replica tells how the epoch has ended.
    pub fn on_sealed(&mut self, node: u8, sealed: Sealed) {
        let known = *self.sealed.get_or_insert(sealed);
        crate::check::on_end(node, sealed, known);
    }

    /// A process is gone, and its log was read back: so many records more are durable. Its disk keeps
    /// this snapshot.
    pub fn on_restart(&mut self, node: u8, kept: usize, snapshot: (u64, Frontier)) {
        self.on_durable(node, kept);
        let book = &mut self.books[usize::from(node)];
        book.snapshot = snapshot;
        book.durable.raise_floor(&snapshot.1.to_floor());
        book.pending.clear();
        (book.barrier, book.counted) = (0, Counted::default());
        book.written = book.durable.clone();
        let written = &book.written;
        let said = &book.said;
        let is_there = |id: InstanceId| said.contains(&id) || written.pre_accepted.contains_key(&id);
        for ids in book.pre_accepted.values_mut() {
            ids.0.retain(|(row, seq), _| is_there(InstanceId::new(*row, *seq)));
        }
        self.frontiers[usize::from(node)] = Frontier::NONE;
        self.ends[usize::from(node)] = None;
    }

    /// How many replicas pre-accepted exactly the proposed deps, durably.
    pub fn equal_answers(&self, id: InstanceId) -> usize {
        let equal = |book: &&Book| {
            let deps = book.durable.pre_accepted.get(&id);
            deps.is_some() && deps == self.init_deps.get(&id)
        };
        self.members().iter().filter(equal).count()
    }

    /// Whether one batch conflicts with another by the footprints that were seen.
    pub fn conflict(&self, a: InstanceId, b: InstanceId) -> bool {
        match (self.touches.get(&a), self.touches.get(&b)) {
            (Some(a), Some(b)) => a.conflict_with(b),
            _ => false,
        }
    }
}

/// The first instance of some row behind `behind` and not behind `upto`.
fn first_outside(behind: &Deps, upto: &Deps) -> Option<InstanceId> {
    let rows = behind.0.iter().zip(&upto.0).enumerate();
    let mut open = rows.filter(|(_, (behind, upto))| behind < upto);
    open.next().map(|(row, (behind, _))| InstanceId::new(ReplicaId(row as u8), behind + 1))
}
