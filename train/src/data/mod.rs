//! From the finetune set, captions and anchors to the batches of a run.
//!
//! ```text
//!   sources ──read──► Spool (rows by number) ──Order(seed, batch)──► rows ──Preparer──► pixels, tokens ──┐
//!   manifest, pool or server ──anchors──► pairs ─────────────────────────────────────────Preparer────────┼──► StreamBatch
//!                                                                         Prefetch: workers, bounded, in order
//! ```
//!
//! | file | subject |
//! |---|---|
//! | `draw` | randomness as a function of seed and place |
//! | `order` | which rows a batch has |
//! | `spool` | rows by number, in a file without a name |
//! | `read` | the finetune set's rows into a spool, each checked |
//! | `captions` | a file of captions by key |
//! | `augment` | random resized crops |
//! | `prepare` | picture and text to what the towers take |
//! | `anchors/` | anchors of a batch: from a manifest, a pool, a server |
//! | `streams` | batch number to the run's streams |
//! | `prefetch` | batches made ahead by threads, delivered in order |
//!
//! Not here: what a batch is used for. What holds: batch `n` of a run is a pure function of the run file, the data and `n` (for a server:
//! and of its pool's generation); neither threads nor an interruption change it.

pub mod anchors;
mod augment;
mod captions;
mod draw;
mod error;
pub(crate) mod only;
mod order;
mod prefetch;
mod prepare;
mod read;
mod spool;
mod streams;

pub use augment::random_window;
pub use draw::Draw;
pub use error::DataError;
pub use only::Only;
pub use order::{Order, Place};
pub use prefetch::{Prefetch, Prefetched};
pub use prepare::Preparer;
pub use read::{PairSet, Reading, read_task};
pub use spool::{PairData, Spool, SpoolWriter};
pub use streams::{Batch, Streams, StreamsPlan};

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The streams' places among draws: two streams of one seed have nothing in common.
pub(crate) mod stream {
    pub(crate) const TASK: u64 = 1;
    pub(crate) const ANCHORS: u64 = 2;
    pub(crate) const CROP: u64 = 3;
    pub(crate) const TEXT: u64 = 4;
    pub(crate) const CAPTION: u64 = 5;
    pub(crate) const WEIGHTS: u64 = 6;
}
