//! `isonomy read`: the latest decision of a key.

use crate::bytes::{self, KeyArgs, quoted};
use crate::commands::{ConnectArgs, block_on, unconnected};
use crate::fatal::{Fatal, Reason};
use crate::logging;
use crate::out;
use anyhow::{Context, Result, anyhow};
use clap::{Args, ValueEnum};
use isonomy_wire::client::{CallError, Found};
use isonomy_wire::conversation::Error;
use serde_json::{Map, Value};

/// `isonomy read`
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  isonomy read --connect 127.0.0.1:7400 order-17
  isonomy read --connect 127.0.0.1:7400 --output raw picture-3 > picture.png
  isonomy read --connect 127.0.0.1:7400 --key-hex 00ff17

The command ends with code 10 if the key has no decision, and with code 1 if the command could
not read the key.")]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    key: KeyArgs,
    /// The format in which the decision is printed
    #[arg(long, value_enum, default_value_t)]
    output: ReadOutput,
}

/// The format in which a decision is printed.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum ReadOutput {
    /// For people: the value and a newline; a value that is not text is printed as base64
    #[default]
    Table,
    /// One JSON object; a value that is not text is in `value_base64`
    Json,
    /// Exactly the bytes of the value
    Raw,
}

/// Prints the key's latest decision; an error if it has none.
pub(crate) fn run(args: &ReadArgs) -> Result<(), Fatal> {
    block_on(async {
        let key = args.key.get();
        let client = args.connect.client().await?;
        let found = client.read(key.clone()).await.map_err(|error| unread(error, &client.troubles()));
        let found = found.with_context(|| format!("reading {}", quoted(&key)))?;
        client.close().await;
        let missing = || Fatal::new(Reason::Missing, format!("{} has no decision", quoted(&key)));
        print(args.output, &key, &found.ok_or_else(missing)?)
    })
}

/// Advises to repeat a read that failed: a read has no effect, so its outcome need not be found out.
fn unread(error: CallError, troubles: &[String]) -> anyhow::Error {
    match error {
        CallError::Failed(Error::TimedOut | Error::NotTaken { .. }) => anyhow!(
            "no answer came in time, because no majority of the replicas answered{}; see `isonomy status`, and \
             read again",
            unconnected(troubles)
        ),
        other => other.into(),
    }
}

fn print(output: ReadOutput, key: &[u8], found: &Found) -> Result<()> {
    match output {
        ReadOutput::Raw => out::print_bytes(&found.value)?,
        ReadOutput::Table => match std::str::from_utf8(&found.value) {
            Ok(text) => out::print(text)?,
            Err(_) => {
                logging::say(
                    "isonomy: the value is not text, so it is shown in base64; --output raw prints its bytes",
                );
                out::print(bytes::base64(&found.value))?;
            }
        },
        ReadOutput::Json => {
            let mut object = Map::new();
            bytes::put(&mut object, "key", key);
            bytes::put(&mut object, "value", &found.value);
            object.insert("key_seq".into(), found.key_seq.into());
            object.insert("id".into(), found.id.to_string().into());
            out::print(Value::Object(object))?;
        }
    }
    Ok(())
}
