//! What a curation gives back: every hit that was looked at, and counts of everything.

use std::collections::BTreeMap;

use anchorite_index::{ContentHash, Key, RowId};
use serde::{Deserialize, Serialize};

use crate::{
    protect::ProtectedSet,
    reason::{End, Match, Reason},
};

/// One hit that was looked at: an anchor, or what spoke against it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The query's place among the questions; none for a control.
    pub query: Option<usize>,
    /// Place among the query's hits (a control's draws), counted from 0.
    pub rank: usize,
    /// Cosine, or the weighted mean of several; none for a control.
    pub score: Option<f32>,
    /// The pair's position.
    pub row: RowId,
    /// The pair's name.
    pub key: Key,
    /// What it was made from.
    pub content: ContentHash,
    /// Its caption.
    pub caption: Option<String>,
    /// Why it is no anchor; none for an anchor.
    pub reason: Option<Reason>,
    /// The reason's particulars: a word, a column, a key, a protected picture.
    pub detail: Option<String>,
    /// Anchors of one caption share a number: to each other they are no negatives. None for an anchor alone with its caption.
    pub group: Option<u32>,
    /// Whether it is set aside for validation.
    pub validation: bool,
}

/// What one class asked for and got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassReport {
    /// Its name.
    pub class: String,
    /// Its queries.
    pub queries: u64,
    /// Its minimum or quota; otherwise `k` for each query, no more than its maximum.
    pub wanted: u64,
    /// Its anchors.
    pub found: u64,
    /// What is missing.
    pub shortfall: u64,
}

/// A pair of the pool that matched a protected picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProtectedPair {
    /// The pair.
    pub key: Key,
    /// Its position.
    pub row: RowId,
    /// What it matched.
    #[serde(flatten)]
    pub matched: Match,
}

/// How much was asked for, found, and dropped for which reason.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Queries asked.
    pub queries: u64,
    /// Rows of the query file that are no query.
    pub queries_rejected: u64,
    /// Anchors asked for in all.
    pub requested: u64,
    /// Anchors.
    pub found: u64,
    /// What is missing.
    pub shortfall: u64,
    /// Hits fetched for all queries, over-fetching included.
    pub fetched: u64,
    /// Distinct pairs among them.
    pub pairs: u64,
    /// Hits that a query passed over, by reason; all of them, listed or not.
    pub dropped: BTreeMap<String, u64>,
    /// Hits passed over that are counted only: a query lists no more than [`crate::Limits::max_listed`].
    #[serde(default)]
    pub unlisted: u64,
    /// Queries by what ended their list.
    pub ended: BTreeMap<String, u64>,
    /// Queries whose search the store cut short.
    pub degraded: u64,
    /// By class, where queries have classes.
    pub classes: Vec<ClassReport>,
    /// Anchors that share their caption with another.
    pub in_caption_groups: u64,
    /// Anchors set aside for validation.
    pub validation: u64,
    /// The protected sets.
    pub protected: Vec<ProtectedSet>,
    /// Pairs that matched, by set and by how; in an audit they were not dropped.
    pub matched: BTreeMap<String, BTreeMap<String, u64>>,
    /// Pairs whose picture the pool did not keep: only their vectors were compared.
    pub pictures_not_compared: u64,
    /// The matches, pair and protected picture; at most [`Limits::max_matches`].
    pub matches: Vec<ProtectedPair>,
}

/// Anchors and the account of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curated {
    /// By query, in the order in which each looked at its hits.
    pub entries: Vec<Entry>,
    /// What ended each query's list, in the order of the queries; nothing for controls.
    pub ends: Vec<End>,
    /// The counts.
    pub report: Report,
}
