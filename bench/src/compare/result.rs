//! The result of a comparison, as a table and as JSON.

use super::CompareOptions;
use crate::options::Output;
use crate::out::{self, ResultFile};
use crate::report::{Host, commit};
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The systems that are measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum System {
    Etcd,
    /// Isonomy with the same clients as etcd.
    Isonomy,
    /// Isonomy with one client that has many commands outstanding.
    Pipelined,
}

impl System {
    pub(super) fn name(self) -> &'static str {
        match self {
            System::Etcd => "etcd",
            System::Isonomy => "isonomy",
            System::Pipelined => "isonomy, pipelined",
        }
    }
}

/// The figures of one system in one round.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Round {
    pub(super) system: System,
    pub(super) puts_per_second: f64,
    pub(super) p50_us: Option<u64>,
    pub(super) p99_us: Option<u64>,
    pub(super) p999_us: Option<u64>,
    pub(super) max_us: Option<u64>,
    /// The CPU time of all three servers.
    pub(super) servers_cpu_us_per_put: Option<f64>,
    pub(super) load_cpu_us_per_put: Option<f64>,
    pub(super) errors: u64,
}

/// The medians of all rounds of a system, or their ratios to those of etcd.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
struct Summary {
    puts_per_second: Option<f64>,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    p999_us: Option<f64>,
    servers_cpu_us_per_put: Option<f64>,
    load_cpu_us_per_put: Option<f64>,
}

impl Summary {
    fn of(rounds: &[Round], system: System) -> Summary {
        let median = |of: &dyn Fn(&Round) -> Option<f64>| {
            let mut values: Vec<f64> =
                rounds.iter().filter(|round| round.system == system).filter_map(of).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied()
        };
        let us = |us: Option<u64>| us.map(|us| us as f64);
        Summary {
            puts_per_second: median(&|round| Some(round.puts_per_second)),
            p50_us: median(&|round| us(round.p50_us)),
            p99_us: median(&|round| us(round.p99_us)),
            p999_us: median(&|round| us(round.p999_us)),
            servers_cpu_us_per_put: median(&|round| round.servers_cpu_us_per_put),
            load_cpu_us_per_put: median(&|round| round.load_cpu_us_per_put),
        }
    }

    fn over(&self, other: &Summary) -> Summary {
        let ratio = |own: Option<f64>, other: Option<f64>| {
            own.zip(other).filter(|(_, other)| *other > 0.0).map(|(own, other)| own / other)
        };
        Summary {
            puts_per_second: ratio(self.puts_per_second, other.puts_per_second),
            p50_us: ratio(self.p50_us, other.p50_us),
            p99_us: ratio(self.p99_us, other.p99_us),
            p999_us: ratio(self.p999_us, other.p999_us),
            servers_cpu_us_per_put: ratio(self.servers_cpu_us_per_put, other.servers_cpu_us_per_put),
            load_cpu_us_per_put: ratio(self.load_cpu_us_per_put, other.load_cpu_us_per_put),
        }
    }
}

/// The result of a comparison. Its JSON names are a contract; a figure that was not measured is null.
#[derive(Debug, Serialize)]
pub(super) struct Comparison<'a> {
    commit: Option<String>,
    host: Host,
    config: &'a CompareOptions,
    etcd_version: String,
    rounds: Vec<Round>,
    medians: BTreeMap<System, Summary>,
    /// The ratios of the medians to those of etcd.
    ratios: BTreeMap<System, Summary>,
}

