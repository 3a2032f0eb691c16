//! Anchors of a pool in this process, chosen by the policy for the very rows of the batch, as a server does it.

use anchorite_anchors::{CurateError, Given, Limits, Policy, Retriever, Sample, Surroundings, curate_sample, encode_questions};
use anchorite_index::{Cancel, Parts, RowId};

use super::{AnchorPair, AnchorSource, Query, Wanted, fill, manifest::pair};
use crate::data::{DataError, Draw, hex, stream};

/// A pool that is asked while training.
pub struct PoolAnchors {
    retriever: Retriever,
    policy: Policy,
    limits: Limits,
    seed: u64,
}

impl std::fmt::Debug for PoolAnchors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolAnchors").field("retriever", &self.retriever).finish_non_exhaustive()
    }
}

impl PoolAnchors {
    /// The pool behind `retriever`, asked by `policy`.
    ///
    /// # Errors
    /// [`DataError::Curate`]: the policy.
    pub fn new(retriever: Retriever, policy: &Policy, seed: u64) -> Result<Self, DataError> {
        let policy = policy.clone().checked().map_err(CurateError::from)?;
        Ok(Self { retriever, policy, limits: Limits::default(), seed })
    }
}

/// Anchors of each query, so that together they are enough.
pub(super) fn per_query(count: usize, queries: usize) -> usize {
    count.div_ceil(queries.max(1)).max(1)
}

impl AnchorSource for PoolAnchors {
    fn batch(&self, wanted: Wanted, queries: &[Query<'_>], cancel: &Cancel) -> Result<Vec<AnchorPair>, DataError> {
        let given = |query: &Query<'_>| Given {
            id: format!("task#{}", query.row),
            class: query.class.clone(),
            caption: query.caption.map(str::to_owned),
            picture: Some(query.picture.to_vec()),
            ..Given::default()
        };
        let given = queries.iter().map(given).collect();
        let questions = encode_questions(given, &self.policy, self.retriever.encoder(), &self.limits, cancel)?;
        let store = self.retriever.store();
        let sample = Sample { k: per_query(wanted.count, queries.len()), seed: self.seed, epoch: wanted.epoch };
        let surroundings = Surroundings { limits: &self.limits, cancel, told: &|_, _| () };
        let curated = curate_sample(store, &self.policy, &questions, &sample, surroundings)?;
        let rows: Vec<RowId> = curated.entries.iter().filter(|e| e.reason.is_none()).map(|e| e.row).collect();
        let records = store.get(&rows, Parts { picture: true, vectors: false })?;
        let usable = records.into_iter().flatten().filter_map(|record| pair(record).ok());
        let anchor =
            |mut pair: crate::data::PairData| AnchorPair { picture: pair.picture, caption: pair.texts.pop().unwrap_or_default() };
        let found: Vec<AnchorPair> = usable.map(anchor).collect();
        enough(&found, wanted, queries.len())?;
        Ok(fill(&found, wanted.count, &mut Draw::at(&[self.seed, stream::ANCHORS, wanted.number])))
    }

    fn fingerprint(&self) -> String {
        use sha2::{Digest, Sha256};
        let policy = hex(&Sha256::digest(self.policy.to_json()));
        let encoder = &self.retriever.store().spec().encoder;
        format!("pool {encoder} policy {policy}")
    }

    fn generation(&self) -> Option<u64> {
        Some(self.retriever.store().status().generation)
    }

    fn describe(&self) -> String {
        let status = self.retriever.store().status();
        format!("a pool of {} pairs (generation {}), asked while training", status.rows, status.generation)
    }
}

/// Two different anchors are the least that a loss can tell apart.
pub(super) fn enough(found: &[AnchorPair], wanted: Wanted, queries: usize) -> Result<(), DataError> {
    match found.len() {
        0 | 1 => Err(DataError::NoAnchors { batch: wanted.number, found: found.len(), queries }),
        _ => Ok(()),
    }
}
