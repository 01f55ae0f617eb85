//! The program against a small server: one real state machine that every "replica" executes on,
//! behind real sockets and frames.

use bytes::Bytes;
use isonomy_protocol::machine::Machine;
use isonomy_protocol::payload::Payload;
use isonomy_wire::answer::{Answer, Answers, ResponseBuilder};
use isonomy_wire::failure::{Failure, Reason};
use isonomy_wire::frame::{Encode, Encoder, Frame, Kind, Scope, Splitter};
use isonomy_wire::id::{ClusterId, Epoch, InstanceId, ReplicaId, ShardId};
use isonomy_wire::message::{ClientMessage, Handshake, Member, Refusal, ShardStatus, Welcome};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const REPLICAS: u8 = 3;
/// Connections that a crowded replica takes; the load's own questions need a few.
const ROOM: usize = 8;
const SHARD: ShardId = ShardId(0);

struct Shared {
    members: Vec<Member>,
    machine: Mutex<(Machine, u64)>,
    manner: Manner,
    /// Requests at the one that falls silent.
    requests: AtomicU64,
    /// Requests at one that forgets.
    asked: AtomicU64,
}

/// How the cluster treats its clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    Good,
    /// Every request is refused.
    Refuses,
    /// Every decision is said to be its key's first.
    Lies,
    /// One replica falls silent after some requests, as if it had been cut off: it answers nobody any more and
    /// closes nothing.
    FallsSilent,
    /// Every third request gets no answer.
    Forgets,
    /// A replica has room for few clients.
    Crowded,
    /// A member of another cluster has the address of one.
    Foreign,
    /// The members change after every so many requests.
    Changes,
}

/// The processes at the places of each epoch, and the requests that each but the last executes.
const EPOCHS: [&[usize]; 4] = [&[0, 1, 2], &[2, 0, 1, 3, 4], &[4, 3, 1], &[3, 4]];
const REQUESTS_PER_EPOCH: u64 = 60;
const PROCESSES: usize = 5;

/// The one that falls silent, and after how many requests; or the one of another cluster.
const SILENT: ReplicaId = ReplicaId(0);
const REQUESTS_BEFORE: u64 = 20;

impl Shared {
    fn execute(&self, request: Bytes, crc: u32) -> Bytes {
        let payload = Payload::parse(request, crc).expect("the program sends valid requests");
        let (machine, seq) = &mut *self.machine.lock().expect("no server thread panics");
        *seq += 1;
        let mut response = Bytes::new();
        machine
            .execute(InstanceId::new(ReplicaId(0), *seq), &payload, &[], true, |_, bytes| response = bytes);
        if self.manner == Manner::Lies { forge(response) } else { response }
    }

    fn is_silent(&self, replica: ReplicaId) -> bool {
        let falls = self.manner == Manner::FallsSilent && replica == SILENT;
        falls && self.requests.load(Ordering::Relaxed) >= REQUESTS_BEFORE
    }

    fn is_foreign(&self, replica: ReplicaId) -> bool {
        self.manner == Manner::Foreign && replica == SILENT
    }

    /// The present epoch, and the processes at its places.
    fn epoch(&self) -> (Epoch, &'static [usize]) {
        let asked = self.asked.load(Ordering::Relaxed);
        let changes = if self.manner == Manner::Changes { asked / REQUESTS_PER_EPOCH } else { 0 };
        let index = EPOCHS.len().min(changes as usize + 1) - 1;
        (Epoch(index as u32 + 1), EPOCHS[index])
    }

    fn forgets(&self) -> bool {
        self.manner == Manner::Forgets && self.asked.fetch_add(1, Ordering::Relaxed) % 3 == 2
    }

    fn status(&self, replica: ReplicaId) -> ShardStatus {
        let seq = self.machine.lock().expect("no server thread panics").1;
        ShardStatus { replica, fast: 3 * seq, slow: seq, log_bytes: 100 * seq, ..ShardStatus::default() }
    }
}

/// The same response, but for the numbers of decisions.
fn forge(response: Bytes) -> Bytes {
    let mut forged = ResponseBuilder::new(Epoch(1), SHARD);
    for answer in Answers::parse(response).unwrap().to_vec() {
        match answer {
            Answer::Committed { id, .. } => forged.committed(id.instance, id.index, 1),
            other => forged.repeat(InstanceId::new(ReplicaId(0), 1), 0, &other),
        }
    }
    forged.encode()
}

/// Starts a cluster and returns the address of its last replica. Its threads live as long as
/// the test process.
fn cluster(manner: Manner) -> String {
    start(manner).1[2].clone()
}

