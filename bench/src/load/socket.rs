//! One connection: a plain socket that never blocks, and the bytes to write to it.

use crate::out::say;
use anyhow::{Context, Result, ensure};
use isonomy_wire::address::with_port;
use isonomy_wire::client::ConnectError;
use isonomy_wire::client::connection::notice_death;
use isonomy_wire::conversation::{Link, LinkError, Received};
use isonomy_wire::id::{Epoch, ReplicaId, ShardId};
use isonomy_wire::message::{Member, Refusal, Role};
use isonomy_wire::view::View;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::members::Members;

/// How long a connection may take until the welcome.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause before a lost connection is made again; doubled at each failure up to the second.
const RECONNECT_PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// A connection that was welcomed.
pub(crate) struct Up {
    pub(crate) stream: TcpStream,
    pub(crate) link: Link,
    /// The bytes to write, of which a part may have been written.
    pub(crate) out: Vec<u8>,
    written: usize,
}

impl Up {
    /// Connects to the member at a place and waits for its welcome, then never blocks again. Whatever the replica says
    /// of the members is noted.
    fn connect(
        members: &Members,
        view: &View,
        replica: ReplicaId,
        shard: ShardId,
        chunk: usize,
    ) -> Result<Up> {
        let Member { host, client_base } = &view.members()[replica.index()];
        let (host, base) = (host.as_str(), *client_base);
        let member = with_port(host, base);
        let port = base.checked_add(shard.0).ok_or(ConnectError::Port { member, shard: shard.0 })?;
        let mut stream = connect_any((host, port).to_socket_addrs()?)?;
        notice_death(&stream);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
        let mut out = Vec::new();
        let mut link = Link::new(shard, Some(members.cluster), Role::Client, chunk, &mut out);
        stream.write_all(&out)?;
        let welcome = loop {
            match link.poll() {
                Ok(Some(Received::Welcome(welcome))) => break welcome,
                Ok(Some(_)) => return Err(LinkError::Unexpected.into()),
                Ok(None) => {}
                Err(error) => {
                    // A replica that is no member does not hear at once of members that move.
                    let told = error.referral().filter(|told| told.epoch() > view.epoch());
                    told.into_iter().for_each(|told| members.learn(told));
                    return Err(error.into());
                }
            }
            match stream.read(link.room())? {
                0 => return Err(std::io::Error::from(ErrorKind::ConnectionReset).into()),
                count => link.received(count),
            }
        };
        members.learn(View::of(&welcome)?);
        ensure!(
            welcome.shards == members.shards && welcome.epoch == view.epoch() && welcome.replica == replica,
            LinkError::Unexpected
        );
        stream.set_nonblocking(true)?;
        out.clear();
        Ok(Up { stream, link, out, written: 0 })
    }

    /// Connects as `connect` does, again and again until it succeeds or another epoch than this one has begun. A refusal
    /// by a member of another cluster is reported, once, since it does not pass by itself.
    pub(crate) fn connect_in(
        epoch: Epoch,
        members: &Members,
        replica: ReplicaId,
        shard: ShardId,
        chunk: usize,
    ) -> Option<Up> {
        let (mut pause, longest) = RECONNECT_PAUSES;
        let mut is_told = false;
        loop {
            let view = members.view();
            if view.epoch() != epoch {
                return None;
            }
            let error = match Up::connect(members, &view, replica, shard, chunk) {
                Ok(up) => return Some(up),
                Err(error) => error,
            };
            if matches!(error.downcast_ref(), Some(LinkError::Refused(Refusal::WrongCluster { .. })))
                && !is_told
            {
                let Member { host, client_base } = &view.members()[replica.index()];
                say(format_args!("isonomy-bench: {}: {error}", with_port(host, *client_base)));
                is_told = true;
            }
            members.sleep_in(epoch, pause);
            pause = (2 * pause).min(longest);
        }
    }

    /// Whether nothing waits to be written.
    pub(crate) fn is_written(&self) -> bool {
        self.out.is_empty()
    }

    /// Writes as many bytes as the socket takes.
    pub(crate) fn write(&mut self) -> std::io::Result<()> {
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

    /// Reads once and tells of every whole message.
    pub(crate) fn read(&mut self, mut tell: impl FnMut(Received) -> Result<(), LinkError>) -> Result<()> {
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

/// Connects to the first of the addresses of a name that takes it.
fn connect_any(addresses: impl Iterator<Item = SocketAddr>) -> Result<TcpStream> {
    let mut last = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    Err(last.context("the name of the replica has no address; check the name and the name server")?.into())
}
