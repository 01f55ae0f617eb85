//! Compares commands that a source submits under numbers that are done with the commands of that time, and does not
//! send them (S5).

use super::Conversation;
use super::lane::{LaneSession, Pending, add_again};
use super::outcome::{Charge, Error};
use crate::answer::{Answer, Answers, ResponseBuilder};
use crate::command::{Batch, Command, Numbering, Op, RequestBuilder};
use crate::id::{InstanceId, SessionId};
use crate::source::{Comparison, Differs, Standing};

impl Conversation {
    /// The answer to an Attach has come: this process owns the session, or the conversation now knows the owner.
    pub(super) fn on_standing(&mut self, index: usize, session: SessionId, standing: Standing) {
        let owner = self.source.as_ref().map(|process| process.owner);
        let lane = &mut self.lanes[index];
        lane.owner = standing.owner;
        if owner != Some(standing.owner) {
            lane.session = LaneSession::Detached(session);
            return;
        }
        lane.done = Comparison::new(standing, lane.next);
        lane.session = LaneSession::Attached(session);
    }

    /// Takes commands that are done out of the requests that wait to be sent.
    pub(super) fn compare(&mut self, index: usize) {
        loop {
            let lane = &mut self.lanes[index];
            let LaneSession::Attached(session) = lane.session else { return };
            if lane.stopped.is_some() || lane.next >= lane.done.low() || lane.writes.is_empty() {
                return;
            }
            let pending = lane.writes.take().expect("it is not empty");
            self.compare_request(index, session, pending);
        }
    }

    fn compare_request(&mut self, index: usize, session: SessionId, mut pending: Pending) {
        let lane = &mut self.lanes[index];
        let (first, low) = (pending.begins_at.unwrap_or(lane.next), lane.done.low());
        let payload = pending.builder.encode(session, Numbering::at(first));
        let batch = Batch::parse(payload, 0, |_| ()).expect("the conversation encodes valid requests");
        let part = &batch.parts()[0];
        let end = first + part.numbers;
        let (mut done, mut rest) = (Done::default(), Rest::new(pending.builder));
        for (command, token) in batch.commands_of(part).zip(&pending.tokens) {
            if command.number < low {
                done.take(&command, *token);
            }
            rest.take(&command, *token, low);
        }
        let commands = batch.commands_of(part).filter(|command| command.number < low);
        if let Err(Differs { from, to }) = compare_all(&mut lane.done, commands, first, end.min(low)) {
            self.stop(index, from);
            return self.report(pending.tokens, pending.charge, Err(Error::OtherCommand { from, to }));
        }
        lane.next = end;
        if let Some(first) = rest.first {
            pending.charge.take(done.charge);
            let (builder, tokens) = (rest.builder, rest.tokens);
            lane.next = first;
            lane.writes.put_back(Pending { builder, tokens, begins_at: Some(first), ..pending });
        }
        let answers = Answers::parse(done.answers.encode()).expect("own responses are valid");
        self.report(done.tokens, done.charge, Ok(answers));
    }

    /// The lowest and the highest number that was submitted, is done, and could not be compared, because the source
    /// has decided more numbers than were submitted. The result is final once nothing more is submitted, since no
    /// further mark is reached then.
    pub fn uncompared(&self) -> Option<(u64, u64)> {
        let left = self.lanes.iter().filter_map(|lane| lane.done.left());
        left.reduce(|(from, to), (first, last)| (from.min(first), to.max(last)))
    }
}

/// Compares the commands of a request that are done; their numbers go from `first` to before `end`.
fn compare_all<'a>(
    done: &mut Comparison,
    commands: impl Iterator<Item = Command<'a>>,
    first: u64,
    end: u64,
) -> Result<(), Differs> {
    done.come_to(first.min(end))?;
    for command in commands.filter(|command| command.op != Op::Skip) {
        done.on_command(&command)?;
    }
    done.come_to(end)
}

/// The commands of a request that are done, and their answers.
#[derive(Default)]
struct Done {
    answers: ResponseBuilder,
    tokens: Vec<u64>,
    charge: Charge,
}

impl Done {
    fn take(&mut self, command: &Command<'_>, token: u64) {
        self.answers.plain(InstanceId::default(), self.tokens.len() as u32, &Answer::Duplicate);
        self.tokens.push(token);
        if command.op.has_key() {
            let expected = if command.op == Op::Delete { 0 } else { size_of::<u64>() };
            self.charge.add(Charge::of(command.key_value.len() + expected));
        }
    }
}

/// The commands of a request that are not done.
struct Rest {
    builder: RequestBuilder,
    tokens: Vec<u64>,
    /// The number of the first of these commands.
    first: Option<u64>,
}

impl Rest {
    fn new(builder: RequestBuilder) -> Rest {
        Rest { builder, tokens: Vec::new(), first: None }
    }

    fn take(&mut self, command: &Command<'_>, token: u64, low: u64) {
        let (from, end) = (command.number.max(low), command.number + command.run);
        if end <= from {
            return;
        }
        match command.op {
            Op::Skip => self.builder.skip(end - from),
            _ => add_again(&mut self.builder, command),
        }
        .expect("it fitted before");
        self.tokens.push(token);
        self.first.get_or_insert(from);
    }
}
