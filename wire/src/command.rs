//! Commands, the requests in which clients send them, and the batches in which instances carry them.
//!
//! A *request* is one client frame: consecutive numbers of one session, or reads. It is one rkyv
//! body with command headers of fixed size and one blob. A *batch* is the payload of an instance: one
//! or more requests, each with the very bytes that its client sent:
//!
//! ```text
//! batch   = part*
//! part    = length u32 | commands u32 | zero u64 | archived Request (length bytes) | zeros to 16
//! header  = value length u32 | key length u16 | op u8 | zero u8          (one u64, little endian)
//! blob    = per command: expected key_seq u64 (DecideIf only) | key | value
//! ```
//!
//! The request does not store offsets into the blob, since commands are read in order. So a command of 64 bytes
//! takes 72 bytes.

use crate::frame::ALIGN;
use crate::id::{RecordId, SessionId};
use crate::source::{Owner, SourceName};
use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize, rancor};
use std::fmt;
use std::sync::Arc;

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// The longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// The most bytes in the payload of one instance.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// The most commands in one instance, so that an index fits 16 bits of a session id.
pub const BATCH_COMMANDS_MAX: usize = 1 << 16;
/// The most numbers that one request takes.
pub const REQUEST_NUMBERS_MAX: u64 = 1 << 16;
/// The highest request number. No sum of a number and the length of a request overflows.
pub const NUMBER_MAX: u64 = 1 << 56;
/// The largest number of a command with an idempotency key (law, S6).
pub const KEYED_NUMBER_MAX: u64 = 1 << 55;

/// The size of the value of an idle End: the session's next number and its owner.
pub const IDLE_END_BYTES: usize = 16;
/// The size of the value of an Attach without the source's name, which follows: the expected owner and the new owner.
const ATTACH_BYTES: usize = 16;
/// The size of the value of a Seal.
const SEAL_BYTES: usize = 16;

const PART_HEADER: usize = 16;
const _: () = assert!(BATCH_BYTES_MAX >= 2 * (VALUE_BYTES_MAX + KEY_BYTES_MAX + 4 * PART_HEADER));
const _: () = assert!(NUMBER_MAX.checked_add(2 * REQUEST_NUMBERS_MAX).is_some());

/// The operation of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Op {
    /// Makes the value the key's latest decision.
    Decide = 1,
    /// Makes the value the key's latest decision if the key's key_seq is the expected one; 0 expects a key without
    /// decisions.
    DecideIf = 2,
    /// Reads the key's latest decision, linearizable.
    Read = 3,
    /// Ends the key's life and removes its state; a later decision counts from 1 again.
    Delete = 4,
    /// Opens the session that is named after this command.
    Open = 5,
    /// Ends its session, whatever was executed before (S4). An unnumbered End ends an idle session that still has the
    /// next number and the owner of the End's value.
    End = 6,
    /// Fills a run of numbers that the session leaves out. The header has the length of the run as value length.
    Skip = 7,
    /// Does nothing and conflicts with everything (G4). Only replicas propose barriers.
    Barrier = 8,
    /// Makes a process the owner of a named session. The answer has the session's position (S5).
    Attach = 9,
    /// Ends the epoch, and conflicts with everything as a Barrier does (section 9). Its value is the id of the record
    /// that is to follow. Only replicas propose Seals.
    Seal = 10,
}

impl Op {
    fn from_byte(byte: u8) -> Option<Op> {
        Some(match byte {
            1 => Op::Decide,
            2 => Op::DecideIf,
            3 => Op::Read,
            4 => Op::Delete,
            5 => Op::Open,
            6 => Op::End,
            7 => Op::Skip,
            8 => Op::Barrier,
            9 => Op::Attach,
            10 => Op::Seal,
            _ => return None,
        })
    }

    /// Whether the command names a key.
    #[inline]
    pub fn has_key(self) -> bool {
        matches!(self, Op::Decide | Op::DecideIf | Op::Read | Op::Delete)
    }

