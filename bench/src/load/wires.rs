//! A thread's connections: plain sockets that never block, one wait for all of them.

use anyhow::{Context, Result};
use isonomy_wire::conversation::{Link, LinkError, Received};
use isonomy_wire::id::{ReplicaId, ShardId};
use isonomy_wire::message::Welcome;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::sync::mpsc;
use std::time::Duration;

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

/// An event of a connection.
pub(crate) enum Event {
    Connected,
    Lost,
    /// Bytes have come, but perhaps no whole message.
    Heard,
    Received(Received),
}

/// All connections of a thread.
pub(crate) struct Wires {
    welcome: Welcome,
    wires: Vec<Wire>,
    made: mpsc::Receiver<(usize, Up)>,
    maker: mpsc::Sender<(usize, Up)>,
}

impl Wires {
    /// Starts to connect to all replicas for all shards.
    pub(crate) fn new(welcome: &Welcome) -> Wires {
        let (maker, made) = mpsc::channel();
        let replicas = welcome.members.len() as u8;
        let places = (0..welcome.shards).flat_map(|shard| (0..replicas).map(move |replica| (replica, shard)));
        let wires = places.map(|(replica, shard)| Wire {
            replica: ReplicaId(replica),
            shard: ShardId(shard),
            up: None,
            readable: false,
        });
        let wires = Wires { welcome: welcome.clone(), wires: wires.collect(), made, maker };
        (0..wires.wires.len()).for_each(|place| wires.connect(place));
        wires
    }

    /// Makes a connection on a thread of its own, since that may take long.
    fn connect(&self, place: usize) {
        let Wire { replica, shard, .. } = self.wires[place];
        let (welcome, maker) = (self.welcome.clone(), self.maker.clone());
        std::thread::spawn(move || {
            let up = Up::connect_at_last(&welcome, replica, shard, READ_CHUNK_BYTES);
            // Nobody takes the connection when the run has ended.
            let _ = maker.send((place, up));
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
        usize::from(shard.0) * self.welcome.members.len() + replica.index()
    }

    /// Writes the queued bytes, one write per connection, then waits for bytes, room or time.
    pub(crate) fn turn(
        &mut self,
        wait: Duration,
        mut tell: impl FnMut(ReplicaId, ShardId, Event) -> Result<(), LinkError>,
    ) -> Result<()> {
        for place in 0..self.wires.len() {
            if let Some(up) = &mut self.wires[place].up
                && up.write().is_err()
            {
                self.lose(place, &mut tell)?;
            }
        }
        self.wait(wait)?;
        while let Ok((place, up)) = self.made.try_recv() {
            self.wires[place].up = Some(up);
            tell(self.wires[place].replica, self.wires[place].shard, Event::Connected)?;
        }
        for place in 0..self.wires.len() {
            let Wire { replica, shard, up, readable } = &mut self.wires[place];
            let Some(up) = up else { continue };
            let (replica, shard) = (*replica, *shard);
            if !std::mem::take(readable) {
                continue;
            }
            tell(replica, shard, Event::Heard)?;
            if up.read(|received| tell(replica, shard, Event::Received(received))).is_err() {
                self.lose(place, &mut tell)?;
            }
        }
        Ok(())
    }

    fn lose(
        &mut self,
        place: usize,
        tell: &mut impl FnMut(ReplicaId, ShardId, Event) -> Result<(), LinkError>,
    ) -> Result<()> {
        let Wire { replica, shard, .. } = self.wires[place];
        self.wires[place].up = None;
        tell(replica, shard, Event::Lost)?;
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
