//! The learning rate by step: linear warm-up, then half a cosine, as open_clip and FLYP have it.

use super::Schedule;

/// FLYP's warm-up.
const WARMUP: u64 = 500;

/// The rate of each step of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    rate: f64,
    last: f64,
    warmup: u64,
    steps: u64,
}

impl Rates {
    /// For a run of `steps`.
    #[must_use]
    pub fn new(schedule: Schedule, steps: u64) -> Self {
        let warmup = schedule.warmup.unwrap_or_else(|| WARMUP.min(steps / 10)).min(steps);
        Self { rate: schedule.rate, last: schedule.last_rate, warmup, steps }
    }

    /// Steps of warm-up.
    #[must_use]
    pub fn warmup(&self) -> u64 {
        self.warmup
    }

    /// The rate of a step, counted from 0: rate (step + 1) / warmup, then last + (rate - last) (1 + cos(pi t)) / 2 with t from 0 to 1.
    #[must_use]
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.rate * (step + 1) as f64 / self.warmup as f64;
        }
        let t = (step - self.warmup) as f64 / (self.steps - self.warmup).max(1) as f64;
        self.last + (self.rate - self.last) * (1.0 + (std::f64::consts::PI * t.min(1.0)).cos()) / 2.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_to_its_top_and_falls_to_its_end() {
        let rates = Rates::new(Schedule { rate: 1e-3, warmup: Some(10), last_rate: 1e-5 }, 110);
        assert_eq!(rates.at(0), 1e-4);
        assert_eq!(rates.at(9), 1e-3);
        assert_eq!(rates.at(10), 1e-3);
        assert!((rates.at(60) - (1e-5 + 0.5 * 9.9e-4)).abs() < 1e-12);
        assert!((rates.at(110) - 1e-5).abs() < 1e-12);
        assert_eq!(Rates::new(Schedule::default(), 100).warmup(), 10);
        assert_eq!(Rates::new(Schedule::default(), 100_000).warmup(), 500);
    }
}
