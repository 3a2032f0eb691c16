//! Why an evaluation ends early.

use std::{io, path::PathBuf};

use anchorite_encoder::EncodeError;
use anchorite_ingest::SourceError;

/// What is wrong with a configuration, a set, or the machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// The configuration is no TOML of the right shape.
    #[error("the evaluation's configuration: {reason}")]
    Config {
        /// The parser's word, with line and field.
        reason: String,
    },
    /// A field that makes no sense.
    #[error("{field}: {reason}")]
    Field {
        /// Which field, as it is written in the file.
        field: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A file that cannot be read or written.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// A set's files.
    #[error("set {set:?}: {source}")]
    Source {
        /// Which set.
        set: String,
        /// Why.
        source: Box<SourceError>,
    },
    /// A row whose label is none.
    #[error("set {set:?}, {row}: {reason}")]
    Label {
        /// Which set.
        set: String,
        /// File and row.
        row: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// No image is left.
    #[error("set {set:?} has no image to evaluate ({unreadable} unreadable, {outside} with other labels)")]
    Empty {
        /// Which set.
        set: String,
        /// How many could not be read.
        unreadable: u64,
        /// How many had labels that are not evaluated.
        outside: u64,
    },
    /// More than allowed.
    #[error("{what}: at most {max} are allowed")]
    TooMany {
        /// Of what.
        what: String,
        /// The limit.
        max: usize,
    },
    /// The encoder failed.
    #[error("model {model:?}: {source}")]
    Encode {
        /// Which model.
        model: String,
        /// Why.
        source: EncodeError,
    },
    /// A prompt that cannot be tokenized, or a class without a direction.
    #[error("model {model:?}, class {class:?}: {reason}")]
    Class {
        /// Which model.
        model: String,
        /// Which class.
        class: String,
        /// Why.
        reason: String,
    },
    /// Two models read different images of one set, so that they cannot be compared.
    #[error("set {set:?}: model {model:?} reads other images than {first:?}; their figures cannot be compared")]
    OtherImages {
        /// Which set.
        set: String,
        /// A model.
        model: String,
        /// The first model.
        first: String,
    },
    /// The probe's optimiser did not come to rest.
    #[error("probe {probe:?}: not converged after {steps} steps (gradient {gradient:.1e}); use a larger l2")]
    NotConverged {
        /// Which probe.
        probe: String,
        /// Steps taken.
        steps: usize,
        /// Largest part of the gradient.
        gradient: f64,
    },
    /// Results that could not be put into a file.
    #[error("write {}: {reason}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The writer's word.
        reason: String,
    },
    /// Ended on request.
    #[error("interrupted")]
    Cancelled,
}

impl EvalError {
    /// A field of the configuration that makes no sense.
    pub(crate) fn field(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Field { field: field.into(), reason: reason.into() }
    }
}
