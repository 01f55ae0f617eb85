//! `isonomy publish reset` and `isonomy publish adopt`: where shards go on that cannot be published.

use super::overview::{Meant, Overview, WhereArgs};
use super::plan::{Plan, Whence, make};
use crate::fatal::{Fatal, Reason, failed};
use crate::out;
use clap::{Args, ValueEnum};
use isonomy_wire::id::{ClusterId, ShardId};

/// The options that both commands have.
#[derive(Args, Debug)]
struct ChangeArgs {
    #[command(flatten)]
    place: WhereArgs,
    /// The shard [default: every shard that cannot be published]
    #[arg(long, value_name = "N")]
    shard: Option<u16>,
    /// Do it
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

/// `isonomy publish reset`
#[derive(Args, Debug)]
#[command(after_help = "\
Example: isonomy publish reset --config /etc/isonomy.toml --shard 2 --from cursor --yes

The command says of each shard what is wrong, what is left out and what comes twice, and changes nothing without --yes. The
replicas then begin to publish by themselves, within a minute. A shard with which nothing is wrong is left alone.")]
pub(super) struct ResetArgs {
    #[command(flatten)]
    change: ChangeArgs,
    /// Where the publication goes on
    #[arg(long, value_enum)]
    from: Whence,
}

/// `isonomy publish adopt`
#[derive(Args, Debug)]
#[command(after_help = "\
Example: isonomy publish adopt 6b0c3a5e1f2d4c7b9a8e7d6c5b4a3f2e --config /etc/isonomy.toml --cluster-id ID --from kept --yes

For a cluster that was restored from a backup and publishes to the topic of the cluster before. That one is fenced: none of its
decisions comes behind those of this cluster. The command changes nothing without --yes.")]
pub(super) struct AdoptArgs {
    /// The id of the other cluster, as `isonomy publish status` shows it
    #[arg(value_name = "CLUSTER")]
    other: ClusterId,
    #[command(flatten)]
    change: ChangeArgs,
    /// Where the publication goes on. The cursor of the other cluster says nothing about the decisions of this one
    #[arg(long, value_enum)]
    from: AdoptFrom,
}

/// Where the publication of a cluster begins in the topic of another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum AdoptFrom {
    /// With the oldest decision from which on a replica keeps all
    Kept,
    /// With what is executed from now on
    Now,
}

pub(super) fn run_reset(args: ResetArgs) -> Result<(), Fatal> {
    change(args.change, args.from, None)
}

pub(super) fn run_adopt(args: AdoptArgs) -> Result<(), Fatal> {
    let whence = match args.from {
        AdoptFrom::Kept => Whence::Kept,
        AdoptFrom::Now => Whence::Now,
    };
    change(args.change, whence, Some(args.other))
}

fn change(args: ChangeArgs, whence: Whence, adopted: Option<ClusterId>) -> Result<(), Fatal> {
    let overview = Overview::ask(args.place, Meant::Configured)?;
    require_answer(&overview)?;
    let shards = match args.shard {
        Some(shard) if shard >= overview.shards => {
            let text = format!("there is no shard {shard}; the cluster has {} shard(s)", overview.shards);
            return Err(Fatal::new(Reason::CommandLine, text));
        }
        Some(shard) => shard..shard + 1,
        None => 0..overview.shards,
    };
    let plans: Result<Vec<_>, _> =
        shards.map(|shard| make(&overview, ShardId(shard), whence, adopted)).collect();
    let plans: Vec<Plan> = plans.map_err(failed)?.into_iter().flatten().collect();
    if plans.is_empty() {
        let text =
            "nothing is wrong that this command mends; nothing was changed; see isonomy publish status";
        return Err(Fatal::new(Reason::Failed, text));
    }
    for plan in &plans {
        out::print(&plan.told)?;
    }
    match (args.yes, args.dry_run) {
        (true, _) => carry_out(&overview, &plans),
        (false, true) => Ok(()),
        (false, false) => {
            Err(Fatal::new(Reason::Failed, "nothing was changed; run the command again with --yes"))
        }
    }
}

/// The replicas say which cluster is meant, what they keep, and what has executed.
fn require_answer(overview: &Overview) -> Result<(), Fatal> {
    let mut troubles = Vec::new();
    for (address, answer) in &overview.replicas {
        match answer {
            Ok(_) => return Ok(()),
            Err(error) => troubles.push(format!("{address}: {error}")),
        }
    }
    let text = format!(
        "no replica of cluster {} gave a status ({}); name its replicas by --connect, and a cluster that was restored by \
         --cluster-id",
        overview.cluster,
        troubles.join("; ")
    );
    Err(Fatal::new(Reason::Failed, text))
}

/// One shard after the other, each as a whole. What is done stays done.
fn carry_out(overview: &Overview, plans: &[Plan]) -> Result<(), Fatal> {
    for (at, Plan { shard, seen, behind, .. }) in plans.iter().enumerate() {
        let publication = overview.publication(*shard);
        if let Err(error) = isonomy_kafka::reset(&overview.settings, publication, seen, behind) {
            let (done, left) = plans.split_at(at);
            let text = format!(
                "shard {}: {error}; changed: {}; not changed: {}; the same command goes on with the rest",
                shard.0,
                named(done),
                named(left)
            );
            return Err(Fatal::new(Reason::Failed, text));
        }
        out::print(format_args!("shard {}: done; the replicas publish it within a minute", shard.0))?;
    }
    Ok(())
}

fn named(plans: &[Plan]) -> String {
    let names: Vec<String> = plans.iter().map(|plan| plan.shard.0.to_string()).collect();
    if names.is_empty() { "none".to_owned() } else { format!("shard {}", names.join(", ")) }
}
