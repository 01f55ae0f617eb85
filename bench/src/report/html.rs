//! The report as one page that needs nothing from elsewhere.

use super::chart::{Axis, COLOURS, Line, draw};
use super::{Report, STEP_COLUMNS, step_cells};
use crate::load::Measured;
use crate::load::series::{Point, PointLatency};
use hdrhistogram::Histogram;
use serde_json::Value;
use std::fmt::Write as _;

/// Points of a percentile curve for each halving of the distance to the maximum.
const CURVE_STEPS: u32 = 8;
/// Percentiles that have room below a chart, besides the first.
const LABELS_MAX: usize = 6;
/// Steps that have a curve of their own.
const CURVES_MAX: usize = COLOURS;

/// The page.
pub(super) fn page(report: &Report, measured: &Measured) -> String {
    let mut body = header(report);
    body += &tiles(report);
    body += "<div class=\"cards\">\n";
    body += &card("Latency by percentile", &percentiles(measured));
    body += &card("Latency over time, as answered", &latency_over_time(&report.series));
    body += &card("Decisions per second", &throughput_over_time(&report.series));
    body += &card("Fast path ratio", &ratio_over_time(&report.series));
    if !report.steps.is_empty() {
        let rows = report.steps.iter().map(|step| step_cells(step).to_vec());
        body +=
            &format!("<section class=\"card wide\"><h2>Steps</h2>{}</section>\n", table(&STEP_COLUMNS, rows));
    }
    let rows = report.rows().into_iter().map(|(name, value)| vec![name.to_owned(), value]);
    body += &card("Result", &table(&[], rows));
    body += &card("Configuration", &table(&[], configuration(report).into_iter()));
    body += "</div>\n";
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>Isonomy under load</title>\n\
         <style>\n{}</style>\n<body>\n{body}<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        include_str!("page.css")
    )
}

/// Shows when the run was, in the reader's own time.
const SCRIPT: &str = "for (const time of document.querySelectorAll('time'))\n  \
    time.textContent = new Date(1000 * time.dateTime).toLocaleString();\n";

fn header(report: &Report) -> String {
    let host = &report.host;
    let known =
        [host.name.clone(), host.cpu_model.clone(), host.kernel.as_ref().map(|it| format!("Linux {it}"))];
    let mut facts: Vec<String> = known.into_iter().flatten().map(|text| escape(&text)).collect();
    facts.insert(facts.len().min(2), format!("{} cores", host.cores));
    if let Some(commit) = &report.commit {
        facts.push(format!("commit {}", escape(commit)));
    }
    let began = report.began_unix_seconds;
    facts.push(format!("<time datetime=\"{began}\">{began} s after 1970</time>"));
    let mut text = format!("<h1>Isonomy under load</h1>\n<p>{}</p>\n", facts.join(" · "));
    if report.figures.unanswered + report.not_sent > 0 {
        text += &format!("<p class=\"wrong\">latencies are of {}</p>\n", report.latencies_are_of());
    }
    if report.clients_missing() > 0 {
        text += &format!("<p class=\"wrong\">{} clients never connected</p>\n", report.clients_missing());
    }
    for told in &report.contradictions_told {
        text += &format!("<p class=\"wrong\">contradiction: {}</p>\n", escape(told));
    }
    text
}

fn tiles(report: &Report) -> String {
    let figures = &report.figures;
    let latency =
        |of: fn(&super::Latency) -> u64| figures.latency_us.as_ref().map(|it| micros(of(it) as f64));
    let tiles = [
        ("decisions per second", figures.decisions_per_second.map(grouped)),
        ("latency p50", latency(|it| it.p50)),
        ("latency p99", latency(|it| it.p99)),
        ("latency p99.9", latency(|it| it.p999)),
        ("latency max", latency(|it| it.max)),
        ("fast path", figures.fast_path_ratio.map(|ratio| format!("{:.2} %", 100.0 * ratio))),
    ];
    let mut text = String::from("<div class=\"tiles\">\n");
    for (name, value) in tiles {
        let value = value.unwrap_or("–".into());
        writeln!(text, "<div><b>{value}</b><span>{name}</span></div>")
            .expect("writing to memory cannot fail");
    }
    text + "</div>\n"
}

fn card(title: &str, content: &str) -> String {
    format!("<section class=\"card\"><h2>{title}</h2>\n{content}</section>\n")
}

