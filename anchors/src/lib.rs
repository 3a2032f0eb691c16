//! Hits to anchors: what an encoder and a store do together. The command line, the server and training ask here, so that a
//! question means the same everywhere and fails with the same words.
//!
//! ```text
//!   Ask ──prepare, encode (texts in batches, pictures in batches)──► Query ──store──► Found (hits) ──records──► Anchor
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `ask.rs` | the question and the answer: [`Ask`], [`Input`], [`Found`], [`Anchor`] |
//! | `retriever.rs` | [`Retriever`]: an encoder joined to the pool that belongs to it |
//! | `error.rs` | why a question is refused, each with a stable code |
//! | `recall.rs` | recall@k of known pairs |
//! | `limits.rs` | [`Limits`] |
//!
//! Not here: HTTP, files, how vectors are made or searched. Everything blocks; async callers cross over on a bounded pool.
//!
//! What holds: a [`Retriever`] exists only where the encoder's fingerprint and dimension are the pool's.

mod ask;
mod error;
mod limits;
mod recall;
mod retriever;

pub use ask::{Anchor, Answers, Ask, Found, Input, Times};
pub use error::{AskError, RetrieveError};
pub use limits::Limits;
pub use recall::recall;
pub use retriever::Retriever;
