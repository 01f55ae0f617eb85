//! The shard's end of the mesh.

use isonomy_mesh::{FromShard, ShardEnd, ToShard};
use isonomy_wire::message::ShardStatus;
use std::cell::Cell;

/// What the process has ordered, and the way back to it.
pub(crate) struct Mail {
    end: ShardEnd,
    is_stopping: Cell<bool>,
}

impl Mail {
    pub(crate) fn new(end: ShardEnd) -> Mail {
        Mail { end, is_stopping: Cell::new(false) }
    }

    /// Whether the process has told the shard to stop. The shard asks at each of its ticks.
    pub(crate) fn is_stopping(&self) -> bool {
        for order in self.end.orders.take() {
            match order {
                ToShard::Stop => self.is_stopping.set(true),
            }
        }
        self.is_stopping.get()
    }

    /// The ports are served.
    pub(crate) fn say_ready(&self) {
        // A process that does not take its mail is ending.
        let _ = self.end.news.send(FromShard::Ready);
    }

    /// Sends the metrics; they are left out if the process has not taken earlier ones.
    pub(crate) fn send_metrics(&self, metrics: ShardStatus) {
        let _ = self.end.news.send(FromShard::Metrics(Box::new(metrics)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_mesh::{LANE_MAX, connect};

    #[test]
    fn an_order_to_stop_stays() {
        let (process, end) = connect();
        let mail = Mail::new(end);
        assert!(!mail.is_stopping());
        process.orders.send(ToShard::Stop).unwrap();
        assert!(mail.is_stopping() && mail.is_stopping());
    }

    #[test]
    fn a_process_that_takes_no_mail_holds_up_nobody() {
        let (process, end) = connect();
        let mail = Mail::new(end);
        (0..2 * LANE_MAX as u64)
            .for_each(|decisions| mail.send_metrics(ShardStatus { decisions, ..Default::default() }));
        let taken: Vec<u64> = process
            .news
            .take()
            .map(|news| match news {
                FromShard::Metrics(metrics) => metrics.decisions,
                FromShard::Ready => unreachable!("nobody has said that"),
            })
            .collect();
        assert_eq!(taken, (0..LANE_MAX as u64).collect::<Vec<_>>());
    }
}
