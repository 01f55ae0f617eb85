//! `isonomy publish`: the topics that a cluster publishes to.

use crate::config::{Config, Publish, PublishTo, ServeArgs};
use crate::fatal::{Fatal, Reason, failed};
use crate::out;
use clap::{Args, Subcommand};

/// `isonomy publish`
#[derive(Args, Debug)]
pub(crate) struct PublishArgs {
    #[command(subcommand)]
    command: PublishCommand,
}

/// What is done with the topics.
#[derive(Subcommand, Debug)]
enum PublishCommand {
    /// Create the topics of the configuration, where they do not exist yet
    Init(Box<TopicsArgs>),
}

/// `isonomy publish init`
#[derive(Args, Debug)]
#[command(after_help = "\
Example: isonomy publish init --config /etc/isonomy.toml --copies 3

Creates the topic of the decisions, with a partition for each shard, and the compacted topic of the cursors. The members of a
cluster in etcd have as many shards as its record says, so set --shards there.")]
struct TopicsArgs {
    #[command(flatten)]
    serve: ServeArgs,
    /// How many brokers keep each partition
    #[arg(long, default_value_t = 3, value_name = "N")]
    copies: u8,
}

/// Runs a command of `isonomy publish`.
pub(crate) fn run(args: PublishArgs) -> Result<(), Fatal> {
    let PublishCommand::Init(args) = args.command;
    let config = Config::load(args.serve)?;
    let Some(Publish { to: PublishTo::Kafka(settings), .. }) = &config.publish else {
        let text = "the configuration does not publish to Kafka; set `publish.to` to \"kafka\"";
        return Err(Fatal::new(Reason::Config, text));
    };
    isonomy_kafka::create_topics(settings, config.shards.into(), args.copies.into()).map_err(failed)?;
    out::print(format_args!(
        "topics {} and {} exist at {}, with {} partition(s)",
        settings.topic, settings.cursor_topic, settings.brokers, config.shards
    ))
}
