//! Answers: the results of the commands of a request, in the request's order.
//!
//! A response is one rkyv body. Every replica builds the same bytes, keeps them with the session (S2) and sends them
//! to a client that asks again. The body has one word per command, with status and key_seq; values and ids of found
//! decisions follow in a blob.

use crate::id::{CommandId, Epoch, InstanceId, ReplicaId, SessionId, ShardId};
use crate::published::Effect;
use crate::source::Standing;
use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize, rancor};

/// The answer to one command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The value is the key's latest decision, its `key_seq`-th.
    Committed {
        /// The id of the command that decided.
        id: CommandId,
        /// The number of this decision in the key's present life, from 1.
        key_seq: u64,
    },
    /// DecideIf expected another key_seq; the key is unchanged.
    Rejected {
        /// The key_seq of the key; 0 when the key has no decision.
        key_seq: u64,
        /// The latest decision; `None` if the key has none, or if the value is [omitted](Answer::Omitted).
        value: Option<Bytes>,
    },
    /// The latest decision of a key that was read.
    Found {
        /// The number of the decision in the key's present life, from 1.
        key_seq: u64,
        /// The value that was decided.
        value: Bytes,
        /// The id of the command that decided.
        id: CommandId,
    },
    /// The key that was read has a decision, but earlier values in this response left no room for its value; see
    /// [`VALUES_BYTES_MAX`]. Read the key again.
    Omitted,
    /// The key that was read or deleted has no decision.
    Missing,
    /// The key's life has ended.
    Deleted {
        /// The id of the command that ended the key's life.
        id: CommandId,
        /// The number of the key's last decision.
        key_seq: u64,
    },
    /// The session is open.
    Opened {
        /// The id of the session.
        session: SessionId,
    },
    /// The session has ended.
    Ended {
        /// All lower numbers were executed before the end, and no other number ever will be (S4).
        low: u64,
    },
    /// The numbers were skipped, or an idle session was looked at.
    Done,
    /// The session had ended before; the outcome of earlier tries is unknown.
    Expired,
    /// The command was executed before, and its answer is no longer kept.
    Duplicate,
    /// The command was not executed, because the number before it was not executed yet (S2). Send it again behind
    /// that number.
    Early,
    /// The command was not executed, because another process owns the named session by now (S5).
    Fenced,
    /// The owner and the position of a named session (S5).
    Standing(Box<Standing>),
}

const COMMITTED: u64 = 1;
const REJECTED: u64 = 2;
const FOUND: u64 = 3;
const MISSING: u64 = 4;
const DELETED: u64 = 5;
const OPENED: u64 = 6;
const DONE: u64 = 7;
const EXPIRED: u64 = 8;
const DUPLICATE: u64 = 9;
const EARLY: u64 = 10;
const OMITTED: u64 = 11;
const REJECTED_BARE: u64 = 12;
const ENDED: u64 = 13;
const FENCED: u64 = 14;
const STANDING: u64 = 15;

/// The most bytes of the values of one response, with the bytes that frame them. The first value always fits; values
/// that no longer fit are left out.
pub const VALUES_BYTES_MAX: usize = 8 << 20;

const _: () = {
    assert!(VALUES_BYTES_MAX > crate::command::VALUE_BYTES_MAX + VALUE_OVERHEAD_BYTES);
    // The response to any request fits a frame.
    let words_and_runs = (size_of::<u64>() + size_of::<IdRun>()) * crate::command::BATCH_COMMANDS_MAX;
    assert!(VALUES_BYTES_MAX + words_and_runs + 4096 < crate::frame::PAYLOAD_BYTES_MAX);
};

/// Status in the highest byte, key_seq below.
const STATUS_SHIFT: u32 = 56;
const KEY_SEQ_MASK: u64 = (1 << STATUS_SHIFT) - 1;

/// Consecutive commands of one instance.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
struct IdRun {
    count: u32,
    index: u32,
    epoch: Epoch,
    instance: InstanceId,
}

#[derive(Archive, Serialize, Deserialize, Clone, Default, Debug)]
struct Response {
    shard: ShardId,
    runs: Vec<IdRun>,
    words: Vec<u64>,
    blob: Vec<u8>,
}

