//! A client: the production session, and what it asks.

use crate::history::{Op, Told};
use crate::plan::Plan;
use isonomy_wire::answer::Answer;
use isonomy_wire::session::{Action, Config, Error, Session};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Commands that a client has under way at once.
const OUTSTANDING_MAX: usize = 8;

/// See the module.
pub struct Client {
    /// The production code.
    pub session: Session,
    /// The connection to each replica, if there is one.
    pub connections: Vec<Option<u64>>,
    /// When it is woken next, if it is.
    pub wake_at: Option<u64>,
    /// Commands that it has still to ask.
    left: usize,
    random: SmallRng,
}

impl Client {
    /// A client with so many commands to ask.
    pub fn new(plan: &Plan, index: usize, commands: usize) -> Client {
        let mut config = Config::new(plan.n, 1);
        (config.routing, config.retry_us, config.deadline_us) =
            (plan.routing, plan.retry_us, plan.deadline_us);
        (config.frame_commands, config.frames_in_flight) = (3, 4);
        Client {
            session: Session::new(config),
            connections: vec![None; usize::from(plan.n)],
            wake_at: None,
            left: commands,
            random: SmallRng::seed_from_u64(plan.seed ^ 0x636c_6965 ^ (index as u64) << 40),
        }
    }

    /// Asks the next command, if it has one and does not wait for too many; it is added to `ops`.
    /// When it wants to ask again, if it does.
    pub fn act(&mut self, plan: &Plan, now: u64, ops: &mut Vec<Op>) -> Option<u64> {
        if now >= plan.ask_until_us {
            self.left = 0;
        }
        if self.left > 0 && self.session.outstanding() < OUTSTANDING_MAX {
            self.left -= 1;
            let key = self.random.random_range(0..plan.keys);
            let reads = self.random.random_bool(plan.reads);
            let expected = self.random.random_bool(plan.conditional).then(|| self.random.random_range(0..4));
            self.ask(now, ops, key, reads, expected);
        }
        let pause = self.random.random_range(plan.think_us / 2..=plan.think_us * 2);
        (self.left > 0).then_some(now + pause)
    }

    /// Asks this command.
    pub fn ask(&mut self, now: u64, ops: &mut Vec<Op>, key: usize, reads: bool, expected: Option<u64>) {
        let token = ops.len() as u64;
        let (key_bytes, value) = (format!("key {key}"), token.to_le_bytes());
        let (key_bytes, value) = (key_bytes.as_bytes(), &value[..]);
        let expected = expected.filter(|_| !reads);
        let action = match expected {
            _ if reads => Action::Read { key: key_bytes },
            Some(expected) => Action::DecideIf { key: key_bytes, value, expected },
            None => Action::Decide { key: key_bytes, value },
        };
        self.session.submit(now, &action, token).expect("it is not full");
        ops.push(Op { token, key, reads, expected, asked: now, told: None });
    }

    /// Whether it has asked and heard everything.
    pub fn is_done(&self) -> bool {
        self.left == 0 && self.session.outstanding() == 0
    }

    /// Notes what the session has learnt.
    pub fn collect(&mut self, now: u64, ops: &mut [Op]) {
        while let Some(outcome) = self.session.poll_outcome() {
            for (token, answer) in outcome.each() {
                let op = &mut ops[token as usize];
                assert!(op.told.is_none(), "{op:?} has a second outcome");
                op.told = Some((now, told(answer)));
            }
            self.session.recycle(outcome);
        }
    }
}

fn told(answer: Result<Answer, Error>) -> Told {
    let token = |value: &[u8]| value.try_into().ok().map(u64::from_le_bytes);
    match answer {
        Ok(Answer::Committed { key_seq, .. }) => Told::Wrote(key_seq),
        Ok(Answer::Found { key_seq, value, .. }) => Told::Saw(key_seq, token(&value)),
        Ok(Answer::Rejected { key_seq, value }) => Told::Saw(key_seq, value.and_then(|value| token(&value))),
        Ok(Answer::Missing) => Told::Saw(0, None),
        Ok(Answer::Duplicate | Answer::Expired) | Err(Error::TimedOut | Error::Expired) => Told::Unknown,
        Err(Error::NotTaken(_)) => Told::Nothing,
        other => panic!("no client can be told this: {other:?}"),
    }
}
