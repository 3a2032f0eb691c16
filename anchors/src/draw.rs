//! Draws that depend on a seed and on names alone: not on positions, order or time.

use std::collections::BTreeMap;

use anchorite_index::{Hit, RowId};
use sha2::{Digest, Sha256};

use crate::gather::Gathered;

/// Rows of one stratum in the order in which they are drawn.
pub(crate) struct Stratum {
    pub(crate) rows: Vec<RowId>,
    pub(crate) wanted: usize,
}

impl Stratum {
    pub(crate) fn first(&self, depth: usize) -> Gathered {
        let hits = self.rows.iter().take(depth).map(|&row| Hit { row, score: 0.0 }).collect();
        Gathered { hits, complete: depth >= self.rows.len(), degraded: false }
    }
}

/// A number that depends on the seed, the purpose and the name alone.
pub(crate) fn lot(seed: u64, purpose: &[u8], name: &str) -> u64 {
    let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(purpose).chain_update(name).finalize();
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Shares `total` out in proportion to the weights, by largest remainder; no stratum gets more than it has.
pub(crate) fn apportion(total: usize, weights: &BTreeMap<Option<String>, usize>) -> BTreeMap<Option<String>, usize> {
    let sum: u128 = weights.values().map(|&w| w as u128).sum();
    if sum == 0 {
        return BTreeMap::new();
    }
    let total = (total as u128).min(sum);
    let mut parts: Vec<(&Option<String>, u128, u128)> =
        weights.iter().map(|(name, &w)| (name, total * w as u128 / sum, total * w as u128 % sum)).collect();
    let given: u128 = parts.iter().map(|(_, part, _)| part).sum();
    // A stable sort: equal remainders go to the first name.
    parts.sort_by_key(|(_, _, rest)| std::cmp::Reverse(*rest));
    let extra = usize::try_from(total - given).unwrap_or(usize::MAX);
    parts.iter_mut().take(extra).for_each(|(_, part, _)| *part += 1);
    parts.into_iter().map(|(name, part, _)| (name.clone(), usize::try_from(part).unwrap_or(usize::MAX))).collect()
}

/// The seed of one epoch: draws of two epochs have nothing to do with each other.
pub(crate) fn epoch_seed(seed: u64, epoch: u64) -> u64 {
    lot(seed, b"epoch", &epoch.to_string())
}
