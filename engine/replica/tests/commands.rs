//! The commands, as a user types them.

mod support;

use serde_json::Value;
use std::process::{Output, Stdio};
use support::{Cluster, program, stderr, stdout, write_lines};

fn run(cluster: &Cluster, arguments: &[&str]) -> Output {
    let connect = cluster.addresses().join(",");
    program().args(&arguments[..1]).args(["--connect", &connect]).args(&arguments[1..]).output().unwrap()
}

fn ok(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = run(cluster, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    stdout(&output)
}

fn error(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = run(cluster, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", stdout(&output));
    stderr(&output)
}

#[test]
fn propose_read_and_status() {
    let cluster = Cluster::start(3, 2);
    assert!(ok(&cluster, &["propose", "order-17", "accepted"]).contains("decision 1 of 'order-17'"));
    let json: Value =
        serde_json::from_str(&ok(&cluster, &["propose", "order-17", "paid", "--output", "json"])).unwrap();
    assert_eq!(json["key_seq"], 2);
    assert_eq!(ok(&cluster, &["read", "order-17"]), "paid\n");
    let json: Value = serde_json::from_str(&ok(&cluster, &["read", "order-17", "--output", "json"])).unwrap();
    assert_eq!((&json["value"], &json["key_seq"]), (&"paid".into(), &2.into()));
    assert!(error(&cluster, &["read", "nothing"]).contains("'nothing' has no decision"));
    let long = "k".repeat(1025);
    assert!(error(&cluster, &["propose", &long, "v"]).contains("1025 bytes; 1 to 1024"));

    let status = ok(&cluster, &["status", "--output", "json"]);
    let replicas: Vec<Value> = status.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(replicas.len(), 3);
    for (index, replica) in replicas.iter().enumerate() {
        assert_eq!((&replica["replica"], &replica["epoch"]), (&index.into(), &1.into()));
        assert_eq!(replica["members"].as_array().unwrap().len(), 3);
        for shard in replica["shards"].as_array().unwrap() {
            let fields = [
                "shard",
                "frontier",
                "committed",
                "unexecuted",
                "state_hash",
                "floor",
                "fence",
                "fence_hash",
                "snapshot",
                "log_bytes",
                "log_held_bytes",
                "log_budget_bytes",
                "waiting_on",
            ];
            for field in fields {
                assert!(!shard[field].is_null(), "{field} of {shard}");
            }
        }
    }
    let table = ok(&cluster, &["status"]);
    assert!(table.contains("durability fsync") && table.contains("of 4294967296 bytes"), "{table}");
}

#[test]
fn nobody_there_is_an_error_that_names_the_address() {
    let cluster = Cluster::prepare(1, 1);
    let text = error(&cluster, &["read", "key"]);
    assert!(text.contains(&cluster.addresses()[0]), "{text}");
}

#[test]
fn a_source_decides_each_line_once_however_often_it_runs() {
    let mut cluster = Cluster::start(3, 2);
    let file = cluster.dir.path().join("events.jsonl");
    let lines = 6000;
    let line = |n: usize| format!("{{\"order\": \"o-{}\", \"n\": {n}}}", n % 50);
    write_lines(&file, (0..lines).map(line));
    let file = file.to_str().unwrap().to_owned();
    let arguments = ["propose", "--from", &file, "--key", "order", "--source", "import", "--output", "json"];
    // The first run is interrupted, the second has a replica killed under it.
    let connect = cluster.addresses().join(",");
    let mut first = program()
        .args(arguments)
        .args(["--connect", &connect])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    support::eventually("some lines", || {
        cluster.status(0, 0).is_some_and(|status| status.decisions > 0) || first.try_wait().unwrap().is_some()
    });
    let _ = first.kill();
    first.wait().unwrap();
    let second = program()
        .args(arguments)
        .args(["--connect", &connect])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    cluster.kill(1);
    let output = second.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let json: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let sum = json["committed"].as_u64().unwrap() + json["committed_before"].as_u64().unwrap();
    assert_eq!(sum, lines as u64);
    cluster.spawn(1);
    cluster.wait_linked();
    ok(&cluster, &arguments);
    for order in 0..50 {
        let key = format!("o-{order}");
        let json: Value = serde_json::from_str(&ok(&cluster, &["read", &key, "--output", "json"])).unwrap();
        assert_eq!(json["key_seq"], lines as u64 / 50, "{key}: each line once");
        assert_eq!(json["value"], line(lines - 50 + order), "{key}: in the order of the file");
    }
    cluster.wait_agreed();
}

#[test]
fn a_bad_line_is_named_and_nothing_of_its_file_is_proposed() {
    let cluster = Cluster::start(1, 1);
    let file = cluster.dir.path().join("bad.jsonl");
    write_lines(&file, [r#"{"id": "a"}"#, "", r#"{"id": "b"}"#, r#"{"ID": "c"}"#].map(String::from));
    let file = file.to_str().unwrap().to_owned();
    let text = error(&cluster, &["propose", "--from", &file, "--key", "id"]);
    assert!(text.contains("line 4") && text.contains("no field 'id'"), "{text}");
    assert!(error(&cluster, &["read", "a"]).contains("has no decision"));

    // Standard input cannot be looked at beforehand: what came before the bad line is proposed.
    let connect = cluster.addresses().join(",");
    let mut child = program()
        .args(["propose", "--connect", &connect, "--from", "-", "--key", "id"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"{\"id\": \"a\"}\nnonsense\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("line 2"), "{}", stderr(&output));
    assert_eq!(ok(&cluster, &["read", "a"]), "{\"id\": \"a\"}\n");
}

#[test]
fn lines_of_a_pipe_are_decided_as_they_come() {
    let cluster = Cluster::start(1, 1);
    let connect = cluster.addresses().join(",");
    for source in [&[][..], &["--source", "feed"]] {
        let mut child = program()
            .args(["propose", "--connect", &connect, "--from", "-", "--key", "id"])
            .args(source)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let before = cluster.status(0, 0).map_or(0, |status| status.decisions);
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"{\"id\": \"a\"}\n").unwrap();
        support::eventually("a line that is not the last", || {
            cluster.status(0, 0).is_some_and(|status| status.decisions > before)
        });
        let output = child.wait_with_output().unwrap();
        assert!(stdout(&output).starts_with("1 lines committed"), "{}", stdout(&output));
    }
}