/// Starts a cluster and returns its state and the addresses of its processes.
fn start(manner: Manner) -> (Arc<Shared>, Vec<String>) {
    let processes = if manner == Manner::Changes { PROCESSES } else { usize::from(REPLICAS) };
    let listeners: Vec<_> = (0..processes).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let member = |listener| Member { host: "127.0.0.1".into(), client_base: port(listener) };
    let members: Vec<_> = listeners.iter().map(member).collect();
    let addresses = members.iter().map(|member| format!("127.0.0.1:{}", member.client_base)).collect();
    let machine = Mutex::new((Machine::new(Epoch(1), SHARD), 0));
    let shared =
        Arc::new(Shared { members, machine, manner, requests: AtomicU64::new(0), asked: AtomicU64::new(0) });
    for (process, listener) in listeners.into_iter().enumerate() {
        let shared = shared.clone();
        std::thread::spawn(move || {
            let is_crowded = manner == Manner::Crowded;
            for stream in listener.incoming().take(if is_crowded { ROOM } else { usize::MAX }) {
                let shared = shared.clone();
                std::thread::spawn(move || Peer::new(stream.unwrap()).converse(&shared, process));
            }
        });
    }
    (shared, addresses)
}

struct Peer {
    stream: TcpStream,
    splitter: Splitter,
    encoder: Encoder,
    said: u64,
}

impl Peer {
    fn new(stream: TcpStream) -> Peer {
        stream.set_nodelay(true).unwrap();
        Peer { stream, splitter: Splitter::new(256 << 10), encoder: Encoder::default(), said: 0 }
    }

