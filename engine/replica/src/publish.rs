//! The outboxes of a replica, in which it keeps the decisions of its shards for those who read them from outside.

use crate::config::{Config, PublishTarget};
use crate::fatal::{Fatal, Reason};
use isonomy_kafka::outbox::{Keeper, Kept, OutboxError, Retain, Writer};
use isonomy_mesh::{FeedEnd, connect_sink};
use isonomy_shard::data_dir::{DataDir, shard_dir};
use isonomy_wire::id::ShardId;
use std::path::{Path, PathBuf};

/// The directory of a shard's outbox.
pub(crate) fn outbox_dir(data_dir: &Path, shard: ShardId) -> PathBuf {
    shard_dir(data_dir, shard).join("outbox")
}

/// The outboxes that were opened, before their thread runs.
#[derive(Default)]
pub(crate) struct Outboxes(Vec<Kept>);

impl Outboxes {
    /// Opens the outbox of a shard, if the decisions are published. Returns the shard's way to it.
    pub(crate) fn open(
        &mut self,
        config: &Config,
        data_dir: &DataDir,
        shard: ShardId,
    ) -> Result<Option<FeedEnd>, Fatal> {
        let Some(publish) = &config.publish else { return Ok(None) };
        let retain = match publish.to {
            PublishTarget::File => Retain::Bytes(publish.retain),
        };
        let dir = outbox_dir(&config.data_dir, shard);
        let writer = Writer::open(&dir, data_dir.cluster_id(), shard, retain);
        let writer = writer.map_err(|error: OutboxError| Fatal::new(Reason::Machine, error.to_string()))?;
        let (feed, end) = connect_sink();
        self.0.push(Kept { writer, end });
        Ok(Some(feed))
    }

    /// Starts the thread that keeps what the shards say, if there is any outbox.
    pub(crate) fn start(self) -> Result<Option<Keeper>, Fatal> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let started = Keeper::start(self.0);
        started.map(Some).map_err(|error| {
            Fatal::new(
                Reason::Machine,
                format!("no thread for the outbox ({error}); raise the limit on threads"),
            )
        })
    }
}
