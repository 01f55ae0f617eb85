//! A client: the production conversation, and the commands that it asks.

use crate::history::{Asked, Op, Told};
use crate::keyed::Keyed;
use crate::plan::Plan;
use crate::source::{Predecessor, Source};
use isonomy_wire::answer::Answer;
use isonomy_wire::conversation::{Action, Config, Conversation, Error};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// The most commands that a client has under way at once.
const OUTSTANDING_MAX: usize = 8;
/// The digits of a long key, which make it longer than the 64 bytes that lie inline.
const LONG_KEY_DIGITS: usize = 70;
/// The number of keys that are deleted now and then. They come behind the keys that are not.
const MORTAL_KEYS: usize = 2;

/// How often nobody could tell the outcome of a command, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Untold {
    /// No answer came in time.
    pub timed_out: u64,
    /// The session had ended before.
    pub expired: u64,
    /// The command was executed, and its answer was not kept.
    pub duplicate: u64,
}

impl Untold {
    fn count(&mut self, answer: &Result<Answer, Error>) {
        match answer {
            Err(Error::TimedOut) => self.timed_out += 1,
            Err(Error::Expired) | Ok(Answer::Expired) => self.expired += 1,
            Ok(Answer::Duplicate) => self.duplicate += 1,
            _ => {}
        }
    }

    /// Adds the counts of another client or run.
    pub fn add(&mut self, other: Untold) {
        self.timed_out += other.timed_out;
        self.expired += other.expired;
        self.duplicate += other.duplicate;
    }

    /// The sum of all counts.
    pub fn all(&self) -> u64 {
        self.timed_out + self.expired + self.duplicate
    }
}

/// The further course of a client that may begin anew.
pub enum Fresh {
    /// The client goes on.
    No,
    /// The client has another conversation, and no connections.
    Process,
    /// The client has another conversation and no connections, and its old process lives on beside it.
    Successor(Box<Client>),
}

/// A client: the production conversation, and the commands that it asks.
pub struct Client {
    /// The production code.
    pub conversation: Conversation,
    /// The connection to each replica, if there is one.
    pub connections: Vec<Option<u64>>,
    /// When the last request arrives at each replica to which one was sent.
    pub sent_until: Vec<u64>,
    /// When the client is woken next, if it is.
    pub wake_at: Option<u64>,
    index: usize,
    /// The source, if the client numbers its commands by itself.
    source: Option<Source>,
    /// The process of such a source, if another one has come after it.
    pub predecessor: Option<Predecessor>,
    /// The commands whose outcome nobody could tell the client, by reason.
    pub untold: Untold,
    /// The commands with idempotency keys.
    pub keyed: Keyed,
    /// Commands without an outcome.
    open: usize,
    /// The number of commands that are left to ask.
    left: usize,
    /// Whether the client ends its sessions, and comes back with another conversation.
    is_leaving: bool,
    random: SmallRng,
}

impl Client {
    /// A client with so many commands to ask.
    pub fn new(plan: &Plan, index: usize, commands: usize) -> Client {
        let mut source = (plan.source && index == 0).then(Source::default);
        let own = || Conversation::new(config(plan));
        Client {
            conversation: source.as_mut().map_or_else(own, |source| source.conversation(config(plan))),
            connections: vec![None; usize::from(plan.pool)],
            sent_until: vec![0; usize::from(plan.pool)],
            wake_at: None,
            index,
            source,
            predecessor: None,
            untold: Untold::default(),
            keyed: Keyed::new(plan, index),
            open: 0,
            left: commands,
            is_leaving: false,
            random: SmallRng::seed_from_u64(plan.seed ^ 0x636c_6965 ^ (index as u64) << 40),
        }
    }

    /// Asks the next command, if there is one and not too many are under way, and adds it to `ops`. Returns when the
    /// client wants to ask again, if it does.
    pub fn act(&mut self, plan: &Plan, now: u64, ops: &mut Vec<Op>) -> Option<u64> {
        if now >= plan.ask_until_us {
            self.left = 0;
        }
        let is_ready = !self.is_stopped() && !self.is_leaving;
        if self.left > 0 && self.conversation.outstanding() < OUTSTANDING_MAX && is_ready {
            self.left -= 1;
            let (key, what) = self.choose(plan);
            self.ask(plan, now, ops, key, what);
        }
        let pause = self.random.random_range(plan.think_us / 2..=plan.think_us * 2);
        // A source looks after its commands until all are answered.
        let goes_on = self.left > 0 || (self.source.is_some() && !self.is_done());
        goes_on.then_some(now + pause)
    }

