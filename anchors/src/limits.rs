//! How much one call may take.

/// The bounds of one [`crate::Retriever`], and of one [`crate::curate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Items encoded together. Default 32: a batch of 224 px pictures is then 19 MB, and larger batches gain nothing on CPU.
    pub encode_batch: usize,
    /// Records read together by [`crate::Retriever::anchors`]. Default 1,024: bounds what a cancelled read still does.
    pub read_batch: usize,
    /// Queries searched together by [`crate::curate`]. Default 512: many enough to share a pass over the pool.
    pub query_block: usize,
    /// Queries of one [`crate::curate`]. Default 2,000,000 (ImageNet's 1.28 million fit): their vectors are held, 2 KiB each at 512 values.
    pub max_queries: usize,
    /// Hits that [`crate::curate`] holds for all queries together, 16 bytes each. Default 64 million; beyond it no query is asked again for
    /// more, and those that wanted more are reported.
    pub max_hits: usize,
    /// Hits a query passed over that a manifest lists; those beyond are counted by reason. Default 256: a policy that asks for more anchors
    /// than the pool holds passes over a whole shortlist (up to 10,000) for every query, 13 bytes of manifest each.
    pub max_listed: usize,
    /// Distinct pairs of the pool that [`crate::curate`] looks at, each with one vector. Default 2,000,000.
    pub max_items: usize,
    /// Hits of a query that diversity may reorder. Default 10,000, the pool's own largest k.
    pub max_shortlist: usize,
    /// Pictures of all protected sets together, each with its vector. Default 1,000,000.
    pub max_protected: usize,
    /// Matches with protected pictures that a report names; all are counted. Default 100,000.
    pub max_matches: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            encode_batch: 32,
            read_batch: 1024,
            query_block: 512,
            max_queries: 2_000_000,
            max_hits: 64_000_000,
            max_listed: 256,
            max_items: 2_000_000,
            max_shortlist: 10_000,
            max_protected: 1_000_000,
            max_matches: 100_000,
        }
    }
}
