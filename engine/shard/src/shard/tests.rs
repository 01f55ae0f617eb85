//! A shard through its epochs, with its real log, snapshots, ports and clients. It is a member alone, so whatever it
//! decides is decided.

use super::*;
use crate::net::connection::Connection;
use crate::net::listener::Listener;
use crate::start::make;
use crate::testing::fixture::Setup;
use crate::testing::rig::{PATIENCE, SHARD, connect, in_executor, shake, within_patience};
use isonomy_mesh::{FromShard, ProcessEnd, Progress, ToShard};
use isonomy_wire::command::{Numbering, RequestBuilder};
use isonomy_wire::failure::{Failure, Reason};
use isonomy_wire::frame::{Encoder, Kind, Scope};
use isonomy_wire::id::{Epoch, RecordId, SessionId};
use isonomy_wire::message::{ClientMessage, Handshake, Hello, Refusal, Role, ShardStatus};
use isonomy_wire::route::RULE_VERSION;
use std::cell::RefCell;
use std::net::TcpListener as Port;
use std::path::Path;
use std::sync::mpsc::channel;

const SECOND: Epoch = Epoch(2);
const RECORD: RecordId = RecordId(9);

/// A shard that runs, and the test in the place of its process.
struct House {
    shard: Rc<Shard>,
    process: ProcessEnd,
    clients: Port,
    roster: Roster,
    progress: RefCell<Option<Progress>>,
}

/// Runs a shard in the directory, in the newest epoch that it has entered, for as long as the test runs. What the test
/// gives is kept until the shard has ended.
fn run<T>(path: &Path, test: impl AsyncFnOnce(&House) -> T) {
    let setup = Setup::alone(path);
    let bound = || Port::bind("127.0.0.1:0").unwrap();
    let (peers, clients) = (bound(), bound());
    in_executor(async |ticks| {
        let data_dir = DataDir::open(&setup.expected).unwrap();
        let roster = match data_dir.newest_epoch() {
            Some(epoch) if epoch == SECOND => second(&setup.roster),
            _ => setup.roster.clone(),
        };
        data_dir.enter(&roster).unwrap();
        let (process, end) = isonomy_mesh::connect();
        let shard = make(setup.settings.clone(), data_dir, Mail::new(end, roster.clone()), ticks).unwrap();
        let listener = |port: &Port| Rc::new(Listener::new(port.try_clone().unwrap()));
        let listeners = Listeners { peers: listener(&peers), clients: listener(&clients) };
        let running = glommio::spawn_local(shard.clone().run(listeners));
        let house = House { shard, process, clients, roster, progress: RefCell::default() };
        house.until("the first progress", |_| true).await;
        let kept = test(&house).await;
        house.order(ToShard::Stop);
        within_patience("the end", running).await;
        drop(kept);
    });
}

fn second(first: &Roster) -> Roster {
    Roster { epoch: SECOND, record: RECORD, ..first.clone() }
}

impl House {
    fn order(&self, order: ToShard) {
        self.process.orders.send(order).unwrap();
    }

    /// Waits until the shard has told a progress that fits.
    async fn until(&self, what: &str, fits: impl Fn(Progress) -> bool) {
        let began = Instant::now();
        loop {
            for news in self.process.news.take() {
                if let FromShard::Progress(progress) = news {
                    self.progress.replace(Some(progress));
                }
            }
            if self.progress.borrow().is_some_and(&fits) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{what}: {:?}", self.progress);
            self.shard.tick.wait().await;
        }
    }

    async fn seal(&self) {
        self.order(ToShard::Seal(RECORD));
        let is_sealed = |it: Progress| it.end.is_some_and(|end| end.record == RECORD);
        self.until("the end of the epoch", is_sealed).await;
    }

    /// The directory and then the shard enter the second epoch.
    async fn enter(&self, roster: Roster) {
        self.shard.data_dir.enter(&roster).unwrap();
        self.order(ToShard::Roster(roster));
        self.until("the next epoch", |it| it.epoch == SECOND).await;
    }

    async fn hello(&self, role: Role) -> (Connection, Handshake) {
        let mut connection = connect(&self.clients).await;
        let hello =
            Hello { cluster: None, epoch: Epoch(0), shard: SHARD, shards: 0, rule: RULE_VERSION, role };
        let answer = shake(&mut connection, hello).await.unwrap();
        (connection, answer)
    }

    /// Sends a message on a new connection; the answer.
    async fn ask(&self, message: ClientMessage, payload: &[u8]) -> ClientMessage {
        let scope = Scope { kind: Kind::Client, epoch: Epoch(0), shard: SHARD };
        loop {
            let (mut connection, answer) = self.hello(Role::Client).await;
            if let Handshake::Refused(Refusal::EpochChanged { .. }) = answer {
                continue;
            }
            assert!(matches!(answer, Handshake::Welcome(_)), "{answer:?}");
            let crc = crc32c::crc32c(payload);
            connection.sink.push(&mut Encoder::default(), scope, &message, payload, crc);
            connection.sink.flush();
            match within_patience("an answer", connection.next_frame()).await.map(|it| it.decode(scope)) {
                Ok(Ok(ClientMessage::Leave(Refusal::EpochChanged { .. }))) | Err(_) => {}
                Ok(answer) => return answer.unwrap(),
            }
        }
    }

