//! What the loop sees of a step. Two implementations: the trainer over ONNX graphs, and the tests' own.

use anchorite_index::Cancel;

use crate::step::{StepError, StepReport, StreamBatch, TrainError, TrainState, Trainer};

/// Gradients and the optimizer. For implementers: an error leaves the parameters and moments of before; the same state and batches give
/// the same result on one thread.
pub trait Engine {
    /// One optimizer step over `batches`, whose gradients are averaged.
    ///
    /// # Errors
    /// [`StepError`].
    fn step(&mut self, batches: &[Vec<StreamBatch>], rate: f64, cancel: &Cancel) -> Result<StepReport, StepError>;

    /// Parameters and moments as they are.
    fn state(&self) -> TrainState;

    /// Puts a state back.
    ///
    /// # Errors
    /// [`TrainError::State`]: it is another model's.
    fn restore(&mut self, state: &TrainState) -> Result<(), TrainError>;
}

impl Engine for Trainer {
    fn step(&mut self, batches: &[Vec<StreamBatch>], rate: f64, cancel: &Cancel) -> Result<StepReport, StepError> {
        batches.iter().try_for_each(|streams| self.accumulate(streams, cancel.flag()))?;
        self.apply(rate)
    }

    fn state(&self) -> TrainState {
        Self::state(self)
    }

    fn restore(&mut self, state: &TrainState) -> Result<(), TrainError> {
        Self::restore(self, state)
    }
}
