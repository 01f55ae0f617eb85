//! A thread's connections: plain sockets that never block, one wait for all of them.

use anyhow::{Context, Result};
use isonomy_wire::conversation::{Link, LinkError, Received};
use isonomy_wire::id::{Epoch, ReplicaId, ShardId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::members::Members;
use super::socket::Up;

/// How much room a read is offered, in bytes: some frames at once.
const READ_CHUNK_BYTES: usize = 256 << 10;

/// One connection, up or being made.
struct Wire {
    replica: ReplicaId,
    shard: ShardId,
    up: Option<Up>,
    readable: bool,
}

impl Wire {
    /// The connection, and where to note that something came in.
    fn waiting(&mut self) -> Option<(&Up, &mut bool)> {
        self.up.as_ref().map(|up| (up, &mut self.readable))
    }
}

/// An event of the connections.
pub(crate) enum Event {
    /// The cluster has so many other members, none of which is connected.
    Changed(u8),
    Of(ReplicaId, ShardId, What),
}

/// An event of a connection.
pub(crate) enum What {
    Connected,
    Lost,
    /// Bytes have come, but perhaps no whole message.
    Heard,
    Received(Received),
}

/// A connection that was made for a place in an epoch.
type MadeConnection = (Epoch, usize, Up);

/// All connections of a thread.
pub(crate) struct Wires {
    members: Arc<Members>,
    epoch: Epoch,
    /// The connections to the first member by shard, then those to the second, and so on.
    wires: Vec<Wire>,
    made: mpsc::Receiver<MadeConnection>,
    maker: mpsc::Sender<MadeConnection>,
}

impl Wires {
    /// Starts to connect to all members for all shards. Returns the number of members, too.
    pub(crate) fn new(members: &Arc<Members>) -> (Wires, u8) {
        let (maker, made) = mpsc::channel();
        let mut wires = Wires { members: members.clone(), epoch: Epoch(0), wires: Vec::new(), made, maker };
        let replicas = wires.connect_all();
        (wires, replicas)
    }

    /// Connects to the present members, in place of all connections that there are. Returns the number of members.
    fn connect_all(&mut self) -> u8 {
        let (view, shards) = (self.members.view(), self.members.shards);
        let replicas = view.replicas();
        self.epoch = view.epoch();
        let places = (0..replicas).flat_map(|replica| (0..shards).map(move |shard| (replica, shard)));
        let wires = places.map(|(replica, shard)| Wire {
            replica: ReplicaId(replica),
            shard: ShardId(shard),
            up: None,
            readable: false,
        });
        self.wires = wires.collect();
        (0..self.wires.len()).for_each(|place| self.connect(place));
        replicas
    }

    /// Makes a connection on a thread of its own, since that may take long.
    fn connect(&self, place: usize) {
        let Wire { replica, shard, .. } = self.wires[place];
        let (epoch, members, maker) = (self.epoch, self.members.clone(), self.maker.clone());
        std::thread::spawn(move || {
            if let Some(up) = Up::connect_in(epoch, &members, replica, shard, READ_CHUNK_BYTES) {
                // Nobody takes the connection when the run has ended.
                let _ = maker.send((epoch, place, up));
            }
        });
    }

    /// The link to a replica for a shard and where its bytes go; `None` while it is down.
    pub(crate) fn link(&mut self, replica: ReplicaId, shard: ShardId) -> Option<(&mut Link, &mut Vec<u8>)> {
        let place = self.place(replica, shard);
        self.wires[place].up.as_mut().map(|up| (&mut up.link, &mut up.out))
    }

    /// Closes a connection that does not carry anything any more, and makes another.
    pub(crate) fn reset(&mut self, replica: ReplicaId, shard: ShardId) {
        let place = self.place(replica, shard);
        if self.wires[place].up.take().is_some() {
            self.connect(place);
        }
    }

    fn place(&self, replica: ReplicaId, shard: ShardId) -> usize {
        replica.index() * usize::from(self.members.shards) + usize::from(shard.0)
    }

    /// Writes the queued bytes, one write per connection, then waits for bytes, room or time.
    pub(crate) fn turn(
        &mut self,
        wait: Duration,
        mut tell: impl FnMut(Event) -> Result<(), LinkError>,
    ) -> Result<()> {
        if self.members.epoch() != self.epoch {
            let replicas = self.connect_all();
            tell(Event::Changed(replicas))?;
        }
        for place in 0..self.wires.len() {
            if let Some(up) = &mut self.wires[place].up
                && up.write().is_err()
            {
                self.lose(place, &mut tell)?;
            }
        }
        self.wait(wait)?;
        while let Ok((epoch, place, up)) = self.made.try_recv() {
            // The connection may be one to a member of an earlier epoch.
            if epoch == self.epoch {
                self.wires[place].up = Some(up);
                tell(Event::Of(self.wires[place].replica, self.wires[place].shard, What::Connected))?;
            }
        }
        for place in 0..self.wires.len() {
            let Wire { replica, shard, up, readable } = &mut self.wires[place];
            let Some(up) = up else { continue };
            let (replica, shard) = (*replica, *shard);
            if !std::mem::take(readable) {
                continue;
            }
            tell(Event::Of(replica, shard, What::Heard))?;
            if up.read(|received| tell(Event::Of(replica, shard, What::Received(received)))).is_err() {
                self.lose(place, &mut tell)?;
            }
        }
        Ok(())
    }

    fn lose(&mut self, place: usize, tell: &mut impl FnMut(Event) -> Result<(), LinkError>) -> Result<()> {
        let Wire { replica, shard, .. } = self.wires[place];
        self.wires[place].up = None;
        tell(Event::Of(replica, shard, What::Lost))?;
        self.connect(place);
        Ok(())
    }

    fn wait(&mut self, wait: Duration) -> Result<()> {
        let timeout = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let ups: Vec<(&Up, &mut bool)> = self.wires.iter_mut().filter_map(Wire::waiting).collect();
        let interest = |up: &Up| if up.is_written() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        let mut fds: Vec<PollFd<'_>> =
            ups.iter().map(|(up, _)| PollFd::new(&up.stream, interest(up))).collect();
        match poll(&mut fds, Some(&timeout)) {
            // A signal came, and the caller looks what to do.
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("the wait for sockets failed"),
        }
        let readable = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        let ready: Vec<bool> = fds.iter().map(|fd| fd.revents().intersects(readable)).collect();
        drop(fds);
        for ((_, readable), ready) in ups.into_iter().zip(ready) {
            *readable = ready;
        }
        Ok(())
    }
}
