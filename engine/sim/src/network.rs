//! Links between replicas: delay, loss, duplicates, reordering, cuts in one direction or both.

use crate::plan::{Bias, Plan};
use isonomy_wire::message::PeerMessage;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

#[derive(Clone, Copy, Default)]
struct Link {
    cut: bool,
    /// The life of the connection. All that was sent in earlier lives is gone.
    life: u32,
    /// When the last message arrives. Later ones do not overtake it.
    last: u64,
}

/// All links. A link has a direction.
pub struct Network {
    n: u8,
    links: Vec<Link>,
    random: SmallRng,
}

/// A message on its way.
#[derive(Clone, Copy)]
pub struct Sent<'a> {
    /// The time of sending, in microseconds.
    pub now: u64,
    /// The sender.
    pub from: u8,
    /// The receiver.
    pub to: u8,
    /// The message.
    pub message: &'a PeerMessage,
    /// Whether nothing but its delay happens to the message.
    pub calm: bool,
}

/// The times at which copies of a message arrive, if any do, and the life of the link.
pub struct Fate {
    /// Times in microseconds.
    pub arrivals: Vec<u64>,
    /// The life of the link; see [`Network::is_current`].
    pub life: u32,
}

impl Network {
    /// A network whose links all work.
    pub fn new(plan: &Plan) -> Network {
        let links = vec![Link::default(); usize::from(plan.pool) * usize::from(plan.pool)];
        Network { n: plan.pool, links, random: SmallRng::seed_from_u64(plan.seed ^ 0x6e65_7477) }
    }

    fn at(&mut self, from: u8, to: u8) -> &mut Link {
        &mut self.links[usize::from(from) * usize::from(self.n) + usize::from(to)]
    }

    /// A message is sent.
    pub fn send(&mut self, plan: &Plan, sent: Sent<'_>) -> Fate {
        let Sent { now, from, to, calm, .. } = sent;
        let life = self.at(from, to).life;
        let mut arrivals = Vec::new();
        if self.is_lost(plan, sent) {
            return Fate { arrivals, life };
        }
        let copies = if !calm && self.random.random_bool(plan.duplication) { 2 } else { 1 };
        for _ in 0..copies {
            let mut delay = self.random.random_range(plan.delay_us / 2..=plan.delay_us * 2);
            if !calm && self.random.random_bool(plan.tail) {
                delay *= self.random.random_range(10..100);
            }
            let mut arrival = now + delay;
            if calm || !plan.reordering {
                let link = self.at(from, to);
                arrival = arrival.max(link.last);
                link.last = arrival;
            }
            arrivals.push(arrival);
        }
        Fate { arrivals, life }
    }

    fn is_lost(&mut self, plan: &Plan, sent: Sent<'_>) -> bool {
        let Sent { now, from, to, message, calm } = sent;
        if self.at(from, to).cut {
            return true;
        }
        if calm {
            return false;
        }
        let biased = now < plan.bias_us
            && match (plan.bias, message) {
                (Bias::CommitsLost, PeerMessage::Commit { .. }) => self.random.random_bool(0.95),
                (Bias::CommitsLost, PeerMessage::Gossip { .. }) => self.random.random_bool(0.9),
                (Bias::FewHear | Bias::Orphans, PeerMessage::PreAccept { .. }) => {
                    self.random.random_bool(plan.unheard)
                }
                (Bias::Orphans, PeerMessage::Recover { row, .. }) if row.0 == to => {
                    plan.deaf.is_some_and(|deaf| self.random.random_bool(deaf.recovers))
                }
                (Bias::Orphans, PeerMessage::AcceptOk { .. }) => {
                    plan.deaf.is_some_and(|deaf| self.random.random_bool(deaf.accepts))
                }
                _ => false,
            };
        biased || self.random.random_bool(plan.loss)
    }

    /// Whether messages of this life of the link may still arrive.
    pub fn is_current(&mut self, from: u8, to: u8, life: u32) -> bool {
        let link = self.at(from, to);
        link.life == life && !link.cut
    }

    /// The connection breaks, and all messages on their way are lost.
    pub fn reset(&mut self, from: u8, to: u8) {
        self.at(from, to).life += 1;
    }

    /// Everything that a process has sent is lost with it.
    pub fn reset_from(&mut self, from: u8) {
        (0..self.n).for_each(|to| self.reset(from, to));
    }

    /// Stops all messages from one replica to the other, or lets all through again.
    pub fn cut(&mut self, from: u8, to: u8, cut: bool) {
        self.at(from, to).cut = cut;
    }

    /// All links work.
    pub fn heal(&mut self) {
        self.links.iter_mut().for_each(|link| link.cut = false);
    }

    /// Whether two processes hear each other.
    pub fn is_linked(&mut self, one: u8, other: u8) -> bool {
        !self.at(one, other).cut && !self.at(other, one).cut
    }
}
