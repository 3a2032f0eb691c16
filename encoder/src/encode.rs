//! The seam: what ingest, search and training see of an encoder. Two implementations: the ONNX encoder and
//! [`crate::fake::FakeEncoder`] for tests.

use crate::{Embedding, EmbeddingError};

/// One preprocessed picture: `3 x height x width` f32 in channel-major order, normalised, ready for the image tower.
#[derive(Clone, Debug, PartialEq)]
pub struct Pixels {
    /// Channel-major values.
    pub values: Vec<f32>,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// One tokenized caption, without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// Whether the caption was longer than the tower's context and was cut.
    pub truncated: bool,
}

/// Why picture bytes were refused. Each variant has a stable [`ImageError::code`] for reject lists and HTTP bodies.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageError {
    /// No bytes.
    #[error("the picture is empty")]
    Empty,
    /// More encoded bytes than allowed.
    #[error("the picture has {bytes} bytes; at most {max} are allowed")]
    TooManyBytes {
        /// Found.
        bytes: usize,
        /// Limit.
        max: usize,
    },
    /// Not JPEG, PNG or WebP by content.
    #[error("not a JPEG, PNG or WebP picture (first bytes: {head})")]
    UnknownFormat {
        /// The first bytes in hexadecimal.
        head: String,
    },
    /// More pixels, or a longer edge, than allowed; read from the header before anything is decoded.
    #[error("the picture is {width} x {height}; at most {max_pixels} pixels and {max_edge} an edge are allowed")]
    TooLarge {
        /// Columns.
        width: u64,
        /// Rows.
        height: u64,
        /// Limit.
        max_pixels: u64,
        /// Limit.
        max_edge: u64,
    },
    /// Broken or cut short.
    #[error("the {format} picture is damaged: {reason}")]
    Damaged {
        /// "JPEG", "PNG" or "WebP".
        format: &'static str,
        /// The decoder's word.
        reason: String,
    },
    /// A valid file of a kind that is not read.
    #[error("{what} is not supported")]
    Unsupported {
        /// What it is.
        what: String,
    },
}

impl ImageError {
    /// A stable short name for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "image_empty",
            Self::TooManyBytes { .. } => "image_too_many_bytes",
            Self::UnknownFormat { .. } => "image_unknown_format",
            Self::TooLarge { .. } => "image_too_large",
            Self::Damaged { .. } => "image_damaged",
            Self::Unsupported { .. } => "image_unsupported",
        }
    }
}

/// Why a caption was refused.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TextError {
    /// More bytes than allowed before tokenization.
    #[error("the text has {bytes} bytes; at most {max} are allowed")]
    TooLong {
        /// Found.
        bytes: usize,
        /// Limit.
        max: usize,
    },
    /// The tokenizer's own failure.
    #[error("the tokenizer failed: {reason}")]
    Tokenizer {
        /// Its word.
        reason: String,
    },
}

impl TextError {
    /// A stable short name for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "text_too_long",
            Self::Tokenizer { .. } => "text_tokenizer",
        }
    }
}

/// Why a batch could not be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The model has no such tower.
    #[error("this model has no {tower} tower")]
    NoTower {
        /// "image" or "text".
        tower: &'static str,
    },
    /// ONNX Runtime failed.
    #[error("the {tower} tower failed: {reason}")]
    Runtime {
        /// "image" or "text".
        tower: &'static str,
        /// ONNX Runtime's word.
        reason: String,
    },
    /// The tower gave something that is no embedding.
    #[error("item {item} of the batch: {source}")]
    Embedding {
        /// Position in the batch.
        item: usize,
        /// What is wrong.
        source: EmbeddingError,
    },
}

/// A dual encoder: pictures and captions into one space. Shared among threads; every method takes `&self`.
pub trait Encode: Send + Sync {
    /// Values per embedding.
    fn dim(&self) -> usize;

    /// Hex SHA-256 over model, preprocessing and tokenizer files: equal fingerprints give comparable vectors.
    fn fingerprint(&self) -> &str;

    /// A short name for people (folder or hub id).
    fn name(&self) -> &str;

    /// Decodes and preprocesses one picture (CPU, on the caller's thread).
    ///
    /// # Errors
    /// [`ImageError`], by content; the file's name plays no part.
    fn prepare_image(&self, bytes: &[u8]) -> Result<Pixels, ImageError>;

    /// Cleans and tokenizes one caption (CPU, on the caller's thread).
    ///
    /// # Errors
    /// [`TextError`].
    fn prepare_text(&self, text: &str) -> Result<Tokens, TextError>;

    /// Embeds a batch of pictures, in order. Blocks until a session is free.
    ///
    /// # Errors
    /// [`EncodeError`]; the whole batch fails together.
    fn encode_images(&self, batch: &[Pixels]) -> Result<Vec<Embedding>, EncodeError>;

    /// Embeds a batch of captions, in order. Blocks until a session is free.
    ///
    /// # Errors
    /// [`EncodeError`]; the whole batch fails together.
    fn encode_texts(&self, batch: &[Tokens]) -> Result<Vec<Embedding>, EncodeError>;
}
