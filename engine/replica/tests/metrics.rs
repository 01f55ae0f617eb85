//! What Prometheus sees of a real cluster, and whether the alerts, the dashboards and the documentation speak of just that.

mod support;

use rustix::process::Signal;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::{Cluster, eventually, program, write_lines};

const LINES: usize = 500;

/// The tool of Prometheus that checks metrics and rules.
fn promtool() -> Command {
    Command::new(std::env::var("ISONOMY_TEST_PROMTOOL").unwrap_or_else(|_| "promtool".into()))
}

/// Runs promtool, which must find nothing wrong.
fn assert_content(command: &mut Command, input: &str) {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("there is a promtool: see .ci/tests, or set ISONOMY_TEST_PROMTOOL");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success() && !said.contains("FAILED"), "{said}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn file(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A cluster whose replicas answer HTTP, and their ports for that.
fn start(replicas: usize, shards: u16) -> (Cluster, Vec<u16>) {
    let mut cluster = Cluster::prepare(replicas, shards);
    let ports = isonomy_tuning::ports::free_ranges(replicas, 1).unwrap();
    for (index, port) in ports.iter().enumerate() {
        let http = format!("[http]\nlisten = \"127.0.0.1:{port}\"\n");
        fs::write(cluster.config_path(index), cluster.config(index) + &http).unwrap();
        cluster.spawn(index);
    }
    cluster.wait_linked();
    (cluster, ports)
}

/// The head and the body of an answer; empty if there is none.
fn get(port: u16, path: &str, accept: &str) -> (String, String) {
    let asked = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(support::PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\naccept: {accept}\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = asked().unwrap_or_default();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    (head.to_owned(), body.to_owned())
}

fn scrape(port: u16) -> String {
    get(port, "/metrics", "text/plain").1
}

/// The sum of all values of a metric that have these labels.
fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    let values = text.lines().filter_map(|line| {
        let (metric, value) = line.rsplit_once(' ')?;
        let (found, of) = metric.split_once('{').unwrap_or((metric, ""));
        (found == name && labels.iter().all(|label| of.contains(label)))
            .then(|| value.parse::<f64>().unwrap())
    });
    values.sum()
}

/// The metrics that are described, with their types.
fn described(text: &str) -> BTreeMap<String, String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

/// The names under which the values of described metrics are found.
fn names_of_values(described: &BTreeMap<String, String>) -> BTreeSet<String> {
    let names = described.iter().flat_map(|(name, kind)| match kind.as_str() {
        "histogram" => ["bucket", "sum", "count"].map(|part| format!("{name}_{part}")).to_vec(),
        _ => vec![name.clone()],
    });
    names.collect()
}

/// The metrics that an expression names.
fn metrics_in(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
    let prefixes = ["isonomy_", "epaxos_", "kafka_", "etcd_", "process_"];
    words.filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix))).map(str::to_owned).collect()
}

/// The expressions of the rules. Each is on the line of its key, or is folded on lines that are further to the right.
fn expressions_of_rules() -> Vec<String> {
    let text = file("deploy/prometheus/rules.yml");
    let mut lines = text.lines().peekable();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let Some(expression) = line.strip_prefix("        expr: ") else { continue };
        let mut expression = expression.to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with("          ")) {
            expression += more;
        }
        found.push(expression);
    }
    found
}

/// The alerts, by the sections of the runbook that they name.
fn runbook() -> BTreeMap<String, String> {
    let text = file("deploy/prometheus/rules.yml");
    let mut alert = "";
    let mut sections = BTreeMap::new();
    for line in text.lines() {
        alert = line.strip_prefix("      - alert: ").unwrap_or(alert);
        if let Some(section) = line.trim().strip_prefix("runbook: docs/OPERATIONS.md#") {
            sections.insert(section.to_owned(), alert.to_owned());
        }
    }
    sections
}

