//! One TCP connection, with bounds on incoming and outgoing frames.

use futures_lite::io::{ReadHalf, WriteHalf, split};
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt};
use glommio::net::TcpStream;
use glommio::timer::Timer;
use isonomy_wire::frame::{Encode, Encoder, Frame, FrameError, Kind, Scope, Splitter, padding};
use isonomy_wire::id::{Epoch, ShardId};
use isonomy_wire::message::{Handshake, Refusal, WIRE_VERSION};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::net::socket::{has_failed, limit_silence};
use crate::signal::Signal;

/// The room that a read is offered, enough for several frames of the usual size.
const READ_CHUNK_BYTES: usize = 256 << 10;
/// The size beyond which a buffer that grew in a burst is freed.
const KEPT_BUFFER_BYTES: usize = 1 << 20;
/// How long a stranger may take for the first frame.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);
/// How often the shard checks whether a connection has failed from which it does not read for now.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a refused connection is kept so that the refusal arrives.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(1);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("refused: {0}")]
    Refused(Refusal),
    #[error("{0}: {1}")]
    Unreachable(SocketAddr, std::io::Error),
    #[error("'{host}' has no address: {why}; check the name, and that the name server answers")]
    NoAddress { host: String, why: String },
    #[error(
        "{error}; this was the last known address, because the name '{host}' could not be looked up ({why}); \
         check the name and the name server"
    )]
    LastAddress { host: String, why: String, error: Box<LinkError> },
    #[error("the other side sent no handshake for {HANDSHAKE_PATIENCE:?}")]
    Silent,
    #[error("{0}")]
    Closed(&'static str),
}

impl From<glommio::GlommioError<()>> for LinkError {
    fn from(error: glommio::GlommioError<()>) -> LinkError {
        LinkError::Io(error.into())
    }
}

/// The outgoing side: bytes gather here while a write is under way.
pub(crate) struct Sink {
    out: RefCell<Out>,
    ready: Signal,
    /// Notified when a write has ended.
    pub(crate) drained: Signal,
    closing: Signal,
    closed: Cell<Option<&'static str>>,
    /// Why the connection will be closed once all frames have left.
    leaving: Cell<Option<&'static str>>,
    /// When the last write ended, or when the first byte began to wait.
    progress: Cell<Instant>,
    /// Since when the incoming side has had a part of a frame, if it has.
    partial_since: Cell<Option<Instant>>,
    /// When anything was last received.
    heard: Cell<Instant>,
}

#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    /// The place of the next frame.
    place: u64,
    /// The bytes that a write has taken and not finished.
    writing: usize,
    /// The number of frames that were pushed, and of those that have left.
    pushed: u64,
    left: u64,
}

impl Sink {
    pub(crate) fn new() -> Sink {
        Sink {
            out: RefCell::default(),
            ready: Signal::default(),
            drained: Signal::default(),
            closing: Signal::default(),
            closed: Cell::new(None),
            leaving: Cell::new(None),
            progress: Cell::new(Instant::now()),
            partial_since: Cell::new(None),
            heard: Cell::new(Instant::now()),
        }
    }

    /// Queues a frame; the caller must watch `backlog`.
    pub(crate) fn push(
        &self,
        encoder: &mut Encoder,
        scope: Scope,
        message: &impl Encode,
        payload: &[u8],
        payload_crc: u32,
    ) {
        let mut out = self.out.borrow_mut();
        if out.bytes.is_empty() && out.writing == 0 {
            self.progress.set(Instant::now());
        }
        let Out { bytes, place, pushed, .. } = &mut *out;
        *pushed += 1;
        let size = encoder.head(bytes, *place, scope, message, payload.len(), payload_crc);
        bytes.extend_from_slice(payload);
        bytes.extend_from_slice(padding(payload.len()));
        *place += size as u64;
    }

    /// Lets the queued frames leave.
    pub(crate) fn flush(&self) {
        if !self.out.borrow().bytes.is_empty() {
            self.ready.notify();
        }
    }

