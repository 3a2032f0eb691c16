//! Charts as SVG text: lines with marked points, and histograms. No script, no outside font; colours tell lines apart, and so do marks.

use std::fmt::Write;

use super::html::escape;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 52.0;
/// Okabe and Ito's colours, which people with any colour vision tell apart; yellow is left out on white.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000"];

/// An axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// What is measured, with its unit.
    pub label: String,
}

/// A point of a line.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Across.
    pub x: f64,
    /// Up.
    pub y: f64,
    /// Shown when pointed at.
    pub note: String,
    /// Written beside it.
    pub mark: Option<String>,
}

/// A line.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// In the order in which they are joined.
    pub points: Vec<Point>,
}

/// A chart of lines.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// Above it.
    pub title: String,
    /// Across.
    pub x: Axis,
    /// Up.
    pub y: Axis,
    /// The lines.
    pub series: Vec<Series>,
}

/// Bars of equal width.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Above it.
    pub title: String,
    /// What is counted.
    pub x: Axis,
    /// Lower end of the first bar, upper end of the last.
    pub range: (f64, f64),
    /// Counts of each kind, bar by bar; stacked.
    pub kinds: Vec<(String, Vec<u64>)>,
}

/// From values to places on the canvas.
struct Frame {
    x: (f64, f64),
    y: (f64, f64),
}

impl Frame {
    fn across(&self, x: f64) -> f64 {
        LEFT + (x - self.x.0) / (self.x.1 - self.x.0) * (WIDTH - LEFT - RIGHT)
    }

    fn up(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - (y - self.y.0) / (self.y.1 - self.y.0) * (HEIGHT - TOP - BOTTOM)
    }
}

impl Chart {
    /// The chart as an `svg` element. Points that are not finite are left out.
    #[must_use]
    pub fn to_svg(&self) -> String {
        let finite = |p: &&Point| p.x.is_finite() && p.y.is_finite();
        let points: Vec<&Point> = self.series.iter().flat_map(|s| s.points.iter()).filter(finite).collect();
        let frame = Frame { x: range(points.iter().map(|p| p.x)), y: range(points.iter().map(|p| p.y)) };
        let names: Vec<&str> = self.series.iter().map(|s| s.name.as_str()).collect();
        let mut out = open(&self.title, &names);
        axes(&mut out, &frame, &self.x.label, &self.y.label);
        for (i, series) in self.series.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            let points: Vec<&Point> = series.points.iter().filter(finite).collect();
            let path: Vec<String> = points.iter().map(|p| format!("{:.1},{:.1}", frame.across(p.x), frame.up(p.y))).collect();
            let _ = write!(out, "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>", path.join(" "));
            // Hundreds of points are a curve already.
            for p in points.iter().filter(|p| points.len() <= 60 || p.mark.is_some()) {
                mark(&mut out, &frame, p, colour);
            }
        }
        legend(&mut out, &names);
        out.push_str("</svg>");
        out
    }
}

fn mark(out: &mut String, frame: &Frame, p: &Point, colour: &str) {
    let (x, y) = (frame.across(p.x), frame.up(p.y));
    let note = escape(&p.note);
    let _ = write!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"><title>{note}</title></circle>");
    if let Some(text) = &p.mark {
        let left = x > WIDTH * 0.8;
        let (at, anchor) = if left { (x - 7.0, "end") } else { (x + 7.0, "start") };
        let _ = write!(out, "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>", y - 6.0, escape(text));
    }
}

