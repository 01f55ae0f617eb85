//! One connection to a replica's client port for one shard.

use super::clock::{before, sleep_running, within};
use super::discovery::ClusterAt;
use crate::address::{bare_host, is_host, with_port};
use crate::conversation::{Link, LinkError, Received};
use crate::id::{ClusterId, Epoch, ReplicaId, SessionId, ShardId};
use crate::message::{Member, Refusal, Role, SOURCES_TOLD_MAX, ShardStatus, SourceStatus, Welcome};
use crate::view::View;
use socket2::{SockRef, TcpKeepalive};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// How long the look-up of a name may take, and how long a connection may take until its welcome.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The next address of a name is tried, too, when the address before it has led to no welcome for this long. Each
/// address gets its turn well within [`CONNECT_TIMEOUT`].
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// How long a replica may take to answer a status request.
pub const STATUS_TIMEOUT: Duration = Duration::from_secs(5);
/// TCP probes an idle connection after this time, and again after the second. A NAT or firewall between the two sides
/// sees from the probes that the connection is still in use.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
/// The connection ends after this many probes without an answer.
const KEEPALIVE_TRIES: u32 = 3;
/// How long sent bytes may wait for their acknowledgement; the system's own limit is a quarter of an hour.
const USER_TIMEOUT: Duration = Duration::from_secs(10);
/// The buffer space offered to a read, in bytes.
pub const READ_CHUNK_BYTES: usize = 64 << 10;

/// Why a connection could not be made, or why it ended.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The text is not an address.
    #[error("{0:?} is not HOST:PORT; name the client port of shard 0 of any replica")]
    Address(String),
    /// The shard's port would be above 65535.
    #[error(
        "the client port of shard {shard} of the member at {member} would be above 65535; lower the member's \
         client_base"
    )]
    Port {
        /// The member's address, with the port of shard 0.
        member: String,
        /// The shard.
        shard: u16,
    },
    /// The system reports an error of the network.
    #[error("{address}: {source}; check that the replica runs and that the port is its client port")]
    Io {
        /// The address of the connection.
        address: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The name has no address.
    #[error(
        "{address}: the name cannot be looked up: {source}; check the name, /etc/hosts and /etc/resolv.conf"
    )]
    Lookup {
        /// The address with the name.
        address: String,
        /// The resolver's error.
        source: std::io::Error,
    },
    /// No name server answers.
    #[error(
        "{address}: no name server has answered in {seconds} s; check /etc/resolv.conf, or name an address instead"
    )]
    LookupSilent {
        /// The address of the connection.
        address: String,
        /// How many seconds the client waited.
        seconds: u64,
    },
    /// The connection was neither made nor refused in time.
    #[error(
        "{address}: no connection was made in {seconds} s; check that the machine is up and that no firewall \
         drops packets"
    )]
    Unreachable {
        /// The address of the connection.
        address: String,
        /// How many seconds the client waited.
        seconds: u64,
    },
    /// None of the addresses of a name leads to the replica.
    #[error("{}", list(.0))]
    Each(Vec<ConnectError>),
    /// The connection was made, but the replica sent nothing in time.
    #[error(
        "{address}: the connection was made, but no answer came in {seconds} s; check that the replica's \
         process is not stopped"
    )]
    Silent {
        /// The address of the connection.
        address: String,
        /// How many seconds the client waited.
        seconds: u64,
    },
    /// The other side refuses the connection, or is not a replica.
    #[error("{address}: {source}")]
    Link {
        /// The address of the connection.
        address: String,
        /// The reason.
        source: LinkError,
    },
    /// Another replica listens at the address than the cluster's list of members says.
    #[error(
        "{address}: replica {here} listens at this address, not replica {there}; check `members` in the \
         configurations of the replicas"
    )]
    Replica {
        /// The address of the connection.
        address: String,
        /// The replica that listens there.
        here: ReplicaId,
        /// The replica that the list of members names.
        there: ReplicaId,
    },
    /// The member at the address has not heard of the epoch yet that others know.
    #[error(
        "{address}: replica {replica} is still in epoch {}, and epoch {} has begun; the replica follows as soon as \
         it hears of that",
        here.0, there.0
    )]
    Epoch {
        /// The address of the connection.
        address: String,
        /// The replica that listens there.
        replica: ReplicaId,
        /// The replica's epoch.
        here: Epoch,
        /// The epoch that has begun.
        there: Epoch,
    },
    /// The addresses are of several clusters.
    #[error(
        "the addresses are of several clusters: {}; name addresses of one cluster only, or name the cluster \
         (--cluster)",
        list(.0)
    )]
    Mixed(Vec<ClusterAt>),
    /// No replica could be reached; one error for each address.
    #[error("no replica can be reached: {}", list(.0))]
    Nobody(Vec<ConnectError>),
}

