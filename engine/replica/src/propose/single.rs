//! Decides one key, with a value from the command line, a file or standard input.

use super::ProposeArgs;
use crate::bytes::{self, quoted};
use crate::commands::Output;
use crate::fatal::{Fatal, Reason};
use crate::out;
use anyhow::{Context, Result};
use isonomy_wire::client::{Client, Committed, Decided};
use isonomy_wire::command::{VALUE_BYTES_MAX, check_value};
use isonomy_wire::message::Role;
use serde_json::{Map, Value};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, stdin};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A key and its proposed value.
pub(super) struct Asked {
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Asked {
    /// The settings of the command line, with the value that they name.
    pub(super) fn of(args: &ProposeArgs) -> Result<Asked, Fatal> {
        let mut words = [&args.first, &args.second].into_iter().flatten();
        let typed = |words: &mut dyn Iterator<Item = &std::ffi::OsString>| {
            words.next().map(|key| key.as_bytes().to_vec())
        };
        let key = args.key_bytes.get().or_else(|| typed(&mut words));
        let key = key.ok_or_else(|| unclear("there is no key"))?;
        let value = match (words.next(), &args.value_file, words.next()) {
            (Some(word), None, None) if word == OsStr::new("-") => read(stdin(), "standard input")?,
            (Some(word), None, None) => word.as_bytes().to_vec(),
            (None, Some(path), None) => read_file(path)?,
            (None, None, None) => return Err(unclear("there is no value")),
            _ => return Err(unclear("there is more than one value")),
        };
        Ok(Asked { key, value })
    }
}

fn unclear(what: &str) -> Fatal {
    let advice = "give KEY and one of VALUE, - or --value-file FILE, or --from FILE and --key FIELD";
    Fatal::new(Reason::CommandLine, format!("{what}; {advice}; see `isonomy propose --help`"))
}

fn read_file(path: &Path) -> Result<Vec<u8>, Fatal> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| unread(&name, &error))?;
    read(file, &name)
}

/// The whole input, which is refused before more of it is held than a value may have.
fn read(input: impl Read, name: &str) -> Result<Vec<u8>, Fatal> {
    let mut value = Vec::new();
    let count = input.take(VALUE_BYTES_MAX as u64 + 1).read_to_end(&mut value);
    if count.map_err(|error| unread(name, &error))? > VALUE_BYTES_MAX {
        let text = format!("{name} has more than {VALUE_BYTES_MAX} bytes, which is the limit of a value");
        return Err(Fatal::new(Reason::Failed, text + "; keep large data elsewhere and decide their name"));
    }
    Ok(value)
}

fn unread(name: &str, error: &std::io::Error) -> Fatal {
    Fatal::new(Reason::Failed, format!("{name}: {error}; name a file that this user may read"))
}

/// Decides the key and prints what became of it.
pub(super) async fn run(args: &ProposeArgs, asked: Asked) -> Result<()> {
    let Asked { key, value } = asked;
    check_value(value.len())?;
    let welcome = args.connect.contact(Role::Client).await?.welcome;
    let config = args.conversation(&welcome);
    let client = Client::with(welcome, config);
    let decided = match args.if_seq {
        None => client.decide(key.clone(), value).await.map(Decided::Committed),
        Some(expected) => client.decide_if(key.clone(), value, expected).await,
    };
    let decided = decided.with_context(|| format!("proposing {}", quoted(&key)))?;
    client.close().await;
    match decided {
        Decided::Committed(committed) => print_committed(args.output, &key, committed),
        Decided::Rejected { key_seq, value } => {
            print_rejected(args.output, &key, key_seq, value.as_deref())?;
            let expected = args.if_seq.unwrap_or_default();
            let key = quoted(&key);
            let now = match key_seq {
                0 => format!("has no decision, so it is not at {expected}"),
                _ => format!("is at decision {key_seq}, not {expected}"),
            };
            let text =
                format!("{key} {now}, and the key was not changed; propose again with --if-seq {key_seq}");
            Err(Fatal::new(Reason::Rejected, text).into())
        }
    }
}

fn print_committed(output: Output, key: &[u8], committed: Committed) -> Result<()> {
    let (id, key_seq) = (committed.id.to_string(), committed.key_seq);
    match output {
        Output::Table => out::print(format_args!("committed {id}, decision {key_seq} of {}", quoted(key)))?,
        Output::Json => {
            let mut object = object_of(key, true, key_seq);
            object.insert("id".into(), id.into());
            out::print(Value::Object(object))?;
        }
    }
    Ok(())
}

/// What the key is now. A key without decisions has no value; of a large one it is not sent along.
fn print_rejected(output: Output, key: &[u8], key_seq: u64, value: Option<&[u8]>) -> Result<()> {
    match output {
        Output::Table => {
            let now = match value {
                Some(value) => format!("decision {key_seq}, {}", quoted(value)),
                None if key_seq == 0 => "no decision".to_owned(),
                None => format!(
                    "decision {key_seq}, with a value that is too large for this answer; read the key"
                ),
            };
            out::print(format_args!("rejected, {} has {now}", quoted(key)))?;
        }
        Output::Json => {
            let mut object = object_of(key, false, key_seq);
            match value {
                Some(value) => bytes::put(&mut object, "value", value),
                None => drop(object.insert("value".into(), Value::Null)),
            }
            out::print(Value::Object(object))?;
        }
    }
    Ok(())
}

fn object_of(key: &[u8], committed: bool, key_seq: u64) -> Map<String, Value> {
    let mut object = Map::new();
    bytes::put(&mut object, "key", key);
    object.insert("committed".into(), committed.into());
    object.insert("key_seq".into(), key_seq.into());
    object
}
