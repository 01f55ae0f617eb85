//! `isonomy member init`: the first record of a cluster.

use super::standing::Standing;
use super::{ClusterArgs, stands};
use crate::commands::{Output, block_on};
use crate::config::MemberConfig;
use crate::fatal::Fatal;
use clap::Args;
use isonomy_control::id::RecordId;
use isonomy_control::plan::{Founding, found};
use isonomy_control::record::Address;
use isonomy_wire::id::ClusterId;

#[derive(Args, Debug)]
#[command(after_help = "\
Example, once for a cluster, and then a replica with `membership = \"etcd\"` at each member:
  isonomy member init --etcd-endpoints http://etcd1:2379 --cluster orders --shards 4 \\
    --members db1:7100:7400,db2:7100:7400,db3:7100:7400
  isonomy serve --membership etcd --etcd-endpoints http://etcd1:2379 --cluster orders --replica 0 \\
    --data-dir /var/lib/isonomy")]
pub(super) struct InitArgs {
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
    /// The epoch of the backup from which the cluster was restored, as `isonomy snapshot restore` shows it
    #[arg(long, default_value_t = 1, value_name = "N", requires = "cluster_id")]
    epoch: u32,
    /// Only show what would be written
    #[arg(long)]
    dry_run: bool,
    /// The format in which the members are printed
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: InitArgs) -> Result<(), Fatal> {
    let InitArgs { cluster, members, shards, cluster_id, epoch, dry_run, output } = args;
    let (name, mut store) = cluster.open()?;
    let founding = Founding {
        cluster_id: cluster_id.unwrap_or_else(|| ClusterId::of_name(&name)),
        cluster: name,
        shards,
        stands: stands(members.len()),
        epoch,
        addresses: members.into_iter().map(Address::from).collect(),
    };
    block_on(async move {
        let record = found(founding, RecordId::random())?;
        if !dry_run {
            store.init(&record).await?;
        }
        Ok(Standing::of(record).print(output)?)
    })
}
