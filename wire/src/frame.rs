//! Frames: the form of messages on a connection and of records in the log.
//!
//! ```text
//! magic u32 | version u8 | kind u8 | shard u16
//! epoch u32 | message length u32 | payload length u32 | payload crc32c u32
//! zero u32  | crc32c u32 of the place, the 28 bytes before and the message
//! message, zeros to 16, payload, zeros to 16
//! ```
//!
//! All numbers are little endian. A frame is a multiple of 16 bytes, so that rkyv reads each body
//! where it lies. The header's crc is seeded with the frame's *place*: its offset in the
//! connection's bytes, or its position in the log. A lost, doubled or misplaced piece of the
//! stream fails the check even if it is a good frame in itself. The payload has a crc of its own
//! that depends on nothing else, so it is computed once, where the payload is made, and passed on.

use crate::id::{Epoch, ShardId};
use crate::message::WIRE_VERSION;
use bytes::{Buf, Bytes, BytesMut};
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::{bytecheck::CheckBytes, rancor, ser::allocator::ArenaHandle, util::AlignedVec};

/// The size of a frame header in bytes.
pub const HEADER_BYTES: usize = 32;
/// Bodies start at multiples of this number of bytes.
pub const ALIGN: usize = 16;
/// The longest message in bytes, without the payload.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// The longest payload in bytes. A payload is a batch or the response to one, in which each found value can be as
/// long as the longest value.
pub const PAYLOAD_BYTES_MAX: usize = 16 << 20;
/// The longest frame in bytes before the handshake is over, so that strangers get no large buffers.
pub const HANDSHAKE_BYTES_MAX: usize = 16 << 10;

const MAGIC: u32 = u32::from_le_bytes(*b"ISON");
const _: () = assert!(PAYLOAD_BYTES_MAX > crate::command::BATCH_BYTES_MAX);

/// The contents of a frame, which decide how its message decodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// [`crate::message::Handshake`].
    Handshake = 1,
    /// [`crate::message::PeerMessage`].
    Peer = 2,
    /// [`crate::message::ClientMessage`].
    Client = 3,
    /// A log record.
    Log = 4,
    /// A piece of a snapshot.
    Snapshot = 5,
}

/// The connection or file to which a frame belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scope {
    /// The contents of the frame.
    pub kind: Kind,
    /// The epoch; 0 in handshakes and from clients.
    pub epoch: Epoch,
    /// The shard.
    pub shard: ShardId,
}

/// Why bytes are not the expected frame. The connection cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts are the documentation.
pub enum FrameError {
    #[error("no Isonomy frame begins here; check that the port is the right one")]
    Magic,
    #[error("a frame has wire version {0}, not {WIRE_VERSION}; run the same release on both sides")]
    Version(u8),
    #[error("the kind {0} of a frame is unknown")]
    Kind(u8),
    #[error("a frame has {0} bytes, which is more than is allowed here")]
    Length(usize),
    #[error("the checksum of a frame fails")]
    Checksum,
    #[error("the message of a frame does not decode")]
    Undecodable,
    #[error("a frame of another kind, epoch or shard than this connection's")]
    Scope,
}

/// A received frame, whose two bodies share the receive buffer.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The connection or file to which the frame belongs.
    pub scope: Scope,
    /// The archived message.
    pub message: Bytes,
    /// The payload; empty if there is none.
    pub payload: Bytes,
    /// The payload's crc32c, verified.
    pub payload_crc: u32,
}

/// A type to which messages can be decoded.
pub trait Decode: rkyv::Archive + Sized {
    /// Validates and decodes an archived message, which must start at a multiple of [`ALIGN`].
    ///
    /// # Errors
    ///
    /// [`FrameError::Undecodable`] if the bytes are not such a message.
    fn decode(bytes: &[u8]) -> Result<Self, FrameError>;
}

impl<T> Decode for T
where
    T: rkyv::Archive,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Failure>>
        + rkyv::Deserialize<T, HighDeserializer<rancor::Failure>>,
{
    fn decode(bytes: &[u8]) -> Result<T, FrameError> {
        rkyv::from_bytes::<T, rancor::Failure>(bytes).map_err(|_| FrameError::Undecodable)
    }
}

/// A type from which messages can be encoded.
pub trait Encode {
    /// Appends the archive of the message to `out`.
    fn encode(&self, out: AlignedVec<ALIGN>) -> AlignedVec<ALIGN>;
}

