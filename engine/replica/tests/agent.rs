//! `isonomy agent` with a real cluster and a real Kafka, whatever happens to it.

#[allow(dead_code)] // Each test binary uses its own part.
#[path = "../../kafka/tests/support/broker.rs"]
mod broker;
#[allow(dead_code)]
#[path = "../../agent/tests/support/hook.rs"]
mod hook;
mod support;

use broker::Broker;
use hook::{Answer, Service};
use isonomy_kafka::create_topics;
use isonomy_kafka::settings::{Format, Settings};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, SystemTime};
use support::{Cluster, ends, eventually, program, stderr, write_lines};
use tempfile::TempDir;

/// How many lines are decided, and over how many keys.
const LINES: usize = 12_000;
const KEYS: usize = 97;
/// How often the agent is killed.
const KILLS: usize = 12;

/// A name that no other test has.
fn unique() -> String {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos().to_string()
}

/// Topics of the test's own, which are empty.
fn topics(brokers: &str, shards: usize) -> Settings {
    let name = unique();
    let settings = Settings {
        brokers: brokers.into(),
        topic: format!("committed-{name}"),
        cursor_topic: format!("cursor-{name}"),
        format: Format::Batch,
        replicas_min: 1,
        insync_min: 1,
        ..Settings::default()
    };
    create_topics(&settings, shards, 1).unwrap();
    settings
}

/// An agent, and the place of its file.
struct Agent {
    dir: TempDir,
    topics: Settings,
    options: Vec<String>,
    process: Option<Child>,
}

impl Agent {
    fn new(topics: Settings, options: &[&str]) -> Agent {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        Agent { dir, topics, options, process: None }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("table.db")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log.txt")
    }

    fn command(&self) -> Command {
        let mut command = program();
        command.args(["agent", "--brokers", &self.topics.brokers, "--topic", &self.topics.topic]);
        command.arg("--file").arg(self.file()).args(&self.options);
        command
    }

