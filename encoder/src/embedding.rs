//! The result: a vector that is finite and of unit length by construction.

/// `dim` finite values of unit length.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding(Vec<f32>);

/// Why values are no embedding.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum EmbeddingError {
    /// NaN or infinity.
    #[error("value {position} of the embedding is not finite")]
    NotFinite {
        /// Index of the first such value.
        position: usize,
    },
    /// All zero, or so small or large that its length is no usable number.
    #[error("the embedding's length is {length}; it cannot be scaled to 1")]
    NoDirection {
        /// Euclidean length.
        length: f32,
    },
}

impl Embedding {
    /// Scales `values` to unit length.
    ///
    /// # Errors
    /// [`EmbeddingError`] when a value is not finite or the length is zero.
    pub fn normalized(mut values: Vec<f32>) -> Result<Self, EmbeddingError> {
        if let Some(position) = values.iter().position(|v| !v.is_finite()) {
            return Err(EmbeddingError::NotFinite { position });
        }
        let length = values.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
        if !(length > 1e-12 && length.is_finite()) {
            return Err(EmbeddingError::NoDirection { length: length as f32 });
        }
        for v in &mut values {
            *v = (f64::from(*v) / length) as f32;
        }
        Ok(Self(values))
    }

    /// The values.
    #[must_use]
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    /// The values, owned.
    #[must_use]
    pub fn into_vec(self) -> Vec<f32> {
        self.0
    }
}
