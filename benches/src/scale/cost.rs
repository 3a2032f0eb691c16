//! What pools cost that are too large to be measured here, from some that were: power laws, checked against what they were fitted to.
//!
//! ```text
//!   bytes  = b * pairs
//!   build  = a * rows^p of a segment, times segments          (processor seconds)
//!   query  = c * rows^q of a segment, times segments          (processor seconds, pool in memory)
//! ```
//!
//! A segment is one graph, so what lies beyond the rows of the largest segment measured is drawn on, and what lies beyond it in segments is
//! added up. `benches/reference/scale.json` holds the points of the last run that was kept; the tests below fit them again, and compare
//! ARCHITECTURE.md's table with what comes out.

use serde::{Deserialize, Serialize};

/// What one size costs, as one segment with one side.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Point {
    pub(super) rows: f64,
    pub(super) bytes: f64,
    pub(super) build_cpu_seconds: f64,
    pub(super) query_cpu_seconds: f64,
}

/// A pool asked with less memory than it has bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Beyond {
    /// What the pool keeps of vectors.
    pub(super) precision: String,
    /// What the system was told, and whether the pool was read first.
    pub(super) policy: String,
    /// Pool's bytes for each byte of memory.
    pub(super) times_memory: f64,
    pub(super) queries_per_second: f64,
    pub(super) major_faults_a_query: f64,
}

/// Everything that was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Points {
    pub(super) points: Vec<Point>,
    pub(super) seven_bit_bytes_a_pair: f64,
    pub(super) beyond: Vec<Beyond>,
}

/// `scale * x^power`.
#[derive(Clone, Copy, Debug)]
pub(super) struct PowerLaw {
    pub(super) scale: f64,
    pub(super) power: f64,
}

impl PowerLaw {
    /// By least squares over logarithms.
    fn fit(points: impl Iterator<Item = (f64, f64)>) -> Self {
        let logs: Vec<(f64, f64)> = points.map(|(x, y)| (x.ln(), y.ln())).collect();
        let n = logs.len() as f64;
        let (sx, sy) = logs.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
        let covariance: f64 = logs.iter().map(|(x, y)| (x - sx / n) * (y - sy / n)).sum();
        let variance: f64 = logs.iter().map(|(x, _)| (x - sx / n).powi(2)).sum();
        let power = covariance / variance;
        Self { scale: (sy / n - power * sx / n).exp(), power }
    }

    fn at(self, x: f64) -> f64 {
        self.scale * x.powf(self.power)
    }
}

/// The fitted model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Model {
    bytes_a_pair: f64,
    seven_bit_bytes_a_pair: f64,
    pub(super) build: PowerLaw,
    pub(super) query: PowerLaw,
}

/// A pool that somebody wants: pairs with one side each, and how many rows a segment has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) pairs: f64,
    pub(super) segment_rows: f64,
}

/// Sizes that are planned for, in segments of the standard size and in segments a hundred times as large.
pub(super) const PLANS: [Wanted; 4] = [
    Wanted { pairs: 1e8, segment_rows: 1e6 },
    Wanted { pairs: 1e8, segment_rows: 1e8 },
    Wanted { pairs: 1e9, segment_rows: 1e6 },
    Wanted { pairs: 1e9, segment_rows: 1e8 },
];

/// Processor cores of the machine that plans speak of. 16: a common server; building and searching share no state between segments and
/// queries, so that cores are taken to add up.
const CORES: f64 = 16.0;

/// What it costs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) wanted: Wanted,
    pub(super) segments: f64,
    pub(super) bytes: f64,
    pub(super) seven_bit_bytes: f64,
    pub(super) build_hours: f64,
    pub(super) queries_per_second: f64,
}

impl Model {
    pub(super) fn fit(Points { points, seven_bit_bytes_a_pair, .. }: &Points) -> Self {
        let all = |of: fn(&Point) -> f64| points.iter().map(move |point| (point.rows, of(point)));
        let bytes_a_pair = points.iter().map(|p| p.bytes / p.rows).sum::<f64>() / points.len() as f64;
        Self {
            bytes_a_pair,
            seven_bit_bytes_a_pair: *seven_bit_bytes_a_pair,
            build: PowerLaw::fit(all(|p| p.build_cpu_seconds)),
            query: PowerLaw::fit(all(|p| p.query_cpu_seconds)),
        }
    }

