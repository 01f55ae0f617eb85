//! What a deadline counts: the time in which the command runs, for each decision by itself.

mod support;

use rustix::process::{Pid, Signal, kill_process};
use std::io::Write;
use std::process::{Child, Stdio};
use std::time::Duration;
use support::{Cluster, ends, eventually, program, stderr, stdout};

/// A deadline in seconds that nothing here needs by far while it runs; no less than a connection may take.
const DEADLINE: &str = "8";
/// Longer than that.
const STOPPED: Duration = Duration::from_millis(9500);

fn begin(cluster: &Cluster, arguments: &[&str]) -> Child {
    let mut command = program();
    command.args(&arguments[..1]).args(["--connect", &cluster.addresses()[0]]).args(&arguments[1..]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn signal(process: &Child, signal: Signal) {
    kill_process(Pid::from_child(process), signal).unwrap();
}

fn assert_done(mut process: Child) -> String {
    ends(&mut process);
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?}: {}", output.status, stderr(&output));
    stdout(&output)
}

fn unexecuted(cluster: &Cluster) -> u64 {
    cluster.status(0, 0).unwrap().unexecuted
}

#[test]
fn a_command_that_was_stopped_for_longer_than_its_deadline_goes_on() {
    let mut cluster = Cluster::start(3, 1);
    let file = cluster.dir.path().join("lines.jsonl");
    std::fs::write(&file, "{\"k\":1}\n{\"k\":2}\n").unwrap();
    let file = file.to_str().unwrap();
    (1..3).for_each(|index| cluster.signal(index, Signal::STOP));
    let import = ["propose", "--deadline", DEADLINE, "--key", "k", "--from", file];
    let commands: [&[&str]; 4] = [
        &["propose", "--deadline", DEADLINE, "key", "value"],
        &["propose", "--deadline", DEADLINE, "other", "value", "--if-seq", "0"],
        &import,
        &[&import[..], &["--source", "s"]].concat(),
    ];
    let mut begun = Vec::new();
    for arguments in commands {
        let before = unexecuted(&cluster);
        begun.push(begin(&cluster, arguments));
        eventually("its question", || unexecuted(&cluster) > before);
    }
    begun.iter().for_each(|process| signal(process, Signal::STOP));
    std::thread::sleep(STOPPED);
    (1..3).for_each(|index| cluster.signal(index, Signal::CONT));
    cluster.wait_linked();
    eventually("the answers", || unexecuted(&cluster) == 0);
    begun.iter().for_each(|process| signal(process, Signal::CONT));
    let said: Vec<String> = begun.into_iter().map(assert_done).collect();
    assert!(said[0].contains("decision 1 of 'key'") && said[1].contains("decision 1 of 'other'"), "{said:?}");
    assert!(said[2..].iter().all(|said| said.starts_with("2 lines committed")), "{said:?}");
}

#[test]
fn a_first_contact_that_was_stopped_goes_on() {
    let cluster = Cluster::start(1, 1);
    cluster.signal(0, Signal::STOP);
    let commands: [&[&str]; 3] = [&["status"], &["propose", "key", "value"], &["delete", "none"]];
    let begun: Vec<Child> = commands.into_iter().map(|arguments| begin(&cluster, arguments)).collect();
    // Each has a socket besides the runtime's own files once it connects, or has yet to begin.
    let sockets = |process: &Child| {
        let files = std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap();
        let names = files.map(|file| std::fs::read_link(file.unwrap().path()).unwrap_or_default());
        names.filter(|name| name.to_string_lossy().starts_with("socket:")).count()
    };
    eventually("their connections", || begun.iter().all(|process| sockets(process) > 0));
    begun.iter().for_each(|process| signal(process, Signal::STOP));
    std::thread::sleep(STOPPED);
    begun.iter().for_each(|process| signal(process, Signal::CONT));
    cluster.signal(0, Signal::CONT);
    let mut begun = begun.into_iter();
    let mut next = || begun.next().unwrap();
    assert!(assert_done(next()).contains("replica 0 of 1"));
    assert!(assert_done(next()).contains("decision 1 of 'key'"));
    let mut delete = next();
    ends(&mut delete);
    assert_eq!(delete.wait().unwrap().code(), Some(10), "it was answered");
}

#[test]
fn a_deadline_is_that_of_each_decision_and_not_of_the_import() {
    let cluster = Cluster::start(1, 1);
    for source in [&[][..], &["--source", "s"]] {
        let before = cluster.status(0, 0).unwrap().keys;
        let import = ["propose", "--deadline", "2", "--key", "k", "--from", "-"];
        let mut import = begin(&cluster, &[&import[..], source].concat());
        let mut lines = import.stdin.take().unwrap();
        for n in 1..=3 {
            writeln!(lines, "{{\"k\":{}}}", before + n).unwrap();
            eventually("its decision", || cluster.status(0, 0).unwrap().keys == before + n);
            // The whole takes longer than the deadline.
            std::thread::sleep(Duration::from_millis(1100));
        }
        drop(lines);
        assert!(assert_done(import).starts_with("3 lines committed"));
    }
}
