//! The requests of a thread and their answers, whatever connections the thread has.

use crate::options::Options;
use isonomy_wire::conversation::{Conversation, SubmitError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::Instant;

use super::ledger::{Asked, Ledger};
use super::members::Members;
use super::record::{Record, Recorded, Second};
use super::schedule::{Pace, START_US, Schedule, Span};
use super::workload::Workload;

/// The data that all threads share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) members: Arc<Members>,
    pub(crate) schedule: Schedule,
    /// Time zero.
    pub(crate) origin: Instant,
    /// When the run ends; an interrupt moves it.
    pub(crate) to: AtomicU64,
    /// The ledger, if the answers about each key must be remembered.
    pub(crate) ledger: Option<Ledger>,
}

impl Shared {
    pub(crate) fn now(&self) -> u64 {
        self.origin.elapsed().as_micros() as u64
    }

    #[inline]
    pub(crate) fn end(&self) -> u64 {
        self.to.load(Ordering::Relaxed)
    }

    /// The measured time.
    pub(crate) fn span(&self) -> Span {
        Span { from: self.schedule.span().from, to: self.end() }
    }
}

/// The requests of a thread and their answers.
pub(crate) struct Generator<'a> {
    shared: &'a Shared,
    workload: Workload,
    pub(crate) pace: Pace,
    record: Record,
    tracker: Option<Tracker<'a>>,
    ended: bool,
}

impl<'a> Generator<'a> {
    pub(crate) fn new(shared: &'a Shared, thread: u64, seconds: Sender<Second>) -> Generator<'a> {
        Generator {
            shared,
            workload: Workload::new(&shared.options, thread),
            pace: Pace::new(&shared.options, &shared.schedule, thread),
            record: Record::new(START_US, &shared.schedule.steps, seconds),
            tracker: shared.ledger.as_ref().map(Tracker::new),
            ended: false,
        }
    }

    /// The time until which commands are due now; `None` once the run has ended.
    #[inline]
    pub(crate) fn generates_until(&mut self, now: u64) -> Option<u64> {
        let end = self.shared.end();
        if now < end {
            return Some(now);
        }
        // Commands that were due while the thread slept for the last time still leave.
        let first = !std::mem::replace(&mut self.ended, true);
        (first && matches!(self.pace, Pace::Open(_))).then(|| end - 1)
    }

    /// When the next command is due, if it is; `idle` says whether a closed loop has room for one.
    #[inline]
    pub(crate) fn due(&self, now: u64, idle: impl FnOnce(usize) -> bool) -> Option<u64> {
        match &self.pace {
            Pace::Closed { window } => idle(*window).then_some(now),
            Pace::Open(_) => self.pace.due().filter(|due| *due <= now),
        }
    }

    /// Submits the next command, unless the conversation is full.
    #[inline]
    pub(crate) fn submit(&mut self, conversation: &mut Conversation, now: u64, due: u64) -> bool {
        let result = match &mut self.tracker {
            None => conversation.submit(now, &self.workload.next(|_| 0).1, due),
            Some(tracker) => {
                let (made, action) = self.workload.next(|key| tracker.ledger.known(key));
                let token = tracker.begin(due, tracker.ledger.ask(made));
                let result = conversation.submit(now, &action, token);
                if result.is_err() {
                    let (_, asked) = tracker.end(token);
                    tracker.ledger.on_answer(&asked, None);
                }
                result
            }
        };
        match result {
            Ok(()) => self.pace.advance(),
            // The command stays due, so its latency goes on counting.
            Err(SubmitError::Full) => return false,
            Err(error) => unreachable!("the workload makes legal commands: {error}"),
        }
        true
    }

    /// Takes what a conversation has heard.
    pub(crate) fn take_outcomes(&mut self, conversation: &mut Conversation, now: u64) {
        let end = self.shared.end();
        self.record.turn(now);
        while let Some(outcome) = conversation.poll_outcome() {
            match &mut self.tracker {
                None => self.record.on_outcome(now, end, &outcome),
                Some(tracker) => outcome.each().for_each(|(token, answer)| {
                    let (due, asked) = tracker.end(token);
                    tracker.ledger.on_answer(&asked, answer.as_ref().ok());
                    self.record.on_answer(now, end, due, &answer);
                }),
            }
            conversation.recycle(outcome);
        }
    }

    /// The run has ended.
    pub(crate) fn finish(mut self) -> Recorded {
        self.record.not_sent = self.pace.count_left(self.shared.end());
        self.record.finish()
    }
}

/// The commands of a thread that have no answer; their tokens are places here.
struct Tracker<'a> {
    ledger: &'a Ledger,
    places: Vec<(u64, Option<Asked>)>,
    free: Vec<u64>,
}

impl<'a> Tracker<'a> {
    fn new(ledger: &'a Ledger) -> Tracker<'a> {
        Tracker { ledger, places: Vec::new(), free: Vec::new() }
    }

    fn begin(&mut self, due: u64, asked: Asked) -> u64 {
        let token = self.free.pop().unwrap_or(self.places.len() as u64);
        if token == self.places.len() as u64 {
            self.places.push((0, None));
        }
        self.places[token as usize] = (due, Some(asked));
        token
    }

    /// The time when a command was due, and the command.
    fn end(&mut self, token: u64) -> (u64, Asked) {
        let (due, asked) = &mut self.places[token as usize];
        self.free.push(token);
        (*due, asked.take().expect("a command has one outcome"))
    }
}