/// Builds the response to one request while its commands execute. The builder can be used again.
#[derive(Clone, Default, Debug)]
pub struct ResponseBuilder {
    epoch: Epoch,
    response: Response,
}

impl ResponseBuilder {
    /// Starts a response for commands of `epoch` and `shard`.
    pub fn new(epoch: Epoch, shard: ShardId) -> ResponseBuilder {
        ResponseBuilder { epoch, response: Response { shard, ..Response::default() } }
    }

    #[inline]
    fn push(&mut self, instance: InstanceId, index: u32, word: u64) {
        self.push_of(self.epoch, instance, index, word);
    }

    #[inline]
    fn push_of(&mut self, epoch: Epoch, instance: InstanceId, index: u32, word: u64) {
        let follows =
            |run: &IdRun| (run.epoch, run.instance, run.index + run.count) == (epoch, instance, index);
        match self.response.runs.last_mut() {
            Some(run) if follows(run) => run.count += 1,
            _ => self.response.runs.push(IdRun { count: 1, index, epoch, instance }),
        }
        self.response.words.push(word);
    }

    /// Adds the answer to a command that decided.
    #[inline]
    pub fn committed(&mut self, instance: InstanceId, index: u32, key_seq: u64) {
        self.push(instance, index, COMMITTED << STATUS_SHIFT | key_seq);
    }

    /// Adds the answer to a command that found another key_seq than it expected. `value` is the key's latest
    /// decision, if it has one.
    pub fn rejected(&mut self, instance: InstanceId, index: u32, key_seq: u64, value: Option<&[u8]>) {
        let Some(value) = value.filter(|value| self.has_room(value)) else {
            return self.push(instance, index, REJECTED_BARE << STATUS_SHIFT | key_seq);
        };
        self.push(instance, index, REJECTED << STATUS_SHIFT | key_seq);
        self.push_value(value);
    }

    /// Adds the answer to a command that read `value`, which the command `id` decided.
    pub fn found(&mut self, instance: InstanceId, index: u32, key_seq: u64, value: &[u8], id: CommandId) {
        if !self.has_room(value) {
            return self.push(instance, index, OMITTED << STATUS_SHIFT);
        }
        self.push(instance, index, FOUND << STATUS_SHIFT | key_seq);
        self.response.blob.extend_from_slice(&encode_id(id));
        self.push_value(value);
    }

    /// Adds the answer to a command that ended its key's life.
    pub fn deleted(&mut self, instance: InstanceId, index: u32, key_seq: u64) {
        self.push(instance, index, DELETED << STATUS_SHIFT | key_seq);
    }

    /// Adds the answer to an End; all numbers below `low` had been executed at that time.
    pub fn ended(&mut self, instance: InstanceId, index: u32, low: u64) {
        self.push(instance, index, ENDED << STATUS_SHIFT | low);
    }

    /// Adds the answer to an Attach, which is the only answer of its response.
    pub fn standing(&mut self, instance: InstanceId, index: u32, standing: &Standing) {
        self.push(instance, index, STANDING << STATUS_SHIFT);
        standing.encode(&mut self.response.blob);
    }

    /// Adds an answer without further content.
    ///
    /// # Panics
    ///
    /// When the answer has content.
    pub fn plain(&mut self, instance: InstanceId, index: u32, answer: &Answer) {
        let status = match answer {
            Answer::Omitted => OMITTED,
            Answer::Missing => MISSING,
            Answer::Opened { .. } => OPENED,
            Answer::Done => DONE,
            Answer::Expired => EXPIRED,
            Answer::Duplicate => DUPLICATE,
            Answer::Early => EARLY,
            Answer::Fenced => FENCED,
            _ => unreachable!("this answer has content"),
        };
        self.push(instance, index, status << STATUS_SHIFT);
    }

    /// Adds an answer that was given before, with the id that it had then.
    pub fn repeat(&mut self, instance: InstanceId, index: u32, answer: &Answer) {
        match answer {
            Answer::Committed { id, key_seq } => self.push_id(*id, COMMITTED << STATUS_SHIFT | key_seq),
            Answer::Rejected { key_seq, value } => {
                self.rejected(instance, index, *key_seq, value.as_deref());
            }
            Answer::Found { key_seq, value, id } => self.found(instance, index, *key_seq, value, *id),
            Answer::Deleted { id, key_seq } => self.push_id(*id, DELETED << STATUS_SHIFT | key_seq),
            Answer::Ended { low } => self.ended(instance, index, *low),
            Answer::Standing(standing) => self.standing(instance, index, standing),
            _ => self.plain(instance, index, answer),
        }
    }

