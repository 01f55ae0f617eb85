//! The report. Its JSON names are a contract; what was not measured is null.

use crate::options::Options;
use crate::record::Record;
use crate::status::Totals;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Lines per halving of the distance to the maximum in a percentile file.
const HGRM_STEPS: u32 = 5;

/// What was measured besides the threads' own records.
pub(crate) struct Measured {
    pub(crate) durable: bool,
    pub(crate) seconds: f64,
    pub(crate) load_cpu_us: u64,
    /// Before and after.
    pub(crate) replicas: Option<(Totals, Totals)>,
}

/// Where the load came from.
#[derive(Debug, Serialize)]
pub(crate) struct Host {
    cores: usize,
    cpu_model: Option<String>,
}

impl Host {
    pub(crate) fn here() -> Host {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Host { cores, cpu_model: model.map(|(_, model)| model.to_owned()) }
    }
}

#[derive(Debug, Serialize)]
struct Latency {
    p50: u64,
    p90: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

/// See the module.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    commit: Option<&'static str>,
    host: Host,
    config: Options,
    durability: &'static str,
    seconds: f64,
    decisions: u64,
    decisions_per_second: f64,
    latency_us: Option<Latency>,
    fast_path_ratio: Option<f64>,
    replica_cpu_us_per_decision: Option<f64>,
    load_cpu_us_per_decision: Option<f64>,
    log_bytes_per_decision: Option<f64>,
    pub(crate) errors: BTreeMap<&'static str, u64>,
}

impl Report {
    pub(crate) fn new(options: &Options, host: Host, record: &Record, measured: &Measured) -> Report {
        let decisions = record.decisions;
        let per_decision = |total: u64| (decisions > 0).then(|| total as f64 / decisions as f64);
        let at = |quantile| record.latency.value_at_quantile(quantile);
        let latency = || Latency {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: record.latency.max(),
        };
        // A replica that was started anew in between counts from 0 again: then nothing is known.
        let delta = |of: fn(&Totals) -> u64| {
            measured.replicas.as_ref().and_then(|(before, after)| of(after).checked_sub(of(before)))
        };
        let (fast, slow) = (delta(|totals| totals.fast), delta(|totals| totals.slow));
        let ratio = |(fast, slow): (u64, u64)| (fast + slow > 0).then(|| fast as f64 / (fast + slow) as f64);
        Report {
            commit: option_env!("ISONOMY_COMMIT"),
            host,
            config: options.clone(),
            durability: if measured.durable { "fsync" } else { "os" },
            seconds: measured.seconds,
            decisions,
            decisions_per_second: decisions as f64 / measured.seconds,
            latency_us: (!record.latency.is_empty()).then(latency),
            fast_path_ratio: fast.zip(slow).and_then(ratio),
            replica_cpu_us_per_decision: delta(|totals| totals.cpu_us).and_then(per_decision),
            load_cpu_us_per_decision: per_decision(measured.load_cpu_us),
            log_bytes_per_decision: delta(|totals| totals.log_bytes).and_then(per_decision),
            errors: record.errors.clone(),
        }
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let figure = |value: Option<f64>, digits: usize| {
            value.map_or("not measured".to_owned(), |value| format!("{value:.digits$}"))
        };
        let mut rows = vec![
            ("decisions", self.decisions.to_string()),
            ("measured", format!("{:.1} s, durability {}", self.seconds, self.durability)),
            ("decisions per second", format!("{:.0}", self.decisions_per_second)),
        ];
        match &self.latency_us {
            None => rows.push(("latency", "not measured".to_owned())),
            Some(Latency { p50, p90, p99, p999, max }) => {
                let names = ["latency p50", "p90", "p99", "p99.9", "max"];
                let percentiles = [p50, p90, p99, p999, max].map(|us| format!("{us} us"));
                rows.extend(names.into_iter().zip(percentiles));
            }
        }
        rows.push(("fast path ratio", figure(self.fast_path_ratio, 4)));
        rows.push(("replica CPU us per decision", figure(self.replica_cpu_us_per_decision, 3)));
        rows.push(("load CPU us per decision", figure(self.load_cpu_us_per_decision, 3)));
        rows.push(("log bytes per decision", figure(self.log_bytes_per_decision, 1)));
        rows.extend(self.errors.iter().map(|(name, count)| (*name, format!("{count} failed"))));
        let mut text = String::new();
        for (name, value) in rows {
            writeln!(text, "{name:>28}  {value}").expect("writing to memory cannot fail");
        }
        text
    }
}

