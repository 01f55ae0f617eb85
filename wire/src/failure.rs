//! Why a replica gives no answers to a request: variants that programs act on, and their texts.

// The archived twins that rkyv derives have no documentation of their own.
#![allow(missing_docs)]

use crate::id::Epoch;
use rkyv::{Archive, Deserialize, Serialize};

/// Why a request has no answers.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// Too much is under way at the replica. Nothing was proposed.
    #[error("overloaded ({reason}); nothing was proposed; try again in {retry_after_ms} ms")]
    Overloaded {
        /// How long to wait before the next try, in milliseconds.
        retry_after_ms: u32,
        /// The limit that was reached.
        reason: Reason,
    },
    /// The replica takes no requests now. Nothing was proposed; another replica may take the request.
    #[error("unavailable: {0}; nothing was proposed; ask another replica or try again later")]
    Unavailable(Reason),
    /// The replica has proposed the request and will not report its outcome. The request may be decided or not.
    #[error(
        "unavailable: {0}; the request was proposed here and may still be decided; send it to another replica \
         under the same number"
    )]
    Unknown(Reason),
    /// The request is wrong and will never be taken.
    #[error("invalid: {why}")]
    Invalid {
        /// The reason.
        why: String,
    },
}

/// Why a replica takes no requests, or no writes.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Reason {
    /// Too few replicas reach each other.
    #[error("this replica reaches {linked} of {replicas} replicas, itself included, and {needed} are needed")]
    NoQuorum {
        /// The number of replicas that this one reaches, itself included.
        linked: u8,
        /// The number of replicas of the epoch.
        replicas: u8,
        /// The size of a slow quorum.
        needed: u8,
    },
    /// The replica has just started, and its peers have not confirmed yet that its state is its newest.
    #[error(
        "this replica has just started, and too few other replicas have confirmed yet that its state is the \
         newest"
    )]
    NotConfirmed,
    /// The replica lacks too many of the instances that the others have executed.
    #[error("this replica was away and is still catching up")]
    CatchingUp,
    /// The replica has installed the snapshot of a peer, which does not have the outcome of its own proposals.
    #[error("this replica was behind and has taken over the state of another replica")]
    StateReplaced,
    /// The epoch has ended (law, section 9), and the request was not executed in it.
    #[error("epoch {} has ended, and the members of the next one take requests as soon as it begins", epoch.0)]
    EpochEnded {
        /// The epoch.
        epoch: Epoch,
    },
    /// The replica was told to stop.
    #[error("this replica is shutting down")]
    Stopping,
    /// The session was opened at another replica, and this one has not heard of the session yet.
    #[error("this replica has not heard of the session yet")]
    SessionUnknown,
    /// The log needs a file for which the disk has no room.
    #[error("the disk of this replica is full; make room on that disk")]
    DiskFull,
    /// A write of the log does not end.
    #[error("the disk of this replica has not answered for {for_ms} ms")]
    DiskHung {
        /// How long the write has been under way, in milliseconds.
        for_ms: u32,
    },
    /// The log has reached its budget.
    #[error(
        "the log holds {held_bytes} of {budget_bytes} bytes (`log_budget_mib`) and takes no writes until the \
         next snapshot"
    )]
    LogFull {
        /// The bytes that the log holds.
        held_bytes: u64,
        /// The bytes that the log may hold.
        budget_bytes: u64,
    },
    /// Too much waits for publication.
    #[error(
        "{held_bytes} bytes of decisions wait for publication, and {budget_bytes} may (`publish.backlog_mib`); see \
         isonomy status"
    )]
    PublicationBehind {
        /// The bytes that wait.
        held_bytes: u64,
        /// The bytes that may wait.
        budget_bytes: u64,
    },
    /// No more sessions may be opened.
    #[error("{max} sessions are open, which is the limit; idle sessions end by themselves")]
    SessionsFull {
        /// The limit.
        max: u32,
    },
    /// No more sources may be created.
    #[error(
        "the shard knows {max} sources, which is the limit; end sources that are no longer used: isonomy \
         source list, isonomy source end NAME"
    )]
    SourcesFull {
        /// The limit.
        max: u32,
    },
    /// No more idempotency keys may be kept.
    #[error(
        "the shard keeps the answers of {keys} idempotency keys with {bytes} bytes, which is the limit; the oldest go an \
         hour after their last use"
    )]
    IdempotencyKeysFull {
        /// The number of keys.
        keys: u32,
        /// The bytes of their answers.
        bytes: u32,
    },
    /// The replica is a learner (law, section 9).
    #[error(
        "this replica is not a member yet; it copies the state, and takes requests once the change has ended"
    )]
    NotAMember,
}