impl ConnectError {
    /// Whether the replica closed the connection, which was idle, to make room for another.
    pub(super) fn has_made_room(&self) -> bool {
        let made_room = |source: &LinkError| matches!(source, LinkError::Refused(Refusal::MadeRoom { .. }));
        matches!(self, ConnectError::Link { source, .. } if made_room(source))
    }

    /// Whether the epoch of the connection has ended. Another connection leads to the next epoch as soon as the replica has
    /// entered that.
    pub fn is_epoch_over(&self) -> bool {
        match self {
            ConnectError::Link { source, .. } => {
                matches!(source, LinkError::Refused(Refusal::EpochChanged { .. }))
            }
            ConnectError::Each(errors) => errors.iter().any(ConnectError::is_epoch_over),
            _ => false,
        }
    }

    /// The members that a replica at this address names, which is none of them.
    pub(super) fn referral(&self) -> Option<View> {
        match self {
            ConnectError::Link { source, .. } => source.referral(),
            ConnectError::Each(errors) => errors.iter().filter_map(Self::referral).max_by_key(View::epoch),
            _ => None,
        }
    }
}

/// The errors as one text.
fn list(errors: &[impl ToString]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Sets options with which the system notices that the other side of a connection is gone, even if nothing comes
/// back. A socket that refuses an option still works.
pub fn notice_death(stream: &impl AsFd) {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_EVERY);
    let _ = socket.set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_TRIES));
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
}

/// Parses "host:port", with the client port of shard 0. An IPv6 host may have brackets.
///
/// # Errors
///
/// [`ConnectError::Address`] if the text is not HOST:PORT.
pub fn parse_address(address: &str) -> Result<Member, ConnectError> {
    let wrong = || ConnectError::Address(address.to_owned());
    let (host, port) = address.trim().rsplit_once(':').ok_or_else(wrong)?;
    let host = bare_host(host);
    let client_base = port.parse().map_err(|_| wrong())?;
    if !is_host(host) { Err(wrong()) } else { Ok(Member { host: host.to_owned(), client_base }) }
}

/// The contents of the hello that opens a connection. `None` stands for any cluster.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hail {
    pub(super) shard: ShardId,
    pub(super) cluster: Option<ClusterId>,
    pub(super) role: Role,
}

/// A connection to a replica, for one shard, past the handshake.
#[derive(Debug)]
pub struct Connection {
    address: String,
    stream: TcpStream,
    link: Link,
    /// Bytes to write; those before `written` are done.
    out: Vec<u8>,
    written: usize,
    welcome: Option<Welcome>,
    /// The count of received bytes, shared with a watcher.
    heard: Arc<AtomicU64>,
}

impl Connection {
    /// Connects to a member's port for the shard and waits for the welcome. The replica must be a member of
    /// `cluster`; `None` accepts any cluster. A connection of an operator carries no commands but the end of a
    /// source.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Port`] if the shard's port would be above 65535, [`ConnectError::Lookup`] or
    /// [`ConnectError::LookupSilent`] if the name has no address, and the error of the last step otherwise; a name
    /// with several addresses has [`ConnectError::Each`].
    pub async fn open(
        member: &Member,
        shard: ShardId,
        cluster: Option<ClusterId>,
        role: Role,
    ) -> Result<Connection, ConnectError> {
        let name = with_port(&member.host, member.client_base);
        let port = member.client_base.checked_add(shard.0);
        let port = port.ok_or(ConnectError::Port { member: name, shard: shard.0 })?;
        let address = with_port(&member.host, port);
        let seconds = CONNECT_TIMEOUT.as_secs();
        let found = within(CONNECT_TIMEOUT, lookup_host((member.host.as_str(), port))).await;
        let silent = || ConnectError::LookupSilent { address: address.clone(), seconds };
        let found = found.ok_or_else(silent)?;
        let found = found.map_err(|source| ConnectError::Lookup { address: address.clone(), source })?;
        Connection::open_any(found.collect(), Hail { shard, cluster, role }, &address).await
    }