    /// The number of bytes that have not left.
    pub(crate) fn backlog(&self) -> usize {
        let out = self.out.borrow();
        out.bytes.len() + out.writing
    }

    /// The number of frames that have not left.
    pub(crate) fn unsent(&self) -> u64 {
        let out = self.out.borrow();
        out.pushed - out.left
    }

    /// How long the backlog has not moved.
    pub(crate) fn stuck_for(&self, now: Instant) -> Duration {
        if self.backlog() == 0 { Duration::ZERO } else { now.saturating_duration_since(self.progress.get()) }
    }

    /// How long a part of a frame has waited for its rest.
    pub(crate) fn partial_for(&self, now: Instant) -> Duration {
        self.partial_since.get().map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// How long nothing was received.
    pub(crate) fn silent_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard.get())
    }

    /// When bytes were received last.
    pub(crate) fn heard(&self) -> Instant {
        self.heard.get()
    }

    /// Notes that bytes were received.
    pub(crate) fn on_heard(&self, now: Instant) {
        self.heard.set(now);
    }

    /// Notes whether a part of a frame waits for its rest.
    pub(crate) fn on_partial(&self, is_partial: bool, now: Instant) {
        let since = is_partial.then(|| self.partial_since.get().unwrap_or(now));
        self.partial_since.set(since);
    }

    /// Since when neither side has sent anything; `None` while a part of a frame has come or has not left.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let is_quiet = self.backlog() == 0 && self.partial_since.get().is_none();
        is_quiet.then(|| self.heard.get().max(self.progress.get()))
    }

    /// Ends the connection once all that was pushed has left.
    pub(crate) fn leave(&self, why: &'static str) {
        self.leaving.set(Some(why));
        self.ready.notify();
    }

    /// Ends the connection; reading and writing stop at once.
    pub(crate) fn close(&self, why: &'static str) {
        if self.closed.get().is_none() {
            self.closed.set(Some(why));
            self.ready.notify();
            self.drained.notify();
            self.closing.notify();
        }
    }

    /// Waits until the connection is closed.
    pub(crate) async fn wait_closed(&self) {
        self.closing.wait().await;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get().is_some()
    }

    pub(crate) fn why_closed(&self) -> Option<&'static str> {
        self.closed.get()
    }

    /// Writes gathered frames, one large write after the other, until the connection is closed.
    async fn write_all(&self, mut writer: WriteHalf<TcpStream>) -> std::io::Result<()> {
        let mut taken = Vec::new();
        while !self.is_closed() {
            let pushed = {
                let mut out = self.out.borrow_mut();
                std::mem::swap(&mut out.bytes, &mut taken);
                out.writing = taken.len();
                out.pushed
            };
            if taken.is_empty() {
                match self.leaving.get() {
                    Some(why) => self.close(why),
                    None => self.ready.wait().await,
                }
                continue;
            }
            let closing = async {
                self.closing.wait().await;
                Ok(())
            };
            // A write that is given up tears a frame, but the connection is over then anyway.
            writer.write_all(&taken).or(closing).await?;
            taken.clear();
            taken.shrink_to(KEPT_BUFFER_BYTES);
            let mut out = self.out.borrow_mut();
            (out.writing, out.left) = (0, pushed);
            drop(out);
            self.progress.set(Instant::now());
            self.drained.notify();
        }
        writer.close().await
    }
}

/// A connection: its reading side, and its sink, which a task of its own writes.
pub(crate) struct Connection {
    reader: ReadHalf<TcpStream>,
    socket: RawFd,
    splitter: Splitter,
    pub(crate) sink: Rc<Sink>,
}

impl Connection {
    /// Takes over a fresh connection and starts its writing task.
    ///
    /// The connection ends when nothing, not even an acknowledgement, comes from the other side for `patience`.
    pub(crate) fn new(stream: TcpStream, patience: Duration) -> Connection {
        // Both fail only on a closed socket, and then the first read fails, too.
        let _ = stream.set_nodelay(true);
        let _ = limit_silence(&stream, patience);
        let socket = stream.as_raw_fd();
        let (reader, writer) = split(stream);
        let sink = Rc::new(Sink::new());
        let writing = sink.clone();
        glommio::spawn_local(async move {
            if writing.write_all(writer).await.is_err() {
                writing.close("the other side has closed the connection");
            }
        })
        .detach();
        Connection { reader, socket, splitter: Splitter::new(READ_CHUNK_BYTES), sink }
    }

