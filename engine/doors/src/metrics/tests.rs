use super::*;
use crate::view::ShardView;
use isonomy_wire::id::{ClusterId, Epoch, ReplicaId, ShardId};
use isonomy_wire::latency::Bucket;
use isonomy_wire::message::{ConsumeStatus, Member, PartitionStatus, PeerStatus, PublishStatus, Welcome};
use std::sync::Arc;

fn latency(buckets: &[(u64, u64)], sum_us: u64) -> Latency {
    let bucket = |&(upto_us, count)| Bucket { upto_us, count };
    Latency { buckets: buckets.iter().map(bucket).collect(), sum_us }
}

/// The text of a replica with these shards.
fn text_of(statuses: Vec<ShardStatus>) -> String {
    let welcome = Welcome {
        cluster: ClusterId(7),
        epoch: Epoch(1),
        replica: ReplicaId(2),
        shards: statuses.len() as u16,
        members: vec![Member { host: "db".into(), client_base: 7400 }; 3],
        durable: true,
    };
    let shard =
        |status| ShardView { is_serving: true, status: Some(Arc::new(status)), told: Some(Instant::now()) };
    let shards = statuses.into_iter().map(shard).collect();
    let view = ReplicaView { address: "db:7400".into(), welcome, shards, is_etcd_reached: Some(false) };
    let mut text = String::new();
    encode(&mut text, &Metrics::registry(Shown::new(view), "/".into())).unwrap();
    plain::from_open_metrics(&text)
}

fn shard_with(shard: u16, status: ShardStatus) -> ShardStatus {
    ShardStatus { shard: ShardId(shard), ..status }
}

#[track_caller]
fn assert_has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|it| it == *line), "no line `{line}` in:\n{text}");
    }
}

#[test]
fn each_value_has_the_labels_that_tell_it_apart() {
    let peers = vec![
        PeerStatus { replica: ReplicaId(0), behind: Some(9), ..PeerStatus::default() },
        PeerStatus { replica: ReplicaId(1), ..PeerStatus::default() },
    ];
    let partition =
        PartitionStatus { partition: 4, lag: Some(11), dead_letters: 2, ..PartitionStatus::default() };
    let consuming = ConsumeStatus { partitions: vec![partition], trouble: "no group".into() };
    let first = ShardStatus {
        proposals: 5,
        fast: 3,
        slow: 1,
        peers_connected: vec![ReplicaId(0)],
        peers,
        consuming: Some(consuming),
        publishing: Some(PublishStatus { is_publisher: true, ..PublishStatus::default() }),
        ..ShardStatus::default()
    };
    let text = text_of(vec![first, shard_with(1, ShardStatus::default())]);
    assert_has(
        &text,
        &[
            "epaxos_proposals_total{shard=\"0\"} 5.0",
            "epaxos_proposals_total{shard=\"1\"} 0.0",
            "epaxos_fast_path_success_ratio{shard=\"0\"} 0.75",
            "isonomy_instances_committed_total{shard=\"0\",path=\"slow\"} 1.0",
            "isonomy_peer_connected{shard=\"0\",peer=\"0\"} 1.0",
            "isonomy_peer_connected{shard=\"0\",peer=\"1\"} 0.0",
            "isonomy_peer_behind_instances{shard=\"0\",peer=\"0\"} 9.0",
            "kafka_consumer_lag{partition=\"4\"} 11.0",
            "isonomy_consumer_dead_letters_total{partition=\"4\"} 2.0",
            "isonomy_trouble{shard=\"0\",about=\"consuming\"} 1.0",
            "isonomy_trouble{shard=\"0\",about=\"publishing\"} 0.0",
            "isonomy_publisher{shard=\"0\"} 1.0",
            "isonomy_members 3.0",
            "etcd_cluster_health 0.0",
        ],
    );
    for absent in [
        "epaxos_fast_path_success_ratio{shard=\"1\"}",
        "isonomy_peer_behind_instances{shard=\"0\",peer=\"1\"}",
        "isonomy_publisher{shard=\"1\"}",
    ] {
        assert!(!text.contains(absent), "what is not known is not told as 0: {absent}");
    }
}

#[test]
fn durations_are_those_of_all_shards_in_seconds() {
    let shards = [latency(&[(40, 2), (900, 3)], 2_500), latency(&[(900, 1), (70_000_000, 1)], 61_000_000)];
    let shards = shards.into_iter().zip(0..);
    let statuses =
        shards.map(|(latency, shard)| shard_with(shard, ShardStatus { latency, ..ShardStatus::default() }));
    assert_has(
        &text_of(statuses.collect()),
        &[
            "# TYPE isonomy_command_duration_seconds histogram",
            "isonomy_command_duration_seconds_bucket{le=\"0.00005\"} 2",
            "isonomy_command_duration_seconds_bucket{le=\"0.0005\"} 2",
            "isonomy_command_duration_seconds_bucket{le=\"0.001\"} 6",
            "isonomy_command_duration_seconds_bucket{le=\"60.0\"} 6",
            "isonomy_command_duration_seconds_bucket{le=\"+Inf\"} 7",
            "isonomy_command_duration_seconds_count 7",
            "isonomy_command_duration_seconds_sum 61.0025",
            "isonomy_log_write_duration_seconds_count 0",
        ],
    );
}
