//! Placeholder until the step lands.
use crate::graph::Tensor;
use std::collections::BTreeMap;

/// One contrastive stream of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamBatch {
    /// Name.
    pub name: String,
    /// Weight.
    pub weight: f64,
    /// n x 3 x H x W.
    pub pixels: Vec<f32>,
    /// n x L.
    pub tokens: Vec<i64>,
    /// n x L.
    pub mask: Option<Vec<i64>>,
    /// Groups.
    pub groups: Option<Vec<u32>>,
}

/// State.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TrainState {
    /// Steps done.
    pub step: u64,
    /// Values.
    pub parameters: BTreeMap<String, Tensor>,
    /// Moments.
    pub first: BTreeMap<String, Tensor>,
    /// Moments.
    pub second: BTreeMap<String, Tensor>,
}
