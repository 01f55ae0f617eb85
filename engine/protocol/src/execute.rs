//! The order of execution (law, section 6): strongly connected components of the committed
//! graph, in reverse topological order.
//!
//! The executor knows nothing of ballots or messages: its input is committed instances, and its output is the next
//! instance to execute. Every row executes in order, so it is enough to look at the first unexecuted instance
//! of each row, its *head*: a component whose deps are executed contains one.

use crate::conflict::conflicts;
use crate::mutant::{self, Mutant};
use crate::payload::Payload;
use isonomy_wire::deps::{Deps, Floor, Frontier};
use isonomy_wire::id::{InstanceId, RecordId, ReplicaId};
use std::collections::{BTreeMap, VecDeque};

/// A committed instance that waits for its turn.
#[derive(Clone, Debug)]
pub struct Vertex {
    /// The instances that must execute before or together with this one.
    pub dep: Deps,
    /// The instances that must execute before this one, whatever it conflicts with (R5).
    pub after: Deps,
    /// The batch; `None` for a Nop.
    pub payload: Option<Payload>,
}

/// The next step in the order of execution.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// An instance and its batch, `None` for a Nop, and whether more batches of its component follow.
    Execute(InstanceId, Option<Payload>, bool),
    /// A barrier or a Seal has executed with all of its component.
    Barrier(Barrier),
}

/// A point in the order at which the state is equal at every replica (G4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Barrier {
    /// The instance.
    pub id: InstanceId,
    /// The instances that the state at the barrier covers. All others that were executed before are Nops.
    pub frontier: Frontier,
    /// The record that the Seal names, if it is a Seal. Nothing executes after it (section 9).
    pub seal: Option<RecordId>,
}

/// Why the head of a row cannot execute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Blocker {
    /// The head was not examined since something changed.
    Unknown,
    /// This instance must be committed first.
    Commit(InstanceId),
    /// This instance must be executed first, by the gate.
    Gate(InstanceId),
}

/// Committed instances on their way to execution.
#[derive(Clone, Debug)]
pub struct Executor {
    n: usize,
    executed: Frontier,
    committed: Frontier,
    /// The instances behind the executed ones, per row.
    rows: Vec<VecDeque<Option<Vertex>>>,
    blockers: Vec<Blocker>,
    /// The steps that were found, in order, and not polled yet.
    ready: VecDeque<Step>,
    /// The frontier of the last barrier.
    at_barrier: Frontier,
    largest: usize,
    /// Whether a Seal has executed, so that nothing else will (section 9).
    is_ended: bool,
}

impl Executor {
    /// An executor for `n` rows without executed instances.
    pub fn new(n: usize) -> Executor {
        Executor {
            n,
            executed: Frontier::NONE,
            committed: Frontier::NONE,
            rows: vec![VecDeque::new(); n],
            blockers: vec![Blocker::Unknown; n],
            ready: VecDeque::new(),
            at_barrier: Frontier::NONE,
            largest: 0,
            is_ended: false,
        }
    }

    /// The frontier E: the executed instances, per row.
    pub fn executed(&self) -> &Frontier {
        &self.executed
    }

    /// C: the instances committed without gaps, per row.
    pub fn committed(&self) -> &Frontier {
        &self.committed
    }

    /// The instances for which execution waits, at most one per row.
    pub fn waiting_on(&self) -> impl Iterator<Item = InstanceId> {
        self.blockers.iter().zip(&self.rows).filter_map(|(blocker, row)| match blocker {
            Blocker::Commit(id) | Blocker::Gate(id) => Some(*id).filter(|_| row.iter().any(Option::is_some)),
            Blocker::Unknown => None,
        })
    }

    /// The number of instances of the largest component so far.
    pub fn largest_component(&self) -> usize {
        self.largest
    }

    /// An instance was committed. The caller tells each instance once.
    pub fn on_commit(&mut self, id: InstanceId, vertex: Vertex) {
        let row = id.row.index();
        let place = (id.seq - self.executed.of(id.row) - 1) as usize;
        if self.rows[row].len() <= place {
            self.rows[row].resize(place + 1, None);
        }
        assert!(self.rows[row][place].is_none(), "{id:?} was committed twice");
        self.rows[row][place] = Some(vertex);
        let mut prefix = (self.committed.of(id.row) - self.executed.of(id.row)) as usize;
        while self.rows[row].get(prefix).is_some_and(Option::is_some) {
            prefix += 1;
        }
        self.committed.set(id.row, self.executed.of(id.row) + prefix as u64);
        for blocker in &mut self.blockers {
            if *blocker == Blocker::Commit(id) {
                *blocker = Blocker::Unknown;
            }
        }
        if place == 0 {
            self.blockers[row] = Blocker::Unknown;
        }
    }

