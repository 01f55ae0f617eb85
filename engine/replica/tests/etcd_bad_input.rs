//! What lies in etcd that must not be followed, and who may not ask etcd: what the program says at its start, while it
//! runs, and when members are to change. Nothing changes then.

mod named;
mod support;

use isonomy_wire::id::Epoch;
use named::certificates::Certificates;
use named::server::Etcd;
use named::{World, said};
use serde_json::{Value, json};
use std::fs;
use std::process::Output;
use support::{Cluster, eventually, program};

const KEY: &str = "/isonomy/tested/epoch";

/// The record with a change, and what is said of it.
type Wrong = (&'static str, fn(&mut Value), &'static str);

const RECORDS: [Wrong; 5] = [
    ("is no record", |record| *record = json!({ "version": 1 }), "it does not parse: missing field"),
    (
        "is of a newer release",
        |record| record["version"] = json!(9),
        "it has version 9, but this release reads version 1; install the newer release",
    ),
    (
        "is another cluster's",
        |record| record["cluster"] = json!("bids"),
        "it belongs to the cluster bids, not to tested; give each cluster a prefix of its own",
    ),
    (
        "has a member twice",
        |record| record["membership"]["members"][1]["id"] = json!(0),
        "member 0 is there twice; put back what was there before",
    ),
    (
        "has a port twice",
        |record| {
            let members = &mut record["membership"]["members"];
            members[1]["address"] = members[0]["address"].clone();
        },
        "the members 0 and 1 would both listen on port",
    ),
];

fn refused(what: &str, output: &Output, code: i32, why: &str) {
    assert_eq!(output.status.code(), Some(code), "{what}: {}", said(output));
    assert!(said(output).contains(why), "{what}: {}", said(output));
}

#[test]
fn a_record_that_cannot_be_used_changes_nothing_and_says_what_to_do() {
    let mut world = World::growing(3, 4);
    let put = |world: &World, value: &[u8]| world.runtime.block_on(world.etcd.put(KEY, value));
    let there = |world: &World| world.runtime.block_on(world.etcd.value(KEY));
    let good = there(&world);
    for (times, (what, spoil, why)) in RECORDS.into_iter().enumerate() {
        let mut record: Value = serde_json::from_slice(&good).unwrap();
        spoil(&mut record);
        let bad = serde_json::to_vec(&record).unwrap();
        put(&world, &bad);
        for index in 0..3 {
            eventually(what, || world.cluster.log(index).contains(why));
        }
        world.decide(what);
        for arguments in [&["add", &world.address(3)][..], &["remove", "0"], &["cancel"], &["list"]] {
            refused(what, &world.member(arguments), 1, why);
        }
        refused(what, &world.init(), 1, why);
        // One that has never run, and one that knows the record that was there.
        refused(what, &world.cluster.run_to_end(3), 3, why);
        world.cluster.kill(2);
        refused(what, &world.cluster.run_to_end(2), 3, why);
        assert_eq!(there(&world), bad, "{what}: nothing was written");
        put(&world, &good);
        world.cluster.spawn(2);
        world.cluster.wait_linked();
        let again = "the membership in etcd is followed again";
        eventually("it is followed", || world.cluster.log(0).matches(again).count() == times + 1);
    }
    assert_eq!(world.cluster.status(0, 0).unwrap().epoch, Epoch(1));
    assert_eq!(there(&world), good);
    world.cluster.wait_agreed();
}

/// Runs `isonomy serve` and `isonomy member add` with these lines in the table `[etcd]`, which etcd refuses.
fn both_refused(world: &World, what: &str, lines: &str, why: &str) {
    world.configure(0, "");
    let path = world.cluster.config_path(0);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text + lines).unwrap();
    refused(what, &world.cluster.run_to_end(0), 3, why);
    let add = program().args(["member", "add", "127.0.0.1:7:8", "--config"]).arg(&path).output().unwrap();
    refused(what, &add, 1, why);
}

#[test]
fn whoever_has_a_wrong_password_is_told_so() {
    let world = World::new(1);
    assert!(world.init().status.success());
    world.runtime.block_on(world.etcd.guard("right"));
    let file = world.cluster.dir.path().join("password");
    fs::write(&file, "wrong\n").unwrap();
    let why = "etcd refuses the user or the password";
    for (what, user) in [("a wrong password", "root"), ("a user that is not there", "nobody")] {
        let lines = format!("user = \"{user}\"\npassword_file = \"{}\"\n", file.display());
        both_refused(&world, what, &lines, why);
    }
    both_refused(&world, "no user", "", why);
}

#[test]
fn whoever_has_a_wrong_certificate_is_told_so() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (ours, theirs) = (Certificates::new(dir.path(), "ours"), Certificates::new(dir.path(), "theirs"));
    let ca = format!("ca = \"{}\"\n", ours.ca.display());
    let own = |(cert, key): &(std::path::PathBuf, std::path::PathBuf)| {
        format!("cert = \"{}\"\nkey = \"{}\"\n", cert.display(), key.display())
    };
    let (right, wrong) = (own(&ours.client), own(&theirs.client));
    let their_ca = format!("ca = \"{}\"\n", theirs.ca.display());
    let world = World::with(Etcd::with_tls(ours), Cluster::prepare(1, 1));
    let why = "do not agree on TLS";
    both_refused(&world, "a certificate of another authority", &format!("{ca}{wrong}"), why);
    both_refused(&world, "no certificate", &ca, why);
    both_refused(&world, "an etcd of another authority", &format!("{their_ca}{right}"), why);
}
