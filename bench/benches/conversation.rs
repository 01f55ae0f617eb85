//! What a client pays per command: submit, form frames, take the answers. Elements are commands.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use isonomy_wire::answer::{Answer, Answers, ResponseBuilder};
use isonomy_wire::command::Batch;
use isonomy_wire::conversation::{Action, Config, Conversation};
use isonomy_wire::id::{Epoch, InstanceId, ReplicaId, SessionId, ShardId};

const COMMANDS: u64 = 24 * 1024;

fn conversation(c: &mut Criterion) {
    let mut group = c.benchmark_group("conversation");
    group.throughput(Throughput::Elements(COMMANDS));
    let mut conversation = Conversation::new(Config::new(3, 1));
    (0..3).for_each(|replica| conversation.on_connected(ReplicaId(replica), ShardId(0)));
    let mut response = ResponseBuilder::new(Epoch(1), ShardId(0));
    let (mut made, mut instances) = (0u64, 0);
    group.bench_function("submit to outcome", |b| {
        b.iter(|| {
            for _ in 0..COMMANDS {
                made += 1;
                let key = u128::from(made).to_be_bytes();
                conversation
                    .submit(0, &Action::Decide { key: &key, value: &[7; 48] }, made)
                    .expect("it fits");
            }
            while let Some(sent) = conversation.poll_transmit(0) {
                instances += 1;
                let id = InstanceId::new(ReplicaId(0), instances);
                let batch = Batch::parse(sent.payload, 0, |_| ()).expect("it is legal");
                if batch.parts()[0].session == SessionId::NONE {
                    response.plain(id, 0, &Answer::Opened { session: SessionId::NONE });
                } else {
                    (0..batch.commands()).for_each(|index| response.committed(id, index, 1));
                }
                let answers = Answers::parse(response.encode()).expect("it is legal");
                conversation.on_response(sent.replica, sent.tag, answers).expect("it fits");
            }
            let mut answered = 0;
            while let Some(outcome) = conversation.poll_outcome() {
                answered += outcome.tokens.len() as u64;
                conversation.recycle(outcome);
            }
            assert_eq!(answered, COMMANDS);
        });
    });
    group.finish();
}

criterion_group!(benches, conversation);
criterion_main!(benches);
