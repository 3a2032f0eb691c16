//! Controls: pairs drawn from the pool without looking at the queries.

use std::collections::BTreeMap;

use anchorite_index::{Parts, RowId, StoreError};

use super::{Round, Work};
use crate::{
    CurateError, Sample,
    draw::{Stratum, apportion, lot},
    policy::{Control, Policy, Select, Shares},
};

/// Draws have no scores and no classes; what else is asked of anchors holds.
pub(super) fn rules(rules: &Select) -> Select {
    Select { near_duplicate: rules.near_duplicate, compare: rules.compare, k: None, ..Select::default() }
}

impl Work<'_> {
    /// Every row of the pool in the order of a draw, by stratum. The order depends on the seed and the keys, not on positions.
    pub(super) fn draw(&self, policy: &Policy, retrieved: &Round, requested: usize) -> Result<Vec<Stratum>, CurateError> {
        let mut strata: BTreeMap<Option<String>, Vec<(u64, RowId)>> = BTreeMap::new();
        let rows = self.store.status().positions;
        let step = self.surroundings.limits.read_batch.max(1);
        let seed = self.sample.map_or(policy.seed, Sample::seed);
        for first in (0..rows).step_by(step) {
            if self.surroundings.cancel.is_cancelled() {
                return Err(StoreError::Cancelled.into());
            }
            let numbers: Vec<RowId> = (first..rows.min(first.saturating_add(step as u64))).map(RowId).collect();
            for record in self.store.get(&numbers, Parts::default())?.into_iter().flatten() {
                let stratum = self.column.as_ref().and_then(|column| record.fields.get(column)).map(ToString::to_string);
                strata.entry(stratum).or_default().push((lot(seed, b"draw", record.key.as_str()), record.row));
            }
        }
        let weights = match &policy.control {
            Control::StratifiedRandom { shares: Shares::Retrieved, .. } => self.retrieved_shares(retrieved),
            _ => strata.iter().map(|(stratum, rows)| (stratum.clone(), rows.len())).collect(),
        };
        let wanted = match &policy.control {
            // As many as retrieval found, value by value.
            Control::StratifiedRandom { shares: Shares::Retrieved, .. } => weights,
            _ => apportion(requested, &weights),
        };
        let ordered = |(stratum, mut rows): (Option<String>, Vec<(u64, RowId)>)| {
            rows.sort_unstable();
            let wanted = wanted.get(&stratum).copied().unwrap_or(0);
            (wanted > 0).then(|| Stratum { wanted, rows: rows.into_iter().map(|(_, row)| row).collect() })
        };
        Ok(strata.into_iter().filter_map(ordered).collect())
    }

    fn retrieved_shares(&self, retrieved: &Round) -> BTreeMap<Option<String>, usize> {
        let mut shares = BTreeMap::new();
        for chosen in &retrieved.selection.chosen {
            *shares.entry(self.facts[chosen.item].stratum.clone()).or_insert(0) += 1;
        }
        shares
    }
}
