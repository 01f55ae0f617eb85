//! The executed decisions of a shard, as those who read them from outside are told of them.

use crate::feed::{Begin, Fed, Feed};
use crate::limits::{STREAM_BEAT, STREAM_CHUNK_BYTES, STREAM_LOOK_EVERY};
use crate::problem::{Problem, Refusal};
use crate::router::House;
use isonomy_wire::id::{CommandId, ShardId};
use isonomy_wire::published::{Effect, PublishedBatch};
use std::fmt;
use std::str::FromStr;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// The place of an event in the stream: behind this many decisions of the batch at an offset behind a barrier. The
/// order between two barriers is each process's own, so that offsets mean something to the process that gave them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Place {
    process: u32,
    barrier: u64,
    offset: u64,
    decisions: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { process, barrier, offset, decisions } = self;
        write!(f, "{process:08x}-{barrier}-{offset}-{decisions}")
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Place, ()> {
        let mut parts = text.split('-');
        let mut part = || parts.next().ok_or(());
        let process = u32::from_str_radix(part()?, 16).map_err(drop)?;
        let mut number = || part()?.parse::<u64>().map_err(drop);
        let (barrier, offset, decisions) = (number()?, number()?, number()?);
        let decisions = decisions.try_into().map_err(drop)?;
        parts.next().is_none().then_some(Place { process, barrier, offset, decisions }).ok_or(())
    }
}

/// Where a reader wants to begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum From {
    Start,
    End,
    Behind(Place),
}

/// What a reader is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event<'a> {
    /// The key has this decision, or its life has ended.
    Told { place: Place, effect: Effect, id: CommandId, key: &'a [u8], value: &'a [u8] },
    /// What came before this barrier is not kept here.
    Gap { barrier: u64 },
    /// The decisions cannot be read.
    Failed { why: &'a str },
}

/// A reader of a shard that begins there.
pub(crate) fn open(house: &House, shard: u32, from: From, wrong: Problem) -> Result<Reader, Refusal> {
    let shards = house.shown.look().welcome.shards;
    let shard = u16::try_from(shard).ok().filter(|shard| *shard < shards).map(ShardId);
    let shard = shard.ok_or_else(|| {
        wrong.because(format!("there is no such shard; shards go from 0 to {}", shards - 1))
    })?;
    let Some(feeds) = &house.feeds else {
        return Err(Problem::NotPublished
            .because("this replica keeps no decisions for those who read them from outside"));
    };
    let begin = match from {
        From::Start => Begin::Barrier(0),
        From::End => Begin::Newest,
        From::Behind(place) => Begin::Barrier(place.barrier),
    };
    Ok(Reader::new((feeds.open)(shard, begin), house.process, from))
}

/// The next events, in the words of a door; none when there are none for a while, so that a reader that is gone can be
/// noticed. `None` ends the stream.
pub(crate) async fn next<T: Send + 'static>(
    mut reader: Reader,
    stopped: &mut watch::Receiver<bool>,
    word: fn(Event<'_>) -> Option<T>,
) -> Option<(Reader, Vec<T>)> {
    let beat = Instant::now() + STREAM_BEAT;
    loop {
        // Files are read apart from the thread of the doors.
        let read = tokio::task::spawn_blocking(move || {
            let mut words = Vec::new();
            reader.read(&mut |event| words.extend(word(event)));
            (reader, words)
        });
        let words;
        (reader, words) = read.await.ok()?;
        if !words.is_empty() {
            return Some((reader, words));
        }
        if reader.has_failed || timeout(STREAM_LOOK_EVERY, stopped.wait_for(|stopped| *stopped)).await.is_ok()
        {
            return None;
        }
        if Instant::now() >= beat {
            return Some((reader, words));
        }
    }
}

/// Makes events of what is fed.
pub(crate) struct Reader {
    feed: Feed,
    process: u32,
    /// What the reader has, and need not be told again.
    behind: Place,
    /// The barrier of what is fed.
    barrier: Option<u64>,
    /// Whether what is there already is left out.
    skips: bool,
    has_failed: bool,
}

impl Reader {
    fn new(feed: Feed, process: u32, from: From) -> Reader {
        let behind = match from {
            // Another process has another order, and begins again at the barrier.
            From::Behind(place) if place.process != process => Place { offset: 0, decisions: 0, ..place },
            From::Behind(place) => place,
            From::Start | From::End => Place::default(),
        };
        Reader { feed, process, behind, barrier: None, skips: from == From::End, has_failed: false }
    }

