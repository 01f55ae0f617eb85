//! What happens by time alone: the core's deadlines, and the end of connections that are stuck.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Node;
use super::link::Sink;

/// How long a client may take for a frame that it has begun, and leave its answers unread.
const CLIENT_PATIENCE: Duration = Duration::from_secs(30);
/// How long a peer may be silent: while it lives it says at least how far it is.
const PEER_PATIENCE: Duration = Duration::from_secs(10);
/// How often connections are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

impl Node {
    /// Tells the core the time when it asks for it, and sweeps connections.
    pub(super) async fn run_ticks(self: Rc<Node>) {
        let mut swept = Instant::now();
        loop {
            let now = self.now();
            let due = self.inner.borrow().core.next_deadline();
            let micros = due.map_or(SWEEP_EVERY.as_micros() as u64, |due| due.since(now));
            glommio::timer::sleep(Duration::from_micros(micros).min(SWEEP_EVERY)).await;
            let now = self.now();
            self.inner.borrow_mut().core.on_timeout(now);
            self.touch();
            if swept.elapsed() >= SWEEP_EVERY {
                swept = Instant::now();
                self.sweep();
            }
        }
    }

    fn sweep(&self) {
        let inner = self.inner.borrow();
        inner.clients.values().for_each(|sink| close_if_stuck(sink));
        for sink in inner.links.incoming() {
            if sink.silent_for() > PEER_PATIENCE {
                sink.close("it was silent for too long");
            }
        }
    }
}

fn close_if_stuck(sink: &Sink) {
    if sink.partial_for() > CLIENT_PATIENCE {
        sink.close("it did not finish a frame in time");
    }
    if sink.stuck_for() > CLIENT_PATIENCE {
        sink.close("it does not read its answers");
    }
}
