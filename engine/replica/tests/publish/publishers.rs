//! Replicas that publish are killed and paused, and Kafka is gone for a while.

use crate::broker::{self, Broker};
use crate::support::eventually;
use crate::world::{World, check_all, ended};
use rustix::process::Signal;

/// How many lines are decided while something happens to a publisher.
const LOAD: usize = 25_000;
/// So many that the others cut their logs behind a member that is away.
const MANY: usize = 150_000;

#[test]
fn publishers_that_are_killed_and_paused_lose_and_double_nothing() {
    let mut world = World::started(2);
    for round in 0..2 {
        let publisher = world.wait_publisher(0);
        let load = world.propose(&format!("k{round}"), LOAD);
        if round % 2 == 0 {
            world.cluster.kill(publisher);
            eventually("another publisher", || world.has_other(publisher));
            world.cluster.spawn(publisher);
        } else {
            // It wakes with a transaction that is open, and another one has taken over.
            world.cluster.signal(publisher, Signal::STOP);
            eventually("another publisher", || world.has_other(publisher));
            world.cluster.signal(publisher, Signal::CONT);
        }
        world.cluster.wait_linked();
        ended(load);
    }
    check_all(&world.published(2 * LOAD), &[("k0", LOAD), ("k1", LOAD)]);
    eventually("no replica keeps what is published", || {
        (0..3).all(|index| {
            let files =
                |shard| world.cluster.data_dir(index).join(format!("shard-{shard:03}/outbox")).read_dir();
            (0..2).all(|shard| files(shard).unwrap().count() <= 2)
        })
    });
}

#[test]
fn without_kafka_decisions_go_on_and_are_published_later() {
    let broker = Broker::start();
    let mut world = World::prepare(&broker.address, 1);
    world.start();
    ended(world.propose("a", 1000));
    world.wait_trouble("there is no topic");
    world.create_topics();
    check_all(&world.published(1000), &[("a", 1000)]);
    broker.kill();
    ended(world.propose("b", 20_000));
    world.wait_trouble("check that it runs");
    broker.restart();
    check_all(&world.published(21_000), &[("a", 1000), ("b", 20_000)]);
}

/// The first member takes over a snapshot while nothing is published, and lacks what is before it.
#[test]
fn another_member_publishes_what_the_first_one_lacks() {
    let mut world = World::prepare(broker::shared(), 1);
    world.start();
    world.cluster.kill(0);
    ended(world.propose("a", MANY));
    world.cluster.spawn(0);
    world.cluster.wait_linked();
    world.cluster.wait_agreed();
    assert!(world.cluster.log(0).contains(": installed the snapshot"));
    world.create_topics();
    check_all(&world.published(MANY), &[("a", MANY)]);
    // Then it lacks nothing any more.
    ended(world.propose("b", 1000));
    eventually("the first member as the publisher", || world.is_publisher(0, 0));
    check_all(&world.published(MANY + 1000), &[("a", MANY), ("b", 1000)]);
}