    /// Chooses the next command. A source asks for decisions only.
    fn choose(&mut self, plan: &Plan) -> (usize, Asked) {
        let key = self.random.random_range(0..plan.keys);
        let reads = self.random.random_bool(plan.reads) && self.source.is_none();
        let expected = self.random.random_bool(plan.conditional).then(|| self.random.random_range(0..4));
        let what = if reads { Asked::Read } else { expected.map_or(Asked::Decide, Asked::DecideIf) };
        if plan.deletes == 0.0 || self.random.random_bool(0.5) {
            return (key, what);
        }
        let deletes = self.random.random_bool(plan.deletes) && self.source.is_none();
        (plan.keys + key % MORTAL_KEYS, if deletes { Asked::Delete } else { what })
    }

    /// Asks this command.
    pub fn ask(&mut self, plan: &Plan, now: u64, ops: &mut Vec<Op>, key: usize, what: Asked) {
        let token = ops.len() as u64;
        let padding = if plan.value_bytes > 0 { self.random.random_range(0..plan.value_bytes) } else { 0 };
        let is_keyed = self.source.is_none() && what != Asked::Read && self.keyed.takes(token);
        let op = Op { token, client: self.index, key, what, asked: now, told: None, padding, is_keyed };
        ops.push(op);
        self.open += 1;
        match &mut self.source {
            None if is_keyed => {
                self.keyed.submit(&mut self.conversation, now, &op, token);
            }
            None => with_action(&op, |action| {
                self.conversation.submit(now, action, token).expect("it is not full")
            }),
            Some(source) => source.submit(&mut self.conversation, now, &op, &mut self.random),
        }
    }

    /// Whether the client numbers its commands by itself.
    pub fn is_source(&self) -> bool {
        self.source.is_some()
    }

    /// Whether a number of the source has no answer, and it must be started again.
    fn is_stopped(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.is_stopped)
    }

    /// Whether a process that submitted something else under a source's numbers was found out.
    pub fn is_found_out(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.is_found_out)
    }

    /// Whether a source was told that a number was done before.
    pub fn is_repeated(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.is_repeated)
    }

    /// Starts a source again, if it has stopped or just likes to. The new process submits again the commands for
    /// which its predecessor has no answer, and all that came after. A predecessor that has not stopped may live on.
    pub fn restart(&mut self, plan: &Plan, now: u64, ops: &[Op]) -> Fresh {
        let Some(source) = &mut self.source else { return self.come_back(plan) };
        let likes_to = self.left > 0 && source.has_progressed && self.random.random_bool(0.1);
        if !source.is_stopped && !likes_to {
            return Fresh::No;
        }
        let lives_on = !source.is_stopped && self.random.random_bool(0.5);
        let next = source.again(config(plan), now, ops, &mut self.random);
        let before = std::mem::replace(&mut self.conversation, next);
        if !lives_on {
            return Fresh::Process;
        }
        let mut old = Client::new(&Plan { source: false, ..plan.clone() }, self.index, 0);
        old.conversation = before;
        old.connections.clone_from(&self.connections);
        old.sent_until.clone_from(&self.sent_until);
        old.predecessor = Some(Predecessor::default());
        Fresh::Successor(Box::new(old))
    }

    /// A client that likes to leave ends its conversation, and begins another one when that has ended.
    fn come_back(&mut self, plan: &Plan) -> Fresh {
        if !self.is_leaving && self.left > 0 && self.random.random_bool(plan.leaves) {
            self.is_leaving = true;
            self.conversation.close();
        }
        if !self.is_leaving || !self.conversation.is_closed() {
            return Fresh::No;
        }
        self.is_leaving = false;
        self.conversation = Conversation::new(config(plan));
        Fresh::Process
    }

    /// Whether the present process of a source has heard something. From then on it is the only process.
    pub fn has_progressed(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.has_progressed)
    }

    /// Whether the client has asked everything and heard all outcomes.
    pub fn is_done(&self) -> bool {
        self.left == 0 && self.conversation.outstanding() == 0 && !self.is_stopped()
    }

    /// Notes what the conversation has learnt.
    pub fn collect(&mut self, now: u64, ops: &mut [Op]) {
        if let Some(predecessor) = &mut self.predecessor {
            while let Some(outcome) = self.conversation.poll_outcome() {
                outcome.each().for_each(|(token, answer)| predecessor.collect(now, token, answer, ops));
                self.conversation.recycle(outcome);
            }
            return;
        }
        while let Some(outcome) = self.conversation.poll_outcome() {
            for (token, answer) in outcome.each() {
                if self.source.as_mut().is_some_and(|source| source.collect_impostor(&answer)) {
                    continue;
                }
                let Some((token, answer)) =
                    self.keyed.collect(&mut self.conversation, &mut self.open, now, token, answer, ops)
                else {
                    continue;
                };
                let is_done = answer == Ok(Answer::Duplicate);
                // A source that was started again hears in this way of numbers that are done.
                if !is_done || self.source.is_none() {
                    self.untold.count(&answer);
                }
                let (op, told) = (&mut ops[token as usize], told(answer));
                match &mut self.source {
                    Some(source) if is_done => source.collect_done(now, op),
                    Some(source) => source.collect(now, op, told),
                    None => {
                        assert!(op.told.is_none(), "{op:?} has a second outcome");
                        op.told = Some((now, told));
                        self.open -= 1;
                    }
                }
            }
            self.conversation.recycle(outcome);
        }
        let is_counted = self.source.is_some() || self.open == self.conversation.outstanding();
        assert!(
            is_counted,
            "{} commands are open, and {} counted",
            self.open,
            self.conversation.outstanding()
        );
    }
}

