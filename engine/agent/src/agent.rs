//! The thread that reads decisions into a projection.

use crate::error::Error;
use crate::fresh::Freshness;
use crate::projection::Projection;
use crate::session::Session;
use crate::settings::Settings;
use crate::status::{Meters, Status};
use isonomy_kafka::Stop;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long an agent waits before it tries again, first and at most. The time doubles with each try.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A thread that reads decisions into a projection. A dropped agent goes on until the process ends; [`Agent::stop`] and
/// [`Agent::join`] end it in good order.
#[derive(Debug)]
pub struct Agent {
    stop: Arc<Stop>,
    meters: Arc<Meters>,
    thread: JoinHandle<Result<(), Error>>,
}

impl Agent {
    /// Starts an agent. Kafka may come later: the agent waits for it, and [`Status::trouble`] says so.
    ///
    /// # Errors
    ///
    /// [`Error::Settings`] if the settings cannot be used, [`Error::NoThread`] if the system gives no thread.
    pub fn start(settings: Settings, projection: impl Projection + 'static) -> Result<Agent, Error> {
        settings.check()?;
        let (stop, meters) = (Arc::new(Stop::default()), Arc::new(Meters::default()));
        let run = Run { settings, stop: Arc::clone(&stop), meters: Arc::clone(&meters) };
        let thread = thread::Builder::new().name("agent".into()).spawn(move || run.run(projection));
        Ok(Agent { stop, meters, thread: thread.map_err(Error::NoThread)? })
    }

    /// How far the agent is.
    pub fn status(&self) -> Status {
        self.meters.status()
    }

    /// The status for others, who may outlive the agent.
    pub fn watch(&self) -> Watch {
        Watch(Arc::clone(&self.meters))
    }

    /// Whether the agent has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Asks the agent to end. What is gathered and not applied is read again at the next start.
    pub fn stop(&self) {
        self.stop.set();
    }

    /// Waits until the agent has ended.
    ///
    /// # Errors
    ///
    /// Why it has ended, if it was not asked to.
    pub fn join(self) -> Result<(), Error> {
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Tells how far an agent is, from any thread.
#[derive(Clone, Debug)]
pub struct Watch(Arc<Meters>);

impl Watch {
    /// How far the agent is.
    pub fn status(&self) -> Status {
        self.0.status()
    }
}

struct Run {
    settings: Settings,
    stop: Arc<Stop>,
    meters: Arc<Meters>,
}

impl Run {
    /// Reads until it is stopped or fails for good. Whatever failed, the next session begins at the projection's positions.
    fn run(&self, mut projection: impl Projection) -> Result<(), Error> {
        let mut freshness = Freshness::default();
        let mut pause = PAUSE_MIN;
        loop {
            let before = self.meters.status().batches;
            let opened =
                Session::open(&self.settings, &mut projection, &self.stop, &self.meters, &mut freshness);
            let Err(error) = opened.and_then(|mut session| session.run());
            if self.stop.is_set() {
                return Ok(());
            }
            self.meters.trouble(&error);
            if !error.is_passing() {
                return Err(error);
            }
            let has_applied = self.meters.status().batches > before;
            pause = if has_applied { PAUSE_MIN } else { (2 * pause).min(PAUSE_MAX) };
            if self.stop.wait(pause) {
                return Ok(());
            }
        }
    }
}
