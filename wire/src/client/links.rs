//! The connections of a client: one task for each place among the members and each shard, which connects again when
//! its connection breaks or the members change.

use super::connection::{ConnectError, Connection};
use super::scout::Scout;
use super::troubles::Troubles;
use crate::conversation::{Received, Transmit};
use crate::id::{ClusterId, Epoch, ReplicaId, ShardId};
use crate::message::{Role, Welcome};
use crate::view::View;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The first pause before a lost connection is opened again; the pause doubles at each failure.
pub const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest such pause.
pub const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(2);
/// The most requests that wait for a connection to write them. A connection that lags further behind counts as
/// lost.
pub(super) const OUTGOING_MAX: usize = 1024;
/// The most events that wait for the driver.
pub(super) const EVENTS_MAX: usize = 1024;

/// An event of a connection.
#[derive(Debug)]
pub(super) struct Event {
    /// The epoch in which the replica has this place.
    pub(super) epoch: Epoch,
    pub(super) replica: ReplicaId,
    pub(super) shard: ShardId,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// A replica names other members than the client knows.
    Told(View),
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
    cluster: ClusterId,
    shards: u16,
    epoch: Epoch,
    replicas: u8,
    /// The newest members that the client has heard of.
    view: watch::Sender<View>,
    /// The connections to place 0 by shard, then those to place 1, and so on. There are more of them than members
    /// after an epoch with more members.
    handles: Vec<Handle>,
    pub(super) events: mpsc::Receiver<Event>,
    sender: mpsc::Sender<Event>,
    /// Why connections are missing.
    pub(super) troubles: Troubles,
    /// The set ends the tasks when it is dropped.
    tasks: JoinSet<()>,
}

impl Links {
    /// Connects to all members for all shards.
    pub(super) fn new(welcome: &Welcome) -> Links {
        let view = View::of(welcome).expect("a welcome of a first contact names possible members");
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let mut links = Links {
            cluster: welcome.cluster,
            shards: welcome.shards,
            epoch: view.epoch(),
            replicas: view.replicas(),
            view: watch::Sender::new(view),
            handles: Vec::new(),
            events,
            sender,
            troubles: Troubles::default(),
            tasks: JoinSet::new(),
        };
        links.connect();
        let scout = Scout {
            cluster: links.cluster,
            first: welcome.members.clone(),
            view: links.view.subscribe(),
            events: links.sender.clone(),
            troubles: links.troubles.clone(),
        };
        links.tasks.spawn(scout.run());
        links
    }

    /// Starts the tasks of the places that have none yet.
    fn connect(&mut self) {
        for replica in (0..self.replicas).skip(self.handles.len() / usize::from(self.shards)) {
            for shard in 0..self.shards {
                let (outgoing, queue) = mpsc::channel(OUTGOING_MAX);
                let (reset, wake) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
                let heard = Arc::<AtomicU64>::default();
                let task = Task {
                    replica: ReplicaId(replica),
                    shard: ShardId(shard),
                    cluster: self.cluster,
                    shards: self.shards,
                    view: self.view.subscribe(),
                    queue,
                    reset: reset.clone(),
                    wake: wake.clone(),
                    heard: heard.clone(),
                    events: self.sender.clone(),
                    troubles: self.troubles.clone(),
                };
                self.handles.push(Handle { outgoing, reset, wake, heard, known: 0 });
                self.tasks.spawn(task.run());
            }
        }
    }

    /// The epoch of the members to which the client connects.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The number of members of that epoch.
    pub(super) fn replicas(&self) -> u8 {
        self.replicas
    }

    /// A replica names these members. Returns whether another epoch has begun: then the connections to the members
    /// before are given up, and none of the new ones exists yet.
    pub(super) fn learn(&mut self, told: View) -> bool {
        if !told.is_news_to(&self.view.borrow()) {
            return false;
        }
        let begins = told.epoch() > self.epoch;
        (self.epoch, self.replicas) = (told.epoch(), told.replicas());
        self.view.send_replace(told);
        if begins {
            self.troubles.clear();
            self.handles.iter().for_each(|handle| handle.reset.notify_one());
            self.connect();
        }
        begins
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
        let shards = usize::from(self.shards);
        let members = shards * usize::from(self.replicas);
        self.handles[..members].iter_mut().enumerate().filter_map(move |(place, handle)| {
            let heard = handle.heard.load(Ordering::Relaxed);
            let is_new = std::mem::replace(&mut handle.known, heard) != heard;
            is_new.then_some((ReplicaId((place / shards) as u8), ShardId((place % shards) as u16)))
        })
    }

    fn place(&self, replica: ReplicaId, shard: ShardId) -> usize {
        replica.index() * usize::from(self.shards) + usize::from(shard.0)
    }
}

struct Task {
    /// The place of the member to which the task connects.
    replica: ReplicaId,
    shard: ShardId,
    cluster: ClusterId,
    shards: u16,
    /// The newest members that the driver knows.
    view: watch::Receiver<View>,
    queue: mpsc::Receiver<Transmit>,
    reset: Arc<Notify>,
    wake: Arc<Notify>,
    heard: Arc<AtomicU64>,
    events: mpsc::Sender<Event>,
    troubles: Troubles,
}

/// The client is gone.
#[derive(Debug)]
struct Gone;

impl Task {
    async fn run(mut self) {
        // The set of tasks is dropped with the driver, so the outcome has no reader.
        let _: Result<(), Gone> = self.serve().await;
    }

