//! An encoder without towers, for pools of ready-made vectors: questions by vector, row or key are answered, words and pictures
//! are refused with [`EncodeError::NoTower`].

use crate::{Embedding, Encode, EncodeError, ImageError, Pixels, TextError, Tokens};

/// Stands where an encoder is wanted and there is none.
#[derive(Clone, Debug)]
pub struct VectorsOnly {
    dim: usize,
    fingerprint: String,
}

impl VectorsOnly {
    /// For a pool bound to `fingerprint` with `dim` values a vector.
    #[must_use]
    pub fn new(dim: usize, fingerprint: impl Into<String>) -> Self {
        Self { dim, fingerprint: fingerprint.into() }
    }
}

impl Encode for VectorsOnly {
    fn dim(&self) -> usize {
        self.dim
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn name(&self) -> &str {
        "vectors only"
    }

    fn prepare_image(&self, _bytes: &[u8]) -> Result<Pixels, ImageError> {
        Ok(Pixels { values: Vec::new(), height: 0, width: 0 })
    }

    fn prepare_text(&self, _text: &str) -> Result<Tokens, TextError> {
        Ok(Tokens { ids: Vec::new(), truncated: false })
    }

    fn encode_images(&self, _batch: &[Pixels]) -> Result<Vec<Embedding>, EncodeError> {
        Err(EncodeError::NoTower { tower: "image" })
    }

    fn encode_texts(&self, _batch: &[Tokens]) -> Result<Vec<Embedding>, EncodeError> {
        Err(EncodeError::NoTower { tower: "text" })
    }
}
