//! What makes scores of embeddings as it is now: logit scale, the sigmoid's bias, the classifier's head.

use super::graphs::{BIAS, HEAD, LOG_SCALE};
use super::{Objective, TrainError, Trainer};
use crate::graph::Tensor;

impl Trainer {
    /// What cosines are multiplied with now.
    #[must_use]
    pub fn logit_scale(&self) -> f64 {
        f64::from(self.slots.scalar(LOG_SCALE).unwrap_or_default()).exp()
    }

    /// What the sigmoid adds to scaled cosines; none where the loss is another.
    #[must_use]
    pub fn logit_bias(&self) -> Option<f64> {
        let sigmoid = self.plan.objective == Objective::Sigmoid;
        self.slots.scalar(BIAS).filter(|_| sigmoid).map(f64::from)
    }

    /// The classifier's head as it is now, `[classes, values]`.
    #[must_use]
    pub fn head(&self) -> Option<Tensor> {
        self.slots.tensor(HEAD)
    }

    /// Gives the classifier the head it starts from, `[classes, values]`: class embeddings times the logit scale, say. It learns.
    ///
    /// # Errors
    /// [`TrainError::Setting`]: another objective, a trainer that has a head, a head that does not go with this model.
    pub fn set_head(&mut self, head: &Tensor) -> Result<(), TrainError> {
        let refuse = |reason: String| Err(TrainError::Setting { field: "head", reason });
        if self.plan.objective != Objective::Classifier || self.classes > 0 {
            return refuse("it is for a classifier that has none yet".to_owned());
        }
        match *head.shape() {
            [classes, dim] if classes > 0 && dim == self.dim => self.classes = classes,
            _ => return refuse(format!("it is {}; it must be [classes, {}]", head.kind(), self.dim)),
        }
        self.slots.insert(HEAD, head, true)?;
        Ok(())
    }
}
