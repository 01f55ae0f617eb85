//! Every bound of the doors.

use std::time::Duration;

/// The most connections. A further connection is answered 503 and closed.
pub(crate) const CONNECTIONS_MAX: usize = 1024;
/// The most bytes of a request line and its header fields; more are answered 431.
pub(crate) const HEAD_BYTES_MAX: usize = 16 << 10;
/// The most header fields of a request; more are answered 431.
pub(crate) const HEADER_FIELDS_MAX: usize = 100;
/// How long a connection may take to send the next request's head, whether it is idle or slow.
pub(crate) const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// How long bytes that were sent may stay unacknowledged, by a reader that is slow or gone, before the system ends the connection.
pub(crate) const READER_PATIENCE: Duration = Duration::from_secs(30);
/// How long the answers that are under way may take when the process is told to stop.
pub(crate) const STOP_PATIENCE: Duration = Duration::from_secs(3);
/// The pause after an error of the listener, such as too many open files.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a shard may say nothing before it counts as standing still. A shard tells its metrics about once a second.
pub(crate) const SHARD_SILENCE_MAX: Duration = Duration::from_secs(5);
