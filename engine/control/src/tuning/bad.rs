//! Why settings cannot be used.

use super::{BYTES_MAX, Name, VERSION};

/// What to do about settings that somebody has damaged.
const SET_ANEW: &str = "see what is there (`etcdctl get`), remove the key or put back what was there before, and change \
                        settings with `isonomy settings set` only";

/// Why settings cannot be used. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadTuning {
    /// The bytes are more than any settings have.
    #[error("{0} bytes are there, but settings have at most {BYTES_MAX}; {SET_ANEW}")]
    Long(usize),
    /// The bytes are not the JSON of settings; what is wrong, and where.
    #[error("the settings do not parse: {0}; {SET_ANEW}")]
    NoJson(String),
    /// A newer release has written the settings.
    #[error(
        "the settings have version {0}, but this release reads version {VERSION}; install the newer release here, too"
    )]
    Newer(u32),
    /// The version is one that no release wrote.
    #[error("the settings have version {0}, which no release wrote; {SET_ANEW}")]
    NoVersion(u32),
    /// A change is not `NAME=VALUE`.
    #[error("'{0}' is no change of a setting; write NAME=VALUE, for example path=slow")]
    NoChange(String),
    /// There is no such setting.
    #[error("there is no setting '{0}'; the settings are {names}", names = names())]
    NoName(String),
    /// The value is not one that the setting could have.
    #[error("'{value}' is no value of {name}; {}, or give `default`", expected(*.name))]
    NoValue {
        /// The setting.
        name: Name,
        /// The value.
        value: String,
    },
    /// The number is too small or too large.
    #[error("{name} cannot be {value}; {}, or give `default`", expected(*.name))]
    Range {
        /// The setting.
        name: Name,
        /// The value.
        value: u64,
    },
    /// The times do not fit together.
    #[error(
        "fast_path_ms is {fast_path_ms}, suspect_ms {suspect_ms} and recover_ms {recover_ms}, but the first must be \
             smaller than the second, and the second at most as large as the third, or replicas would recover what is \
             on its way; change them together"
    )]
    Order {
        /// How long a coordinator waits for the fast path.
        fast_path_ms: u64,
        /// How long an instance of a coordinator that cannot be reached may stay undecided.
        suspect_ms: u64,
        /// How long any instance may stay undecided.
        recover_ms: u64,
    },
}

impl BadTuning {
    pub(super) fn no_json(error: serde_json::Error) -> BadTuning {
        BadTuning::NoJson(error.to_string())
    }
}

fn names() -> String {
    Name::ALL.map(Name::text).join(", ")
}

/// What an operator can write.
fn expected(name: Name) -> String {
    match (name, name.range()) {
        (_, Some(range)) => format!("give a number from {} to {}", range.start(), range.end()),
        (Name::Path, None) => "give auto, fast or slow".into(),
        (_, None) => "give true or false".into(),
    }
}
