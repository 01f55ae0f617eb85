//! V16: with at most f down and a fair network, everything seen is committed and executed at
//! every live replica within a bounded time.

use isonomy_protocol::limits::OWN_UNEXECUTED_MAX;
use isonomy_protocol::replica::Replica;

/// The time is over, and nothing may be left.
pub fn assert_all_executed<'a>(live: impl Iterator<Item = &'a Replica>) {
    let statuses: Vec<_> = live.map(Replica::status).collect();
    for status in &statuses {
        assert_eq!(status.unexecuted, 0, "V16: replica {} waits for {:?}", status.replica, status.waiting_on);
        assert_eq!(status.frontier, statuses[0].frontier, "V16: live replicas have executed the same");
    }
}

/// A replica never has more of its own instances unexecuted (section 6), and instances that execute together were
/// unexecuted together. A crash undoes executions that were not durable, so each start counts once more.
pub fn assert_components_are_bounded(largest: usize, starts: usize) {
    let most = starts * OWN_UNEXECUTED_MAX;
    assert!(largest <= most, "V16: a component of {largest} instances, {most} are possible");
}
