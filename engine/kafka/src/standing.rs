//! How a shard stands at Kafka, and whether it may be published there.

use crate::check::{Facts, Unfit, judged};
use crate::client::{Asking, Reader};
use crate::cursor::{Cursor, TopicId};
use crate::error::Error;
use crate::publisher::Publication;
use crate::read::{bounds, has_records, newest_cursor};
use crate::settings::Settings;
use isonomy_wire::id::ShardId;

/// A topic, as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicStanding {
    /// Its name.
    pub topic: String,
    /// What it is like, if it exists.
    pub facts: Option<Facts>,
    /// Why it cannot be used, if it cannot.
    pub unfit: Option<Unfit>,
}

/// What Kafka has of a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// The id of the topic of the decisions.
    pub topic: TopicId,
    /// Where its partition ends.
    pub end: u64,
    /// The newest committed cursor.
    pub cursor: Option<Cursor>,
    /// Whether the partition has committed records. It is only looked where there is no cursor.
    pub has_records: bool,
}

impl Standing {
    /// Asks Kafka. What is behind an open transaction is seen only by a reader that reads everything, which waits for its end.
    pub(crate) fn ask(asking: Asking<'_>, topic: TopicId, reader: &Reader) -> Result<Standing, Error> {
        let (name, partition) = (&asking.settings.topic, i32::from(asking.shard.0));
        let cursor = newest_cursor(asking, reader)?;
        let has_records = cursor.is_none() && has_records(asking, name, partition, reader)?;
        let end = bounds(asking, name, partition, reader)?.1.unsigned_abs();
        Ok(Standing { topic, end, cursor, has_records })
    }

    /// The cursor to go on from, if the topic is this publication's.
    ///
    /// # Errors
    ///
    /// Why nothing may be published: [`Error::Owned`], [`Error::Replaced`], [`Error::Truncated`] or [`Error::NoCursor`].
    pub fn judge(&self, settings: &Settings, publication: Publication) -> Result<Cursor, Error> {
        let Publication { cluster, shard, .. } = publication;
        let (topic, partition) = (settings.topic.clone(), i32::from(shard.0));
        let Some(cursor) = self.cursor else {
            return match self.has_records {
                true => Err(Error::NoCursor { topic, partition }),
                false => Ok(Cursor::nothing(cluster, shard, self.topic)),
            };
        };
        if (cursor.cluster, cursor.shard) != (cluster, shard) {
            return Err(Error::Owned { topic, cluster, shard, there: Box::new(cursor) });
        }
        if cursor.topic != self.topic {
            return Err(Error::Replaced { topic, cursor: Box::new(cursor) });
        }
        if self.end < cursor.end {
            return Err(Error::Truncated { topic, partition, end: self.end, reached: cursor.end });
        }
        Ok(cursor)
    }
}

/// What the topic of the decisions and that of the cursors are like.
///
/// # Errors
///
/// [`Error`] if Kafka does not answer.
pub fn topics(settings: &Settings, shards: usize) -> Result<[TopicStanding; 2], Error> {
    settings.check()?;
    let asking = Asking { settings, shard: ShardId::default() };
    judged(asking, shards, &asking.reader("read_committed")?)
}

/// What Kafka has of a shard, but for what an open transaction hides.
///
/// # Errors
///
/// [`Error`] if Kafka does not answer, if the topics cannot be used, or if the cursor cannot be read.
pub fn standing(settings: &Settings, shards: usize, shard: ShardId) -> Result<Standing, Error> {
    settings.check()?;
    let asking = Asking { settings, shard };
    let reader = asking.reader("read_committed")?;
    let topic = crate::check::check(asking, shards, &reader)?;
    Standing::ask(asking, topic, &reader)
}