    /// Whether the command can change the state of its key.
    #[inline]
    pub fn writes(self) -> bool {
        matches!(self, Op::Decide | Op::DecideIf | Op::Delete)
    }
}

/// One command, borrowed from its request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Command<'a> {
    /// The operation.
    pub op: Op,
    /// The request number; 0 when unnumbered.
    pub number: u64,
    /// How many numbers the command takes: the length of the run for Skip, 0 when unnumbered, 1 otherwise.
    pub run: u64,
    /// The key; empty for Open, End, Skip, Barrier, Attach and Seal.
    pub key: &'a [u8],
    /// The value; empty unless Decide, DecideIf, Attach, Seal or an unnumbered End.
    pub value: &'a [u8],
    /// Key and value in one piece, as they lie in the blob.
    pub key_value: &'a [u8],
    /// The key_seq that DecideIf asks for.
    pub expected: u64,
}

/// The contents of an Attach.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attach {
    /// The owner that the session must have.
    pub expected: Owner,
    /// The owner that the session is to have.
    pub owner: Owner,
    /// The name of the source.
    pub name: SourceName,
}

impl Command<'_> {
    /// The contents of an Attach; `None` if the value is not one of an Attach.
    pub fn attach(&self) -> Option<Attach> {
        let (expected, rest) = self.value.split_first_chunk::<8>()?;
        let (owner, name) = rest.split_first_chunk::<8>()?;
        let (expected, owner) = (u64::from_le_bytes(*expected), u64::from_le_bytes(*owner));
        let name = std::str::from_utf8(name).ok()?.parse().ok()?;
        (owner != 0).then_some(Attach { expected: Owner(expected), owner: Owner(owner), name })
    }

    /// The next number and the owner that the sender of an idle End has seen; `None` if the value is not one of an
    /// idle End.
    pub fn seen(&self) -> Option<(u64, Owner)> {
        let (low, owner) = self.value.split_first_chunk::<8>()?;
        Some((u64::from_le_bytes(*low), Owner(u64::from_le_bytes(owner.try_into().ok()?))))
    }

    /// The record that is to follow a Seal; `None` if the value is not one of a Seal.
    pub fn record(&self) -> Option<RecordId> {
        Some(RecordId(u128::from_le_bytes(self.value.try_into().ok()?)))
    }
}

/// One client frame. [`RequestBuilder`] makes it, [`Batch`] reads it.
#[derive(Archive, Serialize, Deserialize, Default, Debug)]
struct Request {
    session: SessionId,
    first: u64,
    answered_below: u64,
    owner: u64,
    headers: Vec<u64>,
    blob: Vec<u8>,
}

/// Why a request or a batch was refused. The text goes to the client as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts below are the documentation.
pub enum Invalid {
    #[error("the batch is cut off, or its parts do not add up; send the batch again unchanged")]
    Truncated,
    #[error("the request does not decode; run the same release at the client and at all replicas")]
    Undecodable,
    #[error(
        "operation {0} is unknown; operations are 1 (Decide) to 10 (Seal), so run the same release on both \
         sides"
    )]
    UnknownOp(u8),
    #[error("a request holds 1 to {BATCH_COMMANDS_MAX} commands; split the request")]
    CommandCount,
    #[error("a batch holds at most {BATCH_BYTES_MAX} bytes; split the batch")]
    TooManyBytes,
    #[error("a key has {0} bytes; 1 to {KEY_BYTES_MAX} are allowed")]
    KeyLength(usize),
    #[error("a value has {0} bytes; at most {VALUE_BYTES_MAX} are allowed")]
    ValueLength(usize),
    #[error("{0:?} has a key or a value that this operation must not have; leave that key or value empty")]
    Superfluous(Op),
    #[error(
        "{0:?} does not fit a request of this kind; send reads, Opens, Barriers and Seals without a session, and all \
         other operations with one"
    )]
    WrongKind(Op),
    #[error(
        "an Attach names no owner, or names a source without a usable name; run the same release on both sides"
    )]
    Attach,
    #[error(
        "request numbers go from 1 to {NUMBER_MAX}, and a request has 1 to {REQUEST_NUMBERS_MAX} of them; \
         correct the numbers or split the request"
    )]
    Numbers,
}

