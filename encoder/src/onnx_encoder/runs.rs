//! A batch in runs of one shape, and its rows back in their order.

use std::ops::Range;

use crate::{Embedding, EncodeError};

/// Positions of `keys` in an order in which equal ones are neighbours, cut where `together` says or a run is full.
pub(super) fn runs<K: Ord>(keys: &[K], max: usize, together: fn(&K, &K) -> bool) -> (Vec<usize>, Vec<Range<usize>>) {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by_key(|&i| &keys[i]);
    let mut ranges = Vec::new();
    let mut start = 0;
    for end in 1..=order.len() {
        let full = end - start == max;
        if end == order.len() || full || !together(&keys[order[end - 1]], &keys[order[end]]) {
            ranges.push(start..end);
            start = end;
        }
    }
    (order, ranges)
}

/// Runs a batch in its runs, and puts the rows back into the order of the batch.
pub(super) fn in_runs<T>(
    batch: &[T],
    (order, ranges): (Vec<usize>, Vec<Range<usize>>),
    mut run: impl FnMut(&[&T]) -> Result<Vec<Vec<f32>>, EncodeError>,
) -> Result<Vec<Embedding>, EncodeError> {
    let mut embeddings: Vec<Option<Embedding>> = vec![None; batch.len()];
    for range in ranges {
        let items = &order[range];
        let rows = run(&items.iter().map(|&item| &batch[item]).collect::<Vec<_>>())?;
        for (&item, row) in items.iter().zip(rows) {
            let made = Embedding::normalized(row).map_err(|source| EncodeError::Embedding { item, source })?;
            embeddings[item] = Some(made);
        }
    }
    Ok(embeddings.into_iter().map(|e| e.expect("the runs cover the batch, and each gives a row an item")).collect())
}
