//! Embeddings to hits: the on-disk pool, its memory-mapped HNSW index, exact search and the commit protocol.
//!
//! ```text
//!   Pair ──append──► pending segment ──commit──► Segment (immutable, mapped) ──search──► Hit ──get──► Record
//! ```
//!
//! Not here: HTTP, parquet, image or text encoding, training. This crate speaks `&[f32]` of unit length, keys, opaque
//! picture bytes and small typed columns.
//!
//! Vocabulary: *pool* (a folder), *segment* (immutable files of one commit), *manifest* (the one file that names the live
//! segments), *generation* (the manifest's number), *pair* (image and text of one sample), *side* (which vector of the pair
//! is searched), *row* (a pair's position in the pool), *effort* (how hard a search tries; never a raw `ef`).

pub mod memory;
mod pair;
mod query;
mod store;

pub use pair::{ContentHash, Key, KeyError, Pair, Record, RowId, Side, SourceRef, Value};
pub use query::{Answer, Cancel, Effort, Hit, Query};
pub use store::{PairSink, PairStore, Parts, Spec, StoreError, StoreStatus};
