//! The status of a replica as JSON, as `isonomy status --output json` and `GET /v1/status` have it.

use crate::view::ReplicaView;
use isonomy_wire::latency::Latency;
use isonomy_wire::message::{
    ConsumeStatus, MessagesDropped, PartitionStatus, PeerStatus, PublishStatus, RequestsFailed, ShardStatus,
    Welcome,
};
use isonomy_wire::tuning::{Loss, PathMode, PathReason, PathStatus, Tuning};
use serde_json::{Map, Value, json};
use std::time::Instant;

/// A frontier with one entry per member.
pub fn rows(vector: &[u64], welcome: &Welcome) -> Vec<u64> {
    vector[..welcome.members.len()].to_vec()
}

/// A state hash as text, which no reader of JSON rounds; hashes are only compared.
pub fn hash_text(hash: u64) -> String {
    format!("{hash:016x}")
}

/// The bytes that have come of a peer's snapshot and the bytes of the whole, while a snapshot is fetched.
pub fn fetched(status: &ShardStatus) -> Option<(u64, u64)> {
    (status.fetched != (0, 0)).then_some(status.fetched)
}

/// The status of the replica whose shard 0 listens for clients at this address.
pub fn to_json<'a>(address: &str, welcome: &Welcome, shards: impl Iterator<Item = &'a ShardStatus>) -> Value {
    let members = welcome.members.iter().map(|it| json!({"host": it.host, "client_base": it.client_base}));
    let shards = shards.map(|status| {
        let shard = json!({
            "shard": status.shard.0,
            "frontier": rows(&status.frontier.0, welcome),
            "committed": rows(&status.committed.0, welcome),
            "is_learner": status.is_learner,
            "unexecuted": status.unexecuted,
            "state_hash": hash_text(status.state_hash),
            "floor": rows(&status.floor.0, welcome),
            "barrier": status.barrier,
            "barrier_hash": hash_text(status.barrier_hash),
            "waiting_on": status.waiting_on.iter().map(|id| format!("{id:?}")).collect::<Vec<_>>(),
            "keys": status.keys,
            "sessions": status.sessions,
            "sources": status.sources,
            "requests": requests_to_json(status),
            "decisions": status.decisions,
            "fast": status.fast,
            "slow": status.slow,
            "waited_in_vain": status.waited_in_vain,
            "path": path_to_json(&status.path),
            "settings": tuning_to_json(&status.tuning),
            "settings_trouble": (!status.tuning_trouble.is_empty()).then_some(&status.tuning_trouble),
            "recoveries": status.recoveries,
            "publishing": status.publishing.as_ref().map(publishing_to_json),
            "consuming": status.consuming.as_ref().map(consuming_to_json),
            "messages_dropped": dropped_to_json(&status.messages_dropped),
            "log_lines_dropped": status.log_lines_dropped,
            "clients": status.clients.0,
            "clients_max": status.clients.1,
            "operators": status.operators,
            "connections_refused": status.connections_refused,
            "connections_yielded": status.connections_yielded,
            "peers_connected": status.peers_connected.iter().map(|id| id.0).collect::<Vec<_>>(),
            "peers": status.peers.iter().map(peer_to_json).collect::<Vec<_>>(),
        });
        joined([shard, disk_to_json(status)])
    });
    json!({
        "address": address,
        "replica": welcome.replica.0,
        "member": welcome.is_member(),
        "epoch": welcome.epoch.0,
        "cluster": welcome.cluster.to_string(),
        "members": members.collect::<Vec<_>>(),
        "durability": if welcome.durable { "fsync" } else { "os" },
        "shards": shards.collect::<Vec<_>>(),
    })
}

/// The status of this replica, and besides how old it is, how many shards serve, and whether etcd answers.
pub(crate) fn of_view(view: &ReplicaView, now: Instant) -> Value {
    let mut status = to_json(&view.address, &view.welcome, view.statuses());
    let told = view.shards.iter().filter(|shard| shard.status.is_some());
    let ages =
        told.map(|shard| shard.told.map(|told| now.saturating_duration_since(told).as_millis() as u64));
    let shards = status["shards"].as_array_mut().into_iter().flatten();
    shards.zip(ages).for_each(|(shard, age)| shard["shard_age_ms"] = json!(age));
    status["shards_all"] = json!(view.shards.len());
    status["shards_serving"] = json!(view.shards.iter().filter(|shard| shard.is_serving).count());
    status["etcd_reached"] = json!(view.is_etcd_reached);
    status
}

/// One object with the fields of both.
fn joined(parts: [Value; 2]) -> Value {
    let fields = |part| if let Value::Object(fields) = part { fields } else { Map::new() };
    Value::Object(parts.into_iter().flat_map(fields).collect())
}

