//! A shard through its epochs (law, section 9). A node is the shard's part in one epoch: when the next one begins, the
//! node ends with all its tasks and connections, and another one begins with the state.

use isonomy_mesh::fatal::stop_with;
use isonomy_mesh::{MemberAddress, Roster};
use isonomy_protocol::contract::Executed;
use isonomy_protocol::replica::Replica;
use isonomy_wire::id::Epoch;
use isonomy_wire::message::Member;
use std::rc::Rc;
use std::time::Instant;

use crate::aside::Aside;
use crate::data_dir::DataDir;
use crate::feed::Feed;
use crate::mail::Mail;
use crate::net::left_out::LeftOut;
use crate::net::listener::Listener;
use crate::node::{Node, STOP_PATIENCE};
use crate::open::{Found, core_config, open};
use crate::pump::Input;
use crate::rings;
use crate::settings::{Seat, Settings};
use crate::signal::Signal;
use crate::time::ticks::Ticks;
use crate::told::Told;

/// What outlives the epochs of a shard.
pub(crate) struct Shard {
    pub(crate) settings: Settings,
    pub(crate) data_dir: DataDir,
    pub(crate) mail: Mail,
    /// The way to the sink, if the decisions are published.
    pub(crate) feed: Option<Feed>,
    /// Runs what may block and does not belong to the log.
    pub(crate) aside: Aside,
    pub(crate) told: Rc<Told>,
    pub(crate) ticks: Ticks,
    /// Notified at each tick.
    pub(crate) tick: Signal,
}

/// The ports of a shard, as its executor serves them.
pub(crate) struct Listeners {
    pub(crate) peers: Rc<Listener>,
    pub(crate) clients: Rc<Listener>,
}

/// Why a node has ended.
enum End {
    /// The process is told to stop.
    Stopping,
    /// A later epoch has begun, or this one has no place for the replica any more.
    NextPlace(Rc<Roster>),
}

impl Shard {
    /// Takes part in one epoch after the other until the process is told to stop.
    pub(crate) async fn run(self: Rc<Shard>, listeners: Listeners) {
        let ticking = glommio::spawn_local(self.clone().run_ticks());
        let listening = {
            let shard = self.clone();
            glommio::spawn_local(async move { shard.aside.listen().await })
        };
        self.run_epochs(&listeners).await;
        ticking.cancel().await;
        listening.cancel().await;
    }

    async fn run_epochs(self: &Rc<Shard>, listeners: &Listeners) {
        let (mut roster, mut found) = (self.mail.roster(), Found::OnDisk);
        while let Some(seat) = Seat::of(&roster) {
            let node = open(self, seat, found).await.unwrap_or_else(|fatal| stop_with(&fatal));
            // Reading the log may have taken long.
            if self.mail.is_stopping() {
                return;
            }
            let node = Rc::new(node);
            match node.clone().serve(listeners).await {
                End::Stopping => return node.end().await,
                End::NextPlace(next) => {
                    found = node.leave(&next).await;
                    roster = next;
                }
            }
        }
        LeftOut::new(self.clone(), &roster).serve(listeners).await;
    }

    /// Gives what has executed to the sink.
    pub(crate) fn publish(&self, epoch: Epoch, executed: Executed) {
        if let Some(feed) = &self.feed {
            feed.push(epoch, executed);
        }
    }

    /// Wakes whoever waits for a tick, for ever.
    async fn run_ticks(self: Rc<Shard>) {
        loop {
            self.ticks.wait().await;
            self.tick.notify();
        }
    }
}

/// Where clients find the members of a roster.
pub(crate) fn client_addresses(roster: &Roster) -> Vec<Member> {
    let members = roster.places.iter().take(usize::from(roster.members));
    let found = |MemberAddress { host, client_base, .. }: &MemberAddress| Member {
        host: host.clone(),
        client_base: *client_base,
    };
    members.map(|place| found(&place.address)).collect()
}

