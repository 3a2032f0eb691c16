//! Captions for pictures by an ONNX image captioner (TCAG): an image encoder and a text decoder, as Hugging Face's optimum exports them.
//!
//! ```text
//!   picture ──prepare──► pixels ──encoder──► hidden states ─┐
//!                     ids so far ──decoder (cache)──────────┴─► logits ──greedy, beam, nucleus──► ids ──tokenizer──► caption ──filter──►
//! ```
//!
//! | file | subject |
//! |---|---|
//! | `decoding` | how the next words are chosen, as data: [`Decoding`] |
//! | `logits` | penalties, log-softmax, the largest, nucleus sampling |
//! | `beam` | beam search of one picture |
//! | `generate` | many pictures, step by step, over anything that is a [`Step`] |
//! | `open` | the captioner's folder: graphs, how captions begin and end |
//! | `model` | its sessions at work: [`Captioner`] |
//! | `hoist` | what a decoder makes of the pictures alone, once a batch |
//! | `filter` | captions that are no use: [`CaptionFilter`] |
//!
//! What holds: greedy and beam search give the ids that transformers' `generate` gives, in any batching; nucleus sampling depends on the seed, the
//! picture and the caption's number, not on the batch. Not here: reading data sets, writing captions.

mod beam;
mod decoding;
mod filter;
mod generate;
mod hoist;
mod logits;
mod model;
mod open;

pub use decoding::{Decoding, Method};
pub use filter::{CaptionFilter, Unfit};
pub use generate::{Generated, Step, generate};
pub use model::{Caption, Captioner};

/// Why there are no captions.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptionError {
    /// A file of the captioner is missing or not what it should be.
    #[error("{}: {reason}", path.display())]
    Folder {
        /// The file or folder.
        path: std::path::PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Settings that make no sense.
    #[error("{field}: {reason}")]
    Setting {
        /// Which one.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// ONNX Runtime failed.
    #[error("the captioner's {part} failed: {reason}")]
    Runtime {
        /// "encoder" or "decoder".
        part: &'static str,
        /// Its word.
        reason: String,
    },
    /// Ended on request.
    #[error("interrupted")]
    Cancelled,
}