    /// The next whole frame. The end of the other side is an error as well.
    pub(crate) async fn next_frame(&mut self) -> Result<Frame, LinkError> {
        loop {
            if let Some(frame) = self.buffered_frame()? {
                return Ok(frame);
            }
            if let Some(why) = self.sink.closed.get() {
                return Err(LinkError::Closed(why));
            }
            let closing = async {
                self.sink.wait_closed().await;
                Ok(0)
            };
            match self.reader.read(self.splitter.room()).or(closing).await? {
                0 => {
                    return Err(LinkError::Closed(
                        self.sink.closed.get().unwrap_or("the other side closed the connection"),
                    ));
                }
                count => {
                    self.splitter.received(count);
                    self.sink.on_heard(Instant::now());
                }
            }
        }
    }

    /// Waits until the connection has failed, for a caller that does not read meanwhile.
    pub(crate) async fn failed(&self) {
        // SAFETY: the socket is open for as long as its reader lives.
        #[allow(unsafe_code)]
        let socket = unsafe { BorrowedFd::borrow_raw(self.socket) };
        while !has_failed(socket) {
            Timer::new(LOOK_EVERY).await;
        }
    }

    /// The next whole frame among the received bytes.
    pub(crate) fn buffered_frame(&mut self) -> Result<Option<Frame>, LinkError> {
        let frame = self.splitter.next_frame()?;
        let partial = frame.is_none() && self.splitter.has_partial();
        self.sink.on_partial(partial, Instant::now());
        Ok(frame)
    }

    /// Sends a message of the handshake.
    pub(crate) fn shake(&self, encoder: &mut Encoder, shard: ShardId, word: &Handshake) {
        self.sink.push(encoder, handshake_scope(shard), word, &[], 0);
        self.sink.flush();
    }

    /// Receives a message of the handshake. A frame of another version is answered as far as possible.
    pub(crate) async fn hear(
        &mut self,
        encoder: &mut Encoder,
        shard: ShardId,
    ) -> Result<Handshake, LinkError> {
        let silent = async {
            Timer::new(HANDSHAKE_PATIENCE).await;
            Err(LinkError::Silent)
        };
        let frame = match self.next_frame().or(silent).await {
            Err(LinkError::Frame(FrameError::Version(there))) => {
                let refusal = Refusal::WrongVersion { here: WIRE_VERSION, there };
                self.refuse(encoder, shard, refusal.clone()).await;
                return Err(LinkError::Refused(refusal));
            }
            other => other?,
        };
        // The message itself names the shard, which is judged there.
        let word = frame.decode(handshake_scope(frame.scope.shard))?;
        self.splitter.trust();
        Ok(word)
    }

    /// Refuses the other side, and gives it a moment to receive the refusal. Closing with unread bytes would reset
    /// the connection and lose the refusal.
    pub(crate) async fn refuse(&mut self, encoder: &mut Encoder, shard: ShardId, refusal: Refusal) {
        self.shake(encoder, shard, &Handshake::Refused(refusal));
        let mut rest = [0; 4096];
        let heard = async {
            while self.sink.backlog() > 0 {
                self.sink.drained.wait().await;
            }
            while self.reader.read(&mut rest).await.is_ok_and(|count| count > 0) {}
        };
        let late = async {
            Timer::new(REFUSAL_PATIENCE).await;
        };
        heard.or(late).or(self.sink.wait_closed()).await;
        self.sink.close("the connection was refused");
    }
}

fn handshake_scope(shard: ShardId) -> Scope {
    Scope { kind: Kind::Handshake, epoch: Epoch(0), shard }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.sink.close("the reader of the connection has ended");
    }
}

#[cfg(test)]
mod tests;
