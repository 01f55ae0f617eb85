//! The names of all metrics, and where their values come from. A counter's name has no `_total` here; the text adds it.

use super::Family;
use crate::view::ReplicaView;
use isonomy_tuning::limits::{Resource, limit};
use isonomy_tuning::{cpu, disk, process};
use isonomy_wire::message::{ConsumeStatus, PartitionStatus, PeerStatus, PublishStatus, ShardStatus};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// What a metric does with time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// It only grows, and begins anew with the process or the epoch.
    Counter,
    Gauge,
    Histogram,
}

const fn counter(name: &'static str, help: &'static str) -> Family {
    Family { kind: Kind::Counter, name, help }
}

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family { kind: Kind::Gauge, name, help }
}

const fn histogram(name: &'static str, help: &'static str) -> Family {
    Family { kind: Kind::Histogram, name, help }
}

fn number(value: u64) -> Option<f64> {
    Some(value as f64)
}

fn truth(value: bool) -> Option<f64> {
    Some(f64::from(value))
}

pub(super) const FAST_RATIO: Family = gauge(
    "epaxos_fast_path_success_ratio",
    "Share of the instances proposed here in the last minute or more that were committed on the fast path",
);
pub(super) const SHARD_AGE: Family = gauge(
    "isonomy_shard_age_seconds",
    "Time since the shard has told what it measures; about a second as a rule",
);
pub(super) const INFO: Family =
    gauge("isonomy_info", "Release, cluster id, place of the replica, and durability; the value is 1");
pub(super) const COMMAND_DURATION: Family = histogram(
    "isonomy_command_duration_seconds",
    "Time of commands from the arrival of their request at the shard to the answer; failed requests do not count",
);
pub(super) const LOG_WRITE_DURATION: Family = histogram(
    "isonomy_log_write_duration_seconds",
    "Time of the writes of the logs, each with the sync that the durability asks for",
);

type ValueOfShard = fn(&ShardStatus) -> Option<f64>;

/// One value for each shard.
pub(super) const OF_SHARD: &[(Family, ValueOfShard)] = &[
    (
        counter("epaxos_proposals", "Commands that clients have sent, those of failed requests included"),
        |it| number(it.proposals),
    ),
    (counter("isonomy_decisions", "Commands that were executed"), |it| number(it.decisions)),
    (counter("isonomy_recoveries", "Instances whose recovery was started here"), |it| number(it.recoveries)),
    (
        counter(
            "isonomy_fast_path_timeouts",
            "Instances proposed here that waited for a fast quorum in vain; they count as slow, too",
        ),
        |it| number(it.waited_in_vain),
    ),
    (gauge("isonomy_epoch", "Epoch in which the shard takes part"), |it| number(it.epoch.0.into())),
    (gauge("isonomy_learner", "Whether the shard copies the state and has no vote"), |it| {
        truth(it.is_learner)
    }),
    (gauge("isonomy_path_slow", "Whether the shard does not wait for fast quorums"), |it| {
        truth(it.path.is_slow)
    }),
    (gauge("isonomy_instances_unexecuted", "Instances that were seen here and are not executed"), |it| {
        number(it.unexecuted)
    }),
    (
        gauge("isonomy_instances_waited_for", "Instances that execution waits for; 16 are counted at most"),
        |it| number(it.waiting_on.len() as u64),
    ),
    (gauge("isonomy_requests_queued", "Requests that wait for an instance"), |it| number(it.queued.0)),
    (gauge("isonomy_requests_queued_bytes", "Bytes of these requests"), |it| number(it.queued.1)),
    (gauge("isonomy_keys", "Keys with a decision"), |it| number(it.keys)),
    (gauge("isonomy_sessions", "Open sessions of clients"), |it| number(it.sessions)),
    (gauge("isonomy_sources", "Known sources"), |it| number(it.sources)),
    (gauge("isonomy_barrier", "Barriers that have executed"), |it| number(it.barrier)),
    (gauge("isonomy_snapshot_barrier", "Barrier of the newest durable snapshot; 0 without one"), |it| {
        number(it.snapshot)
    }),
    (counter("isonomy_snapshots_damaged", "Times that the own snapshot was found damaged"), |it| {
        number(it.snapshots_damaged)
    }),
    (counter("isonomy_log_written_bytes", "Bytes written to the log"), |it| number(it.log_bytes)),
    (gauge("isonomy_log_held_bytes", "Bytes that the log holds on the disk"), |it| number(it.log_held_bytes)),
    (gauge("isonomy_log_budget_bytes", "Bytes that the log may hold before clients are refused"), |it| {
        number(it.log_budget_bytes)
    }),
    (gauge("isonomy_log_queued_bytes", "Bytes of the log that wait for the disk"), |it| {
        number(it.log_queued_bytes)
    }),
    (
        gauge(
            "isonomy_disk_hung_seconds",
            "How long a write that counts as hanging has been under way; 0 without one",
        ),
        |it| Some(it.disk_hung_ms as f64 / 1e3),
    ),
    (gauge("isonomy_clients", "Connections of clients"), |it| number(it.clients.0.into())),
    (gauge("isonomy_clients_max", "Places for connections of clients"), |it| number(it.clients.1.into())),
    (gauge("isonomy_operators", "Connections of operators"), |it| number(it.operators.into())),
    (
        counter(
            "isonomy_connections_refused",
            "Connections that were refused, because all places were taken",
        ),
        |it| number(it.connections_refused),
    ),
    (counter("isonomy_connections_yielded", "Idle connections that made room for others"), |it| {
        number(it.connections_yielded)
    }),
    (gauge("isonomy_publisher", "Whether this replica publishes the shard to Kafka"), |it| {
        truth(published(it)?.is_publisher)
    }),
    (
        gauge("isonomy_publish_backlog_bytes", "Bytes of decisions that this replica keeps for publication"),
        |it| number(published(it)?.backlog_bytes),
    ),
    (counter("isonomy_published_decisions", "Decisions that this replica has published to Kafka"), |it| {
        number(published(it)?.decisions)
    }),
    (counter("isonomy_published_transactions", "Transactions in which it has"), |it| {
        number(published(it)?.transactions)
    }),
];

