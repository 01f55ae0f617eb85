//! `isonomy member`: the members of a cluster that are named in etcd.

use crate::commands::{Output, block_on};
use crate::config::{EtcdArgs, MemberConfig, etcd_of};
use crate::fatal::Fatal;
use crate::out;
use clap::{Args, Subcommand};
use isonomy_control::id::RecordId;
use isonomy_control::plan::{Founding, Stands, found};
use isonomy_control::record::{Address, Member, Record, State};
use isonomy_control::store::{Listing, Store};
use isonomy_control::{Presence, describe};
use isonomy_protocol::quorum::Quorum;
use isonomy_wire::id::{ClusterId, REPLICAS_MAX};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

/// `isonomy member`
#[derive(Args, Debug)]
pub(crate) struct MemberArgs {
    #[command(subcommand)]
    command: MemberCommand,
}

#[derive(Subcommand, Debug)]
enum MemberCommand {
    /// Put a new cluster into etcd, where its replicas find each other; refused if there is one already
    Init(InitArgs),
    /// Show the members, where each is found, and which live
    List(ListArgs),
}

/// The options that name a cluster in etcd.
#[derive(Args, Debug)]
pub(crate) struct ClusterArgs {
    /// The configuration file of a replica (TOML), from which the name of the cluster and the table `[etcd]` are taken
    #[arg(long, env = "ISONOMY_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The cluster's name
    #[arg(long, env = "ISONOMY_CLUSTER", value_name = "NAME")]
    pub(crate) cluster: Option<String>,
    #[command(flatten)]
    pub(crate) etcd: EtcdArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example, once for a cluster, and then a replica with `membership = \"etcd\"` at each member:
  isonomy member init --etcd-endpoints http://etcd1:2379 --cluster orders --shards 4 \\
    --members db1:7100:7400,db2:7100:7400,db3:7100:7400
  isonomy serve --membership etcd --etcd-endpoints http://etcd1:2379 --cluster orders --replica 0 \\
    --data-dir /var/lib/isonomy")]
struct InitArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// All members as HOST:PEER_BASE:CLIENT_BASE; they are numbered from 0 in this order
    #[arg(long, value_delimiter = ',', required = true, value_name = "MEMBER,...")]
    members: Vec<MemberConfig>,
    /// The number of shards, which is fixed for the cluster's life
    #[arg(long, default_value_t = 1, value_name = "N")]
    shards: u16,
    /// The id of a cluster that was restored from a backup, as `isonomy status` of its replicas shows it [default: the id
    /// that follows from the name]
    #[arg(long, value_name = "ID")]
    cluster_id: Option<ClusterId>,
    /// Only show what would be written
    #[arg(long)]
    dry_run: bool,
    /// The format in which the members are printed
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args, Debug)]
struct ListArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The format in which the members are printed
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(crate) fn run(args: MemberArgs) -> Result<(), Fatal> {
    match args.command {
        MemberCommand::Init(args) => init(args),
        MemberCommand::List(args) => list(args),
    }
}

fn init(args: InitArgs) -> Result<(), Fatal> {
    let InitArgs { cluster, members, shards, cluster_id, dry_run, output } = args;
    let (name, settings) = etcd_of(cluster.config.as_deref(), cluster.cluster, cluster.etcd)?;
    let founding = Founding {
        cluster_id: cluster_id.unwrap_or_else(|| ClusterId::of_name(&name)),
        cluster: name.clone(),
        shards,
        stands: stands(members.len()),
        addresses: members.into_iter().map(Address::from).collect(),
    };
    block_on(async move {
        let record = found(founding, RecordId::random())?;
        if !dry_run {
            Store::new(Arc::new(settings), &name)?.init(&record).await?;
        }
        Ok(print(output, &record, &[])?)
    })
}

fn list(args: ListArgs) -> Result<(), Fatal> {
    let ListArgs { cluster, output } = args;
    let (name, settings) = etcd_of(cluster.config.as_deref(), cluster.cluster, cluster.etcd)?;
    block_on(async move {
        let Listing { record, alive, .. } = Store::new(Arc::new(settings), &name)?.list().await?;
        Ok(print(output, &record?.record, &alive)?)
    })
}

/// The failures that a cluster of so many members stands. A number that no cluster has is refused with the record.
fn stands(members: usize) -> Stands {
    let Quorum { f, e, .. } = Quorum::new(members.clamp(1, REPLICAS_MAX) as u8);
    Stands { f: f as u8, e: e as u8 }
}

fn print(output: Output, record: &Record, alive: &[Presence]) -> Result<(), Fatal> {
    match output {
        Output::Json => out::print(to_json(record, alive)),
        Output::Table => out::print(format_args!("{}{}", describe(record), living(record, alive))),
    }
}

/// Who lives, a line for each member that does.
fn living(record: &Record, alive: &[Presence]) -> String {
    let line = |member: &Member| {
        let presence = presence_of(member, alive)?;
        Some(format!("member {} lives at {}\n", member.id, presence.address))
    };
    record.membership.members.iter().filter_map(line).collect()
}

/// The sign of life of a member. Another directory than the one that has taken its place gives none.
fn presence_of<'a>(member: &Member, alive: &'a [Presence]) -> Option<&'a Presence> {
    let is_its = |presence: &&Presence| {
        presence.id == member.id && member.incarnation.is_none_or(|it| it == presence.incarnation)
    };
    alive.iter().find(is_its)
}

fn to_json(record: &Record, alive: &[Presence]) -> Value {
    let member = |member: &Member| {
        let presence = presence_of(member, alive);
        json!({
            "id": member.id.0,
            "incarnation": member.incarnation.map(|it| it.to_string()),
            "address": member.address.to_string(),
            "lives": presence.is_some(),
            "lives_at": presence.map(|presence| presence.address.to_string()),
        })
    };
    json!({
        "cluster": record.cluster,
        "cluster_id": record.cluster_id.to_string(),
        "epoch": record.epoch,
        "record": record.record.to_string(),
        "shards": record.shards,
        "f": record.membership.f,
        "e": record.membership.e,
        "is_changing": record.state != State::Active,
        "members": record.membership.members.iter().map(member).collect::<Vec<_>>(),
    })
}
