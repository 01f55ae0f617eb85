//! Published decisions, read from Kafka into a projection.
//!
//! An [`Agent`] is a thread that reads the topic to which a cluster publishes (docs/KAFKA.md, both formats) and gives the
//! decisions to a [`Projection`], in batches, with the positions behind them. It assigns itself its partitions, and belongs to
//! no consumer group: the positions are those that the projection keeps together with its state, so that a restart goes on
//! exactly where the projection is. [`Table`] is a projection that is ready: an SQLite file with the latest decision of each
//! key. [`Hook`] is another one, which calls an HTTP service for each decision. A service can have its own.
//!
//! ```no_run
//! use isonomy_agent::{Agent, Settings, Table};
//!
//! let settings = Settings { brokers: "127.0.0.1:9092".into(), ..Settings::default() };
//! let agent = Agent::start(settings, Table::open("orders.db".as_ref())?)?;
//! println!("what the file shows may be {:?} old", agent.status().staleness());
//! agent.stop();
//! agent.join()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The agent checks what consumers get wrong: that each key's decisions are 1, 2, 3 and so on, that the topic is the one of
//! which the projection was made, and that nothing was deleted or lost before the projection has seen it.

mod agent;
mod client;
mod error;
mod file;
mod fresh;
mod gather;
mod hook;
mod projection;
mod session;
mod settings;
mod status;
mod table;

pub use agent::{Agent, Watch};
pub use error::{Error, OutOfSequence};
pub use file::FileError;
pub use hook::{BadHook, CONCURRENCY_MAX, Hook, HookError, HookSettings, HookStatus, Refused};
pub use isonomy_kafka::Stop;
pub use isonomy_kafka::cursor::TopicId;
pub use isonomy_kafka::decision::{BadRecord, Decision};
pub use projection::{Batch, Failure, Look, Positions, Projection, Standing, Start};
pub use settings::{BadSettings, Expect, Settings};
pub use status::Status;
pub use table::Table;
