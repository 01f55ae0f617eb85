//! Tasks that end with their owner.

use glommio::Task;
use std::cell::RefCell;

/// The lasting tasks of a node.
#[derive(Default)]
pub(crate) struct Tasks(RefCell<Vec<Task<()>>>);

impl Tasks {
    /// Runs a task until it ends or is cancelled.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.0.borrow_mut().push(glommio::spawn_local(task));
    }

    /// Ends all tasks at whatever they wait for.
    pub(crate) async fn cancel(&self) {
        let tasks = self.0.take();
        for task in tasks {
            task.cancel().await;
        }
    }
}
