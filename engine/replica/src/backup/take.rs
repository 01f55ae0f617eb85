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
            asked.push(AskedShard::begin(&member, shard, welcome.cluster, &patience).await?);
        }
        let progress = progress(welcome.shards);
        for shard in asked {
            let (taken, welcome) = shard.wait(&patience).await?;
            progress.suspend(|| print(&taken, &welcome, args.output))?;
            progress.inc(1);
        }
        progress.finish_and_clear();
        Ok(())
    })
}

/// What a shard is asked.
#[derive(Clone, Copy)]
enum Question {
    Status,
    Snapshot,
}

/// A shard of a replica. A connection ends with its epoch, and the next one leads to the next epoch.
struct ShardContact {
    member: Member,
    shard: ShardId,
    cluster: ClusterId,
    connection: Option<Connection>,
}

impl ShardContact {
    /// Asks the shard, over as many connections as it takes.
    async fn ask(
        &mut self,
        question: Question,
        patience: &Patience,
    ) -> Result<(ShardStatus, Welcome), ConnectError> {
        loop {
            match self.ask_once(question).await {
                Err(error) if error.is_epoch_over() && !patience.is_over() => self.connection = None,
                answer => return answer,
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn ask_once(&mut self, question: Question) -> Result<(ShardStatus, Welcome), ConnectError> {
        let connection = match self.connection.take() {
            Some(open) => open,
            None => Connection::open(&self.member, self.shard, Some(self.cluster), Role::Operator).await?,
        };
        let connection = self.connection.insert(connection);
        let status = match question {
            Question::Status => connection.status().await?,
            Question::Snapshot => connection.request_snapshot().await?,
        };
        Ok((status, connection.welcome().clone()))
    }
}

/// A shard that was asked for a snapshot.
struct AskedShard {
    shard: ShardContact,
    /// The last barrier before the request.
    barrier: u64,
}

impl AskedShard {
    async fn begin(
        member: &Member,
        shard: ShardId,
        cluster: ClusterId,
        patience: &Patience,
    ) -> Result<AskedShard, ConnectError> {
        let mut shard = ShardContact { member: member.clone(), shard, cluster, connection: None };
        let (status, _) = shard.ask(Question::Snapshot, patience).await?;
        Ok(AskedShard { shard, barrier: status.barrier })
    }

    /// Waits until the shard's snapshot is durable, and returns the status then. If the epoch ends meanwhile, the snapshot
    /// with which the next one begins is a later one.
    async fn wait(mut self, patience: &Patience) -> Result<(ShardStatus, Welcome)> {
        let mut asked = Instant::now();
        loop {
            let is_due = asked.elapsed() >= ASK_AGAIN;
            let question = if is_due { Question::Snapshot } else { Question::Status };
            asked = if is_due { Instant::now() } else { asked };
            let (status, welcome) = self.shard.ask(question, patience).await?;
            if status.snapshot > self.barrier {
                return Ok((status, welcome));
            }
            if patience.is_over() {
                let (shard, barrier) = (status.shard.0, status.barrier);
                bail!(
                    "shard {shard} has no new snapshot yet, and its last barrier is {barrier}; a barrier needs \
                     a majority of the replicas, and a snapshot needs room on the disk: see `isonomy status` \
                     and the replica's log"
                );
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

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_wire::frame::{Encode, Encoder, Kind, Scope, Splitter};
    use isonomy_wire::id::{Epoch, ReplicaId};
    use isonomy_wire::message::{ClientMessage, Handshake, Refusal};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    const CLUSTER: ClusterId = ClusterId(7);
    const SHARD: ShardId = ShardId(0);

    /// The other side of a connection.
    struct Peer {
        stream: TcpStream,
        splitter: Splitter,
        place: u64,
    }

    impl Peer {
        async fn accept(listener: &TcpListener) -> Peer {
            let (stream, _) = listener.accept().await.unwrap();
            let mut peer = Peer { stream, splitter: Splitter::new(4096), place: 0 };
            peer.hear().await;
            peer
        }

        /// Waits for the next message.
        async fn hear(&mut self) {
            while self.splitter.next_frame().unwrap().is_none() {
                let count = self.stream.read(self.splitter.room()).await.unwrap();
                self.splitter.received(count);
            }
        }

        async fn say<T: Encode>(&mut self, kind: Kind, message: &T) {
            let scope = Scope { kind, epoch: Epoch(0), shard: SHARD };
            let mut bytes = Vec::new();
            self.place += Encoder::default().frame(&mut bytes, self.place, scope, message, &[], 0) as u64;
            self.stream.write_all(&bytes).await.unwrap();
        }

        async fn welcome(&mut self, epoch: Epoch) {
            let members = vec![Member { host: "127.0.0.1".into(), client_base: 1 }; 3];
            let (cluster, replica) = (CLUSTER, ReplicaId(0));
            let welcome = Welcome { cluster, epoch, replica, shards: 1, members, durable: true };
            self.say(Kind::Handshake, &Handshake::Welcome(welcome)).await;
            self.splitter.trust();
        }

        async fn answer(&mut self, barrier: u64, snapshot: u64) {
            self.hear().await;
            let status = ShardStatus { barrier, snapshot, ..ShardStatus::default() };
            self.say(Kind::Client, &ClientMessage::Status(Box::new(status))).await;
        }
    }

    #[tokio::test]
    async fn the_end_of_an_epoch_does_not_end_the_wait_for_a_snapshot() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let member = Member { host: "127.0.0.1".into(), client_base: listener.local_addr().unwrap().port() };
        let ended = Refusal::EpochChanged { epoch: Epoch(2) };
        let replica = async {
            let mut first = Peer::accept(&listener).await;
            first.welcome(Epoch(1)).await;
            first.answer(3, 2).await;
            first.say(Kind::Client, &ClientMessage::Leave(ended.clone())).await;
            let mut early = Peer::accept(&listener).await;
            early.say(Kind::Handshake, &Handshake::Refused(ended.clone())).await;
            let mut second = Peer::accept(&listener).await;
            second.welcome(Epoch(2)).await;
            second.answer(5, 0).await;
            second.answer(5, 5).await;
        };
        let command = async {
            let patience = Patience::of(Some(Duration::from_secs(60)));
            let asked = AskedShard::begin(&member, SHARD, CLUSTER, &patience).await.unwrap();
            asked.wait(&patience).await.unwrap()
        };
        let ((), (status, welcome)) = tokio::join!(replica, command);
        assert_eq!((status.snapshot, welcome.epoch), (5, Epoch(2)));
    }
}
