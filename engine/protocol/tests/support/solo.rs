//! One core alone with a test that plays everybody else.

use super::Entry;
use isonomy_protocol::contract::{ClientRef, Config, Executed, Output, Position, Reply, Sealed, Send, Time};
use isonomy_protocol::payload::Payload;
use isonomy_protocol::replica::Replica;
use isonomy_wire::deps::Deps;
use isonomy_wire::id::{Ballot, InstanceId, REPLICAS_MAX, ReplicaId};
use isonomy_wire::message::{PeerMessage, Phase, Value};

pub struct Solo {
    pub core: Replica,
    config: Config,
    pub now: Time,
    pub log: Vec<Entry>,
    /// How many records were cut from its front.
    pub cut: usize,
    /// The newest durable snapshot, and its barrier.
    pub snapshot: Option<(u64, Vec<u8>)>,
    /// What the log held at the start and has taken since, about.
    log_bytes: u64,
    durable: usize,
    said: Vec<Send>,
    pub replies: Vec<Reply>,
    /// How often, and how, it has said that its epoch has ended.
    pub sealed: Vec<Sealed>,
    pub executed: Vec<Executed>,
}

impl Solo {
    /// Replica `me` of `n`, linked to all others, with its first block reserved durably.
    pub fn new(n: u8, me: u8) -> Solo {
        Solo::starting(n, me).ready()
    }

    /// The same with Rescue.
    pub fn rescuing(n: u8, me: u8) -> Solo {
        Solo::begun(Config { rescue: true, ..super::config(n, me) }).ready()
    }

    /// The same with a barrier every so many bytes of its log.
    pub fn with_barriers(n: u8, me: u8, barrier_bytes: u64) -> Solo {
        Solo::begun(Config { barrier_bytes, ..super::config(n, me) }).ready()
    }

    fn ready(mut self) -> Solo {
        self.sync();
        self.said();
        self
    }

    /// The same with nothing durable yet.
    pub fn starting(n: u8, me: u8) -> Solo {
        Solo::begun(super::config(n, me))
    }

    fn begun(config: Config) -> Solo {
        let mut solo = Solo {
            core: Replica::new(config.clone(), 3),
            config,
            now: Time(1_000_000),
            log: Vec::new(),
            cut: 0,
            snapshot: None,
            log_bytes: 0,
            durable: 0,
            said: Vec::new(),
            replies: Vec::new(),
            sealed: Vec::new(),
            executed: Vec::new(),
        };
        solo.begin();
        solo
    }

    fn begin(&mut self) {
        self.core.start(self.now, Position(self.log.len() as u64));
        self.core.admit(self.now);
        let others: Vec<ReplicaId> =
            (0..self.config.replicas).map(ReplicaId).filter(|id| *id != self.config.replica).collect();
        self.core.on_links(self.now, &others);
        self.turn();
    }

    /// Crashes, and starts again from what is durable.
    pub fn restart(&mut self) {
        self.log.truncate(self.durable);
        self.core = Replica::new(self.config.clone(), 3);
        if let Some((barrier, bytes)) = &self.snapshot {
            self.core.restore(super::read_snapshot(*barrier, bytes));
        }
        for (record, payload) in &self.log[self.cut..] {
            self.core.replay(record.clone(), payload.clone());
        }
        self.log_bytes = self.log[self.cut..].iter().map(bytes_of).sum();
        self.said.clear();
        self.begin();
        self.sync();
        self.said();
    }

    /// The same when no more than so many records are durable.
    pub fn restart_behind(&mut self, records: usize) {
        self.durable = records;
        self.restart();
    }

    /// Ends the turn: takes what is to be written and what may be said.
    fn turn(&mut self) {
        self.core.end_turn(self.now);
        while let Some(output) = self.core.poll() {
            match output {
                Output::Append(append) => {
                    let entry = (append.record, append.payload);
                    self.log_bytes += bytes_of(&entry);
                    self.log.push(entry);
                }
                Output::Send(send) => self.said.push(send),
                Output::Reply(reply) => self.replies.push(reply),
                Output::Executed(executed) => self.executed.push(executed),
                Output::Sealed(sealed) => self.sealed.push(sealed),
                Output::Cut(position) => self.cut = position.0 as usize - 1,
            }
        }
        self.core.on_log_bytes(self.log_bytes);
        self.core.check();
    }

    /// The snapshot of the last barrier becomes durable, and what it covers is forgotten.
    pub fn take_snapshot(&mut self) {
        self.keep_snapshot();
        self.core.on_snapshot(self.now);
        self.turn();
    }

    /// Its process ends when the snapshot of the last barrier counts, and before it knows that: the next one
    /// reads the log from what was carried forward.
    pub fn die_with_snapshot(&mut self) {
        let Position(begin) = self.keep_snapshot();
        self.sync();
        self.cut = begin as usize - 1;
        self.restart();
    }

    /// The snapshot of the last barrier is durable, and the process has not heard of it. The position is that of the
    /// first record that was carried forward.
    pub fn keep_snapshot(&mut self) -> Position {
        let (barrier, begin) = self.core.taking().expect("a barrier has executed");
        let bytes = std::iter::from_fn(|| self.core.snapshot_bytes()).flatten().collect();
        self.snapshot = Some((barrier, bytes));
        begin
    }

    /// A peer's snapshot has come.
    pub fn install(&mut self, snapshot: &(u64, Vec<u8>)) {
        self.snapshot = Some(snapshot.clone());
        let (barrier, bytes) = snapshot;
        self.core.install_snapshot(self.now, super::read_snapshot(*barrier, bytes));
        self.turn();
    }