fn published(status: &ShardStatus) -> Option<&PublishStatus> {
    status.publishing.as_ref()
}

type ValuesByReason = fn(&ShardStatus) -> Vec<(&'static str, f64)>;

/// Some values for each shard, with the label that tells them apart.
pub(super) const OF_REASON: &[(Family, &str, ValuesByReason)] = &[
    (counter("isonomy_instances_committed", "Instances proposed here that were committed"), "path", |it| {
        vec![("fast", it.fast as f64), ("slow", it.slow as f64)]
    }),
    (counter("isonomy_request_failures", "Requests of clients that failed"), "reason", |it| {
        let failed = &it.requests_failed;
        vec![
            ("overloaded", failed.overloaded as f64),
            ("unavailable", failed.unavailable as f64),
            ("unknown", failed.unknown as f64),
            ("invalid", failed.invalid as f64),
        ]
    }),
    (counter("isonomy_messages_dropped", "Messages of peers that had no effect"), "reason", |it| {
        let dropped = &it.messages_dropped;
        vec![
            ("not_admitted", dropped.not_admitted as f64),
            ("impossible", dropped.impossible as f64),
            ("forgotten", dropped.forgotten as f64),
            ("late", dropped.late as f64),
            ("sealed", dropped.sealed as f64),
            ("as_learner", dropped.as_learner as f64),
        ]
    }),
    (
        gauge("isonomy_trouble", "Whether the shard says in its status that this does not get on"),
        "about",
        |it| {
            let mut troubles = vec![
                ("snapshot", f64::from(!it.snapshot_trouble.is_empty())),
                ("settings", f64::from(!it.tuning_trouble.is_empty())),
            ];
            troubles.extend(published(it).map(|it| ("publishing", f64::from(!it.trouble.is_empty()))));
            troubles.extend(it.consuming.as_ref().map(|it| ("consuming", f64::from(has_trouble(it)))));
            troubles
        },
    ),
];

fn has_trouble(consuming: &ConsumeStatus) -> bool {
    !consuming.trouble.is_empty() || consuming.partitions.iter().any(|it| !it.trouble.is_empty())
}

type ValueOfPeer = fn(&ShardStatus, &PeerStatus) -> Option<f64>;

/// One value for each shard and peer.
pub(super) const OF_PEER: &[(Family, ValueOfPeer)] = &[
    (
        gauge("isonomy_peer_connected", "Whether the link with the peer works in both directions"),
        |it, peer| truth(it.peers_connected.contains(&peer.replica)),
    ),
    (
        gauge(
            "isonomy_peer_behind_instances",
            "Instances executed here that the peer has not said to have executed",
        ),
        |_, peer| number(peer.behind?),
    ),
    (gauge("isonomy_peer_queued_bytes", "Bytes that wait for the peer"), |_, peer| number(peer.queued_bytes)),
    (counter("isonomy_peer_links_opened", "Links to the peer that it has welcomed"), |_, peer| {
        number(peer.opened)
    }),
    (counter("isonomy_peer_messages_lost", "Messages to the peer that were never sent"), |_, peer| {
        number(peer.lost)
    }),
    (
        counter(
            "isonomy_peer_messages_resent",
            "Messages to the peer that were sent again, because no answer came",
        ),
        |_, peer| number(peer.resent),
    ),
];

type ValueOfPartition = fn(&PartitionStatus) -> Option<f64>;

/// One value for each partition that this replica consumes.
pub(super) const OF_PARTITION: &[(Family, ValueOfPartition)] = &[
    (
        gauge(
            "kafka_consumer_lag",
            "Offsets of the topic of proposals that are left to consume in the partition",
        ),
        |it| number(it.lag?),
    ),
    (counter("isonomy_consumer_decided", "Proposals of the partition that were decided"), |it| {
        number(it.decided)
    }),
    (
        counter(
            "isonomy_consumer_redelivered",
            "Proposals that were delivered again and had been decided before",
        ),
        |it| number(it.before),
    ),
    (
        counter(
            "isonomy_consumer_dead_letters",
            "Proposals that could not be proposed and went to the dead letters",
        ),
        |it| number(it.dead_letters),
    ),
    (
        counter(
            "isonomy_consumer_lost",
            "Proposals that were deleted from the topic before they were decided",
        ),
        |it| number(it.lost),
    ),
];

/// What belongs to no shard. A family without a value is known to Prometheus by its description.
pub(super) fn reading_of_machine(
    view: &ReplicaView,
    data_dir: &Path,
    started: SystemTime,
) -> Vec<(Family, Option<f64>)> {
    let room = disk::room(data_dir).ok();
    let started = started.duration_since(UNIX_EPOCH).ok();
    let dropped = view.statuses().map(|status| status.log_lines_dropped).max();
    vec![
        (
            gauge(
                "etcd_cluster_health",
                "Whether etcd answers this replica; absent if members are not named in etcd",
            ),
            view.is_etcd_reached.map(f64::from),
        ),
        (gauge("isonomy_members", "Members of the epoch"), number(view.welcome.members.len() as u64)),
        (gauge("isonomy_member", "Whether this replica is one of them"), truth(view.welcome.is_member())),
        (
            gauge(
                "isonomy_data_dir_free_bytes",
                "Bytes that may still be written in the file system of the data directory",
            ),
            room.map(|room| room.free_bytes as f64),
        ),
        (
            gauge("isonomy_data_dir_size_bytes", "Size of the file system of the data directory"),
            room.map(|room| room.size_bytes as f64),
        ),
        (
            counter(
                "isonomy_log_lines_dropped",
                "Lines of the process's log that were dropped, because nobody read them",
            ),
            dropped.and_then(number),
        ),
        (
            counter("process_cpu_seconds", "CPU time of the process, user and system"),
            Some(cpu::process_cpu_us() as f64 / 1e6),
        ),
        (
            gauge("process_resident_memory_bytes", "Memory of the process that is in RAM"),
            process::resident_bytes().and_then(number),
        ),
        (gauge("process_open_fds", "Open files"), process::open_files().and_then(number)),
        (
            gauge("process_max_fds", "Files that the process may open"),
            limit(Resource::NOFILE).ok().and_then(number),
        ),
        (
            gauge(
                "process_start_time_seconds",
                "When the process began to answer HTTP, in seconds since 1970",
            ),
            started.map(|it| it.as_secs_f64()),
        ),
    ]
}
