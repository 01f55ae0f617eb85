//! The limit on the size of the files that a process writes (`ulimit -f`). By default the system ends a process
//! that meets the limit by a signal, without a word; here the write fails.

use crate::limits::{Resource, UNLIMITED, limit};
use signal_hook::consts::SIGXFSZ;
use std::io::{Error, ErrorKind, Result};
use std::sync::Arc;

/// The remedy for a limit that is too low.
pub const REMEDY: &str = "raise the limit on the size of files (`ulimit -f`, LimitFSIZE= in a systemd unit)";

/// From now on a write beyond the limit fails, and ends nothing.
pub fn outlive_signal() {
    // If the system refuses the handler, it ends the process as it would have without this call.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
}

/// Whether a file may grow to so many bytes. A direct write that crosses a limit between two blocks fails as if
/// it were not aligned, so a caller that writes directly asks first.
///
/// # Errors
/// `FileTooLarge`, as the write itself would fail.
pub fn check_fits(bytes: u64) -> Result<()> {
    match limit(Resource::FSIZE) {
        Ok(limit) if bytes > limit => Err(ErrorKind::FileTooLarge.into()),
        _ => Ok(()),
    }
}

/// The remedy for an error, if a file met this limit, or is the largest that its file system holds.
pub fn remedy(error: &Error) -> Option<String> {
    if error.kind() != ErrorKind::FileTooLarge {
        return None;
    }
    Some(match limit(Resource::FSIZE) {
        Ok(limit) if limit != UNLIMITED => {
            format!("the limit on the size of files is {limit} bytes; {REMEDY}")
        }
        _ => "the file system holds no larger files; use another file system".to_owned(),
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
