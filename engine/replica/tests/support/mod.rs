//! Real replica processes for tests, each test with its own directory and ports.
#![allow(dead_code, unreachable_pub)] // Each test file uses its own part.

pub mod confined;
pub mod disk;
pub mod names;
pub mod network;

use isonomy_tuning::ports::free_ranges;
use isonomy_wire::frame::{Encoder, Frame, Kind, Scope, Splitter};
use isonomy_wire::id::{Epoch, ShardId};
use isonomy_wire::message::{ClientMessage, Handshake, Hello, Role, ShardStatus};
use isonomy_wire::route::RULE_VERSION;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub const CLUSTER: &str = "tested";
/// How long anything that must happen may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isonomy"));
    command.env_remove("RUST_LOG");
    command
}

/// Waits for something that must become true.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "{what} did not happen within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for the end of a process that must end by itself; one that does not is killed.
pub fn ends(child: &mut Child) {
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("the process did not end within {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What has become of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Runs,
    Stopped,
    Ended,
}

pub struct Cluster {
    pub dir: tempfile::TempDir,
    /// Where each replica is reached.
    pub hosts: Vec<String>,
    pub client_bases: Vec<u16>,
    pub peer_bases: Vec<u16>,
    pub shards: u16,
    processes: Vec<Option<Child>>,
}

impl Cluster {
    /// Writes the configurations and starts nothing.
    pub fn prepare(replicas: usize, shards: u16) -> Cluster {
        Cluster::prepare_at(vec!["127.0.0.1".into(); replicas], shards)
    }

    /// The same for replicas on these hosts.
    pub fn prepare_at(hosts: Vec<String>, shards: u16) -> Cluster {
        let replicas = hosts.len();
        // Beside the build, which is on a real file system; the temporary directory may not be.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut peer_bases = free_ranges(2 * replicas, shards).unwrap();
        let client_bases = peer_bases.split_off(replicas);
        let processes = (0..replicas).map(|_| None).collect();
        let cluster = Cluster { dir, hosts, client_bases, peer_bases, shards, processes };
        for index in 0..replicas {
            fs::write(cluster.config_path(index), cluster.config(index)).unwrap();
        }
        cluster
    }

    /// Starts all replicas and waits until they reach each other.
    pub fn start(replicas: usize, shards: u16) -> Cluster {
        Cluster::start_with(replicas, shards, "")
    }

    /// The same with more lines in each configuration.
    pub fn start_with(replicas: usize, shards: u16, lines: &str) -> Cluster {
        let mut cluster = Cluster::prepare_with(replicas, shards, lines);
        (0..replicas).for_each(|index| cluster.spawn(index));
        cluster.wait_linked();
        cluster
    }

    /// The same without a start.
    pub fn prepare_with(replicas: usize, shards: u16, lines: &str) -> Cluster {
        let cluster = Cluster::prepare(replicas, shards);
        for index in 0..replicas {
            fs::write(cluster.config_path(index), cluster.config(index) + lines).unwrap();
        }
        cluster
    }

    pub fn config_path(&self, index: usize) -> PathBuf {
        self.dir.path().join(format!("replica-{index}.toml"))
    }

    pub fn log_path(&self, index: usize) -> PathBuf {
        self.dir.path().join(format!("replica-{index}.txt"))
    }

    pub fn data_dir(&self, index: usize) -> PathBuf {
        self.dir.path().join(format!("data-{index}"))
    }

    pub fn config(&self, index: usize) -> String {
        let members = (0..self.hosts.len()).map(|index| {
            let (host, peers, clients) =
                (&self.hosts[index], self.peer_bases[index], self.client_bases[index]);
            format!("    {{ host = \"{host}\", peer_base = {peers}, client_base = {clients} }},\n")
        });
        // The shards of all replicas share the cores of this machine as evenly as they can, also when
        // one replica stands still.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let cores: Vec<usize> = (index..).take(self.shards.into()).map(|place| place % cores).collect();
        format!(
            "cluster = \"{CLUSTER}\"\nreplica = {index}\nshards = {}\ncores = {cores:?}\ndata_dir = \"{}\"\nmembers = [\n{}]\n",
            self.shards,
            self.data_dir(index).display(),
            members.collect::<String>(),
        )
    }

    pub fn spawn(&mut self, index: usize) {
        self.spawn_by(index, program());
    }

    /// Starts a replica by a command that becomes the program when it is given its arguments.
    pub fn spawn_by(&mut self, index: usize, mut command: Command) {
        let log = File::options().create(true).append(true).open(self.log_path(index)).unwrap();
        command.arg("serve").arg("--config").arg(self.config_path(index));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.processes[index] = Some(command.spawn().unwrap());
    }

    /// The same with another standard error and level of the log.
    pub fn spawn_saying(&mut self, index: usize, log: impl Into<Stdio>, level: &str) {
        let mut command = program();
        command.arg("serve").arg("--config").arg(self.config_path(index)).env("RUST_LOG", level);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.processes[index] = Some(command.spawn().unwrap());
    }

    /// The exit code of a replica that ends by itself.
    pub fn wait_ended(&mut self, index: usize) -> Option<i32> {
        let mut process = self.processes[index].take().expect("it was started");
        let mut code = None;
        eventually("its end", || {
            code = process.try_wait().unwrap();
            code.is_some()
        });
        code.and_then(|code| code.code())
    }

    /// Runs a replica that is expected to end by itself.
    pub fn run_to_end(&self, index: usize) -> Output {
        self.run_to_end_by(index, program())
    }

    /// The same by a command that becomes the program when it is given its arguments.
    pub fn run_to_end_by(&self, index: usize, mut command: Command) -> Output {
        command.arg("serve").arg("--config").arg(self.config_path(index));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        ends(&mut child);
        child.wait_with_output().unwrap()
    }

    /// The files of a shard of a replica with this extension, in order.
    pub fn shard_files(&self, index: usize, shard: u16, extension: &str) -> Vec<PathBuf> {
        let dir = self.data_dir(index).join(format!("shard-{shard:03}/epoch-000001"));
        let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let mut found: Vec<PathBuf> =
            paths.filter(|path| path.extension().is_some_and(|it| it == extension)).collect();
        found.sort();
        found
    }

    /// SIGKILL.
    pub fn kill(&mut self, index: usize) {
        let mut process = self.processes[index].take().expect("it runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// SIGTERM; the exit code.
    pub fn stop(&mut self, index: usize) -> Option<i32> {
        self.signal(index, rustix::process::Signal::TERM);
        let mut process = self.processes[index].take().expect("it runs");
        process.wait().unwrap().code()
    }

    pub fn signal(&self, index: usize, signal: rustix::process::Signal) {
        let process = self.processes[index].as_ref().expect("it runs");
        rustix::process::kill_process(rustix::process::Pid::from_child(process), signal).unwrap();
    }

    /// What has become of a replica, which the test did not end.
    pub fn fate(&mut self, index: usize) -> Fate {
        let process = self.processes[index].as_mut().expect("it was started");
        if process.try_wait().unwrap().is_some() {
            return Fate::Ended;
        }
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap_or_default();
        let is_stopped = stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'));
        if is_stopped { Fate::Stopped } else { Fate::Runs }
    }

    pub fn running(&self) -> Vec<usize> {
        (0..self.processes.len()).filter(|index| self.processes[*index].is_some()).collect()
    }

    pub fn addresses(&self) -> Vec<String> {
        self.hosts.iter().zip(&self.client_bases).map(|(host, port)| format!("{host}:{port}")).collect()
    }

    pub fn pid(&self, index: usize) -> u32 {
        self.processes[index].as_ref().expect("it runs").id()
    }

    pub fn resident_bytes(&self, index: usize) -> u64 {
        let pid = self.pid(index);
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
        let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
        pages * rustix::param::page_size() as u64
    }

    /// The most that was ever resident.
    pub fn peak_bytes(&self, index: usize) -> u64 {
        let pid = self.pid(index);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells it");
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    pub fn status(&self, index: usize, shard: u16) -> Option<ShardStatus> {
        let (host, port) = (&self.hosts[index], self.client_bases[index] + shard);
        let client = RawClient::open_to(host, port, ShardId(shard)).ok()?;
        let mut client = client.welcomed_as(Role::Operator).ok()?;
        client.send(&ClientMessage::StatusRequest, &[]);
        match client.receive()?.0 {
            ClientMessage::Status(status) => Some(*status),
            _ => None,
        }
    }

    fn statuses(&self) -> Vec<Option<ShardStatus>> {
        let shards = self.shards;
        let all = self.running().into_iter().flat_map(|index| (0..shards).map(move |shard| (index, shard)));
        all.map(|(index, shard)| self.status(index, shard)).collect()
    }

    /// None has ended without being told to.
    pub fn assert_running(&mut self) {
        for process in self.processes.iter_mut().flatten() {
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none(), "a replica has ended, {ended:?}; see its log");
        }
    }

    pub fn wait_linked(&mut self) {
        let others = self.running().len() - 1;
        eventually("linking all replicas", || {
            self.assert_running();
            self.statuses()
                .iter()
                .all(|status| status.as_ref().is_some_and(|status| status.peers_connected.len() == others))
        });
    }

    /// Waits until all that run have executed the same, everything that they know of.
    pub fn wait_agreed(&self) {
        let running = self.running();
        eventually("agreement", || {
            (0..self.shards).all(|shard| {
                let all: Option<Vec<ShardStatus>> =
                    running.iter().map(|index| self.status(*index, shard)).collect();
                all.is_some_and(|all| {
                    let same = |a: &ShardStatus, b: &ShardStatus| {
                        a.frontier == b.frontier && a.state_hash == b.state_hash
                    };
                    all.iter().all(|status| status.unexecuted == 0 && same(status, &all[0]))
                })
            })
        });
    }

    pub fn log(&self, index: usize) -> String {
        fs::read_to_string(self.log_path(index)).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        for index in 0..self.processes.len() {
            if let Some(mut process) = self.processes[index].take() {
                let _ = process.kill();
                let _ = process.wait();
            }
            if failed {
                eprintln!("--- log of replica {index}\n{}", self.log(index));
            }
        }
    }
}

/// A client that speaks frames by hand, well or badly.
pub struct RawClient {
    pub stream: TcpStream,
    splitter: Splitter,
    encoder: Encoder,
    place: u64,
    shard: ShardId,
}

pub fn hello(shard: ShardId) -> Hello {
    Hello {
        // A restored cluster has another id than its name alone gives.
        cluster: None,
        epoch: Epoch(0),
        shard,
        shards: 0,
        rule: RULE_VERSION,
        role: Role::Client,
    }
}

impl RawClient {
    /// Connects without a word.
    pub fn open(port: u16, shard: ShardId) -> std::io::Result<RawClient> {
        RawClient::open_to("127.0.0.1", port, shard)
    }

    /// The same on another host.
    pub fn open_to(host: &str, port: u16, shard: ShardId) -> std::io::Result<RawClient> {
        let stream = TcpStream::connect((host, port))?;
        RawClient::over(stream, shard)
    }

    /// Speaks over this connection.
    pub fn over(stream: TcpStream, shard: ShardId) -> std::io::Result<RawClient> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let (splitter, encoder) = (Splitter::new(64 << 10), Encoder::default());
        Ok(RawClient { stream, splitter, encoder, place: 0, shard })
    }

    /// Connects and is welcomed.
    pub fn connect(port: u16, shard: ShardId) -> std::io::Result<RawClient> {
        RawClient::connect_to("127.0.0.1", port, shard)
    }

    /// The same on another host.
    pub fn connect_to(host: &str, port: u16, shard: ShardId) -> std::io::Result<RawClient> {
        RawClient::open_to(host, port, shard)?.welcomed()
    }

    /// Is welcomed.
    pub fn welcomed(self) -> std::io::Result<RawClient> {
        self.welcomed_as(Role::Client)
    }

    /// The same in another role.
    pub fn welcomed_as(mut self, role: Role) -> std::io::Result<RawClient> {
        match self.shake(Hello { role, ..hello(self.shard) })? {
            Some(Handshake::Welcome(_)) => Ok(self),
            other => Err(std::io::Error::other(format!("{other:?}"))),
        }
    }

    /// Says hello as a client, whatever is answered.
    pub fn say_hello(&mut self) -> std::io::Result<()> {
        self.say(hello(self.shard))
    }

    /// Says hello; what the other side answers, if it does.
    pub fn shake(&mut self, hello: Hello) -> std::io::Result<Option<Handshake>> {
        self.say(hello)?;
        self.heard()
    }

    fn say(&mut self, hello: Hello) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        let scope = Scope { kind: Kind::Handshake, epoch: Epoch(0), shard: self.shard };
        self.encoder.frame(&mut bytes, self.place, scope, &Handshake::Hello(hello), &[], 0);
        self.write(&bytes)
    }

    /// The next word of the handshake.
    pub fn heard(&mut self) -> std::io::Result<Option<Handshake>> {
        let Some(frame) = self.frame() else { return Ok(None) };
        let scope = Scope { kind: Kind::Handshake, epoch: Epoch(0), shard: frame.scope.shard };
        let word = frame.decode(scope).map_err(std::io::Error::other)?;
        self.splitter.trust();
        Ok(Some(word))
    }

    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.place += bytes.len() as u64;
        self.stream.write_all(bytes)
    }

    /// The bytes of a frame that would come next.
    pub fn encode(&mut self, message: &ClientMessage, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let scope = Scope { kind: Kind::Client, epoch: Epoch(0), shard: self.shard };
        let crc = crc32c::crc32c(payload);
        self.encoder.frame(&mut bytes, self.place, scope, message, payload, crc);
        bytes
    }

    pub fn send(&mut self, message: &ClientMessage, payload: &[u8]) {
        let bytes = self.encode(message, payload);
        let _ = self.write(&bytes);
    }

    pub fn receive(&mut self) -> Option<(ClientMessage, Frame)> {
        let frame = self.frame()?;
        let scope = Scope { kind: Kind::Client, epoch: Epoch(0), shard: self.shard };
        Some((frame.decode(scope).unwrap(), frame))
    }

    /// The next frame; `None` when the other side has closed.
    fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.splitter.next_frame().unwrap() {
                return Some(frame);
            }
            match self.stream.read(self.splitter.room()) {
                Ok(0) => return None,
                Ok(count) => self.splitter.received(count),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("the replica neither answers nor closes: {error}"),
            }
        }
    }

    /// Waits until the other side closes, whatever it says before.
    pub fn wait_closed(&mut self) {
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
                Err(error) => panic!("the replica does not close: {error}"),
            }
        }
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Changes one bit of a file, at this part of its length; again to undo it.
pub fn flip_bit(path: &Path, numerator: usize, denominator: usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() * numerator / denominator;
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Makes the first frame of a file one that a release with another wire version wrote: how its checksum
/// changes with its bytes does not depend on where it belongs.
pub fn set_version(path: &Path, version: u8) {
    let mut bytes = fs::read(path).unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let mut covered = vec![0; 8 + 28 + word(12) as usize];
    let before = crc32c::crc32c(&covered);
    covered[8 + 4] = bytes[4] ^ version;
    let crc = word(28) ^ before ^ crc32c::crc32c(&covered);
    bytes[4] = version;
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

pub fn write_lines(path: &Path, lines: impl IntoIterator<Item = String>) {
    let text: String = lines.into_iter().map(|line| line + "\n").collect();
    fs::write(path, text).unwrap();
}
