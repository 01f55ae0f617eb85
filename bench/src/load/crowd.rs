//! One thread of load with many small clients: each has a conversation with one command at a time, on
//! connections of its own to one replica.

use anyhow::{Context, Result};
use isonomy_wire::conversation::{Conversation, LinkError, Received};
use isonomy_wire::id::{REPLICAS_MAX, ReplicaId, ShardId};
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::generator::{Generator, Shared};
use super::members::Members;
use super::record::{Recorded, Second};
use super::socket::Up;
use super::worker::{CLOSE_US_MAX, OPEN_TURN_US, WAIT_MAX_US};

/// The room that a read is offered, in bytes, which is enough for a response to one command.
const READ_CHUNK_BYTES: usize = 4 << 10;
/// The most connections that are looked at after one wait.
const EVENTS_MAX: usize = 256;
/// The time between two searches of a conversation for requests without an answer, in microseconds.
const TIMEOUTS_EVERY_US: u64 = 50_000;
/// How long bytes that a socket did not take wait, in microseconds.
const UNWRITTEN_WAIT_US: u64 = 1_000;
/// To a client its replica is the only one.
const ONLY: ReplicaId = ReplicaId(0);

/// Runs one thread until the end. Returns what it measured.
pub(crate) fn run(shared: &Shared, thread: u64, seconds: Sender<Second>) -> Result<Recorded> {
    let mut crowd = Crowd::new(shared, thread, Generator::new(shared, thread, seconds))?;
    crowd.run()?;
    let clients_connected = crowd.clients.iter().filter(|client| client.has_connected).count() as u64;
    Ok(Recorded { clients_connected, ..crowd.generator.finish() })
}

/// The place of a connection: its client and its shard.
#[derive(Clone, Copy, Debug)]
struct Place {
    client: usize,
    shard: usize,
}

struct Client {
    conversation: Conversation,
    /// The connections, by shard.
    ups: Vec<Option<Up>>,
    /// Whether the client is among those that wait for a command.
    idle: bool,
    /// Whether the client had all its connections at some time.
    has_connected: bool,
}

struct Crowd<'a> {
    shared: &'a Shared,
    generator: Generator<'a>,
    epoll: OwnedFd,
    clients: Vec<Client>,
    idle: VecDeque<usize>,
    unwritten: Vec<Place>,
    /// Threads begin with different members.
    first: usize,
    /// The wanted connections, by member.
    to_connect: Vec<Sender<Place>>,
    made: Receiver<(Place, Option<Up>)>,
    next_timeouts: u64,
}