    async fn serve(&mut self) -> Result<(), Gone> {
        let mut pause = RECONNECT_PAUSE_MIN;
        loop {
            let view = self.members().await?;
            let Some(opened) = self.open(&view).await? else {
                pause = RECONNECT_PAUSE_MIN;
                continue;
            };
            self.troubles.note(self.shard, self.replica, opened.as_ref().err());
            if let Ok(connection) = opened {
                pause = RECONNECT_PAUSE_MIN;
                let has_made_room = self.use_connection(connection, view.epoch()).await?;
                if has_made_room {
                    tokio::select! {
                        () = self.wake.notified() => {}
                        changed = self.view.wait_for(|now| now.epoch() != view.epoch()) => {
                            changed.map_err(|_| Gone)?;
                        }
                    }
                    continue;
                }
            }
            tokio::select! {
                () = sleep(pause) => pause = (2 * pause).min(RECONNECT_PAUSE_MAX),
                changed = self.view.wait_for(|now| now.epoch() != view.epoch()) => {
                    changed.map_err(|_| Gone)?;
                    pause = RECONNECT_PAUSE_MIN;
                }
            }
        }
    }

    fn epoch(&self) -> Epoch {
        self.view.borrow().epoch()
    }

    /// The newest members, once the task's place is among them.
    async fn members(&mut self) -> Result<View, Gone> {
        let replica = self.replica.0;
        if self.view.borrow().replicas() <= replica {
            // Nobody is missing there, whatever the last try has told.
            self.troubles.note(self.shard, self.replica, None);
        }
        let view = self.view.wait_for(|view| view.replicas() > replica).await;
        view.map(|view| view.clone()).map_err(|_| Gone)
    }

    /// Connects to the member itself. Another replica that has its address now must not answer in its place. Whatever
    /// the replica says of the members goes to the driver before anything else. `None`: another epoch has begun.
    async fn open(&mut self, view: &View) -> Result<Option<Result<Connection, ConnectError>>, Gone> {
        let member = &view.members()[self.replica.index()];
        let opened = tokio::select! {
            opened = Connection::open(member, self.shard, Some(self.cluster), Role::Client) => opened,
            changed = self.view.wait_for(|now| now.epoch() != view.epoch()) => {
                changed.map_err(|_| Gone)?;
                return Ok(None);
            }
        };
        let opened = opened.and_then(|connection| connection.check_shards(self.shards).map(|()| connection));
        let told = match &opened {
            Ok(connection) => View::of(connection.welcome()).ok(),
            // A replica that is no member does not hear at once of members that move.
            Err(error) => error.referral().filter(|told| told.epoch() > view.epoch()),
        };
        if let Some(told) = told
            && told.is_news_to(view)
        {
            let epoch = told.epoch();
            self.tell(view.epoch(), What::Told(told)).await?;
            self.view.wait_for(|view| view.epoch() >= epoch).await.map_err(|_| Gone)?;
        }
        if self.epoch() != view.epoch() {
            return Ok(None);
        }
        Ok(Some(opened.and_then(|connection| self.check(connection, view.epoch()))))
    }

    /// Whether the replica is the member of this epoch to which the task connects.
    fn check(&self, connection: Connection, there: Epoch) -> Result<Connection, ConnectError> {
        let (replica, here) = (connection.welcome().replica, connection.welcome().epoch);
        let address = connection.address().to_owned();
        if here < there {
            return Err(ConnectError::Epoch { address, replica, here, there });
        }
        if replica != self.replica {
            return Err(ConnectError::Replica { address, here: replica, there: self.replica });
        }
        Ok(connection)
    }

    /// Sends an event to the driver.
    async fn tell(&self, epoch: Epoch, what: What) -> Result<(), Gone> {
        let event = Event { epoch, replica: self.replica, shard: self.shard, what };
        self.events.send(event).await.map_err(|_| Gone)
    }

    /// Uses a connection until it ends. Returns whether the replica closed it to make room for another.
    async fn use_connection(&mut self, connection: Connection, epoch: Epoch) -> Result<bool, Gone> {
        // The conversation has sent the requests that wait here to other replicas, and a reset was meant for the
        // connection before. If it was meant for this one, then the epoch is another one now.
        while self.queue.try_recv().is_ok() {}
        tokio::select! {
            biased;
            () = self.reset.notified() => {}
            () = std::future::ready(()) => {}
        }
        if self.epoch() != epoch {
            return Ok(false);
        }
        self.tell(epoch, What::Connected).await?;
        let has_made_room = self.converse(connection, epoch).await?;
        self.tell(epoch, if has_made_room { What::Yielded } else { What::Lost }).await?;
        Ok(has_made_room)
    }

    /// Moves messages until the connection breaks, is given up or the client is gone. Returns whether the replica
    /// closed the connection to make room for another.
    async fn converse(&mut self, mut connection: Connection, epoch: Epoch) -> Result<bool, Gone> {
        connection.count_in(self.heard.clone());
        loop {
            tokio::select! {
                transmit = self.queue.recv() => {
                    let transmit = transmit.ok_or(Gone)?;
                    connection.request(transmit.tag, &transmit.payload);
                    while let Ok(transmit) = self.queue.try_recv() {
                        connection.request(transmit.tag, &transmit.payload);
                    }
                }
                () = self.reset.notified() => return Ok(false),
                received = connection.receive() => {
                    let received = match received {
                        Ok(received) => received,
                        Err(error) => return Ok(error.has_made_room()),
                    };
                    self.tell(epoch, What::Received(received)).await?;
                }
            }
        }
    }
}