impl Comparison<'_> {
    pub(super) fn new(
        config: &CompareOptions,
        host: Host,
        etcd_version: String,
        rounds: Vec<Round>,
    ) -> Comparison<'_> {
        let systems = rounds.iter().map(|round| round.system);
        let medians: BTreeMap<_, _> = systems.map(|system| (system, Summary::of(&rounds, system))).collect();
        let etcd = Summary::of(&rounds, System::Etcd);
        let others = medians.iter().filter(|(system, _)| **system != System::Etcd);
        let ratios = others.map(|(system, medians)| (*system, medians.over(&etcd))).collect();
        Comparison { commit: commit(), host, config, etcd_version, rounds, medians, ratios }
    }

    pub(super) fn publish(&self, output: Output, append: Option<ResultFile>) -> Result<()> {
        let line = format!("{}\n", serde_json::to_string(self)?);
        let printed = out::print(match output {
            Output::Json => line.clone(),
            Output::Table => self.table(),
        });
        printed.and(append.map_or(Ok(()), |mut file| file.write(line.as_bytes())))
    }

    fn table(&self) -> String {
        let mut text = format!("{}, {} clients\n", self.etcd_version, self.config.clients);
        let heads = ["puts/s", "p50 ms", "p99 ms", "p99.9 ms", "servers' CPU us", "load CPU us"];
        let mut line = |name: &str, cells: [String; 6]| {
            let cells = cells.map(|cell| format!("{cell:>16}")).concat();
            writeln!(text, "{name:<28}{cells}").expect("writing to memory cannot fail");
        };
        line("", heads.map(str::to_owned));
        for round in &self.rounds {
            line(round.system.name(), cells(&Summary::of(&[*round], round.system)));
        }
        for (system, medians) in &self.medians {
            line(&format!("median, {}", system.name()), cells(medians));
        }
        for (system, ratios) in &self.ratios {
            let cells = ratios.values().map(|ratio| ratio.map_or("-".into(), |ratio| format!("{ratio:.3}")));
            line(&format!("{} / etcd", system.name()), cells);
        }
        let errors: u64 = self.rounds.iter().map(|round| round.errors).sum();
        if errors > 0 {
            writeln!(text, "{errors} puts failed").expect("writing to memory cannot fail");
        }
        text
    }
}

impl Summary {
    fn values(&self) -> [Option<f64>; 6] {
        [
            self.puts_per_second,
            self.p50_us,
            self.p99_us,
            self.p999_us,
            self.servers_cpu_us_per_put,
            self.load_cpu_us_per_put,
        ]
    }
}

/// The figures as people read them; latencies are in milliseconds.
fn cells(summary: &Summary) -> [String; 6] {
    let mut index = 0;
    summary.values().map(|value| {
        let (divisor, digits) = [(1.0, 0), (1e3, 2), (1e3, 2), (1e3, 2), (1.0, 1), (1.0, 1)][index];
        index += 1;
        value.map_or("-".into(), |value| format!("{:.digits$}", value / divisor))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct CompareCli {
        #[command(flatten)]
        options: CompareOptions,
    }

    fn round(system: System, puts_per_second: f64) -> Round {
        Round {
            system,
            puts_per_second,
            p50_us: Some(2000),
            p99_us: None,
            p999_us: None,
            max_us: None,
            servers_cpu_us_per_put: Some(100.0 / puts_per_second),
            load_cpu_us_per_put: None,
            errors: 1,
        }
    }

    #[test]
    fn medians_are_compared() {
        let options = CompareCli::parse_from(["compare", "--against", "etcd"]).options;
        let etcd = [1.0, 9.0, 2.0].map(|puts| round(System::Etcd, puts));
        let isonomy = [20.0, 30.0, 10.0].map(|puts| round(System::Isonomy, puts));
        let rounds = [etcd, isonomy].concat();
        let comparison = Comparison::new(&options, Host::here(), "etcd Version: 3".into(), rounds);
        let json = serde_json::to_value(&comparison).unwrap();
        assert_eq!(json["medians"]["etcd"]["puts_per_second"], 2.0);
        assert_eq!(json["ratios"]["isonomy"]["puts_per_second"], 10.0);
        assert_eq!(json["ratios"]["isonomy"]["servers_cpu_us_per_put"], 0.1);
        assert_eq!(json["ratios"]["isonomy"]["p99_us"], serde_json::Value::Null);
        let table = comparison.table();
        assert!(table.contains("isonomy / etcd") && table.contains("10.000"), "{table}");
        assert!(table.contains("6 puts failed"), "{table}");
    }
}
