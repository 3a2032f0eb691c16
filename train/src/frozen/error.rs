//! Why a model cannot be trained from remembered features.

use anchorite_encoder::{ImageError, OpenError, TextError};

use crate::{eval::EvalError, export::ExportError, step::TrainError};

/// Why a model cannot be trained from remembered features.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrozenError {
    /// The folder.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The towers, or a trainer of their heads.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The file of features.
    #[error(transparent)]
    Kept(#[from] EvalError),
    /// The written model is not the trained one.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// No place to cut.
    #[error("the {tower} tower: {reason}")]
    Cut {
        /// "vision" or "text".
        tower: &'static str,
        /// What is in the way.
        reason: String,
    },
    /// A picture.
    #[error(transparent)]
    Picture(#[from] ImageError),
    /// A text.
    #[error(transparent)]
    Text(#[from] TextError),
    /// ONNX Runtime's word.
    #[error("the {part} failed: {reason}")]
    Runtime {
        /// "vision trunk", "text head", ...
        part: String,
        /// Its word.
        reason: String,
    },
    /// Weights of another model.
    #[error("weight {name:?}: {reason}")]
    Weight {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
}
