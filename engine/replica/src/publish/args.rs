//! `isonomy publish`: the topics that a cluster publishes to, and where it goes on in them.

use super::init::TopicsArgs;
use super::reset::{AdoptArgs, ResetArgs};
use super::standing::PublicationArgs;
use super::{init, reset, standing};
use crate::config::{Config, Publish, PublishTo};
use crate::fatal::{Fatal, Reason};
use clap::{Args, Subcommand};
use isonomy_kafka::settings::Settings as KafkaSettings;

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
    /// Show the topics, how far each shard is published, who publishes it, and what is wrong
    Status(Box<PublicationArgs>),
    /// Say where shards go on that cannot be published any more: after a topic was deleted, records were lost, or decisions were
    /// made that no replica keeps
    Reset(Box<ResetArgs>),
    /// Go on in the topic of another cluster, from whose backup this one was restored
    Adopt(Box<AdoptArgs>),
}

/// Runs a command of `isonomy publish`.
pub(crate) fn run(args: PublishArgs) -> Result<(), Fatal> {
    match args.command {
        PublishCommand::Init(args) => init::run(*args),
        PublishCommand::Status(args) => standing::run(*args),
        PublishCommand::Reset(args) => reset::run_reset(*args),
        PublishCommand::Adopt(args) => reset::run_adopt(*args),
    }
}

/// Where the configuration publishes to.
pub(super) fn kafka_of(config: &Config) -> Result<&KafkaSettings, Fatal> {
    match &config.publish {
        Some(Publish { to: PublishTo::Kafka(settings), .. }) => Ok(settings),
        _ => {
            let text = "the configuration does not publish to Kafka; set `publish.to` to \"kafka\"";
            Err(Fatal::new(Reason::Config, text))
        }
    }
}
