//! What fails around a real etcd while a real cluster decides and its members change: etcd's leader, all of etcd, its
//! data, and the networks between replicas and etcd.

mod named;
mod support;

use isonomy_wire::id::Epoch;
use named::changing::{Change, Load, decide, done, epoch, ids};
use named::server::Etcd;
use named::{World, said};
use serde_json::json;
use support::network::Router;
use support::{Cluster, eventually};

/// How many decisions more count as going on.
const GOES_ON: u64 = 500;
/// What a replica logs when etcd does not answer any more.
const GONE: &str = "Until then members that move are not found anew";
const KEY: &str = "/isonomy/tested/epoch";

/// A cluster of three, and two replicas more, named in an etcd of three.
fn with_three_of_etcd() -> World {
    let mut world = World::with(Etcd::three(), Cluster::prepare(5, 1));
    world.begin(3, Cluster::spawn);
    world
}

/// Waits until a replica has executed many decisions more, in this epoch.
fn goes_on(world: &World, index: usize, here: u32) {
    let decisions = || {
        let status = world.cluster.status(index, 0)?;
        (status.epoch == Epoch(here)).then_some(status.decisions)
    };
    let mut first = None;
    eventually("decisions go on", || {
        let now = decisions();
        first = first.or(now);
        first.zip(now).is_some_and(|(first, now)| now >= first + GOES_ON)
    });
}

fn is_in(world: &World, index: usize, here: u32) -> bool {
    world.cluster.status(index, 0).is_some_and(|status| status.epoch == Epoch(here))
}

/// Whether the change under way has come to an end, or its new member has at least taken its place.
fn has_place(world: &World, place: usize, next: u64) -> bool {
    let listed = world.listed();
    listed["change"]["members"][place]["incarnation"].is_string() || listed["epoch"] == json!(next)
}

fn kill_leader(world: &mut World) -> usize {
    let World { runtime, etcd, .. } = world;
    let leader = runtime.block_on(etcd.leader());
    etcd.kill(leader);
    leader
}

fn restart(world: &mut World, member: usize) {
    let World { runtime, etcd, .. } = world;
    runtime.block_on(etcd.restart(member));
}

#[test]
fn the_death_of_etcds_leader_delays_a_change_and_no_decision() {
    let mut world = with_three_of_etcd();
    let load = Load::start(&world, &[0, 1, 2]);
    let change = Change::begin(&world, &["add", &world.address(3)]);
    let dead = kill_leader(&mut world);
    goes_on(&world, 0, 1);
    world.cluster.spawn(3);
    eventually("the new member takes its place", || has_place(&world, 3, 2));
    restart(&mut world, dead);
    let dead = kill_leader(&mut world);
    change.end();
    assert_eq!((epoch(&world), ids(&world)), (2, vec![0, 1, 2, 3]));
    goes_on(&world, 3, 2);
    restart(&mut world, dead);
    load.end(&world, 3);
    world.cluster.wait_agreed();
}

#[test]
fn decisions_go_on_while_all_of_etcd_is_gone_and_a_change_goes_on_afterwards() {
    let mut world = with_three_of_etcd();
    let load = Load::start(&world, &[0, 1, 2]);
    let first = Change::begin(&world, &["add", &world.address(3)]);
    world.cluster.spawn(3);
    first.end();
    let second = Change::begin(&world, &["add", &world.address(4)]);
    (0..3).for_each(|member| world.etcd.kill(member));
    (0..4).for_each(|index| eventually("the loss of etcd", || world.cluster.log(index).contains(GONE)));
    (0..4).for_each(|index| goes_on(&world, index, 2));
    // The new member has never seen a record, and waits for one.
    world.cluster.spawn(4);
    world.cluster.kill(1);
    world.cluster.spawn(1);
    eventually("the start without etcd", || world.cluster.log(1).contains("because etcd gave no record"));
    // Of four members three must decide, among them the one that has started without etcd.
    world.cluster.kill(0);
    goes_on(&world, 1, 2);
    world.cluster.spawn(0);
    goes_on(&world, 0, 2);
    assert!(world.cluster.log(4).contains("etcd does not answer"), "{}", world.cluster.log(4));
    let World { runtime, etcd, .. } = &mut world;
    runtime.block_on(etcd.restart_all());
    second.end();
    assert_eq!((epoch(&world), ids(&world)), (3, vec![0, 1, 2, 3, 4]));
    load.end(&world, 4);
    world.cluster.wait_agreed();
}