/// The percentile file that HdrHistogram's plotters read, in milliseconds.
pub(crate) fn write_hgrm(latency: &Histogram<u64>, path: &Path) -> std::io::Result<()> {
    let mut out = BufWriter::new(std::fs::File::create(path)?);
    writeln!(out, "{:>12} {:>14} {:>10} {:>14}\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)")?;
    let mut count = 0;
    for step in latency.iter_quantiles(HGRM_STEPS) {
        count += step.count_since_last_iteration();
        let (value, quantile) = (step.value_iterated_to() as f64 / 1e3, step.quantile_iterated_to());
        if quantile < 1.0 {
            writeln!(out, "{value:12.3} {quantile:14.12} {count:10} {:14.2}", 1.0 / (1.0 - quantile))?;
        } else {
            writeln!(out, "{value:12.3} {quantile:14.12} {count:10}")?;
        }
    }
    let (mean, deviation) = (latency.mean() / 1e3, latency.stdev() / 1e3);
    writeln!(out, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]")?;
    writeln!(out, "#[Max     = {:12.3}, Total count    = {:12}]", latency.max() as f64 / 1e3, latency.len())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::tests::parsed;
    use serde_json::Value;

    fn report(replicas: Option<(Totals, Totals)>) -> (Report, Value) {
        let mut record = Record::new();
        record.decisions = 100;
        (1..=100).for_each(|us| record.latency.record(us).unwrap());
        record.errors.insert("timed_out", 2);
        let measured = Measured { durable: true, seconds: 2.0, load_cpu_us: 50, replicas };
        let report = Report::new(&parsed("--rate 50"), Host::here(), &record, &measured);
        let json = serde_json::to_value(&report).unwrap();
        (report, json)
    }

    fn names(value: &Value) -> Vec<&str> {
        let mut names: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn the_names_are_a_contract() {
        let after = Totals { fast: 30, slow: 10, log_bytes: 8000, cpu_us: 200 };
        let (report, json) = report(Some((Totals::default(), after)));
        let expected = [
            "commit",
            "config",
            "decisions",
            "decisions_per_second",
            "durability",
            "errors",
            "fast_path_ratio",
            "host",
            "latency_us",
            "load_cpu_us_per_decision",
            "log_bytes_per_decision",
            "replica_cpu_us_per_decision",
            "seconds",
        ];
        assert_eq!(names(&json), expected);
        assert_eq!(names(&json["host"]), ["cores", "cpu_model"]);
        assert_eq!(names(&json["latency_us"]), ["max", "p50", "p90", "p99", "p999"]);
        assert_eq!((&json["durability"], &json["decisions_per_second"]), (&"fsync".into(), &50.0.into()));
        assert_eq!((&json["latency_us"]["p99"], &json["errors"]["timed_out"]), (&99.into(), &2.into()));
        assert_eq!((&json["fast_path_ratio"], &json["log_bytes_per_decision"]), (&0.75.into(), &80.0.into()));
        assert_eq!(json["replica_cpu_us_per_decision"], 2.0);
        assert_eq!((&json["config"]["rate"], &json["config"]["window"]), (&50.into(), &Value::Null));
        assert!(report.table().contains("fast path ratio  0.7500"), "{}", report.table());
    }

    #[test]
    fn what_was_not_measured_is_null() {
        let (report, json) = report(None);
        for name in ["fast_path_ratio", "replica_cpu_us_per_decision", "log_bytes_per_decision"] {
            assert_eq!(json[name], Value::Null, "{name}");
        }
        assert!(report.table().contains("not measured"));
        // A replica was started anew: its counters are smaller than before.
        let before = Totals { fast: 5, slow: 5, log_bytes: 5, cpu_us: 5 };
        let json = self::report(Some((before, Totals::default()))).1;
        assert_eq!((&json["fast_path_ratio"], &json["log_bytes_per_decision"]), (&Value::Null, &Value::Null));
        let measured = Measured { durable: false, seconds: 1.0, load_cpu_us: 1, replicas: None };
        let nothing = Report::new(&parsed(""), Host::here(), &Record::new(), &measured);
        let json = serde_json::to_value(&nothing).unwrap();
        assert_eq!((&json["latency_us"], &json["load_cpu_us_per_decision"]), (&Value::Null, &Value::Null));
        assert_eq!((&json["decisions"], &json["durability"]), (&0.into(), &"os".into()));
    }

    #[test]
    fn a_percentile_file_ends_with_all_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("latency.hgrm");
        let mut record = Record::new();
        (1..=1000).for_each(|us| record.latency.record(us).unwrap());
        write_hgrm(&record.latency, &path).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains("1.000 1.000000000000       1000"), "{text}");
        assert!(text.contains("Total count    =         1000]"), "{text}");
    }
}
