//! The connections of a client: one task each, which connects again when it breaks.

use super::connection::{ConnectError, Connection};
use super::troubles::Troubles;
use crate::conversation::{Received, Transmit};
use crate::id::{ClusterId, ReplicaId, ShardId};
use crate::message::{Member, Role, Welcome};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The first pause before a lost connection is opened again; the pause doubles at each failure.
pub(super) const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest such pause.
pub(super) const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(2);
/// The most requests that wait for a connection to write them. A connection that lags further behind counts as
/// lost.
pub(super) const OUTGOING_MAX: usize = 1024;
/// The most events that wait for the driver.
pub(super) const EVENTS_MAX: usize = 1024;

/// An event of a connection.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) replica: ReplicaId,
    pub(super) shard: ShardId,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Connected,
    Received(Received),
    Lost,
    /// The connection was closed to make room for another. It is opened again when it is woken.
    Yielded,
}

/// The driver's end of a connection.
#[derive(Debug)]
struct Handle {
    outgoing: mpsc::Sender<Transmit>,
    reset: Arc<Notify>,
    wake: Arc<Notify>,
    /// The count of received bytes, and how many of them the driver knows of.
    heard: Arc<AtomicU64>,
    known: u64,
}

/// All connections of a client.
#[derive(Debug)]
pub(super) struct Links {
    replicas: usize,
    handles: Vec<Handle>,
    pub(super) events: mpsc::Receiver<Event>,
    /// Why connections are missing.
    pub(super) troubles: Troubles,
    /// The set ends the tasks when it is dropped.
    _tasks: JoinSet<()>,
}

impl Links {
    /// Connects to all members for all shards.
    pub(super) fn new(welcome: &Welcome) -> Links {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let (mut tasks, troubles) = (JoinSet::new(), Troubles::default());
        let mut handles = Vec::new();
        for shard in 0..welcome.shards {
            for (replica, member) in (0..).zip(&welcome.members) {
                let (outgoing, queue) = mpsc::channel(OUTGOING_MAX);
                let (reset, wake) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
                let heard = Arc::<AtomicU64>::default();
                handles.push(Handle {
                    outgoing,
                    reset: reset.clone(),
                    wake: wake.clone(),
                    heard: heard.clone(),
                    known: 0,
                });
                let task = Task {
                    replica: ReplicaId(replica),
                    shard: ShardId(shard),
                    member: member.clone(),
                    cluster: welcome.cluster,
                    queue,
                    reset,
                    wake,
                    heard,
                    events: sender.clone(),
                    troubles: troubles.clone(),
                };
                tasks.spawn(task.run());
            }
        }
        Links { replicas: welcome.members.len(), handles, events, troubles, _tasks: tasks }
    }

    /// Hands a request to its connection. A connection that is too far behind is opened anew.
    pub(super) fn send(&self, transmit: Transmit) {
        let (replica, shard) = (transmit.replica, transmit.shard);
        if self.handles[self.place(replica, shard)].outgoing.try_send(transmit).is_err() {
            self.reset(replica, shard);
        }
    }

    /// Closes a connection and opens it anew. The driver gets the event of its loss as for any other.
    pub(super) fn reset(&self, replica: ReplicaId, shard: ShardId) {
        self.handles[self.place(replica, shard)].reset.notify_one();
    }

    /// Opens a connection that rests.
    pub(super) fn wake(&self, replica: ReplicaId, shard: ShardId) {
        self.handles[self.place(replica, shard)].wake.notify_one();
    }

    /// The connections on which bytes have come since the last call, and marks them as known.
    pub(super) fn heard(&mut self) -> impl Iterator<Item = (ReplicaId, ShardId)> {
        let replicas = self.replicas;
        self.handles.iter_mut().enumerate().filter_map(move |(place, handle)| {
            let heard = handle.heard.load(Ordering::Relaxed);
            let is_new = std::mem::replace(&mut handle.known, heard) != heard;
            is_new.then_some((ReplicaId((place % replicas) as u8), ShardId((place / replicas) as u16)))
        })
    }

    fn place(&self, replica: ReplicaId, shard: ShardId) -> usize {
        usize::from(shard.0) * self.replicas + replica.index()
    }
}

struct Task {
    replica: ReplicaId,
    shard: ShardId,
    member: Member,
    cluster: ClusterId,
    queue: mpsc::Receiver<Transmit>,
    reset: Arc<Notify>,
    wake: Arc<Notify>,
    heard: Arc<AtomicU64>,
    events: mpsc::Sender<Event>,
    troubles: Troubles,
}

impl Task {
    async fn run(mut self) {
        let mut pause = RECONNECT_PAUSE_MIN;
        loop {
            let opened = self.open().await;
            self.troubles.note(self.shard, self.replica, opened.as_ref().err());
            if let Ok(connection) = opened {
                pause = RECONNECT_PAUSE_MIN;
                // The conversation has sent the requests that wait here to other replicas.
                while self.queue.try_recv().is_ok() {}
                if !self.tell(What::Connected).await {
                    return;
                }
                let has_made_room = self.converse(connection).await;
                if !self.tell(if has_made_room { What::Yielded } else { What::Lost }).await {
                    return;
                }
                if has_made_room {
                    self.wake.notified().await;
                    continue;
                }
            }
            sleep(pause).await;
            pause = (2 * pause).min(RECONNECT_PAUSE_MAX);
        }
    }

    /// Connects to the member itself. Another replica that has its address now must not answer in its place.
    async fn open(&self) -> Result<Connection, ConnectError> {
        let connection = Connection::open(&self.member, self.shard, Some(self.cluster), Role::Client).await?;
        let (here, there) = (connection.welcome().replica, self.replica);
        let wrong = || ConnectError::Replica { address: connection.address().to_owned(), here, there };
        if here == there { Ok(connection) } else { Err(wrong()) }
    }

    /// Sends an event to the driver. Returns whether the driver still listens.
    async fn tell(&self, what: What) -> bool {
        self.events.send(Event { replica: self.replica, shard: self.shard, what }).await.is_ok()
    }

    /// Moves messages until the connection breaks, is given up or the client is gone. Returns whether the replica
    /// closed the connection to make room for another.
    async fn converse(&mut self, mut connection: Connection) -> bool {
        connection.count_in(self.heard.clone());
        loop {
            tokio::select! {
                transmit = self.queue.recv() => {
                    let Some(transmit) = transmit else { return false };
                    connection.request(transmit.tag, &transmit.payload);
                    while let Ok(transmit) = self.queue.try_recv() {
                        connection.request(transmit.tag, &transmit.payload);
                    }
                }
                () = self.reset.notified() => return false,
                received = connection.receive() => {
                    let received = match received {
                        Ok(received) => received,
                        Err(error) => return error.has_made_room(),
                    };
                    if !self.tell(What::Received(received)).await {
                        return false;
                    }
                }
            }
        }
    }
}
