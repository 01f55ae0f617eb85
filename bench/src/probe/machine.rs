//! The machine that is measured.

use isonomy_tuning::{cores, host};
use serde::Serialize;

/// The machine. A figure that the system does not tell is null.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) host: Option<String>,
    pub(crate) kernel: Option<String>,
    pub(crate) cpu_model: Option<String>,
    pub(crate) cores: usize,
    /// The load average of the minute before the probe, since other work takes its share of every figure.
    pub(crate) load_average: Option<f64>,
}

impl Machine {
    pub(crate) fn here() -> Machine {
        Machine {
            host: host::name(),
            kernel: host::kernel(),
            cpu_model: host::cpu_model(),
            cores: cores::count(),
            load_average: host::load_average(),
        }
    }
}