    /// Adds an answer with the id of a command that may be one of an earlier epoch.
    fn push_id(&mut self, id: CommandId, word: u64) {
        self.push_of(id.epoch, id.instance, id.index, word);
    }

    fn has_room(&self, value: &[u8]) -> bool {
        self.response.blob.len() + value.len() + VALUE_OVERHEAD_BYTES <= VALUES_BYTES_MAX
    }

    fn push_value(&mut self, value: &[u8]) {
        self.response.blob.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.response.blob.extend_from_slice(value);
    }

    /// Encodes the response and empties the builder.
    pub fn encode(&mut self) -> Bytes {
        let response = &self.response;
        let size = 8 * response.words.len() + response.blob.len() + 32 * response.runs.len() + 96;
        let start = rkyv::util::AlignedVec::<16>::with_capacity(size);
        let archive = rkyv::api::high::to_bytes_in::<_, rancor::Error>(response, start)
            .expect("encoding to memory cannot fail");
        self.response.runs.clear();
        self.response.words.clear();
        self.response.blob.clear();
        Bytes::from_owner(archive)
    }
}

/// A response that does not decode, because it comes from another version or is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the response does not decode; run the same release at the client and at all replicas")]
pub struct BadResponse;

/// A validated response, which is read without copying.
#[derive(Clone, Debug)]
pub struct Answers(Bytes);

impl Answers {
    /// Validates a response. Bytes that do not start at a multiple of 16 are copied.
    ///
    /// # Errors
    ///
    /// [`BadResponse`] if the bytes are not a response.
    pub fn parse(bytes: Bytes) -> Result<Answers, BadResponse> {
        let bytes = crate::frame::aligned(bytes);
        let response = rkyv::access::<ArchivedResponse, rancor::Failure>(&bytes).map_err(|_| BadResponse)?;
        check(response).ok_or(BadResponse)?;
        Ok(Answers(bytes))
    }

    fn response(&self) -> &ArchivedResponse {
        rkyv::access::<ArchivedResponse, rancor::Failure>(&self.0).expect("validated when parsed")
    }

    /// The number of answers.
    pub fn len(&self) -> usize {
        self.response().words.len()
    }

    /// Whether there is no answer.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of the answers are `Committed`, without decoding the others.
    pub fn committed(&self) -> usize {
        let words = self.response().words.iter();
        words.filter(|word| word.to_native() >> STATUS_SHIFT == COMMITTED).count()
    }

    /// Whether the request came too late for its session, so that all its answers are `Expired`.
    pub fn are_expired(&self) -> bool {
        self.response().words.first().is_some_and(|word| word.to_native() >> STATUS_SHIFT == EXPIRED)
    }

    /// Whether the request came before an earlier one of its session, so that all its answers are `Early`.
    pub fn are_early(&self) -> bool {
        self.response().words.first().is_some_and(|word| word.to_native() >> STATUS_SHIFT == EARLY)
    }

    /// Whether the request came from a process whose session belongs to another by now, so that all its answers are
    /// `Fenced`.
    pub fn are_fenced(&self) -> bool {
        self.response().words.first().is_some_and(|word| word.to_native() >> STATUS_SHIFT == FENCED)
    }

    /// Whether any of the answers is `Omitted`, without decoding the others.
    pub fn any_omitted(&self) -> bool {
        self.any(OMITTED)
    }

    fn any(&self, status: u64) -> bool {
        self.response().words.iter().any(|word| word.to_native() >> STATUS_SHIFT == status)
    }

    /// The instances whose commands gave the answers, and their epochs.
    pub fn instances(&self) -> impl Iterator<Item = (Epoch, InstanceId)> {
        self.response().runs.iter().map(|run| {
            let instance = InstanceId::new(ReplicaId(run.instance.row.0), run.instance.seq.to_native());
            (Epoch(run.epoch.0.to_native()), instance)
        })
    }