/// The numbers of a request on its session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Numbering {
    /// The number of the first command; 0 for reads, Opens, Barriers, Seals, Attaches and idle Ends.
    pub first: u64,
    /// The client has the answers to all numbers below this one (S3).
    pub answered_below: u64,
}

impl Numbering {
    /// The request has no numbers.
    pub const NONE: Numbering = Numbering { first: 0, answered_below: 0 };

    /// The first command has this number, and the client says of no answer that it has come.
    pub fn at(first: u64) -> Numbering {
        Numbering { first, answered_below: 0 }
    }
}

/// Collects commands and encodes them as one request. `encode` empties the builder for its next use.
#[derive(Default, Debug)]
pub struct RequestBuilder {
    request: Request,
    numbers: u64,
}

fn header(op: Op, key: usize, value: usize) -> u64 {
    value as u64 | (key as u64) << 32 | (op as u64) << 48
}

impl RequestBuilder {
    /// The number of commands so far.
    pub fn commands(&self) -> usize {
        self.request.headers.len()
    }

    /// About the size of the encoded request so far, in bytes.
    pub fn bytes(&self) -> usize {
        self.request.blob.len() + 8 * self.request.headers.len() + 64
    }

    /// How many request numbers the commands so far take.
    pub fn numbers(&self) -> u64 {
        self.numbers
    }

