//! Where the decisions are published: the table `[publish]`.

use crate::fatal::Fatal;
use clap::ValueEnum;
use serde::Deserialize;

use super::bad;

/// The default size of an outbox that is nobody's backlog, in MiB.
const RETAIN_MIB: u64 = 1024;
/// The default size of what may wait for publication, in MiB.
const BACKLOG_MIB: u64 = 4096;

/// Where decisions are published.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Target {
    /// Files in the data directory
    File,
}

/// The table `[publish]` of the configuration file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PublishFile {
    to: Option<Target>,
    retain_mib: Option<u64>,
    backlog_mib: Option<u64>,
}

/// How the decisions are published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Publish {
    pub(crate) to: Target,
    /// The bytes of decisions that each shard keeps in files.
    pub(crate) retain: u64,
    /// The bytes of decisions that may wait for publication in each shard before it refuses clients.
    pub(crate) backlog: u64,
}

/// Joins the flag and the file.
pub(super) fn join(to: Option<Target>, file: PublishFile) -> Result<Option<Publish>, Fatal> {
    let PublishFile { to: chosen, retain_mib, backlog_mib } = file;
    let Some(to) = to.or(chosen) else {
        return match (retain_mib, backlog_mib) {
            (None, None) => Ok(None),
            _ => Err(bad("the table `publish` does not say where to; set `to` to \"file\"".into())),
        };
    };
    let bytes = |mib: u64, name: &str| match mib {
        0 => Err(bad(format!("`publish.{name}` is 0; nothing could be kept"))),
        _ => Ok(mib.saturating_mul(1 << 20)),
    };
    Ok(Some(Publish {
        to,
        retain: bytes(retain_mib.unwrap_or(RETAIN_MIB), "retain_mib")?,
        backlog: bytes(backlog_mib.unwrap_or(BACKLOG_MIB), "backlog_mib")?,
    }))
}
