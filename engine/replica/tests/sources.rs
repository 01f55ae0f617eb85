//! Sources: a number says one thing for ever, one process at a time uses a name, and names can be given back.

mod support;

use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use support::{Cluster, ends, eventually, program, stderr, stdout, write_lines};

/// A number of a source was another command.
const OTHER_COMMAND: i32 = 8;
/// Another process has taken the source over.
const FENCED: i32 = 9;
/// There is no such source.
const MISSING: i32 = 10;

fn command(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = program();
    let words = arguments.iter().take_while(|word| !word.starts_with('-')).count();
    let words = if arguments[0] == "source" { 2 } else { words.min(1) };
    command.args(&arguments[..words]).args(["--connect", &cluster.addresses().join(",")]);
    command.args(&arguments[words..]);
    command
}

fn run(cluster: &Cluster, arguments: &[&str]) -> Output {
    command(cluster, arguments).output().unwrap()
}

/// What is printed by a command that ends well.
fn ok(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = run(cluster, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    stdout(&output)
}

/// What is said by a command that ends with this code.
fn refused(cluster: &Cluster, code: i32, arguments: &[&str]) -> String {
    let output = run(cluster, arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {} {}", stdout(&output), stderr(&output));
    stderr(&output)
}

/// Lines of which each has a key of its own.
fn file(cluster: &Cluster, name: &str, lines: &[(u32, &str)]) -> String {
    let path = cluster.dir.path().join(name);
    write_lines(&path, lines.iter().map(|(key, text)| format!(r#"{{"id":{key},"text":"{text}"}}"#)));
    path.to_str().unwrap().to_owned()
}

fn import<'a>(source: &'a str, file: &'a str) -> [&'a str; 7] {
    ["propose", "--source", source, "--key", "id", "--from", file]
}

fn many(text: &str, count: u32) -> Vec<(u32, &str)> {
    (1..=count).map(|key| (key, text)).collect()
}

/// Yesterday's file and then today's: today's lines did not exist, and it was told that they were committed.
#[test]
fn another_file_under_the_name_of_a_source_is_found_out() {
    let cluster = Cluster::start(3, 2);
    let yesterday = file(&cluster, "yesterday", &[(1, "old"), (2, "old")]);
    let lines = ok(&cluster, &import("daily", &yesterday));
    assert_eq!(lines, "2 lines committed, 0 were committed before\n");
    for (what, lines) in [
        ("other lines", vec![(1, "new"), (2, "new")]),
        ("more other lines", vec![(1, "new"), (2, "new"), (3, "new")]),
        ("a changed line", vec![(1, "old"), (2, "changed")]),
        ("a line before", vec![(7, "new"), (1, "old"), (2, "old")]),
        ("the other order", vec![(2, "old"), (1, "old")]),
        ("fewer lines", vec![(1, "new")]),
    ] {
        let today = file(&cluster, "today", &lines);
        let text = refused(&cluster, OTHER_COMMAND, &import("daily", &today));
        assert!(text.contains("was another command") && text.contains("another name"), "{what}: {text}");
    }
    assert!(ok(&cluster, &["read", "1"]).contains("old"));
    refused(&cluster, MISSING, &["read", "3"]);
    refused(&cluster, MISSING, &["read", "7"]);
    let today = file(&cluster, "today", &[(1, "new"), (2, "new")]);
    assert!(ok(&cluster, &import("daily 2", &today)).starts_with("2 lines committed"));
    let text = refused(&cluster, 2, &import("", &today));
    assert!(text.contains("name of the source is empty"), "{text}");
}

/// Standard input that starts again is another input, too; and what is longer than the marks that are kept.
#[test]
fn other_input_is_found_out_wherever_it_comes_from_and_however_long_it_is() {
    let cluster = Cluster::start(3, 1);
    let (old, new) = (file(&cluster, "old", &many("old", 5000)), file(&cluster, "new", &many("new", 5000)));
    assert!(ok(&cluster, &import("feed", &old)).starts_with("5000 lines committed"));
    let feed = |path: &str| {
        let mut command = command(&cluster, &import("feed", "-"));
        command.stdin(std::fs::File::open(path).unwrap()).output().unwrap()
    };
    let again = feed(&old);
    assert_eq!(stdout(&again), "0 lines committed, 5000 were committed before\n", "{}", stderr(&again));
    let other = feed(&new);
    assert_eq!(other.status.code(), Some(OTHER_COMMAND), "{}", stdout(&other));
    let told = stdout(&other);
    assert!(told.starts_with("0 lines committed, ") && !told.contains("before"), "{told}");
    let mut late = many("old", 5000);
    late[4200].1 = "new";
    let late = file(&cluster, "late", &late);
    let text = refused(&cluster, OTHER_COMMAND, &import("feed", &late));
    assert!(text.contains("one of the numbers"), "{text}");
    // A part of the old file says nothing else, and no more than that can be known of it.
    let part = file(&cluster, "part", &many("old", 4500));
    let text = refused(&cluster, OTHER_COMMAND, &import("feed", &part));
    assert!(text.contains("cannot be compared"), "{text}");
}

/// What was said outlives restarts of the whole cluster, and snapshots.
#[test]
fn what_a_source_said_is_remembered_across_restarts_and_snapshots() {
    let mut cluster = Cluster::start(3, 1);
    let (old, new) = (file(&cluster, "old", &many("old", 300)), file(&cluster, "new", &many("new", 300)));
    ok(&cluster, &import("feed", &old));
    let connect = cluster.addresses().join(",");
    assert!(program().args(["snapshot", "take", "--connect", &connect]).status().unwrap().success());
    for index in 0..3 {
        cluster.kill(index);
    }
    for index in 0..3 {
        cluster.spawn(index);
    }
    cluster.wait_linked();
    refused(&cluster, OTHER_COMMAND, &import("feed", &new));
    let mut more = many("old", 300);
    more.push((301, "more"));
    let more = file(&cluster, "more", &more);
    assert_eq!(ok(&cluster, &import("feed", &more)), "1 lines committed, 300 were committed before\n");
    cluster.wait_agreed();
}

/// An import that reads what is written to it.
fn fed(cluster: &Cluster, said: &Path) -> Child {
    let mut command = command(cluster, &import("shared", "-"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(std::fs::File::create(said).unwrap());
    command.spawn().unwrap()
}

/// Two processes at once: the later one has the source, the earlier one stops and says why.
#[test]
fn of_two_processes_of_a_source_the_earlier_one_is_fenced() {
    let cluster = Cluster::start(3, 1);
    let said = cluster.dir.path().join("said");
    let mut earlier = fed(&cluster, &said);
    let mut lines = earlier.stdin.take().unwrap();
    lines.write_all(b"{\"id\":1,\"text\":\"one\"}\n").unwrap();
    let committed = || run(&cluster, &["read", "1"]).status.success();
    eventually("the first line", committed);
    let both = file(&cluster, "both", &[(1, "one"), (2, "two")]);
    assert_eq!(ok(&cluster, &import("shared", &both)), "1 lines committed, 1 were committed before\n");
    // It may notice by the first of these or not before the last, and then has closed its end.
    let _ = lines.write_all(b"{\"id\":3,\"text\":\"three\"}\n");
    drop(lines);
    ends(&mut earlier);
    let output = earlier.wait_with_output().unwrap();
    let text = std::fs::read_to_string(&said).unwrap();
    assert_eq!(output.status.code(), Some(FENCED), "{text}");
    assert!(text.contains("another process has taken the source over"), "{text}");
    assert_eq!(stdout(&output), "1 lines committed, 0 were committed before, 1 failed\n");
    refused(&cluster, MISSING, &["read", "3"]);
}

#[test]
fn sources_are_listed_and_ended() {
    let cluster = Cluster::start(3, 2);
    assert_eq!(ok(&cluster, &["source", "list"]), "no sources\n");
    let lines = file(&cluster, "lines", &many("x", 20));
    ok(&cluster, &import("a", &lines));
    ok(&cluster, &import("b", &lines));
    // A list is what the replica that is asked knows.
    cluster.wait_agreed();
    let list = || -> Vec<Value> {
        let text = ok(&cluster, &["source", "list", "--output", "json"]);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let both = list();
    assert_eq!(both.iter().map(|it| &it["source"]).collect::<Vec<_>>(), ["a", "b"]);
    assert!(both.iter().all(|it| it["line"] == 20 && it["committed"] == 20), "{both:?}");
    assert!(ok(&cluster, &["source", "list"]).contains("'a'  to line 20  20 committed"));
    let shards = &status(&cluster)["shards"];
    assert!(shards.as_array().unwrap().iter().all(|shard| shard["sources"] == 2), "{shards}");
    let text = ok(&cluster, &["source", "end", "a"]);
    assert_eq!(text, "ended 'a', which had come to line 20 with 20 committed\n");
    eventually("the end at the replica that is asked", || list().len() == 1);
    assert!(refused(&cluster, MISSING, &["source", "end", "a"]).contains("no source 'a'"));
    // What it said is forgotten.
    assert_eq!(ok(&cluster, &import("a", &lines)), "20 lines committed, 0 were committed before\n");
    assert_eq!(ok(&cluster, &import("b", &lines)), "0 lines committed, 20 were committed before\n");
}

fn status(cluster: &Cluster) -> Value {
    let text = program().args(["status", "--output", "json", "--connect", &cluster.addresses()[0]]).output();
    serde_json::from_str(&stdout(&text.unwrap())).unwrap()
}
