//! Why a model could not be written.

use std::path::PathBuf;

use anchorite_encoder::{EncodeError, OpenError};

use crate::checkpoint::CheckpointError;

/// Why a model could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// A file.
    #[error(transparent)]
    File(#[from] CheckpointError),
    /// A configuration file that is no JSON object.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Too large for one file of protobuf.
    #[error("{file} would have {bytes} bytes; one .onnx file holds 2 GiB less one: export.f16 halves the weights")]
    TooLarge {
        /// The file.
        file: String,
        /// Bytes.
        bytes: usize,
    },
    /// The written model cannot be opened.
    #[error("the written model cannot be opened again: {0}")]
    Reopen(#[from] OpenError),
    /// The written model fails.
    #[error("the written model fails: {0}")]
    Encode(#[from] EncodeError),
    /// The classifier that was written does not run.
    #[error("the written classifier.onnx does not run: {reason}; nothing was exported, the checkpoint is whole")]
    Classifier {
        /// Why.
        reason: String,
    },
    /// The written model is another.
    #[error(
        "the written model's {tower} tower differs from the live one by {difference:e} (at most {tolerance:e} is rounding); nothing was exported, the checkpoint is whole"
    )]
    Differs {
        /// Which tower.
        tower: &'static str,
        /// Greatest difference of a component.
        difference: f32,
        /// Allowed.
        tolerance: f32,
    },
}
