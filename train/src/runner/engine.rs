//! What the loop sees of a step. Two implementations: the trainer over ONNX graphs, and the tests' own.

use std::collections::BTreeMap;

use anchorite_index::Cancel;

use crate::step::{StreamBatch, TrainState};

/// What one optimizer step did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepReport {
    /// The weighted sum that was minimised.
    pub loss: f64,
    /// Each stream's own loss, before its weight.
    pub losses: BTreeMap<String, f64>,
    /// Norm of all gradients together, before clipping.
    pub grad_norm: f64,
    /// What cosines are multiplied with.
    pub logit_scale: f64,
}

/// Why a step was not made. The parameters are those before it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The caller raised its [`Cancel`].
    #[error("cancelled")]
    Cancelled,
    /// NaN, memory, the runtime; names stream and operator.
    #[error("{0}")]
    Failed(String),
}

/// Gradients and the optimizer. For implementers: an error leaves the parameters and moments of before; the same state and batches give
/// the same result on one thread.
pub trait Engine {
    /// One optimizer step over `batches`, whose gradients are added up.
    ///
    /// # Errors
    /// [`EngineError`].
    fn step(&mut self, batches: &[Vec<StreamBatch>], rate: f64, cancel: &Cancel) -> Result<StepReport, EngineError>;

    /// Parameters and moments as they are.
    ///
    /// # Errors
    /// [`EngineError`].
    fn state(&self) -> Result<TrainState, EngineError>;

    /// Puts a state back.
    ///
    /// # Errors
    /// [`EngineError`]: it is another model's.
    fn restore(&mut self, state: TrainState) -> Result<(), EngineError>;
}
