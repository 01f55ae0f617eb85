//! The bytes of one connection, without a socket: the handshake, then requests out and responses in.

use crate::answer::{Answers, BadResponse};
use crate::failure::Failure;
use crate::frame::{Encoder, FrameError, Kind, Scope, Splitter};
use crate::id::{ClusterId, Epoch, ReplicaId, SHARDS_MAX, SessionId, ShardId};
use crate::message::{ClientMessage, Handshake, Hello, Refusal, Role, ShardStatus, SourceStatus, Welcome};
use crate::route::RULE_VERSION;
use crate::view::{BadView, View};

/// A message that has arrived.
#[derive(Debug)]
pub enum Received {
    /// The replica's welcome; the connection works from here on.
    Welcome(Welcome),
    /// The answers to a request.
    Response {
        /// The tag of the request.
        tag: u64,
        /// One answer for each command of the request.
        answers: Answers,
    },
    /// A request has no answers.
    Failed {
        /// The tag of the request.
        tag: u64,
        /// The reason.
        failure: Failure,
    },
    /// The status of the shard.
    Status(Box<ShardStatus>),
    /// Some of the sources that the shard knows.
    Sources(Vec<SourceStatus>),
}

/// Why a connection cannot go on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LinkError {
    /// The bytes are not frames.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The other side refuses the connection.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A response is damaged.
    #[error(transparent)]
    Response(#[from] BadResponse),
    /// The other side describes an impossible cluster.
    #[error(
        "replica {replica} welcomes a client in a cluster of {members} members and {shards} shards; run the same \
         release on both sides"
    )]
    Welcome {
        /// The place of the replica, which is among those of the members.
        replica: ReplicaId,
        /// The number of members.
        members: u8,
        /// The number of shards; 1 to 256 are possible.
        shards: u16,
    },
    /// The other side names members that cannot be.
    #[error("{0}; run the same release on both sides")]
    View(#[from] BadView),
    /// The other side sends a message that only clients send, or sends a message too early.
    #[error(
        "the other side does not answer as a replica does; check that the port is a replica's client port"
    )]
    Unexpected,
}

impl LinkError {
    /// The members that a replica names which is not one of them.
    pub fn referral(&self) -> Option<View> {
        match self {
            LinkError::Refused(Refusal::NotAMember { epoch, members }) => {
                View::new(*epoch, members.clone()).ok()
            }
            _ => None,
        }
    }
}

/// Encodes the messages that a client sends on one connection and decodes those that it receives.
#[derive(Debug)]
pub struct Link {
    splitter: Splitter,
    encoder: Encoder,
    shard: ShardId,
    /// The cluster of which the replica must be a member; `None` accepts any.
    cluster: Option<ClusterId>,
    /// Whether only a member may welcome this side.
    wants_member: bool,
    /// How many bytes were sent, which is the place of the next frame.
    said: u64,
    welcomed: bool,
}

impl Link {
    /// A link for a fresh connection to the port of `shard` of a member of `cluster`; `None` accepts any cluster.
    /// `role` is a client's or an operator's. Appends the hello to `out`. `chunk` is the buffer space offered to a
    /// read, in bytes.
    pub fn new(
        shard: ShardId,
        cluster: Option<ClusterId>,
        role: Role,
        chunk: usize,
        out: &mut Vec<u8>,
    ) -> Link {
        let (splitter, encoder) = (Splitter::new(chunk), Encoder::default());
        let wants_member = role != Role::Operator;
        let mut link = Link { splitter, encoder, shard, cluster, wants_member, said: 0, welcomed: false };
        let hello = Hello { cluster, epoch: Epoch(0), shard, shards: 0, rule: RULE_VERSION, role };
        let scope = link.scope(Kind::Handshake);
        link.said = link.encoder.frame(out, 0, scope, &Handshake::Hello(hello), &[], 0) as u64;
        link
    }

    fn scope(&self, kind: Kind) -> Scope {
        Scope { kind, epoch: Epoch(0), shard: self.shard }
    }

