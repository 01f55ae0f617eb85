//! The errors of the runtime's files as errors of the system.

use std::io::{Error, ErrorKind, Result};

/// The error of the runtime, with the kernel's error number.
pub(crate) fn error_of(error: glommio::GlommioError<()>) -> Error {
    error.raw_os_error().map_or_else(|| error.into(), Error::from_raw_os_error)
}

/// Checks that a write was done as a whole. A write that was not has met the end of the disk's room.
pub(crate) fn whole(
    written: std::result::Result<usize, glommio::GlommioError<()>>,
    expected: usize,
) -> Result<()> {
    match written.map_err(error_of)? {
        written if written == expected => Ok(()),
        written => {
            let text = format!("only {written} of {expected} bytes were written");
            Err(Error::new(ErrorKind::StorageFull, text))
        }
    }
}