/// What a shard has on the disk.
fn disk_to_json(status: &ShardStatus) -> Value {
    json!({
        "snapshot": status.snapshot,
        "fetched": fetched(status).map(|(bytes, of)| json!({"bytes": bytes, "of": of})),
        "snapshot_trouble": (!status.snapshot_trouble.is_empty()).then_some(&status.snapshot_trouble),
        "snapshots_damaged": status.snapshots_damaged,
        "log_bytes": status.log_bytes,
        "log_held_bytes": status.log_held_bytes,
        "log_budget_bytes": status.log_budget_bytes,
        "log_latency_us": latency_to_json(&status.log_latency),
        "log_queued_bytes": status.log_queued_bytes,
        "disk_hung_ms": (status.disk_hung_ms > 0).then_some(status.disk_hung_ms),
    })
}

/// What clients have asked, and how it was answered.
fn requests_to_json(status: &ShardStatus) -> Value {
    let RequestsFailed { overloaded, unavailable, unknown, invalid } = status.requests_failed;
    let (queued, queued_bytes) = status.queued;
    json!({
        "commands": status.proposals,
        "failed": {
            "overloaded": overloaded,
            "unavailable": unavailable,
            "unknown": unknown,
            "invalid": invalid,
        },
        "queued": queued,
        "queued_bytes": queued_bytes,
        "latency_us": latency_to_json(&status.latency),
    })
}

/// Durations, with their buckets: the longest duration that falls into each, and the number of those that have.
fn latency_to_json(latency: &Latency) -> Value {
    let buckets: Vec<[u64; 2]> =
        latency.buckets.iter().map(|bucket| [bucket.upto_us, bucket.count]).collect();
    json!({
        "count": latency.count(),
        "sum": latency.sum_us,
        "p50": latency.quantile_us(0.5),
        "p99": latency.quantile_us(0.99),
        "p999": latency.quantile_us(0.999),
        "max": latency.quantile_us(1.0),
        "buckets": buckets,
    })
}

fn dropped_to_json(dropped: &MessagesDropped) -> Value {
    let MessagesDropped { not_admitted, impossible, forgotten, late, sealed, as_learner } = dropped;
    json!({
        "not_admitted": not_admitted,
        "impossible": impossible,
        "forgotten": forgotten,
        "late": late,
        "sealed": sealed,
        "as_learner": as_learner,
    })
}

/// How the publication of a shard stands.
pub fn publishing_to_json(publishing: &PublishStatus) -> Value {
    let PublishStatus { is_publisher, backlog_bytes, kept_from, decisions, transactions, trouble } =
        publishing;
    json!({
        "publisher": is_publisher,
        "backlog_bytes": backlog_bytes,
        "kept_from_barrier": kept_from.map(|start| start.barrier),
        "decisions": decisions,
        "transactions": transactions,
        "trouble": (!trouble.is_empty()).then_some(trouble),
    })
}

fn consuming_to_json(consuming: &ConsumeStatus) -> Value {
    let text = |trouble: &String| (!trouble.is_empty()).then(|| trouble.clone());
    let partition = |it: &PartitionStatus| {
        let PartitionStatus { partition, position, lag, decided, before, dead_letters, lost, trouble } = it;
        json!({
            "partition": partition,
            "position": position,
            "lag": lag,
            "decided": decided,
            "decided_before": before,
            "dead_letters": dead_letters,
            "lost": lost,
            "trouble": text(trouble),
        })
    };
    let partitions: Vec<Value> = consuming.partitions.iter().map(partition).collect();
    json!({"partitions": partitions, "trouble": text(&consuming.trouble)})
}

fn path_to_json(path: &PathStatus) -> Value {
    json!({
        "mode": if path.is_slow { "slow" } else { "fast" },
        "reason": match path.reason {
            PathReason::Usual => "usual",
            PathReason::Set => "set",
            PathReason::Judged(_) => "judged",
            PathReason::Agreed => "agreed",
        },
        "for_ms": path.for_ms,
        "loss": path.loss.map(|loss| match loss {
            Loss::Unreached => "unreached",
            Loss::InVain => "in_vain",
        }),
    })
}

/// The settings in force, under the names that `isonomy settings` has.
pub fn tuning_to_json(tuning: &Tuning) -> Value {
    json!({
        "fast_path_ms": tuning.fast_path_us / 1000,
        "resend_ms": tuning.resend_us / 1000,
        "recover_ms": tuning.recover_us / 1000,
        "suspect_ms": tuning.suspect_us / 1000,
        "path": match tuning.path {
            PathMode::Auto => "auto",
            PathMode::Fast => "fast",
            PathMode::Slow => "slow",
        },
        "guardrail_ms": tuning.guardrail_us / 1000,
        "rescue": tuning.rescue,
        "window": tuning.window,
    })
}

fn peer_to_json(peer: &PeerStatus) -> Value {
    json!({
        "replica": peer.replica.0,
        "opened": peer.opened,
        "ended": peer.ended,
        "heard": peer.heard,
        "silenced": peer.silenced,
        "lost": peer.lost,
        "resent": peer.resent,
        "retry_ms": (peer.retry_ms > 0).then_some(peer.retry_ms),
        "behind": peer.behind,
        "queued_bytes": peer.queued_bytes,
    })
}
