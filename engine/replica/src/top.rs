//! `isonomy top`: how replicas stand, again and again.

use crate::commands::{ConnectArgs, block_on};
use crate::fatal::Fatal;
use crate::out;
use crate::status::{ReplicaStatus, ask_all};
use anyhow::ensure;
use clap::Args;
use isonomy_wire::id::{InstanceId, ReplicaId};
use isonomy_wire::latency::Latency;
use isonomy_wire::message::ShardStatus;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, stdout};
use std::time::{Duration, Instant};

/// The most lines for shards, those with the most decisions. A terminal has no room for more.
const SHARDS_SHOWN: usize = 16;
/// The width of a line of the frame.
const LINE_CHARS: usize = 108;
/// A line of a frame ends here: the rest of what stood there goes.
const LINE_END: &str = "\x1b[K\n";

/// `isonomy top`
#[derive(Args, Debug)]
#[command(after_help = "\
Example: isonomy top --connect 10.0.0.1:7400,10.0.0.2:7400,10.0.0.3:7400

Rates and times are those since the frame before. If standard output is no terminal, or with --once, the command prints
one frame, over one such period, and ends with code 1 if no replica gave a status. Otherwise the command runs until it
is interrupted.")]
pub(crate) struct TopArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// The time between two frames
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    /// Print one frame and end
    #[arg(long)]
    once: bool,
}

/// Shows one frame after the other, or one.
pub(crate) fn run(args: &TopArgs) -> Result<(), Fatal> {
    let addresses = &args.connect.connect;
    let is_live = !args.once && stdout().is_terminal();
    block_on(async {
        let mut before = Reading::take(args).await;
        if is_live {
            out::print_bytes(b"\x1b[2J")?;
        }
        loop {
            tokio::time::sleep(Duration::from_secs(args.every)).await;
            let now = Reading::take(args).await;
            let text = frame(addresses, &before, &now);
            if !is_live {
                out::print(text)?;
                let is_any = now.answers.iter().any(Result::is_ok);
                ensure!(is_any, "none of {} replicas gave a status; see above", addresses.len());
                return Ok(());
            }
            // From the top, without a break of long lines, and nothing of the frame before stays.
            let lines = text.replace('\n', LINE_END);
            out::print_bytes(format!("\x1b[?7l\x1b[H{lines}{LINE_END}\x1b[J\x1b[?7h").as_bytes())?;
            before = now;
        }
    })
}

/// What the replicas have answered.
struct Reading {
    at: Instant,
    answers: Vec<ReplicaStatus>,
}

impl Reading {
    async fn take(args: &TopArgs) -> Reading {
        let answers = ask_all(&args.connect.connect, args.connect.cluster).await;
        Reading { at: Instant::now(), answers }
    }

    fn shards(&self, replica: usize) -> &[ShardStatus] {
        self.answers[replica].as_ref().map_or(&[], |(_, shards)| shards)
    }
}

/// What was counted between two readings.
#[derive(Default)]
struct Counted {
    decisions: u64,
    proposals: u64,
    fast: u64,
    slow: u64,
    latency: Latency,
}

impl Counted {
    /// In a shard. One that has begun anew has counted all of it since.
    fn of(before: Option<&ShardStatus>, now: &ShardStatus) -> Counted {
        let none = ShardStatus::default();
        let before = before.filter(|it| it.decisions <= now.decisions && it.proposals <= now.proposals);
        let before = before.unwrap_or(&none);
        Counted {
            decisions: now.decisions - before.decisions,
            proposals: now.proposals - before.proposals,
            fast: now.fast.saturating_sub(before.fast),
            slow: now.slow.saturating_sub(before.slow),
            latency: now.latency.since(&before.latency),
        }
    }

    fn add(&mut self, other: &Counted) {
        self.decisions += other.decisions;
        self.proposals += other.proposals;
        self.fast += other.fast;
        self.slow += other.slow;
        self.latency.add(&other.latency);
    }

    fn fast_share(&self) -> String {
        match self.fast + self.slow {
            0 => "-".into(),
            all => format!("{:.1} %", 100.0 * self.fast as f64 / all as f64),
        }
    }

    fn quantile(&self, share: f64) -> String {
        self.latency.quantile_us(share).map_or("-".into(), time)
    }
}

