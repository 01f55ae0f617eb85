//! Processes that the demo starts. They end with the demo, however the demo ends.

use anyhow::{Context, Result};
use isonomy_tuning::{children, environment, signals};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The time between two checks whether the user wants the demo to end.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Starts a process that ends with this one. Called on the main thread.
pub(super) fn spawn(command: &mut Command) -> std::io::Result<Child> {
    // Settings of the user's own cluster must not leak into this one.
    environment::withhold(command, "ISONOMY_");
    children::end_with_this(command);
    command.spawn()
}

/// Whether the user wants the demo to end.
#[derive(Clone)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes the signals that end a program. The second ends it at once.
    pub(super) fn watch() -> Result<Interrupt> {
        Ok(Interrupt(signals::watch_end().context("the signals of this process cannot be handled")?))
    }

    /// Waits for it.
    pub(super) async fn wanted(&self) {
        while !self.0.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
