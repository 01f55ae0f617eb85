//! Real replicas that are killed and paused at random for as long as is asked, or lose their power, under
//! clients that repeat what is not answered. In the end nothing that was acknowledged is missing, doubled
//! or out of order, and all replicas are equal.

#[path = "chaos/check.rs"]
mod check;
#[path = "chaos/faults.rs"]
mod faults;
#[path = "chaos/history.rs"]
mod history;
#[path = "chaos/load.rs"]
mod load;
#[path = "chaos/paused.rs"]
mod paused;
#[path = "chaos/search.rs"]
mod search;
mod support;
#[path = "support/volatile.rs"]
mod volatile;
#[path = "chaos/witness.rs"]
mod witness;

use check::Verdict;
use faults::{Faults, Tally, wait_whole};
use load::{Key, Load, Progress, Style};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::time::{Duration, Instant};
use support::{Cluster, PATIENCE};
use volatile::VolatileDisk;

/// How long without a word about it.
const SECONDS: u64 = 15;
/// From so many seconds on the cost of a paused replica is measured too.
const MEASURE_FROM_SECONDS: u64 = 60;
const SHARDS: u16 = 2;
/// The least there may be, so that snapshots are taken, logs cut and snapshots fetched all the time.
/// `ISONOMY_LOG_BUDGET_MIB` wins.
const CONFIG: &str = "log_budget_mib = 64\n";
/// Few keys and many routes, so that commands meet; clients that come and go. The machine is not to
/// be full, so that what was killed catches up.
const STYLE: Style = Style {
    keys_open: 16,
    commands_per_client: 8,
    pause: Duration::from_millis(10),
    client_life_max: Duration::from_secs(8),
    varied: true,
};

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// Kills and pauses for so long; what the clients were told.
fn torment(
    cluster: &mut Cluster,
    disks: &[VolatileDisk],
    seconds: u64,
    seed: u64,
) -> (Vec<Key>, Progress, Tally) {
    let load = Load::start(cluster.addresses(), "torn", STYLE, seed);
    let mut faults = Faults::new(SmallRng::seed_from_u64(seed), disks);
    // Chance rarely leaves a replica behind for so long, or ends all of them in a short run.
    faults.leave_behind(cluster);
    faults.end_all(cluster);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        faults.round(cluster, || load.progress().decided);
    }
    wait_whole(cluster, || load.progress().decided);
    let (keys, progress) = load.finish(&cluster.addresses());
    (keys, progress, faults.tally)
}

/// Judges all keys; what speaks against one is kept beside the replicas' files.
fn judge(cluster: &Cluster, keys: &[Key], verdict: &mut Verdict) {
    for key in keys {
        let Err(evidence) = verdict.add(&key.name, &key.ops) else { continue };
        std::fs::write(cluster.dir.path().join("evidence.txt"), &evidence).unwrap();
        panic!("{}", evidence.lines().next().unwrap_or_default());
    }
}

/// Measures what the pause of a replica costs, and judges what was told meanwhile.
fn pause(cluster: &mut Cluster, replica: usize, seed: u64, verdict: &mut Verdict) {
    let (cost, keys) = paused::measure(cluster, replica, seed);
    cluster.wait_agreed();
    let percent = |rate| 100.0 * rate / cost.all;
    println!(
        "replica {replica} paused: of {:.0} answers per second {:.0} % to clients that spoke to it, {:.0} % to later ones",
        cost.all,
        percent(cost.paused),
        percent(cost.avoided)
    );
    judge(cluster, &keys, verdict);
}

#[test]
fn nothing_acknowledged_is_lost_doubled_or_out_of_order() {
    let seconds = setting("ISONOMY_CHAOS_SECONDS").unwrap_or(SECONDS);
    let cluster = Cluster::start_with(3, SHARDS, CONFIG);
    run(cluster, &[], seconds);
}

/// Whoever is killed forgets what was not synced.
#[test]
fn nothing_acknowledged_is_lost_without_power() {
    let seconds = setting("ISONOMY_CHAOS_SECONDS").unwrap_or(SECONDS);
    let mut cluster = Cluster::prepare_with(3, 1, CONFIG);
    let mounted: Option<Vec<_>> = (0..3).map(|it| VolatileDisk::mount(cluster.data_dir(it))).collect();
    let Some(disks) = mounted else {
        println!("skipped: this machine mounts no FUSE for the test");
        return;
    };
    (0..3).for_each(|index| cluster.spawn(index));
    cluster.wait_linked();
    run(cluster, &disks, seconds);
}

fn run(mut cluster: Cluster, disks: &[VolatileDisk], seconds: u64) {
    let seed = setting("ISONOMY_CHAOS_SEED").unwrap_or_else(rand::random);
    // All files stay if the test fails.
    cluster.dir.disable_cleanup(true);
    println!("{seconds} s in {}", cluster.dir.path().display());
    println!("ISONOMY_CHAOS_SEED={seed} repeats what is done, not what comes of it");
    let mut verdict = Verdict::default();

    let (keys, progress, tally) = torment(&mut cluster, disks, seconds, seed);
    cluster.wait_agreed();
    println!(
        "{} rounds: {} replicas killed, {} of them in a transfer, {} times all of them; {} pauses; {} changes forgotten",
        tally.rounds, tally.killed, tally.interrupted, tally.killed_all, tally.paused, tally.forgotten
    );
    println!(
        "{} answers; the slowest took {:?}, the longest silence {:?}",
        progress.answered, progress.slowest, progress.silence
    );
    assert_met(&cluster, &tally, &progress);
    judge(&cluster, &keys, &mut verdict);

    if seconds >= MEASURE_FROM_SECONDS && disks.is_empty() {
        let seed = seed.rotate_left(1);
        (0..3).for_each(|replica| pause(&mut cluster, replica, seed, &mut verdict));
    }
    println!(
        "{} operations on {} keys are linearizable; without an answer {}, certainly without effect {}; \
         undecided keys {}, the slowest search {:?}",
        verdict.ops, verdict.keys, verdict.unknown, verdict.nothing, verdict.undecided, verdict.slowest
    );
    assert_eq!(verdict.undecided, 0, "the search of each key ends");
    cluster.dir.disable_cleanup(false);
}

/// A run that has not met what it is for proves nothing about it.
fn assert_met(cluster: &Cluster, tally: &Tally, progress: &Progress) {
    let logged = |what| (0..3).map(|index| cluster.log(index).matches(what).count()).sum::<usize>();
    let (taken, installed) = (logged(": wrote the snapshot at barrier"), logged(": installed the snapshot"));
    let first_segments: Vec<_> =
        (0..3).map(|index| cluster.shard_files(index, 0, "log")[0].clone()).collect();
    println!("{taken} snapshots taken, {installed} of peers installed; logs begin at {first_segments:?}");
    assert!(taken > 0 && installed > 0 && tally.interrupted > 0 && progress.answered > 0);
    let is_cut = |path: &std::path::PathBuf| !path.ends_with("000000000001.log");
    assert!(first_segments.iter().all(is_cut), "all have cut their logs");
    assert!(progress.slowest < PATIENCE, "no command waits until its client gives up");
}
