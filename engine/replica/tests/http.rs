//! HTTP at real replicas: one cluster of three, asked by everything that speaks HTTP, and losing its members.

#[path = "support/http.rs"]
mod client;
mod support;

use client::{Answer, ask, get, open, post, try_ask};
use isonomy_tuning::ports::free_ranges;
use isonomy_wire::client::Client;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{Cluster, PATIENCE, eventually, program};

const REPLICAS: usize = 3;
const SHARDS: u16 = 2;
/// The lines of a batch, and the keys over which they are spread.
const LINES: usize = 4000;
const KEYS: usize = 50;
/// The requests that are sent while a replica is killed, and those before.
const REQUESTS: usize = 400;
const BEFORE_THE_KILL: usize = 100;

/// A cluster whose replicas answer HTTP.
struct Doors {
    cluster: Cluster,
    ports: Vec<u16>,
}

impl Doors {
    fn open() -> Doors {
        let cluster = Cluster::prepare_with(REPLICAS, SHARDS, "[publish]\nto = \"file\"\n");
        let ports = free_ranges(REPLICAS, 1).unwrap();
        let mut doors = Doors { cluster, ports };
        (0..REPLICAS).for_each(|index| doors.start(index));
        doors.cluster.wait_linked();
        let ports = doors.ports.clone();
        eventually("readiness", || ports.iter().all(|port| get(*port, "/readyz").status == 200));
        doors
    }

    fn start(&mut self, index: usize) {
        let mut command = program();
        command.env("ISONOMY_HTTP", format!("127.0.0.1:{}", self.ports[index]));
        self.cluster.spawn_by(index, command);
    }
}

/// Runs a task of the native client.
fn native<T>(doors: &Doors, task: impl AsyncFnOnce(Client) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::connect(&doors.cluster.addresses()).await.unwrap();
        task(client).await
    })
}

/// All in turn with one cluster, since a cluster takes longer to start than most of them.
#[test]
fn replicas_answer_http() {
    let mut doors = Doors::open();
    a_decision_is_what_was_sent(&doors);
    a_name_makes_a_request_happen_once(&doors);
    wrong_requests_are_refused(&doors);
    a_batch_is_answered_line_by_line(&doors);
    a_batch_is_answered_while_it_is_sent(&doors);
    executed_decisions_are_streamed(&doors);
    the_state_is_told(&doors);
    strange_bytes_harm_nobody(&doors);
    the_description_is_true(&doors);
    nothing_is_lost_with_a_replica(&mut doors);
    without_a_majority_nothing_is_proposed(&mut doors);
    doors.cluster.stop(0);
}