impl<'a> Crowd<'a> {
    fn new(shared: &'a Shared, thread: u64, generator: Generator<'a>) -> Result<Crowd<'a>> {
        let shards = shared.members.shards;
        let count = shared.options.clients_of(thread).unwrap_or_default() as usize;
        let config = shared.options.conversation(1, shards);
        let client = |_| {
            let ups = (0..shards).map(|_| None).collect();
            Client { conversation: Conversation::new(config.clone()), ups, idle: false, has_connected: false }
        };
        let (maker, made) = channel();
        // Each member gets a thread of its own, so that a member that does not answer holds up only its own clients.
        let connecting = (0..REPLICAS_MAX as u8).map(|replica| {
            let (to_connect, wanted) = channel();
            let (maker, members) = (maker.clone(), shared.members.clone());
            std::thread::spawn(move || connect_all(ReplicaId(replica), &members, &wanted, &maker));
            to_connect
        });
        let crowd = Crowd {
            shared,
            generator,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)
                .context("an epoll instance cannot be created")?,
            clients: (0..count).map(client).collect(),
            idle: VecDeque::new(),
            unwritten: Vec::new(),
            first: thread as usize,
            to_connect: connecting.collect(),
            made,
            next_timeouts: 0,
        };
        for client in 0..count {
            (0..usize::from(shards)).for_each(|shard| crowd.connect(Place { client, shard }));
        }
        Ok(crowd)
    }

    fn run(&mut self) -> Result<()> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut closing_since = None;
        loop {
            let now = self.shared.now();
            if let Some(until) = self.generator.generates_until(now) {
                self.generate(until);
            } else if self.clients.iter().all(|client| client.conversation.outstanding() == 0) {
                let since = *closing_since.get_or_insert(now);
                if self.close(now) || now > since + CLOSE_US_MAX {
                    return Ok(());
                }
            }
            self.wait(now, &mut events)?;
            while let Ok((place, up)) = self.made.try_recv() {
                match up {
                    Some(up) => self.on_connected(place, up)?,
                    // The members have changed, and the place is another's.
                    None => self.connect(place),
                }
            }
            for place in std::mem::take(&mut self.unwritten) {
                self.write(place);
            }
            for event in events.drain(..) {
                let event: epoll::Event = event;
                let data = event.data.u64();
                self.read(Place { client: (data >> 16) as usize, shard: (data & 0xffff) as usize });
            }
            self.on_timeouts(self.shared.now());
        }
    }

    /// Gives idle clients the commands that are due.
    fn generate(&mut self, now: u64) {
        while let Some(client) = self.idle.front().copied() {
            let Some(due) = self.generator.due(now, |_| true) else { return };
            self.idle.pop_front();
            self.clients[client].idle = false;
            let taken = self.generator.submit(&mut self.clients[client].conversation, now, due);
            assert!(taken, "an idle conversation takes a command");
            self.send(client, now);
        }
    }

    /// Whether all conversations have ended their sessions.
    fn close(&mut self, now: u64) -> bool {
        for client in 0..self.clients.len() {
            self.clients[client].conversation.close();
            self.send(client, now);
        }
        self.clients.iter().all(|client| client.conversation.is_closed())
    }

    /// Sends what a client has to say.
    fn send(&mut self, client: usize, now: u64) {
        let Client { conversation, ups, .. } = &mut self.clients[client];
        let mut said = None;
        while let Some(transmit) = conversation.poll_transmit(now) {
            let shard = usize::from(transmit.shard.0);
            match &mut ups[shard] {
                Some(up) => {
                    up.link.request(&mut up.out, transmit.tag, &transmit.payload);
                    if said.is_some_and(|said| said != shard) {
                        self.unwritten.push(Place { client, shard });
                    } else {
                        said = Some(shard);
                    }
                }
                None => conversation.on_disconnected(ONLY, transmit.shard),
            }
        }
        if let Some(shard) = said {
            self.write(Place { client, shard });
        }
    }

    fn write(&mut self, place: Place) {
        let Some(up) = &mut self.clients[place.client].ups[place.shard] else { return };
        match up.write() {
            Ok(()) if up.is_written() => {}
            Ok(()) => self.unwritten.push(place),
            Err(_) => self.lose(place),
        }
    }

    fn on_connected(&mut self, place: Place, up: Up) -> Result<()> {
        let data = (place.client as u64) << 16 | place.shard as u64;
        epoll::add(&self.epoll, &up.stream, epoll::EventData::new_u64(data), epoll::EventFlags::IN)
            .context("the wait for a socket failed")?;
        let client = &mut self.clients[place.client];
        client.ups[place.shard] = Some(up);
        client.conversation.on_connected(ONLY, ShardId(place.shard as u16));
        self.pump(place.client);
        Ok(())
    }

    fn read(&mut self, place: Place) {
        let now = self.shared.now();
        let Client { conversation, ups, .. } = &mut self.clients[place.client];
        let Some(up) = &mut ups[place.shard] else { return };
        conversation.on_heard(ONLY, ShardId(place.shard as u16));
        let heard = up.read(|received| {
            match received {
                Received::Response { tag, answers } => conversation.on_response(ONLY, tag, answers)?,
                Received::Failed { tag, failure } => conversation.on_failure(now, ONLY, tag, failure),
                Received::Welcome(_) | Received::Status(_) | Received::Sources(_) => {
                    return Err(LinkError::Unexpected);
                }
            }
            Ok(())
        });
        if heard.is_err() {
            self.lose(place);
        }
        self.pump(place.client);
    }

    fn lose(&mut self, place: Place) {
        let client = &mut self.clients[place.client];
        client.conversation.on_disconnected(ONLY, ShardId(place.shard as u16));
        if client.ups[place.shard].take().is_some() {
            self.connect(place);
        }
    }

    fn connect(&self, place: Place) {
        let member = (self.first + place.client) % usize::from(self.shared.members.view().replicas());
        // The other threads end only after this one.
        let _ = self.to_connect[member].send(place);
    }

    /// Takes what a client has heard, and lets it go on.
    fn pump(&mut self, client: usize) {
        let now = self.shared.now();
        let Client { conversation, ups, idle, has_connected } = &mut self.clients[client];
        self.generator.take_outcomes(conversation, now);
        let is_connected = ups.iter().all(Option::is_some);
        *has_connected |= is_connected;
        let ready = conversation.outstanding() == 0 && is_connected;
        if ready && !std::mem::replace(idle, true) {
            self.idle.push_back(client);
        }
        self.send(client, now);
    }

    fn on_timeouts(&mut self, now: u64) {
        if now < self.next_timeouts {
            return;
        }
        self.next_timeouts = now + TIMEOUTS_EVERY_US;
        for client in 0..self.clients.len() {
            self.clients[client].conversation.on_timeout(now);
            while let Some((_, shard)) = self.clients[client].conversation.poll_reset() {
                self.lose(Place { client, shard: usize::from(shard.0) });
            }
            self.pump(client);
        }
    }

    fn wait(&mut self, now: u64, events: &mut Vec<epoll::Event>) -> Result<()> {
        let mut until = now + WAIT_MAX_US;
        if !self.unwritten.is_empty() {
            until = until.min(now + UNWRITTEN_WAIT_US);
        }
        if let Some(due) = self.generator.pace.due()
            && !self.idle.is_empty()
            && due < self.shared.end()
        {
            until = until.min(due.max(now + OPEN_TURN_US));
        }
        let timeout = Timespec { tv_sec: 0, tv_nsec: 1000 * (until - now) as i64 };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error).context("the wait for sockets failed"),
        }
    }
}

/// Makes the connections to a member that are wanted, one after the other, until no more are wanted. Gives back those
/// that are wanted of an epoch that has ended.
fn connect_all(
    replica: ReplicaId,
    members: &Arc<Members>,
    wanted: &Receiver<Place>,
    made: &Sender<(Place, Option<Up>)>,
) {
    while let Ok(place) = wanted.recv() {
        let view = members.view();
        let up = if view.replicas() > replica.0 {
            let shard = ShardId(place.shard as u16);
            Up::connect_in(view.epoch(), members, replica, shard, READ_CHUNK_BYTES)
        } else {
            None
        };
        // Nobody takes the connection when the run has ended.
        if made.send((place, up)).is_err() {
            return;
        }
    }
}
