//! A lane: a bounded queue from one thread to another, with a wake-up.

use crate::bell::Bell;
use crossbeam_queue::ArrayQueue;
use std::sync::Arc;
use std::task::Waker;

/// The most items that wait in a lane. A shard looks into its lane at each tick, and an item is rare, so a lane that is
/// full means that the other side stands still.
pub const LANE_MAX: usize = 64;

#[derive(Debug)]
struct Lane<T> {
    items: ArrayQueue<T>,
    bell: Bell,
}

/// The end that sends.
#[derive(Debug)]
pub struct Outbox<T>(Arc<Lane<T>>);

/// The end that receives.
#[derive(Debug)]
pub struct Inbox<T>(Arc<Lane<T>>);

pub(crate) fn new<T>() -> (Outbox<T>, Inbox<T>) {
    let lane = Arc::new(Lane { items: ArrayQueue::new(LANE_MAX), bell: Bell::default() });
    (Outbox(lane.clone()), Inbox(lane))
}

impl<T> Outbox<T> {
    /// Sends an item and wakes the other side.
    ///
    /// # Errors
    ///
    /// The lane is full; the item comes back.
    pub fn send(&self, item: T) -> Result<(), T> {
        self.0.items.push(item)?;
        self.0.bell.ring();
        Ok(())
    }
}

impl<T> Inbox<T> {
    /// Names the waker that each item wakes from now on.
    pub fn listen(&self, waker: &Waker) {
        self.0.bell.listen(waker);
    }

    /// The items that have come, in their order; at most as many as a lane holds, so that a sender in a hurry does not
    /// keep the receiver.
    pub fn take(&self) -> impl Iterator<Item = T> {
        (0..LANE_MAX).map_while(|_| self.0.items.pop())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};
    use std::task::Wake;

    struct Counter(Sender<()>);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            let _ = self.0.send(());
        }
    }

    #[test]
    fn items_come_in_their_order_and_a_full_lane_gives_the_next_one_back() {
        let (outbox, inbox) = new();
        (0..LANE_MAX).for_each(|item| outbox.send(item).unwrap());
        assert_eq!(outbox.send(LANE_MAX), Err(LANE_MAX));
        assert_eq!(inbox.take().collect::<Vec<_>>(), (0..LANE_MAX).collect::<Vec<_>>());
        outbox.send(7).unwrap();
        assert_eq!(inbox.take().collect::<Vec<_>>(), [7], "there is room again");
    }

    #[test]
    fn a_batch_ends_although_more_items_come() {
        let (outbox, inbox) = new();
        outbox.send(0).unwrap();
        let taken = inbox.take().inspect(|_| outbox.send(0).unwrap()).count();
        assert_eq!(taken, LANE_MAX);
    }

    #[test]
    fn each_item_wakes_the_receiver_which_another_thread_is() {
        let (outbox, inbox) = new();
        let (woken, wakes) = channel();
        inbox.listen(&Arc::new(Counter(woken)).into());
        std::thread::spawn(move || [1, 2].map(|item| outbox.send(item).unwrap())).join().unwrap();
        assert_eq!(wakes.try_iter().count(), 2);
        assert_eq!(inbox.take().collect::<Vec<_>>(), [1, 2]);
    }
}
