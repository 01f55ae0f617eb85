//! A cluster on loopback for tests of the client: real sockets and frames, and one model of the state.

use super::*;
use crate::conversation::model::Model;
use crate::failure::{Failure, Reason};
use crate::frame::{Encode, Encoder, Frame, Kind, Scope, Splitter};
use crate::id::{ClusterId, Epoch, ReplicaId, ShardId};
use crate::message::{ClientMessage, Handshake, Hello, Member, Refusal, Role, ShardStatus};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(super) const SHARD: ShardId = ShardId(0);

/// What a process knows of the members.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) epoch: Epoch,
    /// The process at each place.
    pub(super) places: Vec<usize>,
    /// The addresses that the process tells clients.
    pub(super) members: Vec<Member>,
}

/// The state that the processes of a test share. They have one model, since they agree.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) model: Mutex<Model>,
    /// The addresses of the processes, of which not all need be members.
    pub(super) members: Vec<Member>,
    pub(super) known: Vec<watch::Sender<Known>>,
    pub(super) frames: AtomicUsize,
    /// The request frames that came to each process.
    pub(super) by_replica: Vec<AtomicUsize>,
    /// The hellos that came to each process.
    pub(super) hellos: Vec<AtomicUsize>,
    /// Requests that are executed and then not answered: the connection is closed instead.
    pub(super) hang_ups: AtomicUsize,
    /// Requests after whose answer the connection makes room for another.
    pub(super) dismissals: AtomicUsize,
    /// Connections that were welcomed.
    pub(super) welcomed: AtomicUsize,
    /// Requests answered "overloaded".
    pub(super) refusals: AtomicUsize,
    /// Requests that came to a process whose epoch had ended.
    pub(super) ended: AtomicUsize,
    /// Whether a process says why it closes its connections when the epoch changes.
    pub(super) says_leave: AtomicBool,
    /// The process that answers all requests "overloaded", and asks to be left alone for longer than anybody waits.
    pub(super) overloaded: AtomicUsize,
}

/// A process that is not there.
pub(super) const NONE: usize = usize::MAX;

/// A cluster on loopback. Dropping a task stops a process with all its connections.
pub(super) struct Cluster {
    pub(super) shared: Arc<Shared>,
    pub(super) replicas: Vec<JoinSet<()>>,
}

impl Cluster {
    /// A cluster of so many processes, which are all members.
    pub(super) async fn start(replicas: usize) -> Cluster {
        Cluster::start_with(replicas, &(0..replicas).collect::<Vec<_>>()).await
    }

    /// A cluster of so many processes, of which some are the members of epoch 1, by their places.
    pub(super) async fn start_with(processes: usize, places: &[usize]) -> Cluster {
        let mut listeners = Vec::new();
        for _ in 0..processes {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let member = |listener| Member { host: "127.0.0.1".into(), client_base: port(listener) };
        let members: Vec<Member> = listeners.iter().map(member).collect();
        let named = places.iter().map(|process| members[*process].clone()).collect();
        let known = Known { epoch: Epoch(1), places: places.to_vec(), members: named };
        let counters = || (0..processes).map(|_| AtomicUsize::new(0)).collect();
        let shared = Arc::new(Shared {
            model: Mutex::new(Model::new(SHARD)),
            members,
            known: (0..processes).map(|_| watch::Sender::new(known.clone())).collect(),
            frames: AtomicUsize::new(0),
            by_replica: counters(),
            hellos: counters(),
            hang_ups: AtomicUsize::new(0),
            dismissals: AtomicUsize::new(0),
            welcomed: AtomicUsize::new(0),
            refusals: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            says_leave: AtomicBool::new(true),
            overloaded: AtomicUsize::new(NONE),
        });
        let mut cluster = Cluster { shared: shared.clone(), replicas: Vec::new() };
        for (process, listener) in listeners.into_iter().enumerate() {
            let mut tasks = JoinSet::new();
            tasks.spawn(serve(shared.clone(), process, listener));
            cluster.replicas.push(tasks);
        }
        cluster
    }

    pub(super) fn address(&self, replica: usize) -> String {
        let member = &self.shared.members[replica];
        format!("{}:{}", member.host, member.client_base)
    }

    pub(super) async fn client(&self) -> Client {
        Client::connect(&[self.address(0)]).await.unwrap()
    }

    pub(super) fn sessions(&self) -> usize {
        self.shared.model.lock().unwrap().sessions()
    }

    /// The epoch ends, and no process knows the next one yet.
    pub(super) fn seal(&self) {
        self.shared.model.lock().unwrap().begin_epoch();
    }

    /// The knowledge of these processes as members of an epoch.
    pub(super) fn members(&self, epoch: u32, places: &[usize]) -> Known {
        let members = places.iter().map(|process| self.shared.members[*process].clone()).collect();
        Known { epoch: Epoch(epoch), places: places.to_vec(), members }
    }

    /// A process hears of the members.
    pub(super) fn tell(&self, process: usize, known: Known) {
        self.shared.known[process].send_replace(known);
    }

    /// The next epoch begins, and all processes hear of it.
    pub(super) fn change(&self, places: &[usize]) {
        self.seal();
        let epoch = self.shared.model.lock().unwrap().epoch();
        let known = self.members(epoch.0, places);
        (0..self.replicas.len()).for_each(|process| self.tell(process, known.clone()));
    }
}

async fn serve(shared: Arc<Shared>, process: usize, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(converse(shared.clone(), process, stream));
    }
}

/// The replica's end of one connection, frame by frame.
struct Peer {
    stream: TcpStream,
    splitter: Splitter,
    encoder: Encoder,
    said: u64,
}

impl Peer {
    fn new(stream: TcpStream) -> Peer {
        Peer { stream, splitter: Splitter::new(4096), encoder: Encoder::default(), said: 0 }
    }

