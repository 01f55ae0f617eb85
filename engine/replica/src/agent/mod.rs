//! `isonomy agent`: the decisions of a topic in an SQLite file, and on their way to an HTTP service.

mod args;
mod metrics;

pub(crate) use args::AgentArgs;
#[cfg(test)]
pub(crate) use args::{HOOK_CONCURRENCY, HOOK_TIMEOUT_SECONDS, STALENESS_SECONDS_MAX};

use crate::fatal::{Fatal, Reason, failed};
use crate::logging;
use crate::threads::no_thread;
use args::ahead_of_hook;
use isonomy_agent::{Agent, Error, FileError, Hook, HookError, HookStatus, Table, Watch};
use isonomy_tuning::signals;
use metrics::Watched;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often the command looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Those who read the topic: one for the table, and one for the hook, each with its own positions. So a hook that hangs does
/// not hold the table up.
struct Readers {
    all: Vec<Agent>,
    hook: Option<Arc<HookStatus>>,
}

/// Runs until the process is told to stop, or a reader fails for good.
pub(crate) fn run(args: &AgentArgs) -> Result<(), Fatal> {
    logging::speak_apart().map_err(no_thread("for the log"))?;
    let stopping = signals::watch_end()
        .map_err(|error| Fatal::new(Reason::Machine, format!("signals cannot be handled: {error}")))?;
    let readers = Readers::start(args)?;
    let done = serve(args, &readers, &stopping);
    let decisions = readers.all[0].status().decisions;
    let ended = readers.end();
    done.and(ended)?;
    logging::say_last(&format!(
        "isonomy: the agent has stopped in good order, having applied {decisions} decisions"
    ));
    Ok(())
}

fn serve(args: &AgentArgs, readers: &Readers, stopping: &Arc<AtomicBool>) -> Result<(), Fatal> {
    if let Some(address) = &args.metrics {
        let at = metrics::serve(address, readers.watched(args.staleness_max()))?;
        logging::say(&format!("isonomy: metrics are at http://{at}/metrics"));
    }
    while !stopping.load(Ordering::Relaxed) && !readers.all.iter().any(Agent::has_ended) {
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

impl Readers {
    fn start(args: &AgentArgs) -> Result<Readers, Fatal> {
        let settings = args.settings()?;
        let table = Table::open(&args.file).map_err(of_file)?;
        let hook = args.hook().map(|hook| {
            let ahead = ahead_of_hook(&settings, &hook);
            Hook::open(&args.file, hook).map(|hook| (ahead, hook)).map_err(of_hook)
        });
        let hook = hook.transpose()?;
        let mut readers = Readers { all: Vec::new(), hook: hook.as_ref().map(|(_, hook)| hook.status()) };
        readers.all.push(Agent::start(settings, table).map_err(of_agent)?);
        if let Some((ahead, hook)) = hook {
            readers.all.push(Agent::start(ahead, hook).map_err(of_agent)?);
        }
        Ok(readers)
    }

    fn watched(&self, staleness_max: Duration) -> Watched {
        let watches: Vec<Watch> = self.all.iter().map(Agent::watch).collect();
        Watched { watches, hook: self.hook.clone(), staleness_max }
    }

    /// Ends all. The first that has failed says why.
    fn end(self) -> Result<(), Fatal> {
        self.all.iter().for_each(Agent::stop);
        let ends: Vec<_> = self.all.into_iter().map(Agent::join).collect();
        ends.into_iter().collect::<Result<(), _>>().map_err(of_agent)
    }
}

/// Which exit code an error has.
fn of_agent(error: Error) -> Fatal {
    let reason = match &error {
        Error::Settings(_) | Error::NoPartition { .. } => Reason::Config,
        Error::NoThread(_) => Reason::Machine,
        Error::Replaced { .. }
        | Error::Expired { .. }
        | Error::Truncated { .. }
        | Error::BadRecord { .. }
        | Error::OutOfSequence(_) => Reason::Unfollowed,
        Error::Projection(_) => return of_projection(error),
        Error::Unanswered { .. }
        | Error::Missing { .. }
        | Error::Forbidden { .. }
        | Error::NoId(_)
        | Error::Stopped => Reason::Failed,
    };
    Fatal::new(reason, error.to_string())
}

fn of_projection(error: Error) -> Fatal {
    let Error::Projection(failure) = error else { return failed(error) };
    match failure.downcast::<FileError>() {
        Ok(error) => of_file(*error),
        Err(failure) => match failure.downcast::<HookError>() {
            Ok(error) => of_hook(*error),
            Err(failure) => Fatal::new(Reason::Failed, failure.to_string()),
        },
    }
}

fn of_file(error: FileError) -> Fatal {
    let reason = match &error {
        FileError::Sqlite { .. } if error.is_disk_failure() => Reason::Disk,
        FileError::Sqlite { .. } => Reason::Failed,
        FileError::Foreign(_) | FileError::Version { .. } | FileError::Shared { .. } => Reason::DataDir,
        FileError::Damaged { .. } => Reason::Damaged,
    };
    Fatal::new(reason, error.to_string())
}

fn of_hook(error: HookError) -> Fatal {
    let reason = match error {
        HookError::File(error) => return of_file(error),
        HookError::Settings(_) => Reason::Config,
        HookError::Refused { .. } => Reason::Rejected,
        HookError::Stopped => Reason::Failed,
    };
    Fatal::new(reason, error.to_string())
}