    pub(super) fn plan(&self, wanted: Wanted) -> Plan {
        let segments = (wanted.pairs / wanted.segment_rows).ceil();
        Plan {
            wanted,
            segments,
            bytes: self.bytes_a_pair * wanted.pairs,
            seven_bit_bytes: self.seven_bit_bytes_a_pair * wanted.pairs,
            build_hours: segments * self.build.at(wanted.segment_rows) / 3_600.0 / CORES,
            queries_per_second: CORES / (segments * self.query.at(wanted.segment_rows)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points() -> Points {
        serde_json::from_str(include_str!("../../reference/scale.json")).unwrap()
    }

    fn off(found: f64, measured: f64) -> f64 {
        (found / measured - 1.0).abs()
    }

    /// Largest relative errors that the model states for the sizes it was fitted to: bytes, building, a query. A query's time goes in steps: the
    /// beam that keeps effort normal's promise is one of a few widths. ARCHITECTURE.md says the same; points of other sizes need other words.
    const STATED: [f64; 3] = [0.01, 0.02, 0.30];

    #[test]
    fn the_model_gives_the_measured_points_within_the_stated_errors() {
        let points = points();
        let model = Model::fit(&points);
        assert!(points.points.len() >= 3);
        for p in &points.points {
            let errors = [
                off(model.bytes_a_pair * p.rows, p.bytes),
                off(model.build.at(p.rows), p.build_cpu_seconds),
                off(model.query.at(p.rows), p.query_cpu_seconds),
            ];
            assert!(errors.iter().zip(STATED).all(|(error, stated)| *error <= stated), "{p:?}: {errors:?}");
        }
    }

    /// The size that matters most is foretold from the smaller ones: eight and three times smaller.
    #[test]
    fn the_largest_size_is_foretold_by_the_others() {
        let mut points = points();
        let largest = points.points.pop().unwrap();
        assert!(points.points.iter().all(|p| p.rows <= largest.rows / 2.9));
        let model = Model::fit(&points);
        let errors = [
            off(model.bytes_a_pair * largest.rows, largest.bytes),
            off(model.build.at(largest.rows), largest.build_cpu_seconds),
            off(model.query.at(largest.rows), largest.query_cpu_seconds),
        ];
        // Of a query little more is known than its order of magnitude: see STATED.
        assert!(errors[0] < 0.01 && errors[1] < 0.15 && errors[2] < 0.6, "{errors:?}");
    }

    #[test]
    fn laws_are_found_again_and_plans_add_segments_up() {
        let point = |rows: f64| Point {
            rows,
            bytes: 1_700.0 * rows,
            build_cpu_seconds: 1e-4 * rows.powf(1.1),
            query_cpu_seconds: 1e-5 * rows.powf(0.25),
        };
        let points = Points { points: [1e4, 3e4, 1e5].map(point).into(), seven_bit_bytes_a_pair: 700.0, beyond: Vec::new() };
        let model = Model::fit(&points);
        assert!(off(model.build.power, 1.1) < 1e-9 && off(model.query.at(1e6), 1e-5 * 1e6f64.powf(0.25)) < 1e-9);
        let plan = model.plan(Wanted { pairs: 1e8, segment_rows: 1e6 });
        assert!(off(plan.segments, 100.0) < 1e-9 && off(plan.bytes, 1.7e11) < 1e-9);
        assert!(off(plan.build_hours, 100.0 * 1e-4 * 1e6f64.powf(1.1) / 3_600.0 / 16.0) < 1e-9);
        assert!(off(plan.queries_per_second, 16.0 / (100.0 * 1e-5 * 1e6f64.powf(0.25))) < 1e-9);
    }

    /// Two significant digits.
    fn rounded(value: f64) -> String {
        let digits = 10f64.powf(value.log10().floor() - 1.0);
        format!("{}", (value / digits).round() * digits)
    }

    #[test]
    fn the_architecture_says_what_the_model_says() {
        let model = Model::fit(&points());
        let text = include_str!("../../../ARCHITECTURE.md");
        for plan in PLANS.map(|wanted| model.plan(wanted)) {
            let row = format!(
                "| {:.0e} in {} | {} GB | {} GB | {} h | {} |",
                plan.wanted.pairs,
                plan.segments,
                rounded(plan.bytes / 1e9),
                rounded(plan.seven_bit_bytes / 1e9),
                rounded(plan.build_hours),
                rounded(plan.queries_per_second),
            );
            assert!(text.contains(&row), "ARCHITECTURE.md lacks this row: {row}");
        }
    }
}