    /// Whether `bytes` more of key and value and one command fit a batch.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.commands() < BATCH_COMMANDS_MAX
            && self.numbers < REQUEST_NUMBERS_MAX
            && self.bytes() + bytes + 64 <= BATCH_BYTES_MAX
    }

    /// Adds a command with a key, and checks the limits, so that nothing is ever cut.
    fn push(&mut self, op: Op, expected: Option<u64>, key: &[u8], value: &[u8]) -> Result<(), Invalid> {
        check_key(key.len())?;
        check_value(value.len())?;
        if !self.has_room(key.len() + value.len() + 8) {
            return Err(Invalid::TooManyBytes);
        }
        self.request.headers.push(header(op, key.len(), value.len()));
        if let Some(expected) = expected {
            self.request.blob.extend_from_slice(&expected.to_le_bytes());
        }
        self.request.blob.extend_from_slice(key);
        self.request.blob.extend_from_slice(value);
        self.numbers += 1;
        Ok(())
    }

    /// Adds a Decide.
    ///
    /// # Errors
    ///
    /// [`Invalid::KeyLength`] or [`Invalid::ValueLength`] if key or value break a limit, and
    /// [`Invalid::TooManyBytes`] if the request has no room for the command.
    pub fn decide(&mut self, key: &[u8], value: &[u8]) -> Result<(), Invalid> {
        self.push(Op::Decide, None, key, value)
    }

    /// Adds a DecideIf; `expected` is the key_seq that the key must have, 0 for a key without decisions.
    ///
    /// # Errors
    ///
    /// The errors of [`RequestBuilder::decide`].
    pub fn decide_if(&mut self, key: &[u8], value: &[u8], expected: u64) -> Result<(), Invalid> {
        self.push(Op::DecideIf, Some(expected), key, value)
    }

    /// Adds a Read. A request with reads holds nothing else.
    ///
    /// # Errors
    ///
    /// The errors of [`RequestBuilder::decide`].
    pub fn read(&mut self, key: &[u8]) -> Result<(), Invalid> {
        self.push(Op::Read, None, key, &[])
    }

    /// Adds a Delete.
    ///
    /// # Errors
    ///
    /// The errors of [`RequestBuilder::decide`].
    pub fn delete(&mut self, key: &[u8]) -> Result<(), Invalid> {
        self.push(Op::Delete, None, key, &[])
    }

    /// Adds an Open, which must be alone in its request.
    pub fn open(&mut self) {
        self.request.headers.push(header(Op::Open, 0, 0));
    }

    /// Adds a Barrier, which must be alone in its request.
    pub fn barrier(&mut self) {
        self.request.headers.push(header(Op::Barrier, 0, 0));
    }

    /// Adds a Seal, which must be alone in its request. `record` is the id of the record that is to follow (section 9).
    pub fn seal(&mut self, record: RecordId) {
        self.request.headers.push(header(Op::Seal, 0, SEAL_BYTES));
        self.request.blob.extend_from_slice(&record.0.to_le_bytes());
    }

    /// Adds the End of the request's session, which must be alone in its request.
    pub fn end(&mut self) {
        self.request.headers.push(header(Op::End, 0, 0));
        self.numbers += 1;
    }

    /// Adds the End of a session that was idle when `low` was its next number and `owner` its owner (S4). The End must
    /// be alone in its request, which is encoded with [`Numbering::NONE`].
    pub fn end_idle(&mut self, low: u64, owner: Owner) {
        self.request.headers.push(header(Op::End, 0, IDLE_END_BYTES));
        self.request.blob.extend_from_slice(&low.to_le_bytes());
        self.request.blob.extend_from_slice(&owner.0.to_le_bytes());
    }

    /// Adds an Attach, which makes `owner` the owner of a named session if `expected` owns it before (S5). The Attach
    /// must be alone in its request, which is encoded with [`Numbering::NONE`].
    pub fn attach(&mut self, expected: Owner, owner: Owner, name: &SourceName) {
        self.request.headers.push(header(Op::Attach, 0, ATTACH_BYTES + name.as_str().len()));
        self.request.blob.extend_from_slice(&expected.0.to_le_bytes());
        self.request.blob.extend_from_slice(&owner.0.to_le_bytes());
        self.request.blob.extend_from_slice(name.as_str().as_bytes());
    }

    /// Sets the owner of a request on a named session (S5).
    pub fn owned_by(&mut self, owner: Owner) {
        self.request.owner = owner.0;
    }

    /// Adds a Skip of `run` numbers.
    ///
    /// # Errors
    ///
    /// [`Invalid::Numbers`] if `run` is 0, or if the request would take more than [`REQUEST_NUMBERS_MAX`] numbers.
    pub fn skip(&mut self, run: u64) -> Result<(), Invalid> {
        if run == 0 || self.numbers + run > REQUEST_NUMBERS_MAX {
            return Err(Invalid::Numbers);
        }
        self.request.headers.push(header(Op::Skip, 0, run as usize));
        self.numbers += run;
        Ok(())
    }

    /// Encodes the collected commands as the payload of one request frame, and empties the builder.
    pub fn encode(&mut self, session: SessionId, numbering: Numbering) -> Bytes {
        self.request.session = session;
        self.request.first = numbering.first;
        self.request.answered_below = numbering.answered_below;
        // The archive is written behind the place of the part header, so that nothing is copied.
        let mut start = rkyv::util::AlignedVec::<ALIGN>::with_capacity(self.bytes() + 128);
        start.extend_from_slice(&[0; PART_HEADER]);
        let mut payload = rkyv::api::high::to_bytes_in::<_, rancor::Error>(&self.request, start)
            .expect("encoding to memory cannot fail");
        let length = (payload.len() - PART_HEADER) as u32;
        payload[..4].copy_from_slice(&length.to_le_bytes());
        payload[4..8].copy_from_slice(&(self.request.headers.len() as u32).to_le_bytes());
        payload.resize(payload.len().next_multiple_of(ALIGN), 0);
        self.request.headers.clear();
        self.request.blob.clear();
        (self.request.owner, self.numbers) = (0, 0);
        Bytes::from_owner(payload)
    }
}

/// Checks the length of a key, in bytes.
///
/// # Errors
///
/// [`Invalid::KeyLength`] if it is not from 1 to [`KEY_BYTES_MAX`].
pub fn check_key(length: usize) -> Result<(), Invalid> {
    if length == 0 || length > KEY_BYTES_MAX { Err(Invalid::KeyLength(length)) } else { Ok(()) }
}

