//! Why a hit is no anchor, and why a query has no more of them. Codes are stable: programs match on them.

/// Why a hit was passed over.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// Its key is on the policy's list.
    ExcludedKey,
    /// Its caption has an excluded word.
    ExcludedWord {
        /// The word as the policy has it.
        word: String,
    },
    /// A metadata column has an excluded value.
    ExcludedField {
        /// The column.
        column: String,
    },
    /// It matches the policy's filter of what is excluded.
    ExcludedFilter,
    /// It is a picture of a protected set.
    Protected(Match),
    /// It is a pair of the same content under another key as one already taken.
    SameContent {
        /// The taken item.
        of: usize,
    },
    /// It is too near to one already taken.
    NearDuplicate {
        /// The taken item.
        of: usize,
        /// How near.
        cosine: f32,
    },
    /// Another query took it.
    AlreadyTaken {
        /// The query's place.
        by: usize,
    },
    /// Its score is below the threshold.
    BelowThreshold,
    /// Its score is below the share that is kept.
    BelowPercentile,
    /// A candidate that this epoch's draw left out.
    NotDrawn,
}

impl Reason {
    /// A stable short name for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::ExcludedKey => "excluded_key",
            Self::ExcludedWord { .. } => "excluded_word",
            Self::ExcludedField { .. } => "excluded_field",
            Self::ExcludedFilter => "excluded_filter",
            Self::Protected(found) => found.how.code(),
            Self::SameContent { .. } => "same_content",
            Self::NearDuplicate { .. } => "near_duplicate",
            Self::AlreadyTaken { .. } => "already_taken",
            Self::BelowThreshold => "below_threshold",
            Self::BelowPercentile => "below_percentile",
            Self::NotDrawn => "not_drawn",
        }
    }
}

/// A pair that is a protected picture, or too like one.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Match {
    /// The protected set.
    pub set: String,
    /// Its picture: file and row.
    pub picture: String,
    /// How it was recognised.
    pub how: How,
    /// Distance from 0 to 64 for perceptual hashes, a cosine for vectors, 0 for equal bytes.
    pub value: f32,
}

/// How a protected picture was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// The same bytes.
    Exact,
    /// Perceptual hashes that differ little.
    Perceptual,
    /// Descriptors of a copy-detection model that are near.
    Copy,
    /// Image vectors that are near.
    Similar,
    /// Nearer than the query pictures are.
    Nearer,
}

impl How {
    /// As [`Reason::code`].
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Exact => "protected_exact",
            Self::Perceptual => "protected_perceptual",
            Self::Copy => "protected_copy",
            Self::Similar => "protected_similar",
            Self::Nearer => "protected_nearer",
        }
    }
}

/// Why a query took no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum End {
    /// It has its `k`, or its class has all it asked for.
    Met,
    /// The rest of its hits score below the threshold.
    BelowThreshold,
    /// The rest of its hits score below the share that is kept.
    BelowPercentile,
    /// Its class has its maximum.
    ClassFull,
    /// The target is reached.
    SetFull,
    /// The pool has no more pairs for it.
    Exhausted,
    /// The search goes no deeper: the store's largest k, or [`crate::Limits::max_hits`].
    SearchLimit,
}

impl End {
    /// A stable short name for programs.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::BelowThreshold => "below_threshold",
            Self::BelowPercentile => "below_percentile",
            Self::ClassFull => "class_full",
            Self::SetFull => "set_full",
            Self::Exhausted => "pool_exhausted",
            Self::SearchLimit => "search_limit",
        }
    }
}
