//! How a command ends.

use crate::logging;
pub(crate) use isonomy_mesh::fatal::{Fatal, Reason};
use std::process::ExitCode;

/// Anything that went wrong in a command, with all its causes. An error that has an exit code of its own keeps it.
pub(crate) fn failed(error: impl Into<anyhow::Error>) -> Fatal {
    let error = error.into();
    error.downcast().unwrap_or_else(|error| Fatal::new(Reason::Failed, format!("{error:#}")))
}

/// Says why, and ends `main`.
pub(crate) fn report(fatal: &Fatal) -> ExitCode {
    if !fatal.text().is_empty() {
        logging::say_last(&format!("isonomy: {fatal}"));
    }
    ExitCode::from(fatal.reason as u8)
}
