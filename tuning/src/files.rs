//! Errors for want of open files.

use std::io::Error;

/// The remedy for these errors.
pub const REMEDY: &str = "raise the limits on open files: of this process (`ulimit -n`, LimitNOFILE= in a \
                          systemd unit) or of the machine (the sysctl fs.file-max)";

/// Whether something failed for want of open files, of the process or of the whole system. Nothing was done in that
/// case, and another try may succeed later.
pub fn are_lacking(error: &Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_open_files_is_told_from_other_failures() {
        for code in [libc::EMFILE, libc::ENFILE] {
            assert!(are_lacking(&Error::from_raw_os_error(code)));
        }
        assert!(!are_lacking(&Error::from_raw_os_error(libc::EIO)));
    }
}
