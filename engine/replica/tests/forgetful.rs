//! That answers wait for the disk: real replicas on a disk that forgets what was not synced, fails, writes
//! short or stands still. As root, where FUSE is.

mod support;
#[path = "support/volatile.rs"]
mod volatile;

use isonomy_wire::client::Client;
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

/// An answer before the write would come at once.
#[test]
fn no_answer_comes_while_the_writes_of_a_majority_stand_still() {
    let Some((cluster, disks)) = cluster(3) else { return };
    assert!(decide(&cluster, "before", "10").status.success());
    disks.iter().for_each(|disk| disk.set_fault(Fault::Stall));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::connect(&cluster.addresses()).await.unwrap();
        let asked = client.clone();
        let mut decision = tokio::spawn(async move { asked.decide("k", "v").await });
        while disks.iter().filter(|disk| disk.stalled() > 0).count() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let early = tokio::time::timeout(WRONG_ANSWER, &mut decision).await;
        assert!(early.is_err(), "an answer rests on no disk: {early:?}");
        disks.iter().for_each(|disk| disk.set_fault(Fault::None));
        decision.await.unwrap().unwrap();
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
