//! Rates at equal recall, from single settings.

/// One measured setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) recall: f64,
    /// Queries per CPU-second.
    pub(super) rate: f64,
}

/// Points that no other point beats in both, by rising recall.
pub(super) fn front(mut points: Vec<Point>) -> Vec<Point> {
    points.sort_by(|a, b| b.recall.total_cmp(&a.recall).then(b.rate.total_cmp(&a.rate)));
    let mut kept: Vec<Point> = Vec::new();
    for point in points {
        if kept.last().is_none_or(|last| point.rate > last.rate) {
            kept.push(point);
        }
    }
    kept.reverse();
    kept
}

/// Rate at `recall`, on a line between its neighbours in logarithms of rate and of what is missed; `None` where it was not reached.
/// An engine that is above `recall` at its narrowest beam counts with that beam's rate.
pub(super) fn rate_at(front: &[Point], recall: f64) -> Option<f64> {
    let above = front.iter().position(|p| p.recall >= recall)?;
    let right = front[above];
    let Some(left) = above.checked_sub(1).map(|i| front[i]) else { return Some(right.rate) };
    let missed = |r: f64| (1.0 - r).max(1e-6).ln();
    let share = (missed(recall) - missed(left.recall)) / (missed(right.recall) - missed(left.recall));
    Some((left.rate.ln() + share * (right.rate.ln() - left.rate.ln())).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(all: &[(f64, f64)]) -> Vec<Point> {
        all.iter().map(|&(recall, rate)| Point { recall, rate }).collect()
    }

    #[test]
    fn a_setting_that_another_beats_in_both_is_left_out() {
        let front = front(points(&[(0.9, 100.0), (0.8, 90.0), (0.99, 50.0), (0.95, 50.0)]));
        assert_eq!(front, points(&[(0.9, 100.0), (0.99, 50.0)]));
    }

    #[test]
    fn rates_between_settings_are_interpolated_and_beyond_them_absent() {
        let front = points(&[(0.9, 1_000.0), (0.99, 100.0)]);
        let between = rate_at(&front, 1.0 - 0.1f64.powf(1.5)).unwrap();
        assert!((between - 316.2).abs() < 0.1, "{between}");
        assert_eq!(rate_at(&front, 0.8), Some(1_000.0));
        assert_eq!(rate_at(&front, 0.995), None);
    }
}
