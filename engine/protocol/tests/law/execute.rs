//! Section 6: the order of execution, and what a barrier's frontier is (G4). One executor, told of commits in
//! every order that matters; the orders are written out.

use crate::support::solo::upto;
use crate::support::{barrier, decide, id};
use isonomy_protocol::execute::{Executor, Step, Vertex};
use isonomy_protocol::payload::Payload;
use isonomy_wire::deps::Deps;
use isonomy_wire::id::{InstanceId, ReplicaId};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};

type Graph = BTreeMap<InstanceId, Vertex>;

fn batch(key: &str) -> Option<Payload> {
    Some(decide(&format!("session of {key}"), 1, 0, key))
}

/// An instance of three rows: what it depends on beside its own row, and what it is after.
fn vertex(payload: Option<Payload>, dep: [u64; 3], after: [u64; 3]) -> Vertex {
    Vertex { dep: upto(dep), after: upto(after), payload }
}

/// Commits in this order: what executes, each step as text, a component in one line.
fn run(graph: &Graph, commits: &[InstanceId]) -> Vec<String> {
    let mut executor = Executor::new(3);
    let mut lines = Vec::new();
    for id in commits {
        executor.on_commit(*id, graph[id].clone());
        let mut line = Vec::new();
        while let Some(step) = executor.poll() {
            line.push(match step {
                Step::Execute(id, Some(_), _) => format!("{id:?}"),
                Step::Execute(id, None, _) => format!("({id:?})"),
                Step::Barrier(barrier) => format!("barrier {:?} at {:?}", barrier.id, barrier.frontier),
            });
        }
        if !line.is_empty() {
            lines.push(line.join(" "));
        }
    }
    lines
}

/// The same for some orders of the commits in which the first row's last comes last, so that all waits for
/// it: they must end in one line.
fn run_all(graph: &Graph, last: InstanceId) -> String {
    let mut ids: Vec<InstanceId> = graph.keys().copied().filter(|id| *id != last).collect();
    let mut random = SmallRng::seed_from_u64(6);
    let mut outcomes = BTreeSet::new();
    for _ in 0..20 {
        ids.shuffle(&mut random);
        let commits: Vec<InstanceId> = ids.iter().copied().chain([last]).collect();
        outcomes.insert(run(graph, &commits).join(" / "));
    }
    assert_eq!(outcomes.len(), 1, "the order of commits is none of execution: {outcomes:?}");
    outcomes.pop_first().expect("there is one")
}

#[test]
pub(crate) fn section_6_inside_a_component_the_order_is_seq_then_row() {
    // 0.1 -> 1.2 -> 0.2 -> 2.1 -> 1.1 -> 0.2: one component of five.
    let component = Graph::from([
        (id(0, 1), vertex(batch("a"), [0, 2, 0], [0; 3])),
        (id(0, 2), vertex(batch("a"), [1, 0, 1], [0; 3])),
        (id(1, 1), vertex(batch("a"), [2, 0, 0], [0; 3])),
        (id(1, 2), vertex(batch("a"), [2, 1, 0], [0; 3])),
        (id(2, 1), vertex(batch("a"), [0, 1, 0], [0; 3])),
    ]);
    for last in component.keys() {
        assert_eq!(run_all(&component, *last), "0.1 1.1 2.1 0.2 1.2");
    }

    // A Nop has no deps but its row: 2.1 is outside of the component then, and behind it.
    let mut broken = component.clone();
    broken.insert(id(0, 2), vertex(None, [0, 0, 0], [0; 3]));
    assert_eq!(run(&broken, &[id(0, 2), id(2, 1), id(1, 2), id(0, 1), id(1, 1)]), ["0.1 1.1 (0.2) 1.2 2.1"]);
}

