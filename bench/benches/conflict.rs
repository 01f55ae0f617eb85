//! The conflict index. Elements are commands.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use isonomy_protocol::conflict::Index;
use isonomy_wire::id::{InstanceId, ReplicaId};
use support::{COMMANDS, payloads};

/// More batches than the caches hold, so that a large table misses them as in production.
const BATCHES: u64 = 1024;

fn learn(c: &mut Criterion) {
    let mut group = c.benchmark_group("conflict index learn");
    group.throughput(Throughput::Elements(COMMANDS as u64));
    for keys in [10_000, 1_000_000] {
        let payloads = payloads(BATCHES, keys);
        let mut index = Index::default();
        let mut seq = 0;
        let mut learn_next = || {
            let payload = &payloads[(seq % BATCHES) as usize];
            seq += 1;
            index.learn(InstanceId::new(ReplicaId(0), seq), payload)
        };
        // Every key is known before measuring.
        for _ in 0..BATCHES {
            learn_next();
        }
        group.bench_function(BenchmarkId::new("keys", keys), |b| b.iter(&mut learn_next));
    }
    group.finish();
}

criterion_group!(benches, learn);
criterion_main!(benches);
