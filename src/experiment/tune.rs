//! Learning rates by the validation set alone, written down before any test set is opened.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{
    Lab,
    arms::{self, Arm, Job},
    bench::Role,
    measure,
};
use crate::progress::say;

/// Rates that are tried, a factor of two apart: a first look found the best of the lower three at their upper end.
const RATES: [f64; 4] = [5e-4, 1e-3, 2e-3, 4e-3];
/// The seed of these runs, none of the compared ones.
const SEED: u64 = 1_000;

/// Chosen rates, and what they were chosen by.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Rates {
    /// By the arm that was tuned for a family: rate and share right on validation.
    pub(crate) tried: BTreeMap<String, Vec<(f64, f64)>>,
    /// By the same: the best; of equals the lowest.
    pub(crate) chosen: BTreeMap<String, f64>,
}

/// The arm whose rate an arm takes: one for each objective, and one for those with anchors.
fn family(arm: Arm) -> Arm {
    match arm {
        Arm::CrossEntropy | Arm::LpFt => Arm::CrossEntropy,
        Arm::ZeroShot | Arm::Flyp | Arm::FlypCompute | Arm::Captions => Arm::Flyp,
        _ => Arm::Arf,
    }
}

/// The families of some arms, each once.
fn families(arms: &[Arm]) -> BTreeSet<Arm> {
    arms.iter().map(|arm| family(*arm)).collect()
}

impl Rates {
    /// The same for all, by nobody's choice.
    fn given(families: &BTreeSet<Arm>, rate: f64) -> Self {
        Self { tried: BTreeMap::new(), chosen: families.iter().map(|arm| (arm.to_string(), rate)).collect() }
    }

    pub(crate) fn of(&self, arm: Arm) -> f64 {
        self.chosen.get(&family(arm).to_string()).copied().unwrap_or(RATES[1])
    }
}

/// The chosen rates; tuned when that is not done and none is given.
pub(crate) fn rates(lab: &Lab<'_>) -> Result<Rates> {
    super::stage(&lab.setting.out.join("hyperparameters.json"), || {
        let families = families(&lab.setting.arms);
        if let Some(rate) = lab.setting.rate {
            return Ok(Rates::given(&families, rate));
        }
        let evaluator = measure::evaluator(lab, |role| role == Role::Validation)?;
        let mut rates = Rates { tried: BTreeMap::new(), chosen: BTreeMap::new() };
        for arm in families {
            let mut tried = Vec::new();
            for rate in RATES {
                let job = Job { seed: SEED, base_seed: lab.setting.first_seed, rate, name: format!("tune-{arm}-{rate}") };
                let hits = measure::hits(lab, &evaluator, &arms::weights(lab, arm, &job)?)?;
                let digits = hits.get("validation").context("the validation set is measured")?;
                tried.push((rate, measure::share(digits)));
                say(&format!("{arm} at rate {rate}: {:.1} % of validation", 100.0 * measure::share(digits)));
            }
            let best = tried.iter().fold(tried[0], |best, &next| if next.1 > best.1 { next } else { best });
            rates.chosen.insert(arm.to_string(), best.0);
            rates.tried.insert(arm.to_string(), tried);
        }
        Ok(rates)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_rate_is_every_arms() {
        let rates = Rates::given(&families(&Arm::FINETUNED), 2e-3);
        assert!(Arm::FINETUNED.iter().all(|arm| rates.of(*arm) == 2e-3) && rates.tried.is_empty(), "{rates:?}");
    }
}
