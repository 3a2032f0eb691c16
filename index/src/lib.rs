//! Embeddings to hits: the on-disk pool, its memory-mapped HNSW index, exact search and the commit protocol.
//!
//! ```text
//!   Pair ──append──► pending segment ──commit──► Segment (immutable, mapped) ──search──► Hit ──get──► Record
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `store`, `pair`, `query` | the seam: what goes in, what comes out |
//! | `filter` | which pairs a query may find |
//! | `pool` | a folder: generations, the reader, the writer, reports |
//! | `segment` | the files of one commit |
//! | `hnsw` | building, auditing and searching the graph |
//! | `format` | bytes to structs and back |
//! | `distance`, `quantize`, `sketch`, `topk` | kernels, 7-bit rows, one bit per value, the best k |
//! | `rowset` | a bit per row: what a filter selects, what is alive |
//! | `map`, `disk` | the only memory map; the only writes |
//! | `memory` | the brute-force store that tests compare with |
//!
//! Not here: HTTP, parquet, image or text encoding, training. This crate speaks `&[f32]` of unit length, keys, opaque
//! picture bytes and small typed columns.
//!
//! Vocabulary: *pool* (a folder), *segment* (immutable files of one commit), *manifest* (the one file that names the live
//! segments), *generation* (the manifest's number), *pair* (image and text of one sample), *side* (which vector of the pair
//! is searched), *row* (a pair's position in the pool), *effort* (how hard a search tries; never a raw `ef`).

mod disk;
pub mod distance;
pub mod filter;
pub mod format;
mod hnsw;
mod limits;
mod map;
pub mod memory;
mod pair;
pub mod pool;
mod quantize;
mod query;
mod rowset;
mod segment;
mod sketch;
mod store;
mod topk;

pub use filter::{Field, Filter, FilterError, Kind, Matcher};
pub use hnsw::{BuildParams, BuildProgress, Builder, Refine, Threads};
pub use limits::Limits;

pub use pair::{ContentHash, Key, KeyError, Pair, Record, RowId, Side, SourceRef, Value};
pub use query::{Answer, Cancel, Effort, Hit, Query};
pub use rowset::RowSet;
pub use store::{PairSink, PairStore, Parts, Precision, Spec, StoreError, StoreStatus, Upserted};
