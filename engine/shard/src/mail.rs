//! The shard's end of the mesh.

use isonomy_mesh::{FeedEnd, FromShard, Progress, Roster, ShardEnd, ShardSettings, ToShard};
use isonomy_wire::id::RecordId;
use isonomy_wire::message::ShardStatus;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// What the process has ordered, and the way back to it.
pub(crate) struct Mail {
    end: ShardEnd,
    is_stopping: Cell<bool>,
    roster: RefCell<Rc<Roster>>,
    sealing: Cell<Option<RecordId>>,
    settings: Cell<Option<ShardSettings>>,
    settings_trouble: RefCell<String>,
    /// What the process was told last.
    progress: Cell<Option<Progress>>,
}

impl Mail {
    /// No order has come; the epoch is that of `roster`.
    pub(crate) fn new(end: ShardEnd, roster: Roster) -> Mail {
        Mail {
            end,
            is_stopping: Cell::new(false),
            roster: RefCell::new(Rc::new(roster)),
            sealing: Cell::new(None),
            settings: Cell::default(),
            settings_trouble: RefCell::default(),
            progress: Cell::new(None),
        }
    }

    /// The way to the sink, if there is one. It is taken once.
    pub(crate) fn take_feed(&mut self) -> Option<FeedEnd> {
        self.end.feed.take()
    }

    /// Takes the orders that have come.
    fn take(&self) {
        for order in self.end.orders.take() {
            match order {
                ToShard::Stop => self.is_stopping.set(true),
                ToShard::Seal(record) => self.sealing.set(Some(record)),
                ToShard::Settings(settings) => self.settings.set(Some(settings)),
                ToShard::SettingsTrouble(text) => _ = self.settings_trouble.replace(text),
                ToShard::Roster(roster) => {
                    let known = self.roster.borrow().epoch;
                    assert!(roster.epoch >= known, "the process follows no earlier epoch");
                    if roster.epoch > known {
                        self.sealing.set(None);
                    }
                    self.roster.replace(Rc::new(roster));
                }
            }
        }
    }

    /// Who takes part now.
    pub(crate) fn roster(&self) -> Rc<Roster> {
        self.take();
        self.roster.borrow().clone()
    }

    /// The record that the Seal of the epoch is to name, if the epoch is to end.
    pub(crate) fn sealing(&self) -> Option<RecordId> {
        self.take();
        self.sealing.get()
    }

    /// The settings that the process has ordered last.
    pub(crate) fn settings(&self) -> Option<ShardSettings> {
        self.take();
        self.settings.get()
    }

    /// Why the settings in etcd are not followed; empty if they are.
    pub(crate) fn settings_trouble(&self) -> String {
        self.take();
        self.settings_trouble.borrow().clone()
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

    /// Tells the process what the shard has come to, unless it knows. A lane that is full is tried again by the next
    /// call.
    pub(crate) fn send_progress(&self, progress: Progress) {
        if self.progress.get() != Some(progress) && self.end.news.send(FromShard::Progress(progress)).is_ok()
        {
            self.progress.set(Some(progress));
        }
    }

    /// Sends the metrics; they are left out if the process has not taken earlier ones.
    pub(crate) fn send_metrics(&self, metrics: ShardStatus) {
        let _ = self.end.news.send(FromShard::Metrics(Box::new(metrics)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_mesh::{EpochEnd, LANE_MAX, MemberAddress, connect};
    use isonomy_wire::id::{Epoch, ReplicaId};

    fn roster(ports: &[u16]) -> Roster {
        let at = |port: &u16| MemberAddress { host: "db".into(), peer_base: *port, client_base: port + 1 };
        Roster::of_first_epoch(ReplicaId(0), ports.iter().map(at))
    }

    #[test]
    fn an_order_to_stop_stays() {
        let (process, end) = connect();
        let mail = Mail::new(end, roster(&[1]));
        assert!(!mail.is_stopping());
        process.orders.send(ToShard::Stop).unwrap();
        assert!(mail.is_stopping() && mail.is_stopping());
    }

    #[test]
    fn the_newest_settings_count_and_stay() {
        let (process, end) = connect();
        let mail = Mail::new(end, roster(&[1]));
        assert_eq!(mail.settings(), None);
        let [first, second] =
            [false, true].map(|is_slow_agreed| ShardSettings { is_slow_agreed, ..ShardSettings::default() });
        for settings in [first, second] {
            process.orders.send(ToShard::Settings(settings)).unwrap();
        }
        assert_eq!((mail.settings(), mail.settings()), (Some(second), Some(second)));
    }

    #[test]
    fn the_newest_roster_counts() {
        let (process, end) = connect();
        let mail = Mail::new(end, roster(&[1, 2]));
        let order = |roster| process.orders.send(ToShard::Roster(roster)).unwrap();
        order(roster(&[3, 4]));
        order(roster(&[1, 5]));
        assert_eq!(*mail.roster(), roster(&[1, 5]));
    }

    #[test]
    fn an_order_to_seal_is_one_of_its_epoch() {
        let (process, end) = connect();
        let mail = Mail::new(end, roster(&[1]));
        let order = |order| process.orders.send(order).unwrap();
        order(ToShard::Seal(RecordId(5)));
        assert_eq!((mail.sealing(), mail.sealing()), (Some(RecordId(5)), Some(RecordId(5))));
        order(ToShard::Roster(roster(&[2])));
        assert_eq!(mail.sealing(), Some(RecordId(5)), "the epoch is the same");
        order(ToShard::Roster(Roster { epoch: Epoch(2), ..roster(&[2]) }));
        assert_eq!(mail.sealing(), None);
    }

    #[test]
    fn progress_is_told_once_and_again_after_a_full_lane() {
        let (process, end) = connect();
        let mail = Mail::new(end, roster(&[1]));
        let told = || {
            let progress = |news| match news {
                FromShard::Progress(progress) => Some(progress),
                FromShard::Ready | FromShard::Metrics(_) => None,
            };
            process.news.take().filter_map(progress).collect::<Vec<_>>()
        };
        let open = Progress { epoch: Epoch(1), is_close: true, end: None };
        let ended = Progress { end: Some(EpochEnd { record: RecordId(5), hash: 6 }), ..open };
        (0..3).for_each(|_| mail.send_progress(open));
        assert_eq!(told(), [open]);
        (0..LANE_MAX).for_each(|_| mail.say_ready());
        mail.send_progress(ended);
        assert_eq!(told(), []);
        mail.send_progress(ended);
        assert_eq!(told(), [ended]);
    }

    #[test]
    fn a_process_that_takes_no_mail_holds_up_nobody() {
        let (process, end) = connect();
        let mail = Mail::new(end, roster(&[1]));
        (0..2 * LANE_MAX as u64)
            .for_each(|decisions| mail.send_metrics(ShardStatus { decisions, ..Default::default() }));
        let taken: Vec<u64> = process
            .news
            .take()
            .map(|news| match news {
                FromShard::Metrics(metrics) => metrics.decisions,
                FromShard::Ready | FromShard::Progress(_) => unreachable!("nobody has said that"),
            })
            .collect();
        assert_eq!(taken, (0..LANE_MAX as u64).collect::<Vec<_>>());
    }
}
