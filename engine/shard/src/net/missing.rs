//! Logs the members that are not linked, less often each time.

use crate::node::Node;
use crate::waiting::Reminder;
use isonomy_wire::id::ReplicaId;
use std::cell::RefCell;
use std::time::Duration;

/// How long a member may be missing before the replica logs that, since a cluster that starts needs some seconds.
const TOLD_AFTER: Duration = Duration::from_secs(5);

/// The state of these reports.
#[derive(Default)]
pub(crate) struct Missing {
    /// When the next report is due; `None` while no member is missing.
    reminder: RefCell<Option<Reminder>>,
}

impl Node {
    /// Logs the missing members, if it is time.
    pub(crate) fn tell_missing(&self) {
        let mut reminder = self.net.missing.reminder.borrow_mut();
        let is_linked = |peer| self.net.links.borrow().linked().any(|linked| linked == peer);
        if self.seat.peers().all(is_linked) {
            *reminder = None;
            return;
        }
        if !reminder.get_or_insert_with(|| Reminder::new(TOLD_AFTER)).is_due() {
            return;
        }
        let missing: Vec<String> = self.seat.peers().filter_map(|peer| self.describe_missing(peer)).collect();
        let Some(own) = self.place(self.seat.replica) else { return };
        let own = own.address;
        log::warn!(
            "shard {}: not linked with {}. This replica is expected at {}:{} by them{}",
            self.settings().shard.0,
            missing.join(", "),
            own.host,
            own.peer_base + self.settings().shard.0,
            self.settings().unreachable.as_ref().map_or(String::new(), |why| format!("; {why}"))
        );
    }

    fn describe_missing(&self, peer: ReplicaId) -> Option<String> {
        let links = self.net.links.borrow();
        let how = match links.directions(peer) {
            (true, true) => return None,
            (true, false) if links.is_greeted(peer) => {
                "is reached, but takes no part before others have confirmed that its state is the newest"
            }
            (true, false) => "is reached from here, but does not reach this replica",
            (false, true) => "reaches this replica, but is not reached from here",
            (false, false) => "is not reached",
        };
        let member = self.place(peer)?.address;
        Some(format!(
            "replica {peer} ({}:{}), which {how}",
            member.host,
            member.peer_base + self.settings().shard.0
        ))
    }
}
