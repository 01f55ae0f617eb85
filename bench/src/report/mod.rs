//! The report. Its JSON names are a contract; a figure that was not measured is null.

mod chart;
mod hgrm;
mod host;
mod html;
pub(crate) mod probe_file;

pub(crate) use host::{Host, commit};

use crate::load::record::{Counts, Tally};
use crate::load::series::Point;
use crate::load::status::Totals;
use crate::load::{Measured, MeasuredStep};
use crate::options::{Options, Output, Results};
use crate::out::{self, ResultFile};
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
}

/// The figures of a span of time.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    /// Commands per second that were asked for; none in a closed loop.
    pub(crate) rate: Option<f64>,
    pub(crate) seconds: f64,
    pub(crate) decisions: u64,
    pub(crate) decisions_per_second: Option<f64>,
    /// The latencies of the commands that were answered.
    pub(crate) latency_us: Option<Latency>,
    /// Commands that were due in this time and have no answer: they are in no latency.
    pub(crate) unanswered: u64,
    pub(crate) fast_path_ratio: Option<f64>,
    pub(crate) replica_cpu_us_per_decision: Option<f64>,
    pub(crate) load_cpu_us_per_decision: Option<f64>,
    pub(crate) log_bytes_per_decision: Option<f64>,
    pub(crate) answers: Counts,
}

/// The report of a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) commit: Option<String>,
    pub(crate) began_unix_seconds: u64,
    pub(crate) host: Host,
    pub(crate) config: Options,
    pub(crate) durability: &'static str,
    #[serde(flatten)]
    pub(crate) figures: Figures,
    /// How many of the many small clients had all their connections at some time; null without such clients.
    pub(crate) clients_connected: Option<u64>,
    /// Commands that were due and not sent before the end.
    pub(crate) not_sent: u64,
    pub(crate) errors: BTreeMap<&'static str, u64>,
    /// The ratio of the decisions per second to those of the probe.
    pub(crate) probe_ratio: Option<f64>,
    /// How many answers contradict others; null if that was not checked.
    pub(crate) contradictions: Option<u64>,
    #[serde(skip)]
    pub(crate) contradictions_told: Vec<String>,
    /// The figures of each step, if there are several.
    pub(crate) steps: Vec<Figures>,
    pub(crate) series: Vec<Point>,
}

impl Figures {
    fn new(rate: Option<f64>, tally: &Tally, steps: &[MeasuredStep]) -> Figures {
        let decisions = tally.counts.committed;
        let seconds: f64 = steps.iter().map(|step| step.seconds).sum();
        let per_decision = |total: u64| (decisions > 0).then(|| total as f64 / decisions as f64);
        let at = |quantile| tally.latency.value_at_quantile(quantile);
        let latency = || Latency {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: tally.latency.max(),
        };
        let ends = steps.first().map(|step| step.before).zip(steps.last().map(|step| step.after));
        let replicas = ends.and_then(|(before, after)| Totals::comparable(before.replicas?, after.replicas?));
        // A replica that was started anew in between counts from 0 again, so that nothing is known.
        let delta = |of: fn(&Totals) -> u64| {
            replicas.as_ref().and_then(|(before, after)| of(after).checked_sub(of(before)))
        };
        let load_cpu_us = ends.and_then(|(before, after)| after.load_cpu_us.checked_sub(before.load_cpu_us));
        Figures {
            rate,
            seconds,
            decisions,
            decisions_per_second: (seconds > 0.0).then(|| decisions as f64 / seconds),
            latency_us: (!tally.latency.is_empty()).then(latency),
            unanswered: tally.unanswered,
            fast_path_ratio: replicas.and_then(|(before, after)| Totals::fast_path_ratio(&before, &after)),
            replica_cpu_us_per_decision: delta(|totals| totals.cpu_us).and_then(per_decision),
            load_cpu_us_per_decision: load_cpu_us.and_then(per_decision),
            log_bytes_per_decision: delta(|totals| totals.log_bytes).and_then(per_decision),
            answers: tally.counts,
        }
    }
}

impl Report {
    /// `probe` is how many decisions per second this machine can write and send at best.
    pub(crate) fn new(options: &Options, host: Host, measured: &Measured, probe: Option<f64>) -> Report {
        let Measured { recorded, steps, .. } = measured;
        let mut several = Vec::new();
        if steps.len() > 1 {
            let each = steps.iter().zip(&recorded.steps);
            several.extend(each.map(|(step, tally)| Figures::new(step.rate, tally, &[*step])));
        }
        let rate = options.rate.map(|rate| rate as f64);
        let figures = Figures::new(rate, &measured.whole(), steps);
        let contradictions = measured.contradictions.clone();
        Report {
            commit: commit(),
            began_unix_seconds: measured.began_unix_seconds,
            host,
            config: options.clone(),
            durability: if measured.durable { "fsync" } else { "os" },
            probe_ratio: figures.decisions_per_second.zip(probe).map(|(own, probe)| own / probe),
            figures,
            clients_connected: options.clients.map(|_| recorded.clients_connected),
            not_sent: recorded.not_sent,
            errors: recorded.errors.clone(),
            contradictions: contradictions.as_ref().map(|found| found.count),
            contradictions_told: contradictions.unwrap_or_default().texts,
            steps: several,
            series: measured.series.clone(),
        }
    }

