//! Where proposals are consumed from: the table `[consume]`.

use super::bad;
use super::publish::text_of;
use crate::fatal::Fatal;
use isonomy_kafka::consumer::ConsumerSettings;
use isonomy_wire::id::ClusterId;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The table `[consume]` of the configuration file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConsumeFile {
    #[serde(default)]
    brokers: Vec<String>,
    topic: Option<String>,
    dead_letter_topic: Option<String>,
    group: Option<String>,
    #[serde(default)]
    rdkafka: BTreeMap<String, toml::Value>,
}

/// Where proposals are consumed from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Consume {
    /// The settings but for the group, which has the id of the cluster if it is not named.
    settings: ConsumerSettings,
    group: Option<String>,
}

impl Consume {
    /// The settings in this cluster.
    pub(crate) fn settings(&self, cluster: ClusterId) -> ConsumerSettings {
        let usual = ConsumerSettings::of(cluster, String::new());
        ConsumerSettings { group: self.group.clone().unwrap_or(usual.group), ..self.settings.clone() }
    }
}

pub(super) fn check(file: Option<ConsumeFile>) -> Result<Option<Consume>, Fatal> {
    let Some(ConsumeFile { brokers, topic, dead_letter_topic, group, rdkafka }) = file else {
        return Ok(None);
    };
    let usual = ConsumerSettings::of(ClusterId(0), brokers.join(","));
    let topic = topic.unwrap_or(usual.topic.clone());
    let settings = ConsumerSettings {
        dead_letter_topic: dead_letter_topic.unwrap_or_else(|| format!("{topic}-dlq")),
        topic,
        group: group.clone().unwrap_or(usual.group.clone()),
        properties: rdkafka.into_iter().map(|(name, value)| (name, text_of(value))).collect(),
        ..usual
    };
    settings.check().map_err(|why| bad(format!("consume: {why}")))?;
    Ok(Some(Consume { settings, group }))
}