    fn start(&mut self) {
        let log = File::create(self.log()).unwrap();
        self.process = Some(self.command().stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// Ends it, and returns how it has ended.
    fn signal(&mut self, signal: Signal) -> ExitStatus {
        let mut process = self.process.take().unwrap();
        kill_process(Pid::from_child(&process), signal).unwrap();
        ends(&mut process);
        process.wait().unwrap()
    }

    /// Runs it until it ends by itself. Returns its code and what it has said.
    fn run(&self) -> (i32, String) {
        let output = self.command().output().unwrap();
        (output.status.code().unwrap(), stderr(&output))
    }

    /// The sum of the positions of a reader, 0 before there is any.
    fn position(&self, reader: &str) -> i64 {
        let sum = "SELECT coalesce(sum(next_offset), 0) FROM positions WHERE reader = ?1";
        let db = rusqlite::Connection::open(self.file()).unwrap();
        db.query_row(sum, [reader], |row| row.get(0)).unwrap_or(0)
    }

    /// The value and the `key_seq` of each key.
    fn rows(&self) -> BTreeMap<String, (String, usize)> {
        let db = rusqlite::Connection::open(self.file()).unwrap();
        let mut statement = db.prepare("SELECT key, value, key_seq FROM latest").unwrap();
        let rows = statement.query_map([], |row| {
            Ok((row.get(0)?, (row.get(1)?, row.get::<_, i64>(2)?.unsigned_abs() as usize)))
        });
        rows.unwrap().collect::<Result<_, _>>().unwrap()
    }

    /// Asks for a path of its metrics. Returns the status and the answer.
    fn ask(&self, path: &str) -> (u16, String) {
        let said = std::fs::read_to_string(self.log()).unwrap();
        let at = said.split_once("metrics are at http://").and_then(|(_, rest)| rest.split_once('/'));
        let Some(mut stream) = at.and_then(|(at, _)| TcpStream::connect(at).ok()) else { return (0, said) };
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split_whitespace().nth(1).unwrap().parse().unwrap();
        (status, answer)
    }

    fn await_ready(&self, status: u16) {
        eventually("/readyz", || self.ask("/readyz").0 == status);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Decides lines until all are decided, and returns the last of each key and how many it has.
fn load(cluster: &Cluster, dir: &Path) -> (Child, BTreeMap<String, (String, usize)>) {
    let path = dir.join("lines.jsonl");
    let pad = "x".repeat(300);
    let line = |number: usize| format!(r#"{{"k":"key-{}","n":{number},"pad":"{pad}"}}"#, number % KEYS);
    write_lines(&path, (0..LINES).map(line));
    let mut expected = BTreeMap::new();
    for number in 0..LINES {
        let (value, count) = expected.entry(format!("key-{}", number % KEYS)).or_insert((String::new(), 0));
        (*value, *count) = (line(number), *count + 1);
    }
    let connect = cluster.addresses().join(",");
    let mut command = program();
    command.args(["propose", "--connect", &connect, "--key", "k", "--source", "load", "--from"]).arg(path);
    (command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap(), expected)
}

#[test]
fn a_killed_agent_goes_on_where_its_file_is_and_its_hook_leaves_nothing_out() {
    let topics = topics(broker::shared(), 2);
    let lines = format!(
        "[publish]\nto = \"kafka\"\nbrokers = [\"{}\"]\ntopic = \"{}\"\ncursor_topic = \"{}\"\nreplicas_min = 1\n\
         insync_min = 1\nformat = \"batch\"\nbatch_kib = 16\n",
        topics.brokers, topics.topic, topics.cursor_topic
    );
    let cluster = Cluster::start_with(3, 2, &lines);
    // Some fail, so that an agent may die between a failure and the next try.
    let service = Service::start(|request| {
        let is_first = request.tries == 0 && request.body["key_seq"].as_u64().unwrap() % 8 == 0;
        if is_first { Answer::Status(503) } else { Answer::Status(200) }
    });
    let mut agent = Agent::new(topics, &["--hook", &service.url, "--metrics", "127.0.0.1:0"]);
    let (load, expected) = load(&cluster, agent.dir.path());
    for kill in 0..KILLS {
        let before = agent.position("table") + agent.position("hook");
        agent.start();
        eventually("a step", || agent.position("table") + agent.position("hook") > before);
        let status = agent.signal(Signal::KILL);
        assert!(!status.success(), "kill {kill}: {status}");
    }
    agent.start();
    let output = load.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let all = format!("isonomy_agent_hook_posted_total {LINES}");
    eventually("everything in the table", || agent.rows() == expected);
    eventually("everything at the service", || service.taken() == LINES);
    agent.await_ready(200);
    assert!(!agent.ask("/metrics").1.contains(&all), "the agents before it have posted some");
    assert_eq!(agent.signal(Signal::TERM).code(), Some(0));
    assert!(agent.rows() == expected);
    // Without repetitions each key's decisions are 1, 2, 3 and so on.
    let (mut names, mut latest) = (BTreeSet::new(), BTreeMap::new());
    for request in service.requests().into_iter().filter(|request| request.is_taken) {
        if names.insert(request.name.clone()) {
            let before = latest.entry(request.text("key")).or_insert(0);
            *before += 1;
            assert_eq!(request.body["key_seq"], *before);
        }
    }
    assert_eq!(names.len(), LINES);
}

#[test]
fn an_agent_is_not_ready_while_kafka_is_down() {
    let broker = Broker::start();
    let mut agent =
        Agent::new(topics(&broker.address, 1), &["--metrics", "127.0.0.1:0", "--staleness-max", "3"]);
    agent.start();
    agent.await_ready(200);
    assert_eq!(agent.ask("/livez").0, 200);
    let metrics = agent.ask("/metrics").1;
    for line in [
        "isonomy_agent_up{reader=\"table\"} 1",
        "isonomy_agent_lag_offsets{reader=\"table\",partition=\"0\"} 0",
        "isonomy_agent_decisions_total{reader=\"table\"} 0",
        "isonomy_agent_staleness_seconds{reader=\"table\"} ",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    broker.kill();
    agent.await_ready(503);
    let tells = |text| agent.ask("/readyz").1.contains(text);
    eventually("the reason", || tells("3 are allowed") && tells("check that it runs"));
    assert_eq!(agent.ask("/livez").0, 200);
    assert!(agent.ask("/metrics").1.contains("isonomy_agent_up{reader=\"table\"} 0"));
    broker.restart();
    agent.await_ready(200);
    broker.kill();
    agent.await_ready(503);
    assert_eq!(agent.signal(Signal::TERM).code(), Some(0));
}

/// Writes the first decision of a key, as a publisher does.
fn decide(topics: &Settings, key: &str) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &topics.brokers).create().unwrap();
    let headers = [("id", "1.0.0.1.0"), ("key_seq", "1"), ("epoch", "1")].into_iter();
    let headers =
        headers.fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value) }));
    let record = BaseRecord::to(&topics.topic).partition(0).key(key).payload("x").headers(headers);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(Duration::from_secs(60)).unwrap();
}

#[test]
fn each_failure_has_its_code() {
    let topics = topics(broker::shared(), 1);
    let run = |options: &[&str]| Agent::new(topics.clone(), options).run();
    let (code, said) = run(&["--rdkafka", "isolation.level=read_uncommitted"]);
    assert!(code == 3 && said.contains("leave it out"), "{code}: {said}");
    let (code, said) = run(&["--hook", "elsewhere"]);
    assert!(code == 3 && said.contains("no address of a hook"), "{code}: {said}");
    let (code, said) = run(&["--partitions", "7"]);
    assert!(code == 3 && said.contains("none has the number 7"), "{code}: {said}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (code, said) = run(&["--metrics", &taken.local_addr().unwrap().to_string()]);
    assert!(code == 4 && said.contains("name another address"), "{code}: {said}");

    decide(&topics, "k");
    let service = Service::start(|_| Answer::Status(400));
    let (code, said) = run(&["--hook", &service.url]);
    assert!(code == 11 && said.contains("has answered 400 to decision 1.0.0.1.0"), "{code}: {said}");
    decide(&topics, "k");
    let (code, said) = run(&[]);
    assert!(code == 12 && said.contains("missing or come twice"), "{code}: {said}");

    let agent = Agent::new(topics, &[]);
    rusqlite::Connection::open(agent.file()).unwrap().execute_batch("CREATE TABLE mine (a)").unwrap();
    let (code, said) = agent.run();
    assert!(code == 5 && said.contains("none of this program"), "{code}: {said}");
}