impl<T> Encode for T
where
    T: for<'a> rkyv::Serialize<HighSerializer<AlignedVec<ALIGN>, ArenaHandle<'a>, rancor::Error>>,
{
    fn encode(&self, out: AlignedVec<ALIGN>) -> AlignedVec<ALIGN> {
        rkyv::api::high::to_bytes_in(self, out).expect("encoding to memory cannot fail")
    }
}

impl Frame {
    /// Decodes the message, which must belong to `scope`.
    ///
    /// # Errors
    ///
    /// [`FrameError::Scope`] if the frame belongs to another scope, and [`FrameError::Undecodable`] if its message is
    /// not one of this type.
    pub fn decode<T: Decode>(&self, scope: Scope) -> Result<T, FrameError> {
        if self.scope != scope { Err(FrameError::Scope) } else { T::decode(&self.message) }
    }
}

/// The variable fields of a header.
#[derive(Clone, Copy, Debug)]
struct Header {
    scope: Scope,
    message: usize,
    payload: usize,
    payload_crc: u32,
    crc: u32,
}

impl Header {
    fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4] = WIRE_VERSION;
        bytes[5] = self.scope.kind as u8;
        bytes[6..8].copy_from_slice(&self.scope.shard.0.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.scope.epoch.0.to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.message as u32).to_le_bytes());
        bytes[16..20].copy_from_slice(&(self.payload as u32).to_le_bytes());
        bytes[20..24].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[28..].copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Header, FrameError> {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        if word(0) != MAGIC {
            return Err(FrameError::Magic);
        }
        if bytes[4] != WIRE_VERSION {
            return Err(FrameError::Version(bytes[4]));
        }
        Header::parse_rest(bytes)
    }

    /// Parses the fields behind the version, which are equal in all versions.
    fn parse_rest(bytes: &[u8; HEADER_BYTES]) -> Result<Header, FrameError> {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let kind = match bytes[5] {
            1 => Kind::Handshake,
            2 => Kind::Peer,
            3 => Kind::Client,
            4 => Kind::Log,
            5 => Kind::Snapshot,
            other => return Err(FrameError::Kind(other)),
        };
        if word(24) != 0 {
            return Err(FrameError::Checksum);
        }
        let shard = ShardId(u16::from_le_bytes(bytes[6..8].try_into().expect("2 bytes")));
        Ok(Header {
            scope: Scope { kind, epoch: Epoch(word(8)), shard },
            message: word(12) as usize,
            payload: word(16) as usize,
            payload_crc: word(20),
            crc: word(28),
        })
    }

    fn total(&self) -> usize {
        frame_bytes(self.message, self.payload)
    }

    /// The crc of place, header and message.
    fn checksum(header: &[u8; HEADER_BYTES], place: u64, message: &[u8]) -> u32 {
        let crc = crc32c::crc32c(&place.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c_append(crc, &header[..28]), message)
    }
}

/// The size of a frame with bodies of these lengths.
pub fn frame_bytes(message: usize, payload: usize) -> usize {
    HEADER_BYTES + message.next_multiple_of(ALIGN) + payload.next_multiple_of(ALIGN)
}

/// Appends frames to byte buffers, and keeps its scratch space from one frame to the next.
#[derive(Debug, Default)]
pub struct Encoder {
    scratch: AlignedVec<ALIGN>,
}

impl Encoder {
    /// Appends header and message of a frame at `place` to `out`; the payload must follow in the
    /// output, padded to [`ALIGN`]. Returns the size of the whole frame in bytes.
    ///
    /// # Panics
    ///
    /// When the message is longer than [`MESSAGE_BYTES_MAX`], or the payload longer than [`PAYLOAD_BYTES_MAX`].
    pub fn head(
        &mut self,
        out: &mut Vec<u8>,
        place: u64,
        scope: Scope,
        message: &impl Encode,
        payload: usize,
        payload_crc: u32,
    ) -> usize {
        self.scratch.clear();
        self.scratch = message.encode(std::mem::take(&mut self.scratch));
        assert!(self.scratch.len() <= MESSAGE_BYTES_MAX && payload <= PAYLOAD_BYTES_MAX);
        let mut header = Header { scope, message: self.scratch.len(), payload, payload_crc, crc: 0 };
        header.crc = Header::checksum(&header.to_bytes(), place, &self.scratch);
        out.extend_from_slice(&header.to_bytes());
        out.extend_from_slice(&self.scratch);
        pad(out, self.scratch.len());
        header.total()
    }

