//! The load's connection to one replica: a plain socket that never blocks.

use anyhow::{Context, Result, bail, ensure};
use isonomy_wire::frame::{Encode, Encoder, Scope, Splitter};
use isonomy_wire::message::{ClientMessage, Role, ShardStatus};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use super::words::{CLIENT, HANDSHAKE, READ_CHUNK_BYTES, hello};

/// The load's connection to one replica: a plain socket that never blocks.
pub(super) struct PlainWire {
    pub(super) stream: TcpStream,
    splitter: Splitter,
    encoder: Encoder,
    out: Vec<u8>,
    written: usize,
    /// The place of the next frame.
    place: u64,
    /// The number of the next request.
    tag: u64,
    /// When each batch under way was due, in microseconds.
    due: VecDeque<u64>,
    /// How often the replica was asked for its status.
    asked: usize,
    /// The statuses that the replica sent, in order.
    pub(super) statuses: Vec<ShardStatus>,
}

impl PlainWire {
    pub(super) fn connect(port: u16) -> Result<PlainWire> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut wire = PlainWire {
            stream,
            splitter: Splitter::at(0, READ_CHUNK_BYTES),
            encoder: Encoder::default(),
            out: Vec::new(),
            written: 0,
            place: 0,
            tag: 0,
            due: VecDeque::new(),
            asked: 0,
            statuses: Vec::new(),
        };
        wire.push(HANDSHAKE, &hello(Role::Client), &[], 0);
        Ok(wire)
    }

    fn push(&mut self, scope: Scope, message: &impl Encode, payload: &[u8], crc: u32) {
        self.place += self.encoder.frame(&mut self.out, self.place, scope, message, payload, crc) as u64;
    }

    /// Queues a batch that was due at this time.
    pub(super) fn request(&mut self, due: u64, batch: &[u8]) {
        let tag = self.tag + self.due.len() as u64;
        self.push(CLIENT, &ClientMessage::Request { tag }, batch, crc32c::crc32c(batch));
        self.due.push_back(due);
    }

    pub(super) fn request_status(&mut self) {
        self.asked += 1;
        self.push(CLIENT, &ClientMessage::StatusRequest, &[], 0);
    }

    /// Batches that are not answered.
    pub(super) fn under_way(&self) -> usize {
        self.due.len()
    }

    /// Whether the replica owes an answer of any kind.
    pub(super) fn is_waiting(&self) -> bool {
        self.under_way() > 0 || self.statuses.len() < self.asked
    }

    /// Whether some bytes have not left.
    pub(super) fn has_backlog(&self) -> bool {
        self.written < self.out.len()
    }

    pub(super) fn write(&mut self) -> Result<()> {
        while self.has_backlog() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context(GONE),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads once; `answered` gets the time at which each answered batch was due.
    pub(super) fn read(&mut self, mut answered: impl FnMut(u64)) -> Result<()> {
        match self.stream.read(self.splitter.room()) {
            Ok(0) => bail!(GONE),
            Ok(count) => self.splitter.received(count),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error).context(GONE),
        }
        while let Some(frame) = self.splitter.next_frame()? {
            match frame.decode(CLIENT)? {
                ClientMessage::Response { tag } => {
                    let due = self.due.pop_front();
                    ensure!(tag == self.tag, "batch {} was answered as {tag}; report this", self.tag);
                    self.tag += 1;
                    answered(due.context("a batch was answered twice; report this")?);
                }
                ClientMessage::Status(status) => self.statuses.push(*status),
                other => bail!(
                    "a replica of the probe sent {other:?}, which is unexpected; run the same release on both \
                     sides"
                ),
            }
        }
        Ok(())
    }
}

const GONE: &str = "a replica of the probe has ended; see the messages of the replica above, or the kernel log \
                    if there are no messages";
