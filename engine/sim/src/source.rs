//! A named source (S5): it numbers its commands, and whoever starts it again and submits the same
//! gets the same answers.

use crate::client::with_action;
use crate::history::{Op, Told};
use isonomy_wire::session::{Config, Session, SubmitError};
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;

const NAME: &str = "import";

/// What it has submitted and heard.
#[derive(Default)]
pub struct Source {
    /// By number the token of each command.
    submitted: BTreeMap<u64, u64>,
    /// A number has no answer: nothing goes on before it is started again.
    pub is_stopped: bool,
    /// Its process has heard something new. One that is always replaced before that gets nowhere.
    pub has_progressed: bool,
    /// A command was answered a second time.
    pub is_repeated: bool,
}

impl Source {
    /// Its first process.
    pub fn session(&self, config: Config) -> Session {
        Session::named(config, NAME, 1)
    }

    /// Submits a command under the next number, or one a little later.
    pub fn submit(&mut self, session: &mut Session, now: u64, op: &Op, random: &mut SmallRng) {
        let last = self.submitted.keys().next_back().copied().unwrap_or(0);
        let number = last + random.random_range(1..4);
        self.submitted.insert(number, op.token);
        self.offer(session, now, number, op);
    }

    fn offer(&mut self, session: &mut Session, now: u64, number: u64, op: &Op) {
        let submitted = with_action(op, |action| session.submit_numbered(now, number, action, op.token));
        match submitted {
            Ok(()) => {}
            Err(SubmitError::Stopped(_)) => self.is_stopped = true,
            Err(error) => panic!("number {number} is not taken: {error:?}"),
        }
    }

    /// Another process, from the first number without an answer on.
    pub fn again(&mut self, config: Config, now: u64, ops: &[Op]) -> Session {
        (self.is_stopped, self.has_progressed) = (false, false);
        let is_open = |(_, token): &(&u64, &u64)| ops[**token as usize].told.is_none();
        let first = self.submitted.iter().find(is_open).map(|(number, _)| *number);
        let next = first.unwrap_or_else(|| self.submitted.keys().next_back().map_or(1, |last| last + 1));
        let mut session = Session::named(config, NAME, next);
        let later: Vec<(u64, u64)> =
            self.submitted.range(next..).map(|(number, token)| (*number, *token)).collect();
        for (number, token) in later {
            self.offer(&mut session, now, number, &ops[token as usize]);
        }
        session
    }

    /// An outcome. What was answered is answered the same again; what failed is asked again.
    pub fn collect(&mut self, now: u64, op: &mut Op, told: Told) {
        match (op.told, told) {
            (_, Told::Nothing) => self.is_stopped = true,
            (None, Told::Unknown) => self.is_stopped = true,
            (None, _) => (op.told, self.has_progressed) = (Some((now, told)), true),
            (Some(_), Told::Unknown) => {}
            (Some((_, first)), _) => {
                assert_eq!(first, told, "S5: {op:?} was answered otherwise before");
                self.is_repeated = true;
            }
        }
    }
}