/// What two readings show.
fn frame(addresses: &[String], before: &Reading, now: &Reading) -> String {
    let seconds = now.at.saturating_duration_since(before.at).as_secs_f64();
    let rate = |count: u64| format!("{:.0}", count as f64 / seconds);
    let mut text = head(now);
    text += "\n\nreplica  address                 decisions/s  commands/s       p50       p99     fast  open  behind  log  state";
    for (index, address) in addresses.iter().enumerate() {
        let shards = now.shards(index);
        let counted = shards.iter().fold(Counted::default(), |mut all, shard| {
            all.add(&Counted::of(same(before.shards(index), shard), shard));
            all
        });
        match &now.answers[index] {
            Ok((welcome, _)) => write!(
                text,
                "\n{:<7}  {address:<22}  {:>11}  {:>10}  {:>8}  {:>8}  {:>7}  {:>4}  {:>6}  {:>3}  {}",
                place(welcome.replica, welcome.is_member()),
                rate(counted.decisions),
                rate(counted.proposals),
                counted.quantile(0.5),
                counted.quantile(0.99),
                counted.fast_share(),
                shards.iter().map(|it| it.unexecuted).sum::<u64>(),
                behind(now, welcome.replica),
                log_share(shards),
                state(welcome.members.len(), shards),
            ),
            Err(error) => write!(text, "\n{:<7}  {address:<22}  NO STATUS: {error}", "?"),
        }
        .expect("writing to memory cannot fail");
    }
    text += &shard_lines(before, now, rate);
    text + &wait_lines(now)
}

fn head(now: &Reading) -> String {
    match now.answers.iter().flatten().next() {
        None => "isonomy top: no replica answers".into(),
        Some((welcome, _)) => format!(
            "isonomy top   cluster {}   epoch {}   {} members, {} shards   durability {}",
            welcome.cluster,
            welcome.epoch.0,
            welcome.members.len(),
            welcome.shards,
            if welcome.durable { "fsync" } else { "os" }
        ),
    }
}

fn place(replica: ReplicaId, is_member: bool) -> String {
    if is_member { replica.to_string() } else { "none".into() }
}

/// The status of the same shard of the same replica.
fn same<'a>(shards: &'a [ShardStatus], shard: &ShardStatus) -> Option<&'a ShardStatus> {
    shards.iter().find(|it| (it.replica, it.shard) == (shard.replica, shard.shard))
}

/// How many instances the others have executed and this replica has not, as the others know it.
fn behind(now: &Reading, replica: ReplicaId) -> String {
    let told = |(_, shards): &(_, Vec<ShardStatus>)| {
        let peers = shards.iter().flat_map(|shard| &shard.peers).filter(|peer| peer.replica == replica);
        peers.filter_map(|peer| peer.behind).reduce(|one, other| one + other)
    };
    let most = now.answers.iter().flatten().filter_map(told).max();
    most.map_or("-".into(), |most| most.to_string())
}

/// The share of its budget that the log of a shard has at most.
fn log_share(shards: &[ShardStatus]) -> String {
    let share = |it: &ShardStatus| 100 * it.log_held_bytes / it.log_budget_bytes.max(1);
    shards.iter().map(share).max().map_or("-".into(), |share| format!("{share}%"))
}

/// What is wrong with a replica, in a word or two.
fn state(members: usize, shards: &[ShardStatus]) -> String {
    let has = |is: &dyn Fn(&ShardStatus) -> bool| shards.iter().any(is);
    let reached = shards.iter().map(|it| it.peers_connected.len() + 1).min().unwrap_or(0);
    if has(&|it| it.disk_hung_ms > 0) {
        "DISK HANGS".into()
    } else if reached < members / 2 + 1 {
        "NO MAJORITY".into()
    } else if has(&|it| it.is_learner) {
        "learns".into()
    } else if has(&|it| {
        let publishing = it.publishing.as_ref().is_some_and(|it| !it.trouble.is_empty());
        let consuming = it.consuming.as_ref().is_some_and(|it| !it.trouble.is_empty());
        publishing || consuming || !it.snapshot_trouble.is_empty() || !it.tuning_trouble.is_empty()
    }) {
        "TROUBLE, see isonomy status".into()
    } else if reached < members {
        format!("reaches {reached} of {members}")
    } else if has(&|it| it.path.is_slow) {
        "slow path".into()
    } else {
        "ok".into()
    }
}

/// A line for each shard: what the first replica that answers knows of it.
fn shard_lines(before: &Reading, now: &Reading, rate: impl Fn(u64) -> String) -> String {
    let Some(index) = now.answers.iter().position(Result::is_ok) else { return String::new() };
    let counted = |shard| (Counted::of(same(before.shards(index), shard), shard), shard);
    let mut shards: Vec<(Counted, &ShardStatus)> = now.shards(index).iter().map(counted).collect();
    let hidden = shards.len().saturating_sub(SHARDS_SHOWN);
    if hidden > 0 {
        shards.sort_by_key(|(counted, _)| std::cmp::Reverse(counted.decisions));
        shards.truncate(SHARDS_SHOWN);
    }
    let mut text = format!(
        "\n\nshard    of {:<19}  decisions/s  keys              p50       p99     fast  open  clients",
        format!("replica {}", shards[0].1.replica)
    );
    for (counted, shard) in shards {
        write!(
            text,
            "\n{:<30}  {:>12}  {:<10}  {:>8}  {:>8}  {:>7}  {:>4}  {}",
            shard.shard.0,
            rate(counted.decisions),
            shard.keys,
            counted.quantile(0.5),
            counted.quantile(0.99),
            counted.fast_share(),
            shard.unexecuted,
            shard.clients.0,
        )
        .expect("writing to memory cannot fail");
    }
    if hidden > 0 {
        write!(text, "\nand {hidden} more with fewer decisions").expect("writing to memory cannot fail");
    }
    text
}

