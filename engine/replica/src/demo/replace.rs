//! A replica loses its data directory under load, and comes back as a new incarnation by `isonomy member replace`.

use super::cluster::Cluster;
use super::report::{Replaced, Report};
use super::{LOOK_EVERY, LoadOnOthers, PATIENCE, PAUSE_MAX, catch_up, errors_of, say, statuses};
use anyhow::{Context, Result, bail};
use std::time::{Duration, Instant};

/// The load during the replacement: the seconds before the directory is removed, and after the replica is whole again.
const LOAD_SECONDS: [u64; 2] = [2, 3];
/// How many seconds the load lasts. A replacement that takes longer is seen to its end without load.
const LOAD_SECONDS_MAX: u64 = 20;

/// Takes the directory of a replica away under load, and replaces the member.
pub(super) async fn replace_one(
    victim: usize,
    cluster: &mut Cluster,
    rate: f64,
    report: &mut Report,
) -> Result<()> {
    let load = LoadOnOthers::start(cluster, victim, rate, LOAD_SECONDS_MAX).await?;
    let LoadOnOthers { survivors, addresses, running, probers } = load;
    say(&format!("the data directory of replica {victim} is lost"));
    let [before, after] = LOAD_SECONDS.map(Duration::from_secs);
    tokio::time::sleep(before).await;
    cluster.kill(victim)?;
    cluster.wipe(victim)?;
    probers.take_worst();
    let began = Instant::now();
    say(&format!("isonomy member replace {victim}"));
    cluster.member(&["replace", &victim.to_string(), "--no-wait"])?;
    cluster.spawn(victim)?;
    let epoch = wait_for_next_epoch(cluster, &addresses).await?;
    let caught_up = catch_up(cluster, victim, &survivors).await?;
    let took = began.elapsed();
    tokio::time::sleep(after).await;
    let pause = probers.finish().await.context("a client of the other replicas got an error")?;
    let figures = running.finish().await?;
    let (none, errors) = errors_of(&figures);
    report.check("no request failed while the members changed", none, errors);
    report.check_pause("the others went on while the members changed", pause, PAUSE_MAX);
    let detail = match caught_up {
        Some(_) => format!("epoch {epoch}, {:.1} s after its directory was lost", took.as_secs_f64()),
        None => format!("the replica did not catch up within {PATIENCE:?}"),
    };
    report.check("the replaced replica is whole again", caught_up.is_some(), detail);
    report.replaced = Some(Replaced { epoch, pause, whole_after: caught_up.map(|_| took) });
    Ok(())
}

/// Waits until all of these replicas have left the first epoch. Returns the epoch in which they are.
async fn wait_for_next_epoch(cluster: &mut Cluster, addresses: &[String]) -> Result<u32> {
    let began = Instant::now();
    loop {
        cluster.check_running()?;
        let all = statuses(addresses).await.unwrap_or_default();
        let epochs: Vec<u32> = all.iter().flatten().map(|shard| shard.epoch.0).collect();
        match epochs.iter().min() {
            Some(epoch) if *epoch > 1 => return Ok(*epoch),
            _ if began.elapsed() > PATIENCE => {
                bail!(
                    "the members have not changed after {PATIENCE:?}; see `isonomy member list`, with --keep"
                )
            }
            _ => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}