    /// Connects over the first address of a name that leads to a welcome.
    pub(super) async fn open_any(
        found: Vec<SocketAddr>,
        hail: Hail,
        name: &str,
    ) -> Result<Connection, ConnectError> {
        let is_one = found.len() == 1;
        let (mut untried, mut tried, mut errors) = (found.into_iter(), JoinSet::new(), Vec::new());
        loop {
            if let Some(found) = untried.next() {
                let name = if is_one { name.to_owned() } else { format!("{name} ({})", found.ip()) };
                tried.spawn(Connection::open_at(found, hail, name));
            }
            tokio::select! {
                ended = tried.join_next() => match ended {
                    Some(ended) => match ended.expect("connecting does not panic, and nobody ends it") {
                        Ok(connection) => return Ok(connection),
                        Err(error) => errors.push(error),
                    },
                    None => break,
                },
                () = sleep(NEXT_ADDRESS_AFTER), if untried.len() > 0 => {}
            }
        }
        let is_alone = errors.len() == 1;
        let only = if is_alone { errors.pop() } else { None };
        Err(only.unwrap_or(ConnectError::Each(errors)))
    }

    async fn open_at(found: SocketAddr, hail: Hail, address: String) -> Result<Connection, ConnectError> {
        let (mut end, seconds) = (pin!(sleep_running(CONNECT_TIMEOUT)), CONNECT_TIMEOUT.as_secs());
        let stream = before(end.as_mut(), TcpStream::connect(found)).await;
        let unreachable = || ConnectError::Unreachable { address: address.clone(), seconds };
        let stream = stream.ok_or_else(unreachable)?;
        let stream = stream.map_err(|source| ConnectError::Io { address: address.clone(), source })?;
        let greeting = Connection::greet(stream, hail, address.clone());
        before(end, greeting).await.ok_or(ConnectError::Silent { address, seconds })?
    }

    async fn greet(stream: TcpStream, hail: Hail, address: String) -> Result<Connection, ConnectError> {
        // Frames are whole when they are written; waiting for more only delays them. A socket
        // that refuses the option still works.
        let _ = stream.set_nodelay(true);
        notice_death(&stream);
        let mut out = Vec::new();
        let Hail { shard, cluster, role } = hail;
        let link = Link::new(shard, cluster, role, READ_CHUNK_BYTES, &mut out);
        let heard = Arc::default();
        let mut connection = Connection { address, stream, link, out, written: 0, welcome: None, heard };
        match connection.receive().await? {
            Received::Welcome(welcome) => connection.welcome = Some(welcome),
            _ => return Err(connection.broken(LinkError::Unexpected)),
        }
        Ok(connection)
    }

    /// An error if the cluster does not have this many shards.
    pub(super) fn check_shards(&self, there: u16) -> Result<(), ConnectError> {
        let here = self.welcome().shards;
        if here == there { Ok(()) } else { Err(self.broken(Refusal::WrongShards { here, there }.into())) }
    }

    /// The replica's description of its cluster.
    pub fn welcome(&self) -> &Welcome {
        self.welcome.as_ref().expect("an open connection was welcomed")
    }

    /// The address to which the connection leads.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Counts bytes received from now on in `heard`.
    pub(super) fn count_in(&mut self, heard: Arc<AtomicU64>) {
        self.heard = heard;
    }

    /// Takes the connection apart, for callers that move the bytes themselves: the socket, registered with the
    /// runtime, the codec, and the replica's description of its cluster.
    pub fn into_parts(self) -> (TcpStream, Link, Welcome) {
        let welcome = self.welcome.expect("an open connection was welcomed");
        (self.stream, self.link, welcome)
    }