    /// Appends a whole frame at `place` to `out`. Returns its size in bytes.
    ///
    /// # Panics
    ///
    /// When the message is longer than [`MESSAGE_BYTES_MAX`], or the payload longer than [`PAYLOAD_BYTES_MAX`].
    pub fn frame(
        &mut self,
        out: &mut Vec<u8>,
        place: u64,
        scope: Scope,
        message: &impl Encode,
        payload: &[u8],
        payload_crc: u32,
    ) -> usize {
        let size = self.head(out, place, scope, message, payload.len(), payload_crc);
        out.extend_from_slice(payload);
        pad(out, payload.len());
        size
    }
}

/// The zeros that fill a body of `length` bytes up to [`ALIGN`].
pub fn padding(length: usize) -> &'static [u8] {
    &[0; ALIGN][..length.next_multiple_of(ALIGN) - length]
}

fn pad(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(padding(length));
}

/// Reads one frame at `place` from the start of `bytes`, and returns it with its size in bytes. `Ok(None)`: the frame
/// is not complete yet. `limit` is the largest size that the caller accepts.
///
/// # Errors
///
/// [`FrameError`] if no frame begins at the start. [`FrameError::Version`] means that another release wrote the
/// frame, since the checksum holds with that version; otherwise the byte is damaged, which is
/// [`FrameError::Checksum`].
pub fn split(bytes: &Bytes, place: u64, limit: usize) -> Result<Option<(Frame, usize)>, FrameError> {
    let Some(header) = peek(bytes, limit).map_err(|error| told_apart(error, bytes, place))? else {
        return Ok(None);
    };
    if bytes.len() < header.total() {
        return Ok(None);
    }
    take(bytes.slice(..header.total()), place, &header).map(|frame| Some((frame, header.total())))
}

fn peek(bytes: &[u8], limit: usize) -> Result<Option<Header>, FrameError> {
    let Some(header) = bytes.first_chunk() else { return Ok(None) };
    let header = Header::parse(header)?;
    if header.message > MESSAGE_BYTES_MAX || header.payload > PAYLOAD_BYTES_MAX || header.total() > limit {
        return Err(FrameError::Length(header.total()));
    }
    Ok(Some(header))
}

/// Decides for a frame with another version at `place` whether another release wrote it or the byte has changed
/// since.
fn told_apart(error: FrameError, bytes: &[u8], place: u64) -> FrameError {
    let is_written_so = || {
        let head = bytes.first_chunk()?;
        let header = Header::parse_rest(head).ok()?;
        let message = bytes.get(HEADER_BYTES..HEADER_BYTES + header.message)?;
        Some(Header::checksum(head, place, message) == header.crc)
    };
    match error {
        FrameError::Version(_) if is_written_so() != Some(true) => FrameError::Checksum,
        error => error,
    }
}

fn take(frame: Bytes, place: u64, header: &Header) -> Result<Frame, FrameError> {
    let frame = aligned(frame);
    let message = frame.slice(HEADER_BYTES..HEADER_BYTES + header.message);
    let start = HEADER_BYTES + header.message.next_multiple_of(ALIGN);
    let payload = frame.slice(start..start + header.payload);
    let head = frame.first_chunk().expect("a frame is longer than its header");
    if Header::checksum(head, place, &message) != header.crc || crc32c::crc32c(&payload) != header.payload_crc
    {
        return Err(FrameError::Checksum);
    }
    Ok(Frame { scope: header.scope, message, payload, payload_crc: header.payload_crc })
}

/// The bytes at an address that rkyv can read. A copy is rarely needed, since frames are multiples of [`ALIGN`] and
/// allocators align large blocks.
pub fn aligned(bytes: Bytes) -> Bytes {
    if bytes.as_ptr().align_offset(ALIGN) == 0 {
        return bytes;
    }
    let mut copy = AlignedVec::<ALIGN>::with_capacity(bytes.len());
    copy.extend_from_slice(&bytes);
    Bytes::from_owner(copy)
}

/// Cuts the bytes of a connection into frames, without copying bodies.
#[derive(Debug)]
pub struct Splitter {
    buffer: BytesMut,
    /// How much of the buffer holds received bytes; the rest is room.
    filled: usize,
    place: u64,
    limit: usize,
    chunk: usize,
    chunk_max: usize,
}

impl Splitter {
    /// A splitter for a fresh connection. `chunk_max` is the most room that a read is offered, in bytes. The room is
    /// small at first and doubled when a read fills it, so that idle connections hold little memory. Frames are
    /// limited to [`HANDSHAKE_BYTES_MAX`] until [`Splitter::trust`].
    pub fn new(chunk_max: usize) -> Splitter {
        let chunk = chunk_max.min(HANDSHAKE_BYTES_MAX);
        Splitter {
            buffer: BytesMut::new(),
            filled: 0,
            place: 0,
            limit: HANDSHAKE_BYTES_MAX,
            chunk,
            chunk_max,
        }
    }

