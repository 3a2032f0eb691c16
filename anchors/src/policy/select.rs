//! How many of the hits, and which.

use anchorite_index::Side;
use serde::{Deserialize, Serialize};

use super::switch;

/// How many of the hits, and which.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Select {
    /// Anchors a query takes at most; `false` for as many as the target or the class bounds ask for. Default 4.
    #[serde(with = "switch")]
    pub k: Option<usize>,
    /// Anchors in all, at most. Default: any number.
    pub target: Option<usize>,
    /// Bounds for each class of queries.
    pub class: ClassBounds,
    /// Hits that score below this are dropped. It belongs to this encoder: other encoders' cosines differ. Default: none.
    pub threshold: Option<f32>,
    /// Hits below a share of the scores are dropped. Default: none.
    pub percentile: Option<Percentile>,
    /// A pair this near to one already taken (cosine) is dropped. Default 0.95; `false` to leave it out.
    #[serde(with = "switch")]
    pub near_duplicate: Option<f32>,
    /// Which vectors tell near duplicates and diversity; the other side's where a pair lacks it. Default: the pictures'.
    pub compare: Side,
    /// Order in which a query takes its hits. Default: by score.
    pub diversity: Diversity,
}

impl Default for Select {
    fn default() -> Self {
        Self {
            k: Some(4),
            target: None,
            class: ClassBounds::default(),
            threshold: None,
            percentile: None,
            near_duplicate: Some(0.95),
            compare: Side::Image,
            diversity: Diversity::None,
        }
    }
}

/// Bounds for each class of queries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClassBounds {
    /// Served first, beyond `k` if need be; what the pool cannot give is reported.
    pub minimum: Option<usize>,
    /// Exactly this many: minimum and maximum at once.
    pub quota: Option<usize>,
    /// Never more.
    pub maximum: Option<usize>,
}

impl ClassBounds {
    /// Served first.
    #[must_use]
    pub fn least(&self) -> usize {
        self.quota.or(self.minimum).unwrap_or(0)
    }

    /// Never more.
    #[must_use]
    pub fn most(&self) -> usize {
        self.quota.or(self.maximum).unwrap_or(usize::MAX)
    }

    /// Whether there are any.
    #[must_use]
    pub fn any(&self) -> bool {
        self.minimum.is_some() || self.quota.is_some() || self.maximum.is_some()
    }
}

/// Keeps the best share of the scores. The population is each query's first `k` hits that are not excluded or protected.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Percentile {
    /// The share kept, above 0 and at most 1.
    pub keep: f64,
    /// Whose scores are ranked together. Default: a class's.
    #[serde(default)]
    pub per: PercentileScope,
}

/// Whose scores are ranked together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PercentileScope {
    /// Each class's.
    #[default]
    Class,
    /// Everything.
    All,
}

/// Order in which a query takes its hits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, tag = "kind")]
pub enum Diversity {
    /// By score.
    #[default]
    None,
    /// Maximal marginal relevance: `lambda * score - (1 - lambda) * nearest already taken`, over the query's best hits.
    Mmr {
        /// 1 is by score alone, 0 by difference alone. Default 0.5.
        #[serde(default = "half")]
        lambda: f32,
        /// How many of the best hits are reordered. Default 50.
        #[serde(default = "fifty")]
        shortlist: usize,
    },
    /// Greedy facility location: each step takes the hit that best covers the shortlist, weighed against its own score.
    Coverage {
        /// Weight of the score against the gain in coverage. Default 0.5.
        #[serde(default = "half")]
        lambda: f32,
        /// How many of the best hits are reordered. Default 50.
        #[serde(default = "fifty")]
        shortlist: usize,
    },
}

fn half() -> f32 {
    0.5
}

fn fifty() -> usize {
    50
}

impl Diversity {
    /// How many hits are reordered; 0 without diversity.
    #[must_use]
    pub fn shortlist(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Mmr { shortlist, .. } | Self::Coverage { shortlist, .. } => *shortlist,
        }
    }
}
