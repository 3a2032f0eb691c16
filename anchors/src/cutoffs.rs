//! Scores below which nothing is taken: a threshold, and percentiles by class or over everything.

use std::collections::HashMap;

use crate::{
    policy::{Percentile, PercentileScope, Select},
    reason::Reason,
    select::{Asker, Item},
};

/// Hits of a query among which percentiles are taken when there is no `k`.
const PERCENTILE_DEPTH: usize = 100;

/// Scores below which nothing is taken.
pub(crate) struct Cutoffs {
    threshold: Option<f32>,
    /// By class; the one of `None` is for queries without a class, or for everything.
    percentiles: HashMap<Option<usize>, f32>,
    scope: PercentileScope,
    /// Queries with too few offers to take a percentile of.
    pub(crate) starved: Vec<bool>,
}

impl Cutoffs {
    pub(crate) fn new(rules: &Select, askers: &[Asker], items: &[Item]) -> Self {
        let scope = rules.percentile.map_or(PercentileScope::All, |p| p.per);
        let mut cutoffs =
            Self { threshold: rules.threshold, percentiles: HashMap::new(), scope, starved: vec![false; askers.len()] };
        let Some(Percentile { keep, .. }) = rules.percentile else { return cutoffs };
        let depth = rules.k.unwrap_or(PERCENTILE_DEPTH);
        let mut populations: HashMap<Option<usize>, Vec<f32>> = HashMap::new();
        for (asker, starved) in askers.iter().zip(&mut cutoffs.starved) {
            let eligible = asker.offers.iter().filter(|o| items[o.item].refusal.is_none());
            let scores: Vec<f32> = eligible.take(depth).map(|o| o.score).collect();
            *starved = scores.len() < depth && !asker.complete;
            let class = if scope == PercentileScope::Class { asker.class } else { None };
            populations.entry(class).or_default().extend(scores);
        }
        for (class, mut scores) in populations {
            scores.sort_by(|a, b| b.total_cmp(a));
            let kept = ((scores.len() as f64 * keep).ceil() as usize).clamp(1, scores.len().max(1));
            if let Some(cutoff) = scores.get(kept - 1) {
                cutoffs.percentiles.insert(class, *cutoff);
            }
        }
        cutoffs
    }

    pub(crate) fn refuses(&self, class: Option<usize>, score: f32) -> Option<Reason> {
        if self.threshold.is_some_and(|threshold| score < threshold) {
            return Some(Reason::BelowThreshold);
        }
        let class = if self.scope == PercentileScope::Class { class } else { None };
        let cutoff = self.percentiles.get(&class).copied();
        cutoff.is_some_and(|cutoff| score < cutoff).then_some(Reason::BelowPercentile)
    }
}
