//! One session of a publisher: it fences the one before, reads the cursor, and publishes until something fails.

use super::status::{Meters, Taken};
use super::{Publication, Source};
use crate::check::check;
use crate::client::Asking;
use crate::cursor::Cursor;
use crate::error::Error;
use crate::failpoint::{Step, pass};
use crate::record;
use crate::settings::Settings;
use crate::standing::Standing;
use crate::stop::Stop;
use crate::transaction::Transactions;
use isonomy_wire::published::PublishedBatch;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a publisher waits for batches before it looks whether it is to stop.
const IDLE_STEP: Duration = Duration::from_millis(100);

/// A publisher that Kafka knows as the newest of its shard.
pub(super) struct Session<'a, S> {
    asking: Asking<'a>,
    publication: Publication,
    source: &'a mut S,
    stop: Arc<Stop>,
    meters: Arc<Meters>,
    transactions: Transactions<'a>,
    cursor: Cursor,
}

impl<'a, S: Source> Session<'a, S> {
    /// P4: fences the publisher before this one, and only then asks what is published.
    pub(super) fn open(
        settings: &'a Settings,
        publication: Publication,
        source: &'a mut S,
        stop: Arc<Stop>,
        meters: Arc<Meters>,
    ) -> Result<Session<'a, S>, Error> {
        let asking = Asking { settings, shard: publication.shard };
        let reader = asking.reader("read_uncommitted")?;
        let topic = check(asking, publication.shards, &reader)?;
        // Who lacks decisions that are not published finds that out before it fences anybody. For this reader, partitions end
        // before the first open transaction: that of a publisher that has died stays open until it is fenced.
        if source.may_lack() {
            let glance = asking.reader("read_committed")?;
            let cursor = Standing::ask(asking, topic, &glance)?.judge(settings, publication)?;
            source.rewind(&cursor).map_err(Error::Source)?;
        }
        let id = publication.transactional_id(&settings.topic);
        let transactions = Transactions::fence(asking, &id, Arc::clone(&stop))?;
        let cursor = Standing::ask(asking, topic, &reader)?.judge(settings, publication)?;
        source.rewind(&cursor).map_err(Error::Source)?;
        meters.opened(cursor);
        pass(Step::Opened);
        Ok(Session { asking, publication, source, stop, meters, transactions, cursor })
    }

    /// Publishes what there is in one transaction. Waits until there is something.
    pub(super) fn transaction(&mut self) -> Result<(), Error> {
        let mut next = self.cursor;
        let taken = self.fill(&mut next)?;
        next.end = next.end.max(self.transactions.memory().end());
        self.transactions.send_cursor(&next)?;
        self.check_place()?;
        self.transactions.commit()?;
        self.cursor = next;
        self.source.on_published(&next);
        self.meters.committed(&taken, next);
        Ok(())
    }

    /// P3: begins a transaction with the first batch that is not published, and takes batches until the bounds are reached. A
    /// component is taken as a whole, however large it is.
    fn fill(&mut self, next: &mut Cursor) -> Result<Taken, Error> {
        let settings = self.asking.settings;
        let mut taken = Taken::default();
        let mut until = None;
        let mut is_whole = true;
        loop {
            if self.stop.is_set() {
                return Err(Error::Stopped);
            }
            let left = until.map(|until: Instant| until.saturating_duration_since(Instant::now()));
            if is_whole && (taken.bytes >= settings.batch_bytes || left == Some(Duration::ZERO)) {
                return Ok(taken);
            }
            if let Some(milestone) = self.source.passed() {
                next.pass(&milestone);
                if until.is_none() {
                    self.cursor = *next;
                }
            }
            let Some(bytes) = self.source.next().map_err(Error::Source)? else {
                self.source.wait(left.filter(|_| is_whole).map_or(IDLE_STEP, |left| left.min(IDLE_STEP)));
                continue;
            };
            let batch = PublishedBatch::parse(bytes)?;
            let origin = *batch.origin();
            if (origin.cluster, origin.shard) != (self.publication.cluster, self.publication.shard) {
                return Err(Error::Stray { cluster: origin.cluster, shard: origin.shard });
            }
            if self.cursor.covers(&origin) {
                continue;
            }
            next.add(&origin)?;
            if until.is_none() {
                self.transactions.begin()?;
                until = Some(Instant::now() + settings.batch_time);
            }
            record::each(settings, &batch, |record| self.transactions.send(record))?;
            self.transactions.poll();
            pass(Step::Produced);
            is_whole = !origin.has_more;
            taken.decisions += batch.len() as u64;
            taken.batches += 1;
            taken.bytes += batch.bytes().len();
        }
    }

    /// Records below an offset that the partition had reached are in another partition than those before: the topic was
    /// deleted and created again since this session has begun, or Kafka has lost some.
    fn check_place(&self) -> Result<(), Error> {
        let (end, reached) = (self.transactions.memory().first(), self.cursor.end);
        if end >= reached {
            return Ok(());
        }
        let (topic, partition) = (self.asking.settings.topic.clone(), i32::from(self.cursor.shard.0));
        Err(Error::Truncated { topic, partition, end, reached })
    }

    /// Gives up what is open.
    pub(super) fn abort(&self) {
        self.transactions.abort();
    }
}
