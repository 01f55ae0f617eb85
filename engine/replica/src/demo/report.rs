//! The results of a demo: the checks and the figures, as a table or as JSON.

use isonomy_kafka::settings::Format;
use serde_json::{Value, json};
use std::time::Duration;

use super::prober::Pause;

/// A check of the demo.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) ok: bool,
    pub(crate) detail: String,
}

/// The figures of the kill of a replica under load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kill {
    /// The longest pause of the others from the kill to the restart.
    pub(crate) at_kill: Pause,
    /// The longest pause of the others from the restart on.
    pub(crate) at_return: Pause,
    pub(crate) caught_up: Option<Duration>,
}

/// The figures of the replacement of a replica under load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replaced {
    /// The epoch that began with the new incarnation.
    pub(crate) epoch: u32,
    /// The longest pause of the others.
    pub(crate) pause: Pause,
    /// From the loss of the directory until the replica had caught up in the new epoch.
    pub(crate) whole_after: Option<Duration>,
}

/// The figures of the events that went through Kafka.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pipeline {
    /// What a record of the topic of decisions held.
    pub(crate) format: Format,
    /// How many events there were.
    pub(crate) events: u64,
    /// The events per second from the first that was sent to the last decision that was read.
    pub(crate) through: f64,
    /// The same for events that went through one topic only.
    pub(crate) alone: f64,
}

/// All results of a demo.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) replicas: u8,
    pub(crate) shards: u16,
    pub(crate) load: Option<Value>,
    /// Per replica and shard, at the end.
    pub(crate) state_hashes: Vec<Vec<String>>,
    pub(crate) agree: bool,
    pub(crate) kill: Option<Kill>,
    pub(crate) replaced: Option<Replaced>,
    pub(crate) pipeline: Option<Pipeline>,
    pub(crate) checks: Vec<Check>,
}

impl Report {
    pub(crate) fn check(&mut self, name: &'static str, ok: bool, detail: impl Into<String>) {
        self.checks.push(Check { name, ok, detail: detail.into() });
    }

    pub(crate) fn check_pause(&mut self, name: &'static str, pause: Pause, allowed: Duration) {
        let detail = format!(
            "no answer came for {} ms at most, or {} ms without the times at which the whole machine stood \
             still; {} ms are allowed",
            pause.total.as_millis(),
            pause.running.as_millis(),
            allowed.as_millis()
        );
        self.check(name, pause.running <= allowed, detail);
    }

    pub(crate) fn ok(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.ok)
    }

    pub(crate) fn to_json(&self) -> Value {
        let millis = |duration: Duration| (duration.as_secs_f64() * 1e5).round() / 100.0;
        let kill = self.kill.map(|kill| {
            json!({
                "kill_pause_ms": millis(kill.at_kill.total),
                "return_pause_ms": millis(kill.at_return.total),
                "caught_up_ms": kill.caught_up.map(millis),
            })
        });
        let replaced = self.replaced.map(|replaced| {
            json!({
                "epoch": replaced.epoch,
                "pause_ms": millis(replaced.pause.total),
                "whole_after_ms": replaced.whole_after.map(millis),
            })
        });
        let checks = self.checks.iter();
        let checks = checks.map(|check| json!({"name": check.name, "ok": check.ok, "detail": check.detail}));
        json!({
            "replicas": self.replicas,
            "shards": self.shards,
            "load": self.load,
            "state_hashes": self.state_hashes,
            "agree": self.agree,
            "kill": kill,
            "replaced": replaced,
            "pipeline": self.pipeline.map(|it| {
                json!({
                    "format": it.format.to_string(),
                    "events": it.events,
                    "events_per_second": it.through.round(),
                    "kafka_alone_events_per_second": it.alone.round(),
                })
            }),
            "checks": checks.collect::<Vec<_>>(),
            "ok": self.ok(),
        })
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        if let Some(load) = &self.load {
            text.push('\n');
            for (name, value) in figures(load) {
                text += &format!("  {name:<34} {value}\n");
            }
        }
        if let Some(kill) = &self.kill {
            let ms = |pause: Pause| pause.total.as_secs_f64() * 1e3;
            let mut row = |name: &str, ms: f64| text += &format!("  {name:<34} {ms:.0} ms\n");
            row("kill -9: longest pause of others", ms(kill.at_kill));
            row("restart: longest pause of others", ms(kill.at_return));
            if let Some(caught_up) = kill.caught_up {
                row("restart: caught up after", caught_up.as_secs_f64() * 1e3);
            }
        }
        if let Some(replaced) = &self.replaced {
            let pause = format!("{:.0} ms", replaced.pause.total.as_secs_f64() * 1e3);
            text += &format!("  {:<34} {pause}\n", "replace: longest pause of others");
            if let Some(whole) = replaced.whole_after {
                text += &format!("  {:<34} {:.1} s\n", "replace: whole again after", whole.as_secs_f64());
            }
        }
        if let Some(Pipeline { format, events, through, alone }) = self.pipeline {
            let share = through / alone;
            for (name, value) in [
                ("events, each a decision", events.to_string()),
                ("format of the decisions", format.to_string()),
                ("events per second, whole pipeline", format!("{through:.0}")),
                ("events per second, Kafka alone", format!("{alone:.0}")),
                ("share", format!("{share:.2}")),
            ] {
                text += &format!("  {name:<34} {value}\n");
            }
        }
        text.push('\n');
        for Check { name, ok, detail } in &self.checks {
            text += &format!("  {} {name}: {detail}\n", if *ok { "ok  " } else { "FAIL" });
        }
        text
    }
}

/// The figures of a load for people. Figures that were not measured are left out.
fn figures(load: &Value) -> Vec<(&'static str, String)> {
    let mut figures = Vec::new();
    let mut add = |name, pointer: &str, show: &dyn Fn(f64) -> String| {
        if let Some(value) = load.pointer(pointer).and_then(Value::as_f64) {
            figures.push((name, show(value)));
        }
    };
    add("decisions", "/decisions", &|it| format!("{it:.0}"));
    add("decisions per second", "/decisions_per_second", &|it| format!("{it:.0}"));
    for (name, pointer) in [
        ("latency p50", "/latency_us/p50"),
        ("latency p99", "/latency_us/p99"),
        ("latency p99.9", "/latency_us/p999"),
        ("latency max", "/latency_us/max"),
    ] {
        add(name, pointer, &|it| format!("{:.2} ms", it / 1e3));
    }
    add("fast path", "/fast_path_ratio", &|it| format!("{:.2} %", 100.0 * it));
    add("CPU of all replicas per million", "/replica_cpu_us_per_decision", &|it| format!("{it:.2} s"));
    add("log bytes per decision, all", "/log_bytes_per_decision", &|it| format!("{it:.0}"));
    if let Some(durability) = load.pointer("/durability").and_then(Value::as_str) {
        figures.push(("durability", durability.into()));
    }
    figures
}
