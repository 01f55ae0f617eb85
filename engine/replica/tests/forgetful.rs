//! That answers wait for the disk: real replicas on a disk that forgets what was not synced, fails, writes
//! short or stands still. As root, where FUSE is.

mod support;
#[path = "support/volatile.rs"]
mod volatile;

use isonomy_wire::client::Client;
use isonomy_wire::id::ReplicaId;
use isonomy_wire::route::{hash_key, home_of};
use std::time::Duration;
use support::{Cluster, program, stderr};
use volatile::{Fault, VolatileDisk};

/// The disk failed.
const DISK: i32 = 7;
/// How long an answer that must not come is waited for.
const WRONG_ANSWER: Duration = Duration::from_millis(500);

/// A cluster whose replicas have such disks, where that is possible.
fn cluster(replicas: usize) -> Option<(Cluster, Vec<VolatileDisk>)> {
    let mut cluster = Cluster::prepare(replicas, 1);
    let mounted: Option<Vec<_>> = (0..replicas).map(|it| VolatileDisk::mount(cluster.data_dir(it))).collect();
    let Some(disks) = mounted else {
        println!("skipped: this machine mounts no FUSE for the test");
        return None;
    };
    (0..replicas).for_each(|index| cluster.spawn(index));
    cluster.wait_linked();
    Some((cluster, disks))
}

fn decide(cluster: &Cluster, key: &str, deadline: &str) -> std::process::Output {
    let connect = cluster.addresses().join(",");
    program().args(["propose", "--connect", &connect, "--deadline", deadline, key, "v"]).output().unwrap()
}

/// A key of this home, so that this replica coordinates its decisions.
fn key_of(home: u8, number: u32) -> String {
    let keys = (0..).map(|each| format!("{number}-{each}"));
    keys.into_iter().find(|key| home_of(hash_key(key.as_bytes()), 3) == ReplicaId(home)).unwrap()
}

/// An answer before the write of those who promise would come at once.
#[test]
fn no_answer_comes_while_the_writes_of_a_majority_stand_still() {
    let Some((cluster, disks)) = cluster(3) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::connect(&cluster.addresses()).await.unwrap();
        for home in 0..3 {
            // The session is open before anything stands still.
            client.decide(key_of(home, 0), "v").await.unwrap();
            let others = || (0..3).filter(|index| *index != usize::from(home)).map(|index| &disks[index]);
            others().for_each(|disk| disk.set_fault(Fault::Stall));
            let asked = client.clone();
            let mut decision = tokio::spawn(async move { asked.decide(key_of(home, 1), "v").await });
            while others().any(|disk| disk.stalled() == 0) && !decision.is_finished() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let early = tokio::time::timeout(WRONG_ANSWER, &mut decision).await;
            assert!(early.is_err(), "the answer of replica {home} rests on no other disk: {early:?}");
            others().for_each(|disk| disk.set_fault(Fault::None));
            decision.await.unwrap().unwrap();
        }
        client.close().await;
    });
}

/// A write that fails, ends short or is not synced stops the replica, and nothing acknowledged is lost.
#[test]
fn a_write_that_is_not_whole_and_synced_stops_the_replica() {
    let Some((mut cluster, disks)) = cluster(3) else { return };
    for (fault, what) in
        [(Fault::Error, "os error 5"), (Fault::Short, " bytes were written"), (Fault::Sync, "os error 5")]
    {
        disks[1].set_fault(fault);
        for number in 0..20 {
            let decided = decide(&cluster, &format!("{fault:?}-{number}"), "20");
            assert!(decided.status.success(), "{fault:?}: {}", stderr(&decided));
        }
        assert_eq!(cluster.wait_ended(1), Some(DISK), "{fault:?}");
        assert!(cluster.log(1).contains(what), "{fault:?}: {}", cluster.log(1));
        disks[1].set_fault(Fault::None);
        cluster.spawn(1);
        cluster.wait_linked();
        cluster.wait_agreed();
    }
}
