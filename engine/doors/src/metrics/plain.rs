//! The text format that Prometheus and its tools have always read. It differs from OpenMetrics in the description of
//! counters, which has their whole name here, and in the last line.

/// The same metrics in the older format.
pub(super) fn from_open_metrics(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut lines = text.lines().filter(|line| *line != "# EOF").peekable();
    while let Some(line) = lines.next() {
        let described = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' '));
        let next = lines.peek().and_then(|next| next.strip_prefix("# TYPE "));
        match (described, next.and_then(|next| next.strip_suffix(" counter"))) {
            (Some((name, help)), Some(counter)) if name == counter => {
                plain += &format!("# HELP {name}_total {help}\n# TYPE {name}_total counter\n");
                lines.next();
            }
            _ => {
                plain += line;
                plain.push('\n');
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::from_open_metrics;

    #[test]
    fn counters_are_described_with_their_whole_names() {
        let open = "# HELP a Of a\n# TYPE a counter\na_total{x=\"1\"} 5.0\n# HELP b Of b\n# TYPE b gauge\nb 1.0\n\
                    # HELP c Of c\n# TYPE c histogram\nc_sum 0.5\n# EOF\n";
        let plain = "# HELP a_total Of a\n# TYPE a_total counter\na_total{x=\"1\"} 5.0\n# HELP b Of b\n# TYPE b gauge\nb \
                     1.0\n# HELP c Of c\n# TYPE c histogram\nc_sum 0.5\n";
        assert_eq!(from_open_metrics(open), plain);
    }
}
