//! Execution: the state machine (elements are commands) and the order (elements are instances).

mod support;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use isonomy_protocol::conflict::Index;
use isonomy_protocol::execute::{Executor, Vertex};
use isonomy_protocol::machine::Machine;
use isonomy_protocol::state::Place;
use isonomy_wire::deps::Deps;
use isonomy_wire::id::{Epoch, InstanceId, ReplicaId, ShardId};
use std::hint::black_box;
use support::{COMMANDS, payloads};

const BATCHES: u64 = 1024;
const ROWS: u64 = 3;
const INSTANCES_PER_ROW: u64 = 1000;

fn machine(c: &mut Criterion) {
    let mut group = c.benchmark_group("machine");
    group.throughput(Throughput::Elements(COMMANDS as u64));
    for keys in [10_000, 1_000_000] {
        // Their numbers go on from batch to batch; a second round would be retries, so each round
        // runs on a fresh session.
        let payloads = payloads(BATCHES, keys);
        let mut machine = Machine::new(Epoch(1), ShardId(0));
        let mut index = Index::default();
        let mut seq = 0;
        let mut execute_next = |places: &[Box<[Place]>]| {
            let at = (seq % BATCHES) as usize;
            let payload = &payloads[at];
            if at == 0 {
                machine.sessions.end(payload.batch().parts()[0].session);
            }
            seq += 1;
            let places = places.get(at).map_or(&[][..], |places| places);
            let id = InstanceId::new(ReplicaId(0), seq);
            machine.execute(id, payload, places, true, |_, response| {
                black_box(response);
            })
        };
        for _ in 0..BATCHES {
            index.note(&execute_next(&[]));
        }
        // As a shard does it from then on.
        let learn = |payload| index.learn(InstanceId::new(ReplicaId(0), 1), payload).places;
        let places: Vec<_> = payloads.iter().map(learn).collect();
        group.bench_function(BenchmarkId::new("execute, keys", keys), |b| b.iter(|| execute_next(&places)));
    }
    group.finish();
}

/// Commits in which every instance names `deps(row, seq)` of the other rows.
fn graph(deps: impl Fn(u64, u64, u64) -> u64) -> Vec<(InstanceId, Vertex)> {
    let payload = payloads(1, 1000).remove(0);
    let mut commits = Vec::new();
    for seq in 1..=INSTANCES_PER_ROW {
        for row in 0..ROWS {
            let id = InstanceId::new(ReplicaId(row as u8), seq);
            let mut dep = Deps::NONE;
            for other in 0..ROWS {
                let seq = if other == row { seq - 1 } else { deps(row, seq, other) };
                dep.set(ReplicaId(other as u8), seq);
            }
            commits.push((id, Vertex { dep, after: Deps::NONE, payload: Some(payload.clone()) }));
        }
    }
    commits
}

fn order(c: &mut Criterion) {
    let mut group = c.benchmark_group("execution order");
    group.throughput(Throughput::Elements(ROWS * INSTANCES_PER_ROW));
    // Each instance needs the one before it in every row.
    let chain = graph(|row, seq, other| if other < row { seq } else { seq - 1 });
    // The instances of one seq need each other.
    let cycles = graph(|_, seq, _| seq);
    let backwards = chain.iter().rev().cloned().collect();
    for (name, commits) in [("chain", chain), ("chain, last first", backwards), ("cycles", cycles)] {
        group.bench_function(name, |b| {
            b.iter_batched(
                || (Executor::new(ROWS as usize), commits.clone()),
                |(mut executor, commits)| {
                    let mut executed = 0;
                    for (id, vertex) in commits {
                        executor.on_commit(id, vertex);
                        executed += std::iter::from_fn(|| executor.poll()).count() as u64;
                    }
                    assert_eq!(executed, ROWS * INSTANCES_PER_ROW);
                    executor
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, machine, order);
criterion_main!(benches);
