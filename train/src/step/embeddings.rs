//! What the towers make of pairs as they are now, for comparison with what is exported.

use std::sync::atomic::AtomicBool;

use super::graphs::Side;
use super::rows::Rows;
use super::trainer::Work;
use super::{StepError, StreamBatch, Trainer};

impl Trainer {
    /// Embeddings of all pictures and captions as the towers are now, `[rows, values]` each, streams one after another; not brought to
    /// unit length.
    ///
    /// # Errors
    /// [`StepError`].
    pub fn embeddings(&mut self, streams: &[StreamBatch], cancel: &AtomicBool) -> Result<[Vec<f32>; 2], StepError> {
        for (i, stream) in streams.iter().enumerate() {
            stream.check(i, self.sizes, true)?;
        }
        let rows = Side::BOTH.map(|side| Rows::of(side, streams));
        let work = Work { streams, rows: &rows, units: &[], cancel };
        Ok([self.embed(Side::Vision, &work)?, self.embed(Side::Text, &work)?])
    }
}