    /// What each command has done to its key, in the order of the request's commands, and the id under which it was
    /// executed. Commands that have changed nothing have no effect.
    pub fn effects(&self) -> impl Iterator<Item = (CommandId, Option<Effect>)> {
        let response = self.response();
        let ids = response
            .runs
            .iter()
            .flat_map(move |run| (0..run.count.to_native()).map(move |offset| id_of(response, run, offset)));
        ids.zip(response.words.iter()).map(|(id, word)| {
            let word = word.to_native();
            let key_seq = word & KEY_SEQ_MASK;
            let effect = match word >> STATUS_SHIFT {
                COMMITTED => Some(Effect::Decided { key_seq }),
                DELETED => Some(Effect::Deleted { key_seq }),
                _ => None,
            };
            (id, effect)
        })
    }

    /// The first answer.
    pub fn first(&self) -> Option<Answer> {
        let response = self.response();
        let (word, run) = (response.words.first()?, response.runs.iter().find(|run| run.count != 0)?);
        Some(self.answer(word.to_native(), id_of(response, run, 0), &mut 0))
    }

    /// All answers, in the order of the request's commands.
    pub fn to_vec(&self) -> Vec<Answer> {
        let response = self.response();
        let mut blob = 0;
        let mut answers = Vec::with_capacity(response.words.len());
        let mut words = response.words.iter();
        for run in response.runs.iter() {
            for offset in 0..run.count.to_native() {
                let word = words.next().expect("validated when parsed").to_native();
                answers.push(self.answer(word, id_of(response, run, offset), &mut blob));
            }
        }
        answers
    }

    fn answer(&self, word: u64, id: CommandId, blob: &mut usize) -> Answer {
        let key_seq = word & KEY_SEQ_MASK;
        match word >> STATUS_SHIFT {
            COMMITTED => Answer::Committed { id, key_seq },
            REJECTED => Answer::Rejected { key_seq, value: Some(self.take_value(blob)) },
            REJECTED_BARE => Answer::Rejected { key_seq, value: None },
            OMITTED => Answer::Omitted,
            FOUND => {
                let bytes = &self.response().blob[*blob..*blob + ID_BYTES];
                let id = decode_id(bytes.try_into().expect("validated when parsed"));
                *blob += ID_BYTES;
                Answer::Found { key_seq, value: self.take_value(blob), id }
            }
            MISSING => Answer::Missing,
            DELETED => Answer::Deleted { id, key_seq },
            OPENED => Answer::Opened { session: SessionId::opened_by(id) },
            DONE => Answer::Done,
            EXPIRED => Answer::Expired,
            DUPLICATE => Answer::Duplicate,
            EARLY => Answer::Early,
            FENCED => Answer::Fenced,
            STANDING => {
                let all = &self.response().blob;
                let mut rest = &all[*blob..];
                let standing = Standing::decode(&mut rest).expect("validated when parsed");
                *blob = all.len() - rest.len();
                Answer::Standing(Box::new(standing))
            }
            ENDED => Answer::Ended { low: key_seq },
            _ => unreachable!("validated when parsed"),
        }
    }

    fn take_value(&self, blob: &mut usize) -> Bytes {
        let all = &self.response().blob;
        let length = u32::from_le_bytes(all[*blob..*blob + 4].try_into().expect("4 bytes")) as usize;
        let value = self.0.slice_ref(&all[*blob + 4..*blob + 4 + length]);
        *blob += 4 + length;
        value
    }
}

fn id_of(response: &ArchivedResponse, run: &ArchivedIdRun, offset: u32) -> CommandId {
    CommandId {
        epoch: Epoch(run.epoch.0.to_native()),
        shard: ShardId(response.shard.0.to_native()),
        instance: InstanceId::new(ReplicaId(run.instance.row.0), run.instance.seq.to_native()),
        index: run.index.to_native() + offset,
    }
}

