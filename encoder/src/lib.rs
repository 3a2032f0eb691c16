//! Pixels and text to embeddings: model files, ONNX Runtime, preprocessing, tokenizer.
//!
//! ```text
//!   picture bytes ──decode, resize──► Pixels ─┐
//!                                             ├─► tower (ONNX Runtime) ──► Embedding
//!   caption ───────clean, tokenize──► Tokens ─┘
//! ```
//!
//! Not here: files of rows, pools, HTTP. What comes out is an [`Embedding`], finite and of unit length, or an error.

mod agreement;
mod embedding;
mod encode;
pub mod fake;
pub mod fetch;
pub mod hub;
pub mod image;
pub mod model;
mod onnx_encoder;
mod open;
pub mod runtime;
pub mod session;
pub mod text;
mod vectors_only;

pub use agreement::{Agreement, AgreementLimits, Disagreement};
pub use embedding::{Embedding, EmbeddingError};
pub use encode::{Encode, EncodeError, ImageError, Pixels, TextError, Tokens};
pub use onnx_encoder::{
    Description, Encoder, EncoderError, EncoderOptions, Load, Preparation, PreparePicture, PrepareText, TowerDescription,
};
pub use open::{OpenError, engine, open};
pub use vectors_only::VectorsOnly;