/// Names the lines, if there are several.
fn legend(lines: &[Line]) -> String {
    if lines.len() < 2 {
        return String::new();
    }
    let names = lines.iter().enumerate();
    let names = names
        .map(|(index, line)| format!("<span><i class=\"c{}\"></i>{}</span>", index % COLOURS, line.name));
    format!("<div class=\"legend\">{}</div>\n", names.collect::<String>())
}

fn percentiles(measured: &Measured) -> String {
    let steps = &measured.steps;
    let several = (2..=CURVES_MAX).contains(&steps.len());
    let curves: Vec<(String, Histogram<u64>)> = if several {
        let each = steps.iter().zip(&measured.recorded.steps);
        let name = |rate: Option<f64>| format!("{}/s", rate.map(grouped).unwrap_or_default());
        each.map(|(step, tally)| (name(step.rate), tally.latency.clone())).collect()
    } else {
        vec![("all".into(), measured.whole().latency)]
    };
    let curves: Vec<_> = curves.into_iter().filter(|curve| !curve.1.is_empty()).collect();
    let Some(longest) = curves.iter().map(|curve| curve.1.len()).max() else {
        return "<p>not measured</p>\n".into();
    };
    let least = curves.iter().map(|curve| curve.1.min()).min().unwrap_or(1).max(1);
    let most = curves.iter().map(|curve| curve.1.max()).max().unwrap_or(1);
    let nines = (longest as f64).log10().ceil().max(1.0);
    let lines: Vec<Line> = curves.into_iter().map(|(name, latency)| curve(name, &latency, nines)).collect();
    let label = |nines: u32| match nines {
        0 => "0 %".to_owned(),
        1 => "90 %".to_owned(),
        more => format!("99{}{} %", if more > 2 { "." } else { "" }, "9".repeat(more as usize - 2)),
    };
    let every = (nines as usize).div_ceil(LABELS_MAX);
    let ticks = (0..=nines as u32).step_by(every).map(|nines| (f64::from(nines), label(nines))).collect();
    let y = Axis::logarithmic(least as f64, most as f64, micros);
    let say = |nines: f64, us: f64| format!("{} at {:.5} %", micros(us), 100.0 - 100.0 * 10f64.powf(-nines));
    legend(&lines) + &draw(&Axis::with_ticks(nines, ticks), &y, &lines, say)
}

/// The latencies, by how many nines the percentile has.
fn curve(name: String, latency: &Histogram<u64>, nines_max: f64) -> Line {
    let points = latency.iter_quantiles(CURVE_STEPS).map(|step| {
        let nines = -(1.0 - step.quantile_iterated_to()).log10();
        (nines.min(nines_max), Some(step.value_iterated_to().min(latency.max()) as f64))
    });
    Line { name, points: points.collect() }
}

/// A line of the values that `of` takes from each second.
fn over_time(name: &str, series: &[Point], of: impl Fn(&Point) -> Option<f64>) -> Line {
    let points = series.iter().map(|point| (point.second as f64, of(point)));
    Line { name: name.into(), points: points.collect() }
}

fn time_axis(series: &[Point]) -> Axis {
    Axis::time(series.last().map_or(0.0, |point| point.second as f64))
}

fn largest(lines: &[Line]) -> f64 {
    lines.iter().flat_map(|line| &line.points).filter_map(|point| point.1).fold(0.0, f64::max)
}

fn latency_over_time(series: &[Point]) -> String {
    let line = |name, of: fn(&PointLatency) -> u64| {
        over_time(name, series, |point| point.latency_us.as_ref().map(|latency| of(latency).max(1) as f64))
    };
    let lines = [line("p50", |it| it.p50), line("p99", |it| it.p99), line("max", |it| it.max)];
    let values = lines.iter().flat_map(|line| &line.points).filter_map(|point| point.1);
    let least = values.fold(f64::INFINITY, f64::min);
    if least.is_infinite() {
        return "<p>not measured</p>\n".into();
    }
    let y = Axis::logarithmic(least, largest(&lines), micros);
    let say = |second: f64, us: f64| format!("{} in second {second}", micros(us));
    legend(&lines) + &draw(&time_axis(series), &y, &lines, say)
}

