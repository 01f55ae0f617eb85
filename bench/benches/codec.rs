//! Requests, frames and log records: encoding and decoding. Elements are commands.

mod support;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use isonomy_protocol::contract::{Append, Position};
use isonomy_protocol::log::LogId;
use isonomy_protocol::log::group::{Group, GroupEncoder, group_bytes};
use isonomy_protocol::log::record::Record;
use isonomy_protocol::payload::Payload;
use isonomy_wire::answer::{Answers, ResponseBuilder};
use isonomy_wire::command::RequestBuilder;
use isonomy_wire::deps::Deps;
use isonomy_wire::frame::{Encoder, Kind, Scope, Splitter};
use isonomy_wire::id::{ClusterId, Epoch, InstanceId, ReplicaId, ShardId};
use isonomy_wire::message::ClientMessage;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::hint::black_box;
use support::{COMMANDS, payloads, request};

const SCOPE: Scope = Scope { kind: Kind::Client, epoch: Epoch(0), shard: ShardId(0) };

fn codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Elements(COMMANDS as u64));
    let mut builder = RequestBuilder::default();
    let mut random = SmallRng::seed_from_u64(1);
    group.bench_function("build request", |b| {
        b.iter(|| request(&mut builder, &mut random, 1_000_000, 1));
    });

    let payload = request(&mut builder, &mut random, 1_000_000, 1);
    let crc = crc32c::crc32c(&payload);
    let (mut encoder, mut out) = (Encoder::default(), Vec::new());
    group.bench_function("encode frame", |b| {
        b.iter(|| {
            out.clear();
            let crc = crc32c::crc32c(&payload);
            encoder.frame(&mut out, 0, SCOPE, &ClientMessage::Request { tag: 1 }, &payload, crc)
        });
    });

    out.clear();
    encoder.frame(&mut out, 0, SCOPE, &ClientMessage::Request { tag: 1 }, &payload, crc);
    let fresh = || {
        let mut splitter = Splitter::new(256 << 10);
        splitter.trust();
        splitter.room();
        splitter
    };
    group.bench_function("split a connection's first frame", |b| {
        b.iter_batched(
            fresh,
            |mut splitter| {
                let mut rest = &out[..];
                let frame = loop {
                    let room = splitter.room();
                    let (read, later) = rest.split_at(room.len().min(rest.len()));
                    room[..read.len()].copy_from_slice(read);
                    splitter.received(read.len());
                    rest = later;
                    if let Some(frame) = splitter.next_frame().expect("it is legal") {
                        break frame;
                    }
                };
                black_box(frame.decode::<ClientMessage>(SCOPE).expect("it is legal"));
                (splitter, frame)
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("parse payload", |b| b.iter(|| Payload::parse(payload.clone(), crc)));
    group.finish();
}

fn log(c: &mut Criterion) {
    let mut group = c.benchmark_group("log");
    group.throughput(Throughput::Elements(COMMANDS as u64));
    let payload = payloads(1, 1_000_000).remove(0);
    let record = Record::PreAccepted {
        id: InstanceId::new(ReplicaId(0), 77),
        deps: Deps([76, 50, 51, 0, 0, 0, 0, 0, 0]),
        init_deps: Deps([76, 50, 51, 0, 0, 0, 0, 0, 0]),
    };
    let id = LogId {
        cluster: ClusterId::of_name("bench"),
        incarnation: 1,
        replica: ReplicaId(0),
        epoch: Epoch(1),
        shard: ShardId(0),
    };
    let mut encoder = GroupEncoder::new(id);
    let mut buffer = vec![0; group_bytes(Some(&payload))];
    let append = Append { position: Position(1), record, payload: Some(payload) };
    group.bench_function("encode PreAccepted", |b| {
        b.iter(|| {
            let mut group = Group::new(Position(1));
            assert!(encoder.append(&mut group, &mut buffer, 4096, &append));
            encoder.finish(&group, &mut buffer, 4096, Position(0))
        });
    });
    group.finish();
}

fn reply(c: &mut Criterion) {
    let mut group = c.benchmark_group("reply");
    group.throughput(Throughput::Elements(COMMANDS as u64));
    let mut answers = ResponseBuilder::new(Epoch(1), ShardId(0));
    let instance = InstanceId::new(ReplicaId(0), 77);
    let (mut encoder, mut out) = (Encoder::default(), Vec::new());
    group.bench_function("encode response and frame", |b| {
        b.iter(|| {
            (0..COMMANDS as u32).for_each(|index| answers.committed(instance, index, 5));
            let response = answers.encode();
            let crc = crc32c::crc32c(&response);
            out.clear();
            encoder.frame(&mut out, 0, SCOPE, &ClientMessage::Response { tag: 1 }, &response, crc)
        });
    });
    (0..COMMANDS as u32).for_each(|index| answers.committed(instance, index, 5));
    let response = answers.encode();
    group.bench_function("parse response", |b| {
        b.iter(|| Answers::parse(response.clone()).expect("it is legal").committed());
    });
    group.finish();
}

criterion_group!(benches, codec, log, reply);
criterion_main!(benches);