    async fn hear(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.splitter.next_frame().unwrap() {
                return Some(frame);
            }
            match self.stream.read(self.splitter.room()).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.splitter.received(count),
            }
        }
    }

    async fn say<M: Encode>(&mut self, kind: Kind, message: &M, payload: &[u8]) {
        let scope = Scope { kind, epoch: Epoch(0), shard: SHARD };
        let (mut out, crc) = (Vec::new(), crc32c::crc32c(payload));
        self.said += self.encoder.frame(&mut out, self.said, scope, message, payload, crc) as u64;
        // A client that is gone hears nothing.
        let _ = self.stream.write_all(&out).await;
    }

    async fn say_to_client(&mut self, message: &ClientMessage) {
        self.say(Kind::Client, message, &[]).await;
    }
}

async fn converse(shared: Arc<Shared>, process: usize, stream: TcpStream) {
    let mut peer = Peer::new(stream);
    let Some(hello) = peer.hear().await else { return };
    let scope = Scope { kind: Kind::Handshake, epoch: Epoch(0), shard: SHARD };
    let Handshake::Hello(hello) = hello.decode(scope).unwrap() else { panic!("no hello") };
    shared.hellos[process].fetch_add(1, Ordering::Relaxed);
    let mut changes = shared.known[process].subscribe();
    let known = changes.borrow_and_update().clone();
    let judged = judge(&hello, process, &known);
    peer.say(Kind::Handshake, &judged, &[]).await;
    let Handshake::Welcome(welcome) = judged else { return };
    peer.splitter.trust();
    shared.welcomed.fetch_add(1, Ordering::Relaxed);
    // One that is not a member executes nothing.
    let epoch = if welcome.is_member() { known.epoch } else { Epoch(0) };
    loop {
        let frame = tokio::select! {
            frame = peer.hear() => frame,
            _ = changes.changed() => {
                let epoch = changes.borrow_and_update().epoch;
                if epoch == known.epoch {
                    continue;
                }
                if shared.says_leave.load(Ordering::Relaxed) {
                    peer.say_to_client(&ClientMessage::Leave(Refusal::EpochChanged { epoch })).await;
                }
                return;
            }
        };
        let Some(frame) = frame else { return };
        match frame.decode(Scope { kind: Kind::Client, ..scope }).unwrap() {
            ClientMessage::Request { tag } => {
                if !on_request(&shared, process, epoch, &mut peer, tag, &frame.payload).await {
                    return;
                }
            }
            ClientMessage::StatusRequest | ClientMessage::SnapshotRequest => {
                let status = ShardStatus { replica: welcome.replica, decisions: 7, ..ShardStatus::default() };
                peer.say_to_client(&ClientMessage::Status(Box::new(status))).await;
            }
            ClientMessage::SourcesRequest { .. } => {
                let sources = shared.model.lock().unwrap().sources();
                peer.say_to_client(&ClientMessage::Sources(sources)).await;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What a process answers to a hello, as one that is a member or as one that is not.
fn judge(hello: &Hello, process: usize, known: &Known) -> Handshake {
    assert!(matches!(hello.role, Role::Client | Role::Operator) && hello.shard == SHARD);
    let place = known.places.iter().position(|it| *it == process);
    let Known { epoch, members, .. } = known.clone();
    if place.is_none() && hello.role == Role::Client {
        return Handshake::Refused(Refusal::NotAMember { epoch, members });
    }
    Handshake::Welcome(Welcome {
        cluster: ClusterId(1),
        epoch,
        replica: ReplicaId(place.map_or(u8::MAX, |place| place as u8)),
        shards: 1,
        members,
        durable: false,
    })
}

/// Answers a request. Returns whether the connection goes on.
async fn on_request(
    shared: &Shared,
    process: usize,
    epoch: Epoch,
    peer: &mut Peer,
    tag: u64,
    request: &bytes::Bytes,
) -> bool {
    shared.frames.fetch_add(1, Ordering::Relaxed);
    shared.by_replica[process].fetch_add(1, Ordering::Relaxed);
    let overloaded = shared.overloaded.load(Ordering::Relaxed) == process;
    if overloaded || take_one(&shared.refusals) {
        let retry_after_ms = if overloaded { 3_600_000 } else { 1 };
        let failure = Failure::Overloaded { retry_after_ms, reason: Reason::CatchingUp };
        peer.say_to_client(&ClientMessage::Failed { tag, failure }).await;
        return true;
    }
    let response = {
        let mut model = shared.model.lock().unwrap();
        (model.epoch() == epoch).then(|| model.execute(request))
    };
    let Some(response) = response else {
        let count = shared.ended.fetch_add(1, Ordering::Relaxed);
        let why = Reason::EpochEnded { epoch };
        let failure = if count.is_multiple_of(2) { Failure::Unavailable(why) } else { Failure::Unknown(why) };
        peer.say_to_client(&ClientMessage::Failed { tag, failure }).await;
        return true;
    };
    if take_one(&shared.hang_ups) {
        return false;
    }
    peer.say(Kind::Client, &ClientMessage::Response { tag }, &response).await;
    if take_one(&shared.dismissals) {
        peer.say_to_client(&ClientMessage::Leave(Refusal::MadeRoom { idle_s: 10 })).await;
        return false;
    }
    true
}

pub(super) fn take_one(counter: &AtomicUsize) -> bool {
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1)).is_ok()
}

/// Waits for something that comes with time, on a loaded machine too.
pub(super) async fn come<T>(what: &str, awaited: impl Future<Output = T>) -> T {
    let patience = std::time::Duration::from_secs(120);
    tokio::time::timeout(patience, awaited).await.unwrap_or_else(|_| panic!("{what} did not come"))
}