    fn say(&mut self, out: &mut Vec<u8>, message: &ClientMessage, payload: &[u8]) {
        let scope = self.scope(Kind::Client);
        let crc = crc32c::crc32c(payload);
        self.said += self.encoder.frame(out, self.said, scope, message, payload, crc) as u64;
    }

    /// Appends a request to `out`. Call this only after the welcome, and send all that was appended.
    pub fn request(&mut self, out: &mut Vec<u8>, tag: u64, payload: &[u8]) {
        self.say(out, &ClientMessage::Request { tag }, payload);
    }

    /// Appends a request for the shard's status.
    pub fn ask_status(&mut self, out: &mut Vec<u8>) {
        self.say(out, &ClientMessage::StatusRequest, &[]);
    }

    /// Appends a request for a barrier, at which a snapshot is taken. The answer is the shard's status.
    pub fn ask_snapshot(&mut self, out: &mut Vec<u8>) {
        self.say(out, &ClientMessage::SnapshotRequest, &[]);
    }

    /// Appends a request for the sources whose sessions come after `after`.
    pub fn ask_sources(&mut self, out: &mut Vec<u8>, after: SessionId) {
        self.say(out, &ClientMessage::SourcesRequest { after }, &[]);
    }

    /// Space for the next read; never empty.
    pub fn room(&mut self) -> &mut [u8] {
        self.splitter.room()
    }

    /// Takes note that `count` bytes were read into the room.
    pub fn received(&mut self, count: usize) {
        self.splitter.received(count);
    }

    /// The next message, if it has arrived as a whole.
    ///
    /// # Errors
    ///
    /// [`LinkError`] if the bytes are not a message that a replica may send now. The connection cannot go on.
    pub fn poll(&mut self) -> Result<Option<Received>, LinkError> {
        let Some(frame) = self.splitter.next_frame()? else { return Ok(None) };
        if !self.welcomed {
            return match frame.decode(self.scope(Kind::Handshake))? {
                Handshake::Welcome(welcome) => self.on_welcome(welcome).map(Some),
                Handshake::Refused(refusal) => Err(on_refusal(refusal)),
                Handshake::Hello(_) => Err(LinkError::Unexpected),
            };
        }
        Ok(Some(match frame.decode(self.scope(Kind::Client))? {
            ClientMessage::Response { tag } => {
                Received::Response { tag, answers: Answers::parse(frame.payload)? }
            }
            ClientMessage::Failed { tag, failure } => Received::Failed { tag, failure },
            ClientMessage::Status(status) => Received::Status(status),
            ClientMessage::Sources(sources) => Received::Sources(sources),
            ClientMessage::Leave(why) => return Err(why.into()),
            ClientMessage::Request { .. }
            | ClientMessage::StatusRequest
            | ClientMessage::SnapshotRequest
            | ClientMessage::SourcesRequest { .. } => return Err(LinkError::Unexpected),
        }))
    }

    fn on_welcome(&mut self, welcome: Welcome) -> Result<Received, LinkError> {
        let (replica, shards) = (welcome.replica, welcome.shards);
        let members = View::of(&welcome)?.replicas();
        let is_there = welcome.is_member() || !self.wants_member;
        if !is_there || !(1..=SHARDS_MAX).contains(&usize::from(shards)) {
            return Err(LinkError::Welcome { replica, members, shards });
        }
        let here = welcome.cluster;
        if let Some(there) = self.cluster.filter(|there| *there != here) {
            return Err(Refusal::WrongCluster { here, there }.into());
        }
        self.splitter.trust();
        self.welcomed = true;
        Ok(Received::Welcome(welcome))
    }
}

/// Looks at the members that a refusal names before anybody uses or prints them.
fn on_refusal(refusal: Refusal) -> LinkError {
    if let Refusal::NotAMember { epoch, members } = &refusal
        && let Err(bad) = View::new(*epoch, members.clone())
    {
        return bad.into();
    }
    refusal.into()
}