    /// Counts all instances up to `upto` as executed, because a snapshot covers them or they are Nops. Returns how
    /// many batches were passed over.
    pub fn skip_to(&mut self, upto: &Floor) -> usize {
        assert!(self.ready.is_empty(), "what is ready executes before anything is skipped");
        let mut batches = 0;
        for row in 0..self.n {
            while self.executed.0[row] < upto.0[row] {
                let vertex = self.rows[row].pop_front().flatten();
                batches += usize::from(vertex.is_some_and(|vertex| vertex.payload.is_some()));
                self.executed.0[row] += 1;
            }
            let prefix = self.rows[row].iter().take_while(|vertex| vertex.is_some()).count() as u64;
            self.committed.0[row] = self.executed.0[row] + prefix;
        }
        self.blockers.fill(Blocker::Unknown);
        batches
    }

    /// Counts all instances up to a barrier's frontier as executed, because the state is that of the barrier.
    pub fn skip_to_barrier(&mut self, frontier: &Frontier) {
        self.skip_to(&frontier.to_floor());
        self.at_barrier.merge(frontier);
    }

    /// The next step, if there is one.
    pub fn poll(&mut self) -> Option<Step> {
        while self.ready.is_empty() && !self.is_ended {
            let head = self.next_head()?;
            self.try_head(head);
        }
        self.ready.pop_front()
    }

    /// A committed head that was not examined since something changed.
    fn next_head(&self) -> Option<InstanceId> {
        (0..self.n).find_map(|row| {
            let is_there = self.rows[row].front().is_some_and(Option::is_some);
            let id = self.head(row);
            (is_there && self.blockers[row] == Blocker::Unknown).then_some(id)
        })
    }

    fn head(&self, row: usize) -> InstanceId {
        InstanceId::new(ReplicaId(row as u8), self.executed.0[row] + 1)
    }

    fn vertex(&self, id: InstanceId) -> Option<&Vertex> {
        let place = id.seq.checked_sub(self.executed.of(id.row) + 1)?;
        self.rows[id.row.index()].get(place as usize)?.as_ref()
    }

    /// Executes the component of a head and all components before it, as far as they are committed.
    fn try_head(&mut self, head: InstanceId) {
        let vertex = self.vertex(head).expect("a head is committed");
        // Nearly always all deps are executed, and no search is needed.
        let mut before = self.executed;
        before.add(head);
        let outcome = if before.has_passed(&vertex.dep) {
            self.gate(&[head]).map(|()| self.execute(&[head]))
        } else {
            Search::new(self).run(head)
        };
        if let Err(blocker) = outcome {
            self.blockers[head.row.index()] = blocker;
        }
    }

    /// An instance that must be committed before a deeper search makes sense.
    fn lacking(&self, vertex: &Vertex) -> Option<InstanceId> {
        (0..self.n).find_map(|row| {
            let committed = self.committed.0[row];
            let row = ReplicaId(row as u8);
            (vertex.dep.of(row) > committed).then(|| InstanceId::new(row, committed + 1))
        })
    }

    /// The gate: checks that every instance at or below the `after` of a member is executed, or committed and without
    /// conflict to the member (B25), or part of the component.
    fn gate(&self, component: &[InstanceId]) -> Result<(), Blocker> {
        let members = if mutant::is(Mutant::GateOfOne) { &component[..1] } else { component };
        for member in members {
            let vertex = self.vertex(*member).expect("members are committed");
            if self.executed.has_passed(&vertex.after) {
                continue;
            }
            for row in 0..self.n {
                for seq in self.executed.0[row] + 1..=vertex.after.0[row] {
                    let id = InstanceId::new(ReplicaId(row as u8), seq);
                    let Some(other) = self.vertex(id) else { return Err(Blocker::Commit(id)) };
                    let conflicting = match (&vertex.payload, &other.payload) {
                        (Some(mine), Some(theirs)) => {
                            conflicts(mine, theirs) || mutant::is(Mutant::StrictGate)
                        }
                        _ => false,
                    };
                    if conflicting && !component.contains(&id) {
                        return Err(Blocker::Gate(id));
                    }
                }
            }
        }
        Ok(())
    }

    /// G4: the first Seal of a component, or its first barrier, if it has one. Its frontier consists of the instances
    /// that the members name, and not of those that this replica has executed, since other replicas can have executed
    /// other Nops.
    fn barrier_of(&mut self, component: &[InstanceId]) -> Option<Barrier> {
        let members = || component.iter().filter_map(|id| Some((*id, self.vertex(*id)?)));
        let batches = || members().filter_map(|(id, vertex)| Some((id, vertex, vertex.payload.as_ref()?)));
        let mut barriers = batches().filter(|(_, _, payload)| payload.is_barrier()).peekable();
        let (first, ..) = *barriers.peek()?;
        let seal = barriers.find_map(|(id, _, payload)| Some((id, payload.seals()?)));
        let mut frontier = self.at_barrier;
        for (member, vertex, _) in batches() {
            frontier.pass(&vertex.dep);
            if !mutant::is(Mutant::BarrierWithoutAfter) {
                frontier.pass(&vertex.after);
            }
            frontier.add(member);
        }
        self.at_barrier = frontier;
        let (id, seal) = seal.map_or((first, None), |(id, record)| (id, Some(record)));
        Some(Barrier { id, frontier, seal })
    }

