//! The shape of a load: which keys come how often, and at which rate.

use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// How often each key comes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Distribution {
    /// All keys come equally often.
    Uniform,
    /// The n-th key comes as often as n to the power of minus theta.
    Zipf(f64),
    /// Some keys get this many percent of the commands, and the others get the rest.
    Hot { keys: u64, share: u8 },
}

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Distribution, String> {
        let parsed = match text.split_once(':') {
            None if text == "uniform" => Some(Distribution::Uniform),
            Some(("zipf", theta)) => {
                let theta = theta.parse().ok().filter(|theta| *theta > 0.0 && *theta <= 10.0);
                theta.map(Distribution::Zipf)
            }
            Some(("hot", rest)) => rest.split_once(':').and_then(|(keys, share)| {
                let keys = keys.parse().ok().filter(|keys| *keys > 0)?;
                let share = share.parse().ok().filter(|share| *share <= 100)?;
                Some(Distribution::Hot { keys, share })
            }),
            _ => None,
        };
        parsed.ok_or_else(|| {
            format!(
                "{text:?} is not a distribution; give `uniform`, `zipf:THETA` with THETA above 0 and up to 10, \
                 or `hot:N:SHARE` with N keys that get SHARE percent of the commands"
            )
        })
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Distribution::Uniform => write!(f, "uniform"),
            Distribution::Zipf(theta) => write!(f, "zipf:{theta}"),
            Distribution::Hot { keys, share } => write!(f, "hot:{keys}:{share}"),
        }
    }
}

impl Serialize for Distribution {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A rate that changes evenly from one to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ramp {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl FromStr for Ramp {
    type Err = String;

    fn from_str(text: &str) -> Result<Ramp, String> {
        let rate =
            |text: &str| text.parse().ok().filter(|rate| (1..=crate::options::RATE_MAX).contains(rate));
        let rates = text.split_once(':').and_then(|(from, to)| Some((rate(from)?, rate(to)?)));
        let (from, to) = rates.ok_or_else(|| {
            format!("{text:?} is not a ramp; give FROM:TO, two rates in commands per second")
        })?;
        Ok(Ramp { from, to })
    }
}

impl fmt::Display for Ramp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.from, self.to)
    }
}

impl Serialize for Ramp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_are_written_as_they_are_read() {
        for text in ["uniform", "zipf:0.99", "zipf:2", "hot:10:90", "hot:1:0"] {
            assert_eq!(text.parse::<Distribution>().unwrap().to_string(), text);
        }
        for text in ["", "zipf", "zipf:", "zipf:0", "zipf:-1", "zipf:nan", "normal", "hot:0:5", "hot:5:101"] {
            let error = text.parse::<Distribution>().unwrap_err();
            assert!(error.contains("zipf:THETA") && error.contains("hot:N:SHARE"), "{error}");
        }
    }

    #[test]
    fn ramps_are_written_as_they_are_read() {
        assert_eq!("5:1000".parse::<Ramp>().unwrap().to_string(), "5:1000");
        for text in ["", "5", "0:5", "5:0", "5:x"] {
            assert!(text.parse::<Ramp>().unwrap_err().contains("FROM:TO"));
        }
    }
}
