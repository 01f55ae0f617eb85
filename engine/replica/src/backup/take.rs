//! `isonomy snapshot take`: a barrier in every shard, and a wait for the snapshots at them.

use crate::commands::{ConnectArgs, Output, block_on};
use crate::fatal::Fatal;
use crate::out;
use anyhow::{Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use isonomy_shard::data_dir::epoch_dir;
use isonomy_shard::snapshot::store::snapshot_path;
use isonomy_wire::client::{ConnectError, Connection, Contact, Patience};
use isonomy_wire::id::{ClusterId, ShardId};
use isonomy_wire::message::{Member, Role, ShardStatus, Welcome};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// The default number of seconds to wait for the snapshots.
pub(crate) const TAKE_SECONDS: u64 = 300;
/// The time between two requests for a shard's status.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A barrier that comes while another snapshot is written, or fetched by a peer, gets no snapshot. After this time
/// the command asks for another barrier.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// `isonomy snapshot take`
#[derive(Args, Debug)]
#[command(after_help = "\
Example: isonomy snapshot take --connect 10.0.0.1:7400

The command asks the first of the named replicas that answers. The snapshots of that replica cover everything that it
had executed when it was asked. The other replicas take their snapshots at the same barriers.")]
pub(super) struct TakeArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// How many seconds to wait for the snapshots
    #[arg(long, value_name = "SECONDS", default_value_t = TAKE_SECONDS)]
    deadline: u64,
    /// The format in which the outcome is printed
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Waits until the replica has a new snapshot of every shard; an error if that does not happen in time.
pub(super) fn run(args: &TakeArgs) -> Result<(), Fatal> {
    block_on(async {
        let Contact { member, welcome } = args.connect.contact(Role::Operator).await?;
        let patience = Patience::of(Some(Duration::from_secs(args.deadline)));
        // All are asked before the first is waited for.
        let mut asked = Vec::new();
        for shard in (0..welcome.shards).map(ShardId) {
            asked.push(AskedShard::begin(&member, shard, welcome.cluster).await?);
        }
        let progress = progress(welcome.shards);
        for shard in asked {
            let taken = shard.wait(&patience).await?;
            progress.suspend(|| print(&taken, &welcome, args.output))?;
            progress.inc(1);
        }
        progress.finish_and_clear();
        Ok(())
    })
}

/// A shard that was asked for a snapshot.
struct AskedShard {
    connection: Connection,
    shard: ShardId,
    /// The last barrier before the request.
    barrier: u64,
}

impl AskedShard {
    async fn begin(member: &Member, shard: ShardId, cluster: ClusterId) -> Result<AskedShard, ConnectError> {
        let mut connection = Connection::open(member, shard, Some(cluster), Role::Operator).await?;
        let barrier = connection.request_snapshot().await?.barrier;
        Ok(AskedShard { connection, shard, barrier })
    }

    /// Waits until the shard's snapshot is durable, and returns the status then.
    async fn wait(mut self, patience: &Patience) -> Result<ShardStatus> {
        let mut asked = Instant::now();
        loop {
            let status = self.connection.status().await?;
            if status.snapshot > self.barrier {
                return Ok(status);
            }
            if patience.is_over() {
                let (shard, barrier) = (self.shard.0, status.barrier);
                bail!(
                    "shard {shard} has no new snapshot yet, and its last barrier is {barrier}; a barrier needs \
                     a majority of the replicas, and a snapshot needs room on the disk: see `isonomy status` \
                     and the replica's log"
                );
            }
            if asked.elapsed() >= ASK_AGAIN {
                self.connection.request_snapshot().await?;
                asked = Instant::now();
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn print(status: &ShardStatus, welcome: &Welcome, output: Output) -> Result<(), Fatal> {
    let (shard, barrier) = (status.shard, status.snapshot);
    let file = snapshot_path(&epoch_dir(Path::new(""), shard, status.epoch), barrier);
    let floor = &status.floor.0[..welcome.members.len()];
    match output {
        Output::Table => out::print(format_args!(
            "replica {}, shard {}: {} in its data directory, barrier {barrier}, position {floor:?}",
            welcome.replica,
            shard.0,
            file.display()
        )),
        Output::Json => {
            let replica = welcome.replica.0;
            out::print(
                json!({"replica": replica, "shard": shard.0, "file": file, "barrier": barrier, "floor": floor}),
            )
        }
    }
}

/// Drawn on a terminal only.
fn progress(shards: u16) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} shards, {elapsed}");
    ProgressBar::new(shards.into()).with_style(style.expect("the template is right"))
}
