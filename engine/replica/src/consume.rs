//! The proposals that come from a topic of Kafka.

use crate::config::Config;
use crate::fatal::Fatal;
use crate::threads::{await_end, no_thread};
use isonomy_kafka::consumer::{Consumer, ConsumerSettings};
use isonomy_shard::data_dir::DataDir;
use isonomy_wire::id::ClusterId;
use isonomy_wire::message::ConsumeStatus;
use std::sync::{Arc, Mutex, PoisonError};

/// The consumer of this replica, which begins when the replica serves.
pub(crate) struct Consumption {
    settings: ConsumerSettings,
    cluster: ClusterId,
    addresses: Vec<String>,
    consumer: Option<Consumer>,
    /// How it stands, for the status.
    shown: Arc<Mutex<ConsumeStatus>>,
}

impl Consumption {
    /// The consumer of the configuration, if proposals are consumed.
    pub(crate) fn new(config: &Config, data_dir: &DataDir) -> Option<Consumption> {
        Some(Consumption {
            settings: config.consume.clone()?,
            cluster: data_dir.cluster_id(),
            addresses: config.client_addresses(),
            consumer: None,
            shown: Arc::default(),
        })
    }

    /// Where it is shown how the consumption stands.
    pub(crate) fn shown(&self) -> Arc<Mutex<ConsumeStatus>> {
        self.shown.clone()
    }

    pub(crate) fn start(&mut self) -> Result<(), Fatal> {
        let started = Consumer::start(self.settings.clone(), self.cluster, self.addresses.clone());
        self.consumer = Some(started.map_err(no_thread("to consume"))?);
        Ok(())
    }

    /// Shows how the consumption stands.
    pub(crate) fn show(&self) {
        if let Some(consumer) = &self.consumer {
            *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = consumer.status();
        }
    }

    /// Stops the consumer, but does not wait for long.
    pub(crate) fn stop(self) {
        let Some(consumer) = self.consumer else { return };
        consumer.stop();
        // What Kafka was not told then is found to be done by the next one.
        await_end(|| consumer.has_ended());
    }
}
