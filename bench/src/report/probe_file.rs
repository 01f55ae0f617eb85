//! Reads the best that this machine can do from the file that `isonomy-bench probe` writes.

use anyhow::{Context, Result};
use serde_json::Value;
use std::path::Path;

/// The only field that is read.
const FIELD: &str = "decisions_per_second";

/// The decisions per second of the probe.
pub(crate) fn read(path: &Path) -> Result<f64> {
    let advice = || {
        format!(
            "{} is not a probe of this machine; write the file with `isonomy-bench probe --json`",
            path.display()
        )
    };
    let text = std::fs::read_to_string(path).with_context(advice)?;
    let object: Value = serde_json::from_str(&text).with_context(advice)?;
    let figure = object[FIELD].as_f64().filter(|figure| *figure > 0.0);
    figure.with_context(|| format!("the file has no positive {FIELD}")).with_context(advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_one_positive_field_of_an_object() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("probe.json");
        std::fs::write(&path, r#"{"decisions_per_second": 2000000.5, "other": []}"#).unwrap();
        assert_eq!(read(&path).unwrap(), 2_000_000.5);
        for wrong in ["", "[]", "{}", r#"{"decisions_per_second": 0}"#] {
            std::fs::write(&path, wrong).unwrap();
            assert!(format!("{:#}", read(&path).unwrap_err()).contains("isonomy-bench probe"));
        }
        assert!(read(Path::new("/nowhere/x")).is_err());
    }
}
