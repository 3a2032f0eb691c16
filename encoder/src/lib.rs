//! Pixels and text to embeddings: model files, ONNX Runtime, preprocessing, tokenizer.
//!
//! ```text
//!   picture bytes ──decode, resize──► Pixels ─┐
//!                                             ├─► tower (ONNX Runtime) ──► Embedding
//!   caption ───────clean, tokenize──► Tokens ─┘
//! ```
//!
//! Not here: files of rows, pools, HTTP. What comes out is an [`Embedding`], finite and of unit length, or an error.

mod embedding;
mod encode;
pub mod fake;
pub mod fetch;
pub mod hub;
pub mod runtime;

pub use embedding::{Embedding, EmbeddingError};
pub use encode::{Encode, EncodeError, ImageError, Pixels, TextError, Tokens};