    /// Tells the next events, about as many as one chunk holds; none if there are none yet.
    fn read(&mut self, tell: &mut impl FnMut(Event<'_>)) {
        let mut told = 0;
        while !self.has_failed && told < STREAM_CHUNK_BYTES {
            match (self.feed)() {
                Ok(Some(Fed::Segment { barrier, has_gap })) => self.begin(barrier, has_gap, tell),
                Ok(Some(Fed::Batch { .. })) if self.skips => {}
                Ok(Some(Fed::Batch { offset, bytes })) => {
                    told += bytes.len();
                    self.tell(offset, &bytes, tell);
                }
                Ok(None) => {
                    self.skips = false;
                    break;
                }
                Err(why) => {
                    self.has_failed = true;
                    tell(Event::Failed { why: &why });
                }
            }
        }
    }

    fn begin(&mut self, barrier: u64, has_gap: bool, tell: &mut impl FnMut(Event<'_>)) {
        let follows = match self.barrier {
            Some(before) => barrier == before + 1 && !has_gap,
            // A reader that begins anywhere misses nothing.
            None => self.behind == Place::default() || barrier == self.behind.barrier,
        };
        self.barrier = Some(barrier);
        if !follows && !self.skips {
            tell(Event::Gap { barrier });
        }
    }

    fn tell(&mut self, offset: u64, bytes: &[u8], tell: &mut impl FnMut(Event<'_>)) {
        let barrier = self.barrier.unwrap_or_default();
        let Ok(batch) = PublishedBatch::parse(bytes) else {
            self.has_failed = true;
            return;
        };
        for (decisions, decision) in (1..).zip(batch.decisions()) {
            let place = Place { process: self.process, barrier, offset, decisions };
            let has = (self.behind.barrier, self.behind.offset, self.behind.decisions);
            if (barrier, offset, decisions) > has {
                let (effect, id) = (decision.effect, batch.origin().command(decision.index.into()));
                tell(Event::Told { place, effect, id, key: decision.key, value: decision.value });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_wire::id::{ClusterId, Epoch, InstanceId, ReplicaId};
    use isonomy_wire::published::{Decision, Origin, PublishedBuilder};

    fn batch(seq: u64, decisions: &[(&str, u64)]) -> Vec<u8> {
        let instance = InstanceId::new(ReplicaId(0), seq);
        let origin =
            Origin { cluster: ClusterId(1), shard: ShardId(0), epoch: Epoch(1), instance, has_more: false };
        let mut builder = PublishedBuilder::default();
        for (index, (key, key_seq)) in (0..).zip(decisions) {
            let effect = Effect::Decided { key_seq: *key_seq };
            builder.push(&Decision { index, effect, key: key.as_bytes(), value: b"{\n}" });
        }
        builder.finish(&origin).unwrap().to_vec()
    }

    fn reader(fed: Vec<Fed>, process: u32, from: From) -> Reader {
        let mut fed = fed.into_iter();
        Reader::new(Box::new(move || Ok(fed.next())), process, from)
    }

    fn fed() -> Vec<Fed> {
        vec![
            Fed::Segment { barrier: 3, has_gap: false },
            Fed::Batch { offset: 128, bytes: batch(1, &[("a", 1), ("b", 1)]) },
            Fed::Batch { offset: 300, bytes: batch(2, &[("a", 2)]) },
            Fed::Segment { barrier: 4, has_gap: false },
            Fed::Batch { offset: 128, bytes: batch(3, &[("a", 3)]) },
        ]
    }

    /// What is told next, a word each.
    fn told(mut reader: impl AsMut<Reader>) -> Vec<String> {
        let mut words = Vec::new();
        reader.as_mut().read(&mut |event| {
            words.push(match event {
                Event::Told { place, .. } => place.to_string(),
                Event::Gap { barrier } => format!("gap {barrier}"),
                Event::Failed { why } => format!("failed {why}"),
            });
        });
        words
    }

    impl AsMut<Reader> for Reader {
        fn as_mut(&mut self) -> &mut Reader {
            self
        }
    }

    #[test]
    fn each_decision_is_an_event_behind_which_a_reader_goes_on() {
        let all = ["00000007-3-128-1", "00000007-3-128-2", "00000007-3-300-1", "00000007-4-128-1"];
        assert_eq!(told(reader(fed(), 7, From::Start)), all);
        for (had, id) in (1..).zip(all) {
            let place: Place = id.parse().unwrap();
            let begun = if place.barrier == 4 { fed().split_off(3) } else { fed() };
            assert_eq!(told(reader(begun, 7, From::Behind(place))), all[had..], "behind {id}");
        }
        // Another process begins again at the barrier, since its order is another.
        let behind = From::Behind(all[2].parse().unwrap());
        assert_eq!(told(reader(fed(), 8, behind)).len(), 4);
    }

    #[test]
    fn what_is_missing_is_told() {
        let behind = From::Behind("00000007-2-128-1".parse().unwrap());
        assert_eq!(told(reader(fed(), 7, behind))[0], "gap 3");
        for (barrier, has_gap, is_told) in [(4, false, false), (4, true, true), (6, false, true)] {
            let mut fed = fed();
            fed[3] = Fed::Segment { barrier, has_gap };
            let told = told(reader(fed, 7, From::Start));
            assert_eq!(told.contains(&format!("gap {barrier}")), is_told, "{told:?}");
        }
    }

    #[test]
    fn a_reader_from_the_end_is_told_what_comes_later() {
        let later = Fed::Batch { offset: 300, bytes: batch(4, &[("c", 1)]) };
        let mut all = fed().into_iter().map(Some).chain([None, Some(later), None]);
        let mut reader = Reader::new(Box::new(move || Ok(all.next().flatten())), 7, From::End);
        assert!(told(&mut reader).is_empty());
        assert_eq!(told(&mut reader), ["00000007-4-300-1"]);
    }

    #[test]
    fn a_feed_that_fails_ends_with_the_reason() {
        let mut reader = Reader::new(Box::new(|| Err("check the disk".into())), 7, From::Start);
        assert_eq!(told(&mut reader), ["failed check the disk"]);
        assert!(told(&mut reader).is_empty() && reader.has_failed);
    }

    #[test]
    fn a_place_is_read_as_it_was_written_and_nothing_else() {
        let place = Place { process: 0xab, barrier: 5, offset: 6, decisions: 7 };
        assert_eq!(place.to_string().parse(), Ok(place));
        for text in ["", "5", "x-1-2-3", "1-2-3", "1-2-3-4-5", "1-2-3-4294967296", "1-+2--3-4"] {
            assert_eq!(text.parse::<Place>(), Err(()), "{text}");
        }
    }
}
