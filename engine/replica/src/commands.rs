//! The shared parts of the commands that talk to a running cluster.

use crate::fatal::{Fatal, failed};
use clap::{Args, ValueEnum};
use isonomy_wire::client::{Client, ConnectError, Contact, contact};
use isonomy_wire::conversation::Config;
use isonomy_wire::id::ClusterId;
use isonomy_wire::message::Role;
use std::future::Future;

/// The format in which results are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Output {
    /// For people
    #[default]
    Table,
    /// One JSON object per line
    Json,
}

/// The options that name the cluster.
#[derive(Args, Debug)]
pub(crate) struct ConnectArgs {
    /// The addresses of one or more replicas, each with the client port of shard 0
    #[arg(
        long,
        env = "ISONOMY_CONNECT",
        value_delimiter = ',',
        required = true,
        value_name = "HOST:PORT,..."
    )]
    pub(crate) connect: Vec<String>,
    /// Talk only to members of this cluster, named by its name or by the id that `isonomy status` shows. Name a
    /// cluster that was restored from a backup by its id, which does not follow from its name
    #[arg(long, env = "ISONOMY_CLUSTER", value_name = "NAME|ID")]
    pub(crate) cluster: Option<ClusterId>,
}

impl ConnectArgs {
    /// The first replica that answers.
    pub(crate) async fn contact(&self, role: Role) -> Result<Contact, ConnectError> {
        contact(&self.connect, self.cluster, role).await
    }

    /// A client of the cluster.
    pub(crate) async fn client(&self) -> Result<Client, ConnectError> {
        let welcome = self.contact(Role::Client).await?.welcome;
        let config = Config::of(&welcome);
        Ok(Client::with(welcome, config))
    }
}

/// A possible reason why a command has no answer.
pub(crate) fn unconnected(troubles: &[String]) -> String {
    if troubles.is_empty() { String::new() } else { format!(" ({})", troubles.join("; ")) }
}

/// Runs a command on a runtime of its own.
pub(crate) fn block_on(command: impl Future<Output = anyhow::Result<()>>) -> Result<(), Fatal> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed)?;
    let done = runtime.block_on(command);
    // A name that is still looked up, on a thread of its own, holds nobody up.
    runtime.shutdown_background();
    done.map_err(failed)
}
