//! The links of a shard with its peers: which peers the shard reaches, which it hears, and which messages were lost.

use isonomy_protocol::contract::Send;
use isonomy_wire::frame::{Encoder, Scope};
use isonomy_wire::id::{PLACES_MAX, ReplicaId};
use isonomy_wire::message::{PeerMessage, PeerStatus, Start};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::net::connection::Sink;

/// The most bytes that may wait for a peer. A peer that falls behind further loses its queue and catches up by asking
/// for the messages that it lacks.
const PEER_BACKLOG_BYTES_MAX: usize = 64 << 20;
/// The first wait before a link is tried again. The wait doubles up to the longest one.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_LAST: Duration = Duration::from_secs(1);
/// The longest silence of a peer that counts as living, since a living peer gossips at least once a second.
const LIVING_SILENT_MAX: Duration = Duration::from_secs(3);

/// The links by peer.
pub(crate) struct Links {
    peers: [Link; PLACES_MAX],
}

#[derive(Default)]
struct Link {
    /// Whether a task keeps the outgoing link.
    is_kept: bool,
    outgoing: Option<Rc<Sink>>,
    /// A connection that was welcomed and not heard yet. It replaces no other connection until the peer sends on it.
    greeted: Option<Rc<Sink>>,
    /// The connection on which the peer sends, and the peer's process (G6).
    incoming: Option<(Start, Rc<Sink>)>,
    /// Whether a message was pushed that must not wait.
    urgent: bool,
    /// The waits between tries to open the outgoing link.
    retry: Backoff,
    counted: Counted,
}

/// Counts since the process started.
#[derive(Default)]
struct Counted {
    opened: u64,
    ended: u64,
    heard: u64,
    silenced: u64,
    lost: u64,
}

/// Waits between tries. Each wait is twice as long as the one before, up to the longest one, until a try succeeds.
#[derive(Default)]
struct Backoff {
    /// The last wait; zero since a success.
    wait: Duration,
}

impl Backoff {
    fn next(&mut self) -> Duration {
        self.wait = (2 * self.wait).clamp(RETRY_FIRST, RETRY_LAST);
        self.wait
    }

    fn on_success(&mut self) {
        self.wait = Duration::ZERO;
    }
}

impl Default for Links {
    fn default() -> Links {
        Links { peers: std::array::from_fn(|_| Link::default()) }
    }
}

impl Links {
    /// A task is to keep the outgoing link to a peer. Returns false if one does already.
    pub(crate) fn begin(&mut self, peer: ReplicaId) -> bool {
        !std::mem::replace(&mut self.peers[peer.index()].is_kept, true)
    }

    /// No task keeps the outgoing link to a peer any more.
    pub(crate) fn end(&mut self, peer: ReplicaId) {
        self.peers[peer.index()].is_kept = false;
    }

    /// Closes the connections of a peer that takes no part any more.
    pub(crate) fn close(&self, peer: ReplicaId) {
        let Link { outgoing, greeted, incoming, .. } = &self.peers[peer.index()];
        let sinks = outgoing.iter().chain(greeted).chain(incoming.iter().map(|(_, sink)| sink));
        sinks.for_each(|sink| sink.close("the peer takes no part any more"));
    }

    /// The outgoing link to a peer is open.
    pub(crate) fn on_opened(&mut self, peer: ReplicaId, sink: Rc<Sink>) {
        let link = &mut self.peers[peer.index()];
        assert!(link.outgoing.is_none(), "one task keeps the link to a peer");
        link.outgoing = Some(sink);
        link.retry.on_success();
        link.counted.opened += 1;
    }

    /// The outgoing link to a peer has ended; messages that had not left are lost.
    pub(crate) fn on_ended(&mut self, peer: ReplicaId) {
        let link = &mut self.peers[peer.index()];
        let sink = link.outgoing.take().expect("what ends was opened");
        link.counted.ended += 1;
        link.counted.lost += sink.unsent();
    }

    /// How long to wait before the link to a peer is tried again.
    pub(crate) fn next_wait(&mut self, peer: ReplicaId) -> Duration {
        self.peers[peer.index()].retry.next()
    }

    /// A peer was welcomed on this connection. The peer has given up an earlier connection on which it has sent
    /// nothing.
    pub(crate) fn on_greeted(&mut self, peer: ReplicaId, sink: &Rc<Sink>) {
        if let Some(before) = self.peers[peer.index()].greeted.replace(sink.clone()) {
            before.close("the peer has connected again");
        }
    }

    /// A process of a peer sends on this connection for the first time. The peer has given up the connection before.
    pub(crate) fn on_heard(&mut self, peer: ReplicaId, start: Start, sink: &Rc<Sink>) {
        let link = &mut self.peers[peer.index()];
        link.greeted.take_if(|current| Rc::ptr_eq(current, sink));
        link.counted.heard += 1;
        if let Some((_, before)) = link.incoming.replace((start, sink.clone())) {
            link.counted.silenced += 1;
            before.close("the peer has connected again");
        }
    }

