//! Work that may block and does not belong to the log: files that are written or read for a snapshot, the replica's
//! own or a peer's. The work runs on a thread of its own, since glommio's thread for such work belongs to the log.
//! Any other work there would delay the next segment, and so every decision.

use isonomy_mesh::bell::Bell;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, channel, sync_channel};

use crate::signal::Signal;

/// The most pieces of work that may wait for the thread: the shard's own, and one or two for each peer.
const WAITING_MAX: usize = 16;

type Work = Box<dyn FnOnce() + Send>;

/// The shard's handle to the thread.
pub(crate) struct Aside {
    queue: SyncSender<Work>,
    bell: Arc<Bell>,
    /// Notified when a piece of work is done.
    done: Signal,
}

impl Aside {
    /// Starts the thread, which lives as long as the shard.
    pub(crate) fn start() -> std::io::Result<Aside> {
        let (queue, waiting) = sync_channel(WAITING_MAX);
        let bell = Arc::new(Bell::default());
        let ringing = bell.clone();
        std::thread::Builder::new().name("aside".into()).spawn(move || work_off(&waiting, &ringing))?;
        Ok(Aside { queue, bell, done: Signal::default() })
    }

    /// Notifies waiting tasks that work is done, for ever. Only one task may call this.
    pub(crate) async fn listen(&self) {
        let mut heard = 0;
        loop {
            heard = self.bell.rung(heard).await;
            self.done.notify();
        }
    }

    /// Runs `work` on the thread, after the work that waits there.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (work, result) = answering(work);
        let mut unsent = Some(work);
        while let Some(work) = unsent.take() {
            unsent = self.send(work);
            if unsent.is_some() {
                self.done.wait().await;
            }
        }
        self.result(result).await
    }

    /// Runs `work` on the thread; `None`, without running it, if too much waits there already.
    pub(crate) async fn try_run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (work, result) = answering(work);
        if self.send(work).is_some() { None } else { Some(self.result(result).await) }
    }

    /// Hands work to the thread, or gives it back if there is no room for it.
    fn send(&self, work: Work) -> Option<Work> {
        match self.queue.try_send(work) {
            Ok(()) => None,
            Err(TrySendError::Full(work)) => Some(work),
            Err(TrySendError::Disconnected(_)) => unreachable!("the thread ends after its queue"),
        }
    }

    async fn result<T>(&self, result: Receiver<T>) -> T {
        loop {
            match result.try_recv() {
                Ok(result) => return result,
                Err(TryRecvError::Empty) => self.done.wait().await,
                Err(TryRecvError::Disconnected) => unreachable!("work that panics ends the process"),
            }
        }
    }
}

/// The work with a sender for its result, and the receiver.
fn answering<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> (Work, Receiver<T>) {
    let (answer, result) = channel();
    // The receiver may be gone.
    (Box::new(move || drop(answer.send(work()))), result)
}

fn work_off(waiting: &Receiver<Work>, bell: &Bell) {
    while let Ok(work) = waiting.recv() {
        work();
        bell.ring();
    }
}
