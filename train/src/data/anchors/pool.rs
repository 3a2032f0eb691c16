//! Anchors of a pool in this process, chosen by the policy for the very rows of the batch.

use std::sync::{Mutex, PoisonError};

use anchorite_anchors::{
    Limits, Policy, PromptCache, Protected, QueryRow, Questions, Retriever, Surroundings, curate, encode_questions,
};
use anchorite_index::{Cancel, Parts, RowId};

use super::{AnchorPair, AnchorSource, Query, fill, manifest::pair};
use crate::data::{DataError, Draw, hex, stream};

/// A pool that is asked while training.
pub struct PoolAnchors {
    retriever: Retriever,
    policy: Policy,
    protected: Protected,
    limits: Limits,
    seed: u64,
    prompts: Mutex<PromptCache>,
}

impl std::fmt::Debug for PoolAnchors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolAnchors").field("retriever", &self.retriever).finish_non_exhaustive()
    }
}

impl PoolAnchors {
    /// The pool behind `retriever`, asked by `policy`; its protected sets are read now.
    ///
    /// # Errors
    /// [`DataError`]: the policy, or a protected set.
    pub fn new(retriever: Retriever, policy: &Policy, seed: u64, cancel: &Cancel) -> Result<Self, DataError> {
        let policy = policy.clone().checked().map_err(anchorite_anchors::CurateError::from)?;
        let limits = Limits::default();
        let protected = Protected::read(&policy.protect, retriever.encoder(), &limits, cancel)?;
        Ok(Self { retriever, policy, protected, limits, seed, prompts: Mutex::default() })
    }

    fn questions(&self, queries: &[Query<'_>], cancel: &Cancel) -> Result<Questions, DataError> {
        let row = |query: &Query<'_>| QueryRow {
            id: format!("task#{}", query.row),
            class: query.class.clone(),
            caption: query.caption.map(str::to_owned),
            picture: Some(query.picture.to_vec()),
        };
        // The encoder has one session; callers would wait for it anyway.
        let mut prompts = self.prompts.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = queries.iter().map(row).collect();
        Ok(encode_questions(rows, (&self.policy, &mut prompts), self.retriever.encoder(), &self.limits, cancel)?)
    }
}

impl AnchorSource for PoolAnchors {
    fn batch(&self, number: u64, count: usize, queries: &[Query<'_>], cancel: &Cancel) -> Result<Vec<AnchorPair>, DataError> {
        let questions = self.questions(queries, cancel)?;
        let store = self.retriever.store();
        let surroundings = Surroundings { limits: &self.limits, cancel, told: &|_, _| () };
        let curated = curate(store, &self.policy, &questions, &self.protected, surroundings)?;
        let rows: Vec<RowId> = curated.entries.iter().filter(|e| e.reason.is_none()).map(|e| e.row).collect();
        let records = store.get(&rows, Parts { picture: true, vectors: false })?;
        let usable = records.into_iter().flatten().filter_map(|record| pair(record).ok());
        let found: Vec<AnchorPair> = usable
            .map(|mut pair| AnchorPair { picture: pair.picture, caption: pair.texts.pop().unwrap_or_default() })
            .collect();
        if found.len() < 2 {
            return Err(DataError::NoAnchors { batch: number, found: found.len(), queries: queries.len() });
        }
        Ok(fill(found, count, &mut Draw::at(&[self.seed, stream::ANCHORS, number])))
    }

    fn fingerprint(&self) -> String {
        use sha2::{Digest, Sha256};
        let status = self.retriever.store().status();
        let policy = hex(&Sha256::digest(self.policy.to_json()));
        format!("pool {} generation {} rows {} policy {policy}", self.retriever.store().spec().encoder, status.generation, status.rows)
    }

    fn describe(&self) -> String {
        let status = self.retriever.store().status();
        format!("a pool of {} pairs (generation {}), asked while training", status.rows, status.generation)
    }
}
