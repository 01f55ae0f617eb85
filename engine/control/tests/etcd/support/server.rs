//! An etcd of the test's own: one member or several, on free ports, with a directory of its own.

use super::PATIENCE;
use super::certificates::Certificates;
use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use isonomy_tuning::ports::free_ranges;
use isonomy_tuning::{children, environment};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long to wait before a member that does not answer yet is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How often other ports are tried, since another process may take a free port first.
const STARTS_MAX: usize = 5;

/// The program: a Debian package's on the PATH, or another one by name.
fn program() -> String {
    std::env::var("ISONOMY_TEST_ETCD").unwrap_or_else(|_| "etcd".into())
}

/// The command line tool of etcd 3.4 or 3.5: Debian's on the PATH, or another one by name.
fn tool() -> String {
    std::env::var("ISONOMY_TEST_ETCDCTL").unwrap_or_else(|_| "etcdctl".into())
}

/// The members. They and their data end with it.
pub(crate) struct Etcd {
    dir: TempDir,
    members: Vec<Member>,
    certificates: Option<Certificates>,
}

struct Member {
    arguments: Vec<String>,
    endpoint: String,
    child: Option<Child>,
}

#[allow(dead_code)] // Each package uses its own part.
impl Etcd {
    /// One member.
    pub(crate) async fn one() -> Etcd {
        Etcd::start("127.0.0.1", 1, None).await
    }

    /// Three members.
    pub(crate) async fn three() -> Etcd {
        Etcd::start("127.0.0.1", 3, None).await
    }

    /// One member that asks clients for certificates.
    pub(crate) async fn with_tls(certificates: Certificates) -> Etcd {
        Etcd::start("127.0.0.1", 1, Some(certificates)).await
    }

