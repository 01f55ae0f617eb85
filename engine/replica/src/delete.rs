//! `isonomy delete`: ends a key's life.

use crate::bytes::{self, KeyArgs, quoted};
use crate::commands::{ConnectArgs, Output, block_on};
use crate::fatal::{Fatal, Reason};
use crate::out;
use anyhow::Context;
use clap::Args;
use serde_json::{Map, Value};

/// `isonomy delete`
#[derive(Args, Debug)]
#[command(after_help = "\
Example: isonomy delete --connect 127.0.0.1:7400 order-17

A later decision begins a new life of the key, with decision 1. The command ends with code 10 if the key has no
decision.")]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    key: KeyArgs,
    /// The format in which the outcome is printed
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Removes the key's state; an error if the key has none.
pub(crate) fn run(args: &DeleteArgs) -> Result<(), Fatal> {
    block_on(async {
        let key = args.key.get();
        let client = args.connect.client().await?;
        let deleted = client.delete(key.clone()).await;
        let deleted = deleted.with_context(|| format!("deleting {}", quoted(&key)))?;
        client.close().await;
        let missing = || Fatal::new(Reason::Missing, format!("{} has no decision to delete", quoted(&key)));
        let deleted = deleted.ok_or_else(missing)?;
        let (id, key_seq) = (deleted.id.to_string(), deleted.key_seq);
        match args.output {
            Output::Table => {
                out::print(format_args!("deleted {} by {id}, after its decision {key_seq}", quoted(&key)))?;
            }
            Output::Json => {
                let mut object = Map::new();
                bytes::put(&mut object, "key", &key);
                object.insert("key_seq".into(), key_seq.into());
                object.insert("id".into(), id.into());
                out::print(Value::Object(object))?;
            }
        }
        Ok(())
    })
}
