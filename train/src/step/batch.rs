//! What a step is fed.

use super::{InputSizes, StepError};

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
    /// Token ids, `[pairs, tokens]`. May be empty where the objective is the classifier, which does not read them.
    pub tokens: Vec<i64>,
    /// 1 where there is a token and 0 where there is padding, `[pairs, tokens]`; `None` is ones. Passed over by models that take no
    /// mask.
    pub mask: Option<Vec<i64>>,
    /// The group of each pair: pairs of one group are no plain negatives of each other ([`super::Plan::same_group`]). For the
    /// classifier, the class. Groups mean the same in all streams of a step.
    pub groups: Option<Vec<u32>>,
}

impl StreamBatch {
    /// That its parts have the sizes they must have.
    pub(super) fn check(&self, index: usize, sizes: InputSizes, captions: bool) -> Result<(), StepError> {
        let refuse = |reason: String| Err(StepError::Batch { stream: self.name.clone(), reason });
        let pixels = self.pairs * 3 * sizes.height * sizes.width;
        let tokens = if captions { self.pairs * sizes.tokens } else { 0 };
        match &self.pictures {
            _ if self.pairs == 0 => return refuse("it has no pair".to_owned()),
            Pictures::Own(values) if values.len() != pixels => {
                return refuse(format!("it has {} pixel values, {} pairs need {pixels}", values.len(), self.pairs));
            }
            Pictures::SameAs(other) if *other >= index => {
                return refuse(format!("its pictures are those of stream {other}, which does not come before it"));
            }
            _ => {}
        }
        if captions && self.tokens.len() != tokens {
            return refuse(format!("it has {} token ids, {} pairs need {tokens}", self.tokens.len(), self.pairs));
        }
        if self.mask.as_ref().is_some_and(|mask| mask.len() != self.tokens.len()) {
            return refuse("its mask has another size than its tokens".to_owned());
        }
        if self.groups.as_ref().is_some_and(|groups| groups.len() != self.pairs) {
            return refuse("it has not one group for each pair".to_owned());
        }
        if !self.weight.is_finite() || self.weight < 0.0 {
            return refuse(format!("its weight is {}; it must be zero or more", self.weight));
        }
        Ok(())
    }
}
