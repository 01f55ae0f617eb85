//! Times at which the whole machine stood still, such as a virtual machine that its host does not
//! run. No replica can answer then, so a pause of the clients is judged without them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long the watching thread sleeps at a time.
const NAP: Duration = Duration::from_millis(1);
/// Oversleeping by less is ordinary scheduling.
const STALL_MIN: Duration = Duration::from_millis(20);

/// Watches for stalls until it is dropped.
pub(crate) struct Stalls {
    total_us: Arc<AtomicU64>,
    stopping: Arc<AtomicBool>,
}

impl Stalls {
    /// Starts a thread that does nothing but sleep, and notes when that took too long.
    pub(crate) fn watch() -> Stalls {
        let (total_us, stopping) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (total, stop) = (total_us.clone(), stopping.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                std::thread::sleep(NAP);
                let over = began.elapsed().saturating_sub(NAP);
                if over >= STALL_MIN {
                    total.fetch_add(over.as_micros() as u64, Ordering::Relaxed);
                }
            }
        });
        Stalls { total_us, stopping }
    }

    /// The total time for which the machine has stood still.
    pub(crate) fn total(&self) -> Duration {
        Duration::from_micros(self.total_us.load(Ordering::Relaxed))
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}
