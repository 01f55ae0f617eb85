//! What the commands that talk to a running cluster share.

use crate::fatal::Fatal;
use clap::{Args, ValueEnum};
use std::future::Future;

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Output {
    /// For people
    #[default]
    Table,
    /// One JSON object per line
    Json,
}

/// Where the cluster is.
#[derive(Args, Debug)]
pub(crate) struct ConnectArgs {
    /// Client ports of shard 0 of any of the replicas
    #[arg(
        long,
        env = "ISONOMY_CONNECT",
        value_delimiter = ',',
        required = true,
        value_name = "HOST:PORT,..."
    )]
    pub(crate) connect: Vec<String>,
}

/// Runs a command on a runtime of its own.
pub(crate) fn block_on(command: impl Future<Output = anyhow::Result<()>>) -> Result<(), Fatal> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(Fatal::failed)?.block_on(command).map_err(Fatal::failed)
}