#[test]
fn section_6_components_execute_after_what_they_depend_on() {
    // {1.1, 2.1} is before {0.1, 1.2}, and 2.2 is behind both.
    let graph = Graph::from([
        (id(1, 1), vertex(batch("a"), [0, 0, 1], [0; 3])),
        (id(2, 1), vertex(batch("a"), [0, 1, 0], [0; 3])),
        (id(0, 1), vertex(batch("a"), [0, 2, 1], [0; 3])),
        (id(1, 2), vertex(batch("a"), [1, 1, 1], [0; 3])),
        (id(2, 2), vertex(batch("a"), [1, 2, 1], [0; 3])),
    ]);
    for last in [id(1, 1), id(2, 1)] {
        assert_eq!(run_all(&graph, last), "1.1 2.1 0.1 1.2 2.2");
    }
    let first = [id(2, 2), id(1, 1), id(2, 1), id(1, 2), id(0, 1)];
    assert_eq!(run(&graph, &first), ["1.1 2.1", "0.1 1.2 2.2"]);
}

#[test]
pub(crate) fn section_6_a_component_waits_for_the_after_of_each_of_its_members() {
    // {0.1, 1.1}; the one is after 2.1, the other after 2.2. Both conflict with them, and name them nowhere.
    let graph = Graph::from([
        (id(0, 1), vertex(batch("a"), [0, 1, 0], [0, 1, 1])),
        (id(1, 1), vertex(batch("a"), [1, 0, 0], [0, 0, 2])),
        (id(2, 1), vertex(batch("a"), [0, 0, 0], [0; 3])),
        (id(2, 2), vertex(batch("a"), [0, 0, 1], [0; 3])),
    ]);
    let steps = run(&graph, &[id(1, 1), id(0, 1), id(2, 1), id(2, 2)]);
    assert_eq!(steps, ["2.1", "2.2 0.1 1.1"], "its own member is no reason to wait");
    let steps = run(&graph, &[id(2, 2), id(1, 1), id(0, 1), id(2, 1)]);
    assert_eq!(steps, ["2.1 2.2 0.1 1.1"]);

    // What does not conflict, and what became a Nop, need only be committed (B25).
    let mut loose = graph.clone();
    loose.insert(id(2, 1), vertex(batch("b"), [0, 1, 0], [0; 3]));
    loose.insert(id(2, 2), vertex(None, [0, 0, 0], [0; 3]));
    let steps = run(&loose, &[id(0, 1), id(1, 1), id(2, 2), id(2, 1)]);
    assert_eq!(steps, ["0.1 1.1 2.1 (2.2)"]);
}

#[test]
pub(crate) fn g4_the_frontier_of_a_barrier_is_what_its_component_names_and_is_after() {
    // 0.2 is the barrier, 1.1 in its component; 2.1 is a Nop that has executed and is named by none of them.
    let mut graph = Graph::from([
        (id(0, 1), vertex(batch("a"), [0, 0, 0], [0; 3])),
        (id(0, 2), vertex(Some(barrier()), [1, 1, 0], [0; 3])),
        (id(1, 1), vertex(batch("a"), [2, 0, 0], [0; 3])),
        (id(2, 1), vertex(None, [0, 0, 0], [0; 3])),
        (id(2, 2), vertex(None, [0, 0, 1], [0; 3])),
    ]);
    let commits = [id(2, 1), id(2, 2), id(0, 1), id(1, 1), id(0, 2)];
    let steps = run(&graph, &commits);
    assert_eq!(steps, ["(2.1)", "(2.2)", "0.1", "1.1 0.2 barrier 0.2 at [2 1]"]);

    // The barrier was recovered, and is after one of them; so is a member.
    graph.insert(id(0, 2), vertex(Some(barrier()), [1, 1, 0], [0, 0, 1]));
    assert_eq!(run(&graph, &commits)[3], "1.1 0.2 barrier 0.2 at [2 1 1]");
    graph.insert(id(1, 1), vertex(batch("a"), [2, 0, 0], [0, 0, 2]));
    assert_eq!(run(&graph, &commits)[3], "1.1 0.2 barrier 0.2 at [2 1 2]");

    // What a Nop of the component is after says nothing, and neither does the Nop.
    graph.insert(id(1, 1), vertex(None, [0, 0, 0], [0, 0, 2]));
    let steps = run(&graph, &[id(2, 1), id(2, 2), id(0, 1), id(0, 2), id(1, 1)]);
    assert_eq!(steps[3], "(1.1) 0.2 barrier 0.2 at [2 1 1]");
}