impl Node {
    /// Runs all tasks of a node until the process is told to stop or a later epoch has begun.
    async fn serve(self: Rc<Node>, listeners: &Listeners) -> End {
        // A replica alone has no peer to ask.
        self.maybe_admit();
        let node = || self.clone();
        let shared = node();
        self.tasks.spawn(async move { shared.writer.disk.prepare().await });
        self.tasks.spawn(node().run_turns());
        self.writing.replace(Some(glommio::spawn_local(node().run_writes())));
        self.tasks.spawn(node().run_ticks());
        self.tasks.spawn(node().run_snapshots());
        self.tasks.spawn(node().run_verifications());
        self.open_links();
        self.tasks.spawn(node().accept_peers(listeners.peers.clone()));
        if let Some(end) = self.become_ready().await {
            return end;
        }
        self.tasks.spawn(node().accept_clients(listeners.clients.clone()));
        if let Some(complaint) = rings::complaint() {
            log::warn!("shard {}: {complaint}", self.settings().shard.0);
        }
        self.shard.mail.say_ready();
        loop {
            if let Some(end) = self.due_end() {
                return end;
            }
            self.shard.tick.wait().await;
        }
    }

    /// Waits until the log takes records, because the first segment may have to be filled, and the others have confirmed
    /// a new directory.
    async fn become_ready(&self) -> Option<End> {
        if !self.data_dir.is_formed() {
            log::info!(
                "shard {}: this data directory is new; the replica takes part when all members have been up once \
                 and have confirmed that",
                self.settings().shard.0
            );
        }
        let first = self.writer.durable();
        let is_ready = || self.writer.durable() != first && self.data_dir.is_formed();
        loop {
            let end = self.due_end();
            if end.is_some() || is_ready() {
                return end;
            }
            self.shard.tick.wait().await;
        }
    }

    fn due_end(&self) -> Option<End> {
        if self.shard.mail.is_stopping() {
            return Some(End::Stopping);
        }
        let roster = self.shard.mail.roster();
        // What the log holds of the Seal becomes durable first, and the state with it.
        let is_ending = self.pump.look(|core| core.sealed().is_some()) && self.ended.get().is_none();
        let is_over = roster.epoch > self.seat.epoch && !is_ending;
        // A learner has its place for as long as the change is announced.
        let is_given_up = roster.epoch == self.seat.epoch && roster.own != Some(self.seat.replica);
        if is_over || is_given_up { Some(End::NextPlace(roster)) } else { None }
    }

    /// Sees the own instances through, and lets the last answers leave.
    async fn end(&self) {
        self.pump.take(Input::Stop);
        let began = Instant::now();
        while !self.pump.look(|core| core.is_idle()) && began.elapsed() < STOP_PATIENCE {
            self.shard.tick.wait().await;
        }
        self.shard.mail.send_metrics(self.status());
        self.close_all().await;
        self.finish().await;
    }

    /// Ends all tasks. A write that is under way ends first, unless the disk hangs.
    async fn finish(&self) {
        self.is_over.set(true);
        let mut writing = self.writing.take().expect("it serves");
        self.writer.end();
        let began = Instant::now();
        let is_patient = || !self.shard.mail.is_stopping() || began.elapsed() < STOP_PATIENCE;
        let mut is_written = is_done(&mut writing).await;
        while !is_written && is_patient() {
            self.shard.tick.wait().await;
            is_written = is_done(&mut writing).await;
        }
        self.tasks.cancel().await;
        if is_written {
            self.writer.disk.close().await;
        }
    }

    /// Ends this node's part. Gives what the next epoch begins with.
    async fn leave(&self, next: &Roster) -> Found {
        self.close_guests(next.epoch);
        self.finish().await;
        self.net.links.borrow().sinks().for_each(|sink| sink.close("the epoch is over"));
        let is_proven = self.pump.look(Replica::is_admitted) && !self.seat.is_learner();
        let sealed = self.ended.get().filter(|end| end.record == next.record);
        let follows = next.epoch.0 == self.seat.epoch.0 + 1;
        let seat = Seat::of(next).filter(|_| sealed.is_some() && follows);
        let config = |seat| core_config(&self.shard, &self.data_dir, seat);
        let core = seat.map(|seat| self.pump.succeed(config(seat)));
        let shard = self.settings().shard.0;
        match (&core, next.own) {
            (Some(_), _) => {
                log::info!("shard {shard}: epoch {} begins with the state at the Seal", next.epoch.0)
            }
            (None, Some(_)) => log::info!(
                "shard {shard}: epoch {} begins without the state at the Seal, which a member is asked for",
                next.epoch.0
            ),
            (None, None) => log::info!("shard {shard}: epoch {} has left this replica out", next.epoch.0),
        }
        Found::InMemory { core: core.map(Box::new), is_proven }
    }
}

/// Whether a task has ended, without waiting for it.
async fn is_done(task: &mut glommio::Task<()>) -> bool {
    futures_lite::future::poll_once(task).await.is_some()
}

#[cfg(test)]
mod tests;