fn a_decision_is_what_was_sent(doors: &Doors) {
    let [one, two, three] = doors.ports[..] else { panic!("three replicas") };
    let payload = r#"{ "price":1.50, "note" : "\u00e9" }"#;
    let decided = post(one, "/v1/propose", &format!(r#"{{"key":"order/17","payload":{payload}}}"#));
    assert_eq!(decided.status, 200, "{decided:?}");
    let decided = decided.json();
    assert_eq!((&decided["status"], &decided["key_seq"]), (&json!("committed"), &json!(1)));
    native(doors, async |client| {
        let found = client.read("order/17").await.unwrap().unwrap();
        assert_eq!(found.value, payload.as_bytes());
        assert_eq!(decided["command_id"], found.id.to_string());
        assert_eq!(decided["shard"], found.id.shard.0);
        client.decide(&b"raw\xff"[..], &b"\x00\xff"[..]).await.unwrap();
    });
    for path in ["/v1/decisions/order/17", "/v1/decisions/order%2F17?max_staleness_ms=0"] {
        let read = get(two, path);
        assert!(read.text().contains(payload), "{read:?}");
        assert_eq!(
            (&read.json()["key"], &read.json()["command_id"]),
            (&json!("order/17"), &decided["command_id"])
        );
    }
    let raw = get(three, "/v1/decisions/raw%FF").json();
    assert_eq!((&raw["key_base64"], &raw["payload_base64"]), (&json!("cmF3/w=="), &json!("AP8=")));
    let bytes = post(two, "/propose", r#"{"key_base64":"cmF3/w==","payload":null,"expected_seq":1}"#).json();
    assert_eq!((&bytes["status"], &bytes["key_seq"]), (&json!("committed"), &json!(2)));
    let late = post(three, "/propose", r#"{"key":"order/17","payload":2,"expected_seq":0}"#);
    assert_eq!(late.status, 200);
    assert!(late.text().contains(payload), "{late:?}");
    assert_eq!((&late.json()["status"], &late.json()["key_seq"]), (&json!("rejected"), &json!(1)));
    let deleted = ask(one, "DELETE", "/v1/decisions/order/17", &[], b"").json();
    assert_eq!((&deleted["status"], &deleted["key_seq"]), (&json!("deleted"), &json!(1)));
    for method in ["GET", "DELETE"] {
        let gone = ask(two, method, "/v1/decisions/order/17", &[], b"");
        assert_eq!((gone.status, &*gone.problem()), (404, "no-decision"));
    }
}

fn a_name_makes_a_request_happen_once(doors: &Doors) {
    let [one, two, three] = doors.ports[..] else { panic!("three replicas") };
    let pair = r#"{"payload":{"n":1},"client_id":"shop/1","request_id":"7"}"#;
    let first = post(one, "/v1/propose", pair);
    assert_eq!((first.status, &first.json()["key"]), (200, &json!("isonomy/request/client/shop%2F1/7")));
    assert_eq!(post(two, "/v1/propose", pair).body, first.body);
    let other = post(three, "/v1/propose", &pair.replace("{\"n\":1}", "{\"n\":2}"));
    assert_eq!((other.status, &*other.problem()), (409, "other-contents"));
    let named = |port: u16, name: &str, body: &str| {
        let fields = [("content-type", "application/json"), ("idempotency-key", name)];
        ask(port, "POST", "/v1/propose", &fields, body.as_bytes())
    };
    let first = named(one, "\"8e03978e\"", r#"{"payload":1}"#);
    assert_eq!(named(three, "8e03978e", r#"{"payload":1}"#).body, first.body);
    assert_ne!(named(three, "8e03978f", r#"{"payload":1}"#).body, first.body);
    assert_eq!(named(one, "a", pair).problem(), "bad-field");
    for (path, body) in
        [("keyed", r#"{"key":"keyed","payload":1}"#), ("if", r#"{"key":"if","payload":1,"expected_seq":0}"#)]
    {
        let first = named(one, path, body);
        post(two, "/v1/propose", &body.replace(",\"expected_seq\":0", ""));
        assert_eq!((named(three, path, body).body, first.status), (first.body, 200), "its first answer");
        let other = named(two, path, &body.replace(":1", ":2"));
        assert_eq!((other.status, &*other.problem()), (409, "other-contents"));
        let place = format!("/v1/decisions/{path}");
        assert_eq!(get(one, &place).json()["key_seq"], json!(2), "once, and the unnamed one");
        let end = format!("end {path}");
        let name = [("idempotency-key", &*end)];
        let ended = ask(one, "DELETE", &place, &name, b"");
        post(two, "/v1/propose", &body.replace(",\"expected_seq\":0", ""));
        assert_eq!((ask(three, "DELETE", &place, &name, b"").body, ended.status), (ended.body, 200));
        assert_eq!(get(one, &place).json()["key_seq"], json!(1), "it was not ended again");
        assert_eq!(ask(two, "DELETE", &place, &[], b"").status, 200);
    }
    let key = first.json()["key"].as_str().unwrap().to_owned();
    assert_eq!(get(two, &format!("/v1/decisions/{key}")).json()["command_id"], first.json()["command_id"]);
    // Without a name each request is another one.
    assert_ne!(
        post(one, "/propose", r#"{"payload":1}"#).body,
        post(one, "/propose", r#"{"payload":1}"#).body
    );
}

/// Method, path, header fields, body, and what is answered.
type Wrong<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, u16, &'a str);

fn wrong_requests_are_refused(doors: &Doors) {
    let port = doors.ports[0];
    let json = ("content-type", "application/json");
    let large = format!(r#"{{"payload":"{}"}}"#, "x".repeat(1 << 20));
    let larger = "x".repeat(2 << 20);
    let cases: [Wrong<'_>; 12] = [
        ("POST", "/v1/propose", &[json], "{", 400, "bad-json"),
        ("POST", "/v1/propose", &[json], "{}", 400, "bad-field"),
        ("POST", "/v1/propose", &[json, ("request-timeout", "soon")], r#"{"payload":1}"#, 400, "bad-header"),
        ("POST", "/v1/propose", &[], r#"{"payload":1}"#, 415, "wrong-type"),
        ("POST", "/v1/propose", &[json], &large, 413, "too-large"),
        ("POST", "/v1/propose", &[json], &larger, 413, "too-large"),
        ("PUT", "/v1/propose", &[json], "{}", 405, "wrong-method"),
        ("POST", "/v1/propose:batch", &[json], "{}", 415, "wrong-type"),
        ("GET", "/v1/decisions/", &[], "", 404, "no-such-path"),
        ("GET", "/v1/decisions/k?max_staleness_ms=x", &[], "", 400, "bad-query"),
        ("GET", "/v1/stream?shard=2", &[], "", 400, "bad-query"),
        ("DELETE", "/v1/decisions/k", &[("idempotency-key", "\"")], "", 400, "bad-header"),
    ];
    for (method, path, fields, body, status, problem) in cases {
        let answer = ask(port, method, path, fields, body.as_bytes());
        assert_eq!((answer.status, &*answer.problem()), (status, problem), "{method} {path}");
        let about = get(port, answer.json()["type"].as_str().unwrap());
        assert!(about.status == 200 && about.text().contains(&status.to_string()), "{about:?}");
        assert_eq!(answer.head.contains("\r\nallow: POST"), status == 405, "{}", answer.head);
    }
}

fn batch_line(n: usize) -> String {
    format!(r#"{{"key":"batch {}","payload":{n}}}"#, n % KEYS)
}

fn a_batch_is_answered_line_by_line(doors: &Doors) {
    let mut lines: Vec<String> = (0..LINES).map(batch_line).collect();
    lines.insert(LINES / 2, "no JSON".into());
    lines.insert(LINES / 3, String::new());
    let fields = [("content-type", "application/x-ndjson")];
    let answer = ask(doors.ports[1], "POST", "/v1/propose:batch", &fields, lines.join("\n").as_bytes());
    assert_eq!(answer.status, 200);
    let text = answer.text();
    let mut outcomes: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // The empty line has no outcome.
    assert_eq!(outcomes.remove(LINES / 2)["type"], "/problems/bad-json");
    assert_eq!(outcomes.len(), LINES);
    for (n, outcome) in outcomes.iter().enumerate() {
        let expected = (json!("committed"), json!(n / KEYS + 1));
        assert_eq!(
            (&outcome["status"], &outcome["key_seq"]),
            (&expected.0, &expected.1),
            "line {n}: {outcome}"
        );
    }
    assert_eq!(get(doors.ports[2], "/v1/decisions/batch%200").json()["payload"], LINES - KEYS);
}

fn a_batch_is_answered_while_it_is_sent(doors: &Doors) {
    let mut stream = open(doors.ports[0]).unwrap();
    let head = "POST /v1/propose:batch HTTP/1.1\r\nhost: t\r\ncontent-type: application/jsonl\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
    for n in 1..=3 {
        let line = "{\"key\":\"dialogue\",\"payload\":0}\n";
        stream.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).unwrap();
        let expected = format!("\"key_seq\":{n},");
        assert!(answers.by_ref().any(|answer| answer.contains(&expected)), "outcome {n}");
    }
}

/// The events of a stream until one is found: their ids and data.
fn events(port: u16, path: &str, fields: &str, is_last: impl Fn(&Value) -> bool) -> Vec<(String, Value)> {
    let mut stream = open(port).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: t\r\n{fields}\r\n").unwrap();
    let (mut events, mut id) = (Vec::new(), String::new());
    for line in BufReader::new(stream).lines().map(Result::unwrap) {
        assert!(!line.starts_with("event: gap") && !line.starts_with("event: failed"), "{line}");
        if let Some(text) = line.strip_prefix("id: ") {
            id = text.into();
        } else if let Some(text) = line.strip_prefix("data: ") {
            let data: Value = serde_json::from_str(text).unwrap();
            let ends = is_last(&data);
            events.push((std::mem::take(&mut id), data));
            if ends {
                return events;
            }
        }
    }
    panic!("the stream has ended after {} events", events.len());
}

fn executed_decisions_are_streamed(doors: &Doors) {
    let port = doors.ports[0];
    let last = post(port, "/propose", r#"{"key":"the last","payload":"of its shard"}"#).json();
    let shard = &last["shard"];
    let is_last = |data: &Value| data["command_id"] == last["command_id"];
    let all = events(port, &format!("/v1/stream?shard={shard}&from=start"), "", is_last);
    let mut numbers: BTreeMap<String, u64> = BTreeMap::new();
    for (_, data) in all.iter().filter(|(_, data)| data["key"].as_str().unwrap_or("").starts_with("batch")) {
        let number = numbers.entry(data["key"].to_string()).or_default();
        *number += 1;
        assert_eq!(data["key_seq"], *number, "{data}");
    }
    assert!(
        numbers.len() > 1 && numbers.values().all(|number| *number == (LINES / KEYS) as u64),
        "{numbers:?}"
    );
    // Behind any event exactly the rest comes, whether a browser says so or a query.
    for at in [0, 1, all.len() / 2, all.len() - 2] {
        let id = &all[at].0;
        let path = format!("/v1/stream?shard={shard}&from=start");
        let rest = events(port, &path, &format!("last-event-id: {id}\r\n"), is_last);
        assert_eq!(rest, all[at + 1..], "behind {id}");
        assert_eq!(events(port, &format!("/v1/stream?shard={shard}&from={id}"), "", is_last), rest);
    }
    // Another replica has another order behind the barrier, and sends from there on.
    let other = events(doors.ports[1], &format!("/v1/stream?shard={shard}&from={}", all[5].0), "", is_last);
    assert!(other.len() >= all.len() - 6, "{} of {}", other.len(), all.len());
}

fn the_state_is_told(doors: &Doors) {
    let port = doors.ports[2];
    assert_eq!(get(port, "/livez").text(), "alive\n");
    let all = get(port, "/readyz?verbose");
    assert_eq!(
        (all.status, all.text()),
        (200, "[+] member: ok\n[+] shard 0: ok\n[+] shard 1: ok\nready\n".into())
    );
    let address = doors.cluster.addresses()[2].clone();
    let output = program().args(["status", "--connect", &address, "--output", "json"]).output().unwrap();
    let by_command: Value = serde_json::from_slice(&output.stdout).unwrap();
    let by_http = get(port, "/v1/status").json();
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    // The doors tell besides what the page needs: the age of what it shows, shards that do not serve, and etcd.
    let more = |name: &String| {
        !["etcd_reached", "shard_age_ms", "shards_all", "shards_serving"].contains(&name.as_str())
    };
    let told = |value: &Value| names(value).into_iter().filter(more).collect::<Vec<_>>();
    assert_eq!(told(&by_http), names(&by_command));
    assert_eq!(told(&by_http["shards"][1]), names(&by_command["shards"][1]));
    for name in ["address", "cluster", "epoch", "members", "replica", "durability"] {
        assert_eq!(by_http[name], by_command[name], "{name}");
    }
}

fn strange_bytes_harm_nobody(doors: &Doors) {
    let port = doors.ports[0];
    let mut seed = 7_u64;
    for round in 0..300 {
        let mut stream = open(port).unwrap();
        let mut bytes = match round % 3 {
            0 => Vec::new(),
            1 => b"POST /v1/propose HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: 40\r\n\r\n{\"payload\":".to_vec(),
            _ => b"POST /v1/propose:batch HTTP/1.1\r\ncontent-type: application/jsonl\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"key".to_vec(),
        };
        for _ in 0..64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bytes.push((seed >> 56) as u8);
        }
        // The doors may close before they have read everything, and so do many senders.
        let _ = stream.write_all(&bytes);
    }
    assert_eq!(post(port, "/propose", r#"{"key":"after","payload":1}"#).status, 200);
}

/// What the generator must know besides the description: a short Request-Timeout ends in 504, which fields exclude each other
/// across header fields and body is no matter of schemas, and any text that fits the pattern is a name.
const GENERATOR: &str = r#"
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 503, 504]

[[operations]]
include-path = ["/propose", "/v1/propose"]
checks.positive_data_acceptance.enabled = false
checks.negative_data_rejection.enabled = false
"#;

/// A generator of requests asks whatever the description allows, and much that it does not.
fn the_description_is_true(doors: &Doors) {
    let port = doors.ports[1];
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/python");
    std::fs::write(doors.cluster.dir.path().join("schemathesis.toml"), GENERATOR).unwrap();
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", python).current_dir(doors.cluster.dir.path());
    command.args(["-m", "schemathesis.cli", "run", &format!("http://127.0.0.1:{port}/openapi.json")]);
    command.args(["--phases", "examples,coverage,fuzzing", "--max-examples", "10", "--seed", "1"]);
    command.args(["--request-timeout", "20", "--warnings", "off", "--continue-on-failure"]);
    // It leaves out the path of the description itself. The stream ends only with its connection, and the generator makes no JSON lines. Both are tested above.
    command.args(["--exclude-operation-id", "stream", "--exclude-operation-id", "proposeBatch"]);
    let output = command.output().expect("python3 runs");
    let text = support::stdout(&output) + &support::stderr(&output);
    assert!(output.status.success() && text.contains("Tested: 8"), "{text}");
}

/// Sends a request until its outcome is known, as the doors advise.
fn decide(ports: &[u16], n: usize) -> Answer {
    let body = format!(r#"{{"payload":{n},"client_id":"killing","request_id":"{n}"}}"#);
    let mut tries = ports.iter().cycle().skip(n);
    loop {
        let port = tries.next().unwrap();
        let fields = [("content-type", "application/json")];
        let Some(answer) = try_ask(*port, "POST", "/propose", &fields, body.as_bytes()) else { continue };
        match answer.status {
            200 => return answer,
            429 | 503 | 504 => {}
            _ => panic!("{answer:?}"),
        }
    }
}

fn nothing_is_lost_with_a_replica(doors: &mut Doors) {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let ports = doors.ports.clone();
    let answers: BTreeMap<usize, Answer> = std::thread::scope(|scope| {
        let work = || {
            let mut answers = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= REQUESTS {
                    return answers;
                }
                answers.push((n, decide(&ports, n)));
                done.fetch_add(1, Ordering::Relaxed);
            }
        };
        let workers: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
        eventually("some decisions", || done.load(Ordering::Relaxed) >= BEFORE_THE_KILL);
        doors.cluster.kill(2);
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert_eq!(answers.len(), REQUESTS);
    for (n, answer) in &answers {
        assert_eq!(answer.json()["key_seq"], 1, "request {n}");
        let read = get(ports[n % 2], &format!("/v1/decisions/isonomy/request/client/killing/{n}")).json();
        assert_eq!((&read["payload"], &read["command_id"]), (&json!(n), &answer.json()["command_id"]));
        assert_eq!(decide(&ports[..2], *n).body, answer.body, "request {n} again");
    }
    assert_eq!(get(ports[0], "/readyz").status, 200);
}

fn without_a_majority_nothing_is_proposed(doors: &mut Doors) {
    doors.cluster.kill(1);
    let port = doors.ports[0];
    eventually("the loss", || get(port, "/readyz").status == 503);
    let text = get(port, "/readyz").text();
    assert!(text.contains("it reaches 1 replicas, itself included, and 2 are needed"), "{text}");
    assert_eq!(get(port, "/livez").status, 200);
    // What a shard has taken before it gave the others up may still be decided.
    let mut refused = post(port, "/propose", r#"{"key":"lonely","payload":1}"#);
    eventually("a refusal", || {
        if refused.problem() == "unknown-outcome" {
            refused = post(port, "/propose", r#"{"key":"lonely","payload":1}"#);
        }
        refused.problem() != "unknown-outcome"
    });
    assert_eq!((refused.status, &*refused.problem()), (503, "no-quorum"), "{refused:?}");
    assert!(refused.head.contains("\r\nretry-after: "), "{}", refused.head);
    let fields = [("content-type", "application/json"), ("request-timeout", "0.2")];
    let soon = ask(port, "POST", "/propose", &fields, br#"{"key":"lonely","payload":1}"#);
    assert_eq!((soon.status, &*soon.problem()), (504, "unknown-outcome"));
    doors.start(1);
    eventually("readiness", || get(port, "/readyz").status == 200);
    let began = std::time::Instant::now();
    while post(port, "/propose", r#"{"key":"lonely","payload":2}"#).status != 200 {
        assert!(began.elapsed() < PATIENCE, "no decision");
    }
}
