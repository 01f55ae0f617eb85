//! The commands that change the members: each writes one record in place of the one that it has read.

use super::follow::follow;
use super::standing::Standing;
use super::{ClusterArgs, stands};
use crate::commands::{Output, block_on};
use crate::config::MemberConfig;
use crate::fatal::Fatal;
use clap::Args;
use isonomy_control::id::{ChangeId, MemberId};
use isonomy_control::plan::{self, Change, Refusal, announce};
use isonomy_control::record::{Address, Record};

/// What all commands have that write a record.
#[derive(Args, Debug)]
pub(super) struct StepArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Only show what would be written
    #[arg(long)]
    dry_run: bool,
    /// Do not wait for the end of the change; it goes on by itself
    #[arg(long)]
    no_wait: bool,
    /// The format in which the members are printed
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// What all commands have that announce a change.
#[derive(Args, Debug)]
struct AnnounceArgs {
    /// Let the change go on only when `isonomy member promote` says so; until then the new member copies the state
    #[arg(long)]
    hold: bool,
    #[command(flatten)]
    step: StepArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  isonomy member add db4:7100:7400 --config isonomy.toml
and, on db4, with the name of the cluster and the table [etcd] in its configuration:
  isonomy serve --config isonomy.toml --replica 3 --data-dir /var/lib/isonomy

The command prints the number of the new member, and waits until the member has copied the state and belongs to the
cluster. The change goes on without the command: any member carries it on.")]
pub(super) struct AddArgs {
    /// Where the new member is found, as HOST:PEER_BASE:CLIENT_BASE
    address: MemberConfig,
    #[command(flatten)]
    announce: AnnounceArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example: isonomy member remove 3 --config isonomy.toml

Stop the replica when the command is done.")]
pub(super) struct RemoveArgs {
    /// The number of the member
    id: u8,
    #[command(flatten)]
    announce: AnnounceArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Example, after the data directory of member 1 was lost:
  isonomy member replace 1 --config isonomy.toml
and then the replica with an empty data directory:
  isonomy serve --config isonomy.toml")]
pub(super) struct ReplaceArgs {
    /// The number of the member
    id: u8,
    /// Where the member is found from now on, as HOST:PEER_BASE:CLIENT_BASE [default: where it was]
    address: Option<MemberConfig>,
    #[command(flatten)]
    announce: AnnounceArgs,
}

pub(super) fn add(args: AddArgs) -> Result<(), Fatal> {
    let AddArgs { address, announce } = args;
    run_announce(announce, Change::Add(Address::from(address)))
}

pub(super) fn remove(args: RemoveArgs) -> Result<(), Fatal> {
    run_announce(args.announce, Change::Remove(MemberId(args.id)))
}

pub(super) fn replace(args: ReplaceArgs) -> Result<(), Fatal> {
    let ReplaceArgs { id, address, announce } = args;
    run_announce(announce, Change::Replace(MemberId(id), address.map(Address::from)))
}

pub(super) fn promote(args: StepArgs) -> Result<(), Fatal> {
    step(args, |now| {
        let (change, _) = now.record.change().ok_or(Refusal::NoChange)?;
        plan::promote(&now.record, &now.close(change), &now.living())
    })
}

pub(super) fn cancel(args: StepArgs) -> Result<(), Fatal> {
    step(args, |now| plan::cancel(&now.record))
}

fn run_announce(args: AnnounceArgs, change: Change) -> Result<(), Fatal> {
    let AnnounceArgs { hold, step: args } = args;
    step(args, |now| announce(&now.record, &change, ChangeId::random(), hold, stands, &now.living()))
}

/// Writes the record that is planned, and waits until the change is over.
fn step(args: StepArgs, plan: impl Fn(&Standing) -> Result<Record, Refusal>) -> Result<(), Fatal> {
    let StepArgs { cluster, dry_run, no_wait, output } = args;
    let (_, mut store) = cluster.open()?;
    block_on(async move {
        let now = Standing::read(&mut store).await?;
        let next = plan(&now)?;
        if dry_run {
            return Ok(now.under(next).print(output)?);
        }
        store.replace(&now.stored(), &next).await?;
        let then = if no_wait || next.change().is_none() {
            now.under(next)
        } else {
            follow(&mut store, &next).await?
        };
        Ok(then.print(output)?)
    })
}
