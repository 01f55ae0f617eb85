//! The measurements of a thread: figures per step, and those of each second while it lasts.

use hdrhistogram::Histogram;
use isonomy_wire::answer::Answer;
use isonomy_wire::conversation::{Error, Outcome};
use std::collections::BTreeMap;
use std::sync::mpsc::Sender;

use super::schedule::{Span, Step};

/// Latencies are kept with three digits, from one microsecond to this; longer ones count as this.
const LATENCY_US_MAX: u64 = 3_600_000_000;
/// The length of a second.
const SECOND_US: u64 = 1_000_000;

/// An empty histogram; all have the same bounds.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds are legal")
}

/// Answers to commands by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub(crate) struct Counts {
    pub(crate) committed: u64,
    pub(crate) rejected: u64,
    pub(crate) found: u64,
    pub(crate) missing: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Counts) {
        self.committed += other.committed;
        self.rejected += other.rejected;
        self.found += other.found;
        self.missing += other.missing;
    }
}

/// The figures of a step.
pub(crate) struct Tally {
    /// The latencies of commands that were due in the step, in microseconds since they were due.
    pub(crate) latency: Histogram<u64>,
    /// The answers that came in the step.
    pub(crate) counts: Counts,
    /// Commands that were due in the step and have no answer, so they have no latency either.
    pub(crate) unanswered: u64,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        Tally { latency: latencies(), counts: Counts::default(), unanswered: 0 }
    }

    pub(crate) fn merge(&mut self, other: &Tally) {
        self.latency.add(&other.latency).expect("all histograms have the same bounds");
        self.counts.add(&other.counts);
        self.unanswered += other.unanswered;
    }
}

/// The figures of one thread for one second.
pub(crate) struct Second {
    /// The number of the second, counted from the start of the run.
    pub(crate) index: u64,
    /// The latencies of the answers that came in the second.
    pub(crate) latency: Histogram<u64>,
    pub(crate) decisions: u64,
}

/// The present second. Each latency is recorded once, here; it goes to its step afterwards.
struct Live {
    index: u64,
    until: u64,
    /// The step whose commands `latency` has; none before measuring begins.
    step: Option<usize>,
    latency: Histogram<u64>,
    /// The latencies of commands of other steps, where there are any.
    strays: Option<Histogram<u64>>,
    decisions: u64,
}

impl Live {
    fn new(index: u64, until: u64, step: Option<usize>) -> Live {
        Live { index, until, step, latency: latencies(), strays: None, decisions: 0 }
    }
}

/// The measurements of a thread.
pub(crate) struct Record {
    spans: Vec<Span>,
    /// The place of the step in which a time was last found.
    last: usize,
    live: Live,
    seconds: Sender<Second>,
    pub(crate) steps: Vec<Tally>,
    /// The errors of all time, by the answer's name.
    pub(crate) errors: BTreeMap<&'static str, u64>,
    /// Commands that were due and never sent.
    pub(crate) not_sent: u64,
}

impl Record {
    /// The first second begins at `start`. Each goes to `seconds` when it is over.
    pub(crate) fn new(start: u64, steps: &[Step], seconds: Sender<Second>) -> Record {
        let spans: Vec<Span> = steps.iter().map(|step| step.span).collect();
        let mut record = Record {
            last: 0,
            live: Live::new(0, start + SECOND_US, None),
            seconds,
            steps: spans.iter().map(|_| Tally::new()).collect(),
            spans,
            errors: BTreeMap::new(),
            not_sent: 0,
        };
        record.live.step = record.step_at(start);
        record
    }

    /// The time has come to `now`.
    #[inline]
    pub(crate) fn turn(&mut self, now: u64) {
        if now >= self.live.until {
            self.next_second(now);
        }
    }

    fn next_second(&mut self, now: u64) {
        let Live { index, until, .. } = self.live;
        let passed = 1 + (now - until) / SECOND_US;
        let until = until + passed * SECOND_US;
        let step = self.step_at(until - SECOND_US);
        let over = std::mem::replace(&mut self.live, Live::new(index + passed, until, step));
        self.file(over);
    }

    /// A second is over.
    fn file(&mut self, over: Live) {
        let mut latency = over.latency;
        if let Some(step) = over.step {
            self.steps[step].latency.add(&latency).expect("all histograms have the same bounds");
        }
        if let Some(strays) = over.strays {
            latency.add(&strays).expect("all histograms have the same bounds");
        }
        // Nobody listens when the run was cut short.
        let _ = self.seconds.send(Second { index: over.index, latency, decisions: over.decisions });
    }

    /// The run has ended.
    pub(crate) fn finish(mut self) -> Recorded {
        let over = std::mem::replace(&mut self.live, Live::new(0, 0, None));
        self.file(over);
        Recorded { steps: self.steps, errors: self.errors, not_sent: self.not_sent, clients_connected: 0 }
    }

