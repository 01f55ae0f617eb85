//! Random losses, retries and timeouts against the model: each command happens at most once, those of a key in their
//! order, and its submitter hears its outcome exactly once.

use super::model::Model;
use super::*;
use crate::answer::{Answer, Answers};
use crate::failure::{Failure, Reason};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// The number of members at first, and the most that there ever are.
const REPLICAS: u8 = 3;
const REPLICAS_MOST: u8 = 5;
const SHARDS: u16 = 2;
/// How often a test calls the conversation: so often that the conversation does not believe that it stood still.
const LOOK_US: u64 = 400_000;

#[derive(Clone, Debug)]
enum Step {
    Submit {
        key: u8,
        read: bool,
    },
    Send,
    /// The copy at this place arrives and is executed; its response may be lost.
    Execute {
        place: usize,
        answered: bool,
    },
    /// The copy is lost on the way.
    Lose {
        place: usize,
    },
    Refuse {
        place: usize,
        overloaded: bool,
    },
    /// All requests under way are refused, and so are their next copies: no replica takes anything.
    RefuseAll {
        rounds: u8,
    },
    /// A part of an answer comes.
    Hear {
        replica: u8,
    },
    Connect {
        replica: u8,
    },
    Disconnect {
        replica: u8,
    },
    /// The replica's connections make room for others.
    Yield {
        replica: u8,
    },
    EndSessions,
    /// The epoch ends. The copies whose bits are set are executed in it, and the others are void.
    Change {
        replicas: u8,
        executed: u64,
    },
    /// An answer of an earlier epoch comes.
    Late {
        place: usize,
    },
    Pass {
        millis: u16,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<u8>(), prop::bool::weighted(0.1)).prop_map(|(key, read)| Step::Submit { key, read }),
        6 => Just(Step::Send),
        8 => (any::<usize>(), prop::bool::weighted(0.8))
            .prop_map(|(place, answered)| Step::Execute { place, answered }),
        1 => any::<usize>().prop_map(|place| Step::Lose { place }),
        1 => (any::<usize>(), any::<bool>())
            .prop_map(|(place, overloaded)| Step::Refuse { place, overloaded }),
        1 => (1u8..6).prop_map(|rounds| Step::RefuseAll { rounds }),
        1 => (0..REPLICAS_MOST).prop_map(|replica| Step::Hear { replica }),
        4 => (0..REPLICAS_MOST).prop_map(|replica| Step::Connect { replica }),
        1 => (0..REPLICAS_MOST).prop_map(|replica| Step::Disconnect { replica }),
        1 => (0..REPLICAS_MOST).prop_map(|replica| Step::Yield { replica }),
        1 => (1..=REPLICAS_MOST, any::<u64>())
            .prop_map(|(replicas, executed)| Step::Change { replicas, executed }),
        1 => any::<usize>().prop_map(|place| Step::Late { place }),
        1 => prop::bool::weighted(0.2).prop_map(|end| if end { Step::EndSessions } else { Step::Send }),
        2 => (0u16..3000).prop_map(|millis| Step::Pass { millis }),
    ]
}

struct World {
    conversation: Conversation,
    shards: Vec<Model>,
    replicas: u8,
    now: u64,
    tokens: u64,
    /// Copies on their way, in no order.
    copies: Vec<Transmit>,
    /// The answers of earlier epochs that have not come, with the tags of their requests.
    late: Vec<(u64, Bytes)>,
    outcomes: BTreeMap<u64, Result<Answer, Error>>,
}

impl World {
    fn new() -> World {
        let mut config = Config::new(REPLICAS, SHARDS);
        (config.frame_commands, config.frames_in_flight) = (3, 4);
        World {
            conversation: Conversation::new(config),
            shards: (0..SHARDS).map(|shard| Model::new(ShardId(shard))).collect(),
            replicas: REPLICAS,
            now: 1,
            tokens: 0,
            copies: Vec::new(),
            late: Vec::new(),
            outcomes: BTreeMap::new(),
        }
    }

    /// Acts on all connections to the replica, if the epoch has it.
    fn each_link(&mut self, replica: u8, mut act: impl FnMut(&mut Conversation, ReplicaId, ShardId)) {
        let shards = (0..SHARDS).filter(|_| replica < self.replicas);
        shards.for_each(|shard| act(&mut self.conversation, ReplicaId(replica), ShardId(shard)));
    }

    fn execute(&mut self, copy: &Transmit) -> Bytes {
        self.shards[usize::from(copy.shard.0)].execute(&copy.payload)
    }

