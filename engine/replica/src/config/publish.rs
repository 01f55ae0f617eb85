//! Where the decisions are published: the table `[publish]`.

use crate::fatal::Fatal;
use clap::ValueEnum;
use isonomy_kafka::settings::Settings as KafkaSettings;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

use super::bad;

/// The default size of an outbox that is nobody's backlog, in MiB.
pub(crate) const RETAIN_MIB: u64 = 1024;
/// The default size of what may wait for publication, in MiB.
pub(crate) const BACKLOG_MIB: u64 = 4096;

/// Where decisions are published.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Target {
    /// Files in the data directory, which `isonomy tail` prints
    File,
    /// A topic of Kafka
    Kafka,
}

/// The table `[publish]` of the configuration file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PublishFile {
    to: Option<Target>,
    retain_mib: Option<u64>,
    backlog_mib: Option<u64>,
    #[serde(flatten)]
    kafka: KafkaFile,
}

/// The keys of the table that are about Kafka.
#[derive(Default, Deserialize)]
struct KafkaFile {
    brokers: Option<Vec<String>>,
    topic: Option<String>,
    cursor_topic: Option<String>,
    format: Option<String>,
    batch_kib: Option<usize>,
    batch_ms: Option<u64>,
    replicas_min: Option<usize>,
    insync_min: Option<usize>,
    #[serde(default)]
    rdkafka: BTreeMap<String, toml::Value>,
}

/// How the decisions are published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Publish {
    pub(crate) to: PublishTo,
    /// The bytes of decisions that may wait for publication in each shard before it refuses clients.
    pub(crate) backlog: u64,
}

/// Where to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum PublishTo {
    /// Files, of which each shard keeps so many bytes.
    Files(u64),
    /// A topic.
    Kafka(Box<KafkaSettings>),
}

/// Joins the flag and the file.
pub(super) fn join(to: Option<Target>, file: PublishFile) -> Result<Option<Publish>, Fatal> {
    let PublishFile { to: chosen, retain_mib, backlog_mib, kafka } = file;
    let Some(to) = to.or(chosen) else {
        return match (retain_mib, backlog_mib, kafka.is_empty()) {
            (None, None, true) => Ok(None),
            _ => Err(bad(
                "the table `publish` does not say where to; set `to` to \"file\" or \"kafka\"".into()
            )),
        };
    };
    let bytes = |mib: u64, name: &str| match mib {
        0 => Err(bad(format!("`publish.{name}` is 0; nothing could be kept"))),
        _ => Ok(mib.saturating_mul(1 << 20)),
    };
    let backlog = bytes(backlog_mib.unwrap_or(BACKLOG_MIB), "backlog_mib")?;
    let to = match (to, retain_mib) {
        (Target::Kafka, Some(_)) => {
            return Err(bad(
                "`publish.retain_mib` is for files; what waits for Kafka is bounded by `publish.backlog_mib`"
                    .into(),
            ));
        }
        (Target::File, _) if !kafka.is_empty() => {
            return Err(bad(
                "the table `publish` names Kafka, and `to` is \"file\"; leave one of them out".into()
            ));
        }
        (Target::File, retain) => PublishTo::Files(bytes(retain.unwrap_or(RETAIN_MIB), "retain_mib")?),
        (Target::Kafka, None) => PublishTo::Kafka(Box::new(kafka.settings()?)),
    };
    Ok(Some(Publish { to, backlog }))
}

impl KafkaFile {
    fn is_empty(&self) -> bool {
        let KafkaFile {
            brokers,
            topic,
            cursor_topic,
            format,
            batch_kib,
            batch_ms,
            replicas_min,
            insync_min,
            rdkafka,
        } = self;
        let texts = [topic, cursor_topic, format].into_iter().all(Option::is_none);
        let numbers = [batch_kib, replicas_min, insync_min].into_iter().all(Option::is_none);
        brokers.is_none() && texts && numbers && batch_ms.is_none() && rdkafka.is_empty()
    }

    fn settings(self) -> Result<KafkaSettings, Fatal> {
        let usual = KafkaSettings::default();
        let wrong = |why: isonomy_kafka::settings::BadSettings| bad(format!("publish: {why}"));
        let settings = KafkaSettings {
            brokers: self.brokers.unwrap_or_default().join(","),
            topic: self.topic.unwrap_or(usual.topic),
            cursor_topic: self.cursor_topic.unwrap_or(usual.cursor_topic),
            format: self.format.map_or(Ok(usual.format), |format| format.parse()).map_err(wrong)?,
            batch_bytes: self.batch_kib.map_or(usual.batch_bytes, |kib| kib.saturating_mul(1 << 10)),
            batch_time: self.batch_ms.map_or(usual.batch_time, Duration::from_millis),
            replicas_min: self.replicas_min.unwrap_or(usual.replicas_min),
            insync_min: self.insync_min.unwrap_or(usual.insync_min),
            properties: properties_of(self.rdkafka),
        };
        settings.check().map_err(wrong)?;
        Ok(settings)
    }
}

/// librdkafka takes all properties as text.
pub(super) fn properties_of(table: BTreeMap<String, toml::Value>) -> BTreeMap<String, String> {
    let text = |value| match value {
        toml::Value::String(text) => text,
        other => other.to_string(),
    };
    table.into_iter().map(|(name, value)| (name, text(value))).collect()
}
