//! Placeholder until the step lands.
use crate::graph::Tensor;
use std::collections::BTreeMap;

/// Pictures of a stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Pictures {
    /// Prepared pixels, `[pairs, 3, height, width]`.
    Own(Vec<f32>),
    /// Those of an earlier stream of the same step, by its number: embedded once, used in both.
    SameAs(usize),
}

/// One contrastive stream of a step: class prompts, captions or anchors.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamBatch {
    /// For reports.
    pub name: String,
    /// Factor of its loss: 1 for class prompts, lambda_cap, lambda_ret.
    pub weight: f32,
    /// How many pairs.
    pub pairs: usize,
    /// Their pictures.
    pub pictures: Pictures,
    /// Token ids, `[pairs, tokens]`. Empty where the objective is the classifier.
    pub tokens: Vec<i64>,
    /// 1 where there is a token and 0 where there is padding, `[pairs, tokens]`; `None` is ones. Passed over by models that take no
    /// mask.
    pub mask: Option<Vec<i64>>,
    /// The group of each pair: pairs of one group are no plain negatives of each other ([`super::Plan::same_group`]). For the
    /// classifier, the class. Groups mean the same in all streams of a step.
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