    #[inline]
    fn step_at(&mut self, time: u64) -> Option<usize> {
        if self.spans[self.last].contains(time) {
            return Some(self.last);
        }
        let found = self.spans.iter().position(|span| span.contains(time))?;
        self.last = found;
        Some(found)
    }

    /// Takes an outcome, whose tokens are the times when its commands were due. Answers at `end` or later do not
    /// count.
    pub(crate) fn on_outcome(&mut self, now: u64, end: u64, outcome: &Outcome) {
        let committed = outcome.result.as_ref().map_or(0, |answers| answers.committed());
        if committed != outcome.tokens.len() {
            outcome.each().for_each(|(due, answer)| self.on_answer(now, end, due, &answer));
            return;
        }
        self.count(now, end, Counts { committed: committed as u64, ..Counts::default() });
        // Neighbours were often due at the same time.
        for same in outcome.tokens.chunk_by(|a, b| a == b) {
            self.on_latency(now, same[0], same.len() as u64);
        }
    }

    /// Counts the outcome of one command.
    pub(crate) fn on_answer(&mut self, now: u64, end: u64, due: u64, answer: &Result<Answer, Error>) {
        let mut counts = Counts::default();
        match answer {
            Ok(Answer::Committed { .. }) => counts.committed = 1,
            Ok(Answer::Rejected { .. }) => counts.rejected = 1,
            Ok(Answer::Found { .. }) => counts.found = 1,
            Ok(Answer::Missing) => counts.missing = 1,
            _ => {
                self.on_failure(due, error_name(answer));
                return;
            }
        }
        self.count(now, end, counts);
        self.on_latency(now, due, 1);
    }

    /// A command was decided.
    pub(crate) fn on_committed(&mut self, now: u64, end: u64, due: u64) {
        self.count(now, end, Counts { committed: 1, ..Counts::default() });
        self.on_latency(now, due, 1);
    }

    /// A command has no answer, for a reason of this name.
    pub(crate) fn on_failure(&mut self, due: u64, name: &'static str) {
        *self.errors.entry(name).or_default() += 1;
        if let Some(step) = self.step_at(due) {
            self.steps[step].unanswered += 1;
        }
    }

    fn count(&mut self, now: u64, end: u64, counts: Counts) {
        self.live.decisions += counts.committed;
        if now < end
            && let Some(step) = self.step_at(now)
        {
            self.steps[step].counts.add(&counts);
        }
    }

    #[inline]
    fn on_latency(&mut self, now: u64, due: u64, count: u64) {
        let latency = now.saturating_sub(due).max(1);
        let step = self.step_at(due);
        if step == self.live.step {
            return self.live.latency.saturating_record_n(latency, count);
        }
        if let Some(step) = step {
            self.steps[step].latency.saturating_record_n(latency, count);
        }
        self.live.strays.get_or_insert_with(latencies).saturating_record_n(latency, count);
    }
}

/// The rest of a thread's record.
pub(crate) struct Recorded {
    pub(crate) steps: Vec<Tally>,
    pub(crate) errors: BTreeMap<&'static str, u64>,
    pub(crate) not_sent: u64,
    /// Clients that had all their connections at some time, where there are many small ones.
    pub(crate) clients_connected: u64,
}

impl Recorded {
    pub(crate) fn new(steps: usize) -> Recorded {
        Recorded {
            steps: (0..steps).map(|_| Tally::new()).collect(),
            errors: BTreeMap::new(),
            not_sent: 0,
            clients_connected: 0,
        }
    }

    /// Takes another thread's figures in.
    pub(crate) fn merge(&mut self, other: &Recorded) {
        self.steps.iter_mut().zip(&other.steps).for_each(|(own, other)| own.merge(other));
        for (name, count) in &other.errors {
            *self.errors.entry(name).or_default() += count;
        }
        self.not_sent += other.not_sent;
        self.clients_connected += other.clients_connected;
    }
}

