//! Where clients find their cluster: other clusters at the addresses of its members, and addresses that lead
//! nowhere.

mod support;

use isonomy_wire::client::{CallError, Client, discover};
use isonomy_wire::conversation::{Config, Error};
use isonomy_wire::id::ClusterId;
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::process::Output;
use std::time::{Duration, Instant};
use support::names::{silent_server, with_names};
use support::{CLUSTER, Cluster, program, stderr, stdout, write_lines};

/// So many that each replica is the home of some.
const KEYS: usize = 60;
/// How long a lookup takes at a server that does not answer, at least.
const RESOLVER_PATIENCE: Duration = Duration::from_secs(90);

/// A cluster of another name whose member has the address of the same member of `cluster`.
fn foreign_at(cluster: &Cluster, index: usize) -> Cluster {
    let mut foreign = Cluster::prepare(3, 1);
    foreign.client_bases[index] = cluster.client_bases[index];
    for member in 0..3 {
        let config = foreign.config(member).replace(&format!("\"{CLUSTER}\""), "\"foreign\"");
        fs::write(foreign.config_path(member), config).unwrap();
        foreign.spawn(member);
    }
    foreign.wait_linked();
    foreign
}

fn run(addresses: &[String], arguments: &[&str]) -> Output {
    let connect = addresses.join(",");
    let mut command = program();
    command.args(&arguments[..1]).args(["--connect", &connect]).args(&arguments[1..]);
    command.env_remove("ISONOMY_CLUSTER").output().unwrap()
}

fn ok(addresses: &[String], arguments: &[&str]) -> String {
    let output = run(addresses, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    stdout(&output)
}

fn error(addresses: &[String], arguments: &[&str]) -> String {
    let output = run(addresses, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {} {}", stdout(&output), stderr(&output));
    stderr(&output)
}

#[test]
fn a_member_of_another_cluster_takes_and_answers_nothing() {
    let mut cluster = Cluster::start(3, 1);
    let own = cluster.addresses()[..2].to_vec();
    cluster.stop(2);
    let foreign = foreign_at(&cluster, 2);
    let file = cluster.dir.path().join("lines.jsonl");
    write_lines(&file, (0..KEYS).map(|n| format!("{{\"k\":\"key {n}\"}}")));
    let from = ["propose", "--from", file.to_str().unwrap(), "--key", "k"];
    assert!(ok(&own, &from).contains(&format!("{KEYS} lines committed")));
    assert!(ok(&own, &[&from[..], &["--source", "s"]].concat()).contains(&format!("{KEYS} lines committed")));
    for n in 0..KEYS {
        let key = format!("key {n}");
        ok(&own, &["propose", &key, "by itself"]);
        assert_eq!(ok(&own, &["read", &key]), "by itself\n");
    }
    assert_eq!(foreign.status(2, 0).unwrap().keys, 0);
    assert_eq!(cluster.status(0, 0).unwrap().keys, KEYS as u64);
}

#[test]
fn a_client_names_the_members_of_other_clusters_when_nobody_decides() {
    let mut cluster = Cluster::start(3, 1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let welcome = discover(&cluster.addresses()[..1]).await.unwrap();
        let config = Config { deadline_us: 2_000_000, ..Config::of(&welcome) };
        (0..3).for_each(|index| _ = cluster.stop(index));
        let _foreign = foreign_at(&cluster, 2);
        // A client of the cluster as it was, and one that is told which is meant.
        let client = Client::with(welcome.clone(), config);
        let failed = client.decide("key", "value").await.unwrap_err();
        let CallError::Failed(Error::NotTaken { troubles, .. }) = &failed else { panic!("{failed}") };
        let why = troubles.join("; ");
        let text = format!("this is cluster {}, not {}", ClusterId::of_name("foreign"), welcome.cluster);
        assert!(why.contains(&cluster.addresses()[2]) && why.contains(&text), "{why}");
        assert!(client.troubles().iter().any(|trouble| trouble.contains(&text)));
        let refused = Client::connect_to(welcome.cluster, &cluster.addresses()).await.unwrap_err();
        assert!(refused.to_string().contains(&text), "{refused}");
    });
}

#[test]
fn addresses_of_several_clusters_are_refused_unless_one_is_named() {
    let mut cluster = Cluster::start(3, 1);
    cluster.stop(2);
    let _foreign = foreign_at(&cluster, 2);
    let all = cluster.addresses();
    let id = |address: usize| -> String {
        let status = ok(&all[address..=address], &["status", "--output", "json"]);
        let status: Value = serde_json::from_str(&status).unwrap();
        status["cluster"].as_str().unwrap().into()
    };
    let (own, other) = (id(0), id(2));
    assert_eq!(own, ClusterId::of_name(CLUSTER).to_string());
    for command in [&["propose", "k", "v"][..], &["read", "k"], &["delete", "k"]] {
        let said = error(&all, command);
        let expected = [format!("{}, {} of {own}", all[0], all[1]), format!("{} of {other}", all[2])];
        assert!(expected.iter().all(|part| said.contains(part)), "{said}");
    }
    let said = error(&all, &["status"]);
    assert!(said.contains("several clusters"), "{said}");
    for (named, value) in [(CLUSTER, "ours"), (&own, "ours"), ("foreign", "theirs"), (&other, "theirs")] {
        ok(&all, &["propose", "--cluster", named, "k", value]);
        assert_eq!(ok(&all, &["read", "--cluster", named, "k"]), format!("{value}\n"));
    }
    let said = error(&all, &["read", "--cluster", "a third", "k"]);
    assert!(all.iter().all(|address| said.contains(&format!("{address}: this is cluster"))), "{said}");
    let said = run(&all, &["status", "--cluster", CLUSTER]);
    assert_eq!(said.status.code(), Some(1));
    let expected = format!("no status of {}: {}: this is cluster {other}", all[2], all[2]);
    assert!(stdout(&said).contains(&expected), "{}", stdout(&said));
}

/// The resolver here is patient: a command that waited for it took 90 s.
#[test]
fn a_name_that_is_still_looked_up_holds_up_no_command() {
    let Some(server) = silent_server() else { return };
    let cluster = Cluster::start(3, 1);
    fs::write(cluster.dir.path().join("hosts"), "127.0.0.1 localhost\n").unwrap();
    let command = |addresses: &str, arguments: &[&str]| {
        let began = Instant::now();
        let mut command = with_names(cluster.dir.path(), &server);
        let output = command.args(arguments).args(["--connect", addresses]).output().unwrap();
        assert!(began.elapsed() < RESOLVER_PATIENCE * 2 / 3, "{arguments:?} took {:?}", began.elapsed());
        output
    };
    let hung = format!("db.isonomy.test:{}", cluster.client_bases[1]);
    let addresses = format!("{hung},{}", cluster.addresses()[0]);
    for arguments in [&["propose", "k", "v"][..], &["read", "k"], &["snapshot", "take"], &["delete", "k"]] {
        let output = command(&addresses, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    }
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = command(&format!("{hung},{refused}"), &["read", "k"]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains(&format!("{hung}: no name server has answered")), "{said}");
    assert!(said.contains(&format!("{refused}: Connection refused")), "{said}");
}