#[test]
fn an_etcd_that_was_set_back_is_refused_until_the_newest_record_is_put_back() {
    let mut world = World::growing(3, 4);
    let snapshot = world.cluster.dir.path().join("etcd.snapshot");
    world.etcd.control(&["snapshot", "save", snapshot.to_str().unwrap()], None);
    // One member does not see the second epoch.
    world.cluster.kill(2);
    let change = Change::begin(&world, &["add", &world.address(3)]);
    world.cluster.spawn(3);
    change.end();
    decide(&world, 0, "before");
    world.etcd.kill(0);
    world.etcd.restore(&snapshot);
    restart(&mut world, 0);

    let backwards = "the record in etcd is of epoch 1, but this replica has seen epoch 2";
    for index in [0, 1, 3] {
        eventually("the refusal", || world.cluster.log(index).contains(backwards));
        decide(&world, index, &format!("by replica {index} nevertheless"));
        assert!(is_in(&world, index, 2));
    }
    assert_eq!(epoch(&world), 1, "nobody has put anything back");
    world.cluster.spawn(2);
    eventually("the hint to the one that was away", || world.cluster.log(2).contains("epoch 2"));
    world.cluster.kill(1);
    let refused = world.cluster.run_to_end(1);
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused));
    for part in [backwards, "membership.json", "docs/MEMBERSHIP.md"] {
        assert!(said(&refused).contains(part), "{part}: {}", said(&refused));
    }

    // As docs/MEMBERSHIP.md says.
    world.etcd.control(&["put", KEY], Some(&world.cluster.data_dir(0).join("membership.json")));
    world.cluster.spawn(1);
    eventually("the record is followed", || world.cluster.log(0).contains("is followed again"));
    eventually("the second epoch everywhere", || (0..4).all(|index| is_in(&world, index, 2)));
    decide(&world, 2, "after");
    done(&world.member(&["remove", "0"]));
    assert_eq!((epoch(&world), ids(&world)), (3, vec![1, 2, 3]));
    assert_eq!(world.cluster.stop(0), Some(0));
    world.cluster.wait_agreed();
}

/// A cluster of three, and one replica more, each behind a router that leads to etcd, too.
fn routed() -> Option<(Router, World)> {
    let router = Router::make(4)?;
    let hosts = (0..4).map(|index| router.host(index)).collect();
    let mut world = World::with(Etcd::start(&router.home(), 1, None), Cluster::prepare_at(hosts, 1));
    world.begin(3, |cluster, index| cluster.spawn_by(index, router.program(index)));
    Some((router, world))
}

#[test]
fn a_member_that_is_cut_off_from_etcd_decides_and_learns_of_a_change_later() {
    let Some((router, mut world)) = routed() else { return };
    let etcd = world.etcd.ports();
    router.cut_off(0, &etcd);
    eventually("the loss of etcd", || world.cluster.log(0).contains(GONE));
    decide(&world, 0, "by the one that is cut off");
    let load = Load::start(&world, &[1, 2]);
    let change = Change::begin(&world, &["add", &world.address(3)]);
    world.cluster.spawn_by(3, router.program(3));
    change.end();
    goes_on(&world, 3, 2);
    eventually("the hint", || world.cluster.log(0).contains("epoch 2"));
    assert!(is_in(&world, 0, 1), "it has no record of another epoch");
    router.reconnect(0, &etcd);
    eventually("the second epoch", || is_in(&world, 0, 2));
    load.end(&world, 0);
    decide(&world, 0, "after");
    world.cluster.wait_agreed();
}

#[test]
fn a_member_that_is_cut_off_from_its_peers_catches_up_over_a_change() {
    let Some((router, mut world)) = routed() else { return };
    router.part(0, &[1, 2, 3]);
    let peers = |index| world.cluster.status(index, 0).map(|status| status.peers_connected.len());
    eventually("the loss of its peers", || peers(0) == Some(0) && peers(1) == Some(1));
    let load = Load::start(&world, &[1, 2]);
    let change = Change::begin(&world, &["add", &world.address(3)]);
    world.cluster.spawn_by(3, router.program(3));
    change.end();
    goes_on(&world, 3, 2);
    assert_eq!(world.living(), [true; 4], "etcd hears of the one that is cut off");
    router.join(0, &[1, 2, 3]);
    eventually("the second epoch", || is_in(&world, 0, 2));
    load.end(&world, 0);
    decide(&world, 0, "after");
    world.cluster.wait_agreed();
}
