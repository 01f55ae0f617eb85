//! What may happen around a replica that publishes: to the brokers, to their disk, and to etcd.

use crate::broker::{self, Broker, directory};
use crate::named::{self, server::Etcd};
use crate::support::disk::OwnDisk;
use crate::support::{Cluster, eventually};
use crate::world::{World, check_all, ended, id_of_name, lines, new_name};

/// How many lines are decided while something happens.
const LOAD: usize = 20_000;
const DISK_BYTES: u64 = 256 << 20;

/// The number behind a word in what a tool says.
fn number_after(text: &str, word: &str) -> usize {
    let rest = text.split_once(word).unwrap_or_else(|| panic!("no {word} in {text}")).1;
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number behind {word} in {text}"))
}

#[test]
fn the_coordinator_and_then_the_leader_of_three_brokers_die() {
    let broker = Broker::three();
    let mut world = World::prepare(&broker.address, 1);
    world.create_topics();
    world.start();
    world.wait_publisher(0);
    let load = world.propose("a", LOAD);
    eventually("a part of it", || !world.read(0).is_empty());
    let id = format!("isonomy/{}/{}/0", id_of_name(), world.topic);
    let told = broker.ask("TransactionsCommand", &["describe", "--transactional-id", &id]);
    let coordinator = told.lines().nth(1).map(|line| number_after(line, "")).expect("a coordinator");
    broker.kill_node(coordinator);
    ended(load);
    check_all(&world.published(LOAD), &[("a", LOAD)]);
    broker.restart();
    let load = world.propose("b", LOAD);
    let told = broker.ask("TopicCommand", &["--describe", "--topic", &world.topic]);
    broker.kill_node(number_after(&told, "Leader: "));
    ended(load);
    check_all(&world.published(2 * LOAD), &[("a", LOAD), ("b", LOAD)]);
}

#[test]
fn a_broker_whose_disk_is_full_gets_everything_later() {
    let home = directory();
    let Some(disk) = OwnDisk::mount(home.path().join("disk"), DISK_BYTES) else {
        return eprintln!("NOT TESTED: this user cannot mount a file system here; run the tests as root");
    };
    let logs = format!("log.dirs={}", home.path().join("disk/logs").display());
    let broker = Broker::start_in(directory(), &["--set", &logs]);
    let mut world = World::prepare(&broker.address, 1);
    world.create_topics();
    world.start();
    ended(world.propose("a", 1000));
    check_all(&world.published(1000), &[("a", 1000)]);
    let ballast = disk.fill(0);
    ended(world.propose("b", LOAD));
    eventually("the broker's end", || broker.has_ended(1));
    std::fs::remove_file(ballast).unwrap();
    broker.restart();
    check_all(&world.published(1000 + LOAD), &[("a", 1000), ("b", LOAD)]);
}

/// Who publishes is found out without etcd.
#[test]
fn publishing_goes_on_and_moves_without_etcd() {
    let (name, brokers) = (new_name(), broker::shared());
    let mut members = named::World::with(Etcd::one(), Cluster::prepare(3, 1));
    (0..3).for_each(|index| members.configure(index, &lines(brokers, &name)));
    members.begin(3, Cluster::spawn);
    let named::World { runtime: _runtime, mut etcd, cluster } = members;
    let mut world = World::prepare_for(cluster, brokers, &name);
    world.create_topics();
    let publisher = world.wait_publisher(0);
    etcd.kill(0);
    let load = world.propose("a", LOAD);
    eventually("a part of it", || !world.read(0).is_empty());
    world.cluster.kill(publisher);
    eventually("another publisher", || world.has_other(publisher));
    ended(load);
    check_all(&world.published(LOAD), &[("a", LOAD)]);
}
