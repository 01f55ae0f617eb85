//! A thread's connections: plain sockets that never block, one wait for all of them.

use anyhow::{Context, Result};
use isonomy_wire::client::ConnectError;
use isonomy_wire::id::{ReplicaId, ShardId};
use isonomy_wire::message::Welcome;
use isonomy_wire::session::{Link, LinkError, Received};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::time::Duration;

/// How much room a read is offered, in bytes: some frames at once.
const READ_CHUNK_BYTES: usize = 256 << 10;
/// How long a connection may take until the welcome.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause before a lost connection is made again; doubled at each failure up to the second.
const RECONNECT_PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// One connection, up or being made.
struct Wire {
    replica: ReplicaId,
    shard: ShardId,
    up: Option<Up>,
}

struct Up {
    stream: TcpStream,
    link: Link,
    out: Vec<u8>,
    written: usize,
    readable: bool,
}

/// What happened to a connection.
pub(crate) enum Event {
    Connected,
    Lost,
    Received(Received),
}

/// All connections of a thread.
pub(crate) struct Wires {
    welcome: Welcome,
    wires: Vec<Wire>,
    made: mpsc::Receiver<(usize, TcpStream, Link)>,
    maker: mpsc::Sender<(usize, TcpStream, Link)>,
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
        });
        let wires = Wires { welcome: welcome.clone(), wires: wires.collect(), made, maker };
        (0..wires.wires.len()).for_each(|place| wires.connect(place));
        wires
    }

    /// Makes a connection on a thread of its own, since that may take long.
    fn connect(&self, place: usize) {
        let Wire { replica, shard, .. } = self.wires[place];
        let member = &self.welcome.members[replica.index()];
        let (host, base) = (member.host.clone(), member.client_base);
        let maker = self.maker.clone();
        std::thread::spawn(move || {
            let (mut pause, longest) = RECONNECT_PAUSES;
            loop {
                if let Ok((stream, link)) = shake_hands(&host, base, shard, replica) {
                    // Nobody takes it when the run has ended.
                    let _ = maker.send((place, stream, link));
                    return;
                }
                std::thread::sleep(pause);
                pause = (2 * pause).min(longest);
            }
        });
    }

    /// The link to a replica for a shard and where its bytes go; `None` while it is down.
    pub(crate) fn link(&mut self, replica: ReplicaId, shard: ShardId) -> Option<(&mut Link, &mut Vec<u8>)> {
        let place = usize::from(shard.0) * self.welcome.members.len() + replica.index();
        self.wires[place].up.as_mut().map(|up| (&mut up.link, &mut up.out))
    }

    /// Writes what is queued, one write per connection, then waits for bytes, room or time.
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
        while let Ok((place, stream, link)) = self.made.try_recv() {
            let up = Up { stream, link, out: Vec::new(), written: 0, readable: false };
            self.wires[place].up = Some(up);
            tell(self.wires[place].replica, self.wires[place].shard, Event::Connected)?;
        }
        for place in 0..self.wires.len() {
            let Wire { replica, shard, up } = &mut self.wires[place];
            let Some(up) = up else { continue };
            let (replica, shard) = (*replica, *shard);
            if up.readable && up.read(|received| tell(replica, shard, Event::Received(received))).is_err() {
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
        let ups: Vec<&mut Up> = self.wires.iter_mut().filter_map(|wire| wire.up.as_mut()).collect();
        let interest = |up: &Up| {
            if up.written < up.out.len() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN }
        };
        let mut fds: Vec<PollFd<'_>> = ups.iter().map(|up| PollFd::new(&up.stream, interest(up))).collect();
        match poll(&mut fds, Some(&timeout)) {
            // A signal: the caller looks what to do.
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for sockets"),
        }
        let readable = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        let ready: Vec<bool> = fds.iter().map(|fd| fd.revents().intersects(readable)).collect();
        drop(fds);
        for (up, readable) in ups.into_iter().zip(ready) {
            up.readable = readable;
        }
        Ok(())
    }
}

impl Up {
    fn write(&mut self) -> std::io::Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    fn read(&mut self, mut tell: impl FnMut(Received) -> Result<(), LinkError>) -> Result<()> {
        match self.stream.read(self.link.room()) {
            Ok(0) => return Err(std::io::Error::from(ErrorKind::ConnectionReset).into()),
            Ok(count) => self.link.received(count),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error.into()),
        }
        while let Some(received) = self.link.poll()? {
            tell(received)?;
        }
        Ok(())
    }
}

/// Connects and waits for the welcome, then never blocks again.
fn shake_hands(host: &str, base: u16, shard: ShardId, replica: ReplicaId) -> Result<(TcpStream, Link)> {
    let member = format!("{host}:{base}");
    let port = base.checked_add(shard.0).ok_or(ConnectError::Port { member, shard: shard.0 })?;
    let address = (host, port).to_socket_addrs()?.next().context("the name has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
    let mut out = Vec::new();
    let mut link = Link::new(shard, READ_CHUNK_BYTES, &mut out);
    stream.write_all(&out)?;
    loop {
        match link.poll()? {
            Some(Received::Welcome(welcome)) if welcome.replica == replica => break,
            Some(_) => return Err(LinkError::Unexpected.into()),
            None => {}
        }
        match stream.read(link.room())? {
            0 => return Err(std::io::Error::from(ErrorKind::ConnectionReset).into()),
            count => link.received(count),
        }
    }
    stream.set_nonblocking(true)?;
    Ok((stream, link))
}
