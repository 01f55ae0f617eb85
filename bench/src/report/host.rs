//! The place where a result was measured.

use isonomy_tuning::{cores, host};
use serde::Serialize;
use std::process::{Command, Stdio};

/// The machine that the load came from.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Host {
    pub(crate) name: Option<String>,
    pub(crate) kernel: Option<String>,
    pub(crate) cores: usize,
    pub(crate) cpu_model: Option<String>,
}

impl Host {
    pub(crate) fn here() -> Host {
        Host {
            name: host::name(),
            kernel: host::kernel(),
            cores: cores::count(),
            cpu_model: host::cpu_model(),
        }
    }
}

/// The commit that this program was built from: the one that the build was told, or that of the checkout in which the
/// program lies.
pub(crate) fn commit() -> Option<String> {
    if let Some(commit) = option_env!("ISONOMY_COMMIT") {
        return Some(commit.to_owned());
    }
    let program = std::env::current_exe().ok()?;
    let described = Command::new("git")
        .arg("-C")
        .arg(program.parent()?)
        .args(["describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(described.stdout).ok()?.trim().to_owned();
    (described.status.success() && !text.is_empty()).then_some(text)
}
