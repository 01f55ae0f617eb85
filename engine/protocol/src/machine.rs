//! The state machine: applies batches, in the order of execution, to state and sessions.

use crate::ahead::Keys;
use crate::mutant::{self, Mutant};
use crate::payload::Payload;
use crate::sessions::{Fate, Sessions};
use crate::state::{Place, Spot, State};
use bytes::Bytes;
use isonomy_wire::answer::{Answer, ResponseBuilder};
use isonomy_wire::command::{Command, KEYED_NUMBER_MAX, Op, Part};
use isonomy_wire::id::{CommandId, Epoch, InstanceId, SessionId, ShardId};
use isonomy_wire::source::Owner;

/// State and sessions of a shard.
#[derive(Clone, Debug)]
pub struct Machine {
    epoch: Epoch,
    shard: ShardId,
    /// The keys.
    pub state: State,
    /// The sessions.
    pub sessions: Sessions,
    answers: ResponseBuilder,
    commands: u64,
}

impl Machine {
    /// A machine without decisions.
    pub fn new(epoch: Epoch, shard: ShardId) -> Machine {
        let answers = ResponseBuilder::new(epoch, shard);
        let (state, sessions) = (State::new(shard), Sessions::default());
        Machine { epoch, shard, state, sessions, answers, commands: 0 }
    }

    /// The same state and sessions in another epoch.
    pub(crate) fn entering(self, epoch: Epoch) -> Machine {
        Machine { epoch, answers: ResponseBuilder::new(epoch, self.shard), ..self }
    }

    /// The hash of state and sessions, which is equal at equal frontiers.
    pub fn hash(&self) -> u64 {
        self.state.hash().wrapping_add(self.sessions.hash())
    }

    /// Sets the number of executed commands after the state was read back.
    pub(crate) fn resume(&mut self, commands: u64) {
        self.commands = commands;
    }

    /// The number of executed commands.
    pub fn commands(&self) -> u64 {
        self.commands
    }

    /// Executes the batch of an instance. `places` are the places of its keys that the conflict index knew, or
    /// nothing. Returns the places that the index must note. `respond` gets the number of each part and its encoded
    /// response. With `reads` false no client waits for reads, and they are passed over, since they change nothing.
    pub fn execute(
        &mut self,
        id: InstanceId,
        payload: &Payload,
        places: &[Place],
        reads: bool,
        mut respond: impl FnMut(usize, Bytes),
    ) -> Vec<Spot> {
        let batch = payload.batch();
        let mut keys = Keys::new(payload.keys(), places, &self.state);
        for (place, part) in batch.parts().iter().enumerate() {
            let mut work = PartWork { machine: self, id, payload, part, keys: &mut keys };
            if part.session != SessionId::NONE {
                respond(place, work.on_session());
            } else if reads || !work.is_read() {
                respond(place, work.without_session());
            } else {
                work.pass_over();
            }
        }
        self.commands += u64::from(batch.commands());
        keys.into_found()
    }
}

/// A session's knowledge of a request.
enum RequestStatus {
    /// The session belongs to another process by now (S5).
    Fenced,
    /// The request comes next.
    Next,
    /// The request was executed, and these are its answers.
    Executed(Bytes),
    /// The request is early, or some of its numbers were executed.
    Other,
}

/// One part of a batch on its way through the machine.
struct PartWork<'m, 'a> {
    machine: &'m mut Machine,
    id: InstanceId,
    payload: &'a Payload,
    part: &'a Part,
    /// The keys of the commands from here to the end of the batch.
    keys: &'m mut Keys<'a>,
}

