//! Strangers: connections to a port that have not said yet who they are, or have no place there. An address that
//! opens hundreds of them pushes out its own.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

use crate::net::connection::Sink;
use crate::signal::Signal;

/// The strangers at a port of a shard, in the order in which they came.
#[derive(Default)]
pub(crate) struct Strangers {
    here: RefCell<Vec<Stranger>>,
    left: Signal,
}

struct Stranger {
    from: Option<IpAddr>,
    sink: Rc<Sink>,
}

/// A place among the strangers, until it is dropped.
pub(crate) struct Place {
    strangers: Rc<Strangers>,
    sink: Rc<Sink>,
}

impl Strangers {
    /// Makes room, and waits until `fits` accepts the number of strangers.
    pub(crate) async fn room(&self, fits: impl Fn(usize) -> bool) {
        loop {
            if fits(self.here.borrow().len()) {
                return;
            }
            if let Some(victim) = self.victim() {
                victim.close("the connection had sent no handshake when other connections came");
            }
            self.left.wait().await;
        }
    }

    /// The oldest stranger of the address that has the most.
    fn victim(&self) -> Option<Rc<Sink>> {
        let here = self.here.borrow();
        let from_there = |one: &Stranger| here.iter().filter(|other| other.from == one.from).count();
        // `max_by_key` returns the last of equals, but the first is needed here, so the order is reversed.
        here.iter().rev().max_by_key(|one| from_there(one)).map(|one| one.sink.clone())
    }

    /// A connection that is no stranger any more has gone.
    pub(crate) fn on_left(&self) {
        self.left.notify();
    }

    /// Takes a connection in.
    pub(crate) fn admit(self: &Rc<Strangers>, from: Option<IpAddr>, sink: &Rc<Sink>) -> Place {
        self.here.borrow_mut().push(Stranger { from, sink: sink.clone() });
        Place { strangers: self.clone(), sink: sink.clone() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.strangers.here.borrow_mut().retain(|stranger| !Rc::ptr_eq(&stranger.sink, &self.sink));
        self.strangers.left.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOD: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9)));
    const PEER: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)));

    #[test]
    fn the_oldest_of_those_who_are_many_goes_first() {
        let strangers = Rc::new(Strangers::default());
        let sinks: Vec<Rc<Sink>> = (0..4).map(|_| Rc::new(Sink::new())).collect();
        let mut places = vec![strangers.admit(PEER, &sinks[0])];
        places.extend(sinks[1..].iter().map(|sink| strangers.admit(FLOOD, sink)));
        assert!(Rc::ptr_eq(&strangers.victim().unwrap(), &sinks[1]));
        // Its place is free when it has gone, whoever that is.
        drop(places.remove(1));
        places.push(strangers.admit(FLOOD, &sinks[1]));
        assert!(Rc::ptr_eq(&strangers.victim().unwrap(), &sinks[2]));
    }
}
