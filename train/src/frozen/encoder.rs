//! Trained heads over remembered features, as the rest of the program sees an encoder.

use std::sync::{Arc, Mutex, PoisonError};

use anchorite_encoder::{Embedding, Encode, EncodeError, ImageError, Pixels, TextError, Tokens};
use ort::{session::Session, value::Tensor as Value};

use super::{Features, FrozenError, features};

/// A dual encoder whose pictures and texts are values at the seam: a picture's as `1 x 1 x n` [`Pixels`], a text's as the bits of its floats in
/// [`Tokens`].
pub struct FrozenEncoder {
    pub(super) features: Arc<Features>,
    pub(super) vision: Mutex<Head>,
    pub(super) text: Mutex<Head>,
    pub(super) fingerprint: String,
    pub(super) dim: usize,
}

impl std::fmt::Debug for FrozenEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrozenEncoder").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// A head's session.
pub(super) struct Head {
    pub(super) tower: &'static str,
    pub(super) session: Session,
    pub(super) seam: String,
    pub(super) output: String,
    /// Sizes of one item at the seam.
    pub(super) shape: Vec<usize>,
}

impl Head {
    /// Embeddings as the head gives them, one after the other, and how many values each has.
    pub(super) fn run(&mut self, items: usize, values: Vec<f32>) -> Result<(usize, Vec<f32>), String> {
        let shape: Vec<usize> = std::iter::once(items).chain(self.shape.iter().copied()).collect();
        let value = Value::from_array((shape, values)).map_err(|e| e.to_string())?;
        let (shape, values) = features::run(&mut self.session, vec![(self.seam.clone(), (&value).into())], &self.output)?;
        Ok((shape.iter().product(), values))
    }

    fn embed(&mut self, items: usize, values: Vec<f32>) -> Result<Vec<Embedding>, EncodeError> {
        if items == 0 {
            return Ok(Vec::new());
        }
        let (dim, values) = self.run(items, values).map_err(|reason| EncodeError::Runtime { tower: self.tower, reason })?;
        let unit = |(item, row): (usize, &[f32])| {
            Embedding::normalized(row.to_vec()).map_err(|source| EncodeError::Embedding { item, source })
        };
        values.chunks_exact(dim).enumerate().map(unit).collect()
    }
}

impl Encode for FrozenEncoder {
    fn dim(&self) -> usize {
        self.dim
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn name(&self) -> &str {
        "trained heads"
    }

    fn prepare_image(&self, bytes: &[u8]) -> Result<Pixels, ImageError> {
        let values = self.features.picture(bytes).map_err(image_error)?;
        Ok(Pixels { height: 1, width: values.len(), values })
    }

    fn prepare_text(&self, text: &str) -> Result<Tokens, TextError> {
        let values = self.features.text(text).map_err(text_error)?;
        Ok(Tokens { ids: values.into_iter().map(f32::to_bits).collect(), truncated: false })
    }

    fn encode_images(&self, batch: &[Pixels]) -> Result<Vec<Embedding>, EncodeError> {
        let values = batch.iter().flat_map(|p| p.values.iter().copied()).collect();
        self.vision.lock().unwrap_or_else(PoisonError::into_inner).embed(batch.len(), values)
    }

    fn encode_texts(&self, batch: &[Tokens]) -> Result<Vec<Embedding>, EncodeError> {
        let values = batch.iter().flat_map(|t| t.ids.iter().map(|&bits| f32::from_bits(bits))).collect();
        self.text.lock().unwrap_or_else(PoisonError::into_inner).embed(batch.len(), values)
    }
}

/// What the seam of encoders can say of a picture.
pub(crate) fn image_error(error: FrozenError) -> ImageError {
    match error {
        FrozenError::Picture(error) => error,
        other => ImageError::Unsupported { what: other.to_string() },
    }
}

/// What the seam of encoders can say of a text.
pub(crate) fn text_error(error: FrozenError) -> TextError {
    match error {
        FrozenError::Text(error) => error,
        other => TextError::Tokenizer { reason: other.to_string() },
    }
}
