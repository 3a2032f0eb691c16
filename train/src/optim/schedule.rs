//! The learning rate over a run: a straight line up, then half a cosine down.

/// Warm-up and cosine.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// The highest rate. Default 1e-5, FLYP's for a whole CLIP; from scratch 1e-3 to 5e-4 is usual.
    pub peak: f64,
    /// Steps until it is reached. Default 500, FLYP's; a run shorter than ten times that wants less.
    pub warmup_steps: u64,
    /// Steps of the whole run, at the end of which the rate is `floor`. Default 0: constant after the warm-up.
    pub total_steps: u64,
    /// The lowest rate. Default 0.
    pub floor: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { peak: 1e-5, warmup_steps: 500, total_steps: 0, floor: 0.0 }
    }
}

impl Schedule {
    /// The rate of a step, counted from 0: (step + 1) / warm-up of the peak, then
    /// floor + (peak - floor) (1 + cos(pi t)) / 2 with t the share of the steps after the warm-up that are done.
    #[must_use]
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let rest = self.total_steps.saturating_sub(self.warmup_steps);
        if rest == 0 {
            return if self.total_steps == 0 { self.peak } else { self.floor };
        }
        let done = ((step - self.warmup_steps) as f64 / rest as f64).min(1.0);
        self.floor + (self.peak - self.floor) * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
    }
}
