//! The percentile file of HdrHistogram.

use hdrhistogram::Histogram;
use std::io::Write;

/// Lines per halving of the distance to the maximum in a percentile file.
const HGRM_STEPS: u32 = 5;

/// The percentile file that HdrHistogram's plotters read, in milliseconds.
pub(crate) fn text(latency: &Histogram<u64>) -> Vec<u8> {
    let mut out = Vec::new();
    write(latency, &mut out).expect("writing to memory cannot fail");
    out
}

fn write(latency: &Histogram<u64>, out: &mut Vec<u8>) -> std::io::Result<()> {
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
    writeln!(out, "#[Max     = {:12.3}, Total count    = {:12}]", latency.max() as f64 / 1e3, latency.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::record::latencies;

    #[test]
    fn a_percentile_file_ends_with_all_of_it() {
        let mut latency = latencies();
        (1..=1000).for_each(|us| latency.record(us).unwrap());
        let text = String::from_utf8(text(&latency)).unwrap();
        assert!(text.contains("1.000 1.000000000000       1000"), "{text}");
        assert!(text.contains("Total count    =         1000]"), "{text}");
    }
}