#[test]
fn g4_the_frontier_of_a_barrier_covers_that_of_the_one_before() {
    let graph = Graph::from([
        (id(0, 1), vertex(Some(barrier()), [0, 1, 0], [0, 0, 1])),
        (id(1, 1), vertex(batch("a"), [0, 0, 0], [0; 3])),
        (id(2, 1), vertex(None, [0, 0, 0], [0; 3])),
        (id(1, 2), vertex(Some(barrier()), [1, 1, 0], [0; 3])),
    ]);
    let steps = run(&graph, &[id(2, 1), id(1, 1), id(0, 1), id(1, 2)]);
    assert_eq!(steps[2..], ["0.1 barrier 0.1 at [1 1 1]", "1.2 barrier 1.2 at [1 2 1]"]);
}

/// Any graph, against the definition: a component is whatever reaches each other, it executes in one piece,
/// in the order of (seq, row), and behind all that it reaches.
#[test]
fn section_6_every_graph_executes_as_it_is_defined() {
    for seed in 0..300 {
        let mut random = SmallRng::seed_from_u64(seed);
        let graph = random_graph(&mut random);
        let mut commits: Vec<InstanceId> = graph.keys().copied().collect();
        commits.shuffle(&mut random);
        let steps = run(&graph, &commits).join(" ");
        let order: Vec<InstanceId> = steps.split(' ').map(parsed).collect();
        assert_eq!(order.len(), graph.len(), "seed {seed}: all executes");
        let place: BTreeMap<InstanceId, usize> = order.iter().enumerate().map(|(at, id)| (*id, at)).collect();
        let reach: BTreeMap<InstanceId, BTreeSet<InstanceId>> =
            graph.keys().map(|id| (*id, reached(&graph, *id))).collect();
        for (one, theirs) in &reach {
            let component: Vec<InstanceId> =
                theirs.iter().copied().filter(|other| reach[other].contains(one)).collect();
            let places: Vec<usize> = component.iter().map(|id| place[id]).collect();
            let mut expected = component.clone();
            expected.sort_by_key(|id| (id.seq, id.row.0));
            let first = places.iter().min().expect("it has itself");
            assert_eq!(order[*first..first + component.len()], expected, "seed {seed}: {order:?}");
            let before = theirs.iter().filter(|other| !component.contains(other));
            assert!(
                before.into_iter().all(|other| place[other] < *first),
                "seed {seed}: {one:?} in {order:?}"
            );
        }
    }
}

fn random_graph(random: &mut SmallRng) -> Graph {
    let lengths: [u64; 3] = [0; 3].map(|_| random.random_range(1..6));
    let mut graph = Graph::new();
    for (row, length) in lengths.iter().enumerate() {
        for seq in 1..=*length {
            let mut dep = lengths.map(|length| {
                let far = random.random_bool(0.3);
                random.random_range(0..=if far { length } else { seq.min(length) })
            });
            dep[row] = seq - 1;
            let is_nop = random.random_bool(0.1);
            let dep = if is_nop { [0; 3] } else { dep };
            let payload = if is_nop { None } else { batch("a") };
            graph.insert(id(row as u8, seq), vertex(payload, dep, [0; 3]));
        }
    }
    graph
}

/// Itself and all that it has edges to, the edges of these, and so on.
fn reached(graph: &Graph, from: InstanceId) -> BTreeSet<InstanceId> {
    let (mut found, mut open) = (BTreeSet::from([from]), vec![from]);
    while let Some(at) = open.pop() {
        let Vertex { dep, .. } = &graph[&at];
        let mut named: Deps = *dep;
        named.set(at.row, at.seq - 1);
        let edges = (0..3).map(|row| id(row, named.of(ReplicaId(row)))).filter(|id| id.seq > 0);
        open.extend(edges.filter(|target| found.insert(*target)));
    }
    found
}

fn parsed(text: &str) -> InstanceId {
    let (row, seq) = text.trim_matches(['(', ')']).split_once('.').expect("row and number");
    id(row.parse().expect("a row"), seq.parse().expect("a number"))
}
