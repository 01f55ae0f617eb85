//! The outcomes of commands, as their client sees them.

use crate::answer::{Answer, Answers};
use crate::command::Invalid;
use crate::failure::Failure;
use crate::id::{ReplicaId, ShardId};

/// The token of skipped numbers and of reads that are asked again; no command may have it.
pub const NO_TOKEN: u64 = u64::MAX;

/// The outcome of the commands of one request frame.
#[derive(Debug)]
pub struct Outcome {
    /// The tokens of the commands, in the order of the answers; [`NO_TOKEN`] for
    /// skipped numbers and for reads whose outcome comes later.
    pub tokens: Vec<u64>,
    /// The answers, or the reason why there are none.
    pub result: Result<Answers, Error>,
    /// The charge of the frame against the conversation's bounds.
    pub(super) charge: Charge,
}

impl Outcome {
    /// Iterates over the token and the answer of each command.
    pub fn each(&self) -> impl Iterator<Item = (u64, Result<Answer, Error>)> {
        let answers = self.result.as_ref().map(Answers::to_vec);
        let (mut answers, error) = match answers {
            Ok(answers) => (answers.into_iter(), None),
            Err(error) => (Vec::new().into_iter(), Some(error)),
        };
        self.tokens.iter().filter_map(move |token| {
            let answer = match error {
                None => Ok(answers.next().expect("counted when it arrived")),
                Some(error) => Err(error.clone()),
            };
            (*token != NO_TOKEN).then_some((*token, answer))
        })
    }
}

/// The charge of commands against the bounds of a conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Charge {
    pub(super) commands: usize,
    pub(super) bytes: usize,
}

/// The bytes that a command counts besides its key and value.
const COMMAND_OVERHEAD_BYTES: usize = 32;

impl Charge {
    pub(super) fn of(bytes: usize) -> Charge {
        Charge { commands: 1, bytes: bytes + COMMAND_OVERHEAD_BYTES }
    }

    pub(super) fn add(&mut self, other: Charge) {
        self.commands += other.commands;
        self.bytes += other.bytes;
    }

    pub(super) fn take(&mut self, other: Charge) {
        self.commands -= other.commands;
        self.bytes -= other.bytes;
    }
}

/// Why no replica took a command. The command certainly has no effect.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotTaken {
    /// An earlier number of the source has no answer.
    #[error("number {0}, an earlier number of the source, has no answer")]
    Behind(u64),
    /// No replica is connected for this shard.
    #[error("no replica is connected for shard {}", .0.0)]
    Unconnected(ShardId),
    /// The replicas that were asked refused the command; this is the last refusal.
    #[error("replica {replica} is {failure}")]
    Refused {
        /// The replica that refused last.
        replica: ReplicaId,
        /// The replica's reason.
        failure: Failure,
    },
    /// No replica answered at all.
    #[error("the replicas do not answer")]
    Silent,
}

fn listed(troubles: &[String]) -> String {
    if troubles.is_empty() { String::new() } else { format!(" ({})", troubles.join("; ")) }
}

/// Why commands have no answers.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// The command was sent and not answered before the deadline. It may have an effect.
    #[error(
        "no answer came in time: the command may have been decided, or may still be; read the key to find out, \
         or repeat the command if it may safely happen twice"
    )]
    TimedOut,
    /// No replica took the command before the deadline. The command certainly has no effect.
    #[error(
        "no replica took the command in time, and nothing was decided: {why}{}; submit the command again, \
         which is safe",
        listed(troubles)
    )]
    NotTaken {
        /// The reason.
        why: NotTaken,
        /// The errors of the last tries to connect to replicas that are not connected, where they are known.
        troubles: Vec<String>,
    },
    /// The command was sent more than once, and its session has ended in between. It may have an effect.
    #[error(
        "the session of the command has ended, so the outcome of earlier tries is unknown; read the key to \
         find out, or repeat the command if it may safely happen twice"
    )]
    Expired,
    /// A replica refused the command as invalid, for this reason.
    #[error("a replica refused the request: {0}")]
    Invalid(String),
    /// The numbers of a source are done, and at least one of them was another command.
    #[error(
        "{} under this source before, and this command was not decided; a number of a source stands for one \
         command for ever: use another name for other input",
        was_another(*from, *to)
    )]
    OtherCommand {
        /// The lowest number that may have been another command.
        from: u64,
        /// The highest such number.
        to: u64,
    },
    /// The idempotency key stands for another command, which was executed before. This command has no effect.
    #[error(
        "the idempotency key was used for another command before, and this command was not decided; use another \
         idempotency key for another command"
    )]
    KeyReused,
    /// Another process has attached to the source. The command may have an effect.
    #[error(
        "another process has taken the source over, and commands under way may have been decided; let one \
         process at a time use a source"
    )]
    Fenced,
}

fn was_another(from: u64, to: u64) -> String {
    if from == to {
        return format!("number {from} was another command");
    }
    format!("one of the numbers {from} to {to} was another command")
}

impl Error {
    /// The error as one word, for tables and machine-readable output.
    pub fn name(&self) -> &'static str {
        match self {
            Error::TimedOut => "timed_out",
            Error::NotTaken { .. } => "not_taken",
            Error::Expired => "expired",
            Error::Invalid(_) => "invalid",
            Error::OtherCommand { .. } => "other_command",
            Error::KeyReused => "key_reused",
            Error::Fenced => "fenced",
        }
    }
}

/// Why a command was not accepted. The command has no effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SubmitError {
    /// The command breaks a limit.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The conversation has reached its bound on outstanding commands.
    #[error("too many commands are outstanding; submit the command again after the next outcome")]
    Full,
    /// The conversation was told to close.
    #[error("the conversation is closed; open another")]
    Closed,
    /// The number does not ascend, as the numbers of a named source must.
    #[error(
        "number {number} is not above the numbers submitted before; submit numbers in ascending order, from \
         {next} on"
    )]
    Order {
        /// The number that was submitted.
        number: u64,
        /// The lowest number that can be submitted.
        next: u64,
    },
    /// An earlier number of a named source failed.
    #[error("number {0} has no answer, so the source has stopped; start the source again from that number")]
    Stopped(u64),
}
