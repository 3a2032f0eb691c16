//! What a model may cost here.

use anchorite_encoder::model::ModelLimits;

/// Bounds on what is read and computed from a model file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The file itself, by the encoder's rule.
    pub model: ModelLimits,
    /// Elements of one value. Default 2^33: larger than any activation of a batch that fits a machine, small enough that bytes
    /// never overflow.
    pub max_elements: usize,
    /// Elements of a value computed ahead of time. Default 2^22: a causal mask of 2,048 tokens; larger ones are left to the runtime.
    pub max_folded_elements: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { model: ModelLimits::default(), max_elements: 1 << 33, max_folded_elements: 1 << 22 }
    }
}
