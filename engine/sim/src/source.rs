//! A named source (S5), which numbers its commands. Its processes follow one another; each takes the source over and
//! goes on where it stands. Now and then a process comes that submits something else under old numbers.

use crate::client::{told, with_action};
use crate::history::{Op, Told};
use isonomy_wire::answer::Answer;
use isonomy_wire::conversation::{Action, Config, Conversation, Error, SubmitError};
use isonomy_wire::source::Owner;
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;

const NAME: &str = "import";
/// How often a process comes that submits something else.
const IMPOSTORS: f64 = 0.15;
/// How often a process begins with the first number, and not with the first that has no answer.
const WHOLE: f64 = 0.3;

/// A number that no source reaches.
const FAR: u64 = 1 << 30;

/// A process that lives on and does not know that its successor has come.
#[derive(Default)]
pub struct Predecessor {
    has_tried: bool,
    /// Whether the process was told that another one owns the source.
    pub is_fenced: bool,
}

impl Predecessor {
    /// Submits something new once the successor has heard something: from then on nothing of this process may take
    /// effect. Returns whether it does that now.
    pub fn goes_on(&mut self, conversation: &mut Conversation, now: u64) -> bool {
        if std::mem::replace(&mut self.has_tried, true) {
            return false;
        }
        let action = Action::Decide { key: b"key 0", value: b"too late" };
        match conversation.submit_numbered(now, FAR, &action, FAR) {
            Ok(()) => true,
            Err(SubmitError::Stopped(_)) => false,
            Err(error) => panic!("number {FAR} is not taken: {error:?}"),
        }
    }

    /// Takes the outcome of a command that was under way, or that came too late.
    pub fn collect(&mut self, now: u64, token: u64, answer: Result<Answer, Error>, ops: &mut [Op]) {
        self.is_fenced |= answer == Err(Error::Fenced);
        let nothing = matches!(answer, Err(Error::Fenced | Error::TimedOut | Error::NotTaken { .. }));
        if nothing || answer == Ok(Answer::Duplicate) {
            return;
        }
        assert!(token != FAR, "S5: a process that has a successor is told {answer:?}");
        let (op, told) = (&mut ops[token as usize], told(answer));
        match op.told {
            None | Some((_, Told::Unknown)) => op.told = Some((now, told)),
            Some(_) => panic!("S5: {op:?} was done, and its predecessor is told {told:?}"),
        }
    }
}

/// The commands that a source has submitted, and what it has heard.
#[derive(Default)]
pub struct Source {
    /// The token of each command, by number.
    submitted: BTreeMap<u64, u64>,
    /// Whether a number has no answer: nothing goes on before the source is started again.
    pub is_stopped: bool,
    /// Whether the process has heard something new. A source whose processes are always replaced before that makes no
    /// progress.
    pub has_progressed: bool,
    /// Whether a process was told that a number was done before.
    pub is_repeated: bool,
    /// Whether a process that submitted something else was found out.
    pub is_found_out: bool,
    /// The number of processes so far.
    processes: u64,
    /// Whether the present process submits something else.
    is_impostor: bool,
}

impl Source {
    /// The conversation of the first process.
    pub fn conversation(&mut self, config: Config) -> Conversation {
        self.process(config, 1)
    }

    fn process(&mut self, config: Config, next: u64) -> Conversation {
        self.processes += 1;
        let name = NAME.parse().expect("it is a name");
        Conversation::named(config, &name, Owner(self.processes), next)
    }

    /// Submits a command under the next number, or one a little later.
    pub fn submit(&mut self, conversation: &mut Conversation, now: u64, op: &Op, random: &mut SmallRng) {
        let last = self.submitted.keys().next_back().copied().unwrap_or(0);
        let number = last + random.random_range(1..4);
        self.submitted.insert(number, op.token);
        self.offer(conversation, now, number, op);
    }

    fn offer(&mut self, conversation: &mut Conversation, now: u64, number: u64, op: &Op) {
        let submitted = with_action(op, |action| conversation.submit_numbered(now, number, action, op.token));
        match submitted {
            Ok(()) => {}
            Err(SubmitError::Stopped(_)) => self.is_stopped = true,
            Err(error) => panic!("number {number} is not taken: {error:?}"),
        }
    }

    /// Another process, which submits again the commands without an answer, and all that came after.
    pub fn again(&mut self, config: Config, now: u64, ops: &[Op], random: &mut SmallRng) -> Conversation {
        (self.is_stopped, self.has_progressed, self.is_impostor) = (false, false, false);
        let told = |token: &u64| ops[*token as usize].told.is_some();
        let first_told = self.submitted.iter().find(|(_, token)| told(token)).map(|(number, _)| *number);
        if let Some(number) = first_told.filter(|_| random.random_bool(IMPOSTORS)) {
            return self.impostor(config, now, number);
        }
        let first = self.submitted.iter().find(|(_, token)| !told(token)).map(|(number, _)| *number);
        let next = first.unwrap_or_else(|| self.submitted.keys().next_back().map_or(1, |last| last + 1));
        let next = if random.random_bool(WHOLE) { 1 } else { next };
        let mut conversation = self.process(config, next);
        let later: Vec<(u64, u64)> =
            self.submitted.range(next..).map(|(number, token)| (*number, *token)).collect();
        for (number, token) in later {
            self.offer(&mut conversation, now, number, &ops[token as usize]);
        }
        conversation
    }

    /// A process that submits something else under a number that is done.
    fn impostor(&mut self, config: Config, now: u64, number: u64) -> Conversation {
        self.is_impostor = true;
        let mut conversation = self.process(config, 1);
        let action = Action::Decide { key: b"key 0", value: b"something else" };
        conversation.submit_numbered(now, number, &action, 0).expect("it is empty");
        conversation
    }

    /// Whether the outcome is an impostor's, which decides nothing.
    pub fn collect_impostor(&mut self, outcome: &Result<Answer, Error>) -> bool {
        if self.is_impostor {
            match outcome {
                Err(Error::OtherCommand { .. }) => self.is_found_out = true,
                Err(Error::TimedOut | Error::NotTaken { .. }) => {}
                other => panic!("S5: something else was said, and told {other:?}"),
            }
            self.is_stopped = true;
        }
        self.is_impostor
    }

    /// The number was done before this process came, and nobody knows the answer any more.
    pub fn collect_done(&mut self, now: u64, op: &mut Op) {
        op.told = op.told.or(Some((now, Told::Unknown)));
        (self.has_progressed, self.is_repeated) = (true, true);
    }

    /// Takes an outcome. A command that failed is asked again; a command that is done was done once.
    pub fn collect(&mut self, now: u64, op: &mut Op, told: Told) {
        match (op.told, told) {
            (_, Told::Nothing) | (None, Told::Unknown) => self.is_stopped = true,
            (Some(_), Told::Unknown) => {}
            (None, _) => (op.told, self.has_progressed) = (Some((now, told)), true),
            (Some(_), _) => panic!("S5: {op:?} was done, and is told {told:?}"),
        }
    }
}
