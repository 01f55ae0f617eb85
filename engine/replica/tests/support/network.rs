//! Networks of a test's own, in namespaces. They take root.

use super::program;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Command;

/// Does what `ip` is told, if this machine lets the test do so.
pub fn ip(arguments: &str) -> bool {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    status.is_ok_and(|status| status.success())
}

/// The program in a namespace.
pub fn program_in(namespace: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program().get_program());
    command
}

/// A TCP connection as one of its ends sees it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Flow {
    pub here: SocketAddrV4,
    pub there: SocketAddrV4,
}

/// A router, and at each of its links a namespace for a replica; one more leads to this process. It can drop what
/// belongs to a connection without telling anybody, as firewalls and NATs do that have forgotten one.
pub struct Router {
    tag: String,
    subnet: String,
    members: usize,
}

impl Router {
    /// Makes one, if this machine lets the test do so.
    pub fn make(members: usize) -> Option<Router> {
        // A range for tests of networks (RFC 2544).
        let [net, a, b] = rand::random::<[u8; 3]>();
        let router = Router { tag: format!("r{a:02x}{b:02x}"), subnet: format!("198.19.{net}"), members };
        let is_laid = router.lay();
        if !is_laid {
            eprintln!("NOT TESTED: this user cannot lay networks here; run the tests as root");
        }
        is_laid.then_some(router)
    }

    fn lay(&self) -> bool {
        let Router { tag, subnet, .. } = self;
        let own = self.home();
        let forwards = || {
            let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
            let status = Command::new("ip").args(["netns", "exec", tag, "sh", "-c", forward]).status();
            status.is_ok_and(|status| status.success())
        };
        let router = ip(&format!("netns add {tag}"))
            && ip(&format!("-n {tag} link set lo up"))
            && ip(&format!("-n {tag} addr add {subnet}.253/32 dev lo"))
            && forwards()
            && ip(&format!("link add {tag}-h type veth peer name home netns {tag}"))
            && ip(&format!("addr add {own}/32 dev {tag}-h"))
            && ip(&format!("link set {tag}-h up"))
            && ip(&format!("-n {tag} link set home up"))
            && ip(&format!("-n {tag} route add {own} dev home"))
            && ip(&format!("route add {subnet}.253 dev {tag}-h src {own}"))
            && ip(&format!("route add {subnet}.0/24 via {subnet}.253 src {own}"));
        router && (0..self.members).all(|index| self.lay_member(index))
    }

    fn lay_member(&self, index: usize) -> bool {
        let (Router { tag, subnet, .. }, host) = (self, self.host(index));
        let place = self.place(index);
        ip(&format!("netns add {place}"))
            && ip(&format!("-n {place} link add eth0 type veth peer name to-{index} netns {tag}"))
            && ip(&format!("-n {place} addr add {host}/32 dev eth0"))
            && ip(&format!("-n {place} link set lo up"))
            && ip(&format!("-n {place} link set eth0 up"))
            && ip(&format!("-n {tag} link set to-{index} up"))
            && ip(&format!("-n {tag} route add {host} dev to-{index}"))
            && ip(&format!("-n {place} route add {subnet}.253 dev eth0 src {host}"))
            && ip(&format!("-n {place} route add default via {subnet}.253 src {host}"))
    }

    fn place(&self, index: usize) -> String {
        format!("{}-{index}", self.tag)
    }

    pub fn host(&self, index: usize) -> String {
        format!("{}.{}", self.subnet, index + 1)
    }

    /// The program in the namespace of a member.
    pub fn program(&self, index: usize) -> Command {
        program_in(&self.place(index))
    }

    /// The connections of a member that stand, as its kernel sees them, whose ports this accepts.
    pub fn flows(&self, index: usize, is_meant: impl Fn(u16) -> bool) -> BTreeSet<Flow> {
        let is_meant = |flow: &Flow| is_meant(flow.here.port()) || is_meant(flow.there.port());
        self.table(index).into_keys().filter(is_meant).collect()
    }

    /// What has come on a connection of a member and was not read, in bytes.
    pub fn unread_bytes(&self, index: usize, there: SocketAddrV4) -> u64 {
        let table = self.table(index);
        table.into_iter().find_map(|(flow, unread)| (flow.there == there).then_some(unread)).unwrap_or(0)
    }

    /// The connections of a member that stand, and what of each was not read.
    fn table(&self, index: usize) -> BTreeMap<Flow, u64> {
        let mut cat = Command::new("ip");
        let output =
            cat.args(["netns", "exec", &self.place(index), "cat", "/proc/net/tcp"]).output().unwrap();
        let table = String::from_utf8(output.stdout).unwrap();
        let end = |text: &str| -> SocketAddrV4 {
            let (address, port) = text.split_once(':').unwrap();
            let address = u32::from_str_radix(address, 16).unwrap().to_ne_bytes();
            SocketAddrV4::new(Ipv4Addr::from(address), u16::from_str_radix(port, 16).unwrap())
        };
        let flows = table.lines().skip(1).filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (_, unread) = fields[4].split_once(':').unwrap();
            let flow = Flow { here: end(fields[1]), there: end(fields[2]) };
            (fields[3] == "01").then_some((flow, u64::from_str_radix(unread, 16).unwrap()))
        });
        flows.collect()
    }

    /// Where this process is found, seen from the members.
    pub fn home(&self) -> String {
        format!("{}.254", self.subnet)
    }

    /// What these members send to each other is dropped from now on, in both directions.
    pub fn part(&self, one: usize, others: &[usize]) {
        self.drop_between(one, others, "add");
    }

    /// What `part` has parted meets again.
    pub fn join(&self, one: usize, others: &[usize]) {
        self.drop_between(one, others, "del");
    }

    fn drop_between(&self, one: usize, others: &[usize], verb: &str) {
        for other in others {
            for (from, to) in [(one, *other), (*other, one)] {
                let (from, to) = (self.host(from), self.host(to));
                assert!(ip(&format!("-n {} rule {verb} from {from} to {to} blackhole", self.tag)));
            }
        }
    }

    /// What passes between a member and these ports of this process's host is dropped from now on.
    pub fn cut_off(&self, index: usize, ports: &[u16]) {
        self.drop_at_home(index, ports, "add");
    }

    /// What `cut_off` has cut off is reached again.
    pub fn reconnect(&self, index: usize, ports: &[u16]) {
        self.drop_at_home(index, ports, "del");
    }

    fn drop_at_home(&self, index: usize, ports: &[u16], verb: &str) {
        let (tag, member, home) = (&self.tag, self.host(index), self.home());
        for port in ports {
            for direction in [
                format!("from {member} to {home} ipproto tcp dport {port}"),
                format!("from {home} to {member} ipproto tcp sport {port}"),
            ] {
                assert!(ip(&format!("-n {tag} rule {verb} {direction} blackhole")));
            }
        }
    }

    /// Whatever belongs to these connections is dropped from now on, in both directions.
    pub fn silence<'a>(&self, flows: impl IntoIterator<Item = &'a Flow>) {
        for Flow { here, there } in flows {
            for (from, to) in [(here, there), (there, here)] {
                assert!(ip(&format!(
                    "-n {} rule add from {} to {} ipproto tcp sport {} dport {} blackhole",
                    self.tag,
                    from.ip(),
                    to.ip(),
                    from.port(),
                    to.port()
                )));
            }
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        for index in 0..self.members {
            ip(&format!("netns del {}", self.place(index)));
        }
        ip(&format!("link del {}-h", self.tag));
        ip(&format!("netns del {}", self.tag));
    }
}
