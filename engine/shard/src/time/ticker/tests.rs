//! What time brings about, with the time passed in.

use super::*;
use crate::testing::rig::{self, Rig, SHARD};
use isonomy_mesh::FromShard;
use isonomy_protocol::contract::{Append, Position};
use isonomy_protocol::epoch::FIRST;
use isonomy_protocol::log::record::Record;
use isonomy_protocol::payload::Payload;
use isonomy_wire::command::{Numbering, RequestBuilder, VALUE_BYTES_MAX};
use isonomy_wire::frame::{Encoder, Kind as FrameKind, Scope};
use isonomy_wire::id::{ReplicaId, SessionId};
use isonomy_wire::message::{ClientMessage, Start};

const PEER: ReplicaId = ReplicaId(1);
const START: Start = Start { number: 1, nonce: 7 };
const MOMENT: Duration = Duration::from_millis(1);

fn sink() -> Rc<Sink> {
    Rc::new(Sink::new())
}

/// A guest to whom something was said that it has not read.
fn unread(rig: &Rig) -> Rc<Sink> {
    let sink = sink();
    rig.node.net.guests.borrow_mut().admit(Instant::now(), false, &sink).unwrap();
    let scope = Scope { kind: FrameKind::Client, epoch: FIRST, shard: SHARD };
    sink.push(&mut Encoder::default(), scope, &ClientMessage::StatusRequest, &[], 0);
    sink
}

/// A peer that is heard.
fn heard(rig: &Rig) -> Rc<Sink> {
    let sink = sink();
    rig.node.net.links.borrow_mut().on_heard(PEER, START, &sink);
    sink
}

#[test]
fn a_client_that_does_not_read_is_closed_and_one_that_does_is_not() {
    rig::run(3, async |rig| {
        let idle = sink();
        rig.node.net.guests.borrow_mut().admit(Instant::now(), false, &idle).unwrap();
        let before = Instant::now();
        let unread = unread(&rig);
        rig.node.sweep(before + CLIENT_PATIENCE);
        assert!(!unread.is_closed(), "it has some time");
        let late = Instant::now() + CLIENT_PATIENCE + MOMENT;
        rig.node.sweep(late);
        assert_eq!(unread.why_closed(), Some("the other side does not read its answers"));
        assert!(!idle.is_closed(), "nothing was said to it");
    });
}

#[test]
fn a_client_that_does_not_finish_a_frame_is_closed() {
    rig::run(3, async |rig| {
        let (begun, whole) = (sink(), sink());
        for sink in [&begun, &whole] {
            rig.node.net.guests.borrow_mut().admit(Instant::now(), false, sink).unwrap();
        }
        let now = Instant::now();
        [&begun, &whole].iter().for_each(|sink| sink.on_partial(true, now));
        // More of the same frame is no progress; its end is.
        begun.on_partial(true, now + CLIENT_PATIENCE);
        whole.on_partial(false, now + CLIENT_PATIENCE);
        rig.node.sweep(now + CLIENT_PATIENCE);
        assert!(!begun.is_closed());
        rig.node.sweep(now + CLIENT_PATIENCE + MOMENT);
        assert_eq!(begun.why_closed(), Some("the other side did not finish a frame in time"));
        assert!(!whole.is_closed());
    });
}

#[test]
fn a_silent_peer_is_closed_and_one_that_speaks_is_not() {
    rig::run(3, async |rig| {
        let (silent, now) = (heard(&rig), Instant::now());
        silent.on_heard(now);
        rig.node.sweep(now + PEER_PATIENCE);
        assert!(!silent.is_closed());
        silent.on_heard(now + MOMENT);
        rig.node.sweep(now + PEER_PATIENCE + MOMENT);
        assert!(!silent.is_closed(), "it has spoken since");
        rig.node.sweep(now + PEER_PATIENCE + 2 * MOMENT);
        assert_eq!(silent.why_closed(), Some("the peer was silent for too long"));
    });
}

