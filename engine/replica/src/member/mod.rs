//! `isonomy member`: the members of a cluster that are named in etcd.

mod change;
mod copying;
mod follow;
mod init;
mod standing;

use crate::commands::{Output, block_on};
use crate::config::{EtcdArgs, etcd_of};
use crate::fatal::Fatal;
use clap::{Args, Subcommand};
use isonomy_control::plan::Stands;
use isonomy_control::store::Store;
use isonomy_protocol::quorum::Quorum;
use isonomy_wire::id::REPLICAS_MAX;
use standing::Standing;
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
    Init(init::InitArgs),
    /// Show the members, where each is found, which live, and how far a change has come
    List(MemberListArgs),
    /// Let another member join
    Add(change::AddArgs),
    /// Let a member leave
    Remove(change::RemoveArgs),
    /// Let a member whose data directory is lost begin anew, with an empty one
    Replace(change::ReplaceArgs),
    /// Let a change go on that was held, now that its new member is close to what the others have
    Promote(change::StepArgs),
    /// Take a change back
    Cancel(change::StepArgs),
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

impl ClusterArgs {
    /// The name of the cluster, and its keys in etcd. Nothing is connected yet.
    fn open(self) -> Result<(String, Store), Fatal> {
        let (name, settings) = etcd_of(self.config.as_deref(), self.cluster, self.etcd)?;
        let store = Store::new(Arc::new(settings), &name).map_err(crate::fatal::failed)?;
        Ok((name, store))
    }
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example: isonomy member list --config isonomy.toml")]
struct MemberListArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Wait until no change is under way, with its progress on standard error
    #[arg(long)]
    wait: bool,
    /// The format in which the members are printed
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(crate) fn run(args: MemberArgs) -> Result<(), Fatal> {
    match args.command {
        MemberCommand::Init(args) => init::run(args),
        MemberCommand::List(args) => list(args),
        MemberCommand::Add(args) => change::add(args),
        MemberCommand::Remove(args) => change::remove(args),
        MemberCommand::Replace(args) => change::replace(args),
        MemberCommand::Promote(args) => change::promote(args),
        MemberCommand::Cancel(args) => change::cancel(args),
    }
}

fn list(args: MemberListArgs) -> Result<(), Fatal> {
    let MemberListArgs { cluster, wait, output } = args;
    let (_, mut store) = cluster.open()?;
    block_on(async move {
        let mut standing = Standing::read(&mut store).await?;
        if wait && standing.record.change().is_some() {
            standing = follow::follow(&mut store, &standing.record).await?;
        }
        Ok(standing.print(output)?)
    })
}

/// The failures that a cluster of so many members stands. A number that no cluster has is refused with the record.
fn stands(members: usize) -> Stands {
    let Quorum { f, e, .. } = Quorum::new(members.clamp(1, REPLICAS_MAX) as u8);
    Stands { f: f as u8, e: e as u8 }
}
