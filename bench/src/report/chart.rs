//! Line charts as SVG. Colours are the page's, by class.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
/// Room for the labels: left, right, top, bottom.
const MARGINS: [f64; 4] = [64.0, 40.0, 12.0, 32.0];
/// A line with more points than this has no marks to hover over.
const MARKED_POINTS_MAX: usize = 240;
/// The number of colours that the page has. Further lines begin again.
pub(super) const COLOURS: usize = 6;

/// A direction of a chart: its range, and the labels along it.
pub(super) struct Axis {
    from: f64,
    to: f64,
    logarithmic: bool,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// An axis from 0 in even steps.
    pub(super) fn linear(to: f64, label: impl Fn(f64) -> String) -> Axis {
        let to = if to > 0.0 { to } else { 1.0 };
        let step = even_step(to / 5.0);
        let top = (to / step).ceil();
        let ticks = (0..=top as u64).map(|n| (n as f64 * step, label(n as f64 * step)));
        Axis { from: 0.0, to: top * step, logarithmic: false, ticks: ticks.collect() }
    }

    /// An axis from 0 to just `to`, in steps that look well.
    pub(super) fn time(to: f64) -> Axis {
        let mut axis = Axis::linear(to, |seconds| format!("{seconds} s"));
        axis.to = to.max(1.0);
        axis.ticks.retain(|tick| tick.0 <= axis.to);
        axis
    }

    /// An axis with the powers of ten around two values above 0.
    pub(super) fn logarithmic(from: f64, to: f64, label: impl Fn(f64) -> String) -> Axis {
        let (low, high) = (from.log10().floor(), to.log10().ceil());
        let high = high.max(low + 1.0);
        // If there are few powers, the values in between have room, too.
        let between: &[f64] = if high - low > 3.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let powers = (0..=(high - low) as i32).map(|power| 10f64.powi(low as i32 + power));
        let ticks = powers.flat_map(|power| between.iter().map(move |times| power * times));
        let ticks = ticks.map(|tick| (tick, label(tick)));
        let mut axis =
            Axis { from: 10f64.powf(low), to: 10f64.powf(high), logarithmic: true, ticks: ticks.collect() };
        axis.ticks.retain(|tick| tick.0 <= axis.to * 1.0001);
        axis
    }

    /// An axis with given ticks.
    pub(super) fn with_ticks(to: f64, ticks: Vec<(f64, String)>) -> Axis {
        Axis { from: 0.0, to, logarithmic: false, ticks }
    }

    /// The place of a value, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let at = |value: f64| if self.logarithmic { value.max(self.from).log10() } else { value };
        ((at(value) - at(self.from)) / (at(self.to) - at(self.from))).clamp(0.0, 1.0)
    }
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn even_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|times| times * power).find(|step| *step >= least).unwrap_or(10.0 * power)
}

/// A line, which is broken where there is no value.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, Option<f64>)>,
}

/// Draws a chart. `say` gives the text for hovering over a point.
pub(super) fn draw(x: &Axis, y: &Axis, lines: &[Line], say: impl Fn(f64, f64) -> String) -> String {
    let [left, right, top, bottom] = MARGINS;
    let (width, height) = (WIDTH - left - right, HEIGHT - top - bottom);
    let across = |value: f64| left + width * x.place(value);
    let up = |value: f64| top + height * (1.0 - y.place(value));
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n");
    let mut push = |text: String| svg.push_str(&(text + "\n"));
    for (value, label) in &y.ticks {
        let at = up(*value);
        push(format!(
            "<line class=\"grid\" x1=\"{left}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>",
            left + width
        ));
        push(format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            left - 8.0,
            at + 4.0
        ));
    }
    for (value, label) in &x.ticks {
        let (at, foot) = (across(*value), top + height);
        push(format!("<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{foot:.1}\"/>"));
        push(format!("<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>", foot + 20.0));
    }
    for (index, line) in lines.iter().enumerate() {
        let colour = index % COLOURS;
        push(format!("<path class=\"line c{colour}\" d=\"{}\"/>", path(&line.points, across, up)));
        let marked = line.points.len() <= MARKED_POINTS_MAX;
        for (value_x, value_y) in line.points.iter().filter(|_| marked) {
            let Some(value_y) = value_y else { continue };
            let (at_x, at_y) = (across(*value_x), up(*value_y));
            let title = format!("{}: {}", line.name, say(*value_x, *value_y));
            push(format!(
                "<circle class=\"mark c{colour}\" cx=\"{at_x:.1}\" cy=\"{at_y:.1}\" r=\"4\"><title>{title}</title></circle>"
            ));
        }
    }
    svg + "</svg>\n"
}

fn path(points: &[(f64, Option<f64>)], across: impl Fn(f64) -> f64, up: impl Fn(f64) -> f64) -> String {
    let mut path = String::new();
    let mut pen_down = false;
    for (x, y) in points {
        if let Some(y) = y {
            let verb = if pen_down { 'L' } else { 'M' };
            write!(path, "{verb}{:.1} {:.1}", across(*x), up(*y)).expect("writing to memory cannot fail");
        }
        pen_down = y.is_some();
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_even_values() {
        let labels = |axis: &Axis| axis.ticks.iter().map(|tick| tick.1.clone()).collect::<Vec<_>>();
        let plain = |value: f64| value.to_string();
        let axis = Axis::linear(1_430_000.0, plain);
        assert_eq!(labels(&axis), ["0", "500000", "1000000", "1500000"]);
        assert_eq!(labels(&Axis::linear(0.0, plain)).first().unwrap(), "0");
        let axis = Axis::logarithmic(0.3, 40.0, plain);
        assert_eq!(labels(&axis), ["0.1", "0.2", "0.5", "1", "2", "5", "10", "20", "50", "100"]);
        assert_eq!((axis.place(0.1), axis.place(100.0), axis.place(0.0)), (0.0, 1.0, 0.0));
        assert_eq!(labels(&Axis::time(3.0)), ["0 s", "1 s", "2 s", "3 s"]);
    }

    #[test]
    fn a_line_is_broken_where_there_is_no_value() {
        let points = [(0.0, Some(1.0)), (1.0, Some(2.0)), (2.0, None), (3.0, Some(1.0))];
        assert_eq!(path(&points, |x| x, |y| y), "M0.0 1.0L1.0 2.0M3.0 1.0");
    }
}