/// More waits for the disk than peers are read with.
fn fall_behind(rig: &Rig) {
    let mut builder = RequestBuilder::default();
    builder.decide(b"key", &vec![0; VALUE_BYTES_MAX]).unwrap();
    let bytes = builder.encode(SessionId::named("s"), Numbering::at(1));
    let crc = crc32c::crc32c(&bytes);
    let payload = Payload::parse(bytes, crc).unwrap();
    let now = rig.node.pump.now();
    let mut log = rig.node.writer.log();
    let first = log.durable.0;
    for next in 1.. {
        if log.is_behind() {
            return;
        }
        let record = Record::Reserve { end: next };
        let append = Append { position: Position(first + next), record, payload: Some(payload.clone()) };
        log.append(now, &append);
    }
}

#[test]
fn a_peer_that_is_not_read_is_not_silent() {
    rig::run(3, async |rig| {
        let (silent, now) = (heard(&rig), Instant::now());
        fall_behind(&rig);
        let late = now + 10 * PEER_PATIENCE;
        rig.node.sweep(late);
        assert!(!silent.is_closed(), "this replica does not read it");
        while rig.node.writer.log().take(rig.node.pump.now()).is_some() {}
        rig.node.sweep(late);
        assert!(silent.is_closed());
    });
}

#[test]
fn clients_are_swept_while_peers_are_not_read() {
    rig::run(3, async |rig| {
        let unread = unread(&rig);
        fall_behind(&rig);
        rig.node.sweep(Instant::now() + CLIENT_PATIENCE + MOMENT);
        assert!(unread.is_closed());
    });
}

#[test]
fn the_process_gets_the_metrics_at_each_sweep() {
    rig::run(1, async |rig| {
        rig.admit();
        let now = Instant::now();
        let mut ticker =
            Ticker { swept: now, asked: now, hung_since: None, roster: None, sealing_since: None };
        let metrics = || {
            let budget = |news| match news {
                FromShard::Metrics(metrics) => Some(metrics.log_budget_bytes),
                FromShard::Ready | FromShard::Progress(_) => None,
            };
            rig.process.news.take().filter_map(budget).collect::<Vec<_>>()
        };
        rig.node.on_tick(&mut ticker);
        assert!(metrics().is_empty(), "no sweep was due");
        ticker.swept = now.checked_sub(SWEEP_EVERY).unwrap();
        rig.node.on_tick(&mut ticker);
        rig.node.on_tick(&mut ticker);
        assert_eq!(metrics(), [1 << 30]);
    });
}

/// A log that nearly fills its budget, and nothing to publish.
const WELL: Held = Held { hung: None, is_full: false, bytes: 99, budget: 100, unpublished: None };

#[test]
fn a_barrier_is_asked_for_while_the_budget_is_used_up_and_the_disk_takes_it() {
    let held = Held { bytes: 100, ..WELL };
    assert!(held.asks_for_barrier(BARRIER_EVERY));
    assert!(!held.asks_for_barrier(BARRIER_EVERY - MOMENT), "it was asked for a moment ago");
    assert!(!Held { bytes: 99, ..held }.asks_for_barrier(BARRIER_EVERY));
    assert!(!Held { is_full: true, ..held }.asks_for_barrier(BARRIER_EVERY), "a snapshot needs room as well");
}

#[test]
fn the_worst_that_a_disk_has_is_told_first() {
    let well = WELL;
    assert_eq!(well.room(), Room::Enough);
    let over = Held { bytes: 100, ..well };
    assert_eq!(over.room(), Room::Short(Reason::LogFull { held_bytes: 100, budget_bytes: 100 }));
    let reason = Reason::PublicationBehind { held_bytes: 51, budget_bytes: 50 };
    let behind = Held { unpublished: Some(reason), ..well };
    assert_eq!(behind.room(), Room::Short(reason));
    let full = Held { is_full: true, ..over };
    assert_eq!(full.room(), Room::Gone(Reason::DiskFull));
    let hung = Held { hung: Some(Duration::from_secs(7)), ..over };
    assert_eq!(hung.room(), Room::Hung(Reason::DiskHung { for_ms: 7000 }));
    let both = Held { is_full: true, ..hung };
    assert_eq!(both.room(), Room::Hung(Reason::DiskFull), "whoever waits is sent elsewhere");
}
