use super::*;
use crate::load::Sample;
use crate::load::ledger::Contradictions;
use crate::load::record::Recorded;
use crate::load::series::PointLatency;
use crate::options::tests::parsed;
use isonomy_wire::id::Epoch;
use serde_json::Value;

fn step(rate: Option<f64>, replicas: Option<(Totals, Totals)>) -> MeasuredStep {
    let (before, after) = replicas.unzip();
    let before = Sample { replicas: before, ..Sample::default() };
    let after = Sample { replicas: after, load_cpu_us: 50, ..Sample::default() };
    MeasuredStep { rate, seconds: 2.0, before, after }
}

pub(super) fn measured(steps: usize, replicas: Option<(Totals, Totals)>) -> Measured {
    let mut recorded = Recorded::new(steps);
    for tally in &mut recorded.steps {
        tally.counts.committed = 100;
        tally.unanswered = 2;
        (1..=100).for_each(|us| tally.latency.record(us).unwrap());
    }
    recorded.errors.insert("timed_out", 2);
    recorded.clients_connected = 6;
    let latency_us = Some(PointLatency { p50: 50, p99: 99, max: 100 });
    let point = |second| Point {
        second,
        decisions_per_second: 50.0,
        latency_us: latency_us.filter(|_| second != 1),
        fast_path_ratio: Some(0.5),
    };
    Measured {
        began_unix_seconds: 7,
        recorded,
        steps: vec![step(Some(50.0), replicas); steps],
        series: (0..3).map(point).collect(),
        durable: true,
        contradictions: None,
    }
}

fn report(measured: &Measured) -> (Report, Value) {
    let report = Report::new(&parsed("--rate 50 --hgrm x"), Host::here(), measured, Some(200.0));
    let json = serde_json::to_value(&report).unwrap();
    (report, json)
}

fn names(value: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

const BEFORE: Totals = Totals { epoch: Epoch(1), fast: 0, slow: 0, log_bytes: 0, cpu_us: 0 };
const AFTER: Totals = Totals { epoch: Epoch(1), fast: 30, slow: 10, log_bytes: 8000, cpu_us: 200 };

#[test]
fn the_names_are_a_contract() {
    let (report, json) = report(&measured(1, Some((BEFORE, AFTER))));
    let figures = [
        "answers",
        "decisions",
        "decisions_per_second",
        "fast_path_ratio",
        "latency_us",
        "load_cpu_us_per_decision",
        "log_bytes_per_decision",
        "rate",
        "replica_cpu_us_per_decision",
        "seconds",
        "unanswered",
    ];
    let others = [
        "began_unix_seconds",
        "clients_connected",
        "commit",
        "config",
        "contradictions",
        "durability",
        "errors",
        "host",
        "not_sent",
        "probe_ratio",
    ];
    let mut expected = [&figures[..], &others, &["series", "steps"]].concat();
    expected.sort_unstable();
    assert_eq!(names(&json), expected);
    assert_eq!(names(&json["host"]), ["cores", "cpu_model", "kernel", "name"]);
    assert_eq!(names(&json["latency_us"]), ["max", "p50", "p90", "p99", "p999"]);
    assert_eq!(names(&json["answers"]), ["committed", "found", "missing", "rejected"]);
    let point = ["decisions_per_second", "fast_path_ratio", "latency_us", "second"];
    assert_eq!((names(&json["series"][0]), &json["steps"]), (point.to_vec(), &serde_json::json!([])));
    assert_eq!((&json["durability"], &json["decisions_per_second"]), (&"fsync".into(), &50.0.into()));
    assert_eq!((&json["latency_us"]["p99"], &json["errors"]["timed_out"]), (&99.into(), &2.into()));
    assert_eq!((&json["fast_path_ratio"], &json["log_bytes_per_decision"]), (&0.75.into(), &80.0.into()));
    assert_eq!((&json["replica_cpu_us_per_decision"], &json["probe_ratio"]), (&2.0.into(), &0.25.into()));
    assert_eq!((&json["config"]["rate"], &json["config"]["window"]), (&50.into(), &Value::Null));
    assert_eq!(json["config"].get("hgrm"), None, "where results go is no part of what was measured");
    assert!(report.table().contains("fast path ratio  0.7500"), "{}", report.table());

    let told = "latencies are of  100 answered commands; without 2 that got no answer and 0 never sent";
    assert!(report.table().contains(told), "{}", report.table());
    assert_eq!((&json["unanswered"], &json["clients_connected"]), (&2.into(), &Value::Null));
    let clients = Report::new(&parsed("--clients 8"), Host::here(), &measured(1, None), None);
    assert!(clients.table().contains("clients connected  6 of 8"), "{}", clients.table());

    let (report, json) = self::report(&measured(2, Some((BEFORE, AFTER))));
    assert_eq!(names(&json["steps"][1]), figures);
    assert_eq!((&json["decisions"], &json["steps"][1]["decisions"]), (&200.into(), &100.into()));
    assert!(report.table().contains("asked/s  decisions/s"), "{}", report.table());
}

#[test]
fn what_was_not_measured_is_null() {
    let (report, json) = report(&measured(1, None));
    for name in ["fast_path_ratio", "replica_cpu_us_per_decision", "log_bytes_per_decision", "contradictions"]
    {
        assert_eq!(json[name], Value::Null, "{name}");
    }
    assert!(report.table().contains("not measured"));
    // A replica was started anew: its counters are smaller than before.
    let before = Totals { epoch: Epoch(1), fast: 5, slow: 5, log_bytes: 5, cpu_us: 5 };
    let json = self::report(&measured(1, Some((before, BEFORE)))).1;
    assert_eq!((&json["fast_path_ratio"], &json["log_bytes_per_decision"]), (&Value::Null, &Value::Null));
    // The sums are those of other replicas after a change of the members.
    let json = self::report(&measured(1, Some((BEFORE, Totals { epoch: Epoch(2), ..AFTER })))).1;
    assert_eq!((&json["fast_path_ratio"], &json["log_bytes_per_decision"]), (&Value::Null, &Value::Null));
    // The run ended before anything was measured, since an answer was wrong.
    let contradictions = Some(Contradictions { count: 1, texts: vec!["key a".into()] });
    let recorded = Recorded::new(1);
    let nothing = Measured {
        recorded,
        steps: vec![],
        series: vec![],
        durable: false,
        contradictions,
        ..measured(1, None)
    };
    let (report, json) = self::report(&nothing);
    assert_eq!((&json["latency_us"], &json["load_cpu_us_per_decision"]), (&Value::Null, &Value::Null));
    assert_eq!((&json["decisions"], &json["decisions_per_second"]), (&0.into(), &Value::Null));
    assert_eq!((&json["durability"], &json["contradictions"]), (&"os".into(), &1.into()));
    assert_eq!(report.contradictions_told, ["key a"]);
}