/// Checks the length of a value, in bytes.
///
/// # Errors
///
/// [`Invalid::ValueLength`] if it is above [`VALUE_BYTES_MAX`].
pub fn check_value(length: usize) -> Result<(), Invalid> {
    if length > VALUE_BYTES_MAX { Err(Invalid::ValueLength(length)) } else { Ok(()) }
}

/// One request inside a batch: where its pieces lie in the payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// The session of the request; [`SessionId::NONE`] for reads, Opens, Barriers and Seals.
    pub session: SessionId,
    /// The number of the first command; 0 when unnumbered.
    pub first: u64,
    /// The answers to all numbers below this one have arrived at the client.
    pub answered_below: u64,
    /// The owner for which the request was sent, on a named session (S5).
    pub owner: Owner,
    /// How many numbers the commands take; 0 when unnumbered.
    pub numbers: u64,
    /// The number of commands.
    pub commands: u32,
    /// The place of the first command in the batch.
    pub index: u32,
    headers: u32,
    blob: u32,
}

/// The payload of an instance, validated. Cheap to clone.
#[derive(Clone)]
pub struct Batch(Arc<Inner>);

struct Inner {
    payload: Bytes,
    crc: u32,
    parts: Vec<Part>,
    commands: u32,
}

/// Prints the checksum instead of the bytes, which can be many.
impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} commands, crc {:08x})", self.0.commands, self.0.crc)
    }
}

impl PartialEq for Batch {
    fn eq(&self, other: &Batch) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.payload == other.0.payload
    }
}

impl Eq for Batch {}

impl Batch {
    /// Validates a payload of any origin, and shows each command to `visit` on the way.
    ///
    /// A payload that does not start at an address divisible by 16 is copied to one. `crc` is the payload's crc32c,
    /// which the frame has verified; the batch passes it on to peers and to the log.
    ///
    /// # Errors
    ///
    /// [`Invalid`] with the first fault of the payload; the text goes to the client.
    pub fn parse(payload: Bytes, crc: u32, mut visit: impl FnMut(&Command<'_>)) -> Result<Batch, Invalid> {
        if payload.len() > BATCH_BYTES_MAX {
            return Err(Invalid::TooManyBytes);
        }
        let payload = crate::frame::aligned(payload);
        let mut parts = Vec::with_capacity(1);
        let mut commands = 0;
        let mut at = 0;
        while at < payload.len() {
            let (part, next) = parse_part(&payload, at, commands, &mut visit)?;
            commands += part.commands;
            if commands as usize > BATCH_COMMANDS_MAX {
                return Err(Invalid::CommandCount);
            }
            parts.push(part);
            at = next;
        }
        if parts.is_empty() {
            return Err(Invalid::CommandCount);
        }
        Ok(Batch(Arc::new(Inner { payload, crc, parts, commands })))
    }

    /// Joins several batches into one, with their parts in the given order. A single batch is returned as it is. The
    /// bytes of several are joined without a second validation.
    ///
    /// # Panics
    ///
    /// When the joined batch breaks [`BATCH_BYTES_MAX`] or [`BATCH_COMMANDS_MAX`].
    pub fn join(batches: &[Batch]) -> Batch {
        if let [single] = batches {
            return single.clone();
        }
        let mut payload = Vec::with_capacity(batches.iter().map(|b| b.0.payload.len()).sum());
        let mut parts = Vec::with_capacity(batches.iter().map(|b| b.0.parts.len()).sum());
        let (mut crc, mut commands) = (0, 0);
        for Batch(inner) in batches {
            let base = payload.len() as u32;
            parts.extend(inner.parts.iter().map(|part| Part {
                index: part.index + commands,
                headers: part.headers + base,
                blob: part.blob + base,
                ..*part
            }));
            // A checksum of the bytes is cheaper than to combine the two checksums, up to some hundred KiB.
            crc = crc32c::crc32c_append(crc, &inner.payload);
            commands += inner.commands;
            payload.extend_from_slice(&inner.payload);
        }
        assert!(payload.len() <= BATCH_BYTES_MAX && commands as usize <= BATCH_COMMANDS_MAX);
        Batch(Arc::new(Inner { payload: payload.into(), crc, parts, commands }))
    }

    /// The bytes as frames and the log carry them.
    pub fn payload(&self) -> &Bytes {
        &self.0.payload
    }

    /// The crc32c of the payload.
    pub fn crc(&self) -> u32 {
        self.0.crc
    }

    /// The requests of the batch.
    pub fn parts(&self) -> &[Part] {
        &self.0.parts
    }

    /// The number of commands in all parts.
    pub fn commands(&self) -> u32 {
        self.0.commands
    }

    /// The commands of one part of this batch, in order.
    pub fn commands_of(&self, part: &Part) -> Commands<'_> {
        let payload: &[u8] = &self.0.payload;
        let headers = part.headers as usize;
        let headers = &payload[headers..headers + 8 * part.commands as usize];
        Commands {
            headers: headers.chunks_exact(8),
            blob: &payload[part.blob as usize..],
            number: part.first,
        }
    }
}