fn config(plan: &Plan) -> Config {
    let mut config = Config::new(plan.pool, 1);
    (config.routing, config.retry_us, config.deadline_us) = (plan.routing, plan.retry_us, plan.deadline_us);
    (config.frame_commands, config.frames_in_flight) = (3, 4);
    config
}

/// The command of an op, as the conversation takes it.
pub fn with_action<T>(op: &Op, submit: impl FnOnce(&Action<'_>) -> T) -> T {
    // Some keys are too long to lie beside their value in the state.
    let digits = if op.key % 3 == 2 { LONG_KEY_DIGITS } else { 1 };
    let (key, mut value) = (format!("key {:0digits$}", op.key), op.token.to_le_bytes().to_vec());
    value.resize(value.len() + op.padding, padding_of(op.token));
    let (key, value) = (key.as_bytes(), &value[..]);
    submit(&match op.what {
        Asked::Decide => Action::Decide { key, value },
        Asked::DecideIf(expected) => Action::DecideIf { key, value, expected },
        Asked::Read => Action::Read { key },
        Asked::Delete => Action::Delete { key },
    })
}

/// The byte that fills a value up behind its token.
fn padding_of(token: u64) -> u8 {
    token as u8 | 1
}

/// The effect of a command, as an outcome tells it.
pub fn told(answer: Result<Answer, Error>) -> Told {
    let token = |value: &[u8]| {
        let (token, padding) = value.split_first_chunk()?;
        let token = u64::from_le_bytes(*token);
        let is_whole = padding.iter().all(|byte| *byte == padding_of(token));
        assert!(is_whole, "the value of {token} has bytes of another");
        Some(token)
    };
    match answer {
        Ok(Answer::Committed { key_seq, .. }) => Told::Wrote(key_seq),
        Ok(Answer::Found { key_seq, value, .. }) => Told::Saw(key_seq, token(&value)),
        Ok(Answer::Rejected { key_seq, value }) => Told::Saw(key_seq, value.and_then(|value| token(&value))),
        Ok(Answer::Missing) => Told::Saw(0, None),
        Ok(Answer::Deleted { key_seq, .. }) => Told::Deleted(key_seq),
        Ok(Answer::Duplicate | Answer::Expired) | Err(Error::TimedOut | Error::Expired) => Told::Unknown,
        Err(Error::NotTaken { .. }) => Told::Nothing,
        other => panic!("no client can be told this: {other:?}"),
    }
}
