//! `isonomy status`: how replicas stand.

use crate::commands::{ConnectArgs, Output, block_on};
use crate::fatal::Fatal;
use crate::out;
use anyhow::ensure;
use clap::Args;
use isonomy_doors::status::{fetched, hash_text, rows, to_json, tuning_to_json};
use isonomy_wire::client::{ConnectError, Connection, parse_address};
use isonomy_wire::id::{ClusterId, ShardId};
use isonomy_wire::message::{
    ConsumeStatus, PartitionStatus, PeerStatus, PublishStatus, Role, ShardStatus, Welcome,
};
use isonomy_wire::tuning::{Loss, PathReason, PathStatus};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// `isonomy status`
#[derive(Args, Debug)]
#[command(after_help = "\
Example: isonomy status --connect 10.0.0.1:7400,10.0.0.2:7400,10.0.0.3:7400

The command asks all named replicas at once. It prints the lines of each replica, or one line with the reason why the
replica gave no status. The command ends with code 1 if a replica gave no status, or if the replicas are of several
clusters.")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// The format in which the status is printed
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Prints the status of each named replica, or the reason why there is none; an error if a replica does not answer.
pub(crate) fn run(args: &StatusArgs) -> Result<(), Fatal> {
    let addresses = &args.connect.connect;
    block_on(async {
        let (mut silent, mut clusters) = (0, BTreeSet::new());
        for (address, answer) in addresses.iter().zip(ask_all(addresses, args.connect.cluster).await) {
            clusters.extend(answer.iter().map(|(welcome, _)| welcome.cluster.to_string()));
            match (answer, args.output) {
                (Ok((welcome, shards)), Output::Table) => out::print(to_table(&welcome, &shards))?,
                (Ok((welcome, shards)), Output::Json) => {
                    out::print(to_json(address, &welcome, shards.iter()))?
                }
                (Err(error), output) => {
                    silent += 1;
                    match output {
                        Output::Table => out::print(format_args!("no status of {address}: {error}"))?,
                        Output::Json => out::print(json!({"address": address, "error": error.to_string()}))?,
                    }
                }
            }
        }
        ensure!(silent == 0, "{silent} of {} replicas gave no status; see above", addresses.len());
        ensure!(
            clusters.len() <= 1,
            "the replicas are of several clusters, see above; name replicas of one cluster only, or name the \
             cluster (--cluster)"
        );
        Ok(())
    })
}

/// The status of a replica, or the reason why there is none.
pub(crate) type ReplicaStatus = Result<(Welcome, Vec<ShardStatus>), ConnectError>;

/// Asks all replicas at once, so that those that answer do not wait for one that is silent.
pub(crate) async fn ask_all(addresses: &[String], cluster: Option<ClusterId>) -> Vec<ReplicaStatus> {
    let asked = addresses.iter().cloned();
    let ask = |it: String| tokio::spawn(async move { replica_status(&it, cluster).await });
    let asked: Vec<_> = asked.map(ask).collect();
    let mut answers = Vec::new();
    for answer in asked {
        answers.push(answer.await.expect("no status panics"));
    }
    answers
}

/// Asks all shards of the replica whose shard 0 listens for clients at this address.
pub(crate) async fn replica_status(address: &str, cluster: Option<ClusterId>) -> ReplicaStatus {
    let member = parse_address(address)?;
    let mut first = Connection::open(&member, ShardId(0), cluster, Role::Operator).await?;
    let welcome = first.welcome().clone();
    let mut shards = vec![first.status().await?];
    for shard in 1..welcome.shards {
        let mut connection =
            Connection::open(&member, ShardId(shard), Some(welcome.cluster), Role::Operator).await?;
        shards.push(connection.status().await?);
    }
    Ok((welcome, shards))
}

/// A line for each partition that is consumed, with a newline before it.
fn consuming_lines(status: &ShardStatus) -> String {
    let Some(consuming) = &status.consuming else { return String::new() };
    let line = |it: &PartitionStatus| {
        let PartitionStatus { partition, position, lag, decided, before, dead_letters, lost, .. } = it;
        let lag = lag.map_or("unknown".into(), |lag| lag.to_string());
        format!(
            "\n            consumes partition {partition} from offset {position}  lag {lag}  decided {decided}  before \
             {before}  dead letters {dead_letters}  lost {lost}"
        )
    };
    consuming.partitions.iter().map(line).collect()
}

