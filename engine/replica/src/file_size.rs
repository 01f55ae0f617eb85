//! The limit on the size of the files that a process writes (`ulimit -f`). By default the system ends a process
//! that meets it by a signal, without a word; here it is an error of the write.

use crate::checks::{machine, raise};
use crate::config::Config;
use crate::data_dir::shard_dir;
use crate::fatal::Fatal;
use crate::shard::SEGMENT_BYTES;
use crate::snapshots;
use isonomy_wire::id::ShardId;
use rlimit::{INFINITY, Resource, getrlimit};
use signal_hook::consts::SIGXFSZ;
use std::io::{Error, ErrorKind};
use std::path::Path;
use std::sync::Arc;

/// What to do about it.
const REMEDY: &str = "raise the limit on the size of files (`ulimit -f`, LimitFSIZE= in a systemd unit)";

/// From now on a write beyond the limit fails, and ends nothing.
pub(crate) fn outlive_signal() {
    // A system that refuses the handler ends the process as it would have without.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
}

/// Raises the limit as far as it goes; an error if a segment of the log or a snapshot that is there does not
/// fit it.
pub(crate) fn check(config: &Config) -> Result<(), Fatal> {
    let limit = raise(Resource::FSIZE, INFINITY)?;
    if limit == INFINITY {
        return Ok(());
    }
    if limit < SEGMENT_BYTES as u64 {
        return Err(machine(format!(
            "files may have {limit} bytes here, and a segment of the log has {SEGMENT_BYTES}; {REMEDY}"
        )));
    }
    for shard in 0..config.shards {
        let dir = shard_dir(&config.data_dir, ShardId(shard));
        if let Some((barrier, bytes)) = newest_snapshot(&dir).filter(|(_, bytes)| *bytes > limit) {
            let path = snapshots::snapshot_path(&dir, barrier);
            return Err(machine(format!(
                "files may have {limit} bytes here, and the snapshot {} has {bytes}, as the next ones will; {REMEDY}",
                path.display()
            )));
        }
    }
    log::warn!(
        "files may have {limit} bytes here: no snapshot that is larger will be written, and without snapshots the log \
         grows to its budget; {REMEDY}, to `unlimited`"
    );
    Ok(())
}

/// The barrier and the size of the newest snapshot in a shard's directory, if there is one. What does not read is
/// told when it is needed.
fn newest_snapshot(dir: &Path) -> Option<(u64, u64)> {
    let barrier = snapshots::list(dir).ok()?.pop()?;
    Some((barrier, snapshots::snapshot_path(dir, barrier).metadata().ok()?.len()))
}

/// Whether a file may grow to so many bytes. A direct write that crosses a limit between two blocks fails as if
/// it were not aligned, so whoever writes in that way asks before.
pub(crate) fn check_fits(bytes: u64) -> std::io::Result<()> {
    match getrlimit(Resource::FSIZE) {
        Ok((limit, _)) if bytes > limit => Err(ErrorKind::FileTooLarge.into()),
        _ => Ok(()),
    }
}

/// What to do about an error, if this limit is what it met, or the largest file of a file system.
pub(crate) fn remedy(error: &Error) -> Option<String> {
    if error.kind() != ErrorKind::FileTooLarge {
        return None;
    }
    Some(match getrlimit(Resource::FSIZE) {
        Ok((limit, _)) if limit != INFINITY => format!("files may have {limit} bytes here; {REMEDY}"),
        _ => "its file system holds no larger files; use another".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_that_is_too_large_has_this_remedy() {
        let too_large = remedy(&Error::from_raw_os_error(libc::EFBIG));
        assert!(too_large.is_some_and(|text| text.contains("file system") || text.contains("ulimit -f")));
        assert_eq!(remedy(&Error::from_raw_os_error(libc::ENOSPC)), None);
    }
}
