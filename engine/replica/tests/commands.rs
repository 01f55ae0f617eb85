//! The commands, as a user types them.

mod support;

use serde_json::Value;
use std::io::Write;
use std::process::{Output, Stdio};
use support::{Cluster, ends, eventually, program, stderr, stdout, write_lines};

fn run(cluster: &Cluster, arguments: &[&str]) -> Output {
    let connect = cluster.addresses().join(",");
    program().args(&arguments[..1]).args(["--connect", &connect]).args(&arguments[1..]).output().unwrap()
}

fn ok(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = run(cluster, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    stdout(&output)
}

/// It ended after ten seconds without a majority. The whole program stands still for longer than that, too.
#[test]
fn an_import_with_a_source_waits_for_a_majority_and_says_so() {
    let mut cluster = Cluster::start(3, 1);
    let path = cluster.dir.path().join("lines.jsonl");
    write_lines(&path, (0..100).map(|n| format!("{{\"k\":\"{n}\"}}")));
    cluster.kill(1);
    cluster.kill(2);
    let said = cluster.dir.path().join("said.txt");
    let mut import = program()
        .args(["propose", "--connect", &cluster.addresses()[0], "--source", "s", "--key", "k", "--from"])
        .arg(&path)
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&said).unwrap())
        .spawn()
        .unwrap();
    let told = || std::fs::read_to_string(&said).unwrap();
    // The third time is past the deadline that others have.
    eventually("what it waits for", || told().matches("line 1 waits: ").count() >= 3);
    assert!(told().contains(&cluster.addresses()[1]), "{}", told());
    let process = rustix::process::Pid::from_child(&import);
    rustix::process::kill_process(process, rustix::process::Signal::STOP).unwrap();
    cluster.spawn(1);
    cluster.wait_linked();
    rustix::process::kill_process(process, rustix::process::Signal::CONT).unwrap();
    ends(&mut import);
    let output = import.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", told());
    assert_eq!(stdout(&output), "100 lines committed, 0 were committed before\n");
    cluster.kill(1);
    let limited =
        ["propose", "--source", "t", "--deadline", "1", "--key", "k", "--from", path.to_str().unwrap()];
    assert!(error(&cluster, &limited).contains("line 1, and perhaps later ones"));
}

fn error(cluster: &Cluster, arguments: &[&str]) -> String {
    error_of(cluster, 1, arguments)
}

