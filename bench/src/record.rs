//! What a thread measures.

use hdrhistogram::Histogram;
use isonomy_wire::answer::Answer;
use isonomy_wire::session::Outcome;
use std::collections::BTreeMap;

/// Latencies are kept with three digits, from one microsecond to this; longer ones count as this.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// Latencies, decisions and errors.
pub(crate) struct Record {
    /// Of commands that were due in the measured time, in microseconds since they were due.
    pub(crate) latency: Histogram<u64>,
    /// Answered "committed" in the measured time.
    pub(crate) decisions: u64,
    /// By the answer's name, over all time.
    pub(crate) errors: BTreeMap<&'static str, u64>,
}

/// The measured time in microseconds, the end not included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Span {
    fn contains(self, time: u64) -> bool {
        self.from <= time && time < self.to
    }
}

impl Record {
    pub(crate) fn new() -> Record {
        let latency = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds are legal");
        Record { latency, decisions: 0, errors: BTreeMap::new() }
    }

    /// The commands of an outcome, whose tokens are the times when they were due.
    pub(crate) fn on_outcome(&mut self, now: u64, span: Span, outcome: &Outcome) {
        let committed = outcome.result.as_ref().map_or(0, |answers| answers.committed());
        if span.contains(now) {
            self.decisions += committed as u64;
        }
        if committed == outcome.tokens.len() {
            return self.on_latencies(now, span, &outcome.tokens);
        }
        for (token, answer) in outcome.each() {
            match error_name(&answer) {
                None => self.on_latencies(now, span, &[token]),
                Some(name) => *self.errors.entry(name).or_default() += 1,
            }
        }
    }

    fn on_latencies(&mut self, now: u64, span: Span, due: &[u64]) {
        // Neighbours were often due at the same time.
        for same in due.chunk_by(|a, b| a == b) {
            if span.contains(same[0]) {
                self.latency.saturating_record_n(now.saturating_sub(same[0]).max(1), same.len() as u64);
            }
        }
    }

    /// Takes another thread's figures in.
    pub(crate) fn merge(&mut self, other: &Record) {
        self.latency.add(&other.latency).expect("all histograms have the same bounds");
        self.decisions += other.decisions;
        for (name, count) in &other.errors {
            *self.errors.entry(name).or_default() += count;
        }
    }
}

/// The name of what is no answer to a command.
fn error_name(answer: &Result<Answer, isonomy_wire::session::Error>) -> Option<&'static str> {
    match answer {
        Ok(Answer::Duplicate) => Some("duplicate"),
        Ok(Answer::OutOfWindow) => Some("out_of_window"),
        Ok(Answer::Expired) => Some("expired"),
        Ok(_) => None,
        Err(error) => Some(error.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_wire::answer::{Answers, ResponseBuilder};
    use isonomy_wire::id::{Epoch, InstanceId, ReplicaId, ShardId};
    use isonomy_wire::session::{Action, Config, Session};

    /// What a session says of commands with these tokens, answered by `answer`.
    fn outcome(tokens: &[u64], answer: impl Fn(&mut ResponseBuilder, u32)) -> Outcome {
        let mut session = Session::new(Config::new(1, 1));
        session.on_connected(ReplicaId(0), ShardId(0));
        for token in tokens {
            session.submit(0, &Action::Decide { key: b"k", value: b"v" }, *token).unwrap();
        }
        let mut response = ResponseBuilder::new(Epoch(1), ShardId(0));
        let at = InstanceId::new(ReplicaId(0), 1);
        response.plain(at, 0, &Answer::Opened { stream: Default::default() });
        let open = session.poll_transmit(0).unwrap();
        let answers = Answers::parse(response.encode()).unwrap();
        session.on_response(open.replica, open.tag, answers).unwrap();
        let frame = session.poll_transmit(0).unwrap();
        (0..tokens.len() as u32).for_each(|index| answer(&mut response, index));
        let answers = Answers::parse(response.encode()).unwrap();
        session.on_response(frame.replica, frame.tag, answers).unwrap();
        session.poll_outcome().unwrap()
    }

    #[test]
    fn latency_counts_from_when_a_command_was_due() {
        let at = InstanceId::new(ReplicaId(0), 2);
        let outcome = outcome(&[50, 100, 100, 900], |response, index| response.committed(at, index, 1));
        let mut record = Record::new();
        record.on_outcome(1000, Span { from: 100, to: 2000 }, &outcome);
        assert_eq!(record.latency.len(), 3, "one was due before the measured time");
        assert_eq!((record.latency.min(), record.latency.max()), (100, 900));
        assert_eq!(record.decisions, 4, "all were answered in it");
        let mut late = Record::new();
        late.on_outcome(2050, Span { from: 100, to: 2000 }, &outcome);
        assert_eq!((late.latency.len(), late.decisions), (3, 0), "late answers are not left out");
        record.merge(&late);
        assert_eq!((record.latency.len(), record.latency.max(), record.decisions), (6, 1950, 4));
    }

    #[test]
    fn errors_are_counted_by_their_names() {
        let at = InstanceId::new(ReplicaId(0), 2);
        let outcome = outcome(&[1, 2, 3], |response, index| match index {
            0 => response.committed(at, index, 1),
            1 => response.plain(at, index, &Answer::Duplicate),
            _ => response.plain(at, index, &Answer::Missing),
        });
        let mut record = Record::new();
        record.on_outcome(10, Span { from: 0, to: 20 }, &outcome);
        assert_eq!(record.errors, BTreeMap::from([("duplicate", 1)]));
        assert_eq!((record.latency.len(), record.decisions), (2, 1));
    }
}
