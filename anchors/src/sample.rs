//! Anchors for training loops: k of each query's candidates, another k every epoch, the same ones whenever they are asked for again.
//!
//! Each query is answered by itself: what it gets depends on the query, the policy, the pool, the seed and the epoch, not on the
//! other queries of the batch or their order. So one pair may come for two queries; [`crate::Entry::group`] says so.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::{
    Policy, PolicyError, Reason,
    draw::{epoch_seed, lot},
    policy::{ClassBounds, require},
    select::Selection,
};

/// How many of the candidates (the policy's `select.k` of each query) are drawn, and by which dice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// Anchors of each query, at least 1. Drawn without replacement, each candidate as likely as any other.
    pub k: usize,
    /// Decides the draws. Default 0.
    #[serde(default)]
    pub seed: u64,
    /// Counts passes over the data: each draws anew. Default 0.
    #[serde(default)]
    pub epoch: u64,
}

impl Sample {
    /// Refuses what a policy can only say of a whole set.
    pub(crate) fn check(&self, policy: &Policy) -> Result<(), PolicyError> {
        let alone = "is left out where k are drawn of each query, which is then answered by itself";
        require(self.k > 0, "sample.k", "is at least 1")?;
        require(policy.select.target.is_none(), "select.target", alone)?;
        require(policy.select.class == ClassBounds::default(), "select.class", alone)?;
        require(policy.select.percentile.is_none(), "select.percentile", alone)?;
        require(policy.validation == 0.0, "validation", "is 0 where k are drawn of each query")?;
        let enough = policy.select.k.is_none_or(|candidates| candidates >= self.k);
        require(enough, "select.k", "is at least sample.k: it says how many candidates are drawn from")
    }

    /// The seed of this epoch's draws.
    pub(crate) fn seed(&self) -> u64 {
        epoch_seed(self.seed, self.epoch)
    }

    /// Leaves `k` of the anchors of each query. `named` gives the query's and the pair's name of an offer.
    pub(crate) fn draw<'n>(&self, selection: &mut Selection, named: impl Fn(usize, usize) -> (&'n str, &'n str)) {
        let seed = self.seed();
        let mut undrawn = HashSet::new();
        for (asker, decisions) in selection.decisions.iter_mut().enumerate() {
            let kept = decisions.iter().enumerate().filter(|(_, d)| d.reason.is_none());
            let mut lots: Vec<(u64, usize)> = kept
                .map(|(place, decision)| {
                    let (query, pair) = named(asker, decision.offer);
                    (lot(seed, b"sample", &format!("{}:{query}{pair}", query.len())), place)
                })
                .collect();
            lots.sort_unstable();
            for (_, place) in lots.into_iter().skip(self.k) {
                decisions[place].reason = Some(Reason::NotDrawn);
                undrawn.insert((asker, decisions[place].offer));
            }
        }
        *selection.dropped.entry(Reason::NotDrawn.code()).or_insert(0) += undrawn.len() as u64;
        selection.dropped.retain(|_, count| *count > 0);
        selection.chosen.retain(|c| !undrawn.contains(&(c.asker, c.offer)));
    }
}