    /// A splitter for bytes that begin at `place` and whose frames may be long.
    pub fn at(place: u64, chunk_max: usize) -> Splitter {
        let mut splitter = Splitter { place, ..Splitter::new(chunk_max) };
        splitter.trust();
        splitter
    }

    /// Allows longer frames, because the handshake is over.
    pub fn trust(&mut self) {
        self.limit = frame_bytes(MESSAGE_BYTES_MAX, PAYLOAD_BYTES_MAX);
    }

    /// Room for the next read; never empty.
    pub fn room(&mut self) -> &mut [u8] {
        let chunk = self.chunk.min(self.limit);
        let claimed = match peek(&self.buffer[..self.filled], self.limit) {
            Ok(Some(header)) => header.total(),
            _ => 0,
        };
        // The room for a claimed length grows as bytes come, so that a sender that announces much and sends little
        // holds little memory.
        let wanted = claimed.min(chunk.max(2 * self.filled)).max(self.filled + HEADER_BYTES);
        if self.buffer.len() < wanted {
            // If old frames still share the old block, this allocates a new one.
            let size = wanted.max(chunk).next_multiple_of(ALIGN);
            self.buffer.truncate(self.filled);
            self.buffer.reserve(size - self.filled);
            self.buffer.resize(size, 0);
        }
        &mut self.buffer[self.filled..]
    }

    /// Takes note that `count` bytes were read into the room.
    pub fn received(&mut self, count: usize) {
        self.filled += count;
        assert!(self.filled <= self.buffer.len(), "more was received than there was room");
        if self.filled == self.buffer.len() {
            self.chunk = (2 * self.chunk).min(self.chunk_max);
        }
    }

    /// Whether a part of a frame has been received and waits for its rest.
    pub fn has_partial(&self) -> bool {
        self.filled > 0
    }

    /// The error for an error of [`Splitter::next_frame`] if the bytes come from a file; see [`split`].
    pub fn told_apart(&self, error: FrameError) -> FrameError {
        match error {
            // All bytes of a frame are still here only if its header was refused.
            FrameError::Version(_) => told_apart(error, &self.buffer[..self.filled], self.place),
            error => error,
        }
    }

    /// The next whole frame, if it has arrived.
    ///
    /// # Errors
    ///
    /// [`FrameError`] if the bytes are not a frame. The connection must be closed.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(header) = peek(&self.buffer[..self.filled], self.limit)? else { return Ok(None) };
        let total = header.total();
        if self.filled < total {
            return Ok(None);
        }
        let frame = take(self.buffer.split_to(total).freeze(), self.place, &header)?;
        self.filled -= total;
        self.place += total as u64;
        if self.filled == 0 && self.buffer.len() < self.chunk / 4 {
            // The room is too small for a useful read, so the next read gets a fresh block.
            self.buffer.advance(self.buffer.len());
        }
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::ClientMessage;
    use proptest::prelude::*;

    const SCOPE: Scope = Scope { kind: Kind::Client, epoch: Epoch(1), shard: ShardId(3) };

    fn stream_of(payloads: &[Vec<u8>]) -> Vec<u8> {
        let (mut encoder, mut out) = (Encoder::default(), Vec::new());
        for (tag, payload) in payloads.iter().enumerate() {
            let place = out.len() as u64;
            let message = ClientMessage::Request { tag: tag as u64 };
            let crc = crc32c::crc32c(payload);
            let size = encoder.frame(&mut out, place, SCOPE, &message, payload, crc);
            assert_eq!(size, out.len() - place as usize);
            assert_eq!(size % ALIGN, 0);
        }
        out
    }

