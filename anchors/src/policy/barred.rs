//! What must not become an anchor: by name, by words, by column, or as a picture of an evaluation set.

use anchorite_index::{Filter, Key, Value};
use serde::{Deserialize, Serialize};

use super::switch;

/// Pairs that must not become anchors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Exclude {
    /// By key.
    pub keys: Vec<Key>,
    /// By words of the caption: whole words in any case, also with an `s` behind; several words stand in this order. For
    /// held-out class names and their synonyms.
    pub words: Vec<String>,
    /// By the value of a metadata column.
    pub fields: Vec<FieldValue>,
    /// Every pair that matches this filter, in the language of searches: `{"not": {"eq": {"field": "lang", "value": "en"}}}`. Default: none.
    pub filter: Option<Filter>,
}

/// A metadata column and a value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldValue {
    /// The column.
    pub column: String,
    /// Its value.
    pub value: Value,
}

/// Evaluation sets whose pictures must not be among the anchors, and what counts as the same picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Protect {
    /// The sets.
    pub sets: Vec<ProtectedSource>,
    /// The same picture bytes. Default: on.
    pub exact: bool,
    /// Perceptual hashes at most this unlike, from 0 (equal) to 64. Default 12: of 22 matches of drawings looked at by eye, 11 of the 12 up
    /// to there were the same picture, and 4 of the 10 between 12 and 14. `false` to leave it out.
    #[serde(with = "switch")]
    pub perceptual: Option<u32>,
    /// Descriptors this near (cosine), where a copy-detection model is given beside the policy. Default 0.604169, the threshold that "The Unmet
    /// Promise of Synthetic Training Images" took for the descriptor of ISC21's winner; other models need their own. `false` to leave it out.
    #[serde(with = "switch")]
    pub copy_similarity: Option<f32>,
    /// Image vectors this near (cosine). Default 0.95; `false` to leave it out.
    #[serde(with = "switch")]
    pub similarity: Option<f32>,
    /// Also drop a pair that is nearer to a protected picture than to every query picture. Default: off.
    pub nearer_than_queries: bool,
    /// Report matches and drop nothing. Default: off.
    pub audit: bool,
}

impl Default for Protect {
    fn default() -> Self {
        Self {
            sets: Vec::new(),
            exact: true,
            perceptual: Some(12),
            copy_similarity: Some(0.604_169),
            similarity: Some(0.95),
            nearer_than_queries: false,
            audit: false,
        }
    }
}

/// One evaluation set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProtectedSource {
    /// What reports call it.
    pub name: String,
    /// A parquet file or a folder of them, with a picture column.
    pub source: String,
}
