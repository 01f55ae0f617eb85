//! What happens to topics while a cluster publishes to them.

use crate::support::{Cluster, eventually, program, stderr, stdout};
use crate::world::{World, check, check_all, ended};
use std::collections::BTreeMap;

const LOAD: usize = 50_000;
/// How many lines follow, so that something is to be published however fast the load was.
const MORE: usize = 1000;

#[test]
fn a_topic_that_is_deleted_and_made_again_under_load_gets_the_rest() {
    let world = World::started(1);
    world.wait_publisher(0);
    let load = world.propose("a", LOAD);
    eventually("a part of it", || !world.read(0).is_empty());
    world.create_again();
    ended(world.propose("b", MORE));
    world.wait_trouble("isonomy publish reset --shard 0 --from cursor");
    let told = world.publish_ok(&["reset", "--shard", "0", "--from", "cursor", "--yes"]);
    assert!(told.contains("left out: nothing") && told.contains("comes twice: nothing"), "{told}");
    ended(load);
    let of = |lines: usize, place: usize| (lines - place).div_ceil(97) as u64;
    let expected = |key: &str| {
        let place = key.trim_start_matches("k-").parse().unwrap();
        of(LOAD, place) + of(MORE, place)
    };
    let mut keys = BTreeMap::new();
    eventually("the last decision of each key", || {
        keys = check(&[world.read(0)]);
        keys.len() == 97 && keys.iter().all(|(key, (_, last))| *last == expected(key))
    });
    assert!(keys.values().any(|(first, _)| *first > 1), "the topic before had the first decisions");
    eventually("all well", || world.publication().0);
}

/// Without a replica, and without Kafka, the other half is shown.
#[test]
fn the_status_tells_what_can_be_told() {
    let mut world = World::started(1);
    let publisher = world.wait_publisher(0);
    ended(world.propose("a", 100));
    check_all(&world.published(100), &[("a", 100)]);
    let (is_well, status) = world.publication();
    assert!(is_well, "{status}");
    assert_eq!(
        (&status["topics"][0]["topic"], &status["topics"][1]["unfit"]),
        (&world.topic.clone().into(), &().into())
    );
    let shard = &status["shards"][0];
    assert_eq!(shard["publishers"], serde_json::json!([publisher]));
    assert_eq!(shard["cursor"]["topic_id"], status["topics"][0]["id"]);
    assert!(
        shard["end"].as_u64().unwrap() > 100 && shard["replicas"][2]["publishing"].is_object(),
        "{status}"
    );
    let table = world.publish_ok(&["status"]);
    assert!(table.contains("fit") && table.contains("publishes  waiting"), "{table}");

    let output = world.publish(&["reset", "--shard", "7", "--from", "now"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("no shard 7"), "{}", stderr(&output));
    world.stop();
    let (is_well, status) = world.publication();
    assert!(!is_well && status["silent"].as_array().unwrap().len() == 3, "{status}");
    assert!(status["shards"][0]["cursor"].is_object(), "{status}");
    let refused = world.publish_refused(&["reset", "--from", "now", "--yes"]);
    assert!(refused.contains("no replica of cluster"), "{refused}");
    let cluster = Cluster::prepare_with(1, 1, "[publish]\nto = \"file\"\n");
    let output =
        program().args(["publish", "status", "--config"]).arg(cluster.config_path(0)).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}{}", stdout(&output), stderr(&output));
}