/// Runs and words agree, statuses are known, a value belongs to a decision, and the blob holds exactly what
/// they need.
fn check(response: &ArchivedResponse) -> Option<()> {
    let mut named: u64 = 0;
    for run in response.runs.iter() {
        named += u64::from(run.count.to_native());
        run.index.to_native().checked_add(run.count.to_native()).filter(|end| *end <= 1 << 16)?;
        (run.instance.seq.to_native() < 1 << 40).then_some(())?;
    }
    (named == response.words.len() as u64).then_some(())?;
    let mut blob: &[u8] = &response.blob;
    for word in response.words.iter() {
        let status = word.to_native() >> STATUS_SHIFT;
        (COMMITTED..=STANDING).contains(&status).then_some(())?;
        if status == FOUND {
            blob = blob.get(ID_BYTES..)?;
        }
        if status == STANDING {
            Standing::decode(&mut blob)?;
        }
        if status == FOUND || status == REJECTED {
            (word.to_native() & KEY_SEQ_MASK > 0).then_some(())?;
            let length = u32::from_le_bytes(blob.get(..4)?.try_into().ok()?) as usize;
            blob = blob.get(4..)?.get(length..)?;
        }
    }
    blob.is_empty().then_some(())
}

/// epoch u32 | shard u16 | row u8 | zero u8 | seq u64 | index u32, little endian.
const ID_BYTES: usize = 20;
/// The most bytes that frame a value: the id of its decision and its length.
const VALUE_OVERHEAD_BYTES: usize = ID_BYTES + size_of::<u32>();

fn encode_id(id: CommandId) -> [u8; ID_BYTES] {
    let mut bytes = [0; ID_BYTES];
    bytes[..4].copy_from_slice(&id.epoch.0.to_le_bytes());
    bytes[4..6].copy_from_slice(&id.shard.0.to_le_bytes());
    bytes[6] = id.instance.row.0;
    bytes[8..16].copy_from_slice(&id.instance.seq.to_le_bytes());
    bytes[16..].copy_from_slice(&id.index.to_le_bytes());
    bytes
}

