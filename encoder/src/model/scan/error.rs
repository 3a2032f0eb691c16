//! Why a model file is refused.

use super::WireError;

/// Why a model file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// Not protobuf, or cut short.
    #[error("damaged at {message}: {source}")]
    Damaged {
        /// The ONNX message in which it was met.
        message: &'static str,
        /// What is wrong.
        source: WireError,
    },
    /// A field with the wrong kind of value, out of range, missing or given twice.
    #[error("damaged at {message}: {reason}")]
    Invalid {
        /// The ONNX message in which it was met.
        message: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// ONNX Runtime's own file format, which cannot be scanned.
    #[error("this is ONNX Runtime's own .ort format; use the .onnx file it was made from")]
    OrtFormat,
    /// A field this scanner does not know, so it cannot say whether it is harmless.
    #[error("{message} has field {number}, which is unknown here; export the model for an older ONNX version")]
    UnknownField {
        /// The ONNX message.
        message: &'static str,
        /// Its number.
        number: u32,
    },
    /// An operator that is not allowed.
    #[error("operator {operator} of domain {domain:?} is not allowed; export the model with standard ONNX operators")]
    Operator {
        /// `op_type`.
        operator: String,
        /// Its domain.
        domain: String,
    },
    /// Functions or training information.
    #[error("the model carries {what}, which is refused; {remedy}")]
    Carries {
        /// What it is.
        what: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// More of something than allowed.
    #[error("{what}: {found}, at most {max} are allowed")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// Found.
        found: u64,
        /// Limit.
        max: u64,
    },
    /// External data in a place where it is never accepted.
    #[error("tensor {tensor:?} in {place} keeps its data in another file; only the main graph's plain initializers may")]
    ExternalPlace {
        /// Its name; may be empty.
        tensor: String,
        /// Where it was met.
        place: &'static str,
    },
    /// External data of an initializer, described in a way that is not accepted.
    #[error("the external data of tensor {tensor:?} is refused: {reason}")]
    External {
        /// Its name.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
}