    /// A connection of a peer has ended. It may be an old one, which is no longer the peer's.
    pub(crate) fn on_silenced(&mut self, peer: ReplicaId, sink: &Rc<Sink>) {
        let link = &mut self.peers[peer.index()];
        link.greeted.take_if(|current| Rc::ptr_eq(current, sink));
        let was_heard = link.incoming.take_if(|(_, current)| Rc::ptr_eq(current, sink)).is_some();
        link.counted.silenced += u64::from(was_heard);
    }

    /// Queues a message; without a link it is lost, which the core expects.
    pub(crate) fn push(&mut self, encoder: &mut Encoder, scope: Scope, send: &Send) {
        let link = &mut self.peers[send.to.index()];
        let Some(sink) = &link.outgoing else {
            link.counted.lost += 1;
            return;
        };
        link.urgent |= !send.lazy;
        if sink.backlog() > PEER_BACKLOG_BYTES_MAX {
            link.counted.lost += 1;
            return sink.close("the peer fell too far behind");
        }
        match &send.payload {
            Some(payload) => {
                let batch = payload.batch();
                sink.push(encoder, scope, &send.message, batch.payload(), batch.crc());
            }
            None => sink.push(encoder, scope, &send.message, &[], 0),
        }
    }

    /// Queues a message with bytes that do not come from the core, such as those of a file.
    pub(crate) fn push_bytes(
        &mut self,
        encoder: &mut Encoder,
        scope: Scope,
        to: ReplicaId,
        message: &PeerMessage,
        bytes: &[u8],
    ) {
        let link = &mut self.peers[to.index()];
        let Some(sink) = &link.outgoing else {
            link.counted.lost += 1;
            return;
        };
        link.urgent = true;
        sink.push(encoder, scope, message, bytes, crc32c::crc32c(bytes));
    }

    /// Lets queued messages leave for peers with an urgent one among them.
    pub(crate) fn flush(&mut self) {
        for link in &mut self.peers {
            if std::mem::take(&mut link.urgent)
                && let Some(sink) = &link.outgoing
            {
                sink.flush();
            }
        }
    }

    /// Lets all queued messages leave.
    pub(crate) fn flush_all(&mut self) {
        self.peers.iter_mut().for_each(|link| link.urgent = true);
        self.flush();
    }

    /// The peers whose links work in both directions.
    pub(crate) fn linked(&self) -> impl Iterator<Item = ReplicaId> {
        let both = |link: &Link| link.outgoing.is_some() && link.incoming.is_some();
        let linked = self.peers.iter().enumerate().filter(move |(_, link)| both(link));
        linked.map(|(index, _)| ReplicaId(index as u8))
    }

    /// Whether a peer is reached from here, and whether it reaches this replica.
    pub(crate) fn directions(&self, peer: ReplicaId) -> (bool, bool) {
        let link = &self.peers[peer.index()];
        (link.outgoing.is_some(), link.incoming.is_some())
    }

    /// Whether a peer was welcomed and has sent nothing yet.
    pub(crate) fn is_greeted(&self, peer: ReplicaId) -> bool {
        self.peers[peer.index()].greeted.is_some()
    }

    pub(crate) fn incoming(&self) -> impl Iterator<Item = &Rc<Sink>> {
        self.peers.iter().filter_map(|link| link.incoming.as_ref().map(|(_, sink)| sink))
    }

    /// G6: the process of a peer that was heard within the last seconds.
    pub(crate) fn living(&self, peer: ReplicaId, now: Instant) -> Option<Start> {
        let (start, sink) = self.peers[peer.index()].incoming.as_ref()?;
        (!sink.is_closed() && sink.silent_for(now) < LIVING_SILENT_MAX).then_some(*start)
    }

    pub(crate) fn sinks(&self) -> impl Iterator<Item = Rc<Sink>> {
        let others = self.peers.iter().flat_map(|link| link.outgoing.iter().chain(&link.greeted));
        others.chain(self.incoming()).cloned()
    }

    /// Adds the facts about the links with a peer that the core does not know.
    pub(crate) fn tell(&self, status: PeerStatus) -> PeerStatus {
        let Link { counted, retry, outgoing, .. } = &self.peers[status.replica.index()];
        let Counted { opened, ended, heard, silenced, lost } = *counted;
        let retry_ms = retry.wait.as_millis() as u64;
        let queued_bytes = outgoing.as_ref().map_or(0, |sink| sink.backlog() as u64);
        PeerStatus { opened, ended, heard, silenced, lost, retry_ms, queued_bytes, ..status }
    }
}

#[cfg(test)]
mod tests;