/// Who waits for the instances of whom.
fn wait_lines(now: &Reading) -> String {
    let mut text = "\n".to_owned();
    for shard in now.answers.iter().flatten().flat_map(|(_, shards)| shards) {
        let mut rows: BTreeMap<ReplicaId, Vec<&InstanceId>> = BTreeMap::new();
        shard.waiting_on.iter().for_each(|id| rows.entry(id.row).or_default().push(id));
        for (row, ids) in rows {
            let mut line =
                format!("replica {} shard {} waits for replica {row}: {ids:?}", shard.replica, shard.shard.0);
            line.truncate(LINE_CHARS);
            text = text + "\n" + &line;
        }
    }
    if text == "\n" { text + "\nnobody waits" } else { text }
}

fn time(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isonomy_wire::client::ConnectError;
    use isonomy_wire::id::{ClusterId, Epoch, ShardId};
    use isonomy_wire::latency::Bucket;
    use isonomy_wire::message::{Member, PeerStatus, Welcome};

    fn welcome(replica: u8) -> Welcome {
        let members = vec![Member { host: "db".into(), client_base: 7400 }; 3];
        Welcome {
            cluster: ClusterId(5),
            epoch: Epoch(4),
            replica: ReplicaId(replica),
            shards: 1,
            members,
            durable: true,
        }
    }

    fn status(replica: u8, decisions: u64, peers: &[u8]) -> ShardStatus {
        ShardStatus {
            replica: ReplicaId(replica),
            shard: ShardId(0),
            decisions,
            fast: decisions / 10,
            latency: Latency { buckets: vec![Bucket { upto_us: 1_500, count: decisions }], sum_us: 0 },
            peers_connected: peers.iter().map(|peer| ReplicaId(*peer)).collect(),
            ..ShardStatus::default()
        }
    }

    fn reading(at: Instant, answers: Vec<ReplicaStatus>) -> Reading {
        Reading { at, answers }
    }

    fn of(status: ShardStatus) -> ReplicaStatus {
        Ok((welcome(status.replica.0), vec![status]))
    }

    fn gone() -> ReplicaStatus {
        Err(ConnectError::Address("nothing".into()))
    }

    fn frame_of(before: Vec<ReplicaStatus>, now: Vec<ReplicaStatus>) -> String {
        let addresses: Vec<String> = (0..now.len()).map(|it| format!("10.0.0.{it}:7400")).collect();
        let start = Instant::now();
        frame(&addresses, &reading(start, before), &reading(start + Duration::from_secs(2), now))
    }

    #[test]
    fn rates_and_times_are_those_since_the_frame_before() {
        let text = frame_of(vec![of(status(0, 1_000, &[1, 2]))], vec![of(status(0, 5_000, &[1, 2]))]);
        let line = text.lines().find(|line| line.contains("10.0.0.0:7400")).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[..4], ["0", "10.0.0.0:7400", "2000", "0"], "{text}");
        assert!(line.contains("1.5 ms") && line.contains("100.0 %") && line.ends_with("ok"), "{text}");
        assert!(text.ends_with("nobody waits"));
        // A replica that was started again has decided all of it since.
        let text = frame_of(vec![of(status(0, 9_000, &[1, 2]))], vec![of(status(0, 10, &[1, 2]))]);
        assert!(text.contains("0.0:7400                     5 "), "{text}");
    }

    #[test]
    fn whoever_is_in_trouble_or_does_not_answer_is_told() {
        let waits =
            ShardStatus { waiting_on: vec![InstanceId { row: ReplicaId(2), seq: 7 }], ..status(0, 5, &[1]) };
        let behind = PeerStatus { replica: ReplicaId(1), behind: Some(321), ..PeerStatus::default() };
        let now = || {
            let first = ShardStatus { peers: vec![behind.clone()], ..waits.clone() };
            vec![of(first), of(status(1, 5, &[])), gone()]
        };
        let text = frame_of(now(), now());
        let state =
            |replica: usize| text.lines().find(|it| it.contains(&format!("10.0.0.{replica}:"))).unwrap();
        assert!(state(0).ends_with("reaches 2 of 3"), "{text}");
        assert!(state(1).ends_with("NO MAJORITY") && state(1).contains(" 321 "), "{text}");
        assert!(state(2).contains("NO STATUS"), "{text}");
        assert!(text.ends_with("replica 0 shard 0 waits for replica 2: [2.7]"), "{text}");
        assert!(frame_of(vec![gone()], vec![gone()]).starts_with("isonomy top: no replica answers"));
    }
}
