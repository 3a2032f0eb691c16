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
//! | `writer` | [`PoolWriter`]: opening, publishing |
//! | `changes` | the [`PairSink`](crate::PairSink): appending, replacing, deleting |
//! | `merge` | joining segments: by policy as commits come, or all of them |
//! | `copy`, `stream` | [`copy()`], [`export`], [`import`]: snapshots as folders, and as one tar stream |
//! | `union` | part pools into one |
//! | `repair` | [`repair()`]: damaged graphs built anew |
//! | `warm` | a pool read into memory ahead of its questions |
//! | `report` | [`inspect`] and [`verify`] |
//!
//! Invariants: a published file is never changed, cut or named anew; a reader sees one generation; acknowledged means that
//! files, manifest and folder were synced, in that order; readers write nothing and take no lock.

mod accept;
mod changes;
mod copy;
mod generations;
mod lock;
mod merge;
mod reader;
mod repair;
mod report;
mod stream;
mod union;
mod warm;
mod writer;

pub use crate::format::effort::MAX_EF;
pub use copy::{Copied, CopyTo, copy};
pub use generations::DamagedManifest;
pub use merge::{Compacted, Compacting, MergePolicy};
pub use reader::{OpenOptions, Pool, Verify};
pub use repair::{RepairReport, repair};
pub use report::{BytesOfKind, GraphInfo, PoolInfo, SegmentInfo, VerifyReport, inspect, verify};
pub use stream::{export, import};
pub use union::{Merged, OnConflict};
pub use warm::{Memory, Warmed};
pub use writer::{PoolWriter, ProgressReport, WriterOptions};

pub use crate::map::Access;

pub use crate::disk::{Medium, MediumFile, OsMedium};
