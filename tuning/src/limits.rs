//! The limits that this process inherits from its parent process (`ulimit`, `Limit…=` in a systemd unit).

use rlimit::{getrlimit, setrlimit};
use std::io::Result;

pub use rlimit::Resource;

/// A limit that does not limit.
pub const UNLIMITED: u64 = rlimit::INFINITY;

/// The bytes of locked memory that the rings of one executor take.
pub const EXECUTOR_MEMLOCK_BYTES: u64 = 512 << 10;

/// The limit as it stands.
///
/// # Errors
/// The system does not know the resource.
pub fn limit(resource: Resource) -> Result<u64> {
    Ok(getrlimit(resource)?.0)
}

/// Raises the limit to what is needed, as far as that is allowed. Returns the limit that holds now, which may be
/// lower or higher.
///
/// # Errors
/// The system does not know the resource, or refuses a limit within those that it allows.
pub fn raise(resource: Resource, needed: u64) -> Result<u64> {
    let (soft, hard) = getrlimit(resource)?;
    if soft >= needed || hard <= soft {
        return Ok(soft);
    }
    let wanted = needed.min(hard);
    setrlimit(resource, wanted, hard)?;
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_raised_as_far_as_it_goes_and_reported_as_it_is() {
        let (_, hard) = getrlimit(Resource::NOFILE).unwrap();
        setrlimit(Resource::NOFILE, hard / 2, hard).unwrap();
        assert_eq!(raise(Resource::NOFILE, 1).unwrap(), hard / 2);
        assert_eq!(raise(Resource::NOFILE, hard / 2 + 1).unwrap(), hard / 2 + 1);
        assert_eq!(raise(Resource::NOFILE, UNLIMITED).unwrap(), hard);
        assert_eq!(limit(Resource::NOFILE).unwrap(), hard);
    }
}
