//! Wakes the executor every now and then from outside.
//!
//! glommio 0.9 can park while tasks are runnable: when its preemption ring has an entry before any
//! task of a round has run, it takes that for "nothing to do". If nothing else comes, it stays
//! parked; replicas have the same remedy.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

const PERIOD: Duration = Duration::from_millis(10);

/// Starts the thread that wakes this task, and so its executor; never ready.
pub(super) async fn run() {
    let mut starts = true;
    poll_fn(|context| {
        if std::mem::take(&mut starts) {
            let waker = context.waker().clone();
            std::thread::spawn(move || {
                loop {
                    std::thread::sleep(PERIOD);
                    waker.wake_by_ref();
                }
            });
        }
        Poll::Pending
    })
    .await
}
