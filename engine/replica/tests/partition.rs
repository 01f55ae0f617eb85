//! A network that is cut for a while and heals: each replica decides again within seconds, however long
//! the cut was. The replicas live in network namespaces on a bridge of their own, which takes root.
//!
//! `ISONOMY_CUT_SECONDS` says how long the cut lasts.

mod support;

use isonomy_wire::command::{Numbering, RequestBuilder};
use isonomy_wire::id::{SessionId, ShardId};
use isonomy_wire::message::ClientMessage;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};
use support::network::{ip, program_in};
use support::{Cluster, PATIENCE, RawClient, eventually};

/// A connection that survives the cut is silent for longer than `BACK_WITHIN` after it: what was lost the
/// kernel sends again when 25 to 38 s have passed, and then when 51 to 76 s have.
const CUT_SECONDS: u64 = 40;
/// How long each replica may take to decide after the cut. It takes 1 to 2 s.
const BACK_WITHIN: Duration = Duration::from_secs(8);
/// How often it is tried.
const TRY_EVERY: Duration = Duration::from_millis(50);
const SHARD: ShardId = ShardId(0);

/// A bridge, and a namespace at it for each replica.
struct Network {
    tag: String,
    subnet: String,
    members: usize,
}

impl Network {
    /// Makes one, if this machine lets the test do so.
    fn make(members: usize) -> Option<Network> {
        // A range for tests of networks (RFC 2544).
        let [net, a, b] = rand::random::<[u8; 3]>();
        let network = Network { tag: format!("i{a:02x}{b:02x}"), subnet: format!("198.18.{net}"), members };
        network.lay().then_some(network)
    }

    fn lay(&self) -> bool {
        let Network { tag, subnet, .. } = self;
        let bridge = ip(&format!("link add {tag}-b type bridge"))
            && ip(&format!("addr add {subnet}.254/24 dev {tag}-b"))
            && ip(&format!("link set {tag}-b up"));
        bridge
            && (0..self.members).all(|index| {
                let place = format!("{tag}-{index}");
                ip(&format!("netns add {place}"))
                    && ip(&format!("link add {place} type veth peer name eth0 netns {place}"))
                    && ip(&format!("-n {place} addr add {} dev eth0", self.host(index) + "/24"))
                    && ip(&format!("-n {place} link set lo up"))
                    && ip(&format!("-n {place} link set eth0 up"))
                    && ip(&format!("link set {place} up"))
                    && self.join(index)
            })
    }

    fn host(&self, index: usize) -> String {
        format!("{}.{}", self.subnet, index + 1)
    }

    /// The program in the namespace of a member.
    fn program(&self, index: usize) -> Command {
        program_in(&format!("{}-{index}", self.tag))
    }

    /// What a member sends arrives nowhere, and it is not told.
    fn cut(&self, index: usize) {
        assert!(ip(&format!("link set {}-{index} nomaster", self.tag)));
    }

    fn join(&self, index: usize) -> bool {
        ip(&format!("link set {0}-{index} master {0}-b", self.tag))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for index in 0..self.members {
            ip(&format!("netns del {}-{index}", self.tag));
        }
        ip(&format!("link del {}-b", self.tag));
    }
}

/// Decides something at this replica, as soon as it takes it.
fn decide(address: SocketAddr, number: u64) {
    let mut builder = RequestBuilder::default();
    builder.decide(format!("{address}").as_bytes(), b"value").unwrap();
    let request = builder
        .encode(SessionId::named(&address.to_string()), Numbering { first: number, answered_below: number });
    let once = || {
        let session = TcpStream::connect_timeout(&address, TRY_EVERY).ok()?;
        let mut client = RawClient::over(session, SHARD).ok()?.welcomed().ok()?;
        client.send(&ClientMessage::Request { tag: number }, &request);
        match client.receive()?.0 {
            ClientMessage::Response { .. } => Some(()),
            // It cannot decide yet.
            _ => None,
        }
    };
    let began = Instant::now();
    while once().is_none() {
        assert!(began.elapsed() < PATIENCE, "{address} does not decide");
        std::thread::sleep(TRY_EVERY);
    }
}

/// Cuts these off for a while; how long each replica takes to decide after that.
fn recovery_from(cut: &[usize]) -> Option<Vec<Duration>> {
    let Some(network) = Network::make(3) else {
        eprintln!("NOT TESTED: this user cannot lay networks here; run the tests as root");
        return None;
    };
    let mut cluster = Cluster::prepare_at((0..3).map(|index| network.host(index)).collect(), 1);
    (0..3).for_each(|index| cluster.spawn_by(index, network.program(index)));
    cluster.wait_linked();
    let addresses: Vec<SocketAddr> = cluster.addresses().iter().map(|text| text.parse().unwrap()).collect();
    addresses.iter().for_each(|address| decide(*address, 1));

    let seconds = std::env::var("ISONOMY_CUT_SECONDS").map_or(CUT_SECONDS, |text| text.parse().unwrap());
    cut.iter().for_each(|index| network.cut(*index));
    std::thread::sleep(Duration::from_secs(seconds));
    cut.iter().for_each(|index| assert!(network.join(*index)));
    let healed = Instant::now();
    let tries = addresses
        .into_iter()
        .map(|address| std::thread::spawn(move || (decide(address, 2), healed.elapsed()).1));
    let took: Vec<Duration> = tries.collect::<Vec<_>>().into_iter().map(|one| one.join().unwrap()).collect();
    println!("after {seconds} s without {cut:?} the replicas decide again within {took:?}");
    cluster.assert_running();
    eventually("links in both directions", || {
        (0..3).all(|index| cluster.status(index, 0).is_some_and(|status| status.peers_connected.len() == 2))
    });
    println!("and all are linked after {:?}", healed.elapsed());
    cluster.wait_agreed();
    Some(took)
}

#[test]
fn a_member_that_was_cut_off_decides_soon_after() {
    let took = recovery_from(&[2]);
    assert!(took.is_none_or(|took| took.iter().all(|time| *time < BACK_WITHIN)));
}

#[test]
fn a_cluster_whose_members_were_all_cut_off_decides_soon_after() {
    let took = recovery_from(&[0, 1, 2]);
    assert!(took.is_none_or(|took| took.iter().all(|time| *time < BACK_WITHIN)));
}