    /// Feeds `bytes` in pieces and returns what came out until the first error.
    fn feed(bytes: &[u8], pieces: &[usize]) -> (Vec<Frame>, Option<FrameError>) {
        let mut splitter = Splitter::new(256);
        splitter.trust();
        let (mut at, mut frames, mut piece) = (0, Vec::new(), 0);
        while at < bytes.len() {
            let room = splitter.room();
            let count = pieces[piece % pieces.len()].min(room.len()).min(bytes.len() - at);
            room[..count].copy_from_slice(&bytes[at..at + count]);
            splitter.received(count);
            at += count;
            piece += 1;
            loop {
                match splitter.next_frame() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
        }
        (frames, None)
    }

    proptest! {
        #[test]
        fn all_splits_equal_the_whole(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..700), 1..8),
            pieces in prop::collection::vec(1usize..400, 1..6),
        ) {
            let (frames, error) = feed(&stream_of(&payloads), &pieces);
            prop_assert_eq!(error, None);
            prop_assert_eq!(frames.len(), payloads.len());
            for (tag, (frame, payload)) in frames.iter().zip(&payloads).enumerate() {
                prop_assert_eq!(&frame.payload[..], &payload[..]);
                let message: ClientMessage = frame.decode(SCOPE).unwrap();
                prop_assert_eq!(message, ClientMessage::Request { tag: tag as u64 });
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let (frames, _) = feed(&bytes, &[7, 100]);
            prop_assert!(frames.is_empty());
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = stream_of(&[b"some payload".to_vec()]);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let (frames, error) = feed(&damaged, &[1 << 20]);
            let padding_only = frames.len() == 1 && error.is_none();
            if padding_only {
                assert_eq!(&frames[0].payload[..], b"some payload", "bit {bit}");
            }
        }
    }

    #[test]
    fn a_good_frame_in_the_wrong_place_is_refused() {
        let one = stream_of(&[b"x".to_vec()]);
        let twice = [one.clone(), one].concat();
        let (frames, error) = feed(&twice, &[64]);
        assert_eq!((frames.len(), error), (1, Some(FrameError::Checksum)));
    }

    #[test]
    fn strangers_get_no_large_buffers() {
        let mut header = stream_of(&[vec![0; HANDSHAKE_BYTES_MAX]]);
        header.truncate(HEADER_BYTES);
        let mut splitter = Splitter::new(1 << 20);
        assert!(splitter.room().len() <= HANDSHAKE_BYTES_MAX);
        splitter.room()[..HEADER_BYTES].copy_from_slice(&header);
        splitter.received(HEADER_BYTES);
        assert!(matches!(splitter.next_frame(), Err(FrameError::Length(_))));
    }

    #[test]
    fn a_trickler_holds_a_chunk_not_what_it_claims() {
        let bytes = stream_of(&[vec![7; 1 << 20]]);
        let chunk = 4096;
        let mut splitter = Splitter::new(chunk);
        splitter.trust();
        for (at, byte) in bytes.iter().enumerate() {
            splitter.room()[0] = *byte;
            let bound = chunk.max(2 * at).next_multiple_of(ALIGN);
            assert!(splitter.buffer.len() <= bound, "{at}: {}", splitter.buffer.len());
            splitter.received(1);
        }
        let frame = splitter.next_frame().unwrap().unwrap();
        assert_eq!(frame.payload.len(), 1 << 20);
    }

    #[test]
    fn a_frame_of_another_release_is_told_from_one_whose_version_has_changed() {
        let place = 7;
        let mut bytes = Vec::new();
        Encoder::default().frame(&mut bytes, place, SCOPE, &ClientMessage::Request { tag: 1 }, b"x", 0);
        bytes[4] = WIRE_VERSION - 1;
        let read = |bytes: &[u8]| split(&Bytes::copy_from_slice(bytes), place, bytes.len()).map(|_| ());
        assert_eq!(read(&bytes), Err(FrameError::Checksum));
        let head: [u8; HEADER_BYTES] = *bytes.first_chunk().unwrap();
        let message = u32::from_le_bytes(head[12..16].try_into().unwrap()) as usize;
        let crc = Header::checksum(&head, place, &bytes[HEADER_BYTES..HEADER_BYTES + message]);
        bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(read(&bytes), Err(FrameError::Version(WIRE_VERSION - 1)));
        // At another place, or cut off, the frame counts as damaged.
        assert_eq!(split(&Bytes::from(bytes.clone()), 8, bytes.len()).unwrap_err(), FrameError::Checksum);
        assert_eq!(read(&bytes[..HEADER_BYTES + message - 1]), Err(FrameError::Checksum));
    }

    #[test]
    fn wrong_magic_version_kind_and_scope_are_told_apart() {
        let bytes = stream_of(&[vec![]]);
        for (at, value, error) in [
            (0, b'X', FrameError::Magic),
            (4, 9, FrameError::Version(9)),
            (5, 77, FrameError::Kind(77)),
            (12, 0xff, FrameError::Checksum),
        ] {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            damaged.resize(1024, 0);
            assert_eq!(feed(&damaged, &[2048]).1, Some(error));
        }
        let (frames, _) = feed(&bytes, &[2048]);
        let other = Scope { shard: ShardId(4), ..SCOPE };
        assert_eq!(frames[0].decode::<ClientMessage>(other), Err(FrameError::Scope));
    }
}