/// Iterates over the commands of a validated request.
#[derive(Clone, Debug)]
pub struct Commands<'a> {
    headers: std::slice::ChunksExact<'a, u8>,
    blob: &'a [u8],
    number: u64,
}

impl<'a> Iterator for Commands<'a> {
    type Item = Command<'a>;

    #[inline]
    fn next(&mut self) -> Option<Command<'a>> {
        let header = u64::from_le_bytes(self.headers.next()?.try_into().expect("8 bytes"));
        let op = Op::from_byte((header >> 48) as u8).expect("validated when parsed");
        let key_length = (header >> 32) as u16 as usize;
        let value_length = if op == Op::Skip { 0 } else { header as u32 as usize };
        let mut expected = 0;
        if op == Op::DecideIf {
            let (bytes, rest) = self.blob.split_at(8);
            expected = u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
            self.blob = rest;
        }
        let (key_value, rest) = self.blob.split_at(key_length + value_length);
        self.blob = rest;
        let (key, value) = key_value.split_at(key_length);
        let number = self.number;
        let run = match (number, op) {
            (0, _) => 0,
            (_, Op::Skip) => u64::from(header as u32),
            _ => 1,
        };
        self.number += run;
        Some(Command { op, number, run, key, value, key_value, expected })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.headers.size_hint()
    }
}

impl ExactSizeIterator for Commands<'_> {}