impl<'a> PartWork<'_, 'a> {
    fn commands(&self) -> impl Iterator<Item = (u32, Command<'a>)> + use<'a> {
        (self.part.index..).zip(self.payload.batch().commands_of(self.part))
    }

    fn is_read(&self) -> bool {
        self.first_op() == Op::Read
    }

    fn pass_over(&mut self) {
        self.keys.skip(self.part.commands as usize, &self.machine.state);
    }

    /// Executes a request without a session: reads, Opens, Barriers and Seals.
    fn without_session(&mut self) -> Bytes {
        for (index, command) in self.commands() {
            self.apply(index, &command);
        }
        self.machine.answers.encode()
    }

    /// S2: executes a request on a session, as far as it was not executed before. Returns the response.
    fn on_session(&mut self) -> Bytes {
        let Part { session: session_id, first, numbers, answered_below, owner, .. } = *self.part;
        let op = self.first_op();
        if op == Op::Attach {
            return self.attach();
        }
        if op == Op::End && first == 0 {
            return self.end_if_idle();
        }
        if session_id.is_named() && owner == Owner::NOBODY {
            self.machine.sessions.begin(session_id);
        }
        if session_id.is_keyed() {
            self.machine.sessions.begin_keyed(session_id, first);
        }
        let status = self.machine.sessions.with(session_id, |session| {
            if owner != session.owner() && !mutant::is(Mutant::FencedWrites) {
                return RequestStatus::Fenced;
            }
            session.on_answered_below(answered_below);
            if session_id.is_named() {
                session.advance(answered_below);
            }
            if session.low() == first {
                return RequestStatus::Next;
            }
            session.response(first..first + numbers).map_or(RequestStatus::Other, RequestStatus::Executed)
        });
        match status {
            None => self.all(&Answer::Expired),
            Some(RequestStatus::Fenced) => self.all(&Answer::Fenced),
            Some(_) if op == Op::End => self.end(),
            Some(RequestStatus::Next) => {
                for (index, command) in self.commands() {
                    self.apply(index, &command);
                }
                self.say(first);
                self.finish()
            }
            Some(RequestStatus::Executed(response)) => {
                self.skip_keys();
                response
            }
            Some(RequestStatus::Other) => self.one_by_one(),
        }
    }

    fn first_op(&self) -> Op {
        self.commands().next().expect("a request has commands").1.op
    }

    /// S5: a process takes a source over, and gets its standing.
    fn attach(&mut self) -> Bytes {
        let (index, command) = self.commands().next().expect("a request has commands");
        let attach = command.attach().expect("checked when it was parsed");
        self.machine.sessions.begin(self.part.session);
        let standing = self.machine.sessions.with(self.part.session, |session| session.attach(attach));
        let standing = standing.expect("it was begun");
        self.machine.answers.standing(self.id, index, &standing);
        self.machine.answers.encode()
    }

    /// S5: adds the commands of a source from this number on to its digest.
    fn say(&mut self, from: u64) {
        if self.part.session.is_named() {
            let commands = self.payload.batch().commands_of(self.part);
            let said = commands.filter(|command| command.number >= from);
            self.machine.sessions.with(self.part.session, |session| session.say(said));
        }
    }

    /// Gives one answer to all commands, of which none has an effect.
    fn all(&mut self, answer: &Answer) -> Bytes {
        for (index, _) in self.commands() {
            self.machine.answers.plain(self.id, index, answer);
        }
        self.skip_keys();
        self.machine.answers.encode()
    }

    /// S4: ends the session at its present number. Commands that were sent and not executed by then never will be.
    fn end(&mut self) -> Bytes {
        let session = self.part.session;
        let low = self.machine.sessions.get(session).expect("the session is open").low();
        self.machine.sessions.end(session);
        self.machine.answers.ended(self.id, self.part.index, low);
        self.machine.answers.encode()
    }

    fn skip_keys(&mut self) {
        let keys = self.commands().filter(|(_, command)| command.op.has_key()).count();
        self.keys.skip(keys, &self.machine.state);
    }

    /// S4: ends an idle session, if it still is as the proposer of its end saw it.
    fn end_if_idle(&mut self) -> Bytes {
        let (index, command) = self.commands().next().expect("a request has commands");
        let seen = command.seen().expect("checked when it was parsed");
        let answer = match self.machine.sessions.get(self.part.session) {
            None => Answer::Expired,
            Some(session) if (session.low(), session.owner()) == seen => {
                self.machine.sessions.end(self.part.session);
                Answer::Ended { low: seen.0 }
            }
            Some(_) => Answer::Done,
        };
        self.machine.answers.repeat(self.id, index, &answer);
        self.machine.answers.encode()
    }

    /// Executes the commands of a request that does not come next: some of its numbers were executed before, or it is
    /// early.
    fn one_by_one(&mut self) -> Bytes {
        let session = self.machine.sessions.get(self.part.session).expect("the session is open");
        let low = session.low();
        if session.fate(self.part.first..self.part.first + 1) == Fate::Early {
            return self.all(&Answer::Early);
        }
        for (index, command) in self.commands() {
            let session = self.machine.sessions.get(self.part.session).expect("the session is open");
            let numbers = command.number..command.number + command.run;
            match session.fate(numbers.clone()) {
                Fate::Execute => {
                    self.apply(index, &command);
                    self.machine.sessions.with(self.part.session, |session| session.advance(numbers.end));
                    continue;
                }
                Fate::Executed(answer) => self.machine.answers.repeat(self.id, index, &answer),
                Fate::Early => unreachable!("the number before it was just executed"),
            }
            if command.op.has_key() {
                self.keys.next(&self.machine.state);
            }
        }
        self.say(low);
        self.finish()
    }

    /// Ends a request whose numbers are all executed, and keeps its answers for retries.
    fn finish(&mut self) -> Bytes {
        let Part { session, first, numbers, .. } = *self.part;
        let response = self.machine.answers.encode();
        let uneven = numbers != u64::from(self.part.commands);
        let starts = uneven.then(|| self.commands().map(|(_, command)| command.number).collect());
        // S6: an idempotency key stands for one command, so no number is left.
        let low = if session.is_keyed() { KEYED_NUMBER_MAX + 1 } else { first + numbers };
        self.machine.sessions.with(session, |session| {
            session.advance(low);
            session.store(first..first + numbers, starts, response.clone());
        });
        response
    }

    /// Executes one command and notes its answer.
    #[inline]
    fn apply(&mut self, index: u32, command: &Command<'_>) {
        let Machine { epoch, shard, state, sessions, answers, .. } = &mut *self.machine;
        let id = CommandId { epoch: *epoch, shard: *shard, instance: self.id, index };
        let instance = self.id;
        let mut spot = if command.op.has_key() { self.keys.next(state) } else { Spot::default() };
        match command.op {
            Op::Decide => {
                let key_seq = state.decide(&mut spot, command.key_value, command.key.len(), id);
                answers.committed(instance, index, key_seq);
            }
            Op::DecideIf => match state.get(&mut spot, command.key) {
                Some(now) if now.key_seq != command.expected => {
                    answers.rejected(instance, index, now.key_seq, Some(now.value));
                }
                None if command.expected != 0 => answers.rejected(instance, index, 0, None),
                _ => {
                    let key_seq = state.decide(&mut spot, command.key_value, command.key.len(), id);
                    answers.committed(instance, index, key_seq);
                }
            },
            Op::Read => match state.get(&mut spot, command.key) {
                Some(now) => answers.found(instance, index, now.key_seq, now.value, now.id),
                None => answers.plain(instance, index, &Answer::Missing),
            },
            Op::Delete => match state.delete(&mut spot, command.key) {
                Some(key_seq) => answers.deleted(instance, index, key_seq),
                None => answers.plain(instance, index, &Answer::Missing),
            },
            Op::Open => {
                let session = SessionId::opened_by(id);
                sessions.open(session);
                answers.plain(instance, index, &Answer::Opened { session });
            }
            Op::End | Op::Skip | Op::Barrier | Op::Seal | Op::Attach => {
                answers.plain(instance, index, &Answer::Done);
            }
        }
        if command.op.has_key() {
            self.keys.used(spot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conflict::Index;
    use isonomy_wire::answer::Answers;
    use isonomy_wire::command::{Numbering, RequestBuilder};
    use isonomy_wire::id::ReplicaId;
    use isonomy_wire::source::{SourceName, Standing};
    use proptest::prelude::*;

    struct Bench {
        machine: Machine,
        index: Index,
        seq: u64,
        /// How many places the index had to be told after the last request.
        found: usize,
    }

    impl Bench {
        fn new() -> Bench {
            let machine = Machine::new(Epoch(1), ShardId(0));
            Bench { machine, index: Index::default(), seq: 0, found: 0 }
        }

        /// Executes one request as an instance of its own.
        fn run(
            &mut self,
            session: SessionId,
            first: u64,
            below: u64,
            fill: impl FnOnce(&mut RequestBuilder),
        ) -> Vec<Answer> {
            let mut builder = RequestBuilder::default();
            fill(&mut builder);
            let bytes = builder.encode(session, Numbering { first, answered_below: below });
            let crc = crc32c::crc32c(&bytes);
            let payload = Payload::parse(bytes, crc).unwrap();
            self.seq += 1;
            let id = InstanceId::new(ReplicaId(0), self.seq);
            let places = self.index.learn(id, &payload).places;
            let mut answers = Vec::new();
            let found = self.machine.execute(id, &payload, &places, true, |_, bytes| {
                answers = Answers::parse(bytes).unwrap().to_vec();
            });
            self.index.note(&found);
            self.found = found.len();
            answers
        }

        fn open(&mut self) -> SessionId {
            match self.run(SessionId::NONE, 0, 0, RequestBuilder::open)[..] {
                [Answer::Opened { session }] => session,
                ref other => panic!("{other:?}"),
            }
        }
    }

    fn committed(answers: &[Answer]) -> Vec<u64> {
        let key_seq = |answer: &Answer| match answer {
            Answer::Committed { key_seq, .. } => *key_seq,
            other => panic!("{other:?}"),
        };
        answers.iter().map(key_seq).collect()
    }

    #[test]
    fn decide_read_decide_if_delete() {
        let mut bench = Bench::new();
        let session = bench.open();
        let answers = bench.run(session, 1, 0, |request| {
            request.decide(b"k", b"one").unwrap();
            request.decide_if(b"k", b"two", 1).unwrap();
            request.decide_if(b"k", b"three", 1).unwrap();
            request.decide_if(b"fresh", b"first", 0).unwrap();
            request.delete(b"k").unwrap();
            request.delete(b"k").unwrap();
            request.decide_if(b"k", b"new life", 1).unwrap();
        });
        assert_eq!(committed(&answers[..2]), [1, 2]);
        assert_eq!(answers[2], Answer::Rejected { key_seq: 2, value: Some(Bytes::from_static(b"two")) });
        assert_eq!(committed(&answers[3..4]), [1]);
        assert!(matches!(answers[4], Answer::Deleted { key_seq: 2, .. }));
        assert_eq!(answers[5], Answer::Missing);
        assert_eq!(answers[6], Answer::Rejected { key_seq: 0, value: None });
        let reads = bench.run(SessionId::NONE, 0, 0, |request| {
            request.read(b"fresh").unwrap();
            request.read(b"k").unwrap();
        });
        assert!(matches!(&reads[0], Answer::Found { key_seq: 1, value, id }
            if value == "first" && id.instance.seq == 2 && id.index == 3));
        assert_eq!(reads[1], Answer::Missing);
    }

    #[test]
    fn s2_a_retry_gets_the_first_answers_and_changes_nothing() {
        let mut bench = Bench::new();
        let session = bench.open();
        let fill = |request: &mut RequestBuilder| {
            request.decide(b"a", b"1").unwrap();
            request.decide(b"b", b"1").unwrap();
        };
        let first = bench.run(session, 1, 0, fill);
        let hash = bench.machine.hash();
        assert_eq!(bench.run(session, 1, 0, fill), first);
        assert_eq!(bench.machine.hash(), hash);
        // The same numbers in another grouping, as after a split by hand.
        let mixed = bench.run(session, 2, 0, |request| {
            request.decide(b"b", b"1").unwrap();
            request.decide(b"c", b"1").unwrap();
        });
        assert_eq!(mixed[0], first[1]);
        assert_eq!(committed(&mixed[1..]), [1]);
        let low = bench.machine.sessions.get(session).unwrap().low();
        assert_eq!(low, 4);
    }

    #[test]
    fn s2_a_number_executes_behind_the_one_before_it_or_not_at_all() {
        let mut bench = Bench::new();
        let session = bench.open();
        let hash = bench.machine.hash();
        let early = bench.run(session, 5, 0, |request| request.decide(b"k", b"5").unwrap());
        assert_eq!(early, [Answer::Early]);
        assert_eq!(bench.machine.hash(), hash, "it has no effect");
        let before = bench.run(session, 1, 0, |request| {
            (0..4).for_each(|_| request.decide(b"k", b"x").unwrap());
        });
        assert_eq!(committed(&before), [1, 2, 3, 4]);
        let whole = bench.run(session, 1, 0, |request| {
            (0..6).for_each(|_| request.decide(b"k", b"x").unwrap());
        });
        assert_eq!(committed(&whole), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn s4_an_ended_session_is_expired_and_a_changed_one_does_not_end() {
        let mut bench = Bench::new();
        let session = bench.open();
        bench.run(session, 1, 0, |request| request.decide(b"k", b"v").unwrap());
        let idle = |request: &mut RequestBuilder| request.end_idle(1, Owner::NOBODY);
        assert_eq!(bench.run(session, 0, 0, idle), [Answer::Done]);
        assert!(bench.machine.sessions.get(session).is_some(), "it was not as the proposer saw it");
        let idle = |request: &mut RequestBuilder| request.end_idle(2, Owner::NOBODY);
        assert_eq!(bench.run(session, 0, 0, idle), [Answer::Ended { low: 2 }]);
        assert_eq!(bench.run(session, 0, 0, idle), [Answer::Expired]);
        let answers = bench.run(session, 1, 0, |request| request.decide(b"k", b"v").unwrap());
        assert_eq!(answers, [Answer::Expired]);
        let other = bench.open();
        bench.run(other, 1, 0, |request| request.decide(b"k", b"v").unwrap());
        let early = bench.run(other, 9, 0, RequestBuilder::end);
        assert_eq!(early, [Answer::Ended { low: 2 }], "an End waits for nothing");
        assert_eq!(bench.run(other, 1, 0, RequestBuilder::end), [Answer::Expired]);
    }

    #[test]
    fn s5_gaps_of_a_named_session_are_skipped() {
        let mut bench = Bench::new();
        let session = SessionId::named("file");
        let fill = |request: &mut RequestBuilder| {
            request.skip(3).unwrap();
            request.decide(b"k", b"line 4").unwrap();
            request.skip(2).unwrap();
            request.decide(b"k", b"line 7").unwrap();
        };
        let answers = bench.run(session, 1, 0, fill);
        assert_eq!(answers[0], Answer::Done);
        assert_eq!(committed(&[answers[1].clone(), answers[3].clone()]), [1, 2]);
        let again = bench.run(session, 4, 0, |request| request.decide(b"k", b"line 4").unwrap());
        assert_eq!(again, answers[1..2]);
        let low = bench.machine.sessions.get(session).unwrap().low();
        assert_eq!(low, 8);
    }

    #[test]
    fn s5_a_named_session_begins_where_its_source_says() {
        let mut bench = Bench::new();
        let fill = |request: &mut RequestBuilder| request.decide(b"k", b"v").unwrap();
        let (named, far) = (SessionId::named("partition"), 1 << 40);
        assert_eq!(committed(&bench.run(named, far, far, fill)), [1]);
        assert_eq!(bench.machine.sessions.get(named).unwrap().low(), far + 1);
        assert_eq!(bench.run(named, far - 1, 0, fill), [Answer::Duplicate], "it was said to be done");
        // A session that was opened has no numbers but those of its one client.
        let opened = bench.open();
        assert_eq!(bench.run(opened, far, far, fill), [Answer::Early]);
    }

    #[test]
    fn s6_an_idempotency_key_stands_for_one_command() {
        let mut bench = Bench::new();
        let key = SessionId::keyed(b"payment 17");
        let decide = |request: &mut RequestBuilder| request.decide(b"k", b"v").unwrap();
        assert_eq!(committed(&bench.run(key, 900, 0, decide)), [1]);
        bench.run(SessionId::keyed(b"payment 18"), 5, 0, |request| request.decide(b"k", b"w").unwrap());
        let hash = bench.machine.hash();
        assert_eq!(committed(&bench.run(key, 900, 0, decide)), [1], "its first answer");
        assert_eq!(bench.run(key, 899, 0, decide), [Answer::Duplicate]);
        assert_eq!(bench.run(key, 901, 0, decide), [Answer::Duplicate]);
        assert_eq!((bench.machine.hash(), bench.machine.sessions.keyed().0), (hash, 2), "no effect");
        bench.machine.sessions.check();
        let idle = |request: &mut RequestBuilder| request.end_idle(KEYED_NUMBER_MAX + 1, Owner::NOBODY);
        assert_eq!(bench.run(key, 0, 0, idle), [Answer::Ended { low: KEYED_NUMBER_MAX + 1 }]);
        assert_eq!(committed(&bench.run(key, 900, 0, decide)), [3], "the key is forgotten");
        bench.machine.sessions.check();
    }

    fn attach(bench: &mut Bench, name: &SourceName, expected: u64, owner: u64) -> Standing {
        let session = name.session(ShardId(0));
        let answers = bench.run(session, 0, 0, |request| request.attach(Owner(expected), Owner(owner), name));
        match &answers[..] {
            [Answer::Standing(standing)] => (**standing).clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn s5_whoever_attaches_learns_where_it_stands_and_barriers_who_was_there() {
        let mut bench = Bench::new();
        let name: SourceName = "daily".parse().unwrap();
        let session = name.session(ShardId(0));
        let write = |bench: &mut Bench, number, owner| {
            bench.run(session, number, 0, |request| {
                request.decide(b"k", b"v").unwrap();
                request.owned_by(Owner(owner));
            })
        };
        assert_eq!(attach(&mut bench, &name, 0, 1).low(), 1);
        assert_eq!(committed(&write(&mut bench, 1, 1)), [1]);
        let standing = attach(&mut bench, &name, 0, 2);
        assert_eq!((standing.owner, standing.low()), (Owner(1), 2), "it is not whose 2 thinks");
        assert_eq!(attach(&mut bench, &name, 1, 2).owner, Owner(2));
        assert_eq!(attach(&mut bench, &name, 0, 1).owner, Owner(2), "a late copy takes nothing back");
        let hash = bench.machine.hash();
        assert_eq!(write(&mut bench, 1, 1), [Answer::Fenced]);
        assert_eq!(write(&mut bench, 2, 1), [Answer::Fenced]);
        assert_eq!(write(&mut bench, 2, 0), [Answer::Fenced]);
        assert_eq!(bench.machine.hash(), hash, "it has no effect");
        assert_eq!(write(&mut bench, 1, 2), [Answer::Duplicate], "1 was told, and nobody asks for it again");
        assert_eq!(committed(&write(&mut bench, 2, 2)), [2]);
        let idle = bench.run(session, 0, 0, |request| request.end_idle(3, Owner(1)));
        assert_eq!(idle, [Answer::Done], "it was seen before 2 came");
        let idle = bench.run(session, 0, 0, |request| request.end_idle(3, Owner(2)));
        assert_eq!((idle, bench.machine.sessions.sources()), (vec![Answer::Ended { low: 3 }], 0));
        assert_eq!(write(&mut bench, 3, 2), [Answer::Expired], "it was ended, not taken over");
        assert_eq!(bench.machine.sessions.sources(), 0);
        assert_eq!(attach(&mut bench, &name, 0, 3).low(), 1, "nothing is remembered");
    }

    #[test]
    fn s5_what_a_source_said_does_not_depend_on_how_it_was_cut() {
        let name: SourceName = "daily".parse().unwrap();
        let said = |requests: &[&[u64]]| {
            let mut bench = Bench::new();
            for numbers in requests {
                bench.run(name.session(ShardId(0)), numbers[0], 0, |request| {
                    for number in *numbers {
                        match number % 3 {
                            0 => request.skip(1).unwrap(),
                            _ => request.decide(b"k", &number.to_le_bytes()).unwrap(),
                        }
                    }
                });
            }
            attach(&mut bench, &name, 0, 1)
        };
        let whole = said(&[&[1, 2, 3, 4, 5, 6, 7]]);
        assert_eq!(said(&[&[1], &[2, 3, 4], &[5, 6], &[7]]), whole);
        // A request of which some numbers are done.
        assert_eq!(said(&[&[1, 2], &[2, 3, 4], &[4, 5, 6, 7]]), whole);
        assert_ne!(said(&[&[1, 2, 3, 4, 5]]).marks.last(), whole.marks.last());
    }

    #[test]
    fn the_index_is_told_where_keys_are_and_again_when_they_move() {
        let mut bench = Bench::new();
        let session = bench.open();
        let keys: Vec<[u8; 2]> = (0..200u16).map(u16::to_le_bytes).collect();
        let decide = |bench: &mut Bench, number: u64, keys: &[[u8; 2]]| {
            bench.run(session, number, 0, |request| {
                keys.iter().for_each(|key| request.decide(key, b"v").unwrap())
            });
            bench.found
        };
        assert_eq!(decide(&mut bench, 1, &keys), 200, "they are new");
        assert_eq!(decide(&mut bench, 201, &keys), 0);
        bench.run(session, 401, 0, |request| {
            keys[..2].iter().for_each(|key| request.delete(key).unwrap());
            request.decide(b"new", b"v").unwrap();
        });
        assert_eq!(bench.found, 1, "the new key has the place of a deleted one");
        assert_eq!(
            decide(&mut bench, 404, &keys),
            1,
            "of the deleted ones only the first gets its place back"
        );
        assert_eq!(decide(&mut bench, 604, &keys), 0);
    }

    proptest! {
        /// A place from the index only says where to look first.
        #[test]
        fn false_places_change_nothing(
            batches in prop::collection::vec(
                prop::collection::vec((0u8..40, prop::bool::weighted(0.3), 0u32..50), 1..120), 1..8),
        ) {
            let (mut honest, mut fooled) = (Bench::new(), Bench::new());
            for batch in batches {
                let mut builder = RequestBuilder::default();
                for (key, deletes, _) in &batch {
                    if *deletes { builder.delete(&[*key]) } else { builder.decide(&[*key], b"v") }.unwrap();
                }
                honest.seq += 1;
                let bytes = builder.encode(SessionId::named("s"), Numbering { first: 1 + 200 * honest.seq, answered_below: 200 * honest.seq });
                let crc = crc32c::crc32c(&bytes);
                let payload = Payload::parse(bytes, crc).unwrap();
                let id = InstanceId::new(ReplicaId(0), honest.seq);
                let run = |bench: &mut Bench, places: &[Place]| {
                    let mut answers = Bytes::new();
                    bench.machine.execute(id, &payload, places, true, |_, bytes| answers = bytes);
                    answers
                };
                // Some places lie beyond all entries, and there are fewer places than keys.
                let places: Vec<Place> = batch.iter().skip(1).map(|(.., place)| *place).collect();
                prop_assert_eq!(run(&mut honest, &[]), run(&mut fooled, &places));
                prop_assert_eq!(honest.machine.hash(), fooled.machine.hash());
            }
            prop_assert!(honest.machine.commands() > 0);
        }
    }
}
