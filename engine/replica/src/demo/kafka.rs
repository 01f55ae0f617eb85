//! A Kafka of the demo's own, and the pipeline through it: events, decisions, and a plain consumer that checks them.

use super::cluster::Cluster;
use super::report::{Pipeline, Report};
use super::{DemoArgs, say};
use anyhow::{Context, Result, bail};
use isonomy_kafka::create_topics;
use isonomy_kafka::settings::{Format, Settings};
use isonomy_kafka::trial::{Trial, TrialError, TrialReader};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The partitions of the topics that the demo makes, but for that of the decisions, which has one for each shard.
const PARTITIONS: usize = 4;
/// The topic that shows what Kafka does alone.
const PLAIN: &str = "plain";
const PROPOSALS: &str = "proposal";
/// The events before the measurement: until they are through, consumers and publishers have begun.
const WARMUP_EVENTS: u64 = 10_000;
/// How long a replica is down while events flow.
const DOWN: Duration = Duration::from_secs(2);

/// The broker, which ends when the value is dropped.
pub(crate) struct Kafka {
    program: PathBuf,
    dir: PathBuf,
    pub(crate) brokers: String,
    format: Format,
}

/// The tables of a replica's configuration.
#[derive(Serialize)]
pub(crate) struct PublishTable<'a> {
    to: &'static str,
    brokers: [&'a str; 1],
    format: String,
    replicas_min: u8,
    insync_min: u8,
}

#[derive(Serialize)]
pub(crate) struct ConsumeTable<'a> {
    brokers: [&'a str; 1],
    topic: &'static str,
}

impl Kafka {
    /// Starts a Kafka, waits until it serves, and makes the topics.
    pub(crate) fn start(program: &Path, dir: &Path, shards: u16, format: Format) -> Result<Kafka> {
        say("a Kafka starts");
        let dir = dir.join("kafka");
        let mut command = Command::new(program);
        command.arg("start").arg(&dir).args(["--while", &std::process::id().to_string()]);
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().with_context(|| {
            format!(
                "{} cannot be started; run the demo in a checkout of the sources, or name deploy/kafka/kafka of one with \
                 --kafka-program",
                program.display()
            )
        })?;
        if !output.status.success() {
            bail!("Kafka has not started; see its message above");
        }
        let brokers = String::from_utf8(output.stdout).context("the address of Kafka is no text")?;
        let kafka = Kafka { program: program.into(), dir, brokers: brokers.trim().into(), format };
        let settings = Settings { brokers: kafka.brokers.clone(), format, ..Settings::default() };
        create_topics(&settings, shards.into(), 1)?;
        [PLAIN, PROPOSALS].iter().try_for_each(|topic| kafka.trial().create(topic, PARTITIONS))?;
        Ok(kafka)
    }

    fn trial(&self) -> Trial {
        Trial { brokers: self.brokers.clone() }
    }

    pub(crate) fn publish(&self) -> PublishTable<'_> {
        let (brokers, format) = ([&self.brokers[..]], self.format.to_string());
        PublishTable { to: "kafka", brokers, format, replicas_min: 1, insync_min: 1 }
    }

    pub(crate) fn consume(&self) -> ConsumeTable<'_> {
        ConsumeTable { brokers: [&self.brokers], topic: PROPOSALS }
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        // It ends with this process in any case.
        let _ = Command::new(&self.program).arg("stop").arg(&self.dir).output();
    }
}

/// Sends events through a topic alone and through the whole pipeline, and checks every decision, also while a replica is
/// killed and returns.
pub(super) async fn run_pipeline(args: &DemoArgs, cluster: &mut Cluster, report: &mut Report) -> Result<()> {
    let Some(kafka) = &cluster.kafka else { return Ok(()) };
    let (trial, format, events) = (kafka.trial(), kafka.format, args.events);
    let shards = usize::from(args.shards);
    say(&format!("{events} events through Kafka alone"));
    let plain = trial.reader(PLAIN, PARTITIONS)?;
    let (alone, _) = send_through(&trial, PLAIN, plain, TrialReader::count_to, events).await?;
    say(&format!("{events} events through the pipeline"));
    let reader = trial.reader(&Settings::default().topic, shards)?;
    let (through, mut reader) = send_through(&trial, PROPOSALS, reader, TrialReader::read_to, events).await?;
    let mut total = WARMUP_EVENTS + events;
    if args.replicas >= 3 {
        say("kill -9 of replica 0 while as many events follow");
        let producing = produce(&trial, PROPOSALS, total..total + events);
        cluster.kill(0)?;
        tokio::time::sleep(DOWN).await;
        cluster.spawn(0)?;
        total += events;
        let reading = tokio::task::spawn_blocking(move || reader.read_to(total));
        producing.await??;
        reading.await??;
    }
    report.pipeline = Some(Pipeline { format, events: total, through, alone });
    let detail = format!(
        "{total} events, each decided once and published once, the events of each key in their order"
    );
    report.check("the consumer of the decisions found them as they must be", true, detail);
    Ok(())
}

/// Sends a few events and then so many to a topic while a reader reads. Returns how many of the latter came in a second.
async fn send_through(
    trial: &Trial,
    topic: &'static str,
    reader: TrialReader,
    read: fn(&mut TrialReader, u64) -> Result<(), TrialError>,
    events: u64,
) -> Result<(f64, TrialReader)> {
    let (mut reader, mut rate) = (reader, 0.0);
    for range in [0..WARMUP_EVENTS, WARMUP_EVENTS..WARMUP_EVENTS + events] {
        let (began, end, count) = (Instant::now(), range.end, range.end - range.start);
        let producing = produce(trial, topic, range);
        let reading = tokio::task::spawn_blocking(move || read(&mut reader, end).map(|()| reader));
        producing.await??;
        reader = reading.await??;
        rate = count as f64 / began.elapsed().as_secs_f64();
    }
    Ok((rate, reader))
}

fn produce(
    trial: &Trial,
    topic: &'static str,
    events: std::ops::Range<u64>,
) -> tokio::task::JoinHandle<Result<(), TrialError>> {
    let trial = trial.clone();
    tokio::task::spawn_blocking(move || trial.produce(topic, events))
}
