//! Why a replica gives no answers to a request: variants that programs act on, and their texts.

// The archived twins that rkyv derives have no documentation of their own.
#![allow(missing_docs)]

use rkyv::{Archive, Deserialize, Serialize};

/// Why a request has no answers.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// Too much is under way here. Nothing was proposed.
    #[error("overloaded ({reason}); nothing was proposed, try again in {retry_after_ms} ms")]
    Overloaded {
        /// When to try again.
        retry_after_ms: u32,
        /// Which limit was met.
        reason: Reason,
    },
    /// This replica takes no requests now. Nothing was proposed; another replica may take it.
    #[error("unavailable: {0}; nothing was proposed, ask another replica or try again later")]
    Unavailable(Reason),
    /// This replica has proposed the request and will not tell what becomes of it: it may be decided, or not.
    #[error("unavailable: {0}; what was proposed here may still be decided")]
    Unknown(Reason),
    /// The request is wrong and will never be taken.
    #[error("invalid: {why}")]
    Invalid {
        /// What is wrong.
        why: String,
    },
}

/// Why a replica takes no requests, or no writes.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Reason {
    /// Too few replicas reach each other.
    #[error("{linked} of {replicas} replicas reach each other here, {needed} are needed")]
    NoQuorum {
        /// The replicas that are reached, this one among them.
        linked: u8,
        /// All of the epoch.
        replicas: u8,
        /// A slow quorum.
        needed: u8,
    },
    /// The replica has just started, and it is not settled yet that its state is its newest one.
    #[error(
        "this replica has just started, and too few others have confirmed yet that its state is the newest"
    )]
    NotConfirmed,
    /// The replica lacks too much of what the others have executed.
    #[error("this replica was away and is catching up")]
    CatchingUp,
    /// The replica has installed the snapshot of a peer, and what became of its own proposals is not in it.
    #[error("this replica was behind and has taken over the state of others")]
    StateReplaced,
    /// The replica was told to stop.
    #[error("this replica is shutting down")]
    Stopping,
    /// The stream was opened at another replica, of which this one has not heard yet.
    #[error("this replica has not heard of the stream yet")]
    StreamUnknown,
    /// The log needs a file for which the disk has no room.
    #[error("its disk is full; make room on it")]
    DiskFull,
    /// A write does not end.
    #[error("its disk has not answered for {for_ms} ms")]
    DiskHung {
        /// For how long.
        for_ms: u32,
    },
    /// The log has reached its budget.
    #[error("the log holds {held_bytes} bytes of {budget_bytes} (`log_budget_mib`) until the next snapshot")]
    LogFull {
        /// What it holds.
        held_bytes: u64,
        /// What it may hold.
        budget_bytes: u64,
    },
    /// No more streams may be opened.
    #[error("{max} streams are open; idle ones end by themselves")]
    StreamsFull {
        /// As many as there may be.
        max: u32,
    },
    /// No more sources may come into being.
    #[error(
        "{max} sources are known here; end those that are done with: isonomy source list, isonomy source end NAME"
    )]
    SourcesFull {
        /// As many as there may be.
        max: u32,
    },
}
