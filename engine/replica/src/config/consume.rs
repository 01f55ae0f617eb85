//! Where proposals are consumed from: the table `[consume]`.

use super::bad;
use super::publish::properties_of;
use crate::fatal::Fatal;
use isonomy_kafka::consumer::ConsumerSettings;
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

pub(super) fn check(file: Option<ConsumeFile>) -> Result<Option<ConsumerSettings>, Fatal> {
    let Some(ConsumeFile { brokers, topic, dead_letter_topic, group, rdkafka }) = file else {
        return Ok(None);
    };
    let topic = topic.unwrap_or(ConsumerSettings::default().topic);
    let settings = ConsumerSettings {
        brokers: brokers.join(","),
        dead_letter_topic: dead_letter_topic.unwrap_or_else(|| format!("{topic}-dlq")),
        topic,
        group,
        properties: properties_of(rdkafka),
    };
    settings.check().map_err(|why| bad(format!("consume: {why}")))?;
    Ok(Some(settings))
}