/// Reads the part at `at` and returns it with the place of the next one.
fn parse_part(
    payload: &Bytes,
    at: usize,
    index: u32,
    visit: &mut impl FnMut(&Command<'_>),
) -> Result<(Part, usize), Invalid> {
    let start = at + PART_HEADER;
    let head = payload.get(at..start).ok_or(Invalid::Truncated)?;
    let length = u32::from_le_bytes(head[..4].try_into().expect("4 bytes")) as usize;
    let next = start + length.next_multiple_of(ALIGN);
    if next > payload.len() || head[8..] != [0; 8] || payload[start + length..next].iter().any(|b| *b != 0) {
        return Err(Invalid::Truncated);
    }
    let request = rkyv::access::<ArchivedRequest, rancor::Failure>(&payload[start..start + length])
        .map_err(|_| Invalid::Undecodable)?;
    let stated = u32::from_le_bytes(head[4..8].try_into().expect("4 bytes"));
    if request.headers.len() != stated as usize {
        return Err(Invalid::Truncated);
    }
    let offset_of = |pointer: *const u8| (pointer as usize - payload.as_ptr() as usize) as u32;
    let mut part = Part {
        session: SessionId { high: request.session.high.to_native(), low: request.session.low.to_native() },
        first: request.first.to_native(),
        answered_below: request.answered_below.to_native(),
        owner: Owner(request.owner.to_native()),
        numbers: 0,
        commands: stated,
        index,
        headers: offset_of(request.headers.as_ptr().cast()),
        blob: offset_of(request.blob.as_ptr()),
    };
    check_lengths(request)?;
    part.numbers = check_commands(payload, &part, visit)?;
    Ok((part, next))
}

/// Checks that ops and lengths are legal, and that the blob has exactly the lengths of the headers.
fn check_lengths(request: &ArchivedRequest) -> Result<(), Invalid> {
    let count = request.headers.len();
    if count == 0 || count > BATCH_COMMANDS_MAX {
        return Err(Invalid::CommandCount);
    }
    let mut total = 0;
    for header in request.headers.iter() {
        let header = header.to_native();
        let op = Op::from_byte((header >> 48) as u8).ok_or(Invalid::UnknownOp((header >> 48) as u8))?;
        let (key, value) = ((header >> 32) as u16 as usize, header as u32 as usize);
        if header >> 56 != 0 {
            return Err(Invalid::Undecodable);
        }
        if op.has_key() {
            check_key(key)?;
            check_value(value)?;
        } else if key != 0 {
            return Err(Invalid::Superfluous(op));
        }
        match op {
            Op::Read | Op::Delete | Op::Open | Op::Barrier if value != 0 => {
                return Err(Invalid::Superfluous(op));
            }
            Op::Skip if value == 0 || value as u64 > REQUEST_NUMBERS_MAX => return Err(Invalid::Numbers),
            Op::End if value != 0 && value != IDLE_END_BYTES => return Err(Invalid::Superfluous(op)),
            Op::Seal if value != SEAL_BYTES => return Err(Invalid::ValueLength(value)),
            Op::Skip => {}
            Op::DecideIf => total += 8 + key + value,
            _ => total += key + value,
        }
    }
    if total == request.blob.len() { Ok(()) } else { Err(Invalid::Truncated) }
}

/// Checks that the commands fit the kind of the request: numbered commands have a session, reads and Opens have none, and an
/// idempotency key stands for one command (S6).
/// Returns how many numbers the commands take.
fn check_commands(
    payload: &Bytes,
    part: &Part,
    visit: &mut impl FnMut(&Command<'_>),
) -> Result<u64, Invalid> {
    if part.first > NUMBER_MAX || part.answered_below > NUMBER_MAX {
        return Err(Invalid::Numbers);
    }
    let has_session = part.session.is_opened() || part.session.is_named();
    let is_keyed = part.session.is_keyed();
    let headers = part.headers as usize;
    let commands = Commands {
        headers: payload[headers..headers + 8 * part.commands as usize].chunks_exact(8),
        blob: &payload[part.blob as usize..],
        number: part.first,
    };
    let (mut numbers, alone) = (0, part.commands == 1);
    for command in commands {
        let fits = match command.op {
            Op::Read => part.session == SessionId::NONE && part.first == 0,
            Op::Open | Op::Barrier | Op::Seal => part.session == SessionId::NONE && part.first == 0 && alone,
            Op::End if part.first == 0 => {
                (has_session || is_keyed) && alone && command.value.len() == IDLE_END_BYTES
            }
            Op::Attach => part.session.is_named() && part.first == 0 && alone,
            Op::End => part.session.is_opened() && alone && command.value.is_empty(),
            Op::Decide | Op::DecideIf | Op::Delete if is_keyed => {
                let is_number = (1..=KEYED_NUMBER_MAX).contains(&part.first);
                alone && is_number && part.answered_below == 0 && part.owner == Owner::NOBODY
            }
            Op::Decide | Op::DecideIf | Op::Delete | Op::Skip => has_session && part.first > 0,
        };
        if !fits {
            return Err(Invalid::WrongKind(command.op));
        }
        if command.op == Op::Attach {
            command.attach().ok_or(Invalid::Attach)?;
        }
        numbers += command.run;
        visit(&command);
    }
    if numbers > REQUEST_NUMBERS_MAX { Err(Invalid::Numbers) } else { Ok(numbers) }
}

#[cfg(test)]
mod tests;