fn decode_id(bytes: &[u8; ID_BYTES]) -> CommandId {
    CommandId {
        epoch: Epoch(u32::from_le_bytes(bytes[..4].try_into().expect("4 bytes"))),
        shard: ShardId(u16::from_le_bytes(bytes[4..6].try_into().expect("2 bytes"))),
        instance: InstanceId::new(
            ReplicaId(bytes[6]),
            u64::from_le_bytes(bytes[8..16].try_into().expect("8 bytes")),
        ),
        index: u32::from_le_bytes(bytes[16..].try_into().expect("4 bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Mark, Owner};

    fn standing() -> Box<Standing> {
        let marks = [(3, 7), (9, 8)].map(|(below, digest)| Mark { below, digest });
        Box::new(Standing { owner: Owner(5), marks: marks.into() })
    }

    fn sample() -> (Vec<Answer>, Bytes) {
        let at = InstanceId::new(ReplicaId(1), 9);
        let before = InstanceId::new(ReplicaId(0), 4);
        let id = |instance, index| CommandId { epoch: Epoch(2), shard: ShardId(1), instance, index };
        let mut builder = ResponseBuilder::new(Epoch(2), ShardId(1));
        builder.committed(at, 0, 7);
        builder.committed(at, 1, 1);
        builder.rejected(at, 2, 3, Some(b"old"));
        builder.found(at, 3, 8, b"", id(before, 5));
        builder.repeat(at, 4, &Answer::Committed { id: id(before, 2), key_seq: 6 });
        builder.plain(at, 5, &Answer::Missing);
        builder.plain(at, 6, &Answer::Opened { session: SessionId::NONE });
        builder.repeat(at, 7, &Answer::Ended { low: 12 });
        builder.repeat(at, 8, &Answer::Early);
        builder.repeat(at, 9, &Answer::Standing(standing()));
        builder.repeat(at, 10, &Answer::Fenced);
        let expected = vec![
            Answer::Committed { id: id(at, 0), key_seq: 7 },
            Answer::Committed { id: id(at, 1), key_seq: 1 },
            Answer::Rejected { key_seq: 3, value: Some(Bytes::from_static(b"old")) },
            Answer::Found { key_seq: 8, value: Bytes::new(), id: id(before, 5) },
            Answer::Committed { id: id(before, 2), key_seq: 6 },
            Answer::Missing,
            Answer::Opened { session: SessionId::opened_by(id(at, 6)) },
            Answer::Ended { low: 12 },
            Answer::Early,
            Answer::Standing(standing()),
            Answer::Fenced,
        ];
        (expected, builder.encode())
    }

    #[test]
    fn answers_come_back_as_they_went_in() {
        let (expected, bytes) = sample();
        let answers = Answers::parse(bytes).unwrap();
        assert_eq!(answers.to_vec(), expected);
        assert_eq!(answers.first().as_ref(), expected.first());
        assert!(!answers.are_expired() && !answers.are_early());
        assert_eq!(answers.committed(), 3);
    }

    #[test]
    fn an_answer_of_an_earlier_epoch_keeps_its_id() {
        let at = InstanceId::new(ReplicaId(1), 9);
        let id = |epoch, index| CommandId { epoch: Epoch(epoch), shard: ShardId(1), instance: at, index };
        let answers = [
            Answer::Committed { id: id(2, 0), key_seq: 7 },
            Answer::Committed { id: id(3, 1), key_seq: 8 },
            Answer::Deleted { id: id(2, 2), key_seq: 8 },
        ];
        let mut builder = ResponseBuilder::new(Epoch(3), ShardId(1));
        answers.iter().for_each(|answer| builder.repeat(at, 5, answer));
        assert_eq!(Answers::parse(builder.encode()).unwrap().to_vec(), answers);
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_said() {
        let at = InstanceId::new(ReplicaId(1), 9);
        let id = CommandId { epoch: Epoch(2), shard: ShardId(1), instance: at, index: 0 };
        let value = vec![7; crate::command::VALUE_BYTES_MAX];
        let mut builder = ResponseBuilder::new(Epoch(2), ShardId(1));
        for index in 0..20 {
            match index % 2 {
                0 => builder.found(at, index, 1, &value, id),
                _ => builder.rejected(at, index, 1, Some(&value)),
            }
        }
        builder.found(at, 20, 1, b"small", id);
        let bytes = builder.encode();
        assert!(bytes.len() < crate::frame::PAYLOAD_BYTES_MAX);
        let answers = Answers::parse(bytes).unwrap();
        assert!(answers.any_omitted());
        let answers = answers.to_vec();
        let whole = |answer: &Answer| {
            matches!(answer, Answer::Found { .. } | Answer::Rejected { value: Some(_), .. })
        };
        assert!(answers[..7].iter().all(whole) && !answers[7..20].iter().any(whole));
        assert_eq!(
            (&answers[8], &answers[9]),
            (&Answer::Omitted, &Answer::Rejected { key_seq: 1, value: None })
        );
        assert!(whole(&answers[20]), "what is small still fits");
        answers.iter().for_each(|answer| builder.repeat(at, 0, answer));
        assert_eq!(Answers::parse(builder.encode()).unwrap().to_vec().len(), answers.len());
    }

    #[test]
    fn a_rejection_of_a_key_without_a_decision_has_no_value() {
        let at = InstanceId::new(ReplicaId(1), 9);
        let mut builder = ResponseBuilder::new(Epoch(2), ShardId(1));
        builder.rejected(at, 0, 0, None);
        builder.rejected(at, 1, 3, Some(b""));
        let answers = Answers::parse(builder.encode()).unwrap().to_vec();
        let expected = [
            Answer::Rejected { key_seq: 0, value: None },
            Answer::Rejected { key_seq: 3, value: Some(Bytes::new()) },
        ];
        assert_eq!(answers, expected);
        answers.iter().for_each(|answer| builder.repeat(at, 0, answer));
        assert_eq!(Answers::parse(builder.encode()).unwrap().to_vec(), expected);
        // A value without a decision comes from no release that this one understands.
        builder.rejected(at, 0, 0, Some(b""));
        assert!(Answers::parse(builder.encode()).is_err());
    }

    #[test]
    fn damage_is_refused_or_harmless_but_never_a_panic() {
        let (_, bytes) = sample();
        for length in 0..bytes.len() {
            if let Ok(answers) = Answers::parse(bytes.slice(..length)) {
                answers.to_vec();
            }
        }
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Ok(answers) = Answers::parse(damaged.into()) {
                answers.to_vec();
            }
        }
    }
}
