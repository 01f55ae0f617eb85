//! Steps of a publisher at which tests end or pause its process.
//!
//! `ISONOMY_FAILPOINT=STEP:COUNT:SIGNAL` sends the signal `kill` or `stop` to the own process when the step is reached for
//! the COUNT-th time. Without the feature `failpoints` nothing of that is compiled.

/// A step of a publisher.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Before the publisher fences the one before it.
    Init,
    /// Fenced, and the cursor is not read.
    Read,
    /// The cursor is read, and nothing is published.
    Opened,
    /// Before a transaction.
    Begin,
    /// A transaction has begun and holds nothing.
    Begun,
    /// A batch was handed over.
    Produced,
    /// Before the cursor.
    Cursor,
    /// The cursor was handed over.
    Moved,
    /// Kafka has answered for all records, and the transaction is not committed.
    Commit,
    /// The transaction is committed, and nobody here has heard of it.
    Committed,
}

#[cfg(feature = "failpoints")]
mod planted {
    use super::Step;
    use rustix::process::{Signal, getpid, kill_process};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    struct Planted {
        step: String,
        signal: Signal,
        /// How often the step is passed before.
        left: AtomicU32,
    }

    /// What the environment asks for.
    fn planted() -> Option<Planted> {
        let asked = std::env::var("ISONOMY_FAILPOINT").ok()?;
        let parts: Vec<&str> = asked.split(':').collect();
        let [step, count, signal] = parts[..] else { panic!("{asked} is not STEP:COUNT:SIGNAL") };
        let signal = match signal {
            "kill" => Signal::KILL,
            "stop" => Signal::STOP,
            other => panic!("{other} is neither kill nor stop"),
        };
        let left = AtomicU32::new(count.parse().expect("COUNT is a number"));
        Some(Planted { step: step.to_owned(), signal, left })
    }

    pub(crate) fn pass(step: Step) {
        static PLANTED: OnceLock<Option<Planted>> = OnceLock::new();
        let Some(planted) = PLANTED.get_or_init(planted) else { return };
        if planted.step == format!("{step:?}") && planted.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            kill_process(getpid(), planted.signal).expect("a process may send signals to itself");
        }
    }
}

#[cfg(feature = "failpoints")]
pub(crate) use planted::pass;

/// A publisher passes a step.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) fn pass(_: Step) {}