/// The line for the publication, with a newline before it, if the shard is published.
fn publishing_line(status: &ShardStatus) -> String {
    let Some(publishing) = &status.publishing else { return String::new() };
    let PublishStatus { is_publisher, backlog_bytes, decisions, transactions, .. } = publishing;
    let here = match is_publisher {
        true => format!("published here  decisions {decisions}  transactions {transactions}"),
        false => "kept here".to_owned(),
    };
    format!("\n            {here}  backlog {backlog_bytes} bytes")
}

fn to_table(welcome: &Welcome, shards: &[ShardStatus]) -> String {
    let mut text = format!(
        "{}, epoch {}, cluster {}, durability {}",
        place(welcome, shards),
        welcome.epoch.0,
        welcome.cluster,
        if welcome.durable { "fsync" } else { "os" }
    );
    for status in shards {
        text += &shard_lines(welcome, status);
    }
    text
}

/// The place of a replica among the members. One that learns or was left out has none.
fn place(welcome: &Welcome, shards: &[ShardStatus]) -> String {
    let (replica, members) = (welcome.replica, welcome.members.len());
    if welcome.is_member() {
        format!("replica {replica} of {members}")
    } else if shards.iter().any(|status| status.is_learner) {
        format!("a learner, which copies the state of the {members} members")
    } else {
        format!("none of the {members} members")
    }
}

/// The line for the links with a peer, with a newline before it.
fn peer_line(peer: &PeerStatus) -> String {
    let PeerStatus { replica, opened, ended, heard, silenced, lost, resent, retry_ms, .. } = peer;
    let retry = if *retry_ms > 0 { format!("  retries after {retry_ms} ms") } else { String::new() };
    format!(
        "\n            peer {replica}  links opened/ended {opened}/{ended}  heard/silenced {heard}/{silenced}  lost {lost}  \
         resent {resent}{retry}"
    )
}

/// The lines of a shard, each with a newline before it.
fn shard_lines(welcome: &Welcome, status: &ShardStatus) -> String {
    let peers: Vec<String> = status.peers_connected.iter().map(ToString::to_string).collect();
    let counts = format!(
        "\n  shard {:<3} keys {}  sources {}  decisions {}  fast/slow {}/{}  recoveries {}  log {} bytes  peers [{}]",
        status.shard.0,
        status.keys,
        status.sources,
        status.decisions,
        status.fast,
        status.slow,
        status.recoveries,
        status.log_bytes,
        peers.join(" ")
    );
    let waiting = match &status.waiting_on[..] {
        [] => String::new(),
        ids => format!("  waiting on {ids:?}"),
    };
    let state = format!(
        "\n            state {}  frontier {:?}  unexecuted {}{waiting}",
        hash_text(status.state_hash),
        rows(&status.frontier.0, welcome),
        status.unexecuted,
    );
    let snapshot = match status.snapshot {
        0 => "none".to_owned(),
        barrier => format!("at barrier {barrier}"),
    };
    let fetching = fetched(status).map(|(bytes, of)| format!("  fetching {bytes} of {of} bytes"));
    let last = match status.barrier {
        0 => "none".to_owned(),
        barrier => format!("{barrier} state {}", hash_text(status.barrier_hash)),
    };
    let barrier = format!(
        "\n            barrier {last}  snapshot {snapshot}  floor {:?}  log held {} of {} bytes{}",
        rows(&status.floor.0, welcome),
        status.log_held_bytes,
        status.log_budget_bytes,
        fetching.unwrap_or_default(),
    );
    let (clients, clients_max) = status.clients;
    let connections = format!(
        "\n            clients {clients} of {clients_max}  operators {}  refused {}  yielded {}",
        status.operators, status.connections_refused, status.connections_yielded,
    );
    let links: String = status.peers.iter().map(peer_line).collect();
    counts
        + &path_line(status)
        + &state
        + &barrier
        + &publishing_line(status)
        + &consuming_lines(status)
        + &connections
        + &links
        + &troubles(status)
}