/// The name of an outcome that is no answer.
fn error_name(answer: &Result<Answer, Error>) -> &'static str {
    match answer {
        Ok(Answer::Duplicate) => "duplicate",
        Ok(Answer::Early) => "early",
        Ok(Answer::Ended { .. }) => "ended",
        Ok(Answer::Expired) => "expired",
        Ok(_) => "unexpected",
        Err(error) => error.name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_wire::answer::{Answers, ResponseBuilder};
    use isonomy_wire::conversation::{Action, Config, Conversation};
    use isonomy_wire::id::{Epoch, InstanceId, ReplicaId, ShardId};
    use std::sync::mpsc::{Receiver, channel};

    /// The outcome of a conversation for commands with these tokens, answered by `answer`.
    fn outcome(tokens: &[u64], answer: impl Fn(&mut ResponseBuilder, u32)) -> Outcome {
        let mut conversation = Conversation::new(Config::new(1, 1));
        conversation.on_connected(ReplicaId(0), ShardId(0));
        for token in tokens {
            conversation.submit(0, &Action::Decide { key: b"k", value: b"v" }, *token).unwrap();
        }
        let mut response = ResponseBuilder::new(Epoch(1), ShardId(0));
        let at = InstanceId::new(ReplicaId(0), 1);
        response.plain(at, 0, &Answer::Opened { session: Default::default() });
        let open = conversation.poll_transmit(0).unwrap();
        let answers = Answers::parse(response.encode()).unwrap();
        conversation.on_response(open.replica, open.tag, answers).unwrap();
        let frame = conversation.poll_transmit(0).unwrap();
        (0..tokens.len() as u32).for_each(|index| answer(&mut response, index));
        let answers = Answers::parse(response.encode()).unwrap();
        conversation.on_response(frame.replica, frame.tag, answers).unwrap();
        conversation.poll_outcome().unwrap()
    }

    fn committed(tokens: &[u64]) -> Outcome {
        let at = InstanceId::new(ReplicaId(0), 2);
        outcome(tokens, |response, index| response.committed(at, index, 1))
    }

    /// A record of seconds from 0 on, of which these are measured, a step each.
    fn record(steps: std::ops::Range<u64>) -> (Record, Receiver<Second>) {
        let span = |second| Span { from: second * SECOND_US, to: (second + 1) * SECOND_US };
        let steps: Vec<Step> = steps.map(|second| Step { span: span(second), rate: None }).collect();
        let (sender, seconds) = channel();
        (Record::new(0, &steps, sender), seconds)
    }

    #[test]
    fn latency_counts_from_when_a_command_was_due() {
        let (mut record, seconds) = record(1..2);
        record.turn(SECOND_US);
        record.on_outcome(
            SECOND_US + 1000,
            u64::MAX,
            &committed(&[999_999, SECOND_US, SECOND_US, 1_000_800]),
        );
        record.turn(2 * SECOND_US + 50);
        record.on_outcome(2 * SECOND_US + 50, u64::MAX, &committed(&[1_999_999]));
        let figures = record.finish();
        let step = &figures.steps[0];
        assert_eq!(step.latency.len(), 4, "one was due before; late answers are not left out");
        assert_eq!((step.latency.min(), step.latency.max()), (51, 1000));
        assert_eq!(step.counts.committed, 4, "one was answered after");
        let seconds: Vec<_> = seconds.iter().map(|it| (it.index, it.latency.len(), it.decisions)).collect();
        assert_eq!(seconds, [(0, 0, 0), (1, 4, 4), (2, 1, 1)]);
    }

    #[test]
    fn a_step_gets_what_was_due_in_it_whenever_it_is_answered() {
        let (mut record, _seconds) = record(0..3);
        record.turn(2 * SECOND_US + 5);
        record.on_outcome(2 * SECOND_US + 5, u64::MAX, &committed(&[10, SECOND_US, 2 * SECOND_US]));
        let figures = record.finish();
        let of = |step: usize| (figures.steps[step].latency.len(), figures.steps[step].counts.committed);
        assert_eq!([of(0), of(1), of(2)], [(1, 0), (1, 0), (1, 3)]);
    }

    #[test]
    fn nothing_counts_after_an_interrupt() {
        let (mut record, _seconds) = record(0..1);
        record.on_outcome(500, 400, &committed(&[10]));
        let mut figures = record.finish();
        assert_eq!((figures.steps[0].counts.committed, figures.steps[0].latency.len()), (0, 1));
        figures.merge(&Recorded { not_sent: 3, ..Recorded::new(1) });
        assert_eq!((figures.not_sent, figures.steps[0].latency.len()), (3, 1));
    }

    #[test]
    fn errors_are_counted_by_their_names() {
        let at = InstanceId::new(ReplicaId(0), 2);
        let outcome = outcome(&[1, 2, 3], |response, index| match index {
            0 => response.committed(at, index, 1),
            1 => response.plain(at, index, &Answer::Duplicate),
            _ => response.plain(at, index, &Answer::Missing),
        });
        let (mut record, _seconds) = record(0..1);
        record.on_outcome(10, u64::MAX, &outcome);
        let figures = record.finish();
        assert_eq!(figures.errors, BTreeMap::from([("duplicate", 1)]));
        let expected = Counts { committed: 1, missing: 1, ..Counts::default() };
        assert_eq!((figures.steps[0].latency.len(), figures.steps[0].counts), (2, expected));
        assert_eq!(figures.steps[0].unanswered, 1);
    }
}
