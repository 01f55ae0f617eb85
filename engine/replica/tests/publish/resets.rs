//! Shards that cannot be published, until their operator says where they go on.

use crate::broker;
use crate::support::{eventually, program, stderr, stdout};
use crate::world::{Record, World, check, check_all, ended, id_of_name};
use std::path::Path;

/// Runs `isonomy snapshot`, which must end well.
fn snapshot(arguments: &[&str]) -> String {
    let output = program().arg("snapshot").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    stdout(&output)
}

/// Takes a snapshot of each replica, so that no log has everything any more.
fn take_snapshots(world: &World) {
    for (index, address) in world.cluster.addresses().iter().enumerate() {
        snapshot(&["take", "--connect", address]);
        let shards = 0..world.cluster.shards;
        eventually("its snapshot", || {
            shards.clone().all(|shard| world.cluster.status(index, shard).is_some_and(|it| it.snapshot > 0))
        });
    }
}

/// The first and the last decision of each key are as many as two loads of so many lines make.
fn assert_continues(records: &[Vec<Record>], before: usize, count: usize) {
    let keys = check(records);
    assert_eq!(records.iter().map(Vec::len).sum::<usize>(), count);
    for (key, (first, last)) in keys {
        let place: usize = key.trim_start_matches("k-").parse().unwrap();
        let of = |lines: usize| lines.saturating_sub(place).div_ceil(97) as u64;
        assert_eq!((first, last), (of(before) + 1, of(before) + of(count)), "{key}");
    }
}

#[test]
fn a_cluster_that_publishes_late_begins_where_its_operator_says() {
    for from in ["now", "kept"] {
        let mut world = World::prepare_silent(broker::shared(), 2);
        world.start();
        ended(world.propose("before", 300));
        take_snapshots(&world);
        world.stop();
        world.let_publish();
        world.create_topics();
        world.start();
        world.wait_trouble("isonomy publish reset --shard 0 --from kept");
        let (is_well, status) = world.publication();
        assert!(!is_well && status["shards"][1]["cursor"].is_null(), "{status}");
        let trouble = status["shards"][1]["trouble"].as_str().unwrap();
        assert!(trouble.contains("isonomy publish reset --shard 1 --from kept"), "{trouble}");
        // What is not kept cannot be gone on with, and nothing is done that is not confirmed.
        let refused = world.publish_refused(&["reset", "--from", "cursor", "--yes"]);
        assert!(refused.contains("no cursor of this cluster"), "{refused}");
        let refused = world.publish_refused(&["reset", "--from", from]);
        assert!(refused.contains("again with --yes"), "{refused}");
        let told = world.publish_ok(&["reset", "--from", from, "--dry-run"]);
        assert!(
            told.contains("shard 0: ") && told.contains("shard 1: ") && told.contains("left out: "),
            "{told}"
        );
        let (_, later) = world.publication();
        assert!(
            (0..2).all(|shard| later["shards"][shard]["cursor"].is_null()),
            "nothing has changed: {later}"
        );
        // One shard after the other.
        assert!(
            world.publish_ok(&["reset", "--shard", "1", "--from", from, "--yes"]).contains("shard 1: done")
        );
        let rest = world.publish_ok(&["reset", "--from", from, "--yes"]);
        assert!(rest.contains("shard 0: done") && !rest.contains("shard 1"), "{rest}");
        ended(world.propose("after", 400));
        assert_continues(&world.published(400), 300, 400);
        eventually("all well", || world.publication().0);
        let refused = world.publish_refused(&["reset", "--from", "now", "--yes"]);
        assert!(refused.contains("nothing is wrong"), "{refused}");
    }
}

fn restore(world: &World, from: &Path) {
    for index in 0..3 {
        let config = world.cluster.config_path(index);
        snapshot(&["restore", "--from", from.to_str().unwrap(), "--config", config.to_str().unwrap()]);
    }
}

#[test]
fn a_restored_cluster_goes_on_in_the_topic_when_it_adopts_it() {
    let mut old = World::started(2);
    ended(old.propose("before", 300));
    check_all(&old.published(300), &[("before", 300)]);
    take_snapshots(&old);
    let backup = old.cluster.dir.path().join("backup");
    snapshot(&[
        "export",
        "--dir",
        old.cluster.data_dir(1).to_str().unwrap(),
        "--to",
        backup.to_str().unwrap(),
    ]);
    old.stop();

    let mut new = World::beside(&old);
    restore(&new, &backup);
    new.start();
    new.wait_trouble(&format!("isonomy publish adopt {} --shard 0 --from kept", id_of_name()));
    // Of the cluster that the configuration names there is none, since a restored one has an id of its own.
    let refused = new.publish_refused(&["reset", "--from", "kept", "--yes"]);
    assert!(refused.contains("--cluster-id"), "{refused}");
    let (is_well, status) = new.publication();
    let id = status["cluster"].as_str().unwrap();
    assert!(!is_well && id != id_of_name().to_string(), "{status}");
    assert_eq!(status["shards"][0]["cursor"]["cluster"], id_of_name().to_string());
    // What it decides until then waits.
    ended(new.propose("after", 400));
    let mine = ["--cluster-id", id, "--from", "kept", "--yes"];
    let refused = new.publish_refused(&[&["reset"], &mine[..]].concat());
    assert!(refused.contains("isonomy publish adopt"), "{refused}");
    let refused = new.publish_refused(&[&["adopt", "0123456789abcdef0123456789abcdef"], &mine[..]].concat());
    assert!(
        refused.contains("not of 0123456789abcdef") && refused.contains("nothing was changed"),
        "{refused}"
    );
    let done = new.publish_ok(&[&["adopt", &id_of_name().to_string()], &mine[..]].concat());
    assert!(done.contains("shard 0: done") && done.contains("shard 1: done"), "{done}");

    let all = new.published(700);
    let later: Vec<Vec<Record>> = all
        .iter()
        .map(|records| records.iter().filter(|it| it.value["load"] == "after").cloned().collect())
        .collect();
    assert_continues(&later, 300, 400);
    // Behind what the cluster before has published, whose decisions they follow.
    assert!(check(&all).values().all(|(first, _)| *first == 1));
    // The cluster before leaves the topic alone when it comes back.
    let all = all.iter().map(Vec::len).sum::<usize>();
    new.stop();
    old.start();
    old.wait_trouble(&format!("isonomy publish adopt {id} --shard 0 --from kept"));
    ended(old.propose("late", 100));
    assert_eq!((0..2).map(|shard| old.read(shard).len()).sum::<usize>(), all);
}