/// The line for the way to decisions, with a newline before it.
fn path_line(status: &ShardStatus) -> String {
    let PathStatus { is_slow, reason, for_ms, .. } = status.path;
    let mode = if is_slow { "slow" } else { "fast" };
    let why = match reason {
        PathReason::Usual => "",
        PathReason::Set => ", as it is set",
        PathReason::Judged(Loss::Unreached) => ", because a fast quorum is not reached",
        PathReason::Judged(Loss::InVain) => ", because most waits for a fast quorum were in vain",
        PathReason::Agreed => ", because another member cannot form a fast quorum",
    };
    let since = if *why == *"" { String::new() } else { format!(" for {:.1} s", for_ms as f64 / 1000.0) };
    let settings = match tuning_to_json(&status.tuning) {
        Value::Object(settings) => settings.iter().map(|(name, value)| format!(" {name} {value}")).collect(),
        _ => String::new(),
    };
    format!(
        "\n            path {mode}{since}{why}  waited in vain {}\n            settings{settings}",
        status.waited_in_vain
    )
}

/// What is wrong with a shard, a line each.
fn troubles(status: &ShardStatus) -> String {
    let mut text = String::new();
    let mut also = |line: String| text += &format!("\n            {line}");
    if let Some(PublishStatus { trouble, .. }) =
        status.publishing.as_ref().filter(|it| !it.trouble.is_empty())
    {
        also(format!("not published: {trouble}"));
    }
    if let Some(ConsumeStatus { partitions, trouble }) = &status.consuming {
        if !trouble.is_empty() {
            also(format!("nothing is consumed: {trouble}"));
        }
        for PartitionStatus { partition, trouble, .. } in
            partitions.iter().filter(|it| !it.trouble.is_empty())
        {
            also(format!("partition {partition}: {trouble}"));
        }
    }
    if status.messages_dropped.impossible > 0 {
        also(format!(
            "{} messages of peers were dropped, because they named impossible things; run the same release at \
             all members",
            status.messages_dropped.impossible
        ));
    }
    if status.disk_hung_ms > 0 {
        let seconds = status.disk_hung_ms as f64 / 1000.0;
        also(format!(
            "the disk has not answered for {seconds:.1} s: the shard proposes nothing and sends clients to \
             other replicas"
        ));
    }
    if status.log_lines_dropped > 0 {
        also(format!(
            "{} lines of the log were dropped: standard error of the replica is not read fast enough",
            status.log_lines_dropped
        ));
    }
    if !status.tuning_trouble.is_empty() {
        also(format!(
            "the settings in etcd are not followed, those before them stay: {}",
            status.tuning_trouble
        ));
    }
    if !status.snapshot_trouble.is_empty() {
        also(format!("no snapshot: {}", status.snapshot_trouble));
    }
    if status.snapshots_damaged > 0 {
        also(format!("snapshots found damaged: {}; check the disk", status.snapshots_damaged));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_wire::id::{Epoch, ReplicaId};
    use isonomy_wire::message::Member;

    #[test]
    fn one_that_is_no_member_is_told_from_the_members() {
        let members = vec![Member { host: "db1".into(), client_base: 7400 }; 3];
        let of = |replica| Welcome {
            cluster: ClusterId(1),
            epoch: Epoch(4),
            replica: ReplicaId(replica),
            shards: 1,
            members: members.clone(),
            durable: true,
        };
        assert!(to_table(&of(2), &[]).starts_with("replica 2 of 3, epoch 4, "));
        assert!(to_table(&of(3), &[]).starts_with("none of the 3 members, epoch 4, "));
        let learns = ShardStatus { is_learner: true, ..ShardStatus::default() };
        assert!(
            to_table(&of(3), &[learns]).starts_with("a learner, which copies the state of the 3 members, ")
        );
        let is_member = |replica| to_json("db1:7400", &of(replica), [].iter())["member"].clone();
        assert_eq!((is_member(2), is_member(u8::MAX)), (true.into(), false.into()));
    }
}
