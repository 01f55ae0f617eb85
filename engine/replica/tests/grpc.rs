//! gRPC at real replicas: one cluster of three, asked by clients of other tool chains, by strangers, and without its majority.

#[path = "support/http.rs"]
mod client;
mod support;

use client::{get, open};
use isonomy_tuning::ports::free_ranges;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use support::{Cluster, PATIENCE, eventually, program, stderr, stdout};

const REPLICAS: usize = 3;
const SHARDS: u16 = 2;
/// The lines that the client in Go decides over a stream, and their keys.
const GO_LINES: usize = 3000;
const KEYS: usize = 30;
/// What a client of HTTP/2 says first: its preface, and settings without any.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A cluster whose replicas answer gRPC, and HTTP for their readiness.
struct Doors {
    cluster: Cluster,
    http: Vec<u16>,
    grpc: Vec<u16>,
}

impl Doors {
    fn open() -> Doors {
        // Answers that wait for a busy disk are none of what is tested here.
        let lines = "durability = \"os\"\n[publish]\nto = \"file\"\n";
        let cluster = Cluster::prepare_with(REPLICAS, SHARDS, lines);
        let mut http = free_ranges(2 * REPLICAS, 1).unwrap();
        let grpc = http.split_off(REPLICAS);
        let mut doors = Doors { cluster, http, grpc };
        for index in 0..REPLICAS {
            let mut command = program();
            command.env("ISONOMY_HTTP", format!("127.0.0.1:{}", doors.http[index]));
            command.env("ISONOMY_GRPC", format!("127.0.0.1:{}", doors.grpc[index]));
            doors.cluster.spawn_by(index, command);
        }
        doors.cluster.wait_linked();
        eventually("readiness", || doors.http.iter().all(|port| get(*port, "/readyz").status == 200));
        doors
    }

    fn addresses(&self) -> impl Iterator<Item = String> {
        self.grpc.iter().map(|port| format!("127.0.0.1:{port}"))
    }
}

/// All in turn with one cluster, since a cluster takes longer to start than most of them.
#[test]
fn replicas_answer_grpc() {
    let mut doors = Doors::open();
    python(&doors, "whole", REPLICAS);
    the_client_in_go_decides(&doors);
    strange_bytes_harm_nobody(&doors);
    (1..REPLICAS).for_each(|index| doors.cluster.kill(index));
    eventually("the loss", || get(doors.http[0], "/readyz").status == 503);
    python(&doors, "alone", 1);
    doors.cluster.stop(0);
}

/// Runs a program to its good end; what it has printed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    stdout(&output)
}

/// The client in Python, with the first replicas.
fn python(doors: &Doors, scenario: &str, replicas: usize) {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", package.join("../../target/python"));
    command.arg(package.join("tests/grpc/client.py")).arg(package.join("../../wire/proto"));
    command.arg(doors.cluster.dir.path()).arg(scenario).args(doors.addresses().take(replicas));
    run(&mut command);
}

/// The client in Go, once by a call and then by a stream.
fn the_client_in_go_decides(doors: &Doors) {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/go");
    let decide = doors.cluster.dir.path().join("decide");
    // Where the ordinary installation of Go puts it, if it is not found by its name.
    let path = std::env::var("PATH").unwrap() + ":/usr/local/go/bin";
    let mut go = Command::new("go");
    run(go.env("PATH", path).current_dir(package).args(["build", "-o"]).arg(&decide).arg("."));
    let connect = doors.addresses().collect::<Vec<_>>().join(",");
    let lines: String = (0..GO_LINES).map(|n| format!("go {}\t{n}\n", n % KEYS)).collect();
    let input = doors.cluster.dir.path().join("lines.txt");
    std::fs::write(&input, lines).unwrap();
    let one = run(Command::new(&decide).args(["-connect", &connect, "go", "whole"]));
    assert!(one.starts_with("go\t1\t"), "{one}");
    let mut stream = Command::new(&decide);
    stream.args(["-connect", &connect, "-lines"]).stdin(File::open(&input).unwrap());
    let mut numbers: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for line in run(&mut stream).lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        numbers.entry(fields[0].into()).or_default().push(fields[1].parse().unwrap());
    }
    assert_eq!(numbers.len(), KEYS);
    for (key, mut numbers) in numbers {
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(1..=GO_LINES / KEYS), "{key}");
    }
    let read = get(doors.http[1], "/v1/decisions/go").json();
    assert_eq!(read["payload_base64"], "d2hvbGU=", "{read}");
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a call of `ProposeStream`, written without compression of fields.
fn head() -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/isonomy.v1.DecisionService/ProposeStream"),
        (":authority", "t"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

fn strange_bytes_harm_nobody(doors: &Doors) {
    let port = doors.grpc[0];
    let mut seed = 7_u64;
    for round in 0..300 {
        let mut stream = open(port).unwrap();
        let mut bytes = match round % 5 {
            0 => Vec::new(),
            1 => PREFACE.to_vec(),
            // The head of a call, and random fields.
            2 => [PREFACE, &frame(1, 4, 1, &[0x82; 64])[..9]].concat(),
            // A call, and a message whose bytes are none.
            3 => [
                PREFACE,
                &frame(1, 4, 1, &head()),
                &frame(0, 1, 1, &[&[0, 0, 0, 0, 64][..], &[0; 64]].concat())[..14],
            ]
            .concat(),
            // A call, and a message that would be too large.
            _ => [PREFACE, &frame(1, 4, 1, &head()), &frame(0, 0, 1, &[0, 0xff, 0xff, 0xff, 0xff])].concat(),
        };
        for _ in 0..64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bytes.push((seed >> 56) as u8);
        }
        // The doors may close before they have read everything, and so do many senders.
        let _ = stream.write_all(&bytes);
    }
    // What is no HTTP/2 at all is closed.
    let mut stream = open(port).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard);
    assert!(!heard.starts_with(b"HTTP/1.1 200"), "{heard:?}");
    python(doors, "alive", 1);
}