#[test]
fn a_real_cluster_exports_what_is_documented_and_what_alerts_and_dashboards_ask_for() {
    let (cluster, ports) = start(3, 2);
    let path = cluster.dir.path().join("lines.jsonl");
    write_lines(&path, (0..LINES).map(|line| format!("{{\"order\": \"o-{}\", \"n\": {line}}}", line % 50)));
    let mut propose = program();
    propose.args(["propose", "--from"]).arg(&path).args(["--key", "order"]);
    propose.args(["--connect", &cluster.addresses().join(",")]);
    let proposed = propose.output().unwrap();
    assert!(proposed.status.success(), "{}", String::from_utf8_lossy(&proposed.stderr));
    cluster.wait_agreed();

    // A shard tells what it measures once a second.
    let all =
        |name: &str, labels: &[&str]| ports.iter().map(|port| sum(&scrape(*port), name, labels)).sum::<f64>();
    eventually("all decisions are counted at all replicas", || {
        all("isonomy_decisions_total", &[]) >= 3.0 * LINES as f64
    });
    let (proposed, committed) =
        (all("epaxos_proposals_total", &[]), all("isonomy_instances_committed_total", &[]));
    assert!(proposed >= LINES as f64 && committed > 0.0, "{proposed} proposed, {committed} committed");
    let (answered, failed) =
        (all("isonomy_command_duration_seconds_count", &[]), all("isonomy_request_failures_total", &[]));
    assert!(
        answered >= LINES as f64 && (failed > 0.0 || answered == proposed),
        "{answered} of {proposed} answered"
    );
    assert!(all("isonomy_log_write_duration_seconds_count", &[]) > 0.0);
    assert_eq!(
        all("isonomy_peer_connected", &[]),
        12.0,
        "two peers for each of two shards of three replicas"
    );

    let text = scrape(ports[0]);
    assert_content(promtool().args(["check", "metrics"]), &text);
    let (head, open) =
        get(ports[0], "/metrics", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
    assert!(head.to_lowercase().contains("content-type: application/openmetrics-text"), "{head}");
    assert!(open.ends_with("# EOF\n"));

    let described = described(&text);
    let documented: BTreeMap<String, String> = file("docs/METRICS.md")
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            Some((cells.next()?.trim_end_matches('`').to_owned(), cells.next()?.to_owned()))
        })
        .collect();
    assert_eq!(documented, described, "docs/METRICS.md lists what is exported");
    let exported = names_of_values(&described);
    let asked: BTreeSet<String> =
        expressions_of_rules().iter().chain(&dashboard().1).flat_map(|it| metrics_in(it)).collect();
    assert!(asked.len() > 30, "the expressions are read: {asked:?}");
    let unknown: Vec<_> = asked.difference(&exported).collect();
    assert!(unknown.is_empty(), "no replica exports {unknown:?}");

    let (head, page) = get(ports[0], "/", "text/html");
    assert!(
        head.contains("content-security-policy: default-src 'none'") && page.contains("Isonomy"),
        "{head}"
    );
    let status: Value = serde_json::from_str(&get(ports[0], "/v1/status", "*/*").1).unwrap();
    assert_eq!((&status["shards_all"], &status["shards_serving"]), (&2.into(), &2.into()));
    let shard = &status["shards"][0];
    assert!(
        shard["shard_age_ms"].is_u64() && shard["requests"]["latency_us"]["buckets"].is_array(),
        "{shard}"
    );

    // Whoever stands still is seen by the others, and does not keep them from answering.
    cluster.signal(2, Signal::STOP);
    eventually("a peer is seen to be gone", || {
        sum(&scrape(ports[0]), "isonomy_peer_connected", &["peer=\"2\""]) == 0.0
    });
    let top =
        program().args(["top", "--once", "--connect", &cluster.addresses().join(",")]).output().unwrap();
    let shown = String::from_utf8(top.stdout).unwrap();
    assert!(top.status.success() && shown.matches("reaches 2 of 3").count() == 2, "{shown}");
    assert_eq!(shown.matches("NO STATUS").count(), 1, "{shown}");
    cluster.signal(2, Signal::CONT);
}

#[test]
fn the_alerts_fire_when_they_should_and_each_has_a_section_in_the_runbook() {
    let dir = root().join("deploy/prometheus");
    assert_content(promtool().args(["check", "config", "prometheus.yml"]).current_dir(&dir), "");
    assert_content(promtool().args(["check", "rules", "rules.yml"]).current_dir(&dir), "");
    assert_content(promtool().args(["test", "rules", "rules_test.yml"]).current_dir(&dir), "");
    let runbook = runbook();
    let (rules, tests, operations) = (
        file("deploy/prometheus/rules.yml"),
        file("deploy/prometheus/rules_test.yml"),
        file("docs/OPERATIONS.md"),
    );
    assert_eq!(runbook.len(), rules.matches("- alert: ").count(), "each alert names a section of its own");
    for (section, alert) in runbook {
        assert_eq!(section, alert.to_lowercase());
        assert!(
            operations.contains(&format!("\n#### {alert}\n")),
            "docs/OPERATIONS.md has no section {alert}"
        );
        let tested = tests.split("  - interval: ").find(|test| test.contains(&format!("name: {alert}\n")));
        let tested = tested.unwrap_or_else(|| panic!("{alert} is not tested"));
        assert!(tested.contains("exp_alerts: []") && tested.contains("exp_labels"), "{alert}");
    }
}

/// The names of the panels of the dashboard, and their expressions.
fn dashboard() -> (Vec<String>, Vec<String>) {
    let dashboard: Value = serde_json::from_str(&file("deploy/grafana/isonomy.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
    let (mut titles, mut expressions) = (Vec::new(), Vec::new());
    for panel in panels {
        titles.push(panel["title"].as_str().unwrap().to_owned());
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{} shows nothing", panel["title"]);
        expressions.extend(targets.iter().map(|target| target["expr"].as_str().unwrap().to_owned()));
    }
    (titles, expressions)
}

#[test]
fn prometheus_understands_every_expression_of_the_dashboard() {
    let (titles, expressions) = dashboard();
    assert!(titles.len() >= 12 && expressions.len() >= titles.len());
    let rules = expressions.iter().enumerate().map(|(index, expression)| {
        let expression = expression.replace("$__rate_interval", "1m").replace("$job", "isonomy");
        assert!(!expression.replace("$instance", "").replace("$shard", "").contains('$'), "{expression}");
        format!("  - record: panel:{index}\n    expr: {}\n", serde_json::to_string(&expression).unwrap())
    });
    let text = format!("groups:\n- name: panels\n  rules:\n{}", rules.collect::<String>());
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("panels.yml"), text).unwrap();
    assert_content(promtool().args(["check", "rules", "panels.yml"]).current_dir(dir.path()), "");
}
