//! What the replicas of a cluster say of its publication.

use super::args::kafka_of;
use crate::commands::block_on;
use crate::config::{Config, MemberConfig, ServeArgs};
use crate::fatal::{Fatal, Reason};
use crate::status::{ReplicaStatus, ask_all};
use clap::Args;
use isonomy_kafka::cursor::Cursor;
use isonomy_kafka::outbox::Lacking;
use isonomy_kafka::publisher::Publication;
use isonomy_kafka::settings::Settings as KafkaSettings;
use isonomy_kafka::{Error, Standing};
use isonomy_wire::id::{ClusterId, ShardId};
use isonomy_wire::message::{Milestone, ShardStatus};

/// The options that name the cluster and its topics.
#[derive(Args, Debug)]
pub(super) struct WhereArgs {
    #[command(flatten)]
    serve: ServeArgs,
    /// The addresses of the replicas, each with the client port of shard 0 [default: the members of the configuration]
    #[arg(long, env = "ISONOMY_CONNECT", value_delimiter = ',', value_name = "HOST:PORT,...")]
    connect: Vec<String>,
    /// The cluster, by the id that `isonomy status` shows. The id of a cluster that was restored from a backup does not follow
    /// from its name
    #[arg(long, value_name = "ID")]
    cluster_id: Option<ClusterId>,
}

/// Which cluster is meant where no id is given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Meant {
    /// The one that the configuration names.
    Configured,
    /// The one that answers first.
    Any,
}

/// A cluster that publishes, as its replicas describe it.
pub(super) struct Overview {
    pub(super) settings: KafkaSettings,
    pub(super) cluster: ClusterId,
    pub(super) shards: u16,
    /// Where each replica was asked, and what it has said.
    pub(super) replicas: Vec<(String, ReplicaStatus)>,
}

/// What keeps a shard from being published.
#[derive(Debug, thiserror::Error)]
pub(super) enum Obstacle {
    /// Kafka has something else than it must have.
    #[error("{0}")]
    Kafka(#[from] Error),
    /// No replica that answers has all that is not published.
    #[error("no replica keeps all that is not published: {0}")]
    Lacking(Lacking),
}

impl Overview {
    /// Asks all replicas at once.
    pub(super) fn ask(args: WhereArgs, meant: Meant) -> Result<Overview, Fatal> {
        let WhereArgs { serve, mut connect, cluster_id } = args;
        let config = Config::load(serve)?;
        let settings = kafka_of(&config)?.clone();
        if connect.is_empty() {
            connect.extend(config.members.iter().map(MemberConfig::client_address));
        }
        if connect.is_empty() {
            let text = "name the replicas by --connect, since the configuration does not";
            return Err(Fatal::new(Reason::Config, text));
        }
        let named = ClusterId::of_name(&config.cluster);
        let asked = cluster_id.or((meant == Meant::Configured).then_some(named));
        let mut replicas = Vec::new();
        block_on(async {
            let answers = ask_all(&connect, asked).await;
            replicas.extend(connect.into_iter().zip(answers));
            Ok(())
        })?;
        let welcome =
            replicas.iter().find_map(|(_, answer): &(_, ReplicaStatus)| Some(&answer.as_ref().ok()?.0));
        let cluster = welcome.map_or(asked.unwrap_or(named), |welcome| welcome.cluster);
        let shards = welcome.map_or(config.shards, |welcome| welcome.shards);
        Ok(Overview { settings, cluster, shards, replicas })
    }

    /// What is published of a shard, and by whom.
    pub(super) fn publication(&self, shard: ShardId) -> Publication {
        Publication { cluster: self.cluster, shard, shards: self.shards.into() }
    }

    /// What Kafka has of a shard.
    pub(super) fn standing(&self, shard: ShardId) -> Result<Standing, Error> {
        isonomy_kafka::standing(&self.settings, self.shards.into(), shard)
    }

    /// What the replicas say of a shard.
    pub(super) fn statuses(&self, shard: ShardId) -> impl Iterator<Item = &ShardStatus> {
        let answers = self.replicas.iter().filter_map(|(_, answer)| answer.as_ref().ok());
        answers.filter_map(move |(_, shards)| shards.get(usize::from(shard.0)))
    }

    /// From where on each replica keeps all decisions of a shard.
    pub(super) fn kept(&self, shard: ShardId) -> Vec<Milestone> {
        self.statuses(shard).filter_map(|status| status.publishing.as_ref()?.kept_from).collect()
    }

    /// The addresses that gave no status.
    pub(super) fn silent(&self) -> Vec<&str> {
        let silent = self.replicas.iter().filter(|(_, answer)| answer.is_err());
        silent.map(|(address, _)| &address[..]).collect()
    }

    /// The cursor behind which a shard can be published.
    pub(super) fn judge(&self, shard: ShardId, standing: &Standing) -> Result<Cursor, Obstacle> {
        let cursor = standing.judge(&self.settings, self.publication(shard))?;
        match lacking(shard, &cursor, &self.kept(shard)) {
            Some(lacking) => Err(Obstacle::Lacking(lacking)),
            None => Ok(cursor),
        }
    }
}

/// What all replicas lack behind a cursor, if there is any that keeps decisions.
pub(super) fn lacking(shard: ShardId, cursor: &Cursor, kept: &[Milestone]) -> Option<Lacking> {
    let oldest = kept.iter().map(|start| start.barrier).min()?;
    let is_lacking = !kept.iter().any(|start| cursor.goes_on_at(start));
    is_lacking.then_some(Lacking { shard, barrier: oldest })
}
