//! What a client pays per command: submit, form frames, take the answers. Elements are commands.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use isonomy_wire::answer::{Answer, Answers, ResponseBuilder};
use isonomy_wire::command::Batch;
use isonomy_wire::id::{Epoch, InstanceId, ReplicaId, ShardId, StreamId};
use isonomy_wire::session::{Action, Config, Session};

const COMMANDS: u64 = 24 * 1024;

fn session(c: &mut Criterion) {
    let mut group = c.benchmark_group("session");
    group.throughput(Throughput::Elements(COMMANDS));
    let mut session = Session::new(Config::new(3, 1));
    (0..3).for_each(|replica| session.on_connected(ReplicaId(replica), ShardId(0)));
    let mut response = ResponseBuilder::new(Epoch(1), ShardId(0));
    let (mut made, mut instances) = (0u64, 0);
    group.bench_function("submit to outcome", |b| {
        b.iter(|| {
            for _ in 0..COMMANDS {
                made += 1;
                let key = u128::from(made).to_be_bytes();
                session.submit(0, &Action::Decide { key: &key, value: &[7; 48] }, made).expect("it fits");
            }
            while let Some(sent) = session.poll_transmit(0) {
                instances += 1;
                let id = InstanceId::new(ReplicaId(0), instances);
                let batch = Batch::parse(sent.payload, 0, |_| ()).expect("it is legal");
                if batch.parts()[0].stream == StreamId::NONE {
                    response.plain(id, 0, &Answer::Opened { stream: StreamId::NONE });
                } else {
                    (0..batch.commands()).for_each(|index| response.committed(id, index, 1));
                }
                let answers = Answers::parse(response.encode()).expect("it is legal");
                session.on_response(sent.replica, sent.tag, answers).expect("it fits");
            }
            let mut answered = 0;
            while let Some(outcome) = session.poll_outcome() {
                answered += outcome.tokens.len() as u64;
                session.recycle(outcome);
            }
            assert_eq!(answered, COMMANDS);
        });
    });
    group.finish();
}

criterion_group!(benches, session);
criterion_main!(benches);