    /// Queues a request; [`Connection::receive`] sends it.
    pub fn request(&mut self, tag: u64, payload: &[u8]) {
        self.link.request(&mut self.out, tag, payload);
    }

    /// Writes the queued requests and reads until a message has come. A call that is dropped before that loses
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Io`] if the network fails or the replica closes the connection, and [`ConnectError::Link`]
    /// if the replica refuses or sends something that is not a message. The connection is unusable after an error.
    pub async fn receive(&mut self) -> Result<Received, ConnectError> {
        loop {
            match self.link.poll() {
                Ok(Some(received)) => return Ok(received),
                Ok(None) => {}
                Err(source) => return Err(self.broken(source)),
            }
            let moved = self.move_bytes().await;
            moved.map_err(|source| ConnectError::Io { address: self.address.clone(), source })?;
        }
    }

    fn broken(&self, source: LinkError) -> ConnectError {
        ConnectError::Link { address: self.address.clone(), source }
    }

    /// Waits until the socket can be written or read, then does one write and one read that do not block.
    async fn move_bytes(&mut self) -> std::io::Result<()> {
        let writing = self.written < self.out.len();
        let interest = if writing { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        let ready = self.stream.ready(interest).await?;
        if writing && ready.is_writable() {
            match self.stream.try_write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if self.written == self.out.len() {
                (self.written, _) = (0, self.out.clear());
            }
        }
        if ready.is_readable() {
            match self.stream.try_read(self.link.room()) {
                Ok(0) => return Err(ErrorKind::ConnectionReset.into()),
                Ok(count) => {
                    self.link.received(count);
                    self.heard.fetch_add(count as u64, Ordering::Relaxed);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Asks for the status of the shard.
    ///
    /// # Errors
    ///
    /// The errors of [`Connection::receive`], and [`ConnectError::Silent`] after [`STATUS_TIMEOUT`].
    pub async fn status(&mut self) -> Result<ShardStatus, ConnectError> {
        self.link.ask_status(&mut self.out);
        self.receive_status().await
    }

    /// Asks the shard to propose a barrier, at which every replica takes a snapshot. Returns the status of the shard
    /// before that.
    ///
    /// # Errors
    ///
    /// The errors of [`Connection::status`].
    pub async fn request_snapshot(&mut self) -> Result<ShardStatus, ConnectError> {
        self.link.ask_snapshot(&mut self.out);
        self.receive_status().await
    }

    async fn receive_status(&mut self) -> Result<ShardStatus, ConnectError> {
        match self.receive_soon().await? {
            Received::Status(status) => Ok(*status),
            _ => Err(self.broken(LinkError::Unexpected)),
        }
    }

    /// Waits for the next message for at most [`STATUS_TIMEOUT`].
    pub(super) async fn receive_soon(&mut self) -> Result<Received, ConnectError> {
        let (address, seconds) = (&self.address, STATUS_TIMEOUT.as_secs());
        let silent = ConnectError::Silent { address: address.clone(), seconds };
        within(STATUS_TIMEOUT, self.receive()).await.ok_or(silent)?
    }

    /// Asks for all sources that the shard knows at this replica.
    ///
    /// # Errors
    ///
    /// The errors of [`Connection::status`].
    pub async fn sources(&mut self) -> Result<Vec<SourceStatus>, ConnectError> {
        let mut all: Vec<SourceStatus> = Vec::new();
        loop {
            let after = all.last().map_or(SessionId::NONE, |source| source.session);
            self.link.ask_sources(&mut self.out, after);
            let Received::Sources(some) = self.receive_soon().await? else {
                return Err(self.broken(LinkError::Unexpected));
            };
            let is_last = some.len() < SOURCES_TOLD_MAX;
            all.extend(some);
            if is_last {
                return Ok(all);
            }
        }
    }
}

/// Asks one replica for the status of a shard. `member` has the replica's client port of shard 0.
///
/// # Errors
///
/// The errors of [`Connection::open`] and [`Connection::status`].
pub async fn status(member: &Member, shard: ShardId) -> Result<ShardStatus, ConnectError> {
    Connection::open(member, shard, None, Role::Operator).await?.status().await
}