impl Histogram {
    /// The histogram as an `svg` element.
    #[must_use]
    pub fn to_svg(&self) -> String {
        let bars = self.kinds.iter().map(|(_, counts)| counts.len()).max().unwrap_or(0);
        let total = |bar: usize| self.kinds.iter().filter_map(|(_, counts)| counts.get(bar)).sum::<u64>();
        let top = (0..bars).map(total).max().unwrap_or(0).max(1);
        let frame = Frame { x: self.range, y: (0.0, nice(top as f64)) };
        let names: Vec<&str> = self.kinds.iter().map(|(name, _)| name.as_str()).collect();
        let mut out = open(&self.title, &names);
        axes(&mut out, &frame, &self.x.label, "count");
        let step = (self.range.1 - self.range.0) / bars.max(1) as f64;
        for bar in 0..bars {
            let mut below = 0;
            for (i, (name, counts)) in self.kinds.iter().enumerate() {
                let count = counts.get(bar).copied().unwrap_or(0);
                if count == 0 {
                    continue;
                }
                let low = self.range.0 + step * bar as f64;
                let (left, right) = (frame.across(low), frame.across(low + step));
                let (bottom, upper) = (frame.up(below as f64), frame.up((below + count) as f64));
                let _ = write!(
                    out,
                    "<rect x=\"{left:.1}\" y=\"{upper:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"><title>{} · {low:.3} to {:.3}: {count}</title></rect>",
                    (right - left - 1.0).max(0.5),
                    bottom - upper,
                    COLOURS[i % COLOURS.len()],
                    escape(name),
                    low + step,
                );
                below += count;
            }
        }
        legend(&mut out, &names);
        out.push_str("</svg>");
        out
    }
}

fn open(title: &str, names: &[&str]) -> String {
    let legend = if names.len() > 1 { 20.0 * names.len() as f64 } else { 0.0 };
    let height = HEIGHT + legend;
    let title = escape(title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-label=\"{title}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\"><rect width=\"100%\" height=\"100%\" fill=\"white\"/>\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"14\" font-weight=\"600\">{title}</text>"
    )
}

fn axes(out: &mut String, frame: &Frame, x_label: &str, y_label: &str) {
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    for tick in ticks(frame.x) {
        let x = frame.across(tick);
        let _ = write!(
            out,
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#e4e4e4\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 16.0,
            figure(tick)
        );
    }
    for tick in ticks(frame.y) {
        let y = frame.up(tick);
        let _ = write!(
            out,
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#e4e4e4\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            y + 4.0,
            figure(tick)
        );
    }
    let middle = TOP + (bottom - TOP) / 2.0;
    let _ = write!(
        out,
        "<line x1=\"{LEFT}\" y1=\"{bottom}\" x2=\"{right}\" y2=\"{bottom}\" stroke=\"#444\"/>\
         <line x1=\"{LEFT}\" y1=\"{TOP}\" x2=\"{LEFT}\" y2=\"{bottom}\" stroke=\"#444\"/>\
         <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
         <text transform=\"rotate(-90 14 {middle})\" x=\"14\" y=\"{middle}\" text-anchor=\"middle\">{}</text>",
        LEFT + (right - LEFT) / 2.0,
        HEIGHT - 14.0,
        escape(x_label),
        escape(y_label)
    );
}

/// Below the chart, so that it hides nothing; one line alone is named by its axis.
fn legend(out: &mut String, names: &[&str]) {
    for (i, name) in names.iter().enumerate().filter(|_| names.len() > 1) {
        let y = HEIGHT + 20.0 * i as f64;
        let _ = write!(
            out,
            "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"14\" height=\"4\" fill=\"{}\"/><text x=\"{}\" y=\"{:.1}\">{}</text>",
            y + 2.0,
            COLOURS[i % COLOURS.len()],
            LEFT + 20.0,
            y + 8.0,
            escape(name)
        );
    }
}

/// The values' range with a little air; never empty.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    match (low.is_finite() && high.is_finite(), high - low) {
        (false, _) => (0.0, 1.0),
        (true, width) if width <= 0.0 => (low - 1.0, high + 1.0),
        (true, width) => (low - 0.06 * width, high + 0.06 * width),
    }
}

/// 1, 2 or 5 times a power of ten, about five in the range.
fn step(width: f64) -> f64 {
    let rough = width / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|&s| s >= rough).unwrap_or(10.0 * power)
}

fn ticks((low, high): (f64, f64)) -> Vec<f64> {
    let step = step(high - low);
    let first = (low / step).ceil() as i64;
    (first..).map(|i| i as f64 * step).take_while(|&t| t <= high + step * 1e-9).take(20).collect()
}

fn nice(top: f64) -> f64 {
    let step = step(top);
    (top / step).ceil() * step
}

fn figure(value: f64) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    if rounded != 0.0 && (rounded.abs() < 1e-3 || rounded.abs() >= 1e6) { format!("{value:.0e}") } else { format!("{rounded}") }
}
