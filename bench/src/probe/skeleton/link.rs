//! One TCP connection of a replica: frames in, frames out.

use anyhow::Result;
use futures_lite::io::{ReadHalf, WriteHalf, split};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::TcpStream;
use isonomy_wire::frame::{Encode, Encoder, Frame, Scope, Splitter};
use std::cell::RefCell;
use std::rc::Rc;

use super::signal::Signal;
use super::words::READ_CHUNK_BYTES;

/// The outgoing side: frames gather here while a write is under way.
#[derive(Default)]
pub(super) struct Sink {
    out: RefCell<Out>,
    ready: Signal,
}

#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    /// The place of the next frame.
    place: u64,
}

impl Sink {
    /// Queues a frame.
    pub(super) fn push(
        &self,
        encoder: &mut Encoder,
        scope: Scope,
        message: &impl Encode,
        payload: &[u8],
        payload_crc: u32,
    ) {
        let Out { bytes, place } = &mut *self.out.borrow_mut();
        *place += encoder.frame(bytes, *place, scope, message, payload, payload_crc) as u64;
    }

    /// The queued frames may leave.
    pub(super) fn flush(&self) {
        if !self.out.borrow().bytes.is_empty() {
            self.ready.notify();
        }
    }

    /// Writes what gathers, one large write after the other, until the other side is gone.
    async fn write_all(&self, mut writer: WriteHalf<TcpStream>) {
        let mut taken = Vec::new();
        loop {
            std::mem::swap(&mut self.out.borrow_mut().bytes, &mut taken);
            if taken.is_empty() {
                self.ready.wait().await;
            } else if writer.write_all(&taken).await.is_err() {
                return;
            }
            taken.clear();
        }
    }
}

/// A connection: the reading side, and the sink, which a task of its own writes.
pub(super) struct Connection {
    reader: ReadHalf<TcpStream>,
    splitter: Splitter,
    pub(super) sink: Rc<Sink>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Result<Connection> {
        stream.set_nodelay(true).map_err(std::io::Error::from)?;
        let (reader, writer) = split(stream);
        let sink = Rc::new(Sink::default());
        let writing = sink.clone();
        glommio::spawn_local(async move { writing.write_all(writer).await }).detach();
        Ok(Connection { reader, splitter: Splitter::at(0, READ_CHUNK_BYTES), sink })
    }

    /// The next whole frame; `None` when the other side has ended.
    pub(super) async fn next_frame(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.splitter.next_frame()? {
                return Ok(Some(frame));
            }
            match self.reader.read(self.splitter.room()).await {
                // The parties end at about the same time, and the load notices if one ends too early.
                Ok(0) | Err(_) => return Ok(None),
                Ok(count) => self.splitter.received(count),
            }
        }
    }
}
