//! The pool: a folder of immutable segments and one atomically replaced manifest.
//!
//! ```text
//!   PoolWriter ──append──► files no manifest names ──commit──► manifest N+1 ──► Pool::open ──search, get, find──►
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `generations` | which manifests are there, which one counts, what else lies about |
//! | `reader` | [`Pool`], the [`PairStore`](crate::PairStore) |
//! | `accept`, `lock` | what a writer takes, and that there is one |
//! | `writer` | [`PoolWriter`], the [`PairSink`](crate::PairSink) |
//! | `report` | [`inspect`] and [`verify`] |
//!
//! Invariants: a published file is never changed, cut or named anew; a reader sees one generation; acknowledged means that
//! files, manifest and folder were synced, in that order; readers write nothing and take no lock.

mod accept;
mod generations;
mod lock;
mod reader;
mod report;
mod writer;

pub use generations::DamagedManifest;
pub use reader::{MAX_EF, OpenOptions, Pool, Verify, beam_width};
pub use report::{BytesOfKind, GraphInfo, PoolInfo, SegmentInfo, VerifyReport, inspect, verify};
pub use writer::{PoolWriter, ProgressReport, WriterOptions};

pub use crate::disk::IoHook;
