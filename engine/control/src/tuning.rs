//! The settings of the protocol that a cluster changes while it runs, as they lie in etcd: JSON that is read strictly.
//! Beside them lies the word of a member that a fast quorum cannot be formed (law, section 4b).

use crate::id::MemberId;
use isonomy_wire::tuning::{Loss, PathMode, Tuning, WINDOW_MAX};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::RangeInclusive;

mod bad;

pub use bad::BadTuning;

/// The version of both values that this release reads and writes.
pub const VERSION: u32 = 1;
/// The longest value that is read, in bytes.
const BYTES_MAX: usize = 4 << 10;

/// A setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Name {
    /// How long a coordinator waits for the fast path when the slow path is possible.
    FastPathMs,
    /// How long a message may have no answer before it is sent again.
    ResendMs,
    /// How long an instance may stay undecided before it is recovered.
    RecoverMs,
    /// The same if its coordinator cannot be reached.
    SuspectMs,
    /// Whether coordinators wait for the fast path.
    Path,
    /// How long a fast quorum must be out of reach before replicas stop waiting for one.
    GuardrailMs,
    /// Whether recoveries rescue what they would abort.
    Rescue,
    /// How many own instances a replica may have unexecuted.
    Window,
}

impl Name {
    /// All settings.
    pub const ALL: [Name; 8] = [
        Name::FastPathMs,
        Name::ResendMs,
        Name::RecoverMs,
        Name::SuspectMs,
        Name::Path,
        Name::GuardrailMs,
        Name::Rescue,
        Name::Window,
    ];

    /// The name as operators write it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Name::FastPathMs => "fast_path_ms",
            Name::ResendMs => "resend_ms",
            Name::RecoverMs => "recover_ms",
            Name::SuspectMs => "suspect_ms",
            Name::Path => "path",
            Name::GuardrailMs => "guardrail_ms",
            Name::Rescue => "rescue",
            Name::Window => "window",
        }
    }

    /// The values that a setting may have, if it is a number.
    #[must_use]
    pub fn range(self) -> Option<RangeInclusive<u64>> {
        match self {
            Name::FastPathMs => Some(1..=1_000),
            Name::ResendMs => Some(10..=60_000),
            Name::RecoverMs => Some(20..=600_000),
            Name::SuspectMs => Some(10..=600_000),
            Name::GuardrailMs => Some(100..=3_600_000),
            Name::Window => Some(1..=WINDOW_MAX.into()),
            Name::Path | Name::Rescue => None,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// The settings that were chosen. A setting that was not has its default.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chosen {
    #[serde(skip_serializing_if = "Option::is_none")]
    fast_path_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resend_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recover_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    suspect_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guardrail_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rescue: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Path {
    Auto,
    Fast,
    Slow,
}

/// The value of the key.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TuningValue {
    version: u32,
    settings: Chosen,
}

/// What is read first: a newer value may have fields that this release does not know.
#[derive(Deserialize)]
struct TuningVersion {
    version: u32,
}

impl Chosen {
    /// Reads and checks what lies in etcd.
    ///
    /// # Errors
    /// One variant of [`BadTuning`] for each way in which the bytes are no settings.
    pub fn parse(bytes: &[u8]) -> Result<Chosen, BadTuning> {
        let TuningValue { settings, .. } = read(bytes)?;
        settings.check()?;
        Ok(settings)
    }

    /// The settings as they lie in etcd.
    ///
    /// # Panics
    /// When memory is exhausted: settings always have a JSON form.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&TuningValue { version: VERSION, settings: *self })
            .expect("settings have a JSON form")
    }

    /// Changes settings as an operator writes them, `NAME=VALUE` each. The value `default` takes a choice back.
    ///
    /// # Errors
    /// [`BadTuning`] with the first that is wrong, or with what does not fit together afterwards.
    pub fn changed(mut self, changes: &[String]) -> Result<Chosen, BadTuning> {
        for change in changes {
            let (name, value) = change.split_once('=').ok_or_else(|| BadTuning::NoChange(change.clone()))?;
            let is_it = |known: &&Name| known.text() == name;
            let name = Name::ALL.iter().find(is_it).ok_or_else(|| BadTuning::NoName(name.into()))?;
            self.set(*name, (value != "default").then_some(value))?;
        }
        self.check()?;
        Ok(self)
    }

    fn set(&mut self, name: Name, value: Option<&str>) -> Result<(), BadTuning> {
        let bad = |value: &str| BadTuning::NoValue { name, value: value.into() };
        let number = || value.map(|text| text.parse().map_err(|_| bad(text))).transpose();
        match name {
            Name::FastPathMs => self.fast_path_ms = number()?,
            Name::ResendMs => self.resend_ms = number()?,
            Name::RecoverMs => self.recover_ms = number()?,
            Name::SuspectMs => self.suspect_ms = number()?,
            Name::GuardrailMs => self.guardrail_ms = number()?,
            Name::Window => self.window = number()?,
            Name::Rescue => {
                self.rescue = value.map(|text| text.parse().map_err(|_| bad(text))).transpose()?;
            }
            Name::Path => {
                self.path = match value {
                    None => None,
                    Some("auto") => Some(Path::Auto),
                    Some("fast") => Some(Path::Fast),
                    Some("slow") => Some(Path::Slow),
                    Some(other) => return Err(bad(other)),
                };
            }
        }
        Ok(())
    }

    /// Whether a setting was chosen.
    #[must_use]
    pub fn has(&self, name: Name) -> bool {
        match name {
            Name::Path => self.path.is_some(),
            Name::Rescue => self.rescue.is_some(),
            _ => self.number(name).is_some(),
        }
    }

    /// The number that was chosen for a setting.
    fn number(&self, name: Name) -> Option<u64> {
        match name {
            Name::FastPathMs => self.fast_path_ms,
            Name::ResendMs => self.resend_ms,
            Name::RecoverMs => self.recover_ms,
            Name::SuspectMs => self.suspect_ms,
            Name::GuardrailMs => self.guardrail_ms,
            Name::Window => self.window,
            Name::Path | Name::Rescue => None,
        }
    }

    /// The settings in force.
    #[must_use]
    pub fn tuning(&self) -> Tuning {
        let Tuning { fast_path_us, resend_us, recover_us, suspect_us, guardrail_us, rescue, window, .. } =
            Tuning::DEFAULT;
        let us = |ms: Option<u64>, default| ms.map_or(default, |ms| ms * 1000);
        Tuning {
            fast_path_us: us(self.fast_path_ms, fast_path_us),
            resend_us: us(self.resend_ms, resend_us),
            recover_us: us(self.recover_ms, recover_us),
            suspect_us: us(self.suspect_ms, suspect_us),
            guardrail_us: us(self.guardrail_ms, guardrail_us),
            rescue: self.rescue.unwrap_or(rescue),
            window: self.window.map_or(window, |window| window as u32),
            path: match self.path {
                None | Some(Path::Auto) => PathMode::Auto,
                Some(Path::Fast) => PathMode::Fast,
                Some(Path::Slow) => PathMode::Slow,
            },
        }
    }

    /// Whether replicas can run with these settings.
    ///
    /// # Errors
    /// [`BadTuning`] with what is wrong.
    pub fn check(&self) -> Result<(), BadTuning> {
        for name in Name::ALL {
            if let (Some(value), Some(range)) = (self.number(name), name.range())
                && !range.contains(&value)
            {
                return Err(BadTuning::Range { name, value });
            }
        }
        let Tuning { fast_path_us, suspect_us, recover_us, .. } = self.tuning();
        if fast_path_us >= suspect_us || suspect_us > recover_us {
            let [fast_path_ms, suspect_ms, recover_ms] =
                [fast_path_us, suspect_us, recover_us].map(|us| us / 1000);
            return Err(BadTuning::Order { fast_path_ms, suspect_ms, recover_ms });
        }
        Ok(())
    }
}