    fn hear(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.splitter.next_frame().unwrap() {
                return Some(frame);
            }
            match self.stream.read(self.splitter.room()) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.splitter.received(count),
            }
        }
    }

    fn say(&mut self, kind: Kind, message: &impl Encode, payload: &[u8]) {
        let scope = Scope { kind, epoch: Epoch(0), shard: SHARD };
        let (mut out, crc) = (Vec::new(), crc32c::crc32c(payload));
        self.said += self.encoder.frame(&mut out, self.said, scope, message, payload, crc) as u64;
        // A client that is gone hears nothing.
        let _ = self.stream.write_all(&out);
    }

    /// Hears and says nothing until the other side is gone.
    fn swallow(mut self) {
        while self.hear().is_some() {}
    }

    fn converse(mut self, shared: &Shared, process: usize) {
        let (epoch, places) = shared.epoch();
        let members: Vec<Member> = places.iter().map(|process| shared.members[*process].clone()).collect();
        let Some(place) = places.iter().position(|it| *it == process) else {
            let refusal = Refusal::NotAMember { epoch, members };
            self.hear();
            return self.say(Kind::Handshake, &Handshake::Refused(refusal), &[]);
        };
        let replica = ReplicaId(place as u8);
        let welcome = Welcome {
            cluster: ClusterId(if shared.is_foreign(replica) { 2 } else { 1 }),
            epoch,
            replica,
            shards: 1,
            members,
            durable: false,
        };
        let Some(_hello) = self.hear() else { return };
        if shared.is_silent(replica) {
            return self.swallow();
        }
        self.say(Kind::Handshake, &Handshake::Welcome(welcome), &[]);
        self.splitter.trust();
        let scope = Scope { kind: Kind::Client, epoch: Epoch(0), shard: SHARD };
        while let Some(frame) = self.hear() {
            if shared.is_silent(replica) {
                return self.swallow();
            }
            match frame.decode(scope).unwrap() {
                ClientMessage::Request { tag }
                    if shared.manner == Manner::Refuses || shared.is_foreign(replica) =>
                {
                    let failure = Failure::Invalid { why: "this is a test".into() };
                    self.say(Kind::Client, &ClientMessage::Failed { tag, failure }, &[]);
                }
                ClientMessage::Request { .. } if shared.forgets() => {}
                ClientMessage::Request { tag } if shared.epoch().0 != epoch => {
                    let failure = Failure::Unknown(Reason::EpochEnded { epoch });
                    self.say(Kind::Client, &ClientMessage::Failed { tag, failure }, &[]);
                    let refusal = Refusal::EpochChanged { epoch: shared.epoch().0 };
                    return self.say(Kind::Client, &ClientMessage::Leave(refusal), &[]);
                }
                ClientMessage::Request { tag } => {
                    if replica == SILENT {
                        shared.requests.fetch_add(1, Ordering::Relaxed);
                    }
                    if shared.manner == Manner::Changes {
                        shared.asked.fetch_add(1, Ordering::Relaxed);
                    }
                    let response = shared.execute(frame.payload, frame.payload_crc);
                    self.say(Kind::Client, &ClientMessage::Response { tag }, &response);
                }
                ClientMessage::StatusRequest => {
                    let status = Box::new(shared.status(replica));
                    self.say(Kind::Client, &ClientMessage::Status(status), &[]);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

fn load_command(address: &str, arguments: &str) -> Command {
    let seconds = if arguments.contains("--seconds") { "" } else { "--seconds 1" };
    let output = if arguments.contains("--output") { "" } else { "--output json" };
    let mut command = Command::new(env!("CARGO_BIN_EXE_isonomy-bench"));
    command
        .args(["load", "--connect", address, "--warmup", "0"])
        .args([seconds, output, arguments].iter().flat_map(|part| part.split_whitespace()));
    command
}

fn load(address: &str, arguments: &str) -> Output {
    load_command(address, arguments).output().unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_closed_loop_reports_what_the_replicas_say() {
    let report = json(&load(&cluster(Manner::Good), "--window 2000 --batch 100 --keys 1000 --threads 2"));
    assert!(report["decisions"].as_u64().unwrap() > 0);
    assert!(report["latency_us"]["p50"].as_u64() <= report["latency_us"]["max"].as_u64());
    assert_eq!(report["fast_path_ratio"], 0.75);
    assert!(report["log_bytes_per_decision"].as_f64().unwrap() > 0.0);
    assert_eq!((&report["durability"], &report["errors"]), (&"os".into(), &serde_json::json!({})));
}

#[test]
fn an_open_loop_makes_no_more_than_its_rate() {
    let report = json(&load(&cluster(Manner::Good), "--rate 500 --reads 20 --distribution zipf:0.9"));
    let decisions = report["decisions"].as_u64().unwrap();
    // A fifth of 500 are reads. A machine that is busy with other things answers fewer in time.
    assert!((1..=470).contains(&decisions), "{decisions}");
    assert_eq!(
        (&report["config"]["rate"], &report["config"]["distribution"]),
        (&500.into(), &"zipf:0.9".into())
    );
}

#[test]
fn failures_and_silence_are_told_apart_by_exit_codes() {
    let refused = load(&cluster(Manner::Refuses), "--window 10");
    assert_eq!(refused.status.code(), Some(3));
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(stderr.contains("invalid"), "{stderr}");
    let report: serde_json::Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert!(report["errors"]["invalid"].as_u64().unwrap() > 0);
    assert_eq!((&report["decisions"], &report["latency_us"]), (&0.into(), &serde_json::Value::Null));

    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = load(&free.to_string(), "");
    assert_eq!(silent.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&silent.stderr);
    assert!(stderr.contains("check that the replica runs"), "{stderr}");
}

#[test]
fn many_small_clients_have_a_connection_each() {
    let arguments = "--clients 300 --threads 2 --keys 1000 --reads 30 --verify";
    let report = json(&load(&cluster(Manner::Good), arguments));
    assert!(report["answers"]["committed"].as_u64().unwrap() > 300);
    assert!(report["answers"]["found"].as_u64().unwrap() > 0);
    assert_eq!((&report["contradictions"], &report["errors"]), (&0.into(), &serde_json::json!({})));
    let report = json(&load(&cluster(Manner::Good), "--clients 5 --rate 200"));
    assert!((1..=200).contains(&report["decisions"].as_u64().unwrap()), "{report}");
}

/// It ended as many times five seconds late as it took seconds.
#[test]
fn a_replica_that_falls_silent_neither_stops_a_run_nor_its_end() {
    for arguments in ["--window 100 --batch 10", "--clients 30"] {
        let began = Instant::now();
        let output = load(&cluster(Manner::FallsSilent), &format!("{arguments} --seconds 8 --deadline 3"));
        assert!(began.elapsed() < Duration::from_secs(30), "{arguments}: it took {:?}", began.elapsed());
        // A small client has one connection, so what it asked of the silent replica is told as failed.
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(output.status.success(), report["errors"] == serde_json::json!({}), "{report}");
        let series = report["series"].as_array().unwrap();
        let last = series.last().unwrap();
        assert!(
            last["decisions_per_second"].as_f64().unwrap() > 0.0,
            "{arguments}: the others go on: {last}"
        );
        assert_eq!(report["fast_path_ratio"], serde_json::Value::Null, "a sum without one is none");
    }
}

#[test]
fn each_step_has_a_result_and_each_second_a_point() {
    let report = json(&load(&cluster(Manner::Good), "--steps 100,400 --keys 1000"));
    let steps = report["steps"].as_array().unwrap();
    let rates: Vec<_> = steps.iter().map(|step| step["rate"].as_f64().unwrap()).collect();
    assert_eq!(rates, [100.0, 400.0]);
    let decisions = |of: &serde_json::Value| of["decisions"].as_u64().unwrap();
    assert_eq!(decisions(&report), steps.iter().map(decisions).sum::<u64>());
    assert_eq!(report["series"].as_array().unwrap().len(), 2, "{report}");
    assert_eq!(report["series"][0]["fast_path_ratio"], 0.75);
    let report = json(&load(&cluster(Manner::Good), "--ramp 100:300 --seconds 2"));
    assert_eq!(report["steps"].as_array().unwrap().len(), 2);
}

#[test]
fn an_honest_cluster_passes_the_check_of_every_answer() {
    let arguments = "--verify --window 500 --keys 20 --reads 30 --decide-ifs 40 --threads 2 --batch 50";
    let report = json(&load(&cluster(Manner::Good), arguments));
    let answers = &report["answers"];
    for kind in ["committed", "rejected", "found"] {
        assert!(answers[kind].as_u64().unwrap() > 0, "{kind}: {report}");
    }
    assert_eq!(report["contradictions"], 0);
}

#[test]
fn a_wrong_answer_is_noticed_and_told() {
    let output = load(&cluster(Manner::Lies), "--verify --window 100 --keys 3 --seconds 30");
    assert_eq!(output.status.code(), Some(4));
    let stderr = String::from_utf8_lossy(&output.stderr);
    let line = stderr.lines().find(|line| line.starts_with("contradiction: ")).unwrap();
    assert!(
        line.contains("key decision0000000") && line.contains("key_seq 1: answered `Committed"),
        "{line}"
    );
    assert!(line.contains("key_seq 1 by command 1.0."), "{line}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["contradictions"].as_u64().unwrap() > 0);
    assert!(report["seconds"].as_f64().unwrap() < 20.0, "the run ends with the first");
}

#[test]
fn results_are_written_where_they_are_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name| directory.path().join(name).display().to_string();
    let files = [path("runs.jsonl"), path("a.hgrm"), path("a.html")];
    let arguments = format!("--window 10 --append {} --hgrm {} --html {}", files[0], files[1], files[2]);
    let address = cluster(Manner::Good);
    for _ in 0..2 {
        json(&load(&address, &arguments));
    }
    let lines = std::fs::read_to_string(path("runs.jsonl")).unwrap();
    let decisions = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["decisions"].as_u64().unwrap());
    assert_eq!(decisions.filter(|decisions| *decisions > 0).count(), 2, "{lines}");
    assert!(std::fs::read_to_string(path("a.hgrm")).unwrap().contains("Total count"));
    assert!(std::fs::read_to_string(path("a.html")).unwrap().contains("Latency by percentile"));
    // A place that cannot be written is told before the run, not an hour later.
    for option in ["--append", "--hgrm", "--html"] {
        let wrong = load(&address, &format!("{option} /nowhere/x --seconds 3600"));
        assert_eq!(wrong.status.code(), Some(1));
        let stderr = String::from_utf8_lossy(&wrong.stderr);
        assert!(stderr.contains(&format!("choose another {option}")), "{stderr}");
    }
    assert_eq!(load(&address, "--reads 60 --decide-ifs 60").status.code(), Some(2));
}

#[test]
fn a_place_that_takes_nothing_keeps_the_figures_from_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let runs = directory.path().join("runs.jsonl").display().to_string();
    let decided = |line: &[u8]| {
        let report: serde_json::Value = serde_json::from_slice(line).unwrap();
        report["decisions"].as_u64().unwrap() > 0
    };
    let full = load(&cluster(Manner::Good), &format!("--hgrm /dev/full --html /dev/full --append {runs}"));
    assert_eq!(full.status.code(), Some(1));
    assert!(decided(&full.stdout) && decided(&std::fs::read(&runs).unwrap()));
    let stderr = String::from_utf8_lossy(&full.stderr);
    assert!(stderr.contains("/dev/full; choose another --hgrm: No space left"), "{stderr}");

    // Nobody reads the output any more.
    std::fs::remove_file(&runs).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let address = cluster(Manner::Good);
    let unread = load_command(&address, &format!("--append {runs}"))
        .stdout(Stdio::from(writer.try_clone().unwrap()))
        .stderr(Stdio::from(writer))
        .status()
        .unwrap();
    assert_eq!(unread.code(), Some(1), "no signal, and no broken invariant");
    assert!(decided(&std::fs::read(&runs).unwrap()));
}

#[test]
fn a_file_that_may_not_grow_is_an_error_of_that_file() {
    let directory = tempfile::tempdir().unwrap();
    let html = directory.path().join("a.html").display().to_string();
    let plain = load_command(&cluster(Manner::Good), &format!("--html {html}"));
    let mut limited = Command::new("prlimit");
    let output =
        limited.arg("--fsize=1000:1000").arg(plain.get_program()).args(plain.get_args()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{:?}: {stderr}", output.status);
    assert!(
        stderr.contains("choose another --html: File too large") && stderr.contains("ulimit -f"),
        "{stderr}"
    );
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["decisions"].as_u64().unwrap() > 0, "the figures are in the other places");
}

#[test]
fn variables_that_are_set_but_empty_count_as_not_set() {
    let output = load_command(&cluster(Manner::Good), "").env("ISONOMY_CLUSTER", "").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.contains("ISONOMY_CLUSTER is set but empty"), "{stderr}");
    let mut none = Command::new(env!("CARGO_BIN_EXE_isonomy-bench"));
    let output = none.arg("load").env("ISONOMY_CONNECT", "").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn help_that_cannot_be_shown_is_an_error_and_a_broken_standard_error_is_none() {
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let bench = || Command::new(env!("CARGO_BIN_EXE_isonomy-bench"));
    assert_eq!(bench().arg("--help").stdout(full()).status().unwrap().code(), Some(1));
    assert_eq!(bench().arg("nonsense").stderr(full()).status().unwrap().code(), Some(2));
}

#[test]
fn commands_without_an_answer_are_told_beside_the_latencies() {
    let directory = tempfile::tempdir().unwrap();
    let html = directory.path().join("a.html").display().to_string();
    let arguments = format!("--clients 3 --deadline 1 --seconds 2 --html {html}");
    let output = load(&cluster(Manner::Forgets), &arguments);
    assert_eq!(output.status.code(), Some(3));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let unanswered = report["unanswered"].as_u64().unwrap();
    assert!(unanswered > 0, "{report}");
    // Errors are of the whole run, also of what was due before it is measured.
    let errors = report["errors"].as_object().unwrap().values().filter_map(serde_json::Value::as_u64);
    assert!(errors.sum::<u64>() >= unanswered, "{report}");
    let told = format!("without {unanswered} that got no answer");
    assert!(std::fs::read_to_string(&html).unwrap().contains(&told));
    let table = load(&cluster(Manner::Forgets), "--clients 3 --deadline 1 --seconds 2 --output table");
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("latencies are of") && table.contains("that got no answer"), "{table}");
}

#[test]
fn clients_that_never_connected_are_counted() {
    let output = load(&cluster(Manner::Crowded), "--clients 60");
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let connected = report["clients_connected"].as_u64().unwrap();
    assert!((1..=3 * ROOM as u64).contains(&connected), "{report}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains(&format!("{} clients never connected", 60 - connected)), "{stderr}");
    let all = json(&load(&cluster(Manner::Good), "--clients 60"));
    assert_eq!(all["clients_connected"], 60);
}

#[test]
fn a_member_of_another_cluster_gets_nothing() {
    for arguments in ["--window 100 --batch 10", "--clients 30"] {
        let output = load(&cluster(Manner::Foreign), arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("this is cluster 0000"), "{arguments}: {stderr}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(report["decisions"].as_u64().unwrap() > 0, "{arguments}: the others decide: {report}");
        assert_eq!(report["errors"], serde_json::json!({}), "{arguments}: nothing was asked there");
        // The clients of the one are told as such that never connected.
        let missing = arguments.contains("clients");
        assert_eq!(output.status.code(), Some(if missing { 3 } else { 0 }), "{arguments}: {stderr}");
    }
    let named = load(&cluster(Manner::Good), "--cluster another");
    assert_eq!(named.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&named.stderr).contains("this is cluster 0000"));
}

#[test]
fn a_load_follows_its_cluster_through_changes_of_the_members() {
    for arguments in ["--window 400 --batch 10 --threads 2", "--rate 2000 --batch 1", "--clients 30"] {
        let (shared, addresses) = start(Manner::Changes);
        let checked = "--verify --keys 50 --reads 20 --decide-ifs 20 --seconds 4";
        let report = json(&load(&addresses[2], &format!("{arguments} {checked}")));
        assert_eq!((&report["errors"], &report["contradictions"]), (&serde_json::json!({}), &0.into()));
        assert_eq!(shared.epoch().1, [3, 4], "{arguments}: all changes were made: {report}");
        // The first member has left, and leads to those that are there.
        let report = json(&load(&addresses[0], arguments));
        assert!(report["decisions"].as_u64().unwrap() > 0, "{arguments}: {report}");
    }
}