fn throughput_over_time(series: &[Point]) -> String {
    let lines = [over_time("decisions/s", series, |point| Some(point.decisions_per_second))];
    let y = Axis::linear(largest(&lines), short);
    draw(&time_axis(series), &y, &lines, |second, rate| format!("{} in second {second}", grouped(rate)))
}

fn ratio_over_time(series: &[Point]) -> String {
    let lines = [over_time("fast path", series, |point| point.fast_path_ratio.map(|ratio| 100.0 * ratio))];
    let y = Axis::linear(100.0, |percent| format!("{percent} %"));
    let say = |second: f64, percent: f64| format!("{percent:.2} % in second {second}");
    draw(&time_axis(series), &y, &lines, say)
}

fn configuration(report: &Report) -> Vec<Vec<String>> {
    let Ok(Value::Object(config)) = serde_json::to_value(&report.config) else { return Vec::new() };
    let text = |value: Value| match value {
        Value::Null => None,
        Value::Array(all) if all.is_empty() => None,
        Value::String(text) => Some(text),
        Value::Array(all) => {
            let all = all.iter().map(|one| one.as_str().map_or(one.to_string(), str::to_owned));
            Some(all.collect::<Vec<_>>().join(", "))
        }
        other => Some(other.to_string()),
    };
    let set = config.into_iter().filter_map(|(name, value)| Some((name, text(value)?)));
    set.map(|(name, value)| vec![name.replace('_', " "), value]).collect()
}

fn table(columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let row = |tag: &str, cells: &mut dyn Iterator<Item = String>| {
        let cells = cells.map(|cell| format!("<{tag}>{}</{tag}>", escape(&cell)));
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    let mut text = String::from("<table>\n");
    if !columns.is_empty() {
        text += &row("th", &mut columns.iter().map(|name| (*name).to_owned()));
    }
    rows.for_each(|cells| text += &row("td", &mut cells.into_iter()));
    text + "</table>\n"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The text of a number in groups of three digits: 1,234,567.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The short text of a number: 1.2 M.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{} M", (value / 1e5).round() / 10.0),
        value if value >= 1e3 => format!("{} k", (value / 1e2).round() / 10.0),
        value => format!("{value}"),
    }
}

/// A time in microseconds, with the unit that suits it.
fn micros(us: f64) -> String {
    let (value, unit) = match us {
        us if us >= 1e6 => (us / 1e6, "s"),
        us if us >= 1e3 => (us / 1e3, "ms"),
        us => (us, "us"),
    };
    let digits = if value >= 100.0 || value.fract() == 0.0 { 0 } else { 1 };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::super::Host;
    use super::super::tests::measured;
    use super::*;
    use crate::options::tests::parsed;

    #[test]
    fn a_page_has_everything_and_needs_nothing() {
        let measured = measured(2, None);
        let mut report = Report::new(&parsed("--steps 50,60 --clients 9"), Host::here(), &measured, None);
        report.contradictions_told = vec!["key <a>".into()];
        let page = page(&report, &measured);
        assert_eq!(page.matches("<svg").count(), 4, "{page}");
        for text in [
            "Steps",
            "uniform",
            "1,000",
            "50, 60",
            "p99.9",
            "key &lt;a&gt;",
            "durability fsync",
            "4 that got no answer",
            "3 clients never",
        ] {
            assert!(page.replace("1000000", "1,000,000").contains(text), "{text} in {page}");
        }
        for text in ["http:", "https:", "<link", "NaN", "inf"] {
            assert!(!page.contains(text), "{text} in {page}");
        }
    }

    #[test]
    fn a_page_can_do_without_anything_measured() {
        let mut measured = measured(1, None);
        measured.series.clear();
        measured.recorded.steps[0].latency.clear();
        let page = page(&Report::new(&parsed(""), Host::here(), &measured, None), &measured);
        assert!(page.contains("not measured") && !page.contains("NaN"), "{page}");
    }

    #[test]
    fn figures_are_written_for_people() {
        assert_eq!([grouped(7.0), grouped(123_456.0), grouped(1_234_567.2)], ["7", "123,456", "1,234,567"]);
        assert_eq!([short(1_500_000.0), short(250_000.0), short(12.0)], ["1.5 M", "250 k", "12"]);
        assert_eq!(
            [micros(15.0), micros(1500.0), micros(2e6), micros(123_456.0)],
            ["15 us", "1.5 ms", "2 s", "123 ms"]
        );
    }
}
