//! The proposals that come from a topic of Kafka.

use crate::config::Config;
use crate::fatal::{Fatal, Reason};
use isonomy_kafka::consumer::{Consumer, ConsumerSettings};
use isonomy_shard::data_dir::DataDir;
use isonomy_wire::address::with_port;
use isonomy_wire::id::ClusterId;
use isonomy_wire::message::ConsumeStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a consumer that is told to stop may take. What Kafka was not told then is found to be done by the next one.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether it has stopped.
const STOP_LOOK: Duration = Duration::from_millis(10);

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
        let settings = config.consume.as_ref()?.settings(data_dir.cluster_id());
        let at = |member: &crate::config::MemberConfig| with_port(&member.host, member.client_base);
        // Itself first: it is the nearest, and it knows the members when they change.
        let addresses = std::iter::once(config.own()).chain(&config.members).map(at).collect();
        Some(Consumption {
            settings,
            cluster: data_dir.cluster_id(),
            addresses,
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
        self.consumer = Some(started.map_err(|error| {
            Fatal::new(Reason::Machine, format!("no thread to consume ({error}); raise the limit on threads"))
        })?);
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
        let began = Instant::now();
        while began.elapsed() < STOP_PATIENCE && !consumer.has_ended() {
            std::thread::sleep(STOP_LOOK);
        }
    }
}