/// The word of a member that a fast quorum cannot be formed. While it stands, replicas with `path = "auto"` do not wait
/// for one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Word {
    /// The version of this layout.
    version: u32,
    /// Whose word it is.
    pub by: MemberId,
    /// Why a fast quorum cannot be formed.
    pub why: Why,
    /// When it was said, in milliseconds since 1970, by that member's clock. For people to read.
    pub since_ms: u64,
}

/// Why a fast quorum cannot be formed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Too few members are reached.
    Unreached,
    /// The members are reached, and most waits for them are in vain.
    InVain,
}

impl From<Loss> for Why {
    fn from(loss: Loss) -> Why {
        match loss {
            Loss::Unreached => Why::Unreached,
            Loss::InVain => Why::InVain,
        }
    }
}

impl Word {
    /// What this member says now.
    #[must_use]
    pub fn of(by: MemberId, loss: Loss) -> Word {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        Word { version: VERSION, by, why: loss.into(), since_ms: since.as_millis() as u64 }
    }

    /// Reads what lies in etcd.
    ///
    /// # Errors
    /// [`BadTuning`] if it is no word.
    pub fn parse(bytes: &[u8]) -> Result<Word, BadTuning> {
        read(bytes)
    }

    /// The word as it lies in etcd.
    ///
    /// # Panics
    /// When memory is exhausted: a word always has a JSON form.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a word has a JSON form")
    }
}

/// Reads a value, its version first.
fn read<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, BadTuning> {
    if bytes.len() > BYTES_MAX {
        return Err(BadTuning::Long(bytes.len()));
    }
    let TuningVersion { version } = serde_json::from_slice(bytes).map_err(BadTuning::no_json)?;
    match version {
        VERSION => serde_json::from_slice(bytes).map_err(BadTuning::no_json),
        0 => Err(BadTuning::NoVersion(version)),
        _ => Err(BadTuning::Newer(version)),
    }
}

#[cfg(test)]
mod tests;
