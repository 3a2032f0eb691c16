//! Whether a pool still has what a manifest names.

use std::collections::HashMap;

use anchorite_index::{Cancel, ContentHash, Key, PairStore, Parts, RowId};
use serde::{Deserialize, Serialize};

use super::{Manifest, ManifestError, Named};
use crate::{Limits, retriever::alive};

/// How much of a manifest a pool still has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// Anchors the manifest names.
    pub anchors: u64,
    /// Found under their key with the same content.
    pub same: u64,
    /// Of those, found at another position.
    pub moved: u64,
    /// Not under their key, but the same content is there under another.
    pub renamed: u64,
    /// Their key is there with other content, and theirs is nowhere.
    pub changed: u64,
    /// Neither their key nor their content is there.
    pub missing: u64,
    /// Share of anchors whose content is there, from 0 to 1.
    pub coverage: f64,
    /// Whether the pool's encoder is the manifest's: otherwise the same policy would choose otherwise.
    pub same_encoder: bool,
    /// The manifest's generation.
    pub manifest_generation: u64,
    /// The pool's.
    pub pool_generation: u64,
    /// Keys of the first anchors that are changed or missing.
    pub examples: Vec<Key>,
}

/// Anchors named as examples.
const EXAMPLES: usize = 20;

/// Looks for every anchor of a manifest in a pool: by key, and where that fails by content.
///
/// # Errors
/// [`StoreError`].
pub fn verify(manifest: &Manifest, store: &dyn PairStore, limits: &Limits, cancel: &Cancel) -> Result<Coverage, ManifestError> {
    let mut coverage = Coverage {
        anchors: manifest.anchors.len() as u64,
        same_encoder: manifest.header.pool.encoder == store.spec().encoder,
        manifest_generation: manifest.header.pool.generation,
        pool_generation: store.status().generation,
        ..Coverage::default()
    };
    let mut lost: Vec<(&Named, bool)> = Vec::new();
    for part in manifest.anchors.chunks(limits.read_batch.max(1)) {
        alive(cancel)?;
        let keys: Vec<Key> = part.iter().map(|a| a.key.clone()).collect();
        let rows = store.find(&keys)?;
        let present: Vec<RowId> = rows.iter().flatten().copied().collect();
        let records = store.get(&present, Parts::default())?;
        let contents: HashMap<RowId, ContentHash> = records.into_iter().flatten().map(|r| (r.row, r.content)).collect();
        for (anchor, row) in part.iter().zip(rows) {
            match row.and_then(|row| Some((row, *contents.get(&row)?))) {
                Some((row, content)) if content == anchor.content => {
                    coverage.same += 1;
                    coverage.moved += u64::from(row != anchor.row);
                }
                found => lost.push((anchor, found.is_some())),
            }
        }
    }
    coverage.look_for(&lost, store, limits, cancel)?;
    let there = coverage.same + coverage.renamed;
    coverage.coverage = if coverage.anchors == 0 { 1.0 } else { there as f64 / coverage.anchors as f64 };
    Ok(coverage)
}

impl Coverage {
    /// Reads the whole pool once for content that is not under its key.
    fn look_for(
        &mut self,
        lost: &[(&Named, bool)],
        store: &dyn PairStore,
        limits: &Limits,
        cancel: &Cancel,
    ) -> Result<(), ManifestError> {
        let mut there: HashMap<ContentHash, bool> = lost.iter().map(|(anchor, _)| (anchor.content, false)).collect();
        let rows = if lost.is_empty() { 0 } else { store.status().positions };
        let step = limits.read_batch.max(1);
        for first in (0..rows).step_by(step) {
            alive(cancel)?;
            let numbers: Vec<RowId> = (first..rows.min(first.saturating_add(step as u64))).map(RowId).collect();
            for record in store.get(&numbers, Parts::default())?.into_iter().flatten() {
                if let Some(found) = there.get_mut(&record.content) {
                    *found = true;
                }
            }
        }
        for (anchor, has_key) in lost {
            match (there.get(&anchor.content).copied().unwrap_or(false), has_key) {
                (true, _) => self.renamed += 1,
                (false, true) => self.changed += 1,
                (false, false) => self.missing += 1,
            }
            if !there.get(&anchor.content).copied().unwrap_or(false) && self.examples.len() < EXAMPLES {
                self.examples.push(anchor.key.clone());
            }
        }
        Ok(())
    }
}
