//! The commands of a client that have idempotency keys (S6): a command that has timed out is asked again, and some that were
//! answered are asked once more, to see that the answer is the first one.

use crate::client::{told, with_action};
use crate::history::Op;
use crate::plan::Plan;
use isonomy_wire::answer::Answer;
use isonomy_wire::conversation::{Conversation, Error, SubmitError};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;

/// Marks the token of a command that was answered before.
const ECHO: u64 = 1 << 62;
/// The share of answered commands that are asked once more.
const ECHOES: f64 = 0.3;
/// How often a command that has timed out is asked again.
const AGAIN_MAX: u32 = 3;

/// The commands with idempotency keys.
pub struct Keyed {
    share: f64,
    /// How often each command was asked again.
    asked_again: BTreeMap<u64, u32>,
    random: SmallRng,
    /// A command was asked once more, and had its first answer.
    pub is_echoed: bool,
    /// A command that had timed out has an answer.
    pub is_settled: bool,
}

impl Keyed {
    /// The commands of this client.
    pub fn new(plan: &Plan, index: usize) -> Keyed {
        let random = SmallRng::seed_from_u64(plan.seed ^ 0x6563_686f ^ (index as u64) << 40);
        Keyed { share: plan.keyed, asked_again: BTreeMap::new(), random, is_echoed: false, is_settled: false }
    }

    /// Whether the command is to have an idempotency key.
    pub fn takes(&mut self, token: u64) -> bool {
        let takes = self.share > 0.0 && self.random.random_bool(self.share);
        if takes {
            self.asked_again.insert(token, 0);
        }
        takes
    }

    /// Asks the command for the first time.
    pub fn submit(&self, conversation: &mut Conversation, now: u64, op: &Op, token: u64) {
        self.offer(conversation, now, op, token).expect("it is not full");
    }

    fn offer(
        &self,
        conversation: &mut Conversation,
        now: u64,
        op: &Op,
        token: u64,
    ) -> Result<(), SubmitError> {
        let idempotency_key = op.token.to_le_bytes();
        with_action(op, |action| conversation.submit_keyed(now, &idempotency_key, action, token))
    }

    /// Looks at the outcome of a command before the client does. Returns the outcome that the client is to note, if it is to
    /// note one.
    pub fn collect(
        &mut self,
        conversation: &mut Conversation,
        open: &mut usize,
        now: u64,
        token: u64,
        answer: Result<Answer, Error>,
        ops: &[Op],
    ) -> Option<(u64, Result<Answer, Error>)> {
        let op = &ops[(token & !ECHO) as usize];
        let Some(asked_again) = self.asked_again.get_mut(&op.token) else { return Some((token, answer)) };
        if token & ECHO != 0 {
            *open -= 1;
            if answer.is_ok() {
                assert_eq!(Some(told(answer)), op.told.map(|(_, told)| told), "{op:?} has two answers");
                self.is_echoed = true;
            }
            return None;
        }
        match &answer {
            Err(Error::TimedOut) if *asked_again < AGAIN_MAX => {
                *asked_again += 1;
                if self.offer(conversation, now, op, token).is_ok() {
                    return None;
                }
                Some((token, answer))
            }
            // This time it was not taken, but it had timed out before.
            Err(Error::NotTaken { .. }) if *asked_again > 0 => Some((token, Err(Error::TimedOut))),
            Err(_) => Some((token, answer)),
            Ok(_) => {
                self.is_settled |= *asked_again > 0;
                if self.random.random_bool(ECHOES) && self.offer(conversation, now, op, token | ECHO).is_ok()
                {
                    *open += 1;
                }
                Some((token, answer))
            }
        }
    }
}