    /// Decides the numbered command of the only session.
    async fn decide(&self, number: u64) {
        let mut builder = RequestBuilder::default();
        builder.decide(format!("key {number}").as_bytes(), b"value").unwrap();
        let bytes = builder.encode(SessionId::named("s"), Numbering::at(number));
        let failure = Failure::Unavailable(Reason::NotConfirmed);
        let answer = within_patience("admission", async {
            loop {
                match self.ask(ClientMessage::Request { tag: number }, &bytes).await {
                    ClientMessage::Failed { failure: refused, .. } if refused == failure => {}
                    answer => return answer,
                }
            }
        });
        let answer = answer.await;
        assert!(matches!(answer, ClientMessage::Response { tag } if tag == number), "{answer:?}");
    }

    async fn status(&self) -> ShardStatus {
        match self.ask(ClientMessage::StatusRequest, &[]).await {
            ClientMessage::Status(status) => *status,
            answer => panic!("{answer:?}"),
        }
    }

    /// The shard takes no part in the epoch of this roster, and says where the members are.
    async fn until_left_out(&self, roster: Roster) {
        let mut roster = Roster { own: None, ..roster };
        roster.places[0].address.client_base = 4321;
        let expected = roster.epoch;
        self.order(ToShard::Roster(roster));
        let began = Instant::now();
        loop {
            match self.hello(Role::Client).await.1 {
                Handshake::Refused(Refusal::NotAMember { epoch, members }) => {
                    let ports: Vec<u16> = members.iter().map(|member| member.client_base).collect();
                    assert_eq!((epoch, &ports[..]), (expected, &[4321][..]));
                    return;
                }
                answer => assert!(began.elapsed() < PATIENCE, "{answer:?}"),
            }
        }
    }
}

/// The epochs whose logs lie in the directory of the shard.
fn epochs(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(crate::data_dir::shard_dir(path, SHARD)).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_next_epoch_begins_with_the_state_in_this_process_and_in_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    run(&path, async |house| {
        house.decide(1).await;
        house.seal().await;
        let ended = house.status().await;
        let (answered, refused) = (ended.latency.count(), ended.requests_failed.unavailable);
        assert_eq!((answered, ended.proposals), (1, 1 + refused));
        let writes = 1..=ended.log_groups;
        assert!(writes.contains(&ended.log_latency.count()), "{:?} of {writes:?}", ended.log_latency);
        house.enter(second(&house.roster)).await;
        let begun = house.status().await;
        assert_eq!((begun.epoch, begun.keys, begun.state_hash), (SECOND, 1, ended.state_hash));
        house.decide(2).await;
        let began = Instant::now();
        while epochs(&path) != ["epoch-000002"] {
            assert!(began.elapsed() < PATIENCE, "the first epoch is kept: {:?}", epochs(&path));
            house.shard.tick.wait().await;
        }
    });
    run(&path, async |house| {
        let status = house.status().await;
        assert_eq!((status.epoch, status.keys), (SECOND, 2));
        house.decide(3).await;
    });
}

#[test]
fn a_restart_before_the_first_snapshot_of_an_epoch_makes_the_sealed_core_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    run(&path, async |house| {
        house.decide(1).await;
        house.seal().await;
        // No file of a snapshot is written from here on.
        let (release, held) = channel::<()>();
        let shard = house.shard.clone();
        let hold = glommio::spawn_local(async move { shard.aside.run(move || _ = held.recv()).await });
        house.enter(second(&house.roster)).await;
        house.decide(2).await;
        assert_eq!(house.status().await.snapshot, 0);
        (hold, release)
    });
    assert_eq!(epochs(&path), ["epoch-000001", "epoch-000002"]);
    run(&path, async |house| {
        let status = house.status().await;
        assert_eq!((status.epoch, status.keys), (SECOND, 2));
        house.decide(3).await;
    });
}

#[test]
fn whoever_was_not_sealed_begins_without_the_state() {
    let dir = tempfile::tempdir().unwrap();
    run(&dir.path().join("data"), async |house| {
        house.decide(1).await;
        house.until("the state", |it| it.is_close).await;
        house.enter(second(&house.roster)).await;
        house.until("the loss of the state", |it| it.epoch == SECOND && !it.is_close).await;
        assert_eq!(house.status().await.keys, 0);
    });
}

#[test]
fn a_seal_of_another_change_hands_nothing_over() {
    let dir = tempfile::tempdir().unwrap();
    run(&dir.path().join("data"), async |house| {
        house.decide(1).await;
        house.seal().await;
        house.enter(Roster { record: RecordId(8), ..second(&house.roster) }).await;
        assert_eq!(house.status().await.keys, 0);
    });
}

#[test]
fn whoever_is_left_out_says_where_the_members_are() {
    let dir = tempfile::tempdir().unwrap();
    run(&dir.path().join("data"), async |house| {
        house.decide(1).await;
        house.seal().await;
        house.until_left_out(second(&house.roster)).await;
    });
}

#[test]
fn whoever_has_lost_its_place_within_an_epoch_says_so_as_well() {
    let dir = tempfile::tempdir().unwrap();
    run(&dir.path().join("data"), async |house| house.until_left_out(house.roster.clone()).await);
}