    /// Moves a component, sorted, to the ready steps.
    fn execute(&mut self, component: &[InstanceId]) {
        self.largest = self.largest.max(component.len());
        let barrier = self.barrier_of(component);
        let has_batch = |id: &&InstanceId| self.vertex(**id).is_some_and(|vertex| vertex.payload.is_some());
        let last = component.iter().rev().find(has_batch).copied();
        let mut has_more = last.is_some();
        for id in component {
            assert_eq!(*id, self.head(id.row.index()), "rows execute in order");
            let vertex = self.rows[id.row.index()].pop_front().flatten().expect("members are committed");
            self.executed.set(id.row, id.seq);
            self.blockers[id.row.index()] = Blocker::Unknown;
            has_more &= Some(*id) != last;
            self.ready.push_back(Step::Execute(*id, vertex.payload, has_more));
        }
        self.is_ended |=
            barrier.is_some_and(|barrier| barrier.seal.is_some()) && !mutant::is(Mutant::PastTheSeal);
        self.ready.extend(barrier.map(Step::Barrier));
        // A head that waited for an execution may be examined again.
        for blocker in &mut self.blockers {
            if matches!(blocker, Blocker::Gate(_)) {
                *blocker = Blocker::Unknown;
            }
        }
    }
}

/// Tarjan's algorithm with a stack of its own, since chains can be long.
struct Search<'a> {
    executor: &'a mut Executor,
    nodes: BTreeMap<InstanceId, TarjanNode>,
    stack: Vec<InstanceId>,
    path: Vec<Edge>,
}

#[derive(Clone, Copy)]
struct TarjanNode {
    index: usize,
    low: usize,
    on_stack: bool,
}

struct Edge {
    id: InstanceId,
    /// The next row whose edge the search follows.
    row: usize,
}

impl<'a> Search<'a> {
    fn new(executor: &'a mut Executor) -> Search<'a> {
        Search { executor, nodes: BTreeMap::new(), stack: Vec::new(), path: Vec::new() }
    }

    /// Executes every component that is found complete. The error says why the search stopped early.
    fn run(mut self, root: InstanceId) -> Result<(), Blocker> {
        self.enter(root)?;
        while let Some(step) = self.path.last_mut().filter(|_| !self.executor.is_ended) {
            let (id, row) = (step.id, step.row);
            if row == self.executor.n {
                self.path.pop();
                self.leave(id)?;
                continue;
            }
            step.row += 1;
            let Some(target) = self.edge(id, row) else { continue };
            match self.nodes.get(&target).copied() {
                None => self.enter(target)?,
                Some(node) if node.on_stack => self.lower(id, node.index),
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// The unexecuted instance that `id` points to in `row`: its predecessor in its own row, the
    /// last of its deps in any other.
    fn edge(&self, id: InstanceId, row: usize) -> Option<InstanceId> {
        let vertex = self.executor.vertex(id)?;
        let seq = if row == id.row.index() { id.seq - 1 } else { vertex.dep.0[row] };
        (seq > self.executor.executed.0[row]).then(|| InstanceId::new(ReplicaId(row as u8), seq))
    }

    fn enter(&mut self, id: InstanceId) -> Result<(), Blocker> {
        let Some(vertex) = self.executor.vertex(id) else { return Err(Blocker::Commit(id)) };
        if let Some(lacking) = self.executor.lacking(vertex) {
            return Err(Blocker::Commit(lacking));
        }
        let index = self.nodes.len();
        self.nodes.insert(id, TarjanNode { index, low: index, on_stack: true });
        self.stack.push(id);
        self.path.push(Edge { id, row: 0 });
        Ok(())
    }

    fn lower(&mut self, id: InstanceId, low: usize) {
        let node = self.nodes.get_mut(&id).expect("it is on the path");
        node.low = node.low.min(low);
    }

    /// Leaves `id` after all its edges were followed. A component that is complete then executes, if the gate lets
    /// it.
    fn leave(&mut self, id: InstanceId) -> Result<(), Blocker> {
        let node = self.nodes[&id];
        if let Some(parent) = self.path.last() {
            let parent = parent.id;
            self.lower(parent, node.low);
        }
        if node.low != node.index {
            return Ok(());
        }
        let start = self.stack.iter().rposition(|other| *other == id).expect("it is on the stack");
        let mut component = self.stack.split_off(start);
        component.sort_unstable();
        if mutant::is(Mutant::RowsInTurn) {
            component.sort_unstable_by_key(|id| (id.row.0, id.seq));
        }
        self.executor.gate(&component)?;
        for member in &component {
            self.nodes.get_mut(member).expect("members were entered").on_stack = false;
        }
        self.executor.execute(&component);
        Ok(())
    }
}
