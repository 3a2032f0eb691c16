//! Every bound of this crate in one place.

/// What a pool accepts. Values beyond a bound are refused before anything is allocated for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Hits per query. 10,000: what clip-retrieval clients ask for at most; a beam that wide still answers in tens of
    /// milliseconds.
    pub k: usize,
    /// Values per vector. 16,384: four times the widest public CLIP-like model.
    pub dim: usize,
    /// Bytes of a caption. 1 MiB: alt texts reach tens of KiB; beyond that it is not a caption.
    pub caption_bytes: usize,
    /// Metadata fields per pair. 1,024: wide tables have hundreds of columns.
    pub fields: usize,
    /// Bytes of a field's name. 255.
    pub field_name_bytes: usize,
    /// Bytes of one text value. 1 MiB, as for captions.
    pub field_text_bytes: usize,
    /// Bytes of a source name. 4,096: the longest path of common systems.
    pub source_bytes: usize,
    /// Bytes of one stored picture. 256 MiB: larger than any encoded picture a decoder's own limits let through.
    pub picture_bytes: usize,
    /// Bytes of the ingest watermark. 16 MiB: progress of a million files at 16 bytes each.
    pub progress_bytes: usize,
    /// Bytes of an encoder fingerprint. 1,024: a hex SHA-256 has 64.
    pub encoder_bytes: usize,
    /// Bytes of a model's name. 1,024: a hub id or a folder's name.
    pub model_bytes: usize,
    /// Bytes of a manifest. 64 MiB: a hundred thousand segments and the watermark.
    pub manifest_bytes: u64,
    /// Rows of one segment. 2^31 - 2: node ids are 31 bits wide, one bit marks a node as expanded during a search.
    pub segment_rows: u64,
    /// Queries answered per pass of an exact search. 96: bounds memory to threads x 96 x 2k candidates of 16 bytes, fits the second
    /// cache at 512 values, and is a multiple of the kernel's six.
    pub exact_queries: usize,
    /// Base of the node budget of one graph search; see [`Limits::node_budget`]. 20,000.
    pub budget_base: usize,
    /// Nodes per beam slot of the node budget. 200: a search that behaves looks at about 10 to 30 nodes per slot.
    pub budget_per_ef: usize,
    /// Levels of a filter. 16: people write three, programs that nest generate a few more.
    pub filter_depth: usize,
    /// Terms of a filter. 1,024: each costs one comparison a row.
    pub filter_terms: usize,
    /// Values listed in a filter's `in` terms. 65,536: a list of keys; each lookup is a binary search.
    pub filter_values: usize,
    /// Bytes of filter results that an open pool keeps for the next call. 64 MiB: 170 filters over a million rows.
    pub filter_cache_bytes: usize,
    /// Fields named by an error that says which there are. 32.
    pub fields_named: usize,
    /// How often a reader starts over when files vanish under it because a writer published meanwhile. 5.
    pub reopen_attempts: u32,
}

impl Limits {
    /// The bounds in use.
    pub const STANDARD: Self = Self {
        k: 10_000,
        dim: 16_384,
        caption_bytes: 1 << 20,
        fields: 1_024,
        field_name_bytes: 255,
        field_text_bytes: 1 << 20,
        source_bytes: 4_096,
        picture_bytes: 256 << 20,
        progress_bytes: 16 << 20,
        encoder_bytes: 1_024,
        model_bytes: 1_024,
        manifest_bytes: 64 << 20,
        segment_rows: (1 << 31) - 2,
        exact_queries: 96,
        budget_base: 20_000,
        budget_per_ef: 200,
        filter_depth: 16,
        filter_terms: 1_024,
        filter_values: 65_536,
        filter_cache_bytes: 64 << 20,
        fields_named: 32,
        reopen_attempts: 5,
    };

    /// How many nodes one graph search may compare before it stops and says `degraded`.
    #[must_use]
    pub fn node_budget(&self, ef: usize) -> usize {
        self.budget_base.saturating_add(self.budget_per_ef.saturating_mul(ef))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::STANDARD
    }
}