    fn take(&mut self, place: usize) -> Option<Transmit> {
        let count = self.copies.len();
        (count > 0).then(|| self.copies.swap_remove(place % count))
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Submit { key, read } => {
                let value = self.tokens.to_le_bytes();
                let key = &[key % 16];
                let action = if read { Action::Read { key } } else { Action::Decide { key, value: &value } };
                self.conversation.submit(self.now, &action, self.tokens).unwrap();
                self.tokens += 1;
            }
            Step::Send => {
                while let Some(transmit) = self.conversation.poll_transmit(self.now) {
                    self.copies.push(transmit);
                }
                while let Some((replica, shard)) = self.conversation.poll_wake() {
                    self.conversation.on_connected(replica, shard);
                }
            }
            Step::Execute { place, answered } => {
                let Some(copy) = self.take(place) else { return };
                let response = self.execute(&copy);
                if answered {
                    let answers = Answers::parse(response).unwrap();
                    self.conversation.on_response(copy.replica, copy.tag, answers).unwrap();
                }
            }
            Step::Lose { place } => drop(self.take(place)),
            Step::Refuse { place, overloaded } => {
                let Some(copy) = self.take(place) else { return };
                let failure = if overloaded {
                    Failure::Overloaded { retry_after_ms: 30, reason: Reason::Stopping }
                } else {
                    Failure::Unavailable(Reason::Stopping)
                };
                self.conversation.on_failure(self.now, copy.replica, copy.tag, failure);
            }
            Step::RefuseAll { rounds } => {
                for _ in 0..rounds {
                    self.step(Step::Send);
                    (0..self.copies.len())
                        .for_each(|_| self.step(Step::Refuse { place: 0, overloaded: true }));
                }
            }
            Step::Hear { replica } => self.each_link(replica, Conversation::on_heard),
            Step::Connect { replica } => self.each_link(replica, Conversation::on_connected),
            Step::Disconnect { replica } => self.each_link(replica, Conversation::on_disconnected),
            Step::Yield { replica } => self.each_link(replica, Conversation::on_yielded),
            Step::Change { replicas, executed } => self.change(replicas, executed),
            Step::Late { place } => {
                let count = self.late.len();
                if count > 0 {
                    let (tag, response) = self.late.swap_remove(place % count);
                    let answers = Answers::parse(response).unwrap();
                    self.conversation.on_late_response(tag, answers).unwrap();
                }
            }
            Step::EndSessions => self.shards.iter_mut().for_each(Model::end_all),
            Step::Pass { millis } => {
                let until = self.now + 1000 * u64::from(millis);
                while self.now < until {
                    self.now = until.min(self.now + LOOK_US);
                    self.conversation.on_timeout(self.now);
                    self.lose_dead();
                }
            }
        }
        self.collect();
    }

    /// Another epoch begins.
    fn change(&mut self, replicas: u8, executed: u64) {
        for (place, copy) in std::mem::take(&mut self.copies).into_iter().enumerate() {
            if executed >> (place % 64) & 1 == 1 {
                let response = self.execute(&copy);
                self.late.push((copy.tag, response));
            }
        }
        self.shards.iter_mut().for_each(Model::begin_epoch);
        self.replicas = replicas;
        self.conversation.on_members_changed(replicas);
    }

    /// A connection that is made anew loses the requests that were sent on it before, and their answers.
    fn lose_dead(&mut self) {
        while let Some((replica, shard)) = self.conversation.poll_reset() {
            self.copies.retain(|copy| (copy.replica, copy.shard) != (replica, shard));
            self.conversation.on_disconnected(replica, shard);
            self.conversation.on_connected(replica, shard);
        }
    }

    fn collect(&mut self) {
        while let Some(outcome) = self.conversation.poll_outcome() {
            for (token, answer) in outcome.each() {
                assert!(self.outcomes.insert(token, answer).is_none(), "token {token} came twice");
            }
            self.conversation.recycle(outcome);
        }
    }

    /// All replicas work again, and the conversation closes.
    fn heal(&mut self) {
        (0..self.replicas).for_each(|replica| self.step(Step::Connect { replica }));
        self.conversation.close();
        for round in 0.. {
            assert!(round < 100, "it never closes: {:?}", self.conversation);
            if self.conversation.is_closed() {
                return;
            }
            self.step(Step::Send);
            while !self.copies.is_empty() {
                self.step(Step::Execute { place: 0, answered: true });
            }
            self.step(Step::Pass { millis: 1000 });
        }
    }

    fn times_decided(&self, token: u64) -> u32 {
        let value = &token.to_le_bytes()[..];
        self.shards.iter().filter_map(|shard| shard.decided.get(value)).sum()
    }
}

fn token_of(value: &[u8]) -> u64 {
    u64::from_le_bytes(value.try_into().expect("a token is 8 bytes"))
}

proptest! {
    #[test]
    fn each_command_happens_at_most_once_and_is_told_once(
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut world = World::new();
        (0..REPLICAS).for_each(|replica| world.step(Step::Connect { replica }));
        steps.into_iter().for_each(|step| world.step(step));
        world.heal();
        prop_assert_eq!(world.outcomes.len() as u64, world.tokens);
        for (token, answer) in &world.outcomes {
            let times = world.times_decided(*token);
            match answer {
                Ok(Answer::Committed { .. }) => prop_assert_eq!(times, 1, "{}", token),
                Ok(Answer::Found { .. } | Answer::Missing) | Err(Error::NotTaken { .. }) => {
                    prop_assert_eq!(times, 0, "{}", token);
                }
                Err(Error::TimedOut | Error::Expired) => prop_assert!(times <= 1, "{}", token),
                other => prop_assert!(false, "{}: {:?}", token, other),
            }
        }
        // S2: tokens ascend, and so do their effects on a key.
        for (key, order) in world.shards.iter().flat_map(|shard| &shard.orders) {
            let tokens: Vec<u64> = order.iter().map(|value| token_of(value)).collect();
            prop_assert!(tokens.is_sorted(), "key {:?}: {:?}", key, tokens);
        }
    }
}
