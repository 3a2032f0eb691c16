//! Randomness as a function: the same seed and place give the same number on every machine, in any order, on any thread.
//!
//! SplitMix64 (Steele, Lea, Flood 2014), by its counter: fast, and far better than orders and crops need.

/// Numbers that a place in the run draws one after another.
#[derive(Clone, Debug)]
pub struct Draw(u64);

/// 2^64 over the golden ratio, SplitMix64's step.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

impl Draw {
    /// At a place: a seed and what tells this use from others (stream, epoch, row).
    #[must_use]
    pub fn at(place: &[u64]) -> Self {
        let mix = |state: u64, part: &u64| finish(state.wrapping_add(STEP) ^ finish(part.wrapping_add(STEP)));
        Self(place.iter().fold(0, mix))
    }

    /// From a state of SplitMix64.
    #[must_use]
    pub fn from_state(state: u64) -> Self {
        Self(state)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        finish(self.0)
    }

    /// A number below `n`, which is at least 1. The bias is below n / 2^64.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// A number in [0, 1) with 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number in [least, most).
    pub fn between(&mut self, (least, most): (f64, f64)) -> f64 {
        least + (most - least) * self.unit()
    }

    /// Of the normal distribution with mean 0 and deviation 1 (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// An order of `n` things (Fisher and Yates).
    pub fn order(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for last in (1..n).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }
}

fn finish(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_gives_its_published_numbers() {
        let mut random = Draw::from_state(1_234_567);
        assert_eq!(random.bits(), 6_457_827_717_110_365_317);
        assert_eq!(random.bits(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn an_order_has_everything_once_and_depends_on_its_place() {
        let order = Draw::at(&[1, 2]).order(1000);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<u32>>());
        assert_eq!(order, Draw::at(&[1, 2]).order(1000));
        assert_ne!(order, Draw::at(&[1, 3]).order(1000));
        assert_ne!(Draw::at(&[0]).bits(), Draw::at(&[0, 0]).bits());
    }

    #[test]
    fn numbers_are_even_and_within_bounds() {
        let mut draw = Draw::at(&[7]);
        let counts = (0..100_000).fold([0_u32; 10], |mut counts, _| {
            counts[draw.below(10)] += 1;
            counts
        });
        assert!(counts.iter().all(|&n| (9_500..10_500).contains(&n)), "{counts:?}");
        let normal: Vec<f64> = (0..100_000).map(|_| draw.normal()).collect();
        let mean = normal.iter().sum::<f64>() / 1e5;
        let variance = normal.iter().map(|v| v * v).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
        assert!((0..10_000).all(|_| (0.9..1.0).contains(&draw.between((0.9, 1.0)))));
    }
}
