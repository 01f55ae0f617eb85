//! One session of an agent: it checks that the topic is still what the projection was made of, and reads on until something
//! fails.

use crate::client::{Polled, Reader};
use crate::error::Error;
use crate::fresh::Freshness;
use crate::gather::Gathered;
use crate::projection::{Batch, Look, Positions, Projection, Standing, Start};
use crate::settings::{Expect, Settings};
use crate::status::Meters;
use isonomy_kafka::Stop;
use isonomy_kafka::cursor::TopicId;
use isonomy_kafka::decision::decode;
use rdkafka::message::Message;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

/// How often Kafka is asked where the partitions end, and whether the topic is still the same.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a session waits for records before it looks whether it is to stop.
const IDLE_STEP: Duration = Duration::from_millis(100);

/// A session, which reads.
pub(crate) struct Session<'a, P> {
    settings: &'a Settings,
    reader: Reader<'a>,
    projection: &'a mut P,
    stop: &'a Stop,
    meters: &'a Meters,
    freshness: &'a mut Freshness,
    topic: TopicId,
    /// What the projection has.
    positions: Positions,
    gathered: Gathered,
    partitions: BTreeMap<i32, Standing>,
}

impl<'a, P: Projection> Session<'a, P> {
    /// Asks what the projection has and what the topic has, and begins to read where both agree.
    pub(crate) fn open(
        settings: &'a Settings,
        projection: &'a mut P,
        stop: &'a Stop,
        meters: &'a Meters,
        freshness: &'a mut Freshness,
    ) -> Result<Session<'a, P>, Error> {
        let reader = Reader::new(settings)?;
        let start = projection.start().map_err(Error::Projection)?;
        let topic = known_topic(settings, start.topic, reader.topic_id()?)?;
        let partitions = reader.partitions()?;
        let (firsts, ends) = (reader.firsts(&partitions)?, reader.ends(&partitions)?);
        let positions = begin(settings, &start, &firsts, &ends)?;
        reader.assign(&positions)?;
        let partitions = standings(&positions, &ends);
        let gathered = Gathered::default();
        let mut session = Session {
            settings,
            reader,
            projection,
            stop,
            meters,
            freshness,
            topic,
            positions: start.positions,
            gathered,
            partitions,
        };
        // So the projection knows its topic and its partitions even if no decision ever comes.
        session.apply(positions)?;
        meters.change(|status| status.sessions += 1);
        Ok(session)
    }

    /// Reads on until something fails.
    pub(crate) fn run(&mut self) -> Result<Infallible, Error> {
        let mut next_look = Instant::now();
        loop {
            if self.stop.is_set() {
                return Err(Error::Stopped);
            }
            let now = Instant::now();
            if self.gathered.is_due(self.settings, now) {
                self.apply_gathered()?;
            }
            if now >= next_look {
                self.look()?;
                next_look = Instant::now() + LOOK_EVERY;
            }
            let left = self.gathered.left(self.settings, now);
            self.poll(left.map_or(IDLE_STEP, |left| left.min(IDLE_STEP)))?;
        }
    }

    /// Takes in the next record, if one comes.
    fn poll(&mut self, at_most: Duration) -> Result<(), Error> {
        let Polled::Record(message) = self.reader.poll(at_most)? else { return Ok(()) };
        let from = self.gathered.decisions.len();
        decode(&message, &mut self.gathered.decisions).map_err(|why| Error::BadRecord {
            topic: self.settings.topic.clone(),
            partition: message.partition(),
            offset: message.offset(),
            why,
        })?;
        self.gathered.take_in(from, self.settings, self.projection)
    }

    /// Everything that was polled is gathered, so that the projection has everything up to the reader's positions then.
    fn apply_gathered(&mut self) -> Result<(), Error> {
        let polled = self.reader.positions()?;
        self.apply(polled)
    }

    fn apply(&mut self, mut positions: Positions) -> Result<(), Error> {
        positions.retain(|partition, next| self.positions.get(partition) != Some(next));
        if positions.is_empty() && self.gathered.is_empty() {
            return Ok(());
        }
        let decisions = &self.gathered.decisions[..];
        let batch = Batch { topic: self.topic, decisions, positions: &positions, stop: self.stop };
        self.projection.apply(&batch).map_err(Error::Projection)?;
        self.positions.extend(positions);
        self.freshness.reach(&self.positions);
        for (partition, standing) in &mut self.partitions {
            standing.next = self.positions.get(partition).copied().unwrap_or(standing.next);
        }
        self.meters.change(|status| {
            status.decisions += decisions.len() as u64;
            status.batches += 1;
            status.partitions.clone_from(&self.partitions);
            status.known_at = self.freshness.known_at();
        });
        self.gathered.clear();
        Ok(())
    }

    /// Looks where the topic ends by now. A Kafka that does not answer is waited for.
    fn look(&mut self) -> Result<(), Error> {
        let asked_at = Instant::now();
        let partitions: Vec<i32> = self.partitions.keys().copied().collect();
        let asked = self.reader.topic_id().and_then(|id| Ok((id, self.reader.ends(&partitions)?)));
        let (id, ends) = match asked {
            Ok(answer) => answer,
            Err(error) if error.is_passing() => {
                self.meters.trouble(&error);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        known_topic(self.settings, Some(self.topic), id)?;
        self.meters.is_well();
        for (partition, standing) in &mut self.partitions {
            standing.end = ends.get(partition).copied().unwrap_or(standing.end);
        }
        self.freshness.look(asked_at, ends);
        if self.gathered.is_empty() {
            self.apply_gathered()?;
        }
        self.freshness.reach(&self.positions);
        self.meters.change(|status| {
            status.partitions.clone_from(&self.partitions);
            status.known_at = self.freshness.known_at();
        });
        let look = Look { partitions: &self.partitions, age: self.freshness.age(Instant::now()) };
        self.projection.on_look(&look).map_err(Error::Projection)
    }
}

/// Refuses a topic that is not the one of the projection.
fn known_topic(settings: &Settings, known: Option<TopicId>, there: TopicId) -> Result<TopicId, Error> {
    match known {
        Some(known) if known != there => Err(Error::Replaced { topic: settings.topic.clone(), there, known }),
        _ => Ok(there),
    }
}

/// Where each partition is read from: where the projection goes on, if that is still there.
fn begin(
    settings: &Settings,
    start: &Start,
    firsts: &Positions,
    ends: &Positions,
) -> Result<Positions, Error> {
    let mut positions = Positions::new();
    for (&partition, &first) in firsts {
        let end = ends.get(&partition).copied().unwrap_or(first);
        let position = match (start.positions.get(&partition), settings.expect) {
            (Some(next), _) => *next,
            (None, Expect::Every) => 0,
            (None, Expect::Latest) => first,
        };
        let topic = settings.topic.clone();
        if position < first {
            return Err(Error::Expired { topic, partition, position, first });
        }
        if position > end {
            return Err(Error::Truncated { topic, partition, position, end });
        }
        positions.insert(partition, position);
    }
    Ok(positions)
}

fn standings(positions: &Positions, ends: &Positions) -> BTreeMap<i32, Standing> {
    let standing = |(&partition, &next): (&i32, &i64)| {
        (partition, Standing { next, end: ends.get(&partition).copied().unwrap_or(next) })
    };
    positions.iter().map(standing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_begins_where_the_projection_goes_on_if_that_is_still_there() {
        let every = Settings::default();
        let latest = Settings { expect: Expect::Latest, ..Settings::default() };
        let begin = |settings: &Settings, known: Option<i64>, first, end| {
            let positions = known.map(|next| (0, next)).into_iter().collect();
            let start = Start { topic: None, positions };
            match begin(settings, &start, &[(0, first)].into(), &[(0, end)].into()) {
                Ok(positions) => positions[&0].to_string(),
                Err(Error::Expired { .. }) => "expired".into(),
                Err(Error::Truncated { .. }) => "truncated".into(),
                Err(other) => panic!("{other}"),
            }
        };
        for (settings, known, first, end, expected) in [
            (&every, None, 0, 9, "0"),
            (&every, None, 1, 9, "expired"),
            (&latest, None, 1, 9, "1"),
            (&every, Some(5), 5, 9, "5"),
            (&every, Some(9), 0, 9, "9"),
            (&every, Some(4), 5, 9, "expired"),
            (&latest, Some(4), 5, 9, "expired"),
            (&every, Some(10), 0, 9, "truncated"),
            (&latest, Some(10), 0, 9, "truncated"),
        ] {
            assert_eq!(begin(settings, known, first, end), expected, "{known:?} in {first}..{end}");
        }
    }
}