/// What is said by a command that ends with this code.
fn error_of(cluster: &Cluster, code: i32, arguments: &[&str]) -> String {
    let output = run(cluster, arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {} {}", stdout(&output), stderr(&output));
    stderr(&output)
}

/// The same with something on standard input.
fn run_with_input(cluster: &Cluster, arguments: &[&str], input: &[u8]) -> Output {
    let connect = cluster.addresses().join(",");
    let mut command = program();
    command.args(&arguments[..1]).args(["--connect", &connect]).args(&arguments[1..]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that has seen enough closes its end.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().unwrap()
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
    assert!(error_of(&cluster, 10, &["read", "nothing"]).contains("'nothing' has no decision"));
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
                "barrier",
                "barrier_hash",
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
    assert!(error_of(&cluster, 10, &["read", "a"]).contains("has no decision"));

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

#[test]
fn what_can_be_read_only_once_is_read_once() {
    let cluster = Cluster::start(1, 1);
    let lines = b"{\"id\": \"a\"}\n\n{\"id\": \"b\"}";
    let from = |path: &str| {
        let output = run_with_input(&cluster, &["propose", "--from", path, "--key", "id"], lines);
        assert!(output.status.success(), "{path}: {}", stderr(&output));
        stdout(&output)
    };
    for path in ["-", "/dev/stdin", "/proc/self/fd/0"] {
        assert!(from(path).starts_with("2 lines committed"), "{path}: {}", from(path));
    }
    // A named pipe has a writer only once.
    let fifo = cluster.dir.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let writer = {
        let fifo = fifo.clone();
        std::thread::spawn(move || std::fs::write(fifo, lines))
    };
    let connect = cluster.addresses().join(",");
    let mut child = program()
        .args(["propose", "--connect", &connect, "--key", "id", "--from"])
        .arg(&fifo)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    support::ends(&mut child);
    writer.join().unwrap().unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(stdout(&output).starts_with("2 lines committed"), "{}", stdout(&output));
    let empty = run_with_input(&cluster, &["propose", "--from", "-", "--key", "id"], b"\n\n");
    assert!(
        empty.status.success() && stdout(&empty).contains("the input has no lines"),
        "{}",
        stdout(&empty)
    );
}

#[test]
fn a_number_is_the_text_that_stands_there() {
    let cluster = Cluster::start(1, 1);
    let numbers = ["18446744073709551616", "18446744073709551617", "1.0", "1.00", "1e0"];
    let lines: String = numbers.iter().map(|number| format!("{{\"k\": {number}}}\n")).collect();
    let output = run_with_input(&cluster, &["propose", "--from", "-", "--key", "k"], lines.as_bytes());
    assert!(stdout(&output).starts_with("5 lines committed"), "{}", stderr(&output));
    for number in numbers {
        let json: Value = serde_json::from_str(&ok(&cluster, &["read", number, "--output", "json"])).unwrap();
        assert_eq!((&json["key_seq"], &json["key"]), (&1.into(), &number.into()));
    }
}

#[test]
fn each_kind_of_input_that_is_no_lines_says_what_to_do() {
    let cluster = Cluster::start(1, 1);
    let long = [b"{\"id\": \"", &vec![b'x'; 3 << 20][..]].concat();
    let kinds = [
        (&b"[{\"id\":1},{\"id\":2}]\n"[..], "line 1: an array begins here", "jq -c '.[]'"),
        (b"{\n  \"id\": 1\n}\n", "line 1: an object begins here", "jq -c ."),
        (b"\x1f\x8b\x08\0\0\0\0\0\n", "line 1: the input is compressed by gzip", "zcat"),
        (b"\xff\xfe{\0}\0\n\0", "line 1: the input is UTF-16", "iconv"),
        (b"{\"id\":1}\n{\"id\": 2, \"n", "line 2: the input ends in the middle", "run again"),
        (&long, "line 1: the line has more than 1048576 bytes", "elsewhere"),
        (b"{\"id\":1,\"id\":2}\n", "line 1: the line has the field 'id' more than once", "keep one"),
    ];
    for (input, what, advice) in kinds {
        let output = run_with_input(&cluster, &["propose", "--from", "-", "--key", "id"], input);
        assert_eq!(output.status.code(), Some(1), "{what}");
        let text = stderr(&output);
        assert!(text.contains(what) && text.contains(advice), "{what}: {text}");
        let numbers = text.split("line ").filter(|rest| rest.starts_with(|it: char| it.is_ascii_digit()));
        assert_eq!(numbers.count(), 1, "one number of a line: {text}");
    }
    let marked = b"\xef\xbb\xbf{\"id\": \"marked\", \"n\": 1e999, \"text\": \"\xff\"}\n";
    let output = run_with_input(&cluster, &["propose", "--from", "-", "--key", "id"], marked);
    assert!(output.status.success(), "{}", stderr(&output));
    let value = run(&cluster, &["read", "marked", "--output", "raw"]).stdout;
    assert_eq!(value, marked[3..marked.len() - 1], "the value is the line, byte for byte");
}

#[test]
fn values_and_keys_can_be_any_bytes() {
    let cluster = Cluster::start(1, 1);
    let bytes = b"\xff\0\n";
    let file = cluster.dir.path().join("value");
    std::fs::write(&file, bytes).unwrap();
    let file = file.to_str().unwrap();
    ok(&cluster, &["propose", "picture", "--value-file", file]);
    assert_eq!(run(&cluster, &["read", "picture", "--output", "raw"]).stdout, bytes);
    let table = run(&cluster, &["read", "picture"]);
    assert_eq!(stdout(&table), "/wAK\n");
    assert!(stderr(&table).contains("base64"), "{}", stderr(&table));
    let output = run_with_input(&cluster, &["propose", "--key-hex", "00ff", "-"], bytes);
    assert!(stdout(&output).contains("decision 1 of 0x00ff"), "{}", stderr(&output));
    let json: Value =
        serde_json::from_str(&ok(&cluster, &["read", "--key-base64", "AP8=", "--output", "json"])).unwrap();
    assert_eq!((&json["key"], &json["key_base64"]), (&Value::Null, &"AP8=".into()));
    assert_eq!((&json["value"], &json["value_base64"]), (&Value::Null, &"/wAK".into()));
    let large = vec![0; (1 << 20) + 1];
    let output = run_with_input(&cluster, &["propose", "large", "-"], &large);
    assert!(stderr(&output).contains("more than 1048576 bytes"), "{}", stderr(&output));
    for unclear in [&["propose", "key"][..], &["propose", "key", "value", "--value-file", file]] {
        assert!(error_of(&cluster, 2, unclear).contains("propose --help"));
    }
}

#[test]
fn a_key_is_compared_and_set_and_deleted() {
    let cluster = Cluster::start(1, 1);
    assert!(ok(&cluster, &["propose", "k", "one", "--if-seq", "0"]).contains("decision 1 of 'k'"));
    let rejected = run(&cluster, &["propose", "k", "two", "--if-seq", "0"]);
    assert_eq!(rejected.status.code(), Some(11), "{}", stderr(&rejected));
    assert!(stdout(&rejected).contains("rejected, 'k' has decision 1, 'one'"), "{}", stdout(&rejected));
    assert!(stderr(&rejected).contains("'k' is at decision 1, not 0"), "{}", stderr(&rejected));
    let rejected = run(&cluster, &["propose", "new", "v", "--if-seq", "3", "--output", "json"]);
    let json: Value = serde_json::from_str(&stdout(&rejected)).unwrap();
    assert_eq!((&json["committed"], &json["key_seq"]), (&false.into(), &0.into()));
    assert_eq!((&json["value"], rejected.status.code()), (&Value::Null, Some(11)));
    assert!(stderr(&rejected).contains("'new' has no decision"), "{}", stderr(&rejected));
    ok(&cluster, &["propose", "empty", ""]);
    let rejected = run(&cluster, &["propose", "empty", "v", "--if-seq", "3", "--output", "json"]);
    let json: Value = serde_json::from_str(&stdout(&rejected)).unwrap();
    assert_eq!((&json["value"], &json["key_seq"]), (&"".into(), &1.into()), "a value that is empty is one");
    assert!(ok(&cluster, &["propose", "k", "two", "--if-seq", "1"]).contains("decision 2"));
    let json: Value = serde_json::from_str(&ok(&cluster, &["delete", "k", "--output", "json"])).unwrap();
    assert_eq!((&json["key"], &json["key_seq"]), (&"k".into(), &2.into()));
    assert!(error_of(&cluster, 10, &["read", "k"]).contains("has no decision"));
    assert!(error_of(&cluster, 10, &["delete", "k"]).contains("no decision to delete"));
}

#[test]
fn a_read_without_a_majority_says_so_and_is_no_missing_key() {
    let mut cluster = Cluster::start(3, 1);
    cluster.kill(1);
    cluster.kill(2);
    let text = error(&cluster, &["read", "k"]);
    assert!(text.contains("no majority of the replicas answered") && text.contains("read again"), "{text}");
    assert!(!text.contains("decided"), "{text}");
}

#[test]
fn status_has_a_line_for_each_replica() {
    let mut cluster = Cluster::start(3, 1);
    cluster.kill(0);
    let addresses = cluster.addresses();
    let output = run(&cluster, &["status", "--output", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let replicas: Vec<Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(replicas.len(), 3, "{replicas:?}");
    for (replica, address) in replicas.iter().zip(&addresses) {
        assert_eq!(&replica["address"], address);
    }
    assert!(replicas[0]["error"].as_str().unwrap().contains(&addresses[0]), "{}", replicas[0]);
    assert_eq!((&replicas[1]["replica"], &replicas[2]["replica"]), (&1.into(), &2.into()));
    assert!(stderr(&output).contains("1 of 3 replicas"), "{}", stderr(&output));
    let table = stdout(&run(&cluster, &["status"]));
    assert!(table.contains(&format!("no status of {}", addresses[0])) && table.contains("replica 2 of 3"));
}

/// A pipe that nobody reads.
fn nobody() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn what_cannot_be_printed_is_an_ordinary_error_of_every_command() {
    let cluster = Cluster::start(1, 1);
    ok(&cluster, &["propose", "k", "v"]);
    let file = cluster.dir.path().join("events.jsonl");
    write_lines(&file, ["{\"id\": 1}".to_owned()]);
    let connect = cluster.addresses().join(",");
    let (file, data) = (file.to_str().unwrap().to_owned(), cluster.data_dir(0));
    let (data, connect) = (data.to_str().unwrap(), connect.as_str());
    let taken = program().args(["snapshot", "take", "--connect", connect]).output().unwrap();
    assert!(taken.status.success(), "{}", stderr(&taken));
    let export = |name: &str| cluster.dir.path().join(name).to_str().unwrap().to_owned();
    let commands = |export: &str| -> Vec<Vec<String>> {
        let commands = [
            format!("status --connect {connect}"),
            format!("status --connect {connect} --output json"),
            format!("propose --connect {connect} k v"),
            format!("propose --connect {connect} k v --if-seq 0"),
            format!("propose --connect {connect} --from {file} --key id"),
            format!("propose --connect {connect} --from {file} --key id --source s"),
            format!("read --connect {connect} k"),
            format!("read --connect {connect} k --output raw"),
            format!("delete --connect {connect} k"),
            format!("source list --connect {connect}"),
            format!("source list --connect {connect} --output json"),
            format!("snapshot take --connect {connect}"),
            format!("snapshot list --dir {data}"),
            format!("snapshot verify {data}"),
            format!("snapshot export --dir {data} --to {export}"),
            "--help".to_owned(),
        ];
        commands.iter().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
    };
    for arguments in commands(&export("to-nobody")) {
        ok(&cluster, &["propose", "k", "v"]);
        let output = program().args(&arguments).stdout(nobody()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stderr(&output), "", "{arguments:?}: a reader that left wants to hear nothing");
        let output = program().args(&arguments).stdout(nobody()).stderr(nobody()).output().unwrap();
        assert!(matches!(output.status.code(), Some(1 | 10)), "{arguments:?}: {:?}", output.status);
    }
    for arguments in commands(&export("to-full")) {
        ok(&cluster, &["propose", "k", "v"]);
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = program().args(&arguments).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", stderr(&output));
        let is_help = arguments == ["--help"];
        assert!(is_help || stderr(&output).contains("No space left"), "{arguments:?}: {}", stderr(&output));
        assert!(!stderr(&output).contains("panicked"), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn a_broken_standard_error_changes_no_exit_code_of_any_command() {
    let cluster = Cluster::start(1, 1);
    let file = cluster.dir.path().join("events.jsonl");
    write_lines(&file, ["{\"id\": 1}".to_owned()]);
    let connect = cluster.addresses().join(",");
    let (file, data) = (file.to_str().unwrap(), cluster.data_dir(0));
    let data = data.to_str().unwrap();
    let config = cluster.config_path(0);
    let config = config.to_str().unwrap();
    ok(&cluster, &["propose", "k", "v"]);
    let taken = program().args(["snapshot", "take", "--connect", &connect]).output().unwrap();
    assert!(taken.status.success(), "{}", stderr(&taken));
    for (line, code) in [
        (format!("status --connect {connect}"), 0),
        (format!("status --connect {connect},127.0.0.1:1"), 1),
        (format!("propose --connect {connect} k v"), 0),
        (format!("propose --connect {connect} k v --if-seq 9999"), 11),
        (format!("propose --connect {connect} --from {file} --key id --source s"), 0),
        (format!("propose --connect {connect} --from {file} --key none"), 1),
        (format!("read --connect {connect} k"), 0),
        (format!("read --connect {connect} missing"), 10),
        (format!("delete --connect {connect} missing"), 10),
        (format!("source list --connect {connect}"), 0),
        (format!("source end --connect {connect} missing"), 10),
        (format!("snapshot take --connect {connect}"), 0),
        (format!("snapshot list --dir {data}"), 0),
        (format!("snapshot verify {data}"), 0),
        (format!("snapshot restore --from {data} --config {config}"), 1),
        ("serve --config /nonexistent".to_owned(), 3),
        ("--help".to_owned(), 0),
        ("nonsense".to_owned(), 2),
        ("read".to_owned(), 2),
    ] {
        let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
        for (stderr, which) in [(nobody(), "a closed pipe"), (full().into(), "a full device")] {
            let mut command = program();
            // Also where there is something to say before the command is known.
            command.args(line.split(' ')).env("ISONOMY_CLUSTER", "");
            let output = command.stderr(stderr).output().unwrap();
            assert_eq!(output.status.code(), Some(code), "{line}: {which}: {:?}", output.status);
        }
    }
}

#[test]
fn variables_that_are_set_but_empty_count_as_not_set() {
    let mut cluster = Cluster::prepare(1, 1);
    let names = ["REPLICA", "SHARDS", "DATA_DIR", "DURABILITY", "CORES", "LISTEN", "MEMBERS", "CLUSTER"];
    let names = names.map(|name| format!("ISONOMY_{name}"));
    let mut command = program();
    command.envs(names.iter().map(|name| (name, ""))).env("RUST_LOG", "");
    cluster.spawn_by(0, command);
    cluster.wait_linked();
    for name in names {
        assert!(cluster.log(0).contains(&format!("{name} is set but empty")), "{name}: {}", cluster.log(0));
    }
    assert_eq!(cluster.stop(0), Some(0));
    let none = program().args(["read", "k"]).env("ISONOMY_CONNECT", "").output().unwrap();
    assert_eq!(none.status.code(), Some(2));
    assert!(stderr(&none).contains("ISONOMY_CONNECT is set but empty"), "{}", stderr(&none));
}