    /// Puts the report where it was asked for. If one place does not take it, the others still get it. Returns the
    /// first error.
    pub(crate) fn publish(&self, output: Output, files: Files, measured: &Measured) -> Result<()> {
        let line = format!("{}\n", serde_json::to_string(self)?);
        let mut published = out::print(match output {
            Output::Json => line.clone(),
            Output::Table => self.table(),
        });
        let Files { append, hgrm, html } = files;
        let mut put = |file: Option<ResultFile>, bytes: &dyn Fn() -> Vec<u8>| {
            let written = file.map_or(Ok(()), |mut file| file.write(&bytes()));
            published = std::mem::replace(&mut published, Ok(())).and(written);
        };
        put(append, &|| line.clone().into_bytes());
        put(hgrm, &|| hgrm::text(&measured.whole().latency));
        put(html, &|| html::page(self, measured).into_bytes());
        published
    }

    /// How many of the clients never had all their connections.
    pub(crate) fn clients_missing(&self) -> u64 {
        let asked = self.config.clients.unwrap_or_default();
        self.clients_connected.map_or(0, |connected| asked - connected)
    }

    /// Says which commands the latencies are of, and which they leave out.
    pub(crate) fn latencies_are_of(&self) -> String {
        let Figures { answers, unanswered, .. } = &self.figures;
        let Counts { committed, rejected, found, missing } = answers;
        let mut text = format!("{} answered commands", committed + rejected + found + missing);
        if unanswered + self.not_sent > 0 {
            text += &format!("; without {unanswered} that got no answer and {} never sent", self.not_sent);
        }
        text
    }

    /// The report as a table for people.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        for (name, value) in self.rows() {
            writeln!(text, "{name:>28}  {value}").expect("writing to memory cannot fail");
        }
        if !self.steps.is_empty() {
            text.push('\n');
            text += &step_table(&self.steps);
        }
        text
    }

    /// The names and values of the report, for people.
    pub(crate) fn rows(&self) -> Vec<(&'static str, String)> {
        let figures = &self.figures;
        let mut rows = vec![
            ("decisions", figures.decisions.to_string()),
            ("measured", format!("{:.1} s, durability {}", figures.seconds, self.durability)),
            ("decisions per second", figure(figures.decisions_per_second, 0)),
        ];
        match figures.latency_us {
            None => rows.push(("latency", NOT_MEASURED.to_owned())),
            Some(Latency { p50, p90, p99, p999, max }) => {
                let names = ["latency p50", "p90", "p99", "p99.9", "max"];
                let percentiles = [p50, p90, p99, p999, max].map(|us| format!("{us} us"));
                rows.extend(names.into_iter().zip(percentiles));
            }
        }
        rows.push(("latencies are of", self.latencies_are_of()));
        if let Some((connected, asked)) = self.clients_connected.zip(self.config.clients) {
            rows.push(("clients connected", format!("{connected} of {asked}")));
        }
        rows.push(("fast path ratio", figure(figures.fast_path_ratio, 4)));
        rows.push(("replica CPU us per decision", figure(figures.replica_cpu_us_per_decision, 3)));
        rows.push(("load CPU us per decision", figure(figures.load_cpu_us_per_decision, 3)));
        rows.push(("log bytes per decision", figure(figures.log_bytes_per_decision, 1)));
        let Counts { rejected, found, missing, .. } = figures.answers;
        let others = [("rejected", rejected), ("found", found), ("missing", missing)];
        rows.extend(others.into_iter().filter(|it| it.1 > 0).map(|(name, count)| (name, count.to_string())));
        if self.probe_ratio.is_some() {
            rows.push(("share of the machine's probe", figure(self.probe_ratio, 3)));
        }
        if self.not_sent > 0 {
            rows.push(("due and never sent", self.not_sent.to_string()));
        }
        rows.extend(self.errors.iter().map(|(name, count)| (*name, format!("{count} failed"))));
        if let Some(count) = self.contradictions {
            rows.push(("contradictions", count.to_string()));
        }
        rows
    }
}

impl Measured {
    /// The figures of all steps together.
    pub(crate) fn whole(&self) -> Tally {
        let mut whole = Tally::new();
        self.recorded.steps.iter().for_each(|step| whole.merge(step));
        whole
    }
}

/// The files that a result goes to, open before the run.
pub(crate) struct Files {
    append: Option<ResultFile>,
    hgrm: Option<ResultFile>,
    html: Option<ResultFile>,
}

impl Files {
    pub(crate) fn open(results: &Results) -> Result<Files> {
        Ok(Files {
            append: ResultFile::append(results.append.as_deref())?,
            hgrm: ResultFile::replace(results.hgrm.as_deref(), "--hgrm")?,
            html: ResultFile::replace(results.html.as_deref(), "--html")?,
        })
    }
}

const NOT_MEASURED: &str = "not measured";

fn figure(value: Option<f64>, digits: usize) -> String {
    value.map_or(NOT_MEASURED.to_owned(), |value| format!("{value:.digits$}"))
}

/// The columns of the table of steps.
pub(crate) const STEP_COLUMNS: [&str; 9] =
    ["asked/s", "decisions/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "no answer", "fast path", "CPU us"];

/// The cells of a step, in the order of its columns.
pub(crate) fn step_cells(step: &Figures) -> [String; 9] {
    let ms = |of: fn(&Latency) -> u64| figure(step.latency_us.as_ref().map(|it| of(it) as f64 / 1e3), 3);
    [
        figure(step.rate, 0),
        figure(step.decisions_per_second, 0),
        ms(|latency| latency.p50),
        ms(|latency| latency.p99),
        ms(|latency| latency.p999),
        ms(|latency| latency.max),
        step.unanswered.to_string(),
        figure(step.fast_path_ratio, 4),
        figure(step.replica_cpu_us_per_decision, 3),
    ]
}

fn step_table(steps: &[Figures]) -> String {
    let lines = std::iter::once(STEP_COLUMNS.map(str::to_owned)).chain(steps.iter().map(step_cells));
    lines.map(|cells| cells.map(|cell| format!("{cell:>12}")).join(" ") + "\n").collect()
}

#[cfg(test)]
mod tests;
