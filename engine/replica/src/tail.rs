//! `isonomy tail`: the decisions in the outbox of a replica, in the order in which they were executed there.

use crate::bytes;
use crate::fatal::{Fatal, Reason};
use crate::logging;
use crate::out;
use crate::publish::outbox_dir;
use clap::Args;
use isonomy_kafka::outbox::{Next, OutboxError, OutboxReader, SegmentHead};
use isonomy_wire::id::ShardId;
use isonomy_wire::published::{Decision, Effect, Origin, PublishedBatch};
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::time::Duration;

/// How often the command looks for more decisions.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The bytes of text that are gathered before they are printed.
const TEXT_BYTES: usize = 64 << 10;

/// `isonomy tail`
#[derive(Args, Debug)]
#[command(after_help = "\
Prints one JSON object per decision: `key`, `value`, `key_seq` and `id`. Bytes that are not text are in `key_base64` and \
`value_base64`. A decision that ended the key's life has no value, and `deleted`.

Examples:
  isonomy tail /var/lib/isonomy
  isonomy tail /var/lib/isonomy --shard 3 --follow | jq .key")]
pub(crate) struct TailArgs {
    /// The data directory of a replica that publishes (`publish.to`), on this machine
    data_dir: PathBuf,
    /// The shard
    #[arg(long, default_value_t = 0, value_name = "N")]
    shard: u16,
    /// Wait for more decisions at the end, until interrupted
    #[arg(long, short)]
    follow: bool,
}

/// Prints all decisions that the outbox keeps.
pub(crate) fn run(args: &TailArgs) -> Result<(), Fatal> {
    let dir = outbox_dir(&args.data_dir, ShardId(args.shard));
    if !dir.is_dir() {
        return Err(Fatal::new(
            Reason::Missing,
            format!(
                "{} is no outbox; name the data directory of a replica that publishes (`publish.to`) and one of its \
                 shards",
                dir.display()
            ),
        ));
    }
    let mut reader = OutboxReader::new(&dir);
    let (mut text, mut is_first) = (String::new(), true);
    loop {
        match reader.read_next().map_err(unread)? {
            Next::Batch(batch) => print_batch(&batch, &mut text),
            Next::Segment(head) => {
                print(&mut text)?;
                tell_gap(&head, std::mem::replace(&mut is_first, false));
            }
            Next::End => {
                print(&mut text)?;
                if !args.follow {
                    return Ok(());
                }
                std::thread::sleep(LOOK_EVERY);
            }
        }
        if text.len() >= TEXT_BYTES {
            print(&mut text)?;
        }
    }
}

fn print(text: &mut String) -> Result<(), Fatal> {
    let printed = if text.is_empty() { Ok(()) } else { out::print_bytes(text.as_bytes()) };
    text.clear();
    printed
}

fn unread(error: OutboxError) -> Fatal {
    let reason = match error {
        OutboxError::Io(..) => Reason::Disk,
        OutboxError::Head(_) | OutboxError::Batch(..) => Reason::Damaged,
    };
    Fatal::new(reason, error.to_string())
}

/// Says on standard error that decisions are missing, because standard output has decisions only.
fn tell_gap(head: &SegmentHead, is_first: bool) {
    let barrier = head.start.barrier;
    if is_first && barrier > 0 {
        logging::say(&format!(
            "isonomy: the outbox begins at barrier {barrier}; it keeps no older decisions"
        ));
    } else if head.has_gap {
        logging::say(&format!(
            "isonomy: the replica took over the state at barrier {barrier} as a snapshot; the decisions since the one before \
             are in the outboxes of other replicas"
        ));
    }
}

fn print_batch(batch: &PublishedBatch<'_>, text: &mut String) {
    for decision in batch.decisions() {
        text.push_str(&Value::Object(to_json(batch.origin(), &decision)).to_string());
        text.push('\n');
    }
}

fn to_json(origin: &Origin, decision: &Decision<'_>) -> Map<String, Value> {
    let mut object = Map::new();
    bytes::put(&mut object, "key", decision.key);
    let key_seq = match decision.effect {
        Effect::Decided { key_seq } => {
            bytes::put(&mut object, "value", decision.value);
            key_seq
        }
        Effect::Deleted { key_seq } => {
            object.insert("value".into(), Value::Null);
            object.insert("deleted".into(), true.into());
            key_seq
        }
    };
    object.insert("key_seq".into(), key_seq.into());
    object.insert("id".into(), origin.command(decision.index.into()).to_string().into());
    object
}
