//! `isonomy read`: the latest decision of a key.

use crate::commands::{ConnectArgs, Output, block_on, text_of};
use crate::fatal::Fatal;
use anyhow::{Context, bail};
use clap::Args;
use isonomy_wire::client::Client;
use serde_json::json;

/// `isonomy read`
#[derive(Args, Debug)]
#[command(after_help = "Example: isonomy read --connect 127.0.0.1:7400 order-17")]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// The key
    key: String,
    /// How the decision is printed
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Prints the key's latest decision; an error if it has none.
pub(crate) fn run(args: &ReadArgs) -> Result<(), Fatal> {
    block_on(async {
        let client = Client::connect(&args.connect.connect).await?;
        let found = client.read(args.key.clone()).await.with_context(|| format!("reading '{}'", args.key))?;
        client.close().await;
        let Some(found) = found else { bail!("'{}' has no decision", args.key) };
        let (value, id) = (text_of(&found.value), found.id.to_string());
        match args.output {
            Output::Table => println!("{value}"),
            Output::Json => {
                println!("{}", json!({"key": args.key, "value": value, "key_seq": found.key_seq, "id": id}));
            }
        }
        Ok(())
    })
}
