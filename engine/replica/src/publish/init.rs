//! `isonomy publish init`: creates the topics.

use super::args::kafka_of;
use crate::config::{Config, ServeArgs};
use crate::fatal::{Fatal, failed};
use crate::out;
use clap::Args;

/// `isonomy publish init`
#[derive(Args, Debug)]
#[command(after_help = "\
Example: isonomy publish init --config /etc/isonomy.toml --copies 3

Creates the topic of the decisions, with a partition for each shard, and the compacted topic of the cursors. The members of a
cluster in etcd have as many shards as its record says, so set --shards there.")]
pub(super) struct TopicsArgs {
    #[command(flatten)]
    serve: ServeArgs,
    /// How many brokers keep each partition
    #[arg(long, default_value_t = 3, value_name = "N")]
    copies: u8,
}

pub(super) fn run(args: TopicsArgs) -> Result<(), Fatal> {
    let config = Config::load(args.serve)?;
    let settings = kafka_of(&config)?;
    isonomy_kafka::create_topics(settings, config.shards.into(), args.copies.into()).map_err(failed)?;
    out::print(format_args!(
        "topics {} and {} exist at {}, with {} partition(s)",
        settings.topic, settings.cursor_topic, settings.brokers, config.shards
    ))
}
