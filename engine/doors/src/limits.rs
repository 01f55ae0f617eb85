//! Every bound of the doors. docs/HTTP.md, docs/GRPC.md and openapi.json name those that users meet.

use isonomy_wire::command::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use std::time::Duration;

/// The most connections. A further connection is answered 503 and closed.
pub(crate) const CONNECTIONS_MAX: usize = 1024;
/// The most bytes of a request line and its header fields; more are answered 431.
pub(crate) const HEAD_BYTES_MAX: usize = 16 << 10;
/// The most header fields of a request; more are answered 431.
pub(crate) const HEADER_FIELDS_MAX: usize = 100;
/// How long a connection may take to send the next request's head, whether it is idle or slow.
pub(crate) const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// The most bytes of a body, and of a line of a batch: a value, a key of which every byte is escaped, and ids.
pub(crate) const BODY_BYTES_MAX: usize = VALUE_BYTES_MAX + (16 << 10);
/// The most bytes of all bodies that have come and are not decided.
pub(crate) const BODIES_BYTES_MAX: usize = 64 << 20;
/// How long a body may take to come, and a batch to send its next bytes.
pub(crate) const BODY_PATIENCE: Duration = Duration::from_secs(10);
/// How long bytes that were sent may stay unacknowledged, by a reader that is slow or gone, before the system ends the
/// connection.
pub(crate) const READER_PATIENCE: Duration = Duration::from_secs(30);
/// How long, and for how many bytes, a connection that is closed still takes what its sender has under way, so that the
/// last answer is not lost.
pub(crate) const LINGER: Duration = Duration::from_secs(2);
pub(crate) const LINGER_BYTES_MAX: usize = 4 << 20;
/// The most decisions and reads that are under way, without those of batches. The other connections still get answers.
pub(crate) const REQUESTS_MAX: usize = 512;
/// The most open files of HTTP: connections, and what streams read. The connections to the shards are few.
pub const HTTP_FILES_MAX: u64 = (CONNECTIONS_MAX + STREAMS_MAX + 32) as u64;
/// The same of gRPC.
pub const GRPC_FILES_MAX: u64 = (GRPC_CONNECTIONS_MAX + STREAMS_MAX + 32) as u64;
/// The most batches that are under way.
pub(crate) const BATCHES_MAX: usize = 32;
/// The most lines of a batch whose answers were not written.
pub(crate) const BATCH_LINES_MAX: usize = 1024;
/// The bytes of answers that a batch gathers before they are written.
pub(crate) const BATCH_CHUNK_BYTES: usize = 16 << 10;
/// The most streams of decisions that are read.
pub(crate) const STREAMS_MAX: usize = 400;
/// About how many bytes of events are read before they are written. No more are read for a reader that does not take them.
pub(crate) const STREAM_CHUNK_BYTES: usize = 64 << 10;
/// How often a stream looks for more decisions.
pub(crate) const STREAM_LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a stream without decisions is silent.
pub(crate) const STREAM_BEAT: Duration = Duration::from_secs(10);
/// The most threads that read files for streams.
pub(crate) const STREAM_THREADS_MAX: usize = 4;
/// The longest time for a decision or a read, and the time without a `Request-Timeout`. It is also the time after which
/// the client of the cluster gives up, so that its reason is told.
pub(crate) const DEADLINE_MAX: Duration = Duration::from_secs(5);
/// How much longer than [`DEADLINE_MAX`] is waited for that reason.
pub(crate) const DEADLINE_GRACE: Duration = Duration::from_millis(250);
/// The longest `client_id`, `request_id` and `Idempotency-Key`, in bytes.
pub(crate) const ID_BYTES_MAX: usize = 200;
/// The most connections of gRPC, each with many calls. A further connection is told so and closed.
pub(crate) const GRPC_CONNECTIONS_MAX: usize = 512;
/// The most calls that are under way on a connection of gRPC. A sender of more waits.
pub(crate) const CALLS_MAX: u32 = 128;
/// The most bytes that a call sends before they are read.
pub(crate) const CALL_WINDOW_BYTES: u32 = 64 << 10;
/// The same of a connection. The HTTP/2 library closes a connection whose unread small frames cost more than half of this, and
/// a stream of proposals that is not read on has frames of a few bytes: so it is far more than the windows of some calls.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// The most bytes of a message: a value, a key and names. It is also the most of a body of HTTP, so that both say the same.
pub(crate) const MESSAGE_BYTES_MAX: usize = BODY_BYTES_MAX;
/// The most bytes of a message that is answered: a decision.
pub(crate) const ANSWER_BYTES_MAX: usize = BODY_BYTES_MAX;
/// The most streams of proposals that are under way.
pub(crate) const PROPOSAL_STREAMS_MAX: usize = 128;
/// The most proposals of a stream whose answers were not taken. No more are read.
pub(crate) const PROPOSALS_PER_STREAM_MAX: usize = 1024;
/// How often gRPC looks whether the replica is ready.
pub(crate) const HEALTH_LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often a connection of gRPC is looked at for calls that are stuck.
pub(crate) const CONNECTION_LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a connection of gRPC is kept that has had calls and has none. A client opens another one for its next call.
pub(crate) const IDLE_PATIENCE: Duration = Duration::from_secs(300);
/// How often the other end of a connection of gRPC must show that it is there, and how long it may take.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(20);
pub(crate) const PING_PATIENCE: Duration = Duration::from_secs(10);
/// How long a sender is asked to wait when no time is known.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long the answers that are under way may take when the process is told to stop.
pub(crate) const STOP_PATIENCE: Duration = Duration::from_secs(3);
/// The pause after an error of the listener, such as too many open files.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a shard may say nothing before it counts as standing still. A shard tells its metrics about once a second.
pub(crate) const SHARD_SILENCE_MAX: Duration = Duration::from_secs(5);

const _: () = {
    // Health and metrics find a connection, whatever is under way.
    assert!(REQUESTS_MAX + BATCHES_MAX + STREAMS_MAX < CONNECTIONS_MAX);
    // Every byte of a key may come as \u0000, and ids likewise.
    assert!(BODY_BYTES_MAX >= VALUE_BYTES_MAX + 6 * (KEY_BYTES_MAX + 2 * ID_BYTES_MAX) + 1024);
    // A request's name makes a key, in which one of the ids may be percent-encoded.
    assert!(3 * ID_BYTES_MAX + ID_BYTES_MAX + 64 <= KEY_BYTES_MAX);
    // A decision has a value, a key, an id and numbers.
    assert!(ANSWER_BYTES_MAX >= VALUE_BYTES_MAX + KEY_BYTES_MAX + 256);
};
