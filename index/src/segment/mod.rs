//! One segment: the immutable files of one commit.
//!
//! | file | what |
//! | --- | --- |
//! | `files` | each file kind, mapped, its header checked, its sections as typed slices |
//! | `reader` | records and hits of one segment |
//! | `select` | which rows, and which nodes, a filtered search may find |
//! | `writer` | pairs in, files out |
//! | `copy` | rows one by one, for merging |
//! | `dead` | which rows are dead |
//! | `check` | every checksum and every value |

mod check;
mod copy;
mod dead;
mod files;
mod order;
mod reader;
mod search;
mod select;
mod writer;

pub(crate) use check::check_file;
pub(crate) use copy::Source;
pub(crate) use dead::RowsBySegment;
pub(crate) use reader::{PreparedQuery, Segment, SegmentAnswer, exact};
pub(crate) use select::Selection;
pub(crate) use writer::{Pending, Sealed};