    /// Makes everything durable, and what follows from it.
    pub fn sync(&mut self) {
        self.turn();
        while self.durable < self.log.len() {
            self.durable = self.log.len();
            self.core.on_durable(self.now, Position(self.durable as u64));
            self.turn();
        }
    }

    /// What it sent since this was asked last, batches included.
    pub fn sent(&mut self) -> Vec<Send> {
        std::mem::take(&mut self.said)
    }

    /// What it said since this was asked last, without gossip.
    pub fn said(&mut self) -> Vec<(u8, PeerMessage)> {
        let said = std::mem::take(&mut self.said).into_iter().map(|send| (send.to.0, send.message));
        said.filter(|(_, message)| super::is_protocol(message)).collect()
    }

    /// The same to one receiver.
    pub fn said_to(&mut self, to: u8) -> Vec<PeerMessage> {
        self.said().into_iter().filter(|(receiver, _)| *receiver == to).map(|(_, message)| message).collect()
    }

    /// Whether nobody waits for anything that it said since this was asked last.
    pub fn said_lazily(&mut self) -> bool {
        let said = std::mem::take(&mut self.said);
        let mut said = said.into_iter().filter(|send| super::is_protocol(&send.message)).peekable();
        assert!(said.peek().is_some(), "it said nothing");
        said.all(|send| send.lazy)
    }

    /// A message arrives; nothing is synced.
    pub fn hear(&mut self, from: u8, message: PeerMessage, payload: Option<&Payload>) {
        self.core.on_message(self.now, ReplicaId(from), message, payload.cloned());
        self.turn();
    }

    /// A message arrives, and all that it causes becomes durable: what is said then.
    pub fn tell(
        &mut self,
        from: u8,
        message: PeerMessage,
        payload: Option<&Payload>,
    ) -> Vec<(u8, PeerMessage)> {
        self.hear(from, message, payload);
        self.sync();
        self.said()
    }

    /// A request comes in and is proposed; nothing is synced.
    pub fn ask(&mut self, payload: &Payload) {
        let client = ClientRef { connection: 1, tag: 1 };
        self.core.on_request(self.now, client, payload.clone()).expect("the queue is not full");
        self.turn();
    }

    /// Time passes in steps of the core's own.
    pub fn wait(&mut self, micros: u64) {
        for _ in 0..micros / 5_000 {
            self.now = self.now.after(5_000);
            self.core.on_timeout(self.now);
            self.sync();
        }
    }
}

pub fn ballot(round: u32, replica: u8) -> Ballot {
    Ballot { round, replica: ReplicaId(replica) }
}

/// Every instance of the first rows up to these numbers: deps, a frontier or a floor.
pub fn upto<V: From<[u64; REPLICAS_MAX]>, const N: usize>(entries: [u64; N]) -> V {
    let mut all = [0; REPLICAS_MAX];
    all[..N].copy_from_slice(&entries);
    V::from(all)
}

pub fn pre_accept(id: InstanceId, deps: Deps) -> PeerMessage {
    PeerMessage::PreAccept { id, deps }
}

pub fn pre_accept_ok(id: InstanceId, deps: Deps) -> PeerMessage {
    PeerMessage::PreAcceptOk { id, deps }
}

pub fn accept(id: InstanceId, ballot: Ballot, value: Value, deps: Deps) -> PeerMessage {
    PeerMessage::Accept { id, ballot, value, deps, after: Deps::NONE }
}

pub fn accept_ok(id: InstanceId, ballot: Ballot) -> PeerMessage {
    PeerMessage::AcceptOk { id, ballot }
}

pub fn commit(id: InstanceId, ballot: Ballot, value: Value, deps: Deps) -> PeerMessage {
    PeerMessage::Commit { id, ballot, value, deps, after: Deps::NONE }
}

pub fn recover(id: InstanceId, ballot: Ballot) -> PeerMessage {
    PeerMessage::Recover { row: id.row, from: id.seq, to: id.seq, ballot }
}

pub fn validate(id: InstanceId, ballot: Ballot, deps: Deps) -> PeerMessage {
    PeerMessage::Validate { id, ballot, deps }
}

/// A RecoverOk of someone who knows nothing of the instance.
pub fn knows_nothing(id: InstanceId, ballot: Ballot) -> PeerMessage {
    PeerMessage::RecoverOk {
        id,
        ballot,
        accepted: Ballot::ZERO,
        phase: Phase::Init,
        value: Value::None,
        deps: Deps::NONE,
        after: Deps::NONE,
        init_value: Value::None,
        init_deps: Deps::NONE,
    }
}

/// A RecoverOk of someone who pre-accepted it with `deps` when `init_deps` were proposed.
pub fn has_pre_accepted(id: InstanceId, ballot: Ballot, deps: Deps, init_deps: Deps) -> PeerMessage {
    PeerMessage::RecoverOk {
        id,
        ballot,
        accepted: Ballot::ZERO,
        phase: Phase::PreAccepted,
        value: Value::Attached,
        deps,
        after: Deps::NONE,
        init_value: Value::Attached,
        init_deps,
    }
}

/// A RecoverOk of someone who accepted a value at `accepted`.
pub fn has_accepted(
    id: InstanceId,
    ballot: Ballot,
    accepted: Ballot,
    value: Value,
    deps: Deps,
) -> PeerMessage {
    PeerMessage::RecoverOk {
        id,
        ballot,
        accepted,
        phase: Phase::Accepted,
        value,
        deps,
        after: Deps::NONE,
        init_value: Value::None,
        init_deps: Deps::NONE,
    }
}

/// What an entry takes of a log, about.
fn bytes_of(entry: &Entry) -> u64 {
    200 + entry.1.as_ref().map_or(0, |payload| payload.batch().payload().len() as u64)
}
