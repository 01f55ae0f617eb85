//! The thread that publishes a shard.

mod record;
mod session;
mod status;
mod stop;

pub use status::Status;
pub use stop::Stop;

use crate::cursor::Cursor;
use crate::error::Error;
use crate::settings::Settings;
use isonomy_mesh::Milestone;
use isonomy_wire::id::{ClusterId, ShardId};
use session::Session;
use status::Meters;
use std::convert::Infallible;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long a publisher waits before it tries again, first and at most. The time doubles with each try.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What a publisher publishes: the batches of a shard that this replica has, in its order of execution.
pub trait Source: Send {
    /// Begins again, at a batch that the cursor does not cover or at one before it. Every batch that the cursor does not
    /// cover is given from now on; batches that it covers may be given as well.
    ///
    /// # Errors
    ///
    /// Why batches that the cursor does not cover cannot be given.
    fn rewind(&mut self, cursor: &Cursor) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;

    /// The next batch; `None` if there is none yet.
    ///
    /// # Errors
    ///
    /// Why it cannot be given.
    fn next(&mut self) -> Result<Option<&[u8]>, Box<dyn std::error::Error + Send + Sync>>;

    /// Waits until there is a batch, or for so long. It may return earlier.
    fn wait(&mut self, at_most: Duration);

    /// Whether batches may be missing that are not published yet.
    fn may_lack(&self) -> bool {
        false
    }

    /// A barrier that was passed since this was asked last: all batches before it were given. Instances that decide nothing
    /// have no batch, and only a barrier says that they came before.
    fn passed(&mut self) -> Option<Milestone> {
        None
    }

    /// Hears what is published for good.
    fn on_published(&mut self, cursor: &Cursor);
}

/// Whose batches are published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Publication {
    /// The cluster.
    pub cluster: ClusterId,
    /// The shard, which is also the number of the partition.
    pub shard: ShardId,
    /// The number of shards of the cluster.
    pub shards: usize,
}

impl Publication {
    /// The id by which Kafka knows the publisher of a partition. Whoever comes later with it fences who came before.
    pub fn transactional_id(&self, topic: &str) -> String {
        format!("isonomy/{}/{topic}/{}", self.cluster, self.shard.0)
    }
}

/// A thread that publishes a shard.
#[derive(Debug)]
pub struct Publisher {
    stop: Arc<Stop>,
    meters: Arc<Meters>,
    thread: JoinHandle<Result<(), Error>>,
}

impl Publisher {
    /// Starts a publisher.
    ///
    /// # Errors
    ///
    /// [`Error`] if the settings cannot be used, or if the system gives no thread.
    pub fn start(
        settings: Settings,
        publication: Publication,
        source: impl Source + 'static,
    ) -> Result<Publisher, Error> {
        settings.check()?;
        let (stop, meters) = (Arc::new(Stop::default()), Arc::new(Meters::default()));
        let run = Run { settings, publication, stop: Arc::clone(&stop), meters: Arc::clone(&meters) };
        let thread = thread::Builder::new()
            .name(format!("publish-{}", publication.shard.0))
            .spawn(move || run.run(source))
            .map_err(|error| Error::Source(error.into()))?;
        Ok(Publisher { stop, meters, thread })
    }

    /// How far the publisher is.
    pub fn status(&self) -> Status {
        self.meters.status()
    }

    /// Whether the publisher has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Asks the publisher to end. A transaction that is open is given up.
    pub fn stop(&self) {
        self.stop.set();
    }

    /// Waits until the publisher has ended.
    ///
    /// # Errors
    ///
    /// Why it has ended, if it was not asked to.
    pub fn join(self) -> Result<(), Error> {
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

struct Run {
    settings: Settings,
    publication: Publication,
    stop: Arc<Stop>,
    meters: Arc<Meters>,
}

impl Run {
    /// Publishes until it is stopped or fails for good.
    fn run(&self, mut source: impl Source) -> Result<(), Error> {
        let mut pause = PAUSE_MIN;
        loop {
            let before = self.meters.status().transactions;
            let Err(error) = self.session(&mut source);
            if matches!(error, Error::Stopped) {
                return Ok(());
            }
            self.meters.set_error(&error);
            if !error.is_passing() {
                log::error!("Shard {} is no longer published: {error}", self.publication.shard.0);
                return Err(error);
            }
            log::warn!("Shard {} is not published for now: {error}", self.publication.shard.0);
            let has_published = self.meters.status().transactions > before;
            pause = if has_published { PAUSE_MIN } else { (2 * pause).min(PAUSE_MAX) };
            if self.stop.wait(pause) {
                return Ok(());
            }
        }
    }

    /// From the first word to Kafka until something fails. Whatever failed, the next session fences this one and begins at
    /// the cursor that Kafka then has.
    fn session(&self, source: &mut impl Source) -> Result<Infallible, Error> {
        let mut session = Session::open(
            &self.settings,
            self.publication,
            source,
            Arc::clone(&self.stop),
            Arc::clone(&self.meters),
        )?;
        let error = loop {
            if let Err(error) = session.transaction() {
                break error;
            }
        };
        session.abort();
        Err(error)
    }
}
