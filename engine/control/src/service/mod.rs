//! The process's part in the membership: one ordinary thread that follows the record in etcd, keeps the newest one, says
//! who is alive, and says that this member is. It goes on for as long as etcd is gone.

use crate::cache::{Cache, CacheError};
use crate::driver::{Driver, Report};
use crate::presence::Presence;
use crate::settings::{BadSettings, Settings};
use crate::store::Store;
use isonomy_wire::tuning::Loss;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::sync::watch::{Receiver, Sender, channel};

mod follower;
mod publisher;
mod tuner;
mod view;

use follower::Follower;
use publisher::Publisher;
use tuner::{SettingsFile, Tuner};
pub use view::{Etcd, TuningView, Unfollowed, View};

/// How long a member's sign of life stands after it was renewed last.
pub const LIFE: Duration = Duration::from_secs(10);

/// The name of the file with the settings, beside that of the record.
pub const SETTINGS_FILE: &str = "settings.json";

/// What the service is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where etcd is.
    pub settings: Settings,
    /// The name of the cluster.
    pub cluster: String,
    /// The file for the newest record. The settings are kept beside it.
    pub cache: PathBuf,
    /// What to publish, if the process is a member. Only a member carries changes on.
    pub presence: Option<Presence>,
    /// How long the sign of life stands; [`LIFE`] unless there is a reason.
    pub life: Duration,
}

/// Why the service cannot begin. An etcd that does not answer is no reason.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings cannot be used.
    #[error("{0}")]
    Settings(#[from] BadSettings),
    /// The file with the newest record cannot be used.
    #[error("{0}")]
    Cache(#[from] CacheError),
    /// The system gives no thread.
    #[error("no thread for etcd: {0}; raise the limits on processes and open files")]
    Thread(std::io::Error),
}

/// The running service. It ends when it is dropped, and takes the sign of life away.
#[derive(Debug)]
pub struct Service {
    views: Receiver<View>,
    reports: Sender<Report>,
    judged: Sender<Option<Loss>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Begins with the record in the file, if there is one, and follows etcd from there.
    ///
    /// # Errors
    /// [`StartError`] if it cannot begin.
    pub fn start(options: Options) -> Result<Service, StartError> {
        let Options { settings, cluster, cache, presence, life } = options;
        let settings = Arc::new(settings);
        let store = || Store::new(settings.clone(), &cluster);
        let settings_file = SettingsFile(cache.with_file_name(SETTINGS_FILE));
        let cache = Cache::new(&cache);
        let record = cache.load(&cluster)?.map(Arc::new);
        let (sender, views) = channel(View::new(record, settings_file.load()));
        let (reports, reported) = channel(Report::default());
        let (stop, stopped) = oneshot::channel();
        let (judged, judgement) = channel(None);
        let own = presence.as_ref().map(|presence| presence.id);
        let tuner = Tuner::new(store()?, settings_file, sender.clone(), own, judgement);
        let follower = Follower::new(store()?, cache, sender);
        let member = match presence {
            Some(own) => Some(MemberTasks {
                publisher: Publisher::new(store()?, own.clone(), life),
                driver: Driver::new(store()?, own, views.clone(), reported),
            }),
            None => None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(StartError::Thread)?;
        let run = move || {
            runtime.block_on(run(follower, member, tuner, stopped));
            // A name that is still looked up, on a thread of its own, holds nobody up.
            runtime.shutdown_background();
        };
        let thread =
            std::thread::Builder::new().name("etcd".into()).spawn(run).map_err(StartError::Thread)?;
        Ok(Service { views, reports, judged, stop: Some(stop), thread: Some(thread) })
    }

    /// What the shards of this member have come to. The service tells the others what a change needs of it.
    pub fn report(&self, report: Report) {
        self.reports.send_if_modified(|known| std::mem::replace(known, report) != report);
    }

    /// Says whether this member judges that a fast quorum cannot be formed (law, section 4b).
    pub fn judge(&self, loss: Option<Loss>) {
        self.judged.send_if_modified(|judged| std::mem::replace(judged, loss) != loss);
    }

    /// What is known now.
    #[must_use]
    pub fn view(&self) -> View {
        self.views.borrow().clone()
    }

    /// The views as they come: the newest one is kept, and any runtime can wait for the next.
    #[must_use]
    pub fn views(&self) -> Receiver<View> {
        self.views.clone()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // The thread sees that the sender is gone.
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // Whatever it panicked with was printed when it did.
            let _ = thread.join();
        }
    }
}

/// What the service does for a process that is a member.
struct MemberTasks {
    publisher: Publisher,
    driver: Driver,
}

async fn run(
    mut follower: Follower,
    mut member: Option<MemberTasks>,
    mut tuner: Tuner,
    stopped: oneshot::Receiver<()>,
) {
    let take_part = async {
        match &mut member {
            Some(MemberTasks { publisher, driver }) => tokio::join!(publisher.run(), driver.run()),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = follower.run() => {}
        () = tuner.run() => {}
        _ = take_part => {}
        // Nothing is ever sent: the service is dropped.
        _ = stopped => {}
    }
    if let Some(MemberTasks { publisher, .. }) = &mut member {
        publisher.end().await;
    }
}