    pub(crate) async fn start(host: &str, count: usize, certificates: Option<Certificates>) -> Etcd {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut etcd = Etcd { dir, members: Vec::new(), certificates };
        for _ in 0..STARTS_MAX {
            etcd.members = members(host, count, etcd.dir.path(), etcd.certificates.as_ref());
            (0..count).for_each(|index| etcd.spawn(index));
            if etcd.all_answer().await {
                return etcd;
            }
            (0..count).for_each(|index| etcd.kill(index));
            (0..count).for_each(|index| std::fs::remove_dir_all(etcd.data_dir(index)).unwrap_or_default());
        }
        panic!("etcd does not start; it says:\n{}", std::fs::read_to_string(etcd.log(0)).unwrap())
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.endpoint.clone()).collect()
    }

    pub(crate) fn data_dir(&self, index: usize) -> PathBuf {
        self.dir.path().join(format!("data-{index}"))
    }

    fn log(&self, index: usize) -> PathBuf {
        self.dir.path().join(format!("log-{index}.txt"))
    }

    fn spawn(&mut self, index: usize) {
        let log = File::options().create(true).append(true).open(self.log(index)).unwrap();
        let member = &mut self.members[index];
        let mut command = Command::new(program());
        command.args(&member.arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        // Settings of the user's own etcd must not leak into this one.
        environment::withhold(&mut command, "ETCD_");
        children::end_with_this(&mut command);
        let child = command.spawn();
        member.child =
            Some(child.expect("there is an etcd: apt install etcd-server, or set ISONOMY_TEST_ETCD"));
    }

    /// Ends a member without any notice.
    pub(crate) fn kill(&mut self, index: usize) {
        if let Some(mut child) = self.members[index].child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops a member without closing anything, as a machine that hangs does.
    pub(crate) fn freeze(&self, index: usize) {
        self.signal(index, Signal::STOP);
    }

    /// Lets a member go on that was frozen.
    pub(crate) fn thaw(&self, index: usize) {
        self.signal(index, Signal::CONT);
    }

    fn signal(&self, index: usize, signal: Signal) {
        kill_process(Pid::from_child(self.members[index].child.as_ref().unwrap()), signal).unwrap();
    }

    /// Starts a member again that was killed, and waits until it answers.
    pub(crate) async fn restart(&mut self, index: usize) {
        self.spawn(index);
        assert!(self.answers(index).await, "a member ends when it is started again");
    }

    /// Starts all members again that were killed, and waits until they answer.
    pub(crate) async fn restart_all(&mut self) {
        (0..self.members.len()).for_each(|index| self.spawn(index));
        assert!(self.all_answer().await, "a member ends when it is started again");
    }

    /// The ports for clients.
    pub(crate) fn ports(&self) -> Vec<u16> {
        let port = |endpoint: String| endpoint.rsplit_once(':').unwrap().1.parse().unwrap();
        self.endpoints().into_iter().map(port).collect()
    }

    /// Runs `etcdctl` with these arguments, and with a file as its input.
    pub(crate) fn control(&self, arguments: &[&str], input: Option<&Path>) -> String {
        let mut command = Command::new(tool());
        environment::withhold(&mut command, "ETCDCTL_");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoints().join(",")]).args(arguments);
        command.stdin(input.map_or(Stdio::null(), |path| File::open(path).unwrap().into()));
        let output = command.output();
        let output =
            output.expect("there is an etcdctl: apt install etcd-client, or set ISONOMY_TEST_ETCDCTL");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Puts a snapshot in place of the data of the only member, which does not run.
    pub(crate) fn restore(&self, snapshot: &Path) {
        let argument = |name: &str| {
            let arguments = &self.members[0].arguments;
            arguments[arguments.iter().position(|it| it == name).unwrap() + 1].clone()
        };
        std::fs::remove_dir_all(self.data_dir(0)).unwrap();
        let mut arguments = vec!["snapshot".into(), "restore".into(), snapshot.to_str().unwrap().to_owned()];
        for name in ["--name", "--data-dir", "--initial-cluster", "--initial-advertise-peer-urls"] {
            arguments.extend([name.to_owned(), argument(name)]);
        }
        self.control(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), None);
    }

    /// What lies at a key.
    pub(crate) async fn value(&self, key: &str) -> Vec<u8> {
        let answer = self.client().await.get(key, None).await.unwrap();
        answer.kvs()[0].value().to_vec()
    }

    /// Puts something at a key.
    pub(crate) async fn put(&self, key: &str, value: impl Into<Vec<u8>>) {
        self.client().await.put(key, value, None).await.unwrap();
    }

    /// Asks everybody for a password from now on; that of `root` is this one.
    pub(crate) async fn guard(&self, password: &str) {
        let mut client = self.client().await;
        client.user_add("root", password, None).await.unwrap();
        client.role_add("root").await.unwrap();
        client.user_grant_role("root", "root").await.unwrap();
        client.auth_enable().await.unwrap();
    }

    /// The member that leads.
    pub(crate) async fn leader(&self) -> usize {
        for (index, member) in self.members.iter().enumerate() {
            let mut client = self.connect(&member.endpoint).await.unwrap();
            let status = client.status().await.unwrap();
            if status.header().unwrap().member_id() == status.leader() {
                return index;
            }
        }
        panic!("no member leads")
    }

    /// A client of the first member, beside the code that is tested.
    pub(crate) async fn client(&self) -> Client {
        self.connect(&self.members[0].endpoint).await.unwrap()
    }

    async fn connect(&self, endpoint: &str) -> Result<Client, etcd_client::Error> {
        let tls = self.certificates.as_ref().map(|certificates| {
            let read = |path: &Path| std::fs::read(path).unwrap();
            let (own, key) = &certificates.client;
            TlsOptions::new()
                .ca_certificate(Certificate::from_pem(read(&certificates.ca)))
                .identity(Identity::from_pem(read(own), read(key)))
        });
        Client::connect([endpoint], tls.map(|tls| ConnectOptions::new().with_tls(tls))).await
    }

    async fn all_answer(&mut self) -> bool {
        for index in 0..self.members.len() {
            if !self.answers(index).await {
                return false;
            }
        }
        true
    }

    /// Waits until a member answers with a leader behind it; whether it has not ended instead.
    async fn answers(&mut self, index: usize) -> bool {
        let began = Instant::now();
        loop {
            let endpoint = self.members[index].endpoint.clone();
            let ask = async { self.connect(&endpoint).await?.get("ready", None).await };
            let answer = tokio::time::timeout(PATIENCE, ask).await;
            if matches!(answer, Ok(Ok(_))) {
                return true;
            }
            let child = self.members[index].child.as_mut().unwrap();
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(began.elapsed() < PATIENCE, "etcd does not answer: {answer:?}");
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|index| self.kill(index));
    }
}

/// The command lines of the members.
fn members(host: &str, count: usize, dir: &Path, certificates: Option<&Certificates>) -> Vec<Member> {
    let ports = free_ranges(2 * count, 1).unwrap();
    let scheme = if certificates.is_some() { "https" } else { "http" };
    let peer = |index: usize| format!("http://127.0.0.1:{}", ports[2 * index]);
    let cluster: Vec<_> = (0..count).map(|index| format!("m{index}={}", peer(index))).collect();
    let member = |index: usize| {
        let endpoint = format!("{scheme}://{host}:{}", ports[2 * index + 1]);
        let data = dir.join(format!("data-{index}"));
        let mut arguments: Vec<String> =
            ["--name", &format!("m{index}"), "--data-dir", data.to_str().unwrap()]
                .into_iter()
                .chain(["--initial-cluster", &cluster.join(",")])
                .chain(["--listen-peer-urls", &peer(index), "--initial-advertise-peer-urls", &peer(index)])
                .chain(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint])
                .chain(["--log-level", "error"])
                .map(str::to_owned)
                .collect();
        if let Some(Certificates { ca, server: (own, key), .. }) = certificates {
            let files = [("--trusted-ca-file", ca), ("--cert-file", own), ("--key-file", key)];
            let files = files.map(|(name, path)| [name.to_owned(), path.to_str().unwrap().to_owned()]);
            arguments.extend(files.into_iter().flatten());
            arguments.push("--client-cert-auth".into());
        }
        Member { arguments, endpoint, child: None }
    };
    (0..count).map(member).collect()
}
