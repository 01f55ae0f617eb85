//! `isonomy member` against a real etcd and real replicas: plans, refusals, and a wait for a change that others end.

mod named;
mod support;

use named::{World, said};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::process::{Child, Output, Stdio};
use support::{ends, eventually};

/// An address at which nobody listens.
const NEW: &str = "127.0.0.1:7:8";

/// The record as the listing shows it, without what members say of themselves meanwhile.
fn written(world: &World) -> Value {
    let mut listed = world.listed();
    for members in ["/members", "/change/members"] {
        for member in listed.pointer_mut(members).and_then(Value::as_array_mut).into_iter().flatten() {
            let told = ["lives", "lives_at", "is_close", "holds_state"];
            member.as_object_mut().unwrap().retain(|name, _| !told.contains(&name.as_str()));
        }
    }
    listed.pointer_mut("/change").and_then(Value::as_object_mut).map(|change| change.remove("waits_for"));
    listed
}

/// A refusal of a command: nothing has changed, and the command says why.
fn refused(world: &World, arguments: &[&str], why: &str) {
    let before = written(world);
    let output = world.member(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", said(&output));
    assert!(said(&output).contains(why), "{arguments:?}: {}", said(&output));
    assert_eq!(written(world), before, "{arguments:?}: nothing has changed");
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A command that waits, whose words go to a file.
fn waiting(world: &World, arguments: &[&str]) -> (Child, impl Fn() -> String + use<>) {
    let path = world.cluster.dir.path().join("command.txt");
    let mut command = world.command(arguments);
    command.stdout(Stdio::null()).stderr(File::create(&path).unwrap());
    (command.spawn().unwrap(), move || fs::read_to_string(&path).unwrap())
}

fn started(replicas: usize) -> World {
    let world = World::running(replicas);
    eventually("all live", || world.living() == vec![true; replicas]);
    world
}

#[test]
fn a_change_is_planned_announced_shown_and_cancelled() {
    let world = started(3);
    let before = written(&world);
    assert_eq!(before["change"], Value::Null);
    // If the command wrote, it would not wait, so that what it wrote is seen below.
    let plan = done(&world.member(&["add", NEW, "--dry-run", "--no-wait"]));
    assert!(
        plan.contains("epoch 1 -> 2\n") && plan.contains("+ member 3 at 127.0.0.1:7 (clients 8)"),
        "{plan}"
    );
    assert_eq!(written(&world), before, "nothing was written");
    for (hold, stage) in [(&[][..], "learning"), (&["--hold"][..], "held")] {
        let announced = world.member(&[&["add", NEW, "--no-wait", "--output", "json"], hold].concat());
        let announced: Value = serde_json::from_str(&done(&announced)).unwrap();
        let listed = world.listed();
        assert_eq!((&announced["change"]["id"], &listed["epoch"]), (&listed["change"]["id"], &json!(1)));
        assert_eq!(listed["change"]["stage"], json!(stage));
        let new = &listed["change"]["members"][3];
        let facts = ["id", "is_new", "lives", "is_close", "holds_state"].map(|name| &new[name]);
        assert_eq!(json!(facts), json!([3, true, false, false, false]));
        let table = done(&world.member(&["list"]));
        assert!(
            table.contains("new member 3 has not started") && table.contains("isonomy serve --replica 3"),
            "{table}"
        );
        assert!(
            table.contains(&format!(", {stage}; ")) && table.contains("of the new members not 3"),
            "{table}"
        );
        refused(&world, &["add", "127.0.0.1:9:10"], "is under way");
        refused(&world, &["promote"], "of the new members not 3");
        let announced = written(&world);
        let plan = done(&world.member(&["cancel", "--dry-run"]));
        assert!(!plan.contains("->") && written(&world) == announced, "{plan}");
        done(&world.member(&["cancel"]));
        assert_eq!(written(&world), before, "as before");
        refused(&world, &["cancel"], "no change of the members is under way");
        refused(&world, &["promote"], "no change of the members is under way");
    }
    done(&world.member(&["list", "--wait"]));
}

#[test]
fn a_change_that_cannot_be_is_refused() {
    let mut world = started(3);
    let taken = world.members().split(',').next().unwrap().to_owned();
    refused(&world, &["add", &taken], "the members 0 and 3 would both listen on port");
    refused(&world, &["remove", "7"], "no member has the number 7");
    refused(&world, &["replace", "7"], "no member has the number 7");
    refused(&world, &["add", "http//db4:1:2"], "is neither a name nor an address");
    for wrong in [&["add", "db4"][..], &["add"], &["remove", "x"], &["replace"], &["add", "db4:0:70000"]] {
        let output = world.member(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", said(&output));
    }
    // Two decide without the third, but one could not.
    assert_eq!(world.cluster.stop(2), Some(0));
    eventually("the end of one", || world.living() == [true, true, false]);
    refused(&world, &["remove", "1"], "only 1 of the 2 members that must decide would be there");
    assert_eq!(world.cluster.stop(1), Some(0));
    eventually("the end of another", || world.living() == [true, false, false]);
    refused(&world, &["add", NEW], "only 1 of the 2 members that must decide are alive");
}

#[test]
fn a_member_that_never_started_and_the_last_one_stay() {
    let mut world = World::new(1);
    assert!(world.init().status.success());
    refused(&world, &["replace", "0"], "member 0 has not started yet");
    world.cluster.spawn(0);
    eventually("it lives", || world.living() == [true]);
    refused(&world, &["remove", "0"], "the last member cannot be removed");
}

#[test]
fn a_wait_can_be_interrupted_and_outlives_an_outage_of_etcd() {
    let mut world = started(3);
    let (mut command, words) = waiting(&world, &["add", NEW]);
    eventually("it waits", || words().contains("learning; new member 3 has not started"));
    world.etcd.kill(0);
    eventually("it says that etcd is gone", || words().contains("etcd does not answer"));
    let World { runtime, etcd, .. } = &mut world;
    runtime.block_on(etcd.restart(0));
    eventually("it goes on", || words().matches("learning; new member 3").count() == 2);
    kill_process(Pid::from_child(&command), Signal::INT).unwrap();
    ends(&mut command);
    assert_eq!(command.wait().unwrap().code(), Some(1));
    assert!(
        words().contains("goes on by itself; `isonomy member list --wait` shows how far it is"),
        "{}",
        words()
    );
    assert_eq!(world.listed()["change"]["stage"], json!("learning"));
}

#[test]
fn a_wait_ends_when_somebody_cancels_the_change() {
    let world = started(3);
    let (mut command, words) = waiting(&world, &["remove", "2", "--hold"]);
    eventually("it waits", || words().contains("held; "));
    done(&world.member(&["cancel"]));
    ends(&mut command);
    assert_eq!(command.wait().unwrap().code(), Some(1));
    assert!(words().contains("was cancelled, and the members are as before"), "{}", words());
}
