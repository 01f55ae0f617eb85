//! Decisions on their way into one batch.

use crate::error::{Error, OutOfSequence};
use crate::projection::Projection;
use crate::settings::{Expect, Settings};
use isonomy_kafka::decision::Decision;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What is gathered for the next batch. Bounded by `batch_decisions` and `batch_bytes`, and by one record beyond them.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) decisions: Vec<Decision>,
    bytes: usize,
    since: Option<Instant>,
    /// The `key_seq` of the latest gathered decision of each key, 0 if it has ended the key's life.
    latest: HashMap<Vec<u8>, u64>,
}

impl Gathered {
    pub(crate) fn is_empty(&self) -> bool {
        self.decisions.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.decisions.clear();
        self.latest.clear();
        (self.bytes, self.since) = (0, None);
    }

    /// Whether the batch is to be applied.
    pub(crate) fn is_due(&self, settings: &Settings, now: Instant) -> bool {
        self.decisions.len() >= settings.batch_decisions
            || self.bytes >= settings.batch_bytes
            || self.left(settings, now) == Some(Duration::ZERO)
    }

    /// The time until the batch is due; `None` if it is empty.
    pub(crate) fn left(&self, settings: &Settings, now: Instant) -> Option<Duration> {
        self.since.map(|since| (since + settings.batch_time).saturating_duration_since(now))
    }

    /// Takes the decisions in that were added from this index on: checks that each follows the one before of its key.
    pub(crate) fn take_in(
        &mut self,
        from: usize,
        settings: &Settings,
        projection: &mut impl Projection,
    ) -> Result<(), Error> {
        self.since.get_or_insert_with(Instant::now);
        for at in from..self.decisions.len() {
            let Decision { key, value, .. } = &self.decisions[at];
            self.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
            if settings.expect == Expect::Every {
                self.check(at, projection)?;
            }
        }
        Ok(())
    }

    /// The decisions of a key are 1, 2, 3 and so on, and a delete has the number of the one before it.
    fn check(&mut self, at: usize, projection: &mut impl Projection) -> Result<(), Error> {
        let Decision { partition, offset, id, key, key_seq, value, .. } = &self.decisions[at];
        let known = match self.latest.get(key) {
            Some(latest) => Some(*latest),
            None => projection.key_seq(key).map_err(Error::Projection)?,
        };
        let Some(latest) = known else { return Ok(()) };
        let expected = if value.is_some() { latest + 1 } else { latest };
        if *key_seq != expected || expected == 0 {
            let (partition, offset, id, found) = (*partition, *offset, *id, *key_seq);
            return Err(OutOfSequence { partition, offset, id, found, latest }.into());
        }
        self.latest.insert(key.clone(), if value.is_some() { *key_seq } else { 0 });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projection::{Batch, Failure, Start};
    use isonomy_wire::id::CommandId;

    /// Knows one key, `old`, which is at decision 5.
    struct Known;

    impl Projection for Known {
        fn start(&mut self) -> Result<Start, Failure> {
            Ok(Start::default())
        }

        fn key_seq(&mut self, key: &[u8]) -> Result<Option<u64>, Failure> {
            Ok(Some(if key == b"old" { 5 } else { 0 }))
        }

        fn apply(&mut self, _: &Batch<'_>) -> Result<(), Failure> {
            Ok(())
        }
    }

    /// Takes in the decisions of one key: each is its `key_seq`, negative for a delete. Returns what was the latest before
    /// the one that does not follow.
    fn refused(settings: &Settings, key: &str, seqs: &[i64]) -> Option<u64> {
        let mut gathered = Gathered::default();
        for seq in seqs {
            gathered.decisions.push(Decision {
                partition: 0,
                offset: 0,
                id: CommandId::default(),
                key: key.into(),
                key_seq: seq.unsigned_abs(),
                value: (*seq > 0).then(Vec::new),
                time_ms: None,
            });
        }
        match gathered.take_in(0, settings, &mut Known) {
            Ok(()) => None,
            Err(Error::OutOfSequence(OutOfSequence { latest, .. })) => Some(latest),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_gap_and_a_repetition_are_refused() {
        let every = Settings::default();
        for (key, seqs, expected) in [
            ("new", &[1, 2, 3, -3, 1, 2, -2][..], None),
            ("old", &[6, 7, -7, 1], None),
            ("old", &[-5, 1], None),
            ("new", &[2], Some(0)),
            ("new", &[1, 1], Some(1)),
            ("new", &[1, 3], Some(1)),
            ("new", &[0], Some(0)),
            ("new", &[1, -2], Some(1)),
            ("new", &[1, -1, -1], Some(0)),
            ("new", &[1, -1, 2], Some(0)),
            ("old", &[5], Some(5)),
            ("old", &[6, 8], Some(6)),
        ] {
            assert_eq!(refused(&every, key, seqs), expected, "{key} {seqs:?}");
        }
        let latest = Settings { expect: Expect::Latest, ..every };
        assert_eq!(refused(&latest, "old", &[9, 3, -2]), None);
    }

    #[test]
    fn a_batch_is_due_when_it_is_large_or_old() {
        let mut gathered = Gathered::default();
        let settings = Settings { batch_decisions: 2, batch_bytes: 5, ..Settings::default() };
        let decision = |value: &str| Decision {
            partition: 0,
            offset: 0,
            id: CommandId::default(),
            key: b"k".into(),
            key_seq: 1,
            value: Some(value.into()),
            time_ms: None,
        };
        let now = Instant::now();
        assert!(!gathered.is_due(&settings, now + Duration::from_secs(9)));
        let add = |gathered: &mut Gathered, value| {
            gathered.decisions.push(decision(value));
            let latest = Settings { expect: Expect::Latest, ..settings.clone() };
            gathered.take_in(gathered.decisions.len() - 1, &latest, &mut Known).unwrap();
        };
        add(&mut gathered, "v");
        assert!(!gathered.is_due(&settings, now));
        assert!(gathered.is_due(&settings, now + Duration::from_secs(9)), "it is old");
        add(&mut gathered, "v");
        assert!(gathered.is_due(&settings, now), "it has many decisions");
        gathered.clear();
        add(&mut gathered, "value");
        assert!(gathered.is_due(&settings, now), "it has many bytes");
    }
}
