//! The outboxes of a replica, in which it keeps the decisions of its shards for those who read them from outside.

mod args;
mod init;
mod overview;
mod plan;
mod publishers;
mod reset;
mod standing;

pub(crate) use args::{PublishArgs, run};
pub(crate) use publishers::Publishers;

use crate::config::{Config, PublishTo};
use crate::fatal::{Fatal, Reason};
use crate::threads::no_thread;
use isonomy_kafka::outbox::{Keeper, Kept, OutboxError, Published, Retain, Writer};
use isonomy_kafka::publisher::Publication;
use isonomy_mesh::{FeedEnd, connect_sink};
use isonomy_shard::data_dir::{DataDir, shard_dir};
use isonomy_wire::id::ShardId;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The directory of a shard's outbox.
pub(crate) fn outbox_dir(data_dir: &Path, shard: ShardId) -> PathBuf {
    shard_dir(data_dir, shard).join("outbox")
}

/// The outboxes that were opened, before their thread runs.
#[derive(Default)]
pub(crate) struct Outboxes {
    kept: Vec<Kept>,
    publishers: Option<Publishers>,
}

impl Outboxes {
    /// Opens the outbox of a shard, if the decisions are published. Returns the shard's way to it.
    pub(crate) fn open(
        &mut self,
        config: &Config,
        data_dir: &DataDir,
        shard: ShardId,
    ) -> Result<Option<FeedEnd>, Fatal> {
        let Some(publish) = &config.publish else { return Ok(None) };
        let published = Arc::new(Published::default());
        let retain = match &publish.to {
            PublishTo::Files(bytes) => Retain::Bytes(*bytes),
            PublishTo::Kafka(_) => Retain::Unpublished(published.clone()),
        };
        let dir = outbox_dir(&config.data_dir, shard);
        let writer = Writer::open(&dir, data_dir.cluster_id(), shard, retain);
        let writer = writer.map_err(|error: OutboxError| Fatal::new(Reason::Machine, error.to_string()))?;
        let (feed, end) = connect_sink();
        if let PublishTo::Kafka(settings) = &publish.to {
            let publication =
                Publication { cluster: data_dir.cluster_id(), shard, shards: config.shards.into() };
            let publishers = self.publishers.get_or_insert_with(|| Publishers::new(*settings.clone()));
            publishers.add(publication, dir, published, end.stand.clone());
        }
        self.kept.push(Kept { writer, end });
        Ok(Some(feed))
    }

    /// Starts the thread that keeps what the shards say, if there is any outbox. The publishers begin later.
    pub(crate) fn start(self) -> Result<(Option<Keeper>, Option<Publishers>), Fatal> {
        if self.kept.is_empty() {
            return Ok((None, None));
        }
        if let Some(publishers) = &self.publishers {
            publishers.start()?;
        }
        let started = Keeper::start(self.kept);
        started.map(|keeper| (Some(keeper), self.publishers)).map_err(no_thread("for the outbox"))
    }
}
