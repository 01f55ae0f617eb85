//! Real replicas whose members are named in a real etcd.

mod named;
mod support;

use isonomy_tuning::ports::free_ranges;
use named::{World, said};
use serde_json::Value;
use std::fs;
use support::eventually;

#[test]
fn a_cluster_is_initialised_once_and_its_replicas_wait_for_that() {
    let mut world = World::new(3);
    (0..3).for_each(|index| world.cluster.spawn(index));
    eventually("a replica that waits", || world.cluster.log(0).contains("there is no cluster at"));
    let planned = world.member(&["init", "--dry-run", "--members", &world.members()]);
    assert!(planned.status.success(), "{}", said(&planned));
    assert_eq!(world.listed(), Value::Null, "nothing was written");
    assert!(world.init().status.success());
    world.cluster.wait_linked();
    world.decide("a");
    let again = world.init();
    assert_eq!(again.status.code(), Some(1));
    assert!(said(&again).contains("there is a cluster at /isonomy/tested/epoch already"), "{}", said(&again));
    eventually("three that live", || world.living() == [true; 3]);
    assert_eq!(world.cluster.stop(2), Some(0));
    eventually("the end of one", || world.living() == [true, true, false]);
}

#[test]
fn decisions_and_restarts_outlive_an_outage_of_etcd() {
    let mut world = World::running(3);
    world.decide("before");
    world.etcd.kill(0);
    world.decide("without etcd");
    for index in 0..3 {
        world.cluster.kill(index);
        world.cluster.spawn(index);
        world.cluster.wait_linked();
        world.decide(&format!("after the restart of replica {index}"));
    }
    let World { runtime, etcd, .. } = &mut world;
    runtime.block_on(etcd.restart(0));
    eventually("three that live", || world.living() == [true; 3]);
    world.cluster.wait_agreed();
}

#[test]
fn a_member_that_comes_back_elsewhere_is_found() {
    let mut world = World::running(3);
    world.decide("before");
    assert_eq!(world.cluster.stop(2), Some(0));
    let moved = free_ranges(2, 1).unwrap();
    (world.cluster.peer_bases[2], world.cluster.client_bases[2]) = (moved[0], moved[1]);
    let advertise = format!(
        "advertise = {{ host = \"127.0.0.1\", peer_base = {}, client_base = {} }}",
        moved[0], moved[1]
    );
    world.configure(2, &advertise);
    world.cluster.spawn(2);
    world.cluster.wait_linked();
    // The two others alone are no quorum without one of them.
    world.cluster.kill(0);
    world.decide("by the one that was not moved and the one that was");
    let address = format!("127.0.0.1:{} (clients {})", moved[0], moved[1]);
    assert_eq!(world.listed()["members"][2]["lives_at"], Value::from(address));
}

#[test]
fn a_place_belongs_to_one_data_directory() {
    let mut world = World::running(3);
    world.decide("a");
    world.cluster.kill(1);
    fs::remove_dir_all(world.cluster.data_dir(1)).unwrap();
    let refused = world.cluster.run_to_end(1);
    assert_eq!(refused.status.code(), Some(5));
    assert!(
        said(&refused).contains("member 1 has taken part with another data directory"),
        "{}",
        said(&refused)
    );
    world.decide("b");
}

#[test]
fn what_does_not_fit_the_record_is_refused_and_says_so() {
    let world = World::new(3);
    assert!(world.init().status.success());
    let refused = |lines: &str, replica: usize| {
        world.configure(0, lines);
        let text = fs::read_to_string(world.cluster.config_path(0)).unwrap();
        let text = text.replace("replica = 0", &format!("replica = {replica}"));
        fs::write(world.cluster.config_path(0), text).unwrap();
        let output = world.cluster.run_to_end(0);
        assert_eq!(output.status.code(), Some(3), "{}", said(&output));
        said(&output)
    };
    assert!(refused("", 3).contains("`replica` is 3, and the members in etcd are 0, 1, 2"));
    let member = "{ host = \"127.0.0.1\", peer_base = 1, client_base = 2 }";
    assert!(refused(&format!("members = [{member}]"), 0).contains("named already"));
    world.configure(0, "");
    let other = fs::read_to_string(world.cluster.config_path(0)).unwrap() + "prefix = \"/isonomy/tested/\"\n";
    fs::write(world.cluster.config_path(0), other.replace("\"tested\"", "\"other\"")).unwrap();
    let output = world.cluster.run_to_end(0);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("other"), "{}", said(&output));
}
