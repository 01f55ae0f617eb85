//! The shard's end of the mesh.

use isonomy_mesh::{FromShard, MemberAddress, ShardEnd, ShardSettings, ToShard};
use isonomy_wire::id::ReplicaId;
use isonomy_wire::message::ShardStatus;
use std::cell::{Cell, RefCell};

/// What the process has ordered, and the way back to it.
pub(crate) struct Mail {
    end: ShardEnd,
    is_stopping: Cell<bool>,
    addresses: RefCell<Vec<MemberAddress>>,
    settings: Cell<Option<ShardSettings>>,
}

impl Mail {
    /// No order has come; the members are found at `addresses`.
    pub(crate) fn new(end: ShardEnd, addresses: Vec<MemberAddress>) -> Mail {
        let addresses = RefCell::new(addresses);
        Mail { end, is_stopping: Cell::new(false), addresses, settings: Cell::default() }
    }

    /// Takes the orders that have come.
    fn take(&self) {
        for order in self.end.orders.take() {
            match order {
                ToShard::Stop => self.is_stopping.set(true),
                ToShard::Settings(settings) => self.settings.set(Some(settings)),
                ToShard::Addresses(addresses) => {
                    assert_eq!(addresses.len(), self.addresses.borrow().len(), "an epoch keeps its members");
                    self.addresses.replace(addresses);
                }
            }
        }
    }

    /// Where all members are found now.
    pub(crate) fn addresses(&self) -> Vec<MemberAddress> {
        self.take();
        self.addresses.borrow().clone()
    }

    /// Where a member is found now.
    pub(crate) fn address(&self, member: ReplicaId) -> MemberAddress {
        self.take();
        self.addresses.borrow()[member.index()].clone()
    }

    /// The settings that the process has ordered last.
    pub(crate) fn settings(&self) -> Option<ShardSettings> {
        self.take();
        self.settings.get()
    }

    /// Whether the process has told the shard to stop. The shard asks at each of its ticks.
    pub(crate) fn is_stopping(&self) -> bool {
        self.take();
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
        let mail = Mail::new(end, Vec::new());
        assert!(!mail.is_stopping());
        process.orders.send(ToShard::Stop).unwrap();
        assert!(mail.is_stopping() && mail.is_stopping());
    }

    #[test]
    fn the_newest_settings_count_and_stay() {
        let (process, end) = connect();
        let mail = Mail::new(end, Vec::new());
        assert_eq!(mail.settings(), None);
        let [first, second] =
            [false, true].map(|is_slow_agreed| ShardSettings { is_slow_agreed, ..ShardSettings::default() });
        for settings in [first, second] {
            process.orders.send(ToShard::Settings(settings)).unwrap();
        }
        assert_eq!((mail.settings(), mail.settings()), (Some(second), Some(second)));
    }

    #[test]
    fn the_newest_addresses_count() {
        let (process, end) = connect();
        let at = |port| MemberAddress { host: "db".into(), peer_base: port, client_base: port + 1 };
        let mail = Mail::new(end, vec![at(1), at(2)]);
        let order = |addresses| process.orders.send(ToShard::Addresses(addresses)).unwrap();
        order(vec![at(3), at(4)]);
        order(vec![at(1), at(5)]);
        assert_eq!((mail.address(ReplicaId(0)), mail.address(ReplicaId(1))), (at(1), at(5)));
    }

    #[test]
    fn a_process_that_takes_no_mail_holds_up_nobody() {
        let (process, end) = connect();
        let mail = Mail::new(end, Vec::new());
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
